// Statistics of every row of a matrix of logits, several rows at a time.
#pragma once

#include <attnscope/executor.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Statistics of the rows of a matrix of logits: all of them in `rows`, and the figures that are asked for most as columns, one
/// entry a row. A is the accumulator scalar of the logits: double for float.
/// Special rows. As of `RowStatistics`: `rows[i].status` says which, and columns have NaN, or an infinite log-sum-exp.
template <Real A>
struct MatrixStatistics {
    using Column = Eigen::Array<A, Eigen::Dynamic, 1>;

    std::vector<RowStatistics<A>> rows;
    /// The figures of these names of `RowStatistics`, as exact, with other last bits: weights to 8 units of roundoff, log-sum-exp
    /// relative to the larger of |max z/T| and log(1 + r). A second weight below the smallest normal number is 0.
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
        for (Index i = 0; i < count; ++i) // rows are often masked like the one before
            at(peaks_, i) = row_peak<T>(z_.row(first + i), i > 0 && at(peaks_, i - 1).visible < z_.cols());
        for (Index i = 0; i < most; ++i) {
            at(together_, i) = i < count && add(first + i, i);
            if (!at(together_, i)) at(packets_, i) = KeyPackets<T>{};
        }
        for (Index i = 0; i < count; i += 4) reduce(i);
        for (Index i = 0; i < count; ++i) finish(first + i, i);
        columns(first, count);
    }

private:
    /// A number of each row.
    template <class N>
    using OfRows = std::array<N, static_cast<std::size_t>(most)>;

    /// The packets of a row, if it is short and has some; else its statistics.
    bool add(Index at_row, Index i) {
        const RowIn<T> z = z_.row(at_row);
        const RowPeak<T>& peak = at(peaks_, i);
        if (size(z) <= sum_block<T, 5> && has_floor(peak.max, temperature_) &&
            peak.max <= std::numeric_limits<T>::max() && peak.place < z.size()) {
            key_packets<T>(z, peak, at(packets_, i));
            return true;
        }
        at(out_.rows, at_row) = row_statistics_at<T>(z, peak, temperature_);
        return false;
    }

    /// The sums of four rows, and their second logits.
    void reduce(Index begin) {
        const auto of = [&](Index i) -> const KeyPackets<T>& { return at(packets_, begin + i); };
        for (std::size_t k = 0; k < sums_.size(); ++k) {
            const auto four = reduce_add(of(0).sum.v[k], of(1).sum.v[k], of(2).sum.v[k], of(3).sum.v[k]);
            for (Index j = 0; j < 4; ++j) at(sums_[k], begin + j) = A(at(four, j));
        }
        const auto most_of_others = reduce_max(of(0).largest, of(1).largest, of(2).largest, of(3).largest);
        for (Index j = 0; j < 4; ++j) at(second_, begin + j) = A(at(most_of_others, j));
    }

    /// The statistics of a row from its sums, and what the columns need of any.
    void finish(Index at_row, Index i) {
        RowStatistics<A>& row = at(out_.rows, at_row);
        if (at(together_, i)) {
            const RowPeak<T>& peak = at(peaks_, i);
            row.status = RowStatus::normal;
            row.temperature = 1;
            row.unit_roundoff = A(std::numeric_limits<T>::epsilon()) / 2;
            row.visible = peak.visible;
            row.argmax = static_cast<Index>(peak.place);
            row.max_logit = A(peak.max) + A(0);
            row.second_logit = row.visible == 1 ? RowStatistics<A>::nan() : at(second_, i) + A(0);
            row.min_logit = A(peak.min) + A(0);
            row.r = at(sums_[0], i);
            row.t = at(sums_[1], i) = -at(sums_[1], i);
            row.q = at(sums_[2], i);
            row.c = at(sums_[3], i);
            row.v = at(sums_[4], i);
            row.flat_spread = row.flat_t = row.flat_v = 0;
            if (row.r == row.r)
                add_flat_sums<T>(z_.row(at_row), row);
            else // a NaN that the range did not show
                row = row_statistics_at<T>(z_.row(at_row), peak, temperature_);
        } else {
            at(sums_[0], i) = row.r;
            at(sums_[1], i) = row.t;
            at(sums_[2], i) = row.q;
            at(sums_[3], i) = row.c;
        }
        at(top_, i) = row.max_logit;
        at(second_, i) = row.second_logit;
        at(low_, i) = row.min_logit;
    }

    void columns(Index first, Index count) {
        const Packet<A> one = A(1), temperature = static_cast<A>(temperature_);
        const auto exponent = [&](Packet<A> logit) { return temperature_ == 1 ? logit : logit / temperature; };
        for_each_lane<A>(count, [&](const auto& lane) {
            const auto of = [&](const auto& numbers) { return lane(numbers.data(), A(0)); };
            const auto rest = of(sums_[0]), sum = rest + one, inverse = one / sum, square = inverse * inverse;
            const auto logarithm = log(sum) + (rest - (sum - one)) * inverse; // as `log_one_plus`
            const auto top = of(top_);
            const auto store = [&](typename MatrixStatistics<A>::Column& column, const auto& x) {
                lane.store(column.data() + first, x);
            };
            store(out_.log_sum_exp, exponent(top) + logarithm);
            store(out_.entropy_nats, logarithm + of(sums_[1]) * inverse);
            store(out_.max_weight, inverse);
            store(out_.second_weight, exp_nonpositive(exponent(of(second_) - top)) * inverse);
            store(out_.power_sum_2, (one + of(sums_[2])) * square);
            store(out_.power_sum_3, (one + of(sums_[3])) * (square * inverse));
            store(out_.logit_spread, top - of(low_));
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
    OfRows<RowPeak<T>> peaks_;
    OfRows<bool> together_; ///< whether it has packets
    OfRows<KeyPackets<T>> packets_;
    std::array<OfRows<A>, 5> sums_; ///< r, t, q, c, v
    OfRows<A> top_, second_, low_;
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

/// As above, in memory of its own.
template <Real T, Executor E = Sequential>
MatrixStatistics<Accumulator<T>> matrix_statistics(MatrixView<T> z, double temperature = 1, E&& executor = {}) {
    MatrixStatistics<Accumulator<T>> out;
    matrix_statistics(z, out, temperature, executor);
    return out;
}

/// As above from any matrix of logits: any Eigen expression that is not a vector at compile time, of float, double, long double,
/// half or bfloat16 (the last two are computed in float); copied unless its rows are contiguous.
template <MatrixExpr Z, Executor E = Sequential>
requires(!VectorExpr<Z>)
void matrix_statistics(const Z& z, MatrixStatistics<Accumulator<ScalarOf<Z>>>& out, double temperature = 1,
                       E&& executor = {}) {
    const MatrixHolder<ScalarOf<Z>> logits(z);
    matrix_statistics(logits.get(), out, temperature, executor);
}
/// As above, in memory of its own.
/// Example: `matrix_statistics(z).entropy_nats.mean()`
template <MatrixExpr Z, Executor E = Sequential>
requires(!VectorExpr<Z>)
MatrixStatistics<Accumulator<ScalarOf<Z>>> matrix_statistics(const Z& z, double temperature = 1,
                                                             E&& executor = {}) {
    MatrixStatistics<Accumulator<ScalarOf<Z>>> out;
    matrix_statistics(z, out, temperature, executor);
    return out;
}

} // namespace v0_2
} // namespace attnscope
