// attnscope-report from the outside: runs the built program on files made here.
#pragma once

#include <attnscope/io/safetensors.hpp>
#include <attnscope/random.hpp>

#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <optional>

#include <sys/wait.h>

namespace report_test {

using attnscope::Index;
using attnscope::io::SafetensorsFile;
using attnscope::io::SafetensorsWriter;
using attnscope_test::TemporaryFolder;
using Json = nlohmann::json;
using Shape = std::vector<Index>;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

struct Outcome {
    int status;
    std::string out, err;
};

inline std::string quoted(const std::string& word) {
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return text + "'";
}

inline Outcome run(const TemporaryFolder& folder, const std::vector<std::string>& arguments) {
    std::string command = quoted(attnscope_test::report_program());
    for (const std::string& argument : arguments) command += " " + quoted(argument);
    command += " >" + quoted(folder.path("stdout")) + " 2>" + quoted(folder.path("stderr")) + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, attnscope_test::read_text(folder.path("stdout")),
            attnscope_test::read_text(folder.path("stderr"))};
}

/// What `--rows --json` gives. The run must succeed without a word on stderr.
inline Json run_json(const TemporaryFolder& folder, std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--rows", "--json", folder.path("report.json")});
    const Outcome outcome = run(folder, arguments);
    INFO(outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(outcome.err.empty());
    CHECK(!outcome.out.empty());
    return Json::parse(attnscope_test::read_text(folder.path("report.json")));
}

struct Tensor {
    Shape shape;
    std::vector<double> values;

    Index layers() const { return shape.size() == 4 ? shape[0] : 1; }
    Index heads() const { return shape.size() >= 3 ? shape[shape.size() - 3] : 1; }
    Index rows() const { return shape[shape.size() - 2]; }
    Index cols() const { return shape[shape.size() - 1]; }
    const double* row(Index layer, Index head, Index at) const {
        return values.data() + ((layer * heads() + head) * rows() + at) * cols();
    }
    double at(Index layer, Index head, Index row, Index col) const {
        return values[static_cast<std::size_t>(((layer * heads() + head) * rows() + row) * cols() + col)];
    }
    double& at(Index layer, Index head, Index row, Index col) {
        return values[static_cast<std::size_t>(((layer * heads() + head) * rows() + row) * cols() + col)];
    }
};

struct Input {
    std::optional<Tensor> q, k, v, logits, weights;
    std::string name;
    std::optional<bool> causal;

    const Tensor& rows() const { return q ? *q : (logits ? *logits : *weights); }
    Index keys() const { return q ? k->rows() : rows().cols(); }
    std::optional<Index> width() const {
        if (q) return q->cols();
        return v ? std::optional<Index>(v->cols()) : std::nullopt;
    }
};

/// What the command line asks for.
struct Asked {
    double temperature = 1;
    std::string normalizer = "softmax";
    std::optional<double> scale = {};
    bool causal = false;
    std::vector<Index> layers = {}, heads = {}; // empty: all
    std::vector<Index> select = {1, 2, 5, 10, 20, 50, 100};
    std::optional<double> radius = {}; // of the ball; else the nearest token that is not selected
};

inline Tensor normal_tensor(Shape shape, std::uint64_t seed, double size = 1) {
    Index count = 1;
    for (const Index n : shape) count *= n;
    attnscope::SplitMix64 random(seed);
    Tensor tensor{std::move(shape), std::vector<double>(static_cast<std::size_t>(count))};
    for (double& x : tensor.values) x = size * random.normal();
    return tensor;
}

template <class T>
std::vector<T> rounded(Tensor& tensor) {
    std::vector<T> values;
    for (double& x : tensor.values) {
        values.push_back(static_cast<T>(x));
        x = static_cast<double>(values.back());
    }
    return values;
}

/// Writes what `input` has, as numbers of type T, and keeps in `input` what they became.
template <class T>
void write_safetensors(const std::string& path, Input& input) {
    SafetensorsWriter writer;
    const auto add = [&](const char* name, std::optional<Tensor>& tensor) {
        if (tensor) writer.add(name, std::span<const T>(rounded<T>(*tensor)), tensor->shape);
    };
    add("q", input.q);
    add("k", input.k);
    add("v", input.v);
    add("logits", input.logits);
    add("weights", input.weights);
    if (input.causal) writer.set_metadata("causal", *input.causal ? "true" : "false");
    writer.write(path);
    input.name = path;
}

/// The writer has no 16-bit types; the format is short enough to be written here.
template <class T>
void write_small(const std::string& path, const std::string& dtype, Input& input) {
    Json header;
    std::string data;
    const auto add = [&](const char* name, std::optional<Tensor>& tensor) {
        if (!tensor) return;
        const std::vector<T> values = rounded<T>(*tensor);
        const std::size_t begin = data.size();
        for (const T value : values) {
            const auto bits = Eigen::numext::bit_cast<std::uint16_t>(value);
            data += static_cast<char>(bits & 0xff);
            data += static_cast<char>(bits >> 8);
        }
        header[name] = {{"dtype", dtype}, {"shape", tensor->shape}, {"data_offsets", {begin, data.size()}}};
    };
    add("q", input.q);
    add("k", input.k);
    if (input.causal) header["__metadata__"]["causal"] = *input.causal ? "true" : "false";
    const std::string text = header.dump();
    std::string length;
    for (int byte = 0; byte < 8; ++byte) length += static_cast<char>((text.size() >> (8 * byte)) & 0xff);
    std::ofstream(path, std::ios::binary) << length << text << data;
    input.name = path;
}

inline Input read_input(const std::string& path) {
    const SafetensorsFile file(path);
    Input input;
    input.name = path;
    const auto take = [&](const char* name, std::optional<Tensor>& tensor) {
        if (file.contains(name)) tensor = Tensor{file.info(name).shape, file.read<double>(name)};
    };
    take("q", input.q);
    take("k", input.k);
    take("v", input.v);
    take("logits", input.logits);
    take("weights", input.weights);
    if (file.metadata().contains("causal")) input.causal = file.metadata().at("causal") == "true";
    return input;
}

/// Rows that are special in every way.
inline Tensor special_logits() {
    Tensor logits = normal_tensor({2, 8, 9}, 51, 3);
    for (Index head = 0; head < 2; ++head) {
        logits.at(0, head, 1, 4) = not_a_number;
        logits.at(0, head, 2, 3) = logits.at(0, head, 2, 8) = inf;
        for (Index key = 0; key < 9; ++key) {
            logits.at(0, head, 3, key) = -inf;
            logits.at(0, head, 4, key) = key == 5 ? 2.5 : -inf;
            logits.at(0, head, 5, key) = key % 3 == 0 ? -inf : logits.at(0, head, 5, key);
            logits.at(0, head, 6, key) = key == 2 ? 600 : -static_cast<double>(key);
            logits.at(0, head, 7, key) = key < 4 ? 1e5 : -3;
        }
    }
    return logits;
}

} // namespace report_test
