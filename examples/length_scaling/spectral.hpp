// The spectral norm of dp/dz on rows of a million keys.
#pragma once

#include <attnscope/runtime/any_normalizer.hpp>

namespace scaling {

/// Aligned for packets: Eigen's sums depend on where a row begins, and results shall not depend on who computes
/// them.
using AlignedRow = std::vector<float, Eigen::aligned_allocator<float>>;

struct SpectralEstimate {
    double value = 0;
    bool exact = true; ///< false: |J v| of the unit vector v that a power iteration found, a lower bound
};

/// By `jacobian_norms` where that is exact in O(n) at a moderate cost a key. Otherwise by power iteration on
/// J^T J from J^T `start`, until it is near a singular pair (residual below 5 %) or has taken 30 steps, O(n)
/// each. `start` should be large where the row's weights are. Against exact norms of shorter rows the result is
/// within 1 %; only stablemax, whose derivative is equally large at half of the keys, is up to 8 % low.
SpectralEstimate spectral_norm(const attnscope::AnyNormalizer& normalizer, std::span<const float> logits,
                               std::span<const float> weights, AlignedRow start);

} // namespace scaling
