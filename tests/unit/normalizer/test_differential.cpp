// Differential attention's weights N(z1) - lambda N(z2) and their derivative.
#include <attnscope/normalizer/differential.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <support/laws.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class T>
struct Found {
    std::vector<T> p1, p2, out;
    RowStatus status;
};
template <class T, class N>
Found<T> weights(const N& normalizer, const std::vector<T>& z1, const std::vector<T>& z2, T lambda) {
    const std::size_t n = z1.size();
    Found<T> found{std::vector<T>(n, T(-7)), std::vector<T>(n, T(-7)), std::vector<T>(n, T(-7)), {}};
    found.status = differential_weights<N, T>(normalizer, z1, z2, lambda, found.p1, found.p2, found.out);
    return found;
}

} // namespace

TEMPLATE_TEST_CASE("differential weights are the difference of two normalised rows", "[differential]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst parts, formula, products, slope;
    const auto check = [&](const auto& normalizer) {
        using N = std::remove_cvref_t<decltype(normalizer)>;
        for_each_row<T>(seed, lengths, 1, [&](Where where, const std::vector<T>& z1) {
            where.normalizer = normalizer.name();
            const std::size_t n = z1.size();
            SplitMix64 random = generator(seed, n, 51);
            const std::vector<T> z2 = normal_row<T>(random, n), w = normal_row<T>(random, n);
            for (const T lambda : {T(0.8), T(0), T(-0.35)}) {
                const Found<T> found = weights(normalizer, z1, z2, lambda);
                parts.meet(same_bits(found.p1, weights_of(normalizer, z1)), where);
                parts.meet(same_bits(found.p2, weights_of(normalizer, z2)), where);
                const Ref u = unit_roundoff<T>, smallest = std::numeric_limits<T>::min();
                const Row<T> row =
                    differential_weights(normalizer, Eigen::Map<const Row<T>>(z1.data(), static_cast<Index>(n)),
                                         Eigen::Map<const Row<T>>(z2.data(), static_cast<Index>(n)), lambda);
                for (std::size_t i = 0; i < n; ++i) {
                    const Ref a = found.p1[i], b = Ref(lambda) * found.p2[i];
                    formula.meet(std::abs(found.out[i] - (a - b)),
                                 2 * u * (std::abs(a) + 2 * std::abs(b)) + smallest, where);
                    formula.meet(row[static_cast<Index>(i)] == found.out[i], where);
                }
                std::vector<T> g1(n, T(-7)), g2(n, T(-7));
                const T moved =
                    differential_vjp<N, T>(normalizer, z1, z2, found.p1, found.p2, lambda, w, g1, g2);
                const std::vector<T> j1 = vjp_of(normalizer, z1, found.p1, w),
                                     j2 = vjp_of(normalizer, z2, found.p2, w);
                Ref expected = 0, size = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    // J2^T w, or J2^T (-lambda w): the product with lambda is rounded before or after.
                    Ref mean = 0;
                    for (std::size_t k = 0; k < n; ++k) mean += std::abs(Ref(found.p2[k]) * w[k]);
                    const Ref bound = Ref(found.p2[i]) * (std::abs(w[i]) + mean) * std::abs(lambda);
                    products.meet(std::abs(g1[i] - j1[i]), Ref(0), where);
                    products.meet(std::abs(g2[i] + Ref(lambda) * j2[i]),
                                  (2 * plain_sum_error<T>(n) + 16 * u) * bound + 4 * smallest, where);
                    expected -= Ref(found.p2[i]) * w[i];
                    size += std::abs(Ref(found.p2[i]) * w[i]);
                }
                slope.meet(std::abs(moved - expected), (plain_sum_error<T>(n) + 2 * u) * size + smallest,
                           where);
            }
        });
    };
    check(Softmax(2));
    check(SinkSoftmax(3));
    ATTNSCOPE_CHECK_WORST(parts);
    ATTNSCOPE_CHECK_WORST(formula);
    ATTNSCOPE_CHECK_WORST(products);
    ATTNSCOPE_CHECK_WORST(slope);
}

TEST_CASE("the derivative of differential weights by central differences", "[differential]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 52);
    Worst worst;
    const Softmax normalizer;
    for (const std::size_t n : short_lengths) {
        const RefRow z1 = normal_row<Ref>(random, n), z2 = normal_row<Ref>(random, n),
                     w = normal_row<Ref>(random, n);
        const Ref lambda = 0.7L, h = 0x1p-18L;
        const Where where{"normal", n, 1, seed, "long double"};
        const Found<Ref> found = weights<Ref>(normalizer, z1, z2, lambda);
        RefRow g1(n), g2(n);
        const Ref moved =
            differential_vjp<Softmax, Ref>(normalizer, z1, z2, found.p1, found.p2, lambda, w, g1, g2);
        const auto loss = [&](const RefRow& a, const RefRow& b, Ref l) {
            const RefRow p = weights<Ref>(normalizer, a, b, l).out;
            return std::inner_product(p.begin(), p.end(), w.begin(), Ref(0));
        };
        const auto meet = [&](Ref derivative, auto&& at) {
            const Ref once = (at(h) - at(-h)) / (2 * h), twice = (at(2 * h) - at(-2 * h)) / (4 * h);
            worst.meet(std::abs(derivative - once),
                       std::abs(once - twice) + 64 * Ref(n) * unit_roundoff<Ref> / h, where);
        };
        for (std::size_t i = 0; i < n; ++i) {
            const auto with = [&](RefRow z, Ref step) {
                z[i] += step;
                return z;
            };
            meet(g1[i], [&](Ref step) { return loss(with(z1, step), z2, lambda); });
            meet(g2[i], [&](Ref step) { return loss(z1, with(z2, step), lambda); });
        }
        meet(moved, [&](Ref step) { return loss(z1, z2, lambda + step); });
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEST_CASE("special rows of differential weights", "[differential]") {
    const double infinity = HUGE_VAL, nan = std::nan("");
    const Softmax normalizer;
    const std::vector<double> fine = {0, 0}, hidden = {-infinity, -infinity}, broken = {nan, 0},
                              spike = {infinity, 0}, masked = {0, -infinity};
    const auto all_nan = [](const std::vector<double>& row) {
        return std::all_of(row.begin(), row.end(), [](double x) { return std::isnan(x); });
    };
    for (const auto* other : {&fine, &hidden, &broken, &spike}) {
        for (const bool first : {true, false}) {
            const Found<double> found =
                weights(normalizer, first ? broken : *other, first ? *other : broken, 0.5);
            CHECK(found.status == RowStatus::nan);
            CHECK(all_nan(found.out));
        }
    }
    Found<double> found = weights(normalizer, spike, fine, 0.5);
    CHECK(found.status == RowStatus::infinite);
    CHECK(found.out == std::vector<double>{0.75, -0.25});
    CHECK(weights(normalizer, hidden, spike, 0.5).status == RowStatus::infinite);
    // An empty row counts as zeros; the result is empty only if both are.
    found = weights(normalizer, hidden, fine, 0.5);
    CHECK(found.status == RowStatus::normal);
    CHECK(found.out == std::vector<double>{-0.25, -0.25});
    found = weights(normalizer, fine, hidden, 0.5);
    CHECK(found.status == RowStatus::normal);
    CHECK(found.out == std::vector<double>{0.5, 0.5});
    std::vector<double> g1(2, -7.0), g2(2, -7.0);
    const std::vector<double> w = {3, 1};
    CHECK(differential_vjp<Softmax, double>(normalizer, fine, hidden, found.p1, found.p2, 0.5, w, g1, g2) == 0);
    CHECK(g1 == std::vector<double>{0.5, -0.5});
    CHECK(g2 == std::vector<double>{0, 0});
    found = weights(normalizer, masked, masked, 0.25);
    CHECK(found.status == RowStatus::normal);
    CHECK(same_bits(found.out, std::vector<double>{0.75, 0}));
    found = weights(normalizer, hidden, hidden, 0.25);
    CHECK(found.status == RowStatus::empty);
    CHECK(found.out == std::vector<double>{0, 0});
    CHECK(weights(normalizer, std::vector<double>{}, std::vector<double>{}, 0.5).status == RowStatus::empty);
}

TEST_CASE("what stands at masked keys does not matter to the derivative in lambda", "[differential]") {
    const double infinity = HUGE_VAL;
    const std::vector<double> z = {0, -infinity, 1};
    for (const double any : {std::nan(""), infinity, 1e308}) {
        std::vector<double> w = {0.5, any, -2}, g1(3), g2(3);
        const Found<double> found = weights<double>(Softmax(), z, z, 0.5);
        const double slope = differential_vjp<Softmax, double>(Softmax(), in(z), in(z), in(found.p1),
                                                               in(found.p2), 0.5, in(w), out(g1), out(g2));
        CHECK(std::abs(slope - (2 * found.p2[2] - 0.5 * found.p2[0])) < 1e-15);
        CHECK(g1[1] == 0);
        CHECK(g2[1] == 0);
        CHECK(std::isfinite(g1[0] + g2[2]));
    }
}

TEST_CASE("differential weights refuse rows of different lengths", "[differential]") {
    const Softmax normalizer;
    const Row<double> two = Row<double>::Zero(2), three = Row<double>::Zero(3);
    CHECK_THROWS_AS(differential_weights(normalizer, two, three, 0.5), invalid_argument);
    CHECK_THROWS_AS(differential_weights(normalizer, three, two, 0.5), invalid_argument);
    CHECK_THROWS_WITH(differential_weights(normalizer, two, three, 0.5),
                      Catch::Matchers::ContainsSubstring("differential_weights: ") &&
                          Catch::Matchers::ContainsSubstring("got 2 and 3"));
}
