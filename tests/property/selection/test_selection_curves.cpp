// Figures of the top-N selections for every N at once, against those of one set at a time and long double.
#include <attnscope/selection/distance.hpp>
#include <attnscope/selection/separability_curves.hpp>
#include <attnscope/selection/truncation.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::SelectedSet;
using attnscope::SeparabilityCurves;

namespace {

constexpr std::array<std::pair<Index, Index>, 9> shapes = {
    {{1, 2},
     {2, 1},
     {3, 3},
     {7, 2},
     {16, 8},
     {17, 1},
     {40, 3},
     {90, 16},
     {157, 6}}}; // the last has more columns than one block
constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

TEMPLATE_TEST_CASE("precision and recall of every N are those of one set at a time",
                   "[selection][separability][curves]", float, double, long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst counts, distances;
    std::size_t imperfect = 0;
    SeparabilityCurves<T> curves;
    SelectedSet<T> set;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64&) {
        const std::vector<Index> order = reference_order(tokens.weights());
        curves.assign(tokens.vectors());
        const auto& curve = curves.compute(tokens.weights(), order, tokens.n);
        REQUIRE(curve.precision.size() == order.size());
        for (std::size_t at = 0; at < order.size(); ++at) {
            set.assign(tokens.weights(), tokens.vectors(), std::span<const Index>(order).first(at + 1));
            const auto one = separability(set);
            imperfect += one.precision < 1 && one.recall > 0 && one.recall < 1;
            counts.meet(curve.precision[at] == one.precision && curve.recall[at] == one.recall &&
                            curve.f_score[at] == one.f_score,
                        tokens.where);
            if (at + 1 == order.size()) {
                counts.meet(curve.nearest_other[at] == infinity && curve.recall[at] == 1, tokens.where);
                distances.meet(std::abs(curve.farthest_selected[at] - one.farthest_selected),
                               Ref(1e-11) * one.farthest_selected, tokens.where);
                continue;
            }
            // Squares keep 1e-11 of themselves where they are not taken directly, and the order of keys that
            // are equally far to within rounding may turn.
            const RefSelection r = reference_selection(tokens, std::span<const Index>(order).first(at + 1));
            Ref error = 0;
            for (std::size_t i = 0; i < order.size(); ++i)
                error = std::max(error, direct_distance_error(tokens, r, i));
            const Ref near = static_cast<Ref>(one.nearest_other), far = static_cast<Ref>(one.farthest_selected);
            distances.meet(std::abs(curve.nearest_other[at] - near), Ref(1e-11) * near + 2 * error,
                           tokens.where);
            distances.meet(std::abs(curve.farthest_selected[at] - far), Ref(1e-11) * far + 2 * error,
                           tokens.where);
        }
    });
    ATTNSCOPE_CHECK_WORST(counts);
    ATTNSCOPE_CHECK_WORST(distances);
    CHECK(imperfect > 500);
}

TEST_CASE("precision and recall of every N with ties, in whole numbers", "[selection][separability][curves]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 61);
    std::size_t wrong = 0, met = 0;
    SeparabilityCurves<double> curves;
    SelectedSet<double> set;
    for (int trial = 0; trial < 2000; ++trial) {
        const Index n = 2 + random.below(20), d = 1 + random.below(3);
        std::vector<double> p, x;
        for (Index i = 0; i < n; ++i) p.push_back(static_cast<double>(random.below(4)));
        for (Index i = 0; i < n * d; ++i) x.push_back(static_cast<double>(random.below(5) - 2));
        const Tokens<double> tokens = tokens_of(p, x);
        const std::vector<Index> order = reference_order(tokens.weights());
        curves.assign(tokens.vectors());
        const auto& curve = curves.compute(tokens.weights(), order, n);
        for (std::size_t at = 0; at < order.size(); ++at, ++met) {
            set.assign(tokens.weights(), tokens.vectors(), std::span<const Index>(order).first(at + 1));
            const auto one = separability(set);
            wrong +=
                curve.precision[at] != one.precision || curve.recall[at] != one.recall ||
                std::abs(curve.nearest_other[at] - one.nearest_other) > 1e-12 * one.nearest_other ||
                std::abs(curve.farthest_selected[at] - one.farthest_selected) > 1e-12 * one.farthest_selected;
        }
    }
    CHECK(wrong == 0);
    CHECK(met > 10'000);
}

TEMPLATE_TEST_CASE("separability curves of some N are those of every N", "[selection][curves]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 62);
    SeparabilityCurves<T> every, some;
    std::size_t far_apart = 0;
    for (int trial = 0; trial < 60; ++trial) {
        const Index n = 1 + random.below(trial < 50 ? 40 : 400), d = 1 + random.below(9),
                    rare = trial < 50 ? 3 : 60;
        std::vector<T> p, x;
        for (Index i = 0; i < n; ++i) p.push_back(static_cast<T>(random.uniform()));
        for (Index i = 0; i < n * d; ++i) x.push_back(static_cast<T>(random.normal()));
        const Tokens<T> tokens = tokens_of(p, x);
        const std::vector<Index> order = reference_order(tokens.weights());
        every.assign(tokens.vectors());
        some.assign(tokens.vectors());
        std::vector<Index> counts;
        for (Index count = 1; count <= n; ++count)
            if (random.below(rare) == 0) counts.push_back(count);
        const auto& all = every.compute(tokens.weights(), order, n);
        const auto& found = some.compute(tokens.weights(), order, std::span<const Index>(counts));
        REQUIRE(found.recall.size() == counts.size());
        for (std::size_t i = 0; i < counts.size(); ++i) {
            const auto at = static_cast<std::size_t>(counts[i] - 1);
            far_apart += counts[i] - (i > 0 ? counts[i - 1] : 0) > d;
            CHECK((found.recall[i] == all.recall[at] && found.precision[i] == all.precision[at] &&
                   found.f_score[i] == all.f_score[at] && found.nearest_other[i] == all.nearest_other[at] &&
                   found.farthest_selected[i] == all.farthest_selected[at]));
        }
    }
    CHECK(far_apart > 20);
}

TEMPLATE_TEST_CASE("separability curves of causal rows, whose later keys may be anything",
                   "[selection][curves]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 63);
    const Index keys = 70, d = 5;
    SeparabilityCurves<T> head, row;
    SelectedSet<T> set;
    std::size_t wrong = 0, ties = 0;
    for (int trial = 0; trial < 6; ++trial) {
        // Values of all sizes, repeated, without length, sharp rows; what no row sees is not finite.
        Matrix<T> x(keys, d);
        for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<T>(random.normal());
        for (Index i = 0; i < keys; ++i) {
            if (random.below(8) == 0) x.row(i) *= static_cast<T>(std::pow(10.0, -double(random.below(12))));
            if (random.below(8) == 0) x.row(i).setZero();
            if (i > 0 && random.below(8) == 0) x.row(i) = x.row(i - 1);
        }
        x.row(keys - 1).setConstant(std::numeric_limits<T>::quiet_NaN());
        x.row(keys - 2).setConstant(std::numeric_limits<T>::infinity());
        const attnscope::MatrixView<T> all(x);
        head.assign(all);
        for (Index n = 1; n < keys - 1; ++n) {
            std::vector<T> p(static_cast<std::size_t>(n));
            for (T& weight : p)
                weight =
                    static_cast<T>(std::exp(double(trial) * 3 * random.normal()) * double(random.below(5) > 0));
            if (n > 3) p[2] = p[1];
            const std::vector<Index> order = reference_order(attnscope::RowIn<T>(p));
            const attnscope::MatrixView<T> seen(x.data(), n, d, d);
            row.assign(seen);
            const auto& a = head.compute(p, order, n);
            const auto& b = row.compute(p, order, n);
            for (std::size_t at = 0; at < p.size(); ++at) {
                set.assign(p, seen, std::span<const Index>(order).first(at + 1));
                const auto one = separability(set);
                ties += one.nearest_other == one.farthest_selected;
                for (const auto* curve : {&a, &b})
                    wrong += curve->precision[at] != one.precision || curve->recall[at] != one.recall;
            }
        }
    }
    CHECK(wrong == 0);
    CHECK(ties > 100);
}

TEST_CASE("separability curves of what is not finite, and where they stop", "[selection][curves]") {
    SeparabilityCurves<double> curves;
    const std::vector<Index> order = {0, 1, 2};
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, 1e200}) {
        const Tokens<double> tokens = tokens_of({0.5, 0.3, 0.2}, {1, 2, 3, 4, 5, bad});
        curves.assign(tokens.vectors());
        const auto& curve = curves.compute(tokens.weights(), order, 3);
        for (const double figure : curve.precision) CHECK(std::isnan(figure));
        for (const double figure : curve.nearest_other) CHECK(std::isnan(figure));
    }
    const Tokens<double> tokens = tokens_of({0.5, 0.3, 0.2}, {1, 2, 3, 4, 5, 6});
    curves.assign(tokens.vectors());
    CHECK(curves.compute(tokens.weights(), order, 2).recall.size() == 2);
    CHECK(curves.compute(tokens.weights(), order, 0).recall.empty());
    for (const std::vector<Index>& bad : {std::vector<Index>{0, 1}, {2, 1}, {1, 1}, {2, 4}})
        CHECK_THROWS_AS(curves.compute(tokens.weights(), order, std::span<const Index>(bad)),
                        attnscope::invalid_argument);
    CHECK_THROWS_AS(curves.compute(tokens.weights(), order, 4), attnscope::invalid_argument);
    const std::vector<double> weights(4, 0.25);
    CHECK_THROWS_AS(curves.compute(weights, std::vector<Index>{0, 1, 2, 3}, 2), attnscope::invalid_argument);
}

TEST_CASE("separability curves where the unit of squares overflows or underflows", "[selection][curves]") {
    // Three keys, five: columns of padding in a packet must never be counted.
    const Tokens<double> small = tokens_of({1e-320, 0, 0}, {1e-3, 0, 1e100, 1, 1e100, 2}),
                         large = tokens_of({1e150, 1, 1, 0, 0}, {1e-150, 1e-150, 1e-150, 2e-150, 3e-150}),
                         mixed = tokens_of({1, 1e-320, 0}, {1e140, 1e-300, 0});
    SeparabilityCurves<double> curves;
    SelectedSet<double> set;
    for (const Tokens<double>* tokens : {&small, &large, &mixed}) {
        const std::vector<Index> order = reference_order(tokens->weights());
        curves.assign(tokens->vectors());
        const auto& curve = curves.compute(tokens->weights(), order, tokens->n);
        for (std::size_t at = 0; at < order.size(); ++at) {
            CAPTURE(tokens->n, at);
            set.assign(tokens->weights(), tokens->vectors(), std::span<const Index>(order).first(at + 1));
            const auto one = separability(set);
            CHECK(curve.precision[at] == one.precision);
            CHECK(curve.recall[at] == one.recall);
            CHECK((curve.f_score[at] >= 0 && curve.f_score[at] <= 1));
        }
    }
}

TEMPLATE_TEST_CASE("truncation errors of every N against long double", "[selection][truncation][curves]", float,
                   double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst worst;
    std::size_t small = 0;
    attnscope::DistanceCurves<T> curves;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64&) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const Matrix<A> gram = attnscope::gram_matrix(tokens.vectors());
        const auto& curve = curves.compute(tokens.weights(), tokens.vectors(), gram, order, tokens.n);
        for (std::size_t at = 0; at < order.size(); ++at) {
            const RefSelection r = reference_selection(tokens, std::span<const Index>(order).first(at + 1));
            if (!(r.mass > 0)) continue;
            RefRow lost(r.s.size());
            for (std::size_t c = 0; c < lost.size(); ++c) lost[c] = r.rest[c] - r.s[c] * (r.tail / r.mass);
            const Ref exact = norm_of(lost), rest = r.total_length - r.selected_length;
            // The head is what is left of o: its error is that of all lengths, times the share of the tail.
            const Ref tolerance = compared_unit<T> * static_cast<Ref>(2 * tokens.n + tokens.d + 8) *
                                  (rest + 2 * r.total_length * r.tail / r.mass);
            worst.meet(std::abs(curve.truncation[at] - exact), tolerance, tokens.where);
            small += exact > 0 && exact < Ref(1e-3) * norm_of(r.s);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
    CHECK(small > 50);
}
