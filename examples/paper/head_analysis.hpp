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

/// Curves, and what else is said of a head.
struct HeadResult : attnscope::HeadCurves {
    Index layer = 0, head = 0;
    Index rows = 0, skipped = 0; ///< rows seen, and those of them that have no weights
    double spectral = 0;         ///< mean |J|_2 at temperature 1
    double first_key_mass = 0;   ///< mean weight of key 0 over the queries that see it
    Index sink_key = 0;          ///< the key with the largest mean weight, among those that a quarter of the
    double sink_mass = 0;        ///< queries see; and that mean
    attnscope::Audit audit;
    attnscope::HeadPlan plan; ///< what the head needs: `plan_question`
};

/// One head of a model: its queries and keys, and what stands for the tokens.
struct HeadInput {
    Index layer = 0, head = 0;
    HeadView<float> view;       ///< q, k and the vectors x as v
    std::vector<Index> sampled; ///< queries of Algorithm 4 and of the statements about expectations, ascending
};

/// What every head is planned for: weight 1/2 at 131,072 keys, 1 % of the output for top-k, top-p and key bits.
attnscope::PlanQuestion plan_question(const Settings& settings);

/// The plan of one head of a model, from its own queries, keys and values.
attnscope::HeadPlan plan_of(const HeadView<float>& head, const Mask& mask, const Settings& settings);

/// Audits token_jacobian on the first tokens of a head whose projections W_Q, W_K, W_V side by side are known.
void audit_projections(attnscope::Audit& audit, const HeadView<float>& head, const Mask& mask,
                       const attnscope::HeadProjections<double>& projections);

/// The curves of a head, and what its rows say otherwise: different members of the result, so that two threads may work
/// on it at once. Each on the calling thread; the result depends on the other arguments only. Memory O(keys^2) doubles.
/// Cost O(queries keys max N).
void add_curves(HeadResult& result, const HeadInput& input, const Mask& mask, const Settings& settings);
void add_audit(HeadResult& result, const HeadInput& input, const Mask& mask, const Settings& settings);

/// Both.
HeadResult analyse_head(const HeadInput& input, const Mask& mask, const Settings& settings);

} // namespace paper
