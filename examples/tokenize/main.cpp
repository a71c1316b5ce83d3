// attnscope-tokenize: text to the token ids of GPT-2's tokenizer, and back.

#include <models/tokenizer.hpp>

#include <support/program.hpp>

#include <attnscope/io/file.hpp>

#include <fmt/ranges.h>

int main(int argc, char** argv) {
    CLI::App app("Prints the token ids of a text on one line, or with --decode the text of token ids.",
                 "attnscope-tokenize");
    std::string folder, file;
    bool decode = false, as_text = false;
    app.add_option("FOLDER", folder, "where tokenizer.json, or vocab.json and merges.txt are")->required();
    app.add_option("--text,--tokens", file,
                   "the file to read: a text, whose every byte counts, or with --decode token ids separated by "
                   "white space")
        ->type_name("FILE")
        ->required();
    auto* const back = app.add_flag("--decode", decode, "write the bytes of the ids in FILE, nothing else");
    app.add_flag("--no-special", as_text,
                 "take the names of added tokens, such as <|endoftext|>, in the text for ordinary characters")
        ->excludes(back);
    return program::run(app, argc, argv, [&] {
        const models::Tokenizer tokenizer(folder);
        const std::string content = attnscope::io::read_file(file);
        if (decode) {
            const auto ids = models::parse_ids(content, file);
            std::string text;
            try {
                text = tokenizer.decode(ids);
            } catch (const std::runtime_error& error) {
                throw std::runtime_error(fmt::format("{}: {}", file, error.what()));
            }
            std::fwrite(text.data(), 1, text.size(), stdout);
            return;
        }
        const auto ids = tokenizer.encode(content, as_text ? models::SpecialTokens::as_text
                                                           : models::SpecialTokens::recognize);
        fmt::print("{}\n", fmt::join(ids, " "));
    });
}
