// How the layers of a model attend, as the metadata of a capture: written by attnscope-capture, obeyed by every
// program that reads captures. docs/report.md describes the keys.
#pragma once

#include <attnscope/attention/mask.hpp>

#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace program {

using attnscope::Index;

/// What one layer makes of its queries and keys. What is not set is not said.
struct LayerAttention {
    std::optional<bool> causal = {};            ///< query i sees the keys up to its own, aligned bottom-right
    std::optional<double> scale = {};           ///< factor of q.k, finite
    std::optional<Index> window = {};           ///< keys up to the query's own that it sees, >= 0; 0: all
    std::optional<std::string> normalizer = {}; ///< a name that `attnscope::make_normalizer` takes
    std::optional<double> temperature = {};     ///< divides the logits, > 0

    friend bool operator==(const LayerAttention&, const LayerAttention&) = default;
};

/// Keys of the metadata, in the order of `LayerAttention`.
inline constexpr std::array<std::string_view, 5> attention_keys = {"causal", "scale", "window", "normalizer",
                                                                   "temperature"};

using Metadata = std::map<std::string, std::string, std::less<>>;

/// Sets the member `key` of every layer from a text: one value for all layers, or one for each, separated by
/// commas. Throws `std::runtime_error` that begins with `what` and names rule and value.
void set_attention(std::span<LayerAttention> layers, std::string_view key, std::string_view text,
                   std::string_view what);

/// What the metadata of the file `path` say of each of its layers. Throws as `set_attention`.
std::vector<LayerAttention> read_attention(const std::string& path, const Metadata& metadata, Index layers);

/// The metadata from which `read_attention` makes these layers again, numbers to the last digit. Throws
/// `invalid_argument` if a member is set in some layers only.
Metadata attention_metadata(std::span<const LayerAttention> layers);

/// The keys that a query of such a layer sees.
attnscope::Mask mask_of(const LayerAttention& layer, Index queries, Index keys);

} // namespace program
