// An analysis as tables in plain text.
#pragma once

#include <attnscope/analysis/head_summary.hpp>

#include <charconv>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// A number of four digits; a dash where there is none.
inline std::string number_cell(double x) {
    if (!std::isfinite(x)) return "-";
    char buffer[32];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::general, 4);
    return error == std::errc{} ? std::string(buffer, end) : std::string("?");
}

/// Text at the right of a column.
inline std::string right(std::string_view text, std::size_t width) {
    return std::string(width > text.size() ? width - text.size() : 0, ' ') + std::string(text);
}

} // namespace detail

/// A column of the table of means, and what it is called there.
struct MeanColumn {
    std::string_view title;
    Column RowColumns::*values;
};
inline constexpr std::array<MeanColumn, 7> mean_columns = {{
    {"H", &RowColumns::entropy_nats},
    {"p1", &RowColumns::max_weight},
    {"key0", &RowColumns::first_key_weight},
    {"keys", &RowColumns::participation_ratio},
    {"D", &RowColumns::logit_spread},
    {"|J|2", &RowColumns::spectral},
    {"|J|F", &RowColumns::frobenius},
}};

/// What the titles of `mean_columns` mean.
inline constexpr std::string_view mean_legend =
    "Means over the rows of each head. H: entropy in nats; p1: largest weight; key0: weight of the first key;\n"
    "keys: participation ratio 1/sum p^2; D: logit spread; |J|2, |J|F: spectral and Frobenius norm of dp/dz.\n";

/// The titles of `mean_columns` in a line, nine characters a column after a blank.
inline std::string mean_titles() {
    std::string line;
    for (const MeanColumn& column : mean_columns) line += " " + detail::right(column.title, 9);
    return line;
}
/// The means of one head under them; a dash where there is none.
inline std::string mean_cells(const HeadSummary& head) {
    std::string line;
    for (const MeanColumn& column : mean_columns)
        line += " " + detail::right(detail::number_cell(head.mean(column.values)), 9);
    return line;
}

/// What the selections of some heads keep, a line for each N; empty if there is none. Reading and radius are those of
/// the first head.
inline std::string selection_table(std::span<const HeadSummary> heads) {
    const std::vector<Index> counts = selection_counts(heads);
    if (counts.empty()) return {};
    const bool cumulative = heads.front().reading == Reading::cumulative;
    const std::optional<double> radius = heads.front().radius;
    std::string text =
        "Selecting the N largest weights, means over all rows with more than N visible keys.\ndistance: ";
    text +=
        std::string(name_of(heads.front().reading)) + " reading" +
        (cumulative ? "; bound: its Theorem 1(1)" : "") +
        "; random: E d of N random keys lies between; lost: |o - o_N|;\n"
        "separable: share of selected tokens nearer to their sum s than " +
        (radius ? detail::to_text(*radius) + ", 0 where another token is" : std::string("every other token")) +
        ".\n\n";
    struct Cell {
        std::string_view title;
        std::size_t width;
        Column SelectionColumns::*values;
    };
    const std::array<Cell, 10> cells = {{
        {"mass", 8, &SelectionColumns::mass},
        {"distance", 9,
         cumulative ? &SelectionColumns::distance_cumulative : &SelectionColumns::distance_resultant},
        {"bound", 9, cumulative ? &SelectionColumns::distance_bound : nullptr},
        {"random>=", 9, &SelectionColumns::expected_distance_lower},
        {"random<=", 9, &SelectionColumns::expected_distance_upper},
        {"lost", 9, &SelectionColumns::truncation_error},
        {"separable", 9, &SelectionColumns::separable_fraction},
        {"precision", 9, &SelectionColumns::precision},
        {"F", 8, &SelectionColumns::f_score},
        {"margin", 9, &SelectionColumns::margin},
    }};
    text += detail::right("N", 5);
    for (const Cell& cell : cells) text += " " + detail::right(cell.title, cell.width);
    text += '\n';
    for (const Index n : counts) {
        text += detail::right(detail::to_text(n), 5);
        for (const Cell& cell : cells)
            text += " " + detail::right(cell.values ? detail::number_cell(selection_mean(heads, n, cell.values))
                                                    : std::string("-"),
                                        cell.width);
        text += '\n';
    }
    return text;
}
/// The same of analyses.
inline std::string selection_table(std::span<const HeadAnalysis> heads) {
    return selection_table(detail::summaries(heads));
}

namespace detail {

/// What the figures of some heads do not cover, and what is known of sinks and of stored weights: a line each, where
/// there is any.
inline std::string coverage_notes(std::span<const HeadAnalysis> heads) {
    std::array<Index, 4> rows{}; // by status
    Index all = 0, examined = 0, done = 0, negative = 0, counted = 0;
    bool streamed = false, cancelled = false, stored = false;
    double sums = 0, hidden = 0, sink_mass = 0, with_sink = 0, sinks = 0;
    for (const HeadAnalysis& head : heads) {
        if (const double mass = finite_mean(head.rows.sink_mass); std::isfinite(mass)) {
            ++sinks;
            sink_mass += mass;
            with_sink += finite_mean(head.rows.entropy_with_sink_nats);
        }
        all += head.queries;
        done += head.extent.cancelled ? head.extent.done : head.queries;
        examined += static_cast<Index>(head.examined.size());
        streamed = streamed || head.streamed;
        cancelled = cancelled || head.extent.cancelled;
        for (Index query = 0; query < head.queries; ++query)
            if (head.extent.reached(query))
                ++rows[static_cast<std::size_t>(detail::at(head.rows.status, query))];
        for (Index query = 0; query < head.rows.row_sum.size(); ++query) {
            stored = true;
            negative += head.rows.negative[query];
            if (!std::isfinite(head.rows.row_sum[query])) continue;
            ++counted;
            sums += head.rows.row_sum[query];
            hidden += head.rows.hidden_mass[query];
        }
    }
    std::string text;
    if (streamed)
        text += "streamed: selections and audit of " + to_text(examined) + " of " + to_text(all) + " rows\n";
    if (cancelled) text += "cancelled after " + to_text(done) + " of " + to_text(all) + " rows\n";
    std::string others;
    for (const RowStatus status : {RowStatus::empty, RowStatus::infinite, RowStatus::nan})
        if (const Index count = rows[static_cast<std::size_t>(status)]; count > 0)
            others += (others.empty() ? "" : ", ") + to_text(count) + " " + std::string(name_of(status));
    if (!others.empty()) text += "rows without figures: " + others + "\n";
    if (sinks > 0)
        text += "sink: mean weight " + number_cell(sink_mass / sinks) + ", mean entropy of keys and sink " +
                number_cell(with_sink / sinks) + " nats\n";
    if (stored)
        text += "stored weights: mean sum of a row " + number_cell(sums / static_cast<double>(counted)) +
                ", on keys that the mask hides " + number_cell(hidden / static_cast<double>(counted)) +
                "; negative entries: " + to_text(negative) + "\n";
    return text;
}

} // namespace detail

/// One head: how it was computed, means, selections, the audit.
inline std::string to_table(const HeadAnalysis& head) {
    std::string text =
        detail::to_text(head.queries) + " queries, " + detail::to_text(head.keys) + " keys, " + head.normalizer;
    if (head.temperature) text += ", temperature " + detail::to_text(*head.temperature);
    if (head.sink_logit) text += ", sink logit " + detail::to_text(*head.sink_logit);
    if (head.scale) text += ", scale " + detail::number_cell(*head.scale);
    if (head.single_precision) text += ", single precision";
    text += "\n" + detail::coverage_notes({&head, 1});
    text += "\n" + std::string(mean_legend) + "\n" + mean_titles() + "\n" + mean_cells(head) + "\n\n";
    if (const std::string selections = selection_table({&head, 1}); !selections.empty())
        text += selections + "\n";
    return text + to_table(head.audit);
}

/// The heads of a layer: a line of means for each, selections over all of them, what they say about the statements.
inline std::string to_table(const LayerAnalysis& layer) {
    std::string text = std::string(mean_legend) + "\n head" + mean_titles() + "\n";
    for (std::size_t i = 0; i < layer.heads.size(); ++i)
        text += detail::right(detail::to_text(i), 5) + mean_cells(layer.heads[i]) + "\n";
    if (const std::string notes = detail::coverage_notes(layer.heads); !notes.empty()) text += "\n" + notes;
    text += '\n';
    if (const std::string selections = selection_table(layer.heads); !selections.empty())
        text += selections + "\n";
    return text + to_table(layer.audit());
}

} // namespace v0_2
} // namespace attnscope
