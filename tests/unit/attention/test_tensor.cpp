// Heads in Eigen tensors: views where the layout allows, copies where it does not, the same results either way.
#include <support/catch.hpp>

#include <attnscope/attention/tensor.hpp>
#include <attnscope/attnscope.hpp>

namespace {

using namespace attnscope;

template <class Tensor>
void fill(Tensor& tensor, std::uint64_t seed) {
    // By position, not by memory, so that both layouts hold the same tensor.
    SplitMix64 random(seed);
    for (Index b = 0; b < tensor.dimension(0); ++b)
        for (Index h = 0; h < tensor.dimension(1); ++h)
            for (Index i = 0; i < tensor.dimension(2); ++i)
                for (Index j = 0; j < tensor.dimension(3); ++j)
                    tensor(b, h, i, j) = static_cast<typename Tensor::Scalar>(random.normal());
}

using RowMajor4 = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using ColMajor4 = Eigen::Tensor<float, 4, Eigen::ColMajor>;

} // namespace

TEST_CASE("a row-major tensor is viewed, a column-major one copied", "[tensor]") {
    RowMajor4 rows(2, 3, 5, 4);
    ColMajor4 cols(2, 3, 5, 4);
    fill(rows, 1);
    fill(cols, 1);
    const TensorHeads<float> view(rows), copy(cols);
    CHECK(view.is_view());
    CHECK_FALSE(copy.is_view());
    CHECK(view.matrix(1, 2).data() == &rows(1, 2, 0, 0));
    for (Index b = 0; b < 2; ++b)
        for (Index h = 0; h < 3; ++h) {
            CHECK(view.matrix(b, h).map() == copy.matrix(b, h).map());
            for (Index i = 0; i < 5; ++i)
                for (Index j = 0; j < 4; ++j) CHECK(copy.matrix(b, h).map()(i, j) == rows(b, h, i, j));
        }
    CHECK_THROWS_AS(view.matrix(0, 3), invalid_argument);
    CHECK_THROWS_AS(view.matrix(2, 0), invalid_argument);
}

TEST_CASE("rank 3, tensor maps and half precision", "[tensor]") {
    std::vector<double> data(2 * 3 * 4);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<double>(i);
    const Eigen::TensorMap<const Eigen::Tensor<double, 3, Eigen::RowMajor>> map(data.data(), 2, 3, 4);
    const TensorHeads<double> heads(map);
    CHECK(heads.is_view());
    CHECK(heads.batches() == 1);
    CHECK(heads.matrix(0, 1).row(2)[3] == 23);

    Eigen::Tensor<Eigen::half, 3> half(1, 2, 2);
    half.setConstant(Eigen::half(1.5f));
    const TensorHeads<float> widened(half);
    CHECK_FALSE(widened.is_view());
    CHECK(widened.matrix(0, 0).row(1)[1] == 1.5f);
}

TEST_CASE("attend on tensors is attend on their heads, in every layout and with grouped-query heads",
          "[tensor]") {
    RowMajor4 q(2, 4, 6, 8), k(2, 2, 6, 8), v(2, 2, 6, 3);
    ColMajor4 qc(2, 4, 6, 8), kc(2, 2, 6, 8), vc(2, 2, 6, 3);
    fill(q, 1), fill(qc, 1), fill(k, 2), fill(kc, 2), fill(v, 3), fill(vc, 3);
    const std::vector<Mask> masks = {Mask::causal(), Mask::causal().with_length(4)};
    const auto rows = attend(q, k, v, Softmax(0.5), std::span<const Mask>(masks), {.weights = true});
    const auto cols = attend(qc, kc, vc, Softmax(0.5), std::span<const Mask>(masks), {.weights = true});
    const TensorHeads<float> qh(q), kh(k), vh(v);
    for (Index b = 0; b < 2; ++b)
        for (Index h = 0; h < 4; ++h) {
            const HeadView<float> head(qh.matrix(b, h), kh.matrix(b, h / 2), vh.matrix(b, h / 2));
            const auto one = attend(head, Softmax(0.5), masks[std::size_t(b)], {.weights = true});
            for (Index i = 0; i < 6; ++i) {
                CHECK(rows.log_sum_exp(b, h, i) == one.log_sum_exp[i]);
                CHECK(cols.log_sum_exp(b, h, i) == one.log_sum_exp[i]);
                for (Index j = 0; j < 3; ++j) {
                    CHECK(rows.output(b, h, i, j) == one.output(i, j));
                    CHECK(cols.output(b, h, i, j) == one.output(i, j));
                }
                for (Index j = 0; j < 6; ++j) {
                    CHECK(rows.weights(b, h, i, j) == one.weights(i, j));
                    CHECK(cols.weights(b, h, i, j) == one.weights(i, j));
                    if (b == 1 && j >= 4) CHECK(rows.weights(b, h, i, j) == 0);
                }
            }
        }
}

TEST_CASE("attend on tensors refuses shapes that do not fit", "[tensor]") {
    RowMajor4 q(2, 4, 6, 8), k(2, 3, 6, 8), v(2, 3, 6, 8), other(1, 2, 6, 8);
    for (RowMajor4* tensor : {&q, &k, &v, &other}) tensor->setZero();
    CHECK_THROWS_AS(attend(q, k, v, Softmax()), invalid_argument);         // 3 does not divide 4
    CHECK_THROWS_AS(attend(q, other, other, Softmax()), invalid_argument); // another batch
    const std::vector<Mask> three(3);
    CHECK_THROWS_AS(attend(q, q, q, Softmax(), std::span<const Mask>(three)), invalid_argument);
}

TEST_CASE("attend_backward on tensors is that of their heads, with the gradient of the parameter", "[tensor]") {
    RowMajor4 q(2, 4, 6, 8), k(2, 2, 6, 8), v(2, 2, 6, 3), g(2, 4, 6, 3);
    ColMajor4 qc(2, 4, 6, 8), gc(2, 4, 6, 3);
    fill(q, 1), fill(qc, 1), fill(k, 2), fill(v, 3), fill(g, 4), fill(gc, 4);
    const std::vector<Mask> masks = {Mask::causal(), Mask::causal().with_length(4)};
    const auto d = attend_backward(q, k, v, Softmax(0.5), g, std::span<const Mask>(masks), {.parameter = true});
    const auto cols = attend_backward(qc, k, v, Softmax(0.5), gc, std::span<const Mask>(masks));
    const TensorHeads<float> qh(q), kh(k), vh(v), gh(g);
    double parameter = 0;
    for (Index b = 0; b < 2; ++b)
        for (Index shared = 0; shared < 2; ++shared) {
            Matrix<float> dk = Matrix<float>::Zero(6, 8), dv = Matrix<float>::Zero(6, 3);
            for (const Index h : {2 * shared, 2 * shared + 1}) {
                const HeadView<float> head(qh.matrix(b, h), kh.matrix(b, shared), vh.matrix(b, shared));
                const auto one = attend_backward(head, Softmax(0.5), gh.matrix(b, h), masks[std::size_t(b)],
                                                 {.parameter = true});
                for (Index i = 0; i < 6; ++i)
                    for (Index j = 0; j < 8; ++j) {
                        CHECK(d.q(b, h, i, j) == one.q(i, j));
                        CHECK(cols.q(b, h, i, j) == one.q(i, j));
                    }
                dk += one.k, dv += one.v;
                parameter += one.parameter;
            }
            for (Index i = 0; i < 6; ++i) {
                for (Index j = 0; j < 8; ++j) CHECK(d.k(b, shared, i, j) == dk(i, j));
                for (Index j = 0; j < 3; ++j) CHECK(cols.v(b, shared, i, j) == dv(i, j));
            }
        }
    CHECK(d.parameter == Catch::Approx(parameter).epsilon(1e-12));
    CHECK(cols.parameter == 0);
    CHECK_THROWS_AS(attend_backward(q, k, v, Softmax(), v), invalid_argument); // d_output of other heads
}

TEST_CASE("attend and attend_backward on tensors with a normaliser for each query head", "[tensor]") {
    RowMajor4 q(2, 4, 9, 8), k(2, 2, 9, 8), v(2, 2, 9, 3), g(2, 4, 9, 3);
    fill(q, 1), fill(k, 2), fill(v, 3), fill(g, 4);
    const std::vector sinks = {with_sink(Softmax(), 0.5), with_sink(Softmax(), -1), with_sink(Softmax(), 2),
                               with_sink(Softmax(), 0)};
    const Mask mask = Mask::causal();
    const auto all = attend(q, k, v, sinks, mask);
    const auto d = attend_backward(q, k, v, sinks, g, mask, {.parameter = true});
    const TensorHeads<float> qh(q), kh(k), vh(v), gh(g);
    REQUIRE(d.parameters.size() == 4);
    double total = 0;
    for (Index h = 0; h < 4; ++h) {
        double parameter = 0;
        for (Index b = 0; b < 2; ++b) {
            const HeadView<float> head(qh.matrix(b, h), kh.matrix(b, h / 2), vh.matrix(b, h / 2));
            const auto& own = sinks[static_cast<std::size_t>(h)];
            const auto one = attend(head, own, mask);
            const auto back = attend_backward(head, own, gh.matrix(b, h), mask, {.parameter = true});
            parameter += back.parameter;
            for (Index i = 0; i < 9; ++i) {
                CHECK(all.log_sum_exp(b, h, i) == one.log_sum_exp[i]);
                for (Index j = 0; j < 3; ++j) CHECK(all.output(b, h, i, j) == one.output(i, j));
                for (Index j = 0; j < 8; ++j) CHECK(d.q(b, h, i, j) == back.q(i, j));
            }
        }
        CHECK(parameter != 0);
        CHECK(d.parameters[static_cast<std::size_t>(h)] == Catch::Approx(parameter).epsilon(1e-12));
        total += parameter;
    }
    CHECK(d.parameter == Catch::Approx(total).epsilon(1e-9));

    // Of three dimensions too; another number of normalisers is refused.
    const Eigen::TensorMap<const Eigen::Tensor<float, 3, Eigen::RowMajor>> q3(q.data(), 4, 9, 8),
        k3(k.data(), 2, 9, 8), v3(v.data(), 2, 9, 3);
    const auto three = attend(q3, k3, v3, sinks, mask);
    CHECK(three.output(3, 8, 2) == all.output(0, 3, 8, 2));
    const std::vector few(sinks.begin(), sinks.begin() + 2);
    CHECK_THROWS_AS(attend(q, k, v, few, mask), invalid_argument);
    CHECK_THROWS_AS(attend_backward(q, k, v, few, g, mask), invalid_argument);
}
