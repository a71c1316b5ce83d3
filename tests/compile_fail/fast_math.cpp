// expect: attnscope cannot be compiled with -ffast-math
// flags: -ffast-math
#include <attnscope/config.hpp>
