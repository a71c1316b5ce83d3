// Theorem 2 of the paper: how many selected tokens a ball of given radius can hold, on the spherical model.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selection/separability.hpp>

namespace attnscope {
inline namespace v0_1 {

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

/// Over I without i, for each i: sum p_j, sum p_j^2, max p_j, and sum p_j^2 without that maximum; by prefix and
/// suffix sums, so nothing cancels.
template <Real A>
struct LeaveOneOut {
    std::vector<A> sum, squares, largest, minor_squares;

    explicit LeaveOneOut(std::span<const A> selected)
        : sum(selected.size()), squares(selected.size()), largest(selected.size()),
          minor_squares(selected.size()) {
        A s = 0, q = 0, top = 0, minor = 0;
        const auto add = [&](A p) {
            s += p;
            q += p * p;
            minor += std::min(p, top) * std::min(p, top);
            top = std::max(p, top);
        };
        for (std::size_t i = 0; i < selected.size(); ++i) {
            sum[i] = s;
            squares[i] = q;
            largest[i] = top;
            minor_squares[i] = minor;
            add(selected[i]);
        }
        s = q = top = minor = 0;
        for (std::size_t i = selected.size(); i-- > 0;) {
            sum[i] += s;
            squares[i] += q;
            const A second = std::min(largest[i], top); // of the largest before i and the largest after i
            minor_squares[i] += minor + second * second;
            largest[i] = std::max(largest[i], top);
            add(selected[i]);
        }
    }
};

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

/// Valid limits of E N_s/N at a fixed radius r, token by token with X_i = |s - y_i|.
/// Formula. Lower: 1 - E X_i^2/r^2 with E X_i^2 = M^2 sum_{I\i} p_j^2 exactly (Markov for X_i^2). Upper: 1 if
/// r >= e_i, else exp(-(d-1) (e_i-r)^2/(2 M^2 m_i)), m_i = sum_{I\i} p_j^2 without its largest term. By
/// symmetry the vector of that term may be held fixed; as a function of the others X_i has the Lipschitz
/// constant M sqrt(m_i) on a product of unit spheres, whose logarithmic Sobolev inequality has the constant
/// d-1. e_i = M max{max p_j, sqrt(sum_{I\i} p_j^2) sqrt(2/d) Gamma((d+1)/2)/Gamma(d/2)} <= E X_i. Exact at N
/// = 2, where X_i is the other token's weight times M. r counts as larger by the rounding of a computed
/// distance, so that none is judged by its last digit. Both sides are proved for delta = 0, where the vectors
/// are independent. The model's delta is not used: for delta > 0 no proof is known.
/// Special rows. NaN if nothing is selected.
/// Cost. O(N), allocates some rows of N.
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
    const A rounding = std::numeric_limits<A>::epsilon() * (count + d + 8) * m * total;
    A lower = 0, upper = 0;
    for (std::size_t i = 0; i < selected.size(); ++i) {
        const A rms = m * std::sqrt(rest.squares[i]), share = rms / radius;
        lower += std::max(A(0), (1 - share) * (1 + share));
        const A gap = std::max(m * rest.largest[i], rms * chi) - radius - rounding;
        const A steps = gap / (m * std::sqrt(rest.minor_squares[i])); // +inf where X_i is constant
        upper += gap > A(0) ? std::exp(-(d - 1) / 2 * steps * steps) : A(1);
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
            y.row(i) *= static_cast<A>(model.radius) * selected[static_cast<std::size_t>(i)] / y.row(i).norm();
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
    .text = "(1/N) sum max(0, 1 - M^2 sum_{I\\i} p_j^2/r^2) <= E N_s/N",
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
    .text =
        "E N_s/N <= mean of 1 where r >= e_i, else exp(-(d-1)(e_i-r)^2/(2M^2 m_i)), m_i = sum_{I\\i} p_j^2 - "
        "max_{I\\i} p_j^2",
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

} // namespace v0_1
} // namespace attnscope
