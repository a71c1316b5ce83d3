// A scan in tiles against the dense core: every kind of mask, tile size and number of threads.
#include <attnscope/attention/attend.hpp>
#include <attnscope/concentration/sinks.hpp>
#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/streaming/column_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::RowStatus;
using attnscope::scan;
using attnscope::scan_tiles;
using attnscope::ScanOptions;
using attnscope::Softmax;
using attnscope::Threads;
using attnscope::TileOut;

namespace {

/// Small whole numbers, so that every product q.k is exact in every order, and ties abound.
template <class T>
Matrix<T> whole_numbers(SplitMix64& random, Index rows, Index cols) {
    Matrix<T> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(random.below(7) - 3);
    return m;
}

struct Named {
    std::string_view name;
    Mask mask;
};
std::vector<Named> masks(Index queries, Index keys) {
    return {
        {"none", Mask::none()},
        {"causal", Mask::causal_bottom_right(queries, keys)},
        {"window", Mask::sliding_window(5, keys - queries)},
        {"window and sinks", Mask::sliding_window(4, keys - queries).with_sinks(2)},
        {"length", Mask::none().with_length(keys / 2)},
        {"prefix", Mask::causal_bottom_right(queries, keys).with_prefix(keys / 3)},
        {"nothing", Mask::none().with_length(0)},
        {"segments", Mask::causal_bottom_right(queries, keys).with_segments({0, keys / 3 + 1, keys / 2 + 2})}};
}

template <class T>
std::vector<T> dense_row(const HeadView<T>& head, const Mask& mask, Index query) {
    std::vector<T> z(static_cast<std::size_t>(head.keys()));
    attnscope::logits_of(head, mask, query, std::span<T>(z));
    return z;
}

/// The figures of one row against those of its logits at once.
template <class T, Index K>
void meet_row(Worst& worst, const attnscope::RowState<T, K>& state, const std::vector<T>& z,
              const Where& where) {
    const auto row = state.statistics(), exact = attnscope::row_statistics<T>(in(z));
    worst.meet(row.status == exact.status && row.visible == exact.visible, where);
    if (exact.status != RowStatus::normal) return;
    worst.meet(row.argmax == exact.argmax && row.max_logit == exact.max_logit &&
                   row.min_logit == exact.min_logit,
               where);
    // Both keep what row_statistics promises.
    const Ref tolerance = 2 * (std::is_same_v<T, float> ? Ref(1e-6) : Ref(1e-13));
    const Ref underflow = static_cast<Ref>(z.size()) * Ref(std::numeric_limits<T>::min());
    const auto close = [&](Ref a, Ref b) {
        worst.meet(std::abs(a - b), tolerance * std::abs(b) + underflow, where);
    };
    close(row.entropy_nats(), exact.entropy_nats());
    close(row.rest(), exact.rest());
    close(row.power_sum_2(), exact.power_sum_2());
    close(row.power_sum_3(), exact.power_sum_3());
    if (exact.visible > 1) close(row.second_weight(), exact.second_weight());
}

} // namespace

TEMPLATE_TEST_CASE("a scan is the dense core, row by row", "[streaming][scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst figures, outputs;
    bool same_bits = true;
    for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 1}, {5, 9}, {70, 70}, {33, 130}, {9, 5}}) {
        SplitMix64 random = generator(seed, queries, keys);
        const Matrix<T> q = whole_numbers<T>(random, queries, 6), k = whole_numbers<T>(random, keys, 6);
        const Matrix<T> v = whole_numbers<T>(random, keys, 3);
        const HeadView<T> head(q, k, v, T(0.25));
        for (const Named& named : masks(queries, keys)) {
            const auto dense = attnscope::attend(head, Softmax(), named.mask);
            std::optional<attnscope::Scan<T, 4>> first;
            for (const Index query_tile : {1, 3, 64, 1000})
                for (const Index key_tile : {1, 3, 64, 1000}) {
                    const ScanOptions options{.query_tile = query_tile, .key_tile = key_tile, .output = true};
                    const auto found = scan<4>(head, named.mask, options);
                    for (Index i = 0; i < queries; ++i) {
                        const Where where{named.name, static_cast<std::size_t>(keys), 1, seed, scalar_name<T>(),
                                          "scan"};
                        meet_row(figures, found.rows[static_cast<std::size_t>(i)],
                                 dense_row(head, named.mask, i), where);
                        for (Index c = 0; c < 3;
                             ++c) // weights and sums of at most 3: a few roundings a key each
                            outputs.meet(std::abs(Ref(found.output(i, c)) - Ref(dense.output(i, c))),
                                         3 * unit_roundoff<T> * (64 + 2 * static_cast<Ref>(keys)), where);
                    }
                    // Neither threads nor the size of query tiles change a bit.
                    const auto threaded = scan<4>(head, named.mask, options, Threads(3));
                    same_bits = same_bits && threaded.rows == found.rows && threaded.output == found.output;
                }
        }
    }
    CHECK(same_bits);
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(outputs);
}

TEMPLATE_TEST_CASE("logits from a source of one's own, with NaN, infinities and masked keys",
                   "[streaming][scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    constexpr T inf = std::numeric_limits<T>::infinity();
    const Index queries = 40, keys = 90;
    SplitMix64 random = generator(seed, 5);
    Matrix<T> z(queries, keys), v(keys, 2);
    for (Index i = 0; i < z.size(); ++i) z.data()[i] = static_cast<T>(5 * random.normal());
    for (Index i = 0; i < v.size(); ++i) v.data()[i] = static_cast<T>(random.normal());
    for (Index i = 0; i < z.size(); i += 7) z.data()[i] = -inf;
    z(3, 20) = std::numeric_limits<T>::quiet_NaN();
    z(5, 11) = z(5, 80) = inf;
    z(6, 70) = inf, z(6, 2) = std::numeric_limits<T>::quiet_NaN();
    z.row(8).fill(-inf);
    const auto source = [&](Index query, Index key, TileOut<T> tile) {
        tile = z.block(query, key, tile.rows(), tile.cols());
    };
    Worst figures, outputs;
    for (const bool output : {false, true})
        for (const Index key_tile : {1, 16, 64, 200}) {
            const auto found = scan_tiles<8, T>(queries, keys, source, MatrixView<T>(v), {},
                                                {.query_tile = 16, .key_tile = key_tile, .output = output});
            CHECK(found.count(RowStatus::nan) == 2);
            CHECK(found.count(RowStatus::infinite) == 1);
            CHECK(found.count(RowStatus::empty) == 1);
            CHECK(found.rows[6].nan_keys() == 1);
            CHECK(found.rows[6].infinite_keys() == 1);
            CHECK(found.rows[5].infinite_keys() == 2);
            for (Index i = 0; i < queries; ++i) {
                const std::vector<T> row(z.data() + i * keys, z.data() + (i + 1) * keys);
                const Where where{"given", 90, 1, seed, scalar_name<T>(), "scan"};
                meet_row(figures, found.rows[static_cast<std::size_t>(i)], row, where);
                if (!output) continue;
                std::vector<T> p(row.size());
                const RowStatus status = Softmax().apply<T>(in(row), out(p));
                for (Index c = 0; c < 2; ++c) {
                    Ref exact = 0, size = 0;
                    for (Index j = 0; j < keys; ++j) {
                        exact += Ref(p[static_cast<std::size_t>(j)]) * v(j, c);
                        size += Ref(p[static_cast<std::size_t>(j)]) * std::abs(v(j, c));
                    }
                    if (status == RowStatus::nan)
                        outputs.meet(std::isnan(found.output(i, c)), where);
                    else // both sides' weights: spread of about 50, and the sums
                        outputs.meet(std::abs(Ref(found.output(i, c)) - exact),
                                     unit_roundoff<T> * (200 + 2 * static_cast<Ref>(keys)) * size, where);
                }
            }
        }
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(outputs);
}

TEMPLATE_TEST_CASE("column masses of a scan are those of the dense weights", "[streaming][scan]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    bool same_bits = true;
    for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 1}, {70, 70}, {33, 130}, {9, 5}}) {
        SplitMix64 random = generator(seed, queries, keys, 2);
        const Matrix<T> q = whole_numbers<T>(random, queries, 6), k = whole_numbers<T>(random, keys, 6);
        const HeadView<T> head(q, k, {}, T(0.25));
        for (const Named& named : masks(queries, keys)) {
            const auto dense = attnscope::attend(head, Softmax(), named.mask, {.weights = true});
            const auto expected = attnscope::column_mass(MatrixView<T>(dense.weights), named.mask);
            const auto rows = scan(head, named.mask);
            for (const Index tile : {1, 16, 200}) {
                const attnscope::TileOptions options{.query_tile = tile, .key_tile = tile};
                const auto mass = attnscope::scan_column_mass(head, rows, named.mask, options).mass;
                const auto threaded =
                    attnscope::scan_column_mass(head, rows, named.mask, options, Threads(3)).mass;
                for (Index j = 0; j < keys; ++j) {
                    same_bits = same_bits && (mass[j] == threaded[j] || std::isnan(mass[j]));
                    const Where where{named.name, static_cast<std::size_t>(keys), 1, seed, scalar_name<T>(),
                                      "columns"};
                    worst.meet(std::isnan(mass[j]) == std::isnan(expected[j]), where);
                    // Logits of at most 13.5 and their log-sum-exp of at most 19; sums of a tile in T.
                    if (!std::isnan(mass[j]))
                        worst.meet(std::abs(Ref(mass[j]) - Ref(expected[j])),
                                   unit_roundoff<T> * Ref(expected[j]) * (200 + static_cast<Ref>(queries)),
                                   where);
                }
            }
        }
    }
    CHECK(same_bits);
    ATTNSCOPE_CHECK_WORST(worst);
    const Matrix<T> q = Matrix<T>::Ones(2, 1);
    const std::vector<attnscope::Accumulator<T>> one(1);
    CHECK_THROWS_AS((attnscope::scan_column_mass<T>(2, 2, attnscope::ProductTiles<T>(HeadView<T>(q, q)),
                                                    std::span<const attnscope::Accumulator<T>>(one))),
                    attnscope::invalid_argument);
}

TEST_CASE("weights of logits of thousands are those of the logits as they are", "[streaming][scan]") {
    // Near 20,000 a float holds no digit behind the point but two: what the log-sum-exp loses there would be
    // lost of every weight.
    constexpr Index queries = 40, keys = 300;
    SplitMix64 random(11);
    Matrix<float> z(queries, keys);
    for (Index i = 0; i < z.size(); ++i)
        z.data()[i] = static_cast<float>(20'000 + std::round(512 * random.normal()) / 512);
    const auto source = [&](Index query, Index key, TileOut<float> tile) {
        tile = z.block(query, key, tile.rows(), tile.cols());
    };
    const auto rows = attnscope::scan_tiles<8, float>(queries, keys, source, MatrixView<float>());
    std::vector<double> totals;
    std::vector<float> narrow;
    std::vector<Ref> exact(static_cast<std::size_t>(keys));
    Worst worst;
    for (Index i = 0; i < queries; ++i) {
        const auto row = rows.rows[static_cast<std::size_t>(i)].statistics();
        totals.push_back(row.log_sum_exp());
        narrow.push_back(static_cast<float>(row.log_sum_exp()));
        Ref sum = 0, top = z.row(i).maxCoeff();
        for (Index j = 0; j < keys; ++j) sum += std::exp(Ref(z(i, j)) - top);
        for (Index j = 0; j < keys; ++j) {
            const Ref p = std::exp(Ref(z(i, j)) - top) / sum;
            exact[static_cast<std::size_t>(j)] += p / queries;
            worst.meet(std::abs(Ref(row.weight_of(z(i, j))) - p), Ref(1e-6) * p, // the sums of a float row
                       {"large logits", keys, 1, 11, "float", "weight"});
            worst.meet(row.weight_of(z(i, j)) <= row.max_weight(),
                       {"large logits", keys, 1, 11, "float", "order"});
        }
        // A logit of another arithmetic, which may lie above the largest, is no weight above it.
        CHECK(row.weight_of(static_cast<double>(top) + 3) == row.max_weight());
    }
    const auto found =
        attnscope::scan_column_mass<float>(queries, keys, source, std::span<const double>(totals));
    for (Index j = 0; j < keys; ++j) {
        const Ref right = exact[static_cast<std::size_t>(j)];
        // A difference of at most 10 and a sum of 32 terms in float, and the sums of a float row.
        worst.meet(std::abs(Ref(found.mass[j]) - right), (unit_roundoff<float> * 64 + Ref(1e-6)) * right,
                   {"large logits", keys, 1, 11, "float", "columns"});
    }
    CHECK(std::abs(found.row_sum - 1) < 5e-6);
    ATTNSCOPE_CHECK_WORST(worst);
    // What kernels return: a float is off by 1e-3 here, and so are all weights of its row.
    const auto rough =
        attnscope::scan_column_mass<float>(queries, keys, source, std::span<const float>(narrow));
    CHECK(std::abs(rough.row_sum - 1) < 1e-3);
    CHECK(std::isnan(attnscope::ColumnScan().row_sum));
}

TEST_CASE("log-sum-exps of other rows are refused", "[streaming][scan]") {
    SplitMix64 random(12);
    const Matrix<float> q = whole_numbers<float>(random, 20, 6), k = whole_numbers<float>(random, 50, 6);
    const HeadView<float> head(q, k, {}, 0.25F);
    const Mask mask = Mask::causal_bottom_right(20, 50);
    const auto rows = scan(head, mask);
    const auto masses = [&](const auto& change) {
        std::vector<double> totals;
        for (const auto& row : rows.rows) totals.push_back(change(row.statistics().log_sum_exp()));
        return attnscope::scan_column_mass<float>(20, 50, attnscope::ProductTiles<float>(head),
                                                  std::span<const double>(totals), mask);
    };
    CHECK(masses([](double x) { return x; }).row_sum == Catch::Approx(1).epsilon(1e-5));
    using attnscope::invalid_argument;
    CHECK_THROWS_AS(masses([](double x) { return x / std::log(2.0); }), invalid_argument); // base 2
    CHECK_THROWS_AS(masses([](double x) { return x - 200; }), invalid_argument);
    CHECK_THROWS_AS(masses([](double x) { return x + 200; }), invalid_argument);
    CHECK_THROWS_AS(masses([](double x) { return 8 * x; }), invalid_argument); // another scale
    // Rows of another mask see more than these do.
    CHECK_THROWS_AS(attnscope::scan_column_mass(head, scan(head), mask), invalid_argument);
    // Rows that say nothing are left out.
    CHECK(std::isnan(masses([](double) { return std::numeric_limits<double>::quiet_NaN(); }).row_sum));
}

TEMPLATE_TEST_CASE("tiles of logits do not depend on how they are cut", "[streaming][scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    bool same_bits = true;
    for (const auto& [queries, keys, width] : {std::tuple<Index, Index, Index>{1, 40, 5},
                                               {7, 9, 1},
                                               {8, 1, 64},
                                               {29, 75, 19},
                                               {40, 131, 64},
                                               {9, 3, 0}}) {
        SplitMix64 random = generator(seed, queries, keys, 3);
        Matrix<T> wide(queries, width + 3), k(keys, width);
        for (Index i = 0; i < wide.size(); ++i) wide.data()[i] = static_cast<T>(random.normal());
        for (Index i = 0; i < k.size(); ++i) k.data()[i] = static_cast<T>(random.normal());
        const MatrixView<T> q(wide.data(), queries, width, width + 3);
        const HeadView<T> head(q, k, {}, T(0.3));
        const attnscope::ProductTiles<T> product(head);
        Matrix<T> whole(queries, keys);
        product(0, 0, TileOut<T>(whole.data(), queries, keys, Eigen::OuterStride<>(keys)));
        for (Index i = 0; i < queries; ++i)
            for (Index j = 0; j < keys; ++j) {
                Ref exact = 0, size = 0;
                for (Index c = 0; c < width; ++c) {
                    exact += Ref(q.row(i)[static_cast<std::size_t>(c)]) * k(j, c);
                    size += std::abs(Ref(q.row(i)[static_cast<std::size_t>(c)]) * k(j, c));
                }
                worst.meet(std::abs(Ref(whole(i, j)) - T(0.3) * exact),
                           static_cast<Ref>(width + 2) * unit_roundoff<T> * T(0.3) * size,
                           {"normal", static_cast<std::size_t>(width), 1, seed, scalar_name<T>(), "logits"});
            }
        for (int repetition = 0; repetition < 20; ++repetition) {
            const Index i = random.below(queries), j = random.below(keys), rows = 1 + random.below(queries - i),
                        cols = 1 + random.below(keys - j), stride = cols + random.below(4);
            std::vector<T> room(static_cast<std::size_t>(rows * stride) + 1, T(-77));
            product(i, j, TileOut<T>(room.data(), rows, cols, Eigen::OuterStride<>(stride)));
            for (Index y = 0; y < rows; ++y)
                for (Index x = 0; x < stride; ++x) { // and nothing is written beside it
                    const T found = room[static_cast<std::size_t>(y * stride + x)];
                    if (x >= cols)
                        same_bits = same_bits && found == T(-77);
                    else if (queries >= 8)
                        same_bits = same_bits && found == whole(i + y, j + x);
                    else // few queries: Eigen's product, which may add in another order
                        same_bits = same_bits && std::abs(found - whole(i + y, j + x)) <=
                                                     T(width) * std::numeric_limits<T>::epsilon() * T(width);
                }
            same_bits = same_bits && room.back() == T(-77);
        }
    }
    CHECK(same_bits);
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("softcap and bias on the way", "[streaming][scan]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 77);
    const Index queries = 21, keys = 50;
    const Matrix<T> q = whole_numbers<T>(random, queries, 6), k = whole_numbers<T>(random, keys, 6);
    const HeadView<T> head(q, k, {}, T(0.25));
    const Mask mask = Mask::causal_bottom_right(queries, keys);
    const auto bias = [](Index query, Index key) {
        return key % 9 == 4 ? -std::numeric_limits<double>::infinity()
                            : -0.125 * static_cast<double>(query - key);
    };
    const auto found = scan_tiles<4, T>(
        queries, keys,
        attnscope::biased_tiles(
            attnscope::mapped_tiles(attnscope::ProductTiles<T>(head), attnscope::softcap(3)), bias),
        MatrixView<T>(), mask, {.query_tile = 5, .key_tile = 16});
    Worst worst;
    for (Index i = 0; i < queries; ++i) {
        std::vector<T> z = dense_row(head, mask, i);
        attnscope::softcap(3).apply<T>(in(z), out(z));
        for (Index j = 0; j < keys; ++j) z[static_cast<std::size_t>(j)] += static_cast<T>(bias(i, j));
        meet_row(worst, found.rows[static_cast<std::size_t>(i)], z,
                 {"biased", static_cast<std::size_t>(keys), 1, seed, scalar_name<T>(), "scan"});
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("heads of different lengths and shared keys are scanned as one by one", "[streaming][scan]",
                   float, double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 78);
    std::vector<Matrix<T>> q, k, v;
    std::vector<HeadView<T>> heads;
    std::vector<Mask> masks;
    const std::vector<std::pair<Index, Index>> shapes = {{70, 70}, {1, 33}, {0, 4}, {12, 5}, {40, 90}};
    for (const auto& [queries, keys] : shapes) {
        q.push_back(whole_numbers<T>(random, queries, 6));
        k.push_back(whole_numbers<T>(random, keys, 6));
        v.push_back(whole_numbers<T>(random, keys, 3));
        masks.push_back(Mask::causal_bottom_right(queries, keys));
    }
    for (std::size_t i = 0; i < q.size(); ++i) heads.emplace_back(q[i], k[i], v[i]);
    Index calls = 0, last = 0;
    const ScanOptions options{
        .query_tile = 16, .key_tile = 32, .output = true, .progress = [&](Index done, Index all) {
            CHECK(all == 123);
            ++calls;
            last = done;
            return true;
        }};
    const auto found = attnscope::scan_heads<4>(heads, masks, options, Threads(3));
    CHECK(calls == 5 + 1 + 0 + 1 + 3);
    CHECK(last == 123);
    REQUIRE(found.size() == heads.size());
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const auto one = scan<4>(heads[i], masks[i], {.query_tile = 16, .key_tile = 32, .output = true});
        CHECK(found[i].rows == one.rows);
        CHECK(found[i].output == one.output);
        CHECK_FALSE(found[i].cancelled);
    }
    CHECK_THROWS_AS((attnscope::scan_heads<4>(heads, std::vector<Mask>(2))), attnscope::invalid_argument);

    const Matrix<T> queries = whole_numbers<T>(random, 4 * 10, 6), keys = whole_numbers<T>(random, 2 * 15, 6);
    const attnscope::HeadGroup<T> group(attnscope::HeadArray<T>::contiguous(queries.data(), 4, 10, 6),
                                        attnscope::HeadArray<T>::contiguous(keys.data(), 2, 15, 6));
    const auto layer = attnscope::scan_heads<4>(group, Mask::causal(5));
    REQUIRE(layer.size() == 4);
    for (Index i = 0; i < 4; ++i)
        CHECK(layer[static_cast<std::size_t>(i)].rows == scan<4>(group[i], Mask::causal(5)).rows);
}

TEST_CASE("values of NaN at masked keys do not reach the output", "[streaming][scan]") {
    Matrix<float> q(3, 1), k(3, 1), v(3, 1);
    q << 1, 1, 1;
    k << 0, 0, 0;
    v << 1, 3, std::numeric_limits<float>::quiet_NaN();
    const auto found = scan(HeadView<float>(q, k, v), Mask::causal(), {.output = true});
    CHECK(found.output(0, 0) == 1);
    CHECK(found.output(1, 0) == 2);
    CHECK(std::isnan(found.output(2, 0)));
}

TEST_CASE("a scan can be followed, cancelled and refused", "[streaming][scan]") {
    const Matrix<float> q = Matrix<float>::Ones(10, 2), k = Matrix<float>::Ones(10, 2);
    const HeadView<float> head(q, k);
    std::vector<Index> seen;
    const auto whole = scan(head, {}, {.query_tile = 4, .progress = [&](Index done, Index all) {
                                           CHECK(all == 10);
                                           seen.push_back(done);
                                           return true;
                                       }});
    CHECK(seen == std::vector<Index>{4, 8, 10});
    CHECK_FALSE(whole.cancelled);
    const auto part = scan(head, {}, {.query_tile = 4, .progress = [](Index, Index) { return false; }});
    CHECK(part.cancelled);
    CHECK(part.rows[3].finite_keys() == 10);
    CHECK(part.rows[4].finite_keys() == 0);
    CHECK_THROWS_AS(scan(head, {}, {.output = true}), attnscope::invalid_argument);
    CHECK_THROWS_AS(scan(head, {}, {.query_tile = -1}), attnscope::invalid_argument);
    CHECK_THROWS_AS(scan(head, {}, {.key_tile = 0}), attnscope::invalid_argument);
    CHECK_THROWS_AS(scan(head, {}, {.key_tile = -1}), attnscope::invalid_argument);
    CHECK_THROWS_AS(scan(head, {}, {.query_tile = 1 << 20, .key_tile = 1 << 20}), attnscope::invalid_argument);
    CHECK_THROWS_AS(Threads(0), attnscope::invalid_argument);
    // More rows than memory can hold: refused before any work.
    const auto silent = [](Index, Index, TileOut<float>) { FAIL("asked for logits"); };
    CHECK_THROWS_WITH((scan_tiles<8, float>(Index(1) << 58, 10, silent, MatrixView<float>())),
                      Catch::Matchers::ContainsSubstring("288230376151711744"));
    const auto failing = [](Index, Index, TileOut<float>) { throw std::runtime_error("no logits"); };
    CHECK_THROWS_WITH((scan_tiles<8, float>(100, 10, failing, MatrixView<float>(), {}, {}, Threads(4))),
                      "no logits");
}

TEST_CASE("random shapes, masks and tiles: no mismatch", "[streaming][scan]") {
    const std::uint64_t seed = test_seed();
    const char* const asked = std::getenv("ATTNSCOPE_SOAK_SHAPES"); // a soak takes 10,000 and more
    const int shapes = asked ? std::max(1, std::atoi(asked)) : 2'000;
    Worst worst;
    SplitMix64 random = generator(seed, 10'000);
    for (int repetition = 0; repetition < shapes; ++repetition) {
        const Index queries = 1 + random.below(12), keys = 1 + random.below(40);
        const Matrix<float> q = whole_numbers<float>(random, queries, 3),
                            k = whole_numbers<float>(random, keys, 3);
        const HeadView<float> head(q, k, {}, 1.0F);
        const auto all = masks(queries, keys);
        const Named& named = all[static_cast<std::size_t>(random.below(static_cast<Index>(all.size())))];
        if (named.name == "segments" && keys < 6) continue;
        const auto found =
            scan<2>(head, named.mask, {.query_tile = 1 + random.below(14), .key_tile = 1 + random.below(45)});
        for (Index i = 0; i < queries; ++i)
            meet_row(worst, found.rows[static_cast<std::size_t>(i)], dense_row(head, named.mask, i),
                     Where{named.name, static_cast<std::size_t>(keys), 1, seed, "float", "scan"});
    }
    ATTNSCOPE_CHECK_WORST(worst);
}
