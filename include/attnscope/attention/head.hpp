// One attention head as borrowed queries, keys and values, and a group of heads that may share keys.
#pragma once

#include <attnscope/attention/mask.hpp>

#include <cmath>
#include <limits>

namespace attnscope {
inline namespace v0_1 {

/// q [queries, d], k [keys, d], v [keys, d_v] (or empty: no values known) and the factor of q.k, 1/sqrt(d)
/// unless given. Borrowed: the memory must outlive the view. Throws `invalid_argument` when shapes do not fit
/// or the scale is not finite.
template <Real T>
class HeadView {
public:
    HeadView(MatrixView<T> q, MatrixView<T> k, MatrixView<T> v = {})
        : HeadView(q, k, v, default_scale(q.cols())) {}
    HeadView(MatrixView<T> q, MatrixView<T> k, MatrixView<T> v, T scale) : q_(q), k_(k), v_(v), scale_(scale) {
        detail::require(q.cols() == k.cols(), "HeadView", "q and k must have the same width", q.cols(),
                        k.cols());
        detail::require(!has_values() || v.rows() == k.rows(), "HeadView",
                        "k and v must have the same number of rows", k.rows(), v.rows());
        detail::require(std::isfinite(scale), "HeadView", "scale must be finite", scale);
    }

    const MatrixView<T>& q() const { return q_; }
    const MatrixView<T>& k() const { return k_; }
    const MatrixView<T>& v() const { return v_; }
    T scale() const { return scale_; }
    Index queries() const { return q_.rows(); }
    Index keys() const { return k_.rows(); }
    bool has_values() const { return v_.data() != nullptr || v_.cols() > 0; } // no keys, no memory

    /// 1/sqrt(d), and 1 for a head of width 0.
    static T default_scale(Index width) { return width > 0 ? T(1) / std::sqrt(static_cast<T>(width)) : T(1); }

private:
    MatrixView<T> q_, k_, v_;
    T scale_;
};

/// Borrowed [heads, rows, cols] numbers with unit inner stride.
template <Real T>
struct HeadArray {
    const T* data = nullptr;
    Index heads = 0;
    Index rows = 0;
    Index cols = 0;
    Index head_stride = 0; ///< elements from one head to the next
    Index row_stride = 0;  ///< elements from one row to the next

    /// Contiguous [heads, rows, cols].
    static HeadArray contiguous(const T* data, Index heads, Index rows, Index cols) {
        return {data, heads, rows, cols, rows * cols, cols};
    }
    MatrixView<T> operator[](Index head) const { return {data + head * head_stride, rows, cols, row_stride}; }
};

/// Heads of one layer. With fewer key heads than query heads (grouped-query attention), query head h uses key
/// head h / (query heads / key heads). Throws `invalid_argument` when the groups do not come out even.
template <Real T>
class HeadGroup {
public:
    HeadGroup(HeadArray<T> q, HeadArray<T> k, HeadArray<T> v = {})
        : HeadGroup(q, k, v, HeadView<T>::default_scale(q.cols)) {}
    HeadGroup(HeadArray<T> q, HeadArray<T> k, HeadArray<T> v, T scale) : q_(q), k_(k), v_(v), scale_(scale) {
        detail::require(k.heads > 0 && q.heads % k.heads == 0, "HeadGroup",
                        "the number of key heads must divide the number of query heads", q.heads, k.heads);
        detail::require(v.data == nullptr || v.heads == k.heads, "HeadGroup",
                        "k and v must have the same number of heads", k.heads, v.heads);
        if (q.heads > 0) (void)(*this)[0]; // shapes are those of every head
    }

    Index heads() const { return q_.heads; }
    Index key_heads() const { return k_.heads; }
    Index queries() const { return q_.rows; }
    Index keys() const { return k_.rows; }
    HeadView<T> operator[](Index head) const {
        const Index shared = head / (q_.heads / k_.heads);
        return {q_[head], k_[shared], v_.data ? v_[shared] : MatrixView<T>{}, scale_};
    }

private:
    HeadArray<T> q_, k_, v_;
    T scale_;
};

/// Logits of one query over all keys: scale q.k where the mask lets it see, -inf elsewhere. `out` has `keys`
/// elements. Cost O(visible d), no allocation.
template <Real T>
void logits_of(const HeadView<T>& head, const Mask& mask, Index query, RowOut<T> out) {
    detail::require(query >= 0 && query < head.queries(), "logits_of", "query must be in [0, queries)", query,
                    head.queries());
    detail::require(detail::size<T>(out) == head.keys(), "logits_of", "out must have one element for each key",
                    detail::size<T>(out), head.keys());
    std::fill(out.begin(), out.end(), -std::numeric_limits<T>::infinity());
    const Eigen::Map<const Row<T>> q(head.q().row(query).data(), 1, head.q().cols());
    mask.visible(query, head.keys()).for_each([&](Index key) {
        const Eigen::Map<const Row<T>> k(head.k().row(key).data(), 1, head.k().cols());
        out[static_cast<std::size_t>(key)] = head.scale() * q.matrix().dot(k.matrix());
    });
}

} // namespace v0_1
} // namespace attnscope
