// Reports of the library as programs make them: with a line of progress, and complaints about options. Compiled once.
#pragma once

#include <attnscope/report/report.hpp>

namespace attnscope {
inline namespace v0_2 {
class HeadStates;
struct Shard;
} // namespace v0_2
} // namespace attnscope

namespace report {

using attnscope::Capture;
using attnscope::HeadStates;
using attnscope::Index;
using attnscope::Report;
using attnscope::ReportOptions;

/// `make_report`; with merged, `merge_states` instead.
Report make(Capture capture, ReportOptions options, const HeadStates* states = nullptr, bool merged = false);

/// `make_report_on`.
Report make_on(Capture capture, const ReportOptions& options, const HeadStates* states,
               const attnscope::UnitRunner& run);

/// `analyze_shard` and `estimate_report`, and what came out, in words.
std::string run_shard(Capture capture, ReportOptions options, const HeadStates& states,
                      const attnscope::Shard& shard);
std::string dry_run(Capture capture, const ReportOptions& options);

} // namespace report
