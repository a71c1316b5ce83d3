// expect: same_as<.*Scalar
// Logits and direction have one scalar: a silent conversion would hide where precision is lost.
#include <attnscope/normalizer/softmax.hpp>

void derivative() {
    const Eigen::VectorXd z = Eigen::VectorXd::Zero(3);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const Eigen::VectorXd v = Eigen::VectorXd::Ones(3);
#else
    const Eigen::VectorXf v = Eigen::VectorXf::Ones(3);
#endif
    attnscope::jvp(attnscope::Softmax{}, z, v);
}
