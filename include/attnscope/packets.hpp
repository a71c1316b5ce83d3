// Packets of numbers, for kernels of your own over rows: what a `PacketFunction` and fast normalisers are written with.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/detail/lanes.hpp>

namespace attnscope {
inline namespace v0_1 {

/// The library's own, under one name: `Simd<T>` (a packet P, its size, arithmetic, comparisons), loops over rows whose
/// last, partial packet goes through the same code as the others (`for_each_lane`, `sum_lanes`), and elementary
/// functions (`exp_nonpositive` of x <= 0, `expm1` of x <= 64, `tanh`, `log1p_nonpositive` of -1 < x <= 0), each to
/// a few units of the last place.
/// Example, x = tanh(x / 2) of a row:
///     using S = packets::Simd<float>;
///     packets::for_each_lane<float>(std::ssize(row), [&](const auto& lane) {
///         lane.store(row.data(), packets::tanh<float>(S::mul(lane(row.data()), S::set(0.5F))));
///     });
namespace packets {

using detail::exp_nonpositive;
using detail::expm1;
using detail::for_each_lane;
using detail::log1p_nonpositive;
using detail::Packets;
using detail::Simd;
using detail::sum_lanes;
using detail::tanh;

} // namespace packets
} // namespace v0_1
} // namespace attnscope
