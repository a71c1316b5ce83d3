// Attention sinks: keys that collect weight from every query.
#pragma once

#include <attnscope/attention/mask.hpp>

#include <cmath>
#include <limits>

namespace attnscope {
inline namespace v0_2 {

/// Column mass above which a key counts as a sink, the convention of arXiv:2410.10781 (Gu et al.).
inline constexpr double sink_threshold = 0.3;

namespace detail {

/// Sum of a row's weights without its first `excluded` keys, to divide by; 1 if none is excluded, 0 if the row
/// is to be left out (nothing remains, or NaN).
template <Real T>
double remaining_mass(RowIn<T> row, const KeyRanges& visible, Index excluded) {
    double all = 0, rest = 0;
    visible.for_each([&](Index key) {
        const double weight = static_cast<double>(detail::at(row, key));
        all += weight;
        if (key >= excluded) rest += weight;
    });
    if (all != all || visible.count() == 0) return 0;
    return excluded == 0 ? 1 : rest;
}

} // namespace detail

/// Mean weight of each key over the queries that see it. How rows look without their sink: `excluded` leading
/// keys are taken out of every row, and the rest of the row is divided by its remaining sum.
/// Shapes and units. weights [queries, keys]; result [keys].
/// Special rows. NaN for keys that nobody sees, and for those that are taken out. Rows of which nothing
/// remains (where some keys are taken out) and rows with NaN are left out.
/// Cost. O(queries keys), allocates two rows.
/// Throws. `invalid_argument` unless 0 <= excluded <= keys.
template <Real T>
Row<double> column_mass(MatrixView<T> weights, const Mask& mask = {}, Index excluded = 0) {
    const Index keys = weights.cols();
    detail::require(excluded >= 0 && excluded <= keys, "column_mass", "excluded must be in [0, keys]", excluded,
                    keys);
    Row<double> sum = Row<double>::Zero(keys), seen = Row<double>::Zero(keys);
    for (Index query = 0; query < weights.rows(); ++query) {
        const RowIn<T> row = weights.row(query);
        const KeyRanges visible = mask.visible(query, keys);
        const double rest = detail::remaining_mass<T>(row, visible, excluded);
        if (!(rest > 0)) continue;
        visible.for_each([&](Index key) {
            if (key < excluded) return;
            sum[key] += static_cast<double>(detail::at(row, key)) / rest;
            seen[key] += 1;
        });
    }
    for (Index key = 0; key < keys; ++key)
        sum[key] = seen[key] > 0 ? sum[key] / seen[key] : std::numeric_limits<double>::quiet_NaN();
    return sum;
}

/// Keys whose column mass exceeds `threshold`, ascending; a mass of NaN does not. O(keys).
inline std::vector<Index> sinks(const Row<double>& mass, double threshold = sink_threshold) {
    std::vector<Index> result;
    for (Index key = 0; key < mass.size(); ++key)
        if (mass[key] > threshold) result.push_back(key);
    return result;
}

/// Mean over queries of the weight on their first k visible keys; `excluded` leading keys are taken out as in
/// `column_mass`, and the k keys counted behind them.
/// Shapes and units. weights [queries, keys].
/// Special rows. Queries of which nothing remains, or with NaN, are left out; NaN if all are.
/// Cost. O(queries keys), no allocation.
/// Throws. `invalid_argument` unless k >= 0 and 0 <= excluded <= keys.
template <Real T>
double leading_mass(MatrixView<T> weights, Index k, const Mask& mask = {}, Index excluded = 0) {
    detail::require(k >= 0, "leading_mass", "k must be >= 0", k);
    detail::require(excluded >= 0 && excluded <= weights.cols(), "leading_mass",
                    "excluded must be in [0, keys]", excluded, weights.cols());
    double sum = 0, rows = 0;
    for (Index query = 0; query < weights.rows(); ++query) {
        const RowIn<T> row = weights.row(query);
        const KeyRanges visible = mask.visible(query, weights.cols());
        const double rest = detail::remaining_mass<T>(row, visible, excluded);
        if (!(rest > 0)) continue;
        Index taken = 0;
        visible.for_each([&](Index key) {
            if (key >= excluded && taken++ < k) sum += static_cast<double>(detail::at(row, key)) / rest;
        });
        rows += 1;
    }
    return rows > 0 ? sum / rows : std::numeric_limits<double>::quiet_NaN();
}

} // namespace v0_2
} // namespace attnscope
