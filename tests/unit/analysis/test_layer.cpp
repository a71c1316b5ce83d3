// Heads of a layer: means, ranges, what they say together; groups of heads that share keys.
#include <support/analysis_reference.hpp>

#include <attnscope/streaming/threads.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A head of which only one column is known.
HeadAnalysis head_of(std::vector<double> entropies) {
    HeadAnalysis head;
    head.queries = static_cast<Index>(entropies.size());
    head.rows.entropy_nats = Eigen::Map<const Column>(entropies.data(), head.queries);
    return head;
}

} // namespace

TEST_CASE("layer: means and ranges pass over what has no number", "[analysis]") {
    CHECK(finite_mean(head_of({1, not_a_number, 3}).rows.entropy_nats) == 2);
    CHECK(finite_mean(head_of({1, infinity, -infinity}).rows.entropy_nats) == 1);
    CHECK(std::isnan(finite_mean(head_of({not_a_number}).rows.entropy_nats)));
    CHECK(std::isnan(finite_mean(head_of({}).rows.entropy_nats)));

    LayerAnalysis layer;
    CHECK(layer.means(&RowColumns::entropy_nats).size() == 0);
    HeadRange range = layer.range(&RowColumns::entropy_nats);
    CHECK(std::isnan(range.least));
    CHECK(std::isnan(range.most));
    CHECK(range.least_head == -1);
    CHECK(range.most_head == -1);

    layer.heads = {head_of({not_a_number}),    head_of({2, 4}), head_of({1, 1}), head_of({}),
                   head_of({3, not_a_number}), head_of({1})};
    const Column means = layer.means(&RowColumns::entropy_nats);
    REQUIRE(means.size() == 6);
    CHECK(std::isnan(means[0]));
    CHECK(means[1] == 3);
    CHECK(means[2] == 1);
    CHECK(std::isnan(means[3]));
    CHECK(means[4] == 3);
    range = layer.range(&RowColumns::entropy_nats);
    CHECK(range.least == 1);
    CHECK(range.least_head == 2); // the first of two
    CHECK(range.most == 3);
    CHECK(range.most_head == 1);

    LayerAnalysis other;
    other.heads = {head_of({7})};
    layer.merge(other);
    REQUIRE(layer.heads.size() == 7);
    CHECK(layer.range(&RowColumns::entropy_nats).most_head == 6);
}

TEST_CASE("layer: grouped queries are analysed as heads one by one", "[analysis]") {
    SplitMix64 random = generator(test_seed(), 41);
    const Index heads = 6, key_heads = 2, queries = 20, keys = 25, width = 4;
    const Matrix<float> q = eighths(random, heads * queries, width).cast<float>(),
                        k = eighths(random, key_heads * keys, width).cast<float>(),
                        v = eighths(random, key_heads * keys, 3).cast<float>();
    const HeadGroup<float> group(HeadArray<float>::contiguous(q.data(), heads, queries, width),
                                 HeadArray<float>::contiguous(k.data(), key_heads, keys, width),
                                 HeadArray<float>::contiguous(v.data(), key_heads, keys, 3));
    const AnalysisOptions options{.mask = Mask::causal(5), .counts = {1, 3}, .seed = 9};
    const LayerAnalysis layer = analyze(group, options, Threads(2));
    REQUIRE(layer.heads.size() == 6);
    Audit all;
    double sum = 0, count = 0;
    for (Index i = 0; i < heads; ++i) {
        INFO("head " << i);
        AnalysisOptions own = options;
        own.seed = mixed_seed(9, static_cast<std::uint64_t>(i));
        const Index shared = i / 3;
        const HeadAnalysis head = analyze(q.middleRows(i * queries, queries), k.middleRows(shared * keys, keys),
                                          v.middleRows(shared * keys, keys), own);
        CHECK(first_difference(layer.heads[static_cast<std::size_t>(i)], head) == "");
        CHECK(layer.heads[static_cast<std::size_t>(i)].scale == 0.5);
        all.merge(head.audit);
        for (const double x : head.selection(3).margin)
            if (std::isfinite(x)) sum += x, count += 1;
    }
    const Audit said = layer.audit();
    for (std::size_t i = 0; i < all.records().size(); ++i) {
        CHECK(said.records()[i].checked == all.records()[i].checked);
        CHECK(said.records()[i].count == all.records()[i].count);
        CHECK(said.records()[i].tightness == all.records()[i].tightness);
    }
    CHECK(selection_mean(layer.heads, 3, &SelectionColumns::margin) == Catch::Approx(sum / count));
    CHECK(std::isnan(selection_mean(layer.heads, 2, &SelectionColumns::margin)));
    CHECK(selection_counts(layer.heads) == std::vector<Index>{1, 3});

    // Summaries tell the same without rows.
    const std::vector<HeadSummary> summaries(layer.heads.begin(), layer.heads.end());
    for (std::size_t i = 0; i < summaries.size(); ++i) {
        const HeadSummary& summary = summaries[i];
        const HeadAnalysis& head = layer.heads[i];
        for (const RowFigure& figure : figures_of(head.rows))
            CHECK(summary.mean(figure.values) == finite_mean(head.rows.*figure.values));
        CHECK_FALSE(summary.has(&RowColumns::sink_mass));
        CHECK(std::isnan(summary.mean(&RowColumns::sink_mass)));
        CHECK(summary.mean_visible == head.rows.mean_visible());
        CHECK(summary.largest_logit == head.rows.max_logit.maxCoeff());
        CHECK(summary.rows(RowStatus::normal) == queries);
        CHECK(summary.rows(RowStatus::nan) + summary.negative_rows == 0);
        REQUIRE(summary.selections.size() == 2);
        for (std::size_t n = 0; n < 2; ++n)
            for (const SelectionFigure& figure : selection_figures) {
                const double mean = finite_mean(head.selections[n].*figure.values);
                CHECK(summary.selections[n].of(figure.values).mean() == mean);
            }
    }
    CHECK(selection_mean(summaries, 3, &SelectionColumns::margin) == Catch::Approx(sum / count));
    CHECK(selection_counts(summaries) == std::vector<Index>{1, 3});
    const HeadRange range = range_of(summaries, &RowColumns::entropy_nats);
    const Column entropies = layer.means(&RowColumns::entropy_nats);
    CHECK(range.least == entropies.minCoeff());
    CHECK(range.most == entropies[range.most_head]);

    // Without values, and with a scale of the group.
    const HeadGroup<float> scaled(HeadArray<float>::contiguous(q.data(), heads, queries, width),
                                  HeadArray<float>::contiguous(k.data(), key_heads, keys, width), {}, 0.25f);
    const LayerAnalysis plain = analyze(scaled, {.counts = {2}});
    CHECK(plain.heads[5].scale == 0.25);
    CHECK(plain.heads[5].selection(2).has(0));
    CHECK(std::isnan(plain.heads[5].selection(2).margin[0]));
    CHECK(analyze(scaled, {.scale = 2.0, .counts = {}}).heads[1].scale == 2);
}

TEST_CASE("layer: progress is of all heads, and stops all of them", "[analysis]") {
    SplitMix64 random = generator(test_seed(), 42);
    const Matrix<double> q = eighths(random, 3 * 40, 4), k = eighths(random, 40, 4);
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 3, 40, 4),
                                  HeadArray<double>::contiguous(k.data(), 1, 40, 4));
    std::vector<Index> seen;
    AnalysisOptions options{.counts = {}};
    options.progress = [&](Index done, Index all) {
        CHECK(all == 120);
        seen.push_back(done);
        return true;
    };
    analyze(group, options);
    REQUIRE_FALSE(seen.empty());
    CHECK(std::is_sorted(seen.begin(), seen.end()));
    CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
    CHECK(seen.back() == 120);

    seen.clear();
    options.progress = [&](Index done, Index) {
        seen.push_back(done);
        return done < 60;
    };
    const LayerAnalysis stopped = analyze(group, options);
    REQUIRE(stopped.heads.size() == 3);
    CHECK_FALSE(stopped.heads[0].extent.cancelled);
    CHECK(stopped.heads[1].extent.cancelled);
    CHECK(stopped.heads[1].extent.done < 40);
    // After that nobody is asked again, and nothing is begun.
    CHECK(std::count_if(seen.begin(), seen.end(), [](Index done) { return done >= 60; }) == 1);
    CHECK(stopped.heads[2].extent.cancelled);
    CHECK(stopped.heads[2].extent.done == 0);
    CHECK(stopped.heads[2].extent.all == 40);
    CHECK(stopped.heads[2].examined.empty());
    CHECK(stopped.heads[2].rows.size() == 40);
    CHECK(stopped.heads[2].rows.status[7] == RowStatus::nan);
    CHECK(stopped.heads[2].keys == 40);
}
