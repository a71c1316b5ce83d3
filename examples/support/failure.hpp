// Failed work, in one line.
#pragma once

#include <attnscope/errors.hpp>

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace program {

/// Throws `std::runtime_error`. Names and values from files stand in messages: a zero byte would cut `what()`
/// there, so that it and all else that no terminal should get is escaped.
template <class... Values>
[[noreturn]] void fail(fmt::format_string<Values...> format, Values&&... values) {
    throw std::runtime_error(attnscope::printable(fmt::format(format, std::forward<Values>(values)...)));
}

} // namespace program
