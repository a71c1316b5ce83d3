#include "output.hpp"

#include <support/gnuplot.hpp>

#include <fmt/ranges.h>

namespace temperature {
namespace {

using gnuplot::number;
using gnuplot::quoted;

std::string_view name_of(Task task) { return task_names[static_cast<std::size_t>(task)]; }

/// The runs of one task and temperature.
std::vector<const Run*> runs_of(const Result& result, Task task, double temperature) {
    std::vector<const Run*> runs;
    for (const Run& run : result.runs)
        if (run.plan.task == task && run.plan.temperature == temperature) runs.push_back(&run);
    return runs;
}

/// Median over the seeds of something of a line of the log.
template <class F>
double middle(const std::vector<const Run*>& runs, std::size_t line, const F& figure) {
    std::vector<double> numbers;
    for (const Run* run : runs) numbers.push_back(figure(run->log[line]));
    return median(numbers);
}

std::vector<const AtLength*> lengths_of(const Result& result, Task task, const std::string& normalizer,
                                        Index length) {
    std::vector<const AtLength*> found;
    for (const AtLength& at : result.lengths)
        if (at.task == task && at.normalizer == normalizer && at.length == length) found.push_back(&at);
    return found;
}

template <class F>
double middle(const std::vector<const AtLength*>& all, const F& figure) {
    std::vector<double> numbers;
    for (const AtLength* at : all) numbers.push_back(figure(*at));
    return median(numbers);
}

std::vector<Index> tested_lengths(const Result& result) {
    std::vector<Index> lengths;
    for (const Index factor : result.settings.stretches) lengths.push_back(factor * RunPlan{}.most_length);
    return lengths;
}

std::string temperature_table(const Result& result, Task task) {
    std::string text =
        fmt::format("\n{}: softmax at temperature T, medians over {} seeds\n{:>6} {:>16} {:>9} {:>9} {:>18} "
                    "{:>18} {:>9} {:>9} {:>9}\n",
                    name_of(task), result.settings.seeds, "T", "steps to 95 %", "accuracy", "loss",
                    "|gradient| (spread)", "|J| begin, end", "1/(2T)", "1/(4T)", "p right");
    for (const double t : result.settings.temperatures) {
        const auto runs = runs_of(result, task, t);
        const std::size_t last = runs.front()->log.size() - 1;
        std::vector<std::string> steps;
        for (const Run* run : runs)
            steps.push_back(run->steps_to_95 ? fmt::format("{}", *run->steps_to_95) : "never");
        text += fmt::format(
            "{:>6g} {:>16} {:>9.3f} {:>9.4f} {:>18} {:>18} {:>9.3g} {:>9.3g} {:>9.3f}\n", t,
            fmt::join(steps, " "), middle(runs, last, [](const LogLine& l) { return l.rows.accuracy; }),
            middle(runs, last, [](const LogLine& l) { return l.loss; }),
            fmt::format("{:.3f} ({:.3f})", middle(runs, 0, [](const LogLine& l) { return l.gradient_norm; }),
                        middle(runs, 0, [](const LogLine& l) { return l.gradient_spread; })),
            fmt::format("{:.3g}, {:.3g}", middle(runs, 0, [](const LogLine& l) { return l.rows.spectral; }),
                        middle(runs, last, [](const LogLine& l) { return l.rows.spectral; })),
            1 / (2 * t), 1 / (4 * t), middle(runs, last, [](const LogLine& l) { return l.rows.right_weight; }));
    }
    return text;
}

std::string length_table(const Result& result, Task task) {
    std::string text =
        fmt::format("\n{}: trained at {} to {} tokens, accuracy (weight on the right key) at\n{:<12}",
                    name_of(task), RunPlan{}.least_length, RunPlan{}.most_length, "");
    for (const Index length : tested_lengths(result)) text += fmt::format("{:>18}", length);
    text += '\n';
    for (const std::string& name : result.settings.normalizers) {
        text += fmt::format("{:<12}", name);
        for (const Index length : tested_lengths(result)) {
            const auto all = lengths_of(result, task, name, length);
            text += fmt::format(
                "{:>18}",
                fmt::format("{:.3f} ({:.3f})", middle(all, [](const AtLength& a) { return a.rows.accuracy; }),
                            middle(all, [](const AtLength& a) { return a.rows.right_weight; })));
        }
        text += '\n';
        if (name != "softmax") continue;
        for (const bool limit : {false, true}) {
            text += fmt::format("{:<12}", limit ? " limit" : " predicted");
            for (const Index length : tested_lengths(result))
                text += fmt::format("{:>18}",
                                    fmt::format("({:.3f})", middle(lengths_of(result, task, name, length),
                                                                   [&](const AtLength& a) {
                                                                       return limit ? a.limit : a.predicted;
                                                                   })));
            text += '\n';
        }
    }
    return text;
}

std::string panel(double left, double right, double top, double bottom, std::string_view title) {
    return fmt::format("set lmargin at screen {}\nset rmargin at screen {}\nset tmargin at screen {}\n"
                       "set bmargin at screen {}\nset title {}\n",
                       left, right, top, bottom, quoted(title));
}

constexpr std::array<std::string_view, 7> colours = {"#332288", "#3366aa", "#44aa99", "#777777",
                                                     "#d97706", "#cc3311", "#8b4a9c"};

/// The names of the curves in one line under all panels: a plot of lines above its range, as wide as the
/// picture.
std::string legend(const std::vector<std::string>& names) {
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < names.size(); ++i)
        parts.push_back(fmt::format("2 with lines lw 2 lc rgb '{}' title {}", colours[i % colours.size()],
                                    gnuplot::quoted(names[i])));
    return panel(0.02, 0.98, 0.08, 0.01, "") +
           fmt::format(
               "unset logscale\nunset border\nunset tics\nset xlabel ''\nset xrange [0:1]\nset yrange [0:1]\n"
               "set key at screen 0.5, 0.01 center bottom horizontal Left reverse samplen 2\nplot {}\n",
               fmt::join(parts, ", "));
}

constexpr std::string_view style =
    "set border 3 lc rgb '#555555'\nset tics nomirror scale 0.5\nset grid lc rgb '#dddddd' lt 1 lw 0.6\n";

} // namespace

std::string to_text(const Result& result) {
    std::string text;
    for (const Task task : {Task::recall, Task::maximum}) text += temperature_table(result, task);
    for (const Task task : {Task::recall, Task::maximum}) text += length_table(result, task);
    return text;
}

std::string runs_csv(const Result& result) {
    std::string text =
        "task,temperature,seed,step,loss,gradient_norm,gradient_spread,accuracy,right_weight,entropy_nats,"
        "spectral,largest_spectral,gap,spread\n";
    for (const Run& run : result.runs)
        for (const LogLine& l : run.log)
            text += fmt::format(
                "{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g}\n",
                name_of(run.plan.task), run.plan.temperature, run.plan.seed, l.step, l.loss, l.gradient_norm,
                l.gradient_spread, l.rows.accuracy, l.rows.right_weight, l.rows.entropy_nats, l.rows.spectral,
                l.rows.largest_spectral, l.rows.gap, l.rows.spread);
    return text;
}

std::string lengths_csv(const Result& result) {
    std::string text =
        "task,normalizer,seed,length,accuracy,right_weight,entropy_nats,spectral,gap,spread,predicted,limit\n";
    const auto cell = [](double x) { return std::isfinite(x) ? fmt::format("{:.6g}", x) : std::string(); };
    for (const AtLength& a : result.lengths)
        text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", name_of(a.task), a.normalizer, a.seed,
                            a.length, cell(a.rows.accuracy), cell(a.rows.right_weight),
                            cell(a.rows.entropy_nats), cell(a.rows.spectral), cell(a.rows.gap),
                            cell(a.rows.spread), cell(a.predicted), cell(a.limit));
    return text;
}

std::string training_picture(const Result& result) {
    std::string data, text = std::string(style) + "set multiplot\nunset key\n";
    const std::size_t lines = result.runs.front().log.size();
    for (std::size_t task = 0; task < 2; ++task)
        for (std::size_t t = 0; t < result.settings.temperatures.size(); ++t) {
            const double temperature = result.settings.temperatures[t];
            const auto runs = runs_of(result, static_cast<Task>(task), temperature);
            data += fmt::format("$d{}_{} << EOD\n", task, t);
            for (std::size_t line = 0; line < lines; ++line)
                data += fmt::format(
                    "{} {} {} {}\n", runs.front()->log[line].step,
                    number(middle(runs, line, [](const LogLine& l) { return l.loss; })),
                    number(middle(runs, line, [](const LogLine& l) { return l.rows.right_weight; })),
                    number(2 * temperature *
                           middle(runs, line, [](const LogLine& l) { return l.rows.spectral; })));
            data += "EOD\n";
        }
    const std::array<std::string_view, 3> titles = {"loss of the batches, nats", "weight on the right key",
                                                    "|J|₂ as a share of its limit 1/(2T)"};
    for (std::size_t task = 0; task < 2; ++task)
        for (std::size_t figure = 0; figure < 3; ++figure) {
            const double left = 0.06 + 0.325 * static_cast<double>(figure), bottom = task == 0 ? 0.63 : 0.19;
            text += panel(left, left + 0.265, bottom + 0.29, bottom,
                          fmt::format("{}: {}", name_of(static_cast<Task>(task)), titles[figure]));
            text += figure == 2 ? "set logscale y\nset yrange [0.01:1]\nset ytics autofreq\nset format y '%g'\n"
                                : "unset logscale y\nset yrange [0:*]\nset format y '%g'\n";
            text += task == 1 ? "set xlabel 'step'\n" : "set xlabel ''\n";
            text += fmt::format("set xtics {}\n", std::max<Index>(1, result.settings.steps / 4));
            std::vector<std::string> parts;
            for (std::size_t t = 0; t < result.settings.temperatures.size(); ++t)
                parts.push_back(fmt::format("$d{}_{} using 1:{} with lines lw 2 lc rgb '{}' title 'T = {:g}'",
                                            task, t, figure + 2, colours[t % colours.size()],
                                            result.settings.temperatures[t]));
            text += fmt::format("plot {}\n", fmt::join(parts, ", "));
        }
    std::vector<std::string> names;
    for (const double t : result.settings.temperatures) names.push_back(fmt::format("T = {:g}", t));
    return data + text + legend(names) + "unset multiplot\n";
}

std::string length_picture(const Result& result) {
    std::string data, text = std::string(style) + "set multiplot\nunset key\nset logscale x 2\n";
    for (std::size_t task = 0; task < 2; ++task)
        for (std::size_t n = 0; n < result.settings.normalizers.size(); ++n) {
            data += fmt::format("$d{}_{} << EOD\n", task, n);
            for (const Index length : tested_lengths(result)) {
                const auto all =
                    lengths_of(result, static_cast<Task>(task), result.settings.normalizers[n], length);
                data += fmt::format("{} {} {} {}\n", length,
                                    number(middle(all, [](const AtLength& a) { return a.rows.accuracy; })),
                                    number(middle(all, [](const AtLength& a) { return a.rows.right_weight; })),
                                    number(middle(all, [](const AtLength& a) { return a.predicted; })));
            }
            data += "EOD\n";
        }
    for (std::size_t task = 0; task < 2; ++task)
        for (std::size_t figure = 0; figure < 2; ++figure) {
            const double left = 0.06 + 0.49 * static_cast<double>(figure), bottom = task == 0 ? 0.63 : 0.2;
            text += panel(left, left + 0.42, bottom + 0.29, bottom,
                          fmt::format("{}: {}", name_of(static_cast<Task>(task)),
                                      figure == 0 ? "accuracy" : "weight on the right key"));
            text += fmt::format("set yrange [0:1.04]\nset xlabel '{}'\n", task == 1 ? "tokens" : "");
            std::vector<std::string> parts;
            for (std::size_t n = 0; n < result.settings.normalizers.size(); ++n) {
                parts.push_back(fmt::format(
                    "$d{}_{} using 1:{} with linespoints lw 2 pt 7 ps 0.5 lc rgb '{}' title {}", task, n,
                    figure + 2, colours[n % colours.size()], gnuplot::quoted(result.settings.normalizers[n])));
                if (figure == 1 && result.settings.normalizers[n] == "softmax")
                    parts.push_back(fmt::format("$d{}_{} using 1:4 with lines lw 2 dt 2 lc rgb '{}' notitle",
                                                task, n, colours[n % colours.size()]));
            }
            text += fmt::format("plot {}\n", fmt::join(parts, ", "));
        }
    return data + text + legend(result.settings.normalizers) + "unset multiplot\n";
}

} // namespace temperature
