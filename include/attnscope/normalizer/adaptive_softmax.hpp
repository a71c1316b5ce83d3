// Softmax that sharpens itself when its entropy is high.
#pragma once

#include <attnscope/normalizer/concept.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Softmax that sharpens itself when its entropy is high.
/// Formula. p = softmax(beta z), beta = max(1, c(H)) if the entropy H of softmax(z) exceeds 0.5 nats, else 1,
/// with the fitted quartic c: -0.037 H^4 + 0.481 H^3 - 2.3 H^2 + 4.917 H - 1.791. c falls below 1 again at H
/// > 5.945: nearly equal weights over more than about 382 keys are left as they are. J = beta A + a g^T, A =
/// diag p - p p^T, a = p (z - E_p z), g = d beta/dz = c'(H) dH/dz, where dH/dz_i = -q_i (log q_i + H) for q =
/// softmax(z); g = 0 where beta = 1. Not symmetric. The part of A is as exact as the products of softmax, the
/// other to a few units of |a_i| sum_j |g_j| |v_j - v_k|, of J^T w with a and g exchanged, k as there.
/// Special rows. See `RowStatus`.
/// Cost. Two softmaxes and one row of statistics for every member, no allocation.
/// Source. arXiv:2410.01104.
class AdaptiveSoftmax {
public:
    static constexpr NormalizerTraits traits{
        .simplex = true, .shift_invariant = true, .order_preserving = true};

    static constexpr std::string_view name() { return "adaptive"; }

    /// beta for an entropy in nats.
    static double inverse_temperature(double entropy) {
        if (!(entropy > 0.5)) return 1;
        return std::max(1.0,
                        (((-0.037 * entropy + 0.481) * entropy - 2.3) * entropy + 4.917) * entropy - 1.791);
    }
    /// d beta/dH; 0 where beta is 1.
    static double slope(double entropy) {
        if (!(inverse_temperature(entropy) > 1)) return 0;
        return ((4 * -0.037 * entropy + 3 * 0.481) * entropy - 2 * 2.3) * entropy + 4.917;
    }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("AdaptiveSoftmax::apply", z, out);
        const auto row = row_statistics<T>(z);
        if (!row.normal()) return detail::fill_special<T>(row.status, z, out);
        const T m = static_cast<T>(row.max_logit);
        return detail::softmax_row<T>(z, m, m, beta<T>(row), 0, out);
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("AdaptiveSoftmax::jvp", z, p, v, out);
        using P = detail::Packet<T>;
        const Row<T> row(z, p);
        const auto centre = detail::centred_row<T>(p, v);
        // The gradient of beta sums to 0: from any origin.
        const P moved = row.sum(z, v, centre.origin, [&](const auto& lane) { return row.gradient(lane, z); });
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto weight = lane(p.data());
            const auto shift = weight * row.centred(lane, z, weight) * moved;
            lane.store(out.data(), madd(row.beta, centre.times(weight, lane(v.data())), shift));
        });
    }

    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("AdaptiveSoftmax::vjp", z, p, w, out);
        using P = detail::Packet<T>;
        const Row<T> row(z, p);
        const auto centre = detail::centred_row<T>(p, w);
        const P moved = row.sum(z, w, centre.origin, [&](const auto& lane) {
            const auto weight = lane(p.data());
            return weight * row.centred(lane, z, weight);
        });
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto direct = centre.times(lane(p.data()), lane(w.data())) * row.beta;
            lane.store(out.data(), madd(row.gradient(lane, z), moved, direct));
        });
    }

    /// log sum_i e^{beta z_i}
    template <Real T>
    T log_sum_exp(std::span<const T> z) const {
        const auto row = row_statistics<T>(z);
        return attnscope::log_sum_exp<T>(
            z, row.normal() ? 1 / inverse_temperature(static_cast<double>(row.entropy_nats())) : 1);
    }

private:
    template <Real T>
    static T beta(const RowStatistics<Accumulator<T>>& row) {
        return static_cast<T>(inverse_temperature(static_cast<double>(row.entropy_nats())));
    }

    /// What the products need of one row.
    template <Real T>
    struct Row {
        using P = detail::Packet<T>;
        Row(std::span<const T> z, std::span<const T> p) {
            const auto row = row_statistics<T>(z);
            beta = row.normal() ? AdaptiveSoftmax::beta<T>(row) : T(1);
            top = static_cast<T>(row.normal() ? row.max_logit : 0);
            const double entropy = row.normal() ? static_cast<double>(row.entropy_nats()) : 0.0;
            slope = static_cast<T>(-AdaptiveSoftmax::slope(entropy));
            moves = row.normal() && AdaptiveSoftmax::slope(entropy) != 0;
            // log q = (z - max z) - log1p(r)
            offset = static_cast<T>(row.normal() ? row.t / (1 + row.r) : 0);
            share = static_cast<T>(row.normal() ? 1 / (1 + row.r) : 0);
            mean = T(0);
            mean = static_cast<T>(detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
                return lane(p.data()) * centred(lane, z, lane(p.data()));
            }));
        }
        /// z - E_p z where p > 0, else 0.
        template <class Lane>
        P centred(const Lane& lane, std::span<const T> z, P weight) const {
            const P zero = T(0);
            if (!moves) return zero; // not needed, and +inf - +inf on rows with +inf
            return select_below(zero, weight, (lane(z.data(), T(0)) - top) - mean, zero);
        }
        /// d beta/dz = -c' q (log q + H), log q + H = (z - max z) + t/(1+r).
        template <class Lane>
        P gradient(const Lane& lane, std::span<const T> z) const {
            const P zero = T(0);
            if (!moves) return zero;
            const P distance = lane(z.data(), -std::numeric_limits<T>::infinity()) - top;
            const P q = share * exp_nonpositive(distance);
            return select_below(zero, q, slope * q * (distance + offset), zero);
        }
        /// sum a_i (v_i - origin) over the keys where a is not 0; 0 where beta does not move.
        template <class Terms>
        T sum(std::span<const T> z, std::span<const T> v, T origin, Terms&& a) const {
            if (!moves) return T(0);
            const P zero = T(0), centre = origin;
            return static_cast<T>(detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
                const P term = a(lane), product = term * (lane(v.data()) - centre);
                return select_below(zero, abs(term), product, zero);
            }));
        }
        P beta, top, slope, offset, share, mean;
        bool moves;
    };
};

} // namespace v0_2
} // namespace attnscope
