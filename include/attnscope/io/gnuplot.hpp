// Words of gnuplot's language.
#pragma once

#include <attnscope/config.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace gnuplot {

/// Text in quotes of gnuplot's.
inline std::string quoted(std::string_view text) {
    std::string result = "'";
    for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
    return result + "'";
}

/// A number of a data block, with six digits; NaN for what is not finite.
inline std::string number(double x) {
    if (!std::isfinite(x)) return "NaN";
    std::array<char, 32> text{};
    return {text.data(),
            std::to_chars(text.data(), text.data() + text.size(), x, std::chars_format::general, 6).ptr};
}

} // namespace gnuplot
} // namespace io
} // namespace v0_2
} // namespace attnscope
