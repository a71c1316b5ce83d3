// Elementary functions over packets that some normalisers need: expm1 and tanh, log1p.
#pragma once

#include <attnscope/detail/simd/exp.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// e^x - 1 for x <= 64, to a few ulp, near 0 too; -inf gives -1, NaN gives NaN.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> expm1(Packet<T> x) {
    if constexpr (std::same_as<T, long double>) {
        return std::expm1(x.raw);
    } else {
        using P = Packet<T>;
        const P lowest = T(-0.6931472) * T(std::numeric_limits<T>::digits + 3); // e^lowest is nothing
        const ReducedExp<P> e = reduced_exp(select_below(x, lowest, lowest, x));
        const P scale = power_of_two(e.n);
        return madd(scale, e.tail, scale - T(1));
    }
}

/// Coefficients of (tanh(x)/x - 1)/x^2 = sum_k a_k x^{2k} on x^2 <= 1/4, from interpolation at Chebyshev's
/// nodes (relative error of tanh: 4.5e-9 and 1.7e-17).
template <Real T>
struct TanhConstants;
template <>
struct TanhConstants<float> {
    static constexpr std::array<float, 5> a = {-0x1.555554p-2f, 0x1.11108p-3f, -0x1.b9d2aep-5f, 0x1.5fc692p-6f,
                                               -0x1.c7033cp-8f};
};
template <>
struct TanhConstants<double> {
    static constexpr std::array<double, 10> a = {
        -0x1.5555555555555p-2,  0x1.1111111110c21p-3,  -0x1.ba1ba1b9783d6p-5,  0x1.664f484114832p-6,
        -0x1.226e27ed0ac68p-7,  0x1.d6d0a485132ebp-9,  -0x1.7d68abe445c4bp-10, 0x1.32b0b92ad1a40p-11,
        -0x1.cf9f3fe656023p-13, 0x1.f2ddeb9a07da7p-15,
    };
};

/// tanh x, to a few ulp; NaN gives NaN.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> tanh(Packet<T> x) {
    if constexpr (std::same_as<T, long double>) {
        return std::tanh(x.raw);
    } else {
        using P = Packet<T>;
        constexpr auto& a = TanhConstants<T>::a;
        const P zero = T(0), half = T(0.5), size = abs(x);
        const P square = x * x;
        P q = a.back();
        for (std::size_t i = a.size() - 1; i-- > 0;) q = madd(q, square, a[i]);
        auto t = madd(x, square * q, x);
        // Most rows behind a cap need no more. A key's result is the same whoever stands beside it.
        if (any_below(half, size)) {
            // tanh |x| = -e/(2 + e), e = e^{-2|x|} - 1
            const auto e = expm1(zero - (size + size));
            const auto u = (zero - e) / (T(2) + e);
            t = select_below(half, size, select_below(x, zero, zero - u, u), t);
        }
        return t;
    }
}

/// Coefficients of atanh(s)/s = sum_k a_k s^{2k} on s^2 <= 1/9, of minimal relative error (4.6e-9 and 1.4e-18,
/// found with Sollya's fpminimax).
template <Real T>
struct AtanhConstants;
template <>
struct AtanhConstants<float> {
    static constexpr std::array<float, 5> a = {1.0f, 0x1.5555p-2f, 0x1.99d28p-3f, 0x1.1eb69cp-3f,
                                               0x1.1ef38p-3f};
};
template <>
struct AtanhConstants<double> {
    static constexpr std::array<double, 11> a = {
        1.0,
        0x1.5555555555534p-2,
        0x1.99999999a094bp-3,
        0x1.2492492080b75p-3,
        0x1.c71c7420cc32cp-4,
        0x1.745cb38865ea9p-4,
        0x1.3b1de341ce80dp-4,
        0x1.1067751e216dap-4,
        0x1.efdc173e94ffdp-5,
        0x1.55a4adb594e7p-5,
        0x1.5c810bc019604p-4,
    };
};

/// log(1 + y)/y for 0 <= y <= 1, to a few ulp; 1 at y = 0.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> log1p_ratio(Packet<T> y) {
    if constexpr (std::same_as<T, long double>) {
        return y.raw > T(0) ? std::log1p(y.raw) / y.raw : T(1) + (y.raw - y.raw);
    } else {
        using P = Packet<T>;
        constexpr auto& a = AtanhConstants<T>::a;
        // log(1 + y) = 2 atanh(s), s = y/(2 + y).
        const auto two_over = T(2) / (T(2) + y);
        const auto s = (T(0.5) * y) * two_over;
        const auto square = s * s;
        P q = a.back();
        for (std::size_t i = a.size() - 1; i-- > 0;) q = madd(q, square, a[i]);
        return two_over * q;
    }
}

/// log(1 + y) for -1 < y <= 0 with normal 1 + y, to a few ulp, near 0 too.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> log1p_nonpositive(Packet<T> y) {
    if constexpr (std::same_as<T, long double>) {
        return std::log1p(y.raw);
    } else {
        using P = Packet<T>;
        using C = ExpConstants<T>;
        constexpr auto& a = AtanhConstants<T>::a;
        // 1 + y = 2^k f with 1/2 < f <= 1: log = k log 2 + 2 atanh((f-1)/(f+1)), both <= 0.
        const auto w = T(1) + y;
        const SplitNumber<T> split = split_number(w);
        const P half = T(-0.5);
        // Where k = 0, y itself is f - 1 without rounding.
        const auto above = select_below(half, split.exponent, y, split.fraction - T(1));
        const auto s = above / (split.fraction + T(1));
        const auto square = s * s;
        P q = a.back();
        for (std::size_t i = a.size() - 1; i-- > 0;) q = madd(q, square, a[i]);
        const auto tail = madd(split.exponent, C::ln2_lo, (s + s) * q);
        return madd(split.exponent, C::ln2_hi, tail);
    }
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
