// The plan as text and as JSON.
#pragma once

#include <support/head_plan.hpp>

#include <string>
#include <vector>

namespace plan {

/// The plans of all heads of a capture.
struct Plan {
    std::string source;
    Question question;
    Index queries = 0, keys = 0;
    bool causal = false;
    std::vector<std::string> assumptions, warnings; ///< about the capture, a line each
    std::vector<HeadPlan> heads;
};

std::string to_text(const Plan& plan);
std::string to_json(const Plan& plan);

} // namespace plan
