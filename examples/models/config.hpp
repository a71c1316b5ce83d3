// What config.json says of a model: the GPT-2 and Llama families.
#pragma once

#include <attnscope/types.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace models {

using attnscope::Index;

enum class Family { gpt2, llama };
enum class Activation { gelu, gelu_tanh, silu };

struct Config {
    Family family = Family::gpt2;
    Index layers = 0, heads = 0, key_heads = 0; ///< key_heads < heads: grouped-query attention
    Index width = 0, head_width = 0, inner = 0; ///< of the residual stream, of a head, of the MLP
    Index context = 0, vocabulary = 0;
    Activation activation = Activation::gelu_tanh;
    double norm_epsilon = 1e-5;
    double rope_theta = 10000;                     ///< Llama only
    bool tied_head = true;                         ///< the output matrix is the embedding
    bool attention_bias = false, mlp_bias = false; ///< Llama only; GPT-2 always has them
    bool scale_by_head_width = true;               ///< logits are divided by sqrt(head_width)
    bool scale_by_layer = false;                   ///< ... and by layer + 1
    std::optional<Index> sliding_window;           ///< each query sees so many keys up to its own
};

/// Reads the keys that Hugging Face's GPT2Config and LlamaConfig (also Mistral's) write; others are ignored.
/// Errors: attnscope::io_error for an unreadable file and broken JSON, else std::runtime_error, one line that
/// names the file, the key, what was expected and what was found: other model types, sizes that are not whole
/// numbers > 0 or do not divide, activations and position scalings that are not supported.
Config read_config(const std::string& file);

/// "gpt2" (124M) or "gpt2-medium"; nothing for another name.
std::optional<Config> preset(std::string_view name);

} // namespace models
