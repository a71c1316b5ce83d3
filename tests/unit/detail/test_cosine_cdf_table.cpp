// The cosine distribution from a table.
#include <attnscope/selection/separability_expectation.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::sphere_cosine_cdf;

TEST_CASE("special: the interpolated cosine distribution is exact to 1e-10", "[special][selection]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 10);
    double worst = 0;
    for (const Index d : {2, 3, 7, 8, 9, 16, 64, 768}) {
        const attnscope::detail::CosineCdfTable table(d);
        for (int i = 0; i < 2000; ++i) {
            const double t = 2 * random.uniform() - 1;
            worst = std::max(worst, std::abs(table(t) - sphere_cosine_cdf(d, t)));
        }
        for (const double end : {-1.0, 1.0, -1 + 1e-9, 1 - 1e-9, 2.0, -2.0})
            worst = std::max(worst, std::abs(table(end) - sphere_cosine_cdf(d, end)));
    }
    INFO("worst " << worst);
    CHECK(worst < 1e-10);
}

TEST_CASE("special: leave-one-out rules have the moments of the sums", "[special][selection]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 11);
    INFO("seed " << seed);
    for (const Index d : {2, 3, 16, 768})
        for (const int count : {2, 3, 9, 40}) {
            std::vector<double> p;
            for (int i = 0; i < count; ++i) p.push_back(std::exp(-6 * random.uniform()));
            p.back() = 0;
            const attnscope::detail::LeaveOneOutLengths lengths(p, d, 6);
            for (std::size_t without = 0; without < p.size(); ++without) {
                Ref squares = 0, fourths = 0;
                for (std::size_t j = 0; j < p.size(); ++j) {
                    if (j == without) continue;
                    squares += Ref(p[j]) * Ref(p[j]);
                    fourths += Ref(p[j]) * Ref(p[j]) * Ref(p[j]) * Ref(p[j]);
                }
                const auto rule = lengths.rule(without);
                Ref mass = 0, mean = 0, square = 0;
                for (std::size_t k = 0; k < rule.nodes.size(); ++k) {
                    mass += rule.weights[k];
                    mean += Ref(rule.weights[k]) * Ref(rule.nodes[k]);
                    square += Ref(rule.weights[k]) * Ref(rule.nodes[k]) * Ref(rule.nodes[k]);
                }
                // E |sum|^2 = sum p^2, and its variance (2/d)((sum p^2)^2 - sum p^4).
                const Ref variance = 2 / static_cast<Ref>(d) * (squares * squares - fourths);
                CHECK(std::abs(mass - 1) < 1e-12);
                CHECK(std::abs(mean - squares) <= 1e-12 * squares);
                CHECK(std::abs(square - (squares * squares + variance)) <= 1e-12 * squares * squares);
            }
        }
}
