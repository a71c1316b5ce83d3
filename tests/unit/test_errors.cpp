// What the two exceptions say.
#include <attnscope/errors.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <support/catch.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>

TEST_CASE("values are printed so that they read back as themselves", "[errors]") {
    using attnscope::to_text;
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
    CHECK_THROWS_AS(throw attnscope::invalid_argument("f: rule"), std::invalid_argument);
    CHECK_THROWS_AS(attnscope::Softmax(-1), std::invalid_argument);
    CHECK_THROWS_AS(throw attnscope::io_error("f", 0, "r"), std::runtime_error);
}
