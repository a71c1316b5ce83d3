// The layers of an evaluation that computes them one after the other, for programs that ask for them.
#pragma once

#include <attnscope/types.hpp>

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace program {

using attnscope::Index;

/// What a model computed in one layer.
struct LayerTensors {
    std::vector<float> q;       ///< [heads, queries, d], after rotary embedding
    std::vector<float> k;       ///< [key heads, keys, d]
    std::vector<float> v;       ///< [key heads, keys, d_v]
    std::vector<float> weights; ///< [heads, queries, keys], the model's own; empty if it does not hand them out
    std::vector<float> hidden =
        {}; ///< [queries, width], the residual stream that enters the layer; empty unless asked for
};

/// Holds the layer that was asked for last and the one before it. The evaluation runs on a thread of its own and waits
/// where the next layer is not wanted yet; asked for an earlier layer than it holds, it starts again.
/// Memory. Two layers, and what the evaluation needs.
class LayerFeed {
public:
    /// Hands a layer over; throws what ends the evaluation when no more layers are wanted.
    using Emit = std::function<void(LayerTensors)>;
    /// Calls its argument with layers 0, 1, ... in turn.
    using Evaluate = std::function<void(const Emit&)>;

    LayerFeed(Index layers, Evaluate evaluate) : layers_(layers), evaluate_(std::move(evaluate)) {}
    LayerFeed(const LayerFeed&) = delete;
    LayerFeed& operator=(const LayerFeed&) = delete;
    ~LayerFeed() { stop(); }

    Index layers() const { return layers_; }
    /// Throws what the evaluation throws, and `std::logic_error` where it ends before that layer. Several threads may ask.
    std::shared_ptr<const LayerTensors> layer(Index number);
    /// Waits for what the evaluation does after the last layer, if that was reached; else it is given up.
    void finish();

private:
    struct Abandoned {};
    void start();
    void stop();
    void emit(LayerTensors tensors);

    Index layers_;
    Evaluate evaluate_;

    std::mutex asking_; ///< held by whoever waits for a layer
    std::mutex mutex_;
    std::condition_variable changed_;
    std::thread evaluation_;
    Index wanted_ = -1;  ///< the last layer that the evaluation may hand over
    Index reached_ = -1; ///< the last layer that it did hand over
    bool ended_ = true, abandoned_ = false;
    std::exception_ptr error_;
    std::shared_ptr<const LayerTensors> latest_, before_; ///< layers reached_ and reached_ - 1
};

} // namespace program
