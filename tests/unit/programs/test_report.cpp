// attnscope-report from the outside: the built program runs on files made here and on real ones, and every
// figure of every row in its JSON is recomputed from the input by plain loops in long double that share no code
// with the library.
#include <attnscope/io/npy.hpp>
#include <attnscope/io/safetensors.hpp>
#include <attnscope/random.hpp>

#include <support/catch.hpp>
#include <support/data_folder.hpp>
#include <support/temporary_file.hpp>

#ifdef ATTNSCOPE_REPORT_PROGRAM // not there when the examples are not built

#include <support/capture.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <set>

#include <sys/wait.h>

namespace {

using attnscope::Index;
using attnscope::io::SafetensorsFile;
using attnscope::io::SafetensorsWriter;
using attnscope_test::TemporaryFolder;
using Json = nlohmann::json;
using Shape = std::vector<Index>;
using Wide = long double;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// ---- the program
// ----------------------------------------------------------------------------------------------

struct Outcome {
    int status;
    std::string out, err;
};

std::string quoted(const std::string& word) {
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return text + "'";
}

Outcome run(const TemporaryFolder& folder, const std::vector<std::string>& arguments) {
    std::string command = quoted(ATTNSCOPE_REPORT_PROGRAM);
    for (const std::string& argument : arguments) command += " " + quoted(argument);
    command += " >" + quoted(folder.path("stdout")) + " 2>" + quoted(folder.path("stderr")) + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, attnscope_test::read_text(folder.path("stdout")),
            attnscope_test::read_text(folder.path("stderr"))};
}

/// What `--rows --json` gives. The run must succeed without a word on stderr.
Json run_json(const TemporaryFolder& folder, std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--rows", "--json", folder.path("report.json")});
    const Outcome outcome = run(folder, arguments);
    INFO(outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(outcome.err.empty());
    CHECK(!outcome.out.empty());
    return Json::parse(attnscope_test::read_text(folder.path("report.json")));
}

// ---- what goes in
// ---------------------------------------------------------------------------------------------

struct Tensor {
    Shape shape;
    std::vector<double> values;

    Index layers() const { return shape.size() == 4 ? shape[0] : 1; }
    Index heads() const { return shape.size() >= 3 ? shape[shape.size() - 3] : 1; }
    Index rows() const { return shape[shape.size() - 2]; }
    Index cols() const { return shape[shape.size() - 1]; }
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

Tensor normal_tensor(Shape shape, std::uint64_t seed, double size = 1) {
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

Input read_input(const std::string& path) {
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

// ---- what must come out
// ---------------------------------------------------------------------------------------

/// One row by the book. Rows that hold a NaN, a +inf or no visible key have no figures.
struct Expected {
    Index visible = 0;
    bool normal = false;
    std::vector<Index> seen;   // the visible keys
    std::vector<Wide> z, p, g; // visible keys only; g: derivative of log F, per unit of z
    Wide max_logit = 0, spread = 0, log_sum_exp = 0, entropy = 0, largest = 0, second = 0, smallest = 0,
         ratio = 0;
    std::optional<Wide> first; // weight of key 0 if it is visible
    Wide largest_size = 0;     // max |z|
    Wide delta = 0;            // |q| max |k| scale
    Wide log_f_low = 0, log_f_high = 0;
    double logit_error = 0; // of the program's logits, absolute
    double relative = 0;    // allowed relative error of the figures of p
};

struct Function {
    std::function<Wide(Wide)> value, slope;
};

Function function_of(const std::string& name) {
    if (name == "softplus")
        return {[](Wide x) { return std::log1p(std::exp(x)); }, [](Wide x) { return 1 / (1 + std::exp(-x)); }};
    if (name == "sigmoidsum")
        return {[](Wide x) { return 1 / (1 + std::exp(-x)); },
                [](Wide x) { return std::exp(-x) / ((1 + std::exp(-x)) * (1 + std::exp(-x))); }};
    return {[](Wide x) { return x * x + 1; }, [](Wide x) { return 2 * x; }};
}

Expected expected_row(const Input& input, const Asked& asked, Index layer, Index head, Index query) {
    Expected row;
    const Index keys = input.keys(), queries = input.rows().rows();
    constexpr Wide unit = std::numeric_limits<double>::epsilon();
    const Wide temperature = asked.temperature;
    bool first_visible = false, special = false;
    Wide longest = 0, q_length = 0;
    for (Index key = 0; key < keys; ++key) {
        if (asked.causal && key > query + keys - queries) continue;
        Wide z = 0, k_length = 0;
        if (input.q) {
            const Index shared = head / (input.q->heads() / input.k->heads());
            const Wide scale =
                asked.scale ? Wide(*asked.scale) : 1 / std::sqrt(static_cast<Wide>(input.q->cols()));
            q_length = 0;
            for (Index c = 0; c < input.q->cols(); ++c) {
                const Wide a = input.q->at(layer, head, query, c), b = input.k->at(layer, shared, key, c);
                z += a * b;
                q_length += a * a;
                k_length += b * b;
            }
            z *= scale;
            longest = std::max(longest, std::sqrt(k_length));
            row.delta = std::sqrt(q_length) * longest * std::abs(scale);
        } else if (input.logits) {
            z = input.logits->at(layer, head, query, key);
        } else {
            z = std::log(static_cast<Wide>(input.weights->at(layer, head, query, key)));
        }
        if (z == -std::numeric_limits<Wide>::infinity()) continue;
        ++row.visible;
        special = special || std::isnan(z) || std::isinf(z);
        if (key == 0) first_visible = true;
        row.seen.push_back(key);
        row.z.push_back(z);
        row.largest_size = std::max(row.largest_size, std::abs(z));
    }
    row.normal = row.visible > 0 && !special;
    if (!row.normal) return row;

    const std::size_t n = row.z.size();
    const auto [low, high] = std::minmax_element(row.z.begin(), row.z.end());
    row.max_logit = *high;
    row.spread = *high - *low;
    std::vector<Wide> f(n); // F/max F
    row.g.resize(n);
    if (asked.normalizer == "softmax") {
        for (std::size_t i = 0; i < n; ++i) f[i] = std::exp((row.z[i] - *high) / temperature);
        row.log_sum_exp = *high / temperature;
        std::fill(row.g.begin(), row.g.end(), 1 / temperature);
        row.log_f_low = *low / temperature, row.log_f_high = *high / temperature;
    } else {
        const Function function = function_of(asked.normalizer);
        for (std::size_t i = 0; i < n; ++i) {
            f[i] = function.value(row.z[i] / temperature);
            row.g[i] = function.slope(row.z[i] / temperature) / f[i] / temperature;
        }
        const auto [f_low, f_high] = std::minmax_element(f.begin(), f.end());
        row.log_f_low = std::log(*f_low), row.log_f_high = std::log(*f_high);
    }
    Wide sum = 0;
    for (const Wide x : f) sum += x;
    row.log_sum_exp += std::log(sum);
    std::vector<Wide> sorted;
    Wide squares = 0;
    for (const Wide x : f) {
        row.p.push_back(x / sum);
        sorted.push_back(x / sum);
        squares += row.p.back() * row.p.back();
    }
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    row.largest = sorted.front();
    row.smallest = sorted.back();
    if (n > 1) row.second = sorted[1];
    if (first_visible) row.first = row.p.front();
    row.ratio = 1 / squares;
    // H = -p1 log p1 - sum of the others; log p1 = log1p(-(1-p1)) keeps the digits of rows that are nearly
    // one-hot.
    const auto top = static_cast<std::size_t>(std::max_element(row.p.begin(), row.p.end()) - row.p.begin());
    Wide rest = 0;
    for (std::size_t i = 0; i < n; ++i)
        if (i != top) rest += row.p[i];
    for (std::size_t i = 0; i < n; ++i) {
        if (row.p[i] == 0) continue;
        row.entropy -= row.p[i] * (i == top ? std::log1p(-rest) : std::log(row.p[i]));
    }

    // The program's logits carry the rounding of a dot product in double (of one logarithm for stored weights).
    // That error over T is the relative error of a weight, beside the rounding of exp at an argument as large
    // as the spread and of sums of n terms; the norms are of degree up to 4 in them.
    row.logit_error = static_cast<double>(input.q ? unit * (static_cast<Wide>(input.q->cols()) + 4) * row.delta
                                                  : unit * row.largest_size);
    row.relative = static_cast<double>(
        16 * (row.logit_error / temperature +
              unit * (4 * (row.spread + row.largest_size) / temperature + static_cast<Wide>(n) + 32)));
    return row;
}

/// dp_i/dz_j, with the 1 - p_i of the diagonal added up from the other weights.
std::vector<std::vector<Wide>> jacobian(const Expected& row) {
    const std::size_t n = row.p.size();
    std::vector<std::vector<Wide>> j(n, std::vector<Wide>(n));
    for (std::size_t a = 0; a < n; ++a)
        for (std::size_t b = 0; b < n; ++b) {
            if (a == b) continue;
            j[a][b] = -row.p[a] * row.p[b] * row.g[b];
            j[b][b] += row.p[a] * row.p[b] * row.g[b];
        }
    return j;
}

/// Whether x I - J^T J is positive definite: Cholesky, which rounds far below the differences asked about.
bool exceeds_square(const std::vector<std::vector<Wide>>& j, Wide x) {
    const std::size_t n = j.size();
    std::vector<std::vector<Wide>> a(n, std::vector<Wide>(n));
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = 0; c <= r; ++c) {
            Wide sum = r == c ? x : 0;
            for (std::size_t i = 0; i < n; ++i) sum -= j[i][r] * j[i][c];
            a[r][c] = sum;
        }
    for (std::size_t c = 0; c < n; ++c) {
        for (std::size_t i = 0; i < c; ++i) a[c][c] -= a[c][i] * a[c][i];
        if (!(a[c][c] > 0)) return false;
        a[c][c] = std::sqrt(a[c][c]);
        for (std::size_t r = c + 1; r < n; ++r) {
            for (std::size_t i = 0; i < c; ++i) a[r][c] -= a[r][i] * a[c][i];
            a[r][c] /= a[c][c];
        }
    }
    return true;
}

// ---- the comparison
// -------------------------------------------------------------------------------------------

/// Collects what is wrong: one CHECK for thousands of figures.
class Findings {
public:
    template <class... Parts>
    void expect(bool good, const Parts&... parts) {
        ++checks_;
        if (good) return;
        if (++count_ > 5) return;
        std::ostringstream text;
        text.precision(17);
        (text << ... << parts);
        text_ += text.str() + "\n";
    }
    std::size_t checks() const { return checks_; }
    std::string text() const {
        return count_ == 0 ? "" : text_ + std::to_string(count_) + " of " + std::to_string(checks_) + " wrong";
    }

private:
    std::size_t checks_ = 0, count_ = 0;
    std::string text_;
};

std::set<std::string> keys_of(const Json& object) {
    std::set<std::string> keys;
    for (const auto& item : object.items()) keys.insert(item.key());
    return keys;
}

const std::set<std::string> row_keys = {
    "query",         "visible",          "log_sum_exp",         "max_logit",    "entropy_nats", "max_weight",
    "second_weight", "first_key_weight", "participation_ratio", "logit_spread", "jacobian",     "selection"};
const std::set<std::string> norm_keys = {"spectral", "frobenius", "one", "column", "max_entry"};
const std::set<std::string> selection_keys = {"n",
                                              "mass",
                                              "distance_cumulative",
                                              "distance_resultant",
                                              "distance_bound",
                                              "expected_distance_lower",
                                              "expected_distance_upper",
                                              "truncation_error",
                                              "separable_fraction",
                                              "precision",
                                              "recall",
                                              "f_score",
                                              "margin"};
const std::set<std::string> audit_keys = {
    "id",      "form",     "provenance", "checked",       "holds",           "within_rounding",
    "vacuous", "violated", "undefined",  "max_tightness", "median_tightness"};

/// The figures of one top-N selection by their definitions. `x`: token vectors of the visible keys.
void compare_selection(const Json& json, const Expected& row, const std::vector<std::vector<double>>& x,
                       Index n, const Asked& asked, const std::string& place, Findings& found) {
    const std::string where = place + " N " + std::to_string(n);
    found.expect(keys_of(json) == selection_keys, where, " keys");
    found.expect(json.at("n") == n, where, " n: ", json.at("n").dump());
    const std::size_t count = row.p.size(), others = count - static_cast<std::size_t>(n);
    std::vector<std::size_t> order(count);
    for (std::size_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row.p[a] > row.p[b]; });
    const std::set<std::size_t> in(order.begin(), order.begin() + n);
    const auto near = [&](const char* name, Wide value, Wide absolute) {
        const Json& figure = json.at(name);
        found.expect(figure.is_number() && std::abs(figure.get<double>() - value) <= absolute, where, " ", name,
                     ": ", figure.dump(), ", expected ", value, " within ", absolute);
    };
    Wide mass = 0, tail = 0;
    for (std::size_t i = 0; i < count; ++i) (in.contains(i) ? mass : tail) += row.p[i];
    near("mass", mass, row.relative * mass);
    if (x.empty()) {
        for (const std::string& name : selection_keys)
            if (name != "n" && name != "mass")
                found.expect(json.at(name).is_null(), where, " ", name, ": ", json.at(name).dump());
        return;
    }

    const std::size_t width = x[0].size();
    using Vector = std::vector<Wide>;
    const auto length = [](const Vector& a) {
        Wide sum = 0;
        for (const Wide c : a) sum += c * c;
        return std::sqrt(sum);
    };
    const auto apart = [&](const Vector& a, const Vector& b) {
        Vector difference(width);
        for (std::size_t c = 0; c < width; ++c) difference[c] = a[c] - b[c];
        return length(difference);
    };
    std::vector<Vector> token(count), y(count);
    Vector s(width), rest(width), all(width);
    Wide total = 0, longest_token = 0, squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
        token[i].assign(x[i].begin(), x[i].end());
        y[i] = token[i];
        for (std::size_t c = 0; c < width; ++c) {
            y[i][c] *= row.p[i];
            (in.contains(i) ? s : rest)[c] += y[i][c];
            all[c] += y[i][c];
        }
        total += length(y[i]);
        squares += length(y[i]) * length(y[i]);
        longest_token = std::max(longest_token, length(token[i]));
    }
    // Vectors are exact to `error` times their terms' lengths.
    const Wide error = row.relative + 1e-15L * static_cast<Wide>(count + width + 8),
               distance_error = error * total;
    const Wide whole = static_cast<Wide>(count), left = static_cast<Wide>(others),
               picked = static_cast<Wide>(n);

    Wide cumulative = 0, spread = 0, longest = 0, rho_min = std::numeric_limits<Wide>::infinity(), rho_max = 0;
    Vector distance(count);
    for (std::size_t i = 0; i < count; ++i) {
        distance[i] = apart(s, y[i]);
        if (in.contains(i)) {
            rho_max = std::max(rho_max, distance[i]);
            longest = std::max(longest, length(token[i]));
            for (std::size_t j = 0; j < count; ++j)
                if (!in.contains(j)) spread = std::max(spread, apart(token[i], token[j]));
        } else {
            cumulative += distance[i];
            rho_min = std::min(rho_min, distance[i]);
        }
    }
    near("distance_cumulative", cumulative, left * distance_error);
    near("distance_resultant", apart(rest, s), distance_error);
    near("distance_bound", tail * spread + longest * std::abs(mass * left - tail),
         error * (tail * spread + longest * (whole + 1)));

    Wide lower = 0, upper = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Vector difference(width);
        Wide sum = 0;
        for (std::size_t c = 0; c < width; ++c) {
            difference[c] = y[i][c] - picked / (whole - 1) * (all[c] - y[i][c]);
            sum += (all[c] - y[i][c]) * (all[c] - y[i][c]);
        }
        const Wide mu = length(difference), own = length(y[i]);
        const Wide v = count <= 2 ? 0
                                  : picked * (whole - 1 - picked) / ((whole - 1) * (whole - 2)) *
                                        (squares - own * own - sum / (whole - 1));
        lower += mu;
        upper += std::sqrt(mu * mu + std::max(v, Wide(0)));
    }
    near("expected_distance_lower", left / whole * lower, left * 2 * distance_error);
    near("expected_distance_upper", left / whole * upper, left * 8 * distance_error);

    Vector output(width);
    for (std::size_t c = 0; c < width; ++c) output[c] = rest[c] - s[c] * tail / mass;
    near("truncation_error", length(output), 4 * error * tail * longest_token + 1e-300L);
    near("margin", rho_min - rho_max, 2 * distance_error);

    // Counts: any number between those at thresholds a rounding error lower and higher.
    const auto selected_below = [&](Wide limit) {
        Wide below = 0;
        for (const std::size_t i : in) below += distance[i] < limit;
        return below;
    };
    const auto share = [&](const char* name, Wide low, Wide high) {
        const Json& figure = json.at(name);
        found.expect(figure.is_number() && figure.get<double>() >= low - 1e-15L &&
                         figure.get<double>() <= high + 1e-15L,
                     where, " ", name, ": ", figure.dump(), ", expected ", low, " to ", high);
    };
    const Wide step = 2 * distance_error;
    share("recall", selected_below(rho_min - step) / picked, selected_below(rho_min + step) / picked);
    const Wide radius = asked.radius ? Wide(*asked.radius) : rho_min;
    const bool torn = asked.radius && rho_min - step < radius;
    share("separable_fraction", torn ? 0 : selected_below(radius - step) / picked,
          asked.radius && rho_min + step < radius ? 0 : selected_below(radius + step) / picked);
    Wide confused_least = 0, confused_most = 0;
    for (std::size_t j = 0; j < count; ++j)
        if (!in.contains(j)) {
            confused_least += distance[j] <= rho_max - step;
            confused_most += distance[j] <= rho_max + step;
        }
    share("precision", picked / (picked + confused_most), picked / (picked + confused_least));
    const Wide precision = json.at("precision").get<double>(), recall = json.at("recall").get<double>();
    near("f_score", precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0, 1e-15L);
}

void compare_row(const Json& json, const Expected& row, const Input& input, const Asked& asked,
                 const std::string& where, bool with_spectral, Findings& found) {
    const auto figure = [&](const Json& object, const char* name, bool known, Wide value, double absolute) {
        const Json& x = object.at(name);
        if (!known) {
            found.expect(x.is_null(), where, " ", name, ": ", x.dump(), ", expected null");
            return;
        }
        found.expect(x.is_number() && std::abs(x.get<double>() - value) <= absolute, where, " ", name, ": ",
                     x.dump(), ", expected ", value, " within ", absolute);
    };
    const auto relative = [&](const Json& object, const char* name, bool known, Wide value) {
        // Weights below the smallest double are 0 there.
        figure(object, name, known, value, row.relative * static_cast<double>(std::abs(value)) + 1e-300);
    };
    found.expect(json.at("visible").is_number_unsigned() && json.at("visible").get<Index>() == row.visible,
                 where, " visible: ", json.at("visible").dump(), ", expected ", row.visible);

    constexpr double unit = std::numeric_limits<double>::epsilon();
    const bool logits_known = row.normal && (input.q || input.logits);
    const double size = static_cast<double>(row.largest_size);
    const double logit_error = row.logit_error + 4 * unit * size;
    figure(json, "max_logit", logits_known, row.max_logit, logit_error);
    figure(json, "logit_spread", row.normal, row.spread, 2 * logit_error);
    figure(json, "log_sum_exp", logits_known, row.log_sum_exp,
           logit_error / asked.temperature + row.relative +
               4 * unit * static_cast<double>(std::abs(row.log_sum_exp)));
    relative(json, "entropy_nats", row.normal, row.entropy);
    relative(json, "max_weight", row.normal, row.largest);
    relative(json, "second_weight", row.normal && row.visible > 1, row.second);
    relative(json, "first_key_weight", row.normal && row.first.has_value(), row.first.value_or(0));
    relative(json, "participation_ratio", row.normal, row.ratio);

    const Json& norms = json.at("jacobian");
    if (!row.normal) {
        for (const std::string& name : norm_keys) relative(norms, name.c_str(), false, 0);
        return;
    }
    const auto j = jacobian(row);
    Wide squares = 0, column = 0, one = 0, entry = 0;
    for (std::size_t b = 0; b < j.size(); ++b) {
        Wide sum = 0, square = 0;
        for (std::size_t a = 0; a < j.size(); ++a) {
            sum += std::abs(j[a][b]);
            square += j[a][b] * j[a][b];
            entry = std::max(entry, std::abs(j[a][b]));
        }
        squares += square;
        one = std::max(one, sum);
        column = std::max(column, std::sqrt(square));
    }
    relative(norms, "frobenius", true, std::sqrt(squares));
    relative(norms, "one", true, one);
    relative(norms, "column", true, column);
    relative(norms, "max_entry", true, entry);
    if (!norms.at("spectral").is_number()) {
        found.expect(false, where, " spectral: ", norms.at("spectral").dump());
        return;
    }
    const Wide spectral = norms.at("spectral").get<double>();
    const Wide slack = row.relative;
    found.expect(spectral >= column * (1 - slack) && spectral <= std::sqrt(squares) * (1 + slack), where,
                 " spectral ", spectral, " is not between ", column, " and ", std::sqrt(squares));
    if (!with_spectral || column == 0) return;
    const Wide more = spectral * (1 + slack), less = spectral * (1 - slack);
    found.expect(exceeds_square(j, more * more), where, " spectral ", spectral, " is too small");
    found.expect(!exceeds_square(j, less * less), where, " spectral ", spectral, " is too large");
}

/// Tightness of one side, and the tally of a statement.
struct Tally {
    std::size_t checked = 0;
    std::vector<Wide> tightness;

    void add_upper(Wide measured, Wide limit) { tightness.push_back(measured >= limit ? 1 : measured / limit); }
    void add_lower(Wide measured, Wide limit) { tightness.push_back(limit >= measured ? 1 : limit / measured); }
    Wide max() const { return *std::max_element(tightness.begin(), tightness.end()); }
    Wide median() const {
        std::vector<Wide> sorted = tightness;
        std::sort(sorted.begin(), sorted.end());
        const std::size_t half = sorted.size() / 2;
        return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    }
};

/// Everything the JSON says about `input`.
void compare(const Json& json, const Input& input, const Asked& asked) {
    Findings found;
    CHECK(keys_of(json) == std::set<std::string>{"schema", "version", "input", "shape", "causal", "temperature",
                                                 "normalizer", "scalar", "streamed", "max_weight_difference",
                                                 "heads", "audit", "attention", "masks", "stored_weights",
                                                 "assumptions", "warnings"});
    CHECK(json.at("schema") == "attnscope.report/1");
    CHECK(json.at("version") == ATTNSCOPE_VERSION);
    CHECK(json.at("input") == input.name);
    const Tensor& source = input.rows();
    CHECK(json.at("shape") == Json{{"batches", 1},
                                   {"layers", source.layers()},
                                   {"heads", source.heads()},
                                   {"queries", source.rows()},
                                   {"keys", input.keys()},
                                   {"width", input.width() ? Json(*input.width()) : Json(nullptr)}});
    CHECK(json.at("causal") == asked.causal);
    CHECK(json.at("temperature") == asked.temperature);
    CHECK(json.at("normalizer") == asked.normalizer);

    std::vector<Index> layers = asked.layers, heads = asked.heads;
    if (layers.empty())
        for (Index i = 0; i < source.layers(); ++i) layers.push_back(i);
    if (heads.empty())
        for (Index i = 0; i < source.heads(); ++i) heads.push_back(i);
    REQUIRE(json.at("heads").size() == layers.size() * heads.size());

    // The norms of long rows are compared on a part of them: Cholesky takes n^3.
    const Index stride = input.keys() > 64 ? 61 : 1;
    std::map<std::pair<std::string, std::string>, Tally> tallies;
    double worst_tightness_error = 1e-12;
    std::optional<Wide> difference;
    std::size_t entry_at = 0, normal_rows = 0, steep_rows = 0, surely_steep_rows = 0;
    Index counter = 0;
    for (const Index layer : layers)
        for (const Index head : heads) {
            const Json& entry = json.at("heads").at(entry_at++);
            const std::string place = "(" + std::to_string(layer) + "," + std::to_string(head) + ")";
            found.expect(keys_of(entry) == std::set<std::string>{"batch", "layer", "head", "mean", "rows"},
                         place, " keys");
            found.expect(entry.at("layer") == layer && entry.at("head") == head, place, " layer and head");
            const Json& rows = entry.at("rows");
            REQUIRE(rows.size() == static_cast<std::size_t>(source.rows()));
            std::set<std::string> own_keys = row_keys;
            if (!input.q && !input.logits) own_keys.insert({"row_sum", "unassigned_mass", "hidden_mass"});
            std::set<std::string> mean_keys = own_keys;
            mean_keys.erase("query");
            const Json& mean = entry.at("mean");
            found.expect(keys_of(mean) == mean_keys && keys_of(mean.at("jacobian")) == norm_keys, place,
                         " keys of the mean");
            for (Index query = 0; query < source.rows(); ++query) {
                const Json& line = rows.at(static_cast<std::size_t>(query));
                const std::string where = place + " row " + std::to_string(query);
                found.expect(keys_of(line) == own_keys && keys_of(line.at("jacobian")) == norm_keys, where,
                             " keys");
                found.expect(line.at("query") == query, where, " query: ", line.at("query").dump());
                const Expected row = expected_row(input, asked, layer, head, query);
                const bool thorough = ++counter % stride == 0;
                compare_row(line, row, input, asked, where, thorough, found);
                std::vector<Index> counts;
                if (row.normal)
                    for (const Index n : asked.select)
                        if (n < row.visible) counts.push_back(n);
                const Json& selections = line.at("selection");
                found.expect(selections.is_array() && selections.size() == counts.size(), where,
                             " selection: ", selections.dump());
                if (thorough && selections.size() == counts.size()) {
                    std::vector<std::vector<double>> x;
                    if (input.v)
                        for (const Index key : row.seen) {
                            x.emplace_back();
                            for (Index c = 0; c < input.v->cols(); ++c)
                                x.back().push_back(
                                    input.v->at(layer, head / (source.heads() / input.v->heads()), key, c));
                        }
                    for (std::size_t i = 0; i < counts.size(); ++i)
                        compare_selection(selections.at(i), row, x, counts[i], asked, where, found);
                }
                if (input.q && input.weights && row.normal) {
                    for (std::size_t i = 0; i < row.p.size(); ++i) {
                        const Wide d =
                            std::abs(row.p[i] - Wide(input.weights->at(layer, head, query, Index(i))));
                        difference = std::max(difference.value_or(0), d);
                    }
                }
                if (!row.normal) continue;

                ++normal_rows;
                worst_tightness_error = std::max(worst_tightness_error, 4 * row.relative);
                const Wide n = static_cast<Wide>(row.visible), kappa = row.log_f_high - row.log_f_low;
                const auto weights = [&](const char* id, const char* form, Wide low, Wide high) {
                    Tally& tally = tallies[{id, form}];
                    ++tally.checked;
                    tally.add_lower(row.smallest, low);
                    tally.add_upper(row.largest, high);
                };
                const auto sharp_weights = [&](const char* id) {
                    weights(id, "sharp", 1 / (1 + (n - 1) * std::exp(kappa)),
                            1 / (1 + (n - 1) * std::exp(-kappa)));
                };
                const Wide spectral = line.at("jacobian").at("spectral").get<double>();
                const auto norm = [&](const char* id, const char* form, Wide limit) {
                    Tally& tally = tallies[{id, form}];
                    ++tally.checked;
                    tally.add_upper(spectral, limit);
                };
                sharp_weights("lemma1");
                norm("lemma2", "sharp",
                     std::abs(*std::max_element(row.g.begin(), row.g.end(),
                                                [](Wide a, Wide b) { return std::abs(a) < std::abs(b); })) /
                         2);
                if (asked.normalizer != "softmax") {
                    // kappa over [-a,a]: every function here has its extremes at -a, 0 or a.
                    const Function function = function_of(asked.normalizer);
                    const Wide a = row.largest_size / Wide(asked.temperature);
                    const std::array<Wide, 3> ends = {function.value(-a), function.value(0), function.value(a)};
                    const auto [low, high] = std::minmax_element(ends.begin(), ends.end());
                    weights("lemma1", "published", *low / *high / n, *high / *low / n);
                    continue;
                }
                const Wide temperature = asked.temperature, wide = 2 * row.largest_size / temperature;
                weights("lemma1", "published", std::exp(-wide) / n, std::exp(wide) / n);
                if (input.q) {
                    const Wide delta = 2 * row.delta / temperature;
                    weights("corollary1", "published", std::exp(-delta) / n, std::exp(delta) / n);
                }
                sharp_weights("corollary1");
                const Wide published = std::min(1 / (4 * temperature), std::sqrt(Wide(2)));
                norm("corollary3", "published", published);
                norm("corollary3", "sharp", 1 / (2 * temperature));
                steep_rows += spectral > published * (1 - 1e-9L);
                surely_steep_rows += spectral > published * (1 + 1e-9L);
                tallies[{"finite_difference", "published"}].checked += 3; // one for each eps
                tallies[{"finite_difference", "sharp"}].checked += 3;
            }

            // The mean of a selection figure: over the rows that have this N and the figure.
            std::map<Index, std::map<std::string, std::pair<Wide, Wide>>> selection_sums;
            for (const Json& line : rows)
                for (const Json& selection : line.at("selection"))
                    for (const auto& item : selection.items()) {
                        auto& [sum, number] = selection_sums[selection.at("n").get<Index>()][item.key()];
                        if (item.value().is_number()) sum += item.value().get<double>(), number += 1;
                    }
            const Json& means = mean.at("selection");
            found.expect(means.is_array() && means.size() == selection_sums.size(), place, " mean selection");
            if (means.size() == selection_sums.size()) {
                std::size_t at = 0;
                for (const auto& [n, sums] : selection_sums) {
                    const Json& entry_mean = means.at(at++);
                    found.expect(keys_of(entry_mean) == selection_keys && entry_mean.at("n") == n, place,
                                 " keys of the mean selection ", n);
                    for (const auto& [name, sum] : sums) {
                        const Json& x = entry_mean.at(name);
                        found.expect(sum.second == 0 ? x.is_null()
                                                     : x.is_number() &&
                                                           std::abs(x.get<double>() - sum.first / sum.second) <=
                                                               1e-12L * (1 + std::abs(x.get<double>())),
                                     place, " N ", n, " mean of ", name, ": ", x.dump());
                    }
                }
            }

            // Means over the rows that have the figure.
            const auto check_mean = [&](const char* group, const std::string& name) {
                Wide sum = 0, count = 0;
                for (const Json& line : rows) {
                    const Json& x = *group ? line.at(group).at(name) : line.at(name);
                    if (x.is_number()) sum += x.get<double>(), count += 1;
                }
                const Json& x = *group ? mean.at(group).at(name) : mean.at(name);
                if (count == 0)
                    found.expect(x.is_null(), place, " mean of ", name, ": ", x.dump(), ", expected null");
                else
                    found.expect(x.is_number() && std::abs(x.get<double>() - sum / count) <=
                                                      1e-12L * (std::abs(sum / count) + 1e-290L),
                                 place, " mean of ", name, ": ", x.dump(), ", expected ", sum / count);
            };
            for (const std::string& name : row_keys)
                if (name != "query" && name != "jacobian" && name != "selection" &&
                    !(name == "log_sum_exp" || name == "max_logit"))
                    check_mean("", name);
            for (const std::string& name : norm_keys) check_mean("jacobian", name);
            // These two have terms of both signs: their mean is exact to the size of the terms.
            for (const char* name : {"log_sum_exp", "max_logit"}) {
                Wide sum = 0, size = 0, count = 0;
                for (const Json& line : rows)
                    if (line.at(name).is_number()) {
                        sum += line.at(name).get<double>();
                        size += std::abs(line.at(name).get<double>());
                        count += 1;
                    }
                const Json& x = mean.at(name);
                found.expect(count == 0
                                 ? x.is_null()
                                 : x.is_number() && std::abs(x.get<double>() - sum / count) <= 1e-12L * size,
                             place, " mean of ", name, ": ", x.dump());
            }
        }

    const Json& stored = json.at("max_weight_difference");
    if (difference)
        found.expect(stored.is_number() && std::abs(stored.get<double>() - *difference) <= 1e-12,
                     "max_weight_difference: ", stored.dump(), ", expected ", *difference);
    else
        found.expect(stored.is_null(), "max_weight_difference: ", stored.dump(), ", expected null");

    const std::map<std::pair<std::string, std::string>, std::string> provenance = {
        {{"lemma1", "published"}, "verbatim"},       {{"lemma1", "sharp"}, "derived"},
        {{"corollary1", "published"}, "verbatim"},   {{"corollary1", "sharp"}, "derived"},
        {{"lemma2", "sharp"}, "not_recovered"},      {{"corollary3", "published"}, "verbatim"},
        {{"corollary3", "sharp"}, "derived"},        {{"finite_difference", "published"}, "reconstructed"},
        {{"finite_difference", "sharp"}, "derived"},
    };
    std::set<std::pair<std::string, std::string>> seen;
    for (const Json& entry : json.at("audit")) {
        const std::pair<std::string, std::string> which{entry.at("id"), entry.at("form")};
        const std::string where = "audit " + which.first + " " + which.second;
        found.expect(keys_of(entry) == audit_keys, where, " keys");
        found.expect(seen.insert(which).second, where, " stands twice");
        found.expect(which.second == "published" || which.second == "sharp", where, " form");
        std::size_t sum = 0;
        for (const char* verdict : {"holds", "within_rounding", "vacuous", "violated", "undefined"})
            sum += entry.at(verdict).get<std::size_t>();
        found.expect(sum == entry.at("checked").get<std::size_t>(), where, " verdicts add up to ", sum);
        for (const char* tightness : {"max_tightness", "median_tightness"}) {
            const Json& x = entry.at(tightness);
            found.expect(x.is_null() || (x.get<double>() >= 0 && x.get<double>() <= 1), where, " ", tightness,
                         ": ", x.dump());
        }
        if (which.second == "sharp")
            found.expect(entry.at("violated") == 0, where, " violated: ", entry.at("violated").dump());

        if (!provenance.contains(which)) continue; // a statement of another part of the paper
        found.expect(entry.at("provenance") == provenance.at(which), where, " provenance");
        const Tally& tally = tallies[which];
        found.expect(entry.at("checked") == tally.checked, where, " checked: ", entry.at("checked").dump(),
                     ", expected ", tally.checked);
        if (tally.checked == 0) {
            found.expect(entry.at("max_tightness").is_null() && entry.at("median_tightness").is_null(), where,
                         " has a tightness without rows");
        } else if (!tally.tightness.empty()) {
            const auto check = [&](const char* name, Wide value) {
                found.expect(entry.at(name).is_number() &&
                                 std::abs(entry.at(name).get<double>() - value) <= worst_tightness_error,
                             where, " ", name, ": ", entry.at(name).dump(), ", expected ", value);
            };
            check("max_tightness", tally.max());
            check("median_tightness", tally.median());
        }
        if (which == std::pair<std::string, std::string>{"corollary3", "published"}) {
            const auto violated = entry.at("violated").get<std::size_t>();
            found.expect(violated >= surely_steep_rows && violated <= steep_rows, where,
                         " violated: ", violated, ", expected ", surely_steep_rows);
        }
    }
    for (const auto& [which, text] : provenance)
        found.expect(seen.contains(which), "audit lacks ", which.first, " ", which.second);

    CHECK(found.checks() > 10);
    INFO(found.text());
    CHECK(found.text().empty());
}

// ---- the tests
// ------------------------------------------------------------------------------------------------

TEST_CASE("io report: the synthetic default", "[io][report]") {
    const TemporaryFolder folder;
    const std::uint64_t seed = GENERATE(as<std::uint64_t>{}, 1, 12345);
    const program::Capture capture = program::synthetic_capture(seed);
    const auto tensor = [](const program::HeadSource& source) {
        return Tensor{{source.layers, source.heads, source.rows, source.cols},
                      source.read(0, source.layers * source.heads * source.rows * source.cols)};
    };
    Input input;
    input.q = tensor(*capture.q);
    input.k = tensor(*capture.k);
    input.v = tensor(*capture.v);
    input.name = "synthetic";
    std::vector<std::string> arguments;
    Asked asked{.causal = true};
    if (seed != 1) {
        arguments = {"--seed", std::to_string(seed), "--heads", "3"};
        asked.heads = {3};
    }
    const Json json = run_json(folder, arguments);
    compare(json, input, asked);
    // Among these rows the published Corollary 3 fails.
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == "corollary3" && entry.at("form") == "published") CHECK(entry.at("violated") > 20);
}

TEST_CASE("io report: q and k in double, rank 3 and 4", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    Asked asked;
    SECTION("rank 3, causal by metadata") {
        input.q = normal_tensor({3, 17, 8}, 1, 2);
        input.k = normal_tensor({3, 17, 8}, 2, 2);
        input.v = normal_tensor({3, 17, 5}, 3);
        input.causal = asked.causal = true;
    }
    SECTION("rank 3, metadata say not causal") {
        input.q = normal_tensor({3, 17, 8}, 4);
        input.k = normal_tensor({3, 17, 8}, 5);
        input.causal = false;
    }
    SECTION("rank 4, no metadata") {
        input.q = normal_tensor({2, 3, 10, 4}, 6);
        input.k = normal_tensor({2, 3, 12, 4}, 7);
    }
    SECTION("rank 2 is one head") {
        input.q = normal_tensor({6, 4}, 8);
        input.k = normal_tensor({9, 4}, 9);
    }
    SECTION("width 1, one query, one key") {
        input.q = normal_tensor({1, 1, 1}, 10);
        input.k = normal_tensor({1, 1, 1}, 11);
    }
    SECTION("wide logits: rows that are one-hot to many digits") {
        input.q = normal_tensor({2, 20, 16}, 12, 6);
        input.k = normal_tensor({2, 20, 16}, 13, 6);
        input.causal = asked.causal = true;
    }
    SECTION("all keys equal") {
        input.q = normal_tensor({2, 7, 4}, 14);
        input.k = Tensor{{2, 7, 4}, std::vector<double>(56, 0.5)};
    }
    write_safetensors<double>(path, input);
    compare(run_json(folder, {path}), input, asked);
}

TEST_CASE("io report: grouped-query heads, fewer queries than keys, the causal mask bottom-right",
          "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({2, 6, 5, 8}, 21, 2);
    input.k = normal_tensor({2, 2, 12, 8}, 22, 2);
    input.v = normal_tensor({2, 3, 12, 4}, 23);
    input.causal = true;
    write_safetensors<float>(path, input);
    compare(run_json(folder, {path}), input, {.causal = true});
    SECTION("--no-causal has the last word") {
        compare(run_json(folder, {path, "--no-causal"}), input, {.causal = false});
    }
    SECTION("--causal as well") {
        input.causal = false;
        write_safetensors<float>(path, input);
        compare(run_json(folder, {path, "--causal"}), input, {.causal = true});
    }
}

TEST_CASE("io report: more queries than keys, so that the first see nothing", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({1, 9, 4}, 31);
    input.k = normal_tensor({1, 5, 4}, 32);
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path, "--causal"});
    compare(json, input, {.causal = true});
    const Json& rows = json.at("heads").at(0).at("rows");
    for (std::size_t query = 0; query < 9; ++query)
        CHECK(rows.at(query).at("visible") == (query < 4 ? 0 : query - 3));
}

TEST_CASE("io report: temperature, scale, layers and heads", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({3, 4, 11, 8}, 41);
    input.k = normal_tensor({3, 2, 11, 8}, 42);
    input.causal = true;
    write_safetensors<float>(path, input);
    Asked asked{.causal = true};
    std::vector<std::string> arguments = {path};
    SECTION("hot") {
        asked.temperature = 7.5;
        arguments.insert(arguments.end(), {"--temperature", "7.5"});
    }
    SECTION("cold") {
        asked.temperature = 0.037;
        arguments.insert(arguments.end(), {"--temperature", "0.037"});
    }
    SECTION("very cold: the published gradient limit is sqrt 2") {
        asked.temperature = 0.01;
        arguments.insert(arguments.end(), {"--temperature", "0.01"});
    }
    SECTION("scale") {
        asked.scale = 0.8;
        arguments.insert(arguments.end(), {"--scale", "0.8"});
    }
    SECTION("negative scale") {
        asked.scale = -1.25;
        arguments.insert(arguments.end(), {"--scale=-1.25"});
    }
    SECTION("scale 0 makes all keys equal") {
        asked.scale = 0;
        arguments.insert(arguments.end(), {"--scale", "0"});
    }
    SECTION("some layers and heads, in any order, each once") {
        asked.layers = {0, 2};
        asked.heads = {1, 2, 3};
        asked.temperature = 2;
        arguments.insert(arguments.end(), {"--layers", "2,0", "--heads", "3,1-2,2", "--temperature", "2"});
    }
    compare(run_json(folder, arguments), input, asked);
}

/// Rows that are special in every way.
Tensor special_logits() {
    Tensor logits = normal_tensor({2, 8, 9}, 51, 3);
    for (Index head = 0; head < 2; ++head) {
        logits.at(0, head, 1, 4) = nan;
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

TEST_CASE("io report: logits, with NaN, infinities, masked rows and ties", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = special_logits();
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path});
    compare(json, input, {});
    const Json& rows = json.at("heads").at(1).at("rows");
    for (const std::size_t query : {std::size_t{1}, std::size_t{2}, std::size_t{3}})
        for (const std::string& name : norm_keys) CHECK(rows.at(query).at("jacobian").at(name).is_null());
    CHECK(rows.at(1).at("visible") == 9);
    CHECK(rows.at(3).at("visible") == 0);
    CHECK(rows.at(4).at("entropy_nats") == 0);
    CHECK(rows.at(4).at("second_weight").is_null());
    CHECK(rows.at(4).at("first_key_weight").is_null());
    CHECK(rows.at(7).at("max_weight").get<double>() == Catch::Approx(0.25));
    const Outcome text = run(folder, {path});
    CHECK(text.out.find("Summary of 2 heads, 16 rows, 2 without a visible key, 2 with NaN, 2 with +inf") !=
          std::string::npos);

    SECTION("causal on top: 8 queries, 9 keys") {
        compare(run_json(folder, {path, "--causal", "--temperature", "3"}), input,
                {.temperature = 3, .causal = true});
    }
    SECTION("a head without any figure") {
        Input none;
        none.logits = Tensor{{1, 2, 3}, std::vector<double>(6, nan)};
        write_safetensors<float>(path, none);
        const Json empty = run_json(folder, {path});
        compare(empty, none, {});
        CHECK(empty.at("heads").at(0).at("mean").at("entropy_nats").is_null());
        CHECK(empty.at("heads").at(0).at("mean").at("visible") == 3);
    }
}

TEST_CASE("io report: weights, whose logits are known up to a constant", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("weights.safetensors");
    Input input;
    input.weights = normal_tensor({2, 2, 6, 7}, 61);
    for (Index i = 0; i < 24; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < 7; ++j) {
            double& x = input.weights->values[static_cast<std::size_t>(i) * 7 + j];
            x = (static_cast<std::size_t>(i) + j) % 5 == 0 ? 0 : std::exp(2 * x);
            sum += x;
        }
        for (std::size_t j = 0; j < 7; ++j) input.weights->values[static_cast<std::size_t>(i) * 7 + j] /= sum;
    }
    input.v = normal_tensor({2, 1, 7, 3}, 62);
    write_safetensors<float>(path, input);
    const Json json = run_json(folder, {path});
    compare(json, input, {});
    const Json& mean = json.at("heads").at(0).at("mean");
    CHECK(mean.at("log_sum_exp").is_null());
    CHECK(mean.at("max_logit").is_null());
    compare(run_json(folder, {path, "--temperature", "0.5"}), input, {.temperature = 0.5});
    compare(run_json(folder, {path, "--causal", "--normalise-weights"}), input, {.causal = true});

    const Outcome refused = run(folder, {path, "--normalizer", "sigmoid"});
    CHECK(refused.status == 2);
    CHECK(refused.err.find("--normalizer") != std::string::npos);
    CHECK(run(folder, {path, "--scale", "2"}).status == 2);
}

TEST_CASE("io report: q and k go before logits, logits before weights", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("all.safetensors");
    Input input;
    input.q = normal_tensor({2, 5, 4}, 71);
    input.k = normal_tensor({2, 5, 4}, 72);
    input.logits = normal_tensor({2, 5, 5}, 73);
    input.weights = Tensor{{2, 5, 5}, std::vector<double>(50, 0.2)};
    write_safetensors<double>(path, input);
    const Json both = run_json(folder, {path});
    compare(both, input, {});
    CHECK(both.at("max_weight_difference") > 0.01);

    input.q.reset();
    input.k.reset();
    write_safetensors<double>(path, input);
    compare(run_json(folder, {path}), input, {});
}

TEST_CASE("io report: stored weights beside q and k", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("both.safetensors");
    Input input;
    input.q = normal_tensor({1, 6, 4}, 81);
    input.k = normal_tensor({1, 6, 4}, 82);
    input.weights = Tensor{{1, 6, 6}, std::vector<double>(36)};
    for (Index query = 0; query < 6; ++query) {
        const Expected row = expected_row(input, {.causal = true}, 0, 0, query);
        for (std::size_t key = 0; key < row.p.size(); ++key)
            input.weights->at(0, 0, query, Index(key)) = static_cast<double>(row.p[key]);
    }
    write_safetensors<double>(path, input);
    Json json = run_json(folder, {path, "--causal"});
    compare(json, input, {.causal = true});
    CHECK(json.at("max_weight_difference") < 1e-14);

    input.weights->at(0, 0, 4, 2) += 0.125;
    write_safetensors<double>(path, input);
    json = run_json(folder, {path, "--causal"});
    compare(json, input, {.causal = true});
    CHECK(std::abs(json.at("max_weight_difference").get<double>() - 0.125) < 1e-12);
    CHECK(run(folder, {path, "--causal"}).out.find("differ from those of q and k by at most 0.125") !=
          std::string::npos);

    SECTION("a weight where the mask allows none") {
        input.weights->at(0, 0, 0, 5) = 0.75;
        write_safetensors<double>(path, input);
        json = run_json(folder, {path, "--causal"});
        CHECK(json.at("max_weight_difference") == 0.75);
    }
    SECTION("NaN that only the stored weights have is not passed over") {
        input.weights->at(0, 0, 1, 0) = nan;
        write_safetensors<double>(path, input);
        json = run_json(folder, {path, "--causal"});
        CHECK(json.at("max_weight_difference").is_null());
        CHECK(run(folder, {path, "--causal"}).out.find("NaN in the stored weights") != std::string::npos);
    }
    SECTION("weights of another shape are refused") {
        input.weights = Tensor{{1, 6, 5}, std::vector<double>(30)};
        write_safetensors<double>(path, input);
        const Outcome outcome = run(folder, {path});
        CHECK(outcome.status == 1);
        CHECK(outcome.out.empty());
        CHECK(outcome.err.find("expected [1,1,6,6], found [1,6,5]") != std::string::npos);
    }
}

TEST_CASE("io report: NaN and infinity in q and k reach the queries that see them, and no others",
          "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("nan.safetensors");
    Input input;
    input.q = normal_tensor({2, 9, 4}, 91);
    input.k = normal_tensor({2, 9, 4}, 92);
    input.k->at(0, 0, 5, 1) = nan;
    input.q->at(0, 1, 3, 0) = inf;
    input.causal = true;
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path});
    compare(json, input, {.causal = true});
    const Json& rows = json.at("heads").at(0).at("rows");
    for (std::size_t query = 0; query < 9; ++query)
        CHECK(rows.at(query).at("entropy_nats").is_null() == (query >= 5));
}

TEST_CASE("io report: half and bfloat16 are widened exactly", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("small.safetensors");
    Input input;
    input.q = normal_tensor({2, 3, 10, 8}, 101, 2);
    input.k = normal_tensor({2, 3, 10, 8}, 102, 2);
    input.causal = true;
    SECTION("F16") { write_small<Eigen::half>(path, "F16", input); }
    SECTION("BF16") { write_small<Eigen::bfloat16>(path, "BF16", input); }
    compare(run_json(folder, {path}), input, {.causal = true});
}

TEST_CASE("io report: .npy parts", "[io][report]") {
    const TemporaryFolder folder;
    const auto write = [&](const std::string& name, Tensor& tensor, bool wide) {
        const std::string path = folder.path(name + ".npy");
        if (wide)
            attnscope::io::write_npy(path, std::span<const double>(tensor.values), tensor.shape);
        else
            attnscope::io::write_npy(path, std::span<const float>(rounded<float>(tensor)), tensor.shape);
        return name + "=" + path;
    };
    Input input;
    std::vector<std::string> parts;
    Asked asked;
    SECTION("q, k, v of rank 4") {
        input.q = normal_tensor({2, 4, 6, 8}, 111);
        input.k = normal_tensor({2, 2, 6, 8}, 112);
        input.v = normal_tensor({2, 2, 6, 3}, 113);
        parts = {write("v", *input.v, true), write("q", *input.q, true), write("k", *input.k, false)};
    }
    SECTION("q and k of rank 3, and stored weights") {
        input.q = normal_tensor({4, 6, 8}, 114);
        input.k = normal_tensor({4, 6, 8}, 115);
        input.weights = Tensor{{4, 6, 6}, std::vector<double>(144, 1.0 / 6)};
        parts = {write("q", *input.q, false), write("k", *input.k, true),
                 write("weights", *input.weights, true)};
    }
    SECTION("logits") {
        input.logits = normal_tensor({2, 5, 7}, 116);
        parts = {write("logits", *input.logits, true)};
    }
    for (const std::string& part : parts) input.name += (input.name.empty() ? "" : " ") + part;
    compare(run_json(folder, parts), input, asked);
    asked.causal = true;
    parts.push_back("--causal");
    compare(run_json(folder, parts), input, asked);
}

TEST_CASE("io report: the general family", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    const std::string name = GENERATE("softplus", "sigmoidsum", "quadratic");
    Input input;
    input.q = normal_tensor({2, 14, 8}, 121, 2);
    input.k = normal_tensor({2, 14, 8}, 122, 2);
    input.causal = true;
    write_safetensors<float>(path, input);
    const Json json = run_json(folder, {path, "--normalizer", name});
    compare(json, input, {.normalizer = name, .causal = true});
    compare(run_json(folder, {path, "--normalizer", name, "--temperature", "0.4", "--scale", "0.5"}), input,
            {.temperature = 0.4, .normalizer = name, .scale = 0.5, .causal = true});
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == "corollary3") CHECK(entry.at("checked") == 0);

    SECTION("masked keys and NaN in logits") {
        Input logits;
        logits.logits = special_logits();
        // F stays finite at +inf for some of them: what that row gives is not compared here.
        for (double& x : logits.logits->values)
            if (x == inf || x == 1e5 || x == 600) x = 4;
        write_safetensors<double>(path, logits);
        compare(run_json(folder, {path, "--normalizer", name}), logits, {.normalizer = name});
    }
}

TEST_CASE("io report: sigmoidsum and softplus at +inf", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = Tensor{{1, 1, 3}, {inf, 0, 0}};
    write_safetensors<double>(path, input);
    // F(inf) = 1 and F(0) = 1/2: weights 1/2, 1/4, 1/4. The published Lemma 1 has an infinite kappa: no
    // violation.
    const Json sigmoid = run_json(folder, {path, "--normalizer", "sigmoidsum"});
    const Json& row = sigmoid.at("heads").at(0).at("rows").at(0);
    CHECK(row.at("max_weight").get<double>() == Catch::Approx(0.5).epsilon(1e-14));
    CHECK(row.at("participation_ratio").get<double>() == Catch::Approx(8.0 / 3).epsilon(1e-14));
    CHECK(row.at("max_logit").is_null());
    CHECK(row.at("logit_spread").is_null());
    for (const Json& entry : sigmoid.at("audit")) CHECK(entry.at("violated") == 0);
    const Json softplus = run_json(folder, {path, "--normalizer", "softplus"});
    CHECK(softplus.at("heads").at(0).at("rows").at(0).at("max_weight").is_null());
}

TEST_CASE("io report: extreme temperatures give no false violation", "[io][report]") {
    const TemporaryFolder folder;
    for (const char* temperature : {"1e-310", "1e-300", "1e300", "1.7e308"}) {
        const Json json = run_json(folder, {"--temperature", temperature, "--layers", "0", "--heads", "0,3"});
        for (const Json& entry : json.at("audit"))
            if (entry.at("form") == "sharp") {
                INFO(temperature << " " << entry.dump());
                CHECK(entry.at("violated") == 0);
            }
    }
}

TEST_CASE("io report: selections", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({2, 4, 12, 8}, 151, 2);
    input.k = normal_tensor({2, 2, 12, 8}, 152, 2);
    input.v = normal_tensor({2, 2, 12, 5}, 153);
    input.causal = true;
    Asked asked{.causal = true};
    std::vector<std::string> arguments = {path};
    SECTION("every N, in any order") {
        asked.select = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
        arguments.insert(arguments.end(), {"--select", "7-11,1-5,6,3,400"});
    }
    SECTION("the radius of the ball") {
        asked.radius = 0.3;
        arguments.insert(arguments.end(), {"--ball-radius", "0.3"});
    }
    SECTION("the reading changes the audit and the text, not the figures") {
        arguments.insert(arguments.end(), {"--reading", "resultant"});
    }
    SECTION("every query sees every key") {
        asked.causal = false;
        arguments.push_back("--no-causal");
    }
    SECTION("another normaliser") {
        asked.normalizer = "softplus";
        arguments.insert(arguments.end(), {"--normalizer", "softplus"});
    }
    SECTION("masked keys in the middle: values are gathered") {
        input.q.reset();
        input.k.reset();
        input.logits = normal_tensor({2, 4, 12, 12}, 154);
        for (std::size_t i = 0; i < input.logits->values.size(); i += 5) input.logits->values[i] = -inf;
        asked.causal = false;
        input.causal.reset();
    }
    SECTION("weights and values") {
        input.weights = normal_tensor({2, 4, 12, 12}, 155);
        for (double& w : input.weights->values) w = std::exp(w);
        arguments.push_back("--normalise-weights");
        input.q.reset();
        input.k.reset();
    }
    SECTION("keys that the mask hides may hold anything") {
        input.v->at(0, 1, 11, 2) = nan;
        input.k->at(0, 1, 11, 2) = inf;
        arguments.insert(arguments.end(), {"--layers", "1"});
        asked.layers = {1};
    }
    write_safetensors<double>(path, input);
    compare(run_json(folder, arguments), input, asked);
}

TEST_CASE("io report: NaN in a value is not hidden", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    const double poison = GENERATE(as<double>{}, nan, inf, -inf);
    Input input;
    input.logits = Tensor{{1, 3, 3}, {3, 2, 1, 1, 3, 2, 1, 2, 3}};
    input.v = normal_tensor({1, 3, 2}, 161);
    input.v->at(0, 0, 2, 1) = poison;
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path, "--causal"});
    const Json& rows = json.at("heads").at(0).at("rows");
    REQUIRE(rows.at(1).at("selection").size() == 1);
    for (const auto& item : rows.at(1).at("selection").at(0).items()) CHECK(item.value().is_number());
    REQUIRE(rows.at(2).at("selection").size() == 2);
    for (const Json& selection : rows.at(2).at("selection"))
        for (const auto& item : selection.items()) {
            INFO(poison << " " << selection.at("n") << " " << item.key() << " " << item.value().dump());
            CHECK(item.value().is_null() == (item.key() != "n" && item.key() != "mass"));
        }
    for (const Json& entry : json.at("audit"))
        if (entry.at("form") == "sharp") {
            INFO(entry.dump());
            CHECK(entry.at("violated") == 0);
        }
}

TEST_CASE("io report: without --rows the means stay and the rows go", "[io][report]") {
    const TemporaryFolder folder;
    const Json with = run_json(folder, {"--layers", "0", "--heads", "2-3"});
    const std::string path = folder.path("short.json");
    REQUIRE(run(folder, {"--layers", "0", "--heads", "2-3", "--json", path}).status == 0);
    const Json without = Json::parse(attnscope_test::read_text(path));
    REQUIRE(without.at("heads").size() == with.at("heads").size());
    for (std::size_t i = 0; i < with.at("heads").size(); ++i) {
        CHECK(without.at("heads").at(i).at("rows").empty());
        CHECK(without.at("heads").at(i).at("rows").is_array());
        CHECK(without.at("heads").at(i).at("mean") == with.at("heads").at(i).at("mean"));
    }
    CHECK(without.at("audit") == with.at("audit"));

    const Outcome piped = run(folder, {"--layers", "0", "--heads", "2-3", "--json", "-"});
    CHECK(piped.status == 0);
    CHECK(piped.err.empty());
    CHECK(Json::parse(piped.out) == without);
}

TEST_CASE("io report: CSV says what JSON says", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = special_logits();
    input.v = normal_tensor({2, 9, 3}, 52);
    write_safetensors<double>(path, input);
    const std::string csv = folder.path("csv");
    std::filesystem::create_directory(csv);
    const Json json = run_json(folder, {path, "--csv", csv});
    const auto table = [&](const std::string& name) {
        std::istringstream text(attnscope_test::read_text(csv + "/" + name));
        std::vector<std::vector<std::string>> lines;
        for (std::string line; std::getline(text, line);) {
            lines.emplace_back();
            std::istringstream cells(line + ",");
            for (std::string cell; std::getline(cells, cell, ',');) lines.back().push_back(cell);
        }
        return lines;
    };
    const auto agrees = [](const std::string& cell, const Json& value) {
        if (value.is_null()) return cell.empty();
        if (value.is_string()) return cell == value.get<std::string>();
        return !cell.empty() && std::strtod(cell.c_str(), nullptr) == value.get<double>();
    };
    // A column of a row or of a mean: "entropy_nats", "jacobian_spectral".
    const auto figure = [](const Json& object, const std::string& name) {
        constexpr std::string_view group = "jacobian_";
        return name.starts_with(group) ? object.at("jacobian").at(name.substr(group.size())) : object.at(name);
    };
    Findings found;
    const auto rows = table("rows.csv"), heads = table("heads.csv"), audit = table("audit.csv");
    const auto selection_rows = table("selection_rows.csv"), selections = table("selection.csv");
    const std::vector<std::string> names = {"layer",
                                            "head",
                                            "query",
                                            "visible",
                                            "log_sum_exp",
                                            "max_logit",
                                            "entropy_nats",
                                            "max_weight",
                                            "second_weight",
                                            "first_key_weight",
                                            "participation_ratio",
                                            "logit_spread",
                                            "jacobian_spectral",
                                            "jacobian_frobenius",
                                            "jacobian_one",
                                            "jacobian_column",
                                            "jacobian_max_entry"};
    REQUIRE(rows.size() == 1 + 16);
    REQUIRE(rows[0].size() >= names.size());
    CHECK(std::equal(names.begin(), names.end(), rows[0].begin()));
    REQUIRE(heads.size() == 1 + 2);
    REQUIRE(audit.size() == 1 + json.at("audit").size());
    for (std::size_t i = 0; i < 16; ++i) {
        const auto& line = rows[1 + i];
        REQUIRE(line.size() == rows[0].size());
        const Json& head = json.at("heads").at(i / 8);
        found.expect(agrees(line[0], head.at("layer")) && agrees(line[1], head.at("head")), "rows.csv ", i);
        for (std::size_t c = 2; c < names.size(); ++c)
            found.expect(agrees(line[c], figure(head.at("rows").at(i % 8), names[c])), "rows.csv ", i, " ",
                         names[c], ": ", line[c]);
    }
    for (std::size_t i = 0; i < 2; ++i) {
        REQUIRE(heads[1 + i].size() == heads[0].size());
        for (std::size_t c = 3; c < names.size(); ++c) {
            found.expect(heads[0][c - 1] == names[c], "heads.csv has ", heads[0][c - 1], " for ", names[c]);
            found.expect(agrees(heads[1 + i][c - 1], figure(json.at("heads").at(i).at("mean"), names[c])),
                         "heads.csv ", i, " ", names[c], ": ", heads[1 + i][c - 1]);
        }
    }
    std::size_t selection_at = 1, mean_at = 1;
    const auto compare_line = [&](const std::vector<std::vector<std::string>>& lines, std::size_t at,
                                  std::vector<Json> places, const Json& selection) {
        REQUIRE(at < lines.size());
        REQUIRE(lines[at].size() == lines[0].size());
        for (std::size_t c = 0; c < lines[0].size(); ++c)
            found.expect(agrees(lines[at][c], c < places.size() ? places[c] : selection.at(lines[0][c])),
                         "selection ", at, " ", lines[0][c], ": ", lines[at][c]);
        found.expect(lines[0].size() == places.size() + selection.size(), "columns of a selection");
    };
    for (const Json& head : json.at("heads")) {
        for (const Json& selection : head.at("mean").at("selection"))
            compare_line(selections, mean_at++, {head.at("layer"), head.at("head")}, selection);
        for (const Json& row : head.at("rows"))
            for (const Json& selection : row.at("selection"))
                compare_line(selection_rows, selection_at++,
                             {head.at("layer"), head.at("head"), row.at("query")}, selection);
    }
    CHECK(selections.size() == mean_at);
    CHECK(selection_rows.size() == selection_at);
    CHECK(std::set<std::string>(audit[0].begin(), audit[0].end()) == audit_keys);
    for (std::size_t i = 1; i < audit.size(); ++i)
        for (std::size_t c = 0; c < audit[0].size(); ++c)
            found.expect(agrees(audit[i][c], json.at("audit").at(i - 1).at(audit[0][c])), "audit.csv ", i, " ",
                         audit[0][c], ": ", audit[i][c]);
    INFO(found.text());
    CHECK(found.text().empty());
    CHECK(found.checks() > 300);
}

TEST_CASE("io report: the same seed gives the same bytes, another one other directions", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({2, 14, 8}, 131, 2);
    input.k = normal_tensor({2, 14, 8}, 132, 2);
    write_safetensors<float>(path, input);
    const auto bytes = [&](const char* seed) {
        const Outcome outcome = run(folder, {path, "--rows", "--json", "-", "--seed", seed});
        REQUIRE(outcome.status == 0);
        return outcome.out;
    };
    const std::string first = bytes("7");
    CHECK(first == bytes("7"));
    const std::string other = bytes("8");
    CHECK(first != other);
    CHECK(Json::parse(first).at("heads") == Json::parse(other).at("heads"));
}

TEST_CASE("io report: a name that is not UTF-8", "[io][report]") {
    const TemporaryFolder folder;
    Input input;
    input.logits = normal_tensor({1, 2, 3}, 141);
    write_safetensors<float>(folder.path("\xff.safetensors"), input);
    const Json json = run_json(folder, {folder.path("\xff.safetensors")});
    CHECK(json.at("input").get<std::string>().find("\xef\xbf\xbd.safetensors") != std::string::npos);
}

TEST_CASE("io report: real GPT-2 heads", "[io][report][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no john_smith_n9.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    const Input input = read_input(path);
    const Json json = run_json(folder, {path});
    compare(json, input, {.causal = true});
    CHECK(json.at("heads").size() == 144);
    CHECK(json.at("max_weight_difference") < 1e-6);
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == "corollary3" && entry.at("form") == "published") CHECK(entry.at("violated") > 0);
}

TEST_CASE("io report: real GPT-2 weights alone", "[io][report][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/dog_on_ship_n17_weights.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no dog_on_ship_n17_weights.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    compare(run_json(folder, {path}), read_input(path), {.causal = true});
}

TEST_CASE("io report: real heads of small models, 192 tokens", "[io][report][data]") {
    const std::string model = GENERATE("tiny-gpt2", "stories260k");
    const std::string path = attnscope_test::data_folder() + "/" + model + "/reference_192.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no " + model + "/reference_192.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const TemporaryFolder folder;
    compare(run_json(folder, {path, "--layers", "1"}), read_input(path), {.causal = true, .layers = {1}});
}

} // namespace

#endif
