// Statistics of every row of a head without the queries x keys matrix.
#pragma once

#include <attnscope/head.hpp>
#include <attnscope/streaming/executor.hpp>
#include <attnscope/streaming/row_state.hpp>

#include <atomic>
#include <functional>
#include <mutex>

namespace attnscope {
inline namespace v0_1 {

/// Where a source of logits writes: rows of queries, columns of keys.
template <Real T>
using TileOut = Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>>;

struct ScanOptions {
    Index query_tile = 64, key_tile = 256; ///< logits that are held at once, for each task
    bool output = false;                   ///< also o = sum p v
    /// Called after each tile of queries, by one thread at a time, with the queries done and all of them;
    /// false: no further tile is begun, and the result says `cancelled`.
    std::function<bool(Index, Index)> progress = {};
};

/// What a scan tells.
template <Real T, Index K>
struct Scan {
    std::vector<RowState<T, K>> rows; ///< one for each query
    Matrix<T> output;       ///< [queries, d_v] if asked for; 0 for queries that see no key, NaN for NaN rows
    bool cancelled = false; ///< rows of tiles that were not begun are empty

    /// Rows of a status.
    Index count(RowStatus status) const {
        return std::count_if(rows.begin(), rows.end(), [&](const auto& row) { return row.status() == status; });
    }
};

/// Logits scale q.k of a head, tile by tile. To add a bias or cap them, wrap it in a source of your own:
///     [&](Index query, Index key, TileOut<float> tile) { product(query, key, tile); tile.array() += ...; }
template <Real T>
class ProductTiles {
public:
    explicit ProductTiles(const HeadView<T>& head) : head_(head) {}
    /// Logits of queries query, query + 1, ... and keys key, key + 1, ...
    void operator()(Index query, Index key, TileOut<T> tile) const {
        tile.noalias() = head_.q().map().middleRows(query, tile.rows()) *
                         head_.k().map().middleRows(key, tile.cols()).transpose();
        tile *= head_.scale();
    }

private:
    HeadView<T> head_;
};

namespace detail {

inline void require_tiles(const ScanOptions& options) {
    require(options.query_tile >= 1 && options.key_tile >= 1, "scan", "tiles must be >= 1", options.query_tile,
            options.key_tile);
    require(options.query_tile <= (Index(1) << 30) / options.key_tile, "scan",
            "a tile must have at most 2^30 logits", options.query_tile, options.key_tile);
}

/// A query's visible keys inside [begin, end), as at most two ranges.
inline KeyRanges clipped(const KeyRanges& visible, Index begin, Index end) {
    const auto clip = [&](KeyRange range) {
        range.begin = std::clamp(range.begin, begin, end);
        range.end = std::clamp(range.end, range.begin, end);
        return range;
    };
    return {clip(visible.lead), clip(visible.body)};
}

/// One tile of queries of a scan.
template <Real T, Index K, class Source>
class QueryTileScan {
public:
    using A = Accumulator<T>;
    QueryTileScan(const Source& source, Index keys, MatrixView<T> values, bool finite_values, const Mask& mask,
                  const ScanOptions& options)
        : source_(source), keys_(keys), values_(values), finite_values_(finite_values), mask_(mask),
          options_(options) {}

    /// Scans queries first ... first + states.size() - 1. `output`: their first row, or null.
    void operator()(Index first, std::span<RowState<T, K>> states, T* output) {
        const Index rows = static_cast<Index>(states.size()), width = values_.cols();
        visible_.clear();
        KeyRange seen{keys_, 0};
        for (Index i = 0; i < rows; ++i) {
            visible_.push_back(mask_.visible(first + i, keys_));
            if (visible_.back().count() == 0) continue;
            seen.begin = std::min(seen.begin, visible_.back().hull().begin);
            seen.end = std::max(seen.end, visible_.back().hull().end);
        }
        buffer_.resize(static_cast<std::size_t>(rows * options_.key_tile));
        if (output) sums_.setZero(rows, width);
        // Tiles begin at multiples of their size, whatever the queries see.
        for (Index key = seen.begin / options_.key_tile * options_.key_tile; key < seen.end;
             key += options_.key_tile) {
            const Index cols = std::min(options_.key_tile, keys_ - key);
            if (std::none_of(visible_.begin(), visible_.end(), [&](const KeyRanges& ranges) {
                    return clipped(ranges, key, key + cols).count() > 0;
                }))
                continue;
            TileOut<T> tile(buffer_.data(), rows, cols, Eigen::OuterStride<>(cols));
            source_(first, key, tile);
            for (Index i = 0; i < rows; ++i)
                add(i, key, tile, states[static_cast<std::size_t>(i)], output != nullptr);
            if (output) add_values(key, tile);
        }
        for (Index i = 0; output && i < rows; ++i)
            finish(first + i, states[static_cast<std::size_t>(i)], sums_.row(i),
                   RowOut<T>(output + i * width, static_cast<std::size_t>(width)));
    }

private:
    void add(Index i, Index key, TileOut<T>& tile, RowState<T, K>& state, bool terms) {
        const Index cols = tile.cols();
        T* const row = tile.data() + i * cols;
        const KeyRanges ranges = clipped(visible_[static_cast<std::size_t>(i)], key, key + cols);
        const auto span = [&](const KeyRange& range) {
            return RowOut<T>(row + (range.begin - key), static_cast<std::size_t>(range.size()));
        };
        if (!terms) {
            for (const KeyRange& range : {ranges.lead, ranges.body})
                state.add(RowIn<T>(span(range)), range.begin);
            return;
        }
        A factor = 1;
        if (ranges.lead.size() > 0)
            factor *= state.add(RowIn<T>(span(ranges.lead)), ranges.lead.begin, span(ranges.lead));
        if (ranges.body.size() > 0) {
            const A again = state.add(RowIn<T>(span(ranges.body)), ranges.body.begin, span(ranges.body));
            for (T& x : span(ranges.lead)) x = static_cast<T>(x * again);
            factor *= again;
        }
        Index hidden = key;
        for (const KeyRange& range : {ranges.lead, ranges.body}) {
            if (range.size() == 0) continue;
            std::fill(row + (hidden - key), row + (range.begin - key), T(0));
            hidden = range.end;
        }
        std::fill(row + (hidden - key), row + cols, T(0));
        if (factor != A(1)) sums_.row(i) *= factor;
    }

    void add_values(Index key, const TileOut<T>& tile) {
        if (finite_values_) {
            product_.noalias() = tile * values_.map().middleRows(key, tile.cols());
            sums_ += product_.template cast<A>();
            return;
        }
        // A product with a weight of 0 would keep NaN and infinity alive.
        for (Index i = 0; i < tile.rows(); ++i)
            for (Index j = 0; j < tile.cols(); ++j)
                if (tile(i, j) != T(0))
                    sums_.row(i) += A(tile(i, j)) * values_.map().row(key + j).template cast<A>();
    }

    template <class Sums>
    void finish(Index query, const RowState<T, K>& state, const Sums& sums, RowOut<T> out) {
        switch (state.status()) {
        case RowStatus::normal: {
            const A mass = 1 + state.statistics().r;
            for (std::size_t c = 0; c < out.size(); ++c)
                out[c] = static_cast<T>(sums[static_cast<Index>(c)] / mass);
            return;
        }
        case RowStatus::nan:
            std::fill(out.begin(), out.end(), std::numeric_limits<T>::quiet_NaN());
            return;
        case RowStatus::empty:
            std::fill(out.begin(), out.end(), T(0));
            return;
        case RowStatus::infinite:
            break;
        }
        // The keys at +inf share the mass: once more through this one row, which is rare.
        Row<A> mean = Row<A>::Zero(static_cast<Index>(out.size()));
        std::vector<T> logits(static_cast<std::size_t>(options_.key_tile));
        const KeyRanges visible = mask_.visible(query, keys_);
        for (Index key = 0; key < keys_; key += options_.key_tile) {
            const Index cols = std::min(options_.key_tile, keys_ - key);
            const KeyRanges ranges = clipped(visible, key, key + cols);
            if (ranges.count() == 0) continue;
            source_(query, key, TileOut<T>(logits.data(), 1, cols, Eigen::OuterStride<>(cols)));
            ranges.for_each([&](Index at) {
                if (logits[static_cast<std::size_t>(at - key)] == std::numeric_limits<T>::infinity())
                    mean += values_.map().row(at).template cast<A>().array();
            });
        }
        mean /= static_cast<A>(state.infinite_keys());
        for (std::size_t c = 0; c < out.size(); ++c) out[c] = static_cast<T>(mean[static_cast<Index>(c)]);
    }

    const Source& source_;
    Index keys_;
    MatrixView<T> values_;
    bool finite_values_;
    const Mask& mask_;
    const ScanOptions& options_;
    std::vector<KeyRanges> visible_;
    std::vector<T> buffer_;
    Matrix<T> product_;
    Matrix<A> sums_;
};

} // namespace detail

/// Scans logits that a source gives tile by tile: source(query, key, tile) writes the logits of queries query
/// ... and keys key ... into `tile`; masked keys need no value. `values` [keys, d_v] is looked at only with
/// `options.output`. Tiles that no query of theirs sees are not asked for. The K largest logits of each row are
/// kept with their keys. Figures are those of `row_statistics` at temperature 1, to the same accuracy. Rows do
/// not depend on the executor, nor on the number of threads. Memory O(queries K + threads query_tile (key_tile
/// + d_v)). Source and executor: see `ProductTiles`, `Sequential`. Throws `invalid_argument` for sizes that do
/// not fit, before any work.
template <Index K = 8, Real T, class Source, Executor E = Sequential>
Scan<T, K> scan_tiles(Index queries, Index keys, const Source& source, MatrixView<T> values,
                      const Mask& mask = {}, const ScanOptions& options = {}, const E& executor = {}) {
    detail::require(queries >= 0 && keys >= 0, "scan", "queries and keys must be >= 0", queries, keys);
    detail::require_tiles(options);
    detail::require(!options.output || values.rows() == keys, "scan", "values must have one row for each key",
                    values.rows(), keys);
    Scan<T, K> result;
    result.rows.resize(static_cast<std::size_t>(queries));
    if (options.output) result.output.setZero(queries, values.cols());
    const bool finite_values = options.output && values.map().allFinite();
    std::atomic<bool> cancelled{false};
    std::mutex guard;
    Index done = 0;
    const auto task = [&](Index tile) {
        if (cancelled) return;
        const Index first = tile * options.query_tile, rows = std::min(options.query_tile, queries - first);
        detail::QueryTileScan<T, K, Source> scan(source, keys, values, finite_values, mask, options);
        scan(first,
             std::span(result.rows).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows)),
             options.output ? result.output.data() + first * values.cols() : nullptr);
        if (!options.progress) return;
        const std::lock_guard lock(guard);
        done += rows;
        if (!options.progress(done, queries)) cancelled = true;
    };
    executor((queries + options.query_tile - 1) / options.query_tile, task);
    result.cancelled = cancelled && done < queries;
    return result;
}

/// Scans one head: logits scale q.k under a structural mask, and with `options.output` o = sum p v. See
/// `scan_tiles`. Throws `invalid_argument` if the output is asked for and the head has no values.
template <Index K = 8, Real T, Executor E = Sequential>
Scan<T, K> scan(const HeadView<T>& head, const Mask& mask = {}, const ScanOptions& options = {},
                const E& executor = {}) {
    detail::require(!options.output || head.has_values(), "scan", "the output needs values");
    return scan_tiles<K, T>(head.queries(), head.keys(), ProductTiles<T>(head), head.v(), mask, options,
                            executor);
}

} // namespace v0_1
} // namespace attnscope
