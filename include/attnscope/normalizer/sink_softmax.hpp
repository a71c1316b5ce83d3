// Softmax with a sink: some mass may go to no key at all.
#pragma once

#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Softmax with a key of logit log n0 and value 0 that nobody stores: some mass may go to no key at all.
/// Formula. p_i = e^{z_i}/(n0 + sum_j e^{z_j}), n0 >= 0. n0 = 1 is "softmax off by one"; a trained sink logit
/// b is n0 = e^b (`from_logit`). J = diag p - p p^T; the sink's mass is 1 - sum p = n0/(n0 + sum e^z).
/// Evaluated shifted by max(max z, log n0).
/// Special rows. A row in which all keys vanish beside the sink is `empty`. Others: see `RowStatus`.
/// Cost. O(n) for every member, no allocation.
/// Source. E. Miller, 2023.
class SinkSoftmax {
public:
    static constexpr NormalizerTraits traits{.order_preserving = true, .symmetric_jacobian = true};

    /// Throws. `invalid_argument` unless n0 is >= 0 and finite.
    explicit SinkSoftmax(double n0 = 1)
        : SinkSoftmax(std::log(detail::checked_scale("SinkSoftmax", "n0", n0)), Logit{}) {}
    /// n0 = e^logit, where e^logit itself may overflow.
    /// Throws. `invalid_argument` for NaN and +inf.
    static SinkSoftmax from_logit(double logit) {
        detail::require(logit < std::numeric_limits<double>::infinity(), "SinkSoftmax::from_logit",
                        "the sink logit must be finite or -inf", logit);
        return SinkSoftmax(logit, Logit{});
    }

    static constexpr std::string_view name() { return "sink"; }
    double logit() const { return logit_; } ///< log n0

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("SinkSoftmax::apply", z, out);
        const T m = detail::row_max<T>(z);
        const T shift = std::max(m, logit_in<T>());
        return detail::softmax_row<T>(z, m, shift, T(1),
                                      std::exp(Accumulator<T>(logit_in<T>()) - Accumulator<T>(shift)), out);
    }
    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("SinkSoftmax::jvp", z, p, v, out);
        using A = Accumulator<T>;
        detail::softmax_product<T>(p, v, T(1), out, [&](std::size_t top) { // the sink's mass beside the largest
            return A(p[top]) * std::exp(A(logit_in<T>()) - A(z[top]));
        });
    }
    /// J is symmetric: the same as `jvp`.
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        jvp<T>(z, p, w, out);
    }

    /// log(n0 + sum_i e^{z_i}); log n0 if no key is visible.
    template <Real T>
    T log_sum_exp(std::span<const T> z) const {
        const T keys = attnscope::log_sum_exp<T>(z), sink = logit_in<T>();
        const T high = std::max(keys, sink), low = std::min(keys, sink);
        if (!(std::abs(high) <= std::numeric_limits<T>::max())) return keys != keys ? keys : high;
        return keys != keys ? keys : high + std::log1p(std::exp(low - high));
    }

    /// Mass of the sink, n0/(n0 + sum_i e^{z_i}), to full relative accuracy; NaN if a logit is NaN.
    template <Real T>
    Accumulator<T> sink_mass(std::span<const T> z) const {
        using A = Accumulator<T>;
        const T m = detail::row_max<T>(z);
        if (m == std::numeric_limits<T>::infinity()) return A(0);
        const T shift = std::max(m, logit_in<T>());
        const A sink = std::exp(A(logit_in<T>()) - A(shift));
        if (m == -std::numeric_limits<T>::infinity()) return sink > 0 ? A(1) : A(0);
        return sink / (sink + detail::exp_sum<false, T>(z, shift, T(1), nullptr));
    }

    static constexpr std::string_view parameter_name() { return "sink logit"; }
    /// dp/d(log n0) = -p (1 - sum p)
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("SinkSoftmax::parameter_derivative", z, p, out);
        const auto mass = sink_mass<T>(z);
        std::transform(p.begin(), p.end(), out.begin(),
                       [&](T x) { return static_cast<T>(-Accumulator<T>(x) * mass); });
    }

private:
    /// The logit inside the finite numbers of T, -inf kept.
    template <Real T>
    T logit_in() const {
        if (logit_ == -std::numeric_limits<double>::infinity()) return -std::numeric_limits<T>::infinity();
        return detail::clamped_to<T>(logit_);
    }
    struct Logit {};
    SinkSoftmax(double logit, Logit) : logit_(logit) {}
    double logit_;
};

} // namespace v0_2
} // namespace attnscope
