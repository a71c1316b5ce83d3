// The picture, drawn by gnuplot.
#pragma once

#include "result.hpp"

namespace scaling {

/// Curves that one picture can hold apart: the first ones of the list of normalisers are drawn.
inline constexpr std::size_t most_curves = 9;

/// Throws unless a gnuplot can be started.
void require_gnuplot();
/// SVG text. Throws when gnuplot fails.
std::string to_svg(const Result& result);

} // namespace scaling
