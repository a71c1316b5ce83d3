#include "row_figures.hpp"

#include <algorithm>

namespace scaling {
namespace {

constexpr double not_taken = std::numeric_limits<double>::quiet_NaN();

auto array_of(std::span<const float> row) {
    return Eigen::Map<const Eigen::ArrayXf>(row.data(), static_cast<Index>(row.size()));
}

/// Sum in double of f(part) over parts short enough to be added up in float.
template <class F>
double sum_of_parts(std::span<const float> row, F&& f) {
    constexpr std::size_t part = 1024;
    double sum = 0;
    for (std::size_t first = 0; first < row.size(); first += part)
        sum += static_cast<double>(f(array_of(row.subspan(first, std::min(part, row.size() - first)))));
    return sum;
}

} // namespace

Figures RowFigures::take(const attnscope::AnyNormalizer& normalizer, const PlantedRow& row, bool detailed) {
    weights_.resize(row.logits.size());
    normalizer.apply(row.logits, std::span<float>(weights_));
    Figures figures{};
    for (const Figure& figure : all_figures) figures.*figure.value = not_taken;
    weigh(figures, row);
    if (detailed) {
        select(figures, row);
        differentiate(figures, normalizer, row);
    }
    return figures;
}

/// Entropy and participation ratio are those of the weights divided by their sum.
void RowFigures::weigh(Figures& figures, const PlantedRow& row) {
    figures.needle_weight = static_cast<double>(weights_[row.needle]);
    figures.weight_sum = sum_of_parts(weights_, [](const auto& p) { return p.sum(); });
    if (!(figures.weight_sum > 0)) return; // no key has weight
    const float inverse = static_cast<float>(1 / figures.weight_sum);
    const double entropy = -sum_of_parts(weights_, [&](const auto& p) {
        const auto share = p * inverse;
        return (share * share.max(std::numeric_limits<float>::min()).log()).sum();
    });
    figures.entropy = std::max(entropy, 0.0);
    figures.participation =
        1 / sum_of_parts(weights_, [&](const auto& p) { return (p * inverse).square().sum(); });
}

/// The N largest weights, equal ones by the larger logit: with a normaliser that keeps the order of the logits,
/// the same keys for all. Of another one, equal weights by the smaller index.
std::span<const Index> RowFigures::largest_weights(const PlantedRow& row) {
    float least = std::numeric_limits<float>::infinity();
    for (const Index i : row.top) least = std::min(least, weights_[static_cast<std::size_t>(i)]);
    const auto above = std::count_if(weights_.begin(), weights_.end(), [&](float p) { return p > least; });
    const auto above_in_top = std::count_if(
        row.top.begin(), row.top.end(), [&](Index i) { return weights_[static_cast<std::size_t>(i)] > least; });
    if (above == above_in_top) return row.top;
    ranking_.rank(weights_);
    return ranking_.order().first(row.top.size());
}

void RowFigures::select(Figures& figures, const PlantedRow& row) {
    set_.assign(std::span<const float>(weights_), row.values, largest_weights(row));
    const auto others = static_cast<double>(set_.size() - set_.selected_count());
    figures.top_mass = set_.mass() / figures.weight_sum;
    figures.distance = attnscope::selection_distance(set_);
    figures.distance_per_key = figures.distance / others;
    figures.recall = attnscope::separability(set_).recall;
}

void RowFigures::differentiate(Figures& figures, const attnscope::AnyNormalizer& normalizer,
                               const PlantedRow& row) {
    const std::span<const float> weights(weights_);
    // Row of the needle in J.
    direction_.assign(weights_.size(), 0);
    direction_[row.needle] = 1;
    normalizer.vjp(row.logits, weights, std::span<const float>(direction_), std::span<float>(direction_));
    figures.gradient = static_cast<double>(array_of(direction_).matrix().stableNorm());
    figures.own_gradient = static_cast<double>(direction_[row.needle]);
    // The largest singular value has its vectors where the largest weights are, most likely at the largest one.
    direction_.assign(weights_.size(), 0);
    float share = 1;
    for (const Index i : row.top) direction_[static_cast<std::size_t>(i)] = share, share /= 2;
    const SpectralEstimate norm = spectral_norm(normalizer, row.logits, weights, direction_);
    figures.spectral = norm.value;
    figures.spectral_exact = norm.exact;
}

} // namespace scaling
