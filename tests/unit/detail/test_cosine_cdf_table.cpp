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
