// The formats of caches: ggml's bit for bit, the others against what defines them, and limits on what they lose.
#include <attnscope/cache/format_name.hpp>
#include <support/scalars.hpp>

#include <Eigen/Core>

#include <bit>
#include <cstring>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

// ---- ggml 0.27: blocks of `ggml_quantize_chunk(type, x, block, 0, 1, 32, nullptr)`, and hashes over what
// `ggml_get_type_traits(type)->to_float` reads from blocks of 4096 rows of `hashed_row`, from a program linked to
// libggml-base.

constexpr std::array<CacheNumber, 5> ggml_numbers = {CacheNumber::q8_0, CacheNumber::q4_0, CacheNumber::q4_1,
                                                     CacheNumber::q5_0, CacheNumber::q5_1};
constexpr std::array<std::uint64_t, 5> ggml_hashes = {
    0xe46583d7893897d2u, 0x246ed4327e96aae7u, 0x7a00ff7818244f7eu, 0xbee316808579cc90u, 0x051e5d8168f2c16du};

struct GgmlCase {
    const char* name;
    int exponent; // x = numbers * 2^exponent
    std::array<int, 32> numbers;
    std::array<const char*, 5> blocks; // in the order of ggml_numbers, hexadecimal
};
constexpr GgmlCase ggml_cases[] = {
    {"both ends",
     0,
     {8,  -8, 7,   -7, 6,  5,  4,  3,  2, 1,  0,   -1,  -2,  -3,  -4,  -5,
      -6, 15, -15, 14, 13, 12, 11, 10, 9, -9, -10, -11, -12, -13, -14, 16},
     {"083040c038c830282018100800f8f0e8e0d8d077896f675f574f47b9b1a9a199917f",
      "00c0b41cf51c2526363747d8d8e9e9fafa0b", "224080cb4bf30be4eadad9c9c8382727161605f5",
      "00bc0afc057e6818f9273a4b5c6d7e9fa0b1c2d3e405", "003c80cbf503fa8197e706d8c5b4a39281605f4e3d2c1bfa"}},
    {"negative end first",
     0,
     {-16, 16, 15, -15, 14, 13, 12, 11, 10, 9,  8,  7,  6,   5,   4,   3,
      2,   1,  0,  -1,  -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13},
     {"0830817f77896f675f574f47403830282018100800f8f0e8e0d8d0c8c0b9b1a9a199",
      "0040909f8f817f7f6e6e5d5d4c4c3b3b2a2a", "444000cc808f7f707e6e6d5d5c4c4b3b3a2a2919",
      "003cf6ff0700201f0ff1eeddccbbaa99887766554433", "213c00ccf6ff0700100f0ef1eddccbbaa998877665544332"}},
    {"halves",
     -1,
     {254, 1,  -1,  3,  -3,  5,  -5,  7,  -7,  9,  -9,  11, -11, 13, -13, 15,
      -15, 17, -17, 19, -19, 21, -21, 23, -23, 25, -25, 27, -27, 29, -29, 253},
     {"003c7f01ff02fe03fd04fc05fb06fa07f908f809f70af60bf50cf40df30ef20ff17f",
      "f0cb80789878987898789878987898789808", "b74840cb1f2211321132013201320132013201f2",
      "f0c7fe55555510f010f010f010f010ef21ef21ef210f", "914440cb010000802f5313541354136412640264026502f5"}},
    {"tiny",
     -24,
     {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,  12,  13,  14,  15,  16,
      -1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13, -14, -15, -16},
     {"00000810182028303840474f575f676f777ff8f0e8e0d8d0c8c0b9b1a9a199918981",
      "02809897a7a6b6b5c5c4d4d3e3e2f2f1f1f0", "02001080787869695a5a4b4b3c3c2d2d1e1e0f0f",
      "01800000ffff1f2e3d4c5b6a798897a6b5c4d3e2f1f0", "01001080ffff0000f0e1d2c3b4a5968778695a4b3c2d1e0f"}},
    {"positive",
     -4,
     {31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
      15, 14, 13, 12, 11, 10, 9,  8,  7,  6,  5,  4,  3,  2,  1,  100},
     {"4d2a272625242221201e1d1c1b19181716141312110f0e0d0b0a090806050403017f",
      "40ba76767676767676767686868686878707", "9a36002c252424242414141313131303030302f2",
      "40b600000070ebebebecececfcfcfcfcfdfd0d0d0d0d", "6332002c00000080494949383838382727271616160505f5"}},
    {"large",
     15,
     {1,  -2,  3,  -4,  5,  -6,  7,  -8,  9,  -10, 11, -12, 13, -14, 15, -16,
      17, -18, 19, -20, 21, -22, 23, -24, 25, -26, 27, -28, 29, -30, 31, -32},
     {"087004f80cf014e81ce024d82cd034c83cc043b94bb153a95ba163996b9173897b81",
      "007cc848d937d937ea26ea26fb15fb15fc04", "007c00fcc837c837d926d926ea15ea15fb04fb04",
      "007c55555555917fa26eb35dc44cd53be62af719f808", "007c00fc55555555807f916ea25db34cc43bd52ae619f708"}},
    {"zeros",
     0,
     {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
     {"00000000000000000000000000000000000000000000000000000000000000000000",
      "008088888888888888888888888888888888", "0000000000000000000000000000000000000000",
      "0080ffffffff00000000000000000000000000000000", "000000000000000000000000000000000000000000000000"}},
    {"constant",
     -3,
     {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5},
     {"0a1d7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
      "00ad00000000000000000000000000000000", "0000003900000000000000000000000000000000",
      "00a90000000000000000000000000000000000000000", "000000390000000000000000000000000000000000000000"}},
};

/// 32 numbers that a float holds: some of one sign, some with one far away, sizes from 2^-30 on.
void hashed_row(SplitMix64& random, int row, float* x) {
    for (int i = 0; i < 32; ++i)
        x[i] = std::ldexp(static_cast<float>(static_cast<int>(random() >> 52) - 2048), row % 41 - 30);
    if (row % 5 == 1)
        for (int i = 0; i < 32; ++i) x[i] = std::abs(x[i]);
    if (row % 7 == 2) x[random() % 32] *= 64;
}

float half_value(unsigned bits) {
    return static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(static_cast<std::uint16_t>(bits)));
}

/// What stands in a block of ggml's, from its bytes.
std::array<float, 32> decoded(CacheNumber number, const std::string& text) {
    std::vector<unsigned> bytes;
    for (std::size_t i = 0; i < text.size(); i += 2)
        bytes.push_back(static_cast<unsigned>(std::stoul(text.substr(i, 2), nullptr, 16)));
    std::size_t at = 0;
    const auto half = [&] {
        at += 2;
        return half_value(bytes[at - 2] | bytes[at - 1] << 8);
    };
    const bool five = number == CacheNumber::q5_0 || number == CacheNumber::q5_1,
               minimum = number == CacheNumber::q4_1 || number == CacheNumber::q5_1;
    const float scale = half(), start = minimum ? half() : 0.0F;
    std::uint32_t high = 0;
    if (five)
        for (int i = 0; i < 4; ++i) high |= bytes[at++] << (8 * i);
    std::array<float, 32> x{};
    for (std::size_t i = 0; i < 32; ++i) {
        if (number == CacheNumber::q8_0) {
            x[i] = static_cast<float>(static_cast<std::int8_t>(bytes[at + i])) * scale;
            continue;
        }
        const unsigned byte = bytes[at + i % 16], low = i < 16 ? byte & 15U : byte >> 4;
        const int code = static_cast<int>(low | (five ? (high >> i & 1U) << 4 : 0U));
        x[i] = static_cast<float>(minimum ? code : code - (five ? 16 : 8)) * scale + start;
    }
    return x;
}

bool same(float a, float b) { return a == b || (a != a && b != b); } // a code of 0 may carry a sign

/// Formats of every kind, for rows of 64 channels.
std::vector<CacheFormat> all_formats() {
    std::vector<CacheFormat> formats;
    for (const CacheNumber number : ggml_numbers) formats.push_back({number});
    formats.push_back({CacheNumber::nf4});
    for (const CacheScale scale : {CacheScale::channel, CacheScale::token})
        for (const Index group : {0, 16}) {
            for (const int bits : {2, 5, 8}) formats.push_back(integer_cache(bits, scale, group));
            for (const int bits : {2, 3, 4, 8})
                formats.push_back({CacheNumber::affine, bits, scale, group, {}});
            for (const CacheNumber number : {CacheNumber::float8_e4m3, CacheNumber::float8_e5m2})
                formats.push_back(float8_cache(number, scale, group));
        }
    for (const CacheNumber number :
         {CacheNumber::float8_e4m3, CacheNumber::float8_e5m2, CacheNumber::float16, CacheNumber::bfloat16})
        formats.push_back(float8_cache(number));
    const std::size_t plain = formats.size();
    for (std::size_t i = 0; i < plain; i += 3) formats.push_back(rotated(formats[i], 11));
    return formats;
}

/// Rows of several kinds: normal, with a channel far away, all of one sign, nearly constant, tiny.
template <class T>
Matrix<T> some_rows(SplitMix64& random, int kind, Index tokens = 48, Index width = 64) {
    Matrix<T> x = Matrix<T>::NullaryExpr(tokens, width, [&] { return static_cast<T>(random.normal()); });
    if (kind == 1) x.col(5).array() += T(80);
    if (kind == 2) x = x.cwiseAbs();
    if (kind == 3) x = (x * T(0.01)).array() - T(37.7);
    if (kind == 4) x *= T(3e-6);
    return x;
}

/// |R (x' - x)| in long double.
template <class T>
Matrix<Ref> errors_of(const Matrix<T>& x, const CacheFormat& format) {
    const Matrix<T> stored = through_cache(x, format);
    const Matrix<Ref> change = stored.template cast<Ref>() - x.template cast<Ref>();
    return (format.rotation ? hadamard_rotate(change, *format.rotation) : change).cwiseAbs();
}

} // namespace

TEST_CASE("blocks of ggml are its own bit for bit", "[cache][format]") {
    for (std::size_t type = 0; type < ggml_numbers.size(); ++type) {
        const CacheFormat format{ggml_numbers[type]};
        for (const GgmlCase& given : ggml_cases) {
            CAPTURE(type, given.name);
            Matrix<float> x(1, 32);
            for (Index i = 0; i < 32; ++i)
                x(0, i) =
                    std::ldexp(static_cast<float>(given.numbers[static_cast<std::size_t>(i)]), given.exponent);
            const Matrix<float> stored = through_cache(x, format);
            const std::array<float, 32> expected = decoded(ggml_numbers[type], given.blocks[type]);
            for (Index i = 0; i < 32; ++i) {
                CAPTURE(i, x(0, i), stored(0, i), expected[static_cast<std::size_t>(i)]);
                CHECK(same(stored(0, i), expected[static_cast<std::size_t>(i)]));
            }
            // Doubles that are floats are stored as these.
            const Matrix<double> wide = through_cache(x.cast<double>(), format);
            for (Index i = 0; i < 32; ++i) CHECK(same(static_cast<float>(wide(0, i)), stored(0, i)));
        }
        SplitMix64 random(2026);
        std::uint64_t hash = 0xcbf29ce484222325u;
        for (int row = 0; row < 4096; ++row) {
            Matrix<float> x(1, 32);
            hashed_row(random, row, x.data());
            const Matrix<float> stored = through_cache(x, format);
            for (Index i = 0; i < 32; ++i) {
                const float y = stored(0, i) == 0 ? 0.0F : stored(0, i);
                const auto bits = y != y ? 0x7fc00000u : std::bit_cast<std::uint32_t>(y);
                for (int k = 0; k < 4; ++k) hash = (hash ^ (bits >> (8 * k) & 255)) * 0x100000001b3u;
            }
        }
        CHECK(hash == ggml_hashes[type]);
    }
}

TEST_CASE("halves and 8-bit floats are the nearest ones", "[cache][format]") {
    SplitMix64 random = generator(test_seed(), 21);
    constexpr Index count = 20000;
    Matrix<float> x(1, count);
    for (Index i = 0; i < count; ++i) // every sign, exponent and tie comes up
        x(0, i) = i % 3 == 0 ? half_value(static_cast<unsigned>(random() & 0xffff)) * (1 + 0x1p-11F)
                             : std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    const Matrix<float> half = through_cache(x, {CacheNumber::float16}),
                        brain = through_cache(x, {CacheNumber::bfloat16});
    Worst halves, brains;
    for (Index i = 0; i < count; ++i) {
        const Where where{"float", static_cast<std::size_t>(i)};
        halves.meet(same(half(0, i), static_cast<float>(Eigen::half(x(0, i)))), where);
        brains.meet(same(brain(0, i), static_cast<float>(Eigen::bfloat16(x(0, i)))), where);
    }
    ATTNSCOPE_CHECK_WORST(halves);
    ATTNSCOPE_CHECK_WORST(brains);
    Matrix<double> y(1, 9);
    y << 448, 449, 1e9, -infinity, 0x1p-9, 0x1p-10, 0x1.8p-9, 17,
        nan_value; // e4m3: spacing 2^-9 at the bottom, 2 at 17
    Matrix<double> expected(1, 9);
    expected << 448, 448, 448, -448, 0x1p-9, 0, 0x1p-8, 16, nan_value;
    const Matrix<double> stored = through_cache(y, float8_cache(CacheNumber::float8_e4m3));
    for (Index i = 0; i < 9; ++i)
        CHECK((stored(0, i) == expected(0, i) || (i == 8 && std::isnan(stored(0, i)))));
    const Matrix<double> limits = cache_error_limits(y, float8_cache(CacheNumber::float8_e4m3));
    CHECK(limits(0, 2) >= 1e9 - 448);
    CHECK(limits(0, 3) == infinity);
    // The numbers next to 0.
    const Matrix<double> zero = Matrix<double>::Zero(1, 1);
    CHECK(cache_quanta(zero, float8_cache(CacheNumber::float8_e4m3))(0, 0) == 0x1p-9);
    CHECK(cache_quanta(zero, float8_cache(CacheNumber::float8_e5m2))(0, 0) == 0x1p-16);
    CHECK(cache_quanta(zero, {CacheNumber::float16})(0, 0) == 0x1p-24);
}

TEST_CASE("affine integers of groups are those of their definition", "[cache][format]") {
    SplitMix64 random = generator(test_seed(), 22);
    for (const int bits : {2, 3, 4, 8}) {
        const Matrix<double> x = some_rows<double>(random, 0, 75, 64);
        const Matrix<double> keys = through_cache(x, kivi_keys(bits)),
                             values = through_cache(x, kivi_values(bits));
        const auto check = [&](auto&& block, auto&& stored) {
            const double levels = std::ldexp(1.0, bits) - 1;
            // Eigen's half of a double is rounded twice, by way of float: the nearest of it and its neighbours.
            const auto half_of = [](double number) {
                const auto near = static_cast<int>(
                    Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(static_cast<float>(number))));
                double nearest = std::numeric_limits<double>::infinity();
                for (const int bits_of : {near, near - 1, near + 1}) {
                    const auto found = static_cast<double>(static_cast<float>(
                        Eigen::numext::bit_cast<Eigen::half>(static_cast<std::uint16_t>(bits_of))));
                    if (std::abs(found - number) < std::abs(nearest - number)) nearest = found;
                }
                return nearest;
            };
            const double low = half_of(block.minCoeff()),
                         step = half_of((block.maxCoeff() - block.minCoeff()) / levels);
            for (Index i = 0; i < block.size(); ++i) {
                double nearest = low;
                for (int code = 0; code <= levels; ++code)
                    if (std::abs(low + code * step - block(i)) < std::abs(nearest - block(i)))
                        nearest = low + code * step;
                CHECK(std::abs(stored(i) - block(i)) <= std::abs(nearest - block(i)) + 1e-14);
                const double code = (stored(i) - low) / step;
                CHECK(std::abs(code - std::round(code)) < 1e-9);
            }
        };
        for (Index first = 0; first + 32 <= 75; first += 32)
            for (Index j = 0; j < 64; ++j) check(x.col(j).segment(first, 32), keys.col(j).segment(first, 32));
        // The last group is not whole yet.
        CHECK(keys.bottomRows(75 - 64) == through_cache(x.bottomRows(75 - 64), {CacheNumber::float16}));
        for (Index i = 0; i < 75; ++i)
            for (Index first = 0; first < 64; first += 32)
                check(x.row(i).segment(first, 32), values.row(i).segment(first, 32));
    }
    // Constant groups, and a range that half steps do not reach.
    Matrix<double> x = Matrix<double>::Constant(2, 32, 1.0 / 3);
    x.row(1).setLinSpaced(1000.3, 1000.6);
    const Matrix<double> stored = through_cache(x, kivi_values(2));
    CHECK(stored.row(0).isConstant(static_cast<double>(Eigen::half(1.0F / 3)), 0));
    CHECK(stored(1, 0) == 1000.5);
    CHECK(stored(1, 31) == 1000.5 + static_cast<double>(Eigen::half(0.1F)) * 1);
}

TEST_CASE("nf4 stores the nearest of the quantiles of QLoRA", "[cache][format]") {
    // Of a table of the paper (appendix E), as decimals.
    constexpr std::array<double, 16> levels = {-1.0,
                                               -0.6961928009986877,
                                               -0.5250730514526367,
                                               -0.39491748809814453,
                                               -0.28444138169288635,
                                               -0.18477343022823334,
                                               -0.09105003625154495,
                                               0.0,
                                               0.07958029955625534,
                                               0.16093020141124725,
                                               0.24611230194568634,
                                               0.33791524171829224,
                                               0.44070982933044434,
                                               0.5626170039176941,
                                               0.7229568362236023,
                                               1.0};
    SplitMix64 random = generator(test_seed(), 23);
    Matrix<float> x = some_rows<float>(random, 0);
    x.row(3) *= 1e-5F;
    const Matrix<float> stored = through_cache(x, {CacheNumber::nf4});
    for (Index i = 0; i < x.rows(); ++i) {
        const double scale = static_cast<double>(x.row(i).cwiseAbs().maxCoeff());
        for (Index j = 0; j < x.cols(); ++j) {
            double nearest = infinity;
            for (const double level : levels)
                nearest = std::min(nearest, std::abs(level * scale - double(x(i, j))));
            const double error = std::abs(double(stored(i, j)) - double(x(i, j)));
            CHECK(error <= nearest + 4 * 0x1p-24 * scale);
        }
    }
}

TEMPLATE_TEST_CASE("no format loses more than its limit, and every one comes near it",
                   "[cache][format][theorem]", float, double, long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const std::vector<CacheFormat> formats = all_formats();
    Worst holds, quantum;
    for (std::size_t at = 0; at < formats.size(); ++at) {
        const CacheFormat& format = formats[at];
        Ref closest = 0;
        for (int kind = 0; kind < 5; ++kind) {
            SplitMix64 random = generator(seed, static_cast<int>(at), kind, 24);
            const Matrix<T> x = some_rows<T>(random, kind);
            const Matrix<T> limits = cache_error_limits(x, format), quanta = cache_quanta(x, format);
            const Matrix<Ref> errors = errors_of(x, format);
            for (Index i = 0; i < x.size(); ++i) {
                const Where where{"number", at, static_cast<double>(kind), seed, scalar_name<T>()};
                holds.meet(errors.data()[i] - Ref(limits.data()[i]), 0, where);
                quantum.meet(limits.data()[i] >= quanta.data()[i] / 2, where);
                if (limits.data()[i] > 0) closest = std::max(closest, errors.data()[i] / Ref(limits.data()[i]));
            }
        }
        CAPTURE(at, static_cast<int>(format.number), format.bits, static_cast<double>(closest));
        CHECK(closest > 0.99L); // a limit of 0.99 times as much is exceeded
    }
    ATTNSCOPE_CHECK_WORST(holds);
    ATTNSCOPE_CHECK_WORST(quantum);
}

TEST_CASE("where the limits of a format are attained", "[cache][format][theorem]") {
    // With a scale that is 1: half a step between two numbers, and a whole one above the highest code of q4_0 and q5_0.
    Matrix<double> x = Matrix<double>::Zero(1, 64);
    const auto check = [&](const CacheFormat& format, std::initializer_list<std::pair<double, double>> errors) {
        x.setZero();
        Index at = 0;
        for (const auto& [number, error] : errors) x(0, at) = x(0, at + 32) = number, ++at;
        const Matrix<double> limits = cache_error_limits(x, format), stored = through_cache(x, format);
        at = 0;
        for (const auto& [number, error] : errors) {
            CAPTURE(static_cast<int>(format.number), number, stored(0, at), limits(0, at));
            CHECK(std::abs(stored(0, at) - number) == error);
            CHECK(limits(0, at) >= error);
            if (error > 0) CHECK(0.99 * limits(0, at) < error);
            ++at;
        }
    };
    check({CacheNumber::q8_0}, {{127, 0}, {0.5, 0.5}, {-3.5, 0.5}, {126.5, 0.5}});
    check({CacheNumber::q4_0}, {{-8, 0}, {8, 1}, {0.5, 0.5}, {-7, 0}, {7, 0}});
    check({CacheNumber::q5_0}, {{-16, 0}, {16, 1}, {0.5, 0.5}});
    check({CacheNumber::q4_1}, {{0, 0}, {15, 0}, {0.5, 0.5}, {14.5, 0.5}});
    check({CacheNumber::q5_1}, {{0, 0}, {31, 0}, {0.5, 0.5}, {30.5, 0.5}});
    check(integer_cache(4, CacheScale::token), {{7, 0}, {0.5, 0.5}, {-2.5, 0.5}});
    check(kivi_values(2), {{0, 0}, {3, 0}, {0.5, 0.5}, {2.5, 0.5}});
    check(kivi_values(3, 64), {{0, 0}, {7, 0}, {6.5, 0.5}});
    check(float8_cache(CacheNumber::float8_e4m3, CacheScale::token), {{448, 0}, {272, 16}});
    check(float8_cache(CacheNumber::float8_e5m2), {{57344, 0}, {9, 1}});
    check({CacheNumber::float16}, {{2049, 1}});
    check({CacheNumber::bfloat16}, {{257, 1}});
    const double middle = (1 + 0.7229568362236023) / 2;
    x.setZero();
    x(0, 0) = 1, x(0, 1) = middle, x(0, 2) = -(1 + 0.6961928009986877) / 2;
    const Matrix<double> limits = cache_error_limits(x, {CacheNumber::nf4});
    for (const Index i : {1, 2}) {
        const double error = std::abs(through_cache(x, {CacheNumber::nf4})(0, i) - x(0, i));
        CHECK(limits(0, i) >= error);
        CHECK(0.99 * limits(0, i) < error);
    }
    // The minimum 1000.3 becomes 1000.5, and the numbers below it are off by more than half a step.
    x.leftCols(32).setConstant(1000.6);
    x(0, 0) = 1000.3;
    const Matrix<double> far = cache_error_limits(x, kivi_values(2));
    CHECK(std::abs(through_cache(x, kivi_values(2))(0, 0) - 1000.5) < 1e-12);
    CHECK(far(0, 0) >= 1000.5 - 1000.3);
    CHECK(0.99 * far(0, 0) < 1000.5 - 1000.3);
}

TEST_CASE("bytes of a token count its scales", "[cache][format]") {
    // Blocks of ggml: 34, 18, 20, 22, 24 bytes for 32 numbers.
    const std::array<double, 5> blocks = {34, 18, 20, 22, 24};
    for (std::size_t i = 0; i < 5; ++i) CHECK(cache_bytes({ggml_numbers[i]}, 128, 1000) == 4 * blocks[i]);
    CHECK(cache_bytes({CacheNumber::nf4}, 128, 1) == 2 * 36);
    CHECK(cache_bytes({CacheNumber::float16}, 128, 7) == 256);
    CHECK(cache_bytes({CacheNumber::bfloat16}, 128, 7) == 256);
    CHECK(cache_bytes(float8_cache(CacheNumber::float8_e4m3), 128, 7) == 128);
    CHECK(cache_bytes(float8_cache(CacheNumber::float8_e4m3, CacheScale::token), 128, 7) == 132);
    CHECK(cache_bytes(integer_cache(4, CacheScale::token), 128, 7) == 68);
    CHECK(cache_bytes(integer_cache(4), 128, 512) == 65); // 128 scales for 512 tokens
    CHECK(cache_bytes(kivi_keys(2), 128, 1024) == 32 + 128 * 4 / 32.0);
    CHECK(std::abs(cache_bytes(kivi_keys(2), 128, 1000) - (992 * 48 + 8 * 256) / 1000.0) <
          1e-12); // the rest in halves
    CHECK(cache_bytes(kivi_keys(2), 128, 31) == 256);
    CHECK(cache_bytes(kivi_values(2), 128, 1000) == 32 + 4 * 4);
    CHECK(cache_bytes(rotated({CacheNumber::q4_0}), 128, 7) == 72);
    CHECK_THROWS_WITH(cache_bytes({}, 0, 7), "cache_bytes: there must be channels and tokens, got 0 and 7");
}

TEST_CASE("what a format refuses, and rows that are not numbers", "[cache][format]") {
    Matrix<float> x = Matrix<float>::Ones(3, 40);
    CHECK_THROWS_WITH(
        through_cache(x, {CacheNumber::q4_0}),
        "through_cache: the channels must be a multiple of the format's block or group, got 40 and 32");
    CHECK_THROWS_WITH(
        cache_quanta(MatrixView<float>(x), {CacheNumber::nf4}),
        "cache_quanta: the channels must be a multiple of the format's block or group, got 40 and 64");
    CHECK_THROWS_WITH(
        cache_error_limits(x, kivi_values(2)),
        "cache_error_limits: the channels must be a multiple of the format's block or group, got 40 and "
        "32");
    CHECK_THROWS_WITH(through_cache(x, kivi_keys(9)), "through_cache: bits must be in [2, 8], got 9");
    CHECK_THROWS_WITH(through_cache(x, kivi_keys(2, -1)), "through_cache: a group must be >= 0, got -1");
    CHECK_THROWS_WITH(through_cache(x, integer_cache(8, CacheScale::none)),
                      "through_cache: integers need a scale of a channel or a token");
    CHECK(through_cache(x, kivi_keys(2)) == x); // fewer tokens than a group
    CHECK(through_cache(Matrix<float>(0, 64), {CacheNumber::q8_0}).rows() == 0);
    CHECK(through_cache(Matrix<float>(0, 64), {}).rows() == 0);
    CHECK(through_cache(Matrix<float>(3, 0), kivi_values(2)).cols() == 0);

    Matrix<double> y = Matrix<double>::Constant(2, 64, 2);
    y(0, 3) = nan_value;
    y(1, 40) = infinity;
    for (const CacheNumber number : ggml_numbers) {
        const Matrix<double> stored = through_cache(y, {number}), limits = cache_error_limits(y, {number});
        CHECK(stored.row(0).head(32).array().isNaN().all());
        CHECK(limits.row(0).head(32).array().isNaN().all());
        CHECK(stored.row(0).tail(32).allFinite());
        CHECK(stored.row(1).head(32).allFinite());
        CHECK(stored.row(1).tail(32).array().isNaN().all());
        // Scales that a half does not hold: too large, and too small.
        Matrix<double> ends = Matrix<double>::Constant(1, 64, 1e-9);
        ends.row(0).head(32).setLinSpaced(-3e8, 2e8);
        const Matrix<double> end_limits = cache_error_limits(ends, {number}),
                             held = through_cache(ends, {number});
        CHECK((end_limits.leftCols(32).array() == infinity).all());
        CHECK(!held.leftCols(32).allFinite());
        CHECK(held.rightCols(32).isZero(0));
        CHECK((end_limits.rightCols(32).array() >= 1e-9).all());
        CHECK(through_cache(Matrix<double>::Zero(1, 32), {number}).isZero(0));
        CHECK(cache_error_limits(Matrix<double>::Zero(1, 32), {number}).isZero(0));
        CHECK(through_cache(Matrix<double>::Constant(1, 32, 1e300), {number}).array().isNaN().all());
    }
    CHECK(through_cache(y, {CacheNumber::nf4}).array().isNaN().all());
    CHECK(through_cache(Matrix<double>::Zero(1, 64), {CacheNumber::nf4}).isZero(0));
    CHECK(through_cache(y, kivi_values(2)).row(1).tail(32).array().isNaN().all());
    CHECK(through_cache(y, {CacheNumber::float16})(1, 40) == infinity);
    CHECK(through_cache(y, {CacheNumber::float16})(1, 41) == 2);
    CHECK(through_cache(Matrix<double>::Constant(1, 1, 65519.9), {CacheNumber::float16})(0, 0) == 65504);
    CHECK(through_cache(Matrix<double>::Constant(1, 1, 65520), {CacheNumber::float16})(0, 0) == infinity);
}

TEST_CASE("formats have names that are read back", "[cache][format]") {
    for (const CacheFormat& format : all_formats()) {
        const CacheFormat again = cache_format(name_of(format));
        CAPTURE(name_of(format), name_of(again));
        CHECK(name_of(again) == name_of(format));
        SplitMix64 random(5);
        const Matrix<double> x = some_rows<double>(random, 0);
        CHECK(through_cache(x, again) == through_cache(x, format));
        CHECK(cache_bytes(again, 64, 48) == cache_bytes(format, 64, 48));
    }
    CHECK(name_of({CacheNumber::q4_0}) == "q4_0");
    CHECK(name_of(rotated({CacheNumber::q8_0}, 7)) == "q8_0+rotated7");
    CHECK(name_of(kivi_keys(2)) == "affine2:channel32");
    CHECK(name_of(CacheFormat{}) == "int8:channel");
    CHECK(cache_format("affine2:token32") == kivi_values(2));
    CHECK(cache_format("int4") == integer_cache(4));
    CHECK(cache_format("q4_0") == CacheFormat{CacheNumber::q4_0});
    CHECK(cache_format("f16+rotated") == rotated({CacheNumber::float16}));
    CHECK(cache_format("e4m3") == float8_cache(CacheNumber::float8_e4m3));
    CHECK(cache_format("e5m2:token16+rotated3") ==
          rotated(float8_cache(CacheNumber::float8_e5m2, CacheScale::token, 16), 3));
    for (const char* bad :
         {"", "q4", "q4_0:token", "int", "int1", "int25", "affine9", "int4:tokens", "int4:token0",
          "int4:", "int4+", "int4+rotatedx", "int4+rotated-1", "f16:channel", "+rotated", "int4:token-3"})
        CHECK_THROWS_WITH(cache_format(bad),
                          Catch::Matchers::ContainsSubstring("cache_format: a format is f16, ") &&
                              Catch::Matchers::ContainsSubstring(std::string("got ") + bad));
    CHECK(fits_cache({CacheNumber::q4_0}, 96));
    CHECK(!fits_cache({CacheNumber::nf4}, 96));
    CHECK(fits_cache(kivi_keys(2), 7));
    CHECK(!fits_cache(kivi_values(2), 7));
}
