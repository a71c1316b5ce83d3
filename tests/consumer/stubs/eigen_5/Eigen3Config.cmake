# Eigen 5's package file around the installed headers.
add_library(Eigen3::Eigen INTERFACE IMPORTED)
target_include_directories(Eigen3::Eigen INTERFACE "${STUB_EIGEN}")
