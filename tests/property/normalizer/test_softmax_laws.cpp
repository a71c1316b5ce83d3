// The law suite on softmax, and what is special about it: temperature.
#include <attnscope/concentration/entropy.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <support/laws.hpp>

using namespace attnscope_test;
using attnscope::Softmax;

TEMPLATE_TEST_CASE("softmax obeys the laws of a normaliser at every temperature", "[laws][softmax]", float,
                   double, long double) {
    for (double temperature : temperatures) {
        const Softmax softmax(temperature);
        test_laws<TestType>(softmax, reference_of(softmax), temperature);
    }
}

TEMPLATE_TEST_CASE("softmax has defined results on special rows", "[laws][softmax]", float, double,
                   long double) {
    for (double temperature : temperatures) {
        const Softmax softmax(temperature);
        test_special_rows<TestType>(softmax, reference_of(softmax));
    }
}

TEMPLATE_TEST_CASE("softmax weights are 0 or normal numbers, never subnormal", "[laws][softmax]", float,
                   double) {
    using T = TestType;
    const T smallest = std::numeric_limits<T>::min();
    const T edge = std::log(smallest); // e^edge is the smallest normal number, about
    Worst worst;
    for (std::size_t n : lengths) {
        for (int step = -40; step <= 120; ++step) {
            std::vector<T> z(n, T(0));
            z[n / 2] = edge + T(step) / T(16);
            for (T p : weights_of(Softmax{}, z)) worst.meet(p == 0 || p >= smallest, Where{"underflow", n});
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("the derivative of softmax on a row with +inf is the formula at its weights",
                   "[laws][softmax]", float, double) {
    const TestType infinity = std::numeric_limits<TestType>::infinity();
    const std::vector<TestType> z = {infinity, 1, infinity, -infinity, 0};
    const std::vector<TestType> v = {3, 8, 1, 5, -2};
    const Softmax softmax(0.5);
    const std::vector<TestType> p = weights_of(softmax, z);
    // p = (1/2, 0, 1/2, 0, 0), <p, v> = 2, J v = p (v - 2)/T.
    CHECK(jvp_of(softmax, z, p, v) == std::vector<TestType>{1, 0, -1, 0, 0});
    CHECK(vjp_of(softmax, z, p, v) == std::vector<TestType>{1, 0, -1, 0, 0});
}

TEMPLATE_TEST_CASE("temperature divides the logits", "[laws][softmax]", float, double, long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst same, normalizer;
    for_each_row<T>(seed, lengths, 1, [&](Where where, const std::vector<T>& z) {
        for (double temperature : {0.25, 0.5, 2.0, 64.0}) { // powers of two: z/T is exact
            where.temperature = temperature;
            std::vector<T> divided = z;
            for (T& x : divided) x /= static_cast<T>(temperature);
            const std::vector<T> hot = weights_of(Softmax(temperature), z),
                                 cold = weights_of(Softmax(1), divided);
            const auto reference = reference_of(Softmax(temperature));
            const ReferenceRow row = reference.row(widen(z));
            const RefRow error = reference.template weight_error<T>(widen(z));
            for (std::size_t i = 0; i < z.size(); ++i)
                same.meet(std::abs(Ref(hot[i]) - Ref(cold[i])),
                          2 * (row.weights[i] * error[i] + 2 * Ref(std::numeric_limits<T>::min())), where);
            if (row.visible == 0) continue;
            // "relative 2u on the sum, plus u |z_max/T|", the sum's own rounding, and that of the arguments
            // (E_p of 3 (z_max - z)/T) as in every weight.
            const Ref u = unit_roundoff<T> + unit_roundoff<Ref>, top = row.log_value[row.top];
            Ref arguments = 0;
            for (std::size_t i = 0; i < z.size(); ++i)
                if (row.weights[i] > 0) arguments += row.weights[i] * 3 * (top - row.log_value[i]);
            const Ref tolerance = u * (2 + std::abs(top) + std::abs(row.log_sum_exp) + arguments) +
                                  sum_error<T>(row.visible) + Ref(row.visible) * unit_roundoff<Ref>;
            normalizer.meet(std::abs(Ref(Softmax(temperature).log_sum_exp(in(z))) - row.log_sum_exp), tolerance,
                            where);
            normalizer.meet(std::abs(Ref(attnscope::log_sum_exp(in(z), temperature)) - row.log_sum_exp),
                            tolerance, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(same);
    ATTNSCOPE_CHECK_WORST(normalizer);
}

TEMPLATE_TEST_CASE("log-sum-exp of special rows", "[softmax]", float, double, long double) {
    const TestType infinity = std::numeric_limits<TestType>::infinity();
    const TestType nan = std::numeric_limits<TestType>::quiet_NaN();
    const auto lse = [](const std::vector<TestType>& z) { return attnscope::log_sum_exp(in(z), 0.5); };
    CHECK(lse({}) == -infinity);
    CHECK(lse({-infinity, -infinity, -infinity}) == -infinity);
    CHECK(lse({0, infinity, 1}) == infinity);
    CHECK(lse({-infinity, infinity, infinity}) == infinity);
    for (std::size_t i = 0; i < 20; ++i) {
        std::vector<TestType> z(20, TestType(1));
        z[i] = nan;
        CHECK(std::isnan(lse(z)));
        z[(i + 1) % 20] = infinity;
        CHECK(std::isnan(lse(z)));
    }
}

TEST_CASE("entropy rises strictly with temperature on rows that are not constant", "[laws][softmax]") {
    const std::uint64_t seed = test_seed();
    Worst strict, constant;
    for_each_row<double>(seed, lengths, 2, [&](const Where& where, const std::vector<double>& z) {
        const ReferenceRow row = reference_of(Softmax(1)).row(widen(z));
        if (row.visible == 0) return;
        const auto statistics = attnscope::row_statistics(in(z), 1.0);
        double last = -1;
        for (double temperature : {0.05, 0.1, 0.5, 1.0, 2.0, 10.0, 50.0}) {
            const double entropy = attnscope::row_statistics(in(z), temperature).entropy_nats();
            if (statistics.logit_spread() == 0) {
                constant.meet(std::abs(Ref(entropy) - std::log(Ref(row.visible))),
                              Ref(1e-13) * std::log(Ref(row.visible)), where);
            } else if (statistics.logit_spread() > 1e-3 && last >= 0) {
                // dH/dT = Var(z)/T^3: where that much exceeds rounding the rise must show; with a smaller
                // spread, with all weight on tied keys or with an underflowed rest it cannot.
                const Ref before = reference_of(Softmax(temperature / 2)).row(widen(z)).entropy;
                const Ref after = reference_of(Softmax(temperature)).row(widen(z)).entropy;
                if (after > before * (1 + Ref(1e-9)) && after > Ref(1e-280)) strict.meet(entropy > last, where);
            }
            last = entropy;
        }
    });
    ATTNSCOPE_CHECK_WORST(strict);
    ATTNSCOPE_CHECK_WORST(constant);
}
