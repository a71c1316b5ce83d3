// Where the real data lie, if they are there: ATTNSCOPE_DATA_DIR, else the default that the build names.
#pragma once

#include <cstdlib>
#include <string>

namespace attnscope_test {

inline std::string data_folder() {
    if (const char* folder = std::getenv("ATTNSCOPE_DATA_DIR")) return folder;
#ifdef ATTNSCOPE_DEFAULT_DATA_DIR
    return ATTNSCOPE_DEFAULT_DATA_DIR;
#else
    return "../shared/data";
#endif
}

} // namespace attnscope_test
