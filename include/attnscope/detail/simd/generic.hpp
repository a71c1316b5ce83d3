// What instruction sets do differently, in the general way: by Eigen's packets or element by element.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <array>
#include <cstdint>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// The widest packet of T that Eigen has, and one scalar where it has none (long double, EIGEN_DONT_VECTORIZE).
template <Real T>
struct GenericInstructions {
    using Raw = typename Eigen::internal::packet_traits<T>::type;
    static constexpr Index size = Eigen::internal::packet_traits<T>::size;
    static constexpr bool scalar = size == 1;

    /// Whether a choice between the result of an operation and 0 is part of the operation.
    static constexpr bool masks_operations = false;
    /// lookup(table, index): the elements of the table at the places that the low bits of `index` say; 0 without it.
    static constexpr int lookup_entries = 0;
    /// x < limit ? below : otherwise
    static Raw select_below(Raw x, Raw limit, Raw below, Raw otherwise) {
        if constexpr (scalar)
            return x < limit ? below : otherwise;
        else
            return Eigen::internal::pselect(Eigen::internal::pcmp_lt(x, limit), below, otherwise);
    }
    /// Element i is that of x where bit i is set, else of y.
    static Raw choose(std::uint32_t bits, Raw x, Raw y) {
        if constexpr (scalar) {
            return (bits & 1) != 0 ? x : y;
        } else {
            const auto chosen = elements(x);
            auto result = elements(y);
            for (std::size_t i = 0; i < result.size(); ++i)
                result[i] = (bits >> i & 1) != 0 ? chosen[i] : result[i];
            return Eigen::internal::ploadu<Raw>(result.data());
        }
    }
    /// Whether a < b anywhere.
    static bool any_below(Raw a, Raw b) {
        if constexpr (scalar)
            return a < b;
        else
            return Eigen::internal::predux_any(Eigen::internal::pcmp_lt(a, b));
    }
    /// Bit i: whether element i of x is at least `limit`.
    static std::uint32_t mask_not_below(Raw x, Raw limit) {
        if constexpr (scalar) {
            return x >= limit;
        } else {
            const auto a = elements(x), b = elements(limit);
            std::uint32_t mask = 0;
            for (std::size_t i = 0; i < a.size(); ++i) mask |= std::uint32_t(a[i] >= b[i]) << i;
            return mask;
        }
    }
    /// Stores the elements of x that are at least `limit`, one after the other; how many there are.
    static Index store_not_below(Raw x, Raw limit, T* target) {
        return store_if(x, limit, target, [](T a, T b) { return a >= b; });
    }
    /// The same of those that are below.
    static Index store_below(Raw x, Raw limit, T* target) {
        return store_if(x, limit, target, [](T a, T b) { return a < b; });
    }
    /// The sum of the elements of each.
    static std::array<T, 4> reduce_add(Raw a, Raw b, Raw c, Raw d) {
        using Eigen::internal::predux;
        return {predux(a), predux(b), predux(c), predux(d)};
    }
    /// The largest element of each; any order gives the same.
    static std::array<T, 4> reduce_max(Raw a, Raw b, Raw c, Raw d) {
        using Eigen::internal::predux_max;
        return {predux_max(a), predux_max(b), predux_max(c), predux_max(d)};
    }
    /// sqrt x, correctly rounded in double and long double. Eigen's of floats is right to 2 units, but 0 of denormals and
    /// NaN of +inf.
    static Raw sqrt(Raw x) {
        if constexpr (scalar)
            return std::sqrt(x);
        else
            return Eigen::internal::psqrt(x);
    }
    /// The first `count` < size elements; the rest is `fill`. Nothing else is read.
    static Raw load_partial(const T* source, Index count, T fill) {
        if constexpr (scalar) {
            return fill;
        } else {
            Elements buffer;
            buffer.fill(fill);
            std::copy_n(source, count, buffer.begin());
            return Eigen::internal::ploadu<Raw>(buffer.data());
        }
    }
    /// Stores the first `count` < size elements.
    static void store_partial(T* target, Index count, Raw x) {
        if constexpr (!scalar) {
            const auto buffer = elements(x);
            std::copy_n(buffer.begin(), count, target);
        }
    }
    /// Two packets of doubles as one of floats.
    static auto narrow(Raw a, Raw b) {
        std::array<float, 2 * static_cast<std::size_t>(size)> half;
        std::size_t at = 0;
        for (const Elements& wide : {elements(a), elements(b)})
            for (const T x : wide) half[at++] = static_cast<float>(x);
        return Eigen::internal::ploadu<typename Eigen::internal::packet_traits<float>::type>(half.data());
    }

private:
    using Elements = std::array<T, static_cast<std::size_t>(size)>;
    template <class Holds>
    static Index store_if(Raw x, Raw limit, T* target, const Holds& holds) {
        if constexpr (scalar) {
            *target = x;
            return holds(x, limit);
        } else {
            // All of them, the next where one stood for which it does not hold: a branch would be mispredicted.
            const auto a = elements(x), b = elements(limit);
            Index stored = 0;
            for (std::size_t i = 0; i < a.size(); ++i) {
                target[stored] = a[i];
                stored += holds(a[i], b[i]);
            }
            return stored;
        }
    }
    static Elements elements(Raw x) {
        Elements result;
        Eigen::internal::pstoreu<T, Raw>(result.data(), x);
        return result;
    }
};

/// What the target does in fewer instructions than that. One file for each instruction set has its own.
template <Real T, Index size = GenericInstructions<T>::size>
struct Instructions : GenericInstructions<T> {};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
