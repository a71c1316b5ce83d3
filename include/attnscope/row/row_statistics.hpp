// The sums from which everything about one softmax row follows: log-sum-exp, entropy, leading weights, power
// sums.
#pragma once

#include <attnscope/row/key_sums.hpp>

/// In front of a function without side effects, which compilers then call once for the same argument.
#if defined(__GNUC__)
#define ATTNSCOPE_DETAIL_PURE __attribute__((const, noinline))
#else
#define ATTNSCOPE_DETAIL_PURE
#endif

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// log(1 + r) of r >= 0, to about a unit: what the sum rounds off is put back, relative to the sum. `std::log1p` takes twice
/// the time, and counts as one that sets errno and is called for every figure anew.
template <Real A>
ATTNSCOPE_DETAIL_PURE A log_one_plus(A r) {
    const A sum = 1 + r;
    return std::log(sum) + (r - (sum - 1)) / sum;
}

} // namespace detail

/// Sums over the visible keys of a row except the one with the largest logit m (the first, if several), with
/// u_i = (m - z_i)/T >= 0. All terms are positive and none is near 1, so no figure below loses digits, however
/// sharp or flat the row is. A is the accumulator scalar: double for float rows.
///
/// On rows that are not `normal` every figure is NaN, except that an empty row has log_sum_exp -inf, and that
/// an infinite row has log_sum_exp and the maximum +inf, at its first key of +inf. A row of one visible key has entropy 0 and
/// weight 1.
template <Real A>
struct RowStatistics {
    RowStatus status = RowStatus::empty;
    double temperature = 1;
    A unit_roundoff = 0;    ///< of the scalar in which the row was read
    Index visible = 0;      ///< keys with another logit than -inf
    Index argmax = -1;      ///< first key with the largest logit, -1 if there is none
    A max_logit = nan();    ///< m
    A second_logit = nan(); ///< largest of the others, NaN when only one key is visible
    A min_logit = nan();    ///< smallest visible logit
    A r = 0;                ///< sum e^{-u}
    A t = 0;                ///< sum u e^{-u}
    A q = 0;                ///< sum e^{-2u}
    A c = 0;                ///< sum e^{-3u}
    A v = 0;                ///< sum u^2 e^{-u}
    /// Where all keys are so near each other that u^2 underflows: their spread D, and t and v with (m - z_i)/D
    /// in place of u. Else D = 0.
    A flat_spread = 0, flat_t = 0, flat_v = 0;

    bool normal() const { return status == RowStatus::normal; }

    /// log sum e^{z/T}
    A log_sum_exp() const {
        if (normal()) return max_logit / A(temperature) + detail::log_one_plus(r);
        if (status == RowStatus::empty) return -std::numeric_limits<A>::infinity();
        return status == RowStatus::infinite ? std::numeric_limits<A>::infinity() : nan();
    }
    /// H = -sum p log p in nats
    A entropy_nats() const { return figure(detail::log_one_plus(r) + t / (1 + r)); }
    /// p1
    A max_weight() const { return figure(1 / (1 + r)); }
    /// 1 - p1, to full relative accuracy
    A rest() const { return figure(r / (1 + r)); }
    /// p2, where it is too small to count in r, too; 0 when only one key is visible
    A second_weight() const {
        return figure(visible > 1 ? std::exp((second_logit - max_logit) / A(temperature)) / (1 + r) : A(0));
    }
    /// Weight of a key of the row by its logit: e^{(z - max z)/T}/(1 + r). A logit above the largest, from
    /// another arithmetic than the row's, counts as the largest, so that no weight is above p1.
    A weight_of(A logit) const {
        return figure(std::exp(std::min(A(0), (logit - max_logit) / A(temperature))) / (1 + r));
    }
    /// S2 = sum p^2
    A power_sum_2() const { return figure((1 + q) / ((1 + r) * (1 + r))); }
    /// 1 - S2, to full relative accuracy
    A one_minus_power_sum_2() const { return figure((r * (2 + r) - q) / ((1 + r) * (1 + r))); }
    /// S3 = sum p^3
    A power_sum_3() const { return figure((1 + c) / ((1 + r) * (1 + r) * (1 + r))); }
    /// 1/S2: how many equal keys would be as concentrated (the Hill number of order 2)
    A participation_ratio() const { return figure((1 + r) * (1 + r) / (1 + q)); }
    /// D = max z - min z over visible keys, before the temperature
    A logit_spread() const { return figure(max_logit - min_logit); }
    /// (z_(1) - z_(2)), before the temperature; NaN when only one key is visible
    A logit_gap() const { return figure(max_logit - second_logit); }
    /// max z - E_p z, a sum of terms >= 0
    A score_deficit() const {
        return figure(flat_spread > 0 ? flat_spread * (flat_t / (1 + r)) : A(temperature) * (t / (1 + r)));
    }
    /// E_p z
    A mean_logit() const { return max_logit - score_deficit(); }
    /// Var_p z/T^k, k = 0, 1 or 2: of the logits, -dH/dbeta, and of the exponents. Never < 0. Keys nearer to the largest than
    /// 3e-16 temperatures (float; 1e-146 for double) are at it beside others that are not. Its relative
    /// error grows like 1 + r = 1/p1 when all other keys lie equally far below the maximum: (1+r) v and t^2 <=
    /// r v then nearly cancel.
    A logit_variance(int k = 0) const {
        const A unit = A(temperature);
        if (!(flat_spread > 0)) // in squares of T
            return figure(variance(k < 2 ? unit : A(1), k < 1 ? unit : A(1), t, v));
        return figure(variance(k < 2 ? flat_spread : flat_spread / unit,
                               k < 1 ? flat_spread : flat_spread / unit, flat_t, flat_v));
    }

    /// Bound on the relative rounding error of each of the sums r, t, q and v: the terms are exact to 24 units,
    /// and `visible` of them are added in blocks of 64.
    A sum_error() const {
        const A n = static_cast<A>(visible);
        return unit_roundoff * (24 + std::min(n, A(64)) + n / 64);
    }

    /// What each of the sums r, q and c may lack: keys below the smallest normal number of the scalar in which
    /// the row was read count as 0.
    A underflow() const {
        const bool narrow = unit_roundoff > std::numeric_limits<A>::epsilon();
        return static_cast<A>(visible) *
               (narrow ? A(std::numeric_limits<float>::min()) : std::numeric_limits<A>::min());
    }

    static constexpr A nan() { return std::numeric_limits<A>::quiet_NaN(); }

private:
    A figure(A x) const { return normal() ? x : nan(); }
    /// (1+r) second - first^2 >= second, by Cauchy and Schwarz, times two units.
    A variance(A unit, A other, A first, A second) const {
        const A spare = std::max(A(0), r * second - first * first);
        return unit * (other * ((second + spare) / ((1 + r) * (1 + r))));
    }
};

namespace detail {

/// Exponents below which squares underflow in T.
template <Real T>
Accumulator<T> flat_exponent() {
    using A = Accumulator<T>;
    return std::sqrt(A(std::numeric_limits<T>::min()) / A(std::numeric_limits<T>::epsilon()));
}

/// The sums of a row whose squares of u underflow in T; all weights are 1 there.
template <Real T>
void add_flat_sums(RowIn<T> z, RowStatistics<Accumulator<T>>& row) {
    using A = Accumulator<T>;
    const A spread = row.max_logit - row.min_logit;
    const A exponents = row.temperature == 1 ? spread : spread / A(row.temperature);
    if (!(spread > 0 && exponents < flat_exponent<T>())) return;
    row.flat_spread = spread;
    for (const T x : z) {
        if (x == -std::numeric_limits<T>::infinity()) continue;
        const A share = (row.max_logit - A(x)) / spread;
        row.flat_t += share;
        row.flat_v += share * share;
    }
}

/// What is left to tell of a row whose sums are NaN, or whose largest logit is not finite.
template <Real T>
RowStatistics<Accumulator<T>> special_row_statistics(RowIn<T> z, RowStatus status, double temperature) {
    using A = Accumulator<T>;
    RowStatistics<A> row;
    row.temperature = temperature;
    row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
    row.status = status;
    for (const T x : z) row.visible += !(x == -std::numeric_limits<T>::infinity());
    if (row.status == RowStatus::infinite) {
        row.max_logit = std::numeric_limits<A>::infinity();
        row.argmax = std::find(z.begin(), z.end(), std::numeric_limits<T>::infinity()) - z.begin();
    }
    return row;
}

/// Of a row whose range and largest key are known.
template <Real T>
EIGEN_ALWAYS_INLINE RowStatistics<Accumulator<T>> row_statistics_at(RowIn<T> z, const RowPeak<T>& peak,
                                                                    double temperature) {
    using A = Accumulator<T>;
    RowStatistics<A> row; // the only one that is returned, so that it is not copied
    const T m = peak.max;
    if (std::abs(m) <= std::numeric_limits<T>::max() && peak.place < z.size()) {
        const KeySums<T> sums = key_sums<T>(z, peak, temperature);
        if (sums.r == sums.r) {
            row.status = RowStatus::normal;
            row.temperature = temperature;
            row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
            row.visible = peak.visible;
            row.argmax = static_cast<Index>(peak.place);
            // A zero has one sign, whichever of several was met.
            row.max_logit = A(m) + A(0);
            row.min_logit = A(peak.min) + A(0);
            row.second_logit = peak.visible == 1 ? RowStatistics<A>::nan() : A(sums.second) + A(0);
            row.r = sums.r;
            row.t = sums.t;
            row.q = sums.q;
            row.c = sums.c;
            row.v = sums.v;
            add_flat_sums<T>(z, row);
            return row;
        }
    }
    row = special_row_statistics<T>(z, classify<T>(z), temperature);
    return row;
}

} // namespace detail

/// Statistics of a row of logits. Those of many rows at once: `matrix_statistics`.
/// Formula. The sums of `RowStatistics`. Relative error of the entropy, of 1 - p1 and of S2: below 1e-6 for
/// float and 1e-13 for double (1.5 times that for S3), down to entropies of 1e-8 nats and beyond; keys
/// further than log(2^126) = 87 (float; 708 for double) temperatures below the maximum count as weight 0.
/// Shapes and units. z in logits before the temperature; -inf masks a key.
/// Special rows. See `RowStatistics`: the status says which, and figures are NaN.
/// Cost. O(n), two passes, no allocation.
/// Throws. `invalid_argument` unless the temperature is > 0 and finite.
template <Real T>
RowStatistics<Accumulator<T>> row_statistics(RowIn<T> z, double temperature = 1) {
    detail::checked_temperature("row_statistics", temperature);
    return detail::row_statistics_at<T>(z, detail::row_peak<T>(z), temperature);
}

/// As above from any row.
template <RowLike Z>
RowStatistics<Accumulator<RowScalar<Z>>> row_statistics(const Z& z, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return row_statistics<T>(row.get(), temperature);
}

} // namespace v0_2
} // namespace attnscope
