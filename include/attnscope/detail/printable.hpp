// Text of files and command lines as a part of messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Length of the well-formed UTF-8 sequence that `text` starts with, 0 if there is none (The Unicode Standard,
/// table 3-7).
constexpr std::size_t utf8_length(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    const auto rest = [&](std::size_t place, std::size_t length) {
        for (; place < length; ++place)
            if ((byte(place) & 0xC0U) != 0x80U) return std::size_t{0};
        return length;
    };
    if (text.empty()) return 0;
    const unsigned first = byte(0), second = byte(1);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return rest(1, 2);
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned least = first == 0xE0 ? 0xA0 : 0x80, most = first == 0xED ? 0x9F : 0xBF;
        return second >= least && second <= most ? rest(2, 3) : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned least = first == 0xF0 ? 0x90 : 0x80, most = first == 0xF4 ? 0x8F : 0xBF;
        return second >= least && second <= most ? rest(2, 4) : 0;
    }
    return 0;
}

/// One line of valid UTF-8 that drives no terminal: control characters (those of Latin-1, too) and bytes that
/// are no UTF-8 become \xNN; of text longer than `limit` bytes the middle is left out.
inline std::string printable(std::string_view text, std::size_t limit = 1000) {
    constexpr std::string_view hex = "0123456789abcdef";
    const auto escaped = [&](std::string_view part) {
        std::string line;
        while (!part.empty()) {
            const std::size_t length = utf8_length(part);
            const auto first = static_cast<unsigned char>(part[0]);
            const bool control = first < 0x20 || first == 0x7f ||
                                 (first == 0xC2 && length == 2 && static_cast<unsigned char>(part[1]) < 0xA0);
            if (length == 0 || control) {
                for (std::size_t i = 0; i < (length == 0 ? 1 : length); ++i) {
                    const auto byte = static_cast<unsigned char>(part[i]);
                    ((line += "\\x") += hex[byte >> 4]) += hex[byte & 15];
                }
            } else {
                line += part.substr(0, length);
            }
            part.remove_prefix(length == 0 ? 1 : length);
        }
        return line;
    };
    if (text.size() <= limit) return escaped(text);
    const auto inside = [&](std::size_t at) { // is `at` within a character?
        return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U;
    };
    std::size_t head = limit / 2, tail = text.size() - limit / 2;
    for (int i = 0; i < 3 && inside(head); ++i) --head;
    for (int i = 0; i < 3 && inside(tail); ++i) ++tail;
    return escaped(text.substr(0, head)) + " [...] " + escaped(text.substr(tail));
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
