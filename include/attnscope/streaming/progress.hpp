// How the work of a scan is cut into tiles, followed, and cut short.
#pragma once

#include <attnscope/attention/logits.hpp>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Called after each tile, by one thread at a time, with what is done and all of it, in rows (keys for
/// `scan_column_mass`); false: no further tile is begun, and the result says `cancelled`.
using ScanProgress = std::function<bool(Index, Index)>;

/// Options of every scan. What is scanned are the logits z = (scale q.k + bias)/temperature of a head, or (logits +
/// bias)/temperature of a source.
struct TileOptions {
    /// Logits that a source is asked for at once. 0 queries: 32, or 128 beside more than 8192 keys, which would
    /// else be fetched too often from far away.
    Index query_tile = 0, key_tile = 1024;
    ScanProgress progress = {};
    std::optional<double> scale = {}; ///< of q.k, that of the head unless given; a source has its own
    double temperature = 1;
    LogitBias bias = {};
};

/// How far a scan came, in rows (keys for `scan_column_mass`). Every result of a scan says so. What was not
/// reached holds NaN, and rows have status `nan`; a visitor has not been called for it.
struct ScanExtent {
    Index all = 0, done = 0;
    bool cancelled = false;         ///< done < all, because `progress` said so
    std::vector<bool> missing = {}; ///< [all] what was not reached; empty if all was

    /// Has the i-th row (of those that were asked for) been scanned?
    bool reached(Index i) const { return missing.empty() || !detail::at(missing, i); }
};

namespace detail {

/// Does to every row that a scan has not reached what marks it.
template <class Mark>
void for_each_missing(const ScanExtent& extent, const Mark& mark) {
    for (std::size_t i = 0; i < extent.missing.size(); ++i)
        if (extent.missing[i]) mark(static_cast<Index>(i));
}

/// What the tasks of a scan have done: told to `progress`, which may stop the others.
class ProgressGate {
public:
    ProgressGate(const ScanProgress& progress, Index all) : progress_(progress), all_(all) {
        if (progress_) missing_.assign(static_cast<std::size_t>(all), true);
    }
    bool stopped() const { return stopped_; }

    /// Rows [begin, end) are done.
    void pass(Index begin, Index end) {
        if (!progress_) return;
        const std::lock_guard lock(guard_);
        std::fill(missing_.begin() + begin, missing_.begin() + end, false);
        done_ += end - begin;
        if (!progress_(done_, all_)) stopped_ = true;
    }

    /// How much of the rows [begin, end) has been done. After the last task.
    ScanExtent extent(Index begin, Index end) const {
        const Index all = end - begin;
        if (!progress_) return {all, all};
        ScanExtent own{all, 0, false, {missing_.begin() + begin, missing_.begin() + end}};
        own.done = std::count(own.missing.begin(), own.missing.end(), false);
        own.cancelled = own.done < all;
        if (!own.cancelled) own.missing.clear();
        return own;
    }
    ScanExtent extent() const { return extent(0, all_); }

private:
    const ScanProgress& progress_;
    Index all_, done_ = 0;
    std::vector<bool> missing_;
    std::atomic<bool> stopped_{false};
    std::mutex guard_;
};

/// The options with the tile of queries chosen.
inline TileOptions checked_tiles(TileOptions options, Index keys) {
    require(options.query_tile >= 0, "scan", "query_tile must be >= 0", options.query_tile);
    require(options.key_tile >= 1, "scan", "key_tile must be >= 1", options.key_tile);
    if (options.query_tile == 0) options.query_tile = keys > 8192 ? 128 : 32;
    require(!options.scale, "scan", "a source of logits has a scale of its own", options.scale.value_or(0));
    require(options.query_tile <= (Index(1) << 30) / options.key_tile, "scan",
            "a tile must have at most 2^30 logits", options.query_tile, options.key_tile);
    return options;
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
