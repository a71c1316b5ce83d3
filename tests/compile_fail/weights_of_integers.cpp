// expect: constraints not satisfied|constraint[^\n]*not satisfied|no matching function for call to .*weights
// Integer logits are refused: they would have to be converted, and the result could not be integers.
#include <attnscope/normalizer/softmax.hpp>

void integers() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const Eigen::VectorXd z = Eigen::VectorXd::Zero(3);
#else
    const Eigen::VectorXi z = Eigen::VectorXi::Zero(3);
#endif
    attnscope::weights(attnscope::Softmax{}, z);
}
