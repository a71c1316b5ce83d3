// Plans one head: selects rows, asks the planner, and tries each answer on rows that it was not made from.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/planner/budget.hpp>
#include <attnscope/planner/growth.hpp>
#include <attnscope/planner/head_plan.hpp>
#include <attnscope/selection/top_n.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// |x_i| of the longest row; infinity if one of them is not finite.
inline double longest_row(const Matrix<double>& x) {
    double largest = 0;
    for (Index i = 0; i < x.rows(); ++i) {
        const double norm = x.row(i).stableNorm();
        if (!std::isfinite(norm)) return std::numeric_limits<double>::infinity();
        largest = std::max(largest, norm);
    }
    return largest;
}

inline double median_of(std::vector<double> values) { return need_for_share(std::move(values), 0.5); }

/// The rows of a head that are planned for: their visible logits, and what softmax makes of them.
struct PlannedRows {
    std::vector<Index> queries;
    std::vector<std::vector<double>> logits; ///< visible ones
    std::vector<std::vector<Index>> keys;
    std::vector<RowStatistics<double>> statistics;

    std::size_t size() const { return queries.size(); }
};

/// At most `most` rows of the queries from begin to end that are normal and see two keys, evenly spaced.
inline PlannedRows planned_rows(const PlanInput& head, Index begin, Index end, Index most) {
    std::vector<Index> usable, keys;
    std::vector<double> whole(static_cast<std::size_t>(head.keys)), z;
    const auto read_row = [&](Index query) {
        z.clear();
        keys.clear();
        head.row(query, whole);
        for (Index key = 0; key < head.keys; ++key) {
            const double logit = detail::at(whole, key);
            if (logit == -std::numeric_limits<double>::infinity()) continue;
            z.push_back(logit);
            keys.push_back(key);
        }
        return row_statistics<double>(RowIn<double>(z));
    };
    for (Index query = begin; query < end; ++query) {
        bool normal = head.mask.visible(query, head.keys).count() >= 2;
        if (normal && !head.finite) {
            const auto row = read_row(query);
            normal = row.normal() && row.visible >= 2;
        }
        if (normal) usable.push_back(query);
    }
    const Index available = static_cast<Index>(usable.size()), count = std::min(most, available);
    PlannedRows rows;
    for (Index i = 0; i < count; ++i) {
        const Index query = detail::at(usable, available * (i + 1) / count - 1);
        rows.statistics.push_back(read_row(query));
        rows.queries.push_back(query);
        rows.logits.push_back(z);
        rows.keys.push_back(keys);
    }
    return rows;
}

/// A row of `length` keys by the assumption of planner/growth.hpp, key by key: what an answer is tried on.
inline std::vector<float> grown_row(const std::vector<double>& z, const RowStatistics<double>& row,
                                    double exponent, double length) {
    const auto growth = row_growth(row, length, exponent);
    const std::size_t total = static_cast<std::size_t>(std::llround(length)), others = z.size() - 1;
    std::vector<float> grown;
    grown.reserve(total);
    grown.push_back(0);
    const auto gap = [&](std::size_t i) { return static_cast<float>(z[i] - row.max_logit - growth.shift); };
    const auto top = static_cast<std::size_t>(row.argmax);
    std::vector<float> gaps;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top) gaps.push_back(gap(i));
    // A shorter or a longer row: every so manieth other key, in the order of their logits.
    std::sort(gaps.begin(), gaps.end());
    for (std::size_t i = 0; i + 1 < total; ++i)
        grown.push_back(gaps[static_cast<std::size_t>(
            (static_cast<double>(i) + 0.5) / static_cast<double>(total - 1) * static_cast<double>(others))]);
    return grown;
}

inline double figure_of(Aim aim, const RowStatistics<double>& row) {
    return aim == Aim::weight    ? row.max_weight()
           : aim == Aim::entropy ? row.entropy_nats()
                                 : row.participation_ratio();
}

inline BackgroundGrowth growth_of(const PlannedRows& rows) {
    return background_growth(std::span<const RowStatistics<double>>(rows.statistics));
}

/// Of the background: as asked, or as the rows show it.
inline double exponent_of(const PlannedRows& rows, const PlanQuestion& question) {
    return question.growth ? *question.growth : growth_of(rows).exponent;
}

struct AimNeeds {
    std::vector<double> needs, best;
};

inline AimNeeds aim_needs(const PlannedRows& rows, double length, double exponent, Aim aim, double value) {
    AimNeeds result;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto& row = rows.statistics[i];
        const auto growth = row_growth(row, length, exponent);
        const auto answer = planned_temperature<double>(RowIn<double>(rows.logits[i]), growth, aim, value);
        // More entropy than there is: equal weights come nearest. Weight that ties take away: nothing does.
        result.needs.push_back(answer.inverse_temperature);
        if (!answer.reachable) result.best.push_back(answer.best);
    }
    return result;
}

/// Softmax at an inverse temperature on rows as they are.
inline double apply_to_rows(const PlannedRows& rows, Aim aim, double value, double beta) {
    std::vector<double> figures;
    if (!(beta > 0 && beta < std::numeric_limits<double>::infinity()))
        return std::numeric_limits<double>::quiet_NaN();
    for (const auto& z : rows.logits)
        figures.push_back(figure_of(aim, row_statistics<double>(RowIn<double>(z), 1 / beta)));
    return aim == Aim::weight ? share_of(figures, [&](double x) { return x >= value; }) : median_of(figures);
}

/// The same on rows that have grown to a length.
inline double apply_to_grown(const PlannedRows& rows, double length, double exponent, Aim aim, double value,
                             double beta) {
    std::vector<double> figures;
    if (!(beta > 0 && beta < std::numeric_limits<double>::infinity()))
        return std::numeric_limits<double>::quiet_NaN();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::vector<float> z = grown_row(rows.logits[i], rows.statistics[i], exponent, length);
        figures.push_back(figure_of(aim, row_statistics<float>(RowIn<float>(z), 1 / beta)));
    }
    return aim == Aim::weight ? share_of(figures, [&](double x) { return x >= value; }) : median_of(figures);
}

/// An answer that people can type: four digits. For a weight rounded up, so that it still gives it.
inline double typed(double beta, Aim aim) {
    if (!(beta > 0 && beta < std::numeric_limits<double>::infinity())) return beta;
    const double unit = std::pow(10.0, std::floor(std::log10(beta)) - 3);
    return unit * (aim == Aim::weight ? std::ceil(beta / unit) : std::round(beta / unit));
}

/// steady: gaps do not grow (exponent >= 0), which is the safe side.
inline AimPlan plan_aim(const PlannedRows& all, const PlannedRows& first, const PlannedRows& second,
                        const PlanQuestion& question, Aim aim, double value, bool steady = false) {
    AimPlan plan;
    plan.aim = aim;
    plan.value = value;
    const auto exponent_for = [&](const PlannedRows& rows) {
        const double exponent = exponent_of(rows, question);
        return steady ? std::max(exponent, 0.0) : exponent;
    };
    const double share = question.aim_share(), exponent = exponent_for(all);
    AimNeeds needs = aim_needs(all, question.length, exponent, aim, value);
    plan.inverse_temperature = typed(need_for_share(needs.needs, share), aim);
    plan.ssmax = plan.inverse_temperature / std::log(question.length);
    plan.unreachable = static_cast<Index>(needs.best.size());
    plan.best = needs.best.empty() ? std::numeric_limits<double>::quiet_NaN() : median_of(needs.best);
    plan.needs = std::move(needs.needs);
    plan.confirmation.applied =
        apply_to_grown(all, question.length, exponent, aim, value, plan.inverse_temperature);
    if (first.size() < 2 || second.size() < 2) return plan;
    // The length to plan for is one that the second half has: its longest for a weight, which all shorter ones
    // then keep, its mean for the others.
    double longest = 0, mean = 0;
    for (const auto& row : second.statistics) {
        longest = std::max(longest, static_cast<double>(row.visible));
        mean += static_cast<double>(row.visible) / static_cast<double>(second.size());
    }
    const double length = aim == Aim::weight ? longest : mean;
    const double beta = need_for_share(aim_needs(first, length, exponent_for(first), aim, value).needs, share);
    if (!(beta > 0 && beta < std::numeric_limits<double>::infinity())) return plan; // nothing is promised
    plan.confirmation.has_held_out = true;
    plan.confirmation.held_out = apply_to_rows(second, aim, value, beta);
    plan.confirmation.held = aim == Aim::weight
                                 ? plan.confirmation.held_out >= share
                                 : std::abs(plan.confirmation.held_out - value) <= 0.1 * std::max(value, 1.0);
    return plan;
}

/// Weights and values of the keys of one row.
struct WeightedRow {
    std::vector<double> p;
    Matrix<double> x;
    Ranking<double> ranking;

    WeightedRow(const PlannedRows& rows, std::size_t i, const Matrix<double>* values)
        : p(rows.logits[i].size()) {
        Softmax{}.apply<double>(RowIn<double>(rows.logits[i]), RowOut<double>(p));
        ranking.rank(RowIn<double>(p));
        if (!values) return;
        x.resize(static_cast<Index>(p.size()), values->cols());
        for (std::size_t j = 0; j < p.size(); ++j) x.row(static_cast<Index>(j)) = values->row(rows.keys[i][j]);
    }
};

/// Errors of a normaliser's output against softmax's, relative; of its lacking mass where there are no values
/// to look at.
template <class N>
double share_within(const PlannedRows& rows, const PlanInput& head, const N& normalizer, double tolerance,
                    bool output) {
    std::vector<double> errors;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const WeightedRow row(rows, i, output ? &*head.values : nullptr);
        std::vector<double> kept(row.p.size());
        normalizer.template apply<double>(RowIn<double>(rows.logits[i]), RowOut<double>(kept));
        const Eigen::Map<const Eigen::RowVectorXd> p(row.p.data(), static_cast<Index>(row.p.size())),
            q(kept.data(), static_cast<Index>(kept.size()));
        if (output) {
            const Eigen::RowVectorXd o = p * row.x;
            const double change = ((q - p) * row.x).norm();
            errors.push_back(change == 0 ? 0 : change / o.norm());
        } else {
            double lost = 0;
            for (std::size_t j = 0; j < kept.size(); ++j) lost += kept[j] > 0 ? 0 : row.p[j];
            errors.push_back(lost);
        }
    }
    return share_of(errors, [&](double x) { return x <= tolerance; });
}

struct Budgets {
    std::vector<double> measured, certified, shares;
};

inline Budgets budgets_of(const PlannedRows& rows, const PlanInput& head, const Row<double>& diameters,
                          double tolerance, bool output) {
    Budgets budgets;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const WeightedRow row(rows, i, output ? &*head.values : nullptr);
        const auto budget =
            output ? output_budget<double>(RowIn<double>(row.p), MatrixView<double>(row.x), row.ranking.order(),
                                           diameters[rows.queries[i]], tolerance)
                   : mass_budget<double>(RowIn<double>(row.p), row.ranking.order(), 1 - tolerance);
        budgets.measured.push_back(static_cast<double>(budget.measured));
        budgets.certified.push_back(static_cast<double>(budget.certified));
        budgets.shares.push_back(budget.share);
    }
    return budgets;
}

inline BudgetPlan plan_budget(const PlannedRows& all, const PlannedRows& first, const PlannedRows& second,
                              const PlanInput& head, const Row<double>& diameters, double share,
                              double tolerance, bool output) {
    BudgetPlan plan;
    plan.tolerance = tolerance;
    Budgets budgets = budgets_of(all, head, diameters, tolerance, output);
    const auto k_of = [&](const std::vector<double>& needs) {
        return static_cast<Index>(need_for_share(needs, share));
    };
    const auto p_of = [&](const std::vector<double>& needs) { return need_for_share(needs, share); };
    plan.measured = k_of(budgets.measured);
    plan.certified = k_of(budgets.certified);
    plan.top_p = p_of(budgets.shares);
    const auto try_k = [&](const PlannedRows& rows, Index k) {
        return share_within(rows, head, Softmax() | top_k(k), tolerance, output);
    };
    const auto try_p = [&](const PlannedRows& rows, double p) {
        return share_within(rows, head, Softmax() | top_p(p), tolerance, output);
    };
    plan.top_k.applied = try_k(all, plan.measured);
    plan.top_p_confirmation.applied = try_p(all, plan.top_p);
    plan.needs = std::move(budgets.measured);
    if (first.size() < 2 || second.size() < 2) return plan;
    const Budgets early = budgets_of(first, head, diameters, tolerance, output);
    for (auto [confirmation, found] :
         {std::pair(&plan.top_k, try_k(second, k_of(early.measured))),
          std::pair(&plan.top_p_confirmation, try_p(second, p_of(early.shares)))}) {
        confirmation->has_held_out = true;
        confirmation->held_out = found;
        confirmation->held = found >= share;
    }
    return plan;
}

/// What storing keys does to some rows of a head.
class CacheTrial {
public:
    /// tried: all rows that will be asked about.
    CacheTrial(const PlanInput& head, const Row<double>& diameters,
               std::initializer_list<const PlannedRows*> tried)
        : head_(*head.q, *head.k, *head.values, head.scale), mask_(head.mask), diameters_(diameters),
          outputs_(Matrix<double>::Constant(head_.queries(), head_.v().cols(),
                                            std::numeric_limits<double>::quiet_NaN())) {
        for (const PlannedRows* rows : tried)
            for (std::size_t i = 0; i < rows->size(); ++i) {
                const WeightedRow row(*rows, i, &*head.values);
                outputs_.row(rows->queries[i]) =
                    Eigen::Map<const Eigen::RowVectorXd>(row.p.data(), row.x.rows()) * row.x;
            }
    }

    CacheFigures figures(const PlannedRows& rows, const CacheFormat& format) const {
        return cache_figures<double>(head_, format, mask_, diameters(), MatrixView<double>(outputs_),
                                     rows.queries);
    }
    CacheBits fewest(const PlannedRows& rows, CacheScale scale, double tolerance, double share) const {
        return fewest_cache_bits<double>(head_, scale, mask_, diameters(), MatrixView<double>(outputs_),
                                         tolerance, share, rows.queries);
    }

    std::vector<CacheChoice> choices(const PlannedRows& rows, const PlanQuestion& question) const {
        return try_choices<double>(head_, mask_, diameters_, question.key_formats, question.value_formats,
                                   rows.queries);
    }

private:
    std::span<const double> diameters() const {
        return {diameters_.data(), static_cast<std::size_t>(diameters_.size())};
    }
    HeadView<double> head_;
    Mask mask_;
    Row<double> diameters_;
    Matrix<double> outputs_;
};

/// The pair of the fewest bytes on the rows that it was made from, and that of the first half on the rows of the second.
inline PlanConfirmation confirm_choice(const CacheTrial& trial, const BitsPlan& plan, const PlannedRows& first,
                                       const PlannedRows& second, const PlanQuestion& question) {
    PlanConfirmation confirmation;
    const double share = question.budget_share(), tolerance = question.bits_error;
    const auto within = [&](const CacheChoice& choice) {
        return share_of(choice.error, [&](double x) { return x <= tolerance; });
    };
    confirmation.applied = plan.fewest ? within(plan.choices[*plan.fewest]) : 0;
    if (first.size() < 2 || second.size() < 2) return confirmation;
    const auto early = fewest_cache_bytes(trial.choices(first, question), tolerance, share);
    if (!early) return confirmation; // nothing is promised
    confirmation.has_held_out = true;
    confirmation.held_out = within(trial.choices(second, question)[*early]);
    confirmation.held = confirmation.held_out >= share;
    return confirmation;
}

inline BitsPlan plan_bits(const PlannedRows& all, const PlannedRows& first, const PlannedRows& second,
                          const PlanInput& head, const Row<double>& diameters, const PlanQuestion& question) {
    const CacheTrial trial(head, diameters, {&all, &first, &second});
    const double share = question.budget_share(), tolerance = question.bits_error;
    const auto within = [&](const CacheFigures& figures) {
        return share_of(figures.error, [&](double x) { return x <= tolerance; });
    };
    BitsPlan plan;
    plan.key_outliers = outlier_channels(*head.k);
    plan.value_outliers = outlier_channels(*head.values);
    plan.bits = trial.fewest(all, question.scale, tolerance, share);
    const auto error_of = [&](CacheNumber number, int bits) {
        return need_for_share(trial.figures(all, {number, bits, question.scale}).error, share);
    };
    plan.int8 = error_of(CacheNumber::integer, 8);
    plan.int4 = error_of(CacheNumber::integer, 4);
    plan.float8_e4m3 = error_of(CacheNumber::float8_e4m3, 8);
    plan.float8_e5m2 = error_of(CacheNumber::float8_e5m2, 8);
    const int tried = std::min(plan.bits.measured, 16);
    const auto figures = trial.figures(all, {CacheNumber::integer, tried, question.scale});
    plan.confirmation.applied = within(figures);
    plan.argmax_kept = figures.argmax_kept;
    if (!question.key_formats.empty() && !question.value_formats.empty()) {
        plan.choices = trial.choices(all, question);
        plan.fewest = fewest_cache_bytes(plan.choices, tolerance, share);
        plan.fewest_certified = fewest_cache_bytes(plan.choices, tolerance, share, true);
        plan.fewest_confirmation = confirm_choice(trial, plan, first, second, question);
    }
    if (first.size() < 2 || second.size() < 2) return plan;
    const CacheBits early = trial.fewest(first, question.scale, tolerance, share);
    if (early.measured > 16) return plan; // nothing is promised
    plan.confirmation.has_held_out = true;
    plan.confirmation.held_out =
        within(trial.figures(second, {CacheNumber::integer, early.measured, question.scale}));
    plan.confirmation.held = plan.confirmation.held_out >= share;
    return plan;
}

inline LengthPlan plan_length(const PlannedRows& rows, const PlanQuestion& question) {
    LengthPlan plan;
    const double exponent = exponent_of(rows, question), tau = *question.weight;
    std::vector<double> guaranteed, possible, now;
    for (const auto& row : rows.statistics) {
        const auto limits = length_limits(row, tau, exponent);
        guaranteed.push_back(limits.guaranteed);
        plan.expected.push_back(limits.expected);
        possible.push_back(limits.possible);
        now.push_back(row.max_weight());
    }
    const double share = question.aim_share();
    plan.limits = {reach_for_share(guaranteed, share), reach_for_share(plan.expected, share),
                   reach_for_share(possible, share)};
    plan.share_now = share_of(now, [&](double x) { return x >= tau; });
    return plan;
}

} // namespace detail

/// Answers the question for one head, from logits of any source.
/// Special rows. Rows that see fewer than two keys or are not normal have no part; a head without other rows
/// has empty answers (rows = 0).
/// Cost. O(rows of the question (keys log keys + keys d)) for each answer; bits try every format on these
/// rows.
/// Throws. `invalid_argument` for a question about the output without values, about bits without q, k and
/// values, or about formats that do not fit the channels of keys or values.
inline HeadPlan plan_head(const PlanInput& head, const PlanQuestion& question) {
    detail::require(!question.output_error || head.values, "plan_head",
                    "a question about the output needs values");
    detail::require(!question.bits || (head.q && head.k && head.values), "plan_head",
                    "a question about bits of the key cache needs q, k and values");
    const Index queries = head.queries, half = queries / 2;
    const detail::PlannedRows all = detail::planned_rows(head, 0, queries, question.rows),
                              first = detail::planned_rows(head, 0, half, question.rows),
                              second = detail::planned_rows(head, half, queries, question.rows);
    HeadPlan plan;
    plan.rows = static_cast<Index>(all.size());
    if (plan.rows == 0) return plan;
    const double count = static_cast<double>(plan.rows);
    double participation = 0;
    for (const auto& row : all.statistics) {
        plan.mean_keys += static_cast<double>(row.visible) / count;
        plan.mean_weight += row.max_weight() / count;
        plan.mean_entropy += row.entropy_nats() / count;
        participation += row.participation_ratio() / count;
    }
    plan.growth = detail::growth_of(all);
    if (question.weight) {
        plan.length = detail::plan_length(all, question);
        plan.aims.push_back(detail::plan_aim(all, first, second, question, Aim::weight, *question.weight));
        plan.steady = detail::plan_aim(all, first, second, question, Aim::weight, *question.weight, true);
    }
    if (question.entropy)
        plan.aims.push_back(detail::plan_aim(all, first, second, question, Aim::entropy,
                                             question.entropy_nats.value_or(plan.mean_entropy)));
    if (question.participation)
        plan.aims.push_back(detail::plan_aim(all, first, second, question, Aim::participation,
                                             question.participation_keys.value_or(participation)));
    Row<double> diameters;
    if (head.values && (question.output_error || question.bits))
        diameters = visible_diameters(MatrixView<double>(*head.values), head.mask, queries);
    if (question.output_error)
        plan.output = detail::plan_budget(all, first, second, head, diameters, question.budget_share(),
                                          *question.output_error, true);
    if (question.mass)
        plan.mass = detail::plan_budget(all, first, second, head, diameters, question.budget_share(),
                                        1 - *question.mass, false);
    if (question.bits) plan.bits = detail::plan_bits(all, first, second, head, diameters, question);
    return plan;
}

/// A head of q [queries, d] and k [keys, d] to plan for, without values. scale: 1/sqrt(d) unless given.
/// Cost. Copies of q and k in double.
/// Throws. `invalid_argument` when shapes do not fit.
template <MatrixExpr Q, MatrixExpr K>
PlanInput plan_input(const Q& q, const K& k, const Mask& mask = {}, std::optional<double> scale = {}) {
    PlanInput head;
    head.q = detail::row_major_copy<double>(q);
    head.k = detail::row_major_copy<double>(k);
    head.scale =
        HeadView<double>(*head.q, *head.k, {}, scale.value_or(HeadView<double>::default_scale(q.cols())))
            .scale();
    head.queries = q.rows();
    head.keys = k.rows();
    head.mask = mask;
    const double longest = std::abs(head.scale) * detail::longest_row(*head.q) * detail::longest_row(*head.k);
    head.finite = longest <= std::numeric_limits<double>::max() / 2;
    return head;
}

/// Plans a head of q, k and values v [keys, d_v] under softmax.
/// Throws. `invalid_argument` also when shapes do not fit.
/// Example: `plan_head(q, k, v, {.weight = 0.5}, Mask::causal()).aims.front().inverse_temperature`
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
HeadPlan plan_head(const Q& q, const K& k, const V& v, const PlanQuestion& question, const Mask& mask = {},
                   std::optional<double> scale = {}) {
    detail::require(v.rows() == k.rows(), "plan_head", "k and v must have the same number of rows", k.rows(),
                    v.rows());
    PlanInput head = plan_input(q, k, mask, scale);
    head.values = detail::row_major_copy<double>(v);
    return plan_head(head, question);
}

} // namespace v0_2
} // namespace attnscope
