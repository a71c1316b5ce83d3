# Catch2 3's package as its users see it: compiled targets, catch_all.hpp, Catch.cmake beside this file.
add_library(Catch2 STATIC "${CMAKE_CURRENT_LIST_DIR}/main.cpp")
target_include_directories(Catch2 SYSTEM PUBLIC "${CMAKE_CURRENT_LIST_DIR}/include" "${STUB_CATCH2}")
target_compile_features(Catch2 PUBLIC cxx_std_14)
add_library(Catch2::Catch2 ALIAS Catch2)
add_library(Catch2::Catch2WithMain ALIAS Catch2)
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
