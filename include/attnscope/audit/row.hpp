// Holds every statement of the audit against one row.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/audit/measured_row.hpp>
#include <attnscope/concentration/entmax_support.hpp>
#include <attnscope/concentration/entropy.hpp>
#include <attnscope/concentration/leading_weight.hpp>
#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/sensitivity/finite_difference.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <attnscope/sensitivity/lp_norm.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

/// What a `RowAuditor` tries.
struct RowAuditOptions {
    std::vector<double> steps = {}; ///< eps of the finite differences; empty: none are taken
};

/// What only the caller knows of a row.
struct RowFacts {
    /// |q| max_j |k_j|/sqrt(d) over the visible keys: with it the published Corollary 1 is checked.
    std::optional<double> delta = {};
    /// log(max F/min F) over [-a,a], a = max|z_i|, of a row of the general family: with it the published Lemma 1
    /// is checked. An F that says `extremes_at_ends` (on [-a,a] it is largest and smallest at -a, 0 or a) needs
    /// nobody to tell.
    std::optional<double> log_kappa = {};
};

class RowAuditor;

/// A normaliser that chooses itself which statements are held against its rows.
template <class N>
concept AuditsItself = requires(const N& normalizer, Audit& audit, RowIn<double> z, const RowFacts& facts,
                                RowAuditor& auditor) { normalizer.audit(audit, z, facts, auditor); };

/// Holds every statement about one row of a normaliser against it, as published and sharp: of softmax lemma1,
/// corollary1, lemma2, corollary3, lp_lipschitz, jacobian_inf_to_1, spectral_bracket and finite_difference; of the other
/// normalisers those that speak of them. A normaliser about which there is no statement is counted in `Audit::unknown_rows`;
/// statements about selections (`SelectionAuditor`) speak of any weights >= 0.
/// Shapes and units. Logits in double; rows of float data are widened before, so that both sides are
/// evaluated in double.
/// Special rows. What is not normal has no verdict and is not counted.
/// Cost. O(n) for each eps and norm; memory is kept from row to row.
/// Example:
///     Audit audit;
///     RowAuditor auditor({.steps = {1e-3, 0.1}});
///     auditor(audit, Softmax(0.5), z); // z: a row of logits in double
///     const std::size_t findings = audit.sharp_violations();
class RowAuditor {
public:
    /// seed: of the directions of the finite differences.
    /// Throws. `invalid_argument` unless steps are > 0 and finite.
    explicit RowAuditor(RowAuditOptions options = {}, std::uint64_t seed = 1)
        : options_(std::move(options)), generator_(seed) {
        for (const double eps : options_.steps)
            detail::require(eps > 0 && std::isfinite(eps), "RowAuditor", "steps must be > 0 and finite", eps);
    }

    /// The directions of the rows to come are those of a new auditor with this seed.
    void reseed(std::uint64_t seed) { generator_ = SplitMix64(seed); }

    /// Audits one row of a normaliser.
    template <class N>
    requires Normalizer<N, double>
    void operator()(Audit& audit, const N& normalizer, RowIn<double> z, const RowFacts& facts = {}) {
        if constexpr (AuditsItself<N>)
            normalizer.audit(audit, z, facts, *this);
        else
            audit_row(audit, normalizer, z, facts);
    }

    /// Audits one softmax row that has been measured.
    void operator()(Audit& audit, const MeasuredRow& row, const RowFacts& facts = {}) {
        if (!row.normal()) return;
        const double infinity = std::numeric_limits<double>::infinity(), temperature = row.temperature();
        double largest = 0;
        for (const double x : row.z)
            if (x != -infinity) largest = std::max(largest, std::abs(x));
        const WeightExtremes<double> extremes = weight_extremes(row.statistics);
        audit.add(lemma1_published(extremes, 2 * largest / temperature));
        audit.add(lemma1_sharp(extremes, row.statistics.logit_spread() / temperature));
        if (facts.delta) audit.add(corollary1_published(row.statistics, *facts.delta));
        audit.add(corollary1_sharp(row.statistics));

        const double error = row.weight_error(), weight_limit = weight_gradient_limit<double>(row.p);
        audit.add(lemma2_sharp(row.norms, 1 / temperature, error, weight_limit));
        audit.add(corollary3_published(row.norms, temperature, error));
        audit.add(corollary3_sharp(row.norms, temperature, error, weight_limit));
        audit.add(jacobian_inf_to_1_sharp(row.norms, balanced_mass<double>(row.p), temperature, error));
        // Where 1/T overflows, the same matrix before it is divided by T.
        const double beta = 1 / temperature;
        audit.add(std::isfinite(beta)
                      ? spectral_bracket_sharp<double>(row.p, beta, row.norms.spectral.value, error)
                      : spectral_bracket_sharp<double>(
                            row.p, 1, jacobian_norms(Softmax(), row.z, row.p).spectral.value, error));
        const double in_cubes = lp_norm_(row.p, 3, 2) / temperature;
        // Two sums of n terms make it.
        const double cubes_error =
            error + std::numeric_limits<double>::epsilon() * static_cast<double>(row.statistics.visible);
        audit.add(lp_lipschitz_published(in_cubes, temperature, cubes_error));
        audit.add(lp_lipschitz_sharp(in_cubes, row.norms, temperature, 3, cubes_error));
        differences(audit, row, largest, error);
    }

private:
    /// finite_difference, for every eps in one random direction. largest: of the |z_i|; error: of the weights.
    void differences(Audit& audit, const MeasuredRow& row, double largest, double error) {
        if (options_.steps.empty()) return;
        draw_direction(row.z);
        moved_.resize(row.z.size());
        const RowIn<double> moved(moved_);
        const double temperature = row.temperature(), spread = row.exponent_spread();
        const Index visible = row.statistics.visible;
        const double length = std::sqrt(row.statistics.power_sum_2()); // |p|_2
        for (const double eps : options_.steps) {
            const double g = finite_difference<double>(Softmax(temperature), row.z, row.p,
                                                       RowIn<double>(direction_), eps, RowOut<double>(moved_));
            const double moved_error = softmax_weight_error(visible, spread + 2 * eps / temperature);
            const double moved_length = std::sqrt(detail::dot<double>(moved, moved));
            // z + eps v is itself rounded: a change of the logits by at most eps_machine |z|, which J turns into
            // weights.
            const double input_error = std::numeric_limits<double>::epsilon() *
                                       std::sqrt(static_cast<double>(visible)) * (largest + eps) *
                                       gradient_limit(temperature);
            const double change_error = error * length + moved_error * moved_length + input_error;
            audit.add(finite_difference_published(g, temperature, eps, change_error));
            audit.add(finite_difference_sharp(g, temperature, eps, change_error));
        }
    }

    /// A unit vector over the visible keys.
    void draw_direction(RowIn<double> z) {
        direction_.resize(z.size());
        double squares = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            const double drawn = generator_.bell();
            direction_[i] = z[i] == -std::numeric_limits<double>::infinity() ? 0 : drawn;
            squares += direction_[i] * direction_[i];
        }
        const double length = std::sqrt(squares);
        for (double& x : direction_) x /= length;
    }

    /// The weights of a row in `weights_`; false where it is not normal.
    template <class N>
    bool weigh(const N& normalizer, RowIn<double> z) {
        weights_.resize(z.size());
        return normalizer.apply(z, RowOut<double>(weights_)) == RowStatus::normal;
    }

    /// No statement is about this normaliser.
    template <class N>
    void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowFacts&) {
        if (weigh(normalizer, z)) audit.add_unknown_row();
    }

    void audit_row(Audit& audit, const Softmax& softmax, RowIn<double> z, const RowFacts& facts) {
        (*this)(audit, meter_(softmax, z), facts);
    }

    /// The general family: lemma1 (published with kappa over [-a,a], sharp with the row's own) and lemma2.
    template <class F>
    void audit_row(Audit& audit, const PointwiseNormalizer<F>& normalizer, RowIn<double> z,
                   const RowFacts& facts) {
        if (!weigh(normalizer, z)) return;
        const double infinity = std::numeric_limits<double>::infinity();
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
            largest = std::max(largest, weights_[i]);
            smallest = std::min(smallest, weights_[i]);
        }
        extremes.largest = largest;
        extremes.smallest = smallest;
        // log F is exact to a few units of its size, and enters every weight twice. An F without logarithm is added
        // up key by key.
        const double unit = std::numeric_limits<double>::epsilon();
        extremes.relative_error = softmax_weight_error(extremes.visible, high - lowest_positive) +
                                  unit * (8 * (size + 1) + static_cast<double>(extremes.visible) / 2);
        // Lemma 1 speaks of F > 0 only: an infinite kappa is none.
        const auto finite_or_nan = [](double x) {
            return std::isfinite(x) ? x : std::numeric_limits<double>::quiet_NaN();
        };
        if (const auto log_kappa = published_log_kappa(normalizer, z, facts))
            audit.add(lemma1_published(extremes, finite_or_nan(*log_kappa)));
        audit.add(lemma1_sharp(extremes, finite_or_nan(high - low)));
        const RowIn<double> p(weights_);
        audit.add(lemma2_sharp(jacobian_norms(normalizer, z, p), slope, extremes.relative_error,
                               weight_gradient_limit<double>(p)));
    }

    /// log(max F/min F) over [-a,a], a = max|z_i|, where somebody knows it.
    template <class F>
    static std::optional<double> published_log_kappa(const PointwiseNormalizer<F>& normalizer, RowIn<double> z,
                                                     const RowFacts& facts) {
        if (facts.log_kappa) return facts.log_kappa;
        if constexpr (requires { requires F::extremes_at_ends; }) {
            double a = 0;
            for (const double x : z)
                if (x > -std::numeric_limits<double>::infinity()) a = std::max(a, std::abs(x));
            const std::array<double, 3> ends = {normalizer.template log_value<double>(-a),
                                                normalizer.template log_value<double>(0.0),
                                                normalizer.template log_value<double>(a)};
            const auto [low, high] = std::minmax_element(ends.begin(), ends.end());
            return *high - *low;
        }
        return std::nullopt;
    }

    /// Softmax whose inverse temperature beta depends on the number of visible keys: what holds for softmax at
    /// T = 1/beta, and ssmax.
    template <class N>
    requires LengthScaled<N, double>
    void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowFacts& facts) {
        const double beta = normalizer.inverse_temperature(detail::count_visible<double>(z));
        // beta = 0 (equal weights whatever the logits are) has no temperature.
        if (!(beta >= std::numeric_limits<double>::min() && beta <= std::numeric_limits<double>::max())) return;
        const MeasuredRow& row = meter_(Softmax(1 / beta), z);
        (*this)(audit, row, facts);
        if (row.normal()) audit.add(ssmax_sharp(row.statistics));
    }

    /// Sigmoid attention: sigmoid_gradient.
    void audit_row(Audit& audit, const SigmoidAttention& normalizer, RowIn<double> z, const RowFacts&) {
        if (!weigh(normalizer, z)) return;
        audit.add(sigmoid_gradient_sharp(jacobian_norms(normalizer, z, RowIn<double>(weights_)),
                                         16 * std::numeric_limits<double>::epsilon()));
    }

    /// alpha-entmax: entmax_support, entmax_non_dispersion and spectral_bracket.
    template <class N>
    requires EntmaxLike<N, double>
    void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowFacts&) {
        const EntmaxThreshold<double> threshold = normalizer.template threshold<double>(z);
        if (threshold.support == 0) return;
        audit.add(entmax_support_sharp<double>(z, normalizer.alpha(), threshold.support));

        weigh(normalizer, z);
        const RowOut<double> weights(weights_);
        audit.add(entmax_non_dispersion_sharp<double>(z, normalizer.alpha(), entropy_of_weights(weights_)));
        const double norm = jacobian_norms(normalizer, z, RowIn<double>(weights)).spectral.value;
        normalizer.template slopes<double>(RowIn<double>(weights), weights);
        // The s are the same numbers on both sides: only sums over them are rounded.
        const double error = std::numeric_limits<double>::epsilon() * (8 + static_cast<double>(z.size()) / 2);
        audit.add(spectral_bracket_sharp<double>(RowIn<double>(weights), 1.0, norm, error));
    }

    /// A normaliser whose Jacobian is (I - p 1^T) diag(g): lemma2, with (log F)' = g/p.
    template <class N>
    requires FamilyMember<N, double>
    void audit_row(Audit& audit, const N& normalizer, RowIn<double> z, const RowFacts&) {
        if (!weigh(normalizer, z)) return;
        const RowIn<double> p(weights_);
        moved_.resize(z.size());
        detail::FamilyGradient<N>::template fill<double>(normalizer, z, p, RowOut<double>(moved_));
        double slope = 0, low = std::numeric_limits<double>::infinity(), high = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (!(p[i] > 0)) continue;
            slope = std::max(slope, std::abs(moved_[i]) / p[i]);
            low = std::min(low, p[i]);
            high = std::max(high, p[i]);
        }
        const double error = softmax_weight_error(static_cast<Index>(z.size()), std::log(high / low));
        audit.add(
            lemma2_sharp(jacobian_norms(normalizer, z, p), slope, 2 * error, weight_gradient_limit<double>(p)));
    }

    /// A division of the logits by a temperature: what holds for N at z/T.
    template <class N>
    requires Normalizer<N, double>
    void audit_row(Audit& audit, const MappedNormalizer<Temperature, N>& normalizer, RowIn<double> z,
                   const RowFacts& facts) {
        std::vector<double> divided(z.size());
        normalizer.mapped(z, RowOut<double>(divided));
        RowFacts inner = facts;
        if (inner.delta) *inner.delta /= normalizer.map().temperature;
        (*this)(audit, normalizer.inner(), RowIn<double>(divided), inner);
    }

    RowAuditOptions options_;
    SplitMix64 generator_;
    RowMeter meter_;
    LpNorm<double> lp_norm_;
    std::vector<double> weights_, direction_, moved_;
};

/// Audits one row of any kind, without finite differences: as `RowAuditor`. Widened to double; allocates.
template <class N, RowLike Z>
requires Normalizer<N, double>
void audit_row(Audit& audit, const N& normalizer, const Z& z) {
    const RowHolder<RowScalar<Z>> row(z);
    const std::vector<double> wide(row.get().begin(), row.get().end());
    RowAuditor()(audit, normalizer, RowIn<double>(wide));
}

} // namespace v0_2
} // namespace attnscope
