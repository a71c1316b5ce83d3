// Statistics of every row of a head without the queries x keys matrix.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/executor.hpp>
#include <attnscope/row/sink_statistics.hpp>
#include <attnscope/streaming/logit_tiles.hpp>
#include <attnscope/streaming/progress.hpp>
#include <attnscope/streaming/row_state.hpp>

#include <optional>
#include <ranges>

namespace attnscope {
inline namespace v0_2 {

/// Options of `scan` and its kin: those of every scan, and whether the output is asked for.
struct ScanOptions {
    Index query_tile = 0, key_tile = 1024; ///< see `TileOptions`; what each task holds
    bool output = false;                   ///< also o = sum p v
    ScanProgress progress = {};
    std::optional<double> scale = {}; ///< of q.k, that of the head unless given; a source has its own
    double temperature = 1;           ///< divides the logits
    LogitBias bias = {};              ///< added to scale q.k
    /// Of a learned sink, a key without value beside those of every row: o has e^{sink_logit/temperature} in its
    /// denominator, and `Scan::with_sink` tells the figures. Before the temperature; -inf: a sink without weight.
    std::optional<double> sink_logit = {};
    std::vector<double> sink_logits = {}; ///< one for each of many heads (`scan_heads`)

    TileOptions tiles() const { return {query_tile, key_tile, progress, scale, temperature, bias}; }
};

/// Where a block of a head begins, and how many keys the head has: masks, biases and keys are those of the whole head.
struct BlockPlace {
    Index query = 0, key = 0, keys = 0;
    friend bool operator==(const BlockPlace&, const BlockPlace&) = default;
};

/// What a scan tells.
template <Real T, Index K = 8>
struct Scan : ScanExtent {
    std::vector<RowState<T, K>> rows; ///< one for each query
    Matrix<T> output; ///< [queries, d_v] if asked for; 0 for queries that see no key, NaN for NaN rows
    std::optional<double> sink_exponent; ///< of the sink, over the temperature, as the logits in `rows` are

    /// The figures of a row beside the sink of the scan; without one, those of its keys.
    SinkStatistics<Accumulator<T>> with_sink(Index row) const {
        return {detail::at(rows, row).statistics(),
                sink_exponent.value_or(-std::numeric_limits<double>::infinity())};
    }

    /// Rows of a status, those that were reached.
    Index count(RowStatus status) const {
        Index found = 0;
        for (std::size_t i = 0; i < rows.size(); ++i)
            found += reached(static_cast<Index>(i)) && rows[i].status() == status;
        return found;
    }
};

namespace detail {

/// A query's visible keys inside [begin, end), as at most two ranges.
inline KeyRanges clipped(const KeyRanges& visible, Index begin, Index end) {
    const auto clip = [&](KeyRange range) {
        range.begin = std::clamp(range.begin, begin, end);
        range.end = std::clamp(range.end, range.begin, end);
        return range;
    };
    return {clip(visible.lead), clip(visible.body)};
}

/// One tile of queries of a scan of a block of a head. Queries and keys of the source and of the values are those of the block.
template <Real T, Index K, class Source>
class QueryTileScan {
public:
    using A = Accumulator<T>;
    /// What it works in; its contents mean nothing to the next.
    struct Workspace {
        std::vector<KeyRanges> visible;
        Eigen::Array<T, Eigen::Dynamic, 1> logits;
        Matrix<A> sums;
        std::vector<T> values;
    };
    QueryTileScan(const Source& source, const LogitMap<T>& map, const BlockPlace& place, Index keys,
                  const StoredRows<T>& values, bool finite_values, const Mask& mask, Index key_tile,
                  Workspace& workspace)
        : source_(source), map_(map), place_(place), keys_(keys), values_(values),
          finite_values_(finite_values), mask_(mask), key_tile_(key_tile),
          stride_(row_stride<T>(std::min(key_tile, keys))), visible_(workspace.visible),
          buffer_(workspace.logits), sums_(workspace.sums), room_(workspace.values) {}

    /// Scans queries first ... first + states.size() - 1. With `output`, gives output(i, sums) for each of them the sums of
    /// its values: sum e^{z - m} v, m its largest logit; sum v over its keys at +inf where there are any; NaN where a
    /// logit is.
    template <class Output>
    void operator()(Index first, std::span<RowState<T, K>> states, bool output, const Output& give) {
        const Index rows = static_cast<Index>(states.size()), width = values_.cols();
        visible_.clear();
        KeyRange seen{keys_, 0};
        for (Index i = 0; i < rows; ++i) {
            visible_.push_back(visible(first + i));
            if (visible_.back().count() == 0) continue;
            seen.begin = std::min(seen.begin, visible_.back().hull().begin);
            seen.end = std::max(seen.end, visible_.back().hull().end);
        }
        // Whole packets of keys are computed at once.
        constexpr Index whole = Packet<T>::size;
        seen.begin -= seen.begin % whole;
        seen.end = std::min(keys_, (seen.end + whole - 1) / whole * whole);
        if (buffer_.size() < rows * stride_) buffer_.resize(rows * stride_);
        if (output) sums_.setZero(rows, width);
        // Tiles end at multiples of their size, whatever the queries see.
        for (Index key = seen.begin, end = 0; key < seen.end; key = end) {
            end = std::min((key / key_tile_ + 1) * key_tile_, seen.end);
            const Index cols = end - key;
            if (std::none_of(visible_.begin(), visible_.end(), [&](const KeyRanges& ranges) {
                    return clipped(ranges, key, key + cols).count() > 0;
                }))
                continue;
            TileOut<T> tile(buffer_.data(), rows, cols, Eigen::OuterStride<>(stride_));
            source_(first, key, tile);
            for (Index i = 0; i < rows; ++i)
                map_(place_.query + first + i, place_.key + key,
                     RowOut<T>(tile.data() + i * stride_, static_cast<std::size_t>(cols)));
            if (output)
                add<true>(key, tile, states);
            else
                add<false>(key, tile, states);
            if (output) add_values(key, tile);
        }
        for (Index i = 0; output && i < rows; ++i) {
            finish(first + i, detail::at(states, i), i);
            give(i, RowIn<A>(sums_.data() + i * width, static_cast<std::size_t>(width)));
        }
    }

private:
    /// The keys of the block that a query of it sees, counted from its first.
    KeyRanges visible(Index query) const {
        KeyRanges ranges = clipped(mask_.visible(place_.query + query, place_.keys), place_.key,
                                   saturated_sum(place_.key, keys_));
        for (KeyRange* const range : {&ranges.lead, &ranges.body}) {
            range->begin -= place_.key;
            range->end -= place_.key;
        }
        return ranges;
    }

    /// Adds the keys of a tile to the states; with `terms`, leaves the terms of the output in it.
    template <bool terms>
    void add(Index key, TileOut<T>& tile, std::span<RowState<T, K>> states) {
        PieceQueue<T, K> queue;
        const auto scale = [&](Index i, A factor) {
            if (terms && factor != A(1)) sums_.row(i) *= factor;
        };
        for (Index i = 0; i < tile.rows(); ++i) {
            T* const row = tile.data() + i * stride_;
            const KeyRanges ranges = clipped(detail::at(visible_, i), key, key + tile.cols());
            const auto span = [&](const KeyRange& range) {
                return RowOut<T>(row + (range.begin - key), static_cast<std::size_t>(range.size()));
            };
            const auto push = [&](const KeyRange& range) {
                if (range.size() == 0) return;
                const RowOut<T> z = span(range);
                queue.template add<terms>(detail::at(states, i), z, place_.key + range.begin, z.data(), i,
                                          scale);
            };
            // The terms of the first range then stand beside the largest logit of both.
            const bool again = terms && ranges.lead.size() > 0 && ranges.body.size() > 0;
            push(ranges.lead);
            if (again) queue.template finish<terms>(scale);
            push(ranges.body);
            if (again)
                queue.template finish<terms>([&](Index, A factor) {
                    for (T& x : span(ranges.lead)) x = static_cast<T>(A(x) * factor);
                    scale(i, factor);
                });
            if (terms) clear_hidden(row, key, tile.cols(), ranges);
        }
        queue.template finish<terms>(scale);
    }

    /// Zeros for the keys of a row of a tile that are not seen.
    static void clear_hidden(T* row, Index key, Index cols, const KeyRanges& ranges) {
        Index hidden = key;
        for (const KeyRange& range : {ranges.lead, ranges.body}) {
            if (range.size() == 0) continue;
            std::fill(row + (hidden - key), row + (range.begin - key), T(0));
            hidden = range.end;
        }
        std::fill(row + (hidden - key), row + cols, T(0));
    }

    void add_values(Index key, const TileOut<T>& tile) {
        const MatrixView<T> values = values_.read(key, tile.cols(), room_);
        if (finite_values_) {
            detail::add_product<T>(tile.data(), stride_, tile.rows(), tile.cols(), values, 0, sums_.data());
            return;
        }
        // A product with a weight of 0 would keep NaN and infinity alive.
        for (Index i = 0; i < tile.rows(); ++i)
            for (Index j = 0; j < tile.cols(); ++j)
                if (tile(i, j) != T(0)) sums_.row(i) += A(tile(i, j)) * values.map().row(j).template cast<A>();
    }

    /// What the sums of a row are if it is not normal.
    void finish(Index query, const RowState<T, K>& state, Index row) {
        auto sums = sums_.row(row);
        switch (state.status()) {
        case RowStatus::normal:
            return;
        case RowStatus::nan:
            sums.setConstant(std::numeric_limits<A>::quiet_NaN());
            return;
        case RowStatus::empty:
            sums.setZero();
            return;
        case RowStatus::infinite:
            break;
        }
        // The keys at +inf share the mass: once more through this one row, which is rare.
        sums.setZero();
        std::vector<T> logits(static_cast<std::size_t>(key_tile_));
        const KeyRanges seen = visible(query);
        for (Index key = 0; key < keys_; key += key_tile_) {
            const Index cols = std::min(key_tile_, keys_ - key);
            const KeyRanges ranges = clipped(seen, key, key + cols);
            if (ranges.count() == 0) continue;
            source_(query, key, TileOut<T>(logits.data(), 1, cols, Eigen::OuterStride<>(cols)));
            map_(place_.query + query, place_.key + key,
                 RowOut<T>(logits.data(), static_cast<std::size_t>(cols)));
            ranges.for_each([&](Index at) {
                if (detail::at(logits, at - key) == std::numeric_limits<T>::infinity())
                    sums += values_.read(at, 1, room_).map().row(0).template cast<A>();
            });
        }
    }

    const Source& source_;
    const LogitMap<T>& map_;
    BlockPlace place_;
    Index keys_; ///< of the block
    const StoredRows<T>& values_;
    bool finite_values_;
    const Mask& mask_;
    Index key_tile_, stride_;
    std::vector<KeyRanges>& visible_;
    Eigen::Array<T, Eigen::Dynamic, 1>& buffer_;
    Matrix<A>& sums_;
    std::vector<T>& room_;
};

/// The output of a row from the sums of its values, as `QueryTileScan` gives them. `sink`: over the temperature.
template <Real T, Index K>
void write_output(const RowState<T, K>& state, RowIn<Accumulator<T>> sums, std::optional<double> sink,
                  RowOut<T> out) {
    using A = Accumulator<T>;
    A mass = 1, share = 1;
    if (state.status() == RowStatus::normal) {
        mass = 1 + state.statistics().r;
        if (sink) share = SinkStatistics<A>(state.statistics(), *sink).key_mass();
    } else if (state.status() == RowStatus::infinite) {
        mass = static_cast<A>(state.infinite_keys());
    }
    for (std::size_t c = 0; c < out.size(); ++c) out[c] = static_cast<T>(sums[c] / mass * share);
}

/// The logits of a head among many: its keys are packed when its first tile begins, and let go of behind its last, so that
/// only as many heads are packed as there are tasks at once.
template <Real T>
class TilesInTurn {
public:
    explicit TilesInTurn(const StoredHead<T>& head) : head_(head) {}
    void begin() const {
        const std::lock_guard lock(guard_);
        if (!tiles_) tiles_.emplace(head_);
    }
    void operator()(Index query, Index key, TileOut<T> tile) const { (*tiles_)(query, key, tile); }
    /// Behind each of its `all` tiles of queries.
    void end(Index all) const {
        const std::lock_guard lock(guard_);
        if (++done_ == all) tiles_.reset();
    }

private:
    StoredHead<T> head_;
    mutable std::mutex guard_;
    mutable std::optional<ProductTiles<T>> tiles_;
    mutable Index done_ = 0;
};

/// One head of a scan, and where its figures go.
template <Real T, Index K, class Source>
struct ScanJob {
    const Source& source;
    Index queries, keys;
    StoredRows<T> values;
    const Mask& mask;
    Scan<T, K>& result;
    bool finite_values = true;
};

template <Real T, Index K>
void allocate(Scan<T, K>& result, Index queries, Index width, bool output) {
    attempt(
        [&] {
            result.rows.resize(static_cast<std::size_t>(queries));
            if (output) result.output.setZero(queries, width);
        },
        [&] { // bad_alloc or length_error
            fail("scan", "the result needs more memory than there is: queries, bytes a query", queries,
                 sizeof(RowState<T, K>) + (output ? static_cast<std::size_t>(width) * sizeof(T) : 0));
        });
}

/// All heads, one task for each tile of queries. The workspaces of tasks are handed on from task to task.
template <Real T, Index K, class Source, Executor E>
void run_scan(std::vector<ScanJob<T, K, Source>>& jobs, const ScanOptions& given, E&& executor) {
    using Tile = QueryTileScan<T, K, Source>;
    Index longest = 0;
    for (const auto& job : jobs) longest = std::max(longest, job.keys);
    const TileOptions tiles = checked_tiles(given.tiles(), longest);
    std::vector<Index> first_tile{0}, first_row{0};
    for (auto& job : jobs) {
        require(job.queries >= 0 && job.keys >= 0, "scan", "queries and keys must be >= 0", job.queries,
                job.keys);
        require(!given.output || job.values.rows() == job.keys, "scan", "values must have one row for each key",
                job.values.rows(), job.keys);
        if (job.result.rows.empty()) allocate(job.result, job.queries, job.values.cols(), given.output);
        job.finite_values = given.output && job.values.all_finite();
        first_tile.push_back(first_tile.back() + (job.queries + tiles.query_tile - 1) / tiles.query_tile);
        first_row.push_back(first_row.back() + job.queries);
    }
    const LogitMap<T> map("scan", given);
    require(given.sink_logits.empty() || (given.sink_logits.size() == jobs.size() && !given.sink_logit), "scan",
            "sink_logits must have one entry for each head, or sink_logit be the same for all",
            given.sink_logits.size(), jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        std::optional<double> sink = given.sink_logit;
        if (!given.sink_logits.empty()) sink = given.sink_logits[i];
        if (!sink) continue;
        *sink /= given.temperature;
        require(*sink < std::numeric_limits<double>::infinity(), "scan",
                "a sink logit must be finite or -inf, over the temperature too", *sink);
        jobs[i].result.sink_exponent = sink;
    }
    ProgressGate gate(tiles.progress, first_row.back());
    detail::WorkspacePool<typename Tile::Workspace> workspaces;
    const auto task = [&](Index tile) {
        if (gate.stopped()) return;
        const auto after = std::upper_bound(first_tile.begin(), first_tile.end(), tile);
        const auto number = static_cast<std::size_t>(after - first_tile.begin() - 1);
        auto& job = jobs[number];
        const Index first = (tile - *(after - 1)) * tiles.query_tile,
                    rows = std::min(tiles.query_tile, job.queries - first);
        if constexpr (requires { job.source.begin(); }) job.source.begin();
        workspaces.use([&](typename Tile::Workspace& workspace) {
            Tile scan(job.source, map, {0, 0, job.keys}, job.keys, job.values, job.finite_values, job.mask,
                      tiles.key_tile, workspace);
            const auto states = std::span(job.result.rows)
                                    .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
            scan(first, states, given.output, [&](Index i, RowIn<Accumulator<T>> sums) {
                write_output<T, K>(detail::at(states, i), sums, job.result.sink_exponent,
                                   RowOut<T>(job.result.output.row(first + i).data(), sums.size()));
            });
        });
        if constexpr (requires { job.source.end(Index(1)); })
            job.source.end(first_tile[number + 1] - first_tile[number]);
        gate.pass(first_row[number] + first, first_row[number] + first + rows);
    };
    executor(first_tile.back(), task);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        Scan<T, K>& result = jobs[i].result;
        static_cast<ScanExtent&>(result) = gate.extent(first_row[i], first_row[i + 1]);
        for_each_missing(result, [&](Index row) {
            constexpr T nan = std::numeric_limits<T>::quiet_NaN();
            detail::at(result.rows, row).add(RowIn<T>(&nan, 1), 0);
            if (given.output) result.output.row(row).setConstant(nan);
        });
    }
}

template <Index K, Real T, LogitSource<T> Source, class E>
Scan<T, K> scan_stored(Index queries, Index keys, const Source& source, const StoredRows<T>& values,
                       const Mask& mask, const ScanOptions& options, E&& executor) {
    Scan<T, K> result;
    std::vector<ScanJob<T, K, Source>> jobs{{source, queries, keys, values, mask, result}};
    run_scan<T, K>(jobs, options, executor);
    return result;
}

} // namespace detail

/// Scans logits that a source gives tile by tile: statistics of every row, and its K largest logits with
/// their keys.
/// Formula. Figures are those of `row_statistics` at temperature 1, to the same accuracy. Rows do not depend
/// on the executor, nor on the number of threads.
/// A sink is beside the keys of every row, once, when all of them are known: `rows` are about the keys, and
/// `with_sink(row)` tells of both.
/// Shapes and units. `values` [keys, d_v] is looked at only with `options.output`. Tiles that no query of
/// theirs sees are not asked for.
/// Special rows. As of `row_statistics`. Rows that `options.progress` kept from being scanned are NaN rows.
/// Cost. One product and exponential for each logit; memory O(queries K + threads query_tile (key_tile +
/// d_v)).
/// Throws. `invalid_argument` for sizes that do not fit each other or the memory, before any work.
template <Index K = 8, Real T, LogitSource<T> Source, Executor E = Sequential>
Scan<T, K> scan_tiles(Index queries, Index keys, const Source& source, MatrixView<T> values = {},
                      const Mask& mask = {}, const ScanOptions& options = {}, E&& executor = {}) {
    return detail::scan_stored<K, T>(queries, keys, source, StoredRows<T>(values), mask, options, executor);
}
/// The same without values, of a source that takes tiles of one scalar only.
template <Index K = 8, class Source, Executor E = Sequential, Real T = detail::TileScalar<void, Source>>
Scan<T, K> scan_tiles(Index queries, Index keys, const Source& source, const Mask& mask = {},
                      const ScanOptions& options = {}, E&& executor = {}) {
    return scan_tiles<K, T>(queries, keys, source, MatrixView<T>(), mask, options, executor);
}

/// Scans one head: logits scale q.k under a structural mask, and with `options.output` o = sum p v. See
/// `scan_tiles`. For a softcap:
///     scan_tiles(head.queries(), head.keys(), mapped_tiles(ProductTiles(head), softcap(50)), head.v(), mask)
/// Cost. As of `scan_tiles`; memory for a copy of the keys besides.
/// Throws. `invalid_argument` if the output is asked for and the head has no values.
/// Example: `scan(head, Mask::causal(), {.temperature = 0.5, .bias = alibi})`
template <Index K = 8, HeadLike H, Executor E = Sequential>
Scan<detail::ScalarOfHead<H>, K> scan(const H& head, const Mask& mask = {}, const ScanOptions& options = {},
                                      E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    detail::require(!options.output || head.has_values(), "scan", "the output needs values");
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return detail::scan_stored<K, T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor),
                                     head.v(), mask, asked.options, executor);
}

/// Heads side by side: a vector, an array, a span of `HeadView` or `StoredHead`.
template <class R>
concept HeadList =
    std::ranges::contiguous_range<R> && std::ranges::sized_range<R> && HeadLike<std::ranges::range_value_t<R>>;

/// The same for q [queries, d], k [keys, d] and v [keys, d_v], any Eigen expressions of one scalar; what is
/// not row-major is copied for the call.
/// Example: `scan(q, k, v, Mask::causal(), {.output = true})`
template <Index K = 8, MatrixExpr Q, MatrixExpr Keys, MatrixExpr V, Executor E = Sequential>
requires std::same_as<ScalarOf<Q>, ScalarOf<Keys>> && std::same_as<ScalarOf<Q>, ScalarOf<V>>
Scan<ScalarOf<Q>, K> scan(const Q& q, const Keys& k, const V& v, const Mask& mask = {},
                          const ScanOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> queries(q), keys(k), values(v);
    return scan<K>(HeadView<T>(queries.get(), keys.get(), values.get()), mask, options, executor);
}
/// The same without values.
template <Index K = 8, MatrixExpr Q, MatrixExpr Keys, Executor E = Sequential>
requires std::same_as<ScalarOf<Q>, ScalarOf<Keys>>
Scan<ScalarOf<Q>, K> scan(const Q& q, const Keys& k, const Mask& mask = {}, const ScanOptions& options = {},
                          E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> queries(q), keys(k);
    return scan<K>(HeadView<T>(queries.get(), keys.get()), mask, options, executor);
}

/// Scans many heads, whose lengths may differ (a ragged batch), with one executor over all of their queries:
/// one result for each. See `scan`.
/// Shapes and units. `range`: see `HeadList`; `masks`: one for each head, or one for all. `options.progress` counts the queries of all heads.
/// Cost. As of `scan`; memory for a copy of the keys of a few heads besides: of those that tasks are at work on.
/// Throws. `invalid_argument` also for another number of masks.
template <Index K = 8, HeadList Heads, Executor E = Sequential>
auto scan_heads(const Heads& range, std::span<const Mask> masks, const ScanOptions& options = {},
                E&& executor = {}) {
    const std::span heads(std::data(range), std::size(range));
    using T = detail::ScalarOfHead<std::ranges::range_value_t<Heads>>;
    detail::require(masks.size() == 1 || masks.size() == heads.size(), "scan_heads",
                    "there must be one mask, or one for each head", masks.size(), heads.size());
    std::vector<Scan<T, K>> results(heads.size());
    for (const auto& head : heads)
        detail::require(!options.output || head.has_values(), "scan_heads", "the output needs values");
    std::vector<std::optional<detail::TilesInTurn<T>>> sources(heads.size());
    executor(static_cast<Index>(heads.size()), [&](Index number) { // fresh memory is slow: on all threads
        const auto i = static_cast<std::size_t>(number);
        sources[i].emplace(detail::take_scale(StoredHead<T>(heads[i]), options).head);
        detail::allocate(results[i], heads[i].queries(), heads[i].v().cols(), options.output);
    });
    std::vector<detail::ScanJob<T, K, detail::TilesInTurn<T>>> jobs;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        jobs.push_back({*sources[i], heads[i].queries(), heads[i].keys(), heads[i].v(),
                        masks[masks.size() == 1 ? 0 : i], results[i]});
    }
    ScanOptions without_scale = options;
    without_scale.scale.reset();
    detail::run_scan<T, K>(jobs, without_scale, executor);
    return results;
}

/// The same under one mask for all.
template <Index K = 8, HeadList Heads, Executor E = Sequential>
auto scan_heads(const Heads& heads, const Mask& mask = {}, const ScanOptions& options = {}, E&& executor = {}) {
    return scan_heads<K>(heads, std::span<const Mask>(&mask, 1), options, executor);
}

/// The heads of one layer, grouped queries included, under one mask.
template <Index K = 8, InputScalar S, Executor E = Sequential>
std::vector<Scan<ComputeScalar<S>, K>> scan_heads(const HeadGroup<S>& group, const Mask& mask = {},
                                                  const ScanOptions& options = {}, E&& executor = {}) {
    std::vector<HeadView<S>> heads;
    for (Index i = 0; i < group.heads(); ++i) heads.push_back(group[i]);
    return scan_heads<K>(heads, mask, options, executor);
}

} // namespace v0_2
} // namespace attnscope
