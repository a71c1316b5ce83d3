// Holds the certificates beyond the paper against one softmax row, one selection or one head.
#pragma once

#include <attnscope/audit/row.hpp>
#include <attnscope/concentration/box_bounds.hpp>
#include <attnscope/concentration/critical_temperature.hpp>
#include <attnscope/concentration/score_deficit.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/selection/missed_tokens.hpp>
#include <attnscope/selection/top_n.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>
#include <attnscope/sensitivity/rank_collapse.hpp>

namespace attnscope {
inline namespace v0_1 {

/// Scratch rows of `audit_certificates`, so that many rows need little allocation.
struct CertificateScratch {
    std::vector<double> visible, moved, lower, upper, least, greatest, weights;
};

/// Audits one row of softmax(z/T): critical_temperature and score_deficit on the row itself, box on a random
/// box around it, perturbation_tv, _kl, _output and _gap on a random logit error whose size is drawn from 1e-3
/// to 10. values: one row for each key, or none; diameter: an upper bound on that of the visible ones. Rows
/// that are not normal are not counted. `generator` gives box and error. O(n log n + n d).
inline void audit_certificates(Audit& audit, RowIn<double> z, double temperature, SplitMix64& generator,
                               CertificateScratch& scratch, MatrixView<double> values = {},
                               double diameter = 0) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const RowStatistics<double> row = row_statistics<double>(z, temperature);
    if (!row.normal()) return;
    const std::size_t n = z.size();
    scratch.visible.clear();
    for (const double x : z)
        if (x > -infinity) scratch.visible.push_back(x);
    std::sort(scratch.visible.begin(), scratch.visible.end(), std::greater<>());
    audit.add(
        critical_temperature_sharp(row, critical_inverse_temperature<double>(scratch.visible, row.visible)));
    audit.add(score_deficit_sharp(row));

    // Drawn sizes, so that boxes and errors are now narrow, now wide.
    const auto size = [&] {
        return std::min(temperature * std::pow(10.0, 4 * generator.uniform() - 3),
                        std::numeric_limits<double>::max() / 16);
    };
    const double width = size();
    for (auto* part :
         {&scratch.moved, &scratch.lower, &scratch.upper, &scratch.least, &scratch.greatest, &scratch.weights})
        part->resize(n);
    for (std::size_t i = 0; i < n; ++i) {
        scratch.lower[i] = z[i] - width * generator.uniform();
        scratch.upper[i] = z[i] + width * generator.uniform();
    }
    box_weight_ranges<double>(RowIn<double>(scratch.lower), RowIn<double>(scratch.upper), temperature,
                              RowOut<double>(scratch.least), RowOut<double>(scratch.greatest));
    Softmax(temperature).apply<double>(z, RowOut<double>(scratch.weights));
    // Weights of 0 by underflow have infinite relative error and no influence: the spread is cut there.
    const double spread = std::min(row.logit_spread() / temperature, -detail::exp_cutoff<double>());
    const double weight_error = detail::softmax_weight_error(row.visible, spread);
    audit.add(box_sharp<double>(RowIn<double>(scratch.weights), RowIn<double>(scratch.least),
                                RowIn<double>(scratch.greatest), weight_error,
                                spread + 2 * width / temperature));

    const double error = size(), farthest = std::numeric_limits<double>::lowest() / 16;
    double largest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        // The rows at temperature 1 are (z - max z)/T as rounded, inside the finite numbers where z is, and
        // that plus an error.
        scratch.lower[i] = (z[i] - row.max_logit) / temperature;
        if (z[i] > -infinity) scratch.lower[i] = std::max(scratch.lower[i], farthest);
        scratch.moved[i] = scratch.lower[i] + error / temperature * generator.normal();
        if (z[i] > -infinity) largest = std::max(largest, std::abs(scratch.moved[i] - scratch.lower[i]));
    }
    const auto measured =
        measure_perturbation(RowIn<double>(scratch.lower), RowIn<double>(scratch.moved), values, diameter);
    const auto rounding = perturbation_error<double>(row.visible, spread, largest);
    audit.add(perturbation_tv_sharp(measured, rounding));
    audit.add(perturbation_kl_sharp(measured, rounding));
    if (values.data() != nullptr) audit.add(perturbation_output_sharp(measured, rounding));
    audit.add(perturbation_gap_sharp(measured, rounding));
}

/// Audits missed_tokens for one selection: the useful tokens are the N with the highest `merit` (ties by
/// smaller index), the ranking is `order`. O(n log n). Throws `invalid_argument` unless 0 <= N <= n and order
/// is a ranking.
template <Real T>
void audit_missed_tokens(Audit& audit, std::span<const Index> order, RowIn<T> merit, Index count) {
    const Index n = detail::size<T>(merit);
    detail::require(count >= 0 && count <= n, "audit_missed_tokens", "count must be in [0, tokens]", count, n);
    Ranking<T> ranking;
    ranking.rank(merit);
    std::vector<bool> useful(merit.size(), false);
    for (Index i = 0; i < count; ++i)
        useful[static_cast<std::size_t>(ranking.order()[static_cast<std::size_t>(i)])] = true;
    Index missed = count;
    for (Index i = 0; i < count; ++i)
        missed -= useful[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] ? 1 : 0;
    audit.add(missed_tokens_sharp(count_inversions(order, useful), count, missed));
}

/// Audits rank_collapse and dobrushin of one softmax head: logits z/T [queries, keys] (-inf where masked) and
/// its values [keys, d]. Queries that see no key are left out; a head with fewer than two others has nothing to
/// compare. Not for logits with NaN or +inf. O(queries^2 keys + keys^2 d). Throws `invalid_argument` when
/// shapes do not fit.
inline void audit_rank_collapse(Audit& audit, MatrixView<double> logits, MatrixView<double> values) {
    const Index keys = logits.cols();
    detail::require(values.rows() == keys, "audit_rank_collapse", "values must have one row for each key",
                    values.rows(), keys);
    Matrix<double> z(logits.rows(), keys), p(logits.rows(), keys);
    Index rows = 0;
    double spread = 0;
    for (Index i = 0; i < logits.rows(); ++i) {
        const RowStatistics<double> row = row_statistics<double>(logits.row(i));
        if (!row.normal()) continue;
        spread = std::max(spread, row.logit_spread());
        z.row(rows) = logits.map().row(i);
        Softmax{}.apply<double>(logits.row(i),
                                RowOut<double>(p.data() + rows * keys, static_cast<std::size_t>(keys)));
        ++rows;
    }
    if (rows < 2) return;
    const MatrixView<double> used(z.data(), rows, keys), weights(p.data(), rows, keys);
    const double delta = dobrushin_coefficient(weights);
    const double weight_error = detail::softmax_weight_error(keys, spread);
    audit.add(dobrushin_sharp(delta, dobrushin_limit(used), weight_error));
    const Matrix<double> mixed = weights.map() * values.map();
    const double length = values.map().rowwise().norm().maxCoeff();
    audit.add(rank_collapse_sharp(token_diameter(MatrixView<double>(mixed)), delta, token_diameter(values),
                                  length * (1 + spread / 8), keys));
}

} // namespace v0_1
} // namespace attnscope
