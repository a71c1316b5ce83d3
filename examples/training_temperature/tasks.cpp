#include "tasks.hpp"

#include <support/named_normalizer.hpp>

namespace temperature {
namespace {

using attnscope::Matrix;

/// An item has two features, one to be found by and one to be answered: keys and values, or levels and classes.
/// Tokens: all pairs of them, then those that ask (one for each key; one for "the highest"), then the answers.
struct Features {
    Index finders, answers, questions;
    Index items() const { return finders * answers; }
};
constexpr Features features_of(Task task) {
    return task == Task::recall ? Features{16, 16, 16} : Features{16, 16, 1};
}

models::Config shape(Task task, Index longest) {
    models::Config config;
    config.layers = 1;
    config.heads = config.key_heads = 1;
    config.width = config.head_width = 64;
    config.inner = 128;
    config.context = longest;
    config.vocabulary = vocabulary_of(task);
    return config;
}

models::Batch batch_of(Task task, Index sequences, Index length, attnscope::SplitMix64& random,
                       std::vector<Index>* places = nullptr) {
    models::Batch batch{sequences, length, {}, {}};
    for (Index s = 0; s < sequences; ++s) {
        const Example example = draw(task, length, random);
        batch.inputs.insert(batch.inputs.end(), example.ids.begin(), example.ids.end());
        batch.targets.insert(batch.targets.end(), static_cast<std::size_t>(length - 1), -1);
        batch.targets.push_back(example.answer);
        if (places) places->push_back(example.place);
    }
    return batch;
}

/// An item begins as the sum of a vector for each of its features, as if it were given by both.
void embed_features(Task task, models::Weights<float>& weights, std::uint64_t seed) {
    const Features f = features_of(task);
    attnscope::SplitMix64 random(seed * 7919 + 13);
    Matrix<float> vectors(f.finders + f.answers, weights.embedding.cols());
    for (Index i = 0; i < vectors.size(); ++i) vectors.data()[i] = static_cast<float>(0.1 * random.normal());
    for (Index item = 0; item < f.items(); ++item)
        weights.embedding.row(item) = vectors.row(item / f.answers) + vectors.row(f.finders + item % f.answers);
    for (Index row = f.items(); row < weights.embedding.rows(); ++row)
        for (Index c = 0; c < weights.embedding.cols(); ++c)
            weights.embedding(row, c) = static_cast<float>(0.1 * random.normal());
}

} // namespace

Index vocabulary_of(Task task) {
    const Features f = features_of(task);
    return f.items() + f.questions + f.answers;
}

Example draw(Task task, Index length, attnscope::SplitMix64& random) {
    const Features f = features_of(task);
    Example example;
    example.place = random.below(length - 1);
    const Index answer = random.below(f.answers);
    // The highest level is at least 1, so that there are lower ones.
    const Index found_by = task == Task::recall ? random.below(f.finders) : 1 + random.below(f.finders - 1);
    for (Index i = 0; i + 1 < length; ++i) {
        const Index other = task == Task::recall ? (found_by + 1 + random.below(f.finders - 1)) % f.finders
                                                 : random.below(found_by);
        const Index token =
            i == example.place ? found_by * f.answers + answer : other * f.answers + random.below(f.answers);
        example.ids.push_back(static_cast<std::int32_t>(token));
    }
    example.ids.push_back(static_cast<std::int32_t>(f.items() + (task == Task::recall ? found_by : 0)));
    example.answer = static_cast<std::int32_t>(f.items() + f.questions + answer);
    return example;
}

RowMeans measure(const models::Network<float>& network, Task task, Index length, Index count,
                 std::uint64_t seed) {
    attnscope::SplitMix64 random(seed);
    const models::Threads thread(1);
    RowMeans means;
    const Index together = std::max<Index>(1, 2048 / length);
    for (Index first = 0; first < count; first += together) {
        const Index sequences = std::min(together, count - first);
        std::vector<Index> places;
        const models::Batch batch = batch_of(task, sequences, length, random, &places);
        const auto look = [&](Index, Index sequence, const attnscope::HeadGroup<float>& heads) {
            std::vector<float> logits(static_cast<std::size_t>(length));
            attnscope::logits_of<float>(heads[0], attnscope::Mask::causal(), length - 1, logits);
            const std::vector<double> z(logits.begin(), logits.end());
            std::vector<double> p(z.size());
            network.normalizer().apply<double>(z, p);
            const auto right = static_cast<std::size_t>(places[static_cast<std::size_t>(sequence)]);
            double sum = 0, entropy = 0, other = -std::numeric_limits<double>::infinity(), rest = 0;
            for (const double x : p) sum += x;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (p[i] > 0) entropy -= p[i] / sum * std::log(p[i] / sum);
                if (i == right) continue;
                other = std::max(other, z[i]);
                rest += std::exp(std::min(700.0, z[i] - z[right])) / static_cast<double>(z.size() - 1);
            }
            const auto [low, high] = std::minmax_element(z.begin(), z.end());
            const double spectral = network.normalizer().norms<double>(z, p).spectral.value;
            means.right_weight += p[right];
            means.entropy_nats += sum > 0 ? entropy : 0;
            means.spectral += spectral;
            means.largest_spectral = std::max(means.largest_spectral, spectral);
            means.gap += z[right] - other;
            means.spread += *high - *low;
            means.rest.push_back(rest);
        };
        const auto pass = network.run(batch, thread, look);
        means.accuracy += static_cast<double>(pass.right);
        means.loss += pass.loss * static_cast<double>(sequences);
    }
    for (double* mean : {&means.accuracy, &means.loss, &means.right_weight, &means.entropy_nats,
                         &means.spectral, &means.gap, &means.spread})
        *mean /= static_cast<double>(count);
    return means;
}

std::pair<Run, models::Network<float>> train(const RunPlan& plan, Index every, Index longest) {
    const models::Config config = shape(plan.task, std::max(longest, plan.most_length));
    models::Network<float> network(
        config, models::read_weights<float>(config, models::RandomParameters(config, plan.seed)),
        program::named_normalizer(plan.normalizer, plan.temperature));
    embed_features(plan.task, network.weights(), plan.seed);
    network.weights().position.setZero(); // and stays so: the answer does not depend on the place
    models::Weights<float> gradient = zeros_like(network.weights());
    models::AdamW<float> optimizer(network.weights(), {.decay = 0.01});
    const models::Threads thread(1);
    attnscope::SplitMix64 random(plan.seed * 1000003 + static_cast<std::uint64_t>(plan.task));
    Run run{plan, {}, {}};
    double loss = 0, norm = 0, squares = 0;
    for (Index step = 1; step <= plan.steps; ++step) {
        const Index length = plan.least_length + random.below(plan.most_length - plan.least_length + 1);
        for (const auto& tensor : tensors_of(gradient))
            std::fill(tensor.values.begin(), tensor.values.end(), 0.0F);
        loss +=
            network.run_backward(batch_of(plan.task, plan.sequences, length, random), gradient, thread).loss;
        gradient.position.setZero();
        const double rate = plan.rate * std::min(1.0, static_cast<double>(step) / 20);
        const double length_of_gradient = optimizer.step(network.weights(), gradient, rate);
        norm += length_of_gradient;
        squares += length_of_gradient * length_of_gradient;
        if (step % every != 0 && step != plan.steps) continue;
        const double count = static_cast<double>(step % every == 0 ? every : step % every);
        const double mean = norm / count;
        run.log.push_back({step, loss / count, mean, std::sqrt(std::max(0.0, squares / count - mean * mean)),
                           measure(network, plan.task, plan.most_length, 128, plan.seed + 77)});
        if (!run.steps_to_95 && run.log.back().rows.accuracy >= 0.95) run.steps_to_95 = step;
        loss = norm = squares = 0;
    }
    return {std::move(run), std::move(network)};
}

} // namespace temperature
