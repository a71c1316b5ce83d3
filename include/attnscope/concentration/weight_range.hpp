// How large and how small a weight can be: Lemma 1 and Corollary 1 of the paper, as published and sharp.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// P Lemma 1 as published: the range of a weight among n keys.
/// Formula. 1/(kappa n) <= p_i <= kappa/n, kappa = max F/min F over the interval that holds the logits; log
/// kappa is given, so that nothing overflows.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and log kappa >= 0.
/// Source. P Lemma 1.
template <Number K, Real A = Promoted<K>>
Interval<A> published_weight_range(Index n, K log_kappa) {
    detail::require(n >= 1, "published_weight_range", "n must be >= 1", n);
    detail::require(A(log_kappa) >= 0, "published_weight_range", "log kappa must be >= 0", log_kappa);
    return {std::exp(-A(log_kappa)) / A(n), std::exp(A(log_kappa)) / A(n)};
}

/// P Lemma 1, sharp: the range of a weight among n keys. Both ends are attained: one key at one end of the
/// range, all others at the other.
/// Formula. 1/(1+(n-1)kappa) <= p_i <= 1/(1+(n-1)/kappa). For softmax log kappa = D/T, the spread of the
/// logits over the temperature.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and log kappa >= 0.
template <Number K, Real A = Promoted<K>>
Interval<A> weight_range(Index n, K log_kappa) {
    detail::require(n >= 1, "weight_range", "n must be >= 1", n);
    detail::require(A(log_kappa) >= 0, "weight_range", "log kappa must be >= 0", log_kappa);
    const A inverse = std::exp(-A(log_kappa)), others = static_cast<A>(n - 1);
    return {n == 1 ? A(1) : inverse / (inverse + others), 1 / (1 + others * inverse)};
}

/// Largest and smallest weight of the visible keys, and how exactly they are known.
template <Real A>
struct WeightExtremes {
    Index visible = 0;
    A largest = std::numeric_limits<A>::quiet_NaN();
    A smallest = std::numeric_limits<A>::quiet_NaN();
    A relative_error = 0;
};

/// Those of softmax(z/T), from the sums of a row; NaN for rows that are not normal. O(1).
template <Real A>
WeightExtremes<A> weight_extremes(const RowStatistics<A>& row) {
    const A spread = row.logit_spread() / A(row.temperature);
    return {row.visible, row.max_weight(), row.max_weight() * std::exp(-spread),
            row.sum_error() +
                std::numeric_limits<A>::epsilon() * (2 * std::min(spread, -detail::exp_cutoff<A>()) + 8)};
}

namespace detail {

template <Real A>
BoundPair<A> weight_bounds(const Statement& statement, const WeightExtremes<A>& p, Interval<A> range,
                           A log_kappa) {
    // A limit is exact to the rounding of log kappa (2 units relative) and of exp; where exp vanishes nothing is left
    // of it.
    const A limit_error = std::numeric_limits<A>::epsilon() * (2 * std::min(log_kappa, -exp_cutoff<A>()) + 8);
    const auto tolerance = [&](A measured, A limit) {
        return p.relative_error * measured + (std::isinf(limit) ? A(0) : limit_error * limit);
    };
    return {lower_bound<A>(statement, {.limit = range.lower,
                                       .measured = p.smallest,
                                       .tolerance = tolerance(p.smallest, range.lower),
                                       .trivial = 0}),
            upper_bound<A>(statement, {.limit = range.upper,
                                       .measured = p.largest,
                                       .tolerance = tolerance(p.largest, range.upper),
                                       .trivial = 1})};
}

template <Real A>
Interval<A> undefined_range() {
    return {std::numeric_limits<A>::quiet_NaN(), std::numeric_limits<A>::quiet_NaN()};
}

} // namespace detail

inline constexpr Statement lemma1_published_statement{
    .id = "lemma1",
    .form = Form::published,
    .provenance = Provenance::verbatim,
    .text = "1/(kappa L) <= p_i <= kappa/L, kappa = max F/min F on [-a,a]",
    .conditions = "p_i = F(z_i)/sum F, F > 0 continuous on [-a,a], a = max|z_i|",
    .source = "P Lemma 1",
};

/// P Lemma 1 on a row, as published: lower and upper side.
/// Shapes and units. log_kappa: log(max F/min F) over [-a,a], a = max|z_i|; 2a/T for softmax.
/// Special rows. Undefined for rows that are not normal, and where log_kappa is negative or NaN.
/// Cost. O(1).
/// Source. P Lemma 1.
template <Real A>
BoundPair<A> lemma1_published(const WeightExtremes<A>& p, std::type_identity_t<A> log_kappa) {
    const bool defined = p.visible > 0 && log_kappa >= A(0);
    return detail::weight_bounds<A>(
        lemma1_published_statement, p,
        defined ? published_weight_range(p.visible, log_kappa) : detail::undefined_range<A>(), log_kappa);
}

inline constexpr Statement lemma1_sharp_statement{
    .id = "lemma1",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+(L-1)kappa) <= p_i <= 1/(1+(L-1)/kappa), kappa = max F(z_i)/min F(z_i) of the row",
    .conditions = "F > 0",
    .source = "sharp form of P Lemma 1",
};

/// P Lemma 1 on a row, sharp: lower and upper side.
/// Shapes and units. log_kappa: log(max F(z_i)/min F(z_i)) over the row's own keys.
/// Special rows. Undefined for rows that are not normal, and where log_kappa is negative or NaN.
/// Cost. O(1).
template <Real A>
BoundPair<A> lemma1_sharp(const WeightExtremes<A>& p, std::type_identity_t<A> log_kappa) {
    const bool defined = p.visible > 0 && log_kappa >= A(0);
    return detail::weight_bounds<A>(lemma1_sharp_statement, p,
                                    defined ? weight_range(p.visible, log_kappa) : detail::undefined_range<A>(),
                                    log_kappa);
}

inline constexpr Statement corollary1_published_statement{
    .id = "corollary1",
    .form = Form::published,
    .provenance = Provenance::verbatim,
    .text = "e^{-2 Delta/T}/L <= p_i <= e^{2 Delta/T}/L, Delta = |q| max_j |k_j|/sqrt(d)",
    .conditions = "softmax of q.k/sqrt(d)",
    .source = "P Corollary 1",
};

/// P Corollary 1 on a softmax row, as published.
/// Formula. e^{-2 Delta/T}/L <= p_i <= e^{2 Delta/T}/L. The upper side says nothing (`vacuous`) until L >
/// e^{2 Delta/T}.
/// Shapes and units. delta = |q| max_j |k_j|/sqrt(d), the maximum over the visible keys.
/// Special rows. Undefined for rows that are not normal, and where delta is negative or NaN.
/// Cost. O(1).
/// Source. P Corollary 1.
template <Real A>
BoundPair<A> corollary1_published(const RowStatistics<A>& row, std::type_identity_t<A> delta) {
    const A log_kappa = 2 * delta / A(row.temperature);
    const bool defined = row.normal() && log_kappa >= A(0);
    return detail::weight_bounds<A>(
        corollary1_published_statement, weight_extremes(row),
        defined ? published_weight_range(row.visible, log_kappa) : detail::undefined_range<A>(), log_kappa);
}

inline constexpr Statement corollary1_sharp_statement{
    .id = "corollary1",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+(L-1)e^{D/T}) <= p_i <= 1/(1+(L-1)e^{-D/T}), D = max z - min z",
    .conditions = "softmax",
    .source = "sharp form of P Corollary 1",
};

/// P Corollary 1 on a softmax row, sharp: in terms of the row's own spread D.
/// Formula. 1/(1+(L-1)e^{D/T}) <= p_i <= 1/(1+(L-1)e^{-D/T}).
/// Special rows. Undefined for rows that are not normal.
/// Cost. O(1).
template <Real A>
BoundPair<A> corollary1_sharp(const RowStatistics<A>& row) {
    const A log_kappa = row.logit_spread() / A(row.temperature);
    return detail::weight_bounds<A>(
        corollary1_sharp_statement, weight_extremes(row),
        row.normal() ? weight_range(row.visible, log_kappa) : detail::undefined_range<A>(), log_kappa);
}

} // namespace v0_2
} // namespace attnscope
