// attend, attend_backward, scan, scan_column_mass and their kin take heads, logits and executors alike.
#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/catch.hpp>

namespace {

using namespace attnscope;

/// 100 queries: more than a block.
template <class T>
struct Made {
    Matrix<T> q, k, v, g;
    explicit Made(std::uint64_t seed = 1) {
        SplitMix64 random(seed);
        const auto fill = [&](Index rows, Index cols) -> Matrix<T> {
            return Matrix<T>::NullaryExpr(rows, cols, [&] { return static_cast<T>(random.normal()); });
        };
        q = fill(100, 4), k = fill(90, 4), v = fill(90, 3), g = fill(100, 3);
    }
};

constexpr double scale = 0.3, at = 0.7;
double alibi(Index query, Index key) {
    return key == 5 ? -std::numeric_limits<double>::infinity() : 0.05 * double(key - query);
}

/// softmax((scale q.k + bias)/temperature) with the mask, each row by itself in long double.
Matrix<long double> expected_weights(const Made<double>& made, const Mask& mask) {
    Matrix<long double> p = Matrix<long double>::Zero(made.q.rows(), made.k.rows());
    for (Index i = 0; i < p.rows(); ++i) {
        long double sum = 0;
        for (Index j = 0; j < p.cols(); ++j) {
            if (!mask.visible(i, p.cols()).contains(j)) continue;
            long double z = 0;
            for (Index c = 0; c < made.q.cols(); ++c) z += (long double)(made.q(i, c)) * made.k(j, c);
            p(i, j) = std::exp(((long double)(scale)*z + alibi(i, j)) / (long double)(at));
            sum += p(i, j);
        }
        if (sum > 0) p.row(i) /= sum;
    }
    return p;
}

} // namespace

TEST_CASE("scale, temperature and bias of attend and of the scans are those of the formula",
          "[attention][doors]") {
    const Made<double> made;
    const HeadView<double> head(made.q, made.k, made.v);
    const Mask mask = Mask::causal();
    const Matrix<long double> p = expected_weights(made, mask);
    // Logits of order 10, sums of 90 terms: 1e-13 relative to weights of at most 1.
    const double error = 1e-13;
    const AttendOptions asked{.weights = true, .scale = scale, .temperature = at, .bias = alibi};
    const auto attention = attend(head, Softmax(), mask, asked);
    CHECK((attention.weights.cast<long double>() - p).cwiseAbs().maxCoeff() <= error);
    CHECK((attention.output.cast<long double>() - p * made.v.cast<long double>()).cwiseAbs().maxCoeff() <=
          10 * error);
    CHECK(attention.weights.col(5).isZero(0));
    // The temperature of softmax divides the biased logits too.
    const auto own =
        attend(made.q, made.k, made.v, Softmax(at), mask, {.weights = true, .scale = scale, .bias = alibi});
    CHECK((own.weights - attention.weights).cwiseAbs().maxCoeff() <= error);

    const ScanOptions scanned{.key_tile = 32, .output = true, .scale = scale, .temperature = at, .bias = alibi};
    const auto rows = scan(head, mask, scanned);
    CHECK((rows.output - attention.output).cwiseAbs().maxCoeff() <= 10 * error);
    for (Index i = 0; i < 100; ++i)
        CHECK(std::abs(rows.rows[std::size_t(i)].statistics().log_sum_exp() - attention.log_sum_exp[i]) <=
              100 * error);
    CHECK(scan(made.q, made.k, made.v, mask, scanned).rows == rows.rows);
    CHECK(scan_heads(std::vector{head, head}, mask, scanned)[1].rows == rows.rows);

    const TileOptions tiles{.key_tile = 32, .scale = scale, .temperature = at, .bias = alibi};
    const Eigen::ArrayXd mass = column_mass(MatrixView<double>(attention.weights), mask);
    const auto same = [&](const ColumnScan& columns) {
        CHECK(std::isnan(columns.mass[5]) == std::isnan(mass[5]));
        for (Index j = 0; j < 90; ++j) CHECK(std::abs(columns.mass[j] - mass[j]) <= error);
    };
    same(scan_column_mass(head, rows, mask, tiles));
    same(scan_column_mass(made.q, made.k, rows, mask, tiles));
    same(scan_column_mass(made.q, made.k, made.v, rows, mask, tiles, Threads(2)));
    same(scan_column_mass(made.q, made.k, made.v, attention.log_sum_exp, mask, tiles));
    same(scan_column_mass(head, std::vector<double>(attention.log_sum_exp.begin(), attention.log_sum_exp.end()),
                          mask, tiles));

    // Whole rows: z/T of each.
    scan_rows<double>(100, 90, ProductTiles<double>(HeadView<double>(made.q, made.k, {}, scale)),
                      [&](Index query, Index first, RowOut<double> z) {
                          Softmax().apply<double>(RowIn<double>(z), z);
                          for (std::size_t j = 0; j < z.size(); ++j)
                              CHECK(std::abs(z[j] - double(p(query, first + Index(j)))) <= error);
                      },
                      mask, {.temperature = at, .bias = alibi});
    const auto moments = scan_value_moments(head, mask, tiles);
    CHECK((moments.output - attention.output).cwiseAbs().maxCoeff() <= 10 * error);
    // A source has a scale of its own; a temperature must be one.
    CHECK_THROWS_AS(
        scan_column_mass<double>(100, 90, ProductTiles<double>(head), attention.log_sum_exp, mask, tiles),
        invalid_argument);
    CHECK_THROWS_AS(attend(head, Softmax(), mask, {.temperature = 0}), invalid_argument);
    CHECK_THROWS_AS(scan(head, mask, {.temperature = -1}), invalid_argument);
    CHECK_THROWS_AS(attend(head, Softmax(), mask, {.scale = std::nan("")}), invalid_argument);
}

TEST_CASE("a bias of -inf hides a key with all that stands at it", "[attention][doors]") {
    Made<double> made;
    const Mask mask = Mask::causal();
    const auto clean = attend(made.q, made.k, made.v, Softmax(), mask, {.bias = alibi});
    const auto d_clean = attend_backward(made.q, made.k, made.v, Softmax(), made.g, mask, {.bias = alibi});
    made.k.row(5).setConstant(std::numeric_limits<double>::quiet_NaN());
    made.v.row(5).setConstant(std::numeric_limits<double>::infinity());
    CHECK(
        attend(made.q, made.k, made.v, Softmax(), mask, {.bias = alibi}).output.isApprox(clean.output, 1e-14));
    CHECK(scan(made.q, made.k, made.v, mask, {.output = true, .bias = alibi})
              .output.isApprox(clean.output, 1e-13));
    const auto d = attend_backward(made.q, made.k, made.v, Softmax(), made.g, mask, {.bias = alibi});
    CHECK(d.q.isApprox(d_clean.q, 1e-13));
    CHECK(d.k.isApprox(d_clean.k, 1e-13));
    CHECK(d.v.isApprox(d_clean.v, 1e-13));
    CHECK(d.v.row(5).isZero(0));
}

TEST_CASE("attend_backward with scale, temperature and bias, against differences in long double",
          "[attention][doors]") {
    const Made<double> narrow(3);
    const Index n = 6, m = 7;
    Matrix<long double> q = narrow.q.topRows(n).cast<long double>(),
                        k = narrow.k.topRows(m).cast<long double>(),
                        v = narrow.v.topRows(m).cast<long double>();
    const Matrix<long double> g = narrow.g.topRows(n).cast<long double>();
    const auto check = [&](const auto& normalizer) {
        using L = long double;
        const auto loss = [&] {
            return attend(q, k, v, normalizer, Mask::causal(1),
                          {.scale = scale, .temperature = at, .bias = alibi})
                .output.cwiseProduct(g)
                .sum();
        };
        const AttentionGradient<L> d = attend_backward(q, k, v, normalizer, g, Mask::causal(1),
                                                       {.scale = scale, .temperature = at, .bias = alibi});
        const L step = 1e-5L; // its square times a third derivative, of order 10 at most, is 1e-9
        const auto compare = [&](Matrix<L>& x, const Matrix<L>& computed) {
            for (Index i = 0; i < x.size(); ++i) {
                const L here = x.data()[i];
                x.data()[i] = here + step;
                const L above = loss();
                x.data()[i] = here - step;
                const L below = loss();
                x.data()[i] = here;
                CHECK(std::abs((above - below) / (2 * step) - computed.data()[i]) <= 1e-7L);
            }
        };
        compare(q, d.q);
        compare(k, d.k);
        compare(v, d.v);
    };
    check(Softmax(1.3));
    check(SigmoidAttention(-0.5));
    check(SinkSoftmax(2));
}

TEMPLATE_TEST_CASE("attend_backward adds to buffers, blocks of matrices too", "[attention][doors]", float,
                   double) {
    using T = TestType;
    const Made<T> made;
    const Mask mask = Mask::causal();
    const HeadView<T> head(made.q, made.k, made.v);
    const auto d = attend_backward(head, Softmax(0.5), made.g, mask, {.parameter = true});
    Matrix<T> fused = Matrix<T>::Zero(100, 11), v = Matrix<T>::Zero(90, 3);
    const double parameter =
        attend_backward(head, Softmax(0.5), made.g, {fused.leftCols(4), fused.block(5, 5, 90, 4), v}, mask,
                        {.parameter = true}, Threads(3));
    CHECK(parameter == d.parameter);
    CHECK(fused.leftCols(4) == d.q);
    CHECK(fused.block(5, 5, 90, 4) == d.k);
    CHECK(fused.col(4).isZero(0));
    CHECK(v == d.v);
    // Once more: twice as much.
    const MatrixView<T> g(made.g);
    attend_backward(made.q, made.k, made.v, Softmax(0.5), g, {fused.leftCols(4), fused.block(5, 5, 90, 4), v},
                    mask);
    CHECK(fused.block(5, 5, 90, 4) == T(2) * d.k);
    CHECK(v == T(2) * d.v);
    CHECK_THROWS_WITH(attend_backward(head, Softmax(), made.g, {fused, v, v}),
                      "attend_backward: a gradient must have the shape of what it belongs to, got 100 and 11");
}

TEST_CASE("attend and attend_backward give the same bits on every executor", "[attention][executors]") {
    SplitMix64 random(4);
    const Matrix<float> q = Matrix<float>::NullaryExpr(1500, 3, [&] { return float(random.normal()); });
    const HeadView<float> head(q, q, q);
    const auto backwards = [](Index count, auto&& task) {
        for (Index i = count; i-- > 0;) task(i);
    };
    const auto alone = attend(head, Softmax(), Mask::causal());
    const auto d = attend_backward(head, Softmax(), q, Mask::causal());
    CHECK(attend(head, Softmax(), Mask::causal(), {}, Threads(3)).output == alone.output);
    CHECK(attend(head, Softmax(), Mask::causal(), {}, backwards).log_sum_exp.isApprox(alone.log_sum_exp, 0));
    const auto other = attend_backward(head, Softmax(), q, Mask::causal(), {}, backwards);
    CHECK(other.q == d.q);
    CHECK(other.k == d.k);
    CHECK(other.v == d.v);
}

TEST_CASE("keys that have been in a cache, of a head and of expressions", "[attention][doors]") {
    const Made<double> made;
    const CacheFormat format{CacheNumber::integer, 4};
    const Matrix<double> stored = through_cache(MatrixView<double>(made.k), format);
    CHECK(through_cache(2 * made.k, format) == through_cache(Matrix<double>(2 * made.k), format));
    const Head<double> head = through_cache(HeadView<double>(made.q, made.k, made.v, 0.3), format);
    CHECK(head.view().k().map() == stored);
    CHECK(head.view().scale() == 0.3);
    const Eigen::MatrixXd column_major = made.q;
    const Head<double> other = through_cache(column_major, made.k, made.v, format);
    CHECK(other.view().k().map() == stored);
}

TEST_CASE("a head without queries has gradients of 0", "[attention]") {
    const Matrix<double> none(0, 3), k = Matrix<double>::Ones(4, 3);
    const auto d = attend_backward(none, k, k, Softmax(), none, Mask(), {.parameter = true});
    CHECK(d.q.rows() == 0);
    CHECK((d.k.isZero(0) && d.v.isZero(0) && d.parameter == 0));
    CHECK(attend(none, k, k).output.rows() == 0);
}
