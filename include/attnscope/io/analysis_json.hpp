// An analysis as JSON: the objects of the schemas in docs/report.md.
#pragma once

#include <attnscope/analysis/head_analysis.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_1 {
namespace io {

/// A number, or null where there is none: never 0 for what is not known.
inline nlohmann::ordered_json json_number(double x) {
    return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json(nullptr);
}

/// One entry for each statement: id, form, provenance, rows by verdict, tightness.
inline nlohmann::ordered_json to_json(const Audit& audit) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const AuditRecord& record : audit.records()) {
        nlohmann::ordered_json entry;
        entry["id"] = record.statement->id;
        entry["form"] = name_of(record.statement->form);
        entry["provenance"] = name_of(record.statement->provenance);
        entry["checked"] = record.checked;
        for (std::size_t v = 0; v < verdict_names.size(); ++v)
            entry[std::string(verdict_names[v])] = record.count[v];
        entry["max_tightness"] = json_number(record.max_tightness());
        entry["median_tightness"] = json_number(record.median_tightness());
        list.push_back(std::move(entry));
    }
    return list;
}

namespace detail {

template <class Value>
nlohmann::ordered_json figures_json(const RowColumns& rows, const Value& value) {
    nlohmann::ordered_json object;
    for (const RowFigure& figure : figures_of(rows)) {
        nlohmann::ordered_json& place = figure.group.empty() ? object : object[std::string(figure.group)];
        place[std::string(figure.name)] = json_number(value(rows.*figure.values));
    }
    return object;
}

template <class Has, class Value>
nlohmann::ordered_json selections_json(const HeadAnalysis& head, const Has& has, const Value& value) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const SelectionColumns& columns : head.selections) {
        if (!has(columns)) continue;
        nlohmann::ordered_json entry;
        entry["n"] = columns.n;
        for (const SelectionFigure& figure : selection_figures)
            entry[std::string(figure.name)] = json_number(value(columns.*figure.values));
        list.push_back(std::move(entry));
    }
    return list;
}

} // namespace detail

/// Means over the rows of a head: `visible`, the figures, and `selection`, one entry for each N that some row has.
inline nlohmann::ordered_json mean_json(const HeadAnalysis& head) {
    nlohmann::ordered_json mean;
    mean["visible"] = json_number(head.rows.mean_visible());
    mean.update(detail::figures_json(head.rows, finite_mean));
    mean["selection"] = detail::selections_json(
        head, [](const SelectionColumns& columns) { return columns.mass.isFinite().any(); }, finite_mean);
    return mean;
}

/// One object for each query.
inline nlohmann::ordered_json rows_json(const HeadAnalysis& head) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (Index query = 0; query < head.queries; ++query) {
        const auto of_query = [&](const Column& column) { return column[query]; };
        nlohmann::ordered_json row;
        row["query"] = query;
        row["visible"] = head.rows.visible[query];
        row.update(detail::figures_json(head.rows, of_query));
        row["selection"] = detail::selections_json(
            head, [&](const SelectionColumns& columns) { return columns.has(query); }, of_query);
        list.push_back(std::move(row));
    }
    return list;
}

/// One head by itself, schema "attnscope.analysis/1": how it was computed, `status`, the number of rows of each,
/// `mean`, `audit`, and `rows`, each with its own status, if asked for. Rows that were not reached are `nan`.
inline nlohmann::ordered_json to_json(const HeadAnalysis& head, bool rows = false) {
    nlohmann::ordered_json json;
    json["schema"] = "attnscope.analysis/1";
    json["queries"] = head.queries;
    json["keys"] = head.keys;
    json["normalizer"] = head.normalizer;
    const auto known = [](const std::optional<double>& x) { return x ? json_number(*x) : nullptr; };
    json["temperature"] = known(head.temperature);
    json["sink_logit"] = known(head.sink_logit);
    json["scale"] = known(head.scale);
    json["scalar"] = head.single_precision ? "float" : "double";
    json["reading"] = name_of(head.reading);
    json["radius"] = known(head.radius);
    json["streamed"] = head.streamed;
    json["examined"] = head.examined;
    json["cancelled"] = head.extent.cancelled;
    for (const RowStatus status : {RowStatus::normal, RowStatus::empty, RowStatus::infinite, RowStatus::nan})
        json["status"][std::string(name_of(status))] =
            std::count(head.rows.status.begin(), head.rows.status.end(), status);
    json["mean"] = mean_json(head);
    json["rows"] = rows ? rows_json(head) : nlohmann::ordered_json::array();
    for (std::size_t query = 0; query < json["rows"].size(); ++query)
        json["rows"][query]["status"] = name_of(head.rows.status[query]);
    json["audit"] = to_json(head.audit);
    return json;
}

} // namespace io
} // namespace v0_1
} // namespace attnscope
