// Holds every statement of the audit against one row.
#pragma once

#include <attnscope/audit.hpp>
#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/sensitivity/finite_difference.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_1 {

struct RowAuditOptions {
    /// |q| max_j |k_j|/sqrt(d) over the visible keys, for the published Corollary 1; without it that form is
    /// not checked.
    std::optional<double> delta;
    std::span<const double> steps; ///< eps of the finite differences; empty: none are taken
};

/// Scratch rows of `audit_row`, so that many rows need no allocation.
struct RowAuditScratch {
    std::vector<double> weights, direction, moved;
};

namespace detail {

/// Relative error of softmax weights at logits z/T of spread x: the exponent is rounded three times.
inline double softmax_weight_error(Index n, double x) {
    const double u = std::numeric_limits<double>::epsilon() / 2;
    const double count = static_cast<double>(n);
    return u * (3 * x + 12 + std::min(count, 64.0) + count / 64);
}

} // namespace detail

/// Audits one softmax row: lemma1, corollary1, lemma2, corollary3 and finite_difference, as published and
/// sharp. Rows of float data are widened to double before, so that both sides are evaluated in double. A row
/// that is not normal has no verdict and is not counted. `generator` gives the directions of the finite
/// differences. O(n) for each eps and norm.
inline void audit_row(Audit& audit, const Softmax& softmax, RowIn<double> z, const RowAuditOptions& options,
                      SplitMix64& generator, RowAuditScratch& scratch) {
    const double temperature = softmax.temperature();
    const RowStatistics<double> row = row_statistics<double>(z, temperature);
    if (!row.normal()) return;
    const double infinity = std::numeric_limits<double>::infinity();

    double largest = 0;
    for (const double x : z)
        if (x != -infinity) largest = std::max(largest, std::abs(x));
    const WeightExtremes<double> extremes = weight_extremes(row);
    audit.add(Form::published, lemma1_published(extremes, 2 * largest / temperature));
    audit.add(Form::sharp, lemma1_sharp(extremes, row.logit_spread() / temperature));
    if (options.delta) audit.add(Form::published, corollary1_published(row, *options.delta));
    audit.add(Form::sharp, corollary1_sharp(row));

    const std::size_t n = z.size();
    scratch.weights.resize(n);
    const RowOut<double> weights(scratch.weights);
    softmax.apply<double>(z, weights);
    const RowIn<double> p(weights);
    // Weights of 0 by underflow have infinite relative error and no influence: the spread is cut there.
    const double spread = std::min(row.logit_spread() / temperature, -detail::exp_cutoff<double>());
    const double error = detail::softmax_weight_error(row.visible, spread);
    const JacobianNorms<double> norms = jacobian_norms(softmax, z, p);
    audit.add(Form::sharp, lemma2_sharp(norms, 1 / temperature, error));
    audit.add(Form::published, corollary3_published(norms, temperature, error));
    audit.add(Form::sharp, corollary3_sharp(norms, temperature, error));

    if (options.steps.empty()) return;
    scratch.direction.resize(n);
    scratch.moved.resize(n);
    random_direction<double>(z, generator, RowOut<double>(scratch.direction));
    const double length = std::sqrt(row.power_sum_2()); // |p|_2
    for (const double eps : options.steps) {
        const double g = finite_difference<double>(softmax, z, p, RowIn<double>(scratch.direction), eps,
                                                   RowOut<double>(scratch.moved));
        const RowIn<double> moved(scratch.moved);
        const double moved_error = detail::softmax_weight_error(row.visible, spread + 2 * eps / temperature);
        const double moved_length = std::sqrt(detail::dot<double>(moved, moved));
        // z + eps v is itself rounded: a change of the logits by at most eps_machine |z|, which J turns into
        // weights.
        const double input_error = std::numeric_limits<double>::epsilon() *
                                   std::sqrt(static_cast<double>(row.visible)) * (largest + eps) *
                                   gradient_limit(temperature);
        const double change_error = error * length + moved_error * moved_length + input_error;
        audit.add(Form::published, finite_difference_published(g, temperature, eps, change_error));
        audit.add(Form::sharp, finite_difference_sharp(g, temperature, eps, change_error));
    }
}

/// Audits one row of the general family: lemma1 (published with kappa over [-a,a], sharp with the
/// row's own) and lemma2. `log_kappa_published`: log(max F/min F)
/// over [-a,a], a = max|z_i|, which only the caller who knows F can give; without it the published form is not
/// checked.
template <class F>
void audit_row(Audit& audit, const PointwiseNormalizer<F>& normalizer, RowIn<double> z,
               std::optional<double> log_kappa_published, RowAuditScratch& scratch) {
    const double infinity = std::numeric_limits<double>::infinity();
    scratch.weights.resize(z.size());
    const RowOut<double> weights(scratch.weights);
    if (normalizer.template apply<double>(z, weights) != RowStatus::normal) return;
    WeightExtremes<double> extremes;
    double low = infinity, high = -infinity, slope = 0, largest = 0, smallest = infinity, size = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (z[i] == -infinity) continue;
        ++extremes.visible;
        const double value = normalizer.template log_value<double>(z[i]);
        low = std::min(low, value);
        high = std::max(high, value);
        size = std::max(size, std::abs(value));
        slope = std::max(slope, std::abs(normalizer.template log_derivative<double>(z[i])));
        largest = std::max(largest, weights[i]);
        smallest = std::min(smallest, weights[i]);
    }
    extremes.largest = largest;
    extremes.smallest = smallest;
    // log F is exact to a few units of its size, and enters every weight twice. An F without logarithm is added
    // up key by key.
    const double unit = std::numeric_limits<double>::epsilon();
    extremes.relative_error = detail::softmax_weight_error(extremes.visible, high - low) +
                              unit * (8 * (size + 1) + static_cast<double>(extremes.visible) / 2);
    if (log_kappa_published) audit.add(Form::published, lemma1_published(extremes, *log_kappa_published));
    audit.add(Form::sharp, lemma1_sharp(extremes, high - low));
    const JacobianNorms<double> norms = jacobian_norms(normalizer, z, RowIn<double>(weights));
    audit.add(Form::sharp, lemma2_sharp(norms, slope, extremes.relative_error));
}

} // namespace v0_1
} // namespace attnscope
