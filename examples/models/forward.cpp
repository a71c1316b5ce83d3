#include <models/forward.hpp>

#include <attnscope/detail/elementary.hpp>
#include <attnscope/streaming/threads.hpp>

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

namespace models {
namespace {

using attnscope::HeadArray;
using attnscope::HeadGroup;
using attnscope::Mask;
using attnscope::Threads;

/// Rows of a product that are one task; results do not depend on who takes which.
constexpr Index block_rows = 128;

template <class Work>
void for_each_block(Index rows, const Threads& threads, const Work& work) {
    threads((rows + block_rows - 1) / block_rows, [&](Index block) {
        const Index begin = block * block_rows;
        work(begin, std::min(block_rows, rows - begin));
    });
}

/// A matrix as its file has it: [in, out] (GPT-2) or [out, in] (Llama), and a bias that may be missing.
template <Real T>
struct Linear {
    Matrix<T> weight;
    Row<T> bias;
    bool transposed = false;

    Index outputs() const { return transposed ? weight.rows() : weight.cols(); }

    /// out = x weight + bias
    void apply(const Matrix<T>& x, Eigen::Ref<Matrix<T>, 0, Eigen::OuterStride<>> out,
               const Threads& threads) const {
        for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
            auto part = out.middleRows(begin, rows);
            if (transposed)
                part.noalias() = x.middleRows(begin, rows) * weight.transpose();
            else
                part.noalias() = x.middleRows(begin, rows) * weight;
            if (bias.size() > 0) part.rowwise() += bias.matrix();
        });
    }
    /// x += y weight + bias
    void add_to(Matrix<T>& x, const Matrix<T>& y, const Threads& threads) const {
        for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
            auto part = x.middleRows(begin, rows);
            if (transposed)
                part.noalias() += y.middleRows(begin, rows) * weight.transpose();
            else
                part.noalias() += y.middleRows(begin, rows) * weight;
            if (bias.size() > 0) part.rowwise() += bias.matrix();
        });
    }
};

/// Layer norm with a bias, root-mean-square norm without.
template <Real T>
struct Norm {
    Row<T> gain, bias;
    double epsilon = 1e-5;
    bool centred = true;

    Matrix<T> apply(const Matrix<T>& x, const Threads& threads) const {
        Matrix<T> out(x.rows(), x.cols());
        for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
            for (Index i = begin; i < begin + rows; ++i) apply_to_row(x.row(i), out.row(i));
        });
        return out;
    }

private:
    template <class In, class Out>
    void apply_to_row(const In& x, Out&& out) const {
        const double n = static_cast<double>(x.size());
        double mean = 0, square = 0;
        for (Index c = 0; c < x.size(); ++c) mean += static_cast<double>(x[c]);
        mean = centred ? mean / n : 0;
        for (Index c = 0; c < x.size(); ++c) square += std::pow(static_cast<double>(x[c]) - mean, 2);
        const double scale = 1 / std::sqrt(square / n + epsilon);
        for (Index c = 0; c < x.size(); ++c) {
            out[c] = static_cast<T>((static_cast<double>(x[c]) - mean) * scale) * gain[c];
            if (bias.size() > 0) out[c] += bias[c];
        }
    }
};

template <Real T>
void activate(Activation activation, std::span<T> x) {
    switch (activation) {
    case Activation::gelu:
        for (T& v : x) v = T(0.5) * v * (T(1) + std::erf(v * static_cast<T>(M_SQRT1_2)));
        return;
    case Activation::silu:
        for (T& v : x) v = v / (T(1) + std::exp(-v));
        return;
    case Activation::gelu_tanh: {
        using S = attnscope::detail::Simd<T>;
        const auto half = S::set(T(0.5)), one = S::set(T(1)), cubic = S::set(T(0.044715)),
                   root = S::set(static_cast<T>(std::sqrt(2 / M_PI)));
        attnscope::detail::for_each_lane<T>(attnscope::detail::size<T>(x), [&](const auto& lane) {
            const auto v = lane(x.data());
            const auto inner = S::mul(root, S::madd(S::mul(cubic, S::mul(v, v)), v, v));
            lane.store(x.data(), S::mul(S::mul(half, v), S::add(one, attnscope::detail::tanh<T>(inner))));
        });
        return;
    }
    }
}

/// What the names of a layer's tensors begin with.
std::string layer_prefix(const Config& config, Index layer) {
    return fmt::format("{}.{}.", config.family == Family::gpt2 ? "h" : "layers", layer);
}

/// Reads what a layer needs.
template <Real T>
class Reader {
public:
    Reader(const Config& config, const Parameters& parameters) : config_(config), parameters_(parameters) {}

    Matrix<T> matrix(const std::string& name, Index rows, Index cols) const {
        Matrix<T> m(rows, cols);
        parameters_.read(name, {rows, cols}, std::span<T>(m.data(), static_cast<std::size_t>(m.size())));
        return m;
    }
    Row<T> row(const std::string& name, Index size) const {
        Row<T> r(1, size);
        parameters_.read(name, {size}, std::span<T>(r.data(), static_cast<std::size_t>(size)));
        return r;
    }
    Linear<T> linear(const std::string& name, Index in, Index out, bool bias) const {
        const bool transposed = config_.family == Family::llama;
        return {transposed ? matrix(name + ".weight", out, in) : matrix(name + ".weight", in, out),
                bias ? row(name + ".bias", out) : Row<T>(), transposed};
    }
    Norm<T> norm(const std::string& name) const {
        const bool layer_norm = config_.family == Family::gpt2;
        return {row(name + ".weight", config_.width),
                layer_norm ? row(name + ".bias", config_.width) : Row<T>(), config_.norm_epsilon, layer_norm};
    }

private:
    const Config& config_;
    const Parameters& parameters_;
};

/// Turns pairs (c, c + d/2) of every head's row at position n by the angle n theta^{-2c/d}.
template <Real T>
void rotate(Matrix<T>& x, Index heads, Index width, Index row_width, double theta) {
    const Index half = width / 2;
    for (Index position = 0; position < x.rows(); ++position)
        for (Index c = 0; c < half; ++c) {
            const double angle = static_cast<double>(position) *
                                 std::pow(theta, -2.0 * static_cast<double>(c) / static_cast<double>(width));
            const T cosine = static_cast<T>(std::cos(angle)), sine = static_cast<T>(std::sin(angle));
            for (Index head = 0; head < heads; ++head) {
                T& a = x.data()[position * row_width + head * width + c];
                T& b = x.data()[position * row_width + head * width + c + half];
                const T turned = a * cosine - b * sine;
                b = b * cosine + a * sine;
                a = turned;
            }
        }
}

/// Output of all heads side by side, and their weights if asked for.
template <Real T>
Matrix<T> attention(const HeadGroup<T>& heads, const Mask& mask, const RunOptions<T>& options,
                    std::vector<Matrix<T>>& weights, const Threads& threads) {
    const Index width = heads[0].v().cols();
    Matrix<T> out(heads.queries(), heads.heads() * width);
    if (options.normalizer.name() == "softmax" && !options.weights) {
        const auto scans = attnscope::scan_heads<2>(heads, mask, {.output = true}, threads);
        for (Index h = 0; h < heads.heads(); ++h)
            out.middleCols(h * width, width) = scans[static_cast<std::size_t>(h)].output;
        return out;
    }
    weights.resize(options.weights ? static_cast<std::size_t>(heads.heads()) : 0);
    threads(heads.heads(), [&](Index h) {
        auto found = attnscope::attend(heads[h], options.normalizer, mask, {.weights = options.weights});
        out.middleCols(h * width, width) = found.output;
        if (options.weights) weights[static_cast<std::size_t>(h)] = std::move(found.weights);
    });
    return out;
}

/// q, k and v of one layer in one matrix, a row for each token.
template <Real T>
Matrix<T> fused_heads(const Config& config, const Reader<T>& reader, const std::string& layer,
                      const Matrix<T>& x, const Threads& threads) {
    const Index q = config.heads * config.head_width, k = config.key_heads * config.head_width;
    Matrix<T> fused(x.rows(), q + 2 * k);
    if (config.family == Family::gpt2) {
        reader.linear(layer + "attn.c_attn", config.width, q + 2 * k, true).apply(x, fused, threads);
        return fused;
    }
    const bool bias = config.attention_bias;
    reader.linear(layer + "self_attn.q_proj", config.width, q, bias).apply(x, fused.leftCols(q), threads);
    reader.linear(layer + "self_attn.k_proj", config.width, k, bias).apply(x, fused.middleCols(q, k), threads);
    reader.linear(layer + "self_attn.v_proj", config.width, k, bias).apply(x, fused.rightCols(k), threads);
    // Queries and keys stand side by side: one turn for both.
    rotate(fused, config.heads + config.key_heads, config.head_width, fused.cols(), config.rope_theta);
    return fused;
}

template <Real T>
void add_mlp(const Config& config, const Reader<T>& reader, const std::string& layer, Matrix<T>& x,
             const Threads& threads) {
    Matrix<T> inner(x.rows(), config.inner);
    const auto activate_all = [&](Matrix<T>& m) {
        for_each_block(m.rows(), threads, [&](Index begin, Index rows) {
            activate<T>(config.activation,
                        {m.data() + begin * m.cols(), static_cast<std::size_t>(rows * m.cols())});
        });
    };
    if (config.family == Family::gpt2) {
        reader.linear(layer + "mlp.c_fc", config.width, config.inner, true)
            .apply(reader.norm(layer + "ln_2").apply(x, threads), inner, threads);
        activate_all(inner);
        reader.linear(layer + "mlp.c_proj", config.inner, config.width, true).add_to(x, inner, threads);
        return;
    }
    const Matrix<T> normed = reader.norm(layer + "post_attention_layernorm").apply(x, threads);
    Matrix<T> up(x.rows(), config.inner);
    reader.linear(layer + "mlp.gate_proj", config.width, config.inner, config.mlp_bias)
        .apply(normed, inner, threads);
    reader.linear(layer + "mlp.up_proj", config.width, config.inner, config.mlp_bias)
        .apply(normed, up, threads);
    activate_all(inner);
    inner.array() *= up.array();
    reader.linear(layer + "mlp.down_proj", config.inner, config.width, config.mlp_bias)
        .add_to(x, inner, threads);
}

} // namespace

template <Real T>
RunResult<T> Model::run(std::span<const std::int32_t> ids, const RunOptions<T>& options) const {
    const Config& config = config_;
    const Index n = static_cast<Index>(ids.size());
    if (n < 1 || n > config.context)
        throw std::runtime_error(fmt::format("{}: tokens of a prompt: expected 1 to {}, found {}",
                                             parameters_->origin(), config.context, n));
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= config.vocabulary)
            throw std::runtime_error(fmt::format("{}: token {}: expected an id from 0 to {}, found {}",
                                                 parameters_->origin(), i, config.vocabulary - 1, ids[i]));
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

    const Mask mask = config.sliding_window ? Mask::sliding_window(*config.sliding_window) : Mask::causal();
    const Index d = config.head_width, q = config.heads * d, k = config.key_heads * d;
    for (Index layer = 0; layer < config.layers; ++layer) {
        const std::string name = layer_prefix(config, layer);
        const Matrix<T> normed = reader.norm(name + (gpt2 ? "ln_1" : "input_layernorm")).apply(x, threads);
        const Matrix<T> fused = fused_heads(config, reader, name, normed, threads);
        double scale = config.scale_by_head_width ? 1 / std::sqrt(static_cast<double>(d)) : 1.0;
        if (config.scale_by_layer) scale /= static_cast<double>(layer + 1);
        const HeadGroup<T> heads(HeadArray<T>{fused.data(), config.heads, n, d, d, fused.cols()},
                                 HeadArray<T>{fused.data() + q, config.key_heads, n, d, d, fused.cols()},
                                 HeadArray<T>{fused.data() + q + k, config.key_heads, n, d, d, fused.cols()},
                                 static_cast<T>(scale));
        std::vector<Matrix<T>> weights;
        const Matrix<T> output = attention(heads, mask, options, weights, threads);
        if (options.layer) options.layer({layer, x, heads, mask, weights});
        reader
            .linear(name + (gpt2 ? "attn.c_proj" : "self_attn.o_proj"), q, config.width,
                    gpt2 || config.attention_bias)
            .add_to(x, output, threads);
        add_mlp(config, reader, name, x, threads);
    }

    RunResult<T> result;
    result.hidden = x;
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
        throw std::runtime_error(fmt::format("{}: expected a layer from 0 to {}, got {}", parameters_->origin(),
                                             config_.layers - 1, layer));
    const bool gpt2 = config_.family == Family::gpt2;
    const Linear<T> linear =
        Reader<T>(config_, *parameters_)
            .linear(layer_prefix(config_, layer) + (gpt2 ? "attn.c_proj" : "self_attn.o_proj"),
                    config_.heads * config_.head_width, config_.width, false);
    return linear.transposed ? Matrix<T>(linear.weight.transpose()) : linear.weight;
}

template Matrix<float> Model::output_projection(Index) const;
template Matrix<double> Model::output_projection(Index) const;
template RunResult<float> Model::run(std::span<const std::int32_t>, const RunOptions<float>&) const;
template RunResult<double> Model::run(std::span<const std::int32_t>, const RunOptions<double>&) const;

std::vector<std::int32_t> continue_greedily(const Model& model, std::vector<std::int32_t> ids, Index count,
                                            Index threads) {
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
