// Where rows are cut, against sorting them.
#include <attnscope/normalizer/adaptors.hpp>
#include <support/scalars.hpp>

#include <numeric>

using namespace attnscope_test;

namespace {

/// Keys by falling weight, ties by rising key.
template <class T>
std::vector<std::size_t> ranked(const std::vector<T>& p) {
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    return order;
}

template <class T>
std::vector<T> first_of(const std::vector<T>& p, const std::vector<std::size_t>& order, std::size_t count) {
    std::vector<T> kept(p.size(), T(0));
    for (std::size_t i = 0; i < count; ++i) kept[order[i]] = p[order[i]];
    return kept;
}

/// Rows with many and few ties, zeros, and numbers over the whole range of T.
template <class T>
std::vector<T> some_row(SplitMix64& random, Index n, int family) {
    std::vector<T> p;
    for (Index i = 0; i < n; ++i)
        p.push_back(family == 0   ? static_cast<T>(random.below(5))
                    : family == 1 ? static_cast<T>(random.below(1'000'000))
                    : family == 2 ? T(3)
                    : family == 3 ? static_cast<T>(std::ldexp(1.0, static_cast<int>(random.below(60))))
                    : family == 5 ? static_cast<T>(random.below(7) == 0 ? 0 : 1 + random.below(1'000'000))
                                  : std::ldexp(static_cast<T>(random.uniform()),
                                               static_cast<int>(random.below(250)) - 140));
    return p;
}

} // namespace

TEMPLATE_TEST_CASE("the k largest of a row are those of a sort", "[normalizer][topk]", float, double,
                   long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 71);
    std::size_t wrong = 0, met = 0;
    for (int trial = 0; trial < 3000; ++trial, ++met) {
        const Index n = 1 + random.below(trial % 10 == 0 ? 2000 : 70), k = 1 + random.below(n);
        const std::vector<T> p = some_row<T>(random, n, trial % 6);
        std::vector<T> found = p;
        attnscope::top_k(k).choose<T>(found);
        wrong += found != first_of(p, ranked(p), static_cast<std::size_t>(k));
    }
    CHECK(wrong == 0);
    CHECK(met == 3000);
}

TEMPLATE_TEST_CASE("the share of a row is cut where a sort cuts it, in whole numbers", "[normalizer][topp]",
                   float, double, long double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 72);
    std::size_t wrong = 0, cut = 0;
    for (int trial = 0; trial < 3000; ++trial) {
        const Index n = 1 + random.below(trial % 10 == 0 ? 2000 : 70);
        // Whole numbers whose sums are exact in T, and shares that are.
        std::vector<T> p = some_row<T>(random, n, trial % 3 == 1 ? 5 : trial % 3);
        const double mass = static_cast<double>(1 + random.below(64)) / 64;
        const std::vector<std::size_t> order = ranked(p);
        const double spare = (1 - mass) * static_cast<double>(std::accumulate(p.begin(), p.end(), T(0)));
        std::size_t count = p.size();
        for (double tail = 0; count > 1; --count) {
            tail += static_cast<double>(p[order[count - 1]]);
            if (tail > spare) break;
        }
        cut += count < p.size();
        std::vector<T> found = p;
        attnscope::top_p(mass).choose<T>(found);
        wrong += found != first_of(p, order, count);
    }
    CHECK(wrong == 0);
    CHECK(cut > 2000);
}
