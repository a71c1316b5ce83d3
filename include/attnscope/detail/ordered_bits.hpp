// Floating-point numbers as whole numbers in the same order.
#pragma once

#include <attnscope/types.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Unsigned number whose ascending order is the descending order of x; NaN of either sign comes last.
template <class T>
auto descending_key(T x) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    if (x != x) return ~Bits(0);
    const Bits bits = std::bit_cast<Bits>(x == T(0) ? T(0) : x); // -0 and 0 tie
    const Bits sign = Bits(1) << (8 * sizeof(Bits) - 1);
    const Bits ascending = (bits & sign) ? Bits(~bits) : Bits(bits | sign);
    return Bits(~ascending);
}

/// The score whose `descending_key` this is; of numbers only.
template <class T, class Bits>
T score_of(Bits key) {
    const Bits sign = Bits(1) << (8 * sizeof(Bits) - 1), ascending = Bits(~key);
    return std::bit_cast<T>((ascending & sign) ? Bits(ascending & ~sign) : Bits(~ascending));
}

/// A number in (low, high] with about as many numbers of T on either side.
template <Real T>
requires(!std::same_as<T, long double>)
T middle_of(T low, T high) {
    const auto above = descending_key(high), below = descending_key(low);
    return score_of<T>(static_cast<decltype(above)>(above + (below - above) / 2));
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
