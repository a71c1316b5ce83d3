// On which side of the log-n transition a row is: one key against the mean gap to all others.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace attnscope {
inline namespace v0_2 {

/// The gaps of a softmax row from its largest logit to the others, in units of the temperature.
template <Real A>
struct LogNPhase {
    Index others = 0; ///< visible keys but the largest
    A nearest = 0;    ///< (z_(1) - z_(2))/T
    A mean = 0;       ///< of (z_(1) - z_(i))/T over the others
    A farthest = 0;   ///< D/T
    A near_share = 1; ///< (farthest - mean)/(farthest - nearest)
    A far_share = 0;  ///< (mean - nearest)/(farthest - nearest)

    /// gamma/gamma_c: the mean gap in units of log(others); p1 <= 1/2 where it is <= 1. NaN for fewer than two others.
    A phase() const { return in_logs(mean); }
    /// The same of the nearest gap: p1 >= 1/2 where it is >= 1.
    A nearest_phase() const { return in_logs(nearest); }

private:
    A in_logs(A gap) const {
        return others < 2 ? std::numeric_limits<A>::quiet_NaN() : gap / std::log(static_cast<A>(others));
    }
};

/// Gaps of a row.
/// Shapes and units. descending: the visible logits at temperature 1, largest first.
/// Special rows. Without others all gaps are 0.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` unless temperature > 0.
template <Real A>
LogNPhase<A> log_n_phase(std::span<const A> descending, std::type_identity_t<A> temperature = 1) {
    detail::require(temperature > A(0), "log_n_phase", "temperature must be > 0", temperature);
    LogNPhase<A> row;
    if (descending.size() < 2) return row;
    const A first = descending[0], second = descending[1], last = descending.back();
    row.others = detail::size<A>(descending) - 1;
    A below = 0, above = 0; // sums of z_(2) - z_(i) and of z_(i) - min z
    for (const A z : descending.subspan(1)) {
        below += second - z;
        above += z - last;
    }
    const A count = static_cast<A>(row.others), width = (second - last) * count;
    row.nearest = (first - second) / temperature;
    row.mean = row.nearest + below / temperature / count; // in this order: gaps may be subnormal
    row.farthest = (first - last) / temperature;
    // Two sums of terms >= 0: neither share is a difference. Sums beyond the range of the scalar leave the nearest gap.
    if (width > A(0) && std::isfinite(width) && std::isfinite(below) && std::isfinite(above)) {
        row.near_share = std::min(A(1), above / width);
        row.far_share = std::min(A(1), below / width);
    }
    return row;
}

/// Limits of the largest weight from the nearest, the mean and the farthest gap.
/// Formula. With m others, gaps g_2 <= gbar <= d in temperatures and c = (d - gbar)/(d - g_2)
///     1/(1 + m (c e^{-g_2} + (1-c) e^{-d})) <= p1 <= 1/(1 + m e^{-gbar}).
/// In units x = g/log m the powers are m^{1-x}: at x = 1 the upper side is 1/2, and beyond it goes to 1 with m.
/// Cost. O(1).
template <Real A>
Interval<A> log_n_phase_range(const LogNPhase<A>& row) {
    const A count = static_cast<A>(row.others);
    const A most = count * (row.near_share * std::exp(-row.nearest) + row.far_share * std::exp(-row.farthest));
    return {1 / (1 + most), 1 / (1 + count * std::exp(-row.mean))};
}

inline constexpr Statement log_n_phase_statement{
    .id = "log_n_phase",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+m(c e^{-g2}+(1-c)e^{-d})) <= p1 <= 1/(1+m e^{-gbar}), m = n-1, c = (d-gbar)/(d-g2)",
    .conditions = "softmax; g2, gbar, d: least, mean and largest of (z_(1)-z_i)/T over the others",
    .source = "row form of arXiv:2510.05554",
};

/// Bounds "log_n_phase": p1 against `log_n_phase_range` of the row's own gaps.
/// Shapes and units. descending: the visible logits behind `row`, largest first, at temperature 1.
/// Special rows. Undefined on rows that are not normal. Sides that are no better than 1/n or 1 are `vacuous`.
/// Cost. O(n).
/// Source. arXiv:2510.05554 has tokens at equal angles, where both sides are p1.
template <Real A>
BoundPair<A> log_n_phase_sharp(const RowStatistics<A>& row,
                               std::span<const std::type_identity_t<A>> descending) {
    const A p1 = row.max_weight(), unit = std::numeric_limits<A>::epsilon();
    BoundPair<A> pair{lower_bound<A>(log_n_phase_statement, {.measured = p1}),
                      upper_bound<A>(log_n_phase_statement, {.measured = p1})};
    if (!row.normal()) return pair;
    const LogNPhase<A> phase = log_n_phase<A>(descending, A(row.temperature));
    const Interval<A> range = log_n_phase_range(phase);
    pair[0].value = range.lower;
    pair[0].trivial = 1 / static_cast<A>(row.visible);
    pair[1].value = range.upper;
    pair[1].trivial = 1;
    // Sums of n terms, and exponents that are exact to a few units of their own size; beyond the logarithm of the
    // smallest number they have no say. 1/(1+s) moves by (1 - 1/(1+s)) of a relative error of s.
    const A cut = -std::log(std::numeric_limits<A>::min()), count = static_cast<A>(row.visible);
    const auto error = [&](A exponent) { return unit * (count + 16 + 4 * std::min(exponent, cut)); };
    const A mean_error = unit * (16 + (count + 4) * std::min(phase.mean, cut));
    pair[0].tolerance = (row.sum_error() + 2 * unit) * p1 +
                        (2 * unit + error(phase.farthest) * (1 - range.lower)) * range.lower;
    pair[1].tolerance =
        (row.sum_error() + 2 * unit) * p1 + (2 * unit + mean_error * (1 - range.upper)) * range.upper;
    return pair;
}

/// One layer of softmax attention on tokens of length 1 whose inner products are all the same, queries, keys and values
/// being the tokens themselves.
struct SimplexAttention {
    double own_weight = 1;   ///< of every token on itself
    double other_weight = 0; ///< on each of the others
    double cosine = 1;       ///< of any two outputs
    double length = 1;       ///< of every output
};

/// What becomes of such tokens, exactly.
/// Formula. With b = n^{-gamma (1-rho)}: own weight 1/(1 + (n-1) b), the others b times that. The weights are
/// A = (1-s) 1 1^T/n + s I, s = (1-b)/(1+(n-1)b), so that outputs have |o|^2 = rho + (1-rho)(s^2 + (1-s^2)/n) and
/// inner products rho + (1-rho)(1-s^2)/n. As n grows the cosine goes to 1 for gamma < 1/(1-rho), to rho for gamma
/// above; at the critical gamma s goes to 1/2.
/// Shapes and units. n: tokens; cosine: rho of any two; gamma = beta/log n.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1, -1/(n-1) <= rho <= 1 and gamma >= 0.
/// Source. arXiv:2510.05554, its simplex of tokens and gamma_c = 1/(1-rho), as summaries give them.
inline SimplexAttention simplex_attention(double n, double cosine, double gamma) {
    detail::require(n >= 1, "simplex_attention", "n must be >= 1", n);
    detail::require(cosine <= 1 && (n == 1 || cosine * (n - 1) >= -1 - 1e-12), "simplex_attention",
                    "the cosine must be in [-1/(n-1), 1]", cosine, n);
    detail::require(gamma >= 0, "simplex_attention", "gamma must be >= 0", gamma);
    const double exponent = gamma * (1 - cosine) * std::log(n), b = std::exp(-exponent),
                 total = 1 + (n - 1) * b;
    SimplexAttention result{.own_weight = 1 / total, .other_weight = b / total};
    const double s = -std::expm1(-exponent) / total, kept = (1 - cosine) * s * s;
    const double common = cosine + (1 - cosine) * (1 - s * s) / n, square = std::max(0.0, common + kept);
    result.length = std::sqrt(square);
    result.cosine = square > 0 ? common / square : 1;
    return result;
}

} // namespace v0_2
} // namespace attnscope
