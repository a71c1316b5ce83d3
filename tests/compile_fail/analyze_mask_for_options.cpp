// expect: a mask is one of the AnalysisOptions
// A mask is one of the options: {.mask = Mask::causal()}.
#include <attnscope/analysis/analyze.hpp>

void mask_for_options() {
    const Eigen::MatrixXd q = Eigen::MatrixXd::Zero(3, 2), k = q, v = q;
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::analyze(q, k, v, {.mask = attnscope::Mask::causal()});
#else
    attnscope::analyze(q, k, v, attnscope::Mask::causal());
#endif
}
