// GPT-2's tokenizer against encodings of an independent implementation, a plain merger of its own, and broken
// folders.
#include <models/tokenizer.hpp>
#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/file.hpp>
#include <attnscope/random.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <iostream>

using attnscope_test::TemporaryFolder;
using Catch::Matchers::ContainsSubstring;
using models::SpecialTokens;
using models::Tokenizer;
using Json = nlohmann::json;

namespace {

/// GPT-2's folder, or "" after saying so.
std::string gpt2_folder() {
    const std::string folder = attnscope_test::data_folder() + "/gpt2-tokenizer";
    if (std::filesystem::exists(folder + "/vocab.json")) return folder;
    std::cout << "attnscope test skipped: there is no " << folder << '\n';
    return "";
}

std::string bytes_of(const std::string& hex) {
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
}

std::string random_bytes(attnscope::SplitMix64& random, std::size_t size, bool text) {
    static const std::vector<std::string> pieces = {" ",  "  ", "\n", "a", "the",  "é",
                                                    "中", "😀", "'s", "1", "\xff", "!"};
    std::string bytes;
    while (bytes.size() < size)
        if (text)
            bytes +=
                pieces[static_cast<std::size_t>(random.below(static_cast<attnscope::Index>(pieces.size())))];
        else
            bytes += static_cast<char>(random.below(256));
    return bytes;
}

/// The byte alphabet, written independently: printable Latin-1 stands for itself, the others follow from
/// U+0100.
std::string name_of_byte(int byte) {
    int point = byte;
    if (!((byte > 32 && byte < 127) || (byte > 160 && byte != 173))) {
        point = 256;
        for (int b = 0; b < byte; ++b) point += !((b > 32 && b < 127) || (b > 160 && b != 173));
    }
    if (point < 128) return std::string(1, static_cast<char>(point));
    return {static_cast<char>(0xC0 + point / 64), static_cast<char>(0x80 + point % 64)};
}

/// A vocabulary of all bytes and the wholes of `merges`, and those merges.
void write_vocabulary(const TemporaryFolder& folder,
                      const std::vector<std::pair<std::string, std::string>>& merges) {
    Json vocabulary;
    for (int b = 0; b < 256; ++b) vocabulary[name_of_byte(b)] = b;
    std::string lines = "#version: 0.2\n";
    int id = 256;
    for (const auto& [left, right] : merges) {
        vocabulary[left + right] = id++;
        lines += left + " " + right + "\n";
    }
    folder.write("vocab.json", vocabulary.dump());
    folder.write("merges.txt", lines);
}

std::string refusal(const std::string& folder) {
    try {
        const Tokenizer tokenizer(folder);
    } catch (const std::exception& error) {
        const std::string message = error.what();
        CHECK(message.find('\n') == std::string::npos);
        CHECK_THAT(message, ContainsSubstring(folder));
        return message;
    }
    return "nothing is refused";
}

} // namespace

TEST_CASE("encodings of an independent implementation", "[models][tokenizer]") {
    const std::string folder = gpt2_folder();
    if (folder.empty()) return;
    const Tokenizer tokenizer(folder);
    CHECK(tokenizer.size() == 50257);
    std::ifstream file(attnscope_test::source_folder() + "/tests/reference/tokenizer_encodings.json");
    const Json table = Json::parse(file);
    REQUIRE(table.size() > 50);
    for (const Json& entry : table) {
        CAPTURE(entry.at("name").get<std::string>());
        const std::string unit = bytes_of(entry.at("hex"));
        std::string text;
        for (int i = 0; i < entry.at("repeat").get<int>(); ++i) text += unit;
        const auto special =
            entry.at("recognize").get<bool>() ? SpecialTokens::recognize : SpecialTokens::as_text;
        const auto ids = tokenizer.encode(text, special);
        CHECK(ids == entry.at("ids").get<std::vector<Tokenizer::Id>>());
        CHECK(tokenizer.decode(ids) == text);
    }
}

TEST_CASE("every text comes back", "[models][tokenizer]") {
    const std::string folder = gpt2_folder();
    if (folder.empty()) return;
    const Tokenizer tokenizer(folder);
    std::size_t texts = 0;
    for (const auto& entry : std::filesystem::directory_iterator(attnscope_test::data_folder() + "/text")) {
        const std::string text = attnscope::io::read_file(entry.path().string());
        const auto ids = tokenizer.encode(text);
        CHECK(ids.size() > text.size() / 6);
        CHECK(ids.size() < text.size() / 2); // it does merge
        CHECK(tokenizer.decode(ids) == text);
        ++texts;
    }
    CHECK(texts >= 2);
    const std::uint64_t seed =
        static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    attnscope::SplitMix64 random(seed);
    INFO("seed " << seed);
    bool same = true;
    for (int i = 0; i < 300; ++i) {
        const std::string text = random_bytes(random, static_cast<std::size_t>(random.below(400)), i % 2 == 0);
        for (const auto special : {SpecialTokens::recognize, SpecialTokens::as_text})
            same = same && tokenizer.decode(tokenizer.encode(text, special)) == text;
    }
    CHECK(same);
    // A quadratic merger would take minutes over one word of a million letters.
    const std::string run(1'000'000, 'a');
    CHECK(tokenizer.decode(tokenizer.encode(run)) == run);
}

TEST_CASE("a small vocabulary merges by rank, leftmost first", "[models][tokenizer]") {
    const TemporaryFolder folder;
    // Ġ is a space. Rank decides, not length: "abc" becomes a + bc.
    write_vocabulary(folder, {{"b", "c"}, {"a", "b"}, {"a", "bc"}, {"Ġ", "a"}, {"x", "x"}});
    const Tokenizer tokenizer(folder.path());
    using Ids = std::vector<Tokenizer::Id>;
    CHECK(tokenizer.encode("ab") == Ids{257});
    CHECK(tokenizer.encode("abc") == Ids{258});
    CHECK(tokenizer.encode("bcab") == Ids{256, 257});
    CHECK(tokenizer.encode("xxx") == Ids{260, 'x'});
    CHECK(tokenizer.encode("a a") == Ids{'a', 259});
    CHECK(tokenizer.encode("ab abc") ==
          Ids{257, 32, 258}); // "Ġ a" has a lower rank than nothing, a bc comes first
    CHECK(tokenizer.encode("").empty());
    CHECK_FALSE(tokenizer.end_of_text());
    CHECK(tokenizer.encode("<|endoftext|>").size() == 13);
    CHECK(tokenizer.decode(Ids{258, 0, 255}) == std::string("abc\0\xff", 5));
    CHECK_THROWS_WITH(tokenizer.decode(Ids{1, 261}), ContainsSubstring("261"));
    CHECK_THROWS_WITH(tokenizer.decode(Ids{-1}), ContainsSubstring("-1"));

    // No merges at all: a model of bytes.
    folder.write("merges.txt", "");
    const Tokenizer bytes(folder.path());
    CHECK(bytes.encode("h\xffi") == Ids{'h', 255, 'i'});
}

TEST_CASE("broken vocabularies are refused in one line", "[models][tokenizer]") {
    const TemporaryFolder folder;
    CHECK_THAT(refusal(folder.path()), ContainsSubstring("vocab.json"));
    write_vocabulary(folder, {{"a", "b"}});
    std::filesystem::remove(folder.path("merges.txt"));
    CHECK_THAT(refusal(folder.path()), ContainsSubstring("merges.txt"));
    write_vocabulary(folder, {{"a", "b"}});
    CHECK(refusal(folder.path()) == "nothing is refused");
    for (const auto& [content, part] : std::vector<std::pair<std::string, std::string>>{
             {"{\"a\": 1", "vocab.json"},
             {"[1, 2]", "object"},
             {"{\"a\": \"b\"}", "a"},
             {"{\"a\": -1}", "-1"},
             {"{\"a\": 1.5}", "1.5"},
             {"{}", "byte"},
             {"{\"a\": 0, \"b\": 0}", "0"},
             {"{\"a b\": 0}", "a b"},
             {"8888e888888", "vocab.json: at byte 0: "},
             {std::string(200'000, '['), "vocab.json: at byte 65: "},
             {"{\"a\": 0, \"a\": 1}", "appears twice"}}) {
        CAPTURE(content);
        folder.write("vocab.json", content);
        CHECK_THAT(refusal(folder.path()), ContainsSubstring(part));
    }
    for (const auto& [content, part] :
         std::vector<std::pair<std::string, std::string>>{{"#version: 0.2\na\n", "line 2"},
                                                          {"#version: 0.2\na b c\n", "line 2"},
                                                          {"a b\na b\n", "line 2"},
                                                          {"a b\na c\n", "whole of 'a c'"}}) {
        CAPTURE(content);
        write_vocabulary(folder, {{"a", "b"}});
        folder.write("merges.txt", content);
        CHECK_THAT(refusal(folder.path()), ContainsSubstring(part));
    }
    CHECK_THROWS_WITH(attnscope::io::read_file(folder.path("none")), ContainsSubstring(folder.path("none")));
    CHECK(models::parse_ids(" 1\n22\t3 ", "ids") == std::vector<Tokenizer::Id>{1, 22, 3});
    CHECK(models::parse_ids(" \n", "ids").empty());
    for (const std::string text : {"1 x", "1 -2", "99999999999", "1.5"})
        CHECK_THROWS_WITH(models::parse_ids(text, "ids.txt"), ContainsSubstring("ids.txt"));
}

namespace {

/// tokenizer.json of the vocabulary that `write_vocabulary` has written, with `<|end of text|>` and `<|end|>`
/// added; with `alone` the two files go.
Json one_file(const TemporaryFolder& folder, bool alone) {
    Json merges = Json::array();
    std::ifstream lines(folder.path("merges.txt"));
    for (std::string line; std::getline(lines, line);)
        if (!line.starts_with("#version")) merges.push_back(line);
    const auto added = [](const char* name, int id) {
        return Json{{"content", name}, {"id", id},        {"single_word", false},
                    {"lstrip", false}, {"rstrip", false}, {"special", true}};
    };
    const Json json = {{"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", Json::array({added("<|end of text|>", 300), added("<|end", 301)})},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
                       {"post_processor", {{"type", "ByteLevel"}}},
                       {"model",
                        {{"type", "BPE"},
                         {"vocab", Json::parse(attnscope::io::read_file(folder.path("vocab.json")))},
                         {"merges", merges}}}};
    folder.write("tokenizer.json", json.dump());
    if (alone) {
        std::filesystem::remove(folder.path("vocab.json"));
        std::filesystem::remove(folder.path("merges.txt"));
    }
    return json;
}

} // namespace

TEST_CASE("tokenizer.json alone, or beside two files that say the same", "[models][tokenizer]") {
    using Ids = std::vector<Tokenizer::Id>;
    for (const bool alone : {true, false}) {
        const TemporaryFolder folder;
        write_vocabulary(folder, {{"a", "b"}, {"c", "ab"}});
        Json json = one_file(folder, alone);
        const Tokenizer tokenizer(folder.path());
        CHECK(tokenizer.size() == 260);
        CHECK(tokenizer.encode("cab<|end of text|>ab<|end|>") == Ids{257, 300, 256, 301, '|', '>'});
        CHECK(tokenizer.encode("<|end", SpecialTokens::as_text) == Ids{'<', '|', 'e', 'n', 'd'});
        CHECK(tokenizer.decode(Ids{257, 300, 301}) == "cab<|end of text|><|end");
        json["model"]["merges"] =
            Json::array({Json::array({"a", "b"}), Json::array({"c", "ab"})}); // newer files
        folder.write("tokenizer.json", json.dump());
        CHECK(Tokenizer(folder.path()).encode("cab") == Ids{257});
    }
}

TEST_CASE("another tokenizer than GPT-2's is refused with the reason", "[models][tokenizer]") {
    const TemporaryFolder folder;
    write_vocabulary(folder, {{"a", "b"}, {"c", "ab"}});
    const Json original = one_file(folder, false);
    CHECK(refusal(folder.path()) == "nothing is refused");
    const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    for (const auto& [pointer, value, part] : std::vector<std::tuple<const char*, Json, std::string>>{
             {"/pre_tokenizer/add_prefix_space", true, "pre_tokenizer"},
             {"/pre_tokenizer/use_regex", false, "pre_tokenizer"},
             {"/pre_tokenizer",
              {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, bytes})}},
              "pre_tokenizer"},
             {"/pre_tokenizer", nullptr, "pre_tokenizer"},
             {"/normalizer", {{"type", "NFC"}}, "normalizer"},
             {"/model/type", "WordPiece", "model.type"},
             {"/model/dropout", 0.1, "model.dropout"},
             {"/model/byte_fallback", true, "model.byte_fallback"},
             {"/post_processor", {{"type", "RobertaProcessing"}}, "post_processor"},
             {"/truncation", {{"max_length", 5}}, "truncation"},
             {"/added_tokens/0/lstrip", true, "lstrip"},
             {"/added_tokens/0/id", 97, "97 once more"},
             {"/added_tokens/0/id", -1, "found '-1'"},
             {"/added_tokens/1/id", 300, "the id once more"},
             {"/model/vocab/a", 500, "vocab.json: expected the vocabulary of"},
             {"/model/merges", Json::array({"a b"}), "merges.txt: expected the merges of"},
             {"/model/merges", Json::array({"c ab", "a b"}), "merges.txt: expected the merges of"},
             {"/model/merges", Json::array({5}), "model.merges"},
             {"/model", 5, "model"}}) {
        CAPTURE(pointer, value.dump());
        Json json = original;
        json[Json::json_pointer(pointer)] = value;
        folder.write("tokenizer.json", json.dump());
        CHECK_THAT(refusal(folder.path()), ContainsSubstring(part));
    }
    folder.write("tokenizer.json", std::string(200'000, '['));
    CHECK_THAT(refusal(folder.path()), ContainsSubstring("tokenizer.json: at byte 65: "));

    std::filesystem::remove(folder.path("tokenizer.json"));
    for (const auto& [json, part] : std::vector<std::pair<Json, std::string>>{
             {{{"add_prefix_space", true}}, "add_prefix_space"},
             {{{"add_bos_token", true}}, "add_bos_token"},
             {{{"tokenizer_class", "Qwen2Tokenizer"}}, "tokenizer_class"},
             {{{"added_tokens_decoder", {{"x", {{"content", "<x>"}}}}}}, "expected an id"}}) {
        folder.write("tokenizer_config.json", json.dump());
        CHECK_THAT(refusal(folder.path()),
                   ContainsSubstring("tokenizer_config.json: ") && ContainsSubstring(part));
    }
    folder.write("tokenizer_config.json", Json{{"tokenizer_class", "GPT2Tokenizer"},
                                               {"added_tokens_decoder", {{"400", {{"content", "<x>"}}}}}}
                                              .dump());
    CHECK(Tokenizer(folder.path()).encode("a<x>b") == std::vector<Tokenizer::Id>{'a', 400, 'b'});
}
