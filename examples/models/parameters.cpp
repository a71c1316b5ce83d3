#include <models/parameters.hpp>

#include <support/failure.hpp>

#include <attnscope/io/json.hpp>
#include <attnscope/io/safetensors.hpp>
#include <attnscope/random.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <set>
#include <stdexcept>

namespace models {

std::vector<TensorShape> tensors_around_layers(const Config& config) {
    const bool gpt2 = config.family == Family::gpt2;
    std::vector<TensorShape> tensors;
    if (gpt2) {
        tensors = {{"wte.weight", {config.vocabulary, config.width}},
                   {"wpe.weight", {config.context, config.width}},
                   {"ln_f.weight", {config.width}},
                   {"ln_f.bias", {config.width}}};
    } else {
        tensors = {{"embed_tokens.weight", {config.vocabulary, config.width}}, {"norm.weight", {config.width}}};
    }
    if (config.has_head) {
        if (!config.tied_head) tensors.push_back({"lm_head.weight", {config.vocabulary, config.width}});
        tensors.push_back({"lm_head.bias", {config.vocabulary}, true});
    }
    return tensors;
}

std::vector<TensorShape> tensors_of_layer(const Config& config, Index layer) {
    const std::string prefix = layer_prefix(config, layer);
    const Index width = config.width, q = config.heads * config.head_width,
                k = config.key_heads * config.head_width;
    std::vector<TensorShape> tensors;
    const auto vector = [&](const std::string& name) { tensors.push_back({prefix + name, {width}}); };
    const auto linear = [&](const std::string& name, Index in, Index out, bool bias) {
        tensors.push_back({prefix + name + ".weight", config.family == Family::gpt2
                                                          ? std::vector<Index>{in, out}
                                                          : std::vector<Index>{out, in}});
        if (bias) tensors.push_back({prefix + name + ".bias", {out}});
    };
    if (config.family == Family::gpt2) {
        vector("ln_1.weight");
        vector("ln_1.bias");
        linear("attn.c_attn", width, q + 2 * k, true);
        linear("attn.c_proj", q, width, true);
        vector("ln_2.weight");
        vector("ln_2.bias");
        linear("mlp.c_fc", width, config.inner, true);
        linear("mlp.c_proj", config.inner, width, true);
    } else {
        vector("input_layernorm.weight");
        linear("self_attn.q_proj", width, q, config.attention_bias);
        linear("self_attn.k_proj", width, k, config.attention_bias);
        linear("self_attn.v_proj", width, k, config.attention_bias);
        linear("self_attn.o_proj", q, width, config.attention_bias);
        vector("post_attention_layernorm.weight");
        linear("mlp.gate_proj", width, config.inner, config.mlp_bias);
        linear("mlp.up_proj", width, config.inner, config.mlp_bias);
        linear("mlp.down_proj", config.inner, width, config.mlp_bias);
    }
    return tensors;
}

namespace {

double count(const std::vector<TensorShape>& tensors) {
    double sum = 0;
    for (const TensorShape& tensor : tensors) {
        double size = tensor.optional ? 0 : 1;
        for (const Index n : tensor.shape) size *= static_cast<double>(n);
        sum += size;
    }
    return sum;
}

} // namespace

double parameter_count(const Config& config) {
    return count(tensors_around_layers(config)) +
           static_cast<double>(config.layers) * count(tensors_of_layer(config, 0));
}

double largest_part(const Config& config) {
    return count(tensors_around_layers(config)) + count(tensors_of_layer(config, 0));
}

struct FileParameters::File : attnscope::io::SafetensorsFile {
    using SafetensorsFile::SafetensorsFile;
};

FileParameters::~FileParameters() = default;

FileParameters::FileParameters(const std::string& folder, const Config& config)
    : folder_(folder), prefix_(config.family == Family::gpt2 ? "transformer." : "model.") {
    open_files();
    for (const TensorShape& tensor : tensors_around_layers(config)) place(tensor);
    for (Index layer = 0; layer < config.layers; ++layer)
        for (const TensorShape& tensor : tensors_of_layer(config, layer)) place(tensor);
    remark_on_the_rest();
}

void FileParameters::open_files() {
    const std::string whole = folder_ + "/model.safetensors", index = folder_ + "/model.safetensors.index.json";
    if (std::filesystem::exists(whole)) {
        files_["model.safetensors"] = std::make_unique<File>(whole);
        if (std::filesystem::exists(index))
            remarks_.push_back(fmt::format("{}: not read, since model.safetensors is there", index));
        return;
    }
    if (!std::filesystem::exists(index))
        program::fail("{}: expected model.safetensors or model.safetensors.index.json, found neither", folder_);
    const auto json = attnscope::io::read_json(index);
    if (!json.is_object() || !json.contains("weight_map") || !json.at("weight_map").is_object())
        program::fail("{}: weight_map: expected an object, found none", index);
    if (json.at("weight_map").empty()) program::fail("{}: weight_map: expected tensors, found none", index);
    indexed_.emplace();
    for (const auto& [tensor, file] : json.at("weight_map").items()) {
        if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
            program::fail("{}: weight_map: {}: expected the name of a file in this "
                          "folder, found {}",
                          index, tensor.substr(0, 100), file.dump().substr(0, 100));
        const std::string name = file.get<std::string>();
        auto& opened = files_[name];
        if (!opened) opened = std::make_unique<File>(folder_ + "/" + name);
        if (!opened->contains(tensor))
            program::fail("{}: {}: expected this tensor, as {} says, found none", opened->path(),
                          tensor.substr(0, 100), index);
        indexed_->emplace(tensor, opened.get());
    }
}

void FileParameters::place(const TensorShape& tensor) {
    const std::string& name = tensor.name;
    const bool bare = name.starts_with(prefix_);
    const File* file = nullptr;
    std::string stored;
    for (const std::string& candidate : {name, bare ? name.substr(prefix_.size()) : prefix_ + name}) {
        if (file) break;
        stored = candidate;
        if (!indexed_) {
            const File* const only = files_.begin()->second.get();
            if (only->contains(candidate)) file = only;
        } else if (const auto found = indexed_->find(candidate); found != indexed_->end()) {
            file = found->second;
        }
    }
    if (!file) {
        if (tensor.optional) return;
        program::fail("{}: {}: expected this tensor, found none",
                      indexed_ ? folder_ + "/model.safetensors.index.json" : files_.begin()->second->path(),
                      name);
    }
    const auto& info = file->info(stored);
    if (!std::equal(tensor.shape.begin(), tensor.shape.end(), info.shape.begin(), info.shape.end()))
        program::fail("{}: {}: expected shape [{}] by config.json, found [{}]", file->path(), stored,
                      fmt::join(tensor.shape, ", "), fmt::join(info.shape, ", "));
    using attnscope::io::Dtype;
    constexpr std::array floats = {Dtype::f16, Dtype::bf16, Dtype::f32, Dtype::f64};
    if (std::find(floats.begin(), floats.end(), info.dtype) == floats.end())
        program::fail("{}: {}: expected F32, F16, BF16 or F64, found {}", file->path(), stored,
                      info.dtype_name);
    places_.emplace(name, Place{file, stored});
}

void FileParameters::remark_on_the_rest() {
    std::set<std::pair<const File*, std::string>> used;
    for (const auto& [name, place] : places_) used.emplace(place.file, place.name);
    const auto buffer = [](const std::string& name) { // made anew by every program that needs it
        return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
               name.ends_with(".rotary_emb.inv_freq");
    };
    std::vector<std::string> unused, unnamed;
    for (const auto& [file_name, file] : files_)
        for (const std::string& name : file->names()) {
            const bool named = !indexed_ || (indexed_->contains(name) && indexed_->at(name) == file.get());
            if (!named)
                unnamed.push_back(fmt::format("{} in {}", name, file_name));
            else if (!buffer(name) && !used.contains({file.get(), name}))
                unused.push_back(name);
        }
    const auto remark = [&](std::string_view what, const std::vector<std::string>& names) {
        if (!names.empty()) remarks_.push_back(fmt::format("{}: {}: {}", folder_, what, listed(names)));
    };
    remark("tensors that are not used", unused);
    remark("tensors that the index does not place there, not used", unnamed);
}

const FileParameters::Place& FileParameters::at(const std::string& name) const {
    const auto found = places_.find(name);
    if (found == places_.end())
        program::fail("{}: {}: config.json does not ask for this tensor", folder_, name);
    return found->second;
}

template <class T>
void FileParameters::read_any(const std::string& name, const std::vector<Index>& shape,
                              std::span<T> out) const {
    const Place& place = at(name);
    const auto& info = place.file->info(place.name);
    if (!std::equal(shape.begin(), shape.end(), info.shape.begin(), info.shape.end()))
        program::fail("{}: {}: asked for with shape [{}], found [{}]", place.file->path(), place.name,
                      fmt::join(shape, ", "), fmt::join(info.shape, ", "));
    place.file->read_into<T>(place.name, 0, out);
}
template <class T>
void FileParameters::read_any_row(const std::string& name, Index row, std::span<T> out) const {
    const Place& place = at(name);
    place.file->read_into<T>(place.name, static_cast<std::uint64_t>(row) * out.size(), out);
}
void FileParameters::read(const std::string& name, const std::vector<Index>& shape,
                          std::span<float> out) const {
    read_any(name, shape, out);
}
void FileParameters::read(const std::string& name, const std::vector<Index>& shape,
                          std::span<double> out) const {
    read_any(name, shape, out);
}
void FileParameters::read_row(const std::string& name, Index row, std::span<float> out) const {
    read_any_row(name, row, out);
}
void FileParameters::read_row(const std::string& name, Index row, std::span<double> out) const {
    read_any_row(name, row, out);
}

template <class T>
void RandomParameters::fill(const std::string& name, std::uint64_t part, std::span<T> out) const {
    if (name.ends_with(".bias")) {
        std::fill(out.begin(), out.end(), T(0));
        return;
    }
    const bool norm = name.find("ln_") != std::string::npos || name.find("norm") != std::string::npos;
    if (norm) {
        std::fill(out.begin(), out.end(), T(1));
        return;
    }
    std::uint64_t hash = seed_ * 0x9e3779b97f4a7c15ULL + part;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    attnscope::SplitMix64 random(hash);
    const bool back = name.find("c_proj") != std::string::npos || name.find("o_proj") != std::string::npos ||
                      name.find("down_proj") != std::string::npos;
    const double deviation = back ? 0.02 / std::sqrt(2.0 * static_cast<double>(config_.layers)) : 0.02;
    random.fill_normal(out);
    for (T& x : out) x = static_cast<T>(deviation * static_cast<double>(x));
}
void RandomParameters::read(const std::string& name, const std::vector<Index>& shape,
                            std::span<float> out) const {
    // Row by row, so that a row alone has the same numbers.
    const std::size_t width = static_cast<std::size_t>(shape.back());
    for (std::size_t row = 0; row * width < out.size(); ++row) fill(name, row, out.subspan(row * width, width));
}
void RandomParameters::read(const std::string& name, const std::vector<Index>& shape,
                            std::span<double> out) const {
    const std::size_t width = static_cast<std::size_t>(shape.back());
    for (std::size_t row = 0; row * width < out.size(); ++row) fill(name, row, out.subspan(row * width, width));
}
void RandomParameters::read_row(const std::string& name, Index row, std::span<float> out) const {
    fill(name, static_cast<std::uint64_t>(row), out);
}
void RandomParameters::read_row(const std::string& name, Index row, std::span<double> out) const {
    fill(name, static_cast<std::uint64_t>(row), out);
}
std::string RandomParameters::origin() const {
    return fmt::format("random weights, seed {} (not a trained model)", seed_);
}

} // namespace models
