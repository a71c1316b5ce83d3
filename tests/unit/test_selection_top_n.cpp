// Ranking: by descending score, ties by smaller index, NaN last, whichever way it sorts.
#include <attnscope/selection/top_n.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::Ranking;
using attnscope::top_n;

namespace {

constexpr std::array<std::size_t, 12> all_lengths = {0, 1, 2, 3, 7, 8, 17, 255, 256, 257, 1000, 5000};

/// The order by its definition: key i stands before j if its score is larger, or equal and i < j; NaN is
/// smaller than everything.
template <class T>
std::vector<Index> defined_order(const std::vector<T>& scores) {
    std::vector<Index> order(scores.size());
    std::iota(order.begin(), order.end(), Index(0));
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
        const T x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
        return std::isnan(y) ? !std::isnan(x) : x > y;
    });
    return order;
}

template <class T>
std::vector<Index> ranked(const std::vector<T>& scores) {
    Ranking<T> ranking;
    ranking.rank(in(scores));
    CHECK(ranking.size() == static_cast<Index>(scores.size()));
    return {ranking.order().begin(), ranking.order().end()};
}

/// What can stand in a row: small numbers with many ties, signs, zeros of both signs, infinities, NaN of both
/// signs, subnormals and neighbours.
template <class T>
T odd_score(SplitMix64& random) {
    using Limits = std::numeric_limits<T>;
    switch (random.below(12)) {
    case 0:
        return T(0);
    case 1:
        return -T(0);
    case 2:
        return Limits::quiet_NaN();
    case 3:
        return -Limits::quiet_NaN();
    case 4:
        return Limits::infinity();
    case 5:
        return -Limits::infinity();
    case 6:
        return Limits::denorm_min() * static_cast<T>(random.below(5) - 2);
    case 7:
        return std::nextafter(T(1), static_cast<T>(random.below(3)));
    case 8:
        return random.below(2) == 0 ? Limits::max() : Limits::lowest();
    case 9:
        return static_cast<T>(random.below(5) - 2);
    default:
        return static_cast<T>(random.normal());
    }
}

} // namespace

TEMPLATE_TEST_CASE("ranking: every length, every kind of score", "[selection][top_n]", float, double,
                   long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    std::size_t met = 0, wrong = 0;
    for (const std::size_t n : all_lengths)
        for (int trial = 0; trial < 6; ++trial) {
            SplitMix64 random = generator(seed, n, trial);
            std::vector<T> scores(n);
            for (T& x : scores) switch (trial) {
                case 0: // weights
                    x = static_cast<T>(std::exp(3 * random.normal()));
                    break;
                case 1: // ties everywhere
                    x = static_cast<T>(random.below(4));
                    break;
                case 2:
                    x = T(0.25);
                    break;
                case 3:
                    x = static_cast<T>(-random.uniform());
                    break;
                default:
                    x = odd_score<T>(random);
                }
            ++met;
            wrong += ranked(scores) != defined_order(scores);
        }
    CHECK(met == 72);
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("ranking: a long row orders as the same scores do in a short one", "[selection][top_n]",
                   float, double) {
    // 255 keys are compared, 256 and more go through the digits of their bits: padded below with -inf, the
    // first 255 places must be the same.
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    for (int trial = 0; trial < 20; ++trial) {
        SplitMix64 random = generator(seed, trial, 255);
        std::vector<T> scores(255);
        for (T& x : scores) {
            do x = trial % 2 == 0 ? odd_score<T>(random) : static_cast<T>(random.below(9) - 4);
            while (std::isnan(x));
        }
        const std::vector<Index> brief = ranked(scores);
        scores.resize(300, -std::numeric_limits<T>::infinity());
        std::vector<Index> padded = ranked(scores);
        padded.resize(255);
        CHECK(padded == brief);
    }
}

TEST_CASE("ranking: both zeros tie, NaN comes last in order of index", "[selection][top_n]") {
    const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
    CHECK(ranked<double>({0.0, -0.0, 0.0, -0.0}) == std::vector<Index>{0, 1, 2, 3});
    CHECK(ranked<double>({-0.0, 1e-300, 0.0, -1e-300}) == std::vector<Index>{1, 0, 2, 3});
    CHECK(ranked<double>({nan, -inf, -nan, inf, nan}) == std::vector<Index>{3, 1, 0, 2, 4});
    std::vector<double> long_row(400, nan);
    long_row[399] = -inf;
    long_row[7] = -0.0;
    long_row[300] = 0.0;
    const std::vector<Index> order = ranked(long_row);
    CHECK(order[0] == 7);
    CHECK(order[1] == 300);
    CHECK(order[2] == 399);
    CHECK(order[3] == 0);
    CHECK(order[399] == 398);
}

TEST_CASE("a ranking can be used again, for longer and shorter rows", "[selection][top_n]") {
    Ranking<float> ranking;
    SplitMix64 random(5);
    constexpr std::array<std::size_t, 7> up_and_down = {1000, 10, 300, 0, 256, 2000, 255};
    for (const std::size_t n : up_and_down) {
        std::vector<float> scores(n);
        for (float& x : scores) x = static_cast<float>(random.below(50));
        ranking.rank(in(scores));
        const std::vector<Index> order(ranking.order().begin(), ranking.order().end());
        CHECK(order == defined_order(scores));
    }
}

TEST_CASE("top_n takes any vector expression and any N that fits", "[selection][top_n]") {
    Eigen::VectorXd scores(5);
    scores << 0.1, 0.4, 0.1, 0.4, 0.2;
    CHECK(top_n(scores, 0).empty());
    CHECK(top_n(scores, 1) == std::vector<Index>{1});
    CHECK(top_n(scores, 5) == std::vector<Index>{1, 3, 4, 0, 2});
    CHECK(top_n(-scores, 2) == std::vector<Index>{0, 2});
    CHECK(top_n(scores.reverse(), 2) == std::vector<Index>{1, 3});
    CHECK(top_n(scores.transpose().array() * 2, 3) == std::vector<Index>{1, 3, 4});
    CHECK(top_n(scores.cast<float>().eval(), 2) == std::vector<Index>{1, 3});
    Eigen::MatrixXd matrix(2, 3); // a row of a column-major matrix is strided
    matrix << 1, 3, 2, 9, 8, 7;
    CHECK(top_n(matrix.row(0), 2) == std::vector<Index>{1, 2});
    CHECK(top_n(Eigen::RowVectorXf(), 0).empty());
    CHECK_THROWS_AS(top_n(scores, 6), attnscope::invalid_argument);
    CHECK_THROWS_AS(top_n(scores, -1), attnscope::invalid_argument);
    CHECK_THROWS_WITH(top_n(scores, 6), "top_n: n must be in [0, size], got 6 and 5");
}
