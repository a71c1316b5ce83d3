// A head in blocks of queries and keys, scanned apart and merged: against the dense rows, and to the bit where that is said.
#include <attnscope/attention/attend.hpp>
#include <attnscope/streaming/block_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/mask_reference.hpp>
#include <support/masked_heads.hpp>
#include <support/rows.hpp>

#include <deque>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class T>
struct OwnHead {
    Matrix<T> q, k, v;
    T scale = T(0.5);
    HeadView<T> view() const { return {MatrixView<T>(q), MatrixView<T>(k), MatrixView<T>(v), scale}; }
};

/// Logits that are exact in float, so that no difference is one of products.
template <class T>
OwnHead<T> exact_head(SplitMix64& random, Index queries, Index keys, Index d_v) {
    OwnHead<T> head{Matrix<T>(queries, 5), Matrix<T>(keys, 5), normal<T>(random, keys, d_v, 2)};
    for (Matrix<T>* m : {&head.q, &head.k})
        for (Index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<T>(random.below(7) - 3);
    return head;
}

/// A head's blocks of these queries, one for each run of keys between the cuts.
template <class T, class E = Sequential>
BlockScan<T, 4> blocks_of(const OwnHead<T>& head, KeyRange queries, const std::vector<Index>& cuts,
                          const Mask& mask, const ScanOptions& options, const E& executor = {}) {
    std::optional<BlockScan<T, 4>> all;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Index keys = cuts[i + 1] - cuts[i];
        const OwnHead<T> block{head.q.middleRows(queries.begin, queries.size()),
                               head.k.middleRows(cuts[i], keys), head.v.middleRows(cuts[i], keys), head.scale};
        auto part =
            scan_block<4>(block.view(), {queries.begin, cuts[i], head.k.rows()}, mask, options, executor);
        if (all)
            all->merge(part);
        else
            all = std::move(part);
    }
    return *all;
}

std::vector<Index> random_cuts(SplitMix64& random, Index keys) {
    std::vector<Index> cuts{0, keys};
    for (Index i = random.below(4); i-- > 0;) cuts.push_back(random.below(keys + 1));
    std::sort(cuts.begin(), cuts.end());
    return cuts; // some blocks may be empty
}

} // namespace

TEMPLATE_TEST_CASE("blocks of a head merge to its rows", "[streaming][block_scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst figures, outputs, columns, identity;
    std::deque<std::string> texts; // views of them are kept
    for (int trial = 0; trial < 60; ++trial) {
        SplitMix64 random = generator(seed, trial);
        const Index queries = 1 + random.below(40), keys = 1 + random.below(60), width = 1 + random.below(5);
        const OwnHead<T> head = exact_head<T>(random, queries, keys, width);
        const MaskRule rule = random_rule(random, keys);
        const Mask mask = rule.mask();
        const Where where{texts.emplace_back(rule.text()),
                          static_cast<std::size_t>(keys),
                          static_cast<double>(trial),
                          seed,
                          scalar_name<T>(),
                          "blocks"};
        const ScanOptions options{.query_tile = 1 + random.below(9),
                                  .key_tile = 1 + random.below(20),
                                  .output = true,
                                  .temperature = 2,
                                  .bias = [](Index query, Index key) { return double((3 * query + key) % 4); }};
        const std::vector<Index> cuts = random_cuts(random, keys);
        const auto whole = scan<4>(head.view(), mask, options);

        // One block is the scan itself, and neither threads nor blocks of queries change a bit.
        const auto one = blocks_of<T>(head, {0, queries}, {0, keys}, mask, options).finish();
        identity.meet(one.rows == whole.rows && one.output == whole.output, where);
        const auto merged = blocks_of<T>(head, {0, queries}, cuts, mask, options),
                   threaded = blocks_of<T>(head, {0, queries}, cuts, mask, options, Threads(2));
        identity.meet(std::equal(merged.rows().begin(), merged.rows().end(), threaded.rows().begin()) &&
                          merged.sums() == threaded.sums(),
                      where);
        const auto result = merged.finish();
        const Index half = random.below(queries + 1);
        for (const KeyRange part : {KeyRange{0, half}, KeyRange{half, queries}}) {
            const auto own = blocks_of<T>(head, part, cuts, mask, options).finish();
            for (Index i = 0; i < part.size(); ++i)
                identity.meet(own.rows[std::size_t(i)] == result.rows[std::size_t(part.begin + i)] &&
                                  own.output.row(i) == result.output.row(part.begin + i),
                              where);
        }

        std::vector<double> totals;
        for (Index i = 0; i < queries; ++i) {
            const auto& state = result.rows[std::size_t(i)];
            const auto row = state.statistics();
            std::vector<T> z;
            std::vector<Index> seen;
            for (Index key = 0; key < keys; ++key) {
                if (!rule.sees(i, key)) continue;
                seen.push_back(key);
                z.push_back((head.scale * head.q.row(i).dot(head.k.row(key)) + T((3 * i + key) % 4)) / T(2));
            }
            const auto exact = row_statistics<T>(in(z));
            totals.push_back(static_cast<double>(row.log_sum_exp()));
            identity.meet(row.status == exact.status && row.visible == exact.visible, where);
            if (!exact.normal()) {
                identity.meet(result.output.row(i).isZero(0), where);
                continue;
            }
            identity.meet(row.argmax == seen[std::size_t(exact.argmax)] && row.max_logit == exact.max_logit &&
                              row.min_logit == exact.min_logit,
                          where);
            // As row_statistics promises, and a few units of double for each merge.
            const Ref tolerance = 2 * (std::is_same_v<T, float> ? Ref(1e-6) : Ref(1e-13));
            for (const auto& [a, b] : {std::pair{row.entropy_nats(), exact.entropy_nats()},
                                       {row.rest(), exact.rest()},
                                       {row.power_sum_2(), exact.power_sum_2()},
                                       {row.log_sum_exp(), exact.log_sum_exp()}})
                figures.meet(std::abs(Ref(a) - Ref(b)),
                             tolerance * std::max(std::abs(Ref(b)), Ref(std::numeric_limits<T>::min())), where);
            Ref mass = 0;
            for (const T x : z) mass += std::exp(Ref(x) - Ref(exact.max_logit));
            for (Index c = 0; c < width; ++c) {
                Ref sum = 0, size = 0;
                for (std::size_t j = 0; j < z.size(); ++j) {
                    const Ref term =
                        std::exp(Ref(z[j]) - Ref(exact.max_logit)) / mass * Ref(head.v(seen[j], c));
                    sum += term;
                    size += std::abs(term);
                }
                outputs.meet(std::abs(Ref(result.output(i, c)) - sum),
                             unit_roundoff<T> * (64 + 2 * static_cast<Ref>(keys)) * size, where);
            }
        }

        // What keys collect: blocks of keys side by side to the bit, blocks of queries merged.
        TileOptions tiles = options.tiles();
        const ColumnScan columns_of_whole = scan_column_mass(head.view(), totals, mask, tiles);
        const auto block_columns = [&](KeyRange some, const std::vector<double>& of) {
            std::optional<ColumnSums> all;
            for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
                const Index count = cuts[i + 1] - cuts[i];
                const OwnHead<T> block{head.q.middleRows(some.begin, some.size()),
                                       head.k.middleRows(cuts[i], count), head.v.middleRows(cuts[i], count),
                                       head.scale};
                auto sums = scan_block_columns(block.view(), {some.begin, cuts[i], keys}, of, mask, tiles);
                if (all)
                    all->append(sums);
                else
                    all = std::move(sums);
            }
            return *all;
        };
        const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
        const ColumnScan side_by_side = block_columns({0, queries}, totals).mean();
        identity.meet(same(side_by_side.row_sum, columns_of_whole.row_sum), where);
        ColumnSums sum = block_columns({0, half}, {totals.begin(), totals.begin() + half});
        sum.merge(block_columns({half, queries}, {totals.begin() + half, totals.end()}));
        const ColumnScan by_queries = sum.mean();
        for (Index key = 0; key < keys; ++key) {
            identity.meet(same(side_by_side.mass[key], columns_of_whole.mass[key]), where);
            const double a = by_queries.mass[key], b = columns_of_whole.mass[key];
            if (!(b == b) || !(a == a))
                identity.meet(same(a, b), where);
            else // tiles of queries are cut elsewhere, and of one tile the sum is in T
                columns.meet(std::abs(Ref(a) - Ref(b)), 20 * unit_roundoff<T> * Ref(b), where);
        }
    }
    ATTNSCOPE_CHECK_WORST(identity);
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(outputs);
    ATTNSCOPE_CHECK_WORST(columns);
}

TEST_CASE("blocks of a head: special rows", "[streaming][block_scan]") {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                     inf = std::numeric_limits<double>::infinity();
    // Logits by the bias alone. Every kind of row, its special keys in the first block, the second, and both.
    Matrix<double> logits(8, 4);
    logits << 0, 1, 2, 3, nan, 1, 2, 3, 0, 1, nan, 3, inf, 1, 2, 3, 0, 1, 2, inf, inf, 0, inf, 0, -inf, -inf,
        -inf, -inf, -inf, -inf, 5, -inf;
    Matrix<double> v(4, 2);
    v << 1, 10, 2, 20, 4, 40, 8, 80;
    const Matrix<double> q = Matrix<double>::Zero(8, 1), k = Matrix<double>::Zero(4, 1);
    const ScanOptions options{.output = true,
                              .bias = [&](Index query, Index key) { return logits(query, key); }};
    const auto part = [&](Index first, Index count) {
        return scan_block<4>(HeadView<double>(q, Matrix<double>(k.middleRows(first, count)).eval(),
                                              MatrixView<double>(v.data() + 2 * first, count, 2)),
                             {0, first, 4}, Mask::none(), options);
    };
    auto all = part(0, 2);
    all.merge(part(2, 2));
    const auto got = all.finish();
    const auto wanted = scan<4>(HeadView<double>(q, k, v), Mask::none(), options);
    for (Index i = 0; i < 8; ++i) {
        CAPTURE(i);
        CHECK(got.rows[std::size_t(i)].status() == wanted.rows[std::size_t(i)].status());
        CHECK(got.rows[std::size_t(i)].statistics().argmax == wanted.rows[std::size_t(i)].statistics().argmax);
        for (Index c = 0; c < 2; ++c) {
            const double a = got.output(i, c), b = wanted.output(i, c);
            if (b != b)
                CHECK(a != a);
            else
                CHECK(a == Catch::Approx(b).epsilon(1e-14));
        }
    }
    CHECK(got.output(3, 0) == 1);
    CHECK(got.output(4, 0) == 8);
    CHECK(got.output(5, 1) == 25); // the mean of two
    CHECK(got.output(7, 0) == 4);

    // Beside a sink: as the scan with it.
    ScanOptions with_sink = options;
    with_sink.sink_logit = 1.5;
    const auto sunk = all.finish(1.5), beside = scan<4>(HeadView<double>(q, k, v), Mask::none(), with_sink);
    CHECK(sunk.output(0, 1) == Catch::Approx(beside.output(0, 1)).epsilon(1e-14));
    CHECK(sunk.with_sink(0).sink_mass() == Catch::Approx(beside.with_sink(0).sink_mass()).epsilon(1e-14));
}

TEMPLATE_TEST_CASE("a grid of blocks is the head", "[streaming][block_scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst identity, columns;
    std::deque<std::string> texts;
    for (int trial = 0; trial < 60; ++trial) {
        SplitMix64 random = generator(seed, trial, 2);
        const Index queries = 1 + random.below(40), keys = 1 + random.below(60);
        const bool output = random.below(2) == 0;
        const OwnHead<T> head = exact_head<T>(random, queries, keys, 2);
        const MaskRule rule = random_rule(random, keys);
        const Mask mask = rule.mask();
        const BlockGrid grid(queries, keys, mask,
                             {.queries = 1 + random.below(20), .keys = 1 + random.below(30)});
        const Where where{texts.emplace_back(rule.text()),
                          static_cast<std::size_t>(keys),
                          double(trial),
                          seed,
                          scalar_name<T>(),
                          "grid"};
        const ScanOptions options{.output = output};
        const auto block = [&](Index i) {
            const auto& [of, part] = grid[i];
            return OwnHead<T>{head.q.middleRows(of.begin, of.size()),
                              head.k.middleRows(part.begin, part.size()),
                              head.v.middleRows(part.begin, part.size()), head.scale};
        };
        BlockMerger<T, 4> merger(grid);
        for (Index i = 0; i < grid.size(); ++i)
            merger.take(scan_block<4>(block(i).view(), grid.place(i), mask, options));
        const auto got = merger.finish(), whole = scan<4>(head.view(), mask, options);
        // Of every pair that sees each other, once.
        Index pairs = 0;
        for (Index i = 0; i < grid.size(); ++i)
            for (Index query = grid[i].queries.begin; query < grid[i].queries.end; ++query)
                for (Index key = grid[i].keys.begin; key < grid[i].keys.end; ++key)
                    pairs += rule.sees(query, key);
        Index all = 0;
        std::vector<double> totals;
        for (Index i = 0; i < queries; ++i) {
            const auto& row = got.rows[std::size_t(i)];
            all += row.finite_keys();
            totals.push_back(row.statistics().log_sum_exp());
            identity.meet(row.finite_keys() == whole.rows[std::size_t(i)].finite_keys() &&
                              row.leaders() == whole.rows[std::size_t(i)].leaders(),
                          where);
        }
        identity.meet(pairs == all, where);
        identity.meet(got.output.rows() == (output && grid.size() > 0 ? queries : 0), where);
        if (got.output.size() > 0)
            for (Index i = 0; i < got.output.size(); ++i)
                columns.meet(std::abs(Ref(got.output.data()[i]) - Ref(whole.output.data()[i])),
                             unit_roundoff<T> * (64 + 2 * static_cast<Ref>(keys)) * 10, where);
        ColumnMerger column_merger(grid);
        for (Index i = 0; i < grid.size(); ++i) {
            const auto& of = grid[i].queries;
            column_merger.take(
                scan_block_columns(block(i).view(), grid.place(i),
                                   std::vector(totals.begin() + of.begin, totals.begin() + of.end), mask));
        }
        const ColumnScan merged = column_merger.finish(), direct = scan_column_mass(head.view(), totals, mask);
        for (Index key = 0; key < keys; ++key) {
            const double a = merged.mass[key], b = direct.mass[key];
            if (!(a == a && b == b))
                identity.meet(a != a && b != b, where);
            else
                columns.meet(std::abs(Ref(a) - Ref(b)), 20 * unit_roundoff<T> * Ref(b), where);
        }
    }
    ATTNSCOPE_CHECK_WORST(identity);
    ATTNSCOPE_CHECK_WORST(columns);

    const BlockGrid grid(4, 6, Mask::none(), {2, 3});
    REQUIRE(grid.size() == 4);
    BlockMerger<T, 4> merger(grid);
    const BlockScan<T, 4> second({0, 3, 6}, 3, std::vector<RowState<T, 4>>(2), {});
    CHECK_THROWS_WITH(merger.take(second), Catch::Matchers::ContainsSubstring("order"));
    CHECK_THROWS_AS(merger.finish(), invalid_argument);
    CHECK_THROWS_AS(ColumnMerger(grid).finish(), invalid_argument);
    CHECK_THROWS_AS(BlockGrid(4, 6, Mask::none(), {0, 3}), invalid_argument);
    CHECK_THROWS_AS(BlockGrid(-1, 6), invalid_argument);
}

TEST_CASE("blocks of a head: what must fit", "[streaming][block_scan]") {
    SplitMix64 random = generator(test_seed(), 3);
    const OwnHead<float> head = exact_head<float>(random, 4, 6, 2);
    const auto at = [&](BlockPlace place, bool output = true) {
        return scan_block<4>(head.view(), place, Mask::none(), {.output = output});
    };
    CHECK_THROWS_WITH(at({0, 1, 6}), Catch::Matchers::ContainsSubstring("got 1 and 6 and 6"));
    CHECK_THROWS_AS(at({-1, 0, 6}), invalid_argument);
    CHECK_THROWS_AS(scan_block<4>(head.view(), {0, 0, 6}, {}, {.sink_logit = 1.0}), invalid_argument);
    CHECK_THROWS_AS(scan_block<4>(head.view(), {0, 0, 6}, {},
                                  {.query_tile = 1, .progress = [](Index, Index) { return false; }}),
                    invalid_argument);
    auto first = at({0, 0, 12});
    CHECK_THROWS_WITH(first.finish(), Catch::Matchers::ContainsSubstring("all keys"));
    CHECK_THROWS_AS(first.merge(first), invalid_argument); // would count twice
    CHECK_THROWS_AS(first.merge(at({0, 5, 12})), invalid_argument);
    CHECK_THROWS_AS(first.merge(at({1, 6, 12})), invalid_argument);
    CHECK_THROWS_AS(first.merge(at({0, 6, 13})), invalid_argument);
    CHECK_THROWS_AS(first.merge(at({0, 6, 12}, false)), invalid_argument);
    first.merge(at({0, 6, 12}));
    CHECK_NOTHROW(first.finish());
    CHECK_THROWS_AS(first.finish(std::numeric_limits<double>::infinity()), invalid_argument);
    CHECK_THROWS_AS((BlockScan<float, 4>({0, 3, 6}, 4, {}, {})), invalid_argument);

    const std::vector<double> totals(4, 1.0);
    auto sums = scan_block_columns(head.view(), {0, 0, 12}, totals);
    CHECK_THROWS_AS(scan_block_columns(head.view(), {0, 7, 12}, totals), invalid_argument);
    CHECK_THROWS_AS(scan_block_columns(head.view(), {0, 0, 12}, std::vector<double>(3)), invalid_argument);
    CHECK_THROWS_AS(sums.append(sums), invalid_argument);
    CHECK_THROWS_AS(sums.merge(scan_block_columns(head.view(), {0, 6, 12}, totals)), invalid_argument);
}
