// Softpick: rectified softmax that may give no weight to any key.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_1 {

/// p_i = max(e^{z_i} - 1, 0)/(sum_j |e^{z_j} - 1| + eps) over the visible keys (arXiv:2504.20966). Keys with z
/// <= 0 have weight 0; the weights sum to at most 1. With h_j = sign(z_j) e^{z_j}/denominator: J = diag(max(h,
/// 0)) - p h^T, taken as 0 in a key's own term at z = 0. Evaluated without cancellation near z = 0 and shifted
/// by max(0, max z), eps too. A row without a positive logit is `empty`. Cost O(n) for every member, no
/// allocation.
class Softpick {
public:
    static constexpr NormalizerTraits traits{.order_preserving = true, .sparse = true};

    /// Throws `invalid_argument` unless eps is >= 0 and finite.
    explicit Softpick(double eps = 1e-8) : eps_(detail::checked_scale("Softpick", "eps", eps)) {}

    static constexpr std::string_view name() { return "softpick"; }
    double eps() const { return eps_; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::apply", z, out);
        const T m = detail::row_max<T>(z);
        if (!(m <= std::numeric_limits<T>::max()))
            return detail::fill_special<T>(detail::classify<T>(z), z, out);
        using S = detail::Simd<T>;
        const auto zero = S::set(T(0));
        const Scaled<T> scaled(m);
        const auto sum = detail::sum_lanes<T, 1>(detail::size<T>(z), [&](const auto& lane) {
            const auto value = scaled.expm1(lane(z.data(), -std::numeric_limits<T>::infinity()));
            lane.store(out.data(), S::select_below(value, zero, zero, value));
            return detail::Packets<T, 1>{{S::abs(value)}};
        })[0];
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        if (!(m > T(0))) return RowStatus::empty;
        const T inverse = static_cast<T>(1 / (sum + eps_ * scaled.unit));
        if (!(inverse <= std::numeric_limits<T>::max())) { // logits of subnormal size without eps
            for (T& x : out) x = static_cast<T>(x / sum);
            return RowStatus::normal;
        }
        detail::scale_weights<T>(inverse, out);
        return RowStatus::normal;
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::jvp", z, p, v, out);
        using A = detail::Accumulator<T>;
        const Slope<T> h(*this, z, p);
        A moved = 0;
        for (std::size_t i = 0; i < z.size(); ++i) moved += A(h(z[i])) * A(v[i]);
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = static_cast<T>((z[i] > T(0) ? A(h(z[i])) * A(v[i]) : A(0)) - p[i] * moved);
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::vjp", z, p, w, out);
        using A = detail::Accumulator<T>;
        const Slope<T> h(*this, z, p);
        const A mean = detail::dot<T>(p, w);
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = static_cast<T>(A(h(z[i])) * ((z[i] > T(0) ? A(w[i]) : A(0)) - mean));
    }

private:
    /// (e^z - 1) e^{-shift} with shift = max(0, max z); 0 at masked keys. `unit` is e^{-shift}.
    template <Real T>
    struct Scaled {
        using S = detail::Simd<T>;
        using P = typename S::P;
        explicit Scaled(T m) : shift(S::set(std::max(m, T(0)))), unit(std::exp(-std::max(m, T(0)))) {
            unit_packet = S::set(unit);
        }
        P expm1(P z) const {
            const P zero = S::set(T(0)), lowest = S::set(std::numeric_limits<T>::lowest());
            // For z >= 0 it is e^{z-shift} (1 - e^{-z}), else e^{-shift} (e^z - 1): one expm1 of -|z| for both.
            const P e = detail::expm1_nonpositive<T>(S::sub(zero, S::abs(z)));
            const P grown = detail::exp_nonpositive<T>(S::sub(z, shift));
            return S::select_below(
                z, lowest, zero,
                S::select_below(z, zero, S::mul(unit_packet, e), S::mul(grown, S::sub(zero, e))));
        }
        P shift;
        T unit;
        P unit_packet;
    };

    /// h(z) = sign(z) e^z/(sum |e^z - 1| + eps), NaN on NaN rows, 0 on rows of no weight and of infinite
    /// logits.
    template <Real T>
    class Slope {
    public:
        Slope(const Softpick& softpick, std::span<const T> z, std::span<const T> p) {
            const T m = detail::row_max<T>(z);
            if (std::any_of(p.begin(), p.end(), [](T x) { return x != x; })) {
                factor_ = std::numeric_limits<T>::quiet_NaN();
            } else if (m > T(0) && m <= std::numeric_limits<T>::max()) {
                const Scaled<T> scaled(m);
                const auto sum = detail::sum_lanes<T, 1>(detail::size<T>(z), [&](const auto& lane) {
                    return detail::Packets<T, 1>{{detail::Simd<T>::abs(
                        scaled.expm1(lane(z.data(), -std::numeric_limits<T>::infinity())))}};
                })[0];
                shift_ = m;
                factor_ = static_cast<T>(1 / (sum + softpick.eps_ * scaled.unit));
            }
        }
        T operator()(T z) const {
            if (factor_ == T(0) || z == T(0)) return T(0);
            return std::copysign(std::exp(z - shift_) * factor_, z);
        }

    private:
        T shift_ = T(0), factor_ = T(0);
    };
    double eps_;
};

} // namespace v0_1
} // namespace attnscope
