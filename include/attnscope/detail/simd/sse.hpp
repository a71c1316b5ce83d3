// Packets of 128 bits.
#pragma once

#include <attnscope/detail/simd/generic.hpp>

#ifdef EIGEN_VECTORIZE_SSE2
namespace attnscope {
inline namespace v0_2 {
namespace detail {

template <>
struct Instructions<float, 4> : GenericInstructions<float> {
    static std::uint32_t mask_not_below(__m128 x, __m128 limit) {
        return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_cmpge_ps(x, limit)));
    }
};

template <>
struct Instructions<double, 2> : GenericInstructions<double> {
    static std::uint32_t mask_not_below(__m128d x, __m128d limit) {
        return static_cast<std::uint32_t>(_mm_movemask_pd(_mm_cmpge_pd(x, limit)));
    }
    static __m128 narrow(__m128d a, __m128d b) { return _mm_movelh_ps(_mm_cvtpd_ps(a), _mm_cvtpd_ps(b)); }
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
#endif // EIGEN_VECTORIZE_SSE2
