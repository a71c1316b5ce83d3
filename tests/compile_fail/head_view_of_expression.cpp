// expect: this expression has none: evaluate it
// What is not computed yet has no memory to look at.
#include <attnscope/attention/head.hpp>

attnscope::Index queries() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const attnscope::HeadView head(q, q, q);
#else
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const attnscope::HeadView head(q * 2.0F, q, q);
#endif
    return head.queries();
}
