# How attnscope's own programs are compiled. Nothing here reaches the library's targets.

set(attnscope_gcc_like $<CXX_COMPILER_ID:GNU,Clang,AppleClang>)

add_library(attnscope_warnings INTERFACE)
target_compile_options(attnscope_warnings INTERFACE
    "$<${attnscope_gcc_like}:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow>"
    $<$<AND:${attnscope_gcc_like},$<BOOL:${ATTNSCOPE_WERROR}>>:-Werror>
    # GCC bug 105651: GCC 12 takes every "text" + std::string for an overlapping copy.
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)

# What the options ask for.
add_library(attnscope_flags INTERFACE)
target_compile_definitions(attnscope_flags INTERFACE ${ATTNSCOPE_DEFINITIONS})
if(ATTNSCOPE_SANITIZE)
    target_compile_options(attnscope_flags INTERFACE
        -fsanitize=${ATTNSCOPE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(attnscope_flags INTERFACE -fsanitize=${ATTNSCOPE_SANITIZE})
endif()
if(ATTNSCOPE_NATIVE)
    include(CheckCXXCompilerFlag)
    check_cxx_compiler_flag(-march=native ATTNSCOPE_HAS_MARCH_NATIVE)
    check_cxx_compiler_flag(-mprefer-vector-width=512 ATTNSCOPE_HAS_VECTOR_WIDTH)
    if(ATTNSCOPE_HAS_MARCH_NATIVE)
        target_compile_options(attnscope_flags INTERFACE -march=native)
    endif()
    if(ATTNSCOPE_HAS_VECTOR_WIDTH)
        target_compile_options(attnscope_flags INTERFACE -mprefer-vector-width=512)
        # GCC bug 105593: false positives from GCC's own AVX-512 intrinsics headers.
        target_compile_options(attnscope_warnings INTERFACE
            "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
    endif()
endif()

# attnscope_precompile(<name> [<option of the compiler>...]): a library of what takes the compiler long, once for many programs.
# Whoever uses the headers alone, as everybody may, undefines the macro.
function(attnscope_precompile name)
    add_library(${name} STATIC "${PROJECT_SOURCE_DIR}/cmake/precompiled.cpp")
    target_compile_definitions(${name} PUBLIC ATTNSCOPE_PRECOMPILED)
    target_compile_options(${name} PRIVATE ${ARGN})
    target_link_libraries(${name} PRIVATE attnscope::attnscope attnscope_warnings attnscope_flags)
endfunction()
if(ATTNSCOPE_SANITIZE) # what runs longest is optimised, whatever the rest is
    attnscope_precompile(attnscope_precompiled $<${attnscope_gcc_like}:-O1>)
else()
    attnscope_precompile(attnscope_precompiled)
endif()

# attnscope_parse_once(<name> [OPTIONS <option>...] [LINKS <target>...] [HEADERS <header>...]): Eigen, the standard library and
# HEADERS, parsed once for the targets that set attnscope_parsed to <name> and have the same options. Headers of our own
# are not among them: an edit of one compiles what includes it, and no more. CMAKE_DISABLE_PRECOMPILE_HEADERS does without.
function(attnscope_parse_once name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "OPTIONS;LINKS;HEADERS")
    set(source "${PROJECT_BINARY_DIR}/${name}.cpp")
    file(CONFIGURE OUTPUT "${source}" CONTENT "// What is parsed once needs a file to belong to.\n")
    add_library(${name} OBJECT "${source}")
    target_link_libraries(${name} PRIVATE attnscope::attnscope attnscope_warnings attnscope_flags ${arg_LINKS})
    target_compile_options(${name} PRIVATE ${arg_OPTIONS})
    target_precompile_headers(${name} PRIVATE
        <Eigen/Core> <algorithm> <array> <atomic> <charconv> <chrono> <complex> <condition_variable> <filesystem>
        <fstream> <functional> <iomanip> <iostream> <limits> <map> <memory> <mutex> <numeric> <optional> <random>
        <ranges> <set> <span> <sstream> <stdexcept> <string> <thread> <tuple> <unordered_map> <utility> <variant>
        <vector> ${arg_HEADERS})
endfunction()
function(attnscope_use_parsed name)
    if(attnscope_parsed)
        target_precompile_headers(${name} REUSE_FROM ${attnscope_parsed})
        # GCC looks through all of it whenever it collects garbage, and forgets which headers were the system's: it warns of
        # its own strings. ccache needs to see what was included.
        target_compile_options(${name} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess;--param=ggc-min-heapsize=524288>"
            "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>")
    endif()
endfunction()
set(attnscope_parsed "") # nothing

# attnscope_add_program(<name> SOURCES <file>... [LINKS <target>...]), its own links first.
function(attnscope_add_program name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINKS")
    add_executable(${name} ${arg_SOURCES})
    attnscope_use_parsed(${name})
    target_link_libraries(${name} PRIVATE attnscope::attnscope attnscope_warnings attnscope_flags ${arg_LINKS} attnscope_precompiled)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
endfunction()
