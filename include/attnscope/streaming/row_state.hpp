// Statistics of a row that is seen piece by piece: a commutative monoid.
#pragma once

#include <attnscope/concentration/row_statistics.hpp>

#include <bit>
#include <cstdint>
#include <utility>

namespace attnscope {
inline namespace v0_1 {
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
    using S = Simd<T>;
    using P = typename S::P;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    constexpr Index packets = std::min<Index>(16, (2 * k + S::size - 1) / S::size);
    constexpr Index classes = packets * S::size, steps = packets * ((4 + packets - 1) / packets);
    P high[steps], low[4];
    for (P& x : high) x = S::set(-infinity);
    for (P& x : low) x = S::set(infinity);
    const Index n = size(z);
    const auto meet = [&](Index j, P x, P y) {
        high[j] = S::max(high[j], x);
        low[j % 4] = S::min(low[j % 4], y);
    };
    Index i = 0;
    for (; i + steps * S::size <= n; i += steps * S::size)
        for (Index j = 0; j < steps; ++j) {
            const P x = S::load(z.data() + i + j * S::size);
            meet(j, x, x);
        }
    Index j = 0;
    for (; i + S::size <= n; i += S::size, ++j) {
        const P x = S::load(z.data() + i);
        meet(j, x, x);
    }
    if (i < n)
        meet(j, S::load_partial(z.data() + i, n - i, -infinity),
             S::load_partial(z.data() + i, n - i, z[static_cast<std::size_t>(i)]));
    for (j = packets; j < steps; ++j) high[j % packets] = S::max(high[j % packets], high[j]);
    P largest = high[0];
    for (j = 1; j < packets; ++j) largest = S::max(largest, high[j]);
    PieceRange<T> range{S::reduce_min(S::min(S::min(low[0], low[1]), S::min(low[2], low[3]))),
                        S::reduce_max(largest), -infinity};
    if (classes < k || n <= 2 * k) return range;
    // The k-th largest of some numbers is the smallest that has fewer than k larger ones.
    std::array<T, static_cast<std::size_t>(classes)> maxima;
    for (j = 0; j < packets; ++j) S::store(maxima.data() + j * S::size, high[j]);
    const P one = S::set(T(1)), above = S::set(infinity), count = S::set(T(k) - T(0.5));
    P cut = above;
    for (j = 0; j < packets; ++j) {
        P larger = S::set(T(0));
        for (const T x : maxima) larger = S::select_below(high[j], S::set(x), S::add(larger, one), larger);
        cut = S::min(cut, S::select_below(larger, count, high[j], above));
    }
    range.cut = S::reduce_min(cut);
    return range;
}

} // namespace detail

/// Everything that `row_statistics` tells about a row of logits (temperature 1), and its K largest logits with
/// their keys, from pieces that come in any order: `add` takes a piece, `merge` another state, and any way of
/// cutting a row gives the same result to rounding (of the accumulator: a few units of double a piece, whatever
/// the scalar). The empty state is the identity. Trivially copyable: it may cross threads and processes. Masked
/// keys (-inf) leave no trace.
template <Real T, Index K = 8>
class RowState {
    static_assert(K >= 2, "the two largest logits are needed");

public:
    using A = detail::Accumulator<T>;

    /// A piece of the row: logits of keys first_key, first_key + 1, ... Keys of NaN and +inf are counted. O(n),
    /// no allocation.
    void add(RowIn<T> z, Index first_key) { add_piece<false>(z, first_key, nullptr); }

    /// The same; writes the terms e^{z_i - m} of the piece to `terms` (which may be z), m the largest logit so
    /// far, and returns the factor e^{old m - m} by which sums of earlier terms are to be multiplied (1 before
    /// there are any).
    A add(RowIn<T> z, Index first_key, RowOut<T> terms) {
        detail::require_same_size<T>("RowState::add", z, terms);
        return add_piece<true>(z, first_key, terms.data());
    }

    /// Another part of the same row, whose keys are others. O(K).
    void merge(const RowState& other) {
        nan_ += other.nan_;
        infinite_ += other.infinite_;
        if (other.visible_ == 0) return;
        if (visible_ == 0) {
            const Index nan = nan_, infinite = infinite_;
            *this = other;
            nan_ = nan;
            infinite_ = infinite;
            return;
        }
        Sums sums = sums_, others = other.sums_;
        if (precedes(other.logits_[0], other.keys_[0], logits_[0], keys_[0])) std::swap(sums, others);
        sums_ = combined(sums, others, std::abs(A(logits_[0]) - A(other.logits_[0])));
        visible_ += other.visible_;
        smallest_ = std::min(smallest_, other.smallest_);
        for (std::size_t i = 0; i < logits_.size(); ++i) insert(other.logits_[i], other.keys_[i]);
    }

    /// Keys with a finite logit, NaN and +inf so far.
    Index visible() const { return visible_; }
    Index nan_keys() const { return nan_; }
    Index infinite_keys() const { return infinite_; }
    RowStatus status() const {
        if (nan_ > 0) return RowStatus::nan;
        if (infinite_ > 0) return RowStatus::infinite;
        return visible_ > 0 ? RowStatus::normal : RowStatus::empty;
    }

    /// How many of the K largest there are: min(K, visible).
    Index leaders() const { return std::min(K, visible_); }
    /// The i-th largest logit, ties by smaller key, and its key. 0 <= i < leaders().
    T leading_logit(Index i) const { return logits_[static_cast<std::size_t>(i)]; }
    Index leading_key(Index i) const { return keys_[static_cast<std::size_t>(i)]; }

    /// The figures of the row: see `RowStatistics`. A row with +inf keys has status `infinite`, one with NaN
    /// keys `nan`.
    RowStatistics<A> statistics() const {
        RowStatistics<A> row;
        row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
        row.status = status();
        row.visible = visible_ + nan_ + infinite_;
        if (row.status == RowStatus::infinite) row.max_logit = std::numeric_limits<A>::infinity();
        if (row.status != RowStatus::normal) return row;
        row.argmax = keys_[0];
        row.max_logit = A(logits_[0]);
        row.min_logit = A(smallest_);
        row.second_logit = visible_ > 1 ? A(logits_[1]) : RowStatistics<A>::nan();
        row.r = sums_.r;
        row.t = sums_.t;
        row.q = sums_.q;
        row.c = sums_.c;
        row.v = sums_.v;
        return row;
    }

    /// sum of the largest k weights, k <= leaders(), and 1 minus it, which keeps its digits when it is small
    /// only as far as the list reaches.
    A leading_mass(Index k) const {
        A sum = 0;
        for (Index i = 0; i < std::min(k, leaders()); ++i) sum += std::exp(A(leading_logit(i)) - A(logits_[0]));
        return status() == RowStatus::normal ? sum / (1 + sums_.r) : RowStatistics<A>::nan();
    }

    /// The same to the last bit.
    friend bool operator==(const RowState&, const RowState&) = default;

private:
    /// Sums relative to the largest logit, which is left out: see `RowStatistics`.
    struct Sums {
        A r = 0, t = 0, q = 0, c = 0, v = 0;
        friend bool operator==(const Sums&, const Sums&) = default;
    };
    static constexpr T lowest = -std::numeric_limits<T>::infinity();

    /// Does logit a of key i come before logit b of key j?
    static bool precedes(T a, Index i, T b, Index j) { return a > b || (a == b && i < j); }

    /// Sums of a part whose largest logit is the row's and of another whose largest lies `distance` below. Only
    /// positive terms are added.
    static Sums combined(const Sums& a, const Sums& b, A distance) {
        const A w = std::exp(-distance), mass = 1 + b.r;
        if (w == A(0)) return a;
        const A square = w * w;
        return {a.r + w * mass, a.t + w * (b.t + distance * mass), a.q + square * (1 + b.q),
                a.c + square * w * (1 + b.c),
                a.v + w * (b.v + 2 * distance * b.t + distance * distance * mass)};
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

    template <bool store>
    A add_piece(RowIn<T> z, Index first_key, T* terms) {
        const auto give_nothing = [&] {
            if constexpr (store) std::fill_n(terms, z.size(), T(0));
            return A(1);
        };
        if (z.empty()) return A(1);
        const detail::PieceRange<T> range = detail::piece_range<T, K>(z);
        if (!(std::abs(range.max) <= std::numeric_limits<T>::max())) {
            count_special(z, first_key);
            return give_nothing();
        }
        const bool leads = visible_ == 0 || range.max > logits_[0];
        const T m = leads ? range.max : logits_[0];
        // In place the logits are gone afterwards: the list first.
        const RowState before = *this;
        if (range.max >= logits_.back()) collect(z, first_key, std::max(range.cut, logits_.back()));
        if (leads && logits_[0] != m) { // NaN hid it
            *this = before;
            count_special(z, first_key);
            return give_nothing();
        }
        const std::size_t top = leads ? static_cast<std::size_t>(keys_[0] - first_key) : detail::no_key;
        T smallest = range.min;
        Index visible = static_cast<Index>(z.size());
        if (!(smallest > lowest)) std::tie(smallest, visible) = detail::visible_range<T>(z);
        // At the very end of the range there is no logit below for what has no weight; the scaled form needs
        // none.
        const detail::KeySums<T> sums =
            m > std::numeric_limits<T>::lowest() / 2
                ? detail::key_sums_without_range<false, store, T>(z, m, top, T(1), T(0), terms)
                : detail::key_sums_without_range<true, store, T>(z, m, top, T(1), T(0), terms);
        if (!(sums.r == sums.r)) { // a NaN somewhere
            *this = before;
            if constexpr (store) { // the terms may have replaced the logits; those of NaN are NaN, and no
                                   // others
                const auto nan = std::count_if(terms, terms + z.size(), [](T x) { return x != x; });
                nan_ += nan;
                visible_ += visible - nan;
            } else {
                count_special(z, first_key);
            }
            return A(1);
        }
        const Sums piece{sums.r, sums.t, sums.q, sums.c, sums.v};
        A factor = 1;
        if (leads) {
            if constexpr (store) terms[top] = T(1);
            const A distance = A(m) - A(before.logits_[0]);
            sums_ = before.visible_ > 0 ? combined(piece, before.sums_, distance) : piece;
            factor = before.visible_ > 0 ? std::exp(-distance) : A(1);
        } else {
            sums_.r += piece.r;
            sums_.t += piece.t;
            sums_.q += piece.q;
            sums_.c += piece.c;
            sums_.v += piece.v;
        }
        visible_ += visible;
        smallest_ = std::min(smallest_, smallest);
        return factor;
    }

    /// Puts the keys of a piece with logits of at least `cut` into the list.
    void collect(RowIn<T> z, Index first_key, T cut) {
        using S = detail::Simd<T>;
        const auto limit = S::set(cut);
        Candidates found;
        detail::for_each_lane<T>(detail::size(z), [&](const auto& lane) {
            const auto keys = lane(z.data(), lowest);
            for (std::uint32_t mask = S::mask_not_below(keys, limit); mask != 0; mask &= mask - 1) {
                const Index at = lane.i + std::countr_zero(mask);
                if (at >= detail::size(z)) break;
                if (found.count == Candidates::most) take_in(found, first_key);
                const auto next = static_cast<std::size_t>(found.count++);
                found.logits[next] = z[static_cast<std::size_t>(at)];
                found.places[next] = at;
            }
        });
        take_in(found, first_key);
    }

    /// Logits that may belong to the list, and their places in the piece, ascending.
    struct Candidates {
        static constexpr Index size = detail::Simd<T>::size;
        static constexpr Index most = (2 * K + size - 1) / size * size;
        std::array<T, static_cast<std::size_t>(most)> logits;
        std::array<Index, static_cast<std::size_t>(most)> places;
        Index count = 0;
    };
    void take_in(Candidates& found, Index first_key) {
        const Index count = std::exchange(found.count, 0);
        if (keys_[0] < 0 && count > 2 && rank_in(found, count, first_key)) return;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
            insert(found.logits[i], first_key + found.places[i]);
    }

    /// Fills the empty list: a candidate's place is the number of larger ones, counted for a packet of them at
    /// once, where insertion would be one mispredicted branch after the other. False, and nothing done, if
    /// there are ties or no finite logits.
    bool rank_in(Candidates& found, Index count, Index first_key) {
        using S = detail::Simd<T>;
        constexpr Index packets = Candidates::most / S::size;
        std::fill(found.logits.begin() + count, found.logits.end(), lowest);
        std::array<T, static_cast<std::size_t>(Candidates::most)> ranks;
        const auto one = S::set(T(1));
        for (Index j = 0; j < packets; ++j) {
            const auto x = S::load(found.logits.data() + j * S::size);
            auto rank = S::set(T(0));
            for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
                rank = S::select_below(x, S::set(found.logits[i]), S::add(rank, one), rank);
            S::store(ranks.data() + j * S::size, rank);
        }
        T sum = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) sum += ranks[i];
        if (sum != static_cast<T>(count * (count - 1) / 2)) return false; // equal ones have equal ranks
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            const auto rank = static_cast<std::size_t>(ranks[i]);
            if (rank >= static_cast<std::size_t>(K) || !(found.logits[i] > lowest)) continue;
            logits_[rank] = found.logits[i];
            keys_[rank] = first_key + found.places[i];
        }
        return true;
    }

    /// Key by key, for pieces with NaN, +inf or nothing visible.
    void count_special(RowIn<T> z, Index first_key) {
        for (std::size_t i = 0; i < z.size(); ++i) {
            nan_ += z[i] != z[i];
            infinite_ += z[i] == std::numeric_limits<T>::infinity();
            if (std::abs(z[i]) <= std::numeric_limits<T>::max())
                add(z.subspan(i, 1), first_key + static_cast<Index>(i));
        }
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

    Sums sums_;
    Index visible_ = 0, nan_ = 0, infinite_ = 0;
    T smallest_ = std::numeric_limits<T>::infinity();
    std::array<T, static_cast<std::size_t>(K)> logits_ = no_logits(); ///< descending; the first is the largest
    std::array<Index, static_cast<std::size_t>(K)> keys_ = no_keys();
};

} // namespace v0_1
} // namespace attnscope
