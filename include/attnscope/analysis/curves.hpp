// What the paper's Algorithms 1 to 5 measure on one head: curves over the number of selected tokens, the length of the
// text and the temperature. Needs Boost.Math (target attnscope::special).
#pragma once

#include <attnscope/analysis/head_curves.hpp>
#include <attnscope/audit/measured_row.hpp>
#include <attnscope/row/row_statistics.hpp>
#include <attnscope/row/softmax_row.hpp>
#include <attnscope/selection/separability_curves.hpp>
#include <attnscope/selection/separability_expectation.hpp>
#include <attnscope/selection/subset_moments.hpp>
#include <attnscope/sensitivity/finite_difference.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <attnscope/streaming/selection_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// x divided by its length, row by row; vectors of length 0 stay.
/// Cost. O(n d), allocates the result.
template <Real T>
Matrix<T> unit_rows(MatrixView<T> x) {
    using A = Accumulator<T>;
    Matrix<T> unit = x.map();
    for (Index i = 0; i < unit.rows(); ++i)
        if (const A length = unit.row(i).template cast<A>().norm(); length > 0)
            unit.row(i) = (unit.row(i).template cast<A>() / length).template cast<T>();
    return unit;
}

namespace detail {

/// Sums of some figures over the rows so far; keeps their means whenever a length is reached.
class CurveSums {
public:
    CurveSums(const CurveOptions& options, std::vector<CurveFigure> figures)
        : options_(options), figures_(std::move(figures)),
          sums_(Matrix<double>::Zero(std::ssize(figures_), std::ssize(options.counts))),
          rows_(options.counts.size(), 0) {}

    /// Call before the row of each query, in ascending order, and once with the number of queries.
    void reach(Index query, std::vector<LengthCurves>& at_length) {
        for (; done_ < options_.lengths.size() && options_.lengths[done_] <= query; ++done_)
            keep(at_length[done_]);
    }
    /// A row of `visible` keys; `value(figure, N)` for every N < visible.
    template <class Value>
    void add(Index visible, const Value& value) {
        ++normal_rows_;
        for (std::size_t c = 0; c < options_.counts.size() && options_.counts[c] < visible; ++c) {
            ++rows_[c];
            for (std::size_t f = 0; f < figures_.size(); ++f)
                sums_(static_cast<Index>(f), static_cast<Index>(c)) += value(figures_[f], c);
        }
    }
    /// The N below the number of visible keys.
    std::span<const Index> counts_below(Index visible) const {
        const std::span<const Index> counts(options_.counts);
        return counts.first(
            static_cast<std::size_t>(std::lower_bound(counts.begin(), counts.end(), visible) - counts.begin()));
    }

private:
    void keep(LengthCurves& curves) const {
        curves.rows = rows_;
        curves.normal_rows = normal_rows_;
        for (std::size_t f = 0; f < figures_.size(); ++f)
            for (std::size_t c = 0; c < rows_.size(); ++c) {
                const bool all = options_.short_rows == ShortRows::zero && is_distance(figures_[f]);
                const Index rows = rows_[c] == 0 ? 0 : all ? normal_rows_ : rows_[c];
                curves.mean(static_cast<Index>(figures_[f]), static_cast<Index>(c)) =
                    rows > 0 ? sums_(static_cast<Index>(f), static_cast<Index>(c)) / static_cast<double>(rows)
                             : std::numeric_limits<double>::quiet_NaN();
            }
    }

    const CurveOptions& options_;
    std::vector<CurveFigure> figures_;
    Matrix<double> sums_; ///< [figures, counts]
    std::vector<Index> rows_;
    Index normal_rows_ = 0;
    std::size_t done_ = 0;
};

/// Algorithms 1 to 3: distances and what random selections make of them, and the output that is lost.
template <Real T>
class DistancesOfRows {
public:
    DistancesOfRows(const CurveOptions& options, HeadCurves& result)
        : sums_(options, {CurveFigure::distance, CurveFigure::resultant, CurveFigure::theorem1,
                          CurveFigure::random_lower, CurveFigure::random_upper, CurveFigure::random_resultant,
                          CurveFigure::lost, CurveFigure::mass}),
          options_(options), result_(result) {}

    void reach(Index query) { sums_.reach(query, result_.at_length); }
    void add(const RankedRow<T>& row) {
        const Index visible = std::ssize(row.keys);
        const auto& curve =
            curves_.compute(row.weights, row.x, row.gram, row.order, sums_.counts_below(visible), true);
        const RandomSubsetMoments<T> moments(row.weights, row.x);
        Interval<double> expected;
        sums_.add(visible, [&](CurveFigure figure, std::size_t c) {
            const Index n = options_.counts[c];
            switch (figure) {
            case CurveFigure::distance:
                return double(curve.cumulative[c]);
            case CurveFigure::resultant:
                return double(curve.resultant[c]);
            case CurveFigure::theorem1:
                return double(curve.bound[c]);
            case CurveFigure::random_lower: {
                const auto both = moments.template expected_distance<T>(n);
                expected = {double(both.lower), double(both.upper)};
                return expected.lower;
            }
            case CurveFigure::random_upper:
                return expected.upper; // of the same N: figures come in their order
            case CurveFigure::random_resultant:
                return std::sqrt(std::max(0.0, double(moments.resultant_second_moment(n))));
            case CurveFigure::lost:
                return double(curve.truncation[c]);
            case CurveFigure::mass:
                return double(curve.mass[c]);
            default:
                return std::numeric_limits<double>::quiet_NaN();
            }
        });
    }

private:
    CurveSums sums_;
    const CurveOptions& options_;
    HeadCurves& result_;
    DistanceCurves<T> curves_;
};

/// Algorithm 4, and precision, recall and F against N.
template <Real T>
class SeparationsOfRows {
public:
    SeparationsOfRows(const CurveOptions& options, MatrixView<T> values, HeadCurves& result)
        : sums_(options, {CurveFigure::separable, CurveFigure::precision, CurveFigure::f_score}),
          options_(options), result_(result) {
        curves_.assign(values);
    }

    void reach(Index query) { sums_.reach(query, result_.at_length); }
    void add(const RankedRow<T>& row) {
        const Index visible = std::ssize(row.keys);
        const bool from_the_first = row.keys.back() == visible - 1;
        if (!from_the_first) gathered_.assign(row.x);
        const auto& curve =
            (from_the_first ? curves_ : gathered_).compute(row.weights, row.order, sums_.counts_below(visible));
        sums_.add(visible, [&](CurveFigure figure, std::size_t c) {
            return double(figure == CurveFigure::separable   ? curve.recall[c]
                          : figure == CurveFigure::precision ? curve.precision[c]
                                                             : curve.f_score[c]);
        });
        if (std::binary_search(options_.ball_queries.begin(), options_.ball_queries.end(), row.query))
            for (const Index n : options_.ball_counts)
                if (n < visible) add_ball(row, n);
    }

private:
    void add_ball(const RankedRow<T>& row, Index n) {
        const auto count = static_cast<std::size_t>(n);
        selected_.clear();
        others_.clear();
        double longest = 0;
        for (std::size_t rank = 0; rank < row.order.size(); ++rank) {
            const Index key = row.order[rank];
            (rank < count ? selected_ : others_).push_back(static_cast<double>(detail::at(row.weights, key)));
            longest = std::max(longest, std::sqrt(double(row.gram(key, key))));
        }
        SeparabilityBall ball;
        ball.query = row.query;
        ball.visible = std::ssize(row.keys);
        ball.count = n;
        set_.assign(row.weights, row.x, row.order.first(count));
        const auto found = separability(set_, options_.radius);
        ball.radius = options_.radius ? *options_.radius : double(found.nearest_other);
        ball.separable = double(found.separable_fraction);
        if (!(ball.radius > 0) || !std::isfinite(ball.radius) || !(longest > 0) || row.x.cols() < 2) return;
        const SphericalModel model{.dimension = row.x.cols(), .radius = longest};
        const std::span<const double> selected(selected_);
        ball.published = theorem2_published_range(selected, model, ball.radius);
        ball.valid = theorem2_valid_range(selected, model, ball.radius);
        // Order 6 is within 1e-3 of order 16, beside fractions of 1/N.
        if (!options_.radius && !expectation_) expectation_.emplace(model.dimension, 6);
        ball.expected = options_.radius ? std::numeric_limits<double>::quiet_NaN()
                                        : expectation_->expected(selected, others_);
        result_.balls.push_back(ball);
    }

    CurveSums sums_;
    const CurveOptions& options_;
    HeadCurves& result_;
    SeparabilityCurves<T> curves_,
        gathered_; ///< of all values, and of those of a row that does not see the first ones
    SelectedSet<T> set_;
    std::optional<SeparableFractionModel> expectation_;
    std::vector<double> selected_, others_;
};

/// Concentration by length, and Algorithm 5: what asks for the logits of a row only, in double.
template <Real T>
class SensitivityOfRows {
public:
    SensitivityOfRows(const CurveOptions& options, HeadCurves& result) : options_(options), result_(result) {
        const auto steps = options.steps.size();
        for (std::size_t t = 0; t < options.temperatures.size(); ++t)
            result.at_temperature.push_back(
                {std::vector<double>(steps, 0), std::vector<double>(steps, 0), std::vector<Index>(steps, 0)});
    }

    void reach(Index query) {
        for (; done_ < options_.lengths.size() && options_.lengths[done_] <= query; ++done_) {
            const double rows = static_cast<double>(normal_rows_);
            LengthCurves& curves = result_.at_length[done_];
            curves.entropy_nats = entropy_ / rows;
            curves.participation_ratio = participation_ / rows;
            curves.max_weight = max_weight_ / rows;
        }
    }

    void add(const RankedRow<T>& row) {
        z_.assign(row.logits.begin(), row.logits.end());
        const RowIn<double> z(z_);
        const RowStatistics<double> statistics = row_statistics<double>(z);
        ++normal_rows_;
        entropy_ += statistics.entropy_nats();
        participation_ += statistics.participation_ratio();
        max_weight_ += statistics.max_weight();
        direction_.resize(z.size());
        weights_.resize(z.size());
        moved_.resize(z.size());
        SplitMix64 random(mixed_seed(options_.seed, static_cast<std::uint64_t>(row.query)));
        random_direction<double>(z, random, RowOut<double>(direction_));
        for (std::size_t t = 0; t < options_.temperatures.size(); ++t)
            at_temperature(z, statistics.logit_spread(), options_.temperatures[t], result_.at_temperature[t]);
    }

    void finish() {
        const double rows = static_cast<double>(normal_rows_);
        for (TemperatureCurve& curve : result_.at_temperature) {
            for (double& mean : curve.mean) mean /= rows;
            curve.spectral /= rows;
            curve.random_direction /= rows;
        }
    }

private:
    /// One random direction for each row, for every temperature and step.
    void at_temperature(RowIn<double> z, double spread, double temperature, TemperatureCurve& curve) {
        const auto n = std::ssize(z);
        const Softmax softmax(temperature);
        softmax.apply<double>(z, RowOut<double>(weights_));
        const auto norms = jacobian_norms(softmax, z, RowIn<double>(weights_));
        curve.spectral += norms.spectral.value;
        curve.spectral_largest = std::max(curve.spectral_largest, norms.spectral.value);
        curve.random_direction += norms.frobenius / std::sqrt(static_cast<double>(n));
        // Of both rows of weights: their relative error times a length of at most 1.
        const double error = 2 * softmax_weight_error(n, std::min(spread / temperature, 745.0));
        for (std::size_t e = 0; e < options_.steps.size(); ++e) {
            const double eps = options_.steps[e];
            const double g = finite_difference<double>(softmax, z, RowIn<double>(weights_),
                                                       RowIn<double>(direction_), eps, RowOut<double>(moved_));
            curve.mean[e] += g;
            curve.largest[e] = std::max(curve.largest[e], g);
            curve.above[e] += g > published_gradient_limit(temperature) + error / eps;
        }
    }

    const CurveOptions& options_;
    HeadCurves& result_;
    std::vector<double> z_, direction_, weights_, moved_;
    double entropy_ = 0, participation_ = 0, max_weight_ = 0;
    Index normal_rows_ = 0;
    std::size_t done_ = 0;
};

/// All rows of a head in ascending order, to each of `parts`.
template <Real T, class... Parts>
void visit_rows(const HeadView<T>& head, const Mask& mask, Parts&... parts) {
    std::vector<Index> queries(static_cast<std::size_t>(head.queries()));
    std::iota(queries.begin(), queries.end(), Index(0));
    scan_ranked_rows(
        queries, head, gram_matrix(head.v()), Softmax(),
        [&](const RankedRow<T>& row) {
            (parts.reach(row.query), ...);
            if (!row.keys.empty()) (parts.add(row), ...);
        },
        mask);
    (parts.reach(head.queries()), ...);
}

inline void check_ascending(std::string_view name, std::span<const Index> list, Index least) {
    for (std::size_t i = 0; i < list.size(); ++i)
        if (!(list[i] >= least && (i == 0 || list[i] > list[i - 1])))
            fail("head_curves", std::string(name) + " must ascend from " + to_text(least) + " on", list[i]);
}

} // namespace detail

/// What the paper's Algorithms 1 to 5 measure on one head under softmax, the values as token vectors.
/// Shapes and units. A head with values.
/// Special rows. Rows that are not normal count nowhere.
/// Cost. O(queries keys max N), on the calling thread; memory O(keys^2) doubles and for float
/// values as many floats. Depends on the arguments only.
/// Throws. `invalid_argument` for lists that do not ascend, lengths beyond the queries, a radius <= 0, temperatures or
/// steps <= 0 and a head without values.
/// Source. P Algorithms 1 to 5; what it leaves open is said at `CurveOptions`.
template <Real T>
HeadCurves head_curves(const HeadView<T>& head, const CurveOptions& asked) {
    CurveOptions options = asked;
    if (options.lengths.empty()) options.lengths = {head.queries()};
    detail::check_ascending("lengths", options.lengths, 0);
    detail::check_ascending("counts", options.counts, 1);
    detail::check_ascending("ball_counts", options.ball_counts, 1);
    detail::check_ascending("ball_queries", options.ball_queries, 0);
    detail::require(options.lengths.back() <= head.queries(), "head_curves",
                    "lengths must not exceed the number of queries", options.lengths.back(), head.queries());
    for (const double t : options.temperatures) detail::checked_temperature("head_curves", t);
    for (const double eps : options.steps)
        detail::require(eps > 0 && std::isfinite(eps), "head_curves", "steps must be > 0 and finite", eps);
    if (options.radius)
        detail::require(*options.radius > 0, "head_curves", "radius must be > 0", *options.radius);
    detail::require(head.has_values(), "head_curves", "the head needs values");

    HeadCurves result;
    LengthCurves empty;
    empty.mean = Matrix<double>::Constant(static_cast<Index>(curve_figure_count), std::ssize(options.counts),
                                          std::numeric_limits<double>::quiet_NaN());
    result.at_length.assign(options.lengths.size(), empty);
    const Matrix<T> unit = options.unit_vectors == UnitVectors::nowhere ? Matrix<T>() : unit_rows(head.v());
    const HeadView<T> on_sphere = options.unit_vectors == UnitVectors::nowhere
                                      ? head
                                      : HeadView<T>(head.q(), head.k(), MatrixView<T>(unit), head.scale());
    detail::DistancesOfRows<T> distances(options, result);
    detail::SeparationsOfRows<T> separations(options, on_sphere.v(), result);
    detail::SensitivityOfRows<T> sensitivity(options, result);
    if (options.unit_vectors == UnitVectors::separability) {
        detail::visit_rows(head, options.mask, distances, sensitivity);
        detail::visit_rows(on_sphere, options.mask, separations);
    } else {
        detail::visit_rows(on_sphere, options.mask, distances, sensitivity, separations);
    }
    sensitivity.finish();
    return result;
}

} // namespace v0_2
} // namespace attnscope
