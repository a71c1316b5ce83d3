// A head in blocks of queries and keys, which other threads, processes and machines scan: what they find is merged.
#pragma once

#include <attnscope/streaming/column_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What a scan knows of some queries and of a run of the keys: their states, and the sums of values if the output is asked
/// for. The run grows by the blocks behind it, until it is the whole head and tells a `Scan`.
/// Invariant. `merge` is associative to rounding. Blocks are merged in the order of their keys alone, so that the bits do not
/// depend on who scanned what, and no block counts twice.
/// Cost. Of a query, memory of a `RowState` and of d_v accumulators.
/// Example, of a head whose keys are on two machines, a and b of them:
///     BlockScan<float> all = scan_block(HeadView(q, k_here, v_here), {0, 0, a + b}, mask, options);
///     all.merge(scan_block(HeadView(q, k_there, v_there), {0, a, a + b}, mask, options));
///     const Scan<float> result = all.finish(); // rows and output of every query
template <Real T, Index K = 8>
class BlockScan {
public:
    using A = Accumulator<T>;

    BlockScan() = default;
    /// Of states and sums that came from elsewhere.
    /// Shapes and units. sums [queries, d_v], or of no size without an output.
    /// Throws. `invalid_argument` unless `place` is one of a head, the keys fit into it and there is a row of sums for each state.
    BlockScan(const BlockPlace& place, Index keys, std::vector<RowState<T, K>> rows, Matrix<A> sums)
        : place_(place), keys_(keys), rows_(std::move(rows)), sums_(std::move(sums)) {
        detail::require(place.query >= 0 && place.key >= 0 && keys >= 0 && keys <= place.keys - place.key,
                        "BlockScan", "the block must lie in its head: first key, keys, keys of the head",
                        place.key, keys, place.keys);
        detail::require(sums_.size() == 0 || sums_.rows() == static_cast<Index>(rows_.size()), "BlockScan",
                        "there must be one row of sums for each query", sums_.rows(), rows_.size());
    }

    const BlockPlace& place() const { return place_; }
    Index queries() const { return static_cast<Index>(rows_.size()); }
    Index keys() const { return keys_; } ///< so far
    std::span<const RowState<T, K>> rows() const { return rows_; }
    /// [queries, d_v], or of no size without an output. sum e^{z - m} v, m the largest logit of the row so far; where keys
    /// are at +inf, the sum of their values; where a logit is NaN, NaN.
    const Matrix<A>& sums() const { return sums_; }

    /// Adds the block behind, of the same queries.
    /// Cost. O(queries (K + d_v)).
    /// Throws. `invalid_argument` for other queries, another head or width, and unless its keys begin where these end.
    void merge(const BlockScan& next) {
        detail::require(
            next.place_.query == place_.query && next.queries() == queries() && next.place_.keys == place_.keys,
            "BlockScan::merge", "both must be of the same queries of one head: first query, queries",
            next.place_.query, next.queries());
        detail::require(next.place_.key == place_.key + keys_, "BlockScan::merge",
                        "the next block must begin where this one ends: its first key, end", next.place_.key,
                        place_.key + keys_);
        detail::require(next.sums_.rows() == sums_.rows() && next.sums_.cols() == sums_.cols(),
                        "BlockScan::merge", "both must have an output, of one width, or none",
                        next.sums_.cols(), sums_.cols());
        for (Index i = 0; i < queries(); ++i) {
            RowState<T, K>& row = detail::at(rows_, i);
            const RowState<T, K>& other = detail::at(next.rows_, i);
            const RowState<T, K> before = row;
            row.merge(other);
            if (sums_.size() == 0) continue;
            switch (row.status()) {
            case RowStatus::empty:
                break;
            case RowStatus::nan:
                sums_.row(i).setConstant(std::numeric_limits<A>::quiet_NaN());
                break;
            case RowStatus::infinite: // beside such keys the others weigh nothing
                if (before.infinite_keys() == 0)
                    sums_.row(i) = next.sums_.row(i);
                else if (other.infinite_keys() > 0)
                    sums_.row(i) += next.sums_.row(i);
                break;
            case RowStatus::normal:
                add_normal(i, before, other, next);
            }
        }
        keys_ += next.keys_;
    }

    /// The scan of these queries, once all keys are there. Row i is that of query place().query + i.
    /// Shapes and units. `sink_exponent`: the logit of a learned sink over the temperature.
    /// Throws. `invalid_argument` if keys are missing, and for a sink that is NaN or +inf.
    Scan<T, K> finish(std::optional<double> sink_exponent = {}) const {
        detail::require(place_.key == 0 && keys_ == place_.keys, "BlockScan::finish",
                        "all keys must be there: first, end, keys of the head", place_.key, place_.key + keys_,
                        place_.keys);
        detail::require(!sink_exponent || *sink_exponent < std::numeric_limits<double>::infinity(),
                        "BlockScan::finish", "a sink logit must be finite or -inf", sink_exponent.value_or(0));
        Scan<T, K> result;
        result.rows = rows_;
        result.sink_exponent = sink_exponent;
        result.all = result.done = queries();
        if (sums_.size() > 0) result.output.resize(queries(), sums_.cols());
        for (Index i = 0; sums_.size() > 0 && i < queries(); ++i)
            detail::write_output<T, K>(
                detail::at(rows_, i), RowIn<A>(sums_.row(i).data(), static_cast<std::size_t>(sums_.cols())),
                sink_exponent, RowOut<T>(result.output.row(i).data(), static_cast<std::size_t>(sums_.cols())));
        return result;
    }

private:
    /// Both parts have only finite logits and -inf.
    void add_normal(Index i, const RowState<T, K>& mine, const RowState<T, K>& other, const BlockScan& next) {
        if (other.finite_keys() == 0) return;
        if (mine.finite_keys() == 0) {
            sums_.row(i) = next.sums_.row(i);
            return;
        }
        const A apart = A(mine.leading_logit(0)) - A(other.leading_logit(0));
        // A factor of 0 drops what may be no number: weightless, as hidden keys are.
        const A own = std::exp(std::min(apart, A(0))), others = std::exp(std::min(-apart, A(0)));
        if (own == A(0))
            sums_.row(i) = next.sums_.row(i);
        else if (others > A(0))
            sums_.row(i) = own * sums_.row(i) + others * next.sums_.row(i);
    }

    BlockPlace place_;
    Index keys_ = 0;
    std::vector<RowState<T, K>> rows_;
    Matrix<A> sums_;
};

/// Scans a block of a head: queries and keys of `head` are those of the block. See `scan`; a sink stands beside whole rows,
/// and is given to `BlockScan::finish`.
/// Shapes and units. `place`: of the block in the head that `mask` and `options.bias` are about.
/// Cost. As of `scan`.
/// Throws. `invalid_argument` for a block that does not lie in its head, if the output is asked for and the head has no values,
/// for sinks among the options, and if `options.progress` ends it: half a block is none.
/// Example: `scan_block(HeadView(q.middleRows(4096, 1024), k, v), {4096, 0, k.rows()}, Mask::causal())`
template <Index K = 8, HeadLike H, Executor E = Sequential>
BlockScan<detail::ScalarOfHead<H>, K> scan_block(const H& head, const BlockPlace& place, const Mask& mask = {},
                                                 const ScanOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    detail::require(!options.output || head.has_values(), "scan_block", "the output needs values");
    detail::require(!options.sink_logit && options.sink_logits.empty(), "scan_block",
                    "a sink belongs to whole rows: give it to BlockScan::finish");
    detail::require(place.query >= 0 && place.key >= 0 && head.keys() <= place.keys - place.key, "scan_block",
                    "the block must lie in its head: first key, keys, keys of the head", place.key, head.keys(),
                    place.keys);
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    const ProductTiles<T> source(asked.head, executor);
    const StoredRows<T> values(head.v());
    const TileOptions tiles = detail::checked_tiles(asked.options.tiles(), head.keys());
    const detail::LogitMap<T> map("scan_block", asked.options);
    const bool finite = options.output && values.all_finite();
    std::vector<RowState<T, K>> rows(static_cast<std::size_t>(head.queries()));
    Matrix<Accumulator<T>> sums;
    if (options.output) sums.resize(head.queries(), values.cols());
    detail::ProgressGate gate(tiles.progress, head.queries());
    using Tile = detail::QueryTileScan<T, K, ProductTiles<T>>;
    detail::WorkspacePool<typename Tile::Workspace> workspaces;
    const auto task = [&](Index number) {
        if (gate.stopped()) return;
        const Index first = number * tiles.query_tile,
                    count = std::min(tiles.query_tile, head.queries() - first);
        workspaces.use([&](typename Tile::Workspace& workspace) {
            Tile scan(source, map, place, head.keys(), values, finite, mask, tiles.key_tile, workspace);
            scan(first,
                 std::span(rows).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
                 options.output, [&](Index i, RowIn<Accumulator<T>> of_row) {
                     std::copy(of_row.begin(), of_row.end(), sums.row(first + i).data());
                 });
        });
        gate.pass(first, first + count);
    };
    executor((head.queries() + tiles.query_tile - 1) / tiles.query_tile, task);
    detail::require(!gate.extent().cancelled, "scan_block", "progress has ended it: half a block is none");
    return {place, head.keys(), std::move(rows), std::move(sums)};
}

/// What the keys of a block of a head collect from its queries: see `scan_column_mass`. Of other queries the sums are merged,
/// in their order; of other keys they stand side by side.
/// Shapes and units. `totals` [queries of the block]: the log-sum-exp of the whole row of each.
/// Cost. As of `scan_column_mass`.
/// Throws. `invalid_argument` for a block that does not lie in its head, another number of totals, and if
/// `options.progress` ends it. Whether the totals fit the logits is only seen of all keys: `ColumnSums::mean` looks.
template <HeadLike H, RowLike Totals, Executor E = Sequential>
ColumnSums scan_block_columns(const H& head, const BlockPlace& place, const Totals& totals,
                              const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    detail::require(place.query >= 0 && place.key >= 0 && head.keys() <= place.keys - place.key,
                    "scan_block_columns", "the block must lie in its head: first key, keys, keys of the head",
                    place.key, head.keys(), place.keys);
    const RowHolder<RowScalar<Totals>> held(totals);
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    auto [sums, extent] = detail::column_sums<T>("scan_block_columns", place, head.queries(), head.keys(),
                                                 ProductTiles<T>(asked.head, executor), held.get(), mask,
                                                 asked.options, executor);
    detail::require(!extent.cancelled, "scan_block_columns", "progress has ended it: half a block is none");
    return std::move(sums);
}

/// A head cut into blocks, those without a pair that sees each other left out, in the order in which they are merged: the keys
/// of one block of queries, then those of the next. The cut does not depend on who scans, and so neither do the bits.
/// Example, on threads of your own, `head_of(queries, keys)` being the rows of q, and those of k and v, of these ranges:
///     const BlockGrid grid(queries, keys, mask, {.queries = 4096, .keys = 16384});
///     BlockMerger<float> merger(grid);
///     for (Index i = 0; i < grid.size(); ++i)
///         merger.take(scan_block(head_of(grid[i].queries, grid[i].keys), grid.place(i), mask));
///     const Scan<float> merged = merger.finish();
class BlockGrid {
public:
    /// Of a block.
    struct Size {
        Index queries = 16384, keys = 65536;
    };
    struct Block {
        KeyRange queries, keys;
    };

    /// Cost. O(queries keys/size.keys).
    /// Throws. `invalid_argument` for counts below 0 and sizes below 1.
    BlockGrid(Index queries, Index keys, const Mask& mask, const Size& size) : queries_(queries), keys_(keys) {
        detail::require(queries >= 0 && keys >= 0, "BlockGrid", "queries and keys must be >= 0", queries, keys);
        detail::require(size.queries >= 1 && size.keys >= 1, "BlockGrid", "a block must have queries and keys",
                        size.queries, size.keys);
        for (Index query = 0; query < queries;) {
            const KeyRange own{query, query + std::min(size.queries, queries - query)};
            for (Index key = 0; key < keys;) {
                const KeyRange part{key, key + std::min(size.keys, keys - key)};
                bool seen = false;
                for (Index i = own.begin; i < own.end && !seen; ++i)
                    seen = detail::clipped(mask.visible(i, keys), part.begin, part.end).count() > 0;
                if (seen) blocks_.push_back({own, part});
                key = part.end;
            }
            query = own.end;
        }
    }
    BlockGrid(Index queries, Index keys, const Mask& mask = {}) : BlockGrid(queries, keys, mask, Size{}) {}

    Index size() const { return static_cast<Index>(blocks_.size()); }
    const Block& operator[](Index i) const { return detail::at(blocks_, i); }
    BlockPlace place(Index i) const { return {(*this)[i].queries.begin, (*this)[i].keys.begin, keys_}; }
    Index queries() const { return queries_; } ///< of the head
    Index keys() const { return keys_; }

private:
    Index queries_, keys_;
    std::vector<Block> blocks_;
};

/// The scan of a head from those of its blocks, which come in the order of the grid. The grid must outlive it.
/// Cost. Memory of the result, and of one block.
template <Real T, Index K = 8>
class BlockMerger {
public:
    using A = Accumulator<T>;

    explicit BlockMerger(const BlockGrid& grid, std::optional<double> sink_exponent = {})
        : grid_(grid), sink_(sink_exponent) {
        result_.rows.resize(static_cast<std::size_t>(grid.queries()));
        result_.sink_exponent = sink_exponent;
        result_.all = result_.done = grid.queries();
    }

    /// The next block.
    /// Throws. `invalid_argument` unless it is the next of the grid, and for an output of another width.
    void take(BlockScan<T, K> block) {
        detail::require(next_ < grid_.size() && block.place() == grid_.place(next_) &&
                            block.keys() == grid_[next_].keys.size() &&
                            block.queries() == grid_[next_].queries.size(),
                        "BlockMerger::take", "blocks must come in the order of the grid: number, first key",
                        next_, block.place().key);
        if (next_ == 0)
            result_.output.setZero(block.sums().cols() > 0 ? grid_.queries() : 0, block.sums().cols());
        detail::require(block.sums().cols() == result_.output.cols(), "BlockMerger::take",
                        "all blocks must have an output, of one width, or none", block.sums().cols(),
                        result_.output.cols());
        const bool first = next_ == 0 || grid_[next_ - 1].queries.begin != grid_[next_].queries.begin;
        ++next_;
        if (first) queries_ = nothing(block.place().query, block.queries(), 0, 0);
        skip_to(block.place().key);
        queries_.merge(block);
        if (next_ < grid_.size() && grid_[next_].queries.begin == block.place().query) return;
        skip_to(grid_.keys());
        Scan<T, K> done = queries_.finish(sink_);
        const Index begin = block.place().query;
        std::copy(done.rows.begin(), done.rows.end(), result_.rows.begin() + begin);
        if (done.output.size() > 0) result_.output.middleRows(begin, done.output.rows()) = done.output;
    }

    /// The scan.
    /// Throws. `invalid_argument` unless all blocks have come.
    Scan<T, K> finish() {
        detail::require(next_ == grid_.size(), "BlockMerger::finish", "all blocks must have come: so many, of",
                        next_, grid_.size());
        return std::move(result_);
    }

private:
    /// A block in which nothing is seen.
    BlockScan<T, K> nothing(Index query, Index queries, Index key, Index keys) const {
        const Index width = result_.output.cols();
        return {{query, key, grid_.keys()},
                keys,
                std::vector<RowState<T, K>>(static_cast<std::size_t>(queries)),
                Matrix<A>::Zero(width > 0 ? queries : 0, width)};
    }
    void skip_to(Index key) {
        const Index end = queries_.keys();
        if (key > end) queries_.merge(nothing(queries_.place().query, queries_.queries(), end, key - end));
    }

    const BlockGrid& grid_;
    std::optional<double> sink_;
    Index next_ = 0;
    BlockScan<T, K> queries_;
    Scan<T, K> result_;
};

/// What keys collect from all queries, from the blocks of a grid in its order. The grid must outlive it.
class ColumnMerger {
public:
    explicit ColumnMerger(const BlockGrid& grid) : grid_(grid) {
        all_.weight = all_.seen = Row<double>::Zero(grid.keys());
    }
    /// The next block.
    /// Throws. `invalid_argument` unless its keys are those of the next block of the grid.
    void take(const ColumnSums& block) {
        detail::require(next_ < grid_.size() && block.first_key == grid_[next_].keys.begin &&
                            block.weight.size() == grid_[next_].keys.size(),
                        "ColumnMerger::take", "blocks must come in the order of the grid: number, first key",
                        next_, block.first_key);
        all_.weight.segment(block.first_key, block.weight.size()) += block.weight;
        all_.seen.segment(block.first_key, block.seen.size()) += block.seen;
        if (next_ == 0 || grid_[next_ - 1].queries.begin != grid_[next_].queries.begin)
            all_.rows_in_all += block.rows_in_all;
        ++next_;
    }
    /// Throws. `invalid_argument` unless all blocks have come, and as `ColumnSums::mean`.
    ColumnScan finish() const {
        detail::require(next_ == grid_.size(), "ColumnMerger::finish", "all blocks must have come: so many, of",
                        next_, grid_.size());
        return all_.mean();
    }

private:
    const BlockGrid& grid_;
    Index next_ = 0;
    ColumnSums all_;
};

} // namespace v0_2
} // namespace attnscope
