// Selectors that need no memory of earlier queries: what a perfect one would take, and what needs no scores at all.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <attnscope/random.hpp>
#include <attnscope/row/softmax_row.hpp>
#include <attnscope/selection/top_n.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A query's logits, for selectors that look at all of them.
template <Real T>
struct ScoredRow {
    Index query;
    Index first;     ///< key of the first logit
    RowIn<T> logits; ///< -inf of keys that the query does not see
};

/// The n keys of the largest logits (ties by smaller key), or all that are visible: no set of n keys keeps more mass.
/// Cost. As `Ranking`.
class TopKeys {
public:
    /// Throws. `invalid_argument` unless n >= 0.
    explicit TopKeys(Index n) : n_(n) { detail::require(n >= 0, "TopKeys", "n must be >= 0", n); }
    template <Real T>
    std::vector<Index> operator()(const ScoredRow<T>& row) const {
        Ranking<T> ranking;
        ranking.rank(row.logits, std::min(n_, detail::size<T>(row.logits)));
        std::vector<Index> keys;
        for (const Index i : ranking.order())
            if (detail::at(row.logits, i) > -std::numeric_limits<T>::infinity()) keys.push_back(row.first + i);
        return keys;
    }

private:
    Index n_;
};

/// The fewest keys whose softmax weights sum to at least p (ties by smaller key).
/// Special rows. Nothing is selected of a row that is not normal.
/// Cost. O(n log n).
class TopMass {
public:
    /// Throws. `invalid_argument` unless p is in (0, 1].
    explicit TopMass(double p) : p_(p) {
        detail::require(p > 0 && p <= 1, "TopMass", "the mass must be in (0, 1]", p);
    }
    template <Real T>
    std::vector<Index> operator()(const ScoredRow<T>& row) const {
        using A = Accumulator<T>;
        std::vector<Index> keys;
        const A top = A(detail::row_max<T>(row.logits));
        if (!std::isfinite(top)) return keys;
        Ranking<T> ranking;
        ranking.rank(row.logits);
        const auto weight = [&](Index i) { return std::exp(A(detail::at(row.logits, i)) - top); };
        A all = 0;
        for (Index i = static_cast<Index>(row.logits.size()); i-- > 0;)
            all += weight(detail::at(ranking.order(), i)); // from the smallest
        if (all != all) return keys;
        A kept = 0;
        for (const Index i : ranking.order()) {
            const A own = weight(i);
            if (kept >= static_cast<A>(p_) * all || own == A(0)) break;
            kept += own;
            keys.push_back(row.first + i);
        }
        return keys;
    }

private:
    double p_;
};

/// The first `sinks` keys that a query sees and the last `window` of them (StreamingLLM).
/// Cost. O(sinks + window).
/// Source. arXiv:2309.17453.
class SinkWindow {
public:
    /// Throws. `invalid_argument` unless sinks >= 0 and window >= 0.
    SinkWindow(Index sinks, Index window, Mask mask, Index keys)
        : sinks_(sinks), window_(window), keys_(keys), mask_(std::move(mask)) {
        detail::require(sinks >= 0 && window >= 0, "SinkWindow", "sinks and window must be >= 0", sinks,
                        window);
    }
    std::vector<Index> operator()(Index query) const {
        const KeyRanges visible = mask_.visible(query, keys_);
        const Index count = visible.count(), skipped_end = count - std::min(window_, count);
        std::vector<Index> keys;
        Index place = 0;
        visible.for_each([&](Index key) {
            if (place < sinks_ || place >= skipped_end) keys.push_back(key);
            ++place;
        });
        return keys;
    }

private:
    Index sinks_, window_, keys_;
    Mask mask_;
};

/// n of the keys that a query sees, at random: what a selector has to beat. The same for a seed and a query, whoever
/// asks.
/// Cost. O(n) expected, beside sorting.
class RandomKeys {
public:
    /// Throws. `invalid_argument` unless n >= 0.
    RandomKeys(Index n, std::uint64_t seed, Mask mask, Index keys)
        : n_(n), keys_(keys), seed_(seed), mask_(std::move(mask)) {
        detail::require(n >= 0, "RandomKeys", "n must be >= 0", n);
    }
    std::vector<Index> operator()(Index query) const {
        const KeyRanges visible = mask_.visible(query, keys_);
        const Index count = visible.count();
        SplitMix64 random(mixed_seed(seed_, static_cast<std::uint64_t>(query)));
        // Floyd: the j-th draw, or j itself where that is there already.
        std::vector<Index> places;
        for (Index j = count - std::min(n_, count); j < count; ++j) {
            const Index drawn = random.below(j + 1);
            const auto at = std::lower_bound(places.begin(), places.end(), drawn);
            if (at != places.end() && *at == drawn)
                places.push_back(j);
            else
                places.insert(at, drawn);
        }
        for (Index& place : places)
            place = place < visible.lead.size() ? visible.lead.begin + place
                                                : visible.body.begin + (place - visible.lead.size());
        return places;
    }

private:
    Index n_, keys_;
    std::uint64_t seed_;
    Mask mask_;
};

} // namespace v0_2
} // namespace attnscope
