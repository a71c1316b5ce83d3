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

/// sum over I without i of p_j, and of p_j^2, for each i; by prefix and suffix sums, so nothing cancels.
template <Real A>
struct LeaveOneOut {
    std::vector<A> sum, squares;

    explicit LeaveOneOut(std::span<const A> selected) : sum(selected.size()), squares(selected.size()) {
        A s = 0, q = 0;
        for (std::size_t i = 0; i < selected.size(); ++i) {
            sum[i] = s;
            squares[i] = q;
            s += selected[i];
            q += selected[i] * selected[i];
        }
        s = q = 0;
        for (std::size_t i = selected.size(); i-- > 0;) {
            sum[i] += s;
            squares[i] += q;
            s += selected[i];
            q += selected[i] * selected[i];
        }
    }
};

} // namespace detail

/// P's xi_i for every selected weight: xi_i^2 = M^2 sum p_j^2 + (M^2 - delta^2/2) sum_{j != k} p_j p_k over
/// I\{i} (ordered pairs), clamped at 0. It over-estimates E|y_i - s|. O(N), one allocation a member. Throws
/// `invalid_argument` for a bad model.
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

/// P Theorem 2 as published, for E N_s/N at radius r > 0:
/// 1 - (1/(rN)) sum xi_i <= E N_s/N <= (1/N) sum exp(-(xi_i-r)^2/(2M^2)). The upper side is false.
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

/// Valid limits of E N_s/N at a fixed radius r > 0, token by token with X_i = |s - y_i|:
/// lower, 1 - E X_i/r with E X_i <= M sqrt(sum_{I\i} p_j^2) (Markov and Jensen; delta only sharpens the truth);
/// upper, 1 if r >= e_i, else the smaller of exp(-2 (e_i-r)^2/(M (A-p_i))^2) and exp(-(e_i-r)^2/(2 M^2
/// sum_{I\i} p_j^2)) (bounded differences; Lipschitz on spheres), e_i = M sqrt(sum_{I\i} p_j^2) sqrt(2/d)
/// Gamma((d+1)/2)/Gamma(d/2) <= E X_i. O(N). The model's delta is not used: with delta = 0 the vectors are
/// independent.
template <Real A>
Interval<A> theorem2_valid_range(std::span<const A> selected, const SphericalModel& model, A radius) {
    detail::require_model("theorem2_valid_range", model);
    detail::require(radius > A(0), "theorem2_valid_range", "radius must be > 0", radius);
    const detail::LeaveOneOut<A> rest(selected);
    const A m = static_cast<A>(model.radius), d = static_cast<A>(model.dimension);
    const A chi = std::sqrt(2 / d) * std::exp(std::lgamma((d + 1) / 2) - std::lgamma(d / 2));
    A lower = 0, upper = 0;
    for (std::size_t i = 0; i < selected.size(); ++i) {
        const A rms = m * std::sqrt(rest.squares[i]);
        lower += std::max(A(0), 1 - rms / radius);
        const A gap = rms * chi - radius;
        A limit = 1;
        if (gap > A(0)) {
            const A range = m * rest.sum[i];
            limit =
                std::min(std::exp(-2 * gap * gap / (range * range)), std::exp(-gap * gap / (2 * rms * rms)));
        }
        upper += limit;
    }
    const A count = static_cast<A>(selected.size());
    return {lower / count, upper / count};
}

/// E N_s/N at a fixed radius (N_s = #{i in I: |y_i - s| < r}, P's proviso aside) on the spherical model with
/// delta = 0, by simulation: `trials` draws of the selected vectors. Cost O(trials N d). Returns mean and
/// standard error over trials. Throws `invalid_argument` unless trials >= 2.
template <Real A>
std::pair<A, A> simulate_separable_fraction(std::span<const A> selected, const SphericalModel& model, A radius,
                                            Index trials, SplitMix64& generator) {
    detail::require_model("simulate_separable_fraction", model);
    detail::require(trials >= 2, "simulate_separable_fraction", "trials must be >= 2", trials);
    const Index n = static_cast<Index>(selected.size());
    Matrix<A> y(n, model.dimension);
    Eigen::Matrix<A, 1, Eigen::Dynamic> s;
    A mean = 0, scatter = 0;
    for (Index trial = 1; trial <= trials; ++trial) {
        for (Index i = 0; i < n; ++i) {
            for (Index c = 0; c < model.dimension; ++c) y(i, c) = static_cast<A>(generator.normal());
            y.row(i) *= static_cast<A>(model.radius) * selected[static_cast<std::size_t>(i)] / y.row(i).norm();
        }
        s = y.colwise().sum();
        A inside = 0;
        for (Index i = 0; i < n; ++i) inside += (s - y.row(i)).norm() < radius ? A(1) : A(0);
        const A fraction = inside / static_cast<A>(n), before = fraction - mean;
        mean += before / static_cast<A>(trial);
        scatter += before * (fraction - mean);
    }
    const A count = static_cast<A>(trials);
    return {mean, std::sqrt(scatter / (count - 1) / count)};
}

/// P Theorem 2, one side in one form, against a measured E N_s/N with its standard error (six are allowed, and
/// at least one part in `trials` because a fraction that never varied in the sample has no visible error).
template <Real A>
Bound<A> theorem2_bound(Side side, const Interval<A>& range, std::pair<A, A> measured, Index trials) {
    const A rare = A(6) / static_cast<A>(trials);
    const A tolerance = 6 * measured.second + rare * (measured.second > A(0) ? A(0) : A(1));
    if (side == Side::lower)
        return {"theorem2_lower", Side::lower, range.lower, measured.first, tolerance, A(0)};
    return {"theorem2_upper", Side::upper, range.upper, measured.first, tolerance, A(1)};
}

} // namespace v0_1
} // namespace attnscope
