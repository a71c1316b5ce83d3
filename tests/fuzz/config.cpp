// config.json, a zero byte, and the index of a model's parts.
#include "fuzz.hpp"

#include <models/config.hpp>
#include <models/parameters.hpp>

#include <stdexcept>

void fuzz_one(std::string_view input) {
    const auto& folder = fuzz::folder();
    const std::string config_file = folder.write("config.json", fuzz::next_part(input));
    folder.write("model.safetensors.index.json", input);
    try {
        const models::Config config = models::read_config(config_file);
        fuzz::require(config.layers > 0 && config.heads > 0 && config.key_heads > 0 && config.width > 0 &&
                          config.head_width > 0 && config.inner > 0 && config.context > 0 &&
                          config.vocabulary > 0,
                      "sizes are positive");
        fuzz::require(config.heads % config.key_heads == 0, "key heads divide heads");
        const models::FileParameters parameters(folder.path(), config);
        fuzz::require(!parameters.contains("none"), "there is no such tensor");
    } catch (const std::runtime_error& error) {
        fuzz::require_message(error.what(), folder.path());
    }
}
