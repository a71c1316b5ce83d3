// What attnscope-report must say: every figure of every row in its JSON recomputed from the input by plain loops in long
// double that share no code with the library.
#pragma once

#include <support/report_program.hpp>

#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace report_test {

using Wide = long double;

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

inline Function function_of(const std::string& name) {
    if (name == "softplus")
        return {[](Wide x) { return std::log1p(std::exp(x)); }, [](Wide x) { return 1 / (1 + std::exp(-x)); }};
    if (name == "sigmoidsum")
        return {[](Wide x) { return 1 / (1 + std::exp(-x)); },
                [](Wide x) { return std::exp(-x) / ((1 + std::exp(-x)) * (1 + std::exp(-x))); }};
    return {[](Wide x) { return x * x + 1; }, [](Wide x) { return 2 * x; }};
}

inline Expected expected_row(const Input& input, const Asked& asked, Index layer, Index head, Index query) {
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
inline std::vector<std::vector<Wide>> jacobian(const Expected& row) {
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
inline bool exceeds_square(const std::vector<std::vector<Wide>>& j, Wide x) {
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

inline std::set<std::string> keys_of(const Json& object) {
    std::set<std::string> keys;
    for (const auto& item : object.items()) keys.insert(item.key());
    return keys;
}

inline const std::set<std::string> row_keys = {
    "query",        "visible",    "argmax",        "log_sum_exp",      "max_logit",
    "entropy_nats", "max_weight", "second_weight", "first_key_weight", "participation_ratio",
    "logit_spread", "jacobian",   "selection"};
inline const std::set<std::string> norm_keys = {"spectral", "frobenius", "one", "column", "max_entry"};
inline const std::set<std::string> selection_keys = {"n",
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
inline const std::set<std::string> audit_keys = {
    "id",      "form",     "provenance", "checked",       "holds",           "within_rounding",
    "vacuous", "violated", "undefined",  "max_tightness", "median_tightness"};

/// The figures of one top-N selection by their definitions. `x`: token vectors of the visible keys.
inline void compare_selection(const Json& json, const Expected& row, const std::vector<std::vector<double>>& x,
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

inline void compare_row(const Json& json, const Expected& row, const Input& input, const Asked& asked,
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

    if (row.normal) { // which of several that rounding cannot tell apart is not said
        const auto key = json.at("argmax").is_number_unsigned()
                             ? std::find(row.seen.begin(), row.seen.end(), json.at("argmax").get<Index>())
                             : row.seen.end();
        found.expect(key != row.seen.end() && row.p[static_cast<std::size_t>(key - row.seen.begin())] >=
                                                  row.largest * (1 - 2 * static_cast<Wide>(row.relative)),
                     where, " argmax: ", json.at("argmax").dump());
    } else {
        found.expect(json.at("argmax").is_null(), where, " argmax: ", json.at("argmax").dump());
    }

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

/// min{1/(2+(L-2)/kappa), p1, 2 p1 (1-p1)} over the L weights that a double holds, kappa = p1/min p.
inline Wide limit_by_weights(std::vector<Wide> p) {
    std::erase_if(p, [](Wide x) { return x < std::numeric_limits<double>::min(); });
    std::sort(p.begin(), p.end());
    Wide rest = 0; // 1 - p1, added up
    for (std::size_t i = 0; i + 1 < p.size(); ++i) rest += p[i];
    return std::min(
        {1 / (2 + (static_cast<Wide>(p.size()) - 2) * p.front() / p.back()), p.back(), 2 * p.back() * rest});
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
inline void compare(const Json& json, const Input& input, const Asked& asked) {
    Findings found;
    CHECK(keys_of(json) == std::set<std::string>{"schema", "version", "input", "shape", "causal", "temperature",
                                                 "normalizer", "scalar", "streamed", "loss",
                                                 "max_weight_difference", "heads", "audit", "attention",
                                                 "masks", "stored_weights", "assumptions", "warnings"});
    CHECK(json.at("schema") == "attnscope.report/1");
    CHECK(json.at("version") == ATTNSCOPE_VERSION);
    CHECK(json.at("input") == input.name);
    CHECK(json.at("loss").is_null()); // of a model only
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
    std::size_t entry_at = 0, steep_rows = 0, surely_steep_rows = 0;
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
            mean_keys.erase("argmax");
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
                const Wide weight_limit = limit_by_weights(row.p);
                norm("lemma2", "sharp",
                     weight_limit * std::abs(*std::max_element(row.g.begin(), row.g.end(), [](Wide a, Wide b) {
                         return std::abs(a) < std::abs(b);
                     })));
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
                norm("corollary3", "sharp", weight_limit / temperature);
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
                if (name != "query" && name != "argmax" && name != "jacobian" && name != "selection" &&
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

} // namespace report_test
