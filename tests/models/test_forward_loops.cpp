// The forward pass against plain loops in long double, with every option of config.json that the trained models
// of the data folder do not use; and files in half precision.
#include <attnscope/io/safetensors.hpp>
#include <models/forward.hpp>
#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <nlohmann/json.hpp>

#include <bit>
#include <cmath>

using attnscope::Index;
using attnscope_test::TemporaryFolder;
using models::Model;
using Json = nlohmann::json;
using Real = long double;
using Vector = std::vector<Real>;

namespace {

/// Named tensors of multiples of 1/64, which every format holds exactly.
class Tensors {
public:
    explicit Tensors(std::uint64_t seed) : random_(seed) {}
    void add(const std::string& name, std::vector<Index> shape) {
        Index size = 1;
        for (const Index n : shape) size *= n;
        std::vector<float> values;
        for (Index i = 0; i < size; ++i)
            values.push_back((static_cast<float>(random_.below(65)) - 32) / 64 +
                             (name.ends_with("norm.weight") ? 1.F : 0.F));
        all_[name] = {std::move(shape), std::move(values)};
    }
    /// Element (row, c) of a matrix or, with row 0, of a vector; 0 if there is no such tensor.
    Real at(const std::string& name, Index row, Index c) const {
        const auto found = all_.find(name);
        if (found == all_.end()) return 0;
        return static_cast<Real>(
            found->second.second[static_cast<std::size_t>(row * found->second.first.back() + c)]);
    }
    void write(const std::string& path) const {
        attnscope::io::SafetensorsWriter writer;
        for (const auto& [name, tensor] : all_)
            writer.add(name, std::span<const float>(tensor.second), tensor.first);
        writer.write(path);
    }
    /// In 16 bits: the upper half of a float, or IEEE half precision.
    void write_half(const TemporaryFolder& folder, const std::string& file, bool brain) const {
        Json header;
        std::string data;
        for (const auto& [name, tensor] : all_) {
            const std::size_t begin = data.size();
            for (const float x : tensor.second) {
                const auto bits = std::bit_cast<std::uint32_t>(x);
                auto half = static_cast<std::uint16_t>(bits >> 16);
                if (!brain) { // normal numbers and zero only
                    const int exponent = static_cast<int>(bits >> 23 & 255) - 127 + 15;
                    half = static_cast<std::uint16_t>(
                        (bits >> 16 & 0x8000) |
                        (x == 0 ? 0U : static_cast<unsigned>(exponent) << 10 | (bits >> 13 & 1023)));
                }
                data += static_cast<char>(half & 255);
                data += static_cast<char>(half >> 8);
            }
            header[name] = {{"dtype", brain ? "BF16" : "F16"},
                            {"shape", tensor.first},
                            {"data_offsets", {begin, data.size()}}};
        }
        std::string text = header.dump();
        text.resize((text.size() + 7) / 8 * 8, ' ');
        std::string size(8, '\0');
        for (std::size_t i = 0; i < 8; ++i) size[i] = static_cast<char>(text.size() >> 8 * i & 255);
        folder.write(file, size + text + data);
    }

private:
    attnscope::SplitMix64 random_;
    std::map<std::string, std::pair<std::vector<Index>, std::vector<float>>> all_;
};

/// Last logits by loops over one token at a time.
struct Loops {
    const Tensors& t;
    bool gpt2;
    Index layers, heads, key_heads, width, head, inner, vocabulary;
    Real epsilon, theta;
    bool tied, scale_by_layer;
    std::optional<Index> window;
    Real stretch = 1;         ///< positions are divided by it
    std::vector<bool> full{}; ///< layers without the window

    Vector linear(const std::string& name, const Vector& x, Index out) const {
        Vector y(static_cast<std::size_t>(out));
        for (Index o = 0; o < out; ++o) {
            Real sum = t.at(name + ".bias", 0, o);
            for (std::size_t i = 0; i < x.size(); ++i)
                sum += x[i] * (gpt2 ? t.at(name + ".weight", static_cast<Index>(i), o)
                                    : t.at(name + ".weight", o, static_cast<Index>(i)));
            y[static_cast<std::size_t>(o)] = sum;
        }
        return y;
    }
    Vector norm(const std::string& name, const Vector& x) const {
        Real mean = 0, square = 0;
        for (const Real v : x) mean += v / static_cast<Real>(x.size());
        if (!gpt2) mean = 0;
        for (const Real v : x) square += (v - mean) * (v - mean) / static_cast<Real>(x.size());
        Vector y;
        for (std::size_t c = 0; c < x.size(); ++c)
            y.push_back((x[c] - mean) / std::sqrt(square + epsilon) *
                            t.at(name + ".weight", 0, static_cast<Index>(c)) +
                        t.at(name + ".bias", 0, static_cast<Index>(c)));
        return y;
    }
    void turn(Vector& x, Index count, Index position) const {
        for (Index h = 0; h < count; ++h)
            for (Index c = 0; c < head / 2; ++c) {
                const Real angle = static_cast<Real>(position) / stretch /
                                   std::pow(theta, 2 * static_cast<Real>(c) / static_cast<Real>(head));
                Real& a = x[static_cast<std::size_t>(h * head + c)];
                Real& b = x[static_cast<std::size_t>(h * head + c + head / 2)];
                const Real first = a * std::cos(angle) - b * std::sin(angle);
                b = a * std::sin(angle) + b * std::cos(angle);
                a = first;
            }
    }
    Vector run(const std::vector<std::int32_t>& ids) const {
        const std::string embedding = gpt2 ? "wte.weight" : "embed_tokens.weight";
        std::vector<Vector> x;
        for (std::size_t n = 0; n < ids.size(); ++n) {
            x.emplace_back();
            for (Index c = 0; c < width; ++c)
                x[n].push_back(t.at(embedding, ids[n], c) +
                               (gpt2 ? t.at("wpe.weight", static_cast<Index>(n), c) : 0));
        }
        for (Index layer = 0; layer < layers; ++layer) {
            const std::string at = (gpt2 ? "h." : "layers.") + std::to_string(layer) + ".";
            std::vector<Vector> q, k, v;
            for (std::size_t n = 0; n < x.size(); ++n) {
                const Vector a = norm(at + (gpt2 ? "ln_1" : "input_layernorm"), x[n]);
                if (gpt2) {
                    const Vector all = linear(at + "attn.c_attn", a, 3 * width);
                    q.emplace_back(all.begin(), all.begin() + width);
                    k.emplace_back(all.begin() + width, all.begin() + 2 * width);
                    v.emplace_back(all.begin() + 2 * width, all.end());
                } else {
                    q.push_back(linear(at + "self_attn.q_proj", a, heads * head));
                    k.push_back(linear(at + "self_attn.k_proj", a, key_heads * head));
                    v.push_back(linear(at + "self_attn.v_proj", a, key_heads * head));
                    turn(q[n], heads, static_cast<Index>(n));
                    turn(k[n], key_heads, static_cast<Index>(n));
                }
            }
            for (std::size_t n = 0; n < x.size(); ++n) {
                Vector out(static_cast<std::size_t>(heads * head));
                for (Index h = 0; h < heads; ++h) {
                    const Index shared = h * key_heads / heads;
                    Real total = 0;
                    Vector sum(static_cast<std::size_t>(head));
                    for (std::size_t m = 0; m <= n; ++m) {
                        const bool windowed =
                            window && (full.empty() || !full[static_cast<std::size_t>(layer)]);
                        if (windowed && static_cast<Index>(n - m) >= *window) continue;
                        Real z = 0;
                        for (Index c = 0; c < head; ++c)
                            z += q[n][static_cast<std::size_t>(h * head + c)] *
                                 k[m][static_cast<std::size_t>(shared * head + c)];
                        const Real e = std::exp(z / std::sqrt(static_cast<Real>(head)) /
                                                (scale_by_layer ? static_cast<Real>(layer + 1) : 1));
                        total += e;
                        for (Index c = 0; c < head; ++c)
                            sum[static_cast<std::size_t>(c)] +=
                                e * v[m][static_cast<std::size_t>(shared * head + c)];
                    }
                    for (Index c = 0; c < head; ++c)
                        out[static_cast<std::size_t>(h * head + c)] = sum[static_cast<std::size_t>(c)] / total;
                }
                const Vector back = linear(at + (gpt2 ? "attn.c_proj" : "self_attn.o_proj"), out, width);
                for (std::size_t c = 0; c < back.size(); ++c) x[n][c] += back[c];
                Vector deep;
                if (gpt2) {
                    deep = linear(at + "mlp.c_fc", norm(at + "ln_2", x[n]), inner);
                    for (Real& u : deep)
                        u = u / 2 *
                            (1 +
                             std::tanh(std::sqrt(2 / std::acos(Real(-1))) * (u + Real(0.044715L) * u * u * u)));
                    deep = linear(at + "mlp.c_proj", deep, width);
                } else {
                    const Vector m = norm(at + "post_attention_layernorm", x[n]);
                    deep = linear(at + "mlp.gate_proj", m, inner);
                    const Vector up = linear(at + "mlp.up_proj", m, inner);
                    for (std::size_t c = 0; c < deep.size(); ++c) deep[c] *= up[c] / (1 + std::exp(-deep[c]));
                    deep = linear(at + "mlp.down_proj", deep, width);
                }
                for (std::size_t c = 0; c < deep.size(); ++c) x[n][c] += deep[c];
            }
        }
        const Vector last = norm(gpt2 ? "ln_f" : "norm", x.back());
        Vector logits;
        for (Index o = 0; o < vocabulary; ++o) {
            Real sum = t.at("lm_head.bias", 0, o);
            for (Index c = 0; c < width; ++c)
                sum += last[static_cast<std::size_t>(c)] * t.at(tied ? embedding : "lm_head.weight", o, c);
            logits.push_back(sum);
        }
        return logits;
    }
};

const std::vector<std::int32_t> prompt = {3, 0, 17, 8, 8, 29, 4, 11, 2, 30, 1};

/// The double pass agrees to `tolerance`, the float pass to 1e-4, and 16-bit files give the float pass's bits.
void meet(const Loops& loops, const Json& config) {
    const TemporaryFolder folder;
    folder.write("config.json", config.dump());
    loops.t.write(folder.path("model.safetensors"));
    const Vector exact = loops.run(prompt);
    const Model model = Model::load(folder.path());
    const auto wide = model.run<double>(prompt).logits_last;
    const auto narrow = model.run<float>(prompt).logits_last;
    REQUIRE(static_cast<std::size_t>(wide.size()) == exact.size());
    Real largest = 0, size = 0, coarse = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
        const Index at = static_cast<Index>(i);
        largest = std::max(largest, std::abs(static_cast<Real>(wide[at]) - exact[i]));
        coarse = std::max(coarse, std::abs(static_cast<Real>(narrow[at]) - exact[i]));
        size = std::max(size, std::abs(exact[i]));
    }
    CHECK(size > 0.1);
    CHECK(largest <= 1e-12 * size); // a few thousand roundings of 1e-16
    CHECK(coarse <= 1e-4);
    for (const bool brain : {false, true}) {
        loops.t.write_half(folder, "model.safetensors", brain);
        CHECK(Model::load(folder.path()).run<float>(prompt).logits_last.isApprox(narrow, 0.F));
    }
}

} // namespace

TEST_CASE("GPT-2 with tied head and logits scaled by layer, by loops", "[models][forward]") {
    Tensors t(7);
    const Index width = 12, heads = 3, inner = 20, vocabulary = 31;
    t.add("wte.weight", {vocabulary, width});
    t.add("wpe.weight", {16, width});
    for (const std::string layer : {"h.0.", "h.1.", "h.2."}) {
        for (const std::string name : {"ln_1", "ln_2"}) {
            t.add(layer + name + ".weight", {width});
            t.add(layer + name + ".bias", {width});
        }
        t.add(layer + "attn.c_attn.weight", {width, 3 * width});
        t.add(layer + "attn.c_attn.bias", {3 * width});
        t.add(layer + "attn.c_proj.weight", {width, width});
        t.add(layer + "attn.c_proj.bias", {width});
        t.add(layer + "mlp.c_fc.weight", {width, inner});
        t.add(layer + "mlp.c_fc.bias", {inner});
        t.add(layer + "mlp.c_proj.weight", {inner, width});
        t.add(layer + "mlp.c_proj.bias", {width});
    }
    t.add("ln_f.weight", {width});
    t.add("ln_f.bias", {width});
    const Loops loops{t,     true,       3,     heads, heads, width, width / heads,
                      inner, vocabulary, 1e-5L, 0,     true,  true,  {}};
    meet(loops, {{"model_type", "gpt2"},
                 {"n_embd", width},
                 {"n_head", heads},
                 {"n_layer", 3},
                 {"n_inner", inner},
                 {"n_positions", 16},
                 {"vocab_size", vocabulary},
                 {"layer_norm_epsilon", 1e-5},
                 {"scale_attn_by_inverse_layer_idx", true}});
}

TEST_CASE("Mistral with grouped queries, sliding window, biases and a head of its own, by loops",
          "[models][forward]") {
    Tensors t(8);
    const Index width = 10, heads = 4, key_heads = 2, head = 6, inner = 14, vocabulary = 31;
    t.add("embed_tokens.weight", {vocabulary, width});
    t.add("lm_head.weight", {vocabulary, width});
    for (const std::string layer : {"layers.0.", "layers.1."}) {
        t.add(layer + "input_layernorm.weight", {width});
        t.add(layer + "post_attention_layernorm.weight", {width});
        for (const auto& [name, out, in] :
             std::vector<std::tuple<std::string, Index, Index>>{{"self_attn.q_proj", heads * head, width},
                                                                {"self_attn.k_proj", key_heads * head, width},
                                                                {"self_attn.v_proj", key_heads * head, width},
                                                                {"self_attn.o_proj", width, heads * head},
                                                                {"mlp.gate_proj", inner, width},
                                                                {"mlp.up_proj", inner, width},
                                                                {"mlp.down_proj", width, inner}}) {
            t.add(layer + name + ".weight", {out, in});
            t.add(layer + name + ".bias", {out});
        }
    }
    t.add("norm.weight", {width});
    const Loops loops{t,     false,      2,     heads, key_heads, width, head,
                      inner, vocabulary, 1e-6L, 500,   false,     false, Index(4)};
    Json config = {{"model_type", "mistral"},
                   {"hidden_size", width},
                   {"num_attention_heads", heads},
                   {"num_key_value_heads", key_heads},
                   {"head_dim", head},
                   {"num_hidden_layers", 2},
                   {"intermediate_size", inner},
                   {"max_position_embeddings", 16},
                   {"vocab_size", vocabulary},
                   {"rms_norm_eps", 1e-6},
                   {"rope_theta", 500.0},
                   {"sliding_window", 4},
                   {"attention_bias", true},
                   {"mlp_bias", true}};
    meet(loops, config);

    // As transformers 5 writes it, with scaled positions, and a window in the first layer only.
    config.erase("rope_theta");
    config["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 500.0}, {"factor", 3}};
    config["layer_types"] = {"sliding_attention", "full_attention"};
    Loops newer = loops;
    newer.stretch = 3;
    newer.full = {false, true};
    meet(newer, config);
}
