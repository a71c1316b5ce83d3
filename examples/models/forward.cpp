#include <models/forward.hpp>
#include <models/layers.hpp>
#include <support/failure.hpp>
#include <support/named_normalizer.hpp>

#include <attnscope/streaming/scan.hpp>

namespace models {
namespace {

using attnscope::HeadGroup;
using attnscope::Mask;

/// Output of all heads side by side, and their weights if asked for.
template <Real T>
Matrix<T> attention(const HeadGroup<T>& heads, const Mask& mask, const attnscope::AnyNormalizer& normalizer,
                    bool keep_weights, std::vector<Matrix<T>>& weights, const Threads& threads) {
    const Index width = heads[0].v().cols();
    Matrix<T> out(heads.queries(), heads.heads() * width);
    // A scan is softmax at temperature 1.
    const auto* const softmax = normalizer.target<attnscope::Softmax>();
    if (softmax && softmax->temperature() == 1 && !keep_weights) {
        const auto scans = attnscope::scan_heads<2>(heads, mask, {.output = true}, threads);
        for (Index h = 0; h < heads.heads(); ++h)
            out.middleCols(h * width, width) = scans[static_cast<std::size_t>(h)].output;
        return out;
    }
    weights.resize(keep_weights ? static_cast<std::size_t>(heads.heads()) : 0);
    threads(heads.heads(), [&](Index h) {
        auto found = attnscope::attend(heads[h], normalizer, mask, {.weights = keep_weights});
        out.middleCols(h * width, width) = found.output;
        if (keep_weights) weights[static_cast<std::size_t>(h)] = std::move(found.weights);
    });
    return out;
}

void check_prompt(const Config& config, const Parameters& parameters, std::span<const std::int32_t> ids) {
    const Index n = static_cast<Index>(ids.size());
    if (n < 1 || n > config.context)
        program::fail("{}: tokens of a prompt: expected 1 to {}, found {}", parameters.origin(), config.context,
                      n);
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= config.vocabulary)
            program::fail("{}: token {}: expected an id from 0 to {}, found {}", parameters.origin(), i,
                          config.vocabulary - 1, ids[i]);
}

std::string embedding_name(const Config& config) {
    return config.family == Family::gpt2 ? "wte.weight" : "embed_tokens.weight";
}

/// [n, width]: the tokens' rows of the embedding, and for GPT-2 those of their places.
template <Real T>
Matrix<T> embedded(const Config& config, const Parameters& parameters, std::span<const std::int32_t> ids) {
    Matrix<T> x(static_cast<Index>(ids.size()), config.width);
    const auto row_of = [&](Matrix<T>& m, Index i) {
        return std::span<T>(m.data() + i * m.cols(), static_cast<std::size_t>(m.cols()));
    };
    for (Index i = 0; i < x.rows(); ++i)
        parameters.read_row(embedding_name(config), ids[static_cast<std::size_t>(i)], row_of(x, i));
    if (config.family != Family::gpt2) return x;
    Matrix<T> position(1, config.width);
    for (Index i = 0; i < x.rows(); ++i) {
        parameters.read_row("wpe.weight", i, row_of(position, 0));
        x.row(i) += position;
    }
    return x;
}

/// Takes the residual stream x through all layers, one at a time in memory.
template <Real T>
void run_layers(const Config& config, const Parameters& parameters, const attnscope::AnyNormalizer& normalizer,
                const RunOptions<T>& options, const Threads& threads, Matrix<T>& x) {
    for (Index layer = 0; layer < config.layers; ++layer) {
        const auto window = config.window(layer);
        const Mask mask = window ? Mask::sliding_window(*window) : Mask::causal();
        const auto attend = [&](const Matrix<T>& fused) {
            const HeadGroup<T> heads = heads_of(config, fused, 0, x.rows(), logit_scale(config, layer));
            std::vector<Matrix<T>> weights;
            Matrix<T> output = attention(heads, mask, normalizer, options.weights, weights, threads);
            if (options.layer) options.layer({layer, x, heads, mask, weights});
            return output;
        };
        forward(config, read_layer<T>(config, parameters, layer), x, attend, threads);
    }
}

/// The last norm and the product with the vocabulary.
template <Real T>
struct Head {
    Head(const Config& config, const Parameters& parameters)
        : norm(Reader<T>(config, parameters).norm(config.family == Family::gpt2 ? "ln_f" : "norm")),
          linear(read(config, parameters)) {}

    /// [rows of x, vocabulary]
    template <class X>
    Matrix<T> logits(const X& x, const Threads& threads) const {
        Matrix<T> result(x.rows(), linear.weight.rows());
        linear.apply(norm.apply(x, threads), result, threads);
        return result;
    }

    Norm<T> norm;
    Linear<T> linear;

private:
    static Linear<T> read(const Config& config, const Parameters& parameters) {
        const Reader<T> reader(config, parameters);
        return {reader.matrix(config.tied_head ? embedding_name(config) : "lm_head.weight", config.vocabulary,
                              config.width),
                parameters.contains("lm_head.bias") ? reader.row("lm_head.bias", config.vocabulary) : Row<T>(),
                true};
    }
};

/// Mean of -log p(next token) over all tokens but the last, nats; some rows of logits at a time.
template <Real T>
double mean_loss(const Head<T>& head, const Matrix<T>& x, std::span<const std::int32_t> ids,
                 const Threads& threads) {
    const Index count = x.rows() - 1;
    std::vector<double> sums(static_cast<std::size_t>((count + block_rows - 1) / block_rows));
    for_each_block(count, threads, [&](Index begin, Index rows) {
        const Matrix<T> block = head.logits(x.middleRows(begin, rows), Threads(1));
        double& sum = sums[static_cast<std::size_t>(begin / block_rows)];
        for (Index i = 0; i < rows; ++i) {
            const attnscope::RowIn<T> row(block.data() + i * block.cols(),
                                          static_cast<std::size_t>(block.cols()));
            const auto next = static_cast<std::size_t>(ids[static_cast<std::size_t>(begin + i + 1)]);
            sum += static_cast<double>(attnscope::row_statistics<T>(row).log_sum_exp()) -
                   static_cast<double>(row[next]);
        }
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum / static_cast<double>(count);
}

} // namespace

attnscope::AnyNormalizer Model::normalizer() const {
    return program::named_normalizer(config_.normalizer, config_.temperature);
}

std::vector<std::string> Model::remarks() const {
    std::vector<std::string> remarks = parameters_->remarks();
    if (!config_.unknown_keys.empty())
        remarks.push_back(fmt::format("{}: keys of config.json that are not known and not used: {}",
                                      parameters_->origin(), listed(config_.unknown_keys)));
    return remarks;
}

template <Real T>
RunResult<T> Model::run(std::span<const std::int32_t> ids, const RunOptions<T>& options) const {
    check_prompt(config_, *parameters_, ids);
    const Threads threads(options.threads);
    RunResult<T> result;
    result.hidden = embedded<T>(config_, *parameters_, ids);
    run_layers(config_, *parameters_, options.normalizer ? *options.normalizer : normalizer(), options, threads,
               result.hidden);
    if (!config_.has_head) return result;
    const Head<T> head(config_, *parameters_);
    result.logits_last = head.logits(result.hidden.bottomRows(1), threads).row(0);
    if (options.loss && ids.size() > 1) result.loss = mean_loss(head, result.hidden, ids, threads);
    return result;
}

template <Real T>
Matrix<T> Model::output_projection(Index layer) const {
    if (layer < 0 || layer >= config_.layers)
        program::fail("{}: expected a layer from 0 to {}, got {}", parameters_->origin(), config_.layers - 1,
                      layer);
    const bool gpt2 = config_.family == Family::gpt2;
    const Linear<T> linear =
        Reader<T>(config_, *parameters_)
            .linear(layer_prefix(config_, layer) + (gpt2 ? "attn.c_proj" : "self_attn.o_proj"),
                    config_.heads * config_.head_width, config_.width, false);
    return linear.transposed ? Matrix<T>(linear.weight.transpose()) : linear.weight;
}

template <Real T>
Matrix<T> Model::input_projections(Index layer) const {
    if (layer < 0 || layer >= config_.layers || config_.family != Family::gpt2)
        program::fail("{}: expected a layer of GPT-2 from 0 to {}, got {}{}", parameters_->origin(),
                      config_.layers - 1, layer, config_.family == Family::gpt2 ? "" : " of a Llama");
    return Reader<T>(config_, *parameters_)
        .linear(layer_prefix(config_, layer) + "attn.c_attn", config_.width,
                3 * config_.heads * config_.head_width, false)
        .weight;
}

template Matrix<float> Model::input_projections(Index) const;
template Matrix<double> Model::input_projections(Index) const;
template Matrix<float> Model::output_projection(Index) const;
template Matrix<double> Model::output_projection(Index) const;
template RunResult<float> Model::run(std::span<const std::int32_t>, const RunOptions<float>&) const;
template RunResult<double> Model::run(std::span<const std::int32_t>, const RunOptions<double>&) const;

std::vector<std::int32_t> continue_greedily(const Model& model, std::vector<std::int32_t> ids, Index count,
                                            Index threads) {
    if (!model.config().has_head)
        program::fail("{}: a model without a head has no next token", model.parameters().origin());
    RunOptions<float> options;
    options.threads = threads;
    for (Index i = 0; i < count; ++i) {
        const Row<float> logits = model.run<float>(ids, options).logits_last;
        Index best = 0;
        logits.maxCoeff(&best);
        ids.push_back(static_cast<std::int32_t>(best));
    }
    return ids;
}

} // namespace models
