// Many heads on threads of your own.
#include <attnscope/attnscope.hpp>
#include <cstdio>
#include <future>

/// An executor is called with a number of tasks and runs each of them once; here every task is a future.
struct Futures {
    template <class Task>
    void operator()(attnscope::Index count, Task&& task) const {
        std::vector<std::future<void>> running;
        for (attnscope::Index i = 0; i < count; ++i)
            running.push_back(std::async(std::launch::async, [&task, i] { task(i); }));
        for (std::future<void>& future : running) future.get(); // what a task throws arrives here
    }
};

int main() {
    attnscope::SplitMix64 random(1);
    std::vector<float> q(4 * 128 * 8), k(2 * 128 * 8); // four heads of queries share two heads of keys
    for (float& x : q) x = float(random.normal());
    for (float& x : k) x = float(random.normal());
    const attnscope::HeadGroup<float> heads(attnscope::HeadArray<float>::contiguous(q.data(), 4, 128, 8),
                                            attnscope::HeadArray<float>::contiguous(k.data(), 2, 128, 8));
    const auto scans = attnscope::scan_heads<4>(heads, attnscope::Mask::causal(), {}, Futures{});
    for (std::size_t h = 0; h < scans.size(); ++h) {
        double participation = 0;
        for (const auto& row : scans[h].rows) participation += row.statistics().participation_ratio() / 128;
        std::printf("head %zu: as concentrated as %.1f keys on average\n", h, participation);
    }
}
