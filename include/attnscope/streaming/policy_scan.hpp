// What a policy of selection keeps of a head, by query and on average.
#pragma once

#include <attnscope/selector/policy.hpp>
#include <attnscope/streaming/set_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Options of `scan_policy`.
struct PolicyScanOptions : SelectionScanOptions {
    Index prompt = 0;       ///< queries that see all of their keys, where the policy runs a cache
    std::uint64_t seed = 1; ///< of what is drawn
};

/// What a policy's sets keep, and what it is certain of, for each query.
template <Real A>
struct PolicyScan : SelectionScan<A> {
    std::vector<double> certified_kept, certified_output, blocks_read; ///< as of `PolicySets`
};

/// Runs a policy over a head and measures its sets.
/// Cost. That of `select_by` and of `scan_selection`.
/// Throws. `invalid_argument` as they do, and for a policy of q and k alone where the options have a bias or a sink.
/// Example:
///     for (const SelectionPolicy& policy : selection_policies("window,h2o,quest", std::vector<Index>{64, 256})) {
///         const auto summary = summarize(scan_policy(policy, head, Mask::causal()), policy.budget);
///         std::cout << policy.name() << " keeps " << summary.kept << '\n';
///     }
template <HeadLike H, Executor E = Sequential, Real T = detail::ScalarOfHead<H>>
PolicyScan<Accumulator<T>> scan_policy(const SelectionPolicy& policy, const H& head, const Mask& mask = {},
                                       const PolicyScanOptions& options = {}, E&& executor = {}) {
    using Kind = SelectionPolicy::Kind;
    PolicyScan<Accumulator<T>> result;
    SelectionScan<Accumulator<T>>& scan = result;
    if (policy.kind == Kind::top) {
        scan = scan_selection(head, TopKeys(policy.budget), mask, options, executor);
        return result;
    }
    const StoredHead<T> stored(head);
    detail::require(policy.kind == Kind::window || policy.kind == Kind::random ||
                        (!options.tiles.bias && options.tiles.temperature == 1),
                    "scan_policy", "this policy looks at q and k alone, neither bias nor temperature",
                    policy.name());
    detail::require(!(policy.reads_blocks() || policy.has_mass()) || !options.sink_logit, "scan_policy",
                    "a certificate knows nothing of a sink", policy.name());
    const StoredHead<T> scaled = detail::take_scale(stored, options.tiles).head;
    PolicySets sets = select_by(policy, scaled, mask, options.prompt, options.seed);
    scan = scan_selection(head, sets.sets, mask, options, executor);
    result.certified_kept = std::move(sets.certified_kept);
    result.certified_output = std::move(sets.certified_output);
    result.blocks_read = std::move(sets.blocks_read);
    return result;
}

/// Means over the rows of a head that a selection has to choose on, and the worst of them.
struct SelectionSummary {
    static constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    Index rows = 0;    ///< normal rows that see more keys than the budget; without any, figures are NaN
    double keys = nan; ///< of a set
    double kept = nan, selector_loss = nan, budget_loss = nan;
    double kept_least = nan;
    Index kept_least_query = -1;
    double kl_nats = nan; ///< inf where a row keeps nothing
    double top_key = nan; ///< share of rows whose set has a key with the largest logit
    double top_recall = nan;
    // Over the rows whose output errors are numbers; NaN without values.
    double relative_error = nan, relative_error_most = nan;
    Index relative_error_most_query = -1;
    double limit_used = nan; ///< mean of output_error/output_limit, of rows whose limit is > 0
    // Of policies that read blocks.
    double certified_kept = nan, blocks_read = nan;
    // Where the geometry was asked for.
    double distance = nan, separable_fraction = nan, precision = nan;
};

namespace detail {

/// A mean of numbers that are there.
class MeanOf {
public:
    void add(double x) {
        if (x != x) return;
        sum_ += x;
        ++count_;
    }
    double value() const { return count_ > 0 ? sum_ / count_ : std::numeric_limits<double>::quiet_NaN(); }

private:
    double sum_ = 0, count_ = 0;
};

} // namespace detail

/// The summary of a scan over the rows that see more than `more_than` keys.
/// Cost. O(queries).
template <Real A>
SelectionSummary summarize(const PolicyScan<A>& scan, Index more_than = 0) {
    SelectionSummary summary;
    detail::MeanOf keys, kept, selector, budget, kl, top_key, top_recall, error, used, certified, blocks,
        distance, separable, precision;
    for (std::size_t i = 0; i < scan.rows.size(); ++i) {
        const SelectionFigures<A>& row = scan.rows[i];
        if (!row.normal() || row.visible <= more_than) continue;
        const Index query = static_cast<Index>(i);
        ++summary.rows;
        keys.add(static_cast<double>(row.selected));
        kept.add(static_cast<double>(row.kept));
        selector.add(static_cast<double>(row.selector_loss));
        budget.add(static_cast<double>(row.budget_loss));
        kl.add(static_cast<double>(row.kl_nats()));
        top_key.add(row.top_key ? 1 : 0);
        top_recall.add(static_cast<double>(row.top_recall()));
        error.add(static_cast<double>(row.relative_error));
        if (row.output_limit > A(0)) used.add(static_cast<double>(row.output_error / row.output_limit));
        if (!(static_cast<double>(row.kept) >= summary.kept_least)) {
            summary.kept_least = static_cast<double>(row.kept);
            summary.kept_least_query = query;
        }
        if (row.relative_error == row.relative_error &&
            !(static_cast<double>(row.relative_error) <= summary.relative_error_most)) {
            summary.relative_error_most = static_cast<double>(row.relative_error);
            summary.relative_error_most_query = query;
        }
        if (i < scan.certified_kept.size()) certified.add(scan.certified_kept[i]);
        if (i < scan.blocks_read.size()) blocks.add(scan.blocks_read[i]);
        if (!row.geometry) continue;
        distance.add(static_cast<double>(row.geometry->distance));
        separable.add(static_cast<double>(row.geometry->separability.separable_fraction));
        precision.add(static_cast<double>(row.geometry->separability.precision));
    }
    summary.keys = keys.value();
    summary.kept = kept.value();
    summary.selector_loss = selector.value();
    summary.budget_loss = budget.value();
    summary.kl_nats = kl.value();
    summary.top_key = top_key.value();
    summary.top_recall = top_recall.value();
    summary.relative_error = error.value();
    summary.limit_used = used.value();
    summary.certified_kept = certified.value();
    summary.blocks_read = blocks.value();
    summary.distance = distance.value();
    summary.separable_fraction = separable.value();
    summary.precision = precision.value();
    return summary;
}

} // namespace v0_2
} // namespace attnscope
