// The sums over the keys of a row from which its statistics follow: one pass, without the largest key.
#pragma once

#include <attnscope/normalizer/softmax.hpp>

#include <tuple>

namespace attnscope {
inline namespace v0_1 {
namespace detail {

/// a b - product, the rounding error of `product` = fl(a b).
template <Real T>
typename Simd<T>::P product_error(typename Simd<T>::P a, typename Simd<T>::P b, typename Simd<T>::P product) {
    using S = Simd<T>;
    using P = typename S::P;
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
    if constexpr (!S::scalar) return S::madd(a, b, S::sub(S::set(T(0)), product));
#endif
    // Dekker's product with Veltkamp's split.
    constexpr int half_digits = (std::numeric_limits<T>::digits + 1) / 2;
    constexpr T factor = static_cast<T>((1ull << half_digits) + 1);
    const auto high = [&](P x) {
        const P y = S::mul(x, S::set(factor));
        return S::sub(y, S::sub(y, x));
    };
    const P a1 = high(a), b1 = high(b);
    const P a2 = S::sub(a, a1), b2 = S::sub(b, b1);
    const P e1 = S::sub(S::mul(a1, b1), product);
    return S::madd(a2, b2, S::madd(a2, b1, S::madd(a1, b2, e1)));
}

/// 1/temperature - high in the precision of T; 0 where `high` is clamped.
template <Real T>
T inverse_remainder(double temperature, T high) {
    if (high == std::numeric_limits<T>::max() || high == std::numeric_limits<T>::min()) return T(0);
    if constexpr (std::same_as<T, float>)
        return static_cast<T>(1 / temperature - static_cast<double>(high));
    else // a wider scalar may not exist: (1 - high temperature)/temperature, the product exact
        return std::fma(-high, static_cast<T>(temperature), T(1)) / static_cast<T>(temperature);
}

/// Where a row's maximum m (an element, no NaN) first stands.
template <Real T>
std::size_t first_maximum(RowIn<T> z, T m) {
    constexpr std::size_t chunk = 4 * static_cast<std::size_t>(Simd<T>::size);
    std::size_t begin = 0;
    while (begin + chunk < z.size() && row_max<T>(z.subspan(begin, chunk)) < m) begin += chunk;
    return static_cast<std::size_t>(std::find(z.begin() + static_cast<std::ptrdiff_t>(begin), z.end(), m) -
                                    z.begin());
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
/// `store`: also writes the weights e^{-u} to `weights` (which may be z), 0 for the key that is left out.
template <bool scaled, bool store, Real T>
KeySums<T> key_sums_without_range(RowIn<T> z, T m, std::size_t top, T high, T low, T* weights) {
    using S = Simd<T>;
    using P = typename S::P;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const P maximum = S::set(m), inverse = S::set(high), remainder = S::set(low), zero = S::set(T(0)),
            limit = S::set(exp_cutoff<T>());
    // At T = 1 masked keys and others of weight 0 stand at this logit, where nothing is infinite.
    const P floor =
        S::set(m - std::max(2 - exp_cutoff<T>(), 8 * std::numeric_limits<T>::epsilon() * std::abs(m)));
    P largest = S::set(-infinity);
    const Index whole = static_cast<Index>(top) / S::size * S::size; // where the packet with the top key begins
    const auto sums = accumulate_lanes<T, 5>(size(z), [&](const auto& lane, Packets<T, 5>& sum) {
        P key = lane(z.data(), -infinity);
        if (lane.i == whole) { // the top key itself is left out
            std::array<T, static_cast<std::size_t>(S::size)> keys;
            S::store(keys.data(), key);
            keys[top - static_cast<std::size_t>(whole)] = -infinity;
            key = S::load(keys.data());
        }
        largest = S::max(largest, key);
        if constexpr (!scaled) key = S::max(key, floor);
        // z - m = s + e exactly in T plus T: the rounding of s alone would cost 1e-6 of the entropy in float.
        const P s = S::sub(key, maximum), back = S::sub(s, key);
        const P e = S::sub(S::sub(key, S::sub(s, back)), S::add(maximum, back));
        P u = s, weight;
        if constexpr (scaled) {
            const P scaled_distance = S::mul(s, inverse);
            const P correction =
                S::madd(e, inverse, S::madd(s, remainder, product_error<T>(s, inverse, scaled_distance)));
            const P power = exp_nonpositive<T>(scaled_distance);
            // Masked and negligible keys lie beyond the limit, where e and the correction may be NaN.
            weight = S::select_below(scaled_distance, limit, power, S::madd(power, correction, power));
            u = S::select_below(scaled_distance, limit, zero, scaled_distance);
        } else {
            const P power = exp_nonpositive<T>(s);
            weight = S::madd(power, e, power);
        }
        if constexpr (store) lane.store(weights, weight);
        const P weighted = S::mul(u, weight), squared = S::mul(weight, weight);
        sum.v[0] = S::add(sum.v[0], weight);
        sum.v[1] = S::sub(sum.v[1], weighted);
        sum.v[2] = S::add(sum.v[2], squared);
        sum.v[3] = S::madd(squared, weight, sum.v[3]);
        sum.v[4] = S::madd(u, weighted, sum.v[4]);
    });
    KeySums<T> result;
    result.r = sums[0];
    result.t = sums[1];
    result.q = sums[2];
    result.c = sums[3];
    result.v = sums[4];
    result.second = S::reduce_max(largest);
    return result;
}

/// Smallest logit above -inf, and how many there are.
template <Real T>
std::pair<T, Index> visible_range(RowIn<T> z) {
    using S = Simd<T>;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const auto lowest = S::set(std::numeric_limits<T>::lowest()), above = S::set(infinity), zero = S::set(T(0)),
               one = S::set(T(1));
    auto smallest = above;
    const auto count = sum_lanes<T, 1>(size(z), [&](const auto& lane) {
        const auto key = lane(z.data(), -infinity);
        smallest = S::min(smallest, S::select_below(key, lowest, above, key));
        return Packets<T, 1>{{S::select_below(key, lowest, zero, one)}};
    })[0];
    return {S::reduce_min(smallest), static_cast<Index>(count)};
}

/// All of them. `least`: the smallest element of z, -inf included.
template <Real T>
KeySums<T> key_sums(RowIn<T> z, T m, T least, std::size_t top, double temperature) {
    // At the very end of the range there is no logit for what has no weight; the scaled form needs none.
    const bool plain = temperature == 1 && m > std::numeric_limits<T>::lowest() / 2;
    const T high = clamped_inverse<T>(temperature);
    KeySums<T> result = plain ? key_sums_without_range<false, false, T>(z, m, top, high, T(0), nullptr)
                              : key_sums_without_range<true, false, T>(
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

} // namespace v0_1
} // namespace attnscope
