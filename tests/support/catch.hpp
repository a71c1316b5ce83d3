// Catch2 2.x (Debian 12) and 3.x under the names of 3.x.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>

namespace Catch {
using Detail::Approx;
namespace Matchers {
inline auto ContainsSubstring(const std::string& text) { return Contains(text); }
} // namespace Matchers
} // namespace Catch

// Catch2 2.x exports this name, 3.x does not: with both, tests have to say Catch::Approx.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
void Approx(double) = delete;
#pragma GCC diagnostic pop
#endif

#include <iostream>

/// Ends a test case that cannot run here (real data absent, say); CTest lists it by name as skipped.
#define ATTNSCOPE_SKIP(reason)                                                                                 \
    do {                                                                                                       \
        std::cout << "attnscope test skipped: " << (reason) << '\n';                                           \
        SUCCEED("skipped");                                                                                    \
        return;                                                                                                \
    } while (false)
