// What logit errors and quantised keys do to a row: limits, where they are attained, and the storage formats.
#include <attnscope/cache/format.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>
#include <attnscope/sensitivity/rank_collapse.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>

#include <set>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// KL of two levels r apart with share theta of the upper one.
Ref two_level_kl(Ref theta, Ref r) { return std::log1p(theta * std::expm1(r)) - theta * r; }

} // namespace

TEST_CASE("limits of a logit error are attained", "[theorem][perturbation]") {
    for (const double r : {1e-3, 0.1, 0.9, 1.1, 3.0, 20.0, 100.0}) {
        CAPTURE(r);
        // Two keys that change places are as far apart as the range allows.
        const std::vector<double> z = {r / 4, -r / 4}, swapped = {-r / 4, r / 4};
        Matrix<double> values(2, 3);
        values << 1, 2, 3, -1, 0, 5;
        const double diameter = token_diameter(MatrixView<double>(values));
        auto row = measure_perturbation(in(z), in(swapped), MatrixView<double>(values), diameter);
        const auto error = perturbation_error<double>(2, r, r);
        CHECK(row.range == r);
        check_attained(perturbation_tv_sharp(row, error));
        check_attained(perturbation_output_sharp(row, error));
        check_attained([&] {
            Bound<double> gap = perturbation_gap_sharp(row, error); // r/2 before, -r/2 after: a limit below 0
            std::swap(gap.value, gap.measured);
            gap.value = -gap.value, gap.measured = -gap.measured; // the same statement about the gap's loss
            return gap;
        }());

        // KL: two levels, the upper one on the worst share; both directions by changing the roles.
        const double share = kl_worst_share(r);
        const std::vector<double> from = {std::log(share), std::log1p(-share)}, to = {from[0] + r, from[1]};
        row = measure_perturbation(in(from), in(to));
        const auto rounding = perturbation_error<double>(2, std::abs(from[0] - from[1]) + r, r);
        if (r > 1e-2) // below, rounding of the logits leaves no room for 1 %
            check_attained(perturbation_kl_sharp(row, rounding));
        CHECK(perturbation_kl_sharp(row, rounding).verdict() != Verdict::violated);
        row = measure_perturbation(in(to), in(from));
        CHECK(perturbation_kl_sharp(row, rounding).tightness() > 1 - 1e-6);
    }
}

TEST_CASE("the KL limit is the maximum over two levels, below r^2/8, and smooth", "[theorem][perturbation]") {
    Worst maximum, share, quarter;
    for (double r = 1e-6; r < 600; r *= 1.17) {
        const Where where{"two levels", 2, r};
        // Golden section on the share in extended precision.
        Ref low = 0, high = 1;
        for (int i = 0; i < 200; ++i) {
            const Ref a = low + (high - low) * 0.381966L, b = low + (high - low) * 0.618034L;
            (two_level_kl(a, Ref(r)) < two_level_kl(b, Ref(r)) ? low : high) =
                two_level_kl(a, Ref(r)) < two_level_kl(b, Ref(r)) ? a : b;
        }
        const Ref best = two_level_kl((low + high) / 2, Ref(r));
        const Ref rounding =
            64 * unit_roundoff<Ref> * (1 + Ref(r)); // of the reference: log1p minus its linear part
        maximum.meet(std::abs(Ref(kl_limit(r)) - best), 32 * unit_roundoff<double> * best + rounding, where);
        share.meet(std::abs(Ref(kl_limit(r)) - two_level_kl(Ref(kl_worst_share(r)), Ref(r))),
                   32 * unit_roundoff<double> * best + rounding, where);
        quarter.meet(kl_limit(r) <= r * r / 8 * (1 + 1e-15), where);
    }
    ATTNSCOPE_CHECK_WORST(maximum);
    ATTNSCOPE_CHECK_WORST(share);
    ATTNSCOPE_CHECK_WORST(quarter);
    CHECK(kl_limit(0.0) == 0);
    CHECK(kl_limit(infinity) == infinity);
    CHECK(std::abs(kl_limit(1e-8) / (1e-16 / 8) - 1) < 1e-14);
    CHECK(std::abs(kl_limit(1 - 1e-15) / kl_limit(1 + 1e-15) - 1) < 1e-14); // series and closed form meet
    CHECK(kl_limit(100.0) < 0.08 * (100.0 * 100 / 8));
    CHECK_THROWS_WITH(kl_limit(-1.0), "kl_limit: range must be >= 0, got -1");
}

TEST_CASE("a measured perturbation agrees with extended precision", "[perturbation]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst output, tv, kept;
    for_each_row<double>(seed, lengths, 1, [&](const Where& where, const std::vector<double>& z) {
        if (visible_count(z) == 0) return;
        for (const double size : {1e-6, 0.1, 5.0}) {
            SplitMix64 random = generator(seed, z.size(), 61);
            const Index n = static_cast<Index>(z.size());
            std::vector<double> moved = z;
            for (double& x : moved) x += size * random.normal();
            Matrix<double> v(n, 4);
            for (Index i = 0; i < v.size(); ++i) v.data()[i] = random.normal();
            const auto row = measure_perturbation(in(z), in(moved), MatrixView<double>(v), 0);
            Ref top = -infinity, new_top = -infinity, sum = 0, new_sum = 0, apart = 0;
            for (const double x : z) top = std::max(top, Ref(x));
            for (const double x : moved) new_top = std::max(new_top, Ref(x));
            for (std::size_t i = 0; i < z.size(); ++i)
                sum += std::exp(Ref(z[i]) - top), new_sum += std::exp(Ref(moved[i]) - new_top);
            std::array<Ref, 4> change{};
            Ref length = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref d = std::exp(Ref(moved[i]) - new_top) / new_sum - std::exp(Ref(z[i]) - top) / sum;
                apart += std::abs(d) / 2;
                for (std::size_t c = 0; c < 4; ++c)
                    change[c] += d * Ref(v(static_cast<Index>(i), static_cast<Index>(c)));
            }
            for (const Ref x : change) length += x * x;
            length = std::sqrt(length);
            const Ref spread = Ref(row_statistics<double>(in(z)).logit_spread());
            const Ref error = unit_roundoff<double> * (8 * spread + 8 * Ref(size) + 64 + Ref(n) / 4);
            tv.meet(std::abs(Ref(row.total_variation) - apart), error, where);
            output.meet(std::abs(Ref(row.output_change) - length), 16 * error, where);
            kept.meet(row.gap <= row.range || row.gap_after > 0, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(output);
    ATTNSCOPE_CHECK_WORST(tv);
    ATTNSCOPE_CHECK_WORST(kept);

    // Special rows.
    const std::vector<double> none(2, -infinity), one = {-infinity, 3}, other = {-infinity, 4};
    auto row = measure_perturbation(in(none), in(none));
    CHECK(row.range == 0);
    CHECK(row.gap == infinity);
    row = measure_perturbation(in(one), in(other));
    CHECK(row.range == 0);
    CHECK(row.total_variation == 0);
    CHECK(row.gap_after == infinity);
    CHECK(perturbation_gap_sharp(row, perturbation_error<double>(1, 0, 1)).verdict() == Verdict::vacuous);
    row = measure_perturbation(in(std::vector<double>{0, 1}), in(std::vector<double>{0, -infinity}));
    CHECK(row.range == infinity); // a key is lost
    CHECK(perturbation_tv_sharp(row, perturbation_error<double>(2, 1, 0)).verdict() == Verdict::vacuous);
    row = measure_perturbation(in(std::vector<double>{0, std::nan("")}), in(std::vector<double>{0, 1}));
    CHECK(std::isnan(row.range));
    CHECK(perturbation_tv_sharp(row, perturbation_error<double>(2, 1, 1)).verdict() == Verdict::undefined);
}

TEST_CASE("a cache stores the nearest number of its format", "[quantized]") {
    // All numbers of an 8-bit float, from its bits.
    const auto numbers = [](int exponent_bits, int mantissa_bits, int bias, double most) {
        std::set<double> all;
        for (int e = 0; e < (1 << exponent_bits); ++e)
            for (int m = 0; m < (1 << mantissa_bits); ++m) {
                const double fraction = std::ldexp(static_cast<double>(m), -mantissa_bits);
                const double x = e == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, e - bias);
                if (x <= most) all.insert(x), all.insert(-x);
            }
        return all;
    };
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 71);
    const auto check = [&](CacheFormat format, const std::set<double>& all, double most) {
        CAPTURE(static_cast<int>(format.number), format.bits);
        Matrix<double> x(200, 1);
        for (Index i = 0; i < x.size(); ++i)
            x(i, 0) = most * std::pow(2.0, -16 * random.uniform()) * random.normal() / 4;
        x(0, 0) = most; // the scale is 1
        for (Index i = 1; i < x.size(); ++i) x(i, 0) = std::clamp(x(i, 0), -most, most);
        const Matrix<double> stored = through_cache(MatrixView<double>(x), format);
        for (Index i = 0; i < x.size(); ++i) {
            CAPTURE(x(i, 0), stored(i, 0));
            CHECK(all.count(stored(i, 0)) == 1);
            for (const double y : all) CHECK(std::abs(stored(i, 0) - x(i, 0)) <= std::abs(y - x(i, 0)));
        }
        // What is stored already stays.
        const Matrix<double> again = through_cache(MatrixView<double>(stored), format);
        CHECK(again == stored);
    };
    check({CacheNumber::float8_e4m3}, numbers(4, 3, 7, 448), 448);
    check({CacheNumber::float8_e5m2}, numbers(5, 2, 15, 57344), 57344);
    for (const int bits : {2, 4, 8}) {
        std::set<double> all;
        const int most = (1 << (bits - 1)) - 1;
        for (int i = -most; i <= most; ++i) all.insert(i);
        check({CacheNumber::integer, bits}, all, most);
    }
}

TEST_CASE("scales are shared as asked, errors stay within half a step", "[quantized]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 81);
    Matrix<float> x(40, 6);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(random.normal());
    x.col(2) *= 1000;
    x.row(5).setZero();
    x.col(4).setZero();
    for (const CacheScale scale : {CacheScale::channel, CacheScale::token})
        for (const int bits : {2, 4, 8, 12}) {
            const Matrix<float> stored =
                through_cache(MatrixView<float>(x), {CacheNumber::integer, bits, scale});
            const double steps = std::ldexp(1.0, bits - 1) - 1;
            for (Index i = 0; i < x.rows(); ++i)
                for (Index j = 0; j < x.cols(); ++j) {
                    const double largest = scale == CacheScale::channel ? x.col(j).cwiseAbs().maxCoeff()
                                                                        : x.row(i).cwiseAbs().maxCoeff();
                    CHECK(std::abs(double(stored(i, j)) - double(x(i, j))) <=
                          largest / steps * (0.5 + 1e-6 * steps));
                }
            CHECK(stored.row(5).isZero(0));
        }
    x(7, 1) = std::numeric_limits<float>::infinity();
    const Matrix<float> by_token =
        through_cache(MatrixView<float>(x), {CacheNumber::integer, 8, CacheScale::token});
    CHECK(by_token.row(7).array().isNaN().all());
    CHECK(by_token.row(8).allFinite());
    const Matrix<float> by_channel = through_cache(MatrixView<float>(x), {});
    CHECK(by_channel.col(1).array().isNaN().all());
    CHECK(by_channel.col(0).allFinite());
    CHECK_THROWS_WITH(through_cache(MatrixView<float>(x), {CacheNumber::integer, 1}),
                      "through_cache: bits must be in [2, 24], got 1");
}

TEMPLATE_TEST_CASE("quantised keys: every row of random heads keeps its certificate", "[theorem][quantized]",
                   float, double) {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    std::size_t rows = 0, kept = 0, promised = 0;
    Worst certificates, moved_output;
    for (const Index n : {Index(1), Index(2), Index(17), Index(60)})
        for (const double size : {0.3, 2.0})
            for (const int kind : {0, 1, 2}) {
                SplitMix64 random = generator(seed, n, kind, 91);
                Matrix<TestType> q(n, 8), k(n, 8), v(n, 5);
                for (auto* m : {&q, &k, &v})
                    for (Index i = 0; i < m->size(); ++i)
                        m->data()[i] = static_cast<TestType>(size * random.normal());
                const HeadView<TestType> head(q, k, v);
                const Mask mask = kind == 0   ? Mask::none()
                                  : kind == 1 ? Mask::causal()
                                              : Mask::sliding_window(5);
                const Row<TestType> diameters = visible_diameters(MatrixView<TestType>(v), mask, n);
                for (const CacheFormat format :
                     {CacheFormat{CacheNumber::integer, 3},
                      CacheFormat{CacheNumber::integer, 8, CacheScale::token},
                      CacheFormat{CacheNumber::float8_e4m3}, CacheFormat{CacheNumber::float8_e5m2}}) {
                    const Matrix<TestType> stored = through_cache(MatrixView<TestType>(k), format);
                    for_each_key_perturbation(
                        head, MatrixView<TestType>(stored), mask,
                        std::span<const TestType>(diameters.data(), static_cast<std::size_t>(n)),
                        [&](Index query, const Perturbation<double>& row) {
                            const Where where{"head", static_cast<std::size_t>(n), size, seed};
                            ++rows;
                            const auto error = perturbation_error<double>(n, 60, row.range + 1);
                            for (const auto& bound :
                                 {perturbation_tv_sharp(row, error), perturbation_kl_sharp(row, error),
                                  perturbation_output_sharp(row, error), perturbation_gap_sharp(row, error)})
                                certificates.meet(bound.verdict() != Verdict::violated &&
                                                      bound.verdict() != Verdict::undefined,
                                                  where);
                            promised += row.gap > row.range;
                            kept += row.gap_after > 0;
                            // The diameter is that of the values seen, or more.
                            double widest = 0;
                            mask.visible(query, n).for_each([&](Index a) {
                                mask.visible(query, n).for_each([&](Index b) {
                                    widest = std::max(widest, double((v.row(a) - v.row(b)).norm()));
                                });
                            });
                            moved_output.meet(row.diameter >= widest * (1 - 1e-6), where);
                        });
                }
            }
    ATTNSCOPE_CHECK_WORST(certificates);
    ATTNSCOPE_CHECK_WORST(moved_output);
    CHECK(rows > 1800);
    CHECK(promised > rows / 20);
    CHECK(kept >= promised);
    Matrix<TestType> q(2, 3), k(2, 3), wrong(3, 3);
    q.setOnes();
    k.setOnes();
    wrong.setOnes();
    CHECK_THROWS_AS(for_each_key_perturbation(HeadView<TestType>(q, k), MatrixView<TestType>(wrong), Mask(),
                                              std::span<const TestType>(), [](Index, const auto&) {}),
                    invalid_argument);
}

TEST_CASE("a concentrated row moves by less: attained by two keys whose lower one rises",
          "[theorem][perturbation]") {
    for (const double r : {1e-3, 0.1, 1.0, 5.0, 40.0, 300.0, 1000.0})
        for (const double gap : {0.6 * r, r, 2 * r + 1, r + 30, r + 200}) {
            if (gap > 700) continue; // the other weight is no normal number
            CAPTURE(r, gap);
            const std::vector<double> z = {0, -gap}, moved = {0, r - gap};
            Matrix<double> values(2, 2);
            values << 3, 4, 0, 0;
            const auto row = measure_perturbation(in(z), in(moved), MatrixView<double>(values), 5);
            const auto error = perturbation_error<double>(2, gap, r);
            const Bound<double> tv = perturbation_tv_sharp(row, error),
                                output = perturbation_output_sharp(row, error);
            CHECK(std::abs(tv.slack()) <= tv.tolerance);
            CHECK(tv.tightness() > 1 - 1e-10);
            CHECK(output.tightness() > 1 - 1e-10);
            CHECK(tv.value <= total_variation_limit(row.range));
            if (tv.value > 1e3 * tv.tolerance) check_attained(tv);
            // Without the factor 1-tau it would not be attained unless tau is small.
            const double grown = row.rest * std::expm1(row.range);
            if (row.rest > 0.01) CHECK(tv.value < 0.991 * grown / (1 + grown));
        }
    // Both forms meet where the row is no longer concentrated.
    for (const double r : {0.01, 1.0, 9.0}) {
        const double edge = 1 / (1 + std::exp(r / 2));
        CHECK(std::abs(concentrated_variation_limit(r, edge * (1 - 1e-12)) / std::tanh(r / 4) - 1) < 1e-10);
        CHECK(concentrated_variation_limit(r, edge) == std::tanh(r / 4));
        CHECK(concentrated_variation_limit(r, 0.9) == std::tanh(r / 4));
    }
    CHECK(concentrated_variation_limit(3, 0) == 0);
    CHECK(concentrated_variation_limit(1000.0, 0.0) == 0);
    CHECK(concentrated_variation_limit(infinity, 0.25) == 1);
    CHECK(concentrated_variation_limit(2000.0, 1e-300) == 1); // e^2000 wins
    CHECK_THROWS_AS(concentrated_variation_limit(1.0, -0.5), invalid_argument);
    CHECK_THROWS_AS(concentrated_variation_limit(-1.0, 0.5), invalid_argument);
}

TEST_CASE("errors of both signs: s^2/2 and s/2 on average, attained by small errors of flat rows",
          "[theorem][perturbation_mean]") {
    for (const double size : {1e-3, 1e-2, 0.04}) {
        CAPTURE(size);
        const std::vector<double> z(64, 2.5);
        std::vector<double> error(64);
        for (std::size_t i = 0; i < 64; ++i) error[i] = i % 2 == 0 ? size : -size;
        const auto mean = mean_perturbation(z, error);
        const auto rounding = perturbation_error<double>(64, 0, size);
        const Bound<double> kl = perturbation_mean_kl_sharp(mean, rounding),
                            tv = perturbation_mean_tv_sharp(mean, rounding);
        CHECK(kl.verdict() == Verdict::holds);
        CHECK(tv.verdict() == Verdict::holds);
        CHECK(kl.tightness() > 0.999);
        CHECK(tv.tightness() > 0.999);
        CHECK(tv.tightened(0.99).verdict() == Verdict::violated);
        CHECK(kl.tightened(0.99).verdict() == Verdict::violated);
        CHECK(std::abs(mean.kl - std::log(std::cosh(size))) < 1e-9 * size);
        CHECK(std::abs(mean.total_variation - std::tanh(size) / 2) < 1e-12);
    }
    // Not only two values: independent normal errors, over many draws, in a long row.
    SplitMix64 random = generator(test_seed(), 401);
    const std::vector<double> z = normal_row<double>(random, 1024);
    double kl = 0, squares = 0, tv = 0;
    constexpr int draws = 400;
    for (int draw = 0; draw < draws; ++draw) {
        std::vector<double> moved = z;
        for (double& x : moved) x += 0.7 * random.normal();
        const auto apart = row_divergence(z, moved);
        kl += apart.forward / draws;
        squares += apart.forward * apart.forward / draws;
        tv += apart.total_variation / draws;
    }
    const double deviation = std::sqrt((squares - kl * kl) / draws);
    CHECK(kl < 0.7 * 0.7 / 2 + 6 * deviation);
    CHECK(kl > 0.98 * 0.7 * 0.7 / 2); // r^2/8 of the range of such errors is ten times as large
    CHECK(tv < 0.35);

    const std::vector<double> none, masked(3, -infinity), bad = {0, std::nan("")}, zero(3, 0.0), two = {1, 1};
    CHECK(mean_perturbation(none, none).kl == 0);
    CHECK(mean_perturbation(masked, zero).size == 0);
    CHECK(std::isnan(mean_perturbation(bad, two).kl));
    CHECK(perturbation_mean_kl_sharp(mean_perturbation(bad, two), {}).verdict() == Verdict::undefined);
    CHECK(mean_perturbation(std::vector<double>{0, -infinity}, two).kl == 0);
    CHECK_THROWS_AS(mean_perturbation(zero, two), invalid_argument);
}
