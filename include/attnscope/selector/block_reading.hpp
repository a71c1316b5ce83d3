// Reading some blocks of keys and knowing what the others can weigh at most: selections with a certificate.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/selector/key_blocks.hpp>

#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// Some blocks of keys, read for one query, and what is certain of the rest: no key or value outside was looked at.
template <Real A>
struct BlockReading {
    std::vector<Index> blocks; ///< those that were read, in the order of reading
    std::vector<Index> keys;   ///< of these the keys that the query sees
    Index visible_blocks = 0;  ///< blocks with a key that the query sees
    A kept = 0;                ///< certified: the mass of what was read is at least this share of all
    A output = 0;              ///< certified: |o - o_I| is at most this; NaN without values
    A reach = 0;               ///< no value outside is farther from o_I than this; NaN without values
    A best_unread = -std::numeric_limits<A>::infinity(); ///< no logit outside is larger
    Index certain_top = 0; ///< so many of the read keys are certainly the best of all, the next may not be
    A rounding = 0;        ///< of a logit: `kept` and `output` are exact to about twice that, relative
};

/// Reads blocks of the keys of a head, for one query after the other, and certifies what was read.
/// Invariant. Borrowed: head and blocks must outlive it.
/// Formula. With S = sum e^z over the read keys and E_B >= the mass of an unread block B (`most_block_mass`, or
/// n e^most where the query sees n of its keys but not all),
///       kept = S/(S + sum_B E_B).
/// With g_B >= |v_j - o_I| for the values of B (`value_reach`) and M_B in [L_B, E_B] the mass of B, L_B = n e^mean (n e^least
/// where not all is seen),
///       |o - o_I| <= max over such M of sum_B M_B g_B/(S + sum_B M_B).
/// Shapes and units. As of the head; masses as shares of 1.
/// Special rows. A query that sees no key has kept = 1, output = 0. What a NaN is read into is NaN.
/// Example, so many blocks as 99 % of the mass need for certain:
///     const KeyBlocks<float> blocks(head.k(), 16, head.v());
///     const BlockReader<float> reader(head, blocks, Mask::causal());
///     const auto read = reader.until(query, 0.99);
template <Real T>
class BlockReader {
public:
    using A = Accumulator<T>;

    /// Throws. `invalid_argument` unless the blocks are of as many keys, as wide as those of the head.
    BlockReader(const HeadView<T>& head, const KeyBlocks<T>& blocks, Mask mask = {})
        : head_(head), blocks_(blocks), mask_(std::move(mask)) {
        detail::require(blocks.keys() == head.keys() && blocks.width() == head.k().cols(), "BlockReader",
                        "the blocks must be of the keys of the head", blocks.keys(), head.keys());
    }

    /// Reads the blocks with the most possible mass until what was read is certain to hold `target` of all; at least one.
    /// Cost. O(blocks (d + log blocks) + read keys (d + d_v)).
    /// Throws. `invalid_argument` unless target is in [0, 1] and there is such a query.
    BlockReading<A> until(Index query, double target) const {
        detail::require(target >= 0 && target <= 1, "BlockReader::until", "target must be in [0, 1]", target);
        Row row(*this, query);
        const std::vector<Index> order = row.by_mass();
        std::vector<A> rest(order.size() + 1, A(0)); // what the blocks from here on can weigh
        for (std::size_t i = order.size(); i-- > 0;) rest[i] = rest[i + 1] + row.most_of(order[i]);
        for (std::size_t i = 0; i < order.size(); ++i) {
            if (i > 0 && row.mass() >= static_cast<A>(target) * (row.mass() + rest[i])) break;
            row.read(order[i]);
        }
        return row.finish();
    }

    /// Reads the blocks that some keys of the query can be in with the largest limit on a logit (Quest), as many as have no
    /// more than `budget` visible keys together, and always the one of the last visible key.
    /// Cost. As `until`.
    BlockReading<A> best(Index query, Index budget) const {
        Row row(*this, query);
        const std::vector<Index> order = row.by_most();
        Index room = budget;
        for (const Index place : order) {
            const Index count = row.visible_of(place);
            if (!row.reading.blocks.empty() && count > room) continue;
            room -= count;
            row.read(place);
        }
        return row.finish();
    }

    /// Reads these blocks; what the query does not see of them is left out.
    /// Throws. `invalid_argument` for a block that is not there or there twice.
    BlockReading<A> read(Index query, std::span<const Index> blocks) const {
        Row row(*this, query);
        for (const Index block : blocks) row.read_block(block);
        return row.finish();
    }

private:
    /// One query's view of the blocks.
    class Row {
    public:
        BlockReading<A> reading;

        Row(const BlockReader& reader, Index query) : reader_(reader) {
            const HeadView<T>& head = reader.head_;
            detail::require(query >= 0 && query < head.queries(), "BlockReader", "there must be such a query",
                            query, head.queries());
            q_ = std::span<const T>(head.q().row(query).data(), static_cast<std::size_t>(head.q().cols()));
            visible_ = reader.mask_.visible(query, head.keys());
            const A scale = A(head.scale());
            for (Index b = 0; b < reader.blocks_.count(); ++b) {
                const KeyRange range = reader.blocks_.keys_of(b);
                const KeyRanges seen = inside(range);
                if (seen.count() == 0) continue;
                places_.push_back({b, seen, reader.blocks_.logits(q_, scale, b)});
                Place& place = places_.back();
                if (seen.count() < range.size())
                    place.logits.mean = place.logits.most; // whose mean is not known
                shift_ = std::max(shift_, place.logits.most);
                reading.rounding = std::max(reading.rounding, place.logits.rounding);
            }
            reading.visible_blocks = static_cast<Index>(places_.size());
            for (Place& place : places_) {
                place.most = most_block_mass(place.logits, place.seen.count(), shift_);
                const bool whole = reader.blocks_.has_moments() &&
                                   place.seen.count() == reader.blocks_.keys_of(place.block).size();
                place.least = static_cast<A>(place.seen.count()) *
                              std::exp((whole ? place.logits.mean : place.logits.least) - shift_);
            }
            if (head.has_values()) sum_.setZero(head.v().cols());
        }

        std::vector<Index> by_mass() const {
            return sorted([&](const Place& a, const Place& b) { return a.most > b.most; });
        }
        /// The newest first, then by the largest possible logit.
        std::vector<Index> by_most() const {
            std::vector<Index> order =
                sorted([&](const Place& a, const Place& b) { return a.logits.most > b.logits.most; });
            const auto newest = std::find(order.begin(), order.end(), static_cast<Index>(places_.size()) - 1);
            if (newest != order.end()) std::rotate(order.begin(), newest, newest + 1);
            return order;
        }
        A most_of(Index place) const { return detail::at(places_, place).most; }
        A mass() const { return mass_; } ///< read
        Index visible_of(Index place) const { return detail::at(places_, place).seen.count(); }

        void read_block(Index block) {
            detail::require(block >= 0 && block < reader_.blocks_.count(), "BlockReader::read",
                            "there must be such a block", block, reader_.blocks_.count());
            const auto at = std::lower_bound(places_.begin(), places_.end(), block,
                                             [](const Place& place, Index b) { return place.block < b; });
            if (at == places_.end() || at->block != block) return; // the query sees nothing of it
            detail::require(!at->read, "BlockReader::read", "a block must be read once", block);
            read(at - places_.begin());
        }
        void read(Index number) {
            Place& place = detail::at(places_, number);
            place.read = true;
            reading.blocks.push_back(place.block);
            const HeadView<T>& head = reader_.head_;
            const A scale = A(head.scale());
            place.seen.for_each([&](Index key) {
                A z = 0;
                const std::span<const T> k(head.k().row(key).data(), q_.size());
                for (std::size_t c = 0; c < q_.size(); ++c) z += scale * A(q_[c]) * A(k[c]);
                reading.keys.push_back(key);
                logits_.push_back(z);
                const A weight = std::exp(z - shift_);
                mass_ += weight;
                if (head.has_values()) sum_ += weight * head.v().map().row(key).template cast<A>();
            });
        }
        BlockReading<A> finish() {
            constexpr A nan = std::numeric_limits<A>::quiet_NaN();
            std::vector<const Place*> unread;
            for (const Place& place : places_)
                if (!place.read) unread.push_back(&place);
            for (const Place* place : unread)
                reading.best_unread = std::max(reading.best_unread, place->logits.most);
            for (const A z : logits_) reading.certain_top += z > reading.best_unread;
            A rest = 0;
            for (const Place* place : unread) rest += place->most;
            reading.kept = rest == A(0) && (unread.empty() || mass_ > A(0)) ? A(1) : mass_ / (mass_ + rest);
            reading.output = reading.reach = reader_.blocks_.has_values() ? A(0) : nan;
            if (unread.empty() || !reader_.blocks_.has_values()) return std::move(reading);
            if (!(mass_ > A(0))) { // nothing was read: no o_I
                reading.output = reading.reach = nan;
                return std::move(reading);
            }
            const Eigen::Matrix<A, 1, Eigen::Dynamic> selected = sum_ / mass_;
            std::vector<A> reach;
            A base = mass_, spread = 0;
            for (const Place* place : unread) {
                reach.push_back(reader_.blocks_.value_reach(place->block, selected));
                reading.reach = std::max(reading.reach, reach.back());
                base += place->least;
                spread += place->least * reach.back();
            }
            // The quotient grows by the blocks whose reach is above it: the farthest first.
            std::vector<std::size_t> order(unread.size());
            std::iota(order.begin(), order.end(), std::size_t(0));
            std::sort(order.begin(), order.end(),
                      [&](std::size_t a, std::size_t b) { return reach[a] > reach[b]; });
            for (const std::size_t at : order) {
                if (!(reach[at] > spread / base)) break;
                const A more = std::max(A(0), unread[at]->most - unread[at]->least);
                base += more;
                spread += more * reach[at];
            }
            reading.output = spread / base;
            return std::move(reading);
        }

    private:
        struct Place {
            Index block;
            KeyRanges seen;
            BlockLogits<A> logits;
            A most = 0, least = 0; ///< of its mass
            bool read = false;
        };

        KeyRanges inside(const KeyRange& range) const {
            const auto clip = [&](const KeyRange& part) {
                return KeyRange{std::max(part.begin, range.begin), std::min(part.end, range.end)};
            };
            return {clip(visible_.lead), clip(visible_.body)};
        }
        template <class Before>
        std::vector<Index> sorted(const Before& before) const {
            std::vector<Index> order(places_.size());
            std::iota(order.begin(), order.end(), Index(0));
            std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
                return before(detail::at(places_, a), detail::at(places_, b));
            });
            return order;
        }

        const BlockReader& reader_;
        std::span<const T> q_;
        KeyRanges visible_;
        std::vector<Place> places_; ///< by block
        std::vector<A> logits_;     ///< of the read keys
        A shift_ = -std::numeric_limits<A>::infinity(), mass_ = 0;
        Eigen::Matrix<A, 1, Eigen::Dynamic> sum_;
    };

    HeadView<T> head_;
    const KeyBlocks<T>& blocks_;
    Mask mask_;
};

inline constexpr Statement block_recall_statement{
    .id = "block_recall",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "A_I >= S/(S + sum_B n_B ((1-w_B) e^{m_B - s_B^2/(u_B-m_B)} + w_B e^{u_B})), w_B = "
            "s_B^2/((u_B-m_B)^2 + s_B^2)",
    .conditions =
        "S = sum over I of e^z; outside, n_B logits of mean m_B, variance at most s_B^2, none above u_B",
    .source = "Bennett's inequality for blocks of keys; Quest has n_B e^{u_B}",
};

/// Bound "block_recall" of a row: what was read keeps at least the certified share.
/// Shapes and units. kept: A_I, measured over all keys; relative_error: that of the weights it was measured from.
/// Cost. O(1).
template <Real A>
Bound<A> block_recall_bound(const BlockReading<A>& reading, A kept, A relative_error) {
    const A weights = 4 * reading.rounding + relative_error +
                      std::numeric_limits<A>::epsilon() * static_cast<A>(reading.keys.size() + 16);
    return lower_bound<A>(
        block_recall_statement,
        {.limit = reading.kept, .measured = kept, .tolerance = weights * reading.kept, .trivial = 0});
}

inline constexpr Statement block_output_statement{
    .id = "block_output",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|o - o_I| <= max over M_B in [L_B, E_B] of sum_B M_B g_B/(S + sum_B M_B), g_B = max over B of "
            "|v_j - o_I|",
    .conditions = "L_B <= the mass of block B <= E_B, from what is known of its logits without reading it",
    .source = "the part of the output that was not read is a mean of values outside",
};

/// Bound "block_output" of a row: what was not read moves the output by no more than the certified limit.
/// Shapes and units. error: |o - o_I|, measured over all keys; relative_error: that of the weights it was measured from;
/// length: of the longest value, in whose units outputs are rounded.
/// Cost. O(1).
template <Real A>
Bound<A> block_output_bound(const BlockReading<A>& reading, A error, A relative_error, A length) {
    const A eps = std::numeric_limits<A>::epsilon() * static_cast<A>(reading.keys.size() + 16);
    return upper_bound<A>(
        block_output_statement,
        {.limit = reading.output,
         .measured = error,
         .tolerance = (4 * reading.rounding + relative_error + eps) * reading.output + eps * length,
         .trivial = reading.reach});
}

} // namespace v0_2
} // namespace attnscope
