// Divergences of two rows: their limits, what they owe each other, temperatures, and rows that are nearly equal.
// Values in 40 digits: tests/reference/test_tables.cpp.
#include <attnscope/row/divergence.hpp>
#include <support/rows.hpp>

#include <numbers>

using namespace attnscope_test;
using attnscope::Divergence;
using attnscope::row_divergence;
using attnscope::RowStatus;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// By x = d - log E_p e^d, d = b - a from differences, in long double.
struct Exact {
    Ref total_variation = 0, forward = 0, backward = 0, jensen_shannon = 0;
};
template <class T>
Exact exact_divergence(const std::vector<T>& a, const std::vector<T>& b, double temperature) {
    const Ref t = temperature;
    const auto top = static_cast<std::size_t>(std::max_element(a.begin(), a.end()) - a.begin());
    std::vector<Ref> p(a.size()), d(a.size());
    Ref sum = 0, growth = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        p[i] = std::exp((Ref(a[i]) - Ref(a[top])) / t);
        d[i] = ((Ref(b[i]) - Ref(b[top])) - (Ref(a[i]) - Ref(a[top]))) / t;
        sum += p[i];
    }
    for (std::size_t i = 0; i < a.size(); ++i) growth += p[i] / sum * std::expm1(d[i]);
    Exact exact;
    // e^x - 1 - x
    const auto psi = [](Ref x) {
        if (std::abs(x) > Ref(0.1)) return std::expm1(x) - x;
        Ref term = x * x / 2, total = 0;
        for (int n = 3; n < 30; ++n) total += term, term *= x / n;
        return total;
    };
    for (std::size_t i = 0; i < a.size(); ++i) {
        const Ref x = d[i] - std::log1p(growth), weight = p[i] / sum, other = weight * std::exp(x);
        exact.total_variation += weight * std::abs(std::expm1(x)) / 2;
        exact.forward += weight * psi(x);
        exact.backward += other * psi(-x);
        // KL(p|m) by the same identity, m/p = (1 + e^x)/2.
        const Ref to_m = std::log1p(std::expm1(x) / 2);
        exact.jensen_shannon += (weight * psi(to_m) + other * psi(to_m - x)) / 2;
    }
    return exact;
}

} // namespace

TEMPLATE_TEST_CASE("rows that differ by little keep the digits of the difference", "[divergence]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 17);
    Worst variation, forward, backward, shannon;
    for (const double step : {1e-9, 1e-6, 1e-4, 1e-2, 1.0, 4.0})
        for (const double temperature : {0.3, 1.0, 7.0})
            for (const std::size_t n : {2u, 5u, 64u, 1000u}) {
                std::vector<T> a = normal_row<T>(random, n), b = a;
                for (T& x : b) x += static_cast<T>(step * random.normal());
                if (a == b) continue;
                const Where where{"near", n, step, seed, scalar_name<T>()};
                const Divergence apart = row_divergence<T>(in(a), in(b), temperature);
                const Exact exact = exact_divergence(a, b, temperature);
                // Half a unit for each rounding of a difference, an exponent and a sum; cancellation up to 1/10.
                const Ref error = 1e-13 + 64 * unit_roundoff<Ref> / step;
                variation.meet(std::abs(apart.total_variation - exact.total_variation),
                               error * exact.total_variation, where);
                forward.meet(std::abs(apart.forward - exact.forward), error * exact.forward, where);
                backward.meet(std::abs(apart.backward - exact.backward), error * exact.backward, where);
                shannon.meet(std::abs(apart.jensen_shannon - exact.jensen_shannon),
                             error * exact.jensen_shannon, where);
            }
    ATTNSCOPE_CHECK_WORST(variation);
    ATTNSCOPE_CHECK_WORST(forward);
    ATTNSCOPE_CHECK_WORST(backward);
    ATTNSCOPE_CHECK_WORST(shannon);
}

TEMPLATE_TEST_CASE("divergences are symmetric as they should be and limit each other", "[divergence]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst symmetric, limits;
    std::size_t normal = 0;
    for_each_row<T>(seed, lengths, 2, [&](Where where, const std::vector<T>& a) {
        SplitMix64 random = generator(seed, a.size(), 9);
        for (const double step : {0.0, 1e-3, 1.0, 30.0})
            for (const double temperature : temperatures) {
                where.temperature = temperature;
                std::vector<T> b = a;
                for (T& x : b) x += static_cast<T>(step * random.normal());
                const Divergence to = row_divergence<T>(in(a), in(b), temperature),
                                 back = row_divergence<T>(in(b), in(a), temperature);
                if (to.status != RowStatus::normal) continue;
                ++normal;
                const auto same = [](double x, double y) { return x == y || std::abs(x - y) <= 2e-13 * x; };
                symmetric.meet(same(to.total_variation, back.total_variation), where);
                symmetric.meet(same(to.jensen_shannon, back.jensen_shannon), where);
                symmetric.meet(same(to.forward, back.backward) && same(to.backward, back.forward), where);
                if (step == 0)
                    limits.meet(to.total_variation == 0 && to.forward == 0 && to.backward == 0 &&
                                    to.jensen_shannon == 0,
                                where);
                // Lin 1991: JS <= log 2 TV; Pinsker for both halves: JS >= TV^2/2; convexity: JS <= (KL + KL)/4.
                const double tv = to.total_variation, js = to.jensen_shannon;
                limits.meet(js <= std::numbers::ln2 * tv * (1 + 1e-13), where);
                limits.meet(js >= tv * tv / 2 * (1 - 1e-12), where);
                limits.meet(js <= (to.forward + to.backward) / 4 * (1 + 1e-12), where);
                limits.meet(js >= 0 && js <= std::numbers::ln2 && tv <= 1, where);
            }
    });
    CHECK(normal > 100);
    ATTNSCOPE_CHECK_WORST(symmetric);
    ATTNSCOPE_CHECK_WORST(limits);
}

TEMPLATE_TEST_CASE("divergences at a temperature are those of the divided logits", "[divergence]", float,
                   double) {
    using T = TestType;
    const std::vector<T> a = {1, -2, T(0.5), 3}, b = {T(0.25), -1, 2, T(2.75)};
    for (const T temperature : {T(0.125), T(0.5), T(4)}) {
        std::vector<T> divided_a = a, divided_b = b;
        for (T& x : divided_a) x /= temperature; // exact
        for (T& x : divided_b) x /= temperature;
        const Divergence apart = row_divergence(a, b, static_cast<double>(temperature)),
                         divided = row_divergence(divided_a, divided_b);
        CHECK(apart.total_variation == divided.total_variation);
        CHECK(apart.forward == divided.forward);
        CHECK(apart.backward == divided.backward);
        CHECK(apart.jensen_shannon == divided.jensen_shannon);
        CHECK(apart.logit_difference == 1.5); // of the logits as they are
    }
    for (const double bad : {0.0, -1.0, infinity, std::nan("")})
        CHECK_THROWS_AS(row_divergence(a, b, bad), attnscope::invalid_argument);
    CHECK_THROWS_WITH(row_divergence(a, b, 0), "row_divergence: temperature must be > 0 and finite, got 0");
    // At the ends of the scale nothing is lost but what underflows.
    CHECK(row_divergence(a, b, 1e300).total_variation >= 0);
    CHECK(row_divergence(a, b, 1e-300).total_variation == 0);
    CHECK(row_divergence(a, b, 1e-300).forward == 0);
}

TEMPLATE_TEST_CASE("rows without a common key are log 2 apart", "[divergence]", float, double, long double) {
    using T = TestType;
    constexpr T masked = -std::numeric_limits<T>::infinity();
    const std::vector<T> a = {1, masked, T(0.3), masked, -2}, b = {masked, T(0.7), masked, 5, masked};
    const Divergence apart = row_divergence<T>(in(a), in(b));
    CHECK(apart.jensen_shannon == std::numbers::ln2);
    CHECK(apart.total_variation == Catch::Approx(1).epsilon(1e-15));
    CHECK(apart.forward == infinity);
    CHECK(apart.backward == infinity);
    CHECK(apart.logit_difference == 0);
    // Weights that vanish beside each other.
    const std::vector<T> left = {0, -800}, right = {-800, 0};
    CHECK(row_divergence<T>(in(left), in(right)).jensen_shannon == std::numbers::ln2);
    CHECK(row_divergence<T>(in(left), in(right)).forward == Catch::Approx(800).epsilon(1e-15));
    // A key that one row hides: p = (1/2, 1/2), q = (1, 0), m = (3/4, 1/4).
    const std::vector<T> pair = {0, 0}, one = {0, masked};
    const double js = (std::log(4.0 / 3) + std::log(2.0 / 3) / 2 + std::numbers::ln2 / 2) / 2;
    CHECK(row_divergence<T>(in(pair), in(one)).jensen_shannon == Catch::Approx(js).epsilon(1e-14));
    CHECK(row_divergence<T>(in(one), in(pair)).jensen_shannon == Catch::Approx(js).epsilon(1e-14));
    // Rows that are not normal.
    for (const T bad : {masked, std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        const std::vector<T> special = {bad, bad};
        CHECK(std::isnan(row_divergence<T>(in(pair), in(special)).jensen_shannon));
        CHECK(std::isnan(row_divergence<T>(in(special), in(pair)).jensen_shannon));
    }
}
