// Safetensors files, read where asked.
#pragma once

#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/safetensors_header.hpp>

#include <bit>
#include <concepts>
#include <span>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// A type whose arrays can be seen in place in a file.
template <class T>
concept Viewable = detail::dtype_of<T> != Dtype::unsupported;

/// A safetensors file, open for reading. The constructor checks every rule of the format, so the members only
/// fail for reasons of their own. A dtype that is well-formed but not read here (F8_E4M3, C64, ...) does not
/// stop the file from opening; its tensor has `Dtype::unsupported`.
/// Invariant. Copying is not possible; moving keeps views valid. Reading from several threads at once is
/// safe.
/// Throws. At opening, `io_error` with the position unless: at least 8 bytes; header within the file and at
/// most 100 MB; starts with '{'; valid UTF-8 JSON; no name, metadata key or field twice; exactly the fields
/// dtype, shape, data_offsets; shape and offsets non-negative integers (at most 64 dimensions); begin <= end
/// <= size of the data; product of the shape times the size of the dtype equals end - begin, without
/// overflow; no overlap; no hole; the last tensor ends with the file; metadata is string to string, of at
/// most a million keys.
/// Example:
///     const io::SafetensorsFile file("head.safetensors");
///     const std::vector<Eigen::Index>& shape = file.info("q").shape;
///     const std::vector<float> q = file.read<float>("q");
///     const Eigen::Map<const Matrix<float>> queries(q.data(), shape[0], shape[1]);
class SafetensorsFile {
public:
    /// A file that is shortened while it is open is an `io_error` when its data are asked for.
    /// Cost. One pass over the header.
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

    /// What the header says about a tensor.
    /// Throws. `io_error` when there is no such tensor.
    const TensorInfo& info(std::string_view name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) throw io_error(path(), 8, "there is no tensor " + detail::in_quotes(name));
        return found->second.info;
    }

    /// The content of "__metadata__", sorted by key; empty when the file has none.
    const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return metadata_; }

    /// All elements of a F64, F32, F16 or BF16 tensor, row-major, as T (float or double). Widening is exact,
    /// F64 to float rounds to nearest.
    /// Throws. `io_error` for another dtype and for an unknown name.
    template <std::floating_point T>
    std::vector<T> read(std::string_view name) const {
        return read<T>(name, 0, info(name).elements);
    }

    /// Elements first .. first + count - 1 only; the rest of the tensor is not touched.
    /// Throws. As above, and `invalid_argument` when they are not all inside the tensor.
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

    /// All elements of a BOOL, I8 ... I64 or U8 ... U64 tensor, row-major.
    /// Throws. `io_error` for another dtype, an unknown name, a U64 value of 2^63 or more, and a BOOL that is
    /// neither 0 nor 1.
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
    /// Needs a file that is in memory, as `SafetensorsFile(File::map(path))` is.
    /// Throws. `io_error` with the reason when it is not, the dtype is not T's, the data are not aligned for
    /// T in the file, or the machine is big-endian: use `read` then.
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

} // namespace io
} // namespace v0_2
} // namespace attnscope
