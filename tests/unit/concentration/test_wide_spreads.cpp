// Finite logits whose spread overflows their scalar, at temperatures that give all of them weight.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

namespace {

using namespace attnscope;

/// The row in units of the largest logit, in long double: z/T = x ratio.
struct Exact {
    std::vector<long double> x, p;
    long double entropy = 0, mean = 0, variance = 0;
    Exact(std::vector<long double> units, long double ratio) : x(std::move(units)) {
        // The first unit is the largest, 1: sums over the others keep the digits of sharp rows.
        long double r = 0, t = 0;
        for (std::size_t i = 1; i < x.size(); ++i) {
            const long double u = (1 - x[i]) * ratio;
            r += std::exp(-u);
            t += u * std::exp(-u);
        }
        entropy = std::log1p(r) + t / (1 + r);
        for (const long double a : x) {
            p.push_back(std::exp((a - 1) * ratio) / (1 + r));
            mean += p.back() * a;
        }
        for (std::size_t i = 0; i < x.size(); ++i) variance += p[i] * (x[i] - mean) * (x[i] - mean);
    }
};

template <class T>
bool near(T value, long double exact, long double units = 64) {
    return std::abs((long double)(value)-exact) <=
           units * (long double)(std::numeric_limits<T>::epsilon()) * std::abs(exact);
}

} // namespace

TEMPLATE_TEST_CASE("rows whose spread overflows have weights, statistics and derivatives", "[wide]", float,
                   double) {
    using T = TestType;
    using A = Accumulator<T>;
    const std::vector<long double> units = {1, -1, 0.5L, -0.9375L, -1};
    const T largest = std::numeric_limits<T>::max();
    std::vector<T> z;
    for (const long double x : units) z.push_back(T(x) * largest);
    for (const long double ratio : {0.25L, 1.0L, 3.9L, 5.0L, 20.0L, 40.0L}) {
        const double temperature = double(largest / ratio);
        if (!(std::isfinite(temperature) && temperature > 0)) continue;
        const long double scale = (long double)(largest), t = (long double)(temperature);
        const Exact exact(units, scale / t);
        INFO("ratio " << double(ratio));
        const auto p = weights(Softmax(temperature), z);
        const auto statistics = row_statistics(z, temperature);
        const auto gradient = entropy_gradient(z, temperature),
                   slope = weight_temperature_derivative(z, temperature);
        std::vector<T> parameter(z.size());
        Softmax(temperature)
            .parameter_derivative(std::span<const T>(z), std::span<const T>(p.data(), z.size()),
                                  std::span<T>(parameter));
        CHECK(near<T>(T(statistics.entropy_nats()), exact.entropy, 400));
        CHECK(near<T>(T(statistics.max_weight()), exact.p[0], 400));
        CHECK(near<T>(T(log_sum_exp(z, temperature)), scale / t - std::log(exact.p[0]), 400));
        CHECK(near<T>(T(entropy_temperature_derivative(statistics) / A(temperature)),
                      -exact.variance * (scale / t) * (scale / t), 400));
        for (std::size_t i = 0; i < z.size(); ++i) {
            CHECK(near<T>(p[Index(i)], exact.p[i], 400));
            const long double below = exact.mean - exact.x[i];
            // Weights err by 400 units, sums of signed terms by as much of the largest distance.
            const long double error = 2000 * (long double)(std::numeric_limits<T>::epsilon()) * exact.p[i];
            CHECK(std::abs((long double)(slope[Index(i)]) / scale + exact.p[i] * below) <= error);
            CHECK(std::abs((long double)(gradient[Index(i)]) * t - exact.p[i] * below * (scale / t)) <=
                  error * (scale / t) + t * (long double)(std::numeric_limits<T>::denorm_min()));
            CHECK(std::abs((long double)(parameter[i]) * t * (t / scale) - exact.p[i] * below) <=
                  error + t * (t / scale) * (long double)(std::numeric_limits<T>::denorm_min()));
        }
    }
}

TEMPLATE_TEST_CASE("temperatures are planned for rows whose spread overflows", "[wide]", float, double) {
    using T = TestType;
    const T largest = std::numeric_limits<T>::max();
    const std::vector<T> z = {-largest, largest, largest / 2, -largest};
    const RowGrowth grown{3.0, 0};
    const auto check = [&](Aim aim, double value, auto figure) {
        const auto planned = planned_temperature(z, grown, aim, value);
        CHECK(planned.reachable);
        // The figure at that inverse temperature, in long double.
        const long double u = (long double)(planned.inverse_temperature) * (long double)(largest);
        const long double near_ = std::exp(-u / 2), far = std::exp(-2 * u);
        const long double r = 3 * near_ + 6 * far;
        const long double weight = 1 / (1 + r), q = 3 * near_ * near_ + 6 * far * far;
        const long double entropy = std::log(1 + r) + (3 * (u / 2) * near_ + 6 * (2 * u) * far) / (1 + r);
        CHECK(double(figure(weight, entropy, (1 + r) * (1 + r) / (1 + q))) ==
              Catch::Approx(value).epsilon(1e-12));
        CHECK(planned.best == Catch::Approx(value).epsilon(1e-12));
        const GrownRow row = grown_row(z, grown, planned.inverse_temperature);
        CHECK(figure(row.best_weight, row.entropy_nats, row.participation_ratio) ==
              Catch::Approx(value).epsilon(1e-12));
    };
    check(Aim::weight, 0.9, [](auto weight, auto, auto) { return weight; });
    check(Aim::weight, 0.2, [](auto weight, auto, auto) { return weight; });
    check(Aim::entropy, 0.5, [](auto, auto entropy, auto) { return entropy; });
    check(Aim::participation, 4.0, [](auto, auto, auto participation) { return participation; });
    const auto ties = planned_temperature(std::vector<T>{largest, -largest, largest}, {}, Aim::weight, 0.9);
    CHECK_FALSE(ties.reachable);
    CHECK(ties.best == 0.5);
}

TEST_CASE("gaps of long double beyond a double's are not planned for", "[wide]") {
    if (std::numeric_limits<long double>::max_exponent <= std::numeric_limits<double>::max_exponent) return;
    const long double high = std::ldexp(1.0L, 2000);
    const std::vector<long double> z = {high, -high, 0};
    CHECK(std::isnan(planned_temperature(z, {}, Aim::weight, 0.9).inverse_temperature));
    CHECK(std::isnan(grown_row(z, {}, 1e-300).best_weight));
}
