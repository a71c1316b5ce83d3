// expect: use of deleted function .*TensorHeads|call to deleted constructor of .*TensorHeads
// The heads would be those of a tensor that is gone.
#include <attnscope/attention/tensor.hpp>

using Tensor = Eigen::Tensor<double, 3, Eigen::RowMajor>;

attnscope::Index heads() {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    const Tensor tensor(2, 3, 4);
    const attnscope::TensorHeads<double> all(tensor);
#else
    const attnscope::TensorHeads<double> all(Tensor(2, 3, 4));
#endif
    return all.heads();
}
