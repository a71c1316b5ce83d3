// Theorem 1(1) of the paper: the limit on the distance of one set of keys, as published and corrected.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/distance.hpp>
#include <attnscope/selection/farthest_tokens.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What Theorem 1(1) is made of, for one set I of one row.
template <Real A>
struct FixedSetGeometry {
    A spread = 0;    ///< d1 = max |x_i - x_j| over i not in I, j in I
    A longest = 0;   ///< max |x_j| over j in I
    A imbalance = 0; ///< sum over i not in I of |A_I - p_i|
};

namespace detail {

/// max |x_i - x_j| over i not in I, j in I, for one set.
template <Real T>
class FarthestPair {
public:
    using A = Accumulator<T>;

    explicit FarthestPair(const SelectedSet<T>& set) : set_(set) {}

    /// Are differences of inner products numbers, for the largest |x_i|^2?
    static bool can_use(A largest_norm) { return largest_norm <= std::numeric_limits<A>::max() / 8; }

    /// From the vectors of all pairs. O(N (n-N) d).
    A direct() {
        for (Index i = 0; i < set_.size(); ++i)
            for (const Index j : set_.selected())
                if (!set_.contains(i)) measure(i, j);
        return std::sqrt(largest_);
    }

    /// From the vectors of those pairs alone that may be the farthest by their Gram matrix, whose differences are exact
    /// to `doubt`. norms: its diagonal. farthest: see `FarthestTokens`; null: every selected token is looked at.
    A by_gram(const Matrix<A>& gram, RowIn<A> norms, A largest_norm, const FarthestTokens<A>* farthest) {
        const A doubt =
            8 * std::numeric_limits<A>::epsilon() * static_cast<A>(set_.vectors().cols() + 4) * largest_norm;
        others_.assign(norms.begin(), norms.end());
        for (const Index j : set_.selected()) detail::at(others_, j) = -std::numeric_limits<A>::infinity();
        reach_.clear();
        A most = -std::numeric_limits<A>::infinity();
        for (const Index j : set_.selected()) {
            // Who is farthest of all is farthest of the others, unless selected.
            const Index far = farthest ? farthest->token(j) : 0;
            reach_.push_back(!farthest                         ? reach(gram, j)
                             : far >= 0 && !set_.contains(far) ? farthest->square(j)
                                                               : not_looked_at);
            most = std::max(most, reach_.back());
        }
        for (std::size_t at = 0; farthest && at < reach_.size(); ++at) {
            const Index j = set_.selected()[at];
            if (reach_[at] > not_looked_at || !(farthest->square(j) > most - doubt)) continue;
            reach_[at] = reach(gram, j);
            most = std::max(most, reach_[at]);
        }
        for (std::size_t at = 0; at < reach_.size(); ++at) {
            if (!(reach_[at] > most - doubt)) continue;
            const Index j = set_.selected()[at];
            for (Index i = 0; i < set_.size(); ++i)
                if (detail::at(others_, i) - 2 * gram(j, i) + gram(j, j) > most - doubt) measure(i, j);
        }
        return std::sqrt(largest_);
    }

private:
    static constexpr A not_looked_at = -std::numeric_limits<A>::infinity();

    /// Largest |x_i - x_j|^2 over the others i.
    A reach(const Matrix<A>& gram, Index j) const {
        using P = Packet<A>;
        P far = -std::numeric_limits<A>::infinity();
        const P minus_two = A(-2);
        for_each_lane<A>(set_.size(), [&](const auto& lane) {
            far = max(far, madd(minus_two, lane(gram.data() + j * gram.cols(), A(0)),
                                lane(others_.data(), -std::numeric_limits<A>::infinity())));
        });
        return reduce_max(far) + gram(j, j);
    }

    void measure(Index i, Index j) {
        const A square = (vector(i) - vector(j)).squaredNorm();
        // A NaN, once found, stays: no comparison removes it.
        if (!(square <= largest_) && largest_ == largest_) largest_ = square;
    }
    auto vector(Index i) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(set_.vectors().row(i).data(), 1,
                                                                     set_.vectors().cols())
            .template cast<A>();
    }

    const SelectedSet<T>& set_;
    std::vector<A> others_; ///< |x_i|^2, -inf of the selected
    std::vector<A> reach_;  ///< of each selected key
    A largest_ = 0;
};

/// `spread` is left open.
template <Real T>
FixedSetGeometry<Accumulator<T>> geometry_without_spread(const SelectedSet<T>& set) {
    using A = Accumulator<T>;
    FixedSetGeometry<A> geometry;
    for (const Index j : set.selected()) {
        const Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>> x(set.vectors().row(j).data(), 1,
                                                                      set.vectors().cols());
        const A length = x.template cast<A>().norm();
        if (!(length <= geometry.longest) && geometry.longest == geometry.longest) geometry.longest = length;
    }
    const RowIn<T> p = set.weights();
    const A mass = set.mass();
    for (Index i = 0; i < set.size(); ++i)
        geometry.imbalance += set.contains(i) ? A(0) : std::abs(mass - A(detail::at(p, i)));
    return geometry;
}

} // namespace detail

/// What Theorem 1(1) is made of: every selected token against every other.
/// Shapes and units. gram: `gram_matrix` of the token vectors; its leading n x n block is read.
/// Special rows. A NaN among the vectors leaves NaN.
/// Cost. With the Gram matrix the candidates for the farthest pair are found in O(N n) and then measured;
/// without it, or where all pairs are equally far, O(N (n-N) d). Allocates a row.
/// Throws. `invalid_argument` when the Gram matrix is too small.
template <Real T>
FixedSetGeometry<Accumulator<T>> fixed_set_geometry(const SelectedSet<T>& set,
                                                    const Matrix<Accumulator<T>>* gram = nullptr) {
    using A = Accumulator<T>;
    FixedSetGeometry<A> geometry = detail::geometry_without_spread(set);
    detail::FarthestPair<T> pair(set);
    A largest = std::numeric_limits<A>::quiet_NaN();
    std::vector<A> norms;
    if (gram) {
        detail::require(gram->rows() >= set.size() && gram->cols() >= set.size(), "fixed_set_geometry",
                        "the Gram matrix must cover the keys", gram->rows(), set.size());
        largest = 0;
        for (Index i = 0; i < set.size(); ++i) {
            norms.push_back((*gram)(i, i));
            if (!(norms.back() <= largest) && largest == largest) largest = norms.back();
        }
    }
    geometry.spread = pair.can_use(largest) ? pair.by_gram(*gram, norms, largest, nullptr) : pair.direct();
    return geometry;
}

/// The same, to the bit, for rows that see the first n tokens of a head, each of which knows who is farthest from it.
/// Cost. O(n) as a rule: only selected tokens that may be of the farthest pair are held against all others.
/// Throws. `invalid_argument` unless `farthest` has reached the n of the set.
template <Real T>
FixedSetGeometry<Accumulator<T>> fixed_set_geometry(const SelectedSet<T>& set,
                                                    const FarthestTokens<Accumulator<T>>& farthest) {
    detail::require(farthest.size() == set.size(), "fixed_set_geometry",
                    "the farthest tokens must be those of the keys", farthest.size(), set.size());
    FixedSetGeometry<Accumulator<T>> geometry = detail::geometry_without_spread(set);
    detail::FarthestPair<T> pair(set);
    geometry.spread = pair.can_use(farthest.largest())
                          ? pair.by_gram(farthest.gram(), farthest.norms(), farthest.largest(), &farthest)
                          : pair.direct();
    return geometry;
}

/// P Theorem 1(1) as published: true for top-N sets in the cumulative reading; false for arbitrary sets and
/// for the resultant reading.
/// Formula. (1-A) d1 + max|x_j| |A (n-N) - (1-A)|, with the mass of the others for 1-A.
/// Cost. O(1).
/// Source. P Theorem 1(1).
template <Real T>
Accumulator<T> theorem1_fixed_published_limit(const SelectedSet<T>& set,
                                              const FixedSetGeometry<Accumulator<T>>& geometry) {
    using A = Accumulator<T>;
    const A others = static_cast<A>(set.size() - set.selected_count());
    return set.tail_mass() * geometry.spread +
           geometry.longest * std::abs(set.mass() * others - set.tail_mass());
}

/// P Theorem 1(1), corrected, from d1 and max|x_j| as published. Attained by equal tokens;
/// `theorem1_fixed_range` is sharper.
/// Formula. As published, but the last factor is sum_{i not in I} |A - p_i| (cumulative; equal to the
/// published one for top-N sets) or |A - (1-A)| (resultant).
/// Cost. O(1).
template <Real T>
Accumulator<T> theorem1_fixed_limit(const SelectedSet<T>& set, const FixedSetGeometry<Accumulator<T>>& geometry,
                                    Reading reading) {
    const auto factor =
        reading == Reading::cumulative ? geometry.imbalance : std::abs(set.mass() - set.tail_mass());
    return set.tail_mass() * geometry.spread + geometry.longest * factor;
}

/// The distance of one set from both sides: d is (L-N)|s| up to sum |y_i| of those outside.
/// Formula. With f the factor of `theorem1_fixed_limit`, r = sum y_i, m = r/(L-N) and V the variance of the
/// y_i, all over i not in I, the narrowest of
///   |d - |s|/A f| <= (1-A) d1,  |d' - |s|/A f| <= (1-A) d1;
///   sum ||s| - |y_i|| <= d <= (L-N)|s| + sum |y_i|,  ||s| - |r|| <= d' <= |s| + |r|;
///   (L-N)|s-m| <= d <= (L-N) sqrt(|s-m|^2 + V).
/// V counts as larger by its rounding.
/// Special rows. {0, 0} at N = L in the cumulative reading. Where A = 0, max|x_j| stands for |s|/A above, and 0
/// below.
/// Cost. O(d).
template <Real T>
Interval<Accumulator<T>> theorem1_fixed_range(const SelectedSet<T>& set,
                                              const FixedSetGeometry<Accumulator<T>>& geometry,
                                              Reading reading) {
    using A = Accumulator<T>;
    const A length = set.context().norm(), others = static_cast<A>(set.size() - set.selected_count());
    const A factor =
        reading == Reading::cumulative ? geometry.imbalance : std::abs(set.mass() - set.tail_mass());
    const A spread = set.tail_mass() * geometry.spread;
    const bool weighs = set.mass() > A(0);
    const A centre = (weighs ? std::min(length / set.mass(), geometry.longest) : geometry.longest) * factor;
    Interval<A> range{weighs ? std::max(A(0), centre - spread) : A(0), centre + spread};
    if (reading == Reading::resultant) {
        const A rest = set.remainder().norm();
        return {std::max(range.lower, std::abs(length - rest)), std::min(range.upper, length + rest)};
    }
    if (set.selected_count() == set.size()) return {A(0), A(0)};
    const A mean = (others * set.context() - set.remainder()).norm(); // (L-N)|s-m|
    const A rounding = std::numeric_limits<A>::epsilon() *
                       static_cast<A>(set.size() + set.vectors().cols() + 8) * set.tail_squares();
    const A scatter = std::max(A(0), set.tail_squares() - set.remainder().squaredNorm() / others) + rounding;
    return {std::max({range.lower, set.contrast(), mean}),
            std::min({range.upper, others * length + set.tail_length(),
                      std::hypot(mean, std::sqrt(others * scatter))})};
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

/// P Theorem 1(1) on one set, as published, in the given reading; cost as of `selection_distance`.
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
    .text =
        "|d - |s|/A sum |A-p_i|| <= (1-A) d1; sum ||s|-|y_i|| <= d <= (L-N)|s| + sum |y_i|; (L-N)|s-m| <= d <= "
        "(L-N) sqrt(|s-m|^2+V), m, V: mean, variance of the y_i outside; resultant: |d' - |s|/A |2A-1|| <= "
        "(1-A) "
        "d1, ||s|-|r|| <= d' <= |s|+|r|, r = sum y_i outside",
    .conditions = "a fixed set of N keys: the top N, and one random set",
    .source = "corrected and two-sided form of P Theorem 1(1)",
};

/// P Theorem 1(1) on one set, corrected and from both sides: `theorem1_fixed_range`; cost as of
/// `selection_distance`.
template <Real T>
BoundPair<Accumulator<T>> theorem1_fixed_sharp(const SelectedSet<T>& set,
                                               const FixedSetGeometry<Accumulator<T>>& geometry,
                                               Reading reading) {
    using A = Accumulator<T>;
    const Interval<A> range = theorem1_fixed_range(set, geometry, reading);
    const A measured = selection_distance(set, reading);
    return {lower_bound<A>(theorem1_fixed_sharp_statement,
                           {.limit = range.lower,
                            .measured = measured,
                            .tolerance = detail::distance_tolerance(set, range.lower),
                            .trivial = 0}),
            upper_bound<A>(theorem1_fixed_sharp_statement,
                           {.limit = range.upper,
                            .measured = measured,
                            .tolerance = detail::distance_tolerance(set, range.upper)})};
}

} // namespace v0_2
} // namespace attnscope
