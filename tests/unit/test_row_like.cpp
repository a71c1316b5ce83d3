// Whatever people keep rows in goes through the front doors, and what comes back goes on in Eigen.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <array>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

TEST_CASE("a row is any vector expression or container of numbers", "[types]") {
    using attnscope::RowLike;
    STATIC_REQUIRE(RowLike<Eigen::VectorXd>);
    STATIC_REQUIRE(RowLike<Eigen::Array<float, 1, Eigen::Dynamic>>);
    STATIC_REQUIRE(RowLike<std::vector<double>>);
    STATIC_REQUIRE(RowLike<std::array<float, 4>>);
    STATIC_REQUIRE(RowLike<std::span<double>>);
    STATIC_REQUIRE(RowLike<std::span<const long double>>);
    STATIC_REQUIRE(RowLike<double[3]>);
    STATIC_REQUIRE(RowLike<std::vector<Eigen::half>>);
    STATIC_REQUIRE_FALSE(RowLike<std::vector<int>>);
    STATIC_REQUIRE_FALSE(RowLike<std::vector<bool>>);
    STATIC_REQUIRE_FALSE(RowLike<Eigen::MatrixXd>);
    STATIC_REQUIRE_FALSE(RowLike<double>);
    STATIC_REQUIRE_FALSE(RowLike<std::string>);

    // Containers that are kept are views, temporary ones are refused, spans may be temporary.
    std::vector<double> row{1, 2, 3};
    CHECK(attnscope::RowHolder<double>(row).size() == 3);
    const attnscope::RowHolder<double> view(row), same(std::span<double>{row});
    CHECK(view.get().data() == row.data());
    CHECK(same.get().data() == row.data());
    STATIC_REQUIRE_FALSE(std::is_constructible_v<attnscope::RowHolder<double>, std::vector<double>>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<attnscope::RowHolder<double>, const std::vector<float>&>);
    const std::vector<Eigen::half> half{Eigen::half(0.5F), Eigen::half(-2.0F)};
    const attnscope::RowHolder<float> widened(half);
    CHECK(widened.get()[0] == 0.5F);
    CHECK(widened.get()[1] == -2.0F);
}

TEST_CASE("results are vectors of the kind of the argument", "[types]") {
    using attnscope::RowResult;
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::VectorXd>, Eigen::VectorXd>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::RowVectorXf>, Eigen::RowVectorXf>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::ArrayXd>, Eigen::ArrayXd>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::Matrix<Eigen::half, Eigen::Dynamic, 1>>, Eigen::VectorXf>);
    STATIC_REQUIRE(std::is_same_v<RowResult<std::vector<float>>, Eigen::VectorXf>);
    const Eigen::MatrixXd values = Eigen::MatrixXd::Random(4, 2);
    const Eigen::VectorXd z = Eigen::Vector4d(1, -2, 0.5, 3);
    const Eigen::VectorXd p = attnscope::weights(attnscope::Softmax(), z);
    // What people write next.
    CHECK(p.dot(z) == Catch::Approx((p.array() * z.array()).sum()));
    CHECK((z - p).size() == 4);
    const Eigen::RowVectorXd output = p.transpose() * values;
    CHECK(output.size() == 2);
    // Every kind of row gives the same numbers.
    const std::vector<double> list(z.data(), z.data() + 4);
    const std::array<double, 4> array{1, -2, 0.5, 3};
    const double plain[4] = {1, -2, 0.5, 3};
    const Eigen::MatrixXd columns = z.replicate(1, 3);
    CHECK(attnscope::weights(attnscope::Softmax(), list) == p);
    CHECK(attnscope::weights(attnscope::Softmax(), array) == p);
    CHECK(attnscope::weights(attnscope::Softmax(), plain) == p);
    CHECK(attnscope::weights(attnscope::Softmax(), std::span<const double>(list)) == p);
    CHECK(attnscope::weights(attnscope::Softmax(), columns.col(2)) == p);
    CHECK(attnscope::weights(attnscope::Softmax(), z.transpose()) == p.transpose());
    CHECK(attnscope::weights(attnscope::Softmax(), -(-z.array())).matrix() == p);
    // Doors that measure a row.
    CHECK(attnscope::row_statistics(list).entropy_nats() == attnscope::row_statistics(z).entropy_nats());
    CHECK(attnscope::entropy_nats(array) == attnscope::entropy_nats(z));
    CHECK(attnscope::entropy_of_weights(p) == Catch::Approx(attnscope::entropy_nats(plain)));
    CHECK(attnscope::hill_number(list, 2) == attnscope::hill_number(z, 2));
    CHECK(attnscope::top_n(list, 2) == std::vector<attnscope::Index>{3, 0});
    CHECK(attnscope::jvp(attnscope::Softmax(), list, array) == attnscope::jvp(attnscope::Softmax(), z, z));
    CHECK(attnscope::jacobian_norms(attnscope::Softmax(), array).one ==
          attnscope::jacobian_norms(attnscope::Softmax(), z).one);
    const std::vector<double> weights(p.data(), p.data() + 4);
    CHECK(attnscope::select_top(weights, values, 2).mass() == attnscope::select_top(p, values, 2).mass());
}
