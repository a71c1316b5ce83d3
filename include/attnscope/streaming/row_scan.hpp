// Whole rows of logits, a few at a time: for what needs a row more than once, or all of it.
#pragma once

#include <attnscope/streaming/scan.hpp>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

/// A query's row in a tile of logits that begins at key `first_key`: the hull of the keys that it sees, -inf
/// where the mask hides one.
template <Real T>
struct VisibleRow {
    Index first; ///< key
    RowOut<T> logits;
};
template <Real T>
VisibleRow<T> visible_row(const KeyRanges& visible, Index first_key, T* tile_row) {
    const KeyRange hull = visible.hull();
    T* const row = tile_row + (hull.empty() ? 0 : hull.begin - first_key);
    if (!visible.lead.empty() && !visible.body.empty())
        std::fill(row + (visible.lead.end - hull.begin), row + (visible.body.begin - hull.begin),
                  -std::numeric_limits<T>::infinity());
    return {hull.begin, RowOut<T>(row, static_cast<std::size_t>(hull.size()))};
}

/// Asks a source for the logits of some rows, of at most key_tile keys at once, and maps them. Pieces end at
/// multiples of their size, where packets end.
template <Real T, LogitSource<T> Source>
void fill_tile(const Source& source, const LogitMap<T>& map, Index query, Index first_key, Index key_tile,
               TileOut<T> tile) {
    const Index last = first_key + tile.cols();
    for (Index key = first_key, end = 0; key < last; key = end) {
        end = std::min((key / key_tile + 1) * key_tile, last);
        source(query, key,
               TileOut<T>(tile.data() + (key - first_key), tile.rows(), end - key,
                          Eigen::OuterStride<>(tile.outerStride())));
    }
    for (Index i = 0; i < tile.rows(); ++i)
        map(query + i, first_key,
            RowOut<T>(tile.data() + i * tile.outerStride(), static_cast<std::size_t>(tile.cols())));
}

/// Gives visit(query, key, tile) the logits of queries query, query + 1, ..., consecutive ones among the
/// `chosen`, and of keys key, key + 1, ..., all that one of them sees. Options and errors are those of
/// `scan_rows_of`.
template <Real T, LogitSource<T> Source, class Visit, Executor E>
ScanExtent scan_row_tiles(std::span<const Index> chosen, Index keys, const Source& source, const Visit& visit,
                          const Mask& mask, const TileOptions& options, E&& executor) {
    for (const Index query : chosen) require(query >= 0, "scan_rows_of", "queries must be >= 0", query);
    require(keys >= 0, "scan_rows_of", "keys must be >= 0", keys);
    checked_tiles(options, keys);
    const LogitMap<T> map("scan_rows_of", options);
    const Index count = static_cast<Index>(chosen.size());
    const Index held = options.query_tile > 0
                           ? options.query_tile
                           : std::clamp<Index>((Index(1) << 22) / std::max<Index>(1, keys), 1, 32);
    ProgressGate gate(options.progress, count);
    WorkspacePool<Eigen::Array<T, Eigen::Dynamic, 1>> workspaces;
    const auto task = [&](Index number) {
        if (gate.stopped()) return;
        const Index end = std::min(count, (number + 1) * held);
        workspaces.use([&](Eigen::Array<T, Eigen::Dynamic, 1>& workspace) {
            for (Index at = number * held, next = at; at < end; at = next) {
                const Index first = detail::at(chosen, at);
                while (next < end && detail::at(chosen, next) == first + (next - at)) ++next;
                KeyRange seen{keys, 0};
                for (Index i = at; i < next; ++i) {
                    const KeyRange hull = mask.visible(first + (i - at), keys).hull();
                    if (hull.empty()) continue;
                    seen = {std::min(seen.begin, hull.begin), std::max(seen.end, hull.end)};
                }
                const Index rows = next - at, cols = seen.size();
                const Index stride = (cols + 15) / 16 * 16 + 16; // not all rows in the same set of the cache
                if (workspace.size() < rows * stride) workspace.resize(rows * stride);
                const TileOut<T> tile(workspace.data(), rows, cols, Eigen::OuterStride<>(stride));
                fill_tile<T>(source, map, first, seen.begin, options.key_tile, tile);
                visit(first, seen.begin, tile);
            }
        });
        gate.pass(number * held, end);
    };
    executor((count + held - 1) / held, task);
    return gate.extent();
}

} // namespace detail

/// Whole rows of logits, a few at a time, for what needs a row more than once, or all of it.
/// Shapes and units. Gives visit(query, first_key, logits) the logits of each of the `chosen` queries,
/// ascending or not, over the hull of the keys that it sees: logits[i] is that of key first_key + i, -inf
/// where the mask hides it. The visitor may overwrite them. Each query is visited once; several at once by an
/// executor with threads, so that results belong into places of their own. `options.query_tile` queries are
/// held at once (0: 32, fewer if their rows are longer than 2^22 logits), whole rows of them, and the source
/// is asked for `key_tile` keys of theirs at a time. The extent counts places in `chosen`.
/// Special rows. A query that sees no key comes with an empty row.
/// Cost. One product for each logit of the hull; memory O(threads query_tile keys).
/// Throws. `invalid_argument` for queries < 0, keys < 0, and tiles without keys or of more than 2^30 logits.
template <class Asked = void, class Source, class Visit, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, Source>>
ScanExtent scan_rows_of(std::span<const Index> chosen, Index keys, const Source& source, const Visit& visit,
                        const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    return detail::scan_row_tiles<T>(
        chosen, keys, source,
        [&](Index query, Index key, TileOut<T> tile) {
            for (Index i = 0; i < tile.rows(); ++i) {
                const auto row = detail::visible_row<T>(mask.visible(query + i, keys), key,
                                                        tile.data() + i * tile.outerStride());
                visit(query + i, row.first, row.logits);
            }
        },
        mask, options, executor);
}

/// The same for queries 0 ... queries-1.
template <class Asked = void, class Source, class Visit, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, Source>>
ScanExtent scan_rows(Index queries, Index keys, const Source& source, const Visit& visit, const Mask& mask = {},
                     const TileOptions& options = {}, E&& executor = {}) {
    detail::require(queries >= 0, "scan_rows", "queries must be >= 0", queries);
    std::vector<Index> all(static_cast<std::size_t>(queries));
    for (Index i = 0; i < queries; ++i) detail::at(all, i) = i;
    return scan_rows_of<T>(std::span<const Index>(all), keys, source, visit, mask, options, executor);
}

} // namespace v0_2
} // namespace attnscope
