// Entropy of a softmax row, and what the spread of its logits or its largest weight say about it.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Entropy of softmax(z/T), in nats, in [0, log visible].
/// Formula. H = -sum p log p; relative error as of `row_statistics`.
/// Special rows. NaN for an empty, NaN or +inf row.
/// Cost. O(n), no allocation for contiguous rows.
/// Throws. `invalid_argument` unless T > 0 and finite.
template <RowLike Z>
Accumulator<RowScalar<Z>> entropy_nats(const Z& z, double temperature = 1) {
    return row_statistics(z, temperature).entropy_nats();
}

/// Entropy of given weights, in nats. Prefer logits where there are any: a stored weight near 1 no longer
/// knows its entropy.
/// Formula. -sum p log p; weights of 0 contribute nothing, and the weights are taken as they are (they should
/// sum to 1).
/// Special rows. NaN for a negative weight and for NaN.
/// Cost. O(n), no allocation for contiguous rows.
template <RowLike P>
Accumulator<RowScalar<P>> entropy_of_weights(const P& weights) {
    using T = RowScalar<P>;
    const RowHolder<T> row(weights);
    Accumulator<T> sum = 0;
    for (const T p : row.get())
        if (p != T(0)) sum -= Accumulator<T>(p) * std::log(Accumulator<T>(p));
    return sum;
}

/// Length of the logits without their mean.
/// Formula. |z/T - mean(z/T)|_2 over the visible keys; relative error (n/2 + 4) units.
/// Special rows. 0 if no key is visible, NaN if a logit is NaN or +inf.
/// Cost. O(n), two passes, no allocation.
/// Throws. `invalid_argument` unless T > 0 and finite.
template <Real T>
Accumulator<T> centred_norm(RowIn<T> z, double temperature = 1) {
    using A = Accumulator<T>;
    detail::checked_temperature("centred_norm", temperature);
    const T masked = -std::numeric_limits<T>::infinity();
    const auto first = std::find_if(z.begin(), z.end(), [&](T x) { return x != masked; });
    if (first == z.end()) return 0;
    // Distances from one of the keys, so that an offset of all logits is without effect, in units of a power of two
    // near the largest of them, so that neither they nor their squares overflow or vanish.
    const A origin = *first, half = A(0.5);
    A widest = 0;
    for (const T x : z)
        if (x != masked) widest = std::max(widest, std::abs(half * A(x) - half * origin));
    if (!(widest <= std::numeric_limits<A>::max())) return std::numeric_limits<A>::quiet_NaN();
    const int exponent = widest > 0 ? std::clamp(std::ilogb(widest), -1000, 1000) : 0;
    const A unit = std::ldexp(A(1), -exponent);
    const auto distance = [&](T x) {
        const A direct = A(x) - origin;
        return std::isinf(direct) ? 2 * ((half * A(x) - half * origin) * unit) : direct * unit;
    };
    A sum = 0, squares = 0;
    Index n = 0;
    for (const T x : z)
        if (x != masked) sum += distance(x), ++n;
    const A mean = sum / static_cast<A>(n);
    for (const T x : z)
        if (x != masked) squares += (distance(x) - mean) * (distance(x) - mean);
    return std::ldexp(std::sqrt(squares) / A(temperature), exponent);
}

/// As above from any row.
template <RowLike Z>
Accumulator<RowScalar<Z>> centred_norm(const Z& z, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return centred_norm<T>(row.get(), temperature);
}

/// Least entropy of n keys whose centred logits z/T have norm at most sigma, in nats.
/// Formula. log(1+(n-1)b) + sigma sqrt(n(n-1)) b/(1+(n-1)b), b = exp(-sigma sqrt(n/(n-1))). Attained by one
/// key above equal others.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and sigma >= 0.
/// Source. arXiv:2303.06296, Theorem 3.1.
template <Number S, Real A = Promoted<S>>
A entropy_floor_by_norm(Index n, S sigma) {
    detail::require(n >= 1, "entropy_floor_by_norm", "n must be >= 1", n);
    detail::require(A(sigma) >= 0, "entropy_floor_by_norm", "sigma must be >= 0", sigma);
    if (n == 1) return A(0);
    const A count = static_cast<A>(n), others = count - 1;
    const A b = std::exp(-A(sigma) * std::sqrt(count / others));
    return std::log1p(others * b) +
           (b > A(0) ? A(sigma) * std::sqrt(count * others) * b / (1 + others * b) : A(0));
}

/// Least entropy of n keys whose logits z/T lie within a range of D, in nats.
/// Formula. min over 1 <= k < n of log N_k + (n-k) D e^{-D}/N_k, N_k = k + (n-k) e^{-D}. Attained by k keys
/// at the top of the range and the rest at its bottom.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` unless n >= 1 and D >= 0.
template <Number D, Real A = Promoted<D>>
A entropy_floor_by_range(Index n, D spread) {
    detail::require(n >= 1, "entropy_floor_by_range", "n must be >= 1", n);
    detail::require(A(spread) >= 0, "entropy_floor_by_range", "spread must be >= 0", spread);
    if (n == 1) return A(0);
    const A low = std::exp(-A(spread));
    A floor = std::numeric_limits<A>::infinity();
    for (Index k = 1; k < n; ++k) {
        const A top = static_cast<A>(k), bottom = static_cast<A>(n - k) * low;
        // log N_1 as log1p keeps its digits when the rest is negligible.
        const A log_sum = std::log1p((top - 1) + bottom);
        floor = std::min(floor, log_sum + (low > A(0) ? A(spread) * bottom / (top + bottom) : A(0)));
    }
    return floor;
}

/// Range of the entropy of n keys whose largest weight is p1 in [1/n, 1], in nats.
/// Formula. -m p1 log p1 - t log t <= H <= h(p1) + (1-p1) log(n-1), m = floor(1/p1), t = 1 - m p1, h the binary
/// entropy. Upper end attained by equal others, lower end by m keys at p1 and one with the rest.
/// Shapes and units. `others` = 1 - p1 is passed beside p1, because near p1 = 1 it cannot be recovered.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and p1 in (0,1].
template <Number P, Number R, Real A = Promoted<P, R>>
Interval<A> entropy_range_by_max_weight(Index n, P largest, R others) {
    const A p1(largest), rest(others);
    detail::require(n >= 1, "entropy_range_by_max_weight", "n must be >= 1", n);
    detail::require(p1 > A(0) && p1 <= A(1), "entropy_range_by_max_weight", "p1 must be in (0,1]", p1);
    const A surprise = p1 > A(0.5) ? -std::log1p(-rest) : -std::log(p1);
    if (n == 1 || rest <= A(0)) return {std::max(surprise, A(0)), std::max(surprise, A(0))};
    const A own = p1 * surprise, split = own - rest * std::log(rest);
    const A upper = split + rest * std::log(static_cast<A>(n - 1));
    if (p1 > A(0.5)) return {split, upper};
    // A share too small for its digits is 0: H is continuous there.
    const A equal = std::min(std::floor(1 / p1), static_cast<A>(n)), left = std::max(A(0), 1 - equal * p1);
    return {std::max(surprise * (equal * p1) - (left > A(0) ? left * std::log(left) : A(0)), surprise), upper};
}

namespace detail {

/// Rounding error of an entropy computed from row sums: relative, plus that of a limit of the same size, plus
/// the entropy e^{-u} (1+u) of each key that underflows, at most that at the smallest normal number.
template <Real A>
A entropy_tolerance(const RowStatistics<A>& row, A limit) {
    const A lost = row.underflow();
    return 2 * row.sum_error() * row.entropy_nats() +
           16 * std::numeric_limits<A>::epsilon() * (std::abs(limit) + row.entropy_nats()) +
           (lost > A(0) ? lost * (1 - std::log(lost / static_cast<A>(row.visible))) : A(0));
}

} // namespace detail

inline constexpr Statement entropy_floor_norm_statement{
    .id = "entropy_floor_norm",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "H >= min over rows of L keys with |z - mean z|/T = sigma",
    .conditions = "softmax",
    .source = "one key apart from equal others",
};

/// Bound "entropy_floor_norm": H >= `entropy_floor_by_norm` at the row's own centred norm.
/// Shapes and units. `sigma`: from `centred_norm`.
/// Special rows. Undefined on rows that are not normal.
/// Cost. O(1).
/// Throws. `invalid_argument` on a normal row unless sigma >= 0.
template <Real A>
Bound<A> entropy_floor_norm_bound(const RowStatistics<A>& row, std::type_identity_t<A> sigma) {
    auto bound = lower_bound<A>(entropy_floor_norm_statement, {.measured = row.entropy_nats(), .trivial = 0});
    if (!row.normal()) return bound;
    bound.value = entropy_floor_by_norm(row.visible, sigma);
    // d floor / d sigma = -sigma-weighted entropy slope, at most sigma sqrt(n) b terms; sigma itself is exact
    // to (n/2 + 4) units relative, and |sigma d floor/d sigma| <= (1 + sigma sqrt(n/(n-1))) floor.
    const A relative = std::numeric_limits<A>::epsilon() * (static_cast<A>(row.visible) / 2 + 4);
    bound.tolerance = detail::entropy_tolerance(row, bound.value) + relative * (1 + 2 * sigma) * bound.value;
    return bound;
}

inline constexpr Statement entropy_floor_range_statement{
    .id = "entropy_floor_range",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "H >= min over rows of L keys with (max z - min z)/T = D",
    .conditions = "softmax",
    .source = "two levels",
};

/// Bound "entropy_floor_range": H >= `entropy_floor_by_range` at the row's own spread.
/// Special rows. Undefined on rows that are not normal.
/// Cost. O(n).
template <Real A>
Bound<A> entropy_floor_range_bound(const RowStatistics<A>& row) {
    auto bound = lower_bound<A>(entropy_floor_range_statement, {.measured = row.entropy_nats(), .trivial = 0});
    if (!row.normal()) return bound;
    const A spread = row.logit_spread() / A(row.temperature);
    bound.value = entropy_floor_by_range(row.visible, spread);
    // |D d floor/d D| <= (1 + D) floor, and D is exact to 2 units.
    bound.tolerance = detail::entropy_tolerance(row, bound.value) +
                      2 * std::numeric_limits<A>::epsilon() * (1 + spread) * bound.value;
    return bound;
}

inline constexpr Statement entropy_max_weight_statement{
    .id = "entropy_max_weight",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "H(floor(1/p1) keys at p1, one with the rest) <= H <= H(p1, equal others)",
    .conditions = "weights that sum to 1, p1 the largest",
    .source = "Schur concavity",
};

/// Bounds "entropy_max_weight": both sides of `entropy_range_by_max_weight`.
/// Special rows. Undefined on rows that are not normal.
/// Cost. O(1).
template <Real A>
BoundPair<A> entropy_max_weight_bounds(const RowStatistics<A>& row) {
    const A h = row.entropy_nats();
    BoundPair<A> pair{lower_bound<A>(entropy_max_weight_statement, {.measured = h, .trivial = 0}),
                      upper_bound<A>(entropy_max_weight_statement, {.measured = h})};
    if (!row.normal()) return pair;
    const Interval<A> range = entropy_range_by_max_weight(row.visible, row.max_weight(), row.rest());
    pair[0].value = range.lower;
    pair[1].value = range.upper;
    pair[1].trivial = std::log(static_cast<A>(row.visible));
    for (auto& bound : pair) {
        // Both ends are sums of terms linear in r up to logarithms: two relative errors of r, one for log r.
        bound.tolerance = detail::entropy_tolerance(row, range.upper) + 2 * row.sum_error() * (h + row.rest());
    }
    // 1 - floor(1/p1) p1 is exact to the error e of p1 alone: -t log t moves by -e log e at most.
    if (const A e = row.sum_error() + 4 * std::numeric_limits<A>::epsilon();
        row.max_weight() <= A(0.5) * (1 + e))
        pair[0].tolerance -= e * std::log(e);
    return pair;
}

} // namespace v0_2
} // namespace attnscope
