// expect: use of deleted function .*MatrixView|call to deleted constructor of .*MatrixView
// A view of a temporary would look at memory that is gone.
#include <attnscope/types.hpp>

double first() {
    const attnscope::Matrix<double> matrix = attnscope::Matrix<double>::Ones(2, 2);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::MatrixView<double> view(matrix);
#else
    const attnscope::MatrixView<double> view(attnscope::Matrix<double>(2 * matrix));
#endif
    return view.row(0)[0];
}
