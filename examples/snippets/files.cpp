// Reading and writing safetensors; the file is one that attnscope-report reads.
#include <attnscope/attnscope.hpp>
#include <attnscope/io/safetensors.hpp>
#include <cstdio>
#include <filesystem>

int main() {
    attnscope::SplitMix64 random(1);
    std::vector<float> q(2 * 10 * 4), k(2 * 10 * 4); // [heads, tokens, width]
    for (float& x : q) x = float(random.normal());
    for (float& x : k) x = float(random.normal());

    attnscope::io::SafetensorsWriter writer;
    writer.add("q", std::span<const float>(q), {2, 10, 4});
    writer.add("k", std::span<const float>(k), {2, 10, 4});
    writer.set_metadata("causal", "true");
    const std::string path =
        (std::filesystem::temp_directory_path() / "attnscope-snippet.safetensors").string();
    writer.write(path);

    const attnscope::io::SafetensorsFile file(path);
    for (const std::string& name : file.names())
        std::printf("%s: %td numbers, causal %s\n", name.c_str(), std::ptrdiff_t(file.info(name).elements),
                    file.metadata().at("causal").c_str());
    std::printf("read as written: %s\n", file.read<float>("q") == q ? "yes" : "no");
    std::filesystem::remove(path);
}
