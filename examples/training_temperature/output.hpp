// The result as text, CSV and pictures.
#pragma once

#include "experiment.hpp"

namespace temperature {

std::string to_text(const Result& result);
std::string runs_csv(const Result& result);
std::string lengths_csv(const Result& result);
/// gnuplot commands behind the terminal.
std::string training_picture(const Result& result);
std::string length_picture(const Result& result);

} // namespace temperature
