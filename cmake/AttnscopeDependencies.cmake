# attnscope_need(<package>) makes one dependency's target available: the one the project already has, else the
# installed package, else (with ATTNSCOPE_FETCH) a download. attnscope_need_component(<name>) does so for a
# component's dependency.
include_guard()

set(attnscope_archive_Eigen3 https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz)
set(attnscope_sha256_Eigen3 8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72)
set(attnscope_archive_nlohmann_json https://github.com/nlohmann/json/archive/refs/tags/v3.11.2.tar.gz)
set(attnscope_sha256_nlohmann_json d69f9deb6a75e2580465c6c4c5111b89c4dc2fa94e3a85fcd2ffcd9a143d9273)
set(attnscope_archive_fmt https://github.com/fmtlib/fmt/archive/refs/tags/9.1.0.tar.gz)
set(attnscope_sha256_fmt 5dea48d1fcddc3ec571ce2058e13910a0d4a6bab4cc09a809d8b1dd1c88ae6f2)
set(attnscope_archive_CLI11 https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.1.2.tar.gz)
set(attnscope_sha256_CLI11 26291377e892ba0e5b4972cdfd4a2ab3bf53af8dac1f4ea8fe0d1376b625c8cb)
set(attnscope_archive_Catch2 https://github.com/catchorg/Catch2/archive/refs/tags/v2.13.10.tar.gz)
set(attnscope_sha256_Catch2 d54a712b7b1d7708bc7a819a8e6e47b2fde9536f487b89ccbca295072a7d9943)
set(attnscope_archive_benchmark https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz)
set(attnscope_sha256_benchmark 6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7)

function(attnscope_need package)
    if(package STREQUAL "Eigen3")
        attnscope_need_package(Eigen3 TARGET Eigen3::Eigen MINIMUM 3.4 DEBIAN libeigen3-dev INCLUDE .)
    elseif(package STREQUAL "nlohmann_json")
        attnscope_need_package(nlohmann_json TARGET nlohmann_json::nlohmann_json MINIMUM 3.9
                               DEBIAN nlohmann-json3-dev INCLUDE include)
    elseif(package STREQUAL "fmt")
        attnscope_need_package(fmt TARGET fmt::fmt MINIMUM 9 DEBIAN libfmt-dev INCLUDE include
                               DEFINE FMT_HEADER_ONLY=1)
    elseif(package STREQUAL "Boost") # for Boost.Math's headers; not downloaded
        attnscope_need_package(Boost TARGET Boost::headers MINIMUM 1.74 DEBIAN libboost-dev)
    elseif(package STREQUAL "PCRE2") # a C library to compile; not downloaded
        attnscope_need_pcre2()
    elseif(package STREQUAL "CLI11")
        attnscope_need_package(CLI11 TARGET CLI11::CLI11 MINIMUM 2.1 DEBIAN libcli11-dev INCLUDE include)
    elseif(package STREQUAL "Catch2")
        attnscope_need_package(Catch2 TARGET Catch2::Catch2 MINIMUM 2.13 DEBIAN catch2 INCLUDE single_include)
    elseif(package STREQUAL "benchmark")
        attnscope_need_package(benchmark TARGET benchmark::benchmark MINIMUM 1.6 DEBIAN libbenchmark-dev)
    endif()
endfunction()

# Distributions ship PCRE2 as its autotools build, without a CMake package.
function(attnscope_need_pcre2)
    if(TARGET PCRE2::8BIT)
        return()
    endif()
    find_package(PCRE2 CONFIG QUIET GLOBAL COMPONENTS 8BIT)
    if(TARGET PCRE2::8BIT)
        return()
    endif()
    find_path(ATTNSCOPE_PCRE2_INCLUDE pcre2.h)
    find_library(ATTNSCOPE_PCRE2_LIBRARY NAMES pcre2-8)
    mark_as_advanced(ATTNSCOPE_PCRE2_INCLUDE ATTNSCOPE_PCRE2_LIBRARY)
    if(NOT ATTNSCOPE_PCRE2_INCLUDE OR NOT ATTNSCOPE_PCRE2_LIBRARY)
        message(FATAL_ERROR "attnscope's example programs need PCRE2 10.34 or later, its 8-bit library. Install it "
                            "(Debian, Ubuntu: apt-get install libpcre2-dev) or name its place in CMAKE_PREFIX_PATH.")
    endif()
    add_library(PCRE2::8BIT UNKNOWN IMPORTED GLOBAL)
    set_target_properties(PCRE2::8BIT PROPERTIES
        IMPORTED_LOCATION "${ATTNSCOPE_PCRE2_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${ATTNSCOPE_PCRE2_INCLUDE}")
endfunction()

function(attnscope_need_component name)
    if(name STREQUAL "special")
        attnscope_need(Boost)
    elseif(name STREQUAL "io")
        attnscope_need(nlohmann_json)
    elseif(name STREQUAL "fmt")
        attnscope_need(fmt)
    elseif(name STREQUAL "mpi")
        find_package(MPI QUIET GLOBAL COMPONENTS CXX)
        if(NOT MPI_CXX_FOUND)
            message(FATAL_ERROR "attnscope's component mpi needs MPI for C++. Install it (Debian, Ubuntu: apt-get install "
                                "libopenmpi-dev) or name its compiler in MPI_CXX_COMPILER.")
        endif()
    elseif(NOT name STREQUAL "tensor")
        message(FATAL_ERROR "attnscope has no component '${name}': the components are special, io, fmt, mpi, tensor")
    endif()
endfunction()

function(attnscope_need_package package)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TARGET;MINIMUM;DEBIAN;INCLUDE" "DEFINE")
    if(TARGET ${arg_TARGET})
        return()
    endif()

    # No version in the call: Eigen 5's package file refuses "3.4", and 3.4's refuses a range that reaches 5.
    # GLOBAL, because a project that adds attnscope as a subdirectory has to see the target too.
    find_package(${package} CONFIG QUIET GLOBAL)
    if(TARGET ${arg_TARGET})
        if(${package}_VERSION VERSION_LESS arg_MINIMUM)
            message(FATAL_ERROR "attnscope needs ${package} ${arg_MINIMUM} or later, "
                                "found ${${package}_VERSION} in ${${package}_DIR}")
        endif()
        return()
    endif()

    set(remedy "Install it (Debian, Ubuntu: apt-get install ${arg_DEBIAN}) or name its place in CMAKE_PREFIX_PATH")
    if(NOT DEFINED attnscope_archive_${package})
        message(FATAL_ERROR "attnscope needs ${package} ${arg_MINIMUM} or later. ${remedy}.")
    elseif(NOT ATTNSCOPE_FETCH)
        message(FATAL_ERROR "attnscope needs ${package} ${arg_MINIMUM} or later. ${remedy}, "
                            "or set ATTNSCOPE_FETCH=ON to download it.")
    endif()

    # Downloaded here and not by FetchContent, whose failure would bury the remedy in its own log.
    string(TOUPPER "${package}" upper)
    set(archive "${PROJECT_BINARY_DIR}/_deps/${package}.tar.gz")
    if(NOT FETCHCONTENT_SOURCE_DIR_${upper} AND NOT EXISTS "${archive}")
        message(STATUS "Downloading ${package}")
        file(DOWNLOAD ${attnscope_archive_${package}} "${archive}.part" STATUS status INACTIVITY_TIMEOUT 30)
        list(GET status 0 code)
        if(code EQUAL 0)
            file(SHA256 "${archive}.part" sum)
            if(NOT sum STREQUAL attnscope_sha256_${package})
                set(status "1;unexpected checksum ${sum}")
                set(code 1)
            endif()
        endif()
        if(NOT code EQUAL 0)
            list(GET status 1 reason)
            message(FATAL_ERROR "attnscope needs ${package} ${arg_MINIMUM} or later, which is not installed, and "
                                "downloading ${attnscope_archive_${package}} failed (${reason}). ${remedy}.")
        endif()
        file(RENAME "${archive}.part" "${archive}")
    endif()

    include(FetchContent)
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    set(CMAKE_POLICY_DEFAULT_CMP0077 NEW) # so that the two lines above count without touching the cache
    set(subdirectory "")
    if(arg_INCLUDE)
        set(subdirectory SOURCE_SUBDIR none) # headers only: unpack, do not run their build
    endif()
    FetchContent_Declare(${package} URL "${archive}" DOWNLOAD_EXTRACT_TIMESTAMP ON ${subdirectory})
    FetchContent_MakeAvailable(${package})
    if(NOT TARGET ${arg_TARGET})
        FetchContent_GetProperties(${package} SOURCE_DIR source)
        add_library(${arg_TARGET} INTERFACE IMPORTED GLOBAL) # imported: its headers count as system headers
        target_include_directories(${arg_TARGET} INTERFACE "${source}/${arg_INCLUDE}")
        target_compile_definitions(${arg_TARGET} INTERFACE ${arg_DEFINE})
    endif()
endfunction()
