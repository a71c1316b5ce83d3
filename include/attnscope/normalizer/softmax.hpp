// Softmax with temperature.
#pragma once

#include <attnscope/normalizer/concept.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Softmax with temperature.
/// Formula. p_i = e^{z_i/T}/sum_j e^{z_j/T}. J = (diag p - p p^T)/T; jvp and vjp keep their digits on
/// concentrated rows: each entry errs by a few units of p_i (|v_i - v_k| + sum_j p_j |v_j - v_k|)/T beyond
/// what the weights lack, k the key with the largest weight if that is above 1/2. Entries of v at keys
/// without weight do not matter. Weights below the smallest normal number of the scalar are exactly 0. Error:
/// |dp_i|/p_i <= u (3 |z_i - max z|/T + 6) + the rounding of the sum.
/// Special rows. See `RowStatus`.
/// Cost. O(n) for every member, no allocation.
class Softmax {
public:
    static constexpr NormalizerTraits traits{.simplex = true,
                                             .shift_invariant = true,
                                             .order_preserving = true,
                                             .symmetric_jacobian = true,
                                             .sparse = false,
                                             .derivative_from_weights = true,
                                             .restrictable = true};

    Softmax() = default;
    /// Throws. `invalid_argument` unless temperature > 0 and finite.
    explicit Softmax(double temperature) : temperature_(detail::checked_temperature("Softmax", temperature)) {}

    static constexpr std::string_view name() { return "softmax"; }
    double temperature() const { return temperature_; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("Softmax::apply", z, out);
        const T m = detail::row_max<T>(z);
        if (!detail::has_inverse<T>(temperature_))
            return detail::divided_softmax_row<T>(z, m, temperature_, out);
        return detail::softmax_row<T>(z, m, m, detail::wide_inverse<T>(temperature_), 0, out);
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("Softmax::jvp", z, p, v, out);
        detail::softmax_product<T>(p, v, detail::clamped_inverse<T>(temperature_), out);
    }

    /// J is symmetric: the same as `jvp`.
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("Softmax::vjp", z, p, w, out);
        jvp<T>(z, p, w, out);
    }

    /// log sum_i e^{z_i/T}
    template <Real T>
    T log_sum_exp(std::span<const T> z) const {
        return attnscope::log_sum_exp<T>(z, temperature_);
    }
    /// The weights and log sum_i e^{z_i/T} at once, with the bits of `apply` and `log_sum_exp`. `out` may be z.
    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out, T& log_sum_exp) const {
        using A = Accumulator<T>;
        if (detail::has_inverse<T>(temperature_)) {
            detail::require_same_size<T>("Softmax::apply", z, out);
            const T m = detail::row_max<T>(z);
            const A inverse = detail::wide_inverse<T>(temperature_);
            if (std::abs(m) <= std::numeric_limits<T>::max()) {
                A sum = std::numeric_limits<A>::quiet_NaN();
                const RowStatus status = detail::softmax_row<T>(z, m, m, inverse, 0, out, &sum);
                log_sum_exp = static_cast<T>(A(m) * inverse + std::log(sum));
                return status;
            }
        }
        log_sum_exp = this->log_sum_exp<T>(z);
        return apply<T>(z, out);
    }

    static constexpr std::string_view parameter_name() { return "temperature"; }
    /// dp/dT = -p (z - E_p z)/T^2
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("Softmax::parameter_derivative", z, p, out);
        detail::temperature_product<T>(z, p, temperature_, out);
    }

private:
    double temperature_ = 1;
};

/// `row_statistics` at the temperature of a softmax.
template <Real T>
RowStatistics<Accumulator<T>> row_statistics(RowIn<T> z, const Softmax& softmax) {
    return row_statistics<T>(z, softmax.temperature());
}
/// As above from any row.
template <RowLike Z>
RowStatistics<Accumulator<RowScalar<Z>>> row_statistics(const Z& z, const Softmax& softmax) {
    return row_statistics(z, softmax.temperature());
}

} // namespace v0_2
} // namespace attnscope
