#include <support/layer_feed.hpp>

#include <fmt/format.h>

#include <stdexcept>

namespace program {

std::shared_ptr<const LayerTensors> LayerFeed::layer(Index number) {
    if (number < 0 || number >= layers_)
        throw std::logic_error(fmt::format("LayerFeed: layer must be in [0, {}), got {}", layers_, number));
    const std::lock_guard asking(asking_);
    if (number < reached_ - 1 || (number < reached_ && !before_)) stop();
    if (!evaluation_.joinable()) start();
    std::unique_lock lock(mutex_);
    if (number > wanted_) wanted_ = number;
    changed_.notify_all();
    changed_.wait(lock, [&] { return reached_ >= number || ended_; });
    if (reached_ < number) {
        if (error_) std::rethrow_exception(error_);
        throw std::logic_error(fmt::format("LayerFeed: the evaluation ended after {} layers", reached_ + 1));
    }
    return number == reached_ ? latest_ : before_;
}

void LayerFeed::start() {
    wanted_ = reached_ = -1;
    ended_ = abandoned_ = false;
    error_ = nullptr;
    evaluation_ = std::thread([this] {
        std::exception_ptr error;
        try {
            evaluate_([this](LayerTensors tensors) { emit(std::move(tensors)); });
        } catch (const Abandoned&) {
        } catch (...) {
            error = std::current_exception();
        }
        const std::lock_guard lock(mutex_);
        error_ = error;
        ended_ = true;
        changed_.notify_all();
    });
}

void LayerFeed::finish() {
    stop();
    if (error_) std::rethrow_exception(error_);
}

void LayerFeed::stop() {
    {
        const std::lock_guard lock(mutex_);
        abandoned_ = true;
        changed_.notify_all();
    }
    if (evaluation_.joinable()) evaluation_.join();
    evaluation_ = {};
    latest_ = before_ = nullptr;
    reached_ = -1;
}

void LayerFeed::emit(LayerTensors tensors) {
    auto shared = std::make_shared<const LayerTensors>(std::move(tensors));
    std::unique_lock lock(mutex_);
    before_ = std::move(latest_);
    latest_ = std::move(shared);
    ++reached_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return abandoned_ || wanted_ > reached_ || reached_ + 1 == layers_; });
    if (abandoned_) throw Abandoned{};
}

} // namespace program
