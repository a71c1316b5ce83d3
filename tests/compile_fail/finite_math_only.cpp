// expect: attnscope cannot be compiled with -ffast-math or -ffinite-math-only
// flags: -ffinite-math-only
#include <attnscope/config.hpp>
