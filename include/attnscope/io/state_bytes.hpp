// State files: numbers and lists as bytes, the same on every machine, in a frame that tells whole files from others. Not in
// the umbrella. docs/states.md describes them byte by byte.
#pragma once

#include <attnscope/io/file.hpp>
#include <attnscope/io/write_file.hpp>

#include <bit>
#include <concepts>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_1 {
namespace io {

/// FNV-1a with 64 bits: tells inputs and configurations apart, and whole files from damaged ones. No defence against who
/// wants to deceive.
class Hash64 {
public:
    void add(std::span<const std::byte> bytes) {
        for (const std::byte b : bytes) value_ = (value_ ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
    }
    void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
    std::uint64_t value() const { return value_; }

private:
    std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// Writes numbers as bytes, the least significant first.
class StateWriter {
public:
    void number(std::uint64_t x, int bytes = 8) {
        for (int i = 0; i < bytes; ++i) bytes_.push_back(static_cast<std::byte>(x >> (8 * i) & 0xff));
    }
    void index(std::int64_t x) { number(static_cast<std::uint64_t>(x)); }
    void flag(bool x) { number(x ? 1 : 0, 1); }
    void real(double x) { number(std::bit_cast<std::uint64_t>(x)); }
    void optional_real(const std::optional<double>& x) {
        flag(x.has_value());
        if (x) real(*x);
    }
    void text(std::string_view x) {
        number(x.size());
        for (const char c : x) bytes_.push_back(static_cast<std::byte>(c));
    }
    /// A list of numbers: how many, then each.
    template <class Numbers>
    void reals(const Numbers& numbers) {
        number(static_cast<std::uint64_t>(numbers.size()));
        for (const double x : numbers) real(x);
    }
    template <class Numbers>
    void indices(const Numbers& numbers) {
        number(static_cast<std::uint64_t>(numbers.size()));
        for (const std::int64_t x : numbers) index(x);
    }
    const std::vector<std::byte>& bytes() const { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

/// Reads what `StateWriter` wrote.
/// Throws. `io_error` with the byte, where the bytes end too early, and for lists that are longer than the rest of them.
class StateReader {
public:
    StateReader(std::string path, std::span<const std::byte> bytes, std::uint64_t begin = 0)
        : path_(std::move(path)), bytes_(bytes), begin_(begin) {}

    std::uint64_t number(int bytes = 8) {
        need(static_cast<std::uint64_t>(bytes));
        std::uint64_t x = 0;
        for (int i = bytes; i-- > 0;)
            x = x << 8 | std::to_integer<std::uint64_t>(bytes_[at_ + static_cast<std::size_t>(i)]);
        at_ += static_cast<std::size_t>(bytes);
        return x;
    }
    std::int64_t index() { return static_cast<std::int64_t>(number()); }
    /// An index in [0, limit].
    std::int64_t count(std::int64_t limit = std::int64_t{1} << 40) {
        const std::int64_t x = index();
        if (x < 0 || x > limit)
            fail("a count must be from 0 to " + std::to_string(limit) + ", got " + std::to_string(x));
        return x;
    }
    bool flag() {
        const std::uint64_t x = number(1);
        if (x > 1) fail("a flag must be 0 or 1, got " + std::to_string(x));
        return x == 1;
    }
    double real() { return std::bit_cast<double>(number()); }
    std::optional<double> optional_real() { return flag() ? std::optional(real()) : std::nullopt; }
    std::string text() {
        const std::size_t size = length(1);
        std::string x(size, '\0');
        if (size > 0) std::memcpy(x.data(), bytes_.data() + at_, size);
        at_ += size;
        return x;
    }
    /// Numbers of a list. With `wanted`, there must be as many.
    std::vector<double> reals(std::optional<std::size_t> wanted = {}) {
        std::vector<double> list(length(8, wanted));
        for (double& x : list) x = real();
        return list;
    }
    std::vector<std::int64_t> indices(std::optional<std::size_t> wanted = {}) {
        std::vector<std::int64_t> list(length(8, wanted));
        for (std::int64_t& x : list) x = index();
        return list;
    }
    /// All must have been read.
    void finish() const {
        if (at_ < bytes_.size()) fail("there are " + std::to_string(bytes_.size() - at_) + " bytes too many");
    }
    [[noreturn]] void fail(const std::string& reason) const { throw io_error(path_, begin_ + at_, reason); }

private:
    void need(std::uint64_t bytes) const {
        if (bytes > bytes_.size() - at_) fail("the state ends here");
    }
    std::size_t length(std::uint64_t each, std::optional<std::size_t> wanted = {}) {
        const std::uint64_t size = number();
        if (size > (bytes_.size() - at_) / each)
            fail("a list of " + std::to_string(size) + " is longer than the rest");
        if (wanted && size != *wanted)
            fail("a list must have " + std::to_string(*wanted) + " elements, has " + std::to_string(size));
        return static_cast<std::size_t>(size);
    }

    std::string path_;
    std::span<const std::byte> bytes_;
    std::uint64_t begin_;
    std::size_t at_ = 0;
};

/// What a state file is of.
struct StateLabel {
    std::uint32_t kind = 0;          ///< of the content: see docs/states.md
    std::uint64_t configuration = 0; ///< `Hash64` of what it was computed with
    std::uint64_t input = 0;         ///< and from
    friend bool operator==(const StateLabel&, const StateLabel&) = default;
};

inline constexpr std::uint32_t state_version = 1;

namespace detail {

inline constexpr std::string_view state_magic = "ATNSTATE";
inline constexpr std::size_t state_header = 8 + 4 + 4 + 8 + 8 + 8;

} // namespace detail

/// Writes a state whole or not at all, in a frame: "ATNSTATE", version, kind, both hashes, the number of bytes, the bytes,
/// the hash of all before.
/// Throws. `io_error` with the system's reason.
inline void write_state(const std::string& path, const StateLabel& label, const StateWriter& content) {
    StateWriter head, tail;
    for (const char c : detail::state_magic) head.number(static_cast<unsigned char>(c), 1);
    head.number(state_version, 4);
    head.number(label.kind, 4);
    head.number(label.configuration);
    head.number(label.input);
    head.number(content.bytes().size());
    Hash64 hash;
    hash.add(head.bytes());
    hash.add(content.bytes());
    tail.number(hash.value());
    const std::array<std::span<const std::byte>, 3> parts{head.bytes(), content.bytes(), tail.bytes()};
    write_file(path, parts);
}

/// A state as it stands in a file.
struct StateContent {
    StateLabel label;
    std::vector<std::byte> bytes;
    StateReader reader(const std::string& path) const { return {path, bytes, detail::state_header}; }
};

/// Reads a state file.
/// Throws. `io_error` that says what is wrong: no state file, another version, one that is not whole or was changed.
inline StateContent read_state(const std::string& path) {
    const std::string content = read_file(path, std::uint64_t{1} << 40);
    const std::span<const std::byte> bytes = std::as_bytes(std::span(content));
    if (bytes.size() < detail::state_header + 8 || content.compare(0, 8, detail::state_magic) != 0)
        throw io_error(path, 0,
                       content.compare(0, 8, detail::state_magic) == 0 ? "the state file is not whole"
                                                                       : "this is no state file");
    StateReader reader(path, bytes.subspan(8), 8);
    if (const std::uint64_t version = reader.number(4); version != state_version)
        throw io_error(path, 8,
                       "version " + std::to_string(version) + " of state files is not known, only " +
                           std::to_string(state_version));
    StateContent state;
    state.label.kind = static_cast<std::uint32_t>(reader.number(4));
    state.label.configuration = reader.number();
    state.label.input = reader.number();
    const std::uint64_t size = reader.number();
    if (size != bytes.size() - detail::state_header - 8)
        throw io_error(path, 32,
                       "the state file is not whole: " + std::to_string(size) + " bytes are announced, " +
                           std::to_string(bytes.size() - detail::state_header - 8) + " are there");
    Hash64 hash;
    hash.add(bytes.first(bytes.size() - 8));
    if (hash.value() != StateReader(path, bytes.last(8)).number())
        throw io_error(path, bytes.size() - 8, "the state file was changed: its hash does not fit");
    const auto inside = bytes.subspan(detail::state_header, static_cast<std::size_t>(size));
    state.bytes.assign(inside.begin(), inside.end());
    return state;
}

} // namespace io
} // namespace v0_1
} // namespace attnscope
