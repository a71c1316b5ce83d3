// expect: use of deleted function .*MatrixHolder<T>::get|call to deleted member function 'get'
// A column-major matrix is copied into its holder: the view must not outlive that.
#include <attnscope/attention/head.hpp>

attnscope::Index width(const Eigen::MatrixXd& q) {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::MatrixHolder<double> rows(q);
    const attnscope::HeadView<double> head(rows.get(), rows.get());
#else
    const attnscope::HeadView<double> head(attnscope::MatrixHolder<double>(q).get(),
                                           attnscope::MatrixHolder<double>(q).get());
#endif
    return head.q().cols();
}
