// Heads as programs take them: the options about a capture, its files, and heads from a generator where there is none.
#pragma once

#include <attnscope/capture/open_capture.hpp>

namespace CLI {
class App;
}

namespace program {

/// The options of every program that reads captures: --batch, --layout, --bfloat16, --scale, --window, --causal
/// and --no-causal; with_rows: also --masked-below and --normalise-weights, for programs that take logits and
/// weights. Call the function that it returns after parsing; it throws `usage_error`.
std::function<attnscope::CaptureOptions()> add_capture_options(CLI::App& app, bool with_rows = true);

/// `attnscope::open_capture`, or without inputs the generator. Throws `usage_error` where that throws `invalid_argument`.
attnscope::Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed,
                                const attnscope::CaptureOptions& options = {});

/// Realistic heads without a model: q and k give Gaussian logits, a sink on the first key, local decay and
/// planted needles, in proportions that differ from head to head; values are anisotropic. Labelled "synthetic".
attnscope::Capture synthetic_capture(std::uint64_t seed);

} // namespace program
