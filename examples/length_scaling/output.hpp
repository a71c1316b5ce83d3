// Results as text and as CSV.
#pragma once

#include "result.hpp"

namespace scaling {

/// A table, one line a normaliser, from the longest-lasting to the first to lose the needle; then the answer.
std::string to_text(const Result& result);
/// Every figure; one line for each normaliser and length.
std::string to_csv(const Result& result);

/// The outcomes from the longest-lasting on: by measured loss length, those that keep the needle by its last
/// weight.
std::vector<const Outcome*> by_endurance(const Result& result);

/// Such as "1048576", "2280000": three significant digits, powers of two as they are.
std::string length_text(double length);
/// Such as "3100", "< 64", "> 1048576".
std::string loss_text(const LossLength& loss);

} // namespace scaling
