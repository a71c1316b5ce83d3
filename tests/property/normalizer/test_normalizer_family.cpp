// The normalisers beyond softmax against their formulas in long double, written out independently here.
#include <attnscope/normalizer/adaptive_softmax.hpp>
#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/sink_softmax.hpp>
#include <attnscope/normalizer/softpick.hpp>
#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <support/laws.hpp>

#include <functional>

using namespace attnscope_test;
using namespace attnscope;

namespace {

using Formula = std::function<RefRow(const RefRow&)>;

Ref visible(const RefRow& z) { return static_cast<Ref>(visible_count(z)); }

/// f(z)/(extra + sum f) over the visible keys.
template <class F>
RefRow normalised(const RefRow& z, F&& f, Ref extra = 0) {
    RefRow p(z.size(), 0);
    Ref sum = extra;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (z[i] != masked_ref) sum += p[i] = f(z[i]);
    if (sum > 0)
        for (Ref& x : p) x /= sum;
    return p;
}

RefRow softmax_at(const RefRow& z, Ref beta) {
    const Ref m = *std::max_element(z.begin(), z.end());
    return normalised(z, [&](Ref x) { return std::exp(beta * (x - m)); });
}

Ref entropy(const RefRow& p) {
    Ref sum = 0;
    for (const Ref x : p)
        if (x > 0) sum -= x * std::log(x);
    return sum;
}

RefRow adaptive(const RefRow& z) {
    const Ref h = entropy(softmax_at(z, 1));
    if (h <= 0.5L) return softmax_at(z, 1);
    const Ref c = -0.037L * h * h * h * h + 0.481L * h * h * h - 2.3L * h * h + 4.917L * h - 1.791L;
    return softmax_at(z, std::max(Ref(1), c));
}

RefRow softpick(const RefRow& z, Ref eps) {
    const Ref m = std::max(Ref(0), *std::max_element(z.begin(), z.end()));
    RefRow p(z.size(), 0);
    Ref sum = eps * std::exp(-m);
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (z[i] == masked_ref) continue;
        // e^{z-m} - e^{-m}
        const Ref value = z[i] > 0 ? -std::exp(z[i] - m) * std::expm1(-z[i]) : std::exp(-m) * std::expm1(z[i]);
        sum += std::abs(value);
        p[i] = std::max(Ref(0), value);
    }
    for (Ref& x : p) x /= sum;
    return p;
}

RefRow capped(RefRow z, Ref c) {
    for (Ref& x : z)
        if (x != masked_ref) x = c * std::tanh(x / c);
    return z;
}

RefRow cut(RefRow p, std::size_t k, bool renormalise) {
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    Ref kept = 0;
    for (std::size_t i = 0; i < order.size(); ++i) i < k ? kept += p[order[i]] : p[order[i]] = 0;
    if (renormalise && kept > 0)
        for (Ref& x : p) x /= kept;
    return p;
}

/// Calls f(normaliser, formula) for every normaliser; `smooth` families have no kinks but at z = 0.
template <class F>
void for_each_normalizer(F&& f) {
    for (const double s : {0.0, 0.43, 3.0})
        f(ScalableSoftmax(s), [s](const RefRow& z) { return softmax_at(z, Ref(s) * std::log(visible(z))); });
    f(LogLengthSoftmax::trained_at(16),
      [](const RefRow& z) { return softmax_at(z, Ref(1 / std::log(16.0)) * std::log(visible(z))); });
    f(YarnSoftmax(4), [](const RefRow& z) {
        const Ref root = visible(z) > 4 ? 0.1L * std::log(visible(z) / 4) + 1 : Ref(1);
        return softmax_at(z, root * root);
    });
    f(AdaptiveSoftmax(), adaptive);
    for (const double n0 : {1.0, 1e6})
        f(SinkSoftmax(n0), [n0](const RefRow& z) {
            const Ref m = std::max(std::log(Ref(n0)), *std::max_element(z.begin(), z.end()));
            return normalised(
                z, [&](Ref x) { return std::exp(x - m); }, n0 * std::exp(-m));
        });
    const auto sigmoid = [](const RefRow& z, Ref b) {
        RefRow p(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref)
                p[i] = z[i] + b < 0 ? std::exp(z[i] + b) / (1 + std::exp(z[i] + b))
                                    : 1 / (1 + std::exp(-z[i] - b));
        return p;
    };
    f(SigmoidAttention(), [=](const RefRow& z) { return sigmoid(z, -std::log(visible(z))); });
    f(SigmoidAttention(0.75), [=](const RefRow& z) { return sigmoid(z, 0.75L); });
    f(Softpick(), [](const RefRow& z) { return softpick(z, 1e-8); });
    f(PointwiseNormalizer<StableExponential>(),
      [](const RefRow& z) { return normalised(z, [](Ref x) { return x >= 0 ? x + 1 : 1 / (1 - x); }); });
    for (const double k : {1.0, 2.0, 2.5})
        f(PointwiseNormalizer<ReluPower>(ReluPower(k)), [k](const RefRow& z) {
            return normalised(z, [&](Ref x) { return x > 0 ? std::pow(x, Ref(k)) : Ref(0); });
        });
    f(softcap(3) | ScalableSoftmax(0.43) | top_k(5),
      [](const RefRow& z) { return cut(softmax_at(capped(z, 3), Ref(0.43) * std::log(visible(z))), 5, true); });
    f(softcap(20) | SinkSoftmax(), [](const RefRow& z) {
        return normalised(
            capped(z, 20), [&](Ref x) { return std::exp(x); }, 1);
    });
    f(temperature(2) | AdaptiveSoftmax(), [](RefRow z) {
        for (Ref& x : z) x /= 2;
        return adaptive(z);
    });
}

/// J of the normaliser in long double, by its vjp.
template <class N>
RefMatrix dense(const N& normalizer, const RefRow& z) {
    const RefRow p = weights_of(normalizer, z);
    RefMatrix jacobian{z.size(), RefRow(z.size() * z.size())};
    for (std::size_t i = 0; i < z.size(); ++i) {
        RefRow unit(z.size(), 0);
        unit[i] = 1;
        const RefRow row = vjp_of(normalizer, z, p, unit);
        for (std::size_t j = 0; j < z.size(); ++j) jacobian(i, j) = row[j];
    }
    return jacobian;
}

/// Forward error of weights computed in T, by condition: every argument of exp, tanh or a quotient is rounded a
/// few times beside the largest logit, as if each logit moved by 6 u (|z_j| + |max z| + 1); the weights then
/// take 24 + 2 n units (exp, sum, quotient), and underflow.
template <class T>
RefRow forward_error(const RefMatrix& jacobian, const RefRow& z, const RefRow& p) {
    const Ref u = unit_roundoff<T> + unit_roundoff<Ref>, n = static_cast<Ref>(z.size());
    Ref top = 0;
    for (const Ref x : z)
        if (x != masked_ref) top = std::max(top, std::abs(x));
    RefRow error(z.size());
    for (std::size_t i = 0; i < z.size(); ++i) {
        error[i] = u * (24 + 2 * n) * p[i] + 4 * Ref(std::numeric_limits<T>::min());
        for (std::size_t j = 0; j < z.size(); ++j)
            if (z[j] != masked_ref) error[i] += 6 * u * std::abs(jacobian(i, j)) * (std::abs(z[j]) + top + 1);
    }
    return error;
}

} // namespace

TEMPLATE_TEST_CASE("every normaliser computes its formula", "[laws][family]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    for_each_normalizer([&](const auto& normalizer, const Formula& formula) {
        using N = std::decay_t<decltype(normalizer)>;
        const std::string name(normalizer.name());
        CAPTURE(name, seed);
        Worst weights, masked, in_place, sum, adjoint, order;
        for_each_row<T>(seed, short_lengths, 2, [&](Where where, const std::vector<T>& z) {
            if (visible_count(z) == 0) return;
            const RefRow wide = widen(z), exact = formula(wide);
            RowStatus status{};
            const std::vector<T> p = weights_of(normalizer, z, &status);
            // A cut between weights that are equal to rounding may fall on either side.
            bool same_support = true;
            for (std::size_t i = 0; i < z.size(); ++i)
                same_support = same_support && (p[i] > 0) == (exact[i] > 0);
            const RefMatrix jacobian = dense(normalizer, wide);
            RefRow error = forward_error<T>(jacobian, wide, exact);
            if constexpr (requires { normalizer.map(); }) {
                // Capped logits are rounded too, where the cap itself no longer reacts.
                RefRow mapped(wide.size());
                normalizer.map().apply(in(wide), out(mapped));
                const RefRow inner = forward_error<T>(dense(normalizer.inner(), mapped), mapped, exact);
                for (std::size_t i = 0; i < error.size(); ++i) error[i] += inner[i];
            }
            const bool top = name.find("top") != std::string::npos;
            const bool none = std::all_of(p.begin(), p.end(), [](T x) { return x == 0; });
            weights.meet(status == (none ? RowStatus::empty : RowStatus::normal), where);
            Ref total = 0, tolerance = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (!top || same_support) weights.meet(std::abs(Ref(p[i]) - exact[i]), error[i], where);
                if (wide[i] == masked_ref) masked.meet(p[i] == 0 && !std::signbit(p[i]), where);
                total += p[i];
                tolerance += error[i];
            }
            if (N::traits.simplex && !none) sum.meet(std::abs(total - 1), tolerance, where);
            if (N::traits.order_preserving)
                for (std::size_t i = 0; i < z.size(); ++i)
                    for (std::size_t j = 0; j < z.size(); ++j)
                        if (z[i] >= z[j]) order.meet(Ref(p[j]) - Ref(p[i]), error[i] + error[j], where);
            std::vector<T> place = z;
            normalizer.apply(std::span<const T>(place), out(place));
            in_place.meet(same_bits(place, p), where);

            SplitMix64 random = generator(seed, z.size(), 3);
            const std::vector<T> v = normal_row<T>(random, z.size()), w = normal_row<T>(random, z.size());
            const std::vector<T> jv = jvp_of(normalizer, z, p, v), jtw = vjp_of(normalizer, z, p, w);
            std::vector<T> alias = v;
            normalizer.jvp(in(z), in(p), std::span<const T>(alias), out(alias));
            in_place.meet(same_bits(alias, jv), where);
            alias = w;
            normalizer.vjp(in(z), in(p), std::span<const T>(alias), out(alias));
            in_place.meet(same_bits(alias, jtw), where);
            Ref left = 0, right = 0, size = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (wide[i] == masked_ref) masked.meet(jv[i] == 0 && jtw[i] == 0, where);
                left += Ref(w[i]) * jv[i];
                right += Ref(v[i]) * jtw[i];
                for (std::size_t j = 0; j < z.size(); ++j) {
                    const Ref scale =
                        wide[j] == masked_ref ? 0 : std::abs(Ref(w[i]) * jacobian(i, j) * Ref(v[j]));
                    size += scale;
                }
                size += std::abs(Ref(w[i])) * exact[i] * (1 + std::abs(Ref(v[i])));
            }
            // Both are sums of the same products, with factors exact to a few units beside the spread.
            Ref spread = 1;
            for (const Ref x : wide)
                if (x != masked_ref) spread = std::max(spread, std::abs(x));
            const Ref steepest = 1 + *std::max_element(jacobian.entries.begin(), jacobian.entries.end());
            adjoint.meet(std::abs(left - right),
                         unit_roundoff<T> * (64 + 8 * spread + 4 * static_cast<Ref>(z.size())) *
                                 (size + steepest * static_cast<Ref>(z.size())) +
                             Ref(std::numeric_limits<T>::min()),
                         where);
        });
        ATTNSCOPE_CHECK_WORST(weights);
        ATTNSCOPE_CHECK_WORST(masked);
        ATTNSCOPE_CHECK_WORST(in_place);
        if (N::traits.simplex) ATTNSCOPE_CHECK_WORST(sum);
        ATTNSCOPE_CHECK_WORST(adjoint);
        if (N::traits.order_preserving) ATTNSCOPE_CHECK_WORST(order);
    });
}

TEST_CASE("every normaliser's derivative is that of its formula", "[laws][family]") {
    const std::uint64_t seed = test_seed();
    for_each_normalizer([&](const auto& normalizer, const Formula& formula) {
        const std::string name(normalizer.name());
        CAPTURE(name, seed);
        Worst derivative;
        std::size_t compared = 0;
        for (std::size_t repetition = 0; repetition < 40; ++repetition) {
            SplitMix64 random = generator(seed, repetition);
            RefRow z = normal_row<Ref>(random, 2 + repetition), v = normal_row<Ref>(random, z.size());
            for (Ref& x : z) x *= 2;
            if (repetition > 8) z[repetition / 2] = masked_ref;
            const auto moved = [&](Ref h) {
                RefRow point = z;
                for (std::size_t i = 0; i < z.size(); ++i) point[i] += h * v[i];
                return formula(point);
            };
            const Ref h = 1e-6L;
            const RefRow a = moved(h), b = moved(-h), a2 = moved(2 * h), b2 = moved(-2 * h), p = formula(z);
            bool kink = false; // another support nearby: a key or a cut at its threshold
            for (std::size_t i = 0; i < z.size(); ++i) kink = kink || (a2[i] > 0) != (b2[i] > 0);
            if (kink) continue;
            ++compared;
            const RefRow jv = jvp_of(normalizer, z, p, v);
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref once = (a[i] - b[i]) / (2 * h), twice = (a2[i] - b2[i]) / (4 * h);
                derivative.meet(std::abs(jv[i] - once),
                                std::abs(once - twice) + 64 * unit_roundoff<Ref> * (1 + p[i]) / h,
                                Where{"normal", z.size()});
            }
        }
        ATTNSCOPE_CHECK_WORST(derivative);
        CHECK(compared >= 30);
    });
}

namespace {
/// dp/d(parameter) against central differences of the normaliser in long double.
template <class Make>
void check_parameter(Make&& make, double at) {
    const std::uint64_t seed = test_seed();
    CAPTURE(at, seed);
    Worst worst;
    for (std::size_t repetition = 0; repetition < 20; ++repetition) {
        SplitMix64 random = generator(seed, repetition, 9);
        RefRow z = normal_row<Ref>(random, 2 + repetition);
        z[repetition / 2] = std::abs(z[repetition / 2]) + 1; // some mass for ReLU
        if (repetition > 5) z[1] = masked_ref;
        const double h = 1e-4;
        const RefRow a = weights_of(make(at + h), z), b = weights_of(make(at - h), z),
                     p = weights_of(make(at), z);
        const RefRow a2 = weights_of(make(at + 2 * h), z), b2 = weights_of(make(at - 2 * h), z);
        RefRow d(z.size());
        make(at).parameter_derivative(in(z), in(p), out(d));
        for (std::size_t i = 0; i < z.size(); ++i) {
            const Ref once = (a[i] - b[i]) / (2 * Ref(h)), twice = (a2[i] - b2[i]) / (4 * Ref(h));
            // at + h is rounded in double
            worst.meet(std::abs(d[i] - once), std::abs(once - twice) + 1e-11L, Where{"normal", z.size()});
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
}
} // namespace

TEST_CASE("derivatives in a normaliser's own parameter", "[laws][family]") {
    check_parameter([](double t) { return Softmax(t); }, 0.7);
    check_parameter([](double s) { return ScalableSoftmax(s); }, 0.43);
    check_parameter([](double s) { return LogLengthSoftmax(s); }, 0.2);
    check_parameter([](double b) { return SinkSoftmax::from_logit(b); }, 0.5);
    check_parameter([](double b) { return SigmoidAttention(b); }, -1.5);
    check_parameter([](double k) { return PointwiseNormalizer<ReluPower>(ReluPower(k)); }, 2.5);
}

TEST_CASE("Jacobian norms of every normaliser are those of the dense Jacobian", "[family]") {
    const std::uint64_t seed = test_seed();
    for_each_normalizer([&](const auto& normalizer, const Formula&) {
        const std::string name(normalizer.name());
        CAPTURE(name, seed);
        Worst exact, spectral, bracket;
        for (std::size_t repetition = 0; repetition < 16; ++repetition) {
            SplitMix64 random = generator(seed, repetition, 21);
            std::vector<double> z = normal_row<double>(random, 1 + repetition);
            for (double& x : z) x *= 1.5;
            const Where where{"normal", z.size()};
            const ReferenceNorms dense_norms = norms_of(dense(normalizer, widen(z)));
            const std::vector<double> p = weights_of(normalizer, z);
            const auto norms = jacobian_norms(normalizer, in(z), in(p));
            // Norms are of degree 2 in weights that are exact to a few units beside the spread; entries cancel.
            const Ref units = unit_roundoff<double> * (400 + 40 * static_cast<Ref>(z.size()));
            // The dense reference forms 1 - p_i from a sum of n terms, at inverse temperatures up to 3 log 16
            // < 10.
            const Ref reference = 10 * (static_cast<Ref>(z.size()) + 8) * unit_roundoff<Ref> +
                                  Ref(std::numeric_limits<double>::min());
            const auto compare = [&](double value, Ref expected) {
                exact.meet(std::abs(Ref(value) - expected),
                           units * (expected + dense_norms.frobenius) + reference, where);
            };
            compare(norms.max_entry, dense_norms.max_entry);
            compare(norms.column, dense_norms.column);
            compare(norms.frobenius, dense_norms.frobenius);
            compare(norms.one, dense_norms.one);
            compare(norms.infinity, dense_norms.infinity);
            bracket.meet(Ref(norms.spectral.bracket.lower) <= dense_norms.spectral * (1 + units) + reference &&
                             Ref(norms.spectral.bracket.upper) * (1 + units) >=
                                 dense_norms.spectral - reference,
                         where);
            if (norms.spectral.converged) {
                // Power iteration stops where the squared residual is below 8 eps.
                spectral.meet(
                    std::abs(Ref(norms.spectral.value) - dense_norms.spectral),
                    (units + 1e-9L * (norms.spectral.residual > 0)) * dense_norms.spectral + reference, where);
            }
        }
        ATTNSCOPE_CHECK_WORST(exact);
        ATTNSCOPE_CHECK_WORST(bracket);
        ATTNSCOPE_CHECK_WORST(spectral);
    });
}

TEST_CASE("sigmoid attention reacts by at most 1/4, attained where the logit is minus the bias", "[family]") {
    const std::vector<double> z = {-0.75, 3, -40};
    const SigmoidAttention sigmoid(0.75);
    const std::vector<double> p = weights_of(sigmoid, z);
    const double norm = jacobian_norms(sigmoid, in(z), in(p)).spectral.value;
    CHECK(norm == 0.25);
    CHECK(norm > 0.99 * 0.25); // the constant cannot be smaller
}

TEST_CASE("two keys have closed forms", "[family]") {
    const std::vector<double> z = {0, std::log(2.0)};
    const auto close = [](double a, double b) { return std::abs(a - b) <= 8 * unit_roundoff<double>; };
    CHECK(close(weights_of(ScalableSoftmax(1 / std::log(2.0)), z)[1], 2.0 / 3));
    CHECK(close(weights_of(SinkSoftmax(1), z)[1], 0.5));
    CHECK(close(weights_of(SinkSoftmax(1), z)[0], 0.25));
    CHECK(close(weights_of(SigmoidAttention(), z)[1], 0.5));
    CHECK(close(weights_of(Softpick(0), z)[1], 1));
    CHECK(weights_of(Softpick(0), z)[0] == 0);
    CHECK(close(weights_of(PointwiseNormalizer<StableExponential>(), std::vector<double>{-1.0, 1.0})[0], 0.2));
    CHECK(
        close(weights_of(PointwiseNormalizer<ReluPower>(ReluPower(2)), std::vector<double>{1.0, 2.0})[0], 0.2));
    CHECK(weights_of(Softmax() | top_k(1), std::vector<double>{1.0, 1.0}) == std::vector<double>{1, 0});
    CHECK(weights_of(Softmax() | top_p(1), z)[0] > 0);
    CHECK(weights_of(Softmax() | top_p(0.5), z) == std::vector<double>{0, 1});
}

TEST_CASE("rows that gave trouble elsewhere", "[family]") {
    const double inf = std::numeric_limits<double>::infinity();
    for_each_normalizer([&](const auto& normalizer, const Formula&) {
        const std::string name(normalizer.name());
        CAPTURE(name);
        RowStatus status{};
        CHECK(weights_of(normalizer, std::vector<double>{-inf, -inf}, &status) == std::vector<double>{0, 0});
        CHECK(status == RowStatus::empty);
        CHECK(std::isnan(weights_of(normalizer, std::vector<double>{1, std::nan(""), 2}, &status)[0]));
        CHECK(status == RowStatus::nan);
        for (const std::vector<float>& row :
             {std::vector<float>{-1000, -999.75F, -1000}, std::vector<float>{65504, 65504},
              std::vector<float>{-10001, -20000, -10001}}) {
            const std::vector<float> p = weights_of(normalizer, row, &status);
            const float sum = std::accumulate(p.begin(), p.end(), 0.0F);
            CHECK((sum >= 0 && sum <= static_cast<float>(row.size())));
            if (std::decay_t<decltype(normalizer)>::traits.simplex && status == RowStatus::normal)
                CHECK(std::abs(sum - 1) < 1e-6F);
            CHECK(p[0] == (row.size() == 2 && name.find("top") == std::string::npos ? p[1] : p[0]));
        }
    });
}

namespace {
/// Softmax of which nothing but its products is known.
struct Opaque {
    static constexpr NormalizerTraits traits{.simplex = true};
    static constexpr std::string_view name() { return "opaque"; }
    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        return Softmax{}.apply<T>(z, out);
    }
    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        Softmax{}.jvp<T>(z, p, v, out);
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        Softmax{}.vjp<T>(z, p, w, out);
    }
};
} // namespace

TEST_CASE("norms from products agree with closed forms", "[family]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst spectral, frobenius;
    std::size_t open = 0;
    for_each_row<double>(
        seed, std::array<std::size_t, 4>{2, 7, 40, 150}, 2,
        [&](const Where& where, const std::vector<double>& z) {
            const std::vector<double> p = weights_of(Softmax(), z);
            const auto norms = jacobian_norms(Opaque(), in(z), in(p)),
                       exact = jacobian_norms(Softmax(), in(z), in(p));
            // Near one-hot 1 - p1 comes by subtraction in the products.
            const Ref entries = 16 * unit_roundoff<double> * static_cast<Ref>(z.size());
            frobenius.meet(std::abs(Ref(norms.frobenius) - Ref(exact.frobenius)), entries, where);
            CHECK(norms.spectral.value <= norms.spectral.bracket.upper * (1 + 1e-12));
            if (!norms.spectral.converged)
                ++open;
            else
                spectral.meet(std::abs(Ref(norms.spectral.value) - Ref(exact.spectral.value)), entries, where);
        });
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(frobenius);
    // Where nothing moves but by rounding there is no vector to iterate.
    CHECK(open * 10 < spectral.met());
}

TEST_CASE("norms from products survive squares that underflow", "[family]") {
    // Entries of about e^{-200}: their squares are still numbers, those of e^{-400} are not.
    for (const double gap : {200.0, 400.0}) {
        const std::vector<double> z = {0, -gap};
        const Opaque by_products;
        const auto norms = jacobian_norms(by_products, in(z), in(weights_of(by_products, z)));
        const auto exact = jacobian_norms(Softmax(), in(z), in(weights_of(Softmax(), z)));
        CHECK(std::abs(norms.column - exact.column) <= 16 * unit_roundoff<double> * exact.column);
        // The entry p1 (1 - p1) is lost in the products: at most half of each sum of squares.
        CHECK(norms.frobenius >= exact.frobenius / 2);
        CHECK(norms.frobenius <= exact.frobenius * (1 + 16 * unit_roundoff<double>));
        CHECK(norms.spectral.value >= norms.column);
        CHECK(norms.spectral.value <= norms.frobenius * (1 + 16 * unit_roundoff<double>));
        // Behind a choice the closed form serves, and nothing is lost.
        const auto cut = Softmax() | top_k(2);
        const auto kept = jacobian_norms(cut, in(z), in(weights_of(cut, z)));
        CHECK(std::abs(kept.frobenius - exact.frobenius) <= 16 * unit_roundoff<double> * exact.frobenius);
        CHECK(kept.spectral.value == exact.spectral.value);
    }
}

TEST_CASE("sink logits and logits at the ends of the range", "[family]") {
    const std::vector<float> z = {1, 2};
    CHECK(SinkSoftmax::from_logit(1e300).sink_mass(in(z)) == 1);
    CHECK(SinkSoftmax(0).sink_mass(in(z)) == 0);
    CHECK(weights_of(Softpick(0), std::vector<float>{1e-40F, 1e-40F}) == std::vector<float>{0.5F, 0.5F});
}

TEST_CASE("bad parameters are refused with rule and value", "[family]") {
    const double nan = std::nan("");
    const auto message = [](auto&& make) {
        try {
            make();
        } catch (const invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string("nothing thrown");
    };
    CHECK(message([] { ScalableSoftmax(-1); }).find("s must be >= 0 and finite, got -1") != std::string::npos);
    CHECK(message([&] { LogLengthSoftmax{nan}; }).find("kappa must be") != std::string::npos);
    CHECK(message([] { YarnSoftmax(0); }).find("got 0") != std::string::npos);
    CHECK(message([&] { SinkSoftmax{nan}; }).find("n0 must be") != std::string::npos);
    CHECK(message([&] { SigmoidAttention{nan}; }).find("bias must be finite") != std::string::npos);
    CHECK(message([] { Softpick(-1); }).find("eps must be") != std::string::npos);
    CHECK(message([] { ReluPower(0.5); }).find(">= 1 and finite, got 0.5") != std::string::npos);
    CHECK(message([] { softcap(0); }).find("cap must be > 0") != std::string::npos);
    CHECK(message([] { temperature(0); }).find("temperature must be > 0") != std::string::npos);
    CHECK(message([] { top_k(0); }).find("k must be >= 1, got 0") != std::string::npos);
    CHECK(message([] { top_p(1.5); }).find("(0, 1], got 1.5") != std::string::npos);
}
