// What is made of every key of config.json: obeyed, refused, passed over or named.
#include <models/forward.hpp>
#include <models/layers.hpp>
#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/file.hpp>
#include <models/tokenizer.hpp>

#include <nlohmann/json.hpp>

#include <iostream>
#include <numbers>

using attnscope::Index;
using attnscope_test::TemporaryFolder;
using Catch::Matchers::ContainsSubstring;
using models::Config;
using models::Rotary;
using Json = nlohmann::json;

namespace {

const Json llama = {{"model_type", "llama"},  {"hidden_size", 16},       {"num_attention_heads", 2},
                    {"num_hidden_layers", 2}, {"intermediate_size", 32}, {"max_position_embeddings", 64},
                    {"vocab_size", 50}};
const Json gpt2 = {{"model_type", "gpt2"}, {"n_embd", 16},      {"n_head", 2},
                   {"n_layer", 2},         {"n_positions", 64}, {"vocab_size", 50}};

Json with(Json config, const Json& more) {
    config.update(more);
    return config;
}

Config read(const Json& config) {
    const TemporaryFolder folder;
    return models::read_config(folder.write("config.json", config.dump()));
}

std::string refusal(const Json& config) {
    try {
        (void)read(config);
    } catch (const std::exception& error) {
        const std::string message = error.what();
        CHECK(message.find('\n') == std::string::npos);
        CHECK(message.size() < 500);
        CHECK_THAT(message, ContainsSubstring("config.json"));
        return message;
    }
    return "nothing is refused";
}

} // namespace

TEST_CASE("theta stands in either place, and both must agree", "[models][config]") {
    CHECK(read(llama).rotary.theta == 10000);
    CHECK(read(with(llama, {{"rope_theta", 5e5}})).rotary.theta == 5e5);
    const Json inside = {{"rope_type", "default"}, {"rope_theta", 5e5}};
    for (const char* place : {"rope_parameters", "rope_scaling"}) {
        const Config config = read(with(llama, {{place, inside}}));
        CHECK(config.rotary.theta == 5e5);
        CHECK(config.rotary.scaling == Rotary::Scaling::none);
        CHECK(read(with(llama, {{place, inside}, {"rope_theta", 5e5}})).rotary.theta == 5e5);
        CHECK_THAT(refusal(with(llama, {{place, inside}, {"rope_theta", 1e4}})),
                   ContainsSubstring(std::string(place) + ": rope_theta: expected 10000"));
    }
    CHECK(read(with(llama, {{"rope_parameters", {{"rope_theta", 5e5}}}})).rotary.theta == 5e5);
    CHECK(read(with(llama, {{"rope_scaling", {{"rope_type", "default"}}}})).rotary.theta == 10000);
    CHECK(read(with(llama, {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                            {"rope_parameters", {{"rope_theta", 5e5}}}}))
              .rotary.factor == 2);
}

TEST_CASE("rotary scalings are obeyed or refused", "[models][config]") {
    const auto scaled = [](const Json& rope) { return with(llama, {{"rope_parameters", rope}}); };
    CHECK(read(scaled({{"rope_type", "linear"}, {"factor", 4}})).rotary.scaling == Rotary::Scaling::linear);
    const Json llama3 = {{"rope_type", "llama3"}, {"rope_theta", 5e5},
                         {"factor", 8},           {"low_freq_factor", 1},
                         {"high_freq_factor", 4}, {"original_max_position_embeddings", 8192}};
    // Llama 3.1's frequencies, by wavelengths and in long double.
    const Rotary rotary = read(scaled(llama3)).rotary;
    const auto found = rotary.frequencies(128);
    REQUIRE(found.size() == 64);
    int kept = 0, divided = 0;
    for (std::size_t c = 0; c < found.size(); ++c) {
        const long double plain = std::pow(5e5L, -2 * static_cast<long double>(c) / 128);
        const long double wavelength = 2 * std::numbers::pi_v<long double> / plain;
        long double truth = plain;
        if (wavelength > 8192) {
            truth = plain / 8;
            ++divided;
        } else if (wavelength >= 8192.0L / 4) {
            const long double smooth = (8192 / wavelength - 1) / (4 - 1);
            truth = (1 - smooth) * plain / 8 + smooth * plain;
        } else {
            ++kept;
        }
        CHECK(found[c] == Catch::Approx(static_cast<double>(truth)).epsilon(1e-14));
    }
    CHECK(kept > 20);
    CHECK(divided > 20);
    CHECK(kept + divided < 64);

    // YaRN as Qwen 2.5 sets it: pairs that turn more than 32 times in 32,768 tokens stay, those that turn less than once
    // are divided, between pairs 23 and 40 a mean.
    const Json yarn = {
        {"rope_type", "yarn"}, {"rope_theta", 1e6}, {"factor", 4}, {"original_max_position_embeddings", 32768}};
    const Rotary stretched = read(scaled(yarn)).rotary;
    CHECK(stretched.scaling == Rotary::Scaling::yarn);
    CHECK(stretched.length == Catch::Approx(1.138629436111989).epsilon(1e-15)); // 1 + 0.1 log 4
    const auto turns = stretched.frequencies(128);
    REQUIRE(turns.size() == 64);
    for (std::size_t c = 0; c < turns.size(); ++c) {
        const long double plain = std::pow(1e6L, -2 * static_cast<long double>(c) / 128);
        const long double share = std::clamp((static_cast<long double>(c) - 23) / 17, 0.0L, 1.0L);
        CHECK(turns[c] == Catch::Approx(static_cast<double>(plain * (share / 4 + 1 - share))).epsilon(1e-14));
        if (32768 * plain / (2 * std::numbers::pi_v<long double>) > 34)
            CHECK(turns[c] == Catch::Approx(double(plain)));
    }
    // Ends that are not rounded: pairs 23.596 and 39.651 .
    const auto exact = read(scaled(with(yarn, {{"truncate", false}}))).rotary.frequencies(128);
    const double share = (30 - 23.595947608338102) / (39.650880710417097 - 23.595947608338102);
    CHECK(exact[30] == Catch::Approx(std::pow(1e6, -60.0 / 128) * (share / 4 + 1 - share)).epsilon(1e-9));
    CHECK(read(scaled(with(yarn, {{"attention_factor", 2}}))).rotary.length == 2);
    CHECK(read(scaled(with(yarn, {{"mscale", 1}, {"mscale_all_dim", 1}}))).rotary.length == 1);
    CHECK(read(scaled(with(yarn, {{"mscale", 0.707}, {"mscale_all_dim", 1}}))).rotary.length ==
          Catch::Approx((1 + 0.0707 * std::log(4.0)) / (1 + 0.1 * std::log(4.0))));
    CHECK(read(scaled(with(yarn, {{"factor", 0.5}}))).rotary.length == 1);
    CHECK(read(scaled({{"rope_type", "yarn"}, {"factor", 4}})).rotary.original_context == 64); // the context
    CHECK_THAT(refusal(scaled(with(yarn, {{"rope_theta", 0.5}}))),
               ContainsSubstring("rope_theta: expected a number > 1"));

    for (const auto& [rope, part] : std::vector<std::pair<Json, std::string>>{
             {{{"rope_type", "yarn"}}, "factor"},
             {{{"rope_type", "yarn"}, {"factor", 4}, {"beta_fast", 1}},
              "beta_fast: expected a number > beta_slow = 1"},
             {{{"rope_type", "yarn"}, {"factor", 4}, {"finetuned", true}}, "finetuned: expected no such key"},
             {{{"rope_type", "su"}, {"factor", 4}}, "rope_type: expected default, linear, llama3 or yarn"},
             {{{"rope_type", "dynamic"}, {"factor", 4}}, "found \"dynamic\""},
             {{{"type", "longrope"}}, "found \"longrope\""},
             {{{"rope_type", "linear"}}, "factor"},
             {{{"rope_type", "linear"}, {"factor", -1}}, "found -1"},
             {{{"rope_type", "default"}, {"factor", 2}}, "factor: expected no such key"},
             {{{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}, "partial_rotary_factor: expected 1"},
             {{{"rope_type", "default"}, {"mrope_section", {1, 2}}}, "mrope_section"},
             {{{"rope_type", "linear"}, {"type", "default"}, {"factor", 2}}, "type"},
             {{{"rope_type", "llama3"}, {"factor", 8}}, "low_freq_factor"},
             {with(llama3, {{"high_freq_factor", 1}}), "high_freq_factor"},
             {{{"full_attention", {{"rope_theta", 1e4}}}, {"sliding_attention", {{"rope_theta", 1e6}}}},
              "full_attention: expected a number or text: settings of each layer type"},
             {"default", "expected an object"}}) {
        CAPTURE(rope.dump());
        CHECK_THAT(refusal(scaled(rope)), ContainsSubstring("rope_parameters") && ContainsSubstring(part));
    }
    CHECK_THAT(refusal(with(scaled({{"rope_type", "default"}}),
                            {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2}}}})),
               ContainsSubstring("the same as rope_scaling"));
}

TEST_CASE("turned pairs keep their length, times what the scaling asks for", "[models][config]") {
    // One head of width 4: pairs (0, 2) and (1, 3), at positions 0 to 2.
    Rotary rotary;
    rotary.length = 1.5;
    attnscope::Matrix<double> x(3, 4);
    x << 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4;
    models::rotate(x, 1, 4, 4, rotary);
    for (Index position = 0; position < 3; ++position)
        for (Index c = 0; c < 2; ++c) {
            const double angle = static_cast<double>(position) * (c == 0 ? 1 : 0.01); // 10000^{-2c/4}
            const double a = c == 0 ? 1 : 2, b = c == 0 ? 3 : 4;
            CHECK(x(position, c) == Catch::Approx(1.5 * (a * std::cos(angle) - b * std::sin(angle))));
            CHECK(x(position, c + 2) == Catch::Approx(1.5 * (b * std::cos(angle) + a * std::sin(angle))));
        }
}

TEST_CASE("windows are obeyed where the attention has them and refused elsewhere", "[models][config]") {
    Json mistral = llama;
    mistral["model_type"] = "mistral";
    mistral["sliding_window"] = 6;
    CHECK(read(mistral).window(1) == Index(6));
    const Config mixed = read(with(mistral, {{"layer_types", {"full_attention", "sliding_attention"}}}));
    CHECK(mixed.window(0) == std::nullopt);
    CHECK(mixed.window(1) == Index(6));
    CHECK(read(with(mistral, {{"layer_types", {"full_attention", "full_attention"}}})).window(1) ==
          std::nullopt);
    CHECK(read(with(mistral, {{"sliding_window", nullptr}})).window(0) == std::nullopt);
    CHECK(read(with(mistral, {{"sliding_window", 64}})).window(0) == std::nullopt); // the whole context
    for (const auto& [more, part] : std::vector<std::pair<Json, std::string>>{
             {{{"model_type", "llama"}}, "sliding_window: expected null in a model of type llama"},
             {{{"layer_types", {"full_attention"}}}, "layer_types: expected one for each of the 2 layers"},
             {{{"layer_types", {"full_attention", "chunked_attention"}}}, "layer_types"},
             {{{"layer_types", 5}}, "layer_types"},
             {{{"layer_types", {"sliding_attention", "full_attention"}}, {"sliding_window", nullptr}},
              "sliding_window"},
             {{{"use_sliding_window", false}}, "use_sliding_window"},
             {{{"max_window_layers", 1}}, "max_window_layers"},
             {{{"sliding_window", 0}}, "sliding_window"}}) {
        CAPTURE(more.dump());
        CHECK_THAT(refusal(with(mistral, more)), ContainsSubstring(part));
    }
    CHECK(read(with(llama, {{"sliding_window", 6}, {"use_sliding_window", false}, {"max_window_layers", 1}}))
              .window(0) == std::nullopt);
    CHECK_THAT(refusal(with(gpt2, {{"sliding_window", 6}})),
               ContainsSubstring("sliding_window: expected null"));
}

TEST_CASE("keys that change the arithmetic are refused, unknown ones are named", "[models][config]") {
    CHECK(read(llama).unknown_keys.empty());
    for (const auto& [more, part] : std::vector<std::pair<Json, std::string>>{
             {{{"attn_logit_softcapping", 50}}, "attn_logit_softcapping: expected null"},
             {{{"partial_rotary_factor", 0.25}}, "partial_rotary_factor: expected 1"},
             {{{"quantization_config", {{"bits", 4}}}}, "quantization_config"},
             {{{"embedding_multiplier", 12.0}}, "embedding_multiplier: expected 1"},
             {{{"is_causal", false}}, "is_causal: expected true"},
             {{{"num_local_experts", 8}}, "num_local_experts"},
             {{{"attention_normalizer", "hardmax"}}, "attention_normalizer"},
             {{{"attention_temperature", -1}}, "attention_temperature"}})
        for (const Json& base : {llama, gpt2})
            if (!(base == gpt2 && part.starts_with("partial")))
                CHECK_THAT(refusal(with(base, more)), ContainsSubstring(part));
    CHECK_THAT(refusal(with(gpt2, {{"add_cross_attention", true}})), ContainsSubstring("expected false"));
    CHECK_THAT(refusal(with(gpt2, {{"pruned_heads", {{"0", {1}}}}})), ContainsSubstring("pruned_heads"));

    const Config neutral = read(with(llama, {{"partial_rotary_factor", 1.0},
                                             {"attn_logit_softcapping", nullptr},
                                             {"embedding_multiplier", 1},
                                             {"pruned_heads", Json::object()},
                                             {"torch_dtype", "bfloat16"}}));
    CHECK(neutral.unknown_keys.empty());
    CHECK(read(with(gpt2, {{"time_step_limit", {0, 1}}, {"frobnicate", true}})).unknown_keys ==
          std::vector<std::string>{"frobnicate", "time_step_limit"});
}

TEST_CASE("sizes of a configuration are bounded and their products fit", "[models][config]") {
    CHECK_THAT(refusal(with(gpt2, {{"n_embd", Index(1) << 62}})),
               ContainsSubstring("n_embd: expected a size of at most 2^40, found 4611686018427387904"));
    CHECK_THAT(refusal(with(gpt2, {{"n_embd", Index(1) << 40}, {"vocab_size", Index(1) << 40}})),
               ContainsSubstring("n_embd: expected a size whose product"));
    CHECK_THAT(refusal(with(llama, {{"num_attention_heads", Index(1) << 40}, {"head_dim", Index(1) << 40}})),
               ContainsSubstring("num_attention_heads"));
    CHECK_THAT(refusal(with(llama, {{"vocab_size", 18446744073709551615U}})), ContainsSubstring("vocab_size"));
    CHECK_THAT(refusal(with(llama, {{"model_type", std::string(5'000'000, 'x')}})),
               ContainsSubstring("model_type: expected gpt2, llama or mistral"));
}

TEST_CASE("architectures without a head give layers and no loss", "[models][config]") {
    for (const char* name : {"GPT2Model", "GPT2ForSequenceClassification", "LlamaModel", "MistralModel"})
        CHECK_FALSE(read(with(gpt2, {{"architectures", {name}}})).has_head);
    for (const char* name : {"GPT2LMHeadModel", "LlamaForCausalLM", "GPT2DoubleHeadsModel"})
        CHECK(read(with(gpt2, {{"architectures", {name}}})).has_head);
    CHECK(read(gpt2).has_head);

    const Config config = read(with(gpt2, {{"architectures", {"GPT2Model"}}}));
    const models::Model model(config, std::make_shared<models::RandomParameters>(config, 1));
    models::RunOptions<float> options;
    options.loss = true;
    Index layers = 0;
    options.layer = [&](const models::LayerView<float>& layer) { layers += layer.heads.queries() == 3; };
    const auto result = model.run<float>(std::vector<std::int32_t>{1, 2, 3}, options);
    CHECK(layers == 2);
    CHECK(result.logits_last.size() == 0);
    CHECK(std::isnan(result.loss));
    CHECK(result.hidden.rows() == 3);
    CHECK_THROWS_WITH(models::continue_greedily(model, {1}, 1), ContainsSubstring("without a head"));
}

TEST_CASE("a model runs with the normaliser of its configuration", "[models][config]") {
    const Config config =
        read(with(gpt2, {{"attention_normalizer", "entmax:1.5"}, {"attention_temperature", 0.5}}));
    Config plain = config;
    plain.normalizer = "softmax";
    plain.temperature = 1;
    const auto parameters = std::make_shared<models::RandomParameters>(config, 1);
    const models::Model own(config, parameters), other(plain, parameters);
    CHECK(own.normalizer().name() == "entmax:1.5");
    const std::vector<std::int32_t> ids = {1, 2, 3, 4, 5, 6};
    models::RunOptions<double> options;
    options.normalizer = own.normalizer();
    const auto result = own.run<double>(ids);
    CHECK(result.hidden.isApprox(other.run<double>(ids, options).hidden, 0.0));
    CHECK_FALSE(result.hidden.isApprox(other.run<double>(ids).hidden, 1e-12));
}

TEST_CASE("stories260k with theta in rope_parameters loses what llama.cpp says", "[models][config]") {
    const std::string weights = attnscope_test::data_folder() + "/stories260k/model.safetensors",
                      tokens = attnscope_test::data_folder() + "/stories260k/tokens.txt";
    if (!std::filesystem::exists(weights)) {
        std::cout << "attnscope test skipped: there is no " << weights << '\n';
        return;
    }
    const TemporaryFolder folder;
    std::filesystem::copy_file(weights, folder.path("model.safetensors"));
    Json config =
        Json::parse(attnscope::io::read_file(attnscope_test::data_folder() + "/stories260k/config.json"));
    config.erase("rope_theta");
    config["rope_parameters"] = {{"rope_theta", 500000.0}, {"rope_type", "default"}};
    folder.write("config.json", config.dump());
    auto ids = models::parse_ids(attnscope::io::read_file(tokens), tokens);
    ids.resize(192);
    models::RunOptions<double> options;
    options.loss = true;
    // llama.cpp: 1.0746, good to 1e-3 (float16 caches).
    CHECK(models::Model::load(folder.path()).run<double>(ids, options).loss ==
          Catch::Approx(1.0742).margin(5e-5));
}
