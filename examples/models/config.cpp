#include <models/config.hpp>

#include <support/failure.hpp>
#include <support/named_normalizer.hpp>

#include <attnscope/io/json.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <stdexcept>

namespace models {
namespace {

using Json = nlohmann::json;

/// The keys of one file, with one way to complain.
class Keys {
public:
    explicit Keys(const std::string& file) : file_(file) {
        json_ = attnscope::io::read_json(file);
        if (!json_.is_object()) program::fail("{}: expected a JSON object", file);
    }

    template <class... Values>
    [[noreturn]] void fail(std::string_view key, std::string_view expected) const {
        std::string found = "nothing";
        if (json_.contains(key)) found = at(key).dump(-1, ' ', false, Json::error_handler_t::replace);
        if (found.size() > 100) found = found.substr(0, 100) + "...";
        program::fail("{}: {}: expected {}, found {}", file_, key.substr(0, 100), expected, found);
    }
    const Json& at(std::string_view key) const { return json_.at(std::string(key)); }
    bool has(std::string_view key) const { return json_.contains(key) && !at(key).is_null(); }
    Index size(std::string_view key) const {
        if (!has(key) || !at(key).is_number_integer() || at(key).get<std::int64_t>() <= 0) {
            const bool large = has(key) && at(key).is_number_unsigned() && at(key).get<std::uint64_t>() > 0;
            fail(key, large ? most_text : "a whole number > 0");
        }
        if (at(key).get<std::int64_t>() > most_size) fail(key, most_text);
        return at(key).get<std::int64_t>();
    }
    Index size_or(std::string_view key, Index otherwise) const { return has(key) ? size(key) : otherwise; }
    double positive_or(std::string_view key, double otherwise) const {
        if (!has(key)) return otherwise;
        if (!at(key).is_number() || !(at(key).get<double>() > 0)) fail(key, "a number > 0");
        return at(key).get<double>();
    }
    bool flag_or(std::string_view key, bool otherwise) const {
        if (!has(key)) return otherwise;
        if (!at(key).is_boolean()) fail(key, "true or false");
        return at(key).get<bool>();
    }
    std::string text_or(std::string_view key, std::string_view otherwise) const {
        if (!has(key)) return std::string(otherwise);
        if (!at(key).is_string()) fail(key, "a text");
        return at(key).get<std::string>();
    }
    std::vector<std::string> texts(std::string_view key) const {
        std::vector<std::string> result;
        if (!has(key)) return result;
        if (!at(key).is_array()) fail(key, "a list of texts");
        for (const Json& item : at(key)) {
            if (!item.is_string()) fail(key, "a list of texts");
            result.push_back(item.get<std::string>());
        }
        return result;
    }
    /// The keys of an object that is the value of a key.
    Keys inside(std::string_view key) const {
        if (!at(key).is_object()) fail(key, "an object or null");
        return Keys(fmt::format("{}: {}", file_, key), at(key));
    }
    const Json& json() const { return json_; }

private:
    static constexpr std::int64_t most_size = std::int64_t{1} << 40;
    static constexpr std::string_view most_text = "a size of at most 2^40";

    Keys(std::string file, Json json) : file_(std::move(file)), json_(std::move(json)) {}

    std::string file_;
    Json json_;
};

/// What is known of a key: read by this file; of no effect on a forward pass over given tokens; of effect and
/// not implemented, so that every value but null and the one that changes nothing is refused.
enum class Use { read, harmless, only };

struct KnownKey {
    std::string_view name;
    Use use;
    std::string_view neutral = "null"; ///< JSON of the value that changes nothing
};

constexpr KnownKey common_keys[] = {
    {"model_type", Use::read},
    {"architectures", Use::read},
    {"vocab_size", Use::read},
    {"tie_word_embeddings", Use::read},
    {"attention_normalizer", Use::read},
    {"attention_temperature", Use::read},
    // who wrote it, how it is stored, and training
    {"_name_or_path", Use::harmless},
    {"name_or_path", Use::harmless},
    {"_commit_hash", Use::harmless},
    {"transformers_version", Use::harmless},
    {"torch_dtype", Use::harmless},
    {"dtype", Use::harmless},
    {"torchscript", Use::harmless},
    {"use_bfloat16", Use::harmless},
    {"initializer_range", Use::harmless},
    {"gradient_checkpointing", Use::harmless},
    {"attention_dropout", Use::harmless},
    {"hidden_dropout", Use::harmless},
    {"pretraining_tp", Use::harmless}, // the same products in slices
    {"_attn_implementation", Use::harmless},
    {"_attn_implementation_autoset", Use::harmless},
    {"attn_implementation", Use::harmless},
    {"chunk_size_feed_forward", Use::harmless},
    {"unsloth_version", Use::harmless},
    {"unsloth_fixed", Use::harmless},
    // what callers ask for, and generation
    {"use_cache", Use::harmless},
    {"output_attentions", Use::harmless},
    {"output_hidden_states", Use::harmless},
    {"output_past", Use::harmless},
    {"return_dict", Use::harmless},
    {"task_specific_params", Use::harmless},
    {"problem_type", Use::harmless},
    {"finetuning_task", Use::harmless},
    {"num_labels", Use::harmless},
    {"_num_labels", Use::harmless},
    {"id2label", Use::harmless},
    {"label2id", Use::harmless},
    {"bos_token_id", Use::harmless},
    {"eos_token_id", Use::harmless},
    {"pad_token_id", Use::harmless},
    {"unk_token_id", Use::harmless},
    {"sep_token_id", Use::harmless},
    {"decoder_start_token_id", Use::harmless},
    {"tokenizer_class", Use::harmless},
    {"prefix", Use::harmless},
    {"do_sample", Use::harmless},
    {"max_length", Use::harmless},
    {"min_length", Use::harmless},
    {"num_beams", Use::harmless},
    {"num_return_sequences", Use::harmless},
    {"temperature", Use::harmless},
    {"top_k", Use::harmless},
    {"top_p", Use::harmless},
    {"repetition_penalty", Use::harmless},
    {"length_penalty", Use::harmless},
    {"no_repeat_ngram_size", Use::harmless},
    {"bad_words_ids", Use::harmless},
    {"early_stopping", Use::harmless},
    {"is_decoder", Use::harmless},
    // another computation
    {"quantization_config", Use::only},
    {"compression_config", Use::only},
    {"adapters", Use::only},
    {"pruned_heads", Use::only, "{}"},
    {"is_encoder_decoder", Use::only, "false"},
    {"add_cross_attention", Use::only, "false"},
    {"cross_attention_hidden_size", Use::only},
    {"is_causal", Use::only, "true"},
    {"use_bidirectional_attention", Use::only, "false"},
    {"attn_logit_softcapping", Use::only},
    {"attn_logit_softcap", Use::only},
    {"final_logit_softcapping", Use::only},
    {"logits_soft_cap", Use::only},
    {"query_pre_attn_scalar", Use::only},
    {"attention_multiplier", Use::only},
    {"embedding_multiplier", Use::only, "1"},
    {"residual_multiplier", Use::only, "1"},
    {"logits_scaling", Use::only, "1"},
    {"logit_scale", Use::only, "1"},
    {"scale_emb", Use::only, "1"},
    {"scale_depth", Use::only},
    {"dim_model_base", Use::only},
    {"use_parallel_residual", Use::only, "false"},
    {"parallel_attn", Use::only, "false"},
    {"use_qk_norm", Use::only, "false"},
    {"qk_layernorm", Use::only, "false"},
    {"qk_norm", Use::only, "false"},
    {"clip_qkv", Use::only},
    {"alibi", Use::only, "false"},
    {"attention_sinks", Use::only, "false"},
    {"num_experts", Use::only},
    {"num_local_experts", Use::only},
    {"n_routed_experts", Use::only},
    {"num_experts_per_tok", Use::only},
    {"attention_chunk_size", Use::only},
    {"attn_temperature_tuning", Use::only, "false"},
    {"no_rope_layers", Use::only},
    {"no_rope_layer_interval", Use::only},
    {"position_embedding_type", Use::only},
};

constexpr KnownKey gpt2_keys[] = {
    {"n_layer", Use::read},
    {"n_head", Use::read},
    {"n_embd", Use::read},
    {"n_inner", Use::read},
    {"n_positions", Use::read},
    {"n_ctx", Use::read},
    {"activation_function", Use::read},
    {"layer_norm_epsilon", Use::read},
    {"scale_attn_weights", Use::read},
    {"scale_attn_by_inverse_layer_idx", Use::read},
    {"reorder_and_upcast_attn", Use::harmless}, // against overflow in 16 bits
    {"attn_pdrop", Use::harmless},
    {"embd_pdrop", Use::harmless},
    {"resid_pdrop", Use::harmless},
    {"summary_activation", Use::harmless},
    {"summary_first_dropout", Use::harmless},
    {"summary_proj_to_labels", Use::harmless},
    {"summary_type", Use::harmless},
    {"summary_use_proj", Use::harmless},
    {"n_special", Use::harmless},
    {"predict_special_tokens", Use::harmless},
    {"sliding_window", Use::only},
    {"layer_types", Use::only},
    {"rope_theta", Use::only},
    {"rope_scaling", Use::only},
    {"rope_parameters", Use::only},
};

constexpr KnownKey llama_keys[] = {
    {"num_hidden_layers", Use::read},
    {"num_attention_heads", Use::read},
    {"num_key_value_heads", Use::read},
    {"hidden_size", Use::read},
    {"head_dim", Use::read},
    {"intermediate_size", Use::read},
    {"max_position_embeddings", Use::read},
    {"hidden_act", Use::read},
    {"rms_norm_eps", Use::read},
    {"rope_theta", Use::read},
    {"rope_scaling", Use::read},
    {"rope_parameters", Use::read},
    {"attention_bias", Use::read},
    {"mlp_bias", Use::read},
    {"sliding_window", Use::read},
    {"use_sliding_window", Use::read},
    {"max_window_layers", Use::read},
    {"layer_types", Use::read},
    {"max_sequence_length", Use::harmless},
    {"rope_interleaved", Use::only, "false"},
    {"partial_rotary_factor", Use::only, "1"},
    {"rotary_pct", Use::only, "1"},
    {"rope_local_base_freq", Use::only},
    {"original_max_position_embeddings", Use::only},
};

/// Refuses what is known to change the arithmetic and not implemented; returns what is not known.
std::vector<std::string> check_keys(const Keys& keys, std::span<const KnownKey> own) {
    std::vector<std::string> unknown;
    for (const auto& [name, value] : keys.json().items()) {
        const auto known = [&wanted = name](const KnownKey& key) { return key.name == wanted; };
        const KnownKey* found = std::find_if(std::begin(common_keys), std::end(common_keys), known);
        if (found == std::end(common_keys)) {
            const auto at = std::find_if(own.begin(), own.end(), known);
            found = at == own.end() ? nullptr : &*at;
        }
        if (!found)
            unknown.push_back(name);
        else if (found->use == Use::only && !value.is_null() && value != Json::parse(found->neutral))
            keys.fail(name, fmt::format("{}, for other values are not implemented", found->neutral));
    }
    return unknown;
}

/// a * b; refused above 2^60, so that a few of them can be added.
Index product(const Keys& keys, std::string_view key, Index a, Index b) {
    if (a > (Index{1} << 60) / b)
        keys.fail(key, fmt::format("a size whose product with {} is at most 2^60", b));
    return a * b;
}

/// Every matrix of the model can be counted.
void check_products(const Keys& keys, const Config& config) {
    const bool gpt2 = config.family == Family::gpt2;
    const Index q = product(keys, gpt2 ? "n_head" : "num_attention_heads", config.heads, config.head_width);
    for (const Index size : {q, config.inner, config.vocabulary, config.context})
        (void)product(keys, gpt2 ? "n_embd" : "hidden_size", config.width, size);
}

/// Does a model of this class give logits of the next token? Files that do not say it do.
bool has_head(const Keys& keys) {
    const std::vector<std::string> names = keys.texts("architectures");
    const auto gives_logits = [](const std::string& name) {
        return name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") ||
               name.ends_with("DoubleHeadsModel");
    };
    return names.empty() || std::any_of(names.begin(), names.end(), gives_logits);
}

void read_common(const Keys& keys, Config& config) {
    config.vocabulary = keys.size("vocab_size");
    config.has_head = has_head(keys);
    config.normalizer = keys.text_or("attention_normalizer", "softmax");
    config.temperature = keys.positive_or("attention_temperature", 1);
    try {
        (void)program::named_normalizer(config.normalizer, config.temperature);
    } catch (const attnscope::invalid_argument& error) {
        keys.fail("attention_normalizer", fmt::format("a normaliser ({})", error.what()));
    }
}

/// The scaling that an object of rotary settings describes: the value of rope_scaling or rope_parameters.
Rotary scaling_of(const Keys& keys, Index context) {
    Rotary rotary;
    for (const auto& [name, value] : keys.json().items())
        if (value.is_object())
            keys.fail(name, "a number or text: settings of each layer type are not implemented");
    const std::string type = keys.text_or("rope_type", keys.text_or("type", "default"));
    if (keys.text_or("type", type) != type) keys.fail("type", fmt::format("the same as rope_type = {}", type));

    std::vector<std::string_view> names = {"rope_theta", "rope_type", "type", "partial_rotary_factor"};
    if (keys.has("partial_rotary_factor") && keys.at("partial_rotary_factor") != 1)
        keys.fail("partial_rotary_factor", "1, for other values are not implemented");
    const auto factor = [&] {
        names.push_back("factor");
        if (!keys.has("factor")) keys.fail("factor", fmt::format("a number > 0 for {}", type));
        return keys.positive_or("factor", 1);
    };
    if (type == "default") {
        rotary.scaling = Rotary::Scaling::none;
    } else if (type == "linear") {
        rotary.scaling = Rotary::Scaling::linear;
        rotary.factor = factor();
    } else if (type == "llama3") {
        rotary.scaling = Rotary::Scaling::llama3;
        rotary.factor = factor();
        for (const char* name : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
            names.push_back(name);
            if (!keys.has(name)) keys.fail(name, "a number > 0 for llama3");
        }
        rotary.low = keys.positive_or("low_freq_factor", 1);
        rotary.high = keys.positive_or("high_freq_factor", 4);
        if (!(rotary.high > rotary.low))
            keys.fail("high_freq_factor", fmt::format("a number > low_freq_factor = {}", rotary.low));
        rotary.original_context = keys.positive_or("original_max_position_embeddings", 1);
    } else if (type == "yarn") {
        rotary.scaling = Rotary::Scaling::yarn;
        rotary.factor = factor();
        for (const char* name : {"original_max_position_embeddings", "beta_fast", "beta_slow", "truncate",
                                 "attention_factor", "mscale", "mscale_all_dim"})
            names.push_back(name);
        rotary.original_context =
            keys.positive_or("original_max_position_embeddings", static_cast<double>(context));
        rotary.fast = keys.positive_or("beta_fast", 32);
        rotary.slow = keys.positive_or("beta_slow", 1);
        if (!(rotary.fast > rotary.slow))
            keys.fail("beta_fast", fmt::format("a number > beta_slow = {}", rotary.slow));
        rotary.whole_ends = keys.flag_or("truncate", true);
        // 1 for a factor up to 1, else 1 + 0.1 scale log factor.
        const auto longer = [&](double scale) {
            return 1 + 0.1 * scale * std::log(std::max(1.0, rotary.factor));
        };
        rotary.length =
            keys.has("mscale") && keys.has("mscale_all_dim")
                ? longer(keys.positive_or("mscale", 1)) / longer(keys.positive_or("mscale_all_dim", 1))
                : longer(1);
        rotary.length = keys.positive_or("attention_factor", rotary.length);
    } else {
        keys.fail(keys.has("rope_type") ? "rope_type" : "type",
                  "default, linear, llama3 or yarn, for others are not implemented");
    }
    if (type == "linear" || type == "default") { // some writers repeat the context
        names.push_back("original_max_position_embeddings");
        if (keys.has("original_max_position_embeddings") && type == "default" &&
            keys.size("original_max_position_embeddings") != context)
            keys.fail("original_max_position_embeddings", fmt::format("max_position_embeddings = {}", context));
    }
    for (const auto& [name, value] : keys.json().items())
        if (!value.is_null() && std::find(names.begin(), names.end(), name) == names.end())
            keys.fail(name, fmt::format("no such key beside rope_type {}", type));
    return rotary;
}

bool same_scaling(const Rotary& a, const Rotary& b) {
    const bool has_context = a.scaling == Rotary::Scaling::llama3 || a.scaling == Rotary::Scaling::yarn;
    return a.scaling == b.scaling && (a.scaling == Rotary::Scaling::none || a.factor == b.factor) &&
           (!has_context ||
            (a.low == b.low && a.high == b.high && a.original_context == b.original_context &&
             a.fast == b.fast && a.slow == b.slow && a.whole_ends == b.whole_ends && a.length == b.length));
}

/// rope_theta and rope_scaling of older files, rope_parameters of newer ones; where both speak they must agree.
Rotary rotary_of(const Keys& keys, Index context) {
    Rotary rotary;
    std::optional<double> theta;
    if (keys.has("rope_theta")) theta = keys.positive_or("rope_theta", 0);
    bool scaling_said = false;
    for (const std::string_view place : {"rope_scaling", "rope_parameters"}) {
        if (!keys.has(place)) continue;
        const Keys inside = keys.inside(place);
        if (inside.has("rope_theta")) {
            const double here = inside.positive_or("rope_theta", 0);
            if (theta && here != *theta)
                inside.fail("rope_theta", fmt::format("{}, which another place of the file says", *theta));
            theta = here;
        }
        const Rotary scaling = scaling_of(inside, context);
        if (!inside.has("rope_type") && !inside.has("type")) continue; // theta only
        if (scaling_said && !same_scaling(rotary, scaling))
            keys.fail(place, "the same as rope_scaling, which stands beside it");
        rotary = scaling;
        scaling_said = true;
    }
    rotary.theta = theta.value_or(rotary.theta);
    if (rotary.scaling == Rotary::Scaling::yarn && !(rotary.theta > 1))
        keys.fail("rope_theta", "a number > 1 for yarn");
    return rotary;
}

/// sliding_window and layer_types.
void read_windows(const Keys& keys, bool has_windows, Config& config) {
    const std::vector<std::string> types = keys.texts("layer_types");
    if (keys.has("layer_types")) {
        if (static_cast<Index>(types.size()) != config.layers)
            keys.fail("layer_types", fmt::format("one for each of the {} layers", config.layers));
        for (const std::string& type : types) {
            if (type != "full_attention" && type != "sliding_attention")
                keys.fail("layer_types", "full_attention or sliding_attention");
            config.full_layers.push_back(type == "full_attention");
        }
    }
    const bool all_full = !types.empty() && std::find(config.full_layers.begin(), config.full_layers.end(),
                                                      false) == config.full_layers.end();
    if (!types.empty() && !all_full && !keys.has("sliding_window"))
        keys.fail("sliding_window", "a whole number > 0 for the layers of type sliding_attention");
    if (!keys.has("sliding_window") || all_full) return;
    const Index window = keys.size("sliding_window");
    if (window >= config.context) return; // never in the way
    if (!has_windows) {
        if (types.empty() && !keys.flag_or("use_sliding_window", true)) return;
        keys.fail("sliding_window", "null in a model of type llama, whose attention has no window");
    }
    if (!keys.flag_or("use_sliding_window", true))
        keys.fail("use_sliding_window", fmt::format("true beside sliding_window = {}", window));
    if (keys.has("max_window_layers"))
        keys.fail("max_window_layers", "null beside sliding_window: layer_types says which layers have it");
    config.sliding_window = window;
}

Config gpt2_config(const Keys& keys) {
    Config config;
    config.family = Family::gpt2;
    config.layers = keys.size("n_layer");
    config.heads = config.key_heads = keys.size("n_head");
    config.width = keys.size("n_embd");
    if (config.width % config.heads != 0)
        keys.fail("n_embd", fmt::format("a multiple of n_head = {}", config.heads));
    config.head_width = config.width / config.heads;
    config.inner = keys.size_or("n_inner", product(keys, "n_embd", config.width, 4));
    config.context = keys.has("n_positions") ? keys.size("n_positions") : keys.size("n_ctx");
    read_common(keys, config);
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

Config llama_config(const Keys& keys, bool has_windows) {
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
    read_common(keys, config);
    if (keys.text_or("hidden_act", "silu") != "silu") keys.fail("hidden_act", "silu");
    config.activation = Activation::silu;
    config.norm_epsilon = keys.positive_or("rms_norm_eps", 1e-6);
    config.rotary = rotary_of(keys, config.context);
    config.tied_head = keys.flag_or("tie_word_embeddings", false);
    config.attention_bias = keys.flag_or("attention_bias", false);
    config.mlp_bias = keys.flag_or("mlp_bias", false);
    read_windows(keys, has_windows, config);
    return config;
}

} // namespace

std::vector<double> Rotary::frequencies(Index head_width) const {
    std::vector<double> result;
    // The c of the pair that turns so often in the original context.
    const double d = static_cast<double>(head_width);
    const auto pair_of = [&](double turns) {
        return d * std::log(original_context / (2 * std::numbers::pi * turns)) / (2 * std::log(theta));
    };
    double first = 0, last = 1; // of the mean
    if (scaling == Scaling::yarn) {
        first = std::max(0.0, whole_ends ? std::floor(pair_of(fast)) : pair_of(fast));
        last = std::min(d - 1, whole_ends ? std::ceil(pair_of(slow)) : pair_of(slow));
        if (first == last) last += 0.001; // as everyone has it
    }
    for (Index c = 0; c < head_width / 2; ++c) {
        double f = std::pow(theta, -2.0 * static_cast<double>(c) / static_cast<double>(head_width));
        if (scaling == Scaling::linear) f /= factor;
        if (scaling == Scaling::llama3) {
            const double turns = original_context * f / (2 * std::numbers::pi); // in the original context
            const double share = std::clamp((turns - low) / (high - low), 0.0, 1.0);
            f *= (1 - share) / factor + share;
        }
        if (scaling == Scaling::yarn) {
            const double share = std::clamp((static_cast<double>(c) - first) / (last - first), 0.0, 1.0);
            f *= share / factor + (1 - share);
        }
        result.push_back(f);
    }
    return result;
}

Config read_config(const std::string& file) {
    const Keys keys(file);
    const std::string type = keys.text_or("model_type", "");
    if (type != "gpt2" && type != "llama" && type != "mistral")
        keys.fail("model_type", "gpt2, llama or mistral");
    std::vector<std::string> unknown = check_keys(keys, type == "gpt2" ? std::span<const KnownKey>(gpt2_keys)
                                                                       : std::span<const KnownKey>(llama_keys));
    Config config = type == "gpt2" ? gpt2_config(keys) : llama_config(keys, type == "mistral");
    check_products(keys, config);
    config.unknown_keys = std::move(unknown);
    return config;
}

std::string listed(std::vector<std::string> names) {
    constexpr std::size_t most = 20, longest = 100;
    const std::size_t more = names.size() - std::min(names.size(), most);
    names.resize(names.size() - more);
    for (std::string& name : names)
        if (name.size() > longest) name = name.substr(0, longest) + "...";
    return fmt::format("{}{}", fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
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
