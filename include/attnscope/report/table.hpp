// A report as text, with fmt. Needs attnscope::io too.
#pragma once

#include <attnscope/analysis/table.hpp>
#include <attnscope/concentration/sinks.hpp>
#include <attnscope/fmt.hpp>
#include <attnscope/planner/qk_clip.hpp>
#include <attnscope/report/words.hpp>

#include <array>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace report_table {

inline std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.4g}", x) : "-"; }

} // namespace report_table
} // namespace detail

/// The tables that a person reads: what was read and taken, figures per head, a summary, the audit.
/// Throws. `invalid_argument` for a report without heads.
inline std::string to_table(const Report& report) {
    detail::require(!report.heads.empty(), "to_table", "the report must have heads");
    const Capture& input = report.capture;
    const ReportOptions& options = report.options;
    std::string text;
    auto out = std::back_inserter(text);
    if (input.synthetic)
        fmt::format_to(out, "No input: synthetic heads from a generator (seed {}), not a trained model.\n",
                       options.analysis.seed);
    fmt::format_to(out, "input        {}, from {}\n", printable(input.name),
                   detail::report_words::kind_text(input));
    fmt::format_to(out, "shape        {}{} layers x {} heads, {} queries, {} keys{}\n",
                   input.batches > 1 ? fmt::format("{} batches x ", input.batches) : "", input.layers,
                   input.heads, input.queries, input.keys,
                   input.width ? fmt::format(", width {}", *input.width) : "");
    fmt::format_to(out, "normaliser   {}, temperature {}, {}{}\n",
                   detail::report_words::normalizer_text(report),
                   detail::report_words::temperature_text(report), detail::report_words::mask_text(report),
                   options.analysis.single_precision ? ", weights in float" : "");
    if (input.attention.end() != std::find_if(input.attention.begin(), input.attention.end(),
                                              [](const auto& layer) { return layer.scale.has_value(); }))
        fmt::format_to(out, "scale        {}\n", detail::report_words::over_layers(report, [&](Index layer) {
                           return fmt::format("{:.6g}", input.scale(layer));
                       }));
    for (const std::string& line : input.assumptions) fmt::format_to(out, "taken        {}\n", line);
    if (const double loss = detail::report_words::loss_of(report); !std::isnan(loss))
        fmt::format_to(out, "loss         {:.4f} nats a token{}\n", loss,
                       report.beside_loss ? fmt::format(", {:.4f} with {} in every layer", *report.beside_loss,
                                                        *options.beside)
                                          : std::string());
    for (const std::string& line : findings_of(input, report.tally))
        fmt::format_to(out, "found        {}\n", line);
    for (const std::string& line : warnings_of(input, report.tally))
        fmt::format_to(out, "warning      {}\n", line);
    if (report.streamed)
        fmt::format_to(out, "streamed     no matrix of logits; selections and audit of {} rows of each head\n",
                       report.heads.front().examined);
    if (report.weight_difference)
        text += std::isnan(*report.weight_difference)
                    ? "weights      NaN in the stored weights or in those of q and k, but not in both\n"
                    : fmt::format("weights      {} weights differ from those of q and k by at most {:.3g}\n",
                                  input.loss ? "the model's own" : "stored", *report.weight_difference);

    const bool on_sink = report.heads.front().has(&RowColumns::sink_mass);
    fmt::format_to(out, "\n{}{}\n", mean_legend, on_sink ? "sink: weight on the key without a value.\n" : "");
    const bool unassigned = report.tally.not_one > 0 && !input.options.normalise_weights;
    const bool batches = report.places.front().batch != report.places.back().batch;
    const auto place_of = [&](Index head, std::string_view separator) {
        const HeadPlace& place = report.places[static_cast<std::size_t>(head)];
        return batches ? fmt::format("{}{}{}{}{}", place.batch, separator, place.layer, separator, place.head)
                       : fmt::format("{}{}{}", place.layer, separator, place.head);
    };
    if (batches) fmt::format_to(out, "{:>5} ", "batch");
    fmt::format_to(out, "{:>5} {:>4}{}{}\n", "layer", "head", mean_titles(),
                   on_sink      ? fmt::format(" {:>9}", "sink")
                   : unassigned ? fmt::format(" {:>9}", "unassigned")
                                : std::string());
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        const HeadPlace& place = report.places[i];
        const HeadSummary& head = report.heads[i];
        if (batches) fmt::format_to(out, "{:>5} ", place.batch);
        fmt::format_to(out, "{:>5} {:>4}{}", place.layer, place.head, mean_cells(head));
        if (on_sink)
            fmt::format_to(out, " {:>9}", detail::report_table::cell(head.mean(&RowColumns::sink_mass)));
        if (unassigned)
            fmt::format_to(out, " {:>9}", detail::report_table::cell(head.mean(&RowColumns::unassigned_mass)));
        text += '\n';
    }

    if (!report.beside.empty()) {
        fmt::format_to(out, "\nThe same heads under {}, without a sink:\n", *options.beside);
        if (batches) fmt::format_to(out, "{:>5} ", "batch");
        fmt::format_to(out, "{:>5} {:>4}{}\n", "layer", "head", mean_titles());
        for (std::size_t i = 0; i < report.beside.size(); ++i) {
            const HeadPlace& place = report.places[i];
            if (batches) fmt::format_to(out, "{:>5} ", place.batch);
            fmt::format_to(out, "{:>5} {:>4}{}\n", place.layer, place.head, mean_cells(report.beside[i]));
        }
    }

    if (options.qk_clip) {
        fmt::format_to(
            out, "\nQK-clip: heads whose largest logit is above {}, and the factor that brings it there\n",
            *options.qk_clip);
        Index clipped = 0, known = 0;
        for (std::size_t i = 0; i < report.heads.size(); ++i) {
            const double most = report.heads[i].largest_logit;
            known += most == most;
            if (!(most > *options.qk_clip)) continue;
            ++clipped;
            fmt::format_to(out, "  ({})  {}  {}\n", place_of(static_cast<Index>(i), ", "),
                           detail::report_table::cell(most),
                           detail::report_table::cell(qk_clip_factor(most, *options.qk_clip)));
        }
        fmt::format_to(out, "  {} of {} heads{}\n", clipped, report.heads.size(),
                       known == 0 ? "; no logit is known" : "");
    }

    // Summary over heads.
    Index rows = 0, empty = 0, nan = 0, infinite = 0, negative = 0;
    for (const HeadSummary& head : report.heads) {
        rows += head.queries;
        empty += head.rows(RowStatus::empty);
        infinite += head.rows(RowStatus::infinite);
        nan += head.rows(RowStatus::nan) - head.negative_rows;
        negative += head.negative_rows;
    }
    fmt::format_to(out, "\nSummary of {} heads, {} rows", report.heads.size(), rows);
    if (empty) fmt::format_to(out, ", {} without a visible key", empty);
    if (nan) fmt::format_to(out, ", {} with NaN", nan);
    if (infinite) fmt::format_to(out, ", {} with +inf", infinite);
    if (negative) fmt::format_to(out, ", {} with negative weights", negative);
    const std::string_view place_title = batches ? "(batch,layer,head)" : "(layer, head)";
    fmt::format_to(out, "\n{:<28} {:>9} {:>16} {:>9} {:>16}\n", "mean of a head's rows", "least", place_title,
                   "most", place_title);
    const std::array<std::pair<std::string_view, Column RowColumns::*>, 5> lines = {{
        {"entropy H, nats", &RowColumns::entropy_nats},
        {"largest weight p1", &RowColumns::max_weight},
        {"first key's weight", &RowColumns::first_key_weight},
        {"participation ratio, keys", &RowColumns::participation_ratio},
        {"spectral norm |J|2", &RowColumns::spectral},
    }};
    for (const auto& [title, figure] : lines) {
        const HeadRange range = range_of(report.heads, figure);
        if (range.least_head < 0) continue;
        const auto place = [&](Index head) { return fmt::format("({})", place_of(head, ", ")); };
        fmt::format_to(out, "{:<28} {:>9} {:>16} {:>9} {:>16}\n", title,
                       detail::report_table::cell(range.least), place(range.least_head),
                       detail::report_table::cell(range.most), place(range.most_head));
    }
    const auto sinks = std::count_if(report.heads.begin(), report.heads.end(), [](const HeadSummary& head) {
        return head.mean(&RowColumns::first_key_weight) > sink_threshold;
    });
    fmt::format_to(out, "{} of {} heads rest on the first key (mean weight above {}).\n", sinks,
                   report.heads.size(), sink_threshold);
    if (const std::string selections = selection_table(report.heads); !selections.empty())
        text += "\n" + selections;

    if (!options.analysis.audit && !options.analysis.certificates) return text;
    fmt::format_to(
        out,
        "\nAudit: what these rows say about the statements of arXiv:2508.17821, as published and in their "
        "sharp form.\nvacuous: true, but no better than what holds anyway; median and max: how much of the "
        "limit is used.\n\n{}",
        report.audit);
    const std::size_t violations = report.audit.sharp_violations();
    fmt::format_to(out, "{}\n",
                   violations == 0 ? "No sharp statement is violated."
                                   : fmt::format("{} rows VIOLATE a sharp statement.", violations));
    return text;
}

} // namespace v0_2
} // namespace attnscope

/// Prints the tables of `to_table`.
template <>
struct fmt::formatter<attnscope::Report> : fmt::formatter<fmt::string_view> {
    template <class Context>
    auto format(const attnscope::Report& report, Context& context) const {
        return fmt::formatter<fmt::string_view>::format(attnscope::to_table(report), context);
    }
};
