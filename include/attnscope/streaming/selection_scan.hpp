// What the top-N selections of every row of a head look like, for every N, without the matrix of weights.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/selection/distance.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A row of weights over the keys that its query sees, with what questions about selections need. Borrowed for
/// a visit.
template <Real T>
struct RankedRow {
    using A = Accumulator<T>;
    Index query;
    RowIn<T> logits;              ///< [n], of the visible keys, ascending by key
    RowIn<T> weights;             ///< [n]
    std::span<const Index> keys;  ///< [n], their places in the head
    std::span<const Index> order; ///< [n], places in `weights` by descending weight, ties by smaller key
    MatrixView<T> x;              ///< [n, d], their token vectors
    const Matrix<A>& gram;        ///< their inner products are the leading n x n block
};

/// `gram_matrix` of values that are stored in any way.
template <Real T>
Matrix<Accumulator<T>> gram_matrix(const StoredRows<T>& x) {
    std::vector<T> room;
    return gram_matrix(x.read(0, x.rows(), room));
}

/// Gives visit(row) the `RankedRow` of each of the `chosen` queries under a normaliser, with the values as
/// token vectors. The visitor is called by several threads at once if the executor has them, once for each
/// query.
/// Shapes and units. gram: `gram_matrix` of the values. The extent counts places in `chosen`.
/// Special rows. Rows that are not normal come without keys.
/// Cost. That of the normaliser and of ranking, and memory as `scan_rows`, with a copy of values that do not stand
/// together in T. Rows whose visible keys are not the first ones get a Gram matrix of their own, O(visible^2 d).
/// Throws. `invalid_argument` for a head without values or a Gram matrix of another size.
template <HeadLike H, class N, class Visit, Executor E = Sequential, Real T = detail::ScalarOfHead<H>>
requires Normalizer<N, T>
ScanExtent scan_ranked_rows(std::span<const Index> chosen, const H& head, const Matrix<Accumulator<T>>& gram,
                            const N& normalizer, const Visit& visit, const Mask& mask = {},
                            const TileOptions& options = {}, E&& executor = {}) {
    using A = Accumulator<T>;
    detail::require(head.has_values(), "scan_ranked_rows", "the head needs values");
    detail::require(gram.rows() == head.keys() && gram.cols() == head.keys(), "scan_ranked_rows",
                    "gram must have one row and column for each key", gram.rows(), gram.cols(), head.keys());
    struct Workspace {
        Ranking<T> ranking;
        std::vector<T> logits, weights;
        std::vector<Index> keys;
        Matrix<T> values;
        Matrix<A> gram;
    };
    detail::WorkspacePool<Workspace> workspaces;
    const StoredHead<T> stored(head);
    std::vector<T> room;
    const MatrixView<T> v = stored.v().read(0, head.keys(), room);
    const auto asked = detail::take_scale(stored, options);
    return scan_rows_of<T>(
        chosen, head.keys(), ProductTiles<T>(asked.head, executor),
        [&](Index query, Index first, RowOut<T> z) {
            workspaces.use([&](Workspace& workspace) {
                workspace.weights.resize(z.size());
                workspace.keys.clear();
                workspace.logits.clear();
                const bool normal =
                    normalizer.apply(RowIn<T>(z), RowOut<T>(workspace.weights)) == RowStatus::normal;
                for (std::size_t i = 0; normal && i < z.size(); ++i) {
                    if (!(z[i] > -std::numeric_limits<T>::infinity())) continue;
                    workspace.weights[workspace.keys.size()] = workspace.weights[i];
                    workspace.keys.push_back(first + static_cast<Index>(i));
                    workspace.logits.push_back(z[i]);
                }
                workspace.weights.resize(workspace.keys.size());
                workspace.ranking.rank(RowIn<T>(workspace.weights));
                const Index n = static_cast<Index>(workspace.keys.size());
                const bool prefix = n == 0 || workspace.keys.back() == n - 1;
                if (!prefix) {
                    workspace.values.resize(n, v.cols());
                    for (Index i = 0; i < n; ++i)
                        workspace.values.row(i) = v.map().row(detail::at(workspace.keys, i));
                    workspace.gram = gram_matrix(MatrixView<T>(workspace.values));
                }
                visit(RankedRow<T>{query, workspace.logits, workspace.weights, workspace.keys,
                                   workspace.ranking.order(),
                                   prefix ? MatrixView<T>(v.data(), n, v.cols(), v.outer_stride())
                                          : MatrixView<T>(workspace.values),
                                   prefix ? gram : workspace.gram});
            });
        },
        mask, asked.options, executor);
}

/// Gives visit(query, keys, curve) the `DistanceCurve` of each softmax row for N = 1 ... min(n_max, visible),
/// with the values as token vectors, and the visible keys in the order in which they are selected (by weight,
/// ties by smaller key). Both arguments are gone when the visitor returns; it is called by several threads at
/// once if the executor has them, once for each query. For other figures of the same rows:
/// `scan_ranked_rows`.
/// Special rows. Rows that are not normal come with an empty curve and no keys.
/// Cost. O(keys^2 d + pairs n_max); memory O(keys^2) doubles for the Gram matrix of the values (8192 keys:
/// 512 MB), which all rows share, and as `scan_rows`.
/// Throws. `invalid_argument` for a head without values or n_max < 0.
template <HeadLike H, class Visit, Executor E = Sequential>
ScanExtent scan_distance_curves(const H& head, Index n_max, const Visit& visit, const Mask& mask = {},
                                const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    detail::require(head.has_values(), "scan_distance_curves", "the head needs values");
    detail::require(n_max >= 0, "scan_distance_curves", "n_max must be >= 0", n_max);
    struct Workspace {
        DistanceCurves<T> curves;
        std::vector<Index> ranked;
    };
    detail::WorkspacePool<Workspace> workspaces;
    std::vector<Index> all(static_cast<std::size_t>(head.queries()));
    std::iota(all.begin(), all.end(), Index(0));
    const auto gram = gram_matrix(head.v());
    return scan_ranked_rows(
        std::span<const Index>(all), head, gram, Softmax(),
        [&](const RankedRow<T>& row) {
            workspaces.use([&](Workspace& workspace) {
                const Index n = static_cast<Index>(row.keys.size());
                workspace.ranked.clear();
                for (const Index i : row.order) workspace.ranked.push_back(detail::at(row.keys, i));
                visit(row.query, std::span<const Index>(workspace.ranked),
                      workspace.curves.compute(row.weights, row.x, row.gram, row.order, std::min(n, n_max)));
            });
        },
        mask, options, executor);
}

} // namespace v0_2
} // namespace attnscope
