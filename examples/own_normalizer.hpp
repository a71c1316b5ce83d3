// A normaliser of one's own: Taylor softmax, p_i = F(z_i)/sum F with F(z) = 1 + z + z^2/2 > 0.
#pragma once

#include <attnscope/attnscope.hpp>

struct Taylor {
    static constexpr std::string_view name() { return "taylor"; }
    template <class T>
    T operator()(T z) const {
        return T(0.5) + (z + 1) * (z + 1) / 2;
    }
    template <class T>
    T derivative(T z) const {
        return z + 1;
    }
};
using TaylorSoftmax =
    attnscope::PointwiseNormalizer<Taylor>; // masks, special rows, derivatives, norms, statements
static_assert(attnscope::Normalizer<TaylorSoftmax, float>);
