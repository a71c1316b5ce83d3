# The programs of examples/ that are tools: cmake --install puts those that are built into bin, with man pages, where
# help2man is, and completion for bash.
include(GNUInstallDirs)
find_program(ATTNSCOPE_HELP2MAN NAMES help2man)
mark_as_advanced(ATTNSCOPE_HELP2MAN)
if(NOT ATTNSCOPE_HELP2MAN)
    message(STATUS "The programs get no man pages: help2man is missing (apt-get install help2man)")
endif()

# attnscope_install_tool(<name> <what it does in half a line>)
function(attnscope_install_tool name summary)
    if(NOT TARGET ${name})
        return()
    endif()
    # A person may have built some of them only. Those that are missing are named at the end.
    install(TARGETS ${name} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT programs OPTIONAL)
    install(FILES "${PROJECT_SOURCE_DIR}/packaging/completion.bash" RENAME ${name} COMPONENT programs
            DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
    set_property(GLOBAL APPEND PROPERTY attnscope_tools ${name})
    set(page "${PROJECT_BINARY_DIR}/man/${name}.1")
    # It runs the program, which other machines and sanitizers may not do while they build.
    if(NOT ATTNSCOPE_HELP2MAN OR CMAKE_CROSSCOMPILING OR ATTNSCOPE_SANITIZE)
        return()
    endif()
    if(name MATCHES "^(.*)-mpi$") # one does not start MPI to ask for help
        file(CONFIGURE OUTPUT "${page}" CONTENT ".so man1/${CMAKE_MATCH_1}.1\n")
    else()
        add_custom_command(TARGET ${name} POST_BUILD
            COMMAND "${CMAKE_COMMAND}" -E make_directory "${PROJECT_BINARY_DIR}/man"
            COMMAND "${ATTNSCOPE_HELP2MAN}" --no-info "--name=${summary}" --manual=attnscope
                    "--source=attnscope ${PROJECT_VERSION}" "--include=${PROJECT_SOURCE_DIR}/packaging/man.h2m"
                    "--output=${page}" "./$<TARGET_FILE_NAME:${name}>"
            WORKING_DIRECTORY "$<TARGET_FILE_DIR:${name}>" # help2man takes no path with a blank in it
            VERBATIM)
    endif()
    install(FILES "${page}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT programs OPTIONAL)
endfunction()

attnscope_install_tool(attnscope-capture "run a model on a text and write its attention to a file")
attnscope_install_tool(attnscope-laws "where attention heads stand to three laws about long rows and deep stacks")
attnscope_install_tool(attnscope-length-scaling "which normaliser still selects as the context grows")
attnscope_install_tool(attnscope-long-context "statistics of every row of one long head, without its matrix of weights")
attnscope_install_tool(attnscope-long-context-mpi "attnscope-long-context by the ranks of MPI")
attnscope_install_tool(attnscope-merge "the report of heads that many processes have analysed")
attnscope_install_tool(attnscope-paper "the experiments of arXiv:2508.17821 on every head of a model")
attnscope_install_tool(attnscope-plan "temperature, context, top-k and cache format that measured heads need")
attnscope_install_tool(attnscope-report "how concentrated and sensitive attention heads are, and which bounds hold")
attnscope_install_tool(attnscope-report-mpi "attnscope-report by the ranks of MPI")
attnscope_install_tool(attnscope-select "what policies that keep few keys keep of the attention of a head")
attnscope_install_tool(attnscope-tokenize "text to the token ids of a model, and back")
attnscope_install_tool(attnscope-train "train a small byte-level GPT-2 under any normaliser and temperature")
attnscope_install_tool(attnscope-training-temperature "what temperature and normaliser do to small models in training")

get_property(tools GLOBAL PROPERTY attnscope_tools)
list(TRANSFORM tools REPLACE "(.+)" "\"$<TARGET_FILE:\\1>\"")
list(JOIN tools " " tools)
install(CODE "foreach(tool IN ITEMS ${tools})
    if(NOT EXISTS \"\${tool}\")
        cmake_path(GET tool FILENAME tool)
        message(STATUS \"Not built, so not installed: \${tool}\")
    endif()
endforeach()" COMPONENT programs)
