// What tables tell of a head: its means, without its rows.
#pragma once

#include <attnscope/analysis/head_analysis.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Sums of a figure over rows that have it.
struct FigureSum {
    double sum = 0, count = 0;
    double mean() const { return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN(); }
};

/// What selecting N keys keeps, summed over rows.
struct SelectionSums {
    Index n = 0;
    std::array<FigureSum, selection_figures.size()> figures; ///< in the order of `selection_figures`

    bool any() const { return figures[0].count > 0; } ///< has a row a selection?
    /// Of one column of `SelectionColumns`.
    const FigureSum& of(Column SelectionColumns::*figure) const {
        const auto at = std::find_if(selection_figures.begin(), selection_figures.end(),
                                     [&](const SelectionFigure& known) { return known.values == figure; });
        return figures[static_cast<std::size_t>(at - selection_figures.begin())];
    }
};

/// A head without its rows: what a report of many heads keeps of each, whatever its length.
/// Cost. Memory of about 2 KB, beside 200 bytes for each number of selected keys.
/// Example: `const HeadSummary summary = head; mean_cells(summary); summary.mean(&RowColumns::entropy_nats);`
struct HeadSummary {
    Index queries = 0, keys = 0;
    double mean_visible = std::numeric_limits<double>::quiet_NaN();
    std::vector<RowFigure> figures; ///< those that the head has: `figures_of`
    std::vector<double> means;      ///< `finite_mean` of each
    std::vector<SelectionSums> selections;
    std::array<Index, 4> rows_by_status{};
    Index negative_rows = 0; ///< among those of status `nan`: rows of stored weights below 0
    double largest_logit = std::numeric_limits<double>::quiet_NaN(); ///< of all rows

    std::string normalizer;
    std::optional<double> sink_logit;
    Reading reading = Reading::cumulative;
    std::optional<double> radius;
    Index examined = 0; ///< rows whose selections and statements were looked at

    HeadSummary() = default;
    HeadSummary(const HeadAnalysis& head)
        : queries(head.queries), keys(head.keys), mean_visible(head.rows.mean_visible()),
          figures(figures_of(head.rows)), normalizer(head.normalizer), sink_logit(head.sink_logit),
          reading(head.reading), radius(head.radius), examined(static_cast<Index>(head.examined.size())) {
        for (const RowFigure& figure : figures) means.push_back(finite_mean(head.rows.*figure.values));
        for (const SelectionColumns& columns : head.selections) {
            SelectionSums& sums = selections.emplace_back();
            sums.n = columns.n;
            for (std::size_t i = 0; i < sums.figures.size(); ++i)
                for (const double x : columns.*selection_figures[i].values)
                    if (std::isfinite(x)) sums.figures[i].sum += x, sums.figures[i].count += 1;
        }
        for (const RowStatus status : head.rows.status) ++rows_by_status[static_cast<std::size_t>(status)];
        negative_rows = (head.rows.negative > 0).count();
        for (const double x : head.rows.max_logit)
            if (!(x <= largest_logit) && x == x) largest_logit = x;
    }

    Index rows(RowStatus status) const { return rows_by_status[static_cast<std::size_t>(status)]; }
    bool has(Column RowColumns::*figure) const { return place_of(figure) < figures.size(); }
    /// The mean of a figure; NaN where the head has none.
    double mean(Column RowColumns::*figure) const {
        const std::size_t at = place_of(figure);
        return at < figures.size() ? means[at] : std::numeric_limits<double>::quiet_NaN();
    }

private:
    std::size_t place_of(Column RowColumns::*figure) const {
        const auto at = std::find_if(figures.begin(), figures.end(),
                                     [&](const RowFigure& known) { return known.values == figure; });
        return static_cast<std::size_t>(at - figures.begin());
    }
};

namespace detail {

inline std::vector<HeadSummary> summaries(std::span<const HeadAnalysis> heads) {
    return {heads.begin(), heads.end()};
}

} // namespace detail

/// A figure over heads: the least and the largest mean of a head, and which head it is.
struct HeadRange {
    double least = std::numeric_limits<double>::quiet_NaN(), most = std::numeric_limits<double>::quiet_NaN();
    Index least_head = -1, most_head = -1; ///< places in `heads`; -1: no head has the figure
};

/// The least and the largest mean of a figure over heads; the first head of several.
inline HeadRange range_of(std::span<const HeadSummary> heads, Column RowColumns::*figure) {
    HeadRange range;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const double mean = heads[i].mean(figure);
        if (!std::isfinite(mean)) continue;
        if (!(mean >= range.least)) range.least = mean, range.least_head = static_cast<Index>(i);
        if (!(mean <= range.most)) range.most = mean, range.most_head = static_cast<Index>(i);
    }
    return range;
}

/// Mean of a figure of a selection over all rows of all heads that have it; NaN if none has.
inline double selection_mean(std::span<const HeadSummary> heads, Index n, Column SelectionColumns::*figure) {
    FigureSum all;
    for (const HeadSummary& head : heads)
        for (const SelectionSums& sums : head.selections) {
            if (sums.n != n) continue;
            all.sum += sums.of(figure).sum;
            all.count += sums.of(figure).count;
        }
    return all.mean();
}
/// The same of analyses.
inline double selection_mean(std::span<const HeadAnalysis> heads, Index n, Column SelectionColumns::*figure) {
    return selection_mean(detail::summaries(heads), n, figure);
}

/// The N for which some row of these heads has a selection, ascending.
inline std::vector<Index> selection_counts(std::span<const HeadSummary> heads) {
    std::vector<Index> counts;
    for (const HeadSummary& head : heads)
        for (const SelectionSums& sums : head.selections)
            if (sums.any()) counts.push_back(sums.n);
    std::sort(counts.begin(), counts.end());
    counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
    return counts;
}
/// The same of analyses.
inline std::vector<Index> selection_counts(std::span<const HeadAnalysis> heads) {
    return selection_counts(detail::summaries(heads));
}

/// Heads of a layer, or any heads that belong together.
struct LayerAnalysis {
    std::vector<HeadAnalysis> heads;

    Index size() const { return static_cast<Index>(heads.size()); }
    const HeadAnalysis& operator[](Index head) const { return detail::at(heads, head); }
    auto begin() const { return heads.begin(); }
    auto end() const { return heads.end(); }

    /// What all heads say about the statements.
    Audit audit() const {
        Audit all;
        for (const HeadAnalysis& head : heads) all.merge(head.audit);
        return all;
    }
    /// `finite_mean` of each head.
    Column means(Column RowColumns::*figure) const {
        Column result(static_cast<Index>(heads.size()));
        for (std::size_t i = 0; i < heads.size(); ++i)
            result[static_cast<Index>(i)] = finite_mean(heads[i].rows.*figure);
        return result;
    }
    HeadRange range(Column RowColumns::*figure) const { return range_of(detail::summaries(heads), figure); }
    /// Adds the heads of another analysis behind these.
    void merge(LayerAnalysis other) {
        for (HeadAnalysis& head : other.heads) heads.push_back(std::move(head));
    }
};

} // namespace v0_2
} // namespace attnscope
