// Renyi entropies and leading masses of any order: of rows that come in pieces, and of every row of a head.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// The Renyi entropy of one order of a row of logits (temperature 1) that comes in pieces: a commutative monoid as
/// `RowState`, and trivially copyable. Orders 0, 1, 2, 3 and infinity are in a `RowState` too.
/// Formula. With u = m - z, L = log sum e^{-u} and d = order - 1: sum p^order = e^{-order L} sum e^{-order u}, and for
/// |d| < 1/2, where that would lose digits, 1 + e^{-order L} g + (e^{-d L} - 1), g = sum e^{-u} (e^{-d u} - 1). All
/// terms of a sum have one sign, and the largest key, u = 0, is left out of sums, so that sharp rows keep their digits.
template <Real T>
class RenyiState {
public:
    using A = Accumulator<T>;

    /// Throws. `invalid_argument` unless order >= 0.
    explicit RenyiState(double order) : order_(static_cast<A>(order)) {
        detail::require(order >= 0, "RenyiState", "order must be >= 0", order);
    }

    /// A piece of the row.
    /// Cost. Two exponentials a key, no allocation.
    void add(RowIn<T> z) {
        RenyiState piece(*this);
        piece.sums_ = {};
        piece.nan_ = piece.infinite_ = piece.visible_ = 0;
        std::size_t top = z.size();
        for (std::size_t i = 0; i < z.size(); ++i) {
            piece.nan_ += z[i] != z[i];
            piece.infinite_ += z[i] == std::numeric_limits<T>::infinity();
            if (!finite(z[i])) continue;
            ++piece.visible_;
            if (top == z.size() || z[i] > z[top]) top = i;
        }
        if (top < z.size()) piece.sums_.max = A(z[top]);
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (i == top || !finite(z[i])) continue;
            const A u = piece.sums_.max - A(z[i]), weight = std::exp(-u);
            piece.sums_.r += weight;
            piece.sums_.t += weight > A(0) ? u * weight : A(0);
            piece.sums_.power += power(u, weight);
        }
        merge(piece);
    }

    /// Another part of the same row. O(1).
    /// Throws. `invalid_argument` for a state of another order.
    void merge(const RenyiState& other) {
        detail::require(order_ == other.order_, "RenyiState::merge", "both states must have the same order",
                        order_, other.order_);
        nan_ += other.nan_;
        infinite_ += other.infinite_;
        if (other.visible_ > 0) {
            Sums high = sums_, low = other.sums_;
            if (visible_ == 0 || low.max > high.max) std::swap(high, low);
            sums_ = visible_ == 0 ? other.sums_ : combined(high, low);
        }
        visible_ += other.visible_;
    }

    RowStatus status() const {
        if (nan_ > 0) return RowStatus::nan;
        if (infinite_ > 0) return RowStatus::infinite;
        return visible_ > 0 ? RowStatus::normal : RowStatus::empty;
    }
    double order() const { return static_cast<double>(order_); }

    /// log(sum p^order)/(1 - order) in nats; Shannon's entropy for order 1, -log p1 for +inf. NaN for rows that are
    /// not normal.
    A entropy_nats() const {
        if (status() != RowStatus::normal) return std::numeric_limits<A>::quiet_NaN();
        if (order_ == 0) return std::log(static_cast<A>(visible_));
        const A log_sum = std::log1p(sums_.r), d = order_ - 1;
        if (order_ == 1) return log_sum + sums_.t / (1 + sums_.r);
        if (std::isinf(order_)) return log_sum;
        if (near_one())
            return -std::log1p(std::exp(-order_ * log_sum) * sums_.power + std::expm1(-d * log_sum)) / d;
        // order/d first: order log_sum would overflow at the largest orders.
        return (order_ / d) * log_sum - std::log1p(sums_.power) / d;
    }
    /// e^H, in keys.
    A hill_number() const { return std::exp(entropy_nats()); }

private:
    /// Relative to the largest logit, which is left out.
    struct Sums {
        A max = -std::numeric_limits<A>::infinity();
        A r = 0;     ///< sum e^{-u}
        A t = 0;     ///< sum u e^{-u}
        A power = 0; ///< sum e^{-order u}, near order 1 g
    };
    static bool finite(T x) { return std::abs(x) <= std::numeric_limits<T>::max(); }
    bool near_one() const { return std::abs(order_ - 1) < A(0.5); }
    A power(A u, A weight) const {
        if (!near_one()) return std::isinf(order_) ? A(u == 0) : std::exp(-order_ * u);
        const A x = (1 - order_) * u; // where e^x is large, its product with the weight is one exponential
        return std::abs(x) < 1 ? weight * std::expm1(x) : std::exp(-order_ * u) - weight;
    }
    Sums combined(const Sums& high, const Sums& low) const {
        const A distance = high.max - low.max, w = std::exp(-distance), mass = 1 + low.r;
        Sums sum = high;
        sum.r += w * mass;
        if (w > A(0)) sum.t += w * (low.t + distance * mass);
        if (near_one()) // of a key at u + D: e^{-order D} times its term, and e^{-u} times that of D
            sum.power += std::exp(-order_ * distance) * low.power + power(distance, w) * mass;
        else if (const A factor = power(distance, w); factor > A(0))
            sum.power += factor * (1 + low.power);
        return sum;
    }

    A order_;
    Sums sums_;
    Index visible_ = 0, nan_ = 0, infinite_ = 0;
};

/// What `scan_renyi_entropy` tells.
struct RenyiScan : ScanExtent {
    Row<double> entropy_nats; ///< [queries]; NaN for rows that are not normal
};

/// The Renyi entropy of a given order of every row of a source of logits: see `RenyiState`.
/// Cost. Two exponentials for each visible pair; memory as `scan_rows`.
/// Throws. As `scan_rows` and `RenyiState` do.
template <class Asked = void, class Source, Executor E = Sequential, Real T = detail::TileScalar<Asked, Source>>
RenyiScan scan_renyi_entropy(Index queries, Index keys, const Source& source, double order,
                             const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    const RenyiState<T> nothing(order);
    RenyiScan result;
    result.entropy_nats.setConstant(1, std::max<Index>(0, queries), std::numeric_limits<double>::quiet_NaN());
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        queries, keys, source,
        [&](Index query, Index, RowOut<T> z) {
            RenyiState<T> row = nothing;
            row.add(RowIn<T>(z));
            result.entropy_nats[query] = static_cast<double>(row.entropy_nats());
        },
        mask, options, executor);
    return result;
}

/// The same for the logits of a head.
template <HeadLike H, Executor E = Sequential>
RenyiScan scan_renyi_entropy(const H& head, double order, const Mask& mask = {},
                             const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return scan_renyi_entropy<T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor), order,
                                 mask, asked.options, executor);
}

/// What `scan_top_mass` tells.
struct TopMassScan : ScanExtent {
    Matrix<double> mass; ///< [queries, counts]; NaN for rows that are not normal
};

/// The sum of the k largest softmax weights of every row, for any k; of all if there are fewer.
/// Shapes and units. `counts`: the k >= 0, ascending.
/// Cost. One exponential and a partial sort, O(keys + k log k), for each row; memory as `scan_rows`. The few largest
/// of each row are in a `RowState` too.
/// Throws. `invalid_argument` for counts that do not ascend, and as `scan_rows` does.
template <class Asked = void, class Source, Executor E = Sequential, Real T = detail::TileScalar<Asked, Source>>
TopMassScan scan_top_mass(Index queries, Index keys, const Source& source, const std::vector<Index>& counts,
                          const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    using A = Accumulator<T>;
    for (std::size_t i = 0; i < counts.size(); ++i)
        detail::require(counts[i] >= (i > 0 ? counts[i - 1] : 0), "scan_top_mass",
                        "counts must ascend and be >= 0", counts[i]);
    TopMassScan result;
    result.mass.setConstant(std::max<Index>(0, queries), static_cast<Index>(counts.size()),
                            std::numeric_limits<double>::quiet_NaN());
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        queries, keys, source,
        [&](Index query, Index, RowOut<T> z) {
            const RowStatistics<A> row = row_statistics<T>(RowIn<T>(z));
            if (!row.normal() || counts.empty()) return;
            const auto n = static_cast<Index>(z.size()), last = std::min(n, counts.back());
            const auto begin = z.begin(), end = begin + last;
            if (last < n) std::nth_element(begin, end, z.end(), std::greater<>());
            std::sort(begin, end, std::greater<>());
            A sum = 0;
            Index at = 0;
            for (std::size_t i = 0; i < counts.size(); ++i) {
                for (; at < std::min(n, counts[i]); ++at) sum += row.weight_of(A(detail::at(z, at)));
                result.mass(query, static_cast<Index>(i)) = static_cast<double>(std::min(A(1), sum));
            }
        },
        mask, options, executor);
    return result;
}

/// The same for the logits of a head.
template <HeadLike H, Executor E = Sequential>
TopMassScan scan_top_mass(const H& head, const std::vector<Index>& counts, const Mask& mask = {},
                          const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const auto asked = detail::take_scale(StoredHead<T>(head), options);
    return scan_top_mass<T>(head.queries(), head.keys(), ProductTiles<T>(asked.head, executor), counts, mask,
                            asked.options, executor);
}

} // namespace v0_2
} // namespace attnscope
