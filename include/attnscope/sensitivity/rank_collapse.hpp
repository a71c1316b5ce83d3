// How fast attention makes tokens alike: Dobrushin's coefficient of a matrix of weights.
#pragma once

#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/sensitivity/perturbation.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

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

/// Doeblin's bound on Dobrushin's coefficient of any set of rows.
/// Formula. delta(P) <= 1 - sum_c min_i p_ic. Exact where one row has all its weight on one key c, as the first
/// row under a causal mask: delta(P) = 1 - min_i p_ic.
/// Shapes and units. p [queries, keys], whose rows sum to 1.
/// Special rows. NaN if a weight is; 0 for fewer than two rows.
/// Cost. O(queries keys), allocates one row.
template <Real T>
T doeblin_limit(MatrixView<T> p) {
    if (p.map().hasNaN()) return std::numeric_limits<T>::quiet_NaN();
    if (p.rows() < 2) return T(0);
    Row<T> least = p.map().row(0);
    for (Index i = 1; i < p.rows(); ++i) least = least.min(p.map().row(i).array());
    // The first row sums to 1: differences of its weights, all >= 0, and no 1 - (sum near 1).
    return std::min((p.map().row(0).array() - least).sum(), T(1));
}

namespace detail {

/// The key on which some row has all its weight.
template <Real T>
std::optional<Index> sole_key(MatrixView<T> p) {
    for (Index i = 0; i < p.rows(); ++i) {
        Index key = 0;
        if (p.map().row(i).maxCoeff(&key) > T(0) && (p.map().row(i).array() != T(0)).count() == 1) return key;
    }
    return std::nullopt;
}

} // namespace detail

/// Dobrushin's coefficient of a matrix of weights, in [0, 1]. 0: all rows alike; 1: two rows share no key.
/// Formula. delta(P) = max_ij TV(P_i, P_j); max_i (1 - p_ic) where a row has all its weight on one key c.
/// Shapes and units. p [queries, keys], whose rows sum to 1.
/// Special rows. NaN if a weight is; 0 for fewer than two rows.
/// Cost. O(queries^2 keys), O(queries keys) where a row has one key only, as under a causal mask. No allocation.
template <Real T>
T dobrushin_coefficient(MatrixView<T> p) {
    T largest = 0;
    const auto meet = [&](T distance) {
        if (!(distance <= largest)) largest = distance;
        return largest == largest;
    };
    if (const auto key = detail::sole_key(p)) {
        const Index after = p.cols() - *key - 1;
        for (Index i = 0; i < p.rows(); ++i)
            // The weight on the key itself counts if it is NaN.
            if (!meet(p.map().row(i).head(*key).sum() + p.map().row(i).tail(after).sum() +
                      0 * p.map()(i, *key)))
                return largest;
    } else {
        for (Index i = 0; i < p.rows(); ++i)
            for (Index j = 0; j < i; ++j)
                if (!meet((p.map().row(i) - p.map().row(j)).template lpNorm<1>() / 2)) return largest;
    }
    return std::min(largest, T(1)); // the sum of two rows is rounded
}

/// Dobrushin's coefficient of a stack of layers, P_m ... P_1, under a causal mask, without their product.
/// Formula. delta = 1 - min_i (P_m ... P_1 e_1)_i: every product of such matrices has its first row on the first
/// key only.
/// Shapes and units. layers: P_1 first, each [n, n] with rows that sum to 1 and a first row on the first key only.
/// Special rows. NaN if a weight is. 0 for no token; max_i (1 - e_1)_i = 1 for n > 1 tokens and no layer.
/// Cost. O(m n^2), allocates two rows.
/// Throws. `invalid_argument` for matrices of other shapes, or a first row with weight elsewhere.
template <Real T>
T causal_stack_coefficient(std::span<const MatrixView<T>> layers, Index tokens) {
    // Of each token, the share that is not the first one's: P(1 - e_1) and not 1 - P e_1.
    Eigen::Matrix<T, Eigen::Dynamic, 1> others = Eigen::Matrix<T, Eigen::Dynamic, 1>::Ones(tokens);
    if (tokens > 0) others[0] = 0;
    for (const MatrixView<T>& p : layers) {
        detail::require(p.rows() == tokens && p.cols() == tokens, "causal_stack_coefficient",
                        "every layer must have one row and one column for each token", p.rows(), p.cols());
        for (Index j = 1; j < tokens; ++j)
            detail::require(!(p.map()(0, j) > T(0)), "causal_stack_coefficient",
                            "the first row must be on the first key only", p.map()(0, j));
        others = (p.map() * others).eval();
    }
    if (others.hasNaN()) return std::numeric_limits<T>::quiet_NaN();
    return tokens > 0 ? std::min(others.maxCoeff(), T(1)) : T(0);
}

/// Upper bound on delta(P) of softmax rows, from their logits and weights.
/// Formula. min{max_ij TV limit of rows i and j, 1 - sum_c min_i p_ic}: the limit of two rows is
/// `total_variation_limit` from the range of z_i - z_j over the keys that both see and the weights on the others,
/// tanh(range/4) if they see the same; the other is `doeblin_limit`.
/// Shapes and units. z/T [queries, keys], p [queries, keys] = softmax(z/T).
/// Special rows. NaN if a logit is NaN or +inf. Two rows without keys are alike, one of them and another have 1.
/// Cost. O(queries^2 keys), less where the second is smaller; allocates one row.
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T>
T dobrushin_limit(MatrixView<T> z, MatrixView<std::type_identity_t<T>> p) {
    constexpr T infinity = std::numeric_limits<T>::infinity(), masked = -infinity;
    detail::require(p.rows() == z.rows() && p.cols() == z.cols(), "dobrushin_limit",
                    "weights must have the shape of the logits", p.rows(), p.cols());
    bool empty = false; // a row without keys, whose weights do not sum to 1
    for (Index i = 0; i < z.rows(); ++i) {
        bool sees = false;
        for (const T x : z.row(i)) {
            if (!(x <= std::numeric_limits<T>::max())) return std::numeric_limits<T>::quiet_NaN();
            sees = sees || x > masked;
        }
        empty = empty || !sees;
    }
    const T enough = empty ? T(1) : doeblin_limit(p);
    if (enough != enough) return enough;
    T largest = 0;
    // The last rows first: under a causal mask they see most.
    for (Index i = z.rows(); i-- > 0;)
        for (Index j = 0; j < i && largest < enough; ++j) {
            T low = infinity, high = -infinity, first = 0, second = 0;
            bool alike = true, any = false;
            const RowIn<T> a = z.row(i), b = z.row(j), p1 = p.row(i), p2 = p.row(j);
            for (std::size_t key = 0; key < a.size(); ++key) {
                if (a[key] > masked && b[key] > masked) {
                    const T difference = a[key] - b[key];
                    low = std::min(low, difference);
                    high = std::max(high, difference);
                    any = true;
                } else if (a[key] > masked || b[key] > masked) {
                    first += p1[key];
                    second += p2[key];
                    alike = false;
                }
            }
            // Differences that overflow say nothing of their range.
            const T range = high > low ? high - low : std::isfinite(high) || !any ? T(0) : infinity;
            largest = std::max(
                largest, alike  ? total_variation_limit(range)
                         : !any ? T(1)
                                : total_variation_limit(range, std::min(first, T(1)), std::min(second, T(1))));
        }
    return std::min(largest, enough);
}

/// The same from the logits alone. Allocates the weights.
template <Real T>
T dobrushin_limit(MatrixView<T> z) {
    Matrix<T> p(z.rows(), z.cols());
    for (Index i = 0; i < z.rows(); ++i)
        Softmax{}.apply<T>(z.row(i), RowOut<T>(p.data() + i * p.cols(), static_cast<std::size_t>(p.cols())));
    return dobrushin_limit(z, MatrixView<T>(p));
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
    .text = "delta(P) <= min{max_ij t(r_ij, m_ij, m_ji), 1 - sum_c min_i p_ic}, t = tanh(r/4) for equal masks",
    .conditions =
        "softmax; r_ij = range(z_i - z_j) on common keys, m_ij = weight of row i where row j sees none",
    .source = "Birkhoff; Doeblin",
};

/// Bound "dobrushin": delta(P) <= `dobrushin_limit`. weight_error: relative error of the weights, which are on both
/// sides. O(1).
template <Real A>
Bound<A> dobrushin_sharp(A coefficient, A limit, A weight_error) {
    return upper_bound<A>(dobrushin_sharp_statement,
                          {.limit = limit,
                           .measured = coefficient,
                           .tolerance = 4 * weight_error + 8 * std::numeric_limits<A>::epsilon(),
                           .trivial = 1});
}

} // namespace v0_2
} // namespace attnscope
