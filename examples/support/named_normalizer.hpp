// `attnscope::make_normalizer`, compiled once for all programs.
#pragma once

#include <attnscope/runtime/any_normalizer.hpp>

#include <string>
#include <string_view>

namespace program {

/// As `attnscope::make_normalizer`; throws what it throws.
attnscope::AnyNormalizer named_normalizer(std::string_view text, double temperature = 1);

/// The names that it takes, for the help of an option.
std::string normalizer_help();

} // namespace program
