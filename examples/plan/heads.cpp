#include "heads.hpp"

#include <attnscope/cache/format_name.hpp>
#include <attnscope/report/capture_plan.hpp>
#include <support/program.hpp>

namespace plan {

std::vector<attnscope::CacheFormat> cache_formats(std::string_view list, bool keys) {
    std::vector<attnscope::CacheFormat> formats;
    for (std::size_t at = 0; at <= list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        std::string name(list.substr(at, end - at));
        if (name.starts_with("kivi")) name = "affine" + name.substr(4) + (keys ? ":channel32" : ":token32");
        try {
            formats.push_back(attnscope::cache_format(name));
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--formats: {}", error.what()));
        }
        at = end + 1;
    }
    return formats;
}

attnscope::CapturePlan make_plan(const attnscope::Capture& capture, const attnscope::PlanQuestion& question,
                                 attnscope::Index threads) {
    std::optional<program::Progress> progress;
    return attnscope::plan_capture(capture, question, threads,
                                   [&](attnscope::Index done, attnscope::Index all) {
                                       if (!progress)
                                           progress.emplace("planning heads", static_cast<std::size_t>(all));
                                       progress->reach(static_cast<std::size_t>(done));
                                   });
}

} // namespace plan
