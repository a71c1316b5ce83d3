// Corollary 3, Lemma 2 and the finite-difference bound of the paper, as published and sharp.
#pragma once

#include <attnscope/sensitivity/jacobian_norms.hpp>

#include <numbers>
#include <numeric>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// P Corollary 3 as published. False as a bound on the operator norm: p = (1/2, 1/2) has |J|_2 = 1/(2T).
/// Formula. min{1/(4T), sqrt 2}: 1/(4T) bounds the largest entry of J, sqrt 2 a change of p.
/// Cost. O(1).
/// Source. P Corollary 3.
template <Number T, Real A = Promoted<T>>
A published_gradient_limit(T temperature) {
    return std::min(A(0.25) / A(temperature), std::numbers::sqrt2_v<A>); // 4T could overflow
}

/// Largest spectral norm of the Jacobian of softmax. Attained at (1/2, 1/2, 0, ...).
/// Formula. |J|_2 <= 1/(2T).
/// Cost. O(1).
template <Number T, Real A = Promoted<T>>
A gradient_limit(T temperature) {
    return A(0.5) / A(temperature);
}

/// Upper limit of the spectral norm of diag(p) - p p^T, from three figures of the weights p.
/// Formula. min{1/(2+(L-2)/kappa), p1, 2 p1 (1-p1)} <= 1/2, L the keys with weight, kappa = p1/min p over them
/// (e^{D/T} of softmax). The first is attained by two equal keys above L-2 equal ones, the second by equal keys,
/// the third by two keys.
/// Special rows. 0 where one key has all weight, or none has; NaN for a row with NaN.
/// Cost. O(n).
template <Real T>
Accumulator<T> weight_gradient_limit(RowIn<T> p) {
    using A = Accumulator<T>;
    const auto sums = detail::rest_sums<T>(p);
    constexpr std::size_t width = 16;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    std::array<T, width> least;
    std::array<T, width> count{};
    least.fill(infinity);
    const auto meet = [&](std::size_t j, T x) {
        least[j] = std::min(least[j], x > T(0) ? x : infinity);
        count[j] += x > T(0) ? T(1) : T(0);
    };
    std::size_t i = 0;
    for (; i + width <= p.size(); i += width)
        for (std::size_t j = 0; j < width; ++j) meet(j, p[i + j]);
    for (; i < p.size(); ++i) meet(i % width, p[i]);
    const A keys = std::accumulate(count.begin(), count.end(), A(0)),
            smallest = *std::min_element(least.begin(), least.end());
    if (sums.rest != sums.rest) return sums.rest;
    if (!(keys > A(1))) return A(0);
    return std::min({1 / (2 + (keys - 2) * (smallest / sums.p1)), sums.p1, 2 * sums.p1 * sums.rest});
}

/// As above from any row.
template <RowLike P>
Accumulator<RowScalar<P>> weight_gradient_limit(const P& p) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    return weight_gradient_limit<T>(row.get());
}

/// Largest finite difference of softmax along a unit vector.
/// Formula. |p(z+eps v)-p(z)|_2/eps <= (sqrt(2)/eps) tanh(eps/(2 sqrt(2) T)): eps v has a range of at most
/// sqrt(2) eps, which bounds the total variation (`total_variation_limit`), and the length of a change of p
/// is at most sqrt(2) times that. Below min{1/(2T), sqrt(2)/eps} at every eps, and near it at both ends.
/// Attained at every eps and T by two keys at +-eps/(2 sqrt(2)) that change places along v = (1,-1)/sqrt(2).
/// Relative error a few units, for steps and temperatures of any size.
/// Cost. O(1).
template <Number T, Number E, Real A = Promoted<T, E>>
A finite_difference_limit(T temperature, E eps) {
    // May overflow or vanish: tanh x/x does not.
    const A x = A(eps) / A(temperature) * (std::numbers::sqrt2_v<A> / 4);
    if (x > A(1)) return std::numbers::sqrt2_v<A> * std::tanh(x) / A(eps);
    return gradient_limit(A(temperature)) * (x == A(0) ? A(1) : std::min(std::tanh(x) / x, A(1)));
}

namespace detail {

/// Relative error of a norm computed from weights that are exact to `weight_error`: each norm is of degree 2 in
/// p and the rest sums, and the solvers add 16 units.
template <Real A>
A norm_error(A weight_error) {
    return 4 * weight_error + 16 * std::numeric_limits<A>::epsilon();
}

/// Error of limit - norm. At temperatures near 1/min both are subnormal and rounded in absolute terms.
template <Real A>
A norm_tolerance(A limit, A norm, A weight_error) {
    return norm_error(weight_error) * norm + 4 * std::numeric_limits<A>::epsilon() * limit +
           4 * std::numeric_limits<A>::denorm_min();
}

template <Real A>
Bound<A> norm_bound(const Statement& statement, A limit, A norm, A weight_error) {
    return upper_bound<A>(
        statement, {.limit = limit, .measured = norm, .tolerance = norm_tolerance(limit, norm, weight_error)});
}

/// With a limit that is a factor times that of the row's weights, whose own error it has.
template <Real A>
Bound<A> weighed_norm_bound(const Statement& statement, A limit, A weight_limit, A norm, A weight_error) {
    Bound<A> bound = norm_bound(statement, limit, norm, weight_error);
    if (weight_limit < A(0.5) && std::isfinite(limit)) bound.tolerance += norm_error(weight_error) * limit;
    return bound;
}

} // namespace detail

inline constexpr Statement corollary3_published_statement{
    .id = "corollary3",
    .form = Form::published,
    .provenance = Provenance::verbatim,
    .text = "|J|_2 <= min{1/(4T), sqrt 2}",
    .conditions = "softmax",
    .source = "P Corollary 3",
};

/// P Corollary 3 on a softmax row, as published: |J|_2 <= min{1/(4T), sqrt 2}. Without the theorem nothing
/// limits a derivative (trivial limit infinite).
/// Shapes and units. weight_error: relative error of the weights behind `norms`.
/// Special rows. Undefined where the norm is NaN.
/// Cost. O(1).
/// Source. P Corollary 3.
template <Real A>
Bound<A> corollary3_published(const JacobianNorms<A>& norms, std::type_identity_t<A> temperature,
                              std::type_identity_t<A> weight_error) {
    return detail::norm_bound(corollary3_published_statement, published_gradient_limit(temperature),
                              norms.spectral.value, weight_error);
}

inline constexpr Statement corollary3_sharp_statement{
    .id = "corollary3",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|J|_2 <= min{1/(2+(L-2)e^{-D/T}), p1, 2 p1 (1-p1)}/T <= 1/(2T)",
    .conditions = "softmax",
    .source = "corrected form of P Corollary 3",
};

/// Its corrected form, with what the row's weights say.
/// Formula. |J|_2 <= min{1/(2+(L-2)e^{-D/T}), p1, 2 p1 (1-p1)}/T.
/// Shapes and units. weight_limit: the minimum, from `weight_gradient_limit` of the row's weights; 1/2 is true of
/// every row.
/// Cost. O(1).
template <Real A>
Bound<A> corollary3_sharp(const JacobianNorms<A>& norms, std::type_identity_t<A> temperature,
                          std::type_identity_t<A> weight_error, std::type_identity_t<A> weight_limit = A(0.5)) {
    return detail::weighed_norm_bound(corollary3_sharp_statement, weight_limit / temperature, weight_limit,
                                      norms.spectral.value, weight_error);
}

inline constexpr Statement lemma2_sharp_statement{
    .id = "lemma2",
    .form = Form::sharp,
    .provenance = Provenance::not_recovered,
    .text = "|J|_2 <= max|F'/F| min{1/(2+(L-2)/kappa), p1, 2 p1 (1-p1)} <= 1/2 max|F'/F|",
    .conditions = "p_i = F(z_i)/sum F, F > 0 differentiable, kappa = max F(z_i)/min F(z_i)",
    .source = "P Lemma 2; its published constant was not recovered",
};

/// P Lemma 2 with the sharp constant.
/// Formula. |J|_2 <= max_i |F'(z_i)/F(z_i)| min{1/(2+(L-2)/kappa), p1, 2 p1 (1-p1)}.
/// Shapes and units. `log_slope`: the maximum over the row, 1/T for softmax; weight_error: relative error of the
/// weights; weight_limit: the minimum, from `weight_gradient_limit` of the weights; 1/2 is true of every row.
/// Special rows. Undefined where the norm or the slope is NaN.
/// Cost. O(1).
/// Source. P Lemma 2, whose published constant was not recovered.
template <Real A>
Bound<A> lemma2_sharp(const JacobianNorms<A>& norms, std::type_identity_t<A> log_slope,
                      std::type_identity_t<A> weight_error, std::type_identity_t<A> weight_limit = A(0.5)) {
    // Where nothing moves, not even a slope that overflows does.
    const A limit = weight_limit == A(0) ? A(0) : log_slope * weight_limit;
    return detail::weighed_norm_bound(lemma2_sharp_statement, limit, weight_limit, norms.spectral.value,
                                      weight_error);
}

inline constexpr Statement sigmoid_gradient_sharp_statement{
    .id = "sigmoid_gradient",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|J|_2 <= 1/4",
    .conditions = "sigmoid attention",
    .source = "sigmoid attention, arXiv:2409.04431",
};

/// |J|_2 <= 1/4 of sigmoid attention, attained where z_i + b = 0: statement `sigmoid_gradient`. O(1).
template <Real A>
Bound<A> sigmoid_gradient_sharp(const JacobianNorms<A>& norms, std::type_identity_t<A> weight_error) {
    return detail::norm_bound(sigmoid_gradient_sharp_statement, A(0.25), norms.spectral.value, weight_error);
}

inline constexpr Statement spectral_bracket_sharp_statement{
    .id = "spectral_bracket",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "(s1/S)(R+m) <= |J|_2 <= (s1/S)(R+s2), R = S - s1, m = sum_{j>=2} s_j^2/R",
    .conditions = "softmax: s = p/T; alpha-entmax: s = p^{2-alpha} on the support",
    .source = "secular equation",
};

/// Bracket of a spectral norm from sums: statement `spectral_bracket`.
/// Formula. (s1/S)(R+m) <= lambda_max(diag(s) - s s^T/S) <= (s1/S)(R+s2) times `factor`. With s = p and
/// factor 1/T this is |J|_2 of softmax, with s = p^{2-alpha} on the support and factor 1 that of
/// alpha-entmax. Both sides are attained when all s but the largest are equal.
/// Shapes and units. s >= 0 in any order; `norm`: |J|_2 by the secular equation; weight_error: relative error
/// of the s.
/// Special rows. Undefined for an empty row.
/// Cost. O(n), no allocation.
template <Real A>
BoundPair<A> spectral_bracket_sharp(RowIn<A> s, A factor, A norm, A weight_error) {
    const A undefined = std::numeric_limits<A>::quiet_NaN();
    Interval<A> range{undefined, undefined};
    A largest = undefined;
    if (!s.empty()) {
        const auto sums = detail::rest_sums<A>(s);
        // Squares relative to the sum, so that they do not underflow.
        A mean = 0;
        for (std::size_t i = 0; i < s.size(); ++i)
            if (i != sums.top && sums.rest > A(0)) mean += s[i] * (s[i] / sums.rest);
        const Interval<A> bracket = spectral_norm_bracket(sums.p1, sums.p2, sums.rest, mean);
        range = {factor * bracket.lower, factor * bracket.upper};
        largest = factor * sums.p1;
    }
    const auto tolerance = [&](A limit) {
        return detail::norm_tolerance(limit, norm, weight_error) + detail::norm_error(weight_error) * limit;
    };
    return {
        lower_bound<A>(
            spectral_bracket_sharp_statement,
            {.limit = range.lower, .measured = norm, .tolerance = tolerance(range.lower), .trivial = 0}),
        upper_bound<A>(
            spectral_bracket_sharp_statement,
            {.limit = range.upper, .measured = norm, .tolerance = tolerance(range.upper), .trivial = largest})};
}

/// As above from any row; float is widened. Allocates one row.
template <RowLike S>
BoundPair<Accumulator<RowScalar<S>>> spectral_bracket_sharp(const S& s, Accumulator<RowScalar<S>> factor,
                                                            Accumulator<RowScalar<S>> norm,
                                                            Accumulator<RowScalar<S>> weight_error) {
    using A = Accumulator<RowScalar<S>>;
    const RowHolder<RowScalar<S>> row(s);
    const std::vector<A> wide(row.get().begin(), row.get().end());
    return spectral_bracket_sharp<A>(RowIn<A>(wide), factor, norm, weight_error);
}

/// A cut of the weights into two sides of nearly equal mass: theta from below.
/// Formula. 4 p(S) (1 - p(S)) for a set S: the key of the largest weight p1 if p1 >= 1/2, which is the best one, else
/// keys go to the lighter side one by one, so that the sides differ by p1 at most.
/// Special rows. 0 for weights of 0 and an empty row; NaN for a row with NaN. Weights sum to 1.
/// Cost. O(n), no allocation.
template <Real T>
Accumulator<T> balanced_mass(RowIn<T> p) {
    using A = Accumulator<T>;
    const auto sums = detail::rest_sums<T>(p);
    if (sums.rest != sums.rest) return sums.rest;
    if (!(sums.p1 > A(0))) return A(0);
    if (sums.p1 >= A(0.5)) return 4 * sums.p1 * sums.rest;
    // Differences of the sides of several cuts, then those cut again.
    constexpr std::size_t width = 16;
    std::array<A, width> apart{};
    std::size_t i = 0;
    for (; i + width <= p.size(); i += width)
        for (std::size_t j = 0; j < width; ++j) apart[j] = std::abs(apart[j] - A(p[i + j]));
    for (; i < p.size(); ++i) apart[i % width] = std::abs(apart[i % width] - A(p[i]));
    A difference = 0;
    for (const A x : apart) difference = std::abs(difference - x);
    return 1 - difference * difference;
}

/// As above from any row.
template <RowLike P>
Accumulator<RowScalar<P>> balanced_mass(const P& p) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    return balanced_mass<T>(row.get());
}

inline constexpr Statement jacobian_inf_to_1_sharp_statement{
    .id = "jacobian_inf_to_1",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "(1-p1^2)/T <= |J|_{inf->1} <= 1/T if p1 <= 1/2, else |J|_{inf->1} = 4 p1 (1-p1)/T",
    .conditions = "softmax",
    .source = "|J|_{inf->1} = theta(p)/T, arXiv:2602.18849",
};

/// Bounds "jacobian_inf_to_1": theta/T of a cut that is there, from `balanced_mass`, against the limits
/// `JacobianNorms::infinity_to_one` of the norm.
/// Shapes and units. cut: theta from below; weight_error: relative error of the weights behind both.
/// Special rows. Undefined for rows that are not normal.
/// Cost. O(1).
template <Real A>
BoundPair<A> jacobian_inf_to_1_sharp(const JacobianNorms<A>& norms, std::type_identity_t<A> cut,
                                     std::type_identity_t<A> temperature,
                                     std::type_identity_t<A> weight_error) {
    const A measured = cut / temperature;
    const Interval<A> limits = norms.infinity_to_one;
    const auto tolerance = [&](A limit) {
        return detail::norm_tolerance(limit, measured, weight_error) + detail::norm_error(weight_error) * limit;
    };
    return {
        lower_bound<A>(
            jacobian_inf_to_1_sharp_statement,
            {.limit = limits.lower, .measured = measured, .tolerance = tolerance(limits.lower), .trivial = 0}),
        upper_bound<A>(jacobian_inf_to_1_sharp_statement,
                       {.limit = limits.upper, .measured = measured, .tolerance = tolerance(limits.upper)})};
}

inline constexpr Statement finite_difference_published_statement{
    .id = "finite_difference",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "|p(z+eps v)-p(z)|/eps <= min{1/(4T), sqrt 2}",
    .conditions = "softmax, |v| = 1",
    .source = "P Corollary 3 as used by P Algorithm 5",
};

inline constexpr Statement finite_difference_sharp_statement{
    .id = "finite_difference",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|p(z+eps v)-p(z)|/eps <= (sqrt(2)/eps) tanh(eps/(2 sqrt(2) T))",
    .conditions = "softmax, |v| = 1",
    .source = "corrected form of P Corollary 3",
};

/// Finite difference g of a softmax row along a unit vector, against the published constant.
/// Formula. g <= min{1/(4T), sqrt 2}. Trivial limit: sqrt(2)/eps, the diameter of the simplex over eps.
/// Shapes and units. change_error: absolute error of |p(z+eps v) - p(z)|_2.
/// Cost. O(1).
/// Source. P Corollary 3, as P Algorithm 5 uses it.
template <Real A>
Bound<A> finite_difference_published(A g, A temperature, A eps, A change_error) {
    return upper_bound<A>(finite_difference_published_statement,
                          {.limit = published_gradient_limit(temperature),
                           .measured = g,
                           .tolerance = change_error / eps + 8 * std::numeric_limits<A>::epsilon() * g,
                           .trivial = std::numbers::sqrt2_v<A> / eps});
}
/// The same against the sharp limit, which is below the trivial one until tanh is rounded to 1, at eps/T = 54
/// in double. O(1).
template <Real A>
Bound<A> finite_difference_sharp(A g, A temperature, A eps, A change_error) {
    Bound<A> bound = finite_difference_published(g, temperature, eps, change_error);
    bound.statement = &finite_difference_sharp_statement;
    bound.value = finite_difference_limit(temperature, eps);
    return bound;
}

} // namespace v0_2
} // namespace attnscope
