// Curves of a head against the columns of its analysis, which are measured one selection at a time.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/curves.hpp>
#include <support/analysis_reference.hpp>

using namespace attnscope_test;
using attnscope::CurveFigure;
using attnscope::HeadAnalysis;
using attnscope::HeadCurves;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::SelectionColumns;

namespace {

struct SmallHead {
    Matrix<double> q, k, v;
    HeadView<double> view() const { return {q, k, v}; }
};
SmallHead small_head(SplitMix64& random, Index n) {
    SmallHead head{Matrix<double>(n, 4), Matrix<double>(n, 4), Matrix<double>(n, 6)};
    for (Matrix<double>* part : {&head.q, &head.k, &head.v})
        for (double& x : part->reshaped()) x = 2 * random.normal();
    return head;
}

/// Mean of a column over the first rows that have a selection.
double mean_of(const attnscope::Column& column, Index length) {
    return attnscope::finite_mean(column.head(length));
}

} // namespace

TEST_CASE("special: curves are the means of what single selections say", "[analysis][curves]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 17);
    const Index n = 48;
    const SmallHead head = small_head(random, n);
    const std::vector<Index> of_lengths = {7, 20, n}, counts = {1, 2, 5, 17};
    for (const Mask& mask : {Mask::causal(), Mask::none(), Mask::sliding_window(9)}) {
        const HeadAnalysis one = attnscope::analyze(head.view(), {.mask = mask, .counts = counts});
        const HeadCurves curves =
            attnscope::head_curves(head.view(), {.mask = mask,
                                                 .lengths = of_lengths,
                                                 .counts = counts,
                                                 .unit_vectors = attnscope::UnitVectors::nowhere,
                                                 .ball_counts = {2, 5},
                                                 .ball_queries = {n - 1},
                                                 .temperatures = {1, 0.5},
                                                 .steps = {1e-3}});
        REQUIRE(curves.at_length.size() == of_lengths.size());
        REQUIRE(curves.at_temperature.size() == 2);
        constexpr std::array<std::pair<CurveFigure, attnscope::Column SelectionColumns::*>, 10> same = {{
            {CurveFigure::distance, &SelectionColumns::distance_cumulative},
            {CurveFigure::resultant, &SelectionColumns::distance_resultant},
            {CurveFigure::theorem1, &SelectionColumns::distance_bound},
            {CurveFigure::random_lower, &SelectionColumns::expected_distance_lower},
            {CurveFigure::random_upper, &SelectionColumns::expected_distance_upper},
            {CurveFigure::lost, &SelectionColumns::truncation_error},
            {CurveFigure::mass, &SelectionColumns::mass},
            {CurveFigure::separable, &SelectionColumns::separable_fraction},
            {CurveFigure::precision, &SelectionColumns::precision},
            {CurveFigure::f_score, &SelectionColumns::f_score},
        }};
        for (std::size_t l = 0; l < of_lengths.size(); ++l) {
            const attnscope::LengthCurves& at = curves.at_length[l];
            CHECK(at.normal_rows == of_lengths[l]);
            CHECK(at.entropy_nats ==
                  Catch::Approx(mean_of(one.rows.entropy_nats, of_lengths[l])).epsilon(1e-12));
            CHECK(at.max_weight == Catch::Approx(mean_of(one.rows.max_weight, of_lengths[l])).epsilon(1e-12));
            for (std::size_t c = 0; c < counts.size(); ++c) {
                const SelectionColumns& selection = one.selection(counts[c]);
                CHECK(at.rows[c] == selection.mass.head(of_lengths[l]).isFinite().count());
                for (const auto& [figure, column] : same) {
                    INFO("figure " << attnscope::curve_figure_names[static_cast<std::size_t>(figure)] << ", N "
                                   << counts[c] << ", L " << of_lengths[l]);
                    const double mean = mean_of(selection.*column, of_lengths[l]);
                    if (at.rows[c] == 0)
                        CHECK(std::isnan(at.at(figure, c)));
                    else // d1 of the curves is that of the Gram matrix
                        CHECK(std::abs(at.at(figure, c) - mean) <=
                              (figure == CurveFigure::theorem1 ? 1e-6 : 1e-9) * (1 + std::abs(mean)));
                }
            }
        }
        CHECK(curves.at_temperature[0].spectral ==
              Catch::Approx(attnscope::finite_mean(one.rows.spectral)).epsilon(1e-12));
        // A difference over a step is no longer than the largest norm on its way; half the temperature doubles logits.
        for (const attnscope::TemperatureCurve& curve : curves.at_temperature)
            CHECK(curve.mean[0] <= curve.largest[0]);
        for (const attnscope::SeparabilityBall& ball : curves.balls) {
            CHECK(ball.query == n - 1);
            CHECK(ball.separable == one.selection(ball.count).separable_fraction[n - 1]);
            CHECK((ball.expected >= 0 && ball.expected <= 1));
        }
        CHECK(curves.balls.size() == 2);
    }
}

TEST_CASE("special: short rows and given radii, as asked", "[analysis][curves]") {
    SplitMix64 random = generator(test_seed(), 18);
    const SmallHead head = small_head(random, 12);
    attnscope::CurveOptions options{.mask = Mask::causal(), .counts = {3}};
    const double left_out =
        attnscope::head_curves(head.view(), options).at_length[0].at(CurveFigure::distance, 0);
    options.short_rows = attnscope::ShortRows::zero;
    options.radius = 0.5;
    options.ball_counts = {3};
    options.ball_queries = {5, 11};
    const HeadCurves zero = attnscope::head_curves(head.view(), options);
    // Of 12 rows the first three have no more than 3 keys.
    CHECK(zero.at_length[0].at(CurveFigure::distance, 0) == Catch::Approx(left_out * 9 / 12));
    REQUIRE(zero.balls.size() == 2);
    CHECK((zero.balls[0].radius == 0.5 && std::isnan(zero.balls[0].expected)));
}

TEST_CASE("special: head_curves refuses lists that do not fit", "[analysis][curves][errors]") {
    SplitMix64 random = generator(test_seed(), 19);
    const SmallHead head = small_head(random, 6);
    using attnscope::head_curves;
    CHECK_THROWS_WITH(head_curves(head.view(), {.counts = {2, 2}}),
                      "head_curves: counts must ascend from 1 on, got 2");
    CHECK_THROWS_WITH(head_curves(head.view(), {.lengths = {7}}),
                      "head_curves: lengths must not exceed the number of queries, got 7 and 6");
    CHECK_THROWS_AS(head_curves(head.view(), {.temperatures = {0}}), attnscope::invalid_argument);
    CHECK_THROWS_AS(head_curves(head.view(), {.steps = {-1}}), attnscope::invalid_argument);
    CHECK_THROWS_AS(head_curves(head.view(), {.radius = -1.0}), attnscope::invalid_argument);
    CHECK_THROWS_WITH(head_curves(HeadView<double>(head.q, head.k), {}), "head_curves: the head needs values");
    CHECK_THROWS_WITH(attnscope::analyze(head.view(), {.expectation_queries = {6}}),
                      "analyze: expectation_queries must ascend within the queries, got 6 and 6");
}
