// attnscope-paper: the experiments of arXiv:2508.17821 on every head of a model.

#include "experiment.hpp"

#include <thread>

int main(int argc, char** argv) {
    CLI::App app("x", "attnscope-paper");
    models::PromptOptions prompt_options(app, "x");
    std::string threads = "2";
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    bool quick = false;
    app.add_flag("--quick", quick, "");
    return program::run(app, argc, argv, [&] {
        prompt_options.check(true);
        paper::Settings settings;
        settings.threads = program::whole_number<paper::Index>("--threads", threads, 1, 1024);
        const auto prompt = prompt_options.read();
        fill_grids(settings, static_cast<paper::Index>(prompt.ids.size()), quick);
        const auto result = paper::run(prompt, settings);
        fmt::print("{:.2f} s, forward {:.2f}, loss {:.3f}\n", result.seconds, result.forward_seconds, result.loss);
        for (std::size_t l = 0; l < settings.lengths.size(); ++l) {
            const auto c = result.critical(l);
            fmt::print("L {} critical {} d5 {:.4f} \n", c.length, c.count.value_or(-1), result.over_heads(paper::Figure::distance, l, *result.place(5)).mean);
        }
    });
}
