// expect: use of deleted function .*MatrixHolder|call to deleted constructor of .*MatrixHolder
// The holder would show the elements of a matrix that is gone.
#include <attnscope/types.hpp>

attnscope::Matrix<double> make() { return attnscope::Matrix<double>::Ones(2, 2); }

double first() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<double> made = make();
    const attnscope::MatrixHolder<double> matrix(made);
#else
    const attnscope::MatrixHolder<double> matrix(make());
#endif
    return matrix.get().row(0)[0];
}
