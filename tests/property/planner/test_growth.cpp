// How backgrounds grow, and rows that are really built to a length.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

TEST_CASE("the exponent that was put in comes out", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst exact, fitted, spread, scaled;
    for (const double exponent : {-1.5, -0.3, 0.0, 0.2, 1.0})
        for (const double noise : {0.0, 1e-3, 0.3}) {
            SplitMix64 random =
                generator(seed, static_cast<int>(exponent * 10), static_cast<int>(noise * 1000), 21);
            std::vector<RowStatistics<double>> rows, colder;
            Ref size = 0;
            for (int i = 0; i < 60; ++i) {
                const auto n = static_cast<std::size_t>(8 + random.below(2000));
                // A gap is where the background can be put, and it may not be negative.
                const double background =
                    exponent * std::log(static_cast<double>(n)) - 12 + noise * random.normal();
                rows.push_back(row_with_background(n, background));
                colder.push_back(row_with_background(n, background, 0.125));
                size = std::max(size, 12 + std::abs(Ref(exponent)) * 8);
            }
            const Where where{"rows", 60, exponent, seed};
            const BackgroundGrowth growth = background_growth<double>(rows);
            const Fit fit = reference_fit(rows);
            CHECK(growth.rows == 60);
            fitted.meet(std::abs(Ref(growth.exponent) - fit.slope), fit.slope_error, where);
            spread.meet(std::abs(Ref(growth.standard_error) * Ref(growth.standard_error) - fit.variance),
                        fit.variance_error, where);
            // The logits are rounded at their size, and the sums of equal terms as the statistics say.
            if (noise == 0)
                exact.meet(std::abs(fit.slope - Ref(exponent)),
                           fit.slope_error +
                               4 * (u * size + Ref(rows.front().sum_error()) + 60 * unit_roundoff<double>),
                           where);
            // At the temperature of the statistics: T times the gaps at T tell the same.
            scaled.meet(std::abs(Ref(background_growth<double>(colder).exponent) - Ref(growth.exponent)),
                        2 * fit.slope_error +
                            4 * (u * size + 2 * Ref(rows.front().sum_error()) + 120 * unit_roundoff<double>),
                        where);
        }
    ATTNSCOPE_CHECK_WORST(exact);
    ATTNSCOPE_CHECK_WORST(fitted);
    ATTNSCOPE_CHECK_WORST(spread);
    ATTNSCOPE_CHECK_WORST(scaled);
}

TEST_CASE("the standard error is that of the exponent", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    // (exponent found - put in)/error follows Student's t with m - 2 degrees of freedom.
    const int trials = 300;
    for (const int m : {12, 40}) {
        double sum = 0;
        SplitMix64 random = generator(seed, m, 31);
        for (int trial = 0; trial < trials; ++trial) {
            std::vector<RowStatistics<double>> rows;
            for (int i = 0; i < m; ++i) {
                const auto n = static_cast<std::size_t>(8 << random.below(7));
                rows.push_back(
                    row_with_background(n, 0.4 * std::log(static_cast<double>(n)) - 9 + 0.5 * random.normal()));
            }
            const BackgroundGrowth growth = background_growth<double>(rows);
            const double t = (growth.exponent - 0.4) / growth.standard_error;
            sum += t * t;
        }
        const double nu = m - 2, mean = nu / (nu - 2),
                     variance = 3 * nu * nu / ((nu - 2) * (nu - 4)) - mean * mean;
        CAPTURE(m, sum / trials, mean);
        CHECK(std::abs(sum / trials - mean) <= 5 * std::sqrt(variance / trials));
    }
}

TEST_CASE("rows that tell nothing about growth", "[planner][growth]") {
    const std::vector<RowStatistics<double>> good = {row_with_background(8, -3), row_with_background(16, -3.5),
                                                     row_with_background(100, -5),
                                                     row_with_background(300, -4)};
    const BackgroundGrowth expected = background_growth<double>(good);
    CHECK(expected.rows == 4);
    CHECK(expected.standard_error < infinity);
    const auto of = [](std::vector<double> z) { return row_statistics<double>(in(z)); };
    std::vector<RowStatistics<double>> mixed = good;
    mixed.insert(mixed.begin(), row_with_background(7, 0)); // too short
    mixed.push_back(of(std::vector<double>(20, nan_value)));
    mixed.push_back(of(std::vector<double>(20, infinity)));
    mixed.push_back(of(std::vector<double>(20, -infinity)));
    mixed.push_back(of({}));
    mixed.push_back(of({1}));
    mixed.push_back(row_with_background(9, -5000)); // log 0 would be the end of the fit
    std::vector<double> masked(20, -infinity);
    std::fill(masked.begin(), masked.begin() + 7, 0.0); // seven visible keys
    mixed.push_back(of(masked));
    const BackgroundGrowth found = background_growth<double>(mixed);
    CHECK(found.rows == expected.rows);
    CHECK(found.exponent == expected.exponent);
    CHECK(found.standard_error == expected.standard_error);
    CHECK(background_growth<double>(mixed, 7).rows == 6);
    CHECK(background_growth<double>(mixed, 2).rows == 6);
    CHECK(background_growth<double>(mixed, 9).rows == 3);
    // Masked keys do not count: as if they were not there.
    std::vector<double> hidden(40, -infinity), seen(16, -3.5);
    std::fill(hidden.begin(), hidden.begin() + 16, -3.5);
    hidden[3] = seen[3] = 0;
    std::vector<RowStatistics<double>> swapped = good;
    swapped[1] = of(hidden);
    CHECK(background_growth<double>(swapped).exponent == expected.exponent);
    // Fewer than three rows, or one length.
    for (const std::size_t count : {0u, 1u, 2u}) {
        const BackgroundGrowth few =
            background_growth<double>(std::span<const RowStatistics<double>>(good.data(), count));
        CHECK(few.rows == static_cast<Index>(count));
        CHECK(few.standard_error == infinity);
        if (count < 2) CHECK(few.exponent == 0);
    }
    std::vector<RowStatistics<double>> same;
    for (const double background : {-1.0, -2.0, -7.0, -3.0, -2.5})
        same.push_back(row_with_background(100, background));
    CHECK(background_growth<double>(same).exponent == 0);
    CHECK(background_growth<double>(same).standard_error == infinity);
    CHECK(background_growth<double>(same).rows == 5);
    CHECK(background_growth<long double>(std::span<const RowStatistics<long double>>()).rows == 0);
    for (const Index bad : {Index(1), Index(0), Index(-3)})
        CHECK_THROWS_AS(background_growth<double>(good, bad), invalid_argument);
}

TEST_CASE("how a row is taken to a length", "[planner][growth]") {
    Worst copies, shift, whole;
    for (const Index n : {Index(2), Index(3), Index(17), Index(1000)})
        for (const double length : {2.0, 2.5, 17.0, 1000.0, 1e6, 1e18})
            for (const double exponent : {-1.0, -0.2, 0.0, 0.3, 4.0})
                for (const double gap : {0.0, 0.5, 20.0, infinity}) {
                    const Where where{"growth", static_cast<std::size_t>(n), exponent};
                    const RowGrowth growth = row_growth(row_of(n, gap), length, exponent);
                    const Ref exact = (Ref(length) - 1) / Ref(n - 1);
                    copies.meet(std::abs(Ref(growth.copies) - exact), 2 * u * exact, where);
                    const Ref grown = -Ref(exponent) * std::log(Ref(length) / Ref(n));
                    shift.meet(std::abs(Ref(growth.shift) - std::max(grown, -Ref(gap))),
                               2 * u * std::abs(grown) + std::abs(Ref(exponent)) * u, where);
                    shift.meet(growth.shift >= -gap, where); // never beyond the best key
                    if (length == static_cast<double>(n)) {
                        copies.meet(growth.copies == 1, where);
                        shift.meet(growth.shift == 0, where);
                    }
                }
    for (const Index n : {Index(2), Index(3), Index(17), Index(1000)})
        for (const double c : {1.0, 2.0, 3.0, 7.0, 1024.0})
            whole.meet(row_growth(row_of(n, 1), 1 + c * static_cast<double>(n - 1)).copies == c,
                       Where{"whole", static_cast<std::size_t>(n), c});
    ATTNSCOPE_CHECK_WORST(copies);
    ATTNSCOPE_CHECK_WORST(shift);
    ATTNSCOPE_CHECK_WORST(whole);
    for (const Index bad : {Index(1), Index(0), Index(-1)})
        CHECK_THROWS_AS(row_growth(row_of(bad, 1), 10), invalid_argument);
    for (const double bad : {1.999, 1.0, 0.0, -5.0, -infinity, nan_value})
        CHECK_THROWS_AS(row_growth(row_of(3, 1), bad), invalid_argument);
}

TEMPLATE_TEST_CASE("a grown row has the figures of the row that is really built", "[planner][growth]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 257};
    Worst weight, entropy, participation, level;
    std::size_t lost = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<T>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const double gap = static_cast<double>(row.logit_gap()),
                         spread = static_cast<double>(row.logit_spread());
            for (const std::size_t copies : {1u, 2u, 5u})
                for (const double shift :
                     {0.0, 0.25 * spread, 0.7 * temperature, 40 * temperature, -gap / 2, -0.9 * gap, -gap}) {
                    const RowGrowth growth{static_cast<double>(copies), shift};
                    const GrownRow grown = grown_row(row, growth);
                    const RefRow built = built_row(z, copies, shift);
                    const Figures exact = figures_of(built, 1 / Ref(temperature));
                    const GrownError error = grown_error(row, growth);
                    if (error.lost) {
                        ++lost;
                        continue;
                    }
                    weight.meet(std::abs(Ref(grown.best_weight) - exact.weight), error.weight, where);
                    entropy.meet(std::abs(Ref(grown.entropy_nats) - exact.entropy), error.entropy, where);
                    participation.meet(std::abs(Ref(grown.participation_ratio) - exact.participation),
                                       error.participation, where);
                    // Where the gap is used up, the second key shares the weight of the best one.
                    if (shift == -gap)
                        level.meet(Ref(grown.best_weight) - 1 / Ref(1 + copies), error.weight, where);
                }
        }
    });
    CHECK(weight.met() > 10 * lost);
    ATTNSCOPE_CHECK_WORST(weight);
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(participation);
    ATTNSCOPE_CHECK_WORST(level);
}

TEST_CASE("the background of a grown row follows the exponent", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst follows;
    SplitMix64 random = generator(seed, 41);
    for (int i = 0; i < 50; ++i) {
        std::vector<double> z = normal_row<double>(random, static_cast<std::size_t>(8 + random.below(200)));
        z[0] += 8;
        const auto row = row_statistics<double>(in(z));
        const double n = static_cast<double>(row.visible);
        for (const double exponent : {-1.2, -0.3, 0.0, 0.1, 0.4})
            for (const double length : {n / 2, n, 3.7 * n, 100 * n}) {
                const RowGrowth growth = row_growth(row, length, exponent);
                if (growth.shift == -row.logit_gap()) continue;
                const Ref rest = 1 / Ref(grown_row(row, growth).best_weight) - 1; // of the grown row
                const Ref expected = (Ref(length) - 1) / (Ref(n) - 1) * Ref(row.r) *
                                     std::pow(Ref(length) / Ref(n), Ref(exponent));
                follows.meet(
                    std::abs(rest - expected),
                    2 * u * (1 + expected) +
                        expected * u *
                            (8 + 4 * std::abs(Ref(exponent)) * (2 + std::abs(std::log(Ref(length) / Ref(n))))),
                    Where{"normal", z.size(), exponent, seed});
            }
    }
    ATTNSCOPE_CHECK_WORST(follows);
}

TEST_CASE("special rows do not grow", "[planner][growth]") {
    for (const std::vector<double>& z : {std::vector<double>{}, std::vector<double>{-infinity, -infinity},
                                         std::vector<double>{0, nan_value}, std::vector<double>{0, infinity}}) {
        const GrownRow grown = grown_row(row_statistics<double>(in(z)), {3, 0.5});
        CHECK(std::isnan(grown.best_weight));
        CHECK(std::isnan(grown.entropy_nats));
        CHECK(std::isnan(grown.participation_ratio));
    }
    for (const std::vector<double>& z :
         {std::vector<double>{7}, std::vector<double>{-infinity, 7}, std::vector<double>{0, -2000, -3000}}) {
        const GrownRow grown = grown_row(row_statistics<double>(in(z)), {1000, 0.5});
        CHECK(grown.best_weight == 1);
        CHECK(grown.entropy_nats == 0);
        CHECK(grown.participation_ratio == 1);
    }
}
