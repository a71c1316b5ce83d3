// Attention heads from a file, from .npy parts or from the generator, handed out one head at a time in double.
#pragma once

#include <attnscope/attnscope.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace program {

using attnscope::Index;

/// A tensor [layers, heads, rows, cols] whose heads are read when they are asked for.
struct HeadSource {
    Index layers = 0, heads = 0, rows = 0, cols = 0;
    std::function<std::vector<double>(Index first, Index count)> read; ///< elements, row-major

    attnscope::Matrix<double> head(Index layer, Index head) const;
};

/// What a file of heads holds. Precedence: q and k, then logits, then weights.
struct Capture {
    enum class Kind { queries_and_keys, logits, weights };

    std::string name; ///< file, parts, or "synthetic"
    bool synthetic = false;
    Kind kind = Kind::queries_and_keys;
    Index layers = 0, heads = 0, queries = 0, keys = 0;
    std::optional<Index> width; ///< of a query, else of a value
    std::optional<bool> causal; ///< what the metadata say
    std::optional<HeadSource> q, k, v, logits, weights;
};

/// inputs: nothing (the generator), one safetensors file, or .npy parts "q=FILE" "k=FILE" "v=FILE"
/// "logits=FILE" "weights=FILE". Throws `usage_error` for other combinations, `io_error` or
/// `std::runtime_error` naming file, tensor and rule for bad content.
Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed);

/// Realistic heads without a model: q and k give Gaussian logits, a sink on the first key, local decay and
/// planted needles, in proportions that differ from head to head; values are anisotropic. Labelled "synthetic".
Capture synthetic_capture(std::uint64_t seed);

/// One head, ready to be analysed.
struct HeadRows {
    attnscope::Matrix<double> logits; ///< [queries, keys] before the temperature; -inf where masked
    std::optional<attnscope::Matrix<double>> values;  ///< [keys, d_v]
    std::optional<attnscope::Matrix<double>> weights; ///< as stored beside q, k
    std::vector<double> delta; ///< |q_i| max_j |k_j| |scale| over visible keys; empty without q, k
};

/// Reads a head and applies the mask and, for q and k, the scale.
HeadRows load_head(const Capture& capture, Index layer, Index head, const attnscope::Mask& mask,
                   std::optional<double> scale);

/// What the logits of a head are made of.
struct HeadVectors {
    attnscope::Matrix<double> q, k;
    std::optional<attnscope::Matrix<double>> v;
    double scale = 1;
};

/// Reads a head that has q and k.
HeadVectors load_vectors(const Capture& capture, Index layer, Index head, std::optional<double> scale);

} // namespace program
