// What largest weight independent keys leave a softmax row, and the temperature that keys on a sphere need.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/types.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Limits of the expected largest weight where the other n-1 keys are independent and of one law.
/// Formula. With x = e^{-g}, g the gap of another key in temperatures, and mu = E x:
///     1/(1+(n-1) mu) <= E p1 <= (1-(1-mu)^n)/(n mu).
/// Attained by keys that all stand at one gap (below), and by keys that are either tied with the largest or without
/// weight (above).
/// Shapes and units. n: all keys; mu in [0, 1].
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and 0 <= mu <= 1.
template <Real A>
Interval<A> independent_keys_range(std::type_identity_t<A> n, A mu) {
    detail::require(n >= A(1), "independent_keys_range", "n must be >= 1", n);
    detail::require(mu >= A(0) && mu <= A(1), "independent_keys_range", "mu must be in [0, 1]", mu);
    // (1-mu)^n = e^{n log(1-mu)}; the fraction goes to 1 with mu.
    const A upper = mu == A(1) ? 1 / n : n * mu > A(0) ? -std::expm1(n * std::log1p(-mu)) / (n * mu) : A(1);
    const A lower = 1 / (1 + (n - 1) * mu);
    return {lower, std::max(lower, std::min(A(1), upper))};
}

inline constexpr Statement sphere_keys_statement{
    .id = "sphere_keys",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+(n-1)mu) <= E p1 <= (1-(1-mu)^n)/(n mu), mu = E e^{-g}",
    .conditions = "softmax; the n-1 gaps g to the largest logit independent and of one law",
    .source = "finite form of arXiv:2605.08505",
};

/// Bounds "sphere_keys": an expected largest weight against `independent_keys_range`.
/// Shapes and units. expected: E p1; error: how exactly it is known, such as the error of a mean over draws.
/// Cost. O(1).
/// Throws. As `independent_keys_range`.
/// Source. arXiv:2605.08505, for keys on a sphere and n to infinity.
template <Real A>
BoundPair<A> sphere_keys_sharp(std::type_identity_t<A> n, A mu, std::type_identity_t<A> expected,
                               std::type_identity_t<A> error = 0) {
    const Interval<A> range = independent_keys_range(n, mu);
    const A unit = 16 * std::numeric_limits<A>::epsilon();
    return {lower_bound<A>(sphere_keys_statement, {.limit = range.lower,
                                                   .measured = expected,
                                                   .tolerance = error + unit * range.lower,
                                                   .trivial = 1 / n}),
            upper_bound<A>(sphere_keys_statement, {.limit = range.upper,
                                                   .measured = expected,
                                                   .tolerance = error + unit * range.upper,
                                                   .trivial = 1})};
}

/// The inverse temperature at which n keys, uniform on the unit sphere of R^d, begin to leave weight on the nearest one.
/// Formula. beta* = (n Gamma(d-1)/(2^a Gamma(a)))^{1/a}, a = (d-1)/2, of order n^{2/(d-1)}: where
/// n E e^{-beta (1 - <q,k>)} is 1 by the density of 1 - <q,k> near 0; n/2 for d = 3.
/// Shapes and units. Logits beta <q, k>, |q| = |k| = 1.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and d >= 2.
/// Source. arXiv:2605.08505 for the order; the constant is ours.
inline double sphere_inverse_temperature(double n, Index dimension) {
    detail::require(n >= 1, "sphere_inverse_temperature", "n must be >= 1", n);
    detail::require(dimension >= 2, "sphere_inverse_temperature", "dimension must be >= 2", dimension);
    const double a = static_cast<double>(dimension - 1) / 2;
    return std::exp((std::log(n) + std::lgamma(2 * a) - a * std::log(2.0) - std::lgamma(a)) / a);
}

/// E p1 of softmax(beta <q, k_i>) for n independent keys, uniform on the unit sphere of R^d, and any q on it.
/// Formula. Given the nearest key at the angle t, the others are independent and uniform on the rest of the sphere, so
/// that E p1 is between the means over t of `independent_keys_range` with
///     mu(t) = int_t^pi e^{-beta (cos t - cos s)} sin^{d-2} s ds/int_t^pi sin^{d-2} s ds.
/// P(nearest > t) = (1-F(t))^n, F the share of the sphere within t. Integrals by Gauss's rule in log t, to about 1e-6.
/// Cost. O(points), allocates a few rows of as many numbers.
/// Throws. `invalid_argument` unless n >= 2, d >= 2 and beta >= 0 is finite.
/// Source. arXiv:2605.08505 for n to infinity.
inline Interval<double> sphere_expected_weight(double n, Index dimension, double beta, Index points = 20000) {
    detail::require(n >= 2, "sphere_expected_weight", "n must be >= 2", n);
    detail::require(dimension >= 2, "sphere_expected_weight", "dimension must be >= 2", dimension);
    detail::require(beta >= 0 && std::isfinite(beta), "sphere_expected_weight", "beta must be >= 0 and finite",
                    beta);
    detail::require(points >= 100, "sphere_expected_weight", "100 points or more are needed", points);
    // From an angle within which no key is but with a probability of 1e-9.
    const double power = static_cast<double>(dimension - 2),
                 depth = (std::log(n) + std::log(1e9)) / (power + 1) + 2;
    const double width = depth / static_cast<double>(points), size = std::log(std::numbers::pi);
    const auto angle = [&](double k) { return std::exp(size - depth + width * k); };
    const auto distance = [](double t) { return 2 * std::sin(t / 2) * std::sin(t / 2); }; // 1 - cos t
    constexpr std::array<double, 3> nodes = {0.1127016653792583, 0.5, 0.8872983346207417},
                                    shares = {5.0 / 18, 8.0 / 18, 5.0 / 18};
    // From the far side on: the rest of the sphere, and of it the weight relative to that of a key at the angle.
    const auto count = static_cast<std::size_t>(points) + 1;
    std::vector<double> rest(count, 0), weight(count, 0), within(count, 0), nearest(count, 0);
    for (std::size_t k = count - 1; k-- > 0;) {
        const double start = angle(static_cast<double>(k));
        double cells = 0, weighted = 0;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            const double t = angle(static_cast<double>(k) + nodes[i]),
                         share = shares[i] * width * t * std::pow(std::sin(t), power);
            cells += share;
            weighted += share * std::exp(-beta * (distance(t) - distance(start)));
        }
        const double step = distance(angle(static_cast<double>(k + 1))) - distance(start);
        rest[k] = rest[k + 1] + cells;
        within[k + 1] = cells;
        weight[k] = weight[k + 1] * std::exp(-beta * step) + weighted;
    }
    // The share within each angle is added up from the near side, however small it is; what lies before the first angle,
    // by its leading power.
    within[0] = std::pow(angle(0), power + 1) / (power + 1);
    for (std::size_t k = 1; k < count; ++k) within[k] += within[k - 1];
    for (std::size_t k = 0; k < count; ++k)
        nearest[k] = std::exp(n * std::log1p(-std::min(1.0, within[k] / within[count - 1])));
    Interval<double> mean{0, 0};
    Interval<double> before{0, 0};
    for (std::size_t k = 0; k < count; ++k) {
        const double mu = rest[k] > 0 ? std::min(1.0, weight[k] / rest[k]) : 1.0;
        const Interval<double> here = independent_keys_range(n, mu);
        const double mass = k == 0 ? 1 - nearest[0] : nearest[k - 1] - nearest[k];
        mean.lower += mass * (k == 0 ? here.lower : (here.lower + before.lower) / 2);
        mean.upper += mass * (k == 0 ? here.upper : (here.upper + before.upper) / 2);
        before = here;
    }
    return mean;
}

} // namespace v0_2
} // namespace attnscope
