# Headers, the CMake package: find_package(attnscope [COMPONENTS special io fmt mpi tensor]), and attnscope.pc of the core,
# which finds its headers from where it stands.
include(GNUInstallDirs)
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME development) # the tools are the component programs
include(CMakePackageConfigHelpers)

# Each component with a dependency of its own has its own target file: loading it asks for that dependency.
set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/attnscope")
install(TARGETS attnscope attnscope_tensor EXPORT attnscopeTargets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT attnscopeTargets NAMESPACE attnscope:: DESTINATION "${package_dir}")
foreach(component IN ITEMS special io fmt mpi)
    install(TARGETS attnscope_${component} EXPORT attnscope_${component})
    install(EXPORT attnscope_${component} NAMESPACE attnscope:: DESTINATION "${package_dir}"
            FILE attnscope_${component}.cmake)
endforeach()

configure_package_config_file(cmake/attnscopeConfig.cmake.in attnscopeConfig.cmake
                              INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(attnscopeConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/attnscopeConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/attnscopeConfigVersion.cmake" DESTINATION "${package_dir}")
configure_file(cmake/attnscope.pc.in attnscope.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/attnscope.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(DIRECTORY include/attnscope DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
