// The safetensors reader and writer: every rule of the format has a file that breaks it.
#include <attnscope/io/safetensors.hpp>

#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#if __has_include(<sys/resource.h>) && __has_include(<sys/stat.h>)
#include <csignal>
#include <sys/resource.h>
#include <sys/stat.h>
#define ATTNSCOPE_TEST_POSIX 1
#endif

namespace {

using attnscope::invalid_argument;
using attnscope::io_error;
using attnscope::io::Dtype;
using attnscope::io::File;
using attnscope::io::SafetensorsFile;
using attnscope::io::SafetensorsWriter;
using attnscope_test::TemporaryFolder;
using Shape = std::vector<Eigen::Index>;

std::string file_text(const std::string& header, const std::string& data) {
    std::string text;
    for (int i = 0; i < 8; ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xff);
    return text + header + data;
}

SafetensorsFile open_text(const std::string& text) {
    // The vector has exactly the size of the file: a sanitizer sees a read behind it, which a mapping would
    // hide.
    return SafetensorsFile(File::from_bytes("test.safetensors", attnscope_test::to_bytes(text)));
}

/// What the io_error says; empty when there was none. Any other exception passes through and fails the test.
template <class Function>
std::string message_of(Function&& function) {
    try {
        function();
    } catch (const io_error& error) {
        return error.what();
    }
    return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Views show the bytes of the file, which are little-endian.
constexpr bool has_views = std::endian::native == std::endian::little;

bool is_one_printable_line(const std::string& text) {
    for (const char c : text)
        if (c < 0x20 || c > 0x7e) return false;
    return !text.empty();
}

template <class T>
std::string raw(std::initializer_list<T> values) {
    std::string text;
    for (const T& value : values) {
        char bytes[sizeof(T)];
        std::memcpy(bytes, &value, sizeof(T));
        if constexpr (std::endian::native == std::endian::big) std::reverse(bytes, bytes + sizeof(T));
        text.append(bytes, sizeof(T));
    }
    return text;
}

/// Small valid file with a tensor of many kinds, built by hand and not by the writer.
std::string sample_header() {
    return R"({"__metadata__":{"causal":"true","note":"\u00e9"},)"
           R"("f64":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
           R"("u64":{"dtype":"U64","shape":[1],"data_offsets":[8,16]},)"
           R"("f32":{"dtype":"F32","shape":[2,1],"data_offsets":[16,24]},)"
           R"("f16":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},)"
           R"("bf16":{"dtype":"BF16","shape":[2],"data_offsets":[28,32]},)"
           R"("i8":{"dtype":"I8","shape":[2],"data_offsets":[32,34]},)"
           R"("bool":{"dtype":"BOOL","shape":[2],"data_offsets":[34,36]},)"
           R"("f8":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[36,38]},)"
           R"("new":{"dtype":"F3_X","shape":[7],"data_offsets":[38,41]},)"
           R"("scalar":{"shape":[],"data_offsets":[41,43],"dtype":"I16"},)"
           R"("none":{"dtype":"F32","shape":[3,0],"data_offsets":[43,43]}} )";
}
std::string sample_data() {
    return raw<double>({0.1}) + raw<std::uint64_t>({1ull << 63}) + raw<float>({1.5f, -2.0f}) +
           raw<std::uint16_t>({0x3c00, 0x0001}) + raw<std::uint16_t>({0x3f80, 0xff80}) +
           raw<std::int8_t>({-128, 127}) + raw<std::uint8_t>({1, 0}) + raw<std::uint8_t>({1, 2, 3, 4, 5}) +
           raw<std::int16_t>({-300});
}
std::string sample() { return file_text(sample_header(), sample_data()); }

/// Everything a caller can do with an open file. Returns how many of the calls gave an io_error.
int read_everything(const SafetensorsFile& file) {
    int errors = 0;
    const auto attempt = [&errors](auto&& call) {
        const std::string message = message_of(call);
        if (message.empty()) return;
        ++errors;
        if (!is_one_printable_line(message)) throw std::logic_error("message is not one printable line");
    };
    for (const std::string& name : file.names()) {
        attempt([&] { (void)file.read<float>(name); });
        attempt([&] { (void)file.read<double>(name); });
        attempt([&] { (void)file.read_integers(name); });
        attempt([&] {
            float sum = 0;
            for (const float value : file.view<float>(name)) sum += value;
            (void)sum;
        });
        attempt([&] { (void)file.view<std::uint8_t>(name); });
    }
    return errors;
}

} // namespace

TEST_CASE("safetensors: a small file of many dtypes is read", "[io][safetensors]") {
    const SafetensorsFile file = open_text(sample());
    CHECK(file.names() == std::vector<std::string>{"bf16", "bool", "f16", "f32", "f64", "f8", "i8", "new",
                                                   "none", "scalar", "u64"});
    CHECK(file.contains("f32"));
    CHECK_FALSE(file.contains("F32"));
    CHECK_FALSE(file.contains("__metadata__"));
    REQUIRE(file.metadata().size() == 2);
    CHECK(file.metadata().at("causal") == "true");
    CHECK(file.metadata().at("note") == "\xc3\xa9");

    CHECK(file.info("f32").dtype == Dtype::f32);
    CHECK(file.info("f32").dtype_name == "F32");
    CHECK(file.info("f32").shape == Shape{2, 1});
    CHECK(file.info("f32").elements == 2);
    CHECK(file.info("f32").bytes == 8);
    CHECK(file.info("f32").offset == 8 + sample_header().size() + 16);

    CHECK(file.read<double>("f64") == std::vector<double>{0.1});
    CHECK(file.read<float>("f64") == std::vector<float>{0.1f});
    CHECK(file.read<float>("f32") == std::vector<float>{1.5f, -2.0f});
    CHECK(file.read<double>("f32") == std::vector<double>{1.5, -2.0});
    CHECK(file.read<float>("f16") == std::vector<float>{1.0f, 0x1p-24f});
    CHECK(file.read<double>("bf16") == std::vector<double>{1.0, -std::numeric_limits<double>::infinity()});
    CHECK(file.read_integers("i8") == std::vector<std::int64_t>{-128, 127});
    CHECK(file.read_integers("bool") == std::vector<std::int64_t>{1, 0});
    CHECK(file.read_integers("scalar") == std::vector<std::int64_t>{-300});
    CHECK(file.info("scalar").shape.empty());
    CHECK(file.info("scalar").elements == 1);
    CHECK(file.read<float>("none").empty());
    CHECK(file.info("none").shape == Shape{3, 0});
    CHECK(file.view<float>("none").empty());

    SECTION("slices") {
        CHECK(file.read<float>("f32", 1, 1) == std::vector<float>{-2.0f});
        CHECK(file.read<float>("f32", 2, 0).empty());
        CHECK(file.read<float>("none", 0, 0).empty());
        CHECK(file.read_integers("i8", 1, 1) == std::vector<std::int64_t>{127});
        CHECK_THROWS_AS(file.read<float>("f32", 1, 2), invalid_argument);
        CHECK_THROWS_AS(file.read<float>("f32", 3, 0), invalid_argument);
        CHECK_THROWS_AS(file.read<float>("f32", 1, std::numeric_limits<std::uint64_t>::max()),
                        invalid_argument);
        CHECK_THROWS_AS(file.read_integers("i8", 0, 3), invalid_argument);
        std::vector<double> out(1);
        file.read_into<double>("f32", 1, out);
        CHECK(out[0] == -2.0);
        out.resize(3);
        CHECK_THROWS_AS(file.read_into<double>("f32", 0, out), invalid_argument);
    }
    SECTION("what cannot be read says why") {
        CHECK(has(message_of([&] { (void)file.read<float>("absent"); }), "there is no tensor 'absent'"));
        CHECK(has(message_of([&] { (void)file.read<float>("i8"); }),
                  "dtype I8, which cannot be read as floating"));
        CHECK(has(message_of([&] { (void)file.read_integers("f32"); }),
                  "dtype F32, which cannot be read as integers"));
        CHECK(has(message_of([&] { (void)file.read_integers("u64"); }), "9223372036854775808 does not fit"));
        CHECK(has(message_of([&] { (void)file.read<float>("f8"); }), "'f8' has the unsupported dtype F8_E4M3"));
        CHECK(
            has(message_of([&] { (void)file.read_integers("new"); }), "'new' has the unsupported dtype F3_X"));
        CHECK(has(message_of([&] { (void)file.view<std::uint8_t>("f8"); }), "unsupported dtype F8_E4M3"));
        CHECK(has(message_of([&] { (void)file.view<double>("f32"); }),
                  "dtype F32, which cannot be read as the el"));
    }
    SECTION("a bool that is neither 0 nor 1") {
        std::string text = sample();
        text[8 + sample_header().size() + 35] = 2;
        const SafetensorsFile broken = open_text(text);
        try {
            (void)broken.read_integers("bool");
            FAIL("no error");
        } catch (const io_error& error) {
            CHECK(error.offset() == 8 + sample_header().size() + 35);
            CHECK(has(error.what(), "stored as 2, neither 0 nor 1"));
        }
    }
}

TEST_CASE("safetensors: integer dtypes at their limits", "[io][safetensors]") {
    const std::string header = R"({"i16":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},)"
                               R"("u16":{"dtype":"U16","shape":[1],"data_offsets":[4,6]},)"
                               R"("i32":{"dtype":"I32","shape":[2],"data_offsets":[6,14]},)"
                               R"("u32":{"dtype":"U32","shape":[1],"data_offsets":[14,18]},)"
                               R"("i64":{"dtype":"I64","shape":[2],"data_offsets":[18,34]},)"
                               R"("u64":{"dtype":"U64","shape":[1],"data_offsets":[34,42]},)"
                               R"("u8":{"dtype":"U8","shape":[1],"data_offsets":[42,43]}})";
    constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    const std::string data = raw<std::int16_t>({-32768, 32767}) + raw<std::uint16_t>({65535}) +
                             raw<std::int32_t>({-2147483647 - 1, 2147483647}) +
                             raw<std::uint32_t>({4294967295u}) + raw<std::int64_t>({least, most}) +
                             raw<std::uint64_t>({static_cast<std::uint64_t>(most)}) + raw<std::uint8_t>({255});
    const SafetensorsFile file = open_text(file_text(header, data));
    using Values = std::vector<std::int64_t>;
    CHECK(file.read_integers("i16") == Values{-32768, 32767});
    CHECK(file.read_integers("u16") == Values{65535});
    CHECK(file.read_integers("i32") == Values{-2147483648ll, 2147483647});
    CHECK(file.read_integers("u32") == Values{4294967295});
    CHECK(file.read_integers("i64") == Values{least, most});
    CHECK(file.read_integers("u64") == Values{most});
    CHECK(file.read_integers("u8") == Values{255});
}

TEST_CASE("safetensors: views are in place, typed and aligned", "[io][safetensors]") {
    const auto with_padding = [](std::size_t spaces) {
        std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("h":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},)"
                             R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[10,12]},)"
                             R"("u":{"dtype":"U8","shape":[1],"data_offsets":[12,13]}})";
        header.resize((header.size() + 7) / 8 * 8 + spaces, ' ');
        return file_text(header, raw<float>({1, 2}) + raw<std::uint16_t>({0x3c00, 0x4000}) + "\x07");
    };
    SafetensorsFile file = open_text(with_padding(0));
    if constexpr (!has_views) {
        CHECK(has(message_of([&] { (void)file.view<float>("a"); }), "a view needs a little-endian machine"));
        CHECK(file.view<std::uint8_t>("u")[0] == 7);
        return;
    }
    const std::span<const float> view = file.view<float>("a");
    REQUIRE(view.size() == 2);
    CHECK(view[1] == 2.0f);
    CHECK(static_cast<float>(file.view<Eigen::half>("h")[0]) == 1.0f);
    CHECK(static_cast<float>(file.view<Eigen::bfloat16>("b")[0]) == 2.0f);
    CHECK(file.view<std::uint8_t>("u")[0] == 7);

    const SafetensorsFile moved = std::move(file);
    CHECK(moved.view<float>("a").data() == view.data());
    CHECK(view[0] == 1.0f);

    const SafetensorsFile shifted = open_text(with_padding(1));
    CHECK(has(message_of([&] { (void)shifted.view<float>("a"); }), "not aligned to 4 bytes"));
    CHECK(shifted.read<float>("a") == std::vector<float>{1, 2});
    CHECK(shifted.view<std::uint8_t>("u")[0] == 7);
}

TEST_CASE("safetensors: files without tensors", "[io][safetensors]") {
    CHECK(open_text(file_text("{}", "")).names().empty());
    const SafetensorsFile file = open_text(file_text(R"({"__metadata__":{"a":"b"}}    )", ""));
    CHECK(file.names().empty());
    CHECK(file.metadata().size() == 1);
}

TEST_CASE("safetensors: half and bfloat16 are exact for all 65536 patterns", "[io][safetensors]") {
    // Value of a pattern with `fraction_bits`, written down from the definition of the formats.
    const auto expected = [](unsigned pattern, unsigned fraction_bits, int least_exponent) {
        const unsigned exponents = (1u << (15 - fraction_bits)) - 1;
        const unsigned exponent = pattern >> fraction_bits & exponents;
        const unsigned fraction = pattern & ((1u << fraction_bits) - 1);
        double value = exponent == 0 ? std::ldexp(fraction, least_exponent)
                                     : std::ldexp(fraction + (1u << fraction_bits),
                                                  static_cast<int>(exponent) - 1 + least_exponent);
        if (exponent == exponents)
            value = fraction == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
        return std::copysign(value, pattern >> 15 != 0 ? -1.0 : 1.0);
    };
    std::string data;
    for (unsigned pattern = 0; pattern < 65536; ++pattern)
        data += {static_cast<char>(pattern & 0xff), static_cast<char>(pattern >> 8)};
    const auto mismatches = [&](const char* dtype, unsigned fraction_bits, int least_exponent) {
        const SafetensorsFile file = open_text(file_text(std::string(R"({"x":{"dtype":")") + dtype +
                                                             R"(","shape":[65536],"data_offsets":[0,131072]}})",
                                                         data));
        const std::vector<float> as_float = file.read<float>("x");
        const std::vector<double> as_double = file.read<double>("x");
        int wrong = 0;
        for (unsigned pattern = 0; pattern < 65536; ++pattern) {
            const double want = expected(pattern, fraction_bits, least_exponent);
            for (const double got : {static_cast<double>(as_float[pattern]), as_double[pattern]})
                if (std::signbit(got) != std::signbit(want) ||
                    !(got == want || (std::isnan(got) && std::isnan(want))))
                    ++wrong;
        }
        return wrong;
    };
    CHECK(mismatches("F16", 10, -24) == 0);
    CHECK(mismatches("BF16", 7, -133) == 0);
    CHECK(mismatches("BF16", 10, -24) > 60000); // the comparison can fail
}

TEST_CASE("safetensors: every truncation is refused", "[io][safetensors]") {
    const std::string text = sample();
    REQUIRE(message_of([&] { (void)open_text(text); }).empty());
    std::size_t accepted = 0;
    for (std::size_t size = 0; size < text.size(); ++size) {
        const std::string message = message_of([&] { (void)open_text(text.substr(0, size)); });
        if (!is_one_printable_line(message)) ++accepted;
    }
    CHECK(accepted == 0);
    CHECK(has(message_of([&] { (void)open_text(text + '\0'); }), "1 bytes at the end belong to no tensor"));

    // The same through mapped files, at the borders of the parts.
    const TemporaryFolder folder;
    for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{9},
                                   8 + sample_header().size(), text.size() - 1})
        CHECK_THROWS_AS(SafetensorsFile(folder.write("cut.safetensors", text.substr(0, size))), io_error);
    CHECK(SafetensorsFile(folder.write("whole.safetensors", text)).names().size() == 11);
}

TEST_CASE("safetensors: every flipped bit gives a file or an io_error", "[io][safetensors]") {
    const std::string text = sample();
    const std::size_t data_bits = 8 * sample_data().size();
    std::size_t opened = 0, refused = 0;
    for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
        std::string flipped = text;
        flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
        const std::string message = message_of([&] { (void)read_everything(open_text(flipped)); });
        ++(message.empty() ? opened : refused);
        if (!message.empty() && !is_one_printable_line(message)) FAIL("not one printable line: " << message);
    }
    CHECK(opened >= data_bits); // no bit of the data can make the file invalid
    CHECK(refused > 1000);
    CHECK(opened + refused == 8 * text.size());
}

TEST_CASE("safetensors: hostile headers are refused with the reason", "[io][safetensors]") {
    struct Hostile {
        std::string header, data, fragment;
    };
    // One F32 tensor of two elements unless the text says otherwise.
    const auto entry = [](const std::string& name, const std::string& rest) {
        return '"' + name + "\":" + rest;
    };
    const auto one = [&](const std::string& rest) { return '{' + entry("a", rest) + '}'; };
    const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    const std::string eight(8, 'x'), sixteen(16, 'x');
    const std::string deep = std::string(100000, '['), objects = [] {
        std::string text;
        for (int i = 0; i < 50000; ++i) text += R"({"a":)";
        return text;
    }();

    const std::vector<Hostile> table{
        {"", "", "does not start with '{'"},
        {" {}", "", "does not start with '{'"},
        {"[]", "", "does not start with '{'"},
        {"\xef\xbb\xbf{}", "", "does not start with '{'"},
        {"{", "", "not valid JSON"},
        {"{}}", "", "not valid JSON"},
        {"{} x", "", "not valid JSON"},
        {std::string("{}\0\0", 4), "", "zero byte"},
        {std::string("{\"a\0\":1}", 8), "", "zero byte"},
        {"{\"\xff\":1}", "", "not valid JSON"},
        {"{\"\xc0\xaf\":1}", "", "not valid JSON"},
        {R"({"\ud800":1})", "", "not valid JSON"},
        {"{\"a\n\":1}", "", "not valid JSON"},
        {"{'a':1}", "", "not valid JSON"},
        {"{/**/}", "", "not valid JSON"},
        {one(good + ','), eight, "not valid JSON"},
        {"{\"a\":" + deep, "", "'a' must be an object, but holds an array"},
        {objects, "", "has the unknown field 'a'"},
        {R"({"a":{"shape":)" + deep, "", "must hold non-negative integers, but holds an array"},
        {R"({"a":{"shape":{"x":1}}})", "", "shape of tensor 'a' must be an array, but holds an object"},
        {R"({"a":1})", "", "'a' must be an object, but holds a number"},
        {R"({"a":null})", "", "'a' must be an object, but holds null"},
        {R"({"a":"F32"})", "", "'a' must be an object, but holds a string"},
        {R"({"a":true})", "", "'a' must be an object, but holds true or false"},
        {'{' + entry("a", good) + ',' + entry("a", good) + '}', eight, "the name 'a' appears twice"},
        {'{' + entry("a", good) + ',' + entry("\\u0061", good) + '}', eight, "the name 'a' appears twice"},
        {one(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), eight, "field dtype twice"},
        {one(R"({"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]})"), eight, "field shape twice"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]})"), eight,
         "field data_offsets twice"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":[1]})"), eight, "unknown field 'x'"},
        {one(R"({"shape":[2],"data_offsets":[0,8]})"), eight, "tensor 'a' has no field dtype"},
        {one(R"({"dtype":"F32","data_offsets":[0,8]})"), eight, "has no field shape"},
        {one(R"({"dtype":"F32","shape":[2]})"), eight, "has no field data_offsets"},
        {one("{}"), "", "has no field dtype"},
        {one(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})"), eight,
         "dtype of tensor 'a' must be a string"},
        {one(R"({"dtype":["F32"],"shape":[2],"data_offsets":[0,8]})"), eight,
         "must be a string, but holds an array"},
        {one(R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})"), eight, "malformed dtype 'f32'"},
        {one(R"({"dtype":"","shape":[2],"data_offsets":[0,8]})"), eight, "malformed dtype ''"},
        {one(R"({"dtype":"F32\n","shape":[2],"data_offsets":[0,8]})"), eight, "malformed dtype 'F32\\x0a'"},
        {one(R"({"dtype":")" + std::string(1000, 'F') + R"(","shape":[2],"data_offsets":[0,8]})"), eight,
         "malformed dtype 'FFF"},
        {one(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), eight,
         "must be an array, but holds a number"},
        {one(R"({"dtype":"F32","shape":"2","data_offsets":[0,8]})"), eight,
         "must be an array, but holds a string"},
        {one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), eight, "but holds a negative number"},
        {one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), eight, "but holds the number '2.0'"},
        {one(R"({"dtype":"F32","shape":[2e0],"data_offsets":[0,8]})"), eight, "but holds the number '2e0'"},
        {one(R"({"dtype":"F32","shape":[1e999],"data_offsets":[0,8]})"), eight, "number overflow"},
        {one(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), eight, "but holds a string"},
        {one(R"({"dtype":"F32","shape":[true,true],"data_offsets":[0,8]})"), eight, "but holds true or false"},
        {one(R"({"dtype":"F32","shape":[null],"data_offsets":[0,8]})"), eight, "but holds null"},
        {one(R"({"dtype":"F32","shape":[02],"data_offsets":[0,8]})"), eight, "not valid JSON"},
        {one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), eight,
         "need 96 bits, but data_offsets span 8 by"},
        {one(R"({"dtype":"F32","shape":[],"data_offsets":[0,8]})"), eight, "need 32 bits"},
        {one(R"({"dtype":"F64","shape":[2],"data_offsets":[0,8]})"), eight, "need 128 bits"},
        {one(R"({"dtype":"F4","shape":[3],"data_offsets":[0,1]})"), "x", "need 12 bits"},
        {one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"), eight, "is too large"},
        {one(R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]})"), eight,
         "but holds the number"},
        {one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"), eight,
         "product of the shape of tensor 'a' overflows"},
        // 2^62 * 4 + 2 elements: the size in bytes wraps round to 8.
        {one(R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"), eight,
         "size of tensor 'a' overflows"},
        {one(R"({"dtype":"F32","shape":[)" +
             [] {
                 std::string ones = "1";
                 for (int i = 0; i < 64; ++i) ones += ",1";
                 return ones;
             }() +
             R"(],"data_offsets":[0,4]})"),
         "xxxx", "more than 64 dimensions"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), eight, "must be two numbers"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[]})"), eight, "must be two numbers"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), eight, "must be two numbers"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[-1,8]})"), eight,
         "data_offsets of tensor 'a' must hold non"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8.0]})"), eight, "but holds the number '8.0'"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":["0","8"]})"), eight, "but holds a string"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":{"0":8}})"), eight,
         "must be an array, but holds an object"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), eight, "end before they begin"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]})"), eight,
         "end before they begin"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,9]})"), eight,
         "ends at byte 9 of the data, which has onl"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]})"), eight,
         "which has only 8"},
        {one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})"), sixteen, "leaves a hole"},
        {one(good), sixteen, "8 bytes at the end belong to no tensor"},
        {"{}", "x", "1 bytes at the end belong to no tensor"},
        {'{' + entry("a", good) + ',' + entry("b", good) + '}', eight,
         "'b' begins at byte 0 of the data and overlaps"},
        {'{' + entry("a", good) + ',' + entry("b", R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})") +
             '}',
         sixteen.substr(4), "overlaps another tensor, which ends at 8"},
        {'{' + entry("a", good) + ',' + entry("b", R"({"dtype":"F32","shape":[1],"data_offsets":[12,16]})") +
             '}',
         sixteen, "'b' begins at byte 12 of the data and leaves a hole"},
        {'{' + entry("a", good) + ',' + entry("b", R"({"dtype":"F32","shape":[0],"data_offsets":[4,4]})") + '}',
         eight, "overlaps"},
        {R"({"__metadata__":null})", "", "'__metadata__' must be an object"},
        {R"({"__metadata__":{"a":1}})", "", "metadata value of 'a' must be a string, but holds a number"},
        {R"({"__metadata__":{"a":{"b":"c"}}})", "", "must be a string, but holds an object"},
        {R"({"__metadata__":{"a":["c"]}})", "", "must be a string, but holds an array"},
        {R"({"__metadata__":{"a":"b","a":"b"}})", "", "metadata key 'a' appears twice"},
        {R"({"__metadata__":{},"__metadata__":{}})", "", "the name '__metadata__' appears twice"},
        // A name made to forge a second line and to flood the terminal.
        {"{\"\\u001b[2J\\n" + std::string(5000, 'n') + "\":1}", "", "'\\x1b[2J\\x0annn"},
    };
    for (const Hostile& hostile : table) {
        const std::string message =
            message_of([&] { (void)open_text(file_text(hostile.header, hostile.data)); });
        INFO("header: " << hostile.header.substr(0, 200));
        INFO("expected: " << hostile.fragment);
        INFO("message: " << message);
        CHECK(has(message, hostile.fragment));
        CHECK(has(message, "test.safetensors: at byte "));
        CHECK(is_one_printable_line(message));
        CHECK(message.size() < 400);
    }
    CHECK(message_of([&] { (void)open_text(file_text(one(good), eight)); }).empty());
    // An empty tensor may begin where another ends.
    CHECK(message_of([&] {
              (void)open_text(file_text('{' +
                                            entry("b", R"({"dtype":"F32","shape":[0],"data_offsets":[8,8]})") +
                                            ',' + entry("a", good) + '}',
                                        eight));
          }).empty());
}

TEST_CASE("safetensors: a tensor is refused where it stands in the header", "[io][safetensors]") {
    // What follows is no JSON: it is never reached.
    const std::vector<std::pair<std::string, std::string>> table{
        {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "end before they begin"},
        {R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})", "ends at byte 12 of the data"},
        {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "need 96 bits"},
        {R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})", "overflows 64 bits"},
        {R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})", "overflows 64 bits"},
    };
    for (const auto& [entry, fragment] : table) {
        const std::string header = R"({"a":)" + entry;
        try {
            (void)open_text(file_text(header + ", no JSON", "12345678"));
            FAIL("no error");
        } catch (const io_error& error) {
            CHECK(has(error.what(), fragment));
            CHECK(error.offset() == 8 + header.size());
        }
    }
    // Metadata have no data in the file that would bound them.
    std::string many = R"({"__metadata__":{"k":"")";
    for (int i = 0; i < 1'000'000; ++i) many += ",\"" + std::to_string(i) + "\":\"\"";
    CHECK(has(message_of([&] { (void)open_text(file_text(many + "}}", "")); }),
              "the metadata hold more than 1000000 keys"));
}

TEST_CASE("safetensors: hostile header lengths", "[io][safetensors]") {
    const auto with_length = [](std::uint64_t length, const std::string& rest) {
        return message_of([&] { (void)open_text(raw<std::uint64_t>({length}) + rest); });
    };
    CHECK(has(with_length(3, "{}"), "the header length 3 is more than the file holds"));
    CHECK(has(with_length(100'000'000, "{}"), "more than the file holds"));
    CHECK(has(with_length(100'000'001, "{}"), "over the limit of 100 MB"));
    CHECK(has(with_length(std::numeric_limits<std::uint64_t>::max(), "{}"), "over the limit of 100 MB"));
    CHECK(has(with_length(std::numeric_limits<std::uint64_t>::max() - 7, "{}"), "over the limit of 100 MB"));
    CHECK(with_length(2, "{}").empty());
}

TEST_CASE("safetensors: the error carries file, position and reason", "[io][safetensors]") {
    const std::string header = R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}})";
    try {
        (void)open_text(file_text(header, "12345678"));
        FAIL("no error");
    } catch (const io_error& error) {
        CHECK(error.file() == "test.safetensors");
        // The reading stopped at the number.
        CHECK(error.offset() >= 8 + header.find("-1"));
        CHECK(error.offset() <= 8 + header.find("-1") + 3);
    }
}

TEST_CASE("safetensors: what cannot be opened", "[io][safetensors]") {
    const TemporaryFolder folder;
    CHECK(has(message_of([&] { SafetensorsFile file(folder.path("absent")); }), "cannot be opened: "));
    CHECK(has(message_of([&] { SafetensorsFile file(folder.path()); }), "is a directory"));
    CHECK(
        has(message_of([&] { SafetensorsFile file(folder.write("empty", "")); }), "shorter than the 8 bytes"));
    CHECK(has(message_of([&] { SafetensorsFile file(folder.write("text", "This is no safetensors file.\n")); }),
              "over the limit of 100 MB"));
}

#ifdef ATTNSCOPE_TEST_POSIX
TEST_CASE("safetensors: an unreadable file", "[io][safetensors]") {
    const TemporaryFolder folder;
    const std::string hidden = folder.write("hidden", sample());
    REQUIRE(::chmod(hidden.c_str(), 0) == 0);
    if (std::ifstream(hidden).is_open()) ATTNSCOPE_SKIP("this user may read every file");
    CHECK(has(message_of([&] { SafetensorsFile file(hidden); }), "cannot be opened: "));
}

#if ATTNSCOPE_DETAIL_MMAP
TEST_CASE("safetensors: a named pipe is refused without waiting for its writer", "[io][safetensors]") {
    const TemporaryFolder folder;
    REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
    CHECK(has(message_of([&] { SafetensorsFile file(folder.path("pipe")); }), "not a regular file"));
}
#endif
#endif

TEST_CASE("safetensors: what is written is read back", "[io][safetensors]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("round.safetensors");
    const std::vector<float> floats{1.5f, -0.0f, std::numeric_limits<float>::denorm_min(), 3e38f, 5.0f, 6.0f};
    const std::vector<double> doubles{0.1, std::numeric_limits<double>::infinity()};
    const std::vector<std::int64_t> integers{std::numeric_limits<std::int64_t>::min(), 7};

    SafetensorsWriter writer;
    writer.add("a \"float\"\n", floats, {2, 3});
    writer.add("double", doubles, {2, 1, 1});
    writer.add("integer", integers, {2});
    writer.add("scalar", std::vector<float>{4.0f}, {});
    writer.add("empty", std::vector<double>{}, {5, 0});
    writer.set_metadata("causal", "false");
    writer.set_metadata("causal", "true");
    writer.set_metadata("text", "two\nlines \xc3\xa9");
    writer.write(path);
    CHECK(folder.count() == 1);

    const SafetensorsFile file(File::map(path));
    CHECK(file.names() == std::vector<std::string>{"a \"float\"\n", "double", "empty", "integer", "scalar"});
    CHECK(file.metadata().size() == 2);
    CHECK(file.metadata().at("causal") == "true");
    CHECK(file.metadata().at("text") == "two\nlines \xc3\xa9");
    CHECK(file.info("a \"float\"\n").shape == Shape{2, 3});
    CHECK(file.info("double").shape == Shape{2, 1, 1});
    CHECK(file.info("empty").shape == Shape{5, 0});
    CHECK(file.info("scalar").shape.empty());
    const std::vector<float> back = file.read<float>("a \"float\"\n");
    REQUIRE(back.size() == floats.size());
    CHECK(std::memcmp(back.data(), floats.data(), floats.size() * sizeof(float)) == 0);
    CHECK(file.read<double>("double") == doubles);
    CHECK(file.read_integers("integer") == integers);
    CHECK(file.read<double>("scalar") == std::vector<double>{4.0});
    // Everything the writer writes can be viewed in place, and the header is padded to 8 bytes.
    if constexpr (has_views) {
        CHECK(file.view<double>("double")[0] == 0.1);
        CHECK(file.view<float>("scalar")[0] == 4.0f);
        CHECK(file.view<std::int64_t>("integer")[1] == 7);
    }
    CHECK(static_cast<unsigned char>(attnscope_test::read_text(path)[0]) % 8 == 0);

    SECTION("an existing file is replaced") {
        SafetensorsWriter other;
        other.write(path);
        CHECK(folder.count() == 1);
        CHECK(SafetensorsFile(path).names().empty());
        // The old mapping still shows the old file.
        CHECK(file.read_integers("integer") == integers);
    }
    SECTION("every truncation of it is refused") {
        const std::string text = attnscope_test::read_text(path);
        std::size_t accepted = 0;
        for (std::size_t size = 0; size < text.size(); ++size)
            if (message_of([&] { (void)open_text(text.substr(0, size)); }).empty()) ++accepted;
        CHECK(accepted == 0);
    }
}

TEST_CASE("safetensors: the writer refuses what would not be a valid file", "[io][safetensors]") {
    SafetensorsWriter writer;
    const std::vector<float> two{1, 2};
    writer.add("a", two, {2});
    CHECK_THROWS_AS(writer.add("a", two, {2}), invalid_argument);
    CHECK_THROWS_AS(writer.add("b", two, {3}), invalid_argument);
    CHECK_THROWS_AS(writer.add("b", two, {}), invalid_argument);
    CHECK_THROWS_AS(writer.add("b", two, {-1, -2}), invalid_argument);
    CHECK_THROWS_AS(writer.add("b", two, Shape(65, 1)), invalid_argument);
    // 2^63 + 1 ... times 2 wraps round to 2.
    CHECK_THROWS_AS(writer.add("b", two, {2, std::numeric_limits<Eigen::Index>::max() / 2 + 1, 4}),
                    invalid_argument);
    CHECK_THROWS_AS(writer.add("__metadata__", two, {2}), invalid_argument);
    CHECK_THROWS_AS(writer.add("\xff", two, {2}), invalid_argument);
    CHECK_THROWS_AS(writer.set_metadata("\xff", "x"), invalid_argument);
    CHECK_THROWS_AS(writer.set_metadata("x", "\xff"), invalid_argument);
    // None of the refused calls left something behind.
    const TemporaryFolder folder;
    writer.write(folder.path("file"));
    CHECK(SafetensorsFile(folder.path("file")).names() == std::vector<std::string>{"a"});
    CHECK(SafetensorsFile(folder.path("file")).metadata().empty());
}

TEST_CASE("safetensors: a failed write leaves nothing behind", "[io][safetensors]") {
    const TemporaryFolder folder;
    SafetensorsWriter writer;
    writer.add("a", std::vector<float>(100000, 1.0f), {100000});
    CHECK(has(message_of([&] { writer.write(folder.path("no/such/folder")); }), "no file can be created"));
    CHECK(folder.count() == 0);

    std::filesystem::create_directory(folder.path("taken"));
    CHECK(has(message_of([&] { writer.write(folder.path("taken")); }), "cannot be given its name"));
    CHECK(folder.count() == 1);

#ifdef ATTNSCOPE_TEST_POSIX
    const std::string old = folder.write("old", "old content");
    struct ::rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct ::rlimit small = before;
    small.rlim_cur = 50000; // stands for a full disk
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string message = message_of([&] { writer.write(old); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, handler);
    CHECK(has(message, "cannot be written: "));
    CHECK(folder.count() == 2);
    CHECK(attnscope_test::read_text(old) == "old content");
#endif
}

TEST_CASE("safetensors: the real capture of GPT-2's heads", "[io][safetensors][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no john_smith_n9.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const SafetensorsFile file(File::map(path));
    CHECK(file.info("q").shape == Shape{12, 12, 9, 64});
    CHECK(file.info("k").shape == Shape{12, 12, 9, 64});
    CHECK(file.info("v").shape == Shape{12, 12, 9, 64});
    CHECK(file.info("weights").shape == Shape{12, 12, 9, 9});
    CHECK(file.metadata().at("causal") == "true");

    const std::vector<double> weights = file.read<double>("weights");
    REQUIRE(weights.size() == std::size_t{12} * 12 * 9 * 9);
    double worst = 0;
    for (std::size_t row = 0; row < weights.size(); row += 9) {
        double sum = 0;
        for (std::size_t i = 0; i < 9; ++i) sum += weights[row + i];
        worst = std::max(worst, std::abs(sum - 1));
    }
    CHECK(worst < 1e-5);

    // One head alone: layer 7, head 3.
    constexpr std::uint64_t count = std::uint64_t{9} * 64, first = (7 * 12 + 3) * count;
    const std::vector<float> head = file.read<float>("q", first, count);
    const std::vector<float> all = file.read<float>("q");
    REQUIRE(head.size() == count);
    CHECK(std::equal(head.begin(), head.end(), all.begin() + static_cast<std::ptrdiff_t>(first)));
}

#ifdef ATTNSCOPE_TEST_POSIX
TEST_CASE("safetensors: a file that is shortened while it is open is an error", "[io][safetensors]") {
    const TemporaryFolder folder;
    SafetensorsWriter writer;
    writer.add("a", std::vector<float>(100'000, 1.0F), {100'000});
    writer.add("b", std::vector<double>(100'000, 2.0), {100'000});
    writer.write(folder.path("f"));
    const SafetensorsFile file(folder.path("f"));
    CHECK(file.read<float>("b").back() == 2.0F);
    std::filesystem::resize_file(folder.path("f"), 300'000);
    // "b" comes first in the file, so its beginning is still there.
    CHECK(file.read<float>("b", 0, 1000).back() == 2.0F);
    for (const char* name : {"a", "b"}) {
        const std::string message = message_of([&] { (void)file.read<float>(name); });
        CHECK(has(message, "it was shortened meanwhile"));
        CHECK(has(message_of([&] { (void)file.read<double>(name); }), "it was shortened meanwhile"));
    }
    CHECK(has(message_of([&] { (void)file.view<float>("a"); }),
              has_views ? "a view needs a file that is mapped" : "a view needs a little-endian machine"));
}
#endif
