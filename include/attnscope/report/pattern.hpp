// What a page of many heads keeps of the rows of each: the weights that matter of many rows, all logits of a few.
#pragma once

#include <attnscope/planner/length.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace pattern {

/// `count` of the entries, evenly spaced, the last among them.
inline std::vector<Index> evenly(const std::vector<Index>& all, Index count) {
    std::vector<Index> some;
    const Index size = static_cast<Index>(all.size());
    for (Index i = 0; i < count; ++i) some.push_back(all[static_cast<std::size_t>(size * (i + 1) / count - 1)]);
    return some;
}

/// Place of a query in an ascending list; -1: not there.
inline Index place_in(const std::vector<Index>& list, Index query) {
    const auto found = std::lower_bound(list.begin(), list.end(), query);
    return found != list.end() && *found == query ? found - list.begin() : -1;
}

inline void add_number(std::string& bytes, std::size_t number) {
    for (; number >= 128; number /= 128) bytes += static_cast<char>(number % 128 | 128);
    bytes += static_cast<char>(number);
}

} // namespace pattern
} // namespace detail

/// Bytes of a page that the browser still opens at once.
inline constexpr Index page_bytes = 8'000'000;

/// Which rows of every head stand on a page, and what of them.
struct PatternPlan {
    std::vector<Index> queries; ///< with figures, ascending: evenly spaced, the last query among them
    std::vector<Index> shown;   ///< of these, with a pattern: all, or at most 16 where heads are streamed
    std::vector<Index> whole;   ///< of these, with all logits
    Index most_keys = 0;        ///< with weights in a pattern, those of the largest
};

/// As much as `page_bytes` have room for, beside what does not depend on rows. causal: a query sees the keys up to its own.
inline PatternPlan plan_patterns(Index heads, Index queries, Index keys, bool causal, bool streamed) {
    PatternPlan plan;
    if (heads < 1 || queries < 1 || keys < 1) return plan;
    // In bytes of a row of a head, which base64 makes 4/3 of.
    constexpr double figures = 20, frame = 9, entry = 2, logit = 4;
    const double other = 200e3 + 4e3 * static_cast<double>(heads) +
                         12 * static_cast<double>(keys), // the page itself, means, audit, tokens
        room = std::max(static_cast<double>(page_bytes) - other, 1e6) * 0.75 / static_cast<double>(heads);
    const auto seen = [&](Index query) {
        return causal ? std::clamp<Index>(query + 1 + keys - queries, 0, keys) : keys;
    };
    const auto every = [&](Index stride) {
        std::vector<Index> rows;
        for (Index query = (queries - 1) % stride; query < queries; query += stride) rows.push_back(query);
        return rows;
    };
    const auto whole_bytes = [&](const std::vector<Index>& rows) {
        double bytes = 0;
        for (const Index query : rows) bytes += logit * static_cast<double>(seen(query)) + 8;
        return bytes;
    };
    // A pattern entry is a byte of distance, more only where it skips 128 keys, and a byte of level.
    const auto pattern_bytes = [&](const std::vector<Index>& rows, Index most) {
        double bytes = 0;
        for (const Index query : rows)
            bytes += figures + frame + static_cast<double>(std::min(seen(query) / 128, most)) +
                     entry * static_cast<double>(std::min(seen(query), most));
        return bytes;
    };
    // The largest number up to `most` that fits, of what takes more room the larger it is; `least` at least.
    const auto largest = [](Index least, Index most, const auto& fits) {
        while (least < most) {
            const Index middle = least + (most - least + 1) / 2;
            if (fits(middle))
                least = middle;
            else
                most = middle - 1;
        }
        return least;
    };
    // A row with all of its logits, unless it alone takes half of the room.
    const double share = streamed ? 0.4 : 0.15, one = whole_bytes({queries - 1});
    const Index least_whole = one <= 0.5 * room ? 1 : 0;
    const double for_patterns = 0.95 * (room - std::max(share * room, least_whole > 0 ? one : 0));
    Index stride = 1;
    const Index wanted = streamed ? 0 : std::min<Index>(keys, 8);
    while (stride < queries && pattern_bytes(every(stride), wanted) > for_patterns) stride += 1 + stride / 8;
    plan.queries = every(std::min(stride, queries));
    // A row of a streamed head is computed again for its pattern.
    const Index rows = static_cast<Index>(plan.queries.size());
    plan.shown = streamed ? detail::pattern::evenly(plan.queries, std::min<Index>(rows, 16)) : plan.queries;
    const auto some = [&](Index count) { return detail::pattern::evenly(plan.shown, count); };
    plan.whole = some(largest(least_whole, static_cast<Index>(plan.shown.size()),
                              [&](Index count) { return whole_bytes(some(count)) <= share * room; }));
    const double left = streamed ? 0.2 * room : room - whole_bytes(plan.whole);
    plan.most_keys = largest(1, std::min<Index>(keys, streamed ? 256 : keys),
                             [&](Index most) { return pattern_bytes(plan.shown, most) <= left; });
    return plan;
}

/// All logits of a row.
struct WholeRow {
    double largest = 0; ///< logit; 0 where none is known
    std::vector<float>
        below; ///< z - max z of the keys up to the last one that the query sees, -inf where masked
};

/// What is kept of a head.
struct HeadPattern {
    std::string rows;                  ///< of the queries `shown`, see `encoded_row`
    std::vector<WholeRow> whole;       ///< of the queries `whole`
    double kept = 0, least_kept = 0;   ///< mean and least share of a row's weight that is in its pattern
    std::vector<double> half_contexts; ///< of some rows, see `PatternKeeper`
};

/// A row of weights as bytes: the number of weights that follow, the largest weight (float), and for each weight, by
/// ascending key, the distance from the key before (from -1) less 1 and the level l = 1...255: the weight is
/// largest (l/255)^2. Numbers are groups of 7 bits, the lowest first, with the highest bit where another follows. Weights
/// of level 0 and all but the `most` largest ones are left out.
/// kept: the share of the row's weight that is not.
inline std::string encoded_row(RowIn<double> weights, Index most, double& kept) {
    double sum = 0, largest = 0;
    for (const double p : weights) {
        sum += p;
        largest = std::max(largest, p);
    }
    kept = std::numeric_limits<double>::quiet_NaN();
    std::string bytes;
    if (!(largest > 0) || !std::isfinite(sum)) { // no weights, or NaN
        detail::pattern::add_number(bytes, 0);
        return bytes.append(sizeof(float), '\0');
    }
    const auto level = [&](double p) {
        return p > 0 ? static_cast<unsigned>(std::lround(255 * std::sqrt(p / largest))) : 0U;
    };
    std::vector<std::size_t> chosen;
    for (std::size_t key = 0; key < weights.size(); ++key)
        if (level(weights[key]) > 0) chosen.push_back(key);
    if (static_cast<Index>(chosen.size()) > most) {
        std::nth_element(chosen.begin(), chosen.begin() + most, chosen.end(),
                         [&](std::size_t a, std::size_t b) {
                             return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
                         });
        chosen.resize(static_cast<std::size_t>(most));
        std::sort(chosen.begin(), chosen.end());
    }
    detail::pattern::add_number(bytes, chosen.size());
    const float top = static_cast<float>(largest);
    std::array<char, sizeof top> raw{};
    std::memcpy(raw.data(), &top, sizeof top);
    bytes.append(raw.data(), raw.size());
    double mass = 0;
    std::size_t next = 0;
    for (const std::size_t key : chosen) {
        detail::pattern::add_number(bytes, key - next);
        bytes += static_cast<char>(level(weights[key]));
        next = key + 1;
        mass += weights[key];
    }
    kept = mass / sum;
    return bytes;
}

/// Collects the rows of a head; by several threads at once, each row once.
class PatternKeeper {
public:
    /// known_logits: logits are more than known up to a constant. temperature: of softmax, for the contexts in which a row
    /// would still give a key half of the weight (`length_limits` without a growth of the background); none for other
    /// normalisers.
    PatternKeeper(const PatternPlan& plan, bool known_logits, std::optional<double> temperature);

    /// Logits before the temperature, -inf where masked, and as many weights.
    void row(Index query, RowIn<double> logits, RowIn<double> weights);
    HeadPattern pattern() const;

private:
    const PatternPlan& plan_;
    bool known_logits_;
    std::optional<double> temperature_;
    std::vector<std::string> rows_;
    std::vector<double> kept_;
    std::vector<WholeRow> whole_;
    std::vector<double> half_contexts_;
    Index context_step_;
};

inline PatternKeeper::PatternKeeper(const PatternPlan& plan, bool known_logits,
                                    std::optional<double> temperature)
    : plan_(plan), known_logits_(known_logits), temperature_(temperature), rows_(plan.shown.size()),
      kept_(plan.shown.size(), std::numeric_limits<double>::quiet_NaN()), whole_(plan.whole.size()),
      half_contexts_(plan.shown.size(), std::numeric_limits<double>::quiet_NaN()),
      context_step_((static_cast<Index>(plan.shown.size()) + 31) / 32) {}

inline void PatternKeeper::row(Index query, RowIn<double> logits, RowIn<double> weights) {
    while (!logits.empty() && logits.back() == -std::numeric_limits<double>::infinity())
        logits = logits.first(logits.size() - 1);
    weights = weights.first(logits.size());
    if (const Index place = detail::pattern::place_in(plan_.shown, query); place >= 0) {
        const auto at = static_cast<std::size_t>(place);
        rows_[at] = encoded_row(weights, plan_.most_keys, kept_[at]);
        const Index from_last = static_cast<Index>(plan_.shown.size()) - 1 - place;
        if (temperature_ && from_last % context_step_ == 0 && !logits.empty())
            half_contexts_[at] = length_limits(row_statistics<double>(logits, *temperature_), 0.5).expected;
    }
    if (const Index place = detail::pattern::place_in(plan_.whole, query); place >= 0) {
        WholeRow& whole = whole_[static_cast<std::size_t>(place)];
        double largest = -std::numeric_limits<double>::infinity();
        for (const double z : logits) largest = std::max(largest, z);
        whole.largest = known_logits_ && std::isfinite(largest) ? largest : 0;
        for (const double z : logits) whole.below.push_back(static_cast<float>(z - largest));
        const bool numbers = std::isfinite(largest) &&
                             std::none_of(logits.begin(), logits.end(), [](double z) { return std::isnan(z); });
        if (!numbers) whole.below.clear(); // nothing that could be looked at
    }
}

inline HeadPattern PatternKeeper::pattern() const {
    HeadPattern result;
    double none = 0;
    for (const std::string& row : rows_) result.rows += row.empty() ? encoded_row({}, 0, none) : row;
    result.whole = whole_;
    double rows = 0;
    result.least_kept = 1;
    for (const double share : kept_)
        if (std::isfinite(share)) {
            rows += 1;
            result.kept += share;
            result.least_kept = std::min(result.least_kept, share);
        }
    result.kept = rows > 0 ? result.kept / rows : 1;
    for (const double context : half_contexts_)
        if (!std::isnan(context)) result.half_contexts.push_back(context);
    std::sort(result.half_contexts.begin(), result.half_contexts.end());
    return result;
}

} // namespace v0_2
} // namespace attnscope
