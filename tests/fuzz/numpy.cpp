// .npy and .npz files: what is read can be written and read again the same, and in any of the types.
#include "fuzz.hpp"

#include <attnscope/io/npy.hpp>
#include <attnscope/io/npz.hpp>

using namespace attnscope::io;

namespace {

template <class Read>
void allow_refusal(Read&& read) {
    try {
        read();
    } catch (const attnscope::io_error& error) {
        fuzz::require_message(error.what(), "fuzz.np");
    }
}

template <class T, class Read>
void read_again(Read&& read) {
    allow_refusal([&] {
        const NpyArray<T> array = read();
        std::size_t elements = 1;
        for (const Eigen::Index dimension : array.shape) elements *= static_cast<std::size_t>(dimension);
        fuzz::require(elements == array.data.size(), "the shape is that of the data");
        const std::string path = fuzz::folder().path("again");
        write_npy(path, array.data, array.shape);
        const NpyArray<T> again = read_npy<T>(path);
        fuzz::require(again.shape == array.shape, "the shape comes back");
        fuzz::require(fuzz::same_bytes<T>(again.data, array.data), "the numbers come back");
    });
}

} // namespace

void fuzz_one(std::string_view input) {
    const NpyOptions options{.bfloat16 = true};
    const auto file = [&](const char* name) { return File::from_bytes(name, attnscope_test::to_bytes(input)); };
    if (!input.starts_with("PK")) {
        read_again<float>([&] { return read_npy<float>(file("fuzz.npy"), options); });
        read_again<double>([&] { return read_npy<double>(file("fuzz.npy"), options); });
        read_again<std::int64_t>([&] { return read_npy<std::int64_t>(file("fuzz.npy")); });
    }
    allow_refusal([&] {
        const NpzFile npz(file("fuzz.npz"));
        for (const std::string& name : npz.names())
            read_again<double>([&] { return npz.read<double>(name, options); });
    });
}
