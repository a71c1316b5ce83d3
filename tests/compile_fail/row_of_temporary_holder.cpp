// expect: use of deleted function .*RowHolder<T>::get|call to deleted member function 'get'
// The row of a temporary holder may be the holder's own copy.
#include <attnscope/types.hpp>

double first(const Eigen::VectorXd& z) {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::RowHolder<double> holder(2 * z);
    const attnscope::RowIn<double> row = holder.get();
#else
    const attnscope::RowIn<double> row = attnscope::RowHolder<double>(2 * z).get();
#endif
    return row[0];
}
