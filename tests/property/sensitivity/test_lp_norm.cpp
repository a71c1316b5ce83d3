// The Jacobian of softmax in l_q norms: limits hold on every family, are attained, and cannot be sharpened.
#include <attnscope/sensitivity/lp_norm.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>

#include <attnscope/audit/measured_row.hpp>

using namespace attnscope_test;
using attnscope::jacobian_norms;
using attnscope::JacobianNorms;
using attnscope::lp_lipschitz_published;
using attnscope::lp_lipschitz_sharp;
using attnscope::lp_norm_limit;
using attnscope::LpNorm;
using attnscope::Softmax;
using attnscope::Verdict;

namespace {

constexpr std::array<double, 6> exponents = {1.1, 1.5, 2, 3, 6, 20};
constexpr double infinity = std::numeric_limits<double>::infinity();

Ref lp_length(const RefRow& x, double q) {
    Ref largest = 0, sum = 0;
    for (const Ref value : x) largest = std::max(largest, std::abs(value));
    if (largest == 0 || std::isinf(q)) return largest;
    for (const Ref value : x) sum += std::pow(std::abs(value) / largest, Ref(q));
    return largest * std::pow(sum, 1 / Ref(q));
}

/// |(diag(p) - p p^T) x|_q/|x|_q.
Ref gain(const std::vector<double>& p, const RefRow& x, double q) {
    Ref mean = 0, sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) mean += p[i] * x[i], sum += p[i];
    RefRow y;
    for (std::size_t i = 0; i < p.size(); ++i) y.push_back(p[i] / sum * (x[i] - mean / sum));
    return lp_length(y, q) / lp_length(x, q);
}

} // namespace

TEST_CASE("the l_q norms of the Jacobian are below 1/(2T) and what the row's own norms say",
          "[sensitivity][lp]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    LpNorm<double> lp;
    std::size_t checked = 0, informative = 0, violated = 0;
    Worst found;
    for_each_row<double>(seed, lengths, 2, [&](const Where& where, const std::vector<double>& z) {
        if (visible_count(z) == 0) return;
        SplitMix64 random = generator(seed, z.size(), 5);
        attnscope::RowMeter meter;
        for (const double temperature : temperatures) {
            const auto& row = meter(Softmax(temperature), in(z));
            const std::vector<double> p(row.p.begin(), row.p.end());
            const double error =
                row.weight_error() + std::numeric_limits<double>::epsilon() * static_cast<double>(z.size());
            for (const double q : exponents) {
                const double norm = lp(row.p, q, 6) / temperature;
                for (const auto& bound : {lp_lipschitz_published(norm, temperature, error),
                                          lp_lipschitz_sharp(norm, row.norms, temperature, q, error)}) {
                    ++checked;
                    violated += bound.verdict() == Verdict::violated || bound.verdict() == Verdict::undefined;
                }
                const double limit = lp_norm_limit(row.norms, temperature, q);
                informative += limit < 0.49 / temperature;
                // Any vector has no more, as a sum in long double.
                RefRow x;
                for (std::size_t i = 0; i < p.size(); ++i) x.push_back(random.normal());
                found.meet(gain(p, x, q) / temperature - limit, Ref(4 * error + 1e-14) * limit, where);
            }
        }
    });
    CHECK(checked > 10'000);
    CHECK(informative > 1'000);
    CHECK(violated == 0);
    ATTNSCOPE_CHECK_WORST(found);
}

TEST_CASE("two keys attain the limits of l_q norms for every q: the constant is not below 1/2",
          "[sensitivity][lp]") {
    LpNorm<double> lp;
    for (const double temperature : {0.05, 1.0, 50.0})
        for (const double gap : {0.0, 0.3, 5.0, 30.0})
            for (const double q : exponents) {
                const std::vector<double> z = {1, 1 - gap * temperature};
                attnscope::RowMeter meter;
                const auto& row = meter(Softmax(temperature), in(z));
                const double norm = lp(row.p, q) / temperature, error = row.weight_error();
                CAPTURE(temperature, gap, q);
                check_attained(lp_lipschitz_sharp(norm, row.norms, temperature, q, error));
                if (gap > 0) continue;
                // "Strictly below 1/2 for 1 < q < inf" is false: J (1,-1) = (1,-1)/2 at p = (1/2, 1/2).
                check_attained(lp_lipschitz_published(norm, temperature, error));
                CHECK(gain({0.5, 0.5}, {1, -1}, q) == Catch::Approx(0.5).epsilon(1e-15));
            }
}

TEST_CASE("l_q norms by iteration: those of 2 and of conjugate exponents agree, none exceeds the exact ones",
          "[sensitivity][lp]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    LpNorm<double> lp;
    Worst spectral, conjugate;
    for (const std::size_t n : {2u, 3u, 8u, 60u})
        for (int repetition = 0; repetition < 20; ++repetition) {
            SplitMix64 random = generator(seed, n, repetition);
            std::vector<double> z(n);
            for (double& x : z) x = 2 * random.normal();
            attnscope::RowMeter meter;
            const auto& row = meter(Softmax(), in(z));
            const Where where{"normal", n, 1, seed};
            const double two = lp(row.p, 2, 400);
            spectral.meet(std::abs(two - row.norms.spectral.value), 1e-4 * two, where);
            spectral.meet(two - row.norms.spectral.value, 1e-14, where);
            for (const double q : {1.2, 1.5, 4.0}) {
                const double own = lp(row.p, q, 400), other = lp(row.p, q / (q - 1), 400);
                conjugate.meet(std::abs(own - other), 1e-3 * own, where);
            }
            // Few steps are near: what the audit asks.
            conjugate.meet(lp(row.p, 3, 400) - lp(row.p, 3, 2), 0.05 * two, where);
        }
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(conjugate);
    const std::vector<double> one_hot = {0, 1, 0}, none = {}, bad = {0.5, std::nan(""), 0.5};
    CHECK(lp(in(one_hot), 3) == 0);
    CHECK(lp(in(none), 3) == 0);
    CHECK(std::isnan(lp(in(bad), 3)));
    CHECK_THROWS_AS(lp(in(one_hot), 1.0), attnscope::invalid_argument);
    CHECK_THROWS_AS(lp(in(one_hot), infinity), attnscope::invalid_argument);
    CHECK_THROWS_AS(lp(in(one_hot), 3, 0), attnscope::invalid_argument);
    CHECK_THROWS_AS(lp_norm_limit(JacobianNorms<double>{}, 1, 0.5), attnscope::invalid_argument);
}
