// What the top-N selections of every row of a head look like, for every N, without the matrix of weights.
#pragma once

#include <attnscope/detail/rooms.hpp>
#include <attnscope/selection/distance.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_1 {

/// Gives visit(query, keys, curve) the `DistanceCurve` of each softmax row for N = 1 ... min(n_max, visible),
/// with the values as token vectors, and the visible keys in the order in which they are selected (by weight,
/// ties by smaller key). Rows that are not normal come with an empty curve and no keys. Both arguments are gone
/// when the visitor returns; it is called by several threads at once if the executor has them, once for each
/// query. Memory O(keys^2) doubles for the Gram matrix of the values (8192 keys: 512 MB), which all rows share,
/// and as `scan_rows`. Cost O(keys^2 d + pairs n_max). Rows whose visible keys are not the first ones take a
/// Gram matrix of their own, O(visible^2 d). Throws `invalid_argument` for a head without values or n_max < 0.
template <Real T, class Visit, Executor E = Sequential>
bool scan_distance_curves(const HeadView<T>& head, Index n_max, const Visit& visit, const Mask& mask = {},
                          const ScanOptions& options = {}, const E& executor = {}) {
    using A = detail::Accumulator<T>;
    detail::require(head.has_values(), "scan_distance_curves", "the head needs values");
    detail::require(n_max >= 0, "scan_distance_curves", "n_max must be >= 0", n_max);
    struct Room {
        DistanceCurves<T> curves;
        Ranking<T> ranking;
        std::vector<T> weights;
        std::vector<Index> keys;
        Matrix<T> values;
    };
    detail::Rooms<Room> rooms;
    const Matrix<A> gram = gram_matrix(head.v());
    return scan_rows<T>(
        head.queries(), head.keys(), ProductTiles<T>(head, executor),
        [&](Index query, Index first, RowOut<T> z) {
            rooms.use([&](Room& room) {
                const auto seen = [&](std::size_t i) { return z[i] > -std::numeric_limits<T>::infinity(); };
                room.keys.clear();
                for (std::size_t i = 0; i < z.size(); ++i)
                    if (seen(i)) room.keys.push_back(first + static_cast<Index>(i));
                room.weights.resize(z.size());
                if (Softmax().apply<T>(RowIn<T>(z), RowOut<T>(room.weights)) != RowStatus::normal) {
                    visit(query, std::span<const Index>(), DistanceCurve<A>());
                    return;
                }
                const Index n = static_cast<Index>(room.keys.size());
                const bool prefix = room.keys.back() == n - 1;
                for (std::size_t i = 0; i < room.keys.size(); ++i)
                    room.weights[i] = room.weights[static_cast<std::size_t>(room.keys[i] - first)];
                room.weights.resize(room.keys.size());
                room.ranking.rank(RowIn<T>(room.weights));
                const auto order = room.ranking.order();
                if (!prefix) {
                    room.values.resize(n, head.v().cols());
                    for (Index i = 0; i < n; ++i)
                        room.values.row(i) = head.v().map().row(room.keys[static_cast<std::size_t>(i)]);
                }
                const MatrixView<T> x = prefix ? head.v() : MatrixView<T>(room.values);
                const auto& curve =
                    prefix ? room.curves.compute(room.weights, x, gram, order, std::min(n, n_max))
                           : room.curves.compute(room.weights, x, gram_matrix(x), order, std::min(n, n_max));
                std::vector<Index> ranked;
                ranked.reserve(order.size());
                for (const Index i : order) ranked.push_back(room.keys[static_cast<std::size_t>(i)]);
                visit(query, std::span<const Index>(ranked), curve);
            });
        },
        mask, options, executor);
}

} // namespace v0_1
} // namespace attnscope
