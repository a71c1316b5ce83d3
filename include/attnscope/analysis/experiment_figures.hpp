// Figures of the experiments over heads: what stands for a head, Algorithm 4's balls, Algorithm 5's gradient.
#pragma once

#include <attnscope/analysis/experiments.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What stands for a head in a table or on a map.
struct HeadFigure {
    std::string_view name, title;
    double (*value)(const Experiments&, const ExperimentHead&);
};

namespace detail {
constexpr double no_plan = std::numeric_limits<double>::quiet_NaN();
} // namespace detail

/// Means over the rows of a head that has been run, on the whole text; the last six are of its plan, for `experiment_options`.
inline constexpr std::array<HeadFigure, 18> experiment_head_figures = {{
    {"participation_ratio", "effective N: 1/sum p², keys",
     [](const Experiments&, const ExperimentHead& h) { return h.at_length.back().participation_ratio; }},
    {"sink_mass", "mean weight on the strongest sink",
     [](const Experiments&, const ExperimentHead& h) { return h.sink_mass; }},
    {"spectral", "sensitivity |J|₂ at T = 1",
     [](const Experiments&, const ExperimentHead& h) { return h.spectral; }},
    {"separable_16", "N_s/N at N = 16",
     [](const Experiments& e, const ExperimentHead& h) { return e.figure(h, CurveFigure::separable, 16); }},
    {"f_score_16", "F at N = 16",
     [](const Experiments& e, const ExperimentHead& h) { return e.figure(h, CurveFigure::f_score, 16); }},
    {"mass_16", "mass of the 16 largest weights",
     [](const Experiments& e, const ExperimentHead& h) { return e.figure(h, CurveFigure::mass, 16); }},
    {"entropy_nats", "entropy, nats",
     [](const Experiments&, const ExperimentHead& h) { return h.at_length.back().entropy_nats; }},
    {"max_weight", "largest weight p1",
     [](const Experiments&, const ExperimentHead& h) { return h.at_length.back().max_weight; }},
    {"first_key_mass", "mean weight of the first key",
     [](const Experiments&, const ExperimentHead& h) { return h.first_key_mass; }},
    {"sink_key", "the strongest sink",
     [](const Experiments&, const ExperimentHead& h) { return static_cast<double>(h.sink_key); }},
    {"distance_5", "d(5)",
     [](const Experiments& e, const ExperimentHead& h) { return e.figure(h, CurveFigure::distance, 5); }},
    {"output_lost_5", "|o - o_5|",
     [](const Experiments& e, const ExperimentHead& h) { return e.figure(h, CurveFigure::lost, 5); }},
    {"context_half", "context for weight 1/2, keys",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.length ? std::min(h.plan.length->limits.expected, 1e12) : detail::no_plan;
     }},
    {"temperature_half", "T for weight 1/2 at 131,072",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.aims.empty() ? detail::no_plan : 1 / h.plan.aims.front().inverse_temperature;
     }},
    {"temperature_half_safe", "the same, gaps do not grow",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.steady ? 1 / h.plan.steady->inverse_temperature : detail::no_plan;
     }},
    {"top_k_1", "keys for 1 % of the output",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.output ? static_cast<double>(h.plan.output->measured) : detail::no_plan;
     }},
    {"top_k_1_certified", "the same, certified",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.output ? static_cast<double>(h.plan.output->certified) : detail::no_plan;
     }},
    {"key_bits_1", "bits of a key for 1 %",
     [](const Experiments&, const ExperimentHead& h) {
         return h.plan.bits ? static_cast<double>(h.plan.bits->bits.measured) : detail::no_plan;
     }},
}};

/// Means of Algorithm 4 over the sampled rows that have the N.
struct MeanBall {
    Index count = 0, rows = 0;
    double separable = 0, published_lower = 0, published_upper = 0, valid_lower = 0, valid_upper = 0,
           expected = 0;
};
/// One for each N that some row has.
/// Throws. `invalid_argument` while a layer is missing.
inline std::vector<MeanBall> mean_balls(const Experiments& found) {
    found.require_all("mean_balls");
    std::vector<MeanBall> means;
    for (const Index count : found.options.ball_counts) {
        MeanBall mean;
        mean.count = count;
        for (const ExperimentHead& head : found.heads)
            for (const SeparabilityBall& ball : head.balls) {
                if (ball.count != count) continue;
                ++mean.rows;
                mean.separable += ball.separable;
                mean.published_lower += ball.published.lower;
                mean.published_upper += ball.published.upper;
                mean.valid_lower += ball.valid.lower;
                mean.valid_upper += ball.valid.upper;
                mean.expected += ball.expected;
            }
        if (mean.rows == 0) continue;
        for (double* figure : {&mean.separable, &mean.published_lower, &mean.published_upper, &mean.valid_lower,
                               &mean.valid_upper, &mean.expected})
            *figure /= static_cast<double>(mean.rows);
        means.push_back(mean);
    }
    return means;
}

/// Algorithm 5 over the heads, at one temperature and step.
struct MeanGradient {
    double mean = 0, largest_head = 0,
           largest_row = 0;          ///< mean over rows, then over heads; the largest of each
    double published = 0, sharp = 0; ///< limits
    Index above = 0;                 ///< rows above the published one
};
/// Cost. O(heads log heads).
/// Throws. `invalid_argument` while a layer is missing.
inline MeanGradient mean_gradient(const Experiments& found, std::size_t temperature, std::size_t step) {
    found.require_all("mean_gradient");
    MeanGradient result;
    std::vector<double> means;
    result.largest_head = std::numeric_limits<double>::quiet_NaN();
    for (const ExperimentHead& head : found.heads) {
        const TemperatureCurve& at = head.at_temperature[temperature];
        means.push_back(at.mean[step]);
        result.largest_head = std::fmax(result.largest_head, at.mean[step]);
        result.largest_row = std::max(result.largest_row, at.largest[step]);
        result.above += at.above[step];
    }
    result.mean = over_heads(std::move(means)).mean;
    result.published = published_gradient_limit(found.options.temperatures[temperature]);
    result.sharp = finite_difference_limit(found.options.temperatures[temperature], found.options.steps[step]);
    return result;
}

} // namespace v0_2
} // namespace attnscope
