// By how much the weights of a head that makes its logits too large must shrink.
#pragma once

#include <attnscope/types.hpp>

#include <cmath>

namespace attnscope {
inline namespace v0_2 {

/// The factor gamma of QK-clip, by which the logits of a head shrink after a step of training: its query weights by
/// gamma^a and its key weights by gamma^{1-a}, a = 1/2.
/// Formula. min(1, tau/max_logit), 1 for max_logit <= tau.
/// Shapes and units. max_logit: the largest logit scale q.k of the head; tau: the most it may be (100 in the source).
/// Special rows. NaN gives NaN, +inf gives 0.
/// Cost. O(1).
/// Throws. `invalid_argument` unless tau > 0 and finite.
/// Source. Kimi K2, arXiv:2507.20534.
inline double qk_clip_factor(double max_logit, double tau = 100) {
    detail::require(tau > 0 && std::isfinite(tau), "qk_clip_factor", "tau must be > 0 and finite", tau);
    return max_logit <= tau ? 1.0 : tau / max_logit;
}

} // namespace v0_2
} // namespace attnscope
