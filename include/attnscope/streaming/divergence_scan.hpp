// How far the rows of two sets of logits are apart: quantised keys, another temperature, another model.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/row/divergence.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What `scan_divergence` tells.
struct DivergenceScan : ScanExtent {
    std::vector<Divergence> rows; ///< one for each query
};

/// `row_divergence` of every row between two sources of logits under one mask, at `options.temperature`; logits of
/// -inf in either hide keys of its own, and `options.bias` is added to both.
/// Special rows. As of `row_divergence`.
/// Cost. Two products and two exponentials for each logit; memory twice that of `scan_rows`.
/// Throws. `invalid_argument` for queries < 0, keys < 0 or a bad temperature.
template <class Asked = void, class A, class B, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, A, B>>
DivergenceScan scan_divergence(Index queries, Index keys, const A& first, const B& second,
                               const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    detail::checked_temperature("scan_divergence", options.temperature);
    TileOptions at_one = options; // logits before the temperature
    at_one.temperature = 1;
    const detail::LogitMap<T> map("scan_divergence", at_one);
    DivergenceScan result;
    result.rows.resize(static_cast<std::size_t>(std::max<Index>(0, queries)));
    detail::WorkspacePool<std::vector<T>> workspaces;
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        queries, keys, first,
        [&](Index query, Index begin, RowOut<T> a) {
            workspaces.use([&](std::vector<T>& b) {
                const Index n = static_cast<Index>(a.size());
                b.resize(a.size());
                detail::fill_tile<T>(second, map, query, begin, options.key_tile,
                                     TileOut<T>(b.data(), 1, n, Eigen::OuterStride<>(n)));
                const KeyRanges visible = mask.visible(query, keys);
                for (Index i = 0; i < n; ++i)
                    if (!visible.contains(begin + i)) detail::at(b, i) = -std::numeric_limits<T>::infinity();
                detail::at(result.rows, query) =
                    row_divergence<T>(RowIn<T>(a), RowIn<T>(b), options.temperature);
            });
        },
        mask, at_one, executor);
    detail::for_each_missing(result, [&](Index row) { detail::at(result.rows, row).status = RowStatus::nan; });
    return result;
}

/// Two heads of the same queries and keys, for example one with quantised keys, computed in one scalar.
/// Throws. `invalid_argument` when their shapes differ.
template <HeadLike A, HeadLike B, Executor E = Sequential>
requires std::same_as<detail::ScalarOfHead<A>, detail::ScalarOfHead<B>>
DivergenceScan scan_divergence(const A& first, const B& second, const Mask& mask = {},
                               const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<A>;
    detail::require(first.queries() == second.queries(), "scan_divergence",
                    "both heads must have as many queries", first.queries(), second.queries());
    detail::require(first.keys() == second.keys(), "scan_divergence", "both heads must have as many keys",
                    first.keys(), second.keys());
    const auto a = detail::take_scale(StoredHead<T>(first), options),
               b = detail::take_scale(StoredHead<T>(second), options);
    return scan_divergence<T>(first.queries(), first.keys(), ProductTiles<T>(a.head, executor),
                              ProductTiles<T>(b.head, executor), mask, a.options, executor);
}

} // namespace v0_2
} // namespace attnscope
