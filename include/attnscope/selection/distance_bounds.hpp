// Theorem 1 and Corollary 2 of the paper: limits on the distance of a selection, for a fixed set and for a
// random one.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lanes.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selection/distance.hpp>

namespace attnscope {
inline namespace v0_1 {

/// What Theorem 1(1) is made of, for one set I of one row.
template <Real A>
struct FixedSetGeometry {
    A spread = 0;    ///< d1 = max |x_i - x_j| over i not in I, j in I
    A longest = 0;   ///< max |x_j| over j in I
    A imbalance = 0; ///< sum over i not in I of |A_I - p_i|
};

/// Every selected token against every other. With the Gram matrix of the token vectors (`gram_matrix`; its
/// leading n x n block is read) the candidates for the farthest pair are found in O(N n) and then measured;
/// without it, or where all pairs are equally far, O(N (n-N) d). Throws `invalid_argument` when the Gram matrix
/// is too small.
template <Real T>
FixedSetGeometry<Accumulator<T>> fixed_set_geometry(const SelectedSet<T>& set,
                                                    const Matrix<Accumulator<T>>* gram = nullptr) {
    using A = Accumulator<T>;
    if (gram)
        detail::require(gram->rows() >= set.size() && gram->cols() >= set.size(), "fixed_set_geometry",
                        "the Gram matrix must cover the keys", gram->rows(), set.size());
    FixedSetGeometry<A> geometry;
    const auto x = [&](Index i) {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(set.vectors().row(i).data(), 1,
                                                                     set.vectors().cols())
            .template cast<A>();
    };
    const auto apart = [&](Index i, Index j) { return A((x(i) - x(j)).squaredNorm()); };
    // A NaN, once found, stays: no comparison removes it.
    const auto exceeds = [](A value, A largest) { return !(value <= largest) && largest == largest; };
    for (const Index j : set.selected())
        if (const A length = x(j).norm(); exceeds(length, geometry.longest)) geometry.longest = length;
    A largest = 0, spread = 0;
    for (Index i = 0; i < set.size(); ++i) {
        if (gram && exceeds((*gram)(i, i), largest)) largest = (*gram)(i, i);
        if (!set.contains(i))
            geometry.imbalance += std::abs(set.mass() - A(set.weights()[static_cast<std::size_t>(i)]));
    }
    const auto measure = [&](Index i, Index j) {
        if (const A square = apart(i, j); exceeds(square, spread)) spread = square;
    };
    if (gram && std::isfinite(largest)) {
        // Differences of Gram entries are exact to `doubt`: every pair that may be the farthest is measured.
        using S = detail::Simd<A>;
        const A doubt =
            8 * std::numeric_limits<A>::epsilon() * static_cast<A>(set.vectors().cols() + 4) * largest;
        std::vector<A> squares(static_cast<std::size_t>(set.size())); // |x_i|^2 of the others, else -inf
        for (Index i = 0; i < set.size(); ++i)
            squares[static_cast<std::size_t>(i)] =
                set.contains(i) ? -std::numeric_limits<A>::infinity() : (*gram)(i, i);
        std::vector<A> reach; // of each selected key
        const auto minus_two = S::set(A(-2));
        for (const Index j : set.selected()) {
            auto far = S::set(-std::numeric_limits<A>::infinity());
            detail::for_each_lane<A>(set.size(), [&](const auto& lane) {
                far = S::max(far, S::madd(minus_two, lane(gram->data() + j * gram->cols(), A(0)),
                                          lane(squares.data(), -std::numeric_limits<A>::infinity())));
            });
            reach.push_back(S::reduce_max(far) + (*gram)(j, j));
        }
        const A least = (reach.empty() ? A(0) : *std::max_element(reach.begin(), reach.end())) - doubt;
        for (std::size_t at = 0; at < reach.size(); ++at) {
            if (!(reach[at] > least)) continue;
            const Index j = set.selected()[at];
            for (Index i = 0; i < set.size(); ++i)
                if (squares[static_cast<std::size_t>(i)] - 2 * (*gram)(j, i) + (*gram)(j, j) > least)
                    measure(i, j);
        }
    } else {
        for (Index i = 0; i < set.size(); ++i)
            for (const Index j : set.selected())
                if (!set.contains(i)) measure(i, j);
    }
    geometry.spread = std::sqrt(spread);
    return geometry;
}

/// P Theorem 1(1) as published: (1-A) d1 + max|x_j| |A (n-N) - (1-A)|. True for top-N sets in the cumulative
/// reading; false for arbitrary sets and for the resultant reading.
template <Real T>
Accumulator<T> theorem1_fixed_published_limit(const SelectedSet<T>& set,
                                              const FixedSetGeometry<Accumulator<T>>& geometry) {
    using A = Accumulator<T>;
    const A others = static_cast<A>(set.size() - set.selected_count());
    return set.tail_mass() * geometry.spread +
           geometry.longest * std::abs(set.mass() * others - set.tail_mass());
}

/// P Theorem 1(1), corrected: the last factor is sum_{i not in I} |A - p_i| (cumulative; equal to the published
/// one for top-N sets) or |A - (1-A)| (resultant). Attained by equal tokens.
template <Real T>
Accumulator<T> theorem1_fixed_limit(const SelectedSet<T>& set, const FixedSetGeometry<Accumulator<T>>& geometry,
                                    Reading reading) {
    const auto factor =
        reading == Reading::cumulative ? geometry.imbalance : std::abs(set.mass() - set.tail_mass());
    return set.tail_mass() * geometry.spread + geometry.longest * factor;
}

namespace detail {

/// The rounding error of a distance of one set: every |s - y_i| is a norm of sums of at most n vectors no
/// longer than the sum of all lengths.
template <Real T>
Accumulator<T> distance_tolerance(const SelectedSet<T>& set, Accumulator<T> limit) {
    using A = Accumulator<T>;
    const A n = static_cast<A>(set.size()), d = static_cast<A>(set.vectors().cols());
    const A others = static_cast<A>(set.size() - set.selected_count());
    return std::numeric_limits<A>::epsilon() * (n + d + 8) * (limit + (others + 1) * set.total_length());
}

} // namespace detail

inline constexpr Statement theorem1_fixed_published_statement{
    .id = "theorem1_fixed",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "d <= (1-A) d1 + max|x_j| |A(L-N) - (1-A)|, d1 = max |x_i - x_j| over i outside, j inside",
    .conditions = "a fixed set of N keys: the top N, and one random set",
    .source = "P Theorem 1(1)",
};

/// P Theorem 1(1) on one set, as published, in the given reading.
template <Real T>
Bound<Accumulator<T>> theorem1_fixed_published(const SelectedSet<T>& set,
                                               const FixedSetGeometry<Accumulator<T>>& geometry,
                                               Reading reading) {
    using A = Accumulator<T>;
    const A limit = theorem1_fixed_published_limit(set, geometry);
    return upper_bound<A>(theorem1_fixed_published_statement,
                          {.limit = limit,
                           .measured = selection_distance(set, reading),
                           .tolerance = detail::distance_tolerance(set, limit)});
}

inline constexpr Statement theorem1_fixed_sharp_statement{
    .id = "theorem1_fixed",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "cumulative: d <= (1-A) d1 + max|x_j| sum |A - p_i|; resultant: the last factor is |2A-1|",
    .conditions = "a fixed set of N keys: the top N, and one random set",
    .source = "corrected form of P Theorem 1(1)",
};

/// P Theorem 1(1) on one set, corrected.
template <Real T>
Bound<Accumulator<T>> theorem1_fixed_sharp(const SelectedSet<T>& set,
                                           const FixedSetGeometry<Accumulator<T>>& geometry, Reading reading) {
    Bound<Accumulator<T>> bound = theorem1_fixed_published(set, geometry, reading);
    bound.statement = &theorem1_fixed_sharp_statement;
    bound.value = theorem1_fixed_limit(set, geometry, reading);
    bound.tolerance = detail::distance_tolerance(set, bound.value);
    return bound;
}

/// Sums over one row from which the moments of the distance of a uniformly random N-subset follow.
template <Real T>
class RandomSubsetMoments {
public:
    using A = Accumulator<T>;

    /// p: weights of the visible keys, x [n, d]. O(n d). Throws `invalid_argument` when sizes do not fit.
    RandomSubsetMoments(RowIn<T> p, MatrixView<T> x) : p_(p), x_(x) {
        detail::require(x.rows() == detail::size<T>(p), "RandomSubsetMoments",
                        "x must have one row for each weight", x.rows(), p.size());
        sum_.setZero(x.cols());
        squares_.resize(p.size());
        for (Index i = 0; i < x.rows(); ++i) {
            sum_ += weighted(i);
            squares_[static_cast<std::size_t>(i)] = weighted(i).squaredNorm();
            total_squares_ += squares_[static_cast<std::size_t>(i)];
            length_ += std::sqrt(squares_[static_cast<std::size_t>(i)]);
            longest_ = std::max(longest_, vector(i).norm());
            mass_ += A(p[static_cast<std::size_t>(i)]);
        }
        sum_square_ = sum_.squaredNorm();
        products_.resize(p.size());
        for (Index i = 0; i < x.rows(); ++i) products_[static_cast<std::size_t>(i)] = weighted(i).dot(sum_);
    }

    /// Range of E d for the cumulative reading over uniformly random N-subsets, P Theorem 1(2) made rigorous:
    /// (L-N)/L sum mu_i <= E d <= (L-N)/L sum sqrt(mu_i^2 + V_i), mu_i = |y_i - N/(L-1) S_i|, S_i = sum_{j !=
    /// i} y_j, V_i = N(L-1-N)/((L-1)(L-2)) (sum_{j != i} |y_j|^2 - |S_i|^2/(L-1)). The lower end is the paper's
    /// main sum. V_i = 0 for L <= 2; {0, 0} at N = L. O(L). Throws `invalid_argument` unless 0 <= N <= L.
    Interval<A> expected_distance(Index selected) const {
        const Index n = x_.rows();
        detail::require(selected >= 0 && selected <= n, "RandomSubsetMoments::expected_distance",
                        "N must be in [0, L]", selected, n);
        if (selected == n) return {A(0), A(0)};
        const A l = static_cast<A>(n), count = static_cast<A>(selected);
        const A share = n > 1 ? count / (l - 1) : A(0);
        const A variance = n > 2 ? count * (l - 1 - count) / ((l - 1) * (l - 2)) : A(0);
        using S = detail::Simd<A>;
        using P = typename S::P;
        Interval<A> sum{A(0), A(0)};
        const auto add_key = [&](Index i) {
            const auto at = static_cast<std::size_t>(i);
            const A mean = mean_square(i, share);
            const A others = sum_square_ - 2 * products_[at] + squares_[at]; // |S_i|^2
            const A spread = n > 2 ? std::max(A(0), total_squares_ - squares_[at] - others / (l - 1)) : A(0);
            sum.lower += std::sqrt(mean);
            sum.upper += std::sqrt(mean + variance * spread);
        };
        const P own_factor = S::set((1 + share) * (1 + share)), cross = S::set(-2 * share * (1 + share)),
                all = S::set(share * share * sum_square_), close = S::set(cancelled), zero = S::set(A(0)),
                factor = S::set(variance), total = S::set(total_squares_), square = S::set(sum_square_),
                inverse = S::set(n > 1 ? 1 / (l - 1) : A(0)), minus_two = S::set(A(-2));
        P lower = zero, upper = zero;
        Index i = 0;
        for (; i + S::size <= n; i += S::size) {
            const P q = S::load(squares_.data() + i), b = S::load(products_.data() + i);
            const P whole = S::madd(own_factor, q, all), mean = S::madd(cross, b, whole);
            if (S::any_below(mean, S::mul(close, whole))) [[unlikely]] {
                for (Index j = i; j < i + S::size; ++j) add_key(j);
                continue;
            }
            const P others = S::add(S::madd(minus_two, b, square), q);
            const P spread = S::max(zero, S::sub(S::sub(total, q), S::mul(others, inverse)));
            lower = S::add(lower, S::sqrt(mean));
            upper = S::add(upper, S::sqrt(S::madd(factor, spread, mean)));
        }
        for (; i < n; ++i) add_key(i);
        sum.lower += S::reduce_add(lower);
        sum.upper += S::reduce_add(upper);
        const A left = (l - count) / l;
        return {left * sum.lower, left * std::max(sum.lower, sum.upper)};
    }

    /// (N+1)(1-N/L) M sum p with M = max |x_i|: the cap on E d, cumulative. (Without sum p it is false for
    /// weights that sum to more than 1, such as those of sigmoid attention.)
    A expected_distance_cap(Index selected) const {
        const A l = static_cast<A>(x_.rows()), count = static_cast<A>(selected);
        return (count + 1) * (1 - count / l) * longest_ * mass_;
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

    /// Rounding error of a sum of L distances of vectors of these lengths.
    A tolerance(Index selected) const {
        const A l = static_cast<A>(x_.rows()), count = static_cast<A>(selected);
        // The cancelled squares are exact to eps (|y|+|s|)^2 and direct below 1e-4 of it: sqrt costs a factor
        // 100.
        return 100 * std::numeric_limits<A>::epsilon() * (l + static_cast<A>(x_.cols()) + 8) * (1 + count) *
               length_;
    }

private:
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
    auto vector(Index i) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x_.row(i).data(), 1, x_.cols())
            .template cast<A>();
    }
    auto weighted(Index i) const { return vector(i) * A(p_[static_cast<std::size_t>(i)]); }

    RowIn<T> p_;
    MatrixView<T> x_;
    Eigen::Matrix<A, 1, Eigen::Dynamic> sum_;
    std::vector<A> squares_, products_;
    A total_squares_ = 0, sum_square_ = 0, length_ = 0, longest_ = 0, mass_ = 0;
};

/// Mean of a quantity over subsets, and a limit of its standard error (0 when all subsets were counted).
template <Real A>
struct SubsetMean {
    A mean = 0;
    A standard_error = 0;
    Index subsets = 0;
};

/// E d over uniformly random N-subsets: exactly, over all of them, for L <= 12; else over `samples` subsets
/// drawn from `generator`. O(subsets n d). Throws `invalid_argument` unless 0 <= N <= L and, when it must draw,
/// samples >= 2.
template <Real T>
SubsetMean<Accumulator<T>> mean_subset_distance(RowIn<T> p, MatrixView<T> x, Index selected, Reading reading,
                                                Index samples, SplitMix64& generator) {
    using A = Accumulator<T>;
    const Index n = detail::size<T>(p);
    detail::require(selected >= 0 && selected <= n, "mean_subset_distance", "N must be in [0, L]", selected, n);
    SelectedSet<T> set;
    SubsetMean<A> result;
    A mean = 0, scatter = 0;
    const auto take = [&](std::span<const Index> subset) {
        set.assign(p, x, subset);
        const A distance = selection_distance(set, reading);
        ++result.subsets;
        const A before = distance - mean;
        mean += before / static_cast<A>(result.subsets);
        scatter += before * (distance - mean);
    };
    std::vector<Index> keys(static_cast<std::size_t>(n));
    std::iota(keys.begin(), keys.end(), Index(0));
    const auto count = static_cast<std::size_t>(selected);
    if (n <= 12) {
        std::vector<Index> subset;
        for (unsigned bits = 0; bits < (1u << n); ++bits) {
            if (std::popcount(bits) != static_cast<int>(selected)) continue;
            subset.clear();
            for (Index i = 0; i < n; ++i)
                if (bits >> i & 1u) subset.push_back(i);
            take(subset);
        }
        result.mean = mean;
        return result;
    }
    detail::require(samples >= 2, "mean_subset_distance", "samples must be >= 2", samples);
    for (Index draw = 0; draw < samples; ++draw) {
        for (std::size_t i = 0; i < count; ++i) // the first N of a shuffle
            std::swap(keys[i], keys[i + static_cast<std::size_t>(generator.below(n - static_cast<Index>(i)))]);
        take(std::span<const Index>(keys).first(count));
    }
    result.mean = mean;
    const A drawn = static_cast<A>(result.subsets);
    const RandomSubsetMoments<T> moments(p, x);
    const A share = static_cast<A>(selected) / static_cast<A>(n);
    const A square = reading == Reading::cumulative
                         ? static_cast<A>(n - selected) * moments.cumulative_second_moment(selected)
                         : moments.resultant_second_moment(selected);
    const A least = reading == Reading::cumulative ? moments.expected_distance(selected).lower
                                                   : std::abs(1 - 2 * share) * moments.output_length();
    const A variance = std::max(scatter / (drawn - 1), square - least * least);
    result.standard_error = std::sqrt(variance / drawn);
    return result;
}

/// As above from any row and matrix.
template <RowLike P, MatrixExpr X>
requires std::same_as<RowScalar<P>, ScalarOf<X>>
SubsetMean<Accumulator<RowScalar<P>>> mean_subset_distance(const P& p, const X& x, Index selected,
                                                           Reading reading, Index samples,
                                                           SplitMix64& generator) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    const MatrixHolder<T> vectors(x);
    return mean_subset_distance<T>(row.get(), vectors.get(), selected, reading, samples, generator);
}

inline constexpr Statement theorem1_random_published_statement{
    .id = "theorem1_random",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "E d = (L-N)/L sum |y_i - N/(L-1) S_i| + eps, checked with eps = 0 (its bound was not recovered)",
    .conditions = "a uniformly random set of N keys; cumulative reading",
    .source = "P Theorem 1(2)",
};

/// P Theorem 1(2) as reconstructed, with its unquantified eps set to 0: E d equals the main sum. Checked as
/// E d <= main sum; since eps >= 0 (Jensen), a violation shows that eps is not negligible.
/// `expected`: E d, counted or sampled (then six standard errors are allowed).
template <Real T>
Bound<Accumulator<T>> theorem1_random_published(const RandomSubsetMoments<T>& moments, Index selected,
                                                const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    return upper_bound<A>(theorem1_random_published_statement,
                          {.limit = moments.expected_distance(selected).lower,
                           .measured = expected.mean,
                           .tolerance = 6 * expected.standard_error + moments.tolerance(selected)});
}

inline constexpr Statement theorem1_random_sharp_statement{
    .id = "theorem1_random",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "(L-N)/L sum mu_i <= E d <= (L-N)/L sum sqrt(mu_i^2 + V_i)",
    .conditions = "a uniformly random set of N keys; cumulative reading",
    .source = "rigorous form of P Theorem 1(2)",
};

/// P Theorem 1(2), rigorous: both ends of `RandomSubsetMoments::expected_distance`.
template <Real T>
BoundPair<Accumulator<T>> theorem1_random_sharp(const RandomSubsetMoments<T>& moments, Index selected,
                                                const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    const Interval<A> range = moments.expected_distance(selected);
    const A tolerance = 6 * expected.standard_error + moments.tolerance(selected);
    return {
        lower_bound<A>(theorem1_random_sharp_statement,
                       {.limit = range.lower, .measured = expected.mean, .tolerance = tolerance, .trivial = 0}),
        upper_bound<A>(theorem1_random_sharp_statement,
                       {.limit = range.upper, .measured = expected.mean, .tolerance = tolerance})};
}

inline constexpr Statement corollary2_published_statement{
    .id = "corollary2",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "E d -> sum |y_i| as L grows, held against this L",
    .conditions = "N fixed; cumulative reading",
    .source = "P Corollary 2(i)",
};

/// P Corollary 2(i) as published, "E d -> sum |y_i|" at fixed N, held against the row as if L had grown enough:
/// E d <= sum |y_i|.
template <Real T>
Bound<Accumulator<T>> corollary2_published(const RandomSubsetMoments<T>& moments, Index selected,
                                           const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    return upper_bound<A>(corollary2_published_statement,
                          {.limit = moments.total_length(),
                           .measured = expected.mean,
                           .tolerance = 6 * expected.standard_error + moments.tolerance(selected)});
}

inline constexpr Statement corollary2_sharp_statement{
    .id = "corollary2",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "(L-N)/L [sum |y_i - N/L o| - N/(L-1)(|o| + sum |y_i|)] <= E d <= (N+1)(1-N/L) max|x_i| sum p",
    .conditions = "cumulative reading",
    .source = "corrected form of P Corollary 2",
};

/// Corollary 2, corrected. Lower: E d >= (L-N)/L [sum |y_i - (N/L) o| - N/(L-1) (|o| + sum |y_i|)], which tends
/// to sum |y_i - (N/L) o| as L grows at fixed N. Upper: E d <= (N+1)(1-N/L) max|x_i| sum p, which is what
/// remains of "d -> 0 as N -> L": 0 at N = L only.
template <Real T>
BoundPair<Accumulator<T>> corollary2_sharp(const RandomSubsetMoments<T>& moments, Index selected,
                                           const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    const A l = static_cast<A>(moments.size()), count = static_cast<A>(selected);
    const A tolerance = 6 * expected.standard_error + moments.tolerance(selected);
    // |mu_i - |y_i - (N/L) o|| <= N |o|/(L(L-1)) + N |y_i|/(L-1), summed over i.
    const A slack =
        moments.size() > 1 ? count / (l - 1) * (moments.output_length() + moments.total_length()) : A(0);
    const A lower = (l - count) / l * (moments.main_sum_limit(selected) - slack);
    return {
        lower_bound<A>(
            corollary2_sharp_statement,
            {.limit = std::max(lower, A(0)), .measured = expected.mean, .tolerance = tolerance, .trivial = 0}),
        upper_bound<A>(corollary2_sharp_statement, {.limit = moments.expected_distance_cap(selected),
                                                    .measured = expected.mean,
                                                    .tolerance = tolerance})};
}

} // namespace v0_1
} // namespace attnscope
