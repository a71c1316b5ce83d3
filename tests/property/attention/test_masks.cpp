// Structural masks against the predicate on pairs, for random combinations.
#include <support/mask_reference.hpp>

using namespace attnscope_test;
using attnscope::KeyRange;
using attnscope::KeyRanges;
using attnscope::Mask;

namespace {

/// Empty if `ranges` are the keys that `rule` lets `query` see, else what is wrong.
std::string difference(const MaskRule& rule, const KeyRanges& ranges, Index query, Index keys) {
    std::vector<Index> expected, listed;
    for (Index k = 0; k < keys; ++k)
        if (rule.sees(query, k)) expected.push_back(k);
    ranges.for_each([&](Index k) { listed.push_back(k); });
    const auto fails = [&](const char* what) {
        std::ostringstream out;
        out << what << ": query " << query << " of " << keys << " keys, " << rule.text() << "; expected";
        for (Index k : expected) out << ' ' << k;
        out << "; got";
        for (Index k : listed) out << ' ' << k;
        return out.str();
    };
    if (listed != expected) return fails("keys");
    if (ranges.count() != static_cast<Index>(expected.size())) return fails("count");
    for (Index k = 0; k < keys; ++k)
        if (ranges.contains(k) != rule.sees(query, k)) return fails("contains");
    const KeyRange hull = expected.empty() ? KeyRange{0, 0} : KeyRange{expected.front(), expected.back() + 1};
    if (!(ranges.hull() == hull)) return fails("hull");
    const bool one_range = expected.empty() || hull.size() == static_cast<Index>(expected.size());
    if (one_range != ranges.lead.empty()) return fails("lead is there exactly when two ranges are needed");
    return {};
}

} // namespace

TEST_CASE("masks are their predicate for random combinations", "[mask]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    std::size_t pairs = 0;
    for (Index keys : {0, 1, 2, 3, 7, 12, 30}) {
        SplitMix64 random = generator(seed, keys);
        for (int i = 0; i < 1500; ++i) {
            const MaskRule rule = random_rule(random, std::max<Index>(keys, 1));
            const Mask mask = rule.mask();
            for (Index query = 0; query < keys + 4; ++query) {
                const std::string wrong = difference(rule, mask.visible(query, keys), query, keys);
                pairs += static_cast<std::size_t>(keys);
                if (!wrong.empty()) {
                    INFO(wrong);
                    REQUIRE(wrong.empty());
                }
            }
        }
    }
    CHECK(pairs > 1'000'000);
}

TEST_CASE("masks are their predicate where offsets, widths and queries are the largest there are", "[mask]") {
    constexpr Index most = std::numeric_limits<Index>::max(), least = std::numeric_limits<Index>::min();
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 17);
    Index seen = 0, hidden = 0;
    for (int i = 0; i < 10'000; ++i) {
        const MaskRule rule = random_rule_at_ends(random);
        const Mask mask = rule.mask();
        const Index query = random_end(random, 0), keys = random.below(14);
        if (const std::string wrong = difference(rule, mask.visible(query, keys), query, keys);
            !wrong.empty()) {
            INFO(wrong);
            REQUIRE(wrong.empty());
        }
        // As many keys as there can be, looked at near both ends, and around the query and the window.
        const KeyRanges ranges = mask.visible(query, most);
        const Index places[] = {0,        1,         2,        3,        5,        9,       query,
                                most / 2, most - 12, most - 5, most - 4, most - 3, most - 1};
        for (const Index place : places)
            for (Index key : {place, place - (place > 0), place + (place < most - 1)}) {
                key = std::min(key, most - 1);
                INFO(rule.text() << " query " << query << " key " << key);
                REQUIRE(ranges.contains(key) == rule.sees(query, key));
                ++(rule.sees(query, key) ? seen : hidden);
            }
        REQUIRE(ranges.count() >= 0);
    }
    CHECK(std::min(seen, hidden) > 25'000);
    CHECK(Mask::causal(most).visible(0, 4).count() == 4);
    CHECK(Mask::causal(most).visible(most, most).count() == most);
    CHECK(Mask::causal(least).visible(most, 4).count() == 0);
    CHECK(Mask::sliding_window(most, least).visible(most, 4).count() == 0);
    CHECK(Mask::causal(most).with_window(most).visible(2, 9).body == KeyRange{3, 9});
    CHECK(KeyRange{most, least}.size() == 0);
}

TEST_CASE("the named masks are combinations of the rule", "[mask]") {
    for (Index keys : {1, 5, 12}) {
        for (Index queries : {1, 4, 12}) {
            for (Index q = 0; q < queries; ++q) {
                MaskRule rule;
                CHECK(difference(rule, Mask::none().visible(q, keys), q, keys) == "");
                rule.causal = true;
                CHECK(difference(rule, Mask::causal().visible(q, keys), q, keys) == "");
                rule.offset = keys - queries;
                CHECK(difference(rule, Mask::causal_bottom_right(queries, keys).visible(q, keys), q, keys) ==
                      "");
                rule.window = 3;
                CHECK(difference(rule, Mask::sliding_window(3, keys - queries).visible(q, keys), q, keys) ==
                      "");
            }
        }
    }
    CHECK_THROWS_AS(Mask::causal().with_window(0), attnscope::invalid_argument);
    CHECK_THROWS_AS(Mask::none().with_segments({1, 2}), attnscope::invalid_argument);
    CHECK_THROWS_AS(Mask::none().with_segments({0, 4, 4}), attnscope::invalid_argument);
}
