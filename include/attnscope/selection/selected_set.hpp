// A set of selected keys of one row, the context vector it makes, and the distance of every key from that
// vector.
#pragma once

#include <attnscope/selection/top_n.hpp>

namespace attnscope {
inline namespace v0_1 {

/// How far a weighted token y_i = p_i x_i is from the selected context vector s = sum_{i in I} y_i.
enum class Metric {
    euclidean, ///< |y_i - s|
    cosine     ///< 1 - <y_i, s>/(|y_i| |s| + 1e-12)
};

/// One row's weights p [n], token vectors x [n, d] (values, hidden states or W_O v: the caller's choice) and
/// a set I of selected keys, with everything that the questions of this wing share. Works in double for float
/// input. The distance of a key depends on its own p and x only, so equal tokens are exactly equally far.
/// Invariant. Weights are taken as they are: >= 0, not necessarily summing to 1. All keys given are visible:
/// leave masked ones out.
/// Example, with p and x of any kind that `RowLike` and Eigen have:
///     SelectedSet<double> set;
///     set.assign(p, x, std::vector<Index>{0, 3}); // or: auto set = select_top(p, x, 2);
///     const double mass = set.mass(), distance = selection_distance(set);
///     const double found = separability(set).separable_fraction;
template <Real T>
class SelectedSet {
public:
    using A = Accumulator<T>;

    SelectedSet() = default;
    // Views of its own copies survive a move, not a copy.
    SelectedSet(const SelectedSet&) = delete;
    SelectedSet& operator=(const SelectedSet&) = delete;
    SelectedSet(SelectedSet&&) = default;
    SelectedSet& operator=(SelectedSet&&) = default;

    /// p and x are borrowed and must stay alive while the set is asked. Reuses its memory from row to row.
    /// Shapes and units. p [n], x [n, d]; `selected`: distinct keys in any order.
    /// Cost. O(n d).
    /// Throws. `invalid_argument` when x does not have one row for each weight or a key is out of range or
    /// repeated.
    void assign(RowIn<T> p, MatrixView<T> x, std::span<const Index> selected,
                Metric metric = Metric::euclidean) {
        const Index n = detail::size<T>(p), d = x.cols();
        detail::require(x.rows() == n, "SelectedSet", "x must have one row for each weight", x.rows(), n);
        p_ = p;
        x_ = x;
        member_.assign(p.size(), 0);
        selected_.assign(selected.begin(), selected.end());
        s_.setZero(d);
        rest_.setZero(d);
        for (const Index i : selected) {
            detail::require(i >= 0 && i < n, "SelectedSet", "selected keys must be in [0, n)", i, n);
            detail::require(!member_[static_cast<std::size_t>(i)], "SelectedSet",
                            "selected keys must be distinct", i);
            member_[static_cast<std::size_t>(i)] = 1;
            s_ += weighted(i);
        }
        mass_ = tail_ = total_length_ = 0;
        tail_length_ = tail_squares_ = contrast_ = 0;
        distances_.resize(p.size());
        offsets_.resize(p.size());
        metric_ = metric;
        length_ = s_.norm();
        for (Index i = 0; i < n; ++i) {
            const auto at = static_cast<std::size_t>(i);
            (member_[at] ? mass_ : tail_) += A(p[at]);
            const Products own = products(i);
            const A length = std::sqrt(own.square);
            total_length_ += length;
            if (!member_[at]) {
                tail_length_ += length;
                tail_squares_ += own.square;
                contrast_ += std::abs(length_ - length);
            }
            if (metric == Metric::euclidean) {
                distances_[at] = std::sqrt(own.apart);
                offsets_[at] = own.square - 2 * own.inner;
            } else {
                offsets_[at] = -own.inner / (length * length_ + A(1e-12));
                distances_[at] = 1 + offsets_[at];
            }
        }
    }

    /// As above from any row and Eigen matrix (column-major, half precision, ...), of which copies are kept.
    template <RowLike P, MatrixExpr X>
    requires std::same_as<RowScalar<P>, T> && std::same_as<ScalarOf<X>, T>
    void assign(const P& p, const X& x, std::span<const Index> selected, Metric metric = Metric::euclidean) {
        const RowHolder<T> row(p);
        own_p_.assign(row.get().begin(), row.get().end());
        const MatrixHolder<T> matrix(x);
        own_x_.resize(x.rows(), x.cols());
        own_x_ = matrix.get().map();
        assign(RowIn<T>(own_p_), MatrixView<T>(own_x_), selected, metric);
    }

    Index size() const { return static_cast<Index>(p_.size()); }
    Index selected_count() const { return static_cast<Index>(selected_.size()); }
    std::span<const Index> selected() const { return selected_; }
    bool contains(Index i) const { return member_[static_cast<std::size_t>(i)] != 0; }
    RowIn<T> weights() const { return p_; }
    const MatrixView<T>& vectors() const { return x_; }

    /// A_N, the selected mass.
    A mass() const { return mass_; }
    /// The mass of the others, added up from them: accurate when it is tiny.
    A tail_mass() const { return tail_; }
    /// s = sum_{i in I} p_i x_i, not renormalised.
    const Eigen::Matrix<A, 1, Eigen::Dynamic>& context() const { return s_; }
    /// sum |y_i| over all keys.
    A total_length() const { return total_length_; }
    /// sum |y_i|, sum |y_i|^2 and sum ||s| - |y_i|| over the others.
    A tail_length() const { return tail_length_; }
    A tail_squares() const { return tail_squares_; }
    A contrast() const { return contrast_; }
    /// sum over the others of p_i x_i.
    const Eigen::Matrix<A, 1, Eigen::Dynamic>& remainder() const { return rest_; }
    /// Distance of y_i from s.
    A distance(Index i) const { return distances_[static_cast<std::size_t>(i)]; }
    /// Is key i nearer to s than key j? Finer than comparing distances: keys of tiny weight are all about |s|
    /// away, and only |y|^2 - 2 <y, s> = D^2 - |s|^2 tells them apart. Equal tokens are equally near. A strict
    /// weak order.
    bool nearer(Index i, Index j) const {
        const auto a = static_cast<std::size_t>(i), b = static_cast<std::size_t>(j);
        if (metric_ == Metric::euclidean && (2 * distances_[a] < length_ || 2 * distances_[b] < length_))
            return distances_[a] < distances_[b];
        return offsets_[a] < offsets_[b];
    }

private:
    /// Of y_i = p_i x_i: <y_i, s>, |y_i|^2 and |s - y_i|^2.
    struct Products {
        A inner, square, apart;
    };
    /// In one pass, which also adds y_i to `rest_` unless i is selected.
    Products products(Index i) {
        using S = detail::Simd<A>;
        const A* x;
        if constexpr (std::same_as<T, A>) {
            x = x_.row(i).data();
        } else {
            const RowIn<T> row = x_.row(i);
            wide_.assign(row.begin(), row.end());
            x = wide_.data();
        }
        const auto weight = S::set(A(p_[static_cast<std::size_t>(i)]));
        auto inner = S::set(A(0)), square = inner, apart = inner;
        const auto add = [&](const auto& lane) {
            const auto y = S::mul(lane(x, A(0)), weight), s = lane(s_.data(), A(0)), gap = S::sub(s, y);
            inner = S::madd(y, s, inner);
            square = S::madd(y, y, square);
            apart = S::madd(gap, gap, apart);
            return y;
        };
        if (member_[static_cast<std::size_t>(i)])
            detail::for_each_lane<A>(x_.cols(), [&](const auto& lane) { add(lane); });
        else
            detail::for_each_lane<A>(x_.cols(), [&](const auto& lane) {
                lane.store(rest_.data(), S::add(lane(rest_.data(), A(0)), add(lane)));
            });
        return {S::reduce_add(inner), S::reduce_add(square), S::reduce_add(apart)};
    }
    auto weighted(Index i) const {
        const Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>> row(x_.row(i).data(), 1, x_.cols());
        return (row.template cast<A>() * A(p_[static_cast<std::size_t>(i)]));
    }

    RowIn<T> p_;
    MatrixView<T> x_;
    std::vector<T> own_p_;
    Matrix<T> own_x_;
    std::vector<Index> selected_;
    std::vector<char> member_;
    std::vector<A> distances_, wide_;
    std::vector<A> offsets_; ///< D^2 - |s|^2, or minus the cosine
    Eigen::Matrix<A, 1, Eigen::Dynamic> s_, rest_;
    A mass_ = 0, tail_ = 0, total_length_ = 0;
    A tail_length_ = 0, tail_squares_ = 0, contrast_ = 0;
    A length_ = 0; ///< |s|; below half of it the distance itself is the finer measure
    Metric metric_ = Metric::euclidean;
};

/// The set of the n largest weights of a row; copies of p and x are kept.
/// Shapes and units. p [keys], an Eigen expression x [keys, d].
/// Special rows. NaN ranks last; see `Ranking`.
/// Cost. O(keys d), allocates.
/// Throws. `invalid_argument` unless 0 <= n <= keys and x has one row for each weight.
template <RowLike P, MatrixExpr X>
requires std::same_as<RowScalar<P>, ScalarOf<X>>
SelectedSet<RowScalar<P>> select_top(const P& p, const X& x, Index n, Metric metric = Metric::euclidean) {
    SelectedSet<RowScalar<P>> set;
    set.assign(p, x, top_n(p, n), metric);
    return set;
}

} // namespace v0_1
} // namespace attnscope
