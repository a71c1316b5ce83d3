// Softpick: rectified softmax that may give no weight to any key.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Rectified softmax that may give no weight to any key.
/// Formula. p_i = max(e^{z_i} - 1, 0)/(sum_j |e^{z_j} - 1| + eps) over the visible keys. Keys with z <= 0
/// have weight 0; the weights sum to at most 1. With h_j = sign(z_j) e^{z_j}/denominator: J = diag(max(h, 0))
/// - p h^T, taken as 0 in a key's own term at z = 0; entries of products are exact to a few units of each of
/// these terms, with 1 - p in place of their difference for a key of weight above 1/2. Evaluated without
/// cancellation near z = 0 and shifted by max(0, max z), eps too.
/// Special rows. A row without a positive logit is `empty`. Others: see `RowStatus`.
/// Cost. O(n) for every member, no allocation.
/// Source. arXiv:2504.20966.
class Softpick {
public:
    static constexpr NormalizerTraits traits{.order_preserving = true, .sparse = true};

    /// Throws. `invalid_argument` unless eps is >= 0 and finite.
    explicit Softpick(double eps = 1e-8) : eps_(detail::checked_scale("Softpick", "eps", eps)) {}

    static constexpr std::string_view name() { return "softpick"; }
    double eps() const { return eps_; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::apply", z, out);
        const T m = detail::row_max<T>(z);
        if (!(m <= std::numeric_limits<T>::max()))
            return detail::fill_special<T>(detail::classify<T>(z), z, out);
        return m <= T(64) ? divide<T>(Plain<T>(), m, z, out) : divide<T>(Shifted<T>(m), m, z, out);
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::jvp", z, p, v, out);
        using P = detail::Packet<T>;
        const Slope<T> h(*this, z, p);
        if (!h.moves()) return std::fill(out.begin(), out.end(), T(0));
        const Index n = detail::size<T>(z);
        const P zero = T(0), lowest = std::numeric_limits<T>::lowest();
        const auto term = [&](const auto& lane, std::size_t first) {
            const auto x = lane(z.data() + first, -std::numeric_limits<T>::infinity());
            return select_below(x, lowest, zero, h(x) * lane(v.data() + first));
        };
        const std::size_t top = detail::place_above_half<T>(p);
        const bool concentrated = top < z.size();
        Accumulator<T> others = 0, own = 0;
        if (concentrated) {
            others = detail::sum_of_others<T>(n, top, term);
            own = Accumulator<T>(h.at(z[top])) * Accumulator<T>(v[top]);
        } else {
            others = detail::sum_lanes<T>(n, [&](const auto& lane) { return term(lane, 0); });
        }
        const P moved = static_cast<T>(own + others);
        detail::for_each_lane<T>(n, [&](const auto& lane) {
            const auto direct = select_below(zero, lane(z.data()), term(lane, 0), zero);
            lane.store(out.data(), direct - lane(p.data()) * moved);
        });
        if (concentrated) out[top] = static_cast<T>(own * rest<T>(z, top) - Accumulator<T>(p[top]) * others);
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("Softpick::vjp", z, p, w, out);
        using P = detail::Packet<T>;
        const Slope<T> h(*this, z, p);
        if (!h.moves()) return std::fill(out.begin(), out.end(), T(0));
        const Index n = detail::size<T>(z);
        const P zero = T(0);
        const auto term = [&](const auto& lane, std::size_t first) {
            const auto weight = lane(p.data() + first, T(0)), product = weight * lane(w.data() + first);
            return select_below(zero, weight, product, weight * zero); // NaN stays
        };
        const std::size_t top = detail::place_above_half<T>(p);
        const bool concentrated = top < z.size();
        Accumulator<T> others = 0, own = 0;
        if (concentrated) {
            others = detail::sum_of_others<T>(n, top, term);
            own = Accumulator<T>(w[top]);
        } else {
            others = detail::sum_lanes<T>(n, [&](const auto& lane) { return term(lane, 0); });
        }
        const P mean = static_cast<T>(concentrated ? Accumulator<T>(p[top]) * own + others : others);
        detail::for_each_lane<T>(n, [&](const auto& lane) {
            const auto x = lane(z.data());
            lane.store(out.data(), h(x) * (select_below(zero, x, lane(w.data()), zero) - mean));
        });
        if (concentrated)
            out[top] = static_cast<T>(Accumulator<T>(h.at(z[top])) * (own * rest<T>(z, top) - others));
    }

private:
    /// (e^z - 1) unit, 0 at masked keys, for rows of ordinary size: unit = 1.
    template <Real T>
    struct Plain {
        using P = detail::Packet<T>;
        P operator()(P z) const { return select_below(z, std::numeric_limits<T>::lowest(), T(0), expm1(z)); }
        T unit = 1;
    };
    /// The same for any finite m = max z >= 0: unit = e^{-m}.
    template <Real T>
    struct Shifted {
        using P = detail::Packet<T>;
        explicit Shifted(T m) : shift(m), unit(std::exp(-m)), unit_packet(unit) {}
        P operator()(P z) const {
            const P zero = T(0), lowest = std::numeric_limits<T>::lowest();
            // For z >= 0 it is e^{z-m} (1 - e^{-z}), else e^{-m} (e^z - 1): one expm1 of -|z| for both.
            const P e = expm1(zero - abs(z));
            const P grown = exp_nonpositive(z - shift);
            return select_below(z, lowest, zero, select_below(z, zero, unit_packet * e, grown * (zero - e)));
        }
        P shift;
        T unit;
        P unit_packet;
    };

    /// 1 - p of the largest key from the other terms; rows of finite logits.
    template <Real T>
    Accumulator<T> rest(std::span<const T> z, std::size_t largest) const {
        const auto share = [&](const auto& f) {
            using P = detail::Packet<T>;
            const auto own = Accumulator<T>(reduce_max(f(P(z[largest]))));
            const auto others =
                eps_ * Accumulator<T>(f.unit) +
                detail::sum_of_others<T>(detail::size<T>(z), largest, [&](const auto& lane, std::size_t first) {
                    return abs(f(lane(z.data() + first, -std::numeric_limits<T>::infinity())));
                });
            return others / (own + others);
        };
        return z[largest] <= T(64) ? share(Plain<T>()) : share(Shifted<T>(z[largest]));
    }

    template <Real T, class F>
    RowStatus divide(const F& f, T m, std::span<const T> z, std::span<T> out) const {
        using P = detail::Packet<T>;
        const P zero = T(0);
        const auto sum = detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto value = f(lane(z.data(), -std::numeric_limits<T>::infinity()));
            lane.store(out.data(), max(value, zero));
            return abs(value);
        });
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        if (!(m > T(0))) return RowStatus::empty;
        const T inverse = static_cast<T>(1 / (sum + eps_ * Accumulator<T>(f.unit)));
        if (!(inverse <= std::numeric_limits<T>::max())) { // logits of subnormal size without eps
            for (T& x : out) x = static_cast<T>(Accumulator<T>(x) / sum);
            return RowStatus::normal;
        }
        detail::scale_weights<T>(inverse, out);
        return RowStatus::normal;
    }

    /// h(z) = sign(z) e^z/(sum |e^z - 1| + eps), NaN on NaN rows; rows of no weight and of infinite logits do
    /// not move.
    template <Real T>
    class Slope {
        using P = detail::Packet<T>;

    public:
        Slope(const Softpick& softpick, std::span<const T> z, std::span<const T> p) {
            const T m = detail::row_max<T>(z);
            const auto sum = [&](const auto& f) {
                return softpick.eps_ * Accumulator<T>(f.unit) +
                       detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
                           return abs(f(lane(z.data(), -std::numeric_limits<T>::infinity())));
                       });
            };
            T factor = 0;
            if (std::any_of(p.begin(), p.end(), [](T x) { return x != x; })) {
                factor = std::numeric_limits<T>::quiet_NaN();
            } else if (m > T(0) && m <= std::numeric_limits<T>::max()) {
                using A = Accumulator<T>;
                factor = static_cast<T>(m <= T(64) ? std::exp(A(m)) / sum(Plain<T>()) : 1 / sum(Shifted<T>(m)));
                shift_ = m;
            }
            moves_ = factor != T(0);
            factor_ = factor;
        }
        bool moves() const { return moves_; }
        T at(T z) const { return reduce_max((*this)(P(z))); }
        P operator()(P z) const {
            const P zero = T(0);
            const P size = exp_nonpositive(z - shift_) * factor_;
            return select_below(z, zero, zero - size, select_below(zero, z, size, zero));
        }

    private:
        P shift_ = T(0), factor_;
        bool moves_;
    };
    double eps_;
};

} // namespace v0_2
} // namespace attnscope
