// The result as JSON and CSV.
#pragma once

#include "findings.hpp"

namespace paper {

struct File {
    std::string name, content;
};

/// Schema "attnscope.paper/1", documented in docs/paper.md.
std::string to_json(const Result& result);

inline constexpr std::array<std::string_view, 8> csv_names{
    "means.csv",       "curves.csv", "critical.csv", "separability.csv",
    "sensitivity.csv", "heads.csv",  "audit.csv",    "findings.csv"};
/// One file for each of `csv_names`.
std::vector<File> to_csv(const Result& result);

/// What stands for a head in heads.csv and on its map.
struct HeadFigure {
    std::string_view name, title;
    double (*value)(const Result&, const HeadResult&);
};
std::span<const HeadFigure> head_figures();

/// Means of Algorithm 4 over the rows that have the N.
struct MeanBall {
    Index count = 0, rows = 0;
    double separable = 0, published_lower = 0, published_upper = 0, valid_lower = 0, valid_upper = 0,
           expected = 0;
};
std::vector<MeanBall> mean_balls(const Result& result);

} // namespace paper
