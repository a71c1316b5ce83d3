#include <attnscope/runtime/registry.hpp>
#include <support/named_normalizer.hpp>

namespace program {

attnscope::AnyNormalizer named_normalizer(std::string_view text, double temperature) {
    return attnscope::make_normalizer(text, temperature);
}

std::string normalizer_help() {
    std::string text = "one of";
    for (const attnscope::NormalizerName& entry : attnscope::known_normalizers())
        if (entry.place == attnscope::NormalizerPlace::core) text += ' ' + std::string(entry.syntax);
    return text + ", with softcap:C| or temperature:T| in front and |topk:K or |topp:P behind";
}

} // namespace program
