// What some heads need, and what serves all of them.
#pragma once

#include <attnscope/planner/head_plan.hpp>

#include <string>

namespace attnscope {
inline namespace v0_2 {

/// The plan of one head of a model, and which it is.
struct PlacedPlan : HeadPlan {
    Index batch = 0, layer = 0, head = 0;
};

/// The plans of some heads, all of one question: as text by fmt or `to_table` (plan_text.hpp), as JSON by `io::to_json`.
/// Example, of one head:
///     HeadPlans plans{{.weight = 0.5}, {}, {}, {}};
///     plans.heads.push_back({plan_head(q, k, v, plans.question, Mask::causal())});
///     const std::string text = io::to_json(plans).dump(1); // with io/plan_json.hpp
struct HeadPlans {
    PlanQuestion question;
    std::vector<PlacedPlan> heads;
    std::vector<CacheChoice> choices; ///< formats of the cache, on the rows of all heads: `pool_choices`
    std::vector<std::string> formats_left_out; ///< whose blocks do not divide the channels, by name

    /// Sets `choices` from those of the heads.
    /// Cost. As of `pooled_choices`.
    /// Throws. As `pooled_choices`.
    void pool_choices() {
        std::vector<const std::vector<CacheChoice>*> of_heads;
        for (const PlacedPlan& head : heads)
            if (head.bits && !head.bits->choices.empty()) of_heads.push_back(&head.bits->choices);
        choices = pooled_choices(of_heads);
    }

    /// The largest error, over the heads, that the share of the rows of a head keeps under a pair of formats.
    /// Shapes and units. `choice`: its place in `choices`.
    double worst_error(std::size_t choice) const {
        double worst = 0;
        for (const PlacedPlan& head : heads)
            if (head.bits && choice < head.bits->choices.size())
                worst =
                    std::max(worst, need_for_share(head.bits->choices[choice].error, question.budget_share()));
        return worst;
    }
};

} // namespace v0_2
} // namespace attnscope
