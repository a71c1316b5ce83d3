// The pictures, drawn by gnuplot.
#pragma once

#include "tables.hpp"

namespace paper {

struct Picture {
    std::string name;       ///< of its files, without the ending
    std::string title;      ///< heading on the page
    std::string experiment; ///< what of the paper it corresponds to
    std::string caption;    ///< how to read it, plain text
    std::string script;     ///< gnuplot commands with the colours still open
    int width = 760, height = 420;
};

/// `Picture::name` of all that `pictures` gives, in this order.
inline constexpr std::array<std::string_view, 9> picture_names{
    "concentration",    "distance_length", "distance_count",
    "critical_count",   "separable",       "gradient",
    "precision_recall", "heads",           "plan"};

std::vector<Picture> pictures(const Result& result);

enum class Format { svg, svg_dark, png };
/// Throws when gnuplot fails.
std::string draw(const Picture& picture, Format format);

} // namespace paper
