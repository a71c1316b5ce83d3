// expect: VectorExpr|IsVectorAtCompileTime
// A whole matrix is no row of logits: its rows or columns have to be named.
#include <attnscope/attnscope.hpp>

void weights() {
    const Eigen::MatrixXd z = Eigen::MatrixXd::Zero(3, 4);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::apply(attnscope::Softmax{}, z.row(0));
#else
    attnscope::apply(attnscope::Softmax{}, z);
#endif
}
