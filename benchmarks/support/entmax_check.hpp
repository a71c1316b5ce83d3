// alpha-entmax in long double, by ways of its own, to verify contenders with.
#pragma once

#include "harness.hpp"

#include <algorithm>
#include <functional>

namespace bench {

using Wide = std::vector<long double>;

inline Wide widened(RowIn<float> z) { return {z.begin(), z.end()}; }

/// max z + theta of alpha-entmax, alpha > 1: from the sorted logits for alpha = 2 (arXiv:1602.02068) and 1.5
/// (arXiv:1905.05702), by bisection else.
inline long double entmax_cut(const Wide& z, long double alpha) {
    const long double a = alpha - 1, top = *std::max_element(z.begin(), z.end());
    Wide y; // a (z - max z) of the keys that may have weight
    for (const long double x : z)
        if (a * (x - top) > -1) y.push_back(a * (x - top));
    std::sort(y.begin(), y.end(), std::greater<>());
    if (alpha == 2 || alpha == 1.5L) {
        long double sum = 0, squares = 0, cut = 0;
        for (std::size_t i = 0; i < y.size(); ++i) {
            sum += y[i];
            squares += y[i] * y[i];
            const long double k = static_cast<long double>(i + 1), mean = sum / k;
            const long double apart = (1 - (squares - k * mean * mean)) / k;
            const long double next = alpha == 2   ? mean - 1 / k
                                     : apart >= 0 ? mean - std::sqrt(apart)
                                                  : std::numeric_limits<long double>::infinity();
            if (next > y[i]) break;
            cut = next;
        }
        return top + cut / a + 1 / a;
    }
    long double low = -1, high = 0;
    for (int i = 0; i < 70; ++i) {
        const long double middle = (low + high) / 2;
        long double sum = 0;
        for (const long double x : y) {
            if (x <= middle) break;
            sum += std::pow(x - middle, 1 / a);
        }
        (sum >= 1 ? low : high) = middle;
    }
    return top + low / a + 1 / a;
}

/// p^{alpha-1}, which moves with the logits at a constant rate (p itself may be steep at the cut), is right to
/// `units` roundings of a float.
inline void verify_entmax(RowIn<float> z, RowIn<float> p, double alpha, long double units,
                          const std::string& who) {
    const long double a = alpha - 1, cut = entmax_cut(widened(z), alpha);
    for (std::size_t i = 0; i < z.size(); ++i) {
        const long double expected = std::max(0.0L, 1 + a * (z[i] - cut));
        verify(p[i] >= 0 && (p[i] == 0 || !std::isinf(z[i])), who, "a weight is negative, or masked and not 0");
        verify_close(std::pow(static_cast<long double>(p[i]), a), expected, 0,
                     units * std::numeric_limits<float>::epsilon() / 2, who, "the power of a weight");
    }
}

} // namespace bench
