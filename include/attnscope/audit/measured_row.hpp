// One softmax row, measured once: what everything that is asked about it is computed from.
#pragma once

#include <attnscope/row/row_statistics.hpp>
#include <attnscope/sensitivity/softmax_norms.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Forward error of softmax weights, relative: of n keys whose exponents z/T spread over x, each rounded
/// three times. O(1).
inline double softmax_weight_error(Index n, double x) {
    const double unit = std::numeric_limits<double>::epsilon() / 2, count = static_cast<double>(n);
    return unit * (3 * x + 12 + std::min(count, 64.0) + count / 64);
}

/// One row of softmax(z/T): logits, weights, sums and Jacobian norms; a `RowMeter` makes it.
/// Invariant. Borrowed: valid until what it was measured with measures another.
struct MeasuredRow {
    RowIn<double> z;                  ///< logits, before the temperature
    RowIn<double> p;                  ///< weights
    RowStatistics<double> statistics; ///< at the temperature; its status is the row's
    JacobianNorms<double> norms;      ///< of dp/dz, 1/T included; NaN for rows that are not normal

    double temperature() const { return statistics.temperature; }
    bool normal() const { return statistics.normal(); }
    /// (max z - min z)/T, cut where weights underflow: a weight of 0 has infinite relative error and no influence.
    double exponent_spread() const {
        return std::min(statistics.logit_spread() / temperature(), -detail::exp_cutoff<double>());
    }
    /// How exactly `p` is known: `softmax_weight_error`.
    double weight_error() const { return softmax_weight_error(statistics.visible, exponent_spread()); }
};

/// Measures rows one after the other, in memory of its own.
/// Example:
///     RowMeter meter;
///     const MeasuredRow& row = meter(Softmax(0.5), z); // z: a row of logits in double, which must outlive it
///     const double entropy = row.statistics.entropy_nats(), norm = row.norms.spectral.value;
class RowMeter {
public:
    /// z must outlive the result.
    /// Cost. O(n), no allocation once rows of this length have been seen.
    const MeasuredRow& operator()(const Softmax& softmax, RowIn<double> z) {
        if (weights_.size() < z.size()) weights_.resize(z.size());
        const RowOut<double> weights(weights_.data(), z.size());
        row_.z = z;
        row_.p = weights;
        row_.statistics = row_statistics<double>(z, softmax.temperature());
        softmax.apply<double>(z, weights);
        row_.norms = row_.normal() ? jacobian_norms(softmax, z, row_.p) : JacobianNorms<double>{};
        return row_;
    }

private:
    MeasuredRow row_;
    std::vector<double> weights_;
};

} // namespace v0_2
} // namespace attnscope
