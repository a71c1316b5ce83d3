// A set of selected keys of one row, the context vector it makes, and the distance of every key from that
// vector.
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/top_n.hpp>

namespace attnscope {
inline namespace v0_2 {

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
/// Special rows. Lengths come from squares: vectors that are shorter than 1e-154 have no length in double, and those
/// that are longer than 1e154 an infinite one.
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
        assign_all(std::span(this, 1), p, x, std::span(&selected, 1), metric);
    }

    /// Several sets of one row in one pass over its vectors: each what `assign` makes of its keys, to the bit.
    /// Cost. O(n d) for each set, less than what one by one takes.
    /// Throws. As `assign`, and `invalid_argument` unless there is one set for each list of keys.
    static void assign_all(std::span<SelectedSet> sets, RowIn<T> p, MatrixView<T> x,
                           std::span<const std::span<const Index>> selected,
                           Metric metric = Metric::euclidean) {
        const Index n = detail::size<T>(p), d = x.cols();
        detail::require(sets.size() == selected.size(), "SelectedSet",
                        "there must be one set for each list of keys", sets.size(), selected.size());
        detail::require(x.rows() == n, "SelectedSet", "x must have one row for each weight", x.rows(), n);
        if (sets.empty()) return;
        for (std::size_t i = 0; i < sets.size(); ++i) sets[i].begin(p, x, selected[i], metric);

        // The weighted vectors of a block of keys, kept by the first set for all.
        Matrix<A>& y = sets.front().block_;
        y.resize(block_keys + 1, d);
        A total_length = 0;
        for (Index first = 0; first < n; first += block_keys) {
            A* const sum = y.data() + block_keys * d;
            std::fill_n(sum, d, A(0));
            Block block{first, std::min(block_keys, n - first), y.data(), sum};
            for (Index k = 0; k < block.count; ++k) {
                A* const own = y.data() + k * d;
                const A square = weigh(detail::at(p, first + k), x.row(first + k).data(), d, own, sum),
                        length = std::sqrt(square);
                detail::at(block.squares, k) = square;
                detail::at(block.lengths, k) = length;
                block.mass += A(detail::at(p, first + k));
                block.total_square += square;
                block.total_length += length;
            }
            total_length += block.total_length;
            for (SelectedSet& set : sets) set.add_block(block);
        }
        for (SelectedSet& set : sets) set.total_length_ = total_length;
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
    bool contains(Index i) const { return detail::at(member_, i) != 0; }
    RowIn<T> weights() const { return p_; }
    const MatrixView<T>& vectors() const { return x_; }

    /// A_N, the selected mass.
    A mass() const { return sums_.mass; }
    /// The mass of the others, added up from them: accurate when it is tiny.
    A tail_mass() const { return sums_.tail; }
    /// s = sum_{i in I} p_i x_i, not renormalised.
    const Eigen::Matrix<A, 1, Eigen::Dynamic>& context() const { return s_; }
    /// sum |y_i| over all keys.
    A total_length() const { return total_length_; }
    /// sum |y_i|, sum |y_i|^2 and sum ||s| - |y_i|| over the others.
    A tail_length() const { return sums_.tail_length; }
    A tail_squares() const { return sums_.tail_squares; }
    A contrast() const { return sums_.contrast; }
    /// sum over the others of p_i x_i.
    const Eigen::Matrix<A, 1, Eigen::Dynamic>& remainder() const { return rest_; }
    /// Distance of y_i from s.
    A distance(Index i) const { return detail::at(distances_, i); }
    /// Is key i nearer to s than key j? Finer than comparing distances: keys of tiny weight are all about |s|
    /// away, and only |y|^2 - 2 <y, s> = D^2 - |s|^2 tells them apart. Equal tokens are equally near. A strict
    /// weak order.
    bool nearer(Index i, Index j) const {
        if (is_close(i) || is_close(j)) return distance(i) < distance(j);
        return offset(i) < offset(j);
    }
    /// Is y_i so near to s that its distance says more than its offset?
    bool is_close(Index i) const { return metric_ == Metric::euclidean && 2 * distance(i) < length_; }
    /// |y|^2 - 2 <y, s> = D^2 - |s|^2, or minus the cosine.
    A offset(Index i) const { return detail::at(offsets_, i); }

private:
    static constexpr Index block_keys = 16;
    using PerKey = std::array<A, static_cast<std::size_t>(block_keys)>;

    /// Some keys of the row: what they are to every set.
    struct Block {
        Index first, count;
        const A* y;   ///< their weighted vectors
        const A* sum; ///< of them
        A mass = 0, total_length = 0, total_square = 0;
        PerKey squares{}, lengths{}; ///< |y|^2 and |y|, 0 behind the last
    };

    /// y = p x, added to `sum`, and |y|^2.
    static A weigh(T p, const T* x, Index d, A* y, A* sum) {
        using P = detail::Packet<A>;
        const P weight = A(p);
        P square = A(0);
        const A* wide;
        if constexpr (std::same_as<T, A>)
            wide = x;
        else
            wide = std::copy(x, x + d, y) - d;
        detail::for_each_lane<A>(d, [&](const auto& lane) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            const auto product = lane(wide, A(0)) * weight;
            square = madd(product, product, square);
            lane.store(y, product);
            lane.store(sum, lane(sum, A(0)) + product);
        });
        return reduce_add(square);
    }

    /// Everything but what comes from the distances of the keys.
    void begin(RowIn<T> p, MatrixView<T> x, std::span<const Index> selected, Metric metric) {
        const Index n = detail::size<T>(p);
        p_ = p;
        x_ = x;
        metric_ = metric;
        member_.assign(p.size(), 0);
        selected_.assign(selected.begin(), selected.end());
        s_.setZero(x.cols());
        rest_.setZero(x.cols());
        for (const Index i : selected) {
            detail::require(i >= 0 && i < n, "SelectedSet", "selected keys must be in [0, n)", i, n);
            detail::require(!detail::at(member_, i), "SelectedSet", "selected keys must be distinct", i);
            detail::at(member_, i) = 1;
            s_ += weighted(i);
        }
        square_ = s_.squaredNorm();
        length_ = std::sqrt(square_);
        sums_ = {};
        const Index whole = (n + block_keys - 1) / block_keys * block_keys;
        distances_.resize(static_cast<std::size_t>(whole));
        offsets_.resize(static_cast<std::size_t>(whole));
    }

    /// The distances of some keys, and what is summed over the others among them.
    void add_block(const Block& block) {
        const Index d = x_.cols();
        PerKey products{};
        Index k = 0;
        for (; k + 4 <= block.count; k += 4) multiply<4>(block.y + k * d, products.data() + k);
        for (; k < block.count; ++k) multiply<1>(block.y + k * d, products.data() + k);
        if (metric_ == Metric::euclidean)
            set_distances(block, products);
        else
            set_cosines(block, products);

        const char* const member = member_.data() + block.first;
        if (std::none_of(member, member + block.count, [](char inside) { return inside != 0; })) {
            sums_.tail += block.mass;
            sums_.tail_length += block.total_length;
            sums_.tail_squares += block.total_square;
            sums_.contrast += detail::sum_lanes<A>(block.count, [&](const auto& lane) {
                return abs(detail::Packet<A>(length_) - lane(block.lengths.data(), length_));
            });
            add_to_rest(std::array{block.sum});
            return;
        }
        std::array<const A*, static_cast<std::size_t>(block_keys)> others;
        std::size_t left = 0;
        for (k = 0; k < block.count; ++k) {
            const A weight = A(detail::at(p_, block.first + k)), length = detail::at(block.lengths, k);
            if (member[k] != 0) {
                sums_.mass += weight;
                continue;
            }
            sums_.tail += weight;
            sums_.tail_length += length;
            sums_.tail_squares += detail::at(block.squares, k);
            sums_.contrast += std::abs(length_ - length);
            others[left++] = block.y + k * d;
        }
        add_to_rest(std::span<const A* const>(others).first(left));
    }

    /// <y, s> of `count` keys.
    template <Index count>
    void multiply(const A* y, A* products) const {
        using P = detail::Packet<A>;
        const Index d = x_.cols();
        P sum[std::size_t(count)];
        detail::unrolled<count>([&](auto k) { sum[k] = A(0); });
        detail::for_each_lane<A>(d, [&](const auto& lane) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            const P s = lane(s_.data(), A(0));
            detail::unrolled<count>([&](auto k) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
                sum[k] = madd(lane(y + k * d, A(0)), s, sum[k]);
            });
        });
        detail::unrolled<count>([&](auto k) { products[k] = reduce_add(sum[k]); });
    }

    /// D^2 = |s|^2 + (|y|^2 - 2 <y, s>), where no more than half of it cancels, else from the vectors.
    void set_distances(const Block& block, const PerKey& products) {
        using P = detail::Packet<A>;
        constexpr std::uint32_t all = static_cast<std::uint32_t>((std::uint64_t{1} << P::size) - 1);
        const P square = square_, half = A(0.5), minus_two = A(-2);
        for (Index k = 0; k < block_keys; k += P::size) {
            const P own = P::load(block.squares.data() + k),
                    offset = madd(minus_two, P::load(products.data() + k), own), far = square + offset;
            offset.store(offsets_.data() + block.first + k);
            sqrt(far).store(distances_.data() + block.first + k);
            const std::uint32_t exact = mask_not_below(far, half * (square + own));
            if (exact == all) continue;
            for (Index i = k; i < std::min(k + P::size, block.count); ++i)
                if ((exact >> (i - k) & 1u) == 0)
                    detail::at(distances_, block.first + i) = direct_distance(block.y + i * x_.cols());
        }
    }
    void set_cosines(const Block& block, const PerKey& products) {
        for (Index k = 0; k < block.count; ++k) {
            const A cosine = detail::at(products, k) / (detail::at(block.lengths, k) * length_ + A(1e-12));
            detail::at(offsets_, block.first + k) = -cosine;
            detail::at(distances_, block.first + k) = 1 - cosine;
        }
    }
    A direct_distance(const A* y) const {
        return std::sqrt(detail::sum_lanes<A>(x_.cols(), [&](const auto& lane) {
            const auto gap = lane(s_.data(), A(0)) - lane(y, A(0));
            return gap * gap;
        }));
    }
    void add_to_rest(std::span<const A* const> vectors) {
        detail::for_each_lane<A>(x_.cols(), [&](const auto& lane) {
            detail::Packet<A> rest = lane(rest_.data(), A(0));
            for (const A* const y : vectors) rest += lane(y, A(0));
            lane.store(rest_.data(), rest);
        });
    }
    auto weighted(Index i) const {
        const Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>> row(x_.row(i).data(), 1, x_.cols());
        return (row.template cast<A>() * A(detail::at(p_, i)));
    }

    RowIn<T> p_;
    MatrixView<T> x_;
    std::vector<T> own_p_;
    Matrix<T> own_x_;
    std::vector<Index> selected_;
    std::vector<char> member_;
    std::vector<A> distances_;
    Matrix<A> block_;        ///< aligned
    std::vector<A> offsets_; ///< D^2 - |s|^2, or minus the cosine
    Eigen::Matrix<A, 1, Eigen::Dynamic> s_, rest_;
    struct Sums {
        A mass = 0, tail = 0;                              ///< of weights
        A tail_length = 0, tail_squares = 0, contrast = 0; ///< over the others
    } sums_;
    A total_length_ = 0;
    A square_ = 0; ///< |s|^2
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

} // namespace v0_2
} // namespace attnscope
