// How large and how small each weight can be when every logit is known up to an interval.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/concentration/row_statistics.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_1 {
namespace detail {

/// log sum_{j != i} e^{x_j} for every i, without subtracting what is nearly the whole: the largest is left out
/// of the sum that all others share. -inf where nothing is left.
template <Real T>
std::vector<T> log_sums_of_others(RowIn<T> x) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    std::vector<T> sums(x.size(), -infinity);
    const std::size_t top = static_cast<std::size_t>(std::max_element(x.begin(), x.end()) - x.begin());
    if (x.empty() || x[top] == -infinity) return sums;
    if (x[top] == infinity) {
        const auto count = std::count(x.begin(), x.end(), infinity);
        std::fill(sums.begin(), sums.end(), infinity);
        if (count > 1) return sums;
    }
    T second = -infinity, rest = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
        if (i != top) second = std::max(second, x[i]);
    if (second == -infinity) {
        std::fill(sums.begin(), sums.end(), x[top]);
        sums[top] = -infinity;
        return sums;
    }
    for (std::size_t i = 0; i < x.size(); ++i)
        if (i != top) rest += std::exp(x[i] - second);
    sums[top] = second + std::log(rest);
    if (x[top] == infinity) return sums;
    rest *= std::exp(second - x[top]);
    for (std::size_t i = 0; i < x.size(); ++i)
        // What is left, 1 + rest - e^{x_i - x_top}, is at least 1.
        if (i != top) sums[i] = x[top] + std::log1p(std::max(T(0), rest - std::exp(x[i] - x[top])));
    return sums;
}

} // namespace detail

/// Box form of the range of weights: for every row with lower[i] <= z_i <= upper[i] and softmax(z/T),
///     1/(1 + sum_{j != i} e^{(u_j - l_i)/T}) <= p_i <= 1/(1 + sum_{j != i} e^{(l_j - u_i)/T}).
/// Each of the 2n limits is attained, at a corner of the box. An interval may be infinite on either side; both
/// ends -inf is a masked key, whose weight is 0. Relative error: a few units times the largest |u_j - l_i|/T.
/// O(n), three rows of memory. Throws `invalid_argument` for rows of different lengths, lower > upper or NaN,
/// and T <= 0. Source: after arXiv:2303.01713.
template <Real T>
void box_weight_ranges(RowIn<T> lower, RowIn<T> upper, double temperature, RowOut<T> least,
                       RowOut<T> greatest) {
    detail::require_same_size<T>("box_weight_ranges", lower, upper, least, greatest);
    const T divisor = static_cast<T>(detail::checked_temperature("box_weight_ranges", temperature));
    std::vector<T> l(lower.begin(), lower.end()), u(upper.begin(), upper.end());
    for (std::size_t i = 0; i < l.size(); ++i) {
        detail::require(l[i] <= u[i], "box_weight_ranges", "lower must be <= upper", l[i], u[i]);
        l[i] /= divisor; // may overflow to what is as good as infinite; 1/T could, too
        u[i] /= divisor;
    }
    const auto others_low = detail::log_sums_of_others<T>(RowIn<T>(l)),
               others_high = detail::log_sums_of_others<T>(RowIn<T>(u));
    // 1/(1 + e^{sum - own}); a key without any other takes all, unless it may be masked itself.
    const auto weight = [](T own, T sum) {
        constexpr T infinity = std::numeric_limits<T>::infinity();
        if (own == -infinity) return T(0);
        if (sum == -infinity) return T(1);
        return own == sum ? T(0.5) : 1 / (1 + std::exp(sum - own)); // inf - inf: any share, see below
    };
    for (std::size_t i = 0; i < l.size(); ++i) {
        constexpr T infinity = std::numeric_limits<T>::infinity();
        greatest[i] = u[i] == infinity ? T(1) : weight(u[i], others_low[i]);
        least[i] = others_high[i] == infinity ? T(0) : weight(l[i], others_high[i]);
    }
}

/// Bounds "box" of one row whose weights p = softmax(z/T) are exact to `relative_error`, from the ranges of its
/// weights: for each side the key that uses most of its limit. `largest_exponent`: the largest (u_j - l_i)/T
/// that is finite, for the rounding of the limits.
template <Real T>
BoundPair<T> box_sharp(RowIn<T> p, RowIn<T> least, RowIn<T> greatest, T relative_error, T largest_exponent) {
    detail::require_same_size<T>("box_sharp", p, least, greatest);
    const T unit = std::numeric_limits<T>::epsilon(), n = static_cast<T>(p.size());
    const T limit_error = unit * (4 * largest_exponent + 16 + n / 2);
    // Weights below the smallest normal number have no relative error.
    const auto tolerance = [&](T limit, T measured) {
        return relative_error * measured + limit_error * limit + n * std::numeric_limits<T>::min();
    };
    const auto at_least = [&](T limit, T measured) {
        return lower_bound<T>(
            "box",
            {.limit = limit, .measured = measured, .tolerance = tolerance(limit, measured), .trivial = 0});
    };
    const auto at_most = [&](T limit, T measured) {
        return upper_bound<T>(
            "box",
            {.limit = limit, .measured = measured, .tolerance = tolerance(limit, measured), .trivial = 1});
    };
    BoundPair<T> worst = {at_least(0, 0), at_most(1, 0)};
    const auto worse = [](const Bound<T>& a, const Bound<T>& b) {
        const bool a_bad = a.slack() < -a.tolerance, b_bad = b.slack() < -b.tolerance;
        return a_bad != b_bad ? a_bad : a.value > T(0) && a.tightness() > b.tightness();
    };
    worst[0].measured = 1; // nothing used, until a key is met
    for (std::size_t i = 0; i < p.size(); ++i) {
        const auto low = at_least(least[i], p[i]), high = at_most(greatest[i], p[i]);
        if (worse(low, worst[0])) worst[0] = low;
        if (worse(high, worst[1])) worst[1] = high;
    }
    return worst;
}

} // namespace v0_1
} // namespace attnscope
