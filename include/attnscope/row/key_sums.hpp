// The sums over the keys of a row from which its statistics follow: one pass, without the largest key.
#pragma once

#include <attnscope/row/softmax_row.hpp>

#include <tuple>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// a b - product, the rounding error of `product` = fl(a b), b one packet.
template <class P>
EIGEN_ALWAYS_INLINE P product_error(const P& a, Packet<typename P::Scalar> b, const P& product) {
    using T = typename P::Scalar;
    if constexpr (madd_is_fused && !Packet<T>::scalar) return madd(a, b, T(0) - product);
    // Dekker's product with Veltkamp's split, that of b with room for the largest numbers.
    constexpr int half_digits = (std::numeric_limits<T>::digits + 1) / 2;
    constexpr T factor = static_cast<T>((1ull << half_digits) + 1);
    const P y = a * factor, a1 = y - (y - a), a2 = a - a1;
    constexpr T room = 1 / static_cast<T>(1ull << (half_digits + 1));
    const Packet<T> small = b * room, x = small * factor;
    const Packet<T> b1 = (x - (x - small)) * (1 / room), b2 = b - b1;
    const P e1 = a1 * b1 - product;
    return madd(a2, b2, madd(a2, b1, madd(a1, b2, e1)));
}

/// 1/temperature - high in the precision of T.
template <Real T>
T inverse_remainder(double temperature, T high) {
    if constexpr (std::same_as<T, float>)
        return static_cast<T>(1 / temperature - static_cast<double>(high));
    else // a wider scalar may not exist: (1 - high temperature)/temperature, the product exact
        return std::fma(-high, static_cast<T>(temperature), T(1)) / static_cast<T>(temperature);
}

/// The sums of a row over all keys but the one at `top`, whose logit m is the largest and finite; no NaN.
template <Real T>
struct KeySums {
    Accumulator<T> r = 0, t = 0, q = 0, c = 0, v = 0;
    T second = -std::numeric_limits<T>::infinity();  ///< largest of the others, -inf if there is none
    T smallest = std::numeric_limits<T>::infinity(); ///< of the visible keys, the one at `top` too
    Index visible = 0;
};

/// No key is left out.
inline constexpr std::size_t no_key = static_cast<std::size_t>(-1) / 4;

/// u_i = (m - z_i)/T with 1/T = high + low; `scaled` false: T = 1. `smallest` and `visible` are left alone.
/// `store`: also writes the weights e^{-u} to `weights` (which may be z), 0 for the key that is left out. `second`: also finds
/// the largest of the others.
template <bool scaled, bool store, bool second, Real T>
KeySums<T> key_sums_without_range(RowIn<T> z, T m, std::size_t top, T high, T low, T* weights) {
    using P = Packet<T>;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const P maximum = m, inverse = high, remainder = low, zero = T(0), limit = exp_cutoff<T>();
    // At T = 1 masked keys and others of weight 0 stand at this logit, where nothing is infinite. It is rounded
    // at the size of m, and still beyond the cutoff.
    const P floor = m - ((2 - exp_cutoff<T>()) + 4 * std::numeric_limits<T>::epsilon() * std::abs(m));
    P largest = -infinity;
    const auto sums =
        sum_groups<T, 5>(size(z), [&](const auto& lane, Packets<T, 5>& sum) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            using Q = typename std::decay_t<decltype(lane)>::P;
            Q key = lane(z.data(), -infinity);
            if (const Index place = static_cast<Index>(top) - lane.i; place >= 0 && place < Q::size)
                key = with_element(key, place, -infinity); // the top key itself is left out
            if constexpr (second) largest = max_to(largest, key);
            if constexpr (!scaled) key = max(key, floor);
            // z - m = s + e exactly in T plus T: the rounding of s alone would cost 1e-6 of the entropy in float.
            const Q s = key - maximum, back = s - key;
            const Q e = (key - (s - back)) - (maximum + back);
            Q u = s, weight;
            if constexpr (scaled) {
                const Q scaled_distance = s * inverse;
                const Q correction =
                    madd(e, inverse, madd(s, remainder, product_error(s, inverse, scaled_distance)));
                const Q power = exp_nonpositive(scaled_distance);
                // Masked and negligible keys lie beyond the limit, where e and the correction may be NaN.
                weight = select_below(scaled_distance, limit, power, madd(power, correction, power));
                u = select_below(scaled_distance, limit, zero, scaled_distance);
            } else {
                const Q power = exp_nonpositive(s);
                weight = madd(power, e, power);
            }
            if constexpr (store) lane.store(weights, weight);
            const Q weighted = u * weight, squared = weight * weight;
            sum.v[0] = add_to(sum.v[0], weight);
            sum.v[1] = add_to(sum.v[1], weighted); // minus the sum of u p
            sum.v[2] = add_to(sum.v[2], squared);
            sum.v[3] = madd_to(sum.v[3], squared, weight);
            sum.v[4] = madd_to(sum.v[4], u, weighted);
        });
    KeySums<T> result;
    result.r = sums[0];
    result.t = -sums[1];
    result.q = sums[2];
    result.c = sums[3];
    result.v = sums[4];
    if constexpr (second) result.second = reduce_max(largest);
    return result;
}

/// The same key by key, for temperatures without an inverse in T.
template <Real T>
KeySums<T> divided_key_sums(RowIn<T> z, T m, std::size_t top, double temperature) {
    using A = Accumulator<T>;
    KeySums<T> sums;
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (i == top) continue;
        sums.second = std::max(sums.second, z[i]);
        const A u = temperatures_apart(A(m), A(z[i]), static_cast<A>(temperature)), weight = std::exp(-u);
        if (weight < std::numeric_limits<A>::min()) continue; // NaN goes on
        sums.r += weight;
        sums.t += u * weight;
        sums.q += weight * weight;
        sums.c += weight * weight * weight;
        sums.v += u * u * weight;
    }
    return sums;
}

/// Smallest logit above -inf, and how many there are.
template <Real T>
std::pair<T, Index> visible_range(RowIn<T> z) {
    using P = Packet<T>;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const P lowest = std::numeric_limits<T>::lowest(), above = infinity, zero = T(0), one = T(1);
    auto smallest = above;
    const auto count = sum_lanes<T>(size(z), [&](const auto& lane) {
        const auto key = lane(z.data(), -infinity);
        smallest = min(smallest, select_below(key, lowest, above, key));
        return select_below(key, lowest, zero, one);
    });
    return {reduce_min(smallest), static_cast<Index>(count)};
}

/// All of them. `least`: the smallest element of z, -inf included.
template <Real T>
KeySums<T> key_sums(RowIn<T> z, T m, T least, std::size_t top, double temperature) {
    // At the very end of the range there is no logit for what has no weight; the scaled form needs none.
    const bool plain = temperature == 1 && m > std::numeric_limits<T>::lowest() / 2;
    const T high = clamped_inverse<T>(temperature);
    KeySums<T> result = !has_inverse<T>(temperature) ? divided_key_sums<T>(z, m, top, temperature)
                        : plain ? key_sums_without_range<false, false, true, T>(z, m, top, high, T(0), nullptr)
                                : key_sums_without_range<true, false, true, T>(
                                      z, m, top, high, inverse_remainder<T>(temperature, high), nullptr);
    if (least > -std::numeric_limits<T>::infinity()) {
        result.smallest = least;
        result.visible = size(z);
    } else {
        std::tie(result.smallest, result.visible) = visible_range<T>(z);
    }
    return result;
}

} // namespace detail

} // namespace v0_2
} // namespace attnscope
