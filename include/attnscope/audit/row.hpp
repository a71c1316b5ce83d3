// Holds every statement of the audit against one row.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/concentration/entmax_support.hpp>
#include <attnscope/concentration/leading_weight.hpp>
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

/// Audits one row of a normaliser about which there is no statement: nothing is counted. Statements about
/// selections
/// (`audit_selection`) speak of any weights >= 0.
template <class N>
requires Normalizer<N, double>
void audit_row(Audit&, const N&, RowIn<double>, const RowAuditOptions&, SplitMix64&, RowAuditScratch&) {}

/// Audits one softmax row: lemma1, corollary1, lemma2, corollary3 and finite_difference, as published and
/// sharp, and spectral_bracket. Rows of float data are widened to double before, so that both sides are
/// evaluated in double. A row that is not normal has no verdict and is not counted. `generator` gives the
/// directions of the finite differences. O(n) for each eps and norm.
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
    audit.add(lemma1_published(extremes, 2 * largest / temperature));
    audit.add(lemma1_sharp(extremes, row.logit_spread() / temperature));
    if (options.delta) audit.add(corollary1_published(row, *options.delta));
    audit.add(corollary1_sharp(row));

    const std::size_t n = z.size();
    scratch.weights.resize(n);
    const RowOut<double> weights(scratch.weights);
    softmax.apply<double>(z, weights);
    const RowIn<double> p(weights);
    // Weights of 0 by underflow have infinite relative error and no influence: the spread is cut there.
    const double spread = std::min(row.logit_spread() / temperature, -detail::exp_cutoff<double>());
    const double error = detail::softmax_weight_error(row.visible, spread);
    const JacobianNorms<double> norms = jacobian_norms(softmax, z, p);
    audit.add(lemma2_sharp(norms, 1 / temperature, error));
    audit.add(corollary3_published(norms, temperature, error));
    audit.add(corollary3_sharp(norms, temperature, error));
    // Where 1/T overflows, the same matrix before it is divided by T.
    const double beta = 1 / temperature;
    audit.add(std::isfinite(beta) ? spectral_bracket_sharp<double>(p, beta, norms.spectral.value, error)
                                  : spectral_bracket_sharp<double>(
                                        p, 1, jacobian_norms(Softmax(), z, p).spectral.value, error));

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
        audit.add(finite_difference_published(g, temperature, eps, change_error));
        audit.add(finite_difference_sharp(g, temperature, eps, change_error));
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
    if (normalizer.apply(z, weights) != RowStatus::normal) return;
    WeightExtremes<double> extremes;
    double low = infinity, high = -infinity, slope = 0, largest = 0, smallest = infinity, size = 0;
    double lowest_positive = infinity; // of the keys where F > 0
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (z[i] == -infinity) continue;
        ++extremes.visible;
        const double value = normalizer.template log_value<double>(z[i]);
        low = std::min(low, value);
        high = std::max(high, value);
        if (value > -infinity) {
            size = std::max(size, std::abs(value));
            lowest_positive = std::min(lowest_positive, value);
        }
        slope = std::max(slope, std::abs(normalizer.template log_derivative<double>(z[i])));
        largest = std::max(largest, weights[i]);
        smallest = std::min(smallest, weights[i]);
    }
    extremes.largest = largest;
    extremes.smallest = smallest;
    // log F is exact to a few units of its size, and enters every weight twice. An F without logarithm is added
    // up key by key.
    const double unit = std::numeric_limits<double>::epsilon();
    extremes.relative_error = detail::softmax_weight_error(extremes.visible, high - lowest_positive) +
                              unit * (8 * (size + 1) + static_cast<double>(extremes.visible) / 2);
    // Lemma 1 speaks of F > 0 only: an infinite kappa is none.
    const auto finite_or_nan = [](double x) {
        return std::isfinite(x) ? x : std::numeric_limits<double>::quiet_NaN();
    };
    if (log_kappa_published) audit.add(lemma1_published(extremes, finite_or_nan(*log_kappa_published)));
    audit.add(lemma1_sharp(extremes, finite_or_nan(high - low)));
    const JacobianNorms<double> norms = jacobian_norms(normalizer, z, RowIn<double>(weights));
    audit.add(lemma2_sharp(norms, slope, extremes.relative_error));
}

/// The same with the arguments of the other normalisers. The published form of lemma1 is checked where F says
/// `extremes_at_ends`: that on [-a,a] it is largest and smallest at -a, 0 or a.
template <class F>
void audit_row(Audit& audit, const PointwiseNormalizer<F>& normalizer, RowIn<double> z, const RowAuditOptions&,
               SplitMix64&, RowAuditScratch& scratch) {
    std::optional<double> log_kappa;
    if constexpr (requires { requires F::extremes_at_ends; }) {
        double a = 0;
        for (const double x : z)
            if (x > -std::numeric_limits<double>::infinity()) a = std::max(a, std::abs(x));
        const std::array<double, 3> ends = {normalizer.template log_value<double>(-a),
                                            normalizer.template log_value<double>(0.0),
                                            normalizer.template log_value<double>(a)};
        const auto [low, high] = std::minmax_element(ends.begin(), ends.end());
        log_kappa = *high - *low;
    }
    audit_row(audit, normalizer, z, log_kappa, scratch);
}

/// Audits one row of softmax whose inverse temperature beta depends on the number of visible keys: what holds
/// for softmax at T = 1/beta, and ssmax.
template <class N>
requires LengthScaled<N, double>
void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowAuditOptions& options,
               SplitMix64& generator, RowAuditScratch& scratch) {
    const double beta = normalizer.inverse_temperature(detail::count_visible<double>(z));
    // beta = 0 (equal weights whatever the logits are) has no temperature.
    if (!(beta >= std::numeric_limits<double>::min() && beta <= std::numeric_limits<double>::max())) return;
    audit_row(audit, Softmax(1 / beta), z, options, generator, scratch);
    const RowStatistics<double> row = row_statistics<double>(z, 1 / beta);
    if (row.normal()) audit.add(ssmax_sharp(row));
}

/// Audits one row of sigmoid attention: sigmoid_gradient.
inline void audit_row(Audit& audit, const SigmoidAttention& normalizer, RowIn<double> z, const RowAuditOptions&,
                      SplitMix64&, RowAuditScratch& scratch) {
    scratch.weights.resize(z.size());
    if (normalizer.apply<double>(z, RowOut<double>(scratch.weights)) != RowStatus::normal) return;
    const auto norms = jacobian_norms(normalizer, z, RowIn<double>(scratch.weights));
    audit.add(sigmoid_gradient_sharp(norms, 16 * std::numeric_limits<double>::epsilon()));
}

/// Audits one row of alpha-entmax: entmax_support and spectral_bracket.
template <class N>
requires EntmaxLike<N, double>
void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowAuditOptions&, SplitMix64&,
               RowAuditScratch& scratch) {
    const EntmaxThreshold<double> threshold = normalizer.template threshold<double>(z);
    if (threshold.support == 0) return;
    audit.add(entmax_support_sharp<double>(z, normalizer.alpha(), threshold.support));

    scratch.weights.resize(z.size());
    const RowOut<double> weights(scratch.weights);
    normalizer.apply(z, weights);
    const double norm = jacobian_norms(normalizer, z, RowIn<double>(weights)).spectral.value;
    normalizer.template slopes<double>(RowIn<double>(weights), weights);
    // The s are the same numbers on both sides: only sums over them are rounded.
    const double error = std::numeric_limits<double>::epsilon() * (8 + static_cast<double>(z.size()) / 2);
    audit.add(spectral_bracket_sharp<double>(RowIn<double>(weights), 1.0, norm, error));
}

/// Audits one row of a normaliser whose Jacobian is (I - p 1^T) diag(g): lemma2, with (log F)' = g/p.
template <class N>
requires FamilyMember<N, double>
void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowAuditOptions&, SplitMix64&,
               RowAuditScratch& scratch) {
    scratch.weights.resize(z.size());
    scratch.moved.resize(z.size());
    if (normalizer.apply(z, RowOut<double>(scratch.weights)) != RowStatus::normal) return;
    const RowIn<double> p(scratch.weights);
    detail::FamilyGradient<N>::template fill<double>(normalizer, z, p, RowOut<double>(scratch.moved));
    double slope = 0, low = std::numeric_limits<double>::infinity(), high = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (!(p[i] > 0)) continue;
        slope = std::max(slope, std::abs(scratch.moved[i]) / p[i]);
        low = std::min(low, p[i]);
        high = std::max(high, p[i]);
    }
    const double error = detail::softmax_weight_error(static_cast<Index>(z.size()), std::log(high / low));
    audit.add(lemma2_sharp(jacobian_norms(normalizer, z, p), slope, 2 * error));
}

/// Audits one row behind a division of the logits by a temperature: what holds for N at z/T.
template <class N>
requires Normalizer<N, double>
void audit_row(Audit& audit, const MappedNormalizer<Temperature, N>& normalizer, RowIn<double> z,
               const RowAuditOptions& options, SplitMix64& generator, RowAuditScratch& scratch) {
    std::vector<double> divided(z.size());
    normalizer.mapped(z, RowOut<double>(divided));
    RowAuditOptions inner = options;
    if (inner.delta) *inner.delta /= normalizer.map().temperature;
    audit_row(audit, normalizer.inner(), RowIn<double>(divided), inner, generator, scratch);
}

/// Audits one row without finite differences. Widened to double; allocates.
template <class N, RowLike Z>
requires Normalizer<N, double>
void audit_row(Audit& audit, const N& normalizer, const Z& z) {
    const RowHolder<RowScalar<Z>> row(z);
    const std::vector<double> wide(row.get().begin(), row.get().end());
    SplitMix64 unused(0);
    RowAuditScratch scratch;
    audit_row(audit, normalizer, RowIn<double>(wide), RowAuditOptions{}, unused, scratch);
}

} // namespace v0_1
} // namespace attnscope
