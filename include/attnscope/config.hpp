// Version, namespace and the conditions under which the library's arithmetic is meaningful.
#pragma once

#include <Eigen/Core>

// The one place where the version is written; CMake reads it from here.
#define ATTNSCOPE_VERSION_MAJOR 0
#define ATTNSCOPE_VERSION_MINOR 2
#define ATTNSCOPE_VERSION_PATCH 0

#define ATTNSCOPE_DETAIL_STRING_(x) #x
#define ATTNSCOPE_DETAIL_STRING(x) ATTNSCOPE_DETAIL_STRING_(x)
#define ATTNSCOPE_VERSION                                                                                      \
    ATTNSCOPE_DETAIL_STRING(ATTNSCOPE_VERSION_MAJOR)                                                           \
    "." ATTNSCOPE_DETAIL_STRING(ATTNSCOPE_VERSION_MINOR) "." ATTNSCOPE_DETAIL_STRING(ATTNSCOPE_VERSION_PATCH)

#if defined(_MSVC_LANG) ? (_MSVC_LANG < 202002L) : (__cplusplus < 202002L)
#error "attnscope needs C++20: compile with -std=c++20 or later"
#endif

// NaN, infinities and exact zeros of masked keys are part of every contract here.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "attnscope cannot be compiled with -ffast-math or -ffinite-math-only: NaN and infinity would be lost"
#endif

#if EIGEN_WORLD_VERSION < 3 || (EIGEN_WORLD_VERSION == 3 && EIGEN_MAJOR_VERSION < 4)
#error "attnscope needs Eigen 3.4 or later"
#endif

namespace attnscope {

/// Everything lives in a versioned inline namespace: two versions can meet in one program without clashing.
inline namespace v0_2 {}

/// "major.minor.patch"
inline constexpr const char* version = ATTNSCOPE_VERSION;

} // namespace attnscope
