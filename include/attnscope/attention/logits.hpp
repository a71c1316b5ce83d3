// How products of queries and keys become logits, and blocks of rows of them.
#pragma once

#include <attnscope/attention/stored_head.hpp>
#include <attnscope/detail/tile_product.hpp>
#include <attnscope/row/softmax_row.hpp>

#include <functional>

namespace attnscope {
inline namespace v0_2 {

/// bias(query, key) is added to scale q.k: ALiBi, relative positions. -inf hides a key from a query, whatever its
/// logit. Called once for each logit, by several threads at once if the executor has them.
using LogitBias = std::function<double(Index query, Index key)>;

namespace detail {

/// What stands between scale q.k and the logits z = (scale q.k + bias)/temperature. Options: any with a temperature
/// and a bias, which are borrowed. Quotients may overflow, as those of `temperature`: where
/// that is near, the temperature belongs into `Softmax`, which divides differences.
template <Real T>
class LogitMap {
public:
    /// Throws `invalid_argument` for a bad temperature.
    template <class Options>
    LogitMap(std::string_view function, const Options& options)
        : temperature_(static_cast<Accumulator<T>>(checked_temperature(function, options.temperature))),
          bias_(options.bias) {}

    /// Of one query and keys key, key + 1, ...
    void operator()(Index query, Index key, RowOut<T> z) const {
        if (bias_)
            for (T& x : z) {
                const double bias = bias_(query, key++);
                x = bias == -infinity ? static_cast<T>(bias) : static_cast<T>(x + static_cast<T>(bias));
            }
        if (temperature_ == 1) return;
        for (T& x : z) x = static_cast<T>(static_cast<Accumulator<T>>(x) / temperature_);
    }
    bool hides(Index query, Index key) const { return bias_ && bias_(query, key) == -infinity; }
    /// d z/d(scale q.k)
    T slope() const {
        return static_cast<T>(std::min(1 / temperature_, Accumulator<T>(std::numeric_limits<T>::max())));
    }

private:
    static constexpr double infinity = std::numeric_limits<double>::infinity();
    Accumulator<T> temperature_;
    const LogitBias& bias_;
};

/// A head with the scale that the options ask for, and the options without it.
template <class Head, class Options>
struct ScaleTaken {
    Head head;
    Options options;
};
template <class Head, class Options>
ScaleTaken<Head, Options> take_scale(const Head& head, const Options& options) {
    using T = decltype(head.scale());
    ScaleTaken<Head, Options> taken{head, options};
    if (options.scale) taken.head = {head.q(), head.k(), head.v(), static_cast<T>(*options.scale)};
    taken.options.scale.reset();
    return taken;
}

/// Calls f for every key in [0, keys) that is not visible.
template <class F>
void for_each_hidden(const KeyRanges& visible, Index keys, F&& f) {
    const KeyRange first = visible.lead.empty() ? visible.body : visible.lead;
    for (Index key = 0; key < std::min(first.begin, keys); ++key) f(key);
    if (!visible.lead.empty())
        for (Index key = visible.lead.end; key < visible.body.begin; ++key) f(key);
    for (Index key = visible.body.end; key < keys; ++key) f(key);
}

/// A number for each of the queries first, first + 1, ... and the keys 0, 1, ..., up to the last that one of them
/// sees.
template <Real T>
struct QueryBlock {
    Index first, rows, keys;
    T* data;
    Index stride;

    RowOut<T> row(Index i) const { return {data + i * stride, static_cast<std::size_t>(keys)}; }
    auto matrix() const {
        return Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>>(data, rows, keys, Eigen::OuterStride<>(stride));
    }
};

/// The logits of a head in blocks of its queries, -inf where a key is hidden. Borrows what it is made of but the keys,
/// which it packs on the executor where there are queries enough for that.
template <Real T>
class LogitBlocks {
public:
    static constexpr Index block_rows = 64;

    template <class Options, class E>
    LogitBlocks(std::string_view function, const HeadView<T>& head, const Mask& mask, const Options& options,
                E&& executor)
        : head_(take_scale(head, options).head), mask_(mask), map_(function, options) {
        if (packs()) keys_ = PackedRows<T>(head_.k(), executor);
    }

    const HeadView<T>& head() const { return head_; }
    Index count() const { return (head_.queries() + block_rows - 1) / block_rows; }
    /// d z/d(q.k)
    T slope() const { return head_.scale() * map_.slope(); }

    /// Block `number` with room for a number a pair, and no logits yet.
    QueryBlock<T> room(Index number, Matrix<T>& room) const {
        const Index keys = head_.keys(), first = number * block_rows,
                    rows = std::min(block_rows, head_.queries() - first);
        const Index stride = row_stride<T>(keys);
        if (room.rows() < rows || room.cols() != stride)
            room.resize(std::min(block_rows, head_.queries()), stride);
        Index end = 0;
        for (Index i = 0; i < rows; ++i) end = std::max(end, mask_.visible(first + i, keys).hull().end);
        return {first, rows, end, room.data(), stride};
    }
    /// The same with its logits.
    QueryBlock<T> operator()(Index number, Matrix<T>& place) const {
        const QueryBlock<T> block = room(number, place);
        const MatrixView<T> q(head_.q().row(block.first).data(), block.rows, head_.q().cols(),
                              head_.q().outer_stride());
        if (packs())
            product_with_rows<T>(q, keys_, 0, head_.scale(), block.data, block.keys, block.stride);
        else
            block.matrix().noalias() =
                head_.scale() * (q.map() * head_.k().map().topRows(block.keys).transpose());
        for (Index i = 0; i < block.rows; ++i) {
            const KeyRanges visible = mask_.visible(block.first + i, head_.keys());
            const RowOut<T> row = block.row(i);
            for_each_hidden(visible, block.keys,
                            [&](Index key) { detail::at(row, key) = -std::numeric_limits<T>::infinity(); });
            for (const KeyRange& range : {visible.lead, visible.body})
                map_(block.first + i, range.begin,
                     row.subspan(static_cast<std::size_t>(std::min(range.begin, block.keys)),
                                 static_cast<std::size_t>(range.size())));
        }
        return block;
    }

    /// Calls f for every key that the mask and the bias let a query see.
    template <class F>
    void for_each_seen(Index query, F&& f) const {
        mask_.visible(query, head_.keys()).for_each([&](Index key) {
            if (!map_.hides(query, key)) f(key);
        });
    }

private:
    bool packs() const { return head_.queries() >= rows_worth_packing; }

    HeadView<T> head_;
    const Mask& mask_;
    LogitMap<T> map_;
    PackedRows<T> keys_;
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
