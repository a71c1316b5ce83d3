#include "output.hpp"

#include <attnscope/cache/format_name.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <mutex>
#include <set>

namespace plan {

std::vector<attnscope::CacheFormat> cache_formats(std::string_view list, bool keys) {
    std::vector<attnscope::CacheFormat> formats;
    for (std::size_t at = 0; at <= list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        std::string name(list.substr(at, end - at));
        if (name.starts_with("kivi")) name = "affine" + name.substr(4) + (keys ? ":channel32" : ":token32");
        try {
            formats.push_back(attnscope::cache_format(name));
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--formats: {}", error.what()));
        }
        at = end + 1;
    }
    return formats;
}

namespace {

/// Does softmax see other logits than those of the layer, behind a softcap? Of stored weights it has seen them.
bool is_mapped(const program::Capture& capture, const attnscope::AnyNormalizer& normalizer) {
    return capture.kind != program::Capture::Kind::weights && normalizer.takes_sink() &&
           !normalizer.target<attnscope::Softmax>();
}

attnscope::AnyNormalizer normalizer_of(const program::LayerAttention& layer) {
    return program::named_normalizer(layer.normalizer.value_or("softmax"), layer.temperature.value_or(1));
}

/// Are q and k there, and nothing that is added to their products?
bool has_keys(const program::Capture& capture) {
    return capture.kind == program::Capture::Kind::queries_and_keys && !capture.bias && capture.tokens.empty();
}

} // namespace

bool has_plain_keys(const program::Capture& capture) {
    return has_keys(capture) &&
           std::none_of(capture.attention.begin(), capture.attention.end(),
                        [&](const auto& layer) { return is_mapped(capture, normalizer_of(layer)); });
}

Plan make_plan(const program::Capture& capture, const attnscope::PlanQuestion& question, Index threads) {
    Plan result;
    result.source = capture.name;
    result.question = question;
    result.queries = capture.queries;
    result.keys = capture.keys;
    result.causal = std::all_of(capture.attention.begin(), capture.attention.end(),
                                [](const auto& layer) { return layer.causal.value_or(false); });
    result.assumptions = capture.assumptions;
    const std::vector<Index> batches = capture.chosen_batches();
    const Index heads_of_batch = capture.layers * capture.heads, heads = std::ssize(batches) * heads_of_batch;
    program::RowTally tally;
    result.heads.resize(static_cast<std::size_t>(heads));
    std::set<std::string> left_out;
    program::Progress progress("planning heads", static_cast<std::size_t>(heads));
    std::mutex mutex; // the file is read, and progress shown, by one at a time
    attnscope::Threads{threads}(heads, [&](Index i) {
        const program::HeadPlace place{batches[static_cast<std::size_t>(i / heads_of_batch)],
                                       i % heads_of_batch / capture.heads, i % capture.heads};
        const program::LayerAttention& layer = capture.layer(place.layer);
        const double temperature = layer.temperature.value_or(1);
        const attnscope::AnyNormalizer normalizer = normalizer_of(layer);
        const bool mapped = is_mapped(capture, normalizer);
        attnscope::PlanInput input;
        program::HeadVectors<double> vectors;
        program::HeadRows stored; // logits or weights that the file holds as a matrix
        if (has_keys(capture)) {
            {
                const std::lock_guard lock(mutex);
                vectors = program::load_vectors(capture, place);
            }
            if (!mapped)
                input = attnscope::plan_input(vectors.q, vectors.k, capture.mask(place),
                                              vectors.scale / temperature);
            input.values = std::move(vectors.v);
            if (!mapped) vectors = {}; // copied
        } else {
            const std::lock_guard lock(mutex);
            stored = program::load_head(capture, place);
            tally.merge(stored.tally);
            input.values = std::move(stored.values);
        }
        if (!input.q) {
            input.queries = capture.queries;
            input.keys = capture.keys;
            input.mask = has_keys(capture) ? capture.mask(place) : stored.mask;
            input.logits = [&](Index query, std::span<double> z) {
                if (has_keys(capture))
                    attnscope::logits_of<double>({vectors.q, vectors.k, {}, vectors.scale}, input.mask, query,
                                                 z);
                else
                    std::copy_n(stored.logits.row(query).data(), z.size(), z.begin());
                if (mapped)
                    normalizer.softmax_logits(z, z);
                else
                    for (double& logit : z) logit /= temperature;
            };
        }
        attnscope::PlanQuestion asked = question;
        std::vector<std::string> unfit;
        if (question.bits) {
            const auto fit = [&](std::vector<attnscope::CacheFormat>& formats, Index width) {
                std::erase_if(formats, [&](const attnscope::CacheFormat& format) {
                    const bool out = !attnscope::fits_cache(format, width);
                    if (out) unfit.push_back(attnscope::name_of(format));
                    return out;
                });
            };
            fit(asked.key_formats, input.k->cols());
            fit(asked.value_formats, input.values->cols());
        }
        attnscope::PlacedPlan& own = result.heads[static_cast<std::size_t>(i)];
        static_cast<attnscope::HeadPlan&>(own) = attnscope::plan_head(input, asked);
        own.batch = place.batch;
        own.layer = place.layer;
        own.head = place.head;
        const std::lock_guard lock(mutex);
        left_out.insert(unfit.begin(), unfit.end());
        progress.step();
    });
    result.formats_left_out.assign(left_out.begin(), left_out.end());
    result.pool_choices();
    for (const std::string& line : findings_of(capture, tally)) result.assumptions.push_back(line);
    result.warnings = warnings_of(capture, tally);
    if (tally.not_one > 0 && !capture.options.normalise_weights)
        result.warnings.push_back(
            "rows of weights that do not sum to 1 are planned for as if divided by their sum");
    for (const program::LayerAttention& layer : capture.attention)
        if (!normalizer_of(layer).takes_sink()) {
            result.warnings.push_back(fmt::format(
                "the file says {}, what follows is about softmax of the same logits", *layer.normalizer));
            break;
        }
    for (const program::LayerAttention& layer : capture.attention)
        if (const attnscope::AnyNormalizer normalizer = normalizer_of(layer); is_mapped(capture, normalizer)) {
            result.assumptions.push_back(fmt::format(
                "normaliser: {}, planned from the logits that its softmax sees", normalizer.name()));
            break;
        }
    if (!capture.sinks.empty())
        result.warnings.push_back("the file has sinks, what follows is about softmax without them");
    return result;
}

} // namespace plan
