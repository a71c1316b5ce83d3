// How far the mean logit under the weights can lie below the largest: by how much attention misses its best
// key's score.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lambert_w.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <numbers>

namespace attnscope {
inline namespace v0_2 {

/// Largest possible max z - E_p z of p = softmax(z/T) over n keys, of any logits, however far apart.
/// Formula. T W0((n-1)/e) <= T log n, W0 Lambert's function. Attained by one key T (1 + W0((n-1)/e)) above
/// equal others.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and T > 0.
template <Number T, Real A = Promoted<T>>
A score_deficit_limit(Index n, T temperature) {
    detail::require(n >= 1, "score_deficit_limit", "n must be >= 1", n);
    detail::require(A(temperature) > 0, "score_deficit_limit", "temperature must be > 0", temperature);
    return A(temperature) * detail::lambert_w0<A>(static_cast<A>(n - 1) / std::numbers::e_v<A>);
}

/// Largest possible max z - E_p z of p = softmax(z/T) over n keys whose logits have the spread D.
/// Formula. D (n-1)/(e^{D/T}+n-1) where D <= T (1 + W0((n-1)/e)), else T W0((n-1)/e), which it meets there. Attained by
/// one key above equal others, D or T (1 + W0((n-1)/e)) apart.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1, D >= 0 and T > 0.
template <Number D, Number T, Real A = Promoted<D, T>>
A score_deficit_limit(Index n, D spread, T temperature) {
    const A d(spread), unit(temperature), anywhere = score_deficit_limit(n, unit),
                                          others = static_cast<A>(n - 1);
    detail::require(d >= 0, "score_deficit_limit", "spread must be >= 0", spread);
    if (!(d - unit <= anywhere)) return anywhere;
    return std::min(anywhere, d * (others / (std::exp(d / unit) + others)));
}

inline constexpr Statement score_deficit_sharp_statement{
    .id = "score_deficit",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "max z - E_p z <= D (L-1)/(e^{D/T}+L-1) where D <= T (1+w), else T w, w = W0((L-1)/e)",
    .conditions = "softmax",
    .source = "maximum over all rows of L keys",
};

/// The same beside that of a row, `RowStatistics::score_deficit`: statement `score_deficit`. What holds
/// without it is the spread of the logits.
/// Special rows. Undefined on rows that are not normal.
/// Cost. O(1).
template <Real A>
Bound<A> score_deficit_sharp(const RowStatistics<A>& row) {
    auto bound = upper_bound<A>(score_deficit_sharp_statement, {.measured = row.score_deficit()});
    if (!row.normal()) return bound;
    bound.value = score_deficit_limit(row.visible, row.logit_spread(), A(row.temperature));
    bound.trivial = row.logit_spread();
    const A unit = std::numeric_limits<A>::epsilon();
    // Keys whose weight underflows would have added less than u e^{-u} each. D/T is exact to two units, and is at most
    // 1 + log L where it counts.
    const A depth = 1 + std::log(static_cast<A>(row.visible));
    bound.tolerance = (2 * row.sum_error() + 8 * unit) * bound.measured + (8 + 2 * depth) * unit * bound.value +
                      A(row.temperature) * 1024 * row.underflow();
    return bound;
}

} // namespace v0_2
} // namespace attnscope
