// The .npy reader and writer: arrays made by NumPy, files written here, and files that break the format.
#include <attnscope/io/npy.hpp>

#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <cmath>
#include <limits>

namespace {

using namespace std::string_literals;
using attnscope::invalid_argument;
using attnscope::io_error;
using attnscope::io::File;
using attnscope::io::NpyArray;
using attnscope::io::read_npy;
using attnscope::io::write_npy;
using attnscope_test::TemporaryFolder;
using Shape = std::vector<Eigen::Index>;

template <class T>
NpyArray<T> read_text(const std::string& text) {
    // The vector has exactly the size of the file: a sanitizer sees a read behind it, which a mapping would
    // hide.
    return read_npy<T>(File::from_bytes("test.npy", attnscope_test::to_bytes(text)));
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

template <class T>
std::string message_of_reading(const std::string& text) {
    return message_of([&] { (void)read_text<T>(text); });
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

bool is_one_printable_line(const std::string& text) {
    for (const char c : text)
        if (c < 0x20 || c > 0x7e) return false;
    return !text.empty();
}

/// The bytes that numpy.lib.format.write_array (NumPy 1.24) wrote: up to the dictionary, the dictionary, the
/// number of spaces before the newline, the data.
std::string made_by_numpy(const std::string& start, const std::string& dictionary, std::size_t spaces,
                          const std::string& data) {
    return start + dictionary + std::string(spaces, ' ') + "\n" + data;
}

/// A file of version 1.0 with any header.
std::string file_text(const std::string& header, const std::string& data) {
    return "\x93NUMPY\x01\x00"s + static_cast<char>(header.size() & 0xff) +
           static_cast<char>(header.size() >> 8) + header + data;
}
std::string file_of(const std::string& descr, const std::string& shape, const std::string& data) {
    return file_text("{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n", data);
}

// np.array([[1.5, -2, 0.25], [3, 4, -0.0]], '<f4') in version 1.0
const std::string version_1 = made_by_numpy(
    "\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 58,
    "\x00\x00\xc0\x3f\x00\x00\x00\xc0\x00\x00\x80\x3e\x00\x00\x40\x40\x00\x00\x80\x40\x00\x00\x00\x80"s);
// the same as '>f8' in version 2.0
const std::string version_2 = made_by_numpy(
    "\x93NUMPY\x02\x00\x74\x00\x00\x00"s, "{'descr': '>f8', 'fortran_order': False, 'shape': (2, 3), }", 56,
    "\x3f\xf8\x00\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x00\x3f\xd0\x00\x00\x00\x00\x00\x00\x40\x08\x00\x00\x00\x00\x00\x00\x40\x10\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"s);
// np.array([1, 0, 1], bool) in version 3.0
const std::string version_3 =
    made_by_numpy("\x93NUMPY\x03\x00\x74\x00\x00\x00"s,
                  "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", 58, "\x01\x00\x01"s);
// np.asfortranarray(np.arange(24).reshape(2, 3, 4).astype('<i2'))
const std::string fortran = made_by_numpy(
    "\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3, 4), }", 56,
    "\x00\x00\x0c\x00\x04\x00\x10\x00\x08\x00\x14\x00\x01\x00\x0d\x00\x05\x00\x11\x00\x09\x00\x15\x00\x02\x00\x0e\x00\x06\x00\x12\x00\x0a\x00\x16\x00\x03\x00\x0f\x00\x07\x00\x13\x00\x0b\x00\x17\x00"s);
// np.asfortranarray(np.arange(6).reshape(2, 3).astype('>f4'))
const std::string fortran_2d = made_by_numpy(
    "\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '>f4', 'fortran_order': True, 'shape': (2, 3), }", 59,
    "\x00\x00\x00\x00\x40\x40\x00\x00\x3f\x80\x00\x00\x40\x80\x00\x00\x40\x00\x00\x00\x40\xa0\x00\x00"s);
// np.array(np.float16(-1.5))
const std::string half_scalar = made_by_numpy(
    "\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '<f2', 'fortran_order': False, 'shape': (), }", 62, "\x00\xbe"s);
// np.array([1, 2.0**-24, np.inf]).astype('>f2')
const std::string big_half =
    made_by_numpy("\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '>f2', 'fortran_order': False, 'shape': (3,), }", 60,
                  "\x3c\x00\x00\x01\x7c\x00"s);
// np.array([2**64 - 1], '<u8')
const std::string unsigned_max =
    made_by_numpy("\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", 60,
                  "\xff\xff\xff\xff\xff\xff\xff\xff"s);
// np.array([-2, 2**24 + 1], '>i4')
const std::string big_integers =
    made_by_numpy("\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '>i4', 'fortran_order': False, 'shape': (2,), }", 60,
                  "\xff\xff\xff\xfe\x01\x00\x00\x01"s);
// np.zeros((3, 0, 2))
const std::string empty_array = made_by_numpy(
    "\x93NUMPY\x01\x00\x76\x00"s, "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 0, 2), }", 55, ""s);

} // namespace

TEST_CASE("npy: arrays made by NumPy are read", "[io][npy]") {
    for (const std::string* text : {&version_1, &version_2}) {
        const auto array = read_text<float>(*text);
        CHECK(array.shape == Shape{2, 3});
        CHECK(array.data == std::vector<float>{1.5f, -2, 0.25f, 3, 4, 0});
        CHECK(std::signbit(array.data[5]));
        CHECK(read_text<double>(*text).data == std::vector<double>{1.5, -2, 0.25, 3, 4, 0});
    }
    CHECK(read_text<std::int64_t>(version_3).data == std::vector<std::int64_t>{1, 0, 1});
    CHECK(read_text<float>(version_3).data == std::vector<float>{1, 0, 1});
    CHECK(read_text<float>(version_3).shape == Shape{3});

    CHECK(read_text<double>(half_scalar).data == std::vector<double>{-1.5});
    CHECK(read_text<double>(half_scalar).shape.empty());
    CHECK(read_text<double>(big_half).data ==
          std::vector<double>{1, 0x1p-24, std::numeric_limits<double>::infinity()});

    CHECK(read_text<float>(empty_array).data.empty());
    CHECK(read_text<float>(empty_array).shape == Shape{3, 0, 2});
}

TEST_CASE("npy: Fortran order comes out row-major", "[io][npy]") {
    const auto array = read_text<std::int64_t>(fortran);
    CHECK(array.shape == Shape{2, 3, 4});
    REQUIRE(array.data.size() == 24);
    for (std::size_t i = 0; i < 24; ++i) CHECK(array.data[i] == static_cast<std::int64_t>(i));

    CHECK(read_text<float>(fortran_2d).data == std::vector<float>{0, 1, 2, 3, 4, 5});

    const auto fortran_of = [](const std::string& shape, const std::string& data) {
        return read_text<std::int64_t>(
            file_text("{'descr': '|u1', 'fortran_order': True, 'shape': " + shape + "}", data));
    };
    using Values = std::vector<std::int64_t>;
    CHECK(fortran_of("(3,)", "\x01\x02\x03").data == Values{1, 2, 3});
    CHECK(fortran_of("()", "\x01").data == Values{1});
    CHECK(fortran_of("(2, 0, 3)", "").data.empty());
    CHECK(fortran_of("(1, 3, 1)", "\x01\x02\x03").data == Values{1, 2, 3});
    CHECK(fortran_of("(2, 1, 2, 1)", "\x01\x02\x03\x04").data == Values{1, 3, 2, 4});
}

TEST_CASE("npy: integers must be exact in the type asked for", "[io][npy]") {
    CHECK(read_text<std::int64_t>(big_integers).data == std::vector<std::int64_t>{-2, 16777217});
    CHECK(read_text<double>(big_integers).data == std::vector<double>{-2, 16777217});
    CHECK(has(message_of_reading<float>(big_integers), "the integer 16777217 does not fit exactly"));
    CHECK(
        has(message_of_reading<double>(unsigned_max), "the integer 18446744073709551615 does not fit exactly"));
    CHECK(has(message_of_reading<std::int64_t>(unsigned_max), "18446744073709551615 does not fit exactly"));
    CHECK(has(message_of_reading<std::int64_t>(version_1), "'<f4' cannot be read as integers"));
    CHECK(has(message_of_reading<float>(file_of("|b1", "(1,)", "\x02")), "stored as 2, neither 0 nor 1"));

    const std::string least = file_of("<i8", "(1,)", "\x00\x00\x00\x00\x00\x00\x00\x80"s);
    CHECK(read_text<std::int64_t>(least).data[0] == std::numeric_limits<std::int64_t>::min());
    CHECK(read_text<float>(least).data[0] == -0x1p63f); // a power of two is exact
    CHECK(read_text<std::int64_t>(file_of("|i1", "(2,)", "\x80\x7f")).data ==
          std::vector<std::int64_t>{-128, 127});
    CHECK(read_text<std::int64_t>(file_of(">u2", "(1,)", "\xff\xfe")).data == std::vector<std::int64_t>{65534});
    CHECK(read_text<std::int64_t>(file_of("<u4", "(1,)", "\xff\xff\xff\xff")).data ==
          std::vector<std::int64_t>{4294967295});
    // The position is that of the element.
    try {
        (void)read_text<float>(big_integers);
        FAIL("no error");
    } catch (const io_error& error) {
        CHECK(error.file() == "test.npy");
        CHECK(error.offset() == big_integers.size() - 4);
    }
}

TEST_CASE("npy: narrowing rounds to nearest", "[io][npy]") {
    // 0.1 and 1e300 as '<f8'
    const std::string text =
        file_of("<f8", "(2,)", "\x9a\x99\x99\x99\x99\x99\xb9\x3f\x9c\x75\x00\x88\x3c\xe4\x37\x7e"s);
    CHECK(read_text<double>(text).data == std::vector<double>{0.1, 1e300});
    CHECK(read_text<float>(text).data == std::vector<float>{0.1f, std::numeric_limits<float>::infinity()});
}

TEST_CASE("npy: spellings of the header that Python reads alike", "[io][npy]") {
    for (const char* header : {
             "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n",
             "{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}",
             "{\"shape\":(2 , ),\"descr\":\"u1\",\"fortran_order\":True}",
             " { 'fortran_order' : False , 'shape' : ( 2 , ) , 'descr' : '=u1' , } \n",
             "{'descr':'<u1','fortran_order':False,'shape':(2,),}",
             "{'descr':'>u1','fortran_order':False,'shape':(2,),}",
         }) {
        INFO(header);
        CHECK(read_text<float>(file_text(header, "\x05\x06")).data == std::vector<float>{5, 6});
    }
    CHECK(read_text<float>(file_of("|u1", "(1, 2)", "\x05\x06")).shape == Shape{1, 2});
    CHECK(read_text<float>(file_of("|u1", "(1, 2,)", "\x05\x06")).shape == Shape{1, 2});
}

TEST_CASE("npy: every truncation is refused, and so are bytes at the end", "[io][npy]") {
    for (const std::string* text : {&version_1, &version_2, &version_3, &half_scalar, &empty_array}) {
        REQUIRE(message_of_reading<float>(*text).empty());
        std::size_t accepted = 0;
        for (std::size_t size = 0; size < text->size(); ++size)
            if (!is_one_printable_line(message_of_reading<float>(text->substr(0, size)))) ++accepted;
        CHECK(accepted == 0);
        CHECK(has(message_of_reading<float>(*text + '\0'), "bytes of data, the file holds"));
    }
    const TemporaryFolder folder;
    for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{8}, std::size_t{9},
                                   std::size_t{40}, std::size_t{128}, version_1.size() - 1})
        CHECK_THROWS_AS(read_npy<float>(folder.write("cut.npy", version_1.substr(0, size))), io_error);
    CHECK(read_npy<float>(folder.write("whole.npy", version_1)).data.size() == 6);
}

TEST_CASE("npy: every flipped bit gives an array or an io_error", "[io][npy]") {
    for (const std::string* text : {&version_1, &version_2, &version_3, &fortran}) {
        std::size_t read = 0, refused = 0;
        for (std::size_t bit = 0; bit < 8 * text->size(); ++bit) {
            std::string flipped = *text;
            flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
            for (const std::string& message :
                 {message_of_reading<double>(flipped), message_of_reading<std::int64_t>(flipped)}) {
                ++(message.empty() ? read : refused);
                if (!message.empty() && !is_one_printable_line(message))
                    FAIL("not one printable line: " << message);
            }
        }
        CHECK(read > 0);
        CHECK(refused > 0);
        CHECK(read + refused == 16 * text->size());
    }
}

TEST_CASE("npy: hostile headers are refused with the reason", "[io][npy]") {
    struct Hostile {
        std::string text, fragment;
    };
    const std::string rest = ", 'fortran_order': False, 'shape': (1,), }";
    const auto header = [](const std::string& text) { return file_text(text, "1234"); };
    const std::vector<Hostile> table{
        {"", "does not start with \\x93NUMPY"},
        {"This is a text file.\n", "does not start with"},
        {"\x93NUMPX\x01\x00"s, "does not start with"},
        {"\x93NUMPY\x00\x00\x02\x00{}"s, "version 0.0 is not supported"},
        {"\x93NUMPY\x04\x00\x02\x00{}"s, "version 4.0 is not supported"},
        {"\x93NUMPY\x01\x01\x02\x00{}"s, "version 1.1 is not supported"},
        {"\x93NUMPY\xff\xff\x02\x00{}"s, "version 255.255 is not supported"},
        {"\x93NUMPY\x01\x00\x02"s, "ends before the header length"},
        {"\x93NUMPY\x02\x00\x02\x00\x00"s, "ends before the header length"},
        {"\x93NUMPY\x01\x00\xff\xff{}"s, "header length 65535 is more than the file holds"},
        {"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"s, "header length 4294967295 is over the limit"},
        {"\x93NUMPY\x03\x00\x00\x00\x10\x00{}"s, "header length 1048576 is more than the file holds"},
        {"\x93NUMPY\x03\x00\x01\x00\x10\x00{}"s, "header length 1048577 is over the limit"},
        {header(""), "must be a Python dictionary"},
        {header("[]"), "must be a Python dictionary"},
        {header("\0{}"s), "must be a Python dictionary"},
        {header("{"), "a key must be a string"},
        {header("{}"), "has no key descr"},
        {header("{,}"), "a key must be a string"},
        {header("{'descr': '<f4', 'fortran_order': False}"), "has no key shape"},
        {header("{'descr': '<f4', 'shape': (1,)}"), "has no key fortran_order"},
        {header("{'fortran_order': False, 'shape': (1,)}"), "has no key descr"},
        {header("{'descr': '<f4', 'descr': '<f4'" + rest), "has the key descr twice"},
        {header("{'shape': (1,), 'descr': '<f4'" + rest), "has the key shape twice"},
        {header("{'x': 1, 'descr': '<f4'" + rest), "unknown key 'x'"},
        {header("{'x\x1b[2J': 1, 'descr': '<f4'" + rest), "unknown key 'x\\x1b[2J'"},
        {header("{'" + std::string(9000, 'k') + "': 1, 'descr': '<f4'" + rest), "unknown key 'kkk"},
        {header("{'descr' '<f4'" + rest), "a key must be followed by ':'"},
        {header("{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}"), "must be separated by ','"},
        {header("{'descr': '<f4'" + rest + " x"), "text behind the dictionary"},
        {header("{'descr': '<f4'" + rest + "\0"s), "text behind the dictionary"},
        {header("{descr: '<f4'" + rest), "a key must be a string"},
        {header("{'descr: 1}"), "a string of the header does not end"},
        {header("{'descr\": 1}"), "a string of the header does not end"},
        {header("{'descr': u'<f4'" + rest), "descr must be a string"},
        {header("{'descr': 4" + rest), "descr must be a string"},
        {header("{'descr': '\\x3cf4'" + rest), "holds a backslash"},
        {header("{'descr': '<f\n4'" + rest), "holds a backslash or a newline"},
        {header("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}"), "must be True or False"},
        {header("{'descr': '<f4', 'fortran_order': 'False', 'shape': (1,)}"), "must be True or False"},
        {header("{'descr': '<f4', 'fortran_order': Falsey, 'shape': (1,)}"), "must be separated by ','"},
        // What NumPy writes for the types that are not read.
        {header("{'descr': '<c16'" + rest), "the dtype '<c16' (complex numbers) is not supported"},
        {header("{'descr': '|O'" + rest), "the dtype '|O' (Python objects) is not supported"},
        {header("{'descr': '|S2'" + rest), "the dtype '|S2' (byte strings) is not supported"},
        {header("{'descr': '<U2'" + rest), "the dtype '<U2' (strings) is not supported"},
        {header("{'descr': '|V2'" + rest), "the dtype '|V2' (raw bytes) is not supported"},
        {header("{'descr': '<M8[D]'" + rest), "the dtype '<M8[D]' (dates) is not supported"},
        {header("{'descr': '<m8[s]'" + rest), "the dtype '<m8[s]' (time differences) is not supported"},
        {header("{'descr': '<f16'" + rest), "'<f16' (floating-point numbers of this size) is not supported"},
        {header("{'descr': [('x', '<i4'), ('y', '<f8')]" + rest), "a structured dtype is not supported"},
        {header("{'descr': ('<f4', (2,))" + rest), "a structured dtype is not supported"},
        {header("{'descr': {'names': ['x']}" + rest), "a structured dtype is not supported"},
        {header("{'descr': ''" + rest), "the dtype '' is not supported"},
        {header("{'descr': '<'" + rest), "the dtype '<' is not supported"},
        {header("{'descr': '<<f4'" + rest), "the dtype '<<f4' is not supported"},
        {header("{'descr': '<f4 '" + rest), "is not supported"},
        {header("{'descr': '<i3'" + rest), "the dtype '<i3' is not supported"},
        {header("{'descr': '<b4'" + rest), "the dtype '<b4' is not supported"},
        {file_of("<f4", "1", "1234"), "shape must be a tuple"},
        {file_of("<f4", "[1]", "1234"), "shape must be a tuple"},
        {file_of("<f4", "(1)", "1234"), "one dimension is written (n,)"},
        {file_of("<f4", "(-1,)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", "(1.0,)", "1234"), "must be separated by ','"},
        {file_of("<f4", "('1',)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", "(True,)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", "(01,)", "1234"), "leading zeros"},
        {file_of("<f4", "(,)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", "(1,,)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", "(1 1)", "1234"), "must be separated by ','"},
        {file_of("<f4", "((1,),)", "1234"), "a dimension must be a non-negative integer"},
        {file_of("<f4", std::string(50000, '('), "1234"), "a dimension must be a non-negative integer"},
        {header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
         "a dimension must be a non-negative integer"},
        {header("{'descr': '<f4', 'fortran_order': False, 'shape': (1"), "must be separated by ','"},
        {file_of("<f4", "(9223372036854775808,)", "1234"), "a dimension is too large"},
        {file_of("<f4", "(" + std::string(1000, '9') + ",)", "1234"), "a dimension is too large"},
        {file_of("<f4", "(4294967296, 4294967296)", "1234"), "product of the shape overflows"},
        // 2^62 + 1 elements of 4 bytes: the size in bytes wraps round to 4.
        {file_of("<f4", "(4611686018427387905,)", "1234"), "size of the data overflows"},
        {file_of(
             "<f4",
             "(" +
                 [] {
                     std::string ones;
                     for (int i = 0; i < 65; ++i) ones += "1,";
                     return ones;
                 }() +
                 ")",
             "1234"),
         "more than 64 dimensions"},
        {file_of("<f4", "(2,)", "1234"), "need 8 bytes of data, the file holds 4"},
        {file_of("<f4", "(1,)", "12345"), "need 4 bytes of data, the file holds 5"},
        {file_of("<f4", "(0,)", "1"), "need 0 bytes of data, the file holds 1"},
        {file_of("<f4", "(4611686018427387903,)", "1234"), "need 18446744073709551612 bytes"},
    };
    for (const Hostile& hostile : table) {
        const std::string message = message_of_reading<float>(hostile.text);
        INFO("file: " << hostile.text.substr(0, 200));
        INFO("expected: " << hostile.fragment);
        INFO("message: " << message);
        CHECK(has(message, hostile.fragment));
        CHECK(has(message, "test.npy: at byte "));
        CHECK(is_one_printable_line(message));
        CHECK(message.size() < 400);
    }
    CHECK(message_of_reading<float>(header("{'descr': '<f4'" + rest)).empty());
}

TEST_CASE("npy: what cannot be opened", "[io][npy]") {
    const TemporaryFolder folder;
    CHECK(has(message_of([&] { (void)read_npy<float>(folder.path("absent")); }), "cannot be opened: "));
    CHECK(has(message_of([&] { (void)read_npy<float>(folder.path()); }), "is a directory"));
    CHECK(has(message_of([&] { (void)read_npy<float>(folder.write("empty", "")); }), "does not start with"));
}

TEST_CASE("npy: what is written is read back", "[io][npy]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("a.npy");
    for (const Shape& shape :
         {Shape{}, Shape{6}, Shape{2, 3}, Shape{1, 2, 3, 1}, Shape{0}, Shape{4, 0}, Shape(64, 1)}) {
        std::size_t count = 1;
        for (const auto dimension : shape) count *= static_cast<std::size_t>(dimension);
        std::vector<float> floats(count);
        std::vector<double> doubles(count);
        std::vector<std::int64_t> integers(count);
        for (std::size_t i = 0; i < count; ++i) {
            floats[i] = 1.0f / (static_cast<float>(i) + 3.0f);
            doubles[i] = -1.0 / (static_cast<double>(i) + 3.0);
            integers[i] = std::numeric_limits<std::int64_t>::max() - static_cast<std::int64_t>(i);
        }
        const auto check_text = [&](std::size_t item) {
            const std::string text = attnscope_test::read_text(path);
            CHECK((text.size() - count * item) % 64 == 0);
            CHECK(text[text.size() - count * item - 1] == '\n');
        };
        write_npy(path, floats, shape);
        check_text(4);
        CHECK(read_npy<float>(path).data == floats);
        CHECK(read_npy<float>(path).shape == shape);
        write_npy(path, doubles, shape);
        check_text(8);
        CHECK(read_npy<double>(path).data == doubles);
        CHECK(read_npy<double>(path).shape == shape);
        write_npy(path, integers, shape);
        check_text(8);
        CHECK(read_npy<std::int64_t>(path).data == integers);
        CHECK(read_npy<std::int64_t>(path).shape == shape);
        CHECK(folder.count() == 1);
    }
    // Byte for byte what NumPy writes.
    write_npy(path, std::vector<float>{1.5f, -2, 0.25f, 3, 4, -0.0f}, Shape{2, 3});
    CHECK(attnscope_test::read_text(path) == version_1);
}

TEST_CASE("npy: a write that cannot succeed is refused and leaves nothing behind", "[io][npy]") {
    const TemporaryFolder folder;
    const std::vector<float> two{1, 2};
    CHECK_THROWS_AS(write_npy(folder.path("a"), two, Shape{3}), invalid_argument);
    CHECK_THROWS_AS(write_npy(folder.path("a"), two, Shape{}), invalid_argument);
    CHECK_THROWS_AS(write_npy(folder.path("a"), two, Shape{-1, -2}), invalid_argument);
    CHECK_THROWS_AS(write_npy(folder.path("a"), two, Shape(65, 1)), invalid_argument);
    CHECK(has(message_of([&] { write_npy(folder.path("no/such/folder"), two, Shape{2}); }),
              "no file can be created"));
    CHECK(folder.count() == 0);
    std::filesystem::create_directory(folder.path("taken"));
    CHECK(has(message_of([&] { write_npy(folder.path("taken"), two, Shape{2}); }), "cannot be given its name"));
    CHECK(folder.count() == 1);
}
