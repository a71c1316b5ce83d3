// attnscope-training-temperature: what temperature and normaliser do to small models that must find one key.

#include "output.hpp"

#include <support/gnuplot.hpp>
#include <support/program.hpp>

#include <thread>

int main(int argc, char** argv) {
    CLI::App app(
        "Trains small attention models that must find one key: softmax at several temperatures, then several "
        "normalisers beyond their training length. Prints tables, writes CSV files and pictures.",
        "attnscope-training-temperature");
    std::string out, seed = "1", threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    bool quick = false, no_pictures = false;
    app.add_option("--out", out, "the folder to write [none]")->type_name("FOLDER");
    app.add_option("--seed", seed, "of the first of three models each")->capture_default_str();
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_flag("--quick", quick, "fewer temperatures, normalisers, seeds and steps");
    app.add_flag("--no-pictures", no_pictures, "do without gnuplot");

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        temperature::Settings settings;
        settings.seed = static_cast<std::uint64_t>(program::whole_number<attnscope::Index>(
            "--seed", seed, 0, std::numeric_limits<attnscope::Index>::max() / 2));
        settings.threads = program::whole_number<attnscope::Index>("--threads", threads, 1, 1024);
        if (quick) {
            settings.temperatures = {0.1, 1, 10};
            settings.normalizers = {"softmax", "entmax:1.5"};
            settings.seeds = 1;
            settings.steps = 100;
            settings.stretches = {1, 4};
            settings.examples = 16;
        }
        const bool pictures = !out.empty() && !no_pictures;
        if (!out.empty()) program::require_output_folder("--out", out, std::array<const char*, 0>{}, {});
        if (pictures) gnuplot::require("--out", "--no-pictures does without");
        const temperature::Result result = temperature::run(settings);
        fmt::print("{}", to_text(result));
        if (out.empty()) {
            fmt::print("\ntime      {:.0f} s\n", result.seconds);
            return;
        }
        std::vector<std::pair<std::string, std::string>> files = {{"training.csv", runs_csv(result)},
                                                                  {"lengths.csv", lengths_csv(result)}};
        if (pictures)
            for (const auto& [name, script, height] : {std::tuple("training", training_picture(result), 520),
                                                       std::tuple("lengths", length_picture(result), 560)}) {
                files.emplace_back(
                    fmt::format("{}.svg", name),
                    gnuplot::run(fmt::format("set terminal svg enhanced size 900,{} background '#ffffff' font "
                                             "'Helvetica,13'\n{}",
                                             height, script)));
                files.emplace_back(
                    fmt::format("{}.png", name),
                    gnuplot::run(fmt::format("set terminal pngcairo enhanced size 1800,{} background '#ffffff' "
                                             "font 'Helvetica,20' linewidth 1.6 pointscale 1.6\n{}",
                                             2 * height, script)));
            }
        std::filesystem::create_directories(out);
        program::write_all(out, files);
        fmt::print("\ntime      {:.0f} s\nwritten   {}\n", result.seconds, attnscope::printable(out));
    });
}
