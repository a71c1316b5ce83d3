// expect: use of deleted function .*MatrixView|call to deleted constructor of .*MatrixView
// A column-major matrix would be converted into a row-major temporary; `attend` takes it, a view does not.
#include <attnscope/types.hpp>

double first() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::Matrix<double> matrix = attnscope::Matrix<double>::Ones(2, 2);
#else
    using Columns = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
    const Columns matrix = Columns::Ones(2, 2);
#endif
    const attnscope::MatrixView<double> view(matrix);
    return view.row(0)[0];
}
