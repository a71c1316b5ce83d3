// At which length should a normaliser lose the needle? Formulas on the typical background, without a single
// draw.
#pragma once

#include "background.hpp"
#include "loss_length.hpp"

#include <optional>
#include <string>

namespace scaling {

/// So many background keys of one logit.
struct Keys {
    double logit, count;
};

/// n background keys as they typically fall, from the largest logit down: the largest one by one at the medians
/// of their order statistics (the k-th largest of n at upper tail probability (k - 0.3)/(n + 0.4)), the others
/// by quadrature over the quantile function. Sums over it are annealed averages, n E F(z), without the keys
/// that a row of n does not have: an average over rows would be ruled by rare ones whose largest logit is
/// exceptional.
std::vector<Keys> typical_background(const Background& background, double n);

/// What a normaliser, named as the library names it ("softcap:50|ssmax:0.43|topk:64"), gives to the needle in
/// the typical row of `length` keys.
class Predictor {
public:
    /// Nothing if there is no formula for this name.
    static std::optional<Predictor> make(std::string_view normalizer);

    double needle_weight(double needle_logit, std::vector<Keys> background) const;

private:
    struct Part {
        std::string name;
        double parameter;
    };
    Predictor() = default;
    std::vector<Part> front_, back_;
    Part core_;
};

/// Lengths up to which predictions are made.
inline constexpr double longest_predicted = 0x1p40;

/// The length beyond which the needle's typical weight stays below 1/2, among lengths from `shortest` on.
LossLength predicted_loss(const Predictor& predictor, const Background& background, double needle_logit,
                          double shortest);

/// The length at which the largest logit of the background typically reaches the needle's. Beyond it no
/// normaliser that keeps the order of the logits and has a weight of 1 to give can leave the needle half of it.
double order_limit(const Background& background, double needle_logit);

} // namespace scaling
