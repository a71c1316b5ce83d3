// Theorem 2 on the spherical model: the lower side holds, the published upper side does not, the valid range
// does.
#include <attnscope/selection/separability_bounds.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::Interval;
using attnscope::Side;
using attnscope::SimulatedMean;
using attnscope::SphericalModel;
using attnscope::theorem2_bound;
using attnscope::theorem2_published_range;
using attnscope::theorem2_valid_range;
using attnscope::theorem2_xi;
using attnscope::Verdict;

namespace {

std::vector<double> zipf(std::size_t n) {
    std::vector<double> p;
    for (std::size_t i = 1; i <= n; ++i) p.push_back(1 / static_cast<double>(i));
    families::normalise(p);
    return p;
}

/// xi_i by its definition, ordered pairs.
RefRow reference_xi(const std::vector<double>& p, Ref m, Ref delta) {
    RefRow xi;
    for (std::size_t i = 0; i < p.size(); ++i) {
        Ref square = 0;
        for (std::size_t j = 0; j < p.size(); ++j)
            for (std::size_t k = 0; k < p.size(); ++k) {
                if (j == i || k == i) continue;
                const Ref product = Ref(p[j]) * Ref(p[k]);
                square += j == k ? m * m * product : (m * m - delta * delta / 2) * product;
            }
        xi.push_back(std::sqrt(std::max(square, Ref(0))));
    }
    return xi;
}

/// Distances X_i = |s - y_i| of draws of the model, with the test's own loops.
template <class F>
void draw(const std::vector<double>& p, Index d, double m, int trials, SplitMix64& random, F&& f) {
    const auto width = static_cast<std::size_t>(d);
    std::vector<double> x(p.size() * width), s(width), distance(p.size());
    for (int trial = 0; trial < trials; ++trial) {
        families::unit_vectors(random, d, x);
        std::fill(s.begin(), s.end(), 0.0);
        for (std::size_t i = 0; i < p.size(); ++i)
            for (std::size_t c = 0; c < width; ++c) s[c] += m * p[i] * x[i * width + c];
        for (std::size_t i = 0; i < p.size(); ++i) {
            double square = 0;
            for (std::size_t c = 0; c < width; ++c) {
                const double difference = s[c] - m * p[i] * x[i * width + c];
                square += difference * difference;
            }
            distance[i] = std::sqrt(square);
        }
        f(distance);
    }
}

/// The upper side by bounded differences (X_i moves by at most 2 M p_j) and by Hoeffding's inequality, the
/// better of both for each token: what the spherical form is sharper than.
double by_differences(const std::vector<double>& p, const SphericalModel& model, double radius) {
    const double half = static_cast<double>(model.dimension) / 2;
    const double chi = std::exp(std::lgamma(half + 0.5) - std::lgamma(half)) / std::sqrt(half);
    double upper = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        double sum = 0, squares = 0;
        for (std::size_t j = 0; j < p.size(); ++j)
            if (j != i) sum += p[j], squares += p[j] * p[j];
        const double gap = std::max(0.0, chi * std::sqrt(squares) - radius / model.radius);
        upper += gap > 0
                     ? std::min(std::exp(-2 * gap * gap / (sum * sum)), std::exp(-gap * gap / (2 * squares)))
                     : 1;
    }
    return upper / static_cast<double>(p.size());
}

/// inf over theta of exp(theta r^2 - sum theta_k p_k^2), the limit of P(X < r) or P(X >= r), by a fine search.
double exponential_limit(const std::vector<double>& p, Index d, double radius, bool below) {
    Ref best = 0;
    for (int step = -400; step <= 800; ++step) {
        const Ref theta = (below ? 1 : -1) * std::pow(Ref(10), static_cast<Ref>(step) / 100);
        best = std::min(best, theta * radius * radius - exponent_of(p, d, theta, false));
    }
    return static_cast<double>(std::exp(best));
}

double mean_of(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::span<const double> in_radii(const std::vector<double>& radii) { return radii; }

} // namespace

TEST_CASE("xi is exact", "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst worst;
    for (std::size_t w = 0; w < weight_families.size(); ++w)
        for (const std::size_t n : {std::size_t(1), std::size_t(2), std::size_t(5), std::size_t(40)})
            for (const double delta : {0.0, 0.5, 1.4})
                for (const double m : {1.0, 3.5}) {
                    SplitMix64 random = generator(seed, w, n);
                    std::vector<double> p(n);
                    weight_families[w].fill(random, p);
                    const SphericalModel model{.dimension = 8, .radius = m, .delta = delta * m};
                    const std::vector<double> xi = theorem2_xi(in(p), model);
                    const RefRow truth = reference_xi(p, m, Ref(delta * m));
                    REQUIRE(xi.size() == n);
                    // The pairs are (sum p)^2 - sum p^2, known to 2n u of (sum p)^2 <= M^2, before the root.
                    const Ref e = unit_roundoff<double> * static_cast<Ref>(4 * n + 16) * Ref(m) * Ref(m);
                    for (std::size_t i = 0; i < n; ++i) {
                        Ref rest = 0;
                        for (std::size_t j = 0; j < n; ++j)
                            if (j != i) rest += p[j];
                        const Ref own = e * rest * rest;
                        worst.meet(std::abs(xi[i] - truth[i]),
                                   truth[i] > 0 ? std::min(std::sqrt(own), own / truth[i]) : std::sqrt(own),
                                   Where{weight_families[w].name, n, 1, seed});
                    }
                }
    ATTNSCOPE_CHECK_WORST(worst);

    // One weight dwarfs the rest: what remains without it keeps all digits, where a difference would keep none.
    const std::vector<double> one_hot = {1, 0, 0}, needle = {1e-20, 1, 1e-30};
    const SphericalModel model;
    CHECK(theorem2_xi(in(one_hot), model) == std::vector<double>{0, 1, 1});
    const std::vector<double> xi = theorem2_xi(in(needle), model);
    CHECK(xi[1] == Catch::Approx(1e-20).epsilon(1e-9));
}

TEST_CASE("xi is clamped where a large delta makes its square negative", "[selection][theorem2]") {
    const std::vector<double> p(4, 0.25);
    // 3/16 - 6/16 for delta = 2 > sqrt 2.
    const SphericalModel apart{.dimension = 3, .delta = 2};
    CHECK(theorem2_xi(in(p), apart) == std::vector<double>(4, 0.0));
    const auto range = theorem2_published_range<double>(p, apart, 0.5);
    CHECK(range.lower == 1);
    CHECK(range.upper == Catch::Approx(std::exp(-0.125)).epsilon(1e-15));
    // sqrt 2 makes the pairs vanish; just above it the square is still positive.
    const SphericalModel orthogonal{.dimension = 3, .delta = std::sqrt(2.0)};
    CHECK(theorem2_xi(in(p), orthogonal)[0] == Catch::Approx(std::sqrt(3.0) / 4).epsilon(1e-12));
    const SphericalModel more{.dimension = 3, .delta = 1.5};
    CHECK(theorem2_xi(in(p), more)[0] == Catch::Approx(std::sqrt(3.0 / 16 - 0.125 * 6 / 16)).epsilon(1e-12));
}

TEST_CASE("simulated fractions agree with exact ones of two and three vectors", "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 3);
    // Two: X_1 = p_2 and X_2 = p_1, whatever the vectors.
    const std::vector<double> two = {0.7, 0.3}, radii = {0.2, 0.5, 0.9};
    const auto fixed =
        simulate_separable_fraction(in(two), SphericalModel{.dimension = 5}, in_radii(radii), 50, random);
    REQUIRE(fixed.size() == 3);
    CHECK(fixed[0].mean == 0);
    CHECK(fixed[1].mean == 0.5);
    CHECK(fixed[2].mean == 1);
    for (const auto& mean : fixed) {
        CHECK(mean.standard_error < 1e-8);
        CHECK(mean.trials == 50);
    }
    // Three in R^3: |p x + q x'|^2 is uniform on [(p-q)^2, (p+q)^2] (Archimedes). M scales it.
    const std::vector<double> three = {0.5, 0.3, 0.2};
    for (const double m : {1.0, 2.5}) {
        const std::vector<double> at = {0.25 * m, 0.4 * m, 0.55 * m, 0.65 * m};
        const auto found = simulate_separable_fraction(in(three), SphericalModel{.dimension = 3, .radius = m},
                                                       in_radii(at), 4000, random);
        for (std::size_t r = 0; r < at.size(); ++r) {
            const double x = at[r] / m;
            double truth = 0;
            for (std::size_t i = 0; i < 3; ++i) {
                const double p = three[(i + 1) % 3], q = three[(i + 2) % 3];
                truth += std::clamp((x * x - (p - q) * (p - q)) / (4 * p * q), 0.0, 1.0) / 3;
            }
            INFO("r " << x << ": " << found[r].mean << " +- " << found[r].standard_error << ", exactly "
                      << truth);
            CHECK(std::abs(found[r].mean - truth) <= 6 * found[r].standard_error + 1e-12);
            CHECK(found[r].standard_error < 0.01);
        }
    }
}

TEST_CASE("Theorem 2: lower side and valid range hold on simulated spheres, small dimensions included",
          "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    std::size_t checked = 0, lower_violated = 0, sharp_violated = 0, upper_violated = 0, informative = 0;
    std::size_t sharper = 0, far_sharper = 0;
    Worst length;
    for (const Index d : {2, 3, 5, 16, 64})
        for (const std::size_t n : {std::size_t(2), std::size_t(3), std::size_t(6), std::size_t(20)})
            for (int shape = 0; shape < 3; ++shape) {
                SplitMix64 random = generator(seed, d, n, shape);
                std::vector<double> p = zipf(n);
                if (shape == 1) std::fill(p.begin(), p.end(), 0.6 / static_cast<double>(n)); // mass below 1
                if (shape == 2) families::sharp_weights(random, p);
                const double m = shape == 1 ? 2 : 1;
                const SphericalModel model{.dimension = d, .radius = m};
                const double scale = mean_of(theorem2_xi(in(p), model));
                std::vector<double> radii;
                for (const double factor : {0.05, 0.2, 0.5, 0.8, 1.0, 1.2, 2.0, 20.0})
                    radii.push_back(factor * scale);
                const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 300, random);
                for (std::size_t r = 0; r < radii.size(); ++r) {
                    const auto published = theorem2_published_range<double>(p, model, radii[r]);
                    const auto valid = theorem2_valid_range<double>(p, model, radii[r]);
                    ++checked;
                    CHECK(valid.lower >= 0);
                    CHECK(valid.upper <= 1);
                    CHECK(valid.lower <= valid.upper);
                    lower_violated +=
                        theorem2_bound(attnscope::Form::published, Side::lower, published, found[r])
                            .verdict() == Verdict::violated;
                    upper_violated +=
                        theorem2_bound(attnscope::Form::published, Side::upper, published, found[r])
                            .verdict() == Verdict::violated;
                    for (const Side side : {Side::lower, Side::upper})
                        sharp_violated +=
                            theorem2_bound(attnscope::Form::sharp, side, valid, found[r]).verdict() ==
                            Verdict::violated;
                    informative += valid.upper < 0.95;
                    const double differences = by_differences(p, model, radii[r]);
                    CHECK(valid.upper <= differences * (1 + 1e-12) + 1e-12); // the rounding of r among them
                    far_sharper += valid.upper < 0.5 * differences;
                    sharper += valid.lower > published.lower + 0.01;
                    CHECK(valid.lower >= published.lower - 1e-12);
                }
                // What the valid range rests on: both parts of e_i <= E X_i <= M sqrt(sum p^2).
                std::vector<double> sum(n), squares(n);
                constexpr int trials = 300;
                draw(p, d, m, trials, random, [&](const std::vector<double>& x) {
                    for (std::size_t i = 0; i < n; ++i) sum[i] += x[i], squares[i] += x[i] * x[i];
                });
                const double half = static_cast<double>(d) / 2;
                const double chi = std::exp(std::lgamma(half + 0.5) - std::lgamma(half)) / std::sqrt(half);
                for (std::size_t i = 0; i < n; ++i) {
                    double others = 0, largest = 0;
                    for (std::size_t j = 0; j < n; ++j)
                        if (j != i) others += p[j] * p[j], largest = std::max(largest, p[j]);
                    const double mean = sum[i] / trials, root = m * std::sqrt(others);
                    const double error =
                        std::sqrt(std::max(0.0, squares[i] / trials - mean * mean) / (trials - 1));
                    const Where where{"spheres", n, 1, seed};
                    length.meet(Ref(chi * root - mean), Ref(6 * error + 1e-7 * root), where);
                    length.meet(Ref(m * largest - mean), Ref(6 * error + 1e-7 * root), where);
                    length.meet(Ref(mean - root), Ref(6 * error + 1e-7 * root), where);
                }
            }
    INFO(upper_violated << " of " << checked << " violate the published upper side");
    ATTNSCOPE_CHECK_WORST(length);
    CHECK(checked == 480);
    CHECK(lower_violated == 0);
    CHECK(sharp_violated == 0);
    CHECK(upper_violated > 100);
    CHECK(informative > 150);
    CHECK(sharper > 100);
    CHECK(far_sharper > 100);
}

TEST_CASE("Theorem 2's valid upper side against exact probabilities of three tokens in the plane and in space",
          "[selection][theorem2]") {
    // |p x + q x'| <= r where the cosine is <= c = (r^2 - p^2 - q^2)/(2pq): its distribution is that of cos
    // phi, phi uniform, for d = 2, and uniform on [-1,1] for d = 3.
    std::size_t checked = 0, violated = 0;
    double tightest = 0;
    for (const Index d : {2, 3})
        for (const double second : {1e-3, 0.03, 0.3, 0.7, 0.99, 1.0})
            for (const double third : {1e-6, 0.01, 0.2, 0.6, 1.0}) {
                const std::vector<double> p = {1, second, second * third};
                for (double radius = 0.01; radius < 1.6; radius += 0.0137) {
                    double truth = 0;
                    for (std::size_t i = 0; i < 3; ++i) {
                        const double a = p[(i + 1) % 3], b = p[(i + 2) % 3];
                        const double c = std::clamp((radius * radius - a * a - b * b) / (2 * a * b), -1.0, 1.0);
                        truth += (d == 2 ? 1 - std::acos(c) / std::numbers::pi : (1 + c) / 2) / 3;
                    }
                    const SphericalModel model{.dimension = d, .radius = 2};
                    const double limit = theorem2_valid_range<double>(p, model, 2 * radius).upper;
                    // The cosine is a difference of terms of order 1/b, and near its ends phi loses half the
                    // digits.
                    const double rounding = 1e-15 / (second * second * third);
                    ++checked;
                    violated += truth > limit + (d == 2 ? std::sqrt(rounding) : rounding);
                    if (limit < 0.9) tightest = std::max(tightest, truth / limit);
                }
            }
    CHECK(checked > 6000);
    CHECK(violated == 0);
    CHECK(tightest > 0.9); // a token too far for the ball, and two that are not

    // Power of the exponent: for a third token that sees the weights 1 and b, X is 1 + b cos phi for small b,
    // and P(X < 1 - s b) is P(cos phi < -s). The first token is inside, the second outside: the third one's
    // limit is what is left. Twice the exponent is refuted in the plane, three times in space.
    for (const Index d : {2, 3}) {
        const double b = 1e-3;
        bool refuted = false;
        for (double s = 0.05; s < 1; s += 0.05) {
            const std::vector<double> p = {1, b, 1e-12};
            const double limit =
                3 * theorem2_valid_range<double>(p, SphericalModel{.dimension = d}, 1 - s * b).upper - 1;
            const double truth = d == 2 ? std::acos(s) / std::numbers::pi : (1 - s) / 2;
            CAPTURE(d, s, truth, limit);
            CHECK(truth < limit);
            refuted |= truth > 1.01 * std::pow(limit, d);
        }
        CHECK(refuted);
    }
}

TEST_CASE("Theorem 2's valid range is exact for two tokens, at any radius and dimension",
          "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    // X_1 = p_2 and X_2 = p_1: both limits are steps there, also where r is one of them to the last digit.
    for (const Index d : {2, 3, 64})
        for (const double m : {1.0, 3.0}) {
            const std::vector<double> p = {0.7, 0.3};
            const std::vector<double> radii = {0.1 * m, 0.29999 * m, 0.3 * m,     0.30001 * m,
                                               0.5 * m, 0.69999 * m, 0.70001 * m, 2 * m};
            const std::vector<double> truth = {0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1};
            SplitMix64 random = generator(seed, d);
            const SphericalModel model{.dimension = d, .radius = m};
            const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 2000, random);
            for (std::size_t r = 0; r < radii.size(); ++r) {
                CAPTURE(d, m, r);
                const auto range = theorem2_valid_range<double>(p, model, radii[r]);
                CHECK(range.upper == truth[r]);
                CHECK(range.lower == (r == 2 ? 0 : truth[r]));
                const auto bound = theorem2_bound(attnscope::Form::sharp, Side::upper, range, found[r]);
                CHECK(bound.verdict() != Verdict::violated);
                if (r == 2)
                    continue; // on the sphere itself, rounding decides which side a simulated token is on
                CHECK(std::abs(bound.slack()) <= bound.tolerance);
                if (!(truth[r] > 0)) continue;
                CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
                const auto below = theorem2_bound(attnscope::Form::sharp, Side::lower, range, found[r]);
                CHECK(std::abs(below.slack()) <= below.tolerance);
                CHECK(below.tightened(0.99).verdict() == Verdict::violated);
            }
        }
    // Three tokens, one of which dwarfs the others: almost the same.
    const std::vector<double> needle = {1, 1e-20, 1e-30};
    CHECK(theorem2_valid_range<double>(needle, SphericalModel{}, 0.5).upper == 1.0 / 3);
    CHECK(by_differences(needle, SphericalModel{}, 0.5) > 0.7);
}

TEST_CASE("Theorem 2's valid upper side is far below bounded differences in many dimensions",
          "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 32);
    const std::vector<double> p(16, 1.0 / 16);
    for (const Index d : {32, 512}) {
        const SphericalModel model{.dimension = d};
        const double half = static_cast<double>(d) / 2;
        const double e = std::sqrt(15.0 / 256 / half) * std::exp(std::lgamma(half + 0.5) - std::lgamma(half));
        const std::vector<double> radii = {0.7 * e, 0.9 * e, 0.97 * e};
        const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 200, random);
        for (std::size_t r = 0; r < radii.size(); ++r) {
            const auto range = theorem2_valid_range<double>(p, model, radii[r]);
            CAPTURE(d, r, range.upper, found[r].mean);
            CHECK(theorem2_bound(attnscope::Form::sharp, Side::upper, range, found[r]).verdict() !=
                  Verdict::violated);
            // No more than by the logarithmic Sobolev inequality alone: 14 of the 15 others, equal, and d - 1.
            const double gap = e - radii[r];
            CHECK(range.upper <= std::exp(-static_cast<double>(d - 1) * gap * gap / (2 * 14.0 / 256)));
            // By the exponential moments, whose best theta the library misses by little, or Cantelli's inequality.
            const double v = 15.0 / 256, closed = v - radii[r] * radii[r];
            const double variance = 2.0 / static_cast<double>(d) * 15 * 14 / 65536;
            const double best =
                std::min(exponential_limit(std::vector<double>(15, 1.0 / 16), d, radii[r], true),
                         variance / (variance + closed * closed));
            CHECK(range.upper >= best * (1 - 1e-9));
            CHECK(std::log(range.upper) <= 0.97 * std::log(best));
            CHECK(range.upper <=
                  std::exp(-static_cast<double>(d) * closed * closed / (4 * 14 * v / 256)) * (1 + 1e-9));
            CHECK(by_differences(p, model, radii[r]) > 0.95);
        }
        CHECK(theorem2_valid_range<double>(p, model, radii[0]).upper < (d == 32 ? 0.031 : 1e-20));
    }
}

TEST_CASE("Theorem 2's valid lower side is far above Markov's in many dimensions", "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 33);
    const std::vector<double> p(16, 1.0 / 16);
    const double v = 15.0 / 256;
    for (const Index d : {8, 32}) {
        const SphericalModel model{.dimension = d, .radius = 3};
        const std::vector<double> radii = {3 * std::sqrt(1.1 * v), 3 * std::sqrt(1.5 * v),
                                           3 * std::sqrt(2 * v)};
        const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 1000, random);
        for (std::size_t r = 0; r < radii.size(); ++r) {
            const double radius = radii[r] / 3;
            const auto range = theorem2_valid_range<double>(p, model, radii[r]);
            CAPTURE(d, r, range.lower, found[r].mean);
            const auto bound = theorem2_bound(attnscope::Form::sharp, Side::lower, range, found[r]);
            CHECK(bound.verdict() <= Verdict::vacuous);
            // Markov's inequality, Cantelli's, and the exponential moments by a fine search.
            const double gap = radius * radius - v, variance = 2.0 / static_cast<double>(d) * 15 * 14 / 65536;
            const double best =
                std::min({v / (radius * radius), variance / (variance + gap * gap),
                          exponential_limit(std::vector<double>(15, 1.0 / 16), d, radius, false)});
            CHECK(1 - range.lower >= best * (1 - 1e-9));
            CHECK(std::log(1 - range.lower) <= 0.97 * std::log(best));
            if (r == 2) CHECK(range.lower > (d == 32 ? 0.99 : 0.8));
        }
    }
}

TEST_CASE("one percent more than the valid range would be noticed", "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 17);
    // A ball that holds everything, and one just wide enough for Markov's inequality to be nearly exact.
    const std::vector<double> p = zipf(8), radii = {1.01, 1e5};
    const SphericalModel model{.dimension = 4};
    const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 1000, random);
    const auto upper = theorem2_bound(attnscope::Form::sharp, Side::upper,
                                      theorem2_valid_range<double>(p, model, radii[0]), found[0]);
    CHECK(upper.measured == 1);
    CHECK(upper.value == 1);
    CHECK(upper.tightness() == 1);
    CHECK(upper.tightened(0.99).verdict() == Verdict::violated);
    const auto lower = theorem2_bound(attnscope::Form::sharp, Side::lower,
                                      theorem2_valid_range<double>(p, model, radii[1]), found[1]);
    CHECK(lower.measured == 1);
    CHECK(lower.value > 1 - 1e-5);
    CHECK(lower.verdict() <= Verdict::within_rounding);
    CHECK(lower.tightened(0.99).verdict() == Verdict::violated);
    // A sharper claim inside: e_i as if it were the largest possible length, sum p, is refuted.
    const std::vector<double> equal(16, 1.0 / 16), middle = {0.3};
    const auto half =
        simulate_separable_fraction(in(equal), SphericalModel{.dimension = 64}, in_radii(middle), 1000, random);
    const double gap = 15.0 / 16 - 0.3;
    const Interval<double> mutant{0, std::exp(-gap * gap / (2 * 15.0 / 256))};
    CHECK(theorem2_bound(attnscope::Form::sharp, Side::upper, mutant, half[0]).verdict() == Verdict::violated);
}

TEST_CASE("Theorem 2's published upper side is false: the smallest cases", "[selection][theorem2]") {
    SplitMix64 random(1);
    const SphericalModel model;
    // One token is s itself: N_s/N = 1 for every r > 0, against exp(-r^2/2).
    const std::vector<double> one = {1}, unit_radius = {1};
    const auto alone = simulate_separable_fraction(in(one), model, in_radii(unit_radius), 1000, random);
    CHECK(alone[0].mean == 1);
    CHECK(theorem2_published_range<double>(one, model, 1).upper ==
          Catch::Approx(std::exp(-0.5)).epsilon(1e-15));
    CHECK(theorem2_bound(attnscope::Form::published, Side::upper,
                         theorem2_published_range<double>(one, model, 1), alone[0])
              .verdict() == Verdict::violated);
    // Two equal weights: X_1 = X_2 = 1/2 = xi whatever the vectors, so at r = 1 = 2 mean xi both are inside:
    // 1 against e^{-1/8} = 0.8825.
    const std::vector<double> two = {0.5, 0.5};
    const auto both = simulate_separable_fraction(in(two), model, in_radii(unit_radius), 1000, random);
    const auto range = theorem2_published_range<double>(two, model, 1);
    CHECK(both[0].mean == 1);
    CHECK(both[0].standard_error == 0);
    CHECK(range.upper == Catch::Approx(0.8825).epsilon(1e-4));
    CHECK(theorem2_bound(attnscope::Form::sharp, Side::upper, range, both[0]).verdict() == Verdict::violated);
    CHECK(theorem2_valid_range<double>(two, model, 1).upper == 1);
}

TEST_CASE("Theorem 2's published upper side at d = 64, N = 16 of 1024 Zipf weights: 0.914 against 1.000",
          "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 64);
    std::vector<double> p = zipf(1024);
    p.resize(16);
    const SphericalModel model;
    const std::vector<double> radii = {2 * mean_of(theorem2_xi(in(p), model))};
    const auto found = simulate_separable_fraction(in(p), model, in_radii(radii), 300, random);
    const auto range = theorem2_published_range<double>(p, model, radii[0]);
    INFO("bound " << range.upper << ", measured " << found[0].mean);
    CHECK(found[0].mean > 0.9995);
    CHECK(theorem2_bound(attnscope::Form::sharp, Side::upper, range, found[0]).verdict() == Verdict::violated);
    CHECK(std::abs(range.upper - 0.914) < 0.0005);
    CHECK(theorem2_valid_range<double>(p, model, radii[0]).contains(found[0].mean));
}

TEST_CASE("a fraction that never varied is known to 6/trials only", "[selection][theorem2]") {
    const Interval<double> range{0.2, 0.99};
    const auto never =
        theorem2_bound(attnscope::Form::sharp, Side::upper, range, SimulatedMean<double>{1, 0, 100});
    CHECK(never.id() == "theorem2_upper");
    CHECK(never.tolerance == 0.06);
    CHECK(never.verdict() == Verdict::within_rounding);
    CHECK(theorem2_bound(attnscope::Form::sharp, Side::upper, range, SimulatedMean<double>{1, 0, 1000})
              .verdict() == Verdict::violated);
    const auto lower =
        theorem2_bound(attnscope::Form::sharp, Side::lower, range, SimulatedMean<double>{0.15, 0.01, 100});
    CHECK(lower.id() == "theorem2_lower");
    CHECK(lower.tolerance == 0.06);
    CHECK(lower.verdict() == Verdict::within_rounding);
    CHECK(theorem2_bound(attnscope::Form::sharp, Side::lower, range, SimulatedMean<double>{0.13, 0.01, 100})
              .verdict() == Verdict::violated);
}
