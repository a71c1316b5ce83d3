// Packets of 512 bits. Comparisons give masks, which Eigen turns into packets and back; partial packets are loaded and
// stored by masks, where a detour through memory would wait for its own stores.
#pragma once

#include <attnscope/detail/simd/generic.hpp>

#include <array>
#include <bit>

#ifdef EIGEN_VECTORIZE_AVX512
namespace attnscope {
inline namespace v0_2 {
namespace detail {

template <>
struct Instructions<float, 16> : GenericInstructions<float> {
    static constexpr int lookup_entries = 16;
    static __m512 lookup(const float* table, __m512 index) {
        return _mm512_permutexvar_ps(_mm512_castps_si512(index), _mm512_loadu_ps(table));
    }
    static constexpr bool masks_operations = true;
    /// Asked whether x is not below, so that 0 below is part of the operation that gives `otherwise`.
    static __m512 select_below(__m512 x, __m512 limit, __m512 below, __m512 otherwise) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), below, otherwise);
    }
    static __m512 choose(std::uint32_t bits, __m512 x, __m512 y) {
        return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), y, x);
    }
    static bool any_below(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) != 0; }
    static std::uint32_t mask_not_below(__m512 x, __m512 limit) {
        return _mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ);
    }
    /// Put together before they leave the registers of masks.
    static std::uint32_t masks_not_below(__m512 x, __m512 limit, __m512 y, __m512 limit_of_y) {
        return _cvtmask32_u32(_mm512_kunpackw(_mm512_cmp_ps_mask(y, limit_of_y, _CMP_GE_OQ),
                                              _mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ)));
    }
    static Index store_not_below(__m512 x, __m512 limit, float* target) {
        return store_some(_mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ), x, target);
    }
    static Index store_below(__m512 x, __m512 limit, float* target) {
        return store_some(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), x, target);
    }
    static Index store_places_not_below(__m512 x, __m512 limit, std::int32_t first, std::int32_t* target) {
        const __mmask16 mask = _mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ);
        const __m512i places = _mm512_add_epi32(
            _mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        _mm512_storeu_si512(target, _mm512_maskz_compress_epi32(mask, places));
        return std::popcount(static_cast<std::uint32_t>(mask));
    }
    static std::array<float, 4> reduce_add(__m512 a, __m512 b, __m512 c, __m512 d) {
        return reduce(a, b, c, d, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); });
    }
    static std::array<float, 4> reduce_max(__m512 a, __m512 b, __m512 c, __m512 d) {
        return reduce(a, b, c, d, [](__m512 x, __m512 y) { return _mm512_max_ps(x, y); });
    }
    static __m512 load_partial(const float* source, Index count, float fill) {
        return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(count), source);
    }
    static void store_partial(float* target, Index count, __m512 x) {
        _mm512_mask_storeu_ps(target, first(count), x);
    }

private:
    /// Of the elements of each: halves, then quarters, side by side; then pairs. The order of Eigen's sum of one.
    template <class F>
    static std::array<float, 4> reduce(__m512 a, __m512 b, __m512 c, __m512 d, const F& of) {
        const __m512 ab = of(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)),
                     cd = of(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee)),
                     four = of(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd)),
                     two = of(four, _mm512_permute_ps(four, 0x4e)), one = of(two, _mm512_permute_ps(two, 0xb1));
        std::array<float, 16> each;
        _mm512_storeu_ps(each.data(), one);
        return {each[0], each[4], each[8], each[12]};
    }
    static __mmask16 first(Index count) { return static_cast<__mmask16>((1u << count) - 1u); }
    static Index store_some(__mmask16 mask, __m512 x, float* target) {
        // A masked store is slow on some processors.
        _mm512_storeu_ps(target, _mm512_maskz_compress_ps(mask, x));
        return std::popcount(static_cast<std::uint32_t>(mask));
    }
};

template <>
struct Instructions<double, 8> : GenericInstructions<double> {
    static constexpr bool masks_operations = true;
    static __m512d select_below(__m512d x, __m512d limit, __m512d below, __m512d otherwise) {
        return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(x, limit, _CMP_NLT_UQ), below, otherwise);
    }
    static __m512d choose(std::uint32_t bits, __m512d x, __m512d y) {
        return _mm512_mask_blend_pd(static_cast<__mmask8>(bits), y, x);
    }
    static bool any_below(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ) != 0; }
    static std::uint32_t mask_not_below(__m512d x, __m512d limit) {
        return _mm512_cmp_pd_mask(x, limit, _CMP_GE_OQ);
    }
    static Index store_not_below(__m512d x, __m512d limit, double* target) {
        return store_some(_mm512_cmp_pd_mask(x, limit, _CMP_GE_OQ), x, target);
    }
    static Index store_below(__m512d x, __m512d limit, double* target) {
        return store_some(_mm512_cmp_pd_mask(x, limit, _CMP_LT_OQ), x, target);
    }
    static Index store_places_not_below(__m512d x, __m512d limit, std::int64_t first, std::int64_t* target) {
        const __mmask8 mask = _mm512_cmp_pd_mask(x, limit, _CMP_GE_OQ);
        const __m512i places =
            _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
        _mm512_storeu_si512(target, _mm512_maskz_compress_epi64(mask, places));
        return std::popcount(static_cast<std::uint32_t>(mask));
    }
    // Eigen's is a Newton step from an estimate, and NaN of +inf.
    static __m512d sqrt(__m512d x) { return _mm512_sqrt_pd(x); }
    static __m512d load_partial(const double* source, Index count, double fill) {
        return _mm512_mask_loadu_pd(_mm512_set1_pd(fill), first(count), source);
    }
    static void store_partial(double* target, Index count, __m512d x) {
        _mm512_mask_storeu_pd(target, first(count), x);
    }
    static __m512 narrow(__m512d a, __m512d b) {
        return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(_mm512_cvtpd_ps(a))),
                                                   _mm256_castps_pd(_mm512_cvtpd_ps(b)), 1));
    }

private:
    static __mmask8 first(Index count) { return static_cast<__mmask8>((1u << count) - 1u); }
    static Index store_some(__mmask8 mask, __m512d x, double* target) {
        _mm512_storeu_pd(target, _mm512_maskz_compress_pd(mask, x));
        return std::popcount(static_cast<std::uint32_t>(mask));
    }
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
#endif // EIGEN_VECTORIZE_AVX512
