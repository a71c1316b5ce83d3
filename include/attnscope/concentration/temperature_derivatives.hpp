// How the weights and the entropy of a softmax row move with its logits and with its inverse temperature.
#pragma once

#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

/// scaled(p_i, E_p z - z_i), linear in the latter, into `out`; 0 at masked keys and for an empty row, NaN for other
/// rows that are not normal.
template <Real T, class Scaled>
void centred_weights(RowIn<T> z, double temperature, RowOut<T> out, Scaled&& scaled) {
    using A = Accumulator<T>;
    const RowStatistics<A> row = row_statistics<T>(z, temperature);
    // In halves where distances may overflow: their products with p do not.
    const bool wide = row.normal() && !std::isfinite(row.logit_spread());
    const A log_sum = std::log1p(row.r), divisor = A(temperature), unit = wide ? 2 : 1;
    const A mean = wide ? divisor / 2 * (row.t / (1 + row.r)) : row.score_deficit();
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (!row.normal()) {
            out[i] = row.status == RowStatus::empty ? T(0) : std::numeric_limits<T>::quiet_NaN();
            continue;
        }
        const A p = std::exp(temperatures_apart(A(z[i]), row.max_logit, divisor) - log_sum);
        const A below = (row.max_logit / unit - A(z[i]) / unit) - mean;
        out[i] = p > A(0) ? static_cast<T>(unit * scaled(p, below)) : T(0);
    }
}

} // namespace detail

/// How the entropy of p = softmax(z/T) moves with each logit, in nats per unit of logit.
/// Formula. dH/dz_i = -p_i (log p_i + H)/T of H = -sum p log p. They sum to 0: H knows the logits up to a
/// shift. log p_i is taken from the logits, so that keys of tiny weight keep their digits.
/// Shapes and units. z and `out` of one length.
/// Special rows. 0 at masked keys; an empty row gives 0, other rows that are not normal NaN. The spread of the logits
/// may overflow.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` for different lengths, and unless T > 0 and finite.
template <Real T>
void entropy_gradient(RowIn<T> z, double temperature, RowOut<T> out) {
    detail::require_same_size<T>("entropy_gradient", z, out);
    // log p_i + H = (z_i - E_p z)/T.
    detail::centred_weights<T>(z, temperature, out, [&](auto p, auto below) {
        const auto divisor = static_cast<decltype(p)>(temperature);
        return p * (below / divisor) / divisor;
    });
}

/// As above from any row, as a vector like it. Allocates the result.
template <RowLike Z>
RowResult<Z> entropy_gradient(const Z& z, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    RowResult<Z> out;
    out.resize(row.size());
    entropy_gradient<T>(row.get(), temperature, RowOut<T>(out.data(), row.get().size()));
    return out;
}

/// How the weights p = softmax(beta z) move with the inverse temperature.
/// Formula. dp_i/dbeta = p_i (z_i - E_p z) at beta = 1/T. They sum to 0.
/// Shapes and units. z and `out` of one length.
/// Special rows. 0 at masked keys; an empty row gives 0, other rows that are not normal NaN. The spread of the logits
/// may overflow.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` for different lengths, and unless T > 0 and finite.
template <Real T>
void weight_temperature_derivative(RowIn<T> z, double temperature, RowOut<T> out) {
    detail::require_same_size<T>("weight_temperature_derivative", z, out);
    detail::centred_weights<T>(z, temperature, out, [](auto p, auto below) { return -p * below; });
}

/// As above from any row, as a vector like it. Allocates the result.
template <RowLike Z>
RowResult<Z> weight_temperature_derivative(const Z& z, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    RowResult<Z> out;
    out.resize(row.size());
    weight_temperature_derivative<T>(row.get(), temperature, RowOut<T>(out.data(), row.get().size()));
    return out;
}

/// How the entropy moves with the inverse temperature, in nats per unit of it: never up.
/// Formula. dH/dbeta = -beta Var_p z at beta = 1/T.
/// Special rows. NaN for rows that are not normal; -inf where beta Var_p z is beyond the scalar.
/// Cost. O(1).
template <Real A>
A entropy_temperature_derivative(const RowStatistics<A>& row) {
    return -row.logit_variance(1);
}

/// What a relative change of the temperature costs, in nats.
/// Formula. dH/dlog beta = -beta^2 Var_p z.
/// Special rows. NaN for rows that are not normal.
/// Cost. O(1).
template <Real A>
A entropy_log_temperature_derivative(const RowStatistics<A>& row) {
    return -row.logit_variance(2);
}

} // namespace v0_2
} // namespace attnscope
