# As the real one: only a request for 5 is compatible, and a range must lie within 5.
set(PACKAGE_VERSION 5.0.0)
if(PACKAGE_FIND_VERSION_RANGE)
    if(PACKAGE_FIND_VERSION_MIN_MAJOR STREQUAL "5")
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
elseif(NOT PACKAGE_FIND_VERSION OR PACKAGE_FIND_VERSION_MAJOR STREQUAL "5")
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
