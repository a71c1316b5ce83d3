// Holds the certificates beyond the paper against one softmax row, one selection or one head.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/audit/measured_row.hpp>
#include <attnscope/concentration/box_bounds.hpp>
#include <attnscope/concentration/critical_temperature.hpp>
#include <attnscope/concentration/gap_counting.hpp>
#include <attnscope/concentration/log_n_phase.hpp>
#include <attnscope/concentration/score_deficit.hpp>
#include <attnscope/concentration/sink_necessity.hpp>
#include <attnscope/concentration/sinks.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/selection/missed_tokens.hpp>
#include <attnscope/selection/top_n.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>
#include <attnscope/sensitivity/rank_collapse.hpp>

namespace attnscope {
inline namespace v0_2 {

/// How far a `CertificateAuditor` moves the logits.
struct CertificateOptions {
    double least_change = 1e-3,
           most_change = 10; ///< size of a drawn box or logit error, in units of the temperature
};

/// Holds the certificates about softmax rows against them: critical_temperature, gap_counting, log_n_phase and
/// score_deficit on the row itself, box on a random box around it, perturbation_tv, _kl, _output, _gap, _mean_kl and
/// _mean_tv on a random logit error. Sizes are drawn, evenly in their logarithm, so that boxes and errors are now
/// narrow, now wide.
/// Special rows. What is not normal is not counted.
/// Cost. O(n log n + n d); memory is kept from row to row.
/// Example:
///     Audit audit;
///     RowMeter meter;
///     CertificateAuditor auditor;
///     auditor(audit, meter(Softmax(), z)); // z: a row of logits in double
class CertificateAuditor {
public:
    /// seed: of boxes and errors.
    /// Throws. `invalid_argument` unless 0 < least_change <= most_change, finite.
    explicit CertificateAuditor(const CertificateOptions& options = {}, std::uint64_t seed = 2)
        : options_(options), generator_(seed) {
        detail::require(options.least_change > 0 && options.least_change <= options.most_change &&
                            std::isfinite(options.most_change),
                        "CertificateAuditor", "changes must be > 0 and finite, least_change the smaller",
                        options.least_change, options.most_change);
    }

    /// The draws of the rows to come are those of a new auditor with this seed.
    void reseed(std::uint64_t seed) { generator_ = SplitMix64(seed); }

    /// values: one row for each key, or none (perturbation_output is then left out); diameter: an upper bound on
    /// that of the visible ones.
    void operator()(Audit& audit, const MeasuredRow& row, MatrixView<double> values = {}, double diameter = 0) {
        if (!row.normal()) return;
        seen_.clear();
        for (const double x : row.z)
            if (x > -infinity) seen_.push_back(x);
        ranking_.rank(seen_);
        visible_.clear();
        for (const Index key : ranking_.order()) visible_.push_back(detail::at(seen_, key));
        audit.add(critical_temperature_sharp(
            row.statistics, critical_inverse_temperature<double>(visible_, row.statistics.visible), visible_));
        audit.add(gap_counting_sharp(row.statistics, visible_, counted_gaps));
        audit.add(log_n_phase_sharp(row.statistics, visible_));
        audit.add(score_deficit_sharp(row.statistics));
        for (auto* part : {&moved_, &lower_, &upper_, &least_, &greatest_}) part->resize(row.z.size());
        check_box(audit, row);
        check_error(audit, row, values, diameter);
    }

private:
    static constexpr double infinity = std::numeric_limits<double>::infinity();

    double drawn_size(double temperature) {
        const double decades = std::log10(options_.most_change / options_.least_change);
        return std::min(temperature * options_.least_change * std::pow(10.0, decades * generator_.uniform()),
                        std::numeric_limits<double>::max() / 16);
    }

    void check_box(Audit& audit, const MeasuredRow& row) {
        const double width = drawn_size(row.temperature());
        for (std::size_t i = 0; i < row.z.size(); ++i) {
            lower_[i] = row.z[i] - width * generator_.uniform();
            upper_[i] = row.z[i] + width * generator_.uniform();
        }
        box_weight_ranges<double>(RowIn<double>(lower_), RowIn<double>(upper_), row.temperature(),
                                  RowOut<double>(least_), RowOut<double>(greatest_));
        audit.add(box_sharp<double>(row.p, RowIn<double>(least_), RowIn<double>(greatest_), row.weight_error(),
                                    row.exponent_spread() + 2 * width / row.temperature()));
    }

    void check_error(Audit& audit, const MeasuredRow& row, MatrixView<double> values, double diameter) {
        const double temperature = row.temperature(), error = drawn_size(temperature) / temperature;
        const double farthest = std::numeric_limits<double>::lowest() / 16;
        double largest = 0;
        for (std::size_t i = 0; i < row.z.size(); ++i) {
            // The rows at temperature 1 are (z - max z)/T as rounded, inside the finite numbers where z is, and
            // that plus an error.
            lower_[i] = (row.z[i] - row.statistics.max_logit) / temperature;
            if (row.z[i] > -infinity) lower_[i] = std::max(lower_[i], farthest);
            moved_[i] = lower_[i] + error * generator_.bell();
            if (row.z[i] > -infinity) largest = std::max(largest, std::abs(moved_[i] - lower_[i]));
        }
        const auto measured =
            measure_perturbation(RowIn<double>(lower_), RowIn<double>(moved_), values, diameter);
        const auto rounding =
            perturbation_error<double>(row.statistics.visible, row.exponent_spread(), largest);
        audit.add(perturbation_tv_sharp(measured, rounding));
        audit.add(perturbation_kl_sharp(measured, rounding));
        if (values.data() != nullptr) audit.add(perturbation_output_sharp(measured, rounding));
        audit.add(perturbation_gap_sharp(measured, rounding));

        // The same size in every key, up or down by chance, and the opposite.
        std::uint64_t signs = 0;
        for (std::size_t i = 0; i < moved_.size(); ++i, signs >>= 1) {
            if (i % 64 == 0) signs = generator_();
            moved_[i] = signs & 1 ? error : -error;
        }
        const auto mean = mean_perturbation(RowIn<double>(lower_), RowIn<double>(moved_));
        const auto own = perturbation_error<double>(row.statistics.visible, row.exponent_spread(), error);
        audit.add(perturbation_mean_kl_sharp(mean, own));
        audit.add(perturbation_mean_tv_sharp(mean, own));
    }

    CertificateOptions options_;
    SplitMix64 generator_;
    Ranking<double> ranking_;
    std::vector<double> seen_,
        visible_; ///< logits of the row that are not masked, and these in descending order
    std::vector<double> moved_, lower_, upper_, least_, greatest_;
};

/// Audits missed_tokens for one selection.
/// Shapes and units. The useful tokens are the first N of the ranking `merit`, the selected ones the first N
/// of `order`.
/// Cost. O(n), allocates n bits.
/// Throws. `invalid_argument` unless 0 <= N <= n and order is a ranking.
inline void audit_missed_tokens(Audit& audit, std::span<const Index> order, std::span<const Index> merit,
                                Index count) {
    const Index n = static_cast<Index>(merit.size());
    detail::require(count >= 0 && count <= n, "audit_missed_tokens", "count must be in [0, tokens]", count, n);
    std::vector<bool> useful(merit.size(), false);
    for (Index i = 0; i < count; ++i) detail::at(useful, detail::at(merit, i)) = true;
    Index missed = count;
    for (Index i = 0; i < count; ++i) missed -= detail::at(useful, detail::at(order, i)) ? 1 : 0;
    audit.add(missed_tokens_sharp(count_inversions(order, useful), count, missed));
}

/// Audits rank_collapse and dobrushin of one softmax head. Queries that see no key are left out; a head with
/// fewer than two others has nothing to compare. Not for logits with NaN or +inf.
/// Shapes and units. Logits z/T [queries, keys] (-inf where masked), values [keys, d]; diameter: of the
/// values, where it is known.
/// Cost. O(queries^2 keys + keys^2 d), memory O(queries keys).
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T>
void audit_rank_collapse(Audit& audit, MatrixView<T> logits, MatrixView<T> values,
                         std::optional<double> diameter = {}) {
    const Index keys = logits.cols();
    detail::require(values.rows() == keys, "audit_rank_collapse", "values must have one row for each key",
                    values.rows(), keys);
    Matrix<double> z(logits.rows(), keys), p(logits.rows(), keys);
    const Matrix<double> v = values.map().template cast<double>();
    Index rows = 0;
    double spread = 0;
    for (Index i = 0; i < logits.rows(); ++i) {
        z.row(rows) = logits.map().row(i).template cast<double>();
        const RowIn<double> row = MatrixView<double>(z).row(rows);
        const RowStatistics<double> statistics = row_statistics<double>(row);
        if (!statistics.normal()) continue;
        spread = std::max(spread, statistics.logit_spread());
        Softmax{}.apply<double>(row, RowOut<double>(p.row(rows).data(), row.size()));
        ++rows;
    }
    if (rows < 2) return;
    const MatrixView<double> used(z.data(), rows, keys), weights(p.data(), rows, keys);
    const double delta = dobrushin_coefficient(weights);
    const double weight_error = softmax_weight_error(keys, spread);
    audit.add(dobrushin_sharp(delta, dobrushin_limit(used, weights), weight_error));
    const Matrix<double> mixed = weights.map() * v;
    const double length = v.rowwise().norm().maxCoeff();
    audit.add(rank_collapse_sharp(token_diameter(MatrixView<double>(mixed)), delta,
                                  diameter ? *diameter : token_diameter(MatrixView<double>(v)),
                                  length * (1 + spread / 8), keys));
}

/// Audits sink_necessity of one softmax head on its sinks: the keys whose mean weight over the queries that see them,
/// a quarter of all at least, is above `sink_threshold`.
/// Shapes and units. logits z/T [queries, keys] (-inf where masked), values [keys, d].
/// Special rows. Not for logits with NaN or +inf. Queries that see no key are left out; a head without sinks has
/// nothing to ask.
/// Cost. O(queries keys), and with sinks that of `forced_sinks`.
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T>
ForcedSinks audit_sinks(Audit& audit, MatrixView<T> logits, MatrixView<T> values) {
    const Index keys = logits.cols();
    detail::require(values.rows() == keys, "audit_sinks", "values must have one row for each key",
                    values.rows(), keys);
    Matrix<double> p(logits.rows(), keys);
    Row<double> z(keys), mass = Row<double>::Zero(keys), seen = Row<double>::Zero(keys);
    for (Index i = 0; i < logits.rows(); ++i) {
        z = logits.map().row(i).template cast<double>();
        const RowOut<double> row(p.row(i).data(), static_cast<std::size_t>(keys));
        Softmax{}.apply<double>(RowIn<double>(z.data(), row.size()), row);
        mass += p.row(i).array();
        seen += (z > -std::numeric_limits<double>::infinity()).cast<double>();
    }
    const double quarter = static_cast<double>(logits.rows()) / 4;
    const Row<double> mean = (seen >= quarter).select(mass / seen.max(1), 0);
    return forced_sinks(
        MatrixView<double>(p), values, sinks(mean),
        [&](const SinkHeights<double>& row, Index visible) { audit.add(sink_necessity_sharp(row, visible)); });
}

#ifdef ATTNSCOPE_PRECOMPILED
extern template void audit_rank_collapse(Audit&, MatrixView<double>, MatrixView<double>, std::optional<double>);
extern template ForcedSinks audit_sinks(Audit&, MatrixView<double>, MatrixView<double>);
#endif

} // namespace v0_2
} // namespace attnscope
