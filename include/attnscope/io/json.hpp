// JSON text, read in one way for every file: io_error with file, byte and reason for whatever is wrong. Not in
// the umbrella: needs nlohmann-json.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/file.hpp>
#include <attnscope/io/file_kind.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Objects and arrays inside each other: no configuration nests deeper than a handful, while what is done with
/// a value afterwards (copying it, writing it out) takes a part of the stack for each level.
inline constexpr std::size_t max_json_depth = 64;

namespace detail {

/// Input iterator over the text that tells an onlooker how far the parser has read.
class CountingIterator {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
    reference operator*() const { return *at_; }
    CountingIterator& operator++() {
        *furthest_ = ++at_;
        return *this;
    }
    CountingIterator operator++(int) {
        const CountingIterator before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const CountingIterator& a, const CountingIterator& b) { return a.at_ == b.at_; }
    friend bool operator!=(const CountingIterator& a, const CountingIterator& b) { return a.at_ != b.at_; }

private:
    const char* at_;
    const char** furthest_;
};

/// Base of those who receive JSON event by event. Syntax errors and numbers that no double holds are `io_error`
/// here; the derived class says which structure it takes, and keeps `text` and `file` alive while it reads.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
public:
    bool parse_error(std::size_t read, const std::string& token,
                     const nlohmann::detail::exception& error) final {
        // `read` counts the bytes up to and with the one that does not fit.
        std::size_t at = std::min(read == 0 ? 0 : read - 1, text_.size());
        if (error.id == 406) { // the number is whole, only too large
            at = read - std::min(read, token.size());
            throw io_error(file_, start_ + at,
                           "number overflow: " + in_quotes(token) + " is larger than a double holds");
        }
        const auto of_word = [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                   c == '+';
        };
        std::size_t first = at, last = at;
        while (first > 0 && of_word(text_[first - 1]) && at - first < 16) --first;
        while (last < text_.size() && of_word(text_[last]) && last - at < 16) ++last;
        const std::string_view word = text_.substr(first, last - first);
        for (const std::string_view special : {"NaN", "Infinity", "-Infinity"})
            if (word == special)
                throw io_error(file_, start_ + first,
                               std::string(special) + " is no JSON, although Python writes it; JSON has null");

        std::string_view reason = error.what();
        for (const std::string_view lead :
             {"] ", "column ", ": "}) // drop "[json.exception...] parse error at ..."
            if (const std::size_t end = reason.find(lead); end != reason.npos)
                reason.remove_prefix(end + lead.size());
        std::string line;
        for (const char c : reason.substr(0, 120)) line += c >= 0x20 && c < 0x7f ? c : '?';
        throw io_error(file_, start_ + at, what_ + " is not valid JSON: " + line);
    }
    bool binary(binary_t&) final { fail("the text holds binary data"); } // not in JSON

protected:
    /// `start`: place of the text within the file; `what` it is, for messages.
    JsonEvents(const std::string& file, std::uint64_t start, std::string_view text, std::string what)
        : file_(file), start_(start), text_(text), what_(std::move(what)), furthest_(text.data()) {}

    void read_events() {
        // The parser would take a zero byte for the end of the text.
        if (const std::size_t zero = text_.find('\0'); zero != text_.npos)
            throw io_error(file_, start_ + zero, what_ + " is not valid JSON: it holds a zero byte");
        // Versions of the parser word this differently.
        if (text_.empty()) throw io_error(file_, start_, what_ + " is not valid JSON: unexpected end of input");
        const char* const first = text_.data();
        nlohmann::json::sax_parse(CountingIterator(first, &furthest_),
                                  CountingIterator(first + text_.size(), &furthest_), this);
    }

    /// Place in the file behind what has been read.
    std::uint64_t position() const { return start_ + static_cast<std::uint64_t>(furthest_ - text_.data()); }

    [[noreturn]] void fail(const std::string& reason) const { throw io_error(file_, position(), reason); }

private:
    const std::string& file_;
    std::uint64_t start_;
    std::string_view text_;
    std::string what_;
    const char* furthest_;
};

/// Makes a value of the events.
class JsonBuilder final : public JsonEvents {
public:
    JsonBuilder(const std::string& file, std::string_view text) : JsonEvents(file, 0, text, "the text") {
        read_events();
    }

    nlohmann::json value;

    bool null() override { return put(nullptr); }
    bool boolean(bool flag) override { return put(flag); }
    bool number_integer(number_integer_t number) override { return put(number); }
    bool number_unsigned(number_unsigned_t number) override { return put(number); }
    bool number_float(number_float_t number, const string_t&) override { return put(number); }
    bool string(string_t& text) override { return put(std::move(text)); }
    bool start_object(std::size_t) override { return begin(nlohmann::json::object()); }
    bool start_array(std::size_t) override { return begin(nlohmann::json::array()); }
    bool end_object() override { return end(); }
    bool end_array() override { return end(); }

    bool key(string_t& name) override {
        const auto [entry, fresh] = open_.back()->get_ref<nlohmann::json::object_t&>().emplace(name, nullptr);
        if (!fresh) fail("the key " + in_quotes(name) + " appears twice");
        member_ = &entry->second;
        return true;
    }

private:
    bool put(nlohmann::json&& part) {
        place(std::move(part));
        return true;
    }
    bool begin(nlohmann::json&& part) {
        if (open_.size() == max_json_depth)
            fail("the text nests more than " + std::to_string(max_json_depth) + " objects and arrays");
        open_.push_back(place(std::move(part)));
        return true;
    }
    bool end() {
        open_.pop_back();
        return true;
    }

    nlohmann::json* place(nlohmann::json&& part) {
        if (open_.empty()) return &(value = std::move(part));
        if (open_.back()->is_object()) return &(*member_ = std::move(part));
        auto& elements = open_.back()->get_ref<nlohmann::json::array_t&>();
        elements.push_back(std::move(part));
        return &elements.back();
    }

    std::vector<nlohmann::json*> open_; // innermost last
    nlohmann::json* member_ = nullptr;  // of the innermost object, whose key has been read
};

} // namespace detail

/// The value of a JSON text; `file` is its name in messages. Integers that fit neither 64-bit type become
/// doubles.
/// Throws. `io_error` with the byte at or just behind the fault: bad syntax or UTF-8, text behind the value,
/// a number that no double holds, NaN and Infinity (which Python writes, and which are no JSON), a key that
/// appears twice in an object, more than `max_json_depth` levels.
inline nlohmann::json parse_json(const std::string& file, std::string_view text) {
    return std::move(detail::JsonBuilder(file, text).value);
}

/// As above, of a whole file.
/// Throws. `io_error` as `read_file` does, too, and names what a file is instead.
inline nlohmann::json read_json(const std::string& path, std::uint64_t limit = std::uint64_t{1} << 28) {
    const std::string text = read_file(path, limit);
    if (const auto known = description(kind_of(std::string_view(text).substr(0, 512))); !known.empty())
        throw io_error(path, 0, "expected JSON, this is " + std::string(known));
    return parse_json(path, text);
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
