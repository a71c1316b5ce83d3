// Corollary 3 and Lemma 2 with what the row's weights say: they hold on every family (tests of the audit), are attained
// by rows of any length, and 0.99 of them is too little.
#include <attnscope/audit/row.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// corollary3 and lemma2 of a softmax row.
std::array<Bound<double>, 2> both(const std::vector<double>& z, double temperature) {
    RowMeter meter;
    const MeasuredRow& row = meter(Softmax(temperature), in(z));
    const double limit = weight_gradient_limit<double>(row.p);
    return {corollary3_sharp(row.norms, temperature, row.weight_error(), limit),
            lemma2_sharp(row.norms, 1 / temperature, row.weight_error(), limit)};
}

} // namespace

TEST_CASE("corollary 3 and Lemma 2 are attained at every length by two equal keys above equal others",
          "[theorem][corollary3][lemma2]") {
    for (const std::size_t n : {2u, 3u, 17u, 256u, 1000u})
        for (const double temperature : {0.05, 1.0, 50.0})
            for (const double gap : {0.0, 0.3, 2.0, 9.0, 40.0}) {
                CAPTURE(n, temperature, gap);
                std::vector<double> z(n, 5 - gap * temperature);
                z[0] = z[n - 1] = 5;
                const double expected = 1 / (2 + static_cast<double>(n - 2) * std::exp(-gap)) / temperature;
                for (const Bound<double>& bound : both(z, temperature)) {
                    check_attained(bound);
                    CHECK(std::abs(bound.value - expected) < 1e-13 * expected);
                }
            }
    // Two keys of unequal weight among masked ones: 2 p1 (1-p1)/T, down to where p1 is rounded to 1.
    for (const double gap : {1e-3, 1.0, 20.0, 60.0, 300.0}) {
        CAPTURE(gap);
        const std::vector<double> z = {-gap, -infinity, 0, -infinity};
        const double rest = 1 / (1 + std::exp(gap));
        for (const Bound<double>& bound : both(z, 1)) {
            check_attained(bound);
            CHECK(std::abs(bound.value - 2 * rest * (1 - rest)) < 1e-13 * rest);
        }
    }
    // Several equal keys that have nearly everything: p1/T.
    for (const std::size_t top : {2u, 5u, 100u}) {
        std::vector<double> z(top, 1);
        z.insert(z.begin() + 1, {-40, -45, -41});
        for (const Bound<double>& bound : both(z, 0.5)) check_attained(bound);
    }
}

TEST_CASE("the limit of a row's Jacobian is far below 1/(2T) in long rows", "[corollary3]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 231);
    Audit audit;
    RowAuditor auditor;
    for (int repetition = 0; repetition < 100; ++repetition) {
        const std::vector<double> z = normal_row<double>(random, 1024);
        auditor(audit, Softmax(), in(z));
        auditor(audit, PointwiseNormalizer<Softplus>(), in(z));
    }
    CHECK(audit.at(corollary3_sharp_statement).median_tightness() > 0.9); // 0.03 against 1/(2T)
    CHECK(audit.at(lemma2_sharp_statement).max_tightness() > 0.9);
    CHECK(audit.sharp_violations() == 0);
}

TEST_CASE("the limit of a row's Jacobian: rows without movement, and rows that are none", "[corollary3]") {
    CHECK(weight_gradient_limit(std::vector<double>{}) == 0);
    CHECK(weight_gradient_limit(std::vector<double>{0, 1, 0}) == 0);
    CHECK(weight_gradient_limit(std::vector<double>{0, 0}) == 0);
    CHECK(weight_gradient_limit(std::vector<float>{0.5F, 0.5F, 0}) == 0.5);
    CHECK(std::isnan(weight_gradient_limit(std::vector<double>{0.5, std::nan(""), 0.5})));
    CHECK(std::abs(weight_gradient_limit(std::vector<double>{0.5, 0.25, 0.25}) - 0.4) < 1e-15);
    // Any weights: |J|_2 of (1/2, 1/4, 1/4) is below the limit.
    const std::vector<double> z = {std::log(2.0), 0, 0};
    CHECK(jacobian_norms(Softmax(), z).spectral.value <= 0.4);
    // One key at a temperature whose inverse overflows: nothing moves.
    RowMeter meter;
    const std::vector<double> apart = {0, -1};
    const double cold = std::numeric_limits<double>::denorm_min();
    const MeasuredRow& row = meter(Softmax(cold), in(apart));
    CHECK(lemma2_sharp(row.norms, 1 / cold, row.weight_error(), weight_gradient_limit<double>(row.p)).value ==
          0);
}

TEST_CASE("the inf->1 norm: the limits are attained, and a cut finds nearly all of it", "[theorem][inf_to_1]") {
    const auto bounds = [](const std::vector<double>& z, double temperature) {
        RowMeter meter;
        const MeasuredRow& row = meter(Softmax(temperature), in(z));
        return jacobian_inf_to_1_sharp(row.norms, balanced_mass<double>(row.p), temperature,
                                       row.weight_error());
    };
    for (const double temperature : {0.05, 1.0, 50.0}) {
        // Below: an odd number of equal keys; above: an even one.
        for (const std::size_t n : {3u, 5u, 17u})
            check_attained(bounds(std::vector<double>(n, 2), temperature)[0]);
        for (const std::size_t n : {2u, 4u, 256u})
            check_attained(bounds(std::vector<double>(n, 2), temperature)[1]);
        // One key with half of the weight or more: both at once, however little is left.
        for (const double gap : {0.0, 1.0, 30.0, 300.0})
            for (const std::size_t at : {0u, 2u}) {
                std::vector<double> z = {-gap * temperature, -infinity, -infinity, -infinity};
                z[at] = -gap * temperature;
                z[1] = 0;
                if (at != 0) z[0] = -infinity;
                for (const Bound<double>& bound : bounds(z, temperature)) check_attained(bound);
            }
    }
    // The exact norm of short rows, over all cuts.
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst inside;
    for_each_row<double>(seed, short_lengths, 3, [&](const Where& where, const std::vector<double>& z) {
        if (z.size() > 9 || visible_count(z) == 0) return;
        RowMeter meter;
        const MeasuredRow& row = meter(Softmax(), in(z));
        Ref theta = 0;
        for (std::size_t set = 0; set < (std::size_t(1) << z.size()); ++set) {
            Ref a = 0, b = 0;
            for (std::size_t i = 0; i < z.size(); ++i) (set >> i & 1 ? a : b) += Ref(row.p[i]);
            theta = std::max(theta, 4 * a * b);
        }
        const Ref error = 64 * unit_roundoff<double> * theta + 1e-300L;
        inside.meet(Ref(balanced_mass<double>(row.p)) - theta, error, where);
        inside.meet(theta - Ref(row.norms.infinity_to_one.upper), error, where);
        inside.meet(Ref(row.norms.infinity_to_one.lower) - Ref(balanced_mass<double>(row.p)), error, where);
    });
    ATTNSCOPE_CHECK_WORST(inside);
    CHECK(balanced_mass(std::vector<double>{}) == 0);
    CHECK(balanced_mass(std::vector<double>{0, 0}) == 0);
    CHECK(std::isnan(balanced_mass(std::vector<double>{0.5, std::nan("")})));
}
