// Ranking the keys of a row: the N largest weights, ties by smaller index.
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/detail/ordered_bits.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// The n-th largest of a row's scores.
template <Real T>
struct NthLargest {
    T score;
    Index larger; ///< so many scores are larger: n - 1 without ties; every number is larger than NaN
};

/// Orders the keys of rows by descending score, equal scores by ascending index, NaN last. Keeps its memory
/// from row to row.
/// Cost. O(n) for float and double rows of 256 keys or more (radix sort); below, the larger ones of each are
/// counted, or sorted if there are ties.
/// Example:
///     Ranking<float> ranking;
///     ranking.rank(weights, 10); // a row, `RowIn<float>`; all of it without the 10
///     for (const Index key : ranking.order()) std::cout << key << ' ';
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
        scores_.assign(scores.begin(), scores.end());
        order_scores();
    }

    /// The same for the n largest scores only.
    /// Cost. O(size) beside what n costs: passes count the scores above a threshold, which halves the range
    /// of their bits, until hardly more than n are above it.
    /// Throws. `invalid_argument` unless 0 <= n <= size.
    void rank(RowIn<T> scores, Index n) {
        const Index size = detail::size<T>(scores);
        detail::require(n >= 0 && n <= size, "Ranking", "n must be in [0, size]", n, size);
        if (n == 0) {
            order_.clear();
            return;
        }
        if (gather_above_threshold(scores, n))
            order_scores();
        else
            rank(scores);
        order_.resize(static_cast<std::size_t>(n));
    }

    /// The n-th largest score and how many are larger, without a ranking: `order()` means nothing afterwards.
    /// Special rows. NaN ranks last. With n = 0 the score is +inf.
    /// Cost. As of the n largest, without what it takes to order them.
    /// Throws. `invalid_argument` unless 0 <= n <= size.
    NthLargest<T> nth_largest(RowIn<T> scores, Index n) {
        const Index size = detail::size<T>(scores);
        detail::require(n >= 0 && n <= size, "Ranking", "n must be in [0, size]", n, size);
        if (n == 0) return {std::numeric_limits<T>::infinity(), 0};
        if constexpr (!std::same_as<T, long double>) {
            if (const auto range = range_of_numbers(scores)) {
                const Index enough = worth_gathering(n);
                if (enough < size) {
                    const Threshold limit = threshold(scores, *range, n, enough + enough / 2);
                    if (limit.reached <= 2 * enough) {
                        gather_scores(scores, limit);
                        return nth_by_counting(scores_, {detail::row_range<T>(scores_).min, range->max}, n);
                    }
                }
                return nth_by_counting(scores, *range, n);
            }
        }
        rank(scores);
        const auto score = [&](Index place) { return detail::at(scores, detail::at(order_, place)); };
        const T least = score(n - 1);
        Index larger = n - 1;
        while (larger > 0 && (score(larger - 1) == least || score(larger - 1) != score(larger - 1))) --larger;
        return {least, larger};
    }

    /// Keys from the largest score to the smallest.
    std::span<const Index> order() const { return order_; }
    Index size() const { return static_cast<Index>(order_.size()); }

private:
    /// Orders the keys of order_, which ascend, by their scores in scores_.
    void order_scores() {
        const std::size_t n = order_.size();
        ranks_.resize(n);
        if (!std::same_as<T, long double> && n <= most_counted && detail::ranks_of<T>(scores_, ranks_)) {
            other_.resize(n);
            for (std::size_t i = 0; i < n; ++i) detail::at(other_, static_cast<Index>(ranks_[i])) = order_[i];
        } else {
            places_.resize(n);
            std::iota(places_.begin(), places_.end(), std::size_t(0));
            std::sort(places_.begin(), places_.end(), [&](std::size_t a, std::size_t b) {
                const T x = scores_[a], y = scores_[b];
                if (x != x || y != y) return (x == x) != (y == y) ? x == x : a < b;
                return x != y ? x > y : a < b;
            });
            other_.clear();
            for (const std::size_t at : places_) other_.push_back(order_[at]);
        }
        std::swap(order_, other_);
    }

    /// How many scores above a threshold are few enough to be looked at one by one, when n are asked for.
    static Index worth_gathering(Index n) { return n + n / 8 + 8; }

    /// The keys of the n largest, 0 < n, and perhaps some more, ascending, and their scores. False where a threshold does
    /// not help: NaN among the scores, most of them to be ranked, many ties, no bits to halve.
    bool gather_above_threshold(RowIn<T> scores, Index n) {
        if constexpr (std::same_as<T, long double>) {
            return false;
        } else {
            const Index enough = worth_gathering(n);
            if (enough >= detail::size<T>(scores)) return false;
            const auto range = range_of_numbers(scores);
            if (!range) return false;
            const Threshold limit = threshold(scores, *range, n, enough + enough / 2);
            if (limit.reached > 2 * enough) return false;
            gather(scores, limit);
            return true;
        }
    }

    /// The n-th largest of scores in a range, 0 < n.
    static NthLargest<T> nth_by_counting(RowIn<T> scores, const detail::RowRange<T>& range, Index n) {
        using P = detail::Packet<T>;
        const P limit = threshold(scores, range, n, n).score, none = std::numeric_limits<T>::infinity();
        P least = none;
        detail::for_each_lane<T>(detail::size<T>(scores), [&](const auto& lane) {
            const P score = lane(scores.data(), std::numeric_limits<T>::infinity());
            least = min(least, select_below(score, limit, none, score));
        });
        const P score = reduce_min(least);
        Index larger = detail::size<T>(scores);
        detail::for_each_lane<T>(detail::size<T>(scores), [&](const auto& lane) {
            larger -=
                std::popcount(mask_not_below(score, lane(scores.data(), -std::numeric_limits<T>::infinity())));
        });
        constexpr Index size = P::size;
        if (const Index last = detail::size<T>(scores) % size; last != 0) larger += size - last; // the padding
        return {reduce_min(score), larger};
    }

    /// Smallest and largest score; nothing where one is NaN.
    static std::optional<detail::RowRange<T>> range_of_numbers(RowIn<T> scores) {
        if (reached(scores, -std::numeric_limits<T>::infinity()) < detail::size<T>(scores)) return std::nullopt;
        return detail::row_range<T>(scores);
    }

    /// How many scores are at least `limit`.
    static Index reached(RowIn<T> scores, T limit) {
        using P = detail::Packet<T>;
        const P floor = limit;
        Index found = 0;
        detail::for_each_lane<T>(detail::size<T>(scores), [&](const auto& lane) {
            found +=
                std::popcount(mask_not_below(lane(scores.data(), std::numeric_limits<T>::quiet_NaN()), floor));
        });
        return found;
    }

    struct Threshold {
        T score;
        Index reached; ///< by so many
    };
    /// A score that at least `count` > 0 scores reach, and at most `enough` unless they tie.
    static Threshold threshold(RowIn<T> scores, const detail::RowRange<T>& range, Index count, Index enough) {
        // Every score is below the one, at least `count` reach the other.
        auto above = detail::descending_key(range.max), below = detail::descending_key(range.min);
        --above;
        Index reached_below = detail::size<T>(scores);
        const auto bound_found = [&](auto middle, Index found) {
            if (found < count) {
                above = middle;
                return false;
            }
            below = middle;
            reached_below = found;
            return found <= enough;
        };
        if (reached_below <= enough) return {range.min, reached_below};
        // A guess from every so-many-th score often ends the search.
        constexpr Index sampled = 256;
        if (const Index step = detail::size<T>(scores) / sampled; step >= 4) {
            std::array<T, static_cast<std::size_t>(sampled)> sample;
            for (Index i = 0; i < sampled; ++i) detail::at(sample, i) = detail::at(scores, i * step);
            const double expected = static_cast<double>(count) / static_cast<double>(step);
            const auto place = static_cast<Index>(expected + 1.5 * std::sqrt(expected)) + 1;
            if (place < sampled) {
                const T guess = threshold(RowIn<T>(sample), range, place, place + place / 8).score;
                const Index found = reached(scores, guess);
                if (bound_found(detail::descending_key(guess), found)) return {guess, found};
            }
        }
        while (below - above > 1) {
            const auto middle = above + (below - above) / 2;
            if (bound_found(middle, reached(scores, detail::score_of<T>(middle)))) break;
        }
        return {detail::score_of<T>(below), reached_below};
    }

    /// Calls each(i) for the places of scores that reach the limit, ascending.
    template <class F>
    static void for_each_reaching(RowIn<T> scores, T limit, const F& each) {
        const detail::Packet<T> floor = limit;
        detail::for_each_lane<T>(detail::size<T>(scores), [&](const auto& lane) {
            for (std::uint32_t mask =
                     mask_not_below(lane(scores.data(), std::numeric_limits<T>::quiet_NaN()), floor);
                 mask != 0; mask &= mask - 1)
                each(lane.i + std::countr_zero(mask));
        });
    }
    /// The keys that reach the limit, ascending, and their scores.
    void gather(RowIn<T> scores, const Threshold& limit) {
        order_.resize(static_cast<std::size_t>(limit.reached));
        scores_.resize(order_.size());
        Index* key = order_.data();
        T* score = scores_.data();
        for_each_reaching(scores, limit.score, [&](Index i) {
            *key++ = i;
            *score++ = detail::at(scores, i);
        });
    }
    /// The scores alone.
    void gather_scores(RowIn<T> scores, const Threshold& limit) {
        using P = detail::Packet<T>;
        scores_.resize(static_cast<std::size_t>(limit.reached + P::size)); // whole packets are stored
        const P floor = limit.score;
        T* score = scores_.data();
        detail::for_each_lane<T>(detail::size<T>(scores), [&](const auto& lane) {
            score += store_not_below(lane(scores.data(), -std::numeric_limits<T>::infinity()), floor, score);
        });
        scores_.resize(static_cast<std::size_t>(limit.reached));
    }

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
            for (const Index i : order_) other_[count[digit(detail::at(keys_, i), d)]++] = i;
            std::swap(order_, other_);
        }
    }
    template <class Key>
    static std::size_t digit(Key key, int d) {
        return static_cast<std::size_t>((key >> (11 * d)) & 0x7ff);
    }

    /// Above it sorting is cheaper than counting the larger ones of each.
    static constexpr Index most_counted = 512;

    std::vector<Index> order_, other_;
    std::vector<std::uint64_t> keys_;
    std::vector<std::uint32_t> counts_;
    std::vector<T> scores_, ranks_;
    std::vector<std::size_t> places_;
};

/// The keys of the n largest scores, from the largest down; ties by smaller index.
/// Special rows. NaN ranks last.
/// Cost. O(size) beside what n costs, see `Ranking`; allocates.
/// Throws. `invalid_argument` unless 0 <= n <= size.
template <RowLike S>
std::vector<Index> top_n(const S& scores, Index n) {
    using T = RowScalar<S>;
    const RowHolder<T> row(scores);
    detail::require(n >= 0 && n <= row.size(), "top_n", "n must be in [0, size]", n, row.size());
    Ranking<T> ranking;
    ranking.rank(row.get(), n);
    return {ranking.order().begin(), ranking.order().end()};
}

/// Ranking scores by contribution.
/// Formula. p_i |x_i|, the length of the weighted vector of each key.
/// Shapes and units. p [n], x [n, d], result [n].
/// Cost. O(n d), allocates the result.
/// Throws. `invalid_argument` unless x has one row for each weight.
template <Real T>
Row<T> contributions(RowIn<T> p, MatrixView<T> x) {
    detail::require(x.rows() == detail::size<T>(p), "contributions", "x must have one row for each weight",
                    x.rows(), p.size());
    Row<T> scores(x.rows());
    for (Index i = 0; i < x.rows(); ++i) {
        const Eigen::Map<const Row<T>> row(x.row(i).data(), 1, x.cols());
        scores[i] = detail::at(p, i) * row.matrix().norm();
    }
    return scores;
}

/// As above from any row and matrix, as a vector like p.
template <RowLike P, MatrixExpr X>
requires std::same_as<RowScalar<P>, ScalarOf<X>>
RowResult<P> contributions(const P& p, const X& x) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    const MatrixHolder<T> vectors(x);
    const Row<T> scores = contributions<T>(row.get(), vectors.get());
    RowResult<P> result;
    result.resize(scores.size());
    std::copy(scores.begin(), scores.end(), result.data());
    return result;
}

} // namespace v0_2
} // namespace attnscope
