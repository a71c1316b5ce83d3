#include "spectral.hpp"

#include <algorithm>

namespace scaling {
namespace {

/// The general family's exact norms take some 60 passes over the row, up to 3 microseconds a key; softmax and
/// what has its form take a few.
bool exact_at_moderate_cost(const attnscope::AnyNormalizer& normalizer, std::size_t length) {
    constexpr std::size_t longest_of_family = 1 << 14;
    const bool softmax_form = normalizer.promises().derivative_from_weights;
    return normalizer.has_linear_norms() &&
           (!normalizer.is_family_member() || softmax_form || length <= longest_of_family);
}

auto vector_of(AlignedRow& row) {
    return Eigen::Map<Eigen::VectorXf>(row.data(), static_cast<Eigen::Index>(row.size()));
}

} // namespace

SpectralEstimate spectral_norm(const attnscope::AnyNormalizer& normalizer, std::span<const float> logits,
                               std::span<const float> weights, AlignedRow start) {
    if (exact_at_moderate_cost(normalizer, logits.size()))
        return {attnscope::jacobian_norms(normalizer, logits, weights).spectral.value, true};
    constexpr int most_steps = 30;
    constexpr float tolerance = 0.05f;
    AlignedRow image(start.size());
    auto v = vector_of(start), w = vector_of(image);
    double largest = 0;
    normalizer.vjp(logits, weights, std::span<const float>(start), std::span<float>(start));
    for (int step = 0; step < most_steps; ++step) {
        const float size = v.stableNorm();
        if (!(size > 0)) break;
        v /= size;
        normalizer.jvp(logits, weights, std::span<const float>(start), std::span<float>(image));
        const float sigma = w.stableNorm();
        if (!(sigma > 0)) break;
        largest = std::max(largest, static_cast<double>(sigma));
        w /= sigma;
        normalizer.vjp(logits, weights, std::span<const float>(image), std::span<float>(image));
        w /= sigma; // J^T J v/sigma^2
        const bool found = (w - v).stableNorm() <= tolerance;
        std::swap(start, image);
        new (&v) Eigen::Map<Eigen::VectorXf>(start.data(), v.size());
        new (&w) Eigen::Map<Eigen::VectorXf>(image.data(), w.size());
        if (found) break;
    }
    return {largest, false};
}

} // namespace scaling
