// config.json, a zero byte, and model.safetensors: a model that loads can be run.
#include "fuzz.hpp"

#include <models/forward.hpp>

#include <stdexcept>

void fuzz_one(std::string_view input) {
    const auto& folder = fuzz::folder();
    folder.write("config.json", fuzz::next_part(input));
    folder.write("model.safetensors", input);
    try {
        const models::Model model = models::Model::load(folder.path());
        const std::int32_t ids[] = {0, 1, 0};
        models::RunOptions<float> options;
        options.loss = true;
        const auto result = model.run<float>(ids, options);
        fuzz::require(result.hidden.rows() == 3 && result.hidden.cols() == model.config().width,
                      "the residual stream has the shape of the configuration");
        fuzz::require(result.logits_last.size() == model.config().vocabulary, "a logit for every token");
    } catch (const std::runtime_error& error) {
        fuzz::require(std::strlen(error.what()) < 8192, "a message is bounded");
    }
}
