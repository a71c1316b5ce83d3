#include "background.hpp"

#include "measured_quantiles.hpp"

namespace scaling {
namespace {

/// Quantile function of Student's t with 4 degrees of freedom (closed form), divided by its standard deviation
/// sqrt 2.
double student_at(double x) {
    const double tail = upper_tail(std::abs(x)); // <= 1/2
    const double root = std::sqrt(4 * tail * (1 - tail));
    const double t = 2 * std::sqrt(std::max(0.0, std::cos(std::acos(std::min(root, 1.0)) / 3) / root - 1));
    return std::copysign(t / std::numbers::sqrt2, x);
}

/// Linear between the table's entries, as a function of the normal score; beyond them the score moves on at the
/// mean slope of the outermost unit of scores, that is, the tails are Gaussian ones.
double measured_at(double x) {
    const auto& table = measured_quantiles;
    constexpr std::size_t last = measured_quantiles.size() - 1;
    constexpr auto steps = static_cast<std::size_t>(1 / measured_score_step);
    const double at = (x - measured_first_score) / measured_score_step;
    if (at <= 0) return table[0] + at * (table[steps] - table[0]) / static_cast<double>(steps);
    if (at >= static_cast<double>(last))
        return table[last] + (at - static_cast<double>(last)) * (table[last] - table[last - steps]) /
                                 static_cast<double>(steps);
    const auto low = static_cast<std::size_t>(at);
    return table[low] + (at - static_cast<double>(low)) * (table[low + 1] - table[low]);
}

} // namespace

double Background::at_score(double x) const {
    switch (shape_) {
    case Shape::gaussian:
        return spread_ * x;
    case Shape::student:
        return spread_ * student_at(x);
    case Shape::measured:
        return spread_ * measured_at(x);
    }
    return 0;
}

double Background::score_of(double logit) const {
    double low = -38, high = 38;
    for (int step = 0; step < 100; ++step) {
        const double middle = (low + high) / 2;
        (at_score(middle) < logit ? low : high) = middle;
    }
    return (low + high) / 2;
}

void Background::fill(std::uint64_t seed, std::uint64_t row, std::span<float> logits) const {
    for (std::size_t first = 0; first < logits.size(); first += block_size) {
        // A whole block even where less is wanted: the normal draws come in pairs.
        std::array<double, block_size> scores;
        generator(seed, row, first / block_size).fill_normal(std::span<double>(scores));
        const std::size_t count = std::min(block_size, logits.size() - first);
        for (std::size_t i = 0; i < count; ++i) logits[first + i] = static_cast<float>(at_score(scores[i]));
    }
}

double upper_tail(double x) { return std::erfc(x / std::numbers::sqrt2) / 2; }

double score_of_upper_tail(double u) {
    if (u > 0.5) return -score_of_upper_tail(1 - u);
    // Newton's method on log P(X > x), which is concave: from the right, where Chernoff's bound P <=
    // e^{-x^2/2}/2 puts it, it moves towards the root and never past it.
    double x = std::sqrt(-2 * std::log(2 * u));
    for (int step = 0; step < 50; ++step) {
        const double tail = upper_tail(x);
        const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
        const double move = tail * std::log(tail / u) / density;
        x += move;
        if (std::abs(move) < 1e-12 * (1 + x)) break;
    }
    return x;
}

attnscope::SplitMix64 generator(std::uint64_t seed, std::uint64_t stream, std::uint64_t block) {
    attnscope::SplitMix64 by_seed(seed);
    attnscope::SplitMix64 by_stream(by_seed() + stream);
    attnscope::SplitMix64 by_block(by_stream() + block);
    return attnscope::SplitMix64(by_block());
}

} // namespace scaling
