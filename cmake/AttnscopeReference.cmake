# cmake --build build --target docs: the reference in build/reference/html/index.html, the pages of docs/ and every
# public name, made by Doxygen from their sources. A warning, so also a link that leads nowhere, is an error.
find_program(ATTNSCOPE_DOXYGEN NAMES doxygen)
find_path(ATTNSCOPE_DOXYGEN_STYLE NAMES doxygen-awesome.css PATH_SUFFIXES share/doxygen-awesome-css
          DOC "Folder of doxygen-awesome.css, else Doxygen's own style")
mark_as_advanced(ATTNSCOPE_DOXYGEN ATTNSCOPE_DOXYGEN_STYLE)
if(NOT ATTNSCOPE_DOXYGEN OR NOT ATTNSCOPE_AWK)
    message(STATUS "No target docs: it needs Doxygen and awk (apt-get install doxygen doxygen-awesome-css mawk)")
    return()
endif()

function(attnscope_add_reference)
    set(reference_folder "${PROJECT_BINARY_DIR}/reference")
    # Those of docs/ in the order of the sidebar, and behind them what is not named here.
    set(pages README.md guide special_rows normalizers bounds selectors caches plan report paper models many_machines
              states length_scaling training performance findings CONTRIBUTING.md SECURITY.md benchmarks/NOTES.md
              examples/data/shakespeare/README.md)
    list(TRANSFORM pages REPLACE "^([a-z_]+)$" "docs/\\1.md")
    list(TRANSFORM pages PREPEND "${PROJECT_SOURCE_DIR}/")
    file(GLOB all_pages CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/*.md")
    list(APPEND pages ${all_pages})
    list(REMOVE_DUPLICATES pages)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/attnscope/*.hpp")
    list(FILTER headers EXCLUDE REGEX "/detail/")
    file(GLOB pictures CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/*.svg" "${PROJECT_SOURCE_DIR}/docs/*.png")

    set(own "${PROJECT_SOURCE_DIR}/cmake/reference")
    set(styles "${own}/style.css")
    set(reference_colour_style "")
    if(ATTNSCOPE_DOXYGEN_STYLE)
        list(PREPEND styles "${ATTNSCOPE_DOXYGEN_STYLE}/doxygen-awesome.css"
                            "${ATTNSCOPE_DOXYGEN_STYLE}/doxygen-awesome-sidebar-only.css")
        # Later Doxygens have a dark style of their own, which this one replaces.
        execute_process(COMMAND "${ATTNSCOPE_DOXYGEN}" --version OUTPUT_VARIABLE version)
        if(version VERSION_GREATER_EQUAL 1.9.5)
            set(reference_colour_style "HTML_COLORSTYLE = LIGHT")
        endif()
    endif()
    foreach(name IN ITEMS input styles pictures)
        set(files ${${name}})
        if(name STREQUAL "input")
            set(files "${own}/reference.dox" ${pages} "${own}/sources.dox" ${headers})
        endif()
        list(TRANSFORM files REPLACE "(.+)" "\"\\1\"")
        list(JOIN files " \\\n    " reference_${name})
    endforeach()
    configure_file(cmake/Doxyfile.in "${reference_folder}/Doxyfile" @ONLY)

    # Doxygen starts its filters through a shell, from its working folder.
    set(awk "'${ATTNSCOPE_AWK}' -v names=names -f '${own}/text.awk' -f")
    file(CONFIGURE OUTPUT "${reference_folder}/comments" @ONLY CONTENT
         "#!/bin/sh\nexec @awk@ '@own@/comments.awk' \"$1\"\n")
    file(CONFIGURE OUTPUT "${reference_folder}/pages" @ONLY CONTENT
         "#!/bin/sh\nexec @awk@ '@own@/pages.awk' -v 'root=@PROJECT_SOURCE_DIR@' \"$1\" \"$1\"\n")
    file(CONFIGURE OUTPUT "${reference_folder}/make_names" @ONLY CONTENT
"#!/bin/sh
set -e
: >names
for header in \"$@\"; do ./comments \"$header\" | '@ATTNSCOPE_AWK@' -f '@own@/names.awk'; done | sort -u >new_names
mv new_names names
")
    file(CHMOD "${reference_folder}/comments" "${reference_folder}/pages" "${reference_folder}/make_names"
         PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ WORLD_READ)
    add_custom_target(docs
        COMMAND "${CMAKE_COMMAND}" -E rm -rf html
        COMMAND ./make_names ${headers}
        COMMAND "${ATTNSCOPE_DOXYGEN}" Doxyfile
        WORKING_DIRECTORY "${reference_folder}"
        VERBATIM
        COMMENT "Writing ${reference_folder}/html/index.html")
endfunction()
attnscope_add_reference()
