// Where things lie that tests look at: the build knows, in one file, so that what it compiles for one clone serves another.
#pragma once

#include <string>

namespace attnscope_test {

/// The root of this project.
std::string source_folder();
/// The real data, if they are there: ATTNSCOPE_DATA_DIR, else a folder beside the root.
std::string data_folder();
/// attnscope-report as it was built; where ATTNSCOPE_REPORT_PROGRAM is defined.
std::string report_program();

} // namespace attnscope_test
