// What the number of keys within a few gaps of the largest logit says about its weight.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Gaps in units of the temperature at which the audit counts.
inline constexpr std::array<double, 17> counted_gaps = {0,   0.25, 0.5, 0.75, 1,   1.5, 2,  2.5, 3,
                                                        3.5, 4,    5,   6,    7.5, 9,   12, 16};

/// Limits of the largest weight of softmax from the gap-counting function N(g) = #{i : z_(1) - z_i <= g T} at a few g.
/// Formula. 1/p1 = sum_i e^{-g_i} = int_0^inf N(g) e^{-g} dg, and between two counted gaps N is at least the first count
/// and at most the second: with N_0 ... N_m at g_0 < ... < g_m, d = D/T,
///     N_0 + sum_k (N_k - N_{k-1}) e^{-g_k} + (n - N_m) e^{-max(d, g_m)} <= 1/p1
///         <= N_0 e^{0} + sum_k (N_k - N_{k-1}) e^{-g_{k-1}} + (n - N_m) e^{-g_m}.
/// Attained by keys that stand at the counted gaps (above), or just beyond them (below).
/// Shapes and units. gaps: ascending, the first >= 0; counts: N at each; n: all keys; spread: d.
/// Cost. O(gaps).
/// Throws. `invalid_argument` unless there is one count for each gap, gaps ascend from 0 on, and counts ascend to n.
template <Real A>
Interval<A> gap_counting_range(std::span<const A> gaps, std::span<const Index> counts, Index n,
                               std::type_identity_t<A> spread) {
    detail::require(gaps.size() == counts.size(), "gap_counting_range", "there must be one count for each gap",
                    counts.size(), gaps.size());
    A least = 0, most = 0, before = 0;
    Index counted = 0;
    for (std::size_t k = 0; k < gaps.size(); ++k) {
        detail::require(gaps[k] >= before, "gap_counting_range", "gaps must ascend from 0 on", gaps[k], before);
        detail::require(counts[k] >= counted && counts[k] <= n, "gap_counting_range", "counts must ascend to n",
                        counts[k], n);
        const A more = static_cast<A>(counts[k] - counted);
        // The largest itself is at gap 0.
        const A first = counted == 0 && counts[k] > 0 ? A(1) : A(0);
        least += first + (more - first) * std::exp(-gaps[k]);
        most += more * std::exp(-before);
        before = gaps[k];
        counted = counts[k];
    }
    const A left = static_cast<A>(n - counted), first = counted == 0 && n > 0 ? A(1) : A(0);
    least += first + (left - first) * std::exp(-std::max(spread, before));
    most += left * std::exp(-before);
    return {1 / most, 1 / least};
}

inline constexpr Statement gap_counting_sharp_statement{
    .id = "gap_counting",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/p1 = int N(g) e^{-g} dg between the steps of N at a few gaps g",
    .conditions = "softmax, N(g) = #{i : z_(1)-z_i <= g T}",
    .source = "gap counting, arXiv:2605.12697",
};

/// Bounds "gap_counting": p1 against `gap_counting_range` of the row's own counts at `gaps`.
/// Shapes and units. descending: the visible logits, largest first, at temperature 1; gaps in units of T, ascending.
/// Special rows. Undefined on rows that are not normal. Sides that are no better than 1/n or 1 are `vacuous`.
/// Cost. O(gaps log n).
template <Real A>
BoundPair<A> gap_counting_sharp(const RowStatistics<A>& row,
                                std::span<const std::type_identity_t<A>> descending,
                                std::span<const std::type_identity_t<A>> gaps) {
    const A p1 = row.max_weight(), unit = std::numeric_limits<A>::epsilon(), temperature = A(row.temperature);
    BoundPair<A> pair{lower_bound<A>(gap_counting_sharp_statement, {.measured = p1}),
                      upper_bound<A>(gap_counting_sharp_statement, {.measured = p1})};
    if (!row.normal()) return pair;
    std::vector<Index> counts(gaps.size());
    for (std::size_t k = 0; k < gaps.size(); ++k)
        counts[k] = std::partition_point(descending.begin(), descending.end(),
                                         [&](A z) { return (descending[0] - z) / temperature <= gaps[k]; }) -
                    descending.begin();
    const Interval<A> range =
        gap_counting_range<A>(gaps, counts, row.visible, row.logit_spread() / temperature);
    pair[0].value = range.lower;
    pair[0].trivial = 1 / static_cast<A>(row.visible);
    pair[1].value = range.upper;
    pair[1].trivial = 1;
    // An exponent is exact to a few units of its own size; terms of an exponent beyond 1/unit's logarithm have no say.
    for (auto& bound : pair)
        bound.tolerance = (row.sum_error() + unit * (static_cast<A>(gaps.size()) + 64)) * (p1 + bound.value);
    return pair;
}

} // namespace v0_2
} // namespace attnscope
