// The mean distance of a uniformly random set of N keys of one row, from both sides, without drawing any.
#pragma once

#include <attnscope/selection/subset_moments.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Narrow limits of E d, cumulative, over uniformly random N-subsets of one row. Never wider than
/// `RandomSubsetMoments::expected_distance`.
/// Formula. Given that i is not in I, either the longest y_m (the first of equals) is, with probability N/(L-1),
/// or not, and the others in I are a uniformly random set of the L-2 left. In each case, with S = s - y_i,
/// m2 = E|S|^2, m4 = E|S|^4, max{|E S|, m2^{3/2}/m4^{1/2}} <= E|S| <= m2^{1/2} (Jensen; Hoelder with the exponents
/// 3/2 and 3). What is computed of m2 and m4 counts as smaller or larger by its rounding.
template <Real T>
class SubsetDistance {
public:
    using A = Accumulator<T>;

    /// `moments` must outlive this.
    /// Cost. O(L d^2).
    explicit SubsetDistance(const RandomSubsetMoments<T>& moments) : moments_(&moments) {
        const MatrixView<T>& x = moments.vectors();
        const Index n = x.rows();
        Matrix<A> y(n, x.cols()); // in units of the longest
        for (Index i = 0; i < n; ++i)
            y.row(i) = x.map().row(i).template cast<A>() * A(detail::at(moments.weights(), i));
        if (n == 0) return;
        const auto squares = y.rowwise().squaredNorm().eval();
        const A largest = squares.maxCoeff();
        unit_ = std::sqrt(largest);
        if (!(unit_ > A(0)) || !std::isfinite(unit_)) return;
        // The first that is as long to rounding, so that the order of additions does not choose.
        const A least = largest * (1 - 4 * std::numeric_limits<A>::epsilon() * static_cast<A>(x.cols() + 8));
        Index longest = 0;
        while (!(squares(longest) >= least)) ++longest;
        y /= unit_;
        const Vector apart = y.row(longest);
        y.row(longest).setZero(); // the population is without it
        const Vector sum = y.colwise().sum();
        const Matrix<A> second = y.transpose() * y;
        const auto own = y.rowwise().squaredNorm().eval();
        const Vector third = (y.array().colwise() * own.array()).matrix().colwise().sum();
        const Vector turned = sum * second, apart_turned = apart * second;
        population_ = {.size = static_cast<A>(n - 1),
                       .squares = own.sum(),
                       .sum_square = sum.squaredNorm(),
                       .fourth = own.squaredNorm(),
                       .second_square = second.squaredNorm(),
                       .third_sum = third.dot(sum),
                       .quadratic = turned.dot(sum),
                       .length = own.cwiseSqrt().sum(),
                       .longest = std::sqrt(own.maxCoeff())};
        longest_ = vector(apart.squaredNorm(), apart.dot(sum), apart_turned.dot(apart), apart.dot(turned),
                          third.dot(apart));
        for (Index i = 0; i < n; ++i) {
            if (i == longest) continue;
            const auto row = y.row(i);
            keys_.push_back(
                {vector(own(i), row.dot(sum), row.dot(row * second), row.dot(turned), row.dot(third)),
                 row.dot(apart), row.dot(apart_turned)});
        }
        rounding_ = 32 * std::numeric_limits<A>::epsilon() * static_cast<A>(n + x.cols() + 8);
    }

    /// Cost. O(L).
    /// Throws. `invalid_argument` unless 0 <= N <= L.
    Interval<A> operator()(Index selected) const {
        Interval<A> range = moments_->expected_distance(selected);
        const A l = static_cast<A>(moments_->size()), count = static_cast<A>(selected);
        if (!(rounding_ > A(0)) || selected == moments_->size()) return range;
        Interval<A> sum = length_range(population_, negative(longest_), count);
        const A drawn = count / std::max(l - 1, A(1)); // the longest, given that i is not
        for (const Key& key : keys_) {
            const Population rest = without(key);
            if (selected >= 1) add(sum, drawn, length_range(rest, offset(key, true), count - 1));
            if (selected + 1 < moments_->size())
                add(sum, 1 - drawn, length_range(rest, offset(key, false), count));
        }
        const A scale = unit_ * (l - count) / l;
        return {std::max(range.lower, scale * sum.lower), std::min(range.upper, scale * sum.upper)};
    }

private:
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    /// Sums over vectors y: S = sum y, C = sum y y^T, t = sum |y|^2 y.
    struct Population {
        A size, squares; ///< sum |y|^2
        A sum_square;    ///< |S|^2
        A fourth;        ///< sum |y|^4
        A second_square; ///< |C|_F^2
        A third_sum;     ///< t.S
        A quadratic;     ///< S.CS
        A length;        ///< at least sum |y|
        A longest;       ///< at least every |y|
    };
    /// What a vector b is to them.
    struct Products {
        A square;         ///< |b|^2
        A sum;            ///< b.S
        A second, turned; ///< b.Cb, b.CS
        A third;          ///< b.t
    };
    struct Key {
        Products own;
        A apart, apart_second; ///< y_i.y_m, y_i.C y_m
    };
    static Products vector(A square, A sum, A second, A turned, A third) {
        return {square, sum, second, turned, third};
    }
    static Products negative(const Products& b) { return {b.square, -b.sum, b.second, -b.turned, -b.third}; }

    /// The population without y_i.
    Population without(const Key& key) const {
        const Population& all = population_;
        const Products& y = key.own;
        const A inner = y.sum - y.square; // y_i.S without y_i
        return {.size = all.size - 1,
                .squares = all.squares - y.square,
                .sum_square = all.sum_square - 2 * y.sum + y.square,
                .fourth = all.fourth - y.square * y.square,
                .second_square = all.second_square - 2 * y.second + y.square * y.square,
                .third_sum = all.third_sum - y.third - y.square * inner,
                .quadratic = all.quadratic - 2 * y.turned + y.second - inner * inner,
                .length = all.length,
                .longest = all.longest};
    }

    /// b = y_m - y_i or -y_i, to the population without y_i.
    Products offset(const Key& key, bool with_longest) const {
        const Products& y = key.own;
        const A e = with_longest ? 1 : 0;
        const A inner = y.sum - y.square, own = e * key.apart - y.square;         // b.y_i
        const A second = e * (longest_.second - 2 * key.apart_second) + y.second; // b.Cb with y_i in C
        const A cross = e * key.apart_second - y.second;                          // b.C y_i likewise
        return {.square = e * (longest_.square - 2 * key.apart) + y.square,
                .sum = e * (longest_.sum - key.apart) - inner,
                .second = second - own * own,
                .turned = e * longest_.turned - y.turned - cross - own * inner,
                .third = e * longest_.third - y.third - y.square * own};
    }

    /// E|b + X| for the sum X of `count` vectors drawn without replacement.
    Interval<A> length_range(const Population& y, const Products& b, A count) const {
        // Probabilities that one, two, three, four given vectors are drawn.
        const A p1 = y.size > 0 ? count / y.size : A(0);
        const A p2 = y.size > 1 ? p1 * (count - 1) / (y.size - 1) : A(0);
        const A p3 = y.size > 2 ? p2 * (count - 2) / (y.size - 2) : A(0);
        const A p4 = y.size > 3 ? p3 * (count - 3) / (y.size - 3) : A(0);
        // |X|^2 and |X|^4 by how many of their two and four indices are different vectors.
        const A square = p1 * y.squares + p2 * (y.sum_square - y.squares);
        const A a = y.fourth;
        const A two = 4 * (y.third_sum - a) + (y.squares * y.squares - a) + 2 * (y.second_square - a);
        const A three = 2 * (y.squares * y.sum_square - 2 * y.third_sum - y.squares * y.squares + 2 * a) +
                        4 * (y.quadratic - 2 * y.third_sum - y.second_square + 2 * a);
        const A four = y.sum_square * y.sum_square - a - two - three;
        const A fourth = p1 * a + p2 * two + p3 * three + p4 * four;
        // b.X, (b.X)^2 and b.X |X|^2.
        const A mean = p1 * b.sum, inner = p1 * b.second + p2 * (b.sum * b.sum - b.second);
        const A cubic = p1 * b.third + p2 * (2 * (b.turned - b.third) + b.sum * y.squares - b.third) +
                        p3 * (b.sum * y.sum_square - 2 * b.turned - b.sum * y.squares + 2 * b.third);

        const A reach = std::sqrt(std::max(A(0), b.square)) + p1 * y.length + y.longest;
        const A error = rounding_ * reach * reach;
        const A centre = b.square + 2 * mean + p1 * p1 * y.sum_square;
        const A m2 = b.square + 2 * mean + square;
        const A m4 = b.square * b.square + 4 * inner + fourth + 4 * b.square * mean + 2 * b.square * square +
                     4 * cubic + error * reach * reach;
        const A least = std::max(A(0), m2 - error);
        Interval<A> range{std::sqrt(std::max(A(0), centre - error)), std::sqrt(std::max(A(0), m2 + error))};
        if (m4 > A(0)) range.lower = std::max(range.lower, least * std::sqrt(least / m4));
        return range;
    }
    static void add(Interval<A>& sum, A probability, const Interval<A>& range) {
        sum.lower += probability * range.lower;
        sum.upper += probability * range.upper;
    }

    const RandomSubsetMoments<T>* moments_;
    A unit_ = 0, rounding_ = 0; ///< length of the longest y; of sums of products, 0 where there are none
    Population population_{};   ///< all but the longest
    Products longest_{};
    std::vector<Key> keys_; ///< all but the longest
};

} // namespace v0_2
} // namespace attnscope
