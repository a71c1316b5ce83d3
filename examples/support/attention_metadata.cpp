#include <support/attention_metadata.hpp>

#include <support/failure.hpp>
#include <support/named_normalizer.hpp>

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace program {
namespace {

[[noreturn]] void refuse(std::string_view what, std::string_view rule, std::string_view text) {
    program::fail("{} must be {}, got \"{}\"", what, rule, text);
}

template <class T>
std::optional<T> number_of(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return {};
    return value;
}

bool truth(std::string_view text, std::string_view what) {
    if (text == "true" || text == "True" || text == "1") return true;
    if (text == "false" || text == "False" || text == "0") return false;
    refuse(what, "true or false", text);
}

double real(std::string_view text, std::string_view what, double above, std::string_view rule) {
    const auto value = number_of<double>(text);
    if (!value || !std::isfinite(*value) || !(*value > above)) refuse(what, rule, text);
    return *value;
}

Index width(std::string_view text, std::string_view what) {
    const auto value = number_of<Index>(text);
    if (!value || *value < 0) refuse(what, "a whole number >= 0 of keys (0: all)", text);
    return *value;
}

std::string name_of_normalizer(std::string_view text, std::string_view what) {
    try {
        named_normalizer(text);
    } catch (const attnscope::invalid_argument& error) {
        program::fail("{}: {}", what, error.what());
    }
    return std::string(text);
}

/// Values of a text separated by commas, without the spaces around them.
std::vector<std::string_view> values_of(std::string_view text) {
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

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::string& value) { return value; }
template <class T>
std::string text_of(T value) {
    return fmt::format("{}", value);
}

} // namespace

void set_attention(std::span<LayerAttention> layers, std::string_view key, std::string_view text,
                   std::string_view what) {
    const std::vector<std::string_view> values = values_of(text);
    if (values.size() != 1 && values.size() != layers.size())
        refuse(what, fmt::format("one value, or one for each of the {} layers", layers.size()), text);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const std::string_view value = values[values.size() == 1 ? 0 : i];
        if (key == "causal")
            layers[i].causal = truth(value, what);
        else if (key == "scale")
            layers[i].scale = real(value, what, -infinity, "finite: a number such as 0.125");
        else if (key == "window")
            layers[i].window = width(value, what);
        else if (key == "normalizer")
            layers[i].normalizer = name_of_normalizer(value, what);
        else if (key == "temperature")
            layers[i].temperature = real(value, what, 0, "a finite number > 0");
        else
            throw std::invalid_argument(fmt::format("set_attention: there is no key {}", key));
    }
}

std::vector<LayerAttention> read_attention(const std::string& path, const Metadata& metadata, Index layers) {
    std::vector<LayerAttention> result(static_cast<std::size_t>(layers));
    for (const std::string_view key : attention_keys)
        if (const auto found = metadata.find(key); found != metadata.end())
            set_attention(result, key, found->second, fmt::format("{}: metadata \"{}\"", path, key));
    return result;
}

Metadata attention_metadata(std::span<const LayerAttention> layers) {
    Metadata metadata;
    const auto add = [&](std::string_view key, auto member) {
        std::string text;
        bool alike = true;
        for (const LayerAttention& layer : layers) {
            if ((layer.*member).has_value() != (layers[0].*member).has_value())
                throw attnscope::invalid_argument(
                    fmt::format("attention_metadata: {} must be set in all layers or in none", key));
            alike = alike && layer.*member == layers[0].*member;
        }
        if (layers.empty() || !(layers[0].*member)) return;
        for (const LayerAttention& layer : layers) {
            if (!text.empty()) text += ',';
            text += text_of(*(layer.*member));
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

attnscope::Mask mask_of(const LayerAttention& layer, Index queries, Index keys) {
    const attnscope::Mask mask = layer.causal.value_or(false)
                                     ? attnscope::Mask::causal_bottom_right(queries, keys)
                                     : attnscope::Mask::none();
    return layer.window.value_or(0) > 0 ? mask.with_window(*layer.window) : mask;
}

} // namespace program
