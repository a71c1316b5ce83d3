#include <models/config.hpp>

#include <attnscope/io/json.hpp>

#include <fmt/format.h>

#include <stdexcept>

namespace models {
namespace {

using Json = nlohmann::json;

/// The keys of one file, with one way to complain.
class Keys {
public:
    explicit Keys(const std::string& file) : file_(file) {
        json_ = attnscope::io::read_json(file);
        if (!json_.is_object()) throw std::runtime_error(fmt::format("{}: expected a JSON object", file));
    }

    template <class... Values>
    [[noreturn]] void fail(std::string_view key, std::string_view expected) const {
        const std::string found = json_.contains(key) ? json_.at(std::string(key)).dump() : "nothing";
        throw std::runtime_error(fmt::format("{}: {}: expected {}, found {}", file_, key, expected, found));
    }
    bool has(std::string_view key) const {
        return json_.contains(key) && !json_.at(std::string(key)).is_null();
    }
    Index size(std::string_view key) const {
        if (!has(key) || !json_.at(std::string(key)).is_number_integer() ||
            json_.at(std::string(key)).get<std::int64_t>() <= 0)
            fail(key, "a whole number > 0");
        return json_.at(std::string(key)).get<std::int64_t>();
    }
    Index size_or(std::string_view key, Index otherwise) const { return has(key) ? size(key) : otherwise; }
    double positive_or(std::string_view key, double otherwise) const {
        if (!has(key)) return otherwise;
        if (!json_.at(std::string(key)).is_number() || !(json_.at(std::string(key)).get<double>() > 0))
            fail(key, "a number > 0");
        return json_.at(std::string(key)).get<double>();
    }
    bool flag_or(std::string_view key, bool otherwise) const {
        if (!has(key)) return otherwise;
        if (!json_.at(std::string(key)).is_boolean()) fail(key, "true or false");
        return json_.at(std::string(key)).get<bool>();
    }
    std::string text_or(std::string_view key, std::string_view otherwise) const {
        if (!has(key)) return std::string(otherwise);
        if (!json_.at(std::string(key)).is_string()) fail(key, "a text");
        return json_.at(std::string(key)).get<std::string>();
    }

private:
    std::string file_;
    Json json_;
};

Config gpt2_config(const Keys& keys) {
    Config config;
    config.family = Family::gpt2;
    config.layers = keys.size("n_layer");
    config.heads = config.key_heads = keys.size("n_head");
    config.width = keys.size("n_embd");
    if (config.width % config.heads != 0)
        keys.fail("n_embd", fmt::format("a multiple of n_head = {}", config.heads));
    config.head_width = config.width / config.heads;
    config.inner = keys.size_or("n_inner", 4 * config.width);
    config.context = keys.has("n_positions") ? keys.size("n_positions") : keys.size("n_ctx");
    config.vocabulary = keys.size("vocab_size");
    const std::string activation = keys.text_or("activation_function", "gelu_new");
    if (activation == "gelu")
        config.activation = Activation::gelu;
    else if (activation == "gelu_new" || activation == "gelu_pytorch_tanh")
        config.activation = Activation::gelu_tanh;
    else
        keys.fail("activation_function", "gelu, gelu_new or gelu_pytorch_tanh");
    config.norm_epsilon = keys.positive_or("layer_norm_epsilon", 1e-5);
    config.tied_head = keys.flag_or("tie_word_embeddings", true);
    config.scale_by_head_width = keys.flag_or("scale_attn_weights", true);
    config.scale_by_layer = keys.flag_or("scale_attn_by_inverse_layer_idx", false);
    return config;
}

Config llama_config(const Keys& keys) {
    Config config;
    config.family = Family::llama;
    config.layers = keys.size("num_hidden_layers");
    config.heads = keys.size("num_attention_heads");
    config.key_heads = keys.size_or("num_key_value_heads", config.heads);
    if (config.heads % config.key_heads != 0)
        keys.fail("num_key_value_heads", fmt::format("a divisor of num_attention_heads = {}", config.heads));
    config.width = keys.size("hidden_size");
    if (!keys.has("head_dim") && config.width % config.heads != 0)
        keys.fail("hidden_size", fmt::format("a multiple of num_attention_heads = {}", config.heads));
    config.head_width = keys.size_or("head_dim", config.width / config.heads);
    if (config.head_width % 2 != 0) keys.fail("head_dim", "an even number: rotary embedding turns pairs");
    config.inner = keys.size("intermediate_size");
    config.context = keys.size("max_position_embeddings");
    config.vocabulary = keys.size("vocab_size");
    if (keys.text_or("hidden_act", "silu") != "silu") keys.fail("hidden_act", "silu");
    config.activation = Activation::silu;
    config.norm_epsilon = keys.positive_or("rms_norm_eps", 1e-6);
    config.rope_theta = keys.positive_or("rope_theta", 10000);
    if (keys.has("rope_scaling")) keys.fail("rope_scaling", "null: scaled rotary embeddings are not supported");
    config.tied_head = keys.flag_or("tie_word_embeddings", false);
    config.attention_bias = keys.flag_or("attention_bias", false);
    config.mlp_bias = keys.flag_or("mlp_bias", false);
    if (keys.has("sliding_window")) config.sliding_window = keys.size("sliding_window");
    return config;
}

} // namespace

Config read_config(const std::string& file) {
    const Keys keys(file);
    const std::string type = keys.text_or("model_type", "");
    if (type == "gpt2") return gpt2_config(keys);
    if (type == "llama" || type == "mistral") return llama_config(keys);
    keys.fail("model_type", "gpt2, llama or mistral");
}

std::optional<Config> preset(std::string_view name) {
    Config config;
    config.context = 1024;
    config.vocabulary = 50257;
    if (name == "gpt2")
        config.layers = config.heads = 12, config.width = 768;
    else if (name == "gpt2-medium")
        config.layers = 24, config.heads = 16, config.width = 1024;
    else
        return std::nullopt;
    config.key_heads = config.heads;
    config.head_width = config.width / config.heads;
    config.inner = 4 * config.width;
    return config;
}

} // namespace models
