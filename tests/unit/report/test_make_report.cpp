// Reports of captures that a program fills itself: every head as `analyze` tells it, on any number of threads, in shards,
// by many processes; as text, JSON, CSV and data of a page; and what is refused.
#include <support/catch.hpp>

#include <attnscope/capture/make_capture.hpp>
#include <attnscope/problems/heads.hpp>
#include <attnscope/report/csv.hpp>
#include <attnscope/report/json.hpp>
#include <attnscope/report/make_report.hpp>
#include <attnscope/report/page_json.hpp>
#include <attnscope/report/table.hpp>

#include <support/temporary_file.hpp>

#include <atomic>
#include <fstream>

namespace {

using namespace attnscope;
using attnscope_test::TemporaryFolder;
using Json = nlohmann::ordered_json;

constexpr Index tokens = 24, width = 32, layers = 2, heads = 2;

/// Heads in memory, of two layers; the second has a window and another temperature.
struct Memory {
    std::vector<problems::ProblemHead> all;
    std::shared_ptr<std::atomic<int>> reads = std::make_shared<std::atomic<int>>(0);

    explicit Memory(std::uint64_t seed) {
        SplitMix64 random(seed);
        for (Index i = 0; i < layers * heads; ++i)
            all.push_back(problems::synthetic_head(
                tokens, width, {.sink = 2.0 * static_cast<double>(i), .needle = 3}, random));
    }

    HeadSource source(Matrix<double> problems::ProblemHead::*member) const {
        HeadSource result;
        result.layers = layers;
        result.heads = heads;
        result.rows = tokens;
        result.cols = width;
        result.read = [this, member](Index first, Index count) {
            ++*reads;
            const Matrix<double>& m = all[static_cast<std::size_t>(first / (tokens * width))].*member;
            return std::vector<double>(m.data(), m.data() + count);
        };
        result.read_floats = [read = result.read](Index first, Index count) {
            const std::vector<double> numbers = read(first, count);
            return std::vector<float>(numbers.begin(), numbers.end());
        };
        return result;
    }

    Capture capture(bool with_values = true) const {
        Capture result;
        result.name = "memory";
        result.layers = layers;
        result.heads = heads;
        result.queries = result.keys = tokens;
        result.width = width;
        result.q = source(&problems::ProblemHead::q);
        result.k = source(&problems::ProblemHead::k);
        if (with_values) result.v = source(&problems::ProblemHead::v);
        result.attention = {{.causal = true}, {.causal = true, .scale = 0.25, .window = 7, .temperature = 2.0}};
        return result;
    }

    /// What `analyze` says of a head.
    HeadAnalysis alone(Index layer, Index head, AnalysisOptions options) const {
        const problems::ProblemHead& own = all[static_cast<std::size_t>(layer * heads + head)];
        options.mask = layer == 0 ? Mask::causal() : Mask::sliding_window(7);
        options.scale = layer == 0 ? HeadView<double>::default_scale(width) : 0.25;
        options.normalizer = Softmax(layer == 0 ? 1 : 2);
        options.seed = mixed_seed(options.seed, std::uint64_t{0}, static_cast<std::uint64_t>(layer),
                                  static_cast<std::uint64_t>(head));
        return analyze(own.q, own.k, own.v, options);
    }
};

template <class Work>
std::string refusal(const Work& work) {
    try {
        work();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "accepted";
}

bool close(double a, double b) {
    return (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= 1e-12 * std::max(std::abs(a), 1.0);
}

void check_equal(const HeadAnalysis& a, const HeadAnalysis& b) {
    for (const RowFigure& figure : row_figures)
        for (Index i = 0; i < tokens; ++i) {
            INFO(figure.name << " of row " << i);
            CHECK(close((a.rows.*figure.values)[i], (b.rows.*figure.values)[i]));
        }
    REQUIRE(a.selections.size() == b.selections.size());
    for (std::size_t n = 0; n < a.selections.size(); ++n)
        for (const SelectionFigure& figure : selection_figures)
            for (Index i = 0; i < tokens; ++i) {
                INFO(figure.name << " of N = " << a.selections[n].n << ", row " << i);
                CHECK(close((a.selections[n].*figure.values)[i], (b.selections[n].*figure.values)[i]));
            }
    REQUIRE(a.audit.records().size() == b.audit.records().size());
    for (std::size_t i = 0; i < a.audit.records().size(); ++i)
        CHECK(a.audit.records()[i].checked == b.audit.records()[i].checked);
}

} // namespace

TEST_CASE("a report holds what analyze tells of each head", "[report]") {
    const std::uint64_t seed = GENERATE(as<std::uint64_t>{}, 1, 77);
    INFO("seed " << seed);
    const Memory memory(seed);
    ReportOptions options{.keep_rows = true};
    options.analysis.counts = {1, 5};
    options.analysis.seed = seed;
    const Report report = make_report(memory.capture(), options);
    REQUIRE(report.heads.size() == 4);
    Audit all;
    for (std::size_t i = 0; i < 4; ++i) {
        const HeadPlace& place = report.places[i];
        CHECK(place.layer * heads + place.head == static_cast<Index>(i));
        const HeadAnalysis alone = memory.alone(place.layer, place.head, options.analysis);
        check_equal(report.head_rows[i], alone);
        all.merge(alone.audit);
        CHECK(close(report.heads[i].mean(&RowColumns::entropy_nats), finite_mean(alone.rows.entropy_nats)));
    }
    for (std::size_t i = 0; i < all.records().size(); ++i) {
        CHECK(report.audit.records()[i].checked == all.records()[i].checked);
        // A report takes its logits from a product of matrices: what holds may do so within rounding.
        const auto& got = report.audit.records()[i].count;
        const auto& expected = all.records()[i].count;
        CHECK(got[0] + got[1] == expected[0] + expected[1]);
        CHECK(std::equal(got.begin() + 2, got.end(), expected.begin() + 2));
    }
    // Chosen heads are the same, whatever else is asked.
    options.layers = {1};
    options.heads = {1, 1};
    options.threads = 3;
    const Report one = make_report(memory.capture(), options);
    REQUIRE(one.heads.size() == 1);
    check_equal(one.head_rows[0], report.head_rows[3]);
}

TEST_CASE("a report does not depend on threads, shards and processes", "[report]") {
    const Memory memory(5);
    ReportOptions options{.beside = "sparsemax", .keep_rows = true};
    options.analysis.counts = {2};
    std::vector<Index> told;
    options.progress = [&](Index done, Index all) {
        CHECK(all == 4);
        told.push_back(done);
    };
    const std::string whole = io::to_json(make_report(memory.capture(), options), true).dump();
    CHECK(told == std::vector<Index>{1, 2, 3, 4});
    options.progress = {};
    const auto text = [](const Report& report) { return io::to_json(report, true).dump(); };
    options.threads = 3;
    CHECK(text(make_report(memory.capture(), options)) == whole);

    const TemporaryFolder folder;
    const HeadStates states(folder.path());
    const auto missing = refusal([&] { merge_states(memory.capture(), options, states); });
    CHECK(missing.find("4 of the states are missing") != std::string::npos);
    const ShardDone first = analyze_shard(memory.capture(), options, states, Shard::parse("1/2"));
    CHECK(first.units == 4);
    CHECK(first.own + analyze_shard(memory.capture(), options, states, Shard::parse("2/2")).own == 4);
    CHECK(analyze_shard(memory.capture(), options, states, Shard::parse("1/1")).there == 4);
    *memory.reads = 0;
    CHECK(text(merge_states(memory.capture(), options, states)) == whole);
    CHECK(text(make_report(memory.capture(), options, &states)) == whole);
    CHECK(*memory.reads == 0); // nothing is analysed that has a state

    // By other processes, in any order; the bytes come in that of the heads.
    const auto run = [](Index count, const auto& work, const auto& take) {
        std::vector<std::vector<std::byte>> bytes(static_cast<std::size_t>(count));
        for (Index i = count; i-- > 0;) bytes[static_cast<std::size_t>(i)] = work(i);
        for (Index i = 0; i < count; ++i) take(i, bytes[static_cast<std::size_t>(i)]);
    };
    CHECK(text(make_report_on(memory.capture(), options, nullptr, run)) == whole);
    const Report elsewhere = make_report_on(memory.capture(), options, nullptr, [](Index, auto&&, auto&&) {});
    CHECK(elsewhere.heads.empty());
    CHECK_THROWS_AS(to_table(elsewhere), invalid_argument);
    CHECK_THROWS_AS(io::to_json(elsewhere), invalid_argument);
    CHECK_THROWS_AS(io::csv_tables(elsewhere), invalid_argument);

    const Estimate all = estimate_report(memory.capture(), options);
    CHECK(all.units == 4);
    CHECK(all.pairs == 2 * 300 + 2 * (28 + 17 * 7)); // 1 + ... + 24, and 1 + ... + 7 and 7 seventeen times
    CHECK(all.core_hours > 0);
}

TEST_CASE("states of another kind are no states", "[report]") {
    const Memory memory(6);
    ReportOptions options;
    options.analysis.counts.clear();
    options.analysis.audit = options.analysis.certificates = false;
    const TemporaryFolder folder;
    const HeadStates states(folder.path(), "one");
    make_report(memory.capture(), options, &states);
    const HeadStates others(folder.path(), "another");
    CHECK(refusal([&] { make_report(memory.capture(), options, &others); }).find("other options") !=
          std::string::npos);
    // What is asked, and how the capture attends, belongs to the configuration; what is chosen or kept does not.
    const auto foreign = [&](const Capture& capture, const ReportOptions& asked) {
        return refusal([&] { merge_states(capture, asked, states); }).find("other options") !=
               std::string::npos;
    };
    ReportOptions asked = options;
    asked.keep_rows = true;
    asked.qk_clip = 2.0;
    asked.layers = {1};
    asked.threads = 2;
    CHECK(!foreign(memory.capture(), asked));
    for (const auto& change : std::vector<std::function<void(ReportOptions&)>>{
             [](ReportOptions& o) { o.normalizer = "sparsemax"; }, [](ReportOptions& o) { o.temperature = 3; },
             [](ReportOptions& o) { o.beside = "sparsemax"; }, [](ReportOptions& o) { o.stream = true; },
             [](ReportOptions& o) { o.analysis.counts = {1}; }, [](ReportOptions& o) { o.analysis.seed = 2; },
             [](ReportOptions& o) { o.analysis.audit = true; },
             [](ReportOptions& o) { o.analysis.certificates = true; },
             [](ReportOptions& o) { o.analysis.sensitivity = false; },
             [](ReportOptions& o) { o.analysis.reading = Reading::resultant; },
             [](ReportOptions& o) { o.analysis.radius = 1.0; },
             [](ReportOptions& o) { o.analysis.single_precision = true; },
             [](ReportOptions& o) { o.analysis.steps = {1.0}; },
             [](ReportOptions& o) { o.analysis.expectation_queries = {1}; }}) {
        asked = options;
        change(asked);
        CHECK(foreign(memory.capture(), asked));
    }
    for (const auto& change : std::vector<std::function<void(Capture&)>>{
             [](Capture& c) { c.attention[0].causal = false; }, [](Capture& c) { c.attention[1].scale = 1.0; },
             [](Capture& c) { c.attention[1].window = 3; },
             [](Capture& c) { c.attention[0].temperature = 2.0; },
             [](Capture& c) { c.attention[0].normalizer = "sparsemax"; }, [](Capture& c) { c.v.reset(); },
             [](Capture& c) {
                 c.sinks = {0, 0, 0, 1};
             },
             [](Capture& c) {
                 c.tokens = {{0, 20}};
             },
             [](Capture& c) { c.options.masked_below = -3.0; }}) {
        Capture capture = memory.capture();
        change(capture);
        CHECK(foreign(capture, options));
    }
    // Files are hashed.
    Capture of_file = memory.capture();
    of_file.files = {folder.path("notes")};
    std::ofstream(of_file.files[0]) << "one";
    CHECK(refusal([&] { merge_states(of_file, options, states); }).find("another input") != std::string::npos);
    CHECK_THROWS_WITH(HeadStates(folder.path("nowhere")),
                      Catch::Matchers::ContainsSubstring("there is no such folder"));

    // A damaged file: an error, or as good as absent if somebody is told.
    const std::string file = states.name_of({0, 1, 0});
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 9);
    CHECK_THROWS_AS(merge_states(memory.capture(), options, states), io_error);
    std::string told;
    const HeadStates patient(folder.path(), "one", [&](const io_error& error) { told = error.what(); });
    CHECK(refusal([&] {
              merge_states(memory.capture(), options, patient);
          }).find("1 of the states are missing") != std::string::npos);
    CHECK(told.find(file) != std::string::npos);
    make_report(memory.capture(), options, &patient);
    CHECK(refusal([&] { merge_states(memory.capture(), options, states); }) == "accepted");
}

TEST_CASE("a report as text, JSON, CSV and data of a page", "[report]") {
    const Memory memory(7);
    ReportOptions options{.qk_clip = 3.0, .patterns = true, .keep_rows = true};
    options.analysis.counts = {3};
    const Report report = make_report(memory.capture(), options);
    const std::string text = to_table(report);
    CHECK(fmt::format("{}", report) == text);
    for (const char* const words :
         {"input        memory, from q and k", "2 layers x 2 heads, 24 queries, 24 keys, width 32",
          "temperature 1,2, causal, window 0,7 (0: all)", "QK-clip", "Summary of 4 heads, 96 rows"})
        CHECK(text.find(words) != std::string::npos);

    const Json json = io::to_json(report, true);
    CHECK(json["schema"] == "attnscope.report/1");
    CHECK(json["heads"].size() == 4);
    CHECK(json["heads"][2]["rows"].size() == tokens);
    CHECK(json["heads"][2]["rows"][5]["entropy_nats"] == report.head_rows[2].rows.entropy_nats[5]);
    CHECK(json["attention"][1]["window"] == 7);
    CHECK(io::to_json(report)["heads"][0]["rows"].empty());

    const std::vector<io::CsvTable> tables = io::csv_tables(report, true);
    std::vector<std::string> names;
    for (const io::CsvTable& table : tables) {
        names.push_back(table.name);
        const Index lines = std::count(table.text.begin(), table.text.end(), '\n');
        if (table.name == "heads.csv") CHECK(lines == 5);
        if (table.name == "rows.csv") CHECK(lines == 4 * tokens + 1);
        if (table.name == "audit.csv") CHECK(lines == std::ssize(statements) + 1);
    }
    CHECK(names == std::vector<std::string>{"heads.csv", "audit.csv", "selection.csv", "rows.csv",
                                            "selection_rows.csv"});
    CHECK(io::csv_tables(report).size() == 3);

    const Json page = io::page_json(report, "a test");
    CHECK(page["command"] == "a test");
    CHECK(page["queries"].size() == tokens); // all of them fit
    CHECK(page["heads"].size() == 4);
    CHECK(!page["checks"].empty());
    // The pattern of the first shown row, which sees one key: 1 weight, the float 1, at distance 0, level 255.
    CHECK(report.patterns[0].rows.substr(0, 7) == std::string("\x01\x00\x00\x80\x3f\x00\xff", 7));

    ReportOptions plain;
    plain.analysis = options.analysis;
    const Report without = make_report(memory.capture(), plain);
    CHECK_THROWS_AS(io::page_json(without, ""), invalid_argument);
    CHECK_THROWS_AS(io::to_json(without, true), invalid_argument);
    CHECK_THROWS_AS(io::csv_tables(without, true), invalid_argument);
}

TEST_CASE("what a report cannot serve is refused by name", "[report]") {
    const Memory memory(8);
    const auto refused = [&](const std::string& words, const ReportOptions& options, bool weights = false) {
        Capture capture = memory.capture();
        if (weights) {
            capture.kind = Capture::Kind::weights;
            capture.weights = capture.q;
            capture.weights->cols = tokens;
        }
        const std::string said = refusal([&] { make_report(std::move(capture), options); });
        INFO(said);
        CHECK(said.starts_with("make_report: " + words));
    };
    refused("layers: there is no layer 2; the input has layers 0 to 1", {.layers = {0, 2}});
    refused("heads: there is no head -1", {.heads = {-1}});
    refused("stream: only softmax", {.normalizer = "sparsemax", .stream = true});
    refused("normalizer: stored weights", {.normalizer = "sigmoid"}, true);
    refused("normalizer: stored weights", {.beside = "sigmoid"}, true);
    refused("threads: must be >= 1, got 0", {.threads = 0});
    refused("qk_clip: must be > 0 and finite, got -1", {.qk_clip = -1.0});
    refused("temperature: must be > 0 and finite, got 0", {.temperature = 0.0});
    refused("normalizer: make_normalizer: ", {.normalizer = "sofmax"});
    refused("beside: make_normalizer: ", {.beside = "sofmax"});
    // What the capture decides is not taken from the options without a word.
    const std::vector<std::pair<const char*, AnalysisOptions>> others = {
        {"mask", {.mask = Mask::causal()}},
        {"scale", {.scale = 1.0}},
        {"temperature", {.temperature = 2.0}},
        {"normalizer", {.normalizer = Sparsemax{}}},
        {"sink_logit", {.sink_logit = 1.0}},
        {"sink_logits", {.sink_logits = {1.0}}},
        {"progress", {.progress = [](Index, Index) { return true; }}},
        {"visit", {.visit = [](Index, RowIn<double>, RowIn<double>) {}}},
        {"delta", {.delta = {1.0}}},
        {"padding", {.padding = {true}}},
        {"masked_below", {.masked_below = -1.0}},
        {"normalise_weights", {.normalise_weights = true}},
        {"stored_scalar", {.stored_scalar = StoredScalar::float32}}};
    for (const auto& [name, analysis] : others)
        refused(fmt::format("analysis: {} is not taken from here but from ", name), {.analysis = analysis});
    const TemporaryFolder folder;
    const HeadStates states(folder.path());
    const ReportOptions patterns{.patterns = true};
    for (const std::string& said :
         {refusal([&] { make_report(memory.capture(), patterns, &states); }),
          refusal([&] { merge_states(memory.capture(), patterns, states); }), refusal([&] {
              analyze_shard(memory.capture(), patterns, states, {1, 2});
          })})
        CHECK(said == "make_report: patterns: states hold none");
    CHECK(refusal([&] { make_report_on(memory.capture(), patterns, nullptr, {}); }) ==
          "make_report: patterns: processes do not send them");

    CHECK(refusal([&] {
              load_vectors(memory.capture(), {0, 2, 0});
          }) == "load_vectors: the layer must be one of the capture, got 2");
    CHECK(refusal([&] {
              load_head(memory.capture(), {0, 0, -1});
          }) == "load_head: the head must be one of the capture, got -1");
    CHECK(refusal([&] {
              load_head(memory.capture(), {1, 0, 0});
          }) == "load_head: the batch must be one of the capture, got 1");
    Capture logits = memory.capture();
    logits.kind = Capture::Kind::logits;
    CHECK_THROWS_AS(load_vectors(logits, {0, 0, 0}), invalid_argument);
}

TEST_CASE("heads in an engine's memory are a capture", "[report][capture]") {
    // Query heads 0 to 3 of two key heads, [tokens, heads, width]: rows of a head are apart.
    const Index n = 12, d = 4, count = 4, shared = 2;
    SplitMix64 random(11);
    std::vector<std::vector<float>> q, k, v;
    for (int layer = 0; layer < 2; ++layer)
        for (auto [numbers, size] :
             {std::pair(&q, n * count * d), {&k, n * shared * d}, {&v, n * shared * d}}) {
            numbers->emplace_back(static_cast<std::size_t>(size));
            for (float& x : numbers->back()) x = static_cast<float>(random.normal());
        }
    const auto group = [&](std::size_t layer, std::optional<float> scale) {
        const auto array = [&](const std::vector<float>& x, Index own) {
            return HeadArray<float>{x.data(), own, n, d, d, own * d};
        };
        const auto qs = array(q[layer], count), ks = array(k[layer], shared), vs = array(v[layer], shared);
        return scale ? HeadGroup<float>(qs, ks, vs, *scale) : HeadGroup<float>(qs, ks, vs);
    };
    const std::vector<HeadGroup<float>> groups{group(0, {}), group(1, 0.25F)};
    const Capture capture = make_capture("engine", groups, {{.causal = true}, {.causal = true, .window = 5}});
    CHECK(capture.scale(0) == 0.5);
    CHECK(capture.scale(1) == 0.25);
    const Report report = make_report(capture, {.keep_rows = true});
    REQUIRE(report.heads.size() == 8);
    for (std::size_t i = 0; i < 8; ++i) {
        const HeadView<float> head = groups[i / 4][static_cast<Index>(i % 4)];
        const HeadVectors<double> read = load_vectors(capture, report.places[i]);
        CHECK(read.q == head.q().map().cast<double>());
        CHECK(read.k == head.k().map().cast<double>());
        CHECK(*read.v == head.v().map().cast<double>());
        CHECK(load_vectors<float>(capture, report.places[i]).k == head.k().map());
        const HeadAnalysis alone =
            analyze(read.q, read.k, *read.v,
                    {.mask = i < 4 ? Mask::causal() : Mask::sliding_window(5), .scale = i < 4 ? 0.5 : 0.25});
        for (Index row = 0; row < n; ++row)
            CHECK(close(report.head_rows[i].rows.entropy_nats[row], alone.rows.entropy_nats[row]));
    }
    // Any run of numbers, within a row and over heads and layers.
    const std::vector<double> all = capture.q->read(0, 2 * count * n * d);
    for (const Index first : {0, 3, 47, 190})
        for (const Index some : {1, 5, 100})
            CHECK(capture.q->read(first, some) ==
                  std::vector<double>(all.begin() + first, all.begin() + first + some));
    // A scale that nobody chose is that of a file, 1/sqrt(d) in double; half is widened.
    std::vector<Eigen::half> halves(24, Eigen::half(0.5F));
    const HeadArray<Eigen::half> array = HeadArray<Eigen::half>::contiguous(halves.data(), 1, 2, 12);
    const Capture narrow_one = make_capture("engine", std::vector{HeadGroup<Eigen::half>(array, array)}, {{}});
    CHECK(narrow_one.scale(0) == 1 / std::sqrt(12.0));
    CHECK(narrow_one.q->dtype == io::Dtype::f16);
    CHECK(load_vectors(narrow_one, {0, 0, 0}).k == Matrix<double>::Constant(2, 12, 0.5));

    const Capture bare =
        make_capture("engine",
                     std::vector{HeadGroup<float>(HeadArray<float>::contiguous(q[0].data(), count, n, d),
                                                  HeadArray<float>::contiguous(k[0].data(), shared, n, d))},
                     {{}});
    CHECK(!bare.v);
    CHECK(make_report(bare).heads.size() == 4);

    CHECK_THROWS_WITH(make_capture("engine", std::vector<HeadGroup<float>>{}, {{}}),
                      "make_capture: there must be layers and heads");
    CHECK_THROWS_WITH(make_capture("engine", groups, std::vector<LayerAttention>(3)),
                      "make_capture: attention must be told of each layer, or once for all, got 3 and 2");
    const HeadGroup<float> narrow(HeadArray<float>::contiguous(q[0].data(), count, n, 2),
                                  HeadArray<float>::contiguous(k[0].data(), shared, n, 2),
                                  HeadArray<float>::contiguous(v[0].data(), shared, n, 2));
    CHECK_THROWS_WITH(
        make_capture("engine", std::vector{groups[0], narrow}, {{}}),
        "make_capture: layers must have the shape of the first, [4 of 2, 12 x 12, 4, 4], layer 1 has [4 of "
        "2, 12 x 12, 2, 2]");
}

TEST_CASE("a capture whose parts do not fit together is refused", "[report][capture]") {
    const Memory memory(12);
    const auto refused = [&](const std::string& words, const auto& spoil) {
        Capture capture = memory.capture();
        spoil(capture);
        CHECK(refusal([&] { capture.check(); }) == "Capture: " + words);
        CHECK(refusal([&] { make_report(capture); }) == "Capture: " + words);
        CHECK(refusal([&] { load_head(capture, {0, 0, 0}); }) == "Capture: " + words);
    };
    refused("there must be q, with read", [](Capture& c) { c.q.reset(); });
    refused("there must be q, with read", [](Capture& c) { c.q->read = {}; });
    refused("q must be [1, 2, 2, 24, 32], got [1, 2, 2, 23, 32]", [](Capture& c) { c.q->rows = 23; });
    refused("k must be [1, 2, a divisor of 2, 24, 32], got [1, 2, 3, 24, 32]",
            [](Capture& c) { c.k->heads = 3; });
    refused("k must be [1, 2, a divisor of 2, 24, 32], got [1, 2, 2, 24, 4]",
            [](Capture& c) { c.k->cols = 4; });
    refused("v must be [1, 2, a divisor of 2, 24, 32], got [1, 1, 2, 24, 32]",
            [](Capture& c) { c.v->layers = 1; });
    refused("width must be that of q", [](Capture& c) { c.width.reset(); });
    refused("attention must be told of each layer", [](Capture& c) { c.attention.pop_back(); });
    refused("sinks must be [layers, heads]", [](Capture& c) { c.sinks = {1, 2, 3}; });
    refused("tokens must be told of each batch", [](Capture& c) { c.tokens.resize(2); });
    refused("tokens must be some of the keys", [](Capture& c) { c.tokens = {{3, 30}}; });
    refused("batch must be one of the batches", [](Capture& c) { c.batch = 1; });
    refused("bias must be [batches or 1, layers or 1, heads or 1, queries, keys]",
            [](Capture& c) { c.bias = c.q; });
    refused("weights must be [1, 2, 2, 24, 24], got [1, 2, 2, 24, 32]", [](Capture& c) { c.weights = c.q; });
    refused("sinks must be logits", [](Capture& c) { c.sinks = {1, 2, 3, std::nan("")}; });
    refused("there must be logits, with read", [](Capture& c) { c.kind = Capture::Kind::logits; });
    refused("there must be batches, layers, heads, queries and keys", [](Capture& c) { c.keys = 0; });
    const auto refused_layer = [&](const std::string& words, const LayerAttention& attention) {
        Capture capture = memory.capture();
        capture.attention[1] = attention;
        CHECK(refusal([&] { make_report(capture); }) == "LayerAttention: " + words);
    };
    refused_layer("window must be >= 0, got -3", {.window = -3});
    refused_layer("scale must be finite, got nan", {.scale = std::nan("")});
    refused_layer("temperature must be a finite number > 0, got 0", {.temperature = 0.0});
    // Numbers that are not there.
    Capture short_of = memory.capture();
    short_of.q->read = [](Index, Index count) {
        return std::vector<double>(static_cast<std::size_t>(count - 1));
    };
    CHECK(refusal([&] { make_report(short_of); }) ==
          "HeadSource::head: read must give as many numbers as are asked for, got 767 and 768");
}
