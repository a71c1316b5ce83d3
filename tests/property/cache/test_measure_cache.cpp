// What storing keys and values does to rows: against a dense long double oracle, its certificate, and heads whose keys
// have a channel far away.
#include <attnscope/cache/measure_cache.hpp>
#include <support/attained.hpp>
#include <support/scalars.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

/// One row in long double, from its definition.
struct ExactRow {
    Ref tv = 0, kl = 0, error = 0, output = 0, range = 0, gap_after = infinity, displacement = 0, diameter = 0;
    Ref distance = 0, distance_after = 0, separable = 0, separable_after = 0;
    Index top_kept = 0;
    Ref logit_rounding = 0, spread = 0; // of what double makes of it
};

struct Selection {
    std::vector<std::size_t> keys;
    Ref distance = 0, separable = 1;
};

Selection top_of(const RefRow& p, const Matrix<Ref>& v, std::size_t top) {
    std::vector<std::size_t> order(p.size());
    for (std::size_t i = 0; i < p.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    Selection found;
    found.keys.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top));
    std::sort(found.keys.begin(), found.keys.end());
    Eigen::Matrix<Ref, 1, Eigen::Dynamic> s = Eigen::Matrix<Ref, 1, Eigen::Dynamic>::Zero(v.cols());
    for (const std::size_t i : found.keys) s += p[i] * v.row(static_cast<Index>(i));
    const auto far = [&](std::size_t i) { return (s - p[i] * v.row(static_cast<Index>(i))).norm(); };
    Ref nearest = std::numeric_limits<Ref>::infinity(), inside = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (!std::binary_search(found.keys.begin(), found.keys.end(), i)) {
            found.distance += far(i);
            nearest = std::min(nearest, far(i));
        }
    for (const std::size_t i : found.keys) inside += far(i) < nearest ? 1 : 0;
    found.separable = inside / static_cast<Ref>(top);
    return found;
}

template <class T>
ExactRow exact_row(const HeadView<T>& head, const Mask& mask, Index query, const Matrix<T>& keys,
                   const Matrix<T>& values, Index top) {
    ExactRow row;
    std::vector<Index> seen;
    mask.visible(query, head.keys()).for_each([&](Index key) { seen.push_back(key); });
    const std::size_t n = seen.size();
    if (n == 0) return row;
    RefRow z(n), moved(n), p(n), after(n);
    Matrix<Ref> v(static_cast<Index>(n), head.v().cols()), stored(static_cast<Index>(n), head.v().cols());
    Ref low = infinity, high = -infinity;
    for (std::size_t i = 0; i < n; ++i) {
        Ref size = 0;
        for (Index c = 0; c < head.q().cols(); ++c) {
            const Ref q = head.q().map()(query, c), a = head.k().map()(seen[i], c), b = keys(seen[i], c);
            z[i] += q * a * Ref(head.scale()), moved[i] += q * b * Ref(head.scale());
            size += std::abs(q) * (std::abs(a) + std::abs(b)) * Ref(head.scale());
        }
        row.logit_rounding =
            std::max(row.logit_rounding, Ref(head.q().cols() + 4) * unit_roundoff<double> * size);
        low = std::min(low, moved[i] - z[i]), high = std::max(high, moved[i] - z[i]);
        v.row(static_cast<Index>(i)) = head.v().map().row(seen[i]).template cast<Ref>();
        stored.row(static_cast<Index>(i)) = values.row(seen[i]).template cast<Ref>();
    }
    const auto softmax = [](const RefRow& logits, RefRow& weights) {
        const Ref most = *std::max_element(logits.begin(), logits.end());
        Ref sum = 0;
        for (const Ref x : logits) sum += std::exp(x - most);
        for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = std::exp(logits[i] - most) / sum;
    };
    softmax(z, p), softmax(moved, after);
    Eigen::Matrix<Ref, 1, Eigen::Dynamic> before = v.row(0) * 0, then = before;
    Ref forward = 0, backward = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const Index at = static_cast<Index>(i);
        before += p[i] * v.row(at), then += after[i] * stored.row(at);
        row.tv += std::abs(after[i] - p[i]) / 2;
        forward += p[i] * std::log(p[i] / after[i]), backward += after[i] * std::log(after[i] / p[i]);
        row.displacement = std::max(row.displacement, (stored.row(at) - v.row(at)).norm());
        for (Index j = 0; j < at; ++j) row.diameter = std::max(row.diameter, (v.row(at) - v.row(j)).norm());
    }
    row.kl = std::max(forward, backward);
    row.output = before.norm(), row.error = (then - before).norm();
    row.range = high - low;
    const auto best = static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    Ref rival = -infinity;
    for (std::size_t i = 0; i < n; ++i)
        if (i != best) rival = std::max(rival, moved[i]);
    row.gap_after = moved[best] - rival;
    row.spread =
        std::max(*std::max_element(z.begin(), z.end()) - *std::min_element(z.begin(), z.end()),
                 *std::max_element(moved.begin(), moved.end()) - *std::min_element(moved.begin(), moved.end()));
    if (top > 0) {
        const std::size_t count = std::min(static_cast<std::size_t>(top), n);
        const Selection own = top_of(p, v, count), other = top_of(after, stored, count);
        row.distance = own.distance, row.distance_after = other.distance;
        row.separable = own.separable, row.separable_after = other.separable;
        for (const std::size_t key : own.keys)
            row.top_kept += std::binary_search(other.keys.begin(), other.keys.end(), key) ? 1 : 0;
    }
    return row;
}

template <class T>
struct Made {
    Matrix<T> q, k, v;
    HeadView<T> head() const { return {q, k, v}; }
};

template <class T>
Made<T> made_head(SplitMix64& random, Index queries, Index keys, double size, double bias = 0,
                  Index width = 32) {
    Made<T> made;
    const auto normal = [&](Index rows) -> Matrix<T> {
        return Matrix<T>::NullaryExpr(rows, width, [&] { return static_cast<T>(random.normal()); });
    };
    made.q = normal(queries) * static_cast<T>(size), made.k = normal(keys), made.v = normal(keys);
    made.k.col(width / 3).array() += static_cast<T>(bias);
    return made;
}

std::vector<std::pair<CacheFormat, CacheFormat>> some_pairs() {
    return {{{CacheNumber::q8_0}, {CacheNumber::q8_0}},
            {{CacheNumber::q8_0}, {CacheNumber::q4_0}},
            {rotated({CacheNumber::q4_0}, 3), {CacheNumber::q5_1}},
            {{CacheNumber::q4_0}, rotated({CacheNumber::q4_1}, 5)},
            {kivi_keys(2, 8), kivi_values(2, 16)},
            {integer_cache(3), float8_cache(CacheNumber::float8_e4m3)},
            {rotated(float8_cache(CacheNumber::float8_e5m2)), integer_cache(4, CacheScale::token)},
            {{CacheNumber::float16}, {CacheNumber::bfloat16}}};
}

} // namespace

TEMPLATE_TEST_CASE("what a cache does to a row is what its definition says", "[cache][measure]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst tv, kl, error, output, range, displaced, diameter, distance, separable, kept, top_kept;
    std::size_t rows = 0, moved = 0, lost = 0;
    for (const Index n : {1, 2, 9, 40})
        for (const int kind : {0, 1, 2})
            for (const auto& [key_format, value_format] : some_pairs()) {
                SplitMix64 random = generator(seed, n, kind, 41);
                const Made<T> made = made_head<T>(random, n, n, kind == 1 ? 2 : 0.7, kind == 2 ? 20 : 0);
                const Mask mask = kind == 0   ? Mask::none()
                                  : kind == 1 ? Mask::causal()
                                              : Mask::sliding_window(6).with_sinks(2);
                const Index top = n < 5 ? 1 : 4;
                const CacheMeasurement found =
                    measure_cache(made.head(), mask, key_format, value_format, {.top = top});
                const Matrix<T> keys = through_cache(made.k, key_format),
                                values = through_cache(made.v, value_format);
                REQUIRE(std::ssize(found.rows) == n);
                for (Index query = 0; query < n; ++query) {
                    const CachedRow& row = found.rows[static_cast<std::size_t>(query)];
                    const ExactRow exact = exact_row(made.head(), mask, query, keys, values, top);
                    const Where where{"head", static_cast<std::size_t>(n), static_cast<double>(kind), seed,
                                      scalar_name<T>()};
                    ++rows;
                    // Weights move by half of the range of what rounding does to logits, and are computed at the
                    // size of their logarithms.
                    const Ref weights =
                        2 * exact.logit_rounding +
                        unit_roundoff<double> * (8 * exact.spread + 8 * exact.range + 64 + Ref(n) / 4);
                    const Ref wide = exact.diameter + exact.displacement + exact.output;
                    tv.meet(std::abs(Ref(row.weights.total_variation) - exact.tv), weights, where);
                    kl.meet(std::abs(Ref(row.weights.kl) - exact.kl), 2 * weights * (1 + exact.range), where);
                    range.meet(std::abs(Ref(row.weights.range) - exact.range),
                               4 * exact.logit_rounding + 1e-300L, where);
                    error.meet(std::abs(Ref(row.output_error) - exact.error), 4 * weights * wide, where);
                    output.meet(std::abs(Ref(row.output) - exact.output), 4 * weights * wide, where);
                    displaced.meet(std::abs(Ref(row.displacement) - exact.displacement),
                                   1e-15L * exact.displacement, where);
                    diameter.meet(kind == 2 ? exact.diameter - Ref(row.weights.diameter)
                                            : std::abs(Ref(row.weights.diameter) - exact.diameter),
                                  1e-15L * (exact.diameter + 1), where);
                    distance.meet(std::abs(Ref(row.distance) - exact.distance), 16 * Ref(n) * weights * wide,
                                  where);
                    distance.meet(std::abs(Ref(row.distance_after) - exact.distance_after),
                                  16 * Ref(n) * weights * wide, where);
                    separable.meet(std::abs(Ref(row.separable) - exact.separable), 1e-15L, where);
                    separable.meet(std::abs(Ref(row.separable_after) - exact.separable_after), 1e-15L, where);
                    top_kept.meet(row.top == std::min(top, mask.visible(query, n).count()), where);
                    top_kept.meet(row.top_kept == exact.top_kept, where);
                    if (std::abs(exact.gap_after) > 4 * exact.logit_rounding)
                        kept.meet(row.argmax_kept() == (exact.gap_after > 0), where);
                    moved += exact.error > 100 * weights * wide;
                    lost += exact.top_kept < row.top;
                }
            }
    CHECK(rows > 1200);
    CHECK(moved > rows / 2);
    CHECK(lost > 100);
    ATTNSCOPE_CHECK_WORST(tv);
    ATTNSCOPE_CHECK_WORST(kl);
    ATTNSCOPE_CHECK_WORST(error);
    ATTNSCOPE_CHECK_WORST(output);
    ATTNSCOPE_CHECK_WORST(range);
    ATTNSCOPE_CHECK_WORST(displaced);
    ATTNSCOPE_CHECK_WORST(diameter);
    ATTNSCOPE_CHECK_WORST(distance);
    ATTNSCOPE_CHECK_WORST(separable);
    ATTNSCOPE_CHECK_WORST(kept);
    ATTNSCOPE_CHECK_WORST(top_kept);
}

TEMPLATE_TEST_CASE("stored keys and values move the output by less than certified", "[theorem][cache][measure]",
                   float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst holds, promised, ordered;
    double tightest = 0, tightest_promised = 0;
    for (const Index n : {1, 2, 3, 17, 48})
        for (const double size : {1e-6, 0.1, 1.0, 4.0})
            for (const double bias : {0.0, 30.0})
                for (const auto& [key_format, value_format] : some_pairs()) {
                    SplitMix64 random = generator(seed, n, static_cast<int>(10 * size + bias), 42);
                    const Made<T> made = made_head<T>(random, 12, n, size, bias);
                    const Mask mask = n == 17 ? Mask::sliding_window(5) : Mask::causal(n - 12);
                    const CacheMeasurement found = measure_cache(made.head(), mask, key_format, value_format);
                    for (const CachedRow& row : found.rows) {
                        const Where where{"head", static_cast<std::size_t>(n), size, seed, scalar_name<T>()};
                        const auto error =
                            perturbation_error<double>(n, 20 * size * (6 + bias), 20 * size * (6 + bias));
                        const Bound<double> own = cache_output_sharp(row, error),
                                            formats = cache_output_sharp(row, error, true);
                        holds.meet(own.verdict() != Verdict::violated && own.verdict() != Verdict::undefined,
                                   where);
                        promised.meet(formats.verdict() != Verdict::violated &&
                                          formats.verdict() != Verdict::undefined,
                                      where);
                        ordered.meet(row.limit() - row.format_limit(),
                                     1e-13 * (row.format_limit() + row.weights.diameter * size * (6 + bias)),
                                     where);
                        if (row.output_error > 1e-6) {
                            tightest = std::max(tightest, own.tightness());
                            tightest_promised = std::max(tightest_promised, formats.tightness());
                        }
                    }
                }
    ATTNSCOPE_CHECK_WORST(holds);
    ATTNSCOPE_CHECK_WORST(promised);
    ATTNSCOPE_CHECK_WORST(ordered);
    CHECK(tightest > 0.5);
    CHECK(tightest_promised > 0.05);
}

TEST_CASE("the certificate of a cache is attained", "[theorem][cache][measure]") {
    // Integers -1, 0, 1 times the largest of a channel, which a third key has that the queries do not see. The first
    // channel errs by half a step each way, the second one is exact and has the gap that lets two keys change places;
    // both values are stored half a step lower, in the direction in which the weights move the output.
    constexpr double step = 0x1p-40;
    const Mask mask = Mask::causal(1);
    const CacheFormat format = integer_cache(2);
    const double values[3] = {0.5, -0.5 - step, 1};
    const Matrix<double> v = Eigen::Map<const Matrix<double>>(values, 3, 1);
    for (const double r : {1e-3, 0.1, 1.0, 9.0}) {
        CAPTURE(r);
        Matrix<double> q(1, 2), k(3, 2);
        q << r, r / 2;
        k << 0.5 - step, 1, 0.5 + step, 0, 1, 1;
        const CacheMeasurement found = measure_cache(HeadView<double>(q, k, v, 1), mask, format, format);
        const CachedRow& row = found.rows.front();
        const Bound<double> bound = cache_output_sharp(row, perturbation_error<double>(2, 2 * r, r));
        CAPTURE(row.output_error, row.limit());
        CHECK(std::abs(row.weights.range - r) <= 1e-11 * r);
        CHECK(row.displacement == 0.5);
        CHECK(bound.tightness() > 1 - 1e-9);
        CHECK(bound.verdict() != Verdict::violated);
        CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
    }
    // What the formats promise: without the second channel, as the range goes to 0.
    Matrix<double> q = Matrix<double>::Constant(1, 1, 1e-3), k(3, 1);
    k << 0.5 - step, 0.5 + step, 1;
    const CacheMeasurement found = measure_cache(HeadView<double>(q, k, v, 1), mask, format, format);
    const Bound<double> bound =
        cache_output_sharp(found.rows.front(), perturbation_error<double>(2, 1e-3, 1e-3), true);
    CHECK(bound.tightness() > 1 - 1e-6);
    CHECK(bound.verdict() == Verdict::holds);
    CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
    // And without the values' part, or with half of it, it would not hold.
    const CachedRow& row = found.rows.front();
    CHECK(row.limit_for(row.weights.range, row.displacement / 2) < row.output_error);
}

TEST_CASE("a key bias makes q4_0 collapse, and the rotation or scales of channels mend it",
          "[cache][measure]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 43);
    const auto kept = [&](double bias, const CacheFormat& format) {
        SplitMix64 own = generator(seed, 43);
        const Made<float> made = made_head<float>(own, 64, 256, 2, bias, 64);
        return measure_cache(made.head(), Mask::none(), format, {CacheNumber::float16}).summary();
    };
    const CacheFormat blocks{CacheNumber::q4_0}, wide{CacheNumber::q8_0};
    CHECK(kept(0, blocks).argmax_kept > 0.75);
    for (const double bias : {30.0, 100.0}) {
        const CacheSummary lost = kept(bias, blocks), turned = kept(bias, rotated(blocks)),
                           channels = kept(bias, integer_cache(4)), groups = kept(bias, kivi_keys(4)),
                           eight = kept(bias, wide), eight_turned = kept(bias, rotated(wide));
        CAPTURE(bias, lost.argmax_kept, turned.argmax_kept, channels.argmax_kept, groups.argmax_kept,
                lost.error, turned.error, channels.error, groups.error, eight.error, eight_turned.error);
        CHECK(lost.argmax_kept < 0.5);
        CHECK(lost.error > 0.6);
        CHECK(channels.argmax_kept > 0.6);
        CHECK(groups.argmax_kept > 0.75);
        CHECK(channels.error < 0.5 * lost.error);
        CHECK(groups.error < 0.5 * lost.error);
        // The bias is spread over 64 channels, an eighth of it in each: the steps of 8 bits bear that at any of these
        // sizes, those of 4 bits at the smaller one.
        CHECK(eight_turned.error < 0.35 * eight.error);
        if (bias < 50) {
            CHECK(turned.error < 0.6 * lost.error);
            CHECK(turned.argmax_kept > 1.5 * lost.argmax_kept);
        }
    }
    // The channel is named, and no other.
    const Made<float> biased = made_head<float>(random, 8, 256, 1, 100, 64);
    const CacheMeasurement found = measure_cache(biased.head(), Mask::none(), blocks, blocks);
    REQUIRE(found.key_outliers.size() == 1);
    CHECK(found.key_outliers.front().channel == 64 / 3);
    CHECK(std::abs(found.key_outliers.front().mean - 100) < 1);
    CHECK(found.key_outliers.front().ratio > 80);
    CHECK(found.value_outliers.empty());
    CHECK(found.key_bytes == 36);
    CHECK(found.value_bytes == 36);
}

TEST_CASE("outlier channels by their rule", "[cache][measure]") {
    Matrix<double> x(4, 3);
    x << 1, 20, 0.5, -1, 22, -0.5, 1, 18, 0.5, -1, 20, -0.5; // sizes 1, 20.05, 0.5: the median is 1
    std::vector<OutlierChannel> found = outlier_channels(x);
    REQUIRE(found.size() == 1);
    CHECK(found[0].channel == 1);
    CHECK(found[0].mean == 20);
    CHECK(found[0].ratio == 20);
    CHECK(outlier_channels(x, 20).empty());
    x.col(2).setConstant(-300);
    found = outlier_channels(x, 10); // the median is 20.05
    REQUIRE(found.size() == 1);
    CHECK(found[0].channel == 2);
    x.col(0).setConstant(nan_value);
    found = outlier_channels(x, 10);
    REQUIRE(found.size() == 1);
    CHECK(found[0].channel == 2);
    x.setZero();
    CHECK(outlier_channels(x).empty());
    x.col(1).setConstant(1e-9);
    CHECK(outlier_channels(x).front().ratio == infinity);
    CHECK(outlier_channels(Matrix<double>(0, 3)).empty());
    CHECK_THROWS_WITH(outlier_channels(x, 0.0), "outlier_channels: factor must be > 0, got 0");
}

TEST_CASE("rows and heads of a cache that are special", "[cache][measure]") {
    SplitMix64 random = generator(test_seed(), 44);
    Made<double> made = made_head<double>(random, 6, 6, 1);
    const CacheFormat coarse = integer_cache(2, CacheScale::token), exact{CacheNumber::float16};
    // What the cache holds already stays.
    Made<double> stored = made;
    stored.k = through_cache(made.k, exact), stored.v = through_cache(made.v, exact);
    CacheMeasurement found = measure_cache(stored.head(), Mask::causal(), exact, exact, {.top = 2});
    for (const CachedRow& row : found.rows) {
        CHECK(row.output_error == 0);
        CHECK(row.relative_error() == 0);
        CHECK(row.limit() == 0);
        CHECK(row.top_kept == row.top);
        CHECK(row.distance == row.distance_after);
        CHECK(row.argmax_kept());
    }
    CHECK(found.summary().error == 0);
    CHECK(found.summary().argmax_kept == 1);
    CHECK(found.summary().distance_change == 0);
    // One key only has all the weight; its value moves.
    const CachedRow alone = measure_cache(made.head(), Mask::causal(), coarse, coarse).rows.front();
    CHECK(alone.weights.total_variation == 0);
    CHECK(alone.range_limit == 0);
    // Two norms of the same difference, each exact to half an epsilon a coordinate.
    CHECK(std::abs(alone.output_error - alone.displacement) <=
          std::numeric_limits<double>::epsilon() * static_cast<double>(made.v.cols() + 4) * alone.displacement);
    CHECK(alone.format_limit() >= alone.output_error);
    // No key: zeros.
    found = measure_cache(made.head(), Mask::causal(-2), coarse, coarse, {.top = 3});
    CHECK(found.rows[1].output_error == 0);
    CHECK(found.rows[1].limit() == 0);
    CHECK(found.rows[1].top == 0);
    CHECK(found.rows[1].argmax_kept());
    CHECK(found.rows[2].top == 1);
    CHECK(found.rows[5].output_error > 0);
    // NaN where a row sees it, and not in the means.
    made.k(4, 2) = nan_value;
    found = measure_cache(made.head(), Mask::causal(), coarse, coarse, {.top = 2});
    for (const CachedRow& row : found.rows) {
        CHECK(std::isnan(row.output_error) == (row.query >= 4));
        CHECK(std::isnan(row.limit()) == (row.query >= 4));
        CHECK(std::isnan(row.format_limit()) == (row.query >= 4));
        CHECK(std::isnan(row.distance) == (row.query >= 4));
    }
    CHECK(found.summary().rows == 4);
    CHECK(found.summary().left_out == 2);
    CHECK(std::isfinite(found.summary().error));
    made.k(4, 2) = 0;
    made.v(5, 1) = infinity;
    found = measure_cache(made.head(), Mask::causal(), coarse, coarse);
    CHECK(std::isfinite(found.rows[4].output_error));
    CHECK(std::isnan(found.rows[5].output_error));
    made.v(5, 1) = 0;
    // Chosen queries, in the order asked for, and expressions.
    const CacheMeasurement all = measure_cache(made.head(), Mask::causal(), coarse, exact),
                           some = measure_cache(made.head(), Mask::causal(), coarse, exact,
                                                {.queries = {5, 0, 3}}),
                           same = measure_cache(Eigen::MatrixXd(made.q), 1 * made.k, made.v, Mask::causal(),
                                                coarse, exact);
    REQUIRE(some.rows.size() == 3);
    CHECK(some.rows[0].query == 5);
    CHECK(some.rows[0].output_error == all.rows[5].output_error);
    CHECK(some.rows[2].output_error == all.rows[3].output_error);
    CHECK(same.rows[4].output_error == all.rows[4].output_error);
    CHECK(std::isnan(
              measure_cache(made.head(), Mask::causal(-9), coarse, exact, {.queries = {}}).summary().error) ==
          false);

    CHECK_THROWS_WITH(measure_cache(HeadView<double>(made.q, made.k), Mask(), coarse, exact),
                      "measure_cache: there must be values to store");
    CHECK_THROWS_WITH(measure_cache(made.head(), Mask(), coarse, exact, {.top = -1}),
                      "measure_cache: top must be >= 0, got -1");
    CHECK_THROWS_WITH(measure_cache(made.head(), Mask(), coarse, exact, {.queries = {0, 6}}),
                      "measure_cache: query must be in [0, queries), got 6 and 6");
    CHECK_THROWS_WITH(
        measure_cache(made.head(), Mask(), coarse, {CacheNumber::nf4}),
        "through_cache: the channels must be a multiple of the format's block or group, got 32 and 64");
}
