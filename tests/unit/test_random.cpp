// The generator: its published sequence, and the shape of what is drawn from it.
#include <attnscope/random.hpp>
#include <support/catch.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

using attnscope::Index;
using attnscope::SplitMix64;

TEST_CASE("SplitMix64 gives its published sequence for seed 1234567", "[random]") {
    SplitMix64 generator(1234567);
    for (const std::uint64_t expected : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                         4593380528125082431u, 16408922859458223821u})
        CHECK(generator() == expected);
}

TEST_CASE("equal seeds give equal draws, other seeds others", "[random]") {
    SplitMix64 one(7), same(7), other(8);
    bool different = false;
    for (int i = 0; i < 100; ++i) {
        const double x = one.normal();
        REQUIRE(x == same.normal());
        different = different || x != other.normal();
    }
    CHECK(different);
}

TEST_CASE("a copy of a generator goes on by itself", "[random]") {
    SplitMix64 generator(1);
    generator();
    SplitMix64 copy = generator;
    const std::uint64_t next = generator();
    CHECK(copy() == next);
}

TEST_CASE("uniform draws lie in the open interval and are spread evenly", "[random]") {
    SplitMix64 generator(3);
    constexpr int draws = 200'000, cells = 20;
    std::array<int, cells> count{};
    double sum = 0;
    for (int i = 0; i < draws; ++i) {
        const double x = generator.uniform();
        REQUIRE(x > 0);
        REQUIRE(x < 1);
        sum += x;
        ++count[static_cast<std::size_t>(x * cells)];
    }
    // Mean 1/2 with standard deviation 1/sqrt(12 draws); chi-square with 19 degrees of freedom: 6 deviations
    // each.
    CHECK(std::abs(sum / draws - 0.5) < 6 / std::sqrt(12.0 * draws));
    double chi_square = 0;
    for (const int n : count) {
        const double expected = double(draws) / cells;
        chi_square += (n - expected) * (n - expected) / expected;
    }
    CHECK(chi_square < (cells - 1) + 6 * std::sqrt(2.0 * (cells - 1)));
}

TEST_CASE("the ends of the uniform interval cannot be reached", "[random]") {
    // Seeds whose first 64 bits are all ones and all zeros, found by inverting the steps of the generator.
    SplitMix64 ones(0x31628af67b2131abu), zeros(0x61c8864680b583ebu);
    CHECK(SplitMix64(ones)() == ~std::uint64_t{0});
    CHECK(SplitMix64(zeros)() == 0);
    CHECK(ones.uniform() == 1 - 0x1p-53);
    CHECK(zeros.uniform() == 0x1p-53);
    SplitMix64 again(0x31628af67b2131abu);
    CHECK(again.below(1000) == 999);
}

namespace {

void check_normal_moments(const std::vector<double>& draw) {
    const double draws = static_cast<double>(draw.size());
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, beyond_two = 0;
    for (const double x : draw) {
        REQUIRE(std::isfinite(x));
        m1 += x / draws;
        m2 += x * x / draws;
        m3 += x * x * x / draws;
        m4 += x * x * x * x / draws;
        beyond_two += (std::abs(x) > 2 ? 1.0 : 0.0) / draws;
    }
    // Variances of the k-th powers: 1, 2, 15, 96; six deviations each.
    const double deviation = 1 / std::sqrt(draws);
    CHECK(std::abs(m1) < 6 * deviation);
    CHECK(std::abs(m2 - 1) < 6 * std::sqrt(2.0) * deviation);
    CHECK(std::abs(m3) < 6 * std::sqrt(15.0) * deviation);
    CHECK(std::abs(m4 - 3) < 6 * std::sqrt(96.0) * deviation);
    const double tail = std::erfc(std::sqrt(2.0)); // P(|x| > 2) = 0.0455
    CHECK(std::abs(beyond_two - tail) < 6 * std::sqrt(tail * (1 - tail)) * deviation);
}

} // namespace

TEST_CASE("normal draws have the moments of the normal distribution", "[random]") {
    SplitMix64 generator(5);
    std::vector<double> draw(200'000);
    for (double& x : draw) x = generator.normal();
    check_normal_moments(draw);
}

TEST_CASE("rows of normal draws have the moments of the normal distribution", "[random]") {
    SplitMix64 generator(6);
    std::vector<double> draw(200'001); // the last pair is cut in half
    generator.fill_normal(std::span<double>(draw));
    check_normal_moments(draw);
    // Both branches of a pair are used, and they are not correlated.
    double product = 0;
    for (std::size_t i = 0; i + 1 < draw.size(); i += 2) product += draw[i] * draw[i + 1];
    CHECK(std::abs(product) < 6 * std::sqrt(100'000.0));
}

TEST_CASE("below(n) stays below n and meets every number", "[random]") {
    SplitMix64 generator(9);
    std::vector<int> seen(7, 0);
    for (int i = 0; i < 7000; ++i) {
        const Index x = generator.below(7);
        REQUIRE(x >= 0);
        REQUIRE(x < 7);
        ++seen[static_cast<std::size_t>(x)];
    }
    for (const int n : seen) CHECK(std::abs(n - 1000) < 6 * std::sqrt(7000 * (1 / 7.0) * (6 / 7.0)));
    for (int i = 0; i < 10; ++i) CHECK(generator.below(1) == 0);
}
