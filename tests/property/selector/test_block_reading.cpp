// Certificates of what blocks of keys hold unread: held on every row, attained where they should be, caught at 0.99.
#include <attnscope/selector/block_reading.hpp>
#include <attnscope/streaming/set_scan.hpp>
#include <support/attained.hpp>
#include <support/mask_reference.hpp>
#include <support/masked_heads.hpp>

#include <set>

using namespace attnscope_test;
using namespace attnscope;

namespace {

struct Numbers {
    Matrix<double> q, k, v;
    double scale = 1;
    HeadView<double> view() const {
        return {MatrixView<double>(q), MatrixView<double>(k), MatrixView<double>(v), scale};
    }
};

/// The truth about a reading, in long double.
struct Truth {
    Ref kept = 1, error = 0, best_unread = -std::numeric_limits<Ref>::infinity(), length = 0;
    std::vector<Ref> z; ///< of visible keys
};
Truth truth_of(const Numbers& head, const KeyRanges& visible, Index query, std::span<const Index> read) {
    Truth truth;
    const std::set<Index> inside(read.begin(), read.end());
    std::vector<Index> keys;
    Ref top = -std::numeric_limits<Ref>::infinity();
    visible.for_each([&](Index key) {
        Ref z = 0;
        for (Index c = 0; c < head.q.cols(); ++c) z += Ref(head.q(query, c)) * Ref(head.k(key, c));
        keys.push_back(key);
        truth.z.push_back(Ref(head.scale) * z);
        top = std::max(top, truth.z.back());
        Ref length = 0;
        for (Index c = 0; c < head.v.cols(); ++c) length += Ref(head.v(key, c)) * Ref(head.v(key, c));
        truth.length = std::max(truth.length, std::sqrt(length));
    });
    Ref in = 0, out = 0;
    const auto d = static_cast<std::size_t>(head.v.cols());
    RefRow in_sum(d), out_sum(d);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const bool is_in = inside.count(keys[i]) > 0;
        const Ref w = std::exp(truth.z[i] - top);
        (is_in ? in : out) += w;
        if (!is_in) truth.best_unread = std::max(truth.best_unread, truth.z[i]);
        for (std::size_t c = 0; c < d; ++c)
            (is_in ? in_sum : out_sum)[c] += w * Ref(head.v(keys[i], static_cast<Index>(c)));
    }
    if (out == 0) return truth;
    truth.kept = in / (in + out);
    Ref square = 0;
    for (std::size_t c = 0; c < d; ++c) {
        const Ref gap = out_sum[c] / out - in_sum[c] / in;
        square += gap * gap;
    }
    truth.error = (1 - truth.kept) * std::sqrt(square);
    return truth;
}

/// Keys of many kinds: scattered, in clusters, equal, far off in one coordinate, two values only.
Numbers random_numbers(SplitMix64& random, Index queries, Index keys) {
    const Index d = 1 + random.below(4), d_v = 1 + random.below(3);
    const double spread = std::exp(3 * random.uniform() - 1);
    Numbers head{normal<double>(random, queries, d, 1), normal<double>(random, keys, d, spread),
                 normal<double>(random, keys, d_v, 1), random.below(4) == 0 ? -0.7 : 0.7};
    switch (random.below(5)) {
    case 0:
        for (Index i = 0; i < keys; ++i) head.k.row(i) = head.k.row(i - i % 4) + 0.1 * head.k.row(i);
        break;
    case 1:
        head.k.col(0).array() += 30;
        break;
    case 2:
        for (Index i = 0; i < keys; ++i) head.k.row(i).setConstant(head.k(i, 0) > 0 ? spread : -spread);
        break;
    case 3:
        head.v.col(0).array() *= 100;
        break;
    default:
        break;
    }
    return head;
}

} // namespace

TEST_CASE("what blocks hold unread is certain: a million readings of random rows",
          "[theorem][selector][block_reading]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst recall, output, limit, certain;
    std::size_t rows = 0, close_recall = 0, close_output = 0, caught_recall = 0, caught_output = 0;
    for (std::uint64_t round = 0; rows < 350000; ++round) {
        SplitMix64 random = generator(seed, round);
        const Index keys = 1 + random.below(24), queries = 8, size = 1 + random.below(6);
        const Numbers head = random_numbers(random, queries, keys);
        const MaskRule rule =
            round % 2 == 0 ? MaskRule{.causal = true, .offset = keys - queries} : random_rule(random, keys);
        const Mask mask = rule.mask();
        const KeyBlocks<double> blocks(MatrixView<double>(head.k), size, MatrixView<double>(head.v),
                                       round % 8 == 0 ? BlockSummary::range : BlockSummary::moments);
        const BlockReader<double> reader(head.view(), blocks, mask);
        for (Index query = 0; query < queries; ++query, ++rows) {
            const KeyRanges visible = mask.visible(query, keys);
            std::vector<Index> some;
            for (Index b = 0; b < blocks.count(); ++b)
                if (random.below(2) == 0) some.push_back(b);
            const double target = random.uniform();
            for (const BlockReading<double>& reading : {reader.read(query, some), reader.until(query, target),
                                                        reader.best(query, random.below(12))}) {
                const Where where{"blocks", static_cast<std::size_t>(keys), 1, round, "double", rule.text()};
                const Truth truth = truth_of(head, visible, query, reading.keys);
                if (reading.keys.empty() && visible.count() > 0) {
                    recall.meet(reading.kept == 0 && std::isnan(reading.output), where);
                    continue;
                }
                const auto kept = block_recall_bound(reading, static_cast<double>(truth.kept), 0.0);
                const auto moved = block_output_bound(reading, static_cast<double>(truth.error), 0.0,
                                                      static_cast<double>(truth.length));
                recall.meet(kept.verdict() != Verdict::violated, where);
                output.meet(moved.verdict() != Verdict::violated, where);
                if (reading.blocks.size() < static_cast<std::size_t>(reading.visible_blocks))
                    limit.meet(truth.best_unread - reading.best_unread, 2 * reading.rounding + 1e-300, where);
                // Keys that are certainly the best are.
                Index better = 0;
                for (const Ref z : truth.z) better += z > reading.best_unread + 2 * reading.rounding;
                certain.meet(better <= reading.certain_top, where);
                close_recall += truth.kept < 1 && kept.tightness() > 0.995;
                caught_recall += truth.kept < 1 && kept.tightened(0.99).verdict() == Verdict::violated;
                close_output += truth.error > 0 && moved.tightness() > 0.995;
                caught_output += truth.error > 0 && moved.tightened(0.99).verdict() == Verdict::violated;
            }
            recall.meet(reader.until(query, target).kept >= target,
                        {"until", 0, 1, round, "double", rule.text()});
        }
    }
    ATTNSCOPE_CHECK_WORST(recall);
    ATTNSCOPE_CHECK_WORST(output);
    ATTNSCOPE_CHECK_WORST(limit);
    ATTNSCOPE_CHECK_WORST(certain);
    INFO("within half a percent: " << close_recall << " recalls, " << close_output
                                   << " outputs; caught at 0.99: " << caught_recall << ", " << caught_output);
    CHECK(caught_recall >= close_recall);
    CHECK(caught_output >= close_output);
    CHECK(caught_recall > 1000);
    CHECK(caught_output > 1000);
}

TEST_CASE("certificates of unread blocks are attained", "[theorem][selector][block_reading]") {
    // d = 1, blocks of keys at two places: mean, variance and range say all there is to say.
    for (const double gap : {0.1, 1.0, 5.0, 30.0})
        for (const Index low : {1, 3, 6, 7}) {
            CAPTURE(gap, low);
            Numbers head{Matrix<double>::Ones(1, 1), Matrix<double>(16, 1), Matrix<double>(16, 2)};
            for (Index i = 0; i < 16; ++i) {
                head.k(i, 0) = i < 8 ? 1 : i - 8 < low ? 0.5 - gap : 0.5;
                head.v.row(i) << (i < 8 ? 1.0 : 3.0), (i < 8 ? 2.0 : -1.0);
            }
            const KeyBlocks<double> blocks(MatrixView<double>(head.k), 8, MatrixView<double>(head.v));
            const BlockReader<double> reader(head.view(), blocks);
            const auto reading = reader.read(0, std::vector<Index>{0});
            const Truth truth = truth_of(head, {{}, {0, 16}}, 0, reading.keys);
            check_attained(block_recall_bound(reading, static_cast<double>(truth.kept), 0.0));
            check_attained(block_output_bound(reading, static_cast<double>(truth.error), 0.0, 4.0));
        }
    // One key a block, values in one direction from what was read: nothing is left open.
    Numbers head{Matrix<double>::Ones(1, 2), Matrix<double>(5, 2), Matrix<double>(5, 2)};
    head.k << 1, 2, 0, 1, -1, 1, 2, 0, 0.5, 0.5;
    head.v << 1, 1, 2, 3, 3, 5, 1, 1, 4, 7;
    const KeyBlocks<double> blocks(MatrixView<double>(head.k), 1, MatrixView<double>(head.v));
    const auto reading = BlockReader<double>(head.view(), blocks).read(0, std::vector<Index>{0, 3});
    const Truth truth = truth_of(head, {{}, {0, 5}}, 0, reading.keys);
    check_attained(block_recall_bound(reading, static_cast<double>(truth.kept), 0.0));
    check_attained(block_output_bound(reading, static_cast<double>(truth.error), 0.0, 9.0));
}

TEST_CASE("most_block_mass is the largest over all numbers of that mean, variance and range",
          "[theorem][selector][block_reading]") {
    // Two-point distributions are extremal: search them, and three points at random.
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    Worst worst;
    for (int round = 0; round < 20000; ++round) {
        std::array<double, 3> z{}, w{};
        double sum = 0, mean = 0, variance = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            z[i] = 6 * random.uniform() - 3;
            sum += w[i] = random.uniform();
        }
        Ref mass = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            mean += (w[i] /= sum) * z[i];
            mass += Ref(w[i]) * std::exp(Ref(z[i]));
        }
        for (std::size_t i = 0; i < 3; ++i) variance += w[i] * (z[i] - mean) * (z[i] - mean);
        const double most = *std::max_element(z.begin(), z.end()) + random.uniform();
        const double limit =
            most_block_mass<double>({-9, most, mean, variance * (1 + random.uniform()), 0}, 1, 0);
        worst.meet(mass - limit, 1e-14L * mass, {"three points", 3, 1, seed});
    }
    ATTNSCOPE_CHECK_WORST(worst);
    CHECK(most_block_mass<double>({0, 0, 0, 0, 0}, 7, 0) == 7);
}

TEST_CASE("readings agree with scan_selection, and refuse what is not there", "[selector][block_reading]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Index n = 70;
    const Matrix<float> q = normal<float>(random, n, 8, 1), k = normal<float>(random, n, 8, 1),
                        v = normal<float>(random, n, 5, 1);
    const HeadView<float> head(q, k, v);
    const KeyBlocks<float> blocks(head.k(), 8, head.v());
    const BlockReader<float> reader(head, blocks, Mask::causal());
    const auto scanned = scan_selection(
        head, [&](Index query) { return reader.until(query, 0.9).keys; }, Mask::causal());
    for (Index query = 0; query < n; ++query) {
        const auto reading = reader.until(query, 0.9);
        const auto& row = scanned.rows[std::size_t(query)];
        const double unit = 64 * std::numeric_limits<float>::epsilon();
        CHECK(row.kept >= reading.kept * (1 - unit));
        CHECK(row.output_error <= reading.output * (1 + unit) + unit);
        CHECK(reading.kept >= 0.9);
    }
    // Within a budget, the newest block first.
    for (const Index query : {0, 7, 8, 40, 69}) {
        const auto reading = reader.best(query, 20);
        CHECK(reading.blocks.front() == query / 8);
        CHECK(static_cast<Index>(reading.keys.size()) <= 20);
        CHECK(reading.visible_blocks == query / 8 + 1);
    }
    CHECK_THROWS_AS(KeyBlocks<float>(head.k(), 0), invalid_argument);
    CHECK_THROWS_AS(KeyBlocks<float>(head.k(), 4, MatrixView<float>(v.data(), 3, 5)), invalid_argument);
    CHECK_THROWS_AS(BlockReader<float>(HeadView<float>(q, k.topRows(9)), blocks), invalid_argument);
    CHECK_THROWS_AS(reader.until(n, 0.5), invalid_argument);
    CHECK_THROWS_AS(reader.until(0, 1.5), invalid_argument);
    CHECK_THROWS_AS(reader.read(0, std::vector<Index>{9}), invalid_argument);
    CHECK_THROWS_AS(reader.read(20, std::vector<Index>{1, 1}), invalid_argument);
}
