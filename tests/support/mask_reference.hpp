// Structural masks as a predicate on one query and one key, written from the definition of `Mask`.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <support/scalars.hpp>

#include <optional>

namespace attnscope_test {

/// In which no sum of two indices overflows.
__extension__ typedef __int128 WideIndex;

struct MaskRule {
    bool causal = false;
    Index offset = 0;
    std::optional<Index> window = {}, length = {};
    Index sinks = 0, prefix = 0;
    std::vector<Index> segments = {};
    Index start = 0;

    /// First key of the segment of position x; nothing before the first segment.
    std::optional<Index> segment_of(WideIndex x) const {
        if (segments.empty()) return Index(0);
        std::optional<Index> first;
        for (Index s : segments)
            if (s <= x) first = s;
        return first;
    }

    bool sees(Index query, Index key) const {
        const WideIndex position = WideIndex(query) + offset, at = key;
        if (key < start) return false;
        if (length && key >= *length) return false;
        if (!segments.empty() && segment_of(key) != segment_of(position)) return false;
        if (key < prefix) return true;
        const bool is_sink = at - std::max(*segment_of(key), start) < sinks;
        if (causal) return at <= position && (!window || at > position - *window || is_sink);
        const WideIndex distance = at < position ? position - at : at - position;
        return !window || distance < *window || is_sink;
    }

    attnscope::Mask mask() const {
        attnscope::Mask result = causal ? attnscope::Mask::causal(offset) : attnscope::Mask::none();
        if (window) result = result.with_window(*window);
        if (length) result = result.with_length(*length);
        if (start > 0) result = result.with_start(start);
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

/// Some index, half of the time near an end of what `least` ... and `Index` allow.
inline Index random_end(SplitMix64& random, Index least) {
    constexpr Index most = std::numeric_limits<Index>::max();
    switch (random.below(4)) {
    case 0:
        return most - random.below(20);
    case 1:
        return most / 2 + random.below(20) - 10;
    case 2:
        return least < 0 ? least + random.below(20) : least + random.below(3);
    default:
        return std::max(least, random.below(30) - 10);
    }
}

/// Rules whose numbers lie at the ends of `Index`.
inline MaskRule random_rule_at_ends(SplitMix64& random) {
    MaskRule rule;
    rule.causal = random.below(3) != 0;
    if (rule.causal) rule.offset = random_end(random, std::numeric_limits<Index>::min());
    if (random.below(4) != 0) rule.window = random_end(random, 1);
    if (random.below(4) == 0) rule.length = random_end(random, 0);
    if (random.below(4) == 0) rule.start = random.below(4);
    if (random.below(2) == 0) rule.sinks = random_end(random, 0);
    if (random.below(4) == 0) rule.prefix = random_end(random, 0);
    if (random.below(4) == 0) {
        rule.segments = {0, 5, std::numeric_limits<Index>::max() - 4};
        if (random.below(2) == 0) rule.segments.push_back(std::numeric_limits<Index>::max());
    }
    return rule;
}

/// Each part of the rule is present with probability 1/2 or so; sizes scale with the number of keys.
inline MaskRule random_rule(SplitMix64& random, Index keys) {
    MaskRule rule;
    rule.causal = random.below(4) != 0;
    if (rule.causal && random.below(2) == 0) rule.offset = random.below(2 * keys + 3) - keys - 1;
    if (random.below(2) == 0) rule.window = 1 + random.below(keys + 2);
    if (random.below(3) == 0) rule.length = random.below(keys + 3);
    if (random.below(4) == 0) rule.start = random.below(keys + 2);
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
