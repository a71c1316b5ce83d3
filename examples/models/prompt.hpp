// The model and the tokens that a program is asked to run, from its command line.
#pragma once

#include <models/forward.hpp>
#include <models/tokenizer.hpp>
#include <support/memory.hpp>
#include <support/program.hpp>

#include <attnscope/io/file.hpp>

namespace models {

/// The tokens of a prompt.
struct Text {
    std::vector<std::int32_t> ids;
    std::string source;  ///< where they come from
    Index available = 0; ///< tokens there; the rest is left out
};

/// Adds --text, --tokens, --tokenizer, --length and --model-layers to a program, and reads what they name. `usage_error` for options
/// that do not fit together, and what `Tokenizer` throws.
class TextOptions {
public:
    explicit TextOptions(CLI::App& app, std::string length_option = "--length")
        : length_option_(std::move(length_option)) {
        auto* const text = app.add_option("--text", text_, "a file that the model reads; needs a tokenizer")
                               ->type_name("FILE");
        app.add_option("--tokens", tokens_, "a file of token ids separated by white space")
            ->type_name("FILE")
            ->excludes(text);
        app.add_option("--tokenizer", tokenizer_,
                       "the folder of tokenizer.json, or vocab.json and merges.txt [MODEL]")
            ->type_name("FOLDER");
        app.add_option(length_option_, length_, "tokens to run [what there is, at most 1024 and the context]")
            ->type_name("N");
        app.add_option(
               "--model-layers", layers_,
               "of a GGUF file, those whose heads are wanted, such as 0,3-5; needed where not all are of "
               "one shape [all with attention]")
            ->type_name("LIST");
    }

    bool given() const { return !text_.empty() || !tokens_.empty(); }
    /// The first of these options that was given, or nothing.
    std::string_view any() const {
        return !text_.empty()        ? "--text"
               : !tokens_.empty()    ? "--tokens"
               : !tokenizer_.empty() ? "--tokenizer"
               : !length_.empty()    ? std::string_view(length_option_)
               : !layers_.empty()    ? "--model-layers"
                                     : "";
    }
    bool needs_tokenizer() const { return !text_.empty(); }
    const std::string& tokenizer() const { return tokenizer_; }
    std::vector<std::string> inputs() const { return {text_, tokens_, tokenizer_}; }
    /// Numbers of layers of the model, ascending; empty: all.
    std::vector<Index> layers() const {
        if (layers_.empty()) return {};
        std::vector<Index> list = program::number_list("--model-layers", layers_);
        std::sort(list.begin(), list.end());
        list.erase(std::unique(list.begin(), list.end()), list.end());
        return list;
    }
    /// Of a folder, whose layers are all of one shape.
    void refuse_layers() const {
        if (!layers_.empty())
            throw program::usage_error("--model-layers: chooses layers of a GGUF file, and this is none");
    }

    /// encode: ids of a text.
    template <class Encode>
    Text read(const Encode& encode, Index context) const {
        Text text{{}, tokens_.empty() ? text_ : tokens_, 0};
        text.ids = tokens_.empty() ? encode(attnscope::io::read_file(text_))
                                   : parse_ids(attnscope::io::read_file(tokens_), tokens_);
        text.available = static_cast<Index>(text.ids.size());
        if (text.ids.empty())
            throw std::runtime_error(fmt::format("{}: expected tokens, found none", text.source));
        cut(text, context);
        return text;
    }
    /// As many random tokens as a run can take; the context has more.
    Text random(std::uint64_t seed, Index vocabulary, Index context) const {
        Text text{{}, fmt::format("random tokens of seed {}", seed), context};
        attnscope::SplitMix64 random(seed);
        const Index wanted = std::min(context, length_.empty() ? Index{1024} : length());
        for (Index i = 0; i < wanted; ++i)
            text.ids.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
        cut(text, context);
        return text;
    }

private:
    Index length() const {
        return program::whole_number<Index>(length_option_, length_, 1, std::numeric_limits<Index>::max());
    }
    void cut(Text& text, Index context) const {
        Index n = std::min<Index>({1024, context, text.available});
        if (!length_.empty()) {
            n = length();
            if (n > context)
                throw program::usage_error(
                    fmt::format("{}: the context of the model is {}, got {}", length_option_, context, n));
            if (n > text.available)
                throw program::usage_error(fmt::format("{}: {} has {} tokens, got {}", length_option_,
                                                       text.source, text.available, n));
        }
        text.ids.resize(static_cast<std::size_t>(n));
    }

    std::string length_option_, text_, tokens_, tokenizer_, length_, layers_;
};

struct Prompt {
    Model model;
    std::vector<std::int32_t> ids;
    std::string source;  ///< where they come from
    Index available = 0; ///< tokens there; the rest is left out
};

/// Adds MODEL, --random-weights, the options of `TextOptions` and --seed to a program, and reads what they name.
/// `usage_error` for options that do not fit together, and what `Model` and `Tokenizer` throw.
class PromptOptions {
public:
    PromptOptions(CLI::App& app, std::string_view seed_of) : text_(with_model(app)) {
        app.add_option("--seed", seed_, fmt::format("of {}", seed_of))->capture_default_str();
    }

    /// Refuses what can be refused before any file is opened. random_text: --random-weights may do without a
    /// text and gets random tokens.
    void check(bool random_text = false) {
        if (folder_.empty() == random_.empty())
            throw program::usage_error("MODEL or --random-weights, one of them, must be given");
        if (!text_.given() && !(random_text && !random_.empty()))
            throw program::usage_error("--text or --tokens must be given");
        seed_number_ = static_cast<std::uint64_t>(
            program::whole_number<Index>("--seed", seed_, 0, std::numeric_limits<Index>::max()));
        if (text_.needs_tokenizer() && text_.tokenizer().empty() && folder_.empty())
            throw program::usage_error("--text: name the --tokenizer folder");
    }
    std::uint64_t seed() const { return seed_number_; }

    /// The MODEL, and the options of its text, for whoever runs it in another way.
    const std::string& folder() const { return folder_; }
    const TextOptions& text() const { return text_; }

    Prompt read() const {
        text_.refuse_layers();
        Model model = load();
        const Config& config = model.config();
        const auto encode = [&](const std::string& text) {
            return Tokenizer(text_.tokenizer().empty() ? folder_ : text_.tokenizer()).encode(text);
        };
        Text text = text_.given() ? text_.read(encode, config.context)
                                  : text_.random(seed_number_, config.vocabulary, config.context);
        return {std::move(model), std::move(text.ids), std::move(text.source), text.available};
    }

    /// The files and folders that are read.
    std::vector<std::string> inputs() const {
        std::vector<std::string> inputs = text_.inputs();
        inputs.push_back(folder_);
        if (!preset(random_)) inputs.push_back(random_);
        return inputs;
    }

private:
    CLI::App& with_model(CLI::App& app) {
        app.add_option("MODEL", folder_,
                       "a folder with config.json and model.safetensors (or its parts), or a GGUF file")
            ->type_name("MODEL");
        app.add_option(
            "--random-weights", random_,
            "instead of MODEL: gpt2, gpt2-medium or a config.json, with weights that nobody trained");
        return app;
    }
    Model load() const {
        if (random_.empty()) return Model::load(folder_);
        const auto known = preset(random_);
        const Config config = known ? *known : read_config(random_);
        program::require_memory(random_, static_cast<double>(sizeof(float)) * largest_part(config));
        return Model(config, std::make_shared<RandomParameters>(config, seed_number_));
    }

    std::string folder_, random_, seed_ = "1"; // before text_, whose options stand behind theirs
    TextOptions text_;
    std::uint64_t seed_number_ = 1;
};

/// One line about a model's shape.
inline std::string described(const Config& config) {
    return fmt::format("{}, {} layers, {} heads{}, width {}, context {}, vocabulary {}",
                       config.family == Family::gpt2 ? "GPT-2" : "Llama", config.layers, config.heads,
                       config.key_heads < config.heads ? fmt::format(" on {} key heads", config.key_heads)
                                                       : std::string(),
                       config.width, config.context, config.vocabulary);
}

} // namespace models
