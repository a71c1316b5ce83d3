#include "experiment.hpp"

#include <support/program.hpp>

#include <mutex>

namespace temperature {
namespace {

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

/// The trained model at every length.
std::vector<AtLength> stretch(const models::Network<float>& network, const RunPlan& plan,
                              const Settings& settings) {
    std::vector<AtLength> found;
    for (const Index factor : settings.stretches) {
        AtLength at{plan.task, plan.normalizer, plan.seed, factor * plan.most_length, {}, not_known, not_known};
        at.rows = measure(network, plan.task, at.length, settings.examples, plan.seed + 99);
        if (plan.normalizer == "softmax") {
            const double others = static_cast<double>(at.length - 1);
            const RowMeans& trained = found.empty() ? at.rows : found.front().rows;
            at.predicted = 0;
            for (const double rest : trained.rest)
                at.predicted += 1 / (1 + others * rest) / static_cast<double>(trained.rest.size());
            at.limit = 1 / (1 + others * std::exp(-at.rows.spread));
        }
        found.push_back(at);
    }
    return found;
}

} // namespace

double median(std::vector<double> numbers) {
    std::erase_if(numbers, [](double x) { return std::isnan(x); });
    if (numbers.empty()) return not_known;
    std::sort(numbers.begin(), numbers.end());
    const std::size_t middle = numbers.size() / 2;
    return numbers.size() % 2 == 1 ? numbers[middle] : (numbers[middle - 1] + numbers[middle]) / 2;
}

Result run(const Settings& settings) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<RunPlan> plans;
    const auto add = [&](Task task, const std::string& normalizer, double temperature) {
        for (Index s = 0; s < settings.seeds; ++s)
            plans.push_back({.task = task,
                             .normalizer = normalizer,
                             .temperature = temperature,
                             .seed = settings.seed + static_cast<std::uint64_t>(s),
                             .steps = settings.steps});
    };
    for (const Task task : {Task::recall, Task::maximum})
        for (const double t : settings.temperatures) add(task, "softmax", t);
    const std::size_t of_temperature = plans.size();
    for (const Task task : {Task::recall, Task::maximum})
        for (const std::string& name : settings.normalizers) add(task, name, 1);

    Result result{settings, {}, {}, 0};
    result.runs.resize(of_temperature);
    std::vector<std::vector<AtLength>> lengths(plans.size());
    const Index longest = settings.stretches.back() * RunPlan{}.most_length;
    program::Progress progress("training models", plans.size());
    std::mutex guard;
    const models::Threads threads(settings.threads);
    threads(static_cast<Index>(plans.size()), [&](Index i) {
        const auto at = static_cast<std::size_t>(i);
        const bool of_length = at >= of_temperature;
        const auto [own, network] = train(plans[at], of_length ? settings.steps : settings.every, longest);
        if (of_length)
            lengths[at] = stretch(network, plans[at], settings);
        else
            result.runs[at] = own;
        const std::lock_guard lock(guard);
        progress.step();
    });
    for (const auto& part : lengths) result.lengths.insert(result.lengths.end(), part.begin(), part.end());
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
}

} // namespace temperature
