// Weighted mean and spread of value vectors that are seen piece by piece, and of every row of a head.
#pragma once

#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Mass W = sum w, mean = sum w v/W and scatter = sum w |v - mean|^2 of weighted vectors. The mean lives in
/// storage of the caller, of the vectors' length, zero at first. All updates keep the scatter a sum of terms
/// >= 0, so that it keeps its digits when the vectors are close to each other. Beside a `RowState`, whose
/// terms are the weights and whose factors are what `scale` takes.
/// Invariant. A commutative monoid under `merge` to rounding, with the state of mass 0 as identity.
/// Example, vectors of `float` with their weights:
///     std::vector<double> mean(d, 0.0);
///     ValueState<double> state(mean);
///     for (Index j = 0; j < n; ++j) state.add<float>(p[j], v.row(j)); // v: MatrixView<float>
///     const double spread = state.variance();
template <Real A>
class ValueState {
public:
    explicit ValueState(std::span<A> mean) : mean_(mean) {}
    /// A state that was stored: mean as it was, not zero.
    /// Throws. `invalid_argument` for a mass or a scatter below 0.
    ValueState(std::span<A> mean, A mass, A scatter) : mean_(mean), mass_(mass), scatter_(scatter) {
        detail::require(!(mass < A(0)) && !(scatter < A(0)), "ValueState", "mass and scatter must be >= 0",
                        mass, scatter);
    }

    A mass() const { return mass_; }
    A scatter() const { return scatter_; }
    std::span<const A> mean() const { return mean_; }
    /// Tr Var = scatter/W: the mean squared distance from the mean. NaN without mass.
    A variance() const { return mass_ > A(0) ? scatter_ / mass_ : std::numeric_limits<A>::quiet_NaN(); }

    /// One vector of weight w >= 0; without effect for 0.
    /// Cost. O(d).
    /// Throws. `invalid_argument` unless it is as long as the mean.
    template <Real T>
    void add(A weight, RowIn<T> value) {
        detail::require(value.size() == mean_.size(), "ValueState::add",
                        "the vector must be as long as the mean", value.size(), mean_.size());
        if (!(weight > A(0)) && weight == weight) return;
        const A mass = mass_ + weight, share = weight / mass;
        A distance = 0;
        for (std::size_t c = 0; c < value.size(); ++c) {
            const A apart = static_cast<A>(value[c]) - mean_[c];
            distance += apart * apart;
            mean_[c] += share * apart;
        }
        scatter_ += mass_ * share * distance;
        mass_ = mass;
    }

    /// All weights so far times a factor >= 0.
    void scale(A factor) {
        mass_ *= factor;
        scatter_ *= factor;
    }

    /// Other vectors, in the same unit of weight.
    /// Cost. O(d).
    /// Throws. `invalid_argument` unless both means are of one length.
    void merge(const ValueState& other) {
        detail::require(other.mean_.size() == mean_.size(), "ValueState::merge",
                        "both means must be of one length", other.mean_.size(), mean_.size());
        if (!(other.mass_ > A(0)) && other.mass_ == other.mass_) return;
        const A mass = mass_ + other.mass_, share = other.mass_ / mass;
        A distance = 0;
        for (std::size_t c = 0; c < mean_.size(); ++c) {
            const A apart = other.mean_[c] - mean_[c];
            distance += apart * apart;
            mean_[c] += share * apart;
        }
        scatter_ += other.scatter_ + mass_ * share * distance;
        mass_ = mass;
    }

private:
    std::span<A> mean_;
    A mass_ = 0, scatter_ = 0;
};

/// Output o = sum p v and spread Tr Var_p v = sum p |v - o|^2 of every row of softmax.
template <Real T>
struct ValueMoments : ScanExtent {
    Matrix<T> output;     ///< [queries, d_v]; 0 for rows without a key, NaN for NaN rows
    Row<double> variance; ///< [queries]; NaN for rows that are not normal or infinite
};

/// Output and spread of the values of every row of softmax.
/// Formula. o = sum p v and Tr Var_p v = sum p |v - o|^2, in two passes over each row, the second around the
/// row's own mean: no difference of large numbers.
/// Special rows. See `ValueMoments`.
/// Cost. O(d + d_v) for each visible pair, about twice that of a scan with output; memory as `scan_rows`.
/// Throws. `invalid_argument` for a head without values.
template <HeadLike H, Executor E = Sequential>
ValueMoments<detail::ScalarOfHead<H>> scan_value_moments(const H& head, const Mask& mask = {},
                                                         const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    using A = Accumulator<T>;
    const StoredHead<T> stored(head);
    detail::require(head.has_values(), "scan_value_moments", "the head needs values");
    const Index width = head.v().cols();
    ValueMoments<T> result;
    result.output.setZero(head.queries(), width);
    result.variance.setConstant(head.queries(), std::numeric_limits<double>::quiet_NaN());
    detail::WorkspacePool<std::vector<T>> workspaces;
    const auto asked = detail::take_scale(stored, options);
    static_cast<ScanExtent&>(result) = scan_rows<T>(
        head.queries(), head.keys(), ProductTiles<T>(asked.head, executor),
        [&](Index query, Index first, RowOut<T> z) {
            const RowStatus status = Softmax().apply<T>(RowIn<T>(z), z);
            if (status == RowStatus::nan)
                result.output.row(query).setConstant(std::numeric_limits<T>::quiet_NaN());
            if (status == RowStatus::nan || status == RowStatus::empty) return;
            workspaces.use([&](std::vector<T>& room) {
                // of the weighted keys, a few values at a time; hidden ones may be anything
                const auto for_each_value = [&](const auto& f) {
                    constexpr Index at_once = 64;
                    const Index n = static_cast<Index>(z.size());
                    for (Index i = 0; i < n; i += at_once) {
                        const Index count = std::min(at_once, n - i);
                        const MatrixView<T> values = stored.v().read(first + i, count, room);
                        for (Index j = 0; j < count; ++j)
                            if (const T weight = detail::at(z, i + j); weight != T(0))
                                f(static_cast<A>(weight), values.map().row(j).template cast<A>());
                    }
                };
                Eigen::Matrix<A, 1, Eigen::Dynamic> mean = Eigen::Matrix<A, 1, Eigen::Dynamic>::Zero(width);
                for_each_value([&](A weight, const auto& value) { mean += weight * value; });
                A sum = 0;
                for_each_value(
                    [&](A weight, const auto& value) { sum += weight * (value - mean).squaredNorm(); });
                result.output.row(query) = mean.template cast<T>();
                result.variance[query] = static_cast<double>(sum);
            });
        },
        mask, asked.options, executor);
    detail::for_each_missing(
        result, [&](Index row) { result.output.row(row).setConstant(std::numeric_limits<T>::quiet_NaN()); });
    return result;
}

} // namespace v0_2
} // namespace attnscope
