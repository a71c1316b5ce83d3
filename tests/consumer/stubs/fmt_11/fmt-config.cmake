# fmt 11's package file around the installed headers.
add_library(fmt::fmt INTERFACE IMPORTED)
target_include_directories(fmt::fmt INTERFACE "${STUB_FMT}")
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)
