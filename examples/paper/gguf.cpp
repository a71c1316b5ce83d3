#include "gguf.hpp"

#include <support/failure.hpp>

namespace paper {
namespace {

using attnscope::HeadArray;

/// The mask of a layer, which its causality and window say.
attnscope::Mask mask_of(const models::LlamaLayer& layer) {
    if (!layer.causal) return attnscope::Mask::none();
    return layer.window > 0 ? attnscope::Mask::sliding_window(layer.window) : attnscope::Mask::causal();
}

} // namespace

Source source_of(const models::GgufPrompt& prompt, Index threads, bool hidden) {
    for (const models::LlamaLayer& layer : prompt.layers)
        if (layer.mask)
            program::fail("{}: layer {} adds a mask or position bias to its logits that is no causal mask with "
                          "a window: the "
                          "experiments of the paper do not have it",
                          prompt.model->file(), layer.number);
    Source source;
    source.model = prompt.model->file();
    source.shape = prompt.described();
    source.text = prompt.text.source;
    source.tokens = static_cast<Index>(prompt.text.ids.size());
    source.available = prompt.text.available;
    source.layers = std::ssize(prompt.layers);
    source.heads = prompt.layers[0].heads;
    source.hidden = hidden;
    source.run = [&prompt, threads,
                  hidden](const std::function<void(const models::LayerView<float>&)>& analyse) {
        const Index n = static_cast<Index>(prompt.text.ids.size());
        Index place = 0;
        return prompt.model->run(
            prompt.text.ids,
            {.weights = false,
             .loss = prompt.has_loss(),
             .hidden = hidden,
             .threads = threads,
             .layers = prompt.numbers(),
             .layer = [&](const program::LayerTensors& tensors) {
                 const models::LlamaLayer& layer = prompt.layers[static_cast<std::size_t>(place)];
                 const auto array = [&](const std::vector<float>& numbers, Index heads, Index width) {
                     return HeadArray<float>::contiguous(numbers.data(), heads, n, width);
                 };
                 const attnscope::HeadGroup<float> heads(
                     array(tensors.q, layer.heads, layer.width), array(tensors.k, layer.key_heads, layer.width),
                     array(tensors.v, layer.key_heads, layer.value_width), static_cast<float>(layer.scale));
                 const Index width = std::ssize(tensors.hidden) / n;
                 const attnscope::Matrix<float> stream = Eigen::Map<const attnscope::Matrix<float>>(
                     tensors.hidden.data(), width > 0 ? n : 0, width);
                 analyse({place, stream, heads, mask_of(layer), {}});
                 ++place;
             }});
    };
    return source;
}

} // namespace paper
