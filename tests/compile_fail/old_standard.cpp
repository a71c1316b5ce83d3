// expect: attnscope needs C\+\+20
// flags: -std=c++17
#include <attnscope/config.hpp>
