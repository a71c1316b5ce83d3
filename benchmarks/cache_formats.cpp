// What does it cost to store keys in a format of the cache and read them back, and to have a limit on the error of each
// number? Figures in ns per number.
#include "support/harness.hpp"

#include <attnscope/cache/format_name.hpp>

namespace {

using namespace bench;

void add_format(const char* name, const std::shared_ptr<const Matrix<float>>& keys) {
    const attnscope::CacheFormat format = attnscope::cache_format(name);
    const Work work{static_cast<double>(keys->size())};
    const auto stored = std::make_shared<Matrix<float>>(), limits = std::make_shared<Matrix<float>>();
    add(
        name, "stored", work, [=] { *stored = attnscope::through_cache(*keys, format); },
        [=](const std::string& who) {
            Matrix<double> error = stored->cast<double>() - keys->cast<double>();
            if (format.rotation) error = attnscope::hadamard_rotate(error, *format.rotation);
            const Matrix<float> most = attnscope::cache_error_limits(*keys, format);
            verify((error.cwiseAbs().array() <= most.cast<double>().array()).all(), who, "within its limits");
        });
    add(
        name, "limits", work, [=] { *limits = attnscope::cache_error_limits(*keys, format); },
        [=](const std::string& who) { verify(limits->allFinite(), who, "finite"); });
}

} // namespace

int main(int argc, char** argv) {
    const auto keys = std::make_shared<const Matrix<float>>(logits<float>(4096, 128, false, 1));
    for (const char* name :
         {"f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q4_0+rotated", "nf4", "e4m3", "e4m3:token",
          "int8:channel", "int8:token", "affine2:channel32", "affine2:token32"})
        add_format(name, keys);
    return run(
        argc, argv,
        "4,096 tokens of 128 Gaussian numbers in float, through a format of the cache and back: ns per number, "
        "median, one thread",
        {"stored", "limits"});
}
