// Self-adjusted softmax: weights of softmax, scaled by the logits themselves.
#pragma once

#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Softmax weights q_i of a row key by key, from the logits alone, and the place and size of its extremes.
template <Real T>
struct LogitWeightedRow {
    using A = Accumulator<T>;
    explicit LogitWeightedRow(RowIn<T> z) : status(classify<T>(z)) {
        if (status != RowStatus::normal) return;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (z[i] == -std::numeric_limits<T>::infinity()) continue;
            if (largest == none || z[i] > z[largest]) largest = i;
            if (smallest == none || z[i] < z[smallest]) smallest = i;
        }
        max = z[largest];
        min = z[smallest];
        sum = exp_sum<false, T>(z, max, T(1), nullptr);
    }
    /// q of a logit, 0 at -inf
    A weight(T z) const {
        return z == -std::numeric_limits<T>::infinity() ? A(0) : std::exp(A(z) - A(max)) / sum;
    }

    /// Values around their mean under q, from the largest key; none on rows that are not normal.
    template <class Value>
    Centre<A> centre(RowIn<T> z, Value&& value) const {
        if (status != RowStatus::normal) return {};
        return {z.size(), largest, [&](std::size_t i) { return weight(z[i]); }, value};
    }

    static constexpr std::size_t none = static_cast<std::size_t>(-1);
    RowStatus status;
    std::size_t largest = none, smallest = none; ///< the first ones
    T max = 0, min = 0;
    A sum = 1;
};

/// x as a weight: 0 below the smallest normal number.
template <Real T>
T flushed(Accumulator<T> x) {
    const T p = static_cast<T>(x);
    return std::abs(p) < std::numeric_limits<T>::min() ? T(0) : p;
}

} // namespace detail

/// Weights of softmax, scaled by where the logits lie in their range.
/// Formula. p_i = f_i q_i, q = softmax(z), f_i = (z_i - lo)/(hi - lo), lo = min(min z, 0), hi = max(max z, 0)
/// over the visible keys, the normalised form. 0 <= f <= 1, so that the weights sum to at most 1; the
/// smallest key has no weight if it is negative. lo and hi move with the first key that attains them. In
/// products the mean of v (of f w) under q is that of its distances to the largest key, so that they keep
/// their digits where that has nearly all the mass.
/// Special rows. A row whose visible logits are all equal and <= 0 has f = 0: `empty`. Nothing moves beside
/// +inf. Others: see `RowStatus`.
/// Cost. O(n) for every member, no allocation.
/// Source. arXiv:2502.18277.
class SelfAdjustedSoftmax {
public:
    static constexpr NormalizerTraits traits{.order_preserving = true, .sparse = true};

    static constexpr std::string_view name() { return "selfadjusted"; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmax::apply", z, out);
        using P = detail::Packet<T>;
        const T m = detail::row_max<T>(z);
        if (!(std::abs(m) <= std::numeric_limits<T>::max()))
            return detail::fill_special<T>(detail::classify<T>(z), z, out);
        const P zero = T(0), lowest = std::numeric_limits<T>::lowest();
        auto least = zero;
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data());
            least = min(least, select_below(x, lowest, zero, x));
        });
        const T lo = reduce_min(least), hi = std::max(m, T(0));
        const T unit = hi - lo <= std::numeric_limits<T>::max() ? T(1) : T(0.5); // the difference may overflow
        const P scale = unit, low = lo * unit, width = hi * unit - lo * unit;
        const P shift = m;
        const auto sum = detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data(), -std::numeric_limits<T>::infinity());
            const auto e = exp_nonpositive(x - shift);
            const auto share = (x * scale - low) / width;
            lane.store(out.data(), select_below(zero, e, e * share, zero));
            return e;
        });
        // Only NaN can be special, also where the logits were overwritten.
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        if (m == lo) {
            std::fill(out.begin(), out.end(), T(0));
            return RowStatus::empty;
        }
        detail::scale_weights<T>(static_cast<T>(1 / sum), out);
        return RowStatus::normal;
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmax::jvp", z, p, v, out);
        using A = Accumulator<T>;
        const detail::LogitWeightedRow<T> row(z);
        const Range<T> range(row);
        if (!range.moves()) return stand_still<T>(p, out);
        const auto centre = row.centre(z, [&](std::size_t i) { return A(v[i]); });
        const A lo = range.low_moves ? A(v[row.smallest]) : A(0),
                hi = range.high_moves ? A(v[row.largest]) : A(0);
        for (std::size_t i = 0; i < z.size(); ++i) {
            const A q = row.weight(z[i]);
            if (!(q > 0)) {
                out[i] = T(0);
                continue;
            }
            const A f = range.share(z[i]), x = A(v[i]);
            out[i] = static_cast<T>(q * (f * centre(x) + ((1 - f) * (x - lo) + f * (x - hi)) / range.width));
        }
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmax::vjp", z, p, w, out);
        using A = Accumulator<T>;
        const detail::LogitWeightedRow<T> row(z);
        const Range<T> range(row);
        if (!range.moves()) return stand_still<T>(p, out);
        const auto shared = [&](std::size_t i) { return range.share(z[i]) * A(w[i]); };
        detail::Centre<A> centre;
        centre.origin = shared(row.largest);
        // What lo and hi lose to the other keys: their own shares are 0 and 1.
        A lo = 0, hi = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (const A q = row.weight(z[i]); q > 0) {
                const A x = shared(i);
                centre.mean += q * (x - centre.origin);
                if (i != row.smallest) lo += (1 - range.share(z[i])) * q * A(w[i]);
                if (i != row.largest) hi += q * x;
            }
        for (std::size_t i = 0; i < z.size(); ++i) {
            const A q = row.weight(z[i]);
            if (!(q > 0)) {
                out[i] = T(0);
                continue;
            }
            const bool low = i == row.smallest && range.low_moves, high = i == row.largest && range.high_moves;
            const A own = low ? -lo : high ? -hi : q * A(w[i]);
            out[i] = static_cast<T>(q * centre(shared(i)) + own / range.width);
        }
    }

private:
    template <Real T>
    struct Range {
        using A = Accumulator<T>;
        explicit Range(const detail::LogitWeightedRow<T>& row)
            : low_moves(row.min < T(0)), high_moves(row.max > T(0)), lo(std::min(row.min, T(0))),
              hi(std::max(row.max, T(0))), width(2 * (A(hi) / 2 - A(lo) / 2)),
              still(row.status != RowStatus::normal || hi == lo || row.max == lo) {}
        /// f; halves, because hi - lo may overflow
        A share(T z) const { return (A(z) / 2 - A(lo) / 2) / (A(hi) / 2 - A(lo) / 2); }
        bool moves() const { return !still; }
        bool low_moves, high_moves;
        T lo, hi;
        A width;
        bool still;
    };
    /// 0, and NaN on NaN rows.
    template <Real T>
    static void stand_still(std::span<const T> p, std::span<T> out) {
        std::transform(p.begin(), p.end(), out.begin(), [](T x) { return x * T(0); });
    }
};

/// The plain form: weights may be negative and sum to anything. Statements that assume p >= 0 do not apply.
/// Formula. p = z softmax(z).
/// Special rows. A row whose visible logits are all 0 is `empty`. Others: see `RowStatus`.
/// Cost. O(n) for every member, no allocation.
/// Source. arXiv:2502.18277.
class SelfAdjustedSoftmaxPlain {
public:
    static constexpr NormalizerTraits traits{.sparse = true};

    static constexpr std::string_view name() { return "selfadjusted-plain"; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmaxPlain::apply", z, out);
        const detail::LogitWeightedRow<T> row(z);
        if (row.status != RowStatus::normal) return detail::fill_special<T>(row.status, z, out);
        std::transform(z.begin(), z.end(), out.begin(), [&](T x) {
            const auto q = row.weight(x);
            return q > 0 ? detail::flushed<T>(q * x) : T(0);
        });
        return row.max == T(0) && row.min == T(0) ? RowStatus::empty : RowStatus::normal;
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmaxPlain::jvp", z, p, v, out);
        using A = Accumulator<T>;
        const detail::LogitWeightedRow<T> row(z);
        const auto centre = row.centre(z, [&](std::size_t i) { return A(v[i]); });
        for (std::size_t i = 0; i < z.size(); ++i) {
            const A q = row.status == RowStatus::normal ? row.weight(z[i]) : A(p[i]) * 0;
            out[i] = q > 0 ? static_cast<T>(q * (A(v[i]) + A(z[i]) * centre(A(v[i])))) : static_cast<T>(q);
        }
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("SelfAdjustedSoftmaxPlain::vjp", z, p, w, out);
        using A = Accumulator<T>;
        const detail::LogitWeightedRow<T> row(z);
        const auto scaled = [&](std::size_t i) { return A(z[i]) * A(w[i]); };
        const auto centre = row.centre(z, scaled);
        for (std::size_t i = 0; i < z.size(); ++i) {
            const A q = row.status == RowStatus::normal ? row.weight(z[i]) : A(p[i]) * 0;
            out[i] = q > 0 ? static_cast<T>(q * (A(w[i]) + centre(scaled(i)))) : static_cast<T>(q);
        }
    }
};

} // namespace v0_2
} // namespace attnscope
