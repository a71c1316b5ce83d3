// What is asked of an analysis.
#pragma once

#include <attnscope/analysis/stored_weights.hpp>
#include <attnscope/attention/mask.hpp>
#include <attnscope/audit/certificates.hpp>
#include <attnscope/audit/row.hpp>
#include <attnscope/audit/selection.hpp>
#include <attnscope/runtime/any_normalizer.hpp>
#include <attnscope/streaming/progress.hpp>

#include <functional>

namespace attnscope {
inline namespace v0_2 {

/// Called with the logits (before the temperature, -inf where masked) and weights of a row after it has been
/// analysed, of the keys up to the last one that the query sees; for figures of your own. By several threads at once
/// if the executor has them.
using RowVisitor = std::function<void(Index query, RowIn<double> logits, RowIn<double> weights)>;

/// Example: `analyze(q, k, v, {.mask = Mask::causal(), .normalizer = Sparsemax{}, .counts = {5, 50}})`.
struct AnalysisOptions {
    Mask mask = {};
    std::optional<double> scale = {}; ///< of q.k; that of the head or 1/sqrt(d) unless given; for q and k only
    std::optional<double> temperature = {}; ///< divides the logits before the normaliser
    AnyNormalizer normalizer = {};          ///< softmax unless given; any normaliser, or one by name
    /// Of a learned sink, a key without value beside those of every row: softmax then divides by e^{sink_logit/T} too (see
    /// `with_sink`). A logit before the temperature, which no softcap caps; -inf: a sink without weight.
    std::optional<double> sink_logit = {};
    std::vector<double> sink_logits = {}; ///< of a group of heads: one for each

    // Parts. What is left out costs nothing, and its columns hold NaN.
    std::vector<Index> counts = {1, 2, 5, 10, 20, 50, 100}; ///< the N of the selections, each >= 1; empty: none
    bool sensitivity = true;                                ///< norms of the Jacobian
    bool audit = true;                                      ///< the statements of the paper
    bool certificates = true;                               ///< those beyond it, of softmax

    /// Queries on which the statements about expectations are checked, ascending; the last one unless given.
    std::vector<Index> expectation_queries = {};
    Reading reading = Reading::cumulative; ///< of the distance in Theorem 1(1)
    std::optional<double> radius = {};     ///< of the ball around s; up to the nearest other token unless given
    std::vector<double> steps = {1e-3, 1e-1, 10}; ///< of the audit's finite differences
    std::uint64_t seed = 1;        ///< of everything that is drawn; no result depends on the executor
    bool single_precision = false; ///< weights and norms in float; the audit is always in double

    /// Logits (queries x keys) beyond which selections and statements are those of some rows only, and figures of
    /// softmax come from a scan. No matrix of logits is held in either case.
    Index streamed_above = Index(1) << 26;
    ScanProgress progress = {}; ///< rows done, and all of them; false stops the analysis
    RowVisitor visit = {};

    /// What only the caller knows, of each query where given. delta: see `RowFacts` (an analysis of q and k finds
    /// it itself). padding: true for a query that is no token, whose row sees nothing.
    std::vector<double> delta = {};
    std::vector<bool> padding = {};

    /// Of given logits: entries at or below it are masks, -inf (see `mask_at_or_below`). Unless given only -inf is one, and
    /// a finite -1e9 is the logit of a key that is seen.
    std::optional<double> masked_below = {};

    /// Of stored weights: divide each row by its sum, keys that the mask hides left out; and the scalar in which they
    /// were stored, found from the numbers unless given, whose rounding decides whether a sum is 1.
    bool normalise_weights = false;
    std::optional<StoredScalar> stored_scalar = {};
};

} // namespace v0_2
} // namespace attnscope
