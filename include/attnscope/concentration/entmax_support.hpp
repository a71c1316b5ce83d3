// How many keys alpha-entmax selects, from the gaps to the largest logit alone.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/normalizer/entmax.hpp>

#include <utility>

namespace attnscope {
inline namespace v0_2 {

/// Gaps to the largest of n logits that decide a key's fate under alpha-entmax without solving for the
/// threshold.
/// Formula. A key closer than `lower` = n^{1-alpha}/(alpha-1) has weight, one at `upper` = 1/(alpha-1) or
/// farther has none, because 1/n <= p1 <= 1. Both +inf at alpha = 1.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and alpha >= 1.
template <Number X, Real A = Promoted<X>>
Interval<A> entmax_decisive_gaps(Index n, X alpha) {
    detail::require(n >= 1, "entmax_decisive_gaps", "n must be >= 1", n);
    detail::require(A(alpha) >= 1, "entmax_decisive_gaps", "alpha must be >= 1", alpha);
    const A upper = 1 / (A(alpha) - 1);
    return {upper * std::pow(static_cast<A>(n), 1 - A(alpha)), upper};
}

inline constexpr Statement entmax_support_sharp_statement{
    .id = "entmax_support",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "#{max z - z_i < u^{1-alpha}/(alpha-1)} <= support <= u = #{max z - z_i < 1/(alpha-1)}",
    .conditions = "alpha-entmax",
    .source = "alpha-entmax, arXiv:1905.05702",
};

/// Limits on the size of the support on a row: statement `entmax_support`.
/// Formula. #{max z - z_i < u^{1-alpha}/(alpha-1)} <= support <= u = #{max z - z_i < 1/(alpha-1)}: p1 >= 1/u, because
/// no more than u keys have weight. The lower one is attained by equal keys, the upper one by two keys less than
/// 1/(alpha-1) apart. Keys whose gap meets a limit to rounding are the tolerance.
/// Shapes and units. `support`: keys of positive weight, as measured.
/// Special rows. Undefined for rows that are not normal: no visible key, NaN, +inf.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` unless alpha >= 1.
template <Real T>
BoundPair<double> entmax_support_sharp(RowIn<T> z, double alpha, Index support) {
    const double m = static_cast<double>(detail::row_max<T>(z));
    const auto visible = detail::count_visible<T>(z);
    const bool defined = detail::classify<T>(z) == RowStatus::normal;
    const double widest = entmax_decisive_gaps(Index(1), alpha).upper;
    const double unit = static_cast<double>(std::numeric_limits<T>::epsilon());
    // Keys closer than a gap, and those so near to it that rounding decides.
    const auto keys_within = [&](double limit) {
        double closer = 0, doubtful = 0;
        for (const T x : z) {
            if (x == -std::numeric_limits<T>::infinity()) continue;
            const double gap = m - static_cast<double>(x);
            closer += gap < limit;
            doubtful += std::abs(gap - limit) <= 8 * unit * (gap + limit);
        }
        if (!defined) closer = std::numeric_limits<double>::quiet_NaN();
        return std::pair(closer, doubtful);
    };
    const double kept = static_cast<double>(support);
    const auto [most, doubtful_most] = keys_within(widest);
    const Index candidates = defined ? std::min(visible, static_cast<Index>(most + doubtful_most)) : Index(1);
    const auto [least, doubtful_least] = keys_within(entmax_decisive_gaps(candidates, alpha).lower);
    return {lower_bound(entmax_support_sharp_statement,
                        {.limit = least, .measured = kept, .tolerance = doubtful_least, .trivial = 1}),
            upper_bound(entmax_support_sharp_statement, {.limit = most,
                                                         .measured = kept,
                                                         .tolerance = doubtful_most,
                                                         .trivial = static_cast<double>(visible)})};
}

/// As above from any row.
template <RowLike Z>
BoundPair<double> entmax_support_sharp(const Z& z, double alpha, Index support) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return entmax_support_sharp<T>(row.get(), alpha, support);
}

inline constexpr Statement entmax_non_dispersion_sharp_statement{
    .id = "entmax_non_dispersion",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "H <= log #{max z - z_i < 1/(alpha-1)}",
    .conditions = "alpha-entmax",
    .source = "alpha-entmax does not disperse, arXiv:2506.16640",
};

/// The entropy of an alpha-entmax row: statement `entmax_non_dispersion`.
/// Formula. H <= log u, u the keys closer to the largest logit than 1/(alpha-1): no other key has weight, however many
/// there are. Attained by equal keys. A key whose gap meets the limit to rounding counts.
/// Shapes and units. entropy: of the weights, nats.
/// Special rows. Undefined for rows that are not normal: no visible key, NaN, +inf. `vacuous` where all keys count.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` unless alpha >= 1.
template <Real T>
Bound<double> entmax_non_dispersion_sharp(RowIn<T> z, double alpha, double entropy) {
    const double m = static_cast<double>(detail::row_max<T>(z));
    const auto visible = static_cast<double>(detail::count_visible<T>(z));
    auto bound = upper_bound(entmax_non_dispersion_sharp_statement, {.measured = entropy});
    const double unit = static_cast<double>(std::numeric_limits<T>::epsilon()),
                 edge = entmax_decisive_gaps(Index(1), alpha).upper;
    if (detail::classify<T>(z) != RowStatus::normal) return bound;
    double count = 0;
    for (const T x : z) {
        if (x == -std::numeric_limits<T>::infinity()) continue;
        const double gap = m - static_cast<double>(x);
        count += gap < edge || std::abs(gap - edge) <= 8 * unit * (gap + edge);
    }
    bound.value = std::log(count);
    bound.trivial = std::log(visible);
    // Weights are exact to a few units and sum to 1 with n of them; -p log p moves by (1 + log n) of that.
    bound.tolerance = unit * (16 + visible) * (1 + bound.trivial);
    return bound;
}

/// As above from any row.
template <RowLike Z>
Bound<double> entmax_non_dispersion_sharp(const Z& z, double alpha, double entropy) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return entmax_non_dispersion_sharp<T>(row.get(), alpha, entropy);
}

} // namespace v0_2
} // namespace attnscope
