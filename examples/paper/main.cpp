// attnscope-paper: the experiments of arXiv:2508.17821 on every head of a model, as a page, pictures and
// tables.

#include "gguf.hpp"
#include "page.hpp"

#include <attnscope/analysis/findings.hpp>
#include <report/page.hpp>
#include <report/run.hpp>
#include <support/gnuplot.hpp>

#include <fmt/ranges.h>

#include <thread>

namespace {

using attnscope::printable;
using paper::Result;
using paper::Settings;

/// Place of a name in a list. Throws `usage_error` that lists what there is.
template <class Enum, std::size_t N>
Enum chosen(std::string_view option, const std::array<std::string_view, N>& names, std::string_view text) {
    for (std::size_t i = 0; i < N; ++i)
        if (names[i] == text) return static_cast<Enum>(i);
    throw program::usage_error(
        fmt::format("{} must be one of {}, got {}", option, fmt::join(names, ", "), text));
}

void print(const Result& result) {
    fmt::print("model     {}\n          {}\n", printable(result.model), result.shape);
    fmt::print("text      {}, {} tokens{}\n", printable(result.text), result.tokens(),
               result.tokens() < result.available
                   ? fmt::format(" of {}: the rest is left out", result.available)
                   : std::string());
    if (std::isnan(result.loss))
        fmt::print("loss      none: the model predicts no next token\n");
    else
        fmt::print("loss      {:.4f} nats a token\n", result.loss);
    for (const auto& [name, choice] : choices(result)) fmt::print("{}: {}\n", name, choice);
    fmt::print("\n");
    for (const attnscope::Finding& finding : attnscope::findings(result))
        fmt::print("{:<12} the paper: {}\n{:<12} here: {}\n{:<12} {}\n", finding.experiment, finding.paper, "",
                   finding.here, "", name_of(finding.agreement));
    fmt::print("\n{}", attnscope::to_table(result.audit));
    const std::size_t violated = result.audit.sharp_violations();
    fmt::print("{}\n\n", violated == 0 ? std::string("No sharp statement is violated.")
                                       : fmt::format("{} rows violate a sharp statement.", violated));
}

constexpr std::string_view page_name = "report.html";

/// Of all files that `write` makes.
std::vector<std::string> names_of_files(bool with_pictures) {
    std::vector<std::string> names = paper::names_of_tables();
    names.emplace_back(page_name);
    if (with_pictures)
        for (const std::string_view name : attnscope::experiment_picture_names)
            for (const std::string_view ending : {".svg", ".png"})
                names.push_back(fmt::format("{}{}", name, ending));
    return names;
}

/// Everything is made first and then written, each file whole or not at all, the page last.
std::vector<paper::DrawnPicture> write(const Result& result, const std::filesystem::path& folder,
                                       bool with_pictures) {
    std::vector<paper::File> files = paper::tables(result);
    std::vector<paper::DrawnPicture> drawn;
    if (with_pictures) {
        using Format = attnscope::PictureFormat;
        for (const attnscope::ExperimentPicture& picture : attnscope::experiment_pictures(result)) {
            const auto draw = [&](Format format) { return gnuplot::run(gnuplot_script(picture, format)); };
            drawn.push_back({picture, draw(Format::svg), draw(Format::svg_dark)});
            files.push_back({picture.name + ".svg", drawn.back().light});
            files.push_back({picture.name + ".png", draw(Format::png)});
        }
    }
    files.push_back({std::string(page_name), to_page(result, drawn)});
    std::filesystem::create_directories(folder);
    program::write_all(folder, files);
    return drawn;
}

/// The page of attnscope-report of the same heads, with the experiments on it.
std::string explored(attnscope::Capture capture, const Result& result, const std::string& command,
                     std::string_view experiments) {
    attnscope::ReportOptions asked;
    asked.patterns = asked.keep_rows = true;
    asked.threads = result.threads;
    asked.analysis.counts = {1, 2, 5, 10, 20, 50, 100};
    asked.analysis.reading = result.options.reading;
    asked.analysis.radius = result.options.radius;
    asked.analysis.seed = result.options.seed;
    return report::to_page(report::make(std::move(capture), std::move(asked)), command, experiments);
}

/// What runs beside softmax of queries and keys, on which every figure is.
void warn_of_others(const std::string& program, std::string_view attends) {
    program::warn(
        program,
        fmt::format("the model attends with {}, and so it runs; every figure is of softmax at temperature "
                    "1 on its queries and keys",
                    attends));
}

/// What the experiments gave, and the heads that they were run on, which run again when they are read.
struct Done {
    Result result;
    std::function<attnscope::Capture()> capture;
};

/// Cuts the tokens and fills the grids; then runs everything.
Result of(const std::function<paper::Source()>& source, std::vector<std::int32_t>& ids, const std::string& text,
          Settings settings, bool quick) {
    if (quick && ids.size() > 256) ids.resize(256);
    if (ids.size() < 2)
        throw std::runtime_error(fmt::format("{}: at least 2 tokens are needed, found 1", text));
    settings.experiments =
        attnscope::experiment_options(std::ssize(ids), quick, std::move(settings.experiments));
    return paper::run(source(), std::move(settings));
}

Done of_folder(const std::string& program, const models::PromptOptions& options, Settings settings,
               bool quick) {
    models::Prompt prompt = options.read();
    for (const std::string& remark : prompt.model.remarks()) program::warn(program, remark);
    const models::Config& config = prompt.model.config();
    if (config.normalizer != "softmax" || config.temperature != 1)
        warn_of_others(program, fmt::format("{} at temperature {}", config.normalizer, config.temperature));
    const paper::Index threads = settings.threads;
    Result result = of([&] { return paper::source_of(prompt, threads); }, prompt.ids, prompt.source,
                       std::move(settings), quick);
    const std::string& named = options.text().tokenizer();
    return {std::move(result), [prompt = std::make_shared<models::Prompt>(std::move(prompt)), threads,
                                tokenizer = named.empty() ? options.folder() : named] {
                return models::capture_of(std::move(*prompt), tokenizer, threads);
            }};
}

Done of_gguf(const std::string& program, const models::PromptOptions& options, Settings settings, bool quick) {
    if (settings.token == paper::Token::contribution)
        throw program::usage_error(
            "--vectors: of a GGUF model the values and the residual stream are at hand, not W_O");
    models::GgufPrompt prompt = models::open_gguf(options.folder(), options.text(), settings.threads);
    for (const std::string& remark : prompt.remarks()) program::warn(program, remark);
    if (const double softcap = prompt.layers[0].softcap; softcap != 0)
        warn_of_others(program, fmt::format("a softcap of {}", softcap));
    if (!prompt.sinks().empty()) warn_of_others(program, "learned sinks");
    const paper::Index threads = settings.threads;
    const bool hidden = settings.token == paper::Token::hidden;
    Result result = of([&] { return paper::source_of(prompt, threads, hidden); }, prompt.text.ids,
                       prompt.text.source, std::move(settings), quick);
    return {std::move(result),
            [prompt = std::make_shared<models::GgufPrompt>(std::move(prompt)), file = options.folder(),
             threads] { return models::capture_of_gguf(file, std::move(*prompt), threads); }};
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "The five algorithms of arXiv:2508.17821, the audit of its statements and what it does not have, on "
        "every head of a model and a text. Writes report.html, pictures, results.json and CSV files.",
        "attnscope-paper");
    models::PromptOptions prompt_options(app,
                                         "everything that is drawn, --random-weights and their text included");
    std::string vectors = "value", unit = "separability", reading = "cumulative", short_rows = "exclude",
                level = "0.05", radius = "nearest", out = "paper-results", html;
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    bool quick = false, no_pictures = false;
    app.add_option("--out", out, "the folder to write")->type_name("FOLDER")->capture_default_str();
    app.add_option(
           "--html", html,
           "also write a page to explore the heads in a browser, as attnscope-report makes it, with the "
           "experiments on it")
        ->type_name("FILE");
    app.add_flag("--quick", quick, "at most 256 tokens and coarser grids of N and T");
    app.add_flag("--no-pictures", no_pictures, "do without gnuplot");
    app.add_option("--vectors", vectors,
                   "what stands for a token: its value, hidden (the residual stream) or "
                   "contribution (W_O v)")
        ->capture_default_str();
    app.add_option("--unit-vectors", unit,
                   "where they are divided by their length: nowhere, separability, everywhere")
        ->capture_default_str();
    app.add_option("--reading", reading, "of the distance: cumulative or resultant")->capture_default_str();
    app.add_option("--short-rows", short_rows, "rows with no more than N keys: exclude them, or zero distance")
        ->capture_default_str();
    app.add_option("--level", level, "of the Kolmogorov-Smirnov test for the critical N")
        ->capture_default_str();
    app.add_option("--radius", radius,
                   "of the ball of Algorithm 4: nearest (token that is not selected) or a number")
        ->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        prompt_options.check(true);
        Settings settings;
        settings.token = chosen<paper::Token>("--vectors", paper::token_names, vectors);
        attnscope::ExperimentOptions& asked = settings.experiments;
        asked.unit_vectors = chosen<attnscope::UnitVectors>("--unit-vectors", paper::unit_names, unit);
        asked.short_rows = chosen<attnscope::ShortRows>("--short-rows", paper::short_row_names, short_rows);
        asked.reading = chosen<attnscope::Reading>(
            "--reading", std::array<std::string_view, 2>{"cumulative", "resultant"}, reading);
        asked.level = program::positive_number("--level", level, 1);
        if (radius != "nearest") asked.radius = program::positive_number("--radius", radius);
        settings.threads = program::whole_number<paper::Index>("--threads", threads, 1, 1024);
        asked.seed = prompt_options.seed();
        program::require_output_folder("--out", out, names_of_files(!no_pictures), prompt_options.inputs());
        if (!no_pictures) gnuplot::require("attnscope-paper", "--no-pictures does without");

        if (html == "-") throw program::usage_error("--html: must name a file, got -");
        program::require_outputs({{"--html", html}}, prompt_options.inputs());
        for (const std::string& name : names_of_files(!no_pictures)) {
            std::error_code code;
            if (!html.empty() && std::filesystem::weakly_canonical(html, code) ==
                                     std::filesystem::weakly_canonical(std::filesystem::path(out) / name, code))
                throw program::usage_error(fmt::format("--html: {} is a file of --out", html));
        }
        const Done done = models::is_gguf(prompt_options.folder())
                              ? of_gguf(app.get_name(), prompt_options, std::move(settings), quick)
                              : of_folder(app.get_name(), prompt_options, std::move(settings), quick);
        const Result& result = done.result;
        print(result);
        const std::vector<paper::DrawnPicture> drawn = write(result, out, !no_pictures);
        if (!html.empty()) {
            const std::string command = report::shell_line(argc, argv, app.get_name());
            program::write_whole(html, explored(done.capture(), result, command, to_section(result, drawn)));
        }
        fmt::print("time      {:.1f} s, of these {:.1f} s for the model; {} thread{}\n", result.seconds,
                   result.forward_seconds, result.threads, result.threads == 1 ? "" : "s");
        fmt::print("written   {}\n", printable((std::filesystem::path(out) / page_name).string()));
        if (!html.empty()) fmt::print("          {}\n", printable(html));
    });
}
