// The experiments of a model as JSON: parts of the schema "attnscope.paper/1", documented in docs/paper.md.
#pragma once

#include <attnscope/analysis/experiment_figures.hpp>
#include <attnscope/analysis/findings.hpp>

#include <nlohmann/json.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

inline nlohmann::ordered_json to_json(const OverHeads& over) {
    return {{"mean", over.mean}, {"low", over.low}, {"high", over.high}};
}

/// Concentration and selections for each length.
inline nlohmann::ordered_json lengths_json(const Experiments& found) {
    using Json = nlohmann::ordered_json;
    const ExperimentOptions& options = found.options;
    Json all = Json::array();
    for (std::size_t l = 0; l < options.lengths.size(); ++l) {
        const CriticalCount critical = found.critical(l);
        Json at{{"length", critical.length}, {"critical_N", critical.count ? Json(*critical.count) : Json()}};
        std::vector<double> weights, keys, entropy;
        for (const ExperimentHead& head : found.heads) {
            weights.push_back(head.at_length[l].max_weight);
            keys.push_back(head.at_length[l].participation_ratio);
            entropy.push_back(head.at_length[l].entropy_nats);
        }
        at["max_weight"] = to_json(over_heads(std::move(weights)));
        at["participation_ratio"] = to_json(over_heads(std::move(keys)));
        at["entropy_nats"] = to_json(over_heads(std::move(entropy)));
        at["selections"] = Json::array();
        for (std::size_t c = 0; c < options.counts.size() && options.counts[c] < critical.length; ++c) {
            Json selection{
                {"N", options.counts[c]}, {"rows", found.rows(l, c)}, {"p_value", critical.p_values[c]}};
            for (std::size_t f = 0; f < curve_figure_count; ++f)
                selection[std::string(curve_figure_names[f])] =
                    to_json(found.over(static_cast<CurveFigure>(f), l, c));
            at["selections"].push_back(std::move(selection));
        }
        all.push_back(std::move(at));
    }
    return all;
}

} // namespace detail

/// The members `findings`, `lengths`, `separability`, `sensitivity`, `heads` and `audit`. Figures that do not exist are NaN,
/// which is written as null.
/// Throws. `invalid_argument` while a layer is missing.
inline nlohmann::ordered_json to_json(const Experiments& found) {
    found.require_all("to_json");
    using Json = nlohmann::ordered_json;
    Json json;
    for (const Finding& finding : findings(found))
        json["findings"].push_back({{"id", finding.id},
                                    {"experiment", finding.experiment},
                                    {"paper", finding.paper},
                                    {"here", finding.here},
                                    {"value", finding.value},
                                    {"rule", finding.rule},
                                    {"agreement", name_of(finding.agreement)}});
    json["lengths"] = detail::lengths_json(found);
    for (const MeanBall& ball : mean_balls(found))
        json["separability"].push_back({{"N", ball.count},
                                        {"rows", ball.rows},
                                        {"separable", ball.separable},
                                        {"published", {ball.published_lower, ball.published_upper}},
                                        {"valid", {ball.valid_lower, ball.valid_upper}},
                                        {"expected", ball.expected}});
    for (std::size_t t = 0; t < found.options.temperatures.size(); ++t)
        for (std::size_t e = 0; e < found.options.steps.size(); ++e) {
            const MeanGradient g = mean_gradient(found, t, e);
            json["sensitivity"].push_back({{"temperature", found.options.temperatures[t]},
                                           {"eps", found.options.steps[e]},
                                           {"mean", g.mean},
                                           {"largest_head", g.largest_head},
                                           {"largest_row", g.largest_row},
                                           {"rows_above_published", g.above},
                                           {"published_limit", g.published},
                                           {"sharp_limit", g.sharp}});
        }
    for (const ExperimentHead& head : found.heads) {
        Json one{{"layer", head.layer}, {"head", head.head}};
        for (const HeadFigure& figure : experiment_head_figures)
            one[std::string(figure.name)] = figure.value(found, head);
        json["heads"].push_back(std::move(one));
    }
    for (const AuditRecord& record : found.audit.records()) {
        if (record.checked == 0) continue;
        Json verdicts;
        for (std::size_t v = 0; v < record.count.size(); ++v)
            verdicts[std::string(verdict_names[v])] = record.count[v];
        json["audit"].push_back({{"statement", record.statement->id},
                                 {"form", name_of(record.statement->form)},
                                 {"provenance", name_of(record.statement->provenance)},
                                 {"rows", record.checked},
                                 {"verdicts", std::move(verdicts)},
                                 {"median_tightness", record.median_tightness()},
                                 {"max_tightness", record.max_tightness()}});
    }
    return json;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
