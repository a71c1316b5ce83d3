// Can the selected tokens be told from the rest by their distance to the selected context vector?
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/selected_set.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

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

namespace detail {

/// The keys that are not selected, by how near they are to s: `SelectedSet::nearer` for packets of them at once.
template <Real T>
class OtherKeys {
public:
    using A = Accumulator<T>;

    explicit OtherKeys(const SelectedSet<T>& set) : set_(set) {
        const auto n = static_cast<std::size_t>(set.size());
        distances_.resize(n);
        offsets_.resize(n);
        for (std::size_t i = 0; i < n; ++i) {
            const Index key = static_cast<Index>(i);
            const bool out = set.contains(key);
            distances_[i] = out ? infinity : set.distance(key);
            // Close keys are told apart by their distance, and are nearer than all others.
            offsets_[i] = out ? infinity : set.is_close(key) ? -infinity : set.offset(key);
        }
    }

    /// The first of the nearest; -1 if there are none.
    Index nearest() const {
        if (set_.selected_count() == set_.size()) return -1;
        const A least = row_range<A>(RowIn<A>(offsets_)).min;
        if (least > -infinity) return place_of(offsets_, least);
        return place_of(distances_, row_range<A>(RowIn<A>(distances_)).min);
    }

    /// How many are no farther than a key.
    Index no_farther_than(Index key) const {
        return set_.is_close(key) ? count_up_to(distances_, set_.distance(key))
                                  : count_up_to(offsets_, set_.offset(key));
    }

private:
    static constexpr A infinity = std::numeric_limits<A>::infinity();

    Index place_of(const std::vector<A>& row, A value) const {
        Index i = 0;
        while (detail::at(row, i) != value || set_.contains(i)) ++i;
        return i;
    }
    static Index count_up_to(const std::vector<A>& row, A limit) {
        using P = Packet<A>;
        const P most = limit;
        Index count = 0;
        for_each_lane<A>(size<A>(row), [&](const auto& lane) {
            count += std::popcount(mask_not_below(most, lane(row.data(), infinity)));
        });
        return count;
    }

    const SelectedSet<T>& set_;
    std::vector<A> distances_, offsets_; ///< +inf of selected keys
};

} // namespace detail

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
    const detail::OtherKeys<T> others(set);
    const Index nearest = others.nearest();
    figures.nearest_other = nearest < 0 ? std::numeric_limits<A>::infinity() : set.distance(nearest);
    figures.farthest_selected = selected.empty() ? A(0) : set.distance(selected.back());
    figures.margin = figures.nearest_other - figures.farthest_selected;

    const auto recalled =
        nearest < 0 ? selected.end() : std::lower_bound(selected.begin(), selected.end(), nearest, nearer);
    // A selected key that is nearer than the nearest other is nearer than all of them.
    for (auto key = recalled; key != selected.end(); ++key) figures.inversions += others.no_farther_than(*key);
    const Index confused = recalled == selected.end() ? 0 : others.no_farther_than(selected.back());
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

} // namespace v0_2
} // namespace attnscope
