// The model and the tokens that a program is asked to run, from its command line.
#pragma once

#include <models/forward.hpp>
#include <models/tokenizer.hpp>
#include <support/memory.hpp>
#include <support/program.hpp>

#include <attnscope/io/file.hpp>

namespace models {

struct Prompt {
    Model model;
    std::vector<std::int32_t> ids;
    std::string source;  ///< where they come from
    Index available = 0; ///< tokens there; the rest is left out
};

/// Adds MODEL, --random-weights, --text, --tokens, --tokenizer, --length and --seed to a program, and reads
/// what they name. `usage_error` for options that do not fit together, and what `Model` and `Tokenizer` throw.
class PromptOptions {
public:
    PromptOptions(CLI::App& app, std::string_view seed_of) {
        app.add_option("MODEL", folder_, "a folder with config.json and model.safetensors (or its parts)")
            ->type_name("FOLDER");
        app.add_option(
            "--random-weights", random_,
            "instead of MODEL: gpt2, gpt2-medium or a config.json, with weights that nobody trained");
        auto* const text = app.add_option("--text", text_, "a file; needs a tokenizer")->type_name("FILE");
        app.add_option("--tokens", tokens_, "a file of token ids separated by white space")
            ->type_name("FILE")
            ->excludes(text);
        app.add_option("--tokenizer", tokenizer_,
                       "the folder of tokenizer.json, or vocab.json and merges.txt [MODEL]")
            ->type_name("FOLDER");
        app.add_option("--length", length_, "tokens to run [what there is, at most 1024 and the context]")
            ->type_name("N");
        app.add_option("--seed", seed_, fmt::format("of {}", seed_of))->capture_default_str();
    }

    /// Refuses what can be refused before any file is opened. random_text: --random-weights may do without a
    /// text and gets random tokens.
    void check(bool random_text = false) {
        if (folder_.empty() == random_.empty())
            throw program::usage_error("MODEL or --random-weights, one of them, must be given");
        if (text_.empty() && tokens_.empty() && !(random_text && !random_.empty()))
            throw program::usage_error("--text or --tokens must be given");
        seed_number_ = static_cast<std::uint64_t>(
            program::whole_number<Index>("--seed", seed_, 0, std::numeric_limits<Index>::max()));
        if (!text_.empty() && tokenizer_.empty() && folder_.empty())
            throw program::usage_error("--text: name the --tokenizer folder");
    }
    std::uint64_t seed() const { return seed_number_; }

    Prompt read() const {
        Prompt prompt{load(), {}, tokens_.empty() ? text_ : tokens_, 0};
        if (!tokens_.empty())
            prompt.ids = parse_ids(attnscope::io::read_file(tokens_), tokens_);
        else if (!text_.empty())
            prompt.ids =
                Tokenizer(tokenizer_.empty() ? folder_ : tokenizer_).encode(attnscope::io::read_file(text_));
        else
            random_ids(prompt);
        if (prompt.available == 0) prompt.available = static_cast<Index>(prompt.ids.size());
        if (prompt.ids.empty())
            throw std::runtime_error(fmt::format("{}: expected tokens, found none", prompt.source));
        cut(prompt);
        return prompt;
    }

    /// The files and folders that are read.
    std::vector<std::string> inputs() const {
        return {folder_, text_, tokens_, tokenizer_, preset(random_) ? std::string() : random_};
    }

private:
    Model load() const {
        if (random_.empty()) return Model::load(folder_);
        const auto known = preset(random_);
        const Config config = known ? *known : read_config(random_);
        program::require_memory(random_, static_cast<double>(sizeof(float)) * largest_part(config));
        return Model(config, std::make_shared<RandomParameters>(config, seed_number_));
    }

    /// As many as a run can take; the context has more.
    void random_ids(Prompt& prompt) const {
        const Config& config = prompt.model.config();
        attnscope::SplitMix64 random(seed_number_);
        const Index wanted = std::min(config.context, length_.empty() ? Index{1024} : length());
        for (Index i = 0; i < wanted; ++i)
            prompt.ids.push_back(static_cast<std::int32_t>(random.below(config.vocabulary)));
        prompt.available = config.context;
        prompt.source = fmt::format("random tokens of seed {}", seed_number_);
    }

    Index length() const {
        return program::whole_number<Index>("--length", length_, 1, std::numeric_limits<Index>::max());
    }

    void cut(Prompt& prompt) const {
        const Index context = prompt.model.config().context;
        Index n = std::min<Index>({1024, context, prompt.available});
        if (!length_.empty()) {
            n = length();
            if (n > context)
                throw program::usage_error(
                    fmt::format("--length: the context of the model is {}, got {}", context, n));
            if (n > prompt.available)
                throw program::usage_error(
                    fmt::format("--length: {} has {} tokens, got {}", prompt.source, prompt.available, n));
        }
        prompt.ids.resize(static_cast<std::size_t>(n));
    }

    std::string folder_, text_, tokens_, tokenizer_, random_, length_, seed_ = "1";
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
