// Random numbers that are the same on every platform and with every standard library.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numbers>
#include <span>

namespace attnscope {
inline namespace v0_2 {

/// SplitMix64: 64 random bits a step, any seed, period 2^64.
/// Source. Steele, Lea, Flood, OOPSLA 2014.
/// Example:
///     SplitMix64 generator(7);
///     std::vector<float> row(1024);
///     generator.fill_normal(std::span<float>(row));
///     const Index key = generator.below(1024);
class SplitMix64 {
public:
    explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

    std::uint64_t operator()() {
        std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

    /// Uniform in the open interval (0,1): a multiple of 2^-52 plus 2^-53, which a double holds exactly.
    double uniform() { return (static_cast<double>((*this)() >> 12) + 0.5) * 0x1p-52; }

    /// Uniform integer in [0, n), n >= 1; bias below n 2^-52.
    Index below(Index n) {
        return static_cast<Index>(std::min(uniform() * static_cast<double>(n), static_cast<double>(n - 1)));
    }

    /// Standard normal by Box and Muller's cosine branch.
    double normal() {
        const double radius = std::sqrt(-2 * std::log(uniform()));
        return radius * std::cos(2 * std::numbers::pi * uniform());
    }

    /// Nearly normal, from one step: four uniform numbers of 16 bits, added up, with mean 0 and variance 1. Never
    /// beyond 3.47; for directions and disturbances whose tails do not matter.
    double bell() {
        const std::uint64_t bits = (*this)();
        const auto sum =
            static_cast<double>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
        constexpr double mean = 2 * 65535.0;
        return (sum - mean) * (std::numbers::sqrt3 / 65536);
    }

    /// Standard normal draws, both branches of Box and Muller: about half the cost of `normal` a draw.
    template <std::floating_point T>
    void fill_normal(std::span<T> out) {
        for (std::size_t i = 0; i < out.size(); i += 2) {
            const double radius = std::sqrt(-2 * std::log(uniform()));
            const double angle = 2 * std::numbers::pi * uniform();
            out[i] = static_cast<T>(radius * std::cos(angle));
            if (i + 1 < out.size()) out[i + 1] = static_cast<T>(radius * std::sin(angle));
        }
    }

private:
    std::uint64_t state_;
};

/// A seed of its own for a part of what `seed` stands for, told by numbers: a head, a row, a purpose.
template <std::same_as<std::uint64_t>... Numbers>
std::uint64_t mixed_seed(std::uint64_t seed, Numbers... numbers) {
    ((seed = SplitMix64(seed + numbers)()), ...);
    return seed;
}

} // namespace v0_2
} // namespace attnscope
