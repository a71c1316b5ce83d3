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

/// Score i of n of a row of one kind: those of `odd_score`, and what may trip a search for a threshold.
constexpr int score_kinds = 20;
template <class T>
T score_of_kind(SplitMix64& random, int kind, std::size_t i, std::size_t n) {
    using Limits = std::numeric_limits<T>;
    const bool often = random.below(9) > 0;
    switch (kind) {
    case 0: // weights
        return static_cast<T>(std::exp(3 * random.normal()));
    case 1:
        return static_cast<T>(std::exp(20 * random.normal()));
    case 2:
        return static_cast<T>(-random.uniform());
    case 3: // ties
        return static_cast<T>(random.below(4));
    case 4:
        return static_cast<T>(random.below(40) - 20) / 4;
    case 5: // all equal
        return T(0.25);
    case 6: // two values
        return often ? T(-2) : T(0.75);
    case 7:
        return often ? T(0.75) : T(-2);
    case 8: // both zeros
        return often ? T(0) : -T(0);
    case 9: // one NaN
        return i == n / 3 ? Limits::quiet_NaN() : static_cast<T>(random.uniform());
    case 10: // mostly NaN
        return often ? -Limits::quiet_NaN() : static_cast<T>(random.normal());
    case 11: // mostly masked
        return often ? -Limits::infinity() : static_cast<T>(random.normal());
    case 12:
        return often ? static_cast<T>(random.normal()) : Limits::infinity();
    case 13: // subnormals and zeros
        return Limits::denorm_min() * static_cast<T>(random.below(2000) - 1000);
    case 14: // neighbours
        return 1 + Limits::epsilon() * static_cast<T>(random.below(5));
    case 15:
        return random.below(2) == 0 ? Limits::max() : Limits::lowest();
    case 16: // ascending
        return static_cast<T>(i);
    case 17: // descending from above to below 0, each twice
        return static_cast<T>(n / 2) - static_cast<T>(i / 2 * 2);
    case 18: // odd, but for NaN
        for (;;)
            if (const T x = odd_score<T>(random); !std::isnan(x)) return x;
    default:
        return odd_score<T>(random);
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

TEMPLATE_TEST_CASE("ranking: the n largest of every length, of every kind of score", "[selection][top_n]",
                   float, double, long double) {
    using T = TestType;
    constexpr std::array<std::size_t, 14> row_lengths = {0,   1,   2,   7,   15,  16,   17,
                                                         255, 256, 257, 300, 511, 1000, 5000};
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    constexpr bool slow = std::is_same_v<T, long double>;
    Ranking<T> again;
    bool right = true;
    std::size_t met = 0;
    for (const std::size_t size : row_lengths)
        for (int kind = 0; kind < score_kinds; ++kind)
            for (int repetition = 0; repetition < (slow ? 1 : 3) && !(slow && size > 1000); ++repetition) {
                SplitMix64 random = generator(seed, size, kind, repetition, 1);
                std::vector<T> scores(size);
                for (std::size_t i = 0; i < size; ++i) scores[i] = score_of_kind<T>(random, kind, i, size);
                const std::vector<Index> order = defined_order(scores);
                for (const std::size_t n :
                     {std::size_t(0), std::size_t(1), std::size_t(2), std::size_t(5), std::size_t(20),
                      std::size_t(100), size / 10, size / 2, size - std::min<std::size_t>(1, size), size}) {
                    if (n > size) continue;
                    const std::vector<Index> expected(order.begin(),
                                                      order.begin() + static_cast<std::ptrdiff_t>(n));
                    Ranking<T> once;
                    once.rank(in(scores), static_cast<Index>(n));
                    again.rank(in(scores), static_cast<Index>(n));
                    Ranking<T> selected;
                    const auto [least, larger] = selected.nth_largest(in(scores), static_cast<Index>(n));
                    const T wanted =
                        n == 0 ? std::numeric_limits<T>::infinity() : scores[std::size_t(expected.back())];
                    const auto above = std::count_if(scores.begin(), scores.end(), [&](T x) {
                        return x > wanted || (x == x && wanted != wanted);
                    });
                    const bool equal =
                        (least == wanted || (least != least && wanted != wanted)) && larger == above &&
                        std::vector<Index>(once.order().begin(), once.order().end()) == expected &&
                        std::vector<Index>(again.order().begin(), again.order().end()) == expected &&
                        once.size() == static_cast<Index>(n);
                    ++met;
                    if (!equal && right) { // the first one
                        CAPTURE(size, kind, repetition, n);
                        CHECK(equal);
                    }
                    right = right && equal;
                }
                if (repetition == 0) { // a whole row in between
                    again.rank(in(scores));
                    right = right && std::vector<Index>(again.order().begin(), again.order().end()) == order;
                }
            }
    CHECK(right);
    CHECK(met > 1500);
}

TEMPLATE_TEST_CASE("ranking: n must be in [0, size]", "[selection][top_n]", float, double, long double) {
    using T = TestType;
    Ranking<T> ranking;
    const std::vector<T> none;
    CHECK_THROWS_AS(ranking.rank(in(none), 1), attnscope::invalid_argument);
    CHECK_THROWS_AS(ranking.rank(in(none), -1), attnscope::invalid_argument);
    for (const std::size_t size : {std::size_t(1), std::size_t(16), std::size_t(300)}) {
        std::vector<T> scores(size);
        for (std::size_t i = 0; i < size; ++i) scores[i] = static_cast<T>(i);
        CHECK_THROWS_AS(ranking.rank(in(scores), -1), attnscope::invalid_argument);
        CHECK_THROWS_AS(ranking.rank(in(scores), static_cast<Index>(size) + 1), attnscope::invalid_argument);
        CHECK_THROWS_AS(ranking.rank(in(scores), std::numeric_limits<Index>::max()),
                        attnscope::invalid_argument);
        ranking.rank(in(scores), 1); // works afterwards
        CHECK(ranking.size() == 1);
        CHECK(ranking.order()[0] == static_cast<Index>(size) - 1);
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
