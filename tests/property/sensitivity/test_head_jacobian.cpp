// The Jacobian of a head with respect to its tokens, and rank collapse.
#include <attnscope/audit/certificates.hpp>
#include <attnscope/normalizer/scaled_softmax.hpp>
#include <attnscope/sensitivity/head_jacobian.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

#include <Eigen/SVD>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class T>
Matrix<T> random_matrix(SplitMix64& random, Index rows, Index cols, double size = 1) {
    Matrix<T> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(size * random.normal());
    return m;
}

/// A head of n tokens of D numbers, with offsets on q, k and v.
struct TokenHead {
    Matrix<double> x, wq, wk, wv, bq, bk, bv, q, k, v;
    TokenHead(SplitMix64& random, Index n, Index width, Index d, Index dv, double size)
        : x(random_matrix<double>(random, n, width)), wq(random_matrix<double>(random, width, d, size)),
          wk(random_matrix<double>(random, width, d, size)), wv(random_matrix<double>(random, width, dv)),
          bq(random_matrix<double>(random, 1, d)), bk(random_matrix<double>(random, 1, d)),
          bv(random_matrix<double>(random, 1, dv)) {
        q = (x * wq).rowwise() + bq.row(0);
        k = (x * wk).rowwise() + bk.row(0);
        v = (x * wv).rowwise() + bv.row(0);
    }
    HeadView<double> head() const { return HeadView<double>(q, k, v); }
    HeadProjections<double> from() const { return {wq, wk, wv}; }

    /// The output at x + step dx in extended precision, softmax.
    Matrix<Ref> output(const Matrix<double>& dx, Ref step, const Mask& mask, double beta) const {
        const Matrix<Ref> moved = x.cast<Ref>() + step * dx.cast<Ref>();
        const auto project = [&](const Matrix<double>& w, const Matrix<double>& b) {
            return Matrix<Ref>((moved * w.cast<Ref>()).rowwise() + b.cast<Ref>().row(0));
        };
        const Matrix<Ref> qs = project(wq, bq), ks = project(wk, bk), vs = project(wv, bv);
        Matrix<Ref> result = Matrix<Ref>::Zero(x.rows(), vs.cols());
        for (Index i = 0; i < x.rows(); ++i) {
            Ref sum = 0;
            mask.visible(i, x.rows()).for_each([&](Index j) {
                const Ref e = std::exp(Ref(beta) * Ref(head().scale()) * qs.row(i).dot(ks.row(j)));
                sum += e;
                result.row(i) += e * vs.row(j);
            });
            if (sum > 0) result.row(i) /= sum;
        }
        return result;
    }
};

const std::array<Mask, 3> masks = {Mask::none(), Mask::causal(), Mask::sliding_window(3)};

template <class J>
Matrix<double> dense(const J& jacobian, Index outputs) {
    const Index n = jacobian.tokens(), width = jacobian.width();
    Matrix<double> all(outputs, n * width);
    for (Index c = 0; c < n * width; ++c) {
        Matrix<double> unit = Matrix<double>::Zero(n, width);
        unit.data()[c] = 1;
        const Matrix<double> column = jacobian.jvp(MatrixView<double>(unit));
        all.col(c) = Eigen::Map<const Eigen::VectorXd>(column.data(), column.size());
    }
    return all;
}

double largest_singular_value(const Matrix<double>& m) {
    return Eigen::JacobiSVD<Eigen::MatrixXd>(Eigen::MatrixXd(m)).singularValues().maxCoeff();
}

} // namespace

TEST_CASE("products with a head's Jacobian agree with differences, and with each other",
          "[theorem][head_jacobian]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst difference, adjoint;
    for (const Index n : {Index(1), Index(2), Index(5), Index(9)})
        for (const double size : {0.2, 0.7})
            for (const Mask& mask : masks) {
                SplitMix64 random = generator(seed, n, 101);
                const TokenHead tokens(random, n, 6, 3, 4, size);
                const HeadJacobian<double> jacobian(tokens.head(), tokens.from(), mask);
                const Matrix<double> dx = random_matrix<double>(random, n, 6),
                                     w = random_matrix<double>(random, n, 4);
                const Matrix<double> forward = jacobian.jvp(MatrixView<double>(dx)),
                                     backward = jacobian.vjp(MatrixView<double>(w));
                const Where where{"head", static_cast<std::size_t>(n), size, seed};
                const Ref h = 1e-7L;
                const Matrix<Ref> slope =
                    (tokens.output(dx, h, mask, 1) - tokens.output(dx, -h, mask, 1)) / (2 * h);
                // h^2 times a third derivative, 1e3 for logits of this size, and rounding of double.
                difference.meet((forward.cast<Ref>() - slope).norm(), 1e-9L + 1e-12L * slope.norm(), where);
                const double left = (forward.array() * w.array()).sum(),
                             right = (backward.array() * dx.array()).sum();
                adjoint.meet(std::abs(Ref(left) - Ref(right)),
                             256 * unit_roundoff<double> * (Ref(forward.norm()) * Ref(w.norm()) + 1), where);
            }
    ATTNSCOPE_CHECK_WORST(difference);
    ATTNSCOPE_CHECK_WORST(adjoint);

    // Any normaliser: scaled softmax is softmax at its own inverse temperature.
    SplitMix64 random = generator(seed, 111);
    const TokenHead tokens(random, 6, 5, 3, 4, 0.5);
    const HeadJacobian<double, ScalableSoftmax> jacobian(tokens.head(), tokens.from(), Mask::none(),
                                                         ScalableSoftmax(0.43));
    const Matrix<double> dx = random_matrix<double>(random, 6, 5);
    const Ref h = 1e-6L;
    const double beta = 0.43 * std::log(6.0);
    const Matrix<Ref> slope =
        (tokens.output(dx, h, Mask::none(), beta) - tokens.output(dx, -h, Mask::none(), beta)) / (2 * h);
    CHECK((jacobian.jvp(MatrixView<double>(dx)).cast<Ref>() - slope).norm() < 1e-9L);
}

TEST_CASE("the norm of a head's Jacobian lies between iteration and certificate", "[theorem][head_jacobian]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst below, above, exact;
    double tightest = 0;
    for (int repetition = 0; repetition < 12; ++repetition)
        for (const Index n : {Index(1), Index(3), Index(8)})
            for (const double size : {0.05, 0.4, 1.5})
                for (const Mask& mask : masks) {
                    SplitMix64 random = generator(seed, n, repetition, 121);
                    const TokenHead tokens(random, n, 5, 3, 2, size);
                    const HeadJacobian<double> jacobian(tokens.head(), tokens.from(), mask);
                    const double norm = largest_singular_value(dense(jacobian, n * 2));
                    const auto iterated = jacobian.norm(20000, 1e-13);
                    const auto limit = token_jacobian_limit(tokens.head(), tokens.from(), mask);
                    const Where where{"head", static_cast<std::size_t>(n), size, seed};
                    below.meet(iterated.value <= norm * (1 + 1e-12), where);
                    exact.meet(std::abs(Ref(iterated.value) - Ref(norm)), 1e-4L * Ref(norm), where);
                    above.meet(norm <= limit.total() * (1 + 1e-12), where);
                    above.meet(token_jacobian_sharp(iterated, limit, n, 5).verdict() == Verdict::holds ||
                                   std::abs(limit.total() - norm) < 1e-12 * norm,
                               where);
                    tightest = std::max(tightest, norm / limit.total());
                }
    ATTNSCOPE_CHECK_WORST(below);
    ATTNSCOPE_CHECK_WORST(exact);
    ATTNSCOPE_CHECK_WORST(above);
    CHECK(tightest > 0.9);

    // Attained where the weights do not depend on the tokens, under every mask.
    SplitMix64 random = generator(seed, 131);
    TokenHead tokens(random, 7, 5, 3, 4, 1);
    tokens.wq.setZero();
    tokens.wk.setZero();
    tokens.q.setZero();
    tokens.k.setZero();
    for (const Mask& mask : masks) {
        const HeadJacobian<double> jacobian(tokens.head(), tokens.from(), mask);
        const auto bound = token_jacobian_sharp(jacobian.norm(2000, 0.0),
                                                token_jacobian_limit(tokens.head(), tokens.from(), mask), 7, 5);
        CAPTURE(bound.value, bound.measured);
        CHECK(std::abs(bound.slack()) < 1e-9 * bound.value); // iteration reaches the norm to this
        CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
        CHECK(bound.verdict() != Verdict::violated);
    }
}

TEST_CASE("the certified norm of a causal head is near its norm", "[head_jacobian]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    double least = 1, gain = 0;
    for (int repetition = 0; repetition < 4; ++repetition) {
        SplitMix64 random = generator(seed, repetition, 132);
        const TokenHead tokens(random, 48, 6, 4, 4, 0.4);
        const HeadJacobian<double> jacobian(tokens.head(), tokens.from(), Mask::causal());
        const auto limit = token_jacobian_limit(tokens.head(), tokens.from(), Mask::causal());
        const double norm = jacobian.norm(500, 1e-9).value;
        least = std::min(least, norm / limit.total());
        gain =
            std::max(gain, (limit.through_query + limit.through_value + limit.through_key) / limit.blockwise);
    }
    CHECK(least > 0.5); // by parts less than 0.4
    CHECK(gain > 1.3);
}

TEST_CASE("sizes alone limit a head's Jacobian, of the order of the root of the number of tokens",
          "[theorem][head_jacobian]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst holds;
    double tightest = 0;
    const auto meet = [&](TokenHead& tokens, const Mask& mask) {
        tokens.q = tokens.x * tokens.wq;
        tokens.k = tokens.x * tokens.wk;
        const Index n = tokens.x.rows(), width = tokens.x.cols();
        const Matrix<double> scores = tokens.head().scale() * tokens.wq * tokens.wk.transpose();
        const double limit =
            data_free_jacobian_limit(n, tokens.x.rowwise().norm().maxCoeff(), largest_singular_value(scores),
                                     largest_singular_value(tokens.wv));
        const auto norm = HeadJacobian<double>(tokens.head(), tokens.from(), mask).norm(200);
        const Bound<double> bound = data_free_lipschitz_sharp(norm, limit, n, width);
        const Where where{"head", static_cast<std::size_t>(n), limit, seed};
        holds.meet(bound.verdict() == Verdict::holds || bound.verdict() == Verdict::within_rounding, where);
        // What looks at the data is sharper.
        holds.meet(token_jacobian_limit(tokens.head(), tokens.from(), mask).total() <= limit * (1 + 1e-12),
                   where);
        tightest = std::max(tightest, bound.tightness());
        return norm.value;
    };
    for (int repetition = 0; repetition < 5; ++repetition)
        for (const Index n : {Index(1), Index(3), Index(8), Index(20)})
            for (const double size : {0.0, 0.05, 0.4, 1.5})
                for (const Mask& mask : masks) {
                    SplitMix64 random = generator(seed, n, repetition, 151);
                    TokenHead tokens(random, n, 5, 3, 2, size);
                    meet(tokens, mask);
                }
    ATTNSCOPE_CHECK_WORST(holds);
    CHECK(tightest > 0.9);
    // One key that all queries look at: the norm is at least |W_V| sqrt(n).
    for (const Index n : {Index(4), Index(16), Index(64)}) {
        SplitMix64 random = generator(seed, n, 161);
        TokenHead tokens(random, n, 3, 1, 1, 1);
        tokens.wq << 6, 0, 0;
        tokens.wk << 6, 0, 0;
        tokens.wv << 0, 0, 1;
        for (Index i = 0; i < n; ++i) tokens.x.row(i) << 1, 0, 0;
        tokens.x(0, 0) = 3;
        CHECK(meet(tokens, Mask::none()) > 0.99 * std::sqrt(static_cast<double>(n)));
    }
    ATTNSCOPE_CHECK_WORST(holds);
    CHECK_THROWS_AS(data_free_jacobian_limit(0, 1.0, 1.0, 1.0), invalid_argument);
    CHECK_THROWS_AS(data_free_jacobian_limit(2, -1.0, 1.0, 1.0), invalid_argument);
}

TEST_CASE("a power step certifies the norm of a matrix without negative entries", "[head_jacobian]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst above, near;
    for (const Index rows : {Index(1), Index(2), Index(7), Index(30)})
        for (const Index cols : {Index(1), Index(3), Index(12)})
            for (std::uint64_t repetition = 0; repetition < 20; ++repetition) {
                SplitMix64 random = generator(seed, static_cast<std::uint64_t>(rows),
                                              static_cast<std::uint64_t>(cols), repetition);
                Matrix<double> m = random_matrix<double>(random, rows, cols).cwiseAbs();
                if (repetition % 4 == 1) m = m.cwiseMax(1).array() - 1; // with zeros, whole columns of them
                if (repetition % 4 == 2) m *= repetition % 8 == 2 ? 1e-200 : 1e200;
                if (repetition % 4 == 3) m.topRows(rows / 2).leftCols(cols / 2).setZero();
                const Ref norm = largest_singular_value(m);
                const Where where{"matrix", static_cast<std::size_t>(rows), static_cast<double>(cols), seed};
                for (const int steps : {1, 2, 5, 400}) {
                    const Ref limit = nonnegative_norm_limit(MatrixView<double>(m), steps);
                    above.meet(norm - limit, 64 * unit_roundoff<double> * norm, where);
                    if (steps == 400) near.meet(limit - norm, 1e-6L * norm, where);
                }
            }
    ATTNSCOPE_CHECK_WORST(above);
    ATTNSCOPE_CHECK_WORST(near);
    // Two tokens, equal logits, a causal mask.
    const Matrix<double> p = (Matrix<double>(2, 2) << 1, 0, 0.5, 0.5).finished();
    const std::array<double, 4> known = {1.22475, 1.15471, 1.14566, 1.14435};
    for (int steps = 1; steps <= 4; ++steps)
        CHECK(nonnegative_norm_limit(MatrixView<double>(p), steps) <
              known[static_cast<std::size_t>(steps - 1)]);
    CHECK(std::abs(nonnegative_norm_limit(MatrixView<double>(p)) - std::sqrt(0.75 + std::sqrt(5.0) / 4)) <
          1e-15);
    const Matrix<double> none(0, 3), zero = Matrix<double>::Zero(3, 2);
    CHECK(nonnegative_norm_limit(MatrixView<double>(none)) == 0);
    CHECK(nonnegative_norm_limit(MatrixView<double>(zero)) == 0);
    const Matrix<double> infinite = Matrix<double>::Constant(2, 2, std::numeric_limits<double>::infinity());
    CHECK(std::isinf(nonnegative_norm_limit(MatrixView<double>(infinite))));
    Matrix<double> not_a_number = zero;
    not_a_number(1, 1) = std::nan("");
    CHECK(std::isnan(nonnegative_norm_limit(MatrixView<double>(not_a_number))));
}

TEST_CASE("a head's Jacobian says what does not fit", "[head_jacobian]") {
    Matrix<double> q = Matrix<double>::Ones(3, 2), v = Matrix<double>::Ones(3, 4), w(5, 2), wv(5, 4),
                   wrong(6, 2);
    w.setOnes();
    wv.setOnes();
    wrong.setOnes();
    const HeadView<double> head(q, q, v);
    CHECK_THROWS_WITH(
        (HeadJacobian<double>(HeadView<double>(q, q), {w, w, wv})),
        "HeadJacobian: the head must have values and one query, key and value for each token, got 3 and 3");
    CHECK_THROWS_AS(token_jacobian_limit(head, {w, wrong, wv}), invalid_argument);
    CHECK_THROWS_AS(token_jacobian_limit(head, {wv, w, wv}), invalid_argument);
    const HeadJacobian<double> jacobian(head, {w, w, wv});
    CHECK_THROWS_AS(jacobian.jvp(MatrixView<double>(q)), invalid_argument);
    CHECK_THROWS_AS(jacobian.norm(0), invalid_argument);
    // Equal values of one head: only they move, the weights do not matter.
    CHECK(token_jacobian_limit(head, {w, w, wv}).through_key == 0);
}

TEST_CASE("rank collapse holds for heads and through layers, and is attained", "[theorem][rank_collapse]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Audit audit;
    for (int repetition = 0; repetition < 60; ++repetition)
        for (const Index n : {Index(2), Index(3), Index(9), Index(17)})
            for (const double size : {0.01, 1.0, 8.0}) {
                SplitMix64 random = generator(seed, n, repetition, 141);
                Matrix<double> z = random_matrix<double>(random, n, n, size);
                if (repetition % 3 == 0)
                    for (Index i = 0; i < n; ++i)
                        for (Index j = i + 1; j < n; ++j) z(i, j) = -std::numeric_limits<double>::infinity();
                const Matrix<double> x = random_matrix<double>(random, n, 3);
                audit_rank_collapse(audit, MatrixView<double>(z), MatrixView<double>(x));

                // Three rounds of mixing: the coefficients multiply.
                Matrix<double> mixed = x;
                std::vector<double> deltas;
                for (int layer = 0; layer < 3; ++layer) {
                    Matrix<double> p(n, n);
                    const Matrix<double> logits = random_matrix<double>(random, n, n, size);
                    for (Index i = 0; i < n; ++i)
                        Softmax{}.apply<double>(MatrixView<double>(logits).row(i),
                                                {p.data() + i * n, static_cast<std::size_t>(n)});
                    deltas.push_back(dobrushin_coefficient(MatrixView<double>(p)));
                    mixed = p * mixed;
                }
                const auto chain = rank_collapse_sharp<double>(
                    token_diameter(MatrixView<double>(mixed)), rank_collapse_factor<double>(deltas),
                    token_diameter(MatrixView<double>(x)), 3 * x.rowwise().norm().maxCoeff(), 3 * n);
                CHECK((chain.verdict() == Verdict::holds || chain.verdict() == Verdict::within_rounding));
            }
    for (const std::string_view id : {"rank_collapse", "dobrushin"}) {
        CAPTURE(std::string(id));
        CHECK(audit.at(named_statement(id, Form::sharp)).checked >= 720);
        CHECK(audit.at(named_statement(id, Form::sharp))[Verdict::violated] == 0);
        CHECK(audit.at(named_statement(id, Form::sharp))[Verdict::undefined] == 0);
    }
    // Two tokens, two keys: both limits are reached, by logits that are opposite.
    for (const double r : {0.1, 2.0, 9.0}) {
        Matrix<double> z(2, 2), x(2, 1);
        z << r / 4, -r / 4, -r / 4, r / 4;
        x << 3, -1;
        Audit two;
        audit_rank_collapse(two, MatrixView<double>(z), MatrixView<double>(x));
        for (const std::string_view id : {"rank_collapse", "dobrushin"})
            CHECK(two.at(named_statement(id, Form::sharp)).max_tightness() > 1 - 1e-14);
        Matrix<double> p(2, 2);
        for (Index i = 0; i < 2; ++i)
            Softmax{}.apply<double>(MatrixView<double>(z).row(i), {p.data() + 2 * i, 2});
        const double delta = dobrushin_coefficient(MatrixView<double>(p));
        CHECK(std::abs(delta - std::tanh(r / 4)) < 1e-15);
        const auto bound = dobrushin_sharp(delta, dobrushin_limit(MatrixView<double>(z)), 1e-15);
        CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
        const Matrix<double> mixed = p * x;
        const auto collapse =
            rank_collapse_sharp(token_diameter(MatrixView<double>(mixed)), delta, 4.0, 3.0, Index(2));
        CHECK(collapse.verdict() != Verdict::violated);
        CHECK(collapse.tightened(0.99).verdict() == Verdict::violated);
    }
    // A key that one query sees and another does not: what it has there.
    Matrix<double> z(2, 2);
    z << 0, -std::numeric_limits<double>::infinity(), 0, 0;
    CHECK(dobrushin_limit(MatrixView<double>(z)) == 0.5);
    z(0, 1) = std::nan("");
    CHECK(std::isnan(dobrushin_limit(MatrixView<double>(z))));
    CHECK(std::isnan(token_diameter(MatrixView<double>(z))));
}
