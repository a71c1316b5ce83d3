// How large the largest weight is, from the gap to the second logit and the spread of all: SSMax and its
// threshold.
#pragma once

#include <attnscope/concentration/weight_range.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Range of the largest weight of softmax over n keys, from its lead and the spread of all.
/// Formula. 1/(1+(n-1)e^{-gap}) <= p1 <= 1/(1+(n-1)e^{-D}). Both are attained by one key above equal others.
/// For scalable softmax 1/T = s log n, so that e^{-gap} is n^{-s (z_(1) - z_(2))}.
/// Shapes and units. gap = (z_(1) - z_(2))/T and D = (max z - min z)/T.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and 0 <= gap <= D.
/// Source. arXiv:2501.19399.
template <Number G, Number D, Real A = Promoted<G, D>>
Interval<A> leading_weight_range(Index n, G gap, D spread) {
    detail::require(n >= 1, "leading_weight_range", "n must be >= 1", n);
    detail::require(A(gap) >= 0 && A(spread) >= A(gap), "leading_weight_range", "must be 0 <= gap <= spread",
                    gap, spread);
    const A others = static_cast<A>(n - 1);
    return {1 / (1 + others * std::exp(-A(gap))), 1 / (1 + others * std::exp(-A(spread)))};
}

inline constexpr Statement ssmax_sharp_statement{
    .id = "ssmax",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+(n-1)n^{-s(z1-z2)}) <= p1 <= 1/(1+(n-1)n^{-sD})",
    .conditions = "softmax(s log n z), n visible keys",
    .source = "scalable softmax, arXiv:2501.19399",
};

/// The same on a row of softmax at inverse temperature beta = s log n: statement `ssmax`.
/// Special rows. Undefined on rows that are not normal.
/// Cost. O(1).
template <Real A>
BoundPair<A> ssmax_sharp(const RowStatistics<A>& row) {
    const A spread = row.logit_spread() / A(row.temperature);
    const A gap = row.visible > 1 ? row.logit_gap() / A(row.temperature) : A(0);
    const Interval<A> range =
        row.normal() ? leading_weight_range(row.visible, gap, spread) : detail::undefined_range<A>();
    const A p1 = row.max_weight(), unit = std::numeric_limits<A>::epsilon();
    const auto tolerance = [&](A limit, A exponent) {
        return (row.sum_error() + unit * (2 * spread + 8)) * p1 + unit * (2 * exponent + 8) * limit;
    };
    return {
        lower_bound<A>(ssmax_sharp_statement, {.limit = range.lower,
                                               .measured = p1,
                                               .tolerance = tolerance(range.lower, gap),
                                               .trivial = 1 / static_cast<A>(row.visible)}),
        upper_bound<A>(
            ssmax_sharp_statement,
            {.limit = range.upper, .measured = p1, .tolerance = tolerance(range.upper, spread), .trivial = 1})};
}

/// Scales s of softmax(s log n z) at which the best key's fate changes as n grows, for rows of given gap and
/// spread.
/// Formula. Above `upper` = 1/gap its weight goes to 1 whatever the other keys are (sufficient); below
/// `lower` = 1/D it goes to 0 (s D >= 1 is necessary). In between it depends on how many keys come close.
/// Cost. O(1).
/// Throws. `invalid_argument` unless 0 <= gap <= D.
template <Number G, Number D, Real A = Promoted<G, D>>
Interval<A> ssmax_threshold(G gap, D spread) {
    detail::require(A(gap) >= 0 && A(spread) >= A(gap), "ssmax_threshold", "must be 0 <= gap <= spread", gap,
                    spread);
    return {1 / A(spread), 1 / A(gap)};
}

} // namespace v0_2
} // namespace attnscope
