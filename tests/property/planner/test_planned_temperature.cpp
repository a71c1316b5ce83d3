// Planned temperatures do what is wanted.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

TEMPLATE_TEST_CASE("a planned temperature gives what is wanted", "[planner][temperature]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 200};
    const std::vector<std::pair<Aim, double>> wishes = {
        {Aim::weight, 0.004},        {Aim::weight, 0.1},         {Aim::weight, 0.4},
        {Aim::weight, 0.9},          {Aim::weight, 0.99},        {Aim::weight, 0.999999},
        {Aim::entropy, 0.0},         {Aim::entropy, 0.01},       {Aim::entropy, 0.6},
        {Aim::entropy, 2.0},         {Aim::entropy, 6.0},        {Aim::participation, 1.0},
        {Aim::participation, 1.001}, {Aim::participation, 1.7},  {Aim::participation, 6.5},
        {Aim::participation, 90},    {Aim::participation, 4000},
    };
    Worst met, best, at_least, smallest, too_much, too_sharp;
    std::array<std::size_t, 3> reachable{};
    std::size_t flat = 0, sharp = 0, lost = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        const auto row = row_statistics<T>(in(z));
        if (!row.normal() || row.visible < 2) return;
        const double gap = static_cast<double>(row.logit_gap()),
                     spread = static_cast<double>(row.logit_spread());
        for (const std::size_t copies : {1u, 3u})
            for (const double shift : {0.0, 0.25 * spread, -gap / 2, -gap}) {
                const RowGrowth growth{static_cast<double>(copies), shift};
                const RefRow built = built_row(z, copies, shift);
                const Ref others = static_cast<Ref>(built.size() - 1);
                Ref ties = 0; // keys that no temperature can tell from the best one
                for (std::size_t i = 1; i < built.size(); ++i)
                    ties += built[0] - built[i] <= 4 * u * Ref(gap) ? 1 : 0;
                for (const auto& wish : wishes) {
                    const Aim aim = wish.first;
                    const double value = wish.second;
                    where.normalizer = std::string(name_of(aim));
                    where.temperature = value;
                    const PlannedTemperature plan = planned_temperature<T>(in(z), growth, aim, value);
                    const auto limit = [&](Ref count) {
                        return aim == Aim::weight    ? 1 / (1 + count)
                               : aim == Aim::entropy ? std::log1p(count)
                                                     : 1 + count;
                    };
                    const Ref even = limit(others), alone = limit(ties), sign = aim == Aim::weight ? 1 : -1;
                    const Ref end_error = 8 * u * (1 + even + alone);
                    // No concentration at all is enough, or too much of it.
                    if (sign * (Ref(value) - even) < -end_error) {
                        ++flat;
                        too_much.meet(plan.inverse_temperature == 0 && plan.reachable == (aim == Aim::weight),
                                      where);
                        too_much.meet(std::abs(Ref(plan.best) - even), end_error, where);
                        continue;
                    }
                    // What even beta = infinity does not give; what it just gives is not reached either.
                    if (sign * (Ref(value) - alone) > end_error || (ties == 0 && Ref(value) == alone)) {
                        ++sharp;
                        too_sharp.meet(plan.inverse_temperature == infinity && !plan.reachable, where);
                        too_sharp.meet(std::abs(Ref(plan.best) - alone), end_error, where);
                        continue;
                    }
                    if (std::abs(Ref(value) - even) <= end_error || std::abs(Ref(value) - alone) <= end_error)
                        continue;
                    const Ref beta = plan.inverse_temperature;
                    const bool some = plan.reachable && beta > 0 && beta < infinity;
                    met.meet(some, where);
                    if (!some) continue;
                    const auto there = row_statistics<T>(in(z), static_cast<double>(1 / beta));
                    const GrownError error = grown_error(there, growth);
                    if (error.lost) {
                        ++lost;
                        continue;
                    }
                    ++reachable[static_cast<std::size_t>(aim)];
                    const Figures exact = figures_of(built, beta);
                    // log beta is halved down to 1e-13 of its size, and both e^x are rounded at the size of x.
                    const Ref log_beta = std::abs(std::log(beta)),
                              step = Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta);
                    const Ref figure_error = error.at(aim) + 4 * u * (aim == Aim::weight ? 1 : 0);
                    const Ref tolerance = exact.slope(aim) * step + figure_error;
                    met.meet(std::abs(exact.at(aim) - Ref(value)), tolerance, where);
                    best.meet(std::abs(Ref(plan.best) - exact.at(aim)),
                              figure_error + exact.slope(aim) * 4 * u * (2 + log_beta), where);
                    if (aim != Aim::weight) continue;
                    at_least.meet(Ref(value) - Ref(plan.best), u, where);
                    // The smallest: a little less has less, by more than all rounding.
                    const Ref less = 4 * tolerance / exact.weight_slope;
                    if (less < Ref(0.1))
                        smallest.meet(figures_of(built, beta * (1 - less)).weight < value, where);
                }
            }
    });
    CAPTURE(flat, sharp, lost);
    for (const std::size_t count : reachable) CHECK(count > 500);
    CHECK(flat > 200);
    CHECK(sharp > 200);
    CHECK(lost < met.met() / 20);
    ATTNSCOPE_CHECK_WORST(met);
    ATTNSCOPE_CHECK_WORST(best);
    ATTNSCOPE_CHECK_WORST(at_least);
    ATTNSCOPE_CHECK_WORST(smallest);
    ATTNSCOPE_CHECK_WORST(too_much);
    ATTNSCOPE_CHECK_WORST(too_sharp);
}

TEST_CASE("two levels: planned temperatures by their closed forms", "[planner][temperature]") {
    Worst weight, participation, applied;
    for (const std::size_t n : {2u, 3u, 100u})
        for (const double copies : {1.0, 2.5, 1e6})
            for (const double gap : {1e-3, 0.7, 40.0})
                for (const double moved : {-0.75, 0.0, 2.0}) {
                    const auto z = row_of(problems::needle_row(Index(n), gap, Index(n / 2)), 0.25);
                    const RowGrowth growth{copies, moved * gap};
                    const Ref real_gap = Ref(z[n / 2]) - Ref(0.25), others = Ref(copies) * Ref(n - 1);
                    const Ref whole_gap = real_gap + Ref(growth.shift);
                    for (const double value : {0.1, 0.5, 0.9, 0.999}) {
                        const Where where{"two levels", n, value};
                        const Ref units = std::log(others * Ref(value) / (1 - Ref(value)));
                        if (units < Ref(0.01)) continue;
                        const PlannedTemperature plan =
                            planned_temperature<double>(in(z), growth, Aim::weight, value);
                        const Ref beta = units / whole_gap, log_beta = std::abs(std::log(beta));
                        // The weight is computed to 4u of 1, its odds to the sum's units; the gap is changed
                        // by a number of its own rounding.
                        const Ref error =
                            Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta) +
                            (4 * u / (Ref(value) * (1 - Ref(value))) + u * (100 + 4 * units * 4)) / units;
                        weight.meet(std::abs(Ref(plan.inverse_temperature) - beta), error * beta, where);
                        // Softmax itself, on a row with so many keys.
                        if (copies != 1 || moved != 0) continue;
                        std::vector<double> p(n);
                        Softmax(1 / plan.inverse_temperature).apply<double>(in(z), out(p));
                        applied.meet(std::abs(Ref(p[n / 2]) - Ref(value)),
                                     Ref(value) * ((1 - Ref(value)) * units * (error + 4 * u) +
                                                   u * (3 * units + 8 + Ref(n))),
                                     where);
                    }
                    // (1 + R)^2/(1 + R^2/m) = k with R = m e^{-u}.
                    for (const double keys : {1.01, 1.6, 50.0}) {
                        if (keys >= 0.99 * (1 + static_cast<double>(others))) continue;
                        const Where where{"two levels", n, keys};
                        // (m - k) R^2 + 2 m R - m (k - 1) = 0
                        const Ref m = others, k = keys;
                        const Ref r = m * (k - 1) / (m + std::sqrt(m * m + (m - k) * m * (k - 1)));
                        const Ref units = std::log(m / r),
                                  slope = std::abs(2 * r / (1 + r) - 2 * r * r / (m + r * r));
                        if (units < Ref(0.01)) continue;
                        const PlannedTemperature plan =
                            planned_temperature<double>(in(z), growth, Aim::participation, keys);
                        const Ref beta = units / whole_gap, log_beta = std::abs(std::log(beta));
                        const Ref error = Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta) +
                                          u * (200 + 32 * units) * (1 + 2 / slope) / units;
                        participation.meet(std::abs(Ref(plan.inverse_temperature) - beta), error * beta, where);
                    }
                }
    ATTNSCOPE_CHECK_WORST(weight);
    ATTNSCOPE_CHECK_WORST(participation);
    ATTNSCOPE_CHECK_WORST(applied);
}

TEST_CASE("wishes that no temperature fulfils, and special rows", "[planner][temperature]") {
    const auto plan = [](std::vector<double> z, RowGrowth growth, Aim aim, double value) {
        return planned_temperature<double>(in(z), growth, aim, value);
    };
    // Ties with the best key share its weight.
    const std::vector<double> tied = {1, 3, 3, 0, 3};
    PlannedTemperature answer = plan(tied, {}, Aim::weight, 0.5);
    CHECK(answer.inverse_temperature == infinity);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 3) <= 0x1p-53);
    CHECK(plan(tied, {}, Aim::weight, 0.33).reachable);
    CHECK(std::abs(plan(tied, {}, Aim::entropy, 1).best - std::log(3.0)) <= 0x1p-52);
    CHECK(plan(tied, {}, Aim::participation, 2.9).best == 3);
    CHECK(plan(tied, {}, Aim::participation, 3.1).reachable);
    // Two copies each, and ties that only the growth makes: cut off where the second key is level.
    CHECK(std::abs(plan(tied, {2, 0}, Aim::weight, 0.5).best - 1.0 / 5) <= 0x1p-53);
    const std::vector<double> close = {5, 4.5, 4.5, 1};
    const RowGrowth level = row_growth(row_statistics<double>(in(close)), 10, 3);
    CHECK(level.shift == -0.5);
    CHECK(level.copies == 3);
    answer = plan(close, level, Aim::weight, 0.2);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 7) <= 0x1p-53);
    CHECK(plan(close, level, Aim::participation, 6.9).best == 7);
    CHECK(plan(close, level, Aim::participation, 7.1).reachable);
    CHECK(plan(close, {3, -0.49}, Aim::weight, 0.5).reachable);
    // Everybody alike: nothing but the even weights.
    const std::vector<double> even(4, 2);
    answer = plan(even, {}, Aim::weight, 0.25);
    CHECK(answer.inverse_temperature == 0);
    CHECK(answer.reachable);
    CHECK(answer.best == 0.25);
    answer = plan(even, {}, Aim::weight, 0.26);
    CHECK(answer.inverse_temperature == infinity);
    CHECK_FALSE(answer.reachable);
    CHECK(answer.best == 0.25);
    CHECK_FALSE(plan(even, {}, Aim::entropy, 1).reachable);
    // More entropy or more keys than there are; masked keys do not count.
    answer = plan({0, 1, -infinity, 2}, {}, Aim::entropy, 1.1);
    CHECK(answer.inverse_temperature == 0);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - std::log(3.0)) <= 0x1p-52);
    CHECK(plan({0, 1, -infinity, 2}, {5, 0}, Aim::participation, 11.5).best == 11);
    CHECK(plan({0, 1, -infinity, 2}, {5, 0}, Aim::participation, 10.5).reachable);
    answer = plan({0, 1, -infinity, 2}, {}, Aim::weight, 0.3);
    CHECK(answer.inverse_temperature == 0);
    CHECK(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 3) <= 0x1p-53);

    for (const std::vector<double>& z :
         {std::vector<double>{}, std::vector<double>{-infinity, -infinity}, std::vector<double>{0, nan_value},
          std::vector<double>{0, infinity}, std::vector<double>{4}, std::vector<double>{-infinity, 4}})
        for (const Aim aim : {Aim::weight, Aim::entropy, Aim::participation}) {
            answer = plan(z, {}, aim, aim == Aim::participation ? 1.5 : 0.5);
            CHECK(std::isnan(answer.inverse_temperature));
            CHECK(std::isnan(answer.best));
            CHECK_FALSE(answer.reachable);
        }
    for (const double bad : {0.0, 1.0, -0.1, 1.5, infinity, nan_value}) {
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::weight, bad), invalid_argument);
        CHECK_THROWS_AS(plan({}, {}, Aim::weight, bad), invalid_argument);
    }
    for (const double bad : {-5e-324, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::entropy, bad), invalid_argument);
    for (const double bad : {1 - 0x1p-53, 0.0, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::participation, bad), invalid_argument);
    CHECK(name_of(Aim::weight) == "weight");
    CHECK(name_of(Aim::entropy) == "entropy");
    CHECK(name_of(Aim::participation) == "participation ratio");
}

TEST_CASE("a shift that takes nearly all of the gap loses no key", "[planner][temperature]") {
    // Keys that sums at the unshifted gaps would have lost: found by a review of the first version.
    const auto beta = [](const auto& z, const RowGrowth& growth, double weight) {
        using T = std::remove_cvref_t<decltype(z[0])>;
        const auto answer = planned_temperature<T>(in(z), growth, Aim::weight, weight);
        CHECK(answer.reachable);
        return answer.inverse_temperature;
    };
    // One key with a gap of 0.01 (0.1) left: beta = log(weight/(1-weight))/gap.
    const double left = 10.0 - 9.99;
    CHECK(std::abs(beta(std::vector<double>{10, 0}, {1, -9.99}, 0.99) / (std::log(99.0) / left) - 1) < 1e-12);
    CHECK(std::abs(beta(std::vector<float>{2, 0}, {1, -1.9}, 0.999) / (std::log(999.0) / (2 - 1.9)) - 1) <
          1e-12);
    CHECK(std::abs(beta(std::vector<float>{1, 0}, {999, -0.87}, 0.99) / (std::log(999 * 99.0) / (1 - 0.87)) -
                   1) < 1e-12);
    // All keys level, and the best one gains a lead of 1.
    CHECK(std::abs(beta(std::vector<double>{0, 0}, {1, 1}, 0.9) - std::log(9.0)) < 1e-12);
    // Tiny weights, and weights just above equal ones, keep their digits.
    CHECK(std::abs(beta(std::vector<double>{1, 0}, {1, 0}, 0.5 + 1e-11) / 4e-11 - 1) <
          1e-4); // 1 - weight is rounded
    const auto grown = grown_row<double>(in(std::vector<double>{1, 0}), {1e12, 0},
                                         beta(std::vector<double>{1, 0}, {1e12, 0}, 1e-10));
    CHECK(grown.best_weight >= 1e-10 * (1 - 1e-15));
    CHECK(std::abs(grown.best_weight / 1e-10 - 1) < 1e-13);
}
