// A packet of numbers that is calculated with as with one number.
#pragma once

#include <attnscope/detail/simd/target.hpp>

#include <cmath>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

// Always inline, here and in what is built on it: large translation units exhaust the compiler's patience, and a
// call in every step of a loop spills all packets.

/// As many numbers T as the target works on at once. Operators act on each; a number among packets stands for a
/// packet of it.
template <Real T>
class Packet {
    using Target = Instructions<T>;

public:
    using Scalar = T;
    using Raw = typename Target::Raw;
    static constexpr Index size = Target::size;
    static constexpr bool scalar = Target::scalar;
    using Elements = std::array<T, static_cast<std::size_t>(size)>;

    Packet() = default;
    /// x in every element.
    EIGEN_ALWAYS_INLINE Packet(T x) : raw(Eigen::internal::pset1<Raw>(x)) {}
    static EIGEN_ALWAYS_INLINE Packet of(Raw raw) {
        Packet packet;
        packet.raw = raw;
        return packet;
    }

    static EIGEN_ALWAYS_INLINE Packet load(const T* source) { return of(Eigen::internal::ploadu<Raw>(source)); }
    /// The first `count` < size elements; the rest is `fill`. Nothing else is read.
    static EIGEN_ALWAYS_INLINE Packet load_partial(const T* source, Index count, T fill) {
        return of(Target::load_partial(source, count, fill));
    }
    EIGEN_ALWAYS_INLINE void store(T* target) const { Eigen::internal::pstoreu<T, Raw>(target, raw); }
    EIGEN_ALWAYS_INLINE void store_partial(T* target, Index count) const {
        Target::store_partial(target, count, raw);
    }

    friend EIGEN_ALWAYS_INLINE Packet operator+(Packet a, Packet b) {
        return of(Eigen::internal::padd(a.raw, b.raw));
    }
    friend EIGEN_ALWAYS_INLINE Packet operator-(Packet a, Packet b) {
        return of(Eigen::internal::psub(a.raw, b.raw));
    }
    friend EIGEN_ALWAYS_INLINE Packet operator*(Packet a, Packet b) {
        return of(Eigen::internal::pmul(a.raw, b.raw));
    }
    friend EIGEN_ALWAYS_INLINE Packet operator/(Packet a, Packet b) {
        return of(Eigen::internal::pdiv(a.raw, b.raw));
    }
    EIGEN_ALWAYS_INLINE Packet& operator+=(Packet x) { return *this = *this + x; }

    /// a b + c; one rounding where the target has the instruction, else two.
    friend EIGEN_ALWAYS_INLINE Packet madd(Packet a, Packet b, Packet c) {
        return of(Eigen::internal::pmadd(a.raw, b.raw, c.raw));
    }
    /// sqrt x, correctly rounded but for float: there to 2 units, 0 of denormals, NaN of +inf.
    friend EIGEN_ALWAYS_INLINE Packet sqrt(Packet x) { return of(Target::sqrt(x.raw)); }
    friend EIGEN_ALWAYS_INLINE Packet abs(Packet x) { return of(Eigen::internal::pabs(x.raw)); }
    /// log x for normal x > 0
    friend EIGEN_ALWAYS_INLINE Packet log(Packet x) {
        if constexpr (scalar)
            return std::log(x.raw);
        else
            return of(Eigen::internal::plog(x.raw));
    }
    /// NaN in a gives NaN, NaN in b gives either argument (as std::max has it).
    friend EIGEN_ALWAYS_INLINE Packet max(Packet a, Packet b) {
        return of(Eigen::internal::pmax(a.raw, b.raw));
    }
    friend EIGEN_ALWAYS_INLINE Packet min(Packet a, Packet b) {
        return of(Eigen::internal::pmin(a.raw, b.raw));
    }

    /// x < limit ? below : otherwise; NaN in x gives `otherwise`.
    friend EIGEN_ALWAYS_INLINE Packet select_below(Packet x, Packet limit, Packet below, Packet otherwise) {
        return of(Target::select_below(x.raw, limit.raw, below.raw, otherwise.raw));
    }
    /// Element i is that of x where bit i is set, else of y.
    friend EIGEN_ALWAYS_INLINE Packet choose(std::uint32_t bits, Packet x, Packet y) {
        return of(Target::choose(bits, x.raw, y.raw));
    }
    /// Whether a < b anywhere.
    friend EIGEN_ALWAYS_INLINE bool any_below(Packet a, Packet b) { return Target::any_below(a.raw, b.raw); }
    /// Bit i: whether element i of x is at least `limit`; NaN is not.
    friend EIGEN_ALWAYS_INLINE std::uint32_t mask_not_below(Packet x, Packet limit) {
        return Target::mask_not_below(x.raw, limit.raw);
    }
    /// The bits of two such comparisons, those of the second behind those of the first.
    friend EIGEN_ALWAYS_INLINE std::uint32_t masks_not_below(Packet x, Packet limit, Packet y,
                                                             Packet limit_of_y) {
        if constexpr (requires { Target::masks_not_below(x.raw, limit.raw, y.raw, limit_of_y.raw); })
            return Target::masks_not_below(x.raw, limit.raw, y.raw, limit_of_y.raw);
        else
            return mask_not_below(x, limit) | mask_not_below(y, limit_of_y) << size;
    }
    /// Stores the elements of x that are at least `limit`, one after the other; how many there are. Whole packets of
    /// `target` may be overwritten.
    friend EIGEN_ALWAYS_INLINE Index store_not_below(Packet x, Packet limit, T* target) {
        return Target::store_not_below(x.raw, limit.raw, target);
    }
    /// The same of the elements that are below.
    friend EIGEN_ALWAYS_INLINE Index store_below(Packet x, Packet limit, T* target) {
        return Target::store_below(x.raw, limit.raw, target);
    }

    /// A number of the width of T that counts elements.
    using Place = std::conditional_t<sizeof(T) == sizeof(std::int32_t), std::int32_t, std::int64_t>;
    /// Stores `first` + i for each element i that is at least `limit`, one after the other, and zeros or `first` behind, a
    /// whole packet; how many there are. Where the target has instructions for it.
    static EIGEN_ALWAYS_INLINE Index store_places_not_below(Packet x, Packet limit, Place first, Place* target)
    requires requires(Raw raw) { Target::store_places_not_below(raw, raw, first, target); }
    {
        return Target::store_places_not_below(x.raw, limit.raw, first, target);
    }

    friend EIGEN_ALWAYS_INLINE T reduce_add(Packet x) { return Eigen::internal::predux(x.raw); }
    /// The sum of each of four, with the bits that it has alone, together, which waits less.
    friend EIGEN_ALWAYS_INLINE std::array<T, 4> reduce_add(Packet a, Packet b, Packet c, Packet d) {
        return Target::reduce_add(a.raw, b.raw, c.raw, d.raw);
    }
    friend EIGEN_ALWAYS_INLINE std::array<T, 4> reduce_max(Packet a, Packet b, Packet c, Packet d) {
        return Target::reduce_max(a.raw, b.raw, c.raw, d.raw);
    }
    friend EIGEN_ALWAYS_INLINE T reduce_max(Packet x) { return Eigen::internal::predux_max(x.raw); }
    friend EIGEN_ALWAYS_INLINE T reduce_min(Packet x) { return Eigen::internal::predux_min(x.raw); }

    /// x, loaded once: compilers may load anew what is used twice, which costs more than a copy.
    friend EIGEN_ALWAYS_INLINE Packet loaded(Packet x) {
        if constexpr (!scalar) {
            EIGEN_OPTIMIZATION_BARRIER(x.raw);
        }
        return x;
    }

    Raw raw; ///< what Eigen and intrinsics take
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes" // of Eigen's packets as arguments of its own templates
#endif
/// to[c size + i] = from[i stride + c] for i, c < size of the packet: a square of numbers, transposed in registers.
template <Real T>
EIGEN_ALWAYS_INLINE void transpose_square(const T* from, Index stride, T* to) {
    using P = Packet<T>;
    if constexpr (P::scalar) {
        *to = *from;
    } else {
        constexpr int size = static_cast<int>(P::size);
        Eigen::internal::PacketBlock<typename P::Raw, size> rows;
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i) rows.packet[i] = P::load(from + i * stride).raw;
        Eigen::internal::ptranspose(rows);
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i) P::of(rows.packet[i]).store(to + i * size);
    }
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Whether a packet of floats holds as much as two of doubles.
inline constexpr bool can_narrow = Packet<float>::size == 2 * Packet<double>::size;

/// Two packets of doubles as one of floats; only where `can_narrow`.
EIGEN_ALWAYS_INLINE Packet<float> narrow(Packet<double> a, Packet<double> b) {
    return Packet<float>::of(Instructions<double>::narrow(a.raw, b.raw));
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
