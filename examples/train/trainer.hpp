// Training a byte-level model on a text, with checkpoints from which an interrupted run goes on.
#pragma once

#include <models/training.hpp>

#include <filesystem>

namespace train {

using attnscope::Index;

/// What decides every number of a run.
struct Plan {
    models::Config config;
    std::string normalizer = "softmax";
    double temperature = 1;
    bool learn = false; ///< the normaliser's parameter
    Index steps = 0, batch_tokens = 4096;
    double rate = 2e-3; ///< largest; linear up over the first 5 % of the steps, then down a cosine to a tenth
    std::uint64_t seed = 1;

    /// Tokens of a sequence in this step: a quarter of the context in the first 40 % of the steps, half of it
    /// up to 70 %, then all. Short windows teach the same bytes at less cost.
    Index window(Index step) const;
    double rate_at(Index step) const;
};

/// One line of the loss curve.
struct LogLine {
    double step = 0, window = 0, training_loss = 0, validation_loss = 0, gradient_norm = 0;
};

/// The bytes of a text, the last tenth for validation.
struct Text {
    std::string bytes;
    std::string_view training() const { return std::string_view(bytes).substr(0, bytes.size() / 10 * 9); }
    std::string_view validation() const { return std::string_view(bytes).substr(bytes.size() / 10 * 9); }
};

/// Entropy of single bytes, nats.
double unigram_entropy(std::string_view text);

class Trainer {
public:
    /// Begins with GPT-2's initial distribution. Throws std::runtime_error when the text is shorter than a
    /// window, and for a vocabulary other than the 256 bytes.
    Trainer(Plan plan, Text text);

    /// Goes on from a checkpoint of the same plan. Throws std::runtime_error, and leaves the trainer as it was,
    /// naming what differs from the plan, a tensor that is missing, too many, of another shape or type or not
    /// finite, a state that no run has, and a content that is not the one that was saved (its checksum).
    void load(const std::string& file);
    /// Throws std::runtime_error that names the first tensor with a number that is not finite.
    void require_finite();
    /// Weights, moments, step and loss curve, whole or not at all.
    void save(const std::string& file);

    Index step() const { return static_cast<Index>(optimizer_.steps); }
    bool done() const { return step() >= plan_.steps; }
    /// One step; the loss of its batch.
    double advance(const models::Threads& threads);
    /// Mean loss over some windows, or over all of the validation text, each of the whole context.
    double validate(bool all, const models::Threads& threads) const;
    /// How balanced rows are: the mean of theta (`balanced_mass`: |J| from the largest logit error to the sum of the
    /// weights' changes is theta/T) over layers, heads and rows of two keys or more of the first validation window. NaN
    /// for weights that do not sum to 1.
    double mean_balance(const models::Threads& threads) const;
    /// Adds a line to the loss curve: losses since the last one, and a validation.
    const LogLine& log(const models::Threads& threads);

    const Plan& plan() const { return plan_; }
    const Text& text() const { return text_; }
    const std::vector<LogLine>& curve() const { return curve_; }
    models::Network<float>& network() { return network_; }
    Index parameters();
    /// The normaliser as it is now, and its temperature.
    std::pair<std::string, double> normalizer();

private:
    models::Batch draw(Index step) const;
    std::map<std::string, std::string> identity() const;

    Plan plan_;
    Text text_;
    models::Network<float> network_;
    models::Weights<float> gradient_;
    models::AdamW<float> optimizer_;
    std::vector<LogLine> curve_;
    double loss_sum_ = 0, norm_sum_ = 0;
    Index loss_count_ = 0;
};

/// config.json, vocab.json, merges.txt and model.safetensors (16 bits with `half`), as GPT-2 models are
/// published.
void write_model(Trainer& trainer, const std::filesystem::path& folder, bool half);

} // namespace train
