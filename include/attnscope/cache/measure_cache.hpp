// What storing the keys and values of a head does to its rows: weights, outputs and selections before and after, and
// what the formats promise.
#pragma once

#include <attnscope/cache/format.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/selection/distance.hpp>
#include <attnscope/selection/separability.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A channel that stands out.
struct OutlierChannel {
    Index channel = 0;
    double mean = 0;  ///< over the tokens
    double ratio = 0; ///< |mean| over the size of a usual channel
};

/// The channels whose mean lies far from zero against the size of the usual channel, largest ratio first. Blocks of
/// channels that share a scale have the step of the one that stands out.
/// Formula. |mean_c| > factor m, m the median over the channels of the root mean square of each (the lower one of two).
/// Shapes and units. x [tokens, d].
/// Special rows. A median of 0 makes every channel with another mean stand out, at an infinite ratio; channels with NaN
/// do not count and are not named.
/// Cost. O(tokens d), allocates O(d).
/// Throws. `invalid_argument` unless factor > 0.
template <Real T>
std::vector<OutlierChannel> outlier_channels(MatrixView<T> x, double factor = 6) {
    detail::require(factor > 0, "outlier_channels", "factor must be > 0", factor);
    std::vector<OutlierChannel> outliers;
    if (x.rows() == 0) return outliers;
    std::vector<double> sizes, means;
    const double unit = 1 / std::sqrt(static_cast<double>(x.rows()));
    for (Index j = 0; j < x.cols(); ++j) {
        const Eigen::VectorXd channel = x.map().col(j).template cast<double>();
        means.push_back(channel.mean());
        if (const double size = channel.stableNorm() * unit; size == size) sizes.push_back(size);
    }
    if (sizes.empty()) return outliers;
    const auto middle = sizes.begin() + (std::ssize(sizes) - 1) / 2;
    std::nth_element(sizes.begin(), middle, sizes.end());
    for (Index j = 0; j < x.cols(); ++j)
        if (const double mean = detail::at(means, j); std::abs(mean) > factor * *middle)
            outliers.push_back({j, mean, std::abs(mean) / *middle});
    std::stable_sort(outliers.begin(), outliers.end(),
                     [](const auto& a, const auto& b) { return a.ratio > b.ratio; });
    return outliers;
}

/// As above from any Eigen matrix.
template <MatrixExpr X>
std::vector<OutlierChannel> outlier_channels(const X& x, double factor = 6) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return outlier_channels(rows.get(), factor);
}

/// What a cache did to one row.
struct CachedRow {
    Index query = 0;
    Perturbation<double>
        weights;             ///< range of the logit error, TV, KL (the larger of both), gaps, 1 - p1, diameter
    double range_limit = 0;  ///< of the logit error, from the errors that the format of the keys allows
    double displacement = 0; ///< max |v'_j - v_j| over the keys that the row sees
    double displacement_limit = 0; ///< the same from the format of the values
    double output = 0;             ///< |o|
    double output_error = 0;       ///< |o' - o|, keys and values stored
    Index top = 0;                 ///< N of the selections, at most the keys that the row sees
    Index top_kept = 0;            ///< of the N largest weights before, how many are among the N largest after
    double distance = 0,
           distance_after = 0; ///< d(I) of the top N (cumulative reading), with its own weights and values
    double separable = 0, separable_after = 0; ///< `Separability::separable_fraction` of the top N

    /// Is no key above the (first) one that was the largest?
    bool argmax_kept() const { return weights.gap_after >= 0; }
    /// |o' - o|/|o|, 0/0 = 0.
    double relative_error() const { return output_error == 0 ? 0.0 : output_error / output; }
    /// What the error is at most, from the logit error and the displacement that were measured.
    double limit() const { return limit_for(weights.range, displacement); }
    /// The same without a look at what was stored: from the errors that the formats allow.
    double format_limit() const { return limit_for(range_limit, displacement_limit); }
    /// diam(V) `concentrated_variation_limit`(range) + the displacement; NaN stays.
    double limit_for(double range, double moved) const {
        if (range != range || weights.rest != weights.rest) return range + weights.rest;
        const double variation = concentrated_variation_limit(range, weights.rest);
        return (variation == 0 ? 0.0 : weights.diameter * variation) + moved;
    }
};

inline constexpr Statement cache_output_sharp_statement{
    .id = "cache_output",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|o'-o| <= diam(V) times the limit of perturbation_tv + max_j |v'_j - v_j|",
    .conditions = "softmax, keys and values changed; r at least the range of the logit error",
    .source = "perturbation_output, and the triangle inequality",
};

/// Bound "cache_output": |o' - o| <= `CachedRow::limit`, or `CachedRow::format_limit` if `promised`. Undefined where
/// the row's figures are NaN. What holds without it: diam(V) + the displacement.
/// Cost. O(1).
inline Bound<double> cache_output_sharp(const CachedRow& row, const PerturbationError<double>& error,
                                        bool promised = false) {
    const double limit = promised ? row.format_limit() : row.limit();
    return upper_bound<double>(
        cache_output_sharp_statement,
        {.limit = limit,
         .measured = row.output_error,
         .tolerance = row.weights.diameter * (2 * error.weights + error.range / 4) +
                      64 * std::numeric_limits<double>::epsilon() * limit,
         .trivial = row.weights.diameter + (promised ? row.displacement_limit : row.displacement)});
}

/// What `measure_cache` looks at.
struct CacheOptions {
    Index top = 0;                   ///< N of the selections that are compared; 0: none
    double outlier_factor = 6;       ///< of `outlier_channels`
    std::vector<Index> queries = {}; ///< rows to measure; none: all
};

/// Means over rows that are numbers.
struct CacheSummary {
    Index rows = 0, left_out = 0;              ///< rows that count, and those with a NaN
    double argmax_kept = 0;                    ///< share
    double total_variation = 0, kl = 0;        ///< means
    double error = 0, worst_error = 0;         ///< mean and largest |o' - o|/|o|
    double limit = 0, format_limit = 0;        ///< means, over |o|
    double top_kept = 0;                       ///< mean share of the top N
    double distance_change = 0;                ///< mean |d' - d|/d of the top N
    double separable = 0, separable_after = 0; ///< means
};

/// What a cache did to a head.
struct CacheMeasurement {
    std::vector<CachedRow> rows; ///< of the queries, in their order
    std::vector<OutlierChannel> key_outliers, value_outliers;
    double key_bytes = 0, value_bytes = 0; ///< of a token

    /// Shares and means over the rows without a NaN in their error or limit; NaN if there are none.
    /// Cost. O(rows).
    CacheSummary summary() const {
        CacheSummary sum;
        const auto relative = [](double x, const CachedRow& row) { return x == 0 ? 0.0 : x / row.output; };
        for (const CachedRow& row : rows) {
            const double error = row.relative_error(), limit = relative(row.limit(), row);
            if (std::isnan(error) || std::isnan(limit)) {
                ++sum.left_out;
                continue;
            }
            ++sum.rows;
            sum.argmax_kept += row.argmax_kept() ? 1 : 0;
            sum.total_variation += row.weights.total_variation;
            sum.kl += row.weights.kl;
            sum.error += error;
            sum.worst_error = std::max(sum.worst_error, error);
            sum.limit += limit;
            sum.format_limit += relative(row.format_limit(), row);
            sum.top_kept += row.top > 0 ? static_cast<double>(row.top_kept) / static_cast<double>(row.top) : 1;
            const double change = std::abs(row.distance_after - row.distance);
            sum.distance_change += change == 0 ? 0 : change / row.distance;
            sum.separable += row.separable;
            sum.separable_after += row.separable_after;
        }
        const double count = static_cast<double>(sum.rows);
        for (double* mean :
             {&sum.argmax_kept, &sum.total_variation, &sum.kl, &sum.error, &sum.limit, &sum.format_limit,
              &sum.top_kept, &sum.distance_change, &sum.separable, &sum.separable_after})
            *mean /= count;
        if (sum.rows == 0) sum.worst_error = std::numeric_limits<double>::quiet_NaN();
        return sum;
    }
};

namespace detail {

/// A head before and after its cache, in double, and what the formats allow.
class StoredHeadPair {
public:
    template <Real T>
    StoredHeadPair(const HeadView<T>& head, const CacheFormat& key_format, const CacheFormat& value_format)
        : scale_(static_cast<double>(head.scale())), q_(head.q().map().template cast<double>()),
          k_(head.k().map().template cast<double>()), v_(head.v().map().template cast<double>()),
          stored_k_(through_cache(head.k(), key_format).template cast<double>()),
          stored_v_(through_cache(head.v(), value_format).template cast<double>()),
          key_limits_(cache_error_limits(head.k(), key_format).template cast<double>() * (1 + unit)) {
        measured_q_ = q_;
        if (key_format.rotation) {
            const int stages =
                static_cast<int>(std::bit_width(static_cast<std::uint64_t>(hadamard_block(q_.cols()))));
            rotation_error_ = (stages + 2) * unit;
            measured_q_ = hadamard_rotate(MatrixView<double>(q_), *key_format.rotation);
        }
        displacements_ = (stored_v_ - v_).rowwise().norm();
        displacement_limits_ =
            cache_error_limits(head.v(), value_format).template cast<double>().rowwise().norm() *
            (1 + static_cast<double>(v_.cols() + 4) * unit);
        diameters_ = prefix_diameters(MatrixView<double>(v_));
    }

    CachedRow row(const Mask& mask, Index query, Index top) {
        CachedRow row;
        row.query = query;
        seen_.clear();
        const KeyRanges visible = mask.visible(query, k_.rows());
        visible.for_each([&](Index key) { seen_.push_back(key); });
        const std::size_t n = seen_.size();
        z_.resize(n);
        moved_.resize(n);
        double first = 0, second = 0; // largest errors that the format allows of two logits
        const double length = q_.row(query).norm(),
                     rounding = 1 + static_cast<double>(q_.cols() + 4) * 2 * unit;
        for (std::size_t i = 0; i < n; ++i) {
            const Index key = seen_[i];
            z_[i] = scale_ * q_.row(query).dot(k_.row(key));
            moved_[i] = scale_ * q_.row(query).dot(stored_k_.row(key));
            const auto limits = key_limits_.row(key);
            const double error =
                std::abs(scale_) * rounding *
                (measured_q_.row(query).cwiseAbs().dot(limits) + rotation_error_ * length * limits.norm());
            second = std::max(second, std::min(first, error));
            first = std::max(first, error);
            larger(row.displacement, displacements_[key]);
            larger(row.displacement_limit, displacement_limits_[key]);
        }
        row.range_limit = n < 2 ? 0 : first + second; // one key has all the weight
        row.weights = measure_perturbation(RowIn<double>(z_), RowIn<double>(moved_), {}, diameter_of(visible));
        if (n == 0) return row;
        if (row.weights.range != row.weights.range) {
            row.output = row.output_error = row.range_limit = row.weights.range;
            row.distance = row.distance_after = row.separable = row.separable_after = row.weights.range;
            return row;
        }
        weights(z_, p_);
        weights(moved_, stored_p_);
        change_.setZero(v_.cols());
        output_.setZero(v_.cols());
        for (std::size_t i = 0; i < n; ++i) {
            const auto v = v_.row(seen_[i]);
            output_ += p_[i] * v;
            // Changes of weights add up to 0: against one value, what all have in common cancels exactly.
            change_ += (stored_p_[i] - p_[i]) * (v - v_.row(seen_.front())) +
                       stored_p_[i] * (stored_v_.row(seen_[i]) - v);
        }
        row.output = output_.stableNorm();
        row.output_error = change_.stableNorm();
        if (top > 0) select(row, std::min(top, static_cast<Index>(n)));
        return row;
    }

private:
    static constexpr double unit = unit_of<double>;

    static void larger(double& most, double x) {
        if (!(x <= most)) most = x; // takes NaN in
    }
    static void weights(const std::vector<double>& z, std::vector<double>& p) {
        p.resize(z.size());
        Softmax{}.apply<double>(RowIn<double>(z), RowOut<double>(p));
    }
    double diameter_of(const KeyRanges& visible) const {
        const KeyRange hull = visible.hull();
        if (visible.count() == 0) return 0;
        return hull.begin == 0 && visible.count() == hull.end ? diameters_[hull.end] : diameters_[k_.rows()];
    }

    /// Figures of the top N before and after, and how many keys the two have in common.
    void select(CachedRow& row, Index top) {
        row.top = top;
        std::vector<Index> chosen;
        const auto figures = [&](const std::vector<double>& p, const Matrix<double>& all, double& distance,
                                 double& separable) {
            values_.resize(static_cast<Index>(seen_.size()), all.cols());
            for (std::size_t i = 0; i < seen_.size(); ++i)
                values_.row(static_cast<Index>(i)) = all.row(seen_[i]);
            ranking_.rank(RowIn<double>(p), top);
            set_.assign(RowIn<double>(p), MatrixView<double>(values_), ranking_.order());
            distance = selection_distance(set_);
            separable = separability(set_).separable_fraction;
        };
        figures(p_, v_, row.distance, row.separable);
        chosen.assign(ranking_.order().begin(), ranking_.order().end());
        figures(stored_p_, stored_v_, row.distance_after, row.separable_after);
        std::sort(chosen.begin(), chosen.end());
        for (const Index key : ranking_.order())
            row.top_kept += std::binary_search(chosen.begin(), chosen.end(), key) ? 1 : 0;
    }

    double scale_, rotation_error_ = 0;
    Matrix<double> q_, k_, v_, stored_k_, stored_v_, key_limits_, measured_q_;
    Eigen::VectorXd displacements_, displacement_limits_;
    Row<double> diameters_;
    std::vector<Index> seen_;
    std::vector<double> z_, moved_, p_, stored_p_;
    Eigen::RowVectorXd output_, change_;
    Matrix<double> values_;
    Ranking<double> ranking_;
    SelectedSet<double> set_;
};

} // namespace detail

/// Measures what a cache of these formats does to the rows of a head under softmax, in double from what it stores in T.
/// Formula. Logits z' = scale q.k', weights p' = softmax(z'), outputs o' = sum p'_j v'_j with k' and v' of
/// `through_cache`. `CachedRow::range_limit` is the sum of the two largest h_j = |scale| sum_c |q_c| limit_jc, the limits of
/// `cache_error_limits` (with a rotation: q rotated); diameters are those of the keys that the row sees, or more where
/// these are not the first ones.
/// Special rows. A row that sees no key: zeros. One whose logits are not finite before or after: NaN.
/// Cost. O(keys^2 d_v) for diameters, O(queries keys (d + d_v)), with selections O(keys log keys) more a row; memory
/// O((queries + keys)(d + d_v)).
/// Throws. `invalid_argument` for a head without values, formats that do not fit d or d_v, top < 0, an outlier factor
/// that is not > 0, and queries that are not there.
/// Example: `measure_cache(head, Mask::causal(), {CacheNumber::q8_0}, {CacheNumber::q4_0}).summary().argmax_kept`
template <Real T>
CacheMeasurement measure_cache(const HeadView<T>& head, const Mask& mask, const CacheFormat& key_format,
                               const CacheFormat& value_format, const CacheOptions& options = {}) {
    detail::require(head.has_values(), "measure_cache", "there must be values to store");
    detail::require(options.top >= 0, "measure_cache", "top must be >= 0", options.top);
    for (const Index query : options.queries)
        detail::require(query >= 0 && query < head.queries(), "measure_cache", "query must be in [0, queries)",
                        query, head.queries());
    CacheMeasurement result;
    detail::StoredHeadPair pair(head, key_format, value_format);
    result.key_outliers = outlier_channels(head.k(), options.outlier_factor);
    result.value_outliers = outlier_channels(head.v(), options.outlier_factor);
    if (head.keys() > 0 && head.k().cols() > 0 && head.v().cols() > 0) {
        result.key_bytes = cache_bytes(key_format, head.k().cols(), head.keys());
        result.value_bytes = cache_bytes(value_format, head.v().cols(), head.keys());
    }
    const Index count = options.queries.empty() ? head.queries() : static_cast<Index>(options.queries.size());
    for (Index i = 0; i < count; ++i)
        result.rows.push_back(
            pair.row(mask, options.queries.empty() ? i : detail::at(options.queries, i), options.top));
    return result;
}

/// As above for q [queries, d], k [keys, d] and v [keys, d_v], any Eigen matrices of one scalar.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
requires std::same_as<ScalarOf<Q>, ScalarOf<K>> && std::same_as<ScalarOf<Q>, ScalarOf<V>>
CacheMeasurement measure_cache(const Q& q, const K& k, const V& v, const Mask& mask,
                               const CacheFormat& key_format, const CacheFormat& value_format,
                               const CacheOptions& options = {}) {
    const Head<ScalarOf<Q>> head(q, k, v);
    return measure_cache(head.view(), mask, key_format, value_format, options);
}

} // namespace v0_2
} // namespace attnscope
