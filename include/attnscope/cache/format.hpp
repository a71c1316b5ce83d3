// The formats in which engines store keys and values, and what becomes of numbers in them.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/cache/hadamard.hpp>

#include <array>
#include <bit>
#include <optional>

namespace attnscope {
inline namespace v0_2 {

/// Numbers that a cache can store.
enum class CacheNumber {
    integer,     ///< symmetric, -(2^(bits-1)-1) ... 2^(bits-1)-1 times a scale
    float8_e4m3, ///< 4 bits of exponent, 3 of mantissa, largest 448, no infinity (OCP 8-bit floating point)
    float8_e5m2, ///< 5 bits of exponent, 2 of mantissa, largest 57344
    affine,      ///< a minimum plus 0 ... 2^bits-1 steps, both halves: the integers of KIVI
    nf4,         ///< 16 quantiles of the normal distribution times the largest |x| of 64 (QLoRA)
    q8_0,        ///< blocks of 32 of ggml: 8 bits and a half as scale
    q4_0,        ///< 4 bits and a scale
    q4_1,        ///< 4 bits, a scale and a minimum
    q5_0,        ///< 5 bits and a scale
    q5_1,        ///< 5 bits, a scale and a minimum
    float16,     ///< IEEE binary16
    bfloat16
};

/// What shares one scale: the tokens of a channel (column), the channels of a token (row), or nothing: there is none.
enum class CacheScale { channel, token, none };

/// How a cache stores keys or values. Blocks of nf4 and of ggml lie along the channels of a token, halves have no scale:
/// of these formats only `rotation` is read beside the number.
struct CacheFormat {
    CacheNumber number = CacheNumber::integer;
    int bits = 8; ///< of integers, 2 to 24; of affine ones 2 to 8
    CacheScale scale = CacheScale::channel;
    /// How many of them share it: tokens of a channel, or channels of a token; 0: all. Tokens behind the last whole
    /// group are halves until it is whole, KIVI's residual.
    Index group = 0;
    /// Seed of a `hadamard_rotate` before and back after it, of every token.
    std::optional<std::uint64_t> rotation = {};

    friend bool operator==(const CacheFormat&, const CacheFormat&) = default;
};

/// Symmetric integers of so many bits.
constexpr CacheFormat integer_cache(int bits, CacheScale scale = CacheScale::channel, Index group = 0) {
    return {CacheNumber::integer, bits, scale, group, {}};
}
/// KIVI's keys: a minimum and a step for every channel of a group of tokens.
/// Source. arXiv:2402.02750.
constexpr CacheFormat kivi_keys(int bits = 2, Index group = 32) {
    return {CacheNumber::affine, bits, CacheScale::channel, group, {}};
}
/// KIVI's values: a minimum and a step for every group of channels of a token.
/// Source. arXiv:2402.02750.
constexpr CacheFormat kivi_values(int bits = 2, Index group = 32) {
    return {CacheNumber::affine, bits, CacheScale::token, group, {}};
}
/// 8-bit floats, without a scale unless told.
constexpr CacheFormat float8_cache(CacheNumber number, CacheScale scale = CacheScale::none, Index group = 0) {
    return {number, 8, scale, group, {}};
}
/// The format with every token rotated.
constexpr CacheFormat rotated(CacheFormat format, std::uint64_t seed = 1) {
    format.rotation = seed;
    return format;
}

namespace detail {

/// Block of channels that the format itself asks for; 0: none.
constexpr Index fixed_block(CacheNumber number) {
    switch (number) {
    case CacheNumber::nf4:
        return 64;
    case CacheNumber::q8_0:
    case CacheNumber::q4_0:
    case CacheNumber::q4_1:
    case CacheNumber::q5_0:
    case CacheNumber::q5_1:
        return 32;
    default:
        return 0;
    }
}

/// The format with what follows from its number filled in.
constexpr CacheFormat settled(CacheFormat format) {
    if (const Index block = fixed_block(format.number)) {
        format.scale = CacheScale::token;
        format.group = block;
    }
    if (format.number == CacheNumber::float16 || format.number == CacheNumber::bfloat16)
        format.scale = CacheScale::none;
    return format;
}

/// Throws unless the format is one, and `width` channels fit it.
inline void require_cache(std::string_view function, const CacheFormat& given, Index width) {
    const CacheFormat format = settled(given);
    const bool affine = format.number == CacheNumber::affine;
    if (format.number == CacheNumber::integer)
        require(format.bits >= 2 && format.bits <= 24, function, "bits must be in [2, 24]", format.bits);
    if (affine) require(format.bits >= 2 && format.bits <= 8, function, "bits must be in [2, 8]", format.bits);
    if (affine || format.number == CacheNumber::integer)
        require(format.scale != CacheScale::none, function, "integers need a scale of a channel or a token");
    require(format.group >= 0, function, "a group must be >= 0", format.group);
    if (format.scale == CacheScale::token && format.group > 0)
        require(width % format.group == 0, function,
                "the channels must be a multiple of the format's block or group", width, format.group);
}

/// A binary floating-point format.
struct FloatFormat {
    double step;          ///< the distance of the numbers from 1 to 2
    double smallest;      ///< normal number
    double largest;       ///< finite number
    bool infinite = true; ///< beyond it lies infinity; else the largest stands for what is beyond
};

constexpr FloatFormat float_format(CacheNumber number) {
    switch (number) {
    case CacheNumber::float8_e4m3:
        return {0x1p-3, 0x1p-6, 448, false};
    case CacheNumber::float8_e5m2:
        return {0x1p-2, 0x1p-14, 57344, false};
    case CacheNumber::bfloat16:
        return {0x1p-7, 0x1p-126, 0x1.fep127};
    default:
        return {0x1p-10, 0x1p-14, 65504}; // of a half
    }
}

/// The largest power of two that is not above |x|, of finite numbers; at most the smallest normal number below that.
template <Real T>
T power_below(T x) {
    if constexpr (std::same_as<T, long double>) {
        int exponent = 0; // x = f 2^exponent, 1/2 <= |f| < 1
        return std::frexp(x, &exponent) == T(0) ? T(0) : std::ldexp(T(1), exponent - 1);
    } else {
        using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
        constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
        return std::bit_cast<T>(std::bit_cast<Bits>(x) & exponent);
    }
}

/// The distance of the numbers of the format near x.
template <Real T>
T float_quantum(T x, const FloatFormat& format) {
    return std::max(power_below(x), static_cast<T>(format.smallest)) * static_cast<T>(format.step);
}

/// The nearest number of the format to x, ties to even. All steps are exact but the one to an integer.
template <Real T>
T nearest_float(T x, const FloatFormat& format) {
    const T most = static_cast<T>(format.largest);
    if (x != x) return x;
    if (!format.infinite && !(std::abs(x) < most)) return std::copysign(most, x);
    if (!(std::abs(x) <= std::numeric_limits<T>::max())) return x;
    const T quantum = float_quantum(x, format), nearest = std::nearbyint(x / quantum) * quantum;
    return std::abs(nearest) <= most ? nearest : std::copysign(std::numeric_limits<T>::infinity(), x);
}

template <Real T>
T nearest_half(T x) {
    return nearest_float(x, float_format(CacheNumber::float16));
}

/// What stands in the cache for a number x.
template <Real T>
struct Stored {
    T value = 0;
    /// Twice the farthest that any x of the block can lie from the number that is stored for it, in exact arithmetic.
    T quantum = 0;
    T rounding = 0; ///< what the rounding of scales and of arithmetic may add to half of it
};

template <Real T>
using StoredBlock = std::span<Stored<T>>;

template <Real T>
constexpr T unit_of = std::numeric_limits<T>::epsilon() / 2;

/// number(x/scale) scale, the scale such that the largest |x| of the block is the largest number.
template <Real T>
void store_scaled(const CacheFormat& format, RowIn<T> x, T largest, StoredBlock<T> out) {
    const bool integer = format.number == CacheNumber::integer;
    const FloatFormat floats = float_format(format.number);
    const T most = integer ? std::ldexp(T(1), format.bits - 1) - 1 : static_cast<T>(floats.largest);
    if (largest == T(0)) {
        for (std::size_t i = 0; i < x.size(); ++i) out[i] = {x[i]};
        return;
    }
    const T scale = std::max(largest / most, std::numeric_limits<T>::min());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const T y = x[i] / scale;
        const T number = integer ? std::clamp(std::nearbyint(y), -most, most) : nearest_float(y, floats);
        out[i] = {scale * number, scale * (integer ? T(1) : float_quantum(y, floats)),
                  4 * unit_of<T> * std::abs(x[i])};
    }
}

/// A float by itself.
template <Real T>
Stored<T> store_float(T x, const FloatFormat& format) {
    const T value = nearest_float(x, format), most = static_cast<T>(format.largest);
    if (!(std::abs(x) < std::numeric_limits<T>::infinity()) || std::isinf(value)) {
        const T far = x == x ? std::numeric_limits<T>::infinity() : x;
        return {value, far, far};
    }
    return {value, float_quantum(std::min(std::abs(x), most), format), std::max(T(0), std::abs(x) - most)};
}

/// Minimum and step as halves, and the nearest of the levels that they give.
template <Real T>
void store_affine(int bits, RowIn<T> x, T low, T high, StoredBlock<T> out) {
    const T levels = std::ldexp(T(1), bits) - 1;
    const T minimum = nearest_half(low), step = nearest_half((high - low) / levels);
    const T rounding = 8 * unit_of<T> * (std::abs(low) + std::abs(high));
    const T top = minimum + levels * step;
    if (!std::isfinite(top)) {
        std::fill(out.begin(), out.end(),
                  Stored<T>{std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                            std::numeric_limits<T>::infinity()});
        return;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        const T code = step > T(0) ? std::clamp(std::nearbyint((x[i] - minimum) / step), T(0), levels) : T(0);
        T reach = step / 2;
        // The halves may end before or behind the numbers of the block.
        if (code == T(0)) reach = std::max(reach, minimum - low);
        if (code == levels || step == T(0)) reach = std::max(reach, high - top);
        out[i] = {minimum + code * step, 2 * reach, rounding};
    }
}

/// The quantiles of the format, ascending.
/// Source. arXiv:2305.14314, appendix E.
inline constexpr std::array<float, 16> nf4_levels = {-1.0F,
                                                     -0.6961928009986877F,
                                                     -0.5250730514526367F,
                                                     -0.39491748809814453F,
                                                     -0.28444138169288635F,
                                                     -0.18477343022823334F,
                                                     -0.09105003625154495F,
                                                     0.0F,
                                                     0.07958029955625534F,
                                                     0.16093020141124725F,
                                                     0.24611230194568634F,
                                                     0.33791524171829224F,
                                                     0.44070982933044434F,
                                                     0.5626170039176941F,
                                                     0.7229568362236023F,
                                                     1.0F};

/// The nearest quantile, the lower one of two that are equally near, times the largest |x| as a float.
template <Real T>
void store_nf4(RowIn<T> x, T largest, StoredBlock<T> out) {
    const T scale = static_cast<T>(static_cast<float>(largest));
    if (!(scale > T(0)) || !std::isfinite(scale)) {
        const T value = scale == T(0) ? T(0) : std::numeric_limits<T>::quiet_NaN();
        const T far = scale == T(0) ? largest : std::numeric_limits<T>::infinity();
        std::fill(out.begin(), out.end(), Stored<T>{value, T(2) * far, T(0)});
        return;
    }
    const auto level = [](std::size_t i) { return static_cast<T>(nf4_levels[i]); };
    const T rounding = 4 * unit_of<T> * largest;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const T y = x[i] / scale;
        std::size_t code = 0;
        while (code + 1 < nf4_levels.size() && y > (level(code) + level(code + 1)) / 2) ++code;
        const T below = code > 0 ? level(code) - level(code - 1) : T(0),
                above = code + 1 < nf4_levels.size() ? level(code + 1) - level(code) : T(0);
        out[i] = {scale * level(code), scale * std::max(below, above), rounding};
    }
}

/// A product as one float operation, which no compiler makes part of a fused one: the codes of ggml hang on it.
inline float float_product(float a, float b) {
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}

/// A block of ggml as its reference quantisation makes it, in float, and what is read out of it.
template <Real T>
void store_ggml(CacheNumber number, std::span<const float> x, T largest, StoredBlock<T> out) {
    float low = x[0], high = x[0], farthest = x[0]; // the first of the largest |x|, with its sign
    for (const float y : x) {
        low = std::min(low, y);
        high = std::max(high, y);
        if (std::abs(y) > std::abs(farthest)) farthest = y;
    }
    const bool five = number == CacheNumber::q5_0 || number == CacheNumber::q5_1,
               with_minimum = number == CacheNumber::q4_1 || number == CacheNumber::q5_1,
               eight = number == CacheNumber::q8_0;
    const float levels = five ? 31.0F : 15.0F, middle = eight || with_minimum ? 0.0F : (levels + 1) / 2;
    const float scale = eight          ? std::abs(farthest) / 127.0F
                        : with_minimum ? (high - low) / levels
                                       : farthest / -middle;
    const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F, start = with_minimum ? low : 0.0F;
    const float scale_half = nearest_half(scale), start_half = nearest_half(start);
    const T lost = static_cast<T>(std::abs(scale - scale_half)),
            shifted = static_cast<T>(std::abs(start - start_half));
    T rounding = static_cast<T>(unit_of<float>) * (8 * largest + 16 * static_cast<T>(high - low));
    // What a float cannot hold apart: x itself, and quotients by a scale without an inverse.
    if (!std::same_as<T, float> && largest > T(0))
        rounding += static_cast<T>(std::numeric_limits<float>::denorm_min());
    if (!std::isfinite(inverse)) rounding += 2 * largest;
    for (std::size_t i = 0; i < x.size(); ++i) {
        float code = 0;
        if (std::isfinite(inverse)) { // else the scale is a zero of the half
            const float y = float_product(x[i] - start, inverse);
            if (eight)
                code = std::round(y);
            else // towards zero, as C turns a float into an integer
                code = std::min(levels, std::trunc(y + (with_minimum ? 0.5F : middle + 0.5F))) - middle;
        }
        // Eight times eleven bits: the product is exact.
        const float value = code * scale_half + start_half;
        Stored<T>& stored = out[i];
        stored.value = static_cast<T>(value);
        if (!std::isfinite(value)) {
            stored.quantum = stored.rounding = std::numeric_limits<T>::infinity();
            continue;
        }
        // Without a minimum the other end of the range lies a whole step beyond the highest code.
        const bool beyond = middle > 0 && code == levels - middle;
        stored.quantum = static_cast<T>(std::abs(scale)) * T(beyond ? 2 : 1);
        stored.rounding = static_cast<T>(std::abs(code)) * lost + shifted + rounding;
    }
}

/// Numbers that share a scale.
template <Real T>
void store_block(const CacheFormat& format, RowIn<T> x, StoredBlock<T> out, std::vector<float>& floats) {
    T low = std::numeric_limits<T>::infinity(), high = -low;
    bool finite = true;
    for (const T y : x) {
        low = std::min(low, y);
        high = std::max(high, y);
        finite = finite && std::isfinite(y);
        if (fixed_block(format.number) > 0) finite = finite && std::isfinite(static_cast<float>(y));
    }
    if (!finite) {
        const T nan = std::numeric_limits<T>::quiet_NaN();
        std::fill(out.begin(), out.end(), Stored<T>{nan, nan, nan});
        return;
    }
    const T largest = x.empty() ? T(0) : std::max(std::abs(low), std::abs(high));
    switch (format.number) {
    case CacheNumber::affine:
        return store_affine(format.bits, x, low, high, out);
    case CacheNumber::nf4:
        return store_nf4(x, largest, out);
    case CacheNumber::q8_0:
    case CacheNumber::q4_0:
    case CacheNumber::q4_1:
    case CacheNumber::q5_0:
    case CacheNumber::q5_1:
        floats.resize(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) floats[i] = static_cast<float>(x[i]);
        return store_ggml<T>(format.number, floats, largest, out);
    default:
        return store_scaled(format, x, largest, out);
    }
}

/// Calls visit(token, channel, Stored<T>) for every number of x; rotations are the caller's.
template <Real T, class Visit>
void for_each_stored(MatrixView<T> x, const CacheFormat& given, const Visit& visit) {
    const CacheFormat format = settled(given);
    const Index tokens = x.rows(), width = x.cols();
    if (format.scale == CacheScale::none) {
        const FloatFormat floats = float_format(format.number);
        for (Index i = 0; i < tokens; ++i)
            for (Index j = 0; j < width; ++j) visit(i, j, store_float(at(x.row(i), j), floats));
        return;
    }
    const bool by_token = format.scale == CacheScale::token;
    const Index lines = by_token ? tokens : width, length = by_token ? width : tokens,
                group = format.group > 0 ? format.group : length;
    std::vector<T> block(static_cast<std::size_t>(group));
    std::vector<Stored<T>> stored(block.size());
    std::vector<float> floats;
    const auto place = [&](Index line, Index i) { return by_token ? std::pair(line, i) : std::pair(i, line); };
    for (Index line = 0; line < lines; ++line) {
        Index first = 0;
        for (; group > 0 && first + group <= length; first += group) {
            for (Index i = 0; i < group; ++i) {
                const auto [token, channel] = place(line, first + i);
                at(block, i) = at(x.row(token), channel);
            }
            store_block<T>(format, block, stored, floats);
            for (Index i = 0; i < group; ++i) {
                const auto [token, channel] = place(line, first + i);
                visit(token, channel, at(stored, i));
            }
        }
        for (; first < length; ++first) {
            const auto [token, channel] = place(line, first);
            visit(token, channel, store_float(at(x.row(token), channel), float_format(CacheNumber::float16)));
        }
    }
}

/// figure(Stored) of every number, of rotated rows where the format rotates.
template <Real T, class Figure>
Matrix<T> in_cache(std::string_view function, MatrixView<T> x, const CacheFormat& format,
                   const Figure& figure) {
    require_cache(function, format, x.cols());
    Matrix<T> result(x.rows(), x.cols()), rotated;
    if (format.rotation) {
        rotated = hadamard_rotate(x, *format.rotation);
        x = MatrixView<T>(rotated);
    }
    for_each_stored(x, format,
                    [&](Index i, Index j, const Stored<T>& stored) { result(i, j) = figure(stored); });
    return result;
}

} // namespace detail

/// The rows of x after a visit to a cache of this format.
/// Formula. x' is the number that is stored for x, its scale included. Symmetric integers and 8-bit floats with a scale:
/// scale * nearest(x/scale), the scale such that the largest |x| of those that share it is the largest number, in T.
/// Floats: the nearest; 8-bit ones that lie beyond the largest become it, others infinite. Affine: the nearest of
/// m + i s, 0 <= i < 2^bits, with m the minimum and s = (max - min)/(2^bits - 1) of those that share it, both rounded
/// to halves. nf4: scale * the nearest quantile, scale the largest |x| of the block as a float. q8_0 to q5_1: bit for
/// bit what ggml's reference quantisation (`ggml_quantize_chunk`) of x as floats stores, and its dequantisation reads;
/// its vectorised kernels may round a tie the other way. A rotated format stores R x and gives back R^T of what it
/// stored (`hadamard_rotate`): the logits and outputs of an engine that rotates queries and outputs instead. Rounding
/// is to nearest, ties to even (the default rounding mode of the machine), where the format does not say otherwise.
/// Shapes and units. x [tokens, d], and the result.
/// Special rows. Zeros that share a scale stay. A NaN or an infinity (for nf4 and ggml: of x as floats) makes all that
/// share its scale NaN; where there is none, it concerns itself alone, and 8-bit floats turn infinities into their
/// largest numbers. What needs a scale
/// beyond its type (65504 for halves) becomes infinite or NaN, as in ggml; a scale that underflows leaves zeros.
/// Tokens behind the last whole group of a channel are halves.
/// Cost. O(tokens d), with a rotation O(tokens d log d); allocates the result.
/// Throws. `invalid_argument` unless bits are in [2, 24], of affine integers in [2, 8], integers have a scale, and d is
/// a multiple of a block or group of channels.
/// Source. ggml-quants.c; KIVI, arXiv:2402.02750; QLoRA, arXiv:2305.14314; OCP 8-bit floating point 1.0.
template <Real T>
Matrix<T> through_cache(MatrixView<T> x, const CacheFormat& format) {
    Matrix<T> stored = detail::in_cache("through_cache", x, format,
                                        [](const detail::Stored<T>& number) { return number.value; });
    if (format.rotation) return hadamard_rotate_back(MatrixView<T>(stored), *format.rotation);
    return stored;
}

/// The distance of the numbers that a cache of this format has near every entry of x: rounding to the nearest is off
/// by half of it at most, but for rounding errors of scales and of arithmetic.
/// Formula. Twice the farthest that a number of the block can lie from the one that is stored for it. Symmetric
/// integers and floats: scale * quantum(x/scale). q4_0, q5_0: the step, and twice that for the highest code, which also
/// stands for the numbers up to a step above it. nf4: the wider of the two gaps of a quantile.
/// Shapes and units. x [tokens, d], and the result; of a rotated format about the entries of `hadamard_rotate(x, seed)`.
/// Special rows. Zeros that share a scale have 0; what shares one with a NaN or an infinity has NaN.
/// Cost. O(tokens d), allocates the result.
/// Throws. As `through_cache`.
template <Real T>
Matrix<T> cache_quanta(MatrixView<T> x, const CacheFormat& format) {
    return detail::in_cache("cache_quanta", x, format,
                            [](const detail::Stored<T>& number) { return number.quantum; });
}

/// Limits on |x' - x| of every entry of a cache of this format, x' of `through_cache`: what a format's scales promise
/// without a look at x' itself.
/// Formula. Half of `cache_quanta`, what the rounding of a stored scale moves the number of that code, and the rounding
/// errors of the arithmetic; of a rotated format those of both rotations, too.
/// Shapes and units. x [tokens, d], and the result; of a rotated format limits on |R (x' - x)|, of the rotated entries:
/// |q.(x' - x)| <= sum_c |R q|_c limit_c.
/// Special rows. As of `cache_quanta`; infinite where the format overflows.
/// Cost. O(tokens d), allocates the result.
/// Throws. As `through_cache`.
template <Real T>
Matrix<T> cache_error_limits(MatrixView<T> x, const CacheFormat& format) {
    constexpr T unit = detail::unit_of<T>;
    Matrix<T> limits = detail::in_cache("cache_error_limits", x, format, [](const detail::Stored<T>& number) {
        return (number.quantum / 2 + number.rounding) * (1 + 4 * unit);
    });
    if (format.rotation) {
        const auto stages =
            static_cast<T>(std::bit_width(static_cast<std::uint64_t>(hadamard_block(x.cols()))));
        for (Index i = 0; i < x.rows(); ++i)
            limits.row(i).array() +=
                4 * (stages + 2) * unit * (2 * x.map().row(i).stableNorm() + limits.row(i).stableNorm());
    }
    return limits;
}

/// Do so many channels fit the blocks or groups of a format?
/// Cost. O(1).
constexpr bool fits_cache(const CacheFormat& given, Index width) {
    const CacheFormat format = detail::settled(given);
    return format.scale != CacheScale::token || format.group <= 0 || width % format.group == 0;
}

/// Bytes that a token takes, its share of the scales included.
/// Formula. d bits/8, and for every scale 2 bytes (ggml, which counts q8_0 as 34 for 32 numbers), 4 for a minimum and a
/// step (affine, q4_1, q5_1), or 4 as a float (nf4, symmetric integers, scaled 8-bit floats). A scale of a channel
/// counts for its group of tokens, for all of them without groups; tokens behind the last whole group count as halves.
/// Shapes and units. width: channels of a token; tokens: in the cache.
/// Cost. O(1).
/// Throws. As `through_cache`, and unless width and tokens are >= 1.
inline double cache_bytes(const CacheFormat& given, Index width, Index tokens) {
    detail::require(width >= 1 && tokens >= 1, "cache_bytes", "there must be channels and tokens", width,
                    tokens);
    detail::require_cache("cache_bytes", given, width);
    const CacheFormat format = detail::settled(given);
    const auto bits_and_scale = [&]() -> std::pair<double, double> {
        switch (format.number) {
        case CacheNumber::integer:
            return {format.bits, 4};
        case CacheNumber::affine:
            return {format.bits, 4};
        case CacheNumber::nf4:
            return {4, 4};
        case CacheNumber::q8_0:
            return {8, 2};
        case CacheNumber::q4_0:
            return {4, 2};
        case CacheNumber::q4_1:
            return {4, 4};
        case CacheNumber::q5_0:
            return {5, 2};
        case CacheNumber::q5_1:
            return {5, 4};
        case CacheNumber::float16:
        case CacheNumber::bfloat16:
            return {16, 0};
        default:
            return {8, 4};
        }
    };
    const auto [bits, scale] = bits_and_scale();
    const Index all = format.scale == CacheScale::token ? width : tokens,
                group = format.group > 0 ? format.group : all;
    const double channels = static_cast<double>(width), sharing = static_cast<double>(group);
    const double bytes = channels * (bits / 8 + (format.scale == CacheScale::none ? 0 : scale / sharing));
    if (format.scale != CacheScale::channel) return bytes;
    const double left = static_cast<double>(tokens % group) / static_cast<double>(tokens);
    return (1 - left) * bytes + left * 2 * channels;
}

/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> through_cache(const X& x, const CacheFormat& format) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return through_cache(rows.get(), format);
}

/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> cache_quanta(const X& x, const CacheFormat& format) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return cache_quanta(rows.get(), format);
}
/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> cache_error_limits(const X& x, const CacheFormat& format) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return cache_error_limits(rows.get(), format);
}

/// A copy of a head whose keys have been in the cache.
template <Real T>
Head<T> through_cache(const HeadView<T>& head, const CacheFormat& format) {
    const Matrix<T> keys = through_cache(head.k(), format);
    return Head<T>(HeadView<T>(head.q(), MatrixView<T>(keys), head.v(), head.scale()));
}

/// The same for keys and values, each in a format of its own.
/// Throws. `invalid_argument` also for a head without values.
template <Real T>
Head<T> through_cache(const HeadView<T>& head, const CacheFormat& key_format, const CacheFormat& value_format) {
    detail::require(head.has_values(), "through_cache", "there must be values to store");
    const Matrix<T> keys = through_cache(head.k(), key_format), values = through_cache(head.v(), value_format);
    return Head<T>(HeadView<T>(head.q(), MatrixView<T>(keys), MatrixView<T>(values), head.scale()));
}

/// The same for q [queries, d], k [keys, d] and v [keys, d_v], any Eigen matrices of one scalar: keys in the cache.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
requires std::same_as<ScalarOf<Q>, ScalarOf<K>> && std::same_as<ScalarOf<Q>, ScalarOf<V>>
Head<ScalarOf<Q>> through_cache(const Q& q, const K& k, const V& v, const CacheFormat& format) {
    return Head<ScalarOf<Q>>(q, through_cache(k, format), v);
}

} // namespace v0_2
} // namespace attnscope
