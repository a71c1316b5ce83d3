#include "result.hpp"

#include "prediction.hpp"

namespace scaling {
namespace {

void predict(Outcome& outcome, const Predictor& predictor, const Settings& settings) {
    constexpr double shortest = 4;
    const double needle = settings.needle_logit();
    outcome.predicted = predicted_loss(predictor, settings.background, needle, shortest);
    const std::size_t count = (settings.lengths() - 1) * predictions_per_octave + 1;
    for (std::size_t i = 0; i < count; ++i) {
        const double length = static_cast<double>(settings.shortest) *
                              std::exp2(static_cast<double>(i) / static_cast<double>(predictions_per_octave));
        outcome.predicted_weights.push_back(
            predictor.needle_weight(needle, typical_background(settings.background, length - 1)));
    }
}

} // namespace

Result run(const Settings& settings, const std::function<void()>& step) {
    Result result{settings, {}, order_limit(settings.background, settings.needle_logit())};
    std::vector<Measurement> measurements = measure(settings, step);
    for (std::size_t k = 0; k < measurements.size(); ++k) {
        Outcome outcome{settings.normalizers[k], std::move(measurements[k]), {}, {}};
        if (const auto predictor = Predictor::make(outcome.name)) predict(outcome, *predictor, settings);
        result.outcomes.push_back(std::move(outcome));
    }
    return result;
}

} // namespace scaling
