// Plans of heads as text, with fmt.
#pragma once

#include <attnscope/cache/format_name.hpp>
#include <attnscope/planner/head_plans.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace plan_text {

/// Four digits; keys beyond a million in powers of ten.
inline std::string number(double x) {
    if (std::isnan(x)) return "-";
    if (std::isinf(x)) return x > 0 ? "no limit" : "-no limit";
    return std::abs(x) >= 1e6 ? fmt::format("{:.2e}", x) : fmt::format("{:.4g}", x);
}

inline std::string whole(double keys) {
    return keys < 1e6 ? fmt::format("{:.0f}", std::floor(keys)) : number(keys);
}

inline std::string temperature(double beta) {
    return std::isinf(beta) ? "none" : beta == 0 ? "any" : number(1 / beta);
}

inline std::string scale(double s) { return std::isinf(s) ? "none" : s == 0 ? "any" : number(s); }

/// The middle value, or the mean of the two in the middle; the first of these where one is infinite.
inline double middle(const std::vector<double>& sorted) {
    const double low = sorted[(sorted.size() - 1) / 2], high = sorted[sorted.size() / 2];
    return std::isinf(low) || std::isinf(high) ? low : (low + high) / 2;
}

/// Least, median and most of a figure over the heads that have it, and where the outer two are.
class Lines {
public:
    explicit Lines(const std::vector<PlacedPlan>& heads) : heads_(heads) {
        text_ = fmt::format("  {:<42} {:>10} {:<9} {:>10} {:>10} {}\n", "over the heads", "least", "(l, h)",
                            "median", "most", "(l, h)");
    }
    void add(std::string_view name, const std::function<double(const PlacedPlan&)>& figure,
             const std::function<std::string(double)>& show = number) {
        std::vector<std::pair<double, const PlacedPlan*>> values;
        for (const PlacedPlan& head : heads_)
            if (head.rows > 0)
                if (const double x = figure(head); !std::isnan(x)) values.emplace_back(x, &head);
        if (values.empty()) {
            text_ += fmt::format("  {:<42} {:>10}\n", name, "-");
            return;
        }
        std::stable_sort(values.begin(), values.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        std::vector<double> sorted;
        for (const auto& entry : values) sorted.push_back(entry.first);
        const auto place = [](const PlacedPlan* head) {
            return fmt::format("({}, {})", head->layer, head->head);
        };
        text_ += fmt::format("  {:<42} {:>10} {:<9} {:>10} {:>10} {}\n", name, show(values.front().first),
                             place(values.front().second), show(middle(sorted)), show(values.back().first),
                             place(values.back().second));
    }
    const std::string& text() const { return text_; }

private:
    const std::vector<PlacedPlan>& heads_;
    std::string text_;
};

inline std::vector<double> sorted_copy(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values;
}

/// "held in 17 of 20 heads".
inline std::string held_out(const HeadPlans& plan,
                            const std::function<const PlanConfirmation*(const PlacedPlan&)>& of,
                            std::string_view promise, std::string_view which = "") {
    int tried = 0, held = 0;
    std::vector<double> figures;
    for (const PlacedPlan& head : plan.heads)
        if (const PlanConfirmation* found = head.rows > 0 ? of(head) : nullptr; found && found->has_held_out) {
            ++tried;
            held += found->held ? 1 : 0;
            figures.push_back(found->held_out);
        }
    if (tried == 0) return fmt::format("  held out{}: too few queries, or nothing to promise\n", which);
    return fmt::format("  held out{} (first half of the queries planned for the row lengths of the second):\n"
                       "    held in {} of {} heads; {}, found in the median {}\n",
                       which, held, tried, promise, number(middle(sorted_copy(figures))));
}

inline std::string percent(double share) { return fmt::format("{:.4g} %", 100 * share); }

inline const AimPlan* aim_of(const PlacedPlan& head, Aim aim) {
    for (const AimPlan& plan : head.aims)
        if (plan.aim == aim) return &plan;
    return nullptr;
}

inline std::string aim_text(const HeadPlans& plan, Aim aim, const std::string& title) {
    const PlanQuestion& question = plan.question;
    std::string text = fmt::format("\n{}, for {} of the rows\n", title, percent(question.aim_share()));
    Lines lines(plan.heads);
    const auto with = [&](auto figure) {
        return [=](const PlacedPlan& head) { return figure(head, *aim_of(head, aim)); };
    };
    if (aim == Aim::weight) {
        lines.add("now: share of rows that give it",
                  [](const PlacedPlan& head) { return head.length->share_now; });
        lines.add(
            "longest context, guaranteed by the gap",
            [](const PlacedPlan& head) { return head.length->limits.guaranteed; }, whole);
        lines.add(
            "longest context, expected", [](const PlacedPlan& head) { return head.length->limits.expected; },
            whole);
        lines.add(
            "longest context, possible at this spread",
            [](const PlacedPlan& head) { return head.length->limits.possible; }, whole);
    } else {
        lines.add(fmt::format("wanted {}", name_of(aim)),
                  with([](const PlacedPlan&, const AimPlan& own) { return own.value; }));
    }
    // The highest temperature has the smallest beta: sorted by it, shown as T.
    lines.add("temperature needed, easiest head first",
              with([](const PlacedPlan&, const AimPlan& own) { return own.inverse_temperature; }), temperature);
    if (aim == Aim::weight)
        lines.add(
            "  safe: gaps do not grow, c = max(c, 0)",
            [](const PlacedPlan& head) { return head.steady->inverse_temperature; }, temperature);
    lines.add("or SSMax scale s needed", with([](const PlacedPlan&, const AimPlan& own) { return own.ssmax; }),
              scale);
    lines.add(aim == Aim::weight ? "check on rows grown key by key: share"
                                 : "check on rows grown key by key: median",
              with([](const PlacedPlan&, const AimPlan& own) { return own.confirmation.applied; }));
    text += lines.text();

    std::vector<const std::vector<double>*> needs;
    Index rows = 0, unreachable = 0, heads = 0;
    std::vector<double> best;
    for (const PlacedPlan& head : plan.heads) {
        if (head.rows == 0) continue;
        const AimPlan& own = *aim_of(head, aim);
        needs.push_back(&own.needs);
        rows += head.rows;
        unreachable += own.unreachable;
        heads += std::isinf(own.inverse_temperature) || own.inverse_temperature == 0 ? 1 : 0;
        if (own.unreachable > 0) best.push_back(own.best);
    }
    if (rows > 0) {
        const double beta = pooled_need(needs, question.aim_share());
        text += fmt::format("  one temperature for all heads, for {} of all rows: {} (s = {})\n",
                            percent(question.aim_share()), temperature(beta),
                            scale(beta / std::log(question.length)));
    }
    if (unreachable > 0)
        text += fmt::format("  no temperature gives it to {} of {} rows, none to the share in {} heads: {};\n"
                            "    the nearest that these rows come to is {} (median)\n",
                            unreachable, rows, heads,
                            aim == Aim::weight
                                ? "other keys are level with the best one, or overtake it on the way"
                                : "it is more than a row of so many keys has, or less than level keys leave",
                            number(need_for_share(best, 0.5)));
    text += held_out(
        plan, [&](const PlacedPlan& head) { return &aim_of(head, aim)->confirmation; },
        aim == Aim::weight ? fmt::format("promised share {}", percent(question.aim_share()))
                           : std::string("promised: within 10 % of the wanted"));
    if (aim == Aim::weight)
        text += held_out(
            plan, [](const PlacedPlan& head) { return &head.steady->confirmation; },
            fmt::format("promised share {}", percent(question.aim_share())), ", safe");
    return text;
}

inline std::string budget_text(const HeadPlans& plan, std::optional<BudgetPlan> PlacedPlan::*which,
                               const std::string& title, bool certified) {
    const double share = plan.question.budget_share();
    std::string text = fmt::format("\n{}, for {} of the rows\n", title, percent(share));
    Lines lines(plan.heads);
    const auto with = [&](auto figure) {
        return [=](const PlacedPlan& head) { return figure(*(head.*which)); };
    };
    lines.add("top-k: keys needed, measured", with([](const BudgetPlan& own) { return double(own.measured); }),
              whole);
    if (certified)
        lines.add("top-k: keys that the certificate asks for",
                  with([](const BudgetPlan& own) { return double(own.certified); }), whole);
    lines.add("top-p: mass needed", with([](const BudgetPlan& own) { return own.top_p; }));
    lines.add("applied top-k: share of rows within",
              with([](const BudgetPlan& own) { return own.top_k.applied; }));
    lines.add("applied top-p: share of rows within",
              with([](const BudgetPlan& own) { return own.top_p_confirmation.applied; }));
    text += lines.text();
    std::vector<const std::vector<double>*> needs;
    for (const PlacedPlan& head : plan.heads)
        if (head.rows > 0) needs.push_back(&(head.*which)->needs);
    if (!needs.empty())
        text += fmt::format("  one top-k for all heads, for {} of all rows: {} keys\n", percent(share),
                            whole(pooled_need(needs, share)));
    const std::string promise = fmt::format("promised share {}", percent(share));
    text += held_out(
        plan, [=](const PlacedPlan& head) { return &(head.*which)->top_k; }, promise, ", top-k");
    text += held_out(
        plan, [=](const PlacedPlan& head) { return &(head.*which)->top_p_confirmation; }, promise, ", top-p");
    return text;
}

/// Which channels of the keys, or values, stand out: a line, the heads of the largest ratios first.
inline std::string outliers_text(const HeadPlans& plan, std::string_view name,
                                 std::vector<OutlierChannel> BitsPlan::*which) {
    std::vector<std::pair<const PlacedPlan*, OutlierChannel>> found;
    Index heads = 0;
    for (const PlacedPlan& head : plan.heads)
        if (head.bits && !((*head.bits).*which).empty()) {
            ++heads;
            for (const OutlierChannel& one : (*head.bits).*which) found.emplace_back(&head, one);
        }
    if (found.empty()) return {};
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.second.ratio > b.second.ratio; });
    std::string text = fmt::format("  channels of the {} whose mean stands out, in {} of {} heads:", name,
                                   heads, plan.heads.size());
    for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 4); ++i)
        text += fmt::format("{} ({}, {}) channel {}, {:.1f} times the usual size", i > 0 ? ";" : "",
                            found[i].first->layer, found[i].first->head, found[i].second.channel,
                            found[i].second.ratio);
    return text + (found.size() > 4 ? fmt::format("; and {} more\n", found.size() - 4) : std::string("\n"));
}

inline std::string formats_text(const HeadPlans& plan) {
    std::string text = outliers_text(plan, "keys", &BitsPlan::key_outliers) +
                       outliers_text(plan, "values", &BitsPlan::value_outliers);
    const double share = plan.question.budget_share(), tolerance = plan.question.bits_error;
    if (!plan.formats_left_out.empty())
        text += fmt::format("  formats left out, as their blocks do not divide the channels: {}\n",
                            fmt::join(plan.formats_left_out, ", "));
    if (plan.choices.empty()) return text;
    text += fmt::format(
        "  formats of keys and values, bytes of a token in a head against the error that {} of all rows "
        "keep:\n    of {} pairs those that no other beats in both\n",
        percent(share), plan.choices.size());
    text += fmt::format("    {:<18} {:<18} {:>8} {:>10} {:>10} {:>11} {:>9}\n", "keys", "values", "bytes",
                        "error", "worst head", "certified", "same key");
    for (const std::size_t i : pareto_line(plan.choices, share)) {
        const CacheChoice& one = plan.choices[i];
        text += fmt::format("    {:<18} {:<18} {:>8.4g} {:>10} {:>10} {:>11} {:>9}\n", name_of(one.keys),
                            name_of(one.values), one.bytes, percent(need_for_share(one.error, share)),
                            percent(plan.worst_error(i)), percent(need_for_share(one.limit, share)),
                            number(one.argmax_kept));
    }
    const auto fewest = [&](bool certified) {
        const auto found = fewest_cache_bytes(plan.choices, tolerance, share, certified);
        if (!found) return std::string("none of these");
        const CacheChoice& one = plan.choices[*found];
        return fmt::format("{:.4g} bytes, keys {}, values {}", one.bytes, name_of(one.keys),
                           name_of(one.values));
    };
    text += fmt::format("    one pair for all heads: {}\n      certified: {}\n", fewest(false), fewest(true));
    text += held_out(
        plan, [](const PlacedPlan& head) { return &head.bits->fewest_confirmation; },
        fmt::format("promised share {}", percent(share)), ", the formats of each head");
    return text;
}

inline std::string bits_text(const HeadPlans& plan) {
    const PlanQuestion& question = plan.question;
    std::string text = fmt::format("\nBits of the key cache (one scale for each {}) that move the output by at "
                                   "most {}, for {} of the rows\n",
                                   question.scale == CacheScale::channel ? "channel" : "token",
                                   percent(question.bits_error), percent(question.budget_share()));
    Lines lines(plan.heads);
    const auto with = [](auto figure) { return [=](const PlacedPlan& head) { return figure(*head.bits); }; };
    const auto bits = [](double x) { return x > 16 ? std::string("over 16") : fmt::format("{:.0f}", x); };
    lines.add("bits needed, measured", with([](const BitsPlan& own) { return double(own.bits.measured); }),
              bits);
    lines.add("bits that the certificate asks for",
              with([](const BitsPlan& own) { return double(own.bits.certified); }), bits);
    lines.add("the same on average, errors uniform",
              with([](const BitsPlan& own) { return double(own.bits.expected); }), bits);
    lines.add("applied: share of rows within",
              with([](const BitsPlan& own) { return own.confirmation.applied; }));
    lines.add("rows that point to the same key", with([](const BitsPlan& own) { return own.argmax_kept; }));
    lines.add("error at int8", with([](const BitsPlan& own) { return own.int8; }), percent);
    lines.add("error at int4", with([](const BitsPlan& own) { return own.int4; }), percent);
    lines.add("error at fp8 e4m3", with([](const BitsPlan& own) { return own.float8_e4m3; }), percent);
    lines.add("error at fp8 e5m2", with([](const BitsPlan& own) { return own.float8_e5m2; }), percent);
    if (!plan.choices.empty())
        lines.add("fewest bytes of keys and values", with([](const BitsPlan& own) {
                      return own.fewest ? own.choices[*own.fewest].bytes
                                        : std::numeric_limits<double>::quiet_NaN();
                  }));
    text += lines.text();
    text += held_out(
        plan, [](const PlacedPlan& head) { return &head.bits->confirmation; },
        fmt::format("promised share {}", percent(question.budget_share())));
    text += formats_text(plan);
    return text;
}

} // namespace plan_text
} // namespace detail

/// The plans as tables: for each question the least, the median and the most of every figure over the heads and where
/// they are, what serves all heads, and how often the plan of the first half of the rows holds on the second.
/// Special rows. Heads without a row of two visible keys and finite logits are counted and left out; "" without rows.
/// Cost. O(heads log heads) for each line.
inline std::string to_table(const HeadPlans& plan) {
    using namespace detail::plan_text;
    const PlanQuestion& question = plan.question;
    Index rows = 0, empty = 0;
    for (const PlacedPlan& head : plan.heads) rows += head.rows, empty += head.rows == 0 ? 1 : 0;
    std::string text;
    if (empty > 0) text += fmt::format("{} heads have no row of two visible keys and finite logits\n", empty);
    if (rows == 0) return text;
    int measured = 0, unsure = 0;
    for (const PlacedPlan& head : plan.heads) {
        if (head.rows == 0 || std::isinf(head.growth.standard_error)) continue;
        ++measured;
        unsure += std::abs(head.growth.exponent) < 2 * head.growth.standard_error ? 1 : 0;
    }
    if (question.weight || question.entropy || question.participation) {
        text += fmt::format(
            "\nAssumption at {} keys: the further keys are like those that a row has, its best "
            "key stays the best, and\n"
            "the mean of e^-gap over the others goes like n^c (c < 0: the best key's lead grows){}.\n",
            whole(question.length),
            question.growth ? fmt::format(", c = {} as given", *question.growth)
            : measured == 0 ? std::string(",\nc = 0: too few rows of 8 keys or more to tell")
                            : std::string(",\nwith the c that the head's own rows show"));
        Lines lines(plan.heads);
        const auto if_measured = [](const PlacedPlan& head, double x) {
            return std::isinf(head.growth.standard_error) ? std::numeric_limits<double>::quiet_NaN() : x;
        };
        lines.add("c, observed",
                  [&](const PlacedPlan& head) { return if_measured(head, head.growth.exponent); });
        lines.add("  its standard error (rows of 8 keys or more)",
                  [&](const PlacedPlan& head) { return if_measured(head, head.growth.standard_error); });
        lines.add("weight of the best key now, mean", [](const PlacedPlan& head) { return head.mean_weight; });
        lines.add("keys of a row now, mean", [](const PlacedPlan& head) { return head.mean_keys; });
        text += lines.text();
        if (unsure > 0 && !question.growth)
            text += fmt::format(
                "  c lies within two standard errors of 0 in {} of {} heads: trust the safe side there\n",
                unsure, measured);
    }
    if (question.weight)
        text += aim_text(
            plan, Aim::weight,
            fmt::format("Weight {} on the best key at {} keys", *question.weight, whole(question.length)));
    if (question.entropy)
        text += aim_text(plan, Aim::entropy,
                         fmt::format("Entropy {} at {} keys",
                                     question.entropy_nats ? fmt::format("{} nats", *question.entropy_nats)
                                                           : std::string("as now (each head's mean)"),
                                     whole(question.length)));
    if (question.participation)
        text += aim_text(plan, Aim::participation,
                         fmt::format("Participation ratio {} at {} keys",
                                     question.participation_keys
                                         ? fmt::format("{} keys", *question.participation_keys)
                                         : std::string("as now (each head's mean)"),
                                     whole(question.length)));
    if (question.output_error)
        text += budget_text(
            plan, &PlacedPlan::output,
            fmt::format("Keys to keep so that the output moves by at most {}", percent(*question.output_error)),
            true);
    if (question.mass)
        text += budget_text(plan, &PlacedPlan::mass,
                            fmt::format("Keys to keep so that {} of the mass stays", percent(*question.mass)),
                            false);
    if (question.bits) text += bits_text(plan);
    return text;
}

} // namespace v0_2
} // namespace attnscope

/// The text of `to_table`.
template <>
struct fmt::formatter<attnscope::HeadPlans> : fmt::formatter<fmt::string_view> {
    template <class Context>
    auto format(const attnscope::HeadPlans& plans, Context& context) const {
        return fmt::formatter<fmt::string_view>::format(to_table(plans), context);
    }
};
