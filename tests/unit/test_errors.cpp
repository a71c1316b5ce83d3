// What the two exceptions say.
#include <attnscope/errors.hpp>
#include <support/catch.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>

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

TEST_CASE("values are printed so that they read back as themselves", "[errors]") {
    using attnscope::detail::to_text;
    CHECK(std::stod(to_text(0.1 + 0.2)) == 0.1 + 0.2);
    CHECK(std::stold(to_text(1.0L / 3.0L)) == 1.0L / 3.0L);
    CHECK(to_text(std::uint64_t{18446744073709551615u}) == "18446744073709551615");
}

TEST_CASE("an io_error holds file, offset and reason", "[errors]") {
    const attnscope::io_error error("heads.safetensors", 8, "header is not JSON");
    CHECK(std::string(error.what()) == "heads.safetensors: at byte 8: header is not JSON");
    CHECK(error.file() == "heads.safetensors");
    CHECK(error.offset() == 8);
}

TEST_CASE("both exceptions can be caught as what they are", "[errors]") {
    CHECK_THROWS_AS(attnscope::detail::fail("f", "rule"), std::invalid_argument);
    CHECK_THROWS_AS(throw attnscope::io_error("f", 0, "r"), std::runtime_error);
}
