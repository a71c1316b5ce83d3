// How many useful tokens a selection can miss, from how badly they are ranked.
#pragma once

#include <attnscope/bound.hpp>

#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// A ranking of tokens held against which of them are useful.
struct RankedUseful {
    Index tokens = 0;     ///< n
    Index useful = 0;     ///< K
    Index inversions = 0; ///< Inv: pairs of a useless token and a useful one that is ranked below it
};

/// K and Inv of a ranking.
/// Shapes and units. order: the tokens from the first to the last; useful[i]: is token i?
/// Cost. O(n), allocates n bits.
/// Throws. `invalid_argument` when the ranking names a token that is not there, or not each once.
inline RankedUseful count_inversions(std::span<const Index> order, const std::vector<bool>& useful) {
    detail::require(order.size() == useful.size(), "count_inversions", "the ranking must name every token once",
                    order.size(), useful.size());
    RankedUseful ranked{static_cast<Index>(order.size()), 0, 0};
    std::vector<bool> seen(useful.size());
    Index useless = 0;
    for (const Index token : order) {
        detail::require(token >= 0 && token < ranked.tokens && !detail::at(seen, token), "count_inversions",
                        "the ranking must name every token once", token);
        detail::at(seen, token) = true;
        if (detail::at(useful, token)) {
            ++ranked.useful;
            ranked.inversions += useless;
        } else {
            ++useless;
        }
    }
    return ranked;
}

/// The most of K useful tokens that the first N of a ranking with Inv inversions can miss. Attained by a
/// ranking of that many inversions.
/// Formula. The largest m <= min(K, n - N) with m (N-K+m) <= Inv.
/// Cost. O(1).
/// Throws. `invalid_argument` unless 0 <= N, K <= n and Inv >= 0.
/// Source. arXiv:2609.37879, Proposition 1.
inline Index most_missed(const RankedUseful& ranked, Index selected) {
    const Index n = ranked.tokens, k = ranked.useful, inversions = ranked.inversions;
    detail::require(selected >= 0 && selected <= n, "most_missed", "selected must be in [0, tokens]", selected,
                    n);
    detail::require(k >= 0 && k <= n, "most_missed", "useful must be in [0, tokens]", k, n);
    detail::require(inversions >= 0, "most_missed", "inversions must be >= 0", inversions);
    const double spare = static_cast<double>(selected - k);
    const auto root = (-spare + std::sqrt(spare * spare + 4 * static_cast<double>(inversions))) / 2;
    Index most = std::clamp(static_cast<Index>(root), Index(0), std::min(k, n - selected));
    const auto fits = [&](Index m) { return m * (selected - k + m) <= inversions; };
    while (most > 0 && !fits(most)) --most; // the root is rounded
    while (most < std::min(k, n - selected) && fits(most + 1)) ++most;
    return most;
}

inline constexpr Statement missed_tokens_sharp_statement{
    .id = "missed_tokens",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "m (N-K+m) <= Inv",
    .conditions = "K useful tokens, m of them not among the first N of a ranking with Inv inversions",
    .source = "arXiv:2609.37879, Proposition 1",
};

/// A selection of the first N that misses m of the K useful tokens: statement `missed_tokens`. Exact in whole
/// numbers.
/// Formula. m (N-K+m) <= Inv. What holds without it: m <= min(K, n-N), N-K+m <= min(N, n-K).
/// Cost. O(1).
/// Throws. `invalid_argument` unless 0 <= N <= n and 0 <= m <= K.
inline Bound<double> missed_tokens_sharp(const RankedUseful& ranked, Index selected, Index missed) {
    const auto [n, k, inversions] = ranked;
    detail::require(selected >= 0 && selected <= n, "missed_tokens_sharp", "selected must be in [0, tokens]",
                    selected, n);
    detail::require(missed >= 0 && missed <= k, "missed_tokens_sharp", "missed must be in [0, useful]", missed,
                    k);
    return upper_bound(missed_tokens_sharp_statement,
                       {.limit = static_cast<double>(inversions),
                        .measured = static_cast<double>(missed * (selected - k + missed)),
                        .trivial = static_cast<double>(std::min(k, n - selected) * std::min(selected, n - k))});
}

} // namespace v0_2
} // namespace attnscope
