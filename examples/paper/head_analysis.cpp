#include "head_analysis.hpp"

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/curves.hpp>
#include <attnscope/planner/plan_head.hpp>

namespace paper {
namespace {

/// Weight by key over the rows of a head, added up.
class KeyMass {
public:
    explicit KeyMass(Index keys) : mass_(Eigen::ArrayXd::Zero(keys)), seen_(Eigen::ArrayXd::Zero(keys)) {}

    void add(attnscope::RowIn<double> logits, attnscope::RowIn<double> weights) {
        for (std::size_t key = 0; key < weights.size(); ++key) {
            if (!(logits[key] > -std::numeric_limits<double>::infinity())) continue;
            mass_[static_cast<Index>(key)] += weights[key];
            seen_[static_cast<Index>(key)] += 1;
        }
    }
    void report(HeadResult& result, Index rows) const {
        for (Index key = 0; key < mass_.size(); ++key) {
            const double mass = mass_[key] / seen_[key];
            if (key == 0) result.first_key_mass = mass;
            if (4 * seen_[key] < static_cast<double>(rows) || !(mass > result.sink_mass)) continue;
            result.sink_key = key;
            result.sink_mass = mass;
        }
    }

private:
    Eigen::ArrayXd mass_, seen_;
};

std::uint64_t seed_of(const HeadInput& input, const Settings& settings) {
    return attnscope::mixed_seed(settings.seed, static_cast<std::uint64_t>(input.layer),
                                 static_cast<std::uint64_t>(input.head));
}

} // namespace

void add_curves(HeadResult& result, const HeadInput& input, const Mask& mask, const Settings& settings) {
    const HeadView<float>& view = input.view;
    const std::optional<double> radius = settings.radius > 0 ? std::optional(settings.radius) : std::nullopt;
    static_cast<attnscope::HeadCurves&>(result) =
        attnscope::head_curves(view, {.mask = mask,
                                      .lengths = settings.lengths,
                                      .counts = settings.counts,
                                      .short_rows = settings.short_rows,
                                      .unit_vectors = settings.unit,
                                      .radius = radius,
                                      .ball_counts = settings.balls,
                                      .ball_queries = input.sampled,
                                      .temperatures = settings.temperatures,
                                      .steps = settings.steps,
                                      .seed = seed_of(input, settings)});
    result.layer = input.layer;
    result.head = input.head;
    result.rows = view.queries();
    result.skipped = result.rows - result.at_length.back().normal_rows;
}

void add_audit(HeadResult& result, const HeadInput& input, const Mask& mask, const Settings& settings) {
    const HeadView<float>& view = input.view;
    KeyMass mass(view.keys());
    attnscope::AnalysisOptions options;
    options.mask = mask;
    options.counts = settings.audited;
    options.expectation_queries = input.sampled;
    options.reading = settings.resultant ? attnscope::Reading::resultant : attnscope::Reading::cumulative;
    options.steps = settings.steps;
    options.seed = seed_of(input, settings);
    options.visit = [&](Index, attnscope::RowIn<double> logits, attnscope::RowIn<double> weights) {
        mass.add(logits, weights);
    };
    Matrix<float> unit;
    if (settings.unit == UnitVectors::everywhere) unit = attnscope::unit_rows(view.v());
    attnscope::HeadAnalysis found =
        attnscope::analyze(settings.unit == UnitVectors::everywhere
                               ? HeadView<float>(view.q(), view.k(), MatrixView<float>(unit), view.scale())
                               : view,
                           options);
    mass.report(result, view.queries());
    result.spectral = attnscope::finite_mean(found.rows.spectral);
    result.audit = std::move(found.audit);
}

HeadResult analyse_head(const HeadInput& input, const Mask& mask, const Settings& settings) {
    HeadResult result;
    add_curves(result, input, mask, settings);
    add_audit(result, input, mask, settings);
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

void audit_projections(attnscope::Audit& audit, const HeadView<float>& head, const Mask& mask,
                       const attnscope::HeadProjections<double>& projections) {
    constexpr Index most_tokens = 128;
    const Matrix<double> q = head.q().map().topRows(std::min(head.queries(), most_tokens)).cast<double>(),
                         k = head.k().map().topRows(q.rows()).cast<double>(),
                         v = head.v().map().topRows(q.rows()).cast<double>();
    if (head.queries() != head.keys() || !q.allFinite() || !k.allFinite() || !v.allFinite()) return;
    const HeadView<double> first(q, k, v, head.scale());
    const attnscope::HeadJacobian<double> jacobian(first, projections, mask);
    // A few steps reach most of the norm, and any vector is a witness of it.
    audit.add(attnscope::token_jacobian_sharp(jacobian.norm(10),
                                              attnscope::token_jacobian_limit(first, projections, mask),
                                              q.rows(), projections.query.rows()));
}

} // namespace paper
