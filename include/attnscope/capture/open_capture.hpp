// Attention heads from a file: safetensors, .npz, or .npy parts. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/capture/capture.hpp>
#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/npy.hpp>
#include <attnscope/io/npz.hpp>
#include <attnscope/io/safetensors.hpp>

#include <fmt/ranges.h>

#include <filesystem>
#include <memory>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace capture_files {

using io::Dtype;
using Shape = std::vector<Index>;

/// A named tensor of a file before its shape has a meaning.
struct Part {
    std::string file;
    Shape shape;
    Dtype dtype = Dtype::f64;
    std::function<std::vector<double>(Index, Index)> read;
    std::function<std::vector<float>(Index, Index)> read_floats;
    std::uint64_t offset = 0; ///< where the tensor lies in the file

    Index elements() const {
        Index count = 1;
        for (const Index n : shape) count *= n;
        return count;
    }
    std::vector<double> all() const { return read(0, elements()); }
};
using Parts = std::map<std::string, Part>;

/// Tensors that are read, those that describe heads first.
inline constexpr std::array<std::string_view, 9> tensor_names = {
    "q", "k", "v", "logits", "weights", "bias", "sinks", "scale", "attention_mask"};
/// Tensors and metadata that captures often have and that change nothing.
inline constexpr std::array<std::string_view, 5> idle_tensors = {"hidden", "token_ids", "input_ids",
                                                                 "logits_last", "attention_input"};
inline constexpr std::array<std::string_view, 10> idle_metadata = {
    "source", "model", "prompt", "note", "format", "text", "license", "tokenizer", "version", "date"};

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

inline std::string text_of(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

[[noreturn]] inline void fail(const Part& part, std::string_view tensor, std::string_view reason) {
    throw io_error(part.file, part.offset, fmt::format("tensor {}: {}", tensor, reason));
}
[[noreturn]] inline void refuse(std::string_view reason) {
    throw invalid_argument(printable(fmt::format("open_capture: {}", reason)));
}

inline HeadSource heads_of(std::string_view tensor, const Part& part, const CaptureOptions& options) {
    const bool inside = options.nhd && (tensor == "q" || tensor == "k" || tensor == "v");
    const Shape& shape = part.shape;
    const std::size_t rank = shape.size();
    if (rank < 2 || rank > 5)
        fail(part, tensor,
             fmt::format("expected {0}, [layers,{1}] or [batch,layers,{1}], found {2}",
                         inside ? "[n,heads,d]" : "[heads,n,d]", inside ? "n,heads,d" : "heads,n,d",
                         text_of(shape)));
    const bool batch_first = options.batch.has_value();
    if (batch_first && rank < 4)
        refuse(fmt::format("batch: tensor {} of {} has no batch: its shape is {}", tensor, part.file,
                           text_of(shape)));
    HeadSource source;
    source.read = part.read;
    source.read_floats = part.read_floats;
    source.dtype = part.dtype;
    source.heads_inside = inside && rank >= 3;
    if (rank == 5 || (rank == 4 && batch_first)) source.batches = shape[0];
    if (rank == 5 || (rank == 4 && !batch_first)) source.layers = shape[rank - 4];
    if (rank >= 3) source.heads = shape[rank - (source.heads_inside ? 2 : 3)];
    source.rows = shape[rank - (source.heads_inside ? 3 : 2)];
    source.cols = shape[rank - 1];
    if (std::find_if(shape.begin(), shape.end(), [](Index n) { return n < 1; }) != shape.end())
        fail(part, tensor, fmt::format("is empty: {}", text_of(shape)));
    return source;
}

/// Keys that an attention mask leaves, which must be neighbours.
inline KeyRange tokens_of(const Part& part, std::span<const double> mask) {
    const auto is_one = [](double x) { return x == 1; };
    for (const double x : mask)
        if (x != 0 && x != 1) fail(part, "attention_mask", fmt::format("must hold 0 and 1, got {}", x));
    const auto first = std::find_if(mask.begin(), mask.end(), is_one);
    const auto last = std::find_if_not(first, mask.end(), is_one);
    if (first == mask.end()) fail(part, "attention_mask", "must leave at least one token");
    if (std::find_if(last, mask.end(), is_one) != mask.end())
        fail(part, "attention_mask", "must be 1 for one run of tokens and 0 before and behind it");
    return {first - mask.begin(), last - mask.begin()};
}

/// Reads what is no tensor of heads: attention_mask, bias, scale, sinks.
inline void take_modifiers(Capture& capture, const Parts& parts) {
    if (const auto found = parts.find("attention_mask"); found != parts.end()) {
        const Part& part = found->second;
        const Index rows = part.shape.size() == 2 ? part.shape[0] : 1;
        if (part.shape.empty() || part.shape.size() > 2 || part.shape.back() != capture.keys ||
            (rows != 1 && rows != capture.batches))
            fail(part, "attention_mask",
                 fmt::format("expected [{0}] or [{1},{0}] (tokens, or batches and tokens), found {2}",
                             capture.keys, capture.batches, text_of(part.shape)));
        const std::vector<double> mask = part.all();
        Index padding = 0;
        for (Index batch = 0; batch < capture.batches; ++batch) {
            const auto first = mask.begin() + (rows == 1 ? 0 : batch * capture.keys);
            capture.tokens.push_back(tokens_of(part, {first, first + capture.keys}));
            padding += capture.keys - capture.tokens.back().size();
        }
        capture.assumptions.push_back(
            fmt::format("attention_mask: {} of {} tokens are padding; they are no keys and have no rows",
                        padding, capture.keys * capture.batches));
        if (padding == 0) capture.tokens.clear();
    }
    const bool has_keys = capture.kind == Capture::Kind::queries_and_keys;
    if (const auto found = parts.find("bias"); found != parts.end() && has_keys) {
        const HeadSource source = heads_of(
            "bias", found->second,
            capture.options.batch && found->second.shape.size() < 4 ? CaptureOptions{} : capture.options);
        const auto serves = [](Index own, Index wanted) { return own == 1 || own == wanted; };
        if (source.rows != capture.queries || source.cols != capture.keys ||
            !serves(source.heads, capture.heads) || !serves(source.layers, capture.layers) ||
            !serves(source.batches, capture.batches))
            fail(found->second, "bias",
                 fmt::format("expected [{},{}], with 1 or {} heads in front, and layers, found {}",
                             capture.queries, capture.keys, capture.heads, text_of(found->second.shape)));
        capture.bias = source;
        capture.assumptions.push_back("bias: added to the logits of q and k");
    }
    if (const auto found = parts.find("scale"); found != parts.end() && has_keys) {
        const std::vector<double> scales = found->second.all();
        if (scales.size() != 1 && scales.size() != capture.attention.size())
            fail(found->second, "scale",
                 fmt::format("expected one number, or one for each of {} layers, found {}", capture.layers,
                             text_of(found->second.shape)));
        for (std::size_t i = 0; i < capture.attention.size(); ++i) {
            const double scale = scales[scales.size() == 1 ? 0 : i];
            std::optional<double>& own = capture.attention[i].scale;
            if (!std::isfinite(scale))
                fail(found->second, "scale", fmt::format("must be finite, got {}", scale));
            if (own && *own != scale)
                fail(found->second, "scale", fmt::format("says {}, the metadata say {}", scale, *own));
            own = scale;
        }
    }
    if (const auto found = parts.find("sinks");
        found != parts.end() && capture.kind != Capture::Kind::weights) {
        const Shape& shape = found->second.shape;
        const bool fits = (shape.size() == 1 && capture.layers == 1 && shape[0] == capture.heads) ||
                          (shape.size() == 2 && shape[0] == capture.layers && shape[1] == capture.heads);
        if (!fits)
            fail(found->second, "sinks",
                 fmt::format("expected [{},{}] (layers, heads), found {}", capture.layers, capture.heads,
                             text_of(shape)));
        capture.sinks = found->second.all();
        for (const double sink : capture.sinks)
            if (std::isnan(sink) || sink == std::numeric_limits<double>::infinity())
                fail(found->second, "sinks", fmt::format("must be logits, got {}", sink));
        for (LayerAttention& layer : capture.attention)
            if (!layer.any_normalizer().takes_sink())
                fail(found->second, "sinks",
                     "only softmax has sinks, behind a softcap if need be; the metadata say " +
                         *layer.normalizer);
    }
}

inline Capture capture_of(std::string name, const Parts& parts, const Metadata& metadata,
                          const CaptureOptions& options) {
    Capture capture;
    capture.name = std::move(name);
    capture.options = options;
    capture.batch = options.batch;
    const auto take = [&](const char* tensor, std::optional<HeadSource>& to) {
        if (const auto found = parts.find(tensor); found != parts.end())
            to = heads_of(tensor, found->second, options);
    };
    const bool has_keys = parts.contains("q") && parts.contains("k");
    if (has_keys) {
        take("q", capture.q);
        take("k", capture.k);
    } else
        take("logits", capture.logits);
    take("v", capture.v);
    if (!capture.logits) take("weights", capture.weights);
    const auto check = [&](bool good, const char* tensor, const std::string& reason) {
        if (!good) fail(parts.at(tensor), tensor, reason);
    };

    const HeadSource* rows = nullptr; // whose layers, heads and rows are those of the queries
    std::string_view rows_name;
    if (capture.q && capture.k) {
        capture.kind = Capture::Kind::queries_and_keys;
        rows = &*capture.q;
        rows_name = "q";
        capture.keys = capture.k->rows;
        capture.width = capture.q->cols;
        check(capture.k->cols == capture.q->cols, "k",
              fmt::format("q and k must have the same width, got {} and {}", capture.q->cols, capture.k->cols));
        check(capture.k->batches == capture.q->batches, "k",
              fmt::format("q and k must have the same batches, got {} and {}", capture.q->batches,
                          capture.k->batches));
        check(capture.k->layers == capture.q->layers, "k",
              fmt::format("q and k must have the same layers, got {} and {}", capture.q->layers,
                          capture.k->layers));
        check(capture.q->heads % capture.k->heads == 0, "k",
              fmt::format("key heads must divide query heads, got {} and {}", capture.k->heads,
                          capture.q->heads));
    } else if (capture.logits || capture.weights) {
        capture.kind = capture.logits ? Capture::Kind::logits : Capture::Kind::weights;
        rows = capture.logits ? &*capture.logits : &*capture.weights;
        rows_name = capture.logits ? "logits" : "weights";
        capture.keys = rows->cols;
        if (capture.v) capture.width = capture.v->cols;
    } else {
        std::vector<std::string_view> found;
        for (const auto& [tensor, part] : parts) found.push_back(tensor);
        throw io_error(capture.name, 0,
                       fmt::format("needs tensors q and k, or logits, or weights, has {}",
                                   found.empty() ? "none" : fmt::format("{}", fmt::join(found, ", "))));
    }
    capture.batches = rows->batches;
    capture.layers = rows->layers;
    capture.heads = rows->heads;
    capture.queries = rows->rows;
    if (capture.v) {
        check(capture.v->batches == capture.batches && capture.v->layers == capture.layers &&
                  capture.heads % capture.v->heads == 0,
              "v",
              fmt::format("layers must agree and heads divide those of the queries ({} x {}), got {} x {}",
                          capture.layers, capture.heads, capture.v->layers, capture.v->heads));
        check(capture.v->rows == capture.keys, "v",
              fmt::format("needs one row for each of the {} keys, got {}", capture.keys, capture.v->rows));
    }
    if (capture.weights)
        check(capture.weights->batches == capture.batches && capture.weights->layers == capture.layers &&
                  capture.weights->heads == capture.heads && capture.weights->rows == capture.queries &&
                  capture.weights->cols == capture.keys,
              "weights",
              fmt::format("expected [{},{},{},{}], found {}", capture.layers, capture.heads, capture.queries,
                          capture.keys, text_of(parts.at("weights").shape)));
    if (options.batch && *options.batch >= capture.batches)
        refuse(fmt::format("batch: there is no batch {}; the input has batches 0 to {}", *options.batch,
                           capture.batches - 1));
    const Shape& shape = parts.at(std::string(rows_name)).shape;
    if (shape.size() == 4 && shape[0] > 1)
        capture.assumptions.push_back(
            options.batch ? fmt::format("{} {}: the first dimension is taken for a batch, batch {} of it",
                                        rows_name, text_of(shape), *options.batch)
                          : fmt::format("{} {}: the first dimension is taken for layers (--batch B, in C++ "
                                        "batch, takes it for a batch)",
                                        rows_name, text_of(shape)));
    if (shape.size() == 5)
        capture.assumptions.push_back(fmt::format(
            "{} {}: batch, layers and heads; {}", rows_name, text_of(shape),
            options.batch ? fmt::format("batch {}", *options.batch)
                          : std::string("all batches in turn (--batch B, in C++ batch, picks one)")));
    // More queries than keys in as many heads, or more heads than any model has: most likely the other way
    // round.
    if (has_keys && !options.nhd && shape.size() >= 3 &&
        ((capture.queries > capture.keys && capture.k->heads == capture.heads &&
          capture.queries % capture.keys == 0) ||
         capture.heads > 256 || capture.heads > 2 * std::max(capture.queries, capture.keys)))
        capture.warnings.push_back(fmt::format(
            "q {} is read as {} heads of {} queries: if it is [tokens,heads,d], say --layout nhd, in C++ nhd",
            text_of(shape), capture.heads, capture.queries));

    capture.attention = read_attention(capture.name, metadata, capture.layers);
    take_modifiers(capture, parts);
    std::vector<std::string_view> unused;
    for (const auto& [tensor, part] : parts)
        if (!is_one_of(idle_tensors, tensor) && !is_one_of(tensor_names, tensor)) unused.push_back(tensor);
    const bool weights_only = capture.kind == Capture::Kind::weights;
    for (const auto& [tensor, read] :
         std::initializer_list<std::pair<std::string_view, bool>>{{"q", has_keys},
                                                                  {"k", has_keys},
                                                                  {"logits", capture.logits.has_value()},
                                                                  {"weights", capture.weights.has_value()},
                                                                  {"bias", has_keys},
                                                                  {"scale", has_keys},
                                                                  {"sinks", !weights_only}})
        if (!read && parts.contains(std::string(tensor))) unused.push_back(tensor);
    if (!unused.empty())
        capture.warnings.push_back(fmt::format("tensors that are not used: {}", fmt::join(unused, ", ")));
    std::vector<std::string> unknown;
    for (const auto& [key, value] : metadata)
        if (!is_one_of(attention_keys, key) && !is_one_of(idle_metadata, key))
            unknown.push_back(fmt::format("{} = {}", key, value));
    if (!unknown.empty())
        capture.warnings.push_back(fmt::format("metadata that are not obeyed: {}", fmt::join(unknown, ", ")));
    for (std::vector<std::string>* lines : {&capture.assumptions, &capture.warnings})
        for (std::string& line : *lines) line = printable(line); // names come from the file
    return capture;
}

inline Capture open_safetensors(const std::string& path, const CaptureOptions& options) {
    const auto file = std::make_shared<io::SafetensorsFile>(path);
    Parts parts;
    for (const std::string& tensor : file->names()) {
        const auto& info = file->info(tensor);
        Part part{path, info.shape, info.dtype, {}, {}, info.offset};
        if (tensor == "attention_mask" && io::is_integer(info.dtype))
            part.read = [file, tensor](Index first, Index count) {
                const auto values = file->read_integers(tensor, static_cast<std::uint64_t>(first),
                                                        static_cast<std::uint64_t>(count));
                return std::vector<double>(values.begin(), values.end());
            };
        else
            part.read = [file, tensor](Index first, Index count) {
                return file->read<double>(tensor, static_cast<std::uint64_t>(first),
                                          static_cast<std::uint64_t>(count));
            };
        part.read_floats = [file, tensor](Index first, Index count) {
            return file->read<float>(tensor, static_cast<std::uint64_t>(first),
                                     static_cast<std::uint64_t>(count));
        };
        parts.emplace(tensor, std::move(part));
    }
    return capture_of(path, parts, file->metadata(), options);
}

/// An array that is in memory, as a part.
inline Part part_of(const std::string& file, io::NpyArray<double>&& values) {
    const auto array = std::make_shared<const io::NpyArray<double>>(std::move(values));
    const auto slice = [array](auto zero) {
        return [array](Index first, Index count) {
            std::vector<decltype(zero)> part(static_cast<std::size_t>(count));
            std::transform(array->data.begin() + first, array->data.begin() + first + count, part.begin(),
                           [](double x) { return static_cast<decltype(zero)>(x); });
            return part;
        };
    };
    return {file, array->shape, array->dtype, slice(0.0), slice(0.0F), 0};
}

inline Capture open_npz(const std::string& path, const CaptureOptions& options) {
    const io::NpzFile file(path);
    Parts parts;
    for (const std::string& name : file.names())
        parts.emplace(name, is_one_of(tensor_names, name)
                                ? part_of(path, file.read<double>(name, {.bfloat16 = options.bfloat16}))
                                : Part{path, {}, Dtype::unsupported, {}, {}, 0}); // only its name matters
    return capture_of(path, parts, {}, options);
}

inline bool is_npz(const std::string& path) {
    const io::File file = io::File::open(path);
    std::string start(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 512)), '\0');
    file.read(0, std::as_writable_bytes(std::span(start)));
    return io::kind_of(start) == io::FileKind::npz;
}

inline Capture open_parts(const std::vector<std::string>& inputs, const CaptureOptions& options) {
    std::map<std::string, std::string> paths;
    for (const std::string& input : inputs) {
        const auto equals = input.find('=');
        const std::string name = input.substr(0, equals);
        if (equals == std::string::npos || !is_one_of(tensor_names, name))
            refuse(fmt::format("inputs must be one safetensors or .npz file, or q=FILE k=FILE v=FILE "
                               "(also logits=, weights=, bias=, "
                               "sinks=, scale=, attention_mask=) of .npy files, got {}",
                               input));
        if (!paths.emplace(name, input.substr(equals + 1)).second)
            refuse(fmt::format("inputs: {}= is given twice", name));
    }
    Parts parts;
    for (const auto& [name, path] : paths)
        parts.emplace(name, part_of(path, io::read_npy<double>(path, {.bfloat16 = options.bfloat16})));
    return capture_of(fmt::format("{}", fmt::join(inputs, " ")), parts, {}, options);
}

} // namespace capture_files
} // namespace detail

/// What the options say goes before what the capture says. `open_capture` does it; for captures that you fill yourself.
/// Throws. `invalid_argument` for options that the capture cannot serve.
inline void apply_options(Capture& capture, const CaptureOptions& options) {
    const auto refuse = [](std::string_view rule) { detail::fail("apply_options", rule); };
    capture.options = options;
    const bool has_keys = capture.kind == Capture::Kind::queries_and_keys;
    if (options.scale && !has_keys) refuse("scale: only q and k are scaled, the input has logits or weights");
    if (options.nhd && !has_keys) refuse("layout: only q and k are [tokens,heads,d]");
    if (options.masked_below && !(capture.kind == Capture::Kind::logits || capture.bias))
        refuse("masked_below: only logits and biases hold masks, the input has neither");
    if (options.normalise_weights && capture.kind != Capture::Kind::weights)
        refuse("normalise_weights: the input is not read as weights");
    try {
        if (options.scale) set_attention(capture.attention, "scale", *options.scale, "scale");
        if (options.causal)
            for (LayerAttention& layer : capture.attention) {
                layer.causal = *options.causal;
                if (!*options.causal) layer.window.reset(); // every query sees every key
            }
        if (options.window) set_attention(capture.attention, "window", *options.window, "window");
    } catch (const invalid_argument& error) {
        refuse(error.what());
    }
}

/// The heads of one safetensors or .npz file, or of .npy parts "q=FILE" "k=FILE" "v=FILE" "logits=FILE" "weights=FILE" (also
/// bias=, sinks=, scale=, attention_mask=). Heads are read when they are asked for. docs/report.md describes the files.
/// Shapes and units. Each tensor is [heads, n, d], [layers, heads, n, d] or [batch, layers, heads, n, d].
/// Throws. `invalid_argument` for other inputs and for options that the input cannot serve, named as the members of
/// `CaptureOptions`; `io_error` that names file, tensor and rule for bad content.
/// Example: `const Capture capture = open_capture({"heads.safetensors"}, {.causal = true});`
inline Capture open_capture(const std::vector<std::string>& inputs, const CaptureOptions& options = {}) {
    namespace open = detail::capture_files;
    detail::require(!inputs.empty(), "open_capture", "inputs must name a file");
    Capture capture;
    if (inputs.size() == 1 && (inputs[0].find('=') == std::string::npos ||
                               std::filesystem::exists(inputs[0]))) // whatever its name looks like
        capture = open::is_npz(inputs[0]) ? open::open_npz(inputs[0], options)
                                          : open::open_safetensors(inputs[0], options);
    else
        capture = open::open_parts(inputs, options);
    capture.files = inputs;
    apply_options(capture, options);
    return capture;
}

} // namespace v0_2
} // namespace attnscope
