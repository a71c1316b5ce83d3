// attnscope-capture: runs a model on a text and writes its attention to a file that attnscope-report reads.

#include <attnscope/io/safetensors.hpp>
#include <models/model_capture.hpp>
#include <support/named_normalizer.hpp>

#include <fmt/ranges.h>

#include <thread>

namespace {

using attnscope::HeadView;
using attnscope::Index;
using attnscope::Matrix;
using attnscope::printable;
using models::Model;
using Ids = std::vector<std::int32_t>;

/// What the hook collects, in the order of the tensors.
struct Captured {
    std::vector<float> q, k, v, weights, hidden;

    void take(const program::LayerTensors& layer) {
        for (const auto& [to, from] : {std::pair{&q, &layer.q},
                                       {&k, &layer.k},
                                       {&v, &layer.v},
                                       {&weights, &layer.weights},
                                       {&hidden, &layer.hidden}})
            to->insert(to->end(), from->begin(), from->end());
    }
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

std::span<const float> span_of(const std::vector<float>& numbers) { return numbers; }

/// What both kinds of models have. key_heads, value_width: of the captured k and v.
void add_heads(attnscope::io::SafetensorsWriter& writer, const Captured& captured, Index layers, Index heads,
               Index key_heads, Index n, Index width, Index value_width) {
    writer.add("q", span_of(captured.q), {layers, heads, n, width});
    writer.add("k", span_of(captured.k), {layers, key_heads, n, width});
    writer.add("v", span_of(captured.v), {layers, key_heads, n, value_width});
    if (!captured.weights.empty()) writer.add("weights", span_of(captured.weights), {layers, heads, n, n});
}

void write(attnscope::io::SafetensorsWriter& writer, const std::string& out, const Ids& ids,
           const std::vector<attnscope::LayerAttention>& attention, const std::string& source) {
    const std::vector<std::int64_t> wide(ids.begin(), ids.end());
    writer.add("token_ids", std::span<const std::int64_t>(wide), {std::ssize(wide)});
    for (const auto& [key, value] : attnscope::attention_metadata(attention)) writer.set_metadata(key, value);
    writer.set_metadata("source", printable(source)); // metadata are UTF-8
    writer.write(out);
}

void write(const std::string& out, const Captured& captured, const models::Config& config, Index n,
           const Ids& ids, const models::RunResult<float>& result, const std::string& source,
           const std::string& normalizer, double temperature) {
    attnscope::io::SafetensorsWriter writer;
    const Index layers = config.layers, heads = config.heads, d = config.head_width;
    add_heads(writer, captured, layers, heads, heads, n, d, d);
    if (!captured.hidden.empty()) writer.add("hidden", span_of(captured.hidden), {layers + 1, n, config.width});
    if (config.has_head)
        writer.add("logits_last",
                   std::span<const float>(result.logits_last.data(),
                                          static_cast<std::size_t>(result.logits_last.size())),
                   {config.vocabulary});
    std::vector<attnscope::LayerAttention> attention;
    for (Index layer = 0; layer < layers; ++layer)
        attention.push_back(
            {true, logit_scale(config, layer), config.window(layer).value_or(0), normalizer, temperature});
    write(writer, out, ids, attention, source);
}

void print_text(const std::string& source, Index n, Index available) {
    fmt::print("text      {}, {} tokens{}\n", printable(source), n,
               n < available ? fmt::format(" of {}: the rest is left out", available) : std::string());
}

void print_loss(double loss, const std::string& with) {
    fmt::print("loss      {:.4f} nats a token, perplexity {:.4g}, with {}\n", loss, std::exp(loss), with);
}

/// Memory of what is collected, before it is.
void require_memory(double layers, double heads, double n, double width, bool weights) {
    program::require_memory("--out", layers * heads * n * (width + (weights ? n : 0)) *
                                         static_cast<double>(sizeof(float)));
}

/// By llama.cpp, as the model is.
void capture_gguf(const models::PromptOptions& options, const std::string& out, bool keep_weights,
                  bool keep_hidden, Index threads) {
    const models::GgufPrompt prompt = models::open_gguf(options.folder(), options.text(), threads);
    const models::LlamaLayer& first = prompt.layers[0];
    const Index layers = std::ssize(prompt.layers), n = std::ssize(prompt.text.ids);
    fmt::print("model     {}\n          {}\n", printable(prompt.model->file()), prompt.described());
    for (const std::string& remark : prompt.remarks()) fmt::print("          {}\n", remark);
    print_text(prompt.text.source, n, prompt.text.available);
    if (!out.empty())
        require_memory(static_cast<double>(layers), static_cast<double>(first.heads), static_cast<double>(n),
                       static_cast<double>(2 * first.width + first.value_width), keep_weights);
    Captured captured;
    program::Progress progress("layer", static_cast<std::size_t>(layers));
    const auto begin = std::chrono::steady_clock::now();
    const double loss = prompt.model->run(
        prompt.text.ids, {.weights = keep_weights,
                          .loss = prompt.has_loss(),
                          .hidden = keep_hidden && !out.empty(),
                          .threads = threads,
                          .layers = prompt.numbers(),
                          .layer =
                              [&](const program::LayerTensors& layer) {
                                  if (!out.empty()) captured.take(layer);
                                  progress.step();
                              },
                          .last_hidden =
                              [&](const std::vector<float>& stream) {
                                  captured.hidden.insert(captured.hidden.end(), stream.begin(), stream.end());
                              }});
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (!std::isnan(loss))
        print_loss(loss, "the model's own attention");
    else if (n > 1)
        fmt::print("loss      none: the model predicts no next token\n");
    fmt::print("time      {:.2f} s, {} thread{}\n", seconds, threads, threads == 1 ? "" : "s");
    if (out.empty()) return;
    attnscope::io::SafetensorsWriter writer;
    add_heads(writer, captured, layers, first.heads, first.key_heads, n, first.width, first.value_width);
    if (!captured.hidden.empty())
        writer.add("hidden", span_of(captured.hidden),
                   {layers + 1, n, std::ssize(captured.hidden) / ((layers + 1) * n)});
    const std::vector<double> sinks = prompt.sinks();
    if (!sinks.empty()) writer.add("sinks", std::span<const double>(sinks), {layers, first.heads});
    std::vector<double> bias;
    if (const auto source = prompt.bias()) {
        bias = source->read(0, layers * first.heads * n * n);
        writer.add("bias", std::span<const double>(bias), {layers, first.heads, n, n});
    }
    write(writer, out, prompt.text.ids, prompt.attention(), prompt.model->file());
    fmt::print("written   {}\n", printable(out));
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app("Runs a model (a GPT-2 or Llama folder, a GGUF file) on a text, writes queries, keys and "
                 "values of every head to a file "
                 "that attnscope-report reads, and prints the loss.",
                 "attnscope-capture");
    std::string out, normalizer, generate = "0";
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    std::optional<double> temperature;
    bool keep_weights = false, keep_hidden = false;
    models::PromptOptions prompt_options(app, "--random-weights");
    app.add_flag("--weights", keep_weights, "also write the attention weights");
    app.add_flag("--hidden", keep_hidden,
                 "also write the residual stream before every layer and after the last");
    app.add_option("--normalizer", normalizer,
                   "in place of the model's own, such as ssmax:0.43 or entmax:1.5; prints the loss of both "
                   "[the one in config.json, else softmax]");
    app.add_option("--temperature", temperature,
                   "divides the logits of attention [the one in config.json, else 1]");
    app.add_option("--generate", generate, "print so many tokens more, each the likeliest")
        ->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--out", out, "the safetensors file to write")->type_name("FILE");

    return program::run(app, argc, argv, [&] {
        prompt_options.check();
        if (temperature && (!(*temperature > 0) || !std::isfinite(*temperature)))
            throw program::usage_error(
                fmt::format("--temperature must be > 0 and finite, got {}", *temperature));
        models::RunOptions<float> options;
        options.threads = program::whole_number<Index>("--threads", threads, 1, 1024);
        const Index more = program::whole_number<Index>("--generate", generate, 0, 1 << 20);
        const auto named = [&](const std::string& name, double t) {
            try {
                return program::named_normalizer(name, t);
            } catch (const attnscope::invalid_argument& error) {
                throw program::usage_error(fmt::format("--normalizer: {}", error.what()));
            }
        };
        if (normalizer == "model") normalizer.clear();
        if (!normalizer.empty()) (void)named(normalizer, temperature.value_or(1)); // before the model is read
        program::require_outputs({{"--out", out}}, prompt_options.inputs());

        if (models::is_gguf(prompt_options.folder())) {
            for (const auto& [name, given] :
                 std::initializer_list<std::pair<const char*, bool>>{{"--normalizer", !normalizer.empty()},
                                                                     {"--temperature", temperature.has_value()},
                                                                     {"--generate", more > 0}})
                if (given)
                    throw program::usage_error(fmt::format("{}: llama.cpp runs a GGUF model as it is", name));
            return capture_gguf(prompt_options, out, keep_weights, keep_hidden, options.threads);
        }
        const models::Prompt prompt = prompt_options.read();
        const Model& model = prompt.model;
        const models::Config& config = model.config();
        const Ids& ids = prompt.ids;
        const Index n = static_cast<Index>(ids.size());
        for (const std::string& remark : model.remarks()) program::warn(app.get_name(), remark);
        fmt::print("model     {}\n          {}\n", printable(model.parameters().origin()),
                   models::described(config));
        print_text(prompt.source, n, prompt.available);

        Captured captured;
        if (!out.empty())
            require_memory(static_cast<double>(config.layers), static_cast<double>(config.heads),
                           static_cast<double>(n), static_cast<double>(3 * config.head_width), keep_weights);
        options.loss = n > 1;
        const models::RunOptions<float> usual = options; // as the model was trained
        const std::string name = normalizer.empty() ? config.normalizer : normalizer;
        const double divisor = temperature.value_or(normalizer.empty() ? config.temperature : 1);
        options.normalizer = named(name, divisor);
        const auto described = [](const std::string& what, double t) {
            return t == 1 ? what : fmt::format("{} at temperature {}", what, t);
        };
        const std::string used = described(name, divisor),
                          own = described(config.normalizer, config.temperature);
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
        if (!config.has_head) {
            fmt::print("loss      none: config.json names an architecture without a head\n");
        } else if (n > 1) {
            print_loss(result.loss, used);
            if (used != own) print_loss(model.run<float>(ids, usual).loss, own);
        }
        fmt::print("time      {:.2f} s, {} thread{}\n", seconds, options.threads,
                   options.threads == 1 ? "" : "s");
        if (more > 0) {
            if (used != own)
                throw program::usage_error(fmt::format("--generate: only with the model's own {}", own));
            if (n + more > config.context + 1)
                throw program::usage_error(fmt::format(
                    "--generate: {} tokens and {} more exceed the context of {}", n, more, config.context));
            const Ids longer = models::continue_greedily(model, ids, more, options.threads);
            fmt::print("generated {}\n", fmt::join(longer.begin() + n, longer.end(), " "));
        }
        if (!out.empty()) {
            write(out, captured, config, n, ids, result, model.parameters().origin(), name, divisor);
            fmt::print("written   {}\n", printable(out));
        }
    });
}
