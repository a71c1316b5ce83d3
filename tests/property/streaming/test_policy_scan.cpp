// Policies by name: what is read, what they select, and that their figures are those of their sets.
#include <attnscope/streaming/policy_scan.hpp>
#include <support/masked_heads.hpp>

using namespace attnscope_test;
using namespace attnscope;
using Kind = SelectionPolicy::Kind;

namespace {

std::vector<Index> list(std::span<const Index> keys) { return {keys.begin(), keys.end()}; }

} // namespace

TEST_CASE("selection_policies reads names, budgets and parameters", "[selector][policy]") {
    const std::vector<Index> budgets{64, 8};
    const auto policies =
        selection_policies("quest:64:8,h2o,window:252:4,top:5,certified,certified:0.5:4", budgets);
    std::vector<std::string> names;
    for (const SelectionPolicy& policy : policies) {
        names.push_back(policy.name());
        // What a policy is called is read as the same policy.
        const auto again = selection_policies(policy.name(), {});
        REQUIRE(again.size() == 1);
        CHECK(again[0].name() == policy.name());
        CHECK(again[0].budget == policy.budget);
        CHECK(again[0].mass == policy.mass);
    }
    CHECK(names == std::vector<std::string>{"quest:64:8", "h2o:64:32", "h2o:8:4", "window:252:4", "top:5",
                                            "certified:0.99:16", "certified:0.5:4"});
    CHECK(policies[3].budget == 256);
    CHECK(selection_policies("window", budgets)[1].budget == 8);
    for (const char* wrong : {"", "best", "top:0", "top:-1", "top:1:2", "top:x", "quest:8:0", "window:2:-1",
                              "certified:1.5", "certified:nan", "top,,h2o", "top,", "top:5 "}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS(selection_policies(wrong, budgets), invalid_argument);
    }
    CHECK_THROWS_WITH(selection_policies("h2o:8,beam:4", budgets),
                      Catch::Matchers::ContainsSubstring("beam:4"));
    CHECK_THROWS_WITH(selection_policies("tova", {}), Catch::Matchers::ContainsSubstring("budget"));
    CHECK_THROWS_AS(selection_policies("tova", std::vector<Index>{0}), invalid_argument);
}

TEST_CASE("select_by gives the sets of the selectors", "[selector][policy]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Index n = 60;
    const Matrix<double> q = normal<double>(random, n, 6, 1.5), k = normal<double>(random, n, 6, 1.5),
                         v = normal<double>(random, n, 3, 1);
    const HeadView<double> head(q, k, v);
    const Mask mask = Mask::causal();
    const auto sets = [&](const std::string& name) {
        return select_by(selection_policies(name, {})[0], head, mask, 10, 7).sets;
    };
    const KeySets window = sets("window:8:4"), drawn = sets("random:5"), quest = sets("quest:12:4"),
                  certain = sets("certified:0.9:4"), top = sets("top:5");
    const EvictionOptions cache{.budget = 12, .prompt = 10};
    const std::vector<std::pair<KeySets, KeySets>> pairs = {
        {sets("h2o:12:5"), evict(HeavyHitters(5), head, cache)},
        {sets("snapkv:12:4"), evict(ObservationWindow(4), head, cache)},
        {sets("tova:12"), evict(LastQuery(), head, cache)}};
    const KeyBlocks<double> blocks(head.k(), 4, head.v());
    const BlockReader<double> reader(head, blocks, mask);
    std::vector<double> z(static_cast<std::size_t>(n));
    for (Index query = 0; query < n; ++query) {
        for (const auto& [ours, wanted] : pairs) CHECK(list(ours(query)) == list(wanted(query)));
        CHECK(list(window(query)) == SinkWindow(4, 8, mask, n)(query));
        CHECK(list(drawn(query)) == RandomKeys(5, 7, mask, n)(query));
        CHECK(list(quest(query)) == reader.best(query, 12).keys);
        CHECK(list(certain(query)) == reader.until(query, 0.9).keys);
        logits_of<double>(head, mask, query, out(z));
        CHECK(list(top(query)) == TopKeys(5)(ScoredRow<double>{query, 0, in(z)}));
    }
}

TEST_CASE("hindsight reads the fewest blocks that hold the mass", "[selector][policy]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Index n = 24, size = 5;
    const Matrix<double> q = normal<double>(random, n, 4, 1.5), k = normal<double>(random, n, 4, 1.5);
    const HeadView<double> head(q, k);
    const auto sets = select_by(selection_policies("hindsight:0.8:5", {})[0], head);
    for (Index query = 0; query < n; ++query) {
        // All sets of blocks.
        std::vector<double> mass;
        double all = 0;
        for (Index key = 0; key <= query; ++key) {
            if (key % size == 0) mass.push_back(0);
            double z = 0;
            for (Index c = 0; c < 4; ++c) z += q(query, c) * k(key, c) / 2;
            mass.back() += std::exp(z);
            all += std::exp(z);
        }
        std::size_t fewest = mass.size();
        for (std::size_t set = 0; set < (std::size_t(1) << mass.size()); ++set) {
            double kept = 0;
            std::size_t count = 0;
            for (std::size_t b = 0; b < mass.size(); ++b)
                if ((set >> b & 1) != 0) kept += mass[b], ++count;
            if (kept >= 0.8 * all) fewest = std::min(fewest, count);
        }
        CHECK(sets.blocks_read[std::size_t(query)] ==
              static_cast<double>(fewest) / static_cast<double>(mass.size()));
        double kept = 0;
        for (const Index key : sets.sets(query)) {
            double z = 0;
            for (Index c = 0; c < 4; ++c) z += q(query, c) * k(key, c) / 2;
            kept += std::exp(z);
        }
        CHECK(kept >= 0.8 * all);
    }
}

TEST_CASE("scan_policy and summarize: means and worst rows of the policy's sets", "[selector][policy]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    const Index n = 70;
    const Matrix<double> q = normal<double>(random, n, 6, 1.5), k = normal<double>(random, n, 6, 1.5),
                         v = normal<double>(random, n, 3, 1);
    const HeadView<double> head(q, k, v);
    double best = 0;
    for (const SelectionPolicy& policy : selection_policies(
             "top:12,window:8:4,h2o:12,snapkv:12,tova:12,quest:12:4,random:12,certified:0.9:4,ranged:0.9:4",
             {})) {
        CAPTURE(policy.name());
        PolicyScanOptions options;
        options.geometry = true;
        options.tiles.scale = 0.5;
        const auto scan = scan_policy(policy, head, Mask::causal(), options);
        const auto sets =
            select_by(policy, HeadView<double>(head.q(), head.k(), head.v(), 0.5), Mask::causal());
        const auto direct = scan_selection(head, sets.sets, Mask::causal(), options);
        const SelectionSummary summary = summarize(scan, 12);
        CHECK(summary.rows == n - 12);
        double kept = 0, least = 1, error = 0, keys = 0;
        for (std::size_t i = 12; i < static_cast<std::size_t>(n); ++i) {
            kept += direct.rows[i].kept / static_cast<double>(n - 12);
            keys += static_cast<double>(direct.rows[i].selected) / static_cast<double>(n - 12);
            least = std::min(least, direct.rows[i].kept);
            error = std::max(error, direct.rows[i].relative_error);
        }
        CHECK(summary.kept == Catch::Approx(kept));
        CHECK(summary.keys == Catch::Approx(keys));
        CHECK(summary.kept_least == Catch::Approx(least));
        CHECK(summary.relative_error_most == Catch::Approx(error));
        CHECK(scan.rows[std::size_t(summary.kept_least_query)].kept == summary.kept_least);
        CHECK(summary.selector_loss + summary.budget_loss + summary.kept == Catch::Approx(1));
        CHECK((summary.limit_used > 0 && summary.limit_used <= 1));
        CHECK(summary.distance > 0);
        CHECK((summary.separable_fraction >= 0 && summary.separable_fraction <= 1));
        if (policy.kind == Kind::hindsight) {
            CHECK(summary.blocks_read < 1);
        } else if (policy.reads_blocks()) {
            CHECK(summary.certified_kept <= summary.kept);
            CHECK((summary.blocks_read > 0 && summary.blocks_read <= 1));
        } else {
            CHECK(std::isnan(summary.certified_kept));
        }
        if (policy.has_mass()) {
            CHECK(summary.kept_least >= 0.9);
            continue;
        }
        // Nobody keeps more than the best keys.
        if (policy.kind == Kind::top) best = summary.kept;
        CHECK(summary.kept <= best + 1e-12);
        if (policy.kind != Kind::quest) // whose last block may be short
            CHECK(summary.budget_loss == Catch::Approx(1 - best));
    }
    CHECK(summarize(PolicyScan<double>{}).rows == 0);
    CHECK(std::isnan(summarize(PolicyScan<double>{}).kept));
    PolicyScanOptions biased;
    biased.tiles.bias = [](Index, Index) { return 0.0; };
    CHECK_THROWS_AS(scan_policy(selection_policies("h2o:4", {})[0], head, {}, biased), invalid_argument);
    PolicyScanOptions sunk;
    sunk.sink_logit = 0;
    CHECK_THROWS_AS(scan_policy(selection_policies("quest:4", {})[0], head, {}, sunk), invalid_argument);
}
