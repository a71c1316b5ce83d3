// Packets of 256 bits.
#pragma once

#include <attnscope/detail/simd/generic.hpp>

#ifdef EIGEN_VECTORIZE_AVX
namespace attnscope {
inline namespace v0_2 {
namespace detail {

template <>
struct Instructions<float, 8> : GenericInstructions<float> {
#ifdef __AVX2__
    static constexpr int lookup_entries = 8;
    static __m256 lookup(const float* table, __m256 index) {
        return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), _mm256_castps_si256(index));
    }
    static __m256 choose(std::uint32_t bits, __m256 x, __m256 y) {
        const __m256i own = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128),
                      set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), own);
        return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, own)));
    }
#endif
    static std::uint32_t mask_not_below(__m256 x, __m256 limit) {
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_GE_OQ)));
    }
};

template <>
struct Instructions<double, 4> : GenericInstructions<double> {
#ifdef __AVX2__
    static __m256d choose(std::uint32_t bits, __m256d x, __m256d y) {
        const __m256i own = _mm256_setr_epi64x(1, 2, 4, 8),
                      set = _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(bits)), own);
        return _mm256_blendv_pd(y, x, _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, own)));
    }
#endif
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
