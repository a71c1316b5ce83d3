// Theorem 2 of the paper: how many selected tokens a ball of given radius can hold, on the spherical model.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selection/separability.hpp>

#include <numeric>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Assumption of P Theorem 2: token vectors i.i.d. uniform on the sphere of radius M in R^d, d >= 2, pairwise
/// at least `delta` apart (0: nothing more is assumed). Real token vectors do not meet it.
struct SphericalModel {
    Index dimension = 64;
    double radius = 1; ///< M
    double delta = 0;
};

namespace detail {

inline void require_model(std::string_view function, const SphericalModel& model) {
    require(model.dimension >= 2, function, "dimension must be >= 2", model.dimension);
    require(model.radius > 0 && std::isfinite(model.radius), function, "sphere radius must be > 0 and finite",
            model.radius);
    require(model.delta >= 0, function, "delta must be >= 0", model.delta);
}

/// Over I without i, for each i: sum p_j, sum p_j^2, sum_{j != k} p_j^2 p_k^2, max p_j, and sum p_j^2 without that
/// maximum; by prefix and suffix sums, so nothing cancels.
template <Real A>
struct LeaveOneOut {
    std::vector<A> sum, squares, pairs, largest, minor_squares;

    explicit LeaveOneOut(std::span<const A> selected)
        : sum(selected.size()), squares(selected.size()), pairs(selected.size()), largest(selected.size()),
          minor_squares(selected.size()) {
        A s = 0, q = 0, product = 0, top = 0, minor = 0;
        const auto add = [&](A p) {
            s += p;
            product += 2 * q * p * p;
            q += p * p;
            minor += std::min(p, top) * std::min(p, top);
            top = std::max(p, top);
        };
        for (std::size_t i = 0; i < selected.size(); ++i) {
            sum[i] = s;
            squares[i] = q;
            pairs[i] = product;
            largest[i] = top;
            minor_squares[i] = minor;
            add(selected[i]);
        }
        s = q = product = top = minor = 0;
        for (std::size_t i = selected.size(); i-- > 0;) {
            sum[i] += s;
            pairs[i] += product + 2 * squares[i] * q;
            squares[i] += q;
            const A second = std::min(largest[i], top); // of the largest before i and the largest after i
            minor_squares[i] += minor + second * second;
            largest[i] = std::max(largest[i], top);
            add(selected[i]);
        }
    }
};

/// Exponents f_i with E e^{-theta X_i^2} <= e^{-f_i}, X_i the length of the sum of the p_j x_j over I without i, x_j
/// independent and uniform on the unit sphere, theta of any sign. E e^{<lambda,x>} <= e^{|lambda|^2/(2d)} takes the
/// vectors off one after the other: f = sum theta_k p_k^2, theta_{k-1} = theta_k (1 - 2 theta_k p_k^2/d), in any
/// order; the largest last, which then costs nothing.
template <Real A>
class SquaredLengthExponents {
public:
    SquaredLengthExponents(std::span<const A> selected, A dimension)
        : order_(selected.size()), squares_(selected.size()), exponents_(selected.size()),
          dimension_(dimension) {
        std::iota(order_.begin(), order_.end(), std::size_t(0));
        std::sort(order_.begin(), order_.end(),
                  [&](std::size_t i, std::size_t j) { return selected[i] > selected[j]; });
        for (std::size_t rank = 0; rank < order_.size(); ++rank)
            squares_[rank] = selected[order_[rank]] * selected[order_[rank]];
    }

    /// [N], by position in I. O(N log N): what one half of the tokens has in common is computed once.
    const std::vector<A>& compute(A theta) {
        const std::size_t n = order_.size();
        if (n < 2) {
            std::fill(exponents_.begin(), exponents_.end(), A(0));
            return exponents_;
        }
        const Taken without_largest = take({theta, 0}, 2, n);
        exponents_[order_[0]] = without_largest.sum + without_largest.theta * squares_[1];
        split({theta, 0}, 1, n);
        return exponents_;
    }

private:
    struct Taken {
        A theta, sum;
    };
    /// After the vectors of the ranks in [first, last).
    Taken take(Taken taken, std::size_t first, std::size_t last) const {
        for (std::size_t rank = last; rank-- > first;) {
            const A term = taken.theta * squares_[rank];
            taken.sum += term;
            taken.theta *= 1 - 2 * term / dimension_;
        }
        return taken;
    }
    /// Leaves out each of the ranks in [first, last), when all others but the largest are taken.
    void split(const Taken& taken, std::size_t first, std::size_t last) {
        if (last - first == 1) {
            exponents_[order_[first]] = taken.sum + taken.theta * squares_[0];
            return;
        }
        const std::size_t middle = first + (last - first) / 2;
        split(take(taken, middle, last), first, middle);
        split(take(taken, first, middle), middle, last);
    }

    std::vector<std::size_t> order_;
    std::vector<A> squares_, exponents_;
    A dimension_;
};

/// For every i: a limit of log P(X_i < r) (below) or of log P(X_i >= r), r as the radius of the unit sphere's
/// model: the least of f_i by twelve theta and, below, by the closed form -d (v-r^2)^2/(4 (v^2-q)); 0 where r^2 is
/// not on that side of v = E X_i^2.
template <Real A>
std::vector<A> tail_exponents(std::span<const A> selected, const LeaveOneOut<A>& rest, A dimension, A radius,
                              bool below) {
    const A square = radius * radius;
    std::vector<A> exponents(selected.size(), A(0));
    A least = std::numeric_limits<A>::infinity(), most = 0;
    for (std::size_t i = 0; i < selected.size(); ++i) {
        const A gap = below ? rest.squares[i] - square : square - rest.squares[i];
        if (!(gap > A(0)) || !(rest.pairs[i] > A(0))) continue;
        const A theta = dimension * gap / (2 * rest.pairs[i]); // of the closed form
        if (!std::isfinite(theta)) continue;
        least = std::min(least, theta);
        most = std::max(most, theta);
        if (below) exponents[i] = -theta * gap / 2;
    }
    if (!(most > A(0))) return exponents;
    SquaredLengthExponents<A> lengths(selected, dimension);
    // Below, the best theta is larger than that of the closed form, above it is smaller.
    const A first = below ? least : least / 8, ratio = (below ? 4 * most : most) / first;
    constexpr int steps = 12;
    for (int step = 0; step < steps; ++step) {
        const A theta = (below ? 1 : -1) * first * std::pow(ratio, static_cast<A>(step) / (steps - 1));
        const std::vector<A>& found = lengths.compute(theta);
        for (std::size_t i = 0; i < selected.size(); ++i)
            exponents[i] = std::min(exponents[i], theta * square - found[i]);
    }
    return exponents;
}

} // namespace detail

/// P's xi_i for every selected weight. It over-estimates E|y_i - s|.
/// Formula. xi_i^2 = M^2 sum p_j^2 + (M^2 - delta^2/2) sum_{j != k} p_j p_k over I\{i} (ordered pairs),
/// clamped at 0.
/// Cost. O(N), allocates some rows of N.
/// Throws. `invalid_argument` unless the model has d >= 2, a radius > 0 and finite, and delta >= 0.
/// Source. P Theorem 2.
template <Real A>
std::vector<A> theorem2_xi(std::span<const A> selected, const SphericalModel& model) {
    detail::require_model("theorem2_xi", model);
    const detail::LeaveOneOut<A> rest(selected);
    const A m2 = static_cast<A>(model.radius * model.radius),
            cut = static_cast<A>(model.delta * model.delta / 2);
    std::vector<A> xi(selected.size());
    for (std::size_t i = 0; i < xi.size(); ++i) {
        const A pairs = std::max(A(0), rest.sum[i] * rest.sum[i] - rest.squares[i]);
        xi[i] = std::sqrt(std::max(A(0), m2 * rest.squares[i] + (m2 - cut) * pairs));
    }
    return xi;
}

/// As above from any row.
template <RowLike P>
std::vector<RowScalar<P>> theorem2_xi(const P& selected, const SphericalModel& model) {
    using T = RowScalar<P>;
    const RowHolder<T> row(selected);
    return theorem2_xi<T>(row.get(), model);
}

/// P Theorem 2 as published, for E N_s/N at radius r. The upper side is false.
/// Formula. 1 - (1/(rN)) sum xi_i <= E N_s/N <= (1/N) sum exp(-(xi_i-r)^2/(2M^2)).
/// Special rows. NaN if nothing is selected.
/// Cost. O(N), allocates some rows of N.
/// Throws. `invalid_argument` unless r > 0, and for the models that `theorem2_xi` refuses.
/// Source. P Theorem 2.
template <Real A>
Interval<A> theorem2_published_range(std::span<const A> selected, const SphericalModel& model, A radius) {
    detail::require(radius > A(0), "theorem2_published_range", "radius must be > 0", radius);
    const std::vector<A> xi = theorem2_xi(selected, model);
    const A m = static_cast<A>(model.radius), count = static_cast<A>(xi.size());
    A sum = 0, decay = 0;
    for (const A x : xi) {
        sum += x;
        decay += std::exp(-(x - radius) * (x - radius) / (2 * m * m));
    }
    return {1 - sum / (radius * count), decay / count};
}

/// As above from any row.
template <RowLike P>
Interval<RowScalar<P>> theorem2_published_range(const P& selected, const SphericalModel& model,
                                                RowScalar<P> radius) {
    using T = RowScalar<P>;
    const RowHolder<T> row(selected);
    return theorem2_published_range<T>(row.get(), model, radius);
}

/// Valid limits of E N_s/N at a fixed radius r, token by token with X_i = |s - y_i|, from limits of P(X_i < r)
/// above and of P(X_i >= r) below.
/// Formula. For M = 1, v = sum p_j^2 = E X_i^2, q = sum p_j^4, V = (2/d)(v^2-q) = Var X_i^2, all over I\i, the
/// least of: 0 beyond max{0, 2 max p_j - sum p_j} <= X_i <= sum p_j; V/(V+(v-r^2)^2) (Cantelli) and inf over
/// theta of exp(theta r^2 - sum theta_k p_k^2) (`detail::SquaredLengthExponents`), on either side of v; below,
/// v/r^2 (Markov); above, exp(-(d-1)(e_i-r)^2/(2 m_i)) where r < e_i, m_i = v - max p_j^2. By symmetry the
/// vector of the largest term may be held fixed; as a function of the others X_i has the Lipschitz constant
/// sqrt(m_i) on a product of unit spheres, whose logarithmic Sobolev inequality has the constant d-1. e_i =
/// max{max p_j, sqrt(v) sqrt(2/d) Gamma((d+1)/2)/Gamma(d/2)} <= E X_i. Exact at N = 2, where X_i is the other
/// token's weight times M. r counts as larger (above) or smaller (below) by the rounding of a computed
/// distance, so that none is judged by its last digit. Both sides are proved for delta = 0, where the vectors
/// are independent. The model's delta is not used: for delta > 0 no proof is known.
/// Special rows. NaN if nothing is selected.
/// Cost. O(N log N), allocates some rows of N.
/// Throws. `invalid_argument` unless r > 0, and for the models that `theorem2_xi` refuses.
/// Source. Weissler 1980, Mueller and Weissler 1982; Herbst's argument.
template <Real A>
Interval<A> theorem2_valid_range(std::span<const A> selected, const SphericalModel& model, A radius) {
    detail::require_model("theorem2_valid_range", model);
    detail::require(radius > A(0), "theorem2_valid_range", "radius must be > 0", radius);
    const detail::LeaveOneOut<A> rest(selected);
    const A m = static_cast<A>(model.radius), d = static_cast<A>(model.dimension),
            count = static_cast<A>(selected.size());
    const double half = static_cast<double>(model.dimension) / 2;
    const A chi = static_cast<A>(std::exp(std::lgamma(half + 0.5) - std::lgamma(half)) / std::sqrt(half));
    const A total = selected.empty() ? A(0) : rest.sum.front() + selected.front();
    const A rounding = std::numeric_limits<A>::epsilon() * (count + d + 8) * total;
    const A wide = radius / m + rounding, narrow = std::max(A(0), radius / m - rounding);
    const std::vector<A> inside = detail::tail_exponents(selected, rest, d, wide, true),
                         outside = detail::tail_exponents(selected, rest, d, narrow, false);
    A lower = 0, upper = 0;
    for (std::size_t i = 0; i < selected.size(); ++i) {
        const A v = rest.squares[i], variance = 2 / d * rest.pairs[i];
        const auto cantelli = [&](A gap) { return gap > A(0) ? variance / (variance + gap * gap) : A(1); };
        A least = std::min(std::exp(inside[i]), cantelli(v - wide * wide));
        const A gap = std::max(rest.largest[i], std::sqrt(v) * chi) - wide;
        const A steps = gap / std::sqrt(rest.minor_squares[i]); // +inf where X_i is constant
        if (gap > A(0)) least = std::min(least, std::exp(-(d - 1) / 2 * steps * steps));
        upper += wide <= 2 * rest.largest[i] - rest.sum[i] ? A(0) : least;

        const A share = std::sqrt(v) / narrow,
                far = std::min(std::exp(outside[i]), cantelli(narrow * narrow - v));
        lower += narrow > rest.sum[i] ? A(1) : std::max({A(0), (1 - share) * (1 + share), 1 - far});
    }
    return {lower / count, upper / count};
}

/// As above from any row.
template <RowLike P>
Interval<RowScalar<P>> theorem2_valid_range(const P& selected, const SphericalModel& model,
                                            RowScalar<P> radius) {
    using T = RowScalar<P>;
    const RowHolder<T> row(selected);
    return theorem2_valid_range<T>(row.get(), model, radius);
}

/// A measured expectation.
template <Real A>
struct SimulatedMean {
    A mean = 0;
    A standard_error = 0;
    Index trials = 0;
};

/// E N_s/N at each of the given radii, on the spherical model with delta = 0, by simulation: every trial
/// draws the selected vectors anew.
/// Formula. N_s = #{i in I: |y_i - s| < r}, P's proviso aside.
/// Special rows. 0 if nothing is selected.
/// Cost. O(trials N d), memory O(N d).
/// Throws. `invalid_argument` unless trials >= 2, and for the models that `theorem2_xi` refuses.
template <Real A>
std::vector<SimulatedMean<A>> simulate_separable_fraction(std::span<const A> selected,
                                                          const SphericalModel& model, std::span<const A> radii,
                                                          Index trials, SplitMix64& generator) {
    detail::require_model("simulate_separable_fraction", model);
    detail::require(trials >= 2, "simulate_separable_fraction", "trials must be >= 2", trials);
    const Index n = static_cast<Index>(selected.size());
    const A count = static_cast<A>(n), drawn = static_cast<A>(trials);
    Matrix<A> y(n, model.dimension);
    Eigen::Matrix<A, 1, Eigen::Dynamic> s;
    std::vector<A> sum(radii.size(), A(0)), squares(radii.size(), A(0)), inside(radii.size());
    for (Index trial = 0; trial < trials; ++trial) {
        for (Index i = 0; i < n; ++i) {
            generator.fill_normal(std::span<A>(y.row(i).data(), static_cast<std::size_t>(model.dimension)));
            y.row(i) *= static_cast<A>(model.radius) * detail::at(selected, i) / y.row(i).norm();
        }
        s = y.colwise().sum();
        std::fill(inside.begin(), inside.end(), A(0));
        for (Index i = 0; i < n; ++i) {
            const A distance = (s - y.row(i)).norm();
            for (std::size_t r = 0; r < radii.size(); ++r) inside[r] += distance < radii[r] ? 1 / count : A(0);
        }
        for (std::size_t r = 0; r < radii.size(); ++r) {
            sum[r] += inside[r];
            squares[r] += inside[r] * inside[r];
        }
    }
    std::vector<SimulatedMean<A>> result;
    for (std::size_t r = 0; r < radii.size(); ++r) {
        const A mean = sum[r] / drawn, variance = std::max(A(0), squares[r] / drawn - mean * mean);
        result.push_back({mean, std::sqrt(variance / (drawn - 1)), trials});
    }
    return result;
}

/// As above from any rows.
template <RowLike P, RowLike R>
requires std::same_as<RowScalar<P>, RowScalar<R>>
std::vector<SimulatedMean<RowScalar<P>>>
simulate_separable_fraction(const P& selected, const SphericalModel& model, const R& radii, Index trials,
                            SplitMix64& generator) {
    using T = RowScalar<P>;
    const RowHolder<T> row(selected), at(radii);
    return simulate_separable_fraction<T>(row.get(), model, at.get(), trials, generator);
}

inline constexpr Statement theorem2_lower_published_statement{
    .id = "theorem2_lower",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "1 - (1/(rN)) sum xi_i <= E N_s/N",
    .conditions = "x_i uniform on a sphere: simulated; undefined on the row's own vectors",
    .source = "P Theorem 2",
};

inline constexpr Statement theorem2_lower_sharp_statement{
    .id = "theorem2_lower",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text =
        "M = 1: 1 - mean of the least of v/r^2, V/(V+(r^2-v)^2), inf_theta exp(sum theta_k p_k^2 - theta r^2), "
        "0 "
        "beyond sum p_j <= E N_s/N; v = sum p^2, V = (2/d)(v^2 - sum p^4), theta_{k-1} = theta_k (1+2 theta_k "
        "p_k^2/d), over I\\i",
    .conditions = "x_i uniform on a sphere: simulated; undefined on the row's own vectors",
    .source = "sharper form of P Theorem 2",
};

inline constexpr Statement theorem2_upper_published_statement{
    .id = "theorem2_upper",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "E N_s/N <= (1/N) sum exp(-(xi_i-r)^2/(2M^2))",
    .conditions = "x_i uniform on a sphere: simulated; undefined on the row's own vectors",
    .source = "P Theorem 2",
};

inline constexpr Statement theorem2_upper_sharp_statement{
    .id = "theorem2_upper",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "M = 1: E N_s/N <= mean of the least of exp(-(d-1)(e_i-r)^2/(2(v - max p^2))), V/(V+(v-r^2)^2), "
            "inf_theta exp(theta r^2 - sum theta_k p_k^2) <= exp(-d(v-r^2)^2/(4(v^2 - sum p^4))), 0 below 2 "
            "max p_j - "
            "sum p_j; v = sum p^2, V = (2/d)(v^2 - sum p^4), theta_{k-1} = theta_k (1-2 theta_k p_k^2/d), over "
            "I\\i",
    .conditions = "x_i uniform on a sphere: simulated; undefined on the row's own vectors",
    .source = "corrected form of P Theorem 2",
};

/// P Theorem 2 in one form, one side of its `range`, against a measured E N_s/N. Six standard errors are
/// allowed, and 6/trials when the fraction never varied in the sample. O(1).
template <Real A>
Bound<A> theorem2_bound(Form form, Side side, const Interval<A>& range, const SimulatedMean<A>& measured) {
    const bool published = form == Form::published;
    const A tolerance =
        measured.standard_error > A(0) ? 6 * measured.standard_error : A(6) / static_cast<A>(measured.trials);
    if (side == Side::lower)
        return lower_bound<A>(
            published ? theorem2_lower_published_statement : theorem2_lower_sharp_statement,
            {.limit = range.lower, .measured = measured.mean, .tolerance = tolerance, .trivial = 0});
    return upper_bound<A>(
        published ? theorem2_upper_published_statement : theorem2_upper_sharp_statement,
        {.limit = range.upper, .measured = measured.mean, .tolerance = tolerance, .trivial = 1});
}

} // namespace v0_2
} // namespace attnscope
