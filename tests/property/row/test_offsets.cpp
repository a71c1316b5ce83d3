// An offset of all logits that is added without rounding changes no figure, to the last bit: whatever knows its
// logits up to a shift looks at their differences only.
#include <attnscope/concentration/critical_temperature.hpp>
#include <attnscope/concentration/entmax_support.hpp>
#include <attnscope/concentration/entropy.hpp>
#include <attnscope/concentration/hill.hpp>
#include <attnscope/concentration/temperature_derivatives.hpp>
#include <attnscope/planner/temperature.hpp>
#include <attnscope/runtime/registry.hpp>
#include <attnscope/sensitivity/perturbation.hpp>
#include <attnscope/sensitivity/rank_collapse.hpp>
#include <attnscope/streaming/row_state.hpp>
#include <support/laws.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

/// Calls f(where, row on the grid, row moved by the offset) for rows of every family that stand on the grid.
template <class T, class F>
void for_each_offset(F&& f) {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    std::size_t rows = 0;
    for (const Offset<T>& offset : offsets<T>)
        for_each_row<T>(seed, std::array<std::size_t, 6>{1, 2, 9, 17, 256, 1000}, 1,
                        [&](const Where& where, std::vector<T> z) {
                            for (T& x : z) {
                                if (std::abs(x) <= T(2000)) x = on_grid(x, offset);
                                if (std::isfinite(x) && !(std::abs(x) <= T(2000))) return;
                            }
                            CAPTURE(where.text(), offset.value);
                            f(where, z, moved(z, offset));
                            ++rows;
                        });
    CHECK(rows > 6 * 40);
}

template <class T>
std::vector<double> figures(const std::vector<T>& z, double temperature) {
    const auto row = row_statistics<T>(in(z), temperature);
    const auto state = [&] {
        RowState<T> all, part;
        const std::size_t half = z.size() / 2;
        all.add(in(z).first(half), 0);
        part.add(in(z).subspan(half), static_cast<Index>(half));
        all.merge(part);
        return all.statistics();
    }();
    std::vector<double> result;
    const auto add = [&](auto... x) { (result.push_back(static_cast<double>(x)), ...); };
    for (const auto& s : {row, state})
        add(s.visible, s.argmax, s.entropy_nats(), s.max_weight(), s.rest(), s.second_weight(), s.power_sum_2(),
            s.one_minus_power_sum_2(), s.power_sum_3(), s.participation_ratio(), s.logit_spread(),
            s.logit_gap(), s.score_deficit(), s.logit_variance());
    const auto sigma = centred_norm<T>(in(z), temperature);
    add(sigma, entropy_floor_norm_bound(row, sigma).value, entropy_floor_range_bound(row).value);
    for (const double order : {0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 7.0})
        add(renyi_entropy_nats<T>(in(z), order, temperature));
    for (const auto& side : corollary1_sharp(row)) add(side.value, side.measured);
    for (const double alpha : {1.5, 2.0, 3.0, 16.0}) {
        const auto threshold = Entmax(alpha).threshold<T>(in(z));
        add(threshold.theta, threshold.support);
        for (const auto& side : entmax_support_sharp<T>(in(z), alpha, threshold.support)) add(side.value);
    }
    std::vector<T> slope(z.size());
    for (const auto derivative : {entropy_gradient<T>, weight_temperature_derivative<T>}) {
        derivative(in(z), temperature, out(slope));
        for (const T x : slope) add(x);
    }
    std::vector<double> descending;
    for (const T x : z)
        if (x > -std::numeric_limits<T>::infinity()) descending.push_back(static_cast<double>(x));
    std::sort(descending.begin(), descending.end(), std::greater<>());
    const auto critical =
        critical_inverse_temperature<double>(descending, static_cast<Index>(descending.size()));
    add(critical.value.lower, critical.rank);
    for (const Aim aim : {Aim::weight, Aim::entropy})
        add(planned_temperature<T>(in(z), RowGrowth{2, 0.25}, aim, 0.75).inverse_temperature);
    return result;
}

} // namespace

TEMPLATE_TEST_CASE("an offset changes no figure of a row", "[offset]", float, double) {
    using T = TestType;
    Worst worst;
    for_each_offset<T>([&](const Where& where, const std::vector<T>& z, const std::vector<T>& far) {
        for (const double temperature : {0.3, 1.0, 7.0})
            worst.meet(same_bits(figures(z, temperature), figures(far, temperature)), where);
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("an offset changes no distance between two rows", "[offset]", float, double) {
    using T = TestType;
    Worst worst;
    SplitMix64 random = generator(test_seed(), 71);
    const auto distances = [](const std::vector<T>& a, const std::vector<T>& b) {
        const Divergence apart = row_divergence<T>(in(a), in(b));
        std::vector<double> result = {apart.total_variation, apart.forward, apart.backward};
        std::vector<T> pair(a);
        pair.insert(pair.end(), b.begin(), b.end());
        const Index n = static_cast<Index>(a.size());
        result.push_back(static_cast<double>(dobrushin_limit(MatrixView<T>(pair.data(), 2, n))));
        const std::vector<double> before(a.begin(), a.end()), after(b.begin(), b.end());
        const Perturbation<double> measured = measure_perturbation(in(before), in(after));
        result.insert(result.end(), {measured.range, measured.kl, measured.gap, measured.gap_after});
        return result;
    };
    for_each_offset<T>([&](const Where& where, const std::vector<T>& z, const std::vector<T>& far) {
        std::vector<T> other(z), other_far(far);
        for (std::size_t i = 0; i < z.size(); ++i) {
            const T step = std::round(static_cast<T>(4 * random.normal()));
            other[i] += step;
            other_far[i] += step;
        }
        worst.meet(same_bits(distances(z, other), distances(far, other_far)), where);
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("an offset changes no weight and no derivative of a normaliser that promises it", "[offset]",
                   float, double) {
    using T = TestType;
    Worst worst;
    SplitMix64 random = generator(test_seed(), 72);
    std::vector<AnyNormalizer> normalizers;
    for (const double temperature : {1.0, 0.7})
        for (const char* name : {"softmax", "temperature:3|softmax", "ssmax:0.43", "logn:0.2", "yarn:64",
                                 "adaptive", "entropy:1", "participation:3", "entmax:1.25", "entmax:1.5",
                                 "sparsemax", "entmax:3", "entmax:16", "softmax|topk:5", "entmax:1.5|topp:0.9"})
            normalizers.push_back(make_normalizer(name, temperature));
    for_each_offset<T>([&](Where where, const std::vector<T>& z, const std::vector<T>& far) {
        const std::vector<T> v = normal_row<T>(random, z.size());
        for (const AnyNormalizer& normalizer : normalizers) {
            where.normalizer = normalizer.name();
            const std::vector<T> p = weights_of(normalizer, z);
            worst.meet(normalizer.promises().shift_invariant && same_bits(p, weights_of(normalizer, far)),
                       where);
            worst.meet(same_bits(jvp_of(normalizer, z, p, v), jvp_of(normalizer, far, p, v)), where);
            worst.meet(same_bits(vjp_of(normalizer, z, p, v), vjp_of(normalizer, far, p, v)), where);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
}
