// What keys collect from all queries, without the queries x keys matrix: the second pass over a head.
#pragma once

#include <attnscope/streaming/scan.hpp>

#include <utility>

namespace attnscope {
inline namespace v0_2 {

/// What `scan_column_mass` tells.
struct ColumnScan : ScanExtent {
    Row<double> mass; ///< [keys] mean weight over the queries that see the key; NaN for keys that nobody sees
    /// Weight that the keys collected, for each query of a finite log-sum-exp: 1 but for rounding. NaN without
    /// such queries, or if `cancelled`.
    double row_sum = std::numeric_limits<double>::quiet_NaN();
};

/// What a run of keys collects from some queries.
/// Invariant. `merge` adds other queries; sums are exact counts, and weights added in the order of merging.
/// Example, of the queries in two halves, `first` and `second`:
///     first.merge(second);
///     const ColumnScan columns = first.mean();
struct ColumnSums {
    Index first_key = 0;
    Row<double> weight;     ///< [keys] the sum of the weights on the key
    Row<double> seen;       ///< [keys] over so many queries
    double rows_in_all = 0; ///< queries that give weight to some key of the head

    /// Adds what the same keys collect from other queries.
    /// Throws. `invalid_argument` for other keys.
    void merge(const ColumnSums& other) {
        detail::require(other.first_key == first_key && other.weight.size() == weight.size(),
                        "ColumnSums::merge", "both must be of the same keys: first, how many", other.first_key,
                        other.weight.size());
        weight += other.weight;
        seen += other.seen;
        rows_in_all += other.rows_in_all;
    }
    /// Adds the keys behind, of the same queries.
    /// Throws. `invalid_argument` unless they begin where these end, and for other queries.
    void append(const ColumnSums& next) {
        detail::require(next.first_key == first_key + weight.size() && next.rows_in_all == rows_in_all,
                        "ColumnSums::append",
                        "the next keys must begin where these end, of the same queries: first key, end",
                        next.first_key, first_key + weight.size());
        const auto joined = [](const Row<double>& a, const Row<double>& b) {
            Row<double> all(a.size() + b.size());
            all << a, b;
            return all;
        };
        weight = joined(weight, next.weight);
        seen = joined(seen, next.seen);
    }
    /// Mean weights, of all keys and all queries of a head.
    /// Throws. `invalid_argument` if the weights of a query sum to less than 15/16 or more than 17/16 on average.
    ColumnScan mean() const {
        ColumnScan result;
        result.all = result.done = weight.size();
        if (rows_in_all > 0) {
            result.row_sum = weight.sum() / rows_in_all;
            detail::require(
                std::abs(result.row_sum - 1) <= 1.0 / 16 || std::isnan(result.row_sum), "scan_column_mass",
                "the weights of a query must sum to 1 with its log-sum-exp, on average", result.row_sum);
        }
        result.mass = (seen > 0).select(weight / seen, std::numeric_limits<double>::quiet_NaN());
        return result;
    }
};

namespace detail {

/// The sums of a block of a head. Queries and keys of the source are those of the block.
template <Real T, class Source, Real L, class E>
std::pair<ColumnSums, ScanExtent> column_sums(const char* function, const BlockPlace& place, Index queries,
                                              Index keys, const Source& source, RowIn<L> log_sum_exp,
                                              const Mask& mask, const TileOptions& given, E&& executor) {
    require(static_cast<Index>(log_sum_exp.size()) == queries, function,
            "there must be one log-sum-exp for each query", log_sum_exp.size(), queries);
    const TileOptions options = checked_tiles(given, keys);
    ColumnSums result{place.key, Row<double>::Zero(keys), Row<double>::Zero(keys), 0};
    Row<double>&mass = result.weight, &seen = result.seen;
    const LogitMap<T> map(function, options);
    ProgressGate gate(options.progress, keys);
    const auto visible_keys = [&](Index query, Index begin, Index end) {
        return clipped(mask.visible(place.query + query, place.keys), place.key + begin, place.key + end);
    };
    const Index width = std::min<Index>(options.key_tile, 256); // enough tasks for short heads too
    const auto task = [&](Index number) {
        if (gate.stopped()) return;
        using P = Packet<T>;
        const P most = T(64); // of a logarithm that is none: its exponential is seen in the sum
        const Index key = number * width, cols = std::min(width, keys - key);
        std::vector<T> buffer(static_cast<std::size_t>(options.query_tile * cols)),
            sums(static_cast<std::size_t>(cols));
        for (Index query = 0; query < queries; query += options.query_tile) {
            const Index rows = std::min(options.query_tile, queries - query);
            bool any = false;
            for (Index i = 0; i < rows && !any; ++i) any = visible_keys(query + i, key, key + cols).count() > 0;
            if (!any) continue;
            source(query, key, TileOut<T>(buffer.data(), rows, cols, Eigen::OuterStride<>(cols)));
            for (Index i = 0; i < rows; ++i)
                map(place.query + query + i, place.key + key,
                    RowOut<T>(buffer.data() + i * cols, static_cast<std::size_t>(cols)));
            std::fill(sums.begin(), sums.end(), T(0)); // of one tile in T, of all in double
            for (Index i = 0; i < rows; ++i) {
                const L total = detail::at(log_sum_exp, query + i);
                if (!(std::abs(total) <= std::numeric_limits<L>::max())) continue;
                const KeyRanges visible = visible_keys(query + i, key, key + cols);
                // In two parts: what T loses of the log-sum-exp would be lost of every weight.
                const T rounded = static_cast<T>(total);
                const P shift = rounded, rest = static_cast<T>(total - L(rounded));
                for (const KeyRange& range : {visible.lead, visible.body}) {
                    const Index first = range.begin - place.key;
                    const T* const z = buffer.data() + i * cols + (first - key);
                    T* const to = sums.data() + (first - key);
                    for_each_lane<T>(range.size(), [&](const auto& lane) {
                        const auto x = (lane(z, -std::numeric_limits<T>::infinity()) - shift) - rest;
                        const auto p = exp_nonpositive(select_below(most, x, most, x));
                        lane.store(to, lane(to) + p);
                    });
                    seen.segment(first, range.size()) += 1;
                }
            }
            for (Index j = 0; j < cols; ++j) mass[key + j] += static_cast<double>(detail::at(sums, j));
        }
        gate.pass(key, key + cols);
    };
    executor((keys + width - 1) / width, task);
    for (Index query = 0; query < queries; ++query)
        result.rows_in_all += std::abs(detail::at(log_sum_exp, query)) <= std::numeric_limits<L>::max() &&
                              mask.visible(place.query + query, place.keys).count() > 0;
    return {std::move(result), gate.extent()};
}

} // namespace detail

/// Mean weight of each key over the queries that see it, as `column_mass` of the dense weights.
/// Formula. Weights are e^{z - log-sum-exp}. Error: relative u |z - log-sum-exp| a weight of logit z, u of T,
/// and what the log-sum-exp itself is off by.
/// Shapes and units. `totals` [queries]: the log-sum-exp of each query's row, any row of them, from a scan or
/// another engine. Logits come from `source` as in `scan_tiles`. `progress` counts keys.
/// Special rows. Queries whose log-sum-exp is not finite are left out.
/// Cost. One more product and exponential for each logit; memory O(keys + threads query_tile key_tile). One
/// task for each tile of keys (of 256 at most), so that the result does not depend on the executor.
/// Throws. `invalid_argument` unless there is one number a query, and if the weights of a query sum to less
/// than 15/16 or more than 17/16 on average: no rounding does that, but a log-sum-exp of another base, scale,
/// mask or of other logits does.
template <class Asked = void, class Source, RowLike Totals, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, Source>>
ColumnScan scan_column_mass(Index queries, Index keys, const Source& source, const Totals& totals,
                            const Mask& mask = {}, const TileOptions& given = {}, E&& executor = {}) {
    using L = RowScalar<Totals>;
    const RowHolder<L> held(totals);
    const RowIn<L> log_sum_exp = held.get();
    auto [sums, extent] = detail::column_sums<T>("scan_column_mass", {0, 0, keys}, queries, keys, source,
                                                 log_sum_exp, mask, given, executor);
    if (extent.cancelled) sums.rows_in_all = 0; // what was not reached has been seen by none
    ColumnScan result = sums.mean();
    static_cast<ScanExtent&>(result) = extent;
    return result;
}

/// The same for one head: `totals` are the log-sum-exps of its rows, as a fused kernel returns them.
template <HeadLike H, RowLike Totals, Executor E = Sequential>
ColumnScan scan_column_mass(const H& head, const Totals& totals, const Mask& mask = {},
                            const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return scan_column_mass<T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor), totals, mask,
                               asked.options, executor);
}

/// The same with the log-sum-exps of its scan.
/// Throws. `invalid_argument` also if that was cancelled.
template <HeadLike H, Index K, Executor E = Sequential>
ColumnScan scan_column_mass(const H& head, const Scan<detail::ScalarOfHead<H>, K>& rows, const Mask& mask = {},
                            const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    detail::require(!rows.cancelled, "scan_column_mass", "the scan must have reached every query", rows.done,
                    rows.all);
    std::vector<Accumulator<T>> totals;
    totals.reserve(rows.rows.size());
    for (const auto& row : rows.rows) totals.push_back(row.statistics().log_sum_exp());
    return scan_column_mass(head, totals, mask, options, executor);
}

/// As above, of totals or of a scan, for q [queries, d] and k [keys, d]: any Eigen expressions of one scalar.
template <MatrixExpr Q, MatrixExpr Keys, class Rows, Executor E = Sequential>
requires std::same_as<ScalarOf<Q>, ScalarOf<Keys>>
ColumnScan scan_column_mass(const Q& q, const Keys& k, const Rows& rows, const Mask& mask = {},
                            const TileOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> queries(q), keys(k);
    return scan_column_mass(HeadView<T>(queries.get(), keys.get()), rows, mask, options, executor);
}

/// The same beside v, which has no part in it.
/// Throws. `invalid_argument` also unless v has one row for each key.
template <MatrixExpr Q, MatrixExpr Keys, MatrixExpr V, class Rows, Executor E = Sequential>
requires std::same_as<ScalarOf<Q>, ScalarOf<Keys>> && (!std::convertible_to<Rows, Mask>)
ColumnScan scan_column_mass(const Q& q, const Keys& k, const V& v, const Rows& rows, const Mask& mask = {},
                            const TileOptions& options = {}, E&& executor = {}) {
    detail::require(v.rows() == k.rows(), "scan_column_mass", "k and v must have the same number of rows",
                    static_cast<Index>(k.rows()), static_cast<Index>(v.rows()));
    return scan_column_mass(q, k, rows, mask, options, executor);
}

} // namespace v0_2
} // namespace attnscope
