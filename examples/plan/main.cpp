// attnscope-plan: from measured heads to decisions: temperature, context, top-k, bits of the key cache.

#include "heads.hpp"

#include <models/model_capture.hpp>
#include <support/program.hpp>

#include <thread>

namespace {

using attnscope::Index;
using Question = attnscope::PlanQuestion;
using attnscope::Capture;

double number(std::string_view option, std::string_view text, double low, double high, std::string_view range) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high))
        throw program::usage_error(fmt::format("{} must be a number {}, got {}", option, range, text));
    return value;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "What do these attention heads need? For a context length: the temperature for a weight, an entropy or "
        "a "
        "participation ratio, and how far the heads come without it. For a tolerance: the keys to keep, and "
        "the "
        "bits to store them in. Every answer is applied and measured. Without a question, all are asked.",
        "attnscope-plan");
    std::vector<std::string> inputs;
    std::string length = "131072", weight, output_error, mass, share, growth, key_scale = "channel", json,
                rows = "64", seed = "1",
                formats =
                    "f16,q8_0,q8_0+rotated,q5_1,q5_0,q4_1,q4_0,q4_0+rotated,e4m3,nf4,int8:token,int4:token,"
                    "kivi4,kivi2";
    std::vector<std::string> entropy, participation;
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    bool bits = false;
    app.add_option(
        "CAPTURE", inputs,
        "a safetensors or .npz file with q,k | logits | weights, each [heads,n,d], [layers,heads,n,d] or "
        "[batch,layers,heads,n,d], and optional "
        "v; or .npy parts q=FILE k=FILE v=FILE; or a model that runs on --text: a folder with config.json and "
        "model.safetensors, or a GGUF file; without it, synthetic heads");
    const models::ModelOptions model_options(app, "--text-length", false);
    app.add_option("--length", length, "of the context to plan for, keys")->capture_default_str();
    // Their number is optional, and what follows may be the capture.
    constexpr int most = 8;
    const auto* weight_option = app.add_option("--weight", weight, "wanted for the best key, between 0 and 1");
    auto* entropy_option = app.add_option("--entropy", entropy, "wanted, nats [each head's mean now]")
                               ->expected(0, most)
                               ->type_name("[NATS]");
    auto* participation_option =
        app.add_option("--participation", participation, "wanted, in keys [each head's mean now]")
            ->expected(0, most)
            ->type_name("[KEYS]");
    const auto* error_option = app.add_option(
        "--output-error", output_error,
        "keys to keep so that |o - o_kept| <= this times |o|; with --bits, what the bits may cause [0.01]");
    const auto* mass_option =
        app.add_option("--mass", mass, "keys to keep so that this share of the weight stays");
    app.add_flag("--bits", bits, "fewest bits of the key cache, and fewest bytes of keys and values");
    const auto* formats_option =
        app.add_option(
               "--formats", formats,
               "of keys and values that --bits tries, in every pair: f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, "
               "nf4, "
               "e4m3, e5m2, intBITS, affineBITS, kiviBITS, with :channel or :token and a group, and +rotated")
            ->capture_default_str();
    const auto* key_scale_option =
        app.add_option("--key-scale", key_scale, "of the key cache: one for each channel or token")
            ->capture_default_str();
    const auto* share_option = app.add_option(
        "--share", share,
        "of the rows that an answer must serve [0.5 for weight, entropy, participation; else 0.99]");
    const auto* growth_option =
        app.add_option("--growth", growth,
                       "exponent c of the background e^-gap ~ n^c, 0: as it is [what each head's rows show]");
    const auto capture_options = program::add_capture_options(app);
    app.add_option("--rows", rows, "of each head, evenly spaced")->capture_default_str();
    app.add_option("--seed", seed, "of the synthetic heads")->capture_default_str();
    app.add_option("--json", json,
                   "write every head's answers to this file; - for standard output instead of the text");
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        constexpr double largest = std::numeric_limits<double>::max(),
                         above_0 = std::numeric_limits<double>::min(),
                         below_1 = 1 - std::numeric_limits<double>::epsilon() / 2;
        Question question;
        question.length =
            static_cast<double>(program::whole_number<Index>("--length", length, 2, Index(1) << 24));
        if (weight_option->count() > 0)
            question.weight = number("--weight", weight, above_0, below_1, "between 0 and 1, both excluded");
        for (auto* values : {&entropy, &participation}) {
            std::erase(*values, std::string());
            double number = 0;
            const auto reads = [&](const std::string& text) {
                const char* const last = text.data() + text.size();
                const auto [end, error] = std::from_chars(text.data(), last, number);
                return error == std::errc{} && end == last;
            };
            // Behind the number, or instead of it where no capture is named elsewhere.
            const std::size_t own = !values->empty() && (reads(values->front()) || !inputs.empty()) ? 1 : 0;
            for (std::size_t i = own; i < values->size(); ++i) inputs.push_back((*values)[i]);
            values->resize(std::min(own, values->size()));
        }
        question.entropy = entropy_option->count() > 0;
        if (!entropy.empty())
            question.entropy_nats = number("--entropy", entropy.front(), 0, largest, ">= 0, in nats");
        question.participation = participation_option->count() > 0;
        if (!participation.empty())
            question.participation_keys =
                number("--participation", participation.front(), 1, largest, ">= 1, in keys");
        if (error_option->count() > 0)
            question.output_error = number("--output-error", output_error, above_0, largest, "> 0");
        if (mass_option->count() > 0) question.mass = number("--mass", mass, above_0, 1, "in (0, 1]");
        if (share_option->count() > 0) question.share = number("--share", share, above_0, 1, "in (0, 1]");
        if (growth_option->count() > 0)
            question.growth = number("--growth", growth, -largest, largest, "such as 0 or -0.1");
        if (key_scale != "channel" && key_scale != "token")
            throw program::usage_error(fmt::format("--key-scale must be channel or token, got {}", key_scale));
        question.scale = key_scale == "channel" ? attnscope::CacheScale::channel : attnscope::CacheScale::token;
        question.rows = program::whole_number<Index>("--rows", rows, 1, Index(1) << 20);
        question.bits = bits;
        question.key_formats = plan::cache_formats(formats, true);
        question.value_formats = plan::cache_formats(formats, false);
        if (question.output_error) question.bits_error = *question.output_error;
        const Index thread_count = program::whole_number<Index>("--threads", threads, 1, 1024);
        const auto seed_number = program::whole_number<std::uint64_t>("--seed", seed, 0, ~std::uint64_t(0));
        model_options.check();
        std::vector<std::string> read = model_options.inputs();
        read.insert(read.end(), inputs.begin(), inputs.end());
        program::require_outputs({{"--json", json}}, read);

        const Capture capture = model_options.open(inputs, seed_number, capture_options(), thread_count);
        // Bits are tried on softmax of q.k alone.
        const bool has_keys = attnscope::has_plain_keys(capture);
        if (!question.weight && !question.entropy && !question.participation && !question.output_error &&
            !question.mass && !question.bits) {
            question.weight = 0.5;
            question.entropy = question.participation = true;
            if (capture.v) question.output_error = 0.01;
            question.bits = capture.v && has_keys;
        }
        if (key_scale_option->count() > 0 && !question.bits)
            throw program::usage_error("--key-scale: only --bits stores keys");
        if (formats_option->count() > 0 && !question.bits)
            throw program::usage_error("--formats: only --bits stores keys and values");
        if (question.output_error && !capture.v)
            throw program::usage_error("--output-error: the capture has no values v (--mass does without)");
        if (question.bits && !(capture.v && has_keys))
            throw program::usage_error(
                "--bits: the capture must have q, k and v, and neither bias nor padding nor a softcap");
        const attnscope::CapturePlan result = plan::make_plan(capture, question, thread_count);
        Index planned = 0;
        for (const attnscope::PlacedPlan& head : result.heads) planned += head.rows;
        if (planned == 0)
            throw std::runtime_error(
                fmt::format("{}: no row has two visible keys and finite logits: there is nothing to plan from",
                            result.source));
        if (!json.empty()) program::write_whole(json, attnscope::io::to_json(result).dump(1) + "\n");
        if (json != "-") fmt::print("{}", result);
    });
}
