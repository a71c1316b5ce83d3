// Softmax behind softcaps and temperatures: the logits that it sees, and beside a learned sink, a key with a logit and no
// value, as gpt-oss has one for each head.
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

/// The logits that softmax sees behind softcaps and temperatures, and the logit of a sink among them.
/// Formula. weights(normalizer, z) = weights(Softmax(), softmax_logits(z)); beside a sink of logit b, as `with_sink` has it,
/// those of the keys in weights(Softmax(), {softmax_logits(z), softmax_sink_logit(b)}).
/// Shapes and units. out as z, or z itself.
/// Special rows. Every logit by itself: -inf stays -inf, a quotient that overflows is +inf, NaN stays NaN.
/// Cost. O(n), no allocation.
/// Example: `softmax_logits(softcap(50) | Softmax(), RowIn<double>(z), RowOut<double>(capped))`
template <Real T>
void softmax_logits(const Softmax& softmax, RowIn<T> z, RowOut<T> out) {
    Temperature{softmax.temperature()}.apply<T>(z, out);
}
/// Of a map in front: those of N at f(z).
template <class Map, class N, Real T>
void softmax_logits(const MappedNormalizer<Map, N>& normalizer, RowIn<T> z, RowOut<T> out)
requires requires { softmax_logits(normalizer.inner(), RowIn<T>(out), out); }
{
    normalizer.map().template apply<T>(z, out);
    softmax_logits(normalizer.inner(), RowIn<T>(out), out);
}
/// See `softmax_logits`.
inline double softmax_sink_logit(const Softmax& softmax, double logit) { return logit / softmax.temperature(); }
/// A softcap does not cap a sink.
template <class N>
double softmax_sink_logit(const MappedNormalizer<Softcap, N>& normalizer, double logit) {
    return softmax_sink_logit(normalizer.inner(), logit);
}
/// A temperature divides a sink as it divides the keys.
template <class N>
double softmax_sink_logit(const MappedNormalizer<Temperature, N>& normalizer, double logit) {
    return softmax_sink_logit(normalizer.inner(), logit / normalizer.map().temperature);
}

/// A normaliser that takes a sink.
template <class N>
concept TakesSink = requires(const N& normalizer, RowIn<double> z, RowOut<double> out) {
    with_sink(normalizer, 0.0);
    softmax_logits(normalizer, z, out);
    softmax_sink_logit(normalizer, 0.0);
};

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
