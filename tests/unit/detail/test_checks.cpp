// How a broken precondition is told.
#include <attnscope/errors.hpp>
#include <support/catch.hpp>

#include <stdexcept>
#include <string>
#include <string_view>

namespace {

std::string message_of(auto&& action) {
    try {
        action();
    } catch (const attnscope::invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

} // namespace

TEST_CASE("a broken precondition names function, rule and values", "[errors]") {
    using attnscope::detail::fail;
    CHECK(message_of([] { fail("softmax", "temperature must be positive", -0.5); }) ==
          "softmax: temperature must be positive, got -0.5");
    CHECK(message_of([] { fail("apply", "lengths must agree", 3, 4); }) ==
          "apply: lengths must agree, got 3 and 4");
    CHECK(message_of([] { fail("report", "no such normaliser", "sofmax"); }) ==
          "report: no such normaliser, got sofmax");
    CHECK(message_of([] { fail("entropy", "the row must not be empty"); }) ==
          "entropy: the row must not be empty");
}

TEST_CASE("require throws only when its condition is false", "[errors]") {
    using attnscope::detail::require;
    CHECK_NOTHROW(require(true, "f", "rule", 1));
    CHECK(message_of([] { require(false, "f", "rule", 0.1f); }) == "f: rule, got 0.1");
}

TEST_CASE("what fails is an exception of the library, and its message one line of UTF-8", "[errors]") {
    using attnscope::detail::fail;
    CHECK_THROWS_AS(fail("f", "rule"), std::invalid_argument);
    CHECK(message_of([] { fail("f", "rule", std::string_view("a\0b", 3)); }) == "f: rule, got a\\x00b");
}
