// One page that holds everything and opens offline.
#pragma once

#include "tables.hpp"

#include <attnscope/report/experiment_pictures.hpp>

namespace paper {

/// A picture as drawn, SVG.
struct DrawnPicture {
    attnscope::ExperimentPicture picture;
    std::string light, dark;
};

/// HTML with the pictures inside. Without pictures: the tables alone.
std::string to_page(const Result& result, std::span<const DrawnPicture> pictures);

/// The same without head, foot and audit, as a section of the page on which the heads are explored.
std::string to_section(const Result& result, std::span<const DrawnPicture> pictures);

} // namespace paper
