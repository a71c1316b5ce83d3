#include "picture.hpp"

#include "output.hpp"

#include <support/gnuplot.hpp>

namespace scaling {
namespace {

using gnuplot::number;

/// Colour and point of a curve: told apart by both, and without red against green.
struct Style {
    std::string_view colour;
    int point;
};
constexpr std::array<Style, most_curves> styles = {{{"#000000", 7},
                                                    {"#e69f00", 5},
                                                    {"#56b4e9", 9},
                                                    {"#882255", 11},
                                                    {"#009e73", 13},
                                                    {"#0072b2", 6},
                                                    {"#cc79a7", 4},
                                                    {"#d55e00", 8},
                                                    {"#777777", 12}}};

struct DrawnCurve {
    const Outcome* outcome;
    Style style;
};

/// The first normalisers of the list, the longest-lasting on top.
std::vector<DrawnCurve> drawn_curves(const Result& result) {
    std::vector<DrawnCurve> curves;
    for (const Outcome* outcome : by_endurance(result)) {
        const auto place = static_cast<std::size_t>(outcome - result.outcomes.data());
        if (place < most_curves) curves.push_back({outcome, styles[place]});
    }
    return curves;
}

/// A block of data for each curve: measured figures by length, then the predicted weight at its own lengths.
std::string data_blocks(const Result& result, const std::vector<DrawnCurve>& curves) {
    const Settings& settings = result.settings;
    std::string text;
    for (std::size_t c = 0; c < curves.size(); ++c) {
        const Outcome& outcome = *curves[c].outcome;
        text += fmt::format("$measured{} << EOD\n", c);
        for (std::size_t i = 0; i < outcome.measured.points.size(); ++i) {
            const Point& point = outcome.measured.points[i];
            const Figures& figures = point.middle;
            text += fmt::format("{} {} {} {} {} {}\n", settings.length(i), number(figures.needle_weight),
                                number(figures.participation), number(figures.spectral),
                                number(point.lower_weight), number(point.upper_weight));
        }
        text += fmt::format("EOD\n$predicted{} << EOD\n", c);
        for (std::size_t i = 0; i < outcome.predicted_weights.size(); ++i)
            text +=
                fmt::format("{:.6g} {}\n",
                            static_cast<double>(settings.shortest) *
                                std::exp2(static_cast<double>(i) / static_cast<double>(predictions_per_octave)),
                            number(outcome.predicted_weights[i]));
        text += "EOD\n";
    }
    return text;
}

std::string length_tics(const Settings& settings, std::size_t octaves) {
    std::string text;
    for (std::size_t i = 0; i < settings.lengths(); i += octaves) {
        const Index length = settings.length(i);
        const std::string label = length >= 1 << 20   ? fmt::format("{}M", length >> 20)
                                  : length >= 1 << 10 ? fmt::format("{}k", length >> 10)
                                                      : fmt::format("{}", length);
        text += fmt::format("{}'{}' {}", text.empty() ? "" : ", ", label, length);
    }
    return text;
}

/// A plot command over the curves; `entry(c)` is the rest of each one's element.
template <class Entry>
std::string plot(std::size_t count, Entry&& entry) {
    std::string text = "plot ";
    for (std::size_t c = 0; c < count; ++c) text += (c > 0 ? ", \\\n  " : "") + entry(c);
    return text + "\n";
}

std::string panel(double left, double right, double top, double bottom, std::string_view title) {
    return fmt::format("set lmargin at screen {}\nset rmargin at screen {}\nset tmargin at screen {}\n"
                       "set bmargin at screen {}\nset title {}\n",
                       left, right, top, bottom, gnuplot::quoted(title));
}

/// Where the background's largest logit reaches the needle's, if that is inside the picture.
std::string order_limit_line(const Result& result) {
    const double limit = result.order_limit;
    if (!(limit < static_cast<double>(result.settings.longest))) return "";
    const double range =
        static_cast<double>(result.settings.longest) / static_cast<double>(result.settings.shortest);
    const bool right_half = limit / static_cast<double>(result.settings.shortest) > std::sqrt(range);
    return fmt::format(
        "set arrow 1 from {0}, graph 0 to {0}, graph 1 nohead dt 3 lc rgb '#555555'\n"
        "set label 1 ' beyond: a larger logit among the others ' at {0}, graph 0.96 {1} font ',11'\n",
        limit, right_half ? "right" : "left");
}

/// Needle weight: predictions as lines, measurements as points. Its key names the curves of all three panels.
std::string weight_panel(const Result& result, const std::vector<DrawnCurve>& curves) {
    std::string text =
        panel(0.058, 0.595, 0.925, 0.27, "needle's weight among L keys: points measured, lines predicted");
    text += "set yrange [0:1.03]\nset ytics 0.25\n";
    text += fmt::format("set xtics ({})\n", length_tics(result.settings, 2));
    text += order_limit_line(result);
    text += "set label 2 'Keys among which the needle keeps half of the weight:' at screen 0.03, 0.175 left\n"
            "set key at screen 0.02, 0.15 left top vertical maxrows 3 Left reverse samplen 2.5 width 3 "
            "spacing 1.1\n";
    text += plot(curves.size(), [&](std::size_t c) {
        const auto& [outcome, style] = curves[c];
        return fmt::format(
            "$predicted{0} using 1:2 with lines lw 2 lc rgb '{1}' notitle, "
            "$measured{0} using 1:5:(0):($6-$5) with vectors nohead lw 0.8 lc rgb '{1}' notitle, "
            "$measured{0} using 1:2 with points pt {2} ps 0.6 lw 1.2 lc rgb '{1}' notitle",
            c, style.colour, style.point);
    });
    text.pop_back();
    text += ", 0.5 with lines dt 2 lc rgb '#555555' notitle";
    for (const auto& [outcome, style] : curves)
        text += fmt::format(
            ", NaN with linespoints pt {} ps 0.7 lw 2 lc rgb '{}' title {}", style.point, style.colour,
            gnuplot::quoted(fmt::format("{}   {}", outcome->name, loss_text(outcome->measured.loss))));
    return text + "\nunset label\nunset arrow\nunset key\n";
}

std::string small_panel(const std::vector<DrawnCurve>& curves, double top, double bottom, int column,
                        std::string_view title) {
    return panel(0.685, 0.985, top, bottom, title) + plot(curves.size(), [&](std::size_t c) {
               return fmt::format("$measured{} using 1:{} with lines lw 1.7 lc rgb '{}'", c, column,
                                  curves[c].style.colour);
           });
}

std::string script(const Result& result) {
    const auto curves = drawn_curves(result);
    const Settings& settings = result.settings;
    std::string text = data_blocks(result, curves);
    text += "set terminal svg noenhanced size 860,500 background '#ffffff' font 'Helvetica,13'\n"
            "set multiplot\nset border 3 lc rgb '#555555'\nset tics nomirror scale 0.5\nset grid lc rgb "
            "'#dddddd' lt 1 "
            "lw 0.6\nset logscale x 2\nset title offset 0,-0.5\n";
    text += fmt::format("set xrange [{}:{}]\n", settings.shortest, settings.longest);
    text += weight_panel(result, curves);
    text += "set yrange [*:*]\nset ytics auto\nset logscale y 10\nset format y '%g'\nunset mytics\n";
    text += fmt::format("set xtics ({})\n", length_tics(settings, 4));
    text += small_panel(curves, 0.925, 0.67, 3, "participation ratio, keys");
    text += small_panel(curves, 0.525, 0.27, 4, "spectral norm |J|₂");
    return text + "unset multiplot\n";
}

} // namespace

void require_gnuplot() { gnuplot::require("--svg", "--csv writes the numbers without it"); }

std::string to_svg(const Result& result) { return gnuplot::run(script(result)); }

} // namespace scaling
