// What is told of many heads of a capture. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/analysis/head_summary.hpp>
#include <attnscope/analysis/options.hpp>
#include <attnscope/capture/row_tally.hpp>
#include <attnscope/report/pattern.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What is asked of a report.
struct ReportOptions {
    std::optional<double> temperature = {};     ///< unless given, that of each layer, else 1
    std::optional<std::string> normalizer = {}; ///< unless given, that of each layer, else softmax
    std::optional<std::string> beside = {};     ///< figures under this one too
    std::vector<Index> layers = {}, heads = {}; ///< which; empty: all
    std::optional<double> qk_clip = {};         ///< largest logit that a head may have: QK-clip is told
    bool patterns = false;                      ///< for a page: keep patterns of the rows
    /// Unless given, heads of more than `AnalysisOptions::streamed_above` logits.
    std::optional<bool> stream = {};
    Index threads = 1;      ///< the results do not depend on them
    bool keep_rows = false; ///< of all heads, for outputs that tell every row
    /// Heads done, and all of them; by one thread at a time.
    std::function<void(Index done, Index all)> progress = {};
    AnalysisOptions analysis = {}; ///< counts, reading, radius, scalar, seed
};

/// What makes weights of the logits of the heads of a layer.
struct HeadNormalizer {
    double temperature = 1;
    AnyNormalizer normalizer; ///< at that temperature
};

/// The chosen heads of a capture, analysed. As text by fmt or `to_table` (report/table.hpp), as JSON by `io::to_json`
/// (report/json.hpp), as tables of CSV by `io::csv_tables` (report/csv.hpp), as data of a page by `io::page_json`
/// (report/page_json.hpp).
struct Report {
    Capture capture;
    ReportOptions options;
    std::vector<Index> layers;               ///< the chosen ones
    std::vector<HeadNormalizer> normalizers; ///< of each layer, without its sinks
    std::vector<HeadPlace> places;           ///< of the heads
    std::vector<HeadSummary> heads;
    std::vector<HeadSummary> beside;   ///< the same heads under `ReportOptions::beside`, if it is asked for
    std::optional<double> beside_loss; ///< of a model that we run, with it in every layer
    std::vector<HeadAnalysis>
        head_rows; ///< of the heads, and of those beside them, if `ReportOptions::keep_rows`
    std::vector<HeadAnalysis> beside_rows;
    PatternPlan plan;                        ///< of the patterns, if they are asked for
    std::vector<HeadPattern> patterns;       ///< of each head, then
    Audit audit;                             ///< of all heads
    std::optional<double> weight_difference; ///< largest |computed - stored| weight, when both are there
    RowTally tally;
    bool streamed = false; ///< no matrix of logits was held
};

/// Where the heads of a report are analysed: see `make_report_on`.
using UnitRunner = std::function<void(Index count, const std::function<std::vector<std::byte>(Index)>& work,
                                      const std::function<void(Index, const std::vector<std::byte>&)>& take)>;

} // namespace v0_2
} // namespace attnscope
