// Norms of the Jacobian dp/dz of one row, for every normaliser.
#pragma once

#include <attnscope/sensitivity/family_norms.hpp>
#include <attnscope/sensitivity/product_norms.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Norms behind a top-k or top-p choice where N has closed forms in the weights alone: those of N at the
/// weights that are left.
template <class N, class Choice, Real T>
requires detail::FamilyGradient<N>::closed
JacobianNorms<Accumulator<T>> jacobian_norms(const RestrictedNormalizer<N, Choice>& normalizer, RowIn<T> z,
                                             RowIn<T> p) {
    return jacobian_norms(normalizer.inner(), z, p);
}

/// Norms behind a division of the logits by a temperature: those of N at z/T, divided by T. Allocates one
/// row.
template <class N, Real T>
requires Normalizer<N, T>
JacobianNorms<Accumulator<T>> jacobian_norms(const MappedNormalizer<Temperature, N>& normalizer, RowIn<T> z,
                                             RowIn<T> p) {
    using A = Accumulator<T>;
    std::vector<T> divided(z.size());
    normalizer.template mapped<T>(z, RowOut<T>(divided));
    return detail::scaled(jacobian_norms(normalizer.inner(), RowIn<T>(divided), p),
                          detail::clamped_inverse<A>(normalizer.map().temperature));
}

/// Norms of dp/dz at the logits z, any row; allocates the weights. Formula, special rows and cost are those
/// of the normaliser's own overload.
template <class N, RowLike Z>
requires Normalizer<N, RowScalar<Z>>
auto jacobian_norms(const N& normalizer, const Z& z) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    const RowResult<Z> p = weights(normalizer, z);
    return jacobian_norms(normalizer, row.get(), RowIn<T>(p.data(), row.get().size()));
}

} // namespace v0_2
} // namespace attnscope
