// How many keys top-k selection needs on Gaussian logits: needs Boost.Math (target attnscope::special).
#pragma once

#include <attnscope/errors.hpp>

#include <boost/math/special_functions/erf.hpp>

#include <cmath>

namespace attnscope {
inline namespace v0_2 {

/// Share k/n of keys that top-k selection needs to leave at most the mass eps, for many Gaussian logits.
/// Formula. Q(sigma + Phi^{-1}(eps)), Q the upper tail of the normal distribution.
/// Shapes and units. sigma: standard deviation of the logits over the temperature.
/// Cost. O(1).
/// Throws. `invalid_argument` unless sigma >= 0 and eps in (0,1).
/// Source. arXiv:2512.07647.
inline double gaussian_truncation_share(double sigma, double eps) {
    detail::require(sigma >= 0, "gaussian_truncation_share", "sigma must be >= 0", sigma);
    detail::require(eps > 0 && eps < 1, "gaussian_truncation_share", "eps must be in (0,1)", eps);
    const double root = std::sqrt(2.0);
    const double quantile = -root * boost::math::erfc_inv(2 * eps);
    return boost::math::erfc((sigma + quantile) / root) / 2;
}

} // namespace v0_2
} // namespace attnscope
