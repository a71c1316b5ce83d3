// Products with the Jacobian of rows in which one key has nearly all the mass keep their digits, against sums
// of positive terms in long double.
#include <attnscope/attnscope.hpp>
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
    }
    // NaN at a key that is seen is NaN.
    const std::vector<T> p = weights_of(Softmax(), z);
    std::vector<T> bad = w;
    bad[1] = nan;
    CHECK(std::isnan(vjp_of(Softmax(), z, p, bad)[1]));
}
