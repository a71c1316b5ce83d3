# Installs the package into "moved here" by way of another folder, and packs the sources as attnscope.tar.gz.
file(REMOVE_RECURSE "${WORK}/prefix" "${WORK}/moved here" "${WORK}/pack")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/prefix"
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(RENAME "${WORK}/prefix" "${WORK}/moved here")

foreach(entry IN ITEMS CMakeLists.txt LICENSE cmake include tests examples benchmarks)
    file(COPY "${SOURCE}/${entry}" DESTINATION "${WORK}/pack/attnscope")
endforeach()
execute_process(COMMAND "${CMAKE_COMMAND}" -E tar cz "${WORK}/attnscope.tar.gz" attnscope
                WORKING_DIRECTORY "${WORK}/pack" COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE_RECURSE "${WORK}/pack")
