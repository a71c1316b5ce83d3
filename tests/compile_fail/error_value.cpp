// expect: no matching function for call to .*to_text|no matching function for call to 'to_text'
// An error message shows numbers and text only: a pointer would print as an address or not at all.
#include <attnscope/errors.hpp>

void report(const void* pointer) {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::detail::fail("report", "rule", pointer == nullptr ? 0 : 1);
#else
    attnscope::detail::fail("report", "rule", pointer);
#endif
}
