#include "output.hpp"

#include <attnscope/io/plan_json.hpp>
#include <attnscope/plan_text.hpp>

namespace plan {

std::string to_text(const Plan& plan) {
    Index rows = 0;
    for (const attnscope::PlacedPlan& head : plan.heads) rows += head.rows;
    std::string text =
        fmt::format("{}: {} heads, {} queries, {} keys, {}; planned from {} rows of two keys or more\n",
                    attnscope::printable(plan.source), plan.heads.size(), plan.queries, plan.keys,
                    plan.causal ? "causal" : "not causal", rows);
    for (const std::string& line : plan.assumptions) text += fmt::format("taken: {}\n", line);
    for (const std::string& line : plan.warnings) text += fmt::format("warning: {}\n", line);
    return text + to_table(plan);
}

std::string to_json(const Plan& plan) {
    nlohmann::ordered_json json;
    json["schema"] = "attnscope.plan/1";
    json["version"] = ATTNSCOPE_VERSION;
    json["source"] = attnscope::printable(plan.source); // JSON is UTF-8
    json["queries"] = plan.queries;
    json["keys"] = plan.keys;
    json["causal"] = plan.causal;
    json["assumptions"] = plan.assumptions;
    json["warnings"] = plan.warnings;
    json.update(attnscope::io::to_json(plan));
    return json.dump(1) + "\n";
}

} // namespace plan
