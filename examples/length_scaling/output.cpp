#include "output.hpp"

#include "prediction.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace scaling {
namespace {

/// Lengths whose weights the table shows: at most four, the first and the last among them.
std::vector<std::size_t> shown_lengths(const Settings& settings) {
    const std::size_t count = settings.lengths(), shown = std::min<std::size_t>(4, count);
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < shown; ++i)
        indices.push_back(shown == 1 ? 0 : (i * (count - 1) + (shown - 1) / 2) / (shown - 1));
    return indices;
}

std::string cell(double x) { return std::isfinite(x) ? fmt::format("{:.3g}", x) : "-"; }
std::string weight_cell(double x) { return std::isfinite(x) ? fmt::format("{:.3f}", x) : "-"; }

/// A number that reads back exactly; nothing where there is none.
std::string csv(double x) { return std::isfinite(x) ? fmt::format("{}", x) : ""; }

/// Names may hold commas one day.
std::string quoted(const std::string& name) { return fmt::format("\"{}\"", name); }

std::string listed(const std::vector<std::string>& names) {
    if (names.size() < 2) return fmt::format("{}", fmt::join(names, ""));
    return fmt::format("{} and {}", fmt::join(names.begin(), names.end() - 1, ", "), names.back());
}

std::string prediction_text(const Outcome& outcome) {
    return outcome.predicted ? loss_text(*outcome.predicted) : std::string("-");
}

/// Lines of at most 110 characters.
std::string wrapped(std::string_view text) {
    constexpr std::size_t widest = 110;
    std::string lines;
    while (text.size() > widest) {
        const std::size_t end = text.substr(0, widest + 1).rfind(' ');
        if (end == text.npos) break;
        lines += std::string(text.substr(0, end)) + "\n";
        text.remove_prefix(end + 1);
    }
    return lines + std::string(text) + "\n";
}

std::string lead(const Result& result) {
    const Settings& s = result.settings;
    return wrapped(
        fmt::format("A needle of logit {:g}, {:g} standard deviations above the mean of a {} background of "
                    "standard deviation {:g}, "
                    "among {} to {} keys. Medians over {} rows, the same ones for all normalisers; the last "
                    "three columns over "
                    "{}, >= for a lower bound, recall as a mean.",
                    s.needle_logit(), s.margin, shape_names[static_cast<std::size_t>(s.background.shape())],
                    s.background.spread(), s.shortest, s.longest, s.trials, s.detailed_trials(s.longest)));
}

std::string table(const Result& result) {
    const Settings& settings = result.settings;
    const auto shown = shown_lengths(settings);
    std::size_t width = 10;
    for (const Outcome& outcome : result.outcomes) width = std::max(width, outcome.name.size());
    std::string text = fmt::format("{:{}}  {:<{}}  {:>21}  at L = {}\n", "", width,
                                   "weight on the needle at L =", 9 * shown.size() - 1, "loses the needle at",
                                   settings.longest);
    text += fmt::format("{:<{}} ", "normaliser", width);
    for (const std::size_t i : shown) text += fmt::format(" {:>8}", settings.length(i));
    text += fmt::format("  {:>10} {:>10}  {:>8} {:>9} {:>9} {:>6}\n", "measured", "predicted", "keys", "|J|2",
                        "gradient", "recall");
    for (const Outcome* outcome : by_endurance(result)) {
        text += fmt::format("{:<{}} ", outcome->name, width);
        for (const std::size_t i : shown)
            text += fmt::format(" {:>8}", weight_cell(outcome->measured.points[i].middle.needle_weight));
        const Figures& last = outcome->measured.points.back().middle;
        text += fmt::format("  {:>10} {:>10}  {:>8} {:>9} {:>9} {:>6}\n", loss_text(outcome->measured.loss),
                            prediction_text(*outcome), cell(last.participation),
                            (last.spectral_exact ? "" : ">=") + cell(last.spectral), cell(last.gradient),
                            cell(last.recall));
    }
    return text;
}

std::string answer(const Result& result) {
    const Settings& settings = result.settings;
    const auto order = by_endurance(result);
    std::vector<std::string> keepers;
    for (const Outcome* outcome : order)
        if (outcome->measured.loss.kind == LossLength::Kind::beyond) keepers.push_back(outcome->name);
    std::string text =
        keepers.empty()
            ? fmt::format("None of {} normalisers gives the needle half of the weight at {} keys.",
                          order.size(), settings.longest)
            : fmt::format(
                  "{} of {} normalisers still give{} the needle half of the weight or more at {} keys: {}.",
                  keepers.size(), order.size(), keepers.size() == 1 ? "s" : "", settings.longest,
                  listed(keepers));
    for (const Outcome* outcome : order)
        if (outcome->name == "softmax" && outcome->measured.loss.kind == LossLength::Kind::at)
            text += fmt::format(" Softmax loses it at {} keys (predicted: {}).",
                                loss_text(outcome->measured.loss), prediction_text(*outcome));
    if (result.order_limit < longest_predicted)
        text += fmt::format(" Beyond about {} keys another logit is typically larger than the needle's, and no "
                            "normaliser that shares out a weight of 1 in the order of the logits can keep it.",
                            length_text(result.order_limit));
    return wrapped(text);
}

} // namespace

std::vector<const Outcome*> by_endurance(const Result& result) {
    std::vector<const Outcome*> order;
    for (const Outcome& outcome : result.outcomes) order.push_back(&outcome);
    std::stable_sort(order.begin(), order.end(), [](const Outcome* a, const Outcome* b) {
        const auto rank = [](const Outcome* outcome) {
            return std::pair(outcome->measured.loss.kind, outcome->measured.loss.length);
        };
        if (rank(a) != rank(b)) return rank(a) > rank(b);
        return a->measured.points.back().middle.needle_weight > b->measured.points.back().middle.needle_weight;
    });
    return order;
}

std::string length_text(double length) {
    if (!(length < 1e15)) return fmt::format("{:.2e}", length);
    double unit = 1;
    while (length / unit >= 1000) unit *= 10;
    return fmt::format("{:.0f}", std::round(length / unit) * unit);
}

std::string loss_text(const LossLength& loss) {
    switch (loss.kind) {
    case LossLength::Kind::before:
        return fmt::format("< {:.0f}", loss.length);
    case LossLength::Kind::at:
        return length_text(loss.length);
    case LossLength::Kind::beyond:
        return loss.length < 1e9 ? fmt::format("> {:.0f}", loss.length)
                                 : fmt::format("> 2^{:.0f}", std::floor(std::log2(loss.length)));
    }
    return "?";
}

std::string to_text(const Result& result) {
    return lead(result) + "\n" + table(result) + "\n" + answer(result);
}

std::string to_csv(const Result& result) {
    const Settings& settings = result.settings;
    std::string text = "normalizer,length,rows,detailed_rows";
    for (const Figure& figure : all_figures) text += fmt::format(",{}", figure.name);
    text += ",spectral_exact,needle_weight_q25,needle_weight_q75,predicted_needle_weight,measured_loss,"
            "predicted_loss\n";
    const auto loss = [](const std::optional<LossLength>& length) {
        return length && length->kind == LossLength::Kind::at ? csv(length->length) : std::string();
    };
    for (const Outcome& outcome : result.outcomes)
        for (std::size_t i = 0; i < outcome.measured.points.size(); ++i) {
            const Point& point = outcome.measured.points[i];
            text += fmt::format("{},{},{},{}", quoted(outcome.name), settings.length(i), settings.trials,
                                settings.detailed_trials(settings.length(i)));
            for (const Figure& figure : all_figures) text += "," + csv(point.middle.*figure.value);
            text += fmt::format(",{},{},{},{},{},{}\n", point.middle.spectral_exact ? 1 : 0,
                                csv(point.lower_weight), csv(point.upper_weight),
                                outcome.predicted_weights.empty()
                                    ? ""
                                    : csv(outcome.predicted_weights[i * predictions_per_octave]),
                                loss(outcome.measured.loss), loss(outcome.predicted));
        }
    return text;
}

} // namespace scaling
