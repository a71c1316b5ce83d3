// What the heads of a capture need. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/cache/format_name.hpp>
#include <attnscope/capture/load_head.hpp>
#include <attnscope/io/plan_json.hpp>
#include <attnscope/plan_text.hpp>
#include <attnscope/planner/plan_head.hpp>
#include <attnscope/streaming/threads.hpp>

#include <mutex>
#include <set>

namespace attnscope {
inline namespace v0_2 {

/// The plans of all heads of a capture. As text by fmt or `to_table`, as JSON by `io::to_json`.
struct CapturePlan : HeadPlans {
    std::string source; ///< the name of the capture
    Index queries = 0, keys = 0;
    bool causal = false;
    std::vector<std::string> assumptions, warnings; ///< about the capture, a line each
};

namespace detail {
namespace capture_plan {

/// Does softmax see other logits than those of the layer, behind a softcap? Of stored weights it has seen them.
inline bool is_mapped(const Capture& capture, const AnyNormalizer& normalizer) {
    return capture.kind != Capture::Kind::weights && normalizer.takes_sink() && !normalizer.target<Softmax>();
}

} // namespace capture_plan
} // namespace detail

/// Do q, k and the mask alone say what the logits are that softmax sees? Then `PlanQuestion::bits` can be asked, where there are
/// values too.
inline bool has_plain_keys(const Capture& capture) {
    return capture.has_keys_alone() &&
           std::none_of(capture.attention.begin(), capture.attention.end(), [&](const LayerAttention& layer) {
               return detail::capture_plan::is_mapped(capture, layer.any_normalizer());
           });
}

/// Plans every head of a capture, on `threads` threads, which change nothing in the results. Formats of the cache whose blocks
/// do not divide the channels are left out, by name. Sinks are not taken into account; a warning says so. progress: heads
/// done, and all of them; by one thread at a time.
/// Throws. `invalid_argument` for `bits` of heads without `has_plain_keys` or values, and for `output_error` without values;
/// what `plan_head` and reading throw.
/// Example: `fmt::print("{}", plan_capture(open_capture({"heads.safetensors"}), {.weight = 0.5}));`
inline CapturePlan plan_capture(const Capture& capture, const PlanQuestion& question, Index threads = 1,
                                const std::function<void(Index done, Index all)>& progress = {}) {
    capture.check();
    CapturePlan result;
    result.source = capture.name;
    result.question = question;
    result.queries = capture.queries;
    result.keys = capture.keys;
    result.causal = std::all_of(capture.attention.begin(), capture.attention.end(),
                                [](const auto& layer) { return layer.causal.value_or(false); });
    result.assumptions = capture.assumptions;
    detail::require(!question.bits || (capture.v && has_plain_keys(capture)), "plan_capture",
                    "bits need q, k and v, and neither bias nor padding nor a softcap");
    detail::require(!question.output_error || capture.v, "plan_capture", "output_error needs values v");
    const std::vector<Index> batches = capture.chosen_batches();
    const Index heads_of_batch = capture.layers * capture.heads, heads = std::ssize(batches) * heads_of_batch;
    RowTally tally;
    result.heads.resize(static_cast<std::size_t>(heads));
    std::set<std::string> left_out;
    Index done = 0;
    std::mutex mutex; // of what is gathered, and of progress
    Threads{threads}(heads, [&](Index i) {
        const HeadPlace place{batches[static_cast<std::size_t>(i / heads_of_batch)],
                              i % heads_of_batch / capture.heads, i % capture.heads};
        const LayerAttention& layer = capture.layer(place.layer);
        const double temperature = layer.temperature.value_or(1);
        const AnyNormalizer normalizer = layer.any_normalizer();
        const bool mapped = detail::capture_plan::is_mapped(capture, normalizer);
        PlanInput input;
        HeadVectors<double> vectors;
        HeadRows stored; // logits or weights that the file holds as a matrix
        if (capture.has_keys_alone()) {
            vectors = load_vectors(capture, place);
            if (!mapped)
                input = plan_input(vectors.q, vectors.k, capture.mask(place), vectors.scale / temperature);
            input.values = std::move(vectors.v);
            if (!mapped) vectors = {}; // copied
        } else {
            stored = load_head(capture, place);
            const std::lock_guard lock(mutex);
            tally.merge(stored.tally);
            input.values = std::move(stored.values);
        }
        if (!input.q) {
            input.queries = capture.queries;
            input.keys = capture.keys;
            input.mask = capture.has_keys_alone() ? capture.mask(place) : stored.mask;
            input.logits = [&](Index query, std::span<double> z) {
                if (capture.has_keys_alone())
                    logits_of<double>({vectors.q, vectors.k, {}, vectors.scale}, input.mask, query, z);
                else
                    std::copy_n(stored.logits.row(query).data(), z.size(), z.begin());
                if (mapped)
                    normalizer.softmax_logits(z, z);
                else
                    for (double& logit : z) logit /= temperature;
            };
        }
        PlanQuestion asked = question;
        std::vector<std::string> unfit;
        if (question.bits) {
            const auto fit = [&](std::vector<CacheFormat>& formats, Index width) {
                std::erase_if(formats, [&](const CacheFormat& format) {
                    const bool out = !fits_cache(format, width);
                    if (out) unfit.push_back(name_of(format));
                    return out;
                });
            };
            fit(asked.key_formats, input.k->cols());
            fit(asked.value_formats, input.values->cols());
        }
        PlacedPlan& own = result.heads[static_cast<std::size_t>(i)];
        static_cast<HeadPlan&>(own) = plan_head(input, asked);
        own.batch = place.batch;
        own.layer = place.layer;
        own.head = place.head;
        const std::lock_guard lock(mutex);
        left_out.insert(unfit.begin(), unfit.end());
        if (progress) progress(++done, heads);
    });
    result.formats_left_out.assign(left_out.begin(), left_out.end());
    result.pool_choices();
    for (const std::string& line : findings_of(capture, tally)) result.assumptions.push_back(line);
    result.warnings = warnings_of(capture, tally);
    if (tally.not_one > 0 && !capture.options.normalise_weights)
        result.warnings.push_back(
            "rows of weights that do not sum to 1 are planned for as if divided by their sum");
    for (const LayerAttention& layer : capture.attention)
        if (!layer.any_normalizer().takes_sink()) {
            result.warnings.push_back(fmt::format(
                "the file says {}, what follows is about softmax of the same logits", *layer.normalizer));
            break;
        }
    for (const LayerAttention& layer : capture.attention)
        if (const AnyNormalizer normalizer = layer.any_normalizer();
            detail::capture_plan::is_mapped(capture, normalizer)) {
            result.assumptions.push_back(fmt::format(
                "normaliser: {}, planned from the logits that its softmax sees", normalizer.name()));
            break;
        }
    if (!capture.sinks.empty())
        result.warnings.push_back("the file has sinks, what follows is about softmax without them");
    return result;
}

/// The tables that a person reads.
inline std::string to_table(const CapturePlan& plan) {
    Index rows = 0;
    for (const PlacedPlan& head : plan.heads) rows += head.rows;
    std::string text =
        fmt::format("{}: {} heads, {} queries, {} keys, {}; planned from {} rows of two keys or more\n",
                    printable(plan.source), plan.heads.size(), plan.queries, plan.keys,
                    plan.causal ? "causal" : "not causal", rows);
    for (const std::string& line : plan.assumptions) text += fmt::format("taken: {}\n", line);
    for (const std::string& line : plan.warnings) text += fmt::format("warning: {}\n", line);
    return text + to_table(static_cast<const HeadPlans&>(plan));
}

namespace io {

/// Schema "attnscope.plan/1", documented in docs/plan.md.
inline nlohmann::ordered_json to_json(const CapturePlan& plan) {
    nlohmann::ordered_json json;
    json["schema"] = "attnscope.plan/1";
    json["version"] = ATTNSCOPE_VERSION;
    json["source"] = printable(plan.source); // JSON is UTF-8
    json["queries"] = plan.queries;
    json["keys"] = plan.keys;
    json["causal"] = plan.causal;
    json["assumptions"] = plan.assumptions;
    json["warnings"] = plan.warnings;
    json.update(to_json(static_cast<const HeadPlans&>(plan)));
    return json;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope

/// Prints the tables of `to_table`.
template <>
struct fmt::formatter<attnscope::CapturePlan> : fmt::formatter<fmt::string_view> {
    template <class Context>
    auto format(const attnscope::CapturePlan& plan, Context& context) const {
        return fmt::formatter<fmt::string_view>::format(to_table(plan), context);
    }
};
