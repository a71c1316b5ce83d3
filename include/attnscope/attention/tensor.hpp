// Heads in Eigen tensors. The only header that includes Eigen's tensor module; not in the umbrella.
#pragma once

#include <attnscope/attention/attend.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <array>
#include <memory>

namespace attnscope {
inline namespace v0_1 {

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
            T* to = storage_.get();
            const auto* from = tensor.data();
            for (Index b = 0; b < batches_; ++b)
                for (Index h = 0; h < heads_; ++h)
                    for (Index i = 0; i < rows_; ++i)
                        for (Index j = 0; j < cols_; ++j, ++to) {
                            const Index at =
                                row_major ? to - storage_.get()
                                          : b + (rank == 4 ? batches_ : 1) * (h + heads_ * (i + rows_ * j));
                            *to = static_cast<T>(from[at]);
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

/// What all heads of tensors give, in the rank and layout of q: output [(batch,) heads, queries, d_v],
/// log_sum_exp [(batch,) heads, queries], weights [(batch,) heads, queries, keys] if asked for, else empty.
template <Real T, int Rank, int Layout>
struct TensorAttention {
    Eigen::Tensor<T, Rank, Layout> output;
    Eigen::Tensor<T, Rank - 1, Layout> log_sum_exp;
    Eigen::Tensor<T, Rank, Layout> weights;
};

/// Attention of every head of every batch entry, with the scale 1/sqrt(d).
/// Shapes and units. q [(batch,) heads, queries, d], k and v with the same batch and a number of heads that
/// divides that of q (grouped-query heads). `masks`: one for all batch entries, or one for each (ragged
/// batches: `with_length`).
/// Special rows. As of `attend` of one head.
/// Cost. That of `attend` of one head, for each; allocates the result.
/// Throws. `invalid_argument` when shapes do not fit or the number of masks is neither 1 nor the batch.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N>
requires Normalizer<N, TensorScalar<Q>> && std::same_as<TensorScalar<Q>, TensorScalar<K>> &&
         std::same_as<TensorScalar<Q>, TensorScalar<V>> && (int(Q::NumDimensions) == int(K::NumDimensions)) &&
         (int(Q::NumDimensions) == int(V::NumDimensions))
auto attend(const Q& q, const K& k, const V& v, const N& normalizer, std::span<const Mask> masks,
            AttendOptions options = {}) {
    using T = TensorScalar<Q>;
    constexpr int rank = Q::NumDimensions;
    const TensorHeads<T> queries(q), keys(k), values(v);
    detail::require(keys.batches() == queries.batches() && values.batches() == queries.batches(), "attend",
                    "q, k and v must have the same batch", queries.batches(), keys.batches(), values.batches());
    detail::require(masks.size() == 1 || static_cast<Index>(masks.size()) == queries.batches(), "attend",
                    "there must be one mask, or one for each batch entry", masks.size(), queries.batches());
    TensorAttention<T, rank, int(Q::Layout)> result;
    const auto shape = [&](Index last) {
        Eigen::array<Index, static_cast<std::size_t>(rank)> dimensions;
        if constexpr (rank == 4) dimensions[0] = queries.batches();
        dimensions[rank - 3] = queries.heads();
        dimensions[rank - 2] = queries.rows();
        dimensions[rank - 1] = last;
        return dimensions;
    };
    const auto at = [](auto& tensor, Index batch, Index head, auto... rest) -> T& {
        if constexpr (rank == 4)
            return tensor(batch, head, rest...);
        else
            return tensor(head, rest...);
    };
    result.output.resize(shape(values.cols()));
    if (options.weights) result.weights.resize(shape(keys.rows()));
    Eigen::array<Index, static_cast<std::size_t>(rank - 1)> lengths;
    const auto whole = shape(1);
    std::copy_n(whole.begin(), rank - 1, lengths.begin());
    result.log_sum_exp.resize(lengths);
    for (Index b = 0; b < queries.batches(); ++b) {
        const HeadGroup<T> group(queries.array(b), keys.array(b), values.array(b));
        const Mask& mask = masks[masks.size() == 1 ? 0 : static_cast<std::size_t>(b)];
        for (Index h = 0; h < group.heads(); ++h) {
            const Attention<T> one = attend(group[h], normalizer, mask, options);
            for (Index i = 0; i < queries.rows(); ++i) {
                at(result.log_sum_exp, b, h, i) = one.log_sum_exp[i];
                for (Index j = 0; j < values.cols(); ++j) at(result.output, b, h, i, j) = one.output(i, j);
                if (options.weights)
                    for (Index j = 0; j < keys.rows(); ++j) at(result.weights, b, h, i, j) = one.weights(i, j);
            }
        }
    }
    return result;
}

/// As above with one mask for all batch entries.
template <HeadTensor Q, HeadTensor K, HeadTensor V, class N>
auto attend(const Q& q, const K& k, const V& v, const N& normalizer, const Mask& mask = {},
            AttendOptions options = {}) {
    return attend(q, k, v, normalizer, std::span<const Mask>(&mask, 1), options);
}

} // namespace v0_1
} // namespace attnscope
