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
#include <type_traits>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// The number of 8 bytes.
inline std::uint64_t from_little_endian(const std::byte* bytes) {
    std::uint64_t x = 0;
    if constexpr (std::endian::native == std::endian::big)
        for (int i = 8; i-- > 0;) x = x << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    else
        std::memcpy(&x, bytes, 8);
    return x;
}

} // namespace detail

/// 64 bits of what bytes say: tells inputs and configurations apart, and whole files from damaged ones. No defence against who
/// wants to deceive.
/// Formula. Of every 8 bytes, little-endian, the last ones filled up with zeros: h = (h xor word) 0x9e3779b97f4a7c15, then h = h
/// xor (h >> 32); last of all the number of bytes likewise. h begins as 0xcbf29ce484222325.
class Hash64 {
public:
    /// Cost. One multiplication for 8 bytes.
    void add(std::span<const std::byte> bytes) {
        size_ += bytes.size();
        while (!bytes.empty() && pending_ > 0) {
            take(bytes.front());
            bytes = bytes.subspan(1);
        }
        for (; bytes.size() >= 8; bytes = bytes.subspan(8))
            mix(value_, detail::from_little_endian(bytes.data()));
        for (const std::byte b : bytes) take(b);
    }
    void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
    /// Of all bytes so far.
    std::uint64_t value() const {
        std::uint64_t value = value_;
        if (pending_ > 0) mix(value, word_);
        mix(value, size_);
        return value;
    }

private:
    static void mix(std::uint64_t& value, std::uint64_t word) {
        value = (value ^ word) * 0x9e3779b97f4a7c15u;
        value ^= value >> 32;
    }
    void take(std::byte b) {
        word_ |= std::to_integer<std::uint64_t>(b) << (8 * pending_);
        if (++pending_ < 8) return;
        mix(value_, word_);
        word_ = 0;
        pending_ = 0;
    }

    std::uint64_t value_ = 0xcbf29ce484222325u, word_ = 0, size_ = 0;
    int pending_ = 0; ///< bytes in word_
};

/// Writes numbers as bytes, the least significant first.
class StateWriter {
public:
    void number(std::uint64_t x, int bytes = 8) {
        if constexpr (std::endian::native == std::endian::big)
            for (int i = 0; i < bytes; ++i) bytes_.push_back(static_cast<std::byte>(x >> (8 * i) & 0xff));
        else
            append(&x, static_cast<std::size_t>(bytes));
    }
    /// Numbers without their count: of float, double or 8 byte integers.
    template <class N>
    void numbers(std::span<const N> list) {
        static_assert(sizeof(N) == 4 || sizeof(N) == 8);
        using Bits = std::conditional_t<sizeof(N) == 4, std::uint32_t, std::uint64_t>;
        if constexpr (std::endian::native == std::endian::big)
            for (const N x : list) number(std::bit_cast<Bits>(x), sizeof(N));
        else
            append(list.data(), list.size_bytes());
    }
    void index(std::int64_t x) { number(static_cast<std::uint64_t>(x)); }
    void flag(bool x) { number(x ? 1 : 0, 1); }
    void real(double x) { number(std::bit_cast<std::uint64_t>(x)); }
    void real(float x) { number(std::bit_cast<std::uint32_t>(x), 4); }
    void optional_real(const std::optional<double>& x) {
        flag(x.has_value());
        if (x) real(*x);
    }
    void text(std::string_view x) {
        number(x.size());
        append(x.data(), x.size());
    }
    /// A list of numbers: how many, then each.
    template <class Numbers>
    void reals(const Numbers& list) {
        number(static_cast<std::uint64_t>(list.size()));
        numbers(std::span<const double>(list.data(), static_cast<std::size_t>(list.size())));
    }
    template <class Numbers>
    void indices(const Numbers& list) {
        number(static_cast<std::uint64_t>(list.size()));
        numbers(std::span<const std::int64_t>(list.data(), static_cast<std::size_t>(list.size())));
    }
    /// Room for so many more bytes.
    void reserve(std::size_t more) { bytes_.reserve(bytes_.size() + more); }
    const std::vector<std::byte>& bytes() const& { return bytes_; }
    std::vector<std::byte> bytes() && { return std::move(bytes_); }

private:
    void append(const void* from, std::size_t size) {
        const auto* const first = static_cast<const std::byte*>(from);
        bytes_.insert(bytes_.end(), first, first + size);
    }
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
        if (bytes == 8)
            x = detail::from_little_endian(bytes_.data() + at_);
        else
            for (int i = bytes; i-- > 0;)
                x = x << 8 | std::to_integer<std::uint64_t>(bytes_[at_ + static_cast<std::size_t>(i)]);
        at_ += static_cast<std::size_t>(bytes);
        return x;
    }
    /// As many numbers as the list has, without a count: of float, double or 8 byte integers.
    template <class N>
    void numbers(std::span<N> list) {
        static_assert(sizeof(N) == 4 || sizeof(N) == 8);
        if (list.size() > (bytes_.size() - at_) / sizeof(N)) fail("the state ends here");
        using Bits = std::conditional_t<sizeof(N) == 4, std::uint32_t, std::uint64_t>;
        if constexpr (std::endian::native == std::endian::big) {
            for (N& x : list) x = std::bit_cast<N>(static_cast<Bits>(number(sizeof(N))));
        } else if (!list.empty()) {
            std::memcpy(list.data(), bytes_.data() + at_, list.size_bytes());
            at_ += list.size_bytes();
        }
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
    float small_real() { return std::bit_cast<float>(static_cast<std::uint32_t>(number(4))); }
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
        numbers(std::span(list));
        return list;
    }
    std::vector<std::int64_t> indices(std::optional<std::size_t> wanted = {}) {
        std::vector<std::int64_t> list(length(8, wanted));
        numbers(std::span(list));
        return list;
    }
    /// Bytes that have not been read.
    std::size_t left() const { return bytes_.size() - at_; }
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

inline constexpr std::uint32_t state_version = 3;

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
    std::string file; ///< all of it
    std::span<const std::byte> bytes() const {
        return std::as_bytes(std::span(file))
            .subspan(detail::state_header, file.size() - detail::state_header - 8);
    }
    StateReader reader(const std::string& path) const { return {path, bytes(), detail::state_header}; }
};

/// Reads a state file.
/// Throws. `io_error` that says what is wrong: no state file, another version, one that is not whole or was changed.
inline StateContent read_state(const std::string& path) {
    StateContent state;
    state.file = read_file(path, std::uint64_t{1} << 40);
    const std::string& content = state.file;
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
    return state;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
