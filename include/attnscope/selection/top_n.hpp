// Ranking the keys of a row: the N largest weights, ties by smaller index.
#pragma once

#include <attnscope/detail/lanes.hpp>

#include <bit>
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

/// The score whose `descending_key` this is; of numbers only.
template <class T, class Bits>
T score_of(Bits key) {
    const Bits sign = Bits(1) << (8 * sizeof(Bits) - 1), ascending = Bits(~key);
    return std::bit_cast<T>((ascending & sign) ? Bits(ascending & ~sign) : Bits(~ascending));
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

/// The sets of the N largest scores for several N at once, each inside the next, without an order inside them:
/// ties by smaller index, NaN last, as `Ranking` has it. Passes over the row count the scores above a threshold
/// until few candidates are left. Keeps its memory from row to row. O(n); the whole order is not sorted out.
template <Real T>
class TopSets {
public:
    /// `counts` must ascend within [0, n]. Throws `invalid_argument` otherwise.
    void select(RowIn<T> scores, std::span<const Index> counts) {
        const Index n = detail::size<T>(scores);
        for (std::size_t g = 0; g < counts.size(); ++g)
            detail::require(counts[g] >= (g > 0 ? counts[g - 1] : 0) && counts[g] <= n, "TopSets",
                            "the N must ascend in [0, n]", counts[g], n);
        keys_.clear();
        if (counts.empty() || counts.back() == 0) return;
        if constexpr (std::same_as<T, long double>) {
            ranking_.rank(scores);
            keys_.assign(ranking_.order().begin(), ranking_.order().begin() + counts.back());
        } else {
            find_candidates(scores, counts.back());
            auto end = candidates_.end();
            for (std::size_t g = counts.size(); g-- > 0;) {
                const auto part = candidates_.begin() + counts[g];
                if (part < end) std::nth_element(candidates_.begin(), part, end);
                end = part;
            }
            for (auto at = candidates_.begin(); at != candidates_.begin() + counts.back(); ++at)
                keys_.push_back(at->index());
        }
    }

    /// Of the largest N asked for: the first N of them are the keys of the N largest scores, for each N.
    std::span<const Index> keys() const { return keys_; }

private:
    /// Less is a larger score, or an equal one of a smaller index.
    struct Candidate {
        std::uint64_t high, low;
        Index index() const { return static_cast<Index>(low); }
        friend bool operator<(const Candidate& a, const Candidate& b) {
            return a.high != b.high ? a.high < b.high : a.low < b.low;
        }
    };

    void add_candidate(RowIn<T> scores, Index at) {
        candidates_.push_back(
            {detail::descending_key(scores[static_cast<std::size_t>(at)]), static_cast<std::uint64_t>(at)});
    }

    /// At least the `count` first ones, hardly more.
    void find_candidates(RowIn<T> scores, Index count) {
        const Index n = detail::size<T>(scores);
        candidates_.clear();
        const T threshold = threshold_for(scores, count);
        if (threshold != threshold) {
            for (Index i = 0; i < n; ++i) add_candidate(scores, i);
            return;
        }
        using S = detail::Simd<T>;
        const auto limit = S::set(threshold);
        detail::for_each_lane<T>(n, [&](const auto& lane) {
            for (std::uint32_t mask = S::mask_not_below(lane(scores.data()), limit); mask != 0;
                 mask &= mask - 1) {
                const Index at = lane.i + std::countr_zero(mask);
                if (at < n) add_candidate(scores, at);
            }
        });
    }

    /// A score that at least `count` ones reach, and not many more unless they tie; NaN if all are to be looked
    /// at. Halves the range of the bits, which is about that of the logarithm.
    static T threshold_for(RowIn<T> scores, Index count) {
        constexpr T none = std::numeric_limits<T>::quiet_NaN();
        const Index n = detail::size<T>(scores), enough = count + count / 8 + 8;
        if (n <= enough + 32) return none;
        const detail::RowRange<T> range = detail::row_range<T>(scores);
        auto low = detail::descending_key(range.max), high = detail::descending_key(range.min);
        if (reached(scores, range.min) < n) return none; // NaN
        if (reached(scores, range.max) >= count) return range.max;
        while (high - low > 1) {
            const auto middle = low + (high - low) / 2;
            const T threshold = detail::score_of<T>(middle);
            const Index found = reached(scores, threshold);
            if (found < count) {
                low = middle;
                continue;
            }
            if (found <= enough) return threshold;
            high = middle;
        }
        return detail::score_of<T>(high);
    }

    /// How many scores are at least `limit`.
    static Index reached(RowIn<T> scores, T limit) {
        using S = detail::Simd<T>;
        const auto one = S::set(T(1)), zero = S::set(T(0)), from = S::set(limit);
        constexpr Index block = Index(1) << 20; // of which even float counts each one
        Index found = 0;
        for (Index begin = 0; begin < detail::size<T>(scores); begin += block) {
            const Index n = std::min(block, detail::size<T>(scores) - begin);
            const T* const row = scores.data() + begin;
            typename S::P below[4] = {zero, zero, zero, zero};
            const auto count = [&](int j, typename S::P x) {
                below[j] = S::select_below(x, from, below[j], S::add(below[j], one));
            };
            Index i = 0;
            for (; i + 4 * S::size <= n; i += 4 * S::size)
                for (int j = 0; j < 4; ++j) count(j, S::load(row + i + j * S::size));
            for (; i + S::size <= n; i += S::size) count(0, S::load(row + i));
            found += static_cast<Index>(
                S::reduce_add(S::add(S::add(below[0], below[1]), S::add(below[2], below[3]))));
            for (; i < n; ++i) found += row[i] >= limit;
        }
        return found;
    }

    std::vector<Candidate> candidates_;
    std::vector<Index> keys_;
    Ranking<T> ranking_;
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
