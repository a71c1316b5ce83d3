// A safetensors file: what is read can be written and read again the same.
#include "fuzz.hpp"

#include <attnscope/io/safetensors.hpp>

using namespace attnscope::io;

namespace {

/// Calls `read`; an integer or bool that does not fit what was asked for is a refusal like any other.
template <class Read>
bool readable(Read&& read) {
    try {
        read();
        return true;
    } catch (const attnscope::io_error& error) {
        fuzz::require_message(error.what(), "fuzz.safetensors");
        return false;
    }
}

} // namespace

void fuzz_one(std::string_view input) {
    readable([&] {
        const SafetensorsFile file(File::from_bytes("fuzz.safetensors", attnscope_test::to_bytes(input)));
        SafetensorsWriter writer;
        for (const auto& [key, value] : file.metadata()) writer.set_metadata(key, value);
        for (const std::string& name : file.names()) {
            const TensorInfo& info = file.info(name);
            fuzz::require(info.offset + info.bytes <= input.size(), "a tensor lies inside the file");
            if (is_floating(info.dtype)) {
                const auto values = file.read<double>(name);
                if (info.dtype == Dtype::f32)
                    writer.add(name, file.read<float>(name), info.shape);
                else
                    writer.add(name, values, info.shape);
            } else if (is_integer(info.dtype)) {
                std::vector<std::int64_t> values;
                if (readable([&] { values = file.read_integers(name); })) writer.add(name, values, info.shape);
            } else {
                fuzz::require(!readable([&] { (void)file.read<float>(name); }), "an unknown type is not read");
            }
        }
        const std::string path = fuzz::folder().path("again");
        writer.write(path);
        const SafetensorsFile again(path);
        fuzz::require(again.metadata() == file.metadata(), "metadata come back");
        for (const std::string& name : again.names()) {
            fuzz::require(again.info(name).shape == file.info(name).shape, "shapes come back");
            if (again.info(name).dtype == Dtype::i64)
                fuzz::require(again.read_integers(name) == file.read_integers(name), "integers come back");
            else if (again.info(name).dtype == Dtype::f32)
                fuzz::require(fuzz::same_bytes<float>(again.read<float>(name), file.read<float>(name)),
                              "floats come back");
            else
                fuzz::require(fuzz::same_bytes<double>(again.read<double>(name), file.read<double>(name)),
                              "numbers come back");
        }
    });
}
