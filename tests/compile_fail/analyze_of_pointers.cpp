// expect: Eigen::Map views a container or a pointer; HeadGroup
// Memory of an engine has shapes: say them.
#include <attnscope/analysis/analyze.hpp>

void of_pointers(const float* q, const float* k, const float* v) {
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    using Array = attnscope::HeadArray<float>;
    const attnscope::HeadGroup<float> heads(Array::contiguous(q, 4, 32, 8), Array::contiguous(k, 2, 32, 8),
                                            Array::contiguous(v, 2, 32, 8));
    attnscope::analyze(heads, {.mask = attnscope::Mask::causal()});
#else
    attnscope::analyze(q, k, v, {.mask = attnscope::Mask::causal()});
#endif
}
