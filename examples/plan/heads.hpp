// The plans of the heads of a capture, with a line of progress. Compiled apart from the options.
#pragma once

#include <attnscope/report/capture_plan.hpp>

namespace plan {

/// The formats of a list of names with commas between them, of keys (else of values): those of `cache_format`, and kivi2
/// to kivi8 for KIVI's groups of either. Throws `usage_error` for another name, or none.
std::vector<attnscope::CacheFormat> cache_formats(std::string_view list, bool keys);

/// `plan_capture`.
attnscope::CapturePlan make_plan(const attnscope::Capture& capture, const attnscope::PlanQuestion& question,
                                 attnscope::Index threads);

} // namespace plan
