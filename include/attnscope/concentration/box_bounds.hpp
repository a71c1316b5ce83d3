// How large and how small each weight can be when every logit is known up to an interval.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// sum_{j != i} e^{(x_j - own)/T} for any key i, without subtracting what is nearly the whole: the largest x is
/// left out of the sum that all others share.
template <Real T>
class SumOfOthers {
    using A = Accumulator<T>;
    static constexpr A infinity = std::numeric_limits<A>::infinity();

public:
    SumOfOthers(RowIn<T> x, A temperature) : temperature_(temperature) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (i == 0 || A(x[i]) > top_) {
                second_ = top_;
                top_ = A(x[i]);
                at_top_ = i;
            } else {
                second_ = std::max(second_, A(x[i]));
            }
        }
        if (std::abs(second_) == infinity) return;
        for (std::size_t i = 0; i < x.size(); ++i)
            if (i != at_top_) below_second_ += term(A(x[i]), second_);
        below_top_ = below_second_ * term(second_, top_);
    }

    /// The largest x_j of the others; -inf if there is none.
    A largest(std::size_t i) const { return i == at_top_ ? second_ : top_; }

    /// The sum, for finite `largest(i)` and any `own` > -inf. x: that of key i.
    A operator()(std::size_t i, T x, A own) const {
        // What is left beside the largest, below_top - e^{(x_i - x_top)/T}, is a sum of positive terms.
        const A sum = i == at_top_ ? below_second_ : 1 + std::max(A(0), below_top_ - term(A(x), top_));
        return std::exp(temperatures_apart(largest(i), own, temperature_)) * sum;
    }

private:
    A term(A x, A largest) const { return std::exp(temperatures_apart(x, largest, temperature_)); }

    A temperature_, top_ = -infinity, second_ = -infinity;
    A below_top_ = 0, below_second_ = 0; ///< sums over all keys but the top one, in units of these two
    std::size_t at_top_ = 0;
};

} // namespace detail

/// Box form of the range of weights: how large and how small p_i can be for every row in a box.
/// Formula. For every row with lower[i] <= z_i <= upper[i] and p = softmax(z/T):
///     1/(1 + sum_{j != i} e^{(u_j - l_i)/T}) <= p_i <= 1/(1 + sum_{j != i} e^{(l_j - u_i)/T}).
/// Each of the 2n limits is attained, at a corner of the box. Only differences of logits enter: an offset
/// that all ends share changes nothing. Relative error: a few units times the largest |u_j - l_i|/T, plus n/2
/// units.
/// Shapes and units. Five rows of one length, of which `least` and `greatest` may overwrite the ends; ends in
/// logits before the temperature.
/// Special rows. An interval may be infinite on either side; both ends -inf is a masked key, whose weight is
/// 0. A key without any other takes all, unless it may be masked itself.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` for rows of different lengths, lower > upper or NaN, and unless T > 0 and
/// finite.
/// Source. After arXiv:2303.01713.
template <Real T>
void box_weight_ranges(RowIn<T> lower, RowIn<T> upper, double temperature, RowOut<T> least,
                       RowOut<T> greatest) {
    using A = Accumulator<T>;
    constexpr A infinity = std::numeric_limits<A>::infinity();
    detail::require_same_size<T>("box_weight_ranges", lower, upper, least, greatest);
    const A divisor = static_cast<A>(detail::checked_temperature("box_weight_ranges", temperature));
    for (std::size_t i = 0; i < lower.size(); ++i)
        detail::require(lower[i] <= upper[i], "box_weight_ranges", "lower must be <= upper", lower[i],
                        upper[i]);
    const detail::SumOfOthers<T> lows(lower, divisor), highs(upper, divisor);
    // A key without any other takes all, unless it may be masked itself; beside one that may be +inf, nothing.
    const auto weight = [&](const detail::SumOfOthers<T>& others, std::size_t i, T x, A own) {
        if (own == -infinity || others.largest(i) == infinity) return T(0);
        if (others.largest(i) == -infinity) return T(1);
        return static_cast<T>(1 / (1 + others(i, x, own)));
    };
    for (std::size_t i = 0; i < lower.size(); ++i) {
        const T l = lower[i], u = upper[i];
        greatest[i] = A(u) == infinity ? T(1) : weight(lows, i, l, A(u));
        least[i] = weight(highs, i, u, A(l));
    }
}

/// The least and the greatest weight of every key.
template <class V>
struct WeightRanges {
    V least, greatest;
};

/// As above from any rows, as vectors like `lower`. Allocates the results.
template <RowLike L, RowLike U>
requires std::same_as<RowScalar<L>, RowScalar<U>>
WeightRanges<RowResult<L>> box_weight_ranges(const L& lower, const U& upper, double temperature = 1) {
    using T = RowScalar<L>;
    const RowHolder<T> low(lower), high(upper);
    const std::size_t n = low.get().size();
    WeightRanges<RowResult<L>> ranges;
    ranges.least.resize(low.size());
    ranges.greatest.resize(low.size());
    box_weight_ranges<T>(low.get(), high.get(), temperature, RowOut<T>(ranges.least.data(), n),
                         RowOut<T>(ranges.greatest.data(), n));
    return ranges;
}

inline constexpr Statement box_sharp_statement{
    .id = "box",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "1/(1+sum_{j!=i} e^{u_j-l_i}) <= p_i <= 1/(1+sum_{j!=i} e^{l_j-u_i})",
    .conditions = "softmax, z_i/T in [l_i, u_i]: a random box around the row",
    .source = "after arXiv:2303.01713",
};

/// Bounds `box_sharp_statement` of one row: for each side the key that uses most of its limit.
/// Formula. least[i] <= p_i <= greatest[i], with the ranges of `box_weight_ranges`.
/// Shapes and units. Three rows of one length; p = softmax(z/T), exact to `relative_error`.
/// `largest_exponent`: the largest (u_j - l_i)/T that is finite, for the rounding of the limits; beyond the
/// range of exp a limit is 0 or 1 without rounding.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` for rows of different lengths.
template <Real T>
BoundPair<T> box_sharp(RowIn<T> p, RowIn<T> least, RowIn<T> greatest, T relative_error, T largest_exponent) {
    detail::require_same_size<T>("box_sharp", p, least, greatest);
    const T unit = std::numeric_limits<T>::epsilon(), n = static_cast<T>(p.size());
    const T limit_error = unit * (4 * std::min(largest_exponent, -detail::exp_cutoff<T>()) + 16 + n / 2);
    // Weights below the smallest normal number have no relative error.
    const auto tolerance = [&](T limit, T measured) {
        return relative_error * measured + limit_error * limit + n * std::numeric_limits<T>::min();
    };
    const auto at_least = [&](T limit, T measured) {
        return lower_bound<T>(
            box_sharp_statement,
            {.limit = limit, .measured = measured, .tolerance = tolerance(limit, measured), .trivial = 0});
    };
    const auto at_most = [&](T limit, T measured) {
        return upper_bound<T>(
            box_sharp_statement,
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

} // namespace v0_2
} // namespace attnscope
