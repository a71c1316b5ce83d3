#include "run.hpp"

#include <attnscope/report/make_report.hpp>
#include <support/program.hpp>

#include <memory>

namespace report {
namespace {

void show_progress(ReportOptions& options) {
    options.progress = [line = std::shared_ptr<program::Progress>()](Index done, Index all) mutable {
        if (!line) line = std::make_shared<program::Progress>("analysing heads", static_cast<std::size_t>(all));
        line->reach(static_cast<std::size_t>(done));
    };
}

} // namespace

Report make(Capture capture, ReportOptions options, const HeadStates* states, bool merged) {
    show_progress(options);
    Report report = program::as_options([&] {
        return merged ? attnscope::merge_states(std::move(capture), options, *states)
                      : attnscope::make_report(std::move(capture), options, states);
    });
    report.options.progress = {}; // takes the line away
    return report;
}

Report make_on(Capture capture, const ReportOptions& options, const HeadStates* states,
               const attnscope::UnitRunner& run) {
    return program::as_options(
        [&] { return attnscope::make_report_on(std::move(capture), options, states, run); });
}

std::string run_shard(Capture capture, ReportOptions options, const HeadStates& states,
                      const attnscope::Shard& shard) {
    show_progress(options);
    const auto done = program::as_options(
        [&] { return attnscope::analyze_shard(std::move(capture), options, states, shard); });
    return fmt::format("shard {}/{}: {} of {} heads, {} were there\n", shard.number, shard.count, done.own,
                       done.units, done.there);
}

std::string dry_run(Capture capture, const ReportOptions& options) {
    const auto all =
        program::as_options([&] { return attnscope::estimate_report(std::move(capture), options); });
    return fmt::format(
        "{} heads, {:.4g} pairs of a query and a key that it sees\nabout {:.3g} core hours, from "
        "{:.1f} seconds of trying on one thread\n",
        all.units, all.pairs, all.core_hours, all.calibration);
}

} // namespace report
