// attnscope-report: how concentrated and how sensitive is every row of every head, and which bounds hold on it?

#include "page.hpp"
#include "run.hpp"

#include <attnscope/report/csv.hpp>
#include <attnscope/report/head_states.hpp>
#include <attnscope/report/json.hpp>
#include <attnscope/report/table.hpp>
#include <attnscope/streaming/shards.hpp>
#include <models/model_capture.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <thread>

#if ATTNSCOPE_EXAMPLE_MPI
#include <attnscope/mpi.hpp>
#include <support/mpi_session.hpp>
#endif

namespace {

using attnscope::Index;

/// What the audit checks, a paragraph each.
void print_statements() {
    for (const attnscope::Statement* const statement : attnscope::statements)
        fmt::print("{} {} {}\n    {}\n    conditions: {}\n    source: {}\n", statement->id, statement->form,
                   statement->provenance, statement->text, statement->conditions, statement->source);
}

/// "statistics,audit" as the parts of an analysis; statistics are always made.
void choose_parts(std::string_view text, attnscope::AnalysisOptions& analysis) {
    bool selections = false;
    analysis.sensitivity = analysis.audit = analysis.certificates = false;
    while (true) {
        const std::size_t comma = text.find(',');
        const std::string_view name = text.substr(0, comma);
        if (name == "selections")
            selections = true;
        else if (name == "sensitivity")
            analysis.sensitivity = true;
        else if (name == "audit")
            analysis.audit = true;
        else if (name == "certificates")
            analysis.certificates = true;
        else if (name != "statistics")
            throw program::usage_error(fmt::format("--parts: expected names out of statistics, selections, "
                                                   "sensitivity, audit, certificates, got {}",
                                                   name));
        if (comma == text.npos) break;
        text.remove_prefix(comma + 1);
    }
    if (!selections) analysis.counts.clear();
}

/// The options that say what is computed, as words.
std::vector<std::string> configuration_of(const CLI::App& app) {
    constexpr std::array<std::string_view, 11> idle = {"INPUT",   "--threads", "--states", "--shard",
                                                       "--merge", "--dry-run", "--json",   "--csv",
                                                       "--rows",  "--html",    "--qk-clip"};
    std::vector<std::string> words;
    for (const CLI::Option* const option : app.get_options()) {
        if (option->count() == 0 || std::find(idle.begin(), idle.end(), option->get_name()) != idle.end())
            continue;
        words.push_back(option->get_name());
        if (option->get_items_expected_max() > 0)
            for (const std::string& value : option->results()) words.push_back(value);
    }
    return words;
}

/// Leaves beside the states how they were made, for attnscope-merge.
void write_run(const std::string& folder, std::vector<std::string> words,
               const std::vector<std::string>& inputs) {
    for (const std::string& input : inputs) {
        const auto path = input.find('=') == input.npos ? 0 : input.find('=') + 1;
        words.push_back(input.substr(0, path) + std::filesystem::absolute(input.substr(path)).string());
    }
    const nlohmann::ordered_json json = {{"schema", "attnscope.run/1"}, {"arguments", words}};
    const std::string text = json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n",
                      file = (std::filesystem::path(folder) / "run.json").string();
    // Many processes write the same.
    if (!std::filesystem::exists(file)) attnscope::io::write_file(file, text);
}

} // namespace

#if ATTNSCOPE_EXAMPLE_MPI
constexpr const char* program_name = "attnscope-report-mpi";
#else
constexpr const char* program_name = "attnscope-report";
#endif

int main(int argc, char** argv) {
#if ATTNSCOPE_EXAMPLE_MPI
    const program::MpiSession session(argc, argv);
#endif
    CLI::App app(
        "How concentrated is each attention row, how sensitively does it react, and which of the bounds of "
        "arXiv:2508.17821 on that hold, are vacuous or are violated? Without INPUT, synthetic heads are "
        "analysed.",
        program_name);
    std::vector<std::string> inputs;
    double temperature = 1, qk_clip = 0;
    std::string seed_text = "1", normalizer = "softmax", beside, scalar = "double", layers, heads,
                select = "1,2,5,10,20,50,100", parts = "selections,sensitivity,audit,certificates",
                reading = "cumulative", ball_radius = "nearest", json, csv, html;
#if ATTNSCOPE_EXAMPLE_MPI
    std::string threads = "1"; // of each rank
#else
    std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
#endif
    std::string states, shard_text;
    bool rows = false, statements = false, stream = false, no_stream = false, merge = false, dry_run = false;
    app.add_option(
        "INPUT", inputs,
        "a safetensors or .npz file with q,k | logits | weights, each [heads,n,d], [layers,heads,n,d] or "
        "[batch,layers,heads,n,d], and optional v; or .npy parts q=FILE k=FILE v=FILE; or a model that runs on "
        "--text: "
        "a folder with config.json and model.safetensors, or a GGUF file");
    const models::ModelOptions model_options(app);
    const auto* temperature_option =
        app.add_option("--temperature", temperature, "divides the logits, > 0 [as the file says, else 1]");
    const auto* normalizer_option =
        app.add_option("--normalizer", normalizer,
                       program::normalizer_help() + ", or model [as the file or model says, else softmax]");
    const auto* beside_option =
        app.add_option(
               "--beside", beside,
               "also the figures of every head under this normaliser, named as for --normalizer, without "
               "softcaps and sinks of the file")
            ->check([](const std::string& text) {
                return text.empty() ? std::string("must not be empty") : std::string();
            });
    app.add_option("--scalar", scalar, "in which weights and norms are computed: float or double")
        ->capture_default_str();
    const auto capture_options = program::add_capture_options(app);
    app.add_option("--select", select, "the N of the top-N figures, each >= 1")->capture_default_str();
    app.add_option("--parts", parts,
                   "what is computed beside the statistics of the rows: selections, sensitivity, audit, "
                   "certificates; or statistics alone")
        ->capture_default_str();
    app.add_option("--reading", reading, "distance of a selection: cumulative or resultant")
        ->capture_default_str();
    app.add_option("--ball-radius", ball_radius, "nearest (non-selected token) or a number > 0")
        ->capture_default_str();
    app.add_option("--seed", seed_text, "of random directions and of the synthetic heads")
        ->capture_default_str();
    const auto not_empty = [](const std::string& text) {
        return text.empty() ? std::string("must not be empty") : std::string();
    };
    app.add_option("--layers", layers, "such as 0,3-5 [all]")->check(not_empty);
    app.add_option("--heads", heads, "such as 0,3-5 [all]")->check(not_empty);
    const auto* qk_clip_option = app.add_option(
        "--qk-clip", qk_clip, "largest logit that a head may have: also the factor of QK-clip for each head");
    app.add_flag("--rows", rows, "every row in JSON and CSV");
    app.add_flag("--statements", statements,
                 "only list what the audit checks: id, form, provenance, inequality, conditions, source");
    auto* stream_flag = app.add_flag("--stream", stream,
                                     "no matrix of logits: softmax of q and k of any length; selections and "
                                     "audit of some rows only [heads of "
                                     "more than 2^26 logits]");
    app.add_flag("--no-stream", no_stream, "the matrix of logits, whatever its size")->excludes(stream_flag);
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--states", states,
                   "folder for the results of heads: those that are there are not computed again")
        ->check(not_empty);
    auto* shard_option =
        app.add_option("--shard", shard_text, "NUMBER/COUNT: only this part of the heads, into --states");
    auto* merge_flag =
        app.add_flag("--merge", merge, "only what is in --states: nothing is computed")->excludes(shard_option);
    app.add_flag("--dry-run", dry_run,
                 "only heads, pairs and an estimate of the time, from ten seconds of trying")
        ->excludes(merge_flag);
    app.add_option("--json", json, "write JSON to this file; - for standard output instead of the text")
        ->check(not_empty);
    app.add_option("--html", html,
                   "write a page to explore the heads in a browser, offline, to this file: map, patterns, "
                   "what-if, audit")
        ->check(not_empty);
    app.add_option(
           "--csv", csv,
           "write heads.csv, selection.csv, audit.csv (with --rows also rows.csv, selection_rows.csv, with "
           "--beside also beside.csv) into this folder")
        ->check(not_empty);

    return program::run(app, argc, argv, [&] {
        if (statements) return print_statements();
        program::keep_memory();
        attnscope::ReportOptions settings;
        if (!(temperature > 0) || !std::isfinite(temperature))
            throw program::usage_error(
                fmt::format("--temperature must be > 0 and finite, got {}", temperature));
        if (temperature_option->count() > 0) settings.temperature = temperature;
        const auto known = [&](std::string_view option, const std::string& name) {
            try {
                program::named_normalizer(name, temperature);
            } catch (const attnscope::invalid_argument& error) {
                throw program::usage_error(fmt::format("{}: {}", option, error.what()));
            }
        };
        if (normalizer_option->count() > 0 && normalizer != "model") {
            known("--normalizer", normalizer);
            settings.normalizer = normalizer;
        }
        if (beside_option->count() > 0) {
            known("--beside", beside);
            settings.beside = beside;
        }
        if (scalar != "float" && scalar != "double")
            throw program::usage_error(fmt::format("--scalar must be float or double, got {}", scalar));
        settings.analysis.single_precision = scalar == "float";
        settings.analysis.counts = program::number_list("--select", select);
        for (const Index n : settings.analysis.counts)
            if (n < 1) throw program::usage_error(fmt::format("--select: every N must be >= 1, got {}", n));
        choose_parts(parts, settings.analysis);
        if (reading != "cumulative" && reading != "resultant")
            throw program::usage_error(
                fmt::format("--reading must be cumulative or resultant, got {}", reading));
        settings.analysis.reading =
            reading == "cumulative" ? attnscope::Reading::cumulative : attnscope::Reading::resultant;
        if (ball_radius != "nearest") {
            double radius = 0;
            const auto [end, error] =
                std::from_chars(ball_radius.data(), ball_radius.data() + ball_radius.size(), radius);
            if (error != std::errc{} || end != ball_radius.data() + ball_radius.size() || !(radius > 0) ||
                !std::isfinite(radius))
                throw program::usage_error(
                    fmt::format("--ball-radius must be nearest or a number > 0, got {}", ball_radius));
            settings.analysis.radius = radius;
        }
        if (!layers.empty()) settings.layers = program::number_list("--layers", layers);
        if (!heads.empty()) settings.heads = program::number_list("--heads", heads);
        settings.analysis.seed = program::whole_number<std::uint64_t>(
            "--seed", seed_text, 0, std::numeric_limits<std::uint64_t>::max());
        settings.threads = program::whole_number<Index>("--threads", threads, 1, 1024);
        if (qk_clip_option->count() > 0) {
            if (!(qk_clip > 0) || !std::isfinite(qk_clip))
                throw program::usage_error(fmt::format("--qk-clip must be > 0 and finite, got {}", qk_clip));
            settings.qk_clip = qk_clip;
        }
        if (stream || no_stream) settings.stream = stream;
        settings.keep_rows = rows;
        if (!csv.empty() && !std::filesystem::is_directory(csv))
            throw std::runtime_error(fmt::format("{}: the folder for --csv does not exist", csv));
        if (html == "-") throw program::usage_error("--html: must name a file, got -");
        if (!html.empty()) {
            if (!states.empty())
                throw program::usage_error("--html: states hold no patterns of attention; leave out --states, "
                                           "--merge and --shard");
            settings.patterns = settings.keep_rows = true;
        }
        std::vector<program::Output> outputs{{"--json", json}, {"--html", html}};
        if (!csv.empty())
            for (const std::string_view name : attnscope::io::csv_table_names)
                outputs.push_back({"--csv", std::filesystem::path(csv) / name});
        model_options.check();
        std::vector<std::string> read = model_options.inputs();
        read.insert(read.end(), inputs.begin(), inputs.end());
        program::require_outputs(outputs, read);

        if (states.empty() && (merge || !shard_text.empty()))
            throw program::usage_error(fmt::format("{} needs --states", merge ? "--merge" : "--shard"));
        std::optional<attnscope::Shard> shard;
        if (!shard_text.empty()) {
            try {
                shard = attnscope::Shard::parse(shard_text);
            } catch (const attnscope::invalid_argument& error) {
                throw program::usage_error(fmt::format("--shard: {}", error.what()));
            }
            if (!json.empty() || !csv.empty())
                throw program::usage_error(
                    "--shard: a part makes no --json or --csv; run again without --shard for these");
        }
        std::optional<attnscope::HeadStates> head_states;
        if (!states.empty()) {
            if (!inputs.empty() && models::is_model(inputs.front()))
                throw program::usage_error(
                    "--states: a model computes its heads while they are read; save them with "
                    "attnscope-capture, and name that file");
            if (!std::filesystem::is_directory(states))
                throw std::runtime_error(fmt::format("{}: the folder for --states does not exist", states));
            head_states.emplace(states, std::string(), [&](const attnscope::io_error& damage) {
                program::warn(app.get_name(), fmt::format("not used: {}", damage.what()));
            });
            if (!merge) write_run(states, configuration_of(app), inputs);
        }

        const auto open = [&] {
            return model_options.open(inputs, settings.analysis.seed, capture_options(), settings.threads);
        };
#if ATTNSCOPE_EXAMPLE_MPI
        if (!html.empty()) throw program::usage_error("--html is attnscope-report's: ranks send no patterns");
        if (dry_run || shard || merge)
            throw program::usage_error("--dry-run, --shard and --merge are attnscope-report's");
        if (!inputs.empty() && models::is_model(inputs.front()))
            throw program::usage_error("a model computes its heads while they are read; save them with "
                                       "attnscope-capture, and name that file");
        std::optional<attnscope::Capture> capture;
        attnscope::agree(MPI_COMM_WORLD, [&] { capture = open(); });
        const auto run = [](Index count, const auto& work, const auto& take) {
            program::Progress progress("analysing heads", static_cast<std::size_t>(count));
            attnscope::for_each_unit(MPI_COMM_WORLD, count, work, take, [&](Index begun, Index) {
                progress.reach(static_cast<std::size_t>(begun));
            });
        };
        const attnscope::Report report =
            report::make_on(std::move(*capture), settings, head_states ? &*head_states : nullptr, run);
        if (session.rank() != 0) return;
#else
        attnscope::Capture capture = open();
        if (dry_run) return fmt::print("{}", report::dry_run(std::move(capture), settings));
        if (shard)
            return fmt::print("{}", report::run_shard(std::move(capture), settings, *head_states, *shard));
        const attnscope::Report report =
            report::make(std::move(capture), settings, head_states ? &*head_states : nullptr, merge);
#endif
        // Files first: a run that fails prints no results.
        if (!csv.empty()) {
            std::vector<std::pair<std::string, std::string>> files;
            for (auto& [name, text] : attnscope::io::csv_tables(report, rows))
                files.emplace_back(std::move(name), std::move(text));
            program::write_all(csv, files);
        }
        if (!html.empty())
            program::write_whole(html, report::to_page(report, report::shell_line(argc, argv, program_name)));
        if (!json.empty()) program::write_whole(json, attnscope::io::to_json(report, rows).dump(1) + "\n");
        if (json != "-") fmt::print("{}", report);
    });
}
