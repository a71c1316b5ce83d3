// Families of rows of logits on which every theorem and every law is tested.
#pragma once

#include <attnscope/problems/rows.hpp>
#include <support/scalars.hpp>

#include <algorithm>
#include <array>

namespace attnscope_test {

namespace problems = attnscope::problems;

/// A problem's row in T, all of it `offset` higher.
template <class T = double>
std::vector<T> row_of(const attnscope::Row<double>& row, double offset = 0) {
    std::vector<double> z(row.begin(), row.end());
    for (double& x : z) x += offset;
    return narrow<T>(z);
}

inline constexpr std::array<std::size_t, 12> lengths = {1, 2, 3, 7, 8, 9, 16, 17, 255, 256, 257, 1000};
inline constexpr std::array<std::size_t, 8> short_lengths = {1, 2, 3, 7, 8, 9, 16, 17};
inline constexpr std::array<double, 5> temperatures = {0.05, 0.5, 1, 2, 50};
/// At the ends of double: keys are ties or worlds apart, or all alike.
inline constexpr std::array<double, 8> extreme_temperatures = {
    std::numeric_limits<double>::denorm_min(), 1e-310, 1e-300, 1e-30, 1e30, 1e155, 1e300,
    std::numeric_limits<double>::max()};

struct Family {
    std::string_view name;
    void (*fill)(SplitMix64&, std::span<double>);
};

namespace families {

inline constexpr double masked_logit = -std::numeric_limits<double>::infinity();

inline void fill(std::span<double> row, const attnscope::Row<double>& problem, double offset = 0) {
    std::transform(problem.begin(), problem.end(), row.begin(), [&](double z) { return z + offset; });
}
inline void fill_normal(SplitMix64& random, std::span<double> row, double spread, double offset = 0) {
    fill(row, problems::normal_row(std::ssize(row), spread, random), offset);
}
inline std::size_t position(SplitMix64& random, std::span<double> row) {
    return static_cast<std::size_t>(random.below(static_cast<Index>(row.size())));
}

inline void narrow_normal(SplitMix64& random, std::span<double> row) { fill_normal(random, row, 0.1); }
inline void normal(SplitMix64& random, std::span<double> row) { fill_normal(random, row, 1); }
inline void broad_normal(SplitMix64& random, std::span<double> row) { fill_normal(random, row, 6); }
inline void wide(SplitMix64& random, std::span<double> row) {
    for (double& z : row) z = 200 * random.uniform() - 100;
}
inline void tied(SplitMix64& random, std::span<double> row) {
    constexpr std::array<double, 3> values = {-1.5, 0, 0.75};
    fill(row, problems::tied_row(std::ssize(row), values, random));
}
inline void needle(SplitMix64& random, std::span<double> row) {
    const double gap = 30 * random.uniform();
    fill(row, problems::needle_row(std::ssize(row), gap, random.below(std::ssize(row))), -0.25);
}
inline void two_level(SplitMix64& random, std::span<double> row) {
    const double height = 10 * random.uniform(), share = random.uniform();
    for (double& z : row) z = random.uniform() < share ? height : 0;
}
inline void masked(SplitMix64& random, std::span<double> row) {
    for (double& z : row) z = random.below(7) == 0 ? masked_logit : 3 * random.normal();
}
inline void tiny(SplitMix64& random, std::span<double> row) { fill_normal(random, row, 1e-30); }
inline void large_offset(SplitMix64& random, std::span<double> row) { fill_normal(random, row, 2, 1e4); }
/// An offset of any size: from one that costs three digits to one beside which all logits are equal.
inline void common_offset(SplitMix64& random, std::span<double> row) {
    const double size = std::pow(10.0, 3 + 14 * random.uniform());
    fill_normal(random, row, 3, random.below(2) == 0 ? size : -size);
}
inline void all_equal(SplitMix64& random, std::span<double> row) {
    fill(row, problems::flat_row(std::ssize(row), 5 * random.normal()));
}
inline void near_one_hot(SplitMix64& random, std::span<double> row) {
    fill_normal(random, row, 1);
    row[position(random, row)] += 15 + 60 * random.uniform();
}

} // namespace families

inline constexpr std::array<Family, 13> row_families = {{
    {"narrow_normal", families::narrow_normal},
    {"normal", families::normal},
    {"broad_normal", families::broad_normal},
    {"wide", families::wide},
    {"tied", families::tied},
    {"needle", families::needle},
    {"two_level", families::two_level},
    {"masked", families::masked},
    {"tiny", families::tiny},
    {"large_offset", families::large_offset},
    {"common_offset", families::common_offset},
    {"all_equal", families::all_equal},
    {"near_one_hot", families::near_one_hot},
}};

/// Calls f(where, row of T) for every family and length, `repetitions` times with fresh random numbers.
template <class T, std::size_t N, class F>
void for_each_row(std::uint64_t seed, const std::array<std::size_t, N>& row_lengths, int repetitions, F&& f) {
    for (std::size_t family = 0; family < row_families.size(); ++family) {
        for (std::size_t n : row_lengths) {
            SplitMix64 random = generator(seed, family, n);
            for (int repetition = 0; repetition < repetitions; ++repetition) {
                std::vector<double> row(n);
                row_families[family].fill(random, row);
                f(Where{row_families[family].name, n, 1, seed, scalar_name<T>()}, narrow<T>(row));
            }
        }
    }
}

/// An offset, and the grid on which logits of up to 2000 stand so that adding the offset is exact.
template <class T>
struct Offset {
    T value, grid;
};
template <class T>
inline constexpr std::array<Offset<T>, 5> offsets = {{{T(-64), T(1) / 256},
                                                      {T(0.5), T(1) / 256},
                                                      {T(1024), T(1) / 256},
                                                      {T(-1e4), T(1) / 64},
                                                      {T(1e6), T(1) / 16}}};
template <class T>
requires(std::numeric_limits<T>::digits >= 53)
inline constexpr std::array<Offset<T>, 6> offsets<T> = {{{T(-64), T(1) / 256},
                                                         {T(0.5), T(1) / 256},
                                                         {T(1024), T(1) / 256},
                                                         {T(1e6), T(1) / 256},
                                                         {T(-1e12), T(1) / 256},
                                                         {T(1e15), T(1) / 8}}};

/// The logit on the grid nearest to z.
template <class T>
T on_grid(T z, const Offset<T>& offset) {
    return std::round(z / offset.grid) * offset.grid + T(0); // no -0, which an offset would not keep
}
/// z + offset.
template <class T>
std::vector<T> moved(std::vector<T> z, const Offset<T>& offset) {
    for (T& x : z) x += offset.value;
    return z;
}

template <class T>
std::size_t visible_count(const std::vector<T>& row) {
    return static_cast<std::size_t>(
        std::count_if(row.begin(), row.end(), [](T z) { return z > -std::numeric_limits<T>::infinity(); }));
}

} // namespace attnscope_test
