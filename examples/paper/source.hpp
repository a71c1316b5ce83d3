// A model and a text, as the experiments take them.
#pragma once

#include "experiment.hpp"

#include <models/prompt.hpp>

namespace paper {

/// A model on its text, whoever runs it.
struct Source {
    std::string model, shape, text;
    Index tokens = 0, available = 0; ///< run; and those that the text has
    Index layers = 0, heads = 0;     ///< of the model; of a layer
    bool trained = true;
    const models::Model* own = nullptr; ///< whose matrices are at hand
    bool hidden = true;                 ///< the residual stream is
    /// Calls its argument with every layer in turn; the loss of the text, nats a token.
    std::function<double(const std::function<void(const models::LayerView<float>&)>&)> run;
};
/// Borrows the prompt.
Source source_of(const models::Prompt& prompt, Index threads);

} // namespace paper
