// What keys collect from all queries, without the queries x keys matrix: the second pass over a head.
#pragma once

#include <attnscope/streaming/scan.hpp>

namespace attnscope {
inline namespace v0_1 {

/// What `scan_column_mass` tells.
struct ColumnScan : ScanExtent {
    Row<double> mass; ///< [keys] mean weight over the queries that see the key; NaN for keys that nobody sees
    /// Weight that the keys collected, for each query of a finite log-sum-exp: 1 but for rounding. NaN without
    /// such queries, or if `cancelled`.
    double row_sum = std::numeric_limits<double>::quiet_NaN();
};

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
    detail::require(static_cast<Index>(log_sum_exp.size()) == queries, "scan_column_mass",
                    "there must be one log-sum-exp for each query", log_sum_exp.size(), queries);
    const TileOptions options = detail::checked_tiles(given, keys);
    Row<double> mass = Row<double>::Zero(keys), seen = Row<double>::Zero(keys);
    const detail::LogitMap<T> map("scan_column_mass", options);
    detail::ProgressGate gate(options.progress, keys);
    const Index width = std::min<Index>(options.key_tile, 256); // enough tasks for short heads too
    const auto task = [&](Index number) {
        if (gate.stopped()) return;
        using P = detail::Packet<T>;
        const P most = T(64); // of a logarithm that is none: its exponential is seen in the sum
        const Index key = number * width, cols = std::min(width, keys - key);
        std::vector<T> buffer(static_cast<std::size_t>(options.query_tile * cols)),
            sums(static_cast<std::size_t>(cols));
        for (Index query = 0; query < queries; query += options.query_tile) {
            const Index rows = std::min(options.query_tile, queries - query);
            bool any = false;
            for (Index i = 0; i < rows && !any; ++i)
                any = detail::clipped(mask.visible(query + i, keys), key, key + cols).count() > 0;
            if (!any) continue;
            source(query, key, TileOut<T>(buffer.data(), rows, cols, Eigen::OuterStride<>(cols)));
            for (Index i = 0; i < rows; ++i)
                map(query + i, key, RowOut<T>(buffer.data() + i * cols, static_cast<std::size_t>(cols)));
            std::fill(sums.begin(), sums.end(), T(0)); // of one tile in T, of all in double
            for (Index i = 0; i < rows; ++i) {
                const L total = detail::at(log_sum_exp, query + i);
                if (!(std::abs(total) <= std::numeric_limits<L>::max())) continue;
                const KeyRanges visible = detail::clipped(mask.visible(query + i, keys), key, key + cols);
                // In two parts: what T loses of the log-sum-exp would be lost of every weight.
                const T rounded = static_cast<T>(total);
                const P shift = rounded, rest = static_cast<T>(total - L(rounded));
                for (const KeyRange& range : {visible.lead, visible.body}) {
                    const T* const z = buffer.data() + i * cols + (range.begin - key);
                    T* const to = sums.data() + (range.begin - key);
                    detail::for_each_lane<T>(range.size(), [&](const auto& lane) {
                        const auto x = (lane(z, -std::numeric_limits<T>::infinity()) - shift) - rest;
                        const auto p = exp_nonpositive(select_below(most, x, most, x));
                        lane.store(to, lane(to) + p);
                    });
                    seen.segment(range.begin, range.size()) += 1;
                }
            }
            for (Index j = 0; j < cols; ++j) mass[key + j] += static_cast<double>(detail::at(sums, j));
        }
        gate.pass(key, key + cols);
    };
    executor((keys + width - 1) / width, task);
    ColumnScan result;
    static_cast<ScanExtent&>(result) = gate.extent();
    Index weighed = 0;
    for (Index query = 0; query < queries; ++query)
        weighed += std::abs(detail::at(log_sum_exp, query)) <= std::numeric_limits<L>::max() &&
                   mask.visible(query, keys).count() > 0;
    if (weighed > 0 && !result.cancelled) {
        result.row_sum = mass.sum() / static_cast<double>(weighed);
        detail::require(
            std::abs(result.row_sum - 1) <= 1.0 / 16 || std::isnan(result.row_sum), "scan_column_mass",
            "the weights of a query must sum to 1 with its log-sum-exp, on average", result.row_sum);
    }
    for (Index key = 0; key < keys; ++key) // what was not reached has been seen by none
        mass[key] = seen[key] > 0 ? mass[key] / seen[key] : std::numeric_limits<double>::quiet_NaN();
    result.mass = std::move(mass);
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

} // namespace v0_1
} // namespace attnscope
