// How the layers of a model attend, as the metadata of a file with their heads tell it. Needs attnscope::fmt.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/runtime/registry.hpp>

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// What one layer makes of its queries and keys. What is not set is not said.
struct LayerAttention {
    std::optional<bool> causal = {};            ///< query i sees the keys up to its own, aligned bottom-right
    std::optional<double> scale = {};           ///< factor of q.k, finite
    std::optional<Index> window = {};           ///< keys up to the query's own that it sees, >= 0; 0: all
    std::optional<std::string> normalizer = {}; ///< a name that `make_normalizer` takes
    std::optional<double> temperature = {};     ///< divides the logits, > 0

    friend bool operator==(const LayerAttention&, const LayerAttention&) = default;

    /// Throws. `invalid_argument` unless scale and temperature are finite, the temperature > 0, and the window >= 0.
    void check() const {
        detail::require(!scale || std::isfinite(*scale), "LayerAttention", "scale must be finite",
                        scale.value_or(0));
        detail::require(!temperature || (std::isfinite(*temperature) && *temperature > 0), "LayerAttention",
                        "temperature must be a finite number > 0", temperature.value_or(1));
        detail::require(window.value_or(0) >= 0, "LayerAttention", "window must be >= 0", window.value_or(0));
    }
    /// The normaliser at the temperature: softmax at 1 unless something else is said.
    AnyNormalizer any_normalizer() const {
        return make_normalizer(normalizer.value_or("softmax"), temperature.value_or(1));
    }
    /// The keys that a query of such a layer sees.
    Mask mask(Index queries, Index keys) const {
        const Mask mask = causal.value_or(false) ? Mask::causal_bottom_right(queries, keys) : Mask::none();
        return window.value_or(0) > 0 ? mask.with_window(*window) : mask;
    }
};

/// Keys of the metadata, in the order of `LayerAttention`.
inline constexpr std::array<std::string_view, 5> attention_keys = {"causal", "scale", "window", "normalizer",
                                                                   "temperature"};

/// Keys and values, as a safetensors file has them.
using Metadata = std::map<std::string, std::string, std::less<>>;

namespace detail {
namespace layer_attention {

[[noreturn]] inline void refuse(std::string_view what, std::string_view rule, std::string_view text) {
    throw invalid_argument(printable(fmt::format("{} must be {}, got \"{}\"", what, rule, text)));
}

template <class T>
std::optional<T> number_of(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return {};
    return value;
}

inline bool truth(std::string_view text, std::string_view what) {
    if (text == "true" || text == "True" || text == "1") return true;
    if (text == "false" || text == "False" || text == "0") return false;
    refuse(what, "true or false", text);
}

inline double real(std::string_view text, std::string_view what, double above, std::string_view rule) {
    const auto value = number_of<double>(text);
    if (!value || !std::isfinite(*value) || !(*value > above)) refuse(what, rule, text);
    return *value;
}

inline Index width(std::string_view text, std::string_view what) {
    const auto value = number_of<Index>(text);
    if (!value || *value < 0) refuse(what, "a whole number >= 0 of keys (0: all)", text);
    return *value;
}

inline std::string name_of_normalizer(std::string_view text, std::string_view what) {
    try {
        make_normalizer(text);
    } catch (const invalid_argument& error) {
        throw invalid_argument(printable(fmt::format("{}: {}", what, error.what())));
    }
    return std::string(text);
}

/// Values of a text separated by commas, without the spaces around them.
inline std::vector<std::string_view> values_of(std::string_view text) {
    std::vector<std::string_view> values;
    while (true) {
        const std::size_t comma = text.find(',');
        std::string_view value = text.substr(0, comma);
        while (value.starts_with(' ')) value.remove_prefix(1);
        while (value.ends_with(' ')) value.remove_suffix(1);
        values.push_back(value);
        if (comma == text.npos) return values;
        text.remove_prefix(comma + 1);
    }
}

inline std::string text_of(bool value) { return value ? "true" : "false"; }
inline std::string text_of(const std::string& value) { return value; }
template <class T>
std::string text_of(T value) {
    return fmt::format("{}", value);
}

} // namespace layer_attention
} // namespace detail

/// Sets the member `key` of every layer from a text: one value for all layers, or one for each, separated by commas.
/// Throws. `invalid_argument` that begins with `what` and names rule and value.
inline void set_attention(std::span<LayerAttention> layers, std::string_view key, std::string_view text,
                          std::string_view what) {
    const std::vector<std::string_view> values = detail::layer_attention::values_of(text);
    if (values.size() != 1 && values.size() != layers.size())
        detail::layer_attention::refuse(
            what, fmt::format("one value, or one for each of the {} layers", layers.size()), text);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const std::string_view value = values[values.size() == 1 ? 0 : i];
        if (key == "causal")
            layers[i].causal = detail::layer_attention::truth(value, what);
        else if (key == "scale")
            layers[i].scale =
                detail::layer_attention::real(value, what, -infinity, "finite: a number such as 0.125");
        else if (key == "window")
            layers[i].window = detail::layer_attention::width(value, what);
        else if (key == "normalizer")
            layers[i].normalizer = detail::layer_attention::name_of_normalizer(value, what);
        else if (key == "temperature")
            layers[i].temperature = detail::layer_attention::real(value, what, 0, "a finite number > 0");
        else
            detail::fail("set_attention", "the key must be one of `attention_keys`", key);
    }
}

/// What the metadata of the file `path` say of each of its layers.
/// Throws. `io_error` that names file, key, rule and value.
inline std::vector<LayerAttention> read_attention(const std::string& path, const Metadata& metadata,
                                                  Index layers) {
    std::vector<LayerAttention> result(static_cast<std::size_t>(layers));
    for (const std::string_view key : attention_keys)
        if (const auto found = metadata.find(key); found != metadata.end()) {
            try {
                set_attention(result, key, found->second, fmt::format("metadata \"{}\"", key));
            } catch (const invalid_argument& error) {
                throw io_error(path, 0, error.what());
            }
        }
    return result;
}

/// The metadata from which `read_attention` makes these layers again, numbers to the last digit.
/// Throws. `invalid_argument` if a member is set in some layers only.
inline Metadata attention_metadata(std::span<const LayerAttention> layers) {
    Metadata metadata;
    const auto add = [&](std::string_view key, auto member) {
        std::string text;
        bool alike = true;
        for (const LayerAttention& layer : layers) {
            if ((layer.*member).has_value() != (layers[0].*member).has_value())
                throw invalid_argument(
                    fmt::format("attention_metadata: {} must be set in all layers or in none", key));
            alike = alike && layer.*member == layers[0].*member;
        }
        if (layers.empty() || !(layers[0].*member)) return;
        for (const LayerAttention& layer : layers) {
            if (!text.empty()) text += ',';
            text += detail::layer_attention::text_of(*(layer.*member));
            if (alike) break;
        }
        metadata[std::string(key)] = std::move(text);
    };
    add("causal", &LayerAttention::causal);
    add("scale", &LayerAttention::scale);
    add("window", &LayerAttention::window);
    add("normalizer", &LayerAttention::normalizer);
    add("temperature", &LayerAttention::temperature);
    return metadata;
}

} // namespace v0_2
} // namespace attnscope
