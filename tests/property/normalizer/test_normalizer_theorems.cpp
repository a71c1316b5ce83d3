// Statements about normalisers beyond softmax, each with three tests: it holds on every family of rows, it is
// attained where it should be, and the same bound scaled by 0.99 is caught there.
#include <attnscope/audit/row.hpp>
#include <support/attained.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

void check_clean(const Audit& audit, std::string_view id, std::size_t at_least) {
    CAPTURE(std::string(id));
    const AuditRecord& record = audit.at(named_statement(id, Form::sharp));
    CHECK(record.checked >= at_least);
    CHECK(record[Verdict::violated] == 0);
    CHECK(record[Verdict::undefined] == 0);
    CHECK(record.max_tightness() > 0.99);
}

/// Audits rows of every family and length.
template <class N>
Audit audit_families(const N& normalizer, int repetitions = 4) {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Audit audit;
    RowAuditor auditor;
    for_each_row<double>(seed, lengths, repetitions, [&](const Where&, const std::vector<double>& z) {
        auditor(audit, normalizer, in(z));
    });
    CHECK(audit.sharp_violations() == 0);
    return audit;
}

/// Row of n keys: one `gap` above all others.
std::vector<double> one_above(std::size_t n, double gap) {
    return row_of(problems::needle_row(Index(n), gap, Index(n / 2)), -0.25);
}

RowStatistics<double> scaled_row(const std::vector<double>& z, double s) {
    return row_statistics<double>(in(z), 1 / (s * std::log(static_cast<double>(visible_count(z)))));
}

} // namespace

TEST_CASE("ssmax holds on every family", "[theorem][ssmax]") {
    for (const double s : {0.1, 0.43, 2.0}) {
        const Audit audit = audit_families(ScalableSoftmax(s));
        check_clean(audit, "ssmax", 450); // rows of one key have beta = 0 and no temperature
        check_clean(audit, "lemma1", 450);
        check_clean(audit, "corollary3", 450);
    }
    check_clean(audit_families(LogLengthSoftmax(0.2)), "ssmax", 450);
    check_clean(audit_families(YarnSoftmax(16)), "ssmax", 450);
}

TEST_CASE("ssmax is attained by one key above equal others", "[theorem][ssmax]") {
    for (const std::size_t n : {2u, 3u, 17u, 256u, 1000u})
        for (const double s : {0.1, 0.43, 2.0})
            for (const double gap : {0.25, 1.0, 2.5}) {
                CAPTURE(n, s, gap);
                const auto row = scaled_row(one_above(n, gap), s);
                const Ref power = std::pow(static_cast<Ref>(n), -Ref(s) * Ref(gap));
                const Ref exact = 1 / (1 + static_cast<Ref>(n - 1) * power);
                for (const Bound<double>& bound : ssmax_sharp(row)) {
                    CHECK(std::abs(Ref(bound.value) - exact) <= bound.tolerance);
                    // Near 1 a factor of 0.99 stays within the trivial limit, but not within what is measured.
                    check_attained(bound);
                }
            }
}

TEST_CASE("beyond its threshold scalable softmax keeps the best key, below it loses it", "[theorem][ssmax]") {
    const double gap = 1.5;
    const auto threshold = ssmax_threshold(gap, gap);
    CHECK(threshold.lower == threshold.upper);
    double kept = 0, even = 0, lost = 1;
    for (std::size_t n = 16; n <= (1u << 20); n *= 16) {
        const auto weight = [&](double s) { return scaled_row(one_above(n, gap), s).max_weight(); };
        const double above = weight(1.25 * threshold.upper), at = weight(threshold.upper),
                     below = weight(0.8 * threshold.lower);
        CHECK(above > kept);
        CHECK(below < lost);
        kept = above;
        even = at;
        lost = below;
    }
    CHECK(kept > 0.96);
    CHECK(std::abs(even - 0.5) < 1e-6); // 1/(1 + (n-1)/n)
    CHECK(lost < 0.07);
    // A wider spread than the gap leaves a range in which other keys decide.
    const auto range = ssmax_threshold(0.5, 4.0);
    CHECK(range.lower == 0.25);
    CHECK(range.upper == 2);
}

TEST_CASE("the support of entmax stays within its limits on every family", "[theorem][entmax]") {
    for (const double alpha : {1.0, 1.05, 1.33, 1.5, 2.0, 3.0, 10.0}) {
        CAPTURE(alpha);
        const Audit audit = audit_families(Entmax(alpha));
        check_clean(audit, "entmax_support", 500);
        check_clean(audit, "entmax_non_dispersion", 500);
    }
}

TEST_CASE("entmax does not disperse: keys out of reach never matter, equal ones attain the limit",
          "[theorem][entmax]") {
    for (const double alpha : {1.25, 1.5, 2.0, 3.0}) {
        CAPTURE(alpha);
        const auto bound = [&](const std::vector<double>& z) {
            return entmax_non_dispersion_sharp(z, alpha, entropy_of_weights(weights(Entmax(alpha), z)));
        };
        const double edge = 1 / (alpha - 1);
        for (const std::size_t far : {1u, 200u, 5000u}) {
            std::vector<double> z(4, 1);
            z.resize(4 + far, 1 - edge * (1 + 1e-9));
            const Bound<double> found = bound(z);
            check_attained(found);
            CHECK(found.value == std::log(4.0));
            CHECK(found.verdict() != Verdict::vacuous);
        }
        CHECK(bound({1, 1, 1}).verdict() == Verdict::vacuous);
    }
    CHECK(entmax_non_dispersion_sharp(std::vector<double>{}, 1.5, 0.0).verdict() == Verdict::undefined);
}

TEST_CASE("the limits of the support of entmax are attained", "[theorem][entmax]") {
    for (const double alpha : {1.25, 1.5, 2.0, 3.0}) {
        CAPTURE(alpha);
        const auto bounds = [&](const std::vector<double>& z) {
            return entmax_support_sharp<double>(in(z), alpha, Entmax(alpha).threshold<double>(in(z)).support);
        };
        // Equal keys all have weight: the lower limit counts them.
        for (const std::size_t n : {2u, 9u, 256u}) check_attained(bounds(std::vector<double>(n, 0.5))[0]);
        // Two keys a little closer than 1/(alpha-1) both have weight; at that distance only one has.
        const double edge = 1 / (alpha - 1);
        const auto near = bounds({0, -edge * (1 - 1e-6)}), far = bounds({0, -edge * (1 + 1e-6)});
        CHECK(near[1].measured == 2);
        check_attained(near[1]);
        CHECK(far[1].measured == 1);
        check_attained(far[1]);
        // Keys out of reach do not count: among three near keys one may lie 3^{1-alpha}/(alpha-1) below.
        const double reach = entmax_decisive_gaps(Index(3), alpha).lower;
        std::vector<double> crowd(400, -2 * edge);
        crowd[0] = crowd[100] = 0;
        crowd[300] = -reach * (1 - 1e-3);
        CHECK(bounds(crowd)[0].value == 3);
        check_attained(bounds(crowd)[0]);
        crowd[300] = -reach * (1 + 1e-3);
        CHECK(bounds(crowd)[0].value == 2);
        // Keys closer than n^{1-alpha}/(alpha-1) have weight whatever the others do: here all others are equal
        // to the largest, which makes p1 as small as it can be.
        const std::size_t n = 50;
        std::vector<double> z(n, 0);
        const double least = entmax_decisive_gaps(static_cast<Index>(n), alpha).lower;
        z[7] = -least * (1 - 1e-3);
        CHECK(bounds(z)[0].value == static_cast<double>(n));
        check_attained(bounds(z)[0]);
    }
    CHECK(entmax_decisive_gaps(Index(10), 1.0).upper == std::numeric_limits<double>::infinity());
}

TEST_CASE("sigmoid attention's sensitivity is at most 1/4", "[theorem][sigmoid]") {
    for (const double bias : {-3.0, 0.0, 2.0})
        check_clean(audit_families(SigmoidAttention(bias)), "sigmoid_gradient", 500);
    const Audit per_length = audit_families(SigmoidAttention());
    CHECK(per_length.at(sigmoid_gradient_sharp_statement)[Verdict::violated] == 0);
    for (const double bias : {-3.0, 0.0, 2.0}) {
        const SigmoidAttention sigmoid(bias);
        const std::vector<double> z = {-bias, 4, -7};
        std::vector<double> p(z.size());
        sigmoid.apply<double>(in(z), out(p));
        check_attained(sigmoid_gradient_sharp(jacobian_norms(sigmoid, in(z), in(p)),
                                              16 * std::numeric_limits<double>::epsilon()));
    }
}

TEMPLATE_TEST_CASE("Lemma 1 and Lemma 2 hold for every member of the general family", "[theorem][family]",
                   Exponential, Sigmoid, Softplus, StableExponential, Quadratic) {
    const Audit audit = audit_families(PointwiseNormalizer<TestType>());
    check_clean(audit, "lemma1", 500);
    check_clean(audit, "lemma2", 500);
    CHECK(audit.at(lemma1_published_statement).checked == audit.at(lemma1_sharp_statement).checked);
    CHECK(audit.at(lemma1_published_statement)[Verdict::violated] == 0);

    // Lemma 1 is attained by one key above or below equal others, Lemma 2 by two equal keys.
    const PointwiseNormalizer<TestType> normalizer;
    const auto at = [&](const std::vector<double>& z) {
        std::vector<double> p(z.size());
        normalizer.template apply<double>(in(z), out(p));
        return p;
    };
    for (const double moved : {-1.5, 1.5})
        for (const std::size_t n : {2u, 9u, 255u}) {
            std::vector<double> z(n, 0.75);
            z[n / 3] += moved;
            const std::vector<double> p = at(z);
            const auto [low, high] = std::minmax_element(p.begin(), p.end());
            const double a = normalizer.template log_value<double>(0.75),
                         b = normalizer.template log_value<double>(0.75 + moved);
            const auto bounds = lemma1_sharp<double>(
                {static_cast<Index>(n), *high, *low, 64 * unit_roundoff<double> * 1.0}, std::abs(a - b));
            check_attained(bounds[b > a ? 1 : 0]);
        }
    for (const double x : {-2.0, 0.5, 3.0}) {
        CAPTURE(x);
        const std::vector<double> z = {x, x}, p = at(z);
        const double slope = std::abs(normalizer.template log_derivative<double>(x));
        check_attained(lemma2_sharp(jacobian_norms(normalizer, in(z), in(p)), slope,
                                    8 * std::numeric_limits<double>::epsilon()));
    }
}

TEST_CASE("Lemma 2 holds for powers of ReLU, and Lemma 1 does not speak of them", "[theorem][family]") {
    for (const double k : {1.0, 2.0, 2.5}) {
        const Audit audit = audit_families(PointwiseNormalizer<ReluPower>(ReluPower(k)));
        check_clean(audit, "lemma2", 300);
        const AuditRecord& lemma1 = audit.at(lemma1_sharp_statement);
        CHECK(lemma1[Verdict::violated] == 0);
        CHECK(lemma1[Verdict::undefined] > 0); // F = 0 somewhere: kappa is infinite
    }
}

TEST_CASE("Lemma 2 holds behind a softcap and in front of a choice", "[theorem][family]") {
    check_clean(audit_families(softcap(3) | Softmax()), "lemma2", 500);
    check_clean(audit_families(softcap(3) | ScalableSoftmax(0.43) | top_k(8)), "lemma2", 500);
    check_clean(audit_families(softcap(3) | PointwiseNormalizer<Softplus>()), "lemma2", 500);
    // A temperature in front is one on its own scale.
    const Audit audit = audit_families(attnscope::temperature(2) | ScalableSoftmax(0.43));
    check_clean(audit, "ssmax", 450);
}
