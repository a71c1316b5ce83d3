// What is lost when only the N largest weights are kept.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/selection/selected_set.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What a selection loses of the distribution: the mass of the others, added up from them.
/// Formula. tau = TV(p, p restricted to I and renormalised) = 1 - A_I = 1 - exp(-KL(restricted || p)) for
/// weights that sum to 1.
/// Cost. O(1).
/// Source. arXiv:2512.07647.
template <Real T>
Accumulator<T> truncation_mass(const SelectedSet<T>& set) {
    return set.tail_mass();
}

/// What a selection loses of the output, for weights that sum to 1.
/// Formula. |o - o_I|, o = sum p_i x_i and o_I = (1/A) sum_{i in I} p_i x_i: exactly tau |mu_tail - mu_head|,
/// the means of the others and of the selected.
/// Special rows. 0 when everything is selected; else NaN when the selected weigh nothing, and 0 when the others do.
/// Cost. O(d).
template <Real T>
Accumulator<T> truncation_error(const SelectedSet<T>& set) {
    using A = Accumulator<T>;
    if (set.selected_count() == set.size()) return A(0);
    if (!(set.mass() > A(0))) return std::numeric_limits<A>::quiet_NaN();
    if (set.tail_mass() == A(0)) return A(0);
    return (set.remainder() - set.context() * (set.tail_mass() / set.mass())).norm();
}

/// Largest possible tau of a top-k selection of softmax weights whose (k+1)-st logit lies `gap` temperatures
/// below the k-th. Attained by k equal keys above n-k equal others.
/// Formula. 1/(1 + k/(n-k) e^gap); 0 at k = n.
/// Cost. O(1).
/// Throws. `invalid_argument` unless 1 <= k <= n and gap >= 0.
/// Source. arXiv:2512.07647.
template <Number G, Real A = Promoted<G>>
A truncation_mass_by_gap(Index n, Index k, G gap) {
    detail::require(k >= 1 && k <= n, "truncation_mass_by_gap", "k must be in [1, n]", k, n);
    detail::require(A(gap) >= 0, "truncation_mass_by_gap", "gap must be >= 0", gap);
    if (k == n) return A(0);
    const A inverse = std::exp(-A(gap));
    return inverse / (inverse + static_cast<A>(k) / static_cast<A>(n - k));
}

inline constexpr Statement truncation_gap_statement{
    .id = "truncation_gap",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "tau <= 1/(1 + k/(L-k) e^{gap/T}), gap = z_(k) - z_(k+1)",
    .conditions = "top-k of softmax",
    .source = "arXiv:2512.07647",
};

/// Bound "truncation_gap" of a top-k set of softmax: tau <= `truncation_mass_by_gap`.
/// Shapes and units. gap = (z_(k) - z_(k+1))/T; relative_error: that of the weights.
/// Cost. O(1).
/// Throws. `invalid_argument` for an empty set, and unless gap >= 0.
/// Source. arXiv:2512.07647.
template <Real T>
Bound<Accumulator<T>> truncation_gap_bound(const SelectedSet<T>& set, Accumulator<T> gap,
                                           Accumulator<T> relative_error) {
    using A = Accumulator<T>;
    const A limit = truncation_mass_by_gap(set.size(), set.selected_count(), gap);
    // Beyond the logarithm of the smallest normal number the gap has no say, and what is below it comes in steps.
    const A counted = std::min(gap, -std::log(std::numeric_limits<A>::min()));
    return upper_bound<A>(truncation_gap_statement,
                          {.limit = limit,
                           .measured = set.tail_mass(),
                           .tolerance = relative_error * set.tail_mass() +
                                        std::numeric_limits<A>::epsilon() * (2 * counted + 8) * limit +
                                        static_cast<A>(set.size()) * std::numeric_limits<A>::min(),
                           .trivial = 1});
}

inline constexpr Statement truncation_output_statement{
    .id = "truncation_output",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|o - o_I| <= tau d1, d1 = max |x_i - x_j| over i outside, j inside",
    .conditions = "weights that sum to 1",
    .source = "arXiv:2512.07647, there with diam(x)",
};

/// Bound "truncation_output": |o - o_I| <= tau d1.
/// Shapes and units. spread: d1 (`fixed_set_geometry`), or an upper bound on it such as the diameter of all
/// tokens.
/// Cost. O(d).
/// Source. arXiv:2512.07647.
template <Real T>
Bound<Accumulator<T>> truncation_output_bound(const SelectedSet<T>& set, Accumulator<T> spread) {
    using A = Accumulator<T>;
    const A limit = set.tail_mass() * spread;
    const A size = static_cast<A>(set.size() + set.vectors().cols() + 8);
    // The two means may be long and their difference short: each is exact to eps of its own length.
    const A length = set.remainder().norm() +
                     (set.mass() > A(0) ? set.context().norm() * (set.tail_mass() / set.mass()) : A(0));
    return upper_bound<A>(truncation_output_statement,
                          {.limit = limit,
                           .measured = truncation_error(set),
                           .tolerance = std::numeric_limits<A>::epsilon() * size * (limit + length),
                           .trivial = spread});
}

} // namespace v0_2
} // namespace attnscope
