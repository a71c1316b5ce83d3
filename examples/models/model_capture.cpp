#include <models/llama_model.hpp>
#include <models/model_capture.hpp>
#include <support/failure.hpp>

#include <fmt/ranges.h>

#include <filesystem>

namespace models {
namespace {

using attnscope::Capture;
using attnscope::HeadSource;
using program::LayerFeed;
using program::LayerTensors;

/// A tensor of the layers of a feed.
HeadSource source_of(const std::shared_ptr<LayerFeed>& feed, std::vector<float> LayerTensors::*tensor,
                     Index heads, Index rows, Index cols) {
    HeadSource source;
    source.layers = feed->layers();
    source.heads = heads;
    source.rows = rows;
    source.cols = cols;
    source.dtype = attnscope::io::Dtype::f32;
    const Index size = heads * rows * cols;
    const auto slice = [feed, tensor, size](auto zero) {
        return [feed, tensor, size](Index first, Index count) {
            const std::shared_ptr<const LayerTensors> layer = feed->layer(first / size);
            const auto begin = ((*layer).*tensor).begin() + first % size;
            return std::vector<decltype(zero)>(begin, begin + count);
        };
    };
    source.read = slice(0.0);
    source.read_floats = slice(0.0F);
    return source;
}

void describe(Capture& capture, const std::string& engine, const Text& text) {
    const Index n = static_cast<Index>(text.ids.size());
    capture.queries = capture.keys = n;
    capture.assumptions.push_back(engine);
    capture.assumptions.push_back(fmt::format(
        "{}, {} tokens{}", attnscope::printable(text.source), n,
        n < text.available ? fmt::format(" of {}: the rest is left out", text.available) : std::string()));
}

/// The bytes of each token. Ids that were given as such need no tokenizer: without a fitting one nothing is told of them.
std::vector<std::string> token_texts(std::optional<Tokenizer>& tokenizer, const std::string& folder,
                                     const std::vector<std::int32_t>& ids) {
    std::vector<std::string> texts;
    try {
        if (!tokenizer) tokenizer.emplace(folder);
        for (const std::int32_t id : ids) texts.push_back(tokenizer->decode({&id, 1}));
    } catch (const std::runtime_error&) {
        texts.clear();
    }
    return texts;
}

Capture run(Model given, const Text& text, std::vector<std::string> texts, Index threads,
            bool with_loss = true) {
    const auto model = std::make_shared<const Model>(std::move(given));
    const Config& config = model->config();
    Capture capture;
    capture.token_texts = std::move(texts);
    capture.name = model->parameters().origin();
    describe(capture, described(config), text);
    for (const std::string& remark : model->remarks()) capture.warnings.push_back(remark);
    capture.layers = config.layers;
    capture.heads = config.heads;
    capture.width = config.head_width;
    for (Index layer = 0; layer < config.layers; ++layer)
        capture.attention.push_back({true, logit_scale(config, layer), config.window(layer).value_or(0),
                                     config.normalizer, config.temperature});
    const auto loss = std::make_shared<double>(std::numeric_limits<double>::quiet_NaN());
    const auto feed =
        std::make_shared<LayerFeed>(config.layers, [=, ids = text.ids](const LayerFeed::Emit& emit) {
            RunOptions<float> run;
            run.threads = threads;
            run.loss = with_loss && ids.size() > 1;
            run.layer = [&](const LayerView<float>& layer) {
                LayerTensors tensors;
                const auto append = [](std::vector<float>& to, const attnscope::MatrixView<float>& m) {
                    for (Index i = 0; i < m.rows(); ++i) to.insert(to.end(), m.row(i).begin(), m.row(i).end());
                };
                const Index group = layer.heads.heads() / layer.heads.key_heads();
                for (Index h = 0; h < layer.heads.heads(); ++h) {
                    append(tensors.q, layer.heads[h].q());
                    if (h % group != 0) continue;
                    append(tensors.k, layer.heads[h].k());
                    append(tensors.v, layer.heads[h].v());
                }
                emit(std::move(tensors));
            };
            *loss = model->run<float>(ids, run).loss;
        });
    capture.q = source_of(feed, &LayerTensors::q, config.heads, capture.queries, config.head_width);
    capture.k = source_of(feed, &LayerTensors::k, config.key_heads, capture.keys, config.head_width);
    capture.v = source_of(feed, &LayerTensors::v, config.key_heads, capture.keys, config.head_width);
    capture.loss = [feed, loss] {
        feed->finish();
        return *loss;
    };
    if (!with_loss) return capture;
    capture.loss_under = [=, ids = text.ids](const attnscope::AnyNormalizer& normalizer) {
        return model->run<float>(ids, {.normalizer = normalizer, .loss = ids.size() > 1, .threads = threads})
            .loss;
    };
    return capture;
}

Capture run_folder(const std::string& folder, const TextOptions& options, Index threads, bool with_loss) {
    options.refuse_layers();
    Model model = Model::load(folder);
    const std::string tokenizer_folder = options.tokenizer().empty() ? folder : options.tokenizer();
    std::optional<Tokenizer> tokenizer;
    if (options.needs_tokenizer()) tokenizer.emplace(tokenizer_folder);
    const Text text = options.read([&](const std::string& bytes) { return tokenizer->encode(bytes); },
                                   model.config().context);
    std::vector<std::string> texts = token_texts(tokenizer, tokenizer_folder, text.ids);
    Capture capture = run(std::move(model), text, std::move(texts), threads, with_loss);
    capture.name = folder;
    return capture;
}

/// What must be the same in all layers to be the tensors of a capture.
std::string shape_of(const LlamaLayer& layer) {
    return fmt::format("{} heads on {} of width {} and {}{}", layer.heads, layer.key_heads, layer.width,
                       layer.value_width, layer.sinks.empty() ? "" : " with sinks");
}

void require_one_shape(const std::string& file, const std::vector<LlamaLayer>& layers) {
    std::vector<std::pair<std::string, std::vector<Index>>> shapes;
    for (const LlamaLayer& layer : layers) {
        const std::string shape = shape_of(layer);
        auto found =
            std::find_if(shapes.begin(), shapes.end(), [&](const auto& s) { return s.first == shape; });
        if (found == shapes.end()) found = shapes.insert(found, {shape, {}});
        found->second.push_back(layer.number);
    }
    if (shapes.size() == 1) return;
    std::string told;
    for (const auto& [shape, numbers] : shapes)
        told += fmt::format("{}layer{} {}: {}", told.empty() ? "" : "; ", numbers.size() == 1 ? "" : "s",
                            fmt::join(numbers, ","), shape);
    program::fail("{}: its layers are of different shapes; choose some of one shape by --model-layers; {}",
                  file, told);
}

/// The layers that were asked for.
std::vector<LlamaLayer> chosen_layers(std::vector<LlamaLayer> layers, const std::vector<Index>& wanted) {
    if (wanted.empty()) return layers;
    std::vector<LlamaLayer> chosen;
    for (const Index number : wanted) {
        const auto found = std::find_if(layers.begin(), layers.end(),
                                        [&](const auto& layer) { return layer.number == number; });
        if (found == layers.end()) {
            std::vector<Index> numbers;
            for (const LlamaLayer& layer : layers) numbers.push_back(layer.number);
            throw program::usage_error(
                fmt::format("--model-layers: layer {} has no attention; those of the model that have are {}",
                            number, fmt::join(numbers, ",")));
        }
        chosen.push_back(std::move(*found));
    }
    return chosen;
}

Capture run_gguf(const std::string& file, const GgufPrompt& prompt, bool check, Index threads,
                 bool with_loss = true) {
    const LlamaLayer& first = prompt.layers[0];
    Capture capture;
    capture.name = file;
    capture.token_texts = prompt.model->texts_of(prompt.text.ids);
    describe(capture, prompt.described(), prompt.text);
    capture.layers = static_cast<Index>(prompt.layers.size());
    capture.heads = first.heads;
    capture.width = first.width;
    capture.attention = prompt.attention();
    capture.sinks = prompt.sinks();
    capture.bias = prompt.bias();
    for (std::string& remark : prompt.remarks()) capture.assumptions.push_back(std::move(remark));
    const auto loss = std::make_shared<double>(std::numeric_limits<double>::quiet_NaN());
    const auto feed = std::make_shared<LayerFeed>(
        capture.layers, [=, model = prompt.model, ids = prompt.text.ids, numbers = prompt.numbers(),
                         loss_wanted = with_loss && prompt.has_loss()](const LayerFeed::Emit& emit) {
            *loss = model->run(
                ids,
                {.weights = check, .loss = loss_wanted, .threads = threads, .layers = numbers, .layer = emit});
        });
    capture.q = source_of(feed, &LayerTensors::q, first.heads, capture.queries, first.width);
    capture.k = source_of(feed, &LayerTensors::k, first.key_heads, capture.keys, first.width);
    capture.v = source_of(feed, &LayerTensors::v, first.key_heads, capture.keys, first.value_width);
    if (check)
        capture.weights = source_of(feed, &LayerTensors::weights, first.heads, capture.queries, capture.keys);
    capture.loss = [feed, loss] {
        feed->finish();
        return *loss;
    };
    return capture;
}

bool is_folder_of_model(const std::string& input) {
    return std::filesystem::exists(std::filesystem::path(input) / "config.json");
}

} // namespace

Capture capture_of(Prompt prompt, const std::string& tokenizer, Index threads) {
    std::optional<Tokenizer> none;
    std::vector<std::string> texts = token_texts(none, tokenizer, prompt.ids);
    return run(std::move(prompt.model), {std::move(prompt.ids), std::move(prompt.source), prompt.available},
               std::move(texts), threads);
}

Capture capture_of_gguf(const std::string& file, GgufPrompt prompt, Index threads) {
    return run_gguf(file, prompt, false, threads);
}

std::string GgufPrompt::described() const {
    const LlamaLayer& first = layers[0];
    return fmt::format("{}, {} layers, {} heads{}, context {}, vocabulary {}; run by llama.cpp",
                       attnscope::printable(model->description()), model->layers(), first.heads,
                       first.key_heads < first.heads ? fmt::format(" on {} key heads", first.key_heads)
                                                     : std::string(),
                       model->context(), model->vocabulary());
}

std::vector<attnscope::LayerAttention> GgufPrompt::attention() const {
    std::vector<attnscope::LayerAttention> attention;
    for (const LlamaLayer& layer : layers)
        attention.push_back(
            {!layer.mask && layer.causal, layer.scale, layer.window,
             layer.softcap != 0 ? fmt::format("softcap:{}|softmax", layer.softcap) : std::string("softmax"),
             1.0});
    return attention;
}

std::vector<double> GgufPrompt::sinks() const {
    std::vector<double> sinks;
    for (const LlamaLayer& layer : layers) sinks.insert(sinks.end(), layer.sinks.begin(), layer.sinks.end());
    return sinks;
}

std::optional<HeadSource> GgufPrompt::bias() const {
    if (std::none_of(layers.begin(), layers.end(),
                     [](const LlamaLayer& layer) { return layer.mask != nullptr; }))
        return {};
    HeadSource source;
    source.layers = static_cast<Index>(layers.size());
    source.heads = layers[0].heads;
    source.rows = source.cols = static_cast<Index>(text.ids.size());
    source.dtype = attnscope::io::Dtype::f32;
    source.read = [own = layers, heads = source.heads, size = source.rows * source.cols](Index begin,
                                                                                         Index count) {
        std::vector<double> values;
        for (Index i = begin; i < begin + count; ++i) {
            const LlamaLayer& layer = own[static_cast<std::size_t>(i / (size * heads))];
            const auto head = static_cast<std::size_t>(i / size % heads);
            values.push_back(layer.mask
                                 ? layer.slopes[layer.slopes.size() == 1 ? 0 : head] *
                                       static_cast<double>((*layer.mask)[static_cast<std::size_t>(i % size)])
                                 : 0.0);
        }
        return values;
    };
    return source;
}

std::vector<Index> GgufPrompt::numbers() const {
    std::vector<Index> numbers;
    for (const LlamaLayer& layer : layers) numbers.push_back(layer.number);
    return numbers;
}

bool GgufPrompt::has_loss() const { return text.ids.size() > 1 && !sees_later; }

std::vector<std::string> GgufPrompt::remarks() const {
    std::vector<std::string> remarks;
    if (std::ssize(layers) < model->layers())
        remarks.push_back(fmt::format("layers {}, numbered from 0 here, are {} of the model",
                                      chosen ? "that were chosen" : "with attention",
                                      fmt::join(numbers(), ", ")));
    if (sees_later)
        remarks.push_back("no loss: queries see keys behind them, so that no token is unknown to the model");
    if (layers[0].latent)
        remarks.push_back(
            "latent attention: queries and keys after absorption, one latent key and value for all heads");
    if (bias()) remarks.push_back("bias: masks and position biases of the model, added to the logits");
    return remarks;
}

GgufPrompt open_gguf(const std::string& file, const TextOptions& options, Index threads) {
    if (!options.tokenizer().empty()) throw program::usage_error("--tokenizer: a GGUF file has its own");
    const std::vector<Index> wanted = options.layers();
    GgufPrompt prompt;
    prompt.model = std::make_shared<const LlamaModel>(file);
    prompt.text = options.read([&](const std::string& bytes) { return prompt.model->encode(bytes); },
                               prompt.model->context());
    std::vector<LlamaLayer> layers = prompt.model->survey(prompt.text.ids, threads);
    const std::size_t all = layers.size();
    prompt.sees_later =
        std::any_of(layers.begin(), layers.end(), [](const auto& layer) { return layer.sees_later; });
    prompt.layers = chosen_layers(std::move(layers), wanted);
    prompt.chosen = prompt.layers.size() < all;
    require_one_shape(file, prompt.layers);
    return prompt;
}

bool is_gguf(const std::string& input) {
    return std::filesystem::is_regular_file(input) && LlamaModel::is_gguf(input);
}

bool is_model(const std::string& input) { return is_folder_of_model(input) || is_gguf(input); }

ModelOptions::ModelOptions(CLI::App& app, std::string length_option, bool tells_loss)
    : text_(app, std::move(length_option)), loss_(tells_loss ? "on" : "off") {
    app.add_option("--check", check_,
                   "of a GGUF model: compare the weights with the model's own; off saves their time and memory")
        ->capture_default_str();
    if (tells_loss)
        app.add_option("--loss", loss_,
                       "of a model: the mean over all tokens of -log p(next token); off saves the time and "
                       "memory of their logits")
            ->capture_default_str();
}

void ModelOptions::check() const {
    for (const auto& [name, value] : {std::pair{"--check", &check_}, {"--loss", &loss_}})
        if (*value != "on" && *value != "off")
            throw program::usage_error(fmt::format("{} must be on or off, got {}", name, *value));
}

Capture ModelOptions::open(const std::vector<std::string>& inputs, std::uint64_t seed,
                           const attnscope::CaptureOptions& options, Index threads) const {
    if (inputs.size() != 1 || !is_model(inputs[0])) {
        if (!text_.any().empty())
            throw program::usage_error(fmt::format(
                "{}: only a model reads a text: INPUT must be a folder with config.json, or a GGUF file{}",
                text_.any(), inputs.size() == 1 ? fmt::format(", got {}", inputs[0]) : std::string()));
        return program::open_capture(inputs, seed, options);
    }
    for (const auto& [name, given] : std::initializer_list<std::pair<const char*, bool>>{
             {"--batch", options.batch.has_value()},
             {"--layout", options.nhd},
             {"--bfloat16", options.bfloat16},
             {"--masked-below", options.masked_below.has_value()},
             {"--normalise-weights", options.normalise_weights},
             {"--scale", options.scale.has_value()},
             {"--window", options.window.has_value()},
             {"--causal, --no-causal", options.causal.has_value()}})
        if (given) throw program::usage_error(fmt::format("{}: the model says how it attends", name));
    if (!text_.given())
        throw program::usage_error(fmt::format("{}: a model needs --text or --tokens to read", inputs[0]));
    return is_folder_of_model(inputs[0]) ? run_folder(inputs[0], text_, threads, loss_ == "on")
                                         : run_gguf(inputs[0], open_gguf(inputs[0], text_, threads),
                                                    check_ == "on", threads, loss_ == "on");
}

} // namespace models
