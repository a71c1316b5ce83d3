// Differential attention against the formula in long double, and its gradients against central differences.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

namespace {

using namespace attnscope;
using Wide = long double;

Matrix<Wide> normal(SplitMix64& random, Index rows, Index cols) {
    return Matrix<Wide>::NullaryExpr(rows, cols, [&] { return Wide(float(random.normal())); });
}

/// (softmax(q1 k1^T/sqrt d) - lambda softmax(q2 k2^T/sqrt d)) v under a causal mask, key by key.
Matrix<Wide> expected(const Matrix<Wide>& q, const Matrix<Wide>& k, const Matrix<Wide>& v, Wide lambda) {
    const Index d = q.cols() / 2;
    Matrix<Wide> output = Matrix<Wide>::Zero(q.rows(), v.cols());
    for (Index i = 0; i < q.rows(); ++i)
        for (const Index half : {0, 1}) {
            std::vector<Wide> e;
            Wide sum = 0;
            for (Index j = 0; j <= i; ++j) {
                Wide z = 0;
                for (Index c = 0; c < d; ++c) z += q(i, half * d + c) * k(j, half * d + c);
                e.push_back(std::exp(z / std::sqrt(Wide(d))));
                sum += e.back();
            }
            for (Index j = 0; j <= i; ++j)
                output.row(i) += (half == 0 ? Wide(1) : -lambda) * e[std::size_t(j)] / sum * v.row(j);
        }
    return output;
}

} // namespace

TEMPLATE_TEST_CASE("differential attention is the difference of two attentions", "[attention][differential]",
                   float, double) {
    using T = TestType;
    SplitMix64 random(2);
    const Matrix<Wide> q = normal(random, 70, 6), k = normal(random, 70, 6), v = normal(random, 70, 3);
    const Matrix<T> qt = q.cast<T>(), kt = k.cast<T>(), vt = v.cast<T>();
    const Differential difference{Softmax(), 0.6};
    const auto found = attend(qt, kt, vt, difference, Mask::causal(), {.weights = true});
    const Wide error = 100 * std::numeric_limits<T>::epsilon(); // of logits of order 5, sums of 70
    CHECK((found.output.template cast<Wide>() - expected(q, k, v, Wide(T(0.6)))).cwiseAbs().maxCoeff() <=
          error);
    CHECK((found.weights * vt - found.output).cwiseAbs().maxCoeff() <= T(error));
    for (Index i = 0; i < 70; ++i) CHECK(std::abs(found.weights.row(i).sum() - T(0.4)) <= T(error));
    CHECK(found.log_sum_exp.isNaN().all());
    // Two heads of their own, whose values are those of the first.
    const Matrix<T> q1 = qt.leftCols(3), q2 = qt.rightCols(3), k1 = kt.leftCols(3), k2 = kt.rightCols(3);
    const HeadView<T> first(q1, k1, vt), second(q2, k2);
    CHECK((attend(first, second, difference, Mask::causal()).output - found.output).cwiseAbs().maxCoeff() <=
          T(error));
    // Row by row as `differential_weights`.
    std::vector<T> z1(70), z2(70);
    logits_of<T>(first, Mask::causal(), 69, RowOut<T>(z1));
    logits_of<T>(second, Mask::causal(), 69, RowOut<T>(z2));
    const auto row = differential_weights(Softmax(), z1, z2, T(0.6));
    for (Index j = 0; j < 70; ++j) CHECK(std::abs(row[j] - found.weights(69, j)) <= T(error));
    CHECK_THROWS_AS(attend(qt.leftCols(5), kt.leftCols(5), vt, difference), invalid_argument); // no halves
    CHECK_THROWS_AS(attend(first, HeadView<T>(q2, k1.topRows(4)), difference), invalid_argument);
}

TEST_CASE("gradients of differential attention agree with central differences", "[attention][differential]") {
    SplitMix64 random(6);
    Matrix<Wide> q = normal(random, 6, 4), k = normal(random, 6, 4), v = normal(random, 6, 2);
    const Matrix<Wide> g = normal(random, 6, 2);
    Wide lambda = 0.7L;
    const auto loss = [&] { return expected(q, k, v, lambda).cwiseProduct(g).sum(); };
    const Matrix<Wide> q1 = q.leftCols(2), q2 = q.rightCols(2), k1 = k.leftCols(2), k2 = k.rightCols(2);
    const auto d = attend_backward(HeadView<Wide>(q1, k1, v), HeadView<Wide>(q2, k2),
                                   Differential{Softmax(), 0.7}, g, Mask::causal(), {.parameter = true});
    const Wide step = 1e-5L; // third derivatives of order 10: 1e-9
    const auto slope = [&](Wide& x) {
        const Wide here = x;
        x = here + step;
        const Wide above = loss();
        x = here - step;
        const Wide below = loss();
        x = here;
        return (above - below) / (2 * step);
    };
    for (Index i = 0; i < 6; ++i)
        for (Index c = 0; c < 2; ++c) {
            CHECK(std::abs(slope(q(i, c)) - d.q1(i, c)) <= 1e-7L);
            CHECK(std::abs(slope(q(i, 2 + c)) - d.q2(i, c)) <= 1e-7L);
            CHECK(std::abs(slope(k(i, c)) - d.k1(i, c)) <= 1e-7L);
            CHECK(std::abs(slope(k(i, 2 + c)) - d.k2(i, c)) <= 1e-7L);
            CHECK(std::abs(slope(v(i, c)) - d.v(i, c)) <= 1e-7L);
        }
    CHECK(std::abs(slope(lambda) - d.lambda) <= 1e-7L);
}
