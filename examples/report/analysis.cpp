#include "analysis.hpp"

#include <attnscope/audit/certificates.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <map>

namespace report {
namespace {

using program::HeadPlace;
using program::HeadRows;
using program::HeadVectors;

using attnscope::RowIn;
using attnscope::RowOut;

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<double, 3> finite_difference_steps = {1e-3, 1e-1, 10}; // those of the paper's Algorithm 5

std::vector<Index> chosen(const std::vector<Index>& wanted, Index available, std::string_view what) {
    std::vector<Index> result = wanted;
    if (result.empty())
        for (Index i = 0; i < available; ++i) result.push_back(i);
    for (const Index i : result)
        if (i < 0 || i >= available)
            throw program::usage_error(fmt::format("--{}s: there is no {} {}; the input has {}s 0 to {}", what,
                                                   what, i, what, available - 1));
    // Each once: a head named twice would count twice in the audit.
    std::sort(result.begin(), result.end());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

/// One head at a time: rows of logits in, figures and verdicts out.
class HeadAnalyser {
public:
    HeadAnalyser(const Capture& capture, const Settings& settings)
        : capture_(capture), settings_(settings), selection_(settings.selection), random_(settings.seed),
          certificate_random_(settings.seed + 1) {}

    /// The normaliser, the values and the mask of the rows to come.
    void begin_head(HeadNormalizer normalizer, const std::optional<attnscope::Matrix<double>>& values,
                    const attnscope::Mask& mask) {
        normalizer_ = std::move(normalizer);
        softmax_ = attnscope::Softmax(normalizer_.temperature);
        selection_.begin_head(values);
        // Diameters of values cost the square of their number.
        constexpr Index longest = 4096;
        values_ = values && values->rows() <= longest ? &*values : nullptr;
        if (values_)
            diameters_ =
                attnscope::visible_diameters(attnscope::MatrixView<double>(*values_), mask, capture_.queries);
    }

    /// Statements about the head as a whole, from some of its rows: evenly spaced, at most 128.
    void whole_head(const HeadRows& rows_of_head, attnscope::Audit& audit) {
        if (!values_ || !is_softmax()) return;
        const attnscope::Matrix<double>& logits = rows_of_head.logits;
        const bool sums_to_one =
            std::all_of(rows_of_head.stored.begin(), rows_of_head.stored.end(),
                        [this](const program::StoredRow& row) { return !taken_as_it_is(row); });
        const Index rows = std::min<Index>(logits.rows(), 128);
        attnscope::Matrix<double> some(rows, logits.cols());
        for (Index i = 0; i < rows; ++i)
            some.row(i) = logits.row(logits.rows() * (i + 1) / rows - 1) / normalizer_.temperature;
        attnscope::Audit found;
        attnscope::audit_rank_collapse(found, attnscope::MatrixView<double>(some),
                                       attnscope::MatrixView<double>(*values_));
        if (sums_to_one)
            audit.merge(found);
        else
            audit.add_undefined(found);
    }

    /// Is a row of stored weights more than logits up to a constant: does it not sum to 1?
    bool taken_as_it_is(const program::StoredRow& row) const {
        return !row.sums_to_one && !capture_.options.normalise_weights && is_softmax() &&
               normalizer_.temperature == 1;
    }

    /// A row of stored weights p, and log p. Without the sum 1 it is no softmax of anything that is known: what
    /// says something about weights is said of p itself, the rest is undefined or has no value.
    RowFigures stored_row(Index query, const program::StoredRow& stored, RowIn<double> p, RowIn<double> logits,
                          bool expectations, attnscope::Audit& audit) {
        RowFigures figures{};
        if (stored.negative > 0) {
            figures = negative_row(query, p);
        } else if (!taken_as_it_is(stored)) {
            figures = row(query, logits, {}, expectations, audit);
        } else {
            figures.query = query;
            figures.first_key_weight = not_known;
            weights_.assign(p.begin(), p.end());
            const auto statistics = attnscope::row_statistics<double>(logits);
            set(statistics, figures);
            if (statistics.normal()) {
                figures.max_weight *= stored.sum;
                figures.second_weight *= stored.sum;
            }
            set_first(statistics, logits, figures);
            figures.log_sum_exp = figures.max_logit = not_known;
            attnscope::Audit assuming_one;
            audit_logits(logits, {}, query, assuming_one);
            audit.add_undefined(assuming_one);
            if (figures.status == attnscope::RowStatus::normal)
                figures.selection = selection_.row(weights(), logits, expectations, audit, random_);
        }
        const bool known = std::isfinite(stored.sum) && figures.visible > 0;
        figures.row_sum = known ? stored.sum : not_known;
        figures.unassigned_mass = known ? 1 - stored.sum : not_known;
        figures.hidden_mass = known ? stored.hidden : not_known;
        return figures;
    }

    RowFigures row(Index query, RowIn<double> logits, std::optional<double> delta, bool expectations,
                   attnscope::Audit& audit) {
        RowFigures figures{};
        figures.query = query;
        figures.log_sum_exp = figures.first_key_weight = figures.second_weight = not_known;
        if (settings_.scalar == Scalar::float64 && is_softmax())
            softmax(logits, figures);
        else
            from_weights(logits, figures);
        audit_logits(logits, delta, query, audit);
        if (figures.status == attnscope::RowStatus::normal)
            figures.selection = selection_.row(weights(), logits, expectations, audit, random_);
        // Logits recovered from weights are known up to a constant only.
        if (capture_.kind == Capture::Kind::weights) figures.log_sum_exp = figures.max_logit = not_known;
        figures.row_sum = figures.unassigned_mass = figures.hidden_mass = not_known;
        return figures;
    }

    /// Weights of the row last analysed.
    RowIn<double> weights() const { return weights_; }

private:
    bool is_softmax() const { return normalizer_.normalizer.target<attnscope::Softmax>() != nullptr; }

    void audit_logits(RowIn<double> logits, std::optional<double> delta, Index query, attnscope::Audit& audit) {
        normalizer_.normalizer.audit(audit, logits, {.delta = delta, .steps = finite_difference_steps}, random_,
                                     scratch_);
        if (is_softmax())
            attnscope::audit_certificates(
                audit, logits, normalizer_.temperature, certificate_random_, certificates_,
                values_ ? attnscope::MatrixView<double>(*values_) : attnscope::MatrixView<double>(),
                values_ ? diameters_[query] : 0);
    }

    /// Weights some of which are negative: they have no entropy, and no logits.
    static RowFigures negative_row(Index query, RowIn<double> p) {
        RowFigures figures{};
        figures.query = query;
        figures.status = attnscope::RowStatus::nan;
        figures.negative = true;
        for (const Figure& figure : row_figures) figures.*figure.value = not_known;
        std::vector<double> sorted;
        std::copy_if(p.begin(), p.end(), std::back_inserter(sorted), [](double x) { return x != 0; });
        figures.visible = static_cast<Index>(sorted.size());
        if (std::any_of(p.begin(), p.end(), [](double x) { return !std::isfinite(x); })) return figures;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        figures.max_weight = sorted[0];
        if (sorted.size() > 1) figures.second_weight = sorted[1];
        if (p[0] != 0) figures.first_key_weight = p[0];
        return figures;
    }

    /// Softmax by the sums of its logits, which know small weights better than the weights do.
    void softmax(RowIn<double> z, RowFigures& figures) {
        const auto row = attnscope::row_statistics<double>(z, normalizer_.temperature);
        weights_.resize(z.size());
        softmax_.apply<double>(z, RowOut<double>(weights_));
        set(row, figures);
        figures.log_sum_exp = row.log_sum_exp();
        if (row.normal()) set(attnscope::jacobian_norms(softmax_, z, weights()), figures);
        set_first(row, z, figures);
    }

    /// Any other normaliser by its weights. What describes their distribution is that of the weights divided by
    /// their sum: entropy and participation ratio of softmax of log p.
    void from_weights(RowIn<double> z, RowFigures& figures) {
        attnscope::JacobianNorms<double> norms;
        const attnscope::RowStatus status =
            settings_.scalar == Scalar::float64 ? weigh<double>(z, norms) : weigh<float>(z, norms);
        logs_.resize(z.size());
        std::transform(weights_.begin(), weights_.end(), logs_.begin(), [](double p) { return std::log(p); });
        auto row = attnscope::row_statistics<double>(RowIn<double>(logs_));
        if (status != attnscope::RowStatus::normal) row.status = status;
        const auto plain = attnscope::row_statistics<double>(z);
        row.visible = plain.visible;
        set(row, figures);
        figures.max_logit = plain.max_logit;
        figures.logit_spread = plain.logit_spread();
        if (row.normal()) {
            const double sum = attnscope::detail::dot<double>(weights(), std::vector<double>(z.size(), 1.0));
            figures.max_weight *= sum;
            figures.second_weight *= sum;
            figures.log_sum_exp = normalizer_.normalizer.log_normalizer(z);
            set(norms, figures);
        }
        set_first(row, z, figures);
    }

    template <class T>
    attnscope::RowStatus weigh(RowIn<double> z, attnscope::JacobianNorms<double>& norms) {
        std::vector<T> logits(z.size()), weights(z.size());
        std::transform(z.begin(), z.end(), logits.begin(), [](double x) { return static_cast<T>(x); });
        const auto status = normalizer_.normalizer.apply(RowIn<T>(logits), RowOut<T>(weights));
        if (status == attnscope::RowStatus::normal)
            norms = normalizer_.normalizer.norms<T>(RowIn<T>(logits), RowIn<T>(weights));
        weights_.assign(weights.begin(), weights.end());
        return status;
    }

    void set(const attnscope::RowStatistics<double>& row, RowFigures& figures) const {
        figures.status = row.status;
        figures.visible = row.visible;
        figures.max_logit = row.max_logit;
        figures.entropy_nats = row.entropy_nats();
        figures.max_weight = row.max_weight();
        figures.second_weight = row.visible > 1 ? row.second_weight() : not_known;
        figures.participation_ratio = row.participation_ratio();
        figures.logit_spread = row.logit_spread();
        figures.spectral = figures.frobenius = figures.one = figures.column = figures.max_entry = not_known;
    }

    void set(const attnscope::JacobianNorms<double>& norms, RowFigures& figures) const {
        figures.spectral = norms.spectral.value;
        figures.frobenius = norms.frobenius;
        figures.one = norms.one;
        figures.column = norms.column;
        figures.max_entry = norms.max_entry;
    }

    void set_first(const attnscope::RowStatistics<double>& row, RowIn<double> z, RowFigures& figures) const {
        if (row.normal() && z[0] > -std::numeric_limits<double>::infinity())
            figures.first_key_weight = weights()[0];
    }

    const Capture& capture_;
    const Settings& settings_;
    HeadNormalizer normalizer_;
    attnscope::Softmax softmax_;
    SelectionAnalyser selection_;
    attnscope::SplitMix64 random_, certificate_random_;
    attnscope::RowAuditScratch scratch_;
    attnscope::CertificateScratch certificates_;
    const attnscope::Matrix<double>* values_ = nullptr;
    attnscope::Row<double> diameters_;
    std::vector<double> weights_, logs_;
};

/// The normaliser of a head: that of its layer, and its sink, e^(sink/T) beside the e^(z/T) of the keys.
HeadNormalizer normalizer_of(const Report& report, const HeadPlace& place) {
    HeadNormalizer normalizer = report.normalizers[static_cast<std::size_t>(place.layer)];
    const Capture& input = report.capture;
    if (!input.sinks.empty() && !report.settings.normalizer) {
        const double sink = input.sinks[static_cast<std::size_t>(place.layer * input.heads + place.head)];
        const double mass = std::exp(sink / normalizer.temperature);
        if (!std::isfinite(mass))
            throw std::runtime_error(fmt::format("{}: tensor sinks: {} is too large", input.name, sink));
        normalizer.normalizer = program::named_normalizer(fmt::format("sink:{}", mass), normalizer.temperature);
    }
    return normalizer;
}

/// All rows from the matrix of their logits.
void analyse_whole(Report& report, HeadAnalyser& analyser, const HeadPlace& place, HeadFigures& figures) {
    const Capture& input = report.capture;
    const HeadRows rows = load_head(input, place);
    report.tally.merge(rows.tally);
    analyser.begin_head(normalizer_of(report, place), rows.values, rows.mask);
    analyser.whole_head(rows, report.audit);
    figures.rows.reserve(static_cast<std::size_t>(input.queries));
    for (Index query = 0; query < input.queries; ++query) {
        const auto keys = static_cast<std::size_t>(input.keys);
        const RowIn<double> logits(rows.logits.data() + query * input.keys, keys);
        const bool last = query == input.queries - 1;
        if (!rows.stored.empty()) {
            const RowIn<double> p(rows.weights->data() + query * input.keys, keys);
            figures.rows.push_back(analyser.stored_row(query, rows.stored[static_cast<std::size_t>(query)], p,
                                                       logits, last, report.audit));
            continue;
        }
        std::optional<double> delta;
        if (!rows.delta.empty()) delta = rows.delta[static_cast<std::size_t>(query)];
        figures.rows.push_back(analyser.row(query, logits, delta, last, report.audit));
        if (!rows.weights) continue;
        for (Index key = 0; key < input.keys; ++key) {
            const double computed = analyser.weights()[static_cast<std::size_t>(key)],
                         stored = (*rows.weights)(query, key), largest = report.weight_difference.value_or(0);
            double difference = std::abs(computed - stored);
            if (std::isnan(computed) && std::isnan(stored)) difference = 0;
            // NaN on one side only is a difference that no number describes, and stays.
            report.weight_difference = difference <= largest || std::isnan(largest) ? largest : difference;
        }
    }
}

/// Figures of a row of softmax(z/T) from the state of z/T and the norms of its Jacobian.
template <class T>
RowFigures figures_of(const attnscope::RowState<T>& state,
                      const attnscope::JacobianNorms<attnscope::Accumulator<T>>& norms, Index query,
                      double temperature) {
    const auto row = state.statistics();
    RowFigures figures{};
    figures.query = query;
    figures.visible = row.visible;
    figures.status = row.status;
    figures.log_sum_exp = row.log_sum_exp();
    figures.max_logit = row.max_logit * temperature;
    figures.entropy_nats = row.entropy_nats();
    figures.max_weight = row.max_weight();
    figures.second_weight = row.visible > 1 ? row.second_weight() : not_known;
    figures.first_key_weight = not_known;
    figures.participation_ratio = row.participation_ratio();
    figures.logit_spread = row.logit_spread() * temperature;
    const bool normal = row.normal();
    figures.spectral = normal ? norms.spectral.value / temperature : not_known;
    figures.frobenius = normal ? norms.frobenius / temperature : not_known;
    figures.one = normal ? norms.one / temperature : not_known;
    figures.column = normal ? norms.column / temperature : not_known;
    figures.max_entry = normal ? norms.max_entry / temperature : not_known;
    return figures;
}

/// A query that is padding: a row without a visible key.
RowFigures padding_row(Index query) {
    RowFigures figures{};
    figures.query = query;
    for (const Figure& figure : row_figures) figures.*figure.value = not_known;
    return figures;
}

/// All rows without the matrix of their logits; some of them also as `analyse_whole` does.
template <class T>
void analyse_streaming(Report& report, HeadAnalyser& analyser, const HeadPlace& place, HeadFigures& figures) {
    const Settings& settings = report.settings;
    const HeadVectors<double> vectors = program::load_vectors(report.capture, place);
    const attnscope::Mask mask = report.capture.mask(place);
    const HeadNormalizer normalizer = normalizer_of(report, place);
    const double temperature = normalizer.temperature;
    const attnscope::Matrix<T> q = vectors.q.cast<T>(), k = vectors.k.cast<T>();
    const attnscope::HeadView<T> head(q, k, {}, static_cast<T>(vectors.scale / temperature));
    const attnscope::Threads executor(settings.threads);
    const auto scan = attnscope::scan(head, mask, {}, executor);
    const auto norms = attnscope::scan_jacobian_norms(head, attnscope::Softmax(), mask, {}, executor);
    // Logits of the first key in the arithmetic of the rows, whose sums they are held against.
    std::vector<T> first(scan.rows.size());
    if (report.capture.keys > 0)
        attnscope::ProductTiles<T>(head, executor)(
            0, 0, attnscope::TileOut<T>(first.data(), std::ssize(first), 1, Eigen::OuterStride<>(1)));
    figures.rows.reserve(scan.rows.size());
    for (std::size_t i = 0; i < scan.rows.size(); ++i) {
        const Index query = static_cast<Index>(i);
        RowFigures row = figures_of<T>(scan.rows[i], norms.rows[i], query, temperature);
        if (row.status == attnscope::RowStatus::normal && mask.visible(query, report.capture.keys).contains(0))
            row.first_key_weight = scan.rows[i].statistics().weight_of(first[i]);
        if (report.capture.is_padding(place, query)) row = padding_row(query);
        figures.rows.push_back(std::move(row));
    }
    analyser.begin_head(normalizer, vectors.v, mask);
    const attnscope::HeadView<double> exact(vectors.q, vectors.k, {}, vectors.scale);
    std::vector<double> logits(static_cast<std::size_t>(report.capture.keys));
    for (const Index query : audited_rows(report.capture.queries, report.capture.keys)) {
        if (report.capture.is_padding(place, query)) continue;
        attnscope::logits_of<double>(exact, mask, query, logits);
        double longest = 0;
        mask.visible(query, report.capture.keys).for_each([&](Index key) {
            longest = std::max(longest, vectors.k.row(key).stableNorm());
        });
        const double delta = vectors.q.row(query).stableNorm() * longest * std::abs(vectors.scale);
        figures.rows[static_cast<std::size_t>(query)].selection =
            analyser.row(query, logits, delta, query == report.capture.queries - 1, report.audit).selection;
    }
}

} // namespace

std::vector<Index> audited_rows(Index queries, Index keys) {
    const Index count =
        std::min(queries, std::clamp<Index>((Index(1) << 18) / std::max<Index>(1, keys), 1, 16));
    std::vector<Index> rows;
    for (Index i = 1; i <= count; ++i) rows.push_back(queries * i / count - 1);
    return rows;
}

double HeadFigures::mean(double RowFigures::*figure) const {
    double sum = 0, count = 0;
    for (const RowFigures& row : rows)
        if (std::isfinite(row.*figure)) sum += row.*figure, count += 1;
    return count > 0 ? sum / count : not_known;
}

std::vector<SelectionFigures> HeadFigures::mean_selection() const { return report::mean_selection({this, 1}); }

std::vector<SelectionFigures> mean_selection(std::span<const HeadFigures> heads) {
    std::map<Index, std::array<std::pair<double, double>, selection_figures.size()>> sums; // of N: sum, count
    for (const HeadFigures& head : heads)
        for (const RowFigures& row : head.rows)
            for (const SelectionFigures& selection : row.selection)
                for (std::size_t i = 0; i < selection_figures.size(); ++i) {
                    const double value = selection.*selection_figures[i].value;
                    auto& [sum, count] = sums[selection.n][i];
                    if (std::isfinite(value)) sum += value, count += 1;
                }
    std::vector<SelectionFigures> means;
    for (const auto& [n, figures] : sums) {
        SelectionFigures mean{};
        mean.n = n;
        for (std::size_t i = 0; i < selection_figures.size(); ++i)
            mean.*selection_figures[i].value =
                figures[i].second > 0 ? figures[i].first / figures[i].second : not_known;
        means.push_back(mean);
    }
    return means;
}

double HeadFigures::mean_visible() const {
    double sum = 0;
    for (const RowFigures& row : rows) sum += static_cast<double>(row.visible);
    return rows.empty() ? not_known : sum / static_cast<double>(rows.size());
}

std::vector<Figure> columns_of(const Report& report) {
    std::vector<Figure> figures(row_figures.begin(), row_figures.end());
    if (report.capture.kind == Capture::Kind::weights)
        figures.insert(figures.end(), stored_figures.begin(), stored_figures.end());
    return figures;
}

Report analyse(Capture capture, const Settings& settings) {
    Report report;
    report.capture = std::move(capture);
    report.settings = settings;
    Capture& input = report.capture;
    report.layers = chosen(settings.layers, input.layers, "layer");
    const std::vector<Index> heads = chosen(settings.heads, input.heads, "head");
    for (program::LayerAttention& layer : input.attention) {
        if (settings.temperature) layer.temperature = settings.temperature;
        if (settings.normalizer) layer.normalizer = settings.normalizer;
        const double temperature = layer.temperature.value_or(1);
        report.normalizers.push_back(
            {temperature, program::named_normalizer(layer.normalizer.value_or("softmax"), temperature)});
    }
    if (!input.sinks.empty())
        input.assumptions.push_back(settings.normalizer
                                        ? "sinks: not used, --normalizer is given"
                                        : "sinks: a key without a value in every row, softmax beside it");
    bool can_stream = input.kind == Capture::Kind::queries_and_keys && !input.bias &&
                      (input.sinks.empty() || settings.normalizer);
    for (const Index layer : report.layers) {
        const attnscope::AnyNormalizer& normalizer =
            report.normalizers[static_cast<std::size_t>(layer)].normalizer;
        if (input.kind == Capture::Kind::weights && !normalizer.promises().shift_invariant)
            throw program::usage_error(
                "--normalizer: stored weights tell the logits of softmax up to a constant only, which this "
                "normaliser would feel; it needs q and k, or logits");
        can_stream = can_stream && normalizer.target<attnscope::Softmax>() != nullptr;
    }
    report.streamed =
        settings.stream.value_or(can_stream && input.queries > stream_above / std::max<Index>(1, input.keys));
    if (report.streamed && !can_stream)
        throw program::usage_error("--stream: only softmax of q and k is streamed");
    const std::vector<Index> batches = input.chosen_batches();
    HeadAnalyser analyser(input, settings);
    program::Progress progress("analysing heads", batches.size() * report.layers.size() * heads.size());
    for (const Index batch : batches)
        for (const Index layer : report.layers)
            for (const Index head : heads) {
                const HeadPlace place{batch, layer, head};
                HeadFigures figures{batch, layer, head, {}};
                if (!report.streamed)
                    analyse_whole(report, analyser, place, figures);
                else if (settings.scalar == Scalar::float64)
                    analyse_streaming<double>(report, analyser, place, figures);
                else
                    analyse_streaming<float>(report, analyser, place, figures);
                report.heads.push_back(std::move(figures));
                progress.step();
            }
    return report;
}

} // namespace report
