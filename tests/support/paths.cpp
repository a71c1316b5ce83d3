#include "paths.hpp"

#include <cstdlib>

namespace attnscope_test {

std::string source_folder() { return ATTNSCOPE_SOURCE_DIR; }

std::string data_folder() {
    if (const char* folder = std::getenv("ATTNSCOPE_DATA_DIR")) return folder;
    return source_folder() + "/../shared/data";
}

std::string report_program() { return ATTNSCOPE_REPORT_PATH; }

} // namespace attnscope_test
