// Softmax attention itself, with any normaliser: output, log-sum-exp and, on request, the weights.
#pragma once

#include <attnscope/head.hpp>
#include <attnscope/normalizer/concept.hpp>

namespace attnscope {
inline namespace v0_1 {

struct AttendOptions {
    bool weights = false; ///< keep the [queries, keys] weights
};

/// What one head gives.
template <Real T>
struct Attention {
    Matrix<T> output;      ///< [queries, d_v], sum_j p_j v_j; [queries, 0] without values
    Row<T> log_normalizer; ///< [queries]; log-sum-exp for softmax; NaN if the normaliser has none
    Matrix<T> weights;     ///< [queries, keys] if asked for, else empty
};

/// Attention of one head: p = normalizer(scale q k^T), output = p v, under a structural mask.
/// A query that sees no key gives output 0 and log-normaliser -inf. Keys and values that a query does not see
/// have no influence on it, NaN and infinities included. NaN in a visible key gives NaN for the queries that
/// see it. Cost O(queries keys d); works on blocks of queries, memory O(block keys) beyond the result. Agrees
/// with exact arithmetic to the forward error of a dot product, of the normaliser and of the weighted sum
/// (tests/property/test_attention.cpp computes that bound).
template <Real T, Normalizer<T> N>
Attention<T> attend(const HeadView<T>& head, const N& normalizer, const Mask& mask = {},
                    AttendOptions options = {}) {
    constexpr Index block_rows = 64;
    const Index queries = head.queries(), keys = head.keys();
    Attention<T> result;
    result.output = Matrix<T>::Zero(queries, head.v().cols());
    result.log_normalizer.resize(1, queries);
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
            const KeyRanges visible = mask.visible(begin + i, keys);
            const T masked = -std::numeric_limits<T>::infinity();
            if (visible.lead.empty()) {
                std::fill(row.begin(), row.begin() + visible.body.begin, masked);
            } else {
                std::fill(row.begin(), row.begin() + visible.lead.begin, masked);
                std::fill(row.begin() + visible.lead.end, row.begin() + visible.body.begin, masked);
            }
            std::fill(row.begin() + visible.body.end, row.end(), masked);
            if constexpr (HasLogNormalizer<N, T>)
                result.log_normalizer[begin + i] = normalizer.log_normalizer(RowIn<T>(row));
            else
                result.log_normalizer[begin + i] = std::numeric_limits<T>::quiet_NaN();
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

/// As above from any Eigen matrices (column-major and half-precision input is copied): q [queries, d], k [keys,
/// d], v [keys, d_v], scale 1/sqrt(d).
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
    std::same_as<ScalarOf<Q>, ScalarOf<V>>
        Attention<ScalarOf<Q>> attend(const Q& q, const K& k, const V& v, const N& normalizer,
                                      const Mask& mask = {}, AttendOptions options = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    return attend(HeadView<T>(q_rows.get(), k_rows.get(), v_rows.get()), normalizer, mask, options);
}

/// Attention of every head of a group, in order.
template <Real T, Normalizer<T> N>
std::vector<Attention<T>> attend(const HeadGroup<T>& group, const N& normalizer, const Mask& mask = {},
                                 AttendOptions options = {}) {
    std::vector<Attention<T>> result;
    result.reserve(static_cast<std::size_t>(group.heads()));
    for (Index h = 0; h < group.heads(); ++h) result.push_back(attend(group[h], normalizer, mask, options));
    return result;
}

} // namespace v0_1
} // namespace attnscope
