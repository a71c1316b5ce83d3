// The figures of every row of a capture, and the audit over them.
#pragma once

#include "selection.hpp"

#include <attnscope/runtime/any_normalizer.hpp>
#include <support/capture.hpp>

#include <array>

namespace report {

using program::Capture;

/// The scalar in which weights and norms are computed; the audit is always in double.
enum class Scalar { float32, float64 };
inline constexpr std::array<std::string_view, 2> scalar_names = {"float", "double"};

struct Settings {
    std::optional<double> temperature;     ///< unless given, that of each layer, else 1
    std::optional<std::string> normalizer; ///< unless given, that of each layer, else softmax
    Scalar scalar = Scalar::float64;
    std::vector<Index> layers, heads; ///< which; empty: all
    std::uint64_t seed = 1;
    std::optional<bool> stream; ///< unless given, heads of more than `stream_above` logits
    Index threads = 1;          ///< of streamed heads; the results do not depend on them
    SelectionSettings selection;
};

/// Logits of a head (512 MB in double) above which it is streamed, where that is possible.
inline constexpr Index stream_above = Index(1) << 26;

/// Rows of a streamed head whose selections are computed and which are audited: evenly spaced, the last among
/// them, at most 16, fewer where rows are long.
std::vector<Index> audited_rows(Index queries, Index keys);

/// Figures of one row, in the order of `row_figures`; NaN where the input cannot give them.
struct RowFigures {
    Index query = 0;
    Index visible = 0;
    attnscope::RowStatus status = attnscope::RowStatus::empty;
    double log_sum_exp, max_logit, entropy_nats, max_weight, second_weight, first_key_weight,
        participation_ratio, logit_spread;
    double spectral, frobenius, one, column, max_entry; ///< norms of the Jacobian
    double row_sum, unassigned_mass, hidden_mass;       ///< of stored weights
    std::vector<SelectionFigures> selection;            ///< for the N below the number of visible keys
    bool negative = false;                              ///< stored weights below 0
};

/// Name of a figure and where it stands; the group is the JSON object it is nested in, if any.
struct Figure {
    std::string_view group, name;
    double RowFigures::*value;
};
inline constexpr std::array<Figure, 13> row_figures = {{
    {"", "log_sum_exp", &RowFigures::log_sum_exp},
    {"", "max_logit", &RowFigures::max_logit},
    {"", "entropy_nats", &RowFigures::entropy_nats},
    {"", "max_weight", &RowFigures::max_weight},
    {"", "second_weight", &RowFigures::second_weight},
    {"", "first_key_weight", &RowFigures::first_key_weight},
    {"", "participation_ratio", &RowFigures::participation_ratio},
    {"", "logit_spread", &RowFigures::logit_spread},
    {"jacobian", "spectral", &RowFigures::spectral},
    {"jacobian", "frobenius", &RowFigures::frobenius},
    {"jacobian", "one", &RowFigures::one},
    {"jacobian", "column", &RowFigures::column},
    {"jacobian", "max_entry", &RowFigures::max_entry},
}};

/// Further figures of a capture that holds weights only.
inline constexpr std::array<Figure, 3> stored_figures = {{
    {"", "row_sum", &RowFigures::row_sum},
    {"", "unassigned_mass", &RowFigures::unassigned_mass},
    {"", "hidden_mass", &RowFigures::hidden_mass},
}};

struct HeadFigures {
    Index batch = 0, layer = 0, head = 0;
    std::vector<RowFigures> rows;

    /// Mean of a figure over the rows that have it, NaN if none has.
    double mean(double RowFigures::*figure) const;
    double mean_visible() const;
    /// The selection figures of every N that some row has, each averaged over the rows that have it.
    std::vector<SelectionFigures> mean_selection() const;
};

/// As `HeadFigures::mean_selection`, over the rows of all heads.
std::vector<SelectionFigures> mean_selection(std::span<const HeadFigures> heads);

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
    std::vector<HeadFigures> heads;
    attnscope::Audit audit;
    std::optional<double> weight_difference; ///< largest |computed - stored| weight, when both are there
    program::RowTally tally;
    bool streamed = false; ///< no matrix of logits was held; selections and audit are those of `audited_rows`
};

/// The figures that the rows of this report have.
std::vector<Figure> columns_of(const Report& report);

/// Analyses the chosen heads. Throws `usage_error` for a layer or head that is not there, and for a normaliser
/// that stored weights cannot serve or that cannot be streamed.
Report analyse(Capture capture, const Settings& settings);

} // namespace report
