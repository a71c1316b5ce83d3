// The backward pass of attention: gradients in queries, keys, values and the normaliser's own parameter.
#pragma once

#include <attnscope/attention/attend.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Gradients of a loss with respect to what one head is made of.
template <Real T>
struct AttentionGradient {
    Matrix<T> q;          ///< [queries, d]
    Matrix<T> k;          ///< [keys, d]
    Matrix<T> v;          ///< [keys, d_v]
    double parameter = 0; ///< with respect to the normaliser's own parameter, if asked for
};

/// Memory of yours to which gradients are added, in the shapes of `AttentionGradient`: row-major matrices or blocks of
/// such.
template <Real T>
struct GradientBuffers {
    using Rows = Eigen::Ref<Matrix<T>, 0, Eigen::OuterStride<>>;
    Rows q, k, v;
};

/// See `AttendOptions`.
struct AttendBackwardOptions {
    /// Also the gradient in the normaliser's parameter (temperature, s, alpha, ...); of one with a sink and no parameter of
    /// its own, as `with_sink` makes them, in the logit of the sink.
    bool parameter = false;
    std::optional<double> scale = {};
    double temperature = 1;
    LogitBias bias = {};
};

namespace detail {

/// As `HasParameter`, also for a normaliser that knows only at run time which one it has.
template <class N, class T>
concept TellsParameterDerivative = requires(const N& n, std::span<const T> z, std::span<T> out) {
    { n.parameter_derivative(z, z, out) } -> std::same_as<void>;
};

/// Has it a parameter of its own? One that knows only at run time says so by `has_parameter()`.
template <class T, class N>
constexpr bool tells_parameter(const N& normalizer) {
    if constexpr (requires {
                      { normalizer.has_parameter() } -> std::same_as<bool>;
                  })
        return normalizer.has_parameter();
    else
        return TellsParameterDerivative<N, T>;
}

/// The backward pass of a head, block by block.
template <Real T, class N>
class BackwardPass {
public:
    struct Workspace {
        Matrix<T> logits, weights, slopes;
        std::vector<T> parameter;
    };
    /// What blocks add up.
    struct Sums {
        Matrix<T> k, v;
        double parameter = 0;
    };

    template <class E>
    BackwardPass(const HeadView<T>& head, const N& normalizer, MatrixView<T> d_output, const Mask& mask,
                 const AttendBackwardOptions& options, E&& executor)
        : blocks_("attend_backward", head, mask, options, executor), normalizer_(normalizer),
          d_output_(d_output), parameter_(options.parameter), own_parameter_(tells_parameter<T>(normalizer)),
          finite_(head.q().map().allFinite() && head.k().map().allFinite() && head.v().map().allFinite() &&
                  d_output.map().allFinite()) {}

    Index blocks() const { return blocks_.count(); }
    Sums no_sums() const {
        const HeadView<T>& head = blocks_.head();
        return {Matrix<T>::Zero(head.keys(), head.k().cols()), Matrix<T>::Zero(head.keys(), head.v().cols())};
    }

    /// Adds what the queries of a block give: to their own rows of d_q, and to the sums.
    void operator()(Index number, Workspace& room, typename GradientBuffers<T>::Rows& d_q, Sums& sums) const {
        const QueryBlock<T> z = blocks_(number, room.logits), p = blocks_.room(number, room.weights),
                            d_z = blocks_.room(number, room.slopes);
        if (z.keys == 0) return;
        d_z.matrix().noalias() =
            d_output_.map().middleRows(z.first, z.rows) * blocks_.head().v().map().topRows(z.keys).transpose();
        for (Index i = 0; i < z.rows; ++i) differentiate(z.row(i), p.row(i), d_z.row(i), room.parameter, sums);
        d_z.matrix() *= blocks_.slope();
        add_products(p, d_z, d_q, sums);
    }

private:
    /// From d_z = dL/dp to dL/dz, and p; entries of hidden keys do not matter and become 0.
    void differentiate(RowIn<T> z, RowOut<T> p, RowOut<T> d_z, std::vector<T>& slopes, Sums& sums) const {
        const RowStatus status = normalizer_.apply(z, p);
        for (std::size_t j = 0; j < z.size(); ++j)
            if (z[j] == -std::numeric_limits<T>::infinity()) d_z[j] = T(0);
        if constexpr (TellsParameterDerivative<N, T>) {
            if (parameter_ && own_parameter_ && status != RowStatus::empty) {
                slopes.resize(z.size());
                normalizer_.parameter_derivative(z, RowIn<T>(p), RowOut<T>(slopes));
                for (std::size_t j = 0; j < z.size(); ++j)
                    if (z[j] != -std::numeric_limits<T>::infinity())
                        sums.parameter += static_cast<double>(slopes[j]) * static_cast<double>(d_z[j]);
            }
        }
        if constexpr (HasSink<N, T>) {
            if (parameter_ && !own_parameter_ &&
                status != RowStatus::empty) { // dp/db = -p s db'/db, b' its exponent
                double sum = 0;
                for (std::size_t j = 0; j < z.size(); ++j)
                    if (z[j] != -std::numeric_limits<T>::infinity())
                        sum += static_cast<double>(p[j]) * static_cast<double>(d_z[j]);
                sums.parameter -= static_cast<double>(normalizer_.sink_mass(z)) * sum * sink_slope(normalizer_);
            }
        }
        normalizer_.vjp(z, RowIn<T>(p), RowIn<T>(d_z), d_z);
    }

    void add_products(const QueryBlock<T>& p, const QueryBlock<T>& d_z, typename GradientBuffers<T>::Rows& d_q,
                      Sums& sums) const {
        const auto q = blocks_.head().q().map(), k = blocks_.head().k().map(), d_out = d_output_.map();
        if (finite_) {
            d_q.middleRows(p.first, p.rows).noalias() += d_z.matrix() * k.topRows(p.keys);
            sums.k.topRows(p.keys).noalias() += d_z.matrix().transpose() * q.middleRows(p.first, p.rows);
            sums.v.topRows(p.keys).noalias() += p.matrix().transpose() * d_out.middleRows(p.first, p.rows);
            return;
        }
        // Products with exact zeros keep NaN and inf alive.
        for (Index i = 0; i < p.rows; ++i)
            blocks_.for_each_seen(p.first + i, [&](Index key) {
                const auto j = static_cast<std::size_t>(key);
                d_q.row(p.first + i) += d_z.row(i)[j] * k.row(key);
                sums.k.row(key) += d_z.row(i)[j] * q.row(p.first + i);
                sums.v.row(key) += p.row(i)[j] * d_out.row(p.first + i);
            });
    }

    LogitBlocks<T> blocks_;
    const N& normalizer_;
    MatrixView<T> d_output_;
    bool parameter_, own_parameter_, finite_;
};

} // namespace detail

/// Backward pass of `attend`: from the gradient of a loss with respect to the output to those with respect to q, k
/// and v, for any normaliser through its `vjp`, added to buffers of yours. Returns the gradient in the normaliser's
/// parameter, 0 unless asked for.
/// Formula. With W = d_output v^T and dZ = vjp of W row by row: dq = s dZ k, dk = s dZ^T q, s = scale/temperature, dv
/// = p^T d_output; that in the parameter is sum <W, dp/d parameter> over the rows.
/// Shapes and units. d_output [queries, d_v]: any Eigen matrix, or a `MatrixView`.
/// Special rows. Keys that a query does not see get nothing from it and give nothing to it, NaN included. Queries that
/// see no key have gradient 0.
/// Cost. O(queries keys d), about 2.5 forward passes; the weights are computed anew. One task for each 256 queries, at
/// most 16; memory O(threads 64 keys), a copy of the keys, and the gradients of k and v once for each task. Sums are taken in the order of
/// the tasks, so that the result does not depend on the executor.
/// Throws. `invalid_argument` when the head has no values, shapes do not fit, or a parameter is asked for that the
/// normaliser does not have.
/// Example: `attend_backward(head, Softmax(), d_output, {d.q, d.k, d.v}, Mask::causal())`
template <Real T, Normalizer<T> N, MatrixLike<T> D, Executor E = Sequential>
double attend_backward(const HeadView<T>& head, const N& normalizer, const D& d_output,
                       std::type_identity_t<GradientBuffers<T>> buffers, const Mask& mask = {},
                       const AttendBackwardOptions& options = {}, E&& executor = {}) {
    const MatrixHolder<T> held(d_output);
    const MatrixView<T> d_out = held.get();
    detail::require(head.has_values(), "attend_backward", "the head must have values", head.keys());
    detail::require(d_out.rows() == head.queries() && d_out.cols() == head.v().cols(), "attend_backward",
                    "d_output must have the shape of the output", d_out.rows(), d_out.cols());
    const auto fits = [](const auto& buffer, const MatrixView<T>& part) {
        detail::require(buffer.rows() == part.rows() && buffer.cols() == part.cols(), "attend_backward",
                        "a gradient must have the shape of what it belongs to", buffer.rows(), buffer.cols());
    };
    fits(buffers.q, head.q());
    fits(buffers.k, head.k());
    fits(buffers.v, head.v());
    detail::require(!options.parameter || detail::tells_parameter<T>(normalizer) || has_sink(normalizer),
                    "attend_backward", "the normaliser must have a parameter", normalizer.name());
    using Pass = detail::BackwardPass<T, N>;
    const Pass pass(head, normalizer, d_out, mask, options, executor);
    // Sums of a task of fewer blocks would cost more than its products.
    const Index tasks = std::min<Index>(16, (pass.blocks() + 3) / 4);
    std::vector<typename Pass::Sums> sums(static_cast<std::size_t>(tasks));
    detail::WorkspacePool<typename Pass::Workspace> rooms;
    const auto task = [&](Index number) {
        rooms.use([&](typename Pass::Workspace& room) {
            typename Pass::Sums own = pass.no_sums();
            for (Index block = number * pass.blocks() / tasks; block < (number + 1) * pass.blocks() / tasks;
                 ++block)
                pass(block, room, buffers.q, own);
            detail::at(sums, number) = std::move(own);
        });
    };
    executor(tasks, task);
    if (tasks == 0) return 0; // no queries
    typename Pass::Sums& total = sums.front();
    for (auto part = sums.begin() + 1; part != sums.end(); ++part) {
        total.k += part->k;
        total.v += part->v;
        total.parameter += part->parameter;
    }
    buffers.k += total.k;
    buffers.v += total.v;
    return total.parameter;
}

/// The same in matrices of its own.
template <Real T, Normalizer<T> N, MatrixLike<T> D, Executor E = Sequential>
AttentionGradient<T> attend_backward(const HeadView<T>& head, const N& normalizer, const D& d_output,
                                     const Mask& mask = {}, const AttendBackwardOptions& options = {},
                                     E&& executor = {}) {
    AttentionGradient<T> gradient{Matrix<T>::Zero(head.queries(), head.q().cols()),
                                  Matrix<T>::Zero(head.keys(), head.k().cols()),
                                  Matrix<T>::Zero(head.keys(), head.v().cols()), 0};
    gradient.parameter = attend_backward(head, normalizer, d_output, {gradient.q, gradient.k, gradient.v}, mask,
                                         options, executor);
    return gradient;
}

/// As above of half or bfloat16, or of keys and values in pages: see `StoredHead`. Gradients are in T.
template <Real T, Normalizer<T> N, MatrixLike<T> D, Executor E = Sequential>
double attend_backward(const StoredHead<T>& head, const N& normalizer, const D& d_output,
                       std::type_identity_t<GradientBuffers<T>> buffers, const Mask& mask = {},
                       const AttendBackwardOptions& options = {}, E&& executor = {}) {
    const detail::ReadHead<T> read(head);
    return attend_backward(read.view(), normalizer, d_output, buffers, mask, options, executor);
}

/// The same in matrices of its own.
template <Real T, Normalizer<T> N, MatrixLike<T> D, Executor E = Sequential>
AttentionGradient<T> attend_backward(const StoredHead<T>& head, const N& normalizer, const D& d_output,
                                     const Mask& mask = {}, const AttendBackwardOptions& options = {},
                                     E&& executor = {}) {
    const detail::ReadHead<T> read(head);
    return attend_backward(read.view(), normalizer, d_output, mask, options, executor);
}

/// As above from any Eigen matrices: q [queries, d], k [keys, d], v [keys, d_v].
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N, MatrixLike<ScalarOf<Q>> D, Executor E = Sequential>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
         std::same_as<ScalarOf<Q>, ScalarOf<V>>
double attend_backward(const Q& q, const K& k, const V& v, const N& normalizer, const D& d_output,
                       GradientBuffers<ScalarOf<Q>> buffers, const Mask& mask = {},
                       const AttendBackwardOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    return attend_backward(HeadView<T>(q_rows.get(), k_rows.get(), v_rows.get()), normalizer, d_output, buffers,
                           mask, options, executor);
}

/// The same into matrices of its own.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N, MatrixLike<ScalarOf<Q>> D, Executor E = Sequential>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
         std::same_as<ScalarOf<Q>, ScalarOf<V>>
AttentionGradient<ScalarOf<Q>> attend_backward(const Q& q, const K& k, const V& v, const N& normalizer,
                                               const D& d_output, const Mask& mask = {},
                                               const AttendBackwardOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    return attend_backward(HeadView<T>(q_rows.get(), k_rows.get(), v_rows.get()), normalizer, d_output, mask,
                           options, executor);
}

/// Gradients of a group of heads: q for every query head, k and v for every key head, summed over the query
/// heads that share it; that in the parameter is the sum over all heads.
template <Real T>
struct GroupGradient {
    std::vector<Matrix<T>> q, k, v;
    double parameter = 0;           ///< over all heads
    std::vector<double> parameters; ///< of each head
};

namespace detail {

/// normalizer(h): of query head h.
template <InputScalar S, class NormalizerOf, class E>
GroupGradient<ComputeScalar<S>> group_backward(const HeadGroup<S>& group, const NormalizerOf& normalizer,
                                               std::span<const Matrix<ComputeScalar<S>>> d_outputs,
                                               const Mask& mask, const AttendBackwardOptions& options,
                                               E&& executor) {
    using T = ComputeScalar<S>;
    require(static_cast<Index>(d_outputs.size()) == group.heads(), "attend_backward",
            "there must be one d_output for each query head", d_outputs.size(), group.heads());
    GroupGradient<T> gradient;
    const Index shared = group.heads() / group.key_heads();
    for (Index h = 0; h < group.heads(); ++h) {
        const HeadView<S> head = group[h];
        gradient.q.push_back(Matrix<T>::Zero(head.queries(), head.q().cols()));
        if (h % shared == 0) {
            gradient.k.push_back(Matrix<T>::Zero(head.keys(), head.k().cols()));
            gradient.v.push_back(Matrix<T>::Zero(head.keys(), head.v().cols()));
        }
        gradient.parameters.push_back(attend_backward(
            head, normalizer(h), d_outputs[static_cast<std::size_t>(h)],
            {gradient.q.back(), gradient.k.back(), gradient.v.back()}, mask, options, executor));
        gradient.parameter += gradient.parameters.back();
    }
    return gradient;
}

} // namespace detail

/// As above for a group, of half and bfloat16 too, whose gradients are in float.
/// Shapes and units. `d_outputs`: one for each query head, in order.
/// Throws. `invalid_argument` also when their number is another.
template <InputScalar S, Normalizer<ComputeScalar<S>> N, Executor E = Sequential>
GroupGradient<ComputeScalar<S>>
attend_backward(const HeadGroup<S>& group, const N& normalizer,
                std::type_identity_t<std::span<const Matrix<ComputeScalar<S>>>> d_outputs,
                const Mask& mask = {}, const AttendBackwardOptions& options = {}, E&& executor = {}) {
    return detail::group_backward(
        group, [&](Index) -> const N& { return normalizer; }, d_outputs, mask, options, executor);
}

/// The same with a normaliser for each query head: heads have sinks, or temperatures, of their own.
/// Throws. `invalid_argument` also when their number is another.
template <InputScalar S, NormalizerList<ComputeScalar<S>> Ns, Executor E = Sequential>
GroupGradient<ComputeScalar<S>>
attend_backward(const HeadGroup<S>& group, const Ns& normalizers,
                std::type_identity_t<std::span<const Matrix<ComputeScalar<S>>>> d_outputs,
                const Mask& mask = {}, const AttendBackwardOptions& options = {}, E&& executor = {}) {
    detail::check_normalizers("attend_backward", std::size(normalizers), group.heads());
    return detail::group_backward(
        group, [&](Index h) -> const auto& { return std::data(normalizers)[h]; }, d_outputs, mask, options,
        executor);
}

} // namespace v0_2
} // namespace attnscope
