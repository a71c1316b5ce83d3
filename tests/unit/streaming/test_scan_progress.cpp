// A scan that is cut short says so, says how far it came, and leaves nothing that looks like a result.
#include <attnscope/streaming/column_scan.hpp>
#include <attnscope/streaming/distance_scan.hpp>
#include <attnscope/streaming/divergence_scan.hpp>
#include <attnscope/streaming/jacobian_scan.hpp>
#include <attnscope/streaming/selection_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <attnscope/streaming/value_state.hpp>
#include <attnscope/streaming/weight_histogram.hpp>
#include <support/catch.hpp>
#include <support/masked_heads.hpp>

#include <algorithm>
#include <cmath>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::RowStatus;
using attnscope::ScanExtent;
using attnscope::ScanProgress;
using attnscope::Softmax;
using attnscope::Threads;
using attnscope::TileOptions;
using attnscope::TileOut;

namespace {

constexpr Index queries = 20, keys = 35, tile = 4;

/// Lets a number of tiles through.
struct Limit {
    Index tiles;
    Index calls = 0, done = 0, all = 0;
    ScanProgress progress() {
        return [this](Index now, Index whole) {
            done = now;
            all = whole;
            return ++calls < tiles;
        };
    }
    TileOptions options() { return {.query_tile = tile, .progress = progress()}; }
};

/// Two tiles of one thread: queries 0 to 7.
void check_two_tiles(const ScanExtent& extent, const Limit& limit) {
    CHECK(limit.calls == 2);
    CHECK(limit.all == queries);
    CHECK(extent.cancelled);
    CHECK(extent.all == queries);
    CHECK(extent.done == 2 * tile);
    for (Index i = 0; i < queries; ++i) CHECK(extent.reached(i) == (i < 2 * tile));
}

void check_whole(const ScanExtent& extent, Index all = queries) {
    CHECK_FALSE(extent.cancelled);
    CHECK(extent.all == all);
    CHECK(extent.done == all);
    CHECK(extent.missing.empty());
    for (Index i = 0; i < all; ++i) CHECK(extent.reached(i));
}

template <class T>
struct Case {
    SplitMix64 random = SplitMix64(7);
    Matrix<T> q = normal<T>(random, queries, 4, 2), k = normal<T>(random, keys, 4, 2),
              v = normal<T>(random, keys, 3, 1);
    HeadView<T> head{q, k, v};
    Mask mask = Mask::causal_bottom_right(queries, keys);
};

/// scan(options, executor) cut short after two tiles, stopped by its last one, and whole; check(result) for
/// each.
template <class Scan, class Check>
void follow(const Scan& scan, const Check& check) {
    {
        Limit limit{2};
        const auto part = scan(limit.options(), attnscope::Sequential());
        check_two_tiles(part, limit);
        check(part);
    }
    { // "stop" after all is done stops nothing
        Limit limit{queries / tile};
        const auto whole = scan(limit.options(), attnscope::Sequential());
        CHECK(limit.done == queries);
        check_whole(whole);
        check(whole);
    }
    { // without anybody who follows
        const auto whole = scan(TileOptions{.query_tile = tile}, attnscope::Sequential());
        check_whole(whole);
        check(whole);
    }
    { // threads finish what they have begun
        Limit limit{1};
        const auto part = scan(limit.options(), Threads(3));
        Index reached = 0;
        for (Index i = 0; i < queries; ++i) reached += part.reached(i);
        CHECK(reached == part.done);
        CHECK(part.cancelled == (part.done < queries));
        CHECK(part.done >= tile);
        check(part);
    }
}

} // namespace

TEMPLATE_TEST_CASE("rows that a scan did not reach are NaN rows", "[streaming][progress]", float, double) {
    using T = TestType;
    const Case<T> c;
    const auto whole = attnscope::scan(c.head, c.mask, {.output = true});
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            return attnscope::scan(c.head, c.mask,
                                   {.query_tile = tiles.query_tile,
                                    .key_tile = tiles.key_tile,
                                    .output = true,
                                    .progress = tiles.progress},
                                   executor);
        },
        [&](const auto& found) {
            REQUIRE(found.rows.size() == static_cast<std::size_t>(queries));
            for (Index i = 0; i < queries; ++i) {
                const auto& row = found.rows[static_cast<std::size_t>(i)];
                if (found.reached(i)) {
                    CHECK(row == whole.rows[static_cast<std::size_t>(i)]);
                    CHECK(found.output.row(i) == whole.output.row(i));
                } else {
                    CHECK(row.status() == RowStatus::nan);
                    CHECK(std::isnan(row.statistics().entropy_nats()));
                    CHECK(found.output.row(i).array().isNaN().all());
                }
            }
            CHECK(found.count(RowStatus::normal) == found.done);
            CHECK(found.count(RowStatus::nan) == 0);
        });
}

TEST_CASE("of many heads each says how far it came", "[streaming][progress]") {
    const Case<float> c;
    Limit limit{7}; // five tiles of the first head, two of the second
    const std::vector<HeadView<float>> heads(3, c.head);
    const auto found =
        attnscope::scan_heads(heads, {c.mask}, {.query_tile = tile, .progress = limit.progress()});
    CHECK(limit.all == 3 * queries);
    REQUIRE(found.size() == 3);
    check_whole(found[0]);
    CHECK(found[1].cancelled);
    CHECK(found[1].done == 2 * tile);
    CHECK(found[1].reached(2 * tile - 1));
    CHECK_FALSE(found[1].reached(2 * tile));
    CHECK(found[2].cancelled);
    CHECK(found[2].done == 0);
    CHECK(found[2].rows[0].status() == RowStatus::nan);
}

TEMPLATE_TEST_CASE("moments of values that a scan did not reach are NaN", "[streaming][progress]", float,
                   double) {
    using T = TestType;
    const Case<T> c;
    const auto whole = attnscope::scan_value_moments(c.head, c.mask);
    follow([&](const TileOptions& tiles,
               const auto& executor) { return attnscope::scan_value_moments(c.head, c.mask, tiles, executor); },
           [&](const auto& found) {
               for (Index i = 0; i < queries; ++i) {
                   CHECK(std::isnan(found.variance[i]) != found.reached(i));
                   if (found.reached(i)) {
                       CHECK(found.output.row(i) == whole.output.row(i));
                       CHECK(found.variance[i] == whole.variance[i]);
                   } else {
                       CHECK(found.output.row(i).array().isNaN().all());
                   }
               }
           });
}

TEST_CASE("a histogram counts the rows that it reached", "[streaming][progress]") {
    const Case<float> c;
    follow([&](const TileOptions& tiles,
               const auto& executor) { return attnscope::scan_histogram(c.head, c.mask, tiles, executor); },
           [&](const auto& found) {
               std::uint64_t pairs = 0;
               for (Index i = 0; i < queries; ++i)
                   if (found.reached(i)) pairs += static_cast<std::uint64_t>(c.mask.visible(i, keys).count());
               CHECK(found.histogram.pairs == pairs);
           });
}

TEST_CASE("norms of Jacobians that a scan did not reach are NaN", "[streaming][progress]") {
    const Case<float> c;
    const auto whole = attnscope::scan_jacobian_norms(c.head, Softmax(), c.mask);
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            return attnscope::scan_jacobian_norms(c.head, Softmax(), c.mask, tiles, executor);
        },
        [&](const auto& found) {
            for (Index i = 0; i < queries; ++i) {
                const auto &norms = found.rows[static_cast<std::size_t>(i)],
                           &right = whole.rows[static_cast<std::size_t>(i)];
                for (const double norm : {norms.max_entry, norms.column, norms.spectral.value, norms.frobenius,
                                          norms.one, norms.infinity, norms.infinity_to_one.upper})
                    CHECK(std::isnan(norm) != found.reached(i));
                if (found.reached(i)) CHECK(norms.frobenius == right.frobenius);
            }
        });
}

TEST_CASE("divergences that a scan did not reach are NaN", "[streaming][progress]") {
    const Case<float> c;
    const Matrix<float> coarse = (c.k.array() * 8).round() / 8;
    const HeadView<float> other(c.q, coarse);
    const auto whole = attnscope::scan_divergence(c.head, other, c.mask);
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            return attnscope::scan_divergence(c.head, other, c.mask, tiles, executor);
        },
        [&](const auto& found) {
            for (Index i = 0; i < queries; ++i) {
                const auto& row = found.rows[static_cast<std::size_t>(i)];
                CHECK((row.status == RowStatus::normal) == found.reached(i));
                CHECK((row.status == RowStatus::nan) != found.reached(i));
                CHECK(std::isnan(row.forward) != found.reached(i));
                if (found.reached(i)) CHECK(row.forward == whole.rows[static_cast<std::size_t>(i)].forward);
            }
        });
}

TEST_CASE("visitors are called for what was reached, once each", "[streaming][progress]") {
    const Case<float> c;
    const auto gram = attnscope::gram_matrix(c.head.v());
    std::vector<Index> chosen(static_cast<std::size_t>(queries));
    for (Index i = 0; i < queries; ++i) chosen[static_cast<std::size_t>(i)] = queries - 1 - i;
    const std::vector<Index> counts = {1, 3};
    std::vector<int> visits;
    const auto start = [&] { visits.assign(static_cast<std::size_t>(queries), 0); };
    const auto visit = [&](Index query) { ++visits[static_cast<std::size_t>(query)]; };
    const auto check = [&](const ScanExtent& found) {
        for (Index i = 0; i < queries; ++i)
            CHECK(visits[static_cast<std::size_t>(i)] == (found.reached(i) ? 1 : 0));
    };
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            start();
            return attnscope::scan_rows<float>(
                queries, keys, attnscope::ProductTiles<float>(c.head),
                [&](Index query, Index, std::span<float>) { visit(query); }, c.mask, tiles, executor);
        },
        check);
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            start();
            return attnscope::scan_distances(
                c.head, counts, Softmax(),
                [&](Index query, std::span<const Index>, const auto&) { visit(query); }, c.mask, tiles,
                executor);
        },
        check);
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            start();
            return attnscope::scan_distance_curves(
                c.head, 3, [&](Index query, std::span<const Index>, const auto&) { visit(query); }, c.mask,
                tiles, executor);
        },
        check);
    // Places in the list of what was chosen.
    follow(
        [&](const TileOptions& tiles, const auto& executor) {
            start();
            return attnscope::scan_ranked_rows(
                std::span<const Index>(chosen), c.head, gram, Softmax(),
                [&](const attnscope::RankedRow<float>& row) { visit(queries - 1 - row.query); }, c.mask, tiles,
                executor);
        },
        check);
}

TEMPLATE_TEST_CASE("masses of keys that a scan did not reach are NaN", "[streaming][progress]", float, double) {
    using T = TestType;
    SplitMix64 random(3);
    const Index many = 700;
    const Matrix<T> q = normal<T>(random, 10, 4, 1), k = normal<T>(random, many, 4, 1);
    const HeadView<T> head(q, k);
    const auto rows = attnscope::scan(head);
    const auto whole = attnscope::scan_column_mass(head, rows);
    check_whole(whole, many);
    Index calls = 0;
    const auto part = attnscope::scan_column_mass(head, rows, {}, {.progress = [&](Index done, Index all) {
                                                      CHECK(all == many);
                                                      CHECK(done == 256 * ++calls);
                                                      return calls < 2;
                                                  }});
    CHECK(calls == 2);
    CHECK(part.cancelled);
    CHECK(part.done == 512);
    CHECK(part.all == many);
    for (Index key = 0; key < many; ++key) {
        CHECK(part.reached(key) == (key < 512));
        if (key < 512)
            CHECK(part.mass[key] == whole.mass[key]);
        else
            CHECK(std::isnan(part.mass[key]));
    }
    // Log-sum-exps of rows that were never seen would leave out their weights without a word.
    const auto cut =
        attnscope::scan(head, {}, {.query_tile = 4, .progress = [](Index, Index) { return false; }});
    CHECK_THROWS_AS(attnscope::scan_column_mass(head, cut), attnscope::invalid_argument);
}

TEST_CASE("every scan asks its source for tiles of at most the wanted size", "[streaming][progress]") {
    const Case<float> c;
    const attnscope::ProductTiles<float> product(c.head);
    Index widest = 0, highest = 0;
    const auto source = [&](Index query, Index key, TileOut<float> logits) {
        widest = std::max(widest, logits.cols());
        highest = std::max(highest, logits.rows());
        product(query, key, logits);
    };
    const TileOptions small{.query_tile = 3, .key_tile = 8};
    const auto check = [&] {
        CHECK(widest == 8);
        CHECK(highest == 3);
        widest = highest = 0;
    };
    const auto rows = attnscope::scan_tiles<8, float>(queries, keys, source, c.head.v(), c.mask,
                                                      {.query_tile = 3, .key_tile = 8});
    check();
    std::vector<double> totals;
    for (const auto& row : rows.rows) totals.push_back(row.statistics().log_sum_exp());
    attnscope::scan_column_mass<float>(queries, keys, source, std::span<const double>(totals), c.mask, small);
    check();
    attnscope::scan_histogram<float>(queries, keys, source, c.mask, small);
    check();
    attnscope::scan_jacobian_norms<float>(queries, keys, source, Softmax(), c.mask, small);
    check();
    // Both sources; the second one gives row by row.
    const auto two = attnscope::scan_divergence<float>(queries, keys, source, source, c.mask, small);
    check();
    for (const auto& row : two.rows) CHECK(row.forward == 0);
}
