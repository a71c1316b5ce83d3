// Products of a few rows with many columns, whose sums stay in registers: for tiles of logits and of outputs.
#pragma once

#include <attnscope/detail/simd/exp.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// out[i out_stride + j size ...] = factor sum_c a[i stride + c] b(c, j) for `rows` rows i and packets j: a's
/// elements are spread over a packet each. Added in the order of c, so that an element does not depend on the
/// block that it is computed in. Not inlined: among other code the compiler runs out of registers.
template <Real T, int rows, int packets, class B>
EIGEN_DONT_INLINE void product_block(const T* a, Index stride, Index depth, const B b, T factor, T* out,
                                     Index out_stride) {
    using P = Packet<T>;
    // Packets in an array stay in registers only if all loops over them are unrolled.
    P sum[std::size_t(rows)][std::size_t(packets)];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < packets; ++j) sum[i][j] = T(0);
    for (Index c = 0; c < depth; ++c) {
        P y[std::size_t(packets)];
#pragma GCC unroll 8
        for (int j = 0; j < packets; ++j) y[j] = b(c, j);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const P x = a[i * stride + c];
#pragma GCC unroll 8
            for (int j = 0; j < packets; ++j) sum[i][j] = madd(x, y[j], sum[i][j]);
        }
    }
    const P scale = factor;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < packets; ++j) (scale * sum[i][j]).store(out + i * out_stride + j * P::size);
}

/// Gives block(height, width, i, j) the blocks of a product, rows i ... and packets j ... of constant numbers:
/// a block of columns for all rows, while it is near.
template <class Block>
void for_each_block(Index rows, Index packets, const Block& block) {
    const auto column = [&]<int width>(std::integral_constant<int, width> w, Index j) {
        Index i = 0;
        for (; rows - i >= product_rows; i += product_rows)
            block(std::integral_constant<int, product_rows>(), w, i, j);
        if constexpr (product_rows > 4)
            for (; rows - i >= 4; i += 4) block(std::integral_constant<int, 4>(), w, i, j);
        for (; rows - i >= 1; ++i) block(std::integral_constant<int, 1>(), w, i, j);
    };
    Index j = 0;
    for (; packets - j > 4 || packets - j == 3; j += 3) column(std::integral_constant<int, 3>(), j);
    for (; packets - j >= 2; j += 2) column(std::integral_constant<int, 2>(), j); // 4 are 2 and 2
    if (j < packets) column(std::integral_constant<int, 1>(), j);
}

/// A product whose blocks go through store(i, j, width, sums): packets j ... j + width - 1 of row i, `width` a
/// constant.
template <Real T, class B, class Store>
void product_in_blocks(const T* a, Index stride, Index rows, Index depth, Index packets, const B& b,
                       const Store& store) {
    constexpr Index size = Packet<T>::size;
    alignas(64) std::array<T, static_cast<std::size_t>(product_rows * product_packets * size)> sums;
    for_each_block(rows, packets,
                   [&]<int height, int width>(std::integral_constant<int, height>,
                                              std::integral_constant<int, width> w, Index i, Index j) {
                       product_block<T, height, width>(a + i * stride, stride, depth, b.tail(j), T(1),
                                                       sums.data(), width * size);
                       for (int y = 0; y < height; ++y) store(i + y, j, w, sums.data() + y * width * size);
                   });
}

/// A right factor whose packets stand in memory: packet j of row c at data + c row_step + j packet_step.
template <Real T>
struct FactorPackets {
    const T* data;
    Index row_step, packet_step;
    FactorPackets tail(Index j) const { return {data + j * packet_step, row_step, packet_step}; }
    Packet<T> operator()(Index c, int j) const {
        return Packet<T>::load(data + c * row_step + j * packet_step);
    }
};
/// One packet a row, of which `count` elements exist.
template <Real T>
struct FactorRest {
    const T* data;
    Index row_step, count;
    FactorRest tail(Index) const { return *this; }
    Packet<T> operator()(Index c, int) const {
        return Packet<T>::load_partial(data + c * row_step, count, T(0));
    }
};

/// With fewer rows on the other side packing costs more than it saves.
inline constexpr Index rows_worth_packing = 8;

/// Rows of a matrix in panels of a packet of rows each, column after column: element (row, c) of panel row/size
/// stands at c size + row % size. The last panel is filled up with zeros.
template <Real T>
class PackedRows {
public:
    static constexpr Index size = Packet<T>::size;
    PackedRows() = default;
    /// Packs m, a `MatrixView` or what reads rows into one; `executor` runs one task for some panels each.
    template <class M, class E>
    PackedRows(const M& m, E&& executor)
        : depth_(m.cols()), data_((m.rows() + size - 1) / size * size * m.cols()) {
        constexpr Index rows = 64 * size;
        executor((m.rows() + rows - 1) / rows,
                 [&](Index task) { pack(m, task * rows, std::min(m.rows(), (task + 1) * rows)); });
    }
    Index depth() const { return depth_; }
    const T* panel(Index number) const { return data_.data() + number * size * depth_; }

private:
    template <class M>
    void pack(const M& from, Index begin, Index end) {
        std::vector<T> room;
        MatrixView<T> m;
        if constexpr (std::same_as<M, MatrixView<T>>)
            m = MatrixView<T>(from.data() + begin * from.outer_stride(), end - begin, from.cols(),
                              from.outer_stride());
        else
            m = from.read(begin, end - begin, room);
        for (Index first = begin; first < end; first += size) {
            T* to = data_.data() + first * depth_;
            const Index rows = std::min(size, end - first);
            if (rows < size) std::fill_n(to, size * depth_, T(0));
            Index c = 0;
            for (; rows == size && c + size <= depth_; c += size, to += size * size)
                transpose_square<T>(m.row(first - begin).data() + c, m.outer_stride(), to);
            for (; c < depth_; ++c, to += size)
                for (Index i = 0; i < rows; ++i) to[i] = m.row(first - begin + i).data()[c];
        }
    }

    Index depth_ = 0;
    Eigen::Array<T, Eigen::Dynamic, 1> data_;
};

/// out(i, j) = factor sum_c a(i, c) b(first + j, c) for the packed rows of b.
template <Real T>
void product_with_rows(MatrixView<T> a, const PackedRows<T>& b, Index first, T factor, T* out, Index cols,
                       Index out_stride) {
    using P = Packet<T>;
    const Index stride = a.outer_stride(), depth = b.depth(), step = depth * P::size;
    // Panels that lie inside are stored where they belong; of the first and the last there may be a part.
    const Index offset = first % P::size, end = offset + cols, inside = offset > 0 ? 1 : 0;
    const FactorPackets<T> panels{b.panel(first / P::size), P::size, step};
    if (end / P::size > inside)
        for_each_block(a.rows(), end / P::size - inside,
                       [&]<int height, int width>(std::integral_constant<int, height>,
                                                  std::integral_constant<int, width>, Index i, Index j) {
                           product_block<T, height, width>(
                               a.data() + i * stride, stride, depth, panels.tail(inside + j), factor,
                               out + i * out_stride + ((inside + j) * P::size - offset), out_stride);
                       });
    const auto part = [&](Index panel) {
        product_in_blocks<T>(a.data(), stride, a.rows(), depth, 1, panels.tail(panel),
                             [&](Index i, Index, Index, const T* sums) {
                                 const Index at = panel * P::size;
                                 for (Index k = std::max<Index>(0, offset - at);
                                      k < std::min(P::size, end - at); ++k)
                                     out[i * out_stride + (at + k - offset)] = factor * sums[k];
                             });
    };
    if (inside > 0) part(0);
    if (end % P::size > 0 && (end > P::size || inside == 0)) part(end / P::size);
}

/// out(i, j) += sum_{c < depth} a(i, c) b(c, j): sums in T, then added to `out` in the accumulator scalar.
template <Real T>
void add_product(const T* a, Index a_stride, Index rows_of_a, Index depth, MatrixView<T> b, Index first,
                 Accumulator<T>* out) {
    using P = Packet<T>;
    const Index cols = b.cols(), whole = cols / P::size, rest = cols % P::size;
    const T* const rows = depth > 0 ? b.row(first).data() : nullptr;
    const Index stride = b.outer_stride();
    const auto store = [&](Index i, Index j, Index width, const T* sums) {
        Accumulator<T>* const to = out + i * cols + j * P::size;
        const Index count = std::min(width * P::size, cols - j * P::size);
        for (Index k = 0; k < count; ++k) to[k] += static_cast<Accumulator<T>>(sums[k]);
    };
    product_in_blocks<T>(a, a_stride, rows_of_a, depth, whole, FactorPackets<T>{rows, stride, P::size}, store);
    if (rest > 0)
        product_in_blocks<T>(a, a_stride, rows_of_a, depth, 1,
                             FactorRest<T>{rows + whole * P::size, stride, rest},
                             [&](Index i, Index, Index, const T* sums) { store(i, whole, 1, sums); });
}

} // namespace detail
} // namespace v0_2
} // namespace attnscope
