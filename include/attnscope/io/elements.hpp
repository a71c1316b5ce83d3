// Numbers of files: their types, their bytes, and exact conversion.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Value of an IEEE 754 binary16 pattern; exact for every pattern (subnormals, signed zeros, infinities; a NaN
/// keeps its sign and payload).
inline float half_to_float(std::uint16_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t fraction = bits & 0x3ffu;
    if (exponent == 0) { // fraction * 2^-24 is a normal float, so flush-to-zero modes do not matter
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    const std::uint32_t widened = exponent == 0x1f ? 0xffu : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (widened << 23) | (fraction << 13));
}

/// Value of a bfloat16 pattern: the upper half of a binary32 pattern, hence exact.
inline float bfloat16_to_float(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Element types of the files. `unsupported`: the file names a type that this library does not read.
enum class Dtype { boolean, i8, u8, i16, u16, i32, u32, i64, u64, f16, bf16, f32, f64, unsupported };

/// A floating-point type.
constexpr bool is_floating(Dtype dtype) noexcept {
    return dtype == Dtype::f16 || dtype == Dtype::bf16 || dtype == Dtype::f32 || dtype == Dtype::f64;
}
/// An integer or a bool.
constexpr bool is_integer(Dtype dtype) noexcept { return !is_floating(dtype) && dtype != Dtype::unsupported; }

namespace detail {

inline bool multiply_overflows(std::uint64_t a, std::uint64_t b, std::uint64_t& product) noexcept {
    if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return true;
    product = a * b;
    return false;
}

/// No file with more dimensions is accepted; NumPy's own limit is 64.
inline constexpr std::size_t max_rank = 64;
inline constexpr auto max_dimension = static_cast<std::uint64_t>(std::numeric_limits<Eigen::Index>::max());

/// Number of elements of a shape that a caller hands to a writer; `invalid_argument` when it is impossible.
inline std::uint64_t checked_elements(std::string_view function, std::span<const Eigen::Index> shape) {
    std::uint64_t elements = 1;
    attnscope::detail::require(shape.size() <= max_rank, function, "a shape has at most 64 dimensions",
                               shape.size());
    for (const Eigen::Index dimension : shape) {
        attnscope::detail::require(dimension >= 0, function, "a dimension must not be negative", dimension);
        attnscope::detail::require(
            !multiply_overflows(elements, static_cast<std::uint64_t>(dimension), elements), function,
            "the product of the shape must fit in 64 bits", dimension);
    }
    return elements;
}

struct Half {
    std::uint16_t bits;
};
struct Bfloat16 {
    std::uint16_t bits;
};
struct Boolean {
    std::uint8_t byte;
};

/// Calls `function.template operator()<Stored>()` with the type that holds one element of `dtype` in a file.
template <class Function>
void with_stored_type(Dtype dtype, Function&& function) {
    switch (dtype) {
    case Dtype::boolean:
        return function.template operator()<Boolean>();
    case Dtype::i8:
        return function.template operator()<std::int8_t>();
    case Dtype::u8:
        return function.template operator()<std::uint8_t>();
    case Dtype::i16:
        return function.template operator()<std::int16_t>();
    case Dtype::u16:
        return function.template operator()<std::uint16_t>();
    case Dtype::i32:
        return function.template operator()<std::int32_t>();
    case Dtype::u32:
        return function.template operator()<std::uint32_t>();
    case Dtype::i64:
        return function.template operator()<std::int64_t>();
    case Dtype::u64:
        return function.template operator()<std::uint64_t>();
    case Dtype::f16:
        return function.template operator()<Half>();
    case Dtype::bf16:
        return function.template operator()<Bfloat16>();
    case Dtype::f32:
        return function.template operator()<float>();
    case Dtype::f64:
        return function.template operator()<double>();
    case Dtype::unsupported:
        return;
    }
}

template <class Stored, bool swap>
Stored load(const std::byte* bytes) noexcept {
    std::array<std::byte, sizeof(Stored)> raw;
    std::memcpy(raw.data(), bytes, sizeof(Stored));
    if constexpr (swap) std::reverse(raw.begin(), raw.end());
    return std::bit_cast<Stored>(raw);
}

/// An integer as T, or false when T cannot hold exactly this value.
template <class T, std::integral Stored>
bool convert(Stored value, T& out) noexcept {
    if constexpr (std::floating_point<T>) {
        using Unsigned = std::make_unsigned_t<Stored>;
        const auto pattern = static_cast<Unsigned>(value);
        const auto magnitude =
            static_cast<std::uint64_t>(value < 0 ? static_cast<Unsigned>(Unsigned{0} - pattern) : pattern);
        if (magnitude != 0 && static_cast<int>(std::bit_width(magnitude)) - std::countr_zero(magnitude) >
                                  std::numeric_limits<T>::digits)
            return false;
    } else if (!std::in_range<T>(value))
        return false;
    out = static_cast<T>(value); // NOLINT(bugprone-signed-char-misuse): an int8 of a file is a number
    return true;
}
template <class T, std::floating_point Stored>
bool convert(Stored value, T& out) noexcept {
    static_assert(std::numeric_limits<T>::is_iec559 || std::integral<T>);
    if constexpr (std::integral<T>) {
        return false;
    } else {
        out = static_cast<T>(value);
        return true;
    }
}
template <class T>
bool convert(Half value, T& out) noexcept {
    return convert(half_to_float(value.bits), out);
}
template <class T>
bool convert(Bfloat16 value, T& out) noexcept {
    return convert(bfloat16_to_float(value.bits), out);
}
template <class T>
bool convert(Boolean value, T& out) noexcept {
    out = static_cast<T>(value.byte);
    return value.byte <= 1;
}

template <class Stored>
std::string describe(Stored value) {
    if constexpr (std::same_as<Stored, Boolean>)
        return "the bool is stored as " + std::to_string(value.byte) + ", neither 0 nor 1";
    else if constexpr (std::integral<Stored>)
        return "the integer " + attnscope::detail::to_text(value) +
               " does not fit exactly in the type asked for";
    else
        return "a fraction does not fit in an integer type";
}

/// out[i] = element number i at `bytes`. Floating to floating rounds to nearest (overflow gives infinity);
/// integers and bools must fit T exactly, otherwise `io_error` with the position of the element.
template <class T, class Stored, bool swap>
void decode(const std::string& path, std::uint64_t offset, const std::byte* bytes, std::span<T> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        const auto value = load<Stored, swap>(bytes + i * sizeof(Stored));
        if (!convert(value, out[i])) throw io_error(path, offset + i * sizeof(Stored), describe(value));
    }
}

/// out[i] = element number i of those that begin at byte `offset` of the file. Does not allocate.
template <class T>
void decode(const File& file, std::uint64_t offset, Dtype dtype, std::endian order, std::span<T> out) {
    with_stored_type(dtype, [&]<class Stored>() {
        const bool swap = sizeof(Stored) > 1 && order != std::endian::native;
        if constexpr (std::same_as<T, Stored>)
            if (!swap) return file.read(offset, std::as_writable_bytes(out));
        std::array<std::byte, std::size_t{1} << 14> block;
        constexpr std::size_t most = block.size() / sizeof(Stored);
        while (!out.empty()) {
            const std::span<T> part = out.first(std::min(out.size(), most));
            file.read(offset, std::span(block).first(part.size() * sizeof(Stored)));
            if (swap)
                decode<T, Stored, true>(file.path(), offset, block.data(), part);
            else
                decode<T, Stored, false>(file.path(), offset, block.data(), part);
            offset += part.size() * sizeof(Stored);
            out = out.subspan(part.size());
        }
    });
}

/// The little-endian bytes of `values`.
template <class T>
std::vector<std::byte> little_endian(std::span<const T> values) {
    const auto raw = std::as_bytes(values);
    std::vector<std::byte> bytes(raw.begin(), raw.end());
    if constexpr (std::endian::native != std::endian::little)
        for (auto at = bytes.begin(); at != bytes.end(); at += sizeof(T)) std::reverse(at, at + sizeof(T));
    return bytes;
}

} // namespace detail
} // namespace io
} // namespace v0_2
} // namespace attnscope
