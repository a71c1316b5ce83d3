// Gradients of attend against central differences in long double.
#include <support/catch.hpp>

#include <attnscope/attnscope.hpp>

namespace {

using namespace attnscope;

template <class T>
struct Inputs {
    Matrix<T> q, k, v, g;
};

Inputs<long double> random_inputs(SplitMix64& random, Index queries, Index keys, Index d, Index d_v) {
    const auto fill = [&](Index rows, Index cols) {
        Matrix<long double> m(rows, cols);
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < cols; ++j) m(i, j) = static_cast<double>(static_cast<float>(random.normal()));
        return m;
    };
    return {fill(queries, d), fill(keys, d), fill(keys, d_v), fill(queries, d_v)};
}

template <class T, class N>
T loss(const Inputs<T>& in, const N& normalizer, const Mask& mask) {
    const HeadView<T> head{MatrixView<T>(in.q), MatrixView<T>(in.k), MatrixView<T>(in.v)};
    return attend(head, normalizer, mask).output.cwiseProduct(in.g).sum();
}

/// Largest |dL/dx - gradient| over all entries of q, k and v, with gradients computed in T.
template <class T, class N>
long double worst_difference(Inputs<long double> in, const N& normalizer, const Mask& mask) {
    const Inputs<T> narrow{in.q.cast<T>(), in.k.cast<T>(), in.v.cast<T>(), in.g.cast<T>()};
    const HeadView<T> head{MatrixView<T>(narrow.q), MatrixView<T>(narrow.k), MatrixView<T>(narrow.v)};
    const auto gradient = attend_backward(head, normalizer, MatrixView<T>(narrow.g), mask);
    const long double step = 1e-5L;
    long double worst = 0;
    const auto compare = [&](Matrix<long double>& x, const Matrix<T>& computed) {
        REQUIRE(computed.rows() == x.rows());
        REQUIRE(computed.cols() == x.cols());
        for (Index i = 0; i < x.rows(); ++i)
            for (Index j = 0; j < x.cols(); ++j) {
                const long double here = x(i, j);
                x(i, j) = here + step;
                const long double above = loss(in, normalizer, mask);
                x(i, j) = here - step;
                const long double below = loss(in, normalizer, mask);
                x(i, j) = here;
                const long double difference = (above - below) / (2 * step);
                worst = std::max(worst, std::abs(difference - static_cast<long double>(computed(i, j))));
            }
    };
    compare(in.q, gradient.q);
    compare(in.k, gradient.k);
    compare(in.v, gradient.v);
    return worst;
}

const std::vector<Mask> masks = {Mask::none(),
                                 Mask::causal(),
                                 Mask::causal_bottom_right(7, 9),
                                 Mask::sliding_window(3, 2).with_sinks(1),
                                 Mask::causal(2).with_segments({0, 4}),
                                 Mask::none().with_length(5),
                                 Mask::causal(-3)};

} // namespace

TEST_CASE("gradients of attend agree with central differences in long double", "[attention]") {
    SplitMix64 random(20260101);
    // Central differences: h^2/6 of the third derivative (all of order 1 to 100 here), 1e-8 at most; the
    // gradients are sums of at most 63 products of numbers of order 1 to 10, so 1e-13 in double and 1e-4 in
    // float.
    const long double in_double = 1e-7L, in_float = 2e-4L;
    for (const Mask& mask : masks) {
        const auto in = random_inputs(random, 7, 9, 4, 3);
        CHECK(worst_difference<double>(in, Softmax(0.7), mask) < in_double);
        CHECK(worst_difference<double>(in, PointwiseNormalizer<Softplus>{}, mask) < in_double);
        CHECK(worst_difference<double>(in, PointwiseNormalizer<Sigmoid>{}, mask) < in_double);
        CHECK(worst_difference<double>(in, PointwiseNormalizer<Quadratic>{}, mask) < in_double);
        CHECK(worst_difference<float>(in, Softmax(0.7), mask) < in_float);
    }
}

TEST_CASE("attend_backward goes through all blocks of queries", "[attention]") {
    // More queries than a block, compared with the same rows taken one by one.
    SplitMix64 random(7);
    const auto wide = random_inputs(random, 150, 150, 8, 5);
    const Inputs<double> in{wide.q.cast<double>(), wide.k.cast<double>(), wide.v.cast<double>(),
                            wide.g.cast<double>()};
    const HeadView<double> head{MatrixView<double>(in.q), MatrixView<double>(in.k), MatrixView<double>(in.v)};
    const auto whole = attend_backward(head, Softmax(), MatrixView<double>(in.g), Mask::causal());
    Matrix<double> k = Matrix<double>::Zero(150, 8), v = Matrix<double>::Zero(150, 5);
    for (Index i = 0; i < 150; ++i) {
        const Matrix<double> q_row = in.q.row(i), g_row = in.g.row(i);
        const HeadView<double> one{MatrixView<double>(q_row), MatrixView<double>(in.k),
                                   MatrixView<double>(in.v)};
        const auto part = attend_backward(one, Softmax(), MatrixView<double>(g_row), Mask::causal(i));
        CHECK((part.q.row(0) - whole.q.row(i)).norm() <= 1e-13 * (1 + whole.q.row(i).norm()));
        k += part.k;
        v += part.v;
    }
    // 150 additions of numbers of order 10.
    CHECK((k - whole.k).norm() <= 1e-12 * k.norm());
    CHECK((v - whole.v).norm() <= 1e-12 * v.norm());
}

TEST_CASE("the gradient in the normaliser's parameter agrees with central differences", "[attention]") {
    SplitMix64 random(5);
    const Inputs<long double> in = random_inputs(random, 70, 9, 3, 2); // more than a block of queries
    const HeadView<long double> head{MatrixView<long double>(in.q), MatrixView<long double>(in.k),
                                     MatrixView<long double>(in.v)};
    const auto check = [&](const auto& make, double at) {
        for (const Mask& mask : {Mask::none(), Mask::causal(), Mask::none().with_length(0)}) {
            const auto gradient =
                attend_backward(head, make(at), MatrixView<long double>(in.g), mask, {.parameter = true});
            const double step = 1e-5; // its square times a third derivative is far below the limit
            const long double difference =
                (loss(in, make(at + step), mask) - loss(in, make(at - step), mask)) / (2 * step);
            CHECK(std::abs(static_cast<double>(difference) - gradient.parameter) <=
                  1e-6 * (1 + std::abs(gradient.parameter)));
            CHECK(attend_backward(head, make(at), MatrixView<long double>(in.g), mask).parameter == 0);
        }
    };
    check([](double t) { return Softmax(t); }, 0.7);
    check([](double s) { return ScalableSoftmax(s); }, 0.4);
    check([](double alpha) { return Entmax(alpha); }, 1.4);
    check([](double logit) { return SinkSoftmax(std::exp(logit)); }, 0.3);
    check([](double bias) { return SigmoidAttention(bias); }, -0.5);
    CHECK_THROWS_AS(
        attend_backward(head, AdaptiveSoftmax(), MatrixView<long double>(in.g), {}, {.parameter = true}),
        invalid_argument);
}

TEST_CASE("gradients ignore what is not seen, NaN included", "[attention]") {
    SplitMix64 random(3);
    const auto wide = random_inputs(random, 4, 6, 3, 2);
    Inputs<double> in{wide.q.cast<double>(), wide.k.cast<double>(), wide.v.cast<double>(),
                      wide.g.cast<double>()};
    const Mask mask = Mask::causal().with_length(3);
    const auto run = [&] {
        const HeadView<double> head{MatrixView<double>(in.q), MatrixView<double>(in.k),
                                    MatrixView<double>(in.v)};
        return attend_backward(head, Softmax(), MatrixView<double>(in.g), mask);
    };
    const auto clean = run();
    in.k.bottomRows(3).setConstant(std::numeric_limits<double>::quiet_NaN());
    in.v.bottomRows(3).setConstant(std::numeric_limits<double>::infinity());
    const auto dirty = run();
    CHECK((clean.q - dirty.q).norm() <= 1e-14);
    CHECK((clean.k - dirty.k).norm() <= 1e-14);
    CHECK((clean.v - dirty.v).norm() <= 1e-14);
    CHECK(dirty.k.bottomRows(3).isZero(0));
    CHECK(dirty.v.bottomRows(3).isZero(0));
}

TEST_CASE("gradients of grouped-query heads are summed over the queries that share a key head", "[attention]") {
    SplitMix64 random(11);
    const Index n = 5, d = 3;
    std::vector<double> q(4 * n * d), k(2 * n * d), v(2 * n * d);
    for (auto* data : {&q, &k, &v}) random.fill_normal(std::span<double>(*data));
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 4, n, d),
                                  HeadArray<double>::contiguous(k.data(), 2, n, d),
                                  HeadArray<double>::contiguous(v.data(), 2, n, d));
    std::vector<Matrix<double>> g;
    for (int h = 0; h < 4; ++h) g.push_back(Matrix<double>::Constant(n, d, h + 1.0));
    const auto gradient = attend_backward(group, Softmax(), std::span<const Matrix<double>>(g), Mask::causal());
    REQUIRE(gradient.q.size() == 4);
    REQUIRE(gradient.k.size() == 2);
    for (Index shared = 0; shared < 2; ++shared) {
        const auto first = attend_backward(group[2 * shared], Softmax(),
                                           MatrixView<double>(g[std::size_t(2 * shared)]), Mask::causal());
        const auto second = attend_backward(group[2 * shared + 1], Softmax(),
                                            MatrixView<double>(g[std::size_t(2 * shared + 1)]), Mask::causal());
        CHECK(gradient.k[std::size_t(shared)] == first.k + second.k);
        CHECK(gradient.v[std::size_t(shared)] == first.v + second.v);
        CHECK(gradient.q[std::size_t(2 * shared)] == first.q);
    }
    g.pop_back();
    CHECK_THROWS_AS(attend_backward(group, Softmax(), std::span<const Matrix<double>>(g)), invalid_argument);
}
