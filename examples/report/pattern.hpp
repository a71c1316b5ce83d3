// What the page of a report keeps of the rows of a head: the weights that matter of many rows, all logits of a few.
#pragma once

#include <attnscope/runtime/any_normalizer.hpp>

#include <string>
#include <vector>

namespace report {

using attnscope::Index;

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
PatternPlan plan_patterns(Index heads, Index queries, Index keys, bool causal, bool streamed);

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
std::string encoded_row(attnscope::RowIn<double> weights, Index most, double& kept);

/// Collects the rows of a head; by several threads at once, each row once.
class PatternKeeper {
public:
    /// known_logits: logits are more than known up to a constant. temperature: of softmax, for the contexts in which a row
    /// would still give a key half of the weight (`length_limits` without a growth of the background); none for other
    /// normalisers.
    PatternKeeper(const PatternPlan& plan, bool known_logits, std::optional<double> temperature);

    /// Logits before the temperature, -inf where masked, and as many weights.
    void row(Index query, attnscope::RowIn<double> logits, attnscope::RowIn<double> weights);
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

} // namespace report
