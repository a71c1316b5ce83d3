// The inverse temperature at which a row turns from spread out to concentrated.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace attnscope {
inline namespace v0_2 {

/// beta* = max_{k >= 2} log k/(z_(1) - z_(k)) over the descending logits of a row, and where the maximum lies.
template <Real A>
struct CriticalInverseTemperature {
    Interval<A> value{0, 0}; ///< both ends the same if all logits are known
    Index rank = 1;          ///< k* of the lower end
    A gap = 0;               ///< z_(1) - z_(k*) there, which is known where beta* overflows
    Index last_rank = 1;     ///< the upper end is at most log(last_rank)/last_gap
    A last_gap = 0;
};

namespace detail {

/// Is gap a/log(rank a) at most gap b/log(rank b)? Gaps near the end of the range are compared with all their
/// digits.
template <Real A>
bool critical_first(A gap_a, Index rank_a, A gap_b, Index rank_b) {
    const A scale = std::max(gap_a, gap_b) < A(1) ? 1 / std::numeric_limits<A>::epsilon() : A(1);
    return scale * gap_a * std::log(static_cast<A>(rank_b)) <= scale * gap_b * std::log(static_cast<A>(rank_a));
}

} // namespace detail

/// beta* of a row from its largest logits.
/// Formula. max_{k >= 2} log k/(z_(1) - z_(k)). Every unknown logit is at most the last known one, so that
/// beta* is at most log(visible)/(z_(1) - z_(K)) there.
/// Shapes and units. `leading`: the K largest logits, descending, at temperature 1; `visible`: how many there
/// are in all.
/// Special rows. Ties at the top make it +inf with k* their number (as far as it is known); one key gives 0,
/// no key NaN.
/// Cost. O(K), no allocation.
/// Throws. `invalid_argument` if there are more logits than visible keys, or if they ascend.
template <Real A>
CriticalInverseTemperature<A> critical_inverse_temperature(std::span<const A> leading, Index visible) {
    constexpr A infinity = std::numeric_limits<A>::infinity();
    const Index known = detail::size<A>(leading);
    detail::require(known <= visible, "critical_inverse_temperature",
                    "there cannot be more logits than visible keys", known, visible);
    CriticalInverseTemperature<A> result;
    if (known == 0) {
        result.value = {std::numeric_limits<A>::quiet_NaN(), std::numeric_limits<A>::quiet_NaN()};
        return result;
    }
    for (Index k = 2; k <= known; ++k) {
        const auto at = static_cast<std::size_t>(k - 1);
        detail::require(leading[at] <= leading[at - 1], "critical_inverse_temperature",
                        "the logits must descend", leading[at - 1], leading[at]);
        const A gap = leading[0] - leading[at];
        if (result.rank == 1 || detail::critical_first(gap, k, result.gap, result.rank)) {
            result.gap = gap;
            result.rank = k;
        }
    }
    result.last_gap = result.gap;
    result.last_rank = result.rank;
    if (known < visible) {
        const A gap = leading[0] - leading.back();
        if (result.rank == 1 || detail::critical_first(gap, visible, result.gap, result.rank)) {
            result.last_gap = gap;
            result.last_rank = visible;
        }
    }
    const auto beta = [](Index rank, A gap) {
        return rank == 1 ? A(0) : gap > A(0) ? std::log(static_cast<A>(rank)) / gap : infinity;
    };
    result.value = {beta(result.rank, result.gap), beta(result.last_rank, result.last_gap)};
    return result;
}

/// As above from any row.
template <RowLike Z>
CriticalInverseTemperature<RowScalar<Z>> critical_inverse_temperature(const Z& leading, Index visible) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(leading);
    return critical_inverse_temperature<T>(row.get(), visible);
}

namespace detail {

/// `critical_weight_bounds` from the gaps to the two ranks in temperatures.
template <Real A>
Interval<A> critical_range(const CriticalInverseTemperature<A>& critical, Index visible, A gap, A last_gap) {
    if (!(critical.value.lower == critical.value.lower)) return critical.value;
    if (visible <= 1) return {1, 1};
    // beta/beta*
    const A power = last_gap > A(0) ? last_gap / std::log(static_cast<A>(critical.last_rank)) : A(0);
    A sum = 0;
    constexpr Index terms = 64;
    for (Index k = 1; k <= std::min(visible, terms); ++k) sum += std::pow(static_cast<A>(k), -power);
    if (visible > terms) {
        // A convex function is at most its mean over the unit interval around: integrals from k - 1/2 to k +
        // 1/2.
        const A low = std::log(static_cast<A>(terms) + A(0.5)),
                high = std::log(static_cast<A>(visible) + A(0.5));
        // The integral of x^{-power}, continuous through power = 1.
        const A rate = (1 - power) * (high - low);
        sum += std::exp((1 - power) * low) * (high - low) * (rate == A(0) ? A(1) : std::expm1(rate) / rate);
    }
    // The first key counts 1, and k* - 1 others are no further than the gap below it.
    return {1 / sum, 1 / (1 + static_cast<A>(critical.rank - 1) * std::exp(-gap))};
}

} // namespace detail

/// What beta* says of the largest weight at inverse temperature beta, on both sides of beta*.
/// Formula. With k* the rank at which beta* is attained
///     1/sum_{k <= visible} k^{-beta/beta*} <= p1 <= 1/(1 + (k* - 1) k*^{-beta/beta*}).
/// The lower side is attained by gaps log k/beta*, the upper one by one key above k* - 1 equal ones with all
/// others far below. The lower side uses the upper end of beta*, the upper side its lower end and the k*
/// there, so that both hold where only the leading logits are known. The sum is bounded from above by 64
/// terms and an integral.
/// Special rows. Ties at the top (beta* = inf) leave 1/k* above; NaN for a row without keys.
/// Cost. O(1).
/// Throws. `invalid_argument` unless beta > 0.
template <Real A>
Interval<A> critical_weight_bounds(const CriticalInverseTemperature<A>& critical, Index visible, A beta = 1) {
    detail::require(beta > A(0), "critical_weight_bounds", "beta must be > 0", beta);
    const auto scaled = [&](A gap) { return gap > A(0) ? beta * gap : A(0); };
    return detail::critical_range(critical, visible, scaled(critical.gap), scaled(critical.last_gap));
}

/// What the gap to one of the leading logits leaves of the largest weight at most.
template <Real A>
struct LeadingLimit {
    A value = 1;    ///< of p1
    Index rank = 1; ///< k at which it is least
    A gap = 0;      ///< (z_(1) - z_(k))/T there
};

/// The largest weight of softmax(z/T) from above, by the least over all ranks.
/// Formula. p1 <= min_k 1/(1 + (k-1) e^{-(z_(1) - z_(k))/T}): the k - 1 keys after the first lie no further than the
/// last of them. Attained by one key above k - 1 equal ones with all others far below, for every k.
/// Shapes and units. leading: the largest logits, descending, at temperature 1, all or the first few.
/// Special rows. 1 for a row of one key or none.
/// Cost. O(leading).
/// Throws. `invalid_argument` unless T > 0.
template <Real A>
LeadingLimit<A> leading_weight_limit(std::span<const A> leading, A temperature = 1) {
    detail::require(temperature > A(0), "leading_weight_limit", "temperature must be > 0", temperature);
    LeadingLimit<A> limit;
    A most = 0;
    for (std::size_t i = 1; i < leading.size(); ++i) {
        const A gap = (leading[0] - leading[i]) / temperature, others = static_cast<A>(i) * std::exp(-gap);
        if (others > most) {
            most = others;
            limit.rank = static_cast<Index>(i + 1);
            limit.gap = gap;
        }
    }
    limit.value = 1 / (1 + most);
    return limit;
}

/// As above from any row.
template <RowLike Z>
LeadingLimit<RowScalar<Z>> leading_weight_limit(const Z& leading, RowScalar<Z> temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(leading);
    return leading_weight_limit<T>(row.get(), temperature);
}

inline constexpr Statement critical_temperature_sharp_statement{
    .id = "critical_temperature",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/sum k^{-beta/beta*} <= p1 <= min_k 1/(1+(k-1)e^{-beta(z_(1)-z_(k))}), beta* = max log "
            "k/(z_(1)-z_(k))",
    .conditions = "softmax",
    .source = "log-n scaling",
};

/// The same on a softmax row at temperature T: statement `critical_temperature`.
/// Shapes and units. `critical`: beta* of the row's logits at temperature 1; `leading`: the logits from which it is, all
/// or the first few, descending. Without them the upper side is that of k* alone.
/// Special rows. The upper side says nothing (`vacuous`) where it is rounded to 1: for one key, and far
/// beyond beta*. Undefined on rows that are not normal.
/// Cost. O(leading).
template <Real A>
BoundPair<A> critical_temperature_sharp(const RowStatistics<A>& row,
                                        const CriticalInverseTemperature<A>& critical,
                                        std::span<const std::type_identity_t<A>> leading = {}) {
    const A temperature = A(row.temperature), p1 = row.max_weight(), unit = std::numeric_limits<A>::epsilon();
    const A gap = critical.gap / temperature, last_gap = critical.last_gap / temperature;
    const A undefined = std::numeric_limits<A>::quiet_NaN();
    Interval<A> range{undefined, undefined};
    LeadingLimit<A> least{.value = 1, .rank = critical.rank, .gap = gap};
    if (row.normal()) {
        range = detail::critical_range(critical, row.visible, gap, last_gap);
        if (!leading.empty()) least = leading_weight_limit<A>(leading, temperature);
        range.upper = std::min(range.upper, least.value);
    }
    // A power k^{-x} is exact to x log k units, x = gap/log(rank) to four; terms that vanish have no say.
    const A count = static_cast<A>(std::max(row.visible, Index(1))),
            cut = -std::log(std::numeric_limits<A>::min());
    const auto error = [&](Index keys, A exponent) {
        return keys <= 1 ? unit : unit * (16 + 4 * std::min(exponent, cut));
    };
    const A farthest = last_gap > A(0) ? last_gap / std::log(static_cast<A>(critical.last_rank)) *
                                             std::log(static_cast<A>(row.visible))
                                       : A(0);
    const A own = row.sum_error() + 8 * unit;
    // 1/(1+s) moves by (1 - 1/(1+s)) of a relative error of s.
    const A error_above = 2 * unit + error(least.rank, least.gap) * (1 - range.upper);
    return {
        lower_bound<A>(critical_temperature_sharp_statement,
                       {.limit = range.lower,
                        .measured = p1,
                        .tolerance = own * p1 + (64 * unit + error(row.visible, farthest)) * range.lower,
                        .trivial = 1 / count}),
        upper_bound<A>(critical_temperature_sharp_statement, {.limit = range.upper,
                                                              .measured = p1,
                                                              .tolerance = own * p1 + error_above * range.upper,
                                                              .trivial = 1})};
}

} // namespace v0_2
} // namespace attnscope
