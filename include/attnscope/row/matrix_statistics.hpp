// Statistics of every row of a matrix of logits, several rows at a time.
#pragma once

#include <attnscope/executor.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Statistics of the rows of a matrix of logits: all of them in `rows`, and the figures that are asked for most as columns, one
/// entry a row. A is the accumulator scalar of the logits: double for float.
/// Special rows. As of `RowStatistics`: `rows[i].status` says which, and columns have NaN.
template <Real A>
struct MatrixStatistics {
    using Column = Eigen::Array<A, Eigen::Dynamic, 1>;

    std::vector<RowStatistics<A>> rows;
    /// The figures of these names of `RowStatistics`, to two units of A.
    Column log_sum_exp, entropy_nats, max_weight, second_weight, power_sum_2, power_sum_3, logit_spread;

    void resize(Index count) {
        rows.resize(static_cast<std::size_t>(count));
        for (Column* column : {&log_sum_exp, &entropy_nats, &max_weight, &second_weight, &power_sum_2,
                               &power_sum_3, &logit_spread})
            column->resize(count);
    }
};

namespace detail {

/// Rows whose figures are computed side by side. What waits for the end of a chain of operations in one of them does not hold up
/// the others: short rows take two thirds of their time one by one.
template <Real T>
class StatisticsOfRows {
    using A = Accumulator<T>;

public:
    static constexpr Index most = 32;

    StatisticsOfRows(MatrixView<T> z, double temperature, MatrixStatistics<A>& out)
        : z_(z), temperature_(temperature), out_(out) {}

    /// `count` <= `most` rows.
    void operator()(Index first, Index count) {
        for (Index i = 0; i < count; ++i) at(peaks_, i) = row_peak<T>(z_.row(first + i));
        for (Index i = 0; i < most; ++i) {
            at(together_, i) = i < count && add(first + i, i);
            if (!at(together_, i)) at(packets_, i) = KeyPackets<T>{};
        }
        for (Index i = 0; i < count; i += 4) reduce(first, i);
        columns(first, count);
    }

private:
    /// The packets of a row, if it is short and has some; else its statistics.
    bool add(Index at_row, Index i) {
        const RowIn<T> z = z_.row(at_row);
        const RowPeak<T>& peak = at(peaks_, i);
        RowStatistics<A>& row = at(out_.rows, at_row);
        if (size(z) <= sum_block<T, 5> && has_floor(peak.max, temperature_) &&
            peak.max <= std::numeric_limits<T>::max() && peak.place < z.size()) {
            at(packets_, i) = key_packets<T>(z, peak.max, peak.min, peak.place);
            const auto [least, visible] = visible_range<T>(z, peak.min);
            row.min_logit = A(least);
            row.visible = visible;
            return true;
        }
        row = row_statistics_at<T>(z, peak, temperature_);
        return false;
    }

    /// The sums of four rows.
    void reduce(Index first, Index begin) {
        const auto of = [&](Index i) -> const KeyPackets<T>& { return at(packets_, begin + i); };
        std::array<std::array<T, 4>, 5> sums;
        for (std::size_t k = 0; k < sums.size(); ++k)
            sums[k] = reduce_add(of(0).sum.v[k], of(1).sum.v[k], of(2).sum.v[k], of(3).sum.v[k]);
        for (Index j = 0; j < 4; ++j) {
            const Index i = begin + j;
            if (!at(together_, i)) continue;
            RowStatistics<A>& row = at(out_.rows, first + i);
            const RowPeak<T>& peak = at(peaks_, i);
            const auto sum = [&](std::size_t k) { return A(at(sums[k], j)); };
            row.status = RowStatus::normal;
            row.temperature = 1;
            row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
            row.argmax = static_cast<Index>(peak.place);
            row.max_logit = A(peak.max);
            row.second_logit = row.visible == 1 ? RowStatistics<A>::nan() : A(reduce_max(of(j).largest));
            row.r = sum(0);
            row.t = -sum(1);
            row.q = sum(2);
            row.c = sum(3);
            row.v = sum(4);
            row.flat_spread = row.flat_t = row.flat_v = 0;
            if (row.r == row.r)
                add_flat_sums<T>(z_.row(first + i), row);
            else // a NaN that the range did not show
                row = row_statistics_at<T>(z_.row(first + i), peak, temperature_);
        }
    }

    void columns(Index first, Index count) {
        std::array<A, static_cast<std::size_t>(most)> r, t, q, c, top, second, least;
        for (Index i = 0; i < count; ++i) {
            const RowStatistics<A>& row = at(out_.rows, first + i);
            at(r, i) = row.r;
            at(t, i) = row.t;
            at(q, i) = row.q;
            at(c, i) = row.c;
            at(top, i) = row.max_logit;
            at(second, i) = row.second_logit;
            at(least, i) = row.min_logit;
        }
        const Packet<A> one = A(1), temperature = static_cast<A>(temperature_);
        for_each_lane<A>(count, [&](const auto& lane) {
            const auto rest = lane(r.data()), sum = rest + one, inverse = one / sum, square = inverse * inverse;
            const auto logarithm = log(sum) + (rest - (sum - one)) * inverse; // as `log_one_plus`
            const auto largest = lane(top.data());
            const auto store = [&](typename MatrixStatistics<A>::Column& column, const auto& x) {
                lane.store(column.data() + first, x);
            };
            store(out_.log_sum_exp, largest / temperature + logarithm);
            store(out_.entropy_nats, logarithm + lane(t.data()) * inverse);
            store(out_.max_weight, inverse);
            store(out_.second_weight, exp_nonpositive((lane(second.data()) - largest) / temperature) * inverse);
            store(out_.power_sum_2, (one + lane(q.data())) * square);
            store(out_.power_sum_3, (one + lane(c.data())) * (square * inverse));
            store(out_.logit_spread, largest - lane(least.data()));
        });
        for (Index i = first; i < first + count; ++i)
            if (const RowStatistics<A>& row = at(out_.rows, i); !row.normal() || row.visible < 2)
                special(i, row);
    }
    void special(Index i, const RowStatistics<A>& row) {
        out_.log_sum_exp[i] = row.log_sum_exp();
        out_.entropy_nats[i] = row.entropy_nats();
        out_.max_weight[i] = row.max_weight();
        out_.second_weight[i] = row.second_weight();
        out_.power_sum_2[i] = row.power_sum_2();
        out_.power_sum_3[i] = row.power_sum_3();
        out_.logit_spread[i] = row.logit_spread();
    }

    MatrixView<T> z_;
    double temperature_;
    MatrixStatistics<A>& out_;
    std::array<RowPeak<T>, static_cast<std::size_t>(most)> peaks_;
    std::array<KeyPackets<T>, static_cast<std::size_t>(most)> packets_;
    std::array<bool, static_cast<std::size_t>(most)> together_;
};

} // namespace detail

/// Statistics of every row of a matrix of logits, into memory that is used again.
/// Formula. `out.rows[i]` is `row_statistics(row i of z, temperature)` to the last bit.
/// Shapes and units. z [queries, keys] in logits before the temperature; -inf masks a key of a query.
/// Special rows. See `MatrixStatistics`.
/// Cost. O(queries keys); no allocation where `out` has the size. Rows of 128 keys take two thirds of the time that they take one
/// by one.
/// Throws. `invalid_argument` unless the temperature is > 0 and finite.
template <Real T, Executor E = Sequential>
void matrix_statistics(MatrixView<T> z, MatrixStatistics<Accumulator<T>>& out, double temperature = 1,
                       E&& executor = {}) {
    detail::checked_temperature("matrix_statistics", temperature);
    out.resize(z.rows());
    constexpr Index block = detail::StatisticsOfRows<T>::most;
    // Tasks of some ten thousand keys.
    const Index rows = block * std::max<Index>(1, 4096 / std::max<Index>(1, z.cols()));
    executor((z.rows() + rows - 1) / rows, [&](Index task) {
        detail::StatisticsOfRows<T> statistics(z, temperature, out);
        const Index end = std::min(z.rows(), (task + 1) * rows);
        for (Index i = task * rows; i < end; i += block) statistics(i, std::min(block, end - i));
    });
}

/// As above from any matrix of logits: any Eigen expression of float, double, long double, half or bfloat16 (the last two are
/// computed in float); copied unless its rows are contiguous.
/// Example: `matrix_statistics(z).entropy_nats.mean()`
template <MatrixExpr Z, Executor E = Sequential>
requires(!VectorExpr<Z>)
MatrixStatistics<Accumulator<ScalarOf<Z>>> matrix_statistics(const Z& z, double temperature = 1,
                                                             E&& executor = {}) {
    const MatrixHolder<ScalarOf<Z>> logits(z);
    MatrixStatistics<Accumulator<ScalarOf<Z>>> out;
    matrix_statistics(logits.get(), out, temperature, executor);
    return out;
}

} // namespace v0_2
} // namespace attnscope
