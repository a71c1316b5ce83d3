// The law suite on the paper's general family.
#include <attnscope/normalizer/pointwise.hpp>
#include <support/laws.hpp>

#include <tuple>

using namespace attnscope_test;
using attnscope::Exponential;
using attnscope::PointwiseNormalizer;
using attnscope::Quadratic;
using attnscope::Sigmoid;
using attnscope::Softmax;
using attnscope::Softplus;

TEMPLATE_TEST_CASE("the general family obeys the laws of a normaliser", "[laws][pointwise]",
                   (std::tuple<float, Exponential>), (std::tuple<double, Exponential>),
                   (std::tuple<float, Sigmoid>), (std::tuple<double, Sigmoid>), (std::tuple<float, Softplus>),
                   (std::tuple<double, Softplus>), (std::tuple<long double, Softplus>),
                   (std::tuple<float, Quadratic>), (std::tuple<double, Quadratic>)) {
    using T = std::tuple_element_t<0, TestType>;
    const PointwiseNormalizer<std::tuple_element_t<1, TestType>> normalizer;
    test_laws<T>(normalizer, reference_of(normalizer));
    test_special_rows<T>(normalizer, reference_of(normalizer));
}

TEMPLATE_TEST_CASE("a quadratic keeps its constant", "[laws][pointwise]", float, double) {
    for (double c : {0.01, 4.0}) {
        const PointwiseNormalizer<Quadratic> normalizer{Quadratic(c)};
        test_laws<TestType>(normalizer, reference_of(normalizer));
    }
}

TEMPLATE_TEST_CASE("the exponential of the general family is softmax", "[laws][pointwise]", float, double,
                   long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    const PointwiseNormalizer<Exponential> general;
    const Softmax softmax;
    const auto reference = reference_of(softmax);
    Worst weights, derivative, normalizer;
    for_each_row<T>(seed, lengths, 2, [&](const Where& where, const std::vector<T>& z) {
        SplitMix64 random = generator(seed, z.size());
        const std::vector<T> v = normal_row<T>(random, z.size());
        const std::vector<T> p = weights_of(softmax, z), q = weights_of(general, z);
        const std::vector<T> jv = jvp_of(softmax, z, p, v), gv = jvp_of(general, z, q, v);
        const ReferenceRow row = reference.row(widen(z));
        const RefRow error = reference.template weight_error<T>(widen(z));
        const RefRow jvp_error = reference.template jvp_error<T>(widen(z), widen(v));
        for (std::size_t i = 0; i < z.size(); ++i) {
            weights.meet(std::abs(Ref(p[i]) - Ref(q[i])),
                         2 * (row.weights[i] * error[i] + 2 * Ref(std::numeric_limits<T>::min())), where);
            derivative.meet(std::abs(Ref(jv[i]) - Ref(gv[i])), 2 * jvp_error[i], where);
        }
        if (row.visible == 0) return;
        const RefRow general_error = reference_of(general).template weight_error<T>(widen(z));
        const Ref largest = std::max(*std::max_element(error.begin(), error.end()),
                                     *std::max_element(general_error.begin(), general_error.end()));
        normalizer.meet(std::abs(Ref(softmax.log_sum_exp(in(z))) - Ref(general.log_sum_exp(in(z)))),
                        2 * (largest + 2 * unit_roundoff<T> *
                                           (std::abs(row.log_sum_exp) + std::abs(row.log_value[row.top]))),
                        where);
    });
    ATTNSCOPE_CHECK_WORST(weights);
    ATTNSCOPE_CHECK_WORST(derivative);
    ATTNSCOPE_CHECK_WORST(normalizer);
}

TEMPLATE_TEST_CASE("log-sum-exps and slopes of the general family", "[pointwise]", Exponential, Sigmoid,
                   Softplus, Quadratic) {
    const PointwiseNormalizer<TestType> normalizer;
    const auto reference = reference_of(normalizer);
    const auto key = reference.key();
    const std::uint64_t seed = test_seed();
    const Ref u = unit_roundoff<double>;
    Worst sums, slopes, logs, gradients;
    for_each_row<double>(seed, short_lengths, 2, [&](const Where& where, const std::vector<double>& z) {
        const ReferenceRow row = reference.row(widen(z));
        if (row.visible == 0) {
            sums.meet(normalizer.log_sum_exp(in(z)) == -std::numeric_limits<double>::infinity(), where);
            return;
        }
        const RefRow error = reference.template weight_error<double>(widen(z));
        const Ref top = row.log_value[row.top];
        sums.meet(std::abs(Ref(normalizer.log_sum_exp(in(z))) - row.log_sum_exp),
                  *std::max_element(error.begin(), error.end()) +
                      u * (key.log_units(top, top) + std::abs(top) + 2 * std::abs(row.log_sum_exp)),
                  where);
        const std::vector<double> p = weights_of(normalizer, z);
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (widen(z)[i] == masked_ref) continue;
            const Ref slope = row.slope[i];
            slopes.meet(std::abs(Ref(normalizer.log_derivative(z[i])) - slope),
                        key.slope_units() * u * std::abs(slope) + Ref(std::numeric_limits<double>::min()),
                        where);
            logs.meet(std::abs(Ref(normalizer.log_value(z[i])) - row.log_value[i]),
                      u * (5 + 5 * std::abs(row.log_value[i])), where);
            const Ref g = Ref(p[i]) * slope;
            gradients.meet(std::abs(Ref(normalizer.gradient(z[i], p[i])) - g),
                           (key.slope_units() + 3) * u * std::abs(g) + Ref(std::numeric_limits<double>::min()),
                           where);
        }
    });
    ATTNSCOPE_CHECK_WORST(sums);
    ATTNSCOPE_CHECK_WORST(slopes);
    ATTNSCOPE_CHECK_WORST(logs);
    ATTNSCOPE_CHECK_WORST(gradients);
}
