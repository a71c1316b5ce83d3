#include "output.hpp"

#include <attnscope/fmt.hpp>
#include <support/program.hpp>

#include <nlohmann/json.hpp>

namespace report {
namespace {

using Json = nlohmann::ordered_json;

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

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

/// What an input cannot give is null, never 0.
Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json selection_json(std::span<const SelectionFigures> selections) {
    Json list = Json::array();
    for (const SelectionFigures& selection : selections) {
        Json entry;
        entry["n"] = selection.n;
        for (const SelectionFigure& figure : selection_figures)
            entry[std::string(figure.name)] = number(selection.*figure.value);
        list.push_back(std::move(entry));
    }
    return list;
}

template <class Value>
Json figures_json(std::span<const Figure> figures, Value&& value,
                  std::span<const SelectionFigures> selections) {
    Json object;
    for (const Figure& figure : figures) {
        Json& place = figure.group.empty() ? object : object[std::string(figure.group)];
        place[std::string(figure.name)] = number(value(figure.value));
    }
    object["selection"] = selection_json(selections);
    return object;
}

Json audit_json(const attnscope::Audit& audit) {
    Json list = Json::array();
    for (const attnscope::AuditRecord& record : audit.records()) {
        Json entry;
        entry["id"] = record.statement->id;
        entry["form"] = name_of(record.statement->form);
        entry["provenance"] = name_of(record.statement->provenance);
        entry["checked"] = record.checked;
        for (std::size_t v = 0; v < attnscope::verdict_names.size(); ++v)
            entry[std::string(attnscope::verdict_names[v])] = record.count[v];
        entry["max_tightness"] = number(record.max_tightness());
        entry["median_tightness"] = number(record.median_tightness());
        list.push_back(std::move(entry));
    }
    return list;
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
    json["least"] = number(tally.least_mask);
    json["largest"] = number(tally.most_mask);
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
    json["least_row_sum"] = tally.sums.empty() ? Json(nullptr) : number(*least);
    json["median_row_sum"] = number(tally.median_sum());
    json["largest_row_sum"] = tally.sums.empty() ? Json(nullptr) : number(*most);
    json["rows_not_summing_to_1"] = tally.not_one;
    json["rows_within_rounding"] = tally.rounded;
    json["negative_weights"] = tally.negative;
    json["rows_with_negative_weights"] = tally.negative_rows;
    json["rows_with_hidden_mass"] = tally.hidden_rows;
    json["largest_hidden_mass"] = tally.most_hidden;
    return json;
}

std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.4g}", x) : "-"; }

/// A number that reads back exactly; nothing where there is none.
std::string csv(double x) { return std::isfinite(x) ? fmt::format("{}", x) : ""; }

} // namespace

std::string statements_text() {
    std::string text;
    for (const attnscope::Statement* const statement : attnscope::statements)
        text += fmt::format("{} {} {}\n    {}\n    conditions: {}\n    source: {}\n", statement->id,
                            statement->form, statement->provenance, statement->text, statement->conditions,
                            statement->source);
    return text;
}

std::string to_text(const Report& report) {
    const Capture& input = report.capture;
    const Settings& settings = report.settings;
    std::string text;
    auto out = std::back_inserter(text);
    if (input.synthetic)
        fmt::format_to(out, "No input: synthetic heads from a generator (seed {}), not a trained model.\n",
                       settings.seed);
    fmt::format_to(out, "input        {}, from {}\n", attnscope::detail::printable(input.name),
                   kind_text(input));
    fmt::format_to(out, "shape        {}{} layers x {} heads, {} queries, {} keys{}\n",
                   input.batches > 1 ? fmt::format("{} batches x ", input.batches) : "", input.layers,
                   input.heads, input.queries, input.keys,
                   input.width ? fmt::format(", width {}", *input.width) : "");
    fmt::format_to(out, "normaliser   {}, temperature {}, {}{}\n", normalizer_text(report),
                   temperature_text(report), mask_text(report),
                   settings.scalar == Scalar::float64 ? "" : ", weights in float");
    if (input.attention.end() != std::find_if(input.attention.begin(), input.attention.end(),
                                              [](const auto& layer) { return layer.scale.has_value(); }))
        fmt::format_to(out, "scale        {}\n", over_layers(report, [&](Index layer) {
                           return fmt::format("{:.6g}", input.scale(layer));
                       }));
    for (const std::string& line : input.assumptions) fmt::format_to(out, "taken        {}\n", line);
    for (const std::string& line : findings_of(input, report.tally))
        fmt::format_to(out, "found        {}\n", line);
    for (const std::string& line : warnings_of(input, report.tally))
        fmt::format_to(out, "warning      {}\n", line);
    if (report.streamed)
        fmt::format_to(out, "streamed     no matrix of logits; selections and audit of {} rows of each head\n",
                       audited_rows(input.queries, input.keys).size());
    if (report.weight_difference)
        text +=
            std::isnan(*report.weight_difference)
                ? "weights      NaN in the stored weights or in those of q and k, but not in both\n"
                : fmt::format("weights      stored weights differ from those of q and k by at most {:.3g}\n",
                              *report.weight_difference);

    fmt::format_to(
        out, "\nMeans over the rows of each head. H: entropy in nats; p1: largest weight; key0: weight of the "
             "first key;\nkeys: participation ratio 1/sum p^2; D: logit spread; |J|2, |J|F: spectral and "
             "Frobenius norm of dp/dz.\n\n");
    std::vector<std::pair<std::string_view, double RowFigures::*>> columns = {
        {"H", &RowFigures::entropy_nats},        {"p1", &RowFigures::max_weight},
        {"key0", &RowFigures::first_key_weight}, {"keys", &RowFigures::participation_ratio},
        {"D", &RowFigures::logit_spread},        {"|J|2", &RowFigures::spectral},
        {"|J|F", &RowFigures::frobenius}};
    if (report.tally.not_one > 0 && !input.options.normalise_weights)
        columns.emplace_back("unassigned", &RowFigures::unassigned_mass);
    const bool batches = report.heads.front().batch != report.heads.back().batch;
    const auto place_of = [&](const HeadFigures& head, std::string_view separator) {
        return batches ? fmt::format("{}{}{}{}{}", head.batch, separator, head.layer, separator, head.head)
                       : fmt::format("{}{}{}", head.layer, separator, head.head);
    };
    if (batches) fmt::format_to(out, "{:>5} ", "batch");
    fmt::format_to(out, "{:>5} {:>4}", "layer", "head");
    for (const auto& [title, column] : columns) fmt::format_to(out, " {:>9}", title);
    text += '\n';
    for (const HeadFigures& head : report.heads) {
        if (batches) fmt::format_to(out, "{:>5} ", head.batch);
        fmt::format_to(out, "{:>5} {:>4}", head.layer, head.head);
        for (const auto& [title, column] : columns) fmt::format_to(out, " {:>9}", cell(head.mean(column)));
        text += '\n';
    }

    // Summary over heads.
    const auto over_heads = [&](double RowFigures::*figure) {
        std::vector<std::pair<double, const HeadFigures*>> values;
        for (const HeadFigures& head : report.heads)
            if (const double x = head.mean(figure); std::isfinite(x)) values.emplace_back(x, &head);
        std::sort(values.begin(), values.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        return values;
    };
    std::size_t rows = 0, empty = 0, nan = 0, infinite = 0, negative = 0;
    for (const HeadFigures& head : report.heads)
        for (const RowFigures& row : head.rows) {
            ++rows;
            empty += row.status == attnscope::RowStatus::empty;
            nan += row.status == attnscope::RowStatus::nan && !row.negative;
            negative += row.negative;
            infinite += row.status == attnscope::RowStatus::infinite;
        }
    fmt::format_to(out, "\nSummary of {} heads, {} rows", report.heads.size(), rows);
    if (empty) fmt::format_to(out, ", {} without a visible key", empty);
    if (nan) fmt::format_to(out, ", {} with NaN", nan);
    if (infinite) fmt::format_to(out, ", {} with +inf", infinite);
    if (negative) fmt::format_to(out, ", {} with negative weights", negative);
    const std::string_view place_title = batches ? "(batch,layer,head)" : "(layer, head)";
    fmt::format_to(out, "\n{:<28} {:>9} {:>16} {:>9} {:>16}\n", "mean of a head's rows", "least", place_title,
                   "most", place_title);
    const std::array<std::pair<std::string_view, double RowFigures::*>, 5> lines = {{
        {"entropy H, nats", &RowFigures::entropy_nats},
        {"largest weight p1", &RowFigures::max_weight},
        {"first key's weight", &RowFigures::first_key_weight},
        {"participation ratio, keys", &RowFigures::participation_ratio},
        {"spectral norm |J|2", &RowFigures::spectral},
    }};
    for (const auto& [title, figure] : lines) {
        const auto values = over_heads(figure);
        if (values.empty()) continue;
        const auto place = [&](const HeadFigures& head) { return fmt::format("({})", place_of(head, ", ")); };
        fmt::format_to(out, "{:<28} {:>9} {:>16} {:>9} {:>16}\n", title, cell(values.front().first),
                       place(*values.front().second), cell(values.back().first), place(*values.back().second));
    }
    const auto first_key = over_heads(&RowFigures::first_key_weight);
    const auto sinks = std::count_if(first_key.begin(), first_key.end(),
                                     [](const auto& x) { return x.first > attnscope::sink_threshold; });
    fmt::format_to(out, "{} of {} heads rest on the first key (mean weight above {}).\n", sinks,
                   report.heads.size(), attnscope::sink_threshold);

    if (const auto selections = mean_selection(report.heads); !selections.empty()) {
        const bool cumulative = settings.selection.reading == attnscope::Reading::cumulative;
        const auto distance =
            cumulative ? &SelectionFigures::distance_cumulative : &SelectionFigures::distance_resultant;
        fmt::format_to(out,
                       "\nSelecting the N largest weights, means over all rows with more than N visible keys.\n"
                       "distance: {} reading{}; random: E d of N random keys lies between; lost: |o - o_N|;\n"
                       "separable: share of selected tokens nearer to s than {}.\n\n",
                       name_of(settings.selection.reading), cumulative ? "; bound: its Theorem 1(1)" : "",
                       settings.selection.radius ? fmt::format("{}", *settings.selection.radius)
                                                 : std::string("any other"));
        fmt::format_to(out, "{:>5} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}\n", "N", "mass",
                       "distance", "bound", "random>=", "random<=", "lost", "separable", "precision", "F",
                       "margin");
        for (const SelectionFigures& mean : selections) {
            fmt::format_to(out, "{:>5} {:>8} {:>9} {:>9}", mean.n, cell(mean.mass), cell(mean.*distance),
                           cumulative ? cell(mean.distance_bound) : "-");
            fmt::format_to(out, " {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}\n",
                           cell(mean.expected_distance_lower), cell(mean.expected_distance_upper),
                           cell(mean.truncation_error), cell(mean.separable_fraction), cell(mean.precision),
                           cell(mean.f_score), cell(mean.margin));
        }
    }

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
    json["scalar"] = scalar_names[static_cast<std::size_t>(report.settings.scalar)];
    json["streamed"] = report.streamed;
    json["max_weight_difference"] = number(report.weight_difference.value_or(not_known));
    json["attention"] = attention_json(report);
    json["masks"] = masks_json(report);
    json["stored_weights"] = stored_weights_json(report);
    json["assumptions"] = input.assumptions;
    json["warnings"] = warnings_of(input, report.tally);
    const std::vector<Figure> columns = columns_of(report);
    json["heads"] = Json::array();
    for (const HeadFigures& head : report.heads) {
        Json entry;
        entry["batch"] = head.batch;
        entry["layer"] = head.layer;
        entry["head"] = head.head;
        Json mean;
        mean["visible"] = number(head.mean_visible());
        mean.update(figures_json(
            columns, [&](double RowFigures::*figure) { return head.mean(figure); }, head.mean_selection()));
        entry["mean"] = std::move(mean);
        entry["rows"] = Json::array();
        if (rows)
            for (const RowFigures& row : head.rows) {
                Json line;
                line["query"] = row.query;
                line["visible"] = row.visible;
                line.update(figures_json(
                    columns, [&](double RowFigures::*figure) { return row.*figure; }, row.selection));
                entry["rows"].push_back(std::move(line));
            }
        json["heads"].push_back(std::move(entry));
    }
    json["audit"] = audit_json(report.audit);
    // A file's name need not be UTF-8.
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_csv(const Report& report, const std::filesystem::path& folder, bool rows) {
    const std::vector<Figure> columns = columns_of(report);
    // The batch comes first where there are several.
    const bool batches = report.capture.batches > 1;
    const auto place_of = [&](const HeadFigures& head) {
        return batches ? fmt::format("{},{},{}", head.batch, head.layer, head.head)
                       : fmt::format("{},{}", head.layer, head.head);
    };
    const std::string place = batches ? "batch,layer,head" : "layer,head";
    const auto names = [&](std::string start) {
        for (const Figure& figure : columns)
            start += fmt::format(",{}{}{}", figure.group, figure.group.empty() ? "" : "_", figure.name);
        return start + "\n";
    };
    std::string heads_text = names(place + ",visible"), rows_text = names(place + ",query,visible");
    for (const HeadFigures& head : report.heads) {
        heads_text += fmt::format("{},{}", place_of(head), csv(head.mean_visible()));
        for (const Figure& figure : columns) heads_text += "," + csv(head.mean(figure.value));
        heads_text += '\n';
        if (!rows) continue;
        for (const RowFigures& row : head.rows) {
            rows_text += fmt::format("{},{},{}", place_of(head), row.query, row.visible);
            for (const Figure& figure : columns) rows_text += "," + csv(row.*figure.value);
            rows_text += '\n';
        }
    }
    std::string audit_text = "id,form,provenance,checked,holds,within_rounding,vacuous,undefined,violated,"
                             "median_tightness,max_tightness\n";
    for (const attnscope::AuditRecord& record : report.audit.records()) {
        const attnscope::Statement& statement = *record.statement;
        audit_text +=
            fmt::format("{},{},{},{}", statement.id, statement.form, statement.provenance, record.checked);
        for (const std::size_t count : record.count) audit_text += fmt::format(",{}", count);
        audit_text += fmt::format(",{},{}\n", csv(record.median_tightness()), csv(record.max_tightness()));
    }
    const auto selection_line = [](const SelectionFigures& selection) {
        std::string line = fmt::format(",{}", selection.n);
        for (const SelectionFigure& figure : selection_figures) line += "," + csv(selection.*figure.value);
        return line + "\n";
    };
    const auto selection_names = [](std::string start) {
        start += ",n";
        for (const SelectionFigure& figure : selection_figures) start += fmt::format(",{}", figure.name);
        return start + "\n";
    };
    std::string selection_text = selection_names(place), selection_rows = selection_names(place + ",query");
    for (const HeadFigures& head : report.heads) {
        for (const SelectionFigures& mean : head.mean_selection())
            selection_text += place_of(head) + selection_line(mean);
        if (!rows) continue;
        for (const RowFigures& row : head.rows)
            for (const SelectionFigures& selection : row.selection)
                selection_rows += fmt::format("{},{}", place_of(head), row.query) + selection_line(selection);
    }
    const std::array<const std::string*, csv_names.size()> texts{&heads_text, &audit_text, &selection_text,
                                                                 &rows_text, &selection_rows};
    std::vector<std::pair<std::string_view, std::string_view>> files;
    for (std::size_t i = 0; i < (rows ? csv_names.size() : 3); ++i) files.emplace_back(csv_names[i], *texts[i]);
    program::write_all(folder, files);
}

} // namespace report
