// The paper's five algorithms, and what it does not have, on one head.
#pragma once

#include "settings.hpp"

#include <attnscope/attention/head.hpp>
#include <attnscope/audit/audit.hpp>
#include <attnscope/planner/head_plan.hpp>
#include <attnscope/sensitivity/head_jacobian.hpp>

#include <optional>

namespace paper {

using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;

/// Means over the rows of a head, for the first L tokens of the text.
struct Curves {
    Matrix<double> mean;     ///< [figures, counts]; NaN where no row counts
    std::vector<Index> rows; ///< [counts]: those with more than N visible keys
    Index normal_rows = 0;   ///< rows that have weights
    double entropy_nats = 0, participation_ratio = 0, max_weight = 0; ///< over the normal rows

    double at(Figure figure, std::size_t count) const {
        return mean(static_cast<Index>(figure), static_cast<Index>(count));
    }
};

/// Algorithm 5 at one temperature.
struct Sensitivity {
    std::vector<double> mean, largest; ///< [steps]: of g = |p(z + eps v) - p(z)|/eps over the rows
    std::vector<Index> above;          ///< [steps]: rows above the published limit by more than rounding
    double spectral = 0;               ///< mean |J|_2
    double spectral_largest = 0;
    double random_direction = 0; ///< mean of |J|_F/sqrt(n), the root mean square of |J v| over random v
};

/// Algorithm 4 on one selection.
struct Ball {
    Index query = 0, visible = 0, count = 0;
    double radius = 0;
    double separable = 0; ///< N_s/N as measured
    attnscope::Interval<double> published, valid;
    double expected = 0; ///< E N_s/N on the spherical model; NaN where the radius is given
};

struct HeadResult {
    Index layer = 0, head = 0;
    Index rows = 0, skipped = 0;   ///< rows seen, and those of them that have no weights
    std::vector<Curves> at_length; ///< by length
    std::vector<Sensitivity> at_temperature;
    std::vector<Ball> balls;
    double spectral = 0;       ///< mean |J|_2 at temperature 1
    double first_key_mass = 0; ///< mean weight of key 0 over the queries that see it
    Index sink_key = 0;        ///< the key with the largest mean weight, among those that a quarter of the
    double sink_mass = 0;      ///< queries see; and that mean
    attnscope::Audit audit;
    attnscope::HeadPlan plan; ///< what the head needs: `plan_question`
};

/// One head of a model: its queries and keys, and what stands for the tokens.
struct HeadInput {
    Index layer = 0, head = 0;
    HeadView<float> view;       ///< q, k and the vectors x as v
    std::vector<Index> sampled; ///< queries of Algorithm 4 and of the statements about expectations, ascending
};

/// Seed of the random direction of a row in Algorithm 5: `random_direction` over its visible keys.
std::uint64_t direction_seed(std::uint64_t seed, Index layer, Index head, Index query);

/// What every head is planned for: weight 1/2 at 131,072 keys, 1 % of the output for top-k, top-p and key bits.
attnscope::PlanQuestion plan_question(const Settings& settings);

/// The plan of one head of a model, from its own queries, keys and values.
attnscope::HeadPlan plan_of(const HeadView<float>& head, const Mask& mask, const Settings& settings);

/// Audits the statements about a head as a whole: rank_collapse and dobrushin on some of its queries, and, if
/// its projections W_Q, W_K, W_V side by side are known, token_jacobian on its first tokens.
void audit_head(attnscope::Audit& audit, const HeadView<float>& head, const Mask& mask,
                const std::optional<attnscope::HeadProjections<double>>& projections);

/// Everything about one head, on the calling thread. The result depends on the arguments only. Memory
/// O(keys^2) doubles. Cost O(queries keys max N).
HeadResult analyse_head(const HeadInput& input, const Mask& mask, const Settings& settings);

} // namespace paper
