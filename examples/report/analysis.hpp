// The chosen heads of a capture, analysed.
#pragma once

#include "states.hpp"

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/streaming/shards.hpp>
#include <support/capture.hpp>

namespace report {

using attnscope::HeadAnalysis;
using attnscope::HeadSummary;
using attnscope::Index;
using program::Capture;
using program::HeadPlace;

struct Settings {
    std::optional<double> temperature;     ///< unless given, that of each layer, else 1
    std::optional<std::string> normalizer; ///< unless given, that of each layer, else softmax
    std::optional<std::string> beside;     ///< figures under this one too
    std::vector<Index> layers, heads;      ///< which; empty: all
    std::optional<double> qk_clip;         ///< largest logit that a head may have: QK-clip is told
    bool patterns = false;                 ///< for a page: keep patterns of the rows
    std::optional<bool> stream; ///< unless given, heads of more than `AnalysisOptions::streamed_above` logits
    Index threads = 1;          ///< the results do not depend on them
    bool keep_rows = false;     ///< of all heads, for outputs that tell every row
    attnscope::AnalysisOptions analysis; ///< counts, reading, radius, scalar, seed
};

/// What makes weights of the logits of a head.
struct HeadNormalizer {
    double temperature = 1;
    attnscope::AnyNormalizer normalizer; ///< at that temperature
};

struct Report {
    Capture capture;
    Settings settings;
    std::vector<Index> layers;               ///< the chosen ones
    std::vector<HeadNormalizer> normalizers; ///< of each layer, without its sinks
    std::vector<HeadPlace> places;           ///< of the heads
    std::vector<HeadSummary> heads;
    std::vector<HeadSummary> beside;     ///< the same heads under `Settings::beside`, if it is asked for
    std::optional<double> beside_loss;   ///< of a model that we run, with it in every layer
    std::vector<HeadAnalysis> head_rows; ///< of the heads, and of those beside them, if `Settings::keep_rows`
    std::vector<HeadAnalysis> beside_rows;
    PatternPlan plan;                        ///< of the patterns, if they are asked for
    std::vector<HeadPattern> patterns;       ///< of each head, then
    attnscope::Audit audit;                  ///< of all heads
    std::optional<double> weight_difference; ///< largest |computed - stored| weight, when both are there
    program::RowTally tally;
    bool streamed = false; ///< no matrix of logits was held
};

/// Analyses the chosen heads; with `states`, those alone that have none yet, which get one. Throws `usage_error` for a layer
/// or head that is not there, for a normaliser that stored weights cannot serve or that cannot be streamed, and for patterns
/// beside states, which hold none.
Report analyse(Capture capture, const Settings& settings, const UnitStates* states = nullptr);

/// Calls work(i), i = 0 ... count-1, somewhere, and take with the bytes of all of them, in their order; not where the report is
/// not wanted.
using UnitRunner = std::function<void(Index count, const std::function<std::vector<std::byte>(Index)>& work,
                                      const std::function<void(Index, const std::vector<std::byte>&)>& take)>;
/// As `analyse`, by many processes; a report without heads where it is not wanted.
Report analyse_on(Capture capture, const Settings& settings, const UnitStates* states, const UnitRunner& run);

/// The same report from states alone: nothing is analysed. Throws as above, and names the first state that is missing.
Report merge(Capture capture, const Settings& settings, const UnitStates& states);

/// What a shard had to do.
struct ShardDone {
    Index units = 0; ///< of all shards
    Index own = 0, there = 0;
};
/// Analyses the heads of a shard that have no state yet. Throws as `analyse`.
ShardDone analyse_shard(Capture capture, const Settings& settings, const UnitStates& states,
                        const attnscope::Shard& shard);

/// What all of it will take.
struct Estimate {
    Index units = 0;
    double pairs = 0;       ///< of a query and a key that it sees
    double calibration = 0; ///< seconds of trying, on one thread
    double core_hours = 0;
};
/// Tries the first heads for so many seconds, or all. Throws as `analyse`.
Estimate estimate(Capture capture, const Settings& settings, double seconds = 10);

} // namespace report
