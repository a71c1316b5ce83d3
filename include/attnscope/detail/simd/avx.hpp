// Packets of 256 bits.
#pragma once

#include <attnscope/detail/simd/generic.hpp>

#ifdef EIGEN_VECTORIZE_AVX
namespace attnscope {
inline namespace v0_2 {
namespace detail {

template <>
struct Instructions<float, 8> : GenericInstructions<float> {
    static std::uint32_t mask_not_below(__m256 x, __m256 limit) {
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_GE_OQ)));
    }
};

template <>
struct Instructions<double, 4> : GenericInstructions<double> {
    static std::uint32_t mask_not_below(__m256d x, __m256d limit) {
        return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(x, limit, _CMP_GE_OQ)));
    }
    static __m256 narrow(__m256d a, __m256d b) {
        return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a)), _mm256_cvtpd_ps(b), 1);
    }
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
#endif // EIGEN_VECTORIZE_AVX
