// The second and third test of every theorem.
#pragma once

#include <attnscope/bound.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <string>

namespace attnscope_test {

/// A bound at which the row sits: no slack beyond rounding, and 0.99 of it is too little.
inline void check_attained(const attnscope::Bound<double>& bound) {
    CAPTURE(std::string(bound.id()), bound.value, bound.measured, bound.tolerance);
    CHECK(std::abs(bound.slack()) <= bound.tolerance);
    CHECK(bound.verdict() != attnscope::Verdict::violated);
    CHECK(bound.tightened(0.99).verdict() == attnscope::Verdict::violated);
}

} // namespace attnscope_test
