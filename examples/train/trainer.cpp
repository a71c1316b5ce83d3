#include "trainer.hpp"

#include <attnscope/io/safetensors.hpp>
#include <models/tokenizer.hpp>
#include <support/failure.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <numbers>
#include <numeric>

namespace train {
namespace {

using attnscope::io::SafetensorsFile;
using attnscope::io::SafetensorsWriter;
using models::Tensor;

models::Network<float> initial(const Plan& plan) {
    const models::RandomParameters random(plan.config, plan.seed);
    auto weights = models::read_weights<float>(plan.config, random);
    if (plan.learn)
        return {plan.config, std::move(weights), models::LearnedNormalizer(plan.normalizer, plan.temperature)};
    return {plan.config, std::move(weights), program::named_normalizer(plan.normalizer, plan.temperature)};
}

/// FNV-1a, 64 bits.
class Checksum {
public:
    void add(std::string_view bytes) {
        for (const char c : bytes) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    }
    template <class T>
    void add(std::span<const T> values) {
        add(std::string_view(reinterpret_cast<const char*>(values.data()), values.size_bytes()));
    }
    std::uint64_t value() const { return hash_; }

private:
    std::uint64_t hash_ = 0xcbf29ce484222325U;
};

/// All that decides how a run goes on.
struct Saved {
    models::Weights<float> weights, first, second;
    std::vector<double> curve, state;

    std::string checksum(const std::map<std::string, std::string>& identity) {
        Checksum sum;
        for (const auto& [key, value] : identity) sum.add(key + '=' + value + '\n');
        for (models::Weights<float>* part : {&weights, &first, &second})
            for (const Tensor<float>& tensor : tensors_of(*part)) {
                sum.add(tensor.name);
                sum.add(std::span<const float>(tensor.values));
            }
        sum.add(std::span<const double>(curve));
        sum.add(std::span<const double>(state));
        return fmt::format("{:016x}", sum.value());
    }
};

/// `sequences` windows of bytes that begin at `starts`; the target of each byte is the next one.
models::Batch windows(std::string_view text, std::span<const Index> starts, Index length) {
    models::Batch batch{static_cast<Index>(starts.size()), length, {}, {}};
    for (const Index start : starts)
        for (Index i = start; i < start + length; ++i) {
            batch.inputs.push_back(static_cast<unsigned char>(text[static_cast<std::size_t>(i)]));
            batch.targets.push_back(static_cast<unsigned char>(text[static_cast<std::size_t>(i + 1)]));
        }
    return batch;
}

nlohmann::ordered_json config_json(const models::Config& config, const std::string& normalizer,
                                   double temperature) {
    return {{"model_type", "gpt2"},
            {"architectures", {"GPT2LMHeadModel"}},
            {"n_layer", config.layers},
            {"n_head", config.heads},
            {"n_embd", config.width},
            {"n_inner", config.inner},
            {"n_positions", config.context},
            {"n_ctx", config.context},
            {"vocab_size", config.vocabulary},
            {"activation_function", "gelu_new"},
            {"layer_norm_epsilon", config.norm_epsilon},
            {"scale_attn_weights", config.scale_by_head_width},
            {"scale_attn_by_inverse_layer_idx", config.scale_by_layer},
            {"tie_word_embeddings", true},
            {"attention_normalizer", normalizer},
            {"attention_temperature", temperature}};
}

/// The 256 bytes in GPT-2's byte alphabet: printable ones stand for themselves, the others for the characters
/// from U+0100 on. The id of a byte is its value.
std::string byte_vocabulary() {
    nlohmann::ordered_json vocabulary;
    int others = 0;
    for (int byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        const int character = printable ? byte : 256 + others++;
        std::string utf8;
        if (character < 128) {
            utf8 = static_cast<char>(character);
        } else {
            utf8 += static_cast<char>(0xC0 | character >> 6);
            utf8 += static_cast<char>(0x80 | (character & 0x3F));
        }
        vocabulary[utf8] = byte;
    }
    return vocabulary.dump() + "\n";
}

} // namespace

Index Plan::window(Index step) const {
    const double share = static_cast<double>(step) / static_cast<double>(std::max<Index>(1, steps));
    return std::max<Index>(1, share < 0.4   ? config.context / 4
                              : share < 0.7 ? config.context / 2
                                            : config.context);
}

double Plan::rate_at(Index step) const {
    const double warm_up = std::max(1.0, 0.05 * static_cast<double>(steps)), at = static_cast<double>(step);
    if (at < warm_up) return rate * (at + 1) / warm_up;
    const double share = (at - warm_up) / std::max(1.0, static_cast<double>(steps) - warm_up);
    return rate * (0.1 + 0.45 * (1 + std::cos(std::numbers::pi * std::min(1.0, share))));
}

double unigram_entropy(std::string_view text) {
    std::array<double, 256> count{};
    for (const char c : text) count[static_cast<unsigned char>(c)] += 1;
    double entropy = 0;
    for (const double n : count)
        if (n > 0)
            entropy -= n / static_cast<double>(text.size()) * std::log(n / static_cast<double>(text.size()));
    return entropy;
}

Trainer::Trainer(Plan plan, Text text)
    : plan_(std::move(plan)), text_(std::move(text)), network_(initial(plan_)),
      gradient_(zeros_like(network_.weights())), optimizer_(network_.weights(), {}) {
    if (plan_.config.vocabulary != 256)
        program::fail("vocab_size: expected the 256 bytes, found {}", plan_.config.vocabulary);
    const auto least = static_cast<std::size_t>(plan_.config.context + 1);
    if (text_.validation().size() < least)
        program::fail("the text: expected {} bytes or more for a context of {}, found {}", 10 * least,
                      plan_.config.context, text_.bytes.size());
}

models::Batch Trainer::draw(Index step) const {
    // Every step has its own generator: a resumed run draws what the unbroken one does.
    attnscope::SplitMix64 random(attnscope::SplitMix64(plan_.seed + static_cast<std::uint64_t>(step))());
    const Index length = plan_.window(step), count = std::max<Index>(1, plan_.batch_tokens / length);
    const std::string_view text = text_.training();
    std::vector<Index> starts;
    for (Index i = 0; i < count; ++i) starts.push_back(random.below(static_cast<Index>(text.size()) - length));
    return windows(text, starts, length);
}

double Trainer::advance(const models::Threads& threads) {
    for (const Tensor<float>& tensor : tensors_of(gradient_))
        std::fill(tensor.values.begin(), tensor.values.end(), 0.0F);
    const auto pass = network_.run_backward(draw(step()), gradient_, threads);
    norm_sum_ += optimizer_.step(network_.weights(), gradient_, plan_.rate_at(step()));
    loss_sum_ += pass.loss;
    ++loss_count_;
    return pass.loss;
}

double Trainer::validate(bool all, const models::Threads& threads) const {
    const std::string_view text = text_.validation();
    const Index length = plan_.config.context, count = (static_cast<Index>(text.size()) - 1) / length;
    const Index wanted = all ? count : std::min<Index>(count, std::max<Index>(1, 4096 / length));
    double sum = 0;
    constexpr Index together = 8;
    for (Index first = 0; first < wanted; first += together) {
        std::vector<Index> starts;
        for (Index i = first; i < std::min(wanted, first + together); ++i)
            starts.push_back(i * (count / wanted) * length);
        sum += network_.run(windows(text, starts, length), threads).loss * static_cast<double>(starts.size());
    }
    return sum / static_cast<double>(wanted);
}

double Trainer::mean_balance(const models::Threads& threads) const {
    const attnscope::AnyNormalizer normalizer = network_.normalizer();
    if (!normalizer.promises().simplex) return std::numeric_limits<double>::quiet_NaN();
    const Index length = plan_.config.context;
    std::vector<double> sums(static_cast<std::size_t>(length), 0.0);
    double heads = 0;
    network_.run(
        windows(text_.validation(), std::array{Index(0)}, length), threads,
        [&](Index, Index, const attnscope::HeadGroup<float>& group) {
            heads += static_cast<double>(group.heads());
            // The rows of a query are added up in one order, whichever thread has it.
            threads(length - 1, [&](Index row) {
                const auto keys = static_cast<std::size_t>(row + 2);
                std::vector<float> logits(static_cast<std::size_t>(length)), weights(keys);
                for (Index head = 0; head < group.heads(); ++head) {
                    attnscope::logits_of<float>(group[head], attnscope::Mask::causal(), row + 1, logits);
                    normalizer.apply(std::span<const float>(logits).first(keys), std::span<float>(weights));
                    sums[keys - 1] += attnscope::balanced_mass(weights);
                }
            });
        });
    return std::accumulate(sums.begin(), sums.end(), 0.0) / (heads * static_cast<double>(length - 1));
}

const LogLine& Trainer::log(const models::Threads& threads) {
    const double count = static_cast<double>(std::max<Index>(1, loss_count_));
    curve_.push_back({static_cast<double>(step()),
                      static_cast<double>(plan_.window(std::max<Index>(0, step() - 1))), loss_sum_ / count,
                      validate(false, threads), norm_sum_ / count});
    loss_sum_ = norm_sum_ = 0;
    loss_count_ = 0;
    return curve_.back();
}

Index Trainer::parameters() {
    Index sum = 0;
    for (const Tensor<float>& tensor : tensors_of(network_.weights()))
        sum += static_cast<Index>(tensor.values.size());
    return sum;
}

std::pair<std::string, double> Trainer::normalizer() {
    const auto& learned = network_.learned();
    if (!learned) return {plan_.normalizer, plan_.temperature};
    const double u = static_cast<double>(network_.weights().normalizer[0]);
    return {learned->name_at(u), plan_.normalizer == "softmax" ? std::exp(u) : plan_.temperature};
}

std::map<std::string, std::string> Trainer::identity() const {
    return {{"config", config_json(plan_.config, plan_.normalizer, plan_.temperature).dump()},
            {"learn", plan_.learn ? "yes" : "no"},
            {"steps", fmt::format("{}", plan_.steps)},
            {"batch_tokens", fmt::format("{}", plan_.batch_tokens)},
            {"rate", fmt::format("{}", plan_.rate)},
            {"seed", fmt::format("{}", plan_.seed)},
            {"text", fmt::format("{} bytes, sum {}", text_.bytes.size(), [&] {
                 Checksum sum;
                 sum.add(text_.bytes);
                 return sum.value();
             }())}};
}

void Trainer::require_finite() {
    for (const Tensor<float>& tensor : tensors_of(network_.weights()))
        for (const float x : tensor.values)
            if (!std::isfinite(x))
                program::fail("{} holds {} after step {}: a smaller rate may help", tensor.name, x, step());
}

void Trainer::save(const std::string& file) {
    Saved saved{network_.weights(), optimizer_.first(), optimizer_.second(), {}, {}};
    for (const LogLine& line : curve_)
        saved.curve.insert(saved.curve.end(), {line.step, line.window, line.training_loss, line.validation_loss,
                                               line.gradient_norm});
    saved.state = {static_cast<double>(optimizer_.steps), loss_sum_, norm_sum_,
                   static_cast<double>(loss_count_)};
    SafetensorsWriter writer;
    const auto add = [&](const std::string& prefix, models::Weights<float>& weights) {
        for (const Tensor<float>& tensor : tensors_of(weights))
            writer.add(prefix + tensor.name, std::span<const float>(tensor.values), tensor.shape);
    };
    add("weights/", saved.weights);
    add("first/", saved.first);
    add("second/", saved.second);
    writer.add("curve", std::span<const double>(saved.curve), {static_cast<Index>(curve_.size()), 5});
    writer.add("state", std::span<const double>(saved.state), {4});
    for (const auto& [key, value] : identity()) writer.set_metadata(key, value);
    writer.set_metadata("checksum", saved.checksum(identity()));
    writer.write(file);
}

void Trainer::load(const std::string& file) {
    const SafetensorsFile checkpoint(file);
    const auto refuse = [&](const std::string& what, const auto& expected, const auto& found) {
        program::fail("{}: {}: expected {}, found {}", file, what, expected, found);
    };
    const auto said = [&](const std::string& key) {
        const auto found = checkpoint.metadata().find(key);
        return found == checkpoint.metadata().end() ? std::string("nothing") : found->second;
    };
    for (const auto& [key, value] : identity())
        if (said(key) != value) refuse(key, value + " as in this run", said(key));

    std::size_t tensors = 0;
    const auto read = [&]<class T>(const std::string& name, const std::vector<Index>& shape, std::span<T> out) {
        const auto& info = checkpoint.info(name);
        const auto described = [](const std::vector<Index>& size, std::string_view type) {
            return fmt::format("{} [{}]", type, fmt::join(size, ", "));
        };
        const std::string_view type = sizeof(T) == 4 ? "F32" : "F64";
        if (info.shape != shape || info.dtype_name != type)
            refuse(name, described(shape, type), described(info.shape, info.dtype_name));
        checkpoint.read_into<T>(name, 0, out);
        for (const T x : out)
            if (!std::isfinite(x)) refuse(name, "finite numbers", x);
        ++tensors;
    };
    Saved saved{network_.weights(), optimizer_.first(), optimizer_.second(), {}, {}};
    const auto read_all = [&](const std::string& prefix, models::Weights<float>& weights) {
        for (const Tensor<float>& tensor : tensors_of(weights))
            read(prefix + tensor.name, tensor.shape, tensor.values);
    };
    read_all("weights/", saved.weights);
    read_all("first/", saved.first);
    read_all("second/", saved.second);
    for (const Tensor<float>& tensor : tensors_of(saved.second))
        for (const float x : tensor.values)
            if (x < 0) refuse("second/" + tensor.name, "numbers >= 0", x);
    const auto& lines = checkpoint.info("curve").shape;
    if (lines.size() != 2 || lines[1] != 5 || lines[0] > plan_.steps)
        refuse("curve", fmt::format("[lines, 5] with at most {} lines", plan_.steps),
               fmt::format("[{}]", fmt::join(lines, ", ")));
    saved.curve.resize(static_cast<std::size_t>(lines[0] * 5));
    saved.state.resize(4);
    read("curve", lines, std::span<double>(saved.curve));
    read("state", {4}, std::span<double>(saved.state));
    if (checkpoint.names().size() != tensors) refuse("tensors", tensors, checkpoint.names().size());
    const auto whole = [&](std::size_t at, std::string_view what, double most) {
        const double x = saved.state[at];
        if (!(x >= 0 && x <= most && x == std::floor(x)))
            refuse("state", fmt::format("{}: a whole number from 0 to {}", what, most), x);
    };
    whole(0, "step", static_cast<double>(plan_.steps));
    whole(3, "steps since the last line", saved.state[0]);
    if (const std::string sum = saved.checksum(identity()); said("checksum") != sum)
        refuse("checksum", sum + " of what the file holds", said("checksum"));

    curve_.clear();
    for (std::size_t i = 0; i < saved.curve.size(); i += 5) {
        const double* const line = saved.curve.data() + i;
        curve_.push_back({line[0], line[1], line[2], line[3], line[4]});
    }
    network_.weights() = std::move(saved.weights);
    optimizer_.first() = std::move(saved.first);
    optimizer_.second() = std::move(saved.second);
    optimizer_.steps = static_cast<std::int64_t>(saved.state[0]);
    loss_sum_ = saved.state[1];
    norm_sum_ = saved.state[2];
    loss_count_ = static_cast<Index>(saved.state[3]);
}

void write_model(Trainer& trainer, const std::filesystem::path& folder, bool half) {
    SafetensorsWriter writer;
    for (const Tensor<float>& tensor : tensors_of(trainer.network().weights())) {
        if (tensor.name == "attention.parameter") continue; // config.json has it
        if (half) {
            std::vector<Eigen::half> values;
            for (const float x : tensor.values) values.push_back(static_cast<Eigen::half>(x));
            writer.add(tensor.name, std::span<const Eigen::half>(values), tensor.shape);
        } else {
            writer.add(tensor.name, std::span<const float>(tensor.values), tensor.shape);
        }
    }
    const auto [normalizer, temperature] = trainer.normalizer();
    writer.set_metadata("format", "pt");
    writer.write((folder / "model.safetensors").string());
    program::write_whole(folder / "config.json",
                         config_json(trainer.plan().config, normalizer, temperature).dump(2) + "\n");
    program::write_whole(folder / "vocab.json", byte_vocabulary());
    program::write_whole(folder / "merges.txt", "");
    std::string curve = "step,window,training_loss,validation_loss,gradient_norm\n";
    for (const LogLine& line : trainer.curve())
        curve += fmt::format("{},{},{:.6f},{:.6f},{:.6f}\n", line.step, line.window, line.training_loss,
                             line.validation_loss, line.gradient_norm);
    program::write_whole(folder / "loss.csv", curve);
}

} // namespace train
