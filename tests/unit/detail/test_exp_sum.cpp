// The exponentials of a row of softmax, as row/softmax_row.hpp adds them up.
#include <attnscope/row/softmax_row.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

using attnscope::RowIn;
using attnscope::detail::exp_cutoff;
using attnscope::detail::exp_sum;

/// Lengths on both sides of every packet size.
constexpr std::size_t longest = 40;

} // namespace

TEMPLATE_TEST_CASE("a key's exponential does not depend on where it stands", "[exp]", float, double,
                   long double) {
    using T = TestType;
    // One key differs from its equal neighbours: moving it along the row moves its weight, bit for bit.
    for (const T x : {T(0.7), T(-3.3), T(-50), T(-87)})
        for (std::size_t n = 2; n <= longest; ++n) {
            std::vector<T> first;
            for (std::size_t at = 0; at < n; ++at) {
                std::vector<T> z(n, T(0)), e(n);
                z[at] = x;
                exp_sum<true, T>(RowIn<T>(z), std::max(x, T(0)), T(1), e.data());
                std::vector<T> rotated(n);
                std::rotate_copy(e.begin(), e.begin() + static_cast<std::ptrdiff_t>(at), e.end(),
                                 rotated.begin());
                if (at == 0) first = rotated;
                CAPTURE(x, n, at);
                REQUIRE(rotated == first);
            }
        }
}

TEMPLATE_TEST_CASE("exponentials are 0 or normal numbers on both sides of the cutoff", "[exp]", float, double,
                   long double) {
    using T = TestType;
    for (std::size_t n = 2; n <= longest; ++n) {
        std::vector<T> ladder(n), e(n);
        for (std::size_t i = 0; i < n; ++i)
            ladder[i] = exp_cutoff<T>() + (static_cast<T>(i) - static_cast<T>(n) / 2) * T(0.0625);
        ladder[0] = T(0);
        exp_sum<true, T>(RowIn<T>(ladder), T(0), T(1), e.data());
        for (const T x : e) REQUIRE((x == T(0) || std::isnormal(x)));
    }
}
