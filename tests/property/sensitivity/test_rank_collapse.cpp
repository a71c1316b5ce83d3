// Dobrushin's coefficient where queries do not see the same keys: of pairs of rows, of causal heads, of any set of rows
// and of stacks of layers.
#include <attnscope/audit/certificates.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Matrix<double> weights_of(const Matrix<double>& z) {
    Matrix<double> p(z.rows(), z.cols());
    for (Index i = 0; i < z.rows(); ++i)
        Softmax{}.apply<double>(MatrixView<double>(z).row(i),
                                {p.data() + i * z.cols(), static_cast<std::size_t>(z.cols())});
    return p;
}

/// max_ij TV, from its definition.
Ref largest_distance(const Matrix<double>& p) {
    Ref largest = 0;
    for (Index i = 0; i < p.rows(); ++i)
        for (Index j = 0; j < i; ++j) {
            Ref sum = 0;
            for (Index key = 0; key < p.cols(); ++key) sum += std::abs(Ref(p(i, key)) - Ref(p(j, key)));
            largest = std::max(largest, sum / 2);
        }
    return largest;
}

/// Logits of a family, row by row, under the causal mask.
Matrix<double> causal_logits(const Family& family, SplitMix64& random, Index n) {
    Matrix<double> z(n, n);
    for (Index i = 0; i < n; ++i) {
        family.fill(random, {z.data() + i * n, static_cast<std::size_t>(n)});
        if (!(z(i, 0) > -infinity)) z(i, 0) = 0; // the first key is seen by all
        for (Index j = i + 1; j < n; ++j) z(i, j) = -infinity;
    }
    return z;
}

} // namespace

TEST_CASE("two rows that do not see the same keys are as far apart as their common keys allow",
          "[theorem][dobrushin]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst holds;
    for_each_row<double>(seed, short_lengths, 40, [&](const Where& where, const std::vector<double>& drawn) {
        const Index n = static_cast<Index>(drawn.size());
        SplitMix64 random = generator(seed, drawn.size(), 301);
        Matrix<double> z(2, n);
        for (Index key = 0; key < n; ++key) {
            z(0, key) = drawn[static_cast<std::size_t>(key)];
            // Equal logits, shifted ones, other ones.
            z(1, key) = z(0, key) + 3 * random.uniform() * static_cast<double>(random.below(2));
            if (random.below(4) == 0) z(static_cast<Index>(random.below(2)), key) = -infinity;
        }
        const Matrix<double> p = weights_of(z);
        const double limit = dobrushin_limit(MatrixView<double>(z), MatrixView<double>(p));
        holds.meet(largest_distance(p) - Ref(limit),
                   64 * unit_roundoff<double> * Ref(1 + static_cast<double>(n)), where);
        holds.meet(limit <= 1, where);
    });
    ATTNSCOPE_CHECK_WORST(holds);

    // Attained by two common keys, for every range and every weight on the keys that only one row sees.
    for (const double r : {0.2, 1.0, 4.0, 12.0})
        for (const double m1 : {0.0, 1e-3, 0.3, 0.9})
            for (const double m2 : {0.0, 0.25, 0.8}) {
                CAPTURE(r, m1, m2);
                const double limit = total_variation_limit(r, m1, m2);
                // Shares of the common weights, q_1 and q_2 of log odds r apart: the overlap is least where
                // b_1^2 q_1 = b_2^2 q_2 changes to its opposite, or at an end.
                Ref found = 0;
                for (int step = 0; step <= 40000; ++step) {
                    const Ref q = Ref(step) / 40000, odds = std::exp(Ref(r)) * q, other = odds / (1 - q + odds);
                    for (const auto& [first, second] : {std::pair(q, other), std::pair(other, q)})
                        found = std::max(found, 1 - std::min((1 - m1) * first, (1 - m2) * second) -
                                                    std::min((1 - m1) * (1 - first), (1 - m2) * (1 - second)));
                }
                CHECK(Ref(limit) >= found - 1e-15L);
                CHECK(Ref(limit) * 0.999L <= found);
            }
    CHECK(total_variation_limit(3.0, 0.0, 0.0) == total_variation_limit(3.0));
    CHECK(total_variation_limit(0.0, 0.25, 0.5) == 0.5);
    CHECK(total_variation_limit(infinity, 0.25, 0.5) == 1);
    CHECK(total_variation_limit(0, 1, 1) == 1);
    CHECK_THROWS_AS(total_variation_limit(1.0, -0.1, 0.0), invalid_argument);
    CHECK_THROWS_AS(total_variation_limit(1.0, 0.1, 1.5), invalid_argument);
}

TEST_CASE("under a causal mask Dobrushin's coefficient is what is not on the first key",
          "[theorem][dobrushin]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst exact, limit_is_exact;
    Audit audit;
    std::size_t heads = 0;
    for (const Family& family : row_families)
        for (const Index n : {Index(1), Index(2), Index(5), Index(33)})
            for (std::uint64_t repetition = 0; repetition < 5; ++repetition) {
                SplitMix64 random = generator(seed, static_cast<std::uint64_t>(n), repetition, 311);
                const Matrix<double> z = causal_logits(family, random, n), p = weights_of(z);
                const Where where{family.name, static_cast<std::size_t>(n), 1, seed};
                const Ref error = 8 * unit_roundoff<double> * Ref(n);
                const double delta = dobrushin_coefficient(MatrixView<double>(p));
                exact.meet(std::abs(Ref(delta) - largest_distance(p)), error, where);
                Ref least = 1;
                for (Index i = 0; i < n; ++i) least = std::min(least, Ref(p(i, 0)));
                exact.meet(std::abs(Ref(delta) - (1 - least)), error, where);
                limit_is_exact.meet(std::abs(Ref(dobrushin_limit(MatrixView<double>(z))) - Ref(delta)), error,
                                    where);
                if (n < 2) continue;
                ++heads;
                const Matrix<double> values = z.cwiseMax(-5);
                audit_rank_collapse(audit, MatrixView<double>(z), MatrixView<double>(values));
            }
    ATTNSCOPE_CHECK_WORST(exact);
    ATTNSCOPE_CHECK_WORST(limit_is_exact);
    const AuditRecord& record = audit.at(dobrushin_sharp_statement);
    CHECK(record.checked == heads);
    CHECK(record[Verdict::violated] + record[Verdict::undefined] == 0);
    CHECK(record[Verdict::vacuous] < heads / 4); // a key in sight of one query alone may have all its weight
    CHECK(record.median_tightness() > 0.999);

    // A sink: the first key four logits above the others.
    Matrix<double> z = Matrix<double>::Constant(32, 32, -infinity);
    for (Index i = 0; i < 32; ++i)
        for (Index j = 0; j <= i; ++j) z(i, j) = j == 0 ? 6 : 0;
    const Matrix<double> p = weights_of(z);
    const auto bound = dobrushin_sharp(dobrushin_coefficient(MatrixView<double>(p)),
                                       dobrushin_limit(MatrixView<double>(z)), 1e-14);
    check_attained(bound);
    CHECK(std::abs(bound.value - 31 / (31 + std::exp(6.0))) < 1e-14);

    Matrix<double> not_a_number = p;
    not_a_number(7, 0) = std::nan("");
    CHECK(std::isnan(dobrushin_coefficient(MatrixView<double>(not_a_number))));
    CHECK(std::isnan(doeblin_limit(MatrixView<double>(not_a_number))));
    CHECK(std::isnan(dobrushin_limit(MatrixView<double>(z), MatrixView<double>(not_a_number))));
}

TEST_CASE("Doeblin's bound holds for any rows, and is attained where the least weights are those of two",
          "[theorem][dobrushin]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst holds;
    for_each_row<double>(seed, short_lengths, 10, [&](const Where& where, const std::vector<double>& drawn) {
        SplitMix64 random = generator(seed, drawn.size(), 321);
        const Index n = static_cast<Index>(drawn.size());
        Matrix<double> z(4, n);
        for (Index i = 0; i < 4; ++i)
            for (Index key = 0; key < n; ++key)
                z(i, key) =
                    drawn[static_cast<std::size_t>(key)] * (1 + 0.3 * static_cast<double>(random.below(3)));
        if (visible_count(drawn) == 0) return;
        const Matrix<double> p = weights_of(z);
        holds.meet(largest_distance(p) - Ref(doeblin_limit(MatrixView<double>(p))),
                   8 * unit_roundoff<double> * Ref(n), where);
    });
    ATTNSCOPE_CHECK_WORST(holds);
    Matrix<double> p(3, 3);
    p << 0.5, 0.25, 0.25, 0.25, 0.5, 0.25, 0.375, 0.375, 0.25;
    CHECK(doeblin_limit(MatrixView<double>(p)) == 0.25);
    CHECK(dobrushin_coefficient(MatrixView<double>(p)) == 0.25);
    const Matrix<double> single = p.topRows(1);
    CHECK(doeblin_limit(MatrixView<double>(single)) == 0);
}

TEST_CASE("a stack of causal layers has the coefficient of its product", "[theorem][dobrushin]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    for (const Index n : {Index(1), Index(2), Index(9), Index(24)}) {
        SplitMix64 random = generator(seed, static_cast<std::uint64_t>(n), 331);
        std::vector<Matrix<double>> layers;
        std::vector<double> coefficients;
        Matrix<double> product = Matrix<double>::Identity(n, n);
        for (int layer = 0; layer < 6; ++layer) {
            layers.push_back(weights_of(causal_logits(row_families[1], random, n)));
            coefficients.push_back(dobrushin_coefficient(MatrixView<double>(layers.back())));
            product = (layers.back() * product).eval();
            std::vector<MatrixView<double>> views(layers.begin(), layers.end());
            const double delta = causal_stack_coefficient<double>(views, n);
            CAPTURE(n, layer);
            CHECK(std::abs(Ref(delta) - largest_distance(product)) < 1e-14L);
            // No more than the product of the coefficients, which is what the layers say one by one.
            CHECK(delta <= rank_collapse_factor(coefficients) * (1 + 1e-13));
            // And it is attained: the first token at one place, all others at another.
            Matrix<double> x = Matrix<double>::Ones(n, 1);
            x(0, 0) = 0;
            const Matrix<double> mixed = product * x;
            const auto bound =
                rank_collapse_sharp(token_diameter(MatrixView<double>(mixed)), delta, 1.0, 1.0, n);
            if (n > 1) check_attained(bound);
        }
    }
    const Matrix<double> full = Matrix<double>::Constant(2, 2, 0.5);
    const std::vector<MatrixView<double>> one(1, MatrixView<double>(full));
    CHECK_THROWS_AS(causal_stack_coefficient<double>(one, 2), invalid_argument);
    CHECK_THROWS_AS(causal_stack_coefficient<double>(one, 3), invalid_argument);
    CHECK(causal_stack_coefficient<double>({}, 3) == 1);
    CHECK(causal_stack_coefficient<double>({}, 0) == 0);
}
