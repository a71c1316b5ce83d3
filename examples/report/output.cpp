#include "output.hpp"

#include <attnscope/analysis/table.hpp>
#include <attnscope/concentration/sinks.hpp>
#include <attnscope/fmt.hpp>
#include <attnscope/io/analysis_csv.hpp>
#include <attnscope/io/analysis_json.hpp>
#include <attnscope/planner/qk_clip.hpp>
#include <support/program.hpp>

#include <nlohmann/json.hpp>

#include <fmt/ranges.h>

namespace report {
namespace {

using Json = nlohmann::ordered_json;

using attnscope::RowColumns;
using attnscope::io::json_number;

std::string_view kind_text(const Capture& capture) {
    switch (capture.kind) {
    case Capture::Kind::queries_and_keys:
        return "q and k";
    case Capture::Kind::logits:
        return "logits";
    case Capture::Kind::weights:
        return "weights (their logits are known up to a constant)";
    }
    return "?";
}

/// Of the chosen layers.
bool is_causal(const Report& report) {
    return std::all_of(report.layers.begin(), report.layers.end(),
                       [&](Index layer) { return report.capture.layer(layer).causal.value_or(false); });
}

/// What the chosen layers have, each value once where neighbours agree: "softmax" or "softmax, entmax:1.5".
std::string over_layers(const Report& report, const std::function<std::string(Index)>& text_of) {
    std::vector<std::string> texts;
    for (const Index layer : report.layers) texts.push_back(text_of(layer));
    if (std::adjacent_find(texts.begin(), texts.end(), std::not_equal_to<>()) == texts.end()) texts.resize(1);
    return fmt::format("{}", fmt::join(texts, ","));
}

std::string normalizer_text(const Report& report) {
    return over_layers(report, [&](Index layer) {
        return report.normalizers[static_cast<std::size_t>(layer)].normalizer.name();
    });
}

std::string temperature_text(const Report& report) {
    return over_layers(report, [&](Index layer) {
        return fmt::format("{}", report.normalizers[static_cast<std::size_t>(layer)].temperature);
    });
}

/// Which keys a query sees.
std::string mask_text(const Report& report) {
    const Capture& input = report.capture;
    std::string text = over_layers(report, [&](Index layer) {
        return input.layer(layer).causal.value_or(false) ? "causal" : "every query sees every key";
    });
    if (text == "every query sees every key" && report.tally.causal_from_masks())
        text = input.kind == Capture::Kind::weights ? "causal, from weights of 0" : "causal, from the mask";
    const std::string window = over_layers(
        report, [&](Index layer) { return fmt::format("{}", input.layer(layer).window.value_or(0)); });
    return window == "0" ? text : fmt::format("{}, window {} (0: all)", text, window);
}

/// Of every chosen layer, as used.
Json attention_json(const Report& report) {
    Json list = Json::array();
    const Capture& input = report.capture;
    for (const Index layer : report.layers) {
        const auto& [temperature, normalizer] = report.normalizers[static_cast<std::size_t>(layer)];
        Json entry;
        entry["layer"] = layer;
        entry["causal"] = input.layer(layer).causal.value_or(false);
        entry["scale"] =
            input.kind == Capture::Kind::queries_and_keys ? Json(input.scale(layer)) : Json(nullptr);
        entry["window"] = input.layer(layer).window.value_or(0);
        entry["normalizer"] = normalizer.name();
        entry["temperature"] = temperature;
        list.push_back(std::move(entry));
    }
    return list;
}

Json masks_json(const Report& report) {
    const program::RowTally& tally = report.tally;
    if (report.capture.kind != Capture::Kind::logits && !report.capture.bias) return nullptr;
    Json json;
    json["entries"] = tally.masks;
    json["least"] = json_number(tally.least_mask);
    json["largest"] = json_number(tally.most_mask);
    json["rows_left_visible"] = tally.unmasked_rows;
    json["causal"] = tally.causal_from_masks();
    return json;
}

Json stored_weights_json(const Report& report) {
    const program::RowTally& tally = report.tally;
    if (report.capture.kind != Capture::Kind::weights) return nullptr;
    const auto [least, most] = std::minmax_element(tally.sums.begin(), tally.sums.end());
    Json json;
    json["normalised"] = report.capture.options.normalise_weights;
    json["least_row_sum"] = tally.sums.empty() ? Json(nullptr) : json_number(*least);
    json["median_row_sum"] = json_number(tally.median_sum());
    json["largest_row_sum"] = tally.sums.empty() ? Json(nullptr) : json_number(*most);
    json["rows_not_summing_to_1"] = tally.not_one;
    json["rows_within_rounding"] = tally.rounded;
    json["negative_weights"] = tally.negative;
    json["rows_with_negative_weights"] = tally.negative_rows;
    json["rows_with_hidden_mass"] = tally.hidden_rows;
    json["largest_hidden_mass"] = tally.most_hidden;
    return json;
}

std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.4g}", x) : "-"; }

} // namespace

std::string statements_text() {
    std::string text;
    for (const attnscope::Statement* const statement : attnscope::statements)
        text += fmt::format("{} {} {}\n    {}\n    conditions: {}\n    source: {}\n", statement->id,
                            statement->form, statement->provenance, statement->text, statement->conditions,
                            statement->source);
    return text;
}

/// Of a model on its text; NaN where there is none.
double loss_of(const Report& report) {
    return report.capture.loss ? report.capture.loss() : std::numeric_limits<double>::quiet_NaN();
}

std::string to_text(const Report& report) {
    const Capture& input = report.capture;
    const Settings& settings = report.settings;
    std::string text;
    auto out = std::back_inserter(text);
    if (input.synthetic)
        fmt::format_to(out, "No input: synthetic heads from a generator (seed {}), not a trained model.\n",
                       settings.analysis.seed);
    fmt::format_to(out, "input        {}, from {}\n", attnscope::printable(input.name), kind_text(input));
    fmt::format_to(out, "shape        {}{} layers x {} heads, {} queries, {} keys{}\n",
                   input.batches > 1 ? fmt::format("{} batches x ", input.batches) : "", input.layers,
                   input.heads, input.queries, input.keys,
                   input.width ? fmt::format(", width {}", *input.width) : "");
    fmt::format_to(out, "normaliser   {}, temperature {}, {}{}\n", normalizer_text(report),
                   temperature_text(report), mask_text(report),
                   settings.analysis.single_precision ? ", weights in float" : "");
    if (input.attention.end() != std::find_if(input.attention.begin(), input.attention.end(),
                                              [](const auto& layer) { return layer.scale.has_value(); }))
        fmt::format_to(out, "scale        {}\n", over_layers(report, [&](Index layer) {
                           return fmt::format("{:.6g}", input.scale(layer));
                       }));
    for (const std::string& line : input.assumptions) fmt::format_to(out, "taken        {}\n", line);
    if (const double loss = loss_of(report); !std::isnan(loss))
        fmt::format_to(out, "loss         {:.4f} nats a token{}\n", loss,
                       report.beside_loss ? fmt::format(", {:.4f} with {} in every layer", *report.beside_loss,
                                                        *settings.beside)
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
    fmt::format_to(out, "\n{}{}\n", attnscope::mean_legend,
                   on_sink ? "sink: weight on the key without a value.\n" : "");
    const bool unassigned = report.tally.not_one > 0 && !input.options.normalise_weights;
    const bool batches = report.places.front().batch != report.places.back().batch;
    const auto place_of = [&](Index head, std::string_view separator) {
        const HeadPlace& place = report.places[static_cast<std::size_t>(head)];
        return batches ? fmt::format("{}{}{}{}{}", place.batch, separator, place.layer, separator, place.head)
                       : fmt::format("{}{}{}", place.layer, separator, place.head);
    };
    if (batches) fmt::format_to(out, "{:>5} ", "batch");
    fmt::format_to(out, "{:>5} {:>4}{}{}\n", "layer", "head", attnscope::mean_titles(),
                   on_sink      ? fmt::format(" {:>9}", "sink")
                   : unassigned ? fmt::format(" {:>9}", "unassigned")
                                : std::string());
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        const HeadPlace& place = report.places[i];
        const HeadSummary& head = report.heads[i];
        if (batches) fmt::format_to(out, "{:>5} ", place.batch);
        fmt::format_to(out, "{:>5} {:>4}{}", place.layer, place.head, attnscope::mean_cells(head));
        if (on_sink) fmt::format_to(out, " {:>9}", cell(head.mean(&RowColumns::sink_mass)));
        if (unassigned) fmt::format_to(out, " {:>9}", cell(head.mean(&RowColumns::unassigned_mass)));
        text += '\n';
    }

    if (!report.beside.empty()) {
        fmt::format_to(out, "\nThe same heads under {}, without a sink:\n", *settings.beside);
        if (batches) fmt::format_to(out, "{:>5} ", "batch");
        fmt::format_to(out, "{:>5} {:>4}{}\n", "layer", "head", attnscope::mean_titles());
        for (std::size_t i = 0; i < report.beside.size(); ++i) {
            const HeadPlace& place = report.places[i];
            if (batches) fmt::format_to(out, "{:>5} ", place.batch);
            fmt::format_to(out, "{:>5} {:>4}{}\n", place.layer, place.head,
                           attnscope::mean_cells(report.beside[i]));
        }
    }

    if (settings.qk_clip) {
        fmt::format_to(
            out, "\nQK-clip: heads whose largest logit is above {}, and the factor that brings it there\n",
            *settings.qk_clip);
        Index clipped = 0, known = 0;
        for (std::size_t i = 0; i < report.heads.size(); ++i) {
            const double most = report.heads[i].largest_logit;
            known += most == most;
            if (!(most > *settings.qk_clip)) continue;
            ++clipped;
            fmt::format_to(out, "  ({})  {}  {}\n", place_of(static_cast<Index>(i), ", "), cell(most),
                           cell(attnscope::qk_clip_factor(most, *settings.qk_clip)));
        }
        fmt::format_to(out, "  {} of {} heads{}\n", clipped, report.heads.size(),
                       known == 0 ? "; no logit is known" : "");
    }

    // Summary over heads.
    Index rows = 0, empty = 0, nan = 0, infinite = 0, negative = 0;
    for (const HeadSummary& head : report.heads) {
        rows += head.queries;
        empty += head.rows(attnscope::RowStatus::empty);
        infinite += head.rows(attnscope::RowStatus::infinite);
        nan += head.rows(attnscope::RowStatus::nan) - head.negative_rows;
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
    const std::array<std::pair<std::string_view, attnscope::Column RowColumns::*>, 5> lines = {{
        {"entropy H, nats", &RowColumns::entropy_nats},
        {"largest weight p1", &RowColumns::max_weight},
        {"first key's weight", &RowColumns::first_key_weight},
        {"participation ratio, keys", &RowColumns::participation_ratio},
        {"spectral norm |J|2", &RowColumns::spectral},
    }};
    for (const auto& [title, figure] : lines) {
        const attnscope::HeadRange range = attnscope::range_of(report.heads, figure);
        if (range.least_head < 0) continue;
        const auto place = [&](Index head) { return fmt::format("({})", place_of(head, ", ")); };
        fmt::format_to(out, "{:<28} {:>9} {:>16} {:>9} {:>16}\n", title, cell(range.least),
                       place(range.least_head), cell(range.most), place(range.most_head));
    }
    const auto sinks = std::count_if(report.heads.begin(), report.heads.end(), [](const HeadSummary& head) {
        return head.mean(&RowColumns::first_key_weight) > attnscope::sink_threshold;
    });
    fmt::format_to(out, "{} of {} heads rest on the first key (mean weight above {}).\n", sinks,
                   report.heads.size(), attnscope::sink_threshold);
    if (const std::string selections = attnscope::selection_table(report.heads); !selections.empty())
        text += "\n" + selections;

    if (!settings.analysis.audit && !settings.analysis.certificates) return text;
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

std::string to_json(const Report& report, bool rows) {
    const Capture& input = report.capture;
    Json json;
    json["schema"] = "attnscope.report/1";
    json["version"] = attnscope::version;
    json["input"] = input.name; // bytes that are not UTF-8 are replaced when it is written
    json["shape"] = {{"batches", input.batches}, {"layers", input.layers},
                     {"heads", input.heads},     {"queries", input.queries},
                     {"keys", input.keys},       {"width", input.width ? Json(*input.width) : Json(nullptr)}};
    json["causal"] = is_causal(report);
    const std::string temperature = temperature_text(report);
    json["temperature"] = temperature.find(',') == temperature.npos
                              ? Json(report.normalizers[static_cast<std::size_t>(report.layers[0])].temperature)
                              : Json(nullptr);
    json["normalizer"] = normalizer_text(report);
    json["scalar"] = report.settings.analysis.single_precision ? "float" : "double";
    json["streamed"] = report.streamed;
    json["max_weight_difference"] = report.weight_difference ? json_number(*report.weight_difference) : nullptr;
    json["attention"] = attention_json(report);
    json["masks"] = masks_json(report);
    json["stored_weights"] = stored_weights_json(report);
    json["loss"] = json_number(loss_of(report));
    if (report.beside_loss) json["beside_loss"] = json_number(*report.beside_loss);
    json["assumptions"] = input.assumptions;
    json["warnings"] = warnings_of(input, report.tally);
    json["heads"] = Json::array();
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        Json entry;
        entry["batch"] = report.places[i].batch;
        entry["layer"] = report.places[i].layer;
        entry["head"] = report.places[i].head;
        entry["mean"] = attnscope::io::mean_json(report.heads[i]);
        if (report.heads[i].sink_logit)
            entry["sink_mass"] = json_number(report.heads[i].mean(&RowColumns::sink_mass));
        if (report.settings.qk_clip) {
            const double most = report.heads[i].largest_logit;
            entry["max_logit"] = json_number(most);
            entry["qk_clip_factor"] = json_number(attnscope::qk_clip_factor(most, *report.settings.qk_clip));
        }
        if (!report.beside.empty()) {
            const HeadSummary& other = report.beside[i];
            entry["beside"]["normalizer"] = other.normalizer;
            entry["beside"]["mean"] = attnscope::io::mean_json(other);
            entry["beside"]["rows"] = rows ? attnscope::io::rows_json(report.beside_rows[i]) : Json::array();
        }
        entry["rows"] = rows ? attnscope::io::rows_json(report.head_rows[i]) : Json::array();
        json["heads"].push_back(std::move(entry));
    }
    json["audit"] = attnscope::io::to_json(report.audit);
    // A file's name need not be UTF-8.
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_csv(const Report& report, const std::filesystem::path& folder, bool rows) {
    namespace io = attnscope::io;
    // The batch comes first where there are several.
    const bool batches = report.capture.batches > 1;
    const std::string place = batches ? "batch,layer,head" : "layer,head";
    const std::string figures = io::figure_names(report.heads.front()) + "\n";
    const std::string selections = io::selection_names() + "\n";
    std::string heads_text = place + ",visible" + figures,
                rows_text = place + ",query,visible,argmax" + figures;
    std::string selection_text = place + selections, selection_rows = place + ",query" + selections;
    std::string beside_text, beside_rows;
    if (!report.beside.empty()) {
        const std::string names = io::figure_names(report.beside.front()) + "\n";
        beside_text = place + ",normalizer,visible" + names;
        beside_rows = place + ",query,visible,argmax" + names;
    }
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        const HeadPlace& at = report.places[i];
        const HeadSummary& head = report.heads[i];
        const std::string own = batches ? fmt::format("{},{},{}", at.batch, at.layer, at.head)
                                        : fmt::format("{},{}", at.layer, at.head);
        heads_text += own + io::mean_cells_csv(head) + "\n";
        selection_text += io::selections_csv(head, own);
        if (!report.beside.empty())
            beside_text +=
                own + "," + report.beside[i].normalizer + io::mean_cells_csv(report.beside[i]) + "\n";
        if (!rows) continue;
        if (!report.beside.empty()) beside_rows += io::rows_csv(report.beside_rows[i], own);
        rows_text += io::rows_csv(report.head_rows[i], own);
        selection_rows += io::selection_rows_csv(report.head_rows[i], own);
    }
    const std::string audit_text = io::to_csv(report.audit);
    const std::array<const std::string*, csv_names.size()> texts{
        &heads_text, &audit_text, &selection_text, &rows_text, &selection_rows, &beside_text, &beside_rows};
    std::vector<std::pair<std::string_view, std::string_view>> files;
    for (std::size_t i = 0; i < csv_names.size(); ++i) {
        const bool of_rows = csv_names[i].find("rows") != std::string_view::npos;
        const bool of_others = csv_names[i].starts_with("beside");
        if ((!of_rows || rows) && (!of_others || !report.beside.empty()))
            files.emplace_back(csv_names[i], *texts[i]);
    }
    program::write_all(folder, files);
}

} // namespace report
