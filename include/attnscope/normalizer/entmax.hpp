// Sparse normalisers between softmax and the corners of the simplex: alpha-entmax for every alpha >= 1,
// sparsemax.
#pragma once

#include <attnscope/normalizer/entmax_solver.hpp>

namespace attnscope {
inline namespace v0_2 {

/// alpha-entmax; softmax at alpha = 1, to which it is continuous, sparsemax at alpha = 2.
/// Formula. p_i = [1 + (alpha-1)(z_i - theta)]_+^{1/(alpha-1)} with theta such that sum p = 1. Keys
/// 1/(alpha-1) below the largest logit have no weight. J = diag(s) - s s^T/sum s, s_i = p_i^{2-alpha} where
/// p_i > 0, else 0; an entry of J v is exact to a few units of s_i (|v_i - v_k| + sum_j s_j |v_j - v_k|/sum
/// s) with k the key of the largest s where that is above half of the sum, else any. Error: the largest logit
/// is subtracted first, so a weight feels u |z_i - max z| as if its logit had moved by as much. For alpha >=
/// 2 the smallest logit that has weight is subtracted instead, so that each weight is as exact as the mass it
/// is given, and what is missing from 1 belongs to the keys at the edge of the support: the sum is 1 to
/// rounding for every alpha. `threshold` states what is left of sum p - 1. Weights below the smallest normal
/// number are 0.
/// Special rows. See `RowStatus`.
/// Cost. O(n) for every member: each step of the solver looks only at the keys that may have weight; no
/// allocation.
/// Source. arXiv:1905.05702; sparsemax: arXiv:1602.02068.
class Entmax {
public:
    static constexpr NormalizerTraits traits{.simplex = true,
                                             .shift_invariant = true,
                                             .order_preserving = true,
                                             .symmetric_jacobian = true,
                                             .sparse = true,
                                             .derivative_from_weights = true};

    /// Throws. `invalid_argument` unless alpha is >= 1 and finite.
    explicit Entmax(double alpha = 1.5) : alpha_(alpha) {
        detail::require(alpha >= 1 && std::isfinite(alpha), "Entmax", "alpha must be >= 1 and finite", alpha);
    }

    static constexpr std::string_view name() { return "entmax"; }
    double alpha() const { return alpha_; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("Entmax::apply", z, out);
        if (alpha_ == 1) return Softmax().apply<T>(z, out);
        const auto [m, trouble] = detail::checked_row_max<T>(z);
        if (trouble || !(std::abs(m) <= std::numeric_limits<T>::max()))
            return detail::fill_special<T>(detail::classify<T>(z), z, out);
        solved<T>(z, m, [&](const auto& solver) { solver.write(z, out); });
        return RowStatus::normal;
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("Entmax::jvp", z, p, v, out);
        using P = detail::Packet<T>;
        const Index n = detail::size<T>(p);
        const P zero = T(0);
        auto high = zero;
        auto sums = detail::sum_lanes<T, 2>(n, [&](const auto& lane) {
            const auto s = slope<T>(lane(p.data()));
            high = max(s, high);
            return detail::Packets<T, 2>{{s, s * lane(v.data())}};
        });
        T mean = sums[0] == 0 ? T(0) : static_cast<T>(sums[1] / sums[0]);
        if (sums[0] > 0 && Accumulator<T>(reduce_max(high)) <= sums[0] / 2 && std::isfinite(mean)) {
            detail::for_each_lane<T>(n, [&](const auto& lane) {
                const auto distance = lane(v.data()) - mean;
                lane.store(out.data(), slope<T>(lane(p.data())) * distance);
            });
            return;
        }
        // From the place of the largest slope, as `detail::centred_row` does, over the support.
        const P origin = sums[0] > 0 ? v[steepest<T>(p)] : T(0);
        const auto distance = [&](const auto& lane, const auto& s) {
            return select_below(zero, s, lane(v.data()) - origin, zero);
        };
        const auto moved = detail::sum_lanes<T>(n, [&](const auto& lane) {
            const auto s = slope<T>(lane(p.data()));
            return s * distance(lane, s);
        });
        mean = sums[0] == 0 ? T(0) : static_cast<T>(moved / sums[0]);
        detail::for_each_lane<T>(n, [&](const auto& lane) {
            const auto s = slope<T>(lane(p.data()));
            const auto x = s * (distance(lane, s) - mean);
            lane.store(out.data(), select_below(zero, s, x, s * zero));
        });
    }
    /// J is symmetric: the same as `jvp`.
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("Entmax::vjp", z, p, w, out);
        jvp<T>(z, p, w, out);
    }

    /// theta, support and residual of a row; NaN and no support on rows that are not normal.
    template <Real T>
    EntmaxThreshold<Accumulator<T>> threshold(std::span<const T> z) const {
        using A = Accumulator<T>;
        EntmaxThreshold<A> result;
        const auto [m, trouble] = detail::checked_row_max<T>(z);
        if (trouble || !(std::abs(m) <= std::numeric_limits<T>::max())) return result;
        if (alpha_ == 1) {
            result.theta = std::log(detail::exp_sum<false, T>(z, m, T(1), nullptr));
            result.residual = 0;
            result.steps = 1;
            result.support = detail::count_visible<T>(z);
            return result;
        }
        solved<T>(z, m, [&](const auto& solver) { result = solver.threshold(z); });
        return result;
    }

    /// Writes s_i = p_i^{2-alpha} where p_i > 0, else 0, so that J = diag(s) - s s^T/sum s. `out` may be `p`.
    template <Real T>
    void slopes(std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("Entmax::slopes", p, out);
        detail::for_each_lane<T>(detail::size<T>(p),
                                 [&](const auto& lane) { lane.store(out.data(), slope<T>(lane(p.data()))); });
    }

    static constexpr std::string_view parameter_name() { return "alpha"; }
    /// dp/d(alpha). With a = alpha-1, l = log p, H = -sum p l, phi = (e^{-al} - 1 + al)/a^2 (l^2/2 at a = 0)
    /// and Phi = sum p phi: p [(1 - al) Phi - phi (1 + aH)]/(1 + aH + a^2 Phi), without cancellation at alpha
    /// = 1.
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("Entmax::parameter_derivative", z, p, out);
        using A = Accumulator<T>;
        const A a = static_cast<A>(alpha_ - 1);
        A entropy = 0, mean = 0;
        for (const T x : p) {
            if (x == T(0)) continue;
            const A l = std::log(A(x));
            entropy -= A(x) * l;
            mean += A(x) * curvature(a, l);
        }
        const A total = 1 + a * entropy + a * a * mean;
        for (std::size_t i = 0; i < p.size(); ++i) {
            if (p[i] == T(0)) {
                out[i] = T(0);
                continue;
            }
            const A x = A(p[i]), l = std::log(x);
            out[i] = static_cast<T>(x * (((1 - a * l) * mean - curvature(a, l) * (1 + a * entropy)) / total));
        }
    }

private:
    /// Calls use(solver) for the row.
    template <Real T, class Use>
    void solved(std::span<const T> z, T m, Use&& use) const {
        using namespace detail;
        using A = Accumulator<T>;
        const A a = static_cast<A>(alpha_ - 1);
        if (alpha_ == 2)
            use(EntmaxSolver<T, T, LinearTerms<T>, WeightPower<A>>({}, WeightPower<A>(a), z, m));
        else if (alpha_ == 1.5)
            use(EntmaxSolver<T, T, SquareTerms<T>, WeightPower<A>>({}, WeightPower<A>(a), z, m));
        else if (alpha_ == 3)
            use(EntmaxSolver<T, A, RootTerms<A>, WeightPower<A>>({}, WeightPower<A>(a), z, m));
        else if (alpha_ < 1.5)
            use(EntmaxSolver<T, T, PowerTerms<T>, LogWeight<A>>(PowerTerms<T>(a), LogWeight<A>(a), z, m));
        else // a key at the edge of the support feels every rounding, the more the larger alpha; few have
             // weight
            use(EntmaxSolver<T, A, PowerTerms<A>, WeightPower<A>>(PowerTerms<A>(a), WeightPower<A>(a), z, m));
    }

    /// Place of the largest slope of a row that has one: of the largest weight, of the smallest above alpha
    /// = 2.
    template <Real T>
    std::size_t steepest(std::span<const T> p) const {
        std::size_t place = 0;
        for (std::size_t i = 1; i < p.size(); ++i)
            if (p[i] > T(0) && (!(p[place] > T(0)) || (alpha_ > 2 ? p[i] < p[place] : p[i] > p[place])))
                place = i;
        return place;
    }

    /// p^{2-alpha}, 0 at 0, NaN at NaN.
    template <Real T>
    detail::Packet<T> slope(detail::Packet<T> p) const {
        using P = detail::Packet<T>;
        const P zero = T(0), one = T(1), smallest = std::numeric_limits<T>::min();
        const auto keeping_nan = [&](auto s) { // p - p keeps NaN
            return select_below(p, smallest, zero, s + (p - p));
        };
        if (alpha_ == 1) return keeping_nan(p);
        if (alpha_ == 2) return keeping_nan(one);
        if (alpha_ == 1.5) return keeping_nan(sqrt(p));
        const T exponent = static_cast<T>(std::abs(2 - alpha_));
        const auto power = exp_nonpositive(exponent * min(zero, log(select_below(p, smallest, one, p))));
        if (alpha_ < 2) return keeping_nan(power);
        // Powers that underflow are kept where neither the slope nor, in the accumulator, the sum of slopes
        // overflows.
        constexpr T least = std::same_as<T, Accumulator<T>>
                                ? std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon()
                                : std::numeric_limits<T>::min();
        return keeping_nan(one / max(power, least));
    }

    /// (e^{-al} - 1 + al)/a^2 for l <= 0, l^2/2 at a = 0.
    template <class A>
    static A curvature(A a, A l) {
        const A y = -a * l;
        if (y >= A(0.5)) return (std::expm1(y) - y) / (a * a);
        A series = 1; // 2 (e^y - 1 - y)/y^2 = 1 + y/3 (1 + y/4 (1 + ...))
        for (int k = 24; k >= 3; --k) series = 1 + series * y / static_cast<A>(k);
        return l * l / 2 * series;
    }
    double alpha_;
};

/// Sparsemax: the point of the simplex nearest to z, `Entmax(2)`.
/// Formula. p_i = max(z_i - tau, 0) with tau such that sum p = 1.
/// Source. arXiv:1602.02068.
class Sparsemax : public Entmax {
public:
    Sparsemax() : Entmax(2) {}
    static constexpr std::string_view name() { return "sparsemax"; }
};

} // namespace v0_2
} // namespace attnscope
