// JSON and whole files, read in one way: what is wrong is an io_error with file, byte and reason.
#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/file.hpp>
#include <attnscope/io/json.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#if ATTNSCOPE_DETAIL_POSIX_FILES
#include <sys/stat.h>
#endif

namespace {

using attnscope::io_error;
using attnscope::io::parse_json;
using attnscope::io::read_file;
using attnscope_test::TemporaryFolder;
using Json = nlohmann::json;

struct Fault {
    std::uint64_t byte;
    std::string reason;
};
std::ostream& operator<<(std::ostream& out, const Fault& fault) {
    return out << fault.byte << ": " << fault.reason;
}

template <class Work>
Fault fault_of(Work&& work) {
    try {
        work();
    } catch (const io_error& error) {
        return {error.offset(), error.what()};
    }
    return {std::numeric_limits<std::uint64_t>::max(), "no error"};
}

void check(const std::string& text, std::uint64_t byte, const std::string& reason) {
    const Fault fault = fault_of([&] { parse_json("name.json", text); });
    INFO(text.substr(0, 100) << " gives " << fault);
    CHECK(fault.byte == byte);
    CHECK(fault.reason.starts_with("name.json: at byte " + std::to_string(byte) + ": "));
    CHECK(fault.reason.find(reason) != std::string::npos);
    CHECK(fault.reason.size() < 400);
    CHECK(fault.reason.find('\n') == std::string::npos);
}

} // namespace

TEST_CASE("JSON values are what nlohmann's own parser makes of them", "[json]") {
    for (const char* text :
         {"null", "true", " false ", "0", "-0", "-7", "18446744073709551615", "-9223372036854775808",
          "18446744073709551616", "1e308", "-1.5e-3", "1e-400", "\"\"", "\"\\u00e4\\n\xc3\xa4\"", "[]", "{}",
          "[1,[2,[3,{\"a\":[]}]],\"x\",null]", R"({"b":1,"a":{"c":[1,2,{"d":null}],"e":{}},"":[{}]})",
          "\xef\xbb\xbf{\"bom\":1}"}) {
        INFO(text);
        const Json value = parse_json("f", text), expected = Json::parse(text);
        CHECK(value == expected);
        CHECK(value.type() == expected.type());
        CHECK(value.dump() == expected.dump());
    }
}

TEST_CASE("faults of JSON are named with their byte", "[json]") {
    check("8888e888888", 0, "number overflow: '8888e888888' is larger than a double holds");
    check(R"({"a": [1, -1e999]})", 10, "number overflow: '-1e999' is larger than a double holds");
    check(R"({"limit": [0.0, Infinity], "b": 1})", 16, "Infinity is no JSON, although Python writes it");
    check(R"({"limit": -Infinity})", 10, "-Infinity is no JSON");
    check(R"([1, NaN])", 4, "NaN is no JSON");
    check(R"([1, NaN)", 4, "NaN is no JSON");
    check("NaN", 0, "NaN is no JSON");
    check(R"(["NaN", nul])", 11, "not valid JSON");
    check("", 0, "unexpected end of input");
    check("{} x", 3, "not valid JSON");
    check("{}\n{}", 3, "not valid JSON");
    check("{\"a\":1,}", 7, "not valid JSON");
    check("[1,\x01", 3, "not valid JSON");
    check("[\"a\x80\"]", 3, "not valid JSON");
    check(std::string("{}\0x", 4), 2, "zero byte");
    check(R"({"a":1,"b":{"a":1},"a":2})", 22, "the key 'a' appears twice");
    check("{\"" + std::string(100000, 'k') + "\":1,\"" + std::string(100000, 'k') + "\":1}", 200008,
          "appears twice");
    check("\"" + std::string(100000, 'k'), 100001, "not valid JSON");
}

TEST_CASE("depth of JSON is limited, not by the stack", "[json]") {
    const std::size_t most = attnscope::io::max_json_depth;
    const auto nested = [](std::size_t levels, const std::string& open, const std::string& close) {
        std::string text;
        for (std::size_t i = 0; i < levels; ++i) text += open;
        text += "1";
        for (std::size_t i = 0; i < levels; ++i) text += close;
        return text;
    };
    CHECK(parse_json("f", nested(most, "[", "]")).is_array());
    CHECK(parse_json("f", nested(most, "{\"a\":", "}")).is_object());
    check(nested(most + 1, "[", "]"), most + 1, "nests more than 64");
    check(nested(most + 1, "{\"a\":", "}"), 5 * most + 1, "nests more than 64");
    check(std::string(200'000, '['), most + 1, "nests more than 64");
    // Brackets inside of text are none.
    CHECK(parse_json("f", "\"" + std::string(1000, '[') + "\"").get<std::string>().size() == 1000);
    // Breadth is not depth.
    CHECK(parse_json("f", "[" + nested(1000, "[],", "") + "]").size() == 1001);
}

TEST_CASE("a whole file is read, and only a file", "[file]") {
    const TemporaryFolder folder;
    std::string content;
    for (int i = 0; i < 300'000; ++i) content += static_cast<char>(i * 7);
    for (const std::size_t size : {0U, 1U, 65535U, 65536U, 65537U, 300'000U})
        CHECK(read_file(folder.write("f", content.substr(0, size))) == content.substr(0, size));

    const std::string path = folder.write("f", content);
    CHECK(read_file(path, 300'000) == content);
    const Fault over = fault_of([&] { read_file(path, 299'999); });
    CHECK(over.byte == 299'999);
    CHECK(over.reason == path + ": at byte 299999: the file is over the limit of 299999 bytes");

    CHECK(fault_of([&] { read_file(folder.path("none")); }).reason.find("cannot be opened: ") !=
          std::string::npos);
    CHECK(fault_of([&] { read_file(folder.path()); }).reason.ends_with("is a directory, not a file"));
    CHECK(fault_of([&] {
              (void)attnscope::io::read_json(folder.write("bad.json", "[1,"));
          }).reason.starts_with(folder.path("bad.json") + ": at byte 3: "));
#if ATTNSCOPE_DETAIL_POSIX_FILES
    REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
    for (const std::string& special : {folder.path("pipe"), std::string("/dev/zero")})
        CHECK(fault_of([&] { read_file(special); }).reason.ends_with("is not a regular file"));
#endif
}

#if ATTNSCOPE_DETAIL_POSIX_FILES
TEST_CASE("a file that becomes shorter while it is open is an error at its new end", "[file]") {
    const TemporaryFolder folder;
    const std::string path = folder.write("f", std::string(10'000, 'x'));
    const auto file = attnscope::io::File::open(path);
    std::vector<std::byte> bytes(5'000);
    file.read(5'000, bytes);
    CHECK(bytes.back() == std::byte{'x'});
    REQUIRE(::truncate(path.c_str(), 6'000) == 0);
    const Fault fault = fault_of([&] { file.read(5'000, bytes); });
    CHECK(fault.byte == 6'000);
    CHECK(fault.reason.find("it was shortened meanwhile") != std::string::npos);
}
#endif
