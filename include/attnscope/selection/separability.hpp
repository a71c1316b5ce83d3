// Can the selected tokens be told from the rest by their distance to the selected context vector?
#pragma once

#include <attnscope/selection/selected_set.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_1 {

/// Figures of one selection, D_i the distance of key i from s (Euclidean or cosine, as the set was made).
/// With everything selected nobody is left to be confused with: nearest_other is +inf, precision, recall, F and
/// separable fraction (unless a radius is given) are 1. With nothing selected the fractions are NaN. A key
/// whose distance is not finite (NaN or infinity in its token or weight) leaves every figure NaN and the
/// inversions 0.
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

/// Can the selected tokens be told from the rest by their distance to s?
/// Formula. See `Separability`; the separable fraction counts selected tokens inside a ball around s.
/// Shapes and units. radius: of that ball; unless given, the distance of the nearest non-selected token
/// (strict <, that token lies on the boundary), the choice of P's experiments. A given radius with a
/// non-selected token strictly inside separates nothing: the fraction is 0, P's proviso in (10).
/// Special rows. See `Separability`: everything or nothing selected, and distances that are not finite.
/// Cost. O(n log n), allocates the selected keys.
/// Throws. `invalid_argument` unless radius > 0.
/// Source. P (10); precision, recall and inversions: arXiv:2609.37879, arXiv:2602.01893.
template <Real T>
Separability<Accumulator<T>> separability(const SelectedSet<T>& set,
                                          std::optional<Accumulator<T>> radius = {}) {
    using A = Accumulator<T>;
    if (radius) detail::require(*radius > A(0), "separability", "radius must be > 0", *radius);
    Separability<A> figures;
    for (Index i = 0; i < set.size(); ++i)
        if (!std::isfinite(set.distance(i))) { // no order to sort by
            constexpr A nan = std::numeric_limits<A>::quiet_NaN();
            return {nan, nan, nan, nan, nan, nan, nan, 0};
        }
    const auto nearer = [&](Index i, Index j) { return set.nearer(i, j); };
    std::vector<Index> selected(set.selected().begin(), set.selected().end());
    std::sort(selected.begin(), selected.end(), nearer);
    Index nearest = -1; // of the others
    for (Index j = 0; j < set.size(); ++j)
        if (!set.contains(j) && (nearest < 0 || set.nearer(j, nearest))) nearest = j;
    figures.nearest_other = nearest < 0 ? std::numeric_limits<A>::infinity() : set.distance(nearest);
    figures.farthest_selected = selected.empty() ? A(0) : set.distance(selected.back());
    figures.margin = figures.nearest_other - figures.farthest_selected;

    Index confused = 0; // others no farther than the farthest selected
    for (Index j = 0; j < set.size(); ++j) {
        if (set.contains(j) || selected.empty() || set.nearer(selected.back(), j)) continue;
        const auto first_not_nearer = std::lower_bound(selected.begin(), selected.end(), j, nearer);
        figures.inversions += static_cast<Index>(selected.end() - first_not_nearer);
        confused += first_not_nearer != selected.end();
    }
    const auto recalled =
        nearest < 0 ? selected.end() : std::lower_bound(selected.begin(), selected.end(), nearest, nearer);
    const A count = static_cast<A>(selected.size());
    figures.precision = count / (count + static_cast<A>(confused));
    figures.recall = static_cast<A>(recalled - selected.begin()) / count;
    const A sum = figures.precision + figures.recall;
    figures.f_score = sum > A(0) ? 2 * figures.precision * figures.recall / sum : sum;
    figures.separable_fraction = figures.recall;
    if (radius) {
        const auto inside =
            std::count_if(selected.begin(), selected.end(), [&](Index i) { return set.distance(i) < *radius; });
        figures.separable_fraction = figures.nearest_other < *radius ? A(0) : static_cast<A>(inside) / count;
    }
    return figures;
}

} // namespace v0_1
} // namespace attnscope
