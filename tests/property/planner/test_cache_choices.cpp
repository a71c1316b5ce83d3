// Formats of keys and values against each other: bytes, errors, and the line of those that no other beats.
#include <attnscope/cache/format_name.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <support/scalars.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

template <class T>
Matrix<T> normal(SplitMix64& random, Index rows, Index cols) {
    return Matrix<T>::NullaryExpr(rows, cols, [&] { return static_cast<T>(random.normal()); });
}

CacheChoice choice(double bytes, std::vector<double> error, std::vector<double> limit = {}) {
    return {{}, {}, bytes, std::move(error), std::move(limit), 0};
}

} // namespace

TEMPLATE_TEST_CASE("every pair of formats does what it does by itself", "[planner][cache]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    std::vector<CacheFormat> key_formats, value_formats;
    for (const char* name : {"f16", "q8_0", "q4_0", "q4_0+rotated", "affine2:channel8", "int3:channel"})
        key_formats.push_back(cache_format(name));
    for (const char* name : {"q8_0", "affine2:token16", "q4_1+rotated4", "e4m3"})
        value_formats.push_back(cache_format(name));
    Worst error, limit, kept, below;
    for (const int kind : {0, 1, 2})
        for (const double size : {0.1, 1.5}) {
            SplitMix64 random = generator(seed, kind, static_cast<int>(10 * size), 51);
            const Matrix<T> q = normal<T>(random, 20, 32) * static_cast<T>(size), k = normal<T>(random, 20, 32);
            Matrix<T> v = normal<T>(random, 20, 32);
            v.array() += T(kind); // what all have in common
            const Mask mask = kind == 0 ? Mask::none() : kind == 1 ? Mask::causal(-2) : Mask::sliding_window(5);
            const HeadView<T> head(q, k, v);
            const std::vector<Index> some = {19, 3, 4, 0};
            for (const bool all : {true, false}) {
                const std::vector<CacheChoice> choices =
                    cache_choices(head, mask, key_formats, value_formats,
                                  all ? std::nullopt : std::optional<std::span<const Index>>(some));
                REQUIRE(choices.size() == key_formats.size() * value_formats.size());
                for (std::size_t i = 0; i < choices.size(); ++i) {
                    const CacheChoice& found = choices[i];
                    REQUIRE(found.keys == key_formats[i / value_formats.size()]);
                    REQUIRE(found.values == value_formats[i % value_formats.size()]);
                    const CacheMeasurement exact = measure_cache(
                        head, mask, found.keys, found.values, {.queries = all ? std::vector<Index>() : some});
                    REQUIRE(found.error.size() == exact.rows.size());
                    CHECK(found.bytes == exact.key_bytes + exact.value_bytes);
                    for (std::size_t row = 0; row < exact.rows.size(); ++row) {
                        const CachedRow& own = exact.rows[row];
                        const Where where{"row", row, size, seed, scalar_name<T>()};
                        // The order of summation differs: a few units of what is added up, over |o|.
                        const double scale =
                            own.output > 0 ? (own.weights.diameter + own.displacement) / own.output : 0;
                        error.meet(std::abs(found.error[row] - own.relative_error()), 64 * 0x1p-53 * scale,
                                   where);
                        const double certified = own.limit() == 0 ? 0 : own.limit() / own.output;
                        limit.meet(std::abs(found.limit[row] - certified), 64 * 0x1p-53 * (certified + scale),
                                   where);
                        below.meet(found.error[row] - found.limit[row], 64 * 0x1p-53 * scale, where);
                    }
                    double count = 0;
                    for (const CachedRow& own : exact.rows) count += own.argmax_kept() ? 1 : 0;
                    kept.meet(std::abs(found.argmax_kept - count / static_cast<double>(exact.rows.size())),
                              1e-15, Where{"head", i});
                }
            }
        }
    ATTNSCOPE_CHECK_WORST(error);
    ATTNSCOPE_CHECK_WORST(limit);
    ATTNSCOPE_CHECK_WORST(kept);
    ATTNSCOPE_CHECK_WORST(below);
}

TEST_CASE("the Pareto line and the fewest bytes are those of all pairs", "[planner][cache]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 52);
    for (int round = 0; round < 200; ++round) {
        std::vector<CacheChoice> choices;
        const Index count = 1 + random.below(12);
        for (Index i = 0; i < count; ++i) {
            std::vector<double> errors(7), limits(7);
            for (std::size_t j = 0; j < 7; ++j) {
                errors[j] = round % 5 == 0 ? static_cast<double>(random.below(3)) : random.uniform();
                limits[j] = errors[j] + random.uniform();
            }
            if (random.below(9) == 0) errors.assign(7, nan_value);
            choices.push_back(choice(static_cast<double>(10 + random.below(6)), errors, limits));
        }
        for (const double share : {0.4, 1.0}) {
            const auto need = [&](std::size_t i) { return need_for_share(choices[i].error, share); };
            const std::vector<std::size_t> line = pareto_line(choices, share);
            for (std::size_t i = 0; i < choices.size(); ++i) {
                bool beaten = std::isnan(need(i));
                for (std::size_t j = 0; j < choices.size(); ++j)
                    if (choices[j].bytes <= choices[i].bytes && need(j) <= need(i) &&
                        (choices[j].bytes < choices[i].bytes || need(j) < need(i) || j < i))
                        beaten = true;
                CHECK((std::count(line.begin(), line.end(), i) == 1) == !beaten);
            }
            for (std::size_t i = 1; i < line.size(); ++i) {
                CHECK(choices[line[i]].bytes > choices[line[i - 1]].bytes);
                CHECK(need(line[i]) < need(line[i - 1]));
            }
            for (const bool certified : {false, true}) {
                const double tolerance = 0.05 + random.uniform();
                double bytes = infinity;
                for (const CacheChoice& one : choices)
                    if (need_for_share(certified ? one.limit : one.error, share) <= tolerance)
                        bytes = std::min(bytes, one.bytes);
                const auto found = fewest_cache_bytes(choices, tolerance, share, certified);
                CHECK((found ? choices[*found].bytes : infinity) == bytes);
            }
        }
    }
    CHECK(pareto_line({}, 1).empty());
    CHECK(!fewest_cache_bytes({}, 1, 1));
    CHECK_THROWS_AS(fewest_cache_bytes({}, 0, 1), invalid_argument);
    CHECK_THROWS_AS(pareto_line(std::vector<CacheChoice>{choice(1, {1})}, 0), invalid_argument);
}

TEST_CASE("choices of several heads and of special ones", "[planner][cache]") {
    SplitMix64 random = generator(test_seed(), 53);
    const std::vector<CacheFormat> formats = {{CacheNumber::q8_0}, {CacheNumber::q4_0}};
    const Matrix<double> q = normal<double>(random, 6, 32), v = normal<double>(random, 6, 32);
    Matrix<double> k = normal<double>(random, 6, 32);
    const auto first = cache_choices(HeadView<double>(q, k, v), Mask::causal(), formats, formats),
               second = cache_choices(HeadView<double>(k, q, v), Mask::causal(3), formats, formats,
                                      std::vector<Index>{1, 2});
    const auto pooled = pooled_choices({&first, &second});
    REQUIRE(pooled.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(pooled[i].keys == first[i].keys);
        CHECK(pooled[i].values == first[i].values);
        CHECK(pooled[i].bytes == first[i].bytes);
        REQUIRE(pooled[i].error.size() == 8);
        CHECK(pooled[i].error[5] == first[i].error[5]);
        CHECK(pooled[i].limit[7] == second[i].limit[1]);
        CHECK(std::abs(pooled[i].argmax_kept - (6 * first[i].argmax_kept + 2 * second[i].argmax_kept) / 8) <
              1e-15);
    }
    CHECK(pooled_choices({}).empty());
    const std::vector<CacheChoice> other(first.begin(), first.begin() + 2);
    CHECK_THROWS_WITH(pooled_choices({&first, &other}),
                      "pooled_choices: heads must have tried the same pairs, got 2 and 4");
    // Rows that see a NaN have none of the figures, rows that see nothing no error.
    k(4, 3) = nan_value;
    const auto broken = cache_choices(HeadView<double>(q, k, v), Mask::causal(-1), formats, formats);
    for (const CacheChoice& one : broken) {
        CHECK(one.error[0] == 0);
        CHECK(one.limit[0] == 0);
        CHECK(std::isfinite(one.error[4]));
        CHECK(std::isnan(one.error[5]));
        CHECK(std::isnan(one.limit[5]));
    }
    CHECK_THROWS_WITH(cache_choices(HeadView<double>(q, k), Mask(), formats, formats),
                      "cache_choices: there must be keys and values to store, got 6");
    CHECK_THROWS_WITH(cache_choices(HeadView<double>(q, k, v), Mask(), formats, formats, std::vector<Index>{6}),
                      "cache_choices: query must be in [0, queries), got 6 and 6");
    CHECK_THROWS_AS(
        cache_choices(HeadView<double>(q, k, v), Mask(), std::vector<CacheFormat>{{CacheNumber::nf4}}, formats),
        invalid_argument);
}

TEST_CASE("the plan of a head tries the formats asked about", "[planner][cache]") {
    SplitMix64 random = generator(test_seed(), 54);
    Matrix<double> q = 2 * normal<double>(random, 80, 32), k = normal<double>(random, 80, 32);
    const Matrix<double> v = normal<double>(random, 80, 32);
    k.col(7).array() -= 40;
    PlanQuestion question{.bits = true, .bits_error = 0.03, .rows = 79};
    CHECK(plan_head(q, k, v, question, Mask::causal()).bits->choices.empty());
    for (const char* name : {"f16", "q8_0", "q8_0+rotated", "q4_0"}) {
        question.key_formats.push_back(cache_format(name));
        question.value_formats.push_back(cache_format(name));
    }
    const HeadPlan plan = plan_head(q, k, v, question, Mask::causal());
    REQUIRE(plan.bits);
    const BitsPlan& bits = *plan.bits;
    REQUIRE(bits.choices.size() == 16);
    // The rows that see two keys or more.
    std::vector<Index> queries(79);
    for (std::size_t i = 0; i < 79; ++i) queries[i] = static_cast<Index>(i) + 1;
    const auto expected = cache_choices(HeadView<double>(q, k, v), Mask::causal(), question.key_formats,
                                        question.value_formats, queries);
    for (std::size_t i = 0; i < 16; ++i) {
        CHECK(bits.choices[i].error == expected[i].error);
        CHECK(bits.choices[i].limit == expected[i].limit);
        CHECK(bits.choices[i].bytes == expected[i].bytes);
    }
    CHECK(bits.fewest == fewest_cache_bytes(expected, 0.03, 0.99));
    CHECK(bits.fewest_certified == fewest_cache_bytes(expected, 0.03, 0.99, true));
    REQUIRE(bits.fewest);
    CHECK(bits.fewest_confirmation.applied >= 0.99);
    CHECK(bits.fewest_confirmation.has_held_out);
    CHECK(bits.fewest_confirmation.held == (bits.fewest_confirmation.held_out >= 0.99));
    REQUIRE(bits.key_outliers.size() == 1);
    CHECK(bits.key_outliers.front().channel == 7);
    CHECK(bits.value_outliers.empty());
    question.bits_error = 1e-9;
    const HeadPlan none = plan_head(q, k, v, question, Mask::causal());
    CHECK(!none.bits->fewest);
    CHECK(none.bits->fewest_confirmation.applied == 0);
    CHECK(!none.bits->fewest_confirmation.has_held_out);
    question.key_formats.push_back({CacheNumber::nf4});
    CHECK_THROWS_WITH(
        plan_head(q, k, v, question, Mask::causal()),
        "through_cache: the channels must be a multiple of the format's block or group, got 32 and 64");
}
