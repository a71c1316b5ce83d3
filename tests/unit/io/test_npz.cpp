// .npz archives, variants of .npy, and files that are something else. The archives are those of Python's
// zipfile (zlib.crc32), byte for byte, made here from their parts.
#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/json.hpp>
#include <attnscope/io/key_sets.hpp>
#include <attnscope/io/npz.hpp>
#include <attnscope/io/safetensors.hpp>

#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

namespace {

using attnscope::io_error;
using attnscope::io::Dtype;
using attnscope::io::File;
using attnscope::io::FileKind;
using attnscope::io::NpyOptions;
using attnscope::io::NpzFile;
using attnscope::io::read_npy;
using attnscope_test::TemporaryFolder;
using Shape = std::vector<Eigen::Index>;

template <class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const io_error& error) {
        return error.what();
    }
    return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string little(std::uint64_t value, int width) {
    std::string bytes;
    for (int i = 0; i < width; ++i) bytes += static_cast<char>(i < 8 ? value >> (8 * i) & 0xff : 0);
    return bytes;
}

std::string npy(const std::string& descr, const std::string& shape, const std::string& data) {
    const std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
    return std::string("\x93NUMPY\x01\x00", 8) + little(header.size(), 2) + header + data;
}

/// Bit by bit, as the polynomial says.
std::uint32_t plain_crc32(const std::string& bytes) {
    std::uint32_t sum = 0xffffffff;
    for (const char c : bytes)
        for (int bit = 0; bit < 8; ++bit) {
            const bool out = ((sum ^ (static_cast<unsigned char>(c) >> bit)) & 1) != 0;
            sum = sum >> 1 ^ (out ? 0xEDB88320u : 0);
        }
    return ~sum;
}

struct Member {
    std::string name, content;
    unsigned method = 0, flags = 0;
    std::uint32_t sum_error = 0;
};

/// `wide`: sizes in zip64 fields, as numpy.savez writes the local ones and, beyond 4 GiB, those of the
/// directory.
std::string archive(const std::vector<Member>& members, bool wide = false, const std::string& comment = "") {
    std::string text, directory;
    for (const Member& member : members) {
        const std::uint64_t offset = text.size(), size = member.content.size();
        const std::string common = little(45, 2) + little(member.flags, 2) + little(member.method, 2) +
                                   little(0, 4) + little(plain_crc32(member.content) ^ member.sum_error, 4);
        const std::string extra = little(1, 2) + little(16, 2) + little(size, 8) + little(size, 8);
        text += "PK\x03\x04" + common + little(0xffffffff, 4) + little(0xffffffff, 4) +
                little(member.name.size(), 2) + little(extra.size(), 2) + member.name + extra + member.content;
        const std::string all =
            little(1, 2) + little(24, 2) + little(size, 8) + little(size, 8) + little(offset, 8);
        directory += "PK\x01\x02" + little(45, 2) + common + little(wide ? 0xffffffff : size, 4) +
                     little(wide ? 0xffffffff : size, 4) + little(member.name.size(), 2) +
                     little(wide ? all.size() : 0, 2) + little(0, 10) + little(wide ? 0xffffffff : offset, 4) +
                     member.name + (wide ? all : "");
    }
    const std::uint64_t start = text.size(), count = members.size();
    text += directory;
    if (wide) {
        const std::uint64_t end = text.size();
        text += "PK\x06\x06" + little(44, 8) + little(45, 4) + little(0, 8) + little(count, 8) +
                little(count, 8) + little(directory.size(), 8) + little(start, 8);
        text += "PK\x06\x07" + little(0, 4) + little(end, 8) + little(1, 4);
    }
    return text + "PK\x05\x06" + little(0, 4) + little(wide ? 0xffff : count, 2) +
           little(wide ? 0xffff : count, 2) + little(wide ? 0xffffffff : directory.size(), 4) +
           little(wide ? 0xffffffff : start, 4) + little(comment.size(), 2) + comment;
}

File file(const std::string& text, const std::string& name = "test.npz") {
    return File::from_bytes(name, attnscope_test::to_bytes(text));
}

const std::string two_floats = npy("<f4", "(2,)", std::string("\0\0\x80\x3f\0\0\0\x40", 8)),
                  integers = npy("<i2", "(1, 3)", std::string("\1\0\2\0\xff\xff", 6));

} // namespace

TEST_CASE("npz: sets of keys", "[io][npz][selector]") {
    const attnscope_test::TemporaryFolder folder;
    const std::string keys =
        npy("<i4", "(2, 2)", little(0, 4) + little(0xffffffff, 4) + little(1, 4) + little(0, 4));
    const attnscope::io::KeySetsFile sets(folder.write("sets.npz", archive({{"keys.npy", keys}})));
    CHECK(sets.queries() == 2);
    const auto own = sets.sets(3, 2, 2, {});
    CHECK(std::vector<Eigen::Index>(own(1).begin(), own(1).end()) == std::vector<Eigen::Index>{1, 0});
    CHECK(has(message_of([&] {
                  (void)attnscope::io::KeySetsFile(folder.write("q.npz", archive({{"q.npy", two_floats}})));
              }),
              "there are no sets of keys"));
}

TEST_CASE("npz: arrays come out as their .npy files say", "[io][npz]") {
    for (const bool wide : {false, true})
        for (const std::string& comment : {std::string(), std::string("a comment, PK\x05\x06 in it")}) {
            const NpzFile npz(
                file(archive({{"q.npy", two_floats}, {"a/b.npy", integers}, {"e.npy", npy("<f8", "(0,)", "")}},
                             wide, comment)));
            CHECK(npz.names() == std::vector<std::string>{"a/b", "e", "q"});
            CHECK(npz.contains("q"));
            CHECK_FALSE(npz.contains("q.npy"));
            CHECK(npz.read<float>("q").data == std::vector<float>{1, 2});
            CHECK(npz.read<float>("q").dtype == Dtype::f32);
            CHECK(npz.read<std::int64_t>("a/b").data == std::vector<std::int64_t>{1, 2, -1});
            CHECK(npz.read<double>("a/b").shape == Shape{1, 3});
            CHECK(npz.read<double>("e").shape == Shape{0});
            CHECK(message_of([&] { (void)npz.read<float>("x"); }) ==
                  "test.npz: at byte 0: there is no array 'x'");
            CHECK(has(message_of([&] { (void)npz.read<std::int64_t>("q"); }),
                      "array 'q': the dtype '<f4' cannot be read as integers"));
        }
    CHECK(NpzFile(file(archive({}))).names().empty());
}

TEST_CASE("npz: broken archives are refused, with the place", "[io][npz]") {
    const auto opened = [](const std::string& text) { return message_of([&] { NpzFile npz(file(text)); }); };
    const auto read = [](const std::vector<Member>& members) {
        const NpzFile npz(file(archive(members)));
        return message_of([&] { (void)npz.read<float>("q"); });
    };
    CHECK(has(read({{"q.npy", two_floats, 8}}),
              "array 'q': it is compressed, which is not read here; save it with "
              "numpy.savez: import numpy; numpy.savez('OUT.npz', "
              "**numpy.load('IN.npz'))"));
    CHECK(has(read({{"q.npy", two_floats, 0, 0, 1}}), "array 'q': its checksum (CRC-32) is wrong"));
    CHECK(has(read({{"q.npy", "nothing"}}), "array 'q': the file does not start with \\x93NUMPY"));
    CHECK(has(read({{"q.npy", ""}}), "array 'q': "));
    CHECK(has(read({{"q.npy", two_floats + "x"}}), "shape and dtype need 8 bytes of data, the file holds 9"));
    CHECK(has(opened(archive({{"q.npy", two_floats, 0, 1}})), "member 'q.npy' is encrypted"));
    CHECK(has(opened(archive({{"q.npy", two_floats}, {"q.npy", two_floats}})), "member 'q.npy' appears twice"));
    CHECK(has(opened(archive({{"notes.txt", "x"}})), "member 'notes.txt' is not .npy"));
    CHECK(has(opened(archive({{"model/data.pkl", "x"}})), "torch.save"));
    CHECK(has(opened(two_floats), "this is a NumPy array (.npy)"));
    CHECK(has(opened(""), "this is no zip archive"));

    // Every cut, and every byte turned over, is an error or leaves the numbers as they are.
    for (const bool wide : {false, true}) {
        const std::string whole = archive({{"q.npy", two_floats}, {"k.npy", integers}}, wide);
        for (std::size_t size = 0; size < whole.size(); ++size)
            CHECK_FALSE(opened(whole.substr(0, size)).empty());
        for (std::size_t at = 0; at < whole.size(); ++at) {
            std::string text = whole;
            text[at] = static_cast<char>(~text[at]);
            try {
                const NpzFile npz(file(text));
                const bool both = npz.contains("q") && npz.contains("k");
                if (both) {
                    const auto q = npz.read<float>("q").data;
                    const auto k = npz.read<std::int64_t>("k").data;
                    CHECK(q == std::vector<float>{1, 2});
                    CHECK(k == std::vector<std::int64_t>{1, 2, -1});
                }
            } catch (const io_error& error) {
                CHECK(error.offset() <= whole.size());
            }
        }
    }
}

TEST_CASE("npy: shapes of Python 2, bfloat16 on request", "[io][npy]") {
    const auto array = read_npy<double>(file(npy("<i2", "(1L, 3L)", std::string("\1\0\2\0\3\0", 6))));
    CHECK(array.shape == Shape{1, 3});
    CHECK(read_npy<double>(file(npy("<i2", "(3L,)", std::string("\1\0\2\0\3\0", 6)))).shape == Shape{3});
    CHECK(has(message_of([] { read_npy<double>(file(npy("<i1", "(1LL,)", "a"))); }), "separated by ','"));
    CHECK(has(message_of([] { read_npy<double>(file(npy("<i1", "(L,)", "a"))); }), "non-negative integer"));

    NpyOptions options;
    options.bfloat16 = true;
    const std::string data("\x80\x3f\x20\xc0", 4); // 1, -2.5
    for (const std::string descr : {"<V2", "|V2", "V2"}) {
        CHECK(has(message_of([&] { read_npy<float>(file(npy(descr, "(2,)", data))); }), "--bfloat16"));
        const auto values = read_npy<float>(file(npy(descr, "(2,)", data)), options);
        CHECK(values.data == std::vector<float>{1, -2.5F});
        CHECK(values.dtype == Dtype::bf16);
    }
    CHECK(read_npy<float>(file(npy(">V2", "(2,)", std::string("\x3f\x80\xc0\x20", 4))), options).data ==
          std::vector<float>{1, -2.5F});
    CHECK(has(message_of([&] { read_npy<float>(file(npy("<V4", "(1,)", data)), options); }), "not supported"));
}

TEST_CASE("files that are something else are named, with what to do", "[io][kind]") {
    using namespace std::string_literals;
    struct Case {
        std::string start, part;
        FileKind kind;
    };
    const std::vector<Case> cases{
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run git lfs pull",
         FileKind::git_lfs_pointer},
        {"<!DOCTYPE html>\n<html></html>", "an HTML page; the download failed", FileKind::html},
        {"\n <HTML><body>", "an HTML page", FileKind::html},
        {"GGUF\3\0\0\0"s + std::string(16, '\1'), "a GGUF file of llama.cpp", FileKind::gguf},
        {"\x80\2\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "torch.save", FileKind::pickle},
        {archive({{"archive/data.pkl", "\x80\2."}}), "torch.save", FileKind::torch_archive},
        {archive({{"q.npy", two_floats}}), "NpzFile reads it", FileKind::npz},
        {archive({{"word/document.xml", "x"}}), "a zip archive", FileKind::zip},
        {two_floats, "a NumPy array (.npy)", FileKind::npy},
        {"\x1f\x8b\x08\0\0\0\0\0\0\3"s, "a compressed file", FileKind::compressed},
        {"\x28\xb5\x2f\xfd\0\0\0\0\0"s, "a compressed file", FileKind::compressed},
        {"\x89HDF\r\n\x1a\n\0"s, "an HDF5 file", FileKind::hdf5},
    };
    const TemporaryFolder folder;
    for (const auto& [start, part, kind] : cases) {
        CAPTURE(part);
        CHECK(attnscope::io::kind_of(start) == kind);
        const std::string path = folder.write("f", start);
        const auto check = [&](const std::string& message) {
            CAPTURE(message);
            CHECK(message.starts_with(path + ": at byte 0: "));
            CHECK(has(message, part));
        };
        check(message_of([&] { const attnscope::io::SafetensorsFile opened(path); }));
        check(message_of([&] { (void)attnscope::io::read_json(path); }));
        if (kind != FileKind::npy) check(message_of([&] { read_npy<float>(path); }));
    }
    for (const std::string& text : {""s, "P"s, "PK\3\4"s, "{}"s, "\x80"s, "<"s, "8\0\0\0\0\0\0\0{"s})
        CHECK((attnscope::io::kind_of(text) == FileKind::unknown ||
               attnscope::io::kind_of(text) == FileKind::zip));
}

TEST_CASE("npz: numpy.savez of q, k, v", "[io][npz][data]") {
    const std::string cases = attnscope_test::data_folder() + "/../cases/";
    if (!std::filesystem::exists(cases + "capture.npz")) {
        std::cout << "attnscope test skipped: no " << cases << '\n';
        return;
    }
    const NpzFile npz(cases + "capture.npz");
    CHECK(npz.names() == std::vector<std::string>{"k", "q", "v"});
    for (const std::string& name : npz.names()) {
        const auto array = npz.read<double>(name);
        // The members are stored one after the other: the text of a member is an .npy file.
        const std::string whole = attnscope::io::read_file(cases + "capture.npz");
        const std::size_t header = whole.find(name + ".npy"), start = whole.find("\x93NUMPY", header);
        const auto plain = read_npy<double>(file(whole.substr(start, 1152)));
        CHECK(array.shape == plain.shape);
        CHECK(array.data == plain.data);
    }
    CHECK(read_npy<double>(cases + "public/12-npy-variants/python2_long.npy").shape == Shape{2, 3, 4});
    NpyOptions options;
    options.bfloat16 = true;
    CHECK(read_npy<double>(cases + "public/12-npy-variants/bfloat16_V2.npy", options).dtype == Dtype::bf16);
    for (const auto& [name, part] : std::vector<std::pair<std::string, std::string>>{
             {"html.safetensors", "HTML"}, {"lfs_pointer.safetensors", "git lfs pull"}})
        CHECK(has(message_of([&, &file_name = name] {
                      const attnscope::io::SafetensorsFile opened(cases + "public/17-not-a-safetensors-file/" +
                                                                  file_name);
                  }),
                  part));
}
