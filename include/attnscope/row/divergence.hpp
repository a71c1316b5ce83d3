// How far two rows of logits over the same keys are apart as softmax weights.
#pragma once

#include <attnscope/row/row_statistics.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_1 {

/// Distances of p = softmax(a) and q = softmax(b), in nats where logarithms are taken.
struct Divergence {
    RowStatus status = RowStatus::empty; ///< the worse of the two rows
    double total_variation = nan();      ///< sum |p - q| / 2
    double forward = nan();              ///< KL(p|q) = sum p log(p/q); +inf where q hides a key that p weighs
    double backward = nan();             ///< KL(q|p)
    double logit_difference = nan();     ///< max |a_i - b_i| over keys that both see

    static constexpr double nan() { return std::numeric_limits<double>::quiet_NaN(); }
};

namespace detail {

/// e^x - 1 - x for |x| <= 1/10, without cancellation: Taylor's series, relative error 1e-17.
inline Simd<double>::P psi_small(Simd<double>::P x) {
    using S = Simd<double>;
    constexpr std::array<double, 10> inverse_factorial = {
        1.0 / 2,    1.0 / 6,     1.0 / 24,     1.0 / 120,     1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800};
    S::P sum = S::set(inverse_factorial.back());
    for (std::size_t i = inverse_factorial.size() - 1; i-- > 0;)
        sum = S::madd(sum, x, S::set(inverse_factorial[i]));
    return S::mul(S::mul(x, x), sum);
}

} // namespace detail

/// Divergence of two rows of logits at temperature 1; -inf hides a key, in either row. KL is summed as
/// sum (q - p - p log(q/p)), whose terms are >= 0 and, for nearly equal weights, taken from a series: the
/// relative error stays near 1e-13 (double; for float rows that is beside the logits as given) however small it
/// is. Rows that are not normal give NaN and the worse status. O(n), allocates two rows. Throws
/// `invalid_argument` for different lengths.
template <Real T>
Divergence row_divergence(RowIn<T> a, RowIn<T> b) {
    using S = detail::Simd<double>;
    detail::require(a.size() == b.size(), "row_divergence", "the rows must have the same length", a.size(),
                    b.size());
    const auto first = row_statistics<T>(a), second = row_statistics<T>(b);
    Divergence result;
    const auto worse = [](RowStatus x, RowStatus y) {
        for (const RowStatus status : {RowStatus::nan, RowStatus::infinite, RowStatus::empty})
            if (x == status || y == status) return status;
        return RowStatus::normal;
    };
    result.status = worse(first.status, second.status);
    if (result.status != RowStatus::normal) return result;
    // Logarithms of the weights. A hidden key stands where its weight is 0 and nothing is infinite; so do keys
    // at the end of the range.
    constexpr double hidden = -2000, lowest = std::numeric_limits<double>::lowest() / 4;
    const double top_a = static_cast<double>(first.max_logit), top_b = static_cast<double>(second.max_logit);
    const double mass_a = std::log1p(static_cast<double>(first.r)),
                 mass_b = std::log1p(static_cast<double>(second.r));
    std::vector<double> p(a.size()), q(a.size());
    bool a_lacks = false, b_lacks = false;
    result.logit_difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const bool in_a = a[i] > -std::numeric_limits<T>::infinity(),
                   in_b = b[i] > -std::numeric_limits<T>::infinity();
        p[i] = in_a ? std::max(lowest, (static_cast<double>(a[i]) - top_a) - mass_a) : hidden;
        q[i] = in_b ? std::max(lowest, (static_cast<double>(b[i]) - top_b) - mass_b) : hidden;
        if (in_a && in_b)
            result.logit_difference = std::max(result.logit_difference,
                                               std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
        a_lacks |= in_b && !in_a && q[i] > -745;
        b_lacks |= in_a && !in_b && p[i] > -745;
    }
    const auto small = S::set(0.1);
    const auto sums = detail::sum_lanes<double, 3>(detail::size<double>(p), [&](const auto& lane) {
        const auto log_p = lane(p.data(), hidden), log_q = lane(q.data(), hidden);
        const auto x = S::sub(log_q, log_p), y = S::sub(log_p, log_q), size = S::abs(x);
        const auto u = detail::exp_nonpositive<double>(log_p), v = detail::exp_nonpositive<double>(log_q);
        const auto bounded = S::select_below(size, small, x, S::set(0.0));
        const auto up = detail::psi_small(bounded), down = detail::psi_small(S::sub(S::set(0.0), bounded));
        const auto apart = S::sub(v, u);
        return detail::Packets<double, 3>{
            {S::select_below(size, small, S::mul(u, S::abs(S::add(bounded, up))), S::abs(apart)),
             S::select_below(size, small, S::mul(u, up), S::madd(u, y, apart)),
             S::select_below(size, small, S::mul(v, down), S::madd(v, x, S::sub(u, v)))}};
    });
    result.total_variation = sums[0] / 2;
    result.forward = b_lacks ? std::numeric_limits<double>::infinity() : sums[1];
    result.backward = a_lacks ? std::numeric_limits<double>::infinity() : sums[2];
    return result;
}

/// As above from any rows.
template <RowLike A, RowLike B>
requires std::same_as<RowScalar<A>, RowScalar<B>>
Divergence row_divergence(const A& a, const B& b) {
    using T = RowScalar<A>;
    const RowHolder<T> first(a), second(b);
    return row_divergence<T>(first.get(), second.get());
}

} // namespace v0_1
} // namespace attnscope
