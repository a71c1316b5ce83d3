// Scalars, rows and matrices, and the holders through which any Eigen expression enters the library.
#pragma once

#include <attnscope/errors.hpp>

#include <cstddef>
#include <iterator>
#include <span>
#include <type_traits>

namespace attnscope {
inline namespace v0_2 {

using Index = Eigen::Index;

/// The scalars that the kernels compute in.
template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, long double>;

/// Scalar in which sums over rows of T are added up.
template <Real T>
using Accumulator = std::conditional_t<std::same_as<T, float>, double, T>;

/// What the formulas take for a number: a real one, or an integer, as the literal 1 is, which counts as double.
template <class X>
concept Number = Real<X> || (std::integral<X> && !std::same_as<X, bool>);

/// The scalar in which a formula of such arguments is computed, as in <cmath>: float only if all are floats.
template <Number... X>
using Promoted = std::common_type_t<std::conditional_t<std::integral<X>, double, X>...>;

/// Owning row of numbers.
template <class T>
using Row = Eigen::Array<T, 1, Eigen::Dynamic>;

/// Owning row-major matrix: one query or one token a row.
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The boundary of every kernel: contiguous, borrowed, instantiated once per scalar.
template <Real T>
using RowIn = std::span<const T>;
template <Real T>
using RowOut = std::span<T>;

namespace detail {

template <class S>
struct Widened;
template <Real S>
struct Widened<S> {
    using type = S;
};
template <>
struct Widened<Eigen::half> {
    using type = float;
};
template <>
struct Widened<Eigen::bfloat16> {
    using type = float;
};

/// Only declared: accepts what is a dense Eigen expression or derives from one, as `z.head(n)` from a block.
template <class D>
void dense(const Eigen::DenseBase<D>&);

template <Real T>
Index size(std::span<const T> row) {
    return static_cast<Index>(row.size());
}

/// row[i] of a container that counts without sign.
template <class R>
constexpr decltype(auto) at(R&& row, Index i) {
    return row[static_cast<std::size_t>(i)];
}

template <Real T, class... Rows>
void require_same_size(std::string_view function, std::span<const T> first, const Rows&... others) {
    (require(others.size() == first.size(), function, "rows must have the same length", first.size(),
             others.size()),
     ...);
}

} // namespace detail

/// Scalars accepted at the front doors: the real ones, and half and bfloat16, which are widened to float.
template <class S>
concept InputScalar = requires { typename detail::Widened<std::remove_const_t<S>>::type; };

/// The scalar in which input of scalar `S` is computed.
template <InputScalar S>
using ComputeScalar = typename detail::Widened<std::remove_const_t<S>>::type;

/// Any Eigen expression of an accepted scalar.
template <class E>
concept MatrixExpr = InputScalar<typename E::Scalar> && requires(const E& e) { detail::dense(e); };

/// Any Eigen expression that is a vector at compile time: a vector, a row of a matrix, `-2 * a + b`, an array.
template <class E>
concept VectorExpr = MatrixExpr<E> && bool(E::IsVectorAtCompileTime);

/// The scalar in which an expression is computed.
template <MatrixExpr E>
using ScalarOf = ComputeScalar<typename E::Scalar>;

/// Numbers of an accepted scalar side by side: a `std::vector`, `std::array`, `std::span`, C array.
template <class R>
concept RowContainer = !MatrixExpr<R> && requires(const R& row) {
    requires InputScalar<std::remove_cvref_t<decltype(*std::data(row))>>;
    { std::size(row) } -> std::convertible_to<std::size_t>;
};

/// What the front doors take for a row: any Eigen vector expression, or a container of numbers.
template <class R>
concept RowLike = VectorExpr<R> || RowContainer<R>;

namespace detail {

template <class R>
struct RowTraits { // of a container
    using Scalar = ComputeScalar<std::remove_cvref_t<decltype(*std::data(std::declval<const R&>()))>>;
    using Result = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;
};
template <VectorExpr E>
struct RowTraits<E> {
    using Scalar = ScalarOf<E>;
    using Result =
        typename std::remove_cvref_t<decltype(std::declval<const E&>().template cast<Scalar>())>::PlainObject;
};

} // namespace detail

/// The scalar in which a row is computed.
template <RowLike R>
using RowScalar = typename detail::RowTraits<R>::Scalar;

/// What a front door returns for a row: a vector of the kind of the argument (column or row, Matrix or Array), so
/// that `z - p`, `p.dot(z)` and `p.transpose() * v` are Eigen's; for a container a column vector.
template <RowLike R>
using RowResult = typename detail::RowTraits<R>::Result;

namespace detail {

/// A matrix or an array that owns its elements: when a temporary one ends, views of it dangle.
template <class E>
concept OwningExpr = MatrixExpr<std::remove_cvref_t<E>> &&
                     std::derived_from<std::remove_cvref_t<E>, Eigen::PlainObjectBase<std::remove_cvref_t<E>>>;

/// The same of rows; a container owns unless it is a view, as a span is.
template <class R>
concept OwningRow = OwningExpr<R> || (RowContainer<std::remove_cvref_t<R>> &&
                                      !std::ranges::enable_borrowed_range<std::remove_cvref_t<R>>);

/// Elements of T that stand in memory: `z(Eigen::seq(0, 7, 2))` has the strides of such, and no address.
template <class E, class T>
concept StoredExpr = std::same_as<typename E::Scalar, T> &&
                     (int(E::Flags) & int(Eigen::DirectAccessBit)) != 0 && requires(const E& e) {
                         { e.data() } -> std::convertible_to<const T*>;
                     };

} // namespace detail

/// Makes a row contiguous for the length of one call: a view where it already is, else a copy
/// (widened from half and bfloat16). Neither copied nor stored, so that it cannot outlive what it looks at.
template <Real T>
class RowHolder {
public:
    template <VectorExpr E>
    requires std::same_as<ScalarOf<E>, T>
    explicit RowHolder(const E& expression) {
        if constexpr (detail::StoredExpr<E, T>) {
            if (expression.innerStride() == 1 || expression.size() <= 1) {
                row_ = {expression.data(), static_cast<std::size_t>(expression.size())};
                return;
            }
        }
        storage_.resize(1, expression.size());
        if constexpr (int(E::RowsAtCompileTime) == 1)
            storage_ = expression.derived().template cast<T>();
        else
            Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>(storage_.data(), storage_.size()) =
                expression.derived().template cast<T>().array();
        row_ = {storage_.data(), static_cast<std::size_t>(storage_.size())};
    }
    template <RowContainer R>
    requires std::same_as<RowScalar<R>, T>
    explicit RowHolder(const R& row) {
        if constexpr (std::convertible_to<decltype(std::data(row)), const T*>) {
            row_ = {std::data(row), std::size(row)};
        } else {
            storage_.resize(1, static_cast<Index>(std::size(row)));
            for (std::size_t i = 0; i < std::size(row); ++i)
                storage_[static_cast<Index>(i)] = static_cast<T>(std::data(row)[i]);
            row_ = {storage_.data(), std::size(row)};
        }
    }
    /// A temporary ends before its holder does: keep it in a variable.
    template <class E>
    requires(detail::OwningRow<E> && !std::is_lvalue_reference_v<E>)
    explicit RowHolder(E&&) = delete;
    RowHolder(const RowHolder&) = delete;
    RowHolder& operator=(const RowHolder&) = delete;

    RowIn<T> get() const& { return row_; }
    Index size() const { return static_cast<Index>(row_.size()); }
    RowIn<T> get() const&& = delete; ///< of a temporary holder: keep it in a variable

private:
    Row<T> storage_;
    RowIn<T> row_;
};

/// Borrowed row-major matrix whose rows may lie further apart than they are long: a head inside a fused q, k, v
/// buffer is a view, not a copy. Whoever makes one keeps the memory alive.
template <Real T>
class MatrixView {
public:
    using Map = Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>;

    MatrixView() = default;
    /// `outer_stride`: elements from the start of one row to the next, at least `cols`.
    MatrixView(const T* data, Index rows, Index cols, Index outer_stride)
        : data_(data), rows_(rows), cols_(cols), outer_stride_(outer_stride) {
        detail::require(rows >= 0 && cols >= 0, "MatrixView", "rows and cols must be >= 0", rows, cols);
        detail::require(outer_stride >= cols || rows <= 1, "MatrixView", "outer stride must be >= cols",
                        outer_stride, cols);
    }
    MatrixView(const T* data, Index rows, Index cols) : MatrixView(data, rows, cols, cols) {}
    /// A row-major matrix that owns its elements; temporaries are refused. Others enter by a `MatrixHolder`.
    MatrixView(const Matrix<T>& matrix) : MatrixView(matrix.data(), matrix.rows(), matrix.cols()) {}
    MatrixView(const Matrix<T>&&) = delete;

    const T* data() const { return data_; }
    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    Index outer_stride() const { return outer_stride_; }
    bool empty() const { return rows_ == 0 || cols_ == 0; }

    RowIn<T> row(Index i) const { return {data_ + i * outer_stride_, static_cast<std::size_t>(cols_)}; }
    Map map() const { return Map(data_, rows_, cols_, Eigen::OuterStride<>(outer_stride_)); }

private:
    const T* data_ = nullptr;
    Index rows_ = 0;
    Index cols_ = 0;
    Index outer_stride_ = 0;
};

namespace detail {

/// The elements of an expression in T, row-major.
template <Real T, MatrixExpr E>
Matrix<T> row_major_copy(const E& expression) {
    Matrix<T> copy(expression.rows(), expression.cols());
    copy.array() = expression.derived().template cast<T>().array();
    return copy;
}

} // namespace detail

/// What a `MatrixHolder` of T takes: an expression that is computed in T, or a view.
template <class M, class T>
concept MatrixLike = std::same_as<M, MatrixView<T>> || (MatrixExpr<M> && std::same_as<ScalarOf<M>, T>);

/// As `RowHolder`, for matrices: a view of row-major expressions with unit inner stride, else a row-major copy.
template <Real T>
class MatrixHolder {
public:
    template <MatrixExpr E>
    requires std::same_as<ScalarOf<E>, T>
    explicit MatrixHolder(const E& expression) {
        if constexpr (detail::StoredExpr<E, T> && bool(E::IsRowMajor)) {
            // Repeated rows (stride 0) and rows from last to first are not what a view can say.
            const bool ascending = expression.rows() <= 1 || expression.outerStride() >= expression.cols();
            if (expression.innerStride() == 1 && ascending) {
                view_ = MatrixView<T>(expression.data(), expression.rows(), expression.cols(),
                                      expression.rows() > 1 ? expression.outerStride() : expression.cols());
                return;
            }
        }
        storage_ = detail::row_major_copy<T>(expression);
        view_ = MatrixView<T>(storage_);
    }
    explicit MatrixHolder(MatrixView<T> view) : view_(view) {}
    /// A temporary ends before its holder does: keep it in a variable.
    template <class E>
    requires(detail::OwningExpr<E> && !std::is_lvalue_reference_v<E>)
    explicit MatrixHolder(E&&) = delete;
    MatrixHolder(const MatrixHolder&) = delete;
    MatrixHolder& operator=(const MatrixHolder&) = delete;

    MatrixView<T> get() const& { return view_; }
    MatrixView<T> get() const&& = delete; ///< of a temporary holder: keep it in a variable

private:
    Matrix<T> storage_;
    MatrixView<T> view_;
};

} // namespace v0_2
} // namespace attnscope
