// Every column of `analyze` against plain loops, under masks, temperatures, and whatever holds q, k and v.
#include <support/analysis_reference.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

struct NamedRule {
    std::string_view name;
    MaskRule rule;
};
std::vector<NamedRule> rules(Index queries, Index keys) {
    return {{"none", {}},
            {"causal", {.causal = true}},
            {"causal to the last key", {.causal = true, .offset = keys - queries}},
            {"window", {.causal = true, .window = 3}},
            {"window both ways", {.window = 2}},
            {"window and sinks", {.causal = true, .window = 3, .sinks = 2}},
            {"left padding", {.causal = true, .start = 3}},
            {"all left padding", {.causal = true, .start = keys}},
            {"length", {.length = keys / 2}},
            {"prefix", {.causal = true, .prefix = keys / 2}},
            {"documents", {.causal = true, .segments = {0, 2, 5}}}};
}

} // namespace

TEST_CASE("analyze: figures of every row and selection are those of plain loops", "[analysis]") {
    INFO("seed " << test_seed());
    AnalysisErrors errors;
    const std::array<std::array<Index, 2>, 5> shapes = {{{12, 12}, {5, 12}, {12, 5}, {1, 9}, {20, 1}}};
    for (const auto& [queries, keys] : shapes)
        for (const NamedRule& named : rules(queries, keys))
            for (const double temperature : {1.0, 0.25, 3.0}) {
                SplitMix64 random = generator(test_seed(), queries, keys, temperature * 4);
                const ExactHead head(random, queries, keys, 4, 3);
                const Matrix<double> z = reference_logits(head.q, head.k, 0.5, named.rule);
                const HeadAnalysis analysis =
                    analyze(head.q, head.k, head.v,
                            {.mask = named.rule.mask(), .temperature = temperature, .counts = {1, 2, 5}});
                const Where where{named.name, 0, temperature, test_seed()};
                compare_rows(errors, analysis, z, temperature, where);
                compare_selections(errors, analysis, z, temperature, &head.v, {}, where);
                CHECK_FALSE(analysis.streamed);
                CHECK(analysis.temperature == temperature);
                CHECK(analysis.scale == 0.5);
            }
    ATTNSCOPE_CHECK_ANALYSIS(errors);
    ATTNSCOPE_CHECK_SELECTIONS(errors);
}

TEST_CASE("analyze: a given scale, a radius, padding and no values", "[analysis]") {
    INFO("seed " << test_seed());
    AnalysisErrors errors;
    SplitMix64 random = generator(test_seed(), 2);
    const ExactHead head(random, 10, 10, 16, 5);
    const MaskRule rule{.causal = true};
    std::vector<bool> padding(10, false);
    padding[0] = padding[4] = padding[9] = true;
    for (const double scale : {0.25, 2.0, 0.0, -0.5})
        for (const std::optional<double> radius :
             {std::optional<double>(), std::optional(0.5), std::optional(2.0)})
            for (const bool with_values : {true, false}) {
                const AnalysisOptions options{.mask = rule.mask(),
                                              .scale = scale,
                                              .counts = {1, 3, 4},
                                              .radius = radius,
                                              .padding = padding};
                const Matrix<double> z = reference_logits(head.q, head.k, scale, rule, padding);
                const HeadAnalysis analysis =
                    with_values ? analyze(head.q, head.k, head.v, options) : analyze(head.q, head.k, options);
                const Where where{with_values ? "values" : "no values", 0, 1, test_seed()};
                compare_rows(errors, analysis, z, 1, where);
                compare_selections(errors, analysis, z, 1, with_values ? &head.v : nullptr, radius, where);
                CHECK(analysis.scale == scale);
                CHECK(analysis.radius == radius);
                CHECK(analysis.rows.status[4] == RowStatus::empty);
            }
    ATTNSCOPE_CHECK_ANALYSIS(errors);
    ATTNSCOPE_CHECK_SELECTIONS(errors);
}

TEST_CASE("analyze: the same bits whatever holds q, k and v", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 3);
    const Index queries = 9, keys = 11, width = 4;
    const ExactHead head(random, queries, keys, width, 3);
    const AnalysisOptions options{.mask = Mask::causal(2), .counts = {1, 2, 5}};
    const HeadAnalysis right = analyze(head.q, head.k, head.v, options);
    const auto same = [&](std::string_view name, const HeadAnalysis& other) {
        INFO(name);
        CHECK(first_difference(other, right) == "");
    };
    AnalysisErrors errors;
    const MaskRule rule{.causal = true, .offset = 2};
    compare_rows(errors, right, reference_logits(head.q, head.k, 0.5, rule), 1, Where{"causal"});
    compare_selections(errors, right, reference_logits(head.q, head.k, 0.5, rule), 1, &head.v, {},
                       Where{"causal"});
    ATTNSCOPE_CHECK_ANALYSIS(errors);
    ATTNSCOPE_CHECK_SELECTIONS(errors);

    const Eigen::MatrixXf q = head.q.cast<float>(), k = head.k.cast<float>(), v = head.v.cast<float>();
    same("column-major float", analyze(q, k, v, options));
    const Eigen::MatrixXd qd = head.q, kd = head.k, vd = head.v;
    same("column-major double", analyze(qd, kd, vd, options));
    same("map", analyze(Eigen::Map<const Eigen::MatrixXf>(q.data(), queries, width), k,
                        Eigen::Map<const Eigen::MatrixXf>(v.data(), keys, 3), options));
    using Half = Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic>;
    using Brain = Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    same("half", analyze(Half(q.cast<Eigen::half>()), Half(k.cast<Eigen::half>()), Half(v.cast<Eigen::half>()),
                         options));
    same("bfloat16", analyze(Brain(q.cast<Eigen::bfloat16>()), k.cast<Eigen::bfloat16>(), v, options));
    using Long = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;
    same("long double and float", analyze(Long(q.cast<long double>()), k, vd, options));
    // q, k and v side by side, a token a row.
    Matrix<float> fused = Matrix<float>::Constant(keys, 2 * width + 3 + 5, std::nanf(""));
    fused.block(0, 1, queries, width) = q;
    fused.block(0, 1 + width, keys, width) = k;
    fused.block(0, 3 + 2 * width, keys, 3) = v;
    same("blocks of a fused buffer",
         analyze(fused.block(0, 1, queries, width), fused.middleCols(1 + width, width),
                 fused.middleCols(3 + 2 * width, 3), options));
    const MatrixView<float> fused_q(fused.data() + 1, queries, width, fused.cols()),
        fused_k(fused.data() + 1 + width, keys, width, fused.cols()),
        fused_v(fused.data() + 3 + 2 * width, keys, 3, fused.cols());
    same("views of a fused buffer", analyze(HeadView<float>(fused_q, fused_k, fused_v), options));
    same("views in double", analyze(HeadView<double>(head.q, head.k, head.v), options));
    const Matrix<long double> ql = head.q.cast<long double>(), kl = head.k.cast<long double>(),
                              vl = head.v.cast<long double>();
    same("views in long double", analyze(HeadView<long double>(ql, kl, vl), options));
    same("transposed", analyze(Eigen::MatrixXd(qd.transpose()).transpose(), k, v * 1, options));
    same("rows from last to first of a reversed matrix",
         analyze(Eigen::MatrixXd(qd.colwise().reverse()).colwise().reverse(), k, v, options));
    same("arrays", analyze(q.array(), k.array(), v.array() + 0, options));
    same("a product", analyze(q * Eigen::MatrixXf::Identity(width, width), k, v, options));
}

TEST_CASE("analyze: logits of random numbers, to their rounding", "[analysis]") {
    INFO("seed " << test_seed());
    AnalysisErrors errors;
    for (const double spread : {0.1, 1.0, 6.0})
        for (Index width : {1, 7, 64}) {
            SplitMix64 random = generator(test_seed(), 4, width, spread * 10);
            Matrix<double> q(17, width), k(17, width);
            for (Index i = 0; i < q.size(); ++i)
                q.data()[i] = spread * random.normal(), k.data()[i] = random.normal();
            const HeadAnalysis head = analyze(q, k, {.mask = Mask::causal(), .counts = {}});
            Matrix<double> z =
                reference_logits(q, k, 1 / std::sqrt(static_cast<double>(width)), {.causal = true});
            compare_rows(errors, head, z, 1, Where{"random", 0, 1, test_seed()}, unit_roundoff<double>, true,
                         product_error(q, k, 1 / std::sqrt(static_cast<double>(width)), unit_roundoff<double>));
        }
    ATTNSCOPE_CHECK_ANALYSIS(errors);
}
