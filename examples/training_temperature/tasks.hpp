// Two tasks whose answer stands at one known key, and small models trained on them.
#pragma once

#include <models/training.hpp>

namespace temperature {

using attnscope::Index;

enum class Task {
    recall, ///< pairs (key, value), one token each; the last token asks for the value of a key that is there
            ///< once
    maximum ///< items (level, class), one token each; the last token asks for the class of the highest level
};
inline constexpr std::array<std::string_view, 2> task_names = {"recall", "maximum"};

Index vocabulary_of(Task task);

struct Example {
    std::vector<std::int32_t> ids; ///< the last one asks
    std::int32_t answer = 0;       ///< a token that names the value or class
    Index place = 0;               ///< of the key that knows it
};
/// length >= 2. All other keys differ from the one that is asked for, and may repeat among themselves.
Example draw(Task task, Index length, attnscope::SplitMix64& random);

struct RunPlan {
    Task task = Task::recall;
    std::string normalizer = "softmax";
    double temperature = 1;
    std::uint64_t seed = 1;
    Index steps = 600, sequences = 32, least_length = 32, most_length = 64;
    double rate = 1e-3;
};

/// Means over the rows of the last query, those that must find their key.
struct RowMeans {
    double accuracy = 0, loss = 0;
    double right_weight = 0;                   ///< on the key that knows the answer
    double entropy_nats = 0;                   ///< of the weights divided by their sum
    double spectral = 0, largest_spectral = 0; ///< |J|_2
    double gap = 0;                            ///< logit of that key minus the largest other
    double spread = 0;                         ///< largest minus smallest logit
    std::vector<double> rest;                  ///< of each row: mean over the others of e^{z_j - z_right}
};
/// `count` examples of one length.
RowMeans measure(const models::Network<float>& network, Task task, Index length, Index count,
                 std::uint64_t seed);

struct LogLine {
    Index step = 0;
    double loss = 0;                               ///< mean of the batches since the last line
    double gradient_norm = 0, gradient_spread = 0; ///< mean and standard deviation of the norm since then
    RowMeans rows;
};

struct Run {
    RunPlan plan;
    std::vector<LogLine> log;
    std::optional<Index> steps_to_95; ///< first line with an accuracy of 95 %
};

/// A model with one layer and one head, without positions, trained from GPT-2's initial distribution by AdamW;
/// a line every `every` steps. On one thread.
std::pair<Run, models::Network<float>> train(const RunPlan& plan, Index every, Index longest);

} // namespace temperature
