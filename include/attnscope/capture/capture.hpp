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
    std::function<std::vector<float>(Index first, Index count)> read_floats; ///< empty: `read`, rounded

    /// [rows, cols], as double or float.
    template <class T = double>
    Matrix<T> head(const HeadPlace& place) const {
        const auto numbers = [this](Index first, Index count) {
            std::vector<T> values;
            if constexpr (std::is_same_v<T, float>) {
                if (read_floats)
                    values = read_floats(first, count);
                else
                    for (const double x : read(first, count)) values.push_back(static_cast<float>(x));
            } else
                values = read(first, count);
            detail::require(std::ssize(values) == count, "HeadSource::head",
                            "read must give as many numbers as are asked for", values.size(), count);
            return values;
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

    std::string name;               ///< file, parts, or "synthetic"
    std::vector<std::string> files; ///< that it is read from, FILE or NAME=FILE
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

    /// What reports and plans ask of a capture first: do its parts fit together?
    /// Throws. `invalid_argument` that names the part that does not.
    void check() const {
        const auto wanted = [](bool good, std::string_view rule) { detail::require(good, "Capture", rule); };
        wanted(batches >= 1 && layers >= 1 && heads >= 1 && queries >= 1 && keys >= 1,
               "there must be batches, layers, heads, queries and keys");
        wanted(!batch || (*batch >= 0 && *batch < batches), "batch must be one of the batches");
        const auto fits = [&](std::string_view part, const std::optional<HeadSource>& source, Index rows,
                              Index cols, bool shared) {
            if (!source || !source->read)
                detail::fail("Capture", fmt::format("there must be {}, with read", part));
            if (source->batches != batches || source->layers != layers || source->heads < 1 ||
                (shared ? heads % source->heads != 0 : source->heads != heads) || source->rows != rows ||
                source->cols != cols)
                detail::fail("Capture",
                             fmt::format("{} must be [{}, {}, {}{}, {}, {}], got [{}, {}, {}, {}, {}]", part,
                                         batches, layers, shared ? "a divisor of " : "", heads, rows, cols,
                                         source->batches, source->layers, source->heads, source->rows,
                                         source->cols));
        };
        if (kind == Kind::queries_and_keys) {
            const Index d = q ? q->cols : 0;
            fits("q", q, queries, d, false);
            wanted(d >= 1 && width == d, "width must be that of q");
            fits("k", k, keys, d, true);
        } else if (kind == Kind::logits)
            fits("logits", logits, queries, keys, false);
        if (kind == Kind::weights || weights) fits("weights", weights, queries, keys, false);
        if (v) fits("v", v, keys, v->cols, true);
        const auto serves = [](Index own, Index all) { return own == 1 || own == all; };
        if (bias)
            wanted(bias->read && serves(bias->batches, batches) && serves(bias->layers, layers) &&
                       serves(bias->heads, heads) && bias->rows == queries && bias->cols == keys,
                   "bias must be [batches or 1, layers or 1, heads or 1, queries, keys]");
        wanted(std::ssize(attention) == layers, "attention must be told of each layer");
        for (const LayerAttention& own : attention) own.check();
        wanted(sinks.empty() || std::ssize(sinks) == layers * heads, "sinks must be [layers, heads]");
        for (const double sink : sinks)
            wanted(sink < std::numeric_limits<double>::infinity(), "sinks must be logits");
        wanted(tokens.empty() || std::ssize(tokens) == batches, "tokens must be told of each batch");
        for (const KeyRange& own : tokens)
            wanted(own.begin >= 0 && own.begin < own.end && own.end <= keys, "tokens must be some of the keys");
    }
};

} // namespace v0_2
} // namespace attnscope
