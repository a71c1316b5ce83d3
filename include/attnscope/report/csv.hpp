// A report as tables of CSV. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/io/analysis_csv.hpp>
#include <attnscope/report/report.hpp>

#include <array>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Names of the files of `csv_tables`; those of rows only with `rows`, those of heads under another normaliser only where one
/// was asked for.
inline constexpr std::array<std::string_view, 7> csv_table_names{
    "heads.csv",          "audit.csv",  "selection.csv",  "rows.csv",
    "selection_rows.csv", "beside.csv", "beside_rows.csv"};

/// A file and what stands in it.
struct CsvTable {
    std::string name, text;
};

/// The tables of docs/report.md. rows: every row, too.
/// Throws. `invalid_argument` for a report without heads, and for rows that were not kept.
inline std::vector<CsvTable> csv_tables(const Report& report, bool rows = false) {
    attnscope::detail::require(!report.heads.empty(), "io::csv_tables", "the report must have heads");
    attnscope::detail::require(!rows || report.options.keep_rows, "csv_tables",
                               "rows need a report that kept them (ReportOptions::keep_rows)");
    // The batch comes first where there are several.
    const bool batches = report.capture.batches > 1;
    const std::string place = batches ? "batch,layer,head" : "layer,head";
    const std::string figures = figure_names(report.heads.front()) + "\n";
    const std::string selections = selection_names() + "\n";
    std::string heads_text = place + ",visible" + figures,
                rows_text = place + ",query,visible,argmax" + figures;
    std::string selection_text = place + selections, selection_rows = place + ",query" + selections;
    std::string beside_text, beside_rows;
    if (!report.beside.empty()) {
        const std::string names = figure_names(report.beside.front()) + "\n";
        beside_text = place + ",normalizer,visible" + names;
        beside_rows = place + ",query,visible,argmax" + names;
    }
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        const HeadPlace& at = report.places[i];
        const HeadSummary& head = report.heads[i];
        const std::string own = batches ? fmt::format("{},{},{}", at.batch, at.layer, at.head)
                                        : fmt::format("{},{}", at.layer, at.head);
        heads_text += own + mean_cells_csv(head) + "\n";
        selection_text += selections_csv(head, own);
        if (!report.beside.empty())
            beside_text += own + "," + report.beside[i].normalizer + mean_cells_csv(report.beside[i]) + "\n";
        if (!rows) continue;
        if (!report.beside.empty()) beside_rows += rows_csv(report.beside_rows[i], own);
        rows_text += rows_csv(report.head_rows[i], own);
        selection_rows += selection_rows_csv(report.head_rows[i], own);
    }
    std::string audit_text = to_csv(report.audit);
    const std::array<std::string*, csv_table_names.size()> texts{
        &heads_text, &audit_text, &selection_text, &rows_text, &selection_rows, &beside_text, &beside_rows};
    std::vector<CsvTable> tables;
    for (std::size_t i = 0; i < csv_table_names.size(); ++i) {
        const bool of_rows = csv_table_names[i].find("rows") != std::string_view::npos;
        const bool of_others = csv_table_names[i].starts_with("beside");
        if ((!of_rows || rows) && (!of_others || !report.beside.empty()))
            tables.push_back({std::string(csv_table_names[i]), std::move(*texts[i])});
    }
    return tables;
}

} // namespace io

} // namespace v0_2
} // namespace attnscope
