// A report as one page of HTML that opens offline and answers questions: docs/report.md says what is on it.
#pragma once

#include <attnscope/report/report.hpp>

namespace report {

/// The page. command: what made it, as one would type it. experiments: HTML of a section with the id `experiments`, or
/// nothing. The report must have patterns and rows.
std::string to_page(const attnscope::Report& report, const std::string& command,
                    std::string_view experiments = {});

/// A command line that a shell reads as these words, in one line.
std::string shell_line(int argc, const char* const* argv, std::string_view program);

} // namespace report
