// Can the selected tokens be told from the rest by their distance to the selected context vector?
#pragma once

#include <attnscope/selection/selected_set.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_1 {

/// Figures of one selection, D_i the distance of key i from s (Euclidean or cosine, as the set was made).
/// With everything selected nobody is left to be confused with: nearest_other is +inf, precision, recall, F and
/// separable fraction are 1. With nothing selected the fractions are NaN.
template <Real A>
struct Separability {
    A nearest_other = 0;      ///< rho_min = min over the others of D_j; +inf if there are none
    A farthest_selected = 0;  ///< rho_max = max over the selected of D_i
    A margin = 0;             ///< rho_min - rho_max: > 0 if a ball separates the two
    A separable_fraction = 0; ///< N_s/N of P (10), the geometric recall
    A precision = 0;          ///< N/(N + #{others: D_j <= rho_max})
    A recall = 0;             ///< #{selected: D_i < rho_min}/N
    A f_score = 0;            ///< harmonic mean of precision and recall
    Index inversions = 0;     ///< #{(i selected, j other): D_j <= D_i}
};

/// radius: of the ball around s for `separable_fraction`; unless given, the distance of the nearest
/// non-selected token (strict <, that token lies on the boundary), the choice of P's experiments. A given
/// radius with a non-selected token strictly inside separates nothing: the fraction is 0, P's proviso in (10).
/// Precision, recall and inversions: arXiv:2609.37879, arXiv:2602.01893. O(n log n).
/// Throws `invalid_argument` unless radius > 0.
template <Real T>
Separability<detail::Accumulator<T>> separability(const SelectedSet<T>& set,
                                                  std::optional<detail::Accumulator<T>> radius = {}) {
    using A = detail::Accumulator<T>;
    if (radius) detail::require(*radius > A(0), "separability", "radius must be > 0", *radius);
    Separability<A> figures;
    figures.nearest_other = std::numeric_limits<A>::infinity();
    std::vector<A> selected;
    selected.reserve(static_cast<std::size_t>(set.selected_count()));
    for (Index i = 0; i < set.size(); ++i) {
        if (set.contains(i)) {
            selected.push_back(set.distance(i));
            figures.farthest_selected = std::max(figures.farthest_selected, set.distance(i));
        } else {
            figures.nearest_other = std::min(figures.nearest_other, set.distance(i));
        }
    }
    const A count = static_cast<A>(set.selected_count());
    const auto below = [&](A limit) {
        return static_cast<A>(std::count_if(selected.begin(), selected.end(), [&](A x) { return x < limit; }));
    };
    std::sort(selected.begin(), selected.end());
    Index confused = 0;
    for (Index j = 0; j < set.size(); ++j) {
        if (set.contains(j)) continue;
        confused += set.distance(j) <= figures.farthest_selected;
        figures.inversions += static_cast<Index>(
            selected.end() - std::lower_bound(selected.begin(), selected.end(), set.distance(j)));
    }
    figures.margin = figures.nearest_other - figures.farthest_selected;
    figures.precision = set.selected_count() > 0 ? count / (count + static_cast<A>(confused)) : A(0) / A(0);
    figures.recall = below(figures.nearest_other) / count;
    const A sum = figures.precision + figures.recall;
    figures.f_score = sum > A(0) ? 2 * figures.precision * figures.recall / sum : sum;
    figures.separable_fraction = figures.recall;
    if (radius) figures.separable_fraction = figures.nearest_other < *radius ? A(0) : below(*radius) / count;
    return figures;
}

} // namespace v0_1
} // namespace attnscope
