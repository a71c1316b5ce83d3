// Packets of 256 bits. Partial ones are loaded by masks, where a detour through memory would wait for its own stores; masked
// stores are slow on some processors.
#pragma once

#include <attnscope/detail/simd/generic.hpp>

#include <array>
#include <bit>

#ifdef EIGEN_VECTORIZE_AVX
namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// For each mask of up to 8 lanes the numbers of those that are set, ascending, a byte each; zeros behind. `parts`: each lane
/// is so many, and their numbers follow each other.
template <std::size_t lanes, std::size_t parts>
inline constexpr auto set_lanes = [] {
    std::array<std::array<std::uint8_t, 8>, std::size_t(1) << lanes> table{};
    for (std::size_t mask = 0; mask < table.size(); ++mask)
        for (std::size_t lane = 0, at = 0; lane < lanes; ++lane)
            for (std::size_t part = 0; part < parts && (mask >> lane & 1) != 0; ++part)
                table[mask][at++] = static_cast<std::uint8_t>(parts * lane + part);
    return table;
}();

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
    static __m256 load_partial(const float* source, Index count, float fill) {
        const __m256i first = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                                 _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(source, first),
                                _mm256_castsi256_ps(first));
    }
    static Index store_not_below(__m256 x, __m256 limit, float* target) {
        return store_some(mask_not_below(x, limit), x, target);
    }
    static Index store_below(__m256 x, __m256 limit, float* target) {
        return store_some(static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ))),
                          x, target);
    }
    static Index store_places_not_below(__m256 x, __m256 limit, std::int32_t first, std::int32_t* target) {
        const std::uint32_t mask = mask_not_below(x, limit);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                            _mm256_add_epi32(_mm256_set1_epi32(first), lanes_of(mask)));
        return std::popcount(mask);
    }
#endif
    static std::array<float, 4> reduce_add(__m256 a, __m256 b, __m256 c, __m256 d) {
        return reduce(a, b, c, d, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); });
    }
    static std::array<float, 4> reduce_max(__m256 a, __m256 b, __m256 c, __m256 d) {
        return reduce(a, b, c, d, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
    }
    static std::uint32_t mask_not_below(__m256 x, __m256 limit) {
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_GE_OQ)));
    }

private:
    /// Of the elements of each: halves, side by side; then pairs. The order of Eigen's sum of one.
    template <class F>
    static std::array<float, 4> reduce(__m256 a, __m256 b, __m256 c, __m256 d, const F& of) {
        const __m256 ab = of(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)),
                     cd = of(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31)),
                     two = of(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee)),
                     one = of(two, _mm256_permute_ps(two, 0xb1));
        std::array<float, 8> each;
        _mm256_storeu_ps(each.data(), one);
        return {each[0], each[4], each[2], each[6]};
    }
#ifdef __AVX2__
    static __m256i lanes_of(std::uint32_t mask) {
        return _mm256_cvtepu8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(set_lanes<8, 1>[mask].data())));
    }
    static Index store_some(std::uint32_t mask, __m256 x, float* target) {
        _mm256_storeu_ps(target, _mm256_permutevar8x32_ps(x, lanes_of(mask)));
        return std::popcount(mask);
    }
#endif
};

template <>
struct Instructions<double, 4> : GenericInstructions<double> {
#ifdef __AVX2__
    static __m256d choose(std::uint32_t bits, __m256d x, __m256d y) {
        const __m256i own = _mm256_setr_epi64x(1, 2, 4, 8),
                      set = _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(bits)), own);
        return _mm256_blendv_pd(y, x, _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, own)));
    }
    static __m256d load_partial(const double* source, Index count, double fill) {
        const __m256i first = _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
        return _mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(source, first),
                                _mm256_castsi256_pd(first));
    }
    static Index store_not_below(__m256d x, __m256d limit, double* target) {
        return store_some(mask_not_below(x, limit), x, target);
    }
    static Index store_below(__m256d x, __m256d limit, double* target) {
        return store_some(static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(x, limit, _CMP_LT_OQ))),
                          x, target);
    }
    static Index store_places_not_below(__m256d x, __m256d limit, std::int64_t first, std::int64_t* target) {
        const std::uint32_t mask = mask_not_below(x, limit);
        const __m256i lanes = _mm256_cvtepu8_epi64(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(set_lanes<4, 1>[mask].data())));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                            _mm256_add_epi64(_mm256_set1_epi64x(first), lanes));
        return std::popcount(mask);
    }
#endif
    static std::uint32_t mask_not_below(__m256d x, __m256d limit) {
        return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(x, limit, _CMP_GE_OQ)));
    }
    static __m256 narrow(__m256d a, __m256d b) {
        return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a)), _mm256_cvtpd_ps(b), 1);
    }

#ifdef __AVX2__
private:
    static Index store_some(std::uint32_t mask, __m256d x, double* target) {
        const __m256i halves = _mm256_cvtepu8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(set_lanes<4, 2>[mask].data())));
        _mm256_storeu_pd(target, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(x), halves)));
        return std::popcount(mask);
    }
#endif
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
#endif // EIGEN_VECTORIZE_AVX
