// Models in GGUF files: llama.cpp evaluates them, and hands out the attention of every layer on the way.
#pragma once

#include <support/layer_feed.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace models {

using attnscope::Index;

/// How a layer of such a model attends, as its graph has it: weights are softmax of
/// softcap tanh(scale q.k / softcap), or of scale q.k without a softcap, with the sink as one more key.
struct LlamaLayer {
    Index number = 0; ///< in the model; layers without attention are left out of what is handed out
    Index heads = 0, key_heads = 0, width = 0, value_width = 0;
    double scale = 1;
    double softcap = 0;        ///< 0: none
    std::vector<double> sinks; ///< a logit for each head; empty: none
    bool causal = false;
    bool sees_later = false; ///< some query sees a key behind it
    Index window = 0;        ///< keys up to its own that a query sees; 0: all, as far as this prompt can tell
    bool latent =
        false; ///< q and k are those of DeepSeek's latent attention: one latent key and value for all heads

    /// What is added to the logits of a head where `causal` and `window` do not say it: slope[head] mask[query, key]
    /// (ALiBi, masks of another form). Else null.
    std::shared_ptr<const std::vector<float>> mask;
    std::vector<double> slopes; ///< of each head, or one for all
};

struct LlamaRun {
    bool weights = true; ///< hand out the model's own weights as well
    bool loss = true;
    bool hidden = false; ///< hand out the residual stream as well
    Index threads = 1;
    std::vector<Index> layers = {};      ///< numbers of those that are handed out, ascending; empty: all
    program::LayerFeed::Emit layer = {}; ///< called for each of them with attention, in order
    std::function<void(std::vector<float>)> last_hidden =
        {}; ///< with the stream after the last layer of the model
};

/// Example: `LlamaModel model("qwen3.gguf"); model.run(model.encode(text), {.layer = take});`
class LlamaModel {
public:
    /// Is the file one of GGUF's? Throws `attnscope::io_error` for a file that cannot be read.
    static bool is_gguf(const std::string& path);
    /// Was this program built with llama.cpp?
    static bool available();

    /// Throws `std::runtime_error` that names the file for one that llama.cpp does not load, for models with an
    /// encoder, and, in a program built without llama.cpp, with what to install.
    explicit LlamaModel(const std::string& file);
    ~LlamaModel();
    LlamaModel(LlamaModel&&) noexcept;
    LlamaModel& operator=(LlamaModel&&) noexcept;

    const std::string& file() const { return file_; }
    std::string description() const; ///< family and storage, as llama.cpp has it
    Index layers() const;            ///< with and without attention
    Index context() const;
    Index vocabulary() const;

    /// By the model's own tokenizer, with the special tokens that it puts in front.
    std::vector<std::int32_t> encode(const std::string& text) const;
    /// The bytes of each token, one of those that stand for something else by its name.
    std::vector<std::string> texts_of(std::span<const std::int32_t> ids) const;

    /// The layers with attention, without evaluating them where the backend can be stopped. Errors: as `run`.
    std::vector<LlamaLayer> survey(std::span<const std::int32_t> ids, Index threads = 1) const;

    /// One pass over all tokens at once. Mean of -log p(next token) in nats, NaN unless asked for, and for a model that
    /// gives no logits (of embeddings, say).
    /// Cost. Memory O(n^2 heads) in llama.cpp.
    /// Errors: std::runtime_error for ids outside the vocabulary, for prompts of another length than 1 to `context`,
    /// and for a graph whose attention is not as expected: the message lists the nodes that were seen; where the residual
    /// stream is asked for, also for one that does not name it. What `layer` throws.
    double run(std::span<const std::int32_t> ids, const LlamaRun& options) const;

private:
    struct State;
    std::string file_;
    std::unique_ptr<State> state_;
};

} // namespace models
