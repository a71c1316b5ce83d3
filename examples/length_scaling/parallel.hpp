// Independent pieces of work on several threads.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace scaling {

/// Calls work(i) for i = 0 ... count-1, each once, in that order of starting; `make_work()` gives each thread a
/// work of its own. Rethrows the first exception.
template <class MakeWork>
void for_each_index(std::size_t count, unsigned threads, MakeWork&& make_work) {
    std::atomic<std::size_t> next = 0;
    std::exception_ptr failure;
    std::mutex guard;
    const auto run = [&] {
        try {
            auto work = make_work();
            for (std::size_t i = next++; i < count; i = next++) work(i);
        } catch (...) {
            const std::lock_guard lock(guard);
            if (!failure) failure = std::current_exception();
            next = count;
        }
    };
    {
        std::vector<std::jthread> others;
        for (unsigned i = 1; i < threads && i < count; ++i) others.emplace_back(run);
        run();
    }
    if (failure) std::rethrow_exception(failure);
}

} // namespace scaling
