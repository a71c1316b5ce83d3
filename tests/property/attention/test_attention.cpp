// attend() against long double, to a forward-error bound that is computed here: of the dot products, of the
// normaliser, and of the weighted sum.
#include <attnscope/attention/attend.hpp>
#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/runtime/any_normalizer.hpp>
#include <support/laws.hpp>
#include <support/mask_reference.hpp>

using namespace attnscope_test;
using attnscope::Attention;
using attnscope::HeadArray;
using attnscope::HeadGroup;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::PointwiseNormalizer;
using attnscope::Softmax;

namespace {

struct Shape {
    Index queries, keys, width, value_width;
};
constexpr std::array<Shape, 7> shapes = {{{1, 1, 1, 1},
                                          {2, 3, 4, 1},
                                          {5, 7, 3, 2},
                                          {17, 17, 8, 5},
                                          {9, 40, 16, 7},
                                          {70, 33, 5, 3},
                                          {130, 140, 33, 9}}};

struct AttentionWorst {
    Worst output, normalizer, weights, hidden, shape;

    void check() const {
        ATTNSCOPE_CHECK_WORST(output);
        ATTNSCOPE_CHECK_WORST(normalizer);
        ATTNSCOPE_CHECK_WORST(weights);
        ATTNSCOPE_CHECK_WORST(hidden);
        ATTNSCOPE_CHECK_WORST(shape);
    }
};

/// Largest |F'/F| anywhere: how a change of a logit moves log F.
Ref steepest(const SoftmaxKey& key) { return key.slope(0); }
Ref steepest(const SigmoidKey&) { return 1; }

/// Holds one head's result against the reference. Keys that no query sees are never read.
template <class T, class N>
void compare(const Attention<T>& result, const HeadView<T>& head, const N& normalizer, const MaskRule& rule,
             Where where, AttentionWorst& worst) {
    const auto reference = reference_of(normalizer);
    const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
    const std::size_t keys = static_cast<std::size_t>(head.keys());
    where.scalar = scalar_name<T>();
    where.normalizer = normalizer.name();
    where.length = keys;
    worst.shape.meet(result.output.rows() == head.queries() && result.output.cols() == head.v().cols() &&
                         result.log_sum_exp.size() == head.queries() &&
                         result.weights.rows() == head.queries() && result.weights.cols() == head.keys(),
                     where);
    for (Index q = 0; q < head.queries(); ++q) {
        RefRow z(keys, masked_ref), dot_error(keys, 0);
        for (Index k = 0; k < head.keys(); ++k) {
            if (!rule.sees(q, k)) continue;
            Ref sum = 0, size = 0;
            for (Index i = 0; i < head.q().cols(); ++i) {
                const Ref term = Ref(head.q().row(q)[static_cast<std::size_t>(i)]) *
                                 Ref(head.k().row(k)[static_cast<std::size_t>(i)]);
                sum += term;
                size += std::abs(term);
            }
            const std::size_t at = static_cast<std::size_t>(k);
            z[at] = sum * Ref(head.scale());
            dot_error[at] = size * std::abs(Ref(head.scale())) * u * Ref(head.q().cols() + 2);
        }
        const ReferenceRow row = reference.row(z);
        if (row.visible == 0) {
            worst.hidden.meet(result.output.row(q).isZero(0) && result.weights.row(q).isZero(0) &&
                                  result.log_sum_exp[q] == -std::numeric_limits<T>::infinity(),
                              where);
            continue;
        }
        // An error of the logits moves log p_i by what it moves log F_i, and by the mean of that over the row.
        RefRow error = reference.template weight_error<T>(z);
        Ref mean = 0;
        for (std::size_t k = 0; k < keys; ++k)
            mean += row.weights[k] * dot_error[k] * steepest(reference.key());
        for (std::size_t k = 0; k < keys; ++k) {
            if (z[k] == masked_ref) continue;
            error[k] = (1 + error[k]) * std::exp(dot_error[k] * steepest(reference.key()) + mean) - 1;
            const Ref p = result.weights(q, static_cast<Index>(k));
            worst.weights.meet(std::abs(p - row.weights[k]),
                               row.weights[k] * error[k] + 2 * Ref(std::numeric_limits<T>::min()), where);
        }
        for (std::size_t k = 0; k < keys; ++k)
            if (z[k] == masked_ref) worst.hidden.meet(result.weights(q, static_cast<Index>(k)) == 0, where);

        const Ref top = row.log_value[row.top];
        Ref log_error = mean + sum_error<T>(row.visible) + Ref(row.visible) * u +
                        u * (4 + 2 * std::abs(row.log_sum_exp) + 2 * std::abs(top));
        for (std::size_t k = 0; k < keys; ++k)
            if (z[k] != masked_ref)
                log_error += row.weights[k] * u * reference.key().log_units(row.log_value[k], top);
        worst.normalizer.meet(std::abs(Ref(result.log_sum_exp[q]) - row.log_sum_exp), log_error, where);

        for (Index c = 0; c < head.v().cols(); ++c) {
            Ref sum = 0, tolerance = 0;
            for (std::size_t k = 0; k < keys; ++k) {
                if (z[k] == masked_ref) continue;
                const Ref x = head.v().row(static_cast<Index>(k))[static_cast<std::size_t>(c)];
                sum += row.weights[k] * x;
                tolerance += row.weights[k] * std::abs(x) * (error[k] + u * Ref(row.visible + 2)) +
                             4 * Ref(std::numeric_limits<T>::min()) * (1 + std::abs(x));
            }
            worst.output.meet(std::abs(Ref(result.output(q, c)) - sum), tolerance, where);
        }
    }
}

/// q, k and v side by side in one buffer with padding after each row, as in a fused projection.
template <class T>
struct Fused {
    Index stride;
    Shape shape;
    std::vector<T> buffer;

    Fused(SplitMix64& random, Shape s)
        : stride(2 * s.width + s.value_width + 3), shape(s),
          buffer(normal_row<T>(random, static_cast<std::size_t>(stride * std::max(s.queries, s.keys)))) {}

    T* k_row(Index key) { return buffer.data() + key * stride + shape.width; }
    T* v_row(Index key) { return buffer.data() + key * stride + 2 * shape.width; }
    MatrixView<T> q() const { return {buffer.data(), shape.queries, shape.width, stride}; }
    MatrixView<T> k() const { return {buffer.data() + shape.width, shape.keys, shape.width, stride}; }
    MatrixView<T> v() const { return {buffer.data() + 2 * shape.width, shape.keys, shape.value_width, stride}; }
    HeadView<T> head() const { return {q(), k(), v()}; }
    HeadView<T> head(T scale) const { return {q(), k(), v(), scale}; }
};

} // namespace

TEMPLATE_TEST_CASE("attention agrees with the reference under every combination of masks", "[attention]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    AttentionWorst worst;
    for (const Shape& shape : shapes) {
        SplitMix64 random = generator(seed, shape.queries, shape.keys);
        for (int i = 0; i < (shape.keys > 100 ? 8 : 80); ++i) {
            const Fused<T> data(random, shape);
            MaskRule rule = random_rule(random, shape.keys);
            if (i == 0) rule = MaskRule{};
            const Where where{"masks", 0, 1, seed};
            // A scale of 3 gives sharp rows.
            const HeadView<T> head = i % 3 == 0 ? data.head(T(3)) : data.head();
            compare(attnscope::attend(head, Softmax{}, rule.mask(), {true}), head, Softmax{}, rule, where,
                    worst);
            if (i % 4 != 0) continue;
            compare(attnscope::attend(head, Softmax(0.2), rule.mask(), {true}), head, Softmax(0.2), rule, where,
                    worst);
            const PointwiseNormalizer<attnscope::Sigmoid> sigmoid;
            compare(attnscope::attend(head, sigmoid, rule.mask(), {true}), head, sigmoid, rule, where, worst);
        }
    }
    worst.check();
}

TEMPLATE_TEST_CASE("weights are kept on request only and do not change the output", "[attention]", float,
                   double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 8);
    const Fused<T> data(random, {19, 23, 6, 4});
    const auto with = attnscope::attend(data.head(), Softmax{}, Mask::causal(4), {true});
    const auto without = attnscope::attend(data.head(), Softmax{}, Mask::causal(4));
    CHECK(without.weights.size() == 0);
    CHECK(with.weights.size() == 19 * 23);
    CHECK(with.output == without.output);
    CHECK((with.log_sum_exp == without.log_sum_exp).all());

    const HeadView<T> no_values(data.q(), data.k());
    const auto bare = attnscope::attend(no_values, Softmax{}, Mask::causal(4), {true});
    CHECK(bare.output.rows() == 19);
    CHECK(bare.output.cols() == 0);
    CHECK(bare.weights == with.weights);
}

TEMPLATE_TEST_CASE("keys and values out of sight have no influence, whatever they hold", "[attention]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    AttentionWorst worst;
    Worst poisoned, bits;
    for (const Shape& shape : shapes) {
        SplitMix64 random = generator(seed, shape.keys, 21);
        for (int i = 0; i < (shape.keys > 100 ? 4 : 40); ++i) {
            Fused<T> data(random, shape);
            const MaskRule rule = random_rule(random, shape.keys);
            const auto before = attnscope::attend(data.head(), Softmax{}, rule.mask(), {true});
            const Fused<T> clean = data;
            const Index bad = random.below(shape.keys);
            const T value = i % 2 == 0 ? std::numeric_limits<T>::quiet_NaN() : T(1e30);
            std::fill_n(data.k_row(bad), shape.width, std::numeric_limits<T>::quiet_NaN());
            std::fill_n(data.v_row(bad), shape.value_width,
                        i % 4 == 2 ? std::numeric_limits<T>::infinity() : value);
            auto unseen = before; // with the outputs of the queries that do not see the bad key
            const auto after = attnscope::attend(data.head(), Softmax{}, rule.mask(), {true});
            const Where where{"poisoned", static_cast<std::size_t>(shape.keys), 1, seed, scalar_name<T>()};
            for (Index q = 0; q < shape.queries; ++q) {
                if (rule.sees(q, bad)) {
                    poisoned.meet(after.output.row(q).array().isNaN().all() && std::isnan(after.log_sum_exp[q]),
                                  where);
                    for (Index k = 0; k < shape.keys; ++k)
                        if (rule.sees(q, k)) poisoned.meet(std::isnan(after.weights(q, k)), where);
                } else {
                    // Weights and log-sum-exp to the bit; outputs may be added up in another order where
                    // some value is not finite.
                    bits.meet(before.weights.row(q) == after.weights.row(q) &&
                                  before.log_sum_exp[q] == after.log_sum_exp[q] &&
                                  (std::isnan(value) || before.output.row(q) == after.output.row(q)),
                              where);
                    unseen.output.row(q) = after.output.row(q);
                }
            }
            compare(unseen, clean.head(), Softmax{}, rule, where, worst);
        }
    }
    worst.check();
    ATTNSCOPE_CHECK_WORST(poisoned);
    ATTNSCOPE_CHECK_WORST(bits);
}

TEMPLATE_TEST_CASE("query heads of a group share key heads", "[attention]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    AttentionWorst worst;
    for (const auto& [heads, key_heads] : {std::pair<Index, Index>{1, 1}, {4, 4}, {4, 2}, {6, 2}, {5, 1}}) {
        SplitMix64 random = generator(seed, heads, key_heads);
        const Shape s = {11, 14, 6, 4};
        const std::vector<T> q = normal_row<T>(random, static_cast<std::size_t>(heads * s.queries * s.width));
        const std::vector<T> k = normal_row<T>(random, static_cast<std::size_t>(key_heads * s.keys * s.width));
        const std::vector<T> v =
            normal_row<T>(random, static_cast<std::size_t>(key_heads * s.keys * s.value_width));
        const HeadGroup<T> group(HeadArray<T>::contiguous(q.data(), heads, s.queries, s.width),
                                 HeadArray<T>::contiguous(k.data(), key_heads, s.keys, s.width),
                                 HeadArray<T>::contiguous(v.data(), key_heads, s.keys, s.value_width));
        MaskRule rule;
        rule.causal = true;
        rule.offset = 3;
        const auto results = attnscope::attend(group, Softmax{}, rule.mask(), {true});
        REQUIRE(results.size() == static_cast<std::size_t>(heads));
        for (Index h = 0; h < heads; ++h) {
            const Index shared = h / (heads / key_heads);
            const HeadView<T> head(
                MatrixView<T>(q.data() + h * s.queries * s.width, s.queries, s.width),
                MatrixView<T>(k.data() + shared * s.keys * s.width, s.keys, s.width),
                MatrixView<T>(v.data() + shared * s.keys * s.value_width, s.keys, s.value_width));
            compare(results[static_cast<std::size_t>(h)], head, Softmax{}, rule, Where{"group"}, worst);
        }

        // The same heads interleaved: [rows, heads, cols], as projections leave them.
        std::vector<T> mixed(q.size());
        for (Index h = 0; h < heads; ++h)
            for (Index r = 0; r < s.queries; ++r)
                std::copy_n(q.data() + (h * s.queries + r) * s.width, s.width,
                            mixed.data() + (r * heads + h) * s.width);
        const HeadGroup<T> strided(
            HeadArray<T>{mixed.data(), heads, s.queries, s.width, s.width, heads * s.width},
            HeadArray<T>::contiguous(k.data(), key_heads, s.keys, s.width),
            HeadArray<T>::contiguous(v.data(), key_heads, s.keys, s.value_width));
        for (Index h = 0; h < heads; ++h)
            compare(attnscope::attend(strided[h], Softmax{}, rule.mask(), {true}), group[h], Softmax{}, rule,
                    Where{"interleaved"}, worst);
    }
    worst.hidden.meet(true, Where{}); // offset 3: every query sees a key, and some keys are hidden
    worst.check();
    const std::vector<T> room(600);
    CHECK_THROWS_AS(HeadGroup<T>(HeadArray<T>::contiguous(room.data(), 5, 2, 3),
                                 HeadArray<T>::contiguous(room.data(), 2, 2, 3)),
                    attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("any Eigen matrices are accepted", "[attention]", float, double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 31);
    const Fused<T> data(random, {12, 15, 5, 3});
    const MaskRule rule{true, 3, 6, std::nullopt, 1, 0, {}, 0};
    const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> q = data.q().map(), k = data.k().map(),
                                                           v = data.v().map();
    AttentionWorst worst;
    compare(attnscope::attend(q, k, v, Softmax(2), rule.mask(), {true}), data.head(), Softmax(2), rule,
            Where{"columns"}, worst);
    compare(attnscope::attend(data.q().map(), k, T(1) * v, Softmax(2), rule.mask(), {true}), data.head(),
            Softmax(2), rule, Where{"expressions"}, worst);
    worst.check();
}

TEST_CASE("logits of one query are scaled dot products where it sees, -inf elsewhere", "[attention]") {
    const std::uint64_t seed = test_seed();
    Worst worst;
    for (const Shape& shape : shapes) {
        SplitMix64 random = generator(seed, shape.keys, 41);
        const Fused<float> data(random, shape);
        const MaskRule rule = random_rule(random, shape.keys);
        for (Index q = 0; q < shape.queries; ++q) {
            std::vector<float> z(static_cast<std::size_t>(shape.keys));
            attnscope::logits_of(data.head(), rule.mask(), q, out(z));
            for (Index k = 0; k < shape.keys; ++k) {
                Ref sum = 0, size = 0;
                for (std::size_t i = 0; i < static_cast<std::size_t>(shape.width); ++i) {
                    const Ref term = Ref(data.q().row(q)[i]) * Ref(data.k().row(k)[i]);
                    sum += term;
                    size += std::abs(term);
                }
                const Where where{"logits", z.size(), 1, seed};
                const Ref scale = HeadView<float>::default_scale(shape.width);
                worst.meet(std::abs(scale - 1 / std::sqrt(Ref(shape.width))), 2 * unit_roundoff<float> * scale,
                           where);
                const float logit = z[static_cast<std::size_t>(k)];
                if (rule.sees(q, k))
                    worst.meet(std::abs(Ref(logit) - scale * sum),
                               scale * size * unit_roundoff<float> * Ref(shape.width + 2), where);
                else
                    worst.meet(logit == -std::numeric_limits<float>::infinity(), where);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("what a query without keys divides by is what its normaliser adds to the sum over the keys",
                   "[attention][sink]", float, double) {
    using T = TestType;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    Matrix<T> q(3, 1), k(2, 1), v(2, 1);
    q << 0, 1, T(-0.5);
    k << 1, 2;
    v << 3, 4;
    const HeadView<T> head(q, k, v, T(1));
    const auto check = [&](const auto& normalizer, Ref n0) {
        INFO(normalizer.name());
        const auto result = attend(head, normalizer, Mask::causal(-1), {.weights = true});
        CHECK(result.output(0, 0) == 0);
        CHECK(result.weights.row(0).isZero(0));
        if (n0 == 0)
            CHECK(result.log_sum_exp[0] == -infinity);
        else
            CHECK(std::abs(Ref(result.log_sum_exp[0]) - std::log(n0)) <= 4 * unit_roundoff<T>);
        CHECK(std::abs(Ref(result.log_sum_exp[1]) - std::log(n0 + std::exp(1.0L))) <= 8 * unit_roundoff<T>);
        CHECK(std::abs(Ref(result.log_sum_exp[2]) - std::log(n0 + std::exp(-0.5L) + std::exp(-1.0L))) <=
              16 * unit_roundoff<T>);
        // As of the row itself, and of one without any keys.
        for (const std::vector<T>& row : {std::vector<T>{}, std::vector<T>(3, -infinity)})
            CHECK(normalizer.template log_sum_exp<T>(in(row)) == result.log_sum_exp[0]);
    };
    check(attnscope::SinkSoftmax(2), 2);
    check(attnscope::SinkSoftmax(0.25), 0.25L);
    check(attnscope::SinkSoftmax(0), 0);
    check(attnscope::AnyNormalizer(attnscope::SinkSoftmax(2)), 2);
    check(attnscope::temperature(1) | attnscope::SinkSoftmax(2), 2);
    check(Softmax(), 0);
    check(PointwiseNormalizer<attnscope::Exponential>(), 0);
}
