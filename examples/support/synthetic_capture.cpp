#include <attnscope/problems/heads.hpp>
#include <support/capture.hpp>

#include <algorithm>
#include <memory>

namespace program {
namespace {

using attnscope::Index;

constexpr Index layers = 2, tokens = 256, width = 64;

constexpr std::array<attnscope::problems::HeadRecipe, 4> recipes = {{
    {.noise = 1.0},                                           // diffuse
    {.noise = 0.8, .sink = 6.0, .local = 0.5},                // rests on the first key
    {.noise = 0.8, .sink = 1.0, .local = 6.0},                // looks at its neighbours
    {.noise = 0.7, .sink = 1.0, .local = 0.5, .needle = 5.0}, // retrieves one earlier key
}};
constexpr Index heads = std::ssize(recipes);

} // namespace

attnscope::Capture synthetic_capture(std::uint64_t seed) {
    attnscope::SplitMix64 random(seed);
    const auto q = std::make_shared<std::vector<double>>(), k = std::make_shared<std::vector<double>>(),
               v = std::make_shared<std::vector<double>>();
    for (Index layer = 0; layer < layers; ++layer)
        for (attnscope::problems::HeadRecipe recipe : recipes) {
            const double depth = 1 + 0.5 * static_cast<double>(layer); // deeper heads are sharper
            for (double* const part : {&recipe.noise, &recipe.sink, &recipe.local, &recipe.needle})
                *part *= depth;
            const attnscope::problems::ProblemHead head =
                attnscope::problems::synthetic_head(tokens, width, recipe, random);
            q->insert(q->end(), head.q.data(), head.q.data() + head.q.size());
            k->insert(k->end(), head.k.data(), head.k.data() + head.k.size());
            v->insert(v->end(), head.v.data(), head.v.data() + head.v.size());
        }
    const auto source = [](const std::shared_ptr<std::vector<double>>& data) {
        attnscope::HeadSource heads_of;
        heads_of.layers = layers;
        heads_of.heads = heads;
        heads_of.rows = tokens;
        heads_of.cols = width;
        const auto slice = [data](auto zero) {
            return [data](Index first, Index count) {
                std::vector<decltype(zero)> part(static_cast<std::size_t>(count));
                std::transform(data->begin() + first, data->begin() + first + count, part.begin(),
                               [](double x) { return static_cast<decltype(zero)>(x); });
                return part;
            };
        };
        heads_of.read = slice(0.0);
        heads_of.read_floats = slice(0.0F);
        return heads_of;
    };
    attnscope::Capture capture;
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
