// The forward pass of a GPT-2 or Llama model over a prompt, with every layer's attention handed out.
#pragma once

#include <models/parameters.hpp>

#include <attnscope/attention/head.hpp>
#include <attnscope/runtime/any_normalizer.hpp>

#include <functional>

namespace models {

using attnscope::Matrix;
using attnscope::Real;
using attnscope::Row;

/// A layer during a run. All of it is borrowed for the call.
template <Real T>
struct LayerView {
    Index layer = 0;
    const Matrix<T>& hidden;            ///< [n, width], the residual stream that enters the layer
    attnscope::HeadGroup<T> heads;      ///< views of q, k (after rotary embedding) and v, with the scale of q.k
    attnscope::Mask mask;               ///< causal, with the model's sliding window
    std::span<const Matrix<T>> weights; ///< [n, n] of each head if asked for, else empty
};

template <Real T>
struct RunOptions {
    std::optional<attnscope::AnyNormalizer> normalizer = {}; ///< in place of the model's own
    bool weights = false;
    bool loss = false; ///< of the next token, for which all logits are needed
    std::function<void(const LayerView<T>&)> layer = {};
    Index threads = 1; ///< change nothing in the results
};

template <Real T>
struct RunResult {
    Matrix<T> hidden;   ///< [n, width], the residual stream after the last layer, before the last norm
    Row<T> logits_last; ///< [vocabulary], of the token that would come next; empty without a head
    double loss = std::numeric_limits<double>::quiet_NaN(); ///< mean of -log p(next token), nats; NaN without
};

/// A model whose parameters are read layer by layer while it runs and released again.
class Model {
public:
    Model(Config config, std::shared_ptr<const Parameters> parameters)
        : config_(config), parameters_(std::move(parameters)) {}
    /// config.json and model.safetensors (or its parts) of a folder; throws what `read_config` and
    /// `FileParameters` throw.
    static Model load(const std::string& folder) {
        const Config config = read_config(folder + "/config.json");
        return Model(config, std::make_shared<FileParameters>(folder, config));
    }

    const Config& config() const { return config_; }
    const Parameters& parameters() const { return *parameters_; }
    /// The one that config.json names; softmax if it names none.
    attnscope::AnyNormalizer normalizer() const;
    /// What was found and not used, one line each, for whoever shows results of this model.
    std::vector<std::string> remarks() const;

    /// One pass over 1 <= n <= context tokens. Cost O(n) products with each parameter, O(n^2 width) for
    /// attention. Errors: std::runtime_error for ids outside the vocabulary and prompts of another length, and
    /// what `Parameters` throws.
    template <Real T>
    RunResult<T> run(std::span<const std::int32_t> ids, const RunOptions<T>& options = {}) const;

    /// W_O of a layer, [heads * head_width, width]: head h adds its output times rows h * head_width ... to the
    /// residual stream. Errors: std::runtime_error for a layer that is not there, and what `Parameters` throws.
    template <Real T>
    Matrix<T> output_projection(Index layer) const;

    /// W_Q, W_K and W_V of a layer of GPT-2 side by side, [width, 3 heads * head_width]: head h has the columns
    /// h * head_width ... of each. Errors: as above, and std::runtime_error for a Llama, whose queries and keys
    /// also depend on their place.
    template <Real T>
    Matrix<T> input_projections(Index layer) const;

private:
    Config config_;
    std::shared_ptr<const Parameters> parameters_;
};

/// `count` tokens more, each the likeliest after all that came before (ties: the smallest id). A whole pass for
/// each of them. Errors: std::runtime_error for a model without a head, and what `Model::run` throws.
std::vector<std::int32_t> continue_greedily(const Model& model, std::vector<std::int32_t> ids, Index count,
                                            Index threads = 1);

extern template RunResult<float> Model::run(std::span<const std::int32_t>, const RunOptions<float>&) const;
extern template RunResult<double> Model::run(std::span<const std::int32_t>, const RunOptions<double>&) const;
extern template Matrix<float> Model::output_projection(Index) const;
extern template Matrix<double> Model::output_projection(Index) const;
extern template Matrix<float> Model::input_projections(Index) const;
extern template Matrix<double> Model::input_projections(Index) const;

} // namespace models
