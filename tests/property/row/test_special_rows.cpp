// Results on rows that are not ordinary are those that docs/special_rows.md tells.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <array>
#include <limits>
#include <vector>

namespace {

using attnscope::Index;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::RowIn;
using attnscope::RowOut;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double huge = std::numeric_limits<double>::max();

template <class N>
std::vector<double> product(const N& normalizer, const std::vector<double>& z, const std::vector<double>& v) {
    std::vector<double> p(z.size()), out(z.size());
    normalizer.template apply<double>(z, p);
    normalizer.template jvp<double>(z, p, v, out);
    std::vector<double> back(z.size());
    normalizer.template vjp<double>(z, p, v, back);
    CHECK(back == out); // symmetric, or 0
    return out;
}

} // namespace

TEST_CASE("entmax: what stands at the keys of a masked row does not matter", "[special-rows][entmax]") {
    for (const double x : {not_a_number, inf, 1.0}) {
        CHECK(product(attnscope::Entmax(1.5), {-inf, -inf}, {x, 1}) == std::vector<double>{0, 0});
        CHECK(product(attnscope::Sparsemax(), {-inf, -inf}, {x, 1}) == std::vector<double>{0, 0});
        CHECK(product(attnscope::Entmax(3), {-inf, -inf, -inf}, {x, 1, x}) == std::vector<double>{0, 0, 0});
    }
}

TEST_CASE("softmax: all norms of a row without keys are 0", "[special-rows][norms]") {
    for (const double temperature : {5e-324, 0.5, 1.0, huge}) {
        const auto norms =
            attnscope::jacobian_norms(attnscope::Softmax(temperature), std::vector<double>{-inf, -inf, -inf});
        CHECK(norms.infinity_to_one.lower == 0);
        CHECK(norms.infinity_to_one.upper == 0);
        CHECK(norms.spectral.value == 0);
        CHECK(norms.max_entry == 0);
    }
    // Seven equal keys: none holds half of the weight.
    const auto equal = attnscope::jacobian_norms(attnscope::Softmax(), std::vector<double>(7, 1.0));
    CHECK(equal.infinity_to_one.lower > 0);
    CHECK(equal.infinity_to_one.upper == 1);
}

TEST_CASE("dobrushin_limit: NaN for logits that are no softmax row's", "[special-rows][rank-collapse]") {
    const auto limit = [](const Matrix<double>& z) {
        return attnscope::dobrushin_limit(MatrixView<double>(z));
    };
    CHECK(std::isnan(limit((Matrix<double>(2, 2) << 0, inf, 0, 1).finished())));
    CHECK(std::isnan(limit((Matrix<double>(1, 2) << inf, 0).finished())));
    CHECK(std::isnan(limit((Matrix<double>(3, 2) << 0, 1, 0, 2, not_a_number, 0).finished())));
    // A key that one row sees alone: what the other has there.
    CHECK(std::abs(limit((Matrix<double>(2, 2) << 0, -inf, 0, 1).finished()) - 1 / (1 + std::exp(-1.0))) <
          1e-15);
    CHECK(limit((Matrix<double>(2, 2) << 0, -inf, -inf, 1).finished()) == 1);
    CHECK(limit((Matrix<double>(2, 2) << 0, 1, -inf, -inf).finished()) == 1);
    CHECK(limit((Matrix<double>(2, 2) << -inf, -inf, -inf, -inf).finished()) == 0);
    CHECK(limit((Matrix<double>(2, 2) << 0, 3, 1, 4).finished()) == 0);
    // Differences beyond the range of double.
    CHECK(limit((Matrix<double>(2, 2) << huge, huge, -huge, -huge / 2).finished()) == 0.5);
}

TEST_CASE("general family: rows where F overflows do not move", "[special-rows][pointwise]") {
    const attnscope::PointwiseNormalizer<attnscope::Quadratic> quadratic;
    for (const std::vector<double>& z : {std::vector<double>{1, inf, -2}, {huge, -huge, 0}}) {
        CHECK(product(quadratic, z, {1, -2, 0.5}) == std::vector<double>{0, 0, 0});
        const auto norms = attnscope::jacobian_norms(quadratic, z);
        CHECK(norms.spectral.value == 0);
        CHECK(norms.frobenius == 0);
        CHECK(norms.max_entry == 0);
    }
    const attnscope::PointwiseNormalizer<attnscope::ReluPower> relu(attnscope::ReluPower(2));
    CHECK(attnscope::parameter_derivative(relu, std::vector<double>{1, inf, 0, -inf}) ==
          Eigen::VectorXd::Zero(4));
    const Eigen::VectorXd finite = attnscope::parameter_derivative(relu, std::vector<double>{1, 2, 0, -inf});
    // p = (1, 4)/5, d p_2/dk = p_1 p_2 log 2
    CHECK(finite[1] == Catch::Approx(4.0 / 25 * std::log(2.0)).epsilon(1e-14));
    CHECK(finite[0] == Catch::Approx(-finite[1]).epsilon(1e-14));
}

TEST_CASE("measure_perturbation: keys that are gone are no small change", "[special-rows][perturbation]") {
    const std::vector<double> keys{1, 2}, none{-inf, -inf};
    for (const auto& row :
         {attnscope::measure_perturbation(keys, none), attnscope::measure_perturbation(none, keys)}) {
        CHECK(std::isnan(row.range));
        CHECK(std::isnan(row.total_variation));
        CHECK(std::isnan(row.kl));
        CHECK(std::isnan(row.gap_after));
    }
    const auto empty = attnscope::measure_perturbation(none, none);
    CHECK(empty.range == 0);
    CHECK(empty.total_variation == 0);
    CHECK(empty.gap == inf);
}

TEST_CASE("column mass: a row of zero weights counts unless keys are taken out", "[special-rows][sinks]") {
    const Matrix<double> weights = (Matrix<double>(2, 2) << 1, 0, 0, 0).finished();
    const auto mass = attnscope::column_mass(MatrixView<double>(weights));
    CHECK(mass[0] == 0.5);
    CHECK(mass[1] == 0);
    CHECK(attnscope::leading_mass(MatrixView<double>(weights), 1) == 0.5);
    CHECK(
        std::isnan(attnscope::column_mass(MatrixView<double>(weights), {}, 1)[1])); // nothing remains of either
    // Weights that do not sum to 1 are taken as they are.
    const Matrix<double> half = (Matrix<double>(1, 2) << 0.25, 0.25).finished();
    CHECK(attnscope::column_mass(MatrixView<double>(half))[0] == 0.25);
}

TEST_CASE("a head without keys gives queries the output 0", "[special-rows][attention]") {
    const Matrix<double> q = Matrix<double>::Ones(2, 3), k(0, 3), v(0, 4);
    const attnscope::HeadView<double> head{MatrixView<double>(q), MatrixView<double>(k), MatrixView<double>(v)};
    CHECK(head.has_values());
    CHECK(attnscope::attend(head, attnscope::Softmax()).output == Matrix<double>::Zero(2, 4));
    const auto scan = attnscope::scan(head, {}, {.output = true});
    CHECK(scan.output == Matrix<double>::Zero(2, 4));
    CHECK(scan.count(attnscope::RowStatus::empty) == 2);
    const Matrix<double> d_output = Matrix<double>::Ones(2, 4);
    const auto gradient = attnscope::attend_backward(head, attnscope::Softmax(), MatrixView<double>(d_output));
    CHECK(gradient.q == Matrix<double>::Zero(2, 3));
    CHECK(gradient.k.rows() == 0);
    const attnscope::HeadView<double> silent{MatrixView<double>(q), MatrixView<double>(k)};
    CHECK_FALSE(silent.has_values());
}
