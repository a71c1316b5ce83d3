// What is known of the keys in a block without looking at them: their range and moments in each coordinate.
#pragma once

#include <attnscope/attention/stored_head.hpp>

#include <Eigen/Eigenvalues>

#include <cmath>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// What a query knows of the logits of the keys in a block.
template <Real A>
struct BlockLogits {
    A least = 0, most = 0; ///< no logit lies outside
    A mean = 0;            ///< of the logits
    A variance = 0;        ///< no less than theirs: mean (z - mean)^2
    A rounding = 0;        ///< by how much each of them may be off
};

/// What is kept of a block of keys.
enum class BlockSummary {
    moments, ///< all that `KeyBlocks` says
    range    ///< least and largest key alone, as Quest has them
};

/// Keys in blocks of `size` tokens, block b the keys b size ... (b+1) size - 1, and of each block the least and the largest
/// key, the mean and the standard deviation in each coordinate, the distance of the farthest key from the mean, and the
/// largest eigenvalue of the covariance; of values their mean and the distance of the farthest from it.
/// Cost. O(keys (size d + size^2 + d_v)) to make; memory 4 d + d_v + 3 numbers a block, and of keys and values nothing.
/// Source. Least and largest: Quest, arXiv:2406.10774.
template <Real T>
class KeyBlocks {
public:
    using A = Accumulator<T>;

    KeyBlocks() = default;
    /// Throws. `invalid_argument` unless size >= 1 and v has no row or one for each key.
    KeyBlocks(MatrixView<T> k, Index size, MatrixView<T> v = {}, BlockSummary summary = BlockSummary::moments)
        : size_(size), keys_(k.rows()), has_moments_(summary == BlockSummary::moments) {
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
            if (has_moments_) add_spread(k, b);
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
    bool has_moments() const { return has_moments_; }
    bool has_values() const { return !value_radius_.empty() || value_mean_.cols() > 0; }
    /// The keys of a block.
    KeyRange keys_of(Index block) const { return {block * size_, std::min(keys_, (block + 1) * size_)}; }

    /// What a query knows of the logits scale q.k of a block.
    /// Formula. mean = scale q.mean; most is the smaller of scale sum_c max(q_c least_c, q_c most_c), for scale >= 0, and
    /// mean + |scale q| radius, least likewise; sqrt(variance) is the smallest of |scale| sum_c |q_c| deviation_c (Minkowski),
    /// |scale q| sqrt(largest eigenvalue), sqrt((most - mean)(mean - least)). Without moments only the first `most` and
    /// `least` are known: the mean counts as `most`, the variance as 0.
    /// Cost. O(d).
    BlockLogits<A> logits(std::span<const T> q, A scale, Index block) const {
        BlockLogits<A> result;
        A deviation = 0, size = 0, square = 0;
        for (Index c = 0; c < width(); ++c) {
            const A factor = scale * A(detail::at(q, c)), low = factor * least_(block, c),
                    high = factor * most_(block, c);
            result.least += std::min(low, high);
            result.most += std::max(low, high);
            result.mean += factor * mean_(block, c);
            deviation += std::abs(factor) * deviation_(block, c);
            size += std::max(std::abs(low), std::abs(high));
            square += factor * factor;
        }
        const A unit = std::numeric_limits<A>::epsilon() * static_cast<A>(width() + 4);
        result.rounding = unit * size;
        if (!has_moments_) {
            result.mean = result.most;
            return result;
        }
        const A length = std::sqrt(square), reach = length * detail::at(radius_, block);
        result.rounding += unit * reach;
        result.most = std::min(result.most, result.mean + reach);
        result.least = std::max(result.least, result.mean - reach);
        deviation = std::min(deviation, length * detail::at(largest_deviation_, block));
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
    /// The farthest key from the mean, and the standard deviation in the direction where it is largest.
    void add_spread(MatrixView<T> k, Index b) {
        const KeyRange range = keys_of(b);
        // The covariance has the eigenvalues of the smaller of the two products.
        Eigen::Matrix<A, Eigen::Dynamic, Eigen::Dynamic> centred =
            k.map().middleRows(range.begin, range.size()).template cast<A>();
        centred.rowwise() -= mean_.row(b);
        radius_.push_back(centred.rowwise().norm().maxCoeff());
        if (!centred.allFinite()) {
            radius_.back() = std::numeric_limits<A>::quiet_NaN();
            largest_deviation_.push_back(std::numeric_limits<A>::quiet_NaN());
            return;
        }
        Eigen::Matrix<A, Eigen::Dynamic, Eigen::Dynamic> products;
        if (centred.rows() < centred.cols())
            products.noalias() = centred * centred.transpose();
        else
            products.noalias() = centred.transpose() * centred;
        const Index n = products.rows();
        const A largest =
            n == 0 ? A(0)
                   : Eigen::SelfAdjointEigenSolver<decltype(products)>(products, Eigen::EigenvaluesOnly)
                         .eigenvalues()[n - 1];
        // Upwards by what the solver may be off.
        const A off = std::numeric_limits<A>::epsilon() * static_cast<A>(8 * n + width()) * products.trace();
        largest_deviation_.push_back(std::sqrt(std::max(A(0), largest + off) / static_cast<A>(range.size())));
    }

    Index size_ = 1, keys_ = 0;
    bool has_moments_ = true;
    Matrix<A> least_, most_, mean_, deviation_; ///< [blocks, d]
    std::vector<A> radius_, largest_deviation_; ///< of keys around their mean, in any direction
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

} // namespace v0_2
} // namespace attnscope
