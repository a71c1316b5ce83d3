// What the front doors say where a normaliser is known at run time only, and where input is more than a span.
#include <support/front_doors.hpp>

using namespace attnscope_test;

TEST_CASE("adaptors around what is known at run time keep its promises", "[doors]") {
    using attnscope::make_normalizer;
    const std::vector<double> z = {1, 0.5, 0, -0.5, -1, 0.2};
    std::vector<double> a(z.size()), b(z.size()), c(z.size());
    const auto check = [&](const auto& composed, const char* text, const auto& typed) {
        INFO(text);
        const AnyNormalizer named = make_normalizer(text);
        composed.apply(RowIn<double>(z), RowOut<double>(a));
        named.apply(RowIn<double>(z), RowOut<double>(b));
        typed.apply(RowIn<double>(z), RowOut<double>(c));
        for (std::size_t i = 0; i < z.size(); ++i) {
            CHECK(a[i] == Catch::Approx(c[i]).epsilon(1e-14));
            CHECK(b[i] == Catch::Approx(c[i]).epsilon(1e-14));
        }
        // The derivative is that of the weights as they are divided.
        const std::vector<double> v = {1, -2, 0.5, 0, 3, 1}, weights = c;
        composed.vjp(RowIn<double>(z), RowIn<double>(weights), RowIn<double>(v), RowOut<double>(a));
        typed.vjp(RowIn<double>(z), RowIn<double>(weights), RowIn<double>(v), RowOut<double>(c));
        for (std::size_t i = 0; i < z.size(); ++i) CHECK(a[i] == Catch::Approx(c[i]).margin(1e-14));
        composed.jvp(RowIn<double>(z), RowIn<double>(weights), RowIn<double>(v), RowOut<double>(a));
        typed.jvp(RowIn<double>(z), RowIn<double>(weights), RowIn<double>(v), RowOut<double>(c));
        for (std::size_t i = 0; i < z.size(); ++i) CHECK(a[i] == Catch::Approx(c[i]).margin(1e-14));
        CHECK(composed.promises().simplex == typed.traits.simplex);
        CHECK(AnyNormalizer(composed).promises().simplex == typed.traits.simplex);
        CHECK(AnyNormalizer(composed).promises().symmetric_jacobian == typed.traits.symmetric_jacobian);
    };
    using attnscope::top_k;
    using attnscope::top_p;
    check(make_normalizer("softmax") | top_k(3), "softmax|topk:3", Softmax() | top_k(3));
    check(make_normalizer("softmax") | top_p(0.8), "softmax|topp:0.8", Softmax() | top_p(0.8));
    check(make_normalizer("sparsemax") | top_k(2), "sparsemax|topk:2", attnscope::Sparsemax() | top_k(2));
    check(make_normalizer("sigmoid") | top_k(3), "sigmoid|topk:3", attnscope::SigmoidAttention() | top_k(3));
    check((attnscope::softcap(2) | make_normalizer("softmax")) | top_k(3), "softcap:2|softmax|topk:3",
          (attnscope::softcap(2) | Softmax()) | top_k(3));
    // Twice: the sum of what is left is 1 again.
    const auto twice = AnyNormalizer(make_normalizer("softmax") | top_k(3)) | top_k(2);
    twice.apply(RowIn<double>(z), RowOut<double>(a));
    CHECK(a[0] + a[1] == Catch::Approx(1).epsilon(1e-14));
}

TEMPLATE_TEST_CASE("attention knows the log-sum-exp of what is known at run time", "[doors]", float, double) {
    using T = TestType;
    const Case<T> c;
    const auto exact = attnscope::attend(c.head, Softmax(), c.mask),
               named = attnscope::attend(c.head, attnscope::make_normalizer("softmax"), c.mask),
               mapped = attnscope::attend(c.head, attnscope::make_normalizer("softcap:4|softmax"), c.mask),
               typed = attnscope::attend(c.head, attnscope::softcap(4) | Softmax(), c.mask);
    for (Index i = 0; i < queries; ++i) {
        CHECK(named.log_sum_exp[i] == exact.log_sum_exp[i]);
        CHECK(mapped.log_sum_exp[i] == typed.log_sum_exp[i]);
    }
    CHECK(
        std::isnan(attnscope::attend(c.head, attnscope::make_normalizer("sparsemax"), c.mask).log_sum_exp[0]));
}

TEST_CASE("the mass of more keys than are kept is refused", "[doors]") {
    attnscope::RowState<float, 8> state;
    const std::vector<float> z(20, 1.0F);
    CHECK(state.top_mass(0) != state.top_mass(0)); // an empty row
    state.add(RowIn<float>(z), 0);
    CHECK(state.top_mass(8) == Catch::Approx(0.4));
    CHECK(state.top_mass(0) == 0);
    CHECK_THROWS_AS(state.top_mass(9), attnscope::invalid_argument);
    CHECK_THROWS_AS(state.top_mass(50), attnscope::invalid_argument);
    CHECK_THROWS_AS(state.top_mass(-1), attnscope::invalid_argument);
}

TEST_CASE("expressions that have strides and no address are copied", "[doors]") {
    const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(9, 0, 4);
    const Eigen::VectorXd even = z(Eigen::seq(0, 7, 2));
    CHECK(attnscope::entropy_nats(z(Eigen::seq(0, 7, 2))) == attnscope::entropy_nats(even));
    CHECK(attnscope::weights(Softmax(), z(Eigen::seq(0, 7, 2))) == attnscope::weights(Softmax(), even));
    const std::vector<int> picked = {4, 0, 2};
    CHECK(attnscope::row_statistics(z(picked)).visible == 3);
    const Matrix<double> m = Matrix<double>::Random(6, 4);
    const auto part = m(Eigen::seq(0, 5, 2), Eigen::seq(1, 3));
    const attnscope::MatrixHolder<double> holder(part);
    CHECK(Matrix<double>(holder.get().map()) == Matrix<double>(part));
    const Matrix<double> rows = m(std::vector<int>{5, 1}, Eigen::all);
    const attnscope::MatrixHolder<double> chosen(m(std::vector<int>{5, 1}, Eigen::all));
    CHECK(Matrix<double>(chosen.get().map()) == rows);
}
