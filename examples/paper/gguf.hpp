// A GGUF model as the experiments take it.
#pragma once

#include "source.hpp"

#include <models/model_capture.hpp>

namespace paper {

/// Its layers as llama.cpp computes them. Borrows the prompt. Throws `std::runtime_error` for masks and position biases
/// that are no causal mask with a window.
Source source_of(const models::GgufPrompt& prompt, Index threads, bool hidden);

} // namespace paper
