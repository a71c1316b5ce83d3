// Norms of the Jacobian dp/dz of one row, exact, for softmax and for the paper's general family.
#pragma once

#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/sensitivity/spectral_norm.hpp>

namespace attnscope {
inline namespace v0_1 {

/// Norms of J = dp/dz on one row; unit: weight per logit.
template <Real A>
struct JacobianNorms {
    A max_entry = nan();                       ///< max_ij |J_ij|
    A column = nan();                          ///< 1->2: largest 2-norm of a column
    SpectralNorm<A> spectral;                  ///< 2->2
    A frobenius = nan();                       ///< sqrt(sum J_ij^2)
    A one = nan();                             ///< 1->1: largest absolute column sum
    A infinity = nan();                        ///< inf->inf: largest absolute row sum
    Interval<A> infinity_to_one{nan(), nan()}; ///< inf->1, bracketed (its exact value is a partition problem)

    static constexpr A nan() { return std::numeric_limits<A>::quiet_NaN(); }
};

namespace detail {

/// Sums over a row of weights without its largest entry p1, the quantities that keep their digits near one-hot.
template <Real A>
struct RestSums {
    std::size_t top = 0;
    A p1 = 0, p2 = 0;
    A rest = 0;    ///< 1 - p1
    A squares = 0; ///< sum_{j>=2} p_j^2
    A cubes = 0;
};

template <Real T>
RestSums<Accumulator<T>> rest_sums(RowIn<T> p) {
    RestSums<Accumulator<T>> sums;
    sums.top = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
    sums.p1 = p[sums.top];
    for (std::size_t i = 0; i < p.size(); ++i) {
        if (i == sums.top) continue;
        const Accumulator<T> x = p[i];
        sums.p2 = std::max(sums.p2, x);
        sums.rest += x;
        sums.squares += x * x;
        sums.cubes += x * x * x;
    }
    return sums;
}

/// max over S of 4 p(S)(1-p(S)): exact when one weight is at least 1/2 (S = that key), otherwise in [1 - p1^2,
/// 1].
template <Real A>
Interval<A> cut_norm(const RestSums<A>& sums) {
    if (sums.p1 >= A(0.5)) {
        const A exact = 4 * sums.p1 * sums.rest;
        return {exact, exact};
    }
    return {1 - sums.p1 * sums.p1, A(1)};
}

} // namespace detail

/// Norms of the softmax Jacobian (diag p - p p^T)/T from the weights of a normal row (z is not looked at).
/// All by closed forms that keep full relative accuracy near one-hot rows; the spectral norm by
/// `diagonal_minus_rank_one_norm`; inf->1 exactly when p1 >= 1/2, else within [1-p1^2, 1]/T.
/// Attained constants over all rows: 1/(4T), sqrt2/(4T), 1/(2T), 1/(2T), 1/(2T), 1/T at p = (1/2, 1/2, 0, ...).
/// An empty row gives 0, a NaN row NaN. O(n), no allocation.
template <Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const Softmax& softmax, RowIn<T> z, RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const SpectralNorm<T> spectral = diagonal_minus_rank_one_norm<T>(p);
    if (p.empty() || !(spectral.value == spectral.value)) {
        if (p.empty()) norms = {A(0), A(0), {A(0), {A(0), A(0)}, 0, true}, A(0), A(0), A(0), {A(0), A(0)}};
        return norms;
    }
    const auto sums = detail::rest_sums<T>(p);
    const A beta = 1 / A(softmax.temperature());
    const A p1 = sums.p1, p2 = sums.p2;
    // Squares and cubes of the other weights in units of `scale`: if those weights are so small that their
    // squares would underflow, the unit is their sum, beside which the cubes vanish.
    A scale = 1, rest = sums.rest, q = sums.squares, cubes = sums.cubes;
    constexpr A unit = std::numeric_limits<A>::epsilon(), tiny = std::numeric_limits<A>::min() / unit / unit;
    if (rest > A(0) && rest * rest < tiny) {
        scale = rest;
        rest = 1;
        q = cubes = 0;
        for (std::size_t i = 0; i < p.size(); ++i)
            if (const A x = i == sums.top ? A(0) : A(p[i]) / scale; x > A(0)) q += x * x;
    }
    // An entry p_i (1-p_i) is largest at p1: p2 <= 1-p1. A column is longest at p1 or p2.
    norms.max_entry = beta * p1 * sums.rest;
    const A first = p1 * scale * std::sqrt(rest * rest + q);
    const A others = 1 - 2 * p2 + p1 * p1 + sums.squares; // (1-p2)^2 + sum_{j != 2} p_j^2, all of it of order 1
    norms.column = beta * std::max(first, p2 * std::sqrt(std::max(others, A(0))));
    norms.spectral = {beta * A(spectral.value),
                      {beta * A(spectral.bracket.lower), beta * A(spectral.bracket.upper)},
                      spectral.steps,
                      spectral.converged};
    norms.frobenius =
        beta * scale * std::sqrt(p1 * p1 * (rest * rest + q) + q * (1 + p1 * p1 + sums.squares) - 2 * cubes);
    norms.one = norms.infinity = 2 * norms.max_entry;
    norms.infinity_to_one = detail::cut_norm(sums);
    norms.infinity_to_one.lower *= beta;
    norms.infinity_to_one.upper *= beta;
    return norms;
}

namespace detail {

/// Eigenvalue counting for J^T J of J = (I - p 1^T) diag(g). With the row of the largest weight eliminated
/// through 1^T J = 0, J^T J = [[c, -g1 (tau a + b)^T], [., diag(g^2) + gamma a a^T - a b^T - b a^T]] with a =
/// g, b = p g over the other keys, R = sum p, Q = sum p^2 over them, tau = R - Q - R^2, gamma = Q + (1-R)^2, c
/// = g1^2 (Q + R^2): no entry cancels when p1 is near 1. Below c the Schur complement is diagonal plus rank
/// two.
template <Real A, class Gradient, class Weight>
class GeneralJacobian {
public:
    GeneralJacobian(std::size_t n, const RestSums<A>& sums, Gradient g, Weight p)
        : n_(n), top_(sums.top), g_(g), p_(p) {
        tau_ = sums.rest - sums.squares - sums.rest * sums.rest;
        gamma_ = sums.squares + (1 - sums.rest) * (1 - sums.rest);
        g1_ = g(top_);
        corner_ = g1_ * g1_ * (sums.squares + sums.rest * sums.rest);
    }

    /// Number of eigenvalues of J^T J above x > 0 (x off the poles; a pole counts as the numbers beside it).
    int above(A x) const {
        int count = 0;
        A a11 = 0, a12 = 0, a22 = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (i == top_) continue;
            const A g = g_(i), p = p_(i), square = g * g;
            A distance = square - x;
            if (distance == A(0)) distance = -x * std::numeric_limits<A>::epsilon();
            count += distance > A(0);
            const A ratio = square / distance;
            a11 += ratio;
            a12 += ratio * p;
            a22 += ratio * p * p;
        }
        // Coupling C = [[gamma,-1],[-1,0]] - g1^2/(c-x) [[tau^2,tau],[tau,1]]; eigenvalues above x are those of
        // c - x and of diag - x + [a b] C [a b]^T, and the latter are #{g^2 > x} + nu(C^-1 + W) - nu(C).
        A pivot = corner_ - x;
        if (pivot == A(0)) pivot = -x * std::numeric_limits<A>::epsilon();
        count += pivot > A(0);
        if (g1_ == A(0)) return count + negative(a11, a12 - 1, a22 - gamma_) - 1; // C^-1 = [[0,-1],[-1,-gamma]]
        const A h = g1_ * g1_ / pivot;
        const A det = -(h * (gamma_ + 2 * tau_) + 1); // det C, its h^2 tau^2 terms cancelled by hand
        const A c11 = gamma_ - h * tau_ * tau_, c12 = -1 - h * tau_, c22 = -h;
        return count + negative(a11 + c22 / det, a12 - c12 / det, a22 + c11 / det) -
               negative(c11, c12, c22, det);
    }

private:
    /// Negative eigenvalues of [[a, b], [b, d]].
    static int negative(A a, A b, A d) { return negative(a, b, d, a * d - b * b); }
    static int negative(A a, A, A d, A det) { return det < A(0) ? 1 : (a + d < A(0) ? 2 : 0); }

    std::size_t n_, top_;
    Gradient g_;
    Weight p_;
    A tau_, gamma_, g1_, corner_;
};

} // namespace detail

/// Norms of the Jacobian (I - p 1^T) diag(g), g_i = p_i F'(z_i)/F(z_i), of the general family (theory: P Lemma
/// 2's exact counterpart), from logits and weights of a normal row. The spectral norm is found by bisection on
/// the count of eigenvalues of J^T J (diagonal plus rank two): about 60 counts of O(n) each, safe with ties and
/// poles. inf->1 is bracketed by [spectral norm, sum of absolute column sums]. An empty row gives 0, a NaN row
/// NaN. O(n), no allocation.
template <class F, Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const PointwiseNormalizer<F>& normalizer, RowIn<T> z,
                                                     RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    A mass = 0;
    for (const T x : p) mass += x;
    if (!(mass > 0)) {
        if (mass == 0) norms = {A(0), A(0), {A(0), {A(0), A(0)}, 0, true}, A(0), A(0), A(0), {A(0), A(0)}};
        return norms;
    }
    const auto sums = detail::rest_sums<T>(p);
    const auto weight = [&](std::size_t i) { return A(p[i]); };
    const auto gradient = [&](std::size_t i) {
        return p[i] == T(0) ? A(0) : A(p[i]) * normalizer.template log_derivative<A>(A(z[i]));
    };
    A columns = 0, column_sums = 0, others_gradient = 0; // others_gradient: sum of |g| without the top key
    norms.max_entry = norms.column = norms.one = norms.infinity = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (i != sums.top) others_gradient += std::abs(gradient(i));
    const A top_gradient = std::abs(gradient(sums.top));
    for (std::size_t i = 0; i < p.size(); ++i) {
        const A g = std::abs(gradient(i)), w = weight(i);
        const bool top = i == sums.top;
        const A without = top ? sums.rest : 1 - w; // 1 - p_i
        const A others = top ? sums.squares : std::max(A(0), sums.squares - w * w) + sums.p1 * sums.p1;
        const A square = g * g * (without * without + others);
        columns += square;
        norms.column = std::max(norms.column, std::sqrt(square));
        norms.max_entry = std::max({norms.max_entry, g * without, g * (top ? sums.p2 : sums.p1)});
        norms.one = std::max(norms.one, 2 * g * without);
        column_sums += 2 * g * without;
        const A elsewhere = top ? others_gradient : top_gradient + std::max(A(0), others_gradient - g);
        norms.infinity = std::max(norms.infinity, g * without + w * elsewhere);
    }
    norms.frobenius = std::sqrt(columns);

    const detail::GeneralJacobian<A, decltype(gradient), decltype(weight)> jacobian(p.size(), sums, gradient,
                                                                                    weight);
    A low = norms.column * norms.column, high = columns;
    norms.spectral.bracket = {norms.column, norms.frobenius};
    const A precision = std::numeric_limits<A>::epsilon();
    // low is at or below the largest eigenvalue, high at or above it.
    while (high - low > 2 * precision * high && norms.spectral.steps < 200) {
        const A middle = low + (high - low) / 2;
        ++norms.spectral.steps;
        (jacobian.above(middle) > 0 ? low : high) = middle;
    }
    norms.spectral.converged = high - low <= 2 * precision * high;
    norms.spectral.value = std::sqrt(low + (high - low) / 2);
    norms.infinity_to_one = {norms.spectral.value, column_sums};
    return norms;
}

/// Norms at the logits z, any Eigen vector expression.
template <class N, VectorExpr E>
requires Normalizer<N, ScalarOf<E>>
auto jacobian_norms(const N& normalizer, const E& z) {
    using T = ScalarOf<E>;
    const RowHolder<T> row(z);
    const Row<T> p = apply(normalizer, z);
    return jacobian_norms(normalizer, row.get(), RowIn<T>(p.data(), row.get().size()));
}

} // namespace v0_1
} // namespace attnscope
