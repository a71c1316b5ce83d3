// The sums from which everything about one softmax row follows: log-sum-exp, entropy, leading weights, power
// sums.
#pragma once

#include <attnscope/normalizer/softmax.hpp>

#include <tuple>

namespace attnscope {
inline namespace v0_1 {

/// Sums over the visible keys of a row except the one with the largest logit m (the first, if several), with
/// u_i = (m - z_i)/T >= 0. All terms are positive and none is near 1, so no figure below loses digits, however
/// sharp or flat the row is. A is the accumulator scalar: double for float rows.
///
/// On rows that are not `normal` every figure is NaN, except that an empty row has log_sum_exp -inf, and that
/// the maximum of an infinite row is +inf. A row of one visible key has entropy 0 and weight 1.
template <Real A>
struct RowStatistics {
    RowStatus status = RowStatus::empty;
    double temperature = 1;
    A unit_roundoff = 0;    ///< of the scalar in which the row was read
    Index visible = 0;      ///< keys with z > -inf
    Index argmax = -1;      ///< first key with the largest logit, -1 if there is none
    A max_logit = nan();    ///< m
    A second_logit = nan(); ///< largest of the others, NaN when only one key is visible
    A min_logit = nan();    ///< smallest visible logit
    A r = 0;                ///< sum e^{-u}
    A t = 0;                ///< sum u e^{-u}
    A q = 0;                ///< sum e^{-2u}
    A c = 0;                ///< sum e^{-3u}
    A v = 0;                ///< sum u^2 e^{-u}

    bool normal() const { return status == RowStatus::normal; }

    /// log sum e^{z/T}
    A log_sum_exp() const {
        if (normal()) return max_logit / A(temperature) + std::log1p(r);
        if (status == RowStatus::empty) return -std::numeric_limits<A>::infinity();
        return status == RowStatus::infinite ? std::numeric_limits<A>::infinity() : nan();
    }
    /// H = -sum p log p in nats
    A entropy_nats() const { return figure(std::log1p(r) + t / (1 + r)); }
    /// p1
    A max_weight() const { return figure(1 / (1 + r)); }
    /// 1 - p1, to full relative accuracy
    A rest() const { return figure(r / (1 + r)); }
    /// p2; 0 when only one key is visible
    A second_weight() const {
        return figure(visible > 1 ? std::exp((second_logit - max_logit) / A(temperature)) / (1 + r) : A(0));
    }
    /// S2 = sum p^2
    A power_sum_2() const { return figure((1 + q) / ((1 + r) * (1 + r))); }
    /// 1 - S2, to full relative accuracy
    A one_minus_power_sum_2() const { return figure((r * (2 + r) - q) / ((1 + r) * (1 + r))); }
    /// S3 = sum p^3
    A power_sum_3() const { return figure((1 + c) / ((1 + r) * (1 + r) * (1 + r))); }
    /// 1/S2: how many equal keys would be as concentrated (the Hill number of order 2)
    A participation_ratio() const { return figure((1 + r) * (1 + r) / (1 + q)); }
    /// D = max z - min z over visible keys, before the temperature
    A logit_spread() const { return figure(max_logit - min_logit); }
    /// (z_(1) - z_(2)), before the temperature; NaN when only one key is visible
    A logit_gap() const { return figure(max_logit - second_logit); }
    /// E_p z
    A mean_logit() const { return figure(max_logit - A(temperature) * t / (1 + r)); }
    /// Var_p z. Its relative error grows like 1 + r = 1/p1 when all other keys lie equally far below the
    /// maximum: (1+r) v and t^2 <= r v then nearly cancel.
    A logit_variance() const {
        return figure(A(temperature) * A(temperature) * ((1 + r) * v - t * t) / ((1 + r) * (1 + r)));
    }

    /// Bound on the relative rounding error of each of the sums r, t, q and v: the terms are exact to 24 units,
    /// and `visible` of them are added in blocks of 64.
    A sum_error() const {
        const A n = static_cast<A>(visible);
        return unit_roundoff * (24 + std::min(n, A(64)) + n / 64);
    }

    /// What each of the sums r, q and c may lack: keys below the smallest normal number of the scalar in which
    /// the row was read count as 0.
    A underflow() const {
        const bool narrow = unit_roundoff > std::numeric_limits<A>::epsilon();
        return static_cast<A>(visible) *
               (narrow ? A(std::numeric_limits<float>::min()) : std::numeric_limits<A>::min());
    }

    static constexpr A nan() { return std::numeric_limits<A>::quiet_NaN(); }

private:
    A figure(A x) const { return normal() ? x : nan(); }
};

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

/// u_i = (m - z_i)/T with 1/T = high + low; `scaled` false: T = 1. `smallest` and `visible` are left alone.
template <bool scaled, Real T>
KeySums<T> key_sums_without_range(RowIn<T> z, T m, std::size_t top, T high, T low) {
    using S = Simd<T>;
    using P = typename S::P;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const P maximum = S::set(m), inverse = S::set(high), remainder = S::set(low), zero = S::set(T(0)),
            one = S::set(T(1)), limit = S::set(-exp_cutoff<T>());
    // At T = 1 masked keys and others of weight 0 stand at this logit, where nothing is infinite.
    const P floor =
        S::set(m - std::max(2 - exp_cutoff<T>(), 8 * std::numeric_limits<T>::epsilon() * std::abs(m)));
    P largest = S::set(-infinity);
    const Index whole = static_cast<Index>(top) / S::size * S::size; // where the packet with the top key begins
    const auto sums = sum_lanes<T, 5>(size(z), [&](const auto& lane) {
        P key = lane(z.data(), -infinity);
        if (lane.i == whole) { // the top key itself is left out
            std::array<T, static_cast<std::size_t>(S::size)> keys;
            S::store(keys.data(), key);
            keys[top - static_cast<std::size_t>(whole)] = -infinity;
            key = S::load(keys.data());
        }
        largest = S::max(largest, key);
        if constexpr (!scaled) key = S::max(key, floor);
        // m - z = s + e exactly in T plus T: the rounding of s alone would cost 1e-6 of the entropy in float.
        const P s = S::sub(maximum, key), back = S::sub(s, maximum);
        const P e = S::sub(S::sub(maximum, S::sub(s, back)), S::add(key, back));
        P u = s, weight;
        if constexpr (scaled) {
            const P scaled_distance = S::mul(s, inverse);
            const P correction =
                S::madd(e, inverse, S::madd(s, remainder, product_error<T>(s, inverse, scaled_distance)));
            const P power = exp_nonpositive<T>(S::sub(zero, scaled_distance));
            // Masked and negligible keys lie beyond the limit, where e and the correction may be NaN.
            weight = S::select_below(scaled_distance, limit, S::mul(power, S::sub(one, correction)), power);
            u = S::select_below(scaled_distance, limit, scaled_distance, zero);
        } else {
            weight = S::mul(exp_nonpositive<T>(S::sub(zero, s)), S::sub(one, e));
        }
        const P weighted = S::mul(u, weight), squared = S::mul(weight, weight);
        return Packets<T, 5>{{weight, weighted, squared, S::mul(squared, weight), S::mul(u, weighted)}};
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
    KeySums<T> result =
        plain ? key_sums_without_range<false, T>(z, m, top, high, T(0))
              : key_sums_without_range<true, T>(z, m, top, high, inverse_remainder<T>(temperature, high));
    if (least > -std::numeric_limits<T>::infinity()) {
        result.smallest = least;
        result.visible = size(z);
    } else {
        std::tie(result.smallest, result.visible) = visible_range<T>(z);
    }
    return result;
}

} // namespace detail

/// Statistics of a row of logits at a temperature > 0 (-inf masks a key). Relative error of the entropy, of 1 -
/// p1 and of S2: below 1e-6 for float and 1e-13 for double (1.5 times that for S3), down to entropies of 1e-8
/// nats and beyond; keys further than log(2^126) = 87 (float; 708 for double) temperatures below the maximum
/// count as weight 0. Two passes, O(n), no allocation. Throws `invalid_argument` for a bad temperature.
template <Real T>
RowStatistics<detail::Accumulator<T>> row_statistics(RowIn<T> z, double temperature = 1) {
    using A = detail::Accumulator<T>;
    RowStatistics<A> row;
    row.temperature = detail::checked_temperature("row_statistics", temperature);
    row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
    const detail::RowRange<T> range = detail::row_range<T>(z);
    const T m = range.max;
    if (std::abs(m) <= std::numeric_limits<T>::max()) {
        const std::size_t top = detail::first_maximum<T>(z, m);
        if (top < z.size()) {
            const detail::KeySums<T> sums = detail::key_sums<T>(z, m, range.min, top, temperature);
            row.status = RowStatus::normal;
            row.visible = sums.visible;
            row.argmax = static_cast<Index>(top);
            row.max_logit = A(m);
            row.min_logit = A(sums.smallest);
            row.second_logit = sums.visible == 1 ? RowStatistics<A>::nan() : A(sums.second);
            row.r = sums.r;
            row.t = sums.t;
            row.q = sums.q;
            row.c = sums.c;
            row.v = sums.v;
            if (row.r == row.r) return row;
        }
    }
    RowStatistics<A> special;
    special.temperature = temperature;
    special.unit_roundoff = row.unit_roundoff;
    row = special;
    row.status = detail::classify<T>(z);
    for (const T x : z) row.visible += !(x == -std::numeric_limits<T>::infinity());
    if (row.status == RowStatus::infinite) {
        row.max_logit = std::numeric_limits<A>::infinity();
        row.argmax = std::find(z.begin(), z.end(), std::numeric_limits<T>::infinity()) - z.begin();
    }
    return row;
}

/// As above from any Eigen vector expression.
template <VectorExpr E>
RowStatistics<detail::Accumulator<ScalarOf<E>>> row_statistics(const E& z, double temperature = 1) {
    using T = ScalarOf<E>;
    const RowHolder<T> row(z);
    return row_statistics<T>(row.get(), temperature);
}

} // namespace v0_1
} // namespace attnscope
