// e^x of packets, and what it and its kin are made of.
#pragma once

#include <attnscope/detail/simd/group.hpp>

#include <bit>
#include <cstring>
#include <limits>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Constants of exp on [log(min normal), 0]: x = n log 2 + r, |r| <= log(2)/2, polynomial 1 + r + r^2 q(r) of
/// minimal relative error (3.7e-9 and 4.5e-18, found with Sollya's fpminimax).
template <Real T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
    using Bits = std::uint32_t;
    static constexpr int mantissa_bits = 23;
    static constexpr float lowest = -0x1.5d589ep+6f; // log(2^-126)
    static constexpr float round_magic = 0x1.8p23f;  // adding it rounds to an integer in the low bits
    static constexpr float log2e = 0x1.715476p+0f;
    static constexpr float ln2_hi = 0x1.63p-1f; // few bits: n ln2_hi is exact
    static constexpr float ln2_lo = -0x1.bd0106p-13f;
    static constexpr std::array<float, 5> q = {0x1.fffff8p-2f, 0x1.55548cp-3f, 0x1.555b92p-5f, 0x1.123d52p-7f,
                                               0x1.685b36p-10f};
};
template <>
struct ExpConstants<double> {
    using Bits = std::uint64_t;
    static constexpr int mantissa_bits = 52;
    static constexpr double lowest = -0x1.6232bdd7abcd2p+9; // log(2^-1022)
    static constexpr double round_magic = 0x1.8p52;
    static constexpr double log2e = 0x1.71547652b82fep+0;
    static constexpr double ln2_hi = 0x1.62e42fee00000p-1;
    static constexpr double ln2_lo = 0x1.a39ef35793c76p-33;
    static constexpr std::array<double, 10> q = {
        0x1.000000000000cp-1,  0x1.5555555555515p-3,  0x1.555555554fde8p-5,  0x1.11111111210f2p-7,
        0x1.6c16c18615de5p-10, 0x1.a01a014e3ed24p-13, 0x1.a019957cb985fp-16, 0x1.71ded547a9687p-19,
        0x1.28b142b9ce599p-22, 0x1.adfe653ab35edp-26};
};

/// The argument below which `exp_nonpositive` returns 0: the logarithm of the smallest normal number.
template <Real T>
constexpr T exp_cutoff() {
    if constexpr (!std::same_as<T, long double>)
        return ExpConstants<T>::lowest;
    else if constexpr (std::numeric_limits<T>::min_exponent == std::numeric_limits<double>::min_exponent)
        return T(ExpConstants<double>::lowest); // where it is no wider
    else if constexpr (std::numeric_limits<T>::digits <= 64)
        return -11355.137111933024058L; // rounded towards 0
    else
        return -11355.13711193302405887309661372784746L; // the same of 113 digits
}

/// 2^n for the integer n that `t = x + round_magic` carries in its low bits.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> power_of_two(Packet<T> t) {
    using Bits = typename ExpConstants<T>::Bits;
    constexpr int shift = ExpConstants<T>::mantissa_bits;
    constexpr std::size_t n = static_cast<std::size_t>(Packet<T>::size);
    static_assert(sizeof(t.raw) == n * sizeof(Bits));
#if defined(__GNUC__)
    typedef Bits Vector __attribute__((vector_size(sizeof(Bits) * n)));
    Vector bits;
    std::memcpy(&bits, &t.raw, sizeof t.raw);
    bits = (bits << shift) + std::bit_cast<Bits>(T(1));
#else
    std::array<Bits, n> bits;
    std::memcpy(bits.data(), &t.raw, sizeof t.raw);
    for (Bits& b : bits) b = Bits(b << shift) + std::bit_cast<Bits>(T(1));
#endif
    std::memcpy(&t.raw, &bits, sizeof t.raw);
    return t;
}

/// x = 2^exponent fraction for normal x > 0, 1/2 < fraction <= 1; the exponent as a number.
template <Real T>
struct SplitNumber {
    Packet<T> exponent;
    Packet<T> fraction;
};
template <Real T>
EIGEN_ALWAYS_INLINE SplitNumber<T> split_number(Packet<T> x) {
    using C = ExpConstants<T>;
    using Bits = typename C::Bits;
    constexpr std::size_t n = static_cast<std::size_t>(Packet<T>::size);
    constexpr Bits half = std::bit_cast<Bits>(T(0.5)), magic = std::bit_cast<Bits>(C::round_magic);
    constexpr T bias = T(std::numeric_limits<T>::max_exponent - 2);
    static_assert(sizeof(x.raw) == n * sizeof(Bits));
#if defined(__GNUC__)
    typedef Bits Vector __attribute__((vector_size(sizeof(Bits) * n)));
    Vector bits;
    std::memcpy(&bits, &x.raw, sizeof x.raw);
    Vector biased = (bits - 1) >> C::mantissa_bits;
    Vector fraction = bits - (biased << C::mantissa_bits) + half;
    biased += magic;
#else
    std::array<Bits, n> biased, fraction;
    std::memcpy(fraction.data(), &x.raw, sizeof x.raw);
    for (std::size_t i = 0; i < n; ++i) {
        biased[i] = Bits(Bits(fraction[i] - 1) >> C::mantissa_bits);
        fraction[i] = Bits(fraction[i] - Bits(biased[i] << C::mantissa_bits) + half);
        biased[i] = Bits(biased[i] + magic);
    }
#endif
    SplitNumber<T> result;
    std::memcpy(&result.exponent.raw, &biased, sizeof biased);
    std::memcpy(&result.fraction.raw, &fraction, sizeof fraction);
    result.exponent = result.exponent - (C::round_magic + bias);
    return result;
}

/// x = n log 2 + r: n as `power_of_two` takes it, and e^r - 1. For |x| < 2^21. P: a packet or a group of them.
template <class P>
struct ReducedExp {
    P n;
    P tail;
};
template <class P>
EIGEN_ALWAYS_INLINE ReducedExp<P> reduced_exp(const P& x) {
    using T = typename P::Scalar;
    using C = ExpConstants<T>;
    const Packet<T> magic = C::round_magic;
    const P t = madd(x, C::log2e, magic);
    const P n = t - magic;
    P r = madd(n, -C::ln2_hi, x);
    r = madd(n, -C::ln2_lo, r);
    constexpr std::size_t last = C::q.size() - 1;
    P q = madd(C::q[last], r, C::q[last - 1]);
    for (std::size_t i = last - 1; i-- > 0;) q = madd(q, r, C::q[i]);
    return {t, madd(q, r * r, r)};
}

/// Constants of 2^x where powers are looked up: x = n + k/entries + r, 2^r - 1 = r p(r) for |r| <= 1/(2 entries) (error
/// 2.4e-9 and 3.4e-10, from interpolation at Chebyshev's nodes), and 2^(k/entries).
template <int entries>
struct ExpTable;
template <>
struct ExpTable<16> {
    static constexpr int bits = 4;
    static constexpr std::array<float, 3> p = {0x1.62e43p-1f, 0x1.ebff92p-3f, 0x1.c6b29ap-5f};
    static constexpr std::array<float, 16> powers = {
        0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f,  0x1.3dea64p+0f,
        0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
        0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};
};
template <>
struct ExpTable<8> {
    static constexpr int bits = 3;
    static constexpr std::array<float, 4> p = {0x1.62e43p-1f, 0x1.ebfbep-3f, 0x1.c6bb7ap-5f, 0x1.3b2fc4p-7f};
    static constexpr std::array<float, 8> powers = {0x1p+0f,        0x1.172b84p+0f, 0x1.306fep+0f,
                                                    0x1.4bfdaep+0f, 0x1.6a09e6p+0f, 0x1.8ace54p+0f,
                                                    0x1.ae89fap+0f, 0x1.d5818ep+0f};
};

/// The powers, less what their own place k, moved along with n entries + k to the exponent, adds to their bits.
template <int entries>
inline constexpr std::array<float, entries> powers_less_place = [] {
    using C = ExpTable<entries>;
    using Bits = ExpConstants<float>::Bits;
    std::array<float, entries> powers = C::powers;
    for (Bits k = 0; k < entries; ++k)
        powers[k] = std::bit_cast<float>(std::bit_cast<Bits>(powers[k]) -
                                         (k << (ExpConstants<float>::mantissa_bits - C::bits)));
    return powers;
}();

/// Whether e^x of T is looked up: by floats that have instructions for it, and products of one rounding.
template <Real T>
inline constexpr bool has_exp_table =
    std::same_as<T, float> && Instructions<T>::lookup_entries > 0 && madd_is_fused;

/// 2^(n + k/entries) of the integer n entries + k that t carries in its low bits.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> looked_up_power(Packet<T> t) {
    constexpr int entries = Instructions<T>::lookup_entries;
    constexpr int shift = ExpConstants<T>::mantissa_bits - ExpTable<entries>::bits;
    constexpr auto size = static_cast<std::size_t>(Packet<T>::size);
    Packet<T> result = Packet<T>::of(Instructions<T>::lookup(powers_less_place<entries>.data(), t.raw));
#if defined(__GNUC__)
    typedef std::uint32_t Vector __attribute__((vector_size(4 * size)));
    Vector n, sum;
#else
    std::array<std::uint32_t, size> n, sum;
#endif
    std::memcpy(&n, &t.raw, sizeof n);
    std::memcpy(&sum, &result.raw, sizeof sum);
#if defined(__GNUC__)
    sum += n << shift;
#else
    for (std::size_t i = 0; i < size; ++i) sum[i] += n[i] << shift;
#endif
    std::memcpy(&result.raw, &sum, sizeof sum);
    return result;
}

/// e^{beta x} for x <= 0 by table, as `exp_nonpositive` gives e^x, for temperatures that `has_inverse` admits: the exact
/// product is reduced, so that it costs no rounding. 0 below `cutoff`, where it is the smallest normal number or a few
/// units of x before.
template <Real T>
requires has_exp_table<T>
struct TableExp {
    float high = 0x1.715476p+0f, low = 0x1.4ae0cp-26f; ///< beta log2 e
    float cutoff = ExpConstants<float>::lowest;

    TableExp() = default;
    explicit TableExp(double beta) {
        if (beta == 1) return; // without a division that short rows would wait for
        const double both = beta * 0x1.71547652b82fep+0;
        high = static_cast<float>(both);
        low = static_cast<float>(both - double(high));
        // Masked keys are below.
        cutoff = static_cast<float>(std::max(double(ExpConstants<float>::lowest) / beta * (1 - 0x1p-22),
                                             double(std::numeric_limits<float>::lowest())));
    }

    /// P: a packet of floats or a group of them.
    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(const P& x) const {
        return select_below(x, cutoff, 0.0F, not_below_cutoff(x));
    }
    /// The same of x that are not below the cutoff.
    template <class P>
    EIGEN_ALWAYS_INLINE P not_below_cutoff(const P& x) const {
        return of_remainder(x,
                            [&](const P& rest) ATTNSCOPE_DETAIL_INLINE_LAMBDA { return madd(x, low, rest); });
    }
    /// e^{beta (x + e)} of x that are not below the cutoff, e no more than what x may have rounded off.
    template <class P>
    EIGEN_ALWAYS_INLINE P of_sum(const P& x, const P& e) const {
        const P correction = madd(x, low / high, e);
        return of_remainder(x, [&](const P& rest)
                                   ATTNSCOPE_DETAIL_INLINE_LAMBDA { return madd(correction, high, rest); });
    }

private:
    /// `remainder(rest)`: what is left of the exponent in base 2, from what is left of x high, which is exact.
    template <class P, class F>
    EIGEN_ALWAYS_INLINE P of_remainder(const P& x, const F& remainder) const {
        constexpr int entries = Instructions<T>::lookup_entries;
        using C = ExpTable<entries>;
        // Adding it rounds to a multiple of 1/entries in the low bits.
        const Packet<float> magic = ExpConstants<float>::round_magic / float(entries);
        const P t = madd(x, high, magic);
        const P r = remainder(madd(x, high, magic - t));
        const P two_to_n =
            map([](Packet<float> n) ATTNSCOPE_DETAIL_INLINE_LAMBDA { return looked_up_power(n); }, t);
        constexpr std::size_t last = C::p.size() - 1;
        P p = madd(C::p[last], r, C::p[last - 1]);
        for (std::size_t i = last - 1; i-- > 0;) p = madd(p, r, C::p[i]);
        return madd(two_to_n, p * r, two_to_n);
    }
};

/// e^x for x <= 0. Exactly 0 below `exp_cutoff` (so -inf gives 0 and no subnormal appears); NaN gives NaN. `above`: x is not
/// below it, which saves the comparison.
/// Error at most 1.02 ulp, with or without fused multiply-add: measured over all floats 1.006 by a table of 16 entries,
/// 0.911 by one of 8, 1.0095 without, and 0.9986 over 10^8 random doubles (tests/unit/detail/test_exp.cpp samples).
template <bool above = false, class P>
EIGEN_ALWAYS_INLINE P exp_nonpositive(const P& x) {
    using T = typename P::Scalar;
    if constexpr (std::same_as<T, long double>) {
        return map([](Packet<T> y) { return y.raw < exp_cutoff<T>() ? T(0) : std::exp(y.raw); }, x);
    } else if constexpr (has_exp_table<T>) {
        if constexpr (above) return TableExp<T>().not_below_cutoff(x);
        return TableExp<T>()(x);
    } else {
        const ReducedExp<P> e = reduced_exp(x);
        const P y = e.tail + T(1);
        const P scale = map([](Packet<T> n) { return power_of_two(n); }, e.n);
        if constexpr (above) return y * scale;
        return select_below(x, ExpConstants<T>::lowest, T(0), y * scale);
    }
}

/// e^{x + e} for x <= 0, e no more than what x may have rounded off; cut off as e^x is.
/// Error: where e^x is looked up, of the same size; else one rounding more.
template <bool above = false, class P>
EIGEN_ALWAYS_INLINE P exp_of_sum(const P& x, const P& e) {
    using T = typename P::Scalar;
    if constexpr (has_exp_table<T>) {
        const P power = TableExp<T>().of_sum(x, e);
        if constexpr (above) return power;
        return select_below(x, exp_cutoff<T>(), T(0), power);
    } else {
        const P power = exp_nonpositive<above>(x);
        return madd(power, e, power);
    }
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
