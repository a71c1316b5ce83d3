// Sets of keys from outside, and selectors that need no past: what they are and what they refuse.
#include <attnscope/selector/key_sets.hpp>
#include <attnscope/selector/row_selectors.hpp>
#include <support/key_lists.hpp>
#include <support/mask_reference.hpp>
#include <support/scalars.hpp>

#include <set>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class F>
std::string message(const F& f) {
    try {
        f();
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return {};
}

} // namespace

TEST_CASE("KeySets: lists, compressed rows, padded rows, blocks and bits say the same", "[selector]") {
    const Lists lists = {{0}, {}, {2, 0}, {1, 3, 2}};
    const KeySets sets(lists);
    CHECK(sets.queries() == 4);
    CHECK(lists_of(sets) == lists);
    CHECK(lists_of(KeySets::csr(sets.offsets(), sets.keys())) == lists);
    CHECK(lists_of(KeySets::padded(std::vector<Index>{0, -1, -1, -1, -1, -1, 2, -1, 0, 1, 3, 2}, 3)) == lists);
    std::vector<bool> bits(16);
    for (std::size_t i = 0; i < 4; ++i)
        for (const Index key : lists[i]) bits[i * 4 + static_cast<std::size_t>(key)] = true;
    Lists ascending = lists;
    for (auto& list : ascending) std::sort(list.begin(), list.end());
    CHECK(lists_of(KeySets::bits(bits, 4, 4)) == ascending);
    // Of blocks what the query sees.
    const KeySets blocks = KeySets::blocks(2, {{0}, {0}, {1, 0}, {2}, {2, 0}}, 5, Mask::causal());
    CHECK(lists_of(blocks) == Lists{{0}, {0, 1}, {2, 0, 1}, {}, {4, 0, 1}});
    CHECK(KeySets().queries() == 0);
}

TEST_CASE("KeySets: what is no set is refused by query and key", "[selector]") {
    CHECK_THAT(message([] {
                   KeySets(Lists{{0}, {1, 2, 1}});
               }),
               Catch::Matchers::ContainsSubstring("once") && Catch::Matchers::ContainsSubstring("1 and 1"));
    CHECK_THAT(message([] {
                   KeySets(Lists{{0}, {0}, {4, -1}});
               }),
               Catch::Matchers::ContainsSubstring("2 and -1"));
    const std::vector<Index> keys = {0, 1, 2};
    for (const std::vector<Index>& offsets : {std::vector<Index>{}, {1, 3}, {0, 2}, {0, 4, 3}, {0, 2, 1, 3}})
        CHECK_THAT(message([&] { (void)KeySets::csr(offsets, keys); }),
                   Catch::Matchers::ContainsSubstring("offsets"));
    CHECK_THROWS_AS(KeySets::padded(keys, 2), invalid_argument);
    CHECK_THROWS_AS(KeySets::padded(keys, 0), invalid_argument);
    CHECK_THROWS_AS(KeySets::blocks(0, {}, 4, {}), invalid_argument);
    CHECK_THAT(message([] {
                   (void)KeySets::blocks(2, {{0}, {2}}, 4, {});
               }),
               Catch::Matchers::ContainsSubstring("1 and 2"));
    CHECK_THROWS_AS(KeySets::bits(std::vector<bool>(5), 2, 3), invalid_argument);
    const KeySets one(Lists{{0}});
    CHECK_THROWS_AS(one(1), invalid_argument);
}

TEST_CASE("TopKeys and TopMass take the best keys, the smaller first among equals", "[selector]") {
    const std::vector<double> z = {1, 3, -std::numeric_limits<double>::infinity(), 3, 0};
    const ScoredRow<double> row{7, 10, in(z)};
    CHECK(TopKeys(3)(row) == std::vector<Index>{11, 13, 10});
    CHECK(TopKeys(9)(row) == std::vector<Index>{11, 13, 10, 14});
    CHECK(TopKeys(0)(row).empty());
    // Weights e^3 twice, e, 1: 0.4574, 0.4574, 0.0619, 0.0228.
    CHECK(TopMass(0.4)(row) == std::vector<Index>{11});
    CHECK(TopMass(0.9)(row) == std::vector<Index>{11, 13});
    CHECK(TopMass(0.95)(row) == std::vector<Index>{11, 13, 10});
    CHECK(TopMass(1)(row) == std::vector<Index>{11, 13, 10, 14});
    const std::vector<double> bad = {1, std::numeric_limits<double>::quiet_NaN()};
    CHECK(TopMass(0.5)(ScoredRow<double>{0, 0, in(bad)}).empty());
    CHECK_THROWS_AS(TopKeys(-1), invalid_argument);
    CHECK_THROWS_AS(TopMass(0), invalid_argument);
    CHECK_THROWS_AS(TopMass(1.5), invalid_argument);
}

TEST_CASE("SinkWindow and RandomKeys select of what a query sees", "[selector]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    std::vector<Index> drawn(6);
    for (int round = 0; round < 300; ++round) {
        const Index keys = 1 + random.below(30), queries = 1 + random.below(10);
        const MaskRule rule = random_rule(random, keys);
        const Index sinks = random.below(4), window = random.below(8), n = random.below(12);
        const SinkWindow ends(sinks, window, rule.mask(), keys);
        const RandomKeys some(n, seed, rule.mask(), keys);
        for (Index query = 0; query < queries; ++query) {
            std::vector<Index> seen, wanted;
            for (Index key = 0; key < keys; ++key)
                if (rule.sees(query, key)) seen.push_back(key);
            const Index count = static_cast<Index>(seen.size());
            for (Index i = 0; i < count; ++i)
                if (i < sinks || i >= count - window) wanted.push_back(seen[std::size_t(i)]);
            CHECK(ends(query) == wanted);
            const std::vector<Index> keys_drawn = some(query);
            CHECK(static_cast<Index>(keys_drawn.size()) == std::min(n, count));
            CHECK(std::set<Index>(keys_drawn.begin(), keys_drawn.end()).size() == keys_drawn.size());
            for (const Index key : keys_drawn) CHECK(rule.sees(query, key));
            CHECK(some(query) == keys_drawn);
        }
    }
    // Every key is as likely as every other: 2 of 6, 6000 times.
    for (std::uint64_t i = 0; i < 6000; ++i)
        for (const Index key : RandomKeys(2, seed + i, {}, 6)(0)) ++drawn[std::size_t(key)];
    for (const Index count : drawn) CHECK(std::abs(static_cast<double>(count) - 2000) < 6 * std::sqrt(2000.0));
    CHECK_THROWS_AS(SinkWindow(-1, 2, {}, 4), invalid_argument);
    CHECK_THROWS_AS(RandomKeys(-1, 2, {}, 4), invalid_argument);
}
