// Theorem 1(2) and Corollary 2 of the paper: the distance of a random set of N keys, as published and corrected.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selection/subset_distance.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Mean of a quantity over subsets, and a limit of its standard error (0 when all subsets were counted).
template <Real A>
struct SubsetMean {
    A mean = 0;
    A standard_error = 0;
    Index subsets = 0;
};

/// E d over uniformly random N-subsets.
/// Formula. The exact mean over all of them for L <= 12; else that over `samples` subsets drawn from
/// `generator`.
/// Shapes and units. p [L] weights, x [L, d].
/// Cost. O(subsets L d), memory O(L + d).
/// Throws. `invalid_argument` unless 0 <= N <= L and x fits p and, when it must draw, unless samples >= 2.
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

/// P Theorem 1(2) as reconstructed, with its unquantified eps set to 0: E d equals the main sum.
/// Formula. Checked as E d <= main sum; since eps >= 0 (Jensen), a violation shows that eps is not
/// negligible.
/// Shapes and units. `expected`: E d, counted or sampled (then six standard errors are allowed).
/// Cost. O(L).
/// Throws. `invalid_argument` unless 0 <= N <= L.
/// Source. P Theorem 1(2).
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
    .text = "(L-N)/L sum max(|E S_i|, m2^{3/2}/m4^{1/2}) <= E d <= (L-N)/L sum m2^{1/2}, S_i = s-y_i given "
            "that i is "
            "outside and whether the longest |y_j| is inside, m2, m4 = E|S_i|^2, E|S_i|^4",
    .conditions = "a uniformly random set of N keys; cumulative reading",
    .source = "rigorous form of P Theorem 1(2)",
};

/// P Theorem 1(2), rigorous: both ends of `SubsetDistance`. Arguments and errors as of the published form.
/// Cost. O(L).
template <Real T>
BoundPair<Accumulator<T>> theorem1_random_sharp(const RandomSubsetMoments<T>& moments,
                                                const SubsetDistance<T>& distance, Index selected,
                                                const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    const Interval<A> range = distance(selected);
    const A tolerance = 6 * expected.standard_error + moments.tolerance(selected);
    return {
        lower_bound<A>(theorem1_random_sharp_statement,
                       {.limit = range.lower, .measured = expected.mean, .tolerance = tolerance, .trivial = 0}),
        upper_bound<A>(theorem1_random_sharp_statement,
                       {.limit = range.upper, .measured = expected.mean, .tolerance = tolerance})};
}

/// As above for one N alone.
/// Cost. O(L d^2).
template <Real T>
BoundPair<Accumulator<T>> theorem1_random_sharp(const RandomSubsetMoments<T>& moments, Index selected,
                                                const SubsetMean<Accumulator<T>>& expected) {
    return theorem1_random_sharp(moments, SubsetDistance<T>(moments), selected, expected);
}

inline constexpr Statement corollary2_published_statement{
    .id = "corollary2",
    .form = Form::published,
    .provenance = Provenance::reconstructed,
    .text = "E d -> sum |y_i| as L grows, held against this L",
    .conditions = "N fixed; cumulative reading",
    .source = "P Corollary 2(i)",
};

/// P Corollary 2(i) as published, "E d -> sum |y_i|" at fixed N, held against the row as if L had grown
/// enough.
/// Formula. E d <= sum |y_i|.
/// Cost. O(1).
/// Source. P Corollary 2(i).
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
    .text = "(L-N)(L+N-1)/(L(L-1)) sum |y_i - N/(L+N-1) o| <= E d <= (N+1)(1-N/L) sum |y_i|",
    .conditions = "cumulative reading",
    .source = "corrected form of P Corollary 2",
};

/// Corollary 2, corrected.
/// Formula. Lower: E d >= (L-N)(L+N-1)/(L(L-1)) sum |y_i - N/(L+N-1) o|, the main sum of Theorem 1(2), which
/// tends to sum |y_i - (N/L) o| as L grows at fixed N. Upper: E d <= (N+1)(1-N/L) sum |y_i|, which is what
/// remains of "d -> 0 as N -> L": 0 at N = L only.
/// Cost. As of `expected_distance`.
template <Real T>
BoundPair<Accumulator<T>> corollary2_sharp(const RandomSubsetMoments<T>& moments, Index selected,
                                           const SubsetMean<Accumulator<T>>& expected) {
    using A = Accumulator<T>;
    const A tolerance = 6 * expected.standard_error + moments.tolerance(selected);
    return {lower_bound<A>(corollary2_sharp_statement, {.limit = moments.expected_distance(selected).lower,
                                                        .measured = expected.mean,
                                                        .tolerance = tolerance,
                                                        .trivial = 0}),
            upper_bound<A>(corollary2_sharp_statement, {.limit = moments.expected_distance_cap(selected),
                                                        .measured = expected.mean,
                                                        .tolerance = tolerance})};
}

} // namespace v0_2
} // namespace attnscope
