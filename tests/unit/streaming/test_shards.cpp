// Shards: every unit in one of them, as much work in each.
#include <attnscope/streaming/shards.hpp>
#include <support/mask_reference.hpp>

using namespace attnscope_test;
using namespace attnscope;

TEST_CASE("visible_pairs counts what queries see", "[shards]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    for (int round = 0; round < 200; ++round) {
        const Index keys = 1 + random.below(20), queries = 1 + random.below(20);
        const MaskRule rule = random_rule(random, keys);
        double pairs = 0;
        for (Index query = 0; query < queries; ++query)
            for (Index key = 0; key < keys; ++key) pairs += rule.sees(query, key);
        CHECK(visible_pairs(rule.mask(), queries, keys) == pairs);
    }
}

TEST_CASE("every unit is in one shard, and shards are even", "[shards]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    for (int round = 0; round < 100; ++round) {
        // Causal heads, some with windows: layers of a large model.
        std::vector<WorkUnit> units;
        const Index layers = 1 + random.below(90), heads = 1 + random.below(64),
                    window = 64 + random.below(4000);
        double total = 0, largest = 0;
        for (Index layer = 0; layer < layers; ++layer)
            for (Index head = 0; head < heads; ++head) {
                const double n = 4096, w = static_cast<double>(window);
                units.push_back({0, layer, head, layer % 2 == 0 ? n * (n + 1) / 2 : w * n - w * (w - 1) / 2});
                total += units.back().pairs;
                largest = std::max(largest, units.back().pairs);
            }
        const Index count = 1 + random.below(80);
        std::vector<int> times(units.size());
        for (Index number = 1; number <= count; ++number) {
            double own = 0;
            Index before = -1;
            for (const Index place : Shard{number, count}.units(units)) {
                CHECK(place > before);
                before = place;
                ++times[std::size_t(place)];
                own += units[std::size_t(place)].pairs;
            }
            const double fair = total / static_cast<double>(count);
            CHECK(std::abs(own - fair) <= largest * (1 + 1e-9));
            if (largest < fair / 20) CHECK(std::abs(own - fair) <= 0.05 * fair);
        }
        CHECK(std::all_of(times.begin(), times.end(), [](int n) { return n == 1; }));
    }
    // Nothing to weigh: by number.
    const std::vector<WorkUnit> empty(7);
    std::size_t all = 0;
    for (Index number = 1; number <= 3; ++number) all += Shard{number, 3}.units(empty).size();
    CHECK(all == 7);
    CHECK(Shard{2, 3}.units(empty).size() >= 2);
}

TEST_CASE("Shard::parse", "[shards]") {
    CHECK(Shard::parse("3/64").number == 3);
    CHECK(Shard::parse("3/64").count == 64);
    CHECK(Shard::parse("1/1").count == 1);
    for (const char* wrong :
         {"", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4x", "1 /4", "/4", "1/", "1/99999999"}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS(Shard::parse(wrong), invalid_argument);
    }
}
