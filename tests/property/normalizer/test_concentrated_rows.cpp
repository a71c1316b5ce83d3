// Products with the Jacobian of rows in which one key has nearly all the mass keep their digits, against sums
// of positive terms in long double.
#include <attnscope/attnscope.hpp>
#include <attnscope/runtime/any_normalizer.hpp>
#include <support/laws.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

/// beta p_i (sum_j p_j (w_i - w_j) + sink w_i), from logits x = beta z, and what the exponents' rounding may do
/// to it.
struct Product {
    RefRow right, error;
    Ref largest_weight;
};
Product product_of(const RefRow& x, Ref beta, Ref sink_logit, const RefRow& w, Ref u) {
    const std::size_t n = x.size();
    Ref top = sink_logit, sum = 0;
    for (const Ref e : x) top = std::max(top, e);
    RefRow p(n);
    for (std::size_t i = 0; i < n; ++i) sum += p[i] = std::exp(x[i] - top);
    Ref sink = sink_logit == masked_ref ? Ref(0) : std::exp(sink_logit - top);
    sum += sink;
    sink /= sum;
    for (Ref& weight : p) weight /= sum;
    const std::size_t best = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
    Product result{RefRow(n), RefRow(n), p[best]};
    const auto units = [&](std::size_t j) { return u * (8 * std::abs(top - x[j]) + 64 + Ref(n)); };
    for (std::size_t i = 0; i < n; ++i) {
        Ref mean = sink * w[i], size = sink * std::abs(w[best]) * units(best);
        for (std::size_t j = 0; j < n; ++j) {
            mean += p[j] * (w[i] - w[j]);
            size += p[j] * std::abs(w[j] - w[best]) * (units(j) + units(best));
        }
        result.right[i] = beta * p[i] * mean;
        result.error[i] = beta * p[i] * (size + units(i) * (std::abs(w[i] - w[best]) + std::abs(mean)));
    }
    return result;
}

} // namespace

TEMPLATE_TEST_CASE("softmax and what is built on it differentiate concentrated rows to full accuracy",
                   "[softmax][concentrated]", float, double) {
    using T = TestType;
    Worst worst;
    const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
    for (const std::size_t n : {2u, 3u, 9u, 64u, 257u})
        for (const double gap : {0.5, 3.0, 15.0, 20.0, 30.0, 37.4, 45.0, 70.0})
            for (const bool alike : {false, true}) {
                SplitMix64 random = generator(test_seed(), n, gap);
                std::vector<T> z = normal_row<T>(random, n), w = normal_row<T>(random, n);
                z[n / 2] = static_cast<T>(gap + 3);
                if (alike) // all of w near 1000: only differences count
                    for (T& x : w) x += T(1000);
                const auto check = [&](const auto& normalizer, Ref beta, Ref sink) {
                    const Where where{
                        "gap ", n, gap, test_seed(), scalar_name<T>(), std::string(normalizer.name())};
                    RefRow x = widen(z);
                    for (Ref& e : x) e *= beta;
                    const Product exact = product_of(x, beta, sink, widen(w), u);
                    // Where no weight is above 1/2 the mean has the error of w itself.
                    if (alike && exact.largest_weight <= 0.51L) return;
                    const std::vector<T> p = weights_of(normalizer, z);
                    for (const std::vector<T>& found :
                         {jvp_of(normalizer, z, p, w), vjp_of(normalizer, z, p, w)})
                        for (std::size_t i = 0; i < n; ++i)
                            worst.meet(std::abs(Ref(found[i]) - exact.right[i]),
                                       exact.error[i] + 64 * Ref(n) * Ref(std::numeric_limits<T>::min()) * 1000,
                                       where);
                };
                check(Softmax(), 1, masked_ref);
                check(Softmax(0.5), 2, masked_ref);
                check(ScalableSoftmax(0.43),
                      Ref(ScalableSoftmax(0.43).inverse_temperature(static_cast<Index>(n))), masked_ref);
                check(temperature(2) | Softmax(), 0.5L, masked_ref);
                if (!alike) check(SinkSoftmax(), 1, 0);
            }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEST_CASE("the row of two keys whose smaller weight is half a unit", "[softmax][concentrated]") {
    const std::vector<double> z = {37.42994775023705, 0}, w = {1, 0}, p = weights_of(Softmax(), z);
    CHECK(p[0] == 1);
    const std::vector<double> found = vjp_of(Softmax(), z, p, w);
    CHECK(std::abs(found[0] / 5.551115123125775e-17 - 1) < 1e-14); // long double
    CHECK(found[1] == -found[0]);
}

namespace {

/// A Jacobian in long double without differences of nearly equal numbers, and the sizes of its terms.
struct ExactJacobian {
    explicit ExactJacobian(std::size_t keys) : n(keys), entry(n * n, 0), size(n * n, 0) {}
    void add(std::size_t i, std::size_t j, Ref x) {
        entry[i * n + j] += x;
        size[i * n + j] += std::abs(x);
    }
    /// factor (diag s - s s^T/sum s), the sums of the diagonal over the other keys.
    void add_centred(const RefRow& s, Ref factor, Ref rest = 0) {
        Ref sum = rest;
        for (const Ref x : s) sum += x;
        for (std::size_t i = 0; i < n; ++i) {
            Ref others = rest;
            for (std::size_t j = 0; j < n; ++j)
                if (j != i) others += s[j], add(i, j, -factor * s[i] * s[j] / sum);
            add(i, i, factor * s[i] * others / sum);
        }
    }
    void add_product(const RefRow& a, const RefRow& g, Ref factor) {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < n; ++j) add(i, j, factor * a[i] * g[j]);
    }
    std::size_t n;
    RefRow entry, size;
};

/// J v and J^T v of a row against the exact matrix, to `units` of the terms' sizes.
template <class T, class N>
void meet_products(const N& normalizer, const std::vector<T>& z, const std::vector<T>& p,
                   const std::vector<T>& v, const ExactJacobian& exact, Ref units, const Where& where,
                   Worst& worst) {
    const std::vector<T> jv = jvp_of(normalizer, z, p, v), jtv = vjp_of(normalizer, z, p, v);
    const std::size_t n = z.size();
    const Ref least = 64 * Ref(n) * Ref(std::numeric_limits<T>::min());
    for (std::size_t i = 0; i < n; ++i) {
        Ref right = 0, size = 0, across = 0, across_size = 0;
        for (std::size_t j = 0; j < n; ++j) {
            right += exact.entry[i * n + j] * Ref(v[j]);
            size += exact.size[i * n + j] * std::abs(Ref(v[j]));
            across += exact.entry[j * n + i] * Ref(v[j]);
            across_size += exact.size[j * n + i] * std::abs(Ref(v[j]));
        }
        worst.meet(std::abs(Ref(jv[i]) - right), units * size + least, where);
        worst.meet(std::abs(Ref(jtv[i]) - across), units * across_size + least, where);
    }
}

/// Weights e^x/sum e^x, and x - <p, x> from the largest.
struct ExactSoftmax {
    explicit ExactSoftmax(const RefRow& x) : p(x.size()), centred(x.size()) {
        const Ref top = *std::max_element(x.begin(), x.end());
        Ref sum = 0, mean = 0;
        for (std::size_t i = 0; i < x.size(); ++i) sum += p[i] = std::exp(x[i] - top);
        for (std::size_t i = 0; i < x.size(); ++i) mean += (p[i] /= sum) * (x[i] - top);
        for (std::size_t i = 0; i < x.size(); ++i) centred[i] = (x[i] - top) - mean;
    }
    RefRow weighted() const {
        RefRow a(p.size());
        for (std::size_t i = 0; i < p.size(); ++i) a[i] = p[i] * centred[i];
        return a;
    }
    RefRow p, centred;
};

RefRow times(Ref factor, RefRow x) {
    for (Ref& e : x) e *= factor;
    return x;
}

/// Logits with one key `gap` above the largest of others, which are spread by 3 or so.
template <class T>
std::vector<T> concentrated_row(SplitMix64& random, std::size_t n, double gap) {
    std::vector<T> z = normal_row<T>(random, n);
    z[n / 2] = static_cast<T>(gap) + *std::max_element(z.begin(), z.end());
    return z;
}
template <class T>
const std::vector<double>& gaps() {
    static const std::vector<double> all = std::is_same_v<T, float>
                                               ? std::vector<double>{0.1, 1, 2, 5, 9, 14, 19, 25}
                                               : std::vector<double>{0.1, 1, 5, 10, 20, 30, 37, 45, 60};
    return all;
}
/// Rows of each length and gap, with a direction, and the relative error of a weight.
template <class T, class F>
void for_concentrated_rows(F&& f) {
    for (const std::size_t n : {2u, 3u, 9u, 65u})
        for (const double gap : gaps<T>()) {
            SplitMix64 random = generator(test_seed(), n, gap);
            const std::vector<T> z = concentrated_row<T>(random, n, gap), v = normal_row<T>(random, n);
            const Where where{"gap ", n, gap, test_seed(), scalar_name<T>(), ""};
            f(z, v, (unit_roundoff<T> + unit_roundoff<Ref>)*(12 * (gap + 8) + 64 + Ref(n)), where, random);
        }
}

} // namespace

TEMPLATE_TEST_CASE(
    "softmax at solved and adapted temperatures differentiates concentrated rows to full accuracy",
    "[concentrated][family]", float, double) {
    using T = TestType;
    Worst adaptive, entropy, participation, restricted;
    for_concentrated_rows<T>([&](const std::vector<T>& z, const std::vector<T>& v, Ref units, Where where,
                                 SplitMix64&) {
        const std::size_t n = z.size();
        {
            const ExactSoftmax plain(widen(z));
            Ref h = 0;
            for (std::size_t i = 0; i < n; ++i) h -= plain.p[i] * std::log(plain.p[i]);
            // Near the entropy at which beta begins to move, T and long double may decide otherwise.
            if (std::abs(h - 0.5L) > 1e-4L) {
                const Ref beta = AdaptiveSoftmax::inverse_temperature(static_cast<double>(h)),
                          slope = AdaptiveSoftmax::slope(static_cast<double>(h));
                const ExactSoftmax row(times(beta, widen(z)));
                ExactJacobian exact(n);
                exact.add_centred(row.p, beta);
                exact.add_product(times(1 / beta, row.weighted()), plain.weighted(), -slope);
                where.normalizer = "adaptive";
                meet_products(AdaptiveSoftmax(), z, weights_of(AdaptiveSoftmax(), z), v, exact, 16 * units,
                              where, adaptive);
                const auto all = AdaptiveSoftmax() | top_k(static_cast<Index>(n));
                meet_products(all, z, weights_of(all, z), v, exact, 32 * units, where, restricted);
            }
        }
        for (const double target : {1.0, 0.1, 1e-3, 1e-7, 1e-12}) {
            where.temperature = target;
            where.normalizer = "entropy";
            const EntropyTargetSoftmax by_entropy(target);
            const ParticipationTargetSoftmax by_ratio(1 + target);
            if (const Ref beta = by_entropy.template row_inverse_temperature<T>(in(z));
                beta > 0 && beta < 1e9) {
                const ExactSoftmax row(times(beta, widen(z)));
                const RefRow a = row.weighted(); // beta p (z - E z)
                Ref variance = 0;
                for (std::size_t i = 0; i < n; ++i) variance += a[i] * row.centred[i];
                ExactJacobian exact(n);
                exact.add_centred(row.p, beta);
                exact.add_product(a, a, -beta / variance);
                meet_products(by_entropy, z, weights_of(by_entropy, z), v, exact, 16 * units, where, entropy);
            }
            where.normalizer = "participation";
            if (const Ref beta = by_ratio.template row_inverse_temperature<T>(in(z)); beta > 0 && beta < 1e9) {
                const ExactSoftmax row(times(beta, widen(z)));
                const RefRow a = row.weighted();
                RefRow b(n, 0);
                Ref share = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    for (std::size_t j = 0; j < n; ++j) b[i] += row.p[i] * row.p[j] * (row.p[i] - row.p[j]);
                    share += b[i] * row.centred[i];
                }
                ExactJacobian exact(n);
                exact.add_centred(row.p, beta);
                exact.add_product(a, b, -beta / share);
                meet_products(by_ratio, z, weights_of(by_ratio, z), v, exact, 16 * units, where, participation);
            }
        }
    });
    ATTNSCOPE_CHECK_WORST(adaptive);
    ATTNSCOPE_CHECK_WORST(restricted);
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(participation);
}

TEMPLATE_TEST_CASE("entmax differentiates concentrated rows to full accuracy", "[concentrated][entmax]", float,
                   double) {
    using T = TestType;
    Worst worst, differences;
    for_concentrated_rows<T>(
        [&](const std::vector<T>& z, std::vector<T> v, Ref units, Where where, SplitMix64&) {
            // The products look at the weights alone, which may be any.
            const std::vector<T> p = weights_of(Softmax(), z);
            for (const double alpha : {1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0}) {
                where.temperature = alpha;
                where.normalizer = "entmax";
                RefRow s = widen(p);
                for (Ref& x : s) x = std::pow(x, 2 - Ref(alpha));
                ExactJacobian exact(z.size());
                exact.add_centred(s, 1);
                meet_products(Entmax(alpha), z, p, v, exact, units, where, worst);
            }
        });
    ATTNSCOPE_CHECK_WORST(worst);
    const std::vector<T> z = {0, 0}, p = {1, T(1e-6)}, near = {T(1024), T(1024) + T(0.5)};
    // All of v near 1000: only differences count.
    const std::vector<T> found = jvp_of(Entmax(1.5), z, p, near);
    CHECK(std::abs(found[0] / T(-0.5e-3 / 1.001) - 1) <= 64 * unit_roundoff<T>);
}

TEMPLATE_TEST_CASE("the general family differentiates concentrated rows to full accuracy",
                   "[concentrated][pointwise]", float, double) {
    using T = TestType;
    Worst worst;
    for_concentrated_rows<T>(
        [&](const std::vector<T>& x, const std::vector<T>& v, Ref units, Where where, SplitMix64&) {
            const std::size_t n = x.size();
            const auto check = [&](const auto& f, auto&& logit_of) {
                std::vector<T> z(n);
                const Ref top = *std::max_element(x.begin(), x.end());
                // The largest at 2, the others so far below.
                for (std::size_t i = 0; i < n; ++i) z[i] = static_cast<T>(logit_of(Ref(x[i]) - top + 2));
                RefRow p(n), g(n);
                Ref sum = 0;
                for (std::size_t i = 0; i < n; ++i) sum += p[i] = f(Ref(z[i]));
                for (std::size_t i = 0; i < n; ++i) {
                    g[i] = f.derivative(Ref(z[i])) / sum;
                    p[i] /= sum;
                }
                ExactJacobian exact(n);
                for (std::size_t j = 0; j < n; ++j) {
                    Ref others = 0;
                    for (std::size_t i = 0; i < n; ++i)
                        if (i != j) others += p[i], exact.add(i, j, -p[i] * g[j]);
                    exact.add(j, j, others * g[j]);
                }
                const PointwiseNormalizer normalizer(f);
                where.normalizer = std::string(normalizer.name());
                meet_products(normalizer, z, weights_of(normalizer, z), v, exact, 2 * units, where, worst);
            };
            const auto same = [](Ref e) { return e; };
            check(Exponential(), same);
            check(Sigmoid(), same);
            check(Softplus(), same);
            check(StableExponential(), [](Ref e) { return e > 0 ? e : 1 - std::exp(-e); });
            check(ReluPower(1), [](Ref e) { return std::exp(e); });
            check(ReluPower(2), [](Ref e) { return std::exp(e / 2); });
            check(ReluPower(2.5), [](Ref e) { return std::exp(e / 2.5L); });
        });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("softpick and self-adjusted softmax differentiate concentrated rows to full accuracy",
                   "[concentrated][family]", float, double) {
    using T = TestType;
    Worst softpick, adjusted, plain;
    for_concentrated_rows<T>([&](const std::vector<T>& z, const std::vector<T>& v, Ref units, Where where,
                                 SplitMix64&) {
        const std::size_t n = z.size(), k = n / 2;
        for (const double eps : {0.0, 1e-8}) {
            RefRow p(n), h(n);
            Ref sum = eps;
            for (const T x : z) sum += std::abs(std::expm1(Ref(x)));
            for (std::size_t i = 0; i < n; ++i) {
                p[i] = std::max(Ref(0), std::expm1(Ref(z[i]))) / sum;
                h[i] = std::copysign(std::exp(Ref(z[i])) / sum, Ref(z[i]));
            }
            ExactJacobian exact(n);
            for (std::size_t j = 0; j < n; ++j) {
                Ref rest = eps / sum;
                for (std::size_t i = 0; i < n; ++i)
                    if (i != j) {
                        rest += std::abs(std::expm1(Ref(z[i]))) / sum;
                        exact.add(i, j, -p[i] * h[j]);
                    }
                if (z[j] > 0) exact.add(j, j, rest * h[j]);
            }
            where.normalizer = "softpick";
            if (z[k] > 0)
                meet_products(Softpick(eps), z, weights_of(Softpick(eps), z), v, exact, units, where, softpick);
        }
        const ExactSoftmax row(widen(z));
        const RefRow& q = row.p;
        const auto low = static_cast<std::size_t>(std::min_element(z.begin(), z.end()) - z.begin());
        const Ref lo = std::min(Ref(z[low]), Ref(0)), hi = std::max(Ref(z[k]), Ref(0));
        ExactJacobian exact(n), exact_plain(n);
        for (std::size_t i = 0; i < n; ++i) {
            const Ref f = (Ref(z[i]) - lo) / (hi - lo), g = (hi - Ref(z[i])) / (hi - lo);
            Ref others = 0;
            for (std::size_t j = 0; j < n; ++j) {
                if (j != i) {
                    others += q[j];
                    exact.add(i, j, -f * q[i] * q[j]);
                    exact_plain.add(i, j, -Ref(z[i]) * q[i] * q[j]);
                }
                Ref moved = i == j ? 1 : 0;
                if (j == low && lo < 0) moved = i == j ? 0 : moved - g;
                if (j == k && hi > 0) moved = i == j ? 0 : moved - f;
                exact.add(i, j, q[i] * moved / (hi - lo));
            }
            exact.add(i, i, f * q[i] * others);
            exact_plain.add(i, i, Ref(z[i]) * q[i] * others);
            exact_plain.add(i, i, q[i]);
        }
        where.normalizer = "self-adjusted";
        if (hi > lo)
            meet_products(SelfAdjustedSoftmax(), z, weights_of(SelfAdjustedSoftmax(), z), v, exact, units,
                          where, adjusted);
        where.normalizer = "plain";
        meet_products(SelfAdjustedSoftmaxPlain(), z, weights_of(SelfAdjustedSoftmaxPlain(), z), v, exact_plain,
                      units, where, plain);
    });
    ATTNSCOPE_CHECK_WORST(softpick);
    ATTNSCOPE_CHECK_WORST(adjusted);
    ATTNSCOPE_CHECK_WORST(plain);
}

TEMPLATE_TEST_CASE("what stands at keys without weight does not matter to products with the Jacobian",
                   "[softmax]", float, double) {
    using T = TestType;
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    const std::vector<T> z = {-infinity, 1, -infinity, T(0.5), 2, -infinity}, w = {0, 1, 0, 2, -1, 0};
    const auto check = [&](const auto& normalizer, const std::vector<T>& row) {
        const std::vector<T> p = weights_of(normalizer, row), clean = vjp_of(normalizer, row, p, w);
        for (const T any : {nan, infinity, -infinity, std::numeric_limits<T>::max()}) {
            std::vector<T> dirty = w;
            dirty[0] = dirty[2] = dirty[5] = any;
            const std::vector<T> found = vjp_of(normalizer, row, p, dirty);
            for (std::size_t i = 0; i < z.size(); ++i)
                CHECK(std::abs(found[i] - clean[i]) <= 8 * std::numeric_limits<T>::epsilon());
            CHECK(jvp_of(normalizer, row, p, dirty)[0] == 0);
        }
    };
    for (const std::vector<T>& row : {z, std::vector<T>{-infinity, 1, -infinity, 20, 2, -infinity}}) {
        check(Softmax(2), row);
        check(ScalableSoftmax(), row);
        check(SinkSoftmax(), row);
        check(Softmax() | top_k(2), row);
        check(AdaptiveSoftmax(), row);
        check(AdaptiveSoftmax() | top_k(2), row);
        check(Entmax(1.5), row);
        check(Sparsemax(), row);
        check(Entmax(3), row);
        check(EntropyTargetSoftmax(0.5), row);
        check(ParticipationTargetSoftmax(1.5), row);
        check(PointwiseNormalizer<Sigmoid>(), row);
        check(PointwiseNormalizer<Quadratic>(), row);
        check(SigmoidAttention(), row);
        check(Softpick(), row);
        check(SelfAdjustedSoftmax(), row);
        check(SelfAdjustedSoftmaxPlain(), row);
        check(softcap(3) | SinkSoftmax(), row);
        check(temperature(2) | AdaptiveSoftmax(), row);
        check(AnyNormalizer(Sparsemax()), row);
    }
    // NaN at a key that is seen is NaN.
    const std::vector<T> p = weights_of(Softmax(), z);
    std::vector<T> bad = w;
    bad[1] = nan;
    CHECK(std::isnan(vjp_of(Softmax(), z, p, bad)[1]));
}
