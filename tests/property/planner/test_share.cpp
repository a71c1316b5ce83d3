// What serves a share of the rows is what sorting gives.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

TEST_CASE("what serves a share of the rows is what sorting gives", "[planner][share]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst need, reach, between, definition, counted;
    for (const std::size_t n : {1u, 2u, 3u, 7u, 10u, 17u, 49u, 100u, 257u, 1000u})
        for (const int kind : {0, 1, 2, 3}) {
            SplitMix64 random = generator(seed, n, kind, 11);
            std::vector<double> values = normal_row<double>(random, n);
            if (kind == 1)
                for (double& x : values) x = std::round(2 * x); // ties
            if (kind >= 2)
                for (double& x : values)
                    if (random.below(4) == 0) x = random.below(2) == 0 ? infinity : -infinity;
            std::vector<double> given = values;
            if (kind != 0)
                for (std::size_t i = 0; i < 1 + n / 3; ++i)
                    given.insert(given.begin() + random.below(static_cast<Index>(given.size()) + 1),
                                 i % 2 == 0 ? nan_value : -nan_value);
            const Where where{"values", n, static_cast<double>(kind), seed};
            for (std::size_t k = 1; k <= n; ++k) {
                if (n > 300 && k % 7 != 0 && k != n) continue;
                const double share = static_cast<double>(k) / static_cast<double>(n);
                const double low = kth_smallest(values, k), high = kth_smallest(values, n + 1 - k);
                need.meet(need_for_share(given, share) == low, where);
                reach.meet(reach_for_share(given, share) == high, where);
                const double inside = (static_cast<double>(k) - 0.5) / static_cast<double>(n);
                between.meet(need_for_share(given, inside) == low, where);
                between.meet(reach_for_share(given, inside) == high, where);
                // The definition: at least k of the values reach it, fewer than k any smaller one.
                std::size_t covered = 0, below = 0;
                for (const double x : values) covered += x <= low, below += x < low;
                definition.meet(covered >= k && below < k, where);
                const double met = share_of(given, [&](double x) {
                    counted.meet(x == x, where); // it is not asked about NaN
                    return x <= low;
                });
                counted.meet(met == static_cast<double>(covered) / static_cast<double>(n), where);
            }
        }
    ATTNSCOPE_CHECK_WORST(need);
    ATTNSCOPE_CHECK_WORST(reach);
    ATTNSCOPE_CHECK_WORST(between);
    ATTNSCOPE_CHECK_WORST(definition);
    ATTNSCOPE_CHECK_WORST(counted);
}

TEST_CASE("shares of special samples", "[planner][share]") {
    const std::vector<double> none, only_nan = {nan_value, nan_value},
                                    never = {1, infinity, infinity, infinity};
    for (const double share : {5e-324, 0.25, 1.0}) {
        CHECK(std::isnan(need_for_share(none, share)));
        CHECK(std::isnan(reach_for_share(none, share)));
        CHECK(std::isnan(need_for_share(only_nan, share)));
        CHECK(std::isnan(reach_for_share(only_nan, share)));
    }
    CHECK(need_for_share(never, 0.25) == 1);
    CHECK(need_for_share(never, 0.26) == infinity);
    CHECK(need_for_share(never, 5e-324) == 1);
    CHECK(reach_for_share(never, 0.75) == infinity);
    CHECK(reach_for_share(never, 1) == 1);
    CHECK(need_for_share({2, 1, -infinity}, 1e-9) == -infinity);
    const auto always = [](double) { return true; };
    CHECK(std::isnan(share_of(none, always)));
    CHECK(std::isnan(share_of(only_nan, always)));
    CHECK(share_of({infinity, -infinity, nan_value}, always) == 1);
    CHECK(share_of(never, [](double x) { return x < infinity; }) == 0.25);
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, 2.0, infinity, -infinity, nan_value})
        for (const auto& values : {none, never}) {
            CAPTURE(bad);
            CHECK_THROWS_AS(need_for_share(values, bad), invalid_argument);
            CHECK_THROWS_AS(reach_for_share(values, bad), invalid_argument);
        }
    CHECK(message_of([&] { need_for_share(none, 2); }) == "need_for_share: share must be in (0,1], got 2");
}
