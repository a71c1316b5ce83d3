// The plans of the heads of a capture, as text and as JSON.
#pragma once

#include <attnscope/planner/head_plans.hpp>
#include <support/capture.hpp>

#include <string>
#include <vector>

namespace plan {

using attnscope::Index;

/// The plans of all heads of a capture.
struct Plan : attnscope::HeadPlans {
    std::string source;
    Index queries = 0, keys = 0;
    bool causal = false;
    std::vector<std::string> assumptions, warnings; ///< about the capture, a line each
};

/// The formats of a list of names with commas between them, of keys (else of values): those of `cache_format`, and kivi2
/// to kivi8 for KIVI's groups of either. Throws `usage_error` for another name, or none.
std::vector<attnscope::CacheFormat> cache_formats(std::string_view list, bool keys);

/// Do q, k and the mask alone say what the logits are that softmax sees?
bool has_plain_keys(const program::Capture& capture);

/// Plans every head of a capture on `threads` threads.
Plan make_plan(const program::Capture& capture, const attnscope::PlanQuestion& question, Index threads);

std::string to_text(const Plan& plan);
std::string to_json(const Plan& plan);

} // namespace plan
