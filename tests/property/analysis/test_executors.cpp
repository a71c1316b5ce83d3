// The same bits whoever runs the tasks and wherever the logits come from; a head that is streamed has the figures of
// one that is not.
#include <support/analysis_reference.hpp>

#include <attnscope/runtime/registry.hpp>
#include <attnscope/streaming/threads.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

/// Runs tasks in a random order.
struct Shuffled {
    std::uint64_t seed;
    template <class Task>
    void operator()(Index count, Task&& task) const {
        SplitMix64 random(seed);
        std::vector<Index> order(static_cast<std::size_t>(count));
        std::iota(order.begin(), order.end(), Index(0));
        for (std::size_t i = 1; i < order.size(); ++i)
            std::swap(order[i], order[static_cast<std::size_t>(random.below(static_cast<Index>(i) + 1))]);
        for (const Index i : order) task(i);
    }
};

/// Logits of a head, tile by tile, by loops.
template <class T>
struct LoopTiles {
    const Matrix<double>&q, &k;
    double scale;
    void operator()(Index query, Index key, TileOut<T> tile) const {
        for (Index i = 0; i < tile.rows(); ++i)
            for (Index j = 0; j < tile.cols(); ++j)
                tile(i, j) = static_cast<T>(scale * q.row(query + i).dot(k.row(key + j)));
    }
};

HeadAnalysis without_audit(HeadAnalysis head) {
    head.audit = Audit();
    return head;
}

} // namespace

TEST_CASE("analyze: the same bits on every executor and through every door", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 11);
    const Index queries = 70, keys = 60;
    const ExactHead head(random, queries, keys, 4, 5);
    for (const Mask& mask : {Mask::none(), Mask::causal(keys - queries), Mask::sliding_window(7).with_start(3)})
        for (const std::string_view name : {"softmax", "softmax single", "entmax:1.5", "sink"})
            for (const Index above : {Index(1) << 26, Index(1000)}) {
                INFO(name << ", streamed above " << above);
                AnalysisOptions options{.mask = mask, .temperature = 0.5, .counts = {1, 3}};
                options.single_precision = name == "softmax single";
                options.normalizer = make_normalizer(name.substr(0, name.find(' ')));
                options.streamed_above = above;
                std::vector<bool> padding(static_cast<std::size_t>(queries), false);
                padding[6] = true;
                options.padding = padding;
                const HeadAnalysis right = analyze(head.q, head.k, head.v, options);
                const auto same = [&](std::string_view what, const HeadAnalysis& other) {
                    INFO(what);
                    CHECK(first_difference(other, right) == "");
                };
                for (const Index threads : {1, 2, 3, 4})
                    same("threads", analyze(head.q, head.k, head.v, options, Threads(threads)));
                for (std::uint64_t seed = 0; seed < 3; ++seed)
                    same("shuffled", analyze(head.q, head.k, head.v, options, Shuffled{seed}));
                same("lambda", analyze(head.q, head.k, head.v, options, [](Index count, auto&& task) {
                         for (Index i = count; i-- > 0;) task(i);
                     }));
                same("view", analyze(HeadView<double>(head.q, head.k, head.v), options, Threads(2)));

                // Without q and k nobody tells |q| max |k|, and figures of a streamed softmax do not come from scans.
                options.delta.clear();
                for (Index i = 0; i < queries; ++i) {
                    double longest = 0;
                    for (Index j = 0; j < keys; ++j)
                        if (mask.visible(i, keys).contains(j))
                            longest = std::max(longest, head.k.row(j).stableNorm());
                    options.delta.push_back(head.q.row(i).stableNorm() * longest * 0.5);
                }
                const Matrix<float> v = head.v.cast<float>();
                const HeadAnalysis tiles =
                    analyze_tiles<float>(queries, keys, LoopTiles<float>{head.q, head.k, 0.5},
                                         MatrixView<float>(v), options, Threads(3));
                Matrix<double> z = 0.5 * head.q * head.k.transpose();
                const HeadAnalysis logits = analyze_logits(z, v, options, Shuffled{5});
                CHECK(first_difference(tiles, logits) == "");
                HeadAnalysis door = logits; // knows no scale
                if (!right.streamed || name != "softmax")
                    if (!(right.streamed && name == "softmax single")) same("logits", door);
            }
}

TEST_CASE("analyze: a streamed head has the figures of one that is not", "[analysis]") {
    INFO("seed " << test_seed());
    AnalysisErrors errors, single_errors;
    const std::array<std::array<Index, 2>, 4> shapes = {{{40, 40}, {3, 50}, {50, 3}, {1, 1}}};
    for (const auto& [queries, keys] : shapes)
        for (const MaskRule& rule : {MaskRule{}, MaskRule{.causal = true}, MaskRule{.causal = true, .start = 2},
                                     MaskRule{.causal = true, .window = 5, .sinks = 1}})
            for (const double temperature : {1.0, 0.3})
                for (const bool single : {false, true})
                    for (const bool sensitivity : {true, false}) {
                        SplitMix64 random = generator(test_seed(), 12, queries, keys);
                        const ExactHead exact(random, queries, keys, 16, 4);
                        std::vector<bool> padding(static_cast<std::size_t>(queries), false);
                        padding[0] = queries > 1;
                        const AnalysisOptions options{.mask = rule.mask(),
                                                      .temperature = temperature,
                                                      .counts = {1, 2},
                                                      .sensitivity = sensitivity,
                                                      .single_precision = single,
                                                      .streamed_above = 0,
                                                      .padding = padding};
                        const HeadAnalysis head = analyze(exact.q, exact.k, exact.v, options);
                        const Matrix<double> z = reference_logits(exact.q, exact.k, 0.25, rule, padding);
                        const Where where{rule.causal ? "causal" : "none", 0, temperature, test_seed(),
                                          single ? "float" : "double"};
                        const Ref unit = single ? unit_roundoff<float> : unit_roundoff<double>;
                        compare_rows(single ? single_errors : errors, head, z, temperature, where, unit,
                                     sensitivity, product_error(exact.q, exact.k, 0.25, unit));
                        compare_selections(single ? single_errors : errors, head, z, temperature, &exact.v, {},
                                           where, unit);
                        CHECK(head.streamed);
                        CHECK(head.single_precision == single);
                        CHECK(std::is_sorted(head.examined.begin(), head.examined.end()));
                        REQUIRE_FALSE(head.examined.empty());
                        CHECK(head.examined.back() == queries - 1);
                        CHECK(static_cast<Index>(head.examined.size()) == std::min<Index>(queries, 16));
                        // The audit is of the examined rows, and says of them what it says of any head.
                        std::size_t normal = 0;
                        for (const Index query : head.examined)
                            normal += head.rows.status[static_cast<std::size_t>(query)] == RowStatus::normal;
                        for (const AuditRecord& record : head.audit.records())
                            if (record.statement->id == "lemma2" || record.statement->id == "box")
                                CHECK(record.checked == normal);
                    }
    ATTNSCOPE_CHECK_ANALYSIS(errors);
    ATTNSCOPE_CHECK_SELECTIONS(errors);
    ATTNSCOPE_CHECK_ANALYSIS(single_errors);
    ATTNSCOPE_CHECK_WORST(single_errors.mass);
    ATTNSCOPE_CHECK_WORST(single_errors.lengths);
}

TEST_CASE("analyze: other normalisers and tiles are streamed row by row, to the same bits", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 13);
    const ExactHead exact(random, 40, 40, 4, 3);
    for (const std::string_view name : {"sparsemax", "sigmoid", "ssmax", "softcap:2|softmax"}) {
        INFO(name);
        AnalysisOptions options{.mask = Mask::causal(), .normalizer = make_normalizer(name), .counts = {2}};
        const HeadAnalysis whole = analyze(exact.q, exact.k, exact.v, options);
        options.streamed_above = 0;
        const HeadAnalysis streamed = analyze(exact.q, exact.k, exact.v, options);
        CHECK(streamed.streamed);
        CHECK(streamed.examined.size() == 16);
        HeadAnalysis filled = without_audit(streamed);
        for (Index query = 0; query < 40; ++query) {
            const bool examined = std::binary_search(streamed.examined.begin(), streamed.examined.end(), query);
            CHECK(streamed.selection(2).has(query) == (examined && whole.selection(2).has(query)));
            if (examined)
                CHECK((streamed.selection(2).mass[query] == whole.selection(2).mass[query] || query < 2));
        }
        filled.selections = whole.selections;
        filled.streamed = false;
        filled.examined = whole.examined;
        CHECK(first_difference(filled, without_audit(whole)) == "");
        // What is said of a row does not depend on its neighbours.
        for (std::size_t i = 0; i < whole.audit.records().size(); ++i) {
            const AuditRecord &some = streamed.audit.records()[i], &all = whole.audit.records()[i];
            CHECK(some.checked <= all.checked);
            for (const double x : some.tightness)
                CHECK(std::find(all.tightness.begin(), all.tightness.end(), x) != all.tightness.end());
        }
    }
}
