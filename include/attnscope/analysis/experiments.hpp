// The experiments of arXiv:2508.17821 over the heads of a model: what is asked, and what they say together.
#pragma once

#include <attnscope/analysis/head_curves.hpp>
#include <attnscope/audit/audit.hpp>
#include <attnscope/planner/head_plan.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selection/critical_n.hpp>
#include <attnscope/selection/distance.hpp>

#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// How much is run, and what the paper leaves open: see `experiment_options`.
struct ExperimentOptions {
    std::vector<Index> lengths;         ///< L of the text, ascending; the last is the whole text
    std::vector<Index> counts;          ///< N, ascending
    std::vector<Index> audited_counts;  ///< N of the statements about selections
    std::vector<Index> ball_counts;     ///< N of Algorithm 4's bounds
    std::vector<double> temperatures;   ///< of Algorithm 5, ascending
    std::vector<double> steps;          ///< eps of Algorithm 5
    Index fixed_count = 5;              ///< N of Algorithm 1
    Index sampled_rows = 16;            ///< of Algorithm 4, beside the last row of every head
    std::optional<PlanQuestion> plan{}; ///< also what every head needs

    UnitVectors unit_vectors = UnitVectors::separability;
    ShortRows short_rows = ShortRows::exclude;
    Reading reading = Reading::cumulative; ///< of the distance that critical N and the findings use
    double level = 0.05;                   ///< of the Kolmogorov-Smirnov test
    std::optional<double> radius{}; ///< of Algorithm 4's ball; up to the nearest other token unless given
    std::uint64_t seed = 1;         ///< of sampled rows, directions and random selections
};

/// Lengths 32, 64, ... up to `length`; every N up to 0.15 of it, the paper's 1, 5, 10, 20, 100, and up to length - 1 about
/// 12 for each factor of 10; ten temperatures; a plan for weight 1/2 at 131,072 keys and 1 % of the output. quick: fewer
/// of all. What the paper leaves open is taken over from `options`.
/// Throws. `invalid_argument` for a text of less than 2 tokens.
inline ExperimentOptions experiment_options(Index length, bool quick = false, ExperimentOptions options = {}) {
    detail::require(length >= 2, "experiment_options", "the text must have at least 2 tokens", length);
    options.lengths.clear();
    for (Index l = 32; l < length; l *= 2) options.lengths.push_back(l);
    options.lengths.push_back(length);

    const Index dense = quick ? 0 : static_cast<Index>(0.15 * static_cast<double>(length));
    std::vector<Index> counts = {1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 64, 100, 128, 256, 512};
    for (Index n = 1; n <= dense; ++n) counts.push_back(n);
    const double steps = quick ? 6 : 12; // for each factor of 10
    for (double step = 0;; ++step) {
        const double n = std::round(std::pow(10, step / steps));
        if (n >= static_cast<double>(length)) break;
        counts.push_back(static_cast<Index>(n));
    }
    counts.push_back(length - 1);
    std::sort(counts.begin(), counts.end());
    counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
    const auto below = [&](std::vector<Index> list) {
        std::erase_if(list, [&](Index n) { return n >= length; });
        return list;
    };
    options.counts = below(std::move(counts));
    options.audited_counts =
        below(quick ? std::vector<Index>{1, 5, 20} : std::vector<Index>{1, 5, 10, 20, 100});
    options.ball_counts =
        below(quick ? std::vector<Index>{2, 8, 32} : std::vector<Index>{2, 4, 8, 16, 32, 64, 128, 256});
    options.sampled_rows = quick ? 4 : 16;
    options.temperatures = quick ? std::vector<double>{0.01, 0.1, 1, 10}
                                 : std::vector<double>{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10};
    options.steps = {1e-3, 1e-1, 10};
    PlanQuestion question;
    question.weight = 0.5;
    question.output_error = 0.01;
    question.bits = true;
    question.rows = quick ? 8 : 24;
    options.plan = question;
    return options;
}

/// The curves of a head, and what else is said of it: `at_length.back()` is the whole text, with its `entropy_nats`,
/// `participation_ratio` and `max_weight` (means over rows) and the figures of selections, see `Experiments::figure`.
struct ExperimentHead : HeadCurves {
    Index layer = 0, head = 0;
    Index rows = 0, skipped = 0; ///< rows seen, and those of them that have no weights
    double spectral = 0;         ///< mean |J|_2 at temperature 1
    double first_key_mass = 0;   ///< mean weight of key 0 over the queries that see it
    Index sink_key = 0;          ///< the key with the largest mean weight, among those that a quarter of the
    double sink_mass = 0;        ///< queries see; and that mean
    HeadPlan plan;               ///< where it was asked for
};

/// One figure over the heads.
struct OverHeads {
    double mean = 0, low = 0, high = 0; ///< low, high: between them lie 8 of 10 heads
};
/// Mean, and the 10 % and 90 % quantiles, of the numbers that are not NaN; NaN if there is none.
/// Cost. O(n log n).
inline OverHeads over_heads(std::vector<double> numbers) {
    std::erase_if(numbers, [](double x) { return std::isnan(x); });
    if (numbers.empty()) {
        const double nan = std::numeric_limits<double>::quiet_NaN();
        return {nan, nan, nan};
    }
    std::sort(numbers.begin(), numbers.end());
    const double sum = std::accumulate(numbers.begin(), numbers.end(), 0.0);
    const auto quantile = [&](double share) {
        const double at = share * static_cast<double>(numbers.size() - 1);
        const auto below = static_cast<std::size_t>(at);
        const double rest = at - static_cast<double>(below);
        return numbers[below] + (rest > 0 ? rest * (numbers[below + 1] - numbers[below]) : 0);
    };
    return {sum / static_cast<double>(numbers.size()), quantile(0.1), quantile(0.9)};
}

/// Algorithm 3 for one length.
struct CriticalCount {
    Index length = 0;
    std::optional<Index> count;   ///< the smallest N that the test cannot tell apart
    std::vector<double> p_values; ///< [counts]; NaN where no head has the N
};

/// What the experiments found in all heads of a model on one text: `run_experiments` fills it, a layer at a time, each once.
/// Throws. Members that look at heads, and whatever takes the result of all layers, `invalid_argument` while a layer is
/// missing; they name it.
/// Example:
///     Experiments found(experiment_options(tokens), layers, heads);
///     for (Index layer = 0; layer < layers; ++layer)
///         run_experiments(found, layer, group_of(layer), Mask::causal());
///     const std::vector<Finding> beside_the_paper = findings(found);
struct Experiments {
    ExperimentOptions options;
    Index layers = 0, heads_per_layer = 0;
    Index vector_width = 0;                  ///< of the vectors that stand for tokens
    std::vector<ExperimentHead> heads;       ///< by layer, then head
    Audit audit;                             ///< of all heads
    std::vector<std::vector<Index>> sampled; ///< queries of each head on which Algorithm 4 is looked at

    Experiments() = default;
    /// Nothing is run yet; rows are drawn.
    /// Throws. `invalid_argument` unless there are lengths, layers and heads.
    Experiments(ExperimentOptions asked, Index layers_of_model, Index heads_of_layer)
        : options(std::move(asked)), layers(layers_of_model), heads_per_layer(heads_of_layer) {
        detail::require(!options.lengths.empty() && options.lengths.back() >= 1, "Experiments",
                        "the options must have lengths >= 1");
        detail::require(layers >= 1 && heads_per_layer >= 1, "Experiments", "there must be layers and heads",
                        layers, heads_per_layer);
        const Index count = layers * heads_per_layer, queries = tokens();
        heads.resize(static_cast<std::size_t>(count));
        for (Index i = 0; i < count; ++i) {
            heads[static_cast<std::size_t>(i)].layer = i / heads_per_layer;
            heads[static_cast<std::size_t>(i)].head = i % heads_per_layer;
        }
        // The last query of each head, and some others anywhere.
        sampled.assign(heads.size(), {queries - 1});
        SplitMix64 random(options.seed);
        for (Index drawn = 0; drawn < std::min(options.sampled_rows, count * (queries - 1));) {
            std::vector<Index>& head = sampled[static_cast<std::size_t>(random.below(count))];
            const Index query = random.below(queries - 1);
            if (std::find(head.begin(), head.end(), query) != head.end()) continue;
            head.push_back(query);
            ++drawn;
        }
        for (std::vector<Index>& head : sampled) std::sort(head.begin(), head.end());
    }

    Index tokens() const { return options.lengths.empty() ? 0 : options.lengths.back(); }
    /// Have the heads of a layer been run?
    bool has_run(Index layer) const {
        return std::all_of(heads.begin(), heads.end(), [&](const ExperimentHead& head) {
            return head.layer != layer || head.at_length.size() == options.lengths.size();
        });
    }
    /// Throws. `invalid_argument` unless every layer has been run.
    void require_all(std::string_view function) const {
        for (const ExperimentHead& head : heads)
            if (head.at_length.size() != options.lengths.size())
                detail::fail(function,
                             "every layer must have been run, layer " + to_text(head.layer) + " has not");
    }
    std::size_t last_length() const { return options.lengths.size() - 1; }
    /// Place of an N among the counts, or of the largest below it. Nothing if they begin above it.
    std::optional<std::size_t> place(Index count) const {
        const auto above = std::upper_bound(options.counts.begin(), options.counts.end(), count);
        if (above == options.counts.begin()) return std::nullopt;
        return static_cast<std::size_t>(above - options.counts.begin() - 1);
    }
    /// The figures whose distance the options read: measured, and of random selections.
    CurveFigure distance() const {
        return options.reading == Reading::resultant ? CurveFigure::resultant : CurveFigure::distance;
    }
    CurveFigure random_distance() const {
        return options.reading == Reading::resultant ? CurveFigure::random_resultant
                                                     : CurveFigure::random_lower;
    }
    /// A figure of a head on the whole text at an N of the counts, or at the largest below it; NaN if they begin above it, or
    /// if no row has so many keys. Example: `found.figure(found.heads[3], CurveFigure::separable, 16)`.
    double figure(const ExperimentHead& head, CurveFigure figure, Index count) const {
        const auto at = place(count);
        return at && !head.at_length.empty() ? head.at_length.back().at(figure, *at)
                                             : std::numeric_limits<double>::quiet_NaN();
    }
    /// A figure at one length and N, of every head.
    std::vector<double> of_heads(CurveFigure figure, std::size_t length, std::size_t count) const {
        require_all("Experiments");
        std::vector<double> numbers;
        for (const ExperimentHead& head : heads) numbers.push_back(head.at_length[length].at(figure, count));
        return numbers;
    }
    OverHeads over(CurveFigure figure, std::size_t length, std::size_t count) const {
        return over_heads(of_heads(figure, length, count));
    }
    /// Rows of all heads with more than N visible keys.
    Index rows(std::size_t length, std::size_t count) const {
        require_all("Experiments");
        Index sum = 0;
        for (const ExperimentHead& head : heads) sum += head.at_length[length].rows[count];
        return sum;
    }
    /// Algorithm 3: the distances of the top-N and of random selections, of all heads, tested for each N.
    CriticalCount critical(std::size_t length) const {
        CriticalCount result;
        result.length = options.lengths[length];
        for (std::size_t c = 0; c < options.counts.size(); ++c) {
            result.p_values.push_back(
                kolmogorov_smirnov(of_heads(distance(), length, c), of_heads(random_distance(), length, c))
                    .p_value);
            if (!result.count && result.p_values.back() >= options.level) result.count = options.counts[c];
        }
        return result;
    }
};

} // namespace v0_2
} // namespace attnscope
