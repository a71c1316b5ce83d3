// What is known of the keys in a block without looking at them: their range and moments in each coordinate.
#pragma once

#include <attnscope/attention/stored_head.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_1 {

/// What a query knows of the logits of the keys in a block.
template <Real A>
struct BlockLogits {
    A least = 0, most = 0; ///< no logit lies outside
    A mean = 0;            ///< of the logits
    A variance = 0;        ///< no less than theirs: mean (z - mean)^2
    A rounding = 0;        ///< by how much each of them may be off
};

/// Keys in blocks of `size` tokens, block b the keys b size ... (b+1) size - 1, and of each block the least and the largest
/// key, the mean and the standard deviation in each coordinate; of values their mean and the distance of the farthest from
/// it.
/// Cost. O(keys (d + d_v)) to make; memory 4 d + d_v + 1 numbers a block, and of keys and values nothing.
/// Source. Least and largest: Quest, arXiv:2406.10774.
template <Real T>
class KeyBlocks {
public:
    using A = Accumulator<T>;

    KeyBlocks() = default;
    /// Throws. `invalid_argument` unless size >= 1 and v has no row or one for each key.
    KeyBlocks(MatrixView<T> k, Index size, MatrixView<T> v = {}) : size_(size), keys_(k.rows()) {
        detail::require(size >= 1, "KeyBlocks", "a block must have keys", size);
        detail::require(v.cols() == 0 || v.rows() == k.rows(), "KeyBlocks",
                        "there must be a value for each key", v.rows(), k.rows());
        const Index blocks = (keys_ + size - 1) / size;
        least_.resize(blocks, k.cols());
        most_.resize(blocks, k.cols());
        mean_.resize(blocks, k.cols());
        deviation_.resize(blocks, k.cols());
        value_mean_.resize(blocks, v.cols());
        for (Index b = 0; b < blocks; ++b) {
            const KeyRange range = keys_of(b);
            const auto key = [&](Index i) { return k.map().row(i).template cast<A>(); };
            least_.row(b) = most_.row(b) = mean_.row(b) = key(range.begin);
            for (Index i = range.begin + 1; i < range.end; ++i) {
                least_.row(b) = least_.row(b).cwiseMin(key(i));
                most_.row(b) = most_.row(b).cwiseMax(key(i));
                mean_.row(b) += key(i);
            }
            mean_.row(b) /= static_cast<A>(range.size());
            deviation_.row(b).setZero();
            for (Index i = range.begin; i < range.end; ++i)
                deviation_.row(b) += (key(i) - mean_.row(b)).cwiseAbs2();
            deviation_.row(b) = (deviation_.row(b) / static_cast<A>(range.size())).cwiseSqrt();
            if (v.cols() == 0) continue;
            const auto value = [&](Index i) { return v.map().row(i).template cast<A>(); };
            value_mean_.row(b).setZero();
            for (Index i = range.begin; i < range.end; ++i) value_mean_.row(b) += value(i);
            value_mean_.row(b) /= static_cast<A>(range.size());
            A radius = 0;
            for (Index i = range.begin; i < range.end; ++i) {
                const A own = (value(i) - value_mean_.row(b)).norm();
                if (!(own <= radius) && radius == radius) radius = own; // takes NaN in
            }
            value_radius_.push_back(radius);
        }
    }

    Index size() const { return size_; }
    Index keys() const { return keys_; }
    Index count() const { return least_.rows(); }
    Index width() const { return least_.cols(); }
    bool has_values() const { return !value_radius_.empty() || value_mean_.cols() > 0; }
    /// The keys of a block.
    KeyRange keys_of(Index block) const { return {block * size_, std::min(keys_, (block + 1) * size_)}; }

    /// What a query knows of the logits scale q.k of a block.
    /// Formula. most = scale sum_c max(q_c least_c, q_c most_c), for scale >= 0, least likewise; mean = scale q.mean;
    /// sqrt(variance) = |scale| sum_c |q_c| deviation_c, by Minkowski's inequality, and at most
    /// sqrt((most - mean)(mean - least)).
    /// Cost. O(d).
    BlockLogits<A> logits(std::span<const T> q, A scale, Index block) const {
        BlockLogits<A> result;
        A deviation = 0, size = 0;
        for (Index c = 0; c < width(); ++c) {
            const A factor = scale * A(detail::at(q, c)), low = factor * least_(block, c),
                    high = factor * most_(block, c);
            result.least += std::min(low, high);
            result.most += std::max(low, high);
            result.mean += factor * mean_(block, c);
            deviation += std::abs(factor) * deviation_(block, c);
            size += std::max(std::abs(low), std::abs(high));
        }
        result.rounding = std::numeric_limits<A>::epsilon() * static_cast<A>(width() + 4) * size;
        result.mean = std::clamp(result.mean, std::min(result.least, result.most), result.most);
        result.variance =
            std::min(deviation * deviation, (result.most - result.mean) * (result.mean - result.least));
        return result;
    }

    /// No value of a block is farther from `point` than this.
    /// Formula. |value mean - point| + radius.
    template <class Point>
    A value_reach(Index block, const Point& point) const {
        return (value_mean_.row(block) - point).norm() + detail::at(value_radius_, block);
    }

private:
    Index size_ = 1, keys_ = 0;
    Matrix<A> least_, most_, mean_, deviation_; ///< [blocks, d]
    Matrix<A> value_mean_;                      ///< [blocks, d_v]
    std::vector<A> value_radius_;
};

/// The most that `count` keys of a block can weigh, sum e^{z - shift}, if all of the block is seen.
/// Formula. Of all numbers up to u with this mean m and at most this variance s^2 none has a larger mean of e^z than u,
/// with probability w = s^2/((u-m)^2 + s^2), and m - s^2/(u-m) else. Attained by such numbers.
/// Cost. O(1).
/// Source. Bennett, JASA 1962, of bounded variables.
template <Real A>
A most_block_mass(const BlockLogits<A>& block, Index count, A shift) {
    const A above = block.most - block.mean;
    if (!(above > A(0)) || !(block.variance > A(0)))
        return static_cast<A>(count) * std::exp(block.mean - shift);
    const A w = block.variance / (above * above + block.variance), low = block.mean - block.variance / above;
    return static_cast<A>(count) * ((1 - w) * std::exp(low - shift) + w * std::exp(block.most - shift));
}

} // namespace v0_1
} // namespace attnscope
