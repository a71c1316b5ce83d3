// Which inverse temperature gives a row a wanted concentration at a wanted length?
#pragma once

#include <attnscope/planner/growth.hpp>

#include <string_view>

namespace attnscope {
inline namespace v0_2 {

/// What is wanted of a row.
enum class Aim {
    weight,       ///< at least this weight for the best key, in (0,1)
    entropy,      ///< this entropy, nats
    participation ///< this participation ratio, keys
};

inline constexpr std::array<std::string_view, 3> aim_names = {"weight", "entropy", "participation ratio"};
/// The name of an aim.
constexpr std::string_view name_of(Aim aim) { return aim_names[static_cast<std::size_t>(aim)]; }

/// Answer for one row.
struct PlannedTemperature {
    double inverse_temperature = std::numeric_limits<double>::quiet_NaN(); ///< +inf, 0: see `reachable`
    bool reachable = false;                                 ///< does some temperature do it, beta = 0 included?
    double best = std::numeric_limits<double>::quiet_NaN(); ///< what is reached, or the limit that it comes to
};

/// Which inverse temperature gives a row the aim, after it has grown (`row_growth`).
/// Formula. beta of softmax(beta z); weight of the best key, entropy and participation ratio of a grown row
/// are monotone in beta. For a weight: the smallest beta that gives it; 0 and reachable if equal weights do.
/// Not reachable, with the limit in `best`: ties with the best key share its weight at every temperature
/// (beta = +inf); more entropy or keys than the row has (beta = 0).
/// Shapes and units. z: logits at temperature 1.
/// Special rows. Rows that are not normal, rows of one key and gaps of long double beyond 7e308 have NaN. The spread of
/// the logits may overflow; beta may then be subnormal.
/// Cost. About 25 passes of O(n), rarely more than 50; allocates one row.
/// Throws. `invalid_argument` for an aim outside its range (weight in (0,1), entropy >= 0, participation >=
/// 1).
template <Real T>
PlannedTemperature planned_temperature(RowIn<T> z, const RowGrowth& growth, Aim aim, double value) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (aim == Aim::weight)
        detail::require(value > 0 && value < 1, "planned_temperature", "weight must be in (0,1)", value);
    else if (aim == Aim::entropy)
        detail::require(value >= 0 && value < infinity, "planned_temperature",
                        "entropy must be >= 0 and finite", value);
    else
        detail::require(value >= 1 && value < infinity, "planned_temperature",
                        "participation ratio must be >= 1 and finite", value);
    PlannedTemperature answer;
    const auto row = row_statistics<T>(z);
    if (!row.normal() || row.visible < 2) return answer;
    const detail::GrownGaps grown = detail::grown_gaps(z, row, growth.shift);
    if (!std::isfinite(grown.largest)) return answer;
    const std::vector<double>& gaps = grown.gaps;
    // The figure as something that falls with beta, here in the inverse of the unit of the gaps, and what `count` keys
    // beside the best one make of it when they are level with it. For a weight w: (1-w)/w, which keeps the digits of
    // weights near 0 and 1.
    const auto at = [&](double log_beta) {
        const auto sums = detail::grown_sums(gaps, growth.copies, std::exp(log_beta));
        return aim == Aim::weight    ? sums.r
               : aim == Aim::entropy ? std::log1p(sums.r) + sums.t / (1 + sums.r)
                                     : (1 + sums.r) * (1 + sums.r) / (1 + sums.q);
    };
    const auto even = [&](double count) {
        return aim == Aim::weight ? count : aim == Aim::entropy ? std::log1p(count) : 1 + count;
    };
    const auto shown = [&](double x) { return aim == Aim::weight ? 1 / (1 + x) : x; };
    const double wanted = aim == Aim::weight ? (1 - value) / value : value;
    const double others = growth.copies * static_cast<double>(gaps.size());
    const double ties = growth.copies * static_cast<double>(std::count(gaps.begin(), gaps.end(), 0.0));
    if (wanted >= even(others)) {
        answer.inverse_temperature = 0;
        answer.reachable = aim == Aim::weight || wanted == even(others);
        answer.best = shown(even(others));
        return answer;
    }
    if (wanted <= even(ties)) {
        answer.inverse_temperature = infinity;
        answer.best = shown(even(ties));
        return answer;
    }
    // From weights that are equal to rounding to a best key that is alone. `reached` is the figure at `high`, as it was
    // found there: a compiler may round another call in another way.
    double low = std::log(1e-18) - std::log(grown.largest), high = low + 46;
    double reached = at(high);
    while (high < 700 && reached > wanted) reached = at(high += 5);
    // The line between the logarithms of both ends, of which one that stays counts half (the Illinois method), and the
    // middle where three such steps have not halved the interval.
    const auto off = [&](double figure) { return figure > 0 ? std::log(figure / wanted) : -700.0; };
    double above = off(at(low)), below = off(reached), width = high - low;
    for (int lines = 0, side = 0;;) {
        const double middle = (low + high) / 2;
        if (!(low < middle && middle < high)) break;
        double next = lines < 3 ? low + (high - low) * (above / (above - below)) : middle;
        if (!(low < next && next < high)) next = middle;
        if (const double there = at(next); there > wanted) {
            low = next;
            above = off(there);
            if (side == 1) below /= 2;
            side = 1;
        } else {
            high = next;
            reached = there;
            below = off(there);
            if (side == -1) above /= 2;
            side = -1;
        }
        lines = lines == 3 ? 0 : lines + 1;
        if (high - low <= width / 2) {
            width = high - low;
            lines = 0;
        }
    }
    answer.inverse_temperature = std::exp(high) / grown.unit;
    answer.reachable = reached <= wanted;
    answer.best = shown(reached);
    return answer;
}

/// As above from any row.
template <RowLike Z>
PlannedTemperature planned_temperature(const Z& z, const RowGrowth& growth, Aim aim, double value) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return planned_temperature<T>(row.get(), growth, aim, value);
}

} // namespace v0_2
} // namespace attnscope
