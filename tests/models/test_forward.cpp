// The forward pass against float64 references of two trained models, and folders that are not what they say.
#include <attnscope/io/safetensors.hpp>
#include <models/forward.hpp>
#include <models/tokenizer.hpp>
#include <support/catch.hpp>
#include <support/named_normalizer.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/file.hpp>

#include <nlohmann/json.hpp>

#include <iostream>

using attnscope::HeadView;
using attnscope::Index;
using attnscope::Matrix;
using attnscope::io::SafetensorsFile;
using attnscope_test::TemporaryFolder;
using Catch::Matchers::ContainsSubstring;
using models::Model;

namespace {

std::string model_folder(const std::string& name) {
    const std::string folder = attnscope_test::data_folder() + "/" + name;
    if (std::filesystem::exists(folder + "/reference_192.safetensors")) return folder;
    std::cout << "attnscope test skipped: there is no " << folder << '\n';
    return "";
}

std::vector<std::int32_t> narrow(const std::vector<std::int64_t>& ids) { return {ids.begin(), ids.end()}; }

/// Largest difference from a slice of a reference tensor, beyond the rounding of its storage as float.
template <class T>
class Difference {
public:
    Difference(const SafetensorsFile& file, const char* name) : all_(file.read<double>(name)) {}
    void meet(const attnscope::MatrixView<T>& found, Index block) {
        const std::size_t size = static_cast<std::size_t>(found.rows() * found.cols());
        REQUIRE((static_cast<std::size_t>(block) + 1) * size <= all_.size());
        for (Index i = 0; i < found.rows(); ++i)
            for (Index c = 0; c < found.cols(); ++c) {
                const double truth = all_[static_cast<std::size_t>(block) * size +
                                          static_cast<std::size_t>(i * found.cols() + c)];
                const double apart = std::abs(static_cast<double>(found.map()(i, c)) - truth);
                largest_ = std::max(largest_, apart - 0x1p-24 * std::abs(truth));
                met_ += 1;
            }
    }
    double largest() const { return met_ == all_.size() ? largest_ : std::numeric_limits<double>::infinity(); }

private:
    std::vector<double> all_;
    double largest_ = 0;
    std::size_t met_ = 0;
};

template <class T>
void meet_reference(const std::string& folder, double tolerance) {
    const Model model = Model::load(folder);
    const SafetensorsFile file(folder + "/reference_192.safetensors");
    const auto ids = narrow(file.read_integers("token_ids"));
    Difference<T> q(file, "q"), k(file, "k"), v(file, "v"), weights(file, "weights"), hidden(file, "hidden");
    models::RunOptions<T> options;
    options.weights = true;
    Index layers = 0;
    options.layer = [&](const models::LayerView<T>& layer) {
        hidden.meet(attnscope::MatrixView<T>(layer.hidden), layer.layer);
        for (Index h = 0; h < layer.heads.heads(); ++h) {
            const Index block = layer.layer * layer.heads.heads() + h;
            const HeadView<T> head = layer.heads[h];
            q.meet(head.q(), block);
            k.meet(head.k(), block);
            v.meet(head.v(), block);
            weights.meet(attnscope::MatrixView<T>(layer.weights[static_cast<std::size_t>(h)]), block);
        }
        ++layers;
    };
    const auto result = model.run<T>(ids, options);
    hidden.meet(attnscope::MatrixView<T>(result.hidden), layers);
    CHECK(layers == model.config().layers);
    CHECK(q.largest() <= tolerance);
    CHECK(k.largest() <= tolerance);
    CHECK(v.largest() <= tolerance);
    CHECK(weights.largest() <= tolerance);
    CHECK(hidden.largest() <= tolerance);
    Difference<T> logits(file, "logits_last");
    logits.meet(attnscope::MatrixView<T>(result.logits_last.data(), 1, result.logits_last.size()), 0);
    CHECK(logits.largest() <= tolerance);

    // Without weights the outputs come from a scan; with threads from several: the same to rounding, and to the
    // bit.
    models::RunOptions<T> plain;
    const auto scanned = model.run<T>(ids, plain);
    plain.threads = 3;
    CHECK(model.run<T>(ids, plain).logits_last.isApprox(scanned.logits_last, T(0)));
    CHECK((scanned.logits_last - result.logits_last).abs().maxCoeff() <= static_cast<T>(tolerance));
}

void copy_folder(const std::string& from, const TemporaryFolder& to) {
    for (const char* name : {"config.json", "model.safetensors"})
        std::filesystem::copy_file(from + "/" + name, to.path(name),
                                   std::filesystem::copy_options::overwrite_existing);
    std::filesystem::permissions(to.path("config.json"), std::filesystem::perms::owner_all);
    std::filesystem::permissions(to.path("model.safetensors"), std::filesystem::perms::owner_all);
}

std::string refusal(const std::string& folder, std::vector<std::int32_t> ids = {1, 2, 3}) {
    try {
        (void)Model::load(folder).run<float>(ids);
    } catch (const std::exception& error) {
        const std::string message = error.what();
        CHECK(message.find('\n') == std::string::npos);
        CHECK_THAT(message, ContainsSubstring(folder));
        return message;
    }
    return "nothing is refused";
}

} // namespace

TEST_CASE("GPT-2 agrees with its reference", "[models][forward]") {
    const std::string folder = model_folder("tiny-gpt2");
    if (folder.empty()) return;
    meet_reference<float>(folder, 1e-4);
    meet_reference<double>(folder, 2e-6);
}

TEST_CASE("Llama agrees with its reference", "[models][forward]") {
    const std::string folder = model_folder("stories260k");
    if (folder.empty()) return;
    meet_reference<float>(folder, 1e-4);
    meet_reference<double>(folder, 2e-6);
}

TEST_CASE("greedy decoding gives the tokens that the model's author got", "[models][forward]") {
    const std::string folder = model_folder("stories260k");
    if (folder.empty()) return;
    const auto expected = models::parse_ids(attnscope::io::read_file(folder + "/tokens.txt"), "tokens.txt");
    REQUIRE(expected.size() > 100);
    REQUIRE(expected.front() == 1);
    CHECK(models::continue_greedily(Model::load(folder), {1}, static_cast<Index>(expected.size()) - 1, 2) ==
          expected);
}

TEST_CASE("the loss knows its normaliser", "[models][forward]") {
    const std::string folder = model_folder("tiny-gpt2");
    if (folder.empty()) return;
    const Model model = Model::load(folder);
    auto ids = models::parse_ids(attnscope::io::read_file(folder + "/tokens.txt"), "tokens.txt");
    ids.resize(150);
    models::RunOptions<double> options;
    options.loss = true;
    const double trained = model.run<double>(ids, options).loss;
    // The mean of -log p of each next token, from the last logits of every prefix.
    double sum = 0;
    for (std::size_t n = 1; n < ids.size(); n += 37) {
        const auto logits = model.run<double>(std::span(ids).first(n)).logits_last;
        const double top = logits.maxCoeff();
        sum += top + std::log((logits - top).exp().sum()) - logits[ids[n]];
    }
    double direct = 0, count = 0;
    for (std::size_t n = 1; n < ids.size(); n += 37) {
        models::RunOptions<double> shorter;
        shorter.loss = true;
        const auto upto = std::span<const std::int32_t>(ids).first(n + 1);
        const double whole = model.run<double>(upto, shorter).loss * static_cast<double>(n);
        const double before =
            n > 1 ? model.run<double>(upto.first(n), shorter).loss * static_cast<double>(n - 1) : 0;
        direct += whole - before;
        count += 1;
    }
    CHECK(direct == Catch::Approx(sum).epsilon(1e-9));
    CHECK(count == 5);
    // A trained model loses by another temperature, and by weights that ignore the logits.
    for (const char* name : {"temperature:0.2", "temperature:5", "temperature:1000"}) {
        options.normalizer = program::named_normalizer(name);
        CHECK(model.run<double>(ids, options).loss > trained);
    }
    options.normalizer = program::named_normalizer("topk:1000"); // takes nothing away
    CHECK(model.run<double>(ids, options).loss == Catch::Approx(trained).epsilon(1e-12));
}

TEST_CASE("the temperature of config.json reaches the attention", "[models][forward]") {
    const std::string folder = model_folder("tiny-gpt2");
    if (folder.empty()) return;
    models::Config config = models::read_config(folder + "/config.json");
    const auto parameters = std::make_shared<models::FileParameters>(folder, config);
    const std::vector<std::int32_t> ids = {5, 1, 7, 3, 2, 9, 4, 8};
    models::RunOptions<double> options;
    options.loss = true;
    const double plain = models::Model(config, parameters).run<double>(ids, options).loss;
    config.temperature = 0.5;
    const double colder = models::Model(config, parameters).run<double>(ids, options).loss;
    CHECK(std::abs(colder - plain) > 1e-6);
    config.temperature = 1;
    options.normalizer = program::named_normalizer("temperature:0.5|softmax");
    CHECK(colder ==
          Catch::Approx(models::Model(config, parameters).run<double>(ids, options).loss).epsilon(1e-12));
}

TEST_CASE("parts with a prefix are the same model", "[models][forward]") {
    const std::string folder = model_folder("tiny-gpt2");
    if (folder.empty()) return;
    const TemporaryFolder parts;
    copy_folder(folder, parts);
    const SafetensorsFile whole(folder + "/model.safetensors");
    attnscope::io::SafetensorsWriter first, second;
    nlohmann::json map;
    for (const std::string& name : whole.names()) {
        const bool one = map.size() % 2 == 0;
        const std::string renamed = name.starts_with("lm_head") ? name : "transformer." + name;
        (one ? first : second)
            .add(renamed, std::span<const float>(whole.read<float>(name)), whole.info(name).shape);
        map[renamed] = one ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
    }
    // Buffers of old checkpoints: not looked at.
    first.add("transformer.h.0.attn.bias", std::span<const float>(std::vector<float>(4, 1.F)), {1, 1, 2, 2});
    first.write(parts.path("model-00001-of-00002.safetensors"));
    second.write(parts.path("model-00002-of-00002.safetensors"));
    parts.write("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
    std::filesystem::remove(parts.path("model.safetensors"));
    const std::vector<std::int32_t> ids = {5, 17, 4000, 3};
    CHECK(Model::load(parts.path())
              .run<float>(ids)
              .logits_last.isApprox(Model::load(folder).run<float>(ids).logits_last, 0.F));
    std::filesystem::remove(parts.path("model-00002-of-00002.safetensors"));
    CHECK_THAT(refusal(parts.path()), ContainsSubstring("model-00002-of-00002.safetensors"));
    parts.write("model.safetensors.index.json", "{}");
    CHECK_THAT(refusal(parts.path()), ContainsSubstring("weight_map"));
    parts.write("model.safetensors.index.json", std::string(200'000, '['));
    CHECK_THAT(refusal(parts.path()), ContainsSubstring("model.safetensors.index.json: at byte 65: "));
}

TEST_CASE("broken model folders are refused in one line", "[models][forward]") {
    const std::string folder = model_folder("tiny-gpt2");
    if (folder.empty()) return;
    const TemporaryFolder broken;
    copy_folder(folder, broken);
    CHECK(refusal(broken.path()) == "nothing is refused");
    const auto original = nlohmann::json::parse(attnscope::io::read_file(folder + "/config.json"));
    const auto with = [&](const char* key, const nlohmann::json& value) {
        auto config = original;
        config[key] = value;
        broken.write("config.json", config.dump());
    };
    with("n_head", 5);
    CHECK_THAT(refusal(broken.path()),
               ContainsSubstring("n_embd: expected a multiple of n_head = 5, found 48"));
    with("n_head", "four");
    CHECK_THAT(refusal(broken.path()),
               ContainsSubstring("n_head: expected a whole number > 0, found \"four\""));
    with("n_layer", 0);
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("n_layer"));
    with("n_layer", 3);
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("h.2.ln_1.weight: expected this tensor, found none"));
    with("n_inner", 100);
    CHECK_THAT(
        refusal(broken.path()),
        ContainsSubstring("h.0.mlp.c_fc.weight: expected shape [48, 100] by config.json, found [48, 192]"));
    with("model_type", "bert");
    CHECK_THAT(refusal(broken.path()),
               ContainsSubstring("model_type: expected gpt2, llama or mistral, found \"bert\""));
    with("activation_function", "relu");
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("activation_function"));
    with("tie_word_embeddings", "yes");
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("tie_word_embeddings"));
    for (const auto& [content, part] :
         std::vector<std::pair<std::string, std::string>>{{"{", "at byte 1"},
                                                          {"{\"n_head\": 8888e888888}", "at byte 11"},
                                                          {"{\"n_head\": Infinity}", "at byte 11: Infinity"},
                                                          {std::string(200'000, '['), "at byte 65"},
                                                          {"{\"n_head\": 4, \"n_head\": 4}", "twice"},
                                                          {"[]", "expected a JSON object"}}) {
        broken.write("config.json", content);
        CHECK_THAT(refusal(broken.path()), ContainsSubstring("config.json") && ContainsSubstring(part));
    }
    std::filesystem::remove(broken.path("config.json"));
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("config.json"));

    copy_folder(folder, broken);
    CHECK_THAT(refusal(broken.path(), {1, 4096}),
               ContainsSubstring("token 1: expected an id from 0 to 4095, found 4096"));
    CHECK_THAT(refusal(broken.path(), {-1}), ContainsSubstring("found -1"));
    CHECK_THAT(refusal(broken.path(), std::vector<std::int32_t>(193, 1)),
               ContainsSubstring("expected 1 to 192, found 193"));
    CHECK_THAT(refusal(broken.path(), {}), ContainsSubstring("found 0"));
    // A tensor of whole numbers where floats belong.
    attnscope::io::SafetensorsWriter writer;
    const SafetensorsFile whole(folder + "/model.safetensors");
    for (const std::string& name : whole.names())
        if (name == "ln_f.weight")
            writer.add(name, std::span<const std::int64_t>(std::vector<std::int64_t>(48, 1)), {48});
        else
            writer.add(name, std::span<const float>(whole.read<float>(name)), whole.info(name).shape);
    writer.write(broken.path("model.safetensors"));
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("ln_f.weight"));
    broken.write("model.safetensors", "nothing");
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("model.safetensors"));
    std::filesystem::remove(broken.path("model.safetensors"));
    CHECK_THAT(refusal(broken.path()), ContainsSubstring("model.safetensors.index.json"));
}

TEST_CASE("random weights are the same everywhere and say what they are", "[models][forward]") {
    models::Config config = *models::preset("gpt2");
    CHECK(config.layers == 12);
    CHECK_FALSE(models::preset("gpt3"));
    config.layers = 2;
    config.width = 64, config.heads = config.key_heads = 4, config.head_width = 16, config.inner = 256;
    config.vocabulary = 300;
    const Model one(config, std::make_shared<models::RandomParameters>(config, 1)),
        other(config, std::make_shared<models::RandomParameters>(config, 2));
    const std::vector<std::int32_t> ids = {5, 299, 0};
    models::RunOptions<float> options;
    options.loss = true;
    const auto result = one.run<float>(ids, options);
    CHECK(result.logits_last.isApprox(one.run<float>(ids).logits_last, 0.F));
    CHECK_FALSE(result.logits_last.isApprox(other.run<float>(ids).logits_last, 0.1F));
    CHECK(result.loss == Catch::Approx(std::log(300)).margin(0.3)); // nearly uniform
    CHECK_THAT(one.parameters().origin(), ContainsSubstring("not a trained model"));
}
