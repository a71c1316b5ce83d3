// Holds the paper's statements about selections against one row: Theorem 1, Corollary 2, Theorem 2.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/selection/distance_bounds.hpp>
#include <attnscope/selection/separability_bounds.hpp>

namespace attnscope {
inline namespace v0_1 {

struct SelectionAuditOptions {
    Reading reading = Reading::cumulative; ///< of the distance in Theorem 1(1)
    /// Also check the statements about expectations, which cost subsets and simulations: theorem1_random and
    /// corollary2 over all subsets for L <= 12, else `subsets` seeded ones; theorem2 on `trials` draws of
    /// sphere vectors carrying the row's own weights.
    bool expectations = false;
    Index subsets = 200;
    Index trials = 128;
};

/// Scratch of `audit_selection`, so that many rows need little allocation.
struct SelectionAuditScratch {
    SelectedSet<double> set;
    std::vector<Index> keys;
    std::vector<double> selected;
};

/// Audits the selections of one row. p: weights of the visible keys, x: their vectors, order: their ranking by
/// weight, counts: the N to look at (those with 1 <= N < L; others are left out), gram: as in
/// `fixed_set_geometry`. Every N is checked on the top-N set and on one random set of N keys drawn from
/// `generator`.
inline void audit_selection(Audit& audit, RowIn<double> p, MatrixView<double> x, std::span<const Index> order,
                            std::span<const Index> counts, const SelectionAuditOptions& options,
                            SplitMix64& generator, SelectionAuditScratch& scratch,
                            const Matrix<double>* gram = nullptr) {
    const Index n = static_cast<Index>(p.size());
    const auto check_set = [&](std::span<const Index> selected) {
        scratch.set.assign(p, x, selected);
        const auto geometry = fixed_set_geometry(scratch.set, gram);
        audit.add(theorem1_fixed_published(scratch.set, geometry, options.reading));
        audit.add(theorem1_fixed_sharp(scratch.set, geometry, options.reading));
    };
    std::optional<RandomSubsetMoments<double>> moments;
    for (const Index count : counts) {
        if (count < 1 || count >= n) continue;
        const auto top = order.first(static_cast<std::size_t>(count));
        check_set(top);
        scratch.keys.assign(order.begin(), order.end());
        for (Index i = 0; i < count; ++i)
            std::swap(scratch.keys[static_cast<std::size_t>(i)],
                      scratch.keys[static_cast<std::size_t>(i + generator.below(n - i))]);
        check_set(std::span<const Index>(scratch.keys).first(static_cast<std::size_t>(count)));
        if (!options.expectations) continue;

        if (!moments) moments.emplace(p, x);
        const auto expected =
            mean_subset_distance<double>(p, x, count, Reading::cumulative, options.subsets, generator);
        audit.add(theorem1_random_published(*moments, count, expected));
        audit.add(theorem1_random_sharp(*moments, count, expected));
        audit.add(corollary2_published(*moments, count, expected));
        audit.add(corollary2_sharp(*moments, count, expected));

        // A single token sits at s itself, and a line has no sphere: Theorem 2 needs N >= 2 and d >= 2.
        if (count < 2 || x.cols() < 2) continue;
        scratch.selected.clear();
        for (const Index i : top) scratch.selected.push_back(p[static_cast<std::size_t>(i)]);
        const std::span<const double> selected(scratch.selected);
        const SphericalModel model{.dimension = x.cols()};
        const std::vector<double> xi = theorem2_xi(selected, model);
        const double mean = std::accumulate(xi.begin(), xi.end(), 0.0) / static_cast<double>(count);
        if (!(mean > 0)) continue;
        const std::array<double, 3> radii = {mean / 2, mean, 2 * mean};
        const auto fractions = simulate_separable_fraction(selected, model, std::span<const double>(radii),
                                                           options.trials, generator);
        for (std::size_t r = 0; r < radii.size(); ++r)
            for (const Side side : {Side::lower, Side::upper}) {
                Bound<double> published = theorem2_bound(
                    Form::published, side, theorem2_published_range(selected, model, radii[r]), fractions[r]);
                Bound<double> sharp = theorem2_bound(
                    Form::sharp, side, theorem2_valid_range(selected, model, radii[r]), fractions[r]);
                audit.add(published);
                audit.add(sharp);
                if (r > 0) continue;
                // The row's own vectors are no sample of a sphere: said once for each N.
                published.assumption_met = sharp.assumption_met = false;
                audit.add(published);
                audit.add(sharp);
            }
    }
}

} // namespace v0_1
} // namespace attnscope
