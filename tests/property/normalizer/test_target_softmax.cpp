// Softmax at a target entropy and at a target participation ratio, against inverse temperatures found in long
// double inside a bracket.
#include <attnscope/normalizer/target_softmax.hpp>
#include <support/laws.hpp>
#include <support/norm_reference.hpp>
#include <support/solved_reference.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

using Reference = SmoothReference<TargetFormula>;

Reference entropy_reference(double nats) { return Reference(TargetFormula(TargetFormula::entropy, nats)); }
Reference participation_reference(double keys) {
    return Reference(TargetFormula(TargetFormula::participation, keys));
}

/// Calls f(normaliser, reference) for targets from one key to hundreds, none of them near a number of ties.
void for_each_target(auto&& f) {
    for (const double nats : {0.0, 0.05, 1.0, 5.2}) f(EntropyTargetSoftmax(nats), entropy_reference(nats));
    for (const double keys : {1.0, 1.1, 12.6, 180.3})
        f(ParticipationTargetSoftmax(keys), participation_reference(keys));
}

std::string message_of(auto&& action) {
    try {
        action();
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

} // namespace

TEMPLATE_TEST_CASE("softmax at a target obeys the laws of a normaliser", "[laws][target]", float, double) {
    for_each_target([](const auto& normalizer, const Reference& reference) {
        INFO(std::string(normalizer.name()) << " target " << static_cast<double>(reference.formula().target));
        test_laws<TestType>(normalizer, reference, static_cast<double>(reference.formula().target));
        test_special_rows<TestType>(normalizer, reference);
    });
}

TEMPLATE_TEST_CASE("the target is met", "[target]", float, double) {
    using T = TestType;
    Worst met, beta;
    std::size_t between = 0;
    for_each_target([&](const auto& normalizer, const Reference& reference) {
        const TargetFormula& formula = reference.formula();
        for_each_row<T>(test_seed(), lengths, 1, [&](Where where, const std::vector<T>& z) {
            where.normalizer = normalizer.name();
            where.temperature = static_cast<double>(formula.target);
            if (visible_count(z) == 0) return;
            const RefRow wide = widen(z);
            const Ref exact = formula.inverse_temperature(wide);
            const Ref found = normalizer.template row_inverse_temperature<T>(z);
            if (exact == 0) {
                beta.meet(found == 0, where);
                return;
            }
            if (std::isinf(exact)) return;
            ++between;
            // The entropy or participation of the weights that came out; each weight's error counts by its
            // slope in the sum.
            const std::vector<T> p = weights_of(normalizer, z);
            const RefRow error = reference.template weight_error<T>(wide), weights = reference.weights(wide);
            Ref h = 0, s2 = 0, total = 0, h_error = 0, s2_error = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (!(weights[i] > 0)) continue;
                const Ref off = weights[i] * error[i] + 2 * Ref(std::numeric_limits<T>::min());
                if (p[i] > 0) h -= Ref(p[i]) * std::log(Ref(p[i]));
                h_error += off * (1 + std::abs(std::log(std::max(weights[i], off))));
                s2 += Ref(p[i]) * p[i];
                s2_error += 2 * weights[i] * off;
                total += p[i];
            }
            if (formula.kind == TargetFormula::entropy)
                met.meet(std::abs(h - formula.target), 2 * h_error, where);
            else
                met.meet(std::abs(s2 - 1 / formula.target), 2 * s2_error, where);
            // p moves by (z - E z) p per unit of beta: what is allowed for the largest key bounds beta.
            Ref mean = 0;
            const RefRow gap = gaps_of(wide);
            for (std::size_t i = 0; i < z.size(); ++i) mean += weights[i] * gap[i];
            const std::size_t top = TargetFormula::top(wide);
            beta.meet(std::abs(found - exact) * mean, 2 * error[top], where);
        });
    });
    CHECK(between > 300);
    ATTNSCOPE_CHECK_WORST(met);
    ATTNSCOPE_CHECK_WORST(beta);
}

TEST_CASE("targets at the ends: all keys alike, or the largest alone", "[target]") {
    const double infinity = HUGE_VAL;
    const std::vector<double> z = {0.5, -infinity, 2, -1, 2, 0.25};
    std::vector<double> derivative(z.size());
    const std::vector<double> v = {1, -2, 3, 0.5, -1, 7}, zeros(z.size(), 0.0);
    const auto check = [&](const auto& normalizer, const std::vector<double>& expected) {
        INFO(std::string(normalizer.name()));
        RowStatus status{};
        const std::vector<double> p = weights_of(normalizer, z, &status);
        CHECK(status == RowStatus::normal);
        CHECK(p == expected);
        CHECK(jvp_of(normalizer, z, p, v) == zeros);
        CHECK(vjp_of(normalizer, z, p, v) == zeros);
        normalizer.template parameter_derivative<double>(z, p, derivative);
        CHECK(derivative == zeros);
    };
    const double fifth = 1.0 / 5;
    const std::vector<double> equal = {fifth, 0, fifth, fifth, fifth, fifth}, ties = {0, 0, 0.5, 0, 0.5, 0};
    for (const double nats : {std::log(5.0) + 1e-12, 2.0, 1e300}) check(EntropyTargetSoftmax(nats), equal);
    for (const double keys : {5.0, 5.5, 1e300}) check(ParticipationTargetSoftmax(keys), equal);
    for (const double nats : {0.0, 0.1, 0.69}) check(EntropyTargetSoftmax(nats), ties);
    for (const double keys : {1.0, 1.5, 2.0}) check(ParticipationTargetSoftmax(keys), ties);
    CHECK(weights_of(EntropyTargetSoftmax(0), std::vector<float>{1, 3, 2}) == std::vector<float>{0, 1, 0});
    CHECK(weights_of(ParticipationTargetSoftmax(1), std::vector<float>{1, 3, 2}) ==
          std::vector<float>{0, 1, 0});
}

TEST_CASE("two keys: participation by its closed form", "[target]") {
    // 1/(p^2 + (1-p)^2) = k: p = (1 + sqrt(2/k - 1))/2.
    for (const double k : {1.0001, 1.2, 1.6, 1.9, 1.9999}) {
        const Ref expected = (1 + std::sqrt(2 / Ref(k) - 1)) / 2;
        for (const double d : {1e-3, 0.7, 40.0}) {
            const std::vector<double> p = weights_of(ParticipationTargetSoftmax(k), std::vector<double>{0, d});
            CAPTURE(k, d, p[1]);
            // dp/dk = 1/(2 k^2 sqrt(2/k - 1)) magnifies the rounding of k near 2.
            const Ref u = unit_roundoff<double>, moved = 1 / (k * std::sqrt(2 / Ref(k) - 1));
            CHECK(std::abs(p[1] - expected) <= 64 * u * (1 + moved));
        }
    }
}

TEMPLATE_TEST_CASE("derivatives in the target", "[target]", float, double) {
    using T = TestType;
    Worst formula, differences;
    for_each_target([&](const auto& normalizer, const Reference& reference) {
        const TargetFormula& target = reference.formula();
        for_each_row<T>(test_seed(), short_lengths, 1, [&](Where where, const std::vector<T>& z) {
            where.normalizer = normalizer.name();
            where.temperature = static_cast<double>(target.target);
            if (visible_count(z) == 0) return;
            const RefRow wide = widen(z);
            const std::vector<T> p = weights_of(normalizer, z);
            std::vector<T> moved(z.size(), T(-7));
            normalizer.template parameter_derivative<T>(z, p, moved);
            const auto exact = target.parameter_derivative(wide);
            const Ref u = 2 * (unit_roundoff<T> + unit_roundoff<Ref>), smallest = std::numeric_limits<T>::min();
            RefRow error(z.size());
            for (std::size_t i = 0; i < z.size(); ++i) {
                error[i] = u * exact.units[i] + 2 * smallest * (1 + exact.per_weight[i]);
                formula.meet(std::abs(moved[i] - exact.value[i]), error[i], where);
            }
            const RefRow gap = gaps_of(wide);
            if (target.which(wide, gap) != TargetFormula::Case::between) return;
            const Ref h = 0x1p-24L * target.target;
            const auto at = [&](Ref steps) {
                const TargetFormula there(target.kind, target.target + steps * h);
                if (there.which(wide, gap) != TargetFormula::Case::between) return RefRow();
                return there(wide).weights;
            };
            const RefRow a1 = at(1), b1 = at(-1), a2 = at(2), b2 = at(-2);
            if (a2.empty() || b2.empty()) return;
            const RefRow weights = reference.weights(wide),
                         rounding = reference.template weight_error<Ref>(wide);
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref once = (a1[i] - b1[i]) / (2 * h), twice = (a2[i] - b2[i]) / (4 * h);
                differences.meet(std::abs(moved[i] - once),
                                 error[i] + std::abs(once - twice) + 4 * weights[i] * rounding[i] / h, where);
            }
        });
    });
    ATTNSCOPE_CHECK_WORST(formula);
    ATTNSCOPE_CHECK_WORST(differences);
}

TEMPLATE_TEST_CASE("norms of the Jacobian at a target are those of the dense matrix", "[target][norms]", float,
                   double) {
    for (const double nats : {0.05, 1.0, 2.55})
        test_norms<TestType>(EntropyTargetSoftmax(nats), entropy_reference(nats));
    for (const double keys : {1.1, 2.5, 12.6})
        test_norms<TestType>(ParticipationTargetSoftmax(keys), participation_reference(keys));
}

TEST_CASE("bad targets are refused by rule and value", "[target]") {
    CHECK(std::string(EntropyTargetSoftmax(1).name()) == "entropy");
    CHECK(std::string(ParticipationTargetSoftmax(2).name()) == "participation");
    using Catch::Matchers::ContainsSubstring;
    const auto check = [](const std::string& message, double bad, const char* name, const char* rule) {
        CAPTURE(message);
        CHECK_THAT(message, ContainsSubstring(name));
        CHECK_THAT(message, ContainsSubstring(rule));
        CHECK_THAT(message, ContainsSubstring("got " + to_text(bad)));
    };
    for (const double bad : {-1e-300, -1.0, std::nan(""), HUGE_VAL, -HUGE_VAL})
        check(message_of([&] { EntropyTargetSoftmax{bad}; }), bad,
              "EntropyTargetSoftmax: ", "must be >= 0 and finite");
    for (const double bad : {0.0, 0.999, -1.0, std::nan(""), HUGE_VAL, -HUGE_VAL})
        check(message_of([&] { ParticipationTargetSoftmax{bad}; }), bad,
              "ParticipationTargetSoftmax: ", "must be >= 1 and finite");
}
