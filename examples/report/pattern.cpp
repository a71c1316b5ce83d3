#include "pattern.hpp"

#include <attnscope/planner/length.hpp>

#include <cstring>
#include <numeric>

namespace report {
namespace {

using attnscope::RowIn;

/// `count` of the entries, evenly spaced, the last among them.
std::vector<Index> evenly(const std::vector<Index>& all, Index count) {
    std::vector<Index> some;
    const Index size = static_cast<Index>(all.size());
    for (Index i = 0; i < count; ++i) some.push_back(all[static_cast<std::size_t>(size * (i + 1) / count - 1)]);
    return some;
}

/// Place of a query in an ascending list; -1: not there.
Index place_in(const std::vector<Index>& list, Index query) {
    const auto found = std::lower_bound(list.begin(), list.end(), query);
    return found != list.end() && *found == query ? found - list.begin() : -1;
}

void add_number(std::string& bytes, std::size_t number) {
    for (; number >= 128; number /= 128) bytes += static_cast<char>(number % 128 | 128);
    bytes += static_cast<char>(number);
}

} // namespace

PatternPlan plan_patterns(Index heads, Index queries, Index keys, bool causal, bool streamed) {
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
    plan.shown = streamed ? evenly(plan.queries, std::min<Index>(rows, 16)) : plan.queries;
    const auto some = [&](Index count) { return evenly(plan.shown, count); };
    plan.whole = some(largest(least_whole, static_cast<Index>(plan.shown.size()),
                              [&](Index count) { return whole_bytes(some(count)) <= share * room; }));
    const double left = streamed ? 0.2 * room : room - whole_bytes(plan.whole);
    plan.most_keys = largest(1, std::min<Index>(keys, streamed ? 256 : keys),
                             [&](Index most) { return pattern_bytes(plan.shown, most) <= left; });
    return plan;
}

std::string encoded_row(RowIn<double> weights, Index most, double& kept) {
    double sum = 0, largest = 0;
    for (const double p : weights) {
        sum += p;
        largest = std::max(largest, p);
    }
    kept = std::numeric_limits<double>::quiet_NaN();
    std::string bytes;
    if (!(largest > 0) || !std::isfinite(sum)) { // no weights, or NaN
        add_number(bytes, 0);
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
    add_number(bytes, chosen.size());
    const float top = static_cast<float>(largest);
    std::array<char, sizeof top> raw{};
    std::memcpy(raw.data(), &top, sizeof top);
    bytes.append(raw.data(), raw.size());
    double mass = 0;
    std::size_t next = 0;
    for (const std::size_t key : chosen) {
        add_number(bytes, key - next);
        bytes += static_cast<char>(level(weights[key]));
        next = key + 1;
        mass += weights[key];
    }
    kept = mass / sum;
    return bytes;
}

PatternKeeper::PatternKeeper(const PatternPlan& plan, bool known_logits, std::optional<double> temperature)
    : plan_(plan), known_logits_(known_logits), temperature_(temperature), rows_(plan.shown.size()),
      kept_(plan.shown.size(), std::numeric_limits<double>::quiet_NaN()), whole_(plan.whole.size()),
      half_contexts_(plan.shown.size(), std::numeric_limits<double>::quiet_NaN()),
      context_step_((static_cast<Index>(plan.shown.size()) + 31) / 32) {}

void PatternKeeper::row(Index query, RowIn<double> logits, RowIn<double> weights) {
    while (!logits.empty() && logits.back() == -std::numeric_limits<double>::infinity())
        logits = logits.first(logits.size() - 1);
    weights = weights.first(logits.size());
    if (const Index place = place_in(plan_.shown, query); place >= 0) {
        const auto at = static_cast<std::size_t>(place);
        rows_[at] = encoded_row(weights, plan_.most_keys, kept_[at]);
        const Index from_last = static_cast<Index>(plan_.shown.size()) - 1 - place;
        if (temperature_ && from_last % context_step_ == 0 && !logits.empty())
            half_contexts_[at] =
                attnscope::length_limits(attnscope::row_statistics<double>(logits, *temperature_), 0.5)
                    .expected;
    }
    if (const Index place = place_in(plan_.whole, query); place >= 0) {
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

HeadPattern PatternKeeper::pattern() const {
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

} // namespace report
