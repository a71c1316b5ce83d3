// Norms of the Jacobian dp/dz of one row, exact, for softmax and for the paper's general family.
#pragma once

#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/normalizer/scaled_softmax.hpp>
#include <attnscope/normalizer/sigmoid_attention.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/sensitivity/spectral_norm.hpp>

#include <numeric>
#include <vector>

namespace attnscope {
inline namespace v0_1 {

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

/// Sums over a row of weights without its largest entry p1, the quantities that keep their digits near one-hot.
template <Real A>
struct RestSums {
    std::size_t top = 0;
    A p1 = 0, p2 = 0;
    A rest = 0;    ///< 1 - p1
    A squares = 0; ///< sum_{j>=2} p_j^2
    A cubes = 0;
};

template <Real T>
RestSums<Accumulator<T>> rest_sums(RowIn<T> p) {
    RestSums<Accumulator<T>> sums;
    sums.top = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
    sums.p1 = p[sums.top];
    for (std::size_t i = 0; i < p.size(); ++i) {
        if (i == sums.top) continue;
        const Accumulator<T> x = p[i];
        sums.p2 = std::max(sums.p2, x);
        sums.rest += x;
        sums.squares += x * x;
        sums.cubes += x * x * x;
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
    return {1 - sums.p1 * sums.p1, A(1)};
}

} // namespace detail

/// Norms of the softmax Jacobian (diag p - p p^T)/T from the weights of a normal row (z is not looked at).
/// All by closed forms that keep full relative accuracy near one-hot rows; the spectral norm by
/// `diagonal_minus_rank_one_norm`; inf->1 exactly when p1 >= 1/2, else within [1-p1^2, 1]/T.
/// Attained constants over all rows: 1/(4T), sqrt2/(4T), 1/(2T), 1/(2T), 1/(2T), 1/T at p = (1/2, 1/2, 0, ...).
/// An empty row gives 0, a NaN row NaN. O(n), no allocation.
template <Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const Softmax& softmax, RowIn<T> z, RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const SpectralNorm<T> spectral = diagonal_minus_rank_one_norm<T>(p);
    if (p.empty() || !(spectral.value == spectral.value)) {
        if (p.empty()) norms = {A(0), A(0), {A(0), {A(0), A(0)}, 0, true}, A(0), A(0), A(0), {A(0), A(0)}};
        return norms;
    }
    const auto sums = detail::rest_sums<T>(p);
    const A beta = 1 / A(softmax.temperature());
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
    norms.max_entry = beta * p1 * sums.rest;
    const A first = p1 * scale * std::sqrt(rest * rest + q);
    const A others = 1 - 2 * p2 + p1 * p1 + sums.squares; // (1-p2)^2 + sum_{j != 2} p_j^2, all of it of order 1
    norms.column = beta * std::max(first, p2 * std::sqrt(std::max(others, A(0))));
    norms.spectral = {beta * A(spectral.value),
                      {beta * A(spectral.bracket.lower), beta * A(spectral.bracket.upper)},
                      spectral.steps,
                      spectral.converged};
    norms.frobenius =
        beta * scale * std::sqrt(p1 * p1 * (rest * rest + q) + q * (1 + p1 * p1 + sums.squares) - 2 * cubes);
    norms.one = norms.infinity = 2 * norms.max_entry;
    norms.infinity_to_one = detail::cut_norm(sums);
    norms.infinity_to_one.lower *= beta;
    norms.infinity_to_one.upper *= beta;
    return norms;
}

namespace detail {

/// Positive eigenvalues of a small symmetric matrix, by the symmetric elimination of Bunch and Parlett: pivots
/// of one row, or of two whose determinant is negative. A zero eigenvalue does not count.
template <class A, std::size_t N>
int positive_eigenvalues(std::array<std::array<A, N>, N> m) {
    std::array<bool, N> done{};
    int count = 0;
    for (std::size_t left = N; left > 0;) {
        std::size_t d = N, p = N, q = N;
        for (std::size_t i = 0; i < N; ++i) {
            if (done[i]) continue;
            if (d == N || std::abs(m[i][i]) > std::abs(m[d][d])) d = i;
            for (std::size_t j = 0; j < i; ++j)
                if (!done[j] && (p == N || std::abs(m[i][j]) > std::abs(m[p][q]))) p = i, q = j;
        }
        const A diagonal = m[d][d];
        if (p == N || std::abs(diagonal) >= A(0.64) * std::abs(m[p][q])) {
            if (!(std::abs(diagonal) > A(0))) return count;
            count += diagonal > A(0);
            done[d] = true;
            --left;
            for (std::size_t i = 0; i < N; ++i)
                if (!done[i]) {
                    const A factor = m[i][d] / diagonal;
                    for (std::size_t j = 0; j < N; ++j)
                        if (!done[j]) m[i][j] -= factor * m[d][j];
                }
        } else {
            ++count;
            done[p] = done[q] = true;
            left -= 2;
            const A off = m[p][q], a = m[p][p] / off, c = m[q][q] / off, det = a * c - 1;
            for (std::size_t i = 0; i < N; ++i)
                if (!done[i]) {
                    const A x = m[i][p] / off, y = m[i][q] / off;
                    const A of_p = (c * x - y) / det, of_q = (a * y - x) / det;
                    for (std::size_t j = 0; j < N; ++j)
                        if (!done[j]) m[i][j] -= of_p * m[p][j] + of_q * m[q][j];
                }
        }
    }
    return count;
}

/// Eigenvalue counting for J^T J of J = (I - p 1^T) diag(g). With the row of the largest weight eliminated
/// through 1^T J = 0, J^T J = [[c, -g1 (tau a + b)^T], [., diag(g^2) + gamma a a^T - a b^T - b a^T]] with a =
/// g, b = p g over the other keys, R = sum p, Q = sum p^2 over them, tau = R - Q - R^2, gamma = Q + (1-R)^2, c
/// = g1^2 (Q + R^2): no entry cancels when p1 is near 1.
template <class A, class Gradient, class Weight>
class GeneralJacobian {
public:
    GeneralJacobian(std::size_t n, const RestSums<A>& sums, Gradient g, Weight p)
        : n_(n), top_(sums.top), g_(g), p_(p), rest_(sums.rest) {
        const A q = sums.squares / rest_; // Q/R: keeps its digits where Q underflows
        tau_ = 1 - q - rest_;
        gamma_ = sums.squares + (1 - rest_) * (1 - rest_);
        g1_ = g(top_);
        corner_ = q / rest_ + 1;
    }

    /// Number of eigenvalues of J^T J above x > 0.
    int above(A x) const {
        int count = 0;
        A w11 = 0, w12 = 0, w22 = 0; // sum over keys of g^2/(g^2-x) (1, p/R)^T (1, p/R)
        const auto eliminate = [&](A square, A p, A distance) {
            if (distance == A(0)) distance = -x * std::numeric_limits<A>::epsilon();
            count += distance > A(0);
            const A ratio = square / distance;
            w11 += ratio;
            w12 += ratio * p;
            w22 += ratio * p * p;
        };
        // The key whose pole is nearest to x is not eliminated: dividing by a small distance costs digits.
        // Equal keys are one key, coupled by the root of their number, and copies that are not coupled.
        A kept_square = 0, kept_p = 0, kept_distance = std::numeric_limits<A>::infinity();
        int kept = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (i == top_) continue;
            const A g = g_(i), p = p_(i) / rest_, square = g * g, distance = square - x;
            if (kept > 0 && square == kept_square && p == kept_p) {
                ++kept;
            } else if (std::abs(distance) < std::abs(kept_distance)) {
                for (; kept > 0; --kept) eliminate(kept_square, kept_p, kept_distance);
                kept_square = square;
                kept_p = p;
                kept_distance = distance;
                kept = 1;
            } else {
                eliminate(square, p, distance);
            }
        }
        if (kept_square == A(0)) kept = 0; // not coupled, eigenvalue 0 < x
        count += kept > 1 && kept_distance > A(0) ? kept - 1 : 0;
        // Bordered matrix of the kept key, the two couplings a and b/R, their multipliers and the top key,
        // whose elimination in other orders gives J^T J - x and two eigenvalues of each sign. All entries are
        // of the size of 1 however small R is.
        const A t = g1_ == A(0) ? A(0) : A(1), r = rest_;
        const A key = kept > 0 ? kept_distance / (kept_square * static_cast<A>(kept)) : A(-1);
        const A one = kept > 0 ? A(1) : A(0), p = kept > 0 ? kept_p : A(0);
        const A top = t > A(0) ? corner_ - x / (g1_ * r) / (g1_ * r) : A(-1);
        return count +
               positive_eigenvalues<A, 6>({{{key, one, p, 0, 0, 0},
                                            {one, -w11, -w12, 1, 0, 0},
                                            {p, -w12, -w22, 0, 1, 0},
                                            {0, 1, 0, gamma_, -r, t * tau_},
                                            {0, 0, 1, -r, 0, t},
                                            {0, 0, 0, t * tau_, t, top}}}) -
               2;
    }

private:
    std::size_t n_, top_;
    Gradient g_;
    Weight p_;
    A rest_, tau_, gamma_, g1_, corner_;
};

} // namespace detail

/// Norms of the Jacobian (I - p 1^T) diag(g), g_i = p_i F'(z_i)/F(z_i), of the general family (theory: P Lemma
/// 2's exact counterpart), from logits and weights of a normal row. The spectral norm is found by bisection on
/// the count of eigenvalues of J^T J (diagonal plus rank two): about 60 counts of O(n) each, safe with ties and
/// poles. inf->1 is bracketed by [spectral norm, sum of absolute column sums]. An empty row gives 0, a NaN row
/// NaN. O(n), no allocation.
template <class F, Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const PointwiseNormalizer<F>& normalizer, RowIn<T> z,
                                                     RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    A mass = 0;
    for (const T x : p) mass += x;
    if (!(mass > 0)) {
        if (mass == 0) norms = {A(0), A(0), {A(0), {A(0), A(0)}, 0, true}, A(0), A(0), A(0), {A(0), A(0)}};
        return norms;
    }
    const auto sums = detail::rest_sums<T>(p);
    const auto weight = [&](std::size_t i) { return A(p[i]); };
    const auto gradient = [&](std::size_t i) {
        return p[i] == T(0) ? A(0) : A(p[i]) * normalizer.template log_derivative<A>(A(z[i]));
    };
    A columns = 0, column_sums = 0, others_gradient = 0; // others_gradient: sum of |g| without the top key
    norms.max_entry = norms.column = norms.one = norms.infinity = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (i != sums.top) others_gradient += std::abs(gradient(i));
    const A top_gradient = std::abs(gradient(sums.top));
    for (std::size_t i = 0; i < p.size(); ++i) {
        const A g = std::abs(gradient(i)), w = weight(i);
        const bool top = i == sums.top;
        const A without = top ? sums.rest : 1 - w; // 1 - p_i
        const A others = top ? sums.squares : std::max(A(0), sums.squares - w * w) + sums.p1 * sums.p1;
        const A square = g * g * (without * without + others);
        columns += square;
        norms.column = std::max(norms.column, std::sqrt(square));
        norms.max_entry = std::max({norms.max_entry, g * without, g * (top ? sums.p2 : sums.p1)});
        norms.one = std::max(norms.one, 2 * g * without);
        column_sums += 2 * g * without;
        const A elsewhere = top ? others_gradient : top_gradient + std::max(A(0), others_gradient - g);
        norms.infinity = std::max(norms.infinity, g * without + w * elsewhere);
    }
    norms.frobenius = std::sqrt(columns);

    const detail::GeneralJacobian<A, decltype(gradient), decltype(weight)> jacobian(p.size(), sums, gradient,
                                                                                    weight);
    A low = norms.column * norms.column, high = columns;
    norms.spectral.bracket = {norms.column, norms.frobenius};
    const A precision = std::numeric_limits<A>::epsilon();
    // low is at or below the largest eigenvalue, high at or above it.
    while (high - low > 2 * precision * high && norms.spectral.steps < 200) {
        const A middle = low + (high - low) / 2;
        ++norms.spectral.steps;
        (jacobian.above(middle) > 0 ? low : high) = middle;
    }
    norms.spectral.converged = high - low <= 2 * precision * high;
    norms.spectral.value = std::sqrt(low + (high - low) / 2);
    norms.infinity_to_one = {norms.spectral.value, column_sums};
    return norms;
}

/// Softmax at an inverse temperature that depends on the number of visible keys.
template <class N, class T>
concept LengthScaled = Normalizer<N, T> && Normalizer<N, detail::Accumulator<T>> && requires(const N n) {
    n.schedule();
    { n.inverse_temperature(Index(1)) } -> std::same_as<double>;
};

/// Norms of beta (diag p - p p^T), for softmax whose inverse temperature depends on the length: as for softmax.
template <class N, Real T>
requires LengthScaled<N, T> JacobianNorms<detail::Accumulator<T>> jacobian_norms(const N& normalizer,
                                                                                 RowIn<T> z, RowIn<T> p) {
    detail::require_same_size<T>("jacobian_norms", z, p);
    const double beta = normalizer.inverse_temperature(detail::count_visible<T>(z));
    if (beta > 0) // kept inside the normal numbers, so that its inverse is a temperature
        return jacobian_norms<T>(Softmax(1 / std::clamp(beta, std::numeric_limits<double>::min(),
                                                        std::numeric_limits<double>::max())),
                                 z, p);
    JacobianNorms<detail::Accumulator<T>> norms;
    // Equal weights whatever the logits are.
    if (std::none_of(p.begin(), p.end(), [](T x) { return x != x; }))
        norms = {0, 0, {0, {0, 0}, 0, true}, 0, 0, 0, {0, 0}};
    return norms;
}

/// Norms of diag p - p p^T where the sink takes what the weights lack from 1. Spectral norm by
/// `diagonal_minus_rank_one_norm` with that mass; inf->1 within [spectral norm, sum of absolute entries]. An
/// empty row gives 0, a NaN row NaN. O(n), no allocation.
template <Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const SinkSoftmax& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const A sink = normalizer.sink_mass<T>(z);
    const SpectralNorm<T> spectral = diagonal_minus_rank_one_norm<T>(p, T(0), static_cast<T>(sink));
    if (!(spectral.value == spectral.value) || !(sink == sink)) return norms;
    norms = {0, 0, {0, {0, 0}, 0, true}, 0, 0, 0, {0, 0}};
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

/// Norms of the diagonal matrix diag(p (1 - p)) of sigmoid attention: exact, all but Frobenius and inf->1 are
/// the largest entry, which is at most 1/4. A NaN row gives NaN. O(n), allocates one row.
template <Real T>
JacobianNorms<detail::Accumulator<T>> jacobian_norms(const SigmoidAttention& normalizer, RowIn<T> z,
                                                     RowIn<T> p) {
    using A = detail::Accumulator<T>;
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

namespace detail {

/// Largest singular value of J = dp/dz by power iteration on J^T J from the column of largest norm, to the
/// relative tolerance at which the residual |J^T J v - sigma^2 v| allows no more. `bracket`: what is certain.
template <class N, class A>
SpectralNorm<A> iterated_spectral_norm(const N& normalizer, RowIn<A> z, RowIn<A> p, std::vector<A> v,
                                       Interval<A> bracket) {
    constexpr int max_steps = 2000;
    constexpr A precision = 8 * std::numeric_limits<A>::epsilon();
    const auto length = [](const std::vector<A>& x) { // squares of entries may underflow
        return Eigen::Map<const Eigen::Array<A, Eigen::Dynamic, 1>>(x.data(), static_cast<Index>(x.size()))
            .matrix()
            .stableNorm();
    };
    SpectralNorm<A> norm{bracket.lower, bracket, 0, bracket.lower == bracket.upper};
    std::vector<A> image(z.size());
    while (!norm.converged && norm.steps < max_steps) {
        ++norm.steps;
        normalizer.template jvp<A>(z, p, RowIn<A>(v), RowOut<A>(image));
        const A sigma = length(image);
        if (!(sigma > A(0))) break;
        for (A& x : image) x /= sigma;
        normalizer.template vjp<A>(z, p, RowIn<A>(image), RowOut<A>(image));
        A residual = 0;
        for (std::size_t i = 0; i < v.size(); ++i) {
            const A difference = image[i] / sigma - v[i];
            residual += difference * difference;
        }
        norm.value = std::clamp(sigma, bracket.lower, bracket.upper);
        norm.bracket.lower = std::max(norm.bracket.lower, norm.value);
        // The error of sigma^2 is quadratic in the residual.
        norm.residual = std::sqrt(residual);
        norm.converged = norm.residual * norm.residual <= precision;
        const A size = length(image);
        for (std::size_t i = 0; i < v.size(); ++i) v[i] = image[i] / size;
    }
    return norm;
}

} // namespace detail

/// Norms of dp/dz of any normaliser, from its jvp and vjp. Entrywise and induced norms exactly, column by
/// column; the spectral norm by power iteration, within the certified bracket [largest column norm,
/// min(Frobenius, sqrt(1->1 inf->inf))]; `residual` tells how far it is from a singular pair, which could in
/// theory be one below the largest. inf->1 within [spectral norm, sum of absolute entries]. Evaluated in the
/// accumulator scalar at the logits (p is recomputed). An empty row gives 0, a NaN row NaN. O(n^2) time, O(n)
/// memory.
template <class N, Real T>
requires Normalizer<N, T> && Normalizer<N, detail::Accumulator<T>> JacobianNorms<detail::Accumulator<T>>
jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = detail::Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const std::size_t n = z.size();
    const std::vector<A> wide(z.begin(), z.end());
    std::vector<A> weights(n), direction(n, A(0)), column(n), row_sums(n, A(0));
    const RowStatus status = normalizer.template apply<A>(RowIn<A>(wide), RowOut<A>(weights));
    if (status == RowStatus::nan) return norms;
    norms = {0, 0, {0, {0, 0}, 0, true}, 0, 0, 0, {0, 0}};
    A all = 0;
    std::vector<A> start;
    for (std::size_t j = 0; j < n; ++j) {
        if (z[j] == -std::numeric_limits<T>::infinity()) continue;
        direction[j] = A(1);
        normalizer.template jvp<A>(RowIn<A>(wide), RowIn<A>(weights), RowIn<A>(direction), RowOut<A>(column));
        direction[j] = A(0);
        A sum = 0, largest = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const A entry = std::abs(column[i]);
            largest = std::max(largest, entry);
            sum += entry;
            row_sums[i] += entry;
        }
        if (largest == A(0)) continue;
        A square = 0; // in units of the largest entry, whose own square may underflow
        for (const A entry : column) square += (entry / largest) * (entry / largest);
        const A size = largest * std::sqrt(square);
        norms.max_entry = std::max(norms.max_entry, largest);
        norms.frobenius = std::hypot(norms.frobenius, size);
        all += sum;
        norms.one = std::max(norms.one, sum);
        if (size > norms.column) {
            norms.column = size;
            start.assign(n, A(0));
            // Not exactly the unit vector: that could be orthogonal to what is sought.
            for (std::size_t i = 0; i < n; ++i) start[i] = column[i] / size;
            start[j] += A(1);
        }
    }
    for (const A sum : row_sums) norms.infinity = std::max(norms.infinity, sum);
    norms.spectral.bracket = {
        norms.column,
        std::max(norms.column, std::min(norms.frobenius, std::sqrt(norms.one) * std::sqrt(norms.infinity)))};
    if (norms.column > A(0)) {
        const A size = std::sqrt(std::inner_product(start.begin(), start.end(), start.begin(), A(0)));
        for (A& x : start) x /= size;
        norms.spectral = detail::iterated_spectral_norm<N, A>(normalizer, RowIn<A>(wide), RowIn<A>(weights),
                                                              std::move(start), norms.spectral.bracket);
    }
    norms.infinity_to_one = {norms.spectral.value, all};
    return norms;
}

/// Norms behind a top-k or top-p choice, where the derivative of N has the same form on the kept keys: those of
/// N at the weights that are left.
template <class N, class Choice, Real T>
requires(N::traits.restrictable && !requires(const N n) { n.map(); })
    JacobianNorms<detail::Accumulator<T>> jacobian_norms(const RestrictedNormalizer<N, Choice>& normalizer,
                                                         RowIn<T> z, RowIn<T> p) {
    return jacobian_norms(normalizer.inner(), z, p);
}

/// Norms at the logits z, any Eigen vector expression.
template <class N, VectorExpr E>
requires Normalizer<N, ScalarOf<E>>
auto jacobian_norms(const N& normalizer, const E& z) {
    using T = ScalarOf<E>;
    const RowHolder<T> row(z);
    const Row<T> p = apply(normalizer, z);
    return jacobian_norms(normalizer, row.get(), RowIn<T>(p.data(), row.get().size()));
}

} // namespace v0_1
} // namespace attnscope
