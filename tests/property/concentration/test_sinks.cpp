// Column mass, sinks and leading mass against their definitions.
#include <attnscope/concentration/sinks.hpp>
#include <support/mask_reference.hpp>

using namespace attnscope_test;
using attnscope::column_mass;
using attnscope::leading_mass;
using attnscope::Matrix;
using attnscope::MatrixView;

namespace {

/// Random weights: each row uniform over what the rule lets it see, a few rows NaN or without mass.
template <class T>
Matrix<T> random_weights(SplitMix64& random, const MaskRule& rule, Index queries, Index keys) {
    Matrix<T> p = Matrix<T>::Zero(queries, keys);
    for (Index q = 0; q < queries; ++q) {
        T sum = 0;
        for (Index k = 0; k < keys; ++k)
            if (rule.sees(q, k)) sum += p(q, k) = static_cast<T>(k == 0 ? 2 : random.uniform());
        if (sum > 0) p.row(q) /= sum;
        const Index fate = random.below(12);
        if (fate == 0)
            for (Index k = 0; k < keys; ++k)
                if (rule.sees(q, k)) p(q, k) = std::numeric_limits<T>::quiet_NaN();
        if (fate == 1 && keys > 2) { // all mass on the first key: nothing remains without it
            p.row(q).setZero();
            if (rule.sees(q, 0)) p(q, 0) = 1;
        }
    }
    return p;
}

template <class T>
std::vector<Ref> naive_column_mass(const Matrix<T>& p, const MaskRule& rule, Index excluded) {
    std::vector<Ref> mass;
    for (Index k = 0; k < p.cols(); ++k) {
        Ref sum = 0;
        int count = 0;
        for (Index q = 0; q < p.rows() && k >= excluded; ++q) {
            if (!rule.sees(q, k)) continue;
            Ref remaining = 0;
            for (Index j = excluded; j < p.cols(); ++j)
                if (rule.sees(q, j)) remaining += p(q, j);
            if (std::isnan(remaining) || (excluded > 0 && remaining <= 0)) continue;
            sum += excluded == 0 ? Ref(p(q, k)) : Ref(p(q, k)) / remaining;
            ++count;
        }
        mass.push_back(count == 0 ? std::numeric_limits<Ref>::quiet_NaN() : sum / count);
    }
    return mass;
}

} // namespace

TEMPLATE_TEST_CASE("column mass and leading mass are means over the queries that see the keys", "[sinks]",
                   float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst columns, missing, leading, listed;
    for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 1}, {3, 5}, {12, 12}, {40, 17}, {9, 33}}) {
        SplitMix64 random = generator(seed, queries, keys);
        for (int i = 0; i < 60; ++i) {
            const Where where{"sinks", static_cast<std::size_t>(keys), 1, seed, scalar_name<T>()};
            const MaskRule rule = i == 0 ? MaskRule{} : random_rule(random, keys);
            const Matrix<T> p = random_weights<T>(random, rule, queries, keys);
            // Sums of double terms, or of T's own where a row is divided by its remaining sum.
            const Ref error = unit_roundoff<double> * Ref(queries + 2 * keys + 8);
            for (Index excluded : {Index(0), Index(1), std::min<Index>(3, keys), keys}) {
                const attnscope::Row<double> mass = column_mass<T>(MatrixView<T>(p), rule.mask(), excluded);
                const std::vector<Ref> naive = naive_column_mass(p, rule, excluded);
                missing.meet(mass.size() == keys, where);
                for (Index k = 0; k < keys; ++k) {
                    const Ref exact = naive[static_cast<std::size_t>(k)];
                    missing.meet(std::isnan(mass[k]) == std::isnan(exact), where);
                    if (!std::isnan(exact)) columns.meet(std::abs(Ref(mass[k]) - exact), error * exact, where);
                }
                std::vector<Index> expected;
                for (Index k = 0; k < keys; ++k)
                    if (mass[k] > 0.3) expected.push_back(k);
                listed.meet(attnscope::sinks(mass) == expected, where);
                expected.clear();
                for (Index k = 0; k < keys; ++k)
                    if (mass[k] > 0.05) expected.push_back(k);
                listed.meet(attnscope::sinks(mass, 0.05) == expected, where);
            }
            for (Index excluded : {Index(0), Index(1), keys}) {
                for (Index k : {Index(0), Index(1), Index(4), keys}) {
                    Ref sum = 0;
                    int count = 0;
                    for (Index q = 0; q < queries; ++q) {
                        Ref first = 0, remaining = 0, all = 0;
                        Index seen = 0;
                        for (Index j = 0; j < keys; ++j) {
                            if (!rule.sees(q, j)) continue;
                            all += p(q, j);
                            if (j < excluded) continue;
                            remaining += p(q, j);
                            if (seen++ < k) first += p(q, j);
                        }
                        if (seen == 0 || std::isnan(all) || (excluded > 0 && remaining <= 0)) continue;
                        sum += excluded > 0 ? first / remaining : first;
                        ++count;
                    }
                    const double mass = leading_mass<T>(MatrixView<T>(p), k, rule.mask(), excluded);
                    missing.meet(std::isnan(mass) == (count == 0), where);
                    if (count > 0) leading.meet(std::abs(Ref(mass) - sum / count), error * sum / count, where);
                }
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(columns);
    ATTNSCOPE_CHECK_WORST(missing);
    ATTNSCOPE_CHECK_WORST(leading);
    ATTNSCOPE_CHECK_WORST(listed);
}

TEST_CASE("a sink is seen, and the row without it is shown", "[sinks]") {
    Matrix<double> p(3, 3);
    p << 1, 0, 0, 0.75, 0.25, 0, 0.5, 0.125, 0.375;
    const attnscope::Mask causal = attnscope::Mask::causal();
    const attnscope::Row<double> mass = column_mass<double>(p, causal);
    CHECK(mass[0] == Catch::Approx(0.75));
    CHECK(mass[1] == Catch::Approx(0.1875));
    CHECK(mass[2] == Catch::Approx(0.375));
    CHECK(attnscope::sinks(mass) == std::vector<Index>{0, 2});
    CHECK(leading_mass<double>(p, 1, causal) == Catch::Approx(0.75));
    const attnscope::Row<double> without = column_mass<double>(p, causal, 1);
    CHECK(std::isnan(without[0]));
    CHECK(without[1] ==
          Catch::Approx((1.0 + 0.25) / 2)); // rows (1), (1/4, 3/4); the first row has nothing left
    CHECK(without[2] == Catch::Approx(0.75));
    CHECK_THROWS_AS(column_mass<double>(p, causal, 4), attnscope::invalid_argument);
    CHECK_THROWS_AS(column_mass<double>(p, causal, -1), attnscope::invalid_argument);
    CHECK_THROWS_AS(leading_mass<double>(p, -1, causal), attnscope::invalid_argument);
    CHECK_THROWS_AS(leading_mass<double>(p, 1, causal, 4), attnscope::invalid_argument);
    // Without the sink the second row is (1) and the third (1/4, 3/4).
    CHECK(leading_mass<double>(p, 1, causal, 1) == Catch::Approx((1.0 + 0.25) / 2));
    CHECK(leading_mass<double>(p, 2, causal, 1) == Catch::Approx(1.0));
    CHECK_THROWS_AS(leading_mass<double>(p, 1, causal, 4), attnscope::invalid_argument);
}
