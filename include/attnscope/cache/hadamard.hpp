// The randomised Hadamard rotation: it spreads a channel that stands out over all others before they are stored in few
// bits, and leaves every q.k as it was.
#pragma once

#include <attnscope/attention/stored_rows.hpp>
#include <attnscope/random.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Channels that the rotation of rows of a width mixes with each other: the largest power of two that divides it.
/// Special rows. 0 for a width of 0; an odd width has blocks of 1, whose signs change and nothing else.
/// Cost. O(1).
constexpr Index hadamard_block(Index width) { return width & -width; }

namespace detail {

/// Multiplies every block of a row by the Hadamard matrix of its size over the root of that.
template <Real T>
void hadamard(T* row, Index width) {
    const Index block = hadamard_block(width);
    if (block <= 1) return;
    const T unit = 1 / std::sqrt(static_cast<T>(block));
    for (Index first = 0; first < width; first += block) {
        T* const x = row + first;
        for (Index half = 1; half < block; half *= 2)
            for (Index i = 0; i < block; i += 2 * half)
                for (Index j = i; j < i + half; ++j) {
                    const T a = x[j], b = x[j + half];
                    x[j] = a + b;
                    x[j + half] = a - b;
                }
        for (Index i = 0; i < block; ++i) x[i] *= unit;
    }
}

/// 1 or -1 for every channel, the diagonal of D.
template <Real T>
Row<T> hadamard_signs(Index width, std::uint64_t seed) {
    if (seed == 0) return Row<T>::Ones(width);
    SplitMix64 random(seed);
    Row<T> signs(width);
    for (Index i = 0; i < width; ++i) signs[i] = (random() >> 63) != 0 ? T(-1) : T(1);
    return signs;
}

} // namespace detail

/// Every row of x rotated.
/// Formula. R x = H D x, D a diagonal of signs drawn from the seed (0: all of them +), H the Hadamard matrix over the
/// root of its size.
/// R is orthogonal: (R q).(R k) = q.k, and |R x| = |x|. A width of 2^k m, m odd, has m blocks of 2^k on the diagonal
/// of H. Queries and keys of a head need the same seed. The error is (k + 3) u |x| at most, in the length of a row.
/// Shapes and units. x [rows, width], and the result.
/// Special rows. NaN and infinities spread over their block; widths as of `hadamard_block`.
/// Cost. O(rows width log block), allocates the result.
/// Source. Sylvester 1867; rotations of caches: QuaRot, arXiv:2404.00456.
template <Real T>
Matrix<T> hadamard_rotate(MatrixView<T> x, std::uint64_t seed) {
    Matrix<T> rotated = x.map() * detail::hadamard_signs<T>(x.cols(), seed).matrix().asDiagonal();
    for (Index i = 0; i < rotated.rows(); ++i) detail::hadamard(rotated.row(i).data(), rotated.cols());
    return rotated;
}

/// The inverse of `hadamard_rotate` of the same seed, its transpose.
/// Formula. D H x.
/// Shapes and units. x [rows, width], and the result.
/// Cost. As of `hadamard_rotate`.
template <Real T>
Matrix<T> hadamard_rotate_back(MatrixView<T> x, std::uint64_t seed) {
    Matrix<T> result = x.map();
    for (Index i = 0; i < result.rows(); ++i) detail::hadamard(result.row(i).data(), result.cols());
    result *= detail::hadamard_signs<T>(x.cols(), seed).matrix().asDiagonal();
    return result;
}

/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> hadamard_rotate(const X& x, std::uint64_t seed) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return hadamard_rotate(rows.get(), seed);
}
/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> hadamard_rotate_back(const X& x, std::uint64_t seed) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return hadamard_rotate_back(rows.get(), seed);
}

} // namespace v0_2
} // namespace attnscope
