// Who runs independent tasks.
#pragma once

#include <attnscope/types.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Runs tasks 0 ... count-1 one after the other. An executor is anything that can be called like this: each
/// task runs exactly once, on any thread, in any order, and all have ended when the call returns; what a task
/// throws is thrown on. Its call operator need not be const. `Threads` in streaming/threads.hpp is one with
/// threads; a loop of OpenMP or oneTBB is another.
struct Sequential {
    template <class Task>
    void operator()(Index count, Task&& task) const {
        for (Index i = 0; i < count; ++i) task(i);
    }
};

/// Who runs independent tasks: see `Sequential`.
template <class E>
concept Executor = requires(E&& executor, void (&task)(Index)) { executor(Index(1), task); };

} // namespace v0_2
} // namespace attnscope
