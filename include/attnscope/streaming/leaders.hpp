// The largest logits of a row and their keys, from pieces.
#pragma once

#include <attnscope/detail/lanes.hpp>

#include <bit>
#include <utility>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Smallest and largest logit of a piece, and a logit below which none of its k largest lies (-inf if there
/// are too few to tell).
template <Real T>
struct PieceRange {
    T min, max, cut;
};

/// The keys fall into classes of about n/2k; the k-th largest of the classes' maxima is the cut. It lets about
/// 1.4 k keys through, where a list that fills from the front would have to take in k (1 + log(n/k)).
template <Real T, Index k>
PieceRange<T> piece_range(RowIn<T> z) {
    using P = Packet<T>;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    constexpr Index packets = std::min<Index>(16, (2 * k + P::size - 1) / P::size);
    constexpr Index classes = packets * P::size, steps = packets * ((4 + packets - 1) / packets);
    P high[std::size_t(steps)], low[4];
    for (P& x : high) x = -infinity;
    for (P& x : low) x = infinity;
    const Index n = size(z);
    const auto meet = [&](Index j, P x, P y) {
        high[j] = max(high[j], x);
        low[j % 4] = min(low[j % 4], y);
    };
    Index i = 0;
    for (; i + steps * P::size <= n; i += steps * P::size)
        for (Index j = 0; j < steps; ++j) {
            const P x = P::load(z.data() + i + j * P::size);
            meet(j, x, x);
        }
    Index j = 0;
    for (; i + P::size <= n; i += P::size, ++j) {
        const P x = P::load(z.data() + i);
        meet(j, x, x);
    }
    if (i < n)
        meet(j, P::load_partial(z.data() + i, n - i, -infinity),
             P::load_partial(z.data() + i, n - i, detail::at(z, i)));
    for (j = packets; j < steps; ++j) high[j % packets] = max(high[j % packets], high[j]);
    P largest = high[0];
    for (j = 1; j < packets; ++j) largest = max(largest, high[j]);
    PieceRange<T> range{reduce_min(min(min(low[0], low[1]), min(low[2], low[3]))), reduce_max(largest),
                        -infinity};
    if (classes < k || n <= 2 * k) return range;
    // The k-th largest of some numbers is the smallest that has fewer than k larger ones.
    std::array<T, static_cast<std::size_t>(classes)> maxima;
    for (j = 0; j < packets; ++j) high[j].store(maxima.data() + j * P::size);
    const P zero = T(0), one = T(1), above = infinity, count = T(k) - T(0.5);
    P cut = above;
    for (j = 0; j < packets; ++j) {
        P larger[4] = {zero, zero, zero, zero}; // side by side
        for (std::size_t other = 0; other < maxima.size(); ++other)
            larger[other % 4] += select_below(high[j], maxima[other], one, zero);
        cut = min(cut, select_below((larger[0] + larger[1]) + (larger[2] + larger[3]), count, high[j], above));
    }
    range.cut = reduce_min(cut);
    return range;
}

/// The K largest logits above -inf, descending, ties by smaller key. Trivially copyable.
template <Real T, Index K>
class Leaders {
public:
    Leaders() = default;
    Leaders(const std::array<T, static_cast<std::size_t>(K)>& logits,
            const std::array<Index, static_cast<std::size_t>(K)>& keys)
        : logits_(logits), keys_(keys) {}
    bool empty() const { return keys_[0] < 0; }
    /// The i-th largest and its key, 0 <= i < K; -inf and -1 where there is none.
    T logit(Index i) const { return detail::at(logits_, i); }
    Index key(Index i) const { return detail::at(keys_, i); }

    /// Takes in the keys first_key, first_key + 1, ... of a piece; no logit below `cut` can belong to the list.
    void add(RowIn<T> z, Index first_key, T cut) {
        const std::size_t block = std::size_t(1) << 20; // of keys, whose places are small numbers
        for (std::size_t begin = 0; begin < z.size(); begin += block)
            add_block(z.subspan(begin, std::min(block, z.size() - begin)),
                      first_key + static_cast<Index>(begin), cut);
    }

    void merge(const Leaders& other) {
        for (std::size_t i = 0; i < logits_.size(); ++i) insert(other.logits_[i], other.keys_[i]);
    }

    /// Does logit a of key i come before logit b of key j?
    static bool precedes(T a, Index i, T b, Index j) { return a > b || (a == b && i < j); }

    friend bool operator==(const Leaders&, const Leaders&) = default;

private:
    static constexpr T lowest = -std::numeric_limits<T>::infinity();

    using P = detail::Packet<T>;
    using Place = typename P::Place;
    /// Keys that are looked at before candidates are counted.
    static constexpr Index word = 64 / P::size * P::size;

    /// Places of a block whose logits may belong to the list, ascending.
    struct Candidates {
        static constexpr Index most = (2 * K + P::size - 1) / P::size * P::size; ///< that are ranked at once
        std::array<Place, static_cast<std::size_t>(most + word + P::size)> places;
        Index count = 0;
    };

    void add_block(RowIn<T> z, Index first_key, T cut) {
        Candidates found;
        std::fill_n(found.places.begin(), Candidates::most, Place(0));
        for (Index begin = 0, n = detail::size(z); begin < n; begin += word) {
            found.count +=
                store_places(z, begin, std::min(n, begin + word), cut, found.places.data() + found.count);
            if (found.count > Candidates::most) insert_all(z, first_key, found);
        }
        if (!(empty() && found.count > 2 && rank_in(z, first_key, cut, found))) insert_all(z, first_key, found);
    }

    /// Stores the places of [begin, end), a word at most, whose logits are not below `cut`; how many there are. NaN is not
    /// among them. No branch for each of them or for a packet: it would be mispredicted as often as not.
    static Index store_places(RowIn<T> z, Index begin, Index end, T cut, Place* target) {
        const P limit = cut;
        Index i = begin, stored = 0;
        const auto last = [&] {
            return P::load_partial(z.data() + i, end - i, std::numeric_limits<T>::quiet_NaN());
        };
        if constexpr (requires { P::store_places_not_below(limit, limit, Place(0), target); }) {
            for (; i + P::size <= end; i += P::size)
                stored += P::store_places_not_below(P::load(z.data() + i), limit, static_cast<Place>(i),
                                                    target + stored);
            if (i < end)
                stored += P::store_places_not_below(last(), limit, static_cast<Place>(i), target + stored);
        } else {
            std::uint64_t bits = 0;
            for (; i + P::size <= end; i += P::size)
                bits |= std::uint64_t(mask_not_below(P::load(z.data() + i), limit)) << (i - begin);
            if (i < end) bits |= std::uint64_t(mask_not_below(last(), limit)) << (i - begin);
            for (; bits != 0; bits &= bits - 1)
                target[stored++] = static_cast<Place>(begin + std::countr_zero(bits));
        }
        return stored;
    }

    void insert_all(RowIn<T> z, Index first_key, Candidates& found) {
        for (Index i = 0; i < found.count; ++i) {
            const Index place = detail::at(found.places, i);
            insert(detail::at(z, place), first_key + place);
        }
        found.count = 0;
    }

    /// Fills the empty list by the ranks of the candidates, always all that there is room for, so that no branch depends on
    /// how many there are. False, and nothing done, if there are ties.
    bool rank_in(RowIn<T> z, Index first_key, T cut, const Candidates& found) {
        constexpr auto most = static_cast<std::size_t>(Candidates::most);
        std::array<T, most> logits, ranks;
        for (std::size_t i = 0; i < most; ++i) {
            const T logit = detail::at(z, found.places[i]);
            logits[i] = i < static_cast<std::size_t>(found.count) ? logit : lowest;
        }
        auto finite = static_cast<std::size_t>(found.count);
        if (!(cut > lowest)) // else none of them is masked
            finite = static_cast<std::size_t>(
                std::count_if(logits.begin(), logits.end(), [](T x) { return x > lowest; }));
        if (!ranks_of<T>(logits, ranks, most - finite)) return false;
        std::array<std::int32_t, most> order;
        for (std::size_t i = 0; i < most; ++i) order[i] = static_cast<std::int32_t>(ranks[i]);
        std::array<Place, most + 1> places; // by rank; what is -inf has rank `finite`
        for (std::size_t i = 0; i < most; ++i) places[static_cast<std::size_t>(order[i])] = found.places[i];
        for (std::size_t i = 0; i < std::min(finite, static_cast<std::size_t>(K)); ++i) {
            logits_[i] = detail::at(z, places[i]);
            keys_[i] = first_key + places[i];
        }
        return true;
    }

    void insert(T logit, Index key) {
        std::size_t at = logits_.size() - 1;
        if (!(logit > lowest) || !precedes(logit, key, logits_[at], keys_[at])) return;
        for (; at > 0 && precedes(logit, key, logits_[at - 1], keys_[at - 1]); --at) {
            logits_[at] = logits_[at - 1];
            keys_[at] = keys_[at - 1];
        }
        logits_[at] = logit;
        keys_[at] = key;
    }

    static constexpr std::array<T, static_cast<std::size_t>(K)> no_logits() {
        std::array<T, static_cast<std::size_t>(K)> logits{};
        for (T& x : logits) x = lowest;
        return logits;
    }
    static constexpr std::array<Index, static_cast<std::size_t>(K)> no_keys() {
        std::array<Index, static_cast<std::size_t>(K)> keys{};
        for (Index& x : keys) x = -1;
        return keys;
    }

    std::array<T, static_cast<std::size_t>(K)> logits_ = no_logits(); ///< descending; the first is the largest
    std::array<Index, static_cast<std::size_t>(K)> keys_ = no_keys();
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
