// What a normaliser is: a row of logits to a row of weights, with its derivative.
#pragma once

#include <attnscope/row/status.hpp>
#include <attnscope/types.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Promises of a normaliser. Each one that is true is tested by the law suite.
struct NormalizerTraits {
    bool simplex = false;            ///< weights of a normal row are >= 0 and sum to 1
    bool shift_invariant = false;    ///< p(z + c) = p(z)
    bool order_preserving = false;   ///< z_i >= z_j implies p_i >= p_j
    bool symmetric_jacobian = false; ///< dp/dz is symmetric
    bool sparse = false;             ///< visible keys may get weight exactly 0 away from underflow
    /// jvp and vjp look at the weights, and at the logits only to see which are -inf
    bool derivative_from_weights = false;
    /// weights cut to some keys and divided by what is left have the same jvp and vjp
    bool restrictable = false;
};

namespace detail {

/// What a normaliser can be asked.
template <class N, class T>
concept NormalizerMembers = requires(const N n, std::span<const T> z, std::span<T> out) {
    { n.name() } -> std::convertible_to<std::string_view>;
    { N::traits } -> std::convertible_to<NormalizerTraits>;
    { n.apply(z, out) } -> std::same_as<RowStatus>;
    { n.jvp(z, z, z, out) } -> std::same_as<void>;
    { n.vjp(z, z, z, out) } -> std::same_as<void>;
};

} // namespace detail

/// A normaliser over scalar T: a small value type.
///       apply(z, p)        p = weights of the logits z; -inf masks a key, whose weight is 0. `p` may be `z`.
///       jvp(z, p, v, out)  out = J v, J = dp/dz at z, p = weights of z. `out` may be `v`.
///       vjp(z, p, w, out)  out = J^T w. `out` may be `w`.
/// name() may be a string by value. A normaliser of the paper's general family adds `log_sum_exp(z)`, the
/// logarithm of the sum that divides: log sum_i e^{z_i/T} for softmax, log sum_i F(z_i) for the family, the
/// sum of its sink included.
/// Shapes and units. All spans have the same length. v and w are finite at visible keys; masked keys get 0,
/// and what v and w hold there does not matter, NaN and infinities included.
/// Special rows. Rows with NaN give NaN; empty rows give 0; on rows with +inf the derivative is the formula
/// at the weights.
/// Cost. No allocation unless the normaliser says so.
/// Example, one of your own that nothing else in the library knows:
///     struct Uniform {
///         static constexpr NormalizerTraits traits{.simplex = true, .symmetric_jacobian = true};
///         static constexpr std::string_view name() { return "uniform"; }
///         RowStatus apply(RowIn<double> z, RowOut<double> p) const; // 1/n where z > -inf
///         void jvp(RowIn<double> z, RowIn<double> p, RowIn<double> v, RowOut<double> out) const;
///         void vjp(RowIn<double> z, RowIn<double> p, RowIn<double> w, RowOut<double> out) const;
///     };
template <class N, class T>
concept Normalizer = Real<T> && std::copyable<N> && detail::NormalizerMembers<N, T>;

/// A normaliser that knows only at run time what it promises, beside static `traits` that promise less.
template <class N>
concept TellsPromises = requires(const N& n) {
    { n.promises() } -> std::same_as<NormalizerTraits>;
};

/// What a normaliser promises: at run time if it tells, else by its class.
template <class N>
constexpr NormalizerTraits promises_of(const N& normalizer) {
    if constexpr (TellsPromises<N>)
        return normalizer.promises();
    else
        return N::traits;
}

/// A normaliser with a parameter of its own that people train: `parameter_name()` says which, and
///   parameter_derivative(z, p, out)   out = dp/d(parameter), p = weights of z. `out` may be `p`.
template <class N, class T>
concept HasParameter = Normalizer<N, T> && requires(const N n, std::span<const T> z, std::span<T> out) {
    { N::parameter_name() } -> std::convertible_to<std::string_view>;
    { n.parameter_derivative(z, z, out) } -> std::same_as<void>;
};

/// A normaliser that can tell the logarithm of what it divides by: -inf where no key is visible and nothing
/// else is added to the sum over the keys.
template <class N, class T>
concept HasLogSumExp = Normalizer<N, T> && requires(const N n, std::span<const T> z) {
    { n.log_sum_exp(z) } -> std::same_as<T>;
};

/// One that tells it beside the weights, of one pass: apply(z, p, log_sum_exp), with the bits of the two calls.
template <class N, class T>
concept HasFusedLogSumExp =
    HasLogSumExp<N, T> && requires(const N n, std::span<const T> z, std::span<T> out, T sum) {
        { n.apply(z, out, sum) } -> std::same_as<RowStatus>;
    };

/// A normaliser in which a key without value, a sink, takes its share of every row: `sink_mass(z)` is its weight.
template <class N, class T>
concept HasSink = Normalizer<N, T> && requires(const N n, std::span<const T> z) {
    { n.sink_mass(z) } -> std::same_as<Accumulator<T>>;
};

/// Has it a sink? One that knows only at run time says so by `has_sink()`.
template <class N>
constexpr bool has_sink(const N& normalizer) {
    if constexpr (requires {
                      { normalizer.has_sink() } -> std::same_as<bool>;
                  })
        return normalizer.has_sink();
    else
        return HasSink<N, double>;
}

/// How the exponent of the sink moves with its logit: 1/T behind a temperature T, which divides it.
template <class N>
constexpr double sink_slope(const N& normalizer) {
    if constexpr (requires {
                      { normalizer.sink_slope() } -> std::same_as<double>;
                  })
        return normalizer.sink_slope();
    else
        return 1;
}

/// Weights of a row of logits.
/// Formula. p of the normaliser.
/// Shapes and units. z: any Eigen vector expression, `std::vector`, `std::array`, `std::span`, of float,
/// double, long double, half or bfloat16 (the last two are computed in float); -inf masks a key. The result
/// is a vector like z (`RowResult`).
/// Special rows. See `RowStatus`.
/// Cost. O(n), allocates the result.
template <class N, RowLike Z>
requires Normalizer<N, RowScalar<Z>>
RowResult<Z> weights(const N& normalizer, const Z& z) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    RowResult<Z> p;
    p.resize(row.size());
    normalizer.apply(row.get(), RowOut<T>(p.data(), row.get().size()));
    return p;
}

/// Weights of every row of a matrix of logits, into a row-major buffer: a matrix, a block or an `Eigen::Map` of
/// memory of yours.
/// Formula. Row i of `out` is `weights(normalizer, row i of z)`.
/// Shapes and units. z and `out` [queries, keys]; -inf masks a key of a query. `out` may be z itself.
/// Special rows. As of one row: see `RowStatus`.
/// Cost. O(queries keys); z is copied unless its rows are contiguous.
/// Throws. `invalid_argument` when the shapes differ.
template <class N, MatrixExpr Z>
requires(!VectorExpr<Z>) && Normalizer<N, ScalarOf<Z>>
void weights(const N& normalizer, const Z& z, Eigen::Ref<Matrix<ScalarOf<Z>>, 0, Eigen::OuterStride<>> out) {
    using T = ScalarOf<Z>;
    detail::require(out.rows() == z.rows() && out.cols() == z.cols(), "weights",
                    "the buffer must have the shape of the logits", out.rows(), out.cols());
    const MatrixHolder<T> logits(z);
    for (Index i = 0; i < z.rows(); ++i) {
        const RowIn<T> row = logits.get().row(i);
        normalizer.apply(row, RowOut<T>(out.data() + i * out.outerStride(), row.size()));
    }
}

/// As above, in a matrix of its own.
template <class N, MatrixExpr Z>
requires(!VectorExpr<Z>) && Normalizer<N, ScalarOf<Z>>
Matrix<ScalarOf<Z>> weights(const N& normalizer, const Z& z) {
    Matrix<ScalarOf<Z>> p(z.rows(), z.cols());
    weights(normalizer, z, p);
    return p;
}

/// How the weights move when the logits z move along v.
/// Formula. J v, J = dp/dz at z.
/// Shapes and units. Rows of one length; the result is a vector like z.
/// Special rows. See `Normalizer`.
/// Cost. O(n), allocates two rows.
/// Throws. `invalid_argument` when the lengths differ.
template <class N, RowLike Z, RowLike V>
requires Normalizer<N, RowScalar<Z>> && std::same_as<RowScalar<Z>, RowScalar<V>>
RowResult<Z> jvp(const N& normalizer, const Z& z, const V& v) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z), direction(v);
    detail::require_same_size("jvp", row.get(), direction.get());
    const std::size_t n = row.get().size();
    RowResult<Z> p = weights(normalizer, z), out;
    out.resize(row.size());
    normalizer.jvp(row.get(), RowIn<T>(p.data(), n), direction.get(), RowOut<T>(out.data(), n));
    return out;
}

/// The gradient with respect to the logits z of a loss whose gradient with respect to the weights is w.
/// Formula. J^T w, J = dp/dz at z.
/// Shapes and units. Rows of one length; the result is a vector like z.
/// Special rows. See `Normalizer`.
/// Cost. O(n), allocates two rows.
/// Throws. `invalid_argument` when the lengths differ.
template <class N, RowLike Z, RowLike W>
requires Normalizer<N, RowScalar<Z>> && std::same_as<RowScalar<Z>, RowScalar<W>>
RowResult<Z> vjp(const N& normalizer, const Z& z, const W& w) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z), covector(w);
    detail::require_same_size("vjp", row.get(), covector.get());
    const std::size_t n = row.get().size();
    RowResult<Z> p = weights(normalizer, z), out;
    out.resize(row.size());
    normalizer.vjp(row.get(), RowIn<T>(p.data(), n), covector.get(), RowOut<T>(out.data(), n));
    return out;
}

/// How the weights at the logits z move with the normaliser's own parameter: the temperature, the scale s of
/// scalable softmax, alpha ...
/// Formula. dp/d(parameter).
/// Cost. O(n), allocates the result.
template <class N, RowLike Z>
requires HasParameter<N, RowScalar<Z>>
RowResult<Z> parameter_derivative(const N& normalizer, const Z& z) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    RowResult<Z> p = weights(normalizer, z);
    const std::size_t n = row.get().size();
    normalizer.parameter_derivative(row.get(), RowIn<T>(p.data(), n), RowOut<T>(p.data(), n));
    return p;
}

/// The dense Jacobian at the logits z.
/// Formula. J_ij = dp_i/dz_j, row by row.
/// Shapes and units. The result is [n, n].
/// Special rows. See `Normalizer`.
/// Cost. O(n^2), allocates the result.
template <class N, RowLike Z>
requires Normalizer<N, RowScalar<Z>>
Matrix<RowScalar<Z>> jacobian(const N& normalizer, const Z& z) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    const RowResult<Z> p = weights(normalizer, z);
    const Index n = row.size();
    Matrix<T> result(n, n);
    Row<T> unit = Row<T>::Zero(n);
    // Row i of J is J^T e_i, and rows are contiguous.
    for (Index i = 0; i < n; ++i) {
        unit[i] = T(1);
        normalizer.vjp(row.get(), RowIn<T>(p.data(), row.get().size()), RowIn<T>(unit.data(), row.get().size()),
                       RowOut<T>(result.data() + i * n, row.get().size()));
        unit[i] = T(0);
    }
    return result;
}

} // namespace v0_2
} // namespace attnscope
