// What one head needs: the planner's answers from its measured rows, each confirmed by applying it.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/planner/cache_bits.hpp>
#include <attnscope/planner/length.hpp>
#include <attnscope/planner/share.hpp>
#include <attnscope/planner/temperature.hpp>

#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// What is asked. A question that is not set is not answered.
struct PlanQuestion {
    double length = 131072; ///< of the context to plan for, keys
    std::optional<double> share =
        {}; ///< of the rows to serve; 0.5 for weight, entropy, participation, else 0.99
    std::optional<double> growth =
        {}; ///< exponent of the background; unless given, that of the head's own rows
    std::optional<double> weight = {};
    bool entropy = false, participation = false;
    std::optional<double> entropy_nats = {},
                          participation_keys = {}; ///< unless given, the mean of the head's own rows
    std::optional<double> output_error = {};       ///< relative, of a top-k or top-p selection
    std::optional<double> mass = {};               ///< retained by a top-k selection
    bool bits = false;                             ///< of the key cache
    double bits_error = 0.01;                      ///< relative output error that it may cause
    CacheScale scale = CacheScale::channel;
    Index rows = 64; ///< of each head, evenly spaced over the queries
    /// Formats of keys and of values that `bits` tries in every pair; none unless given.
    std::vector<CacheFormat> key_formats = {}, value_formats = {};

    double aim_share() const { return share.value_or(0.5); }
    double budget_share() const { return share.value_or(0.99); }
};

/// A head to plan for.
struct PlanInput {
    Index queries = 0, keys = 0;
    /// Writes a query's row of logits, [keys], -inf where masked; empty: they are those of q, k and the mask. Only
    /// the rows that are planned for are asked for if `finite`, else all of them, some of them several times.
    std::function<void(Index query, std::span<double> z)> logits;
    bool finite = false;                  ///< every logit that the mask leaves visible is known to be finite
    std::optional<Matrix<double>> values; ///< [keys, d_v]
    std::optional<Matrix<double>> q, k;   ///< for logits, and for the bits of the cache, with `scale`
    double scale = 1;
    Mask mask;

    /// A query's row of logits.
    void row(Index query, std::span<double> z) const {
        if (logits)
            logits(query, z);
        else
            logits_of<double>(HeadView<double>(*q, *k, {}, scale), mask, query, z);
    }
};

/// How often the plan does what it says: on the rows that it was made from, and, made from the first half of
/// the queries, on the second half.
struct PlanConfirmation {
    double applied = 0;  ///< figure after applying the answer
    double held_out = 0; ///< the same for the plan of the first half on the rows of the second
    bool has_held_out = false;
    bool held = false; ///< did the held-out figure keep the promise?
};

/// Temperature (or SSMax scale) for an aim at the planned length.
struct AimPlan {
    Aim aim = Aim::weight;
    double value = 0;               ///< of the aim
    double inverse_temperature = 0; ///< that serves the share; +inf: none does
    double ssmax = 0;               ///< s of softmax(s log n z) with that value at the planned length
    Index unreachable = 0;          ///< rows that no temperature serves
    double best = 0;                ///< what those come to, the median
    std::vector<double> needs;      ///< inverse temperature of each row
    /// Weight: share of the rows that reach it. Else: the median of the figure.
    PlanConfirmation confirmation;
};

/// How long a context the head bears at its own temperature.
struct LengthPlan {
    double share_now = 0;         ///< of the rows that give the weight at their own length
    LengthLimits limits;          ///< that the share of the rows reaches
    std::vector<double> expected; ///< of each row
};

/// How many keys a selection needs.
struct BudgetPlan {
    double tolerance = 0;
    Index measured = 0, certified = 0; ///< top-k; 0 for mass: no certificate is needed
    double top_p = 1;
    std::vector<double> needs;                  ///< k of each row
    PlanConfirmation top_k, top_p_confirmation; ///< share of the rows within the tolerance
};

/// How many bits of the key cache.
struct BitsPlan {
    CacheBits bits;
    double argmax_kept = 0; ///< share of rows, at the measured bits
    double int8 = 0, int4 = 0, float8_e4m3 = 0,
           float8_e5m2 = 0;        ///< relative output error of the share of the rows
    PlanConfirmation confirmation; ///< share of the rows within the tolerance
    /// Every pair of the formats asked about, and the one of the fewest bytes that serves the share of the rows, by its
    /// error and by its certificate; empty if none does.
    std::vector<CacheChoice> choices;
    std::optional<std::size_t> fewest, fewest_certified;
    PlanConfirmation fewest_confirmation; ///< of `fewest`: share of the rows within the tolerance
    std::vector<OutlierChannel> key_outliers,
        value_outliers; ///< channels that stand out, by `outlier_channels`
};

/// What `plan_head` answers.
struct HeadPlan {
    Index rows = 0; ///< that were used
    double mean_keys = 0, mean_weight = 0, mean_entropy = 0;
    BackgroundGrowth growth;
    std::optional<LengthPlan> length;
    std::vector<AimPlan> aims;
    std::optional<AimPlan> steady; ///< weight, if gaps do not grow: the safe side
    std::optional<BudgetPlan> output, mass;
    std::optional<BitsPlan> bits;
};

/// One number for all rows of all heads: the inverse temperature, or the top-k budget, that serves the share
/// of them. Errors as of `need_for_share`.
inline double pooled_need(const std::vector<const std::vector<double>*>& needs, double share) {
    std::vector<double> all;
    for (const auto* part : needs) all.insert(all.end(), part->begin(), part->end());
    return need_for_share(std::move(all), share);
}

} // namespace v0_2
} // namespace attnscope
