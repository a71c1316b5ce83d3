// Packets of numbers, for kernels of your own over rows: what a `PacketFunction` and fast normalisers are written with.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/detail/lanes.hpp>

namespace attnscope {
inline namespace v0_2 {

/// The library's own, under one name: `Packet<T>` (some numbers at once, with the operators of one, `madd`, `max`, `min`,
/// `abs`, `sqrt`, `log`, `select_below`, `reduce_add` and so on), loops over rows whose last, partial packet goes through
/// the same code as the others (`for_each_lane`, `sum_lanes`), and elementary functions (`exp_nonpositive` of x <= 0,
/// `expm1` of x <= 64, `tanh`, `log1p_nonpositive` of -1 < x <= 0), each to a few units of the last place.
/// Example, x = tanh(x / 2) of a row:
///     packets::for_each_lane<float>(std::ssize(row), [&](const auto& lane) {
///         const packets::Packet<float> x = lane(row.data());
///         lane.store(row.data(), tanh(0.5F * x));
///     });
namespace packets {

using detail::exp_nonpositive;
using detail::expm1;
using detail::for_each_lane;
using detail::log1p_nonpositive;
using detail::Packet;
using detail::Packets;
using detail::sum_lanes;
using detail::tanh;

} // namespace packets
} // namespace v0_2
} // namespace attnscope
