// Heads as caches keep them: half precision, keys and values in pages.
#pragma once

#include <attnscope/attention/head.hpp>

namespace attnscope {
inline namespace v0_2 {

/// q [queries, d], k [keys, d] and v [keys, d_v] (or none) that are computed in T, each stored in its own way, and the
/// factor of q.k, 1/sqrt(d) unless given. What takes it gives the same bits as for a `HeadView` of the same numbers in
/// T: scans read tiles, so that no copy in T of the values is held, and none of the keys but that which every scan
/// makes; `attend` and `attend_backward` read keys and values once for the call, and scans of selections the values.
/// Invariant. Borrowed: the memory must outlive it.
/// Throws. `invalid_argument` when shapes do not fit or the scale is not finite.
/// Example: `scan(StoredHead<float>(q, StoredRows<float>::paged(pages, 16, keys, d)), Mask::causal())`
template <Real T>
class StoredHead {
public:
    StoredHead(const HeadView<T>& head) : StoredHead(head.q(), head.k(), head.v(), head.scale()) {}
    StoredHead(StoredRows<T> q, StoredRows<T> k, StoredRows<T> v = {})
        : StoredHead(q, k, v, HeadView<T>::default_scale(q.cols())) {}
    StoredHead(StoredRows<T> q, StoredRows<T> k, StoredRows<T> v, T scale)
        : q_(q), k_(k), v_(v), scale_(scale) {
        detail::require(q.cols() == k.cols(), "StoredHead", "q and k must have the same width", q.cols(),
                        k.cols());
        detail::require(!has_values() || v.rows() == k.rows(), "StoredHead",
                        "k and v must have the same number of rows", k.rows(), v.rows());
        detail::require(std::isfinite(scale), "StoredHead", "scale must be finite", scale);
    }

    const StoredRows<T>& q() const { return q_; }
    const StoredRows<T>& k() const { return k_; }
    const StoredRows<T>& v() const { return v_; }
    T scale() const { return scale_; }
    Index queries() const { return q_.rows(); }
    Index keys() const { return k_.rows(); }
    bool has_values() const { return v_.has_data(); }

private:
    StoredRows<T> q_, k_, v_;
    T scale_;
};

/// A view of row-major half or bfloat16 matrices, Maps and Blocks without a copy; computed in float.
/// Example: `const HeadView head(q, k, v);` with `Eigen::Map<const attnscope::Matrix<Eigen::half>> q, k, v`
template <class S>
requires(!Real<S>) && InputScalar<S>
class HeadView<S> : public StoredHead<ComputeScalar<S>> {
    using T = ComputeScalar<S>;

public:
    using StoredHead<T>::StoredHead;
    template <detail::MatrixArgument Q, detail::MatrixArgument K>
    HeadView(Q&& q, K&& k)
        : StoredHead<T>(detail::view_for_head<S>(std::forward<Q>(q)),
                        detail::view_for_head<S>(std::forward<K>(k))) {}
    template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V>
    HeadView(Q&& q, K&& k, V&& v)
        : StoredHead<T>(detail::view_for_head<S>(std::forward<Q>(q)),
                        detail::view_for_head<S>(std::forward<K>(k)),
                        detail::view_for_head<S>(std::forward<V>(v))) {}
    template <detail::MatrixArgument Q, detail::MatrixArgument K, detail::MatrixArgument V>
    HeadView(Q&& q, K&& k, V&& v, T scale)
        : StoredHead<T>(detail::view_for_head<S>(std::forward<Q>(q)),
                        detail::view_for_head<S>(std::forward<K>(k)),
                        detail::view_for_head<S>(std::forward<V>(v)), scale) {}

    static T default_scale(Index width) { return HeadView<T>::default_scale(width); }
};

namespace detail {

template <Real T>
StoredHead<T> stored_head(const StoredHead<T>& head) {
    return head;
}
template <Real T>
StoredHead<T> stored_head(const HeadView<T>& head) {
    return head;
}

} // namespace detail

/// What scans read a head from: a `HeadView` of any accepted scalar, or a `StoredHead`.
template <class H>
concept HeadLike = requires(const H& head) { detail::stored_head(head); };

namespace detail {

/// The scalar in which a head is computed.
template <HeadLike H>
using ScalarOfHead = decltype(stored_head(std::declval<const H&>()).scale());

/// A head in T: a view where it is one, else a copy.
template <Real T>
class ReadHead {
public:
    explicit ReadHead(const StoredHead<T>& head)
        : view_(head.q().read(0, head.queries(), q_), head.k().read(0, head.keys(), k_),
                head.has_values() ? head.v().read(0, head.keys(), v_) : MatrixView<T>(), head.scale()) {}
    ReadHead(const ReadHead&) = delete;
    ReadHead& operator=(const ReadHead&) = delete;
    const HeadView<T>& view() const { return view_; }

private:
    std::vector<T> q_, k_, v_;
    HeadView<T> view_;
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
