// A report as JSON. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/io/analysis_json.hpp>
#include <attnscope/planner/qk_clip.hpp>
#include <attnscope/report/words.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// Of every chosen layer, as used.
inline nlohmann::ordered_json attention_json(const Report& report) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    const Capture& input = report.capture;
    for (const Index layer : report.layers) {
        const auto& [temperature, normalizer] = report.normalizers[static_cast<std::size_t>(layer)];
        nlohmann::ordered_json entry;
        entry["layer"] = layer;
        entry["causal"] = input.layer(layer).causal.value_or(false);
        entry["scale"] = input.kind == Capture::Kind::queries_and_keys
                             ? nlohmann::ordered_json(input.scale(layer))
                             : nlohmann::ordered_json(nullptr);
        entry["window"] = input.layer(layer).window.value_or(0);
        entry["normalizer"] = normalizer.name();
        entry["temperature"] = temperature;
        list.push_back(std::move(entry));
    }
    return list;
}

inline nlohmann::ordered_json masks_json(const Report& report) {
    const RowTally& tally = report.tally;
    if (report.capture.kind != Capture::Kind::logits && !report.capture.bias) return nullptr;
    nlohmann::ordered_json json;
    json["entries"] = tally.masks;
    json["least"] = json_number(tally.least_mask);
    json["largest"] = json_number(tally.most_mask);
    json["rows_left_visible"] = tally.unmasked_rows;
    json["causal"] = tally.causal_from_masks();
    return json;
}

inline nlohmann::ordered_json stored_weights_json(const Report& report) {
    const RowTally& tally = report.tally;
    if (report.capture.kind != Capture::Kind::weights) return nullptr;
    const auto [least, most] = std::minmax_element(tally.sums.begin(), tally.sums.end());
    nlohmann::ordered_json json;
    json["normalised"] = report.capture.options.normalise_weights;
    json["least_row_sum"] = tally.sums.empty() ? nlohmann::ordered_json(nullptr) : json_number(*least);
    json["median_row_sum"] = json_number(tally.median_sum());
    json["largest_row_sum"] = tally.sums.empty() ? nlohmann::ordered_json(nullptr) : json_number(*most);
    json["rows_not_summing_to_1"] = tally.not_one;
    json["rows_within_rounding"] = tally.rounded;
    json["negative_weights"] = tally.negative;
    json["rows_with_negative_weights"] = tally.negative_rows;
    json["rows_with_hidden_mass"] = tally.hidden_rows;
    json["largest_hidden_mass"] = tally.most_hidden;
    return json;
}

} // namespace detail

/// Schema "attnscope.report/1", documented in docs/report.md. rows: every row, too.
/// Throws. `invalid_argument` for a report without heads, and for rows that were not kept.
inline nlohmann::ordered_json to_json(const Report& report, bool rows = false) {
    attnscope::detail::require(!report.heads.empty(), "io::to_json", "the report must have heads");
    attnscope::detail::require(!rows || report.options.keep_rows, "io::to_json",
                               "rows need a report that kept them (ReportOptions::keep_rows)");
    const Capture& input = report.capture;
    nlohmann::ordered_json json;
    json["schema"] = "attnscope.report/1";
    json["version"] = version;
    using Text = nlohmann::ordered_json; // bytes of a file's name that are not UTF-8 are replaced
    json["input"] = Text::parse(Text(input.name).dump(-1, ' ', false, Text::error_handler_t::replace));
    json["shape"] = {
        {"batches", input.batches},
        {"layers", input.layers},
        {"heads", input.heads},
        {"queries", input.queries},
        {"keys", input.keys},
        {"width", input.width ? nlohmann::ordered_json(*input.width) : nlohmann::ordered_json(nullptr)}};
    json["causal"] = attnscope::detail::report_words::is_causal(report);
    const std::string temperature = attnscope::detail::report_words::temperature_text(report);
    json["temperature"] =
        temperature.find(',') == temperature.npos
            ? nlohmann::ordered_json(report.normalizers[static_cast<std::size_t>(report.layers[0])].temperature)
            : nlohmann::ordered_json(nullptr);
    json["normalizer"] = attnscope::detail::report_words::normalizer_text(report);
    json["scalar"] = report.options.analysis.single_precision ? "float" : "double";
    json["streamed"] = report.streamed;
    json["max_weight_difference"] = report.weight_difference ? json_number(*report.weight_difference) : nullptr;
    json["attention"] = detail::attention_json(report);
    json["masks"] = detail::masks_json(report);
    json["stored_weights"] = detail::stored_weights_json(report);
    json["loss"] = json_number(attnscope::detail::report_words::loss_of(report));
    if (report.beside_loss) json["beside_loss"] = json_number(*report.beside_loss);
    json["assumptions"] = input.assumptions;
    json["warnings"] = warnings_of(input, report.tally);
    json["heads"] = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < report.heads.size(); ++i) {
        nlohmann::ordered_json entry;
        entry["batch"] = report.places[i].batch;
        entry["layer"] = report.places[i].layer;
        entry["head"] = report.places[i].head;
        entry["mean"] = mean_json(report.heads[i]);
        if (report.heads[i].sink_logit)
            entry["sink_mass"] = json_number(report.heads[i].mean(&RowColumns::sink_mass));
        if (report.options.qk_clip) {
            const double most = report.heads[i].largest_logit;
            entry["max_logit"] = json_number(most);
            entry["qk_clip_factor"] = json_number(qk_clip_factor(most, *report.options.qk_clip));
        }
        if (!report.beside.empty()) {
            const HeadSummary& other = report.beside[i];
            entry["beside"]["normalizer"] = other.normalizer;
            entry["beside"]["mean"] = mean_json(other);
            entry["beside"]["rows"] = rows ? rows_json(report.beside_rows[i]) : nlohmann::ordered_json::array();
        }
        entry["rows"] = rows ? rows_json(report.head_rows[i]) : nlohmann::ordered_json::array();
        json["heads"].push_back(std::move(entry));
    }
    json["audit"] = to_json(report.audit);
    return json;
}

} // namespace io

} // namespace v0_2
} // namespace attnscope
