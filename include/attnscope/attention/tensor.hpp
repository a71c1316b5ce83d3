// Heads in Eigen tensors. The only header that includes Eigen's tensor module; not in the umbrella.
#pragma once

#include <attnscope/attention/attend_backward.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <array>
#include <memory>

namespace attnscope {
inline namespace v0_2 {

/// An Eigen::Tensor or TensorMap with direct access: rank 3 [heads, n, d] or rank 4 [batch, heads, n, d], row-
/// or column-major, of an accepted scalar.
template <class E>
concept HeadTensor = requires(const E& tensor) {
    tensor.data();
    { tensor.dimension(0) } -> std::convertible_to<Index>;
    requires int(E::NumDimensions) == 3 || int(E::NumDimensions) == 4;
    requires InputScalar<typename E::Scalar>;
};

/// The scalar in which a tensor's heads are computed.
template <HeadTensor E>
using TensorScalar = ComputeScalar<typename E::Scalar>;

/// The heads of a tensor as matrices. A row-major tensor of float or double is viewed without a copy. A
/// column-major one has its heads' columns `heads * n` apart, which no row-major view can say, and half
/// precision must be widened: both are copied once. Neither copied nor assigned.
/// Invariant. The tensor must outlive it when it is a view.
/// Example:
///     Eigen::Tensor<float, 4, Eigen::RowMajor> q(2, 12, 128, 64), k(2, 12, 128, 64); // [batch, heads, n, d]
///     const TensorHeads<float> queries(q), keys(k);
///     const auto rows = scan(HeadView<float>(queries.matrix(0, 2), keys.matrix(0, 2))).rows;
template <Real T>
class TensorHeads {
public:
    template <HeadTensor E>
    requires std::same_as<TensorScalar<E>, T>
    explicit TensorHeads(const E& tensor) {
        constexpr int rank = E::NumDimensions;
        std::array<Index, 4> size = {1, 1, 1, 1};
        const auto& shape = tensor.dimensions();
        std::copy(shape.begin(), shape.end(), size.end() - rank);
        batches_ = size[0];
        heads_ = size[1];
        rows_ = size[2];
        cols_ = size[3];
        constexpr bool row_major = int(E::Layout) == int(Eigen::RowMajor);
        if constexpr (row_major && std::same_as<typename E::Scalar, T>) {
            data_ = tensor.data();
        } else {
            const Index count = batches_ * heads_ * rows_ * cols_;
            storage_ = std::make_unique<T[]>(static_cast<std::size_t>(count));
            T* target = storage_.get();
            const auto* source = tensor.data();
            for (Index b = 0; b < batches_; ++b)
                for (Index h = 0; h < heads_; ++h)
                    for (Index i = 0; i < rows_; ++i)
                        for (Index j = 0; j < cols_; ++j, ++target) {
                            const Index at =
                                row_major ? target - storage_.get()
                                          : b + (rank == 4 ? batches_ : 1) * (h + heads_ * (i + rows_ * j));
                            *target = static_cast<T>(source[at]);
                        }
            data_ = storage_.get();
        }
    }
    /// A temporary ends before its heads do: keep it in a variable.
    template <class S, int rank, int options, class I>
    explicit TensorHeads(const Eigen::Tensor<S, rank, options, I>&&) = delete;
    TensorHeads(const TensorHeads&) = delete;
    TensorHeads& operator=(const TensorHeads&) = delete;

    Index batches() const { return batches_; }
    Index heads() const { return heads_; }
    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    bool is_view() const { return storage_ == nullptr; }

    /// [n, d] of one head: what every analysis of the library takes.
    /// Throws. `invalid_argument` for a head or batch that is not there.
    MatrixView<T> matrix(Index batch, Index head) const& {
        detail::require(head >= 0 && head < heads_, "TensorHeads::matrix", "head must be in [0, heads)", head,
                        heads_);
        return array(batch)[head];
    }
    /// [heads, n, d] of one batch entry.
    /// Throws. `invalid_argument` for a batch that is not there.
    HeadArray<T> array(Index batch) const& {
        detail::require(batch >= 0 && batch < batches_, "TensorHeads::array", "batch must be in [0, batches)",
                        batch, batches_);
        return HeadArray<T>::contiguous(data_ + batch * heads_ * rows_ * cols_, heads_, rows_, cols_);
    }
    MatrixView<T> matrix(Index, Index) const&& = delete; ///< of temporary heads: keep them in a variable
    HeadArray<T> array(Index) const&& = delete;

private:
    const T* data_ = nullptr;
    Index batches_ = 0, heads_ = 0, rows_ = 0, cols_ = 0;
    std::unique_ptr<T[]> storage_;
};

namespace detail {

/// The shape [(batch,) heads, rows, last] of the rank of a tensor.
template <int rank>
Eigen::array<Index, static_cast<std::size_t>(rank)> tensor_shape(Index batches, Index heads, Index rows,
                                                                 Index last) {
    Eigen::array<Index, static_cast<std::size_t>(rank)> shape;
    if constexpr (rank == 4) shape[0] = batches;
    shape[rank - 3] = heads;
    shape[rank - 2] = rows;
    shape[rank - 1] = last;
    return shape;
}

/// tensor(batch, head, ...), or tensor(head, ...) where there is no batch: `rank` of the heads' tensor.
template <int rank, class Tensor, class... Rest>
auto& tensor_at(Tensor& tensor, Index batch, Index head, Rest... rest) {
    if constexpr (rank == 4)
        return tensor(batch, head, rest...);
    else
        return tensor(head, rest...);
}

/// Heads of tensors that belong together. Throws `invalid_argument` when they do not.
template <Real T>
struct TensorBatch {
    const TensorHeads<T>&q, &k, &v;
    std::span<const Mask> masks;

    TensorBatch(std::string_view function, const TensorHeads<T>& queries, const TensorHeads<T>& keys,
                const TensorHeads<T>& values, std::span<const Mask> given)
        : q(queries), k(keys), v(values), masks(given) {
        require(k.batches() == q.batches() && v.batches() == q.batches(), function,
                "q, k and v must have the same batch", q.batches(), k.batches(), v.batches());
        require(masks.size() == 1 || static_cast<Index>(masks.size()) == q.batches(), function,
                "there must be one mask, or one for each batch entry", masks.size(), q.batches());
    }
    HeadGroup<T> group(Index batch) const { return {q.array(batch), k.array(batch), v.array(batch)}; }
    const Mask& mask(Index batch) const {
        return masks[masks.size() == 1 ? 0 : static_cast<std::size_t>(batch)];
    }
};

/// Tensors of one scalar and rank.
template <class First, class... Others>
concept SameTensors = HeadTensor<First> && (HeadTensor<Others> && ...) &&
                      (std::same_as<TensorScalar<First>, TensorScalar<Others>> && ...) &&
                      ((int(First::NumDimensions) == int(Others::NumDimensions)) && ...);

/// A normaliser for all heads, or one for each query head.
template <class N, class T>
concept NormalizerOfHeads = Normalizer<N, T> || NormalizerList<N, T>;

template <Real T, NormalizerOfHeads<T> N>
const auto& normalizer_of(const N& normalizer, Index head) {
    if constexpr (Normalizer<N, T>)
        return normalizer;
    else
        return std::data(normalizer)[head];
}

} // namespace detail

/// What all heads of tensors give, in the rank and layout of q: output [(batch,) heads, queries, d_v],
/// log_sum_exp [(batch,) heads, queries], weights [(batch,) heads, queries, keys] if asked for, else empty.
template <Real T, int Rank, int Layout>
struct TensorAttention {
    Eigen::Tensor<T, Rank, Layout> output;
    Eigen::Tensor<T, Rank - 1, Layout> log_sum_exp;
    Eigen::Tensor<T, Rank, Layout> weights;
};

/// Attention of every head of every batch entry; options as for one head. `normalizer`: one for all heads, or a list with one
/// for each query head, the same in every batch entry (sinks or temperatures of their own).
/// Shapes and units. q [(batch,) heads, queries, d], k and v with the same batch and a number of heads that
/// divides that of q (grouped-query heads). `masks`: one for all batch entries, or one for each (ragged
/// batches: `with_length`).
/// Special rows. As of `attend` of one head.
/// Cost. That of `attend` of one head, for each; allocates the result.
/// Throws. `invalid_argument` when shapes do not fit, the number of masks is neither 1 nor the batch, or that of normalisers
/// is not that of query heads.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N, Executor E = Sequential>
requires detail::NormalizerOfHeads<N, TensorScalar<Q>> && detail::SameTensors<Q, K, V>
auto attend(const Q& q, const K& k, const V& v, const N& normalizer, std::span<const Mask> masks,
            const AttendOptions& options = {}, E&& executor = {}) {
    using T = TensorScalar<Q>;
    constexpr int rank = Q::NumDimensions;
    const TensorHeads<T> queries(q), keys(k), values(v);
    const detail::TensorBatch<T> batch("attend", queries, keys, values, masks);
    if constexpr (!Normalizer<N, T>)
        detail::check_normalizers("attend", std::size(normalizer), queries.heads());
    TensorAttention<T, rank, int(Q::Layout)> result;
    const auto shape = [&](Index last) {
        return detail::tensor_shape<rank>(queries.batches(), queries.heads(), queries.rows(), last);
    };
    result.output.resize(shape(values.cols()));
    if (options.weights) result.weights.resize(shape(keys.rows()));
    Eigen::array<Index, static_cast<std::size_t>(rank - 1)> lengths;
    const auto whole = shape(1);
    std::copy_n(whole.begin(), rank - 1, lengths.begin());
    result.log_sum_exp.resize(lengths);
    for (Index b = 0; b < queries.batches(); ++b) {
        const HeadGroup<T> group = batch.group(b);
        for (Index h = 0; h < group.heads(); ++h) {
            const Attention<T> one =
                attend(group[h], detail::normalizer_of<T>(normalizer, h), batch.mask(b), options, executor);
            for (Index i = 0; i < queries.rows(); ++i) {
                detail::tensor_at<rank>(result.log_sum_exp, b, h, i) = one.log_sum_exp[i];
                for (Index j = 0; j < values.cols(); ++j)
                    detail::tensor_at<rank>(result.output, b, h, i, j) = one.output(i, j);
                for (Index j = 0; options.weights && j < keys.rows(); ++j)
                    detail::tensor_at<rank>(result.weights, b, h, i, j) = one.weights(i, j);
            }
        }
    }
    return result;
}

/// As above with one mask for all batch entries.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N, Executor E = Sequential>
auto attend(const Q& q, const K& k, const V& v, const N& normalizer, const Mask& mask = {},
            const AttendOptions& options = {}, E&& executor = {}) {
    return attend(q, k, v, normalizer, std::span<const Mask>(&mask, 1), options, executor);
}

/// Gradients in the shapes of q, k and v and the layout of q; that in the normaliser's parameter is the sum over all
/// heads, 0 unless asked for.
template <Real T, int Rank, int Layout>
struct TensorGradient {
    Eigen::Tensor<T, Rank, Layout> q, k, v;
    double parameter = 0;
    std::vector<double> parameters; ///< of each query head, over the batch entries
};

/// Backward pass of `attend` on tensors; k and v of a key head get the sum over the query heads that share it.
/// Shapes and units. d_output [(batch,) heads, queries, d_v].
/// Special rows. As of `attend_backward` of one head.
/// Cost. That of one head, for each.
/// Throws. As `attend` on tensors and `attend_backward` of one head do.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N, HeadTensor D, Executor E = Sequential>
requires detail::NormalizerOfHeads<N, TensorScalar<Q>> && detail::SameTensors<Q, K, V, D>
auto attend_backward(const Q& q, const K& k, const V& v, const N& normalizer, const D& d_output,
                     std::span<const Mask> masks, const AttendBackwardOptions& options = {},
                     E&& executor = {}) {
    using T = TensorScalar<Q>;
    constexpr int rank = Q::NumDimensions;
    const TensorHeads<T> queries(q), keys(k), values(v), d_outputs(d_output);
    const detail::TensorBatch<T> batch("attend_backward", queries, keys, values, masks);
    detail::require(d_outputs.batches() == queries.batches() && d_outputs.heads() == queries.heads(),
                    "attend_backward", "d_output must have the batch and the heads of q", d_outputs.batches(),
                    d_outputs.heads());
    TensorGradient<T, rank, int(Q::Layout)> gradient;
    gradient.parameters.assign(static_cast<std::size_t>(queries.heads()), 0);
    const auto make = [](auto& tensor, const TensorHeads<T>& like) {
        tensor.resize(detail::tensor_shape<rank>(like.batches(), like.heads(), like.rows(), like.cols()));
    };
    make(gradient.q, queries), make(gradient.k, keys), make(gradient.v, values);
    const auto store = [](auto& tensor, Index b, Index h, const Matrix<T>& one) {
        for (Index i = 0; i < one.rows(); ++i)
            for (Index j = 0; j < one.cols(); ++j) detail::tensor_at<rank>(tensor, b, h, i, j) = one(i, j);
    };
    for (Index b = 0; b < queries.batches(); ++b) {
        const HeadGroup<T> group = batch.group(b);
        std::vector<Matrix<T>> d;
        for (Index h = 0; h < group.heads(); ++h) d.push_back(d_outputs.matrix(b, h).map());
        const GroupGradient<T> one = attend_backward(group, normalizer, d, batch.mask(b), options, executor);
        for (Index h = 0; h < group.heads(); ++h) store(gradient.q, b, h, detail::at(one.q, h));
        for (Index h = 0; h < group.key_heads(); ++h) {
            store(gradient.k, b, h, detail::at(one.k, h));
            store(gradient.v, b, h, detail::at(one.v, h));
        }
        gradient.parameter += one.parameter;
        for (Index h = 0; h < group.heads(); ++h)
            detail::at(gradient.parameters, h) += detail::at(one.parameters, h);
    }
    return gradient;
}

/// As above with one mask for all batch entries.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N, HeadTensor D, Executor E = Sequential>
auto attend_backward(const Q& q, const K& k, const V& v, const N& normalizer, const D& d_output,
                     const Mask& mask = {}, const AttendBackwardOptions& options = {}, E&& executor = {}) {
    return attend_backward(q, k, v, normalizer, d_output, std::span<const Mask>(&mask, 1), options, executor);
}

} // namespace v0_2
} // namespace attnscope
