// The paper's general family: any positive function F, normalised by its sum.
#pragma once

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

/// F(z) = e^z: softmax once more, by the general way.
struct Exponential {
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
};

/// F(z) = z^2 + c, c > 0: positive, not monotone, its derivative changes sign.
class Quadratic {
public:
    /// Throws `invalid_argument` unless c > 0 and finite.
    explicit Quadratic(double c = 1) : c_(c) {
        detail::require(c > 0 && std::isfinite(c), "Quadratic", "c must be > 0 and finite", c);
    }
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
    static constexpr NormalizerTraits traits{.simplex = true};

    PointwiseNormalizer() = default;
    explicit PointwiseNormalizer(F f) : f_(std::move(f)) {}

    std::string_view name() const { return f_.name(); }
    const F& function() const { return f_; }

    template <Real T>
    requires PositiveFunction<F, T> RowStatus apply(std::span<const T> z, std::span<T> out)
    const {
        detail::require_same_size<T>("PointwiseNormalizer::apply", z, out);
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
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = static_cast<T>(gradient(z[i], p[i]) * (w[i] - mean));
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
    template <Real T>
    static bool masked(T z) {
        return z == -std::numeric_limits<T>::infinity();
    }
    F f_{};
};

} // namespace v0_1
} // namespace attnscope
