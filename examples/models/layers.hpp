// What a layer of a GPT-2 or Llama model computes, forward over stacked sequences, and backward for GPT-2.
#pragma once

#include <models/parameters.hpp>

#include <attnscope/attention/attend.hpp>
#include <attnscope/packets.hpp>
#include <attnscope/streaming/threads.hpp>

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

namespace models {

using attnscope::Matrix;
using attnscope::Real;
using attnscope::Row;
using attnscope::Threads;
namespace packets = attnscope::packets;

/// Rows of a product that are one task; results do not depend on who takes which.
inline constexpr Index block_rows = 128;

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

    /// From d loss/d out: d loss/d x, and that of weight [in, out] and bias into `gradient`.
    Matrix<T> backward(const Matrix<T>& x, const Matrix<T>& d_out, Linear& gradient,
                       const Threads& threads) const {
        Matrix<T> d_x(x.rows(), x.cols());
        for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
            d_x.middleRows(begin, rows).noalias() = d_out.middleRows(begin, rows) * weight.transpose();
        });
        add_product(x, d_out, gradient.weight, threads);
        if (bias.size() > 0) gradient.bias.matrix() += d_out.colwise().sum();
        return d_x;
    }

    /// sum += x^T y, some rows of the sum a task.
    static void add_product(const Matrix<T>& x, const Matrix<T>& y, Matrix<T>& sum, const Threads& threads) {
        constexpr Index part = 64;
        threads((x.cols() + part - 1) / part, [&](Index task) {
            const Index begin = task * part, cols = std::min(part, x.cols() - begin);
            sum.middleRows(begin, cols).noalias() += x.middleCols(begin, cols).transpose() * y;
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

    /// Layer norm only. d_x += d loss/d x from d loss/d out; gain and bias into `gradient`.
    void backward(const Matrix<T>& x, const Matrix<T>& d_out, Matrix<T>& d_x, Norm& gradient,
                  const Threads& threads) const {
        const Index blocks = (x.rows() + block_rows - 1) / block_rows;
        Matrix<T> d_gain = Matrix<T>::Zero(blocks, x.cols()), d_bias = d_gain;
        for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
            Row<T> normal(1, x.cols()), d_normal(1, x.cols());
            for (Index i = begin; i < begin + rows; ++i) {
                const auto [mean, scale] = moments(x.row(i));
                normal = (x.row(i).array() - static_cast<T>(mean)) * static_cast<T>(scale);
                d_normal = d_out.row(i).array() * gain;
                d_gain.row(begin / block_rows).array() += d_out.row(i).array() * normal;
                d_bias.row(begin / block_rows) += d_out.row(i);
                const T common = d_normal.mean(), along = (d_normal * normal).mean();
                d_x.row(i).array() += static_cast<T>(scale) * (d_normal - common - normal * along);
            }
        });
        gradient.gain.matrix() += d_gain.colwise().sum();
        gradient.bias.matrix() += d_bias.colwise().sum();
    }

private:
    /// Mean (0 unless centred) and 1/sqrt(variance + epsilon) of a row.
    template <class In>
    std::pair<double, double> moments(const In& x) const {
        const double n = static_cast<double>(x.size());
        double mean = 0, square = 0;
        for (Index c = 0; c < x.size(); ++c) mean += static_cast<double>(x[c]);
        mean = centred ? mean / n : 0;
        for (Index c = 0; c < x.size(); ++c) square += std::pow(static_cast<double>(x[c]) - mean, 2);
        return {mean, 1 / std::sqrt(square / n + epsilon)};
    }
    template <class In, class Out>
    void apply_to_row(const In& x, Out&& out) const {
        const auto [mean, scale] = moments(x);
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
        using P = packets::Packet<T>;
        const P half = T(0.5), one = T(1), cubic = T(0.044715), root = static_cast<T>(std::sqrt(2 / M_PI));
        packets::for_each_lane<T>(std::ssize(x), [&](const auto& lane) {
            const auto v = lane(x.data());
            const auto inner = root * madd(cubic * (v * v), v, v);
            lane.store(x.data(), half * v * (one + tanh(inner)));
        });
        return;
    }
    }
}

/// d_x = d_out times the derivative of gelu_tanh at x, in place of d_out.
template <Real T>
void gelu_tanh_backward(std::span<const T> x, std::span<T> d) {
    using P = packets::Packet<T>;
    const P half = T(0.5), one = T(1), cubic = T(0.044715), three = T(3 * 0.044715),
            root = static_cast<T>(std::sqrt(2 / M_PI));
    packets::for_each_lane<T>(std::ssize(x), [&](const auto& lane) {
        const auto v = lane(x.data()), square = v * v;
        const auto t = tanh(root * madd(cubic * square, v, v));
        const auto slope = root * madd(three, square, one); // of the argument of tanh
        const auto rest = (one - t * t) * (slope * v);
        lane.store(d.data(), lane(d.data()) * (half * (one + t + rest)));
    });
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

/// The numbers of a layer.
template <Real T>
struct Layer {
    Norm<T> attention_norm, mlp_norm;
    std::vector<Linear<T>> heads; ///< q, k and v in one product (GPT-2) or one each (Llama)
    Linear<T> output;             ///< W_O
    std::vector<Linear<T>> inner; ///< up (GPT-2), or gate and up (Llama)
    Linear<T> down;
};

template <Real T>
Layer<T> read_layer(const Config& config, const Parameters& parameters, Index layer) {
    const Reader<T> reader(config, parameters);
    const std::string name = layer_prefix(config, layer);
    const Index q = config.heads * config.head_width, k = config.key_heads * config.head_width;
    if (config.family == Family::gpt2)
        return {reader.norm(name + "ln_1"),
                reader.norm(name + "ln_2"),
                {reader.linear(name + "attn.c_attn", config.width, q + 2 * k, true)},
                reader.linear(name + "attn.c_proj", q, config.width, true),
                {reader.linear(name + "mlp.c_fc", config.width, config.inner, true)},
                reader.linear(name + "mlp.c_proj", config.inner, config.width, true)};
    const bool bias = config.attention_bias;
    return {reader.norm(name + "input_layernorm"),
            reader.norm(name + "post_attention_layernorm"),
            {reader.linear(name + "self_attn.q_proj", config.width, q, bias),
             reader.linear(name + "self_attn.k_proj", config.width, k, bias),
             reader.linear(name + "self_attn.v_proj", config.width, k, bias)},
            reader.linear(name + "self_attn.o_proj", q, config.width, bias),
            {reader.linear(name + "mlp.gate_proj", config.width, config.inner, config.mlp_bias),
             reader.linear(name + "mlp.up_proj", config.width, config.inner, config.mlp_bias)},
            reader.linear(name + "mlp.down_proj", config.inner, config.width, config.mlp_bias)};
}

/// Turns pairs (c, c + d/2) of every head's row at position n by the angle n f_c, and stretches them as `rotary` asks.
template <Real T>
void rotate(Matrix<T>& x, Index heads, Index width, Index row_width, const Rotary& rotary) {
    const Index half = width / 2;
    const std::vector<double> frequencies = rotary.frequencies(width);
    for (Index position = 0; position < x.rows(); ++position)
        for (Index c = 0; c < half; ++c) {
            const double angle = static_cast<double>(position) * frequencies[static_cast<std::size_t>(c)];
            const T cosine = static_cast<T>(rotary.length * std::cos(angle)),
                    sine = static_cast<T>(rotary.length * std::sin(angle));
            for (Index head = 0; head < heads; ++head) {
                T& a = x.data()[position * row_width + head * width + c];
                T& b = x.data()[position * row_width + head * width + c + half];
                const T turned = a * cosine - b * sine;
                b = b * cosine + a * sine;
                a = turned;
            }
        }
}

/// What the backward pass of a layer must remember.
template <Real T>
struct LayerTape {
    Matrix<T> entering, normed, fused, attended; ///< residual stream; its norm; q, k, v; output of the heads
    Matrix<T> between, mlp_normed, inner, active;
};

/// q, k and v of some consecutive rows of the fused matrix, which are one sequence.
template <Real T>
attnscope::HeadGroup<T> heads_of(const Config& config, const Matrix<T>& fused, Index first, Index rows,
                                 double scale) {
    using attnscope::HeadArray;
    const Index d = config.head_width, q = config.heads * d, k = config.key_heads * d, stride = fused.cols();
    const T* const at = fused.data() + first * stride;
    return {HeadArray<T>{at, config.heads, rows, d, d, stride},
            HeadArray<T>{at + q, config.key_heads, rows, d, d, stride},
            HeadArray<T>{at + q + k, config.key_heads, rows, d, d, stride}, static_cast<T>(scale)};
}

/// x, the residual stream with a row for each token, through a layer. attend(fused) gives the outputs of all
/// heads side by side. With a tape it remembers what `backward` needs (GPT-2).
template <Real T, class Attend>
void forward(const Config& config, const Layer<T>& layer, Matrix<T>& x, const Attend& attend,
             const Threads& threads, LayerTape<T>* tape = nullptr) {
    const Matrix<T> normed = layer.attention_norm.apply(x, threads);
    Index columns = 0;
    for (const Linear<T>& part : layer.heads) columns += part.outputs();
    Matrix<T> fused(x.rows(), columns);
    columns = 0;
    for (const Linear<T>& part : layer.heads) {
        part.apply(normed, fused.middleCols(columns, part.outputs()), threads);
        columns += part.outputs();
    }
    if (config.family == Family::llama) // queries and keys stand side by side: one turn for both
        rotate(fused, config.heads + config.key_heads, config.head_width, fused.cols(), config.rotary);
    const Matrix<T> attended = attend(fused);
    if (tape) tape->entering = x;
    layer.output.add_to(x, attended, threads);

    const Matrix<T> mlp_normed = layer.mlp_norm.apply(x, threads);
    Matrix<T> inner(x.rows(), config.inner);
    layer.inner.front().apply(mlp_normed, inner, threads);
    if (tape) {
        tape->between = x;
        tape->inner = inner;
    }
    for_each_block(x.rows(), threads, [&](Index begin, Index rows) {
        activate<T>(config.activation,
                    {inner.data() + begin * inner.cols(), static_cast<std::size_t>(rows * inner.cols())});
    });
    if (config.family == Family::llama) {
        Matrix<T> up(x.rows(), config.inner);
        layer.inner.back().apply(mlp_normed, up, threads);
        inner.array() *= up.array();
    }
    layer.down.add_to(x, inner, threads);
    if (tape) {
        tape->normed = normed;
        tape->fused = fused;
        tape->attended = attended;
        tape->mlp_normed = mlp_normed;
        tape->active = inner;
    }
}

/// d: d loss/d x behind the layer on entry, before it on return. attend_back(fused, d_attended) gives d loss/d
/// fused. The gradient of every parameter is added to `gradient`. GPT-2 with gelu_tanh only.
template <Real T, class AttendBack>
void backward(const Layer<T>& layer, const LayerTape<T>& tape, Matrix<T>& d, const AttendBack& attend_back,
              Layer<T>& gradient, const Threads& threads) {
    Matrix<T> d_inner = layer.down.backward(tape.active, d, gradient.down, threads);
    for_each_block(d.rows(), threads, [&](Index begin, Index rows) {
        const auto size = static_cast<std::size_t>(rows * d_inner.cols());
        gelu_tanh_backward<T>({tape.inner.data() + begin * d_inner.cols(), size},
                              {d_inner.data() + begin * d_inner.cols(), size});
    });
    const Matrix<T> d_mlp =
        layer.inner.front().backward(tape.mlp_normed, d_inner, gradient.inner.front(), threads);
    layer.mlp_norm.backward(tape.between, d_mlp, d, gradient.mlp_norm, threads);

    const Matrix<T> d_attended = layer.output.backward(tape.attended, d, gradient.output, threads);
    const Matrix<T> d_fused = attend_back(tape.fused, d_attended);
    const Matrix<T> d_normed =
        layer.heads.front().backward(tape.normed, d_fused, gradient.heads.front(), threads);
    layer.attention_norm.backward(tape.entering, d_normed, d, gradient.attention_norm, threads);
}

} // namespace models
