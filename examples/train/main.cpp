// attnscope-train: a small byte-level GPT-2 on a text, under any normaliser of attention and any temperature.

#include "trainer.hpp"

#include <models/forward.hpp>
#include <support/memory.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <attnscope/io/file.hpp>

#include <thread>

namespace {

using attnscope::Index;
using models::Threads;

models::Config shape(bool quick) {
    models::Config config;
    config.layers = quick ? 2 : 5;
    config.heads = config.key_heads = 4;
    config.width = quick ? 64 : 128;
    config.head_width = config.width / config.heads;
    config.inner = 4 * config.width;
    config.context = quick ? 128 : 512;
    config.vocabulary = 256;
    return config;
}

void print(const train::LogLine& line, double balance, double tokens_per_second) {
    fmt::print("step {:6.0f}  window {:4.0f}  training {:.4f}  validation {:.4f}  |gradient| {:.3f}  {}{:.0f} "
               "tokens/s\n",
               line.step, line.window, line.training_loss, line.validation_loss, line.gradient_norm,
               std::isnan(balance) ? std::string() : fmt::format("theta {:.3f}  ", balance), tokens_per_second);
    std::fflush(stdout);
}

/// Bytes drawn one after the other from the model's own distribution, after a line break.
std::string sample(const std::string& folder, Index count, std::uint64_t seed, Index threads) {
    const models::Model model = models::Model::load(folder);
    attnscope::SplitMix64 random(seed);
    std::vector<std::int32_t> ids = {'\n'};
    models::RunOptions<float> options;
    options.threads = threads;
    for (Index i = 0; i < count; ++i) {
        const std::size_t from =
            ids.size() - std::min(ids.size(), static_cast<std::size_t>(model.config().context));
        const auto run = model.run<float>(std::span<const std::int32_t>(ids).subspan(from), options);
        const auto p = attnscope::weights(attnscope::Softmax(0.8F), run.logits_last);
        float left = static_cast<float>(random.uniform());
        Index next = 0;
        while (next + 1 < p.size() && (left -= p[next]) > 0) ++next;
        ids.push_back(static_cast<std::int32_t>(next));
    }
    std::string text;
    for (std::size_t i = 1; i < ids.size(); ++i) text += static_cast<char>(ids[i]);
    return text;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Trains a small byte-level GPT-2 on a text, under any normaliser of attention and any temperature. "
        "Writes a "
        "folder that the other programs take as a model, and a checkpoint from which --resume goes on.",
        "attnscope-train");
    std::string text, out, config_file, normalizer, temperature, steps,
        seed = "1", rate = "0.002", batch_tokens = "4096", sample_bytes = "0", every = "100";
    std::string threads_text = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    bool resume = false, quick = false, half = false, learn = false;
    app.add_option("--text", text, "a file; its last tenth is for validation")->type_name("FILE")->required();
    app.add_option("--out", out, "the folder to write")->type_name("FOLDER")->required();
    app.add_option("--config", config_file,
                   "a GPT-2 config.json with vocab_size 256 [5 layers, 4 heads, width 128, context 512]")
        ->type_name("FILE");
    app.add_option("--normalizer", normalizer,
                   "of attention, such as ssmax:0.43 or entmax:1.5 [the one in --config, else softmax]");
    app.add_option("--temperature", temperature,
                   "divides the logits of attention [the one in --config, else 1]");
    app.add_flag(
        "--learn-parameter", learn,
        "train the normaliser's parameter too: temperature, S, KAPPA, ALPHA, N0 or BIAS, from the given value");
    app.add_option("--steps", steps, "of AdamW; 0 writes the initial model [4000; with --quick 300]");
    app.add_option("--batch-tokens", batch_tokens, "of each step")->capture_default_str();
    app.add_option("--rate", rate, "the largest of the cosine")->capture_default_str();
    app.add_option("--seed", seed, "of the initial weights and of the batches")->capture_default_str();
    app.add_option("--every", every, "steps from one line and checkpoint to the next")->capture_default_str();
    app.add_option("--sample", sample_bytes, "print so many bytes that the model writes")
        ->capture_default_str();
    app.add_option("--threads", threads_text, "change nothing in the results")->capture_default_str();
    app.add_flag("--resume", resume, "go on from the checkpoint in --out");
    app.add_flag("--quick", quick, "2 layers of width 64, context 128, 300 steps");
    app.add_flag("--half", half, "write the model in 16 bits");

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        program::require_output_folder("--out", out,
                                       std::array{"checkpoint.safetensors", "model.safetensors", "config.json",
                                                  "vocab.json", "merges.txt", "loss.csv"},
                                       {text, config_file});
        train::Plan plan;
        plan.config = shape(quick);
        if (!config_file.empty()) plan.config = models::read_config(config_file);
        if (!plan.config.unknown_keys.empty())
            program::warn(app.get_name(), fmt::format("{}: keys that are not known and not used: {}",
                                                      config_file, models::listed(plan.config.unknown_keys)));
        if (!plan.config.has_head)
            throw std::runtime_error(fmt::format("{}: a model without a head cannot be trained", config_file));
        if (normalizer.empty()) normalizer = plan.config.normalizer;
        plan.normalizer = normalizer;
        plan.temperature = temperature.empty() ? plan.config.temperature
                                               : program::positive_number("--temperature", temperature);
        plan.learn = learn;
        plan.rate = program::positive_number("--rate", rate);
        plan.steps = steps.empty() ? (quick ? 300 : 4000)
                                   : program::whole_number<Index>("--steps", steps, 0, 100'000'000);
        plan.batch_tokens = program::whole_number<Index>("--batch-tokens", batch_tokens, 1, 1 << 24);
        plan.seed = static_cast<std::uint64_t>(
            program::whole_number<Index>("--seed", seed, 0, std::numeric_limits<Index>::max()));
        const Index line_every = program::whole_number<Index>("--every", every, 1, 1 << 30);
        const Index bytes = program::whole_number<Index>("--sample", sample_bytes, 0, 1 << 20);
        const Threads threads(program::whole_number<Index>("--threads", threads_text, 1, 1024));
        try {
            (void)program::named_normalizer(normalizer, plan.temperature);
            if (learn) (void)models::LearnedNormalizer(normalizer, plan.temperature);
        } catch (const std::exception& error) {
            throw program::usage_error(fmt::format("--normalizer: {}", error.what()));
        }
        const std::string checkpoint = out + "/checkpoint.safetensors";
        if (!resume && std::filesystem::exists(checkpoint))
            throw std::runtime_error(fmt::format(
                "{}: is there already; --resume goes on from it, another --out begins anew", checkpoint));

        if (resume && !std::filesystem::exists(checkpoint))
            throw std::runtime_error(fmt::format("{}: there is no checkpoint to go on from", checkpoint));

        // Weights, gradient and two moments of each.
        program::require_memory("training",
                                4 * static_cast<double>(sizeof(float)) * models::parameter_count(plan.config));
        train::Trainer trainer(plan, {attnscope::io::read_file(text)});
        if (resume) trainer.load(checkpoint);
        std::filesystem::create_directories(out);
        fmt::print("model     {} layers, {} heads, width {}, context {}: {} parameters; {}{}\n",
                   plan.config.layers, plan.config.heads, plan.config.width, plan.config.context,
                   trainer.parameters(), normalizer,
                   plan.temperature == 1 ? "" : fmt::format(" at temperature {}", plan.temperature));
        fmt::print("text      {}, {} bytes, the last {} for validation; entropy of single bytes {:.3f} nats\n",
                   attnscope::printable(text), trainer.text().bytes.size(), trainer.text().validation().size(),
                   train::unigram_entropy(trainer.text().bytes));
        fmt::print("steps     {} of {} bytes{}\n", plan.steps, plan.batch_tokens,
                   resume ? fmt::format(", from step {}", trainer.step()) : std::string());
        std::fflush(stdout);

        program::Progress progress("training, step", static_cast<std::size_t>(plan.steps));
        auto since = std::chrono::steady_clock::now();
        Index done = 0;
        while (!trainer.done()) {
            const double loss = trainer.advance(threads);
            const auto require_finite = [&](const char* what, double x) {
                if (std::isfinite(x)) return;
                throw std::runtime_error(fmt::format(
                    "the {} is {} at step {}: a smaller --rate may help{}", what, x, trainer.step(),
                    std::filesystem::exists(checkpoint) ? "; the checkpoint before it is in " + out : ""));
            };
            require_finite("loss", loss);
            ++done;
            const double seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
            const double speed = static_cast<double>(done * plan.batch_tokens) / seconds;
            progress.reach(static_cast<std::size_t>(trainer.step()),
                           fmt::format(", loss {:.3f}, {:.0f} tokens/s", loss, speed));
            if (trainer.step() % line_every != 0 && !trainer.done()) continue;
            const train::LogLine& line = trainer.log(threads);
            require_finite("validation loss", line.validation_loss);
            require_finite("norm of the gradient", line.gradient_norm);
            trainer.require_finite(); // never over a good checkpoint
            print(line, trainer.mean_balance(threads), speed);
            trainer.save(checkpoint);
            since = std::chrono::steady_clock::now();
            done = 0;
        }
        write_model(trainer, out, half);
        fmt::print("loss      {:.4f} nats a byte on all of the validation text\n",
                   trainer.validate(true, threads));
        if (learn) {
            const auto [name, value] = trainer.normalizer();
            fmt::print("learned   {}\n", name == "softmax" ? fmt::format("temperature {:.4f}", value) : name);
        }
        fmt::print("written   {}\n", attnscope::printable(out));
        if (bytes > 0) fmt::print("\n{}\n", sample(out, bytes, plan.seed, threads.count()));
    });
}
