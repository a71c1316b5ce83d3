// Who runs independent tasks.
#pragma once

#include <attnscope/types.hpp>

#include <concepts>
#include <memory>
#include <type_traits>

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

/// An executor of any type, looked at: what takes this is compiled once, whoever runs its tasks.
/// Invariant. Valid as long as the executor that it was made from.
class ExecutorRef {
    /// A task of any type, looked at, for an executor that may copy it.
    struct TaskRef {
        const void* task;
        void (*call)(const void*, Index);
        void operator()(Index i) const { call(task, i); }
    };

public:
    template <class E>
    requires(!std::same_as<std::remove_cvref_t<E>, ExecutorRef> && Executor<E>)
    ExecutorRef(E&& executor)
        : executor_(std::addressof(executor)), run_([](const void* any, Index count, TaskRef task) {
              (*static_cast<std::remove_reference_t<E>*>(const_cast<void*>(any)))(count, task);
          }) {}

    template <class Task>
    void operator()(Index count, Task&& task) const {
        run_(executor_, count, {std::addressof(task), [](const void* any, Index i) {
                                    (*static_cast<std::remove_reference_t<Task>*>(const_cast<void*>(any)))(i);
                                }});
    }

private:
    const void* executor_;
    void (*run_)(const void*, Index, TaskRef);
};

} // namespace v0_2
} // namespace attnscope
