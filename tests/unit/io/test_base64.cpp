// Base64 against the vectors of RFC 4648, and every byte.
#include <attnscope/io/base64.hpp>
#include <attnscope/io/gnuplot.hpp>
#include <support/catch.hpp>

#include <limits>

TEST_CASE("base64: the vectors of RFC 4648", "[io]") {
    using attnscope::io::base64;
    CHECK(base64("").empty());
    CHECK(base64("f") == "Zg==");
    CHECK(base64("fo") == "Zm8=");
    CHECK(base64("foo") == "Zm9v");
    CHECK(base64("foob") == "Zm9vYg==");
    CHECK(base64("fooba") == "Zm9vYmE=");
    CHECK(base64("foobar") == "Zm9vYmFy");
    CHECK(base64(std::string("\0\xff\xfe", 3)) == "AP/+");
}

TEST_CASE("words of gnuplot", "[io]") {
    namespace gnuplot = attnscope::io::gnuplot;
    CHECK(gnuplot::quoted("it's") == "'it''s'");
    CHECK(gnuplot::number(1234567) == "1.23457e+06");
    CHECK(gnuplot::number(-0.5) == "-0.5");
    CHECK(gnuplot::number(std::numeric_limits<double>::denorm_min()) == "4.94066e-324");
    CHECK(gnuplot::number(std::numeric_limits<double>::infinity()) == "NaN");
}
