// Keys with a channel far away, as the key biases of some models make them: what each format of the cache leaves of a
// head. Prints the tables of docs/caches.md.
#include <attnscope/attnscope.hpp>

#include <cstdio>

namespace {

using namespace attnscope;

constexpr double biases[] = {0, 10, 30, 100};

/// 64 queries and 512 keys of normal numbers, logits of standard deviation 2; one channel of the keys is `bias` higher.
CacheSummary stored(Index width, double bias, const CacheFormat& keys, const CacheFormat& values) {
    SplitMix64 random(1);
    const auto normal = [&](Index rows) -> Matrix<float> {
        return Matrix<float>::NullaryExpr(rows, width, [&] { return static_cast<float>(random.normal()); });
    };
    const Matrix<float> q = 2 * normal(64), v = normal(512);
    Matrix<float> k = normal(512);
    k.col(21).array() += static_cast<float>(bias);
    return measure_cache(HeadView<float>(q, k, v), Mask(), keys, values, {.top = 16}).summary();
}

} // namespace

int main() {
    for (const Index width : {64, 128}) {
        std::printf("| keys, %d channels | bytes |", static_cast<int>(width));
        for (const double bias : biases) std::printf(" bias %g |", bias);
        std::printf("\n|---|---|---|---|---|---|\n");
        for (const char* name :
             {"f16", "q8_0", "q8_0+rotated", "q5_1", "q5_1+rotated", "q4_0", "q4_0+rotated", "nf4", "e4m3",
              "int4:token", "int4:channel", "affine4:channel32", "affine2:channel32"}) {
            const CacheFormat format = cache_format(name);
            std::printf("| `%s` | %g |", name, cache_bytes(format, width, 512));
            for (const double bias : biases) {
                const CacheSummary found = stored(width, bias, format, {CacheNumber::float16});
                std::printf(" %.0f %%, %.2g |", 100 * found.argmax_kept, found.error);
            }
            std::printf("\n");
        }
        std::printf("\n");
    }
    std::printf(
        "| keys and values | error | certified | what the formats promise | of the top 16 kept | separable "
        "before | after |\n|---|---|---|---|---|---|---|\n");
    for (const auto& [keys, values] :
         {std::pair("f16", "f16"), std::pair("q8_0", "q8_0"), std::pair("q8_0", "q4_0"),
          std::pair("q4_0", "q4_0"), std::pair("affine2:channel32", "affine2:token32")}) {
        const CacheSummary found = stored(64, 0, cache_format(keys), cache_format(values));
        std::printf("| `%s`, `%s` | %.2g | %.2g | %.2g | %.0f %% | %.2f | %.2f |\n", keys, values, found.error,
                    found.limit, found.format_limit, 100 * found.top_kept, found.separable,
                    found.separable_after);
    }
}
