// Softmax in long double, to verify contenders with.
#pragma once

#include "harness.hpp"

namespace bench {

/// Elements that one timed call works through: input and output stay in the second-level cache.
constexpr Index elements = 65536;

/// p = softmax of each row of z to a relative error of `units` + 3 |z_i - max z| + 6 units of T's roundoff (a
/// contender that adds up in order needs as many as the row is long). Masked keys: exactly 0, or at most the
/// smallest normal number.
template <Real T>
void verify_softmax(const Matrix<T>& z, const Matrix<T>& p, bool exact_zeros, T units, const std::string& who) {
    constexpr long double u = std::numeric_limits<T>::epsilon() / 2;
    for (Index i = 0; i < z.rows(); ++i) {
        const long double m = z.row(i).maxCoeff();
        long double sum = 0;
        for (Index j = 0; j < z.cols(); ++j) sum += std::exp(static_cast<long double>(z(i, j)) - m);
        for (Index j = 0; j < z.cols(); ++j) {
            const long double distance = m - z(i, j);
            if (std::isinf(distance)) {
                const T largest = exact_zeros ? T(0) : std::numeric_limits<T>::min();
                verify(p(i, j) >= T(0) && p(i, j) <= largest, who, "a masked key has weight");
            } else {
                verify_close(p(i, j), std::exp(-distance) / sum, u * (units + 3 * distance + 6),
                             std::numeric_limits<T>::min(), who, "a weight");
            }
        }
    }
}

} // namespace bench
