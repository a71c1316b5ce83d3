// Row statistics and entropy to the promised accuracy, and the entropy floors.
#include <attnscope/concentration/entropy.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::Bound;
using attnscope::Softmax;
using attnscope::Verdict;

namespace {

/// What `row_statistics` promises for the relative error of entropy, 1 - p1 and power sums.
template <class T>
constexpr Ref promised_accuracy = std::is_same_v<T, float> ? Ref(1e-6) : Ref(1e-13);

template <class T>
void check_statistics(const std::vector<T>& z, double temperature, Ref least_entropy, const Where& where,
                      Worst& figures, Worst& logits) {
    const ReferenceRow exact = reference_of(Softmax(temperature)).row(widen(z));
    const auto row = attnscope::row_statistics(in(z), temperature);
    if (exact.visible == 0 || (exact.visible > 1 && exact.entropy < least_entropy)) return;
    const auto relative = [&](std::string_view figure, Ref value, Ref reference, Ref times = 1) {
        Where here = where;
        here.normalizer = figure;
        figures.meet(std::abs(value - reference), times * promised_accuracy<T> * std::abs(reference), here);
    };
    const Ref rest = exact.complement[exact.top];
    relative("entropy_nats", row.entropy_nats(), exact.entropy);
    relative("rest", row.rest(), rest);
    relative("max_weight", row.max_weight(), exact.weights[exact.top]);
    relative("power_sum_2", row.power_sum_2(), exact.power_sum(2));
    relative("one_minus_power_sum_2", row.one_minus_power_sum_2(), exact.one_minus_s2);
    relative("power_sum_3", row.power_sum_3(), exact.power_sum(3), Ref(1.5)); // of degree 3 instead of 2
    relative("participation_ratio", row.participation_ratio(), 1 / exact.power_sum(2));
    figures.meet(row.visible == static_cast<Index>(exact.visible) && row.normal(), where);

    // Moments of the logits: sum p (z_max - z)^k is known to the promised accuracy, and subtracted.
    RefRow wide = widen(z);
    Ref highest = masked_ref, lowest = -masked_ref, first = 0, second = 0;
    for (Ref x : wide) {
        if (x == masked_ref) continue;
        highest = std::max(highest, x);
        lowest = std::min(lowest, x);
    }
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (wide[i] == masked_ref) continue;
        first += exact.weights[i] * (highest - wide[i]);
        second += exact.weights[i] * (highest - wide[i]) * (highest - wide[i]);
    }
    // Keys, and squares of gaps, that underflow are missing.
    const Ref extent = highest - lowest, lost = Ref(row.visible) * Ref(std::numeric_limits<T>::min());
    const Ref accuracy = promised_accuracy<T>, u = unit_roundoff<SumScalar<T>>;
    logits.meet(std::abs(Ref(row.mean_logit()) - (highest - first)),
                accuracy * first + 2 * u * std::abs(highest) + lost * extent, where);
    logits.meet(std::abs(Ref(row.logit_variance()) - (second - first * first)),
                2 * accuracy * (second + first * first) +
                    lost * (extent * extent + Ref(temperature * temperature)),
                where);
    logits.meet(std::abs(Ref(row.log_sum_exp()) - exact.log_sum_exp),
                accuracy * rest +
                    u * (4 * std::abs(highest / Ref(temperature)) + 2 * std::abs(exact.log_sum_exp)),
                where);
    logits.meet(std::abs(Ref(row.logit_spread()) - (highest - lowest)), 2 * u * (highest - lowest), where);
    logits.meet(Ref(row.max_logit) == highest && Ref(row.min_logit) == lowest, where);
    logits.meet(row.argmax == std::max_element(wide.begin(), wide.end()) - wide.begin(), where);
}

template <class A>
void check_attained(const Bound<A>& bound, const Where& where, Worst& attained, Worst& mutants) {
    attained.meet(std::abs(Ref(bound.value) - Ref(bound.measured)), Ref(bound.tolerance), where);
    attained.meet(bound.verdict() == Verdict::holds || bound.verdict() == Verdict::within_rounding, where);
    mutants.meet(bound.tightened(A(0.99)).verdict() == Verdict::violated, where);
}

template <class A>
bool satisfied(const Bound<A>& bound) {
    return bound.verdict() != Verdict::violated && bound.verdict() != Verdict::undefined;
}

Ref floor_by_range(std::size_t n, Ref spread) {
    Ref least = std::log(Ref(n));
    for (std::size_t k = 1; k < n; ++k) {
        const Ref low = Ref(n - k) * std::exp(-spread), sum = Ref(k) + low;
        least = std::min(least, std::log(Ref(k)) + std::log1p(low / Ref(k)) + low * spread / sum);
    }
    return least;
}

} // namespace

TEMPLATE_TEST_CASE("row statistics are accurate on all families", "[entropy][accuracy]", float, double) {
    Worst figures, logits;
    for_each_row<TestType>(test_seed(), lengths, 2, [&](Where where, const std::vector<TestType>& z) {
        for (double temperature : {0.05, 0.3, 1.0, 2.0, 50.0}) {
            where.temperature = temperature;
            check_statistics(z, temperature, Ref(1e-8), where, figures, logits);
        }
    });
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(logits);
}

TEMPLATE_TEST_CASE("entropy keeps its digits down to 1e-8 nats and beyond", "[entropy][accuracy]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst figures, logits;
    Ref least = 1;
    for (double temperature : {0.05, 0.3, 1.0, 7.0}) {
        for (double offset : {0.0, 3.0, -1000.0}) {
            for (std::size_t n :
                 {std::size_t(2), std::size_t(3), std::size_t(17), std::size_t(257), std::size_t(4096)}) {
                for (int gap = 0; gap < 60; ++gap) {
                    for (double noise : {0.0, 1.0}) {
                        SplitMix64 random = generator(seed, n, gap);
                        std::vector<double> z(n);
                        for (double& x : z) x = offset + temperature * noise * random.normal();
                        z[n / 2] = offset + temperature * (gap + random.uniform());
                        const std::vector<T> row = narrow<T>(z);
                        const Where where{"falling entropy", n, temperature, seed, scalar_name<T>()};
                        const Ref entropy = reference_of(Softmax(temperature)).row(widen(row)).entropy;
                        if (entropy > 0) least = std::min(least, entropy);
                        check_statistics(row, temperature, Ref(1e-20), where, figures, logits);
                    }
                }
            }
        }
    }
    CHECK(least < Ref(1e-8));
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(logits);
}

TEMPLATE_TEST_CASE("a row of a million keys is summed without loss", "[entropy][accuracy]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst figures, logits;
    const std::size_t n = std::size_t(1) << 20;
    for (double spread : {0.01, 3.0}) {
        SplitMix64 random = generator(seed, n);
        std::vector<double> z(n);
        families::fill_normal(random, z, spread);
        check_statistics(narrow<T>(z), 1.0, 0, Where{"million", n, 1, seed, scalar_name<T>()}, figures, logits);
    }
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(logits);
}

TEMPLATE_TEST_CASE("statistics of special rows", "[entropy]", float, double, long double) {
    using T = TestType;
    const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    const auto statistics = [](const std::vector<T>& z) { return attnscope::row_statistics(in(z), 1.0); };
    for (const std::vector<T>& z : {std::vector<T>{}, std::vector<T>(9, -infinity)}) {
        const auto row = statistics(z);
        CHECK(row.status == attnscope::RowStatus::empty);
        CHECK(row.visible == 0);
        CHECK(row.log_sum_exp() == -infinity);
        CHECK(std::isnan(row.entropy_nats()));
        CHECK(std::isnan(row.max_weight()));
    }
    for (std::size_t i = 0; i < 17; ++i) {
        std::vector<T> z(17, T(0.5));
        z[i] = nan;
        CHECK(statistics(z).status == attnscope::RowStatus::nan);
        CHECK(std::isnan(statistics(z).entropy_nats()));
        CHECK(std::isnan(statistics(z).log_sum_exp()));
        z[(i + 5) % 17] = infinity;
        CHECK(statistics(z).status == attnscope::RowStatus::nan);
        z[i] = 1;
        CHECK(statistics(z).status == attnscope::RowStatus::infinite);
        CHECK(statistics(z).max_logit == infinity);
        CHECK(std::isnan(statistics(z).entropy_nats()));
    }
    const auto one = statistics({-infinity, T(3), -infinity});
    CHECK(one.visible == 1);
    CHECK(one.argmax == 1);
    CHECK(one.entropy_nats() == 0);
    CHECK(one.max_weight() == 1);
    CHECK(one.second_weight() == 0);
    CHECK(one.rest() == 0);
    CHECK(one.log_sum_exp() == 3);
    CHECK(std::isnan(one.logit_gap()));
}

TEST_CASE("entropy changes with logits and inverse temperature as the calculus says", "[entropy][derivative]") {
    const std::uint64_t seed = test_seed();
    Worst gradient, by_beta, mean_by_beta;
    for_each_row<long double>(seed, short_lengths, 1, [&](Where where, RefRow z) {
        // Without the offset, which would swallow small steps.
        const Ref top = *std::max_element(z.begin(), z.end());
        for (Ref& x : z) x = x == masked_ref ? x : x - top;
        for (double temperature : {0.5, 1.0, 3.0}) {
            where.temperature = temperature;
            const ReferenceRow row = reference_of(Softmax(temperature)).row(z);
            if (row.visible == 0) return;
            const auto entropy = [&](const RefRow& at, double t) {
                return Ref(attnscope::row_statistics(in(at), t).entropy_nats());
            };
            const Ref u = unit_roundoff<Ref>, size = std::log(Ref(row.visible)) + 1;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (z[i] == masked_ref) continue;
                const auto difference = [&](Ref h) {
                    RefRow up = z, down = z;
                    up[i] += h;
                    down[i] -= h;
                    return (entropy(up, temperature) - entropy(down, temperature)) / (up[i] - down[i]);
                };
                const Ref h = Ref(1e-5), once = difference(h), twice = difference(2 * h);
                const Ref formula = -row.weights[i] * (row.log_weight[i] + row.entropy) / Ref(temperature);
                gradient.meet(std::abs(once - formula),
                              std::abs(once - twice) + size * (sum_error<Ref>(z.size()) + 40 * u) * 2 / h +
                                  Ref(1e-14) * std::abs(formula),
                              where);
            }
            // dH/dbeta = -beta Var z, dE z/dbeta = -... by steps in beta; the step is what the temperatures
            // really differ by.
            const auto around = [&](double share) {
                const double hot = temperature * (1 + share), cold = temperature * (1 - share);
                const Ref step = 1 / Ref(cold) - 1 / Ref(hot);
                return std::array<Ref, 2>{(entropy(z, cold) - entropy(z, hot)) / step,
                                          Ref(attnscope::row_statistics(in(z), cold).mean_logit() -
                                              attnscope::row_statistics(in(z), hot).mean_logit()) /
                                              step};
            };
            const auto statistics = attnscope::row_statistics(in(z), temperature);
            const auto once = around(1e-6), twice = around(2e-6);
            const Ref step = Ref(2e-6) / Ref(temperature),
                      rounding = (sum_error<Ref>(z.size()) + 40 * u) / step;
            const Ref variance = statistics.logit_variance(), beta = 1 / Ref(temperature);
            const Ref extent = std::abs(Ref(statistics.max_logit)) + statistics.logit_spread();
            // The two temperatures lie symmetric in T, not in 1/T: the middle is off by a relative 1e-12.
            by_beta.meet(std::abs(once[0] + beta * variance),
                         std::abs(once[0] - twice[0]) + rounding * 2 * size +
                             Ref(1e-11) * beta * variance * (1 + beta * statistics.logit_spread()),
                         where);
            mean_by_beta.meet(std::abs(once[1] - variance),
                              std::abs(once[1] - twice[1]) + rounding * 2 * extent +
                                  Ref(1e-11) * variance * (1 + beta * statistics.logit_spread()),
                              where);
        }
    });
    ATTNSCOPE_CHECK_WORST(gradient);
    ATTNSCOPE_CHECK_WORST(by_beta);
    ATTNSCOPE_CHECK_WORST(mean_by_beta);
}

TEMPLATE_TEST_CASE("entropy of given weights and the centred norm follow their definitions", "[entropy]", float,
                   double) {
    using T = TestType;
    Worst entropy, norm;
    for_each_row<T>(test_seed(), lengths, 2, [&](const Where& where, const std::vector<T>& z) {
        const ReferenceRow row = reference_of(Softmax{}).row(widen(z));
        if (row.visible == 0) return;
        attnscope::Row<T> p(static_cast<Index>(z.size()));
        Ref exact = 0, size = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            const T weight = static_cast<T>(row.weights[i]);
            p[static_cast<Index>(i)] = weight;
            if (weight <= 0) continue;
            exact -= Ref(weight) * std::log(Ref(weight));
            size += Ref(weight) * (1 + std::abs(std::log(Ref(weight))));
        }
        entropy.meet(std::abs(Ref(attnscope::entropy_of_weights(p)) - exact),
                     size * (plain_sum_error<SumScalar<T>>(z.size()) + 6 * unit_roundoff<T>), where);
        Ref mean = 0, squares = 0, largest = 0;
        for (T x : z)
            if (std::isfinite(x))
                mean += Ref(x) / Ref(row.visible), largest = std::max(largest, std::abs(Ref(x)));
        for (T x : z)
            if (std::isfinite(x)) squares += (x - mean) * (x - mean);
        const Ref u = unit_roundoff<SumScalar<T>>;
        // The mean is known to (sum error + u) max|z|; that shifts every difference alike.
        const Ref mean_error = (plain_sum_error<SumScalar<T>>(z.size()) + 2 * u) * largest;
        norm.meet(std::abs(Ref(attnscope::centred_norm(in(z), 2.0)) - std::sqrt(squares) / 2),
                  std::sqrt(squares) * (plain_sum_error<SumScalar<T>>(z.size()) + 6 * u) +
                      std::sqrt(Ref(row.visible)) * (mean_error + 2 * u * largest),
                  where);
    });
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(norm);
    CHECK(std::isnan(attnscope::entropy_of_weights(attnscope::Row<T>::Constant(3, T(-0.1)))));
}

TEMPLATE_TEST_CASE("entropy floors hold on all families", "[entropy][floors]", float, double) {
    using T = TestType;
    Worst norm, range, weight;
    for_each_row<T>(test_seed(), lengths, 3, [&](Where where, const std::vector<T>& z) {
        for (double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = attnscope::row_statistics(in(z), temperature);
            if (!row.normal()) continue;
            norm.meet(satisfied(attnscope::entropy_floor_norm_bound(
                          row, attnscope::centred_norm(in(z), temperature))),
                      where);
            if (z.size() < 1000 || temperature == 1)
                range.meet(satisfied(attnscope::entropy_floor_range_bound(row)), where);
            for (const auto& bound : attnscope::entropy_max_weight_bounds(row))
                weight.meet(satisfied(bound), where);
        }
    });
    ATTNSCOPE_CHECK_WORST(norm);
    ATTNSCOPE_CHECK_WORST(range);
    ATTNSCOPE_CHECK_WORST(weight);
}

TEMPLATE_TEST_CASE("entropy floors are attained", "[entropy][floors]", float, double) {
    using T = TestType;
    Worst norm, norm_mutants, range, range_mutants, weight, weight_mutants;
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double temperature : temperatures) {
            for (double reduced : {0.25, 1.0, 4.0, 12.0}) {
                const Where where{"attaining", n, temperature, 0, scalar_name<T>()};
                const T height = static_cast<T>(reduced * temperature);
                const auto needle = row_of<T>(problems::needle_row(Index(n), double(height), Index(n / 2)));
                auto row = attnscope::row_statistics(in(needle), temperature);
                std::vector<T> lifted = needle;
                for (T& x : lifted) x += T(1e4);
                const auto lifted_row = attnscope::row_statistics(in(lifted), temperature);
                if (lifted_row.logit_spread() > 0)
                    check_attained(attnscope::entropy_floor_norm_bound(
                                       lifted_row, attnscope::centred_norm(in(lifted), temperature)),
                                   Where{"lifted", n, temperature, 0, scalar_name<T>()}, norm, norm_mutants);
                check_attained(
                    attnscope::entropy_floor_norm_bound(row, attnscope::centred_norm(in(needle), temperature)),
                    where, norm, norm_mutants);
                check_attained(attnscope::entropy_max_weight_bounds(row)[1], where, weight, weight_mutants);

                // Range form: k keys at the top, k the minimiser.
                std::size_t best = 1;
                Ref least = std::log(Ref(n));
                for (std::size_t k = 1; k < n; ++k) {
                    const Ref spread = Ref(height) / Ref(temperature), low = Ref(n - k) * std::exp(-spread);
                    const Ref entropy = std::log(Ref(k) + low) + low * spread / (Ref(k) + low);
                    if (entropy < least) least = entropy, best = k;
                }
                const auto levels = row_of<T>(problems::two_level_row(Index(n), Index(best), double(height)));
                row = attnscope::row_statistics(in(levels), temperature);
                check_attained(attnscope::entropy_floor_range_bound(row), where, range, range_mutants);
            }
            // Lower end of the largest-weight form: k equal keys and one with the rest, all others masked.
            for (const double lower : {0.25, 1.0, 6.0}) {
                for (std::size_t k = 1; k < n; k += 1 + n / 5) {
                    std::vector<T> levels(n, -std::numeric_limits<T>::infinity());
                    std::fill_n(levels.begin(), k, T(1.5));
                    levels[k] = static_cast<T>(1.5 - lower * temperature);
                    const auto row = attnscope::row_statistics(in(levels), temperature);
                    check_attained(attnscope::entropy_max_weight_bounds(row)[0],
                                   Where{"one with the rest", n, temperature, 0, scalar_name<T>()}, weight,
                                   weight_mutants);
                }
            }
            for (std::size_t k = 2; k <= n; k += 1 + n / 5) {
                std::vector<T> equal(n, -std::numeric_limits<T>::infinity());
                std::fill_n(equal.begin(), k, T(1.5));
                const auto row = attnscope::row_statistics(in(equal), temperature);
                check_attained(attnscope::entropy_max_weight_bounds(row)[0],
                               Where{"equal keys", n, temperature, 0, scalar_name<T>()}, weight,
                               weight_mutants);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(norm);
    ATTNSCOPE_CHECK_WORST(norm_mutants);
    ATTNSCOPE_CHECK_WORST(range);
    ATTNSCOPE_CHECK_WORST(range_mutants);
    ATTNSCOPE_CHECK_WORST(weight);
    ATTNSCOPE_CHECK_WORST(weight_mutants);
}

TEST_CASE("entropy floors are their formulas", "[entropy][floors]") {
    const Ref u = unit_roundoff<double>, smallest = std::numeric_limits<double>::min();
    Worst norm, range, weight;
    for (std::size_t n : lengths) {
        const Ref count = Ref(n);
        const Index keys = static_cast<Index>(n);
        const Where where{"formula", n};
        for (double x : {0.0, 1e-6, 0.3, 2.0, 17.0, 90.0, 600.0}) {
            const Ref error = u * (20 + 4 * Ref(x));
            if (n == 1) {
                norm.meet(attnscope::entropy_floor_by_norm(keys, x) == 0, where);
                range.meet(attnscope::entropy_floor_by_range(keys, x) == 0, where);
            } else {
                const Ref b = std::exp(-Ref(x) * std::sqrt(count / (count - 1))), sum = 1 + (count - 1) * b;
                const Ref floor =
                    std::log1p((count - 1) * b) + Ref(x) * std::sqrt(count * (count - 1)) * b / sum;
                norm.meet(std::abs(attnscope::entropy_floor_by_norm(keys, x) - floor), error * floor + smallest,
                          where);
                const Ref by_range = floor_by_range(n, x);
                range.meet(std::abs(attnscope::entropy_floor_by_range(keys, x) - by_range),
                           error * by_range + smallest, where);
            }
        }
        for (double share : {1.0, 0.7, 0.3, 0.01, 1e-9}) { // p1 from 1/n to nearly 1
            const Ref rest = (1 - 1 / count) * Ref(share);
            const double rest_given = static_cast<double>(rest), p1 = static_cast<double>(1 - Ref(rest_given));
            const auto limits = attnscope::entropy_range_by_max_weight(keys, p1, rest_given);
            const Ref r = rest_given, low = -std::log1p(-r);
            const Ref high = n == 1 ? Ref(0) : low * (1 - r) - r * std::log(r) + r * std::log(count - 1);
            // The least: floor(1/p1) keys at p1 and one with the rest, which is near 1 - p1 only if that is small.
            const Ref equal = p1 > 0.5 ? Ref(1) : std::floor(1 / Ref(p1)),
                      left = p1 > 0.5 ? r : std::max(Ref(0), 1 - equal * Ref(p1));
            const Ref least = equal * (p1 > 0.5 ? (1 - r) * low : -Ref(p1) * std::log(Ref(p1))) -
                              (left > 0 ? left * std::log(left) : Ref(0));
            weight.meet(std::abs(limits.lower - least),
                        16 * u * least + (p1 > 0.5 ? Ref(0) : -4 * u * std::log(4 * u)), where);
            weight.meet(limits.lower >= static_cast<double>(low) * (1 - 1e-15), where);
            weight.meet(std::abs(limits.upper - high), 16 * u * (high + std::abs(r * std::log(r + (r == 0)))),
                        where);
        }
    }
    ATTNSCOPE_CHECK_WORST(norm);
    ATTNSCOPE_CHECK_WORST(range);
    ATTNSCOPE_CHECK_WORST(weight);
}
