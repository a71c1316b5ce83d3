// How the weights of a head are spread over the orders of magnitude.
#pragma once

#include <attnscope/streaming/row_scan.hpp>

#include <mutex>

namespace attnscope {
inline namespace v0_2 {

/// Pairs of query and key that see each other, counted by weight.
struct WeightHistogram {
    /// [b]: weights in (2^-(b+1), 2^-b]; the last also counts all smaller ones.
    std::array<std::uint64_t, 128> count{};
    std::uint64_t pairs = 0;    ///< the sum of `count`
    std::uint64_t left_out = 0; ///< visible keys of rows with NaN or +inf
    friend bool operator==(const WeightHistogram&, const WeightHistogram&) = default;

    /// Adds the counts of other pairs.
    void merge(const WeightHistogram& other) {
        for (std::size_t i = 0; i < count.size(); ++i) count[i] += other.count[i];
        pairs += other.pairs;
        left_out += other.left_out;
    }

    /// Share of the pairs with a weight of at most 2^-b. NaN if there are no pairs.
    double share_below(std::size_t b) const {
        std::uint64_t sum = 0;
        for (std::size_t i = b; i < count.size(); ++i) sum += count[i];
        return pairs > 0 ? static_cast<double>(sum) / static_cast<double>(pairs)
                         : std::numeric_limits<double>::quiet_NaN();
    }
};

/// Adds a row of logits (temperature 1).
/// Formula. Bin floor((lse - z) log2 e), so that an edge is decided to the rounding of that difference in
/// double.
/// Special rows. -inf is no pair. The keys of a row with NaN or +inf are left out, and counted as such.
/// Cost. O(n), no allocation.
template <Real T>
void add_to_histogram(WeightHistogram& histogram, RowIn<T> z) {
    const auto row = row_statistics<T>(z);
    if (row.status == RowStatus::empty) return;
    if (!row.normal()) {
        histogram.left_out += static_cast<std::uint64_t>(row.visible);
        return;
    }
    const double top = static_cast<double>(row.max_logit), mass = std::log1p(static_cast<double>(row.r));
    for (const T x : z) {
        if (x == -std::numeric_limits<T>::infinity()) continue;
        const double bits = ((top - static_cast<double>(x)) + mass) * 1.4426950408889634;
        ++histogram.count[static_cast<std::size_t>(std::clamp(bits, 0.0, 127.0))];
        ++histogram.pairs;
    }
}

/// What `scan_histogram` tells.
struct HistogramScan : ScanExtent {
    WeightHistogram histogram; ///< of the rows that were reached
};

/// The histogram of all rows of a source of logits. Counts are whole numbers: they do not depend on the
/// executor.
/// Cost. A product and two exponentials for each logit; memory as `scan_rows`.
/// Throws. `invalid_argument` for queries < 0 or keys < 0.
template <class Asked = void, class Source, Executor E = Sequential, Real T = detail::TileScalar<Asked, Source>>
HistogramScan scan_histogram(Index queries, Index keys, const Source& source, const Mask& mask = {},
                             const TileOptions& options = {}, E&& executor = {}) {
    HistogramScan result;
    WeightHistogram& all = result.histogram;
    std::mutex guard;
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        queries, keys, source,
        [&](Index, Index, RowOut<T> z) {
            WeightHistogram row;
            add_to_histogram<T>(row, RowIn<T>(z));
            const std::lock_guard lock(guard);
            all.merge(row);
        },
        mask, options, executor);
    return result;
}

/// The same for the logits of a head.
template <HeadLike H, Executor E = Sequential>
HistogramScan scan_histogram(const H& head, const Mask& mask = {}, const TileOptions& options = {},
                             E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return scan_histogram<T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor), mask,
                             asked.options, executor);
}

} // namespace v0_2
} // namespace attnscope
