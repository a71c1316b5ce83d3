// What reading heads finds in their logits, biases and stored weights. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/capture/capture.hpp>

#include <algorithm>

namespace attnscope {
inline namespace v0_2 {

/// What was found in the logits, biases and weights of some heads.
struct RowTally {
    Index masks = 0; ///< finite entries taken for masks
    double least_mask = std::numeric_limits<double>::infinity(), most_mask = -least_mask;
    Index unmasked_rows = 0;              ///< no key above the threshold: left as they are
    Index rows = 0, wide_rows = 0;        ///< with two visible keys; more than `wide_nats` between them
    Index heads = 0, masked_causally = 0; ///< heads whose own masks are exactly causal

    std::vector<double> sums;      ///< of stored weights, of rows without NaN
    Index not_one = 0;             ///< rows whose sum misses 1 by more than rounding
    Index rounded = 0;             ///< rows whose sum misses 1 by rounding
    std::string_view rounded_type; ///< of these rows
    Index negative = 0, negative_rows = 0;
    Index hidden_rows = 0; ///< rows with weight on keys that the mask hides
    double most_hidden = 0;

    static constexpr double wide_nats = 1000;

    void merge(const RowTally& other) {
        masks += other.masks;
        least_mask = std::min(least_mask, other.least_mask);
        most_mask = std::max(most_mask, other.most_mask);
        unmasked_rows += other.unmasked_rows;
        rows += other.rows;
        wide_rows += other.wide_rows;
        heads += other.heads;
        masked_causally += other.masked_causally;
        sums.insert(sums.end(), other.sums.begin(), other.sums.end());
        not_one += other.not_one;
        rounded += other.rounded;
        if (other.rounded > 0) rounded_type = other.rounded_type;
        negative += other.negative;
        negative_rows += other.negative_rows;
        hidden_rows += other.hidden_rows;
        most_hidden = std::max(most_hidden, other.most_hidden);
    }
    /// NaN if there is none.
    double median_sum() const {
        if (sums.empty()) return std::numeric_limits<double>::quiet_NaN();
        std::vector<double> sorted = sums;
        std::sort(sorted.begin(), sorted.end());
        const std::size_t half = sorted.size() / 2;
        return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    }
    bool causal_from_masks() const { return heads > 0 && masked_causally == heads; }
    /// More than half of the rows look as if they held masks that were not recognised.
    bool looks_masked() const { return 2 * wide_rows > rows; }
};

/// A line each for what people must know of a tally.
inline std::vector<std::string> findings_of(const Capture& capture, const RowTally& tally) {
    std::vector<std::string> lines;
    if (tally.masks > 0)
        lines.push_back(
            tally.least_mask == tally.most_mask
                ? fmt::format("{} entries of value {:.5g} are taken for masks", tally.masks, tally.least_mask)
                : fmt::format("{} entries of values from {:.5g} to {:.5g} are taken for masks", tally.masks,
                              tally.least_mask, tally.most_mask));
    if (tally.unmasked_rows > 0)
        lines.push_back(
            fmt::format("{} rows hold nothing but masks: their keys stay visible", tally.unmasked_rows));
    if (!tally.sums.empty()) {
        const auto [least, most] = std::minmax_element(tally.sums.begin(), tally.sums.end());
        const auto sums = fmt::format("row sums: least {:.9g}, median {:.9g}, largest {:.9g}", *least,
                                      tally.median_sum(), *most);
        if (tally.not_one > 0)
            lines.push_back(
                fmt::format("{}; {} of {} rows do not sum to 1{}", sums, tally.not_one, tally.sums.size(),
                            capture.options.normalise_weights
                                ? ", and are divided by their sum"
                                : ": they are taken as they are, and statements that assume 1 are undefined"));
        else
            lines.push_back(sums);
        if (tally.rounded > 0)
            lines.push_back(fmt::format("{} rows miss 1 by no more than the rounding of {}: taken for 1",
                                        tally.rounded, tally.rounded_type));
    }
    if (tally.negative > 0)
        lines.push_back(fmt::format("{} negative weights in {} rows", tally.negative, tally.negative_rows));
    if (tally.hidden_rows > 0)
        lines.push_back(fmt::format("{} rows have weight on keys that the mask hides, up to {:.4g}; it is {}",
                                    tally.hidden_rows, tally.most_hidden,
                                    capture.options.normalise_weights ? "left out" : "kept"));
    return lines;
}

/// Warnings of a capture and of what was found in its heads, a line each.
inline std::vector<std::string> warnings_of(const Capture& capture, const RowTally& tally) {
    std::vector<std::string> lines = capture.warnings;
    if (tally.looks_masked())
        lines.push_back(fmt::format(
            "more than {} nats lie between the visible keys of {} of {} rows: this looks "
            "like a mask (--masked-below X, in C++ masked_below, takes entries at or below X for masks)",
            RowTally::wide_nats, tally.wide_rows, tally.rows));
    return lines;
}

} // namespace v0_2
} // namespace attnscope
