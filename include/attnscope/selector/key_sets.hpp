// For every query a set of keys, as indexers, caches and files hand them out.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <attnscope/types.hpp>

#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// For every query the keys that somebody selected for it: a selector, see `scan_selection`.
/// Invariant. The keys of a query are distinct and >= 0, in the order in which they came.
/// Cost. Memory of one Index a key and one a query.
/// Throws. `invalid_argument` that names the query, for a key that is negative or stands there twice.
/// Example, of lists, of one array for all of them, and of blocks of 16 keys:
///     const KeySets lists(std::vector<std::vector<Index>>{{0}, {0, 1}, {2, 0}});
///     const KeySets same = KeySets::csr(std::vector<Index>{0, 1, 3, 5}, std::vector<Index>{0, 0, 1, 2, 0});
///     const KeySets blocks = KeySets::blocks(16, block_lists, head.keys(), Mask::causal());
///     const auto figures = scan_selection(head, lists, Mask::causal());
class KeySets {
public:
    KeySets() = default;
    explicit KeySets(const std::vector<std::vector<Index>>& lists) {
        for (const std::vector<Index>& list : lists) add(list);
    }

    /// Compressed rows: the keys of query i are keys[offsets[i]] ... keys[offsets[i+1] - 1].
    /// Throws. Also unless the offsets ascend from 0 to the number of keys.
    static KeySets csr(std::span<const Index> offsets, std::span<const Index> keys) {
        detail::require(!offsets.empty() && offsets.front() == 0, "KeySets::csr", "offsets must begin with 0",
                        offsets.empty() ? Index(-1) : offsets.front());
        detail::require(offsets.back() == static_cast<Index>(keys.size()), "KeySets::csr",
                        "offsets must end with the number of keys", offsets.back(), keys.size());
        KeySets sets;
        for (std::size_t i = 1; i < offsets.size(); ++i) {
            detail::require(offsets[i - 1] <= offsets[i] && offsets[i] <= offsets.back(), "KeySets::csr",
                            "offsets must not descend", offsets[i - 1], offsets[i]);
            sets.add(keys.subspan(static_cast<std::size_t>(offsets[i - 1]),
                                  static_cast<std::size_t>(offsets[i] - offsets[i - 1])));
        }
        return sets;
    }

    /// Rows of `width` keys each, filled up with -1 where a query has fewer.
    /// Throws. Also unless all rows are whole.
    static KeySets padded(std::span<const Index> keys, Index width) {
        detail::require(width >= 1 && static_cast<Index>(keys.size()) % width == 0, "KeySets::padded",
                        "rows must be whole and of at least one key", keys.size(), width);
        KeySets sets;
        std::vector<Index> row;
        for (std::size_t at = 0; at < keys.size(); at += static_cast<std::size_t>(width)) {
            row.clear();
            for (const Index key : keys.subspan(at, static_cast<std::size_t>(width)))
                if (key != -1) row.push_back(key);
            sets.add(row);
        }
        return sets;
    }

    /// For every query a list of blocks of keys: block b is b size ... (b+1) size - 1, of which it selects those that
    /// it sees.
    /// Throws. Also for a block that no key is in.
    static KeySets blocks(Index size, const std::vector<std::vector<Index>>& lists, Index keys,
                          const Mask& mask) {
        detail::require(size >= 1, "KeySets::blocks", "a block must have keys", size);
        KeySets sets;
        std::vector<Index> row;
        for (const std::vector<Index>& list : lists) {
            const KeyRanges visible = mask.visible(sets.queries(), keys);
            row.clear();
            for (const Index block : list) {
                detail::require(block >= 0 && block < (keys + size - 1) / size, "KeySets::blocks",
                                "there must be such a block: query, block", sets.queries(), block);
                for (Index key = block * size; key < std::min(keys, (block + 1) * size); ++key)
                    if (visible.contains(key)) row.push_back(key);
            }
            sets.add(row);
        }
        return sets;
    }

    /// A bit for each query and key, row after row: the keys whose bit is set.
    /// Throws. Also unless there are queries times keys of them.
    static KeySets bits(const std::vector<bool>& selected, Index queries, Index keys) {
        detail::require(queries >= 0 && keys >= 0 && static_cast<Index>(selected.size()) == queries * keys,
                        "KeySets::bits", "there must be a bit for each query and key", selected.size());
        KeySets sets;
        std::vector<Index> row;
        for (Index query = 0; query < queries; ++query) {
            row.clear();
            for (Index key = 0; key < keys; ++key)
                if (detail::at(selected, query * keys + key)) row.push_back(key);
            sets.add(row);
        }
        return sets;
    }

    /// Adds the set of the next query.
    void add(std::span<const Index> keys) {
        for (const Index key : keys) {
            detail::require(key >= 0, "KeySets", "keys must be >= 0: query, key", queries(), key);
            if (key >= static_cast<Index>(last_query_.size()))
                last_query_.resize(static_cast<std::size_t>(key) + 1, Index(-1));
            detail::require(detail::at(last_query_, key) != queries(), "KeySets",
                            "a key must stand in a set once: query, key", queries(), key);
            detail::at(last_query_, key) = queries();
        }
        keys_.insert(keys_.end(), keys.begin(), keys.end());
        offsets_.push_back(static_cast<Index>(keys_.size()));
    }

    Index queries() const { return static_cast<Index>(offsets_.size()) - 1; }
    /// The keys of a query.
    /// Throws. `invalid_argument` for a query that has no set.
    std::span<const Index> operator()(Index query) const& {
        detail::require(query >= 0 && query < queries(), "KeySets", "there must be a set for every query",
                        query, queries());
        const Index begin = detail::at(offsets_, query);
        return std::span(keys_).subspan(static_cast<std::size_t>(begin),
                                        static_cast<std::size_t>(detail::at(offsets_, query + 1) - begin));
    }
    std::span<const Index>
    operator()(Index query) const&& = delete;                   ///< of temporary sets: keep them in a variable
    std::span<const Index> offsets() const { return offsets_; } ///< as of `csr`
    std::span<const Index> keys() const { return keys_; }       ///< as of `csr`

private:
    std::vector<Index> offsets_{0}, keys_;
    std::vector<Index> last_query_; ///< of each key, that which selected it last
};

} // namespace v0_2
} // namespace attnscope
