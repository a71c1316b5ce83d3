#include "analysis.hpp"

#include <attnscope/certificate_audit.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/program.hpp>

#include <map>

namespace report {
namespace {

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
        : capture_(capture), settings_(settings), softmax_(settings.temperature),
          selection_(settings.selection), random_(settings.seed), certificate_random_(settings.seed + 1) {}

    /// The values and the mask of the rows to come.
    void begin_head(const std::optional<attnscope::Matrix<double>>& values, const attnscope::Mask& mask) {
        selection_.begin_head(values);
        // Diameters of values cost the square of their number.
        constexpr Index longest = 4096;
        values_ = values && values->rows() <= longest ? &*values : nullptr;
        if (values_)
            diameters_ =
                attnscope::visible_diameters(attnscope::MatrixView<double>(*values_), mask, capture_.queries);
    }

    /// Statements about the head as a whole, from some of its rows: evenly spaced, at most 128.
    void whole_head(const attnscope::Matrix<double>& logits, attnscope::Audit& audit) {
        if (!values_ || !is_softmax()) return;
        const Index rows = std::min<Index>(logits.rows(), 128);
        attnscope::Matrix<double> some(rows, logits.cols());
        for (Index i = 0; i < rows; ++i)
            some.row(i) = logits.row(logits.rows() * (i + 1) / rows - 1) / settings_.temperature;
        attnscope::audit_rank_collapse(audit, attnscope::MatrixView<double>(some),
                                       attnscope::MatrixView<double>(*values_));
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
        settings_.normalizer.audit(audit, logits, {.delta = delta, .steps = finite_difference_steps}, random_,
                                   scratch_);
        if (is_softmax())
            attnscope::audit_certificates(
                audit, logits, settings_.temperature, certificate_random_, certificates_,
                values_ ? attnscope::MatrixView<double>(*values_) : attnscope::MatrixView<double>(),
                values_ ? diameters_[query] : 0);
        if (figures.status == attnscope::RowStatus::normal)
            figures.selection = selection_.row(weights(), logits, expectations, audit, random_);
        // Logits recovered from weights are known up to a constant only.
        if (capture_.kind == Capture::Kind::weights) figures.log_sum_exp = figures.max_logit = not_known;
        return figures;
    }

    /// Weights of the row last analysed.
    RowIn<double> weights() const { return weights_; }

private:
    bool is_softmax() const { return settings_.normalizer.name() == "softmax"; }

    /// Softmax by the sums of its logits, which know small weights better than the weights do.
    void softmax(RowIn<double> z, RowFigures& figures) {
        const auto row = attnscope::row_statistics<double>(z, settings_.temperature);
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
            figures.log_sum_exp = settings_.normalizer.log_normalizer(z);
            set(norms, figures);
        }
        set_first(row, z, figures);
    }

    template <class T>
    attnscope::RowStatus weigh(RowIn<double> z, attnscope::JacobianNorms<double>& norms) {
        std::vector<T> logits(z.size()), weights(z.size());
        std::transform(z.begin(), z.end(), logits.begin(), [](double x) { return static_cast<T>(x); });
        const auto status = settings_.normalizer.apply(RowIn<T>(logits), RowOut<T>(weights));
        if (status == attnscope::RowStatus::normal)
            norms = settings_.normalizer.norms<T>(RowIn<T>(logits), RowIn<T>(weights));
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
    attnscope::Softmax softmax_;
    SelectionAnalyser selection_;
    attnscope::SplitMix64 random_, certificate_random_;
    attnscope::RowAuditScratch scratch_;
    attnscope::CertificateScratch certificates_;
    const attnscope::Matrix<double>* values_ = nullptr;
    attnscope::Row<double> diameters_;
    std::vector<double> weights_, logs_;
};

/// All rows from the matrix of their logits.
void analyse_whole(Report& report, HeadAnalyser& analyser, const attnscope::Mask& mask, HeadFigures& figures) {
    const Capture& input = report.capture;
    const HeadRows rows = load_head(input, figures.layer, figures.head, mask, report.settings.scale);
    analyser.begin_head(rows.values, mask);
    analyser.whole_head(rows.logits, report.audit);
    figures.rows.reserve(static_cast<std::size_t>(input.queries));
    for (Index query = 0; query < input.queries; ++query) {
        const RowIn<double> logits(rows.logits.data() + query * input.keys,
                                   static_cast<std::size_t>(input.keys));
        std::optional<double> delta;
        if (!rows.delta.empty()) delta = rows.delta[static_cast<std::size_t>(query)];
        figures.rows.push_back(analyser.row(query, logits, delta, query == input.queries - 1, report.audit));
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
                      const attnscope::JacobianNorms<attnscope::detail::Accumulator<T>>& norms, Index query,
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

/// All rows without the matrix of their logits; some of them also as `analyse_whole` does.
template <class T>
void analyse_streaming(Report& report, HeadAnalyser& analyser, const attnscope::Mask& mask,
                       HeadFigures& figures) {
    const Settings& settings = report.settings;
    const HeadVectors vectors = load_vectors(report.capture, figures.layer, figures.head, settings.scale);
    const attnscope::Matrix<T> q = vectors.q.cast<T>(), k = vectors.k.cast<T>();
    const attnscope::HeadView<T> head(q, k, {}, static_cast<T>(vectors.scale / settings.temperature));
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
        RowFigures row = figures_of<T>(scan.rows[i], norms.rows[i], query, settings.temperature);
        if (row.status == attnscope::RowStatus::normal && mask.visible(query, report.capture.keys).contains(0))
            row.first_key_weight = scan.rows[i].statistics().weight_of(first[i]);
        figures.rows.push_back(std::move(row));
    }
    analyser.begin_head(vectors.v, mask);
    const attnscope::HeadView<double> exact(vectors.q, vectors.k, {}, vectors.scale);
    std::vector<double> logits(static_cast<std::size_t>(report.capture.keys));
    for (const Index query : audited_rows(report.capture.queries, report.capture.keys)) {
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

Report analyse(Capture capture, const Settings& settings) {
    if (capture.kind == Capture::Kind::weights && !settings.normalizer.promises().shift_invariant)
        throw program::usage_error(
            "--normalizer: stored weights tell the logits of softmax up to a constant only, which this "
            "normaliser would feel; it needs q and k, or logits");
    if (settings.scale && capture.kind != Capture::Kind::queries_and_keys)
        throw program::usage_error("--scale: only q and k are scaled, the input has logits or weights");
    const bool can_stream =
        capture.kind == Capture::Kind::queries_and_keys && settings.normalizer.name() == "softmax";
    const bool stream = settings.stream.value_or(
        can_stream && capture.queries > stream_above / std::max<Index>(1, capture.keys));
    if (stream && !can_stream) throw program::usage_error("--stream: only softmax of q and k is streamed");
    Report report{std::move(capture), settings, {}, {}, {}, stream};
    const Capture& input = report.capture;
    const std::vector<Index> layers = chosen(settings.layers, input.layers, "layer"),
                             heads = chosen(settings.heads, input.heads, "head");
    const attnscope::Mask mask = settings.causal
                                     ? attnscope::Mask::causal_bottom_right(input.queries, input.keys)
                                     : attnscope::Mask::none();
    HeadAnalyser analyser(input, settings);
    program::Progress progress("analysing heads", layers.size() * heads.size());
    for (const Index layer : layers)
        for (const Index head : heads) {
            HeadFigures figures{layer, head, {}};
            if (!stream)
                analyse_whole(report, analyser, mask, figures);
            else if (settings.scalar == Scalar::float64)
                analyse_streaming<double>(report, analyser, mask, figures);
            else
                analyse_streaming<float>(report, analyser, mask, figures);
            report.heads.push_back(std::move(figures));
            progress.step();
        }
    return report;
}

} // namespace report
