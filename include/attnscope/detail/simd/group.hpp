// Some packets that are calculated with side by side, operation by operation.
#pragma once

#include <attnscope/detail/simd/packet.hpp>

/// Behind the parameters of a lambda that must be inlined: what one that is not refers to has an address, and packets
/// that have one are stored in every step.
#if defined(__GNUC__)
#define ATTNSCOPE_DETAIL_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ATTNSCOPE_DETAIL_INLINE_LAMBDA
#endif

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// `group_packets` packets. Operators and functions take them beside single packets and numbers, which stand for
/// a group of them.
template <Real T>
struct PacketGroup {
    using Scalar = T;
    static constexpr int packets = group_packets;
    static constexpr Index size = packets * Packet<T>::size;
    using Elements = std::array<T, static_cast<std::size_t>(size)>;

    static EIGEN_ALWAYS_INLINE PacketGroup load(const T* source) {
        PacketGroup result;
#pragma GCC unroll 4
        for (int j = 0; j < packets; ++j) result.v[j] = Packet<T>::load(source + j * Packet<T>::size);
        return result;
    }
    EIGEN_ALWAYS_INLINE void store(T* target) const {
#pragma GCC unroll 4
        for (int j = 0; j < packets; ++j) v[j].store(target + j * Packet<T>::size);
    }

    Packet<T> v[packets];
};

template <class X>
inline constexpr bool is_group = false;
template <Real T>
inline constexpr bool is_group<PacketGroup<T>> = true;

/// Operands of which one at least is a group.
template <class... X>
concept WithGroup = (is_group<X> || ...);

template <class X, class... Others>
struct GroupAmong : GroupAmong<Others...> {};
template <Real T, class... Others>
struct GroupAmong<PacketGroup<T>, Others...> {
    using type = PacketGroup<T>;
};

/// What stands beside packet j of a group: of a group its own, else the same for all.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> packet_of(const PacketGroup<T>& x, int j) {
    return x.v[j];
}
template <class X>
EIGEN_ALWAYS_INLINE X packet_of(const X& x, int) {
    return x;
}

/// f of each packet.
template <class F, class... X>
requires WithGroup<X...>
EIGEN_ALWAYS_INLINE auto on_each(const F& f, const X&... x) {
    typename GroupAmong<X...>::type result;
#pragma GCC unroll 4
    for (int j = 0; j < result.packets; ++j) result.v[j] = f(packet_of(x, j)...);
    return result;
}

template <class X, class Y>
requires WithGroup<X, Y>
EIGEN_ALWAYS_INLINE auto operator+(const X& a, const Y& b) {
    return on_each([](auto x, auto y) { return x + y; }, a, b);
}
template <class X, class Y>
requires WithGroup<X, Y>
EIGEN_ALWAYS_INLINE auto operator-(const X& a, const Y& b) {
    return on_each([](auto x, auto y) { return x - y; }, a, b);
}
template <class X, class Y>
requires WithGroup<X, Y>
EIGEN_ALWAYS_INLINE auto operator*(const X& a, const Y& b) {
    return on_each([](auto x, auto y) { return x * y; }, a, b);
}
template <class X, class Y, class Z>
requires WithGroup<X, Y, Z>
EIGEN_ALWAYS_INLINE auto madd(const X& a, const Y& b, const Z& c) {
    return on_each([](auto x, auto y, auto z) { return madd(x, y, z); }, a, b, c);
}
template <class X, class Y>
requires WithGroup<X, Y>
EIGEN_ALWAYS_INLINE auto max(const X& a, const Y& b) {
    return on_each([](auto x, auto y) { return max(x, y); }, a, b);
}
template <class X, class Y>
requires WithGroup<X, Y>
EIGEN_ALWAYS_INLINE auto min(const X& a, const Y& b) {
    return on_each([](auto x, auto y) { return min(x, y); }, a, b);
}
template <class X, class Limit, class Y, class Z>
requires WithGroup<X, Limit, Y, Z>
EIGEN_ALWAYS_INLINE auto select_below(const X& x, const Limit& limit, const Y& below, const Z& otherwise) {
    return on_each([](auto a, auto b, auto c, auto d) { return select_below(a, b, c, d); }, x, limit, below,
                   otherwise);
}

/// f of the packet, or of each of a group.
template <class F, Real T>
EIGEN_ALWAYS_INLINE Packet<T> map(const F& f, Packet<T> x) {
    return f(x);
}
template <class F, Real T>
EIGEN_ALWAYS_INLINE PacketGroup<T> map(const F& f, const PacketGroup<T>& x) {
    return on_each(f, x);
}

/// sum + x, sum + a b and the larger of `most` and x, over all packets of a group. By reference: by value, g++ 12
/// orders the loop of row statistics in a way that is 3 % slower.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> add_to(const Packet<T>& sum, const PacketGroup<T>& x) {
    Packet<T> total = x.v[0];
#pragma GCC unroll 4
    for (int j = 1; j < x.packets; ++j) total += x.v[j];
    return sum + total;
}
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> madd_to(const Packet<T>& sum, const PacketGroup<T>& a, const PacketGroup<T>& b) {
    Packet<T> total = a.v[0] * b.v[0];
#pragma GCC unroll 4
    for (int j = 1; j < a.packets; ++j) total = madd(a.v[j], b.v[j], total);
    return sum + total;
}
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> max_to(const Packet<T>& most, const PacketGroup<T>& x) {
    Packet<T> largest = x.v[0];
#pragma GCC unroll 4
    for (int j = 1; j < x.packets; ++j) largest = max(largest, x.v[j]);
    return max(most, largest);
}
/// The same of one packet, for code that takes either.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> add_to(const Packet<T>& sum, const Packet<T>& x) {
    return sum + x;
}
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> madd_to(const Packet<T>& sum, const Packet<T>& a, const Packet<T>& b) {
    return madd(a, b, sum);
}
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> max_to(const Packet<T>& most, const Packet<T>& x) {
    return max(most, x);
}

/// x with `value` at element `place`, in registers: what goes through memory waits for its own stores.
template <Real T>
EIGEN_ALWAYS_INLINE Packet<T> with_element(Packet<T> x, Index place, T value) {
    return choose(std::uint32_t(1) << place, value, x);
}
template <Real T>
EIGEN_ALWAYS_INLINE PacketGroup<T> with_element(PacketGroup<T> x, Index place, T value) {
    static_assert(PacketGroup<T>::size <= 64);
    const std::uint64_t bit = std::uint64_t(1) << place;
    constexpr std::uint32_t all = static_cast<std::uint32_t>((std::uint64_t(1) << Packet<T>::size) - 1);
#pragma GCC unroll 4
    for (int j = 0; j < x.packets; ++j)
        x.v[j] = choose(static_cast<std::uint32_t>(bit >> (j * Packet<T>::size)) & all, value, x.v[j]);
    return x;
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
