// Statistics of all rows of a matrix at once are those of each row, on every family of rows and every executor.
#include <attnscope/row/matrix_statistics.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/laws.hpp>

#include <cstring>

using namespace attnscope_test;
using namespace attnscope;

namespace {

/// Every number of a row, NaN as one value.
template <class A>
std::vector<A> numbers(const RowStatistics<A>& row) {
    std::vector<A> result = {static_cast<A>(static_cast<int>(row.status)),
                             static_cast<A>(row.temperature),
                             row.unit_roundoff,
                             static_cast<A>(row.visible),
                             static_cast<A>(row.argmax),
                             row.max_logit,
                             row.second_logit,
                             row.min_logit,
                             row.r,
                             row.t,
                             row.q,
                             row.c,
                             row.v,
                             row.flat_spread,
                             row.flat_t,
                             row.flat_v};
    return result;
}

/// Rows of one length, of every family, and such as are not ordinary.
template <class T>
Matrix<T> rows_of_all_kinds(std::uint64_t seed, std::size_t n) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    std::vector<std::vector<T>> rows;
    for_each_row<T>(seed, std::array<std::size_t, 1>{n}, 3,
                    [&](const Where&, const std::vector<T>& z) { rows.push_back(z); });
    for (const T x : {-infinity, infinity, std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::max(),
                      std::numeric_limits<T>::lowest(), std::numeric_limits<T>::min(), T(0), T(-0.0)}) {
        rows.emplace_back(n, x);
        rows.emplace_back(n, T(1));
        rows.back()[n / 2] = x;
        rows.emplace_back(n, -infinity);
        rows.back()[n - 1] = x;
        rows.emplace_back(n, T(0)); // zeros of both signs, and one that is larger
        for (std::size_t i = 0; i < n; i += 3) rows.back()[i] = T(-0.0);
        rows.back()[n / 2] = x;
        rows.emplace_back(n, T(-3)); // NaN that the range may not show, and others
        for (std::size_t i = 0; i < n; ++i) rows.back()[i] -= static_cast<T>(i % 5);
        rows.back()[n / 3] = x;
    }
    Matrix<T> z(static_cast<Index>(rows.size()), static_cast<Index>(n));
    for (std::size_t i = 0; i < rows.size(); ++i)
        z.row(static_cast<Index>(i)) =
            Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(rows[i].data(), z.cols());
    return z;
}

} // namespace

TEMPLATE_TEST_CASE("rows of a matrix have the bits of row_statistics", "[matrix-statistics]", float, double,
                   long double) {
    using T = TestType;
    using A = Accumulator<T>;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    for (const std::size_t n :
         {1u, 2u, 3u, 7u, 16u, 17u, 63u, 64u, 65u, 127u, 128u, 200u, 512u, 513u, 1024u, 1025u})
        for (const double temperature : {1.0, 0.5, 3.0, 1e-40, 1e40}) {
            CAPTURE(n, temperature);
            const Matrix<T> z = rows_of_all_kinds<T>(seed, n);
            const MatrixStatistics<A> found = matrix_statistics(z, temperature);
            REQUIRE(found.rows.size() == static_cast<std::size_t>(z.rows()));
            REQUIRE(found.entropy_nats.size() == z.rows());
            Worst bits, columns;
            for (Index i = 0; i < z.rows(); ++i) {
                const Where where{
                    "all kinds", n, temperature, seed, scalar_name<T>(), "row " + std::to_string(i)};
                const RowStatistics<A> row = row_statistics<T>(MatrixView<T>(z).row(i), temperature);
                const auto& same = found.rows[static_cast<std::size_t>(i)];
                bits.meet(same_bits(numbers(row), numbers(same)), where);
                const auto meet = [&](A column, A figure, A size) {
                    if (std::isnan(figure) || std::isinf(figure))
                        columns.meet(same_bits<A>({column}, {figure}), where);
                    else
                        columns.meet(std::abs(Ref(column) - Ref(figure)), 4 * 2 * unit_roundoff<A> * Ref(size),
                                     where);
                };
                meet(found.log_sum_exp[i], row.log_sum_exp(),
                     std::abs(row.max_logit / A(temperature)) + std::log1p(row.r));
                meet(found.entropy_nats[i], row.entropy_nats(), row.entropy_nats());
                meet(found.max_weight[i], row.max_weight(), row.max_weight());
                // The exponent is rounded, and what is below the smallest normal number is 0.
                const A apart = std::abs((row.second_logit - row.max_logit) / A(temperature));
                meet(found.second_weight[i], row.second_weight(),
                     row.second_weight() * (1 + (apart > 0 ? std::min(apart, A(12000)) : A(0))) +
                         std::numeric_limits<A>::min() / std::numeric_limits<A>::epsilon());
                meet(found.power_sum_2[i], row.power_sum_2(), row.power_sum_2());
                meet(found.power_sum_3[i], row.power_sum_3(), row.power_sum_3());
                meet(found.logit_spread[i], row.logit_spread(), row.logit_spread());
            }
            ATTNSCOPE_CHECK_WORST(bits);
            ATTNSCOPE_CHECK_WORST(columns);
        }
}

TEST_CASE("statistics of a matrix do not depend on the executor, nor on what the memory held",
          "[matrix-statistics]") {
    const Matrix<float> z = rows_of_all_kinds<float>(test_seed(), 130).replicate(9, 1);
    const auto alone = matrix_statistics(z);
    MatrixStatistics<double> again = matrix_statistics(Matrix<float>(z.colwise().reverse()));
    matrix_statistics(MatrixView<float>(z), again, 1, Threads{3});
    for (std::size_t i = 0; i < alone.rows.size(); ++i)
        CHECK(same_bits(numbers(alone.rows[i]), numbers(again.rows[i])));
    const auto bytes = [](const auto& column) {
        return std::vector<double>(column.data(), column.data() + column.size());
    };
    CHECK(same_bits(bytes(alone.entropy_nats), bytes(again.entropy_nats)));
    CHECK(same_bits(bytes(alone.log_sum_exp), bytes(again.log_sum_exp)));
    CHECK(same_bits(bytes(alone.second_weight), bytes(again.second_weight)));
    matrix_statistics(MatrixView<float>(z.data(), 2, 130), again);
    CHECK(again.rows.size() == 2);
    CHECK(again.power_sum_3.size() == 2);
}

TEST_CASE("matrices of any order, stride and scalar", "[matrix-statistics]") {
    SplitMix64 random(3);
    const Eigen::MatrixXf columns =
        Eigen::MatrixXf::NullaryExpr(40, 70, [&] { return float(random.normal()); });
    const auto wanted = matrix_statistics(Matrix<float>(columns));
    CHECK((matrix_statistics(columns).entropy_nats == wanted.entropy_nats).all());
    CHECK((matrix_statistics(2 * columns - columns).entropy_nats == wanted.entropy_nats).all());
    const Matrix<float> wide = columns.replicate(1, 2);
    CHECK((matrix_statistics(wide.leftCols(70)).entropy_nats == wanted.entropy_nats).all());
    const Matrix<Eigen::half> halves = columns.cast<Eigen::half>();
    CHECK((matrix_statistics(halves).max_weight ==
           matrix_statistics(Matrix<float>(halves.cast<float>())).max_weight)
              .all());
    CHECK((matrix_statistics(MatrixView<float>(Matrix<float>(columns).data(), 0, 70)).rows.empty()));
    MatrixStatistics<double> out;
    matrix_statistics(columns, out);
    CHECK((out.entropy_nats == wanted.entropy_nats).all());
    CHECK((matrix_statistics(MatrixView<float>(wide.data(), 40, 70, 140)).entropy_nats == wanted.entropy_nats)
              .all());
    CHECK(matrix_statistics(Eigen::MatrixXd(0, 5)).rows.empty());
    const auto none = matrix_statistics(Eigen::MatrixXd(3, 0));
    CHECK(none.rows[2].status == RowStatus::empty);
    CHECK(none.log_sum_exp[2] == -std::numeric_limits<double>::infinity());
    CHECK(std::isnan(none.entropy_nats[2]));
    CHECK_THROWS_AS(matrix_statistics(columns, 0.0), invalid_argument);
    CHECK_THROWS_AS(matrix_statistics(columns, std::numeric_limits<double>::quiet_NaN()), invalid_argument);
}

// What is known of the exponents of a row decides how the rounding of z - m is found: rows around every such limit, whose weights
// are all small, so that nothing hides an error.
TEMPLATE_TEST_CASE("sums of rows whose largest logit is smaller than others in magnitude", "[row][exponents]",
                   float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 12);
    Worst worst;
    for (const double top :
         {1e-30, 0.001, 0.3, 0.99, 1.0, 1.01, 1.99, 2.0, 3.3, 7.9, 8.0, 40.0, -1e-20, -0.7, -3.0, -64.0})
        for (const double depth : {0.1, 0.9, 2.0, 5.0, 15.9, 16.1, 31.0, 47.0, 60.0, 63.9, 64.1, 80.0, 86.0})
            for (const std::size_t n : {2u, 17u, 130u, 1200u}) {
                std::vector<double> row(n);
                const bool masked = random.below(2) == 0;
                std::size_t visible = 1;
                for (double& x : row) x = top - depth * (1 - 0.05 * random.uniform());
                const auto place = static_cast<std::size_t>(random.below(static_cast<Index>(n)));
                for (std::size_t i = 0; i < n; ++i)
                    if (masked && random.below(3) == 0)
                        row[i] = -std::numeric_limits<double>::infinity();
                    else
                        visible += i != place;
                row[place] = top;
                const std::vector<T> z = narrow<T>(row);
                const auto found = row_statistics<T>(in(z));
                const Ref m = *std::max_element(z.begin(), z.end());
                Ref r = 0, t = 0;
                bool left_out = false;
                T least = z[place];
                for (const T x : z) {
                    if (x == -std::numeric_limits<T>::infinity()) continue;
                    least = std::min(least, x);
                    if (!left_out && Ref(x) == m) {
                        left_out = true;
                        continue;
                    }
                    r += std::exp(Ref(x) - m);
                    t += (m - Ref(x)) * std::exp(Ref(x) - m);
                }
                const Where where{"depths",
                                  n,
                                  1,
                                  seed,
                                  scalar_name<T>(),
                                  std::to_string(depth) + (masked ? ", masked, below " : " below ") +
                                      std::to_string(top)};
                worst.meet(found.visible == static_cast<Index>(visible) && found.min_logit == Ref(least),
                           where);
                const Ref unit =
                    unit_roundoff<T>; // a few of the exponential, of products, and 20 of a sum at most
                worst.meet(std::abs(found.r - r), 8 * unit * r, where);
                worst.meet(std::abs(found.t - t), 9 * unit * t, where);
            }
    ATTNSCOPE_CHECK_WORST(worst);
}

// Differences of logits near the end of the range, at temperatures of that size: what splits their products must not overflow.
TEMPLATE_TEST_CASE("rows whose gaps are near the largest number", "[row][extreme]", float, double) {
    using T = TestType;
    constexpr Ref largest = std::numeric_limits<T>::max();
    Worst worst;
    for (int exponent = 0; exponent < 24; ++exponent)
        for (const double gap : {0.001, 0.7, 8.0, 30.0})
            for (const Index n : {2, 5, 130}) {
                const Ref temperature = std::ldexp(largest / 4, -exponent) / 8;
                std::vector<T> z(static_cast<std::size_t>(n),
                                 static_cast<T>(std::max(-gap * temperature, -largest)));
                z[1] = T(0);
                const auto found = row_statistics<T>(in(z), static_cast<double>(temperature));
                const Where where{"gaps", z.size(),         static_cast<double>(temperature),
                                  0,      scalar_name<T>(), std::to_string(gap)};
                const Ref u = -Ref(z[0]) / Ref(static_cast<double>(temperature)), r = Ref(n - 1) * std::exp(-u);
                worst.meet(found.normal() && found.argmax == 1 && found.visible == n, where);
                worst.meet(std::abs(found.r - r), Ref(found.sum_error()) * r, where);
                worst.meet(std::abs(found.t - u * r), Ref(found.sum_error()) * u * r, where);
            }
    ATTNSCOPE_CHECK_WORST(worst);
}
