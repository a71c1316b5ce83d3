// expect: analyze: q, k and v must be Eigen expressions
// Values of another kind than the library computes with.
#include <attnscope/analysis/analyze.hpp>

void integers() {
    const Eigen::MatrixXd q = Eigen::MatrixXd::Zero(3, 2), k = q;
    const Eigen::MatrixXi v = Eigen::MatrixXi::Zero(3, 2);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::analyze(q, k, v.cast<double>());
#else
    attnscope::analyze(q, k, v);
#endif
}
