// How fast attention makes tokens alike: Dobrushin's coefficient of a matrix of weights.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/normalizer/concept.hpp>

namespace attnscope {
inline namespace v0_1 {

/// How far the tokens are apart at most.
/// Formula. diam(X) = max |x_i - x_j| over the rows of x [n, d].
/// Special rows. 0 for n < 2, NaN if one is.
/// Cost. O(n^2 d), no allocation.
template <Real T>
T token_diameter(MatrixView<T> x) {
    T largest = 0;
    for (Index i = 0; i < x.rows(); ++i)
        for (Index j = 0; j < i; ++j) {
            const T square = (x.map().row(i) - x.map().row(j)).squaredNorm();
            if (!(square <= largest)) largest = square; // takes NaN in
            if (largest != largest) return largest;
        }
    return std::sqrt(largest);
}

/// Dobrushin's coefficient of a matrix of weights, in [0, 1]. 0: all rows alike; 1: two rows share no key.
/// Formula. delta(P) = max_ij TV(P_i, P_j).
/// Shapes and units. p [queries, keys], whose rows sum to 1.
/// Special rows. NaN if a weight is; 0 for fewer than two rows.
/// Cost. O(queries^2 keys), no allocation.
template <Real T>
T dobrushin_coefficient(MatrixView<T> p) {
    T largest = 0;
    for (Index i = 0; i < p.rows(); ++i)
        for (Index j = 0; j < i; ++j) {
            const T sum = (p.map().row(i) - p.map().row(j)).template lpNorm<1>() / 2;
            if (!(sum <= largest)) largest = sum;
            if (largest != largest) return largest;
        }
    return std::min(largest, T(1)); // the sum of two rows is rounded
}

/// Upper bound on delta(P) from the logits of softmax rows.
/// Formula. tanh(max_ij range(z_i - z_j)/4) over the keys that both rows see; 1 as soon as a key is seen (z >
/// -inf) by one of them only.
/// Shapes and units. z/T [queries, keys].
/// Special rows. NaN if a logit is NaN or +inf.
/// Cost. O(queries^2 keys), no allocation.
template <Real T>
T dobrushin_limit(MatrixView<T> z) {
    T largest = 0;
    for (Index i = 0; i < z.rows(); ++i)
        for (const T x : z.row(i))
            if (!(x <= std::numeric_limits<T>::max())) return std::numeric_limits<T>::quiet_NaN();
    for (Index i = 0; i < z.rows(); ++i)
        for (Index j = 0; j < i; ++j) {
            T low = std::numeric_limits<T>::infinity(), high = -low;
            const RowIn<T> a = z.row(i), b = z.row(j);
            for (std::size_t key = 0; key < a.size(); ++key) {
                constexpr T masked = -std::numeric_limits<T>::infinity();
                if (a[key] == masked && b[key] == masked) continue;
                if (a[key] == masked || b[key] == masked) {
                    largest = std::numeric_limits<T>::infinity();
                    break;
                }
                const T difference = a[key] - b[key];
                if (!(difference == difference)) return difference;
                low = std::min(low, difference);
                high = std::max(high, difference);
            }
            if (high > low) largest = std::max(largest, high - low);
        }
    return std::tanh(largest / 4);
}

/// What is left of the tokens' differences after several rounds of mixing, without anything in between.
/// Formula. diam(P_m ... P_1 X) <= delta(P_m) ... delta(P_1) diam(X); 1 for none.
/// Shapes and units. `coefficients`: the delta of each.
/// Cost. O(m).
template <Real T>
T rank_collapse_factor(std::span<const T> coefficients) {
    T product = 1;
    for (const T delta : coefficients) product *= delta;
    return product;
}

/// As above from any row.
template <RowLike C>
RowScalar<C> rank_collapse_factor(const C& coefficients) {
    using T = RowScalar<C>;
    const RowHolder<T> row(coefficients);
    return rank_collapse_factor<T>(row.get());
}

inline constexpr Statement rank_collapse_sharp_statement{
    .id = "rank_collapse",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "diam(P V) <= delta(P) diam(V), delta = max TV(P_i, P_j)",
    .conditions = "rows of weights that sum to 1",
    .source = "Dobrushin",
};

/// Bound "rank_collapse": what mixing leaves of the tokens' differences, from the three figures.
/// Formula. diam(PX) <= delta(P) diam(X); what holds without it is diam(X).
/// Shapes and units. length: of the longest token, keys: terms of each mean, both for the rounding of the
/// means.
/// Cost. O(1).
template <Real A>
Bound<A> rank_collapse_sharp(A mixed_diameter, A coefficient, A diameter, A length, Index keys) {
    const A unit = std::numeric_limits<A>::epsilon() * static_cast<A>(keys + 16);
    return upper_bound<A>(rank_collapse_sharp_statement, {.limit = coefficient * diameter,
                                                          .measured = mixed_diameter,
                                                          .tolerance = unit * (length + diameter),
                                                          .trivial = diameter});
}

inline constexpr Statement dobrushin_sharp_statement{
    .id = "dobrushin",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "delta(P) <= tanh(max_ij range(z_i - z_j)/4)",
    .conditions = "softmax; 1 where two queries see different keys",
    .source = "perturbation_tv",
};

/// Bound "dobrushin": delta(P) <= `dobrushin_limit`. weight_error: relative error of the weights. O(1).
template <Real A>
Bound<A> dobrushin_sharp(A coefficient, A limit, A weight_error) {
    return upper_bound<A>(dobrushin_sharp_statement,
                          {.limit = limit,
                           .measured = coefficient,
                           .tolerance = 2 * weight_error + 8 * std::numeric_limits<A>::epsilon(),
                           .trivial = 1});
}

} // namespace v0_1
} // namespace attnscope
