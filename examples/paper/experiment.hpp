// The experiments of arXiv:2508.17821 on all heads of a model and one text.
#pragma once

#include <attnscope/analysis/experiments.hpp>

namespace paper {

using attnscope::Index;

struct Source; // what includes the model code takes long to compile

/// Which vector of a key is x_i.
enum class Token {
    value,       ///< v_i of the head
    hidden,      ///< the residual stream that enters the layer
    contribution ///< W_O v_i, what the head adds to the residual stream for weight 1
};
inline constexpr std::array<std::string_view, 3> token_names = {"value", "hidden", "contribution"};
inline constexpr std::array<std::string_view, 3> unit_names = {"nowhere", "separability", "everywhere"};
inline constexpr std::array<std::string_view, 2> short_row_names = {"exclude", "zero"};

struct Settings {
    Token token = Token::value;
    attnscope::ExperimentOptions experiments;
    Index threads = 1; ///< change nothing in the results
};

struct Result : attnscope::Experiments {
    Token token = Token::value;
    Index threads = 1;
    std::string model, shape, text; ///< in words
    Index available = 0;            ///< tokens of the text
    bool trained = true;
    double loss = 0; ///< of the next token, nats
    double seconds = 0, forward_seconds = 0;

    bool resultant() const { return options.reading == attnscope::Reading::resultant; }
};

/// Runs the model and analyses every head. Errors: what the run throws; `std::invalid_argument` for vectors that need a
/// model's own matrices or hidden states where they are not at hand.
Result run(const Source& source, Settings settings);

/// Every choice that the paper leaves open, as name and what was chosen.
std::vector<std::pair<std::string, std::string>> choices(const Result& result);

} // namespace paper
