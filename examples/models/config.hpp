// What config.json says of a model: the GPT-2 and Llama families.
#pragma once

#include <attnscope/types.hpp>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace models {

using attnscope::Index;

enum class Family { gpt2, llama };
enum class Activation { gelu, gelu_tanh, silu };

/// Rotary position embedding: pair c of a head of width d turns by n f_c at position n, f_c = theta^{-2c/d}
/// times what the scaling makes of it.
struct Rotary {
    enum class Scaling {
        none,
        linear, ///< f_c / factor
        llama3, ///< of Llama 3.1: f_c / factor for wavelengths 2 pi / f_c above original_context / low, f_c for
                ///< those below original_context / high, between them a mean of both, linear in 1 / wavelength
        yarn ///< arXiv:2309.00071: f_c for pairs that turn more than `fast` times in original_context, f_c / factor
             ///< for those that turn less than `slow` times, between them a mean of both, linear in c
    };
    double theta = 10000;
    Scaling scaling = Scaling::none;
    double factor = 1, low = 1, high = 4, original_context = 8192;
    double fast = 32, slow = 1;
    bool whole_ends = true; ///< of yarn: the first and the last c of the mean are rounded outwards
    double length = 1;      ///< of yarn: turned queries and keys are so many times as long

    /// f_c of all pairs.
    std::vector<double> frequencies(Index head_width) const;
};

struct Config {
    Family family = Family::gpt2;
    Index layers = 0, heads = 0, key_heads = 0; ///< key_heads < heads: grouped-query attention
    Index width = 0, head_width = 0, inner = 0; ///< of the residual stream, of a head, of the MLP
    Index context = 0, vocabulary = 0;
    Activation activation = Activation::gelu_tanh;
    double norm_epsilon = 1e-5;
    Rotary rotary;                                 ///< Llama only
    bool has_head = true;                          ///< false: a model that gives no logits of the next token
    bool tied_head = true;                         ///< the output matrix is the embedding
    bool attention_bias = false, mlp_bias = false; ///< Llama only; GPT-2 always has them
    bool scale_by_head_width = true;               ///< logits are divided by sqrt(head_width)
    bool scale_by_layer = false;                   ///< ... and by layer + 1
    std::optional<Index> sliding_window;           ///< each query sees so many keys up to its own ...
    std::vector<bool> full_layers;                 ///< ... but for these layers; empty: in all of them
    std::string normalizer = "softmax";            ///< of attention, as `make_normalizer` names it
    double temperature = 1;                        ///< divides the logits of attention
    std::vector<std::string> unknown_keys;         ///< of config.json: nothing was made of them

    /// Keys up to its own that a query of the layer sees; nothing: all.
    std::optional<Index> window(Index layer) const {
        const bool full = !full_layers.empty() && full_layers[static_cast<std::size_t>(layer)];
        return full ? std::nullopt : sliding_window;
    }
};

/// The factor of q.k in a layer.
inline double logit_scale(const Config& config, Index layer) {
    double scale = config.scale_by_head_width ? 1 / std::sqrt(static_cast<double>(config.head_width)) : 1.0;
    if (config.scale_by_layer) scale /= static_cast<double>(layer + 1);
    return scale;
}

/// Reads the keys that Hugging Face's GPT2Config and LlamaConfig (also Mistral's) write, in the forms of
/// transformers 4 and 5. A key that changes the arithmetic is obeyed or refused, those that change nothing here
/// are passed over, and all others stand in `unknown_keys`: config.cpp has the table.
/// Errors: attnscope::io_error for an unreadable file and broken JSON, else std::runtime_error, one line that
/// names the file, the key, what was expected and what was found: other model types, sizes that are no whole
/// numbers from 1 to 2^40 or do not divide, activations and position scalings that are not supported, two keys
/// that contradict each other.
Config read_config(const std::string& file);

/// Names from a file for one line of a message: at most 20, of at most 100 bytes each.
std::string listed(std::vector<std::string> names);

/// "gpt2" (124M) or "gpt2-medium"; nothing for another name.
std::optional<Config> preset(std::string_view name);

} // namespace models
