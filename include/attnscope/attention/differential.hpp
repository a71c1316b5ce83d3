// Differential attention of heads, forward and backward.
#pragma once

#include <attnscope/attention/attend_backward.hpp>

namespace attnscope {
inline namespace v0_2 {

/// p = N(z1) - lambda N(z2), in the place of a normaliser: see `differential_weights`.
/// Source. arXiv:2410.05258.
template <class N = Softmax>
struct Differential {
    N normalizer = {};
    double lambda = 0.8;
};
template <class N>
Differential(N, double) -> Differential<N>;

namespace detail {

/// The queries and keys of the second head with the values of the first.
template <Real T>
HeadView<T> with_values_of(const HeadView<T>& first, const HeadView<T>& second) {
    require(first.queries() == second.queries(), "attend", "both heads must have as many queries",
            first.queries(), second.queries());
    require(first.keys() == second.keys(), "attend", "both heads must have as many keys", first.keys(),
            second.keys());
    return {second.q(), second.k(), first.v(), second.scale()};
}

/// The halves of a head of width 2 d.
template <Real T>
struct HeadHalves {
    HeadView<T> first, second;
    HeadHalves(MatrixView<T> q, MatrixView<T> k, MatrixView<T> v)
        : first(half(q, 0), half(k, 0), v), second(half(q, 1), half(k, 1), v) {}

private:
    static MatrixView<T> half(MatrixView<T> m, Index number) {
        require(m.cols() % 2 == 0, "attend", "q and k must have an even width, two heads side by side",
                m.cols());
        const Index width = m.cols() / 2;
        return {m.data() + number * width, m.rows(), width, m.outer_stride()};
    }
};

} // namespace detail

/// Differential attention of two heads over the same queries and keys, with the values of the first.
/// Formula. output = (N(z1) - lambda N(z2)) v, z as in `attend`, each with the scale of its own head.
/// Special rows. As of `attend` for each of them; `log_sum_exp` is NaN: there are two.
/// Cost. Twice that of `attend`.
/// Throws. `invalid_argument` when the heads do not fit each other, and as `attend` does.
/// Source. arXiv:2410.05258, eq. 1.
template <Real T, Normalizer<T> N, Executor E = Sequential>
Attention<T> attend(const HeadView<T>& first, const HeadView<T>& second, const Differential<N>& difference,
                    const Mask& mask = {}, const AttendOptions& options = {}, E&& executor = {}) {
    const HeadView<T> other = detail::with_values_of(first, second);
    const T lambda = static_cast<T>(difference.lambda);
    Attention<T> result = attend(first, difference.normalizer, mask, options, executor);
    const Attention<T> taken = attend(other, difference.normalizer, mask, options, executor);
    result.output -= lambda * taken.output;
    if (options.weights) result.weights -= lambda * taken.weights;
    result.log_sum_exp.setConstant(std::numeric_limits<T>::quiet_NaN());
    return result;
}

/// The same for q [queries, 2 d], k [keys, 2 d], whose halves are the two heads, and v [keys, d_v]: any Eigen
/// matrices. Scale 1/sqrt(d), d the width of a half, unless given.
/// Example: `attend(q, k, v, Differential{Softmax(), 0.8}, Mask::causal())`
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N, Executor E = Sequential>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
         std::same_as<ScalarOf<Q>, ScalarOf<V>>
Attention<ScalarOf<Q>> attend(const Q& q, const K& k, const V& v, const Differential<N>& difference,
                              const Mask& mask = {}, const AttendOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    const detail::HeadHalves<T> halves(q_rows.get(), k_rows.get(), v_rows.get());
    return attend(halves.first, halves.second, difference, mask, options, executor);
}

/// Gradients of a loss with respect to what differential attention is made of.
template <Real T>
struct DifferentialGradient {
    Matrix<T> q1, k1, q2, k2, v;
    double lambda = 0;
    double parameter = 0; ///< with respect to the normaliser's own parameter, if asked for
};

/// Backward pass of differential attention: that of both heads, as the output is linear in their weights.
/// Formula. dL/dlambda = -<o2, d_output>, o2 the output of the second head.
/// Cost. Twice that of `attend_backward`, and one `attend`.
/// Throws. As these do.
template <Real T, Normalizer<T> N, MatrixLike<T> D, Executor E = Sequential>
DifferentialGradient<T> attend_backward(const HeadView<T>& first, const HeadView<T>& second,
                                        const Differential<N>& difference, const D& d_output,
                                        const Mask& mask = {}, const AttendBackwardOptions& options = {},
                                        E&& executor = {}) {
    const HeadView<T> other = detail::with_values_of(first, second);
    const MatrixHolder<T> held(d_output);
    DifferentialGradient<T> gradient;
    AttentionGradient<T> own =
        attend_backward(first, difference.normalizer, held.get(), mask, options, executor);
    const Matrix<T> d_taken = -static_cast<T>(difference.lambda) * held.get().map();
    AttentionGradient<T> taken =
        attend_backward(other, difference.normalizer, d_taken, mask, options, executor);
    const Attention<T> second_output =
        attend(other, difference.normalizer, mask,
               {.scale = options.scale, .temperature = options.temperature, .bias = options.bias}, executor);
    gradient.lambda = -second_output.output.template cast<double>()
                           .cwiseProduct(held.get().map().template cast<double>())
                           .sum();
    gradient.parameter = own.parameter + taken.parameter;
    gradient.v = own.v + taken.v;
    gradient.q1 = std::move(own.q);
    gradient.k1 = std::move(own.k);
    gradient.q2 = std::move(taken.q);
    gradient.k2 = std::move(taken.k);
    return gradient;
}

} // namespace v0_2
} // namespace attnscope
