// Budgets agree with every budget tried.
#include <support/planner_reference.hpp>

using namespace attnscope_test;
using namespace attnscope_test::planner;
using namespace attnscope;

TEMPLATE_TEST_CASE("budgets agree with every budget tried", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::pair<Index, Index>, 6> shapes = {
        {{1, 3}, {2, 3}, {3, 1}, {8, 4}, {17, 3}, {130, 4}}};
    BudgetWorsts worst;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = ranked(tokens.p);
        const Budgets b = reference_budgets(tokens, order);
        const T diameter = upper_diameter<T>(b.spread);
        for (const double tolerance : {1e-9, 1e-4, 0.01, 0.1, 0.5, 1.0, 3.0})
            check_budget(tokens, order, b, diameter, tolerance, worst);
        // Too large a diameter stays right.
        check_budget(tokens, order, b, T(3) * diameter, std::exp(-8 * random.uniform()), worst);
    });
    ATTNSCOPE_CHECK_WORST(worst.measured);
    ATTNSCOPE_CHECK_WORST(worst.measured_less);
    ATTNSCOPE_CHECK_WORST(worst.certified);
    ATTNSCOPE_CHECK_WORST(worst.certified_less);
    ATTNSCOPE_CHECK_WORST(worst.ordered);
}

TEMPLATE_TEST_CASE("budgets of tiny tails", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    BudgetWorsts worst;
    Worst mass, mass_less;
    std::size_t between = 0;
    for (int i = 0; i < 60; ++i) {
        SplitMix64 random = generator(seed, i, 51);
        const Index n = 2 + random.below(40), d = 1 + random.below(4);
        const double depth = std::is_same_v<T, float> ? 80 : 320; // squares of errors are normal numbers
        std::vector<double> z(static_cast<std::size_t>(n)), x(static_cast<std::size_t>(n * d));
        for (double& at : z) at = depth * random.uniform();
        for (double& at : x) at = random.normal();
        const std::vector<T> logits = narrow<T>(z);
        Tokens<T> tokens{n, d, std::vector<T>(logits.size()), narrow<T>(x),
                         Where{"tiny tails", z.size(), 1, seed, scalar_name<T>()}};
        Softmax{}.apply<T>(in(logits), out(tokens.p));
        const std::vector<Index> order = ranked(tokens.p);
        const Budgets b = reference_budgets(tokens, order);
        const T diameter = upper_diameter<T>(b.spread);
        for (const double tolerance : {1e-3, 1e-10, 1e-20, 1e-30, 1e-60, 1e-110}) {
            check_budget(tokens, order, b, diameter, tolerance, worst);
            const RowBudget budget = budget_of(tokens, order, diameter, tolerance);
            between += budget.measured > 1 && budget.measured < n;
        }
        // A share that leaves next to nothing out.
        for (const double share : {0x1p-60, 0.3, 0.9, 1 - 1e-9, 1 - 0x1p-53, 1.0}) {
            const auto k = static_cast<std::size_t>(
                mass_budget<T>(tokens.weights(), std::span<const Index>(order), share).measured);
            const Ref rest = 1 - Ref(share), slack = 2 * u * rest * static_cast<Ref>(n + 4);
            mass.meet(b.tail[k - 1] - rest, slack + b.tail_rounding[k - 1], tokens.where);
            if (k > 1) mass_less.meet(rest - b.tail[k - 2], slack + b.tail_rounding[k - 2], tokens.where);
        }
    }
    CHECK(between > 50);
    ATTNSCOPE_CHECK_WORST(worst.measured);
    ATTNSCOPE_CHECK_WORST(worst.measured_less);
    ATTNSCOPE_CHECK_WORST(worst.certified);
    ATTNSCOPE_CHECK_WORST(worst.certified_less);
    ATTNSCOPE_CHECK_WORST(worst.ordered);
    ATTNSCOPE_CHECK_WORST(mass);
    ATTNSCOPE_CHECK_WORST(mass_less);
}

TEMPLATE_TEST_CASE("the share of a budget is what top-p needs to keep as many keys", "[planner][budget]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst count, which, best;
    std::size_t inside = 0;
    constexpr std::array<std::size_t, 9> few = {1, 2, 3, 7, 8, 17, 64, 257, 1000};
    for_each_row<T>(seed, few, 2, [&](const Where& where, const std::vector<T>& z) {
        if (visible_count(z) == 0) return;
        SplitMix64 random = generator(seed, z.size(), 61);
        const auto n = static_cast<Index>(z.size());
        Tokens<T> tokens{n, 3, std::vector<T>(z.size()), normal_row<T>(random, 3 * z.size()), where};
        Softmax{}.apply<T>(in(z), out(tokens.p));
        const std::vector<Index> order = ranked(tokens.p);
        for (const double tolerance : {1e-6, 1e-3, 0.05, 0.3, 1.0, 10.0}) {
            const RowBudget budget = budget_of(tokens, order, T(100), tolerance);
            const auto k = static_cast<std::size_t>(budget.measured);
            // What rounding of sums near 1 may take from a share must not be what the last key has.
            const Ref last = tokens.weight(order[k - 1]);
            if (last / 2 <= 8 * u * static_cast<Ref>(n + 4)) continue;
            std::vector<T> kept(z.size());
            (Softmax() | top_p(budget.share)).template apply<T>(in(z), out(kept));
            const auto number = std::count_if(kept.begin(), kept.end(), [](T x) { return x > 0; });
            count.meet(number == budget.measured, where);
            inside += budget.measured > 1 && budget.measured < n;
            // A tie with the first key that is left out may go either way.
            if (budget.measured < n && last == tokens.weight(order[k])) continue;
            bool same = true;
            for (std::size_t rank = 0; rank < z.size(); ++rank)
                same = same && (kept[static_cast<std::size_t>(order[rank])] > 0) == (rank < k);
            which.meet(same, where);
            best.meet(budget.share > 0 && budget.share <= 1, where);
        }
    });
    CHECK(inside > 100);
    ATTNSCOPE_CHECK_WORST(count);
    ATTNSCOPE_CHECK_WORST(which);
    ATTNSCOPE_CHECK_WORST(best);
}

TEST_CASE("the certificate of a budget is attained, and a smaller diameter is found out", "[planner][budget]") {
    // The head at one place, the tail at another: |o - o_k| = tail mass times diameter.
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    for (const Index head : {Index(1), Index(3), Index(6)}) {
        const Index n = 9;
        std::vector<double> p(9), x(18);
        SplitMix64 random = generator(seed, head, 71);
        for (double& w : p) w = 0.5 + random.uniform();
        std::sort(p.begin(), p.end(), std::greater<>());
        families::normalise(p);
        for (Index i = 0; i < n; ++i) {
            x[static_cast<std::size_t>(2 * i)] = i < head ? 3 : 0;
            x[static_cast<std::size_t>(2 * i + 1)] = i < head ? 0 : 4;
        }
        const Tokens<double> tokens{n, 2, p, x, Where{"two places", 9}};
        const std::vector<Index> order = ranked(p);
        const Budgets b = reference_budgets(tokens, order);
        CHECK(b.spread == 5);
        const auto at = static_cast<std::size_t>(head);
        CHECK(std::abs(b.error[at - 1] - 5 * b.tail[at - 1]) <= 2 * b.error_rounding[at - 1]);
        const auto tolerance = [&](Ref part) { return static_cast<double>(part * b.error[at - 1] / b.length); };
        RowBudget budget = budget_of(tokens, order, 5.0, tolerance(1.001L));
        CHECK(budget.measured <= head);
        CHECK(budget.certified == head);
        budget = budget_of(tokens, order, 5.0, tolerance(0.995L));
        CHECK(budget.measured == head + 1);
        CHECK(budget.certified == head + 1);
        budget = budget_of(tokens, order, 0.99 * 5.0, tolerance(0.995L));
        CHECK(budget.certified == head); // which is one key too few
        CHECK(budget.measured == head + 1);
    }
}

TEST_CASE("budgets of special rows", "[planner][budget]") {
    const auto budget = [](std::vector<double> p, std::vector<double> x, double diameter, double tolerance) {
        const Tokens<double> tokens = tokens_of(p, x);
        const std::vector<Index> order = ranked(p);
        return budget_of(tokens, order, diameter, tolerance);
    };
    const auto equal = [](const RowBudget& b, Index visible, Index measured, Index certified) {
        return b.visible == visible && b.measured == measured && b.certified == certified;
    };
    CHECK(equal(budget({1}, {3, 4}, 0, 1e-300), 1, 1, 1));
    // No output: everything, unless nothing is lost.
    CHECK(equal(budget({0.5, 0.5}, {1, -1}, 2, 10), 2, 2, 2));
    CHECK(equal(budget({0.375, 0.375, 0.25}, {1, -1, 0}, 2, 10), 3, 2, 3));
    CHECK(equal(budget({0.5, 0.25, 0.25}, {0, 0, 0}, 0, 0.01), 3, 1, 1));
    // Filled by hand: for AVX-512 g++ 12.2 makes four halves of the literal {0.5, 0.5, 0, 0}.
    std::vector<double> halves(4, 0.0);
    halves[0] = halves[1] = std::strtod("0.5", nullptr);
    CHECK(equal(budget(halves, {1, -1, 7, 8}, 9, 0.01), 4, 2, 2));
    // Keys without weight cost nothing, whatever their vectors are.
    CHECK(equal(budget({0, 0.75, 0, 0.25}, {1e300, 1, -1e300, -1}, 1e301, 1e-6), 4, 2, 2));
    // NaN: everything.
    CHECK(equal(budget({0.75, nan_value}, {1, 1}, 1, 0.5), 2, 2, 2));
    CHECK(equal(budget({nan_value, 0.75, 0.25}, {1, 1, 1}, 1, 0.5), 3, 3, 3));
    CHECK(equal(budget({0.75, 0.125, 0.125}, {nan_value, 1, 1}, 1, 0.5), 3, 3, 3));
    CHECK(equal(budget({0.75, 0.125, 0.125}, {1, 1, nan_value}, 1, 0.5), 3, 3, 3));
    CHECK(budget({0.75, 0.25}, {1, 1}, nan_value, 0.5).certified == 2);
    CHECK(budget({0.75, 0.25}, {1, 1}, infinity, 0.5).certified == 2);
    // "At this k and at every larger one": two keys would do by chance, three do not.
    CHECK(equal(budget({0.4, 0.3, 0.2, 0.1}, {1, 1, 3, -3}, 6, 0.2), 4, 4, 4));
    const std::vector<double> p = {0.5, 0.5}, x = {1, 2};
    const std::vector<Index> order = {0, 1}, one = {0};
    const MatrixView<double> vectors(x.data(), 2, 1), single(x.data(), 1, 1);
    const std::span<const Index> both(order);
    for (const double bad : {0.0, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(output_budget<double>(in(p), vectors, both, 1.0, bad), invalid_argument);
    CHECK_THROWS_AS(output_budget<double>(in(p), single, both, 1.0, 0.1), invalid_argument);
    CHECK_THROWS_AS(output_budget<double>(in(p), vectors, std::span<const Index>(one), 1.0, 0.1),
                    invalid_argument);
    CHECK_THROWS_AS(mass_budget<double>(in(p), std::span<const Index>(one), 0.5), invalid_argument);
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, infinity, nan_value})
        CHECK_THROWS_AS(mass_budget<double>(in(p), both, bad), invalid_argument);
}

TEMPLATE_TEST_CASE("budgets of mass agree with every budget tried", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::pair<Index, Index>, 5> shapes = {{{1, 1}, {2, 1}, {8, 1}, {17, 1}, {257, 1}}};
    Worst enough, less, same;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = ranked(tokens.p);
        RefRow tail(static_cast<std::size_t>(tokens.n) + 1); // without the first k
        for (std::size_t k = order.size(); k-- > 0;) tail[k] = tail[k + 1] + tokens.weight(order[k]);
        for (const double share : {1e-30, 0.1, 0.5, 0.9, 0.99, 1 - 1e-9, 1.0, random.uniform()}) {
            const RowBudget budget = mass_budget<T>(tokens.weights(), std::span<const Index>(order), share);
            const auto k = static_cast<std::size_t>(budget.measured);
            same.meet(budget.certified == budget.measured && budget.visible == tokens.n &&
                          budget.share == share && budget.measured >= 1 && budget.measured <= tokens.n,
                      tokens.where);
            const Ref spare = (1 - Ref(share)) * tail[0];
            const Ref slack = 2 * u * static_cast<Ref>(tokens.n + 4) * spare;
            enough.meet(tail[k] - spare, slack, tokens.where);
            if (k > 1) less.meet(spare - tail[k - 1], slack, tokens.where);
        }
    });
    ATTNSCOPE_CHECK_WORST(enough);
    ATTNSCOPE_CHECK_WORST(less);
    ATTNSCOPE_CHECK_WORST(same);
    const auto keep = [](std::vector<T> p, double share) {
        const std::vector<Index> order = ranked(p);
        return mass_budget<T>(in(p), std::span<const Index>(order), share).measured;
    };
    const T none = std::numeric_limits<T>::quiet_NaN();
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.5) == 1);
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.5 + 1e-9) == 2);
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.75) == 2);
    CHECK(keep({T(0.5), T(0), T(0.5), T(0)}, 1) == 2);
    CHECK(keep({T(0.25), none, T(0.75)}, 0.5) == 3);
    CHECK(keep({none, none}, 1e-9) == 2);
}

TEST_CASE("budgets at the ends of the scale", "[planner][budget]") {
    const std::vector<Index> order = {0, 1};
    Matrix<double> x(2, 1);
    x << 1, 0;
    const std::vector<double> p = {1, 1e-170};
    CHECK(output_budget<double>(in(p), MatrixView<double>(x), order, 1, 1e-200).measured == 2);
    const std::vector<float> pf = {0.6f, 0.4f};
    Matrix<float> xf(2, 1);
    xf << 0, 1;
    const auto budget = output_budget<float>(in(pf), MatrixView<float>(xf), order, 1, 0.99999998);
    CHECK(budget.certified >= budget.measured);
    for (const std::vector<double>& odd : {std::vector<double>{nan_value, 1}, std::vector<double>{0, 0}})
        CHECK(output_budget<double>(in(odd), MatrixView<double>(x), order, 1, 0.1).share <= 1);
    // No diameters, no figures; no queries, no rows.
    Matrix<double> q(3, 2), v(3, 1);
    q.setOnes();
    v.setOnes();
    const HeadView<double> head(q, q, v);
    CHECK_THROWS_AS(cache_figures<double>(head, {}, Mask(), std::span<const double>(), MatrixView<double>(v)),
                    invalid_argument);
    const std::vector<double> diameters(3, 1);
    CHECK(cache_figures<double>(head, {}, Mask(), diameters, MatrixView<double>(v), std::span<const Index>())
              .error.empty());
    // A row that is level after and still points to its first key has kept it; one that is overtaken has not.
    Matrix<double> one(1, 1), keys(2, 1), values(2, 1), output(1, 1);
    one << 1;
    keys << 1, 0.9;
    values << 1, 2;
    output << 1.5;
    const HeadView<double> level(one, keys, values);
    CHECK(cache_figures<double>(level, {CacheNumber::integer, 2}, Mask(), std::vector<double>{1},
                                MatrixView<double>(output))
              .argmax_kept == 1);
}
