// Planning with the sharp form of Corollary 1: which context, temperature or logit gap gives a key the weight
// tau.
//
// Each answer reads in two ways, by what `spread` is:
//   the gap between the best key and every other: the condition *guarantees* weight tau for the best key;
//   the spread max z - min z of the row: the condition is *necessary* for any key to have weight tau.
//
// The arguments are n, D, T, tau, always in this order, without the one that is asked for.
#pragma once

#include <attnscope/types.hpp>

#include <cmath>
#include <limits>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

template <Real A>
void require_weight(std::string_view function, A tau) {
    require(tau > A(0) && tau <= A(1), function, "tau must be in (0,1]", tau);
}

/// log((n-1) tau/(1-tau)): the spread over the temperature that weight tau needs among n keys.
template <Real A>
A needed_spread(Index n, A tau) {
    return std::log(static_cast<A>(n - 1)) + std::log(tau) - std::log1p(-tau);
}

} // namespace detail

/// Largest number of keys at which a gap (spread) D can give weight tau; a real number.
/// Formula. n <= 1 + e^{D/T} (1-tau)/tau; +inf when it overflows. At tau = 1 only a row of one key qualifies:
/// 1.
/// Cost. O(1).
/// Throws. `invalid_argument` unless D >= 0, T > 0 and tau in (0,1].
template <Number D, Number T, Number W, Real A = Promoted<D, T, W>>
A longest_context(D spread, T temperature, W tau) {
    detail::require(A(spread) >= 0, "longest_context", "spread must be >= 0", spread);
    detail::require(A(temperature) > 0, "longest_context", "temperature must be > 0", temperature);
    detail::require_weight("longest_context", A(tau));
    if (A(tau) == 1) return 1;
    return 1 + std::exp(A(spread) / A(temperature)) * ((1 - A(tau)) / A(tau));
}

/// Highest temperature at which a gap (spread) D gives weight tau among n keys.
/// Formula. T = D / log((n-1) tau/(1-tau)); +inf when tau <= 1/n (every temperature does); 0 when none does
/// (D = 0, or tau = 1 with n > 1).
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1, D >= 0 and tau in (0,1].
template <Number D, Number W, Real A = Promoted<D, W>>
A highest_temperature(Index n, D spread, W tau) {
    detail::require(n >= 1, "highest_temperature", "n must be >= 1", n);
    detail::require(A(spread) >= 0, "highest_temperature", "spread must be >= 0", spread);
    detail::require_weight("highest_temperature", A(tau));
    if (n == 1 || A(tau) * A(n) <= 1) return std::numeric_limits<A>::infinity();
    return A(tau) == 1 ? A(0) : A(spread) / detail::needed_spread(n, A(tau));
}

/// Smallest gap (spread) that gives weight tau among n keys at temperature T.
/// Formula. D = T log((n-1) tau/(1-tau)); 0 when tau <= 1/n; +inf when tau = 1 and n > 1.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1, T > 0 and tau in (0,1].
template <Number T, Number W, Real A = Promoted<T, W>>
A needed_spread(Index n, T temperature, W tau) {
    detail::require(n >= 1, "needed_spread", "n must be >= 1", n);
    detail::require(A(temperature) > 0, "needed_spread", "temperature must be > 0", temperature);
    detail::require_weight("needed_spread", A(tau));
    if (n == 1 || A(tau) * A(n) <= 1) return 0;
    if (A(tau) == 1) return std::numeric_limits<A>::infinity();
    return A(temperature) * detail::needed_spread(n, A(tau));
}

} // namespace v0_2
} // namespace attnscope
