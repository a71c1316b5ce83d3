// The paper's general family: any positive function F, normalised by its sum.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_1 {

/// A positive function with its derivative: f(z) = F(z) >= 0, f.derivative(z) = F'(z), f.name().
template <class F, class T>
concept PositiveFunction = Real<T> && std::copyable<F> && requires(const F f, T z) {
    { f(z) } -> std::convertible_to<T>;
    { f.derivative(z) } -> std::convertible_to<T>;
    { f.name() } -> std::convertible_to<std::string_view>;
};

/// One that also offers log F and (log F)' = F'/F, so that rows whose F overflows or underflows stay exact.
template <class F, class T>
concept LogFunction = PositiveFunction<F, T> && requires(const F f, T z) {
    { f.log(z) } -> std::convertible_to<T>;
    { f.log_derivative(z) } -> std::convertible_to<T>;
};

/// One that also evaluates F(z)/c over packets, c > 0 the same for the whole row: f.packet(m) for a row whose
/// largest logit m is finite. z = -inf may give anything. `has_packet()`, where it exists, says whether it may
/// be asked.
template <class F, class T>
concept PacketFunction = PositiveFunction<F, T> && requires(const F f, T m, typename detail::Simd<T>::P z) {
    { f.packet(m)(z) } -> std::same_as<typename detail::Simd<T>::P>;
};

/// F(z) = e^z: softmax once more, by the general way.
struct Exponential {
    static constexpr bool extremes_at_ends = true; ///< on [-a,a] at -a, 0 or a
    static constexpr std::string_view name() { return "exp"; }
    template <Real T>
    T operator()(T z) const {
        return std::exp(z);
    }
    template <Real T>
    T derivative(T z) const {
        return std::exp(z);
    }
    template <Real T>
    T log(T z) const {
        return z;
    }
    template <Real T>
    T log_derivative(T) const {
        return T(1);
    }
};

/// F(z) = 1/(1 + e^{-z}), evaluated by the sign of z.
struct Sigmoid {
    static constexpr bool extremes_at_ends = true; ///< on [-a,a] at -a, 0 or a
    static constexpr std::string_view name() { return "sigmoid"; }
    template <Real T>
    T operator()(T z) const {
        const T e = std::exp(-std::abs(z));
        return z >= T(0) ? T(1) / (T(1) + e) : e / (T(1) + e);
    }
    template <Real T>
    T derivative(T z) const {
        return (*this)(z) * (*this)(-z);
    }
    template <Real T>
    T log(T z) const {
        return std::min(z, T(0)) - std::log1p(std::exp(-std::abs(z)));
    }
    template <Real T>
    T log_derivative(T z) const {
        return (*this)(-z);
    }
};

/// F(z) = log(1 + e^z).
struct Softplus {
    static constexpr bool extremes_at_ends = true; ///< on [-a,a] at -a, 0 or a
    static constexpr std::string_view name() { return "softplus"; }
    template <Real T>
    T operator()(T z) const {
        return std::max(z, T(0)) + std::log1p(std::exp(-std::abs(z)));
    }
    template <Real T>
    T derivative(T z) const {
        return Sigmoid{}(z);
    }
    template <Real T>
    T log(T z) const {
        // Below the cut, log(log1p(e^z)) = z - e^z/2 + O(e^{2z}).
        const T cut = std::log(std::numeric_limits<T>::epsilon()) / 2;
        return z < cut ? z - std::exp(z) / 2 : std::log((*this)(z));
    }
    template <Real T>
    T log_derivative(T z) const {
        const T cut = std::log(std::numeric_limits<T>::epsilon()) / 2;
        return z < cut ? T(1) - std::exp(z) / 2 : derivative(z) / (*this)(z);
    }
    /// F(z)/c over packets, with c = e^m where m < 0 and 1 else, so that negative rows keep their digits.
    template <Real T>
    struct Packet {
        explicit Packet(T m)
            : negative(m < T(0)), shift(detail::Simd<T>::set(m)),
              scale(detail::Simd<T>::set(m < T(0) ? std::exp(m) : T(1))) {}
        typename detail::Simd<T>::P operator()(typename detail::Simd<T>::P z) const {
            using S = detail::Simd<T>;
            const auto zero = S::set(T(0));
            if (negative) { // e^{z-m} log1p(e^z)/e^z
                const auto x = detail::exp_nonpositive<T>(S::sub(z, shift));
                return S::mul(x, detail::log1p_ratio<T>(S::mul(x, scale)));
            }
            const auto e = detail::exp_nonpositive<T>(S::sub(zero, S::abs(z)));
            return S::madd(e, detail::log1p_ratio<T>(e), S::select_below(z, zero, zero, z));
        }
        bool negative;
        typename detail::Simd<T>::P shift, scale;
    };
    template <Real T>
    Packet<T> packet(T m) const {
        return Packet<T>(m);
    }
};

/// F(z) = z + 1 for z >= 0, 1/(1 - z) else: StableMax (arXiv:2501.04697).
struct StableExponential {
    static constexpr bool extremes_at_ends = true; ///< on [-a,a] at -a, 0 or a
    static constexpr std::string_view name() { return "stablemax"; }
    template <Real T>
    T operator()(T z) const {
        return z >= T(0) ? z + T(1) : T(1) / (T(1) - z);
    }
    template <Real T>
    T derivative(T z) const {
        return z >= T(0) ? T(1) : T(1) / ((T(1) - z) * (T(1) - z));
    }
    template <Real T>
    T log(T z) const {
        return std::copysign(std::log1p(std::abs(z)), z);
    }
    template <Real T>
    T log_derivative(T z) const {
        return T(1) / (T(1) + std::abs(z));
    }
    /// F(z)/c over packets, with c = F(m) where m < 0 and 1 else, so that negative rows keep their digits.
    template <Real T>
    struct Packet {
        explicit Packet(T m) : numerator(detail::Simd<T>::set(m < T(0) ? T(1) - m : T(1))) {}
        typename detail::Simd<T>::P operator()(typename detail::Simd<T>::P z) const {
            using S = detail::Simd<T>;
            const auto size = S::add(S::abs(z), S::set(T(1)));
            return S::select_below(z, S::set(T(0)), S::div(numerator, size), size);
        }
        typename detail::Simd<T>::P numerator;
    };
    template <Real T>
    Packet<T> packet(T m) const {
        return Packet<T>(m);
    }
};

/// F(z) = max(z, 0)^k, k >= 1: ReLU attention normalised by its sum (k = 2: squared ReLU). A row without a
/// positive logit has no mass. F'(0) = 0.
class ReluPower {
public:
    /// Throws `invalid_argument` unless k is >= 1 and finite.
    explicit ReluPower(double k = 1) : k_(k) {
        detail::require(k >= 1 && std::isfinite(k), "ReluPower", "the exponent k must be >= 1 and finite", k);
    }
    static constexpr bool has_zeros = true;
    static constexpr std::string_view exponent_name() { return "k"; }
    static constexpr std::string_view name() { return "relu"; }
    double exponent() const { return k_; }
    template <Real T>
    T operator()(T z) const {
        if (z <= T(0)) return T(0);
        return k_ == 1 ? z : k_ == 2 ? z * z : std::pow(z, static_cast<T>(k_));
    }
    template <Real T>
    T derivative(T z) const {
        return z > T(0) ? static_cast<T>(k_) * (k_ == 1 ? T(1) : std::pow(z, static_cast<T>(k_ - 1))) : T(0);
    }
    template <Real T>
    T log(T z) const {
        if (z <= T(0)) return -std::numeric_limits<T>::infinity();
        return static_cast<T>(k_) * std::log(z);
    }
    template <Real T>
    T log_derivative(T z) const {
        return z > T(0) ? static_cast<T>(k_) / z : T(0);
    }
    /// (z/m)^k over packets for k = 1 and 2, where m > 0.
    template <Real T>
    struct Packet {
        explicit Packet(T m) : top(detail::Simd<T>::set(m > T(0) ? m : T(1))) {}
        typename detail::Simd<T>::P operator()(typename detail::Simd<T>::P z) const {
            using S = detail::Simd<T>;
            const auto zero = S::set(T(0));
            const auto x = S::div(S::select_below(z, zero, zero, z), top);
            return square ? S::mul(x, x) : x;
        }
        typename detail::Simd<T>::P top;
        bool square = false;
    };
    template <Real T>
    Packet<T> packet(T m) const {
        Packet<T> result(m);
        result.square = k_ == 2;
        return result;
    }
    bool has_packet() const { return k_ == 1 || k_ == 2; }

private:
    double k_;
};

/// F(z) = z^2 + c, c > 0: positive, not monotone, its derivative changes sign.
class Quadratic {
public:
    /// Throws `invalid_argument` unless c > 0 and finite.
    explicit Quadratic(double c = 1) : c_(c) {
        detail::require(c > 0 && std::isfinite(c), "Quadratic", "c must be > 0 and finite", c);
    }
    static constexpr bool extremes_at_ends = true; ///< on [-a,a] at -a, 0 or a
    static constexpr std::string_view name() { return "quadratic"; }
    template <Real T>
    T operator()(T z) const {
        return z * z + static_cast<T>(c_);
    }
    template <Real T>
    T derivative(T z) const {
        return 2 * z;
    }

private:
    double c_;
};

/// p_i = F(z_i)/sum_j F(z_j) for a positive F (P eq. of the general family).
/// J = (I - p 1^T) diag(g), g_i = F'(z_i)/sum F = p_i F'(z_i)/F(z_i).
/// z = -inf is masked: weight exactly 0 and F is not asked. A row whose F sums to 0 gives the zero row
/// (`empty`); if F is infinite at some keys (and F offers no logarithm) they share the mass (`infinite`); +inf
/// logits likewise, unless F stays finite there. Throws `invalid_argument` when F returns a negative number.
/// Cost: a few calls of F a key, no allocation.
template <class F>
class PointwiseNormalizer {
public:
    static constexpr NormalizerTraits traits{.simplex = true, .sparse = requires {F::has_zeros;
}, .restrictable = true
}; // namespace v0_1

PointwiseNormalizer() = default;
explicit PointwiseNormalizer(F f) : f_(std::move(f)) {}

std::string_view name() const { return f_.name(); }
const F& function() const { return f_; }

template <Real T>
requires PositiveFunction<F, T> RowStatus apply(std::span<const T> z, std::span<T> out)
const {
    detail::require_same_size<T>("PointwiseNormalizer::apply", z, out);
    if constexpr (PacketFunction<F, T>) {
        bool usable = true;
        if constexpr (requires { f_.has_packet(); }) usable = f_.has_packet();
        const T m = detail::row_max<T>(z);
        // The sum over the keys must not overflow either.
        if (usable && std::abs(m) <= std::numeric_limits<T>::max() / (T(4) * static_cast<T>(z.size() + 1)))
            return apply_packets<T>(z, f_.packet(m), out);
    }
    if constexpr (LogFunction<F, T>) {
        std::transform(z.begin(), z.end(), out.begin(), [&](T x) { return masked(x) ? x : f_.log(x); });
        return Softmax{}.apply<T>(std::span<const T>(out), out);
    } else {
        detail::Accumulator<T> sum = 0;
        bool infinite = false;
        for (std::size_t i = 0; i < z.size(); ++i) {
            const T value = masked(z[i]) ? T(0) : static_cast<T>(f_(z[i]));
            if (value < T(0)) detail::fail("PointwiseNormalizer", "F must be positive", value);
            infinite = infinite || value == std::numeric_limits<T>::infinity();
            sum += value;
            out[i] = value;
        }
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        if (infinite) return detail::fill_special<T>(RowStatus::infinite, std::span<const T>(out), out);
        if (sum == 0) return RowStatus::empty;
        if (std::isinf(sum)) { // only the sum overflowed
            sum = 0;
            for (T& p : out) sum += p /= static_cast<T>(out.size());
        }
        for (T& p : out) p = static_cast<T>(p / sum);
        return RowStatus::normal;
    }
}

template <Real T>
requires PositiveFunction<F, T>
void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
    detail::require_same_size<T>("PointwiseNormalizer::jvp", z, p, v, out);
    detail::Accumulator<T> moved = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        out[i] = gradient(z[i], p[i]) * v[i];
        moved += out[i];
    }
    for (std::size_t i = 0; i < z.size(); ++i) out[i] = static_cast<T>(out[i] - p[i] * moved);
}

template <Real T>
requires PositiveFunction<F, T>
void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
    detail::require_same_size<T>("PointwiseNormalizer::vjp", z, p, w, out);
    const auto mean = detail::dot<T>(p, w);
    for (std::size_t i = 0; i < z.size(); ++i) out[i] = static_cast<T>(gradient(z[i], p[i]) * (w[i] - mean));
}

/// log sum_i F(z_i)
template <Real T>
requires PositiveFunction<F, T> T log_normalizer(std::span<const T> z)
const {
    // log-sum-exp of log F, updated term by term: no buffer.
    detail::Accumulator<T> m = -std::numeric_limits<T>::infinity(), sum = 0;
    for (const T x : z) {
        if (masked(x)) continue;
        const detail::Accumulator<T> term = log_value(x);
        if (std::isnan(term) || term == std::numeric_limits<T>::infinity()) return static_cast<T>(term);
        if (term == -std::numeric_limits<T>::infinity()) continue;
        if (term > m) {
            sum = sum * std::exp(m - term) + 1;
            m = term;
        } else {
            sum += std::exp(term - m);
        }
    }
    return static_cast<T>(m + std::log(sum > 0 ? sum : 1));
}

static constexpr std::string_view parameter_name() requires requires { F::exponent_name(); }
{ return F::exponent_name(); }
/// dp/dk = p (log z - E_p log z) for F = max(z, 0)^k
template <Real T>
requires requires { F::exponent_name(); }
void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
    detail::require_same_size<T>("PointwiseNormalizer::parameter_derivative", z, p, out);
    detail::Accumulator<T> mean = 0;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (p[i] > T(0)) mean += p[i] * std::log(z[i]);
    for (std::size_t i = 0; i < z.size(); ++i)
        out[i] = p[i] == T(0) ? T(0) : static_cast<T>(p[i] * (std::log(z[i]) - mean));
}

/// g_i = F'(z_i)/sum F = p_i (log F)'(z_i); 0 where the weight is 0.
template <Real T>
requires PositiveFunction<F, T> T gradient(T z, T p)
const { return p == T(0) ? T(0) : p * log_derivative(z); }

/// F'(z)/F(z)
template <Real T>
requires PositiveFunction<F, T> T log_derivative(T z)
const {
    if constexpr (LogFunction<F, T>)
        return static_cast<T>(f_.log_derivative(z));
    else
        return static_cast<T>(f_.derivative(z) / f_(z));
}

/// log F(z)
template <Real T>
requires PositiveFunction<F, T> T log_value(T z)
const {
    if constexpr (LogFunction<F, T>)
        return static_cast<T>(f_.log(z));
    else
        return static_cast<T>(std::log(f_(z)));
}

private:
template <Real T, class Packet>
RowStatus apply_packets(std::span<const T> z, const Packet& f, std::span<T> out) const {
    using S = detail::Simd<T>;
    const auto lowest = S::set(std::numeric_limits<T>::lowest()), zero = S::set(T(0));
    const auto sum = detail::sum_lanes<T, 1>(detail::size<T>(z), [&](const auto& lane) {
        const auto x = lane(z.data(), -std::numeric_limits<T>::infinity());
        const auto value = S::select_below(x, lowest, zero, f(x));
        lane.store(out.data(), value);
        return detail::Packets<T, 1>{{value}};
    })[0];
    // The logits are gone if this was in place, but the maximum was finite: only NaN can be special.
    if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
    if (sum == 0) return RowStatus::empty;
    const auto factor = S::set(static_cast<T>(1 / sum));
    const auto smallest = S::set(std::numeric_limits<T>::min());
    detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
        const auto p = S::mul(lane(out.data()), factor);
        lane.store(out.data(), S::select_below(p, smallest, zero, p));
    });
    return RowStatus::normal;
}
template <Real T>
static bool masked(T z) {
    return z == -std::numeric_limits<T>::infinity();
}
F f_{};
}; // namespace attnscope

} // namespace v0_1
} // namespace attnscope
