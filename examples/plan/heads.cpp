#include "output.hpp"

#include <attnscope/planner/plan_head.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/program.hpp>

#include <mutex>

namespace plan {

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
        PlacedPlan& own = result.heads[static_cast<std::size_t>(i)];
        static_cast<attnscope::HeadPlan&>(own) = attnscope::plan_head(input, question);
        own.batch = place.batch;
        own.layer = place.layer;
        own.head = place.head;
        const std::lock_guard lock(mutex);
        progress.step();
    });
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
