// The distance between what a selection keeps and what it leaves, in both readings of the paper's definition
// (7).
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/selected_set.hpp>

#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// The two readings of P (7), "cumulative distance between s and all non-selected embeddings".
enum class Reading {
    cumulative, ///< d = sum_{i not in I} |s - y_i|
    resultant   ///< d' = |sum_{i not in I} y_i - s|
};
/// "cumulative" or "resultant".
constexpr std::string_view name_of(Reading reading) {
    return reading == Reading::cumulative ? "cumulative" : "resultant";
}

/// The distance of a selection from what it leaves, in one reading of P (7). `set` uses the Euclidean metric.
/// Formula. d = sum_{i not in I} |s - y_i| (cumulative), d' = |sum_{i not in I} y_i - s| (resultant).
/// Special rows. With everything selected 0 (cumulative: nobody is left) or |s| (resultant).
/// Cost. O(n), respectively O(d).
/// Source. P (7).
template <Real T>
Accumulator<T> selection_distance(const SelectedSet<T>& set, Reading reading = Reading::cumulative) {
    if (reading == Reading::resultant) return (set.remainder() - set.context()).norm();
    Accumulator<T> sum = 0;
    for (Index i = 0; i < set.size(); ++i)
        if (!set.contains(i)) sum += set.distance(i);
    return sum;
}

/// Inner products of the token vectors of one head, computed once and shared by its rows.
/// Formula. <x_i, x_j>, in double for float vectors.
/// Shapes and units. x [n, d], result [n, n].
/// Cost. O(n^2 d), allocates the result and a copy of x.
template <Real T>
Matrix<Accumulator<T>> gram_matrix(MatrixView<T> x) {
    using A = Accumulator<T>;
    const Matrix<A> wide = x.map().template cast<A>();
    Matrix<A> gram(x.rows(), x.rows());
    gram.noalias() = wide * wide.transpose();
    return gram;
}

/// What a row's top-N selections look like for some N in ascending order, one element for each.
template <Real A>
struct DistanceCurve {
    std::vector<A> cumulative; ///< d(N)
    std::vector<A> resultant;  ///< d'(N)
    std::vector<A> mass;       ///< A_N
    std::vector<A> tail_mass;  ///< mass of the others
    std::vector<A> truncation; ///< |o - o_N| as `truncation_error`
    /// Theorem 1(1), sharp, for the cumulative reading, with d1 to 1e-7 max|x_i| or so; empty unless
    /// asked for.
    std::vector<A> bound;
};

/// The top-N distances of a row for many N at once, from the Gram matrix of its token vectors.
/// Formula. With c_i = <s_N, x_i>, |s_N - y_i|^2 = |s_N|^2 - 2 p_i c_i + |y_i|^2 costs O(1) for each key and
/// N. Where s_N nearly equals y_i this cancels; below 1e-4 (|s|^2 + |y|^2) the distance is taken directly
/// instead, so that the squares keep 1e-11 relative. c_i is kept in double. For float input the squares are
/// formed in float, and distances taken directly below |s|^2 + |y|^2 times 1/32: d(N) is exact to 4e-6.
/// Cost. O(n) plus O(d) for each N up to the largest, about a fifth of it for those that are not asked for: some columns of the Gram matrix at a time, whose c_i stay in
/// registers for all N. Memory O(n) beyond the curve, kept from row to row (plus O(1) for each distance taken
/// directly).
/// Example, with the ranked weights p [n] of a row and a view x [n, d] of their vectors:
///     const Matrix<double> gram = gram_matrix(x);
///     DistanceCurves<double> curves;
///     const DistanceCurve<double>& curve = curves.compute(p, x, gram, ranking.order(), 50);
///     const double distance = curve.cumulative[9]; // of the top 10
template <Real T>
class DistanceCurves {
public:
    using A = Accumulator<T>;

    /// The curve of one row for N = 1 ... n_max; gone with the next one.
    /// Shapes and units. p: weights of the visible keys, x their vectors, gram: `gram_matrix` of vectors that
    /// begin with x (its leading n x n block is read), order: ranking of the n keys; with_bound: also
    /// `bound`, at about half as much again.
    /// Throws. `invalid_argument` when sizes do not fit.
    const DistanceCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                    std::span<const Index> order, Index n_max, bool with_bound = false) {
        detail::require(n_max >= 0 && n_max <= detail::size<T>(p), "DistanceCurves", "n_max must be in [0, n]",
                        n_max, p.size());
        all_.resize(static_cast<std::size_t>(n_max));
        std::iota(all_.begin(), all_.end(), Index(1));
        return compute(p, x, gram, order, std::span<const Index>(all_), with_bound);
    }

    /// The same for N = `counts`, which must ascend within [1, n].
    const DistanceCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                    std::span<const Index> order, std::span<const Index> counts,
                                    bool with_bound = false) {
        const Index n = detail::size<T>(p), d = x.cols();
        detail::require(x.rows() >= n && gram.rows() >= n && gram.cols() >= n &&
                            static_cast<Index>(order.size()) == n,
                        "DistanceCurves", "x, gram and order must cover the weights", x.rows(), gram.rows(),
                        order.size(), n);
        for (std::size_t i = 0; i < counts.size(); ++i)
            detail::require(counts[i] > (i > 0 ? counts[i - 1] : 0) && counts[i] <= n, "DistanceCurves",
                            "the N must ascend in [1, n]", counts[i], n);
        const std::size_t size = static_cast<std::size_t>(n), count = counts.size(),
                          last = counts.empty() ? 0 : static_cast<std::size_t>(counts.back());
        for (auto* curve :
             {&curve_.cumulative, &curve_.resultant, &curve_.mass, &curve_.tail_mass, &curve_.truncation})
            curve->assign(count, A(0));
        curve_.bound.assign(with_bound ? count : 0, A(0));
        weight_.assign(p.begin(), p.end());
        lengths_.resize(size);
        tail_.assign(size + 1, A(0));
        steps_.resize(last);
        doubtful_.clear();
        o_.setZero(d);
        s_.setZero(d);
        A longest_x = 0, longest_y = 0, largest = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const A length = std::sqrt(gram(static_cast<Index>(i), static_cast<Index>(i)));
            lengths_[i] = std::abs(weight_[i]) * length;
            longest_x = std::max(longest_x, length);
            longest_y = std::max(longest_y, lengths_[i]);
            largest = std::max(largest, std::abs(weight_[i]));
            o_ += weight_[i] * vector(x, static_cast<Index>(i));
        }
        for (std::size_t rank = size; rank-- > 0;)
            tail_[rank] = tail_[rank + 1] + detail::at(weight_, order[rank]);

        A mass = 0;
        std::size_t to = 0; // of the next N that is asked for
        for (std::size_t rank = 0; rank < last; ++rank) {
            const Index key = order[rank];
            const A own = detail::at(weight_, key);
            mass += own;
            s_ += own * vector(x, key);
            Step& step = steps_[rank];
            step.key = key;
            step.weight = own;
            step.length = s_.squaredNorm();
            step.to = counts[to] == static_cast<Index>(rank + 1) ? to : not_asked;
            if (step.to == not_asked) continue;
            curve_.resultant[to] = (o_ - 2 * s_).norm();
            curve_.mass[to] = mass;
            curve_.tail_mass[to] = tail_[rank + 1];
            ++to;
        }
        truncate(x, order);
        const bool bounded = with_bound && begin_bounds(gram);
        if (longest_y > A(0)) {
            constexpr bool narrow = std::same_as<T, float> && detail::can_narrow;
            // Else weights of 0 on the longest leave the range of float.
            const bool in_float = narrow && largest * (longest_x / longest_y) < A(1e30);
            if constexpr (narrow)
                if (in_float) add_all(gram, float_squares_, float_slopes_, longest_x, longest_y, bounded);
            if (!in_float) add_all(gram, squares_, slopes_, longest_x, longest_y, bounded);
        } else if (bounded) {
            for_columns<A, Pass::bounds>(gram, squares_, slopes_);
        }
        add_doubtful(x);
        if (bounded) end_bounds(gram);
        return curve_;
    }

private:
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    static auto vector(const MatrixView<T>& x, Index i) {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x.row(i).data(), 1, x.cols())
            .template cast<A>();
    }

    /// tail |mu_tail - mu_head|, with the sum over the others taken from the end, so that small ones keep their
    /// digits. Uses s_ as room.
    void truncate(const MatrixView<T>& x, std::span<const Index> order) {
        s_.setZero(x.cols());
        for (std::size_t rank = order.size(); rank-- > 0;) {
            if (rank < steps_.size() && steps_[rank].to != not_asked) {
                const std::size_t to = steps_[rank].to;
                const A tail = curve_.tail_mass[to], mass = curve_.mass[to];
                curve_.truncation[to] = rank + 1 == order.size() || tail == A(0) ? A(0)
                                        : mass > A(0) ? (s_ - (o_ - s_) * (tail / mass)).norm()
                                                      : std::numeric_limits<A>::quiet_NaN();
            }
            s_ += detail::at(weight_, order[rank]) * vector(x, order[rank]);
        }
    }

    /// What all columns need to know of N = rank + 1.
    static constexpr std::size_t not_asked = std::numeric_limits<std::size_t>::max();
    struct Step {
        std::size_t to = not_asked; ///< place in the curve
        Index key = 0;
        A weight = 0;
        A length = 0;                           ///< |s_N|^2
        A scaled_weight = 0, scaled_length = 0; ///< in units of the longest vectors
    };
    /// What is taken of some columns of the Gram matrix while they are at hand, and how many packets of them are kept in
    /// registers meanwhile.
    enum class Pass { distances, bounds, both };
    static constexpr int registers = detail::Packet<A>::size >= 8 ? 16 : 8;
    template <Pass pass>
    static constexpr int packets_of = pass == Pass::both ? registers / 2 : registers;
    static constexpr Index columns = registers * detail::Packet<A>::size;
    /// R: the scalar in which squares and roots are taken. Below `close` of |s|^2 + |y|^2 a square is in doubt:
    /// what is left has a relative error of 4u/close in R. `least`, in units of the longest |y|^2: what may
    /// underflow.
    template <class R>
    static constexpr R close = std::same_as<R, float> ? R(1) / 32 : R(1e-4);
    template <class R>
    static constexpr R least = std::same_as<R, float> ? R(1e-28) : std::numeric_limits<R>::min();

    /// Adds the distances of some keys to d(N), in units of the longest |y|, and notes those in doubt. `whole`:
    /// the columns fill their packets.
    template <class R, Pass pass, bool whole>
    void add_columns(const Matrix<A>& gram, std::vector<R>& all_squares, const std::vector<R>& all_slopes,
                     Index first, Index width) {
        constexpr int packets = packets_of<pass>;
        constexpr bool distances = pass != Pass::bounds, bounds = pass != Pass::distances;
        using P = detail::Packet<A>;
        using Q = detail::Packet<R>;
        constexpr int parts = std::same_as<R, A> ? 1 : 2; // packets of A for one of R
        const P zero = A(0);
        const P lowest = -std::numeric_limits<A>::infinity(), minus_two = A(-2);
        const Q threshold = close<R>, floor = least<R>, none = R(0), one = R(1);
        // What a pass does not use is empty, and has no place.
        R* const squares = all_squares.empty() ? nullptr : all_squares.data() + first;
        const R* const slopes = all_slopes.empty() ? nullptr : all_slopes.data() + first;
        A* const alive = alive_.empty() ? nullptr : alive_.data() + first;
        P c[std::size_t(packets)], farthest[std::size_t(packets)];
        for (P& packet : c) packet = zero;
        for (P& packet : farthest) packet = lowest;
        for (std::size_t rank = 0; rank < steps_.size(); ++rank) {
            const Step& step = steps_[rank];
            const A* const products = gram.data() + step.key * gram.cols() + first;
            if (rank + 4 < steps_.size())
                detail::prefetch(gram.data() + steps_[rank + 4].key * gram.cols() + first, packets * P::size);
            // A selected key has the square -inf from here on: it is at distance 0 and never in doubt.
            if (step.key >= first && step.key < first + width) {
                if constexpr (distances) squares[step.key - first] = -std::numeric_limits<R>::infinity();
                if constexpr (bounds) alive[step.key - first] = -std::numeric_limits<A>::infinity();
            }
            const P weight = step.scaled_weight, own = bounds ? detail::at(norms_, step.key) : A(0);
            const Q length = static_cast<R>(step.scaled_length);
            auto doubt = none, roots = none;
#pragma GCC unroll 16
            for (int j = 0; j < packets; ++j) {
                const Index at = j * P::size;
                const P product = whole || at + P::size <= width ? P::load(products + at)
                                  : at < width ? P::load_partial(products + at, width - at, A(0))
                                               : zero;
                if constexpr (distances) c[j] = madd(weight, product, c[j]);
                if constexpr (bounds) farthest[j] = max(farthest[j], madd(minus_two, product, own));
            }
            if (step.to == not_asked) continue;
            if constexpr (bounds) {
                P reach = zero;
#pragma GCC unroll 16
                for (int j = 0; j < packets; ++j)
                    reach = max(reach, farthest[j] + P::load(alive + j * P::size));
                farthest_[step.to] = std::max(farthest_[step.to], reduce_max(reach));
            }
            if constexpr (!distances) continue;
#pragma GCC unroll 16
            for (int j = 0; j < packets / parts; ++j) {
                Q inner;
                if constexpr (parts == 2)
                    inner = detail::narrow(c[2 * j], c[2 * j + 1]);
                else
                    inner = c[j];
                const auto total = length + Q::load(squares + j * Q::size);
                const auto raw = madd(Q::load(slopes + j * Q::size), inner, total);
                doubt = select_below(raw, madd(threshold, total, floor), one, doubt);
                roots += sqrt(max(raw, none));
            }
            if (any_below(none, doubt)) [[unlikely]] {
                std::array<A, static_cast<std::size_t>(packets * P::size)> inner;
#pragma GCC unroll 16
                for (int j = 0; j < packets; ++j) c[j].store(inner.data() + j * P::size);
                curve_.cumulative[step.to] += add_one_by_one<R>(squares, slopes, inner, first, rank);
            } else {
                curve_.cumulative[step.to] += static_cast<A>(reduce_add(roots));
            }
        }
    }

    /// The sum of the roots of some columns, whose squares in doubt are remembered instead. inner: their c.
    template <class R>
    A add_one_by_one(const R* squares, const R* slopes, std::span<const A> inner, Index first,
                     std::size_t rank) {
        A sum = 0;
        for (Index i = 0; i < std::ssize(inner); ++i) {
            const R total = static_cast<R>(steps_[rank].scaled_length) + squares[i];
            const R raw = slopes[i] * static_cast<R>(detail::at(inner, i)) + total;
            if (raw < close<R> * total + least<R>)
                doubtful_.push_back({static_cast<Index>(rank), first + i});
            else
                sum += static_cast<A>(std::sqrt(std::max(raw, R(0))));
        }
        return sum;
    }

    template <class R, Pass pass>
    void for_columns(const Matrix<A>& gram, std::vector<R>& squares, const std::vector<R>& slopes) {
        constexpr Index most = packets_of<pass> * detail::Packet<A>::size;
        const Index n = std::ssize(weight_);
        for (Index first = 0; first < n; first += most) {
            const Index width = std::min<Index>(most, n - first);
            if (width == most)
                add_columns<R, pass, true>(gram, squares, slopes, first, width);
            else
                add_columns<R, pass, false>(gram, squares, slopes, first, width);
        }
    }

    /// All columns, and d(N) in the unit of the vectors.
    template <class R>
    void add_all(const Matrix<A>& gram, std::vector<R>& squares, std::vector<R>& slopes, A unit_x, A unit_y,
                 bool with_bounds) {
        const std::size_t size = weight_.size(), padded = (size + columns - 1) / columns * columns;
        for (Step& step : steps_) {
            step.scaled_weight = step.weight / unit_x / unit_y;
            step.scaled_length = step.length / unit_y / unit_y;
        }
        // Columns beyond the keys count as selected.
        squares.assign(padded, -std::numeric_limits<R>::infinity());
        slopes.assign(padded, R(0));
        for (std::size_t i = 0; i < size; ++i) {
            const A y = lengths_[i] / unit_y;
            squares[i] = static_cast<R>(y * y);
            slopes[i] = static_cast<R>(-2 * weight_[i] * (unit_x / unit_y));
        }
        if (with_bounds)
            for_columns<R, Pass::both>(gram, squares, slopes);
        else
            for_columns<R, Pass::distances>(gram, squares, slopes);
        for (A& distance : curve_.cumulative) distance *= unit_y;
    }

    /// Distances in doubt, one by one: the selections again in their order.
    void add_doubtful(const MatrixView<T>& x) {
        if (doubtful_.empty()) return;
        std::sort(doubtful_.begin(), doubtful_.end());
        s_.setZero(x.cols());
        std::size_t rank = 0;
        for (const auto& [at, key] : doubtful_) {
            for (; rank <= static_cast<std::size_t>(at); ++rank)
                s_ += steps_[rank].weight * vector(x, steps_[rank].key);
            curve_.cumulative[detail::at(steps_, at).to] +=
                (s_ - detail::at(weight_, key) * vector(x, key)).norm();
        }
    }

    /// Theorem 1(1): (1-A) d1 + max|x_j| sum |A - p_i|, with d1 from the Gram matrix: d1^2 is the largest |x_i|^2 +
    /// max_j (|x_j|^2 - 2 <x_i, x_j>) of a selected j and another i. False if the bounds are known already.
    bool begin_bounds(const Matrix<A>& gram) {
        norms_.resize(weight_.size());
        for (std::size_t i = 0; i < norms_.size(); ++i)
            norms_[i] = gram(static_cast<Index>(i), static_cast<Index>(i));
        // A token that is not finite stands on one side or the other; maxima would pass over it.
        if (const A sum = std::accumulate(norms_.begin(), norms_.end(), A(0)); !std::isfinite(sum)) {
            std::fill(curve_.bound.begin(), curve_.bound.end(), sum);
            if (curve_.bound.size() == norms_.size()) curve_.bound.back() = 0;
            return false;
        }
        // -inf of selected keys, and of columns beyond the last.
        alive_.assign((norms_.size() + columns - 1) / columns * columns, -std::numeric_limits<A>::infinity());
        std::copy(norms_.begin(), norms_.end(), alive_.begin());
        farthest_.assign(curve_.bound.size(), A(0));
        return true;
    }
    void end_bounds(const Matrix<A>& gram) {
        const A n = static_cast<A>(weight_.size());
        A longest = 0, count = 0;
        for (const Step& step : steps_) {
            longest = std::max(longest, gram(step.key, step.key));
            count += 1;
            if (step.to == not_asked) continue;
            const A tail = curve_.tail_mass[step.to], own = curve_.mass[step.to];
            curve_.bound[step.to] =
                tail * std::sqrt(farthest_[step.to]) + std::sqrt(longest) * std::abs(own * (n - count) - tail);
        }
    }

    DistanceCurve<A> curve_;
    std::vector<A> weight_, lengths_, slopes_, squares_, tail_;
    std::vector<A> norms_, alive_; ///< |x_i|^2; the same, -inf of keys that are selected by now
    std::vector<A> farthest_;      ///< d1^2 for each N
    std::vector<float> float_squares_, float_slopes_;
    std::vector<Step> steps_;
    std::vector<std::pair<Index, Index>> doubtful_; ///< rank, key
    Vector o_, s_;
    std::vector<Index> all_;
};

} // namespace v0_2
} // namespace attnscope
