// Sigmoid attention: every key on its own, no competition.
#pragma once

#include <attnscope/normalizer/scaled_softmax.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

/// Sigmoid attention: every key on its own, no competition.
/// Formula. p_i = 1/(1 + e^{-(z_i + b)}), the bias b given or -log n for n visible keys, which makes the
/// weights of a row of zeros sum to about 1. J = diag(p (1 - p)), so |J|_2 <= 1/4, attained at z_i = -b.
/// Special rows. -inf gives weight 0, +inf weight 1 (status normal). Others: see `RowStatus`.
/// Cost. O(n) for every member, no allocation.
/// Source. arXiv:2409.04431.
class SigmoidAttention {
public:
    static constexpr NormalizerTraits traits{.order_preserving = true, .symmetric_jacobian = true};

    SigmoidAttention() = default;
    /// Throws. `invalid_argument` unless the bias is finite.
    explicit SigmoidAttention(double bias) : bias_(bias) {
        detail::require(std::isfinite(bias), "SigmoidAttention", "the bias must be finite", bias);
    }

    static constexpr std::string_view name() { return "sigmoid"; }
    /// The bias on a row: the given one, or -log n.
    template <Real T>
    T bias(std::span<const T> z) const {
        if (bias_) // finite in T too, so that a masked key stays at -inf
            return detail::clamped_to<T>(*bias_);
        return -std::log(static_cast<T>(std::max(Index(1), detail::count_visible<T>(z))));
    }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("SigmoidAttention::apply", z, out);
        using P = detail::Packet<T>;
        const P b = bias<T>(z), zero = T(0), one = T(1);
        const auto sum = detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data(), -std::numeric_limits<T>::infinity()) + b;
            const auto e = exp_nonpositive(zero - abs(x));
            const auto p = select_below(x, zero, e, one) / (one + e);
            lane.store(out.data(), p);
            return p;
        });
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        return sum == 0 ? RowStatus::empty : RowStatus::normal;
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("SigmoidAttention::jvp", z, p, v, out);
        using P = detail::Packet<T>;
        const P zero = T(0);
        slopes<T>(z, p, [&](const auto& lane, const auto& slope) { // without weight, v may be anything
            const auto x = slope * lane(v.data());
            lane.store(out.data(), select_below(zero, slope, x, slope * zero));
        });
    }
    /// J is diagonal: the same as `jvp`.
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        jvp<T>(z, p, w, out);
    }

    static constexpr std::string_view parameter_name() { return "bias"; }
    /// dp/db = p (1 - p)
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("SigmoidAttention::parameter_derivative", z, p, out);
        slopes<T>(z, p, [&](const auto& lane, const auto& slope) { lane.store(out.data(), slope); });
    }

private:
    /// p (1 - p), with 1 - p = 1/(1 + e^{z+b}) evaluated as such; NaN rows stay NaN.
    template <Real T, class F>
    void slopes(std::span<const T> z, std::span<const T> p, F&& f) const {
        using P = detail::Packet<T>;
        const P b = bias<T>(z), zero = T(0), one = T(1);
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data(), -std::numeric_limits<T>::infinity()) + b;
            const auto e = exp_nonpositive(zero - abs(x));
            f(lane, lane(p.data()) * (select_below(x, zero, one, e) / (one + e)));
        });
    }
    std::optional<double> bias_;
};

} // namespace v0_2
} // namespace attnscope
