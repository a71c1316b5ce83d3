#include "measure.hpp"

#include <attnscope/capture/load_head.hpp>
#include <attnscope/io/key_sets.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

namespace select_keys {
namespace {

using attnscope::Capture;
using attnscope::HeadPlace;
using attnscope::PolicyScanOptions;
using attnscope::SelectionPolicy;
using attnscope::SelectionSummary;
using program::usage_error;
using Kind = SelectionPolicy::Kind;

void check(const Capture& capture, const Settings& settings) {
    if (capture.kind != Capture::Kind::queries_and_keys)
        throw usage_error("selectors look at q and k: the capture has neither");
    for (const attnscope::LayerAttention& layer : capture.attention)
        if (const std::string name = layer.normalizer.value_or("softmax"); name != "softmax")
            throw usage_error(
                fmt::format("what a selection keeps is told of softmax; the capture says {}", name));
    for (const SelectionPolicy& policy : settings.policies) {
        const bool sees_no_keys =
            policy.kind == Kind::top || policy.kind == Kind::window || policy.kind == Kind::random;
        if (capture.bias && !sees_no_keys)
            throw usage_error(
                fmt::format("--policy: {} looks at q and k alone, and the capture has a bias (top, "
                            "window, random and --sets take one)",
                            policy.name()));
        if (!capture.sinks.empty() && policy.reads_blocks())
            throw usage_error(fmt::format(
                "--policy: {} certifies nothing beside a sink, and the capture has sinks", policy.name()));
    }
}

attnscope::LogitBias bias_of(const Capture& capture, const HeadPlace& place) {
    if (!capture.bias) return {};
    const attnscope::HeadSource& source = *capture.bias;
    const auto bias = std::make_shared<const attnscope::Matrix<double>>(
        source.head({source.batches == 1 ? 0 : place.batch, source.layers == 1 ? 0 : place.layer,
                     source.heads == 1 ? 0 : place.head}));
    return [bias](Index query, Index key) { return (*bias)(query, key); };
}

} // namespace

double PolicyResult::mean(double SelectionSummary::*figure) const {
    double sum = 0, count = 0;
    for (const HeadSelection& head : heads) {
        const double x = head.figures.*figure;
        if (x != x) continue;
        sum += x;
        ++count;
    }
    return sum / count;
}

std::vector<const HeadSelection*> PolicyResult::worst(std::size_t most) const {
    std::vector<const HeadSelection*> sorted;
    for (const HeadSelection& head : heads)
        if (head.figures.rows > 0) sorted.push_back(&head);
    std::stable_sort(sorted.begin(), sorted.end(), [](const HeadSelection* a, const HeadSelection* b) {
        return a->figures.kept < b->figures.kept;
    });
    sorted.resize(std::min(sorted.size(), most));
    return sorted;
}

Result measure(const Capture& capture, const Settings& settings) {
    check(capture, settings);
    Result result;
    result.source = capture.name;
    result.settings = settings;
    result.batches = capture.batches;
    result.layers = capture.layers;
    result.heads = capture.heads;
    result.queries = capture.queries;
    result.keys = capture.keys;
    result.assumptions = capture.assumptions;
    result.warnings = capture.warnings;
    if (!capture.sinks.empty())
        result.assumptions.push_back("sinks: a key without a value in every row, which every selection keeps");
    const bool forgets = std::any_of(settings.policies.begin(), settings.policies.end(),
                                     [](const SelectionPolicy& policy) { return policy.evicts(); });
    if (forgets &&
        std::any_of(capture.attention.begin(), capture.attention.end(),
                    [](const attnscope::LayerAttention& layer) { return !layer.causal.value_or(false); }))
        result.warnings.push_back(
            "the heads are not causal (--causal says that they are): a cache that forgets gets all keys "
            "with the first query, and cuts them before it knows any weight");
    for (const SelectionPolicy& policy : settings.policies)
        result.policies.push_back({policy.name(), policy, {}});
    std::optional<attnscope::io::KeySetsFile> file;
    if (!settings.sets.empty()) {
        file.emplace(settings.sets);
        const auto serves = [](Index own, Index wanted) { return own == 1 || own == wanted; };
        if (file->queries() != capture.queries || !serves(file->layers(), capture.layers) ||
            !serves(file->heads(), capture.heads))
            throw std::runtime_error(fmt::format(
                "{}: expected sets for {} layers (or 1), {} heads (or 1) and {} queries, found {}, {} and {}",
                settings.sets, capture.layers, capture.heads, capture.queries, file->layers(), file->heads(),
                file->queries()));
        result.policies.push_back({settings.sets, std::nullopt, {}});
    }

    const attnscope::Threads threads(settings.threads);
    const std::vector<Index> batches = capture.chosen_batches();
    program::Progress progress("measuring heads", batches.size() * static_cast<std::size_t>(capture.layers) *
                                                      static_cast<std::size_t>(capture.heads));
    for (const Index batch : batches)
        for (Index layer = 0; layer < capture.layers; ++layer)
            for (Index head = 0; head < capture.heads; ++head) {
                const HeadPlace place{batch, layer, head};
                const auto vectors = attnscope::load_vectors<float>(capture, place);
                const attnscope::MatrixView<float> values =
                    vectors.v ? attnscope::MatrixView<float>(*vectors.v) : attnscope::MatrixView<float>();
                const double temperature = capture.layer(layer).temperature.value_or(1);
                const attnscope::HeadView<float> view(
                    attnscope::MatrixView<float>(vectors.q), attnscope::MatrixView<float>(vectors.k), values,
                    static_cast<float>(static_cast<double>(vectors.scale) / temperature));
                const attnscope::Mask mask = capture.mask(place);
                PolicyScanOptions options;
                options.geometry = settings.geometry && vectors.v;
                options.prompt = settings.prompt;
                options.seed = attnscope::mixed_seed(settings.seed, static_cast<std::uint64_t>(layer),
                                                     static_cast<std::uint64_t>(head));
                options.tiles.bias = bias_of(capture, place);
                if (options.tiles.bias && temperature != 1)
                    options.tiles.bias = [bias = options.tiles.bias, temperature](Index query, Index key) {
                        return bias(query, key) / temperature;
                    };
                if (!capture.sinks.empty())
                    options.sink_logit =
                        capture.sinks[static_cast<std::size_t>(layer * capture.heads + head)] / temperature;
                std::vector<SelectionSummary> summaries(result.policies.size());
                threads(static_cast<Index>(summaries.size()), [&](Index number) {
                    const auto at = static_cast<std::size_t>(number);
                    const std::optional<SelectionPolicy>& policy = result.policies[at].policy;
                    attnscope::PolicyScan<double> scan;
                    if (policy) {
                        scan = scan_policy(*policy, view, mask, options);
                    } else {
                        const attnscope::KeySets sets = file->sets(layer, head, capture.keys, mask);
                        static_cast<attnscope::SelectionScan<double>&>(scan) =
                            scan_selection(view, sets, mask, options);
                    }
                    for (Index query = 0; query < capture.queries; ++query)
                        if (query < settings.prompt || capture.is_padding(place, query))
                            scan.rows[static_cast<std::size_t>(query)] = {};
                    summaries[at] = summarize(scan, policy ? policy->budget : 0);
                });
                for (std::size_t i = 0; i < summaries.size(); ++i)
                    result.policies[i].heads.push_back({place, summaries[i]});
                progress.step();
            }
    return result;
}

} // namespace select_keys
