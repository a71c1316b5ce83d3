// An analysis as JSON: the objects of the schemas in docs/report.md.
#pragma once

#include <attnscope/analysis/head_summary.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {
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

/// value(i) of the i-th figure, in its group.
template <class Value>
nlohmann::ordered_json figures_json(std::span<const RowFigure> figures, const Value& value) {
    nlohmann::ordered_json object;
    for (std::size_t i = 0; i < figures.size(); ++i) {
        nlohmann::ordered_json& place =
            figures[i].group.empty() ? object : object[std::string(figures[i].group)];
        place[std::string(figures[i].name)] = json_number(value(i));
    }
    return object;
}

template <class Value>
nlohmann::ordered_json selection_json(Index n, const Value& value) {
    nlohmann::ordered_json entry;
    entry["n"] = n;
    for (std::size_t i = 0; i < selection_figures.size(); ++i)
        entry[std::string(selection_figures[i].name)] = json_number(value(i));
    return entry;
}

} // namespace detail

/// Means over the rows of a head: `visible`, the figures, and `selection`, one entry for each N that some row has.
inline nlohmann::ordered_json mean_json(const HeadSummary& head) {
    nlohmann::ordered_json mean;
    mean["visible"] = json_number(head.mean_visible);
    mean.update(detail::figures_json(head.figures, [&](std::size_t i) { return head.means[i]; }));
    mean["selection"] = nlohmann::ordered_json::array();
    for (const SelectionSums& sums : head.selections)
        if (sums.any())
            mean["selection"].push_back(
                detail::selection_json(sums.n, [&](std::size_t i) { return sums.figures[i].mean(); }));
    return mean;
}

/// One object for each query.
inline nlohmann::ordered_json rows_json(const HeadAnalysis& head) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    const std::vector<RowFigure> figures = figures_of(head.rows);
    for (Index query = 0; query < head.queries; ++query) {
        nlohmann::ordered_json row;
        row["query"] = query;
        row["visible"] = head.rows.visible[query];
        row["argmax"] = nullptr;
        if (const Index best = head.rows.argmax[query]; best >= 0) row["argmax"] = best;
        row.update(detail::figures_json(figures,
                                        [&](std::size_t i) { return (head.rows.*figures[i].values)[query]; }));
        row["selection"] = nlohmann::ordered_json::array();
        for (const SelectionColumns& columns : head.selections)
            if (columns.has(query))
                row["selection"].push_back(detail::selection_json(
                    columns.n, [&](std::size_t i) { return (columns.*selection_figures[i].values)[query]; }));
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
} // namespace v0_2
} // namespace attnscope
