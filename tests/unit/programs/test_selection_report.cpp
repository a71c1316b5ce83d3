// The `selection` figures of attnscope-report from the outside: the built program runs on files made here and
// on real ones, and every figure of every row is recomputed from the tensors by plain loops in long double that
// share no code with the library's selections.
#include <attnscope/io/safetensors.hpp>
#include <attnscope/random.hpp>

#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#ifdef ATTNSCOPE_REPORT_PROGRAM // not there when the examples are not built

#include <support/report_reference.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

#include <sys/wait.h>

namespace {

using attnscope::Index;
using attnscope::io::SafetensorsFile;
using attnscope::io::SafetensorsWriter;
using attnscope_test::TemporaryFolder;
using report_test::normal_tensor;
using report_test::selection_keys;
using report_test::Tensor;
using Json = nlohmann::json;
using Wide = long double;

constexpr Wide unit = std::numeric_limits<double>::epsilon();
constexpr Wide infinity = std::numeric_limits<Wide>::infinity();

const std::set<std::string> statement_ids = {"lemma1",
                                             "corollary1",
                                             "theorem1_fixed",
                                             "theorem1_random",
                                             "corollary2",
                                             "theorem2_lower",
                                             "theorem2_upper",
                                             "lemma2",
                                             "corollary3",
                                             "jacobian_inf_to_1",
                                             "finite_difference",
                                             "lp_lipschitz",
                                             "ssmax",
                                             "sigmoid_gradient",
                                             "entmax_support",
                                             "entmax_non_dispersion",
                                             "box",
                                             "critical_temperature",
                                             "gap_counting",
                                             "log_n_phase",
                                             "score_deficit",
                                             "spectral_bracket",
                                             "truncation_gap",
                                             "truncation_output",
                                             "missed_tokens",
                                             "perturbation_tv",
                                             "perturbation_kl",
                                             "perturbation_output",
                                             "perturbation_gap",
                                             "perturbation_mean_kl",
                                             "perturbation_mean_tv",
                                             "token_jacobian",
                                             "rank_collapse",
                                             "dobrushin",
                                             "sink_necessity"};

struct Outcome {
    int status;
    std::string err;
};

Outcome run(const TemporaryFolder& folder, const std::vector<std::string>& arguments) {
    const auto quoted = [](const std::string& word) { // no argument here holds a quote
        return "'" + word + "'";
    };
    std::string command = quoted(attnscope_test::report_program());
    for (const std::string& argument : arguments) command += " " + quoted(argument);
    command += " >" + quoted(folder.path("stdout")) + " 2>" + quoted(folder.path("stderr")) + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, attnscope_test::read_text(folder.path("stderr"))};
}

Json run_json(const TemporaryFolder& folder, std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--rows", "--json", folder.path("report.json")});
    const Outcome outcome = run(folder, arguments);
    INFO(outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(outcome.err.empty());
    return Json::parse(attnscope_test::read_text(folder.path("report.json")));
}

/// A file, and what the program is asked to make of it.
struct Input {
    std::map<std::string, Tensor> tensors;
    bool causal = false;
    double temperature = 1;
    std::vector<Index> select = {1, 2, 5, 10, 20, 50, 100};
    std::optional<double> radius;

    const Tensor* find(const std::string& name) const {
        const auto at = tensors.find(name);
        return at == tensors.end() ? nullptr : &at->second;
    }
    const Tensor& queries() const {
        return *(find("q") ? find("q") : find("logits") ? find("logits") : find("weights"));
    }

    template <class T>
    std::string write(const TemporaryFolder& folder) {
        SafetensorsWriter writer;
        for (auto& [name, tensor] : tensors) {
            std::vector<T> values;
            for (double& x : tensor.values) {
                values.push_back(static_cast<T>(x));
                x = static_cast<double>(values.back());
            }
            writer.add(name, std::span<const T>(values), tensor.shape);
        }
        writer.set_metadata("causal", causal ? "true" : "false");
        writer.write(folder.path("input.safetensors"));
        return folder.path("input.safetensors");
    }
};

Input read_input(const std::string& path) {
    const SafetensorsFile file(path);
    Input input;
    for (const char* name : {"q", "k", "v"})
        input.tensors[name] = Tensor{file.info(name).shape, file.read<double>(name)};
    input.causal = file.metadata().contains("causal") && file.metadata().at("causal") == "true";
    return input;
}

/// One row: what its query sees, and how exactly double arithmetic knows it.
struct Row {
    bool normal = true;
    bool exact_logits = false;
    std::vector<Wide> z, p;
    std::vector<const double*> x; // token vectors; empty without v
    Index d = 0;
    Wide logit_error = 0, weight_error = 0; // absolute, over the temperature; relative
};

Row read_row(const Input& input, Index layer, Index head, Index query) {
    Row row;
    const Tensor& source = input.queries();
    const Tensor *const q = input.find("q"), *const k = input.find("k"), *const v = input.find("v");
    const Index keys = q ? k->rows() : source.cols(), queries = source.rows();
    const auto shared = [&](const Tensor& tensor) { return head / (source.heads() / tensor.heads()); };
    Wide reach = 0, largest = 0;
    for (Index key = 0; key < keys; ++key) {
        if (input.causal && key > query + keys - queries) continue;
        Wide z = 0;
        if (q) {
            const double *const a = q->row(layer, head, query), *const b = k->row(layer, shared(*k), key);
            Wide a_square = 0, b_square = 0;
            for (Index c = 0; c < q->cols(); ++c) {
                z += Wide(a[c]) * b[c];
                a_square += Wide(a[c]) * a[c];
                b_square += Wide(b[c]) * b[c];
            }
            const Wide scale = 1 / std::sqrt(static_cast<Wide>(q->cols()));
            z *= scale;
            reach = std::max(reach, std::sqrt(a_square * b_square) * scale);
        } else {
            z = source.row(layer, head, query)[key];
            if (!input.find("logits")) z = std::log(z);
        }
        if (z == -infinity) continue;
        row.normal = row.normal && std::isfinite(z);
        row.z.push_back(z);
        largest = std::max(largest, std::abs(z));
        if (v) row.x.push_back(v->row(layer, shared(*v), key));
    }
    if (v) row.d = v->cols();
    row.normal = row.normal && !row.z.empty();
    if (!row.normal) return row;
    const Wide top = *std::max_element(row.z.begin(), row.z.end());
    const Wide spread = top - *std::min_element(row.z.begin(), row.z.end());
    Wide sum = 0;
    for (const Wide z : row.z) {
        row.p.push_back(std::exp((z - top) / Wide(input.temperature)));
        sum += row.p.back();
    }
    for (Wide& p : row.p) p /= sum;
    // A dot product of width d is exact to (d+4)u of the lengths, a logarithm and a stored logit to u. A weight
    // adds the rounding of exp at arguments up to the spread, and of the sum.
    row.exact_logits = input.find("logits") && !q;
    const Wide width = q ? static_cast<Wide>(q->cols() + 4) * reach : largest;
    row.logit_error = unit * width / Wide(input.temperature);
    row.weight_error = 2 * row.logit_error + unit * (4 * (spread + largest) / Wide(input.temperature) +
                                                     static_cast<Wide>(row.p.size()) + 32);
    return row;
}

/// Collects what is wrong: one CHECK for many figures.
struct Findings {
    std::size_t checks = 0, wrong = 0, decided = 0, undecided = 0, close = 0;
    Wide worst = 0; // relative error of what is not a difference of much larger lengths
    std::string text;

    void expect(bool good, const std::string& what) {
        ++checks;
        if (good) return;
        if (++wrong <= 5) text += what + "\n";
    }
    void figure(const Json& entry, const char* name, Wide truth, Wide tolerance, const std::string& where) {
        const Json& x = entry.at(name);
        std::ostringstream what;
        what.precision(17);
        what << where << " " << name << ": " << x.dump() << ", expected " << truth << " within " << tolerance;
        expect(x.is_number() && std::abs(x.get<double>() - truth) <= tolerance + 1e-300L, what.str());
        if (!x.is_number()) return;
        // What is asked for is 1e-5; the tolerance is far below that wherever the figure is not a rest that
        // cancellation left.
        if (tolerance > Wide(1e-8) * std::abs(truth)) {
            ++close;
            return;
        }
        worst = std::max(worst, std::abs(x.get<double>() - truth) / std::abs(truth));
    }
};

void compare_selection(const Json& entry, const Row& row, Index count, std::optional<double> radius,
                       const std::vector<std::size_t>& order, const std::string& where, Findings& found) {
    const std::size_t n = row.p.size(), selected = static_cast<std::size_t>(count);
    const auto d = static_cast<std::size_t>(row.d);
    std::vector<char> member(n, 0);
    Wide mass = 0, tail = 0;
    for (std::size_t rank = n; rank-- > 0;) {
        member[order[rank]] = rank < selected;
        (rank < selected ? mass : tail) += row.p[order[rank]];
    }
    if (row.x.empty()) {
        found.figure(entry, "mass", mass, (row.weight_error + static_cast<Wide>(n) * unit) * mass, where);
        for (const std::string& key : selection_keys)
            if (key != "n" && key != "mass")
                found.expect(entry.at(key).is_null(), where + " " + key + " without v");
        return;
    }

    const auto y = [&](std::size_t i, std::size_t c) { return row.p[i] * Wide(row.x[i][c]); };
    const Wide l = static_cast<Wide>(n), k = static_cast<Wide>(selected);
    // Relative error of what is added up from the y_i, in units of their lengths.
    const Wide e = row.weight_error + unit * (l + static_cast<Wide>(d) + 8);
    std::vector<Wide> s(d), rest(d), length(n), token_length(n), distance(n), offset(n);
    for (std::size_t i = 0; i < n; ++i) {
        Wide square = 0;
        for (std::size_t c = 0; c < d; ++c) {
            (member[i] ? s : rest)[c] += y(i, c);
            square += Wide(row.x[i][c]) * row.x[i][c];
        }
        token_length[i] = std::sqrt(square);
        length[i] = row.p[i] * token_length[i];
    }
    Wide inner = 0, outer = 0, s_length = 0, squares = 0; // sums of |y| inside and outside, |s|, sum of |y|^2
    for (std::size_t i = 0; i < n; ++i) {
        (member[i] ? inner : outer) += length[i];
        squares += length[i] * length[i];
    }
    const Wide total = inner + outer;
    for (std::size_t c = 0; c < d; ++c) s_length += s[c] * s[c];
    s_length = std::sqrt(s_length);

    found.figure(entry, "mass", mass, e * mass, where);
    Wide cumulative = 0, cumulative_error = 0;
    for (std::size_t i = 0; i < n; ++i) {
        Wide square = 0, product = 0;
        for (std::size_t c = 0; c < d; ++c) {
            square += (s[c] - y(i, c)) * (s[c] - y(i, c));
            product += y(i, c) * s[c];
        }
        distance[i] = std::sqrt(square);
        offset[i] = length[i] * length[i] - 2 * product;
        if (member[i]) continue;
        cumulative += distance[i];
        cumulative_error += e * (inner + length[i]);
    }
    found.figure(entry, "distance_cumulative", cumulative, cumulative_error + unit * l * cumulative, where);

    Wide resultant = 0, lost = 0;
    for (std::size_t c = 0; c < d; ++c) {
        resultant += (rest[c] - s[c]) * (rest[c] - s[c]);
        const Wide difference = s[c] + rest[c] - s[c] / mass;
        lost += difference * difference;
    }
    found.figure(entry, "distance_resultant", std::sqrt(resultant), e * total, where);
    // By definition o - o_N cancels where nearly all is selected: the reference is exact to its own unit.
    found.figure(entry, "truncation_error", std::sqrt(lost),
                 4 * e * (outer + inner * tail / mass) +
                     8 * l * std::numeric_limits<Wide>::epsilon() * (total + inner / mass),
                 where);

    // Theorem 1(1): (1-A) d1 + max|x_j| sum |A - p_i|.
    Wide apart = 0, longest = 0, imbalance = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (member[i]) {
            longest = std::max(longest, token_length[i]);
            continue;
        }
        imbalance += std::abs(mass - row.p[i]);
        for (std::size_t rank = 0; rank < selected; ++rank) {
            const double *const a = row.x[i], *const b = row.x[order[rank]];
            Wide square = 0;
            for (std::size_t c = 0; c < d; ++c) square += (Wide(a[c]) - b[c]) * (Wide(a[c]) - b[c]);
            apart = std::max(apart, square);
        }
    }
    apart = std::sqrt(apart);
    found.figure(entry, "distance_bound", tail * apart + longest * imbalance,
                 e * (tail * apart + longest * ((l - k) * mass + tail)), where);

    // Theorem 1(2): (L-N)/L sum mu_i and (L-N)/L sum sqrt(mu_i^2 + V_i).
    const Wide share = k / (l - 1), variance = n > 2 ? k * (l - 1 - k) / ((l - 1) * (l - 2)) : Wide(0);
    Wide lower = 0, upper = 0, lower_error = 0, upper_error = 0;
    for (std::size_t i = 0; i < n; ++i) {
        Wide mean = 0, others = 0;
        for (std::size_t c = 0; c < d; ++c) {
            const Wide sum = s[c] + rest[c] - y(i, c), difference = y(i, c) - share * sum;
            mean += difference * difference;
            others += sum * sum;
        }
        const Wide spread = std::max(Wide(0), squares - length[i] * length[i] - others / (l - 1));
        const Wide value = std::sqrt(mean + variance * spread), reach = 2 * length[i] + share * total;
        lower += std::sqrt(mean);
        upper += value;
        // Squares are known to e of the squared lengths; where they cancel by more than 1e-4 the vector itself
        // is taken, so a root is off by at most 100 e of the lengths.
        lower_error += 100 * e * reach;
        const Wide square_error = 8 * e * (reach * reach + variance * (squares + total * total / (l - 1)));
        upper_error +=
            std::max(100 * e * reach, value > 0 ? std::min(std::sqrt(square_error), square_error / value)
                                                : std::sqrt(square_error));
    }
    const Wide left = (l - k) / l;
    found.figure(entry, "expected_distance_lower", left * lower, left * lower_error, where);
    found.figure(entry, "expected_distance_upper", left * upper, left * upper_error, where);

    // Separability, and whether rounding could decide it otherwise.
    Wide nearest = infinity, farthest = 0, margin_error = 0;
    for (std::size_t i = 0; i < n; ++i) {
        margin_error = std::max(margin_error, 2 * e * (inner + length[i]));
        if (member[i])
            farthest = std::max(farthest, distance[i]);
        else
            nearest = std::min(nearest, distance[i]);
    }
    found.figure(entry, "margin", nearest - farthest, margin_error, where);
    // D grows with D^2 - |s|^2 = |y|^2 - 2 <y,s>, which tells light tokens apart where D rounds to |s|.
    std::size_t recalled = 0, confused = 0, in_ball = 0;
    bool doubt = false, intruder = false;
    std::vector<char> beaten(n, 0);
    for (std::size_t i = 0; i < n; ++i) {
        if (radius) {
            doubt = doubt || std::abs(distance[i] - Wide(*radius)) <= e * (inner + length[i]);
            if (member[i])
                in_ball += distance[i] < Wide(*radius);
            else
                intruder = intruder || distance[i] < Wide(*radius);
        }
        if (!member[i]) continue;
        for (std::size_t j = 0; j < n; ++j) {
            if (member[j]) continue;
            bool same = true;
            for (std::size_t c = 0; c < d && same; ++c) same = y(i, c) == y(j, c);
            if (offset[j] <= offset[i]) beaten[i] = beaten[j] = 1;
            if (same && (row.exact_logits || length[i] == 0)) continue; // a tie, and one in double too
            const bool near = std::min(distance[i], distance[j]) < (1 + e) * s_length / 2;
            doubt =
                doubt ||
                (near
                     ? std::abs(distance[i] - distance[j]) <= e * (2 * inner + length[i] + length[j])
                     : std::abs(offset[i] - offset[j]) <=
                           2 * e * (length[i] * (length[i] + 2 * inner) + length[j] * (length[j] + 2 * inner)));
        }
    }
    (doubt ? found.undecided : found.decided) += 1;
    for (const char* name : {"separable_fraction", "precision", "recall", "f_score"})
        found.expect(entry.at(name).is_number() && entry.at(name) >= 0 && entry.at(name) <= 1,
                     where + " " + name);
    if (doubt) return;
    // beaten: a selected key that some other key is no farther than; another key that is no farther than some
    // selected one.
    for (std::size_t i = 0; i < n; ++i)
        if (member[i])
            recalled += !beaten[i];
        else
            confused += beaten[i] != 0;
    const Wide precision = k / (k + static_cast<Wide>(confused)), recall = static_cast<Wide>(recalled) / k;
    found.figure(entry, "precision", precision, 4 * unit, where);
    found.figure(entry, "recall", recall, 4 * unit, where);
    found.figure(entry, "f_score", recall > 0 ? 2 * precision * recall / (precision + recall) : Wide(0),
                 8 * unit, where);
    found.figure(entry, "separable_fraction",
                 !radius    ? recall
                 : intruder ? Wide(0)
                            : static_cast<Wide>(in_ball) / k,
                 4 * unit, where);
}

/// Every selection figure of the report of `input`.
Findings inspect(const Json& json, const Input& input) {
    Findings found;
    const Tensor& source = input.queries();
    REQUIRE(json.at("heads").size() == static_cast<std::size_t>(source.layers() * source.heads()));
    std::size_t at = 0, selections = 0, rows_with_v = 0;
    for (Index layer = 0; layer < source.layers(); ++layer)
        for (Index head = 0; head < source.heads(); ++head) {
            const Json& entry = json.at("heads").at(at++);
            std::map<Index, std::map<std::string, std::pair<Wide, Wide>>> sums; // of n and figure: sum, rows
            for (Index query = 0; query < source.rows(); ++query) {
                const Json& list = entry.at("rows").at(static_cast<std::size_t>(query)).at("selection");
                const Row row = read_row(input, layer, head, query);
                const std::string where =
                    "(" + std::to_string(layer) + "," + std::to_string(head) + ") row " + std::to_string(query);
                std::vector<Index> expected;
                for (const Index n : input.select)
                    if (row.normal && n < static_cast<Index>(row.p.size())) expected.push_back(n);
                if (list.size() != expected.size()) {
                    found.expect(false, where + ": " + std::to_string(list.size()) + " selections");
                    continue;
                }
                std::vector<std::size_t> order(row.p.size());
                std::iota(order.begin(), order.end(), std::size_t(0));
                std::stable_sort(order.begin(), order.end(),
                                 [&](std::size_t a, std::size_t b) { return row.z[a] > row.z[b]; });
                for (std::size_t i = 0; i < expected.size(); ++i) {
                    const Json& figures = list.at(i);
                    std::set<std::string> keys;
                    for (const auto& item : figures.items()) keys.insert(item.key());
                    found.expect(keys == selection_keys, where + " keys");
                    found.expect(figures.at("n") == expected[i], where + " n");
                    for (const auto& item : figures.items())
                        if (item.key() != "n" && item.value().is_number()) {
                            auto& [sum, rows] = sums[expected[i]][item.key()];
                            sum += item.value().get<double>();
                            rows += 1;
                        }
                    ++selections;
                    rows_with_v += !row.x.empty();
                    // Logits too close to be told apart in double may be ranked either way, and so may weights
                    // that underflow; equal stored logits are a tie that the smaller index wins.
                    const auto last = order[static_cast<std::size_t>(expected[i]) - 1],
                               next = order[static_cast<std::size_t>(expected[i])];
                    const bool tie = row.exact_logits && row.z[last] == row.z[next];
                    if (!tie && ((row.z[last] - row.z[next]) / Wide(input.temperature) <= row.weight_error ||
                                 row.p[last] < 1e-300L)) {
                        ++found.undecided;
                        continue;
                    }
                    compare_selection(figures, row, expected[i], input.radius, order,
                                      where + " N " + std::to_string(expected[i]), found);
                }
            }
            // The mean of each figure over the rows that have it.
            const Json& means = entry.at("mean").at("selection");
            found.expect(means.size() == sums.size(), "number of means");
            for (const Json& mean : means) {
                auto& figures = sums[mean.at("n").get<Index>()];
                for (const std::string& key : selection_keys) {
                    if (key == "n") continue;
                    const auto& [sum, rows] = figures[key];
                    const std::string where = "mean (" + std::to_string(layer) + "," + std::to_string(head) +
                                              ") N " + mean.at("n").dump();
                    if (rows == 0) {
                        found.expect(mean.at(key).is_null(), where + " " + key + " is not null");
                        continue;
                    }
                    // Margins have both signs; no mean is smaller than rounding of the largest term allows.
                    const Wide value = mean.at(key).get<double>();
                    found.expect(std::abs(value - sum / rows) <=
                                     1e-12L * (std::abs(sum / rows) + Wide(key == "margin")),
                                 where + " " + key);
                }
            }
        }

    std::set<std::string> ids;
    for (const Json& entry : json.at("audit")) {
        ids.insert(entry.at("id").get<std::string>());
        if (entry.at("form") == "sharp")
            found.expect(entry.at("violated") == 0, "audit: " + entry.at("id").dump() + " violated");
        if (entry.at("id") == "theorem1_fixed") // the top N and one random set, for every N
            found.expect(entry.at("checked") == 2 * rows_with_v, "audit: theorem1_fixed " + entry.dump());
    }
    found.expect(ids == statement_ids, "ids of the audit");
    found.expect(selections > 0, "no selection");
    return found;
}

Findings compare(const Json& json, const Input& input) {
    Findings found = inspect(json, input);
    CHECK(found.checks > 10);
    INFO(found.text << found.wrong << " of " << found.checks << " wrong");
    CHECK(found.wrong == 0);
    CHECK(found.worst < Wide(1e-8));
    return found;
}

std::size_t violated(const Json& json, const std::string& id) {
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == id && entry.at("form") == "published") return entry.at("violated");
    return 0;
}

const std::string some_n = "1,5,10,20,100";
const std::vector<Index> some_n_list = {1, 5, 10, 20, 100};

} // namespace

TEST_CASE("io selection report: q, k and v of float, causal", "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    input.tensors = {{"q", normal_tensor({2, 3, 40, 8}, 1, 2)},
                     {"k", normal_tensor({2, 3, 40, 8}, 2, 2)},
                     {"v", normal_tensor({2, 3, 40, 6}, 3)}};
    input.causal = true;
    const std::string path = input.write<float>(folder);
    SECTION("the default N") {
        const Json json = run_json(folder, {path});
        const Findings found = compare(json, input);
        CHECK(found.undecided * 50 < found.decided);
        CHECK(violated(json, "theorem1_fixed") > 0);
        CHECK(violated(json, "theorem1_random") > 0);
        CHECK(violated(json, "theorem2_upper") > 0);
    }
    SECTION("N in any order, each once, some beyond every row") {
        input.select = {1, 3, 39, 40, 41};
        compare(run_json(folder, {path, "--select", "41,3,1,3,40,39"}), input);
    }
    SECTION("hot and cold") {
        for (const double temperature : {0.1, 10.0}) {
            input.temperature = temperature;
            compare(run_json(folder, {path, "--temperature", std::to_string(temperature)}), input);
        }
    }
    SECTION("a ball of fixed radius, with P's proviso") {
        input.radius = 0.5;
        const Json json = run_json(folder, {path, "--ball-radius", "0.5"});
        compare(json, input);
        std::set<double> fractions;
        for (const Json& head : json.at("heads"))
            for (const Json& row : head.at("rows"))
                for (const Json& figures : row.at("selection"))
                    fractions.insert(figures.at("separable_fraction").get<double>());
        CHECK(fractions.size() > 2);
    }
    SECTION("the resultant reading changes the audit, not the figures") {
        const Json json = run_json(folder, {path, "--reading", "resultant"});
        compare(json, input);
    }
    SECTION("without v") {
        input.tensors.erase("v");
        compare(run_json(folder, {input.write<double>(folder), "--select", "1,7"}), [&] {
            input.select = {1, 7};
            return input;
        }());
    }
}

TEST_CASE("io selection report: the comparison notices a figure that is off by 1e-5",
          "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    input.tensors = {{"q", normal_tensor({1, 12, 8}, 11, 2)},
                     {"k", normal_tensor({1, 12, 8}, 12, 2)},
                     {"v", normal_tensor({1, 12, 6}, 13)}};
    input.causal = true;
    const Json json = run_json(folder, {input.write<float>(folder)});
    REQUIRE(inspect(json, input).wrong == 0);
    for (const std::string& key : selection_keys) {
        Json changed = json;
        Json& figure = changed["heads"][0]["rows"][9]["selection"][1][key];
        if (key == "n")
            figure = 3;
        else
            figure = figure.get<double>() == 0 ? 1e-5 : figure.get<double>() * (1 + 1e-5);
        INFO(key);
        CHECK(inspect(changed, input).wrong > 0);
        if (key == "n") continue;
        changed = json;
        Json& mean = changed["heads"][0]["mean"]["selection"][1][key];
        mean = mean.get<double>() * (1 + 1e-5) + 1e-9;
        CHECK(inspect(changed, input).wrong == 1);
    }
}

TEST_CASE("io selection report: grouped heads, fewer queries than keys, double", "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    input.tensors = {{"q", normal_tensor({2, 6, 5, 8}, 21, 2)},
                     {"k", normal_tensor({2, 2, 12, 8}, 22, 2)},
                     {"v", normal_tensor({2, 3, 12, 4}, 23)}};
    input.causal = true;
    compare(run_json(folder, {input.write<double>(folder)}), input);
}

TEST_CASE("io selection report: logits with ties, masked keys, NaN and infinity", "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    input.tensors = {{"logits", normal_tensor({2, 12, 11}, 31, 2)}, {"v", normal_tensor({2, 11, 3}, 32)}};
    Tensor& logits = input.tensors["logits"];
    const auto row = [&](std::size_t head, std::size_t query) {
        return logits.values.begin() + std::ptrdiff_t((head * 12 + query) * 11);
    };
    for (std::size_t head = 0; head < 2; ++head) {
        for (std::ptrdiff_t key = 0; key < 11; ++key) {
            row(head, 1)[key] = 0.25;                                                       // all equal
            row(head, 2)[key] = static_cast<double>(key % 3);                               // ties of four
            if (key % 2 == 0) row(head, 3)[key] = -std::numeric_limits<double>::infinity(); // masked
            row(head, 4)[key] = key == 7 ? 0 : -std::numeric_limits<double>::infinity();    // one key
            row(head, 5)[key] = -std::numeric_limits<double>::infinity();                   // none
            row(head, 8)[key] = key == 4 ? 40 : -static_cast<double>(key) / 4;              // nearly one-hot
        }
        row(head, 6)[2] = std::numeric_limits<double>::quiet_NaN();
        row(head, 7)[3] = std::numeric_limits<double>::infinity();
    }
    SECTION("values as they come") {}
    SECTION("duplicated values and a sink without value") {
        Tensor& v = input.tensors["v"];
        for (std::size_t i = 0; i < v.values.size(); ++i) {
            const std::size_t token = i / 3 % 11;
            if (token == 0) v.values[i] = 0;
            if (token > 3) v.values[i] = v.values[i - 9];
        }
    }
    const Findings found =
        compare(run_json(folder, {input.write<double>(folder), "--select", "1,2,3,4,8"}), [&] {
            input.select = {1, 2, 3, 4, 8};
            return input;
        }());
    CHECK(found.decided > 3 * found.undecided);
}

TEST_CASE("io selection report: stored weights, some of them 0", "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    Tensor weights = normal_tensor({2, 2, 6, 9}, 41);
    for (std::size_t i = 0; i < weights.values.size(); i += 9) {
        double sum = 0;
        for (std::size_t j = i; j < i + 9; ++j)
            sum += weights.values[j] = j % 5 == 0 ? 0 : std::exp(2 * weights.values[j]);
        for (std::size_t j = i; j < i + 9; ++j) weights.values[j] /= sum;
    }
    input.tensors = {{"weights", weights}, {"v", normal_tensor({2, 1, 9, 4}, 42)}};
    const std::string path = input.write<float>(folder);
    compare(run_json(folder, {path}), input);
    input.temperature = 0.5;
    compare(run_json(folder, {path, "--temperature", "0.5"}), input);
}

TEST_CASE("io selection report: N, reading and radius that make no sense are refused",
          "[io][report][selection]") {
    const TemporaryFolder folder;
    Input input;
    input.tensors = {{"logits", normal_tensor({1, 3, 4}, 51)}};
    const std::string path = input.write<double>(folder);
    for (const std::vector<std::string>& bad : {std::vector<std::string>{"--select", "0"},
                                                {"--select", "2,-1"},
                                                {"--select", "two"},
                                                {"--reading", "sideways"},
                                                {"--ball-radius", "0"},
                                                {"--ball-radius", "-1"},
                                                {"--ball-radius", "wide"}}) {
        std::vector<std::string> arguments = {path};
        arguments.insert(arguments.end(), bad.begin(), bad.end());
        const Outcome outcome = run(folder, arguments);
        INFO(bad[0] << " " << bad[1]);
        CHECK(outcome.status == 2);
        CHECK(outcome.err.find(bad[0]) != std::string::npos);
    }
}

TEST_CASE("io selection report: real GPT-2 heads, nine tokens", "[io][report][selection][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path)) ATTNSCOPE_SKIP(path + " is not there");
    const TemporaryFolder folder;
    Input input = read_input(path);
    input.select = some_n_list;
    REQUIRE(input.causal); // the file says so
    const Json json = run_json(folder, {path, "--select", some_n});
    const Findings found = compare(json, input);
    INFO(found.undecided << " too close to call, worst relative error " << static_cast<double>(found.worst));
    CHECK(found.decided == 144 * (8 + 4)); // N = 1 on eight rows of nine, N = 5 on four
    CHECK(violated(json, "theorem1_fixed") > 0);
    CHECK(violated(json, "theorem1_random") > 0);
    CHECK(violated(json, "theorem2_upper") > 0);
}

TEST_CASE("io selection report: a real model's heads, 192 tokens", "[io][report][selection][data]") {
    const std::string path = attnscope_test::data_folder() + "/tiny-gpt2/reference_192.safetensors";
    if (!std::filesystem::exists(path)) ATTNSCOPE_SKIP(path + " is not there");
    const TemporaryFolder folder;
    Input input = read_input(path);
    input.select = some_n_list;
    REQUIRE(input.causal); // the file says so
    // Beyond twelve keys expectations are means over drawn sets, and what the published Theorem 1(2) misses is of the
    // size of their standard errors: whether a row shows it depends on the draws. Those of seed 2 do.
    const Json json = run_json(folder, {path, "--select", some_n, "--seed", "2"});
    const Findings found = compare(json, input);
    INFO(found.undecided << " too close to call, worst relative error " << static_cast<double>(found.worst));
    CHECK(found.decided > 8 * 800);
    CHECK(found.undecided * 50 < found.decided);
    CHECK(violated(json, "theorem1_fixed") > 0);
    CHECK(violated(json, "theorem1_random") > 0);
    CHECK(violated(json, "theorem2_upper") > 0);
}

#endif
