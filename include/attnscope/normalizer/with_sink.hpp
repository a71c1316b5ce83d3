// Softmax beside a learned sink: a key with a logit and no value, as gpt-oss has one for each head.
#pragma once

#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Softmax at its temperature, with one more key of logit b and no value beside those of the row.
/// Formula. p_i = e^{z_i/T}/(e^{b/T} + sum_j e^{z_j/T}): `temperature(T) | SinkSoftmax::from_logit(b/T)`.
/// Shapes and units. b: a logit before the temperature, as the z are.
/// Special rows. Those of `SinkSoftmax`; b = -inf is a sink without weight.
/// Throws. `invalid_argument` for NaN and +inf, or if b/T is +inf.
/// Example: `with_sink(softcap(50) | Softmax(), 0.7)`
inline MappedNormalizer<Temperature, SinkSoftmax> with_sink(const Softmax& softmax, double logit) {
    const double t = softmax.temperature();
    return temperature(t) | SinkSoftmax::from_logit(logit / t);
}
/// Behind a softcap, which caps the logits of keys and not that of the sink.
template <class N>
auto with_sink(const MappedNormalizer<Softcap, N>& normalizer, double logit)
    -> MappedNormalizer<Softcap, decltype(with_sink(normalizer.inner(), logit))> {
    return {normalizer.map(), with_sink(normalizer.inner(), logit)};
}
/// Behind a temperature, which divides the sink as it divides the keys.
template <class N>
auto with_sink(const MappedNormalizer<Temperature, N>& normalizer, double logit)
    -> MappedNormalizer<Temperature, decltype(with_sink(normalizer.inner(), logit))> {
    return {normalizer.map(), with_sink(normalizer.inner(), logit / normalizer.map().temperature)};
}

/// A normaliser that takes a sink.
template <class N>
concept TakesSink = requires(const N& normalizer) { with_sink(normalizer, 0.0); };

/// Does it take one? What knows only at run time says so by `takes_sink()`.
template <class N>
constexpr bool takes_sink(const N& normalizer) {
    if constexpr (requires { normalizer.takes_sink(); })
        return normalizer.takes_sink();
    else if constexpr (TakesSink<N> && requires { normalizer.inner(); })
        return attnscope::takes_sink(normalizer.inner());
    else
        return TakesSink<N>;
}

} // namespace v0_2
} // namespace attnscope
