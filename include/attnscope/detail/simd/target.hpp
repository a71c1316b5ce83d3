// What the instruction sets of this build do. They are told by Eigen's macros: without its packets there are no intrinsics.
#pragma once

#include <attnscope/detail/simd/avx.hpp>
#include <attnscope/detail/simd/avx512.hpp>
#include <attnscope/detail/simd/generic.hpp>
#include <attnscope/detail/simd/sse.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// How many packets are worked on side by side: one after the other, each waits for its own chain of
/// operations, which fills the processor's scheduler. With 16 registers more than one is slower.
#if defined(EIGEN_VECTORIZE_AVX512)
inline constexpr int group_packets = 4;
#else
inline constexpr int group_packets = 1;
#endif

/// Rows and packets of columns that a product sums at once: as many as the registers hold.
#if defined(EIGEN_VECTORIZE_AVX512) || defined(EIGEN_VECTORIZE_NEON)
inline constexpr int product_rows = 8, product_packets = 3;
#else
inline constexpr int product_rows = 4, product_packets = 3;
#endif

/// Whether `madd` of packets rounds once.
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
inline constexpr bool madd_is_fused = true;
#else
inline constexpr bool madd_is_fused = false;
#endif

} // namespace detail
} // namespace v0_2
} // namespace attnscope
