#include "experiment.hpp"

#include "parallel.hpp"
#include "row_figures.hpp"

#include <support/named_normalizer.hpp>

#include <algorithm>

namespace scaling {
namespace {

// Streams of random numbers beside those of the rows' logits.
constexpr std::uint64_t values_stream = ~std::uint64_t(0), needle_stream = values_stream - 1;

/// The N largest logits of each length, from the largest down; of equal ones the first.
std::vector<std::vector<Index>> tops_by_length(const Settings& settings, std::span<const float> logits) {
    const auto count = static_cast<std::size_t>(settings.select);
    std::vector<std::vector<Index>> result;
    std::vector<Index> top;
    std::size_t key = 0;
    for (std::size_t i = 0; i < settings.lengths(); ++i) {
        for (; key < static_cast<std::size_t>(settings.length(i)); ++key) {
            if (top.size() == count && logits[key] <= logits[static_cast<std::size_t>(top.back())]) continue;
            const auto place =
                std::upper_bound(top.begin(), top.end(), logits[key], [&](float logit, Index other) {
                    return logit > logits[static_cast<std::size_t>(other)];
                });
            top.insert(place, static_cast<Index>(key));
            if (top.size() > count) top.pop_back();
        }
        result.push_back(top);
    }
    return result;
}

/// Value vectors of length 1 in random directions, the same for all rows.
attnscope::Matrix<float> make_values(const Settings& settings) {
    attnscope::Matrix<float> values(settings.longest, settings.dimension);
    constexpr auto rows = static_cast<Index>(block_size);
    const Index blocks = (settings.longest + rows - 1) / rows;
    for_each_index(static_cast<std::size_t>(blocks), settings.threads, [&] {
        return [&](std::size_t block) {
            auto random = generator(settings.seed, values_stream, block);
            const Index first = static_cast<Index>(block) * rows;
            auto part = values.middleRows(first, std::min(rows, settings.longest - first));
            random.fill_normal(std::span<float>(part.data(), static_cast<std::size_t>(part.size())));
            part.rowwise().normalize();
        };
    });
    return values;
}

/// Quantile of the numbers that are there; NaN if none is.
double quantile(std::vector<double> numbers, double probability) {
    std::erase_if(numbers, [](double x) { return x != x; });
    if (numbers.empty()) return std::numeric_limits<double>::quiet_NaN();
    std::sort(numbers.begin(), numbers.end());
    const double at = probability * static_cast<double>(numbers.size() - 1);
    const auto low = static_cast<std::size_t>(at), high = std::min(low + 1, numbers.size() - 1);
    return numbers[low] + (at - static_cast<double>(low)) * (numbers[high] - numbers[low]);
}

double mean(const std::vector<double>& numbers) {
    double sum = 0, count = 0;
    for (const double x : numbers)
        if (x == x) sum += x, ++count;
    return sum / count;
}

Point summary(std::span<const Figures> rows) {
    const auto column = [&](double Figures::*value) {
        std::vector<double> numbers;
        for (const Figures& row : rows) numbers.push_back(row.*value);
        return numbers;
    };
    Point point{};
    for (const Figure& figure : all_figures) point.middle.*figure.value = quantile(column(figure.value), 0.5);
    point.middle.recall = mean(column(&Figures::recall)); // few rows of few keys: their median takes few values
    point.middle.spectral_exact = rows.front().spectral_exact; // the first row is always a detailed one
    point.lower_weight = quantile(column(&Figures::needle_weight), 0.25);
    point.upper_weight = quantile(column(&Figures::needle_weight), 0.75);
    return point;
}

/// Rows, and normalisers to apply to them.
class Experiment {
public:
    /// Draws the rows and the values.
    explicit Experiment(const Settings& settings);

    /// The points of every normaliser.
    std::vector<std::vector<Point>> curves(const std::function<void()>& step) const;

    /// The loss of a normaliser with these points, by bisection on the rows themselves between the powers of
    /// two.
    LossLength loss(std::size_t normalizer, std::span<const Point> points) const;

private:
    /// A row of the longest length, of which every shorter one is the beginning.
    struct Trial {
        std::vector<float> logits;
        std::size_t needle = 0;
        std::vector<std::vector<Index>> top; ///< the N largest logits, by length
    };
    Trial make_trial(std::size_t number) const;
    PlantedRow row(const Trial& trial, std::size_t length_index) const;
    double needle_weight(const attnscope::AnyNormalizer& normalizer, Index length) const;

    const Settings& settings_;
    std::vector<attnscope::AnyNormalizer> normalizers_;
    attnscope::Matrix<float> values_;
    std::vector<Trial> trials_;
};

Experiment::Experiment(const Settings& settings)
    : settings_(settings), values_(make_values(settings)), trials_(static_cast<std::size_t>(settings.trials)) {
    for (const std::string& name : settings.normalizers)
        normalizers_.push_back(program::named_normalizer(name));
    for_each_index(trials_.size(), settings_.threads,
                   [&] { return [&](std::size_t number) { trials_[number] = make_trial(number); }; });
}

Experiment::Trial Experiment::make_trial(std::size_t number) const {
    Trial trial;
    trial.logits.resize(static_cast<std::size_t>(settings_.longest));
    settings_.background.fill(settings_.seed, number, trial.logits);
    trial.needle =
        static_cast<std::size_t>(generator(settings_.seed, needle_stream, number).below(settings_.shortest));
    trial.logits[trial.needle] = static_cast<float>(settings_.needle_logit());
    trial.top = tops_by_length(settings_, trial.logits);
    return trial;
}

PlantedRow Experiment::row(const Trial& trial, std::size_t length_index) const {
    const Index length = settings_.length(length_index);
    return {std::span<const float>(trial.logits).first(static_cast<std::size_t>(length)), trial.needle,
            trial.top[length_index], attnscope::MatrixView<float>(values_.data(), length, settings_.dimension)};
}

std::vector<std::vector<Point>> Experiment::curves(const std::function<void()>& step) const {
    const std::size_t lengths = settings_.lengths(), normalizers = normalizers_.size(), trials = trials_.size();
    std::vector<Figures> rows(pieces(settings_)); // [normaliser][length][trial]
    std::mutex guard;
    for_each_index(rows.size(), settings_.threads, [&] {
        return [&, taker = RowFigures()](std::size_t piece) mutable {
            // The longest rows first, and of them the detailed ones: no thread is left with a large piece at
            // the end.
            const std::size_t k = piece % normalizers, trial = piece / normalizers % trials,
                              i = lengths - 1 - piece / normalizers / trials;
            const bool detailed = static_cast<Index>(trial) < settings_.detailed_trials(settings_.length(i));
            rows[(k * lengths + i) * trials + trial] =
                taker.take(normalizers_[k], row(trials_[trial], i), detailed);
            const std::lock_guard lock(guard);
            step();
        };
    });

    std::vector<std::vector<Point>> curves(normalizers);
    for (std::size_t k = 0; k < normalizers; ++k)
        for (std::size_t i = 0; i < lengths; ++i)
            curves[k].push_back(
                summary(std::span<const Figures>(rows).subspan((k * lengths + i) * trials, trials)));
    return curves;
}

double Experiment::needle_weight(const attnscope::AnyNormalizer& normalizer, Index length) const {
    std::vector<double> weights(trials_.size());
    for_each_index(weights.size(), settings_.threads, [&] {
        return [&, row = std::vector<float>(static_cast<std::size_t>(length))](std::size_t number) mutable {
            const Trial& trial = trials_[number];
            normalizer.apply(std::span<const float>(trial.logits).first(row.size()), std::span<float>(row));
            weights[number] = static_cast<double>(row[trial.needle]);
        };
    });
    return quantile(std::move(weights), 0.5);
}

LossLength Experiment::loss(std::size_t normalizer, std::span<const Point> points) const {
    const double first = std::log2(static_cast<double>(settings_.shortest));
    return find_loss(first, std::log2(static_cast<double>(settings_.longest)), 1, [&](double octave) {
        const double whole = std::round(octave - first);
        if (octave - first == whole) return points[static_cast<std::size_t>(whole)].middle.needle_weight;
        return needle_weight(normalizers_[normalizer], static_cast<Index>(std::exp2(octave)));
    });
}

} // namespace

std::size_t Settings::lengths() const {
    std::size_t count = 1;
    while (length(count - 1) < longest) ++count;
    return count;
}

Index Settings::detailed_trials(Index length) const {
    constexpr Index keys = Index(1) << 19, least = 3;
    return std::min(trials, std::max(least, keys / length));
}

std::size_t pieces(const Settings& settings) {
    return settings.lengths() * static_cast<std::size_t>(settings.trials) * settings.normalizers.size();
}

std::vector<Measurement> measure(const Settings& settings, const std::function<void()>& step) {
    const Experiment experiment(settings);
    std::vector<Measurement> measurements;
    for (auto& points : experiment.curves(step)) {
        const LossLength loss = experiment.loss(measurements.size(), points);
        measurements.push_back({std::move(points), loss});
    }
    return measurements;
}

std::string canonical_name(std::string_view normalizer) { return program::named_normalizer(normalizer).name(); }

} // namespace scaling
