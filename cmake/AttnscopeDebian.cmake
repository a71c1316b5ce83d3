# Run by cpack on the staged files: what Debian wants beside them, copyright and a changelog of each package.
cmake_policy(VERSION 3.24)
if(NOT CPACK_GENERATOR STREQUAL "DEB")
    return()
endif()

# The licence as a paragraph: lines indented, empty ones a dot.
file(READ "${CPACK_ATTNSCOPE_SOURCE}/LICENSE" text)
string(REGEX REPLACE "^.*authors\n+" "" text "${text}")
string(STRIP "${text}" text)
string(REPLACE "\n\n" "\n.\n" text "${text}")
string(REPLACE "\n" "\n " text " ${text}")
string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)

foreach(component IN LISTS CPACK_COMPONENTS_ALL)
    string(TOUPPER "${component}" key)
    set(package "${CPACK_DEBIAN_${key}_PACKAGE_NAME}")
    set(root "${CPACK_TEMPORARY_DIRECTORY}/${component}/usr")
    set(own "${root}/share/doc/${package}")
    file(REMOVE_RECURSE "${root}/share/doc/attnscope")
    file(MAKE_DIRECTORY "${own}")
    file(WRITE "${own}/copyright"
"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: attnscope

Files: *
Copyright: 2026 the attnscope authors
License: Expat
${text}
")
    file(WRITE "${own}/changelog.Debian"
"${package} (${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}) unstable; urgency=medium

  * Packaged by cpack.

 -- ${CPACK_PACKAGE_CONTACT}  ${now}
")
    file(COPY_FILE "${CPACK_ATTNSCOPE_SOURCE}/CHANGELOG.md" "${own}/changelog")
    file(GLOB pages "${root}/share/man/man1/*.1")
    execute_process(COMMAND gzip -n9 "${own}/changelog.Debian" "${own}/changelog" ${pages}
                    COMMAND_ERROR_IS_FATAL ANY)
    file(CHMOD_RECURSE "${root}/share" FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ
         DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
endforeach()

# A package has all of its programs.
foreach(program IN LISTS CPACK_ATTNSCOPE_PROGRAMS)
    if("programs" IN_LIST CPACK_COMPONENTS_ALL AND
       NOT EXISTS "${CPACK_TEMPORARY_DIRECTORY}/programs/usr/bin/${program}")
        message(FATAL_ERROR "attnscope-tools lacks ${program}, which is not built. Build all (cmake --build), or "
                            "pack the headers alone: cpack -G DEB -D CPACK_COMPONENTS_ALL=development")
    endif()
endforeach()
