// Weights of a whole matrix are those of its rows, whatever the matrix and the buffer are.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <limits>
#include <span>
#include <type_traits>
#include <vector>

using attnscope::Index;
using attnscope::Matrix;
using attnscope::Softmax;

namespace {

/// Rows with masked keys, one of them with nothing else.
template <class T>
Matrix<T> logits(Index queries, Index keys) {
    constexpr T masked = -std::numeric_limits<T>::infinity();
    Matrix<T> z(queries, keys);
    for (Index i = 0; i < queries; ++i)
        for (Index j = 0; j < keys; ++j)
            z(i, j) = i == 2 || (i + j) % 4 == 1 ? masked : static_cast<T>((7 * i + 3 * j) % 11) / 2;
    return z;
}

template <class N, class T>
Matrix<T> row_by_row(const N& normalizer, const Matrix<T>& z) {
    Matrix<T> p(z.rows(), z.cols());
    for (Index i = 0; i < z.rows(); ++i) {
        const std::vector<T> row(z.row(i).begin(), z.row(i).end());
        p.row(i) = attnscope::weights(normalizer, row).transpose();
    }
    return p;
}

} // namespace

TEMPLATE_TEST_CASE("weights of a matrix are those of its rows", "[normalizer]", float, double, long double) {
    using T = TestType;
    using ColMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
    const Matrix<T> z = logits<T>(5, 7);
    const auto check = [&](const auto& normalizer) {
        const Matrix<T> right = row_by_row(normalizer, z);
        const auto p = attnscope::weights(normalizer, z);
        STATIC_REQUIRE(std::is_same_v<decltype(p), const Matrix<T>>);
        CHECK(p == right);
        CHECK(attnscope::weights(normalizer, ColMajor(z)) == right);
        CHECK(attnscope::weights(normalizer, z.array() + T(0)) == right);
        CHECK(attnscope::weights(normalizer, z.middleCols(1, 4)) ==
              row_by_row(normalizer, Matrix<T>(z.middleCols(1, 4))));
        CHECK(attnscope::weights(normalizer, z.colwise().reverse()) == Matrix<T>(right.colwise().reverse()));

        Matrix<T> buffer = Matrix<T>::Constant(5, 7, 9);
        attnscope::weights(normalizer, ColMajor(z), buffer);
        CHECK(buffer == right);
        buffer = z;
        attnscope::weights(normalizer, buffer, buffer);
        CHECK(buffer == right);
    };
    check(Softmax(0.5));
    check(attnscope::Sparsemax());
    check(attnscope::SigmoidAttention());
    check(Softmax() | attnscope::top_k(2));
    CHECK(attnscope::weights(Softmax(), z).row(2).isZero(0));
}

TEST_CASE("weights go into memory that is there", "[normalizer]") {
    const Matrix<double> z = logits<double>(3, 4), right = row_by_row(Softmax(), z);
    std::vector<double> memory(12, -1);
    attnscope::weights(Softmax(), z, Eigen::Map<Matrix<double>>(memory.data(), 3, 4));
    CHECK(Eigen::Map<const Matrix<double>>(memory.data(), 3, 4) == right);
    // A block of a larger buffer: nothing is written beside it.
    Matrix<double> large = Matrix<double>::Constant(5, 6, -1);
    attnscope::weights(Softmax(), z, large.block(1, 2, 3, 4));
    CHECK(large.block(1, 2, 3, 4) == right);
    large.block(1, 2, 3, 4).setConstant(-1);
    CHECK((large.array() == -1).all());
    // A fixed size, and half, which is widened.
    Eigen::Matrix<float, 3, 4> fixed = z.cast<float>();
    Matrix<float> narrow(3, 4);
    attnscope::weights(Softmax(), fixed, narrow);
    CHECK(narrow == row_by_row(Softmax(), Matrix<float>(fixed)));
    CHECK(attnscope::weights(Softmax(), fixed.cast<Eigen::half>()) == narrow);
    // Vectors at compile time are rows.
    CHECK(attnscope::weights(Softmax(), z.row(0)) == right.row(0));

    CHECK(attnscope::weights(Softmax(), Matrix<double>(0, 4)).rows() == 0);
    CHECK(attnscope::weights(Softmax(), Matrix<double>(4, 0)).cols() == 0);
    Matrix<double> wrong(4, 3);
    CHECK_THROWS_WITH(attnscope::weights(Softmax(), z, wrong),
                      "weights: the buffer must have the shape of the logits, got 4 and 3");
}
