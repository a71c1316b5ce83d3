// Softmax attention itself, with any normaliser: output, log-sum-exp and, on request, the weights.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/normalizer/concept.hpp>
#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_1 {

/// What `attend` is asked for beside the output.
struct AttendOptions {
    bool weights = false; ///< keep the [queries, keys] weights
};

/// What one head gives.
template <Real T>
struct Attention {
    Matrix<T> output;   ///< [queries, d_v], sum_j p_j v_j; [queries, 0] without values
    Row<T> log_sum_exp; ///< [queries], see `HasLogSumExp`; NaN if the normaliser has none
    Matrix<T> weights;  ///< [queries, keys] if asked for, else empty
};

namespace detail {

/// Calls f for every key in [0, keys) that is not visible.
template <class F>
void for_each_hidden(const KeyRanges& visible, Index keys, F&& f) {
    const KeyRange first = visible.lead.empty() ? visible.body : visible.lead;
    for (Index key = 0; key < std::min(first.begin, keys); ++key) f(key);
    if (!visible.lead.empty())
        for (Index key = visible.lead.end; key < visible.body.begin; ++key) f(key);
    for (Index key = visible.body.end; key < keys; ++key) f(key);
}

} // namespace detail

/// Attention of one head under a structural mask.
/// Formula. p = normalizer(scale q k^T), output = p v. Agrees with exact arithmetic to the forward error of a
/// dot product, of the normaliser and of the weighted sum (tests/property/attention/test_attention.cpp
/// computes that bound).
/// Shapes and units. q [queries, d], k [keys, d], v [keys, d_v] or none.
/// Special rows. A query that sees no key gives output 0; its log-sum-exp is that of the empty sum, -inf
/// or with a sink log n0. Keys and values that a query does not see have no influence on it, NaN and
/// infinities included. NaN in a visible key gives NaN for the queries that see it.
/// Cost. O(queries keys d); works on blocks of queries, memory O(block keys) beyond the result.
template <Real T, Normalizer<T> N = Softmax>
Attention<T> attend(const HeadView<T>& head, const N& normalizer = {}, const Mask& mask = {},
                    AttendOptions options = {}) {
    constexpr Index block_rows = 64;
    const Index queries = head.queries(), keys = head.keys();
    Attention<T> result;
    result.output = Matrix<T>::Zero(queries, head.v().cols());
    result.log_sum_exp.resize(1, queries);
    if (options.weights) result.weights = Matrix<T>::Zero(queries, keys);

    // A product with a weight of 0 keeps NaN and inf alive: such values take the way of single rows.
    const bool finite_values = !head.has_values() || head.v().map().allFinite();

    Matrix<T> block(std::min(block_rows, queries), keys);
    for (Index begin = 0; begin < queries; begin += block_rows) {
        const Index rows = std::min(block_rows, queries - begin);
        Index end_key = 0;
        for (Index i = 0; i < rows; ++i) end_key = std::max(end_key, mask.visible(begin + i, keys).hull().end);
        auto p = block.topLeftCorner(rows, end_key);
        p.noalias() = head.q().map().middleRows(begin, rows) * head.k().map().topRows(end_key).transpose();
        p *= head.scale();
        for (Index i = 0; i < rows; ++i) {
            const RowOut<T> row(block.data() + i * keys, static_cast<std::size_t>(end_key));
            detail::for_each_hidden(mask.visible(begin + i, keys), end_key, [&](Index key) {
                row[static_cast<std::size_t>(key)] = -std::numeric_limits<T>::infinity();
            });
            if constexpr (HasLogSumExp<N, T>)
                result.log_sum_exp[begin + i] = normalizer.log_sum_exp(RowIn<T>(row));
            else
                result.log_sum_exp[begin + i] = std::numeric_limits<T>::quiet_NaN();
            normalizer.apply(RowIn<T>(row), row);
        }
        if (options.weights) result.weights.block(begin, 0, rows, end_key) = p;
        if (!head.has_values() || end_key == 0) continue;
        if (finite_values) {
            result.output.middleRows(begin, rows).noalias() = p * head.v().map().topRows(end_key);
        } else {
            for (Index i = 0; i < rows; ++i)
                mask.visible(begin + i, keys).for_each([&](Index key) {
                    result.output.row(begin + i) += block(i, key) * head.v().map().row(key);
                });
        }
    }
    return result;
}

/// As above from any Eigen matrices, with the scale 1/sqrt(d); column-major and half-precision input is
/// copied.
/// Throws. `invalid_argument` when shapes do not fit.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N = Softmax>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
         std::same_as<ScalarOf<Q>, ScalarOf<V>>
Attention<ScalarOf<Q>> attend(const Q& q, const K& k, const V& v, const N& normalizer = {},
                              const Mask& mask = {}, AttendOptions options = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    return attend(HeadView<T>(q_rows.get(), k_rows.get(), v_rows.get()), normalizer, mask, options);
}

/// Attention of every head of a group, in order.
template <Real T, Normalizer<T> N = Softmax>
std::vector<Attention<T>> attend(const HeadGroup<T>& group, const N& normalizer = {}, const Mask& mask = {},
                                 AttendOptions options = {}) {
    std::vector<Attention<T>> result;
    result.reserve(static_cast<std::size_t>(group.heads()));
    for (Index h = 0; h < group.heads(); ++h) result.push_back(attend(group[h], normalizer, mask, options));
    return result;
}

/// Gradients of a loss with respect to what one head is made of.
template <Real T>
struct AttentionGradient {
    Matrix<T> q;          ///< [queries, d]
    Matrix<T> k;          ///< [keys, d]
    Matrix<T> v;          ///< [keys, d_v]
    double parameter = 0; ///< with respect to the normaliser's own parameter, if asked for
};

namespace detail {

/// As `HasParameter`, also for a normaliser that knows only at run time which one it has.
template <class N, class T>
concept TellsParameterDerivative = requires(const N& n, std::span<const T> z, std::span<T> out) {
    { n.parameter_derivative(z, z, out) } -> std::same_as<void>;
};

} // namespace detail

/// What `attend_backward` is asked for beside the gradients in q, k and v.
struct AttendBackwardOptions {
    bool parameter = false; ///< also the gradient in the normaliser's parameter (temperature, s, alpha, ...)
};

/// Backward pass of `attend`: from the gradient of a loss with respect to the output to those with respect to
/// q, k and v, for any normaliser through its `vjp`.
/// Formula. With W = d_output v^T and dZ = vjp of W row by row: dq = scale dZ k, dk = scale dZ^T q, dv = p^T
/// d_output. That in the normaliser's parameter is sum <W, dp/d parameter> over the rows.
/// Shapes and units. d_output [queries, d_v].
/// Special rows. Keys that a query does not see get nothing from it and give nothing to it, NaN included.
/// Queries that see no key have gradient 0.
/// Cost. O(queries keys d), about 2.5 forward passes: the weights are computed anew, block by block. Memory
/// O(block keys) beyond the result.
/// Throws. `invalid_argument` when the head has no values, d_output does not fit, or a parameter is asked for
/// that the normaliser does not have.
template <Real T, Normalizer<T> N>
AttentionGradient<T> attend_backward(const HeadView<T>& head, const N& normalizer, MatrixView<T> d_output,
                                     const Mask& mask = {}, AttendBackwardOptions options = {}) {
    constexpr Index block_rows = 64;
    const Index queries = head.queries(), keys = head.keys();
    detail::require(head.has_values(), "attend_backward", "the head must have values", keys);
    detail::require(d_output.rows() == queries && d_output.cols() == head.v().cols(), "attend_backward",
                    "d_output must have the shape of the output", d_output.rows(), d_output.cols());
    if constexpr (!detail::TellsParameterDerivative<N, T>)
        detail::require(!options.parameter, "attend_backward", "the normaliser must have a parameter");
    AttentionGradient<T> gradient{Matrix<T>::Zero(queries, head.q().cols()),
                                  Matrix<T>::Zero(keys, head.k().cols()),
                                  Matrix<T>::Zero(keys, head.v().cols()), 0};
    std::vector<T> slopes;
    const auto q = head.q().map(), k = head.k().map(), v = head.v().map(), d_out = d_output.map();
    // Products with exact zeros keep NaN and inf alive: such heads take the way of single entries.
    const bool finite = q.allFinite() && k.allFinite() && v.allFinite() && d_out.allFinite();

    Matrix<T> logits(std::min(block_rows, queries), keys), weights = logits, d_weights = logits;
    for (Index begin = 0; begin < queries; begin += block_rows) {
        const Index rows = std::min(block_rows, queries - begin);
        Index end_key = 0;
        for (Index i = 0; i < rows; ++i) end_key = std::max(end_key, mask.visible(begin + i, keys).hull().end);
        if (end_key == 0) continue;
        auto z = logits.topLeftCorner(rows, end_key), p = weights.topLeftCorner(rows, end_key),
             d_z = d_weights.topLeftCorner(rows, end_key);
        z.noalias() = q.middleRows(begin, rows) * k.topRows(end_key).transpose();
        z *= head.scale();
        d_z.noalias() = d_out.middleRows(begin, rows) * v.topRows(end_key).transpose();
        for (Index i = 0; i < rows; ++i) {
            const KeyRanges visible = mask.visible(begin + i, keys);
            detail::for_each_hidden(visible, end_key, [&](Index key) {
                z(i, key) = -std::numeric_limits<T>::infinity();
                d_z(i, key) = T(0);
            });
            const std::size_t size = static_cast<std::size_t>(end_key);
            const RowIn<T> z_row(logits.data() + i * keys, size);
            const RowOut<T> p_row(weights.data() + i * keys, size), d_row(d_weights.data() + i * keys, size);
            const RowStatus status = normalizer.apply(z_row, p_row);
            if constexpr (detail::TellsParameterDerivative<N, T>) {
                if (options.parameter && status != RowStatus::empty) {
                    slopes.resize(size);
                    normalizer.parameter_derivative(z_row, RowIn<T>(p_row), RowOut<T>(slopes));
                    visible.for_each([&](Index key) {
                        gradient.parameter += static_cast<double>(slopes[static_cast<std::size_t>(key)]) *
                                              static_cast<double>(d_row[static_cast<std::size_t>(key)]);
                    });
                }
            }
            normalizer.vjp(z_row, RowIn<T>(p_row), RowIn<T>(d_row), d_row);
        }
        d_z *= head.scale();
        if (finite) {
            gradient.q.middleRows(begin, rows).noalias() = d_z * k.topRows(end_key);
            gradient.k.topRows(end_key).noalias() += d_z.transpose() * q.middleRows(begin, rows);
            gradient.v.topRows(end_key).noalias() += p.transpose() * d_out.middleRows(begin, rows);
        } else {
            for (Index i = 0; i < rows; ++i)
                mask.visible(begin + i, keys).for_each([&](Index key) {
                    gradient.q.row(begin + i) += d_z(i, key) * k.row(key);
                    gradient.k.row(key) += d_z(i, key) * q.row(begin + i);
                    gradient.v.row(key) += p(i, key) * d_out.row(begin + i);
                });
        }
    }
    return gradient;
}

/// Gradients of a group of heads: q for every query head, k and v for every key head, summed over the query
/// heads that share it.
template <Real T>
struct GroupGradient {
    std::vector<Matrix<T>> q, k, v;
};

/// As above for a group.
/// Shapes and units. `d_outputs`: one for each query head, in order.
/// Throws. `invalid_argument` also when their number is another.
template <Real T, Normalizer<T> N>
GroupGradient<T> attend_backward(const HeadGroup<T>& group, const N& normalizer,
                                 std::type_identity_t<std::span<const Matrix<T>>> d_outputs,
                                 const Mask& mask = {}) {
    detail::require(static_cast<Index>(d_outputs.size()) == group.heads(), "attend_backward",
                    "there must be one d_output for each query head", d_outputs.size(), group.heads());
    GroupGradient<T> gradient;
    const Index shared = group.heads() / group.key_heads();
    for (Index h = 0; h < group.heads(); ++h) {
        AttentionGradient<T> own =
            attend_backward(group[h], normalizer, MatrixView<T>(d_outputs[static_cast<std::size_t>(h)]), mask);
        gradient.q.push_back(std::move(own.q));
        if (h % shared == 0) {
            gradient.k.push_back(std::move(own.k));
            gradient.v.push_back(std::move(own.v));
        } else {
            gradient.k.back() += own.k;
            gradient.v.back() += own.v;
        }
    }
    return gradient;
}

} // namespace v0_1
} // namespace attnscope
