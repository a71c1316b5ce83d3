// expect: ATTNSCOPE_PRECOMPILED must be defined for all files
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
#define ATTNSCOPE_PRECOMPILED
#endif
#include <attnscope/precompiled.hpp>
