# Catch2 2 or 3 behind one target: attnscope_catch brings the headers and main(), and catch_discover_tests() is
# there to use.
find_package(Catch2 CONFIG QUIET) # here, because it extends this scope's CMAKE_MODULE_PATH
attnscope_need(Catch2)            # says what to install, or downloads 2.x

if(Catch2_VERSION VERSION_GREATER_EQUAL 3)
    add_library(attnscope_catch INTERFACE)
    target_link_libraries(attnscope_catch INTERFACE Catch2::Catch2WithMain)
else()
    add_library(attnscope_catch OBJECT "${CMAKE_CURRENT_LIST_DIR}/../tests/support/main.cpp")
    target_link_libraries(attnscope_catch PUBLIC Catch2::Catch2 PRIVATE attnscope_flags)
endif()

if(NOT Catch2_FOUND)
    FetchContent_GetProperties(Catch2 SOURCE_DIR attnscope_catch_source)
    list(APPEND CMAKE_MODULE_PATH "${attnscope_catch_source}/contrib")
endif()
include(Catch)
