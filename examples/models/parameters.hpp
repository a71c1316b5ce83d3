// Where the numbers of a model come from: its safetensors files, or a generator.
#pragma once

#include <models/config.hpp>

#include <attnscope/io/safetensors.hpp>

#include <map>
#include <memory>
#include <span>
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
};

/// model.safetensors of a folder, or the files that model.safetensors.index.json names. Names are found with
/// and without the prefix that some files give them ("transformer." for GPT-2, "model." for Llama). F32, F16,
/// BF16 and F64 are read. Errors as above, and io_error for broken files.
class FileParameters : public Parameters {
public:
    FileParameters(const std::string& folder, Family family);
    bool contains(const std::string& name) const override;
    void read(const std::string& name, const std::vector<Index>& shape, std::span<float> out) const override;
    void read(const std::string& name, const std::vector<Index>& shape, std::span<double> out) const override;
    void read_row(const std::string& name, Index row, std::span<float> out) const override;
    void read_row(const std::string& name, Index row, std::span<double> out) const override;
    std::string origin() const override { return folder_; }

private:
    struct Place {
        const attnscope::io::SafetensorsFile* file;
        std::string name;
    };
    std::optional<Place> find(const std::string& name) const;
    Place place(const std::string& name) const;
    template <class T>
    void read_any(const std::string& name, const std::vector<Index>& shape, std::span<T> out) const;
    template <class T>
    void read_any_row(const std::string& name, Index row, std::span<T> out) const;

    std::string folder_, prefix_;
    std::vector<std::unique_ptr<attnscope::io::SafetensorsFile>> files_;
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
