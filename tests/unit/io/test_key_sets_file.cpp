// Sets of keys from files of engines: every form, one file for all layers or each, and what is refused.
#include <support/catch.hpp>
#include <support/key_lists.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/key_sets.hpp>

namespace {

using attnscope::Index;
using attnscope::io_error;
using attnscope::KeySets;
using attnscope::Mask;
using attnscope::io::KeySetsFile;
using attnscope_test::lists_of;
using attnscope_test::TemporaryFolder;

/// A safetensors file of I64 arrays: name, shape, numbers.
struct Array {
    std::string name, shape;
    std::vector<std::int64_t> data;
};
std::string file_of(const std::vector<Array>& arrays) {
    std::string header = "{", data;
    for (const Array& array : arrays) {
        const std::size_t begin = data.size();
        for (const std::int64_t x : array.data)
            for (int i = 0; i < 8; ++i)
                data += static_cast<char>(static_cast<std::uint64_t>(x) >> (8 * i) & 0xff);
        header += (header.size() > 1 ? ",\"" : "\"") + array.name +
                  "\":{\"dtype\":\"I64\",\"shape\":" + array.shape + ",\"data_offsets\":[" +
                  std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    }
    header += "}";
    std::string length;
    for (int i = 0; i < 8; ++i) length += static_cast<char>(header.size() >> (8 * i) & 0xff);
    return length + header + data;
}

} // namespace

TEST_CASE("KeySetsFile reads keys, blocks, bits and compressed rows", "[io][selector]") {
    const TemporaryFolder folder;
    const std::vector<std::vector<Index>> wanted = {{0}, {0, 1}, {0, 1, 2}};
    const auto read = [&](const std::vector<Array>& arrays) {
        const KeySetsFile file(folder.write("sets.safetensors", file_of(arrays)));
        CHECK(file.queries() == 3);
        return lists_of(file.sets(0, 0, 3, Mask::causal()));
    };
    CHECK(read({{"keys", "[3,3]", {0, -1, -1, 0, 1, -1, 0, 1, 2}}}) == wanted);
    CHECK(read({{"blocks", "[3,2]", {0, -1, 0, -1, 0, 1}}, {"block_size", "[]", {2}}}) == wanted);
    CHECK(read({{"selected", "[3,3]", {1, 0, 0, 1, 1, 0, 1, 1, 1}}}) == wanted);
    CHECK(read({{"indices", "[6]", {0, 0, 1, 0, 1, 2}}, {"offsets", "[4]", {0, 1, 3, 6}}}) == wanted);

    // Layers and heads of their own, or the same for all.
    const KeySetsFile two(
        folder.write("two.safetensors", file_of({{"keys", "[2,1,2,1]", {0, 1, 0, 0}}, {"q", "[1]", {7}}})));
    CHECK(two.layers() == 2);
    CHECK(two.heads() == 1);
    CHECK(lists_of(two.sets(0, 5, 2, {})) == std::vector<std::vector<Index>>{{0}, {1}});
    CHECK(lists_of(two.sets(1, 0, 2, {})) == std::vector<std::vector<Index>>{{0}, {0}});
    CHECK_THROWS_AS(two.sets(2, 0, 2, {}), attnscope::invalid_argument);
    const KeySetsFile rows(folder.write(
        "rows.safetensors", file_of({{"indices", "[3]", {4, 5, 6}}, {"offsets", "[2,2]", {0, 1, 1, 3}}})));
    CHECK(lists_of(rows.sets(0, 1, 9, {})) == std::vector<std::vector<Index>>{{5, 6}});
}

TEST_CASE("KeySetsFile refuses by file, array and rule", "[io][selector]") {
    const TemporaryFolder folder;
    const auto refused = [&](const std::vector<Array>& arrays, const std::string& part) {
        const std::string path = folder.write("bad.safetensors", file_of(arrays));
        std::string said = "nothing";
        try {
            const KeySetsFile file(path);
            (void)file.sets(0, 0, 3, Mask::causal());
        } catch (const io_error& error) {
            said = error.what();
        }
        CAPTURE(said, part);
        CHECK(said.find("bad.safetensors") != std::string::npos);
        CHECK(said.find(part) != std::string::npos);
    };
    refused({{"q", "[1]", {1}}}, "there are no sets of keys");
    refused({{"keys", "[1,1]", {0}}, {"blocks", "[1,1]", {0}}}, "keys and blocks");
    refused({{"keys", "[1]", {0}}}, "dimensions");
    refused({{"keys", "[1,0]", {}}}, "keys must not be empty");
    refused({{"offsets", "[1]", {0}}, {"indices", "[1]", {0}}}, "offsets must not be empty");
    refused({{"offsets", "[2]", {0, 1}}}, "indices");
    refused({{"blocks", "[1,1]", {0}}}, "block_size");
    refused({{"blocks", "[1,1]", {0}}, {"block_size", "[1]", {0}}}, "block_size");
    refused({{"blocks", "[1,1]", {5}}, {"block_size", "[1]", {2}}}, "head 0: KeySets::blocks");
    refused({{"keys", "[2,2]", {0, -1, 1, 1}}}, "a key must stand in a set once: query, key, got 1 and 1");
    refused({{"keys", "[1,1]", {-2}}}, "keys must be >= 0");
    refused({{"selected", "[1,2]", {0, 2}}}, "0 or 1");
    for (const std::vector<std::int64_t>& offsets :
         {std::vector<std::int64_t>{0, 9}, {-1, 1}, {1, 0}, {2, 2000000000000}})
        refused({{"offsets", "[2]", offsets}, {"indices", "[2]", {0, 1}}}, "offsets");
}
