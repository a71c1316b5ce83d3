// The distance between what a selection keeps and what it leaves, in both readings of the paper's definition
// (7).
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/selected_set.hpp>

namespace attnscope {
inline namespace v0_1 {

/// The two readings of P (7), "cumulative distance between s and all non-selected embeddings".
enum class Reading {
    cumulative, ///< d = sum_{i not in I} |s - y_i|
    resultant   ///< d' = |sum_{i not in I} y_i - s|
};
constexpr std::string_view name_of(Reading reading) {
    return reading == Reading::cumulative ? "cumulative" : "resultant";
}

/// d(I) in one reading; with everything selected 0 (cumulative: nobody is left) or |s| (resultant). `set` uses
/// the Euclidean metric. O(n), respectively O(d).
template <Real T>
detail::Accumulator<T> selection_distance(const SelectedSet<T>& set, Reading reading = Reading::cumulative) {
    if (reading == Reading::resultant) return (set.remainder() - set.context()).norm();
    detail::Accumulator<T> sum = 0;
    for (Index i = 0; i < set.size(); ++i)
        if (!set.contains(i)) sum += set.distance(i);
    return sum;
}

/// Inner products <x_i, x_j> of the token vectors of one head in double, computed once and shared by its rows.
template <Real T>
Matrix<detail::Accumulator<T>> gram_matrix(MatrixView<T> x) {
    using A = detail::Accumulator<T>;
    const Matrix<A> wide = x.map().template cast<A>();
    Matrix<A> gram(x.rows(), x.rows());
    gram.noalias() = wide * wide.transpose();
    return gram;
}

/// What a row's top-N selections look like for N = 1, 2, ..., in the order of a ranking.
template <Real A>
struct DistanceCurve {
    std::vector<A> cumulative; ///< [N-1]: d(N)
    std::vector<A> resultant;  ///< [N-1]: d'(N)
    std::vector<A> mass;       ///< [N-1]: A_N
    std::vector<A> tail_mass;  ///< [N-1]: mass of the others
    /// [N-1]: Theorem 1(1), sharp, for the cumulative reading, with d1 to 1e-7 max|x_i| or so; empty unless
    /// asked for.
    std::vector<A> bound;
};

/// All top-N distances of a row at once, for N = 1 ... n_max, from the Gram matrix of its token vectors.
/// With c_i = <s_N, x_i>, |s_N - y_i|^2 = |s_N|^2 - 2 p_i c_i + |y_i|^2 costs O(1) for each key and N. Where
/// s_N nearly equals y_i this cancels; below 1e-4 (|s|^2 + |y|^2) the distance is taken directly instead, so
/// that the squares keep 1e-11 relative. Everything is kept in double; for float input the square roots are
/// taken in float, which leaves d(N) exact to 4e-6. O(n n_max) plus O(d) for each N; memory O(n) beyond the
/// curve, kept from row to row.
template <Real T>
class DistanceCurves {
public:
    using A = detail::Accumulator<T>;

    /// p: weights of the visible keys, x their vectors, gram: `gram_matrix` of vectors that begin with x (its
    /// leading n x n block is read), order: ranking of the n keys; with_bound: also `bound`, at about twice the
    /// cost. Throws `invalid_argument` when sizes do not fit.
    const DistanceCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                    std::span<const Index> order, Index n_max, bool with_bound = false) {
        const Index n = detail::size<T>(p), d = x.cols();
        detail::require(x.rows() >= n && gram.rows() >= n && gram.cols() >= n &&
                            static_cast<Index>(order.size()) == n,
                        "DistanceCurves", "x, gram and order must cover the weights", x.rows(), gram.rows(),
                        order.size(), n);
        detail::require(n_max >= 0 && n_max <= n, "DistanceCurves", "n_max must be in [0, n]", n_max, n);
        const std::size_t size = static_cast<std::size_t>(n), count = static_cast<std::size_t>(n_max);
        for (auto* curve : {&curve_.cumulative, &curve_.resultant, &curve_.mass, &curve_.tail_mass})
            curve->assign(count, A(0));
        curve_.bound.assign(with_bound ? count : 0, A(0));
        weight_.assign(p.begin(), p.end());
        c_.assign(size, A(0));
        squares_.resize(size);
        raw_.resize(size);
        roots_.resize(size);
        tail_.assign(size + 1, A(0));
        o_.setZero(d);
        s_.setZero(d);
        for (std::size_t i = 0; i < size; ++i) {
            squares_[i] = weight_[i] * weight_[i] * gram(static_cast<Index>(i), static_cast<Index>(i));
            o_ += weight_[i] * vector(x, static_cast<Index>(i));
        }
        for (std::size_t rank = size; rank-- > 0;)
            tail_[rank] = tail_[rank + 1] + weight_[static_cast<std::size_t>(order[rank])];

        A mass = 0;
        for (std::size_t rank = 0; rank < count; ++rank) {
            const Index key = order[rank];
            const auto at = static_cast<std::size_t>(key);
            mass += weight_[at];
            s_ += weight_[at] * vector(x, key);
            // A selected key has the square -inf from here on: it is at distance 0 and never in doubt.
            const A own = weight_[at];
            squares_[at] = -std::numeric_limits<A>::infinity();
            curve_.cumulative[rank] = distance_to_others(x, gram.data() + key * gram.cols(), own);
            curve_.resultant[rank] = (o_ - 2 * s_).norm();
            curve_.mass[rank] = mass;
            curve_.tail_mass[rank] = tail_[rank + 1];
        }
        if (with_bound) bounds(gram, order);
        return curve_;
    }

private:
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    static auto vector(const MatrixView<T>& x, Index i) {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x.row(i).data(), 1, x.cols())
            .template cast<A>();
    }

    /// d(N) after the key with weight `own` and inner products `products` has joined s_.
    A distance_to_others(const MatrixView<T>& x, const A* products, A own) {
        using S = detail::Simd<A>;
        using P = typename S::P;
        const Index n = static_cast<Index>(weight_.size());
        const A length = s_.squaredNorm();
        const P w = S::set(own), square = S::set(length), minus_two = S::set(A(-2)), zero = S::set(A(0)),
                one = S::set(A(1)), threshold = S::set(A(1e-4));
        P doubt = zero;
        detail::for_each_lane<A>(n, [&](const auto& lane) {
            const P c = S::madd(w, lane(products, A(0)), lane(c_.data(), A(0)));
            lane.store(c_.data(), c);
            const P total = S::add(square, lane(squares_.data(), -std::numeric_limits<A>::infinity()));
            const P raw = S::madd(S::mul(minus_two, lane(weight_.data(), A(0))), c, total);
            const P limit = S::mul(threshold, total);
            doubt = S::add(doubt, S::select_below(raw, limit, one, zero));
            lane.store(raw_.data(), S::select_below(raw, limit, zero, S::max(raw, zero)));
        });
        A distance = 0;
        if constexpr (std::same_as<T, float>) {
            const A scale = length > A(0) ? 1 / length : A(1);
            for (std::size_t i = 0; i < raw_.size(); ++i) roots_[i] = static_cast<T>(raw_[i] * scale);
            distance = sum_of_roots<T>(roots_.data(), n) / std::sqrt(scale);
            // |s| is far below the others: their squares in its units leave float's range.
            if (!std::isfinite(distance)) distance = sum_of_roots<A>(raw_.data(), n);
        } else {
            distance = sum_of_roots<A>(raw_.data(), n);
        }
        if (S::reduce_add(doubt) > 0)
            for (std::size_t i = 0; i < weight_.size(); ++i) {
                const bool selected = squares_[i] == -std::numeric_limits<A>::infinity();
                if (!selected && raw_[i] == A(0))
                    distance += (s_ - weight_[i] * vector(x, static_cast<Index>(i))).norm();
            }
        return distance;
    }

    template <Real R>
    static A sum_of_roots(const R* squares, Index n) {
        return static_cast<A>(detail::sum_lanes<R, 1>(n, [&](const auto& lane) {
            return detail::Packets<R, 1>{{detail::Simd<R>::sqrt(lane(squares, R(0)))}};
        })[0]);
    }

    /// Theorem 1(1): (1-A) d1 + max|x_j| sum |A - p_i|, with d1 from the Gram matrix.
    void bounds(const Matrix<A>& gram, std::span<const Index> order) {
        using S = detail::Simd<A>;
        using P = typename S::P;
        const Index n = static_cast<Index>(order.size());
        farthest_.assign(order.size(), A(0)); // largest |x_i - x_j|^2 over the selected j
        norms_.resize(order.size());
        alive_.assign(order.size(), A(1));
        for (Index i = 0; i < n; ++i) norms_[static_cast<std::size_t>(i)] = gram(i, i);
        A longest = 0;
        for (std::size_t rank = 0; rank < curve_.bound.size(); ++rank) {
            const Index key = order[rank];
            const A* const products = gram.data() + key * gram.cols();
            longest = std::max(longest, gram(key, key));
            alive_[static_cast<std::size_t>(key)] = 0;
            const P own = S::set(gram(key, key)), minus_two = S::set(A(-2));
            P reach = S::set(A(0));
            detail::for_each_lane<A>(n, [&](const auto& lane) {
                const P apart =
                    S::madd(minus_two, lane(products, A(0)), S::add(own, lane(norms_.data(), A(0))));
                const P far = S::max(lane(farthest_.data(), A(0)), apart);
                lane.store(farthest_.data(), far);
                reach = S::max(reach, S::mul(far, lane(alive_.data(), A(0))));
            });
            const A others = static_cast<A>(n) - static_cast<A>(rank + 1), tail = curve_.tail_mass[rank];
            curve_.bound[rank] = tail * std::sqrt(S::reduce_max(reach)) +
                                 std::sqrt(longest) * std::abs(curve_.mass[rank] * others - tail);
        }
    }

    DistanceCurve<A> curve_;
    std::vector<A> weight_, c_, squares_, raw_, tail_, farthest_, norms_, alive_;
    std::vector<T> roots_;
    Vector o_, s_;
};

} // namespace v0_1
} // namespace attnscope
