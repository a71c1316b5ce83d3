// The paper's experiments as pictures, for gnuplot to draw. Needs attnscope::fmt.
#pragma once

#include <attnscope/analysis/experiment_figures.hpp>
#include <attnscope/io/gnuplot.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// One picture of some experiments.
struct ExperimentPicture {
    std::string name;       ///< for its file, without an ending
    std::string title;      ///< heading
    std::string experiment; ///< what of the paper it corresponds to
    std::string caption;    ///< how to read it, plain text
    std::string script;     ///< commands of gnuplot's with the colours still open: see `gnuplot_script`
    int width = 760, height = 420;
};

/// `ExperimentPicture::name` of all that `experiment_pictures` gives, in this order.
inline constexpr std::array<std::string_view, 9> experiment_picture_names{
    "concentration",    "distance_length", "distance_count",
    "critical_count",   "separable",       "gradient",
    "precision_recall", "heads",           "plan"};

/// How a picture is drawn: as SVG on light or on dark ground, or as PNG of twice the size.
enum class PictureFormat { svg, svg_dark, png };

namespace detail {
namespace experiment_pictures {

using io::gnuplot::number;
using io::gnuplot::quoted;
using Figure = CurveFigure;

inline bool resultant(const Experiments& result) { return result.options.reading == Reading::resultant; }

/// Colours by name, for a light and a dark page. Told apart without red against green.
struct Colour {
    std::string_view name, light, dark;
};
inline constexpr std::array<Colour, 9> colours = {{{"@paper", "#ffffff", "#16181d"},
                                                   {"@ink", "#333333", "#d5d8de"},
                                                   {"@faint", "#dddddd", "#3a3f48"},
                                                   {"@blue", "#3366aa", "#7aa8e8"},
                                                   {"@red", "#cc3311", "#ff7f5e"},
                                                   {"@green", "#228833", "#69c585"},
                                                   {"@orange", "#d97706", "#f5b04c"},
                                                   {"@purple", "#8b4a9c", "#cf94de"},
                                                   {"@grey", "#777777", "#9aa0aa"}}};

/// Lines of numbers under a name.
class Block {
public:
    explicit Block(std::string_view name) : text_(fmt::format("${} << EOD\n", name)) {}
    template <class... Numbers>
    void add(Numbers... numbers) {
        std::string line;
        ((line += number(static_cast<double>(numbers)) + " "), ...);
        text_ += line + "\n";
    }
    void end_of_curve() { text_ += "\n\n"; }
    std::string text() const { return text_ + "EOD\n"; }

private:
    std::string text_;
};

inline std::string band(std::string_view data, std::string_view columns, std::string_view colour) {
    return fmt::format("{} using {} with filledcurves fs transparent solid 0.16 noborder lc rgb '{}' notitle",
                       data, columns, colour);
}
inline std::string line(std::string_view data, std::string_view columns, std::string_view colour,
                        std::string_view title, std::string_view more = "") {
    return fmt::format("{} using {} with lines lw {} lc rgb '{}' {} title {}", data, columns,
                       colour == "@ink" ? 1 : 2, colour, more, quoted(title));
}
inline std::string points(std::string_view data, std::string_view columns, std::string_view colour,
                          std::string_view title) {
    return fmt::format("{} using {} with linespoints lw 2 pt 7 ps 0.6 lc rgb '{}' title {}", data, columns,
                       colour, quoted(title));
}
inline std::string plot(const std::vector<std::string>& parts) {
    return fmt::format("plot {}\n", fmt::join(parts, ", \\\n  "));
}
inline std::string panel(double left, double right, double top, double bottom, std::string_view title) {
    return fmt::format("set lmargin at screen {}\nset rmargin at screen {}\nset tmargin at screen {}\n"
                       "set bmargin at screen {}\nset title {}\n",
                       left, right, top, bottom, quoted(title));
}

inline std::string distance_name(const Experiments& result) { return resultant(result) ? "d'" : "d"; }
inline std::string unit_of_x(const Experiments& result) {
    return result.options.unit_vectors == UnitVectors::everywhere ? ", in units of |x|" : "";
}

/// x, then mean, low, high of the measured distance, and the random one, its upper limit, Theorem 1.
inline void add_distances(Block& block, const Experiments& result, double x, std::size_t l, std::size_t c) {
    const OverHeads d = result.over(result.distance(), l, c);
    const double not_known = std::numeric_limits<double>::quiet_NaN();
    const bool of_resultant = resultant(result);
    block.add(x, d.mean, d.low, d.high, result.over(result.random_distance(), l, c).mean,
              of_resultant ? not_known : result.over(Figure::random_upper, l, c).mean,
              of_resultant ? not_known : result.over(Figure::theorem1, l, c).mean);
}

inline std::vector<std::string> distance_curves(const Experiments& result, const std::string& of) {
    const std::string name = distance_name(result);
    std::vector<std::string> parts = {
        band("$data", "1:3:4", "@blue"),
        line("$data", "1:2", "@blue", fmt::format("largest weights: {}({})", name, of))};
    if (resultant(result)) {
        parts.push_back(line("$data", "1:5", "@red", "random keys: root of E d'², exact"));
    } else {
        parts.push_back(band("$data", "1:5:6", "@red"));
        parts.push_back(line("$data", "1:5", "@red", "random keys: E d, main sum of Theorem 1(2)"));
        parts.push_back(line("$data", "1:6", "@red", "random keys: E d, upper limit", "dt 2"));
        parts.push_back(line("$data", "1:7", "@grey", "Theorem 1(1), limit of d"));
    }
    return parts;
}

inline ExperimentPicture distance_against_length(const Experiments& result) {
    const auto five = result.place(result.options.fixed_count);
    Block data("data"), guide("guide");
    double last_x = 1, last_y = 1;
    for (std::size_t l = 0; five && l < result.options.lengths.size(); ++l) {
        last_x = static_cast<double>(result.options.lengths[l]);
        add_distances(data, result, last_x, l, *five);
        last_y = result.over(result.distance(), l, *five).mean;
    }
    const double first = static_cast<double>(result.options.lengths.front());
    guide.add(first, 0.6 * last_y * first / last_x);
    guide.add(last_x, 0.6 * last_y);
    const Index n = five ? result.options.counts[*five] : 0;
    auto parts = distance_curves(result, fmt::format("{}", n));
    parts.push_back(line("$guide", "1:2", "@ink", "slope 1", "dt 3"));
    return {
        "distance_length",
        fmt::format("How far the {} largest weights stand from the rest, as the text grows", n), "Algorithm 1",
        fmt::format("Mean over the query tokens of the first L tokens, then over heads; band: between these "
                    "lie 8 of 10 heads. The dotted line has slope 1.{}",
                    resultant(result) ? "" : " Red: what random keys give instead, between its two limits."),
        data.text() + guide.text() +
            fmt::format("set xlabel 'tokens L'\nset ylabel 'distance{}'\nset logscale xy\n"
                        "set xrange [{}:{}]\nset autoscale yfix\nset key below maxrows 2 Left reverse\nset "
                        "xtics ({})\n",
                        unit_of_x(result), first * 0.9, last_x * 1.1,
                        [&] {
                            std::string tics;
                            for (const Index l : result.options.lengths)
                                tics += fmt::format("{}'{}' {}", tics.empty() ? "" : ", ", l, l);
                            return tics;
                        }()) +
            plot(parts)};
}

inline ExperimentPicture distance_against_count(const Experiments& result) {
    const std::size_t last = result.last_length();
    Block data("data");
    for (std::size_t c = 0; c < result.options.counts.size(); ++c)
        add_distances(data, result, static_cast<double>(result.options.counts[c]), last, c);
    auto parts = distance_curves(result, "N");
    return {"distance_count",
            fmt::format("The same against N, at L = {}", result.options.lengths[last]),
            "Algorithm 2",
            "Mean over the rows with more than N visible keys, then over heads; band: 8 of 10 heads.",
            data.text() +
                fmt::format("set xlabel 'selected keys N'\nset ylabel 'distance{}'\nset logscale xy\n"
                            "set xrange [1:{}]\nset autoscale yfix\nset key below maxrows 2 Left reverse\n",
                            unit_of_x(result), result.options.lengths[last]) +
                plot(parts),
            760,
            470};
}

inline ExperimentPicture critical_count(const Experiments& result) {
    Block values("values"), critical("critical");
    std::vector<std::string> curves;
    const std::array<std::string_view, 6> order = {"@grey", "@orange", "@green", "@purple", "@red", "@blue"};
    const std::size_t lengths = result.options.lengths.size(), first = lengths > 6 ? lengths - 6 : 0;
    double least = 1;
    for (std::size_t l = 0; l < lengths; ++l) {
        const CriticalCount found = result.critical(l);
        critical.add(found.length, found.count
                                       ? static_cast<double>(*found.count) / static_cast<double>(found.length)
                                       : std::numeric_limits<double>::quiet_NaN());
        if (l < first) continue;
        for (std::size_t c = 0; c < found.p_values.size() && result.options.counts[c] < found.length; ++c) {
            values.add(static_cast<double>(result.options.counts[c]) / static_cast<double>(found.length),
                       std::max(found.p_values[c], 1e-12));
            least = std::fmin(least, found.p_values[c]);
        }
        values.end_of_curve();
        curves.push_back(fmt::format("$values index {} using 1:2 with lines lw 2 lc rgb '{}' title 'L = {}'",
                                     l - first, order[(l - first) + 6 - (lengths - first)], found.length));
    }
    curves.push_back(fmt::format("{} with lines dt 2 lc rgb '@ink' title 'level {:g}'", result.options.level,
                                 result.options.level));
    return {
        "critical_count", "From which N on the largest weights are no farther from the rest than random keys",
        "Algorithm 3",
        fmt::format(
            "Left: p-value of the two-sample Kolmogorov-Smirnov test over {} heads between the mean {} of "
            "top-N and of random selections. Right: the smallest N above the level, as a share of L; no "
            "point where there is none. The paper reports 0.06 on GPT-2.",
            result.heads.size(), distance_name(result)),
        values.text() + critical.text() + "set multiplot\n" +
            panel(0.09, 0.60, 0.92, 0.15, "p-value against N/L") +
            fmt::format(
                "set logscale xy\nset xlabel 'N/L'\nset xrange [0.9/{}:1]\nset yrange [{}:2]\nset format y "
                "'10^{{%T}}'\nset key at graph 0.03, 0.8 left Left reverse\n",
                result.options.lengths.back(), std::max(1e-12, least) / 2) +
            plot(curves) + panel(0.71, 0.98, 0.92, 0.15, "critical N as a share of L") +
            fmt::format("unset logscale\nset logscale x\nset format y '%g'\nset xlabel 'tokens L'\nset xrange "
                        "[{}:{}]\nset yrange [0:1]\nset key at graph 0.97, 0.55 right Left reverse\n",
                        result.options.lengths.front() / 2, result.options.lengths.back() * 2) +
            plot({points("$critical", "1:2", "@blue", "here"),
                  "0.06 with lines dt 2 lw 2 lc rgb '@red' title 'the paper, GPT-2'"}) +
            "unset multiplot\n"};
}

inline ExperimentPicture separable(const Experiments& result) {
    Block all("all"), balls("balls");
    const std::size_t last = result.last_length();
    for (std::size_t c = 0; c < result.options.counts.size(); ++c) {
        const OverHeads share = result.over(Figure::separable, last, c);
        all.add(result.options.counts[c], share.mean, share.low, share.high);
    }
    for (const MeanBall& ball : mean_balls(result))
        balls.add(ball.count, ball.separable, ball.published_lower, ball.published_upper, ball.valid_lower,
                  ball.valid_upper, ball.expected);
    return {
        "separable", "Which share of the selected tokens is nearer to their sum than any other token",
        "Algorithm 4",
        "Line and band: every row, mean over heads and 8 of 10 heads. Points: the sampled rows, with what "
        "Theorem 2 "
        "says about them. Its limits are for a fixed radius and random vectors on a sphere; real vectors are "
        "neither. Expected: the same weights on such vectors, with the ball that the experiment uses.",
        all.text() + balls.text() +
            fmt::format(
                "set xlabel 'selected keys N'\nset ylabel 'N_s / N'\nset logscale x\nset xrange [1:{}]\n"
                "set yrange [-0.02:1.05]\nset key outside right top Left reverse\n",
                result.options.lengths[last]) +
            plot({band("$all", "1:3:4", "@blue"), line("$all", "1:2", "@blue", "every row"),
                  "$balls using 1:2 with points pt 7 ps 0.9 lc rgb '@blue' title 'sampled rows'",
                  "$balls using 1:7 with linespoints pt 6 ps 0.9 lw 2 lc rgb '@green' title 'expected on a "
                  "sphere'",
                  line("$balls", "1:4", "@red", "Theorem 2, upper"),
                  line("$balls", "1:3", "@red", "Theorem 2, lower", "dt 2"),
                  line("$balls", "1:6", "@grey", "valid upper"),
                  line("$balls", "1:5", "@grey", "valid lower", "dt 2")})};
}

inline ExperimentPicture gradient(const Experiments& result) {
    Block data("data");
    const ExperimentOptions& settings = result.options;
    const std::array<std::string_view, 3> order = {"@blue", "@green", "@purple"};
    std::vector<std::string> parts;
    for (std::size_t e = 0; e < settings.steps.size() && e < order.size(); ++e) {
        for (std::size_t t = 0; t < settings.temperatures.size(); ++t)
            data.add(settings.temperatures[t], mean_gradient(result, t, e).largest_head,
                     finite_difference_limit(settings.temperatures[t], settings.steps[e]));
        data.end_of_curve();
        parts.push_back(points(fmt::format("$data index {}", e), "1:2", order[e],
                               fmt::format("g, eps = {:g}", settings.steps[e])));
        parts.push_back(fmt::format("$data index {} using 1:3 with lines lw 1 dt 2 lc rgb '{}' title {}", e,
                                    order[e], quoted("its limit")));
    }
    Block exact("exact");
    for (std::size_t t = 0; t < settings.temperatures.size(); ++t) {
        double mean = 0, random = 0;
        for (const ExperimentHead& head : result.heads) {
            mean = std::max(mean, head.at_temperature[t].spectral);
            random = std::max(random, head.at_temperature[t].random_direction);
        }
        exact.add(settings.temperatures[t], mean, published_gradient_limit(settings.temperatures[t]), random);
    }
    parts.push_back(line("$exact", "1:2", "@orange", "|J|₂, exact"));
    parts.push_back(line("$exact", "1:3", "@red", "published limit of |J|₂", "dt 4"));
    return {
        "gradient", "How strongly weights react to their logits, against temperature", "Algorithm 5",
        "g = |p(z + eps v) - p(z)|/eps for a random unit v: mean over the rows of a head, largest over heads, "
        "as "
        "the paper does. Dashed: sqrt(2)/eps tanh(eps/(2 sqrt(2) T)), true. Red: min{1/(4T), sqrt 2}, "
        "published. A random "
        "direction sees only |J|_F/sqrt(n) of the worst one, |J|₂.",
        data.text() + exact.text() +
            "set xlabel 'temperature T'\nset ylabel 'change of the weights per change of the logits'\n"
            "set logscale xy\nset format y '10^{%T}'\nset key outside right top Left reverse\n" +
            plot(parts)};
}

inline ExperimentPicture quality(const Experiments& result) {
    const std::size_t last = result.last_length();
    Block data("data");
    for (std::size_t c = 0; c < result.options.counts.size(); ++c) {
        const OverHeads precision = result.over(Figure::precision, last, c);
        data.add(result.options.counts[c], precision.mean, result.over(Figure::separable, last, c).mean,
                 result.over(Figure::f_score, last, c).mean, result.over(Figure::mass, last, c).mean,
                 result.over(Figure::f_score, last, c).low, result.over(Figure::f_score, last, c).high);
    }
    return {
        "precision_recall", "Precision, recall and F of the largest weights against N", "beyond the paper",
        "By distance to the selected sum: precision N/(N + others no farther than the farthest selected), "
        "recall "
        "the share of the selected nearer than all others, F their harmonic mean (band: 8 of 10 heads).",
        data.text() +
            fmt::format("set xlabel 'selected keys N'\nset ylabel 'share'\nset logscale x\nset xrange [1:{}]\n"
                        "set yrange [0:1.05]\nset key outside right top Left reverse\n",
                        result.options.lengths[last]) +
            plot({band("$data", "1:6:7", "@green"), line("$data", "1:2", "@purple", "precision"),
                  line("$data", "1:3", "@blue", "recall"), line("$data", "1:4", "@green", "F"),
                  line("$data", "1:5", "@grey", "mass of the weights", "dt 2")})};
}

inline ExperimentPicture concentration(const Experiments& result) {
    Block data("data");
    for (std::size_t l = 0; l < result.options.lengths.size(); ++l) {
        std::vector<double> weight, keys;
        for (const ExperimentHead& head : result.heads) {
            weight.push_back(head.at_length[l].max_weight);
            keys.push_back(head.at_length[l].participation_ratio);
        }
        const OverHeads w = over_heads(weight), k = over_heads(keys);
        const double length = static_cast<double>(result.options.lengths[l]);
        // Causal rows see 1 ... L keys: equal weights would have this mean.
        double harmonic = 0;
        for (Index i = 1; i <= result.options.lengths[l]; ++i) harmonic += 1 / static_cast<double>(i);
        data.add(length, w.mean, w.low, w.high, k.mean, k.low, k.high, harmonic / length, (length + 1) / 2);
    }
    const std::string range =
        fmt::format("set xrange [{}:{}]\n", static_cast<double>(result.options.lengths.front()) * 0.9,
                    static_cast<double>(result.options.lengths.back()) * 1.1);
    return {"concentration", "Do weights vanish as the text grows?", "Lemma 1, Corollary 1",
            "Left: largest weight of a row; right: as how many equal keys it is concentrated, 1/sum p². Mean "
            "over the "
            "rows of the first L tokens, then over heads; band: 8 of 10 heads. Dashed: equal weights.",
            data.text() + "set multiplot\nset logscale xy\nset xlabel 'tokens L'\n" + range +
                panel(0.09, 0.49, 0.92, 0.15, "largest weight") + "set key bottom left Left reverse\n" +
                plot({band("$data", "1:3:4", "@blue"), points("$data", "1:2", "@blue", "here"),
                      line("$data", "1:8", "@ink", "equal weights", "dt 2")}) +
                panel(0.58, 0.98, 0.92, 0.15, "effective number of keys") + "set key top left Left reverse\n" +
                plot({band("$data", "1:6:7", "@blue"), points("$data", "1:5", "@blue", "here"),
                      line("$data", "1:9", "@ink", "equal weights", "dt 2")}) +
                "unset multiplot\n"};
}

/// Six of the head figures from `first` on, each as a map. logarithmic, unit: which have a logarithmic scale,
/// or one from 0 to 1.
inline std::string head_maps(const Experiments& result, std::size_t first,
                             const std::array<bool, 6>& logarithmic, const std::array<bool, 6>& unit) {
    std::string text =
        "set multiplot\nunset key\nunset grid\nset tics scale 0\n"
        "set palette defined (0 '#440154', 1 '#3b528b', 2 '#21918c', 3 '#5ec962', 4 '#fde725')\n";
    text += fmt::format("set xrange [-0.5:{0}.5]\nset yrange [{1}.5:-0.5]\nset xtics 0,{2}\nset ytics 0,{3}\n",
                        result.heads_per_layer - 1, result.layers - 1,
                        std::max<Index>(1, result.heads_per_layer / 6), std::max<Index>(1, result.layers / 6));
    std::string blocks;
    for (std::size_t map = 0; map < 6; ++map) {
        const HeadFigure& figure = experiment_head_figures[first + map];
        blocks += fmt::format("$map{} << EOD\n", map);
        bool any = false;
        for (const ExperimentHead& head : result.heads) {
            const double value = figure.value(result, head);
            any = any || (std::isfinite(value) && (value > 0 || !logarithmic[map]));
            blocks += fmt::format("{} {} {}\n", head.head, head.layer, number(value));
        }
        blocks += "EOD\n";
        const double column = static_cast<double>(map % 3), row = static_cast<double>(map / 3);
        text += panel(0.055 + 0.325 * column, 0.265 + 0.325 * column, 0.93 - 0.5 * row, 0.58 - 0.5 * row,
                      figure.title);
        text += fmt::format("set colorbox user origin screen {}, screen {} size 0.012, 0.35\n",
                            0.272 + 0.325 * column, 0.58 - 0.5 * row);
        text +=
            fmt::format("set xlabel '{}'\nset ylabel '{}'\n", row > 0 ? "head" : "", column > 0 ? "" : "layer");
        text += logarithmic[map] && any ? "set logscale cb\nset format cb '%.3g'\n"
                                        : "unset logscale cb\nset format cb '%h'\n";
        // A map without a number still needs a range.
        text += unit[map] || !any ? "set cbrange [0:1]\n" : "set cbrange [*:*]\n";
        text += fmt::format("plot $map{} using 1:2:3 with image pixels\n", map);
    }
    return blocks + text + "unset multiplot\n";
}

inline ExperimentPicture maps(const Experiments& result) {
    return {"heads",
            "Every head: layer against head",
            "beyond the paper",
            "Means over the rows of a head at full length. The strongest sink is the key with the largest mean "
            "weight among those that a quarter of the queries see.",
            head_maps(result, 0, {true}, {false, true, false, true, true, true}),
            860,
            560};
}

inline ExperimentPicture plan_maps(const Experiments& result) {
    return {
        "plan",
        "What every head needs",
        "beyond the paper",
        "Weight 1/2 on the best key: up to which context half of the rows give it (1e12: without end) and the "
        "temperature that gives it to half of the rows at 131,072 keys, once with the background receding as "
        "the head's rows show, once with gaps that do not grow. Keys to keep, and bits to store a key in (17: "
        "more than 16), so "
        "that the output of 99 % of the rows moves by at most 1 %.",
        head_maps(result, 12, {true, true, true, true, true}, {}),
        860,
        560};
}

} // namespace experiment_pictures
} // namespace detail

/// The pictures of docs/paper.md.
/// Throws. `invalid_argument` while a layer is missing.
inline std::vector<ExperimentPicture> experiment_pictures(const Experiments& result) {
    result.require_all("experiment_pictures");
    return {detail::experiment_pictures::concentration(result),
            detail::experiment_pictures::distance_against_length(result),
            detail::experiment_pictures::distance_against_count(result),
            detail::experiment_pictures::critical_count(result),
            detail::experiment_pictures::separable(result),
            detail::experiment_pictures::gradient(result),
            detail::experiment_pictures::quality(result),
            detail::experiment_pictures::maps(result),
            detail::experiment_pictures::plan_maps(result)};
}

/// What gnuplot reads to write the picture to its standard output.
/// Example: `for (const ExperimentPicture& p : experiment_pictures(found)) run_gnuplot(gnuplot_script(p, PictureFormat::svg));`
inline std::string gnuplot_script(const ExperimentPicture& picture, PictureFormat format) {
    const std::string terminal =
        format == PictureFormat::png
            ? fmt::format("set terminal pngcairo enhanced size {},{} background '@paper' font 'Helvetica,20' "
                          "linewidth 1.6 pointscale 1.6\n",
                          2 * picture.width, 2 * picture.height)
            : fmt::format("set terminal svg enhanced size {},{} background '@paper' font 'Helvetica,13'\n",
                          picture.width, picture.height);
    std::string script =
        terminal +
        "set border 3 lc rgb '@ink'\nset tics nomirror scale 0.5 textcolor rgb '@ink'\n"
        "set grid lc rgb '@faint' lt 1 lw 0.6\nset title textcolor rgb '@ink'\n"
        "set xlabel textcolor rgb '@ink'\nset ylabel textcolor rgb '@ink'\n"
        "set key textcolor rgb '@ink' samplen 2 spacing 1.15\nset cbtics textcolor rgb '@ink'\n" +
        picture.script;
    for (const detail::experiment_pictures::Colour& colour : detail::experiment_pictures::colours)
        for (std::size_t at = script.find(colour.name); at != script.npos; at = script.find(colour.name, at))
            script.replace(at, colour.name.size(),
                           format == PictureFormat::svg_dark ? colour.dark : colour.light);
    return script;
}

} // namespace v0_2
} // namespace attnscope
