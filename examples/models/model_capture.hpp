// The heads of a model that runs while they are read, in place of a file of heads.
#pragma once

#include <models/llama_model.hpp>
#include <models/prompt.hpp>
#include <support/capture.hpp>

namespace models {

/// Adds the options of `TextOptions`, --check and --loss to a program whose INPUT may be a model.
class ModelOptions {
public:
    /// length_option: what limits the tokens of the text is called. tells_loss: without it there is no --loss, and a loss
    /// is never made.
    explicit ModelOptions(CLI::App& app, std::string length_option = "--length", bool tells_loss = true);

    /// Refuses what can be refused before a model is opened.
    void check() const;
    /// Files and folders that are read beside the input.
    std::vector<std::string> inputs() const { return text_.inputs(); }

    /// `open_capture`, and also the heads of a model: one input that is a folder with config.json, which our own pass runs,
    /// or a GGUF file, which llama.cpp runs, on --text or --tokens. The model runs while its heads are read, once for each
    /// time that they are read in order, with `threads`; the text of that run, the layers, softcaps, sinks and masks that
    /// the model has, and the loss, unless --loss is off, are told by the capture. Of a GGUF file the capture has the model's
    /// own weights, unless --check is off.
    /// Memory. One layer at a time.
    /// Throws. As `open_capture`; `usage_error` for a model without a text, for a text without a model, and for options
    /// of captures that say how a model attends; what `Model`, `LlamaModel` and `Tokenizer` throw.
    attnscope::Capture open(const std::vector<std::string>& inputs, std::uint64_t seed,
                            const attnscope::CaptureOptions& options, Index threads) const;

private:
    TextOptions text_;
    std::string check_ = "on", loss_ = "on";
};

/// The heads of a prompt's model on its tokens, as `ModelOptions::open` gives those of a folder. tokenizer: a folder; where
/// there is none, nothing is told of the tokens' text.
attnscope::Capture capture_of(Prompt prompt, const std::string& tokenizer, Index threads);
/// Is it a GGUF file? False for what is no file.
bool is_gguf(const std::string& input);
/// Is it a folder with config.json or a GGUF file?
bool is_model(const std::string& input);

/// A GGUF file and what it reads.
struct GgufPrompt {
    std::shared_ptr<const LlamaModel> model;
    Text text;
    std::vector<LlamaLayer> layers;     ///< with attention and wanted, all of one shape
    bool chosen = false;                ///< some layers that have attention are not among them
    bool sees_later = false;            ///< in some layer of the model a query sees a key behind it
    std::vector<Index> numbers() const; ///< of the layers in the model
    bool has_loss() const;              ///< whether its logits are of a token that it has not seen

    std::string described() const; ///< one line about its shape
    /// How its layers attend; those with a mask of their own form as if every query saw every key.
    std::vector<attnscope::LayerAttention> attention() const;
    std::vector<double> sinks() const; ///< [layers, heads]; empty: none
    /// [layers, heads, queries, keys] of what is added to the logits; nothing if `attention` says it all.
    std::optional<attnscope::HeadSource> bias() const;
    /// What one must know of these layers, a line each.
    std::vector<std::string> remarks() const;
};

/// Throws `usage_error` for a --tokenizer and for --model-layers that have no attention, `std::runtime_error` for layers of
/// different shapes, and what `LlamaModel` throws.
GgufPrompt open_gguf(const std::string& file, const TextOptions& options, Index threads);
/// Its heads, without the model's own weights.
attnscope::Capture capture_of_gguf(const std::string& file, GgufPrompt prompt, Index threads);

} // namespace models
