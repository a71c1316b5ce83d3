// The planner functions: inverse to each other, and true of rows.
#include <attnscope/concentration/capacity.hpp>
#include <attnscope/row/row_statistics.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::highest_temperature;
using attnscope::longest_context;
using attnscope::needed_spread;

namespace {
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::array<double, 7> tau_values = {0.001, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999999};
} // namespace

TEST_CASE("the planner functions are inverse to each other", "[capacity]") {
    const Ref u = unit_roundoff<double>;
    Worst spread_to_length, spread_to_temperature, monotone;
    for (double temperature : temperatures) {
        for (double tau : tau_values) {
            for (Index n : {Index(2), Index(3), Index(17), Index(1000), Index(1) << 40}) {
                const Where where{"capacity", static_cast<std::size_t>(n), temperature};
                const double spread = needed_spread(n, temperature, tau);
                if (tau * static_cast<double>(n) <= 1) {
                    spread_to_length.meet(spread == 0, where);
                    spread_to_temperature.meet(highest_temperature(n, 1.0, tau) == infinity, where);
                    continue;
                }
                // D = T log x, x = (n-1) tau/(1-tau): x is known to 4u/(1-tau), and n - 1 = e^{D/T}(1-tau)/tau
                // repeats that and adds u D/T for the exponent.
                const Ref log_x = std::log(Ref(n - 1) * Ref(tau) / (1 - Ref(tau)));
                const Ref error = u * (8 + 3 * log_x);
                spread_to_length.meet(std::abs(Ref(spread) / Ref(temperature) - log_x), error, where);
                spread_to_length.meet(std::abs(Ref(longest_context(spread, temperature, tau)) - Ref(n)),
                                      Ref(n) * (2 * error + 4 * u), where);
                spread_to_temperature.meet(
                    std::abs(Ref(highest_temperature(n, spread, tau)) - Ref(temperature)),
                    Ref(temperature) * (2 * error / log_x + 4 * u), where);
                monotone.meet(longest_context(spread * 1.01, temperature, tau) > static_cast<double>(n), where);
                monotone.meet(longest_context(spread, temperature * 1.01, tau) < static_cast<double>(n), where);
                monotone.meet(needed_spread(n + n / 10 + 1, temperature, tau) > spread, where);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(spread_to_length);
    ATTNSCOPE_CHECK_WORST(spread_to_temperature);
    ATTNSCOPE_CHECK_WORST(monotone);
}

TEST_CASE("a gap of the needed size guarantees the weight, and no smaller gap does", "[capacity]") {
    const std::uint64_t seed = test_seed();
    Worst attained, guaranteed, less, length, temperature_worst;
    for (double temperature : temperatures) {
        for (double tau : tau_values) {
            for (std::size_t n : lengths) {
                const double gap = needed_spread(static_cast<Index>(n), temperature, tau);
                if (gap == 0) continue;
                const Where where{"gap", n, temperature, seed};
                SplitMix64 random = generator(seed, n);
                const auto weight = [&](double fall, bool deeper, double at) {
                    std::vector<double> z(n, -fall);
                    if (deeper)
                        for (double& x : z) x -= 3 * random.uniform();
                    z[n / 2] = 0;
                    return Ref(attnscope::row_statistics(in(z), at).max_weight());
                };
                // p1 = 1/(1 + (n-1) e^{-D/T}) moves by p1 (1-p1) for each unit of D/T, which is known to
                // 3u (D/T + 1), and is itself computed to u (n-sum + 8).
                const Ref error =
                    Ref(tau) * ((1 - Ref(tau)) * unit_roundoff<double> * 6 * (Ref(gap) / Ref(temperature) + 2) +
                                sum_error<double>(n) + 32 * unit_roundoff<double>);
                attained.meet(std::abs(weight(gap, false, temperature) - Ref(tau)), error, where);
                guaranteed.meet(Ref(tau) - weight(gap, true, temperature), error, where);
                less.meet(weight(gap * 0.99, false, temperature) < Ref(tau), where);
                // The same gap with one key more than the longest context, or above the highest temperature.
                const double longest = longest_context(gap, temperature, tau);
                length.meet(std::abs(Ref(longest) - Ref(n)) < Ref(1e-6) * Ref(n), where);
                temperature_worst.meet(weight(gap, false, temperature * 1.01) < Ref(tau), where);
                temperature_worst.meet(weight(gap, false, temperature * 0.99) > Ref(tau), where);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(attained);
    ATTNSCOPE_CHECK_WORST(guaranteed);
    ATTNSCOPE_CHECK_WORST(less);
    ATTNSCOPE_CHECK_WORST(length);
    ATTNSCOPE_CHECK_WORST(temperature_worst);
}

TEST_CASE("without the needed spread no row reaches the weight", "[capacity]") {
    const std::uint64_t seed = test_seed();
    Worst necessary, context;
    std::size_t reached = 0;
    for_each_row<double>(seed, lengths, 4, [&](Where where, const std::vector<double>& z) {
        for (double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = attnscope::row_statistics(in(z), temperature);
            if (!row.normal()) continue;
            for (double tau : tau_values) {
                const Ref units = Ref(row.logit_spread()) / Ref(temperature) * 3 + 32;
                const Ref error = unit_roundoff<double> * units + sum_error<double>(z.size());
                if (Ref(row.max_weight()) < Ref(tau) * (1 + error)) continue;
                ++reached;
                const Ref needed = needed_spread(row.visible, temperature, tau);
                // One unit of D/T moves p1 by p1 (1-p1): near tau the spread is known to error/(1-tau).
                necessary.meet(
                    needed - Ref(row.logit_spread()),
                    Ref(temperature) * 2 * error / (1 - Ref(tau)) + unit_roundoff<double> * 8 * needed, where);
                const Ref longest = longest_context(row.logit_spread(), temperature, tau);
                context.meet(Ref(row.visible) - longest, Ref(row.visible) * 2 * error / (1 - Ref(tau)), where);
            }
        }
    });
    CHECK(reached > 1000);
    ATTNSCOPE_CHECK_WORST(necessary);
    ATTNSCOPE_CHECK_WORST(context);
}

TEMPLATE_TEST_CASE("planner edge cases", "[capacity]", float, double) {
    using T = TestType;
    const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    CHECK(longest_context(T(3), T(1), T(1)) == T(1));
    CHECK(longest_context(T(0), T(1), T(0.25)) == T(4));
    CHECK(longest_context(T(1e30), T(1e-5), T(0.5)) == inf);
    CHECK(longest_context(inf, T(1), T(0.5)) == inf);
    CHECK(highest_temperature(Index(1), T(0), T(1)) == inf);
    CHECK(highest_temperature(Index(4), T(0), T(0.25)) == inf);
    CHECK(highest_temperature(Index(4), T(5), T(0.125)) == inf);
    CHECK(highest_temperature(Index(4), T(0), T(0.5)) == T(0));
    CHECK(highest_temperature(Index(2), T(5), T(1)) == T(0));
    CHECK(needed_spread(Index(1), T(1), T(1)) == T(0));
    CHECK(needed_spread(Index(4), T(1), T(0.25)) == T(0));
    CHECK(needed_spread(Index(2), T(1), T(1)) == inf);
    for (T bad : {T(0), T(-0.5), T(1.5), nan, inf}) {
        CHECK_THROWS_AS(longest_context(T(1), T(1), bad), attnscope::invalid_argument);
        CHECK_THROWS_AS(highest_temperature(Index(4), T(1), bad), attnscope::invalid_argument);
        CHECK_THROWS_AS(needed_spread(Index(4), T(1), bad), attnscope::invalid_argument);
    }
    for (T bad : {T(-1), nan}) {
        CHECK_THROWS_AS(longest_context(bad, T(1), T(0.5)), attnscope::invalid_argument);
        CHECK_THROWS_AS(longest_context(T(1), bad, T(0.5)), attnscope::invalid_argument);
        CHECK_THROWS_AS(highest_temperature(Index(4), bad, T(0.5)), attnscope::invalid_argument);
        CHECK_THROWS_AS(needed_spread(Index(4), bad, T(0.5)), attnscope::invalid_argument);
    }
    CHECK_THROWS_AS(longest_context(T(1), T(0), T(0.5)), attnscope::invalid_argument);
    CHECK_THROWS_AS(needed_spread(Index(4), T(0), T(0.5)), attnscope::invalid_argument);
    CHECK_THROWS_AS(highest_temperature(Index(0), T(1), T(0.5)), attnscope::invalid_argument);
    CHECK_THROWS_AS(needed_spread(Index(0), T(1), T(0.5)), attnscope::invalid_argument);
}
