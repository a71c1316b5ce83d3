// An analysis as CSV: lines of the tables in docs/report.md. A number reads back exactly; nothing stands where there
// is none.
#pragma once

#include <attnscope/analysis/head_summary.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// A number that reads back exactly; nothing where there is none.
inline std::string csv_number(double x) {
    return std::isfinite(x) ? attnscope::detail::to_text(x) : std::string();
}

/// ",log_sum_exp,...,jacobian_spectral,...": names of the figures that a head has.
inline std::string figure_names(const HeadSummary& head) {
    std::string names;
    for (const RowFigure& figure : head.figures) {
        names += ",";
        if (!figure.group.empty()) names += std::string(figure.group) + "_";
        names += figure.name;
    }
    return names;
}
/// ",n,mass,...": names of the figures of a selection.
inline std::string selection_names() {
    std::string names = ",n";
    for (const SelectionFigure& figure : selection_figures) names += "," + std::string(figure.name);
    return names;
}

/// ",visible,...": means over the rows of a head, under `,visible` and `figure_names`.
inline std::string mean_cells_csv(const HeadSummary& head) {
    std::string cells = "," + csv_number(head.mean_visible);
    for (const double mean : head.means) cells += "," + csv_number(mean);
    return cells;
}
/// Lines of all rows, each after `place`, under `place`, `,query,visible,argmax` and `figure_names`.
inline std::string rows_csv(const HeadAnalysis& head, std::string_view place) {
    std::string text;
    for (Index query = 0; query < head.queries; ++query) {
        text += std::string(place) + "," + attnscope::detail::to_text(query) + "," +
                attnscope::detail::to_text(head.rows.visible[query]) + ",";
        if (const Index best = head.rows.argmax[query]; best >= 0) text += attnscope::detail::to_text(best);
        for (const RowFigure& figure : figures_of(head.rows))
            text += "," + csv_number((head.rows.*figure.values)[query]);
        text += '\n';
    }
    return text;
}

/// Lines of mean selections, each after `place`, under `place` and `selection_names`.
inline std::string selections_csv(const HeadSummary& head, std::string_view place) {
    std::string text;
    for (const SelectionSums& sums : head.selections) {
        if (!sums.any()) continue;
        text += std::string(place) + "," + attnscope::detail::to_text(sums.n);
        for (const FigureSum& figure : sums.figures) text += "," + csv_number(figure.mean());
        text += '\n';
    }
    return text;
}
/// Lines of the selections of every row, under `place`, `,query` and `selection_names`.
inline std::string selection_rows_csv(const HeadAnalysis& head, std::string_view place) {
    std::string text;
    for (Index query = 0; query < head.queries; ++query)
        for (const SelectionColumns& columns : head.selections)
            if (columns.has(query)) {
                text += std::string(place) + "," + attnscope::detail::to_text(query) + "," +
                        attnscope::detail::to_text(columns.n);
                for (const SelectionFigure& figure : selection_figures)
                    text += "," + csv_number((columns.*figure.values)[query]);
                text += '\n';
            }
    return text;
}

/// The audit, a line for each statement under a line of names.
inline std::string to_csv(const Audit& audit) {
    std::string text = "id,form,provenance,checked,holds,within_rounding,vacuous,undefined,violated,"
                       "median_tightness,max_tightness\n";
    for (const AuditRecord& record : audit.records()) {
        text += std::string(record.statement->id) + "," + std::string(name_of(record.statement->form)) + "," +
                std::string(name_of(record.statement->provenance)) + "," +
                attnscope::detail::to_text(record.checked);
        for (const std::size_t count : record.count) text += "," + attnscope::detail::to_text(count);
        text += "," + csv_number(record.median_tightness()) + "," + csv_number(record.max_tightness()) + "\n";
    }
    return text;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
