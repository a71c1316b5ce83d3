// What analyze promises besides its figures: special rows and shapes, parts that are left out, what callers give it,
// progress, and what is refused.
#include <support/analysis_reference.hpp>

#include <attnscope/analysis/table.hpp>

#include <set>

using namespace attnscope;
using namespace attnscope_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

ExactHead some_head(Index queries = 8, Index keys = 8) {
    SplitMix64 random = generator(7, queries, keys);
    return ExactHead(random, queries, keys, 4, 3);
}

} // namespace

TEST_CASE("analyze: rows with NaN, +inf and without keys have their status, and NaN as figures", "[analysis]") {
    Matrix<double> z(6, 4);
    z << 1, 2, 3, 4,                                //
        1, not_a_number, 2, 3,                      //
        1, infinity, 2, infinity,                   //
        -infinity, -infinity, -infinity, -infinity, //
        not_a_number, infinity, -infinity, 1,       //
        -infinity, 5, -infinity, -infinity;
    const Matrix<double> v = Matrix<double>::Random(4, 3);
    for (const bool single : {false, true})
        for (const AnyNormalizer& normalizer : {AnyNormalizer(Softmax()), AnyNormalizer(Sparsemax())}) {
            INFO(normalizer.name() << (single ? ", single" : ", double"));
            const AnalysisOptions options{
                .normalizer = normalizer, .counts = {1, 2}, .single_precision = single};
            const HeadAnalysis head = analyze_logits(z, v, options);
            using enum RowStatus;
            CHECK(head.rows.status == std::vector<RowStatus>{normal, nan, infinite, empty, nan, normal});
            // Only -inf hides a key.
            CHECK(std::vector<Index>(head.rows.visible.begin(), head.rows.visible.end()) ==
                  std::vector<Index>{4, 4, 4, 0, 3, 1});
            CHECK(std::vector<Index>(head.rows.argmax.begin(), head.rows.argmax.end()) ==
                  std::vector<Index>{3, -1, -1, -1, -1, 1});
            for (const RowFigure& figure : row_figures)
                for (const Index query : {1, 2, 3, 4}) {
                    INFO(figure.name << " of row " << query);
                    CHECK(std::isnan((head.rows.*figure.values)[query]));
                }
            for (const Index query : {1, 2, 3, 4, 5}) CHECK_FALSE(head.selection(1).has(query));
            CHECK(head.selection(1).has(0));
            // One visible key: all weight, no second.
            CHECK(head.rows.max_weight[5] == 1);
            CHECK(std::isnan(head.rows.second_weight[5]));
            CHECK(head.rows.entropy_nats[5] == 0);
            CHECK(head.rows.logit_spread[5] == 0);
            CHECK(std::isnan(head.rows.first_key_weight[5]));
            for (const AuditRecord& record : head.audit.records()) CHECK(record.checked <= 2 * 12);
            CHECK(head.audit.unknown_rows() == 0);
        }
}

TEST_CASE("analyze: heads without queries, keys or width", "[analysis]") {
    const auto check = [](const HeadAnalysis& head, Index queries, Index keys) {
        CHECK(head.queries == queries);
        CHECK(head.keys == keys);
        CHECK(head.rows.size() == queries);
        CHECK(static_cast<Index>(head.rows.status.size()) == queries);
        for (const RowFigure& figure : row_figures) CHECK((head.rows.*figure.values).size() == queries);
        for (const SelectionColumns& columns : head.selections) CHECK(columns.mass.size() == queries);
        CHECK(static_cast<Index>(head.examined.size()) == queries);
        CHECK_FALSE(head.extent.cancelled);
        CHECK_FALSE(to_table(head).empty());
        CHECK(std::isnan(finite_mean(head.rows.entropy_nats)) == (queries == 0 || keys == 0));
    };
    const auto zeros = [](Index rows, Index cols) {
        return Eigen::MatrixXd(Eigen::MatrixXd::Zero(rows, cols));
    };
    for (const Index above : {Index(1) << 26, Index(0)})
        for (const auto& [queries, keys] : {std::pair<Index, Index>{0, 5}, {5, 0}, {0, 0}, {3, 4}})
            for (const Index width : {0, 3}) {
                INFO(queries << " queries, " << keys << " keys, width " << width << ", above " << above);
                const AnalysisOptions options{.streamed_above = above};
                check(analyze(zeros(queries, width), zeros(keys, width), zeros(keys, 2), options), queries,
                      keys);
                check(analyze(zeros(queries, width), zeros(keys, width), options), queries, keys);
                check(analyze(zeros(queries, width), zeros(keys, width), zeros(keys, 0), options), queries,
                      keys);
                check(analyze_logits(zeros(queries, keys), zeros(keys, 2), options), queries, keys);
                check(analyze_weights(zeros(queries, keys).array() + 1.0 / 4, zeros(keys, 2), options), queries,
                      keys);
            }
    // Without width all logits are 0: equal weights.
    const HeadAnalysis equal = analyze(zeros(3, 0), zeros(4, 0), zeros(4, 2), {.counts = {1}});
    CHECK(equal.rows.max_weight[2] == 0.25);
    CHECK(equal.scale == 1);
    for (const Index query : {0, 1, 2}) CHECK(equal.selection(1).mass[query] == 0.25);
}

TEST_CASE("analyze: counts unsorted and with repeats; selection(n) of others throws", "[analysis]") {
    const ExactHead exact = some_head();
    const HeadAnalysis head = analyze(exact.q, exact.k, exact.v, {.counts = {5, 1, 5, 3, 1, 100}});
    REQUIRE(head.selections.size() == 4);
    for (const Index n : {1, 3, 5, 100}) CHECK(head.selection(n).n == n);
    CHECK(head.selection(5).has(7));
    CHECK_FALSE(head.selection(100).has(7));
    const std::string error = error_of([&] { (void)head.selection(2); });
    CHECK_THAT(error, Catch::Matchers::ContainsSubstring("HeadAnalysis::selection") &&
                          Catch::Matchers::ContainsSubstring("counts") &&
                          Catch::Matchers::ContainsSubstring("2"));
    CHECK(selection_counts({&head, 1}) == std::vector<Index>{1, 3, 5});
    const HeadAnalysis sorted = analyze(exact.q, exact.k, exact.v, {.counts = {1, 3, 5, 100}});
    CHECK(first_difference(head, sorted) == "");
    // N = keys is no selection.
    CHECK_FALSE(analyze(exact.q, exact.k, exact.v, {.counts = {8}}).selection(8).mass.isFinite().any());
    CHECK(analyze(exact.q, exact.k, exact.v, {.counts = {7}}).selection(7).mass.isFinite().all());
}

TEST_CASE("analyze: the reading decides which distance the audit limits, and no column", "[analysis]") {
    const ExactHead exact = some_head();
    const AnalysisOptions options{.counts = {2}};
    AnalysisOptions other = options;
    other.reading = Reading::resultant;
    HeadAnalysis cumulative = analyze(exact.q, exact.k, exact.v, options),
                 resultant = analyze(exact.q, exact.k, exact.v, other);
    CHECK(resultant.reading == Reading::resultant);
    CHECK(first_difference(cumulative, resultant) != "");
    cumulative.audit = resultant.audit = Audit();
    CHECK(first_difference(cumulative, resultant) == "");
}

TEST_CASE("analyze: a part that is left out changes nothing else", "[analysis]") {
    const ExactHead exact = some_head(20, 20);
    const AnalysisOptions all{.mask = Mask::causal(), .counts = {1, 4}};
    const HeadAnalysis right = analyze(exact.q, exact.k, exact.v, all);
    const std::set<std::string_view> of_selections = {"theorem1_fixed", "theorem1_random",  "corollary2",
                                                      "theorem2_lower", "theorem2_upper",   "missed_tokens",
                                                      "truncation_gap", "truncation_output"};
    // The certificates are what is left when the audit is.
    AnalysisOptions no_audit = all, no_certificates = all, no_norms = all, no_counts = all;
    no_audit.audit = no_certificates.certificates = no_norms.sensitivity = false;
    no_counts.counts = {};
    const HeadAnalysis certificates = analyze(exact.q, exact.k, exact.v, no_audit),
                       audit = analyze(exact.q, exact.k, exact.v, no_certificates),
                       norms = analyze(exact.q, exact.k, exact.v, no_norms),
                       counts = analyze(exact.q, exact.k, exact.v, no_counts);
    std::size_t beyond = 0;
    for (std::size_t i = 0; i < right.audit.records().size(); ++i) {
        const AuditRecord &whole = right.audit.records()[i], &first = audit.audit.records()[i],
                          &second = certificates.audit.records()[i], &fewer = counts.audit.records()[i];
        INFO(whole.statement->id << ' ' << name_of(whole.statement->form));
        CHECK(first.checked + second.checked == whole.checked); // each statement is of one part
        CHECK((first.checked == 0 || second.checked == 0));
        CHECK((second.checked > 0 ? second.tightness : first.tightness) == whole.tightness);
        beyond += second.checked > 0;
        if (of_selections.contains(whole.statement->id)) {
            CHECK(fewer.checked == 0);
            CHECK(whole.checked > 0);
        } else {
            CHECK(fewer.tightness == whole.tightness);
        }
    }
    CHECK(beyond >= 8);
    CHECK(counts.selections.empty());
    const auto without_audit = [](HeadAnalysis head) {
        head.audit = Audit();
        return head;
    };
    CHECK(first_difference(without_audit(right), without_audit(certificates)) == "");
    CHECK(first_difference(without_audit(right), without_audit(audit)) == "");
    HeadAnalysis figures = counts;
    figures.selections = right.selections;
    CHECK(first_difference(without_audit(right), without_audit(figures)) == "");
    // Without norms their columns are NaN; the audit needs them all the same.
    HeadAnalysis filled = norms;
    for (const RowFigure& figure : row_figures)
        if (figure.group == "jacobian") {
            CHECK_FALSE((norms.rows.*figure.values).isFinite().any());
            filled.rows.*figure.values = right.rows.*figure.values;
        }
    CHECK(first_difference(filled, right) == "");
    // Nothing but figures.
    const HeadAnalysis least = analyze(
        exact.q, exact.k, exact.v,
        {.mask = Mask::causal(), .counts = {}, .sensitivity = false, .audit = false, .certificates = false});
    for (const AuditRecord& record : least.audit.records()) CHECK(record.checked == 0);
    CHECK(same_bits(least.rows.entropy_nats, right.rows.entropy_nats));
    CHECK(same_bits(least.rows.first_key_weight, right.rows.first_key_weight));
}

TEST_CASE("analyze: progress ascends to all rows, and can stop", "[analysis]") {
    const ExactHead exact = some_head(50, 50);
    const Matrix<double> z = reference_logits(exact.q, exact.k, 0.5, {});
    Matrix<double> p(50, 50);
    for (Index i = 0; i < 50; ++i) p.row(i) = weights(Softmax(), z.row(i));
    using Analyze = std::function<HeadAnalysis(const AnalysisOptions&)>;
    const std::vector<std::pair<std::string, Analyze>> doors = {
        {"analyze", [&](const AnalysisOptions& o) { return analyze(exact.q, exact.k, exact.v, o); }},
        {"analyze_logits", [&](const AnalysisOptions& o) { return analyze_logits(z, exact.v, o); }},
        {"analyze_weights", [&](const AnalysisOptions& o) { return analyze_weights(p, exact.v, o); }},
        {"analyze_tiles", [&](const AnalysisOptions& o) {
             return analyze_tiles<double>(50, 50, ProductTiles<double>(HeadView<double>(exact.q, exact.k)),
                                          MatrixView<double>(exact.v), o);
         }}};
    for (const auto& [name, door] : doors)
        for (const Index above : {Index(1) << 26, Index(100)})
            for (const bool single : {false, true}) {
                INFO(name << ", streamed above " << above << (single ? ", single" : ""));
                AnalysisOptions options{.counts = {1}, .single_precision = single, .streamed_above = above};
                const HeadAnalysis right = door(options);
                CHECK(right.extent.done == right.extent.all);
                CHECK_FALSE(right.extent.cancelled);
                std::vector<Index> seen;
                options.progress = [&](Index done, Index all) {
                    CHECK(all == 50);
                    seen.push_back(done);
                    return true;
                };
                CHECK(first_difference(door(options), right) == "");
                REQUIRE_FALSE(seen.empty());
                CHECK(std::is_sorted(seen.begin(), seen.end()));
                CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
                CHECK(seen.back() == 50);

                options.progress = [&](Index, Index) { return false; };
                const HeadAnalysis stopped = door(options);
                CHECK(stopped.extent.cancelled);
                CHECK(stopped.extent.all == 50);
                CHECK(stopped.extent.done > 0);
                CHECK(stopped.extent.done < 50);
                for (Index query = 0; query < 50; ++query) {
                    INFO("row " << query);
                    const auto at = static_cast<std::size_t>(query);
                    const bool reached = stopped.extent.reached(query);
                    CHECK(stopped.rows.status[at] == (reached ? RowStatus::normal : RowStatus::nan));
                    for (const RowFigure& figure : row_figures) {
                        INFO(figure.name);
                        const double x = (stopped.rows.*figure.values)[query];
                        // Norms of a streamed head come after all other figures.
                        const bool has =
                            reached && !(figure.group == "jacobian" && right.streamed && name == "analyze");
                        if (has && std::isfinite((right.rows.*figure.values)[query]))
                            CHECK(x == (right.rows.*figure.values)[query]);
                        else
                            CHECK(std::isnan(x));
                    }
                    // What was not looked at does not say that it was.
                    const bool examined =
                        std::binary_search(stopped.examined.begin(), stopped.examined.end(), query);
                    CHECK(stopped.selection(1).has(query) == examined);
                }
                CHECK_THAT(to_table(stopped),
                           Catch::Matchers::ContainsSubstring("cancelled after " +
                                                              std::to_string(stopped.extent.done) + " of 50"));
            }
}

TEST_CASE("analyze: visit sees each row once, with its logits and weights", "[analysis]") {
    const ExactHead exact = some_head(20, 20);
    for (const MaskRule& rule : {MaskRule{.causal = true}, MaskRule{.causal = true, .window = 4, .start = 2}})
        for (const Index above : {Index(1) << 26, Index(0)})
            for (const bool single : {false, true}) {
                const Matrix<double> z = reference_logits(exact.q, exact.k, 0.5, rule);
                std::vector<Index> calls(20, 0);
                const HeadAnalysis head =
                    analyze(exact.q, exact.k, exact.v,
                            {.mask = rule.mask(),
                             .temperature = 2,
                             .counts = {1},
                             .single_precision = single,
                             .streamed_above = above,
                             .visit = [&](Index query, RowIn<double> logits, RowIn<double> p) {
                                 ++calls[static_cast<std::size_t>(query)];
                                 REQUIRE(logits.size() == p.size());
                                 // Up to the last key that the query sees, and no further.
                                 Index last = -1;
                                 for (Index key = 0; key < 20; ++key)
                                     if (z(query, key) > -infinity) last = key;
                                 CHECK(static_cast<Index>(logits.size()) == last + 1);
                                 const auto right = reference_softmax(
                                     {z.data() + query * 20, static_cast<std::size_t>(z.cols())}, 2);
                                 for (std::size_t key = 0; key < logits.size(); ++key) {
                                     CHECK(logits[key] == z(query, static_cast<Index>(key)));
                                     CHECK(p[key] == Catch::Approx(static_cast<double>(right.p[key]))
                                                         .epsilon(single ? 1e-5 : 1e-14)
                                                         .margin(0));
                                 }
                             }});
                CHECK(calls == std::vector<Index>(20, 1));
            }
}

TEST_CASE("analyze: what is refused, and how", "[analysis]") {
    const ExactHead exact = some_head();
    const auto refused = [&](const AnalysisOptions& options, const std::string& value,
                             const std::string& rule) {
        const Matrix<double> z = Matrix<double>::Zero(8, 8), p = Matrix<double>::Constant(8, 8, 0.125);
        const ProductTiles<double> tiles(HeadView<double>(exact.q, exact.k));
        const std::vector<std::string> errors = {
            error_of([&] { analyze(exact.q, exact.k, exact.v, options); }),
            error_of([&] { analyze_logits(z, exact.v, options); }),
            error_of([&] { analyze_weights(p, exact.v, options); }),
            error_of([&] { analyze_tiles<double>(8, 8, tiles, MatrixView<double>(exact.v), options); })};
        for (const std::string& error : errors) {
            INFO(error);
            CHECK_THAT(error, Catch::Matchers::ContainsSubstring("analyze"));
            CHECK_THAT(error, Catch::Matchers::ContainsSubstring(rule));
            CHECK_THAT(error, Catch::Matchers::ContainsSubstring(value));
            CHECK(error.find('\n') == std::string::npos);
        }
    };
    refused({.counts = {3, 0}}, "0", "counts must be >= 1");
    refused({.counts = {-7}}, "-7", "counts must be >= 1");
    refused({.radius = 0.0}, "0", "radius must be > 0");
    refused({.radius = -2.5}, "-2.5", "radius must be > 0");
    refused({.radius = not_a_number}, "nan", "radius must be > 0");
    refused({.radius = infinity}, "inf", "radius must be > 0 and finite");
    refused({.delta = {1, 2}}, "2", "delta must have one entry for each query");
    refused({.padding = {true}}, "1", "padding must have one entry for each query");
    refused({.temperature = 0.0}, "0", "temperature");
    refused({.temperature = -1.0}, "-1", "temperature");
    refused({.temperature = not_a_number}, "nan", "temperature");
    refused({.delta = {1, 2, 3, 4, 5, 6, 7, -1}}, "-1", "delta must be");
    CHECK_THAT(error_of([&] {
                   analyze(exact.q, exact.k, {.steps = {0.1, 0}});
               }),
               Catch::Matchers::ContainsSubstring("steps must be > 0"));
    CHECK_THAT(error_of([&] { analyze(exact.q, exact.k, {.scale = not_a_number}); }),
               Catch::Matchers::ContainsSubstring("scale must be finite, got nan"));

    // Shapes.
    const Eigen::MatrixXd three = Eigen::MatrixXd::Zero(8, 3), none = Eigen::MatrixXd::Zero(0, 3);
    CHECK_THAT(error_of([&] { analyze(exact.q, three, exact.v); }),
               Catch::Matchers::ContainsSubstring("q and k must have the same width") &&
                   Catch::Matchers::ContainsSubstring("4") && Catch::Matchers::ContainsSubstring("3"));
    CHECK_THAT(error_of([&] { analyze(exact.q, exact.k, exact.v.topRows(5)); }),
               Catch::Matchers::ContainsSubstring("k and v must have the same number of rows") &&
                   Catch::Matchers::ContainsSubstring("8") && Catch::Matchers::ContainsSubstring("5"));
    const Matrix<double> z = Matrix<double>::Zero(8, 8);
    for (const Eigen::MatrixXd& v : {Eigen::MatrixXd(exact.v.topRows(5)), none}) {
        INFO("values of " << v.rows() << " rows");
        const std::string rows = std::to_string(v.rows());
        for (const std::string& error : {error_of([&] { analyze_logits(z, v); }),
                                         error_of([&] { analyze_weights(z.array() + 0.125, v); })}) {
            INFO(error);
            CHECK_THAT(error, Catch::Matchers::ContainsSubstring("values must have one row for each key") &&
                                  Catch::Matchers::ContainsSubstring(rows) &&
                                  Catch::Matchers::ContainsSubstring("8"));
        }
        CHECK_THAT(error_of([&] { analyze(exact.q, exact.k, v); }),
                   Catch::Matchers::ContainsSubstring("k and v must have the same number of rows"));
        const Matrix<double> held = v;
        CHECK_THAT(error_of([&] {
                       analyze_tiles<double>(8, 8, ProductTiles<double>(HeadView<double>(exact.q, exact.k)),
                                             MatrixView<double>(held));
                   }),
                   Catch::Matchers::ContainsSubstring("values must have one row for each key"));
    }
    CHECK_THAT(error_of([&] {
                   analyze_tiles<double>(-1, 8, ProductTiles<double>(HeadView<double>(exact.q, exact.k)), {});
               }),
               Catch::Matchers::ContainsSubstring("queries and keys must be >= 0"));
}

TEST_CASE("analyze: a scale where there is no q.k is refused", "[analysis]") {
    const ExactHead exact = some_head();
    const Matrix<double> z = Matrix<double>::Zero(4, 4), p = Matrix<double>::Constant(4, 4, 0.25);
    CHECK(error_of([&] { analyze_logits(z, {.scale = 0.5}); }) ==
          "analyze_logits: scale must be left out where there is no q.k, got 0.5");
    CHECK_THAT(error_of([&] { analyze_weights(p, {.scale = 0.5}); }),
               Catch::Matchers::StartsWith("analyze_weights: scale must be left out"));
    CHECK_THAT(error_of([&] {
                   analyze_tiles<double>(8, 8, ProductTiles<double>(HeadView<double>(exact.q, exact.k)), {},
                                         {.scale = 0.5});
               }),
               Catch::Matchers::StartsWith("analyze_tiles: scale must be left out"));
}

TEST_CASE("analyze: finite masks of given logits, as asked", "[analysis]") {
    SplitMix64 random = generator(test_seed(), 55);
    Eigen::MatrixXd z(6, 6), finite(6, 6), v(6, 3);
    for (double& x : v.reshaped()) x = random.normal();
    for (Index i = 0; i < 6; ++i)
        for (Index j = 0; j < 6; ++j) {
            z(i, j) = j <= i ? random.normal() : -infinity;
            finite(i, j) = j <= i ? z(i, j) : -1e9;
        }
    const HeadAnalysis right = analyze_logits(z, v, {.counts = {1, 2}}),
                       asked = analyze_logits(finite, v, {.counts = {1, 2}, .masked_below = -1e8}),
                       plain = analyze_logits(finite, v, {.counts = {1, 2}});
    CHECK(first_difference(right, asked) == "");
    CHECK(plain.rows.visible[0] == 6); // a finite mask hides nothing by itself
    const auto source = [&](Index query, Index key, TileOut<double> tile) {
        tile = finite.block(query, key, tile.rows(), tile.cols());
    };
    const Matrix<double> values = v;
    const HeadAnalysis tiles = analyze_tiles<double>(6, 6, source, MatrixView<double>(values),
                                                     {.counts = {1, 2}, .masked_below = -1e8});
    CHECK(first_difference(right, tiles) == "");
    CHECK_THROWS_WITH(analyze(v, v, v, {.masked_below = -1e8}),
                      "analyze: masked_below is for logits that are given, got -1e+08");
    CHECK_THROWS_AS(analyze_weights(z.array().exp().matrix(), {.masked_below = -1e8}), invalid_argument);
}

TEST_CASE("analyze: what a new user types", "[analysis]") {
    const Eigen::MatrixXd q = Eigen::MatrixXd::Random(6, 4), k = Eigen::MatrixXd::Random(6, 4),
                          v = Eigen::MatrixXd::Random(6, 2), fused = Eigen::MatrixXd::Random(6, 12);
    CHECK(analyze(q, k, v).queries == 6);
    CHECK(analyze(q, k).keys == 6);
    CHECK(analyze(q, k, v, {.mask = Mask::causal()}).rows.visible[0] == 1);
    CHECK(analyze(q, k, {.mask = Mask::causal()}).rows.visible[0] == 1);
    CHECK(analyze(q, k, v, {.normalizer = Sparsemax{}, .counts = {5, 50}}).normalizer == "sparsemax");
    CHECK(analyze(q.topRows(5), k, v.cast<float>() * 2).queries == 5);
    CHECK(analyze(q, k, v, {}, [](Index count, auto&& task) {
              for (Index i = 0; i < count; ++i) task(i);
          }).queries == 6);
    const AnalysisOptions options;
    CHECK(analyze(q, k, options).queries == 6);
    CHECK(analyze(q, k, v, options, Sequential()).queries == 6);
    CHECK(analyze(Eigen::Matrix<double, 3, 2>::Zero(), Eigen::Matrix2f::Identity()).keys == 2);
    CHECK(analyze(fused.leftCols(4), fused.middleCols(4, 4), fused.rightCols(4)).keys == 6);
    CHECK(analyze(q * q.transpose(), k * q.transpose(), v).keys == 6);
    CHECK(analyze(Eigen::RowVectorXd::Ones(4), k, v).queries == 1);
    CHECK(analyze(q(Eigen::all, Eigen::seq(0, 1)), k.leftCols(2)).queries == 6);
}
