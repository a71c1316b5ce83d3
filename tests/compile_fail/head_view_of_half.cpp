// expect: numbers of one scalar: use Head
// Half precision is converted, which a view cannot.
#include <attnscope/attention/head.hpp>

attnscope::Index queries() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const attnscope::HeadView head(q, q, q);
#else
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> k = q.cast<Eigen::half>();
    const attnscope::HeadView head(q, k, q);
#endif
    return head.queries();
}
