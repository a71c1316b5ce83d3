// expect: numbers of one scalar: use Head
// A view of half precision looks at half precision only.
#include <attnscope/attention/attend.hpp>

attnscope::Index queries() {
    const Eigen::Matrix<Eigen::half, 4, 2, Eigen::RowMajor> q =
        Eigen::Matrix<Eigen::half, 4, 2, Eigen::RowMajor>::Ones();
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::HeadView head(q, q, q);
#else
    const attnscope::Matrix<float> k = q.cast<float>();
    const attnscope::HeadView head(q, k, q);
#endif
    return head.queries();
}
