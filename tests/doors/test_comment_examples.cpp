// The examples of the doc comments, line for line: tests/headers/comments.sh looks for them here.
#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/analysis/findings.hpp>
#include <attnscope/analysis/run_experiments.hpp>
#include <attnscope/attention/tensor.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/io/npz.hpp>
#include <attnscope/io/plan_json.hpp>
#include <attnscope/io/safetensors.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/problems/heads.hpp>
#include <attnscope/runtime/registry.hpp>
#include <attnscope/selection/separability_expectation.hpp>
#include <attnscope/streaming/threads.hpp>

#include <filesystem>
#include <iostream>

namespace {

using namespace attnscope;

std::vector<float> drawn(Index n) {
    SplitMix64 generator(7);
    std::vector<float> row(static_cast<std::size_t>(n));
    generator.fill_normal(std::span<float>(row));
    return row;
}

Matrix<float> drawn_matrix(Index rows, Index cols) {
    const std::vector<float> numbers = drawn(rows * cols);
    return Eigen::Map<const Matrix<float>>(numbers.data(), rows, cols);
}

std::vector<double> drawn_doubles(Index n) {
    const std::vector<float> row = drawn(n);
    return {row.begin(), row.end()};
}

struct Uniform {
    static constexpr NormalizerTraits traits{.simplex = true, .symmetric_jacobian = true};
    static constexpr std::string_view name() { return "uniform"; }
    RowStatus apply(RowIn<double> z, RowOut<double> p) const; // 1/n where z > -inf
    void jvp(RowIn<double> z, RowIn<double> p, RowIn<double> v, RowOut<double> out) const;
    void vjp(RowIn<double> z, RowIn<double> p, RowIn<double> w, RowOut<double> out) const;
};
static_assert(Normalizer<Uniform, double>);

struct Bell {
    template <Real T>
    T operator()(T z) const {
        return std::exp(-z * z / 2);
    }
    template <Real T>
    T derivative(T z) const {
        return -z * (*this)(z);
    }
    static constexpr std::string_view name() { return "bell"; }
};

} // namespace

TEST_CASE("the examples of rows and normalisers", "[doors][examples]") {
    {
        SplitMix64 generator(7);
        std::vector<float> row(1024);
        generator.fill_normal(std::span<float>(row));
        const Index key = generator.below(1024);
        CHECK((key >= 0 && key < 1024 && row == drawn(1024)));
    }
    {
        std::vector<float> row = drawn(37);
        const float last = row.back();
        packets::for_each_lane<float>(std::ssize(row), [&](const auto& lane) {
            const packets::Packet<float> x = lane(row.data());
            lane.store(row.data(), tanh(0.5F * x));
        });
        CHECK(row.back() == Catch::Approx(std::tanh(last / 2)));
    }
    {
        const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(5, -2, 2);
        const Eigen::VectorXd p = weights(PointwiseNormalizer<Bell>(), z);
        CHECK(p[2] == Catch::Approx(1 / (1 + 2 * std::exp(-0.5) + 2 * std::exp(-2.0))));
    }
    {
        const std::vector<float> z = drawn(16);
        AnyNormalizer any = ScalableSoftmax(0.43); // or make_normalizer("softcap:50|ssmax:0.43|topk:64")
        const std::string name = any.name();
        const auto p = weights(any, z);
        any = Sparsemax();
        const bool is_softmax = any.target<Softmax>() != nullptr;
        CHECK((name == "ssmax" && !is_softmax));
        CHECK(p.sum() == Catch::Approx(1));
    }
    {
        const std::vector<float> numbers = drawn(300);
        const RowIn<float> z(numbers);
        RowState<float> first, second;
        first.add(z.first(100), 0);
        second.add(z.subspan(100), 100);
        first.merge(second);
        const double entropy = first.statistics().entropy_nats();
        for (const auto& [key, logit] : first.leaders()) std::cout << key << ' ' << logit << '\n';
        CHECK(entropy == Catch::Approx(entropy_nats(z)));
    }
}

TEST_CASE("the example of the paper's experiments", "[doors][examples]") {
    const Index tokens = 24, layers = 2, heads = 2;
    const std::vector<float> numbers = drawn(layers * heads * tokens * 4);
    const auto group_of = [&](Index layer) {
        const auto array =
            HeadArray<float>::contiguous(numbers.data() + layer * heads * tokens * 4, heads, tokens, 4);
        return HeadGroup<float>(array, array, array);
    };
    {
        Experiments found(experiment_options(tokens), layers, heads);
        for (Index layer = 0; layer < layers; ++layer)
            run_experiments(found, layer, group_of(layer), Mask::causal());
        const std::vector<Finding> beside_the_paper = findings(found);
        CHECK((beside_the_paper.size() == 7 && beside_the_paper[6].id == "gradient_limit"));
    }
}

TEST_CASE("the examples of heads and scans", "[doors][examples]") {
    {
        const Index a = 5, b = 7, d = 4;
        const std::vector<float> numbers = drawn((a + b) * 3 * d);
        const MatrixView<float> q(numbers.data(), a + b, d), k_here(q.data() + q.rows() * d, a, d),
            k_there(k_here.data() + a * d, b, d), v_here(k_there.data() + b * d, a, d),
            v_there(v_here.data() + a * d, b, d);
        const Mask mask = Mask::causal();
        const ScanOptions options{.output = true};
        BlockScan<float> all = scan_block(HeadView(q, k_here, v_here), {0, 0, a + b}, mask, options);
        all.merge(scan_block(HeadView(q, k_there, v_there), {0, a, a + b}, mask, options));
        const Scan<float> result = all.finish(); // rows and output of every query
        const MatrixView<float> k(k_here.data(), a + b, d), v(v_here.data(), a + b, d);
        CHECK(result.output.isApprox(scan(HeadView(q, k, v), mask, options).output));

        const Index queries = q.rows(), keys = k.rows();
        const auto head_of = [&](KeyRange some, KeyRange of) {
            return HeadView(MatrixView<float>(q.row(some.begin).data(), some.size(), d),
                            MatrixView<float>(k.row(of.begin).data(), of.size(), d));
        };
        const BlockGrid grid(queries, keys, mask, {.queries = 4096, .keys = 16384});
        BlockMerger<float> merger(grid);
        for (Index i = 0; i < grid.size(); ++i)
            merger.take(scan_block(head_of(grid[i].queries, grid[i].keys), grid.place(i), mask));
        const Scan<float> merged = merger.finish();
        CHECK(merged.rows == scan(HeadView(q, k), mask).rows);

        const Scan<float, 8> whole = scan(HeadView(q, k), mask);
        std::vector<double> totals;
        for (const auto& row : whole.rows) totals.push_back(row.statistics().log_sum_exp());
        const auto half = [&](Index begin, Index end) {
            return scan_block_columns(HeadView(MatrixView<float>(q.row(begin).data(), end - begin, d), k),
                                      {begin, 0, a + b},
                                      std::vector(totals.begin() + begin, totals.begin() + end), mask);
        };
        ColumnSums first = half(0, 4), second = half(4, a + b);
        first.merge(second);
        const ColumnScan columns = first.mean();
        CHECK(columns.mass.isApprox(scan_column_mass(HeadView(q, k), whole, mask).mass, 1e-5));
    }
    {
        const Index n = 12, d = 4;
        const std::vector<float> buffer = drawn(n * 3 * d);
        const Eigen::Map<const Matrix<float>> qkv(buffer.data(), n, 3 * d);
        const HeadView<float> head(qkv.leftCols(d), qkv.middleCols(d, d), qkv.rightCols(d));
        const Attention<float> attention = attend(head, Softmax(), Mask::causal());
        CHECK((attention.output.rows() == n && head.q().data() == buffer.data()));

        const Threads threads(4);
        const auto rows = scan(head, Mask::causal(), {}, threads).rows; // the same bits as without them
        CHECK(rows == scan(head, Mask::causal()).rows);

        const Matrix<float> logits = head.scale() * (head.q().map() * head.k().map().transpose());
        const auto scanned = scan_tiles(head.queries(), head.keys(), ProductTiles(head), head.v());
        const auto own = [&](Index query, Index key, TileOut<float> tile) {
            tile = logits.block(query, key, tile.rows(), tile.cols()); // a matrix [queries, keys]
        };
        const auto same = scan_tiles(logits.rows(), logits.cols(), own, MatrixView<float>());
        CHECK(same.rows[3].statistics().argmax == scanned.rows[3].statistics().argmax);
    }
    {
        const Eigen::MatrixXf q = Eigen::MatrixXf::Random(128, 64), k = q, v = q; // column-major
        const Head head(q, k, v);
        const auto rows = scan(head.view(), Mask::causal()).rows;
        CHECK(rows.size() == 128);
    }
    {
        const Index heads = 4, key_heads = 2, n = 6, d = 3;
        const std::vector<float> q = drawn(heads * n * d), k = drawn(key_heads * n * d), v = k;
        const auto array = [&](const std::vector<float>& x, Index count) {
            return HeadArray<float>::contiguous(x.data(), count, n, d);
        };
        const HeadGroup<float> group(array(q, heads), array(k, key_heads), array(v, key_heads));
        const Attention<float> last = attend(group[heads - 1]);
        CHECK(last.output.rows() == n);
    }
    {
        const Index cached = 5000;
        const Row<double> weights = Row<double>::Ones(cached + 1);
        double sum = 0;
        const Mask mask = Mask::sliding_window(4096, cached).with_sinks(4); // offset: keys before it
        const KeyRanges seen = mask.visible(0, cached + 1);
        seen.for_each([&](Index key) { sum += weights[key]; });
        CHECK(sum == 4100);
    }
    {
        Eigen::Tensor<float, 4, Eigen::RowMajor> q(2, 12, 128, 64), k(2, 12, 128, 64); // [batch, heads, n, d]
        q.setConstant(0.5F);
        k.setConstant(0.25F);
        const TensorHeads<float> queries(q), keys(k);
        const auto rows = scan(HeadView<float>(queries.matrix(0, 2), keys.matrix(0, 2))).rows;
        CHECK(rows.size() == 128);
    }
    {
        const Index n = 5, d = 3;
        const Matrix<float> vectors = drawn_matrix(n, d);
        const MatrixView<float> v(vectors);
        const Row<double> p = Row<double>::Constant(n, 0.2);
        std::vector<double> mean(d, 0.0);
        ValueState<double> state(mean);
        for (Index j = 0; j < n; ++j) state.add<float>(p[j], v.row(j)); // v: MatrixView<float>
        const double spread = state.variance();
        CHECK(spread > 0);
    }
    {
        const Matrix<float> x = drawn_matrix(8, 6), w_q = drawn_matrix(6, 4), w_k = w_q, w_v = w_q;
        const Matrix<float> q = x * w_q, k = x * w_k, v = x * w_v;
        const HeadView<float> head(q, k, v);
        const HeadProjections<float> projections{w_q, w_k, w_v};
        const SpectralNorm<float> norm = HeadJacobian(head, projections, Mask::causal()).norm();
        const float limit = token_jacobian_limit(head, projections, Mask::causal()).total();
        CHECK(norm.value <= limit);
    }
}

TEST_CASE("the examples of audits", "[doors][examples]") {
    const std::vector<double> z = drawn_doubles(40);
    {
        Audit audit;
        audit_row(audit, Softmax(0.5), z);
        for (const AuditRecord& record : audit)
            if (record[Verdict::violated] > 0) std::cout << record.statement->id << '\n';
        std::cout << to_table(audit);
        CHECK(audit.sharp_violations() == 0);
    }
    {
        Audit audit;
        RowAuditor auditor({.steps = {1e-3, 0.1}});
        auditor(audit, Softmax(0.5), z); // z: a row of logits in double
        const std::size_t findings = audit.sharp_violations();
        CHECK(findings == 0);
    }
    {
        RowMeter meter;
        const MeasuredRow& row = meter(Softmax(0.5), z); // z: a row of logits in double, which must outlive it
        const double entropy = row.statistics.entropy_nats(), norm = row.norms.spectral.value;
        CHECK((entropy > 0 && norm > 0));
    }
    {
        Audit audit;
        RowMeter meter;
        CertificateAuditor auditor;
        auditor(audit, meter(Softmax(), z)); // z: a row of logits in double
        CHECK(audit.at(box_sharp_statement).checked == 1);
    }
    {
        const std::vector<double> p(20, 0.05);
        const Matrix<double> x = drawn_matrix(20, 3).cast<double>();
        Audit audit;
        Ranking<double> ranking;
        ranking.rank(p);
        SelectionAuditor auditor;
        auditor(audit, {p, x, ranking.order()}, std::vector<Index>{1, 4, 16});
        CHECK(audit.at(theorem1_fixed_sharp_statement).checked == 6);
    }
}

TEST_CASE("the examples of selections", "[doors][examples]") {
    const std::vector<float> weights = drawn(60);
    {
        Ranking<float> ranking;
        ranking.rank(weights, 10); // a row, `RowIn<float>`; all of it without the 10
        for (const Index key : ranking.order()) std::cout << key << ' ';
        CHECK(ranking.size() == 10);
    }
    const std::vector<double> p(60, 1.0 / 60);
    const Matrix<double> vectors = drawn_matrix(60, 5).cast<double>();
    {
        const auto& x = vectors;
        SelectedSet<double> set;
        set.assign(p, x, std::vector<Index>{0, 3}); // or: auto set = select_top(p, x, 2);
        const double mass = set.mass(), distance = selection_distance(set);
        const double found = separability(set).separable_fraction;
        CHECK((mass > 0 && distance > 0 && found >= 0));
    }
    {
        const MatrixView<double> x(vectors);
        Ranking<double> ranking;
        ranking.rank(p);
        const Matrix<double> gram = gram_matrix(x);
        DistanceCurves<double> curves;
        const DistanceCurve<double>& curve = curves.compute(p, x, gram, ranking.order(), 50);
        const double distance = curve.cumulative[9]; // of the top 10
        CHECK(distance > 0);
        FarthestTokens<double> farthest(gram);
        farthest.reach(5);
        const Index key = farthest.token(0); // of tokens 0 to 4
        CHECK((key >= 0 && key < 5));
    }
    {
        const std::vector<double> selected(2, 0.3), others(4, 0.1);
        const SeparableFractionModel model(64);                   // d
        const double fraction = model.expected(selected, others); // weights, spans or vectors of double
        CHECK((fraction > 0 && fraction <= 1));
    }
}

TEST_CASE("the examples of selectors", "[doors][examples]") {
    const Matrix<float> q = drawn_matrix(3, 8), k = drawn_matrix(40, 8), v = k;
    const HeadView<float> head(q.topRows(3), k.topRows(3), v.topRows(3));
    {
        const std::vector<std::vector<Index>> block_lists{{0}, {0}, {0}};
        const KeySets lists(std::vector<std::vector<Index>>{{0}, {0, 1}, {2, 0}});
        const KeySets same = KeySets::csr(std::vector<Index>{0, 1, 3, 5}, std::vector<Index>{0, 0, 1, 2, 0});
        const KeySets blocks = KeySets::blocks(16, block_lists, head.keys(), Mask::causal());
        const auto figures = scan_selection(head, lists, Mask::causal());
        CHECK(figures.rows[2].selected == 2);
        CHECK(same(2).size() == 2);
        CHECK(blocks(2).size() == 3);
    }
    {
        const auto kept = scan_selection(head, SinkWindow(4, 252, Mask::causal(), head.keys()), Mask::causal());
        const double loss = kept.mean(&SelectionFigures<double>::lost);
        CHECK(loss == 0);
    }
    {
        const Index query = 2;
        const KeyBlocks<float> blocks(head.k(), 16, head.v());
        const BlockReader<float> reader(head, blocks, Mask::causal());
        const auto read = reader.until(query, 0.99);
        CHECK(read.kept == 1);
    }
    for (const SelectionPolicy& policy : selection_policies("window,h2o,quest", std::vector<Index>{64, 256})) {
        const auto summary = summarize(scan_policy(policy, head, Mask::causal()), policy.budget);
        std::cout << policy.name() << " keeps " << summary.kept << '\n';
    }
    const KeySets cached = evict(HeavyHitters(1), head, {.budget = 2});
    CHECK(cached(2).size() == 2);
}

TEST_CASE("the example of problems", "[doors][examples]") {
    SplitMix64 random(1);
    const auto head = problems::synthetic_head(256, 64, {.sink = 6}, random);
    const auto rows = scan(head.q, head.k, head.v, Mask::causal());
    CHECK(rows.rows.size() == 256);
}

TEST_CASE("comments: plans of heads as JSON", "[doors]") {
    const Matrix<float> q = drawn_matrix(40, 8), k = 2 * drawn_matrix(40, 8), v = drawn_matrix(40, 4);
    HeadPlans plans{{.weight = 0.5}, {}, {}, {}};
    plans.heads.push_back({plan_head(q, k, v, plans.question, Mask::causal())});
    const std::string text = io::to_json(plans).dump(1); // with io/plan_json.hpp
    CHECK(text.find("\"inverse_temperature\"") != std::string::npos);
}

TEST_CASE("the examples of files", "[doors][examples]") {
    const attnscope_test::TemporaryFolder folder;
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    {
        const Matrix<float> q = drawn_matrix(128, 64);
        io::SafetensorsWriter writer;
        writer.add("q", std::span<const float>(q.data(), 128 * 64), {128, 64});
        writer.set_metadata("model", "of mine");
        writer.write("head.safetensors");
    }
    {
        const io::File file = io::File::open("head.safetensors");
        std::vector<std::byte> start(8);
        file.read(0, start);
        CHECK(file.size() > 128 * 64 * 4);
    }
    {
        const io::SafetensorsFile file("head.safetensors");
        const std::vector<Eigen::Index>& shape = file.info("q").shape;
        const std::vector<float> q = file.read<float>("q");
        const Eigen::Map<const Matrix<float>> queries(q.data(), shape[0], shape[1]);
        CHECK(queries == drawn_matrix(128, 64));
    }
    const auto read_npz = [] {
        const io::NpzFile file("head.npz");
        const io::NpyArray<float> q = file.read<float>("q");
        const Eigen::Map<const Matrix<float>> queries(q.data.data(), q.shape[0], q.shape[1]);
        return queries.size();
    };
    CHECK_THROWS_AS(read_npz(), io_error); // there is none
    std::filesystem::current_path(before);
}
