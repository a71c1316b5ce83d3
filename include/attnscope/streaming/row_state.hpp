// Statistics of a row that is seen piece by piece: a commutative monoid.
#pragma once

#include <attnscope/row/row_statistics.hpp>
#include <attnscope/streaming/leaders.hpp>

namespace attnscope {
inline namespace v0_2 {
/// A key and its logit.
template <Real T>
struct Leader {
    Index key;
    T logit;
    friend bool operator==(const Leader&, const Leader&) = default;
};

/// At most K keys with their logits, from the largest down. Held in place.
template <Real T, Index K>
class LeadingKeys {
public:
    Index size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const Leader<T>& operator[](Index i) const { return detail::at(items_, i); }
    const Leader<T>* begin() const { return items_.data(); }
    const Leader<T>* end() const { return items_.data() + size_; }
    void add(const Leader<T>& leader) { detail::at(items_, size_++) = leader; }
    friend bool operator==(const LeadingKeys& a, const LeadingKeys& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end());
    }

private:
    std::array<Leader<T>, static_cast<std::size_t>(K)> items_{};
    Index size_ = 0;
};

namespace detail {
template <Real T, Index K>
class PieceQueue;
} // namespace detail

/// Everything that `row_statistics` tells about a row of logits (temperature 1), and its K largest logits
/// with their keys, from pieces that come in any order: `add` takes a piece, `merge` another state, and any
/// way of cutting a row gives the same result to rounding (of the accumulator: a few units of double a piece,
/// whatever the scalar). Masked keys (-inf) leave no trace.
/// A sink is no key of a piece: it stands beside the whole row, `SinkStatistics(state.statistics(), logit)`.
/// Invariant. A commutative monoid under `merge`, with the empty state as identity. Trivially copyable: it
/// may cross threads and processes.
/// Example, a row z, `RowIn<float>`, that is seen in two pieces:
///     RowState<float> first, second;
///     first.add(z.first(100), 0);
///     second.add(z.subspan(100), 100);
///     first.merge(second);
///     const double entropy = first.statistics().entropy_nats();
///     for (const auto& [key, logit] : first.leaders()) std::cout << key << ' ' << logit << '\n';
template <Real T, Index K = 8>
class RowState {
    static_assert(K >= 2, "the two largest logits are needed");

public:
    using A = Accumulator<T>;

    /// A piece of the row: logits of keys first_key, first_key + 1, ... Keys of NaN and +inf are counted.
    /// Cost. O(n), no allocation.
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
        infinite_key_ = std::min(infinite_key_, other.infinite_key_);
        if (other.finite_ == 0) return;
        if (finite_ == 0) {
            const Index nan = nan_, infinite = infinite_, key = infinite_key_;
            *this = other;
            nan_ = nan;
            infinite_ = infinite;
            infinite_key_ = key;
            return;
        }
        Sums sums = sums_, others = other.sums_;
        if (leaders_.precedes(other.leaders_.logit(0), other.leaders_.key(0), leaders_.logit(0),
                              leaders_.key(0)))
            std::swap(sums, others);
        sums_ = combined(sums, others, std::abs(A(leaders_.logit(0)) - A(other.leaders_.logit(0))));
        finite_ += other.finite_;
        smallest_ = std::min(smallest_, other.smallest_);
        leaders_.merge(other.leaders_);
    }

    /// Keys with a finite logit, NaN and +inf so far; together `statistics().visible`.
    Index finite_keys() const { return finite_; }
    Index nan_keys() const { return nan_; }
    Index infinite_keys() const { return infinite_; }
    RowStatus status() const {
        if (nan_ > 0) return RowStatus::nan;
        if (infinite_ > 0) return RowStatus::infinite;
        return finite_ > 0 ? RowStatus::normal : RowStatus::empty;
    }

    /// The keys with the largest logits, from the largest down, ties by smaller key: min(K, finite_keys) of
    /// them. Of a row with NaN some may be missing.
    LeadingKeys<T, K> leaders() const {
        LeadingKeys<T, K> result;
        for (Index i = 0; i < K && leaders_.key(i) >= 0; ++i) result.add({leaders_.key(i), leaders_.logit(i)});
        return result;
    }
    /// The i-th of them, 0 <= i < leaders().size().
    T leading_logit(Index i) const { return leaders_.logit(i); }
    Index leading_key(Index i) const { return leaders_.key(i); }

    /// The figures of the row: see `RowStatistics`. A row with +inf keys has status `infinite`, one with NaN
    /// keys `nan`.
    RowStatistics<A> statistics() const {
        RowStatistics<A> row;
        row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
        row.status = status();
        row.visible = finite_ + nan_ + infinite_;
        if (row.status == RowStatus::infinite) {
            row.max_logit = std::numeric_limits<A>::infinity();
            row.argmax = infinite_key_;
        }
        if (row.status != RowStatus::normal) return row;
        row.argmax = leaders_.key(0);
        row.max_logit = A(leaders_.logit(0));
        row.min_logit = A(smallest_);
        row.second_logit = finite_ > 1 ? A(leaders_.logit(1)) : RowStatistics<A>::nan();
        row.r = sums_.r;
        row.t = sums_.t;
        row.q = sums_.q;
        row.c = sums_.c;
        row.v = sums_.v;
        return row;
    }

    /// Sum of the largest k weights; of all if there are fewer.
    /// Throws. `invalid_argument` unless 0 <= k <= K: no others are kept.
    A top_mass(Index k) const {
        detail::require(k >= 0 && k <= K, "RowState::top_mass", "k must be in [0, K]", k, K);
        A sum = 0;
        for (Index i = 0; i < std::min({k, K, finite_}); ++i)
            sum += std::exp(A(leading_logit(i)) - A(leading_logit(0)));
        return status() == RowStatus::normal ? sum / (1 + sums_.r) : RowStatistics<A>::nan();
    }

    /// All that a state consists of, for those who store it.
    struct Parts {
        std::array<A, 5>
            sums{}; ///< of the keys but the first leader, u = its logit - z: e^-u, u e^-u, e^-2u, e^-3u, u^2 e^-u
        Index finite = 0, nan = 0, infinite = 0;                ///< keys
        Index infinite_key = std::numeric_limits<Index>::max(); ///< the first of the infinite ones
        T smallest = std::numeric_limits<T>::infinity();        ///< finite logit
        std::array<T, static_cast<std::size_t>(K)> logits{};    ///< the largest, descending; then -inf
        std::array<Index, static_cast<std::size_t>(K)> keys{};  ///< of these; then -1
    };
    Parts parts() const {
        Parts parts{
            {sums_.r, sums_.t, sums_.q, sums_.c, sums_.v}, finite_, nan_, infinite_, infinite_key_, smallest_};
        for (Index i = 0; i < K; ++i) {
            detail::at(parts.logits, i) = leaders_.logit(i);
            detail::at(parts.keys, i) = leaders_.key(i);
        }
        return parts;
    }
    /// The state of these parts.
    /// Throws. `invalid_argument` for parts that no row has: what is wrong with them.
    static RowState of(const Parts& parts) {
        const auto need = [](bool holds, const char* rule) { detail::require(holds, "RowState::of", rule); };
        need(parts.finite >= 0 && parts.nan >= 0 && parts.infinite >= 0, "counts of keys must be >= 0");
        // Beside NaN, keys are counted that nothing else is known of.
        auto known = static_cast<std::size_t>(std::min(K, parts.finite));
        while (parts.nan > 0 && known > 0 && parts.keys[known - 1] == -1) --known;
        for (const A sum : parts.sums)
            need(sum >= A(0) && sum <= std::numeric_limits<A>::max() && (known > 1 || sum == A(0)),
                 "sums must be finite and >= 0, and 0 of less than two keys");
        constexpr Index none = std::numeric_limits<Index>::max();
        need(parts.infinite > 0 ? parts.infinite_key >= 0 && parts.infinite_key < none
                                : parts.infinite_key == none,
             "the first key at +inf must be there if, and only if, there are any");
        for (std::size_t i = 0; i < parts.logits.size(); ++i) {
            const T z = parts.logits[i];
            if (i < known)
                need(std::abs(z) <= std::numeric_limits<T>::max() && parts.keys[i] >= 0 &&
                         (i == 0 || detail::Leaders<T, K>::precedes(parts.logits[i - 1], parts.keys[i - 1], z,
                                                                    parts.keys[i])),
                     "the largest logits must be finite and descend, ties by ascending key");
            else
                need(z == lowest && parts.keys[i] == -1, "there must be as many largest logits as keys, or K");
        }
        need(known == 0 ? parts.smallest == std::numeric_limits<T>::infinity()
                        : std::abs(parts.smallest) <= std::numeric_limits<T>::max() &&
                              parts.smallest <= parts.logits[known - 1],
             "the smallest logit must be finite and no larger than the others");
        RowState state;
        state.sums_ = {parts.sums[0], parts.sums[1], parts.sums[2], parts.sums[3], parts.sums[4]};
        state.finite_ = parts.finite;
        state.nan_ = parts.nan;
        state.infinite_ = parts.infinite;
        state.infinite_key_ = parts.infinite_key;
        state.smallest_ = parts.smallest;
        state.leaders_ = {parts.logits, parts.keys};
        return state;
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

    template <bool store>
    A add_piece(RowIn<T> z, Index first_key, T* terms) {
        Piece piece;
        begin(z, first_key, piece);
        return finish<store>(piece, terms);
    }

    /// A piece whose leading keys have been taken in, and its sums not yet.
    struct Piece {
        RowIn<T> z;
        Index first_key = 0;
        bool counted = true; ///< nothing is left to do
        bool leads = false;  ///< its largest logit is the largest of the row
        T min = 0, max = 0;
        detail::Leaders<T, K> before; ///< the row's
    };
    friend class detail::PieceQueue<T, K>;

    void begin(RowIn<T> z, Index first_key, Piece& piece) {
        piece.z = z;
        piece.first_key = first_key;
        piece.counted = true;
        if (z.empty()) return;
        const detail::PieceRange<T> range = detail::piece_range<T, K>(z);
        if (!(std::abs(range.max) <= std::numeric_limits<T>::max())) return count_special(z, first_key);
        piece.min = range.min;
        piece.max = range.max;
        piece.leads = finite_ == 0 || range.max > leaders_.logit(0);
        piece.before = leaders_;
        if (const T last = leaders_.logit(K - 1); range.max >= last)
            leaders_.add(z, first_key, std::max(range.cut, last));
        if (piece.leads && leaders_.logit(0) != range.max) { // NaN hid it
            leaders_ = piece.before;
            return count_special(z, first_key);
        }
        piece.counted = false;
    }

    /// No other piece of the row may have begun since.
    template <bool store>
    A finish(const Piece& piece, T* terms) {
        const RowIn<T> z = piece.z;
        if (piece.counted) {
            if constexpr (store) std::fill_n(terms, z.size(), T(0));
            return A(1);
        }
        const T m = leaders_.logit(0);
        const std::size_t top =
            piece.leads ? static_cast<std::size_t>(leaders_.key(0) - piece.first_key) : detail::no_key;
        const auto [smallest, visible] = detail::visible_range<T>(z, piece.min);
        // In T the squares of such distances would underflow.
        A flat_t = 0, flat_v = 0;
        const bool flat = !std::same_as<A, T> && A(m) - A(smallest) < detail::flat_exponent<T>();
        for (std::size_t i = 0; flat && i < z.size(); ++i)
            if (const A u = A(m) - A(z[i]); u <= std::numeric_limits<A>::max()) {
                flat_t += u;
                flat_v += u * u;
            }
        const detail::RowPeak<T> peak{{smallest, m}, top, visible};
        const detail::KeySums<T> sums =
            detail::has_floor(m) ? detail::sums_of_keys<false, store, false, T>(z, peak, T(1), T(0), terms)
                                 : detail::sums_of_keys<true, store, false, T>(z, peak, T(1), T(0), terms);
        if (!(sums.r == sums.r)) { // a NaN somewhere
            leaders_ = piece.before;
            if constexpr (store) { // the terms may have replaced the logits; those of NaN are NaN, and no
                                   // others
                const auto nan = std::count_if(terms, terms + z.size(), [](T x) { return x != x; });
                nan_ += nan;
                finite_ += visible - nan;
            } else {
                count_special(z, piece.first_key);
            }
            return A(1);
        }
        const Sums own{sums.r, flat ? flat_t : sums.t, sums.q, sums.c, flat ? flat_v : sums.v};
        A factor = 1;
        if (piece.leads) {
            if constexpr (store) terms[top] = T(1);
            const A distance = A(m) - A(piece.before.logit(0));
            factor = finite_ > 0 ? std::exp(-distance) : A(1);
            sums_ = finite_ > 0 ? combined(own, sums_, distance) : own;
        } else {
            sums_.r += own.r;
            sums_.t += own.t;
            sums_.q += own.q;
            sums_.c += own.c;
            sums_.v += own.v;
        }
        finite_ += visible;
        smallest_ = std::min(smallest_, smallest);
        return factor;
    }

    /// Key by key, for pieces with NaN, +inf or nothing visible.
    void count_special(RowIn<T> z, Index first_key) {
        for (std::size_t i = 0; i < z.size(); ++i) {
            nan_ += z[i] != z[i];
            if (z[i] == std::numeric_limits<T>::infinity()) {
                ++infinite_;
                infinite_key_ = std::min(infinite_key_, first_key + static_cast<Index>(i));
            }
            if (std::abs(z[i]) <= std::numeric_limits<T>::max())
                add(z.subspan(i, 1), first_key + static_cast<Index>(i));
        }
    }

    Sums sums_;
    Index finite_ = 0, nan_ = 0, infinite_ = 0;
    Index infinite_key_ = std::numeric_limits<Index>::max(); ///< the first of them
    T smallest_ = std::numeric_limits<T>::infinity();
    detail::Leaders<T, K> leaders_;
};

namespace detail {

/// Adds pieces to the states of many rows, each row's sums after the leading keys of the next row: finding these is a long
/// chain of steps, beside which a processor can do what is independent of it. The states are those that `RowState::add` makes.
/// Invariant. States and logits stay where they are until `finish`.
template <Real T, Index K>
class PieceQueue {
public:
    using State = RowState<T, K>;
    using A = typename State::A;

    /// As `RowState::add`, with `terms` if they are stored. done(row, factor) is called when it is done.
    template <bool store, class Done>
    void add(State& state, RowIn<T> z, Index first_key, T* terms, Index row, const Done& done) {
        if (last_ != nullptr && last_->state == &state) finish<store>(done);
        Entry& entry = entries_[last_ == entries_.data() ? 1 : 0];
        state.begin(z, first_key, entry.piece);
        entry.state = &state;
        entry.terms = terms;
        entry.row = row;
        finish<store>(done);
        last_ = &entry;
    }
    /// What has begun.
    template <bool store, class Done>
    void finish(const Done& done) {
        if (last_ == nullptr) return;
        const Entry& entry = *std::exchange(last_, nullptr);
        done(entry.row, entry.state->template finish<store>(entry.piece, entry.terms));
    }

private:
    struct Entry {
        typename State::Piece piece;
        State* state = nullptr;
        T* terms = nullptr;
        Index row = 0;
    };
    std::array<Entry, 2> entries_;
    Entry* last_ = nullptr; ///< has begun
};

} // namespace detail

} // namespace v0_2
} // namespace attnscope
