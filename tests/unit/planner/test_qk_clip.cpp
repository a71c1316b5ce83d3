// The factor of QK-clip.
#include <attnscope/planner/qk_clip.hpp>
#include <support/catch.hpp>

#include <limits>

using attnscope::qk_clip_factor;

TEST_CASE("qk_clip_factor brings the largest logit to tau, and leaves smaller ones", "[planner][qk_clip]") {
    for (const double most : {100.5, 250.0, 1e9}) {
        CHECK(qk_clip_factor(most) * most == Catch::Approx(100));
        CHECK(qk_clip_factor(most, 30) * most == Catch::Approx(30));
    }
    for (const double most : {-1e9, -5.0, 0.0, 99.0, 100.0}) CHECK(qk_clip_factor(most) == 1);
    CHECK(qk_clip_factor(std::numeric_limits<double>::infinity()) == 0);
    CHECK(qk_clip_factor(-std::numeric_limits<double>::infinity()) == 1);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(qk_clip_factor(nan) != qk_clip_factor(nan));
    for (const double tau : {0.0, -1.0, nan, std::numeric_limits<double>::infinity()})
        CHECK_THROWS_AS(qk_clip_factor(3, tau), attnscope::invalid_argument);
}
