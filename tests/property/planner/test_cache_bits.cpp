// What formats of the key cache do, and the fewest bits.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

TEMPLATE_TEST_CASE("what a format of the cache does is what outputs say", "[planner][cache]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst error, limit, certified, kept, sure;
    std::size_t rows = 0, moved = 0;
    for (const Index n : {Index(1), Index(2), Index(9), Index(24)})
        for (const double size : {0.3, 1.0, 2.0})
            for (const int kind : {0, 1, 2}) {
                SplitMix64 random = generator(seed, n, kind, static_cast<int>(10 * size), 81);
                const RandomHead<T> made = random_head<T>(random, n, size, kind);
                const Where where{kind == 0   ? "none"
                                  : kind == 1 ? "causal"
                                              : "window",
                                  static_cast<std::size_t>(n), size, seed, scalar_name<T>()};
                for (const CacheFormat format :
                     {CacheFormat{CacheNumber::integer, 3},
                      CacheFormat{CacheNumber::integer, 6, CacheScale::token},
                      CacheFormat{CacheNumber::integer, 12}, CacheFormat{CacheNumber::float8_e4m3},
                      CacheFormat{CacheNumber::float8_e5m2, 8, CacheScale::token}}) {
                    const CacheFigures figures = made.figures(format);
                    const std::vector<CacheRow> exact = made.rows(format);
                    REQUIRE(figures.error.size() == exact.size());
                    REQUIRE(figures.limit.size() == exact.size());
                    Ref least_kept = 0, most_kept = 0, least_sure = 0, most_sure = 0;
                    for (std::size_t i = 0; i < exact.size(); ++i) {
                        const CacheRow& row = exact[i];
                        ++rows;
                        moved += row.error > 10 * row.error_rounding;
                        error.meet(std::abs(Ref(figures.error[i]) - row.error), row.error_rounding, where);
                        // A mask that passes keys by has the diameter of all values: more, not less.
                        if (kind == 2)
                            limit.meet(row.limit - Ref(figures.limit[i]), row.limit_rounding, where);
                        else
                            limit.meet(std::abs(Ref(figures.limit[i]) - row.limit), row.limit_rounding, where);
                        certified.meet(Ref(figures.error[i]) - Ref(figures.limit[i]),
                                       row.error_rounding + 16 * unit_roundoff<T> * row.limit, where);
                        // Rounding decides between near equals.
                        const Ref slack = row.range_rounding;
                        const bool unclear = std::abs(row.gap_after) <= slack || row.gap <= slack;
                        least_kept += row.gap_after > 0 && !unclear ? 1 : 0;
                        most_kept += row.gap_after > 0 || unclear ? 1 : 0;
                        least_sure += row.gap > row.range + slack ? 1 : 0;
                        most_sure += row.gap > row.range - slack ? 1 : 0;
                    }
                    const Ref count = static_cast<Ref>(exact.size());
                    kept.meet(least_kept - Ref(figures.argmax_kept) * count, count * u, where);
                    kept.meet(Ref(figures.argmax_kept) * count - most_kept, count * u, where);
                    sure.meet(least_sure - Ref(figures.argmax_sure) * count, count * u, where);
                    sure.meet(Ref(figures.argmax_sure) * count - most_sure, count * u, where);
                    sure.meet(figures.argmax_sure <= figures.argmax_kept, where);
                }
            }
    CHECK(rows > 1000);
    CHECK(moved > rows / 2);
    ATTNSCOPE_CHECK_WORST(error);
    ATTNSCOPE_CHECK_WORST(limit);
    ATTNSCOPE_CHECK_WORST(certified);
    ATTNSCOPE_CHECK_WORST(kept);
    ATTNSCOPE_CHECK_WORST(sure);
}

TEMPLATE_TEST_CASE("the fewest bits keep the tolerance and one bit less does not", "[planner][cache]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst keeps, less, certificate, certificate_less, ordered;
    std::size_t inside = 0, certified_inside = 0, sooner = 0;
    for (const Index n : {Index(2), Index(9), Index(20)})
        for (const int kind : {0, 1}) // for windows the diameter is not that of what is seen
            for (const CacheScale scale : {CacheScale::channel, CacheScale::token}) {
                SplitMix64 random = generator(seed, n, kind, static_cast<int>(scale), 91);
                const RandomHead<T> made = random_head<T>(random, n, 0.8, kind);
                const Where where{kind == 0 ? "none" : "causal", static_cast<std::size_t>(n), 1, seed,
                                  scalar_name<T>()};
                std::array<RefRow, 17> errors, rounding, limits, limit_rounding;
                for (int bits = 2; bits <= 16; ++bits)
                    for (const CacheRow& row : made.rows({CacheNumber::integer, bits, scale})) {
                        const auto b = static_cast<std::size_t>(bits);
                        errors[b].push_back(row.error);
                        rounding[b].push_back(row.error_rounding);
                        limits[b].push_back(row.limit);
                        limit_rounding[b].push_back(row.limit_rounding);
                    }
                // The share's need if every row is as much better (worse) as rounding allows.
                const auto need = [](const RefRow& values, const RefRow& slack, int sign, double share) {
                    RefRow at = values;
                    for (std::size_t i = 0; i < at.size(); ++i) at[i] += sign * slack[i];
                    return need_of(at, share);
                };
                for (const double tolerance : {0.5, 0.1, 0.02, 2e-3, 1e-4})
                    for (const double share : {0.3, 0.77, 1.0}) {
                        const CacheBits bits = made.fewest(scale, tolerance, share);
                        const bool sane = bits.measured >= 2 && bits.measured <= 17 && bits.certified >= 2 &&
                                          bits.certified <= 17;
                        ordered.meet(sane && bits.certified >= bits.measured, where);
                        ordered.meet(bits.expected >= 2 && bits.expected <= 17, where);
                        sooner += bits.expected < bits.certified;
                        if (!sane) continue;
                        for (int count = 16; count >= 2; --count) {
                            const auto b = static_cast<std::size_t>(count);
                            if (count >= bits.measured)
                                keeps.meet(need(errors[b], rounding[b], -1, share) <= tolerance, where);
                            if (count == bits.measured - 1)
                                less.meet(need(errors[b], rounding[b], 1, share) > tolerance, where);
                            if (count >= bits.certified)
                                certificate.meet(need(limits[b], limit_rounding[b], -1, share) <= tolerance,
                                                 where);
                            if (count == bits.certified - 1)
                                certificate_less.meet(need(limits[b], limit_rounding[b], 1, share) > tolerance,
                                                      where);
                        }
                        inside += bits.measured > 2 && bits.measured < 17;
                        certified_inside += bits.certified > bits.measured && bits.certified < 17;
                    }
            }
    CHECK(inside > 50);
    CHECK(certified_inside > 20);
    CHECK(sooner > 20);
    ATTNSCOPE_CHECK_WORST(keeps);
    ATTNSCOPE_CHECK_WORST(less);
    ATTNSCOPE_CHECK_WORST(certificate);
    ATTNSCOPE_CHECK_WORST(certificate_less);
    ATTNSCOPE_CHECK_WORST(ordered);
}

TEST_CASE("rounding errors that are uniform move the output by less than certified on average",
          "[theorem][planner][cache][perturbation_mean]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst holds;
    double tightest = 0;
    for (const int kind : {0, 1})
        for (const CacheFormat format :
             {CacheFormat{CacheNumber::integer, 3}, CacheFormat{CacheNumber::integer, 6},
              CacheFormat{CacheNumber::integer, 4, CacheScale::token}, CacheFormat{CacheNumber::float8_e4m3}}) {
            SplitMix64 random = generator(seed, kind, format.bits, 97);
            const RandomHead<double> made = random_head<double>(random, 12, 0.8, kind);
            const CacheFigures figures = made.figures(format);
            const Matrix<double> quanta = cache_quanta(MatrixView<double>(made.k), format);
            std::vector<Ref> mean(figures.error.size()), square(figures.error.size());
            constexpr int draws = 400;
            for (int draw = 0; draw < draws; ++draw) {
                Matrix<double> stored = made.k;
                for (Index i = 0; i < stored.size(); ++i)
                    stored.data()[i] += quanta.data()[i] * (random.uniform() - 0.5);
                const std::vector<CacheRow> rows = reference_cache(made.head(), stored, made.mask);
                for (std::size_t i = 0; i < rows.size(); ++i) {
                    mean[i] += rows[i].error / draws;
                    square[i] += rows[i].error * rows[i].error / draws;
                }
            }
            for (std::size_t i = 0; i < mean.size(); ++i) {
                const Ref deviation = std::sqrt(std::max(Ref(0), square[i] - mean[i] * mean[i]) / draws);
                holds.meet(mean[i] - Ref(figures.expected[i]), 6 * deviation + 1e-14L,
                           Where{kind == 0 ? "none" : "causal", i});
                if (figures.expected[i] > 0)
                    tightest = std::max(tightest, static_cast<double>(mean[i]) / figures.expected[i]);
            }
        }
    ATTNSCOPE_CHECK_WORST(holds);
    CHECK(tightest > 0.2);
    // What is rounded to the nearest is off by half a quantum.
    const Matrix<double> x = (Matrix<double>(3, 2) << 7, 0, -3.2, 0, 0.4, 0).finished();
    CHECK(cache_quanta(MatrixView<double>(x), {CacheNumber::integer, 4}) ==
          (Matrix<double>(3, 2) << 1, 0, 1, 0, 1, 0).finished());
    CHECK_THROWS_AS(cache_quanta(MatrixView<double>(x), {CacheNumber::integer, 1}), invalid_argument);
}

TEST_CASE("chosen queries of a cache have the rows that they have among all", "[planner][cache]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 95);
    const RandomHead<double> made = random_head<double>(random, 20, 1, 1);
    const HeadView<double> head = made.head();
    const MatrixView<double> outputs(made.outputs);
    const std::vector<Index> chosen = {17, 3, 0, 19, 11, 3};
    const CacheFormat format{CacheNumber::integer, 3};
    const CacheFigures all = made.figures(format),
                       some = cache_figures<double>(head, format, made.mask, made.widths(), outputs, chosen);
    REQUIRE(some.error.size() == chosen.size());
    REQUIRE(some.limit.size() == chosen.size());
    double kept = 0, sure = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        CHECK(some.error[i] == all.error[static_cast<std::size_t>(chosen[i])]);
        CHECK(some.limit[i] == all.limit[static_cast<std::size_t>(chosen[i])]);
        const std::vector<Index> alone = {chosen[i]};
        const CacheFigures one = cache_figures<double>(head, format, made.mask, made.widths(), outputs, alone);
        kept += one.argmax_kept / static_cast<double>(chosen.size());
        sure += one.argmax_sure / static_cast<double>(chosen.size());
    }
    CHECK(std::abs(some.argmax_kept - kept) <= 16 * 0x1p-53);
    CHECK(std::abs(some.argmax_sure - sure) <= 16 * 0x1p-53);
    for (const double tolerance : {0.5, 0.05, 0.005}) {
        const CacheBits bits = fewest_cache_bits<double>(head, CacheScale::channel, made.mask, made.widths(),
                                                         outputs, tolerance, 0.7, chosen);
        const auto need = [&](int count) {
            return need_for_share(cache_figures<double>(head, {CacheNumber::integer, count}, made.mask,
                                                        made.widths(), outputs, chosen)
                                      .error,
                                  0.7);
        };
        CAPTURE(tolerance, bits.measured, bits.certified);
        for (int count = 16; count >= bits.measured; --count) CHECK(need(count) <= tolerance);
        if (bits.measured > 2) CHECK(need(bits.measured - 1) > tolerance);
        CHECK(bits.certified >= bits.measured);
    }
    for (const Index bad : {Index(-1), Index(20)}) {
        const std::vector<Index> missing = {0, bad};
        CHECK_THROWS_AS(cache_figures<double>(head, format, made.mask, made.widths(), outputs, missing),
                        invalid_argument);
    }
}

TEST_CASE("caches of special heads", "[planner][cache]") {
    SplitMix64 random = generator(test_seed(), 101);
    RandomHead<double> made = random_head<double>(random, 6, 1, 1);
    const CacheFormat coarse{CacheNumber::integer, 2};
    // What the cache holds already stays: no error, and nothing to certify.
    RandomHead<double> stored = made;
    stored.k = through_cache(MatrixView<double>(made.k), coarse);
    stored.measure();
    CacheFigures figures = stored.figures(coarse);
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(figures.error[i] == 0);
        CHECK(figures.limit[i] == 0);
    }
    // Every grid has 0 and the largest number, and a channel of the coarsest grid holds nothing else.
    CHECK(stored.fewest(CacheScale::channel, 1e-12, 1).measured == 2);
    CHECK(stored.fewest(CacheScale::channel, 1e-12, 1).certified == 2);
    // Rows that see no key, or one: 0/0 is no error.
    RandomHead<double> late = made;
    late.mask = Mask::causal(-2);
    late.measure();
    figures = late.figures(coarse);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(figures.error[i] == 0);
        CHECK(figures.limit[i] == 0);
    }
    CHECK(figures.limit[4] > 0);
    // An output of 0 that changes: infinitely much.
    RandomHead<double> opposite;
    opposite.q = Matrix<double>::Ones(1, 1);
    opposite.k.resize(3, 1);
    opposite.k << 0.3, 0.3, 1;
    opposite.v.resize(3, 1);
    opposite.v << 1, -1, 0;
    opposite.measure();
    CHECK(opposite.figures(coarse).error[0] == 0);
    opposite.k(0, 0) = 0.6; // rounds the other way
    opposite.measure();
    opposite.outputs(0, 0) = 0;
    CHECK(opposite.figures(coarse).error[0] == infinity);
    CHECK(opposite.figures(coarse).limit[0] == infinity);
    CHECK(opposite.fewest(CacheScale::channel, 1e300, 1).measured == 17);
    // NaN in a row gives NaN, by token only where it is seen.
    RandomHead<double> broken = made;
    broken.k(4, 2) = nan_value;
    figures = broken.figures({CacheNumber::integer, 8, CacheScale::token});
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(std::isnan(figures.error[i]) == (i >= 4));
        CHECK(std::isnan(figures.limit[i]) == (i >= 4));
    }
    figures = broken.figures({CacheNumber::integer, 8, CacheScale::channel});
    for (std::size_t i = 0; i < 6; ++i) CHECK(std::isnan(figures.error[i]));
    CHECK(broken.fewest(CacheScale::token, 1e3, 1).measured == 2); // by the rows that have an answer
    CHECK(broken.fewest(CacheScale::channel, 1e3, 1).measured == 17);
    CHECK(broken.fewest(CacheScale::channel, 1e3, 1).certified == 17);
    // The tolerance is always kept, or never.
    CHECK(made.fewest(CacheScale::channel, 1e9, 1).measured == 2);
    CHECK(made.fewest(CacheScale::channel, 1e9, 1).certified == 2);
    CHECK(made.fewest(CacheScale::channel, 1e-300, 1).measured == 17);
    CHECK(made.fewest(CacheScale::channel, 1e-300, 1).certified == 17);

    const MatrixView<double> outputs(made.outputs);
    const HeadView<double> head = made.head(), without(made.q, made.k);
    const Matrix<double> narrow = made.outputs.leftCols(4), few = made.outputs.topRows(5);
    CHECK_THROWS_AS(cache_figures<double>(without, coarse, made.mask, made.widths(), outputs),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths(), MatrixView<double>(narrow)),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths(), MatrixView<double>(few)),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths().first(5), outputs),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, {CacheNumber::integer, 1}, made.mask, made.widths(), outputs),
                    invalid_argument);
    for (const double bad : {0.0, -1.0, nan_value})
        CHECK_THROWS_AS(made.fewest(CacheScale::token, bad, 0.5), invalid_argument);
    for (const double bad : {0.0, -1.0, 1.5, nan_value})
        CHECK_THROWS_AS(made.fewest(CacheScale::token, 0.1, bad), invalid_argument);
    CHECK_THROWS_AS(
        fewest_cache_bits<double>(without, CacheScale::token, made.mask, made.widths(), outputs, 0.1, 0.5),
        invalid_argument);
}
