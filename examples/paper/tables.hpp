// The result as files.
#pragma once

#include "experiment.hpp"

namespace paper {

struct File {
    std::string name, content;
};

inline constexpr std::string_view json_name = "results.json";
/// Their names, and the tables and results.json themselves: schema "attnscope.paper/1", documented in docs/paper.md.
std::vector<std::string> names_of_tables();
std::vector<File> tables(const Result& result);

} // namespace paper
