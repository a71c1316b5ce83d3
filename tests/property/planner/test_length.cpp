// Lengths that a row bears, held against rows that are really built.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

namespace {

/// Weight of the best key when the row of others with gaps/T `u_i` has become `length` keys long, by the model.
template <class T>
Ref weight_at(const std::vector<T>& z, Ref temperature, Ref length, Ref exponent) {
    const auto top = static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    Ref keys = 1, gap = infinity;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top && z[i] > -std::numeric_limits<T>::infinity())
            keys += 1, gap = std::min(gap, Ref(z[top]) - Ref(z[i]));
    const Ref shift = std::max(-exponent * std::log(length / keys), -gap);
    Ref sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top) sum += std::exp(-(Ref(z[top]) - Ref(z[i]) + shift) / temperature);
    return 1 / (1 + (length - 1) / (keys - 1) * sum);
}

constexpr std::array<double, 6> aims_for_length = {0.001, 0.1, 0.3, 0.5, 0.9, 0.99};

} // namespace

TEMPLATE_TEST_CASE("expected lengths solve their equation, between what is guaranteed and what is possible",
                   "[planner][length]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 257};
    Worst ordered, solved, grown, beyond, before, own_length, ends, formula;
    std::size_t finite = 0, gave = 0, gave_not = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<T>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const Ref n = static_cast<Ref>(row.visible), over = 1 / Ref(temperature);
            const Ref gap = Ref(row.logit_gap()), spread = Ref(row.logit_spread());
            const Ref sums = Ref(row.sum_error()) + (row.r > 0 ? Ref(row.underflow()) / Ref(row.r) : Ref(0));
            const Ref now = weight_at(z, Ref(temperature), n, 0);
            for (const double tau : aims_for_length) {
                const Ref odds = (1 - Ref(tau)) / Ref(tau), logs = u * (spread * over * 3 + 8);
                const LengthLimits still = length_limits(row, tau);
                const Ref least = 1 + std::exp(gap * over) * odds, most = 1 + std::exp(spread * over) * odds;
                formula.meet(still.guaranteed < infinity ? std::abs(Ref(still.guaranteed) - least) : Ref(0),
                             logs * least, where);
                formula.meet(still.possible < infinity ? std::abs(Ref(still.possible) - most) : Ref(0),
                             logs * most, where);
                if (now >= Ref(tau) * (1 + sums + logs))
                    formula.meet(n - Ref(still.possible), logs * most, where); // else no row had the weight
                if (row.r == 0) {
                    // The nearest key stands for all: no more than what is guaranteed, which it is.
                    ends.meet(still.expected >= still.guaranteed && still.expected <= still.possible &&
                                  still.guaranteed > Ref(1e30),
                              where);
                    continue;
                }
                if (most < std::exp(Ref(699))) { // what a search up to e^700 can tell
                    const Ref error = (sums + logs + 16 * u * (1 + std::log(most))) * 2;
                    ordered.meet(Ref(still.guaranteed) - Ref(still.expected), error * Ref(still.expected),
                                 where);
                    ordered.meet(Ref(still.expected) - Ref(still.possible), error * most, where);
                }
                for (const double relative : {-0.9, -0.5, 0.0, 0.25, 2.0}) {
                    const double exponent = relative * temperature;
                    const LengthLimits limits = length_limits(row, tau, exponent);
                    formula.meet(limits.guaranteed == still.guaranteed && limits.possible == still.possible,
                                 where);
                    const Ref length = limits.expected;
                    (now >= Ref(tau) ? gave : gave_not) += 1;
                    if (now < Ref(tau) * (1 - sums - logs)) own_length.meet(length < n, where);
                    if (now > Ref(tau) * (1 + sums + logs))
                        own_length.meet(n - length, n * 64 * u * (1 + std::log(n)) / (1 - 0.9L), where);
                    const auto at = [&](Ref keys) {
                        return weight_at(z, Ref(temperature), keys, Ref(exponent));
                    };
                    if (limits.expected == infinity) {
                        ends.meet(at(std::exp(Ref(699))) > Ref(tau), where);
                        continue;
                    }
                    if (limits.expected == 1) {
                        ends.meet(at(1 + Ref(2e-9)) < Ref(tau), where);
                        continue;
                    }
                    ++finite;
                    // log R moves by at most (L/(L-1) + |c|/T) for each relative unit of the length, which is
                    // the exponential of a double of size log L; its own terms are rounded at their sizes.
                    const Ref log_length = std::log(length), log_ratio = std::abs(log_length - std::log(n));
                    const Ref steep = length / (length - 1) + std::abs(Ref(exponent)) * over;
                    const Ref odds_error =
                        steep * u * (4 + 2 * log_length) + sums +
                        4 * u *
                            (8 + std::abs(std::log(length - 1)) + std::log(n) + std::abs(std::log(odds)) +
                             2 * std::abs(Ref(exponent)) * over * (log_ratio + 2) +
                             std::abs(std::log(Ref(row.r))) + gap * over);
                    const Ref weight_error = Ref(tau) * (1 - Ref(tau)) * odds_error + 4 * u * Ref(tau);
                    solved.meet(std::abs(at(length) - Ref(tau)), weight_error, where);
                    // One percent of the length moves R by a tenth of that at least.
                    if (odds_error < Ref(5e-4)) {
                        beyond.meet(at(length * Ref(1.01)) < Ref(tau), where);
                        before.meet(at(1 + (length - 1) * Ref(0.99)) > Ref(tau), where);
                    }
                    if (length < 2) continue;
                    const RowGrowth growth = row_growth(row, limits.expected, exponent);
                    auto as_given = row; // both start from the same sums
                    as_given.unit_roundoff = std::numeric_limits<double>::epsilon() / 2;
                    const GrownError of_grown = grown_error(as_given, growth);
                    if (!of_grown.lost)
                        grown.meet(std::abs(Ref(grown_row(row, growth).best_weight) - Ref(tau)),
                                   // Without growth the length is held between the outer two, which the sums do
                                   // not enter.
                                   Ref(tau) * ((1 - Ref(tau)) * (odds_error - (exponent == 0 ? Ref(0) : sums)) +
                                               4 * u) +
                                       of_grown.weight,
                                   where);
                }
            }
        }
    });
    CHECK(finite > 5000);
    CHECK(gave > 1000);
    CHECK(gave_not > 1000);
    ATTNSCOPE_CHECK_WORST(ordered);
    ATTNSCOPE_CHECK_WORST(solved);
    ATTNSCOPE_CHECK_WORST(grown);
    ATTNSCOPE_CHECK_WORST(beyond);
    ATTNSCOPE_CHECK_WORST(before);
    ATTNSCOPE_CHECK_WORST(own_length);
    ATTNSCOPE_CHECK_WORST(ends);
    ATTNSCOPE_CHECK_WORST(formula);
}

TEST_CASE("a lead that grows as fast as the number of keys never ends", "[planner][length]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 5> few = {3, 8, 17, 64, 257};
    Worst for_ever, stays, not_now;
    for_each_row<double>(seed, few, 2, [&](Where where, const std::vector<double>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<double>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const Ref n = static_cast<Ref>(row.visible), now = weight_at(z, Ref(temperature), n, 0);
            const Ref error = Ref(row.sum_error()) + u * (Ref(row.logit_spread()) / Ref(temperature) * 3 + 8);
            for (const double relative : {-1.0, -1.1, -3.0})
                for (const double tau : aims_for_length) {
                    const double exponent = relative * temperature;
                    const Ref length = length_limits(row, tau, exponent).expected;
                    // With room for (L-1)/L to rise from (n-1)/n to 1, every longer row has the weight.
                    const Ref odds = (1 - Ref(tau)) / Ref(tau);
                    if ((1 / now - 1) * n / (n - 1) < odds * (1 - error)) {
                        for_ever.meet(length == infinity, where);
                        for (const Ref times : {Ref(1), Ref(1.5), Ref(2), Ref(10), Ref(1e6), Ref(1e30)})
                            stays.meet(weight_at(z, Ref(temperature), n * times, Ref(exponent)) >=
                                           Ref(tau) * (1 - error),
                                       where);
                    }
                    if (now < Ref(tau) * (1 - error)) not_now.meet(length < n, where);
                }
        }
    });
    ATTNSCOPE_CHECK_WORST(for_ever);
    ATTNSCOPE_CHECK_WORST(stays);
    ATTNSCOPE_CHECK_WORST(not_now);
}

TEST_CASE("the guaranteed and the possible length are attained, and one key more is too many",
          "[planner][length]") {
    Worst reached, deeper, lost, same;
    std::size_t rows = 0;
    for (const double temperature : {0.5, 1.0, 2.0})
        for (const double tau : {0.01, 0.1, 0.3, 0.5, 0.9, 0.99})
            for (const double lead : {0.0, 0.3, 1.0, 3.0, 7.0}) {
                const double gap = lead * temperature;
                const Where where{"equal others", 3, temperature};
                const std::vector<double> z = {-gap - 1, 0, -gap};
                const double guaranteed =
                    length_limits(row_statistics<double>(in(z), temperature), tau).guaranteed;
                const std::vector<double> wide = {0, -gap / 3, -gap};
                const double possible =
                    length_limits(row_statistics<double>(in(wide), temperature), tau).possible;
                same.meet(guaranteed == possible, where); // one formula for gap and spread
                // Rows of equal others, and the row that is one key longer than allowed.
                const auto weight = [&](double keys, double below) {
                    RefRow row(static_cast<std::size_t>(keys), -Ref(gap) - Ref(below));
                    row[0] = 0;
                    return figures_of(row, 1 / Ref(temperature)).weight;
                };
                const double longest = std::floor(guaranteed);
                const Ref error = Ref(tau) * u * (8 * Ref(lead) + 16);
                if (longest >= 2) {
                    reached.meet(Ref(tau) - weight(longest, 0), error, where);
                    deeper.meet(weight(longest, 0.01) > Ref(tau), where);
                }
                if (guaranteed > 1 + 1e-6 && guaranteed - longest < 1 - 1e-6)
                    lost.meet(weight(longest + 1, 0) < Ref(tau), where);
                // Equal others make the weight exactly: 1/(1 + (n-1) e^{-gap/T}) with n = guaranteed.
                reached.meet(std::abs(1 / (1 + (Ref(guaranteed) - 1) * std::exp(-Ref(gap) / Ref(temperature))) -
                                      Ref(tau)),
                             error, where);
                ++rows;
            }
    CHECK(rows == 90);
    ATTNSCOPE_CHECK_WORST(reached);
    ATTNSCOPE_CHECK_WORST(deeper);
    ATTNSCOPE_CHECK_WORST(lost);
    ATTNSCOPE_CHECK_WORST(same);
}

TEST_CASE("lengths of special rows", "[planner][length]") {
    const auto limits = [](std::vector<double> z, double tau, double exponent = 0, double temperature = 1) {
        return length_limits(row_statistics<double>(in(z), temperature), tau, exponent);
    };
    const auto equal = [](const LengthLimits& l, double a, double b, double c) {
        return l.guaranteed == a && l.expected == b && l.possible == c;
    };
    for (const double exponent : {0.0, 0.5, -2.0}) {
        CHECK(equal(limits({3}, 0.5, exponent), infinity, infinity, infinity));
        CHECK(equal(limits({-infinity, 3, -infinity}, 0.999, exponent), infinity, infinity, infinity));
        CHECK(equal(limits({3}, 1, exponent), 1, 1, 1));
        CHECK(equal(limits({3, 2, 1}, 1, exponent), 1, 1, 1));
        CHECK(equal(limits({0, -5000}, 1, exponent), 1, 1, 1));
    }
    // All others infinitely far, to rounding.
    CHECK(equal(limits({0, -5000, -6000}, 0.5), infinity, infinity, infinity));
    CHECK(equal(limits({0, -50}, 0.5, 0, 1e-3), infinity, infinity, infinity));
    CHECK(equal(limits({0, -5000, -6000}, 0.5, -0.5), infinity, infinity, infinity));
    // Ties of the best key, alone and among others: 1/tau keys can have tau each, whoever stands behind.
    for (const double tau : {0.01, 0.25, 0.5, 0.75}) {
        CAPTURE(tau);
        const LengthLimits all = limits({2, 2, 2, 2}, tau);
        CHECK(std::abs(all.guaranteed - 1 / tau) <= 8 * 0x1p-53 / tau);
        CHECK(std::abs(all.expected - 1 / tau) <= 64 * 0x1p-53 / tau * (1 + std::abs(std::log(tau))));
        CHECK(std::abs(all.possible - 1 / tau) <= 8 * 0x1p-53 / tau);
        const LengthLimits some = limits({2, 2, 0, -1}, tau);
        CHECK(std::abs(some.guaranteed - 1 / tau) <= 8 * 0x1p-53 / tau);
        CHECK(some.expected > all.expected);
        CHECK(some.possible > some.expected);
    }
    for (const std::vector<double>& z : {std::vector<double>{}, std::vector<double>{-infinity},
                                         std::vector<double>{0, nan_value}, std::vector<double>{0, infinity}}) {
        const LengthLimits none = limits(z, 0.5);
        CHECK(std::isnan(none.guaranteed));
        CHECK(std::isnan(none.expected));
        CHECK(std::isnan(none.possible));
    }
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, infinity, nan_value}) {
        CHECK_THROWS_AS(limits({1, 0}, bad), invalid_argument);
        CHECK_THROWS_AS(limits({3}, bad), invalid_argument);
    }
    CHECK(message_of([&] { limits({1, 0}, 2); }) == "length_limits: tau must be in (0,1], got 2");
}

TEST_CASE("expected lengths where the lead grows as fast as the keys, or faster", "[planner][length]") {
    const auto row = [](const std::vector<double>& z) { return row_statistics<double>(in(z)); };
    // Two level keys at exponent -1: the sum is (L-1)/L * 2, which passes 1 at L = 2, the row's own length.
    CHECK(std::abs(length_limits(row({0, 0}), 0.5, -1).expected - 2) < 1e-12);
    // At -1.1 it still rises at first: 1 at L = 2, more at 4.
    CHECK(std::abs(length_limits(row({0, 0}), 0.5, -1.1).expected - 2) < 1e-12);
    // At -2 the weight of 0.6 was there last near L = 1.27: 4 (L-1)/L^2 = 2/3.
    const double last = length_limits(row({0, 0}), 0.6, -2).expected;
    CHECK(last < 2);
    CHECK(last >= 1);
    // A lead of 3 that grows faster than the keys is kept for ever.
    CHECK(length_limits(row({3, 0, 0}), 0.5, -2).expected == infinity);
    // Keys too far away to be summed: the growth still counts.
    const double far = length_limits(row({0, -800}), 0.5, 10).expected;
    CHECK((far > 1e31 && far < 1e33));
    // The outer two hold the expected length to the ends of the scale.
    for (const auto& z :
         {std::vector<double>{0, -705}, std::vector<double>{0, -709}, std::vector<double>{0, 0}})
        for (const double tau : {0.5, 1 - 1e-10}) {
            const auto limits = length_limits(row(z), tau);
            CHECK((limits.guaranteed <= limits.expected && limits.expected <= limits.possible));
        }
}
