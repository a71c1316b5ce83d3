// An analysis as text: tables as a user reads them, JSON and CSV whose numbers read back exactly.
#include <support/analysis_reference.hpp>

#include <attnscope/fmt.hpp>
#include <attnscope/io/analysis_csv.hpp>
#include <attnscope/io/analysis_json.hpp>

#include <sstream>

using namespace attnscope;
using namespace attnscope_test;

namespace {

/// A head of every kind of row: normal ones, one that is padding, one with NaN.
HeadAnalysis mixed_head(bool values = true, AnalysisOptions options = {.counts = {4, 1, 2}}) {
    SplitMix64 random = generator(test_seed(), 51);
    ExactHead exact(random, 7, 7, 4, 3);
    exact.q(3, 0) = std::numeric_limits<double>::quiet_NaN();
    options.mask = Mask::causal();
    options.padding = {true, false, false, false, false, false, false};
    return values ? analyze(exact.q, exact.k, exact.v, options) : analyze(exact.q, exact.k, options);
}

/// The number that a JSON value or a CSV cell stands for; NaN for nothing.
double number_of(const nlohmann::ordered_json& json) {
    return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}
double number_of(const std::string& cell) {
    return cell.empty() ? std::numeric_limits<double>::quiet_NaN() : std::stod(cell);
}
bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

std::vector<std::string> split(const std::string& line, char by) {
    std::vector<std::string> cells(1);
    for (const char c : line) {
        if (c == by)
            cells.emplace_back();
        else
            cells.back() += c;
    }
    return cells;
}
/// Lines of a text that ends in one.
std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines = split(text, '\n');
    REQUIRE(lines.back().empty());
    lines.pop_back();
    return lines;
}

/// Three queries over three keys whose figures can be found on paper: weights 1; 1/4, 3/4; 1/4, 1/4, 1/2.
HeadAnalysis paper_head(AnalysisOptions options) {
    const double a = std::log(3.0), b = std::log(2.0);
    Eigen::MatrixXd z(3, 3), v(3, 1);
    const double masked = -std::numeric_limits<double>::infinity();
    z << 1, masked, masked, 0, a, masked, 0, 0, b;
    v << 0, 4, 8;
    return analyze_logits(z, v, options);
}

} // namespace

TEST_CASE("text: JSON has every number, null where there is none", "[analysis][io]") {
    for (const bool values : {true, false}) {
        const HeadAnalysis head = mixed_head(values);
        // Through its text, as a reader gets it.
        const auto json = nlohmann::ordered_json::parse(io::to_json(head, true).dump());
        CHECK(json["schema"] == "attnscope.analysis/1");
        CHECK(json["queries"] == 7);
        CHECK(json["keys"] == 7);
        CHECK(json["normalizer"] == "softmax");
        CHECK(json["temperature"] == 1);
        CHECK(json["scale"] == 0.5);
        CHECK(json["scalar"] == "double");
        CHECK(json["reading"] == "cumulative");
        CHECK(json["radius"].is_null());
        CHECK(json["streamed"] == false);
        CHECK(json["cancelled"] == false);
        CHECK(json["status"] ==
              nlohmann::ordered_json({{"normal", 5}, {"empty", 1}, {"infinite", 0}, {"nan", 1}}));
        CHECK(json["examined"].size() == 7);
        REQUIRE(json["rows"].size() == 7);
        for (Index query = 0; query < 7; ++query) {
            const auto& row = json["rows"][static_cast<std::size_t>(query)];
            CHECK(row["query"] == query);
            CHECK(row["visible"] == head.rows.visible[query]);
            const Index best = head.rows.argmax[query];
            CHECK(row["argmax"] == (best < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(best)));
            CHECK(row["status"] == name_of(head.rows.status[static_cast<std::size_t>(query)]));
            for (const RowFigure& figure : row_figures) {
                INFO(figure.name << " of row " << query);
                const auto& place = figure.group.empty() ? row : row[std::string(figure.group)];
                CHECK(same(number_of(place.at(std::string(figure.name))), (head.rows.*figure.values)[query]));
            }
            std::size_t selections = 0;
            for (const SelectionColumns& columns : head.selections) {
                if (!columns.has(query)) continue;
                const auto& entry = row["selection"].at(selections++);
                CHECK(entry["n"] == columns.n);
                for (const SelectionFigure& figure : selection_figures) {
                    INFO(figure.name);
                    CHECK(same(number_of(entry.at(std::string(figure.name))), (columns.*figure.values)[query]));
                }
            }
            CHECK(row["selection"].size() == selections);
        }
        for (const RowFigure& figure : row_figures) {
            const auto& place = figure.group.empty() ? json["mean"] : json["mean"][std::string(figure.group)];
            CHECK(same(number_of(place.at(std::string(figure.name))), finite_mean(head.rows.*figure.values)));
        }
        CHECK(json["mean"]["visible"].get<double>() == Catch::Approx(27.0 / 7));
        REQUIRE(json["mean"]["selection"].size() == 3);
        CHECK(json["mean"]["selection"][2]["n"] == 4);
        CHECK(json["mean"]["selection"][0]["margin"].is_null() == !values);
        REQUIRE(json["audit"].size() == head.audit.records().size());
        for (std::size_t i = 0; i < json["audit"].size(); ++i) {
            const AuditRecord& record = head.audit.records()[i];
            CHECK(json["audit"][i]["id"] == record.statement->id);
            CHECK(json["audit"][i]["checked"] == record.checked);
            CHECK(json["audit"][i]["undefined"] == record[Verdict::undefined]);
            CHECK(same(number_of(json["audit"][i]["max_tightness"]), record.max_tightness()));
        }
        CHECK(io::to_json(head)["rows"].empty());
    }
    const auto other = io::to_json(mixed_head(true, {.scale = 2.0,
                                                     .temperature = 0.5,
                                                     .normalizer = Sparsemax(),
                                                     .counts = {},
                                                     .reading = Reading::resultant,
                                                     .radius = 0.75,
                                                     .single_precision = true,
                                                     .streamed_above = 0}));
    CHECK(other["normalizer"] == "sparsemax");
    CHECK(other["temperature"] == 0.5);
    CHECK(other["scale"] == 2);
    CHECK(other["scalar"] == "float");
    CHECK(other["reading"] == "resultant");
    CHECK(other["radius"] == 0.75);
    CHECK(other["streamed"] == true);
    CHECK(other["mean"]["selection"].empty());
    // An analysis of nothing.
    const auto nothing = io::to_json(analyze(Eigen::MatrixXd(0, 3), Eigen::MatrixXd(0, 3)), true);
    CHECK(nothing["mean"]["visible"].is_null());
    CHECK(nothing["mean"]["entropy_nats"].is_null());
    CHECK(nothing["rows"].empty());
    CHECK(nothing["examined"].is_array());
}

TEST_CASE("text: CSV has every number, nothing where there is none", "[analysis][io]") {
    const Eigen::MatrixXd p = Eigen::MatrixXd::Constant(4, 5, 0.15), v = Eigen::MatrixXd::Random(5, 2);
    for (const HeadAnalysis& head : {mixed_head(), mixed_head(false), analyze_weights(p, v, {.counts = {2}})}) {
        const std::vector<std::string> names = split("head,query,visible,argmax" + io::figure_names(head), ',');
        const std::vector<std::string> lines = lines_of(io::rows_csv(head, "a"));
        REQUIRE(static_cast<Index>(lines.size()) == head.queries);
        const auto figures = figures_of(head.rows);
        REQUIRE(names.size() == figures.size() + 4);
        for (Index query = 0; query < head.queries; ++query) {
            const std::vector<std::string> cells = split(lines[static_cast<std::size_t>(query)], ',');
            REQUIRE(cells.size() == names.size());
            CHECK(cells[0] == "a");
            CHECK(cells[1] == std::to_string(query));
            CHECK(cells[2] == std::to_string(head.rows.visible[query]));
            const Index best = head.rows.argmax[query];
            CHECK(cells[3] == (best < 0 ? "" : std::to_string(best)));
            for (std::size_t i = 0; i < figures.size(); ++i) {
                INFO(names[i + 4]);
                CHECK(names[i + 4].ends_with(figures[i].name));
                CHECK(same(number_of(cells[i + 4]), (head.rows.*figures[i].values)[query]));
            }
        }
        const std::vector<std::string> means = split(io::mean_cells_csv(head), ',');
        REQUIRE(means.size() == figures.size() + 2);
        CHECK(means[0].empty());
        for (std::size_t i = 0; i < figures.size(); ++i)
            CHECK(same(number_of(means[i + 2]), finite_mean(head.rows.*figures[i].values)));

        std::size_t at = 0, selected = 0;
        const std::vector<std::string> rows = lines_of(io::selection_rows_csv(head, "b"));
        const std::vector<std::string> selection_names = split("head,query" + io::selection_names(), ',');
        for (Index query = 0; query < head.queries; ++query)
            for (const SelectionColumns& columns : head.selections) {
                if (!columns.has(query)) continue;
                REQUIRE(at < rows.size());
                const std::vector<std::string> cells = split(rows[at++], ',');
                REQUIRE(cells.size() == selection_names.size());
                CHECK(cells[1] == std::to_string(query));
                CHECK(cells[2] == std::to_string(columns.n));
                for (std::size_t i = 0; i < selection_figures.size(); ++i)
                    CHECK(same(number_of(cells[i + 3]), (columns.*selection_figures[i].values)[query]));
            }
        CHECK(at == rows.size());
        const std::vector<std::string> mean_rows = lines_of(io::selections_csv(head, "c"));
        for (const SelectionColumns& columns : head.selections)
            if (columns.mass.isFinite().any()) {
                const std::vector<std::string> cells = split(mean_rows.at(selected++), ',');
                CHECK(cells[1] == std::to_string(columns.n));
                CHECK(same(number_of(cells[2]), finite_mean(columns.mass)));
                CHECK(same(number_of(cells.back()), finite_mean(columns.margin)));
            }
        CHECK(selected == mean_rows.size());

        const std::vector<std::string> audit = lines_of(io::to_csv(head.audit));
        REQUIRE(audit.size() == head.audit.records().size() + 1);
        for (const std::string& line : audit) CHECK(split(line, ',').size() == 11);
    }
}

TEST_CASE("text: the table of a head is what a reader needs", "[analysis][io]") {
    const AnalysisOptions options{.counts = {1, 2}, .audit = false, .certificates = false};
    const HeadAnalysis head = paper_head(options);
    const std::string text = to_table(head), audit = to_table(head.audit);
    REQUIRE(text.ends_with(audit));
    CHECK(text.substr(0, text.size() - audit.size()) == R"(3 queries, 3 keys, softmax, temperature 1

Means over the rows of each head. H: entropy in nats; p1: largest weight; key0: weight of the first key;
keys: participation ratio 1/sum p^2; D: logit spread; |J|2, |J|F: spectral and Frobenius norm of dp/dz.

         H        p1      key0      keys         D      |J|2      |J|F
     0.534      0.75       0.5     1.756    0.5973      0.25    0.2752

Selecting the N largest weights, means over all rows with more than N visible keys.
distance: cumulative reading; bound: its Theorem 1(1); random: E d of N random keys lies between; lost: |o - o_N|;
separable: share of selected tokens nearer to their sum s than every other token.

    N     mass  distance     bound  random>=  random<=      lost separable precision        F    margin
    1    0.625         5       5.5     3.833     4.396         2         1         1        1         3
    2     0.75         3         5     3.667     3.667    0.3333       0.5    0.6667   0.5714        -1

)");
    for (const std::string& line : lines_of(text)) CHECK(line.size() <= 117);
    CHECK(fmt::format("{}", head) == text);
    std::ostringstream other;
    other << fmt::format("{}", LayerAnalysis{{head}});
    CHECK(other.str() == to_table(LayerAnalysis{{head}}));
}

TEST_CASE("text: the table says what its figures do not cover", "[analysis][io]") {
    const auto lines = [](const auto& analysis) { return lines_of(to_table(analysis)); };
    const HeadAnalysis mixed = mixed_head();
    CHECK(lines(mixed)[0] == "7 queries, 7 keys, softmax, temperature 1, scale 0.5");
    CHECK(lines(mixed)[1] == "rows without figures: 1 empty, 1 nan");
    const HeadAnalysis streamed = mixed_head(true, {.temperature = 0.5,
                                                    .normalizer = Sparsemax(),
                                                    .counts = {1},
                                                    .reading = Reading::resultant,
                                                    .radius = 0.5,
                                                    .single_precision = true,
                                                    .streamed_above = 0});
    CHECK(lines(streamed)[0] == "7 queries, 7 keys, sparsemax, temperature 0.5, scale 0.5, single precision");
    CHECK(lines(streamed)[1] == "streamed: selections and audit of 7 of 7 rows");
    CHECK_THAT(to_table(streamed), Catch::Matchers::ContainsSubstring("distance: resultant reading; random: "));
    CHECK_THAT(
        to_table(streamed),
        Catch::Matchers::ContainsSubstring(
            "separable: share of selected tokens nearer to their sum s than 0.5, 0 where another token is.\n"));

    Eigen::MatrixXd p(3, 2);
    p << 0.5, 0.25, 0.75, 0.25, -0.5, 1.5;
    const HeadAnalysis stored = analyze_weights(p, {.mask = Mask::causal(), .counts = {}});
    CHECK(lines(stored)[1] == "rows without figures: 1 nan");
    CHECK(lines(stored)[2] ==
          "stored weights: mean sum of a row 0.9167, on keys that the mask hides 0.08333; negative entries: 1");

    LayerAnalysis layer{{mixed, streamed, stored}};
    const std::string text = to_table(layer);
    for (const char* line : {"\nstreamed: selections and audit of 17 of 17 rows\n",
                             "\nrows without figures: 2 empty, 3 nan\n", "negative entries: 1\n"})
        CHECK_THAT(text, Catch::Matchers::ContainsSubstring(line));
    CHECK_FALSE(to_table(LayerAnalysis{}).empty());
}
