// What an error of the logits does to the weights, at most: from its range alone.
//
// delta_i = (z'_i - z_i)/T over the visible keys, r = max delta - min delta. A shift of all logits changes
// nothing, so that only r counts.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/row/divergence.hpp>

#include <array>

namespace attnscope {
inline namespace v0_2 {

/// Largest total variation distance of softmax weights whose logits differ by a range r.
/// Formula. tanh(r/4). Attained by two keys with gap r/2 that change places.
/// Cost. O(1).
/// Throws. `invalid_argument` unless r >= 0.
template <Number R, Real A = Promoted<R>>
A total_variation_limit(R range) {
    detail::require(A(range) >= 0, "total_variation_limit", "range must be >= 0", range);
    return std::tanh(A(range) / 4);
}

/// Largest total variation distance of two rows of softmax weights that do not see the same keys.
/// Formula. With E = e^{r/2} and b_i^2 = 1-m_i the weights on the common keys, on which the logits differ by a
/// range r: 1 - (2 b_1 b_2 E - b_1^2 - b_2^2)/(E^2-1) if b_2 E > b_1 and b_1 E > b_2, else max(m_1, m_2); tanh(r/4)
/// at m = 0. Attained by two common keys. Every term is >= 0: a few units.
/// Shapes and units. first, second: m_1 and m_2, the weight of either row on keys that only it sees.
/// Cost. O(1).
/// Throws. `invalid_argument` unless r >= 0 and the weights are in [0, 1].
template <Number R, Number M, Real A = Promoted<R, M>>
A total_variation_limit(R range, M first, M second) {
    const A r(range), m1(first), m2(second);
    detail::require(r >= 0, "total_variation_limit", "range must be >= 0", range);
    detail::require(m1 >= 0 && m1 <= 1 && m2 >= 0 && m2 <= 1, "total_variation_limit",
                    "weights must be in [0,1]", first, second);
    const A b1 = std::sqrt(1 - m1), b2 = std::sqrt(1 - m2), e = std::exp(r / 2);
    if (!(b2 * e > b1 && b1 * e > b2)) return std::max(m1, m2);
    // tanh(r/4) + (1 - b_1 b_2)(1 - tanh(r/4)) + (b_1 - b_2)^2/(E^2 - 1)
    const A apart = -std::expm1((std::log1p(-m1) + std::log1p(-m2)) / 2), step = (m2 - m1) / (b1 + b2);
    return std::min(A(1), std::tanh(r / 4) + apart * (2 / (e + 1)) + step * step / std::expm1(r));
}

/// Largest total variation distance where the first row is concentrated: its weights without the largest have the sum
/// `rest` = 1-p1 at most.
/// Formula. rest (1-rest)(e^r-1)/(1 + rest (e^r-1)) where rest < 1/(1+e^{r/2}), else tanh(r/4), which it meets there.
/// Attained by two keys whose lower one rises by r. A few units on top of those of `rest`.
/// Cost. O(1).
/// Throws. `invalid_argument` unless r >= 0 and rest is in [0, 1].
template <Number R, Number S, Real A = Promoted<R, S>>
A concentrated_variation_limit(R range, S rest) {
    const A r(range), tau(rest);
    detail::require(tau >= 0 && tau <= 1, "concentrated_variation_limit", "rest must be in [0,1]", rest);
    const A everywhere = total_variation_limit(r);
    if (!(tau < 1 / (1 + std::exp(r / 2)))) return everywhere;
    if (tau == A(0)) return A(0);
    const A grown = tau * std::expm1(r);
    return std::min(everywhere, (1 - tau) * (std::isinf(grown) ? A(1) : grown / (1 + grown)));
}

/// Largest KL(p|p') of softmax weights whose logits differ by a range r, in nats, and by symmetry KL(p'|p).
/// Formula. log E_p e^delta - E_p delta, at most with h = r/2
///     log(sinh h/h) + h coth h - 1 <= r^2/8.
/// For a given mean of delta the two levels min and max are worst, and the worst share of the upper one is
/// theta = ((e^r - 1)/r - 1)/(e^r - 1), where it is attained. The form r^2/8 that is usually quoted is its
/// limit for small r and far too large for large ones (r - log r - 1). Relative error a few units; +inf for r
/// = +inf.
/// Cost. O(1).
/// Throws. `invalid_argument` unless r >= 0.
template <Number R, Real A = Promoted<R>>
A kl_limit(R range) {
    detail::require(A(range) >= 0, "kl_limit", "range must be >= 0", range);
    const A h = A(range) / 2;
    if (h < A(0.5)) {
        // sum_k (2k+1)/(2k) 2^{2k} B_{2k} h^{2k}/(2k)!: what cancels in the closed form is left out.
        constexpr std::array<long double, 12> bernoulli = {
            1.0L / 6, -1.0L / 30,     1.0L / 42,      -1.0L / 30,       5.0L / 66,       -691.0L / 2730,
            7.0L / 6, -3617.0L / 510, 43867.0L / 798, -174611.0L / 330, 854513.0L / 138, -236364091.0L / 2730};
        A sum = 0, power = 1; // (2h)^{2k}/(2k)!
        for (std::size_t k = 1; k <= bernoulli.size(); ++k) {
            const A twice = static_cast<A>(2 * k);
            power *= 4 * h * h / (twice * (twice - 1));
            sum += (twice + 1) / twice * static_cast<A>(bernoulli[k - 1]) * power;
        }
        return sum;
    }
    if (std::isinf(h)) return h;
    // log sinh h = h + log((1 - e^{-2h})/2), h coth h = h + 2h/(e^{2h} - 1).
    const A tail = -std::expm1(-2 * h);
    return 2 * h - 1 + std::log(tail / (2 * h)) + 2 * h * std::exp(-2 * h) / tail;
}

/// Share of the upper of two levels r apart at which `kl_limit` is attained.
/// Formula. 1/r - 1/(e^r - 1): 1/2 as r -> 0, about 1/r for large r.
/// Cost. O(1).
/// Throws. `invalid_argument` unless r >= 0.
template <Number R, Real A = Promoted<R>>
A kl_worst_share(R range) {
    detail::require(A(range) >= 0, "kl_worst_share", "range must be >= 0", range);
    if (A(range) < A(1e-4)) return A(0.5) - A(range) / 12; // 1/r - 1/(e^r - 1), to r^3/720
    return 1 / A(range) - 1 / std::expm1(A(range));
}

/// What a logit error did to a softmax row. What it may do at most follows from `range`, `rest` and `diameter`.
template <Real A>
struct Perturbation {
    A range = 0;                                ///< r
    A total_variation = 0;                      ///< in weights
    A kl = 0;                                   ///< in nats: the larger of KL(p|p') and KL(p'|p)
    A output_change = 0;                        ///< |o' - o|, 0 without values
    A diameter = 0;                             ///< of the visible values, or an upper bound on it
    A gap = std::numeric_limits<A>::infinity(); ///< (z_(1) - z_(2))/T before; +inf for one key
    A gap_after =
        std::numeric_limits<A>::infinity(); ///< z' of the same key less the next: < 0 if it lost its place
    A rest = 1;                             ///< 1 - p1 before, or an upper bound on it
    /// What the total variation is at most; NaN for the range of a row that is not normal.
    A variation_limit() const { return range == range ? concentrated_variation_limit(range, rest) : range; }
};

/// What became of a softmax row when its logits moved from z to `moved`, both at temperature 1; measured in
/// double.
/// Shapes and units. values: one row for each key, or none; `diameter` is passed on.
/// Special rows. -inf in both rows hides a key, in one of them makes the range infinite. No visible key in
/// either: zeros and infinite gaps. Rows that are not normal, and a row with keys beside one without, give
/// NaN.
/// Cost. O(n d), allocates rows.
/// Throws. `invalid_argument` when shapes do not fit.
inline Perturbation<double> measure_perturbation(RowIn<double> z, RowIn<double> moved,
                                                 MatrixView<double> values = {}, double diameter = 0) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const std::size_t n = z.size();
    detail::require(values.data() == nullptr || values.rows() == static_cast<Index>(n), "measure_perturbation",
                    "values must have one row for each key", values.rows(), n);
    const Divergence apart = row_divergence<double>(z, moved);
    Perturbation<double> row;
    row.diameter = diameter;
    const auto sees_keys = [&](RowIn<double> logits) {
        return std::any_of(logits.begin(), logits.end(), [&](double x) { return x > -infinity; });
    };
    if (apart.status == RowStatus::empty && !sees_keys(z) && !sees_keys(moved)) return row;
    if (apart.status != RowStatus::normal) {
        const double nan = std::numeric_limits<double>::quiet_NaN();
        return {nan, nan, nan, nan, diameter, nan, nan};
    }
    double low = infinity, high = -infinity, second = -infinity, rival = -infinity;
    std::size_t top = n;
    for (std::size_t i = 0; i < n; ++i) {
        if (z[i] == -infinity && moved[i] == -infinity) continue;
        low = std::min(low, moved[i] - z[i]);
        high = std::max(high, moved[i] - z[i]);
        if (top == n || z[i] > z[top]) top = i;
    }
    for (std::size_t i = 0; i < n; ++i)
        if (i != top) second = std::max(second, z[i]), rival = std::max(rival, moved[i]);
    row.range = high - low;
    row.total_variation = apart.total_variation;
    row.kl = std::max(apart.forward, apart.backward);
    row.gap = z[top] - second;
    row.gap_after = moved[top] - rival;
    const auto before = row_statistics<double>(z);
    row.rest = std::min(1.0, before.rest() + before.underflow()); // keys that count as 0 may rise
    if (values.data() == nullptr) return row;
    // o' - o = sum (p' - p)(v - v_top), p' - p = p (e^x - 1): both factors are small where the result is.
    // Logarithms of weights are taken from differences, which an offset of all logits does not touch.
    const auto after = row_statistics<double>(moved);
    const double log_sum = std::log1p(before.r), new_log_sum = std::log1p(after.r);
    Eigen::Matrix<double, 1, Eigen::Dynamic> change(values.cols());
    change.setZero();
    for (std::size_t i = 0; i < n; ++i) {
        if (i == top || (z[i] == -infinity && moved[i] == -infinity)) continue;
        const double p = z[i] - before.max_logit - log_sum, q = moved[i] - after.max_logit - new_log_sum;
        const double factor = p == -infinity ? std::exp(q) : std::exp(p) * std::expm1(q - p);
        change +=
            factor * (values.map().row(static_cast<Index>(i)) - values.map().row(static_cast<Index>(top)));
    }
    row.output_change = change.norm();
    return row;
}

/// As above from any rows. Long double is rounded to double.
template <RowLike Z, RowLike M>
requires std::same_as<RowScalar<Z>, RowScalar<M>>
Perturbation<double> measure_perturbation(const Z& z, const M& moved) {
    const RowHolder<RowScalar<Z>> before(z), after(moved);
    const std::vector<double> given(before.get().begin(), before.get().end()),
        changed(after.get().begin(), after.get().end());
    return measure_perturbation(RowIn<double>(given), RowIn<double>(changed));
}

/// As above with any matrix of values [n, d].
template <RowLike Z, RowLike M, MatrixExpr V>
requires std::same_as<RowScalar<Z>, RowScalar<M>>
Perturbation<double> measure_perturbation(const Z& z, const M& moved, const V& values, double diameter = 0) {
    const RowHolder<RowScalar<Z>> before(z), after(moved);
    const std::vector<double> given(before.get().begin(), before.get().end()),
        changed(after.get().begin(), after.get().end());
    detail::require(values.rows() == before.size(), "measure_perturbation",
                    "values must have one row for each key", values.rows(), before.size());
    const Matrix<double> wide = values.derived().template cast<double>();
    return measure_perturbation(RowIn<double>(given), RowIn<double>(changed), MatrixView<double>(wide),
                                diameter);
}

/// Rounding errors of a measured perturbation, from those of its logits.
template <Real A>
struct PerturbationError {
    A weights = 0; ///< absolute, of a sum of |p' - p|
    A range = 0;   ///< absolute, of r
};

/// Rounding errors of `measure_perturbation`, for rows of n visible keys that are exact as given: the
/// logarithm of a weight is rounded at its own size.
/// Shapes and units. `spread`: of the logits of one row; `largest_error`: max |moved_i - z_i|; at temperature
/// 1.
/// Cost. O(1).
template <Number D, Number E, Real A = Promoted<D, E>>
PerturbationError<A> perturbation_error(Index n, D spread, E largest_error) {
    const A unit = std::numeric_limits<A>::epsilon(), count = static_cast<A>(n);
    return {unit * (4 * A(spread) + 4 * A(largest_error) + 16 + std::min(count, A(64)) + count / 64),
            4 * unit * A(largest_error)};
}

inline constexpr Statement perturbation_tv_sharp_statement{
    .id = "perturbation_tv",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "TV(p, p') <= tau(1-tau)(e^r-1)/(1+tau(e^r-1)), tau = 1-p1 < 1/(1+e^{r/2}), else tanh(r/4)",
    .conditions = "softmax, r = range of (z'-z)/T: a random logit error",
    .source = "two-point distributions",
};

/// Bound "perturbation_tv": TV(p, p') <= tanh(r/4). Undefined where the row's figures are NaN. O(1).
template <Real A>
Bound<A> perturbation_tv_sharp(const Perturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.variation_limit();
    return upper_bound<A>(
        perturbation_tv_sharp_statement,
        {.limit = limit,
         .measured = row.total_variation,
         .tolerance = error.weights + error.range / 4 + 4 * std::numeric_limits<A>::epsilon() * limit,
         .trivial = 1});
}

inline constexpr Statement perturbation_kl_sharp_statement{
    .id = "perturbation_kl",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "KL <= log(sinh h/h) + h coth h - 1, h = r/2 (r^2/8 for small r)",
    .conditions = "as above",
    .source = "two-point distributions",
};

/// Bound "perturbation_kl": KL in both directions <= `kl_limit`, whose slope in r is at most min(r/4, 1).
/// What holds without it: |log p'/p| <= r. Undefined where the row's figures are NaN. O(1).
template <Real A>
Bound<A> perturbation_kl_sharp(const Perturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.range == row.range ? kl_limit(row.range) : row.range;
    // The terms p psi(log p'/p) have the slope p r at most.
    const A slope = std::min(A(1), row.range + error.range);
    return upper_bound<A>(perturbation_kl_sharp_statement,
                          {.limit = limit,
                           .measured = row.kl,
                           .tolerance = (error.weights + error.range) * slope +
                                        64 * std::numeric_limits<A>::epsilon() * (limit + row.kl),
                           .trivial = row.range});
}

inline constexpr Statement perturbation_output_sharp_statement{
    .id = "perturbation_output",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|o'-o| <= diam(V) times the limit of perturbation_tv",
    .conditions = "as above",
    .source = "two-point distributions",
};

/// Bound "perturbation_output": |o' - o| <= diam(V) tanh(r/4). Undefined where the row's figures are NaN.
/// O(1).
template <Real A>
Bound<A> perturbation_output_sharp(const Perturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.diameter * row.variation_limit();
    return upper_bound<A>(perturbation_output_sharp_statement,
                          {.limit = limit,
                           .measured = row.output_change,
                           .tolerance = row.diameter * (2 * error.weights + error.range / 4) +
                                        64 * std::numeric_limits<A>::epsilon() * limit,
                           .trivial = row.diameter});
}

inline constexpr Statement perturbation_gap_sharp_statement{
    .id = "perturbation_gap",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "gap' >= gap - r",
    .conditions = "as above",
    .source = "definition of r",
};

/// Bound "perturbation_gap": the gap between the largest logit and the next falls by at most r, so that a gap
/// > r keeps the key to which the row points.
/// Special rows. A limit <= 0 promises nothing (`vacuous`), and so does an infinite gap. Undefined where the
/// row's figures are NaN.
/// Cost. O(1).
template <Real A>
Bound<A> perturbation_gap_sharp(const Perturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.gap - row.range;
    auto bound =
        lower_bound<A>(perturbation_gap_sharp_statement,
                       {.limit = limit, .measured = row.gap_after, .tolerance = error.range, .trivial = 0});
    if (std::isfinite(row.gap))
        bound.tolerance += 4 * std::numeric_limits<A>::epsilon() * (row.gap + row.range);
    return bound;
}

/// What a random logit error does to a softmax row on average: +e or -e with equal chances, of mean 0 in every key.
template <Real A>
struct MeanPerturbation {
    A size = 0;            ///< s = max |e_i| over the visible keys: each error is s-sub-Gaussian
    A kl = 0;              ///< mean of KL(p|p'), nats
    A total_variation = 0; ///< mean of TV(p,p')
};

/// The means over both signs of an error of the logits, at temperature 1.
/// Shapes and units. z, error: one number for each key; that of a masked key (z = -inf) has no say.
/// Special rows. Rows that are not normal give NaN, a row without keys zeros.
/// Cost. O(n), allocates rows.
/// Throws. `invalid_argument` for different lengths.
inline MeanPerturbation<double> mean_perturbation(RowIn<double> z, RowIn<double> error) {
    detail::require(z.size() == error.size(), "mean_perturbation", "there must be one error for each logit",
                    error.size(), z.size());
    constexpr double infinity = std::numeric_limits<double>::infinity(),
                     nan = std::numeric_limits<double>::quiet_NaN();
    MeanPerturbation<double> mean;
    std::vector<double> moved(z.size());
    bool any = false;
    for (const double sign : {1.0, -1.0}) {
        for (std::size_t i = 0; i < z.size(); ++i) {
            moved[i] = z[i];
            if (z[i] == -infinity) continue;
            moved[i] += sign * error[i];
            mean.size = std::max(mean.size, std::abs(moved[i] - z[i]));
            any = true;
        }
        if (!any) return mean;
        const Divergence apart = row_divergence<double>(z, RowIn<double>(moved));
        if (apart.status != RowStatus::normal) return {nan, nan, nan};
        mean.kl += apart.forward / 2;
        mean.total_variation += apart.total_variation / 2;
    }
    return mean;
}

/// As above from any rows. Long double is rounded to double.
template <RowLike Z, RowLike E>
requires std::same_as<RowScalar<Z>, RowScalar<E>>
MeanPerturbation<double> mean_perturbation(const Z& z, const E& error) {
    const RowHolder<RowScalar<Z>> logits(z), errors(error);
    const std::vector<double> given(logits.get().begin(), logits.get().end()),
        change(errors.get().begin(), errors.get().end());
    return mean_perturbation(RowIn<double>(given), RowIn<double>(change));
}

inline constexpr Statement perturbation_mean_kl_sharp_statement{
    .id = "perturbation_mean_kl",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "E KL(p|p') <= s^2/2",
    .conditions = "softmax; errors of z/T of mean 0 and s-sub-Gaussian, independent or not",
    .source = "Jensen",
};

/// Bound "perturbation_mean_kl": E KL(p|p') <= s^2/2. What holds without it for this error: 2s.
/// Cost. O(1).
template <Real A>
Bound<A> perturbation_mean_kl_sharp(const MeanPerturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.size / 2 * row.size, slope = std::min(A(1), 2 * row.size + error.range);
    return upper_bound<A>(perturbation_mean_kl_sharp_statement,
                          {.limit = limit,
                           .measured = row.kl,
                           .tolerance = (error.weights + error.range) * slope +
                                        64 * std::numeric_limits<A>::epsilon() * (limit + row.kl),
                           .trivial = 2 * row.size});
}

inline constexpr Statement perturbation_mean_tv_sharp_statement{
    .id = "perturbation_mean_tv",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "E TV(p, p') <= s/2",
    .conditions = "as above",
    .source = "Jensen; Pinsker",
};

/// Bound "perturbation_mean_tv": E TV(p,p') <= s/2.
/// Cost. O(1).
template <Real A>
Bound<A> perturbation_mean_tv_sharp(const MeanPerturbation<A>& row, const PerturbationError<A>& error) {
    const A limit = row.size / 2;
    return upper_bound<A>(
        perturbation_mean_tv_sharp_statement,
        {.limit = limit,
         .measured = row.total_variation,
         .tolerance = error.weights + error.range / 2 + 4 * std::numeric_limits<A>::epsilon() * limit,
         .trivial = 1});
}

} // namespace v0_2
} // namespace attnscope
