// Places where a straightforward use of Eigen or of the formulas goes wrong: masked keys with weight, NaN that
// a maximum hides, sharp rows that lose their entropy, rows at the ends of the number range.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace {

using attnscope::Exponential;
using attnscope::Index;
using attnscope::PointwiseNormalizer;
using attnscope::Quadratic;
using attnscope::RowIn;
using attnscope::RowOut;
using attnscope::RowStatus;
using attnscope::Sigmoid;
using attnscope::Softmax;
using attnscope::Softplus;

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T eps = std::numeric_limits<T>::epsilon();

template <class T, class N>
std::vector<T> weights_of(const N& normalizer, const std::vector<T>& z,
                          RowStatus expected = RowStatus::normal) {
    std::vector<T> p(z.size(), T(77));
    CHECK(normalizer.template apply<T>(RowIn<T>(z), RowOut<T>(p)) == expected);
    // In place gives the same.
    std::vector<T> same = z;
    CHECK(normalizer.template apply<T>(RowIn<T>(same), RowOut<T>(same)) == expected);
    for (std::size_t i = 0; i < z.size(); ++i)
        CHECK((same[i] == p[i] || (std::isnan(same[i]) && std::isnan(p[i]))));
    return p;
}

/// Calls f with each normaliser.
template <class F>
void for_each_normalizer(F&& f) {
    f(Softmax{});
    f(Softmax(0.1));
    f(PointwiseNormalizer<Exponential>{});
    f(PointwiseNormalizer<Sigmoid>{});
    f(PointwiseNormalizer<Softplus>{});
    f(PointwiseNormalizer<Quadratic>{});
}

/// Lengths on both sides of every packet size.
constexpr std::size_t longest = 40;

} // namespace

TEMPLATE_TEST_CASE("a masked key gets exactly nothing, wherever it stands", "[traps]", float, double,
                   long double) {
    using T = TestType;
    for_each_normalizer([](const auto& normalizer) {
        for (std::size_t n = 1; n <= longest; ++n)
            for (std::size_t at = 0; at < n; ++at) {
                std::vector<T> z(n, T(1));
                z[at] = -infinity<T>;
                std::vector<T> p(n);
                const RowStatus status = normalizer.template apply<T>(RowIn<T>(z), RowOut<T>(p));
                CAPTURE(normalizer.name(), n, at);
                REQUIRE(status == (n == 1 ? RowStatus::empty : RowStatus::normal));
                REQUIRE(p[at] == T(0));
                REQUIRE_FALSE(std::signbit(p[at]));
                const T share = T(1) / static_cast<T>(std::max<std::size_t>(n - 1, 1));
                for (std::size_t i = 0; i < n; ++i)
                    if (i != at) REQUIRE(std::abs(p[i] - share) <= 4 * eps<T> * share);
            }
    });
}

TEMPLATE_TEST_CASE("keys too far below the largest get exactly nothing and bring no subnormals", "[traps]",
                   float, double, long double) {
    using T = TestType;
    const T cutoff = std::log(std::numeric_limits<T>::min());
    for (std::size_t n = 2; n <= longest; ++n) {
        std::vector<T> z(n, 2 * cutoff);
        z[n / 2] = T(0);
        const std::vector<T> p = weights_of<T>(Softmax{}, z);
        for (std::size_t i = 0; i < n; ++i) REQUIRE(p[i] == (i == n / 2 ? T(1) : T(0)));
        // On both sides of the cutoff they are 0 or normal numbers.
        std::vector<T> ladder(n);
        for (std::size_t i = 0; i < n; ++i)
            ladder[i] = cutoff + (static_cast<T>(i) - static_cast<T>(n) / 2) * T(0.0625);
        ladder[0] = T(0);
        for (const T x : weights_of<T>(Softmax{}, ladder)) REQUIRE((x == T(0) || std::isnormal(x)));
    }
}

TEMPLATE_TEST_CASE("NaN anywhere makes the row NaN", "[traps]", float, double, long double) {
    using T = TestType;
    // Beside ordinary numbers, beside masked keys, beside +inf, and beside the largest number.
    for (const T other :
         {T(1), -infinity<T>, infinity<T>, std::numeric_limits<T>::max(), std::numeric_limits<T>::lowest()})
        for (std::size_t n = 1; n <= longest; ++n)
            for (std::size_t at = 0; at < n; ++at) {
                std::vector<T> z(n, other);
                z[at] = not_a_number<T>;
                CAPTURE(other, n, at);
                const RowIn<T> row(z);
                for_each_normalizer([&](const auto& normalizer) {
                    INFO(normalizer.name());
                    std::vector<T> p(n);
                    REQUIRE(normalizer.template apply<T>(row, RowOut<T>(p)) == RowStatus::nan);
                    for (const T x : p) REQUIRE(std::isnan(x));
                    std::vector<T> same = z;
                    REQUIRE(normalizer.template apply<T>(RowIn<T>(same), RowOut<T>(same)) == RowStatus::nan);
                    for (const T x : same) REQUIRE(std::isnan(x));
                    const auto norms = jacobian_norms(normalizer, row, RowIn<T>(p));
                    REQUIRE(std::isnan(norms.spectral.value));
                    REQUIRE(std::isnan(norms.frobenius));
                });
                REQUIRE(std::isnan(attnscope::log_sum_exp<T>(row)));
                const auto statistics = attnscope::row_statistics<T>(row);
                REQUIRE(statistics.status == RowStatus::nan);
                for (const auto figure : {statistics.entropy_nats(), statistics.max_weight(), statistics.rest(),
                                          statistics.log_sum_exp(), statistics.power_sum_2(),
                                          statistics.logit_spread(), statistics.participation_ratio()})
                    REQUIRE(std::isnan(figure));
                REQUIRE(std::isnan(attnscope::renyi_entropy_nats<T>(row, 2)));
                for (const auto& bound : attnscope::corollary1_sharp(statistics))
                    REQUIRE(bound.verdict() == attnscope::Verdict::undefined);
            }
}

TEMPLATE_TEST_CASE("NaN among weights makes their norms NaN", "[traps]", float, double, long double) {
    using T = TestType;
    for (std::size_t n = 1; n <= longest; ++n)
        for (std::size_t at = 0; at < n; ++at) {
            std::vector<T> s(n, T(1));
            s[n / 2] = T(2);
            s[at] = not_a_number<T>;
            CAPTURE(n, at);
            REQUIRE(std::isnan(attnscope::diagonal_minus_rank_one_norm<T>(RowIn<T>(s)).value));
        }
}

TEMPLATE_TEST_CASE("+inf shares the mass, and is never hidden", "[traps]", float, double, long double) {
    using T = TestType;
    for (std::size_t n = 1; n <= longest; ++n)
        for (std::size_t at = 0; at < n; ++at) {
            std::vector<T> z(n, T(3));
            z[at] = infinity<T>;
            z[n / 2] = infinity<T>;
            const T share = at == n / 2 ? T(1) : T(0.5);
            const std::vector<T> p = weights_of<T>(Softmax{}, z, RowStatus::infinite);
            for (std::size_t i = 0; i < n; ++i) REQUIRE(p[i] == (i == at || i == n / 2 ? share : T(0)));
            REQUIRE(attnscope::log_sum_exp<T>(RowIn<T>(z)) == infinity<T>);
            const auto statistics = attnscope::row_statistics<T>(RowIn<T>(z));
            REQUIRE(statistics.status == RowStatus::infinite);
            REQUIRE(statistics.max_logit == infinity<T>);
            REQUIRE(statistics.argmax == static_cast<Index>(std::min(at, n / 2)));
            REQUIRE(std::isnan(statistics.entropy_nats()));
        }
}

TEMPLATE_TEST_CASE("rows without a visible key", "[traps]", float, double, long double) {
    using T = TestType;
    for (std::size_t n = 0; n <= longest; ++n) {
        const std::vector<T> z(n, -infinity<T>);
        for_each_normalizer([&](const auto& normalizer) {
            for (const T p : weights_of<T>(normalizer, z, RowStatus::empty)) REQUIRE(p == T(0));
            REQUIRE(normalizer.template log_sum_exp<T>(RowIn<T>(z)) == -infinity<T>);
            const std::vector<T> p(n, T(0));
            REQUIRE(jacobian_norms(normalizer, RowIn<T>(z), RowIn<T>(p)).spectral.value == 0);
        });
        const auto statistics = attnscope::row_statistics<T>(RowIn<T>(z));
        REQUIRE(statistics.status == RowStatus::empty);
        REQUIRE(statistics.visible == 0);
        REQUIRE(statistics.argmax == -1);
        REQUIRE(statistics.log_sum_exp() == -infinity<T>);
        REQUIRE(std::isnan(statistics.entropy_nats()));
    }
}

TEMPLATE_TEST_CASE("rows at the ends of the number range", "[traps]", float, double, long double) {
    using T = TestType;
    const T largest = std::numeric_limits<T>::max(), lowest = std::numeric_limits<T>::lowest();
    CHECK(weights_of<T>(Softmax{}, {largest, lowest, T(0)}) == std::vector<T>{1, 0, 0});
    CHECK(weights_of<T>(Softmax{}, {lowest, lowest}) == std::vector<T>{T(0.5), T(0.5)});
    CHECK(weights_of<T>(Softmax{}, {largest, largest}) == std::vector<T>{T(0.5), T(0.5)});
    CHECK(weights_of<T>(Softmax(1e-300), {T(1), T(1), T(0)}) == std::vector<T>{T(0.5), T(0.5), 0});
    CHECK(weights_of<T>(Softmax(1e300), {T(1), T(3), -infinity<T>}) == std::vector<T>{T(0.5), T(0.5), 0});
    CHECK(weights_of<T>(Softmax(std::numeric_limits<double>::denorm_min()), {T(1), T(1), T(0)}) ==
          std::vector<T>{T(0.5), T(0.5), 0});
    const auto spread = attnscope::row_statistics<T>(RowIn<T>(std::vector<T>{largest, lowest}));
    CHECK(spread.status == RowStatus::normal);
    CHECK(spread.visible == 2);
    CHECK(spread.entropy_nats() == 0);
    CHECK(spread.max_weight() == 1);
}

TEMPLATE_TEST_CASE("a sum of F that overflows still divides", "[traps]", float, double, long double) {
    using T = TestType;
    // F = z^2 + 1 is finite at each key, but not its sum.
    const T big = std::sqrt(std::numeric_limits<T>::max()) * T(0.9);
    const PointwiseNormalizer<Quadratic> quadratic;
    CHECK(weights_of<T>(quadratic, {big, big}) == std::vector<T>{T(0.5), T(0.5)});
    const std::vector<T> p = weights_of<T>(quadratic, {big, big / 2, big, T(1)});
    CHECK(std::abs(p[0] - T(4) / 9) <= 8 * eps<T>);
    CHECK(std::abs(p[1] - T(1) / 9) <= 8 * eps<T>);
    CHECK(p[2] == p[0]);
    CHECK(p[3] >= 0);
    CHECK(p[3] < eps<T>);
}

TEMPLATE_TEST_CASE("F in the far tails keeps its relative accuracy", "[traps]", float, double) {
    using T = TestType;
    // Sigmoid and its logarithm, softplus and its logarithm and slope: a handful of roundings each (the
    // exponential, one or two operations, a division or a logarithm), against the same formulas in long double.
    T worst = 0;
    const auto compare = [&](T value, long double exact) {
        const auto error =
            static_cast<T>(std::abs(static_cast<long double>(value) - exact) / std::abs(exact) / eps<T>);
        if (!(error <= worst)) worst = error;
    };
    for (int i = -340; i <= 340; ++i) {
        const T z = static_cast<T>(i) / 4 + T(0.0078125);
        const auto x = static_cast<long double>(z);
        const long double exact_sigmoid = 1 / (1 + std::exp(-x));
        const long double exact_softplus = x < 0 ? std::log1p(std::exp(x)) : x + std::log1p(std::exp(-x));
        compare(Sigmoid{}(z), exact_sigmoid);
        compare(Sigmoid{}.derivative(z), exact_sigmoid * (1 / (1 + std::exp(x))));
        compare(Sigmoid{}.log(z), -std::log1p(std::exp(-x)));
        compare(Sigmoid{}.log_derivative(z), 1 / (1 + std::exp(x)));
        compare(Softplus{}(z), exact_softplus);
        compare(Softplus{}.derivative(z), exact_sigmoid);
        compare(Softplus{}.log_derivative(z), exact_sigmoid / exact_softplus);
        // log F passes 0 where F = 1: absolute there.
        const auto difference =
            std::abs(static_cast<long double>(Softplus{}.log(z)) - std::log(exact_softplus));
        CHECK(difference <= 4 * eps<T> * std::max(1.0L, std::abs(std::log(exact_softplus))));
    }
    CAPTURE(worst);
    CHECK(worst <= 4);
    CHECK(Sigmoid{}(T(-1e4)) == T(0));
    CHECK(Sigmoid{}(T(1e4)) == T(1));
    CHECK(Sigmoid{}(-infinity<T>) == T(0));
    CHECK(Sigmoid{}(infinity<T>) == T(1));
    CHECK(std::isnan(Sigmoid{}(not_a_number<T>)));
    CHECK(std::isnan(Softplus{}(not_a_number<T>)));
    CHECK(Sigmoid{}.log(T(-1e4)) == T(-1e4));
    CHECK(Softplus{}.log(T(-1e4)) == T(-1e4));
    CHECK(Softplus{}.log_derivative(T(-1e4)) == T(1));
    CHECK(Softplus{}(T(1e4)) == T(1e4));
}

TEMPLATE_TEST_CASE("sigmoid and softplus weights survive where F underflows", "[traps]", float, double) {
    using T = TestType;
    // F(z) = e^z (1 + o(1)) down there, so the weights are those of softmax.
    const std::vector<T> z = {T(-2000), T(-2001), T(-2003)};
    const std::vector<T> expected = weights_of<T>(Softmax{}, z);
    for (const auto& p :
         {weights_of<T>(PointwiseNormalizer<Sigmoid>{}, z), weights_of<T>(PointwiseNormalizer<Softplus>{}, z)})
        for (std::size_t i = 0; i < z.size(); ++i)
            CHECK(std::abs(p[i] - expected[i]) <= 4 * eps<T> * expected[i]);
}

TEST_CASE("entropy of sharp rows keeps its digits down to the cutoff", "[traps]") {
    // Two keys a gap g apart: H = log1p(e^-g) + g e^-g/(1+e^-g).
    const auto exact = [](long double g) {
        return std::log1p(std::exp(-g)) + g * std::exp(-g) / (1 + std::exp(-g));
    };
    for (double gap = 0; gap < 708; gap += 0.5) {
        const std::vector<double> z = {-gap, 0.0};
        const double h = attnscope::row_statistics<double>(RowIn<double>(z)).entropy_nats();
        CAPTURE(gap, h);
        REQUIRE(std::abs(h - exact(gap)) <= 1e-13L * exact(gap));
    }
    for (float gap = 0; gap < 87; gap += 0.5f) {
        const std::vector<float> z = {0.0f, -gap};
        const double h = attnscope::row_statistics<float>(RowIn<float>(z)).entropy_nats();
        CAPTURE(gap, h);
        REQUIRE(std::abs(h - exact(gap)) <= 1e-6L * exact(gap));
    }
}

TEST_CASE("entropy of sharp rows does not suffer from an offset or a temperature", "[traps]") {
    // 17 nats of gap after the temperature: H about 7e-7. Only the rounding of z itself is allowed for, by
    // giving logits that are exact.
    for (const double offset : {0.0, 1024.0, -65536.0})
        for (const double temperature : {0.125, 1.0, 3.0, 0.1}) {
            const double gap = std::round(17 * temperature * 64) / 64;
            const std::vector<float> z = {static_cast<float>(offset - gap), static_cast<float>(offset),
                                          static_cast<float>(offset - gap)};
            const long double u = static_cast<long double>(gap) / static_cast<long double>(temperature);
            const long double r = 2 * std::exp(-u), exact = std::log1p(r) + u * r / (1 + r);
            CAPTURE(offset, temperature);
            const auto statistics = attnscope::row_statistics<float>(RowIn<float>(z), temperature);
            CHECK(std::abs(statistics.entropy_nats() - exact) <= 1e-6L * exact);
            CHECK(std::abs(statistics.rest() - r / (1 + r)) <= 1e-6L * r);
            const std::vector<double> wide(z.begin(), z.end());
            CHECK(std::abs(attnscope::row_statistics<double>(RowIn<double>(wide), temperature).entropy_nats() -
                           exact) <= 1e-13L * exact);
        }
}

TEMPLATE_TEST_CASE("row sums keep their promised error far from the maximum", "[traps]", double, long double) {
    using T = TestType;
    // The rounding of 1/T grows with the gap: it must be made good in every scalar. The exponent u is a whole
    // number.
    for (const double temperature : {3.0, 7.0, 11.0, 49.0})
        for (const double u : {20.0, 200.0, 600.0}) {
            const std::vector<T> z = {T(0), static_cast<T>(-u * temperature)};
            const auto row = attnscope::row_statistics<T>(RowIn<T>(z), temperature);
            const long double exact = std::exp(-static_cast<long double>(u));
            CAPTURE(temperature, u);
            CHECK(std::abs(row.r - exact) <=
                  (row.sum_error() + std::numeric_limits<long double>::epsilon()) * exact);
        }
}

TEST_CASE("entropy of weights down to subnormal ones", "[traps]") {
    const float tiny = std::numeric_limits<float>::denorm_min();
    const Eigen::Vector2f pair(1, 3 * tiny);
    const double p = 3 * static_cast<double>(tiny);
    CHECK(std::abs(attnscope::entropy_of_weights(pair) - -p * std::log(p)) <= 1e-14 * -p * std::log(p));
    const double least = std::numeric_limits<double>::denorm_min();
    const Eigen::Vector2d doubles(1, least);
    // The product is subnormal itself: exact to half of the smallest number.
    CHECK(std::abs(attnscope::entropy_of_weights(doubles) - 744.4400719213812 * least) <=
          least / 2 + least / 4);
    CHECK(attnscope::entropy_of_weights(Eigen::Vector3d(0, 1, 0)) == 0);
    CHECK(std::isnan(attnscope::entropy_of_weights(Eigen::Vector2d(-0.5, 1.5))));
    CHECK(attnscope::entropy_of_weights(Eigen::VectorXd(0)) == 0);
}

TEMPLATE_TEST_CASE("Renyi entropies of every order are finite and ordered", "[traps]", float, double) {
    using T = TestType;
    for (const auto& z : {std::vector<T>{0, -1, -2, T(-0.5)}, std::vector<T>{0, 0, 0}, std::vector<T>{0, -40},
                          std::vector<T>{2}, std::vector<T>{0, -infinity<T>, -1}}) {
        double previous = infinity<double>;
        for (const double order :
             {0.0, 1e-300, 1e-9, 0.3, 0.5, 0.500001, 0.999999999, 1.0, 1.000000001, 1.499999, 1.5, 2.0, 10.0,
              1e6, 1e300, std::numeric_limits<double>::max(), infinity<double>}) {
            const double h = attnscope::renyi_entropy_nats<T>(RowIn<T>(z), order);
            CAPTURE(order, previous, h);
            REQUIRE(std::isfinite(h));
            REQUIRE(h >= -1e-300);
            REQUIRE(h <= previous + 1e-6 * std::abs(previous) * (std::same_as<T, float> ? 1.0 : 1e-7));
            previous = h;
        }
    }
}
