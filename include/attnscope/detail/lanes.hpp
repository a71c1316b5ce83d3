// Loops over a row, one packet at a time; the last, partial packet goes through the same code as the others, so
// a key's result does not depend on where it stands in the row.
#pragma once

#include <attnscope/detail/simd/exp.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// f(0), ..., f(count - 1), each of a number that the compiler knows. A loop over packets of an array is unrolled too
/// late for g++ to keep them in registers.
template <Index count, class F>
EIGEN_ALWAYS_INLINE void unrolled(F&& f) {
    [&]<Index... k>(std::integer_sequence<Index, k...>) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
        (f(std::integral_constant<Index, k>()), ...);
    }(std::make_integer_sequence<Index, count>());
}

/// Asks for `count` elements that will be needed soon.
template <Real T>
EIGEN_ALWAYS_INLINE void prefetch([[maybe_unused]] const T* row, [[maybe_unused]] Index count) {
#if defined(__GNUC__)
    for (Index i = 0; i < count; i += 64 / static_cast<Index>(sizeof(T))) __builtin_prefetch(row + i);
#endif
}

/// How far apart rows of `cols` elements stand in rooms of our own: at whole packets, and not all in the same set of the
/// cache.
template <Real T>
constexpr Index row_stride(Index cols) {
    constexpr Index line = std::max<Index>(16, Packet<T>::size);
    return (cols + line - 1) / line * line + line;
}

/// A whole packet at offset `i` of every row it is asked for.
template <Real T>
struct FullLane {
    using P = Packet<T>;
    Index i;
    P operator()(const T* row, T) const { return P::load(row + i); }
    P operator()(const T* row) const { return P::load(row + i); }
    void store(T* row, P x) const { x.store(row + i); }
};

/// The last `count` elements, padded.
template <Real T>
struct PartialLane {
    using P = Packet<T>;
    Index i;
    Index count;
    P operator()(const T* row, T fill = T(0)) const { return P::load_partial(row + i, count, fill); }
    void store(T* row, P x) const { x.store_partial(row + i, count); }
};

/// A group of whole packets.
template <Real T>
struct GroupLane {
    using P = PacketGroup<T>;
    Index i;
    P operator()(const T* row, T = T(0)) const { return P::load(row + i); }
    void store(T* row, const P& x) const { x.store(row + i); }
};

// Inlined, or the packets that the loop body refers to are loaded anew in every step.
template <Real T, class F>
EIGEN_ALWAYS_INLINE void for_each_lane(Index n, F&& f) {
    constexpr Index size = Packet<T>::size;
    Index i = 0;
    for (; i + size <= n; i += size) f(FullLane<T>{i});
    if (i < n) f(PartialLane<T>{i, n - i});
}

/// K packets.
template <Real T, int K>
struct Packets {
    Packet<T> v[std::size_t(K)];
};

/// The sum of the elements of each, four at a time.
template <Real T, int K>
EIGEN_ALWAYS_INLINE std::array<Accumulator<T>, static_cast<std::size_t>(K)>
reduce_add_each(const Packets<T, K>& x) {
    std::array<Accumulator<T>, static_cast<std::size_t>(K)> sums;
    std::size_t k = 0;
    if constexpr (K >= 4)
        for (const T sum : reduce_add(x.v[0], x.v[1], x.v[2], x.v[3])) sums[k++] = Accumulator<T>(sum);
    for (; k < sums.size(); ++k) sums[k] = Accumulator<T>(reduce_add(x.v[k]));
    return sums;
}

/// The elements of packets of T, added up in the accumulator scalar.
template <Real T>
struct WidePacket {
    using A = Accumulator<T>;
    static constexpr std::size_t size = static_cast<std::size_t>(Packet<T>::size);
    std::array<A, size> elements; ///< none before `start`: zeros cost more than a short row
    void start(Packet<T> x) {
        elements.fill(A(0));
        add(x);
    }
    void add(Packet<T> x) {
        std::array<T, size> narrow;
        x.store(narrow.data());
        for (std::size_t i = 0; i < size; ++i) elements[i] += A(narrow[i]);
    }
    A sum() const {
        using P = Packet<A>;
        auto total = P::load(elements.data());
        for (std::size_t i = static_cast<std::size_t>(P::size); i < size;
             i += static_cast<std::size_t>(P::size))
            total += P::load(elements.data() + i);
        return reduce_add(total);
    }
};

/// K sums over a row of terms that `term(lane)` gives as `Packets<T, K>`. Each packet element adds at most 64
/// terms before the block goes to the accumulator scalar, so the relative error of a sum of positive terms is
/// below 64 u in T whatever the length: about u in practice, but equal terms are all rounded the same way.
template <Real T, int K, class F>
EIGEN_ALWAYS_INLINE std::array<Accumulator<T>, static_cast<std::size_t>(K)> sum_lanes(Index n, F&& term) {
    using P = Packet<T>;
    constexpr Index size = P::size;
    constexpr int unroll = 4;
    constexpr Index block = 64 * size * unroll;
    std::array<Accumulator<T>, static_cast<std::size_t>(K)> sums{};
    const auto add = [&](const auto& lane, Packets<T, K>& sum) {
        const Packets<T, K> x = term(lane);
        for (int k = 0; k < K; ++k) sum.v[k] += x.v[k];
    };
    for (Index begin = 0; begin < n; begin += block) {
        const Index end = std::min(n, begin + block);
        Packets<T, K> sum[unroll];
        for (auto& s : sum)
            for (auto& packet : s.v) packet = T(0);
        Index i = begin;
        for (; i + unroll * size <= end; i += unroll * size)
            for (int j = 0; j < unroll; ++j) add(FullLane<T>{i + j * size}, sum[j]);
        for (; i + size <= end; i += size) add(FullLane<T>{i}, sum[0]);
        if (i < end) add(PartialLane<T>{i, end - i}, sum[0]);
        for (int k = 0; k < K; ++k) {
            for (int j = 1; j < unroll; ++j) sum[0].v[k] += sum[j].v[k];
            detail::at(sums, k) += Accumulator<T>(reduce_add(sum[0].v[k]));
        }
    }
    return sums;
}

/// The sum of one term, which `term(lane)` gives as a packet.
template <Real T, class F>
EIGEN_ALWAYS_INLINE Accumulator<T> sum_lanes(Index n, F&& term) {
    return sum_lanes<T, 1>(n, [&](const auto& lane) { return Packets<T, 1>{{term(lane)}}; })[0];
}

/// How many elements `sum_groups` adds in T: parts, each term by term (the packets of a group count as one), and the sums of
/// four parts where a group is a packet. So many sums have the same number of additions behind them with all instructions.
template <Real T, int K>
inline constexpr Index sum_part =
    (K == 1 ? 60 : 16) * (group_packets > 1 ? PacketGroup<T>::size : Packet<T>::size);
template <Real T, int K>
inline constexpr Index sum_block = (K > 1 && group_packets == 1 ? 4 : 1) * sum_part<T, K>;

/// What `add(lane, sum)` adds for the elements [begin, end). `others`, if it is not nullptr, does so instead for groups that do
/// not hold the element `place`.
template <Real T, int K, class F, class G>
EIGEN_ALWAYS_INLINE Packets<T, K> add_part(Index begin, Index end, Index place, F&& add, G&& others) {
    using P = Packet<T>;
    using Group = std::conditional_t<(group_packets > 1), GroupLane<T>, FullLane<T>>;
    constexpr Index group = Group::P::size;
    const Index groups = (end - begin) / group, rest = begin + groups * group;
    Packets<T, K> sum;
    for (auto& packet : sum.v) packet = T(0);
    if constexpr (std::same_as<std::decay_t<G>, std::nullptr_t>) {
        for (Index i = begin; i < rest; i += group) add(Group{i}, sum);
    } else {
        // The group of the place comes first, and is passed over by the others: a branch among them would be mispredicted.
        const Index own = place >= begin ? std::min((place - begin) / group, groups) : groups;
        if (own < groups) add(Group{begin + own * group}, sum);
        for (Index g = 0; g < groups - (own < groups); ++g)
            others(Group{begin + (g + (g >= own)) * group}, sum);
    }
    Index i = rest;
    for (; i + P::size <= end; i += P::size) add(FullLane<T>{i}, sum);
    if (i < end) add(PartialLane<T>{i, end - i}, sum);
    return sum;
}

/// The same of at most `sum_block<T, K>` elements.
template <Real T, int K, class F, class G>
EIGEN_ALWAYS_INLINE Packets<T, K> add_groups(Index begin, Index end, Index place, F&& add, G&& others) {
    constexpr Index part = sum_part<T, K>;
    if constexpr (sum_block<T, K> == part) {
        return add_part<T, K>(begin, end, place, add, others);
    } else {
        Packets<T, K> sum;
        for (auto& packet : sum.v) packet = T(0);
        for (; begin < end; begin += part) {
            const Packets<T, K> next = add_part<T, K>(begin, std::min(end, begin + part), place, add, others);
            for (int k = 0; k < K; ++k) sum.v[k] += next.v[k];
        }
        return sum;
    }
}

/// K sums over a row that `add(lane, sum)` adds to, `sum` a `Packets<T, K>`, for loops of long chains of
/// operations: lanes are groups of packets where the row has them, so that `add` must work with the operations
/// of its lane, `decltype(lane)::S`. Relative error as of `sum_lanes`, with at most 20 terms in T (64 of a
/// single sum). `place` and `others`: see `add_groups`.
template <Real T, int K, class F, class G = std::nullptr_t>
EIGEN_ALWAYS_INLINE std::array<Accumulator<T>, static_cast<std::size_t>(K)>
sum_groups(Index n, F&& add, Index place = 0, G&& others = nullptr) {
    constexpr Index block = sum_block<T, K>;
    std::array<Accumulator<T>, static_cast<std::size_t>(K)> sums{};
    std::array<WidePacket<T>, static_cast<std::size_t>(K)> wide;
    for (Index begin = 0; begin < n; begin += block) {
        const Packets<T, K> sum = add_groups<T, K>(begin, std::min(n, begin + block), place, add, others);
        if (n <= block) return reduce_add_each<T>(sum);
#pragma GCC unroll 8
        for (std::size_t k = 0; k < sums.size(); ++k)
            if (begin == 0)
                wide[k].start(sum.v[k]);
            else
                wide[k].add(sum.v[k]);
    }
    if (n > block)
        for (std::size_t k = 0; k < sums.size(); ++k) sums[k] = wide[k].sum();
    return sums;
}

/// sum_i a_i b_i
template <Real T>
Accumulator<T> dot(RowIn<T> a, RowIn<T> b) {
    return sum_lanes<T>(size(a), [&](const auto& lane) { return lane(a.data()) * lane(b.data()); });
}

/// Largest element; -inf of an empty row. NaN may or may not show: whoever cares looks at the sum that follows.
template <Real T>
T row_max(RowIn<T> z) {
    using P = Packet<T>;
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    P m[4] = {lowest, lowest, lowest, lowest};
    const Index n = size(z);
    Index i = 0;
    for (; i + 4 * P::size <= n; i += 4 * P::size)
        for (int j = 0; j < 4; ++j) m[j] = max(m[j], P::load(z.data() + i + j * P::size));
    for (; i + P::size <= n; i += P::size) m[0] = max(m[0], P::load(z.data() + i));
    if (i < n) m[0] = max(m[0], P::load_partial(z.data() + i, n - i, lowest));
    return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

/// The first place whose element is at least `limit`; the size if there is none.
template <Real T>
std::size_t first_not_below(RowIn<T> z, T limit) {
    using P = Packet<T>;
    const P floor = limit;
    const Index n = size(z);
    Index i = 0;
    for (; i + 4 * P::size <= n; i += 4 * P::size) {
        std::uint64_t mask = 0;
        for (int j = 0; j < 4; ++j)
            mask |= std::uint64_t(mask_not_below(P::load(z.data() + i + j * P::size), floor)) << (j * P::size);
        if (mask != 0) return static_cast<std::size_t>(i + std::countr_zero(mask));
    }
    for (; i + P::size <= n; i += P::size)
        if (const std::uint32_t mask = mask_not_below(P::load(z.data() + i), floor); mask != 0)
            return static_cast<std::size_t>(i + std::countr_zero(mask));
    while (i < n && !(detail::at(z, i) >= limit)) ++i;
    return static_cast<std::size_t>(i);
}

/// Smallest and largest element; +inf and -inf of an empty row. NaN as in `row_max`.
template <Real T>
struct RowRange {
    T min, max;
};
/// Smallest and largest elements of four classes of packets, one in four each; a rest of fewer is of the first class.
/// `visible`: the smallest above -inf, and how many elements are (NaN too).
template <Real T, bool visible = false>
struct ClassRange {
    Packet<T> low[4], high[4], count[4];

    EIGEN_ALWAYS_INLINE explicit ClassRange(RowIn<T> z) {
        using P = Packet<T>;
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const P lowest = std::numeric_limits<T>::lowest(), one = T(1);
        unrolled<4>([&](Index j) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            low[j] = infinity, high[j] = -infinity, count[j] = T(0);
        });
        const Index n = size(z);
        Index i = 0;
        const auto meet = [&](Index j, P x) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            if constexpr (visible) {
                low[j] = select_below(x, lowest, low[j], min(low[j], x));
                count[j] = select_below(x, lowest, count[j], count[j] + one);
            } else {
                low[j] = min(low[j], x);
            }
            high[j] = max(high[j], x);
        };
        for (; i + 4 * P::size <= n; i += 4 * P::size)
            unrolled<4>([&](Index j)
                            ATTNSCOPE_DETAIL_INLINE_LAMBDA { meet(j, P::load(z.data() + i + j * P::size)); });
        for (; i + P::size <= n; i += P::size) meet(0, P::load(z.data() + i));
        if (i < n) meet(0, P::load_partial(z.data() + i, n - i, visible ? -infinity : detail::at(z, i)));
    }
    EIGEN_ALWAYS_INLINE RowRange<T> range() const {
        return {reduce_min(min(min(low[0], low[1]), min(low[2], low[3]))),
                reduce_max(max(max(high[0], high[1]), max(high[2], high[3])))};
    }
    EIGEN_ALWAYS_INLINE Index counted(RowIn<T> z) const
    requires visible
    {
        constexpr Index exact = Index(1)
                                << std::min(std::numeric_limits<T>::digits, 62); // numbers of T count so far
        if (size(z) > exact)
            return size(z) - std::count(z.begin(), z.end(), -std::numeric_limits<T>::infinity());
        return static_cast<Index>(reduce_add((count[0] + count[1]) + (count[2] + count[3])));
    }
};
template <Real T>
RowRange<T> row_range(RowIn<T> z) {
    return ClassRange<T>(z).range();
}
/// With the first place of the largest, the size if there is none, and how many elements are above -inf, NaN too. `min`: the
/// smallest of those.
template <Real T>
struct RowPeak : RowRange<T> {
    std::size_t place;
    Index visible;
};
/// The first place of `largest`.
template <Real T, bool visible>
EIGEN_ALWAYS_INLINE std::size_t place_of_largest(RowIn<T> z, T largest, const ClassRange<T, visible>& classes) {
    using P = Packet<T>;
    const P top = largest;
    Index holding = 0, own = 0;
    unrolled<4>([&](Index j) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
        if (mask_not_below(classes.high[j], top) != 0) ++holding, own = j;
    });
    if (holding != 1) return first_not_below<T>(z, largest);
    // Sixteen of its packets at a time, from the last to the first: a branch for each would be mispredicted.
    constexpr Index step = 4 * P::size, none = -1;
    const Index steps = size(z) / step;
    for (Index begin = 0; begin < steps; begin += 16) {
        Index place = none;
        for (Index k = std::min(begin + 16, steps); k-- > begin;) {
            const Index i = k * step + own * P::size;
            const std::uint32_t mask = mask_not_below(P::load(z.data() + i), top);
            place = mask != 0 ? i + std::countr_zero(mask) : place;
        }
        if (place != none) return static_cast<std::size_t>(place);
    }
    const auto rest = static_cast<std::size_t>(steps * step);
    return rest + first_not_below<T>(z.subspan(rest), largest);
}
/// `masked`: a guess whether some elements are -inf, which saves a pass where it is right.
template <Real T>
RowPeak<T> row_peak(RowIn<T> z, bool masked = false) {
    if (!masked) {
        const ClassRange<T> classes(z);
        const RowRange<T> range = classes.range();
        if (range.min > -std::numeric_limits<T>::infinity())
            return {range, place_of_largest<T>(z, range.max, classes), size(z)};
    }
    const ClassRange<T, true> classes(z);
    const RowRange<T> range = classes.range();
    return {range, place_of_largest<T>(z, range.max, classes), classes.counted(z)};
}

/// ranks[i] = how many scores are larger than scores[i], counted for a packet of them at once, where sorting
/// would be one mispredicted branch after the other. False if some are equal or NaN: then two ranks are alike.
/// `smallest`: how many share the smallest score, which may be equal. For n <= 4096, above which float cannot tell.
/// O(n^2 / packet).
template <Real T>
bool ranks_of(RowIn<T> scores, RowOut<T> ranks, std::size_t smallest = 1) {
    using P = Packet<T>;
    const P zero = T(0), one = T(1);
    T sum = 0;
    for_each_lane<T>(size(scores), [&](const auto& lane) {
        const auto x = lane(scores.data(), std::numeric_limits<T>::infinity());
        P part[4] = {zero, zero, zero, zero}; // side by side: each would wait for the one before
        const std::size_t fours = scores.size() / 4 * 4;
        for (std::size_t i = 0; i < fours; i += 4)
            for (std::size_t j = 0; j < 4; ++j) part[j] += select_below(x, scores[i + j], one, zero);
        for (const T other : scores.subspan(fours)) part[0] += select_below(x, other, one, zero);
        const P rank = (part[0] + part[1]) + (part[2] + part[3]);
        lane.store(ranks.data(), rank);
        sum += reduce_add(rank); // what fills the last packet has rank 0
    });
    const std::size_t others = scores.size() - std::min(smallest, scores.size());
    return sum == static_cast<T>(others * (others - 1) / 2 + (scores.size() - others) * others);
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
