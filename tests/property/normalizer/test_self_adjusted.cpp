// Self-adjusted softmax, both forms, against their formulas.
#include <attnscope/normalizer/self_adjusted_softmax.hpp>
#include <support/laws.hpp>
#include <support/norm_reference.hpp>
#include <support/solved_reference.hpp>

using namespace attnscope_test;
using namespace attnscope;

TEMPLATE_TEST_CASE("self-adjusted softmax obeys the laws of a normaliser", "[laws][selfadjusted]", float,
                   double) {
    const SmoothReference reference{SelfAdjustedFormula{}};
    test_laws<TestType>(SelfAdjustedSoftmax(), reference);
    test_special_rows<TestType>(SelfAdjustedSoftmax(), reference);
    const SmoothReference plain{PlainSelfAdjustedFormula{}};
    test_laws<TestType>(SelfAdjustedSoftmaxPlain(), plain);
    test_special_rows<TestType>(SelfAdjustedSoftmaxPlain(), plain);
}

TEMPLATE_TEST_CASE("dense Jacobians and norms of self-adjusted softmax, rows with ties included",
                   "[selfadjusted][norms]", float, double) {
    test_norms<TestType>(SelfAdjustedSoftmax(), SmoothReference{SelfAdjustedFormula{}});
    test_norms<TestType>(SelfAdjustedSoftmaxPlain(), SmoothReference{PlainSelfAdjustedFormula{}});
}

TEST_CASE("self-adjusted softmax on rows by hand", "[selfadjusted]") {
    const double u = std::numeric_limits<double>::epsilon();
    const SelfAdjustedSoftmax adjusted;
    RowStatus status{};
    // lo = -1, hi = log 2: q = (1/e, 1, 2)/(3 + 1/e), f = (0, 1, 1 + log 2)/(1 + log 2).
    const double e = std::exp(-1.0), log2 = std::log(2.0), sum = 3 + e;
    std::vector<double> p = weights_of(adjusted, std::vector<double>{-1, 0, log2}, &status);
    CHECK(status == RowStatus::normal);
    CHECK(p[0] == 0);
    CHECK(std::abs(p[1] - 1 / sum / (1 + log2)) <= 8 * u);
    CHECK(std::abs(p[2] - 2 / sum) <= 8 * u);
    // All above 0: lo is the constant 0; all below: hi is.
    p = weights_of(adjusted, std::vector<double>{log2, 2 * log2});
    CHECK(std::abs(p[0] - 1.0 / 6) <= 8 * u);
    CHECK(std::abs(p[1] - 2.0 / 3) <= 8 * u);
    p = weights_of(adjusted, std::vector<double>{-log2, -2 * log2});
    CHECK(std::abs(p[0] - 1.0 / 3) <= 8 * u);
    CHECK(p[1] == 0);
    p = weights_of(SelfAdjustedSoftmaxPlain(), std::vector<double>{-log2, log2});
    CHECK(std::abs(p[0] + log2 / 5) <= 8 * u);
    CHECK(std::abs(p[1] - 4 * log2 / 5) <= 8 * u);

    const std::vector<double> zero = {0, 0, -HUGE_VAL, 0}, none(4, 0.0), v = {1, 2, 3, 4};
    CHECK(same_bits(weights_of(adjusted, zero, &status), none));
    CHECK(status == RowStatus::empty);
    CHECK(jvp_of(adjusted, zero, none, v) == none);
    CHECK(vjp_of(adjusted, zero, none, v) == none);
    CHECK(std::string(SelfAdjustedSoftmax().name()) == "selfadjusted");
    CHECK(std::string(SelfAdjustedSoftmaxPlain().name()) == "selfadjusted-plain");
}

TEST_CASE("self-adjusted softmax sums to at most 1", "[selfadjusted]") {
    Worst worst;
    for_each_row<double>(test_seed(), lengths, 2, [&](const Where& where, const std::vector<double>& z) {
        Ref sum = 0;
        for (const double x : weights_of(SelfAdjustedSoftmax(), z)) {
            worst.meet(x >= 0, where);
            sum += x;
        }
        const Ref error = softmax_row(widen(z), 1).weight_units[TargetFormula::top(widen(z))];
        worst.meet(sum - 1, (2 * error + 64) * unit_roundoff<double> + plain_sum_error<double>(z.size()),
                   where);
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEST_CASE("at ties lo and hi move with the first key that attains them", "[selfadjusted]") {
    // z = (-1, 1, -1, 1): lo moves with key 0, hi with key 1. q = (1, e^2, 1, e^2)/(2 + 2 e^2), f = (0, 1, 0,
    // 1).
    const std::vector<double> z = {-1, 1, -1, 1}, p = weights_of(SelfAdjustedSoftmax(), z);
    const double low = 0.5 / (1 + std::exp(2.0)), high = 0.5 - low, u = std::numeric_limits<double>::epsilon();
    const auto column = [&](std::size_t j) {
        std::vector<double> unit(4, 0.0);
        unit[j] = 1;
        return jvp_of(SelfAdjustedSoftmax(), z, p, unit);
    };
    const auto check = [&](std::size_t j, std::vector<double> expected) {
        const std::vector<double> found = column(j);
        for (std::size_t i = 0; i < 4; ++i) {
            CAPTURE(i, j, found[i], expected[i]);
            CHECK(std::abs(found[i] - expected[i]) <= 16 * u);
        }
    };
    check(0, {0, -high * low, -low / 2, -high * low});
    check(2, {0, -high * low, low / 2, -high * low});
    check(1, {0, high * (1 - high), 0, -high * high - high / 2});
    check(3, {0, -high * high, 0, high * (1 - high) + high / 2});
}
