// attnscope-capture: runs a model on a text and writes its attention to a file that attnscope-report reads.

#include <models/forward.hpp>
#include <models/tokenizer.hpp>
#include <support/program.hpp>

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

Model model_of(const std::string& folder, const std::string& random, std::uint64_t seed) {
    if (random.empty()) return Model::load(folder);
    models::Config config;
    if (const auto known = models::preset(random))
        config = *known;
    else
        config = models::read_config(random);
    return Model(config, std::make_shared<models::RandomParameters>(config, seed));
}

std::string described(const models::Config& config) {
    return fmt::format("{}, {} layers, {} heads{}, width {}, context {}, vocabulary {}",
                       config.family == models::Family::gpt2 ? "GPT-2" : "Llama", config.layers, config.heads,
                       config.key_heads < config.heads ? fmt::format(" on {} key heads", config.key_heads)
                                                       : std::string(),
                       config.width, config.context, config.vocabulary);
}

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
    writer.set_metadata("source", source);
    writer.set_metadata("normalizer", normalizer);
    writer.write(out);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Runs a GPT-2 or Llama model on a text, writes queries, keys and values of every head to a file "
        "that attnscope-report reads, and prints the loss.",
        "attnscope-capture");
    std::string folder, text, tokens, tokenizer_folder, random, length, out, normalizer = "softmax", seed = "1",
                                                                             generate = "0";
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    double temperature = 1;
    bool keep_weights = false, keep_hidden = false;
    app.add_option("MODEL", folder, "a folder with config.json and model.safetensors (or its parts)")
        ->type_name("FOLDER");
    app.add_option("--random-weights", random,
                   "instead of MODEL: gpt2, gpt2-medium or a config.json, with weights that nobody trained");
    auto* const text_option =
        app.add_option("--text", text, "a file; needs vocab.json and merges.txt")->type_name("FILE");
    app.add_option("--tokens", tokens, "a file of token ids separated by white space")
        ->type_name("FILE")
        ->excludes(text_option);
    app.add_option("--tokenizer", tokenizer_folder, "the folder of vocab.json and merges.txt [MODEL]")
        ->type_name("FOLDER");
    app.add_option("--length", length, "tokens to run [what there is, at most 1024 and the context]")
        ->type_name("N");
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
    app.add_option("--seed", seed, "of --random-weights")->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--out", out, "the safetensors file to write")->type_name("FILE");

    return program::run(app, argc, argv, [&] {
        if (folder.empty() == random.empty())
            throw program::usage_error("MODEL or --random-weights, one of them, must be given");
        if (text.empty() && tokens.empty()) throw program::usage_error("--text or --tokens must be given");
        if (!(temperature > 0) || !std::isfinite(temperature))
            throw program::usage_error(
                fmt::format("--temperature must be > 0 and finite, got {}", temperature));
        models::RunOptions<float> options;
        options.threads = program::whole_number<Index>("--threads", threads, 1, 1024);
        const Index more = program::whole_number<Index>("--generate", generate, 0, 1 << 20);
        const Index seed_number =
            program::whole_number<Index>("--seed", seed, 0, std::numeric_limits<Index>::max());
        try {
            options.normalizer = attnscope::make_normalizer(normalizer, temperature);
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--normalizer: {}", error.what()));
        }
        if (!out.empty()) program::require_folder_of(out);

        const Model model = model_of(folder, random, static_cast<std::uint64_t>(seed_number));
        const models::Config& config = model.config();
        Ids ids;
        if (!tokens.empty()) {
            ids = models::parse_ids(models::read_bytes(tokens), tokens);
        } else {
            const std::string from = tokenizer_folder.empty() ? folder : tokenizer_folder;
            if (from.empty()) throw program::usage_error("--text: name the --tokenizer folder");
            ids = models::Tokenizer(from).encode(models::read_bytes(text));
        }
        const std::string source = tokens.empty() ? text : tokens;
        const Index available = static_cast<Index>(ids.size());
        if (available == 0) throw std::runtime_error(fmt::format("{}: expected tokens, found none", source));
        Index n = std::min<Index>({1024, config.context, available});
        if (!length.empty()) {
            n = program::whole_number<Index>("--length", length, 1, std::numeric_limits<Index>::max());
            if (n > config.context)
                throw program::usage_error(
                    fmt::format("--length: the context of the model is {}, got {}", config.context, n));
            if (n > available)
                throw program::usage_error(
                    fmt::format("--length: {} has {} tokens, got {}", source, available, n));
        }
        ids.resize(static_cast<std::size_t>(n));
        fmt::print("model     {}\n          {}\n", model.parameters().origin(), described(config));
        fmt::print("text      {}, {} tokens{}\n", source, n,
                   n < available ? fmt::format(" of {}: the rest is left out", available) : std::string());

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
