// The paper's finite-difference experiment (Algorithm 5): how far weights move when logits move a little.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/random.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A random unit vector over the visible keys of z: normal draws, normalised. They depend on the generator
/// only: one for each visible key, in order.
/// Shapes and units. z and `direction` of one length.
/// Special rows. 0 at masked keys; all 0 if no key is visible.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` when the lengths differ.
template <Real T>
void random_direction(RowIn<T> z, SplitMix64& generator, RowOut<T> direction) {
    detail::require_same_size<T>("random_direction", z, direction);
    Accumulator<T> squares = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        const bool visible = z[i] != -std::numeric_limits<T>::infinity();
        direction[i] = visible ? static_cast<T>(generator.normal()) : T(0);
        squares += Accumulator<T>(direction[i]) * direction[i];
    }
    if (!(squares > 0)) return;
    const auto length = std::sqrt(squares);
    for (T& x : direction) x = static_cast<T>(x / length);
}

/// As above from any row, as a vector like it. Allocates the result.
template <RowLike Z>
RowResult<Z> random_direction(const Z& z, SplitMix64& generator) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    RowResult<Z> direction;
    direction.resize(row.size());
    random_direction<T>(row.get(), generator, RowOut<T>(direction.data(), row.get().size()));
    return direction;
}

/// How far the weights p of any normaliser move when the logits move by eps along v.
/// Formula. g = |p(z + eps v) - p(z)|_2/eps; v is used as it is.
/// Shapes and units. Rows of one length. `p`: the weights at z; `moved` is overwritten with p(z + eps v).
/// Special rows. NaN in a row gives NaN.
/// Cost. O(n), no allocation beside the normaliser's own.
/// Throws. `invalid_argument` unless eps > 0 and finite, or when lengths differ.
/// Source. arXiv:2508.17821, Algorithm 5.
template <Real T, Normalizer<T> N>
Accumulator<T> finite_difference(const N& normalizer, RowIn<T> z, RowIn<T> p, RowIn<T> v, T eps,
                                 RowOut<T> moved) {
    detail::require_same_size<T>("finite_difference", z, p, v, moved);
    detail::require(eps > T(0) && std::isfinite(eps), "finite_difference", "eps must be > 0 and finite", eps);
    for (std::size_t i = 0; i < z.size(); ++i) moved[i] = z[i] + eps * v[i];
    normalizer.apply(std::span<const T>(moved), moved);
    Accumulator<T> squares = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        const auto change = Accumulator<T>(moved[i]) - Accumulator<T>(p[i]);
        squares += change * change;
    }
    return std::sqrt(squares) / Accumulator<T>(eps);
}

/// As above from any rows. Allocates two of them.
template <class N, RowLike Z, RowLike V>
requires Normalizer<N, RowScalar<Z>> && std::same_as<RowScalar<Z>, RowScalar<V>>
Accumulator<RowScalar<Z>> finite_difference(const N& normalizer, const Z& z, const V& v, RowScalar<Z> eps) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z), direction(v);
    const RowResult<Z> p = weights(normalizer, z);
    Row<T> moved(row.size());
    const std::size_t n = row.get().size();
    return finite_difference<T>(normalizer, row.get(), RowIn<T>(p.data(), n), direction.get(), eps,
                                RowOut<T>(moved.data(), n));
}

} // namespace v0_2
} // namespace attnscope
