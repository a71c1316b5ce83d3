// Work on many heads in units, and which of them one of several machines does.
#pragma once

#include <attnscope/attention/mask.hpp>

#include <charconv>
#include <string_view>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Pairs of a query and a key that it sees: what work on a head is proportional to.
/// Cost. O(queries).
inline double visible_pairs(const Mask& mask, Index queries, Index keys) {
    double pairs = 0;
    for (Index query = 0; query < queries; ++query)
        pairs += static_cast<double>(mask.visible(query, keys).count());
    return pairs;
}

/// One head of one document, the unit of work.
struct WorkUnit {
    Index document = 0, layer = 0, head = 0;
    double pairs = 0; ///< see `visible_pairs`
};

/// One of `count` equal parts of the work, number 1 to count.
struct Shard {
    Index number = 1, count = 1;

    /// "3/64".
    /// Throws. `invalid_argument` unless it is that, with 1 <= number <= count <= 2^20.
    static Shard parse(std::string_view text) {
        Shard shard;
        const char* const end = text.data() + text.size();
        const auto first = std::from_chars(text.data(), end, shard.number);
        const bool slash = first.ec == std::errc{} && first.ptr != end && *first.ptr == '/';
        const auto second = std::from_chars(slash ? first.ptr + 1 : end, end, shard.count);
        detail::require(slash && second.ec == std::errc{} && second.ptr == end && shard.number >= 1 &&
                            shard.number <= shard.count && shard.count <= (Index(1) << 20),
                        "Shard", "a shard must be NUMBER/COUNT with 1 <= NUMBER <= COUNT", std::string(text));
        return shard;
    }

    /// The places of its units, ascending. Every unit belongs to one shard, and each shard has so many pairs as the others,
    /// to one unit: its units are neighbours.
    /// Cost. O(units).
    std::vector<Index> units(std::span<const WorkUnit> all) const {
        double total = 0;
        for (const WorkUnit& unit : all) total += unit.pairs;
        std::vector<Index> own;
        double before = 0;
        for (std::size_t i = 0; i < all.size(); ++i) {
            // Where its middle lies; units without pairs, or without any anywhere, by their number.
            const double middle = total > 0 ? (before + all[i].pairs / 2) / total
                                            : (static_cast<double>(i) + 0.5) / static_cast<double>(all.size());
            const Index place = std::min(count - 1, static_cast<Index>(middle * static_cast<double>(count)));
            if (place == number - 1) own.push_back(static_cast<Index>(i));
            before += all[i].pairs;
        }
        return own;
    }
};

} // namespace v0_2
} // namespace attnscope
