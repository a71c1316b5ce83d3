// Products with diag p - p p^T and its kin that keep their digits where one weight is near 1.
#pragma once

#include <attnscope/detail/lanes.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// No key.
inline constexpr std::size_t no_place = static_cast<std::size_t>(-1);

/// Place of the weight above 1/2 in [begin, end), else `no_place`.
template <Real T>
std::size_t place_above_half(RowIn<T> p, Index begin, Index end) {
    const RowIn<T> part = p.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const std::size_t place = first_not_below<T>(part, std::nextafter(T(0.5), T(1)));
    return place < part.size() ? static_cast<std::size_t>(begin) + place : no_place;
}
template <Real T>
std::size_t place_above_half(RowIn<T> p) {
    return place_above_half<T>(p, 0, size<T>(p));
}

/// How v lies around its mean <p, v> under weights p: v_i - <p, v> = (v_i - origin) - mean.
template <Real T>
struct CentredRow {
    T origin = 0;        ///< v of the largest weight where it is above 1/2, else 0
    T mean = 0;          ///< of v - origin, under weights that sum to 1 with `rest`
    bool masked = false; ///< leave out keys without weight: there v may be anything

    /// p (v - <p, v>), 0 without weight; NaN stays.
    Packet<T> times(Packet<T> p, Packet<T> v) const {
        const Packet<T> x = p * ((v - origin) - mean), zero = T(0);
        return masked ? select_below(zero, p, x, p * zero) : x;
    }
};

/// sum p (v - origin), with `masked` over the keys that have weight.
template <Real T>
Accumulator<T> weighted_distance(RowIn<T> p, RowIn<T> v, T origin, bool masked) {
    using P = Packet<T>;
    const P centre = origin, zero = T(0);
    if (!masked)
        return sum_lanes<T>(size<T>(p), [&](const auto& lane) {
            return lane(p.data(), T(0)) * (lane(v.data(), T(0)) - centre);
        });
    return sum_lanes<T>(size<T>(p), [&](const auto& lane) {
        const auto weight = lane(p.data(), T(0)), x = weight * (lane(v.data(), T(0)) - centre);
        return select_below(zero, weight, x, zero);
    });
}

// Where the length of memory is known and that of the row is not, g++ 14 warns of loads of whole packets that
// never run. Not inlining the function would end that too, at 3 ns a call.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Warray-bounds"

/// From a weight above 1/2 on, the mean is taken of the distances to its own v, sum p_j (v_j - v_k) over the
/// others: <p, v> itself would be v_k to rounding, and the distance of v_k to it lost. rest(k): mass that goes
/// to no key, where v is 0, from the place of the largest weight.
template <Real T, class Rest>
CentredRow<T> centred_row(RowIn<T> p, RowIn<T> v, Rest&& rest) {
    using P = Packet<T>;
    const Index n = size<T>(p);
    constexpr int unroll = 4;
    constexpr Index block = 60 * P::size * unroll;
    const P half = T(0.5);
    Accumulator<T> mean = 0;
    std::size_t place = no_place;
    for (Index begin = 0; begin < n && place == no_place; begin += block) {
        const Index end = std::min(n, begin + block);
        P sum[unroll], high[unroll];
        for (auto& x : sum) x = T(0);
        for (auto& x : high) x = T(0);
        const auto add = [&](const auto& lane, int j) {
            const auto weight = loaded(lane(p.data(), T(0)));
            high[j] = max(weight, high[j]);
            sum[j] = madd(weight, lane(v.data(), T(0)), sum[j]);
        };
        Index i = begin;
        for (; i + unroll * P::size <= end; i += unroll * P::size)
            for (int j = 0; j < unroll; ++j) add(FullLane<T>{i + j * P::size}, j);
        for (; i + P::size <= end; i += P::size) add(FullLane<T>{i}, 0);
        if (i < end) add(PartialLane<T>{i, end - i}, 0);
        const auto top = max(max(high[0], high[1]), max(high[2], high[3]));
        if (any_below(half, top)) place = place_above_half<T>(p, begin, end);
        mean += Accumulator<T>(reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3])));
    }
    CentredRow<T> row{T(0), static_cast<T>(mean)};
    if (place == no_place && std::isfinite(row.mean)) return row;
    if (place < p.size()) row.origin = v[place];
    Accumulator<T> distance = weighted_distance<T>(p, v, row.origin, false);
    row.masked = !std::isfinite(distance);
    if (row.masked) distance = weighted_distance<T>(p, v, row.origin, true);
    if (row.origin != T(0)) distance -= rest(place) * Accumulator<T>(row.origin);
    row.mean = static_cast<T>(distance);
    return row;
}

#pragma GCC diagnostic pop

template <Real T>
CentredRow<T> centred_row(RowIn<T> p, RowIn<T> v) {
    return centred_row<T>(p, v, [](std::size_t) { return Accumulator<T>(0); });
}

/// out = beta p (v - <p, v>), 0 at keys without weight, whatever v is there. Each entry is exact to a few units
/// of beta p_i (|v_i - v_k| + sum_j p_j |v_j - v_k|), k any key if no weight is above 1/2, else the one with
/// the largest weight.
template <Real T, class Rest>
void softmax_product(RowIn<T> p, RowIn<T> v, T beta, RowOut<T> out, Rest&& rest) {
    using P = Packet<T>;
    const CentredRow<T> row = centred_row<T>(p, v, rest);
    const P mean = row.mean, origin = row.origin, scale = beta;
    if (row.masked)
        for_each_lane<T>(size<T>(p), [&](const auto& lane) {
            lane.store(out.data(), row.times(lane(p.data()), lane(v.data())) * scale);
        });
    else if (row.origin != T(0))
        for_each_lane<T>(size<T>(p), [&](const auto& lane) {
            const auto x = (lane(v.data()) - origin) - mean;
            lane.store(out.data(), lane(p.data()) * x * scale);
        });
    else
        for_each_lane<T>(size<T>(p), [&](const auto& lane) {
            lane.store(out.data(), lane(p.data()) * (lane(v.data()) - mean) * scale);
        });
}
template <Real T>
void softmax_product(RowIn<T> p, RowIn<T> v, T beta, RowOut<T> out) {
    softmax_product<T>(p, v, beta, out, [](std::size_t) { return Accumulator<T>(0); });
}

/// x_i - <w, x> = (x_i - origin) - mean, one key at a time: the origin is the value at `place`, and keys without
/// weight are not looked at. Exact to a few units of |x_i - x_k| + sum_j w_j |x_j - x_k|, k = place, beyond
/// rounding of the values. weight(i), value(i): the weights sum to 1.
template <class A>
struct Centre {
    Centre() = default;
    template <class Weight, class Value>
    Centre(std::size_t n, std::size_t place, Weight&& weight, Value&& value) {
        if (place < n) origin = A(value(place));
        for (std::size_t i = 0; i < n; ++i)
            if (const A w = weight(i); w > A(0)) mean += w * (A(value(i)) - origin);
    }
    A operator()(A x) const { return (x - origin) - mean; }
    A origin = 0, mean = 0;
};

/// Sum of terms(lane, first) over all n places but one; `lane` counts from `first` on.
template <Real T, class Terms>
Accumulator<T> sum_of_others(Index n, std::size_t place, Terms&& terms) {
    const auto sum = [&](std::size_t first, Index count) {
        return sum_lanes<T>(count, [&](const auto& lane) { return terms(lane, first); });
    };
    return sum(0, static_cast<Index>(place)) + sum(place + 1, n - static_cast<Index>(place) - 1);
}
/// Of the numbers of a row.
template <Real T>
Accumulator<T> sum_of_others(RowIn<T> x, std::size_t place) {
    return sum_of_others<T>(size<T>(x), place,
                            [&](const auto& lane, std::size_t first) { return lane(x.data() + first, T(0)); });
}

/// x_i - p_i sum_j x_j of numbers x that are 0 at keys without weight. From a weight p_k above 1/2 on, its own
/// entry is x_k (1 - p_k) - p_k sum of the others, 1 - p_k = rest(k): exact to a few units of each term.
template <Real T, class Rest>
void subtract_share(RowIn<T> p, RowOut<T> x, Rest&& rest) {
    using A = Accumulator<T>;
    const std::size_t top = place_above_half<T>(p);
    const RowIn<T> terms = x;
    const A own = top < x.size() ? A(x[top]) : A(0);
    const A others = top < x.size()
                         ? sum_of_others<T>(terms, top)
                         : sum_lanes<T>(size<T>(terms), [&](const auto& lane) { return lane(x.data(), T(0)); });
    const A sum = own + others;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(A(x[i]) - A(p[i]) * sum);
    if (top < x.size()) x[top] = static_cast<T>(own * rest(top) - A(p[top]) * others);
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
