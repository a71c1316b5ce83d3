// Precision and recall of the top-N selections of a row for every N at once.
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/separability.hpp>

namespace attnscope {
inline namespace v0_2 {

/// `Separability` of the top-N selections for some N in ascending order, one element for each, by Euclidean
/// distance. The geometric recall N_s/N of P (10) is `recall`.
template <Real A>
struct SeparabilityCurve {
    std::vector<A> nearest_other;     ///< min over the others of D_j; +inf if there are none
    std::vector<A> farthest_selected; ///< max over the selected of D_i
    std::vector<A> precision;         ///< N/(N + #{others: D_j <= farthest selected})
    std::vector<A> recall;            ///< #{selected: D_i < nearest other}/N
    std::vector<A> f_score;           ///< harmonic mean of both
};

/// The figures of many N from the Gram matrix of the token vectors.
/// Formula. D_i^2 = |s_N|^2 + |y_i|^2 - 2 p_i c_i, c_i = <s_N, x_i>, is compared without |s_N|^2, which is
/// alike for all keys. Wherever rounding leaves the order of two keys that matter open (exact ties are no
/// such case when they weigh nothing), that N is counted by `separability`, so that the counts are the same.
/// Inversions need the order of all keys and are left to it.
/// Cost. O(n) for each N up to the largest, about a fifth of it for those that are not asked for; O(n d + n
/// log n) for those that are counted apart; memory O(n) beyond the curve, kept from row to row.
template <Real T>
class SeparabilityCurves {
public:
    using A = Accumulator<T>;

    /// The figures for N = 1 ... n_max; arguments as in `DistanceCurves`.
    /// Special rows. A token or weight that is not finite, or whose square is not, leaves every figure NaN.
    /// Throws. `invalid_argument` when sizes do not fit.
    const SeparabilityCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                        std::span<const Index> order, Index n_max) {
        detail::require(n_max >= 0, "SeparabilityCurves", "n_max must be in [0, n]", n_max, p.size());
        all_.resize(static_cast<std::size_t>(n_max));
        std::iota(all_.begin(), all_.end(), Index(1));
        return compute(p, x, gram, order, std::span<const Index>(all_));
    }

    /// The same for some N.
    /// Throws. `invalid_argument` also unless `counts` ascend within [1, n].
    const SeparabilityCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                        std::span<const Index> order, std::span<const Index> counts) {
        const Index n = detail::size<T>(p);
        detail::require(x.rows() >= n && gram.rows() >= n && gram.cols() >= n &&
                            static_cast<Index>(order.size()) == n,
                        "SeparabilityCurves", "x, gram and order must cover the weights", x.rows(), gram.rows(),
                        order.size(), n);
        for (std::size_t at = 0; at < counts.size(); ++at)
            detail::require(counts[at] > (at > 0 ? counts[at - 1] : 0) && counts[at] <= n, "SeparabilityCurves",
                            "the N must ascend in [1, n]", counts[at], n);
        const auto size = static_cast<std::size_t>(n);
        constexpr A nan = std::numeric_limits<A>::quiet_NaN();
        for (auto* figure : {&curve_.nearest_other, &curve_.farthest_selected, &curve_.precision,
                             &curve_.recall, &curve_.f_score})
            figure->assign(counts.size(), nan);
        p_ = p;
        x_ = MatrixView<T>(x.data(), n, x.cols(), x.outer_stride());
        order_ = order;
        for (auto* row : {&inner_, &low_, &high_, &squares_, &lengths_, &slopes_}) row->assign(size, A(0));
        other_.assign(size, A(0));
        chosen_.assign(size, infinity);
        bool finite = true;
        for (std::size_t i = 0; i < size; ++i) {
            const A weight = A(p[i]), own = gram(static_cast<Index>(i), static_cast<Index>(i));
            lengths_[i] = weight * std::sqrt(own);
            squares_[i] = weight * weight * own;
            slopes_[i] = -2 * weight;
            finite = finite && std::isfinite(squares_[i]) && std::isfinite(own);
        }
        if (!finite) return curve_;
        s_.setZero(x.cols());
        A selected_length = 0;
        std::size_t rank = 0;
        for (std::size_t to = 0; to < counts.size(); ++rank) {
            const Index key = order[rank];
            const auto at = static_cast<std::size_t>(key);
            s_ += A(p[at]) * vector(key);
            selected_length += lengths_[at];
            other_[at] = infinity;
            chosen_[at] = 0;
            if (counts[to] == static_cast<Index>(rank + 1))
                add(gram, key, A(p[at]), rank, selected_length, to++);
            else
                add_inner(gram, key, A(p[at]));
        }
        return curve_;
    }

private:
    static constexpr A infinity = std::numeric_limits<A>::infinity();

    auto vector(Index i) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x_.row(i).data(), 1, x_.cols())
            .template cast<A>();
    }

    /// Ranges of what is compared, D^2 - |s|^2: certain to lie between the two.
    struct Extremes {
        A nearest_low, nearest_high;   ///< of the nearest other
        A farthest_low, farthest_high; ///< of the farthest selected
        A nearest, farthest;           ///< as computed
    };

    /// One more key in s, for an N that is not asked for.
    void add_inner(const Matrix<A>& gram, Index key, A weight) {
        using P = detail::Packet<A>;
        const P own = weight;
        const A* const products = gram.data() + key * gram.cols();
        detail::for_each_lane<A>(static_cast<Index>(p_.size()), [&](const auto& lane) {
            lane.store(inner_.data(), madd(own, lane(products, A(0)), lane(inner_.data(), A(0))));
        });
    }

    /// N = rank + 1, whose last key is `key`; element `to` of the curve.
    void add(const Matrix<A>& gram, Index key, A weight, std::size_t rank, A selected_length, std::size_t to) {
        using P = detail::Packet<A>;
        const Index n = static_cast<Index>(p_.size());
        // c_i is a sum of N inner products of d terms: |error of D^2 - |s|^2| <= k (|y|^2 + 2 |y| sum |y_j|).
        const A k = std::numeric_limits<A>::epsilon() * (static_cast<A>(rank) + static_cast<A>(x_.cols()) + 8);
        const P own = weight, unit = k, reach = 2 * k * selected_length;
        const A* const products = gram.data() + key * gram.cols();
        P nearest = infinity, nearest_low = nearest, nearest_high = nearest;
        P farthest = -infinity, farthest_low = farthest, farthest_high = farthest;
        detail::for_each_lane<A>(n, [&](const auto& lane) {
            const P c = madd(own, lane(products, A(0)), lane(inner_.data(), A(0)));
            lane.store(inner_.data(), c);
            const P square = lane(squares_.data(), A(0));
            const P offset = madd(lane(slopes_.data(), A(0)), c, square);
            const P error = madd(lane(lengths_.data(), A(0)), reach, unit * square);
            const P low = offset - error, high = offset + error;
            lane.store(low_.data(), low);
            lane.store(high_.data(), high);
            const P other = lane(other_.data(), infinity), chosen = lane(chosen_.data(), infinity);
            nearest = min(nearest, offset + other);
            nearest_low = min(nearest_low, low + other);
            nearest_high = min(nearest_high, high + other);
            farthest = max(farthest, offset - chosen);
            farthest_low = max(farthest_low, low - chosen);
            farthest_high = max(farthest_high, high - chosen);
        });
        const Extremes extremes{reduce_min(nearest_low),   reduce_min(nearest_high), reduce_max(farthest_low),
                                reduce_max(farthest_high), reduce_min(nearest),      reduce_max(farthest)};

        const P farthest_from = extremes.farthest_low, farthest_to = extremes.farthest_high,
                nearest_from = extremes.nearest_low, nearest_to = extremes.nearest_high, zero = A(0),
                one = A(1);
        P confused = zero, confused_perhaps = zero, recalled = zero, recalled_perhaps = zero;
        detail::for_each_lane<A>(n, [&](const auto& lane) {
            const P low = lane(low_.data(), A(0)), high = lane(high_.data(), A(0));
            const P other = lane(other_.data(), infinity), chosen = lane(chosen_.data(), infinity);
            const auto not_above = [&](P a, P limit) { return select_below(limit, a, zero, one); };
            const auto below = [&](P a, P limit) { return select_below(a, limit, one, zero); };
            confused += not_above(high + other, farthest_from);
            confused_perhaps += not_above(low + other, farthest_to);
            recalled += below(high + chosen, nearest_from);
            recalled_perhaps += below(low + chosen, nearest_to);
        });
        const A sure = reduce_add(confused), kept = reduce_add(recalled);
        if (sure != reduce_add(confused_perhaps) || kept != reduce_add(recalled_perhaps)) {
            one_by_one(rank, to);
            return;
        }
        const A count = static_cast<A>(rank + 1);
        set(to, length_of<true>(extremes.nearest, extremes.nearest_high),
            length_of<false>(extremes.farthest, extremes.farthest_low), count / (count + sure), kept / count);
    }

    /// D from D^2 - |s|^2 of the nearest other or farthest selected key; where |s|^2 cancels, the distances of
    /// all keys that may be the one.
    template <bool nearest>
    A length_of(A offset, A limit) const {
        if (offset == infinity) return infinity;
        const A whole = s_.squaredNorm(), square = whole + offset;
        if (!(square < A(1e-4) * whole)) return std::sqrt(std::max(square, A(0)));
        A result = nearest ? infinity : A(0);
        for (std::size_t i = 0; i < low_.size(); ++i) {
            if (nearest ? low_[i] + other_[i] > limit : high_[i] - chosen_[i] < limit) continue;
            const A distance = (s_ - A(p_[i]) * vector(static_cast<Index>(i))).norm();
            result = nearest ? std::min(result, distance) : std::max(result, distance);
        }
        return result;
    }

    void one_by_one(std::size_t rank, std::size_t to) {
        set_.assign(p_, x_, order_.first(rank + 1));
        const Separability<A> figures = separability(set_);
        set(to, figures.nearest_other, figures.farthest_selected, figures.precision, figures.recall);
    }

    void set(std::size_t to, A nearest, A farthest, A precision, A recall) {
        curve_.nearest_other[to] = nearest;
        curve_.farthest_selected[to] = farthest;
        curve_.precision[to] = precision;
        curve_.recall[to] = recall;
        const A sum = precision + recall;
        curve_.f_score[to] = sum > A(0) ? 2 * precision * recall / sum : sum;
    }

    SeparabilityCurve<A> curve_;
    RowIn<T> p_;
    MatrixView<T> x_;
    std::span<const Index> order_;
    /// c; the range of D^2 - |s|^2; |y|^2, |y|, -2p; +inf for selected keys and 0 for others, and the reverse.
    std::vector<A> inner_, low_, high_, squares_, lengths_, slopes_, other_, chosen_;
    Eigen::Matrix<A, 1, Eigen::Dynamic> s_;
    SelectedSet<T> set_;
    std::vector<Index> all_;
};

} // namespace v0_2
} // namespace attnscope
