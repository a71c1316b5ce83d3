// Safetensors files, written whole.
#pragma once

#include <attnscope/io/safetensors_header.hpp>
#include <attnscope/io/write_file.hpp>

#include <bit>
#include <span>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Collects tensors and writes them as one safetensors file. F64 and I64 tensors come first in the file, then
/// F32, so that all of them can be viewed in place.
/// Example, with q of `Matrix<float>`:
///     io::SafetensorsWriter writer;
///     writer.add("q", std::span<const float>(q.data(), 128 * 64), {128, 64});
///     writer.set_metadata("model", "of mine");
///     writer.write("head.safetensors");
class SafetensorsWriter {
public:
    /// Adds a copy of `values` (row-major) under `name`.
    /// Throws. `invalid_argument` when the name is taken, is "__metadata__" or is not UTF-8, or when the
    /// product of the shape is not the number of values.
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

    /// Sets one entry of "__metadata__", replacing an older one of this key.
    /// Throws. `invalid_argument` when key or value is not UTF-8.
    void set_metadata(const std::string& key, const std::string& value) {
        metadata_[json_string(key)] = json_string(value);
    }

    /// Writes as `write_file` does: no partial file is ever seen under this name, and a regular file is
    /// replaced in one step.
    /// Throws. `io_error` when that fails, `invalid_argument` for a header of more than 100 MB.
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
} // namespace v0_2
} // namespace attnscope
