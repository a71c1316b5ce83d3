#include <models/tokenizer.hpp>

#include <support/failure.hpp>

#include <attnscope/io/file.hpp>
#include <attnscope/io/json.hpp>

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <memory>
#include <queue>
#include <stdexcept>
#include <utility>

namespace models {
namespace {

constexpr std::string_view end_of_text_name = "<|endoftext|>";

using program::fail;

/// At most 40 bytes of what a file holds, quoted.
std::string excerpt(std::string_view text) {
    return fmt::format("'{}{}'", text.substr(0, 40), text.size() > 40 ? "..." : "");
}

/// `text` with U+0001 (a symbol to the pattern) for every byte that is not part of well-formed UTF-8: valid
/// UTF-8 of the same length.
std::string patched(std::string_view text) {
    std::string result(text);
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = attnscope::utf8_length(text.substr(at));
        if (length == 0) result[at] = '\x01';
        at += std::max<std::size_t>(length, 1);
    }
    return result;
}

/// The pattern that splits text into words, compiled once.
const pcre2_code* word_pattern() {
    static const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
        [] {
            const std::string space =
                R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
            const std::string pattern =
                fmt::format(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{0}\p{{L}}\p{{N}}]+)"
                            R"(|[{0}]+(?![^{0}])|[{0}]+)",
                            space);
            int error = 0;
            PCRE2_SIZE offset = 0;
            pcre2_code* compiled =
                pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL, &error, &offset, nullptr);
            if (!compiled) fail("PCRE2 refuses the tokenizer's pattern at {}: error {}", offset, error);
            pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); // without it matching is slower, not different
            return compiled;
        }(),
        &pcre2_code_free);
    return code.get();
}

/// The byte alphabet: byte -> the code point that stands for it in vocab.json and merges.txt. Printable
/// Latin-1 stands for itself, the other bytes in order for U+0100 and on.
std::array<unsigned, 256> byte_alphabet() {
    std::array<unsigned, 256> points{};
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
        const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        points[b] = printable ? b : next++;
    }
    return points;
}

/// The UTF-8 of a code point below U+0800.
std::string utf8(unsigned point) {
    if (point < 0x80) return {static_cast<char>(point)};
    return {static_cast<char>(0xC0U | point >> 6), static_cast<char>(0x80U | (point & 0x3FU))};
}

/// Name of a token in the byte alphabet -> its bytes; nothing if a character is not in the alphabet.
std::optional<std::string> bytes_of_name(std::string_view name) {
    static const std::unordered_map<std::string, char> bytes = [] {
        std::unordered_map<std::string, char> result;
        const auto points = byte_alphabet();
        for (unsigned b = 0; b < 256; ++b) result.emplace(utf8(points[b]), static_cast<char>(b));
        return result;
    }();
    std::string result;
    while (!name.empty()) {
        const auto found = bytes.find(std::string(name.substr(0, attnscope::utf8_length(name))));
        if (found == bytes.end()) return std::nullopt;
        result += found->second;
        name.remove_prefix(found->first.size());
    }
    return result;
}

} // namespace

std::vector<Tokenizer::Id> parse_ids(std::string_view text, const std::string& file) {
    constexpr std::string_view white = " \t\n\v\f\r";
    std::vector<Tokenizer::Id> ids;
    for (std::size_t at = text.find_first_not_of(white); at != text.npos;) {
        const std::size_t end = std::min(text.find_first_of(white, at), text.size());
        const std::string_view word = text.substr(at, end - at);
        Tokenizer::Id id = 0;
        const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
        if (error != std::errc{} || stop != word.data() + word.size() || id < 0 || word.front() == '-')
            fail("{}: token {}: expected a whole number from 0 to {}, found {}", file, ids.size() + 1,
                 std::numeric_limits<Tokenizer::Id>::max(), excerpt(word));
        ids.push_back(id);
        at = text.find_first_not_of(white, end);
    }
    return ids;
}

namespace {

using Json = nlohmann::json;

std::string shown(const Json& value) {
    return excerpt(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// null for a member that is not there.
const Json& member(const Json& object, std::string_view name) {
    static const Json nothing;
    const auto found = object.find(std::string(name));
    return found == object.end() ? nothing : *found;
}

/// Is it absent, or one of these?
bool is_one_of(const Json& value, std::initializer_list<Json> values) {
    return value.is_null() || std::find(values.begin(), values.end(), value) != values.end();
}

/// Refuses a tokenizer.json whose ids are not those of GPT-2's way to split and merge.
void require_gpt2(const Json& file, const std::string& path) {
    const auto refuse = [&](std::string_view item, std::string_view expected, const Json& found) {
        fail(
            "{}: {}: expected {}, found {}: only GPT-2's way is implemented, give ids of other tokenizers with "
            "--tokens",
            path, item, expected, shown(found));
    };
    if (!file.is_object()) fail("{}: expected a JSON object, found: {}", path, file.type_name());
    const Json& model = member(file, "model");
    if (!model.is_object()) refuse("model", "an object", model);
    if (!is_one_of(member(model, "type"), {"BPE"})) refuse("model.type", "BPE", member(model, "type"));
    for (const char* name : {"dropout", "byte_fallback", "ignore_merges"})
        if (!is_one_of(member(model, name), {false, 0}))
            refuse(fmt::format("model.{}", name), "null or false", member(model, name));
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
        if (!is_one_of(member(model, name), {""}))
            refuse(fmt::format("model.{}", name), "null or an empty text", member(model, name));
    for (const char* name : {"normalizer", "truncation", "padding"})
        if (!member(file, name).is_null()) refuse(name, "null", member(file, name));

    const Json* splitter = &member(file, "pre_tokenizer");
    if (splitter->is_object() && member(*splitter, "type") == "Sequence" &&
        member(*splitter, "pretokenizers").is_array() && member(*splitter, "pretokenizers").size() == 1)
        splitter = &member(*splitter, "pretokenizers").front();
    if (!splitter->is_object() || member(*splitter, "type") != "ByteLevel" ||
        member(*splitter, "add_prefix_space") != false || !is_one_of(member(*splitter, "use_regex"), {true}))
        refuse("pre_tokenizer", "ByteLevel without a prefix space", *splitter);

    // What may stand behind: offsets only, or a template of the text alone.
    const Json& frame = member(file, "post_processor");
    const auto plain = [&] {
        if (frame.is_null()) return true;
        if (!frame.is_object()) return false;
        if (member(frame, "type") == "ByteLevel") return true;
        const Json& single = member(frame, "single");
        return member(frame, "type") == "TemplateProcessing" && single.is_array() && single.size() == 1 &&
               single.front().is_object() && single.front().contains("Sequence");
    };
    if (!plain()) refuse("post_processor", "null or ByteLevel: no tokens before or behind the text", frame);
}

} // namespace

Tokenizer::Tokenizer(const std::string& folder)
    : vocabulary_file_(folder + "/vocab.json"), merges_file_(folder + "/merges.txt") {
    const bool one_file = std::filesystem::exists(folder + "/tokenizer.json");
    const std::string settings = folder + "/tokenizer_config.json";
    if (std::filesystem::exists(settings)) read_settings(settings, !one_file);
    if (one_file) {
        read_one_file(folder);
        return;
    }
    Ids ids;
    const Json vocabulary = attnscope::io::read_json(vocabulary_file_);
    if (vocabulary.is_object() && vocabulary.contains(end_of_text_name))
        read_added(end_of_text_name, vocabulary.at(std::string(end_of_text_name)), vocabulary_file_);
    read_vocabulary(vocabulary, ids);
    read_merge_lines(attnscope::io::read_file(merges_file_), ids);
    place_added();
}

void Tokenizer::read_one_file(const std::string& folder) {
    const std::string file = folder + "/tokenizer.json", names = std::exchange(vocabulary_file_, file),
                      lines = std::exchange(merges_file_, file);
    const Json json = attnscope::io::read_json(file);
    require_gpt2(json, file);
    const Json& added = member(json, "added_tokens");
    if (!added.is_null() && !added.is_array()) fail("{}: added_tokens: expected a list", file);
    for (const Json& token : added) read_added(token, token.is_object() ? member(token, "id") : Json(), file);

    Ids ids;
    const Json& vocabulary = member(member(json, "model"), "vocab");
    read_vocabulary(vocabulary, ids);
    const Json& merges = member(member(json, "model"), "merges");
    if (!merges.is_array()) fail("{}: model.merges: expected a list, found: {}", file, merges.type_name());
    std::string as_lines; // the same merges as merges.txt writes them
    for (const Json& merge : merges) {
        std::string line;
        if (merge.is_string())
            line = merge.get<std::string>();
        else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
            line = merge[0].get<std::string>() + ' ' + merge[1].get<std::string>();
        else
            fail("{}: model.merges: expected texts or pairs of texts, found {}", file, shown(merge));
        as_lines += line + '\n';
    }
    read_merge_lines(as_lines, ids);
    place_added();

    // Older programs read the two files beside it: they must say the same.
    if (std::filesystem::exists(names)) {
        Json other = attnscope::io::read_json(names), own = vocabulary;
        if (other.is_object())
            for (const Added& token : added_) other.erase(token.name), own.erase(token.name);
        if (other != own) fail("{}: expected the vocabulary of {} beside it, found another", names, file);
    }
    if (std::filesystem::exists(lines)) {
        Tokenizer other(*this);
        other.merges_.clear();
        other.merges_file_ = lines;
        other.read_merge_lines(attnscope::io::read_file(lines), ids);
        const auto same = [&](const auto& entry) {
            const auto found = other.merges_.find(entry.first);
            return found != other.merges_.end() && found->second.rank == entry.second.rank;
        };
        if (merges_.size() != other.merges_.size() || !std::all_of(merges_.begin(), merges_.end(), same))
            fail("{}: expected the merges of {} beside it, found others", lines, file);
    }
}

void Tokenizer::read_settings(const std::string& file, bool alone) {
    const Json json = attnscope::io::read_json(file);
    if (!json.is_object()) fail("{}: expected a JSON object, found: {}", file, json.type_name());
    for (const char* name : {"add_prefix_space", "add_bos_token", "add_eos_token"})
        if (!is_one_of(member(json, name), {false}))
            fail("{}: {}: expected null or false, found {}: not implemented, give ids with --tokens", file,
                 name, shown(member(json, name)));
    if (!alone) return;
    const Json& kind = member(json, "tokenizer_class");
    if (!is_one_of(kind, {"GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast"}))
        fail(
            "{}: tokenizer_class: expected GPT2Tokenizer, found {}: give ids of other tokenizers with --tokens",
            file, shown(kind));
    const Json& added = member(json, "added_tokens_decoder");
    if (!added.is_null() && !added.is_object()) fail("{}: added_tokens_decoder: expected an object", file);
    for (const auto& [id, token] : added.items()) {
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
        const bool whole = error == std::errc{} && end == id.data() + id.size();
        read_added(token, whole ? Json(number) : Json(id), file);
    }
}

void Tokenizer::read_added(const Json& token, const Json& id, const std::string& file) {
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Id>::max());
    const Json& name = token.is_object() ? member(token, "content") : token;
    if (!name.is_string() || name.get_ref<const std::string&>().empty())
        fail("{}: added token: expected a name, found {}", file, shown(name));
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > most)
        fail("{}: token {}: expected an id from 0 to {}, found {}", file, shown(name), most, shown(id));
    if (token.is_object())
        for (const char* flag : {"single_word", "lstrip", "rstrip"})
            if (!is_one_of(member(token, flag), {false}))
                fail(
                    "{}: added token {}: {}: expected false, found {}: not implemented, give ids with --tokens",
                    file, shown(name), flag, shown(member(token, flag)));
    const Added added{name.get<std::string>(), id.get<Id>()};
    for (const Added& other : added_) {
        if (other.name == added.name && other.id == added.id) return;
        if (other.name == added.name || other.id == added.id)
            fail("{}: added token {}: expected a name and an id of its own, found {} once more", file,
                 shown(name), other.name == added.name ? "the name" : "the id");
    }
    added_.push_back(added);
}

void Tokenizer::read_vocabulary(const Json& vocabulary, Ids& ids) {
    if (!vocabulary.is_object())
        fail("{}: expected a JSON object, found: {}", vocabulary_file_, vocabulary.type_name());
    for (const auto& [name, value] : vocabulary.items()) {
        constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Id>::max());
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most)
            fail("{}: token {}: expected an id from 0 to {}, found {}", vocabulary_file_, excerpt(name), most,
                 shown(value));
        const Id id = value.get<Id>();
        const auto added = std::find_if(added_.begin(), added_.end(),
                                        [&wanted = name](const Added& token) { return token.name == wanted; });
        if (added != added_.end()) {
            if (added->id != id)
                fail("{}: token {}: expected the id {} of the added token, found {}", vocabulary_file_,
                     excerpt(name), added->id, id);
            continue; // `place_added` has its bytes
        }
        const auto bytes = bytes_of_name(name);
        if (!bytes || bytes->empty())
            fail("{}: token {}: expected characters of the byte alphabet, found others or none",
                 vocabulary_file_, excerpt(name));
        if (!bytes_of_.emplace(id, *bytes).second)
            fail("{}: token {}: expected an id of its own, found {} once more", vocabulary_file_, excerpt(name),
                 id);
        ids.emplace(*bytes, id);
    }
    const auto points = byte_alphabet();
    for (unsigned b = 0; b < 256; ++b) {
        const auto found = ids.find(std::string(1, static_cast<char>(b)));
        if (found == ids.end())
            fail("{}: token '{}': expected one for every byte, found none for byte 0x{:02X}", vocabulary_file_,
                 utf8(points[b]), b);
        byte_ids_[b] = found->second;
    }
}

void Tokenizer::place_added() {
    for (const Added& token : added_) {
        if (!bytes_of_.emplace(token.id, token.name).second)
            fail("{}: added token {}: expected an id of its own, found {} once more", vocabulary_file_,
                 excerpt(token.name), token.id);
        if (token.name == end_of_text_name) end_of_text_ = token.id;
    }
    // The longest of those that begin at one place is the one that is meant.
    std::sort(added_.begin(), added_.end(),
              [](const Added& a, const Added& b) { return a.name.size() > b.name.size(); });
}

void Tokenizer::read_merge_lines(const std::string& content, const Ids& ids) {
    std::string_view rest = content;
    for (std::size_t number = 1; !rest.empty(); ++number) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        std::string_view line = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (number == 1 && line.starts_with("#version")) continue;
        if (line.empty() && rest.empty()) continue;

        const std::size_t space = std::min(line.find(' '), line.size());
        const auto left = bytes_of_name(line.substr(0, space));
        const auto right = bytes_of_name(line.substr(std::min(space + 1, line.size())));
        if (!left || !right || left->empty() || right->empty())
            fail("{}: line {}: expected two symbols of the byte alphabet with a space between, found {}",
                 merges_file_, number, excerpt(line));
        const auto id = [&](const std::string& bytes, std::string_view what) {
            const auto found = ids.find(bytes);
            if (found == ids.end())
                fail("{}: line {}: expected the {} of {} in {}, found no such token", merges_file_, number,
                     what, excerpt(line), vocabulary_file_);
            return found->second;
        };
        const Id first = id(*left, "left part"), second = id(*right, "right part");
        const Merge merge{static_cast<std::uint32_t>(merges_.size()), id(*left + *right, "whole")};
        if (!merges_.emplace(key(first, second), merge).second)
            fail("{}: line {}: expected every pair once, found {} again", merges_file_, number, excerpt(line));
    }
}

std::vector<Tokenizer::Id> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
    std::vector<Id> ids;
    if (special == SpecialTokens::as_text || added_.empty()) {
        append_words(text, ids);
        return ids;
    }
    std::vector<std::size_t> next(added_.size(), 0); // where each name stands next, npos: nowhere
    std::size_t at = 0;
    while (true) {
        std::size_t first = text.npos, which = 0;
        for (std::size_t i = 0; i < added_.size(); ++i) {
            if (next[i] != text.npos && (next[i] < at || at == 0)) next[i] = text.find(added_[i].name, at);
            if (next[i] < first) first = next[i], which = i;
        }
        append_words(text.substr(at, first - at), ids);
        if (first == text.npos) return ids;
        ids.push_back(added_[which].id);
        at = first + added_[which].name.size();
    }
}

void Tokenizer::append_words(std::string_view text, std::vector<Id>& out) const {
    if (text.empty()) return; // no part with an address for PCRE2
    const std::string subject = patched(text);
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
        pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
    if (!match) throw std::bad_alloc();
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(match.get());

    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen; // word -> its ids in out
    for (std::size_t at = 0; at < text.size();) {
        const int found =
            pcre2_match(word_pattern(), reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), at,
                        PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, match.get(), nullptr);
        if (found < 0) fail("PCRE2 cannot split the text at byte {}: error {}", at, found);
        const std::string_view word = text.substr(at, bounds[1] - at);
        at = bounds[1];

        const auto [entry, fresh] = seen.try_emplace(word, out.size(), std::size_t{0});
        auto& [from, count] = entry->second;
        if (fresh) {
            append_word(word, out);
            count = out.size() - from;
        } else {
            for (std::size_t i = 0; i < count; ++i) out.push_back(Id{out[from + i]});
        }
    }
}

void Tokenizer::append_word(std::string_view word, std::vector<Id>& out) const {
    // A list of symbols linked both ways by position; a symbol that was merged into its left neighbour is dead.
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    constexpr Id dead = -1;
    struct Symbol {
        Id id;
        std::size_t before, after;
    };
    struct Candidate {
        std::uint32_t rank;
        std::size_t at; ///< position of the left part
        Id left, right, whole;
    };
    const std::size_t n = word.size();
    std::vector<Symbol> symbols(n);
    for (std::size_t i = 0; i < n; ++i)
        symbols[i] = {byte_ids_[static_cast<unsigned char>(word[i])], i == 0 ? none : i - 1,
                      i + 1 == n ? none : i + 1};

    const auto later = [](const Candidate& a, const Candidate& b) {
        return std::pair(a.rank, a.at) > std::pair(b.rank, b.at);
    };
    std::vector<Candidate> found;
    const auto consider = [&](std::size_t at) {
        if (at == none || symbols[at].after == none) return;
        const Id left = symbols[at].id, right = symbols[symbols[at].after].id;
        const auto merge = merges_.find(key(left, right));
        if (merge != merges_.end()) found.push_back({merge->second.rank, at, left, right, merge->second.whole});
    };
    for (std::size_t i = 0; i + 1 < n; ++i) consider(i);
    std::priority_queue candidates(later, std::exchange(found, {}));

    while (!candidates.empty()) {
        // Pairs that arise meanwhile wait until all occurrences of this one are merged, as the rule says.
        const std::uint32_t rank = candidates.top().rank;
        while (!candidates.empty() && candidates.top().rank == rank) {
            const Candidate c = candidates.top();
            candidates.pop();
            Symbol& left = symbols[c.at];
            if (left.id != c.left || left.after == none || symbols[left.after].id != c.right) continue; // gone
            Symbol& right = symbols[left.after];
            left.id = c.whole;
            left.after = right.after;
            right.id = dead;
            if (left.after != none) symbols[left.after].before = c.at;
            consider(left.before);
            consider(c.at);
        }
        for (const Candidate& c : found) candidates.push(c);
        found.clear();
    }
    for (std::size_t i = 0; i != none && i < n; i = symbols[i].after) out.push_back(symbols[i].id);
}

std::string Tokenizer::decode(std::span<const Id> ids) const {
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto found = bytes_of_.find(ids[i]);
        if (found == bytes_of_.end())
            fail("token {}: expected an id of the {} in {}, found {}", i + 1, bytes_of_.size(),
                 vocabulary_file_, ids[i]);
        text += found->second;
    }
    return text;
}

} // namespace models
