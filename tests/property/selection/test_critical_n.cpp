// The two-sample test behind the critical N, against all orders of small samples.
#include <attnscope/random.hpp>
#include <attnscope/selection/critical_n.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::kolmogorov_smirnov;
using attnscope::Matrix;
using attnscope::MatrixView;

namespace {

/// The statistic straight from its definition.
double statistic(const std::vector<double>& a, const std::vector<double>& b) {
    double largest = 0;
    for (const auto* sample : {&a, &b})
        for (const double x : *sample) {
            const auto share = [&](const std::vector<double>& of) {
                return static_cast<double>(
                           std::count_if(of.begin(), of.end(), [&](double y) { return y <= x; })) /
                       static_cast<double>(of.size());
            };
            largest = std::max(largest, std::abs(share(a) - share(b)));
        }
    return largest;
}

/// Share of all ways to choose which of n + m ranks belong to a that give at least that statistic.
double share_at_least(std::size_t n, std::size_t m, double least) {
    double count = 0, all = 0;
    for (unsigned chosen = 0; chosen < 1U << (n + m); ++chosen) {
        if (static_cast<std::size_t>(std::popcount(chosen)) != n) continue;
        std::vector<double> a, b;
        for (unsigned i = 0; i < n + m; ++i) (chosen >> i & 1U ? a : b).push_back(i);
        all += 1;
        count += statistic(a, b) >= least - 1e-12;
    }
    return count / all;
}

} // namespace

TEST_CASE("the two-sample test against all orders", "[selection][critical_n]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 1);
    for (const auto& [n, m] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {1, 5}, {2, 2}, {3, 5}, {6, 4}, {7, 7}}) {
        for (int repetition = 0; repetition < 6; ++repetition) {
            std::vector<double> a, b;
            for (std::size_t i = 0; i < n; ++i) a.push_back(random.normal() + 0.3 * repetition);
            for (std::size_t i = 0; i < m; ++i) b.push_back(random.normal());
            const auto found = kolmogorov_smirnov(a, b), other = kolmogorov_smirnov(b, a);
            CHECK(found.statistic == Catch::Approx(statistic(a, b)).epsilon(1e-13));
            CHECK(found.p_value == Catch::Approx(share_at_least(n, m, found.statistic)).epsilon(1e-12));
            CHECK(other.statistic == Catch::Approx(found.statistic).epsilon(1e-13));
            CHECK(other.p_value == Catch::Approx(found.p_value).epsilon(1e-12));
        }
    }
    // Ties count once for each distinct number.
    const std::vector<double> a = {1, 1, 2}, b = {1, 2, 2};
    CHECK(kolmogorov_smirnov(a, b).statistic == Catch::Approx(1.0 / 3));
    CHECK(kolmogorov_smirnov(a, a).statistic == 0);
    CHECK(kolmogorov_smirnov(a, a).p_value == 1);
    // Two disjoint samples of 20: two of the C(40, 20) orders, far below what 1 minus a sum could tell.
    std::vector<double> low, high;
    for (int i = 0; i < 20; ++i) low.push_back(i), high.push_back(100 + i);
    CHECK(kolmogorov_smirnov(low, high).p_value == Catch::Approx(2 / 137846528820.0).epsilon(1e-10));
    CHECK(std::isnan(kolmogorov_smirnov({}, b).p_value));
    CHECK(std::isnan(kolmogorov_smirnov(std::vector<double>{std::nan("")}, b).statistic));
    const std::vector<double> long_one(2000);
    CHECK_THROWS_AS(kolmogorov_smirnov(long_one, long_one), attnscope::invalid_argument);
}

TEST_CASE("samples of one distribution are rejected as often as the level says", "[selection][critical_n]") {
    SplitMix64 random = generator(test_seed(), 2);
    int rejected = 0;
    constexpr int trials = 2000;
    for (int trial = 0; trial < trials; ++trial) {
        std::vector<double> a, b;
        for (int i = 0; i < 30; ++i) a.push_back(random.normal());
        for (int i = 0; i < 40; ++i) b.push_back(random.normal());
        rejected += kolmogorov_smirnov(a, b).p_value < 0.05;
    }
    // At most the level, and not far below it for the discrete statistic; five standard errors of 2000 trials
    // are 0.024.
    CHECK(rejected < trials * 0.074);
    CHECK(rejected > trials * 0.02);
}

TEST_CASE("the critical N is the first that cannot be told apart", "[selection][critical_n]") {
    SplitMix64 random = generator(test_seed(), 3);
    const std::vector<attnscope::Index> counts = {1, 5, 10, 20};
    Matrix<double> top(60, 4), rest(60, 4);
    for (Index head = 0; head < 60; ++head)
        for (Index at = 0; at < 4; ++at) {
            rest(head, at) = random.normal();
            top(head, at) = 5 + random.normal();
        }
    for (Index head = 0; head < 60; ++head)
        // From the third on the same numbers, for other heads.
        top(head, 2) = rest(59 - head, 2), top(head, 3) = rest(59 - head, 3);
    CHECK(attnscope::critical_count(MatrixView<double>(top), MatrixView<double>(rest), counts) == 10);
    top.array() += 20;
    CHECK_FALSE(attnscope::critical_count(MatrixView<double>(top), MatrixView<double>(rest), counts));
    CHECK_THROWS_AS(attnscope::critical_count(MatrixView<double>(top), MatrixView<double>(rest), counts, 1.0),
                    attnscope::invalid_argument);
    CHECK_THROWS_AS(attnscope::critical_count(MatrixView<double>(top), MatrixView<double>(rest),
                                              std::span(counts).first(3)),
                    attnscope::invalid_argument);
}
