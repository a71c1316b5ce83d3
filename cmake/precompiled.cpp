#include <attnscope/precompiled.hpp>
#include <attnscope/precompiled.hpp>
