// Rows with token vectors on which selections are tested, and independent references for them: the definitions
// as plain loops in long double.
#pragma once

#include <support/scalars.hpp>

#include <attnscope/types.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

namespace attnscope_test {

using attnscope::Matrix;
using attnscope::MatrixView;

/// Weights of n keys and their vectors [n, d].
template <class T>
struct Tokens {
    Index n = 0, d = 0;
    std::vector<T> p, x;
    Where where;

    std::span<const T> weights() const { return p; }
    MatrixView<T> vectors() const { return {x.data(), n, d}; }
    Ref weight(Index i) const { return p[static_cast<std::size_t>(i)]; }
    Ref at(Index i, Index c) const { return x[static_cast<std::size_t>(i * d + c)]; }
    /// Component of y_i = p_i x_i.
    Ref y(Index i, Index c) const { return weight(i) * at(i, c); }
    Ref length(Index i) const { // |x_i|
        Ref sum = 0;
        for (Index c = 0; c < d; ++c) sum += at(i, c) * at(i, c);
        return std::sqrt(sum);
    }
    Ref apart(Index i, Index j) const { // |x_i - x_j|
        Ref sum = 0;
        for (Index c = 0; c < d; ++c) sum += (at(i, c) - at(j, c)) * (at(i, c) - at(j, c));
        return std::sqrt(sum);
    }
    Ref total_length() const { // sum |y_i|
        Ref sum = 0;
        for (Index i = 0; i < n; ++i) sum += weight(i) * length(i);
        return sum;
    }
    Ref longest() const {
        Ref most = 0;
        for (Index i = 0; i < n; ++i) most = std::max(most, length(i));
        return most;
    }
};

inline Ref norm_of(const RefRow& v) {
    Ref sum = 0;
    for (const Ref x : v) sum += x * x;
    return std::sqrt(sum);
}

/// Everything that definitions say about one set of selected keys.
struct RefSelection {
    std::vector<char> member;
    Index count = 0;
    RefRow s, rest; // sums of y over the selected and over the others
    Ref mass = 0, tail = 0;
    RefRow distance;                           // |y_i - s|
    RefRow own_length;                         // |y_i|
    Ref selected_length = 0, total_length = 0; // sum |y_j| over the selected, over all
    Ref cumulative = 0, resultant = 0;
    Ref longest = 0, imbalance = 0; // max |x_j| over the selected; sum |A - p_i| over the others
};

template <class T>
RefSelection reference_selection(const Tokens<T>& tokens, std::span<const Index> selected) {
    RefSelection r;
    const auto n = static_cast<std::size_t>(tokens.n), d = static_cast<std::size_t>(tokens.d);
    r.member.assign(n, 0);
    r.s.assign(d, 0);
    r.rest.assign(d, 0);
    for (const Index i : selected) r.member[static_cast<std::size_t>(i)] = 1;
    r.count = static_cast<Index>(selected.size());
    for (Index i = 0; i < tokens.n; ++i) {
        const bool in_set = r.member[static_cast<std::size_t>(i)] != 0;
        (in_set ? r.mass : r.tail) += tokens.weight(i);
        for (Index c = 0; c < tokens.d; ++c)
            (in_set ? r.s : r.rest)[static_cast<std::size_t>(c)] += tokens.y(i, c);
        const Ref length = tokens.length(i);
        r.own_length.push_back(tokens.weight(i) * length);
        r.total_length += r.own_length.back();
        if (in_set) {
            r.selected_length += r.own_length.back();
            r.longest = std::max(r.longest, length);
        }
    }
    RefRow difference(d);
    for (Index i = 0; i < tokens.n; ++i) {
        for (Index c = 0; c < tokens.d; ++c)
            difference[static_cast<std::size_t>(c)] = r.s[static_cast<std::size_t>(c)] - tokens.y(i, c);
        r.distance.push_back(norm_of(difference));
        if (r.member[static_cast<std::size_t>(i)] != 0) continue;
        r.cumulative += r.distance.back();
        r.imbalance += std::abs(r.mass - tokens.weight(i));
    }
    for (std::size_t c = 0; c < d; ++c) difference[c] = r.rest[c] - r.s[c];
    r.resultant = norm_of(difference);
    return r;
}

/// d1 = max |x_i - x_j| over i not selected, j selected.
template <class T>
Ref reference_spread(const Tokens<T>& tokens, const RefSelection& r) {
    Ref most = 0;
    for (Index i = 0; i < tokens.n; ++i) {
        if (r.member[static_cast<std::size_t>(i)] != 0) continue;
        for (Index j = 0; j < tokens.n; ++j)
            if (r.member[static_cast<std::size_t>(j)] != 0) most = std::max(most, tokens.apart(i, j));
    }
    return most;
}

/// Keys by descending weight, ties by smaller index, by selection sort.
template <class T>
std::vector<Index> reference_order(std::span<const T> scores) {
    std::vector<Index> order;
    std::vector<char> taken(scores.size(), 0);
    for (std::size_t rank = 0; rank < scores.size(); ++rank) {
        std::size_t best = scores.size();
        for (std::size_t i = 0; i < scores.size(); ++i)
            if (taken[i] == 0 && (best == scores.size() || scores[i] > scores[best])) best = i;
        taken[best] = 1;
        order.push_back(static_cast<Index>(best));
    }
    return order;
}

/// Unit roundoff of a computation in the accumulator of T that is compared with one in long double.
template <class T>
inline constexpr Ref compared_unit = unit_roundoff<SumScalar<T>> + unit_roundoff<Ref>;

/// Rounding error of |s - y_i| taken directly: the sum s and the products p x are exact to (N+1)u of their
/// lengths, the norm to (d/2 + 2)u.
template <class T>
Ref direct_distance_error(const Tokens<T>& tokens, const RefSelection& r, std::size_t i) {
    return compared_unit<T> * static_cast<Ref>(r.count + tokens.d + 8) * (r.selected_length + r.own_length[i]);
}

// ---- rows
// -----------------------------------------------------------------------------------------------------

struct WeightFamily {
    std::string_view name;
    void (*fill)(SplitMix64&, std::span<double>);
};
struct VectorFamily {
    std::string_view name;
    void (*fill)(SplitMix64&, Index, std::span<double>); // d, [n d]
};

namespace families {

inline void normalise(std::span<double> p) {
    double sum = 0;
    for (const double w : p) sum += w;
    for (double& w : p) w /= sum;
}
inline void softmax_weights(SplitMix64& random, std::span<double> p, double spread) {
    for (double& w : p) w = std::exp(spread * random.normal());
    normalise(p);
}
inline void flat_weights(SplitMix64& random, std::span<double> p) { softmax_weights(random, p, 0.5); }
inline void sharp_weights(SplitMix64& random, std::span<double> p) { softmax_weights(random, p, 3); }
inline void uniform_weights(SplitMix64&, std::span<double> p) {
    std::fill(p.begin(), p.end(), 1 / static_cast<double>(p.size()));
}
inline void one_hot_weights(SplitMix64& random, std::span<double> p) {
    std::fill(p.begin(), p.end(), 0.0);
    p[static_cast<std::size_t>(random.below(static_cast<Index>(p.size())))] = 1;
}
inline void sink_weights(SplitMix64& random, std::span<double> p) {
    softmax_weights(random, p, 1);
    p[0] = 50;
    normalise(p);
}
inline void tied_weights(SplitMix64& random, std::span<double> p) {
    for (double& w : p) w = 1 + static_cast<double>(random.below(3));
    normalise(p);
}

inline void normal_vectors(SplitMix64& random, Index, std::span<double> x) {
    for (double& c : x) c = random.normal();
}
inline void unit_vectors(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(d)) {
        const std::span<double> row = x.subspan(i, static_cast<std::size_t>(d));
        double square = 0;
        for (const double c : row) square += c * c;
        for (double& c : row) c /= std::sqrt(square);
    }
}
/// Three different vectors at most.
inline void duplicates(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    const auto width = static_cast<std::size_t>(d);
    for (std::size_t i = 3 * width; i < x.size(); i += width) {
        const std::size_t from = width * static_cast<std::size_t>(random.below(3));
        for (std::size_t c = 0; c < width; ++c) x[i + c] = x[from + c];
    }
}
/// Key 0, which the sink weights prefer, has no value.
inline void zero_sink(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) x[c] = 0;
}
/// Most tokens are x_j = x_i (1 + e) for an earlier x_i, e between 1e-7 and 1e-4.
inline void near_ties(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    const auto width = static_cast<std::size_t>(d);
    for (std::size_t i = width; i < x.size(); i += width) {
        if (random.below(4) == 0) continue;
        const std::size_t from = width * static_cast<std::size_t>(random.below(static_cast<Index>(i / width)));
        const double factor = 1 + std::pow(10.0, -4 - 3 * random.uniform());
        for (std::size_t c = 0; c < width; ++c) x[i + c] = x[from + c] * factor;
    }
}
/// All tokens near one vector, 300 times as long as what tells them apart.
inline void common_mean(SplitMix64& random, Index d, std::span<double> x) {
    const auto width = static_cast<std::size_t>(d);
    std::vector<double> mean(width);
    for (double& c : mean) c = 300 * random.normal();
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = mean[i % width] + random.normal();
}
inline void equal_vectors(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    for (std::size_t i = static_cast<std::size_t>(d); i < x.size(); ++i)
        x[i] = x[i - static_cast<std::size_t>(d)];
}
/// Lengths from 1e-6 to 1e6.
inline void mixed_lengths(SplitMix64& random, Index d, std::span<double> x) {
    normal_vectors(random, d, x);
    double factor = 1;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (i % static_cast<std::size_t>(d) == 0) factor = std::pow(10.0, 12 * random.uniform() - 6);
        x[i] *= factor;
    }
}

} // namespace families

inline constexpr std::array<WeightFamily, 6> weight_families = {{
    {"flat", families::flat_weights},
    {"sharp", families::sharp_weights},
    {"uniform", families::uniform_weights},
    {"one_hot", families::one_hot_weights},
    {"sink", families::sink_weights},
    {"tied", families::tied_weights},
}};
inline constexpr std::array<VectorFamily, 8> vector_families = {{
    {"normal", families::normal_vectors},
    {"unit", families::unit_vectors},
    {"duplicates", families::duplicates},
    {"zero_sink", families::zero_sink},
    {"near_ties", families::near_ties},
    {"common_mean", families::common_mean},
    {"equal", families::equal_vectors},
    {"mixed_lengths", families::mixed_lengths},
}};

/// "weights/vectors", alive as long as the program.
inline std::string_view pair_name(std::size_t weights, std::size_t vectors) {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const WeightFamily& w : weight_families)
            for (const VectorFamily& v : vector_families)
                all.push_back(std::string(w.name) + " weights, " + std::string(v.name) + " vectors");
        return all;
    }();
    return names[weights * vector_families.size() + vectors];
}

template <class T>
Tokens<T> make_tokens(SplitMix64& random, std::size_t weights, std::size_t vectors, Index n, Index d) {
    std::vector<double> p(static_cast<std::size_t>(n)), x(static_cast<std::size_t>(n * d));
    weight_families[weights].fill(random, p);
    vector_families[vectors].fill(random, d, x);
    return {n, d, narrow<T>(p), narrow<T>(x),
            Where{pair_name(weights, vectors), static_cast<std::size_t>(n), 1, test_seed(), scalar_name<T>(),
                  "selection"}};
}

/// Calls f(tokens, random) for every pair of families and every shape (n, d).
template <class T, std::size_t Shapes, class F>
void for_each_tokens(std::uint64_t seed, const std::array<std::pair<Index, Index>, Shapes>& shapes, F&& f) {
    for (std::size_t w = 0; w < weight_families.size(); ++w)
        for (std::size_t v = 0; v < vector_families.size(); ++v)
            for (const auto& [n, d] : shapes) {
                SplitMix64 random = generator(seed, w, v, n, d);
                const Tokens<T> tokens = make_tokens<T>(random, w, v, n, d);
                f(tokens, random);
            }
}

/// A row written out.
template <class T = double>
Tokens<T> tokens_of(std::vector<T> p, std::vector<T> x) {
    const auto n = static_cast<Index>(p.size()), d = static_cast<Index>(x.size()) / n;
    return {n, d, std::move(p), std::move(x), Where{"written out", static_cast<std::size_t>(n)}};
}

/// N distinct random keys of n.
inline std::vector<Index> random_subset(SplitMix64& random, Index n, Index count) {
    std::vector<Index> keys(static_cast<std::size_t>(n));
    std::iota(keys.begin(), keys.end(), Index(0));
    for (Index i = 0; i < count; ++i)
        std::swap(keys[static_cast<std::size_t>(i)], keys[static_cast<std::size_t>(i + random.below(n - i))]);
    keys.resize(static_cast<std::size_t>(count));
    return keys;
}

/// Calls f(subset) for every N-subset of 0 ... n-1.
template <class F>
void for_each_subset(Index n, Index count, F&& f) {
    std::vector<Index> subset(static_cast<std::size_t>(count));
    const std::function<void(Index, Index)> choose = [&](Index chosen, Index from) {
        if (chosen == count) {
            f(std::span<const Index>(subset));
            return;
        }
        for (Index key = from; key < n; ++key) {
            subset[static_cast<std::size_t>(chosen)] = key;
            choose(chosen + 1, key + 1);
        }
    };
    choose(0, 0);
}

/// sum theta_k p_k^2 with theta_{k-1} = theta_k (1 - 2 theta_k p_k^2/d), by its definition.
inline Ref exponent_of(std::vector<double> p, Index d, Ref theta, bool largest_first) {
    std::sort(p.begin(), p.end());
    if (largest_first) std::reverse(p.begin(), p.end());
    Ref sum = 0;
    for (const double w : p) {
        const Ref term = theta * w * w;
        sum += term;
        theta *= 1 - 2 * term / static_cast<Ref>(d);
    }
    return sum;
}

} // namespace attnscope_test
