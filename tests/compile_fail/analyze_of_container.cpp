// expect: analyze: q, k and v must be Eigen expressions
// A vector has no shape: it enters as an Eigen::Map.
#include <attnscope/analysis/analyze.hpp>

void container() {
    const Eigen::MatrixXd k = Eigen::MatrixXd::Zero(3, 2), v = k;
    const std::vector<double> q(6);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::analyze(Eigen::Map<const Eigen::MatrixXd>(q.data(), 3, 2), k, v,
                       {.mask = attnscope::Mask::causal()});
#else
    attnscope::analyze(q, k, v, {.mask = attnscope::Mask::causal()});
#endif
}
