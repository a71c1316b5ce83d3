// The kernels of softmax on a row, and log-sum-exp: what normalisers, statistics and scans of softmax are made of.
#pragma once

#include <attnscope/detail/centred_row.hpp>
#include <attnscope/row/status.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// 1/temperature, kept inside the normal numbers of T so that 0 * inf cannot arise.
template <Real T>
T clamped_inverse(double temperature) {
    if (temperature == 1) return T(1);
    using Limits = std::numeric_limits<T>;
    const long double inverse = 1.0L / static_cast<long double>(temperature);
    return static_cast<T>(
        std::clamp(inverse, static_cast<long double>(Limits::min()), static_cast<long double>(Limits::max())));
}

/// The same in the accumulator scalar: for float without another rounding.
template <Real T>
Accumulator<T> wide_inverse(double temperature) {
    using Limits = std::numeric_limits<T>;
    if constexpr (std::same_as<T, float>)
        return std::clamp(1 / temperature, double(Limits::min()), double(Limits::max()));
    else
        return clamped_inverse<T>(temperature);
}

/// (a - b)/T, where the difference itself may overflow. Only differences of logits enter, so that an offset
/// that all of them share is without effect.
template <Real A>
A temperatures_apart(A a, A b, A temperature) {
    const A difference = a - b;
    if (std::isinf(difference) && std::isfinite(a) && std::isfinite(b))
        return 2 * ((a / 2 - b / 2) / temperature);
    return difference / temperature;
}

/// Is 1/T a number of the scalar, with room for the parts of a product beside it, and have keys whose distance
/// overflows no weight? If not, logits are divided by T one by one.
template <Real T>
constexpr bool has_inverse(double temperature) {
    constexpr double least = static_cast<double>(2 / std::numeric_limits<T>::max()),
                     largest = std::same_as<T, float> ? double(std::numeric_limits<float>::max()) / 128
                                                      : std::numeric_limits<double>::max() / 1024;
    return std::same_as<T, long double> || (temperature >= least && temperature <= largest);
}

inline double checked_temperature(std::string_view function, double temperature) {
    require(temperature > 0 && std::isfinite(temperature), function, "temperature must be > 0 and finite",
            temperature);
    return temperature;
}

inline double checked_scale(std::string_view function, std::string_view name, double scale) {
    if (!(scale >= 0 && std::isfinite(scale))) {
        const std::string rule = std::string(name) + " must be >= 0 and finite";
        fail(function, rule, scale);
    }
    return scale;
}

/// x, inside the finite numbers of T.
template <Real T>
T clamped_to(double x) {
    using L = long double;
    return static_cast<T>(
        std::clamp(L(x), L(std::numeric_limits<T>::lowest()), L(std::numeric_limits<T>::max())));
}

/// Status of a row whose ordinary evaluation met NaN or an infinite maximum. Cost O(n), not vectorised: rare.
template <Real T>
RowStatus classify(RowIn<T> z) {
    RowStatus status = RowStatus::empty;
    for (const T x : z) {
        if (std::isnan(x)) return RowStatus::nan;
        if (x == std::numeric_limits<T>::infinity())
            status = RowStatus::infinite;
        else if (status == RowStatus::empty && x > -std::numeric_limits<T>::infinity())
            status = RowStatus::normal;
    }
    return status;
}

/// Weights of a row that is not normal, by the convention of `RowStatus`.
template <Real T>
RowStatus fill_special(RowStatus status, RowIn<T> z, RowOut<T> out) {
    if (status == RowStatus::infinite) {
        const T infinity = std::numeric_limits<T>::infinity();
        const auto count = std::count(z.begin(), z.end(), infinity);
        std::transform(z.begin(), z.end(), out.begin(),
                       [&](T x) { return x == infinity ? T(1) / static_cast<T>(count) : T(0); });
    } else {
        std::fill(out.begin(), out.end(),
                  status == RowStatus::nan ? std::numeric_limits<T>::quiet_NaN() : T(0));
    }
    return status;
}

/// e^{beta x} of packets x <= 0.
template <Real T>
class ScaledExp {
public:
    explicit ScaledExp(Accumulator<T> beta) : beta_(static_cast<T>(beta)) {}
    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(const P& x) const {
        return exp_nonpositive(x * beta_);
    }

private:
    T beta_;
};
template <Real T>
requires has_exp_table<T>
class ScaledExp<T> : public TableExp<T> {
public:
    explicit ScaledExp(double beta) : TableExp<T>(beta) {}
};

/// sum_i e^{(z_i - m)/T}, and the terms in `out` if it is given. NaN when a logit is NaN or +inf.
template <bool store, Real T>
Accumulator<T> exp_sum(RowIn<T> z, T m, Accumulator<T> inverse_temperature, T* out) {
    const ScaledExp<T> exp_of(inverse_temperature);
    const Packet<T> shift = m;
    return sum_groups<T, 1>(size(z), [&](const auto& lane, Packets<T, 1>& sum) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
        const auto z_lane = lane(z.data(), -std::numeric_limits<T>::infinity());
        const auto e = exp_of(z_lane - shift);
        if constexpr (store) lane.store(out, e);
        sum.v[0] = add_to(sum.v[0], e);
    })[0];
}

/// Multiplies the terms of a row by `factor`; weights below the smallest normal number become 0, because
/// subnormals are slow.
template <Real T>
void scale_weights(T factor, RowOut<T> out) {
    using P = Packet<T>;
    const P scale = factor, smallest = std::numeric_limits<T>::min(), zero = T(0);
    for_each_lane<T>(static_cast<Index>(out.size()), [&](const auto& lane) {
        const auto p = lane(out.data()) * scale;
        lane.store(out.data(), select_below(p, smallest, zero, p));
    });
}

/// p_i = e^{beta (z_i - shift)}/(sum + extra) with `shift` >= every visible logit, m = max z. Weights below the
/// smallest normal number are 0. `extra` is mass that goes to no key. `sum_found`: of the keys, if the row is normal.
template <Real T>
RowStatus softmax_row(RowIn<T> z, T m, T shift, Accumulator<T> beta, Accumulator<T> extra, RowOut<T> out,
                      Accumulator<T>* sum_found = nullptr) {
    if (!(std::abs(m) <= std::numeric_limits<T>::max())) return fill_special<T>(classify<T>(z), z, out);
    // In place, the logits are gone after the next line; but then NaN in the sum can only mean NaN in the
    // row, because the maximum is finite or was hidden by a NaN.
    const auto sum = exp_sum<true, T>(z, shift, beta, out.data());
    if (!(sum == sum)) return fill_special<T>(RowStatus::nan, z, out);
    if (sum == 0) return RowStatus::empty; // only beside `extra`
    if (sum_found != nullptr) *sum_found = sum;
    scale_weights<T>(static_cast<T>(1 / (sum + extra)), out);
    return RowStatus::normal;
}

/// softmax(z/T) key by key, for temperatures without an inverse in T; m = max z.
template <Real T>
RowStatus divided_softmax_row(RowIn<T> z, T m, double temperature, RowOut<T> out) {
    using A = Accumulator<T>;
    if (!(std::abs(m) <= std::numeric_limits<T>::max())) return fill_special<T>(classify<T>(z), z, out);
    A sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        const A e = std::exp(temperatures_apart(A(z[i]), A(m), static_cast<A>(temperature)));
        sum += e;
        out[i] = static_cast<T>(e);
    }
    if (!(sum == sum)) return fill_special<T>(RowStatus::nan, z, out);
    scale_weights<T>(static_cast<T>(1 / sum), out);
    return RowStatus::normal;
}

/// out = p (unit (z - E_p z)) factor: how softmax weights move with the inverse temperature. Keys of weight 0
/// do not move, at z = -inf either; rows with +inf do not move at all. `out` may be `p`.
template <Real T>
void inverse_temperature_product(RowIn<T> z, RowIn<T> p, T unit, T factor, RowOut<T> out) {
    using P = Packet<T>;
    const T m = row_max<T>(z);
    if (!(std::abs(m) <= std::numeric_limits<T>::max())) { // nothing moves beside +inf; NaN stays
        std::transform(p.begin(), p.end(), out.begin(), [](T x) { return x * T(0); });
        return;
    }
    const P zero = T(0), top = m;
    const auto distance = [&](const auto& lane, const auto& weight) {
        return select_below(zero, weight, lane(z.data(), T(0)) - top, zero);
    };
    const P mean = static_cast<T>(sum_lanes<T>(size<T>(z), [&](const auto& lane) {
        const auto weight = lane(p.data());
        return weight * distance(lane, weight);
    }));
    const P small = unit, scale = factor;
    for_each_lane<T>(size<T>(z), [&](const auto& lane) {
        const auto weight = lane(p.data());
        const auto moved = small * (distance(lane, weight) - mean);
        lane.store(out.data(), weight * moved * scale);
    });
}
/// out = -p (z - E_p z)/T^2, T a temperature.
template <Real T>
void temperature_product(RowIn<T> z, RowIn<T> p, double temperature, RowOut<T> out) {
    if (has_inverse<T>(temperature)) {
        const T inverse = clamped_inverse<T>(temperature);
        return inverse_temperature_product<T>(z, p, inverse, -inverse, out);
    }
    const RowRange<T> range = row_range<T>(z);
    if (!(std::abs(range.max) <= std::numeric_limits<T>::max()))
        return inverse_temperature_product<T>(z, p, T(1), T(1), out);
    using A = Accumulator<T>;
    // Halves where distances may overflow.
    const A top = A(range.max), unit = std::isfinite(range.max - range.min) ? 1 : 2, divisor = A(temperature);
    const auto distance = [&](std::size_t i) { return A(z[i]) / unit - top / unit; };
    A mean = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (p[i] > T(0)) mean += A(p[i]) * distance(i);
    for (std::size_t i = 0; i < p.size(); ++i)
        out[i] = p[i] > T(0) ? static_cast<T>(-(A(p[i]) * (distance(i) - mean) / divisor) / divisor * unit)
                             : p[i] * T(0);
}

} // namespace detail

/// Log-sum-exp of a row of logits.
/// Formula. log sum_i e^{z_i/T}. Error: relative 2u on the sum, plus u |z_max/T|.
/// Shapes and units. z in logits before the temperature; -inf masks a key.
/// Special rows. An empty or all-masked row gives -inf, a NaN gives NaN, +inf gives +inf.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` unless the temperature is > 0 and finite.
template <Real T>
T log_sum_exp(RowIn<T> z, double temperature = 1) {
    detail::checked_temperature("log_sum_exp", temperature);
    const T m = detail::row_max<T>(z);
    using A = Accumulator<T>;
    const A inverse = detail::wide_inverse<T>(temperature);
    A sum = std::numeric_limits<A>::quiet_NaN();
    if (!std::isinf(m)) {
        if (detail::has_inverse<T>(temperature)) {
            sum = detail::exp_sum<false, T>(z, m, inverse, nullptr);
            if (sum == sum) return static_cast<T>(A(m) * inverse + std::log(sum));
        } else {
            const A divisor = static_cast<A>(temperature);
            sum = 0;
            for (const T x : z) sum += std::exp(detail::temperatures_apart(A(x), A(m), divisor));
            if (sum == sum) return static_cast<T>(A(m) / divisor + std::log(sum));
        }
    }
    switch (detail::classify<T>(z)) {
    case RowStatus::empty:
        return -std::numeric_limits<T>::infinity();
    case RowStatus::infinite:
        return std::numeric_limits<T>::infinity();
    default:
        return std::numeric_limits<T>::quiet_NaN();
    }
}

namespace detail {

/// log sum_i e^{beta z_i} for an inverse temperature beta >= 0. beta = 0: the logarithm of the number of keys.
template <Real T>
T log_sum_exp_at(RowIn<T> z, double beta) {
    if (beta == 0 && classify<T>(z) == RowStatus::normal) {
        const auto visible =
            static_cast<Index>(z.size()) - std::count(z.begin(), z.end(), -std::numeric_limits<T>::infinity());
        return static_cast<T>(std::log(static_cast<Accumulator<T>>(visible)));
    }
    // Inside the normal numbers, so that its inverse is a temperature.
    using Limits = std::numeric_limits<double>;
    return attnscope::log_sum_exp<T>(z, 1 / std::clamp(beta, Limits::min(), Limits::max()));
}

} // namespace detail

/// As above from any row.
template <RowLike Z>
RowScalar<Z> log_sum_exp(const Z& z, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return log_sum_exp<T>(row.get(), temperature);
}

} // namespace v0_2
} // namespace attnscope
