// Positive functions for the general family: exp, sigmoid, softplus, StableMax, powers of ReLU, a quadratic.
#pragma once

#include <attnscope/detail/elementary.hpp>

#include <string_view>

namespace attnscope {
inline namespace v0_2 {

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
        if (z < cut) return T(1) - std::exp(z) / 2;
        const T e = std::exp(-std::abs(z));
        return (z < T(0) ? e : T(1)) / ((T(1) + e) * (std::max(z, T(0)) + std::log1p(e)));
    }
    /// F'(z)/F(z) of a packet: with e = e^{-|z|}, 1/((1 + e) f), f = log1p(e)/e below 0 and z + log1p(e) above.
    template <Real T>
    detail::Packet<T> log_derivative(detail::Packet<T> z) const {
        using P = detail::Packet<T>;
        const P zero = T(0), one = T(1);
        const auto e = exp_nonpositive(zero - abs(z));
        const auto ratio = log1p_ratio(e);
        return one / ((one + e) * select_below(z, zero, ratio, madd(e, ratio, z)));
    }
    /// F(z)/c over packets, with c = e^m where m < 0 and 1 else, so that negative rows keep their digits.
    template <Real T>
    struct Scaled {
        using P = detail::Packet<T>;
        explicit Scaled(T m) : negative(m < T(0)), shift(m), scale(m < T(0) ? std::exp(m) : T(1)) {}
        P operator()(P z) const {
            const P zero = T(0);
            if (negative) { // e^{z-m} log1p(e^z)/e^z
                const auto x = exp_nonpositive(z - shift);
                return x * log1p_ratio(x * scale);
            }
            const auto e = exp_nonpositive(zero - abs(z));
            return madd(e, log1p_ratio(e), select_below(z, zero, zero, z));
        }
        bool negative;
        P shift, scale;
    };
    template <Real T>
    Scaled<T> packet(T m) const {
        return Scaled<T>(m);
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
    struct Scaled {
        using P = detail::Packet<T>;
        explicit Scaled(T m) : numerator(m < T(0) ? T(1) - m : T(1)) {}
        P operator()(P z) const {
            const auto size = abs(z) + T(1);
            return select_below(z, T(0), numerator / size, size);
        }
        P numerator;
    };
    template <Real T>
    Scaled<T> packet(T m) const {
        return Scaled<T>(m);
    }
};

/// F(z) = max(z, 0)^k, k >= 1: ReLU attention normalised by its sum (k = 2: squared ReLU). A row without a
/// positive logit has no mass. F'(0) = 0.
class ReluPower {
public:
    /// Throws. `invalid_argument` unless k is >= 1 and finite.
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
    struct Scaled {
        using P = detail::Packet<T>;
        explicit Scaled(T m) : top(m > T(0) ? m : T(1)) {}
        P operator()(P z) const {
            const P zero = T(0);
            const auto x = select_below(z, zero, zero, z) / top;
            return square ? x * x : x;
        }
        P top;
        bool square = false;
    };
    template <Real T>
    Scaled<T> packet(T m) const {
        Scaled<T> result(m);
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
    /// Throws. `invalid_argument` unless c > 0 and finite.
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

} // namespace v0_2
} // namespace attnscope
