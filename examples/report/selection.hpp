// What the top-N selections of one row keep: the figures of the report's `selection`, and their audit.
#pragma once

#include <attnscope/attnscope.hpp>

#include <optional>
#include <vector>

namespace report {

using attnscope::Index;

/// Figures of one top-N selection; NaN where the input cannot give them.
struct SelectionFigures {
    Index n = 0;
    double mass, distance_cumulative, distance_resultant, distance_bound, expected_distance_lower,
        expected_distance_upper, truncation_error, separable_fraction, precision, recall, f_score, margin;
};

struct SelectionFigure {
    std::string_view name;
    double SelectionFigures::*value;
};
inline constexpr std::array<SelectionFigure, 12> selection_figures = {{
    {"mass", &SelectionFigures::mass},
    {"distance_cumulative", &SelectionFigures::distance_cumulative},
    {"distance_resultant", &SelectionFigures::distance_resultant},
    {"distance_bound", &SelectionFigures::distance_bound},
    {"expected_distance_lower", &SelectionFigures::expected_distance_lower},
    {"expected_distance_upper", &SelectionFigures::expected_distance_upper},
    {"truncation_error", &SelectionFigures::truncation_error},
    {"separable_fraction", &SelectionFigures::separable_fraction},
    {"precision", &SelectionFigures::precision},
    {"recall", &SelectionFigures::recall},
    {"f_score", &SelectionFigures::f_score},
    {"margin", &SelectionFigures::margin},
}};

struct SelectionSettings {
    std::vector<Index> counts = {1, 2, 5, 10, 20, 50, 100}; ///< the N, ascending
    attnscope::Reading reading = attnscope::Reading::cumulative;
    std::optional<double> radius; ///< of the ball; unless given, the nearest non-selected token
};

/// Rows of one head at a time. Keeps its memory.
class SelectionAnalyser {
public:
    explicit SelectionAnalyser(const SelectionSettings& settings) : settings_(settings) {}

    /// values: [keys, d] token vectors of the head to come, if known; must stay alive for its rows.
    void begin_head(const std::optional<attnscope::Matrix<double>>& values);

    /// Weights p of a normal row and which keys it sees (logit > -inf). `expectations`: also audit the
    /// statements about expectations on this row. Only N below the number of visible keys appear.
    std::vector<SelectionFigures> row(attnscope::RowIn<double> p, attnscope::RowIn<double> logits,
                                      bool expectations, attnscope::Audit& audit,
                                      attnscope::SplitMix64& random);

private:
    SelectionSettings settings_;
    const attnscope::Matrix<double>* values_ = nullptr;
    bool has_gram_ = false;
    attnscope::Matrix<double> gram_, gathered_values_;
    std::vector<double> gathered_;
    attnscope::Ranking<double> ranking_;
    attnscope::SelectedSet<double> set_;
    attnscope::SelectionAuditScratch scratch_;
};

} // namespace report
