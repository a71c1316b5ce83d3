# cpack -G DEB: libattnscope-dev, the headers with their CMake package and attnscope.pc, for any processor; and, where
# programs are installed, attnscope-tools. The maintainer is DEBFULLNAME <DEBEMAIL>, as in Debian's own tools.
set(CPACK_PACKAGE_NAME attnscope)
set(CPACK_PACKAGE_VERSION "${PROJECT_VERSION}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "analysis of softmax attention")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
"Header-only C++20 library on Eigen: how attention heads concentrate, select
and react at any length, temperature and normaliser, with the theorems that
limit them held against every row. Heads come from arrays, files of tensors
or the tiles of an engine.")
set(name "$ENV{DEBFULLNAME}")
set(address "$ENV{DEBEMAIL}")
if(NOT name)
    set(name "The attnscope authors")
endif()
if(NOT address)
    cmake_host_system_information(RESULT host QUERY FQDN)
    set(address "root@${host}")
endif()
set(CPACK_PACKAGE_CONTACT "${name} <${address}>")
set(CPACK_VERBATIM_VARIABLES ON)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL development)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libattnscope-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS "libboost-dev, libfmt-dev, nlohmann-json3-dev")

set(CPACK_DEBIAN_PROGRAMS_PACKAGE_NAME attnscope-tools)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_RECOMMENDS "gnuplot-nox | gnuplot")
set(CPACK_DEBIAN_PROGRAMS_DESCRIPTION
"Programs that tell how attention heads concentrate, select and react, from
files of tensors or whole models: attnscope-report, attnscope-select,
attnscope-plan, attnscope-paper and their kin.")
set(CPACK_STRIP_FILES ON)
if(ATTNSCOPE_INSTALL_PROGRAMS AND ATTNSCOPE_NATIVE)
    message(STATUS "cpack: no package attnscope-tools, the programs are compiled for this machine (ATTNSCOPE_NATIVE)")
elseif(ATTNSCOPE_INSTALL_PROGRAMS)
    list(APPEND CPACK_COMPONENTS_ALL programs)
endif()
get_property(CPACK_ATTNSCOPE_PROGRAMS GLOBAL PROPERTY attnscope_tools)
set(CPACK_PRE_BUILD_SCRIPTS "${CMAKE_CURRENT_LIST_DIR}/AttnscopeDebian.cmake")
set(CPACK_ATTNSCOPE_SOURCE "${PROJECT_SOURCE_DIR}")
set(CPACK_ATTNSCOPE_DOCUMENTS "${CMAKE_INSTALL_DOCDIR}")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
                                                WORLD_READ WORLD_EXECUTE)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON) # headers need nothing built
include(CPack)
