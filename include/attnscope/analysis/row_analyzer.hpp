// One row of a head: all of its figures, its selections and what it says about the statements.
#pragma once

#include <attnscope/analysis/head_analysis.hpp>
#include <attnscope/analysis/options.hpp>
#include <attnscope/analysis/stored_weights.hpp>
#include <attnscope/selection/separability.hpp>
#include <attnscope/selection/truncation.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Keys beyond which inner products of values (512 MB) are taken when they are needed, and beyond which diameters of
/// values, the square of their number, are not taken at all.
inline constexpr Index most_gram_keys = 8192, most_diameter_keys = 4096;

struct AsSoftmax;

/// A row without the keys behind the last one that it sees.
inline RowIn<double> seen_part(RowIn<double> z) {
    std::size_t n = z.size();
    while (n > 0 && z[n - 1] == -std::numeric_limits<double>::infinity()) --n;
    return z.first(n);
}

inline bool is_padding(const AnalysisOptions& options, Index query) {
    return !options.padding.empty() && detail::at(options.padding, query);
}

/// What all rows of a head share: the normaliser, the values and what is known of them. Read by several threads.
class HeadContext {
public:
    /// tokens: the values, one row for each key, or none; borrowed. mask: which of them a query sees.
    /// products: their inner products, where somebody has them.
    HeadContext(const AnalysisOptions& asked, MatrixView<double> tokens, const Mask& mask, Index queries,
                Index all_keys, std::shared_ptr<const Matrix<double>> products = nullptr)
        : options(asked), normalizer(at_temperature(asked)), values(tokens), keys(all_keys),
          counts(asked.counts), gram(std::move(products)) {
        std::sort(counts.begin(), counts.end());
        counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
        if (const Softmax* const softmax = normalizer.target<Softmax>()) temperature = softmax->temperature();
        softmax_temperature = temperature;
        if (has_values() && values.rows() <= most_gram_keys && !options.counts.empty() && !gram)
            gram = std::make_shared<const Matrix<double>>(gram_matrix(values));
        if (asked.sink_logit) check_sink(*asked.sink_logit);
        const bool sink = asked.sink_logit && *asked.sink_logit != -std::numeric_limits<double>::infinity();
        if ((sink || (!temperature && normalizer.takes_sink())) && (options.audit || options.certificates))
            set_as_softmax(mask, queries);
        if (sink) {
            normalizer = normalizer.with_sink(*asked.sink_logit);
            temperature.reset();
        }
        if (has_values() && values.rows() <= most_diameter_keys && options.certificates && !as_softmax) {
            const Row<double> up_to = prefix_diameters(values, gram ? &*gram : nullptr);
            diameter = up_to[values.rows()];
            diameters = visible_diameters(up_to, mask, queries);
        }
    }

    bool is_softmax() const { return temperature.has_value(); } ///< without a sink that has weight
    bool has_sink() const { return options.sink_logit || attnscope::has_sink(normalizer); }
    bool has_values() const { return values.data() != nullptr; }
    /// Of the first n keys.
    MatrixView<double> first_values(std::size_t n) const {
        return {values.data(), static_cast<Index>(n), values.cols(), values.outer_stride()};
    }
    /// A seed of what is drawn for a row, the same whatever thread looks at it.
    std::uint64_t seed_of(Index query, std::uint64_t purpose) const {
        return mixed_seed(options.seed, static_cast<std::uint64_t>(query), purpose);
    }

    const AnalysisOptions& options;
    AnyNormalizer normalizer; ///< at the temperature, with its sink
    MatrixView<double> values;
    Index keys;
    std::vector<Index> counts;                 ///< of the selections, ascending, each once
    std::optional<double> temperature;         ///< of softmax alone, without a softcap and without a sink
    std::optional<double> softmax_temperature; ///< of softmax, with a sink or without
    /// What is stated of softmax behind a softcap or beside a sink is stated of this head.
    std::shared_ptr<const AsSoftmax> as_softmax;
    std::shared_ptr<const Matrix<double>> gram; ///< inner products of the values
    Row<double> diameters;                      ///< of the values that each query sees; empty: not known
    std::optional<double> diameter;             ///< of all values

private:
    void check_sink(double logit) const {
        require(logit < std::numeric_limits<double>::infinity(), "analyze", "sink_logit must be finite or -inf",
                logit);
        require(normalizer.takes_sink(), "analyze",
                "only softmax has a sink_logit beside it, behind softcaps and temperatures", normalizer.name());
    }
    void set_as_softmax(const Mask& mask, Index queries);

    static AnyNormalizer at_temperature(const AnalysisOptions& asked) {
        const AnyNormalizer& given = asked.normalizer;
        if (!asked.temperature) return given;
        const double t = checked_temperature("analyze", *asked.temperature);
        if (const Softmax* const softmax = given.target<Softmax>())
            return AnyNormalizer(Softmax(t * softmax->temperature()));
        return AnyNormalizer::with_promises(attnscope::temperature(t) | given, given.name(), given.promises());
    }
};

/// A head as softmax sees it: with the logits behind its softcaps, and its sink as one more key, the last, whose value is 0.
/// Softmax of these rows is what the head does, so that what is stated of softmax holds of them. Rows that see no key see
/// no sink either.
struct AsSoftmax {
    /// head: with its sink in the options, and its normaliser without it; borrowed.
    AsSoftmax(const HeadContext& head, const Mask& mask, Index queries)
        : normalizer(head.normalizer), mapped(!head.is_softmax()), sink(sink_of(head)),
          options(options_of(head)),
          values(sink && head.has_values() ? with_zero(head.values) : Matrix<double>()),
          context(options, sink && head.has_values() ? MatrixView<double>(values) : head.values,
                  sink ? options.mask : mask, queries, head.keys + (sink ? 1 : 0), sink ? nullptr : head.gram) {
    }

    /// A row of the head; borrows `own`, whose memory it may be.
    RowIn<double> row(RowIn<double> z, std::vector<double>& own) const {
        constexpr double masked = -std::numeric_limits<double>::infinity();
        own.assign(sink ? static_cast<std::size_t>(context.keys) : z.size(), masked);
        const RowOut<double> of_keys = RowOut<double>(own).first(z.size());
        if (mapped)
            normalizer.softmax_logits(z, of_keys);
        else
            std::copy(z.begin(), z.end(), of_keys.begin());
        if (sink && std::any_of(z.begin(), z.end(), [](double x) { return x != masked; })) own.back() = *sink;
        return own;
    }
    /// Its delta: that of the head as softmax sees it, or that of the sink, which no product of q and k has made.
    std::optional<double> delta(std::optional<double> of_keys) const {
        if (!of_keys) return {};
        if (mapped) normalizer.softmax_logits(RowIn<double>(&*of_keys, 1), RowOut<double>(&*of_keys, 1));
        return sink ? std::max(*of_keys, std::abs(*sink)) : *of_keys;
    }

    AnyNormalizer normalizer;
    bool mapped;                ///< behind softcaps or temperatures: `context` is softmax at temperature 1
    std::optional<double> sink; ///< as softmax sees it, before the temperature of `context`
    AnalysisOptions options;
    Matrix<double> values; ///< with that of the sink
    HeadContext context;

private:
    static std::optional<double> sink_of(const HeadContext& head) {
        const std::optional<double> logit = head.options.sink_logit;
        if (!logit || *logit == -std::numeric_limits<double>::infinity()) return {};
        return head.is_softmax() ? *logit : head.normalizer.softmax_sink_logit(*logit);
    }
    AnalysisOptions options_of(const HeadContext& head) const {
        AnalysisOptions with = head.options;
        if (sink) with.mask = Mask::none(); // masked keys are -inf
        with.normalizer = Softmax(head.temperature.value_or(1));
        with.temperature.reset();
        with.sink_logit.reset();
        with.visit = {};
        return with;
    }
    static Matrix<double> with_zero(const MatrixView<double>& tokens) {
        Matrix<double> result = Matrix<double>::Zero(tokens.rows() + 1, tokens.cols());
        result.topRows(tokens.rows()) = tokens.map();
        return result;
    }
};

inline void HeadContext::set_as_softmax(const Mask& mask, Index queries) {
    as_softmax = std::make_shared<const AsSoftmax>(*this, mask, queries);
}

/// Analyses rows one after the other, in memory of its own: one for each thread. Writes into the columns of the
/// row's query, and what is about statements into an audit.
template <std::same_as<double> T = double> // so that only those who call it wait for the compiler
class RowAnalyzer {
public:
    explicit RowAnalyzer(const HeadContext& head);

    /// How far to look at a row.
    enum class Depth {
        figures,     ///< its own
        selections,  ///< also selections and statements
        expectations ///< also statements about expectations
    };

    /// A row of logits, -inf where masked.
    void logits(Index query, RowIn<double> z, std::optional<double> delta, Depth depth, HeadAnalysis& result,
                Audit& audit);

    /// What a row of softmax says about the statements, without its figures.
    void statements(Index query, RowIn<double> z, std::optional<double> delta, Depth depth, Audit& audit) {
        audit.set_query(query);
        row_ = meter_(softmax_, z);
        measured_ = true;
        weights_.assign(row_.p.begin(), row_.p.end());
        audit_row(query, z, delta, audit);
        if (row_.normal()) select(query, z, depth, nullptr, audit);
    }

    /// A row of stored weights p, and log p. Without the sum 1 it is no softmax of anything that is known: what says
    /// something about weights is said of p itself, the rest is undefined or has no value.
    void stored(Index query, const StoredRow& stored, RowIn<double> p, RowIn<double> log_p, bool normalise,
                Depth depth, HeadAnalysis& result, Audit& audit);

    /// Is a row of stored weights more than logits up to a constant: does it not sum to 1?
    bool taken_as_it_is(const StoredRow& row, bool normalise) const {
        return !row.sums_to_one && !normalise && head_.is_softmax() && head_.temperature == 1;
    }

    /// Weights of the row last analysed.
    RowIn<double> weights() const { return weights_; }

private:
    static constexpr double not_known = std::numeric_limits<double>::quiet_NaN();
    static bool sees(double z) { return z > -std::numeric_limits<double>::infinity(); }
    static bool is_masked(double z) { return z == -std::numeric_limits<double>::infinity(); }

    /// Has a key that the row sees a negative weight?
    static bool has_negative(RowIn<double> p, RowIn<double> log_p) {
        for (std::size_t key = 0; key < p.size(); ++key)
            if (p[key] < 0 && !is_masked(log_p[key])) return true;
        return false;
    }

    bool measure(Index query, RowIn<double> z, RowColumns& rows) {
        measured_ = false;
        return head_.is_softmax() && !head_.options.single_precision ? softmax_row(query, z, rows)
                                                                     : weighed_row(query, z, rows);
    }

    /// Softmax by the sums of its logits, which know small weights better than the weights do.
    bool softmax_row(Index query, RowIn<double> z, RowColumns& rows) {
        row_ = meter_(softmax_, z);
        measured_ = true;
        weights_.assign(row_.p.begin(), row_.p.end());
        set(query, row_.statistics, rows);
        if (row_.normal()) rows.log_sum_exp[query] = row_.statistics.log_sum_exp();
        if (row_.normal() && head_.options.sensitivity) set(query, row_.norms, rows);
        set_first(query, row_.normal(), z, rows);
        return row_.normal();
    }

    /// Any other normaliser by its weights. What describes their distribution is that of the weights divided by their
    /// sum: entropy and participation ratio of softmax of log p.
    bool weighed_row(Index query, RowIn<double> z, RowColumns& rows) {
        JacobianNorms<double> norms;
        const RowStatus status = head_.options.single_precision ? this->template weigh<float>(z, norms)
                                                                : this->template weigh<double>(z, norms);
        logs_.resize(z.size());
        std::transform(weights_.begin(), weights_.end(), logs_.begin(), [](double p) { return std::log(p); });
        RowStatistics<double> row = row_statistics<double>(RowIn<double>(logs_));
        if (status != RowStatus::normal) row.status = status;
        const RowStatistics<double> plain = row_statistics<double>(z);
        set(query, row, rows);
        rows.visible[query] = plain.visible;
        rows.max_logit[query] = rows.logit_spread[query] = not_known;
        if (row.normal()) {
            set_argmax(query, rows);
            rows.max_logit[query] = plain.max_logit;
            rows.logit_spread[query] = plain.logit_spread();
            double sum = 0;
            for (const double p : weights_) sum += p;
            rows.max_weight[query] *= sum;
            rows.second_weight[query] *= sum;
            if (row.visible == 1 && plain.visible > 1)
                rows.second_weight[query] = 0; // all others weigh nothing
            rows.log_sum_exp[query] = head_.normalizer.log_sum_exp(z);
            if (head_.options.sensitivity) set(query, norms, rows);
        }
        set_first(query, row.normal(), z, rows);
        return row.normal();
    }

    /// The sink of a row that has been measured, and its entropy with it.
    void measure_sink(Index query, RowIn<double> z, RowColumns& rows) {
        if (is_padding(head_.options, query)) return;
        if (!attnscope::has_sink(head_.normalizer)) { // its logit is -inf
            rows.sink_mass[query] = detail::at(rows.status, query) == RowStatus::nan ? not_known : 0;
            rows.entropy_with_sink_nats[query] = rows.entropy_nats[query];
            return;
        }
        double mass = 0;
        if (head_.options.single_precision) {
            const std::vector<float> logits(z.begin(), z.end());
            mass = head_.normalizer.sink_mass(RowIn<float>(logits));
        } else {
            mass = head_.normalizer.sink_mass(z);
        }
        rows.sink_mass[query] = mass;
        if (mass == 1) rows.entropy_with_sink_nats[query] = 0;
        if (detail::at(rows.status, query) != RowStatus::normal) return;
        logs_.push_back(std::log(mass)); // behind those of the weights
        rows.entropy_with_sink_nats[query] = row_statistics<double>(RowIn<double>(logs_)).entropy_nats();
    }

    template <class S>
    RowStatus weigh(RowIn<double> z, JacobianNorms<double>& norms) {
        std::vector<S> logits(z.size()), weights(z.size());
        std::transform(z.begin(), z.end(), logits.begin(), [](double x) { return static_cast<S>(x); });
        const RowStatus status = head_.normalizer.apply(RowIn<S>(logits), RowOut<S>(weights));
        if (status == RowStatus::normal && head_.options.sensitivity)
            norms = head_.normalizer.template norms<S>(RowIn<S>(logits), RowIn<S>(weights));
        weights_.assign(weights.begin(), weights.end());
        return status;
    }

    /// Weights some of which are negative: they have no entropy, and no logits. log_p: -inf also where the mask hides
    /// a key.
    void negative_row(Index query, RowIn<double> p, RowIn<double> log_p, RowColumns& rows) {
        weights_.assign(p.begin(), p.end());
        detail::at(rows.status, query) = RowStatus::nan;
        logs_.clear();
        for (std::size_t key = 0; key < p.size(); ++key) {
            if (is_masked(log_p[key]))
                weights_[key] = 0;
            else
                logs_.push_back(p[key]);
        }
        rows.visible[query] = static_cast<Index>(logs_.size());
        if (std::any_of(logs_.begin(), logs_.end(), [](double x) { return !std::isfinite(x); })) return;
        std::sort(logs_.begin(), logs_.end(), std::greater<>());
        rows.max_weight[query] = logs_[0];
        if (logs_.size() > 1) rows.second_weight[query] = logs_[1];
        if (!is_masked(log_p[0])) rows.first_key_weight[query] = p[0];
    }

    static void set(Index query, const RowStatistics<double>& row, RowColumns& rows) {
        detail::at(rows.status, query) = row.status;
        rows.visible[query] = row.visible;
        if (row.normal()) {
            rows.argmax[query] = row.argmax;
            rows.max_logit[query] = row.max_logit;
        }
        rows.entropy_nats[query] = row.entropy_nats();
        rows.max_weight[query] = row.max_weight();
        rows.second_weight[query] = row.visible > 1 ? row.second_weight() : not_known;
        rows.participation_ratio[query] = row.participation_ratio();
        rows.logit_spread[query] = row.logit_spread();
    }
    static void set(Index query, const JacobianNorms<double>& norms, RowColumns& rows) {
        rows.spectral[query] = norms.spectral.value;
        rows.frobenius[query] = norms.frobenius;
        rows.one[query] = norms.one;
        rows.column[query] = norms.column;
        rows.max_entry[query] = norms.max_entry;
    }
    /// Of the weights, as their logarithms may agree where they do not.
    void set_argmax(Index query, RowColumns& rows) const {
        rows.argmax[query] = std::max_element(weights_.begin(), weights_.end()) - weights_.begin();
    }
    void set_first(Index query, bool normal, RowIn<double> z, RowColumns& rows) const {
        if (normal && sees(z[0])) rows.first_key_weight[query] = weights_[0];
    }

    void audit_row(Index query, RowIn<double> z, std::optional<double> delta, Audit& audit) {
        const AnalysisOptions& options = head_.options;
        if (head_.is_softmax() && !measured_ && (options.audit || options.certificates)) {
            row_ = meter_(softmax_, z);
            measured_ = true;
        }
        if (options.audit) {
            row_auditor_.reseed(head_.seed_of(query, 0));
            if (head_.is_softmax())
                row_auditor_(audit, row_, {.delta = delta});
            else
                row_auditor_(audit, head_.normalizer, z, {.delta = delta});
        }
        if (options.certificates && head_.is_softmax()) {
            certificate_auditor_.reseed(head_.seed_of(query, 1));
            const bool known = head_.diameters.size() > 0;
            certificate_auditor_(audit, row_, known ? head_.first_values(z.size()) : MatrixView<double>(),
                                 known ? head_.diameters[query] : 0);
        }
    }

    /// The tokens that a row sees, ranked. Causal rows see a prefix, whose weights, values and inner products need no
    /// copy.
    RankedTokens<T> tokens_of(RowIn<double> z) {
        const Index visible = std::count_if(z.begin(), z.end(), sees);
        const bool prefix = std::all_of(z.begin(), z.begin() + visible, sees);
        RankedTokens<T> tokens;
        tokens.weights = RowIn<double>(weights_).first(static_cast<std::size_t>(visible));
        if (prefix) {
            if (head_.has_values()) tokens.x = head_.first_values(static_cast<std::size_t>(visible));
            if (farthest_) {
                farthest_->reach(visible);
                tokens.gram = &farthest_->gram();
                tokens.farthest = &*farthest_;
            }
        } else {
            gathered_.clear();
            if (head_.has_values()) gathered_values_.resize(visible, head_.values.cols());
            for (std::size_t key = 0; key < z.size(); ++key) {
                if (!sees(z[key])) continue;
                if (head_.has_values())
                    gathered_values_.row(static_cast<Index>(gathered_.size())) =
                        head_.values.map().row(static_cast<Index>(key));
                gathered_.push_back(weights_[key]);
            }
            tokens.weights = gathered_;
            if (head_.has_values()) tokens.x = MatrixView<double>(gathered_values_);
        }
        ranking_.rank(tokens.weights);
        tokens.order = ranking_.order();
        return tokens;
    }

    /// Selections of a row into their columns, where there are any, and what they say about the statements, unless
    /// those are about the head as softmax sees it.
    void select(Index query, RowIn<double> z, Depth depth, std::vector<SelectionColumns>* columns,
                Audit& audit) {
        if (head_.counts.empty()) return;
        const bool audited = head_.options.audit && !as_softmax_;
        const RankedTokens<T> tokens = tokens_of(z);
        const Index visible = static_cast<Index>(tokens.weights.size());
        selection_auditor_.reseed(head_.seed_of(query, 2));
        if (!head_.has_values()) {
            for (std::size_t i = 0; columns && i < columns->size(); ++i) {
                SelectionColumns& selection = (*columns)[i];
                if (selection.n >= visible) break;
                double mass = 0;
                for (const Index key : tokens.order.first(static_cast<std::size_t>(selection.n)))
                    mass += detail::at(tokens.weights, key);
                selection.mass[query] = mass;
            }
            return;
        }
        counts_.clear();
        for (const Index n : head_.counts)
            if (n < visible) counts_.push_back(n);
        if (counts_.empty()) return;
        const auto sets = selection_auditor_.measure(tokens, counts_, audited);
        if (columns) {
            const RandomSubsetMoments<double> moments(tokens.weights, tokens.x);
            for (std::size_t i = 0; i < sets.size(); ++i)
                set(query, sets[i], moments.expected_distance(counts_[i]), (*columns)[i]);
        }
        if (!audited) return;
        selection_auditor_.add(audit);
        const Row<double> merit = contributions(tokens.weights, tokens.x);
        by_merit_.rank(RowIn<double>(merit.data(), static_cast<std::size_t>(visible)));
        for (const Index n : counts_) audit_missed_tokens(audit, tokens.order, by_merit_.order(), n);
        if (depth == Depth::expectations) selection_auditor_.expectations(audit, tokens, counts_);
    }

    void set(Index query, const MeasuredSet<T>& measured, const Interval<double>& expected,
             SelectionColumns& columns) const {
        const SelectedSet<double>& selected = *measured.set;
        const Separability<double> separable = separability(selected, head_.options.radius);
        columns.mass[query] = selected.mass();
        columns.distance_cumulative[query] = selection_distance(selected, Reading::cumulative);
        columns.distance_resultant[query] = selection_distance(selected, Reading::resultant);
        columns.distance_bound[query] = theorem1_fixed_limit(selected, measured.geometry, Reading::cumulative);
        columns.expected_distance_lower[query] = expected.lower;
        columns.expected_distance_upper[query] = expected.upper;
        columns.truncation_error[query] = truncation_error(selected);
        columns.separable_fraction[query] = separable.separable_fraction;
        columns.precision[query] = separable.precision;
        columns.recall[query] = separable.recall;
        columns.f_score[query] = separable.f_score;
        columns.margin[query] = separable.margin;
    }

    const HeadContext& head_;
    Softmax softmax_;
    RowMeter meter_;
    MeasuredRow row_; ///< of softmax in double, if `measured_`
    bool measured_ = false;
    RowAuditor row_auditor_;
    SelectionAuditor<T> selection_auditor_;
    CertificateAuditor certificate_auditor_;
    Ranking<double> ranking_, by_merit_;
    std::unique_ptr<RowAnalyzer> as_softmax_;        ///< looks at the statements in place of this one
    std::optional<FarthestTokens<double>> farthest_; ///< if the head knows the inner products of its values
    std::vector<Index> counts_;
    std::vector<double> weights_, logs_, gathered_, as_softmax_row_;
    Matrix<double> gathered_values_;
};

// Not inline, so that a program can have them once: see precompiled.hpp.
template <std::same_as<double> T>
RowAnalyzer<T>::RowAnalyzer(const HeadContext& head)
    : head_(head), softmax_(head.temperature.value_or(1)), row_auditor_({.steps = head.options.steps}),
      selection_auditor_({.reading = head.options.reading}) {
    if (head.gram) farthest_.emplace(*head.gram);
    if (head.as_softmax) as_softmax_ = std::make_unique<RowAnalyzer>(head.as_softmax->context);
}

template <std::same_as<double> T>
void RowAnalyzer<T>::logits(Index query, RowIn<double> z, std::optional<double> delta, Depth depth,
                            HeadAnalysis& result, Audit& audit) {
    audit.set_query(query);
    const bool normal = measure(query, z, result.rows);
    if (head_.has_sink()) measure_sink(query, z, result.rows);
    if (depth == Depth::figures) return;
    if (as_softmax_) {
        const AsSoftmax& as_softmax = *head_.as_softmax;
        as_softmax_->statements(query, seen_part(as_softmax.row(z, as_softmax_row_)), as_softmax.delta(delta),
                                depth, audit);
    } else {
        audit_row(query, z, delta, audit);
    }
    if (normal) select(query, z, depth, &result.selections, audit);
}

template <std::same_as<double> T>
void RowAnalyzer<T>::stored(Index query, const StoredRow& stored, RowIn<double> p, RowIn<double> log_p,
                            bool normalise, Depth depth, HeadAnalysis& result, Audit& audit) {
    audit.set_query(query);
    RowColumns& rows = result.rows;
    measured_ = false;
    if (stored.negative > 0 && has_negative(p, log_p)) {
        negative_row(query, p, log_p, rows);
    } else if (taken_as_it_is(stored, normalise)) {
        weights_.assign(p.begin(), p.end());
        RowStatistics<double> statistics = row_statistics<double>(log_p);
        // NaN on a key that the mask hides is no number that a sum could be without.
        if (statistics.normal() && !std::isfinite(stored.sum)) statistics.status = RowStatus::nan;
        set(query, statistics, rows);
        if (statistics.normal()) {
            set_argmax(query, rows);
            rows.max_weight[query] *= stored.sum;
            rows.second_weight[query] *= stored.sum;
        }
        set_first(query, statistics.normal(), log_p, rows);
        if (depth != Depth::figures) {
            Audit assuming_one;
            audit_row(query, log_p, {}, assuming_one);
            audit.add_undefined(assuming_one);
            if (statistics.normal()) select(query, log_p, depth, &result.selections, audit);
        }
    } else {
        logits(query, log_p, {}, depth, result, audit);
    }
    rows.log_sum_exp[query] = rows.max_logit[query] = not_known; // logits are known up to a constant
    const bool known = std::isfinite(stored.sum) && rows.visible[query] > 0;
    rows.row_sum[query] = known ? stored.sum : not_known;
    rows.unassigned_mass[query] = known ? 1 - stored.sum : not_known;
    rows.hidden_mass[query] = known ? stored.hidden : not_known;
    rows.negative[query] = stored.negative;
}

#ifdef ATTNSCOPE_PRECOMPILED
extern template class RowAnalyzer<double>;
#endif

} // namespace detail
} // namespace v0_2
} // namespace attnscope
