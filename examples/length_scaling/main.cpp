// attnscope-length-scaling: which normaliser still selects as the context grows?

#include "output.hpp"
#include "picture.hpp"

#include <support/program.hpp>

#include <fmt/ranges.h>

#include <charconv>
#include <thread>

namespace {

using attnscope::Index;

// The first nine are those of the picture.
constexpr std::string_view default_normalizers =
    "softmax,adaptive,sigmoid,logn:0.144,yarn:1024,entmax:1.5,sparsemax,ssmax:0.43,entropy:1,"
    "softmax|topk:64,softcap:50|softmax,sink:1,softpick,selfadjusted,relu:2,softplus,"
    "stablemax";

void require_scale(std::string_view option, double value) {
    constexpr double most = 1000;
    if (!(value > 0 && value <= most))
        throw program::usage_error(fmt::format("{} must be > 0 and at most {}, got {}", option, most, value));
}

std::vector<std::string> parse_normalizers(std::string_view list) {
    std::vector<std::string> normalizers;
    for (bool more = true; more;) {
        const std::string_view name = list.substr(0, list.find(','));
        more = name.size() < list.size();
        list.remove_prefix(name.size() + (more ? 1 : 0));
        try {
            normalizers.push_back(scaling::canonical_name(name));
        } catch (const attnscope::invalid_argument& error) {
            throw program::usage_error(fmt::format("--normalizers: {}", error.what()));
        }
    }
    return normalizers;
}

/// "64:1048576", both powers of two.
void parse_lengths(std::string_view text, scaling::Settings& settings) {
    constexpr Index most = Index(1) << 24;
    const auto fail = [&] {
        throw program::usage_error(fmt::format(
            "--lengths must be FROM:TO, powers of two from 2 to {}, FROM <= TO, got {}", most, text));
    };
    const auto colon = text.find(':');
    if (colon == text.npos) fail();
    const auto read = [&](std::string_view part) {
        Index value = 0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        const bool power = value >= 2 && value <= most && (value & (value - 1)) == 0;
        if (error != std::errc{} || end != part.data() + part.size() || !power) fail();
        return value;
    };
    settings.shortest = read(text.substr(0, colon));
    settings.longest = read(text.substr(colon + 1));
    if (settings.shortest > settings.longest) fail();
}

scaling::Shape parse_shape(const std::string& name) {
    const auto found = std::find(scaling::shape_names.begin(), scaling::shape_names.end(), name);
    if (found == scaling::shape_names.end())
        throw program::usage_error(
            fmt::format("--background must be one of {}, got {}", fmt::join(scaling::shape_names, ", "), name));
    return static_cast<scaling::Shape>(found - scaling::shape_names.begin());
}

void require_memory(const scaling::Settings& settings) {
    constexpr Index most = Index(1) << 29; // 2 GiB of floats
    const Index numbers = settings.longest * (settings.dimension + settings.trials);
    if (numbers > most)
        throw program::usage_error(
            fmt::format("--lengths: TO x (--dimension + --trials) must be at most {}, got {}", most, numbers));
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Which normaliser still selects as the context grows? A needle is planted among 2^6 ... 2^20 keys and "
        "its weight measured, until it falls below 1/2; theory says beside it when that should happen.",
        "attnscope-length-scaling");
    std::string normalizers(default_normalizers), background = "gaussian", lengths = "64:1048576",
                                                  dimension = "16", select = "16", trials = "31", seed = "1",
                                                  threads, csv, svg;
    double margin = 5, spread = 2;
    const auto not_empty = [](const std::string& text) {
        return text.empty() ? std::string("must not be empty") : std::string();
    };
    app.add_option("--normalizers", normalizers, "comma-separated; the picture shows the first nine")
        ->capture_default_str()
        ->check(not_empty);
    app.add_option("--margin", margin, "the needle's logit, in standard deviations above the background's mean")
        ->capture_default_str();
    app.add_option(
           "--background", background,
           "distribution of the other logits: gaussian, student (4 degrees of freedom) or measured (on a "
           "trained model)")
        ->capture_default_str();
    app.add_option("--spread", spread, "standard deviation of the background's logits")->capture_default_str();
    app.add_option("--lengths", lengths, "FROM:TO, powers of two")->capture_default_str();
    app.add_option("--dimension", dimension, "of the value vectors")->capture_default_str();
    app.add_option("--select", select, "N of the top-N selection for mass, distance and geometric recall")
        ->capture_default_str();
    app.add_option("--trials", trials,
                   "rows at each length; distances and norms of long rows are taken on fewer")
        ->capture_default_str();
    app.add_option("--seed", seed, "of everything that is drawn")->capture_default_str();
    app.add_option("--threads", threads, "of work; they change nothing in the results [all cores]")
        ->check(not_empty);
    app.add_option("--csv", csv, "write every figure to this file; - for standard output instead of the text")
        ->check(not_empty);
    app.add_option("--svg", svg, "write a picture to this file; needs gnuplot")->check(not_empty);
    app.footer("Gradient: the 2-norm of the derivative of the needle's weight with respect to all logits. "
               "Definitions: "
               "docs/length_scaling.md.");

    return program::run(app, argc, argv, [&] {
        scaling::Settings settings;
        settings.normalizers = parse_normalizers(normalizers);
        require_scale("--margin", margin);
        require_scale("--spread", spread);
        settings.margin = margin;
        settings.background = scaling::Background(parse_shape(background), spread);
        parse_lengths(lengths, settings);
        settings.dimension = program::whole_number<Index>("--dimension", dimension, 1, 1024);
        settings.select = program::whole_number<Index>("--select", select, 1, settings.shortest - 1);
        settings.trials = program::whole_number<Index>("--trials", trials, 1, 10000);
        require_memory(settings);
        settings.seed = program::whole_number<std::uint64_t>("--seed", seed, 0, ~std::uint64_t(0));
        settings.threads = threads.empty() ? std::max(1u, std::thread::hardware_concurrency())
                                           : program::whole_number<unsigned>("--threads", threads, 1, 1024);
        program::require_outputs({{"--csv", csv}, {"--svg", svg}}, {});
        if (!svg.empty()) scaling::require_gnuplot();

        program::Progress progress("measuring rows", scaling::pieces(settings));
        const scaling::Result result = scaling::run(settings, [&] { progress.step(); });
        // Files first: a run that fails prints no results.
        if (!csv.empty()) program::write_whole(csv, scaling::to_csv(result));
        if (!svg.empty()) program::write_whole(svg, scaling::to_svg(result));
        if (csv != "-" && svg != "-") fmt::print("{}", scaling::to_text(result));
    });
}
