// The length at which a normaliser loses the needle: from there on its weight stays below 1/2.
#pragma once

#include <cmath>

namespace scaling {

struct LossLength {
    enum class Kind {
        before, ///< weight below 1/2 at every length looked at; `length` is the shortest of them
        at,     ///< below 1/2 beyond `length`
        beyond  ///< still at least 1/2 at the longest of them, `length`
    } kind = Kind::before;
    double length = 0;
};

/// From the weight as a function of log2 of the length: looked at from `last` down in equal steps, and between
/// the last one that has the needle's half and the next by bisection to 1 %.
template <class Weight>
LossLength find_loss(double first, double last, double step, Weight&& weight) {
    const auto holds = [&](double octave) { return weight(octave) >= 0.5; };
    const int steps = static_cast<int>(std::lround((last - first) / step));
    int kept = steps;
    while (kept >= 0 && !holds(first + kept * step)) --kept;
    if (kept < 0) return {LossLength::Kind::before, std::exp2(first)};
    if (kept == steps) return {LossLength::Kind::beyond, std::exp2(last)};
    double low = first + kept * step, high = low + step;
    while (high - low > 0.01) {
        const double middle = (low + high) / 2;
        (holds(middle) ? low : high) = middle;
    }
    return {LossLength::Kind::at, std::exp2((low + high) / 2)};
}

} // namespace scaling
