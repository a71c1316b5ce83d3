// Temperature against training, and length against normalisers.
#pragma once

#include "tasks.hpp"

namespace temperature {

struct Settings {
    std::vector<double> temperatures = {0.03, 0.1, 0.3, 1, 3, 10};
    std::vector<std::string> normalizers = {"softmax",   "ssmax:0.24", "adaptive", "entmax:1.5",
                                            "sparsemax", "sink:1",     "sigmoid"};
    Index seeds = 3, steps = 1000, every = 25, examples = 64;
    std::vector<Index> stretches = {1, 4, 16, 64}; ///< of the longest training length
    std::uint64_t seed = 1;
    Index threads = 1; ///< change nothing in the results
};

/// A trained model at one length.
struct AtLength {
    Task task = Task::recall;
    std::string normalizer;
    std::uint64_t seed = 0;
    Index length = 0;
    RowMeans rows;
    double predicted =
        0;            ///< weight on the right key from the logits at the training length, NaN unless softmax
    double limit = 0; ///< what the spread of the logits allows (Corollary 1, sharp), NaN unless softmax
};

struct Result {
    Settings settings;
    std::vector<Run> runs;         ///< softmax, by task, temperature, seed
    std::vector<AtLength> lengths; ///< by task, normaliser, seed, length
    double seconds = 0;
};

Result run(const Settings& settings);

/// Middle of the numbers, NaN left out; NaN if there is none.
double median(std::vector<double> numbers);

} // namespace temperature
