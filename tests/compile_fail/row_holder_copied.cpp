// expect: use of deleted function .*RowHolder|call to deleted constructor of .*RowHolder
// A holder may own the row it shows, so a copy of it would show the other one's memory.
#include <attnscope/types.hpp>

void hold(const Eigen::VectorXd& z) {
    const attnscope::RowHolder<double> holder(z);
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const attnscope::RowHolder<double>& other = holder;
#else
    const attnscope::RowHolder<double> other = holder;
#endif
    static_cast<void>(other.get());
}
