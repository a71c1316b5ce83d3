// expect: column-major .Eigen's default.: use Head
// A column-major matrix is copied by a head of its own, not viewed.
#include <attnscope/attention/head.hpp>

attnscope::Index queries() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(4, 2);
    const attnscope::HeadView head(q, q, q);
#else
    const Eigen::MatrixXf q = Eigen::MatrixXf::Ones(4, 2);
    const attnscope::HeadView head(q, q, q);
#endif
    return head.queries();
}
