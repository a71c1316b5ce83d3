// attnscope-capture: runs a model on a text and writes its attention to a file that attnscope-report reads.

#include <models/prompt.hpp>
#include <support/named_normalizer.hpp>

#include <thread>

namespace {

using attnscope::HeadView;
using attnscope::Index;
using attnscope::Matrix;
using models::Model;
using Ids = std::vector<std::int32_t>;

/// What the hook collects, in the order of the tensors.
struct Captured {
    std::vector<float> q, k, v, weights, hidden;

    static void append(std::vector<float>& to, const attnscope::MatrixView<float>& m) {
        for (Index i = 0; i < m.rows(); ++i) to.insert(to.end(), m.row(i).begin(), m.row(i).end());
    }
    void take(const models::LayerView<float>& layer, bool keep_hidden) {
        for (Index h = 0; h < layer.heads.heads(); ++h) {
            const HeadView<float> head = layer.heads[h]; // shared keys appear once for each query head
            append(q, head.q());
            append(k, head.k());
            append(v, head.v());
        }
        for (const Matrix<float>& p : layer.weights) append(weights, attnscope::MatrixView<float>(p));
        if (keep_hidden) append(hidden, attnscope::MatrixView<float>(layer.hidden));
    }
};

void write(const std::string& out, const Captured& captured, const models::Config& config, Index n,
           const Ids& ids, const models::RunResult<float>& result, const std::string& source,
           const std::string& normalizer) {
    attnscope::io::SafetensorsWriter writer;
    const Index layers = config.layers, heads = config.heads, d = config.head_width;
    writer.add("q", std::span<const float>(captured.q), {layers, heads, n, d});
    writer.add("k", std::span<const float>(captured.k), {layers, heads, n, d});
    writer.add("v", std::span<const float>(captured.v), {layers, heads, n, d});
    if (!captured.weights.empty())
        writer.add("weights", std::span<const float>(captured.weights), {layers, heads, n, n});
    if (!captured.hidden.empty())
        writer.add("hidden", std::span<const float>(captured.hidden), {layers + 1, n, config.width});
    const std::vector<std::int64_t> wide(ids.begin(), ids.end());
    writer.add("token_ids", std::span<const std::int64_t>(wide), {n});
    writer.add(
        "logits_last",
        std::span<const float>(result.logits_last.data(), static_cast<std::size_t>(result.logits_last.size())),
        {config.vocabulary});
    writer.set_metadata("causal", "true");
    writer.set_metadata("source", attnscope::detail::printable(source)); // metadata are UTF-8
    writer.set_metadata("normalizer", normalizer);
    writer.write(out);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Runs a GPT-2 or Llama model on a text, writes queries, keys and values of every head to a file "
        "that attnscope-report reads, and prints the loss.",
        "attnscope-capture");
    std::string out, normalizer = "softmax", generate = "0";
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    double temperature = 1;
    bool keep_weights = false, keep_hidden = false;
    models::PromptOptions prompt_options(app, "--random-weights");
    app.add_flag("--weights", keep_weights, "also write the attention weights");
    app.add_flag("--hidden", keep_hidden,
                 "also write the residual stream before every layer and after the last");
    app.add_option("--normalizer", normalizer,
                   "in place of softmax, such as ssmax:0.43 or entmax:1.5; prints the "
                   "loss of both")
        ->capture_default_str();
    app.add_option("--temperature", temperature, "divides the logits of attention")->capture_default_str();
    app.add_option("--generate", generate, "print so many tokens more, each the likeliest")
        ->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--out", out, "the safetensors file to write")->type_name("FILE");

    return program::run(app, argc, argv, [&] {
        prompt_options.check();
        if (!(temperature > 0) || !std::isfinite(temperature))
            throw program::usage_error(
                fmt::format("--temperature must be > 0 and finite, got {}", temperature));
        models::RunOptions<float> options;
        options.threads = program::whole_number<Index>("--threads", threads, 1, 1024);
        const Index more = program::whole_number<Index>("--generate", generate, 0, 1 << 20);
        try {
            options.normalizer = program::named_normalizer(normalizer, temperature);
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--normalizer: {}", error.what()));
        }
        if (!out.empty()) program::require_output("--out", out, prompt_options.inputs());

        const models::Prompt prompt = prompt_options.read();
        const Model& model = prompt.model;
        const models::Config& config = model.config();
        const Ids& ids = prompt.ids;
        const Index n = static_cast<Index>(ids.size());
        fmt::print("model     {}\n          {}\n", model.parameters().origin(), models::described(config));
        fmt::print("text      {}, {} tokens{}\n", prompt.source, n,
                   n < prompt.available ? fmt::format(" of {}: the rest is left out", prompt.available)
                                        : std::string());

        Captured captured;
        options.loss = n > 1;
        models::RunOptions<float> usual = options; // as the model was trained
        usual.normalizer = attnscope::AnyNormalizer();
        options.weights = keep_weights;
        program::Progress progress("layer", static_cast<std::size_t>(config.layers));
        options.layer = [&](const models::LayerView<float>& layer) {
            if (!out.empty()) captured.take(layer, keep_hidden);
            progress.step();
        };
        const auto begin = std::chrono::steady_clock::now();
        const auto result = model.run<float>(ids, options);
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        if (!out.empty() && keep_hidden)
            Captured::append(captured.hidden, attnscope::MatrixView<float>(result.hidden));
        const std::string used =
            temperature == 1 ? normalizer : fmt::format("{} at temperature {}", normalizer, temperature);
        if (n > 1) {
            const auto line = [](const std::string& name, double loss) {
                fmt::print("loss      {:.4f} nats a token, perplexity {:.4g}, with {}\n", loss, std::exp(loss),
                           name);
            };
            line(used, result.loss);
            if (used != "softmax") line("softmax", model.run<float>(ids, usual).loss);
        }
        fmt::print("time      {:.2f} s, {} thread{}\n", seconds, options.threads,
                   options.threads == 1 ? "" : "s");
        if (more > 0) {
            if (used != "softmax") throw program::usage_error("--generate: only with softmax at temperature 1");
            if (n + more > config.context + 1)
                throw program::usage_error(fmt::format(
                    "--generate: {} tokens and {} more exceed the context of {}", n, more, config.context));
            const Ids longer = models::continue_greedily(model, ids, more, options.threads);
            fmt::print("generated {}\n", fmt::join(longer.begin() + n, longer.end(), " "));
        }
        if (!out.empty()) {
            write(out, captured, config, n, ids, result, model.parameters().origin(), used);
            fmt::print("written   {}\n", out);
        }
    });
}
