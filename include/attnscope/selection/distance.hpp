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
    std::vector<A> bound;      ///< [N-1]: Theorem 1(1), sharp, for the cumulative reading
};

/// All top-N distances of a row at once, for N = 1 ... n_max, from the Gram matrix of its token vectors.
/// With c_i = <s_N, y_i>, |s_N - y_i|^2 = |s_N|^2 - 2 c_i + |y_i|^2 costs O(1) for each key and N. Where s_N
/// nearly equals y_i this cancels; below 1e-4 (|s|^2 + |y|^2) the distance is taken directly instead, so the
/// relative error stays near 1e-11. O(n n_max) plus O(n d) for each N; memory O(n) beyond the curve. Keeps its
/// memory.
template <Real T>
class DistanceCurves {
public:
    using A = detail::Accumulator<T>;

    /// p: weights of the visible keys, x their vectors, gram: `gram_matrix` of vectors that begin with x (its
    /// leading n x n block is read), order: ranking of the n keys. Throws `invalid_argument` when sizes do not
    /// fit.
    const DistanceCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                    std::span<const Index> order, Index n_max) {
        const Index n = detail::size<T>(p), d = x.cols();
        detail::require(x.rows() >= n && gram.rows() >= n && gram.cols() >= n &&
                            static_cast<Index>(order.size()) == n,
                        "DistanceCurves", "x, gram and order must cover the weights", x.rows(), gram.rows(),
                        order.size(), n);
        detail::require(n_max >= 0 && n_max <= n, "DistanceCurves", "n_max must be in [0, n]", n_max, n);
        using S = detail::Simd<A>;
        using P = typename S::P;
        const std::size_t size = static_cast<std::size_t>(n), count = static_cast<std::size_t>(n_max);
        for (auto* curve :
             {&curve_.cumulative, &curve_.resultant, &curve_.mass, &curve_.tail_mass, &curve_.bound})
            curve->assign(count, A(0));
        weight_.assign(p.begin(), p.end());
        c_.assign(size, A(0));
        farthest_.assign(size, A(0));
        alive_.assign(size, A(1));
        squares_.resize(size);
        norms_.resize(size);
        tail_.assign(size + 1, A(0));
        Vector o = Vector::Zero(d), s = Vector::Zero(d);
        for (std::size_t i = 0; i < size; ++i) {
            norms_[i] = gram(static_cast<Index>(i), static_cast<Index>(i));
            squares_[i] = weight_[i] * weight_[i] * norms_[i];
            o += weight_[i] * vector(x, static_cast<Index>(i));
        }
        for (std::size_t rank = size; rank-- > 0;)
            tail_[rank] = tail_[rank + 1] + weight_[static_cast<std::size_t>(order[rank])];

        A mass = 0, longest = 0;
        for (std::size_t rank = 0; rank < count; ++rank) {
            const Index key = order[rank];
            const auto at = static_cast<std::size_t>(key);
            const A own = weight_[at];
            const A* const products = gram.data() + key * gram.cols();
            alive_[at] = 0;
            mass += own;
            longest = std::max(longest, norms_[at]);
            s += own * vector(x, key);
            const A length = s.squaredNorm();
            const P w = S::set(own), square = S::set(length), two = S::set(A(2)), zero = S::set(A(0));
            const P own_norm = S::set(norms_[at]), threshold = S::set(A(1e-4));
            P reach = zero, doubt = zero;
            const auto sum = detail::sum_lanes<A, 1>(n, [&](const auto& lane) {
                const P alive = lane(alive_.data());
                const P product = lane(products);
                const P c = S::madd(S::mul(w, lane(weight_.data())), product, lane(c_.data()));
                lane.store(c_.data(), c);
                const P total = S::add(square, lane(squares_.data()));
                const P raw = S::sub(total, S::mul(two, c));
                // Non-selected keys that are too close for this formula are left to the direct one.
                const P limit = S::mul(threshold, total);
                const P safe = S::select_below(raw, limit, zero, alive);
                doubt = S::add(doubt, S::sub(alive, safe));
                const P distance = S::sqrt(S::max(raw, zero));
                // d1: the largest |x_i - x_j| over selected j, kept for each i, asked of the non-selected.
                const P apart = S::sub(S::add(own_norm, lane(norms_.data())), S::mul(two, product));
                const P far = S::max(lane(farthest_.data()), apart);
                lane.store(farthest_.data(), far);
                reach = S::max(reach, S::mul(far, alive));
                return detail::Packets<A, 1>{{S::mul(distance, safe)}};
            })[0];
            A distance = sum;
            if (S::reduce_add(doubt) > 0)
                for (std::size_t i = 0; i < size; ++i) {
                    const A total = length + squares_[i];
                    if (alive_[i] > 0 && total - 2 * c_[i] < A(1e-4) * total)
                        distance += (s - weight_[i] * vector(x, static_cast<Index>(i))).norm();
                }
            const A others = static_cast<A>(n) - static_cast<A>(rank + 1), tail = tail_[rank + 1];
            curve_.cumulative[rank] = distance;
            curve_.resultant[rank] = (o - 2 * s).norm();
            curve_.mass[rank] = mass;
            curve_.tail_mass[rank] = tail;
            curve_.bound[rank] =
                tail * std::sqrt(S::reduce_max(reach)) + std::sqrt(longest) * std::abs(mass * others - tail);
        }
        return curve_;
    }

private:
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    static auto vector(const MatrixView<T>& x, Index i) {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x.row(i).data(), 1, x.cols())
            .template cast<A>();
    }

    DistanceCurve<A> curve_;
    std::vector<A> weight_, c_, farthest_, alive_, squares_, norms_, tail_;
};

} // namespace v0_1
} // namespace attnscope
