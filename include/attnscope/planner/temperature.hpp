// Which inverse temperature gives a row a wanted concentration at a wanted length?
#pragma once

#include <attnscope/planner/growth.hpp>

#include <string_view>

namespace attnscope {
inline namespace v0_1 {

/// What is wanted of a row.
enum class Aim {
    weight,       ///< at least this weight for the best key, in (0,1)
    entropy,      ///< this entropy, nats
    participation ///< this participation ratio, keys
};

inline constexpr std::array<std::string_view, 3> aim_names = {"weight", "entropy", "participation ratio"};
constexpr std::string_view name_of(Aim aim) { return aim_names[static_cast<std::size_t>(aim)]; }

/// Answer for one row.
struct PlannedTemperature {
    double inverse_temperature = std::numeric_limits<double>::quiet_NaN(); ///< +inf, 0: see `reachable`
    bool reachable = false;                                 ///< does some temperature in (0, inf) do it?
    double best = std::numeric_limits<double>::quiet_NaN(); ///< what is reached, or the limit that it comes to
};

/// beta of softmax(beta z) for the aim, for a row of logits at temperature 1 that has grown (`row_growth`):
/// weight of the best key, entropy and participation ratio of a grown row are monotone in beta. For a weight:
/// the smallest beta that gives it; 0 and reachable if equal weights do. Not reachable, with the limit in
/// `best`: ties with the best key share its weight at every temperature (beta = +inf); more entropy or keys
/// than the row has (beta = 0). Rows that are not normal, and rows of one key, have NaN. O(60 n). Throws
/// `invalid_argument` for an aim outside its range (weight in (0,1), entropy >= 0, participation >= 1).
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
    const double gap = static_cast<double>(row.logit_gap()), spread = static_cast<double>(row.logit_spread());
    // The figure as something that falls with beta, and what it comes to at both ends.
    const auto figure = [&](const GrownRow& grown) {
        return aim == Aim::weight    ? 1 - grown.best_weight
               : aim == Aim::entropy ? grown.entropy_nats
                                     : grown.participation_ratio;
    };
    const double wanted = aim == Aim::weight ? 1 - value : value;
    const double others = growth.copies * static_cast<double>(row.visible - 1); // beside the best key
    double ties = 0; // other keys that are level with the best one after growth
    if (!(gap + growth.shift > 0))
        for (const T x : z) ties += x == static_cast<T>(row.second_logit);
    if (gap == 0 && ties > 0) ties -= 1;
    ties *= growth.copies;
    const auto even = [&](double count) {
        return aim == Aim::weight ? count / (1 + count) : aim == Aim::entropy ? std::log1p(count) : 1 + count;
    };
    const auto shown = [&](double x) { return aim == Aim::weight ? 1 - x : x; };
    if (wanted >= even(others)) {
        answer.inverse_temperature = 0;
        answer.reachable = aim == Aim::weight || wanted == even(others);
        answer.best = shown(even(others));
        return answer;
    }
    if (wanted <= even(ties) || !(spread > 0)) {
        answer.inverse_temperature = infinity;
        answer.best = shown(even(ties));
        return answer;
    }
    const auto at = [&](double log_beta) {
        return figure(grown_row(row_statistics<T>(z, std::exp(-log_beta)), growth));
    };
    // From weights that are equal to rounding to one that is alone.
    double low = std::log(1e-9) - std::log(spread + std::abs(growth.shift)), high = low + 21;
    while (high < 600 && at(high) > wanted) high += 5;
    for (int i = 0; i < 60 && high - low > 1e-13 * (1 + std::abs(high)); ++i) {
        const double middle = (low + high) / 2;
        (at(middle) > wanted ? low : high) = middle;
    }
    answer.inverse_temperature = std::exp(high);
    answer.reachable = at(high) <= wanted;
    answer.best = shown(at(high));
    return answer;
}

} // namespace v0_1
} // namespace attnscope
