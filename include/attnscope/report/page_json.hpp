// What a page on which the heads of a report are explored shows, as JSON. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/io/analysis_json.hpp>
#include <attnscope/io/base64.hpp>
#include <attnscope/report/report.hpp>
#include <attnscope/runtime/registry.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>

#include <cstring>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {
namespace page {

/// Floats, lowest byte first, as text.
class Floats {
public:
    void add(float x) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &x, sizeof bits);
        for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>(bits >> (8 * i) & 255U);
    }
    std::string text() const { return base64(bytes_); }

private:
    std::string bytes_;
};

/// A number of seven digits, which is what a screen has room for; text for infinities, null for what is not known.
inline nlohmann::ordered_json number(double x) {
    if (std::isnan(x)) return nullptr;
    if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
    if (x == std::floor(x) && std::abs(x) < 1e15) return static_cast<std::int64_t>(x);
    return std::strtod(fmt::format("{:.7g}", x).c_str(), nullptr);
}

inline std::string name_of(const RowFigure& figure) {
    return figure.group.empty() ? std::string(figure.name) : fmt::format("{}.{}", figure.group, figure.name);
}

/// Figures along the text, in the order of the bytes of a head.
inline constexpr std::array<RowFigure, 5> row_curves = {{
    {"", "entropy_nats", &RowColumns::entropy_nats},
    {"", "participation_ratio", &RowColumns::participation_ratio},
    {"", "max_weight", &RowColumns::max_weight},
    {"", "first_key_weight", &RowColumns::first_key_weight},
    {"jacobian", "spectral", &RowColumns::spectral},
}};

inline nlohmann::ordered_json audit_of(const Audit& audit) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    const auto records = audit.records();
    for (std::size_t i = 0; i < records.size(); ++i) {
        const AuditRecord& record = records[i];
        if (record.checked == 0) continue;
        nlohmann::ordered_json entry = nlohmann::ordered_json::array({i});
        for (const std::size_t count : record.count) entry.push_back(count);
        entry.push_back(number(record.median_tightness()));
        entry.push_back(number(record.max_tightness()));
        const AuditCase& closest = record.closest;
        if (closest.use >= 0) { // page.js reads them by place
            entry.push_back(closest.query);
            entry.push_back(static_cast<int>(closest.verdict));
            entry.push_back(closest.side == Side::upper ? 1 : 0);
            entry.push_back(number(closest.measured));
            entry.push_back(number(closest.limit));
            entry.push_back(number(closest.use));
        }
        list.push_back(std::move(entry));
    }
    return list;
}

inline nlohmann::ordered_json statements_json() {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Statement* const statement : statements)
        list.push_back({statement->id, name_of(statement->form), name_of(statement->provenance),
                        statement->text, statement->conditions, statement->source});
    return list;
}

inline double median(const std::vector<double>& sorted) {
    return sorted.empty() ? std::numeric_limits<double>::quiet_NaN() : sorted[(sorted.size() - 1) / 2];
}

/// Figures of the heads that have them all alike: name, and what it is of a head.
struct HeadFigure {
    std::string name;
    std::function<double(std::size_t)> of;
};

inline std::vector<HeadFigure> head_figures(const Report& report) {
    std::vector<HeadFigure> figures;
    for (const RowFigure& figure : report.heads.front().figures)
        figures.push_back({name_of(figure), [&report, values = figure.values](std::size_t head) {
                               return report.heads[head].mean(values);
                           }});
    figures.push_back(
        {"half_context", [&report](std::size_t head) { return median(report.patterns[head].half_contexts); }});
    return figures;
}

/// Means of the selections of a head: [N, figure...] for each N that some row has.
inline nlohmann::ordered_json selections_of(const HeadSummary& head) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const SelectionSums& sums : head.selections) {
        if (!sums.any()) continue;
        nlohmann::ordered_json entry = nlohmann::ordered_json::array({sums.n});
        for (const FigureSum& figure : sums.figures) entry.push_back(number(figure.mean()));
        list.push_back(std::move(entry));
    }
    return list;
}

/// The normalisers that the page computes itself, as `make_normalizer` calls them.
inline constexpr std::array<std::string_view, 5> page_normalizers = {"softmax", "ssmax:0.43", "sink:1",
                                                                     "sparsemax", "entmax:1.5"};

inline double temperature_of(const Report& report, std::size_t head) {
    return report.normalizers[static_cast<std::size_t>(report.places[head].layer)].temperature;
}

/// What the library says of a row that the page has: the page compares its own figures with these.
inline nlohmann::ordered_json checks_of(const Report& report, std::size_t head, std::size_t place) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    const WholeRow& whole = report.patterns[head].whole[place];
    if (whole.below.empty()) return list;
    const std::optional<double> sink = report.heads[head].sink_logit;
    const double own = temperature_of(report, head);
    const auto check = [&](std::string_view name, bool own_sink, double temperature, std::size_t length) {
        // The last `length` keys that the query sees.
        std::vector<double> z;
        for (auto at = whole.below.rbegin(); at != whole.below.rend() && z.size() < length; ++at)
            if (std::isfinite(*at)) z.push_back(static_cast<double>(*at) + whole.largest);
        std::reverse(z.begin(), z.end());
        AnyNormalizer normalizer = make_normalizer(name, temperature);
        if (own_sink) normalizer = normalizer.with_sink(*sink);
        std::vector<double> p(z.size());
        if (normalizer.apply<double>(RowIn<double>(z), RowOut<double>(p)) != RowStatus::normal) return;
        std::vector<double> logs;
        for (const double x : p) logs.push_back(std::log(x));
        const auto row = row_statistics<double>(RowIn<double>(logs));
        const auto plain = row_statistics<double>(RowIn<double>(z), temperature);
        const auto range = weight_range(plain.visible, plain.logit_spread() / temperature);
        nlohmann::ordered_json entry = {
            {"head", head},
            {"row", place},
            {"normalizer", own_sink ? "own_sink" : std::string(name)},
            {"temperature", temperature},
            {"length", z.size()},
            {"entropy", row.entropy_nats()},
            {"largest", *std::max_element(p.begin(), p.end())},
            {"keys", row.participation_ratio()},
            {"spectral", normalizer.norms<double>(RowIn<double>(z), RowIn<double>(p)).spectral.value}};
        if (name == "softmax" && !own_sink) {
            entry["range"] = {range.lower, range.upper};
            entry["limit"] = weight_gradient_limit<double>(RowIn<double>(p)) / temperature;
        }
        list.push_back(std::move(entry));
    };
    const bool logits = report.capture.kind != Capture::Kind::weights;
    const std::size_t all = whole.below.size(), part = std::max<std::size_t>(1, all / 3);
    for (const std::string_view name : page_normalizers) {
        if (name.starts_with("sink") && !logits) continue;
        for (const double factor : {1.0, 0.25, 3.0}) check(name, false, own * factor, all);
        check(name, false, own, part);
    }
    if (sink && std::isfinite(*sink)) check("softmax", true, own, all);
    return list;
}

inline nlohmann::ordered_json head_json(const Report& report, std::size_t head,
                                        const std::vector<HeadFigure>& figures) {
    const HeadAnalysis& analysis = report.head_rows[head];
    const HeadPattern& pattern = report.patterns[head];
    const HeadPlace& place = report.places[head];
    nlohmann::ordered_json json;
    json["place"] = {place.batch, place.layer, place.head};
    json["normalizer"] = analysis.normalizer;
    json["temperature"] = temperature_of(report, head);
    if (analysis.sink_logit) json["sink"] = io::json_number(*analysis.sink_logit);
    for (const HeadFigure& figure : figures) json["mean"].push_back(number(figure.of(head)));
    json["selections"] = selections_of(report.heads[head]);
    json["audit"] = audit_of(analysis.audit);
    Floats curves;
    for (const RowFigure& figure : row_curves)
        for (const Index query : report.plan.queries)
            curves.add(static_cast<float>((analysis.rows.*figure.values)[query]));
    json["curves"] = curves.text();
    json["rows"] = base64(pattern.rows);
    json["kept"] = {number(pattern.kept), number(pattern.least_kept)};
    Floats whole;
    for (const WholeRow& row : pattern.whole) {
        json["whole"].push_back({row.below.size(), row.largest});
        for (const float z : row.below) whole.add(z);
    }
    json["logits"] = whole.text();
    return json;
}

inline std::string_view kind_of(const Capture& capture) {
    return capture.kind == Capture::Kind::queries_and_keys ? "q and k"
           : capture.kind == Capture::Kind::logits         ? "logits"
                                                           : "weights";
}

} // namespace page
} // namespace detail

/// The data of the page of attnscope-report: figures of the heads, their patterns, whole rows of a few, the audit, and what the
/// library says of some rows, for a page that computes such figures itself to compare with. Numbers have seven digits.
/// Shapes and units. `queries`, `shown` and `whole` are those of `PatternPlan`; `rows` of a head is `HeadPattern::rows`,
/// `curves` and `logits` are floats, lowest byte first, all three in base64. command: what made the report, in words.
/// Throws. `invalid_argument` for a report without heads, patterns or rows (`ReportOptions::patterns`, `keep_rows`).
inline nlohmann::ordered_json page_json(const Report& report, const std::string& command) {
    attnscope::detail::require(
        !report.heads.empty() && report.patterns.size() == report.heads.size() &&
            report.head_rows.size() == report.heads.size(),
        "io::page_json",
        "the report must have heads, their patterns and their rows (ReportOptions::patterns, keep_rows)");
    const Capture& input = report.capture;
    const std::vector<detail::page::HeadFigure> figures = detail::page::head_figures(report);
    nlohmann::ordered_json json;
    json["version"] = version;
    json["command"] = command;
    json["input"] = printable(input.name);
    json["synthetic"] = input.synthetic;
    json["kind"] = detail::page::kind_of(input);
    json["shape"] = {input.batches, input.layers, input.heads, input.queries, input.keys};
    json["reading"] =
        report.options.analysis.reading == Reading::cumulative ? "distance_cumulative" : "distance_resultant";
    json["audited"] = report.options.analysis.audit || report.options.analysis.certificates;
    json["streamed"] = report.streamed;
    json["assumptions"] = input.assumptions;
    json["found"] = findings_of(input, report.tally);
    json["warnings"] = warnings_of(input, report.tally);
    json["tokens"] = nlohmann::ordered_json::array();
    for (const std::string& token : input.token_texts) json["tokens"].push_back(printable(token, 200));
    for (const detail::page::HeadFigure& figure : figures) json["figures"].push_back(figure.name);
    for (const SelectionFigure& figure : selection_figures) json["selection_figures"].push_back(figure.name);
    for (const RowFigure& figure : detail::page::row_curves)
        json["curves"].push_back(detail::page::name_of(figure));
    json["queries"] = report.plan.queries;
    json["shown"] = report.plan.shown;
    json["whole"] = report.plan.whole;
    json["most_keys"] = report.plan.most_keys;
    json["statements"] = detail::page::statements_json();
    json["audit"] = detail::page::audit_of(report.audit);
    json["unknown_rows"] = report.audit.unknown_rows();
    for (std::size_t head = 0; head < report.heads.size(); ++head)
        json["heads"].push_back(detail::page::head_json(report, head, figures));
    json["checks"] = nlohmann::ordered_json::array();
    if (!report.plan.whole.empty())
        for (const std::size_t head : {std::size_t{0}, report.heads.size() / 2, report.heads.size() - 1})
            for (nlohmann::ordered_json& check :
                 detail::page::checks_of(report, head, report.plan.whole.size() - 1))
                json["checks"].push_back(std::move(check));
    return json;
}

} // namespace io

} // namespace v0_2
} // namespace attnscope
