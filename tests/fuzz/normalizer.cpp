// A name for make_normalizer, a zero byte, and a row of logits: the name of what is made makes the same again.
#include "fuzz.hpp"

#include <attnscope/runtime/registry.hpp>

#include <cmath>

void fuzz_one(std::string_view input) {
    const std::string_view name = fuzz::next_part(input);
    std::vector<double> z(std::min<std::size_t>(input.size() / sizeof(double), 64));
    if (!z.empty()) std::memcpy(z.data(), input.data(), z.size() * sizeof(double));
    try {
        const attnscope::AnyNormalizer normalizer = attnscope::make_normalizer(name),
                                       again = attnscope::make_normalizer(normalizer.name());
        fuzz::require(again.name() == normalizer.name(), "the name of a normaliser is a name");
        std::vector<double> p(z.size()), q(z.size()), v(z.size(), 1.0), product(z.size());
        const auto status = normalizer.apply<double>(z, p);
        fuzz::require(again.apply<double>(z, q) == status, "the same status");
        fuzz::require(fuzz::same_bytes<double>(p, q), "the same weights");
        normalizer.jvp<double>(z, p, v, product);
        normalizer.vjp<double>(z, p, v, product);
        const bool finite = std::all_of(z.begin(), z.end(), [](double x) { return std::isfinite(x); });
        if (finite && !z.empty() && normalizer.promises().simplex)
            for (const double x : p) fuzz::require(x >= 0 && x <= 1, "a weight lies in [0, 1]");
    } catch (const attnscope::invalid_argument& error) {
        fuzz::require(std::strlen(error.what()) < 4096, "a message is bounded");
    }
}
