// The plans of the heads of a capture, as text and as JSON.
#pragma once

#include <attnscope/planner/head_plan.hpp>
#include <support/capture.hpp>

#include <string>
#include <vector>

namespace plan {

using attnscope::Index;

/// The plan of one head, and which it is.
struct PlacedPlan : attnscope::HeadPlan {
    Index batch = 0, layer = 0, head = 0;
};

/// The plans of all heads of a capture.
struct Plan {
    std::string source;
    attnscope::PlanQuestion question;
    Index queries = 0, keys = 0;
    bool causal = false;
    std::vector<std::string> assumptions, warnings; ///< about the capture, a line each
    std::vector<PlacedPlan> heads;
    std::vector<attnscope::CacheChoice> choices; ///< formats of the cache, on the rows of all heads
    std::vector<std::string> formats_left_out;   ///< whose blocks do not divide the channels, by name
};

/// The formats of a list of names with commas between them, of keys (else of values): those of `cache_format`, and kivi2
/// to kivi8 for KIVI's groups of either. Throws `usage_error` for another name, or none.
std::vector<attnscope::CacheFormat> cache_formats(std::string_view list, bool keys);

/// Do q, k and the mask alone say what the logits are?
bool has_plain_keys(const program::Capture& capture);

/// Plans every head of a capture on `threads` threads.
Plan make_plan(const program::Capture& capture, const attnscope::PlanQuestion& question, Index threads);

std::string to_text(const Plan& plan);
std::string to_json(const Plan& plan);

} // namespace plan
