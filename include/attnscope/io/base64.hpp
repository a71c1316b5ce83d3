// Bytes as text, for JSON and pages.
#pragma once

#include <attnscope/config.hpp>

#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// The base64 of some bytes, padded.
/// Source. RFC 4648, section 4.
inline std::string base64(std::string_view bytes) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        unsigned three = 0;
        for (std::size_t i = 0; i < 3; ++i)
            three = three << 8 | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
        for (std::size_t i = 0; i < 4; ++i)
            text += at + i <= bytes.size() ? digits[three >> (18 - 6 * i) & 63U] : '=';
    }
    return text;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
