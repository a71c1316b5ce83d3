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
Json figures_json(Value&& value, std::span<const SelectionFigures> selections) {
    Json object;
    for (const Figure& figure : row_figures) {
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

std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.4g}", x) : "-"; }

/// A number that reads back exactly; nothing where there is none.
std::string csv(double x) { return std::isfinite(x) ? fmt::format("{}", x) : ""; }

} // namespace

std::string to_text(const Report& report) {
    const Capture& input = report.capture;
    const Settings& settings = report.settings;
    std::string text;
    auto out = std::back_inserter(text);
    if (input.synthetic)
        fmt::format_to(out, "No input: synthetic heads from a generator (seed {}), not a trained model.\n",
                       settings.seed);
    fmt::format_to(out, "input        {}, from {}\n", input.name, kind_text(input));
    fmt::format_to(out, "shape        {} layers x {} heads, {} queries, {} keys{}\n", input.layers, input.heads,
                   input.queries, input.keys, input.width ? fmt::format(", width {}", *input.width) : "");
    fmt::format_to(out, "normaliser   {}, temperature {}, {}{}\n", settings.normalizer.name(),
                   settings.temperature, settings.causal ? "causal" : "every query sees every key",
                   settings.scalar == Scalar::float64 ? "" : ", weights in float");
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
    fmt::format_to(out, "{:>5} {:>4} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "layer", "head", "H", "p1",
                   "key0", "keys", "D", "|J|2", "|J|F");
    const std::array<double RowFigures::*, 7> columns = {
        &RowFigures::entropy_nats,     &RowFigures::max_weight,
        &RowFigures::first_key_weight, &RowFigures::participation_ratio,
        &RowFigures::logit_spread,     &RowFigures::spectral,
        &RowFigures::frobenius};
    for (const HeadFigures& head : report.heads) {
        fmt::format_to(out, "{:>5} {:>4}", head.layer, head.head);
        for (const auto column : columns) fmt::format_to(out, " {:>9}", cell(head.mean(column)));
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
    std::size_t rows = 0, empty = 0, nan = 0, infinite = 0;
    for (const HeadFigures& head : report.heads)
        for (const RowFigures& row : head.rows) {
            ++rows;
            empty += row.status == attnscope::RowStatus::empty;
            nan += row.status == attnscope::RowStatus::nan;
            infinite += row.status == attnscope::RowStatus::infinite;
        }
    fmt::format_to(out, "\nSummary of {} heads, {} rows", report.heads.size(), rows);
    if (empty) fmt::format_to(out, ", {} without a visible key", empty);
    if (nan) fmt::format_to(out, ", {} with NaN", nan);
    if (infinite) fmt::format_to(out, ", {} with +inf", infinite);
    fmt::format_to(out, "\n{:<28} {:>9} {:>16} {:>9} {:>16}\n", "mean of a head's rows", "least",
                   "(layer, head)", "most", "(layer, head)");
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
        const auto place = [](const HeadFigures& head) {
            return fmt::format("({}, {})", head.layer, head.head);
        };
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
    json["input"] = attnscope::detail::printable(input.name); // JSON is UTF-8
    json["shape"] = {{"layers", input.layers},
                     {"heads", input.heads},
                     {"queries", input.queries},
                     {"keys", input.keys},
                     {"width", input.width ? Json(*input.width) : Json(nullptr)}};
    json["causal"] = report.settings.causal;
    json["temperature"] = report.settings.temperature;
    json["normalizer"] = report.settings.normalizer.name();
    json["scalar"] = scalar_names[static_cast<std::size_t>(report.settings.scalar)];
    json["streamed"] = report.streamed;
    json["max_weight_difference"] = number(report.weight_difference.value_or(not_known));
    json["heads"] = Json::array();
    for (const HeadFigures& head : report.heads) {
        Json entry;
        entry["layer"] = head.layer;
        entry["head"] = head.head;
        Json mean;
        mean["visible"] = number(head.mean_visible());
        mean.update(
            figures_json([&](double RowFigures::*figure) { return head.mean(figure); }, head.mean_selection()));
        entry["mean"] = std::move(mean);
        entry["rows"] = Json::array();
        if (rows)
            for (const RowFigures& row : head.rows) {
                Json line;
                line["query"] = row.query;
                line["visible"] = row.visible;
                line.update(
                    figures_json([&](double RowFigures::*figure) { return row.*figure; }, row.selection));
                entry["rows"].push_back(std::move(line));
            }
        json["heads"].push_back(std::move(entry));
    }
    json["audit"] = audit_json(report.audit);
    // A file's name need not be UTF-8.
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_csv(const Report& report, const std::filesystem::path& folder, bool rows) {
    const auto names = [](std::string start) {
        for (const Figure& figure : row_figures)
            start += fmt::format(",{}{}{}", figure.group, figure.group.empty() ? "" : "_", figure.name);
        return start + "\n";
    };
    std::string heads_text = names("layer,head,visible"), rows_text = names("layer,head,query,visible");
    for (const HeadFigures& head : report.heads) {
        heads_text += fmt::format("{},{},{}", head.layer, head.head, csv(head.mean_visible()));
        for (const Figure& figure : row_figures) heads_text += "," + csv(head.mean(figure.value));
        heads_text += '\n';
        if (!rows) continue;
        for (const RowFigures& row : head.rows) {
            rows_text += fmt::format("{},{},{},{}", head.layer, head.head, row.query, row.visible);
            for (const Figure& figure : row_figures) rows_text += "," + csv(row.*figure.value);
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
    std::string selection_text = selection_names("layer,head"),
                selection_rows = selection_names("layer,head,query");
    for (const HeadFigures& head : report.heads) {
        for (const SelectionFigures& mean : head.mean_selection())
            selection_text += fmt::format("{},{}", head.layer, head.head) + selection_line(mean);
        if (!rows) continue;
        for (const RowFigures& row : head.rows)
            for (const SelectionFigures& selection : row.selection)
                selection_rows +=
                    fmt::format("{},{},{}", head.layer, head.head, row.query) + selection_line(selection);
    }
    const std::array<const std::string*, csv_names.size()> texts{&heads_text, &audit_text, &selection_text,
                                                                 &rows_text, &selection_rows};
    std::vector<std::pair<std::string_view, std::string_view>> files;
    for (std::size_t i = 0; i < (rows ? csv_names.size() : 3); ++i) files.emplace_back(csv_names[i], *texts[i]);
    program::write_all(folder, files);
}

} // namespace report
