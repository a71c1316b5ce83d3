// Norms of the Jacobian dp/dz of one row in closed form: softmax and its kin.
#pragma once

#include <attnscope/normalizer/entmax.hpp>
#include <attnscope/normalizer/scaled_softmax.hpp>
#include <attnscope/normalizer/sigmoid_attention.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/row/row_statistics.hpp>
#include <attnscope/sensitivity/spectral_norm.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Norms of J = dp/dz on one row; unit: weight per logit.
template <Real A>
struct JacobianNorms {
    A max_entry = nan();                       ///< max_ij |J_ij|
    A column = nan();                          ///< 1->2: largest 2-norm of a column
    SpectralNorm<A> spectral;                  ///< 2->2
    A frobenius = nan();                       ///< sqrt(sum J_ij^2)
    A one = nan();                             ///< 1->1: largest absolute column sum
    A infinity = nan();                        ///< inf->inf: largest absolute row sum
    Interval<A> infinity_to_one{nan(), nan()}; ///< inf->1, bracketed (its exact value is a partition problem)

    static constexpr A nan() { return std::numeric_limits<A>::quiet_NaN(); }
};

namespace detail {

/// Norms of a matrix of zeros: of rows in which nothing moves.
template <Real A>
JacobianNorms<A> zero_norms() {
    return {0, 0, {0, {0, 0}, 0, true}, 0, 0, 0, {0, 0}};
}

/// Norms of the matrix times `factor` >= 0.
template <Real A>
JacobianNorms<A> scaled(JacobianNorms<A> norms, A factor) {
    for (A* norm : {&norms.max_entry, &norms.column, &norms.spectral.value, &norms.spectral.bracket.lower,
                    &norms.spectral.bracket.upper, &norms.frobenius, &norms.one, &norms.infinity,
                    &norms.infinity_to_one.lower, &norms.infinity_to_one.upper})
        *norm *= factor;
    return norms;
}

} // namespace detail

namespace detail {

/// Sums over a row of weights without its largest entry p1, the quantities that keep their digits near one-hot.
template <Real A>
struct RestSums {
    std::size_t top = 0;
    A p1 = 0, p2 = 0;
    A rest = 0;    ///< 1 - p1
    A squares = 0; ///< sum_{j>=2} p_j^2
    A cubes = 0;
};

/// Added up in the accumulator scalar, in several sums side by side. NaN throughout for a row with NaN.
template <Real T>
RestSums<Accumulator<T>> rest_sums(RowIn<T> p) {
    using A = Accumulator<T>;
    RestSums<A> sums;
    const T largest = row_max<T>(p);
    sums.top = first_not_below<T>(p, largest);
    sums.p1 = A(largest);
    if (sums.top == p.size()) { // NaN, or nothing
        if (!p.empty())
            sums.p1 = sums.p2 = sums.rest = sums.squares = sums.cubes = std::numeric_limits<A>::quiet_NaN();
        return sums;
    }
    constexpr std::size_t width = 16;
    std::array<A, width> rest{}, squares{}, cubes{};
    for (const RowIn<T> part : {p.first(sums.top), p.subspan(sums.top + 1)}) {
        if (!part.empty()) sums.p2 = std::max(sums.p2, A(row_max<T>(part)));
        const auto add = [&](std::size_t j, A x) {
            rest[j] += x;
            squares[j] += x * x;
            cubes[j] += x * x * x;
        };
        std::size_t i = 0;
        for (; i + width <= part.size(); i += width)
            for (std::size_t j = 0; j < width; ++j) add(j, A(part[i + j]));
        for (; i < part.size(); ++i) add(i % width, A(part[i]));
    }
    for (std::size_t j = 0; j < width; ++j) {
        sums.rest += rest[j];
        sums.squares += squares[j];
        sums.cubes += cubes[j];
    }
    return sums;
}

/// max over S of 4 p(S)(1-p(S)): exact when one weight is at least 1/2 (S = that key), otherwise in [1 - p1^2,
/// 1].
template <Real A>
Interval<A> cut_norm(const RestSums<A>& sums) {
    if (sums.p1 >= A(0.5)) {
        const A exact = 4 * sums.p1 * sums.rest;
        return {exact, exact};
    }
    if (sums.p1 == A(0)) return {A(0), A(0)}; // no key has weight
    return {1 - sums.p1 * sums.p1, A(1)};
}

} // namespace detail

/// Norms of the softmax Jacobian from the weights of a normal row (z is not looked at).
/// Formula. J = (diag p - p p^T)/T. All by closed forms that keep full relative accuracy near one-hot rows;
/// the spectral norm by `diagonal_minus_rank_one_norm`; inf->1 exactly when p1 >= 1/2, else within [1-p1^2,
/// 1]/T. Attained constants over all rows: 1/(4T), sqrt2/(4T), 1/(2T), 1/(2T), 1/(2T), 1/T at p = (1/2, 1/2,
/// 0, ...).
/// Special rows. An empty row gives 0, a NaN row NaN.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` when the lengths differ.
template <Real T>
JacobianNorms<Accumulator<T>> jacobian_norms(const Softmax& softmax, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const SpectralNorm<T> spectral = diagonal_minus_rank_one_norm<T>(p);
    if (p.empty() || !(spectral.value == spectral.value)) {
        if (p.empty()) norms = detail::zero_norms<A>();
        return norms;
    }
    const auto sums = detail::rest_sums<T>(p);
    // Divided by T, because 1/T may overflow where a norm is 0.
    const A temperature = A(softmax.temperature());
    const A p1 = sums.p1, p2 = sums.p2;
    // Squares and cubes of the other weights in units of `scale`: if those weights are so small that their
    // squares would underflow, the unit is their sum, beside which the cubes vanish.
    A scale = 1, rest = sums.rest, q = sums.squares, cubes = sums.cubes;
    constexpr A unit = std::numeric_limits<A>::epsilon(), tiny = std::numeric_limits<A>::min() / unit / unit;
    if (rest > A(0) && rest * rest < tiny) {
        scale = rest;
        rest = 1;
        q = cubes = 0;
        for (std::size_t i = 0; i < p.size(); ++i)
            if (const A x = i == sums.top ? A(0) : A(p[i]) / scale; x > A(0)) q += x * x;
    }
    // An entry p_i (1-p_i) is largest at p1: p2 <= 1-p1. A column is longest at p1 or p2.
    norms.max_entry = p1 * sums.rest / temperature;
    const A first = p1 * scale * std::sqrt(rest * rest + q);
    const A others = 1 - 2 * p2 + p1 * p1 + sums.squares; // (1-p2)^2 + sum_{j != 2} p_j^2, all of it of order 1
    norms.column = std::max(first, p2 * std::sqrt(std::max(others, A(0)))) / temperature;
    norms.spectral = {A(spectral.value) / temperature,
                      {A(spectral.bracket.lower) / temperature, A(spectral.bracket.upper) / temperature},
                      spectral.steps,
                      spectral.converged};
    norms.frobenius = scale *
                      std::sqrt(p1 * p1 * (rest * rest + q) + q * (1 + p1 * p1 + sums.squares) - 2 * cubes) /
                      temperature;
    norms.one = norms.infinity = 2 * norms.max_entry;
    norms.infinity_to_one = detail::cut_norm(sums);
    norms.infinity_to_one.lower /= temperature;
    norms.infinity_to_one.upper /= temperature;
    return norms;
}

/// Certified bracket of |J|_2 of softmax from the sums of a row alone, so that it streams: see
/// `spectral_norm_bracket`.
/// Special rows. NaN for rows that are not normal.
/// Cost. O(1).
template <Real A>
Interval<A> softmax_spectral_bracket(const RowStatistics<A>& row) {
    if (!row.normal()) return {RowStatistics<A>::nan(), RowStatistics<A>::nan()};
    const A p1 = row.max_weight(), temperature = A(row.temperature);
    const Interval<A> bracket =
        spectral_norm_bracket(p1, row.second_weight(), row.rest(), row.r > A(0) ? p1 * (row.q / row.r) : A(0));
    return {bracket.lower / temperature, bracket.upper / temperature};
}

/// Softmax at an inverse temperature that depends on the number of visible keys.
template <class N, class T>
concept LengthScaled = Normalizer<N, T> && Normalizer<N, Accumulator<T>> && requires(const N n) {
    n.schedule();
    { n.inverse_temperature(Index(1)) } -> std::same_as<double>;
};

/// Norms of beta (diag p - p p^T), for softmax whose inverse temperature depends on the length: formula,
/// special rows and cost as for softmax.
/// Throws. `invalid_argument` when the lengths differ.
template <class N, Real T>
requires LengthScaled<N, T>
JacobianNorms<Accumulator<T>> jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    detail::require_same_size<T>("jacobian_norms", z, p);
    const double beta = normalizer.inverse_temperature(detail::count_visible<T>(z));
    if (beta > 0) // kept inside the normal numbers, so that its inverse is a temperature
        return jacobian_norms<T>(Softmax(1 / std::clamp(beta, std::numeric_limits<double>::min(),
                                                        std::numeric_limits<double>::max())),
                                 z, p);
    JacobianNorms<Accumulator<T>> norms;
    // Equal weights whatever the logits are.
    if (std::none_of(p.begin(), p.end(), [](T x) { return x != x; }))
        norms = detail::zero_norms<Accumulator<T>>();
    return norms;
}

/// Norms of softmax with a sink, which takes what the weights lack from 1.
/// Formula. J = diag p - p p^T. Spectral norm by `diagonal_minus_rank_one_norm` with the sink's mass; inf->1
/// within [spectral norm, sum of absolute entries].
/// Special rows. An empty row gives 0, a NaN row NaN.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` when the lengths differ.
template <Real T>
JacobianNorms<Accumulator<T>> jacobian_norms(const SinkSoftmax& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const A sink = normalizer.sink_mass<T>(z);
    const SpectralNorm<T> spectral = diagonal_minus_rank_one_norm<T>(p, T(0), static_cast<T>(sink));
    if (!(spectral.value == spectral.value) || !(sink == sink)) return norms;
    norms = detail::zero_norms<A>();
    if (p.empty()) return norms;
    const auto sums = detail::rest_sums<T>(p);
    A squares = 0, all = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        const A w = p[i];
        const bool top = i == sums.top;
        const A others = top ? sums.rest : sums.p1 + std::max(A(0), sums.rest - w); // weight of the other keys
        const A without = top ? others + sink : 1 - w;
        const A other_squares = top ? sums.squares : sums.p1 * sums.p1 + std::max(A(0), sums.squares - w * w);
        const A column = w * std::sqrt(without * without + other_squares), sum = w * (without + others);
        norms.max_entry = std::max({norms.max_entry, w * without, top ? w * sums.p2 : A(0)});
        norms.column = std::max(norms.column, column);
        norms.one = std::max(norms.one, sum);
        squares += column * column;
        all += sum;
    }
    norms.infinity = norms.one;
    norms.frobenius = std::sqrt(squares);
    norms.spectral = {A(spectral.value),
                      {A(spectral.bracket.lower), A(spectral.bracket.upper)},
                      spectral.steps,
                      spectral.converged};
    norms.infinity_to_one = {norms.spectral.value, all};
    return norms;
}

/// Norms of sigmoid attention, exactly.
/// Formula. J = diag(p (1 - p)): all but Frobenius and inf->1 are the largest entry, which is at most 1/4.
/// Special rows. A NaN row gives NaN, an empty one 0.
/// Cost. O(n), allocates one row.
/// Throws. `invalid_argument` when the lengths differ.
template <Real T>
JacobianNorms<Accumulator<T>> jacobian_norms(const SigmoidAttention& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    std::vector<T> slopes(z.size());
    normalizer.parameter_derivative<T>(z, p, RowOut<T>(slopes));
    A largest = 0, squares = 0, sum = 0;
    for (const T slope : slopes) {
        largest = std::max(largest, A(slope));
        squares += A(slope) * A(slope);
        sum += A(slope);
    }
    if (!(sum == sum)) return {};
    return {largest, largest,   {largest, {largest, largest}, 0, true}, std::sqrt(squares), largest,
            largest, {sum, sum}};
}

/// alpha-entmax and what derives from it.
template <class N, class T>
concept EntmaxLike = Normalizer<N, T> && Normalizer<N, Accumulator<T>> && std::derived_from<N, Entmax>;

/// Norms of alpha-entmax.
/// Formula. J = diag(s) - s s^T/sum s, s = p^{2-alpha} on the support: with w = s/sum s this is sum s times
/// the matrix of softmax at the weights w, and everything said there holds.
/// Cost. O(n), allocates one row.
/// Throws. `invalid_argument` when the lengths differ.
template <class N, Real T>
requires EntmaxLike<N, T>
JacobianNorms<Accumulator<T>> jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    std::vector<A> shares(p.begin(), p.end());
    normalizer.template slopes<A>(RowIn<A>(shares), RowOut<A>(shares));
    A sum = 0;
    for (const A s : shares) sum += s;
    if (sum == A(0)) return detail::zero_norms<A>();
    for (A& s : shares) s /= sum;
    return detail::scaled(jacobian_norms<A>(Softmax(), RowIn<A>(shares), RowIn<A>(shares)), sum);
}

} // namespace v0_2
} // namespace attnscope
