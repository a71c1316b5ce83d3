#include <support/capture.hpp>

#include <attnscope/io/npy.hpp>
#include <attnscope/io/safetensors.hpp>
#include <support/program.hpp>

#include <map>
#include <memory>

namespace program {
namespace {

using attnscope::Matrix;
using Shape = std::vector<Index>;

/// A named tensor of a file before its shape has a meaning.
struct Part {
    std::string file;
    Shape shape;
    std::function<std::vector<double>(Index, Index)> read;
};

std::string text_of(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

[[noreturn]] void fail(const Part& part, std::string_view tensor, std::string_view reason) {
    throw std::runtime_error(fmt::format("{}: tensor {}: {}", part.file, tensor, reason));
}

HeadSource heads_of(const std::string& tensor, const Part& part) {
    const Shape& shape = part.shape;
    if (shape.size() < 2 || shape.size() > 4)
        fail(part, tensor, fmt::format("expected [heads,n,d] or [layers,heads,n,d], found {}", text_of(shape)));
    HeadSource source;
    source.read = part.read;
    source.layers = shape.size() == 4 ? shape[0] : 1;
    source.heads = shape.size() >= 3 ? shape[shape.size() - 3] : 1;
    source.rows = shape[shape.size() - 2];
    source.cols = shape[shape.size() - 1];
    if (source.layers < 1 || source.heads < 1 || source.rows < 1 || source.cols < 1)
        fail(part, tensor, fmt::format("is empty: {}", text_of(shape)));
    return source;
}

Capture capture_of(std::string name, const std::map<std::string, Part>& parts) {
    Capture capture;
    capture.name = std::move(name);
    const auto take = [&](const char* tensor, std::optional<HeadSource>& to) {
        if (const auto found = parts.find(tensor); found != parts.end()) to = heads_of(tensor, found->second);
    };
    take("q", capture.q);
    take("k", capture.k);
    take("v", capture.v);
    take("logits", capture.logits);
    take("weights", capture.weights);
    const auto check = [&](bool good, const char* tensor, const std::string& reason) {
        if (!good) fail(parts.at(tensor), tensor, reason);
    };

    const HeadSource* rows = nullptr; // whose layers, heads and rows are those of the queries
    if (capture.q && capture.k) {
        capture.kind = Capture::Kind::queries_and_keys;
        rows = &*capture.q;
        capture.keys = capture.k->rows;
        capture.width = capture.q->cols;
        check(capture.k->cols == capture.q->cols, "k",
              fmt::format("q and k must have the same width, got {} and {}", capture.q->cols, capture.k->cols));
        check(capture.k->layers == capture.q->layers, "k",
              fmt::format("q and k must have the same layers, got {} and {}", capture.q->layers,
                          capture.k->layers));
        check(capture.q->heads % capture.k->heads == 0, "k",
              fmt::format("key heads must divide query heads, got {} and {}", capture.k->heads,
                          capture.q->heads));
    } else if (capture.logits || capture.weights) {
        capture.kind = capture.logits ? Capture::Kind::logits : Capture::Kind::weights;
        rows = capture.logits ? &*capture.logits : &*capture.weights;
        capture.keys = rows->cols;
        if (capture.v) capture.width = capture.v->cols;
    } else {
        throw std::runtime_error(fmt::format("{}: needs tensors q and k, or logits, or weights{}", capture.name,
                                             parts.empty() ? "" : ", has none of these pairs"));
    }
    capture.layers = rows->layers;
    capture.heads = rows->heads;
    capture.queries = rows->rows;
    if (capture.v) {
        check(capture.v->layers == capture.layers && capture.heads % capture.v->heads == 0, "v",
              fmt::format("layers must agree and heads divide those of the queries ({} x {}), got {} x {}",
                          capture.layers, capture.heads, capture.v->layers, capture.v->heads));
        check(capture.v->rows == capture.keys, "v",
              fmt::format("needs one row for each of the {} keys, got {}", capture.keys, capture.v->rows));
    }
    if (capture.weights)
        check(capture.weights->layers == capture.layers && capture.weights->heads == capture.heads &&
                  capture.weights->rows == capture.queries && capture.weights->cols == capture.keys,
              "weights",
              fmt::format("expected [{},{},{},{}], found {}", capture.layers, capture.heads, capture.queries,
                          capture.keys, text_of(parts.at("weights").shape)));
    return capture;
}

constexpr std::array<const char*, 5> tensor_names = {"q", "k", "v", "logits", "weights"};

Capture open_safetensors(const std::string& path) {
    const auto file = std::make_shared<attnscope::io::SafetensorsFile>(path);
    std::map<std::string, Part> parts;
    for (const char* name : tensor_names)
        if (file->contains(name)) {
            const std::string tensor = name;
            parts[tensor] = {path, file->info(tensor).shape, [file, tensor](Index first, Index count) {
                                 return file->read<double>(tensor, static_cast<std::uint64_t>(first),
                                                           static_cast<std::uint64_t>(count));
                             }};
        }
    Capture capture = capture_of(path, parts);
    if (const auto causal = file->metadata().find("causal"); causal != file->metadata().end()) {
        const std::string& value = causal->second;
        if (value == "true" || value == "True" || value == "1")
            capture.causal = true;
        else if (value == "false" || value == "False" || value == "0")
            capture.causal = false;
        else
            throw std::runtime_error(
                fmt::format("{}: metadata \"causal\" must be true or false, got \"{}\"", path, value));
    }
    return capture;
}

Capture open_parts(const std::vector<std::string>& inputs) {
    std::map<std::string, std::string> paths;
    for (const std::string& input : inputs) {
        const auto equals = input.find('=');
        const std::string name = input.substr(0, equals);
        if (equals == std::string::npos ||
            std::find(tensor_names.begin(), tensor_names.end(), name) == tensor_names.end())
            throw usage_error(fmt::format(
                "INPUT must be one safetensors file, or q=FILE k=FILE v=FILE (also logits=, weights=) of "
                ".npy files, got {}",
                input));
        if (!paths.emplace(name, input.substr(equals + 1)).second)
            throw usage_error(fmt::format("{}= is given twice", name));
    }
    std::map<std::string, Part> parts;
    for (const auto& [name, path] : paths) {
        const auto array =
            std::make_shared<attnscope::io::NpyArray<double>>(attnscope::io::read_npy<double>(path));
        parts[name] = {path, array->shape, [array](Index first, Index count) {
                           const auto begin = array->data.begin() + first;
                           return std::vector<double>(begin, begin + count);
                       }};
    }
    return capture_of(fmt::format("{}", fmt::join(inputs, " ")), parts);
}

} // namespace

Matrix<double> HeadSource::head(Index layer, Index head) const {
    const Index size = rows * cols;
    const std::vector<double> values = read((layer * heads + head) * size, size);
    return Eigen::Map<const Matrix<double>>(values.data(), rows, cols);
}

Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed) {
    if (inputs.empty()) return synthetic_capture(seed);
    // A file that exists is a file, whatever its name looks like.
    if (inputs.size() == 1 && (inputs[0].find('=') == std::string::npos || std::filesystem::exists(inputs[0])))
        return open_safetensors(inputs[0]);
    return open_parts(inputs);
}

namespace {

/// The head of a source with as many heads as the queries, or fewer that are shared.
Matrix<double> shared_head(const Capture& capture, const HeadSource& source, Index layer, Index head) {
    return source.head(layer, head / (capture.heads / source.heads));
}

} // namespace

HeadVectors load_vectors(const Capture& capture, Index layer, Index head, std::optional<double> scale) {
    HeadVectors vectors{capture.q->head(layer, head), shared_head(capture, *capture.k, layer, head), {}, 1};
    if (capture.v) vectors.v = shared_head(capture, *capture.v, layer, head);
    vectors.scale = scale.value_or(attnscope::HeadView<double>::default_scale(vectors.q.cols()));
    return vectors;
}

HeadRows load_head(const Capture& capture, Index layer, Index head, const attnscope::Mask& mask,
                   std::optional<double> scale) {
    const double masked = -std::numeric_limits<double>::infinity();
    HeadRows rows;
    if (capture.v) rows.values = shared_head(capture, *capture.v, layer, head);
    switch (capture.kind) {
    case Capture::Kind::queries_and_keys: {
        const auto [q, k, v, factor] = load_vectors(capture, layer, head, scale);
        rows.logits.noalias() = factor * q * k.transpose();
        Eigen::VectorXd key_norms(k.rows());
        for (Index j = 0; j < k.rows(); ++j) key_norms[j] = k.row(j).stableNorm(); // its square could underflow
        for (Index i = 0; i < q.rows(); ++i) {
            double longest = 0;
            mask.visible(i, capture.keys).for_each([&](Index j) { longest = std::max(longest, key_norms[j]); });
            rows.delta.push_back(q.row(i).stableNorm() * longest * std::abs(factor));
        }
        if (capture.weights) rows.weights = capture.weights->head(layer, head);
        break;
    }
    case Capture::Kind::logits:
        rows.logits = capture.logits->head(layer, head);
        break;
    case Capture::Kind::weights:
        // Softmax forgets a shift: log p are its logits up to a constant. A weight of 0 counts as masked.
        rows.logits = capture.weights->head(layer, head).array().log();
        break;
    }
    for (Index i = 0; i < capture.queries; ++i) {
        const attnscope::KeyRanges visible = mask.visible(i, capture.keys);
        for (Index j = 0; j < capture.keys; ++j)
            if (!visible.contains(j)) rows.logits(i, j) = masked;
    }
    return rows;
}

} // namespace program
