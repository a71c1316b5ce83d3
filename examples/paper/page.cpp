#include "page.hpp"

#include <attnscope/analysis/experiment_figures.hpp>
#include <attnscope/analysis/findings.hpp>
#include <attnscope/io/base64.hpp>

#include <fmt/format.h>

namespace paper {
namespace {

std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        switch (c) {
        case '&':
            result += "&amp;";
            break;
        case '<':
            result += "&lt;";
            break;
        case '>':
            result += "&gt;";
            break;
        case '"':
            result += "&quot;";
            break;
        default:
            result += c;
        }
    }
    return result;
}

constexpr std::string_view style = R"(
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22252a; --soft: #5c636e; --line: #dfe2e7; --tint: #f5f6f8;
        --good: #1d6f42; --bad: #b3320f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181d; --ink: #d5d8de; --soft: #9aa0aa; --line: #343942; --tint: #1e2127; --good: #69c585; --bad: #ff7f5e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.6rem 0 .4rem; }
p, figcaption { margin: .5rem 0; } .soft, figcaption { color: var(--soft); font-size: .92rem; }
a { color: inherit; }
figure { margin: .8rem 0 0; } figure img { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); font-weight: 600; white-space: nowrap; } .bad { color: var(--bad); font-weight: 600; white-space: nowrap; }
.formula { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem; margin: 1.2rem 0 0; padding: 0; }
.facts div { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: .55rem .8rem; }
.facts b { display: block; font-size: 1.15rem; font-weight: 600; } .facts span { color: var(--soft); font-size: .85rem; }
)";

std::string fact(std::string_view value, std::string_view name) {
    return fmt::format("<div><b>{}</b><span>{}</span></div>\n", escaped(value), escaped(name));
}

std::string head(const Result& result) {
    std::string text = fmt::format(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<title>{0} and the limitations of normalisation</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n"
        "<h1>Can these heads still select?</h1>\n<p>The experiments of <a "
        "href=\"https://arxiv.org/abs/2508.17821\">"
        "Limitations of Normalization in Attention Mechanism</a>, run on every head of <b>{2}</b>{3}.</p>\n"
        "<p class=\"soft\">{4}. Text: {5}{6}.</p>\n",
        escaped(result.model), style, escaped(result.model),
        result.trained ? ""
                       : ", <b>whose weights nobody trained</b>: what follows describes its arithmetic only",
        escaped(result.shape), escaped(result.text),
        result.available > result.tokens()
            ? fmt::format(", the first {} of {} tokens", result.tokens(), result.available)
            : std::string());
    text += "<div class=\"facts\">\n";
    text += fact(fmt::format("{}", result.heads.size()), "heads");
    text += fact(fmt::format("{}", result.tokens()), "tokens");
    Index rows = 0;
    for (const attnscope::ExperimentHead& one : result.heads) rows += one.at_length.back().normal_rows;
    text += fact(fmt::format("{}", rows), "rows of weights");
    if (!std::isnan(result.loss)) text += fact(fmt::format("{:.3f}", result.loss), "loss, nats a token");
    text += fact(fmt::format("{:.1f} s", result.seconds), "computing");
    return text + "</div>\n";
}

std::string findings_table(const Result& result) {
    std::string text = "<h2>What the paper reports on GPT-2, and what these heads do</h2>\n<div "
                       "class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>\n"
                       "<tr><th>experiment</th><th>the paper</th><th>here</th><th></th></tr>\n";
    for (const attnscope::Finding& finding : attnscope::findings(result)) {
        const bool good = finding.agreement == attnscope::Agreement::agrees,
                   bad = finding.agreement == attnscope::Agreement::differs;
        text += fmt::format(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{}\" title=\"agrees when {}\">{}</td></tr>\n",
            escaped(finding.experiment), escaped(finding.paper), escaped(finding.here),
            good  ? "good"
            : bad ? "bad"
                  : "soft",
            escaped(finding.rule), name_of(finding.agreement));
    }
    text += "</table></div>\n<p class=\"soft\">Agreement is decided by rule: ";
    bool first = true;
    for (const attnscope::Finding& finding : attnscope::findings(result)) {
        text += fmt::format("{}{}: {}", first ? "" : "; ", escaped(finding.experiment), escaped(finding.rule));
        first = false;
    }
    return text + ".</p>\n";
}

std::string figure(const DrawnPicture& drawn) {
    const attnscope::ExperimentPicture& picture = drawn.picture;
    return fmt::format("<h2>{0}</h2>\n<figure>\n<picture><source media=\"(prefers-color-scheme: dark)\" "
                       "srcset=\"data:image/svg+xml;base64,{1}\"><img width=\"{2}\" height=\"{3}\" alt=\"{0}\" "
                       "src=\"data:image/svg+xml;base64,{4}\"></picture>\n<figcaption><b>{5}.</b> "
                       "{6}</figcaption>\n</figure>\n",
                       escaped(picture.title), attnscope::io::base64(drawn.dark), picture.width, picture.height,
                       attnscope::io::base64(drawn.light), escaped(picture.experiment),
                       escaped(picture.caption));
}

/// The heads that stand out, one line for each map.
std::string extremes(const Result& result) {
    std::string text =
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>\n<tr><th>mean over "
        "a head's rows</th><th class=\"number\">least</th>"
        "<th>layer, head</th><th class=\"number\">most</th><th>layer, head</th></tr>\n";
    for (const attnscope::HeadFigure& figure : attnscope::experiment_head_figures) {
        if (figure.name == "sink_key") continue;
        const attnscope::ExperimentHead *least = nullptr, *most = nullptr;
        for (const attnscope::ExperimentHead& one : result.heads) {
            const double value = figure.value(result, one);
            if (std::isnan(value)) continue;
            if (!least || value < figure.value(result, *least)) least = &one;
            if (!most || value > figure.value(result, *most)) most = &one;
        }
        if (!least) continue;
        text += fmt::format(
            "<tr><td>{}</td><td class=\"number\">{:.4g}</td><td>{}, {}</td><td class=\"number\">{:.4g}</td>"
            "<td>{}, {}</td></tr>\n",
            escaped(figure.title), figure.value(result, *least), least->layer, least->head,
            figure.value(result, *most), most->layer, most->head);
    }
    std::size_t sinks = 0;
    for (const attnscope::ExperimentHead& one : result.heads) sinks += one.sink_mass > 0.3;
    return text +
           fmt::format(
               "</table></div>\n<p class=\"soft\">{} of {} heads have a sink (a key with a mean weight above "
               "0.3).</p>\n",
               sinks, result.heads.size());
}

/// How often the plans held on rows that they were not made from.
std::string plan_table(const Result& result) {
    struct Line {
        std::string_view name;
        const attnscope::PlanConfirmation* (*of)(const attnscope::HeadPlan&);
    };
    constexpr std::array<Line, 5> lines = {
        {{"weight 1/2 for half of the rows, background receding as observed",
          [](const attnscope::HeadPlan& p) { return p.aims.empty() ? nullptr : &p.aims.front().confirmation; }},
         {"the same, gaps do not grow (the safe side)",
          [](const attnscope::HeadPlan& p) { return p.steady ? &p.steady->confirmation : nullptr; }},
         {"top-k within 1 % for 99 % of the rows",
          [](const attnscope::HeadPlan& p) { return p.output ? &p.output->top_k : nullptr; }},
         {"top-p within 1 % for 99 % of the rows",
          [](const attnscope::HeadPlan& p) { return p.output ? &p.output->top_p_confirmation : nullptr; }},
         {"bits of a key within 1 % for 99 % of the rows",
          [](const attnscope::HeadPlan& p) { return p.bits ? &p.bits->confirmation : nullptr; }}}};
    std::string text =
        "<h2>Do the plans hold?</h2>\n<p class=\"soft\">Each plan is made once more from the first half of the "
        "queries and tried on the second half, whose rows are longer.</p>\n<div class=\"scroll\" "
        "tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>\n"
        "<tr><th>plan</th><th class=\"number\">held in</th><th class=\"number\">of heads</th>"
        "<th class=\"number\">share of rows served, median</th></tr>\n";
    for (const Line& line : lines) {
        std::vector<double> shares;
        std::size_t held = 0;
        for (const attnscope::ExperimentHead& one : result.heads)
            if (const attnscope::PlanConfirmation* found = line.of(one.plan); found && found->has_held_out) {
                shares.push_back(found->held_out);
                held += found->held;
            }
        if (shares.empty()) continue;
        text += fmt::format("<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>"
                            "<td class=\"number\">{:.3g}</td></tr>\n",
                            line.name, held, shares.size(), attnscope::need_for_share(shares, 0.5));
    }
    return text + "</table></div>\n";
}

std::string audit_table(const Result& result) {
    std::string text = "<h2>The audit: every statement against every row</h2>\n"
                       "<p class=\"soft\">As published and in its sharpest true form. Vacuous: true, but no "
                       "better than what holds without "
                       "the theorem. Reconstructed: the displayed formula was rebuilt from prose and proofs, "
                       "so a verdict is one on the "
                       "reconstruction. Tightness: share of the limit that is used, median and largest. "
                       "Statements about selections are "
                       "held against the N largest weights and against a random set; those about expectations "
                       "against the sampled "
                       "rows.</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
                       "aria-label=\"Table\"><table>\n<tr><th>statement</th>";
    for (const std::string_view name :
         {"checked", "holds", "rounding", "vacuous", "undefined", "violated", "median", "largest"})
        text += fmt::format("<th class=\"number\">{}</th>", name);
    text += "</tr>\n";
    const auto number = [](double x) { return std::isnan(x) ? std::string("-") : fmt::format("{:.4f}", x); };
    for (const attnscope::AuditRecord& record : result.audit.records()) {
        if (record.checked == 0) continue;
        text += fmt::format(
            "<tr><td><b>{}</b>, {}, {}<br><span class=\"formula\">{}</span></td><td class=\"number\">{}</td>",
            record.statement->id, name_of(record.statement->form), name_of(record.statement->provenance),
            escaped(record.statement->text), record.checked);
        for (std::size_t v = 0; v < record.count.size(); ++v)
            text +=
                fmt::format("<td class=\"number{}\">{}</td>",
                            v + 1 == record.count.size() && record.count[v] > 0 ? " bad" : "", record.count[v]);
        text += fmt::format("<td class=\"number\">{}</td><td class=\"number\">{}</td></tr>\n",
                            number(record.median_tightness()), number(record.max_tightness()));
    }
    const std::size_t violated = result.audit.sharp_violations();
    return text + fmt::format("</table></div>\n<p class=\"{}\">{}</p>\n", violated == 0 ? "good" : "bad",
                              violated == 0 ? std::string("No sharp statement is violated.")
                                            : fmt::format("{} rows violate a sharp statement.", violated));
}

std::string choices_table(const Result& result) {
    std::string text = "<h2>What was chosen where the paper is silent</h2>\n<div class=\"scroll\" "
                       "tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>\n";
    for (const auto& [name, choice] : choices(result))
        text += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(choice));
    return text + "</table></div>\n";
}

} // namespace

std::string to_page(const Result& result, std::span<const DrawnPicture> pictures) {
    std::string text = head(result) + findings_table(result);
    for (const DrawnPicture& picture : pictures) text += figure(picture);
    text += extremes(result) + plan_table(result) + audit_table(result) + choices_table(result);
    text += fmt::format(
        "<p class=\"soft\">attnscope-paper {}. The numbers are in results.json and the CSV files beside "
        "this page.</p>\n</main>\n</body>\n</html>\n",
        ATTNSCOPE_VERSION);
    return text;
}

std::string to_section(const Result& result, std::span<const DrawnPicture> pictures) {
    std::string text = findings_table(result);
    for (const DrawnPicture& picture : pictures) text += figure(picture);
    text += extremes(result) + plan_table(result) + choices_table(result);
    for (std::size_t at = 0; (at = text.find("h2>", at)) != text.npos; at += 3)
        text[at + 1] = '3'; // one level down
    return fmt::format(
        "<section id=\"experiments\" aria-labelledby=\"experiments-title\" tabindex=\"-1\">\n"
        "<h2 id=\"experiments-title\">The experiments of arXiv:2508.17821</h2>\n"
        "<p class=\"soft\">{} on {}{}{}. The audit is above.</p>\n{}</section>\n",
        escaped(attnscope::printable(result.model)), escaped(attnscope::printable(result.text)),
        result.trained ? "" : "; nobody trained these weights",
        std::isnan(result.loss) ? std::string() : fmt::format("; loss {:.4g} nats a token", result.loss), text);
}

} // namespace paper
