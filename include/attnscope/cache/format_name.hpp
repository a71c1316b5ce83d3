// Formats of caches by name, as options and tables have them.
#pragma once

#include <attnscope/cache/format.hpp>

#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

struct NamedCacheNumber {
    std::string_view name;
    CacheNumber number;
};
/// Those without bits and a scale in their names; "e4m3" and "e5m2" may have a scale.
inline constexpr std::array<NamedCacheNumber, 10> named_cache_numbers = {{
    {"f16", CacheNumber::float16},
    {"bf16", CacheNumber::bfloat16},
    {"e4m3", CacheNumber::float8_e4m3},
    {"e5m2", CacheNumber::float8_e5m2},
    {"nf4", CacheNumber::nf4},
    {"q8_0", CacheNumber::q8_0},
    {"q5_1", CacheNumber::q5_1},
    {"q5_0", CacheNumber::q5_0},
    {"q4_1", CacheNumber::q4_1},
    {"q4_0", CacheNumber::q4_0},
}};

/// The whole number that a text is; -1 if it is none.
inline Index number_in(std::string_view text) {
    Index value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() && value >= 0 ? value : -1;
}

/// Cuts `lead` off the front of a text that begins with it.
inline bool take(std::string_view& text, std::string_view lead) {
    if (!text.starts_with(lead)) return false;
    text.remove_prefix(lead.size());
    return true;
}

/// "channel", "token32" and the like.
inline bool read_scale(std::string_view text, CacheFormat& format) {
    if (take(text, "channel"))
        format.scale = CacheScale::channel;
    else if (take(text, "token"))
        format.scale = CacheScale::token;
    else
        return false;
    if (text.empty()) return true;
    format.group = number_in(text);
    return format.group > 0;
}

inline bool read_cache_format(std::string_view text, CacheFormat& format) {
    if (const std::size_t plus = text.find('+'); plus != std::string_view::npos) {
        std::string_view seed = text.substr(plus + 1);
        if (!take(seed, "rotated")) return false;
        const Index number = seed.empty() ? 1 : number_in(seed);
        if (number < 0) return false;
        format.rotation = static_cast<std::uint64_t>(number);
        text = text.substr(0, plus);
    }
    const std::size_t colon = text.find(':');
    std::string_view number = text.substr(0, colon);
    bool scaled = true;
    if (take(number, "int") || take(number, "affine")) {
        format.number = text.starts_with("int") ? CacheNumber::integer : CacheNumber::affine;
        const Index bits = number_in(number);
        if (bits < 2 || bits > (format.number == CacheNumber::integer ? 24 : 8)) return false;
        format.bits = static_cast<int>(bits);
    } else {
        const auto named = std::find_if(named_cache_numbers.begin(), named_cache_numbers.end(),
                                        [&](const NamedCacheNumber& one) { return one.name == number; });
        if (named == named_cache_numbers.end()) return false;
        format.number = named->number;
        scaled = format.number == CacheNumber::float8_e4m3 || format.number == CacheNumber::float8_e5m2;
        if (scaled) format.scale = CacheScale::none; // unless told below
    }
    if (colon == std::string_view::npos) return true;
    return scaled && read_scale(text.substr(colon + 1), format);
}

} // namespace detail

/// The format of a name: f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, nf4, e4m3, e5m2 (8-bit floats), int2 to int24
/// (symmetric), affine2 to affine8; behind e4m3, e5m2, int and affine ":channel" or ":token" for what shares a scale and
/// a number for the group (":token32"; int and affine: ":channel" unless given), behind any "+rotated" and a seed
/// unless it is 1.
/// Cost. O(1).
/// Throws. `invalid_argument` for any other text.
/// Example: `through_cache(keys, cache_format("affine2:channel32"))` // KIVI's keys
inline CacheFormat cache_format(std::string_view name) {
    CacheFormat format;
    if (!detail::read_cache_format(name, format))
        detail::fail(
            "cache_format",
            "a format is f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, nf4, e4m3, e5m2, intBITS or affineBITS, with "
            ":channel or :token and a group behind the last four, +rotated behind any",
            name);
    return format;
}

/// The name of a format, which `cache_format` reads back.
/// Cost. O(1).
inline std::string name_of(const CacheFormat& given) {
    const CacheFormat format = detail::settled(given);
    std::string name;
    if (format.number == CacheNumber::integer || format.number == CacheNumber::affine)
        name = (format.number == CacheNumber::integer ? "int" : "affine") + std::to_string(format.bits);
    else
        for (const detail::NamedCacheNumber& one : detail::named_cache_numbers)
            if (one.number == format.number) name = one.name;
    if (format.scale != CacheScale::none && detail::fixed_block(format.number) == 0) {
        name += format.scale == CacheScale::channel ? ":channel" : ":token";
        if (format.group > 0) name += std::to_string(format.group);
    }
    if (format.rotation) {
        name += "+rotated";
        if (*format.rotation != 1) name += std::to_string(*format.rotation);
    }
    return name;
}

} // namespace v0_2
} // namespace attnscope
