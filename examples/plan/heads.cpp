#include "output.hpp"

#include <attnscope/cache/format_name.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/streaming/threads.hpp>
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

bool has_plain_keys(const program::Capture& capture) {
    return capture.kind == program::Capture::Kind::queries_and_keys && !capture.bias && capture.tokens.empty();
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
        const double temperature = capture.layer(place.layer).temperature.value_or(1);
        attnscope::PlanInput input;
        program::HeadRows stored; // logits or weights that the file holds as a matrix
        if (has_plain_keys(capture)) {
            program::HeadVectors<double> vectors;
            {
                const std::lock_guard lock(mutex);
                vectors = program::load_vectors(capture, place);
            }
            input =
                attnscope::plan_input(vectors.q, vectors.k, capture.mask(place), vectors.scale / temperature);
            input.values = std::move(vectors.v);
        } else {
            {
                const std::lock_guard lock(mutex);
                stored = program::load_head(capture, place);
                tally.merge(stored.tally);
            }
            input.queries = capture.queries;
            input.keys = capture.keys;
            input.values = std::move(stored.values);
            input.mask = stored.mask;
            stored.logits /= temperature;
            input.logits = [&stored](Index query, std::span<double> z) {
                std::copy_n(stored.logits.row(query).data(), z.size(), z.begin());
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
        if (const std::string name = layer.normalizer.value_or("softmax"); name != "softmax") {
            result.warnings.push_back(
                fmt::format("the file says {}, what follows is about softmax of the same logits", name));
            break;
        }
    if (!capture.sinks.empty())
        result.warnings.push_back("the file has sinks, what follows is about softmax without them");
    return result;
}

} // namespace plan
