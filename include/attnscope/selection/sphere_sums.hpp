// Sums of random vectors on a sphere, exactly: needs Boost.Math (target attnscope::special).
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/types.hpp>

#include <boost/math/quadrature/gauss_kronrod.hpp>
#include <boost/math/special_functions/bessel.hpp>
#include <boost/math/special_functions/beta.hpp>

#include <algorithm>
#include <cmath>
#include <span>

namespace attnscope {
inline namespace v0_2 {

/// G_d(t) = P(<x, e> <= t) for x uniform on the unit sphere of R^d.
/// Formula. The regularised incomplete beta function I_{(1+t)/2}((d-1)/2, (d-1)/2); t is clamped to [-1,1].
/// Cost. O(1).
/// Throws. `invalid_argument` unless d >= 2.
inline double sphere_cosine_cdf(Index dimension, double t) {
    detail::require(dimension >= 2, "sphere_cosine_cdf", "dimension must be >= 2", dimension);
    const double half = static_cast<double>(dimension - 1) / 2;
    return boost::math::ibeta(half, half, (1 + std::clamp(t, -1.0, 1.0)) / 2);
}

/// P(|sum_j p_j x_j| <= r) for x_j i.i.d. uniform on the unit sphere of R^d.
/// Formula. Kluyver's integral r^{d/2} 2^{1-d/2}/Gamma(d/2) int t^{d/2-1} J_{d/2}(r t) prod phi(p_j t) dt,
/// phi(z) = Gamma(d/2) (2/z)^{d/2-1} J_{d/2-1}(z); one vector gives a step, two the cosine distribution.
/// Absolute error about 1e-9; for d = 2 and three vectors the integrand decays slowly and about 1e-5 is
/// reached.
/// Cost. Milliseconds for d >= 8, up to a second for d = 2 or 3 with three or four vectors.
/// Throws. `invalid_argument` for an empty sum, d < 2, r < 0 or a weight <= 0.
inline double sphere_sum_cdf(std::span<const double> weights, Index dimension, double r) {
    detail::require(!weights.empty(), "sphere_sum_cdf", "at least one weight is needed", weights.size());
    detail::require(dimension >= 2, "sphere_sum_cdf", "dimension must be >= 2", dimension);
    detail::require(r >= 0, "sphere_sum_cdf", "r must be >= 0", r);
    double sum = 0, squares = 0;
    for (const double p : weights) {
        detail::require(p > 0, "sphere_sum_cdf", "weights must be > 0", p);
        sum += p;
        squares += p * p;
    }
    if (r >= sum) return 1;
    if (r == 0) return 0;
    if (weights.size() == 1) return 0; // r < p
    if (weights.size() == 2) {
        const double p = weights[0], q = weights[1];
        return sphere_cosine_cdf(dimension, (r * r - p * p - q * q) / (2 * p * q));
    }
    const double half = static_cast<double>(dimension) / 2;
    const auto log_phi = [&](double z) { // log |phi|, sign
        if (z < 1e-8) return std::pair(0.0, 1.0);
        const double j = boost::math::cyl_bessel_j(half - 1, z);
        return std::pair(std::lgamma(half) + (half - 1) * std::log(2 / z) + std::log(std::abs(j)),
                         j < 0 ? -1.0 : 1.0);
    };
    const auto integrand = [&](double t) {
        if (t <= 0) return 0.0;
        const double bessel = boost::math::cyl_bessel_j(half, r * t);
        if (bessel == 0) return 0.0;
        double log_value = half * std::log(r) + (1 - half) * std::log(2.0) - std::lgamma(half) +
                           (half - 1) * std::log(t) + std::log(std::abs(bessel));
        double sign = bessel < 0 ? -1 : 1;
        for (const double p : weights) {
            const auto [log_factor, factor_sign] = log_phi(p * t);
            log_value += log_factor;
            sign *= factor_sign;
            if (log_value < -80) return 0.0;
        }
        return sign * std::exp(log_value);
    };
    // Panels of half a period of the fastest oscillation, until a run of them adds nothing.
    const double panel = 3.141592653589793 / (r + sum);
    const double scale = std::sqrt(static_cast<double>(dimension) / squares);
    double total = 0;
    int quiet = 0;
    for (int k = 0; k < 20000 && quiet < 8; ++k) {
        const double part = boost::math::quadrature::gauss_kronrod<double, 15>::integrate(integrand, k * panel,
                                                                                          (k + 1) * panel, 0);
        total += part;
        quiet = std::abs(part) < 1e-13 && k * panel > 3 * scale ? quiet + 1 : 0;
    }
    return std::clamp(total, 0.0, 1.0);
}

} // namespace v0_2
} // namespace attnscope
