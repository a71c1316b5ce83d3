// Attention heads as a file, a model or a generator gives them, one head at a time, together with what is known of how
// they attend. `open_capture` reads one from files; whoever runs a model fills one. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/capture/layer_attention.hpp>
#include <attnscope/io/elements.hpp>

#include <functional>
#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// Which head of a capture.
struct HeadPlace {
    Index batch = 0, layer = 0, head = 0;
};

/// A tensor [batches, layers, heads, rows, cols] whose heads are read when they are asked for.
struct HeadSource {
    Index batches = 1, layers = 1, heads = 1, rows = 0, cols = 0;
    bool heads_inside = false; ///< [..., rows, heads, cols] instead
    io::Dtype dtype = io::Dtype::f64;
    /// Elements in the order of the file. Several threads may ask at once.
    std::function<std::vector<double>(Index first, Index count)> read;
    std::function<std::vector<float>(Index first, Index count)> read_floats;

    /// [rows, cols], as double or float.
    template <class T = double>
    Matrix<T> head(const HeadPlace& place) const {
        const auto numbers = [this](Index first, Index count) {
            if constexpr (std::is_same_v<T, float>)
                return read_floats(first, count);
            else
                return read(first, count);
        };
        const Index layer = place.batch * layers + place.layer, size = rows * cols;
        if (!heads_inside) {
            const std::vector<T> values = numbers((layer * heads + place.head) * size, size);
            return Eigen::Map<const Matrix<T>>(values.data(), rows, cols);
        }
        const std::vector<T> values = numbers(layer * heads * size, heads * size);
        return Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>(values.data() + place.head * cols, rows,
                                                                    cols, Eigen::OuterStride<>(heads * cols));
    }
};

/// What the caller says about a capture: it goes before what the file says. One value for all layers, or one for each,
/// where the member is a text.
struct CaptureOptions {
    std::optional<Index> batch = {};         ///< this one only
    bool nhd = false;                        ///< q, k and v are [..., tokens, heads, d]
    bool bfloat16 = false;                   ///< NumPy's raw numbers of two bytes ("V2") are bfloat16
    std::optional<double> masked_below = {}; ///< logits and biases <= this are masks
    bool normalise_weights = false;          ///< divide stored weights by their sum, hidden keys left out
    std::optional<bool> causal = {};
    std::optional<std::string> scale = {}, window = {}; ///< as in the metadata
};

/// What a file of heads holds. Precedence: q and k, then logits, then weights.
struct Capture {
    enum class Kind { queries_and_keys, logits, weights };

    std::string name; ///< file, parts, or "synthetic"
    bool synthetic = false;
    Kind kind = Kind::queries_and_keys;
    Index batches = 1, layers = 0, heads = 0, queries = 0, keys = 0;
    std::optional<Index> batch; ///< the only one that was asked for
    std::optional<Index> width; ///< of a query, else of a value
    std::optional<HeadSource> q, k, v, logits, weights;
    std::optional<HeadSource> bias;        ///< added to scale q.k; heads, layers and batches may be 1: for all
    std::vector<LayerAttention> attention; ///< of each layer: the options, else the file
    std::vector<double> sinks;             ///< [layers, heads] logit of a key without a value; empty: none
    std::vector<KeyRange> tokens;          ///< of each batch: the keys that are no padding; empty: all are
    std::vector<std::string> token_texts;  ///< bytes of each token of a model's text; empty: not known
    CaptureOptions options;
    std::vector<std::string> assumptions; ///< what was assumed of the file, a line each
    std::vector<std::string> warnings;    ///< what of the file is not obeyed or looks odd, a line each
    /// Of heads that a model computes while they are read: mean of -log p(next token), nats; NaN if its last run did
    /// not come to the end. Else empty.
    std::function<double()> loss;
    /// The same of another run with a normaliser in place of the model's own in every layer; empty where the model's engine
    /// cannot do that.
    std::function<double(const AnyNormalizer&)> loss_under;

    /// The batches to look at: the chosen one or all.
    std::vector<Index> chosen_batches() const {
        if (batch) return {*batch};
        std::vector<Index> all(static_cast<std::size_t>(batches));
        std::iota(all.begin(), all.end(), Index(0));
        return all;
    }
    const LayerAttention& layer(Index layer) const { return attention[static_cast<std::size_t>(layer)]; }
    /// Factor of q.k, 1/sqrt(d) if nothing says more.
    double scale(Index number) const {
        return layer(number).scale.value_or(HeadView<double>::default_scale(width.value_or(0)));
    }
    /// Causality, window and padding of the keys.
    Mask mask(const HeadPlace& place) const {
        const Mask mask = layer(place.layer).mask(queries, keys);
        if (tokens.empty()) return mask;
        const KeyRange& own = tokens[static_cast<std::size_t>(place.batch)];
        return mask.with_start(own.begin).with_length(own.end);
    }
    /// Is the query itself padding? Told where queries are the last of the keys: causal heads, and as many
    /// queries as keys.
    bool is_padding(const HeadPlace& place, Index query) const {
        if (tokens.empty() || (queries != keys && !layer(place.layer).causal.value_or(false))) return false;
        const KeyRange& own = tokens[static_cast<std::size_t>(place.batch)];
        const Index position = query + keys - queries;
        return position < own.begin || position >= own.end;
    }
    /// Are q and k there, and nothing that is added to their products?
    bool has_keys_alone() const { return kind == Kind::queries_and_keys && !bias && tokens.empty(); }
};

} // namespace v0_2
} // namespace attnscope
