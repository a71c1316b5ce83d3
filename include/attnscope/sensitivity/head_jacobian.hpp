// How a head's output moves with the tokens it is computed from: products with that Jacobian, its norm by
// iteration from below, and a certified bound from above.
#pragma once

#include <attnscope/attention/attend_backward.hpp>
#include <attnscope/bound.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/random.hpp>
#include <attnscope/sensitivity/nonnegative_norm.hpp>
#include <attnscope/sensitivity/spectral_norm.hpp>

#include <Eigen/Eigenvalues>

namespace attnscope {
inline namespace v0_2 {

/// How q, k and v are made from tokens x_i in R^D: q_i = W_Q^T x_i + b and so on; the offsets do not matter
/// here. Borrowed, as in `HeadView`.
template <Real T>
struct HeadProjections {
    MatrixView<T> query; ///< W_Q [D, d]
    MatrixView<T> key;   ///< W_K [D, d]
    MatrixView<T> value; ///< W_V [D, d_v]
};

namespace detail {

template <Real T>
void require_projections(std::string_view function, const HeadView<T>& head,
                         const HeadProjections<T>& projections) {
    require(head.has_values() && head.queries() == head.keys(), function,
            "the head must have values and one query, key and value for each token", head.queries(),
            head.keys());
    require(projections.query.cols() == head.q().cols() && projections.key.cols() == head.k().cols() &&
                projections.value.cols() == head.v().cols(),
            function, "the projections must have the widths of q, k and v", projections.query.cols(),
            projections.key.cols(), projections.value.cols());
    require(projections.query.rows() == projections.key.rows() &&
                projections.query.rows() == projections.value.rows(),
            function, "the projections must have one row for each number of a token", projections.query.rows(),
            projections.key.rows(), projections.value.rows());
}

} // namespace detail

/// How the output of one head moves with the tokens it is computed from, as a linear map from [n, D] to [n,
/// d_v].
/// Formula. J = do/dx, o_i = sum_j p_ij v_j:
///     (J dx)_i = sum_j p_ij dv_j + sum_j dp_ij v_j,  dz_ij = scale (dq_i . k_j + q_i . dk_j),
/// dp through the normaliser's own derivative. The queries, keys and values are those at which it is taken;
/// masked keys have no part.
/// Cost. Memory O(n^2) for logits and weights.
/// Example, with tokens x and row-major projections w_q, w_k, w_v:
///     const Matrix<float> q = x * w_q, k = x * w_k, v = x * w_v;
///     const HeadView<float> head(q, k, v);
///     const HeadProjections<float> projections{w_q, w_k, w_v};
///     const SpectralNorm<float> norm = HeadJacobian(head, projections, Mask::causal()).norm();
///     const float limit = token_jacobian_limit(head, projections, Mask::causal()).total();
template <Real T, Normalizer<T> N = Softmax>
class HeadJacobian {
public:
    /// Cost. O(n^2 d).
    /// Throws. `invalid_argument` when shapes do not fit.
    HeadJacobian(const HeadView<T>& head, const HeadProjections<T>& projections, const Mask& mask = {},
                 N normalizer = {})
        : head_(head), projections_(projections), mask_(mask), normalizer_(std::move(normalizer)) {
        detail::require_projections("HeadJacobian", head, projections);
        const Index n = head.queries();
        logits_.resize(n, n);
        weights_.resize(n, n);
        for (Index i = 0; i < n; ++i) {
            logits_of<T>(head_, mask_, i, row(logits_, i));
            normalizer_.apply(in(logits_, i), row(weights_, i));
        }
    }

    Index tokens() const { return head_.queries(); }
    Index width() const { return projections_.query.rows(); }
    const Matrix<T>& weights() const { return weights_; }

    /// J dx, dx [n, D].
    /// Cost. O(n^2 d + n D d).
    /// Throws. `invalid_argument` when dx has another shape.
    Matrix<T> jvp(MatrixView<T> dx) const {
        detail::require(dx.rows() == tokens() && dx.cols() == width(), "HeadJacobian::jvp",
                        "dx must have the shape of the tokens", dx.rows(), dx.cols());
        const Matrix<T> dq = dx.map() * projections_.query.map(), dk = dx.map() * projections_.key.map(),
                        dv = dx.map() * projections_.value.map();
        Matrix<T> change = dq * head_.k().map().transpose();
        change.noalias() += head_.q().map() * dk.transpose();
        change *= head_.scale();
        for (Index i = 0; i < tokens(); ++i) {
            const RowOut<T> d = row(change, i);
            for (Index j = 0; j < tokens(); ++j)
                if (!(logits_(i, j) > -std::numeric_limits<T>::infinity())) detail::at(d, j) = T(0);
            normalizer_.jvp(in(logits_, i), in(weights_, i), RowIn<T>(d), d);
        }
        Matrix<T> result = weights_ * dv;
        result.noalias() += change * head_.v().map();
        return result;
    }

    /// J^T w, w [n, d_v].
    /// Cost. O(n^2 d + n D d).
    /// Throws. `invalid_argument` when w has another shape.
    Matrix<T> vjp(MatrixView<T> w) const {
        const AttentionGradient<T> gradient = attend_backward(head_, normalizer_, w, mask_);
        Matrix<T> result = gradient.q * projections_.query.map().transpose();
        result.noalias() += gradient.k * projections_.key.map().transpose();
        result.noalias() += gradient.v * projections_.value.map().transpose();
        return result;
    }

    /// |J|_2 from below.
    /// Formula. Power iteration on J^T J from a seeded start: `value` = |J v|/|v| for a v that is there, so
    /// never above the norm but for rounding, and `bracket.lower` with it; `bracket.upper` is +inf (see
    /// `token_jacobian_limit`). Stops when a step changes the value by less than `tolerance`.
    /// Cost. O(steps (n^2 d + n D d)).
    /// Throws. `invalid_argument` for steps < 1.
    SpectralNorm<T> norm(int most_steps = 200, T tolerance = T(1e-6), std::uint64_t seed = 1) const {
        detail::require(most_steps >= 1, "HeadJacobian::norm", "steps must be >= 1", most_steps);
        SpectralNorm<T> result{T(0), {T(0), std::numeric_limits<T>::infinity()}, 0, false, T(0)};
        Matrix<T> v(tokens(), width());
        SplitMix64 random(seed);
        for (Index i = 0; i < v.size(); ++i) v.data()[i] = static_cast<T>(random.normal());
        while (result.steps < most_steps && !result.converged) {
            const T length = v.norm();
            if (!(length > T(0))) { // J is 0 (or NaN)
                result.value = length;
                result.converged = true;
                break;
            }
            v /= length;
            ++result.steps;
            const Matrix<T> image = jvp(v);
            const T value = image.norm();
            Matrix<T> next = vjp(image);
            result.converged = std::abs(value - result.value) <= tolerance * value;
            result.value = value;
            if (value > T(0)) result.residual = (next - value * value * v).norm() / (value * value);
            v = std::move(next);
        }
        result.bracket.lower = result.value;
        return result;
    }

private:
    static RowIn<T> in(const Matrix<T>& m, Index i) {
        return {m.data() + i * m.cols(), static_cast<std::size_t>(m.cols())};
    }
    static RowOut<T> row(Matrix<T>& m, Index i) {
        return {m.data() + i * m.cols(), static_cast<std::size_t>(m.cols())};
    }

    HeadView<T> head_;
    HeadProjections<T> projections_;
    Mask mask_;
    N normalizer_;
    Matrix<T> logits_, weights_;
};

/// Certified upper bound on |J|_2 of a softmax head: by its three parts, and block by block.
template <Real T>
struct TokenJacobianLimit {
    T through_query = 0; ///< max_i |scale Cov_i(v, k) W_Q^T|_2: a token moves what its own query picks
    T through_value = 0; ///< |P|_2 |W_V|_2
    T through_key = 0;   ///< sqrt(sum_ij p_ij^2 |v_j - o_i|^2 |a_i|^2), a_i = scale W_K q_i
    T blockwise = std::numeric_limits<T>::infinity(); ///< |h|_2, h_ij at least the norm of do_i/dx_j
    T total() const { return std::min(blockwise, through_query + through_value + through_key); }
};

/// Certified upper bound on |do/dx|_2 of a softmax head: the smaller of two.
/// Formula. |J|_2 <= `total()` of the parts of
///     do_i = sum_j p_ij dv_j + sum_j p_ij (v_j - o_i) (a_i . dx_j) + scale Cov_i(v, k) W_Q^T dx_i
/// for softmax(scale q.k). By parts: a block-diagonal one, one that is P on each column, and one by its Frobenius
/// norm. Block by block: |h|_2, h_ij = p_ij |W_V^T + (v_j - o_i) a_i^T|_2, the square of the norm no more than
/// |W_V|_2^2 plus the larger eigenvalue of a matrix of rank two, and the norm of the covariance part on the diagonal.
/// |P|_2 and |h|_2 are certified by `nonnegative_norm_limit`. Attained where the weights do not depend on the tokens
/// (W_Q = W_K = 0), under any mask.
/// Special rows. NaN in visible data gives NaN.
/// Cost. O(n^2 d d_v + n d_v^3) at most, memory O(n^2 + n d).
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T>
TokenJacobianLimit<T> token_jacobian_limit(const HeadView<T>& head, const HeadProjections<T>& projections,
                                           const Mask& mask = {}) {
    detail::require_projections("token_jacobian_limit", head, projections);
    const Index n = head.queries();
    const Matrix<T> query_gram = projections.query.map().transpose() * projections.query.map(),
                    key_gram = projections.key.map().transpose() * projections.key.map(),
                    key_value = projections.key.map().transpose() * projections.value.map(),
                    value_gram = projections.value.map().transpose() * projections.value.map();
    const auto largest_eigenvalue = [](const Matrix<T>& symmetric) {
        if (symmetric.size() == 0) return T(0);
        if (!symmetric.allFinite()) return std::numeric_limits<T>::quiet_NaN();
        const Eigen::SelfAdjointEigenSolver<Matrix<T>> solver(symmetric, Eigen::EigenvaluesOnly);
        return std::max(solver.eigenvalues().maxCoeff(), T(0));
    };
    TokenJacobianLimit<T> limit;
    const T value_square = largest_eigenvalue(value_gram); // |W_V|_2^2
    std::vector<T> p(static_cast<std::size_t>(n));
    Matrix<T> values, keys, covariance, all = Matrix<T>::Zero(n, n), blocks = Matrix<T>::Zero(n, n);
    T square = 0;
    for (Index i = 0; i < n; ++i) {
        logits_of<T>(head, mask, i, RowOut<T>(p));
        Softmax{}.apply<T>(RowIn<T>(p), RowOut<T>(p));
        const KeyRanges visible = mask.visible(i, n);
        const Index count = visible.count();
        if (count == 0) continue;
        values.resize(count, head.v().cols());
        keys.resize(count, head.k().cols());
        Row<T> weights(count);
        Index at = 0;
        visible.for_each([&](Index j) {
            weights[at] = detail::at(p, j);
            all(i, j) = weights[at];
            values.row(at) = head.v().map().row(j);
            keys.row(at) = head.k().map().row(j);
            ++at;
        });
        const Eigen::Matrix<T, 1, Eigen::Dynamic> output = weights.matrix() * values;
        values.rowwise() -= output;
        const T slope = head.scale() * head.scale() *
                        (head.q().map().row(i) * key_gram * head.q().map().row(i).transpose()).value();
        square += slope * (weights.square() * values.rowwise().squaredNorm().transpose().array()).sum();
        // B B^T of the block B = W_V^T + u a^T is W_V^T W_V + w u^T + u w^T + |a|^2 u u^T, w = W_V^T a.
        const Eigen::Matrix<T, 1, Eigen::Dynamic> w = head.scale() * head.q().map().row(i) * key_value;
        at = 0;
        visible.for_each([&](Index j) {
            const auto u = values.row(at);
            const T uu = u.squaredNorm(), ww = w.squaredNorm(), uw = u.dot(w), half = slope * uu / 2 + uw;
            // The larger eigenvalue of what comes on top, of rank two.
            const T more = half + std::sqrt(half * half + std::max(T(0), uu * ww - uw * uw));
            blocks(i, j) = weights[at++] * std::sqrt(value_square + std::max(T(0), more));
        });
        values.array().colwise() *= weights.transpose();
        covariance.noalias() = values.transpose() * keys; // keys need no centring: the values have it
        const Matrix<T> product = covariance * query_gram * covariance.transpose();
        const T own = std::abs(head.scale()) * std::sqrt(largest_eigenvalue(product));
        if (own != own) return {own, own, own, own};
        limit.through_query = std::max(limit.through_query, own);
        blocks(i, i) += own;
    }
    limit.through_value = nonnegative_norm_limit(MatrixView<T>(all)) * std::sqrt(value_square);
    limit.through_key = std::sqrt(square);
    limit.blockwise = nonnegative_norm_limit(MatrixView<T>(blocks));
    return limit;
}

inline constexpr Statement token_jacobian_sharp_statement{
    .id = "token_jacobian",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|do/dx|_2 <= min{|h|_2, max |scale Cov_i(v,k) W_Q^T| + |P|_2 |W_V| + sqrt(sum p_ij^2 |v_j-o_i|^2 "
            "|a_i|^2)}, "
            "h_ij >= |do_i/dx_j|",
    .conditions = "softmax head of known projections",
    .source = "product rule, block by block",
};

/// Bound "token_jacobian": |J|_2 by iteration, never above the norm, against `token_jacobian_limit`.
/// Shapes and units. `tokens`: n, `width`: D, for the rounding of sums over them in T.
/// Cost. O(1).
template <Real T>
Bound<T> token_jacobian_sharp(const SpectralNorm<T>& norm, const TokenJacobianLimit<T>& limit, Index tokens,
                              Index width) {
    const T unit = std::numeric_limits<T>::epsilon() * static_cast<T>(tokens + width + 64);
    return upper_bound<T>(
        token_jacobian_sharp_statement,
        {.limit = limit.total(), .measured = norm.value, .tolerance = unit * (norm.value + limit.total())});
}

/// Upper bound on |do/dx|_2 of a softmax head from sizes alone, whatever the tokens are.
/// Formula. |W_V| (sqrt(n) + (sqrt(n) + 1) |A| R^2) for n tokens of length R at most and A = scale W_Q W_K^T; q and k
/// without offsets, any mask.
/// Shapes and units. scores: |A|_2, values: |W_V|_2.
/// Cost. O(1).
/// Throws. `invalid_argument` unless n >= 1 and the sizes are >= 0.
template <Number R, Number S, Number V, Real A = Promoted<R, S, V>>
A data_free_jacobian_limit(Index tokens, R radius, S scores, V values) {
    detail::require(tokens >= 1, "data_free_jacobian_limit", "there must be a token", tokens);
    detail::require(A(radius) >= 0 && A(scores) >= 0 && A(values) >= 0, "data_free_jacobian_limit",
                    "sizes must be >= 0", radius, scores, values);
    const A root = std::sqrt(static_cast<A>(tokens));
    return A(values) * (root + (root + 1) * A(scores) * A(radius) * A(radius));
}

inline constexpr Statement data_free_lipschitz_sharp_statement{
    .id = "data_free_lipschitz",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|do/dx|_2 <= |W_V| (sqrt(n) + (sqrt(n)+1) |A| R^2), A = scale W_Q W_K^T",
    .conditions = "softmax head without offsets in q and k, |x_i| <= R",
    .source = "order sqrt(n) of arXiv:2312.14820, with constants of our own",
};

/// Bound "data_free_lipschitz": |J|_2 by iteration, never above the norm, against `data_free_jacobian_limit`.
/// Shapes and units. `tokens`: n, `width`: D, for the rounding of sums over them in T.
/// Cost. O(1).
template <Real T>
Bound<T> data_free_lipschitz_sharp(const SpectralNorm<T>& norm, T limit, Index tokens, Index width) {
    const T unit = std::numeric_limits<T>::epsilon() * static_cast<T>(tokens + width + 64);
    return upper_bound<T>(data_free_lipschitz_sharp_statement,
                          {.limit = limit, .measured = norm.value, .tolerance = unit * (norm.value + limit)});
}

} // namespace v0_2
} // namespace attnscope
