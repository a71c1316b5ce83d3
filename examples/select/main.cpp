// attnscope-select: what do policies that keep few keys keep of the attention of a head, and whose fault is the rest?

#include "output.hpp"

#include <models/model_capture.hpp>
#include <support/gnuplot.hpp>
#include <support/program.hpp>

#include <thread>

int main(int argc, char** argv) {
    using attnscope::Index;
    CLI::App app(
        "What do policies that keep few keys (sparse attention, caches that forget) keep of the attention of "
        "every head? The mass that is lost is told apart: the selector's fault, and what no selection of so "
        "many keys could keep. Without INPUT, synthetic heads are measured.",
        "attnscope-select");
    std::vector<std::string> inputs;
    std::string policies = "top,quest,h2o,snapkv,tova,window,random", budgets = "64,256", sets, json, csv,
                picture, seed_text = "1", prompt = "0";
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    bool geometry = false;
    app.add_option(
        "INPUT", inputs,
        "a safetensors or .npz file with q, k and optional v, each [heads,n,d], [layers,heads,n,d] or "
        "[batch,layers,heads,n,d]; or .npy parts q=FILE k=FILE v=FILE; or a model that runs on --text: a "
        "folder with config.json and model.safetensors, or a GGUF file");
    const models::ModelOptions model_options(app, "--length", false);
    app.add_option("--policy", policies,
                   "NAME[:BUDGET[:PARAMETER]],...: top; window:LAST[:SINKS]; h2o[:BUDGET[:LAST]]; "
                   "snapkv[:BUDGET[:OBSERVED]]; tova; quest[:BUDGET[:BLOCK]]; random; "
                   "certified[:MASS[:BLOCK]], ranged and hindsight likewise; none")
        ->capture_default_str();
    app.add_option("--budget", budgets, "keys a query, for policies without their own")->capture_default_str();
    app.add_option("--sets", sets, "also the sets of this safetensors or .npz file, as an engine made them");
    app.add_option("--prompt", prompt, "queries that see all of their keys before a cache forgets; not counted")
        ->capture_default_str();
    app.add_flag("--geometry", geometry, "also distance and separability of the sets among the values");
    const auto capture_options = program::add_capture_options(app, false);
    app.add_option("--seed", seed_text, "of random selections and of the synthetic heads")
        ->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--json", json, "write JSON to this file; - for standard output instead of the text");
    app.add_option("--csv", csv, "write a line for every policy and head to this file");
    app.add_option("--picture", picture, "write mass against budget and a map of the heads to this SVG file");

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        select_keys::Settings settings;
        std::vector<Index> list;
        for (std::string_view rest = budgets;;) {
            const std::size_t comma = rest.find(',');
            list.push_back(program::whole_number<Index>("--budget", std::string(rest.substr(0, comma)), 1,
                                                        Index(1) << 40));
            if (comma == rest.npos) break;
            rest.remove_prefix(comma + 1);
        }
        try {
            if (policies != "none") settings.policies = attnscope::selection_policies(policies, list);
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--policy: {}", error.what()));
        }
        if (settings.policies.empty() && sets.empty())
            throw program::usage_error("--policy none: there is nothing to measure without --sets");
        settings.sets = sets;
        settings.geometry = geometry;
        settings.prompt = program::whole_number<Index>("--prompt", prompt, 0, Index(1) << 40);
        settings.seed = program::whole_number<std::uint64_t>("--seed", seed_text, 0, ~std::uint64_t(0));
        settings.threads = program::whole_number<Index>("--threads", threads, 1, 1024);
        model_options.check();
        std::vector<std::string> read = model_options.inputs();
        read.insert(read.end(), inputs.begin(), inputs.end());
        if (!sets.empty()) read.push_back(sets);
        program::require_outputs({{"--json", json}, {"--csv", csv}, {"--picture", picture}}, read);
        if (!picture.empty()) gnuplot::require("--picture", "leave it out");

        const attnscope::Capture capture =
            model_options.open(inputs, settings.seed, capture_options(), settings.threads);
        const select_keys::Result result = select_keys::measure(capture, settings);
        if (!csv.empty()) program::write_whole(csv, to_csv(result));
        if (!picture.empty()) program::write_whole(picture, to_svg(result));
        if (!json.empty()) program::write_whole(json, to_json(result));
        if (json != "-") fmt::print("{}", to_text(result));
    });
}
