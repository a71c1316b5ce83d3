// scan_distances against the definition in long double: d(N) = sum over the visible keys that are not selected
// of |s_N - y_i|, y_i = p_i x_i, s_N the sum of y over the N keys of the largest weights.
#include <attnscope/normalizer/entmax.hpp>
#include <attnscope/normalizer/self_adjusted_softmax.hpp>
#include <attnscope/normalizer/sigmoid_attention.hpp>
#include <attnscope/streaming/distance_scan.hpp>
#include <attnscope/streaming/selection_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/masked_heads.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::KeyRange;
using attnscope::Mask;
using attnscope::RowStatus;
using attnscope::Softmax;
using attnscope::Threads;
using attnscope::TileOptions;

namespace {

using Counts = std::vector<Index>;

constexpr std::array<Index, 8> all_counts = {1, 3, 5, 7, 10, 20, 100, 1000};
const std::array<Counts, 4> count_lists = {{{1, 5, 10, 20, 100}, {3, 7, 1000}, {1}, {}}};

/// Entries of q and k are multiples of 1/4 of at most this many quarters.
struct Strength {
    std::string_view name;
    Index q, k;
};
constexpr std::array<Strength, 5> strengths = {{{"uniform", 0, 2},
                                                {"flat", 1, 3},
                                                {"moderate", 8, 7},
                                                {"one-hot", 64, 16},
                                                {"extreme", 256, 16}}}; // logits up to 512, weights near 1e-308

template <class T>
Matrix<T> quarters(SplitMix64& random, Index rows, Index cols, Index most) {
    Matrix<T> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(random.below(2 * most + 1) - most) / 4;
    return m;
}

/// How short vectors get (and how long: the inverse): all of them alike, or beside others in one head, where
/// the shortest must be a number in units of the longest.
struct Extremes {
    double alone, beside;
};
template <class T>
constexpr Extremes extremes = std::is_same_v<T, float> ? Extremes{1e-25, 1e-25} : Extremes{1e-200, 1e-100};

struct ValueFamily {
    std::string_view name;
    void (*fill)(SplitMix64&, Index, const Extremes&, std::span<double>); // d, [keys d]
};

template <void (*fill)(SplitMix64&, Index, std::span<double>)>
void without_extremes(SplitMix64& random, Index d, const Extremes&, std::span<double> x) {
    fill(random, d, x);
}
/// Multiplies each vector by factor(key).
template <class Factor>
void scale_vectors(Index d, std::span<double> x, Factor&& factor) {
    for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(d)) {
        const double by = factor(static_cast<Index>(i) / d);
        for (double& c : x.subspan(i, static_cast<std::size_t>(d))) c *= by;
    }
}
void mostly_one(SplitMix64& random, Index d, const Extremes&, std::span<double> x) {
    families::normal_vectors(random, d, x);
    for (std::size_t i = static_cast<std::size_t>(d); i < x.size(); i += static_cast<std::size_t>(d))
        if (random.below(5) > 0) std::copy_n(x.begin(), d, x.begin() + static_cast<std::ptrdiff_t>(i));
}
void constant(SplitMix64& random, Index, const Extremes&, std::span<double> x) {
    std::fill(x.begin(), x.end(), 1 + random.uniform());
}
/// Keys 2j and 2j + 1 cancel.
void opposite(SplitMix64& random, Index d, const Extremes&, std::span<double> x) {
    families::normal_vectors(random, d, x);
    const auto width = static_cast<std::size_t>(d);
    for (std::size_t i = width; i + width <= x.size(); i += 2 * width)
        for (std::size_t c = 0; c < width; ++c) x[i + c] = -x[i + c - width];
}
void one_long(SplitMix64& random, Index d, const Extremes&, std::span<double> x) {
    families::normal_vectors(random, d, x);
    const Index far = random.below(static_cast<Index>(x.size()) / d);
    scale_vectors(d, x, [&](Index key) { return key == far ? 1e6 : 1.0; });
}
void tiny(SplitMix64& random, Index d, const Extremes& size, std::span<double> x) {
    families::normal_vectors(random, d, x);
    scale_vectors(d, x, [&](Index) { return size.alone; });
}
void huge(SplitMix64& random, Index d, const Extremes& size, std::span<double> x) {
    families::normal_vectors(random, d, x);
    scale_vectors(d, x, [&](Index) { return 1 / size.alone; });
}
/// The long ones come last: causal rows do not see them.
void tiny_then_huge(SplitMix64& random, Index d, const Extremes& size, std::span<double> x) {
    families::normal_vectors(random, d, x);
    const Index keys = static_cast<Index>(x.size()) / d;
    scale_vectors(d, x, [&](Index key) { return 4 * key >= 3 * keys ? 1 / size.beside : size.beside; });
}
void tiny_or_huge(SplitMix64& random, Index d, const Extremes& size, std::span<double> x) {
    families::normal_vectors(random, d, x);
    scale_vectors(d, x, [&](Index) { return random.below(2) == 0 ? 1 / size.beside : size.beside; });
}
void zero(SplitMix64&, Index, const Extremes&, std::span<double> x) { std::fill(x.begin(), x.end(), 0.0); }
void half_zero(SplitMix64& random, Index d, const Extremes&, std::span<double> x) {
    families::normal_vectors(random, d, x);
    scale_vectors(d, x, [&](Index) { return random.below(2) == 0 ? 0.0 : 1.0; });
}

constexpr std::array<ValueFamily, 15> value_families = {{
    {"normal", without_extremes<families::normal_vectors>},
    {"mostly one", mostly_one},
    {"near ties", without_extremes<families::near_ties>},
    {"common mean", without_extremes<families::common_mean>},
    {"equal", without_extremes<families::equal_vectors>},
    {"constant", constant},
    {"opposite", opposite},
    {"one long", one_long},
    {"mixed lengths", without_extremes<families::mixed_lengths>},
    {"tiny", tiny},
    {"huge", huge},
    {"tiny then huge", tiny_then_huge},
    {"tiny or huge", tiny_or_huge},
    {"zero", zero},
    {"half zero", half_zero},
}};

const ValueFamily& values(std::string_view name) {
    return *std::find_if(value_families.begin(), value_families.end(),
                         [&](const ValueFamily& family) { return family.name == name; });
}

/// A head whose logits are exact in any order of summation (scale 1/2), with equal keys and hence ties. Its
/// values lie apart, with NaN between them.
template <class T>
struct Head {
    Matrix<T> q, k;
    std::vector<T> v;
    Index d = 0, stride = 0;

    Head(SplitMix64& random, Index queries, Index keys, Index width, const Strength& strength,
         const ValueFamily& family)
        : q(quarters<T>(random, queries, 4, strength.q)), k(quarters<T>(random, keys, 4, strength.k)), d(width),
          stride(width + 3) {
        for (Index key = 1; key < keys; ++key)
            if (random.below(3) == 0) k.row(key) = k.row(random.below(key));
        v.assign(static_cast<std::size_t>(keys * stride), std::numeric_limits<T>::quiet_NaN());
        std::vector<double> x(static_cast<std::size_t>(keys * d));
        family.fill(random, d, extremes<T>, x);
        for (Index i = 0; i < keys * d; ++i)
            value(i / d, i % d) = static_cast<T>(x[static_cast<std::size_t>(i)]);
    }
    T& value(Index key, Index c) { return v[static_cast<std::size_t>(key * stride + c)]; }
    HeadView<T> view() const { return {q, k, MatrixView<T>(v.data(), k.rows(), d, stride)}; }
};

struct Distance {
    Index count;
    Ref value, tolerance, wide; ///< wide: the part of the tolerance that is rounding in the accumulator scalar
};

struct Expected {
    std::vector<Index> order;        ///< visible keys by descending weight; none unless the row is normal
    std::vector<Distance> distances; ///< none unless finite
    bool finite = true;              ///< all y
};

/// Rounding of s and of a difference from it in the accumulator scalar.
template <class T>
Ref wide_error(Index count, Index d, Ref selected, Ref own) {
    return compared_unit<T> * static_cast<Ref>(count + d + 8) * (selected + own);
}
/// Rounding of |s - y| in T: |s - y|^2 from its three terms, where it is not small, is off by at most
/// (d+8) u (|s|+|y|)^2. Small ones come from the difference.
template <class T>
Ref narrow_error(Index d, Ref s, Ref own, Ref distance) {
    constexpr Ref u = unit_roundoff<T>, small = std::is_same_v<T, float> ? Ref(1) / 4 : Ref(2e-4);
    Ref error = 2 * u * distance;
    if (distance > 0 && distance * distance >= 0.9L * small * s * s)
        error += static_cast<Ref>(d + 8) * u * (s + own) * (s + own) / (2 * distance);
    return error;
}

template <class T, class N>
Expected expected(const HeadView<T>& head, const N& normalizer, const Mask& mask, Index query) {
    // Weights as the normaliser gives them on the hull of the visible keys.
    const KeyRange hull = mask.visible(query, head.keys()).hull();
    std::vector<T> z(static_cast<std::size_t>(head.keys())), p(static_cast<std::size_t>(hull.size()));
    attnscope::logits_of(head, mask, query, out(z));
    const std::vector<T> row(z.begin() + hull.begin, z.begin() + hull.begin + hull.size());
    Expected result;
    if (normalizer.template apply<T>(in(row), out(p)) != RowStatus::normal) return result;
    const auto weight = [&](Index key) { return p[static_cast<std::size_t>(key - hull.begin)]; };
    for (Index key = 0; key < head.keys(); ++key)
        if (z[static_cast<std::size_t>(key)] > -std::numeric_limits<T>::infinity()) result.order.push_back(key);
    std::stable_sort(result.order.begin(), result.order.end(),
                     [&](Index a, Index b) { return weight(a) > weight(b); });

    const Index d = head.v().cols();
    const std::size_t n = result.order.size(), width = static_cast<std::size_t>(d);
    RefRow y(n * width), own(n), s(width);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t c = 0; c < width; ++c) {
            const Ref x = head.v().row(result.order[i])[c];
            y[i * width + c] = weight(result.order[i]) * x;
            own[i] += y[i * width + c] * y[i * width + c];
        }
        own[i] = std::sqrt(own[i]);
        result.finite = result.finite && std::isfinite(own[i]);
    }
    if (!result.finite) return result;
    Ref selected = 0;
    std::size_t taken = 0;
    for (const Index count : all_counts) {
        if (static_cast<std::size_t>(count) > n) break;
        for (; taken < static_cast<std::size_t>(count); ++taken) {
            for (std::size_t c = 0; c < width; ++c) s[c] += y[taken * width + c];
            selected += own[taken];
        }
        const Ref length = norm_of(s);
        Ref sum = 0, narrow = 0, wide = 0;
        for (std::size_t i = taken; i < n; ++i) {
            Ref square = 0;
            for (std::size_t c = 0; c < width; ++c)
                square += (s[c] - y[i * width + c]) * (s[c] - y[i * width + c]);
            const Ref distance = std::sqrt(square);
            sum += distance;
            narrow += narrow_error<T>(d, length, own[i], distance);
            wide += wide_error<T>(count, d, selected, own[i]);
        }
        result.distances.push_back({count, sum, narrow + wide + sum_error<T>(n - taken) * sum, wide});
    }
    return result;
}

template <class T, class N>
std::vector<Expected> expected_rows(const HeadView<T>& head, const N& normalizer, const Mask& mask) {
    std::vector<Expected> rows;
    for (Index query = 0; query < head.queries(); ++query)
        rows.push_back(expected(head, normalizer, mask, query));
    return rows;
}

struct Found {
    int visits = 0;
    std::vector<Index> keys;
    RefRow distances;
};

bool same(Ref a, Ref b) { return a == b || (std::isnan(a) && std::isnan(b)); }
bool same(const std::vector<Found>& a, const std::vector<Found>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Found& x, const Found& y) {
        return x.visits == y.visits && x.keys == y.keys &&
               std::equal(x.distances.begin(), x.distances.end(), y.distances.begin(), y.distances.end(),
                          [](Ref s, Ref t) { return same(s, t); });
    });
}

template <class T, class N, class E = attnscope::Sequential>
std::vector<Found> scan(const HeadView<T>& head, const Counts& counts, const N& normalizer, const Mask& mask,
                        const TileOptions& options = {}, const E& executor = {}) {
    std::vector<Found> rows(static_cast<std::size_t>(head.queries()));
    const auto whole = attnscope::scan_distances(
        head, counts, normalizer,
        [&](Index query, std::span<const Index> keys, const auto& distances) {
            Found& row = rows[static_cast<std::size_t>(query)];
            ++row.visits;
            row.keys.assign(keys.begin(), keys.end());
            row.distances.assign(distances.begin(), distances.end());
        },
        mask, options, executor);
    if (whole.cancelled) rows.clear();
    return rows;
}

/// What was met in rows that were looked at.
struct Tally {
    Worst shape, error, relative; ///< relative: against 1e-5, which is promised for float
    Ref largest = 0; ///< relative error of a finite d(N), beyond rounding in the accumulator scalar
    std::size_t asked = 0, caught = 0, not_finite = 0;

    void meet(const Expected& row, const Found& found, const Counts& counts, const Where& where) {
        const std::size_t n = row.order.size();
        const std::size_t chosen = counts.empty() ? 0 : std::min(n, static_cast<std::size_t>(counts.back()));
        shape.meet(found.visits == 1, where);
        shape.meet(found.keys == std::vector<Index>(row.order.begin(),
                                                    row.order.begin() + static_cast<std::ptrdiff_t>(chosen)),
                   where);
        const auto fit = static_cast<std::size_t>(std::count_if(
            counts.begin(), counts.end(), [&](Index count) { return static_cast<std::size_t>(count) <= n; }));
        shape.meet(found.distances.size() == fit, where);
        if (found.distances.size() != fit) return;
        for (std::size_t g = 0; g < fit; ++g) {
            const auto exact =
                std::find_if(row.distances.begin(), row.distances.end(),
                             [&](const Distance& distance) { return distance.count == counts[g]; });
            const Ref value = found.distances[g];
            if (!row.finite) { // where nobody is left, 0 is right as well
                ++not_finite;
                shape.meet(!std::isfinite(value) || (static_cast<std::size_t>(counts[g]) == n && value == 0),
                           where);
                continue;
            }
            const Ref wrong = std::abs(value - exact->value);
            error.meet(wrong, exact->tolerance, where);
            relative.meet(wrong, Ref(1e-5) * exact->value + exact->wide, where);
            if (!(exact->value > 0)) continue;
            largest = std::max(largest, (wrong - exact->wide) / exact->value);
            ++asked;
            caught += std::abs((1 + Ref(1e-4)) * value - exact->value) > exact->tolerance;
        }
    }
    void meet(const std::vector<Expected>& rows, const std::vector<Found>& found, const Counts& counts,
              const Where& where) {
        shape.meet(found.size() == rows.size(), where);
        if (found.size() != rows.size()) return;
        for (std::size_t i = 0; i < rows.size(); ++i) meet(rows[i], found[i], counts, where);
    }
    /// Checks everything; the relative error where it is promised.
    template <class T>
    void check() const {
        ATTNSCOPE_CHECK_WORST(shape);
        ATTNSCOPE_CHECK_WORST(error);
        if constexpr (std::is_same_v<T, float>) ATTNSCOPE_CHECK_WORST(relative);
        // A ten-thousandth more is caught nearly always.
        CAPTURE(asked, caught, static_cast<double>(largest));
        CHECK(asked > 0);
        CHECK(10 * caught >= 9 * asked);
    }
};

template <class F>
void for_each_normalizer(F&& f) {
    f(Softmax());
    f(attnscope::SigmoidAttention());
    f(attnscope::Sparsemax());
    f(attnscope::Entmax(1.5));
    f(attnscope::SelfAdjustedSoftmaxPlain()); // weights may be negative
}

template <class T, class N>
Where where_of(const ValueFamily& family, const Strength& strength, const NamedMask& named, const N& normalizer,
               Index keys, Index d) {
    std::ostringstream text;
    text << normalizer.name() << ", " << strength.name << " weights, mask " << named.name << ", d " << d;
    return {family.name, static_cast<std::size_t>(keys), 1, test_seed(), scalar_name<T>(), text.str()};
}

} // namespace

TEMPLATE_TEST_CASE("distances of a few N: every kind of value, weight, normaliser and mask",
                   "[streaming][selection][distances]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tally tally;
    std::uint64_t part = 0;
    for (const ValueFamily& family : value_families)
        for (const Strength& strength : strengths)
            for (const auto& shape : {std::pair<Index, Index>{1, 1}, {20, 35}, {3, 130}, {9, 5}, {0, 3}})
                for (const Index d : {1, 5, 64}) {
                    const Index queries = shape.first, keys = shape.second;
                    SplitMix64 random = generator(seed, ++part, 20);
                    const Head<T> head(random, queries, keys, d, strength, family);
                    for_each_normalizer([&](const auto& normalizer) {
                        for (const NamedMask& named : masks(queries, keys)) {
                            const Where where = where_of<T>(family, strength, named, normalizer, keys, d);
                            const auto rows = expected_rows(head.view(), normalizer, named.mask);
                            for (const Counts& counts : count_lists) {
                                const Index tile = std::array<Index, 4>{
                                    0, 1, 3, 1000}[static_cast<std::size_t>(random.below(4))];
                                tally.meet(
                                    rows,
                                    scan(head.view(), counts, normalizer, named.mask, {.query_tile = tile}),
                                    counts, where);
                            }
                        }
                    });
                }
    tally.template check<T>();
    CHECK(tally.not_finite == 0);
}

TEMPLATE_TEST_CASE("distances of a few N: more than a thousand keys", "[streaming][selection][distances]",
                   float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tally tally;
    std::uint64_t part = 0;
    const Index queries = 3, keys = 1500, d = 64;
    for (const std::string_view name : {"normal", "mostly one", "common mean", "opposite", "half zero"})
        for (const Strength& strength : strengths) {
            const ValueFamily& family = values(name);
            SplitMix64 random = generator(seed, ++part, 21);
            const Head<T> head(random, queries, keys, d, strength, family);
            for (const NamedMask& named : masks(queries, keys)) {
                const auto meet = [&](const auto& normalizer) {
                    const Where where = where_of<T>(family, strength, named, normalizer, keys, d);
                    const auto rows = expected_rows(head.view(), normalizer, named.mask);
                    for (const Counts& counts : count_lists)
                        tally.meet(rows, scan(head.view(), counts, normalizer, named.mask), counts, where);
                };
                meet(Softmax());
                meet(attnscope::Entmax(1.5));
            }
        }
    tally.template check<T>();
}

TEMPLATE_TEST_CASE("distances of a few N: a value that is not finite stays with the rows that see it",
                   "[streaming][selection][distances]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tally tally;
    const Index queries = 20, keys = 35;
    constexpr T inf = std::numeric_limits<T>::infinity();
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), inf, -inf})
        for (const Strength& strength : strengths)
            for (const Index d : {1, 5, 64})
                for (const Index key : {0, 20, 34}) {
                    SplitMix64 random = generator(seed, d, key, strength.q, 22);
                    Head<T> head(random, queries, keys, d, strength, values("normal"));
                    head.value(key, random.below(d)) = bad;
                    for_each_normalizer([&](const auto& normalizer) {
                        for (const NamedMask& named : masks(queries, keys)) {
                            const Where where =
                                where_of<T>({"not finite", nullptr}, strength, named, normalizer, keys, d);
                            const auto rows = expected_rows(head.view(), normalizer, named.mask);
                            for (const Counts& counts : count_lists)
                                tally.meet(rows, scan(head.view(), counts, normalizer, named.mask), counts,
                                           where);
                        }
                    });
                }
    tally.template check<T>();
    CHECK(tally.not_finite > 0);
}

TEMPLATE_TEST_CASE("distances of a few N: wide vectors that are all alike", "[streaming][selection][distances]",
                   float, double) {
    // |s|^2, 2 p <s, x> and p^2 |x|^2 nearly cancel, and roundings of their sums all have one sign.
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tally tally;
    std::uint64_t part = 0;
    const Index queries = 200, keys = 3;
    for (const std::string_view name : {"equal", "constant"})
        for (const Index d : {64, 128, 256})
            for (int repetition = 0; repetition < 20; ++repetition) {
                SplitMix64 random = generator(seed, ++part, 26);
                const Head<T> head(random, queries, keys, d, strengths[2], values(name));
                const NamedMask none{"none", Mask::none()};
                tally.meet(expected_rows(head.view(), Softmax(), none.mask),
                           scan(head.view(), {1}, Softmax(), none.mask), {1},
                           where_of<T>(values(name), strengths[2], none, Softmax(), keys, d));
            }
    tally.template check<T>();
}

TEMPLATE_TEST_CASE("distances of a few N: the strongest key has no value", "[streaming][selection][distances]",
                   float, double) {
    // d(1) is the sum of the other |y|, however small.
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tally tally;
    const Index keys = 20;
    for (const int gap : {5, 20, 40, 60, 80, 200, 300, 350, 400, 600})
        for (const Index d : {1, 5, 64}) {
            SplitMix64 random = generator(seed, gap, d, 27);
            Head<T> head(random, 1, keys, d, strengths[2], values("normal"));
            head.q = Matrix<T>::Ones(1, 1);
            head.k = quarters<T>(random, keys, 1, 4);
            head.k(0, 0) = static_cast<T>(gap);
            for (Index c = 0; c < d; ++c) head.value(0, c) = 0;
            const NamedMask none{"none", Mask::none()};
            Where where = where_of<T>({"sink", nullptr}, strengths[4], none, Softmax(), keys, d);
            where.normalizer += ", first logit " + std::to_string(gap);
            for (const Counts& counts : count_lists)
                tally.meet(expected_rows(head.view(), Softmax(), none.mask),
                           scan(head.view(), counts, Softmax(), none.mask), counts, where);
        }
    tally.template check<T>();
}

TEMPLATE_TEST_CASE("distances of a few N do not depend on threads and tiles",
                   "[streaming][selection][distances]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    bool same_for_threads = true, same_for_tiles = true;
    std::uint64_t part = 0;
    for (const auto& shape : {std::pair<Index, Index>{40, 40}, {7, 130}, {9, 5}})
        for (const std::string_view name : {"normal", "near ties", "opposite", "one long", "tiny or huge"})
            for (const Strength& strength : strengths) {
                const Index queries = shape.first, keys = shape.second;
                const Index d = std::array<Index, 3>{1, 5, 64}[part % 3];
                SplitMix64 random = generator(seed, ++part, 23);
                Head<T> head(random, queries, keys, d, strength, values(name));
                head.q.row(3).setConstant(std::numeric_limits<T>::quiet_NaN());
                if (part % 4 == 0) head.value(keys / 2, 0) = std::numeric_limits<T>::infinity();
                const auto meet = [&](const auto& normalizer) {
                    for (const NamedMask& named : masks(queries, keys))
                        for (const Counts& counts : count_lists) {
                            INFO(name << ", " << strength.name << ", " << normalizer.name() << ", "
                                      << named.name << ", d " << d);
                            std::vector<Found> first;
                            for (const Index tile : {0, 1, 3, 1000}) {
                                const auto alone = scan(head.view(), counts, normalizer, named.mask,
                                                        {.query_tile = tile}, Threads(1));
                                const auto three = scan(head.view(), counts, normalizer, named.mask,
                                                        {.query_tile = tile}, Threads(3));
                                if (tile == 0) first = scan(head.view(), counts, normalizer, named.mask);
                                const bool threads = same(alone, three), tiles = same(first, alone);
                                if (!threads && same_for_threads) CHECK(threads); // the first one
                                if (!tiles && same_for_tiles) CHECK(tiles);
                                same_for_threads = same_for_threads && threads;
                                same_for_tiles = same_for_tiles && tiles;
                            }
                        }
                };
                meet(Softmax());
                meet(attnscope::Sparsemax());
            }
    CHECK(same_for_threads);
    CHECK(same_for_tiles);
}

TEMPLATE_TEST_CASE("distances of a few N are those of the curves", "[streaming][selection][distances]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst worst;
    bool right = true;
    const Index queries = 30, keys = 150;
    for (const Index d : {1, 5, 64})
        for (const double sharpness : {0.3, 1.5}) {
            SplitMix64 random = generator(seed, d, static_cast<int>(10 * sharpness), 24);
            const Matrix<T> q = normal<T>(random, queries, 8, sharpness), k = normal<T>(random, keys, 8, 1),
                            v = normal<T>(random, keys, d, 1);
            const HeadView<T> head(q, k, v);
            for (const NamedMask& named : masks(queries, keys))
                for (const Counts& counts : count_lists) {
                    const auto found = scan(head, counts, Softmax(), named.mask);
                    REQUIRE(found.size() == static_cast<std::size_t>(queries));
                    attnscope::scan_distance_curves(
                        head, counts.empty() ? 0 : counts.back(),
                        [&](Index query, std::span<const Index> order, const auto& curve) {
                            const Found& row = found[static_cast<std::size_t>(query)];
                            const std::size_t n = row.keys.size();
                            right = right && n == curve.cumulative.size() && n <= order.size() &&
                                    std::equal(row.keys.begin(), row.keys.end(), order.begin());
                            for (std::size_t g = 0; right && g < row.distances.size(); ++g) {
                                const Ref other = curve.cumulative[static_cast<std::size_t>(counts[g] - 1)];
                                // 4e-6 of the curve, squares to 1e-11 in double; 1e-6 of the scan, and of
                                // double 72 u (|s|+|y|)^2/(2 D^2), D^2 >= 2e-4 |s|^2.
                                const Ref allowed = std::is_same_v<T, float> ? Ref(5e-6) : Ref(3e-11);
                                worst.meet(std::abs(row.distances[g] - other), allowed * other,
                                           {named.name, order.size(), sharpness, seed, scalar_name<T>(), "d"});
                            }
                        },
                        named.mask);
                }
        }
    CHECK(right);
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("distances of a few N: rows without keys, odd heads and errors",
                   "[streaming][selection][distances]", float, double) {
    using T = TestType;
    constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 25);
    const Index queries = 20, keys = 35;
    Head<T> head(random, queries, keys, 5, strengths[2], values("normal"));
    Tally tally;

    // One query of NaN: neither keys nor distances, and the others as ever.
    head.q.row(3).setConstant(nan);
    head.q(11, 0) = nan;
    for_each_normalizer([&](const auto& normalizer) {
        for (const NamedMask& named : masks(queries, keys))
            for (const Counts& counts : count_lists) {
                const auto found = scan(head.view(), counts, normalizer, named.mask, {.query_tile = 6});
                tally.meet(expected_rows(head.view(), normalizer, named.mask), found, counts,
                           where_of<T>({"NaN query", nullptr}, strengths[2], named, normalizer, keys, 5));
                REQUIRE(found.size() == static_cast<std::size_t>(queries));
                CHECK(found[3].keys.empty());
                CHECK(found[3].distances.empty());
                CHECK(found[11].keys.empty());
            }
    });

    // Infinite logits. -inf is masked; +inf is no normal row of softmax, but one of sigmoid attention.
    {
        const Index n = 40;
        Matrix<T> q(4, 1), k(n, 1);
        q << 1, -1, T(0.5), 2;
        for (Index i = 0; i < n; ++i) k(i, 0) = i % 3 == 1 ? -inf : static_cast<T>(i % 5) / 4;
        Head<T> odd(random, 4, n, 5, strengths[2], values("normal"));
        odd.q = q;
        odd.k = k;
        for_each_normalizer([&](const auto& normalizer) {
            for (const NamedMask& named : masks(4, n))
                for (const Counts& counts : count_lists)
                    tally.meet(
                        expected_rows(odd.view(), normalizer, named.mask),
                        scan(odd.view(), counts, normalizer, named.mask), counts,
                        where_of<T>({"infinite logits", nullptr}, strengths[2], named, normalizer, n, 5));
        });
    }
    tally.template check<T>();

    // No queries, no keys, no width.
    const Counts counts = {1, 5};
    const Matrix<T> none(0, 4);
    const T one = 1;
    Index visits = 0;
    const auto count_visits = [&](Index, std::span<const Index> chosen, const auto& distances) {
        ++visits;
        CHECK(chosen.empty());
        CHECK(distances.size() == 0);
    };
    CHECK(attnscope::scan_distances(HeadView<T>(none, head.view().k(), head.view().v()), counts, Softmax(),
                                    count_visits)
              .all == 0);
    CHECK(visits == 0);
    CHECK(attnscope::scan_distances(
              HeadView<T>(head.view().q(), MatrixView<T>(&one, 0, 4), MatrixView<T>(&one, 0, 5)), counts,
              Softmax(), count_visits)
              .done == queries);
    CHECK(visits == queries);
    visits = 0;
    CHECK(attnscope::scan_distances(head.view(), counts, Softmax(), count_visits, Mask::none().with_length(0))
              .done == queries);
    CHECK(visits == queries);
    visits = 0;
    CHECK(attnscope::scan_distances(HeadView<T>(head.view().q(), head.view().k(), MatrixView<T>(&one, keys, 0)),
                                    counts, Softmax(),
                                    [&](Index query, std::span<const Index> chosen, const auto& distances) {
                                        ++visits;
                                        CHECK(chosen.size() == (query == 3 || query == 11 ? 0U : 5U));
                                        for (const auto distance : distances) CHECK(distance == 0);
                                    })
              .done == queries);
    CHECK(visits == queries);

    // Cancelled after the second tile.
    std::vector<Index> visited;
    Index calls = 0;
    const auto part = attnscope::scan_distances(
        head.view(), counts, Softmax(),
        [&](Index query, std::span<const Index>, const auto&) { visited.push_back(query); }, {},
        {.query_tile = 4, .progress = [&](Index, Index) { return ++calls < 2; }});
    CHECK(part.cancelled);
    CHECK(part.done == 8);
    CHECK(calls == 2);
    std::sort(visited.begin(), visited.end());
    CHECK(visited == std::vector<Index>{0, 1, 2, 3, 4, 5, 6, 7});

    const auto nothing = [](Index, std::span<const Index>, const auto&) {};
    const HeadView<T> bare(head.q, head.k);
    CHECK_THROWS_AS(attnscope::scan_distances(bare, counts, Softmax(), nothing), attnscope::invalid_argument);
    for (const Counts& wrong :
         {Counts{0}, Counts{-1}, Counts{0, 3}, Counts(2, 5), Counts{5, 3}, Counts{1, 4, 2}})
        CHECK_THROWS_AS(attnscope::scan_distances(head.view(), wrong, Softmax(), nothing),
                        attnscope::invalid_argument);
}
