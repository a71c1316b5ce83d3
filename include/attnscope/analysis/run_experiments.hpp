// The experiments of arXiv:2508.17821 run on the heads of a layer. Needs Boost.Math (target attnscope::special).
#pragma once

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/curves.hpp>
#include <attnscope/analysis/experiments.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/sensitivity/head_jacobian.hpp>

#include <mutex>

namespace attnscope {
inline namespace v0_2 {

/// A layer as the experiments see it.
template <Real T>
struct ExperimentLayer {
    Index number = 0;
    std::function<HeadView<T>(Index head)> head; ///< by several threads at once if the executor has them
    Mask mask = {};
    /// The vectors x_i that stand for the tokens of a head, [keys, any width], in `room` if they are computed; its values
    /// unless given.
    std::function<MatrixView<T>(Index head, Matrix<T>& room)> token_vectors = {};
    /// W_Q, W_K and W_V of a head: then the Jacobian of its tokens is audited, too.
    std::function<HeadProjections<double>(Index head)> projections = {};
    std::function<void(Index head)> done = {}; ///< called by one thread at a time
};

namespace detail {

/// Weight by key over the rows of a head, added up.
class KeyMass {
public:
    explicit KeyMass(Index keys) : mass_(Eigen::ArrayXd::Zero(keys)), seen_(Eigen::ArrayXd::Zero(keys)) {}

    void add(RowIn<double> logits, RowIn<double> weights) {
        for (std::size_t key = 0; key < weights.size(); ++key) {
            if (!(logits[key] > -std::numeric_limits<double>::infinity())) continue;
            mass_[static_cast<Index>(key)] += weights[key];
            seen_[static_cast<Index>(key)] += 1;
        }
    }
    void report(ExperimentHead& result, Index rows) const {
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

/// The three parts of a head, which write different members of the result: threads may work on them at once.
template <Real T>
class ExperimentOnHead {
public:
    ExperimentOnHead(const ExperimentOptions& options, std::span<const Index> sampled, const Mask& mask,
                     ExperimentHead& result)
        : options_(options), sampled_(sampled.begin(), sampled.end()), mask_(mask), result_(result),
          seed_(mixed_seed(options.seed, static_cast<std::uint64_t>(result.layer),
                           static_cast<std::uint64_t>(result.head))) {}

    /// Algorithms 1 to 5; the values are what stands for the tokens.
    void curves(const HeadView<T>& head) const {
        static_cast<HeadCurves&>(result_) = head_curves(head, {.mask = mask_,
                                                               .lengths = options_.lengths,
                                                               .counts = options_.counts,
                                                               .short_rows = options_.short_rows,
                                                               .unit_vectors = options_.unit_vectors,
                                                               .radius = options_.radius,
                                                               .ball_counts = options_.ball_counts,
                                                               .ball_queries = sampled_,
                                                               .temperatures = options_.temperatures,
                                                               .steps = options_.steps,
                                                               .seed = seed_});
        result_.rows = head.queries();
        result_.skipped = result_.rows - result_.at_length.back().normal_rows;
    }

    /// The statements and certificates, and where the weight lies.
    Audit audit(const HeadView<T>& head) const {
        KeyMass mass(head.keys());
        AnalysisOptions asked;
        asked.mask = mask_;
        asked.counts = options_.audited_counts;
        asked.expectation_queries = sampled_;
        asked.reading = options_.reading;
        asked.steps = options_.steps;
        asked.seed = seed_;
        asked.visit = [&](Index, RowIn<double> logits, RowIn<double> weights) { mass.add(logits, weights); };
        const bool everywhere = options_.unit_vectors == UnitVectors::everywhere;
        const Matrix<T> unit = everywhere ? unit_rows(head.v()) : Matrix<T>();
        HeadAnalysis found = analyze(
            everywhere ? HeadView<T>(head.q(), head.k(), MatrixView<T>(unit), head.scale()) : head, asked);
        mass.report(result_, head.queries());
        result_.spectral = finite_mean(found.rows.spectral);
        return std::move(found.audit);
    }

    /// What the head needs, from its own values.
    void plan(const HeadView<T>& head) const {
        if (options_.plan)
            result_.plan =
                plan_head(head.q().map(), head.k().map(), head.v().map(), *options_.plan, mask_, head.scale());
    }

    /// Audits token_jacobian on the first tokens of a head of self-attention.
    void audit_projections(Audit& audit, const HeadView<T>& head,
                           const HeadProjections<double>& projections) const {
        constexpr Index most_tokens = 128;
        const Index n = std::min(head.queries(), most_tokens);
        const Matrix<double> q = head.q().map().topRows(n).template cast<double>(),
                             k = head.k().map().topRows(std::min(head.keys(), n)).template cast<double>(),
                             v = head.v().map().topRows(std::min(head.keys(), n)).template cast<double>();
        if (head.queries() != head.keys() || !q.allFinite() || !k.allFinite() || !v.allFinite()) return;
        const HeadView<double> first(q, k, v, static_cast<double>(head.scale()));
        const HeadJacobian<double> jacobian(first, projections, mask_);
        // A few steps reach most of the norm, and any vector is a witness of it.
        audit.add(token_jacobian_sharp(jacobian.norm(10), token_jacobian_limit(first, projections, mask_),
                                       q.rows(), projections.query.rows()));
    }

private:
    const ExperimentOptions& options_;
    std::vector<Index> sampled_;
    const Mask& mask_;
    ExperimentHead& result_;
    std::uint64_t seed_;
};

} // namespace detail

/// Runs the experiments on every head of a layer: curves and plans under softmax at temperature 1, the audit of all rows.
/// Each layer once; the results do not depend on the executor.
/// Shapes and units. Heads with values, of as many queries as the options' last length.
/// Special rows. Rows that are not normal count in `ExperimentHead::skipped`; a head with NaN has no plan.
/// Cost. For each head O(queries keys max N) and that of `analyze` and `plan_head`; memory O(queries keys) doubles a
/// thread.
/// Throws. `invalid_argument` for a layer that is not there or comes again, heads of another number of queries or without
/// values, and as `head_curves`, `analyze` and `plan_head` do.
/// Source. P Algorithms 1 to 5.
template <Real T, Executor E = Sequential>
void run_experiments(Experiments& experiments, const ExperimentLayer<T>& layer, E&& executor = {}) {
    const Index heads = experiments.heads_per_layer;
    detail::require(layer.number >= 0 && layer.number < experiments.layers, "run_experiments",
                    "layer must be in [0, layers)", layer.number, experiments.layers);
    detail::require(layer.head != nullptr, "run_experiments", "the layer must say what its heads are");
    detail::require(!experiments.has_run(layer.number), "run_experiments",
                    "a layer must be run once only, this one was run before", layer.number);
    for (Index head = 0; head < heads; ++head) {
        const HeadView<T> own = layer.head(head);
        detail::require(own.queries() == experiments.tokens(), "run_experiments",
                        "heads must have as many queries as the text has tokens", own.queries(),
                        experiments.tokens());
        if (!own.has_values())
            detail::fail("run_experiments", "heads must have values, head " + to_text(head) + " has none");
    }
    std::vector<Audit> audits(static_cast<std::size_t>(heads));
    std::mutex guard;
    // A head in three parts, the longest first, so that no thread waits long for the last one.
    executor(3 * heads, [&](Index task) {
        const Index head = task % heads, part = task / heads;
        const auto at = static_cast<std::size_t>(layer.number * heads + head);
        const HeadView<T> own = layer.head(head);
        const detail::ExperimentOnHead<T> on(experiments.options, experiments.sampled[at], layer.mask,
                                             experiments.heads[at]);
        if (part == 2) return on.plan(own);
        Matrix<T> room;
        const HeadView<T> tokens =
            layer.token_vectors ? HeadView<T>(own.q(), own.k(), layer.token_vectors(head, room), own.scale())
                                : own;
        if (part == 1) {
            Audit& audit = audits[static_cast<std::size_t>(head)];
            audit = on.audit(tokens);
            if (layer.projections) on.audit_projections(audit, own, layer.projections(head));
            return;
        }
        on.curves(tokens);
        const std::lock_guard lock(guard);
        experiments.vector_width = tokens.v().cols();
        if (layer.done) layer.done(head);
    });
    for (const Audit& audit : audits) experiments.audit.merge(audit); // in the order of the heads
}

/// Likewise the heads of a group, which share keys if they are fewer.
/// Throws. `invalid_argument` also unless the group has the heads of a layer.
template <Real T, Executor E = Sequential>
void run_experiments(Experiments& experiments, Index layer, const HeadGroup<T>& group, const Mask& mask,
                     E&& executor = {}) {
    detail::require(group.heads() == experiments.heads_per_layer, "run_experiments",
                    "the group must have the heads of a layer", group.heads(), experiments.heads_per_layer);
    run_experiments(experiments,
                    ExperimentLayer<T>{layer, [&](Index head) { return group[head]; }, mask, {}, {}, {}},
                    executor);
}
/// The same of a model of one layer.
/// Throws. `invalid_argument` also for more layers.
template <Real T, Executor E = Sequential>
void run_experiments(Experiments& experiments, const HeadGroup<T>& group, const Mask& mask, E&& executor = {}) {
    detail::require(experiments.layers == 1, "run_experiments",
                    "of several layers it must be said which this is", experiments.layers);
    run_experiments(experiments, 0, group, mask, executor);
}

} // namespace v0_2
} // namespace attnscope
