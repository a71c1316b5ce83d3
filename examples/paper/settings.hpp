// What the experiments of arXiv:2508.17821 leave open, and how much of them is run.
#pragma once

#include <attnscope/analysis/head_curves.hpp>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace paper {

using attnscope::Index;

/// Which vector of a key is x_i.
enum class Token {
    value,       ///< v_i of the head
    hidden,      ///< the residual stream that enters the layer
    contribution ///< W_O v_i, what the head adds to the residual stream for weight 1
};
inline constexpr std::array<std::string_view, 3> token_names = {"value", "hidden", "contribution"};

using attnscope::ShortRows;
using attnscope::UnitVectors;
inline constexpr std::array<std::string_view, 3> unit_names = {"nowhere", "separability", "everywhere"};
inline constexpr std::array<std::string_view, 2> short_row_names = {"exclude", "zero"};

using Figure = attnscope::CurveFigure;
inline constexpr std::size_t figure_count = attnscope::curve_figure_count;
inline constexpr auto figure_names = attnscope::curve_figure_names;

struct Settings {
    Token token = Token::value;
    UnitVectors unit = UnitVectors::separability;
    ShortRows short_rows = ShortRows::exclude;
    bool resultant = false; ///< the reading of the distance that critical N and the findings use
    double level = 0.05;    ///< of the Kolmogorov-Smirnov test
    double radius = 0;      ///< of Algorithm 4's ball; 0: distance of the nearest key that is not selected
    std::uint64_t seed = 1;
    Index seeded_rows = 16;  ///< of Algorithm 4, beside the last row of every head
    Index planned_rows = 24; ///< of each head, for its plan
    Index threads = 1;       ///< change nothing in the results

    std::vector<Index> lengths;       ///< L of the text, ascending; the last is the whole text
    std::vector<Index> counts;        ///< N, ascending
    std::vector<Index> audited;       ///< N of the statements about selections
    std::vector<Index> balls;         ///< N of Algorithm 4's bounds
    std::vector<double> temperatures; ///< of Algorithm 5, ascending
    std::vector<double> steps;        ///< eps of Algorithm 5
    Index fixed_count = 5;            ///< N of Algorithm 1
};

/// Fills the grids for a text of `length` tokens: lengths 32, 64, ... up to it; every N up to 0.15 of it, the
/// paper's 1, 5, 10, 20, 100, and up to length - 1 about 12 for each factor of 10. quick: fewer of all.
void fill_grids(Settings& settings, Index length, bool quick);

} // namespace paper
