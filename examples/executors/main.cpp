// attnscope-executors: the same scan run by three executors: the library's threads, OpenMP and oneTBB (each
// where the compiler has it). An executor is anything that can be called with a number of tasks and a task;
// results do not depend on it, to the last bit.

#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/threads.hpp>

#include <cstdio>

#if defined(ATTNSCOPE_EXAMPLE_TBB)
#include <oneapi/tbb/parallel_for.h>
#endif

namespace {

using attnscope::Index;

#if defined(_OPENMP)
/// OpenMP's threads. An exception must not leave its loop: the first one is kept and thrown on.
struct OpenMp {
    template <class Task>
    void operator()(Index count, Task&& task) const {
        std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic)
        for (Index i = 0; i < count; ++i) {
            try {
                task(i);
            } catch (...) {
#pragma omp critical
                if (!failure) failure = std::current_exception();
            }
        }
        if (failure) std::rethrow_exception(failure);
    }
};
#endif

#if defined(ATTNSCOPE_EXAMPLE_TBB)
/// oneTBB's tasks; it throws exceptions on by itself.
struct Tbb {
    template <class Task>
    void operator()(Index count, Task&& task) const {
        oneapi::tbb::parallel_for(Index(0), count, task);
    }
};
#endif

} // namespace

int main() {
    const Index length = 2000, width = 64;
    attnscope::SplitMix64 random(1);
    attnscope::Matrix<float> q(length, width), k(length, width), v(length, width);
    for (auto* m : {&q, &k, &v})
        for (Index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<float>(random.normal());
    const attnscope::HeadView<float> head(q, k, v);
    const auto mask = attnscope::Mask::causal();
    const auto alone = attnscope::scan(head, mask, {.output = true}, attnscope::Sequential());

    bool same = true;
    const auto compare = [&](const char* name, const auto& executor) {
        const auto scan = attnscope::scan(head, mask, {.output = true}, executor);
        const bool equal = scan.rows == alone.rows && scan.output == alone.output;
        std::printf("%-12s %s\n", name, equal ? "the same bits" : "DIFFERS");
        same = same && equal;
    };
    compare("Threads", attnscope::Threads());
#if defined(_OPENMP)
    compare("OpenMP", OpenMp());
#else
    std::printf("%-12s not compiled in (-fopenmp)\n", "OpenMP");
#endif
#if defined(ATTNSCOPE_EXAMPLE_TBB)
    compare("oneTBB", Tbb());
#else
    std::printf("%-12s not compiled in (-DATTNSCOPE_EXAMPLE_TBB -ltbb)\n", "oneTBB");
#endif
    return same ? 0 : 1;
}
