// Safetensors files, read where asked and written whole. Not in the umbrella: needs nlohmann-json.
//
// Format (https://github.com/huggingface/safetensors, README "Format"): 8 bytes, little-endian length N of the
// header; N bytes of JSON, {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__":
// {string: string}}; then the data, little-endian, row-major, without holes.
#pragma once

#include <attnscope/config.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/io/elements.hpp>
#include <attnscope/io/file.hpp>
#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/json.hpp>
#include <attnscope/io/write_file.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_1 {
namespace io {

/// What the header of a safetensors file says about one tensor.
struct TensorInfo {
    Dtype dtype = Dtype::unsupported;
    std::string dtype_name;          ///< as in the file: "F32", "BF16", ...
    std::vector<Eigen::Index> shape; ///< empty for a scalar
    std::uint64_t elements = 0;      ///< product of the shape
    std::uint64_t offset = 0;        ///< first byte, counted from the start of the file
    std::uint64_t bytes = 0;         ///< length of the data
};

namespace detail {

inline constexpr std::uint64_t max_safetensors_header = 100'000'000; // the limit of the reference reader
// An entry of two short strings takes ten times its text in memory; files hold a handful.
inline constexpr std::size_t max_safetensors_metadata = 1'000'000;

struct DtypeRow {
    std::string_view name;
    std::uint64_t bits; ///< of one element
    Dtype dtype;
};

/// All types of the format. Those that are not read still have their size checked.
inline constexpr std::array<DtypeRow, 22> safetensors_dtypes{{
    {"BOOL", 8, Dtype::boolean},
    {"I8", 8, Dtype::i8},
    {"U8", 8, Dtype::u8},
    {"I16", 16, Dtype::i16},
    {"U16", 16, Dtype::u16},
    {"I32", 32, Dtype::i32},
    {"U32", 32, Dtype::u32},
    {"I64", 64, Dtype::i64},
    {"U64", 64, Dtype::u64},
    {"F16", 16, Dtype::f16},
    {"BF16", 16, Dtype::bf16},
    {"F32", 32, Dtype::f32},
    {"F64", 64, Dtype::f64},
    {"C64", 64, Dtype::unsupported},
    {"F8_E4M3", 8, Dtype::unsupported},
    {"F8_E5M2", 8, Dtype::unsupported},
    {"F8_E8M0", 8, Dtype::unsupported},
    {"F8_E4M3FNUZ", 8, Dtype::unsupported},
    {"F8_E5M2FNUZ", 8, Dtype::unsupported},
    {"F6_E2M3", 6, Dtype::unsupported},
    {"F6_E3M2", 6, Dtype::unsupported},
    {"F4", 4, Dtype::unsupported},
}};

struct SafetensorsEntry {
    TensorInfo info;
    std::uint64_t position = 0; ///< in the file, just behind this entry of the header
};
using SafetensorsEntries = std::map<std::string, SafetensorsEntry, std::less<>>;

/// Receives the header's JSON event by event and accepts only the structure of the format. Each tensor goes
/// straight into the list, once it fits its dtype, its shape and the data. Nothing outside the format is
/// stored, and a level too many ends the reading, so neither size nor depth of a hostile header matters.
class SafetensorsHeader final : public JsonEvents {
public:
    SafetensorsHeader(const std::string& path, std::string_view text, std::uint64_t data_size)
        : JsonEvents(path, 8, text, "the header"), data_start_(8 + text.size()), data_size_(data_size) {
        read_events();
    }

    SafetensorsEntries tensors;
    std::map<std::string, std::string, std::less<>> metadata;

    bool null() override { unexpected("null"); }
    bool boolean(bool) override { unexpected("true or false"); }
    bool number_integer(number_integer_t) override { unexpected("a negative number"); }
    bool number_float(number_float_t, const string_t& text) override {
        unexpected("the number " + in_quotes(text));
    }

    bool number_unsigned(number_unsigned_t value) override {
        if (place_ == Place::shape) {
            if (value > max_dimension) fail("a dimension of " + tensor() + " is too large");
            if (entry_.info.shape.size() == max_rank) fail(tensor() + " has more than 64 dimensions");
            entry_.info.shape.push_back(static_cast<Eigen::Index>(value));
        } else if (place_ == Place::offsets && offsets_ < 2) {
            data_offsets_[offsets_++] = value;
        } else if (place_ == Place::offsets)
            fail("data_offsets of " + tensor() + " must be two numbers");
        else
            unexpected("a number");
        return true;
    }

    bool string(string_t& value) override {
        if (place_ == Place::tensor && field_ == Field::dtype) {
            entry_.info.dtype_name = std::move(value);
            check_dtype();
        } else if (place_ == Place::metadata)
            metadata[key_] = std::move(value);
        else
            unexpected("a string");
        return true;
    }

    bool start_object(std::size_t) override {
        if (place_ == Place::outside)
            place_ = Place::top;
        else if (place_ == Place::top && key_ == "__metadata__")
            place_ = Place::metadata;
        else if (place_ == Place::top) {
            place_ = Place::tensor;
            entry_ = SafetensorsEntry{};
            name_ = std::move(key_);
            seen_.fill(false);
        } else
            unexpected("an object");
        return true;
    }

    bool key(string_t& name) override {
        if (place_ == Place::top) {
            const bool tensor = name != "__metadata__";
            if (tensor) next_ = tensors.lower_bound(name);
            if (tensor ? next_ != tensors.end() && next_->first == name : std::exchange(has_metadata_, true))
                fail("the name " + in_quotes(name) + " appears twice");
        } else if (place_ == Place::metadata) {
            if (metadata.contains(name)) fail("the metadata key " + in_quotes(name) + " appears twice");
            if (metadata.size() == max_safetensors_metadata)
                fail("the metadata hold more than " + std::to_string(max_safetensors_metadata) + " keys");
        } else {
            const auto known = std::find(field_names.begin(), field_names.end(), name);
            if (known == field_names.end()) fail(tensor() + " has the unknown field " + in_quotes(name));
            const auto number = static_cast<std::size_t>(known - field_names.begin());
            if (std::exchange(seen_[number], true)) fail(tensor() + " has the field " + name + " twice");
            field_ = static_cast<Field>(number);
        }
        key_ = std::move(name);
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) {
            for (std::size_t i = 0; i < seen_.size(); ++i)
                if (!seen_[i]) fail(tensor() + " has no field " + std::string(field_names[i]));
            check_size();
            entry_.position = position();
            tensors.emplace_hint(next_, std::move(name_), std::move(entry_));
            place_ = Place::top;
        } else
            place_ = place_ == Place::metadata ? Place::top : Place::outside;
        return true;
    }

    bool start_array(std::size_t) override {
        if (place_ == Place::tensor && field_ == Field::shape)
            place_ = Place::shape;
        else if (place_ == Place::tensor && field_ == Field::data_offsets) {
            place_ = Place::offsets;
            offsets_ = 0;
        } else
            unexpected("an array");
        return true;
    }

    bool end_array() override {
        if (place_ == Place::offsets && offsets_ != 2)
            fail("data_offsets of " + tensor() + " must be two numbers");
        place_ = Place::tensor;
        return true;
    }

private:
    enum class Place { outside, top, metadata, tensor, shape, offsets };
    enum class Field { dtype, shape, data_offsets };
    static constexpr std::array<std::string_view, 3> field_names{"dtype", "shape", "data_offsets"};

    std::string tensor() const { return "tensor " + in_quotes(name_); }

    [[noreturn]] void unexpected(const std::string& found) const {
        std::string wanted;
        switch (place_) {
        case Place::outside:
            wanted = "the header must be a JSON object";
            break;
        case Place::top:
            wanted = in_quotes(key_) + " must be an object";
            break;
        case Place::metadata:
            wanted = "the metadata value of " + in_quotes(key_) + " must be a string";
            break;
        case Place::shape:
            wanted = "the shape of " + tensor() + " must hold non-negative integers";
            break;
        case Place::offsets:
            wanted = "data_offsets of " + tensor() + " must hold non-negative integers";
            break;
        case Place::tensor:
            wanted = std::string(field_names[static_cast<std::size_t>(field_)]) + " of " + tensor() +
                     (field_ == Field::dtype ? " must be a string" : " must be an array");
            break;
        }
        fail(wanted + ", but holds " + found);
    }

    void check_dtype() const {
        const std::string& name = entry_.info.dtype_name;
        const auto allowed = [](char c) {
            return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        };
        if (name.empty() || name.size() > 32 || name[0] < 'A' || name[0] > 'Z' ||
            !std::all_of(name.begin(), name.end(), allowed))
            fail(tensor() + " has the malformed dtype " + in_quotes(name));
    }

    /// Shape, dtype and place of the tensor that has just been read fit each other and the data.
    void check_size() {
        TensorInfo& info = entry_.info;
        const auto [begin, end] = data_offsets_;
        if (begin > end) fail("data_offsets of " + tensor() + " end before they begin");
        if (end > data_size_)
            fail(tensor() + " ends at byte " + std::to_string(end) + " of the data, which has only " +
                 std::to_string(data_size_));
        info.elements = 1;
        for (const Eigen::Index dimension : info.shape)
            if (multiply_overflows(info.elements, static_cast<std::uint64_t>(dimension), info.elements))
                fail("the product of the shape of " + tensor() + " overflows 64 bits");
        info.offset = data_start_ + begin;
        info.bytes = end - begin;

        const auto row =
            std::find_if(safetensors_dtypes.begin(), safetensors_dtypes.end(),
                         [&name = info.dtype_name](const auto& known) { return known.name == name; });
        if (row == safetensors_dtypes.end()) return; // size unknown, data never read
        info.dtype = row->dtype;
        std::uint64_t bits = 0;
        if (multiply_overflows(info.elements, row->bits, bits))
            fail("the size of " + tensor() + " overflows 64 bits");
        if (bits % 8 != 0 || bits / 8 != info.bytes)
            fail("shape and dtype of " + tensor() + " need " + std::to_string(bits) +
                 " bits, but data_offsets span " + std::to_string(info.bytes) + " bytes");
    }

    std::uint64_t data_start_, data_size_;
    Place place_ = Place::outside;
    Field field_ = Field::dtype;
    bool has_metadata_ = false;
    std::string key_;
    // Of the tensor that is being read:
    std::string name_;
    SafetensorsEntries::const_iterator next_; // before which it belongs
    SafetensorsEntry entry_;
    std::array<bool, 3> seen_{};
    std::array<std::uint64_t, 2> data_offsets_{};
    std::size_t offsets_ = 0; // of them that have been read
};

template <class T>
inline constexpr Dtype dtype_of = Dtype::unsupported;
template <>
inline constexpr Dtype dtype_of<std::int8_t> = Dtype::i8;
template <>
inline constexpr Dtype dtype_of<std::uint8_t> = Dtype::u8;
template <>
inline constexpr Dtype dtype_of<std::int16_t> = Dtype::i16;
template <>
inline constexpr Dtype dtype_of<std::uint16_t> = Dtype::u16;
template <>
inline constexpr Dtype dtype_of<std::int32_t> = Dtype::i32;
template <>
inline constexpr Dtype dtype_of<std::uint32_t> = Dtype::u32;
template <>
inline constexpr Dtype dtype_of<std::int64_t> = Dtype::i64;
template <>
inline constexpr Dtype dtype_of<std::uint64_t> = Dtype::u64;
template <>
inline constexpr Dtype dtype_of<Eigen::half> = Dtype::f16;
template <>
inline constexpr Dtype dtype_of<Eigen::bfloat16> = Dtype::bf16;
template <>
inline constexpr Dtype dtype_of<float> = Dtype::f32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::f64;

} // namespace detail

/// A type whose arrays can be seen in place in a file.
template <class T>
concept Viewable = detail::dtype_of<T> != Dtype::unsupported;

/// A safetensors file, open for reading. The constructor checks every rule of the format, so the members only
/// fail for reasons of their own. Copying is not possible; moving keeps views valid. Reading from several
/// threads at once is safe.
///
/// Rules checked at opening, each an `io_error` with the position: at least 8 bytes; header within the file and
/// at most 100 MB; starts with '{'; valid UTF-8 JSON; no name, metadata key or field twice; exactly the fields
/// dtype, shape, data_offsets; shape and offsets non-negative integers (at most 64 dimensions); begin <= end <=
/// size of the data; product of the shape times the size of the dtype equals end - begin, without overflow; no
/// overlap; no hole; the last tensor ends with the file; metadata is string to string, of at most a million
/// keys. A dtype that is well-formed but not read here (F8_E4M3, C64, ...) does not stop the file from opening;
/// its tensor has `Dtype::unsupported`.
class SafetensorsFile {
public:
    /// Cost: one pass over the header; the data are read when they are asked for. A file that is shortened
    /// while it is open is an `io_error` then.
    explicit SafetensorsFile(const std::string& path) : SafetensorsFile(File::open(path)) {}

    /// `File::map` for views of the data in place.
    explicit SafetensorsFile(File file) : file_(std::move(file)) { parse(); }

    const std::string& path() const noexcept { return file_.path(); }

    /// Names of all tensors, sorted.
    std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const auto& [name, entry] : tensors_) names.push_back(name);
        return names;
    }

    bool contains(std::string_view name) const { return tensors_.contains(name); }

    /// Throws `io_error` when there is no such tensor.
    const TensorInfo& info(std::string_view name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) throw io_error(path(), 8, "there is no tensor " + detail::in_quotes(name));
        return found->second.info;
    }

    /// The content of "__metadata__", sorted by key; empty when the file has none.
    const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return metadata_; }

    /// All elements of a F64, F32, F16 or BF16 tensor, row-major, as T (float or double). Widening is exact,
    /// F64 to float rounds to nearest. `io_error` for another dtype and for an unknown name.
    template <std::floating_point T>
    std::vector<T> read(std::string_view name) const {
        return read<T>(name, 0, info(name).elements);
    }

    /// Elements first .. first + count - 1 only; the rest of the tensor is not touched. `invalid_argument` when
    /// they are not all inside the tensor.
    template <std::floating_point T>
    std::vector<T> read(std::string_view name, std::uint64_t first, std::uint64_t count) const {
        check_slice("SafetensorsFile::read", name, first, count);
        std::vector<T> values(static_cast<std::size_t>(count));
        read_into<T>(name, first, values);
        return values;
    }

    /// As `read`, into memory of the caller; does not allocate.
    template <std::floating_point T>
    void read_into(std::string_view name, std::uint64_t first, std::span<T> out) const {
        static_assert(std::same_as<T, float> || std::same_as<T, double>, "read as float or double");
        const TensorInfo& tensor = info(name);
        if (!is_floating(tensor.dtype)) throw wrong_dtype(name, tensor, "floating-point numbers");
        decode(name, tensor, first, out);
    }

    /// All elements of a BOOL, I8 ... I64 or U8 ... U64 tensor, row-major. `io_error` for another dtype, an
    /// unknown name, a U64 value of 2^63 or more, and a BOOL that is neither 0 nor 1.
    std::vector<std::int64_t> read_integers(std::string_view name) const {
        return read_integers(name, 0, info(name).elements);
    }
    std::vector<std::int64_t> read_integers(std::string_view name, std::uint64_t first,
                                            std::uint64_t count) const {
        const TensorInfo& tensor = info(name);
        if (!is_integer(tensor.dtype)) throw wrong_dtype(name, tensor, "integers");
        check_slice("SafetensorsFile::read_integers", name, first, count);
        std::vector<std::int64_t> values(static_cast<std::size_t>(count));
        decode(name, tensor, first, std::span<std::int64_t>(values));
        return values;
    }

    /// The data in place, without a copy; valid as long as this object (or the one it is moved into) lives.
    /// Needs a file that is in memory, as `SafetensorsFile(File::map(path))` is. `io_error` with the reason
    /// when it is not, the dtype is not T's, the data are not aligned for T in the file, or the machine is
    /// big-endian: use `read` then.
    template <Viewable T>
    std::span<const T> view(std::string_view name) const {
        const TensorInfo& tensor = info(name);
        if (tensor.dtype != detail::dtype_of<T>)
            throw wrong_dtype(name, tensor, "the element type of the view");
        if (tensor.elements == 0) return {};
        if (sizeof(T) > 1 && std::endian::native != std::endian::little)
            throw io_error(path(), tensor.offset, "a view needs a little-endian machine");
        if (file_.memory().empty())
            throw io_error(path(), tensor.offset, "a view needs a file that is mapped (File::map)");
        const std::byte* const data = file_.memory().data() + static_cast<std::size_t>(tensor.offset);
        if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0)
            throw io_error(path(), tensor.offset,
                           "tensor " + detail::in_quotes(name) +
                               " cannot be viewed in place: its data are not aligned to " +
                               std::to_string(alignof(T)) + " bytes");
        return {reinterpret_cast<const T*>(data), static_cast<std::size_t>(tensor.elements)};
    }

private:
    io_error wrong_dtype(std::string_view name, const TensorInfo& tensor, const std::string& wanted) const {
        const bool unsupported = tensor.dtype == Dtype::unsupported;
        return io_error(path(), tensor.offset,
                        "tensor " + detail::in_quotes(name) + " has the " +
                            (unsupported ? "unsupported " : "") + "dtype " + tensor.dtype_name +
                            ", which cannot be read as " + wanted);
    }

    void check_slice(std::string_view function, std::string_view name, std::uint64_t first,
                     std::uint64_t count) const {
        const std::uint64_t elements = info(name).elements;
        attnscope::detail::require(first <= elements && count <= elements - first, function,
                                   "the slice must lie inside the tensor (first, count, elements)", first,
                                   count, elements);
    }

    template <class T>
    void decode(std::string_view name, const TensorInfo& tensor, std::uint64_t first, std::span<T> out) const {
        check_slice("SafetensorsFile::read", name, first, out.size());
        const std::uint64_t skipped = tensor.elements == 0 ? 0 : first * (tensor.bytes / tensor.elements);
        detail::decode(file_, tensor.offset + skipped, tensor.dtype, std::endian::little, out);
    }

    void parse() {
        if (file_.size() < 8)
            throw io_error(path(), file_.size(), "the file is shorter than the 8 bytes of a header length");
        std::array<std::byte, 8> bytes;
        file_.read(0, bytes);
        std::uint64_t length = 0;
        for (std::size_t i = 8; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(bytes[i]);
        if (length > detail::max_safetensors_header)
            detail::fail_as_kind(
                file_, 0, 0, "the header length " + std::to_string(length) + " is over the limit of 100 MB");
        if (length > file_.size() - 8)
            detail::fail_as_kind(
                file_, 0, 0, "the header length " + std::to_string(length) + " is more than the file holds");
        const std::uint64_t data_size = file_.size() - 8 - length;
        read_header(static_cast<std::size_t>(length), data_size);
        check_layout(8 + length, data_size);
    }

    void read_header(std::size_t length, std::uint64_t data_size) {
        std::string text(length, '\0');
        file_.read(8, std::as_writable_bytes(std::span(text)));
        if (!text.starts_with('{')) detail::fail_as_kind(file_, 0, 8, "the header does not start with '{'");
        detail::SafetensorsHeader header(path(), text, data_size);
        tensors_ = std::move(header.tensors);
        metadata_ = std::move(header.metadata);
    }

    /// The tensors fill the data, one after the other.
    void check_layout(std::uint64_t data_start, std::uint64_t data_size) const {
        std::vector<const detail::SafetensorsEntries::value_type*> sorted;
        sorted.reserve(tensors_.size());
        for (const auto& tensor : tensors_) sorted.push_back(&tensor);
        std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
            const auto key = [](const detail::SafetensorsEntry& entry) {
                return std::tuple(entry.info.offset, entry.info.bytes, entry.position);
            };
            return key(a->second) < key(b->second);
        });
        std::uint64_t covered = 0;
        for (const auto* tensor : sorted) {
            const auto& [info, position] = tensor->second;
            const std::uint64_t begin = info.offset - data_start;
            if (begin != covered)
                throw io_error(path(), position,
                               "tensor " + detail::in_quotes(tensor->first) + " begins at byte " +
                                   std::to_string(begin) + " of the data and " +
                                   (begin < covered ? "overlaps another tensor, which ends at "
                                                    : "leaves a hole: the tensor before it ends at ") +
                                   std::to_string(covered));
            covered = begin + info.bytes;
        }
        if (covered != data_size)
            throw io_error(path(), data_start + covered,
                           std::to_string(data_size - covered) + " bytes at the end belong to no tensor");
    }

    File file_;
    detail::SafetensorsEntries tensors_;
    std::map<std::string, std::string, std::less<>> metadata_;
};

/// Collects tensors and writes them as one safetensors file. F64 and I64 tensors come first in the file, then
/// F32, so that all of them can be viewed in place.
class SafetensorsWriter {
public:
    /// Adds a copy of `values` (row-major) under `name`. `invalid_argument` when the name is taken, is
    /// "__metadata__" or is not UTF-8, or when the product of the shape is not the number of values.
    void add(std::string name, std::span<const float> values, std::vector<Eigen::Index> shape) {
        add("F32", std::move(name), values, std::move(shape));
    }
    void add(std::string name, std::span<const double> values, std::vector<Eigen::Index> shape) {
        add("F64", std::move(name), values, std::move(shape));
    }
    void add(std::string name, std::span<const Eigen::half> values, std::vector<Eigen::Index> shape) {
        add("F16", std::move(name), values, std::move(shape));
    }
    void add(std::string name, std::span<const std::int64_t> values, std::vector<Eigen::Index> shape) {
        add("I64", std::move(name), values, std::move(shape));
    }

    /// Sets one entry of "__metadata__", replacing an older one of this key. `invalid_argument` when key or
    /// value is not UTF-8.
    void set_metadata(const std::string& key, const std::string& value) {
        metadata_[json_string(key)] = json_string(value);
    }

    /// Writes as `write_file` does: no partial file is ever seen under this name, and a regular file is
    /// replaced in one step. `io_error` when that fails.
    void write(const std::string& path) const {
        std::vector<const Tensor*> sorted;
        for (const auto& [name, tensor] : tensors_) sorted.push_back(&tensor);
        std::stable_sort(sorted.begin(), sorted.end(),
                         [](const Tensor* a, const Tensor* b) { return a->alignment > b->alignment; });

        std::string header;
        const auto separate = [&header] { header += header.empty() ? "{" : ","; };
        if (!metadata_.empty()) {
            separate();
            header += "\"__metadata__\":";
            char lead = '{';
            for (const auto& [key, value] : metadata_) {
                header += std::exchange(lead, ',');
                header += key + ":" + value;
            }
            header += '}';
        }
        std::vector<std::span<const std::byte>> parts(2);
        std::uint64_t begin = 0;
        for (const Tensor* tensor : sorted) {
            separate();
            header += tensor->json_name + ":{\"dtype\":\"" + tensor->dtype + "\",\"shape\":[";
            for (std::size_t i = 0; i < tensor->shape.size(); ++i)
                header += (i == 0 ? "" : ",") + std::to_string(tensor->shape[i]);
            const std::uint64_t end = begin + tensor->bytes.size();
            header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
            begin = end;
            parts.emplace_back(tensor->bytes);
        }
        header += header.empty() ? "{}" : "}";
        header.resize((header.size() + 7) / 8 * 8, ' ');
        attnscope::detail::require(header.size() <= detail::max_safetensors_header, "SafetensorsWriter::write",
                                   "the header must not exceed 100 MB", header.size());
        const std::uint64_t length = header.size();
        const auto length_bytes = detail::little_endian(std::span(&length, 1));
        parts[0] = length_bytes;
        parts[1] = std::as_bytes(std::span(header));
        write_file(path, parts);
    }

private:
    struct Tensor {
        std::string json_name, dtype;
        std::vector<Eigen::Index> shape;
        std::size_t alignment;
        std::vector<std::byte> bytes;
    };

    template <class T>
    void add(const char* dtype, std::string name, std::span<const T> values, std::vector<Eigen::Index> shape) {
        constexpr std::string_view here = "SafetensorsWriter::add";
        const std::uint64_t elements = detail::checked_elements(here, shape);
        attnscope::detail::require(elements == values.size(), here,
                                   "the product of the shape must be the number of values", elements,
                                   values.size());
        attnscope::detail::require(name != "__metadata__", here, "this name is reserved", name);
        attnscope::detail::require(!tensors_.contains(name), here, "a name is used once",
                                   detail::in_quotes(name));
        std::string json_name = json_string(name);
        tensors_.emplace(std::move(name), Tensor{std::move(json_name), dtype, std::move(shape), sizeof(T),
                                                 detail::little_endian(values)});
    }

    static std::string json_string(const std::string& text) {
        try {
            return nlohmann::json(text).dump();
        } catch (const nlohmann::json::type_error&) {
            attnscope::detail::fail("SafetensorsWriter", "text must be valid UTF-8", detail::in_quotes(text));
        }
    }

    std::map<std::string, Tensor> tensors_;
    std::map<std::string, std::string> metadata_; ///< both sides as JSON strings
};

} // namespace io
} // namespace v0_1
} // namespace attnscope
