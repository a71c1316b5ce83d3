# Run by cpack on the staged files: what Debian wants beside them, copyright and a changelog of the package.
cmake_policy(VERSION 3.24)
if(NOT CPACK_GENERATOR STREQUAL "DEB")
    return()
endif()
set(documents "${CPACK_TEMPORARY_DIRECTORY}/usr/share/doc")
set(own "${documents}/${CPACK_DEBIAN_PACKAGE_NAME}")
file(MAKE_DIRECTORY "${own}")

# The licence as a paragraph: lines indented, empty ones a dot.
file(READ "${CPACK_ATTNSCOPE_SOURCE}/LICENSE" text)
string(REGEX REPLACE "^.*authors\n+" "" text "${text}")
string(STRIP "${text}" text)
string(REPLACE "\n\n" "\n.\n" text "${text}")
string(REPLACE "\n" "\n " text " ${text}")
file(WRITE "${own}/copyright"
"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: attnscope

Files: *
Copyright: 2026 the attnscope authors
License: Expat
${text}
")
file(REMOVE_RECURSE "${documents}/attnscope")

string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE "${own}/changelog.Debian"
"${CPACK_DEBIAN_PACKAGE_NAME} (${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}) unstable; urgency=medium

  * Packaged by cpack.

 -- ${CPACK_PACKAGE_CONTACT}  ${now}
")
file(COPY_FILE "${CPACK_ATTNSCOPE_SOURCE}/CHANGELOG.md" "${own}/changelog")
execute_process(COMMAND gzip -n9 "${own}/changelog.Debian" "${own}/changelog" COMMAND_ERROR_IS_FATAL ANY)
file(CHMOD_RECURSE "${own}" FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ
     DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
