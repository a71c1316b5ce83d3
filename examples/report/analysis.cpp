#include "analysis.hpp"

#include <attnscope/streaming/threads.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

namespace report {
namespace {

using attnscope::RowIn;

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

/// The logit of a head's sink, if it has one: `--normalizer` is in place of it.
std::optional<double> sink_of(const Report& report, const HeadPlace& place) {
    const Capture& input = report.capture;
    if (input.sinks.empty() || report.settings.normalizer) return std::nullopt;
    return input.sinks[static_cast<std::size_t>(place.layer * input.heads + place.head)];
}

/// Largest |computed - stored| weight so far.
class WeightDifference {
public:
    explicit WeightDifference(const attnscope::Matrix<double>& stored) : stored_(stored) {}
    void row(Index query, RowIn<double> computed) {
        const std::lock_guard lock(guard_);
        for (Index key = 0; key < stored_.cols(); ++key) {
            // Keys behind the last one that a query sees have no weight.
            const auto at = static_cast<std::size_t>(key);
            const double own = at < computed.size() ? computed[at] : 0, stored = stored_(query, key);
            double difference = std::abs(own - stored);
            if (std::isnan(own) && std::isnan(stored)) difference = 0;
            // NaN on one side only is a difference that no number describes, and stays.
            largest_ = difference <= largest_ || std::isnan(largest_) ? largest_ : difference;
        }
    }
    double largest() const { return largest_; }

private:
    const attnscope::Matrix<double>& stored_;
    std::mutex guard_;
    double largest_ = 0;
};

/// The figures of a head under the normaliser that was asked for beside its own, at its temperature and without its sink.
template <class Run>
void add_beside(Report& report, const HeadPlace& place, attnscope::AnalysisOptions options, const Run& run) {
    if (!report.settings.beside) return;
    options.normalizer = program::named_normalizer(
        *report.settings.beside, report.normalizers[static_cast<std::size_t>(place.layer)].temperature);
    options.sink_logit.reset();
    options.audit = options.certificates = false;
    report.beside.push_back(run(options));
}

/// From the matrix of logits, as the file gives it.
HeadAnalysis analyse_rows(Report& report, const HeadPlace& place, attnscope::AnalysisOptions options,
                          const attnscope::Threads& executor) {
    const program::HeadRows rows = load_head(report.capture, place);
    report.tally.merge(rows.tally);
    options.mask = rows.mask;
    options.delta = rows.delta;
    options.normalise_weights = report.capture.options.normalise_weights;
    const auto analyse = [&](auto&& from, const auto& matrix) {
        return rows.values ? from(matrix, *rows.values) : from(matrix);
    };
    const bool stored = report.capture.kind == Capture::Kind::weights;
    if (stored) options.stored_scalar = rows.stored_scalar;
    const auto run = [&](const attnscope::AnalysisOptions& asked) {
        if (stored)
            return analyse(
                [&](const auto&... matrices) {
                    return attnscope::analyze_weights(matrices..., asked, executor);
                },
                *rows.weights);
        return analyse(
            [&](const auto&... matrices) { return attnscope::analyze_logits(matrices..., asked, executor); },
            rows.logits);
    };
    add_beside(report, place, options, run);
    std::optional<WeightDifference> difference;
    if (rows.weights && !stored) {
        difference.emplace(*rows.weights);
        options.visit = [&](Index query, RowIn<double>, RowIn<double> p) { difference->row(query, p); };
    }
    HeadAnalysis head = run(options);
    if (difference) {
        const double before = report.weight_difference.value_or(0), now = difference->largest();
        report.weight_difference = now <= before || std::isnan(before) ? before : now;
    }
    return head;
}

/// From q and k, without the matrix of logits.
HeadAnalysis analyse_vectors(Report& report, const HeadPlace& place, attnscope::AnalysisOptions options,
                             const attnscope::Threads& executor) {
    const program::HeadVectors<double> vectors = program::load_vectors(report.capture, place);
    options.mask = report.capture.mask(place);
    options.scale = vectors.scale;
    const auto run = [&](const attnscope::AnalysisOptions& asked) {
        return vectors.v ? attnscope::analyze(vectors.q, vectors.k, *vectors.v, asked, executor)
                         : attnscope::analyze(vectors.q, vectors.k, asked, executor);
    };
    add_beside(report, place, options, run);
    return run(options);
}

} // namespace

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
    if (!input.sinks.empty()) {
        const bool softcaps =
            std::any_of(report.normalizers.begin(), report.normalizers.end(), [](const HeadNormalizer& layer) {
                return !layer.normalizer.target<attnscope::Softmax>();
            });
        const std::string audited = softcaps ? "of rows behind a softcap nothing is stated"
                                             : "the audit takes it for one more key with value 0";
        input.assumptions.push_back(
            settings.normalizer ? "sinks: not used, --normalizer is given"
                                : "sinks: a key without a value in every row, softmax beside it; " + audited);
    }
    bool can_stream = input.kind == Capture::Kind::queries_and_keys && !input.bias;
    for (const Index layer : report.layers) {
        const attnscope::AnyNormalizer& normalizer =
            report.normalizers[static_cast<std::size_t>(layer)].normalizer;
        const auto feels_shifts = [](const attnscope::AnyNormalizer& any) {
            return !any.promises().shift_invariant;
        };
        if (input.kind == Capture::Kind::weights &&
            (feels_shifts(normalizer) ||
             (settings.beside && feels_shifts(program::named_normalizer(*settings.beside)))))
            throw program::usage_error(
                "--normalizer: stored weights tell the logits of softmax up to a constant only, which this "
                "normaliser would feel; it needs q and k, or logits");
        can_stream = can_stream && normalizer.target<attnscope::Softmax>() != nullptr;
    }
    const Index most_logits = settings.analysis.streamed_above;
    report.streamed =
        settings.stream.value_or(can_stream && input.queries > most_logits / std::max<Index>(1, input.keys));
    if (report.streamed && !can_stream)
        throw program::usage_error("--stream: only softmax of q and k is streamed");

    const attnscope::Threads executor(settings.threads);
    const std::vector<Index> batches = input.chosen_batches();
    program::Progress progress("analysing heads", batches.size() * report.layers.size() * heads.size());
    for (const Index batch : batches)
        for (const Index layer : report.layers)
            for (const Index head : heads) {
                const HeadPlace place{batch, layer, head};
                attnscope::AnalysisOptions options = settings.analysis;
                options.normalizer = report.normalizers[static_cast<std::size_t>(layer)].normalizer;
                options.sink_logit = sink_of(report, place);
                options.streamed_above = report.streamed ? 0 : std::numeric_limits<Index>::max();
                options.seed =
                    attnscope::mixed_seed(settings.analysis.seed, static_cast<std::uint64_t>(batch),
                                          static_cast<std::uint64_t>(layer), static_cast<std::uint64_t>(head));
                for (Index query = 0; query < input.queries; ++query)
                    options.padding.push_back(input.is_padding(place, query));
                report.places.push_back(place);
                report.heads.push_back(report.streamed ? analyse_vectors(report, place, options, executor)
                                                       : analyse_rows(report, place, options, executor));
                report.audit.merge(report.heads.back().audit);
                progress.step();
            }
    return report;
}

} // namespace report
