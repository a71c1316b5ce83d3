// NumPy's .npy files, read and written. Not in the umbrella.
//
// Format (numpy.lib.format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): the bytes
// \x93NUMPY, two version bytes, a little-endian header length (2 bytes in version 1.0, 4 in 2.0 and 3.0), the
// header - a Python dictionary with exactly the keys descr, fortran_order and shape, padded with spaces and
// ended by a newline - and the data.
#pragma once

#include <attnscope/config.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/io/elements.hpp>
#include <attnscope/io/file.hpp>
#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/write_file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Element types an .npy file can be read as.
template <class T>
concept NpyScalar = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, std::int64_t>;

/// What `read_npy` and `NpzFile` give.
template <NpyScalar T>
struct NpyArray {
    std::vector<Eigen::Index> shape;  ///< empty for a scalar
    std::vector<T> data;              ///< row-major (C order), whatever the order in the file
    Dtype dtype = Dtype::unsupported; ///< of the numbers in the file
};

/// What a file does not say about itself.
struct NpyOptions {
    /// Two raw bytes ("V2") are a bfloat16: NumPy has no such type, and JAX and ml_dtypes save it so.
    bool bfloat16 = false;
};

namespace detail {

inline constexpr std::uint64_t max_npy_header = std::uint64_t{1} << 20;

struct NpyHeader {
    Dtype dtype = Dtype::unsupported;
    std::size_t item_size = 0;
    std::endian order = std::endian::native;
    std::string descr;
    bool fortran_order = false;
    std::vector<Eigen::Index> shape;
};

/// Reads the dictionary of the header: a strict subset of Python, no more than the format needs.
class NpyHeaderParser {
public:
    NpyHeaderParser(const std::string& path, std::uint64_t offset, std::string_view text, NpyOptions options)
        : path_(path), offset_(offset), text_(text), options_(options) {}

    NpyHeader parse() {
        NpyHeader header;
        std::array<bool, 3> seen{};
        expect('{', "the header must be a Python dictionary");
        while (!take('}')) {
            const std::string_view key = string("a key");
            expect(':', "a key must be followed by ':'");
            std::size_t number = 0;
            if (key == "descr")
                descr(header);
            else if (key == "fortran_order")
                number = 1, header.fortran_order = boolean();
            else if (key == "shape")
                number = 2, header.shape = shape();
            else
                fail("the header has the unknown key " + in_quotes(key));
            if (std::exchange(seen[number], true))
                fail("the header has the key " + std::string(key) + " twice");
            if (take(',')) continue;
            expect('}', "the entries of the header must be separated by ','");
            break;
        }
        skip_space();
        if (at_ != text_.size()) fail("there is text behind the dictionary of the header");
        constexpr std::array<const char*, 3> names{"descr", "fortran_order", "shape"};
        for (std::size_t i = 0; i < names.size(); ++i)
            if (!seen[i]) fail("the header has no key " + std::string(names[i]));
        return header;
    }

private:
    [[noreturn]] void fail(const std::string& reason) const { throw io_error(path_, offset_ + at_, reason); }

    void skip_space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
    }
    bool take(char c) {
        skip_space();
        if (at_ == text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    void expect(char c, const char* rule) {
        if (!take(c)) fail(rule);
    }

    std::string_view string(const char* what) {
        skip_space();
        const char quote = at_ < text_.size() ? text_[at_] : '\0';
        if (quote != '\'' && quote != '"') fail(std::string(what) + " must be a string");
        const std::size_t end = text_.find(quote, at_ + 1);
        if (end == text_.npos) fail("a string of the header does not end");
        const std::string_view value = text_.substr(at_ + 1, end - at_ - 1);
        if (value.find_first_of("\\\n") != value.npos)
            fail("a string of the header holds a backslash or a newline");
        at_ = end + 1;
        return value;
    }

    bool boolean() {
        skip_space();
        for (const std::string_view word : {"True", "False"})
            if (text_.substr(at_).starts_with(word)) {
                at_ += word.size();
                return word == "True";
            }
        fail("fortran_order must be True or False");
    }

    std::vector<Eigen::Index> shape() {
        std::vector<Eigen::Index> shape;
        bool comma = true;
        expect('(', "shape must be a tuple");
        while (!take(')')) {
            if (!comma) fail("the dimensions of shape must be separated by ','");
            if (shape.size() == max_rank) fail("shape has more than 64 dimensions");
            shape.push_back(dimension());
            comma = take(',');
        }
        if (shape.size() == 1 && !comma) fail("shape must be a tuple: one dimension is written (n,)");
        return shape;
    }

    Eigen::Index dimension() {
        skip_space();
        const auto digit = [this] { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; };
        if (!digit()) fail("a dimension must be a non-negative integer");
        const bool zero = text_[at_] == '0';
        std::uint64_t value = 0;
        const std::size_t first = at_;
        for (; digit(); ++at_) {
            const auto next = static_cast<std::uint64_t>(text_[at_] - '0');
            if (multiply_overflows(value, 10, value) || value > max_dimension - next)
                fail("a dimension is too large");
            value += next;
        }
        if (zero && at_ - first > 1) fail("a dimension must not have leading zeros");
        if (at_ < text_.size() && text_[at_] == 'L') ++at_; // Python 2 writes its long integers so
        return static_cast<Eigen::Index>(value);
    }

    void descr(NpyHeader& header) {
        skip_space();
        if (at_ < text_.size() && (text_[at_] == '[' || text_[at_] == '(' || text_[at_] == '{'))
            fail("a structured dtype is not supported");
        header.descr = string("descr");
        std::string_view type = header.descr;
        if (type.starts_with('<') || type.starts_with('>')) {
            header.order = type[0] == '<' ? std::endian::little : std::endian::big;
            type.remove_prefix(1);
        } else if (type.starts_with('=') || type.starts_with('|'))
            type.remove_prefix(1);

        struct Row {
            std::string_view name;
            Dtype dtype;
            std::size_t size;
        };
        constexpr std::array<Row, 12> rows{{
            {"b1", Dtype::boolean, 1},
            {"i1", Dtype::i8, 1},
            {"u1", Dtype::u8, 1},
            {"i2", Dtype::i16, 2},
            {"u2", Dtype::u16, 2},
            {"i4", Dtype::i32, 4},
            {"u4", Dtype::u32, 4},
            {"i8", Dtype::i64, 8},
            {"u8", Dtype::u64, 8},
            {"f2", Dtype::f16, 2},
            {"f4", Dtype::f32, 4},
            {"f8", Dtype::f64, 8},
        }};
        if (type == "V2") {
            if (!options_.bfloat16)
                fail("the dtype " + in_quotes(header.descr) +
                     " (raw bytes) is not supported; if it is bfloat16, as JAX and ml_dtypes save it, say so "
                     "(NpyOptions, --bfloat16) or save the array as float32");
            header.dtype = Dtype::bf16;
            header.item_size = 2;
            if (type.size() == header.descr.size() || header.descr[0] == '|')
                header.order = std::endian::little;
            return;
        }
        for (const Row& row : rows)
            if (row.name == type) {
                header.dtype = row.dtype;
                header.item_size = row.size;
                return;
            }
        fail("the dtype " + in_quotes(header.descr) + kind(type.empty() ? '\0' : type[0]) +
             " is not supported");
    }

    static const char* kind(char letter) {
        switch (letter) {
        case 'c':
            return " (complex numbers)";
        case 'O':
            return " (Python objects)";
        case 'S':
        case 'a':
            return " (byte strings)";
        case 'U':
            return " (strings)";
        case 'V':
            return " (raw bytes)";
        case 'M':
            return " (dates)";
        case 'm':
            return " (time differences)";
        case 'f':
            return " (floating-point numbers of this size)";
        default:
            return "";
        }
    }

    const std::string& path_;
    std::uint64_t offset_;
    std::string_view text_;
    NpyOptions options_;
    std::size_t at_ = 0;
};

/// Row-major copy of column-major data.
template <class T>
std::vector<T> to_row_major(const std::vector<T>& values, const std::vector<Eigen::Index>& shape) {
    std::vector<T> out(values.size());
    std::vector<std::size_t> stride(shape.size(), 1), index(shape.size(), 0);
    for (std::size_t i = 1; i < shape.size(); ++i)
        stride[i] = stride[i - 1] * static_cast<std::size_t>(shape[i - 1]);
    std::size_t source = 0;
    for (T& value : out) {
        value = values[source];
        for (std::size_t axis = shape.size(); axis-- > 0;) {
            source += stride[axis];
            if (++index[axis] < static_cast<std::size_t>(shape[axis])) break;
            source -= stride[axis] * index[axis];
            index[axis] = 0;
        }
    }
    return out;
}

template <class T>
void write_npy(const std::string& path, const char* descr, std::span<const T> values,
               std::span<const Eigen::Index> shape) {
    const std::uint64_t elements = checked_elements("write_npy", shape);
    attnscope::detail::require(elements == values.size(), "write_npy",
                               "the product of the shape must be the number of values", elements,
                               values.size());
    std::string header = "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (";
    for (std::size_t i = 0; i < shape.size(); ++i)
        header += (i == 0 ? "" : " ") + std::to_string(shape[i]) + (i + 1 < shape.size() || i == 0 ? "," : "");
    header += "), }";
    constexpr std::size_t before = 10;
    header.resize((before + header.size() + 1 + 63) / 64 * 64 - before - 1, ' ');
    header += '\n'; // at most 64 dimensions of 20 characters: the length always fits in two bytes
    const std::string start = std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size() & 0xff) +
                              static_cast<char>(header.size() >> 8) + header;
    const auto data = little_endian(values);
    const std::array<std::span<const std::byte>, 2> parts{std::as_bytes(std::span(start)), data};
    write_file(path, parts);
}

} // namespace detail

namespace detail {

/// The array that fills `size` bytes of a file from byte `start` on.
template <NpyScalar T>
NpyArray<T> read_npy_part(const File& file, std::uint64_t start, std::uint64_t size, NpyOptions options) {
    const std::string& path = file.path();
    std::array<std::byte, 12> first{};
    const std::size_t got = std::min<std::size_t>(first.size(), static_cast<std::size_t>(size));
    file.read(start, std::span(first).first(got));
    const auto byte = [&](std::size_t i) { return std::to_integer<std::uint64_t>(first[i]); };
    constexpr std::string_view magic("\x93NUMPY", 6);
    if (std::string_view(reinterpret_cast<const char*>(first.data()), got).substr(0, magic.size()) != magic)
        fail_as_kind(file, start, start, "the file does not start with \\x93NUMPY");
    if (size < 8) throw io_error(path, start + size, "the file ends before the version");
    const auto major = byte(6), minor = byte(7);
    if (major < 1 || major > 3 || minor != 0)
        throw io_error(path, start + 6,
                       "version " + std::to_string(major) + "." + std::to_string(minor) + " is not supported");
    const std::size_t width = major == 1 ? 2 : 4;
    if (size < 8 + width) throw io_error(path, start + size, "the file ends before the header length");
    std::uint64_t length = 0;
    for (std::size_t i = width; i-- > 0;) length = length << 8 | byte(8 + i);
    if (length > max_npy_header)
        throw io_error(path, start + 8,
                       "the header length " + std::to_string(length) + " is over the limit of 1 MiB");
    if (length > size - 8 - width)
        throw io_error(path, start + 8,
                       "the header length " + std::to_string(length) + " is more than the file holds");

    const std::uint64_t text_start = start + 8 + width, data_start = text_start + length;
    std::string text(static_cast<std::size_t>(length), '\0');
    file.read(text_start, std::as_writable_bytes(std::span(text)));
    NpyHeader header = NpyHeaderParser(path, text_start, text, options).parse();
    std::uint64_t elements = 1, needed = 0;
    for (const Eigen::Index dimension : header.shape)
        if (multiply_overflows(elements, static_cast<std::uint64_t>(dimension), elements))
            throw io_error(path, text_start, "the product of the shape overflows 64 bits");
    if (multiply_overflows(elements, header.item_size, needed))
        throw io_error(path, text_start, "the size of the data overflows 64 bits");
    if (const std::uint64_t present = start + size - data_start; present != needed)
        throw io_error(path, present < needed ? start + size : data_start + needed,
                       "shape and dtype need " + std::to_string(needed) + " bytes of data, the file holds " +
                           std::to_string(present));
    if (std::integral<T> && is_floating(header.dtype))
        throw io_error(path, text_start,
                       "the dtype " + in_quotes(header.descr) + " cannot be read as integers");

    NpyArray<T> array{std::move(header.shape), std::vector<T>(static_cast<std::size_t>(elements)),
                      header.dtype};
    decode(file, data_start, header.dtype, header.order, std::span<T>(array.data));
    if (header.fortran_order && array.shape.size() > 1) array.data = to_row_major(array.data, array.shape);
    return array;
}

} // namespace detail

/// The array in an open file. Read are bool, signed and unsigned integers of 1 to 8 bytes, and floating-point
/// numbers of 2, 4 and 8 bytes, in either byte order, versions 1.0, 2.0 and 3.0, also as Python 2 writes
/// them; on request bfloat16. Data in Fortran order are transposed.
/// Shapes and units. T is float, double or std::int64_t. Floating-point numbers convert to T by rounding to
/// nearest (exact when T is as wide); integers must be exact in T, and floating-point files cannot be read as
/// std::int64_t.
/// Cost. One pass over the data, allocates the array; two of them in Fortran order.
/// Throws. `io_error` with the position for everything else (complex numbers, objects, strings, structures, a
/// header with other keys, more than 64 dimensions, more than 1 MiB of header), and for data that are shorter
/// or longer than the shape says.
template <NpyScalar T>
NpyArray<T> read_npy(const File& file, NpyOptions options = {}) {
    return detail::read_npy_part<T>(file, 0, file.size(), options);
}

/// As above, opening the file.
template <NpyScalar T>
NpyArray<T> read_npy(const std::string& path, NpyOptions options = {}) {
    return read_npy<T>(File::open(path), options);
}

/// Writes row-major `values` as version 1.0, little-endian, data aligned to 64 bytes, as `write_file` does:
/// no partial file is ever seen under this name.
/// Throws. `invalid_argument` when the product of the shape is not the number of values, `io_error` when the
/// file cannot be written.
inline void write_npy(const std::string& path, std::span<const float> values,
                      std::span<const Eigen::Index> shape) {
    detail::write_npy(path, "<f4", values, shape);
}
/// As above, of doubles.
inline void write_npy(const std::string& path, std::span<const double> values,
                      std::span<const Eigen::Index> shape) {
    detail::write_npy(path, "<f8", values, shape);
}
/// As above, of integers.
inline void write_npy(const std::string& path, std::span<const std::int64_t> values,
                      std::span<const Eigen::Index> shape) {
    detail::write_npy(path, "<i8", values, shape);
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
