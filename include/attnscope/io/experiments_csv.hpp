// The experiments of a model as CSV: the text of the tables of docs/paper.md, with nine digits; nothing stands where there is no
// number. While a layer is missing, each throws `invalid_argument`.
#pragma once

#include <attnscope/analysis/experiment_figures.hpp>
#include <attnscope/analysis/findings.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// A line, cell by cell.
class CsvLine {
public:
    CsvLine& add(double x) {
        std::array<char, 64> text{};
        const auto [end, error] =
            std::to_chars(text.data(), text.data() + text.size(), x, std::chars_format::general, 9);
        return put(std::isfinite(x) && error == std::errc{} ? std::string_view(text.data(), end)
                                                            : std::string_view());
    }
    template <std::integral I>
    CsvLine& add(I x) {
        return put(to_text(x));
    }
    CsvLine& add(std::string_view plain) { return put(plain); }
    CsvLine& add(const OverHeads& over) { return add(over.mean).add(over.low).add(over.high); }
    /// That may hold commas and quotes.
    CsvLine& add_quoted(std::string_view text) {
        std::string field = "\"";
        for (const char c : text) field += c == '"' ? std::string("\"\"") : std::string(1, c);
        return put(field + "\"");
    }
    std::string text() const { return line_ + "\n"; }

private:
    CsvLine& put(std::string_view cell) {
        if (!first_) line_ += ',';
        first_ = false;
        line_ += cell;
        return *this;
    }

    std::string line_;
    bool first_ = true;
};

} // namespace detail

/// Every figure for each L and N: mean over heads, 10 % and 90 % quantiles.
inline std::string means_csv(const Experiments& found) {
    std::string text = "length,N,rows";
    for (const std::string_view name : curve_figure_names)
        for (const std::string_view of : {"", "_low", "_high"}) text.append(",").append(name).append(of);
    text += '\n';
    const ExperimentOptions& options = found.options;
    for (std::size_t l = 0; l < options.lengths.size(); ++l)
        for (std::size_t c = 0; c < options.counts.size() && options.counts[c] < options.lengths[l]; ++c) {
            detail::CsvLine line;
            line.add(options.lengths[l]).add(options.counts[c]).add(found.rows(l, c));
            for (std::size_t f = 0; f < curve_figure_count; ++f)
                line.add(found.over(static_cast<CurveFigure>(f), l, c));
            text += line.text();
        }
    return text;
}

/// Every figure of each head for each N, on the whole text.
inline std::string curves_csv(const Experiments& found) {
    found.require_all("curves_csv");
    std::string text = "layer,head,N,rows";
    for (const std::string_view name : curve_figure_names) text.append(",").append(name);
    text += '\n';
    for (const ExperimentHead& head : found.heads)
        for (std::size_t c = 0; c < found.options.counts.size(); ++c) {
            detail::CsvLine line;
            line.add(head.layer).add(head.head).add(found.options.counts[c]).add(head.at_length.back().rows[c]);
            for (std::size_t f = 0; f < curve_figure_count; ++f)
                line.add(head.at_length.back().at(static_cast<CurveFigure>(f), c));
            text += line.text();
        }
    return text;
}

/// Algorithm 3 for each L and N.
inline std::string critical_csv(const Experiments& found) {
    std::string text = "length,N,p_value,critical_N\n";
    for (std::size_t l = 0; l < found.options.lengths.size(); ++l) {
        const CriticalCount critical = found.critical(l);
        for (std::size_t c = 0; c < critical.p_values.size() && found.options.counts[c] < critical.length; ++c)
            text += detail::CsvLine()
                        .add(critical.length)
                        .add(found.options.counts[c])
                        .add(critical.p_values[c])
                        .add(critical.count ? to_text(*critical.count) : std::string())
                        .text();
    }
    return text;
}

/// Algorithm 4 for each sampled row and N.
inline std::string separability_csv(const Experiments& found) {
    found.require_all("separability_csv");
    std::string text =
        "layer,head,query,visible,N,radius,separable,published_lower,published_upper,valid_lower,"
        "valid_upper,expected\n";
    for (const ExperimentHead& head : found.heads)
        for (const SeparabilityBall& ball : head.balls) {
            detail::CsvLine line;
            line.add(head.layer).add(head.head).add(ball.query).add(ball.visible).add(ball.count);
            for (const double x : {ball.radius, ball.separable, ball.published.lower, ball.published.upper,
                                   ball.valid.lower, ball.valid.upper, ball.expected})
                line.add(x);
            text += line.text();
        }
    return text;
}

/// Algorithm 5 for each T and eps.
inline std::string sensitivity_csv(const Experiments& found) {
    found.require_all("sensitivity_csv");
    std::string text = "temperature,eps,mean,largest_head,largest_row,rows_above_published,published_limit,"
                       "sharp_limit,spectral_mean,spectral_largest,random_direction\n";
    for (std::size_t t = 0; t < found.options.temperatures.size(); ++t) {
        std::vector<double> spectral, random;
        double largest = 0;
        for (const ExperimentHead& head : found.heads) {
            spectral.push_back(head.at_temperature[t].spectral);
            largest = std::max(largest, head.at_temperature[t].spectral_largest);
            random.push_back(head.at_temperature[t].random_direction);
        }
        for (std::size_t e = 0; e < found.options.steps.size(); ++e) {
            const MeanGradient g = mean_gradient(found, t, e);
            text += detail::CsvLine()
                        .add(to_text(found.options.temperatures[t]))
                        .add(to_text(found.options.steps[e]))
                        .add(g.mean)
                        .add(g.largest_head)
                        .add(g.largest_row)
                        .add(g.above)
                        .add(g.published)
                        .add(g.sharp)
                        .add(over_heads(spectral).mean)
                        .add(largest)
                        .add(over_heads(random).mean)
                        .text();
        }
    }
    return text;
}

/// Each head under `experiment_head_figures`.
inline std::string heads_csv(const Experiments& found) {
    found.require_all("heads_csv");
    std::string text = "layer,head";
    for (const HeadFigure& figure : experiment_head_figures) text.append(",").append(figure.name);
    text += '\n';
    for (const ExperimentHead& head : found.heads) {
        detail::CsvLine line;
        line.add(head.layer).add(head.head);
        for (const HeadFigure& figure : experiment_head_figures) line.add(figure.value(found, head));
        text += line.text();
    }
    return text;
}

/// Every statement that some row was held against.
inline std::string audit_csv(const Experiments& found) {
    found.require_all("audit_csv");
    std::string text = "statement,form,provenance,rows";
    for (const std::string_view name : verdict_names) text.append(",").append(name);
    text += ",median_tightness,max_tightness\n";
    for (const AuditRecord& record : found.audit.records()) {
        if (record.checked == 0) continue;
        detail::CsvLine line;
        line.add(record.statement->id)
            .add(name_of(record.statement->form))
            .add(name_of(record.statement->provenance))
            .add(record.checked);
        for (const std::size_t count : record.count) line.add(count);
        text += line.add(record.median_tightness()).add(record.max_tightness()).text();
    }
    return text;
}

/// What the paper reports, beside what was found.
inline std::string findings_csv(const Experiments& found) {
    std::string text = "experiment,id,value,agreement,paper,here,rule\n";
    for (const Finding& finding : findings(found))
        text += detail::CsvLine()
                    .add(finding.experiment)
                    .add(finding.id)
                    .add(finding.value)
                    .add(name_of(finding.agreement))
                    .add_quoted(finding.paper)
                    .add_quoted(finding.here)
                    .add_quoted(finding.rule)
                    .text();
    return text;
}

/// A table by the name of its file.
struct ExperimentTable {
    std::string_view file;
    std::string (*text)(const Experiments&);
};
inline constexpr std::array<ExperimentTable, 8> experiment_tables = {{{"means.csv", means_csv},
                                                                      {"curves.csv", curves_csv},
                                                                      {"critical.csv", critical_csv},
                                                                      {"separability.csv", separability_csv},
                                                                      {"sensitivity.csv", sensitivity_csv},
                                                                      {"heads.csv", heads_csv},
                                                                      {"audit.csv", audit_csv},
                                                                      {"findings.csv", findings_csv}}};

} // namespace io
} // namespace v0_2
} // namespace attnscope
