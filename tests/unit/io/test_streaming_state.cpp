// Parts of a scan as bytes: back to the bit, of known layout, and nothing that no scan makes.
#include <support/catch.hpp>
#include <support/damaged_bytes.hpp>
#include <support/rows.hpp>

#include <attnscope/io/streaming_state.hpp>

namespace {

using namespace attnscope_test;
using namespace attnscope;
using io::StateReader;
using io::StateWriter;

Matrix<double> normal(SplitMix64& random, Index rows, Index cols) {
    Matrix<double> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal();
    return m;
}

template <class T>
BlockScan<T, 4> block(SplitMix64& random, bool output) {
    const Matrix<T> q = normal(random, 9, 3).cast<T>();
    Matrix<T> k = normal(random, 7, 3).cast<T>();
    const Matrix<T> v = normal(random, 7, 2).cast<T>();
    ScanOptions options;
    options.output = output;
    options.bias = [](Index query, Index key) { // rows of every status
        if (query == 2 && key == 6) return std::numeric_limits<double>::quiet_NaN();
        if (query == 3 && key == 5) return std::numeric_limits<double>::infinity();
        return query == 4 ? -std::numeric_limits<double>::infinity() : 0.0;
    };
    return scan_block<4>(HeadView<T>(q, k, v), {0, 5, 20}, Mask::none(), options);
}

/// Everything that is stored, with how it is read again and written: for the tests that treat all alike.
struct Stored {
    std::string name;
    std::vector<std::byte> bytes;
    std::function<std::vector<std::byte>(StateReader&)> again;
};

template <class Value, class Read>
Stored stored(std::string name, const Value& value, const Read& read) {
    StateWriter out;
    io::write(out, value);
    return {std::move(name), std::move(out).bytes(), [read](StateReader& in) {
                StateWriter second;
                io::write(second, read(in));
                in.finish();
                return std::move(second).bytes();
            }};
}

std::vector<Stored> everything() {
    SplitMix64 random(11);
    std::vector<Stored> all;
    for (const bool output : {false, true}) {
        all.push_back(stored("block of float", block<float>(random, output),
                             [](StateReader& in) { return io::read_block_scan<float, 4>(in); }));
        all.push_back(stored("block of double", block<double>(random, output),
                             [](StateReader& in) { return io::read_block_scan<double, 4>(in); }));
    }
    RowState<float> row;
    const std::vector<float> logits{1, 5, 5, -2, 0.5f, -std::numeric_limits<float>::infinity()};
    row.add(in(logits), 3);
    all.push_back(stored("row", row, [](StateReader& in) { return io::read_row_state<float>(in); }));
    all.push_back(stored("empty row", RowState<double, 3>(),
                         [](StateReader& in) { return io::read_row_state<double, 3>(in); }));
    WeightHistogram histogram;
    add_to_histogram<float>(histogram, in(logits));
    all.push_back(stored("histogram", histogram, [](StateReader& in) { return io::read_histogram(in); }));
    const Matrix<double> q = normal(random, 6, 3), k = normal(random, 5, 3);
    const auto scanned = scan(HeadView<double>(q, k));
    std::vector<double> totals;
    for (const auto& of : scanned.rows) totals.push_back(of.statistics().log_sum_exp());
    all.push_back(stored("columns", scan_block_columns(HeadView<double>(q, k), {0, 0, 5}, totals),
                         [](StateReader& in) { return io::read_column_sums(in); }));
    return all;
}

} // namespace

TEST_CASE("parts of a scan come back to the bit", "[io][state]") {
    for (const Stored& one : everything()) {
        CAPTURE(one.name);
        StateReader in("memory", one.bytes);
        CHECK(one.again(in) == one.bytes);
    }
    SplitMix64 random(3);
    const auto original = block<float>(random, true);
    StateWriter out;
    io::write(out, original);
    StateReader in("memory", out.bytes());
    const auto again = io::read_block_scan<float, 4>(in);
    CHECK(again.place() == original.place());
    CHECK(again.keys() == original.keys());
    REQUIRE(again.queries() == original.queries());
    CHECK(std::equal(again.rows().begin(), again.rows().end(), original.rows().begin()));
    for (Index i = 0; i < again.queries(); ++i)
        if (i != 2) CHECK(again.sums().row(i) == original.sums().row(i)); // row 2 is NaN

    std::vector<double> mean{0, 0}, stored_mean{7, 7};
    ValueState<double> state(mean);
    const std::vector<float> a{1, 2}, b{3, -4};
    state.add<float>(0.25, RowIn<float>(a));
    state.add<float>(0.5, RowIn<float>(b));
    StateWriter value;
    io::write(value, state);
    StateReader from("memory", value.bytes());
    const auto value_again = io::read_value_state(from, stored_mean);
    from.finish();
    CHECK(value_again.mass() == state.mass());
    CHECK(value_again.variance() == state.variance());
    CHECK(stored_mean == mean);
    std::vector<double> longer(3);
    StateReader once_more("memory", value.bytes());
    CHECK_THROWS_AS(io::read_value_state(once_more, longer), io_error);
    CHECK_THROWS_AS(ValueState<double>(mean, -1, 0), invalid_argument);
}

TEST_CASE("parts of a scan that are damaged are refused or are states", "[io][state]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    std::size_t refused = 0, read = 0;
    for (const Stored& one : everything())
        for (int round = 0; round < 1000; ++round) {
            const std::vector<std::byte> bad = damaged(random, one.bytes);
            CAPTURE(one.name, round);
            try {
                StateReader in("memory", bad);
                const auto again = one.again(in);
                CHECK(again == bad); // what is read is what stands there
                ++read;
            } catch (const io_error& error) {
                CHECK(error.offset() <= bad.size());
                CHECK(!error.reason().empty());
                ++refused;
            }
        }
    CHECK(refused > 2000);
    CHECK(read > 100);
}

TEST_CASE("a row's state stands as docs/states.md says", "[io][state]") {
    RowState<float, 2> row;
    const std::vector<float> logits{1, 3, 2};
    row.add(in(logits), 10);
    StateWriter out;
    io::write(out, row);
    REQUIRE(out.bytes().size() == 76 + 12 * 2);
    StateReader at("memory", out.bytes());
    const double a = std::exp(-1.0), b = std::exp(-2.0);
    for (const double sum : {a + b, a + 2 * b, a * a + b * b, a * a * a + b * b * b, a + 4 * b})
        CHECK(at.real() == Catch::Approx(sum).epsilon(1e-6));
    for (const std::int64_t count :
         {std::int64_t(3), std::int64_t(0), std::int64_t(0), std::numeric_limits<std::int64_t>::max()})
        CHECK(at.index() == count);
    CHECK(at.small_real() == 1);
    CHECK(at.small_real() == 3);
    CHECK(at.small_real() == 2);
    CHECK(at.index() == 11);
    CHECK(at.index() == 12);
    at.finish();
}

TEST_CASE("states that no row has are refused", "[io][state][row_state]") {
    using State = RowState<double, 2>;
    State good;
    const std::vector<double> logits{1, 3, 2};
    good.add(in(logits), 10);
    const auto refused = [&](const char* rule, const auto& change) {
        auto parts = good.parts();
        change(parts);
        CAPTURE(rule);
        CHECK_THROWS_WITH(State::of(parts), Catch::Matchers::ContainsSubstring(rule));
    };
    CHECK(State::of(good.parts()) == good);
    constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                     inf = std::numeric_limits<double>::infinity();
    refused("counts", [](auto& p) { p.nan = -1; });
    refused("sums", [](auto& p) { p.sums[3] = -1; });
    refused("sums", [](auto& p) { p.sums[4] = nan; });
    refused("sums", [](auto& p) { p.finite = 1; });
    refused("+inf", [](auto& p) { p.infinite = 1; });
    refused("+inf", [](auto& p) { p.infinite_key = 4; });
    refused("descend", [](auto& p) { std::swap(p.logits[0], p.logits[1]); });
    refused("descend", [](auto& p) { p.logits[1] = p.logits[0], p.keys[1] = p.keys[0]; });
    refused("descend", [](auto& p) { p.keys[0] = -1; });
    refused("descend", [](auto& p) { p.logits[0] = inf; });
    refused("smallest", [](auto& p) { p.smallest = 2.5; });
    refused("smallest", [](auto& p) { p.smallest = -inf; });
    auto one = State().parts();
    one.logits[0] = 0;
    CHECK_THROWS_WITH(State::of(one), Catch::Matchers::ContainsSubstring("as many"));
}

TEST_CASE("a block's state must be of its type, its K and its head", "[io][state]") {
    SplitMix64 random(5);
    StateWriter out;
    io::write(out, block<float>(random, true));
    const auto reason = [&](auto&& read, std::vector<std::byte> bytes) {
        try {
            StateReader in("memory", bytes);
            (void)read(in);
        } catch (const io_error& error) {
            return error.reason();
        }
        return std::string();
    };
    const auto of_float = [](StateReader& in) { return io::read_block_scan<float, 4>(in); };
    CHECK(reason(of_float, out.bytes()).empty());
    CHECK(reason([](StateReader& in) { return io::read_block_scan<double, 4>(in); }, out.bytes())
              .find("8 bytes") != std::string::npos);
    CHECK(reason([](StateReader& in) { return io::read_block_scan<float, 8>(in); }, out.bytes())
              .find("8 leading keys") != std::string::npos);
    auto elsewhere = out.bytes(); // its first key: the second number after 9 bytes
    elsewhere[17] = std::byte{6};
    CHECK(reason(of_float, elsewhere).find("not in the block") != std::string::npos);
    elsewhere[17] = std::byte{14};
    CHECK(reason(of_float, elsewhere).find("beyond") != std::string::npos);
}

TEST_CASE("the hash of bytes does not depend on the pieces, and on every byte", "[io][state]") {
    SplitMix64 random(test_seed());
    std::vector<std::byte> bytes(203);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(256));
    const auto hash = [](std::span<const std::byte> all, auto&& next) {
        io::Hash64 sum;
        while (!all.empty()) {
            const auto size = std::min<std::size_t>(all.size(), static_cast<std::size_t>(next()));
            sum.add(all.first(size));
            all = all.subspan(size);
        }
        return sum.value();
    };
    const std::uint64_t whole = hash(bytes, [] { return 1000; });
    CHECK(hash(bytes, [] { return 1; }) == whole);
    for (int i = 0; i < 20; ++i) CHECK(hash(bytes, [&] { return 1 + random.below(30); }) == whole);
    for (std::size_t i = 0; i < bytes.size(); ++i)
        for (int bit = 0; bit < 8; ++bit) {
            auto other = bytes;
            other[i] ^= static_cast<std::byte>(1 << bit);
            CHECK(hash(other, [] { return 1000; }) != whole);
        }
    for (std::size_t size = 0; size < bytes.size(); ++size)
        CHECK(hash(std::span(bytes).first(size), [] { return 1000; }) != whole);
    // Zeros at the end are bytes too.
    const std::vector<std::byte> zeros(9);
    CHECK(hash(std::span(zeros).first(3), [] { return 9; }) !=
          hash(std::span(zeros).first(4), [] { return 9; }));
    // By the formula: of the one byte 1.
    const std::byte one{1};
    const auto mixed = [](std::uint64_t h, std::uint64_t word) {
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        return h ^ (h >> 32);
    };
    CHECK(hash(std::span(&one, 1), [] { return 1; }) == mixed(mixed(0xcbf29ce484222325u, 1), 1));
}
