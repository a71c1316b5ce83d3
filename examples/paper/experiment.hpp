// All heads of a model on one text, and what they say together.
#pragma once

#include "head_analysis.hpp"

namespace paper {

struct Source; // what includes the model code takes long to compile

/// One figure over the heads.
struct OverHeads {
    double mean = 0, low = 0, high = 0; ///< low, high: between them lie 8 of 10 heads
};

/// Algorithm 3 for one length.
struct CriticalN {
    Index length = 0;
    std::optional<Index> count;   ///< the smallest N that the test cannot tell apart
    std::vector<double> p_values; ///< [counts]; NaN where no head has the N
};

struct Result {
    Settings settings;
    std::string model, shape, text; ///< in words
    Index tokens = 0, available = 0, layers = 0, heads_per_layer = 0, vector_width = 0;
    bool trained = true;
    double loss = 0; ///< of the next token, nats
    double seconds = 0, forward_seconds = 0;
    std::vector<HeadResult> heads; ///< by layer, then head; their audits are in `audit`
    attnscope::Audit audit;

    std::size_t last_length() const { return settings.lengths.size() - 1; }
    /// Place of an N in the grid, or of the largest below it. Nothing if the grid begins above it.
    std::optional<std::size_t> place(Index count) const;
    /// The figures whose distance the settings read: measured, and of random selections.
    Figure distance() const { return settings.resultant ? Figure::resultant : Figure::distance; }
    Figure random_distance() const {
        return settings.resultant ? Figure::random_resultant : Figure::random_lower;
    }
    OverHeads over_heads(Figure figure, std::size_t length, std::size_t count) const;
    /// Rows of all heads with more than N visible keys.
    Index rows(std::size_t length, std::size_t count) const;
    CriticalN critical(std::size_t length) const;
};

/// Mean, and the 10 % and 90 % quantiles, of the numbers that are not NaN.
OverHeads over(std::vector<double> numbers);

/// Runs the model and analyses every head. Errors: what the run throws; `std::invalid_argument` for vectors that need a
/// model's own matrices or hidden states where they are not at hand.
Result run(const Source& source, Settings settings);

} // namespace paper
