// How layers attend, as metadata of a capture: what is written is read again, and what makes no sense is
// refused.
#include <support/catch.hpp>

#include <attnscope/capture/layer_attention.hpp>

#include <random>

using namespace attnscope;

namespace {

std::string refusal(const std::string& key, const std::string& value, Index layers = 3) {
    try {
        read_attention("file", {{key, value}}, layers);
    } catch (const io_error& error) {
        return error.what();
    }
    return "accepted";
}

} // namespace

TEST_CASE("layers are read again from the metadata that they give", "[attention_metadata]") {
    std::mt19937_64 random(1);
    std::normal_distribution<double> normal;
    for (const Index count : {1, 2, 7}) {
        std::vector<LayerAttention> layers(static_cast<std::size_t>(count));
        CHECK(attention_metadata(layers).empty());
        for (LayerAttention& layer : layers) {
            layer.causal = random() % 2 == 0;
            layer.scale = normal(random) * std::pow(10.0, 40 * normal(random));
            layer.window = static_cast<Index>(random() % 3);
            layer.normalizer = random() % 2 == 0 ? "softmax" : "softcap:50|ssmax:0.43|topk:64";
            layer.temperature = std::exp(normal(random));
        }
        CHECK(read_attention("file", attention_metadata(layers), count) == layers);
    }
    // One value serves for all.
    std::vector<LayerAttention> alike(4);
    for (LayerAttention& layer : alike) layer.scale = 0.125, layer.causal = true, layer.window = 0;
    CHECK(attention_metadata(alike) == Metadata{{"scale", "0.125"}, {"causal", "true"}, {"window", "0"}});
    CHECK(read_attention("file", {{"scale", "0.125"}, {"causal", "True"}, {"window", "0"}}, 4) == alike);
    CHECK(read_attention("file", {{"scale", " 1, 2 ,3"}}, 3)[1].scale == 2.0);
    CHECK(!read_attention("file", {{"source", "elsewhere"}}, 1)[0].scale);
    alike[2].scale.reset();
    CHECK_THROWS_AS(attention_metadata(alike), invalid_argument);
}

TEST_CASE("metadata that make no sense are refused", "[attention_metadata]") {
    CHECK(
        refusal("scale", "1,2") ==
        "file: at byte 0: metadata \"scale\" must be one value, or one for each of the 3 layers, got \"1,2\"");
    CHECK(refusal("scale", "inf") ==
          "file: at byte 0: metadata \"scale\" must be finite: a number such as 0.125, got \"inf\"");
    CHECK(refusal("scale", "") ==
          "file: at byte 0: metadata \"scale\" must be finite: a number such as 0.125, got \"\"");
    CHECK(refusal("scale", "1,,3") ==
          "file: at byte 0: metadata \"scale\" must be finite: a number such as 0.125, got \"\"");
    CHECK(refusal("temperature", "0") ==
          "file: at byte 0: metadata \"temperature\" must be a finite number > 0, got \"0\"");
    CHECK(refusal("causal", "maybe") ==
          "file: at byte 0: metadata \"causal\" must be true or false, got \"maybe\"");
    CHECK(refusal("window", "-1") ==
          "file: at byte 0: metadata \"window\" must be a whole number >= 0 of keys (0: all), got \"-1\"");
    CHECK(refusal("window", "2.5") ==
          "file: at byte 0: metadata \"window\" must be a whole number >= 0 of keys (0: all), got \"2.5\"");
    CHECK(refusal("normalizer", "hardmax").starts_with("file: at byte 0: metadata \"normalizer\": "));
}

TEST_CASE("the mask of a layer", "[attention_metadata]") {
    const auto count = [](const LayerAttention& layer, Index query) {
        return layer.mask(3, 5).visible(query, 5).count();
    };
    CHECK(count({}, 0) == 5);
    CHECK(count({.causal = true}, 0) == 3);
    CHECK(count({.causal = true, .window = 0}, 2) == 5);
    CHECK(count({.causal = true, .window = 2}, 2) == 2);
    CHECK(LayerAttention{.causal = true, .window = 2}.mask(3, 5).visible(2, 5).contains(4));
    CHECK(!LayerAttention{.causal = true, .window = 2}.mask(3, 5).visible(2, 5).contains(2));
}
