// Where a scan gets its logits from: tiles of q.k, and what may be done to them on the way.
#pragma once

#include <attnscope/attention/stored_head.hpp>
#include <attnscope/detail/tile_product.hpp>
#include <attnscope/executor.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Where a source of logits writes: rows of queries, columns of keys. A source is called as
/// source(query, key, tile) and gives the logits of queries query, query + 1, ... and keys key, key + 1, ...;
/// keys that the mask hides need no value. It is called by several threads at once if the executor has them.
template <Real T>
using TileOut = Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>>;

/// What scans take logits from: see `TileOut`. Scans know the scalar T of a source that takes tiles of one scalar only;
/// of others, such as generic lambdas, it must be said, as in `scan_rows<float>(queries, keys, source, visit)`.
template <class Source, class T>
concept LogitSource = requires(const Source& source, TileOut<T> tile) { source(Index(0), Index(0), tile); };

namespace detail {

template <class T, class... Sources>
inline constexpr bool all_take = (LogitSource<Sources, T> && ...);

/// The scalar of the tiles of sources: the one that was asked for, else the only one that they all take.
template <class Asked, class... Sources>
struct TileScalarOf {};
template <Real T, class... Sources>
requires all_take<T, Sources...>
struct TileScalarOf<T, Sources...> {
    using type = T;
};
template <class... Sources>
requires(int(all_take<float, Sources...>) + int(all_take<double, Sources...>) +
             int(all_take<long double, Sources...>) ==
         1)
struct TileScalarOf<void, Sources...> {
    using type = std::conditional_t<all_take<float, Sources...>, float,
                                    std::conditional_t<all_take<double, Sources...>, double, long double>>;
};
template <class Asked, class... Sources>
using TileScalar = typename TileScalarOf<Asked, Sources...>::type;

} // namespace detail

/// Logits scale q.k of a head, tile by tile: a source. Sums over the width are taken in T in the order of the
/// columns, so that a logit does not depend on the tile that it is computed in.
/// Invariant. The head must outlive it.
/// Cost. From eight queries on the keys are copied once, in the order that the product reads them: memory
/// O(keys d).
/// Example, and a source of your own, of logits that stand in memory:
///     const auto scanned = scan_tiles(head.queries(), head.keys(), ProductTiles(head), head.v());
///     const auto own = [&](Index query, Index key, TileOut<float> tile) {
///         tile = logits.block(query, key, tile.rows(), tile.cols()); // a matrix [queries, keys]
///     };
///     const auto same = scan_tiles(logits.rows(), logits.cols(), own, MatrixView<float>());
template <Real T>
class ProductTiles {
public:
    explicit ProductTiles(const StoredHead<T>& head) : ProductTiles(head, Sequential()) {}
    template <Executor E>
    ProductTiles(const StoredHead<T>& head, E&& executor) : head_(head) {
        if (head.queries() >= detail::rows_worth_packing) keys_ = detail::PackedRows<T>(head.k(), executor);
    }
    void operator()(Index query, Index key, TileOut<T> tile) const {
        std::vector<T> room, room_for_keys; // empty unless they are stored in another way
        const MatrixView<T> q = head_.q().read(query, tile.rows(), room);
        if (head_.queries() >= detail::rows_worth_packing)
            detail::product_with_rows<T>(q, keys_, key, head_.scale(), tile.data(), tile.cols(),
                                         tile.outerStride());
        else
            for (Index i = 0; i < tile.rows(); ++i)
                tile.row(i).noalias() =
                    head_.scale() *
                    (q.map().row(i) * head_.k().read(key, tile.cols(), room_for_keys).map().transpose());
    }

private:
    StoredHead<T> head_;
    detail::PackedRows<T> keys_;
};
template <Real T>
ProductTiles(const HeadView<T>&) -> ProductTiles<T>;
template <Real T, class E>
ProductTiles(const HeadView<T>&, E&&) -> ProductTiles<T>;
template <Real T>
ProductTiles(const StoredHead<T>&) -> ProductTiles<T>;
template <Real T, class E>
ProductTiles(const StoredHead<T>&, E&&) -> ProductTiles<T>;

/// The logits of a source after a map from the normalisers' front, such as `softcap(50)` or `temperature(2)`.
template <class Source, class Map>
struct MappedTiles {
    Source source;
    Map map;
    template <Real T>
    requires LogitSource<Source, T>
    void operator()(Index query, Index key, Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>> tile) const {
        source(query, key, tile);
        for (Index i = 0; i < tile.rows(); ++i) {
            const RowOut<T> row(tile.data() + i * tile.outerStride(), static_cast<std::size_t>(tile.cols()));
            map.apply(RowIn<T>(row), row);
        }
    }
};
/// `MappedTiles` of a source and a map.
template <class Source, class Map>
MappedTiles<Source, Map> mapped_tiles(Source source, Map map) {
    return {std::move(source), std::move(map)};
}

/// The logits of a source plus bias(query, key), for example ALiBi or relative positions. -inf hides a key,
/// whatever its logit. Once for each logit, so that no queries x keys array exists.
template <class Source, class Bias>
struct BiasedTiles {
    Source source;
    Bias bias;
    template <Real T>
    requires LogitSource<Source, T>
    void operator()(Index query, Index key, Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>> tile) const {
        source(query, key, tile);
        for (Index i = 0; i < tile.rows(); ++i)
            for (Index j = 0; j < tile.cols(); ++j) {
                const T added = static_cast<T>(bias(query + i, key + j));
                tile(i, j) = added == -std::numeric_limits<T>::infinity() ? added : tile(i, j) + added;
            }
    }
};
/// `BiasedTiles` of a source and a bias.
template <class Source, class Bias>
BiasedTiles<Source, Bias> biased_tiles(Source source, Bias bias) {
    return {std::move(source), std::move(bias)};
}

} // namespace v0_2
} // namespace attnscope
