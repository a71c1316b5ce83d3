#include <support/head_plan.hpp>

#include <attnscope/attnscope.hpp>

namespace plan {
namespace {

using attnscope::Aim;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::RowIn;
using attnscope::RowOut;
using attnscope::RowStatistics;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

double median(std::vector<double> values) { return attnscope::need_for_share(std::move(values), 0.5); }

/// The rows of a head that are planned for: their visible logits, and what softmax makes of them.
struct Rows {
    std::vector<Index> queries;
    std::vector<std::vector<double>> logits; ///< visible ones
    std::vector<std::vector<Index>> keys;
    std::vector<RowStatistics<double>> statistics;

    std::size_t size() const { return queries.size(); }
};

/// At most `most` rows of the queries from begin to end that are normal and see two keys, evenly spaced.
Rows select_rows(const HeadInput& head, Index begin, Index end, Index most) {
    std::vector<Index> usable, keys;
    std::vector<double> whole(static_cast<std::size_t>(head.keys)), z;
    const auto read_row = [&](Index query) {
        z.clear();
        keys.clear();
        head.logits(query, whole);
        for (Index key = 0; key < head.keys; ++key) {
            const double logit = whole[static_cast<std::size_t>(key)];
            if (logit == -infinity) continue;
            z.push_back(logit);
            keys.push_back(key);
        }
        return attnscope::row_statistics<double>(RowIn<double>(z));
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
    Rows rows;
    for (Index i = 0; i < count; ++i) {
        const Index query = usable[static_cast<std::size_t>(available * (i + 1) / count - 1)];
        rows.statistics.push_back(read_row(query));
        rows.queries.push_back(query);
        rows.logits.push_back(z);
        rows.keys.push_back(keys);
    }
    return rows;
}

/// A row of `length` keys by the assumption of planner/growth.hpp, key by key: what an answer is tried on.
std::vector<float> grow(const std::vector<double>& z, const RowStatistics<double>& row, double exponent,
                        double length) {
    const auto growth = attnscope::row_growth(row, length, exponent);
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

double figure_of(Aim aim, const RowStatistics<double>& row) {
    return aim == Aim::weight    ? row.max_weight()
           : aim == Aim::entropy ? row.entropy_nats()
                                 : row.participation_ratio();
}

attnscope::BackgroundGrowth growth_of(const Rows& rows) {
    return attnscope::background_growth(std::span<const RowStatistics<double>>(rows.statistics));
}

/// Of the background: as asked, or as the rows show it.
double exponent_of(const Rows& rows, const Question& question) {
    return question.growth ? *question.growth : growth_of(rows).exponent;
}

struct AimNeeds {
    std::vector<double> needs, best;
};

AimNeeds aim_needs(const Rows& rows, double length, double exponent, Aim aim, double value) {
    AimNeeds result;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto& row = rows.statistics[i];
        const auto growth = attnscope::row_growth(row, length, exponent);
        const auto answer =
            attnscope::planned_temperature<double>(RowIn<double>(rows.logits[i]), growth, aim, value);
        // More entropy than there is: equal weights come nearest. Weight that ties take away: nothing does.
        result.needs.push_back(answer.inverse_temperature);
        if (!answer.reachable) result.best.push_back(answer.best);
    }
    return result;
}

/// Softmax at an inverse temperature on rows as they are.
double apply_to_rows(const Rows& rows, Aim aim, double value, double beta) {
    std::vector<double> figures;
    if (!(beta > 0 && beta < infinity)) return not_known;
    for (const auto& z : rows.logits)
        figures.push_back(figure_of(aim, attnscope::row_statistics<double>(RowIn<double>(z), 1 / beta)));
    return aim == Aim::weight ? attnscope::share_of(figures, [&](double x) { return x >= value; })
                              : median(figures);
}

/// The same on rows that have grown to a length.
double apply_to_grown(const Rows& rows, double length, double exponent, Aim aim, double value, double beta) {
    std::vector<double> figures;
    if (!(beta > 0 && beta < infinity)) return not_known;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::vector<float> z = grow(rows.logits[i], rows.statistics[i], exponent, length);
        figures.push_back(figure_of(aim, attnscope::row_statistics<float>(RowIn<float>(z), 1 / beta)));
    }
    return aim == Aim::weight ? attnscope::share_of(figures, [&](double x) { return x >= value; })
                              : median(figures);
}

/// An answer that people can type: four digits. For a weight rounded up, so that it still gives it.
double typed(double beta, Aim aim) {
    if (!(beta > 0 && beta < infinity)) return beta;
    const double unit = std::pow(10.0, std::floor(std::log10(beta)) - 3);
    return unit * (aim == Aim::weight ? std::ceil(beta / unit) : std::round(beta / unit));
}

/// steady: gaps do not grow (exponent >= 0), which is the safe side.
AimPlan plan_aim(const Rows& all, const Rows& first, const Rows& second, const Question& question, Aim aim,
                 double value, bool steady = false) {
    AimPlan plan;
    plan.aim = aim;
    plan.value = value;
    const auto exponent_for = [&](const Rows& rows) {
        const double exponent = exponent_of(rows, question);
        return steady ? std::max(exponent, 0.0) : exponent;
    };
    const double share = question.aim_share(), exponent = exponent_for(all);
    AimNeeds needs = aim_needs(all, question.length, exponent, aim, value);
    plan.inverse_temperature = typed(attnscope::need_for_share(needs.needs, share), aim);
    plan.ssmax = plan.inverse_temperature / std::log(question.length);
    plan.unreachable = static_cast<Index>(needs.best.size());
    plan.best = needs.best.empty() ? not_known : median(needs.best);
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
    const double beta =
        attnscope::need_for_share(aim_needs(first, length, exponent_for(first), aim, value).needs, share);
    if (!(beta > 0 && beta < infinity)) return plan; // nothing is promised
    plan.confirmation.has_held_out = true;
    plan.confirmation.held_out = apply_to_rows(second, aim, value, beta);
    plan.confirmation.held = aim == Aim::weight
                                 ? plan.confirmation.held_out >= share
                                 : std::abs(plan.confirmation.held_out - value) <= 0.1 * std::max(value, 1.0);
    return plan;
}

/// Weights and values of the keys of one row.
struct Weighted {
    std::vector<double> p;
    Matrix<double> x;
    attnscope::Ranking<double> ranking;

    Weighted(const Rows& rows, std::size_t i, const Matrix<double>* values) : p(rows.logits[i].size()) {
        attnscope::Softmax{}.apply<double>(RowIn<double>(rows.logits[i]), RowOut<double>(p));
        ranking.rank(RowIn<double>(p));
        if (!values) return;
        x.resize(static_cast<Index>(p.size()), values->cols());
        for (std::size_t j = 0; j < p.size(); ++j) x.row(static_cast<Index>(j)) = values->row(rows.keys[i][j]);
    }
};

/// Errors of a normaliser's output against softmax's, relative; of its lacking mass where there are no values
/// to look at.
template <class N>
double share_within(const Rows& rows, const HeadInput& head, const N& normalizer, double tolerance,
                    bool output) {
    std::vector<double> errors;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Weighted row(rows, i, output ? &*head.values : nullptr);
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
    return attnscope::share_of(errors, [&](double x) { return x <= tolerance; });
}

struct Budgets {
    std::vector<double> measured, certified, shares;
};

Budgets budgets_of(const Rows& rows, const HeadInput& head, const attnscope::Row<double>& diameters,
                   double tolerance, bool output) {
    Budgets budgets;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Weighted row(rows, i, output ? &*head.values : nullptr);
        const auto budget =
            output
                ? attnscope::output_budget<double>(RowIn<double>(row.p), MatrixView<double>(row.x),
                                                   row.ranking.order(), diameters[rows.queries[i]], tolerance)
                : attnscope::mass_budget<double>(RowIn<double>(row.p), row.ranking.order(), 1 - tolerance);
        budgets.measured.push_back(static_cast<double>(budget.measured));
        budgets.certified.push_back(static_cast<double>(budget.certified));
        budgets.shares.push_back(budget.share);
    }
    return budgets;
}

BudgetPlan plan_budget(const Rows& all, const Rows& first, const Rows& second, const HeadInput& head,
                       const attnscope::Row<double>& diameters, double share, double tolerance, bool output) {
    BudgetPlan plan;
    plan.tolerance = tolerance;
    Budgets budgets = budgets_of(all, head, diameters, tolerance, output);
    const auto k_of = [&](const std::vector<double>& needs) {
        return static_cast<Index>(attnscope::need_for_share(needs, share));
    };
    const auto p_of = [&](const std::vector<double>& needs) { return attnscope::need_for_share(needs, share); };
    plan.measured = k_of(budgets.measured);
    plan.certified = k_of(budgets.certified);
    plan.top_p = p_of(budgets.shares);
    const auto try_k = [&](const Rows& rows, Index k) {
        return share_within(rows, head, attnscope::Softmax() | attnscope::top_k(k), tolerance, output);
    };
    const auto try_p = [&](const Rows& rows, double p) {
        return share_within(rows, head, attnscope::Softmax() | attnscope::top_p(p), tolerance, output);
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
    CacheTrial(const HeadInput& head, const attnscope::Row<double>& diameters,
               std::initializer_list<const Rows*> tried)
        : head_(*head.q, *head.k, *head.values, head.scale), mask_(head.mask), diameters_(diameters),
          outputs_(Matrix<double>::Constant(head_.queries(), head_.v().cols(), not_known)) {
        for (const Rows* rows : tried)
            for (std::size_t i = 0; i < rows->size(); ++i) {
                const Weighted row(*rows, i, &*head.values);
                outputs_.row(rows->queries[i]) =
                    Eigen::Map<const Eigen::RowVectorXd>(row.p.data(), row.x.rows()) * row.x;
            }
    }

    attnscope::CacheFigures figures(const Rows& rows, const attnscope::CacheFormat& format) const {
        return attnscope::cache_figures<double>(head_, format, mask_, diameters(), MatrixView<double>(outputs_),
                                                rows.queries);
    }
    attnscope::CacheBits fewest(const Rows& rows, attnscope::CacheScale scale, double tolerance,
                                double share) const {
        return attnscope::fewest_cache_bits<double>(
            head_, scale, mask_, diameters(), MatrixView<double>(outputs_), tolerance, share, rows.queries);
    }

private:
    std::span<const double> diameters() const {
        return {diameters_.data(), static_cast<std::size_t>(diameters_.size())};
    }
    attnscope::HeadView<double> head_;
    attnscope::Mask mask_;
    attnscope::Row<double> diameters_;
    Matrix<double> outputs_;
};

BitsPlan plan_bits(const Rows& all, const Rows& first, const Rows& second, const HeadInput& head,
                   const attnscope::Row<double>& diameters, const Question& question) {
    using attnscope::CacheNumber;
    const CacheTrial trial(head, diameters, {&all, &first, &second});
    const double share = question.budget_share(), tolerance = question.bits_error;
    const auto within = [&](const attnscope::CacheFigures& figures) {
        return attnscope::share_of(figures.error, [&](double x) { return x <= tolerance; });
    };
    BitsPlan plan;
    plan.bits = trial.fewest(all, question.scale, tolerance, share);
    const auto error_of = [&](CacheNumber number, int bits) {
        return attnscope::need_for_share(trial.figures(all, {number, bits, question.scale}).error, share);
    };
    plan.int8 = error_of(CacheNumber::integer, 8);
    plan.int4 = error_of(CacheNumber::integer, 4);
    plan.float8_e4m3 = error_of(CacheNumber::float8_e4m3, 8);
    plan.float8_e5m2 = error_of(CacheNumber::float8_e5m2, 8);
    const int tried = std::min(plan.bits.measured, 16);
    const auto figures = trial.figures(all, {CacheNumber::integer, tried, question.scale});
    plan.confirmation.applied = within(figures);
    plan.argmax_kept = figures.argmax_kept;
    if (first.size() < 2 || second.size() < 2) return plan;
    const attnscope::CacheBits early = trial.fewest(first, question.scale, tolerance, share);
    if (early.measured > 16) return plan; // nothing is promised
    plan.confirmation.has_held_out = true;
    plan.confirmation.held_out =
        within(trial.figures(second, {CacheNumber::integer, early.measured, question.scale}));
    plan.confirmation.held = plan.confirmation.held_out >= share;
    return plan;
}

LengthPlan plan_length(const Rows& rows, const Question& question) {
    LengthPlan plan;
    const double exponent = exponent_of(rows, question), tau = *question.weight;
    std::vector<double> guaranteed, possible, now;
    for (const auto& row : rows.statistics) {
        const auto limits = attnscope::length_limits(row, tau, exponent);
        guaranteed.push_back(limits.guaranteed);
        plan.expected.push_back(limits.expected);
        possible.push_back(limits.possible);
        now.push_back(row.max_weight());
    }
    const double share = question.aim_share();
    plan.limits = {attnscope::reach_for_share(guaranteed, share),
                   attnscope::reach_for_share(plan.expected, share),
                   attnscope::reach_for_share(possible, share)};
    plan.share_now = attnscope::share_of(now, [&](double x) { return x >= tau; });
    return plan;
}

} // namespace

HeadPlan plan_head(const HeadInput& head, const Question& question) {
    const Index queries = head.queries, half = queries / 2;
    const Rows all = select_rows(head, 0, queries, question.rows),
               first = select_rows(head, 0, half, question.rows),
               second = select_rows(head, half, queries, question.rows);
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
    plan.growth = growth_of(all);
    if (question.weight) {
        plan.length = plan_length(all, question);
        plan.aims.push_back(plan_aim(all, first, second, question, Aim::weight, *question.weight));
        plan.steady = plan_aim(all, first, second, question, Aim::weight, *question.weight, true);
    }
    if (question.entropy)
        plan.aims.push_back(plan_aim(all, first, second, question, Aim::entropy,
                                     question.entropy_nats.value_or(plan.mean_entropy)));
    if (question.participation)
        plan.aims.push_back(plan_aim(all, first, second, question, Aim::participation,
                                     question.participation_keys.value_or(participation)));
    attnscope::Row<double> diameters;
    if (head.values && (question.output_error || question.bits))
        diameters = attnscope::visible_diameters(MatrixView<double>(*head.values), head.mask, queries);
    if (question.output_error)
        plan.output = plan_budget(all, first, second, head, diameters, question.budget_share(),
                                  *question.output_error, true);
    if (question.mass)
        plan.mass = plan_budget(all, first, second, head, diameters, question.budget_share(),
                                1 - *question.mass, false);
    if (question.bits) plan.bits = plan_bits(all, first, second, head, diameters, question);
    return plan;
}

double pooled_need(const std::vector<const std::vector<double>*>& needs, double share) {
    std::vector<double> all;
    for (const auto* part : needs) all.insert(all.end(), part->begin(), part->end());
    return attnscope::need_for_share(std::move(all), share);
}

} // namespace plan
