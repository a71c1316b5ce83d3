// How far two rows of logits over the same keys are apart as softmax weights.
#pragma once

#include <attnscope/row/row_statistics.hpp>

#include <numbers>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

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

/// sum coefficients[i] x^i, as four sums in x^4 that do not wait for each other.
template <std::size_t n>
EIGEN_ALWAYS_INLINE Packet<double> polynomial(const std::array<double, n>& coefficients, Packet<double> x) {
    using P = Packet<double>;
    const auto square = x * x, fourth = square * square;
    const auto every_fourth = [&](std::size_t first) {
        std::size_t i = first + (n - 1 - first) / 4 * 4;
        P sum = coefficients[i];
        for (; i >= 4; i -= 4) sum = madd(sum, fourth, coefficients[i - 4]);
        return sum;
    };
    return madd(madd(every_fourth(3), x, every_fourth(2)), square, madd(every_fourth(1), x, every_fourth(0)));
}

/// e^x - 1 - x for |x| <= 1/2, without cancellation: Taylor's series, relative error 1e-17.
EIGEN_ALWAYS_INLINE Packet<double> psi_small(Packet<double> x) {
    constexpr auto inverse_factorials = [] {
        std::array<double, 15> list{};
        double factorial = 1;
        for (std::size_t i = 0; i < list.size(); ++i) list[i] = 1 / (factorial *= static_cast<double>(i + 2));
        return list;
    }();
    return (x * x) * polynomial(inverse_factorials, x);
}

/// log(1 + w) for 0 <= w <= e^{-1/2}, from inverse = 1/(2 + w): 2 artanh(w/(2+w)), relative error 1e-17.
EIGEN_ALWAYS_INLINE Packet<double> log1p_small(Packet<double> w, Packet<double> inverse) {
    constexpr auto coefficients = [] {
        std::array<double, 13> list{};
        for (std::size_t i = 0; i < list.size(); ++i) list[i] = 2 / (2 * static_cast<double>(i) + 1);
        return list;
    }();
    const auto u = w * inverse;
    return u * polynomial(coefficients, u * u);
}

/// y tanh y - log cosh y for 0 <= y <= 1/4: the series of the integral of y/cosh^2 y, relative error 1e-17.
EIGEN_ALWAYS_INLINE Packet<double> share_information_small(Packet<double> y) {
    using P = Packet<double>;
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
    const P square = y * y;
    return square * polynomial(coefficients, square);
}

/// What a key with weights p and q adds to the sums of a divergence, x = log(q/p): q - p, |q - p|, p (e^x - 1 - x),
/// q (e^-x - 1 + x) and (p+q)/2 (log 2 - h(p/(p+q))), h the binary entropy: what knowing the row of a key tells of it.
EIGEN_ALWAYS_INLINE Packets<double, 5> divergence_terms(Packet<double> log_larger, Packet<double> x) {
    using P = Packet<double>;
    const P zero = 0.0, half = 0.5, one = 1.0;
    // The weights are top and top w, w = e^{-s}; what each sum gets is divided by top.
    const auto s = abs(x), top = exp_nonpositive(min(log_larger, zero));
    const auto near = select_below(s, half, s, zero), psi = psi_small(zero - near);
    auto apart = near - psi, w = one - apart;
    // 1 - w - w s = s^2 - (1+s)(w - 1 + s)
    auto of_top = psi, of_other = near * near - (one + near) * psi;
    auto information = share_information_small(half * near);
    constexpr double below_half = 0.5 - std::numeric_limits<double>::epsilon() / 4;
    if (any_below(below_half, s)) {
        w = select_below(s, half, w, exp_nonpositive(zero - s));
        apart = one - w;
        of_top = select_below(s, half, psi, s - apart);
        of_other = select_below(s, half, of_other, apart - w * s);
        apart = select_below(s, half, near - psi, apart);
        // log 2 - log(1+w) - s w/(1+w)
        const auto both = one + w, more = one + both, inverse = one / (both * more);
        const auto far = (std::numbers::ln2 - log1p_small(w, both * inverse)) - (s * w) * (more * inverse);
        information = select_below(s, half, information, far);
    }
    const auto p_is_top = [&](const auto& yes, const auto& no) { return top * select_below(x, zero, yes, no); };
    const auto mean = top * (half * (one + w));
    return {{p_is_top(zero - apart, apart), top * apart, p_is_top(of_top, of_other), p_is_top(of_other, of_top),
             mean * information}};
}

/// The sums of `divergence_terms` over n keys; key(lane) gives log max(p, q), below -745 for what is no key, and x. Where
/// rows are nearly equal,
/// the rounding of what all x have in common counts beside them. Weights sum to 1: it is what sum (q - p) has to be 0.
template <class Key>
std::array<double, 5> divergence_sums(Index n, const Key& key) {
    const auto sums_less = [&](double excess) {
        return sum_lanes<double, 5>(n, [&](const auto& lane) {
            const Packets<double, 2> packets = key(lane);
            return divergence_terms(packets.v[0], packets.v[1] - excess);
        });
    };
    const std::array<double, 5> sums = sums_less(0);
    return std::abs(sums[0]) > 1e-14 * sums[1] ? sums_less(std::log1p(sums[0])) : sums;
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
};

/// What the keys of a pair of rows have in common.
struct PairFacts {
    bool a_lacks = false, b_lacks = false; ///< the row hides a key that the other weighs
    bool meet = false;                     ///< a key that both see
    double logit_difference = 0;
};

inline Divergence divergence_of(const std::array<double, 5>& sums, const PairFacts& facts) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    Divergence result;
    result.status = RowStatus::normal;
    result.total_variation = std::min(1.0, sums[1] / 2);
    result.forward = facts.b_lacks ? infinity : sums[2];
    result.backward = facts.a_lacks ? infinity : sums[3];
    result.jensen_shannon = facts.meet ? std::min(std::numbers::ln2, sums[4]) : std::numbers::ln2;
    result.logit_difference = facts.logit_difference;
    return result;
}

/// Stands for the logarithm of a weight of 0.
inline constexpr double hidden_log = -2000;

/// log max(p, q) and x = log(q/p) of every key.
template <Real T>
PairFacts log_ratios(const RowPair<T>& pair, std::vector<double>& larger, std::vector<double>& x) {
    // A hidden key stands where its weight is 0 and nothing is infinite; so do keys at the end of the range.
    constexpr double hidden = hidden_log, lowest = std::numeric_limits<double>::lowest() / 4;
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

/// The divergence of rows that see every key, without a difference of logits that overflows: nothing is stored.
/// False for others.
inline bool plain_divergence(RowIn<double> a, RowIn<double> b, double temperature, Divergence& result) {
    using P = Packet<double>;
    constexpr double most = std::numeric_limits<double>::max() / 8;
    const RowRange<double> range_a = row_range<double>(a), range_b = row_range<double>(b);
    const double spread = std::max(range_a.max - range_a.min, range_b.max - range_b.min);
    if (!(spread <= most && spread / temperature <= most && has_inverse<double>(temperature))) return false;
    const double inverse = clamped_inverse<double>(temperature);
    const std::size_t k = first_not_below<double>(a, range_a.max),
                      of_b = first_not_below<double>(b, range_b.max);
    if (k == a.size() || of_b == b.size()) return false;
    const auto mass = [&](RowIn<double> z,
                          std::size_t top) { // log sum e^{(z - max z)/T}, digits of sharp rows kept
        double others = 0;
        for (const RowIn<double> part : {z.first(top), z.subspan(top + 1)})
            others += exp_sum<false, double>(part, z[top], inverse, nullptr);
        return std::log1p(others);
    };
    const double log_a = mass(a, k), log_b = mass(b, of_b);
    if (!(log_a == log_a && log_b == log_b)) return false; // NaN in a row
    // x = (b_i - a_i)/T - (b_k - a_k)/T - offset, the differences exact.
    const ExactDifference<double> of_k(b[k], a[k]);
    const P value_k = of_k.value, rest_k = of_k.rest, unit = temperature,
            offset = (range_b.max - b[k]) / temperature + (log_b - log_a), top_a = range_a.max,
            top_b = range_b.max, mass_a = log_a, mass_b = log_b;
    const bool divide = temperature != 1;
    const auto over = [&](P z) { return divide ? z / unit : z; };
    P difference = 0.0;
    const auto sums = divergence_sums(size<double>(a), [&](const auto& lane) {
        const auto x = lane(a.data(), a[k]), y = lane(b.data(), b[k]);
        const auto value = y - x, back = value - y,
                   rest = (y - (value - back)) - (x + back); // as `ExactDifference`
        difference = max(difference, abs(value));
        const auto ratio = over((value - value_k) + (rest - rest_k)) - offset;
        const auto log_p = over(x - top_a) - mass_a, log_q = over(y - top_b) - mass_b;
        Packets<double, 2> key{{max(log_p, log_q), ratio}};
        if constexpr (std::same_as<std::decay_t<decltype(lane)>, PartialLane<double>>) {
            P::Elements logs;
            logs.fill(hidden_log);
            key.v[0].store_partial(logs.data(), lane.count);
            key.v[0] = P::load(logs.data());
        }
        return key;
    });
    result = divergence_of(sums, {false, false, true, reduce_max(difference)});
    return true;
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
/// Cost. O(n). Allocates two rows for float, and two more where a row hides keys or a temperature has no inverse.
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
        Divergence result;
        if constexpr (std::same_as<T, double>)
            if (detail::plain_divergence(a, b, temperature, result)) return result;
        const auto first = row_statistics<T>(a, temperature), second = row_statistics<T>(b, temperature);
        const auto worse = [](RowStatus x, RowStatus y) {
            for (const RowStatus status : {RowStatus::nan, RowStatus::infinite, RowStatus::empty})
                if (x == status || y == status) return status;
            return RowStatus::normal;
        };
        result.status = worse(first.status, second.status);
        if (result.status != RowStatus::normal) return result;
        // x = (b_i - b_k)/T - (a_i - a_k)/T - offset, k the first key of a, if b sees it.
        const T unit = static_cast<T>(temperature), mass_a = std::log1p(first.r), mass_b = std::log1p(second.r);
        const T b_k = detail::at(b, first.argmax);
        const detail::RowPair<T> pair{
            a,    b,      first,  second,
            unit, mass_a, mass_b, detail::temperatures_apart(second.max_logit, b_k, unit) + (mass_b - mass_a)};
        std::vector<double> larger(a.size()), x(a.size()); // log max(p, q)
        const detail::PairFacts facts = detail::log_ratios(pair, larger, x);
        const auto sums = detail::divergence_sums(detail::size<T>(a), [&](const auto& lane) {
            return detail::Packets<double, 2>{{lane(larger.data(), detail::hidden_log), lane(x.data(), 0.0)}};
        });
        return detail::divergence_of(sums, facts);
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

} // namespace v0_2
} // namespace attnscope
