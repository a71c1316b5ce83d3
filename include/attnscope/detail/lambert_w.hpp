// The main branch of Lambert's function for arguments >= 0.
#pragma once

#include <attnscope/types.hpp>

#include <cmath>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// The w >= 0 with w e^w = x, x >= 0; infinite for infinite x. Error: a few units of w. O(1).
/// Source: Iacono and Boyd, New approximations to the principal real-valued branch of the Lambert W-function, 2017.
template <Real T>
T lambert_w0(T x) {
    if (!(x > T(0)) || std::isinf(x)) return x;
    // From here a step squares the relative error.
    const T start = std::log1p(x);
    T w = start * (1 - std::log1p(start) / (2 + start));
    for (int step = 0; step < 6; ++step) {
        const T next = w / (1 + w) * (1 + std::log(x / w));
        if (std::abs(next - w) <= std::numeric_limits<T>::epsilon() * w) return next;
        w = next;
    }
    return w;
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
