// Heads in half precision and in pages give the bits of the same numbers side by side in float.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/catch.hpp>

#include <memory>
#include <numeric>

namespace {

using namespace attnscope;

template <class S>
using Stored = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class S>
Stored<S> made(Index rows, Index cols, std::uint64_t seed) {
    SplitMix64 random(seed);
    return Matrix<float>::NullaryExpr(rows, cols, [&] { return float(random.normal()); }).template cast<S>();
}

/// The rows of a matrix in pages of their own, whose unused numbers are NaN.
template <class S>
struct Pages {
    std::vector<std::unique_ptr<S[]>> memory;
    std::vector<const S*> list;
    Pages(const Stored<S>& rows, Index page_rows, Index stride) {
        for (Index at = 0; at < rows.rows(); at += page_rows) {
            memory.push_back(std::make_unique<S[]>(std::size_t(page_rows * stride)));
            std::fill_n(memory.back().get(), page_rows * stride, S(std::numeric_limits<float>::quiet_NaN()));
            for (Index i = at; i < std::min(rows.rows(), at + page_rows); ++i)
                for (Index c = 0; c < rows.cols(); ++c)
                    memory.back()[std::size_t((i - at) * stride + c)] = rows(i, c);
            list.push_back(memory.back().get());
        }
    }
};

template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           (a.array() == b.array() || (a.array().isNaN() && b.array().isNaN())).all();
}

/// Calls of a visitor, one text a query.
using Visits = std::vector<std::vector<double>>;

/// What takes whole rows of logits.
template <class T, class S>
void check_row_scans(const S& stored, const HeadView<T>& plain, const Mask& mask) {
    const auto executor = Threads(2);
    const TileOptions options{.query_tile = 5, .key_tile = 16, .scale = 0.7, .temperature = 0.8};
    const auto same = [&](const auto& scan_of) { CHECK(same_bits<double>(scan_of(stored), scan_of(plain))); };
    same([&](const auto& head) {
        return Matrix<double>(scan_renyi_entropy(head, 1.5, mask, options, executor).entropy_nats.matrix());
    });
    same([&](const auto& head) { return scan_top_mass(head, {1, 3}, mask, options, executor).mass; });
    same([&](const auto& head) {
        const auto found = scan_divergence(head, plain, mask, options, executor);
        Matrix<double> both(plain.queries(), 2);
        for (Index i = 0; i < plain.queries(); ++i) {
            const Divergence& row = found.rows[std::size_t(i)];
            both.row(i) << row.forward, row.total_variation;
            CHECK((row.forward == 0 || row.status != RowStatus::normal));
        }
        return both;
    });
    same([&](const auto& head) {
        const auto found = scan_jacobian_norms(head, Sparsemax(), mask, options, executor);
        Matrix<double> norms(plain.queries(), 2);
        for (Index i = 0; i < plain.queries(); ++i)
            norms.row(i) << double(found.rows[std::size_t(i)].spectral.value),
                double(found.rows[std::size_t(i)].frobenius);
        return norms;
    });
    CHECK(scan_histogram(stored, mask, options, executor).histogram ==
          scan_histogram(plain, mask, options).histogram);
    const auto moments = scan_value_moments(stored, mask, options, executor),
               expected = scan_value_moments(plain, mask, options);
    CHECK(same_bits<T>(moments.output, expected.output));
    CHECK(same_bits<double>(moments.variance.matrix(), expected.variance.matrix()));

    const auto add = [](std::vector<double>& to, const auto& list) {
        to.insert(to.end(), list.begin(), list.end());
    };
    const auto visits = [&](const auto& head, const auto& gram) {
        Visits seen(std::size_t(3 * plain.queries()));
        const auto at = [&](Index scan, Index query) -> std::vector<double>& {
            return seen[std::size_t(scan * plain.queries() + query)];
        };
        const std::vector<Index> counts = {1, 4};
        scan_distances(
            head, counts, Softmax(),
            [&](Index query, std::span<const Index> keys, auto distances) {
                add(at(0, query), keys);
                add(at(0, query), distances);
            },
            mask, options, executor);
        std::vector<Index> all(std::size_t(plain.queries()));
        std::iota(all.begin(), all.end(), Index(0));
        scan_ranked_rows(
            all, head, gram, Softmax(),
            [&](const RankedRow<T>& row) {
                add(at(1, row.query), row.weights);
                add(at(1, row.query), row.order);
                for (Index i = 0; i < row.x.rows(); ++i) add(at(1, row.query), row.x.row(i));
                at(1, row.query).push_back(double(row.gram.sum()));
            },
            mask, options, executor);
        scan_distance_curves(
            head, 3,
            [&](Index query, std::span<const Index> keys, const auto& curve) {
                add(at(2, query), keys);
                add(at(2, query), curve.cumulative);
            },
            mask, options, executor);
        return seen;
    };
    const auto first = visits(stored, gram_matrix(stored.v()));
    CHECK(first == visits(plain, gram_matrix(plain.v())));
    CHECK(first[0].size() > 1);
    const std::vector<S> list(2, stored);
    CHECK(scan_heads(list, mask)[1].rows == scan(plain, mask).rows);
}

/// Every door with the head as it is stored and as it is in T.
template <class T, class S>
void check_doors(const S& stored, const HeadView<T>& plain, const Mask& mask) {
    const auto executor = Threads(2);
    const ScanOptions options{.key_tile = 16, .output = true};
    const auto scanned = scan(stored, mask, options, executor), expected = scan(plain, mask, options);
    CHECK(scanned.rows == expected.rows);
    CHECK(same_bits<T>(scanned.output, expected.output));
    const auto mass = [&](const auto& head) {
        return Matrix<double>(scan_column_mass(head, expected, mask, {}, executor).mass.matrix());
    };
    CHECK(same_bits<double>(mass(stored), mass(plain)));
    CHECK(same_bits<T>(attend(stored, Softmax(0.5), mask, {.scale = 0.4}).output,
                       attend(plain, Softmax(0.5), mask, {.scale = 0.4}).output));
    const Matrix<T> g = Matrix<T>::Ones(plain.queries(), plain.v().cols());
    CHECK(same_bits<T>(attend_backward(stored, Softmax(), g, mask).k,
                       attend_backward(plain, Softmax(), g, mask).k));
    const AnalysisOptions asked{.mask = mask, .counts = {2}};
    CHECK((analyze(stored, asked).rows.entropy_nats == analyze(plain, asked).rows.entropy_nats).all());
    AttentionGradient<T> into{Matrix<T>::Ones(plain.queries(), plain.q().cols()),
                              Matrix<T>::Ones(plain.keys(), plain.q().cols()),
                              Matrix<T>::Ones(plain.keys(), plain.v().cols()), 0},
        added = into;
    attend_backward(stored, Softmax(), g, {into.q, into.k, into.v}, mask);
    attend_backward(plain, Softmax(), g, {added.q, added.k, added.v}, mask);
    CHECK(same_bits<T>(into.q, added.q));
    CHECK(same_bits<T>(into.k, added.k));
    CHECK(same_bits<T>(into.v, added.v));
    check_row_scans<T>(stored, plain, mask);
}

} // namespace

TEMPLATE_TEST_CASE("views of half and bfloat16 are read without a copy, with the bits of float",
                   "[attention][stored]", Eigen::half, Eigen::bfloat16) {
    using S = TestType;
    for (const Index queries : {40, 3}) { // blocks of packed keys, and products of single rows
        const Stored<S> q = made<S>(queries, 7, 1), k = made<S>(37, 7, 2);
        Stored<S> v = made<S>(37, 5, 3);
        const HeadView head(q, k, v);
        static_assert(std::same_as<decltype(head), const HeadView<S>>);
        const Matrix<float> q32 = q.template cast<float>(), k32 = k.template cast<float>(),
                            v32 = v.template cast<float>();
        check_doors<float>(head, HeadView<float>(q32, k32, v32), Mask::causal(2));
        const Stored<S> fused = made<S>(queries + 37, 21, 4); // blocks of a wider matrix
        const HeadView block(fused.block(0, 0, queries, 7), fused.block(queries, 7, 37, 7),
                             fused.block(queries, 14, 37, 5), 0.3F);
        const Matrix<float> wide = fused.template cast<float>();
        check_doors<float>(block,
                           HeadView<float>(wide.block(0, 0, queries, 7), wide.block(queries, 7, 37, 7),
                                           wide.block(queries, 14, 37, 5), 0.3F),
                           Mask());
        CHECK_FALSE(HeadView(q, k).has_values());
        // NaN, and a logit of +inf whose output is looked up again.
        v(3, 1) = S(std::numeric_limits<float>::infinity());
        Stored<S> top = k;
        top.row(5).setConstant(S(std::numeric_limits<float>::infinity()));
        const Stored<S> ones = Stored<S>::Constant(queries, 7, S(1));
        const Matrix<float> ones32 = ones.template cast<float>(), top32 = top.template cast<float>(),
                            odd = v.template cast<float>();
        CHECK(same_bits<float>(scan(HeadView(ones, top, v), {}, {.output = true}).output,
                               scan(HeadView(ones32, top32, odd), {}, {.output = true}).output));
    }
}

TEMPLATE_TEST_CASE("keys and values in pages give the bits of those side by side", "[attention][stored]", float,
                   double) {
    using T = TestType;
    for (const Index queries : {30, 2})
        for (const Index page : {1, 8, 16, 50}) {
            const Stored<T> q = made<T>(queries, 6, 1), k = made<T>(41, 6, 2), v = made<T>(41, 4, 3);
            const Pages<T> keys(k, page, 9), values(v, page, 4);
            const StoredHead<T> head(StoredRows<T>(MatrixView<T>(q)),
                                     StoredRows<T>::paged(keys.list, page, 41, 6, 9),
                                     StoredRows<T>::paged(values.list, page, 41, 4));
            INFO("pages of " << page);
            check_doors<T>(head, HeadView<T>(q, k, v), Mask::causal_bottom_right(queries, 41));
        }
    const std::vector<const T*> none;
    CHECK_THROWS_AS(StoredRows<T>::paged(none, 16, 1, 4), invalid_argument);
    CHECK_THROWS_AS(StoredRows<T>::paged(none, 0, 0, 4), invalid_argument);
    CHECK(StoredRows<T>::paged(none, 16, 0, 4).rows() == 0);
}

TEST_CASE("pages of half precision, and a whole layer of it", "[attention][stored]") {
    const Stored<Eigen::half> q = made<Eigen::half>(24, 8, 1), k = made<Eigen::half>(24, 8, 2);
    const Matrix<float> q32 = q.cast<float>(), k32 = k.cast<float>();
    const Pages<Eigen::half> pages(k, 16, 8);
    const auto rows = StoredRows<float>::paged(pages.list, 16, 24, 8);
    const StoredHead<float> head(StoredRows<float>(q.data(), 24, 8, 8), rows, rows);
    check_doors<float>(head, HeadView<float>(q32, k32, k32), Mask::causal());

    using Array = HeadArray<Eigen::half>;
    const HeadGroup<Eigen::half> group(Array::contiguous(q.data(), 4, 6, 8),
                                       Array::contiguous(k.data(), 2, 12, 8),
                                       Array::contiguous(k.data(), 2, 12, 8));
    const HeadGroup<float> wide(HeadArray<float>::contiguous(q32.data(), 4, 6, 8),
                                HeadArray<float>::contiguous(k32.data(), 2, 12, 8),
                                HeadArray<float>::contiguous(k32.data(), 2, 12, 8));
    const auto outputs = attend(group, Softmax(), Mask()), expected = attend(wide, Softmax(), Mask());
    const auto scans = scan_heads(group), wide_scans = scan_heads(wide);
    const auto layer = analyze(group, {.counts = {1}}), wide_layer = analyze(wide, {.counts = {1}});
    const std::vector<Matrix<float>> d_outputs(4, Matrix<float>::Constant(6, 8, 0.5F));
    const auto gradient = attend_backward(group, Softmax(0.5), d_outputs, Mask::causal(), {.parameter = true}),
               wide_gradient =
                   attend_backward(wide, Softmax(0.5), d_outputs, Mask::causal(), {.parameter = true});
    CHECK(gradient.q == wide_gradient.q);
    CHECK(gradient.k == wide_gradient.k);
    CHECK(gradient.v == wide_gradient.v);
    CHECK(gradient.parameter == wide_gradient.parameter);
    for (std::size_t h = 0; h < 4; ++h) {
        CHECK(outputs[h].output == expected[h].output);
        CHECK(scans[h].rows == wide_scans[h].rows);
        CHECK((layer.heads[h].rows.entropy_nats == wide_layer.heads[h].rows.entropy_nats).all());
    }
}
