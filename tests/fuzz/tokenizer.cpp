// merges.txt, a zero byte, and a text, with the vocabulary that the merges need; or, where the input begins
// with
// '{', vocab.json, merges.txt and a text. What is encoded and decoded comes back.
#include "fuzz.hpp"

#include <models/tokenizer.hpp>

#include <nlohmann/json.hpp>

#include <stdexcept>

namespace {

/// The names of all bytes, and the whole of every merge.
std::string vocabulary_for(std::string_view merges) {
    nlohmann::json vocabulary = nlohmann::json::object();
    const auto add = [&](const std::string& name) {
        if (!vocabulary.contains(name)) vocabulary[name] = vocabulary.size();
    };
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        const unsigned point = printable ? byte : next++;
        add(point < 0x80
                ? std::string(1, static_cast<char>(point))
                : std::string{static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))});
    }
    for (std::size_t at = 0; at < merges.size();) {
        const std::size_t end = std::min(merges.find('\n', at), merges.size());
        std::string name(merges.substr(at, end - at));
        if (const std::size_t space = name.find(' '); space != name.npos) add(name.erase(space, 1));
        at = end + 1;
    }
    return vocabulary.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace

void fuzz_one(std::string_view input) {
    const auto& folder = fuzz::folder();
    const bool own = input.starts_with('{');
    if (own) folder.write("vocab.json", fuzz::next_part(input));
    const std::string_view merges = fuzz::next_part(input);
    if (!own) folder.write("vocab.json", vocabulary_for(merges));
    folder.write("merges.txt", merges);
    try {
        const models::Tokenizer tokenizer(folder.path());
        for (const auto special : {models::SpecialTokens::recognize, models::SpecialTokens::as_text}) {
            const auto ids = tokenizer.encode(input, special);
            fuzz::require(ids.size() <= input.size(), "a token has a byte at least");
            fuzz::require(tokenizer.decode(ids) == input, "decode(encode(text)) == text");
        }
    } catch (const std::runtime_error& error) {
        fuzz::require_message(error.what(), folder.path());
    }
    try {
        models::parse_ids(input, "ids");
    } catch (const std::runtime_error& error) {
        fuzz::require_message(error.what(), "ids");
    }
}
