// Moments of the distance of a uniformly random set of N keys of one row, without drawing any.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/distance.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Sums over one row from which the moments of the distance of a uniformly random N-subset follow.
template <Real T>
class RandomSubsetMoments {
public:
    using A = Accumulator<T>;

    /// Shapes and units. p: weights of the visible keys, x [n, d]; both must outlive it.
    /// Cost. O(n d).
    /// Throws. `invalid_argument` when sizes do not fit.
    RandomSubsetMoments(RowIn<T> p, MatrixView<T> x) : p_(p), x_(x) {
        detail::require(x.rows() == detail::size<T>(p), "RandomSubsetMoments",
                        "x must have one row for each weight", x.rows(), p.size());
        sum_.setZero(x.cols());
        squares_.resize(p.size());
        Row copy(x.cols());
        for (Index i = 0; i < x.rows(); ++i) {
            const auto y = wide(i, copy) * A(detail::at(p, i));
            sum_ += y;
            detail::at(squares_, i) = y.squaredNorm();
            total_squares_ += detail::at(squares_, i);
            length_ += std::sqrt(detail::at(squares_, i));
        }
        sum_square_ = sum_.squaredNorm();
        products_.resize(p.size());
        for (Index i = 0; i < x.rows(); ++i)
            detail::at(products_, i) = A(detail::at(p, i)) * wide(i, copy).dot(sum_);
    }

    /// Range of E d for the cumulative reading over uniformly random N-subsets, P Theorem 1(2) made rigorous.
    /// Formula. (L-N)/L sum mu_i <= E d <= (L-N)/L sum sqrt(mu_i^2 + V_i), mu_i = |y_i - N/(L-1) S_i|, S_i =
    /// sum_{j != i} y_j, V_i = N(L-1-N)/((L-1)(L-2)) (sum_{j != i} |y_j|^2 - |S_i|^2/(L-1)). The lower end is
    /// the paper's main sum, (L-N)(L+N-1)/(L(L-1)) sum |y_i - N/(L+N-1) o|. V_i = 0 for L <= 2; {0, 0} at N =
    /// L.
    /// R: the scalar in which roots are taken. With float rows and R = float both ends are exact to 5e-6, in less than
    /// half the time.
    /// Cost. O(L), and O(d) for each key whose squares cancel.
    /// Throws. `invalid_argument` unless 0 <= N <= L.
    template <Real R = A>
    Interval<A> expected_distance(Index selected) const {
        const Index n = x_.rows();
        detail::require(selected >= 0 && selected <= n, "RandomSubsetMoments::expected_distance",
                        "N must be in [0, L]", selected, n);
        if (selected == n) return {A(0), A(0)};
        constexpr bool narrow = std::same_as<R, float> && std::same_as<A, double> && detail::can_narrow;
        // In this unit no term exceeds 9, and one that underflows in float is none of the sum's digits.
        const A unit = narrow ? std::max(total_squares_, sum_square_) : A(1);
        if (narrow && !(unit > A(1e-250) && unit < A(1e250))) return expected_distance<A>(selected);
        const A l = static_cast<A>(n), count = static_cast<A>(selected);
        const A share = n > 1 ? count / (l - 1) : A(0);
        const A variance = n > 2 ? count * (l - 1 - count) / ((l - 1) * (l - 2)) : A(0);
        Interval<A> sum{A(0), A(0)};
        const auto add_key = [&](Index i) {
            const auto at = static_cast<std::size_t>(i);
            const A mean = mean_square(i, share);
            const A others = sum_square_ - 2 * products_[at] + squares_[at]; // |S_i|^2
            const A spread = n > 2 ? std::max(A(0), total_squares_ - squares_[at] - others / (l - 1)) : A(0);
            sum.lower += std::sqrt(mean);
            sum.upper += std::sqrt(mean + variance * spread);
        };
        using P = detail::Packet<A>;
        using Q = detail::Packet<std::conditional_t<narrow, float, A>>;
        const P own_factor = (1 + share) * (1 + share), cross = -2 * share * (1 + share),
                all = share * share * sum_square_, close = cancelled, zero = A(0), factor = variance,
                total = total_squares_, square = sum_square_, inverse = n > 1 ? 1 / (l - 1) : A(0),
                minus_two = A(-2), scale = 1 / unit;
        struct Squares {
            P mean, around; ///< mu_i^2, mu_i^2 + V_i
        };
        bool cancels = false;
        const auto squares_at = [&](Index i) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            const P q = P::load(squares_.data() + i), b = P::load(products_.data() + i);
            const P whole = madd(own_factor, q, all), mean = madd(cross, b, whole);
            cancels = any_below(mean, close * whole);
            const P others = madd(minus_two, b, square) + q;
            const P spread = max(zero, total - q - others * inverse);
            return Squares{mean, madd(factor, spread, mean)};
        };
        const A root = std::sqrt(unit);
        constexpr Index block = 64 * Q::size; // as many terms a lane are added up in R
        Index i = 0;
        while (i + Q::size <= n) {
            Q lower = typename Q::Scalar(0), upper = lower;
            for (const Index end = i + block; i < end && i + Q::size <= n; i += Q::size) {
                const Squares first = squares_at(i);
                bool any = cancels;
                if constexpr (narrow) {
                    const Squares second = squares_at(i + P::size);
                    any = any || cancels;
                    if (!any) [[likely]] {
                        lower += sqrt(detail::narrow(first.mean * scale, second.mean * scale));
                        upper += sqrt(detail::narrow(first.around * scale, second.around * scale));
                    }
                } else if (!any) [[likely]] {
                    lower += sqrt(first.mean);
                    upper += sqrt(first.around);
                }
                for (Index j = i; any && j < i + Q::size; ++j) add_key(j);
            }
            sum.lower += root * static_cast<A>(reduce_add(lower));
            sum.upper += root * static_cast<A>(reduce_add(upper));
        }
        for (; i < n; ++i) add_key(i);
        const A left = (l - count) / l;
        return {left * sum.lower, left * std::max(sum.lower, sum.upper)};
    }

    /// The cap on E d, cumulative.
    /// Formula. (N+1)(1-N/L) sum |y_i|.
    /// Cost. O(1).
    A expected_distance_cap(Index selected) const {
        const A l = static_cast<A>(x_.rows()), count = static_cast<A>(selected);
        return (count + 1) * (1 - count / l) * length_;
    }

    /// E d'^2 of the resultant, exactly: (1-c) A + c B, A = sum |y_i|^2, B = |sum y_i|^2,
    /// c = ((L-2N)^2 - L)/(L(L-1)), 0 for L = 1.
    A resultant_second_moment(Index selected) const {
        const A l = static_cast<A>(x_.rows()), gap = l - 2 * static_cast<A>(selected);
        const A c = x_.rows() > 1 ? (gap * gap - l) / (l * (l - 1)) : A(0);
        return (1 - c) * total_squares_ + c * sum_square_;
    }

    /// E sum_{i not in I} |s - y_i|^2, exactly: (L-N)/L [(N+1) A + N(N-3)/(L-1) (B-A)].
    A cumulative_second_moment(Index selected) const {
        const A l = static_cast<A>(x_.rows()), count = static_cast<A>(selected);
        const A cross = x_.rows() > 1 ? count * (count - 3) / (l - 1) * (sum_square_ - total_squares_) : A(0);
        return (l - count) / l * ((count + 1) * total_squares_ + cross);
    }

    /// sum_i |y_i|: where P Corollary 2(i) sees E d going as L grows at fixed N.
    A total_length() const { return length_; }
    /// sum_i |y_i - (N/L) o|, o = sum y_i: where the main sum really goes.
    A main_sum_limit(Index selected) const {
        const A share = static_cast<A>(selected) / static_cast<A>(x_.rows());
        A sum = 0;
        for (Index i = 0; i < x_.rows(); ++i) sum += (weighted(i) - share * sum_).norm();
        return sum;
    }
    /// |o|
    A output_length() const { return std::sqrt(sum_square_); }
    Index size() const { return x_.rows(); }
    RowIn<T> weights() const { return p_; }
    const MatrixView<T>& vectors() const { return x_; }

    /// Rounding error of a sum of L distances of vectors of these lengths.
    A tolerance(Index selected) const {
        const A l = static_cast<A>(x_.rows()), count = static_cast<A>(selected);
        // The cancelled squares are exact to eps (|y|+|s|)^2 and direct below 1e-4 of it: sqrt costs a factor
        // 100.
        return 100 * std::numeric_limits<A>::epsilon() * (l + static_cast<A>(x_.cols()) + 8) * (1 + count) *
               length_;
    }

private:
    using Row = Eigen::Matrix<A, 1, Eigen::Dynamic>;

    /// Share of its terms below which a square is taken from the vectors.
    static constexpr A cancelled = A(1e-4);

    /// mu_i^2 = |(1+a) y_i - a o|^2 for a = N/(L-1).
    A mean_square(Index i, A a) const {
        const auto at = static_cast<std::size_t>(i);
        const A own = (1 + a) * (1 + a) * squares_[at], all = a * a * sum_square_;
        const A value = own - 2 * a * (1 + a) * products_[at] + all;
        // Where the two vectors nearly agree the products cancel.
        if (value < cancelled * (own + all)) return ((1 + a) * weighted(i) - a * sum_).squaredNorm();
        return value;
    }
    /// x_i, in `copy` if it is of another scalar: Eigen does not vectorise what also converts.
    Eigen::Map<const Row> wide(Index i, Row& copy) const {
        if constexpr (std::same_as<T, A>) {
            return {x_.row(i).data(), x_.cols()};
        } else {
            std::copy_n(x_.row(i).data(), x_.cols(), copy.data());
            return {copy.data(), x_.cols()};
        }
    }
    auto vector(Index i) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x_.row(i).data(), 1, x_.cols())
            .template cast<A>();
    }
    auto weighted(Index i) const { return vector(i) * A(detail::at(p_, i)); }

    RowIn<T> p_;
    MatrixView<T> x_;
    Row sum_;
    std::vector<A> squares_, products_;
    A total_squares_ = 0, sum_square_ = 0, length_ = 0;
};

} // namespace v0_2
} // namespace attnscope
