// Each problem attains the theorem that its comment names, and has the habits that it promises.
#include <attnscope/attnscope.hpp>
#include <attnscope/problems/heads.hpp>
#include <attnscope/problems/rows.hpp>
#include <support/attained.hpp>
#include <support/scalars.hpp>

using namespace attnscope_test;
using namespace attnscope::problems;
using attnscope::invalid_argument;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::row_statistics;
using attnscope::Softmax;

TEST_CASE("problems: rows attain what they are said to attain", "[problems]") {
    for (const Index n : {2, 3, 17, 400}) {
        for (const double gap : {0.1, 2.0, 20.0}) {
            const auto above = row_statistics(needle_row(n, gap, n / 2)),
                       below = row_statistics(needle_row(n, -gap));
            check_attained(attnscope::corollary1_sharp(above)[1]);
            check_attained(attnscope::corollary1_sharp(below)[0]);
        }
        check_attained(attnscope::score_deficit_sharp(row_statistics(deepest_needle_row(n))));
        check_attained(attnscope::corollary1_sharp(row_statistics(flat_row(n, 3)))[0]);
        CHECK(attnscope::entropy_nats(flat_row(n)) == Catch::Approx(std::log(n)));
    }
    // Two equal keys far above all others: the whole 1/(2T).
    const auto pair = attnscope::jacobian_norms(Softmax{}, two_level_row(50, 2, 60));
    CHECK(pair.spectral.value == Catch::Approx(attnscope::gradient_limit(1.0)).epsilon(1e-12));
    // k equal keys above equal others: the most that a top-k can lose by its gap.
    const auto row = two_level_row(40, 7, 1.5);
    const attnscope::Row<double> p = attnscope::weights(Softmax{}, row).array();
    const auto set = attnscope::select_top(p, Matrix<double>(Matrix<double>::Identity(40, 40)), 7);
    check_attained(attnscope::truncation_gap_bound(set, 1.5, 1e-15));
}

TEST_CASE("problems: rows have the shape that is asked for", "[problems]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 41);
    const auto ramp = spread_out_row(5, 8);
    CHECK((ramp[0] == 0 && ramp[1] == -2 && ramp[4] == -8));
    CHECK(spread_out_row(1, 8)[0] == 0);
    const auto noise = needle_in_noise_row(300, 50, 2, random);
    CHECK(noise.maxCoeff() == 50);
    CHECK((noise == 50).count() == 1);
    const std::vector<double> values = {-1, 0, 2};
    const auto tied = tied_row(200, values, random);
    CHECK((tied == -1).count() + (tied == 0).count() + (tied == 2).count() == 200);
    // Copies side by side: the same spread, a share of the weight each.
    const auto once = normal_row(20, 3, random), grown = grown_row(once, 4);
    CHECK(row_statistics(grown).max_weight() == Catch::Approx(row_statistics(once).max_weight() / 4));
    CHECK(grown_row(once, 3, 1.5)[40] == once[0] - 3);
    SplitMix64 one(7), two(7);
    CHECK((normal_row(9, 1, one) == normal_row(9, 1, two)).all());

    CHECK_THROWS_WITH(needle_row(3, 1, 3), "needle_row: place must be in [0, n), got 3 and 3");
    CHECK_THROWS_AS(flat_row(0), invalid_argument);
    CHECK_THROWS_AS(two_level_row(3, 4, 1), invalid_argument);
    CHECK_THROWS_AS(deepest_needle_row(3, 0), invalid_argument);
    CHECK_THROWS_AS(spread_out_row(0, 1), invalid_argument);
    CHECK_THROWS_AS(normal_row(0, 1, random), invalid_argument);
    CHECK_THROWS_AS(needle_in_noise_row(0, 1, 1, random), invalid_argument);
    CHECK_THROWS_AS(tied_row(3, {}, random), invalid_argument);
    CHECK_THROWS_AS(grown_row(once, 0), invalid_argument);
}

TEST_CASE("problems: heads have the habits of their recipe", "[problems]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 42);
    const Index n = 128;
    const auto weights_of = [&](const ProblemHead& head) {
        return attnscope::attend(head.q, head.k, head.v, Softmax(), Mask::causal(), {.weights = true}).weights;
    };
    const auto diffuse = weights_of(synthetic_head(n, 64, {}, random));
    CHECK(diffuse.row(n - 1).maxCoeff() < 0.5);

    const Matrix<double> sink = weights_of(synthetic_head(n, 64, {.noise = 0.3, .sink = 9}, random));
    CHECK(sink.col(0).mean() > 0.9);

    const Matrix<double> local = weights_of(synthetic_head(n, 64, {.noise = 0.1, .local = 12}, random));
    CHECK(local.bottomRows(n / 2).diagonal(n / 2).mean() > 0.2);
    CHECK(local.row(n - 1).tail(8).sum() > 0.8);

    const ProblemHead retrieval = synthetic_head(n, 64, {.noise = 0.3, .needle = 12}, random);
    const Matrix<double> found = weights_of(retrieval);
    CHECK(retrieval.needles[0] == -1);
    for (Index i = 1; i < n; ++i) {
        const Index needle = retrieval.needles[static_cast<std::size_t>(i)];
        REQUIRE((needle >= 0 && needle < i));
        CHECK(found(i, needle) > 0.5);
    }

    const attnscope::Row<double> x = attnscope::Row<double>::LinSpaced(3, 1, 2);
    const ProblemHead same = same_token_head(9, x);
    const auto flat = attnscope::attend(same.q, same.k, same.v, Softmax(), Mask::none(), {.weights = true});
    CHECK((flat.weights.array() - 1.0 / 9).abs().maxCoeff() < 1e-15);
    CHECK((flat.output.row(4).array() - x).abs().maxCoeff() < 1e-14);

    CHECK_THROWS_WITH(synthetic_head(4, 25, {}, random), "synthetic_head: width must be >= 26, got 25");
    CHECK_THROWS_AS(synthetic_head(0, 64, {}, random), invalid_argument);
    CHECK_THROWS_AS(same_token_head(0, x), invalid_argument);
}
