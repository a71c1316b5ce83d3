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
    const Config& config = config_;
    const Index n = static_cast<Index>(ids.size());
    if (n < 1 || n > config.context)
        program::fail("{}: tokens of a prompt: expected 1 to {}, found {}", parameters_->origin(),
                      config.context, n);
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= config.vocabulary)
            program::fail("{}: token {}: expected an id from 0 to {}, found {}", parameters_->origin(), i,
                          config.vocabulary - 1, ids[i]);
    const Threads threads(options.threads);
    const Reader<T> reader(config, *parameters_);
    const bool gpt2 = config.family == Family::gpt2;
    const std::string embedding = gpt2 ? "wte.weight" : "embed_tokens.weight";

    Matrix<T> x(n, config.width);
    const auto row_of = [&](Matrix<T>& m, Index i) {
        return std::span<T>(m.data() + i * m.cols(), static_cast<std::size_t>(m.cols()));
    };
    for (Index i = 0; i < n; ++i)
        parameters_->read_row(embedding, ids[static_cast<std::size_t>(i)], row_of(x, i));
    if (gpt2) {
        Matrix<T> position(1, config.width);
        for (Index i = 0; i < n; ++i) {
            parameters_->read_row("wpe.weight", i, row_of(position, 0));
            x.row(i) += position;
        }
    }

    const attnscope::AnyNormalizer normalizer = options.normalizer ? *options.normalizer : this->normalizer();
    for (Index layer = 0; layer < config.layers; ++layer) {
        const auto window = config.window(layer);
        const Mask mask = window ? Mask::sliding_window(*window) : Mask::causal();
        const auto attend = [&](const Matrix<T>& fused) {
            const HeadGroup<T> heads = heads_of(config, fused, 0, n, logit_scale(config, layer));
            std::vector<Matrix<T>> weights;
            Matrix<T> output = attention(heads, mask, normalizer, options.weights, weights, threads);
            if (options.layer) options.layer({layer, x, heads, mask, weights});
            return output;
        };
        forward(config, read_layer<T>(config, *parameters_, layer), x, attend, threads);
    }

    RunResult<T> result;
    result.hidden = x;
    if (!config.has_head) return result;
    const Norm<T> last = reader.norm(gpt2 ? "ln_f" : "norm");
    const std::string head = config.tied_head ? embedding : "lm_head.weight";
    const Linear<T> output{
        reader.matrix(head, config.vocabulary, config.width),
        parameters_->contains("lm_head.bias") ? reader.row("lm_head.bias", config.vocabulary) : Row<T>(), true};
    Matrix<T> logits(1, config.vocabulary);
    output.apply(last.apply(x.bottomRows(1), threads), logits, threads);
    result.logits_last = logits.row(0);
    if (options.loss && n > 1) {
        std::vector<double> sums(static_cast<std::size_t>((n - 1 + block_rows - 1) / block_rows));
        for_each_block(n - 1, threads, [&](Index begin, Index rows) {
            const Matrix<T> normed = last.apply(x.middleRows(begin, rows), Threads(1));
            Matrix<T> block(rows, config.vocabulary);
            output.apply(normed, block, Threads(1));
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
        result.loss = sum / static_cast<double>(n - 1);
    }
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
