// Holds the statements about selections against one row: Theorem 1, Corollary 2, Theorem 2 and truncation.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/selection/separability_bounds.hpp>
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selection/theorem1_random.hpp>
#include <attnscope/selection/truncation.hpp>

namespace attnscope {
inline namespace v0_2 {

/// How a `SelectionAuditor` measures.
struct SelectionAuditOptions {
    Reading reading = Reading::cumulative; ///< of the distance in Theorem 1(1)
    Index subsets = 200;                   ///< drawn for an expectation over subsets of more than 12 tokens
    Index trials = 128;                    ///< draws of sphere vectors for an expectation of Theorem 2
};

/// The tokens that one query sees, ranked. Borrowed.
template <Real T = double>
struct RankedTokens {
    RowIn<T> weights;             ///< [n]
    MatrixView<T> x;              ///< [n, d], their vectors
    std::span<const Index> order; ///< [n], their ranking by weight: see `Ranking`
    /// Inner products of vectors that begin with x, and the farthest of the n tokens, where they are known.
    const Matrix<Accumulator<T>>* gram = nullptr;
    const FarthestTokens<Accumulator<T>>* farthest = nullptr;
};

/// One set of tokens and what Theorem 1(1) is made of.
template <Real T = double>
struct MeasuredSet {
    const SelectedSet<T>* set;
    FixedSetGeometry<Accumulator<T>> geometry;
};

/// Holds the paper's statements about selections against the rows of a head.
/// Cost. Memory is kept from row to row.
/// Example, with weights p [n] and vectors x [n, d] of double:
///     Audit audit;
///     Ranking<double> ranking;
///     ranking.rank(p);
///     SelectionAuditor auditor;
///     auditor(audit, {p, x, ranking.order()}, std::vector<Index>{1, 4, 16});
template <Real T = double>
class SelectionAuditor {
public:
    using A = Accumulator<T>;
    using Tokens = RankedTokens<T>;

    /// seed: of random sets, subsets and sphere vectors.
    explicit SelectionAuditor(const SelectionAuditOptions& options = {}, std::uint64_t seed = 1)
        : options_(options), generator_(seed) {}

    /// The draws of the rows to come are those of a new auditor with this seed.
    void reseed(std::uint64_t seed) { generator_ = SplitMix64(seed); }

    /// theorem1_fixed on the top-N set of each N in `counts` and on one random set of N tokens; of weights that sum to 1
    /// also truncation_output on these sets, and truncation_gap on the top-N sets, where the set has weight. What is not
    /// in 1 <= N < n is left out.
    /// Cost. O(n d) a set, without `gram` O(N n d) more.
    void operator()(Audit& audit, const Tokens& tokens, std::span<const Index> counts) {
        measure(tokens, counts);
        add(audit);
    }

    /// The first half of that: measures the sets, for those who need them for more than the audit. The top-N set of
    /// each N in `counts` with 1 <= N < n, in their order; valid until the next row. random_sets: also the others.
    std::span<const MeasuredSet<T>> measure(const Tokens& tokens, std::span<const Index> counts,
                                            bool random_sets = true) {
        draw(tokens, counts, random_sets);
        if (sets_.size() < chosen_.size()) sets_.resize(chosen_.size());
        measured_.clear();
        const std::span<SelectedSet<T>> sets = std::span(sets_).first(chosen_.size());
        SelectedSet<T>::assign_all(sets, tokens.weights, tokens.x, chosen_);
        for (const SelectedSet<T>& set : sets)
            measured_.push_back({&set, tokens.farthest ? fixed_set_geometry(set, *tokens.farthest)
                                                       : fixed_set_geometry(set, tokens.gram)});
        gaps_.clear();
        for (std::size_t i = 0; i < top_; ++i) {
            const std::size_t count = chosen_[i].size();
            const A last = A(detail::at(tokens.weights, tokens.order[count - 1])),
                    next = A(detail::at(tokens.weights, tokens.order[count]));
            gaps_.push_back(next < last ? std::log(last) - std::log(next) : A(0));
        }
        return std::span(measured_).first(top_);
    }

    /// The second half: the statements on every set that was measured. The gap is log(p_(N)/p_(N+1)) of the weights, for
    /// softmax that of the logits over T.
    void add(Audit& audit) const {
        for (std::size_t i = 0; i < measured_.size(); ++i) {
            const SelectedSet<T>& set = *measured_[i].set;
            audit.add(theorem1_fixed_published(set, measured_[i].geometry, options_.reading));
            audit.add(theorem1_fixed_sharp(set, measured_[i].geometry, options_.reading));
            // A sum that misses 1 by rounding moves the share of the others by as much.
            const A missing = std::abs(set.mass() + set.tail_mass() - A(1));
            if (!(set.mass() > A(0) && missing < A(1e-3))) continue;
            audit.add(truncation_output_bound(set, measured_[i].geometry.spread));
            if (i < top_)
                audit.add(truncation_gap_bound(set, gaps_[i],
                                               missing + std::numeric_limits<A>::epsilon() *
                                                             static_cast<A>(set.size() + 8)));
        }
    }

    /// The statements about expectations: theorem1_random and corollary2 over all subsets of N for n <= 12,
    /// else over `subsets` drawn ones; theorem2 over `trials` draws of sphere vectors that carry the row's
    /// own weights.
    /// Cost. O(n d^2), and O(subsets n d + trials N d) for each N.
    void expectations(Audit& audit, const Tokens& tokens, std::span<const Index> counts) {
        std::optional<RandomSubsetMoments<T>> moments;
        std::optional<SubsetDistance<T>> distance;
        for (const Index count : counts) {
            if (!is_selection(tokens, count)) continue;
            if (!moments) distance.emplace(moments.emplace(tokens.weights, tokens.x));
            const auto expected = mean_subset_distance<T>(tokens.weights, tokens.x, count, Reading::cumulative,
                                                          options_.subsets, generator_);
            audit.add(theorem1_random_published(*moments, count, expected));
            audit.add(theorem1_random_sharp(*moments, *distance, count, expected));
            audit.add(corollary2_published(*moments, count, expected));
            audit.add(corollary2_sharp(*moments, count, expected));
            // A single token sits at s itself, and a line has no sphere: Theorem 2 needs N >= 2 and d >= 2.
            if (count >= 2 && tokens.x.cols() >= 2) check_spheres(audit, tokens, count);
        }
    }

private:
    static bool is_selection(const Tokens& tokens, Index count) {
        return count >= 1 && count < static_cast<Index>(tokens.weights.size());
    }

    /// The keys of the top-N sets, then of as many random ones, into `chosen_`.
    void draw(const Tokens& tokens, std::span<const Index> counts, bool random_sets) {
        const Index n = static_cast<Index>(tokens.weights.size());
        chosen_.clear();
        for (const Index count : counts)
            if (is_selection(tokens, count))
                chosen_.push_back(tokens.order.first(static_cast<std::size_t>(count)));
        top_ = chosen_.size();
        if (!random_sets) return;
        if (keys_.size() < top_) keys_.resize(top_);
        for (std::size_t set = 0; set < top_; ++set) {
            std::vector<Index>& keys = keys_[set];
            const std::size_t count = chosen_[set].size();
            keys.assign(tokens.order.begin(), tokens.order.end());
            for (std::size_t i = 0; i < count; ++i)
                std::swap(keys[i],
                          keys[i + static_cast<std::size_t>(generator_.below(n - static_cast<Index>(i)))]);
            chosen_.push_back(std::span<const Index>(keys).first(count));
        }
    }

    void check_spheres(Audit& audit, const Tokens& tokens, Index count) {
        selected_.clear();
        for (const Index i : tokens.order.first(static_cast<std::size_t>(count)))
            selected_.push_back(static_cast<double>(detail::at(tokens.weights, i)));
        const std::span<const double> selected(selected_);
        const SphericalModel model{.dimension = tokens.x.cols()};
        const std::vector<double> xi = theorem2_xi(selected, model);
        const double mean = std::accumulate(xi.begin(), xi.end(), 0.0) / static_cast<double>(count);
        if (!(mean > 0)) return;
        const std::array<double, 3> radii = {mean / 2, mean, 2 * mean};
        const auto fractions = simulate_separable_fraction(selected, model, std::span<const double>(radii),
                                                           options_.trials, generator_);
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

    SelectionAuditOptions options_;
    SplitMix64 generator_;
    std::vector<SelectedSet<T>> sets_;
    std::vector<MeasuredSet<T>> measured_;
    std::vector<std::span<const Index>> chosen_; ///< keys of each set, `top_` of them by weight
    std::size_t top_ = 0;
    std::vector<A> gaps_;                  ///< of the top-N sets
    std::vector<std::vector<Index>> keys_; ///< of random sets
    std::vector<double> selected_;
};

} // namespace v0_2
} // namespace attnscope
