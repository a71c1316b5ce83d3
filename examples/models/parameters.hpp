// Where the numbers of a model come from: its safetensors files, or a generator.
#pragma once

#include <models/config.hpp>

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace models {

/// Named tensors of known shapes, read when they are asked for.
class Parameters {
public:
    virtual ~Parameters() = default;
    /// Is there a tensor of that name?
    virtual bool contains(const std::string& name) const = 0;
    /// Fills `out`, row-major, with the tensor, whose shape must be `shape`. Errors: std::runtime_error, one
    /// line that names the file, the tensor, what was expected and what was found.
    virtual void read(const std::string& name, const std::vector<Index>& shape, std::span<float> out) const = 0;
    virtual void read(const std::string& name, const std::vector<Index>& shape,
                      std::span<double> out) const = 0;
    /// Floats first ... of a row of a matrix whose rows are `width` long.
    virtual void read_row(const std::string& name, Index row, std::span<float> out) const = 0;
    virtual void read_row(const std::string& name, Index row, std::span<double> out) const = 0;
    /// Says where they come from.
    virtual std::string origin() const = 0;
    /// What the caller should know of them, one line each, such as tensors that are not used.
    virtual std::vector<std::string> remarks() const { return {}; }
};

/// What the names of a layer's tensors begin with.
inline std::string layer_prefix(const Config& config, Index layer) {
    return fmt::format("{}.{}.", config.family == Family::gpt2 ? "h" : "layers", layer);
}

/// A tensor that a configuration asks for.
struct TensorShape {
    std::string name;
    std::vector<Index> shape;
    bool optional = false;
};

/// Those outside of the layers, in the order of the arithmetic: tables first, norm and head last.
std::vector<TensorShape> tensors_around_layers(const Config& config);
std::vector<TensorShape> tensors_of_layer(const Config& config, Index layer);

/// Numbers of all tensors that are not optional; a double, since a configuration may ask for more than any file
/// can hold.
double parameter_count(const Config& config);
/// Of those outside of the layers and of one layer: what a run holds at a time.
double largest_part(const Config& config);

/// model.safetensors of a folder, or the files that model.safetensors.index.json names: of each tensor the copy
/// in the file that the index says. Names are found with and without the prefix that some files give them
/// ("transformer." for GPT-2, "model." for Llama). F32, F16, BF16 and F64 are read.
/// Every tensor that the configuration asks for is looked up, with its shape, before the constructor returns.
/// Errors as above, and io_error for broken files.
class FileParameters : public Parameters {
public:
    FileParameters(const std::string& folder, const Config& config);
    ~FileParameters() override;
    bool contains(const std::string& name) const override { return places_.contains(name); }
    void read(const std::string& name, const std::vector<Index>& shape, std::span<float> out) const override;
    void read(const std::string& name, const std::vector<Index>& shape, std::span<double> out) const override;
    void read_row(const std::string& name, Index row, std::span<float> out) const override;
    void read_row(const std::string& name, Index row, std::span<double> out) const override;
    std::string origin() const override { return folder_; }
    std::vector<std::string> remarks() const override { return remarks_; }

private:
    struct File; // a safetensors file; who includes this need not compile its reader
    struct Place {
        const File* file;
        std::string name;
    };
    void open_files();
    void place(const TensorShape& tensor);
    void remark_on_the_rest();
    const Place& at(const std::string& name) const;
    template <class T>
    void read_any(const std::string& name, const std::vector<Index>& shape, std::span<T> out) const;
    template <class T>
    void read_any_row(const std::string& name, Index row, std::span<T> out) const;

    std::string folder_, prefix_;
    std::map<std::string, std::unique_ptr<File>> files_;        ///< by their names in the folder
    std::optional<std::map<std::string, const File*>> indexed_; ///< by names of tensors, if there is an index
    std::map<std::string, Place> places_;                       ///< of the tensors that are used
    std::vector<std::string> remarks_;
};

/// GPT-2's initial distribution: matrices N(0, 0.02^2), projections back into the residual stream divided by
/// sqrt(2 layers), biases 0, gains 1. The same numbers for a seed on every machine; not a trained model.
class RandomParameters : public Parameters {
public:
    RandomParameters(const Config& config, std::uint64_t seed) : config_(config), seed_(seed) {}
    bool contains(const std::string& name) const override { return name != "lm_head.bias"; }
    void read(const std::string& name, const std::vector<Index>& shape, std::span<float> out) const override;
    void read(const std::string& name, const std::vector<Index>& shape, std::span<double> out) const override;
    void read_row(const std::string& name, Index row, std::span<float> out) const override;
    void read_row(const std::string& name, Index row, std::span<double> out) const override;
    std::string origin() const override;

private:
    template <class T>
    void fill(const std::string& name, std::uint64_t part, std::span<T> out) const;
    Config config_;
    std::uint64_t seed_;
};

} // namespace models
