// Memory that tasks of an executor hand on to each other.
#pragma once

#include <attnscope/config.hpp>

#include <memory>
#include <mutex>
#include <vector>

namespace attnscope {
inline namespace v0_1 {
namespace detail {

/// As many rooms as tasks run at once, made when they are needed. A task finds what another has left there.
template <class Room>
class Rooms {
public:
    template <class Work>
    void use(const Work& work) {
        std::unique_ptr<Room> room;
        {
            const std::lock_guard lock(guard_);
            if (!free_.empty()) {
                room = std::move(free_.back());
                free_.pop_back();
            }
        }
        if (!room) room = std::make_unique<Room>();
        work(*room);
        const std::lock_guard lock(guard_);
        free_.push_back(std::move(room));
    }

private:
    std::mutex guard_;
    std::vector<std::unique_ptr<Room>> free_;
};

} // namespace detail
} // namespace v0_1
} // namespace attnscope
