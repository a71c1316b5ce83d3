// expect: RowLike|RowScalar|VectorExpr|IsVectorAtCompileTime
// A whole matrix is no row of logits: its rows or columns have to be named.
#include <attnscope/row/row_statistics.hpp>

void matrix() {
    const Eigen::MatrixXd z = Eigen::MatrixXd::Zero(3, 4);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    attnscope::row_statistics(z.row(0));
#else
    attnscope::row_statistics(z);
#endif
}
