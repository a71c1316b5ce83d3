// Differential attention: the difference of two rows of weights.
#pragma once

#include <attnscope/normalizer/concept.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {

/// The difference of two rows of weights. Two rows of logits, hence no `Normalizer`.
/// Formula. p = N(z1) - lambda N(z2), where N is softmax and lambda is trained. Weights may be negative.
/// Shapes and units. Rows of one length. Writes the weights of both rows to p1 and p2, which the derivative
/// needs, and p to `out`.
/// Special rows. A row without mass counts as zeros. Status: nan if a row is, else infinite if a row is;
/// empty if both are (beside an empty row the other keeps its mass).
/// Cost. N twice, no allocation of its own.
/// Throws. `invalid_argument` when lengths differ.
/// Source. arXiv:2410.05258.
template <class N, Real T>
requires Normalizer<N, T>
RowStatus differential_weights(const N& normalizer, RowIn<T> z1, RowIn<T> z2, T lambda, RowOut<T> p1,
                               RowOut<T> p2, RowOut<T> out) {
    detail::require_same_size<T>("differential_weights", z1, z2, p1, p2, out);
    const RowStatus first = normalizer.apply(z1, p1), second = normalizer.apply(z2, p2);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = p1[i] - lambda * p2[i];
    for (const RowStatus status : {RowStatus::nan, RowStatus::infinite})
        if (first == status || second == status) return status;
    return first == RowStatus::empty ? second : first;
}

/// Gradients of a loss whose gradient in the differential weights is w; returns that in lambda.
/// Formula. g1 = J1^T w and g2 = -lambda J2^T w in the logits; -<p2, w> in lambda.
/// Shapes and units. Rows of one length; p1, p2: the weights of both rows. g1 may be w.
/// Special rows. Those of N; keys without weight in p2 do not count in lambda, whatever w holds there.
/// Cost. Two vjp of N, no allocation of its own.
/// Throws. `invalid_argument` when lengths differ.
template <class N, Real T>
requires Normalizer<N, T>
T differential_vjp(const N& normalizer, RowIn<T> z1, RowIn<T> z2, RowIn<T> p1, RowIn<T> p2, T lambda,
                   RowIn<T> w, RowOut<T> g1, RowOut<T> g2) {
    detail::require_same_size<T>("differential_vjp", z1, z2, p1, p2, w, g1, g2);
    T product = 0;
    for (std::size_t i = 0; i < w.size(); ++i)
        if (p2[i] != T(0)) product += p2[i] * w[i];
    normalizer.vjp(z2, p2, w, g2);
    for (T& x : g2) x *= -lambda;
    normalizer.vjp(z1, p1, w, g1);
    return -product;
}

/// As above from two rows of one scalar, as a vector like z1. Allocates three rows.
template <class N, RowLike Z1, RowLike Z2>
requires Normalizer<N, RowScalar<Z1>> && std::same_as<RowScalar<Z1>, RowScalar<Z2>>
RowResult<Z1> differential_weights(const N& normalizer, const Z1& z1, const Z2& z2, RowScalar<Z1> lambda) {
    using T = RowScalar<Z1>;
    const RowHolder<T> first(z1), second(z2);
    Row<T> p1(first.size()), p2(second.size());
    RowResult<Z1> out;
    out.resize(first.size());
    const auto span = [](auto& row) { return RowOut<T>(row.data(), static_cast<std::size_t>(row.size())); };
    differential_weights<N, T>(normalizer, first.get(), second.get(), lambda, span(p1), span(p2), span(out));
    return out;
}

} // namespace v0_2
} // namespace attnscope
