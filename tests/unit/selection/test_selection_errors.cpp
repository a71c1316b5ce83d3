// Broken preconditions of the selection wing say which rule and which value.
#include <attnscope/selection/separability_bounds.hpp>
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selection/theorem1_random.hpp>
#include <attnscope/selection/truncation.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::invalid_argument;
using attnscope::SphericalModel;

TEST_CASE("SelectedSet refuses sizes and keys that do not fit", "[selection][errors]") {
    const Tokens<double> tokens = tokens_of({0.5, 0.25, 0.25}, {1, 2, 3, 4, 5, 6});
    const Matrix<double> short_x = Matrix<double>::Zero(2, 2);
    attnscope::SelectedSet<double> set;
    CHECK_THROWS_AS(set.assign(tokens.weights(), MatrixView<double>(short_x), std::vector<Index>{0}),
                    invalid_argument);
    CHECK_THROWS_WITH(set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0, 3}),
                      "SelectedSet: selected keys must be in [0, n), got 3 and 3");
    CHECK_THROWS_AS(set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{-1}), invalid_argument);
    CHECK_THROWS_WITH(set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{1, 0, 1}),
                      "SelectedSet: selected keys must be distinct, got 1");
    // It works again after a refusal.
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{2, 0});
    CHECK(set.mass() == 0.75);
    CHECK(set.tail_mass() == 0.25);
    CHECK(set.context() == Eigen::RowVector2d(1.75, 2.5));
    CHECK(set.remainder() == Eigen::RowVector2d(0.75, 1));

    const Matrix<double> small_gram = Matrix<double>::Zero(2, 3);
    CHECK_THROWS_AS(fixed_set_geometry(set, &small_gram), invalid_argument);
}

TEST_CASE("DistanceCurves refuses sizes that do not fit", "[selection][errors]") {
    const Tokens<double> tokens = tokens_of({0.5, 0.25, 0.25}, {1, 2, 3, 4, 5, 6});
    const auto gram = attnscope::gram_matrix(tokens.vectors());
    const std::vector<Index> order = {0, 1, 2}, brief = {0, 1};
    const Matrix<double> short_x = Matrix<double>::Zero(2, 2), small_gram = Matrix<double>::Zero(2, 2);
    attnscope::DistanceCurves<double> curves;
    const auto p = tokens.weights();
    CHECK_THROWS_AS(curves.compute(p, MatrixView<double>(short_x), gram, order, 3), invalid_argument);
    CHECK_THROWS_AS(curves.compute(p, tokens.vectors(), small_gram, order, 3), invalid_argument);
    CHECK_THROWS_AS(curves.compute(p, tokens.vectors(), gram, brief, 2), invalid_argument);
    CHECK_THROWS_AS(curves.compute(p, tokens.vectors(), gram, order, 4), invalid_argument);
    CHECK_THROWS_AS(curves.compute(p, tokens.vectors(), gram, order, -1), invalid_argument);
    CHECK(curves.compute(p, tokens.vectors(), gram, order, 3).mass.back() == 1);
}

TEST_CASE("random subsets: N and samples are checked", "[selection][errors]") {
    const Tokens<double> tokens = tokens_of({0.5, 0.5}, {1, 2});
    const Matrix<double> long_x = Matrix<double>::Zero(3, 1);
    SplitMix64 random(1);
    using Moments = attnscope::RandomSubsetMoments<double>;
    CHECK_THROWS_AS(Moments(tokens.weights(), MatrixView<double>(long_x)), invalid_argument);
    const Moments moments(tokens.weights(), tokens.vectors());
    CHECK_THROWS_AS(moments.expected_distance(3), invalid_argument);
    CHECK_THROWS_AS(moments.expected_distance(-1), invalid_argument);
    const auto mean = [&](const Tokens<double>& t, Index n, Index samples) {
        return attnscope::mean_subset_distance<double>(t.weights(), t.vectors(), n,
                                                       attnscope::Reading::cumulative, samples, random);
    };
    CHECK_THROWS_AS(mean(tokens, 3, 10), invalid_argument);
    CHECK_THROWS_AS(mean(tokens, -1, 10), invalid_argument);
    CHECK(mean(tokens, 1, 0).subsets == 2); // counted: samples do not matter
    const Tokens<double> longer = tokens_of(std::vector<double>(13, 1.0 / 13), std::vector<double>(13, 1));
    CHECK_THROWS_AS(mean(longer, 1, 1), invalid_argument);
    CHECK(mean(longer, 1, 2).subsets == 2);
}

TEST_CASE("truncation, separability and Theorem 2 check their parameters", "[selection][errors]") {
    CHECK_THROWS_AS(attnscope::truncation_mass_by_gap(5, 0, 1.0), invalid_argument);
    CHECK_THROWS_AS(attnscope::truncation_mass_by_gap(5, 6, 1.0), invalid_argument);
    CHECK_THROWS_AS(attnscope::truncation_mass_by_gap(5, 2, -1.0), invalid_argument);
    CHECK_THROWS_AS(attnscope::truncation_mass_by_gap(5, 2, std::numeric_limits<double>::quiet_NaN()),
                    invalid_argument);

    const Tokens<double> tokens = tokens_of({0.5, 0.5}, {1, 2});
    attnscope::SelectedSet<double> set;
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0});
    CHECK_THROWS_AS(separability(set, std::optional<double>(0.0)), invalid_argument);
    CHECK_THROWS_AS(separability(set, std::optional<double>(-1.0)), invalid_argument);
    const Matrix<double> long_x = Matrix<double>::Zero(3, 1);
    CHECK_THROWS_AS(attnscope::contributions(tokens.weights(), MatrixView<double>(long_x)), invalid_argument);

    const std::vector<double> p = {0.5, 0.5}, radii = {1};
    const std::span<const double> selected(p);
    SplitMix64 random(1);
    for (const SphericalModel& bad :
         {SphericalModel{.dimension = 1}, SphericalModel{.radius = 0}, SphericalModel{.radius = -1},
          SphericalModel{.radius = std::numeric_limits<double>::infinity()}, SphericalModel{.delta = -0.1}}) {
        CHECK_THROWS_AS(theorem2_xi(selected, bad), invalid_argument);
        CHECK_THROWS_AS(attnscope::theorem2_published_range(selected, bad, 1.0), invalid_argument);
        CHECK_THROWS_AS(attnscope::theorem2_valid_range(selected, bad, 1.0), invalid_argument);
        CHECK_THROWS_AS(
            attnscope::simulate_separable_fraction(selected, bad, std::span<const double>(radii), 5, random),
            invalid_argument);
    }
    const SphericalModel model;
    CHECK_THROWS_AS(attnscope::theorem2_published_range(selected, model, 0.0), invalid_argument);
    CHECK_THROWS_AS(attnscope::theorem2_valid_range(selected, model, -1.0), invalid_argument);
    CHECK_THROWS_AS(
        attnscope::simulate_separable_fraction(selected, model, std::span<const double>(radii), 1, random),
        invalid_argument);
}
