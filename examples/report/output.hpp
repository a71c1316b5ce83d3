// A report as text, JSON and CSV.
#pragma once

#include "analysis.hpp"

#include <array>
#include <filesystem>
#include <string_view>

namespace report {

/// The tables a person reads: figures per head, a summary, the audit.
std::string to_text(const Report& report);

/// What the audit checks, a paragraph each: id, form and provenance, inequality, conditions, source.
std::string statements_text();

/// Schema "attnscope.report/1", documented in docs/report.md. `rows`: include every row.
std::string to_json(const Report& report, bool rows);

/// The files of `write_csv`; those of rows only with `rows`, those of heads under another normaliser only where one was
/// asked for.
inline constexpr std::array<std::string_view, 7> csv_names{
    "heads.csv",          "audit.csv",  "selection.csv",  "rows.csv",
    "selection_rows.csv", "beside.csv", "beside_rows.csv"};

/// Writes these files, each whole or absent. The folder must exist. Errors: std::runtime_error that names the
/// file and those written before it.
void write_csv(const Report& report, const std::filesystem::path& folder, bool rows);

} // namespace report
