// The byte-level BPE tokenizer of GPT-2, from the tokenizer.json or the vocab.json and merges.txt that models
// are published with.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace models {

/// What the name of an added token such as `<|endoftext|>` in a text means: that one token, or characters like
/// any others.
enum class SpecialTokens { recognize, as_text };

/// A tokenizer: text is split into words, a word's bytes are single tokens at first, and neighbours are merged
/// by rank, all occurrences of the pair of least rank at a time, until no pair of neighbours has a rank.
/// Objects are immutable: several threads may share one.
///
/// Words are the matches of
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// where \s is Unicode's White_Space, as in Python's module `regex` and the Rust tokenizers: U+0085 and U+00A0
/// count, U+001C to U+001F, U+180E, U+200B and U+FEFF do not (JavaScript's \s leaves out U+0085 and takes
/// U+FEFF, PCRE2's takes U+180E). Letters and numbers are those of the Unicode version that PCRE2 was built
/// with; a code point assigned later than that is a symbol here.
///
/// Any bytes are a text. Each byte that is not part of well-formed UTF-8 (surrogates and overlong forms are
/// not well-formed) counts as a symbol where words are split and keeps its value. The reference
/// implementations take text that was decoded already, where each such byte has become U+FFFD, a symbol too:
/// the words are the same, but theirs hold the bytes EF BF BD. Here decode(encode(text)) == text always.
///
/// Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2, and the
/// encoder published with it; Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword
/// Units" (2016), algorithm 1.
class Tokenizer {
public:
    using Id = std::int32_t;

    /// Reads tokenizer.json of `folder` if it is there, else vocab.json and merges.txt. merges.txt may be
    /// empty, then every byte is a token. A tokenizer.json that splits, normalises or frames text in another
    /// way than GPT-2 is refused, as are a vocab.json or merges.txt beside it that hold something else, and a
    /// tokenizer_config.json that asks for a prefix space, for begin and end tokens, or (without a
    /// tokenizer.json) for another class. Added tokens are recognized wherever their names stand in a text.
    /// Errors: attnscope::io_error for a file that cannot be read and for broken JSON, else std::runtime_error,
    /// one line that names file, item, what was expected and what was found: what is said above, no JSON object
    /// of whole numbers from 0, an id used twice, a name with characters outside the byte alphabet, a byte
    /// without a token, a line of merges.txt that is not two symbols, one that is there twice, one whose parts
    /// or whole the vocabulary lacks.
    explicit Tokenizer(const std::string& folder);

    /// The ids of `text`; none for the empty text. With `recognize`, as Hugging Face's tokenizers do by
    /// default, each name of an added token (`<|endoftext|>` if the vocabulary has it, and what tokenizer.json
    /// or tokenizer_config.json adds) is one id, the longest of those that begin first, and what lies between
    /// is split on its own. Time O(n log n) for n bytes whatever they are, linear for ordinary text, whose
    /// words repeat.
    std::vector<Id> encode(std::string_view text, SpecialTokens special = SpecialTokens::recognize) const;

    /// The bytes of the tokens, one after the other: UTF-8 only if the text was.
    /// Errors: std::runtime_error for an id that the vocabulary lacks, naming its position.
    std::string decode(std::span<const Id> ids) const;

    /// Number of tokens.
    std::size_t size() const { return bytes_of_.size(); }
    /// The id of `<|endoftext|>`, if there is one.
    std::optional<Id> end_of_text() const { return end_of_text_; }

private:
    struct Merge {
        std::uint32_t rank;
        Id whole;
    };

    static std::uint64_t key(Id left, Id right) {
        return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
    }
    /// A token whose name in a text stands for it as a whole.
    struct Added {
        std::string name;
        Id id;
    };
    using Ids = std::unordered_map<std::string, Id>; ///< by bytes
    void read_one_file(const std::string& folder);
    void read_settings(const std::string& file, bool alone);
    void read_added(const nlohmann::json& token, const nlohmann::json& id, const std::string& file);
    void read_vocabulary(const nlohmann::json& vocabulary, Ids& ids);
    void read_merge_lines(const std::string& content, const Ids& ids);
    void place_added();
    void append_words(std::string_view text, std::vector<Id>& out) const;
    void append_word(std::string_view word, std::vector<Id>& out) const;

    std::string vocabulary_file_, merges_file_;
    std::unordered_map<Id, std::string> bytes_of_;
    std::unordered_map<std::uint64_t, Merge> merges_;
    Id byte_ids_[256] = {};
    std::vector<Added> added_;
    std::optional<Id> end_of_text_;
};

/// Token ids written in decimal and separated by ASCII white space; none for a blank text. `file` is its name
/// in messages.
/// Errors: std::runtime_error naming file, position and word of what is no whole number from 0 to 2^31-1.
std::vector<Tokenizer::Id> parse_ids(std::string_view text, const std::string& file);

} // namespace models
