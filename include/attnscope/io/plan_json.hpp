// Plans of heads as JSON: the question and the answers of the schema in docs/plan.md.
#pragma once

#include <attnscope/cache/format_name.hpp>
#include <attnscope/planner/head_plans.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {
namespace plan_json {

using Json = nlohmann::ordered_json;

inline Json number_json(double x) {
    if (std::isnan(x)) return nullptr;
    return std::isinf(x) ? Json(x > 0 ? "inf" : "-inf") : Json(x);
}

inline Json confirmation_json(const PlanConfirmation& found) {
    Json json;
    json["applied"] = number_json(found.applied);
    if (found.has_held_out) {
        json["held_out"] = number_json(found.held_out);
        json["held"] = found.held;
    }
    return json;
}

inline Json choice_json(const CacheChoice& one, double share) {
    return {{"keys", name_of(one.keys)},
            {"values", name_of(one.values)},
            {"bytes_per_token", one.bytes},
            {"error", number_json(need_for_share(one.error, share))},
            {"certified", number_json(need_for_share(one.limit, share))},
            {"argmax_kept", number_json(one.argmax_kept)}};
}

inline Json outliers_json(const std::vector<OutlierChannel>& outliers) {
    Json list = Json::array();
    for (const OutlierChannel& one : outliers)
        list.push_back({{"channel", one.channel}, {"mean", one.mean}, {"ratio", number_json(one.ratio)}});
    return list;
}

inline Json formats_json(const HeadPlans& plan) {
    const double share = plan.question.budget_share();
    Json pairs = Json::array();
    for (std::size_t i = 0; i < plan.choices.size(); ++i) {
        Json one = choice_json(plan.choices[i], share);
        one["worst_head_error"] = number_json(plan.worst_error(i));
        one["on_pareto_line"] = false;
        pairs.push_back(one);
    }
    for (const std::size_t i : pareto_line(plan.choices, share)) pairs[i]["on_pareto_line"] = true;
    return {{"left_out", plan.formats_left_out}, {"pairs", pairs}};
}

} // namespace plan_json
} // namespace detail

/// `question`, `heads` and, where formats of the cache were asked about, `cache_formats`: see docs/plan.md.
/// Special rows. Figures that cannot be told are null, and limits that there are none of the texts inf and -inf. Of a head
/// without rows its place alone.
/// Cost. O(size of the plans).
inline nlohmann::ordered_json to_json(const HeadPlans& plan) {
    using namespace detail::plan_json;
    const PlanQuestion& question = plan.question;
    Json json;
    Json asked;
    asked["length"] = question.length;
    if (question.weight || question.entropy || question.participation)
        asked["share_of_aims"] = question.aim_share();
    if (question.output_error || question.mass || question.bits)
        asked["share_of_budgets"] = question.budget_share();
    if (question.growth) asked["growth"] = *question.growth;
    json["question"] = asked;
    Json heads = Json::array();
    for (const PlacedPlan& head : plan.heads) {
        Json own;
        own["batch"] = head.batch;
        own["layer"] = head.layer;
        own["head"] = head.head;
        own["rows"] = head.rows;
        if (head.rows == 0) {
            heads.push_back(own);
            continue;
        }
        own["mean_keys"] = head.mean_keys;
        own["mean_weight"] = head.mean_weight;
        own["mean_entropy_nats"] = head.mean_entropy;
        if (std::isinf(head.growth.standard_error))
            own["growth"] = nullptr;
        else
            own["growth"] = {{"exponent", head.growth.exponent},
                             {"standard_error", head.growth.standard_error}};
        if (head.length)
            own["length"] = {{"weight", *question.weight},
                             {"share_now", number_json(head.length->share_now)},
                             {"guaranteed", number_json(head.length->limits.guaranteed)},
                             {"expected", number_json(head.length->limits.expected)},
                             {"possible", number_json(head.length->limits.possible)}};
        for (const AimPlan& aim : head.aims) {
            Json one = confirmation_json(aim.confirmation);
            one["value"] = aim.value;
            one["inverse_temperature"] = number_json(aim.inverse_temperature);
            one["ssmax_scale"] = number_json(aim.ssmax);
            one["unreachable_rows"] = aim.unreachable;
            std::string name(name_of(aim.aim));
            std::replace(name.begin(), name.end(), ' ', '_');
            own[name] = one;
        }
        if (head.steady) {
            own["weight"]["safe"] = confirmation_json(head.steady->confirmation);
            own["weight"]["safe"]["inverse_temperature"] = number_json(head.steady->inverse_temperature);
        }
        const auto budget = [&](const char* name, const std::optional<BudgetPlan>& found) {
            if (!found) return;
            own[name] = {{"tolerance", found->tolerance},
                         {"top_k", found->measured},
                         {"top_k_certified", found->certified},
                         {"top_p", found->top_p},
                         {"top_k_confirmation", confirmation_json(found->top_k)},
                         {"top_p_confirmation", confirmation_json(found->top_p_confirmation)}};
        };
        budget("output", head.output);
        budget("mass", head.mass);
        if (head.bits) {
            Json bits = confirmation_json(head.bits->confirmation);
            bits["tolerance"] = question.bits_error;
            bits["measured"] = head.bits->bits.measured > 16 ? Json(nullptr) : Json(head.bits->bits.measured);
            bits["certified"] =
                head.bits->bits.certified > 16 ? Json(nullptr) : Json(head.bits->bits.certified);
            bits["certified_on_average"] =
                head.bits->bits.expected > 16 ? Json(nullptr) : Json(head.bits->bits.expected);
            bits["argmax_kept"] = number_json(head.bits->argmax_kept);
            bits["int8"] = number_json(head.bits->int8);
            bits["int4"] = number_json(head.bits->int4);
            bits["float8_e4m3"] = number_json(head.bits->float8_e4m3);
            bits["float8_e5m2"] = number_json(head.bits->float8_e5m2);
            const auto choice = [&](const std::optional<std::size_t>& found) {
                return found ? choice_json(head.bits->choices[*found], question.budget_share()) : Json(nullptr);
            };
            bits["fewest_bytes"] = choice(head.bits->fewest);
            bits["fewest_bytes_certified"] = choice(head.bits->fewest_certified);
            bits["fewest_bytes_confirmation"] = confirmation_json(head.bits->fewest_confirmation);
            bits["key_outliers"] = outliers_json(head.bits->key_outliers);
            bits["value_outliers"] = outliers_json(head.bits->value_outliers);
            own["bits"] = bits;
        }
        heads.push_back(own);
    }
    json["heads"] = heads;
    if (question.bits) json["cache_formats"] = formats_json(plan);
    return json;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
