// The checksum of zip archives.
#include <support/catch.hpp>

#include <attnscope/io/npz.hpp>

#include <span>
#include <string>

TEST_CASE("the check value of CRC-32, whole and in pieces", "[io][npz]") {
    using attnscope::io::detail::crc32;
    const std::string digits = "123456789";
    const auto bytes = std::as_bytes(std::span(digits));
    CHECK(crc32(0, bytes) == 0xCBF43926u);
    CHECK(crc32(crc32(0, bytes.first(4)), bytes.subspan(4)) == 0xCBF43926u);
    CHECK(crc32(0, {}) == 0);
}
