# Configures, builds and runs one consumer from nothing.
set(build "${WORK}/${NAME}")
file(REMOVE_RECURSE "${build}")

function(run message)
    execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${message}:\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

set(configure "${CMAKE_COMMAND}" -G "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${COMPILER}" -S "${CMAKE_CURRENT_LIST_DIR}/${PROJECT}"
    -B "${build}" ${ARGS})
if(REFUSED)
    execute_process(COMMAND ${configure} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
    string(REGEX REPLACE "[ \n]+" " " output "${output}") # CMake wraps its messages
    if(status EQUAL 0 OR NOT output MATCHES "${REFUSED}")
        message(FATAL_ERROR "expected to be refused with '${REFUSED}' (status ${status}):\n${output}")
    endif()
    return()
endif()

run("configuring failed" ${configure})
run("building failed" "${CMAKE_COMMAND}" --build "${build}")
if(output MATCHES "warning:")
    message(FATAL_ERROR "a consumer sees warnings:\n${output}")
endif()
if(PROJECT STREQUAL "catch2")
    run("its tests failed" "${CMAKE_CTEST_COMMAND}" --test-dir "${build}" --no-tests=error)
else()
    run("it does not run" "${build}/consumer")
    if(NOT output MATCHES "^attnscope ${VERSION}\n")
        message(FATAL_ERROR "unexpected output:\n${output}")
    endif()
endif()

# A subdirectory leaves nothing in its parent's cache that is not its own.
file(STRINGS "${build}/CMakeCache.txt" entries REGEX "^[A-Za-z0-9_]+:(BOOL|STRING)=")
list(FILTER entries EXCLUDE REGEX
     "^(CMAKE_|ATTNSCOPE_|FETCHCONTENT_|STUB_|DISABLE_|Eigen3_|fmt_|Catch2_|nlohmann_json_|Boost_|boost_)")
if(entries)
    message(FATAL_ERROR "in the consumer's cache: ${entries}")
endif()
