// The header of a safetensors file, with every rule checked. Not in the umbrella: needs nlohmann-json.
//
// Format (https://github.com/huggingface/safetensors, README "Format"): 8 bytes, little-endian length N of the
// header; N bytes of JSON, {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__":
// {string: string}}; then the data, little-endian, row-major, without holes.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/elements.hpp>
#include <attnscope/io/file.hpp>
#include <attnscope/io/json.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
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

} // namespace io
} // namespace v0_2
} // namespace attnscope
