// A report as text, JSON and CSV.
#pragma once

#include "analysis.hpp"

#include <filesystem>

namespace report {

/// The tables a person reads: figures per head, a summary, the audit.
std::string to_text(const Report& report);

/// Schema "attnscope.report/1", documented in docs/report.md. `rows`: include every row.
std::string to_json(const Report& report, bool rows);

/// heads.csv, selection.csv, audit.csv and, with `rows`, rows.csv and selection_rows.csv, each whole or absent.
/// The folder must exist.
void write_csv(const Report& report, const std::filesystem::path& folder, bool rows);

} // namespace report
