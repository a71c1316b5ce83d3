#include <models/parameters.hpp>

#include <attnscope/io/json.hpp>
#include <attnscope/random.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <set>
#include <stdexcept>

namespace models {

FileParameters::FileParameters(const std::string& folder, Family family)
    : folder_(folder), prefix_(family == Family::gpt2 ? "transformer." : "model.") {
    const std::string whole = folder + "/model.safetensors", index = folder + "/model.safetensors.index.json";
    std::set<std::string> names;
    if (std::filesystem::exists(whole)) {
        names.insert("model.safetensors");
    } else if (std::filesystem::exists(index)) {
        const auto json = attnscope::io::read_json(index);
        if (!json.is_object() || !json.contains("weight_map") || !json.at("weight_map").is_object())
            throw std::runtime_error(fmt::format("{}: weight_map: expected an object, found none", index));
        for (const auto& [tensor, file] : json.at("weight_map").items()) {
            if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
                throw std::runtime_error(fmt::format("{}: weight_map: {}: expected the name of a file in this "
                                                     "folder, found {}",
                                                     index, tensor, file.dump()));
            names.insert(file.get<std::string>());
        }
    } else {
        throw std::runtime_error(fmt::format(
            "{}: expected model.safetensors or model.safetensors.index.json, found neither", folder));
    }
    for (const std::string& name : names)
        files_.push_back(std::make_unique<attnscope::io::SafetensorsFile>(folder + "/" + name));
}

std::optional<FileParameters::Place> FileParameters::find(const std::string& name) const {
    const bool bare = name.starts_with(prefix_);
    for (const std::string& candidate : {name, bare ? name.substr(prefix_.size()) : prefix_ + name})
        for (const auto& file : files_)
            if (file->contains(candidate)) return Place{file.get(), candidate};
    return std::nullopt;
}

bool FileParameters::contains(const std::string& name) const { return find(name).has_value(); }

FileParameters::Place FileParameters::place(const std::string& name) const {
    const auto found = find(name);
    if (!found)
        throw std::runtime_error(
            fmt::format("{}: {}: expected this tensor, found none", files_.front()->path(), name));
    return *found;
}

template <class T>
void FileParameters::read_any(const std::string& name, const std::vector<Index>& shape,
                              std::span<T> out) const {
    const Place at = place(name);
    const auto& info = at.file->info(at.name);
    if (!std::equal(shape.begin(), shape.end(), info.shape.begin(), info.shape.end()))
        throw std::runtime_error(fmt::format("{}: {}: expected shape [{}] by config.json, found [{}]",
                                             at.file->path(), at.name, fmt::join(shape, ", "),
                                             fmt::join(info.shape, ", ")));
    at.file->read_into<T>(at.name, 0, out);
}
template <class T>
void FileParameters::read_any_row(const std::string& name, Index row, std::span<T> out) const {
    const Place at = place(name);
    at.file->read_into<T>(at.name, static_cast<std::uint64_t>(row) * out.size(), out);
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
    for (T& x : out) x = static_cast<T>(deviation * random.normal());
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
