// The spectral norm of a matrix without negative entries, certified from above.
#pragma once

#include <attnscope/types.hpp>

#include <cmath>
#include <limits>

namespace attnscope {
inline namespace v0_2 {

/// Upper bound on |M|_2 of a matrix M >= 0 by power steps, each of which certifies one.
/// Formula. |M|_2^2 <= max_j (M^T M w)_j/w_j for any w > 0 (Collatz and Wielandt): at first w = 1, then M^T M w. The
/// least of the steps is given; exact to rounding, rows + columns units, when no step changes it.
/// Special rows. NaN if an entry is NaN; 0 for a matrix without entries.
/// Cost. O(steps rows columns), allocates two vectors. Stops when the steps no longer say more.
template <Real T>
T nonnegative_norm_limit(MatrixView<T> m, int steps = 64) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    if (m.rows() == 0 || m.cols() == 0) return T(0);
    if (m.map().hasNaN()) return std::numeric_limits<T>::quiet_NaN();
    const T largest = m.map().maxCoeff();
    if (largest == T(0) || std::isinf(largest)) return largest;
    Eigen::Matrix<T, Eigen::Dynamic, 1> w = Eigen::Matrix<T, Eigen::Dynamic, 1>::Ones(m.cols()), next(m.cols());
    T limit = infinity;
    for (int step = 0; step < steps; ++step) {
        next.noalias() =
            m.map().transpose() * (m.map() * w / largest).eval(); // of M/largest, which cannot underflow
        next /= largest;
        T most = 0, least = infinity;
        for (Index j = 0; j < w.size(); ++j) {
            const T ratio = next[j] / w[j];
            most = std::max(most, ratio);
            if (next[j] > T(0)) least = std::min(least, ratio);
            // A column of zeros has no part in it.
            if (next[j] >= std::numeric_limits<T>::min()) w[j] = next[j];
        }
        limit = std::min(limit, most);
        if (!(most > least * (1 + 8 * std::numeric_limits<T>::epsilon()))) break;
        w /= w.maxCoeff();
        w = w.cwiseMax(std::numeric_limits<T>::min());
    }
    return largest * std::sqrt(limit);
}

} // namespace v0_2
} // namespace attnscope
