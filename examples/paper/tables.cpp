#include "tables.hpp"

#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace paper {
namespace {

using Json = nlohmann::ordered_json;

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.9g}", x) : ""; }

/// A field that may hold commas and quotes.
std::string field(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
    return result + "\"";
}

double figure_at(const Result& result, const HeadResult& head, Figure figure, Index count) {
    const auto at = result.place(count);
    return at ? head.at_length.back().at(figure, *at) : not_known;
}

constexpr std::array<HeadFigure, 18> the_head_figures = {{
    {"participation_ratio", "effective N: 1/sum p², keys",
     [](const Result&, const HeadResult& h) { return h.at_length.back().participation_ratio; }},
    {"sink_mass", "mean weight on the strongest sink",
     [](const Result&, const HeadResult& h) { return h.sink_mass; }},
    {"spectral", "sensitivity |J|₂ at T = 1", [](const Result&, const HeadResult& h) { return h.spectral; }},
    {"separable_16", "N_s/N at N = 16",
     [](const Result& r, const HeadResult& h) { return figure_at(r, h, Figure::separable, 16); }},
    {"f_score_16", "F at N = 16",
     [](const Result& r, const HeadResult& h) { return figure_at(r, h, Figure::f_score, 16); }},
    {"mass_16", "mass of the 16 largest weights",
     [](const Result& r, const HeadResult& h) { return figure_at(r, h, Figure::mass, 16); }},
    {"entropy_nats", "entropy, nats",
     [](const Result&, const HeadResult& h) { return h.at_length.back().entropy_nats; }},
    {"max_weight", "largest weight p1",
     [](const Result&, const HeadResult& h) { return h.at_length.back().max_weight; }},
    {"first_key_mass", "mean weight of the first key",
     [](const Result&, const HeadResult& h) { return h.first_key_mass; }},
    {"sink_key", "the strongest sink",
     [](const Result&, const HeadResult& h) { return static_cast<double>(h.sink_key); }},
    {"distance_5", "d(5)",
     [](const Result& r, const HeadResult& h) { return figure_at(r, h, Figure::distance, 5); }},
    {"output_lost_5", "|o - o_5|",
     [](const Result& r, const HeadResult& h) { return figure_at(r, h, Figure::lost, 5); }},
    {"context_half", "context for weight 1/2, keys",
     [](const Result&, const HeadResult& h) {
         return h.plan.length ? std::min(h.plan.length->limits.expected, 1e12) : not_known;
     }},
    {"temperature_half", "T for weight 1/2 at 131,072",
     [](const Result&, const HeadResult& h) {
         return h.plan.aims.empty() ? not_known : 1 / h.plan.aims.front().inverse_temperature;
     }},
    {"temperature_half_safe", "the same, gaps do not grow",
     [](const Result&, const HeadResult& h) {
         return h.plan.steady ? 1 / h.plan.steady->inverse_temperature : not_known;
     }},
    {"top_k_1", "keys for 1 % of the output",
     [](const Result&, const HeadResult& h) {
         return h.plan.output ? static_cast<double>(h.plan.output->measured) : not_known;
     }},
    {"top_k_1_certified", "the same, certified",
     [](const Result&, const HeadResult& h) {
         return h.plan.output ? static_cast<double>(h.plan.output->certified) : not_known;
     }},
    {"key_bits_1", "bits of a key for 1 %",
     [](const Result&, const HeadResult& h) {
         return h.plan.bits ? static_cast<double>(h.plan.bits->bits.measured) : not_known;
     }},
}};

std::string means(const Result& result) {
    std::string text = "length,N,rows";
    for (const auto name : figure_names) text += fmt::format(",{0},{0}_low,{0}_high", name);
    text += '\n';
    for (std::size_t l = 0; l < result.settings.lengths.size(); ++l)
        for (std::size_t c = 0; c < result.settings.counts.size(); ++c) {
            if (result.settings.counts[c] >= result.settings.lengths[l]) break;
            text += fmt::format("{},{},{}", result.settings.lengths[l], result.settings.counts[c],
                                result.rows(l, c));
            for (std::size_t f = 0; f < figure_count; ++f) {
                const OverHeads over = result.over_heads(static_cast<Figure>(f), l, c);
                text += fmt::format(",{},{},{}", cell(over.mean), cell(over.low), cell(over.high));
            }
            text += '\n';
        }
    return text;
}

std::string curves(const Result& result) {
    std::string text = "layer,head,N,rows";
    for (const auto name : figure_names) text += fmt::format(",{}", name);
    text += '\n';
    for (const HeadResult& head : result.heads) {
        const attnscope::LengthCurves& at = head.at_length.back();
        for (std::size_t c = 0; c < result.settings.counts.size(); ++c) {
            text += fmt::format("{},{},{},{}", head.layer, head.head, result.settings.counts[c], at.rows[c]);
            for (std::size_t f = 0; f < figure_count; ++f)
                text += fmt::format(",{}", cell(at.at(static_cast<Figure>(f), c)));
            text += '\n';
        }
    }
    return text;
}

std::string critical(const Result& result) {
    std::string text = "length,N,p_value,critical_N\n";
    for (std::size_t l = 0; l < result.settings.lengths.size(); ++l) {
        const CriticalN found = result.critical(l);
        for (std::size_t c = 0; c < found.p_values.size() && result.settings.counts[c] < found.length; ++c)
            text += fmt::format("{},{},{},{}\n", found.length, result.settings.counts[c],
                                cell(found.p_values[c]), found.count ? fmt::format("{}", *found.count) : "");
    }
    return text;
}

std::string separability(const Result& result) {
    std::string text =
        "layer,head,query,visible,N,radius,separable,published_lower,published_upper,valid_lower,"
        "valid_upper,expected\n";
    for (const HeadResult& head : result.heads)
        for (const attnscope::SeparabilityBall& ball : head.balls)
            text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", head.layer, head.head, ball.query,
                                ball.visible, ball.count, cell(ball.radius), cell(ball.separable),
                                cell(ball.published.lower), cell(ball.published.upper), cell(ball.valid.lower),
                                cell(ball.valid.upper), cell(ball.expected));
    return text;
}

/// Algorithm 5 over the heads.
struct Gradient {
    double mean = 0, largest_head = 0, largest_row = 0, published = 0, sharp = 0;
    Index above = 0;
};
Gradient gradient(const Result& result, std::size_t t, std::size_t e) {
    Gradient g;
    std::vector<double> means;
    for (const HeadResult& head : result.heads) {
        const attnscope::TemperatureCurve& at = head.at_temperature[t];
        means.push_back(at.mean[e]);
        g.largest_row = std::max(g.largest_row, at.largest[e]);
        g.above += at.above[e];
    }
    g.mean = over(means).mean;
    g.largest_head = largest_mean(result, t, e);
    const double temperature = result.settings.temperatures[t];
    g.published = attnscope::published_gradient_limit(temperature);
    g.sharp = attnscope::finite_difference_limit(temperature, result.settings.steps[e]);
    return g;
}

std::string sensitivity(const Result& result) {
    std::string text = "temperature,eps,mean,largest_head,largest_row,rows_above_published,published_limit,"
                       "sharp_limit,spectral_mean,spectral_largest,random_direction\n";
    for (std::size_t t = 0; t < result.settings.temperatures.size(); ++t) {
        std::vector<double> spectral, largest, random;
        for (const HeadResult& head : result.heads) {
            spectral.push_back(head.at_temperature[t].spectral);
            largest.push_back(head.at_temperature[t].spectral_largest);
            random.push_back(head.at_temperature[t].random_direction);
        }
        for (std::size_t e = 0; e < result.settings.steps.size(); ++e) {
            const Gradient g = gradient(result, t, e);
            text +=
                fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", result.settings.temperatures[t],
                            result.settings.steps[e], cell(g.mean), cell(g.largest_head), cell(g.largest_row),
                            g.above, cell(g.published), cell(g.sharp), cell(over(spectral).mean),
                            cell(*std::max_element(largest.begin(), largest.end())), cell(over(random).mean));
        }
    }
    return text;
}

std::string heads(const Result& result) {
    std::string text = "layer,head";
    for (const HeadFigure& figure : the_head_figures) text += fmt::format(",{}", figure.name);
    text += '\n';
    for (const HeadResult& head : result.heads) {
        text += fmt::format("{},{}", head.layer, head.head);
        for (const HeadFigure& figure : the_head_figures)
            text += fmt::format(",{}", cell(figure.value(result, head)));
        text += '\n';
    }
    return text;
}

std::string audit(const Result& result) {
    std::string text = "statement,form,provenance,rows";
    for (const auto name : attnscope::verdict_names) text += fmt::format(",{}", name);
    text += ",median_tightness,max_tightness\n";
    for (const attnscope::AuditRecord& record : result.audit.records()) {
        if (record.checked == 0) continue;
        text += fmt::format("{},{},{},{}", record.statement->id, name_of(record.statement->form),
                            name_of(record.statement->provenance), record.checked);
        for (const std::size_t count : record.count) text += fmt::format(",{}", count);
        text += fmt::format(",{},{}\n", cell(record.median_tightness()), cell(record.max_tightness()));
    }
    return text;
}

std::string finding_lines(const Result& result) {
    std::string text = "experiment,id,value,agreement,paper,here,rule\n";
    for (const Finding& finding : findings(result))
        text += fmt::format("{},{},{},{},{},{},{}\n", finding.experiment, finding.id, cell(finding.value),
                            agreement_names[static_cast<std::size_t>(finding.agreement)], field(finding.paper),
                            field(finding.here), field(finding.rule));
    return text;
}

Json over_heads(const OverHeads& over) { return {{"mean", over.mean}, {"low", over.low}, {"high", over.high}}; }

Json curves_json(const Result& result) {
    Json all = Json::array();
    for (std::size_t l = 0; l < result.settings.lengths.size(); ++l) {
        const CriticalN found = result.critical(l);
        Json at{{"length", found.length}, {"critical_N", found.count ? Json(*found.count) : Json()}};
        std::vector<double> weights, keys, entropy;
        for (const HeadResult& head : result.heads) {
            weights.push_back(head.at_length[l].max_weight);
            keys.push_back(head.at_length[l].participation_ratio);
            entropy.push_back(head.at_length[l].entropy_nats);
        }
        at["max_weight"] = over_heads(over(weights));
        at["participation_ratio"] = over_heads(over(keys));
        at["entropy_nats"] = over_heads(over(entropy));
        Json selections = Json::array();
        for (std::size_t c = 0; c < result.settings.counts.size() && result.settings.counts[c] < found.length;
             ++c) {
            Json selection{
                {"N", result.settings.counts[c]}, {"rows", result.rows(l, c)}, {"p_value", found.p_values[c]}};
            for (std::size_t f = 0; f < figure_count; ++f)
                selection[std::string(figure_names[f])] =
                    over_heads(result.over_heads(static_cast<Figure>(f), l, c));
            selections.push_back(std::move(selection));
        }
        at["selections"] = std::move(selections);
        all.push_back(std::move(at));
    }
    return all;
}

} // namespace

std::span<const HeadFigure> head_figures() { return the_head_figures; }

std::vector<MeanBall> mean_balls(const Result& result) {
    std::vector<MeanBall> means;
    for (const Index count : result.settings.balls) {
        MeanBall mean;
        mean.count = count;
        for (const HeadResult& head : result.heads)
            for (const attnscope::SeparabilityBall& ball : head.balls) {
                if (ball.count != count) continue;
                ++mean.rows;
                mean.separable += ball.separable;
                mean.published_lower += ball.published.lower;
                mean.published_upper += ball.published.upper;
                mean.valid_lower += ball.valid.lower;
                mean.valid_upper += ball.valid.upper;
                mean.expected += ball.expected;
            }
        if (mean.rows == 0) continue;
        for (double* figure : {&mean.separable, &mean.published_lower, &mean.published_upper, &mean.valid_lower,
                               &mean.valid_upper, &mean.expected})
            *figure /= static_cast<double>(mean.rows);
        means.push_back(mean);
    }
    return means;
}

std::string to_json(const Result& result) {
    const Settings& settings = result.settings;
    Json json;
    json["schema"] = "attnscope.paper/1";
    json["model"] = {{"origin", attnscope::printable(result.model)},
                     {"shape", result.shape},
                     {"trained", result.trained},
                     {"layers", result.layers},
                     {"heads", result.heads_per_layer},
                     {"vector_width", result.vector_width}};
    json["text"] = {{"source", attnscope::printable(result.text)},
                    {"tokens", result.tokens},
                    {"available", result.available}};
    json["loss_nats"] = result.loss;
    json["seconds"] = {{"all", result.seconds}, {"forward", result.forward_seconds}};
    Json& given = json["settings"];
    given = {{"vectors", token_names[static_cast<std::size_t>(settings.token)]},
             {"unit_vectors", unit_names[static_cast<std::size_t>(settings.unit)]},
             {"reading", settings.resultant ? "resultant" : "cumulative"},
             {"short_rows", short_row_names[static_cast<std::size_t>(settings.short_rows)]},
             {"level", settings.level},
             {"radius", settings.radius > 0 ? Json(settings.radius) : Json("nearest")},
             {"seed", settings.seed},
             {"seeded_rows", settings.seeded_rows},
             {"temperatures", settings.temperatures},
             {"eps", settings.steps}};
    for (const auto& [name, choice] : choices(result)) json["choices"][name] = choice;
    for (const Finding& finding : findings(result))
        json["findings"].push_back(
            {{"id", finding.id},
             {"experiment", finding.experiment},
             {"paper", finding.paper},
             {"here", finding.here},
             {"value", finding.value},
             {"rule", finding.rule},
             {"agreement", agreement_names[static_cast<std::size_t>(finding.agreement)]}});
    json["lengths"] = curves_json(result);
    for (const MeanBall& ball : mean_balls(result))
        json["separability"].push_back({{"N", ball.count},
                                        {"rows", ball.rows},
                                        {"separable", ball.separable},
                                        {"published", {ball.published_lower, ball.published_upper}},
                                        {"valid", {ball.valid_lower, ball.valid_upper}},
                                        {"expected", ball.expected}});
    for (std::size_t t = 0; t < settings.temperatures.size(); ++t)
        for (std::size_t e = 0; e < settings.steps.size(); ++e) {
            const Gradient g = gradient(result, t, e);
            json["sensitivity"].push_back({{"temperature", settings.temperatures[t]},
                                           {"eps", settings.steps[e]},
                                           {"mean", g.mean},
                                           {"largest_head", g.largest_head},
                                           {"largest_row", g.largest_row},
                                           {"rows_above_published", g.above},
                                           {"published_limit", g.published},
                                           {"sharp_limit", g.sharp}});
        }
    for (const HeadResult& head : result.heads) {
        Json one{{"layer", head.layer}, {"head", head.head}};
        for (const HeadFigure& figure : the_head_figures)
            one[std::string(figure.name)] = figure.value(result, head);
        json["heads"].push_back(std::move(one));
    }
    for (const attnscope::AuditRecord& record : result.audit.records()) {
        if (record.checked == 0) continue;
        Json verdicts;
        for (std::size_t v = 0; v < record.count.size(); ++v)
            verdicts[std::string(attnscope::verdict_names[v])] = record.count[v];
        json["audit"].push_back({{"statement", record.statement->id},
                                 {"form", name_of(record.statement->form)},
                                 {"provenance", name_of(record.statement->provenance)},
                                 {"rows", record.checked},
                                 {"verdicts", std::move(verdicts)},
                                 {"median_tightness", record.median_tightness()},
                                 {"max_tightness", record.max_tightness()}});
    }
    return json.dump(1) + "\n";
}

std::vector<File> to_csv(const Result& result) {
    constexpr std::array<std::string (*)(const Result&), csv_names.size()> tables{
        means, curves, critical, separability, sensitivity, heads, audit, finding_lines};
    std::vector<File> files;
    for (std::size_t i = 0; i < tables.size(); ++i)
        files.push_back({std::string(csv_names[i]), tables[i](result)});
    return files;
}

} // namespace paper
