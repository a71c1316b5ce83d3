// attnscope-report on heads of real models.
#ifdef ATTNSCOPE_REPORT_PROGRAM // not there when the examples are not built

#include <support/report_reference.hpp>

namespace {

using namespace report_test;

TEST_CASE("io report: real GPT-2 heads", "[io][report][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no john_smith_n9.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    const Input input = read_input(path);
    const Json json = run_json(folder, {path});
    compare(json, input, {.causal = true});
    CHECK(json.at("heads").size() == 144);
    CHECK(json.at("max_weight_difference") < 1e-6);
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == "corollary3" && entry.at("form") == "published") CHECK(entry.at("violated") > 0);
}

TEST_CASE("io report: real GPT-2 weights alone", "[io][report][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/dog_on_ship_n17_weights.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no dog_on_ship_n17_weights.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    compare(run_json(folder, {path}), read_input(path), {.causal = true});
}

TEST_CASE("io report: real heads of small models, 192 tokens", "[io][report][data]") {
    const std::string model = GENERATE("tiny-gpt2", "stories260k");
    const std::string path = attnscope_test::data_folder() + "/" + model + "/reference_192.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no " + model + "/reference_192.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    compare(run_json(folder, {path, "--layers", "1"}), read_input(path), {.causal = true, .layers = {1}});
}

} // namespace

#endif
