// expect: a normaliser stands before the mask
// The arguments of attention in another order.
#include <attnscope/attention/attend.hpp>

Eigen::Index queries() {
    const Eigen::MatrixXf q = Eigen::MatrixXf::Ones(4, 2);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    return attnscope::attend(q, q, q, attnscope::Softmax(), attnscope::Mask::causal()).output.rows();
#else
    attnscope::attend(q, q, q, attnscope::Mask::causal());
    return 0;
#endif
}
