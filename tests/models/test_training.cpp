// The backward pass against central differences in double, the optimiser against its formula, and the one
// forward pass that training and inference share.
#include <models/forward.hpp>
#include <models/training.hpp>
#include <support/catch.hpp>
#include <support/named_normalizer.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using models::Batch;
using models::Network;
using models::Threads;
using models::Weights;

namespace {

models::Config small_config() {
    models::Config config;
    config.layers = 2;
    config.heads = config.key_heads = 2;
    config.width = 12;
    config.head_width = 6;
    config.inner = 20;
    config.context = 9;
    config.vocabulary = 13;
    return config;
}

Batch random_batch(SplitMix64& random, Index sequences, Index length, Index vocabulary, bool some_uncounted) {
    Batch batch{sequences, length, {}, {}};
    for (Index i = 0; i < sequences * length; ++i) {
        batch.inputs.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
        batch.targets.push_back(
            some_uncounted && random.below(3) == 0 ? -1 : static_cast<std::int32_t>(random.below(vocabulary)));
    }
    return batch;
}

/// Random weights with gains and biases that are not 1 and 0, large enough that rows are not flat.
template <class T>
Weights<T> random_weights(const models::Config& config, SplitMix64& random) {
    Weights<T> weights = models::read_weights<T>(config, models::RandomParameters(config, 1));
    for (const auto& tensor : tensors_of(weights))
        for (T& x : tensor.values)
            x = static_cast<T>((tensor.name.find("ln") != tensor.name.npos ? 0.8 : 0) + 0.4 * random.normal());
    return weights;
}

} // namespace

TEST_CASE("gradients of every parameter agree with central differences", "[training]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    const models::Config config = small_config();
    const Threads threads(2);
    const std::vector<std::pair<std::string, bool>> cases = {
        {"softmax", false},   {"ssmax:0.5", false}, {"entmax:1.5", false}, {"sigmoid", false},
        {"sink:1", false},    {"softmax", true},    {"ssmax:0.5", true},   {"logn:0.4", true},
        {"entmax:1.4", true}, {"sink:0.7", true},   {"sigmoid:-1", true},  {"softcap:5|softmax", false}};
    for (const auto& [name, learned] : cases)
        for (const double temperature : {1.0, 0.4}) {
            if (learned && name != "softmax" && temperature != 1) continue;
            INFO(name << " at temperature " << temperature << (learned ? ", learned" : ""));
            SplitMix64 random = generator(seed, 100);
            Weights<double> first = random_weights<double>(config, random);
            Network<double> network =
                learned ? Network<double>(config, first, models::LearnedNormalizer(name, temperature))
                        : Network<double>(config, first, program::named_normalizer(name, temperature));
            const Batch batch = random_batch(random, 3, 7, config.vocabulary, true);
            Weights<double> gradient = zeros_like(network.weights());
            const double loss = network.run_backward(batch, gradient, threads).loss;
            CHECK(loss == Catch::Approx(network.run(batch, threads).loss).epsilon(1e-13));
            const auto slopes = tensors_of(gradient), weights = tensors_of(network.weights());
            for (std::size_t t = 0; t < slopes.size(); ++t) {
                double largest = 0;
                for (const double g : slopes[t].values) largest = std::max(largest, std::abs(g));
                CHECK(largest > 0);
                for (int draw = 0; draw < 6; ++draw) {
                    const auto at =
                        static_cast<std::size_t>(random.below(static_cast<Index>(slopes[t].values.size())));
                    double& x = weights[t].values[at];
                    const double before = x, h = 1e-5;
                    x = before + h;
                    const double above = network.run(batch, threads).loss;
                    x = before - h;
                    const double below = network.run(batch, threads).loss;
                    x = before;
                    // h^2 times a third derivative, and rounding of the losses over h.
                    INFO(slopes[t].name << " " << at);
                    CHECK(std::abs(slopes[t].values[at] - (above - below) / (2 * h)) <= 1e-6 * largest + 1e-9);
                }
            }
        }
}

TEST_CASE("training and inference have one forward pass", "[training]") {
    const models::Config config = small_config();
    SplitMix64 random = generator(test_seed(), 101);
    const auto parameters = std::make_shared<models::RandomParameters>(config, 7);
    const models::Model model(config, parameters);
    std::vector<std::int32_t> ids;
    for (Index i = 0; i < 9; ++i) ids.push_back(static_cast<std::int32_t>(random.below(config.vocabulary)));
    models::RunOptions<double> options;
    options.loss = true;
    options.normalizer = program::named_normalizer("entmax:1.5");
    const Batch batch{1, 8, {ids.begin(), ids.end() - 1}, {ids.begin() + 1, ids.end()}};
    const Network<double> network(config, models::read_weights<double>(config, *parameters),
                                  *options.normalizer);
    const auto pass = network.run(batch, Threads(1));
    CHECK(pass.loss == Catch::Approx(model.run<double>(ids, options).loss).epsilon(1e-12));
    CHECK(pass.counted == 8);
}

TEST_CASE("a batch is the mean of its sequences, and threads change no bit", "[training]") {
    const models::Config config = small_config();
    SplitMix64 random = generator(test_seed(), 102);
    Network<float> network(config, random_weights<float>(config, random), attnscope::AnyNormalizer());
    const Batch batch = random_batch(random, 40, 9, config.vocabulary, false);
    Weights<float> one = zeros_like(network.weights()), three = one;
    const auto pass = network.run_backward(batch, one, Threads(1));
    CHECK(network.run_backward(batch, three, Threads(3)).loss == pass.loss);
    const auto a = tensors_of(one), b = tensors_of(three);
    for (std::size_t t = 0; t < a.size(); ++t)
        CHECK(std::equal(a[t].values.begin(), a[t].values.end(), b[t].values.begin()));
    double sum = 0;
    Index right = 0, looked = 0;
    for (Index s = 0; s < 40; ++s) {
        const auto from = static_cast<std::ptrdiff_t>(9 * s);
        const Batch single{1,
                           9,
                           {batch.inputs.begin() + from, batch.inputs.begin() + from + 9},
                           {batch.targets.begin() + from, batch.targets.begin() + from + 9}};
        const auto own =
            network.run(single, Threads(1), [&](Index, Index, const attnscope::HeadGroup<float>& heads) {
                looked += heads.heads() == 2 && heads.queries() == 9;
            });
        sum += own.loss;
        right += own.right;
    }
    CHECK(pass.loss == Catch::Approx(sum / 40).epsilon(1e-5));
    CHECK(pass.right == right);
    CHECK(looked == 80);
}

TEST_CASE("AdamW makes the step of its formula", "[training]") {
    const models::Config config = small_config();
    SplitMix64 random = generator(test_seed(), 103);
    Weights<double> weights = random_weights<double>(config, random), gradient = zeros_like(weights);
    const models::AdamW<double>::Options options{0.9, 0.98, 1e-8, 0.1, 0.5};
    models::AdamW<double> optimizer(weights, options);
    std::vector<std::vector<double>> w, m, v;
    for (const auto& tensor : tensors_of(weights)) {
        w.emplace_back(tensor.values.begin(), tensor.values.end());
        m.emplace_back(w.back().size(), 0);
        v.push_back(m.back());
    }
    double apart = 0;
    for (int step = 1; step <= 4; ++step) {
        double squares = 0;
        for (const auto& tensor : tensors_of(gradient))
            for (double& g : tensor.values) {
                g = random.normal() * (step == 4 ? 1e-6 : 1); // the last step is not clipped
                squares += g * g;
            }
        const double norm = std::sqrt(squares), factor = norm > 0.5 ? 0.5 / norm : 1, rate = 0.01 * step;
        CHECK(optimizer.step(weights, gradient, rate) == Catch::Approx(norm).epsilon(1e-12));
        const auto all = tensors_of(weights), slopes = tensors_of(gradient);
        for (std::size_t t = 0; t < all.size(); ++t)
            for (std::size_t i = 0; i < w[t].size(); ++i) {
                const double g = factor * slopes[t].values[i];
                m[t][i] = 0.9 * m[t][i] + 0.1 * g;
                v[t][i] = 0.98 * v[t][i] + 0.02 * g * g;
                const double decay = all[t].shape.size() == 2 ? rate * 0.1 * w[t][i] : 0;
                w[t][i] -= decay + rate * (m[t][i] / (1 - std::pow(0.9, step))) /
                                       (std::sqrt(v[t][i] / (1 - std::pow(0.98, step))) + 1e-8);
                apart = std::max(apart, std::abs(w[t][i] - all[t].values[i]));
            }
    }
    CHECK(apart < 1e-12);
    CHECK(optimizer.steps == 4);
}

TEST_CASE("a learned parameter begins where it is told and says where it is", "[training]") {
    const models::LearnedNormalizer temperature("softmax", 0.5), s("ssmax:0.43", 1), alpha("entmax:1.5", 1),
        bias("sigmoid:-2", 1);
    CHECK(temperature.name_at(temperature.start()) == "softmax");
    CHECK(std::exp(temperature.start()) == Catch::Approx(0.5));
    CHECK(s.name_at(std::log(0.25)) == "ssmax:0.25");
    CHECK(alpha.name_at(0) == "entmax:2");
    CHECK(bias.start() == -2);
    CHECK_THROWS_AS(models::LearnedNormalizer("ssmax:0.5", 2), std::runtime_error);
    for (const std::string bad :
         {"adaptive", "sigmoid", "sparsemax", "softcap:5|softmax", "ssmax:0", "entmax:1", "sink"})
        CHECK_THROWS_AS(models::LearnedNormalizer(bad, 1), std::exception);
}

TEST_CASE("what cannot be trained is refused", "[training]") {
    models::Config config = small_config();
    const models::RandomParameters parameters(config, 1);
    Network<float> network(config, models::read_weights<float>(config, parameters), attnscope::AnyNormalizer());
    SplitMix64 random = generator(test_seed(), 104);
    const Threads threads(1);
    CHECK_THROWS_AS(network.run(random_batch(random, 1, 10, 13, false), threads), std::runtime_error);
    Batch bad = random_batch(random, 1, 4, 13, false);
    bad.inputs[2] = 13;
    CHECK_THROWS_AS(network.run(bad, threads), std::runtime_error);
    Batch none = random_batch(random, 1, 4, 13, false);
    std::fill(none.targets.begin(), none.targets.end(), -1);
    Weights<float> gradient = zeros_like(network.weights());
    CHECK(network.run_backward(none, gradient, threads).loss == 0);
    for (const auto& tensor : tensors_of(gradient))
        for (const float g : tensor.values) CHECK(g == 0);
    config.activation = models::Activation::gelu;
    CHECK_THROWS_AS(models::read_weights<float>(config, parameters), std::runtime_error);
    config.family = models::Family::llama;
    CHECK_THROWS_AS(models::read_weights<float>(config, parameters), std::runtime_error);
}
