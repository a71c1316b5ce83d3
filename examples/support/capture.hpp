// Attention heads from a file (safetensors, .npz), from .npy parts or from the generator, handed out one head
// at a time, together with what the file says of how they attend.
#pragma once

#include <attnscope/analysis/stored_weights.hpp>
#include <attnscope/attention/head.hpp>
#include <attnscope/attention/mask.hpp>
#include <attnscope/io/elements.hpp>
#include <attnscope/runtime/any_normalizer.hpp>
#include <support/attention_metadata.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace program {

using attnscope::Index;

/// Which head of a capture.
struct HeadPlace {
    Index batch = 0, layer = 0, head = 0;
};

/// A tensor [batches, layers, heads, rows, cols] whose heads are read when they are asked for.
struct HeadSource {
    Index batches = 1, layers = 1, heads = 1, rows = 0, cols = 0;
    bool heads_inside = false; ///< [..., rows, heads, cols] instead
    attnscope::io::Dtype dtype = attnscope::io::Dtype::f64;
    std::function<std::vector<double>(Index first, Index count)> read; ///< elements in the order of the file
    std::function<std::vector<float>(Index first, Index count)> read_floats;

    /// [rows, cols], as double or float. Several threads may ask; one of them reads at a time.
    template <class T = double>
    attnscope::Matrix<T> head(const HeadPlace& place) const;
};

/// What the command line says about a capture: it goes before what the file says. One value for all layers, or
/// one for each, where the member is a text.
struct CaptureOptions {
    std::optional<Index> batch;         ///< this one only
    bool nhd = false;                   ///< q, k and v are [..., tokens, heads, d]
    bool bfloat16 = false;              ///< NumPy's raw numbers of two bytes ("V2") are bfloat16
    std::optional<double> masked_below; ///< logits and biases <= this are masks
    bool normalise_weights = false;     ///< divide stored weights by their sum, hidden keys left out
    std::optional<bool> causal;
    std::optional<std::string> scale, window; ///< as in the metadata
};

/// The options of every program that reads captures: --batch, --layout, --bfloat16, --scale, --window, --causal
/// and --no-causal; with_rows: also --masked-below and --normalise-weights, for programs that take logits and
/// weights. Call the function that it returns after parsing; it throws `usage_error`.
std::function<CaptureOptions()> add_capture_options(CLI::App& app, bool with_rows = true);

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
    std::vector<LayerAttention> attention; ///< of each layer: the command line, else the file
    std::vector<double> sinks;             ///< [layers, heads] logit of a key without a value; empty: none
    std::vector<attnscope::KeyRange> tokens; ///< of each batch: the keys that are no padding; empty: all are
    std::vector<std::string> token_texts;    ///< bytes of each token of a model's text; empty: not known
    CaptureOptions options;
    std::vector<std::string> assumptions; ///< what was assumed of the file, a line each
    std::vector<std::string> warnings;    ///< what of the file is not obeyed or looks odd, a line each
    /// Of heads that a model computes while they are read: mean of -log p(next token), nats; NaN if its last run did
    /// not come to the end. Else empty.
    std::function<double()> loss;
    /// The same of another run with a normaliser in place of the model's own in every layer; empty where the model's engine
    /// cannot do that.
    std::function<double(const attnscope::AnyNormalizer&)> loss_under;

    /// The batches to look at: the chosen one or all.
    std::vector<Index> chosen_batches() const;
    const LayerAttention& layer(Index layer) const { return attention[static_cast<std::size_t>(layer)]; }
    /// Factor of q.k, 1/sqrt(d) if nothing says more.
    double scale(Index layer) const;
    /// Causality, window and padding of the keys.
    attnscope::Mask mask(const HeadPlace& place) const;
    /// Is the query itself padding? Told where queries are the last of the keys: causal heads, and as many
    /// queries as keys.
    bool is_padding(const HeadPlace& place, Index query) const;
};

/// inputs: nothing (the generator), one safetensors or .npz file, or .npy parts "q=FILE" "k=FILE" "v=FILE"
/// "logits=FILE" "weights=FILE" (also bias=, sinks=, scale=, attention_mask=). Throws `usage_error` for other
/// combinations and for options that the input cannot serve, `io_error` or `std::runtime_error` naming file,
/// tensor and rule for bad content.
Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed,
                     const CaptureOptions& options = {});

/// Realistic heads without a model: q and k give Gaussian logits, a sink on the first key, local decay and
/// planted needles, in proportions that differ from head to head; values are anisotropic. Labelled "synthetic".
Capture synthetic_capture(std::uint64_t seed);

/// What was found in the logits, biases and weights of some heads.
struct RowTally {
    Index masks = 0; ///< finite entries taken for masks
    double least_mask = std::numeric_limits<double>::infinity(), most_mask = -least_mask;
    Index unmasked_rows = 0;              ///< no key above the threshold: left as they are
    Index rows = 0, wide_rows = 0;        ///< with two visible keys; more than `wide_nats` between them
    Index heads = 0, masked_causally = 0; ///< heads whose own masks are exactly causal

    std::vector<double> sums;      ///< of stored weights, of rows without NaN
    Index not_one = 0;             ///< rows whose sum misses 1 by more than rounding
    Index rounded = 0;             ///< rows whose sum misses 1 by rounding
    std::string_view rounded_type; ///< of these rows
    Index negative = 0, negative_rows = 0;
    Index hidden_rows = 0; ///< rows with weight on keys that the mask hides
    double most_hidden = 0;

    static constexpr double wide_nats = 1000;

    void merge(const RowTally& other);
    double median_sum() const; ///< NaN if there is none
    bool causal_from_masks() const { return heads > 0 && masked_causally == heads; }
    /// More than half of the rows look as if they held masks that were not recognised.
    bool looks_masked() const { return 2 * wide_rows > rows; }
};

/// A line each for what people must know of a tally; warnings of a tally.
std::vector<std::string> findings_of(const Capture& capture, const RowTally& tally);
std::vector<std::string> warnings_of(const Capture& capture, const RowTally& tally);

/// One head, ready to be analysed.
struct HeadRows {
    attnscope::Matrix<double> logits; ///< [queries, keys] before the temperature; -inf where masked
    std::optional<attnscope::Matrix<double>> values;      ///< [keys, d_v]
    std::optional<attnscope::Matrix<double>> weights;     ///< as stored
    std::optional<attnscope::StoredScalar> stored_scalar; ///< of weights, if the capture has nothing else
    std::vector<double> delta; ///< |q_i| max_j |k_j| |scale| over visible keys; empty without q, k
    attnscope::Mask mask;      ///< none where stored weights lie on keys that it hides
    RowTally tally;
};

/// Reads a head and applies scale, bias and masks. Stored weights are taken whole, unless they are to be
/// normalised: then keys that the mask hides are left out.
HeadRows load_head(const Capture& capture, const HeadPlace& place);

/// What the logits of a head are made of.
template <class T>
struct HeadVectors {
    attnscope::Matrix<T> q, k;
    std::optional<attnscope::Matrix<T>> v;
    T scale = 1;
};

/// Reads a head that has q and k, as double or float.
template <class T = double>
HeadVectors<T> load_vectors(const Capture& capture, const HeadPlace& place);

} // namespace program
