// Softmax whose temperature is solved, row by row, for a wanted concentration: entropy or participation ratio.
#pragma once

#include <attnscope/normalizer/concept.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// A target that softmax(beta z) of n keys, k of them at the largest logit, reaches at no finite beta.
enum class TargetEnd {
    inside, ///< some 0 < beta < inf reaches it
    flat,   ///< not below that of equal weights: beta = 0
    sharp   ///< not above that of the keys at the maximum alone: beta = inf
};

/// beta > 0 at which `excess(beta)`, the logarithm of measure over target with its slope d/d beta, vanishes. It
/// falls from a positive value at 0 to a negative one at infinity. Newton inside a bracket, from `start`, until
/// the value is no larger than `precision`.
template <class A, class Excess>
A solve_inverse_temperature(A start, A precision, Excess&& excess) {
    using Limits = std::numeric_limits<A>;
    constexpr int max_steps = 200;
    A low = 0, high = Limits::infinity(), beta = start;
    for (int i = 0; i < max_steps; ++i) {
        const auto [value, slope] = excess(beta);
        if (!(std::abs(value) > precision)) break;
        (value > 0 ? low : high) = beta;
        A next = beta - value / slope;
        // Where the measure is flat or falls steeply, steps are kept to a factor of 8.
        if (!(next > std::max(low, beta / 8) && next < std::min(high, beta * 8)))
            next = low == 0                     ? high / 8
                   : high == Limits::infinity() ? low * 8
                                                : std::sqrt(low) * std::sqrt(high);
        if (!(next > low && next < high) || next == beta) break;
        beta = next;
    }
    return beta;
}

} // namespace detail

/// Entropy H = -sum p log p, in nats.
class EntropyTarget {
public:
    /// Throws. `invalid_argument` unless the entropy is >= 0 and finite.
    explicit EntropyTarget(double nats)
        : nats_(detail::checked_scale("EntropyTargetSoftmax", "the entropy", nats)) {}
    static constexpr bool symmetric = true;
    static constexpr std::string_view name() { return "entropy"; }
    static constexpr std::string_view parameter_name() { return "entropy"; }
    double value() const { return nats_; }

    detail::TargetEnd end(double n, double ties) const {
        if (nats_ >= std::log(n)) return detail::TargetEnd::flat;
        return nats_ <= std::log(ties) ? detail::TargetEnd::sharp : detail::TargetEnd::inside;
    }
    /// log(H/target) and its derivative -beta Var_p z/H.
    template <Real T>
    std::pair<Accumulator<T>, Accumulator<T>> excess(RowIn<T> z, Accumulator<T> beta) const {
        using A = Accumulator<T>;
        const auto row = row_statistics<T>(z, static_cast<double>(1 / beta));
        const A entropy = row.entropy_nats();
        return {std::log(entropy / A(nats_)), -beta * row.logit_variance() / entropy};
    }

private:
    double nats_;
};

/// Participation ratio 1/sum p^2, in keys.
class ParticipationTarget {
public:
    /// Throws. `invalid_argument` unless the participation ratio is >= 1 and finite.
    explicit ParticipationTarget(double keys) : keys_(keys) {
        detail::require(keys >= 1 && std::isfinite(keys), "ParticipationTargetSoftmax",
                        "the participation ratio must be >= 1 and finite", keys);
    }
    static constexpr bool symmetric = false;
    static constexpr std::string_view name() { return "participation"; }
    static constexpr std::string_view parameter_name() { return "participation ratio"; }
    double value() const { return keys_; }

    detail::TargetEnd end(double n, double ties) const {
        if (keys_ >= n) return detail::TargetEnd::flat;
        return keys_ <= ties ? detail::TargetEnd::sharp : detail::TargetEnd::inside;
    }
    /// log((1/S2 - 1)/(target - 1)) and its derivative; S2(beta) = e^{lse(2 beta z) - 2 lse(beta z)}, so that
    /// d log S2/d beta = 2 (E_{2 beta} z - E_beta z).
    template <Real T>
    std::pair<Accumulator<T>, Accumulator<T>> excess(RowIn<T> z, Accumulator<T> beta) const {
        using A = Accumulator<T>;
        const auto row = row_statistics<T>(z, static_cast<double>(1 / beta));
        const auto twice = row_statistics<T>(z, static_cast<double>(A(0.5) / beta));
        const A outside = row.one_minus_power_sum_2(), square = row.power_sum_2();
        return {std::log(outside / square / A(keys_ - 1)),
                -2 * (row.score_deficit() - twice.score_deficit()) / outside};
    }

private:
    double keys_;
};

/// Softmax whose inverse temperature is solved, row by row, so that the entropy (or the participation ratio)
/// of the weights is the target.
/// Formula. p = softmax(beta z), beta >= 0. A target that equal weights do not exceed gives them (beta = 0);
/// one that the keys at the largest logit exceed by themselves gives those all the mass, in equal parts. With
/// A = diag p - p p^T and a = p (z - E_p z): J = beta (A - a g^T), where g = a/Var_p z for the entropy (J is
/// symmetric) and g = b/(b.z), b = p (p - sum p^2), for the participation ratio; J = 0 where the target is
/// not reached and on rows with +inf. Moving all logits away from their mean changes nothing: J z = 0.
/// Products are exact to a few units of the terms of A (as those of softmax) and of a g^T, each with v - v_k
/// in place of v, k the key of the largest weight. beta is solved by Newton's method on the logarithm of the
/// measure inside a bracket.
/// Special rows. See `RowStatus`.
/// Cost. One such solution, about 6 passes of `row_statistics`, for every member; no allocation.
template <class Target>
class TargetSoftmax {
public:
    static constexpr NormalizerTraits traits{.simplex = true,
                                             .shift_invariant = true,
                                             .order_preserving = true,
                                             .symmetric_jacobian = Target::symmetric};

    explicit TargetSoftmax(Target target) : target_(target) {}

    static constexpr std::string_view name() { return Target::name(); }
    const Target& target() const { return target_; }

    /// beta of a row: 0 or +inf where the target is not reached, NaN on rows that are not normal.
    template <Real T>
    Accumulator<T> row_inverse_temperature(std::span<const T> z) const {
        using A = Accumulator<T>;
        const auto row = row_statistics<T>(z);
        if (!row.normal()) return std::numeric_limits<A>::quiet_NaN();
        const auto ties = std::count(z.begin(), z.end(), static_cast<T>(row.max_logit));
        switch (target_.end(static_cast<double>(row.visible), static_cast<double>(ties))) {
        case detail::TargetEnd::flat:
            return A(0);
        case detail::TargetEnd::sharp:
            return std::numeric_limits<A>::infinity();
        default:
            break;
        }
        // Logits of this spread are neither flat nor sharp at the start; the ends are where 0 * inf could
        // arise.
        const A start = 2 * std::log(static_cast<A>(row.visible)) / row.logit_spread();
        const A least = A(std::numeric_limits<T>::min()), most = A(std::numeric_limits<T>::max());
        // The measure is known to a few units of T.
        const A precision = 8 * A(std::numeric_limits<T>::epsilon());
        return detail::solve_inverse_temperature(std::clamp(start, least, most), precision, [&](A beta) {
            return target_.template excess<T>(z, std::clamp(beta, least, most));
        });
    }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("TargetSoftmax::apply", z, out);
        const auto beta = row_inverse_temperature<T>(z);
        if (!(beta == beta)) return detail::fill_special<T>(detail::classify<T>(z), z, out);
        const T m = detail::row_max<T>(z);
        if (std::isinf(beta)) {
            const auto ties = static_cast<T>(std::count(z.begin(), z.end(), m));
            std::transform(z.begin(), z.end(), out.begin(), [&](T x) { return x == m ? 1 / ties : T(0); });
            return RowStatus::normal;
        }
        return detail::softmax_row<T>(z, m, m, std::max(static_cast<T>(beta), std::numeric_limits<T>::min()), 0,
                                      out);
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("TargetSoftmax::jvp", z, p, v, out);
        using A = Accumulator<T>;
        const Row<T> row(*this, z, p);
        const auto centre = row.centre(p, [&](std::size_t i) { return A(v[i]); });
        A moved = 0; // the gradient of beta sums to 0: from any origin
        for (std::size_t i = 0; i < p.size(); ++i)
            if (p[i] > T(0)) moved += row.gradient(z[i], p[i]) * (A(v[i]) - centre.origin);
        for (std::size_t i = 0; i < p.size(); ++i)
            out[i] = row.product(p[i], row.beta * (centre(A(v[i])) - row.centred(z[i]) * moved));
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("TargetSoftmax::vjp", z, p, w, out);
        using A = Accumulator<T>;
        const Row<T> row(*this, z, p);
        const auto centre = row.centre(p, [&](std::size_t i) { return A(w[i]); });
        A moved = 0;
        for (std::size_t i = 0; i < p.size(); ++i)
            if (p[i] > T(0)) moved += A(p[i]) * row.centred(z[i]) * (A(w[i]) - centre.origin);
        for (std::size_t i = 0; i < p.size(); ++i)
            out[i] =
                row.product(p[i], row.beta * (centre(A(w[i])) - row.gradient(z[i], p[i]) / A(p[i]) * moved));
    }

    /// log sum_i e^{beta z_i}
    template <Real T>
    T log_sum_exp(std::span<const T> z) const {
        const auto beta = row_inverse_temperature<T>(z);
        if (!(beta == beta)) return attnscope::log_sum_exp<T>(z);
        return detail::log_sum_exp_at<T>(z, static_cast<double>(beta));
    }

    static constexpr std::string_view parameter_name() { return Target::parameter_name(); }
    /// dp/d(target) = -a/(beta Var_p z) for the entropy, -a (sum p^2)^2/(2 b.z) for the participation ratio.
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("TargetSoftmax::parameter_derivative", z, p, out);
        const Row<T> row(*this, z, p);
        for (std::size_t i = 0; i < p.size(); ++i) out[i] = row.product(p[i], -row.centred(z[i]) * row.rate);
    }

private:
    /// What the products need of one row: beta, z - E_p z, g, and how fast beta falls with the target. On rows
    /// where nothing moves all of it is 0.
    template <Real T>
    struct Row {
        using A = Accumulator<T>;
        Row(const TargetSoftmax& softmax, std::span<const T> z, std::span<const T> p) {
            beta = softmax.row_inverse_temperature<T>(z);
            moves = beta > 0 && beta <= std::numeric_limits<A>::max();
            if (!moves) {
                beta = 0;
                return;
            }
            top = A(detail::row_max<T>(z));
            largest = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
            A variance = 0, slope = 0;
            for (std::size_t i = 0; i < p.size(); ++i)
                if (p[i] > T(0)) mean += A(p[i]) * (A(z[i]) - top), square += A(p[i]) * A(p[i]);
            weights = centre(p, [&](std::size_t i) { return A(p[i]); });
            for (std::size_t i = 0; i < p.size(); ++i)
                if (p[i] > T(0)) {
                    const A x = A(p[i]) * centred(z[i]);
                    variance += x * centred(z[i]);
                    slope += x * weights(A(p[i]));
                }
            const A share = Target::symmetric ? variance : slope; // a.g = 1
            moves = share > 0;
            factor = moves ? 1 / share : A(0);
            rate = Target::symmetric ? factor / beta : factor * square * square / 2;
        }
        A centred(T z) const {
            return z > -std::numeric_limits<T>::infinity() && moves ? A(z) - top - mean : A(0);
        }
        /// g_i
        A gradient(T z, T p) const { return A(p) * (Target::symmetric ? centred(z) : weights(A(p))) * factor; }
        /// Values around their mean, from the place of the largest weight.
        template <class Value>
        detail::Centre<A> centre(std::span<const T> p, Value&& value) const {
            return {p.size(), largest, [&](std::size_t i) { return A(p[i]); }, value};
        }
        /// p x where p > 0; NaN stays.
        T product(T p, A x) const { return p == T(0) ? T(0) : static_cast<T>(A(p) * (moves ? x : A(0))); }

        A beta = 0, top = 0, mean = 0, square = 0, factor = 0, rate = 0;
        detail::Centre<A> weights; ///< p - sum p^2
        std::size_t largest = detail::no_place;
        bool moves = false;
    };
    Target target_;
};

/// Softmax at the temperature that gives every row the same entropy, H nats (0 is the largest key alone).
class EntropyTargetSoftmax : public TargetSoftmax<EntropyTarget> {
public:
    /// Throws. `invalid_argument` unless the entropy is >= 0 and finite.
    explicit EntropyTargetSoftmax(double nats) : TargetSoftmax(EntropyTarget(nats)) {}
};

/// Softmax at the temperature that gives every row the same participation ratio: as concentrated as so many
/// equal keys.
class ParticipationTargetSoftmax : public TargetSoftmax<ParticipationTarget> {
public:
    /// Throws. `invalid_argument` unless the participation ratio is >= 1 and finite.
    explicit ParticipationTargetSoftmax(double keys) : TargetSoftmax(ParticipationTarget(keys)) {}
};

} // namespace v0_2
} // namespace attnscope
