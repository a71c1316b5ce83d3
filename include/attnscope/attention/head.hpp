// One attention head as borrowed queries, keys and values, and a group of heads that may share keys.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <attnscope/attention/stored_rows.hpp>

#include <cmath>
#include <limits>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

template <class E>
concept MatrixArgument = MatrixExpr<std::remove_cvref_t<E>>;

template <class E>
using ElementOf = typename std::remove_cvref_t<E>::Scalar;

/// A view of an expression for `HeadView`, without a copy; says why where there can be none.
template <InputScalar T, MatrixArgument E>
typename RowsOf<T>::type view_for_head(E&& expression) {
    using Plain = std::remove_cvref_t<E>;
    constexpr bool lasts = std::is_lvalue_reference_v<E> || !OwningExpr<E>;
    constexpr bool same_scalar = std::same_as<typename Plain::Scalar, T>;
    constexpr bool stored = StoredExpr<Plain, T>, row_major = bool(Plain::IsRowMajor);
    static_assert(
        lasts, "HeadView borrows: a temporary matrix ends before the view does. Keep it in a variable, or use "
               "Head, which owns a copy: `const Head head(q, k, v);` and head.view()");
    static_assert(
        !lasts || same_scalar,
        "HeadView looks at numbers of one scalar: use Head and its view(), which converts (q, k and v of "
        "different scalars)");
    static_assert(!lasts || !same_scalar || stored, "HeadView looks at memory, and this expression has none: "
                                                    "evaluate it into a matrix, or use Head and its view()");
    static_assert(!lasts || !same_scalar || !stored || row_major,
                  "HeadView looks at row-major numbers, and this is column-major (Eigen's default): use Head "
                  "and its view(), "
                  "which copies, "
                  "or a row-major matrix or Map (attnscope::Matrix<float> is one)");
    if constexpr (lasts && same_scalar && stored && row_major) {
        require(expression.innerStride() == 1 || expression.cols() <= 1, "HeadView",
                "the numbers of a row must stand side by side (use Head, which copies): inner stride must be 1",
                static_cast<Index>(expression.innerStride()));
        return typename RowsOf<T>::type(expression.data(), expression.rows(), expression.cols(),
                                        expression.rows() > 1 ? static_cast<Index>(expression.outerStride())
                                                              : static_cast<Index>(expression.cols()));
    } else {
        return {};
    }
}

} // namespace detail

/// q [queries, d], k [keys, d], v [keys, d_v] (or empty: no values known) and the factor of q.k, 1/sqrt(d)
/// unless given. Row-major matrices, Maps and Blocks are viewed without a copy; what is column-major or a temporary
/// belongs into a `Head`. Of half and bfloat16 see attention/stored_head.hpp.
/// Invariant. Borrowed: the memory must outlive the view.
/// Throws. `invalid_argument` when shapes do not fit or the scale is not finite.
/// Example, a head inside a fused buffer of tokens [n, 3 d]:
///     const Eigen::Map<const Matrix<float>> qkv(buffer.data(), n, 3 * d);
///     const HeadView<float> head(qkv.leftCols(d), qkv.middleCols(d, d), qkv.rightCols(d));
///     const Attention<float> attention = attend(head, Softmax(), Mask::causal());
template <InputScalar T>
class HeadView {
public:
    template <detail::MatrixArgument Q, detail::MatrixArgument K>
    HeadView(Q&& q, K&& k)
        : HeadView(detail::view_for_head<T>(std::forward<Q>(q)), detail::view_for_head<T>(std::forward<K>(k))) {
    }
    template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V>
    HeadView(Q&& q, K&& k, V&& v)
        : HeadView(detail::view_for_head<T>(std::forward<Q>(q)), detail::view_for_head<T>(std::forward<K>(k)),
                   detail::view_for_head<T>(std::forward<V>(v))) {}
    template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V>
    HeadView(Q&& q, K&& k, V&& v, T scale)
        : HeadView(detail::view_for_head<T>(std::forward<Q>(q)), detail::view_for_head<T>(std::forward<K>(k)),
                   detail::view_for_head<T>(std::forward<V>(v)), scale) {}
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

template <detail::MatrixArgument Q, detail::MatrixArgument K>
HeadView(Q&&, K&&) -> HeadView<detail::ElementOf<Q>>;
template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V>
HeadView(Q&&, K&&, V&&) -> HeadView<detail::ElementOf<Q>>;
template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V, class S>
HeadView(Q&&, K&&, V&&, S) -> HeadView<detail::ElementOf<Q>>;

/// A head that owns its numbers: a row-major copy of any expressions in one scalar, that of the queries
/// unless named.
/// Example:
///     const Eigen::MatrixXf q = Eigen::MatrixXf::Random(128, 64), k = q, v = q; // column-major
///     const Head head(q, k, v);
///     const auto rows = scan(head.view(), Mask::causal()).rows;
template <Real T>
class Head {
public:
    /// Throws. As `HeadView` does.
    template <MatrixExpr Q, MatrixExpr K>
    Head(const Q& q, const K& k)
        : q_(detail::row_major_copy<T>(q)), k_(detail::row_major_copy<T>(k)),
          scale_(HeadView<T>::default_scale(q.cols())) {
        (void)view();
    }
    template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
    Head(const Q& q, const K& k, const V& v) : Head(q, k, v, HeadView<T>::default_scale(q.cols())) {}
    template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
    Head(const Q& q, const K& k, const V& v, T scale)
        : q_(detail::row_major_copy<T>(q)), k_(detail::row_major_copy<T>(k)), v_(detail::row_major_copy<T>(v)),
          has_values_(true), scale_(scale) {
        (void)view();
    }

    /// A copy of what a view looks at.
    explicit Head(const HeadView<T>& head)
        : q_(head.q().map()), k_(head.k().map()), v_(head.v().map()), has_values_(head.has_values()),
          scale_(head.scale()) {}

    /// Valid while the head is there.
    HeadView<T> view() const& {
        return {MatrixView<T>(q_), MatrixView<T>(k_), has_values_ ? MatrixView<T>(v_) : MatrixView<T>(),
                scale_};
    }
    HeadView<T> view() const&& = delete; ///< of a temporary head: keep it in a variable

private:
    Matrix<T> q_, k_, v_;
    bool has_values_ = false;
    T scale_;
};

template <MatrixExpr Q, MatrixExpr K>
Head(const Q&, const K&) -> Head<ScalarOf<Q>>;
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
Head(const Q&, const K&, const V&) -> Head<ScalarOf<Q>>;
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class S>
Head(const Q&, const K&, const V&, S) -> Head<ScalarOf<Q>>;

/// Borrowed [heads, rows, cols] numbers with unit inner stride.
template <InputScalar T>
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
    typename detail::RowsOf<T>::type operator[](Index head) const {
        return {data + head * head_stride, rows, cols, row_stride};
    }
};

/// Heads of one layer. With fewer key heads than query heads (grouped-query attention), query head h uses key
/// head h / (query heads / key heads).
/// Throws. `invalid_argument` when the groups do not come out even, and as `HeadView` does.
/// Example, with q [heads, n, d] and k, v [key_heads, n, d] contiguous:
///     const auto array = [&](const std::vector<float>& x, Index count) {
///         return HeadArray<float>::contiguous(x.data(), count, n, d);
///     };
///     const HeadGroup<float> group(array(q, heads), array(k, key_heads), array(v, key_heads));
///     const Attention<float> last = attend(group[heads - 1]);
template <InputScalar T>
class HeadGroup {
public:
    HeadGroup(HeadArray<T> q, HeadArray<T> k, HeadArray<T> v = {})
        : HeadGroup(q, k, v, HeadView<T>::default_scale(q.cols)) {}
    HeadGroup(HeadArray<T> q, HeadArray<T> k, HeadArray<T> v, ComputeScalar<T> scale)
        : q_(q), k_(k), v_(v), scale_(scale) {
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
        return {q_[head], k_[shared], v_.data ? v_[shared] : typename detail::RowsOf<T>::type{}, scale_};
    }

private:
    HeadArray<T> q_, k_, v_;
    ComputeScalar<T> scale_;
};

/// Logits of one query over all keys.
/// Formula. scale q.k where the mask lets it see, -inf elsewhere.
/// Shapes and units. `out` has one element for each key.
/// Cost. O(visible d), no allocation.
/// Throws. `invalid_argument` for a query that is not there, and for an `out` of another length.
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
        detail::at(out, key) = head.scale() * q.matrix().dot(k.matrix());
    });
}

} // namespace v0_2
} // namespace attnscope
