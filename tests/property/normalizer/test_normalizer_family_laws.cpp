// The law suite on the normalisers beyond softmax: accuracy of weights and of J v, J^T w in float and double.
#include <attnscope/normalizer/adaptive_softmax.hpp>
#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/normalizer/sigmoid_attention.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/normalizer/softpick.hpp>
#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <support/condition_reference.hpp>
#include <support/laws.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

auto scalable(double s) {
    return LengthFormula{[s](Ref n) { return n > 0 ? Ref(s) * std::log(n) : Ref(0); }};
}
auto yarn(Ref train_length) {
    return LengthFormula{[=](Ref n) {
        const Ref root = 0.1L * std::log(n / train_length) + 1;
        return n <= train_length ? Ref(1) : root * root;
    }};
}

template <class T, class N, class Formula>
void laws_and_special_rows(const N& normalizer, Formula formula, bool shares_infinity = true) {
    const ConditionReference<Formula> reference(formula, shares_infinity);
    INFO(std::string(normalizer.name()));
    test_laws<T>(normalizer, reference);
    if constexpr (!separates_ties<ConditionReference<Formula>>()) test_special_rows<T>(normalizer, reference);
}

} // namespace

TEMPLATE_TEST_CASE("length-scaled softmax obeys the laws of a normaliser", "[laws][family]", float, double) {
    for (const double s : {0.0, 0.43, 3.0}) laws_and_special_rows<TestType>(ScalableSoftmax(s), scalable(s));
    laws_and_special_rows<TestType>(LogLengthSoftmax::trained_at(512), scalable(1 / std::log(512.0)));
    laws_and_special_rows<TestType>(YarnSoftmax(16), yarn(16));
}

TEMPLATE_TEST_CASE("softmax with a sink obeys the laws of a normaliser", "[laws][family]", float, double) {
    for (const double n0 : {1.0, 1e-3, 1e6}) laws_and_special_rows<TestType>(SinkSoftmax(n0), SinkFormula{n0});
}

TEMPLATE_TEST_CASE("sigmoid attention obeys the laws of a normaliser", "[laws][family]", float, double) {
    laws_and_special_rows<TestType>(SigmoidAttention(), SigmoidFormula{true, 0}, false);
    laws_and_special_rows<TestType>(SigmoidAttention(0.75), SigmoidFormula{false, 0.75L}, false);
}

TEMPLATE_TEST_CASE("softpick obeys the laws of a normaliser", "[laws][family]", float, double) {
    for (const double eps : {1e-8, 0.0, 0.5})
        laws_and_special_rows<TestType>(Softpick(eps), SoftpickFormula{eps});
}

TEMPLATE_TEST_CASE("StableMax and powers of ReLU obey the laws of a normaliser", "[laws][family]", float,
                   double) {
    laws_and_special_rows<TestType>(PointwiseNormalizer<StableExponential>(), SumFormula<StableMaxKey>{});
    for (const double k : {1.0, 2.0, 2.5})
        laws_and_special_rows<TestType>(PointwiseNormalizer<ReluPower>(ReluPower(k)),
                                        SumFormula<ReluKey>{ReluKey{k}});
}

TEMPLATE_TEST_CASE("adaptive softmax obeys the laws of a normaliser", "[laws][family]", float, double) {
    laws_and_special_rows<TestType>(AdaptiveSoftmax(), AdaptiveFormula{});
}

TEMPLATE_TEST_CASE("adaptors obey the laws of a normaliser", "[laws][family]", float, double) {
    using T = TestType;
    const auto half = [](auto inner) { return MappedFormula<TemperatureMap, decltype(inner)>{{2}, inner}; };
    const auto capped = [](auto inner) { return MappedFormula<SoftcapMap, decltype(inner)>{{50}, inner}; };
    laws_and_special_rows<T>(temperature(2) | AdaptiveSoftmax(), half(AdaptiveFormula{}));
    laws_and_special_rows<T>(temperature(2) | SigmoidAttention(), half(SigmoidFormula{true, 0}), false);
    laws_and_special_rows<T>(softcap(50) | SinkSoftmax(), capped(SinkFormula{1}), false);
    // Most logits are far beyond this cap: its slope must keep its digits.
    laws_and_special_rows<T>(softcap(3) | SinkSoftmax(),
                             MappedFormula<SoftcapMap, SinkFormula>{{3}, SinkFormula{1}}, false);
    const auto inner = capped(scalable(0.43));
    laws_and_special_rows<T>(softcap(50) | ScalableSoftmax(0.43) | top_k(64),
                             RestrictedFormula<decltype(inner), KeepCount>{inner, {64}, true});
    const auto plain = LengthFormula{[](Ref) { return Ref(1); }};
    laws_and_special_rows<T>(Softmax() | top_p(0.9),
                             RestrictedFormula<decltype(plain), KeepMass>{plain, {0.9}, true});
    laws_and_special_rows<T>(SinkSoftmax() | top_k(5),
                             RestrictedFormula<SinkFormula, KeepCount>{SinkFormula{1}, {5}, false});
}

TEMPLATE_TEST_CASE("dense Jacobians by jvp and norms are those of the formulas", "[family]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    const auto check = [&](const auto& normalizer, const auto& reference) {
        INFO(std::string(normalizer.name()));
        Worst entries, frobenius;
        for_each_row<T>(seed, short_lengths, 1, [&](const Where& where, const std::vector<T>& z) {
            const RefRow wide = widen(z);
            const RefMatrix jacobian = reference.jacobian(wide);
            const std::vector<T> p = weights_of(normalizer, z);
            Ref square = 0;
            for (std::size_t j = 0; j < z.size(); ++j) {
                std::vector<T> unit(z.size(), T(0));
                unit[j] = 1;
                const std::vector<T> column = jvp_of(normalizer, z, p, unit);
                const RefRow error = reference.template jvp_error<T>(wide, widen(unit));
                for (std::size_t i = 0; i < z.size(); ++i) {
                    entries.meet(std::abs(Ref(column[i]) - jacobian(i, j)), error[i], where);
                    square += error[i] * error[i];
                }
            }
            // | |A| - |B| | <= |A - B|, and the norm's own rounding.
            const auto norms = jacobian_norms(normalizer, in(z), in(p));
            const Ref expected = norms_of(jacobian).frobenius;
            frobenius.meet(std::abs(Ref(norms.frobenius) - expected),
                           std::sqrt(square) + 64 * unit_roundoff<T> * expected, where);
        });
        ATTNSCOPE_CHECK_WORST(entries);
        ATTNSCOPE_CHECK_WORST(frobenius);
    };
    check(ScalableSoftmax(0.43), ConditionReference(scalable(0.43)));
    check(YarnSoftmax(4), ConditionReference(yarn(4)));
    check(SinkSoftmax(2), ConditionReference(SinkFormula{2}));
    check(SigmoidAttention(), ConditionReference(SigmoidFormula{true, 0}));
    check(Softpick(), ConditionReference(SoftpickFormula{1e-8}));
    check(AdaptiveSoftmax(), ConditionReference(AdaptiveFormula{}));
    check(PointwiseNormalizer<StableExponential>(), ConditionReference(SumFormula<StableMaxKey>{}));
}

TEMPLATE_TEST_CASE("derivatives on rows with +inf are the formula at the weights", "[family]", float, double) {
    using T = TestType;
    const T infinity = std::numeric_limits<T>::infinity();
    const std::vector<T> z = {infinity, 1, infinity, -infinity, 0}, v = {3, 8, 1, 5, -2};
    const auto check = [&](const auto& normalizer) {
        INFO(std::string(normalizer.name()));
        const std::vector<T> p = weights_of(normalizer, z), expected = {T(0.5), 0, T(-0.5), 0, 0};
        // p = (1/2, 0, 1/2, 0, 0), <p, v> = 2, J v = p (v - 2).
        CHECK(jvp_of(normalizer, z, p, v) == expected);
        CHECK(vjp_of(normalizer, z, p, v) == expected);
    };
    check(SinkSoftmax());
    check(YarnSoftmax(8));
    check(AdaptiveSoftmax());
}

TEST_CASE("YaRN's weights move with the training length as differences say", "[family]") {
    const RefRow z = {0.5L, -1, 2, masked_ref, 0.25L, 1};
    const LengthScaledSoftmax<YarnSchedule> normalizer{YarnSchedule{3}};
    const RefRow p = weights_of(normalizer, z);
    RefRow moved(z.size());
    normalizer.parameter_derivative(in(z), in(p), out(moved));
    const auto difference = [&](Ref h) {
        const RefRow a = yarn(3 + h)(z).weights, b = yarn(3 - h)(z).weights;
        RefRow result(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) result[i] = (a[i] - b[i]) / (2 * h);
        return result;
    };
    const RefRow once = difference(0.0009765625L), twice = difference(0.001953125L);
    Worst worst;
    for (std::size_t i = 0; i < z.size(); ++i)
        // The schedule's slope is a double.
        worst.meet(std::abs(moved[i] - once[i]),
                   std::abs(once[i] - twice[i]) + 16 * unit_roundoff<double> * std::abs(once[i]),
                   Where{"fixed", z.size()});
    ATTNSCOPE_CHECK_WORST(worst);
}

TEST_CASE("parameters and logits at the ends of the scalar's range", "[family]") {
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(weights_of(softcap(1e39) | Softmax(), std::vector<float>{0, 0}) == std::vector<float>{0.5F, 0.5F});
    CHECK(weights_of(softcap(1e-39) | Softmax(), std::vector<float>{0, 1}) == std::vector<float>{0.5F, 0.5F});
    CHECK(weights_of(SigmoidAttention(1e300), std::vector<float>{-infinity, 0}) == std::vector<float>{0, 1});
    CHECK(weights_of(SigmoidAttention(-1e300), std::vector<float>{infinity, 0}) == std::vector<float>{1, 0});
    // Each F is finite, only their sum is not.
    const std::vector<float> large(1024, 8e37F);
    for (const float p : weights_of(PointwiseNormalizer<StableExponential>(), large)) REQUIRE(p == 1.0F / 1024);
    for (const float p : weights_of(PointwiseNormalizer<Softplus>(), large)) REQUIRE(p == 1.0F / 1024);
    const std::vector<double> z = {0, 1, 2};
    const auto frobenius = [&](const ScalableSoftmax& normalizer) {
        return jacobian_norms(normalizer, in(z), in(weights_of(normalizer, z))).frobenius;
    };
    CHECK(frobenius(ScalableSoftmax(1e-310)) < 1e-300);
    CHECK(frobenius(ScalableSoftmax(1.5e308)) == 0); // one-hot
    CHECK(ScalableSoftmax(1.7e308).log_sum_exp<double>(z) == std::numeric_limits<double>::infinity());
}
