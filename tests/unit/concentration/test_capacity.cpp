// Formulas of numbers take what people write: literals, integers, floats.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <type_traits>

using namespace attnscope;

namespace {

/// The value of a formula, which must be of the scalar T, or an interval of it.
template <class T, class R>
auto as(R result) {
    if constexpr (requires { result.lower; }) {
        STATIC_REQUIRE(std::is_same_v<decltype(result.lower), T>);
    } else {
        STATIC_REQUIRE(std::is_same_v<R, T>);
    }
    return result;
}

} // namespace

TEST_CASE("planner functions take plain literals", "[capacity]") {
    const double needed = std::log(3.0);
    CHECK(as<double>(longest_context(8.0, 1, 0.5)) == Catch::Approx(1 + std::exp(8.0)));
    CHECK(longest_context(8, 1, 0.5) == longest_context(8.0, 1.0, 0.5));
    CHECK(longest_context(std::size_t{8}, 1L, 0.5F) == longest_context(8.0, 1.0, 0.5));
    CHECK(as<double>(longest_context(3, 1, 1)) == 1);
    CHECK(as<double>(highest_temperature(4, 12, 0.5)) == Catch::Approx(12 / needed));
    CHECK(as<double>(needed_spread(4, 2, 0.5)) == Catch::Approx(2 * needed));
    // Integers are divided as numbers: 1/(1+3 e^{-1/2}).
    CHECK(longest_context(1, 2, 0.5) == longest_context(1.0, 2.0, 0.5));

    // As in <cmath>: float among floats alone.
    CHECK(as<float>(longest_context(8.0F, 1.0F, 0.5F)) == 1 + std::exp(8.0F));
    as<float>(highest_temperature(4, 12.0F, 0.5F));
    as<float>(needed_spread(4, 2.0F, 0.5F));
    as<double>(needed_spread(4, 2, 0.5F));
    as<double>(highest_temperature(4, 12.0F, 0.5));
    as<long double>(longest_context(8, 1, 0.5L));
    CHECK_THROWS_WITH(longest_context(-1, 1, 0.5), "longest_context: spread must be >= 0, got -1");
    CHECK_THROWS_WITH(longest_context(1, 0, 0.5), "longest_context: temperature must be > 0, got 0");
    CHECK_THROWS_WITH(needed_spread(4, 1, 2), "needed_spread: tau must be in (0,1], got 2");
}

TEST_CASE("limits take plain literals", "[bound]") {
    CHECK(as<double>(score_deficit_limit(100, 1)) == score_deficit_limit(100, 1.0));
    CHECK(as<double>(leading_weight_range(10, 1, 2.5)).upper == leading_weight_range(10, 1.0, 2.5).upper);
    CHECK(as<double>(ssmax_threshold(2, 4)).upper == 0.5);
    CHECK(as<double>(published_weight_range(4, 2)).upper == published_weight_range(4, 2.0).upper);
    CHECK(as<double>(weight_range(4, 2)).lower == weight_range(4, 2.0).lower);
    CHECK(as<double>(entropy_floor_by_norm(4, 2)) == entropy_floor_by_norm(4, 2.0));
    CHECK(as<double>(entropy_floor_by_range(4, 2)) == entropy_floor_by_range(4, 2.0));
    CHECK(as<double>(entropy_range_by_max_weight(1, 1, 0)).upper == 0);
    CHECK(as<double>(entmax_decisive_gaps(4, 3)).upper == 0.5);
    CHECK(as<double>(published_gradient_limit(1)) == 0.25);
    CHECK(as<double>(gradient_limit(4)) == 0.125);
    CHECK(as<double>(finite_difference_limit(1, 0.1)) == finite_difference_limit(1.0, 0.1));
    CHECK(as<double>(spectral_norm_bracket(0.5, 0.5, 0.5, 0)).upper == 0.5);
    CHECK(as<double>(total_variation_limit(1)) == std::tanh(0.25));
    CHECK(as<double>(kl_limit(1)) == kl_limit(1.0));
    CHECK(as<double>(kl_worst_share(1)) == kl_worst_share(1.0));
    CHECK(perturbation_error(4, 1, 0.5).range == perturbation_error(4, 1.0, 0.5).range);
    CHECK(as<double>(truncation_mass_by_gap(4, 2, 1)) == truncation_mass_by_gap(4, 2, 1.0));
    as<float>(gradient_limit(2.0F));
    as<float>(kl_limit(2.0F));

    const std::vector<double> z = {2, 1, 0};
    const auto row = row_statistics(z);
    CHECK(corollary1_published(row, 2)[1].value == corollary1_published(row, 2.0)[1].value);
    CHECK(entropy_floor_norm_bound(row, 1).value == entropy_floor_by_norm(3, 1));
    const auto norms = jacobian_norms(Softmax(), z);
    CHECK(corollary3_sharp(norms, 1, 0).value == 0.5);
    CHECK(corollary3_published(norms, 1, 0).value == 0.25);
    CHECK(lemma2_sharp(norms, 1, 0).value == 0.5);
    CHECK(row_growth(row, 5).copies == 2);
}
