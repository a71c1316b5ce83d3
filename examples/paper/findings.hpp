// What the paper reports, beside what was measured.
#pragma once

#include "experiment.hpp"

namespace paper {

enum class Agreement { agrees, differs, not_measured };
inline constexpr std::array<std::string_view, 3> agreement_names = {"agrees", "differs", "not measured"};

/// One statement of the paper about GPT-2, and the same figure here.
struct Finding {
    std::string_view experiment; ///< "Algorithm 1"
    std::string_view id;         ///< stable name
    std::string paper;           ///< what the paper says
    std::string here;            ///< what was measured, in words
    double value = 0;            ///< the figure that is compared, NaN if there is none
    std::string rule;            ///< when it counts as agreement
    Agreement agreement = Agreement::not_measured;
};

std::vector<Finding> findings(const Result& result);

/// Every choice that the paper leaves open, as name and what was chosen.
std::vector<std::pair<std::string, std::string>> choices(const Result& result);

/// Slope of log y against log x by least squares over the points where both are positive; NaN for fewer than
/// two.
double log_slope(std::span<const double> x, std::span<const double> y);

/// Largest over the heads of the mean of g over the rows.
double largest_mean(const Result& result, std::size_t temperature, std::size_t step);

} // namespace paper
