// Training a GPT-2 model: loss and gradient of batches under any normaliser, AdamW.
#pragma once

#include <models/layers.hpp>

#include <attnscope/runtime/any_normalizer.hpp>

#include <functional>

namespace models {

/// All numbers of a GPT-2 model whose output matrix is its embedding.
template <Real T>
struct Weights {
    Matrix<T> embedding, position; ///< [vocabulary, width], [context, width]
    std::vector<Layer<T>> layers;
    Norm<T> last;
    Row<T> normalizer; ///< [1], u of a `LearnedNormalizer`; else empty
};

/// A normaliser whose parameter is trained, one for the whole model: temperature, s, kappa and alpha - 1 as
/// e^u, the sink's n0 as e^u, the bias of sigmoid as u.
class LearnedNormalizer {
public:
    /// name: softmax (at `temperature`), ssmax:S, logn:KAPPA, entmax:ALPHA, sink:N0 or sigmoid:BIAS, with the
    /// value to begin with. Throws std::runtime_error for others, and what `make_normalizer` throws.
    LearnedNormalizer(std::string_view name, double temperature);

    double start() const { return start_; } ///< u to begin with
    attnscope::AnyNormalizer at(double u) const;
    /// Its name at u, such as "ssmax:0.31"; of softmax its temperature.
    std::string name_at(double u) const;
    /// d(what `parameter_derivative` differentiates in)/du
    double slope(double u) const;

private:
    double value(double u) const;
    std::string core_;
    double start_ = 0;
};

/// Reads them all. Errors: std::runtime_error for what this model code does not train (Llama, an output matrix
/// of its own, another activation), and what `Parameters` throws.
template <Real T>
Weights<T> read_weights(const Config& config, const Parameters& parameters);

/// One tensor of the model, as files name and shape it.
template <Real T>
struct Tensor {
    std::string name;
    std::vector<Index> shape;
    std::span<T> values;
};

/// All tensors in a fixed order; they point into `weights`.
template <Real T>
std::vector<Tensor<T>> tensors_of(Weights<T>& weights);

/// Sequences of one length, one behind the other.
struct Batch {
    Index sequences = 0, length = 0;
    std::vector<std::int32_t> inputs, targets; ///< [sequences length]; target -1: not counted
};

template <Real T>
class Network {
public:
    /// Throws as `read_weights`.
    Network(Config config, Weights<T> weights, attnscope::AnyNormalizer normalizer)
        : config_(std::move(config)), weights_(std::move(weights)), normalizer_(std::move(normalizer)) {}
    /// The normaliser's parameter is one of the weights.
    Network(Config config, Weights<T> weights, LearnedNormalizer learned)
        : config_(std::move(config)), weights_(std::move(weights)), learned_(std::move(learned)) {
        weights_.normalizer = Row<T>::Constant(1, 1, static_cast<T>(learned_->start()));
    }

    const Config& config() const { return config_; }
    Weights<T>& weights() { return weights_; }
    /// As it is now.
    attnscope::AnyNormalizer normalizer() const {
        return learned_ ? learned_->at(static_cast<double>(weights_.normalizer[0])) : normalizer_;
    }
    const std::optional<LearnedNormalizer>& learned() const { return learned_; }

    /// What a pass over a batch says.
    struct Pass {
        double loss = 0;   ///< mean of -log p(target) over the counted targets, nats
        Index counted = 0; ///< targets
        Index right = 0;   ///< of them likelier than all other tokens
    };
    /// Called for each layer with q, k and v of a sequence, when asked for.
    using Look = std::function<void(Index layer, Index sequence, const attnscope::HeadGroup<T>&)>;

    Pass run(const Batch& batch, const Threads& threads, const Look& look = {}) const;
    /// As `run`, and adds d loss/d parameter to `gradient`, which has the shapes of the weights. Results do not
    /// depend on the threads.
    Pass run_backward(const Batch& batch, Weights<T>& gradient, const Threads& threads) const;

private:
    Matrix<T> embed(const Batch& batch) const;
    Matrix<T> attend(Index layer, const Matrix<T>& fused, const Batch& batch,
                     const attnscope::AnyNormalizer& normalizer, const Threads& threads) const;
    /// Adds the gradient in the normaliser's parameter to `d_parameter` if it is learned.
    Matrix<T> attend_back(Index layer, const Matrix<T>& fused, const Matrix<T>& d_out, const Batch& batch,
                          const attnscope::AnyNormalizer& normalizer, double& d_parameter,
                          const Threads& threads) const;
    /// Replaces logits by d loss/d logits when asked to.
    Pass score(Matrix<T>& logits, const Batch& batch, bool gradient, const Threads& threads) const;

    Config config_;
    Weights<T> weights_;
    attnscope::AnyNormalizer normalizer_;
    std::optional<LearnedNormalizer> learned_;
};

/// The same shapes, all 0.
template <Real T>
Weights<T> zeros_like(const Weights<T>& weights);

/// Decoupled weight decay (Loshchilov, Hutter, arXiv:1711.05101) on matrices, bias-corrected moments.
template <Real T>
class AdamW {
public:
    struct Options {
        double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-8, decay = 0.1;
        double clip = 1; ///< of the norm of all gradients together
    };
    AdamW(const Weights<T>& weights, Options options)
        : options_(options), first_(zeros_like(weights)), second_(zeros_like(weights)) {}

    /// One step; returns the norm of the gradient before clipping.
    double step(Weights<T>& weights, Weights<T>& gradient, double rate);

    Weights<T>& first() { return first_; }
    Weights<T>& second() { return second_; }
    std::int64_t steps = 0; ///< made so far

private:
    Options options_;
    Weights<T> first_, second_;
};

extern template class Network<float>;
extern template class Network<double>;
extern template class AdamW<float>;
extern template class AdamW<double>;

} // namespace models
