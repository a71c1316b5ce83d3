// The two exceptions of the library. Conditions of the data (NaN, all keys masked, ties) are results, not
// errors. Where the compiler has no exceptions (-fno-exceptions), what would throw writes its message to standard error
// and calls std::abort; io/, which reads what others wrote, is refused there.
#pragma once

#include <attnscope/config.hpp>
#include <attnscope/detail/printable.hpp>

#include <charconv>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace attnscope {
inline namespace v0_2 {

/// For messages and files of your own: text as one line of valid UTF-8, and the length of a UTF-8 sequence.
using detail::printable;
using detail::utf8_length;

/// A precondition of a function is broken. The message names the function, the rule and the offending value.
class invalid_argument : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// A file cannot be read or written. `what()` holds file, offset and reason in one line of UTF-8; bytes of a
/// name or a reason that are none, and control characters, stand there as \xNN, and what is very long is
/// shortened.
class io_error : public std::runtime_error {
public:
    /// `offset`: byte position in the file the reason refers to.
    io_error(std::string file, std::uint64_t offset, std::string_view reason)
        : std::runtime_error(detail::printable(file) + ": at byte " + std::to_string(offset) + ": " +
                             detail::printable(reason)),
          file_(std::move(file)), reason_(reason), offset_(offset) {}

    const std::string& file() const noexcept { return file_; }
    std::uint64_t offset() const noexcept { return offset_; }
    const std::string& reason() const noexcept { return reason_; }

private:
    std::string file_, reason_;
    std::uint64_t offset_;
};

namespace detail {

/// The one place that throws, and the one that catches.
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
template <class E>
[[noreturn]] void raise(const E& error) {
    throw error;
}
/// Calls f, and on_error where it throws; std::current_exception tells there what.
template <class F, class OnError>
void attempt(F&& f, OnError&& on_error) {
    try {
        f();
    } catch (...) {
        on_error();
    }
}
#else
template <class E>
[[noreturn]] void raise(const E& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::abort();
}
template <class F, class OnError>
void attempt(F&& f, OnError&&) {
    f();
}
#endif

/// Shortest text that reads back as `value`.
template <class T>
requires std::integral<T> || std::floating_point<T>
std::string to_text(T value) {
    char buffer[64];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
    return error == std::errc{} ? std::string(buffer, end) : std::string("?");
}
inline std::string to_text(std::string_view value) { return std::string(value); }

/// Throws `invalid_argument` reading "function: rule, got value" (several values are joined by " and ").
template <class... Values>
[[noreturn]] void fail(std::string_view function, std::string_view rule, const Values&... values) {
    std::string message = std::string(function) + ": " + std::string(rule);
    [[maybe_unused]] std::string_view lead = ", got ";
    ((message += lead, message += to_text(values), lead = " and "), ...);
    raise(invalid_argument(printable(message)));
}

template <class... Values>
void require(bool condition, std::string_view function, std::string_view rule, const Values&... values) {
    if (!condition) fail(function, rule, values...);
}

} // namespace detail

/// Likewise: the shortest text that reads back as a number.
using detail::to_text;

} // namespace v0_2
} // namespace attnscope
