// What a run found, with the predictions beside it.
#pragma once

#include "experiment.hpp"

#include <optional>

namespace scaling {

inline constexpr std::size_t predictions_per_octave = 8;

/// One normaliser.
struct Outcome {
    std::string name;
    Measurement measured;
    std::optional<LossLength> predicted; ///< nothing: no formula for this normaliser
    /// From the shortest to the longest length, `predictions_per_octave` of them each time the length doubles;
    /// empty without a formula.
    std::vector<double> predicted_weights;
};

struct Result {
    Settings settings;
    std::vector<Outcome> outcomes; ///< in the order of the settings
    double order_limit = 0;        ///< see there
};

Result run(const Settings& settings, const std::function<void()>& step);

} // namespace scaling
