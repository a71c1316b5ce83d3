#include "page.hpp"

#include "output.hpp"
#include "page_parts.hpp"

#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/io/analysis_json.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <support/base64.hpp>
#include <support/named_normalizer.hpp>

#include <fmt/format.h>

#include <cstring>

namespace report {
namespace {

using Json = nlohmann::ordered_json;
using attnscope::RowIn;
using attnscope::RowOut;
using program::base64;

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
Json number(double x) {
    if (std::isnan(x)) return nullptr;
    if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
    if (x == std::floor(x) && std::abs(x) < 1e15) return static_cast<std::int64_t>(x);
    return std::strtod(fmt::format("{:.7g}", x).c_str(), nullptr);
}

std::string name_of(const attnscope::RowFigure& figure) {
    return figure.group.empty() ? std::string(figure.name) : fmt::format("{}.{}", figure.group, figure.name);
}

/// Figures along the text, in the order of the bytes of a head.
constexpr std::array<attnscope::RowFigure, 5> row_curves = {{
    {"", "entropy_nats", &attnscope::RowColumns::entropy_nats},
    {"", "participation_ratio", &attnscope::RowColumns::participation_ratio},
    {"", "max_weight", &attnscope::RowColumns::max_weight},
    {"", "first_key_weight", &attnscope::RowColumns::first_key_weight},
    {"jacobian", "spectral", &attnscope::RowColumns::spectral},
}};

Json audit_of(const attnscope::Audit& audit) {
    Json list = Json::array();
    const auto records = audit.records();
    for (std::size_t i = 0; i < records.size(); ++i) {
        const attnscope::AuditRecord& record = records[i];
        if (record.checked == 0) continue;
        Json entry = Json::array({i});
        for (const std::size_t count : record.count) entry.push_back(count);
        entry.push_back(number(record.median_tightness()));
        entry.push_back(number(record.max_tightness()));
        const attnscope::AuditCase& closest = record.closest;
        if (closest.use >= 0) { // page.js reads them by place
            entry.push_back(closest.query);
            entry.push_back(static_cast<int>(closest.verdict));
            entry.push_back(closest.side == attnscope::Side::upper ? 1 : 0);
            entry.push_back(number(closest.measured));
            entry.push_back(number(closest.limit));
            entry.push_back(number(closest.use));
        }
        list.push_back(std::move(entry));
    }
    return list;
}

Json statements_json() {
    Json list = Json::array();
    for (const attnscope::Statement* const statement : attnscope::statements)
        list.push_back({statement->id, name_of(statement->form), name_of(statement->provenance),
                        statement->text, statement->conditions, statement->source});
    return list;
}

double median(const std::vector<double>& sorted) {
    return sorted.empty() ? std::numeric_limits<double>::quiet_NaN() : sorted[(sorted.size() - 1) / 2];
}

/// Figures of the heads that have them all alike: name, and what it is of a head.
struct HeadFigure {
    std::string name;
    std::function<double(std::size_t)> of;
};

std::vector<HeadFigure> head_figures(const Report& report) {
    std::vector<HeadFigure> figures;
    for (const attnscope::RowFigure& figure : report.heads.front().figures)
        figures.push_back({name_of(figure), [&report, values = figure.values](std::size_t head) {
                               return report.heads[head].mean(values);
                           }});
    figures.push_back(
        {"half_context", [&report](std::size_t head) { return median(report.patterns[head].half_contexts); }});
    return figures;
}

/// Means of the selections of a head: [N, figure...] for each N that some row has.
Json selections_of(const HeadSummary& head) {
    Json list = Json::array();
    for (const attnscope::SelectionSums& sums : head.selections) {
        if (!sums.any()) continue;
        Json entry = Json::array({sums.n});
        for (const attnscope::FigureSum& figure : sums.figures) entry.push_back(number(figure.mean()));
        list.push_back(std::move(entry));
    }
    return list;
}

/// The normalisers that the page computes itself, as `named_normalizer` calls them.
constexpr std::array<std::string_view, 5> page_normalizers = {"softmax", "ssmax:0.43", "sink:1", "sparsemax",
                                                              "entmax:1.5"};

double temperature_of(const Report& report, std::size_t head) {
    return report.normalizers[static_cast<std::size_t>(report.places[head].layer)].temperature;
}

/// What the library says of a row that the page has: the page compares its own figures with these.
Json checks_of(const Report& report, std::size_t head, std::size_t place) {
    Json list = Json::array();
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
        attnscope::AnyNormalizer normalizer = program::named_normalizer(name, temperature);
        if (own_sink) normalizer = normalizer.with_sink(*sink);
        std::vector<double> p(z.size());
        if (normalizer.apply<double>(RowIn<double>(z), RowOut<double>(p)) != attnscope::RowStatus::normal)
            return;
        std::vector<double> logs;
        for (const double x : p) logs.push_back(std::log(x));
        const auto row = attnscope::row_statistics<double>(RowIn<double>(logs));
        const auto plain = attnscope::row_statistics<double>(RowIn<double>(z), temperature);
        const auto range = attnscope::weight_range(plain.visible, plain.logit_spread() / temperature);
        Json entry = {
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
            entry["limit"] = attnscope::weight_gradient_limit<double>(RowIn<double>(p)) / temperature;
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

Json head_json(const Report& report, std::size_t head, const std::vector<HeadFigure>& figures) {
    const HeadAnalysis& analysis = report.head_rows[head];
    const HeadPattern& pattern = report.patterns[head];
    const HeadPlace& place = report.places[head];
    Json json;
    json["place"] = {place.batch, place.layer, place.head};
    json["normalizer"] = analysis.normalizer;
    json["temperature"] = temperature_of(report, head);
    if (analysis.sink_logit) json["sink"] = attnscope::io::json_number(*analysis.sink_logit);
    for (const HeadFigure& figure : figures) json["mean"].push_back(number(figure.of(head)));
    json["selections"] = selections_of(report.heads[head]);
    json["audit"] = audit_of(analysis.audit);
    Floats curves;
    for (const attnscope::RowFigure& figure : row_curves)
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

std::string_view kind_of(const Capture& capture) {
    return capture.kind == Capture::Kind::queries_and_keys ? "q and k"
           : capture.kind == Capture::Kind::logits         ? "logits"
                                                           : "weights";
}

Json data_of(const Report& report, const std::string& command) {
    const Capture& input = report.capture;
    const std::vector<HeadFigure> figures = head_figures(report);
    Json json;
    json["version"] = attnscope::version;
    json["command"] = command;
    json["input"] = attnscope::printable(input.name);
    json["synthetic"] = input.synthetic;
    json["kind"] = kind_of(input);
    json["shape"] = {input.batches, input.layers, input.heads, input.queries, input.keys};
    json["reading"] = report.settings.analysis.reading == attnscope::Reading::cumulative ? "distance_cumulative"
                                                                                         : "distance_resultant";
    json["audited"] = report.settings.analysis.audit || report.settings.analysis.certificates;
    json["streamed"] = report.streamed;
    json["assumptions"] = input.assumptions;
    json["found"] = findings_of(input, report.tally);
    json["warnings"] = warnings_of(input, report.tally);
    json["tokens"] = Json::array();
    for (const std::string& token : input.token_texts)
        json["tokens"].push_back(attnscope::printable(token, 200));
    for (const HeadFigure& figure : figures) json["figures"].push_back(figure.name);
    for (const attnscope::SelectionFigure& figure : attnscope::selection_figures)
        json["selection_figures"].push_back(figure.name);
    for (const attnscope::RowFigure& figure : row_curves) json["curves"].push_back(name_of(figure));
    json["queries"] = report.plan.queries;
    json["shown"] = report.plan.shown;
    json["whole"] = report.plan.whole;
    json["most_keys"] = report.plan.most_keys;
    json["statements"] = statements_json();
    json["audit"] = audit_of(report.audit);
    json["unknown_rows"] = report.audit.unknown_rows();
    for (std::size_t head = 0; head < report.heads.size(); ++head)
        json["heads"].push_back(head_json(report, head, figures));
    json["checks"] = Json::array();
    if (!report.plan.whole.empty())
        for (const std::size_t head : {std::size_t{0}, report.heads.size() / 2, report.heads.size() - 1})
            for (Json& check : checks_of(report, head, report.plan.whole.size() - 1))
                json["checks"].push_back(std::move(check));
    return json;
}

/// ASCII alone, in which no tag of HTML can begin or end.
std::string inside_a_script(const Json& json) {
    const std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    std::string safe;
    safe.reserve(text.size());
    for (const char c : text) {
        if (c == '<')
            safe += "\\u003c";
        else if (c == '>')
            safe += "\\u003e";
        else if (c == '&')
            safe += "\\u0026";
        else
            safe += c;
    }
    return safe;
}

} // namespace

std::string to_page(const Report& report, const std::string& command, std::string_view experiments) {
    const std::string data = inside_a_script(data_of(report, command));
    std::string page;
    std::string_view rest = page_html;
    for (const auto& [mark, part] :
         {std::pair<std::string_view, std::string_view>{"<!-- page.css -->", page_css},
          {"<!-- link to experiments -->",
           experiments.empty() ? "" : "<a href=\"#experiments\">Experiments</a> "},
          {"<!-- experiments -->", experiments},
          {"<!-- data -->", data},
          {"<!-- page.js -->", page_js}}) {
        const std::size_t at = rest.find(mark);
        if (at == rest.npos) throw std::logic_error(fmt::format("page.html has no {}", mark));
        page.append(rest.substr(0, at)).append(part);
        rest.remove_prefix(at + mark.size());
    }
    return page.append(rest);
}

std::string shell_line(int argc, const char* const* argv, std::string_view program) {
    std::string line(program);
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        line += ' ';
        const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                   std::string_view("-_./=:,+").find(c) != std::string_view::npos;
        });
        if (plain) {
            line += word;
            continue;
        }
        line += '\'';
        for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
        line += '\'';
    }
    return attnscope::printable(line, 4000);
}

} // namespace report
