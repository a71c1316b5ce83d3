// Geometric separability against its definitions in long double and, with ties, in integers.
#include <attnscope/selection/separability.hpp>
#include <support/selection_reference.hpp>

#include <optional>

using namespace attnscope_test;
using attnscope::Metric;
using attnscope::SelectedSet;
using attnscope::Separability;

namespace {

constexpr std::array<std::pair<Index, Index>, 8> shapes = {
    {{1, 2}, {2, 1}, {3, 3}, {7, 2}, {16, 8}, {17, 1}, {40, 3}, {90, 16}}};
constexpr double infinity = std::numeric_limits<double>::infinity();

/// The definitions, from anything that grows with the distance.
template <class K>
struct Counted {
    Index confused = 0, recalled = 0, inversions = 0;

    Counted(const std::vector<K>& key, const std::vector<char>& member) {
        std::optional<K> nearest, farthest;
        for (std::size_t i = 0; i < key.size(); ++i)
            if (member[i] != 0)
                farthest = farthest ? std::max(*farthest, key[i]) : key[i];
            else
                nearest = nearest ? std::min(*nearest, key[i]) : key[i];
        for (std::size_t i = 0; i < key.size(); ++i) {
            if (member[i] != 0)
                recalled += !nearest || key[i] < *nearest;
            else
                confused += farthest && key[i] <= *farthest;
            for (std::size_t j = 0; j < key.size(); ++j)
                inversions += member[i] != 0 && member[j] == 0 && key[j] <= key[i];
        }
    }
};

/// precision, recall, F, and what follows from the inversions, from counts.
template <class A>
bool identities(const Separability<A>& found, Index selected, Index confused, Index recalled,
                Index inversions) {
    const A n = static_cast<A>(selected), u = 4 * std::numeric_limits<A>::epsilon();
    const A precision = n / (n + static_cast<A>(confused)), recall = static_cast<A>(recalled) / n;
    const A f = recall > 0 ? 2 / (1 / precision + 1 / recall) : A(0);
    return found.inversions == inversions && found.precision == precision && found.recall == recall &&
           found.separable_fraction == recall && std::abs(found.f_score - f) <= u * f &&
           found.precision >= n / (n + static_cast<A>(inversions)) * (1 - u) &&
           found.recall >= 1 - static_cast<A>(inversions) / n - u;
}

template <class T>
bool same_token(const Tokens<T>& tokens, Index i, Index j) {
    for (Index c = 0; c < tokens.d; ++c)
        if (tokens.y(i, c) != tokens.y(j, c)) return false;
    return true;
}

} // namespace

TEMPLATE_TEST_CASE("separability agrees with its definitions in long double", "[selection][separability]",
                   float, double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    const Metric metric = GENERATE(Metric::euclidean, Metric::cosine);
    const Ref unit = compared_unit<T>;
    Worst counts, extremes;
    std::size_t ambiguous = 0, tied = 0;
    SelectedSet<T> set;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const auto check = [&](std::span<const Index> selected) {
            const RefSelection r = reference_selection(tokens, selected);
            const auto n = static_cast<std::size_t>(tokens.n);
            set.assign(tokens.weights(), tokens.vectors(), selected, metric);
            const auto found = separability(set);
            // What grows with the distance, and its error: D^2 - |s|^2 = |y|^2 - 2 <y, s> tells light tokens
            // apart that are all about |s| away; D itself where it is small; minus the cosine.
            const Ref s = norm_of(r.s), k = unit * static_cast<Ref>(r.count + tokens.d + 8);
            RefRow key(n), error(n), distance(n), distance_error(n);
            for (std::size_t i = 0; i < n; ++i) {
                Ref product = 0;
                for (Index c = 0; c < tokens.d; ++c)
                    product += tokens.y(static_cast<Index>(i), c) * r.s[static_cast<std::size_t>(c)];
                const Ref y = r.own_length[i], bottom = y * s + Ref(1e-12);
                if (metric == Metric::euclidean) {
                    key[i] = y * y - 2 * product;
                    error[i] = 2 * k * (y * y + 2 * y * r.selected_length);
                    distance[i] = r.distance[i];
                    distance_error[i] = direct_distance_error(tokens, r, i);
                } else {
                    key[i] = -product / bottom;
                    error[i] = 4 * k * y * r.selected_length / bottom;
                    distance[i] = 1 + key[i];
                    distance_error[i] = error[i] + 2 * unit;
                }
                extremes.meet(std::abs(set.distance(static_cast<Index>(i)) - distance[i]), distance_error[i],
                              tokens.where);
            }
            Ref nearest = infinity, farthest = -infinity, nearest_error = 0, farthest_error = 0;
            bool doubt = false;
            for (std::size_t i = 0; i < n; ++i) {
                if (r.member[i] == 0) {
                    nearest = std::min(nearest, distance[i]);
                    nearest_error = std::max(nearest_error, distance_error[i]);
                    continue;
                }
                farthest = std::max(farthest, distance[i]);
                farthest_error = std::max(farthest_error, distance_error[i]);
                for (std::size_t j = 0; j < n; ++j) {
                    if (r.member[j] != 0) continue;
                    if (same_token(tokens, static_cast<Index>(i), static_cast<Index>(j))) {
                        ++tied;
                        continue;
                    }
                    const bool near = metric == Metric::euclidean && std::min(distance[i], distance[j]) < s / 2;
                    doubt = doubt ||
                            (near ? std::abs(distance[i] - distance[j]) <= distance_error[i] + distance_error[j]
                                  : std::abs(key[i] - key[j]) <= error[i] + error[j]);
                }
            }
            if (r.count < tokens.n)
                extremes.meet(std::abs(found.nearest_other - nearest), nearest_error, tokens.where);
            extremes.meet(std::abs(found.farthest_selected - farthest), farthest_error, tokens.where);
            extremes.meet(found.margin == found.nearest_other - found.farthest_selected, tokens.where);
            ambiguous += doubt;
            if (doubt) return;
            const Counted<Ref> truth(key, r.member);
            counts.meet(identities<A>(found, r.count, truth.confused, truth.recalled, truth.inversions),
                        tokens.where);
        };
        for (Index count = 1; count <= tokens.n; count = count < 3 ? count + 1 : 2 * count) {
            check(std::span<const Index>(order).first(static_cast<std::size_t>(count)));
            check(random_subset(random, tokens.n, count));
        }
        check(order);
    });
    ATTNSCOPE_CHECK_WORST(counts);
    ATTNSCOPE_CHECK_WORST(extremes);
    CHECK(counts.met() > 2000);
    CHECK(tied > 1000);
    INFO(ambiguous << " rows too close to call");
    // One-dimensional and equal vectors have cosines of exactly 1 and -1: too close to call.
    CHECK(ambiguous < (metric == Metric::euclidean ? counts.met() / 10 : counts.met()));
}

TEST_CASE("separability with ties, in whole numbers", "[selection][separability]") {
    // Small whole weights and components: squares of distances are whole numbers, and equal ones are ties.
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 6);
    std::size_t met = 0, wrong = 0, inverted = 0, boundary = 0, wrong_radius = 0, proviso = 0, partial = 0;
    SelectedSet<double> set;
    for (int trial = 0; trial < 4000; ++trial) {
        const Index n = 2 + random.below(9), d = 1 + random.below(3), count = 1 + random.below(n);
        std::vector<double> p, x;
        for (Index i = 0; i < n; ++i) p.push_back(static_cast<double>(random.below(4)));
        for (Index i = 0; i < n * d; ++i) x.push_back(static_cast<double>(random.below(7) - 3));
        const Tokens<double> tokens = tokens_of(p, x);
        const std::vector<Index> subset = random_subset(random, n, count);
        std::vector<long> square(static_cast<std::size_t>(n));
        std::vector<char> member(static_cast<std::size_t>(n), 0);
        for (const Index i : subset) member[static_cast<std::size_t>(i)] = 1;
        for (Index c = 0; c < d; ++c) {
            long s = 0;
            for (const Index i : subset) s += std::lround(tokens.y(i, c));
            for (Index i = 0; i < n; ++i) {
                const long difference = s - std::lround(tokens.y(i, c));
                square[static_cast<std::size_t>(i)] += difference * difference;
            }
        }
        set.assign(tokens.weights(), tokens.vectors(), subset);
        const Counted<long> truth(square, member);
        ++met;
        wrong += !identities(separability(set), count, truth.confused, truth.recalled, truth.inversions);
        inverted += truth.inversions > 0;

        // Fixed radii: in the middle between two whole squares, and exactly on tokens.
        for (const double radius : {std::sqrt(0.5), std::sqrt(8.5), 2.0, 5.0, 40.0}) {
            const auto found = separability(set, std::optional<double>(radius));
            long inside = 0;
            bool intruder = false;
            for (std::size_t i = 0; i < square.size(); ++i) {
                const bool within = static_cast<double>(square[i]) < radius * radius - 1e-9;
                boundary += std::abs(static_cast<double>(square[i]) - radius * radius) < 1e-9;
                (member[i] != 0 ? inside : (intruder = intruder || within, inside)) += member[i] != 0 && within;
            }
            const double expected = intruder ? 0 : static_cast<double>(inside) / static_cast<double>(count);
            wrong_radius += found.separable_fraction != expected;
            proviso += intruder && inside > 0;
            partial += expected > 0 && expected < 1;
            // The other figures do not know the radius.
            wrong_radius +=
                found.recall != separability(set).recall || found.margin != separability(set).margin;
        }
    }
    CHECK(met == 4000);
    CHECK(wrong == 0);
    CHECK(wrong_radius == 0);
    CHECK(inverted > 500);
    CHECK(boundary > 500);
    CHECK(proviso > 500);
    CHECK(partial > 500);
}

TEST_CASE("separability: everything selected, nothing selected, one selected", "[selection][separability]") {
    const Tokens<double> tokens = tokens_of({0.5, 0.25, 0.25}, {1, 0, 0, 1, 0, 1});
    SelectedSet<double> set;
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{2, 0, 1});
    auto figures = separability(set);
    CHECK(figures.nearest_other == infinity);
    CHECK(figures.margin == infinity);
    CHECK(figures.precision == 1);
    CHECK(figures.recall == 1);
    CHECK(figures.f_score == 1);
    CHECK(figures.separable_fraction == 1);
    CHECK(figures.inversions == 0);

    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{});
    figures = separability(set);
    CHECK(std::isnan(figures.precision));
    CHECK(std::isnan(figures.recall));
    CHECK(std::isnan(figures.separable_fraction));
    CHECK(std::isnan(figures.f_score));
    CHECK(figures.nearest_other == 0.25);
    CHECK(figures.inversions == 0);

    // One selected token is s itself; another one at the same place cannot be told from it.
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0});
    figures = separability(set);
    CHECK(figures.farthest_selected == 0);
    CHECK(figures.separable_fraction == 1);
    CHECK(figures.precision == 1);
    CHECK(figures.margin == Catch::Approx(std::sqrt(0.3125)).epsilon(1e-15));
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{1});
    figures = separability(set);
    CHECK(figures.separable_fraction == 0);
    CHECK(figures.precision == 0.5);
    CHECK(figures.inversions == 1);
    CHECK(figures.margin == 0);
    CHECK(figures.f_score == 0);
}

TEST_CASE("cosine distance sees directions only", "[selection][separability]") {
    // s = (2,1): the long token (0,8) is far from it in length, (1,0.5) has its direction exactly.
    const Tokens<double> tokens = tokens_of({1, 1, 1, 1}, {2, 0, 0, 1, 1, 0.5, 0, 8});
    SelectedSet<double> set;
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0, 1}, Metric::cosine);
    const double root = std::sqrt(5.0);
    CHECK(set.distance(0) == Catch::Approx(1 - 2 / root).epsilon(1e-11));
    CHECK(set.distance(1) == Catch::Approx(1 - 1 / root).epsilon(1e-11));
    CHECK(std::abs(set.distance(2)) < 1e-11); // the 1e-12 of the denominator
    CHECK(set.distance(3) == Catch::Approx(1 - 1 / root).epsilon(1e-11));
    const auto figures = separability(set);
    CHECK(figures.recall == 0);
    CHECK(figures.nearest_other < 1e-11);
    // A token without length has no direction: it is 1 away.
    // (Not {1, 1, 0, 0}: g++ 12.2 with -O2 and AVX-512 makes that four ones.)
    const Tokens<double> with_zero = tokens_of({1, 1}, {3, 1, 0, 0});
    set.assign(with_zero.weights(), with_zero.vectors(), std::vector<Index>{0}, Metric::cosine);
    CHECK(set.distance(1) == 1);
    set.assign(with_zero.weights(), with_zero.vectors(), std::vector<Index>{1}, Metric::cosine);
    CHECK(set.distance(0) == 1);
}

TEST_CASE("tokens of tiny weight are told apart although all are |s| away", "[selection][separability]") {
    // y_1 and y_2 lie at |s| (1 -+ 1e-20): distances round to the same double.
    const Tokens<double> tokens = tokens_of({1, 1e-20, 1e-20}, {1, 0, 1, 0, -1, 0});
    SelectedSet<double> set;
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0, 2});
    CHECK(set.distance(1) == set.distance(2));
    auto figures = separability(set);
    CHECK(figures.recall == 0.5); // the selected y_2 is farther than y_1
    CHECK(figures.precision == Catch::Approx(2.0 / 3).epsilon(1e-15));
    CHECK(figures.inversions == 1);
    set.assign(tokens.weights(), tokens.vectors(), std::vector<Index>{0, 1});
    figures = separability(set);
    CHECK(figures.recall == 1);
    CHECK(figures.precision == 1);
    CHECK(figures.inversions == 0);
}

TEST_CASE("selection by contribution p|x|", "[selection][separability][top_n]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst worst;
    for_each_tokens<float>(seed, shapes, [&](const Tokens<float>& tokens, SplitMix64&) {
        const auto scores = attnscope::contributions(tokens.weights(), tokens.vectors());
        REQUIRE(scores.size() == tokens.n);
        for (Index i = 0; i < tokens.n; ++i) {
            const Ref truth = tokens.weight(i) * tokens.length(i);
            worst.meet(std::abs(scores[i] - truth),
                       unit_roundoff<float> * static_cast<Ref>(tokens.d + 4) * truth + Ref(1e-37),
                       tokens.where);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);

    // A heavy sink without value is the first by weight and the last by contribution.
    const Tokens<double> tokens = tokens_of({0.7, 0.1, 0.2}, {0, 0, 3, 4, 1, 0});
    CHECK(attnscope::top_n(Eigen::Map<const Eigen::RowVectorXd>(tokens.p.data(), 3), 3) ==
          std::vector<Index>{0, 2, 1});
    const auto scores = attnscope::contributions(tokens.weights(), tokens.vectors());
    CHECK(scores[0] == 0);
    CHECK(scores[1] == Catch::Approx(0.5).epsilon(1e-15));
    CHECK(attnscope::top_n(scores, 3) == std::vector<Index>{1, 2, 0});
    SelectedSet<double> set;
    set.assign(tokens.weights(), tokens.vectors(), attnscope::top_n(scores, 2));
    CHECK(set.mass() == Catch::Approx(0.3).epsilon(1e-15));
}
