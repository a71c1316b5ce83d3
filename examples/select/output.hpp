// What selections keep, as text, JSON, CSV and a picture.
#pragma once

#include "measure.hpp"

namespace select_keys {

std::string to_text(const Result& result);
/// Schema "attnscope.select/1", documented in docs/selectors.md.
std::string to_json(const Result& result);
/// A line for every policy and head.
std::string to_csv(const Result& result);
/// Mass kept against the budget, and where it is lost. Throws as `gnuplot::run`.
std::string to_svg(const Result& result);

} // namespace select_keys
