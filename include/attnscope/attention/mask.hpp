// Structural masks: which keys a query sees, as ranges of indices. Never an L x L array.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Keys begin, begin+1, ..., end-1.
struct KeyRange {
    Index begin = 0;
    Index end = 0;
    Index size() const { return empty() ? Index(0) : end - begin; }
    bool empty() const { return end <= begin; }
    friend bool operator==(const KeyRange&, const KeyRange&) = default;
};

/// At most two ranges of keys, ascending and disjoint: `lead` (sinks or a prefix) and `body`. `lead` is empty
/// when one range is enough.
struct KeyRanges {
    KeyRange lead;
    KeyRange body;

    Index count() const { return lead.size() + body.size(); }
    bool contains(Index key) const {
        return (key >= lead.begin && key < lead.end) || (key >= body.begin && key < body.end);
    }
    /// The smallest single range that holds all visible keys; {0, 0} if there is none.
    KeyRange hull() const {
        if (count() == 0) return {};
        return {lead.empty() ? body.begin : lead.begin, body.empty() ? lead.end : body.end};
    }
    template <class F>
    void for_each(F&& f) const {
        for (Index key = lead.begin; key < lead.end; ++key) f(key);
        for (Index key = body.begin; key < body.end; ++key) f(key);
    }
};

namespace detail {

/// a + b, at the end of the numbers where it lies beyond. No key has such an index, so that a comparison with
/// one is decided as by the sum itself.
constexpr Index saturated_sum(Index a, Index b) {
    using Limits = std::numeric_limits<Index>;
    if (b > 0) return a > Limits::max() - b ? Limits::max() : a + b;
    return a < Limits::min() - b ? Limits::min() : a + b;
}

} // namespace detail

/// A structural mask. Query q stands at position q + offset among the keys; it sees key k if all hold:
///       start:     k >= start                                  (keys before are padding)
///       length:    k < length                                  (keys beyond are padding)
///       segments:  k and the position lie in the same segment  (packed documents)
///       and one of
///       prefix:    k < prefix                                  (prefix language model: seen by everybody)
///       causal:    k <= position; with a window also k > position - window, or k is one of the first `sinks`
///                  keys of its segment from `start` on. Without causal, the window is |k - position| < window.
/// Additive masks need no class: a logit of -inf is masked wherever logits are accepted.
/// Invariant. Exact for any combination, offsets and widths at the ends of `Index` included.
/// Cost. O(1) a query, O(log segments) with segments.
/// Example, one token decoded with a sliding window and four sinks:
///     const Mask mask = Mask::sliding_window(4096, cached).with_sinks(4); // offset: keys before it
///     const KeyRanges seen = mask.visible(0, cached + 1);
///     seen.for_each([&](Index key) { sum += weights[key]; });
class Mask {
public:
    Mask() = default;

    /// Every query sees every key.
    static Mask none() { return {}; }
    /// Query q sees the keys 0 ... q + offset.
    static Mask causal(Index offset = 0) {
        Mask mask;
        mask.causal_ = true;
        mask.offset_ = offset;
        return mask;
    }
    /// Causal, aligned bottom-right: the last query sees every key.
    static Mask causal_bottom_right(Index queries, Index keys) { return causal(keys - queries); }
    /// Causal, and at most `width` keys back, the query's own position included.
    static Mask sliding_window(Index width, Index offset = 0) { return causal(offset).with_window(width); }

    /// Throws. `invalid_argument` unless width >= 1.
    Mask with_window(Index width) const {
        detail::require(width >= 1, "Mask::with_window", "width must be >= 1", width);
        Mask mask = *this;
        mask.window_ = width;
        return mask;
    }
    /// Keeps the first `count` keys (of each segment) visible although a window has passed them.
    /// Throws. `invalid_argument` unless count >= 0.
    Mask with_sinks(Index count) const {
        detail::require(count >= 0, "Mask::with_sinks", "count must be >= 0", count);
        Mask mask = *this;
        mask.sinks_ = count;
        return mask;
    }
    /// Keys from `length` on are padding.
    /// Throws. `invalid_argument` unless length >= 0.
    Mask with_length(Index length) const {
        detail::require(length >= 0, "Mask::with_length", "length must be >= 0", length);
        Mask mask = *this;
        mask.length_ = length;
        return mask;
    }
    /// Keys before `start` are padding.
    /// Throws. `invalid_argument` unless start >= 0.
    Mask with_start(Index start) const {
        detail::require(start >= 0, "Mask::with_start", "start must be >= 0", start);
        Mask mask = *this;
        mask.start_ = start;
        return mask;
    }
    /// The first `prefix` keys are seen by every query, whatever the causal part says.
    /// Throws. `invalid_argument` unless prefix >= 0.
    Mask with_prefix(Index prefix) const {
        detail::require(prefix >= 0, "Mask::with_prefix", "prefix must be >= 0", prefix);
        Mask mask = *this;
        mask.prefix_ = prefix;
        return mask;
    }
    /// Packed documents: `starts` are the first keys of each.
    /// Throws. `invalid_argument` unless they ascend strictly from 0.
    Mask with_segments(std::vector<Index> starts) const {
        detail::require(!starts.empty() && starts.front() == 0, "Mask::with_segments",
                        "the first segment must start at key 0", starts.empty() ? Index(-1) : starts.front());
        for (std::size_t i = 1; i < starts.size(); ++i)
            detail::require(starts[i - 1] < starts[i], "Mask::with_segments",
                            "starts must be strictly ascending", starts[i - 1], starts[i]);
        Mask mask = *this;
        mask.segments_ = std::move(starts);
        return mask;
    }

    bool is_causal() const { return causal_; }
    Index offset() const { return offset_; }

    /// The keys out of 0 ... keys-1 that `query` sees. Preconditions: query >= 0, keys >= 0.
    KeyRanges visible(Index query, Index keys) const {
        const Index position = detail::saturated_sum(query, offset_);
        KeyRange world{std::min(start_, keys), length_ ? std::min(keys, *length_) : keys};
        if (!segments_.empty()) {
            if (position < 0) return {};
            const auto next = std::upper_bound(segments_.begin(), segments_.end(), position);
            world.begin = std::max(world.begin, *(next - 1));
            if (next != segments_.end()) world.end = std::min(world.end, *next);
        }
        KeyRange body = world;
        if (causal_) body.end = std::min(body.end, detail::saturated_sum(position, 1));
        KeyRange lead{world.begin, world.begin};
        if (window_) {
            lead.end = std::min(body.end, detail::saturated_sum(world.begin, sinks_));
            // Width from offset first: that can only lie below all keys.
            const Index back = detail::saturated_sum(offset_, 1 - *window_);
            body.begin = std::max(body.begin, detail::saturated_sum(query, back));
            if (!causal_) body.end = std::min(body.end, detail::saturated_sum(position, *window_));
        }
        lead.end = std::max(lead.end, std::min(world.end, prefix_));
        if (lead.empty() && body.empty()) return {};
        if (lead.empty()) return {{}, body};
        if (body.empty()) return {{}, lead};
        if (lead.end >= body.begin)
            return {{}, {std::min(lead.begin, body.begin), std::max(lead.end, body.end)}};
        return {lead, body};
    }

private:
    bool causal_ = false;
    Index offset_ = 0;
    std::optional<Index> window_;
    std::optional<Index> length_;
    Index start_ = 0;
    Index sinks_ = 0;
    Index prefix_ = 0;
    std::vector<Index> segments_;
};

/// Below which a finite logit or bias of a stored type stands for -inf.
/// Formula. Half of the lowest finite number of the type (so that a logit added to a mask changes nothing),
/// for half precision also -30000, which no logit reaches.
/// Shapes and units. Stored: float, double, Eigen::half or Eigen::bfloat16.
template <class Stored>
double finite_mask_limit() {
    const double half = static_cast<double>(std::numeric_limits<Stored>::lowest()) / 2;
    return std::is_same_v<Stored, Eigen::half> ? std::max(half, -30000.0) : half;
}

/// What `mask_at_or_below` found in a row.
struct FiniteMasks {
    Index masked = 0;    ///< finite entries that became -inf
    bool spared = false; ///< every visible key is at or below the limit: the row is as it was
};

/// Finite masks of one row of logits or additive biases: entries at or below `limit` become -inf, which masks
/// a key wherever logits are accepted. `finite_mask_limit<float>()` is the limit for masks of the lowest
/// finite number.
/// Special rows. A row is never emptied: where no key lies above the limit, the row stays as it is and
/// `spared` is true. NaN is no mask.
/// Cost. O(n), in place, no allocation.
template <Real T>
FiniteMasks mask_at_or_below(RowOut<T> z, T limit) {
    constexpr T masked = -std::numeric_limits<T>::infinity();
    FiniteMasks found;
    bool above = false;
    for (const T x : z) {
        above = above || !(x <= limit);
        found.masked += x <= limit && x != masked;
    }
    if (!above) return {0, found.masked > 0};
    for (T& x : z)
        if (x <= limit) x = masked;
    return found;
}

/// As above of a row that owns its numbers: a `std::vector`, a `std::array`, an Eigen vector or array of one row or column.
template <class Z>
requires(RowContainer<Z> || std::is_base_of_v<Eigen::PlainObjectBase<Z>, Z>) &&
        (!std::is_const_v<std::remove_reference_t<decltype(*std::declval<Z&>().data())>>)
FiniteMasks mask_at_or_below(Z& z, double limit) {
    using T = std::remove_reference_t<decltype(*z.data())>;
    return mask_at_or_below<T>(RowOut<T>(z.data(), static_cast<std::size_t>(z.size())), static_cast<T>(limit));
}

} // namespace v0_2
} // namespace attnscope
