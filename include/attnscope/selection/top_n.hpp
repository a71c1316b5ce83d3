// Ranking the keys of a row: the N largest weights, ties by smaller index.
#pragma once

#include <attnscope/detail/packet.hpp>

#include <numeric>
#include <vector>

namespace attnscope {
inline namespace v0_1 {
namespace detail {

/// Unsigned number whose ascending order is the descending order of x; NaN of either sign comes last.
template <class T>
auto descending_key(T x) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    if (x != x) return ~Bits(0);
    const Bits bits = std::bit_cast<Bits>(x == T(0) ? T(0) : x); // -0 and 0 tie
    const Bits sign = Bits(1) << (8 * sizeof(Bits) - 1);
    const Bits ascending = (bits & sign) ? Bits(~bits) : Bits(bits | sign);
    return Bits(~ascending);
}

} // namespace detail

/// Orders the keys of rows by descending score, equal scores by ascending index, NaN last. Keeps its memory
/// from row to row. Cost O(n) for float and double rows of 256 keys or more (radix sort), O(n log n) below.
template <Real T>
class Ranking {
public:
    /// Afterwards `order()[0]` is the key with the largest score.
    void rank(RowIn<T> scores) {
        const std::size_t n = scores.size();
        order_.resize(n);
        std::iota(order_.begin(), order_.end(), Index(0));
        if constexpr (!std::same_as<T, long double>) {
            if (n >= 256) {
                radix(scores);
                return;
            }
        }
        std::sort(order_.begin(), order_.end(), [&](Index a, Index b) {
            const T x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
            if (x != x || y != y) return (x == x) != (y == y) ? x == x : a < b;
            return x != y ? x > y : a < b;
        });
    }

    /// Keys from the largest score to the smallest.
    std::span<const Index> order() const { return order_; }
    Index size() const { return static_cast<Index>(order_.size()); }

private:
    // Least significant digit first; every pass is stable, so ties keep ascending indices.
    void radix(RowIn<T> scores) {
        using Key = decltype(detail::descending_key(T()));
        constexpr int digit_bits = 11, digits = (8 * int(sizeof(Key)) + digit_bits - 1) / digit_bits;
        constexpr std::size_t buckets = std::size_t(1) << digit_bits;
        const std::size_t n = scores.size();
        keys_.resize(n);
        other_.resize(n);
        counts_.assign(buckets * digits, 0);
        for (std::size_t i = 0; i < n; ++i) {
            const auto key = detail::descending_key(scores[i]);
            keys_[i] = key;
            for (int d = 0; d < digits; ++d) ++counts_[std::size_t(d) * buckets + digit(key, d)];
        }
        for (int d = 0; d < digits; ++d) {
            std::uint32_t* const count = counts_.data() + std::size_t(d) * buckets;
            const std::size_t first = digit(keys_[0], d);
            if (count[first] == n) continue; // all alike in this digit
            std::uint32_t sum = 0;
            for (std::size_t b = 0; b < buckets; ++b) sum += std::exchange(count[b], sum);
            for (const Index i : order_) other_[count[digit(keys_[static_cast<std::size_t>(i)], d)]++] = i;
            std::swap(order_, other_);
        }
    }
    template <class Key>
    static std::size_t digit(Key key, int d) {
        return static_cast<std::size_t>((key >> (11 * d)) & 0x7ff);
    }

    std::vector<Index> order_, other_;
    std::vector<std::uint64_t> keys_;
    std::vector<std::uint32_t> counts_;
};

/// The keys of the n largest scores, from the largest down; ties by smaller index.
/// Throws `invalid_argument` unless 0 <= n <= size.
template <VectorExpr E>
std::vector<Index> top_n(const E& scores, Index n) {
    using T = ScalarOf<E>;
    detail::require(n >= 0 && n <= scores.size(), "top_n", "n must be in [0, size]", n, Index(scores.size()));
    const RowHolder<T> row(scores);
    Ranking<T> ranking;
    ranking.rank(row.get());
    return {ranking.order().begin(), ranking.order().begin() + n};
}

/// Ranking scores by contribution: p_i |x_i|, the length of the weighted vector of each key.
/// Throws `invalid_argument` unless x has one row for each weight.
template <Real T>
Row<T> contributions(RowIn<T> p, MatrixView<T> x) {
    detail::require(x.rows() == detail::size<T>(p), "contributions", "x must have one row for each weight",
                    x.rows(), p.size());
    Row<T> scores(x.rows());
    for (Index i = 0; i < x.rows(); ++i) {
        const Eigen::Map<const Row<T>> row(x.row(i).data(), 1, x.cols());
        scores[i] = p[static_cast<std::size_t>(i)] * row.matrix().norm();
    }
    return scores;
}

} // namespace v0_1
} // namespace attnscope
