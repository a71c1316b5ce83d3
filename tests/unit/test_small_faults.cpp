// Inputs at the edges that are easily taken for ordinary ones: what is said of them.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

namespace {

using namespace attnscope;
constexpr double infinity = std::numeric_limits<double>::infinity(),
                 not_a_number = std::numeric_limits<double>::quiet_NaN();

} // namespace

TEMPLATE_TEST_CASE(
    "the derivative of a temperature in front of softmax is that of softmax, 1/T beyond the numbers too",
    "[normalizer]", float, double) {
    using T = TestType;
    const volatile std::size_t size =
        4; // g++ 14 sees stores behind rows whose length it knows, where there are none
    const std::array<T, 4> logits = {1, -2, 0.5, T(-infinity)};
    std::vector<T> z(size);
    std::copy(logits.begin(), logits.end(), z.begin());
    const std::vector<T> v = {3, -1, 2, T(not_a_number)};
    for (const double t : {5e-324, 1e-310, 1e-40, 0.3, 1.0, 1e40, 1e308}) {
        const auto front = temperature(t) | Softmax();
        const Softmax own(t);
        const auto p = weights(own, z);
        std::vector<T> a(4), b(4);
        front.template jvp<T>(z, RowIn<T>(p.data(), 4), v, a);
        own.template jvp<T>(z, RowIn<T>(p.data(), 4), v, b);
        for (std::size_t i = 0; i < 4; ++i) {
            INFO("T = " << t << ", key " << i);
            CHECK(std::isfinite(a[i]));
            CHECK(std::abs(a[i] - b[i]) <= 4 * std::numeric_limits<T>::epsilon() * std::abs(b[i]));
        }
        const auto norms = jacobian_norms(front, RowIn<T>(z), RowIn<T>(p.data(), 4));
        CHECK_FALSE(std::isnan(norms.frobenius));
        CHECK_FALSE(std::isnan(norms.spectral.value));
    }
}

TEST_CASE("a sink logit may be -inf, and the message says so", "[normalizer]") {
    CHECK_THROWS_WITH(SinkSoftmax::from_logit(infinity),
                      "SinkSoftmax::from_logit: the sink logit must be finite or -inf, got inf");
    CHECK_THROWS_AS(SinkSoftmax::from_logit(not_a_number), invalid_argument);
    const std::vector<double> z = {1, 2};
    CHECK(weights(SinkSoftmax::from_logit(-infinity), z).sum() == Catch::Approx(1));
}

TEST_CASE("how many rows a choice of bits leaves out", "[planner]") {
    SplitMix64 random(2);
    const auto fill = [&](Index rows) {
        return Matrix<double>::NullaryExpr(rows, 4, [&] { return random.normal(); }).eval();
    };
    Matrix<double> q = fill(6);
    const Matrix<double> k = fill(8), v = fill(8);
    const auto bits = [&] {
        const HeadView<double> head(q, k, v);
        const Row<double> widths = visible_diameters<double>(head.v(), Mask(), 6);
        const Matrix<double> outputs = attend(head, Softmax()).output;
        return fewest_cache_bits(head, CacheScale::token, Mask(), widths, outputs, 0.1, 0.9);
    };
    CHECK(bits().left_out == 0);
    q.row(2).setConstant(not_a_number);
    q(4, 0) = not_a_number;
    CHECK(bits().left_out == 2);
    CHECK(bits().measured <= 16); // of the others
}

TEST_CASE("statements about the support of entmax need a row without NaN", "[concentration]") {
    const std::vector<double> z = {not_a_number, 1};
    for (const auto& bound : entmax_support_sharp(z, 1.5, 1)) CHECK(bound.verdict() == Verdict::undefined);
    const std::vector<double> right = {0.5, 1};
    CHECK(entmax_support_sharp(right, 1.5, 2)[1].verdict() != Verdict::undefined);
}

TEST_CASE("what a selection without weight loses is not known", "[selection]") {
    const Matrix<double> x = Matrix<double>::Identity(3, 2);
    const std::vector<double> none = {0, 0, 0}, other = {0, 1, 0};
    const std::vector<Index> first = {0};
    SelectedSet<double> set;
    set.assign(none, MatrixView<double>(x), first);
    CHECK(std::isnan(truncation_error(set)));
    set.assign(other, MatrixView<double>(x), first);
    CHECK(std::isnan(truncation_error(set)));
}

TEST_CASE("the bound of a distance curve knows of tokens that are not finite, selected or not", "[selection]") {
    const std::vector<double> p = {0.5, 0.3, 0.15, 0.05};
    for (const double odd : {not_a_number, infinity})
        for (const Index where : {0, 2, 3}) {
            Matrix<double> x = Matrix<double>::Random(4, 3);
            x(where, 1) = odd;
            const Matrix<double> gram = gram_matrix(MatrixView<double>(x));
            const std::vector<Index> order = {0, 1, 2, 3};
            DistanceCurves<double> curves;
            const auto& curve = curves.compute(RowIn<double>(p), MatrixView<double>(x), gram, order, 4, true);
            for (std::size_t rank = 0; rank < 3; ++rank) CHECK_FALSE(std::isfinite(curve.bound[rank]));
            CHECK(curve.bound[3] == 0);
        }
}

TEST_CASE("the norm of centred logits at the ends of the numbers", "[concentration]") {
    // sqrt(2) d for two keys 2 d apart.
    for (const double d : {1e308, 1e200, 3.0, 1e-200, 1e-310}) {
        const std::vector<double> z = {d, -d, -infinity};
        CHECK(centred_norm(z) / d == Catch::Approx(std::sqrt(2.0)).epsilon(1e-14));
    }
    CHECK(centred_norm(std::vector<double>{2, 2}) == 0);
    CHECK(std::isnan(centred_norm(std::vector<double>{2, not_a_number})));
    CHECK(std::isnan(centred_norm(std::vector<double>{2, infinity})));
    CHECK(std::isnan(centred_norm(std::vector<double>{not_a_number, 2})));
}

TEST_CASE("a streamed analysis at temperatures whose logits no scan can hold", "[analysis]") {
    const Matrix<double> q = Matrix<double>::Random(6, 3), k = Matrix<double>::Random(7, 3);
    for (const double t : {1e-39, 1e-310}) {
        const auto found = analyze(q, k,
                                   {.mask = Mask::causal(1),
                                    .temperature = t,
                                    .counts = {},
                                    .single_precision = true,
                                    .streamed_above = 1});
        const auto whole = analyze(q, k, {.mask = Mask::causal(1), .temperature = t, .counts = {}});
        CHECK(found.streamed);
        for (Index i = 0; i < 6; ++i) {
            CHECK(found.rows.entropy_nats[i] == whole.rows.entropy_nats[i]);
            CHECK(found.rows.max_weight[i] == whole.rows.max_weight[i]);
        }
    }
}
