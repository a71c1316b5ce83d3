// expect: a mask stands before the options
// The options of attention where the mask stands.
#include <attnscope/attention/attend.hpp>

Eigen::Index queries() {
    const Eigen::MatrixXf q = Eigen::MatrixXf::Ones(4, 2);
    const attnscope::AttendOptions options{.weights = true};
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    return attnscope::attend(q, q, q, attnscope::Softmax(), attnscope::Mask::none(), options).output.rows();
#else
    attnscope::attend(q, q, q, attnscope::Softmax(), options);
    return 0;
#endif
}
