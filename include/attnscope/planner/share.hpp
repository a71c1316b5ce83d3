// One answer for many rows: what serves a given share of them.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// What serves a share of the rows whose needs are `values`: a quantile, rounded up.
/// Formula. The smallest value that is >= at least `share` of them.
/// Special rows. +inf counts as never; NaN, for rows without an answer, is left out. NaN if nothing is left.
/// Cost. O(n), in the copy of `values` that is passed.
/// Throws. `invalid_argument` unless share is in (0,1].
inline double need_for_share(std::vector<double> values, double share) {
    detail::require(share > 0 && share <= 1, "need_for_share", "share must be in (0,1]", share);
    std::erase_if(values, [](double x) { return x != x; });
    if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
    const double count = static_cast<double>(values.size());
    // A share such as 0.9 of 10 is 9 although 0.9 * 10 may be rounded up.
    const auto rank = static_cast<std::size_t>(std::max(1.0, std::ceil(share * count * (1 - 1e-12))));
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(std::min(rank, values.size()) - 1);
    std::nth_element(values.begin(), at, values.end());
    return *at;
}

/// How far a share of the rows reaches: a quantile, rounded down.
/// Formula. The largest value that is <= at least `share` of them; otherwise as `need_for_share`.
inline double reach_for_share(std::vector<double> values, double share) {
    for (double& x : values) x = -x;
    return -need_for_share(std::move(values), share);
}

/// Share of the values that satisfy a condition, NaN left out; NaN if nothing is left. O(n).
template <class Condition>
double share_of(const std::vector<double>& values, const Condition& condition) {
    double met = 0, all = 0;
    for (const double x : values)
        if (x == x) met += condition(x) ? 1 : 0, all += 1;
    return met / all;
}

} // namespace v0_2
} // namespace attnscope
