#include "prediction.hpp"

#include <algorithm>
#include <charconv>

namespace scaling {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The needle first, then the background; sums over all keys are sums of count * f(logit).
using Row = std::vector<Keys>;

template <class F>
double sum(const Row& row, F&& f) {
    double total = 0;
    for (const Keys& keys : row) total += keys.count * f(keys.logit);
    return total;
}

double largest(const Row& row) {
    double top = -infinity;
    for (const Keys& keys : row) top = std::max(top, keys.logit);
    return top;
}

double length_of(const Row& row) {
    return sum(row, [](double) { return 1.0; });
}

/// Weights of the row's entries, each of them for one key.
using Weights = std::vector<double>;

/// F(z)/(extra + sum F)
template <class F>
Weights shares(const Row& row, F&& f, double extra = 0) {
    const double total = extra + sum(row, f);
    Weights weights;
    for (const Keys& keys : row) weights.push_back(f(keys.logit) / total);
    return weights;
}

/// e^{beta z}/sum e^{beta z}
Weights softmax(const Row& row, double beta) {
    const double top = largest(row);
    return shares(row, [&](double z) { return std::exp(beta * (z - top)); });
}

double entropy(const Row& row, const Weights& weights) {
    double total = 0;
    for (std::size_t i = 0; i < row.size(); ++i)
        if (weights[i] > 0) total -= row[i].count * weights[i] * std::log(weights[i]);
    return total;
}

double participation(const Row& row, const Weights& weights) {
    double squares = 0;
    for (std::size_t i = 0; i < row.size(); ++i) squares += row[i].count * weights[i] * weights[i];
    return 1 / squares;
}

/// softmax(beta z) with beta such that `figure` of the weights, which falls with beta, is the target.
template <class Figure>
Weights softmax_at(const Row& row, double target, Figure&& figure) {
    double low = 0, high = 1;
    while (figure(row, softmax(row, high)) > target && high < 1e6) low = high, high *= 2;
    for (int step = 0; step < 60; ++step) {
        const double middle = (low + high) / 2;
        (figure(row, softmax(row, middle)) > target ? low : high) = middle;
    }
    return softmax(row, high);
}

/// beta = max(1, quartic of the entropy H at beta = 1) where H > 0.5 (arXiv:2410.01104).
Weights adaptive(const Row& row) {
    const double h = entropy(row, softmax(row, 1));
    const double quartic = (((-0.037 * h + 0.481) * h - 2.3) * h + 4.917) * h - 1.791;
    return softmax(row, h > 0.5 ? std::max(1.0, quartic) : 1.0);
}

/// [1 + (alpha-1)(z - theta)]_+^{1/(alpha-1)} with theta such that sum = 1.
Weights entmax(const Row& row, double alpha) {
    if (alpha == 1) return softmax(row, 1);
    const double top = largest(row), a = alpha - 1;
    const auto weight = [&](double z, double theta) {
        return std::pow(std::max(0.0, 1 + a * (z - theta)), 1 / a);
    };
    double low = top, high = top + 1 / a; // the largest weight is 1 at `low` and 0 at `high`
    for (int step = 0; step < 100; ++step) {
        const double middle = (low + high) / 2;
        (sum(row, [&](double z) { return weight(z, middle); }) > 1 ? low : high) = middle;
    }
    Weights weights;
    for (const Keys& keys : row) weights.push_back(weight(keys.logit, high));
    return weights;
}

/// f softmax(z), f = (z - lo)/(hi - lo), lo = min(z, 0), hi = max(z, 0) over the row (arXiv:2502.18277).
Weights self_adjusted(const Row& row) {
    double lo = 0, hi = 0;
    for (const Keys& keys : row) lo = std::min(lo, keys.logit), hi = std::max(hi, keys.logit);
    Weights weights = softmax(row, 1);
    for (std::size_t i = 0; i < row.size(); ++i) weights[i] *= hi > lo ? (row[i].logit - lo) / (hi - lo) : 0;
    return weights;
}

/// The k largest logits, part of the last group if need be; the needle counts as one key.
Weights keep_largest(const Row& row, Weights weights, double k, bool renormalise) {
    std::vector<std::size_t> order(row.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return weights[i] > weights[j]; });
    double kept = 0, mass = 0;
    for (const std::size_t i : order) {
        const double count = std::clamp(k - kept, 0.0, row[i].count);
        mass += count * weights[i];
        kept += count;
        weights[i] *= count > 0;
    }
    if (renormalise)
        for (double& weight : weights) weight /= mass;
    return weights;
}

/// Number of largest weights that have the share `mass` of the sum.
double count_of_mass(const Row& row, const Weights& weights, double mass) {
    std::vector<std::size_t> order(row.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return weights[i] > weights[j]; });
    double total = 0, missing = 0, count = 0;
    for (std::size_t i = 0; i < row.size(); ++i) total += row[i].count * weights[i];
    missing = mass * total;
    for (const std::size_t i : order) {
        if (missing <= 0 || weights[i] == 0) break;
        const double of_these = std::min(row[i].count, std::ceil(missing / weights[i]));
        count += of_these;
        missing -= of_these * weights[i];
    }
    return count;
}

/// Weights by the name of a normaliser; `parameter` is NaN where none is given.
Weights weights_of(const std::string& name, double parameter, const Row& row) {
    const auto given_or = [&](double otherwise) { return std::isnan(parameter) ? otherwise : parameter; };
    const double n = length_of(row);
    if (name == "softmax") return softmax(row, 1 / given_or(1));
    // Softmax at an inverse temperature that depends on the length.
    if (name == "ssmax") return softmax(row, given_or(0.43) * std::log(n));
    if (name == "logn") return softmax(row, parameter * std::log(n));
    if (name == "yarn") {
        const double root = n <= parameter ? 1 : 0.1 * std::log(n / parameter) + 1;
        return softmax(row, root * root);
    }
    // Softmax at an inverse temperature that depends on the row.
    if (name == "adaptive") return adaptive(row);
    if (name == "entropy") return softmax_at(row, parameter, entropy);
    if (name == "participation") return softmax_at(row, parameter, participation);
    // F(z)/sum F, with what else takes part in the sum.
    if (name == "sink") {
        const double n0 = given_or(1), shift = std::max(largest(row), std::log(n0));
        return shares(
            row, [&](double z) { return std::exp(z - shift); }, n0 * std::exp(-shift));
    }
    if (name == "relu") {
        return shares(row, [&](double z) { return std::pow(std::max(z, 0.0), given_or(1)); });
    }
    if (name == "softplus")
        return shares(row, [](double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); });
    if (name == "stablemax") return shares(row, [](double z) { return z >= 0 ? z + 1 : 1 / (1 - z); });
    if (name == "sigmoidsum") return shares(row, [](double z) { return 1 / (1 + std::exp(-z)); });
    if (name == "quadratic") return shares(row, [&](double z) { return z * z + given_or(1); });
    if (name == "softpick") { // (e^z - 1)_+ / sum |e^z - 1|: keys below 0 count in the sum only
        const double shift = std::max(largest(row), 0.0);
        const auto value = [&](double z) { return std::exp(z - shift) - std::exp(-shift); };
        const double total = sum(row, [&](double z) { return std::abs(value(z)); });
        Weights weights;
        for (const Keys& keys : row) weights.push_back(std::max(value(keys.logit), 0.0) / total);
        return weights;
    }
    // Every key on its own, 1/(1 + e^{-(z + b)}), b = -log n unless given.
    if (name == "sigmoid") {
        const double bias = given_or(-std::log(n));
        Weights weights;
        for (const Keys& keys : row) weights.push_back(1 / (1 + std::exp(-(keys.logit + bias))));
        return weights;
    }
    if (name == "selfadjusted") return self_adjusted(row);
    if (name == "sparsemax") return entmax(row, 2);
    if (name == "entmax") return entmax(row, given_or(1.5));
    return {};
}

constexpr std::array<std::string_view, 6> with_parameter = {"logn",          "yarn", "entropy",
                                                            "participation", "topk", "topp"};

bool sums_to_one(std::string_view core) {
    return core != "sink" && core != "sigmoid" && core != "softpick" && core != "selfadjusted";
}

} // namespace

std::vector<Keys> typical_background(const Background& background, double n) {
    constexpr int singles = 64;
    std::vector<Keys> keys;
    int k = 1;
    for (; k <= singles && k <= n; ++k)
        keys.push_back({background.at_score(score_of_upper_tail((k - 0.3) / (n + 0.4))), 1});
    if (k > n) return keys;
    // The other n - k + 1 keys: normal scores from that of the boundary down, midpoint rule.
    const double rest = n - k + 1, boundary = score_of_upper_tail((k - 0.3 - 0.5) / (n + 0.4));
    constexpr int steps = 800;
    constexpr double lowest = -8.5;
    const double width = (boundary - lowest) / steps, all = upper_tail(lowest) - upper_tail(boundary);
    for (int i = 0; i < steps; ++i) {
        const double high = boundary - i * width, low = high - width;
        // Tails from the side where they do not cancel.
        const double share =
            high > 0 ? upper_tail(low) - upper_tail(high) : upper_tail(-high) - upper_tail(-low);
        keys.push_back({background.at_score(high - width / 2), rest * share / all});
    }
    return keys;
}

std::optional<Predictor> Predictor::make(std::string_view normalizer) {
    Predictor predictor;
    bool has_core = false;
    while (!normalizer.empty()) {
        const std::string_view text = normalizer.substr(0, normalizer.find('|'));
        normalizer.remove_prefix(std::min(normalizer.size(), text.size() + 1));
        const auto colon = text.find(':');
        Part part{std::string(text.substr(0, colon)), std::numeric_limits<double>::quiet_NaN()};
        if (colon != text.npos) {
            const auto [end, error] =
                std::from_chars(text.data() + colon + 1, text.data() + text.size(), part.parameter);
            if (error != std::errc{} || end != text.data() + text.size()) return {};
        } else if (std::find(with_parameter.begin(), with_parameter.end(), part.name) != with_parameter.end()) {
            return {};
        }
        if (part.name == "softcap" || part.name == "temperature") {
            predictor.front_.push_back(part);
        } else if (part.name == "topk" || part.name == "topp") {
            predictor.back_.push_back(part);
        } else {
            if (has_core || weights_of(part.name, part.parameter, {{1, 1}, {0, 1}}).empty()) return {};
            predictor.core_ = part;
            has_core = true;
        }
    }
    if (!has_core) return {};
    return predictor;
}

double Predictor::needle_weight(double needle_logit, std::vector<Keys> background) const {
    Row row = std::move(background);
    row.insert(row.begin(), {needle_logit, 1});
    for (const Part& part : front_)
        for (Keys& keys : row)
            keys.logit = part.name == "softcap" ? part.parameter * std::tanh(keys.logit / part.parameter)
                                                : keys.logit / part.parameter;
    Weights weights = weights_of(core_.name, core_.parameter, row);
    for (const Part& part : back_)
        weights = keep_largest(
            row, weights, part.name == "topk" ? part.parameter : count_of_mass(row, weights, part.parameter),
            sums_to_one(core_.name));
    return weights.front();
}

LossLength predicted_loss(const Predictor& predictor, const Background& background, double needle_logit,
                          double shortest) {
    const auto weight = [&](double octave) {
        return predictor.needle_weight(needle_logit, typical_background(background, std::exp2(octave) - 1));
    };
    return find_loss(std::log2(shortest), std::log2(longest_predicted), 0.5, weight);
}

double order_limit(const Background& background, double needle_logit) {
    const double tail = upper_tail(background.score_of(needle_logit));
    return tail > 0 ? 0.7 / tail - 0.4 + 1 : infinity;
}

} // namespace scaling
