// Exact norms of the Jacobian of every row.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// What `scan_jacobian_norms` tells.
template <Real T>
struct JacobianScan : ScanExtent {
    std::vector<JacobianNorms<Accumulator<T>>> rows; ///< one for each query
};

/// `jacobian_norms` of a normaliser on every row, keys that a query cannot see left out. Where brackets are
/// enough, `softmax_spectral_bracket` follows from a scan.
/// Special rows. Rows that see no key get zeros, NaN rows NaN.
/// Cost. For softmax about three times that of a scan; memory as `scan_rows`.
/// Throws. `invalid_argument` for queries < 0 or keys < 0.
template <class Asked = void, class Source, class N, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, Source>>
requires Normalizer<N, T>
JacobianScan<T> scan_jacobian_norms(Index queries, Index keys, const Source& source, const N& normalizer,
                                    const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    JacobianScan<T> result; // of norms that are NaN
    result.rows.resize(static_cast<std::size_t>(std::max<Index>(0, queries)));
    detail::WorkspacePool<std::vector<T>>
        workspaces; // fresh memory for every row would be slower than its norms
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        queries, keys, source,
        [&](Index query, Index, RowOut<T> z) {
            workspaces.use([&](std::vector<T>& p) {
                p.resize(z.size());
                normalizer.apply(RowIn<T>(z), RowOut<T>(p));
                detail::at(result.rows, query) = jacobian_norms(normalizer, RowIn<T>(z), RowIn<T>(p));
            });
        },
        mask, options, executor);
    return result;
}

/// The same for the logits of a head.
template <HeadLike H, class N, Executor E = Sequential>
requires Normalizer<N, detail::ScalarOfHead<H>>
JacobianScan<detail::ScalarOfHead<H>> scan_jacobian_norms(const H& head, const N& normalizer,
                                                          const Mask& mask = {},
                                                          const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return scan_jacobian_norms<T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor),
                                  normalizer, mask, asked.options, executor);
}

} // namespace v0_2
} // namespace attnscope
