// Moments of the distance of a uniformly random set of N keys of one row, without drawing any.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/distance.hpp>

#include <variant>

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
        const A l = static_cast<A>(x.rows());
        spreads_.resize(p.size());
        for (std::size_t i = 0; i < p.size() && p.size() > 2; ++i) {
            const A others = sum_square_ - 2 * products_[i] + squares_[i]; // |S_i|^2
            spreads_[i] = std::max(A(0), total_squares_ - squares_[i] - others / (l - 1));
        }
        if constexpr (std::same_as<T, float>) narrow_.assign(*this);
    }

    /// Range of E d for the cumulative reading over uniformly random N-subsets, P Theorem 1(2) made rigorous.
    /// Formula. (L-N)/L sum mu_i <= E d <= (L-N)/L sum sqrt(mu_i^2 + V_i), mu_i = |y_i - N/(L-1) S_i|, S_i =
    /// sum_{j != i} y_j, V_i = N(L-1-N)/((L-1)(L-2)) (sum_{j != i} |y_j|^2 - |S_i|^2/(L-1)). The lower end is
    /// the paper's main sum, (L-N)(L+N-1)/(L(L-1)) sum |y_i - N/(L+N-1) o|. V_i = 0 for L <= 2; {0, 0} at N =
    /// L.
    /// R: the scalar that is calculated in. With float rows and R = float both ends are exact to 5e-6, in less than
    /// half the time.
    /// Cost. O(L), and O(d) for each key whose squares cancel.
    /// Throws. `invalid_argument` unless 0 <= N <= L.
    template <Real R = A>
    Interval<A> expected_distance(Index selected) const {
        const Index n = x_.rows();
        detail::require(selected >= 0 && selected <= n, "RandomSubsetMoments::expected_distance",
                        "N must be in [0, L]", selected, n);
        if (selected == n) return {A(0), A(0)};
        const A l = static_cast<A>(n), count = static_cast<A>(selected);
        const A share = n > 1 ? count / (l - 1) : A(0);
        const A variance = n > 2 ? count * (l - 1 - count) / ((l - 1) * (l - 2)) : A(0);
        Interval<A> sum{A(0), A(0)};
        const auto add_key = [&](Index i) {
            const auto at = static_cast<std::size_t>(i);
            const A mean = mean_square(i, share);
            sum.lower += std::sqrt(mean);
            sum.upper += std::sqrt(mean + variance * spreads_[at]);
        };
        const auto add_all = [&]<class S>(const S* squares, const S* products, const S* spreads, A unit,
                                          A least) {
            // Squares below this share of their terms have lost too many digits.
            using P = detail::Packet<S>;
            const P own_factor = static_cast<S>((1 + share) * (1 + share)),
                    cross = static_cast<S>(-2 * share * (1 + share)),
                    all = static_cast<S>(share * share * (sum_square_ / unit)), close = static_cast<S>(least),
                    factor = static_cast<S>(variance);
            const A root = std::sqrt(unit);
            constexpr Index block = 64 * P::size; // as many terms a lane are added up in S
            Index i = 0;
            while (i + P::size <= n) {
                P lower = S(0), upper = lower;
                for (const Index end = i + block; i < end && i + P::size <= n; i += P::size) {
                    const P whole = madd(own_factor, P::load(squares + i), all),
                            mean = madd(cross, P::load(products + i), whole);
                    if (any_below(mean, close * whole)) [[unlikely]] {
                        for (Index j = i; j < i + P::size; ++j) add_key(j);
                        continue;
                    }
                    lower += sqrt(mean);
                    upper += sqrt(madd(factor, P::load(spreads + i), mean));
                }
                sum.lower += root * static_cast<A>(reduce_add(lower));
                sum.upper += root * static_cast<A>(reduce_add(upper));
            }
            for (; i < n; ++i) add_key(i);
        };
        bool narrow = false;
        if constexpr (std::same_as<R, float> && std::same_as<T, float>) {
            narrow = narrow_.unit > A(0);
            if (narrow) // 7 roundings of 2^-24 each, of which a root keeps half
                add_all(narrow_.squares.data(), narrow_.products.data(), narrow_.spreads.data(), narrow_.unit,
                        A(1) / 16);
        }
        if (!narrow) add_all(squares_.data(), products_.data(), spreads_.data(), A(1), cancelled);
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
    std::vector<A> squares_, products_, spreads_; ///< |y_i|^2, <y_i, o>, sum_{j != i} |y_j|^2 - |S_i|^2/(L-1)
    /// The same in float and in a unit of which no term exceeds 4, so that one that underflows is none of a sum's digits.
    struct Narrow {
        std::vector<float> squares, products, spreads;
        A unit = 0; ///< 0: out of range
        void assign(const RandomSubsetMoments& row) {
            const A largest = std::max(row.total_squares_, row.sum_square_);
            if (!(largest > A(1e-250) && largest < A(1e250))) return;
            unit = largest;
            const A inverse = 1 / unit;
            const auto narrowed = [&](const std::vector<A>& from, std::vector<float>& to) {
                to.resize(from.size());
                for (std::size_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i] * inverse);
            };
            narrowed(row.squares_, squares);
            narrowed(row.products_, products);
            narrowed(row.spreads_, spreads);
        }
    };
    std::conditional_t<std::same_as<T, float>, Narrow, std::monostate> narrow_;
    A total_squares_ = 0, sum_square_ = 0, length_ = 0;
};

} // namespace v0_2
} // namespace attnscope
