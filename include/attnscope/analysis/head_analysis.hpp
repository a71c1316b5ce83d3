// What an analysis tells of a head: figures of every row as columns, what selections keep, the audit, and how all of it was
// computed.
#pragma once

#include <attnscope/audit/audit.hpp>
#include <attnscope/row/status.hpp>
#include <attnscope/streaming/progress.hpp>

#include <optional>
#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// One number a query; NaN where a row has none.
using Column = Eigen::ArrayXd;

/// Mean of the finite entries, added up in their order; NaN if there is none.
inline double finite_mean(const Column& column) {
    double sum = 0, count = 0;
    for (const double x : column)
        if (std::isfinite(x)) sum += x, count += 1;
    return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

/// Figures of the rows of a head, under the names that they have in JSON and CSV. Logits before the temperature,
/// entropies in nats, norms of dp/dz in weight per logit. A row that is not normal has NaN.
struct RowColumns {
    std::vector<RowStatus> status;
    Eigen::Array<Index, Eigen::Dynamic, 1> visible; ///< keys with another logit than -inf
    /// The key with the largest weight, the first of several; -1 of a row that is not normal.
    Eigen::Array<Index, Eigen::Dynamic, 1> argmax;
    Column log_sum_exp, max_logit, entropy_nats, max_weight, second_weight, first_key_weight,
        participation_ratio, logit_spread;
    Column spectral, frobenius, one, column, max_entry; ///< norms of the Jacobian
    /// Of stored weights; of size 0 for a head that has logits. Their sum, 1 minus that, the weight on keys that
    /// the mask hides, and how many entries are negative (a row that sees one has status `nan`). Nothing is told of
    /// padding.
    Column row_sum, unassigned_mass, hidden_mass;
    Eigen::Array<Index, Eigen::Dynamic, 1> negative;
    /// Of heads with a sink, a key without value; of size 0 for others. Its weight s, and the entropy of the weights p of
    /// the keys and s together, -sum p log p - s log s. `entropy_nats` is that of the keys alone, of p/(1 - s):
    /// entropy_with_sink_nats = (1 - s) entropy_nats - (1 - s) log(1 - s) - s log s.
    /// Special rows. Where no key has weight beside the sink (a row that is `empty`) s = 1 and the entropy with it
    /// is 0; beside a key at +inf s = 0; padding has neither.
    Column sink_mass, entropy_with_sink_nats;

    Index size() const { return visible.size(); }
    double mean_visible() const {
        return size() > 0 ? visible.cast<double>().mean() : std::numeric_limits<double>::quiet_NaN();
    }
};

/// A column of `RowColumns` by name; the group is the JSON object in which it stands, if any.
struct RowFigure {
    std::string_view group, name;
    Column RowColumns::*values;
};
inline constexpr std::array<RowFigure, 13> row_figures = {{
    {"", "log_sum_exp", &RowColumns::log_sum_exp},
    {"", "max_logit", &RowColumns::max_logit},
    {"", "entropy_nats", &RowColumns::entropy_nats},
    {"", "max_weight", &RowColumns::max_weight},
    {"", "second_weight", &RowColumns::second_weight},
    {"", "first_key_weight", &RowColumns::first_key_weight},
    {"", "participation_ratio", &RowColumns::participation_ratio},
    {"", "logit_spread", &RowColumns::logit_spread},
    {"jacobian", "spectral", &RowColumns::spectral},
    {"jacobian", "frobenius", &RowColumns::frobenius},
    {"jacobian", "one", &RowColumns::one},
    {"jacobian", "column", &RowColumns::column},
    {"jacobian", "max_entry", &RowColumns::max_entry},
}};
/// Those that only stored weights have.
inline constexpr std::array<RowFigure, 3> stored_figures = {{
    {"", "row_sum", &RowColumns::row_sum},
    {"", "unassigned_mass", &RowColumns::unassigned_mass},
    {"", "hidden_mass", &RowColumns::hidden_mass},
}};

/// Those that only heads with a sink have.
inline constexpr std::array<RowFigure, 2> sink_figures = {{
    {"", "sink_mass", &RowColumns::sink_mass},
    {"", "entropy_with_sink_nats", &RowColumns::entropy_with_sink_nats},
}};

/// The figures that a head has: those of `row_figures`, of `stored_figures` if it holds stored weights, and of
/// `sink_figures` if it has a sink.
inline std::vector<RowFigure> figures_of(const RowColumns& rows) {
    std::vector<RowFigure> figures(row_figures.begin(), row_figures.end());
    if (rows.row_sum.size() > 0) figures.insert(figures.end(), stored_figures.begin(), stored_figures.end());
    if (rows.sink_mass.size() > 0) figures.insert(figures.end(), sink_figures.begin(), sink_figures.end());
    return figures;
}

/// What selecting the N largest weights of each row keeps. A row has entries where it is normal, sees more than N
/// keys and was looked at (`HeadAnalysis::examined`); all but `mass` need values.
struct SelectionColumns {
    Index n = 0;
    Column mass, distance_cumulative, distance_resultant, distance_bound, expected_distance_lower,
        expected_distance_upper, truncation_error, separable_fraction, precision, recall, f_score, margin;

    /// Has this row a selection?
    bool has(Index query) const { return std::isfinite(mass[query]); }
};

/// A column of `SelectionColumns` by name.
struct SelectionFigure {
    std::string_view name;
    Column SelectionColumns::*values;
};
inline constexpr std::array<SelectionFigure, 12> selection_figures = {{
    {"mass", &SelectionColumns::mass},
    {"distance_cumulative", &SelectionColumns::distance_cumulative},
    {"distance_resultant", &SelectionColumns::distance_resultant},
    {"distance_bound", &SelectionColumns::distance_bound},
    {"expected_distance_lower", &SelectionColumns::expected_distance_lower},
    {"expected_distance_upper", &SelectionColumns::expected_distance_upper},
    {"truncation_error", &SelectionColumns::truncation_error},
    {"separable_fraction", &SelectionColumns::separable_fraction},
    {"precision", &SelectionColumns::precision},
    {"recall", &SelectionColumns::recall},
    {"f_score", &SelectionColumns::f_score},
    {"margin", &SelectionColumns::margin},
}};

/// What `analyze` tells of one head.
/// Example: `head.rows.entropy_nats.maxCoeff(); head.selection(5).separable_fraction; head.audit.sharp_violations();`
struct HeadAnalysis {
    Index queries = 0, keys = 0;
    RowColumns rows;
    std::vector<SelectionColumns> selections; ///< ascending in N
    Audit audit;

    std::string normalizer;                ///< its name
    std::optional<double> temperature;     ///< of softmax
    std::optional<double> sink_logit;      ///< of a sink beside it, before the temperature
    std::optional<double> scale;           ///< of q.k, where the head has q and k
    Reading reading = Reading::cumulative; ///< of the distance that Theorem 1(1) limits
    std::optional<double> radius;  ///< of the ball of `separable_fraction`; none: up to the nearest other
    bool single_precision = false; ///< weights and norms were computed in float
    /// Too many logits for everything: selections and statements are those of the rows `examined`.
    bool streamed = false;
    std::vector<Index> examined; ///< queries whose selections and statements were looked at, ascending
    ScanExtent extent;           ///< how far it came before `progress` stopped it

    /// The selection of N keys.
    /// Throws. `invalid_argument` unless N was among the `counts`.
    const SelectionColumns& selection(Index n) const {
        for (const SelectionColumns& columns : selections)
            if (columns.n == n) return columns;
        detail::fail("HeadAnalysis::selection", "N must be among the counts of the analysis", n);
    }
};

} // namespace v0_2
} // namespace attnscope
