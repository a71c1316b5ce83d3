// Sets of keys that an engine selected, from a safetensors or .npz file. Not in the umbrella: needs nlohmann-json.
#pragma once

#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/npz.hpp>
#include <attnscope/io/safetensors_reader.hpp>
#include <attnscope/selector/key_sets.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// What was selected for every query of every head, as a file has it. One of these integer arrays, each also without the
/// leading dimensions, whose sets are then those of all layers, or of all heads:
///   keys     [layers, heads, queries, width]: the keys of each query, filled up with -1;
///   blocks   the same, of blocks of keys; beside it block_size, one number;
///   selected [layers, heads, queries, keys]: 1 where a key is selected, else 0;
///   offsets  [layers, heads, queries + 1], beside it indices [n]: indices[offsets[i]] ... indices[offsets[i+1] - 1] are the
///            keys of query i.
/// Invariant. One of heads or layers serves all.
/// Cost. Memory of the arrays, 8 bytes a number.
/// Throws. `io_error` that names the file, for no or several of these arrays, shapes that are none of these, and numbers that
/// are no integers.
class KeySetsFile {
public:
    explicit KeySetsFile(const std::string& path) : path_(path) {
        File file = File::open(path);
        std::string start(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 512)), '\0');
        file.read(0, std::as_writable_bytes(std::span(start)));
        if (kind_of(start) == FileKind::npz) {
            const NpzFile npz(std::move(file));
            for (const std::string_view name : names)
                if (npz.contains(name)) {
                    auto array = npz.read<std::int64_t>(name);
                    arrays_[place_of(name)] = {std::move(array.shape), std::move(array.data)};
                }
        } else {
            const SafetensorsFile tensors(std::move(file));
            for (const std::string_view name : names)
                if (tensors.contains(name))
                    arrays_[place_of(name)] = {tensors.info(name).shape, tensors.read_integers(name)};
        }
        check();
    }

    const std::string& path() const { return path_; }
    Index layers() const { return dimensions_[0]; } ///< 1: the same for all
    Index heads() const { return dimensions_[1]; }  ///< likewise
    Index queries() const { return dimensions_[2]; }

    /// The sets of a head whose queries see so many keys under a mask.
    /// Throws. `io_error` that names layer, head and what `KeySets` says of the query; `invalid_argument` for a layer or
    /// head that is not there.
    KeySets sets(Index layer, Index head, Index keys, const Mask& mask) const {
        attnscope::detail::require((layers() == 1 || layer < layers()) && (heads() == 1 || head < heads()) &&
                                       layer >= 0 && head >= 0,
                                   "KeySetsFile::sets", "there must be such a layer and head", layer, head);
        const Index place = (layers() == 1 ? 0 : layer) * heads() + (heads() == 1 ? 0 : head);
        try {
            return read(place, keys, mask);
        } catch (const invalid_argument& error) {
            throw io_error(path_, 0,
                           "layer " + std::to_string(layer) + ", head " + std::to_string(head) + ": " +
                               error.what());
        }
    }

private:
    struct Array {
        std::vector<Index> shape;
        std::vector<std::int64_t> data;
    };
    static constexpr std::array<std::string_view, 6> names = {"keys",    "blocks",  "selected",
                                                              "offsets", "indices", "block_size"};
    static constexpr std::size_t keys_at = 0, blocks_at = 1, selected_at = 2, offsets_at = 3, indices_at = 4,
                                 size_at = 5;
    static std::size_t place_of(std::string_view name) {
        return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    }
    [[noreturn]] void fail(const std::string& reason) const { throw io_error(path_, 0, reason); }

    void check() {
        for (std::size_t i = 0; i <= offsets_at; ++i) {
            if (!arrays_[i]) continue;
            if (main_)
                fail("sets of keys must stand in one array, not in " + std::string(names[*main_]) + " and " +
                     std::string(names[i]));
            main_ = i;
        }
        if (!main_) fail("there are no sets of keys: none of the arrays keys, blocks, selected, offsets");
        const std::vector<Index>& shape = arrays_[*main_]->shape;
        const std::size_t own = *main_ == offsets_at ? 1 : 2; // dimensions of one head
        if (shape.size() < own || shape.size() > own + 2)
            fail(std::string(names[*main_]) + " must have " + std::to_string(own) + " to " +
                 std::to_string(own + 2) + " dimensions, found " + std::to_string(shape.size()));
        for (std::size_t i = 0; i < shape.size() - own; ++i)
            dimensions_[i + 2 - (shape.size() - own)] = shape[i];
        dimensions_[2] = shape[shape.size() - own];
        if (*main_ == offsets_at) --dimensions_[2];
        for (const Index dimension : {*std::min_element(shape.begin(), shape.end()), dimensions_[2]})
            if (dimension < 1) fail(std::string(names[*main_]) + " must not be empty");
        if (*main_ == offsets_at && (!arrays_[indices_at] || arrays_[indices_at]->shape.size() != 1))
            fail("beside offsets there must be indices, of one dimension");
        if (*main_ == blocks_at) {
            if (!arrays_[size_at] || arrays_[size_at]->data.size() != 1 || arrays_[size_at]->data[0] < 1)
                fail("beside blocks there must be block_size, one number >= 1");
        }
    }

    KeySets read(Index place, Index keys, const Mask& mask) const {
        const Array& array = *arrays_[*main_];
        const Index width = array.shape.back(),
                    per_head = *main_ == offsets_at ? queries() + 1 : queries() * width;
        const std::span<const std::int64_t> own =
            std::span(array.data)
                .subspan(static_cast<std::size_t>(place * per_head), static_cast<std::size_t>(per_head));
        if (*main_ == keys_at) {
            const std::vector<Index> list(own.begin(), own.end());
            return KeySets::padded(list, width);
        }
        if (*main_ == offsets_at) {
            const std::vector<std::int64_t>& indices = arrays_[indices_at]->data;
            std::vector<Index> offsets;
            std::int64_t before = std::max<std::int64_t>(0, own.front());
            for (const std::int64_t offset : own) {
                attnscope::detail::require(
                    offset >= before && offset <= static_cast<std::int64_t>(indices.size()), "KeySetsFile",
                    "offsets must not descend, nor go beyond indices", offset, indices.size());
                before = offset;
                offsets.push_back(static_cast<Index>(offset - own.front()));
            }
            const std::vector<Index> list(indices.begin() + own.front(), indices.begin() + own.back());
            return KeySets::csr(offsets, list);
        }
        std::vector<std::vector<Index>> lists(static_cast<std::size_t>(queries()));
        for (std::size_t i = 0; i < own.size(); ++i) {
            std::vector<Index>& list = lists[i / static_cast<std::size_t>(width)];
            const Index column = static_cast<Index>(i % static_cast<std::size_t>(width));
            if (*main_ == blocks_at) {
                if (own[i] != -1) list.push_back(static_cast<Index>(own[i]));
            } else {
                attnscope::detail::require(own[i] == 0 || own[i] == 1, "KeySetsFile", "selected must be 0 or 1",
                                           own[i]);
                if (own[i] == 1) list.push_back(column);
            }
        }
        return *main_ == blocks_at
                   ? KeySets::blocks(static_cast<Index>(arrays_[size_at]->data[0]), lists, keys, mask)
                   : KeySets(lists);
    }

    std::string path_;
    std::array<std::optional<Array>, 6> arrays_;
    std::optional<std::size_t> main_; ///< which of them says what is selected
    std::array<Index, 3> dimensions_{1, 1, 0};
};

} // namespace io
} // namespace v0_2
} // namespace attnscope
