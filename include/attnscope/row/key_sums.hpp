// The sums over the keys of a row from which its statistics follow: one pass, without the largest key.
#pragma once

#include <attnscope/row/softmax_row.hpp>

#include <utility>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// a b - product, the rounding error of `product` = fl(a b), b one packet.
template <class P>
EIGEN_ALWAYS_INLINE P product_error(const P& a, Packet<typename P::Scalar> b, const P& product) {
    using T = typename P::Scalar;
    if constexpr (madd_is_fused && !Packet<T>::scalar) return madd(a, b, T(0) - product);
    // Dekker's product with Veltkamp's split: of smaller numbers, where those of a or b would overflow.
    constexpr int half_digits = (std::numeric_limits<T>::digits + 1) / 2;
    constexpr T factor = static_cast<T>((1ull << half_digits) + 1);
    constexpr T room = 1 / static_cast<T>(1ull << (half_digits + 1));
    constexpr T large = std::numeric_limits<T>::max() * room;
    const Packet<T> one = T(1), less = room, more = 1 / room;
    const P size = max(a, T(0) - a);
    const P to = select_below(size, large, one, less), back = select_below(size, large, one, more);
    const P near = a * to, y = near * factor, a1 = (y - (y - near)) * back, a2 = a - a1;
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
    T second = -std::numeric_limits<T>::infinity(); ///< largest of the others, -inf if there is none
};

/// No key is left out.
inline constexpr std::size_t no_key = static_cast<std::size_t>(-1) / 4;

/// A row, with what its sums need: u_i = (m - z_i)/T with 1/T = high + low.
template <Real T>
struct KeyRow {
    const T* z;
    Index top; ///< this key is left out
    Packet<T> maximum, negative, inverse, remainder;
    /// At T = 1 masked keys and others of weight 0 stand at this logit, where nothing is infinite. It is rounded at the size
    /// of m, and still beyond the cutoff.
    Packet<T> floor;
    T* weights; ///< where they go, if they are stored

    EIGEN_ALWAYS_INLINE KeyRow(const T* row, T m, std::size_t left_out, T high = T(1), T low = T(0),
                               T* out = nullptr)
        : z(row), top(static_cast<Index>(left_out)), maximum(m), negative(-m), inverse(high), remainder(low),
          floor(m - ((2 - exp_cutoff<T>()) + 4 * std::numeric_limits<T>::epsilon() * std::abs(m))),
          weights(out) {}
};

/// Sums of weights, of their products with z - m and with its square, of their squares and cubes, and the largest logit.
template <Real T>
struct KeyPackets {
    Packets<T, 5> sum;
    Packet<T> largest;
};

/// What is known of the keys of a lane: nothing; that all that are visible have a weight at T = 1, so that no exponential is cut
/// off, and that the one that is left out is not among them; and that none of them has a larger exponent than the largest logit,
/// which is positive.
enum class Keys { any, weighted, ordered };

/// What is known of a row; m and `least`: its largest and smallest visible element.
template <Real T>
Keys kind_of_keys(T m, T least) {
    if (!(least - m >= exp_cutoff<T>())) return Keys::any;
    if constexpr (!std::same_as<T, long double>) {
        using C = ExpConstants<T>;
        const auto exponent = [](T x) {
            return std::bit_cast<typename C::Bits>(std::abs(x)) >> C::mantissa_bits;
        };
        if (m > 0 && exponent(least) <= exponent(m)) return Keys::ordered;
    }
    return Keys::weighted;
}

/// Adds the keys of a lane. `scaled` false: T = 1. `store`: also writes the weights e^{-u}, 0 for the key that is left out.
/// `second`: also finds the largest of the others. `masked`: some keys may be, of those of which something is known.
template <bool scaled, bool store, bool second, Keys known, bool masked, Real T, class Lane>
EIGEN_ALWAYS_INLINE void add_keys(const KeyRow<T>& row, const Lane& lane, Packets<T, 5>& sum,
                                  Packet<T>& largest) {
    using Q = typename Lane::P;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    Q key = lane(row.z, -infinity);
    if constexpr (known == Keys::any)
        if (const Index place = row.top - lane.i; place >= 0 && place < Q::size)
            key = with_element(key, place, -infinity);
    if constexpr (second) largest = max_to(largest, key);
    if constexpr (!scaled && known == Keys::any) key = max(key, row.floor);
    // z - m = s + e exactly in T plus T: the rounding of s alone would cost 1e-6 of the entropy in float. What s rounds off is
    // known from the larger of the two that are added.
    const Packet<T> lowest = std::numeric_limits<T>::lowest(), zero = T(0);
    const auto if_visible = [&](const Q& x) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
        if constexpr (masked)
            return select_below(key, lowest, zero, x);
        else
            return x;
    };
    const Q s = if_visible(key - row.maximum);
    Q e;
    if constexpr (known == Keys::ordered)
        e = key - (s + row.maximum);
    else
        e = max(key, row.negative) - (s - min(key, row.negative));
    Q u = s, weight;
    if constexpr (scaled) {
        const Packet<T> limit = exp_cutoff<T>();
        const Q scaled_distance = s * row.inverse;
        const Q correction =
            madd(e, row.inverse, madd(s, row.remainder, product_error(s, row.inverse, scaled_distance)));
        const Q power = exp_nonpositive(scaled_distance);
        // Masked and negligible keys lie beyond the limit, where e and the correction may be NaN.
        weight = select_below(scaled_distance, limit, power, madd(power, correction, power));
        u = select_below(scaled_distance, limit, zero, scaled_distance);
    } else {
        weight = if_visible(exp_of_sum<known != Keys::any>(s, e));
    }
    if constexpr (store) lane.store(row.weights, weight);
    const Q weighted = u * weight, squared = weight * weight;
    sum.v[0] = add_to(sum.v[0], weight);
    sum.v[1] = add_to(sum.v[1], weighted);
    sum.v[2] = add_to(sum.v[2], squared);
    sum.v[3] = madd_to(sum.v[3], squared, weight);
    sum.v[4] = madd_to(sum.v[4], u, weighted);
}

/// At T = 1 keys without weight stand at a logit of their own; at the very end of the range there is none, and the scaled form
/// needs none.
template <Real T>
constexpr bool has_floor(T m, double temperature = 1) {
    return temperature == 1 && m > std::numeric_limits<T>::lowest() / 2;
}

template <Keys kind>
using KeysKnown = std::integral_constant<Keys, kind>;

/// f of what is known of the keys beside the one that is left out, and whether some are masked.
template <Real T, class F>
EIGEN_ALWAYS_INLINE auto with_keys(T m, T least, bool masked, const F& f) {
    const Keys known = kind_of_keys(m, least);
    if (known == Keys::any) return f(KeysKnown<Keys::any>(), std::false_type());
    if (!masked) {
        if (known == Keys::ordered) return f(KeysKnown<Keys::ordered>(), std::false_type());
        return f(KeysKnown<Keys::weighted>(), std::false_type());
    }
    if constexpr (!Instructions<T>::masks_operations) // the masks cost more than they save
        return f(KeysKnown<Keys::any>(), std::false_type());
    else if (known == Keys::ordered)
        return f(KeysKnown<Keys::ordered>(), std::true_type());
    else
        return f(KeysKnown<Keys::weighted>(), std::true_type());
}

/// Adds keys as functions of a lane and packets of sums do, beside them the largest logit.
template <bool scaled, bool store, bool second, Keys known, bool masked, Real T>
EIGEN_ALWAYS_INLINE auto key_adder(const KeyRow<T>& row, Packet<T>& largest) {
    return [&row, &largest](const auto& lane, Packets<T, 5>& sum) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
        add_keys<scaled, store, second, known, masked>(row, lane, sum, largest);
    };
}

/// The packets of a row of at most `sum_block<T, 5>` keys at T = 1.
template <Real T>
void key_packets(RowIn<T> z, const RowPeak<T>& peak, KeyPackets<T>& out) {
    const KeyRow<T> row(z.data(), peak.max, peak.place);
    Packet<T> largest = -std::numeric_limits<T>::infinity();
    const auto any = key_adder<false, false, true, Keys::any, false>(row, largest);
    with_keys(peak.max, peak.min, peak.visible < size(z),
              [&]<Keys known, bool masked>(KeysKnown<known>, std::bool_constant<masked>)
                  ATTNSCOPE_DETAIL_INLINE_LAMBDA {
                      out.sum = add_groups<T, 5>(0, size(z), row.top, any,
                                                 key_adder<false, false, true, known, masked>(row, largest));
                  });
    out.largest = largest;
}

/// u_i = (m - z_i)/T with 1/T = high + low. `second`: of all sums; see `add_keys`. `weights` may be z.
template <bool scaled, bool store, bool second, Real T>
KeySums<T> sums_of_keys(RowIn<T> z, const RowPeak<T>& peak, T high, T low, T* weights) {
    const KeyRow<T> row(z.data(), peak.max, peak.place, high, low, weights);
    Packet<T> largest = -std::numeric_limits<T>::infinity();
    std::array<Accumulator<T>, 5> sums;
    const auto any = key_adder<scaled, store, second, Keys::any, false>(row, largest);
    if constexpr (scaled)
        sums = sum_groups<T, 5>(size(z), any);
    else
        with_keys(peak.max, peak.min, peak.visible < size(z),
                  [&]<Keys known, bool masked>(KeysKnown<known>, std::bool_constant<masked>)
                      ATTNSCOPE_DETAIL_INLINE_LAMBDA {
                          sums = sum_groups<T, 5>(size(z), any, row.top,
                                                  key_adder<false, store, second, known, masked>(row, largest));
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

/// Smallest logit above -inf, and how many there are. `least`: -inf included.
template <Real T>
std::pair<T, Index> visible_range(RowIn<T> z, T least) {
    if (least > -std::numeric_limits<T>::infinity()) return {least, size(z)};
    const ClassRange<T, true> classes(z);
    return {classes.range().min, classes.counted(z)};
}

/// All of them.
template <Real T>
KeySums<T> key_sums(RowIn<T> z, const RowPeak<T>& peak, double temperature) {
    const T high = clamped_inverse<T>(temperature);
    if (!has_inverse<T>(temperature)) return divided_key_sums<T>(z, peak.max, peak.place, temperature);
    if (has_floor(peak.max, temperature))
        return sums_of_keys<false, false, true, T>(z, peak, high, T(0), nullptr);
    return sums_of_keys<true, false, true, T>(z, peak, high, inverse_remainder<T>(temperature, high), nullptr);
}

} // namespace detail

} // namespace v0_2
} // namespace attnscope
