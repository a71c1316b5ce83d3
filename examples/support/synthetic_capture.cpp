#include <attnscope/random.hpp>
#include <support/capture.hpp>

#include <memory>
#include <numbers>

namespace program {
namespace {

constexpr Index layers = 2, heads = 4, tokens = 256, width = 64;

// A query is made of four parts, each speaking to its own coordinates of the keys.
constexpr Index sink_at = 0;      // one coordinate that only the first key carries
constexpr Index local_at = 1;     // pairs (cos, sin) of positions: nearby tokens agree
constexpr Index local_pairs = 12; //
constexpr Index content_at = 25;  // random content; a needle repeats the content of an earlier key
constexpr Index content = width - content_at;

/// Weights of the four parts in logits, from head to head.
struct Recipe {
    double noise, sink, local, needle;
};
constexpr std::array<Recipe, heads> recipes = {{
    {1.0, 0.0, 0.0, 0.0}, // diffuse
    {0.8, 6.0, 0.5, 0.0}, // rests on the first key
    {0.8, 1.0, 6.0, 0.0}, // looks at its neighbours
    {0.7, 1.0, 0.5, 5.0}, // retrieves one earlier key
}};

} // namespace

Capture synthetic_capture(std::uint64_t seed) {
    attnscope::SplitMix64 random(seed);
    const double root = std::sqrt(static_cast<double>(width)); // logits are divided by it
    const auto size = static_cast<std::size_t>(layers * heads * tokens * width);
    const auto q = std::make_shared<std::vector<double>>(size), k = std::make_shared<std::vector<double>>(size),
               v = std::make_shared<std::vector<double>>(size);
    Index at = 0;
    for (Index layer = 0; layer < layers; ++layer)
        for (const Recipe& recipe : recipes) {
            const double depth = 1 + 0.5 * static_cast<double>(layer); // deeper heads are sharper
            Eigen::Map<attnscope::Matrix<double>> query(q->data() + at, tokens, width);
            Eigen::Map<attnscope::Matrix<double>> key(k->data() + at, tokens, width);
            Eigen::Map<attnscope::Matrix<double>> value(v->data() + at, tokens, width);
            at += tokens * width;
            const double unit = 1 / std::sqrt(static_cast<double>(content));
            for (Index i = 0; i < tokens; ++i) {
                key(i, sink_at) = i == 0 ? root : 0;
                query(i, sink_at) = depth * recipe.sink;
                for (Index pair = 0; pair < local_pairs; ++pair) {
                    // Wavelengths from 4 to 512 tokens.
                    const double wave =
                        4 * std::pow(128.0, static_cast<double>(pair) / static_cast<double>(local_pairs - 1));
                    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / wave;
                    const double strength = std::sqrt(depth * recipe.local * root / local_pairs);
                    for (const auto& row : {&query, &key}) {
                        (*row)(i, local_at + 2 * pair) = strength * std::cos(angle);
                        (*row)(i, local_at + 2 * pair + 1) = strength * std::sin(angle);
                    }
                }
                for (Index c = 0; c < content; ++c) {
                    key(i, content_at + c) = random.normal();
                    query(i, content_at + c) = depth * recipe.noise * root * unit * random.normal();
                }
                if (recipe.needle > 0 && i > 0) {
                    const Index needle = random.below(i);
                    const double norm = key.row(needle).tail(content).norm();
                    query.row(i).tail(content) +=
                        key.row(needle).tail(content) * (depth * recipe.needle * root / (norm * norm));
                }
                // Values share a mean and a few long directions, as trained ones do; the sink's value is small.
                for (Index c = 0; c < width; ++c) {
                    const double scale = 1 / (1 + 0.25 * static_cast<double>(c));
                    value(i, c) = (i == 0 ? 0.1 : 1.0) * (0.5 * scale + scale * random.normal());
                }
            }
        }
    const auto source = [](const std::shared_ptr<std::vector<double>>& data) {
        HeadSource heads_of;
        heads_of.layers = layers;
        heads_of.heads = heads;
        heads_of.rows = tokens;
        heads_of.cols = width;
        heads_of.read = [data](Index first, Index count) {
            const auto begin = data->begin() + first;
            return std::vector<double>(begin, begin + count);
        };
        return heads_of;
    };
    Capture capture;
    capture.name = "synthetic";
    capture.synthetic = true;
    capture.layers = layers;
    capture.heads = heads;
    capture.queries = capture.keys = tokens;
    capture.width = width;
    capture.attention.assign(static_cast<std::size_t>(layers), {.causal = true});
    capture.q = source(q);
    capture.k = source(k);
    capture.v = source(v);
    return capture;
}

} // namespace program
