// Distances of selections, for every N at once and directly, against long double.
#include <attnscope/selection/distance.hpp>
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selection/theorem1_random.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::DistanceCurves;
using attnscope::Reading;
using attnscope::SelectedSet;

namespace {

constexpr std::array<std::pair<Index, Index>, 12> shapes = {
    {{1, 1}, {1, 5}, {2, 3}, {3, 1}, {7, 2}, {8, 8}, {9, 3}, {16, 64}, {17, 5}, {33, 16}, {70, 12}, {257, 4}}};

/// Compares with the truth: within the computed error always, and within 1e-5 relative (what float rows must
/// reach) wherever the truth is not itself a difference of lengths 1e9 times as large.
struct Accuracy {
    Worst error, relative;
    std::size_t skipped = 0;

    void meet(Ref found, Ref truth, Ref tolerance, Ref size, const Where& where) {
        error.meet(std::abs(found - truth), tolerance, where);
        if (truth <= Ref(1e-9) * size) {
            ++skipped;
            return;
        }
        relative.meet(std::abs(found - truth), Ref(1e-5) * truth, where);
    }
};

/// sqrt(a) for a known to e.
Ref root_error(Ref root, Ref e) { return root > 0 ? std::min(std::sqrt(e), e / root) : std::sqrt(e); }

/// Relative error of a sum of n square roots that float rows take in float: the argument and the root are
/// rounded, then they are added up in blocks.
template <class T>
Ref root_sum_error(Index n) {
    if constexpr (!std::is_same_v<T, float>) return 0;
    return 3 * unit_roundoff<float> + sum_error<float>(static_cast<std::size_t>(n));
}

} // namespace

TEMPLATE_TEST_CASE("the distances of every N, and what comes with them, agree with long double",
                   "[selection][distance][accuracy]", float, double, long double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Accuracy cumulative, resultant;
    Worst mass, tail, bound, theorem;
    DistanceCurves<T> curves;
    const Ref unit = compared_unit<T>;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64&) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const Matrix<A> gram = attnscope::gram_matrix(tokens.vectors());
        const auto& curve = curves.compute(tokens.weights(), tokens.vectors(), gram, order, tokens.n, true);
        REQUIRE(curve.cumulative.size() == static_cast<std::size_t>(tokens.n));
        RefRow farthest(static_cast<std::size_t>(tokens.n), 0); // of each key from any selected one
        const Ref n = static_cast<Ref>(tokens.n), d = static_cast<Ref>(tokens.d);
        for (Index count = 1; count <= tokens.n; ++count) {
            const auto at = static_cast<std::size_t>(count - 1);
            const RefSelection r = reference_selection(tokens, std::span<const Index>(order).first(at + 1));
            // |s - y|^2 = |s|^2 - 2 <s,y> + |y|^2: each product is exact to (N+d+4)u of lengths added up.
            Ref tolerance = 0, size = 0, spread = 0;
            const Ref s = norm_of(r.s);
            for (Index i = 0; i < tokens.n; ++i) {
                const auto key = static_cast<std::size_t>(i);
                farthest[key] = std::max(farthest[key], tokens.apart(i, order[at]));
                if (r.member[key] != 0) continue;
                spread = std::max(spread, farthest[key]);
                const Ref direct = direct_distance_error(tokens, r, key), D = r.distance[key];
                const Ref reach = r.selected_length + r.own_length[key];
                const Ref e = 2 * unit * (static_cast<Ref>(count) + d + 4) * reach * reach;
                const bool surely_direct =
                    D * D + 2 * e < Ref(1e-4) * (s * s + r.own_length[key] * r.own_length[key]);
                tolerance += surely_direct ? direct : std::max(direct, root_error(D, e));
                size += reach;
            }
            tolerance += (unit * n + root_sum_error<T>(tokens.n)) * r.cumulative;
            cumulative.meet(curve.cumulative[at], r.cumulative, tolerance, size, tokens.where);
            resultant.meet(curve.resultant[at], r.resultant,
                           unit * (n + d + 8) * (r.total_length + 2 * r.selected_length), r.total_length,
                           tokens.where);
            mass.meet(std::abs(curve.mass[at] - r.mass), unit * n * r.mass, tokens.where);
            tail.meet(std::abs(curve.tail_mass[at] - r.tail), unit * n * r.tail, tokens.where);
            const Ref others = n - static_cast<Ref>(count), longest = tokens.longest();
            const Ref limit = r.tail * spread + r.longest * std::abs(r.mass * others - r.tail);
            const Ref apart = root_error(spread, 2 * unit * (d + 4) * 4 * longest * longest);
            const Ref limit_error =
                r.tail * apart +
                unit * (n + d + 8) * (r.tail * spread + r.longest * (r.mass * others + r.tail));
            bound.meet(std::abs(curve.bound[at] - limit), limit_error, tokens.where);
            theorem.meet(curve.cumulative[at] - curve.bound[at], tolerance + limit_error, tokens.where);
        }
    });
    ATTNSCOPE_CHECK_WORST(cumulative.error);
    ATTNSCOPE_CHECK_WORST(cumulative.relative);
    ATTNSCOPE_CHECK_WORST(resultant.error);
    ATTNSCOPE_CHECK_WORST(resultant.relative);
    ATTNSCOPE_CHECK_WORST(mass);
    ATTNSCOPE_CHECK_WORST(tail);
    ATTNSCOPE_CHECK_WORST(bound);
    ATTNSCOPE_CHECK_WORST(theorem);
    // What is left out is everything selected, equal tokens and one-hot rows whose rest is exactly 0.
    CHECK(cumulative.skipped * 5 < cumulative.error.met());
    CHECK(resultant.skipped * 20 < resultant.error.met());
}

TEMPLATE_TEST_CASE("distances of one set, top-N or arbitrary, agree with long double",
                   "[selection][distance][accuracy]", float, double, long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Accuracy cumulative, resultant;
    Worst distance, vectors, mass, tail, spread, fast_spread, same_by_farthest, longest, imbalance,
        exactly_equal;
    SelectedSet<T> set;
    const Ref unit = compared_unit<T>;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const auto gram = attnscope::gram_matrix(tokens.vectors());
        attnscope::FarthestTokens<SumScalar<T>> farthest(gram);
        farthest.reach(tokens.n / 2); // it grows
        farthest.reach(tokens.n);
        const Ref n = static_cast<Ref>(tokens.n), d = static_cast<Ref>(tokens.d);
        const auto check = [&](std::span<const Index> selected) {
            const RefSelection r = reference_selection(tokens, selected);
            set.assign(tokens.weights(), tokens.vectors(), selected);
            REQUIRE(set.size() == tokens.n);
            REQUIRE(set.selected_count() == static_cast<Index>(selected.size()));
            Ref sum_error = 0, size = 0;
            for (Index i = 0; i < tokens.n; ++i) {
                const auto key = static_cast<std::size_t>(i);
                REQUIRE(set.contains(i) == (r.member[key] != 0));
                const Ref tolerance = direct_distance_error(tokens, r, key);
                distance.meet(std::abs(set.distance(i) - r.distance[key]), tolerance, tokens.where);
                // Equal tokens of equal weight are equally far, to the last bit.
                if (i > 0 && tokens.p[key] == tokens.p[key - 1] && tokens.apart(i, i - 1) == 0)
                    exactly_equal.meet(set.distance(i) == set.distance(i - 1), tokens.where);
                if (r.member[key] != 0) continue;
                sum_error += tolerance;
                size += r.selected_length + r.own_length[key];
            }
            for (Index c = 0; c < tokens.d; ++c) {
                const auto at = static_cast<std::size_t>(c);
                vectors.meet(std::abs(set.context()[c] - r.s[at]), unit * (n + 2) * r.selected_length,
                             tokens.where);
                vectors.meet(std::abs(set.remainder()[c] - r.rest[at]), unit * (n + 2) * r.total_length,
                             tokens.where);
            }
            mass.meet(std::abs(set.mass() - r.mass), unit * n * r.mass, tokens.where);
            tail.meet(std::abs(set.tail_mass() - r.tail), unit * n * r.tail, tokens.where);
            cumulative.meet(selection_distance(set), r.cumulative, sum_error + unit * n * r.cumulative, size,
                            tokens.where);
            resultant.meet(selection_distance(set, Reading::resultant), r.resultant,
                           unit * (n + d + 8) * r.total_length, r.total_length, tokens.where);

            const Ref truth = reference_spread(tokens, r);
            const auto slow = attnscope::fixed_set_geometry(set);
            const auto fast = attnscope::fixed_set_geometry(set, &gram);
            const auto known = attnscope::fixed_set_geometry(set, farthest);
            same_by_farthest.meet(std::abs(known.spread - fast.spread) + std::abs(known.longest - fast.longest),
                                  0, tokens.where);
            spread.meet(std::abs(slow.spread - truth), unit * (d + 4) * truth, tokens.where);
            fast_spread.meet(std::abs(fast.spread - truth), unit * (d + 4) * truth, tokens.where);
            for (const auto& geometry : {slow, fast}) {
                longest.meet(std::abs(geometry.longest - r.longest), unit * (d + 4) * r.longest, tokens.where);
                imbalance.meet(std::abs(geometry.imbalance - r.imbalance),
                               unit * n * (r.imbalance + 2 * n * r.mass + r.tail), tokens.where);
            }
        };
        for (Index count = 0; count <= tokens.n; count = count < 3 ? count + 1 : 2 * count) {
            check(std::span<const Index>(order).first(static_cast<std::size_t>(count)));
            check(random_subset(random, tokens.n, count));
        }
        check(order);
    });
    ATTNSCOPE_CHECK_WORST(distance);
    ATTNSCOPE_CHECK_WORST(exactly_equal);
    ATTNSCOPE_CHECK_WORST(vectors);
    ATTNSCOPE_CHECK_WORST(mass);
    ATTNSCOPE_CHECK_WORST(tail);
    ATTNSCOPE_CHECK_WORST(cumulative.error);
    ATTNSCOPE_CHECK_WORST(cumulative.relative);
    ATTNSCOPE_CHECK_WORST(resultant.error);
    ATTNSCOPE_CHECK_WORST(resultant.relative);
    ATTNSCOPE_CHECK_WORST(spread);
    ATTNSCOPE_CHECK_WORST(fast_spread);
    ATTNSCOPE_CHECK_WORST(same_by_farthest);
    ATTNSCOPE_CHECK_WORST(longest);
    ATTNSCOPE_CHECK_WORST(imbalance);
}

TEST_CASE("the traps that cost float all digits keep theirs", "[selection][distance][accuracy]") {
    // numerics.md of the method: a zero-value sink at N = 2, where s is y_2 and the sink adds nothing; clusters
    // of duplicates at any N; neighbours one float apart. Each at float input, every N.
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 99);
    constexpr Index n = 60, d = 64;
    Tokens<float> tokens{n, d, {}, {}, Where{"traps", n, 1, seed, "float", "selection"}};
    std::vector<double> p(n), x(n * d);
    SECTION("zero-value sink, the second key and its near copies") {
        families::normal_vectors(random, d, x);
        for (Index c = 0; c < d; ++c) x[static_cast<std::size_t>(c)] = 0;
        families::flat_weights(random, p);
        p[0] = 40;
        for (std::size_t i = 1; i < n; ++i) {
            p[i] = i < 30 ? 1 + 1e-6 * static_cast<double>(30 - i) : 0.5 * random.uniform();
            for (std::size_t c = 0; i > 1 && i < 30 && c < d; ++c)
                x[i * d + c] = x[d + c] * (1 + 1e-6 * random.uniform());
        }
        families::normalise(p);
    }
    SECTION("duplicated clusters") {
        families::duplicates(random, d, x);
        families::uniform_weights(random, p);
    }
    SECTION("one float apart") {
        families::equal_vectors(random, d, x);
        for (std::size_t i = 0; i < x.size(); i += 3) x[i] *= 1 + 0x1p-23;
        families::uniform_weights(random, p);
    }
    tokens.p = narrow<float>(p);
    tokens.x = narrow<float>(x);
    const std::vector<Index> order = reference_order(tokens.weights());
    const auto gram = attnscope::gram_matrix(tokens.vectors());
    DistanceCurves<float> curves;
    const auto& curve = curves.compute(tokens.weights(), tokens.vectors(), gram, order, n);
    Worst worst;
    for (std::size_t count = 1; count < n; ++count) {
        const RefSelection r = reference_selection(tokens, std::span<const Index>(order).first(count));
        if (r.cumulative == 0) continue;
        worst.meet(std::abs(curve.cumulative[count - 1] - r.cumulative),
                   (Ref(1e-9) + root_sum_error<float>(n)) * r.cumulative, tokens.where);
    }
    CHECK(worst.met() >= n - 2);
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("the distances of some N are those of every N", "[selection][distance]", float, double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    DistanceCurves<T> every, some;
    Worst different;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const Matrix<A> gram = attnscope::gram_matrix(tokens.vectors());
        std::vector<Index> counts;
        for (Index n = 1; n <= tokens.n; ++n)
            if (random.below(3) == 0) counts.push_back(n);
        const auto& all = every.compute(tokens.weights(), tokens.vectors(), gram, order, tokens.n, true);
        const auto& chosen = some.compute(tokens.weights(), tokens.vectors(), gram, order, counts, true);
        REQUIRE(chosen.cumulative.size() == counts.size());
        REQUIRE(chosen.bound.size() == counts.size());
        for (std::size_t i = 0; i < counts.size(); ++i) {
            const auto at = static_cast<std::size_t>(counts[i] - 1);
            A gap = 0;
            for (const auto figure :
                 {&attnscope::DistanceCurve<A>::cumulative, &attnscope::DistanceCurve<A>::resultant,
                  &attnscope::DistanceCurve<A>::mass, &attnscope::DistanceCurve<A>::tail_mass,
                  &attnscope::DistanceCurve<A>::truncation, &attnscope::DistanceCurve<A>::bound})
                gap += std::abs((chosen.*figure)[i] - (all.*figure)[at]);
            different.meet(gap, 0, tokens.where);
        }
        CHECK_THROWS_AS(some.compute(tokens.weights(), tokens.vectors(), gram, order, std::vector<Index>{1, 1}),
                        attnscope::invalid_argument);
    });
    ATTNSCOPE_CHECK_WORST(different);
}

TEST_CASE("several sets of a row in one pass are what each is alone", "[selection][distance]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SelectedSet<double> alone;
    std::vector<SelectedSet<double>> together(5);
    Worst different;
    for_each_tokens<double>(seed, shapes, [&](const Tokens<double>& tokens, SplitMix64& random) {
        std::vector<std::vector<Index>> keys;
        for (Index i = 0; i < 5; ++i)
            keys.push_back(random_subset(random, tokens.n, std::min(tokens.n, i * i)));
        const std::vector<std::span<const Index>> views(keys.begin(), keys.end());
        for (const auto metric : {attnscope::Metric::euclidean, attnscope::Metric::cosine}) {
            SelectedSet<double>::assign_all(together, tokens.weights(), tokens.vectors(), views, metric);
            for (std::size_t i = 0; i < keys.size(); ++i) {
                alone.assign(tokens.weights(), tokens.vectors(), keys[i], metric);
                const SelectedSet<double>& set = together[i];
                double gap =
                    std::abs(set.mass() - alone.mass()) + std::abs(set.tail_mass() - alone.tail_mass()) +
                    std::abs(set.total_length() - alone.total_length()) +
                    (set.context() - alone.context()).norm() + (set.remainder() - alone.remainder()).norm();
                for (Index key = 0; key < tokens.n; ++key) {
                    gap += std::abs(set.distance(key) - alone.distance(key));
                    gap += set.contains(key) != alone.contains(key);
                    for (Index other = 0; other < tokens.n; ++other)
                        gap += set.nearer(key, other) != alone.nearer(key, other);
                }
                different.meet(gap, 0, tokens.where);
            }
        }
    });
    ATTNSCOPE_CHECK_WORST(different);
    CHECK_THROWS_AS(SelectedSet<double>::assign_all(together, {}, {}, {}), attnscope::invalid_argument);
}

TEST_CASE("the farthest token of each, as the tokens grow in number", "[selection][distance]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst farther, length;
    for_each_tokens<double>(seed, shapes, [&](const Tokens<double>& tokens, SplitMix64&) {
        const auto gram = attnscope::gram_matrix(tokens.vectors());
        attnscope::FarthestTokens<double> farthest(gram);
        for (Index n : {Index(1), (tokens.n + 1) / 2, tokens.n, Index(1)}) {
            farthest.reach(n);
            REQUIRE(farthest.size() == n);
            for (Index i = 0; i < n; ++i) {
                if (n == 1) {
                    CHECK(farthest.token(i) == -1);
                    continue;
                }
                const Index far = farthest.token(i);
                REQUIRE((far >= 0 && far < n && (far != i || farthest.square(i) <= 0)));
                Ref most = 0;
                for (Index j = 0; j < n; ++j) most = std::max(most, tokens.apart(i, j));
                // Inner products of d terms, added up.
                const Ref error = 8 * unit_roundoff<double> * static_cast<Ref>(tokens.d + 4) *
                                  static_cast<Ref>(farthest.largest());
                farther.meet(most * most - tokens.apart(i, far) * tokens.apart(i, far), error, tokens.where);
                length.meet(std::abs(most * most - farthest.square(i)), error, tokens.where);
            }
        }
        CHECK_THROWS_AS(farthest.reach(tokens.n + 1), attnscope::invalid_argument);
    });
    ATTNSCOPE_CHECK_WORST(farther);
    ATTNSCOPE_CHECK_WORST(length);
}

TEST_CASE("the farthest of tokens that inner products cannot tell apart", "[selection][distance]") {
    // Differences of 1e-9: their squares drown in the rounding of the Gram matrix.
    SelectedSet<double> set;
    std::size_t drowned = 0;
    for (int i = 1; i <= 50; ++i) {
        const double step = 1e-9 * i;
        const Tokens<double> tokens =
            tokens_of(std::vector<double>(4, 0.25), {1, 1 + 2 * step, 1 + 3 * step, 1 - step});
        const auto gram = attnscope::gram_matrix(tokens.vectors());
        set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0});
        CHECK(fixed_set_geometry(set, &gram).spread == fixed_set_geometry(set).spread);
        attnscope::FarthestTokens<double> farthest(gram);
        farthest.reach(4);
        CHECK(fixed_set_geometry(set, farthest).spread == fixed_set_geometry(set).spread);
        CHECK(fixed_set_geometry(set).spread == (1 + 3 * step) - 1);
        const auto square = [&](Index j) { return gram(0, 0) + gram(j, j) - 2 * gram(0, j); };
        drowned += !(square(2) > square(1) && square(2) > square(3));
    }
    CHECK(drowned > 2);
}

TEST_CASE("curves of float rows whose first token is almost nothing", "[selection][distance]") {
    // |s| at N = 1 is 1e-20 and 1e-40 of the others: their squares in its units are beyond float.
    for (const float first : {1e-15f, 1e-20f, 1e-38f, 0.0f}) {
        const Tokens<float> tokens{3, 1, {0.5f, 0.25f, 0.25f}, {first, 1, 2}, {}};
        const auto gram = attnscope::gram_matrix(tokens.vectors());
        DistanceCurves<float> curves;
        const auto& curve =
            curves.compute(tokens.weights(), tokens.vectors(), gram, std::vector<Index>{0, 1, 2}, 3);
        CHECK(curve.cumulative[0] == Catch::Approx(0.75).epsilon(1e-6));
        CHECK(curve.cumulative[1] == Catch::Approx(0.25).epsilon(1e-6));
        CHECK(curve.cumulative[2] == 0);
    }
}

TEST_CASE("curves stop where they are told, and everything selected has its values", "[selection][distance]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 7);
    const Tokens<double> tokens = make_tokens<double>(random, 0, 0, 20, 6);
    const std::vector<Index> order = reference_order(tokens.weights());
    const auto gram = attnscope::gram_matrix(tokens.vectors());
    DistanceCurves<double> curves, again;
    const auto all = curves.compute(tokens.weights(), tokens.vectors(), gram, order, 20, true);
    for (const Index n_max : {0, 1, 7, 19}) {
        const auto& some = again.compute(tokens.weights(), tokens.vectors(), gram, order, n_max, true);
        REQUIRE(some.cumulative.size() == static_cast<std::size_t>(n_max));
        for (std::size_t i = 0; i < some.cumulative.size(); ++i) {
            CHECK(some.cumulative[i] == all.cumulative[i]);
            CHECK(some.resultant[i] == all.resultant[i]);
            CHECK(some.mass[i] == all.mass[i]);
            CHECK(some.tail_mass[i] == all.tail_mass[i]);
            CHECK(some.bound[i] == all.bound[i]);
        }
    }
    CHECK(curves.compute(tokens.weights(), tokens.vectors(), gram, order, 20).bound.empty()); // not asked for
    CHECK(all.cumulative.back() == 0);
    CHECK(all.tail_mass.back() == 0);
    const RefSelection r = reference_selection(tokens, order);
    CHECK(std::abs(all.resultant.back() - norm_of(r.s)) < 64 * unit_roundoff<double> * r.total_length);

    // Vectors of a longer head: the leading block of its Gram matrix serves a row that sees a prefix.
    const Tokens<double> head = make_tokens<double>(random, 0, 5, 31, 6);
    const auto whole = attnscope::gram_matrix(head.vectors());
    Tokens<double> prefix = head;
    prefix.n = 20;
    prefix.p.resize(20);
    const std::vector<Index> prefix_order = reference_order(prefix.weights());
    const auto own =
        curves.compute(prefix.weights(), prefix.vectors(), gram_matrix(prefix.vectors()), prefix_order, 20);
    const auto& shared = again.compute(prefix.weights(), head.vectors(), whole, prefix_order, 20);
    for (std::size_t i = 0; i < 19; ++i) {
        const Ref size = prefix.total_length() * 20;
        CHECK(std::abs(own.cumulative[i] - shared.cumulative[i]) < 1e-6 * size);
        CHECK(std::abs(own.resultant[i] - shared.resultant[i]) < 1e-13 * size);
    }
}

TEST_CASE("views of wider buffers are read where they lie", "[selection][distance]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 8);
    const Tokens<float> tokens = make_tokens<float>(random, 0, 0, 12, 5);
    std::vector<float> wide(12 * 9, -77.0f);
    for (std::size_t i = 0; i < 12; ++i)
        for (std::size_t c = 0; c < 5; ++c) wide[i * 9 + 2 + c] = tokens.x[i * 5 + c];
    const MatrixView<float> view(wide.data() + 2, 12, 5, 9);
    const std::vector<Index> keys = {3, 7, 1};
    SelectedSet<float> packed, strided;
    packed.assign(tokens.weights(), tokens.vectors(), keys);
    strided.assign(tokens.weights(), view, keys);
    for (Index i = 0; i < 12; ++i) CHECK(packed.distance(i) == strided.distance(i));
    CHECK(gram_matrix(view) == gram_matrix(tokens.vectors()));
    DistanceCurves<float> one, two;
    const std::vector<Index> order = reference_order(tokens.weights());
    const auto& a = one.compute(tokens.weights(), tokens.vectors(), gram_matrix(view), order, 12, true);
    const auto& b = two.compute(tokens.weights(), view, gram_matrix(view), order, 12, true);
    CHECK(a.cumulative == b.cumulative);
    CHECK(a.bound == b.bound);
}
