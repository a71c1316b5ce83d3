// What a report says of its input as a whole.
#pragma once

#include <attnscope/report/report.hpp>

#include <fmt/ranges.h>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace report_words {

inline std::string_view kind_text(const Capture& capture) {
    switch (capture.kind) {
    case Capture::Kind::queries_and_keys:
        return "q and k";
    case Capture::Kind::logits:
        return "logits";
    case Capture::Kind::weights:
        return "weights (their logits are known up to a constant)";
    }
    return "?";
}

/// Of the chosen layers.
inline bool is_causal(const Report& report) {
    return std::all_of(report.layers.begin(), report.layers.end(),
                       [&](Index layer) { return report.capture.layer(layer).causal.value_or(false); });
}

/// What the chosen layers have, each value once where neighbours agree: "softmax" or "softmax, entmax:1.5".
inline std::string over_layers(const Report& report, const std::function<std::string(Index)>& text_of) {
    std::vector<std::string> texts;
    for (const Index layer : report.layers) texts.push_back(text_of(layer));
    if (std::adjacent_find(texts.begin(), texts.end(), std::not_equal_to<>()) == texts.end()) texts.resize(1);
    return fmt::format("{}", fmt::join(texts, ","));
}

inline std::string normalizer_text(const Report& report) {
    return over_layers(report, [&](Index layer) {
        return report.normalizers[static_cast<std::size_t>(layer)].normalizer.name();
    });
}

inline std::string temperature_text(const Report& report) {
    return over_layers(report, [&](Index layer) {
        return fmt::format("{}", report.normalizers[static_cast<std::size_t>(layer)].temperature);
    });
}

/// Which keys a query sees.
inline std::string mask_text(const Report& report) {
    const Capture& input = report.capture;
    std::string text = over_layers(report, [&](Index layer) {
        return input.layer(layer).causal.value_or(false) ? "causal" : "every query sees every key";
    });
    if (text == "every query sees every key" && report.tally.causal_from_masks())
        text = input.kind == Capture::Kind::weights ? "causal, from weights of 0" : "causal, from the mask";
    const std::string window = over_layers(
        report, [&](Index layer) { return fmt::format("{}", input.layer(layer).window.value_or(0)); });
    return window == "0" ? text : fmt::format("{}, window {} (0: all)", text, window);
}

/// Of a model on its text; NaN where there is none.
inline double loss_of(const Report& report) {
    return report.capture.loss ? report.capture.loss() : std::numeric_limits<double>::quiet_NaN();
}

} // namespace report_words
} // namespace detail

} // namespace v0_2
} // namespace attnscope
