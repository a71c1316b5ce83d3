#include <support/capture.hpp>

#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/npy.hpp>
#include <attnscope/io/npz.hpp>
#include <attnscope/io/safetensors.hpp>
#include <support/failure.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <fmt/ranges.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace program {
namespace {

using attnscope::KeyRange;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::RowOut;
using attnscope::io::Dtype;
using Shape = std::vector<Index>;

constexpr double masked = -std::numeric_limits<double>::infinity();

/// A named tensor of a file before its shape has a meaning.
struct Part {
    std::string file;
    Shape shape;
    Dtype dtype = Dtype::f64;
    std::function<std::vector<double>(Index, Index)> read;
    std::function<std::vector<float>(Index, Index)> read_floats;

    Index elements() const {
        Index count = 1;
        for (const Index n : shape) count *= n;
        return count;
    }
    std::vector<double> all() const { return read(0, elements()); }
};
using Parts = std::map<std::string, Part>;

/// Tensors that are read, those that describe heads first.
constexpr std::array<std::string_view, 9> tensor_names = {"q",    "k",     "v",     "logits",        "weights",
                                                          "bias", "sinks", "scale", "attention_mask"};
/// Tensors and metadata that captures often have and that change nothing.
constexpr std::array<std::string_view, 5> idle_tensors = {"hidden", "token_ids", "input_ids", "logits_last",
                                                          "attention_input"};
constexpr std::array<std::string_view, 10> idle_metadata = {
    "source", "model", "prompt", "note", "format", "text", "license", "tokenizer", "version", "date"};

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::string text_of(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

[[noreturn]] void fail(const Part& part, std::string_view tensor, std::string_view reason) {
    program::fail("{}: tensor {}: {}", part.file, tensor, reason);
}

HeadSource heads_of(std::string_view tensor, const Part& part, const CaptureOptions& options) {
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
        throw usage_error(fmt::format("--batch: tensor {} of {} has no batch: its shape is {}", tensor,
                                      part.file, text_of(shape)));
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
KeyRange tokens_of(const Part& part, std::span<const double> mask) {
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
void take_modifiers(Capture& capture, const Parts& parts) {
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
            if (!named_normalizer(layer.normalizer.value_or("softmax")).takes_sink())
                fail(found->second, "sinks",
                     "only softmax has sinks, behind a softcap if need be; the metadata say " +
                         *layer.normalizer);
    }
}

Capture capture_of(std::string name, const Parts& parts, const Metadata& metadata,
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
        program::fail("{}: needs tensors q and k, or logits, or weights{}", capture.name,
                      parts.empty() ? "" : ", has none of these pairs");
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
        throw usage_error(fmt::format("--batch: there is no batch {}; the input has batches 0 to {}",
                                      *options.batch, capture.batches - 1));
    const Shape& shape = parts.at(std::string(rows_name)).shape;
    if (shape.size() == 4 && shape[0] > 1)
        capture.assumptions.push_back(
            options.batch
                ? fmt::format("{} {}: the first dimension is taken for a batch, batch {} of it", rows_name,
                              text_of(shape), *options.batch)
                : fmt::format("{} {}: the first dimension is taken for layers (--batch B takes it for a batch)",
                              rows_name, text_of(shape)));
    if (shape.size() == 5)
        capture.assumptions.push_back(
            fmt::format("{} {}: batch, layers and heads; {}", rows_name, text_of(shape),
                        options.batch ? fmt::format("batch {}", *options.batch)
                                      : std::string("all batches in turn (--batch B picks one)")));
    // More queries than keys in as many heads, or more heads than any model has: most likely the other way
    // round.
    if (has_keys && !options.nhd && shape.size() >= 3 &&
        ((capture.queries > capture.keys && capture.k->heads == capture.heads &&
          capture.queries % capture.keys == 0) ||
         capture.heads > 256 || capture.heads > 2 * std::max(capture.queries, capture.keys)))
        capture.warnings.push_back(
            fmt::format("q {} is read as {} heads of {} queries: if it is [tokens,heads,d], say --layout nhd",
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
        for (std::string& line : *lines) line = attnscope::printable(line); // names come from the file
    return capture;
}

Capture open_safetensors(const std::string& path, const CaptureOptions& options) {
    const auto file = std::make_shared<attnscope::io::SafetensorsFile>(path);
    Parts parts;
    for (const std::string& tensor : file->names()) {
        const auto& info = file->info(tensor);
        Part part{path, info.shape, info.dtype, {}, {}};
        if (tensor == "attention_mask" && attnscope::io::is_integer(info.dtype))
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
Part part_of(const std::string& file, attnscope::io::NpyArray<double>&& values) {
    const auto array = std::make_shared<const attnscope::io::NpyArray<double>>(std::move(values));
    const auto slice = [array](auto zero) {
        return [array](Index first, Index count) {
            std::vector<decltype(zero)> part(static_cast<std::size_t>(count));
            std::transform(array->data.begin() + first, array->data.begin() + first + count, part.begin(),
                           [](double x) { return static_cast<decltype(zero)>(x); });
            return part;
        };
    };
    return {file, array->shape, array->dtype, slice(0.0), slice(0.0F)};
}

Capture open_npz(const std::string& path, const CaptureOptions& options) {
    const attnscope::io::NpzFile file(path);
    Parts parts;
    for (const std::string& name : file.names())
        parts.emplace(name, is_one_of(tensor_names, name)
                                ? part_of(path, file.read<double>(name, {.bfloat16 = options.bfloat16}))
                                : Part{path, {}, Dtype::unsupported, {}, {}}); // only its name matters
    return capture_of(path, parts, {}, options);
}

bool is_npz(const std::string& path) {
    const attnscope::io::File file = attnscope::io::File::open(path);
    std::string start(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 512)), '\0');
    file.read(0, std::as_writable_bytes(std::span(start)));
    return attnscope::io::kind_of(start) == attnscope::io::FileKind::npz;
}

Capture open_parts(const std::vector<std::string>& inputs, const CaptureOptions& options) {
    std::map<std::string, std::string> paths;
    for (const std::string& input : inputs) {
        const auto equals = input.find('=');
        const std::string name = input.substr(0, equals);
        if (equals == std::string::npos || !is_one_of(tensor_names, name))
            throw usage_error(fmt::format("INPUT must be one safetensors or .npz file, or q=FILE k=FILE v=FILE "
                                          "(also logits=, weights=, bias=, "
                                          "sinks=, scale=, attention_mask=) of .npy files, got {}",
                                          input));
        if (!paths.emplace(name, input.substr(equals + 1)).second)
            throw usage_error(fmt::format("{}= is given twice", name));
    }
    Parts parts;
    for (const auto& [name, path] : paths)
        parts.emplace(name,
                      part_of(path, attnscope::io::read_npy<double>(path, {.bfloat16 = options.bfloat16})));
    return capture_of(fmt::format("{}", fmt::join(inputs, " ")), parts, {}, options);
}

/// What the command line says goes before what the file says.
void apply_options(Capture& capture) {
    const CaptureOptions& options = capture.options;
    const bool has_keys = capture.kind == Capture::Kind::queries_and_keys;
    if (options.scale && !has_keys)
        throw usage_error("--scale: only q and k are scaled, the input has logits or weights");
    if (options.nhd && !has_keys) throw usage_error("--layout: only q and k are [tokens,heads,d]");
    if (options.masked_below && !(capture.kind == Capture::Kind::logits || capture.bias))
        throw usage_error("--masked-below: only logits and biases hold masks, the input has neither");
    if (options.normalise_weights && capture.kind != Capture::Kind::weights)
        throw usage_error("--normalise-weights: the input is not read as weights");
    try {
        if (options.scale) set_attention(capture.attention, "scale", *options.scale, "--scale");
        if (options.causal)
            for (LayerAttention& layer : capture.attention) {
                layer.causal = *options.causal;
                if (!*options.causal) layer.window.reset(); // every query sees every key
            }
        if (options.window) set_attention(capture.attention, "window", *options.window, "--window");
    } catch (const std::runtime_error& error) {
        throw usage_error(error.what());
    }
}

/// The head of a source with as many heads as the queries, or fewer that are shared.
template <class T = double>
Matrix<T> shared_head(const Capture& capture, const HeadSource& source, const HeadPlace& place) {
    return source.head<T>({place.batch, place.layer, place.head / (capture.heads / source.heads)});
}

attnscope::StoredScalar stored_scalar(Dtype dtype) {
    return dtype == Dtype::f16    ? attnscope::StoredScalar::float16
           : dtype == Dtype::bf16 ? attnscope::StoredScalar::bfloat16
           : dtype == Dtype::f32  ? attnscope::StoredScalar::float32
                                  : attnscope::StoredScalar::float64;
}

/// Finite masks of a row, by the limit that the command line or the stored type gives.
void mask_row(const Capture& capture, Dtype dtype, RowOut<double> row, RowTally& tally) {
    double limit = attnscope::finite_mask_limit<double>();
    if (dtype == Dtype::f32) limit = attnscope::finite_mask_limit<float>();
    if (dtype == Dtype::f16) limit = attnscope::finite_mask_limit<Eigen::half>();
    if (dtype == Dtype::bf16) limit = attnscope::finite_mask_limit<Eigen::bfloat16>();
    limit = capture.options.masked_below.value_or(limit);
    double least = std::numeric_limits<double>::infinity(), most = -least;
    for (const double x : row)
        if (x <= limit && x != masked) least = std::min(least, x), most = std::max(most, x);
    const attnscope::FiniteMasks found = attnscope::mask_at_or_below<double>(row, limit);
    tally.masks += found.masked;
    tally.unmasked_rows += found.spared;
    if (found.masked == 0) return;
    tally.least_mask = std::min(tally.least_mask, least);
    tally.most_mask = std::max(tally.most_mask, most);
}

/// Stored weights as logits, which softmax knows up to a constant: log p; and what their rows are like.
void take_weights(const Capture& capture, const HeadPlace& place, HeadRows& rows) {
    const Matrix<double>& p = rows.weights.emplace(capture.weights->head(place));
    const attnscope::StoredScalar scalar =
        attnscope::narrowest_scalar(attnscope::MatrixView<double>(p), stored_scalar(capture.weights->dtype));
    rows.stored_scalar = scalar;
    rows.logits = p.array().log();
    for (Index i = 0; i < capture.queries; ++i) {
        const attnscope::StoredRow row =
            attnscope::stored_row({p.data() + i * capture.keys, static_cast<std::size_t>(capture.keys)},
                                  rows.mask.visible(i, capture.keys), scalar);
        RowTally& tally = rows.tally;
        tally.negative += row.negative;
        tally.negative_rows += row.negative > 0;
        // NaN, and rows that hold nothing, have no sum to speak of.
        if (!std::isfinite(row.sum) || (p.row(i).array() == 0).all()) continue;
        tally.sums.push_back(row.sum);
        if (!row.sums_to_one) ++tally.not_one;
        if (row.sums_to_one && row.sum != 1) ++tally.rounded, tally.rounded_type = attnscope::name_of(scalar);
        if (row.hides_weight) ++tally.hidden_rows, tally.most_hidden = std::max(tally.most_hidden, row.hidden);
    }
    if (rows.tally.hidden_rows > 0 && !capture.options.normalise_weights) rows.mask = Mask::none();
}

std::mutex reading; // of files, and of what a model hands out

} // namespace

template <class T>
Matrix<T> HeadSource::head(const HeadPlace& place) const {
    const auto numbers = [this](Index first, Index count) {
        const std::lock_guard lock(reading);
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
    return Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>(values.data() + place.head * cols, rows, cols,
                                                                Eigen::OuterStride<>(heads * cols));
}
template Matrix<float> HeadSource::head<float>(const HeadPlace&) const;
template Matrix<double> HeadSource::head<double>(const HeadPlace&) const;

std::vector<Index> Capture::chosen_batches() const {
    if (batch) return {*batch};
    std::vector<Index> all(static_cast<std::size_t>(batches));
    std::iota(all.begin(), all.end(), Index(0));
    return all;
}

double Capture::scale(Index number) const {
    return layer(number).scale.value_or(attnscope::HeadView<double>::default_scale(width.value_or(0)));
}

Mask Capture::mask(const HeadPlace& place) const {
    const Mask mask = mask_of(layer(place.layer), queries, keys);
    if (tokens.empty()) return mask;
    const KeyRange& own = tokens[static_cast<std::size_t>(place.batch)];
    return mask.with_start(own.begin).with_length(own.end);
}

bool Capture::is_padding(const HeadPlace& place, Index query) const {
    if (tokens.empty() || (queries != keys && !layer(place.layer).causal.value_or(false))) return false;
    const KeyRange& own = tokens[static_cast<std::size_t>(place.batch)];
    const Index position = query + keys - queries;
    return position < own.begin || position >= own.end;
}

Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed,
                     const CaptureOptions& options) {
    Capture capture;
    if (inputs.empty()) {
        capture = synthetic_capture(seed);
        capture.options = options;
        if (options.batch || options.nhd) throw usage_error("--batch, --layout: there is no input");
    } else if (inputs.size() == 1 && (inputs[0].find('=') == std::string::npos ||
                                      std::filesystem::exists(inputs[0]))) // whatever its name looks like
        capture = is_npz(inputs[0]) ? open_npz(inputs[0], options) : open_safetensors(inputs[0], options);
    else
        capture = open_parts(inputs, options);
    apply_options(capture);
    return capture;
}

template <class T>
HeadVectors<T> load_vectors(const Capture& capture, const HeadPlace& place) {
    HeadVectors<T> vectors{capture.q->head<T>(place),
                           shared_head<T>(capture, *capture.k, place),
                           {},
                           static_cast<T>(capture.scale(place.layer))};
    if (capture.v) vectors.v = shared_head<T>(capture, *capture.v, place);
    return vectors;
}
template HeadVectors<float> load_vectors<float>(const Capture&, const HeadPlace&);
template HeadVectors<double> load_vectors<double>(const Capture&, const HeadPlace&);

HeadRows load_head(const Capture& capture, const HeadPlace& place) {
    HeadRows rows;
    rows.mask = capture.mask(place);
    if (capture.v) rows.values = shared_head(capture, *capture.v, place);
    Matrix<double> bias;
    switch (capture.kind) {
    case Capture::Kind::queries_and_keys: {
        const auto [q, k, v, factor] = load_vectors(capture, place);
        rows.logits.noalias() = factor * q * k.transpose();
        Eigen::VectorXd key_norms(k.rows());
        for (Index j = 0; j < k.rows(); ++j) key_norms[j] = k.row(j).stableNorm(); // its square could underflow
        for (Index i = 0; i < q.rows(); ++i) {
            double longest = 0;
            rows.mask.visible(i, capture.keys).for_each([&](Index j) {
                longest = std::max(longest, key_norms[j]);
            });
            rows.delta.push_back(q.row(i).stableNorm() * longest * std::abs(factor));
        }
        if (capture.weights) rows.weights = capture.weights->head(place);
        if (capture.bias) {
            const HeadSource& source = *capture.bias;
            bias = source.head({source.batches == 1 ? 0 : place.batch, source.layers == 1 ? 0 : place.layer,
                                source.heads == 1 ? 0 : place.head});
            rows.delta.clear(); // the bias is no part of |q| |k|
        }
        break;
    }
    case Capture::Kind::logits:
        rows.logits = capture.logits->head(place);
        break;
    case Capture::Kind::weights:
        take_weights(capture, place, rows);
        break;
    }

    RowTally& tally = rows.tally;
    const bool holds_masks = capture.kind == Capture::Kind::logits || capture.bias;
    const double temperature = capture.layer(place.layer).temperature.value_or(1);
    bool causal = capture.kind != Capture::Kind::queries_and_keys || capture.bias;
    Index hidden = 0;
    for (Index i = 0; i < capture.queries; ++i) {
        const attnscope::KeyRanges visible = rows.mask.visible(i, capture.keys);
        const bool padding = capture.is_padding(place, i);
        const RowOut<double> row(rows.logits.data() + i * capture.keys, static_cast<std::size_t>(capture.keys));
        const auto hide = [&](RowOut<double> values) {
            const auto fill = [&](Index first, Index last) {
                std::fill(values.begin() + first, values.begin() + last, masked);
            };
            const attnscope::KeyRange &lead = visible.lead, &body = visible.body;
            if (padding) return fill(0, capture.keys);
            fill(0, lead.empty() ? body.begin : lead.begin);
            if (!lead.empty()) fill(lead.end, body.begin); // of two ranges none is empty
            fill(body.end, capture.keys);
        };
        hide(row);
        if (capture.bias) {
            const RowOut<double> own(bias.data() + i * capture.keys, row.size());
            hide(own);
            mask_row(capture, capture.bias->dtype, own, tally);
            for (std::size_t j = 0; j < row.size(); ++j) row[j] = own[j] == masked ? masked : row[j] + own[j];
        } else if (capture.kind == Capture::Kind::logits)
            mask_row(capture, capture.logits->dtype, row, tally);
        double least = std::numeric_limits<double>::infinity(), most = -least;
        Index seen = 0;
        for (std::size_t j = 0; j < row.size(); ++j) {
            causal =
                causal && (row[j] == masked) == (static_cast<Index>(j) > i + capture.keys - capture.queries);
            if (row[j] == masked) {
                ++hidden;
                continue;
            }
            ++seen;
            least = std::min(least, row[j]);
            most = std::max(most, row[j]);
        }
        if (!holds_masks || seen < 2) continue;
        ++tally.rows;
        tally.wide_rows += (most - least) / temperature > RowTally::wide_nats;
    }
    ++tally.heads;
    tally.masked_causally += causal && hidden > 0;
    return rows;
}

void RowTally::merge(const RowTally& other) {
    masks += other.masks;
    least_mask = std::min(least_mask, other.least_mask);
    most_mask = std::max(most_mask, other.most_mask);
    unmasked_rows += other.unmasked_rows;
    rows += other.rows;
    wide_rows += other.wide_rows;
    heads += other.heads;
    masked_causally += other.masked_causally;
    sums.insert(sums.end(), other.sums.begin(), other.sums.end());
    not_one += other.not_one;
    rounded += other.rounded;
    if (other.rounded > 0) rounded_type = other.rounded_type;
    negative += other.negative;
    negative_rows += other.negative_rows;
    hidden_rows += other.hidden_rows;
    most_hidden = std::max(most_hidden, other.most_hidden);
}

double RowTally::median_sum() const {
    if (sums.empty()) return std::numeric_limits<double>::quiet_NaN();
    std::vector<double> sorted = sums;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t half = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

std::vector<std::string> findings_of(const Capture& capture, const RowTally& tally) {
    std::vector<std::string> lines;
    if (tally.masks > 0)
        lines.push_back(
            tally.least_mask == tally.most_mask
                ? fmt::format("{} entries of value {:.5g} are taken for masks", tally.masks, tally.least_mask)
                : fmt::format("{} entries of values from {:.5g} to {:.5g} are taken for masks", tally.masks,
                              tally.least_mask, tally.most_mask));
    if (tally.unmasked_rows > 0)
        lines.push_back(
            fmt::format("{} rows hold nothing but masks: their keys stay visible", tally.unmasked_rows));
    if (!tally.sums.empty()) {
        const auto [least, most] = std::minmax_element(tally.sums.begin(), tally.sums.end());
        const auto sums = fmt::format("row sums: least {:.9g}, median {:.9g}, largest {:.9g}", *least,
                                      tally.median_sum(), *most);
        if (tally.not_one > 0)
            lines.push_back(
                fmt::format("{}; {} of {} rows do not sum to 1{}", sums, tally.not_one, tally.sums.size(),
                            capture.options.normalise_weights
                                ? ", and are divided by their sum"
                                : ": they are taken as they are, and statements that assume 1 are undefined"));
        else
            lines.push_back(sums);
        if (tally.rounded > 0)
            lines.push_back(fmt::format("{} rows miss 1 by no more than the rounding of {}: taken for 1",
                                        tally.rounded, tally.rounded_type));
    }
    if (tally.negative > 0)
        lines.push_back(fmt::format("{} negative weights in {} rows", tally.negative, tally.negative_rows));
    if (tally.hidden_rows > 0)
        lines.push_back(fmt::format("{} rows have weight on keys that the mask hides, up to {:.4g}; it is {}",
                                    tally.hidden_rows, tally.most_hidden,
                                    capture.options.normalise_weights ? "left out" : "kept"));
    return lines;
}

std::vector<std::string> warnings_of(const Capture& capture, const RowTally& tally) {
    std::vector<std::string> lines = capture.warnings;
    if (tally.looks_masked())
        lines.push_back(
            fmt::format("more than {} nats lie between the visible keys of {} of {} rows: this looks "
                        "like a mask (--masked-below X takes entries at or below X for masks)",
                        RowTally::wide_nats, tally.wide_rows, tally.rows));
    return lines;
}

} // namespace program
