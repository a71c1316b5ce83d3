// Which keys a query sees, in small cases written by hand.
#include <attnscope/attention/mask.hpp>
#include <support/catch.hpp>

#include <string>
#include <vector>

namespace {

using attnscope::Index;
using attnscope::KeyRange;
using attnscope::KeyRanges;
using attnscope::Mask;

/// One line a query, '#' for a key that it sees.
std::vector<std::string> picture(const Mask& mask, Index queries, Index keys) {
    std::vector<std::string> lines;
    for (Index query = 0; query < queries; ++query) {
        const KeyRanges visible = mask.visible(query, keys);
        std::string line(static_cast<std::size_t>(keys), '.');
        Index count = 0, last = -1;
        visible.for_each([&](Index key) {
            REQUIRE(key > last); // ascending, so none twice
            REQUIRE(key < keys);
            last = key;
            ++count;
            line[static_cast<std::size_t>(key)] = '#';
        });
        CHECK(count == visible.count());
        for (Index key = 0; key < keys; ++key)
            CHECK(visible.contains(key) == (line[static_cast<std::size_t>(key)] == '#'));
        const KeyRange hull = visible.hull();
        const auto first = line.find('#');
        CHECK(hull == (first == std::string::npos
                           ? KeyRange{}
                           : KeyRange{static_cast<Index>(first), static_cast<Index>(line.rfind('#')) + 1}));
        lines.push_back(line);
    }
    return lines;
}

using Lines = std::vector<std::string>;

} // namespace

TEST_CASE("without a mask every query sees every key", "[mask]") {
    CHECK(picture(Mask{}, 2, 3) == Lines{"###", "###"});
    CHECK(picture(Mask::none(), 1, 1) == Lines{"#"});
    CHECK(picture(Mask::none(), 2, 0) == Lines{"", ""});
    CHECK_FALSE(Mask::none().is_causal());
}

TEST_CASE("causal masks, aligned top-left, bottom-right and beyond", "[mask]") {
    CHECK(picture(Mask::causal(), 3, 3) == Lines{"#..", "##.", "###"});
    CHECK(picture(Mask::causal(), 4, 2) == Lines{"#.", "##", "##", "##"});
    CHECK(picture(Mask::causal(2), 3, 4) == Lines{"###.", "####", "####"});
    CHECK(picture(Mask::causal(-1), 3, 3) == Lines{"...", "#..", "##."});
    CHECK(picture(Mask::causal_bottom_right(2, 5), 2, 5) == Lines{"####.", "#####"});
    CHECK(picture(Mask::causal_bottom_right(3, 2), 3, 2) == Lines{"..", "#.", "##"});
    CHECK(Mask::causal(2).is_causal());
    CHECK(Mask::causal(2).offset() == 2);
    CHECK(Mask::causal_bottom_right(2, 5).offset() == 3);
}

TEST_CASE("sliding windows", "[mask]") {
    CHECK(picture(Mask::sliding_window(2), 4, 4) == Lines{"#...", "##..", ".##.", "..##"});
    CHECK(picture(Mask::sliding_window(1), 3, 3) == Lines{"#..", ".#.", "..#"});
    CHECK(picture(Mask::sliding_window(9), 3, 3) == Lines{"#..", "##.", "###"});
    CHECK(picture(Mask::sliding_window(2, 1), 3, 4) == Lines{"##..", ".##.", "..##"});
    CHECK(picture(Mask::sliding_window(2, -2), 4, 3) == Lines{"...", "...", "#..", "##."});
    // Queries beyond the keys have lost them.
    CHECK(picture(Mask::sliding_window(2), 6, 3) == Lines{"#..", "##.", ".##", "..#", "...", "..."});
    const Index widest = std::numeric_limits<Index>::max();
    CHECK(picture(Mask::sliding_window(widest), 3, 3) == Lines{"#..", "##.", "###"});
}

TEST_CASE("a window without causality reaches to both sides", "[mask]") {
    CHECK(picture(Mask::none().with_window(2), 4, 5) == Lines{"##...", "###..", ".###.", "..###"});
    CHECK(picture(Mask::none().with_window(1), 2, 3) == Lines{"#..", ".#."});
    CHECK(picture(Mask::none().with_window(5), 2, 3) == Lines{"###", "###"});
    const Index widest = std::numeric_limits<Index>::max();
    CHECK(picture(Mask::none().with_window(widest), 2, 3) == Lines{"###", "###"});
}

TEST_CASE("sinks stay visible when the window has passed them", "[mask]") {
    CHECK(picture(Mask::sliding_window(2).with_sinks(1), 5, 5) ==
          Lines{"#....", "##...", "###..", "#.##.", "#..##"});
    // The sinks themselves are not seen before their time.
    CHECK(picture(Mask::sliding_window(1).with_sinks(2), 4, 4) == Lines{"#...", "##..", "###.", "##.#"});
    CHECK(picture(Mask::sliding_window(2).with_sinks(0), 3, 3) == Lines{"#..", "##.", ".##"});
    CHECK(picture(Mask::sliding_window(1).with_sinks(9), 3, 3) == Lines{"#..", "##.", "###"});
    // Without a window they change nothing.
    CHECK(picture(Mask::causal().with_sinks(2), 3, 3) == Lines{"#..", "##.", "###"});
}

TEST_CASE("keys before the start are padding", "[mask]") {
    CHECK(picture(Mask::none().with_start(2), 2, 4) == Lines{"..##", "..##"});
    CHECK(picture(Mask::causal().with_start(2), 4, 4) == Lines{"....", "....", "..#.", "..##"});
    CHECK(picture(Mask::causal().with_start(1).with_length(3), 4, 4) == Lines{"....", ".#..", ".##.", ".##."});
    CHECK(picture(Mask::sliding_window(1).with_sinks(1).with_start(1), 4, 4) ==
          Lines{"....", ".#..", ".##.", ".#.#"});
    CHECK(picture(Mask::causal().with_segments({0, 2}).with_start(1), 4, 4) ==
          Lines{"....", ".#..", "..#.", "..##"});
    CHECK(picture(Mask::causal().with_prefix(2).with_start(1), 3, 3) == Lines{".#.", ".#.", ".##"});
    CHECK(picture(Mask::none().with_start(9), 1, 3) == Lines{"..."});
    CHECK_THROWS_AS(Mask::none().with_start(-1), attnscope::invalid_argument);
}

TEST_CASE("finite masks become -inf, but never a whole row", "[mask]") {
    using attnscope::finite_mask_limit;
    using attnscope::mask_at_or_below;
    constexpr float inf = std::numeric_limits<float>::infinity(), lowest = std::numeric_limits<float>::lowest();
    const auto limit = static_cast<float>(finite_mask_limit<float>());
    std::vector<float> row = {1, lowest, -2, lowest / 2, -inf, lowest / 2.5F, -1e9F};
    auto found = mask_at_or_below<float>(row, limit);
    CHECK(found.masked == 2);
    CHECK(!found.spared);
    CHECK(row == std::vector<float>{1, -inf, -2, -inf, -inf, lowest / 2.5F, -1e9F});
    found = mask_at_or_below<float>(row, -1e8F);
    CHECK(found.masked == 2);
    CHECK(row == std::vector<float>{1, -inf, -2, -inf, -inf, -inf, -inf});

    std::vector<float> low = {lowest, -inf, lowest};
    const std::vector<float> before = low;
    found = mask_at_or_below<float>(low, limit);
    CHECK(low == before);
    CHECK(found.masked == 0);
    CHECK(found.spared);
    std::vector<float> empty = {-inf, -inf}, nothing;
    CHECK(!mask_at_or_below<float>(empty, limit).spared);
    CHECK(!mask_at_or_below<float>(nothing, limit).spared);

    // A mask to which a logit was added, in every type.
    std::vector<float> vector = {1, -1e9F, 2};
    CHECK(mask_at_or_below(vector, -1e8).masked == 1); // of whatever owns its numbers
    CHECK(vector[1] == -std::numeric_limits<float>::infinity());
    Eigen::VectorXd eigen(2);
    eigen << -1e9, 3;
    CHECK(mask_at_or_below(eigen, -1e8).masked == 1);
    std::array<double, 2> array = {-1e9, 3};
    CHECK(mask_at_or_below(array, -1e8).masked == 1);
    CHECK(finite_mask_limit<double>() == std::numeric_limits<double>::lowest() / 2);
    CHECK(finite_mask_limit<Eigen::half>() == -30000);
    CHECK(finite_mask_limit<Eigen::bfloat16>() < -1.6e38);
    CHECK(finite_mask_limit<Eigen::bfloat16>() > -1.8e38);
    std::vector<double> half = {-65504, -30000, -29984, 3};
    CHECK(mask_at_or_below<double>(half, finite_mask_limit<Eigen::half>()).masked == 2);
    CHECK(half[2] == -29984);
}

TEST_CASE("keys beyond the length are padding", "[mask]") {
    CHECK(picture(Mask::none().with_length(2), 2, 4) == Lines{"##..", "##.."});
    CHECK(picture(Mask::none().with_length(9), 1, 3) == Lines{"###"});
    CHECK(picture(Mask::none().with_length(0), 2, 3) == Lines{"...", "..."});
    CHECK(picture(Mask::causal().with_length(2), 4, 4) == Lines{"#...", "##..", "##..", "##.."});
    CHECK(picture(Mask::sliding_window(2).with_length(2), 4, 4) == Lines{"#...", "##..", ".#..", "...."});
}

TEST_CASE("a prefix is seen by every query", "[mask]") {
    CHECK(picture(Mask::causal().with_prefix(2), 4, 4) == Lines{"##..", "##..", "###.", "####"});
    CHECK(picture(Mask::causal().with_prefix(0), 2, 2) == Lines{"#.", "##"});
    CHECK(picture(Mask::causal().with_prefix(9), 2, 3) == Lines{"###", "###"});
    CHECK(picture(Mask::sliding_window(1).with_prefix(2), 4, 5) == Lines{"##...", "##...", "###..", "##.#."});
    // Padding is padding, prefix or not.
    CHECK(picture(Mask::causal().with_prefix(3).with_length(2), 2, 4) == Lines{"##..", "##.."});
    CHECK(picture(Mask::causal(-2).with_prefix(1), 3, 3) == Lines{"#..", "#..", "#.."});
    // The longer of prefix and sinks.
    CHECK(picture(Mask::sliding_window(1).with_prefix(1).with_sinks(2), 4, 4) ==
          Lines{"#...", "##..", "###.", "##.#"});
}

TEST_CASE("packed documents do not see each other", "[mask]") {
    CHECK(picture(Mask::none().with_segments({0, 2, 3}), 5, 5) ==
          Lines{"##...", "##...", "..#..", "...##", "...##"});
    CHECK(picture(Mask::causal().with_segments({0, 2}), 4, 4) == Lines{"#...", "##..", "..#.", "..##"});
    CHECK(picture(Mask::causal(1).with_segments({0, 2}), 3, 4) == Lines{"##..", "..#.", "..##"});
    // A query before the first document sees nothing.
    CHECK(picture(Mask::causal(-1).with_segments({0, 2}), 4, 3) == Lines{"...", "#..", "##.", "..#"});
    // Every document has its own sinks.
    CHECK(picture(Mask::sliding_window(1).with_sinks(1).with_segments({0, 3}), 6, 6) ==
          Lines{"#.....", "##....", "#.#...", "...#..", "...##.", "...#.#"});
    CHECK(picture(Mask::sliding_window(2).with_segments({0, 3}), 5, 5) ==
          Lines{"#....", "##...", ".##..", "...#.", "...##"});
    // A document that starts beyond the keys.
    CHECK(picture(Mask::none().with_segments({0, 2, 7}), 4, 3) == Lines{"##.", "##.", "..#", "..#"});
    // The prefix of another document stays hidden.
    CHECK(picture(Mask::causal().with_prefix(2).with_segments({0, 3}), 5, 5) ==
          Lines{"##...", "##...", "###..", "...#.", "...##"});
}

TEST_CASE("two ranges only where one is not enough", "[mask]") {
    const KeyRanges two = Mask::sliding_window(2).with_sinks(1).visible(4, 5);
    CHECK(two.lead == KeyRange{0, 1});
    CHECK(two.body == KeyRange{3, 5});
    const KeyRanges touching = Mask::sliding_window(2).with_sinks(1).visible(2, 5);
    CHECK(touching.lead.empty());
    CHECK(touching.body == KeyRange{0, 3});
    const KeyRanges only_lead = Mask::sliding_window(1).with_prefix(2).visible(7, 5);
    CHECK(only_lead.lead.empty());
    CHECK(only_lead.body == KeyRange{0, 2});
    CHECK(Mask::causal(-3).visible(0, 4).count() == 0);
    CHECK(Mask::causal(-3).visible(0, 4).hull() == KeyRange{});
}

TEST_CASE("a refined mask leaves the one it came from alone", "[mask]") {
    const Mask causal = Mask::causal();
    const Mask refined = causal.with_window(1).with_length(2);
    CHECK(picture(causal, 3, 3) == Lines{"#..", "##.", "###"});
    CHECK(picture(refined, 3, 3) == Lines{"#..", ".#.", "..."});
}

TEST_CASE("the size of a range is never negative", "[mask]") {
    CHECK(KeyRange{3, 1}.size() == 0);
    CHECK(KeyRange{3, 1}.empty());
    CHECK(KeyRange{1, 3}.size() == 2);
}

TEST_CASE("masks agree with their definition, key by key", "[mask]") {
    // Every combination of small parameters against the sentence in the doc comment of Mask.
    const std::vector<std::vector<Index>> documents = {{}, {0}, {0, 2}, {0, 1, 4}};
    Index checked = 0;
    for (const bool causal : {false, true})
        for (const Index offset : {-2, 0, 3})
            for (const Index window : {0, 1, 2, 9}) // 0: none
                for (const Index sinks : {0, 2})
                    for (const Index prefix : {0, 3})
                        for (const Index length : {-1, 0, 3}) // -1: none
                            for (const auto& starts : documents) {
                                if (!causal && offset != 0) continue;
                                // Sinks and prefix only add to what a causal rule hides.
                                if (!causal && (sinks > 0 || prefix > 0)) continue;
                                Mask mask = causal ? Mask::causal(offset) : Mask::none();
                                if (window > 0) mask = mask.with_window(window);
                                if (length >= 0) mask = mask.with_length(length);
                                if (!starts.empty()) mask = mask.with_segments(starts);
                                mask = mask.with_sinks(sinks).with_prefix(prefix);
                                for (Index query = 0; query < 7; ++query)
                                    for (Index key = 0; key < 6; ++key) {
                                        const Index position = query + offset;
                                        Index begin = 0;
                                        bool same = true;
                                        if (!starts.empty()) {
                                            const auto segment = [&](Index at) {
                                                Index s = -1;
                                                for (const Index start : starts) s += at >= start;
                                                return s;
                                            };
                                            same = segment(key) == segment(position);
                                            begin = starts[static_cast<std::size_t>(segment(key))];
                                        }
                                        bool rule = true;
                                        if (causal)
                                            rule = key <= position && (window == 0 || key > position - window ||
                                                                       key < begin + sinks);
                                        else if (window > 0)
                                            rule = std::abs(key - position) < window;
                                        const bool seen =
                                            (length < 0 || key < length) && same && (key < prefix || rule);
                                        if (mask.visible(query, 6).contains(key) != seen) {
                                            CAPTURE(causal, offset, window, sinks, prefix, length,
                                                    starts.size());
                                            CAPTURE(query, key, seen);
                                            FAIL_CHECK(
                                                "a key is seen that should not be, or the other way round");
                                        }
                                        ++checked;
                                    }
                            }
    CHECK(checked > 20'000);
}
