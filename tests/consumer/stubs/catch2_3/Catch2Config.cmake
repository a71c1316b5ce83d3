# Catch2 3's package as its users see it: compiled targets, catch_all.hpp, Catch.cmake beside this file. The header is
# the installed one of Catch2 2 under the names of 3, which exports nothing outside of namespace Catch.
set(stub_include "${CMAKE_CURRENT_BINARY_DIR}/catch2_3")
file(READ "${STUB_CATCH2}/catch2/catch.hpp" stub_header)
string(REPLACE "\nusing Catch::Detail::Approx;" "" stub_header "${stub_header}")
string(REPLACE "ContainsMatcher Contains(" "ContainsMatcher ContainsSubstring(" stub_header "${stub_header}")
file(WRITE "${stub_include}/catch2/catch_all.hpp" "${stub_header}\nnamespace Catch {\nusing Detail::Approx;\n}\n")

add_library(Catch2 STATIC "${CMAKE_CURRENT_LIST_DIR}/main.cpp")
target_include_directories(Catch2 SYSTEM PUBLIC "${stub_include}")
target_compile_features(Catch2 PUBLIC cxx_std_14)
add_library(Catch2::Catch2 ALIAS Catch2)
add_library(Catch2::Catch2WithMain ALIAS Catch2)
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
