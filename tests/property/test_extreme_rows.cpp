// Figures of rows whose gaps, temperatures or ties are extreme, against long double.
#include <attnscope/attnscope.hpp>
#include <support/laws.hpp>

#include <Eigen/SVD>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Renyi entropy from the definition, in logarithms.
Ref renyi(const RefRow& z, Ref order) {
    const auto log_sum = [&](Ref a) {
        Ref sum = 0;
        const Ref top = *std::max_element(z.begin(), z.end());
        for (const Ref x : z) sum += std::exp(a * (x - top));
        return a * top + std::log(sum);
    };
    if (order == 1) {
        Ref sum = 0;
        for (const Ref x : z)
            if (const Ref p = std::exp(x - log_sum(1)); p > 0) sum -= p * (x - log_sum(1));
        return sum;
    }
    return (log_sum(order) - order * log_sum(1)) / (1 - order);
}

} // namespace

TEMPLATE_TEST_CASE("Renyi entropies where a logit lies far below, at every order", "[hill][extreme]", float,
                   double) {
    using T = TestType;
    Worst worst, ordered;
    for (const double gap : {1.0, 30.0, 87.0, 100.0, 700.0, 1e4, 1e30})
        for (const std::vector<double>& base : {std::vector<double>{0, -gap}, std::vector<double>{0, 0, -gap},
                                                std::vector<double>{0, -1, -gap, -gap / 2}}) {
            const std::vector<T> z = narrow<T>(base);
            Where where{"gap", z.size(), gap, 0, scalar_name<T>()};
            double before = infinity;
            for (const double order :
                 {0.5, 0.51, 0.7, 0.9, 0.999, 1.0, 1.001, 1.2, 1.49, 1.5, 1.7, 2.0, 5.0, 100.0}) {
                where.temperature = order;
                const double found = static_cast<double>(renyi_entropy_nats<T>(in(z), order));
                const Ref right = renyi(widen(z), order);
                // The reference subtracts numbers of the size of 1, over 1 - order.
                const Ref digits = order == 1 ? Ref(1) : 1 / std::abs(1 - Ref(order));
                worst.meet(std::abs(found - right),
                           Ref(1e-13) * right + 16 * unit_roundoff<Ref> * digits * (1 + Ref(order)), where);
                ordered.meet(found >= 0 && found <= before * (1 + 1e-14), where);
                before = found;
                CHECK(hill_number(Eigen::Map<const Row<T>>(z.data(), static_cast<Index>(z.size())), order) ==
                      std::exp(found));
            }
        }
    ATTNSCOPE_CHECK_WORST(worst);
    ATTNSCOPE_CHECK_WORST(ordered);
}

TEMPLATE_TEST_CASE("divergences of rows far apart are not cut", "[divergence][extreme]", float, double) {
    using T = TestType;
    for (const double gap : {10.0, 700.0, 2000.0, 1e4, 1e30}) {
        const std::vector<T> a = {0, 0}, b = {0, static_cast<T>(-gap)};
        const Divergence apart = row_divergence<T>(in(a), in(b));
        const Ref distance = -Ref(b[1]), tail = std::log1p(std::exp(-distance));
        const Ref forward = distance / 2 + tail - std::log(Ref(2)), q = std::exp(-distance);
        CAPTURE(gap, apart.forward);
        CHECK(std::abs(apart.forward / forward - 1) < (std::is_same_v<T, float> ? 1e-6 : 1e-13));
        const Ref backward = std::log(Ref(2)) - tail - (q > 0 ? distance * q / (1 + q) : Ref(0));
        CHECK(std::abs(apart.backward / backward - 1) < (std::is_same_v<T, float> ? 1e-6 : 1e-13));
    }
    // The example in double, to the last digits: 5000 - log 2.
    CHECK(std::abs(row_divergence<double>(std::vector<double>{0, 0}, std::vector<double>{0, -1e4}).forward -
                   4999.306852819440055) < 1e-11);
    const std::vector<double> z = {0, 0}, moved = {0, -1e4};
    CHECK(std::abs(measure_perturbation(in(z), in(moved)).kl - 4999.306852819440055) < 1e-11);
}

TEST_CASE("the spectral norm by iteration finds what has opposite signs on equal keys", "[norms][extreme]") {
    const std::vector<double> row = {0.5, 0.5, 0.1, 0.1};
    const auto norm = jacobian_norms(Softpick(), in(row), in(weights_of(Softpick(), row))).spectral;
    CHECK(norm.converged);
    CHECK(std::abs(norm.value - 1.093472836243808) < 1e-8);
    CHECK(norm.bracket.lower <= 1.093472836243808);
    CHECK(norm.bracket.upper >= 1.093472836243808);
    CHECK(norm.bracket.upper - norm.bracket.lower < 1e-8);

    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 91);
    Worst value, bracket;
    std::size_t converged = 0, rows = 0;
    const auto check = [&](const auto& normalizer, const std::vector<double>& z) {
        const std::size_t n = z.size();
        const std::vector<double> p = weights_of(normalizer, z);
        Eigen::MatrixXd dense(static_cast<Index>(n), static_cast<Index>(n));
        for (std::size_t j = 0; j < n; ++j) {
            std::vector<double> unit(n, 0);
            unit[j] = 1;
            const std::vector<double> column = jvp_of(normalizer, z, p, unit);
            for (std::size_t i = 0; i < n; ++i) dense(static_cast<Index>(i), static_cast<Index>(j)) = column[i];
        }
        const double right = Eigen::JacobiSVD<Eigen::MatrixXd>(dense).singularValues()[0];
        const auto found = jacobian_norms(normalizer, in(z), in(p)).spectral;
        const Where where{"ties", n, 1, seed, "double", std::string(normalizer.name())};
        ++rows;
        converged += found.converged;
        if (found.converged) value.meet(std::abs(found.value - right), 1e-7 * right + 1e-300, where);
        bracket.meet(found.bracket.lower <= right * (1 + 1e-12) && right <= found.bracket.upper * (1 + 1e-12),
                     where);
    };
    for (int i = 0; i < 400; ++i) {
        std::vector<double> z(2 + static_cast<std::size_t>(random.below(7)));
        for (double& x : z) x = 0.5 * static_cast<double>(random.below(4)) - 0.25;
        check(Softpick(), z);
        check(SelfAdjustedSoftmax(), z);
        check(SelfAdjustedSoftmaxPlain(), z);
        check(AdaptiveSoftmax(), z);
        check(EntropyTargetSoftmax(0.9), z);
    }
    ATTNSCOPE_CHECK_WORST(value);
    ATTNSCOPE_CHECK_WORST(bracket);
    CAPTURE(rows, converged);
    CHECK(converged * 100 >= rows * 99);
}

TEMPLATE_TEST_CASE("mean, variance, entropy and norms at the ends of temperatures and logits",
                   "[entropy][extreme]", float, double) {
    using T = TestType;
    Worst mean, variance, entropy, finite;
    for (const double size : {1e-300, 1e-30, 1e-25, 1e-10, 1.0, 30.0, 1e10})
        for (const double temperature : {std::numeric_limits<double>::denorm_min(), 1e-310, 1e-300, 1e-30, 1.0,
                                         1e30, 1e155, 1e300, 1.7e308}) {
            std::vector<T> z;
            for (const double x : {0.0, -1.0, -0.25, -3.0, -3.0, -1.5}) z.push_back(static_cast<T>(x * size));
            const Where where{"extreme", z.size(), temperature, 0, scalar_name<T>()};
            const auto row = row_statistics<T>(in(z), temperature);
            Ref sum = 0, first = 0, second = 0;
            for (const T x : z) {
                const Ref w = std::exp(Ref(x) / Ref(temperature));
                sum += w;
                first += w * -Ref(x);
                second += w * Ref(x) * Ref(x);
            }
            first /= sum;
            second /= sum;
            const Ref accuracy = std::is_same_v<T, float> ? Ref(2e-6) : Ref(1e-12),
                      least = std::numeric_limits<double>::min();
            mean.meet(std::abs(-Ref(row.mean_logit()) - first), accuracy * first + 8 * least * (1 + Ref(size)),
                      where);
            variance.meet(std::abs(Ref(row.logit_variance()) - (second - first * first)),
                          4 * accuracy * second + 8 * least * (1 + Ref(size) * Ref(size)), where);
            entropy.meet(std::abs(Ref(row.entropy_nats()) - (std::log(sum) + first / Ref(temperature))),
                         4 * accuracy * (std::log(sum) + 1), where);
            const std::vector<T> p = weights_of(Softmax(temperature), z);
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref right = std::exp(Ref(z[i]) / Ref(temperature)) / sum;
                entropy.meet(std::abs(Ref(p[i]) - right),
                             16 * unit_roundoff<T> * right *
                                     (1 + std::min(Ref(800), -Ref(z[i]) / Ref(temperature))) +
                                 2 * Ref(std::numeric_limits<T>::min()),
                             where);
            }
            const auto norms = jacobian_norms(Softmax(temperature), in(z), in(p));
            for (const auto norm :
                 {norms.max_entry, norms.column, norms.frobenius, norms.one, norms.spectral.value})
                finite.meet(norm >= 0, where);
        }
    ATTNSCOPE_CHECK_WORST(mean);
    ATTNSCOPE_CHECK_WORST(variance);
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(finite);
}

TEST_CASE("the argmax of a row with +inf is its first such key, in one piece or several",
          "[entropy][extreme]") {
    const std::vector<double> z = {1, infinity, 3, infinity, -infinity};
    CHECK(row_statistics<double>(in(z)).argmax == 1);
    RowState<double> front, back;
    back.add(in(z).subspan(2), 2);
    CHECK(back.statistics().argmax == 3);
    front.add(in(z).first(2), 0);
    back.merge(front);
    CHECK(back.statistics().argmax == 1);
    CHECK(back.statistics().max_logit == infinity);
}
