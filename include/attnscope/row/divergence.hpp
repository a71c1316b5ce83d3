// How far two rows of logits over the same keys are apart as softmax weights.
#pragma once

#include <attnscope/row/row_statistics.hpp>

#include <numbers>
#include <vector>

namespace attnscope {
inline namespace v0_1 {

/// Distances of p = softmax(a/T) and q = softmax(b/T), in nats where logarithms are taken.
struct Divergence {
    RowStatus status = RowStatus::empty; ///< the worse of the two rows
    double total_variation = nan();      ///< sum |p - q| / 2
    double forward = nan();              ///< KL(p|q) = sum p log(p/q); +inf where q hides a key that p weighs
    double backward = nan();             ///< KL(q|p)
    double jensen_shannon = nan();       ///< (KL(p|m) + KL(q|m))/2, m = (p + q)/2, in [0, log 2]
    double logit_difference = nan();     ///< max |a_i - b_i| over keys that both see, before the temperature

    static constexpr double nan() { return std::numeric_limits<double>::quiet_NaN(); }
};

namespace detail {

/// e^x - 1 - x for |x| <= 1/10, without cancellation: Taylor's series, relative error 1e-17.
EIGEN_ALWAYS_INLINE Simd<double>::P psi_small(Simd<double>::P x) {
    using S = Simd<double>;
    constexpr std::array<double, 10> inverse_factorial = {
        1.0 / 2,    1.0 / 6,     1.0 / 24,     1.0 / 120,     1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800};
    S::P sum = S::set(inverse_factorial.back());
    for (std::size_t i = inverse_factorial.size() - 1; i-- > 0;)
        sum = S::madd(sum, x, S::set(inverse_factorial[i]));
    return S::mul(S::mul(x, x), sum);
}

/// y tanh y - log cosh y for 0 <= y <= 1/4: the series of the integral of y/cosh^2 y, relative error 1e-17.
EIGEN_ALWAYS_INLINE Simd<double>::P share_information_small(Simd<double>::P y) {
    using S = Simd<double>;
    constexpr std::array<double, 11> coefficients = {1.0 / 2,
                                                     -1.0 / 4,
                                                     1.0 / 9,
                                                     -17.0 / 360,
                                                     31.0 / 1575,
                                                     -691.0 / 85050,
                                                     10922.0 / 3274425,
                                                     -929569.0 / 681080400,
                                                     3202291.0 / 5746615875,
                                                     -221930581.0 / 976924698750,
                                                     9444233042.0 / 102088631019375};
    const S::P square = S::mul(y, y);
    S::P sum = S::set(coefficients.back());
    for (std::size_t i = coefficients.size() - 1; i-- > 0;) sum = S::madd(sum, square, S::set(coefficients[i]));
    return S::mul(square, sum);
}

/// log 2 - h(share) for two weights whose logarithms are s >= 0 apart, w = e^{-s}: what knowing the row of a key
/// tells of it. h: the binary entropy, share = 1/(1+w).
EIGEN_ALWAYS_INLINE Simd<double>::P share_information(Simd<double>::P s, Simd<double>::P w) {
    using S = Simd<double>;
    const auto one = S::set(1.0), half = S::set(0.5), both = S::add(one, w);
    const auto series = share_information_small(S::mul(half, S::select_below(s, half, s, S::set(0.0))));
    const auto closed = S::sub(S::sub(S::set(std::numbers::ln2), S::log(both)), S::div(S::mul(s, w), both));
    return S::select_below(s, half, series, closed);
}

/// Sums of q - p, |q - p|, p (e^x - 1 - x), q (e^-x - 1 + x) and (p+q)/2 (log 2 - h(p/(p+q))) over keys of
/// x = log(q/p), from log max(p, q) and x.
inline std::array<double, 5> divergence_sums(const std::vector<double>& larger, const std::vector<double>& x) {
    using S = Simd<double>;
    const auto small = S::set(0.1), zero = S::set(0.0), half = S::set(0.5), one = S::set(1.0);
    return sum_lanes<double, 5>(static_cast<Index>(x.size()), [&](const auto& lane) {
        // The weights are top and top w, w = e^{-s}; what each sum gets is divided by top.
        const auto ratio = lane(x.data(), 0.0), s = S::abs(ratio);
        const auto top = exp_nonpositive<double>(S::min(lane(larger.data(), -2000.0), zero)),
                   w = exp_nonpositive<double>(S::sub(zero, s));
        const auto near = S::select_below(s, small, s, zero), psi = psi_small(S::sub(zero, near));
        const auto apart = S::select_below(s, small, S::sub(near, psi), S::sub(one, w));
        const auto of_top = S::select_below(s, small, psi, S::sub(s, apart));
        // 1 - w - w s = s^2 - (1+s)(w - 1 + s)
        const auto of_other = S::select_below(
            s, small, S::sub(S::mul(near, near), S::mul(S::add(one, near), psi)), S::sub(apart, S::mul(w, s)));
        const auto p_is_top = [&](const auto& yes, const auto& no) {
            return S::mul(top, S::select_below(ratio, zero, yes, no));
        };
        const auto mean = S::mul(top, S::mul(half, S::add(one, w)));
        return Packets<double, 5>{{p_is_top(S::sub(zero, apart), apart), S::mul(top, apart),
                                   p_is_top(of_top, of_other), p_is_top(of_other, of_top),
                                   S::mul(mean, share_information(s, w))}};
    });
}

/// a - b = value + rest exactly, unless it overflows.
template <Real A>
struct ExactDifference {
    ExactDifference(A a, A b) : value(a - b) {
        const A back = value - a;
        rest = (a - (value - back)) - (b + back);
    }
    A value, rest;
};

/// Two rows of logits that are normal, and what row-wide numbers their weights need.
template <Real T>
struct RowPair {
    RowIn<T> a, b;
    const RowStatistics<T>&first, &second;
    T unit, mass_a, mass_b, offset;

    /// Is every key visible in both rows, without a difference of logits that overflows?
    bool plain() const {
        constexpr T most = std::numeric_limits<T>::max() / 8;
        const T spread = std::max(first.logit_spread(), second.logit_spread());
        return first.visible == size<T>(a) && second.visible == size<T>(b) && spread <= most &&
               spread / unit <= most;
    }
};

/// What the keys of a pair of rows have in common.
struct PairFacts {
    bool a_lacks = false, b_lacks = false; ///< the row hides a key that the other weighs
    bool meet = false;                     ///< a key that both see
    double logit_difference = 0;
};

/// log max(p, q) and x = log(q/p) of every key.
template <Real T>
PairFacts log_ratios(const RowPair<T>& pair, std::vector<double>& larger, std::vector<double>& x) {
    // A hidden key stands where its weight is 0 and nothing is infinite; so do keys at the end of the range.
    constexpr double hidden = -2000, lowest = std::numeric_limits<double>::lowest() / 4;
    const auto over = [&](T z) { return pair.unit == T(1) ? z : z / pair.unit; };
    const auto logarithm = [&](T z, T top, T mass) {
        return static_cast<double>(
            std::max(T(lowest), (pair.unit == T(1) ? z - top : temperatures_apart(z, top, pair.unit)) - mass));
    };
    const auto k = static_cast<std::size_t>(pair.first.argmax);
    const RowIn<T> a = pair.a, b = pair.b;
    PairFacts facts;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const bool in_a = a[i] > -std::numeric_limits<T>::infinity(),
                   in_b = b[i] > -std::numeric_limits<T>::infinity();
        larger[i] = in_a ? logarithm(a[i], pair.first.max_logit, pair.mass_a) : hidden;
        x[i] = in_a ? hidden : 0;
        facts.b_lacks |= in_a && !in_b && larger[i] > -745;
        if (!in_b) continue;
        if (in_a) {
            facts.meet = true;
            facts.logit_difference =
                std::max(facts.logit_difference, static_cast<double>(std::abs(a[i] - b[i])));
            const ExactDifference<T> apart_a(a[i], a[k]), apart_b(b[i], b[k]);
            x[i] = static_cast<double>(over((apart_b.value - apart_a.value) + (apart_b.rest - apart_a.rest)) -
                                       pair.offset);
            if (std::abs(x[i]) <= 1) {
                larger[i] += std::max(x[i], 0.0);
                continue;
            }
        }
        const double log_q = logarithm(b[i], pair.second.max_logit, pair.mass_b);
        facts.a_lacks |= !in_a && log_q > -745;
        if (!in_a)
            x[i] = -hidden;
        else if (!(std::abs(x[i]) <= -lowest))
            x[i] = log_q - larger[i];
        if (x[i] > 0) larger[i] = log_q;
    }
    return facts;
}

/// The same for plain pairs, a packet of keys at a time.
inline PairFacts plain_ratios(const RowPair<double>& pair, std::vector<double>& larger,
                              std::vector<double>& x) {
    using S = Simd<double>;
    const auto k = static_cast<std::size_t>(pair.first.argmax);
    const double a_k = pair.a[k], b_k = pair.b[k];
    const auto origin_a = S::set(a_k), origin_b = S::set(b_k), unit = S::set(pair.unit),
               offset = S::set(pair.offset), top_a = S::set(pair.first.max_logit),
               top_b = S::set(pair.second.max_logit), mass_a = S::set(pair.mass_a),
               mass_b = S::set(pair.mass_b), zero = S::set(0.0), one = S::set(1.0);
    const bool divide = pair.unit != 1;
    const auto over = [&](S::P z) { return divide ? S::div(z, unit) : z; };
    const auto rest = [](S::P a, S::P b, S::P value) { // as `ExactDifference`
        const auto back = S::sub(value, a);
        return S::sub(S::sub(a, S::sub(value, back)), S::add(b, back));
    };
    auto difference = zero;
    for_each_lane<double>(size<double>(pair.a), [&](const auto& lane) {
        const auto a = lane(pair.a.data(), a_k), b = lane(pair.b.data(), b_k);
        difference = S::max(difference, S::abs(S::sub(a, b)));
        const auto from = S::sub(a, origin_a), to = S::sub(b, origin_b);
        const auto exact = S::add(S::sub(to, from), S::sub(rest(b, origin_b, to), rest(a, origin_a, from)));
        const auto ratio = S::sub(over(exact), offset);
        const auto log_p = S::sub(over(S::sub(a, top_a)), mass_a),
                   log_q = S::sub(over(S::sub(b, top_b)), mass_b);
        // Near each other p times e^x is the more exact of the two.
        const auto above = S::select_below(one, ratio, log_q, S::add(log_p, ratio));
        lane.store(x.data(), ratio);
        lane.store(larger.data(), S::select_below(zero, ratio, above, log_p));
    });
    return {false, false, true, S::reduce_max(difference)};
}

} // namespace detail

/// Divergence of two rows of logits; -inf hides a key, in either row.
/// Formula. With x = log(q/p): KL(p|q) = sum p (e^x - 1 - x), KL(q|p) = sum q (e^-x - 1 + x), Jensen-Shannon
/// = sum (p+q)/2 (log 2 - h(p/(p+q))), h the binary entropy. Their terms are >= 0 and come from series for
/// nearly equal weights. x is taken from differences of logits within each row, so that an offset of a row is
/// without effect and rows that differ by little keep the digits of the difference: relative errors near
/// 1e-13, for float rows too, however near the rows are.
/// Shapes and units. Rows of one length; nats.
/// Special rows. Rows that are not normal give NaN and the worse status. Equal rows give 0, rows without a
/// common key a total variation of 1, a Jensen-Shannon divergence of log 2 and infinite KL.
/// Cost. O(n), allocates two rows (float: four).
/// Throws. `invalid_argument` for different lengths, and unless the temperature is > 0 and finite.
/// Source. Jensen-Shannon: J. Lin, Divergence measures based on the Shannon entropy, 1991.
template <Real T>
Divergence row_divergence(RowIn<T> a, RowIn<T> b, double temperature = 1) {
    detail::require(a.size() == b.size(), "row_divergence", "the rows must have the same length", a.size(),
                    b.size());
    detail::checked_temperature("row_divergence", temperature);
    if constexpr (std::same_as<T, float>) { // sums of float rows are exact to float only
        const std::vector<double> wide_a(a.begin(), a.end()), wide_b(b.begin(), b.end());
        return row_divergence<double>(wide_a, wide_b, temperature);
    } else {
        const auto first = row_statistics<T>(a, temperature), second = row_statistics<T>(b, temperature);
        Divergence result;
        const auto worse = [](RowStatus x, RowStatus y) {
            for (const RowStatus status : {RowStatus::nan, RowStatus::infinite, RowStatus::empty})
                if (x == status || y == status) return status;
            return RowStatus::normal;
        };
        result.status = worse(first.status, second.status);
        if (result.status != RowStatus::normal) return result;
        // x = (b_i - b_k)/T - (a_i - a_k)/T - offset, k the first key of a, if b sees it.
        const T unit = static_cast<T>(temperature), mass_a = std::log1p(first.r), mass_b = std::log1p(second.r);
        const T b_k = b[static_cast<std::size_t>(first.argmax)];
        const detail::RowPair<T> pair{
            a,    b,      first,  second,
            unit, mass_a, mass_b, detail::temperatures_apart(second.max_logit, b_k, unit) + (mass_b - mass_a)};
        std::vector<double> larger(a.size()), x(a.size()); // log max(p, q)
        detail::PairFacts facts;
        if constexpr (std::same_as<T, double>) {
            if (pair.plain())
                facts = detail::plain_ratios(pair, larger, x);
            else
                facts = detail::log_ratios(pair, larger, x);
        } else {
            facts = detail::log_ratios(pair, larger, x);
        }
        result.logit_difference = facts.logit_difference;
        auto sums = detail::divergence_sums(larger, x);
        // Where rows are nearly equal, the rounding of `offset` counts beside x. Weights sum to 1: it is what
        // sum (q - p) has to be 0.
        if (std::abs(sums[0]) > 1e-14 * sums[1]) {
            const double excess = std::log1p(sums[0]);
            for (double& ratio : x) ratio -= excess;
            sums = detail::divergence_sums(larger, x);
        }
        constexpr double infinity = std::numeric_limits<double>::infinity();
        result.total_variation = std::min(1.0, sums[1] / 2);
        result.forward = facts.b_lacks ? infinity : sums[2];
        result.backward = facts.a_lacks ? infinity : sums[3];
        result.jensen_shannon = facts.meet ? std::min(std::numbers::ln2, sums[4]) : std::numbers::ln2;
        return result;
    }
}

/// As above from any rows.
template <RowLike A, RowLike B>
requires std::same_as<RowScalar<A>, RowScalar<B>>
Divergence row_divergence(const A& a, const B& b, double temperature = 1) {
    using T = RowScalar<A>;
    const RowHolder<T> first(a), second(b);
    return row_divergence<T>(first.get(), second.get(), temperature);
}

} // namespace v0_1
} // namespace attnscope
