#include "head_analysis.hpp"

#include <attnscope/attnscope.hpp>
#include <attnscope/audit/certificates.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/selection/separability_expectation.hpp>

namespace paper {
namespace {

using attnscope::RankedRow;
using attnscope::RowIn;
using attnscope::RowOut;
using attnscope::Softmax;

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

/// Sums of some figures over the rows so far; keeps their means whenever a length is reached.
class CurveSums {
public:
    CurveSums(const Settings& settings, std::vector<Figure> figures)
        : settings_(settings), figures_(std::move(figures)),
          sums_(Matrix<double>::Zero(static_cast<Index>(figures_.size()),
                                     static_cast<Index>(settings.counts.size()))),
          rows_(settings.counts.size(), 0) {}

    /// Call before the row of each query, in ascending order, and once with the number of queries.
    void reach(Index query, std::vector<Curves>& at_length) {
        for (; done_ < settings_.lengths.size() && settings_.lengths[done_] <= query; ++done_)
            keep(at_length[done_]);
    }
    /// A row of `visible` keys; `value(figure, N)` for every N < visible.
    template <class Value>
    void add(Index visible, const Value& value) {
        ++normal_rows_;
        for (std::size_t c = 0; c < settings_.counts.size() && settings_.counts[c] < visible; ++c) {
            ++rows_[c];
            for (std::size_t f = 0; f < figures_.size(); ++f)
                sums_(static_cast<Index>(f), static_cast<Index>(c)) += value(figures_[f], c);
        }
    }

private:
    void keep(Curves& curves) const {
        curves.rows = rows_;
        curves.normal_rows = normal_rows_;
        for (std::size_t f = 0; f < figures_.size(); ++f)
            for (std::size_t c = 0; c < rows_.size(); ++c) {
                const bool all = settings_.short_rows == ShortRows::zero && is_distance(figures_[f]);
                const Index rows = rows_[c] == 0 ? 0 : all ? normal_rows_ : rows_[c];
                curves.mean(static_cast<Index>(figures_[f]), static_cast<Index>(c)) =
                    rows > 0 ? sums_(static_cast<Index>(f), static_cast<Index>(c)) / static_cast<double>(rows)
                             : not_known;
            }
    }

    const Settings& settings_;
    std::vector<Figure> figures_;
    Matrix<double> sums_; ///< [figures, counts]
    std::vector<Index> rows_;
    Index normal_rows_ = 0;
    std::size_t done_ = 0;
};

/// Algorithms 1 to 3: distances and what random selections make of them, and the output that is lost.
class Distances {
public:
    Distances(const Settings& settings, std::vector<Curves>& at_length)
        : sums_(settings, {Figure::distance, Figure::resultant, Figure::theorem1, Figure::random_lower,
                           Figure::random_upper, Figure::random_resultant, Figure::lost, Figure::mass}),
          settings_(settings), at_length_(at_length) {}

    void reach(Index query) { sums_.reach(query, at_length_); }
    void add(const RankedRow<float>& row) {
        const Index visible = static_cast<Index>(row.keys.size());
        const Index most = std::min(visible - 1, settings_.counts.empty() ? 0 : settings_.counts.back());
        const auto& curve = curves_.compute(row.weights, row.x, row.gram, row.order, most, true);
        const attnscope::RandomSubsetMoments<float> moments(row.weights, row.x);
        attnscope::Interval<double> expected;
        sums_.add(visible, [&](Figure figure, std::size_t c) {
            const Index n = settings_.counts[c];
            const auto at = static_cast<std::size_t>(n - 1);
            switch (figure) {
            case Figure::distance:
                return curve.cumulative[at];
            case Figure::resultant:
                return curve.resultant[at];
            case Figure::theorem1:
                return curve.bound[at];
            case Figure::random_lower:
                expected = moments.expected_distance(n);
                return expected.lower;
            case Figure::random_upper:
                return expected.upper; // of the same N: figures come in their order
            case Figure::random_resultant:
                return std::sqrt(std::max(0.0, moments.resultant_second_moment(n)));
            case Figure::lost:
                return curve.truncation[at];
            case Figure::mass:
                return curve.mass[at];
            default:
                return not_known;
            }
        });
    }

private:
    CurveSums sums_;
    const Settings& settings_;
    std::vector<Curves>& at_length_;
    attnscope::DistanceCurves<float> curves_;
};

/// Algorithm 4 and precision, recall and F against N.
class Separations {
public:
    Separations(const Settings& settings, const std::vector<Index>& sampled, HeadResult& result)
        : sums_(settings, {Figure::separable, Figure::precision, Figure::f_score}), settings_(settings),
          sampled_(sampled), result_(result) {}

    void reach(Index query) { sums_.reach(query, result_.at_length); }
    void add(const RankedRow<float>& row) {
        const Index visible = static_cast<Index>(row.keys.size());
        const std::span<const Index> counts(settings_.counts);
        const auto below = std::lower_bound(counts.begin(), counts.end(), visible) - counts.begin();
        const auto& curve = curves_.compute(row.weights, row.x, row.gram, row.order,
                                            counts.first(static_cast<std::size_t>(below)));
        sums_.add(visible, [&](Figure figure, std::size_t c) {
            return figure == Figure::separable   ? curve.recall[c]
                   : figure == Figure::precision ? curve.precision[c]
                                                 : curve.f_score[c];
        });
        if (std::binary_search(sampled_.begin(), sampled_.end(), row.query))
            for (const Index n : settings_.balls)
                if (n < visible) add_ball(row, n);
    }

private:
    void add_ball(const RankedRow<float>& row, Index n) {
        const auto count = static_cast<std::size_t>(n);
        selected_.clear();
        others_.clear();
        double longest = 0;
        for (std::size_t rank = 0; rank < row.order.size(); ++rank) {
            const Index key = row.order[rank];
            (rank < count ? selected_ : others_)
                .push_back(static_cast<double>(row.weights[static_cast<std::size_t>(key)]));
            longest = std::max(longest, std::sqrt(row.gram(key, key)));
        }
        Ball ball;
        ball.query = row.query;
        ball.visible = static_cast<Index>(row.keys.size());
        ball.count = n;
        const bool given = settings_.radius > 0;
        set_.assign(row.weights, row.x, row.order.first(count));
        const auto found =
            attnscope::separability(set_, given ? std::optional<double>(settings_.radius) : std::nullopt);
        ball.radius = given ? settings_.radius : found.nearest_other;
        ball.separable = found.separable_fraction;
        if (!(ball.radius > 0) || !std::isfinite(ball.radius) || !(longest > 0) || row.x.cols() < 2) return;
        const attnscope::SphericalModel model{.dimension = row.x.cols(), .radius = longest};
        const std::span<const double> selected(selected_);
        ball.published = attnscope::theorem2_published_range(selected, model, ball.radius);
        ball.valid = attnscope::theorem2_valid_range(selected, model, ball.radius);
        // Order 6 is within 1e-3 of order 16, beside fractions of 1/N.
        if (!given && !expectation_) expectation_.emplace(model.dimension, 6);
        ball.expected = given ? not_known : expectation_->expected(selected, others_);
        result_.balls.push_back(ball);
    }

    CurveSums sums_;
    const Settings& settings_;
    const std::vector<Index>& sampled_;
    HeadResult& result_;
    attnscope::SeparabilityCurves<float> curves_;
    attnscope::SelectedSet<float> set_;
    std::optional<attnscope::SeparableFractionModel> expectation_;
    std::vector<double> selected_, others_;
};

/// What asks for one row's logits and weights only, in double: Algorithm 5, concentration, the audit.
class Rows {
public:
    Rows(const HeadInput& input, const Settings& settings, HeadResult& result)
        : input_(input), settings_(settings), result_(result),
          row_auditor_({.steps = settings.steps}, direction_seed(settings.seed, input.layer, input.head, -1)),
          selection_auditor_(
              {.reading = settings.resultant ? attnscope::Reading::resultant : attnscope::Reading::cumulative},
              direction_seed(settings.seed, input.layer, input.head, -3)),
          certificate_auditor_({}, direction_seed(settings.seed, input.layer, input.head, -2)) {
        const auto steps = settings.steps.size();
        for (std::size_t t = 0; t < settings.temperatures.size(); ++t)
            result.at_temperature.push_back(
                {std::vector<double>(steps, 0), std::vector<double>(steps, 0), std::vector<Index>(steps, 0)});
        const auto keys = static_cast<std::size_t>(input.view.keys());
        column_mass_.assign(keys, 0);
        seen_.assign(keys, 0);
        for (Index key = 0; key < input.view.keys(); ++key)
            key_lengths_.push_back(length(input.view.k().row(key)));
        x_ = input.view.v().map().cast<double>();
    }

    void reach(Index query) {
        for (; done_ < settings_.lengths.size() && settings_.lengths[done_] <= query; ++done_) {
            const double rows = static_cast<double>(normal_rows_);
            Curves& curves = result_.at_length[done_];
            curves.entropy_nats = entropy_ / rows;
            curves.participation_ratio = participation_ / rows;
            curves.max_weight = max_weight_ / rows;
        }
    }

    void add(const RankedRow<float>& row) {
        z_.assign(row.logits.begin(), row.logits.end());
        const attnscope::MeasuredRow& measured = meter_(Softmax(), z_);
        ++normal_rows_;
        entropy_ += measured.statistics.entropy_nats();
        participation_ += measured.statistics.participation_ratio();
        max_weight_ += measured.statistics.max_weight();
        result_.spectral += measured.norms.spectral.value;
        double longest_key = 0;
        for (std::size_t i = 0; i < row.keys.size(); ++i) {
            const auto key = static_cast<std::size_t>(row.keys[i]);
            column_mass_[key] += measured.p[i];
            ++seen_[key];
            longest_key = std::max(longest_key, key_lengths_[key]);
        }
        differences(row.query, measured.z, measured.statistics.logit_spread());
        const double delta = length(input_.view.q().row(row.query)) * longest_key *
                             std::abs(static_cast<double>(input_.view.scale()));
        row_auditor_(result_.audit, measured, {.delta = delta});
        certificate_auditor_(result_.audit, measured);
        audit_selections(row, measured.p);
    }

    void finish() {
        const double rows = static_cast<double>(normal_rows_);
        result_.spectral /= rows;
        for (Sensitivity& at : result_.at_temperature) {
            for (double& mean : at.mean) mean /= rows;
            at.spectral /= rows;
            at.random_direction /= rows;
        }
        for (std::size_t key = 0; key < seen_.size(); ++key) {
            const double mass = column_mass_[key] / static_cast<double>(seen_[key]);
            if (key == 0) result_.first_key_mass = mass;
            if (4 * seen_[key] < result_.rows || !(mass > result_.sink_mass)) continue;
            result_.sink_key = static_cast<Index>(key);
            result_.sink_mass = mass;
        }
    }

private:
    static double length(std::span<const float> x) {
        double sum = 0;
        for (const float c : x) sum += double(c) * double(c);
        return std::sqrt(sum);
    }

    /// Algorithm 5: one random direction a row, for every temperature and step.
    void differences(Index query, RowIn<double> z, double spread) {
        direction_.resize(z.size());
        weights_.resize(z.size());
        moved_.resize(z.size());
        attnscope::SplitMix64 random(direction_seed(settings_.seed, input_.layer, input_.head, query));
        attnscope::random_direction<double>(z, random, RowOut<double>(direction_));
        const auto n = static_cast<Index>(z.size());
        for (std::size_t t = 0; t < settings_.temperatures.size(); ++t) {
            const double temperature = settings_.temperatures[t];
            const Softmax softmax(temperature);
            Sensitivity& at = result_.at_temperature[t];
            softmax.apply<double>(z, RowOut<double>(weights_));
            const auto norms = attnscope::jacobian_norms(softmax, z, RowIn<double>(weights_));
            at.spectral += norms.spectral.value;
            at.spectral_largest = std::max(at.spectral_largest, norms.spectral.value);
            at.random_direction += norms.frobenius / std::sqrt(static_cast<double>(n));
            // Of both rows of weights: their relative error times a length of at most 1.
            const double error = 2 * attnscope::softmax_weight_error(n, std::min(spread / temperature, 745.0));
            for (std::size_t e = 0; e < settings_.steps.size(); ++e) {
                const double eps = settings_.steps[e];
                const double g = attnscope::finite_difference<double>(softmax, z, RowIn<double>(weights_),
                                                                      RowIn<double>(direction_), eps,
                                                                      RowOut<double>(moved_));
                at.mean[e] += g;
                at.largest[e] = std::max(at.largest[e], g);
                at.above[e] += g > attnscope::published_gradient_limit(temperature) + error / eps;
            }
        }
    }

    void audit_selections(const RankedRow<float>& row, RowIn<double> p) {
        const bool prefix = row.keys.empty() || row.keys.back() + 1 == static_cast<Index>(row.keys.size());
        if (!prefix) gathered_ = row.x.map().cast<double>();
        ranking_.rank(p);
        const attnscope::RankedTokens tokens{
            p,
            prefix ? MatrixView<double>(x_.data(), static_cast<Index>(row.keys.size()), x_.cols())
                   : MatrixView<double>(gathered_),
            ranking_.order(), &row.gram};
        selection_auditor_(result_.audit, tokens, settings_.audited);
        if (std::binary_search(input_.sampled.begin(), input_.sampled.end(), row.query))
            selection_auditor_.expectations(result_.audit, tokens, settings_.audited);
    }

    const HeadInput& input_;
    const Settings& settings_;
    HeadResult& result_;
    attnscope::RowMeter meter_;
    attnscope::RowAuditor row_auditor_;
    attnscope::SelectionAuditor selection_auditor_;
    attnscope::CertificateAuditor certificate_auditor_;
    attnscope::Ranking<double> ranking_;
    Matrix<double> x_, gathered_;
    std::vector<double> column_mass_, key_lengths_, z_, direction_, weights_, moved_;
    std::vector<Index> seen_;
    double entropy_ = 0, participation_ = 0, max_weight_ = 0;
    Index normal_rows_ = 0;
    std::size_t done_ = 0;
};

/// x divided by its length, row by row; vectors of length 0 stay.
Matrix<float> unit_rows(const MatrixView<float>& x) {
    Matrix<float> unit = x.map();
    for (Index i = 0; i < unit.rows(); ++i)
        if (const double length = unit.row(i).cast<double>().norm(); length > 0)
            unit.row(i) = (unit.row(i).cast<double>() / length).cast<float>();
    return unit;
}

/// All rows of a head in ascending order, to each of `parts`.
template <class... Parts>
void visit_rows(const HeadView<float>& view, const Mask& mask, Parts&... parts) {
    std::vector<Index> queries(static_cast<std::size_t>(view.queries()));
    std::iota(queries.begin(), queries.end(), Index(0));
    attnscope::scan_ranked_rows<float>(
        queries, view, attnscope::gram_matrix(view.v()), Softmax(),
        [&](const RankedRow<float>& row) {
            (parts.reach(row.query), ...);
            if (!row.keys.empty()) (parts.add(row), ...);
        },
        mask);
    (parts.reach(view.queries()), ...);
}

} // namespace

std::uint64_t direction_seed(std::uint64_t seed, Index layer, Index head, Index query) {
    for (const Index number : {layer, head, query})
        seed = attnscope::SplitMix64(seed + static_cast<std::uint64_t>(number))();
    return seed;
}

HeadResult analyse_head(const HeadInput& input, const Mask& mask, const Settings& settings) {
    HeadResult result;
    result.layer = input.layer;
    result.head = input.head;
    result.rows = input.view.queries();
    Curves empty;
    empty.mean = Matrix<double>::Constant(static_cast<Index>(figure_count),
                                          static_cast<Index>(settings.counts.size()), not_known);
    result.at_length.assign(settings.lengths.size(), empty);

    const Matrix<float> unit =
        settings.unit == UnitVectors::nowhere ? Matrix<float>() : unit_rows(input.view.v());
    const HeadView<float>& view = input.view;
    const HeadView<float> on_sphere(view.q(), view.k(), MatrixView<float>(unit), view.scale());
    HeadInput plain = input;
    if (settings.unit == UnitVectors::everywhere) plain.view = on_sphere;
    Distances distances(settings, result.at_length);
    Separations separations(settings, input.sampled, result);
    Rows rows(plain, settings, result);
    if (settings.unit == UnitVectors::separability) {
        visit_rows(view, mask, distances, rows);
        visit_rows(on_sphere, mask, separations);
    } else {
        visit_rows(plain.view, mask, distances, rows, separations);
    }
    rows.finish();
    result.skipped = result.rows - result.at_length.back().normal_rows;
    return result;
}

attnscope::PlanQuestion plan_question(const Settings& settings) {
    attnscope::PlanQuestion question;
    question.weight = 0.5;
    question.output_error = 0.01;
    question.bits = true;
    question.rows = settings.planned_rows;
    return question;
}

attnscope::HeadPlan plan_of(const HeadView<float>& head, const Mask& mask, const Settings& settings) {
    return attnscope::plan_head(head.q().map(), head.k().map(), head.v().map(), plan_question(settings), mask,
                                head.scale());
}

void audit_head(attnscope::Audit& audit, const HeadView<float>& head, const Mask& mask,
                const std::optional<attnscope::HeadProjections<double>>& projections) {
    constexpr Index most_queries = 64, most_tokens = 128;
    const Index queries = head.queries(), count = std::min(queries, most_queries);
    const Matrix<double> values = head.v().map().cast<double>();
    Matrix<double> logits(count, head.keys());
    std::vector<float> z(static_cast<std::size_t>(head.keys()));
    for (Index i = 0; i < count; ++i) {
        attnscope::logits_of<float>(head, mask, queries * (i + 1) / count - 1, z);
        for (Index j = 0; j < head.keys(); ++j) logits(i, j) = z[static_cast<std::size_t>(j)];
    }
    if (logits.array().isNaN().any() || !values.allFinite()) return;
    attnscope::audit_rank_collapse(audit, MatrixView<double>(logits), MatrixView<double>(values));

    if (!projections || queries != head.keys()) return;
    const Index tokens = std::min(queries, most_tokens);
    const Matrix<double> q = head.q().map().topRows(tokens).cast<double>(),
                         k = head.k().map().topRows(tokens).cast<double>(), v = values.topRows(tokens);
    const HeadView<double> first(q, k, v, head.scale());
    const attnscope::HeadJacobian<double> jacobian(first, *projections, mask);
    // A few steps reach most of the norm, and any vector is a witness of it.
    audit.add(attnscope::token_jacobian_sharp(jacobian.norm(10),
                                              attnscope::token_jacobian_limit(first, *projections, mask),
                                              tokens, projections->query.rows()));
}

} // namespace paper
