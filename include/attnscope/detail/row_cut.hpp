// Where a row is cut so that its largest elements stay: by their number, or by their share of the sum.
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/detail/ordered_bits.hpp>

#include <algorithm>
#include <memory>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// What stays: every element above `least`, and all that equal it but for `surplus` of them.
template <Real T>
struct RowCut {
    T least;
    Index surplus = 0;
};

/// The elements that are dropped so far, the smallest ones of a row: no more than a number of them, whose sum is no more
/// than it may be, and never all.
template <Real T>
struct DroppedElements {
    using A = Accumulator<T>;
    Index most;  ///< of them
    A spare = 0; ///< of their sum, where it is looked at
    bool looks_at_sum = false;
    Index count = 0;
    A sum = 0;

    bool add(Index more, A more_sum) {
        if (more > most - count || (looks_at_sum && sum + more_sum > spare)) return false;
        count += more;
        sum += more_sum;
        return true;
    }
};

/// A sum in the accumulator scalar of packets of T, of which a few at a time are added up as they are: to 4 units of T,
/// usually to less than one.
template <Real T>
class WideSum {
public:
    WideSum() { wide_.start(T(0)); }
    EIGEN_ALWAYS_INLINE void add(Packet<T> x) {
        part_ += x;
        if constexpr (!std::same_as<T, Accumulator<T>>)
            if (++parts_ == 8) flush();
    }
    Accumulator<T> sum() {
        flush();
        return wide_.sum();
    }

private:
    void flush() {
        wide_.add(part_);
        part_ = T(0);
        parts_ = 0;
    }
    Packet<T> part_ = T(0);
    WidePacket<T> wide_;
    int parts_ = 0;
};

/// Sum of a row in the accumulator scalar, as `WideSum`.
template <Real T>
Accumulator<T> wide_sum(RowIn<T> x) {
    WideSum<T> sum;
    for_each_lane<T>(size(x), [&](const auto& lane) { sum.add(lane(x.data(), T(0))); });
    return sum.sum();
}

/// Drops as many of the smallest elements as `dropped` takes, halving the range of the ordered bits of what is left in
/// between: a comparison and a compressed store for each element that is still in question, and no branch by an element.
/// `range`: of the row.
template <Real T>
RowCut<T> cut_between(RowIn<T> row, RowRange<T> range, DroppedElements<T>& dropped) {
    using P = Packet<T>;
    constexpr Index few = 16;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    // Two halves of the room, of which whole packets are stored.
    const std::size_t half = row.size() + static_cast<std::size_t>(P::size);
    const auto room = std::make_unique_for_overwrite<T[]>(2 * half);
    RowIn<T> left = row;
    std::size_t to = 0; // where the next half begins; what is left is in the other
    auto [low, high] = range;
    while (!std::same_as<T, long double> && std::ssize(left) > few && low < high) {
        T middle = high; // in (low, high], so that neither half has all of the range
        if constexpr (!std::same_as<T, long double>) middle = middle_of(low, high);
        const P limit = middle, zero = T(0);
        const Index n = detail::size<T>(left), padding = (P::size - n % P::size) % P::size;
        WideSum<T> below;
        // The half that is likelier to stay in question is stored while it is counted.
        const auto store = [&](auto upper, auto first) {
            T* const target = room.get() + to;
            Index stored = 0;
            for_each_lane<T>(n, [&](const auto& lane) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
                const P x = lane(left.data(), infinity);
                stored += upper() ? store_not_below(x, limit, target + stored)
                                  : store_below(x, limit, target + stored);
                if constexpr (first())
                    if (dropped.looks_at_sum) below.add(select_below(x, limit, x, zero));
            });
            return upper() ? stored - padding : stored;
        };
        const std::true_type yes;
        const std::false_type no;
        const bool guess = dropped.looks_at_sum || 2 * (dropped.most - dropped.count) >= n;
        Index stored = guess ? store(yes, yes) : store(no, yes);
        const bool drop = dropped.add(guess ? n - stored : stored, below.sum());
        if (drop != guess) stored = drop ? store(yes, no) : store(no, no);
        left = RowIn<T>(room.get() + to, static_cast<std::size_t>(stored));
        to = half - to;
        (drop ? low : high) = drop ? middle : std::nextafter(middle, -infinity);
    }
    // The few that are left, or many that are alike, one by one.
    const RowOut<T> rest(room.get() + (half - to), left.size());
    if (left.data() == row.data()) std::copy(row.begin(), row.end(), rest.begin());
    if (low < high) std::sort(rest.begin(), rest.end());
    std::size_t next = 0;
    while (next < rest.size() && dropped.add(1, Accumulator<T>(rest[next]))) ++next;
    if (next == rest.size()) return {std::nextafter(high, infinity)}; // what is above the range stays
    const T least = rest[next];
    return {least, std::count(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(next), least)};
}

/// `cut_between` of a row of which some are 0: they are far from the others in the bits, and go first.
template <Real T>
EIGEN_DONT_INLINE RowCut<T> cut_above_zero(RowIn<T> row, T high, DroppedElements<T>& dropped) {
    using P = Packet<T>;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const auto room = std::make_unique_for_overwrite<T[]>(row.size() + static_cast<std::size_t>(P::size));
    const P smallest = std::numeric_limits<T>::denorm_min();
    P least = infinity;
    Index above = 0;
    for_each_lane<T>(size<T>(row), [&](const auto& lane) {
        const P x = lane(row.data(), T(0));
        least = select_below(x, smallest, least, min(least, x));
        above += store_not_below(x, smallest, room.get() + above);
    });
    if (!dropped.add(size<T>(row) - above, 0)) return {T(0)};
    return cut_between<T>(RowIn<T>(room.get(), static_cast<std::size_t>(above)), {reduce_min(least), high},
                          dropped);
}

/// Drops as many of the smallest elements as `dropped` takes. No element may be negative or NaN.
/// Cost. O(n) where halves of the range hold halves of the elements; at most O(n) times the bits of T. Allocates three
/// rows.
template <Real T>
RowCut<T> cut_row(RowIn<T> row, DroppedElements<T>& dropped) {
    const RowRange<T> range = row_range<T>(row);
    if (range.min == T(0) && range.max > T(0)) return cut_above_zero<T>(row, range.max, dropped);
    return cut_between<T>(row, range, dropped);
}

/// Sets what is cut off to 0; of elements that equal the smallest one that stays, the last ones go. Returns `wide_sum` of
/// the row then.
template <Real T>
Accumulator<T> apply_cut(const RowCut<T>& cut, RowOut<T> row) {
    using P = Packet<T>;
    const P least = cut.least, zero = T(0);
    WideSum<T> sum;
    for_each_lane<T>(size(RowIn<T>(row)), [&](const auto& lane) {
        const P x = lane(row.data(), T(0)), kept = select_below(x, least, zero, x);
        lane.store(row.data(), kept);
        sum.add(kept);
    });
    if (cut.surplus == 0) return sum.sum();
    Index surplus = cut.surplus;
    for (std::size_t i = row.size(); surplus > 0 && i-- > 0;)
        if (row[i] == cut.least) row[i] = T(0), --surplus;
    return wide_sum<T>(row);
}

/// x_i / by in place, for a `by` whose inverse is finite. Where products are added without rounding in between, a quotient
/// is the product with 1/by, corrected by its remainder: what division gives, but for rare last bits, in less time.
template <Real T>
void divide(RowOut<T> x, T by) {
    using P = Packet<T>;
    const P minus = -by, inverse = T(1) / by;
    for_each_lane<T>(size(RowIn<T>(x)), [&](const auto& lane) {
        const P dividend = lane(x.data(), T(0));
        if constexpr (std::floating_point<T> && !std::same_as<T, long double> && madd_is_fused) {
            const P quotient = dividend * inverse;
            lane.store(x.data(), madd(madd(quotient, minus, dividend), inverse, quotient));
        } else {
            lane.store(x.data(), dividend / P(by));
        }
    });
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
