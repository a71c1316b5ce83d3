// Plans of heads as text and as JSON: figures read back, places of the least and the most, heads without rows.
#include <support/laws.hpp>

#include <attnscope/io/plan_json.hpp>
#include <attnscope/plan_text.hpp>
#include <attnscope/planner/plan_head.hpp>

#include <map>
#include <sstream>

using namespace attnscope;
using namespace attnscope_test;

namespace {

Matrix<double> normal_matrix(SplitMix64& random, Index rows, Index cols, double scale = 1) {
    Matrix<double> m(rows, cols);
    random.fill_normal(std::span<double>(m.data(), static_cast<std::size_t>(m.size())));
    return scale * m;
}

/// Three heads, ever sharper, and one whose rows cannot be planned for.
HeadPlans some_plans(std::uint64_t seed) {
    SplitMix64 random = generator(seed, 7, 31);
    HeadPlans plans;
    plans.question.length = 4096;
    plans.question.weight = 0.5;
    plans.question.entropy = true;
    plans.question.output_error = 0.05;
    plans.question.mass = 0.9;
    plans.question.bits = true;
    plans.question.key_formats = {cache_format("q8_0"), cache_format("int4:token")};
    plans.question.value_formats = {cache_format("q8_0"), cache_format("e4m3")};
    for (Index head = 0; head < 4; ++head) {
        Matrix<double> q = normal_matrix(random, 48, 32, 0.5 + static_cast<double>(head)),
                       k = normal_matrix(random, 48, 32), v = normal_matrix(random, 48, 32);
        if (head == 2) q.setConstant(std::numeric_limits<double>::quiet_NaN());
        PlacedPlan plan{plan_head(q, k, v, plans.question, Mask::causal())};
        plan.layer = head / 2;
        plan.head = head % 2;
        plans.heads.push_back(std::move(plan));
    }
    plans.pool_choices();
    return plans;
}

/// What stands behind a name in the first line that has it.
std::vector<std::string> cells_behind(const std::string& text, const std::string& name) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const auto at = line.find(name);
        if (at == std::string::npos) continue;
        std::istringstream rest(line.substr(at + name.size()));
        std::vector<std::string> cells;
        for (std::string cell; rest >> cell;)
            if (cell != "%") cells.push_back(cell);
        return cells;
    }
    return {};
}

} // namespace

TEST_CASE("plans as text: least, median and most over the heads that have rows, and where they are",
          "[planner][text]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const HeadPlans plans = some_plans(seed);
    REQUIRE(plans.heads[2].rows == 0);
    const std::string text = to_table(plans);
    CHECK(fmt::format("{}", plans) == text);
    CHECK(text.starts_with("1 heads have no row of two visible keys and finite logits\n"));

    // Of the heads (0, 0), (0, 1) and (1, 1), sorted here by hand.
    const auto check = [&](const std::string& name, auto figure) {
        std::map<double, std::string> sorted;
        for (const PlacedPlan& head : plans.heads)
            if (head.rows > 0) sorted.emplace(figure(head), fmt::format("({}, {})", head.layer, head.head));
        REQUIRE(sorted.size() == 3);
        const auto first = sorted.begin(), second = std::next(first), third = std::next(second);
        const std::vector<std::string> cells = cells_behind(text, name);
        CAPTURE(name, text);
        REQUIRE(cells.size() == 7); // a place has a blank
        CHECK(cells[0] == fmt::format("{:.4g}", first->first));
        CHECK(cells[1] + " " + cells[2] == first->second);
        CHECK(cells[3] == fmt::format("{:.4g}", second->first));
        CHECK(cells[4] == fmt::format("{:.4g}", third->first));
        CHECK(cells[5] + " " + cells[6] == third->second);
    };
    check("weight of the best key now, mean", [](const PlacedPlan& head) { return head.mean_weight; });
    check("wanted entropy", [](const PlacedPlan& head) { return head.mean_entropy; });
    check("error at int4", [](const PlacedPlan& head) { return 100 * head.bits->int4; });
}

TEST_CASE("plans as JSON: the figures of the plans, and of a head without rows its place alone",
          "[planner][json]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const HeadPlans plans = some_plans(seed);
    const nlohmann::ordered_json json = nlohmann::ordered_json::parse(io::to_json(plans).dump());
    CHECK(json["question"]["length"] == 4096);
    CHECK(json["question"]["share_of_aims"] == 0.5);
    CHECK(json["question"]["share_of_budgets"] == 0.99);
    REQUIRE(json["heads"].size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
        const auto& own = json["heads"][i];
        const PlacedPlan& plan = plans.heads[i];
        CAPTURE(i);
        CHECK(own["layer"] == plan.layer);
        CHECK(own["head"] == plan.head);
        CHECK(own["rows"] == plan.rows);
        CHECK(own.contains("mean_keys") == (plan.rows > 0));
        if (plan.rows == 0) continue;
        CHECK(own["mean_weight"] == plan.mean_weight);
        CHECK(own["mean_entropy_nats"] == plan.mean_entropy);
        CHECK(own["output"]["top_k"] == plan.output->measured);
        CHECK(own["mass"]["top_p"] == plan.mass->top_p);
        CHECK(own["bits"]["int8"] == plan.bits->int8);
        for (const AimPlan& aim : plan.aims) {
            const std::string name(name_of(aim.aim));
            const auto& temperature = own[name]["inverse_temperature"];
            if (std::isinf(aim.inverse_temperature))
                CHECK(temperature == "inf");
            else
                CHECK(temperature == aim.inverse_temperature);
        }
    }

    // Every pair of formats once, with the worst head's error, and on the line those that no other beats.
    const auto& pairs = json["cache_formats"]["pairs"];
    REQUIRE(pairs.size() == 4);
    const auto error_of = [](std::vector<double> errors) { // that 0.99 of them keep
        std::sort(errors.begin(), errors.end());
        return errors[static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(errors.size()) - 1e-9)) -
                      1];
    };
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        double worst = 0;
        std::vector<double> all;
        for (const PlacedPlan& head : plans.heads)
            if (head.rows > 0) {
                worst = std::max(worst, error_of(head.bits->choices[i].error));
                all.insert(all.end(), head.bits->choices[i].error.begin(), head.bits->choices[i].error.end());
            }
        CAPTURE(i, pairs[i]["keys"].get<std::string>(), pairs[i]["values"].get<std::string>());
        CHECK(pairs[i]["worst_head_error"] == worst);
        CHECK(plans.worst_error(i) == worst);
        CHECK(pairs[i]["error"] == error_of(all));
        bool beaten = false;
        for (std::size_t j = 0; j < pairs.size(); ++j)
            beaten = beaten || (j != i && pairs[j]["bytes_per_token"] <= pairs[i]["bytes_per_token"] &&
                                pairs[j]["error"] <= pairs[i]["error"]);
        CHECK(pairs[i]["on_pareto_line"] == !beaten);
    }
}

TEST_CASE("plans without rows are an empty table", "[planner][text]") {
    HeadPlans plans;
    plans.question.weight = 0.5;
    CHECK(to_table(plans).empty());
    plans.heads.resize(2);
    CHECK(to_table(plans) == "2 heads have no row of two visible keys and finite logits\n");
    CHECK(io::to_json(plans)["heads"].size() == 2);
}
