// Structural masks as a predicate on one query and one key, written from the definition of `Mask`.
#pragma once

#include <attnscope/mask.hpp>
#include <support/scalars.hpp>

#include <optional>

namespace attnscope_test {

struct MaskRule {
    bool causal = false;
    Index offset = 0;
    std::optional<Index> window, length;
    Index sinks = 0, prefix = 0;
    std::vector<Index> segments;

    /// First key of the segment of position x; nothing before the first segment.
    std::optional<Index> segment_of(Index x) const {
        if (segments.empty()) return Index(0);
        std::optional<Index> start;
        for (Index s : segments)
            if (s <= x) start = s;
        return start;
    }

    bool sees(Index query, Index key) const {
        const Index position = query + offset;
        if (length && key >= *length) return false;
        if (!segments.empty() && segment_of(key) != segment_of(position)) return false;
        if (key < prefix) return true;
        const bool is_sink = key - *segment_of(key) < sinks;
        if (causal) return key <= position && (!window || key > position - *window || is_sink);
        return !window || std::abs(key - position) < *window || is_sink;
    }

    attnscope::Mask mask() const {
        attnscope::Mask result = causal ? attnscope::Mask::causal(offset) : attnscope::Mask::none();
        if (window) result = result.with_window(*window);
        if (length) result = result.with_length(*length);
        if (sinks > 0) result = result.with_sinks(sinks);
        if (prefix > 0) result = result.with_prefix(prefix);
        if (!segments.empty()) result = result.with_segments(segments);
        return result;
    }

    std::string text() const {
        std::ostringstream out;
        out << (causal ? "causal" : "full") << " offset " << offset << " window " << window.value_or(-1)
            << " length " << length.value_or(-1) << " sinks " << sinks << " prefix " << prefix << " segments";
        for (Index s : segments) out << ' ' << s;
        return out.str();
    }
};

/// Each part of the rule is present with probability 1/2 or so; sizes scale with the number of keys.
inline MaskRule random_rule(SplitMix64& random, Index keys) {
    MaskRule rule;
    rule.causal = random.below(4) != 0;
    if (rule.causal && random.below(2) == 0) rule.offset = random.below(2 * keys + 3) - keys - 1;
    if (random.below(2) == 0) rule.window = 1 + random.below(keys + 2);
    if (random.below(3) == 0) rule.length = random.below(keys + 3);
    if (random.below(2) == 0) rule.sinks = random.below(5);
    if (random.below(3) == 0) rule.prefix = random.below(keys + 2);
    if (random.below(2) == 0) {
        rule.segments.push_back(0);
        for (Index k = 1; k < keys + 2; ++k)
            if (random.below(4) == 0) rule.segments.push_back(k);
    }
    return rule;
}

} // namespace attnscope_test
