# Which files does the umbrella include, directly or not?
execute_process(
    COMMAND "${COMPILER}" -std=c++20 -M -x c++ "-I${INCLUDE}" -isystem "${EIGEN}" "${INCLUDE}/attnscope/attnscope.hpp"
    OUTPUT_VARIABLE files RESULT_VARIABLE status)
if(NOT status EQUAL 0 OR NOT files MATCHES "/Eigen/Core")
    message(FATAL_ERROR "cannot list the umbrella's includes (status ${status})")
endif()
if(files MATCHES "[^ \n]*(/(boost|fmt|nlohmann|catch2|CLI|unsupported)/|attnscope/(capture|io|report)/|attnscope/(fmt|plan_text)\\.hpp)[^ \n]*")
    message(FATAL_ERROR "attnscope.hpp includes ${CMAKE_MATCH_0}")
endif()
