// Diameters of the first values, found by way of the Gram matrix, are those of every pair.
#include <attnscope/selection/distance.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::Index;
using attnscope::Matrix;
using attnscope::MatrixView;

TEST_CASE("the Gram matrix changes no diameter by a bit", "[diameters]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    attnscope::SplitMix64 random = generator(seed, 71);
    for (const Index n : {0, 1, 2, 3, 17, 90})
        for (const Index d : {1, 3, 16})
            for (int kind = 0; kind < 5; ++kind) {
                CAPTURE(n, d, kind);
                Matrix<double> v = Matrix<double>::NullaryExpr(n, d, [&] { return random.normal(); });
                if (kind == 1) v = (1e8 + (1e-6 * v).array()).matrix().eval(); // near-equal: products cancel
                if (kind == 2)
                    for (Index i = 0; i < n; ++i) v.row(i) = v.row(i % 2); // few different ones
                if (kind == 3) v *= 1e-170;                                // squares underflow
                if (kind == 4 && n > 2) v(n / 2, 0) = std::numeric_limits<double>::quiet_NaN();
                const MatrixView<double> values(v);
                const Matrix<double> gram = attnscope::gram_matrix(values);
                const auto plain = attnscope::prefix_diameters(values),
                           guided = attnscope::prefix_diameters(values, &gram);
                REQUIRE(plain.size() == n + 1);
                CHECK((plain == guided).all());
                double largest = 0;
                for (Index i = 0; i < n; ++i) {
                    for (Index j = 0; j < i; ++j)
                        largest = std::max(largest, (v.row(i) - v.row(j)).squaredNorm());
                    CHECK(std::abs(guided[i + 1] - std::sqrt(largest)) <= 1e-14 * std::sqrt(largest));
                }
            }
    const Matrix<double> v = Matrix<double>::Ones(3, 2), small = Matrix<double>::Ones(2, 2);
    CHECK_THROWS_AS(attnscope::prefix_diameters(MatrixView<double>(v), &small), attnscope::invalid_argument);
}

TEST_CASE("bell draws have mean 0 and variance 1, and end where they say", "[random]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    attnscope::SplitMix64 random = generator(seed, 72);
    constexpr int count = 200'000;
    double sum = 0, squares = 0, largest = 0;
    for (int i = 0; i < count; ++i) {
        const double x = random.bell();
        sum += x;
        squares += x * x;
        largest = std::max(largest, std::abs(x));
    }
    CHECK(std::abs(sum / count) < 6 / std::sqrt(double(count)));
    CHECK(std::abs(squares / count - 1) < 6 * std::sqrt(1.7 / count)); // kurtosis 2.7
    CHECK(largest < 3.47);
}
