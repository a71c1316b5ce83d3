// Memory that tasks of an executor hand on to each other.
#pragma once

#include <attnscope/config.hpp>

#include <memory>
#include <mutex>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// As many workspaces as tasks run at once, made when they are needed. A task finds what another has left there.
template <class Workspace>
class WorkspacePool {
public:
    template <class Work>
    void use(const Work& work) {
        std::unique_ptr<Workspace> workspace;
        {
            const std::lock_guard lock(guard_);
            if (!free_.empty()) {
                workspace = std::move(free_.back());
                free_.pop_back();
            }
        }
        if (!workspace) workspace = std::make_unique<Workspace>();
        work(*workspace);
        const std::lock_guard lock(guard_);
        free_.push_back(std::move(workspace));
    }

private:
    std::mutex guard_;
    std::vector<std::unique_ptr<Workspace>> free_;
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
