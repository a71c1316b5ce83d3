// Any Eigen expression enters the library as it should: as a view where it can, as a copy where it must.
#include <attnscope/types.hpp>
#include <support/catch.hpp>

#include <array>
#include <type_traits>
#include <vector>

namespace {

using attnscope::Index;
using attnscope::Matrix;
using attnscope::MatrixHolder;
using attnscope::MatrixView;
using attnscope::Row;
using attnscope::RowHolder;

template <class T>
using ColMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
template <class T>
using Column = Eigen::Matrix<T, Eigen::Dynamic, 1>;

/// 0, 1, 2, ... by rows.
template <class M>
M counted(Index rows, Index cols) {
    M m(rows, cols);
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j)
            m(i, j) = static_cast<typename M::Scalar>(static_cast<float>(i * cols + j));
    return m;
}
template <class V>
V counted(Index n) {
    V v(n);
    for (Index i = 0; i < n; ++i) v[i] = static_cast<typename V::Scalar>(static_cast<float>(i));
    return v;
}

/// Holds what `expression` holds, as a view of `data` (nullptr: as a copy).
template <class E>
void check_row(const E& expression, const void* data) {
    using T = attnscope::ScalarOf<E>;
    const RowHolder<T> holder(expression);
    REQUIRE(static_cast<Index>(holder.get().size()) == expression.size());
    for (Index i = 0; i < expression.size(); ++i)
        CHECK(holder.get()[static_cast<std::size_t>(i)] == static_cast<T>(expression.coeff(i)));
    if (data != nullptr) CHECK(static_cast<const void*>(holder.get().data()) == data);
}

template <class E>
void check_matrix(const E& expression, const void* data) {
    using T = attnscope::ScalarOf<E>;
    const MatrixHolder<T> holder(expression);
    const MatrixView<T> view = holder.get();
    REQUIRE(view.rows() == expression.rows());
    REQUIRE(view.cols() == expression.cols());
    for (Index i = 0; i < view.rows(); ++i) {
        REQUIRE(static_cast<Index>(view.row(i).size()) == view.cols());
        for (Index j = 0; j < view.cols(); ++j) {
            CHECK(view.row(i)[static_cast<std::size_t>(j)] == static_cast<T>(expression.coeff(i, j)));
            CHECK(view.map()(i, j) == static_cast<T>(expression.coeff(i, j)));
        }
    }
    if (data != nullptr) CHECK(static_cast<const void*>(view.data()) == data);
}

/// Checks the values, and that the memory of the holder is not the expression's.
template <class E>
void check_row_copied(const E& expression, const void* data) {
    check_row(expression, nullptr);
    const RowHolder<attnscope::ScalarOf<E>> holder(expression);
    CHECK(static_cast<const void*>(holder.get().data()) != data);
}
template <class E>
void check_matrix_copied(const E& expression, const void* data) {
    check_matrix(expression, nullptr);
    const MatrixHolder<attnscope::ScalarOf<E>> holder(expression);
    CHECK(static_cast<const void*>(holder.get().data()) != data);
}

} // namespace

TEMPLATE_TEST_CASE("contiguous vectors are viewed", "[types]", float, double, long double) {
    using T = TestType;
    const auto column = counted<Column<T>>(7);
    check_row(column, column.data());
    const Eigen::Matrix<T, 1, Eigen::Dynamic> row = column.transpose();
    check_row(row, row.data());
    const Eigen::Array<T, Eigen::Dynamic, 1> array = column.array();
    check_row(array, array.data());
    const Row<T> own = row.array();
    check_row(own, own.data());
    check_row(column.transpose(), column.data());
    check_row(column.array(), column.data());
    check_row(column.segment(2, 3), column.data() + 2);
    check_row(column.head(0), nullptr);
    check_row(column.template tail<4>(), column.data() + 3);
    const Eigen::Map<const Column<T>> map(column.data() + 1, 5);
    check_row(map, column.data() + 1);
    const Eigen::Ref<const Column<T>> reference(column);
    check_row(reference, column.data());
    const Eigen::Matrix<T, 4, 1> fixed = column.template head<4>();
    check_row(fixed, fixed.data());
}

TEMPLATE_TEST_CASE("rows and columns of matrices are viewed along the storage, copied across it", "[types]",
                   float, double, long double) {
    using T = TestType;
    const auto by_rows = counted<Matrix<T>>(3, 4);
    check_row(by_rows.row(1), by_rows.data() + 4);
    check_row(by_rows.row(1).segment(1, 2), by_rows.data() + 5);
    check_row_copied(by_rows.col(1), by_rows.data() + 1);
    check_row_copied(by_rows.diagonal(), by_rows.data());
    const auto by_columns = counted<ColMajor<T>>(3, 4);
    check_row(by_columns.col(2), by_columns.data() + 6);
    check_row(by_columns.transpose().row(2), by_columns.data() + 6);
    check_row_copied(by_columns.row(2), by_columns.data() + 2);
    check_row_copied(by_columns.block(1, 1, 2, 3).row(0), by_columns.data() + 4);
    check_row(by_columns.block(1, 1, 2, 3).col(0), by_columns.data() + 4);
    const auto fixed = Eigen::Matrix<T, 2, 3>(by_columns.template topLeftCorner<2, 3>());
    check_row(fixed.row(1), nullptr);
    check_row(fixed.col(1), nullptr);
}

TEMPLATE_TEST_CASE("strided, reversed and computed vectors are copied", "[types]", float, double, long double) {
    using T = TestType;
    const auto column = counted<Column<T>>(9);
    const Eigen::Map<const Column<T>, 0, Eigen::InnerStride<>> every_second(column.data(), 5,
                                                                            Eigen::InnerStride<>(2));
    check_row_copied(every_second, column.data());
    const Eigen::Map<const Column<T>, 0, Eigen::InnerStride<3>> every_third(column.data(), 3);
    check_row_copied(every_third, column.data());
    check_row_copied(column.reverse(), column.data());
    check_row_copied(2 * column - Column<T>::Ones(9), column.data());
    check_row_copied(column.array().square(), column.data());
    check_row_copied(column.template cast<T>().transpose() * T(3), column.data());
    check_row(Column<T>::Constant(4, T(2)), nullptr);
    // A stride of 1 that is only known when running, and strides that do not matter.
    const Eigen::Map<const Column<T>, 0, Eigen::InnerStride<>> dense(column.data(), 4, Eigen::InnerStride<>(1));
    check_row(dense, column.data());
    const Eigen::Map<const Column<T>, 0, Eigen::InnerStride<>> single(column.data() + 2, 1,
                                                                      Eigen::InnerStride<>(5));
    check_row(single, column.data() + 2);
    // Products have no coefficients before they are evaluated.
    const auto a = counted<ColMajor<T>>(3, 9);
    const RowHolder<T> product(a * column);
    const Column<T> expected = a * column;
    for (Index i = 0; i < 3; ++i) CHECK(product.get()[static_cast<std::size_t>(i)] == expected[i]);
}

TEMPLATE_TEST_CASE("half and bfloat16 are widened to float", "[types]", Eigen::half, Eigen::bfloat16) {
    using S = TestType;
    STATIC_REQUIRE(std::same_as<attnscope::ComputeScalar<S>, float>);
    STATIC_REQUIRE(std::same_as<attnscope::ComputeScalar<const S>, float>);
    STATIC_REQUIRE(attnscope::VectorExpr<Column<S>>);
    STATIC_REQUIRE_FALSE(attnscope::Real<S>);
    const auto column = counted<Column<S>>(9);
    check_row_copied(column, column.data());
    check_row_copied(column.segment(1, 5), column.data() + 1);
    check_row_copied(column.reverse(), column.data());
    check_row_copied(column.array(), column.data());
    const auto by_columns = counted<ColMajor<S>>(3, 4);
    check_row_copied(by_columns.row(1), by_columns.data());
    check_matrix_copied(by_columns, by_columns.data());
    check_matrix_copied(counted<Matrix<S>>(3, 4), nullptr);
    Column<S> special(3);
    special << S(-std::numeric_limits<float>::infinity()), S(std::numeric_limits<float>::quiet_NaN()),
        S(std::numeric_limits<float>::infinity());
    const RowHolder<float> holder(special);
    CHECK(holder.get()[0] == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(holder.get()[1]));
    CHECK(holder.get()[2] == std::numeric_limits<float>::infinity());
}

TEMPLATE_TEST_CASE("empty vectors and single numbers", "[types]", float, double, long double) {
    using T = TestType;
    check_row(Column<T>(0), nullptr);
    check_row(Row<T>(0), nullptr);
    check_row(Matrix<T>(0, 4).col(0), nullptr); // of others Eigen adds an offset to a null pointer
    check_row(Matrix<T>(4, 0).row(1), nullptr);
    check_row(Column<T>(0).reverse(), nullptr);
    const Eigen::Matrix<T, 1, 1> one(T(3));
    STATIC_REQUIRE(attnscope::VectorExpr<Eigen::Matrix<T, 1, 1>>);
    check_row(one, one.data());
    check_row(Column<T>::Constant(1, T(4)), nullptr);
    check_matrix(one, nullptr);
}

TEMPLATE_TEST_CASE("row-major matrices are viewed, with their stride", "[types]", float, double, long double) {
    using T = TestType;
    const auto matrix = counted<Matrix<T>>(4, 6);
    check_matrix(matrix, matrix.data());
    check_matrix(matrix.array(), matrix.data());
    check_matrix(matrix.middleRows(1, 2), matrix.data() + 6);
    check_matrix(matrix.block(1, 2, 3, 3), matrix.data() + 8);
    check_matrix(matrix.row(2), matrix.data() + 12);
    const auto by_columns = counted<ColMajor<T>>(4, 6);
    check_matrix(by_columns.transpose(), by_columns.data());
    const Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>> wide(matrix.data(), 3, 4,
                                                                    Eigen::OuterStride<>(7));
    check_matrix(wide, matrix.data());
    const MatrixHolder<T> holder(wide);
    CHECK(holder.get().outer_stride() == 7);
    const MatrixHolder<T> block(matrix.block(1, 2, 3, 3));
    CHECK(block.get().outer_stride() == 6);
    const Eigen::Matrix<T, 1, Eigen::Dynamic> row = matrix.row(0);
    check_matrix(row, row.data());
}

TEMPLATE_TEST_CASE("other matrices are copied", "[types]", float, double, long double) {
    using T = TestType;
    const auto by_columns = counted<ColMajor<T>>(4, 6);
    check_matrix_copied(by_columns, by_columns.data());
    check_matrix_copied(by_columns.block(1, 1, 2, 2), by_columns.data() + 5);
    check_matrix_copied(by_columns.row(1), by_columns.data() + 1);
    const auto matrix = counted<Matrix<T>>(4, 6);
    check_matrix_copied(matrix.transpose(), matrix.data());
    check_matrix_copied(matrix.reverse(), matrix.data());
    check_matrix_copied(matrix + matrix, matrix.data());
    check_matrix_copied(matrix.array() * T(2), matrix.data());
    using Strided = Eigen::Map<const Matrix<T>, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
    check_matrix_copied(Strided(matrix.data(), 3, 3, {6, 2}), matrix.data());
    // The same row again and again, and rows from the last to the first: not what a view can say.
    using Outer = Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>;
    check_matrix_copied(Outer(matrix.data(), 3, 6, Eigen::OuterStride<>(0)), matrix.data());
    check_matrix_copied(Outer(matrix.data() + 18, 3, 6, Eigen::OuterStride<>(-6)), matrix.data() + 18);
    const MatrixHolder<T> product(matrix * by_columns.transpose());
    const Matrix<T> expected = matrix * by_columns.transpose();
    CHECK((product.get().map().array() == expected.array()).all());
}

TEMPLATE_TEST_CASE("matrices without elements", "[types]", float, double, long double) {
    using T = TestType;
    for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 0}, {0, 3}, {3, 0}}) {
        CAPTURE(rows, cols);
        check_matrix(Matrix<T>(rows, cols), nullptr);
        check_matrix(ColMajor<T>(rows, cols), nullptr);
        const Matrix<T> matrix(rows, cols);
        CHECK(MatrixView<T>(matrix).empty());
    }
    CHECK(MatrixView<T>{}.empty());
    CHECK(MatrixView<T>{}.rows() == 0);
    CHECK(MatrixView<T>{}.data() == nullptr);
}

TEST_CASE("a view reads rows of a fused buffer", "[types]") {
    // Two tokens of [q q | k k | v v].
    const std::array<double, 12> fused = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const MatrixView<double> k(fused.data() + 2, 2, 2, 6);
    CHECK(k.row(0)[0] == 3);
    CHECK(k.row(1)[1] == 10);
    CHECK(k.map()(1, 0) == 9);
    CHECK(k.outer_stride() == 6);
}

TEST_CASE("holders and views have the types they should", "[types]") {
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<RowHolder<double>>);
    STATIC_REQUIRE_FALSE(std::is_move_constructible_v<RowHolder<double>>);
    STATIC_REQUIRE_FALSE(std::is_copy_assignable_v<RowHolder<double>>);
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<MatrixHolder<double>>);
    STATIC_REQUIRE(std::is_trivially_copyable_v<MatrixView<double>>);
    STATIC_REQUIRE(std::is_constructible_v<MatrixView<double>, const Matrix<double>&>);
    STATIC_REQUIRE(std::is_constructible_v<MatrixView<double>, Matrix<double>&>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<MatrixView<double>, Matrix<double>&&>);
    // A column-major matrix would have to be converted into a temporary.
    STATIC_REQUIRE_FALSE(std::is_constructible_v<MatrixView<double>, const ColMajor<double>&>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<RowHolder<double>, const Column<float>&>);
    STATIC_REQUIRE_FALSE(attnscope::MatrixExpr<Eigen::MatrixXi>);
    STATIC_REQUIRE_FALSE(attnscope::MatrixExpr<Eigen::MatrixXcd>);
    STATIC_REQUIRE_FALSE(attnscope::MatrixExpr<std::vector<double>>);
    STATIC_REQUIRE_FALSE(attnscope::VectorExpr<Eigen::MatrixXd>);
    STATIC_REQUIRE(attnscope::MatrixExpr<Eigen::MatrixXd>);
}
