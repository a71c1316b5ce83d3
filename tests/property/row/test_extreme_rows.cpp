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

TEMPLATE_TEST_CASE("a row in pieces keeps mean and variance however near its logits lie",
                   "[streaming][extreme]", float, double) {
    using T = TestType;
    Worst mean, variance;
    for (const double size : {1e-150, 1e-60, 3e-44, 1e-38, 1e-30, 1e-25, 1e-19, 1e-15, 1e-10, 1.0, 30.0})
        for (const double offset : {0.0, 1.0})
            for (const std::size_t piece : {1u, 2u, 5u, 33u}) {
                std::vector<T> z;
                for (std::size_t i = 0; i < 33; ++i)
                    z.push_back(i % 9 == 4 ? -std::numeric_limits<T>::infinity()
                                           : static_cast<T>(offset - double(i * i % 7) * size));
                const Where where{"near", piece, size, 0, scalar_name<T>()};
                RowState<T, 2> state;
                for (std::size_t begin = 0; begin < z.size(); begin += piece) {
                    RowState<T, 2> part;
                    auto terms = z;
                    if (begin % 2 == 0)
                        part.add(in(z).subspan(begin, std::min(piece, z.size() - begin)), Index(begin));
                    else
                        part.add(in(z).subspan(begin, std::min(piece, z.size() - begin)), Index(begin),
                                 out(terms).subspan(begin, std::min(piece, z.size() - begin)));
                    state.merge(part);
                }
                const auto row = state.statistics();
                Ref sum = 0, first = 0, second = 0;
                for (const T x : z) {
                    if (!(std::abs(x) <= std::numeric_limits<T>::max())) continue;
                    const Ref u = Ref(row.max_logit) - Ref(x), w = std::exp(-u);
                    sum += w;
                    first += w * u;
                    second += w * u * u;
                }
                first /= sum;
                second /= sum;
                const Ref accuracy = std::is_same_v<T, float> ? Ref(2e-6) : Ref(1e-12),
                          least = std::numeric_limits<double>::min();
                mean.meet(std::abs(Ref(row.score_deficit()) - first), accuracy * first + 8 * least, where);
                variance.meet(row.logit_variance() >= 0, where);
                variance.meet(std::abs(Ref(row.logit_variance()) - (second - first * first)),
                              4 * accuracy * second + 8 * least, where);
            }
    ATTNSCOPE_CHECK_WORST(mean);
    ATTNSCOPE_CHECK_WORST(variance);
}

TEMPLATE_TEST_CASE("derivatives in the temperature and of the entropy at the ends of temperatures",
                   "[entropy][extreme]", float, double) {
    using T = TestType;
    Worst by_temperature, by_beta, entropy, scalars;
    constexpr Ref most = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::min();
    for (const double size : {1e-300, 1e-30, 1e-25, 1e-10, 1.0, 30.0, 1e10, 1e30, 1e150})
        for (const double temperature : {std::numeric_limits<double>::denorm_min(), 1e-310, 1e-300, 1e-155,
                                         1e-46, 1e-30, 1.0, 1e30, 1e46, 1e155, 1e300, 1.7e308}) {
            std::vector<T> z;
            for (const double x : {0.0, -1.0, -0.25, -3.0, -3.0, -1.5}) z.push_back(static_cast<T>(x * size));
            if (!(std::abs(z[3]) <= std::numeric_limits<T>::max())) continue;
            const Where where{"extreme", z.size(), temperature, 0, scalar_name<T>()};
            const Ref t = temperature;
            RefRow p;
            Ref sum = 0, mean = 0, exponents = 0, squares = 0;
            for (const T x : z) p.push_back(std::exp(Ref(x) / t));
            for (const Ref w : p) sum += w;
            for (std::size_t i = 0; i < z.size(); ++i) {
                p[i] /= sum;
                if (p[i] == 0) continue;
                mean += p[i] * Ref(z[i]);
                exponents += p[i] * Ref(z[i]) / t;
                squares += p[i] * (Ref(z[i]) / t) * (Ref(z[i]) / t);
            }
            const Ref accuracy = std::is_same_v<T, float> ? Ref(1e-5) : Ref(1e-12);
            std::vector<T> slope(z.size()), moved(z.size()), by(z.size());
            entropy_gradient<T>(in(z), temperature, out(slope));
            weight_temperature_derivative<T>(in(z), temperature, out(moved));
            const Softmax softmax(temperature);
            const std::vector<T> weights = weights_of(softmax, z);
            softmax.parameter_derivative<T>(in(z), in(weights), out(by));
            const auto meet = [&](Worst& worst, T found, Ref right, Ref unit, Ref lost) {
                if (std::abs(right) > most / 2)
                    worst.meet(!std::isnan(found), where);
                else
                    worst.meet(std::abs(Ref(found) - right), accuracy * unit + 4 * least + lost, where);
            };
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref extent = std::abs(Ref(z[i])) + std::abs(mean);
                const Ref centred = p[i] > 0 ? p[i] * (Ref(z[i]) - mean) : Ref(0);
                const Ref unit = p[i] > 0 ? p[i] * extent : Ref(0);
                meet(by_beta, moved[i], centred, unit, 0);
                meet(entropy, slope[i], -centred / t / t, unit / t / t, 0);
                // A weight below the smallest normal number is 0.
                meet(by_temperature, by[i], -centred / t / t, unit / t / t,
                     p[i] > 0 && p[i] < least ? p[i] * extent / t / t : Ref(0));
            }
            const auto row = row_statistics<T>(in(z), temperature);
            const Ref variance = squares - exponents * exponents;
            const auto meet_scalar = [&](double found, Ref right, Ref unit) {
                scalars.meet(found <= 0, where);
                if (std::abs(right) <= Ref(1e307))
                    scalars.meet(std::abs(Ref(found) - right),
                                 accuracy * unit + 8 * Ref(std::numeric_limits<double>::min()) * (1 + 1 / t),
                                 where);
            };
            meet_scalar(static_cast<double>(entropy_log_temperature_derivative(row)), -variance, squares);
            meet_scalar(static_cast<double>(entropy_temperature_derivative(row)), -variance * t, squares * t);
        }
    ATTNSCOPE_CHECK_WORST(by_temperature);
    ATTNSCOPE_CHECK_WORST(by_beta);
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(scalars);
}
