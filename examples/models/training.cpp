#include <models/training.hpp>
#include <support/failure.hpp>
#include <support/named_normalizer.hpp>

namespace models {
namespace {

/// Calls f(name, matrix or row, is it a matrix) for every tensor.
template <Real T, class F>
void for_each_tensor(Weights<T>& weights, const F& f) {
    const auto norm = [&](const std::string& name, Norm<T>& x) {
        f(name + ".weight", x.gain, false);
        f(name + ".bias", x.bias, false);
    };
    const auto linear = [&](const std::string& name, Linear<T>& x) {
        f(name + ".weight", x.weight, true);
        f(name + ".bias", x.bias, false);
    };
    f("wte.weight", weights.embedding, true);
    f("wpe.weight", weights.position, true);
    for (std::size_t l = 0; l < weights.layers.size(); ++l) {
        const std::string name = fmt::format("h.{}.", l);
        Layer<T>& layer = weights.layers[l];
        norm(name + "ln_1", layer.attention_norm);
        linear(name + "attn.c_attn", layer.heads.front());
        linear(name + "attn.c_proj", layer.output);
        norm(name + "ln_2", layer.mlp_norm);
        linear(name + "mlp.c_fc", layer.inner.front());
        linear(name + "mlp.c_proj", layer.down);
    }
    norm("ln_f", weights.last);
    if (weights.normalizer.size() > 0) f("attention.parameter", weights.normalizer, false);
}

void require_trainable(const Config& config, const Parameters& parameters) {
    const auto fail = [&](std::string_view what) { program::fail("{}: {}", parameters.origin(), what); };
    if (config.family != Family::gpt2) fail("only GPT-2 models are trained");
    if (config.activation != Activation::gelu_tanh)
        fail("only models with the activation gelu_new are trained");
    if (!config.tied_head || parameters.contains("lm_head.bias"))
        fail("only models whose output matrix is the embedding are trained");
}

} // namespace

LearnedNormalizer::LearnedNormalizer(std::string_view name, double temperature) {
    const std::size_t colon = name.find(':');
    core_ = name.substr(0, colon);
    const bool is_softmax = name == "softmax";
    constexpr std::array<std::string_view, 5> others = {"ssmax", "logn", "entmax", "sink", "sigmoid"};
    const bool known = std::find(others.begin(), others.end(), core_) != others.end() && colon != name.npos;
    if (!is_softmax && !known)
        program::fail("the parameter of softmax, ssmax:S, logn:KAPPA, entmax:ALPHA, sink:N0 or "
                      "sigmoid:BIAS can be learned, not that of {}",
                      name);
    if (!is_softmax && temperature != 1)
        program::fail("the parameter of {} can be learned at temperature 1 only, got {}", name, temperature);
    (void)program::named_normalizer(name, temperature); // refuses what is no number
    const double x = is_softmax ? temperature : std::stod(std::string(name.substr(colon + 1)));
    const double positive = core_ == "entmax" ? x - 1 : x;
    if (core_ != "sigmoid" && !(positive > 0))
        program::fail("the learned parameter of {} must begin above {}", name, core_ == "entmax" ? 1 : 0);
    start_ = core_ == "sigmoid" ? x : std::log(positive);
}

double LearnedNormalizer::value(double u) const {
    return core_ == "sigmoid" ? u : core_ == "entmax" ? 1 + std::exp(u) : std::exp(u);
}

std::string LearnedNormalizer::name_at(double u) const {
    return core_ == "softmax" ? core_ : fmt::format("{}:{}", core_, value(u));
}

attnscope::AnyNormalizer LearnedNormalizer::at(double u) const {
    return program::named_normalizer(name_at(u), core_ == "softmax" ? value(u) : 1);
}

double LearnedNormalizer::slope(double u) const {
    // The sink's parameter is its logit, log n0.
    return core_ == "sigmoid" || core_ == "sink" ? 1 : std::exp(u);
}

template <Real T>
Weights<T> read_weights(const Config& config, const Parameters& parameters) {
    require_trainable(config, parameters);
    const Reader<T> reader(config, parameters);
    Weights<T> weights{reader.matrix("wte.weight", config.vocabulary, config.width),
                       reader.matrix("wpe.weight", config.context, config.width),
                       {},
                       reader.norm("ln_f"),
                       {}};
    for (Index layer = 0; layer < config.layers; ++layer)
        weights.layers.push_back(read_layer<T>(config, parameters, layer));
    return weights;
}

template <Real T>
std::vector<Tensor<T>> tensors_of(Weights<T>& weights) {
    std::vector<Tensor<T>> tensors;
    for_each_tensor(weights, [&](const std::string& name, auto& x, bool matrix) {
        tensors.push_back({name, matrix ? std::vector<Index>{x.rows(), x.cols()} : std::vector<Index>{x.size()},
                           std::span<T>(x.data(), static_cast<std::size_t>(x.size()))});
    });
    return tensors;
}

template <Real T>
Weights<T> zeros_like(const Weights<T>& weights) {
    Weights<T> zeros = weights;
    for (const Tensor<T>& tensor : tensors_of(zeros))
        std::fill(tensor.values.begin(), tensor.values.end(), T(0));
    return zeros;
}

template <Real T>
Matrix<T> Network<T>::embed(const Batch& batch) const {
    if (batch.length < 1 || batch.length > config_.context)
        program::fail("Network: sequences of 1 to {} tokens are possible, got {}", config_.context,
                      batch.length);
    Matrix<T> x(batch.sequences * batch.length, config_.width);
    for (Index i = 0; i < x.rows(); ++i) {
        const auto id = batch.inputs[static_cast<std::size_t>(i)];
        if (id < 0 || id >= config_.vocabulary)
            program::fail("Network: ids from 0 to {} are possible, got {}", config_.vocabulary - 1, id);
        x.row(i) = weights_.embedding.row(id) + weights_.position.row(i % batch.length);
    }
    return x;
}

template <Real T>
Matrix<T> Network<T>::attend(Index layer, const Matrix<T>& fused, const Batch& batch,
                             const attnscope::AnyNormalizer& normalizer, const Threads& threads) const {
    const Index d = config_.head_width;
    Matrix<T> out(fused.rows(), config_.heads * d);
    threads(batch.sequences * config_.heads, [&](Index task) {
        const Index first = task / config_.heads * batch.length, head = task % config_.heads;
        const auto group = heads_of(config_, fused, first, batch.length, logit_scale(config_, layer));
        out.block(first, head * d, batch.length, d) =
            attnscope::attend(group[head], normalizer, attnscope::Mask::causal()).output;
    });
    return out;
}

template <Real T>
Matrix<T> Network<T>::attend_back(Index layer, const Matrix<T>& fused, const Matrix<T>& d_out,
                                  const Batch& batch, const attnscope::AnyNormalizer& normalizer,
                                  double& d_parameter, const Threads& threads) const {
    const Index d = config_.head_width, q = config_.heads * d, tasks = batch.sequences * config_.heads;
    Matrix<T> d_fused(fused.rows(), fused.cols());
    std::vector<double> parameters(static_cast<std::size_t>(tasks));
    threads(tasks, [&](Index task) {
        const Index first = task / config_.heads * batch.length, head = task % config_.heads;
        const auto group = heads_of(config_, fused, first, batch.length, logit_scale(config_, layer));
        const attnscope::MatrixView<T> d_head(d_out.data() + first * d_out.cols() + head * d, batch.length, d,
                                              d_out.cols());
        const auto gradient = attnscope::attend_backward(
            group[head], normalizer, d_head, attnscope::Mask::causal(), {.parameter = learned_.has_value()});
        d_fused.block(first, head * d, batch.length, d) = gradient.q;
        d_fused.block(first, q + head * d, batch.length, d) = gradient.k;
        d_fused.block(first, 2 * q + head * d, batch.length, d) = gradient.v;
        parameters[static_cast<std::size_t>(task)] = gradient.parameter;
    });
    for (const double parameter : parameters) d_parameter += parameter;
    return d_fused;
}

template <Real T>
typename Network<T>::Pass Network<T>::score(Matrix<T>& logits, const Batch& batch, bool gradient,
                                            const Threads& threads) const {
    Pass pass;
    for (const auto target : batch.targets) pass.counted += target >= 0;
    const double share = 1 / static_cast<double>(std::max<Index>(1, pass.counted));
    std::vector<Pass> parts(static_cast<std::size_t>((logits.rows() + block_rows - 1) / block_rows));
    for_each_block(logits.rows(), threads, [&](Index begin, Index rows) {
        Pass& part = parts[static_cast<std::size_t>(begin / block_rows)];
        for (Index i = begin; i < begin + rows; ++i) {
            const std::span<T> row(logits.data() + i * logits.cols(), static_cast<std::size_t>(logits.cols()));
            const auto target = batch.targets[static_cast<std::size_t>(i)];
            if (target < 0) {
                if (gradient) std::fill(row.begin(), row.end(), T(0));
                continue;
            }
            const auto at = static_cast<std::size_t>(target);
            const T own = row[at];
            part.right += std::count_if(row.begin(), row.end(), [&](T z) { return z >= own; }) == 1;
            const auto statistics = attnscope::row_statistics<T>(attnscope::RowIn<T>(row));
            part.loss += static_cast<double>(statistics.log_sum_exp()) - static_cast<double>(own);
            if (!gradient) continue;
            attnscope::Softmax().apply<T>(attnscope::RowIn<T>(row), row);
            row[at] -= T(1);
            for (T& x : row) x *= static_cast<T>(share);
        }
    });
    for (const Pass& part : parts) {
        pass.loss += part.loss * share;
        pass.right += part.right;
    }
    return pass;
}

template <Real T>
typename Network<T>::Pass Network<T>::run(const Batch& batch, const Threads& threads, const Look& look) const {
    Matrix<T> x = embed(batch);
    const attnscope::AnyNormalizer normalizer = this->normalizer();
    for (Index layer = 0; layer < config_.layers; ++layer)
        forward(
            config_, weights_.layers[static_cast<std::size_t>(layer)], x,
            [&](const Matrix<T>& fused) {
                for (Index sequence = 0; look && sequence < batch.sequences; ++sequence)
                    look(layer, sequence,
                         heads_of(config_, fused, sequence * batch.length, batch.length,
                                  logit_scale(config_, layer)));
                return attend(layer, fused, batch, normalizer, threads);
            },
            threads);
    const Linear<T> head{weights_.embedding, {}, true};
    Matrix<T> logits(x.rows(), config_.vocabulary);
    head.apply(weights_.last.apply(x, threads), logits, threads);
    return score(logits, batch, false, threads);
}

template <Real T>
typename Network<T>::Pass Network<T>::run_backward(const Batch& batch, Weights<T>& gradient,
                                                   const Threads& threads) const {
    Matrix<T> x = embed(batch);
    const attnscope::AnyNormalizer normalizer = this->normalizer();
    double d_parameter = 0;
    std::vector<LayerTape<T>> tapes(static_cast<std::size_t>(config_.layers));
    for (Index layer = 0; layer < config_.layers; ++layer)
        forward(
            config_, weights_.layers[static_cast<std::size_t>(layer)], x,
            [&](const Matrix<T>& fused) { return attend(layer, fused, batch, normalizer, threads); }, threads,
            &tapes[static_cast<std::size_t>(layer)]);
    const Matrix<T> normed = weights_.last.apply(x, threads);
    Matrix<T> logits(x.rows(), config_.vocabulary);
    for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
        logits.middleRows(begin, rows).noalias() =
            normed.middleRows(begin, rows) * weights_.embedding.transpose();
    });
    const Pass pass = score(logits, batch, true, threads);

    Linear<T>::add_product(logits, normed, gradient.embedding, threads);
    Matrix<T> d_normed(x.rows(), x.cols()), d = Matrix<T>::Zero(x.rows(), x.cols());
    for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
        d_normed.middleRows(begin, rows).noalias() = logits.middleRows(begin, rows) * weights_.embedding;
    });
    weights_.last.backward(x, d_normed, d, gradient.last, threads);
    for (Index layer = config_.layers; layer-- > 0;) {
        const auto at = static_cast<std::size_t>(layer);
        backward(
            weights_.layers[at], tapes[at], d,
            [&](const Matrix<T>& fused, const Matrix<T>& d_attended) {
                return attend_back(layer, fused, d_attended, batch, normalizer, d_parameter, threads);
            },
            gradient.layers[at], threads);
        tapes[at] = {};
    }
    if (learned_)
        gradient.normalizer[0] +=
            static_cast<T>(d_parameter * learned_->slope(static_cast<double>(weights_.normalizer[0])));
    for (Index i = 0; i < d.rows(); ++i) {
        gradient.embedding.row(batch.inputs[static_cast<std::size_t>(i)]) += d.row(i);
        gradient.position.row(i % batch.length) += d.row(i);
    }
    return pass;
}

template <Real T>
double AdamW<T>::step(Weights<T>& weights, Weights<T>& gradient, double rate) {
    double squares = 0;
    for (const Tensor<T>& tensor : tensors_of(gradient))
        for (const T g : tensor.values) squares += static_cast<double>(g) * static_cast<double>(g);
    const double norm = std::sqrt(squares);
    const T factor = static_cast<T>(norm > options_.clip ? options_.clip / norm : 1);
    ++steps;
    const double count = static_cast<double>(steps);
    const T beta1 = static_cast<T>(options_.beta1), beta2 = static_cast<T>(options_.beta2),
            size = static_cast<T>(rate / (1 - std::pow(options_.beta1, count))),
            correction = static_cast<T>(1 / (1 - std::pow(options_.beta2, count))),
            epsilon = static_cast<T>(options_.epsilon);
    auto all = tensors_of(weights), g = tensors_of(gradient), m = tensors_of(first_), v = tensors_of(second_);
    for (std::size_t t = 0; t < all.size(); ++t) {
        const T keep = static_cast<T>(all[t].shape.size() == 2 ? 1 - rate * options_.decay : 1);
        using Array = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;
        const auto map = [](std::span<T> values) {
            return Array(values.data(), static_cast<Index>(values.size()));
        };
        Array weight = map(all[t].values), slope = map(g[t].values), first = map(m[t].values),
              second = map(v[t].values);
        first = beta1 * first + (1 - beta1) * factor * slope;
        second = beta2 * second + (1 - beta2) * (factor * slope).square();
        weight = keep * weight - size * first / ((correction * second).sqrt() + epsilon);
    }
    return norm;
}

template Weights<float> read_weights(const Config&, const Parameters&);
template Weights<double> read_weights(const Config&, const Parameters&);
template std::vector<Tensor<float>> tensors_of(Weights<float>&);
template std::vector<Tensor<double>> tensors_of(Weights<double>&);
template Weights<float> zeros_like(const Weights<float>&);
template Weights<double> zeros_like(const Weights<double>&);
template class Network<float>;
template class Network<double>;
template class AdamW<float>;
template class AdamW<double>;

} // namespace models
