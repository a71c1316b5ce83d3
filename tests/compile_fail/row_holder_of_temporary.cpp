// expect: use of deleted function .*RowHolder|call to deleted constructor of .*RowHolder
// The holder would show the elements of a vector that is gone.
#include <attnscope/types.hpp>

double first(const Eigen::VectorXd& z) {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::RowHolder<double> row(2 * z); // an expression is copied
#else
    const attnscope::RowHolder<double> row(Eigen::VectorXd(2 * z));
#endif
    return row.get()[0];
}
