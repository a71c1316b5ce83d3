// expect: a temporary matrix ends before the view does.*Head
// A head does not look at memory that is gone.
#include <attnscope/attention/head.hpp>

attnscope::Index queries() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const attnscope::HeadView head(q, q, q);
#else
    const attnscope::HeadView head(attnscope::Matrix<float>(attnscope::Matrix<float>::Ones(4, 2)),
                                   attnscope::Matrix<float>(attnscope::Matrix<float>::Ones(4, 2)));
#endif
    return head.queries();
}
