// Up to which context does a row give its best key the weight tau?
#pragma once

#include <attnscope/concentration/capacity.hpp>
#include <attnscope/planner/growth.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Three answers about one row, in keys; real numbers, +inf where nothing ends it.
struct LengthLimits {
    double guaranteed =
        0; ///< however many keys come, as long as all of them keep the row's gap to the best one
    double expected =
        0; ///< if the further keys are like those that the row has, and the background grows as observed
    double possible = 0; ///< beyond it no row of this spread gives any key the weight
};

/// Up to which context a row of softmax(z/T) gives its best key the weight tau.
/// Formula. The outer two: `longest_context` at the gap and at the spread. The expected length is the first
/// one, from the row's own on, beyond which copies e^{-shift/T} r exceeds (1-tau)/tau, or, if the row does
/// not give tau now, the last shorter one at which it did not.
/// Shapes and units. exponent: from `background_growth` at temperature 1, applied to gaps.
/// Special rows. A row of one key has all three infinite but where tau = 1; rows that are not normal have
/// NaN.
/// Cost. O(1), at most 100 steps of bisection.
/// Throws. `invalid_argument` unless tau is in (0,1].
/// Source. Corollary 1, sharp.
template <Real A>
LengthLimits length_limits(const RowStatistics<A>& row, double tau, double exponent = 0) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    detail::require_weight("length_limits", tau);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    if (!row.normal()) return {nan, nan, nan};
    if (row.visible == 1) return tau == 1 ? LengthLimits{1, 1, 1} : LengthLimits{infinity, infinity, infinity};
    const double gap = static_cast<double>(row.logit_gap()), spread = static_cast<double>(row.logit_spread());
    LengthLimits limits{longest_context(gap, row.temperature, tau), 0,
                        longest_context(spread, row.temperature, tau)};
    const double needed = std::log1p(-tau) - std::log(tau), n = static_cast<double>(row.visible);
    const double a = -exponent / row.temperature; // the sum goes like (length-1) length^-a
    const double r = static_cast<double>(row.r);
    // Where all others are too far away to be summed, the nearest one counts.
    const double log_r = r > 0 ? std::log(r) : -gap / row.temperature;
    const auto log_sum = [&](double log_length) {
        const double shift = std::max(-exponent * (log_length - std::log(n)), -gap);
        return std::log(std::expm1(log_length)) - std::log(n - 1) - shift / row.temperature + log_r;
    };
    // With a > 1 the lead ends up growing faster than the number of keys: the sum rises to a peak and falls
    // again.
    double peak = std::numeric_limits<double>::infinity(); // log of the length
    if (a > 1) peak = std::max(-std::log1p(-1 / a), std::log(n) - gap / row.temperature / a);
    const bool gives = log_sum(std::log(n)) <= needed;
    const double highest = 709;
    double low = 0, high = 0;
    if (gives) {
        low = std::log(n);
        high = std::min(peak, highest);
        if (!(high > low) || log_sum(high) <= needed) {
            limits.expected = infinity;
            low = high = 0;
        }
    } else {
        low = 0; // a single key has all the weight
        high = std::min(std::log(n), peak);
    }
    if (high > low) {
        for (int i = 0; i < 100; ++i) {
            const double middle = (low + high) / 2;
            (log_sum(middle) <= needed ? low : high) = middle;
        }
        limits.expected = std::exp(low);
    }
    // Without growth the outer two hold the answer, rounding at the ends of the scale included.
    if (exponent == 0) limits.expected = std::clamp(limits.expected, limits.guaranteed, limits.possible);
    return limits;
}

} // namespace v0_2
} // namespace attnscope
