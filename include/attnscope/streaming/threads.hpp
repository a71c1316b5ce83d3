// An executor with threads of its own for the length of a call. Not in the umbrella: some systems link threads
// apart.
#pragma once

#include <attnscope/executor.hpp>

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Runs tasks on n threads, the caller's among them. After an exception no further task begins, and the first
/// one is thrown on.
/// Example:
///     const Threads threads(4);
///     const auto rows = scan(head, Mask::causal(), {}, threads).rows; // the same bits as without them
class Threads {
public:
    /// Throws. `invalid_argument` unless n >= 1.
    explicit Threads(Index n = static_cast<Index>(std::max(1u, std::thread::hardware_concurrency()))) : n_(n) {
        detail::require(n >= 1, "Threads", "the number of threads must be >= 1", n);
    }
    Index count() const { return n_; }

    template <class Task>
    void operator()(Index count, Task&& task) const {
        std::atomic<Index> next{0};
        std::exception_ptr failure;
        std::mutex guard;
        const auto work = [&] {
            detail::attempt(
                [&] {
                    for (Index i = next++; i < count; i = next++) task(i);
                },
                [&] {
                    next = count;
                    const std::lock_guard lock(guard);
                    if (!failure) failure = std::current_exception();
                });
        };
        {
            std::vector<std::jthread> others;
            for (Index i = 1; i < std::min(n_, count); ++i) others.emplace_back(work);
            work();
        }
        if (failure) std::rethrow_exception(failure);
    }

private:
    Index n_;
};

} // namespace v0_2
} // namespace attnscope
