// Whatever people keep rows in goes through the front doors, and what comes back goes on in Eigen.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <algorithm>
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

namespace {

/// One number for what a door returns.
template <class R>
double figure(const R& result) {
    if constexpr (std::is_arithmetic_v<R>)
        return static_cast<double>(result);
    else if constexpr (requires { result.coeff(0); }) {
        double sum = 0;
        for (attnscope::Index i = 0; i < result.size(); ++i)
            sum += static_cast<double>(result[i]) * static_cast<double>(i + 1);
        return sum;
    } else if constexpr (requires { result.least; })
        return figure(result.least) + 3 * figure(result.greatest);
    else if constexpr (requires { result.forward; })
        return result.forward + 3 * result.backward + 7 * result.total_variation;
    else if constexpr (requires { result.kl; })
        return result.kl + 3 * result.range + 7 * result.output_change;
    else if constexpr (requires { result.certified; })
        return static_cast<double>(result.measured + 3 * result.certified) + result.share;
    else if constexpr (requires { result.best_weight; })
        return result.best_weight;
    else if constexpr (requires { result.inverse_temperature; })
        return result.inverse_temperature;
    else if constexpr (requires { result.bracket; })
        return static_cast<double>(result.value);
    else if constexpr (requires { result.rank; })
        return static_cast<double>(result.value.lower) + static_cast<double>(result.rank);
    else if constexpr (requires { result.lower; })
        return static_cast<double>(result.lower) + 3 * static_cast<double>(result.upper);
    else if constexpr (requires { result.standard_error; })
        return static_cast<double>(result.mean);
    else if constexpr (requires { result[0].value; })
        return static_cast<double>(result[0].value) + 3 * static_cast<double>(result[1].value);
    else {
        double sum = 0;
        for (const auto x : result) sum += static_cast<double>(x);
        return sum;
    }
}

/// `door` gives the same number for every kind of row, read or written, that holds these logits.
template <class Door>
void check_door(const char* name, const Door& door) {
    INFO(name);
    const std::array<double, 5> array{2, -1.5, 0.25, 1, -3};
    const double right = figure(door(std::span<const double>(array)));
    CHECK(right == right);
    std::vector<double> list(array.begin(), array.end());
    const double plain[5] = {2, -1.5, 0.25, 1, -3};
    const Eigen::VectorXd z = Eigen::Map<const Eigen::VectorXd>(list.data(), 5);
    const Eigen::MatrixXd rows = z.transpose().replicate(3, 1); // a row has the inner stride 3
    Eigen::VectorXd twice(10);
    twice << z, z;
    CHECK(figure(door(array)) == right);
    CHECK(figure(door(list)) == right);
    CHECK(figure(door(std::span<double>(list))) == right);
    CHECK(figure(door(plain)) == right);
    CHECK(figure(door(z)) == right);
    CHECK(figure(door(z.transpose())) == right);
    CHECK(figure(door(z.array())) == right);
    CHECK(figure(door(rows.row(1))) == right);
    CHECK(figure(door(-(-z))) == right);
    CHECK(figure(door(twice.head(5))) == right);
    CHECK(figure(door(twice(Eigen::seq(5, 9)))) == right);

    const std::vector<float> narrow(array.begin(), array.end());
    std::vector<Eigen::half> half;
    for (const float x : narrow) half.push_back(Eigen::half(x)); // exact
    const Eigen::Map<const Eigen::Matrix<Eigen::half, Eigen::Dynamic, 1>> halves(half.data(), 5);
    const double in_float = figure(door(std::span<const float>(narrow)));
    CHECK(in_float == Catch::Approx(right).epsilon(1e-5));
    CHECK(figure(door(half)) == in_float);
    CHECK(figure(door(halves)) == in_float);
}

/// The same row, moved.
template <class Z>
auto moved(const Z& z) {
    using T = attnscope::RowScalar<Z>;
    const attnscope::RowHolder<T> row(z);
    std::vector<T> other(row.get().begin(), row.get().end());
    for (std::size_t i = 0; i < other.size(); ++i) other[i] += static_cast<T>(i % 3) / 4;
    return other;
}

/// Vectors for a row, in its scalar.
template <class Z>
auto vectors(const Z&) {
    using T = attnscope::RowScalar<Z>;
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> x(5, 2);
    x << 1, 2, -1, 0.5, 3, 1, 0, -2, 0.25, 1;
    return x;
}

/// The weights of a row.
template <class Z>
auto of(const Z& z) {
    return attnscope::weights(attnscope::Softmax(), z);
}

} // namespace

TEST_CASE("every door that looks at rows takes every kind of row", "[types]") {
    namespace as = attnscope;
    check_door("log_sum_exp", [](const auto& z) { return as::log_sum_exp(z, 2); });
    check_door("row_divergence", [](const auto& z) { return as::row_divergence(z, moved(z)); });
    check_door("row_divergence, second", [](const auto& z) { return as::row_divergence(moved(z), z); });
    check_door("renyi_entropy_nats", [](const auto& z) { return as::renyi_entropy_nats(z, 2); });
    check_door("hill_number", [](const auto& z) { return as::hill_number(z, 0.5, 2); });
    check_door("entropy_nats", [](const auto& z) { return as::entropy_nats(z); });
    check_door("centred_norm", [](const auto& z) { return as::centred_norm(z, 2); });
    check_door("entropy_gradient", [](const auto& z) { return as::entropy_gradient(z, 2); });
    check_door("weight_temperature_derivative",
               [](const auto& z) { return as::weight_temperature_derivative(z); });
    check_door("entmax_support_sharp", [](const auto& z) { return as::entmax_support_sharp(z, 1.5, 2); });
    check_door("box_weight_ranges", [](const auto& z) { return as::box_weight_ranges(z, moved(z), 2); });
    check_door("critical_inverse_temperature", [](const auto& z) {
        auto sorted = moved(z);
        std::sort(sorted.rbegin(), sorted.rend());
        return as::critical_inverse_temperature(sorted, 6);
    });
    check_door("random_direction", [](const auto& z) {
        as::SplitMix64 generator(1);
        return as::random_direction(z, generator);
    });
    check_door("finite_difference",
               [](const auto& z) { return as::finite_difference(as::Softmax(), z, moved(z), 0.5); });
    check_door("measure_perturbation", [](const auto& z) { return as::measure_perturbation(z, moved(z)); });
    check_door("measure_perturbation with values",
               [](const auto& z) { return as::measure_perturbation(z, moved(z), vectors(z), 5); });
    const std::vector<double> three{0, 1, 2};
    CHECK_THROWS_WITH(as::measure_perturbation(three, three, Eigen::MatrixXd(0, 2)),
                      "measure_perturbation: values must have one row for each key, got 0 and 3");
    check_door("grown_row", [](const auto& z) { return as::grown_row(z, {2, 0.25}, 1); });
    check_door("planned_temperature", [](const auto& z) {
        return as::planned_temperature(z, {2, 0.25}, as::Aim::weight, 0.5);
    });
    // Of weights, or of scores.
    check_door("diagonal_minus_rank_one_norm",
               [](const auto& z) { return as::diagonal_minus_rank_one_norm(of(z)); });
    check_door("spectral_bracket_sharp",
               [](const auto& z) { return as::spectral_bracket_sharp(of(z), 1, 0.25, 0); });
    check_door("contributions", [](const auto& z) { return as::contributions(z, vectors(z)); });
    check_door("mean_subset_distance", [](const auto& z) {
        as::SplitMix64 generator(1);
        return as::mean_subset_distance(of(z), vectors(z), 2, as::Reading::cumulative, 0, generator);
    });
    check_door("theorem2_xi", [](const auto& z) { return as::theorem2_xi(of(z), as::SphericalModel()); });
    check_door("theorem2_published_range",
               [](const auto& z) { return as::theorem2_published_range(of(z), as::SphericalModel(), 1); });
    check_door("theorem2_valid_range",
               [](const auto& z) { return as::theorem2_valid_range(of(z), as::SphericalModel(), 1); });
    check_door("output_budget", [](const auto& z) { return as::output_budget(of(z), vectors(z), 5, 0.1); });
    check_door("mass_budget", [](const auto& z) { return as::mass_budget(of(z), 0.9); });
}

TEST_CASE("results are vectors of the kind of the argument", "[types]") {
    using attnscope::RowResult;
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::VectorXd>, Eigen::VectorXd>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::RowVectorXf>, Eigen::RowVectorXf>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::ArrayXd>, Eigen::ArrayXd>);
    STATIC_REQUIRE(std::is_same_v<RowResult<Eigen::Matrix<Eigen::half, Eigen::Dynamic, 1>>, Eigen::VectorXf>);
    STATIC_REQUIRE(std::is_same_v<RowResult<std::vector<float>>, Eigen::VectorXf>);
    const Eigen::MatrixXd values = Eigen::MatrixXd::Random(4, 2);
    const Eigen::VectorXd z{{1, -2, 0.5, 3}};
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
