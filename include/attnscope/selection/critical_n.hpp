// From which N on a top-N selection is no farther from the rest than a random one: P's Algorithm 3.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Two-sample Kolmogorov-Smirnov test.
struct KolmogorovSmirnov {
    double statistic =
        std::numeric_limits<double>::quiet_NaN(); ///< sup |F_a - F_b| of the empirical distributions
    /// Probability of a statistic at least as large when both samples come from one continuous distribution,
    /// exact; with ties among the numbers an upper limit.
    double p_value = std::numeric_limits<double>::quiet_NaN();
};

/// Tests whether a (n numbers) and b (m numbers) come from one distribution.
/// Formula. The p-value is the probability that the walk which takes the pooled sample in order leaves the
/// strip |i/n - j/m| < statistic: a sum of positive terms, so that small ones keep their digits.
/// Special rows. NaN if a sample is empty or holds a NaN.
/// Cost. O(nm + (n+m) log(n+m)), allocates both samples and one row of m.
/// Throws. `invalid_argument` for samples of more than 2^20 pairs.
inline KolmogorovSmirnov kolmogorov_smirnov(std::span<const double> a, std::span<const double> b) {
    KolmogorovSmirnov result;
    const Index n = static_cast<Index>(a.size()), m = static_cast<Index>(b.size());
    detail::require(n == 0 || m <= (Index(1) << 20) / n, "kolmogorov_smirnov",
                    "there must be at most 2^20 pairs", n, m);
    const auto is_nan = [](double x) { return x != x; };
    if (n == 0 || m == 0 || std::any_of(a.begin(), a.end(), is_nan) || std::any_of(b.begin(), b.end(), is_nan))
        return result;
    std::vector<double> x(a.begin(), a.end()), y(b.begin(), b.end());
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    Index largest = 0; // of |i m - j n| behind each distinct number
    for (Index i = 0, j = 0; i < n || j < m;) {
        const double at =
            j >= m || (i < n && detail::at(x, i) <= detail::at(y, j)) ? detail::at(x, i) : detail::at(y, j);
        while (i < n && detail::at(x, i) == at) ++i;
        while (j < m && detail::at(y, j) == at) ++j;
        largest = std::max(largest, std::abs(i * m - j * n));
    }
    result.statistic = static_cast<double>(largest) / (static_cast<double>(n) * static_cast<double>(m));
    // reach[j]: probability to come to (i, j) inside the strip.
    std::vector<double> reach(b.size() + 1);
    double left = 0;
    for (Index i = 0; i <= n; ++i)
        for (Index j = 0; j <= m; ++j) {
            const double from_a = i == 0 ? 0
                                         : detail::at(reach, j) * static_cast<double>(n - i + 1) /
                                               static_cast<double>(n - i + 1 + m - j),
                         from_b = j == 0 ? 0
                                         : detail::at(reach, j - 1) * static_cast<double>(m - j + 1) /
                                               static_cast<double>(n - i + m - j + 1);
            double here = i == 0 && j == 0 ? 1 : from_a + from_b;
            if (std::abs(i * m - j * n) >= largest) {
                left += here;
                here = 0;
            }
            detail::at(reach, j) = here;
        }
    result.p_value = std::min(left, 1.0);
    return result;
}

/// The smallest of the `counts` N, ascending, at which the distances of the heads' top-N selections and those
/// that are expected of random selections cannot be told apart; nothing if no N is such.
/// Formula. The p-value of `kolmogorov_smirnov` over the heads is at least `level`.
/// Shapes and units. top, random: [heads, counts].
/// Special rows. A column with NaN tells nothing and is passed over.
/// Cost. O(counts heads^2), allocates some rows.
/// Throws. `invalid_argument` when the shapes do not fit or the level is not in (0, 1).
/// Source. arXiv:2508.17821, Algorithm 3 (level 0.05; its text says 0.01).
inline std::optional<Index> critical_count(MatrixView<double> top, MatrixView<double> random,
                                           std::span<const Index> counts, double level = 0.05) {
    detail::require(top.rows() == random.rows() && top.cols() == random.cols(), "critical_count",
                    "both matrices must have one shape", top.rows(), top.cols(), random.rows(), random.cols());
    detail::require(static_cast<Index>(counts.size()) == top.cols(), "critical_count",
                    "there must be one column for each N", counts.size(), top.cols());
    detail::require(level > 0 && level < 1, "critical_count", "the level must be in (0, 1)", level);
    std::vector<double> a(static_cast<std::size_t>(top.rows())), b(a.size());
    for (std::size_t at = 0; at < counts.size(); ++at) {
        for (std::size_t head = 0; head < a.size(); ++head) {
            a[head] = top.row(static_cast<Index>(head))[at];
            b[head] = random.row(static_cast<Index>(head))[at];
        }
        if (kolmogorov_smirnov(a, b).p_value >= level) return counts[at];
    }
    return std::nullopt;
}

} // namespace v0_2
} // namespace attnscope
