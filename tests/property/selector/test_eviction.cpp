// Caches of few keys: the sets of every policy against a plain replay, and that no policy sees the future.
#include <attnscope/selector/eviction.hpp>
#include <support/key_lists.hpp>
#include <support/masked_heads.hpp>
#include <support/scalars.hpp>

#include <functional>

using namespace attnscope_test;
using namespace attnscope;

namespace {

struct Random {
    Matrix<double> q, k;
    HeadView<double> view() const { return {MatrixView<double>(q), MatrixView<double>(k)}; }
};
Random random_head(SplitMix64& random, Index n) {
    return {normal<double>(random, n, 4, 2), normal<double>(random, n, 4, 1)};
}

/// A past query: which keys it saw, and its weight for each key of the head.
struct Past {
    std::vector<Index> keys;
    std::vector<Ref> weights;
};
/// What a policy thinks of a key in a cache, from its definition and the whole past.
using Worth = std::function<Ref(const std::vector<Past>&, const std::vector<Index>&, std::size_t)>;

/// Decoding under a causal mask, one key leaving after the other.
Lists replay(const Random& head, Index budget, Index prompt, const Worth& worth) {
    std::vector<Past> past;
    std::vector<Index> cache;
    Lists lists;
    for (Index query = 0; query < head.q.rows(); ++query) {
        cache.push_back(query);
        if (query >= prompt && static_cast<Index>(cache.size()) > budget) {
            std::vector<Ref> worths;
            for (std::size_t i = 0; i + 1 < cache.size(); ++i) worths.push_back(worth(past, cache, i));
            worths.push_back(std::numeric_limits<Ref>::infinity());
            while (static_cast<Index>(cache.size()) > budget) {
                const auto least = std::min_element(worths.begin(), worths.end()); // the first of equals
                cache.erase(cache.begin() + (least - worths.begin()));
                worths.erase(least);
            }
        }
        lists.push_back(cache);
        Past now{cache, std::vector<Ref>(static_cast<std::size_t>(head.k.rows()))};
        Ref sum = 0;
        for (const Index key : cache) {
            Ref z = 0;
            for (Index c = 0; c < head.q.cols(); ++c) z += Ref(head.q(query, c)) * Ref(head.k(key, c));
            sum += now.weights[std::size_t(key)] = std::exp(z / 2); // width 4
        }
        for (Ref& w : now.weights) w /= sum;
        past.push_back(std::move(now));
    }
    return lists;
}

constexpr Ref kept = std::numeric_limits<Ref>::infinity();
bool saw(const Past& past, Index key) {
    return std::find(past.keys.begin(), past.keys.end(), key) != past.keys.end();
}

Worth sinks(Index count) {
    return
        [=](const auto&, const auto& cache, std::size_t i) { return cache[i] < count ? kept : Ref(cache[i]); };
}
Worth heavy(Index recent) {
    return [=](const auto& past, const auto& cache, std::size_t i) {
        if (static_cast<Index>(cache.size() - i) <= recent) return kept;
        Ref sum = 0;
        for (const Past& query : past) sum += query.weights[std::size_t(cache[i])];
        return sum;
    };
}
Worth last() {
    return [](const auto& past, const auto& cache, std::size_t i) {
        return past.empty() || !saw(past.back(), cache[i]) ? kept : past.back().weights[std::size_t(cache[i])];
    };
}
Worth observed(Index window, Index pool) {
    return [=](const auto& past, const auto& cache, std::size_t i) {
        const Index n = static_cast<Index>(cache.size()), place = static_cast<Index>(i);
        if (n - place <= window) return kept;
        Ref sum = 0;
        for (Index j = place - pool / 2; j <= place + pool / 2; ++j)
            for (Index back = 1; j >= 0 && j < n && back <= window && back <= static_cast<Index>(past.size());
                 ++back)
                sum += past[past.size() - std::size_t(back)].weights[std::size_t(cache[std::size_t(j)])];
        return sum;
    };
}

} // namespace

TEST_CASE("evict: the sets of every policy are those of a plain replay", "[selector][eviction]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    for (std::uint64_t round = 0; round < 40; ++round) {
        SplitMix64 random = generator(seed, round);
        const Random head = random_head(random, 2 + random.below(40));
        const Index budget = 1 + random.below(12), prompt = round % 2 == 0 ? 0 : random.below(30),
                    count = 1 + random.below(5);
        const EvictionOptions options{.budget = budget, .prompt = prompt};
        CAPTURE(round, head.q.rows(), budget, prompt, count);
        CHECK(lists_of(evict(KeepSinks(count), head.view(), options)) ==
              replay(head, budget, prompt, sinks(count)));
        CHECK(lists_of(evict(HeavyHitters(count), head.view(), options)) ==
              replay(head, budget, prompt, heavy(count)));
        CHECK(lists_of(evict(LastQuery(), head.view(), options)) == replay(head, budget, prompt, last()));
        CHECK(lists_of(evict(ObservationWindow(count, 3), head.view(), options)) ==
              replay(head, budget, prompt, observed(count, 3)));
    }
}

TEST_CASE("evict: no policy sees a later query or key", "[selector][eviction]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Index n = 50;
    const EvictionOptions options{.budget = 9};
    const Random head = random_head(random, n);
    const auto all = [&](const Random& h) {
        return std::vector<Lists>{lists_of(evict(KeepSinks(2), h.view(), options)),
                                  lists_of(evict(HeavyHitters(3), h.view(), options)),
                                  lists_of(evict(LastQuery(), h.view(), options)),
                                  lists_of(evict(ObservationWindow(4, 3), h.view(), options)),
                                  lists_of(evict(RandomEviction(5), h.view(), options))};
    };
    const std::vector<Lists> before = all(head);
    for (const Index from : {5, 20, 35, 49}) {
        Random changed = head;
        for (Index i = from; i < n; ++i) {
            changed.q.row(i) = -3 * head.q.row(i);
            changed.k.row(i) = 5 * head.k.row(n - 1 - i).array() + 1;
        }
        const std::vector<Lists> after = all(changed);
        for (std::size_t policy = 0; policy < before.size(); ++policy)
            for (Index query = 0; query <= from; ++query) // the set of a query is made before it is asked
                CHECK(after[policy][std::size_t(query)] == before[policy][std::size_t(query)]);
    }
}

TEST_CASE("evict: masks, chunks of keys, budgets and bad numbers", "[selector][eviction]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Random head = random_head(random, 20);
    // Two queries behind eighteen cached keys: all of them enter at once.
    const HeadView<double> tail(MatrixView<double>(head.q.data(), 2, 4), MatrixView<double>(head.k));
    const Lists lists = lists_of(evict(KeepSinks(2), tail, {.budget = 5}, Mask::causal(18)));
    CHECK(lists == Lists{{0, 1, 16, 17, 18}, {0, 1, 17, 18, 19}});
    // What a window has passed is gone, and does not come back.
    for (const Index query : {3, 9, 19}) {
        const auto sets = evict(HeavyHitters(1), head.view(), {.budget = 100}, Mask::sliding_window(4));
        std::vector<Index> wanted;
        for (Index key = std::max<Index>(0, query - 3); key <= query; ++key) wanted.push_back(key);
        CHECK(std::vector<Index>(sets(query).begin(), sets(query).end()) == wanted);
    }
    // The newest key stays, whatever a policy thinks of it.
    for (const auto& list : lists_of(evict(HeavyHitters(1), head.view(), {.budget = 1})))
        CHECK(list.size() == 1);
    CHECK(lists_of(evict(HeavyHitters(1), head.view(), {.budget = 1})).back() == std::vector<Index>{19});
    // Weights that are no numbers tell a policy nothing.
    Random broken = head;
    broken.q(10, 0) = std::numeric_limits<double>::quiet_NaN();
    CHECK(lists_of(evict(LastQuery(), broken.view(), {.budget = 4})).size() == 20);

    CHECK_THROWS_AS(evict(KeepSinks(), head.view(), {.budget = 0}), invalid_argument);
    CHECK_THROWS_AS(evict(KeepSinks(), head.view(), {.budget = 4, .prompt = -1}), invalid_argument);
    CHECK_THROWS_AS(KeepSinks(-1), invalid_argument);
    CHECK_THROWS_AS(HeavyHitters(0), invalid_argument);
    CHECK_THROWS_AS(ObservationWindow(0), invalid_argument);
    CHECK_THROWS_AS(ObservationWindow(4, 2), invalid_argument);
}
