// What a measured softmax row becomes in a longer context: the model behind every plan for a length that was
// not measured.
//
// Assumption: the further keys are like those that the row has. Its best key stays the best one, every other
// key counts `copies` times, and all gaps to the best key have changed by `shift`, as the rows of the same head
// have shown over the lengths that were measured.
//
// Order of arguments in planner/: what is measured (the row, its weights or the head), what is wanted of it
// (a length, a weight, a tolerance, a share), and last what may be left out.
#pragma once

#include <attnscope/row/row_statistics.hpp>

#include <algorithm>
#include <numeric>
#include <ranges>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// How the logits of a head have grown with the number of keys n: the mean of e^{-gap} over the other keys goes
/// like n^exponent. 0: the same background at every length; < 0: the best key's lead grows; > 0: it shrinks.
struct BackgroundGrowth {
    double exponent = 0;
    double standard_error =
        std::numeric_limits<double>::infinity(); ///< of the exponent; +inf with fewer than 3 rows
    Index rows = 0;                              ///< that it was taken from
};

/// How the background of a head has grown with the number of keys.
/// Formula. Least squares of log(r/(n-1)) on log n over normal rows of at least `least_keys` keys, r = sum
/// over the others of e^{-gap} at the temperature of the statistics.
/// Special rows. Fewer than three rows, or rows of one length only, tell nothing: exponent 0.
/// Cost. O(rows), allocates two numbers a row.
/// Throws. `invalid_argument` unless least_keys >= 2.
template <Real A>
BackgroundGrowth background_growth(std::span<const RowStatistics<A>> rows, Index least_keys = 8) {
    detail::require(least_keys >= 2, "background_growth", "least keys must be >= 2", least_keys);
    BackgroundGrowth growth;
    std::vector<double> x, y;
    for (const RowStatistics<A>& row : rows) {
        if (!row.normal() || row.visible < least_keys || !(row.r > A(0))) continue;
        const double keys = static_cast<double>(row.visible);
        x.push_back(std::log(keys));
        y.push_back(std::log(static_cast<double>(row.r)) - std::log(keys - 1));
    }
    growth.rows = static_cast<Index>(x.size());
    if (growth.rows < 3) return growth;
    const double n = static_cast<double>(x.size());
    const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
                 mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
    double xx = 0, xy = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        xx += (x[i] - mean_x) * (x[i] - mean_x);
        xy += (x[i] - mean_x) * (y[i] - mean_y);
        yy += (y[i] - mean_y) * (y[i] - mean_y);
    }
    if (!(xx > 1e-24 * mean_x * mean_x * n)) return growth; // one length, to rounding
    growth.exponent = xy / xx;
    growth.standard_error = std::sqrt(std::max(0.0, yy - xy * xy / xx) / (n - 2) / xx);
    return growth;
}

/// As above from a vector or an array of rows.
template <std::ranges::contiguous_range R>
BackgroundGrowth background_growth(const R& rows, Index least_keys = 8) {
    return background_growth(std::span(std::data(rows), std::size(rows)), least_keys);
}

/// How a row of n keys is taken to a length: `copies` of every other key, whose gaps to the best one grow by
/// `shift`.
struct RowGrowth {
    double copies = 1;
    double shift = 0;
};

/// From the n keys of a row to `length`.
/// Formula. copies = (length-1)/(n-1), shift = -exponent log(length/n), which is cut off where the second key
/// would overtake the first one.
/// Shapes and units. exponent: from `background_growth` at temperature 1.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 2 and length >= 2.
template <Real A>
RowGrowth row_growth(const RowStatistics<A>& row, double length, double exponent = 0) {
    detail::require(row.visible >= 2, "row_growth", "the row must have two keys or more", row.visible);
    detail::require(length >= 2, "row_growth", "length must be >= 2", length);
    const double n = static_cast<double>(row.visible), gap = static_cast<double>(row.logit_gap());
    return {(length - 1) / (n - 1), std::max(-exponent * std::log(length / n), -gap)};
}

/// Figures of a grown row.
struct GrownRow {
    double best_weight = 0;         ///< of the best key
    double entropy_nats = 0;        ///< of all
    double participation_ratio = 0; ///< 1/sum p^2, in keys
};

/// Figures of a grown row from the sums of a row at temperature T.
/// Formula. With R = copies e^{-shift/T} r, H = log(1+R) + (...)/(1+R) and so on, each copy a key of its own.
/// Keys that the sums have lost (708 temperatures below the largest, 87 in float) stay lost even if the shift
/// brings them back: the second form looks at the keys.
/// Special rows. NaN for rows that are not normal.
/// Cost. O(1).
template <Real A>
GrownRow grown_row(const RowStatistics<A>& row, const RowGrowth& growth) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    if (!row.normal()) return {nan, nan, nan};
    const double beta = 1 / row.temperature, decay = std::exp(-beta * growth.shift),
                 factor = growth.copies * decay;
    const double r = static_cast<double>(row.r), t = static_cast<double>(row.t), q = static_cast<double>(row.q);
    if (r == 0) return {1, 0, 1};
    const double sum = factor * r, squares = factor * decay * q;
    return {1 / (1 + sum), std::log1p(sum) + factor * (t + beta * growth.shift * r) / (1 + sum),
            (1 + sum) * (1 + sum) / (1 + squares)};
}

namespace detail {

/// The gaps of a normal row to its best key after growth, without that key; none is below 0. In a unit of their own,
/// because they may overflow.
struct GrownGaps {
    std::vector<double> gaps;
    double largest = 0; ///< infinite for gaps of long double beyond that unit
    double unit = 1;
};
template <Real T>
GrownGaps grown_gaps(RowIn<T> z, const RowStatistics<Accumulator<T>>& row, double shift) {
    using A = Accumulator<T>;
    GrownGaps grown;
    if (!std::isfinite(static_cast<double>(row.logit_spread()) + shift)) grown.unit = 4;
    const A unit = A(grown.unit);
    grown.gaps.reserve(z.size());
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (!(z[i] > -std::numeric_limits<T>::infinity()) || static_cast<Index>(i) == row.argmax) continue;
        const double gap = static_cast<double>(row.max_logit / unit - A(z[i]) / unit) + shift / grown.unit;
        grown.gaps.push_back(std::max(0.0, gap));
        grown.largest = std::max(grown.largest, gap);
    }
    return grown;
}

/// Sums over copies of e^{-beta gap}, of beta gap times that, and of its square.
struct GrownSums {
    double r = 0, t = 0, q = 0;
};
/// beta: in the inverse of the unit of the gaps, or of `unit` times it.
inline GrownSums grown_sums(const std::vector<double>& gaps, double copies, double beta, double unit = 1) {
    GrownSums sums;
    for (const double gap : gaps) {
        const double u = beta * gap * unit, e = std::exp(-u);
        sums.r += e;
        sums.t += e > 0 ? u * e : 0;
        sums.q += e * e;
    }
    return {copies * sums.r, copies * sums.t, copies * sums.q};
}

} // namespace detail

/// Figures of a grown row from its keys: exact whatever the shift is.
/// Shapes and units. z: logits at temperature 1; beta >= 0: the inverse temperature of the figures.
/// Special rows. NaN for rows that are not normal, and for gaps of long double beyond 7e308.
/// Cost. O(n), allocates one row.
template <Real T>
GrownRow grown_row(RowIn<T> z, const RowGrowth& growth, double beta) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto row = row_statistics<T>(z);
    if (!row.normal()) return {nan, nan, nan};
    const detail::GrownGaps grown = detail::grown_gaps(z, row, growth.shift);
    if (!std::isfinite(grown.largest)) return {nan, nan, nan};
    const auto sums = detail::grown_sums(grown.gaps, growth.copies, beta, grown.unit);
    return {1 / (1 + sums.r), std::log1p(sums.r) + sums.t / (1 + sums.r),
            (1 + sums.r) * (1 + sums.r) / (1 + sums.q)};
}

/// As above from any row.
template <RowLike Z>
GrownRow grown_row(const Z& z, const RowGrowth& growth, double beta) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return grown_row<T>(row.get(), growth, beta);
}

} // namespace v0_2
} // namespace attnscope
