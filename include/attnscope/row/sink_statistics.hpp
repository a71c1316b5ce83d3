// The figures of a softmax row beside a sink, from the sums over its keys.
#pragma once

#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A row beside a sink, a key of logit b without value: what `RowStatistics` tells of the keys, with the sink in the
/// denominator. The sink is added once, here, when the sums over all keys are known: pieces of a row and their merges
/// (`RowState`) are about keys only.
/// Formula. With Z = sum e^{z/T} over the keys, s = e^{b/T}/(e^{b/T} + Z): the weights of the keys are those of softmax
/// times 1 - s. H(keys and sink) = (1 - s) H(keys) - (1 - s) log(1 - s) - s log s, terms of one sign, so that no digits
/// are lost. The entropy and the participation ratio of the keys alone are those of `keys()`.
/// Shapes and units. b and z are logits before the temperature of the statistics.
/// Special rows. Where no key is visible, or all vanish beside the sink, the status is `empty` and s = 1. Beside a key at
/// +inf s = 0, and a NaN row has NaN. b = -inf: s = 0, and every figure has the bits of that of the keys.
/// Cost. O(1).
/// Throws. `invalid_argument` if b is NaN or +inf.
/// Example: `SinkStatistics(state.statistics(), 0.7).sink_mass()`
template <Real A>
class SinkStatistics {
public:
    SinkStatistics(const RowStatistics<A>& keys, double logit) : keys_(keys) {
        detail::require(logit < std::numeric_limits<double>::infinity(), "SinkStatistics",
                        "the sink logit must be finite or -inf", logit);
        exponent_ = static_cast<A>(logit) / A(keys.temperature);
        if (!has_sink() || !keys_.normal()) return;
        // How far the sink lies above the log-sum-exp of the keys; only differences of logits enter.
        const A above = detail::temperatures_apart(static_cast<A>(logit), keys.max_logit, A(keys.temperature)) -
                        std::log1p(keys.r);
        const A other = std::exp(-std::abs(above)); // of the smaller of the two over the larger
        const A larger = 1 / (1 + other), smaller = other / (1 + other);
        sink_ = above > 0 ? larger : smaller;
        rest_ = above > 0 ? smaller : larger;
        const A log_larger = -std::log1p(other);
        between_ = -larger * log_larger - (smaller > 0 ? smaller * (log_larger - std::abs(above)) : A(0));
        if (rest_ < std::numeric_limits<A>::min()) sink_ = 1, rest_ = between_ = 0;
    }

    const RowStatistics<A>& keys() const { return keys_; }
    RowStatus status() const { return keys_.normal() && rest_ == A(0) ? RowStatus::empty : keys_.status; }
    bool normal() const { return status() == RowStatus::normal; }

    /// Weight of the sink, to full relative accuracy.
    A sink_mass() const {
        switch (keys_.status) {
        case RowStatus::normal:
            return sink_;
        case RowStatus::empty:
            return A(has_sink());
        case RowStatus::infinite:
            return A(0);
        default:
            return nan();
        }
    }
    /// 1 - `sink_mass()`, the weight of all keys, to full relative accuracy.
    A key_mass() const {
        if (keys_.normal()) return rest_;
        return keys_.status == RowStatus::nan ? nan() : A(keys_.status == RowStatus::infinite);
    }
    /// log(e^{b/T} + Z)
    A log_sum_exp() const {
        const A keys = keys_.log_sum_exp();
        if (!has_sink() || keys != keys || keys == std::numeric_limits<A>::infinity()) return keys;
        if (keys == -std::numeric_limits<A>::infinity()) return exponent_;
        const A high = std::max(keys, exponent_), low = std::min(keys, exponent_);
        return high + std::log1p(std::exp(low - high));
    }
    A max_weight() const { return figure(keys_.max_weight() * rest_); }
    /// 0 where only one key is visible.
    A second_weight() const { return figure(keys_.second_weight() * rest_); }
    /// Weight of a key of the row by its logit: see `RowStatistics::weight_of`.
    A weight_of(A logit) const { return figure(keys_.weight_of(logit) * rest_); }
    /// Entropy of keys and sink together, in nats; 0 where all is on the sink.
    A entropy_with_sink_nats() const {
        if (status() == RowStatus::empty && has_sink()) return A(0);
        return figure(rest_ * keys_.entropy_nats() + between_);
    }

private:
    static constexpr A nan() { return std::numeric_limits<A>::quiet_NaN(); }
    bool has_sink() const { return exponent_ > -std::numeric_limits<A>::infinity(); }
    A figure(A x) const { return normal() ? x : nan(); }

    RowStatistics<A> keys_;
    A exponent_ = 0;                      ///< b/T
    A sink_ = 0, rest_ = 1, between_ = 0; ///< s, 1 - s, -s log s - (1 - s) log(1 - s)
};

} // namespace v0_2
} // namespace attnscope
