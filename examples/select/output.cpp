#include "output.hpp"

#include <support/gnuplot.hpp>

#include <nlohmann/json.hpp>

#include <map>

namespace select_keys {
namespace {

using attnscope::SelectionSummary;
using Json = nlohmann::ordered_json;
using Kind = attnscope::SelectionPolicy::Kind;

/// The figures of a summary by their names in files.
constexpr std::array<std::pair<std::string_view, double SelectionSummary::*>, 16> figures = {
    {{"keys", &SelectionSummary::keys},
     {"kept", &SelectionSummary::kept},
     {"kept_least", &SelectionSummary::kept_least},
     {"selector_loss", &SelectionSummary::selector_loss},
     {"budget_loss", &SelectionSummary::budget_loss},
     {"kl_nats", &SelectionSummary::kl_nats},
     {"top_key", &SelectionSummary::top_key},
     {"top_recall", &SelectionSummary::top_recall},
     {"relative_error", &SelectionSummary::relative_error},
     {"relative_error_most", &SelectionSummary::relative_error_most},
     {"limit_used", &SelectionSummary::limit_used},
     {"certified_kept", &SelectionSummary::certified_kept},
     {"blocks_read", &SelectionSummary::blocks_read},
     {"distance", &SelectionSummary::distance},
     {"separable_fraction", &SelectionSummary::separable_fraction},
     {"precision", &SelectionSummary::precision}}};

std::string number(double x, int digits = 3) {
    if (std::isnan(x)) return "-";
    if (std::isinf(x)) return "inf";
    return fmt::format("{:.{}g}", x, digits);
}
std::string percent(double share) { return std::isnan(share) ? "-" : fmt::format("{:.1f}", 100 * share); }

/// JSON has neither infinity nor NaN.
Json value(double x) {
    if (std::isnan(x)) return nullptr;
    if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
    return x;
}

std::string place_of(const HeadSelection& head, bool batches) {
    return batches ? fmt::format("({}, {}, {})", head.place.batch, head.place.layer, head.place.head)
                   : fmt::format("({}, {})", head.place.layer, head.place.head);
}

} // namespace

std::string to_text(const Result& result) {
    std::string text =
        fmt::format("{}: {} {} with {} {}, {} queries, {} keys\n", attnscope::printable(result.source),
                    result.layers, result.layers == 1 ? "layer" : "layers", result.heads,
                    result.heads == 1 ? "head" : "heads", result.queries, result.keys);
    for (const std::string& line : result.assumptions) text += fmt::format("  assumed: {}\n", line);
    for (const std::string& line : result.warnings) text += fmt::format("  warning: {}\n", line);
    text += "\nMeans over the rows that see more keys than the budget, then over the heads. Mass in percent.\n";
    if (result.settings.prompt > 0)
        text += fmt::format("The first {} queries are the prompt: they see all keys, and are not counted.\n",
                            result.settings.prompt);
    text += fmt::format("\n  {:<20} {:>6} {:>6} {:>9} {:>8} {:>6} {:>8} {:>7} {:>7} {:>6} {:>7} {:>7}\n", "",
                        "", "mass", "lost by", "lost by", "", "best key", "of best", "output", "of its",
                        "certain", "blocks");
    text += fmt::format("  {:<20} {:>6} {:>6} {:>9} {:>8} {:>6} {:>8} {:>7} {:>7} {:>6} {:>7} {:>7}\n",
                        "policy", "keys", "kept", "selector", "budget", "KL", "kept %", "N, %", "error %",
                        "limit", "mass", "read %");
    for (const PolicyResult& policy : result.policies)
        text += fmt::format(
            "  {:<20} {:>6} {:>6} {:>9} {:>8} {:>6} {:>8} {:>7} {:>7} {:>6} {:>7} {:>7}\n",
            policy.policy ? policy.name : "sets of the file", number(policy.mean(&SelectionSummary::keys), 4),
            percent(policy.mean(&SelectionSummary::kept)),
            percent(policy.mean(&SelectionSummary::selector_loss)),
            percent(policy.mean(&SelectionSummary::budget_loss)),
            number(policy.mean(&SelectionSummary::kl_nats)), percent(policy.mean(&SelectionSummary::top_key)),
            percent(policy.mean(&SelectionSummary::top_recall)),
            percent(policy.mean(&SelectionSummary::relative_error)),
            number(policy.mean(&SelectionSummary::limit_used), 2),
            percent(policy.mean(&SelectionSummary::certified_kept)),
            percent(policy.mean(&SelectionSummary::blocks_read)));
    if (result.settings.geometry) {
        text += fmt::format(
            "\nAmong the values: distance d of the set from the rest, separable fraction, precision\n"
            "  {:<20} {:>10} {:>10} {:>10}\n",
            "policy", "d", "separable", "precision");
        for (const PolicyResult& policy : result.policies)
            text +=
                fmt::format("  {:<20} {:>10} {:>10} {:>10}\n", policy.policy ? policy.name : "sets of the file",
                            number(policy.mean(&SelectionSummary::distance)),
                            number(policy.mean(&SelectionSummary::separable_fraction)),
                            number(policy.mean(&SelectionSummary::precision)));
    }
    const bool batches = result.batches > 1;
    text += fmt::format("\nHeads {} that keep the least, and the row of the first that does\n",
                        batches ? "(batch, layer, head)" : "(layer, head)");
    for (const PolicyResult& policy : result.policies) {
        const auto worst = policy.worst(4);
        std::string line;
        for (const HeadSelection* head : worst)
            line += fmt::format("{}{} {}", line.empty() ? "" : ", ", place_of(*head, batches),
                                percent(head->figures.kept));
        if (worst.empty())
            line = "no row sees more keys than the budget";
        else
            line += fmt::format("; query {} keeps {}", worst[0]->figures.kept_least_query,
                                percent(worst[0]->figures.kept_least));
        text += fmt::format("  {:<20} {}\n", policy.policy ? policy.name : "sets of the file", line);
    }
    return text;
}

std::string to_json(const Result& result) {
    Json json = {{"schema", "attnscope.select/1"},
                 {"source", result.source},
                 {"assumptions", result.assumptions},
                 {"warnings", result.warnings},
                 {"shape",
                  {{"batches", result.batches},
                   {"layers", result.layers},
                   {"heads", result.heads},
                   {"queries", result.queries},
                   {"keys", result.keys}}},
                 {"prompt", result.settings.prompt},
                 {"policies", Json::array()}};
    for (const PolicyResult& policy : result.policies) {
        Json one = {
            {"name", policy.name}, {"budget", nullptr}, {"mean", Json::object()}, {"heads", Json::array()}};
        if (policy.policy && policy.policy->budget > 0) one["budget"] = policy.policy->budget;
        for (const auto& [name, figure] : figures) one["mean"][std::string(name)] = value(policy.mean(figure));
        for (const HeadSelection& head : policy.heads) {
            Json own = {{"batch", head.place.batch},
                        {"layer", head.place.layer},
                        {"head", head.place.head},
                        {"rows", head.figures.rows}};
            for (const auto& [name, figure] : figures) own[std::string(name)] = value(head.figures.*figure);
            own["kept_least_query"] = head.figures.kept_least_query;
            own["relative_error_most_query"] = head.figures.relative_error_most_query;
            one["heads"].push_back(std::move(own));
        }
        json["policies"].push_back(std::move(one));
    }
    // A file's name need not be UTF-8.
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_csv(const Result& result) {
    std::string text = "policy,batch,layer,head,rows";
    for (const auto& [name, figure] : figures) text += fmt::format(",{}", name);
    text += ",kept_least_query,relative_error_most_query\n";
    for (const PolicyResult& policy : result.policies)
        for (const HeadSelection& head : policy.heads) {
            std::string name = "\"";
            for (const char c : policy.name) name += c == '"' ? std::string("\"\"") : std::string(1, c);
            text += fmt::format("{}\",{},{},{},{}", name, head.place.batch, head.place.layer, head.place.head,
                                head.figures.rows);
            for (const auto& entry : figures) {
                const double x = head.figures.*entry.second;
                text += std::isnan(x) ? std::string(",") : fmt::format(",{}", x);
            }
            text +=
                fmt::format(",{},{}\n", head.figures.kept_least_query, head.figures.relative_error_most_query);
        }
    return text;
}

std::string to_svg(const Result& result) {
    using gnuplot::number;
    // Budgets of each kind of policy, and the mass that is kept with them.
    std::map<Kind, std::map<double, double>> curves;
    const PolicyResult* mapped = nullptr;
    for (const PolicyResult& policy : result.policies) {
        const double keys = policy.mean(&SelectionSummary::keys), kept = policy.mean(&SelectionSummary::kept);
        if (policy.policy && keys == keys && kept == kept) curves[policy.policy->kind][keys] = kept;
        if (!policy.policy || policy.policy->kind != Kind::top) mapped = mapped ? mapped : &policy;
    }
    constexpr std::array<std::string_view, 10> colours = {"#333333", "#3366aa", "#cc3311", "#228833",
                                                          "#d97706", "#8b4a9c", "#0e7c86", "#b0a010",
                                                          "#aa4477", "#999999"};
    std::string script = "set terminal svg size 1000,400 font 'sans,12' background '#ffffff'\nset multiplot\n"
                         "set style fill solid\n";
    std::string plots;
    for (const auto& [kind, points] : curves) {
        const auto at = static_cast<std::size_t>(kind);
        const std::string_view name = attnscope::SelectionPolicy::names[at];
        script += fmt::format("${} << EOD\n", name);
        for (const auto& [keys, kept] : points)
            script += fmt::format("{} {}\n", number(keys), number(100 * kept));
        script += "EOD\n";
        plots += fmt::format("{}${} using 1:2 with linespoints pt 7 ps 0.6 lw {} lc rgb '{}' title {}",
                             plots.empty() ? "" : ", ", name, kind == Kind::top ? 1 : 2, colours[at],
                             gnuplot::quoted(kind == Kind::top ? "the best keys" : name));
    }
    if (!plots.empty())
        script +=
            fmt::format("set lmargin at screen 0.07\nset rmargin at screen 0.40\nset tmargin at screen 0.88\n"
                        "set bmargin at screen 0.16\nset title 'Mass kept, mean over heads and rows'\n"
                        "set logscale x 2\nset xlabel 'keys a query'\nset ylabel '%'\nset yrange [0:100]\n"
                        "set grid lc rgb '#dddddd'\nset key at screen 0.545, screen 0.86 right top\nplot {}\n"
                        "unset logscale\nunset grid\n",
                        plots);
    if (mapped) {
        script += "$map << EOD\n";
        for (const HeadSelection& head : mapped->heads)
            if (head.place.batch == mapped->heads.front().place.batch)
                script += fmt::format("{} {} {}\n", head.place.head, head.place.layer,
                                      number(100 * (1 - head.figures.kept)));
        script += fmt::format(
            "EOD\nset lmargin at screen 0.60\nset rmargin at screen 0.9\nset tmargin at screen 0.88\n"
            "set bmargin at screen 0.16\nset title {}\nset xlabel 'head'\nset ylabel 'layer'\n"
            "set xrange [-0.5:{}.5]\nset yrange [{}.5:-0.5]\nset cbrange [0:*]\n"
            "set cblabel '% of the mass'\nset xtics {} nomirror\nset ytics {} nomirror\n"
            "set palette defined (0 '#fff8e8', 0.5 '#f0a050', 1 '#902010')\n"
            "plot $map using 1:2:3 with image pixels notitle\n",
            gnuplot::quoted("Lost by " + (mapped->policy ? mapped->name : std::string("the file's sets"))),
            result.heads - 1, result.layers - 1, result.heads > 16 ? 4 : 1, result.layers > 16 ? 4 : 1);
    }
    return gnuplot::run(script + "unset multiplot\n");
}

} // namespace select_keys
