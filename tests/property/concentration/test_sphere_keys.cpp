// The expected largest weight beside independent keys: limits, where they are attained, and keys on a sphere.
#include <attnscope/concentration/sphere_keys.hpp>
#include <attnscope/random.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

/// E 1/(1 + sum of n-1 independent x), x = low or high with probability `share`.
Ref two_level_expectation(int n, Ref low, Ref high, Ref share) {
    Ref expected = 0;
    for (int k = 0; k < n; ++k) { // k of n-1 are high
        const Ref ways = std::lgamma(Ref(n)) - std::lgamma(Ref(k + 1)) - std::lgamma(Ref(n - k));
        const Ref chance = std::exp(ways) * std::pow(share, Ref(k)) * std::pow(1 - share, Ref(n - 1 - k));
        expected += chance / (1 + static_cast<Ref>(k) * high + static_cast<Ref>(n - 1 - k) * low);
    }
    return expected;
}

/// Largest weights of rows of n keys, uniform on the sphere: mean and standard error.
std::pair<double, double> drawn_weight(Index n, Index dimension, double beta, int rows, SplitMix64& random) {
    double sum = 0, squares = 0;
    std::vector<double> cosines(static_cast<std::size_t>(n));
    for (int row = 0; row < rows; ++row) {
        double best = -1, total = 0;
        for (double& cosine : cosines) {
            double square = 0, along = 0;
            for (Index j = 0; j < dimension; ++j) {
                const double x = random.normal();
                if (j == 0) along = x;
                square += x * x;
            }
            cosine = along / std::sqrt(square);
            best = std::max(best, cosine);
        }
        for (const double cosine : cosines) total += std::exp(beta * (cosine - best));
        sum += 1 / total;
        squares += 1 / (total * total);
    }
    const double mean = sum / rows;
    return {mean, std::sqrt(std::max(0.0, squares / rows - mean * mean) / rows)};
}

} // namespace

TEST_CASE("independent keys leave an expected weight within its limits, attained on both sides",
          "[theorem][sphere_keys]") {
    double below = 0, above = 0; // largest tightness seen
    for (const int n : {1, 2, 3, 8, 100, 1000})
        for (const double low : {0.0, 1e-6, 0.1, 0.9})
            for (const double high : {low, 0.3, 0.95, 1.0})
                for (const double share : {0.0, 1e-4, 0.02, 0.4, 1.0}) {
                    CAPTURE(n, low, high, share);
                    const double mu = low + share * (high - low);
                    const double expected = static_cast<double>(two_level_expectation(n, low, high, share));
                    for (const Bound<double>& bound : sphere_keys_sharp(n, mu, expected)) {
                        CHECK(bound.verdict() != Verdict::violated);
                        CHECK(bound.verdict() != Verdict::undefined);
                        (bound.side == Side::lower ? below : above) =
                            std::max(bound.side == Side::lower ? below : above, bound.tightness());
                    }
                    if (n == 1 || mu == 0) continue;
                    if (low == high) check_attained(sphere_keys_sharp(n, mu, expected)[0]);
                    if (low == 0 && high == 1) check_attained(sphere_keys_sharp(n, mu, expected)[1]);
                }
    CHECK(below == 1);
    CHECK(above == 1);
    CHECK(independent_keys_range(1e9, 1e-30).upper == 1);
    CHECK_THROWS_AS(independent_keys_range(0, 0.5), invalid_argument);
    CHECK_THROWS_AS(independent_keys_range(5, 1.5), invalid_argument);
    CHECK_THROWS_AS(independent_keys_range(5, std::nan("")), invalid_argument);
}

TEST_CASE("the weight on the nearest of keys on a sphere: Archimedes' sphere, and drawn keys",
          "[theorem][sphere_keys]") {
    // 1 - <q,k> is uniform on [0, 2] for d = 3.
    for (const double n : {2.0, 20.0, 400.0})
        for (const double beta : {0.5, 10.0, 3000.0}) {
            CAPTURE(n, beta);
            constexpr int steps = 400000;
            Interval<Ref> mean{0, 0};
            for (int i = 0; i < steps; ++i) { // u = (1 - s/2)^n is uniform
                const Ref u = (static_cast<Ref>(i) + Ref(0.5)) / steps, left = 2 * std::pow(u, 1 / Ref(n));
                const Ref mu = -std::expm1(-Ref(beta) * left) / (Ref(beta) * left);
                mean.lower += 1 / (1 + (Ref(n) - 1) * mu) / steps;
                mean.upper += -std::expm1(Ref(n) * std::log1p(-mu)) / (Ref(n) * mu) / steps;
            }
            const Interval<double> range = sphere_expected_weight(n, 3, beta);
            CHECK(std::abs(range.lower - static_cast<double>(mean.lower)) < 3e-6);
            CHECK(std::abs(range.upper - static_cast<double>(mean.upper)) < 3e-6);
            // E of the sum is at most n/(2 beta) there.
            CHECK(range.lower >= 1 / (1 + n / (2 * beta)) - 1e-6);
        }
    SplitMix64 random(11);
    for (const Index dimension : {2, 3, 8, 64})
        for (const Index n : {2, 30, 300})
            for (const double share : {0.1, 1.0, 10.0}) {
                CAPTURE(dimension, n, share);
                const double keys = static_cast<double>(n),
                             beta = share * sphere_inverse_temperature(keys, dimension);
                const auto [mean, error] = drawn_weight(n, dimension, beta, dimension > 8 ? 100 : 600, random);
                const Interval<double> range = sphere_expected_weight(keys, dimension, beta, 2000);
                CHECK(mean > range.lower - 5 * error - 1e-5);
                CHECK(mean < range.upper + 5 * error + 1e-5);
            }
    const Interval<double> equal = sphere_expected_weight(50, 7, 0);
    CHECK(std::abs(equal.lower - 0.02) < 1e-9);
    CHECK(std::abs(equal.upper - 0.02) < 1e-9);
    CHECK_THROWS_AS(sphere_expected_weight(1, 3, 1), invalid_argument);
    CHECK_THROWS_AS(sphere_expected_weight(9, 1, 1), invalid_argument);
    CHECK_THROWS_AS(sphere_expected_weight(9, 3, -1), invalid_argument);
}

TEST_CASE("keys on a sphere go through the transition at an inverse temperature of order n^{2/(d-1)}",
          "[theorem][sphere_keys]") {
    CHECK(std::abs(sphere_inverse_temperature(500, 3) - 250) < 1e-9);
    for (const Index dimension : {2, 3, 5, 17}) {
        const double order = 2 / static_cast<double>(dimension - 1);
        // In many dimensions it takes as many keys before the density near 0 decides.
        const double first = dimension > 5 ? 1e30 : 1e5;
        Interval<double> at_first{0, 0};
        for (const double n : {first, 1e3 * first, 1e6 * first}) {
            CAPTURE(dimension, n);
            const double critical = sphere_inverse_temperature(n, dimension);
            CHECK(std::abs(sphere_inverse_temperature(16 * n, dimension) / critical - std::pow(16, order)) <
                  1e-8);
            const auto at = [&](double share) {
                return sphere_expected_weight(n, dimension, share * critical);
            };
            // All the weight far above, hardly any far below, and in between a share that does not depend on n.
            CHECK(at(100).lower > 0.97);
            CHECK(at(10).lower > 0.8);
            CHECK(at(1).lower > 0.03);
            CHECK(at(1).upper < 0.78);
            CHECK(at(0.1).upper < 0.4 * at(1).lower + 0.12);
            CHECK(at(0.01).upper < 0.15);
            if (n == first) at_first = at(1);
            CHECK(std::abs(at(1).lower - at_first.lower) < 2e-3);
            CHECK(std::abs(at(1).upper - at_first.upper) < 2e-3);
        }
    }
}
