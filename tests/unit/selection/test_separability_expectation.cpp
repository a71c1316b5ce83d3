// Exact expectations on the spherical model against closed forms and simulation.
#include <attnscope/selection/gaussian_truncation.hpp>
#include <attnscope/selection/separability_expectation.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::expected_separable_fraction;
using attnscope::gaussian_truncation_share;
using attnscope::sphere_cosine_cdf;
using attnscope::sphere_sum_cdf;

namespace {

struct Estimate {
    double mean, error;
};

/// E N_s/N by drawing vectors and taking the definition: r = the nearest of the others, strictly nearer counts.
Estimate simulate(const std::vector<double>& selected, const std::vector<double>& others, Index d, int trials,
                  SplitMix64& random) {
    std::vector<double> p = selected;
    p.insert(p.end(), others.begin(), others.end());
    const auto width = static_cast<std::size_t>(d);
    std::vector<double> y(p.size() * width), s(width);
    double sum = 0, squares = 0;
    for (int trial = 0; trial < trials; ++trial) {
        families::unit_vectors(random, d, y);
        std::fill(s.begin(), s.end(), 0.0);
        for (std::size_t i = 0; i < p.size(); ++i)
            for (std::size_t c = 0; c < width; ++c) {
                y[i * width + c] *= p[i];
                if (i < selected.size()) s[c] += y[i * width + c];
            }
        // D^2 - |s|^2, which also tells light tokens apart.
        const auto offset = [&](std::size_t i) {
            double value = 0;
            for (std::size_t c = 0; c < width; ++c) value += y[i * width + c] * (y[i * width + c] - 2 * s[c]);
            return value;
        };
        double nearest = std::numeric_limits<double>::infinity(), inside = 0;
        for (std::size_t j = selected.size(); j < p.size(); ++j) nearest = std::min(nearest, offset(j));
        for (std::size_t i = 0; i < selected.size(); ++i) inside += offset(i) < nearest;
        inside /= static_cast<double>(selected.size());
        sum += inside;
        squares += inside * inside;
    }
    const double mean = sum / trials;
    return {mean, std::sqrt(std::max(0.0, squares / trials - mean * mean) / (trials - 1))};
}

struct Setting {
    const char* name;
    std::vector<double> selected, others;
    Index d;
    int trials;
};

/// The N largest of L softmax weights of normal logits of the given spread, and the rest.
Setting gaussian_setting(const char* name, std::uint64_t seed, std::size_t l, std::size_t n, double spread,
                         Index d, int trials) {
    SplitMix64 random = generator(seed, l, d);
    std::vector<double> p(l);
    families::softmax_weights(random, p, spread);
    std::sort(p.begin(), p.end(), std::greater<>());
    const auto middle = p.begin() + static_cast<std::ptrdiff_t>(n);
    return {name, {p.begin(), middle}, {middle, p.end()}, d, trials};
}

std::vector<Setting> settings(std::uint64_t seed) {
    return {
        {"one of two, plane", {0.6}, {0.4}, 2, 4000},
        {"three equal of six, space", {1, 1, 1}, {1, 1, 1}, 3, 8000},
        {"heavy and light", {0.5, 0.1, 0.001}, {0.2, 0.0001}, 4, 8000},
        {"lighter selected than not", {0.1, 0.1}, {0.5, 0.3}, 5, 8000},
        {"nearly nothing left", {0.5, 0.3, 0.1999}, {1e-4}, 2, 8000},
        gaussian_setting("16 of 64, d 8", seed, 64, 16, 2, 8, 3000),
        gaussian_setting("8 of 32, d 64", seed, 32, 8, 2, 64, 2000),
        gaussian_setting("40 of 50, d 16", seed, 50, 40, 1, 16, 3000),
        gaussian_setting("4 of 100, d 3", seed, 100, 4, 0.5, 3, 4000),
    };
}

/// Distribution of |sum a_j x_j| in R^3 for any number of vectors: the projection of a_j x_j on an axis is
/// uniform on
/// [-a_j, a_j] (Archimedes), and the length R of an isotropic vector with projection density g has
/// P(R <= r) = 2 G(r) - 1 - 2 r g(r).
Ref space_cdf(const std::vector<double>& a, Ref r) {
    const std::size_t n = a.size();
    Ref density = 0, mass = 0, norm = 1, factorial = 1;
    for (const double x : a) norm *= 2 * Ref(x);
    for (std::size_t k = 2; k <= n; ++k) factorial *= static_cast<Ref>(k);
    for (unsigned signs = 0; signs < (1u << n); ++signs) {
        Ref at = r, sign = 1;
        for (std::size_t j = 0; j < n; ++j) {
            const bool minus = (signs >> j & 1u) != 0;
            at += minus ? -Ref(a[j]) : Ref(a[j]);
            sign = minus ? -sign : sign;
        }
        if (at <= 0) continue;
        density += sign * std::pow(at, static_cast<Ref>(n - 1)) * static_cast<Ref>(n);
        mass += sign * std::pow(at, static_cast<Ref>(n));
    }
    return (2 * mass - 2 * r * density) / (norm * factorial) - 1;
}

} // namespace

TEST_CASE("special: the cosine of random directions has its closed forms", "[special][selection]") {
    const double pi = 3.14159265358979323846;
    for (int k = -40; k <= 40; ++k) {
        const double t = k / 40.0;
        CHECK(sphere_cosine_cdf(2, t) == Catch::Approx(1 - std::acos(t) / pi).epsilon(1e-13).margin(1e-15));
        CHECK(sphere_cosine_cdf(3, t) == Catch::Approx((1 + t) / 2).epsilon(1e-13).margin(1e-15));
        CHECK(sphere_cosine_cdf(4, t) ==
              Catch::Approx(0.5 + (t * std::sqrt(1 - t * t) + std::asin(t)) / pi).epsilon(1e-12).margin(1e-14));
        CHECK(sphere_cosine_cdf(5, t) ==
              Catch::Approx(0.5 + 0.75 * (t - t * t * t / 3)).epsilon(1e-12).margin(1e-14));
        for (const Index d : {2, 7, 64, 1000}) {
            CHECK(sphere_cosine_cdf(d, t) + sphere_cosine_cdf(d, -t) == Catch::Approx(1).epsilon(1e-12));
            CHECK(sphere_cosine_cdf(d, t) <= sphere_cosine_cdf(d, std::min(1.0, t + 0.025)));
        }
    }
    // Beyond the interval the argument is clamped.
    CHECK(sphere_cosine_cdf(9, 1.5) == 1);
    CHECK(sphere_cosine_cdf(9, -1.5) == 0);
}

TEST_CASE("special: lengths of sums of one and two vectors", "[special][selection]") {
    const std::vector<double> one = {0.7}, two = {0.5, 0.25};
    CHECK(sphere_sum_cdf(one, 5, 0.699) == 0);
    CHECK(sphere_sum_cdf(one, 5, 0.7) == 1);
    for (const double r : {0.1, 0.25, 0.3, 0.5, 0.6, 0.75, 0.8}) {
        const double space = std::clamp((r * r - 0.0625) / 0.5, 0.0, 1.0);
        CHECK(sphere_sum_cdf(two, 3, r) == Catch::Approx(space).epsilon(1e-13).margin(1e-15));
        const double cosine = std::clamp((r * r - 0.3125) / 0.25, -1.0, 1.0);
        CHECK(sphere_sum_cdf(two, 2, r) ==
              Catch::Approx(1 - std::acos(cosine) / 3.14159265358979323846).epsilon(1e-13).margin(1e-15));
    }
    CHECK(sphere_sum_cdf(two, 4, 0.0) == 0);
    CHECK(sphere_sum_cdf(two, 4, 9.0) == 1);
}

TEST_CASE("special: lengths of sums of three and more vectors in space have closed forms",
          "[special][selection]") {
    double worst = 0;
    for (const std::vector<double>& a : {std::vector<double>{1, 1, 1},
                                         {0.5, 0.3, 0.2},
                                         {0.7, 0.1, 0.05},
                                         {0.4, 0.3, 0.2, 0.1},
                                         {1, 1, 1, 1, 1},
                                         {0.3, 0.25, 0.2, 0.1, 0.1, 0.05}}) {
        const double sum = std::accumulate(a.begin(), a.end(), 0.0);
        const int steps = a.size() == 3 ? 3 : 6; // the integrand of few vectors decays slowly: a second each
        for (int k = 1; k < steps; ++k) {
            const double r = sum * k / steps;
            const double found = sphere_sum_cdf(a, 3, r), truth = static_cast<double>(space_cdf(a, r));
            INFO(a.size() << " vectors, r " << r << ": " << found << ", exactly " << truth);
            CHECK(std::abs(found - truth) < 1e-8);
            worst = std::max(worst, std::abs(found - truth));
        }
    }
    CHECK(worst > 0); // two computations, not one
}

TEST_CASE("special: lengths of sums against simulation", "[special][selection]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    constexpr int trials = 4000;
    for (const Index d : {2, 4, 16, 64})
        for (const std::vector<double>& a :
             {std::vector<double>{1, 1, 1}, {0.5, 0.2, 0.2, 0.1}, std::vector<double>(12, 0.25)}) {
            if (d == 2 && a.size() < 5) continue; // below
            SplitMix64 random = generator(seed, d, a.size());
            const auto width = static_cast<std::size_t>(d);
            std::vector<double> x(a.size() * width), lengths(trials);
            for (double& length : lengths) {
                families::unit_vectors(random, d, x);
                double square = 0;
                for (std::size_t c = 0; c < width; ++c) {
                    double sum = 0;
                    for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * x[j * width + c];
                    square += sum * sum;
                }
                length = std::sqrt(square);
            }
            double squares = 0;
            for (const double p : a) squares += p * p;
            for (const double factor : {0.6, 1.2}) {
                const double r = factor * std::sqrt(squares), truth = sphere_sum_cdf(a, d, r);
                double below = 0;
                for (const double length : lengths) below += length <= r;
                below /= trials;
                INFO("d " << d << ", " << a.size() << " vectors, r " << r << ": " << below << ", exactly "
                          << truth);
                CHECK(std::abs(below - truth) <=
                      5 * std::sqrt(std::max(truth * (1 - truth), 1.0 / trials) / trials));
            }
        }
    // Three unit vectors of the plane: the probability of staying within 1 is 1/4 (Rayleigh's random flight).
    const std::vector<double> three = {1, 1, 1};
    CHECK(std::abs(sphere_sum_cdf(three, 2, 1.0) - 0.25) < 1e-4);
    // n equal steps: P(R <= 1) = 1/(n+1) in the plane.
    constexpr std::array<std::size_t, 3> steps = {4, 5, 8};
    for (const std::size_t n : steps)
        CHECK(std::abs(sphere_sum_cdf(std::vector<double>(n, 1.0), 2, 1.0) - 1 / (static_cast<double>(n) + 1)) <
              1e-6);
}

TEST_CASE("special: the expected separable fraction agrees with simulation", "[special][selection]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    std::size_t index = 0;
    for (const Setting& setting : settings(seed)) {
        SplitMix64 random = generator(seed, ++index, 77);
        const Estimate found = simulate(setting.selected, setting.others, setting.d, setting.trials, random);
        const double exact = expected_separable_fraction(setting.selected, setting.others, setting.d);
        INFO(setting.name << ": " << found.mean << " +- " << found.error << ", exactly " << exact);
        CHECK(found.error < 0.02);
        CHECK(std::abs(found.mean - exact) <= 5 * found.error + 1e-9);
        // Its sphere may have any radius: weights count up to a factor.
        std::vector<double> scaled = setting.selected, scaled_others = setting.others;
        for (double& p : scaled) p *= 8;
        for (double& p : scaled_others) p *= 8;
        CHECK(expected_separable_fraction(scaled, scaled_others, setting.d) ==
              Catch::Approx(exact).epsilon(1e-12));
    }
}

TEST_CASE("special: the expected separable fraction where it has a closed form", "[special][selection]") {
    const std::vector<double> none, one = {1}, half = {0.5};
    CHECK(expected_separable_fraction(one, none, 5) == 1);
    // One selected token lies at s itself: no other is nearer.
    CHECK(expected_separable_fraction(one, half, 5) == Catch::Approx(1).epsilon(1e-12));
    // Two selected, one other, all of weight 1: the other is farther from s = x_1 + x_2 than x_1 is, with
    // t = <x_1, x_2> and |s|^2 = 2 + 2t, if cos(angle of the other with s) < (1 + t)/|s| = |s|/2. In R^3 |s|^2
    // is uniform on [0,4]: E G_3(|s|/2) = 1/2 + E |s|/4 = 1/2 + 1/3.
    const std::vector<double> two = {1, 1};
    CHECK(expected_separable_fraction(two, one, 3, 16) == Catch::Approx(5.0 / 6).epsilon(1e-6));
    CHECK(expected_separable_fraction(two, one, 3, 48) == Catch::Approx(5.0 / 6).epsilon(1e-8));
}

TEST_CASE("special: the expected separable fraction converges with the quadrature order",
          "[special][selection]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    double coarse = 0, fine = 0;
    for (const Setting& setting : settings(seed)) {
        const auto at = [&](int order) {
            return expected_separable_fraction(setting.selected, setting.others, setting.d, order);
        };
        const double best = at(40);
        INFO(setting.name << ": error " << at(4) - best << " at order 4, " << at(8) - best << " at 8, "
                          << at(16) - best << " at 16, " << at(24) - best << " at 24");
        CHECK(std::abs(at(16) - best) < 2e-3);
        CHECK(std::abs(at(24) - best) < 1e-3);
        coarse = std::max(coarse, std::abs(at(4) - best));
        fine = std::max(fine, std::abs(at(24) - best));
    }
    CHECK(fine < coarse / 10);
}

TEST_CASE("special: separability against N is U-shaped on the spherical model", "[special][selection]") {
    // d = 64, L = 1024, logits of standard deviation 2: 0.51 at N = 16, 0.29 at 128, 0.29 at 512, 0.51 at 1023.
    // The logits are random and the figures move with them, most of all at N = 16, where a few large weights
    // decide: a figure is that of one row, the mean here that of a few, each with the scatter of the rows; 0.01
    // is left to the rounding of the figures and to the coarse quadrature.
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    struct Point {
        std::size_t n;
        double expected;
        int rows;
    };
    double means[4];
    std::size_t at = 0;
    for (const Point& point : {Point{16, .51, 16}, {128, .29, 5}, {512, .29, 4}, {1023, .51, 6}}) {
        std::vector<double> found;
        for (int row = 0; row < point.rows; ++row) {
            const Setting setting = gaussian_setting("", generator(seed, row)(), 1024, point.n, 2, 64, 0);
            found.push_back(expected_separable_fraction(setting.selected, setting.others, 64, 6));
        }
        double mean = 0, squares = 0;
        for (const double x : found) mean += x / point.rows;
        for (const double x : found) squares += (x - mean) * (x - mean);
        const double scatter = std::sqrt(squares / (point.rows - 1));
        INFO("N " << point.n << ": " << mean << ", scatter " << scatter);
        CHECK(scatter < (point.n == 16 ? 0.2 : 0.04));
        CHECK(std::abs(mean - point.expected) <= 0.01 + 3 * scatter * std::sqrt(1 + 1.0 / point.rows));
        means[at++] = mean;
    }
    CHECK(means[0] > means[1] + 0.1);
    CHECK(means[3] > means[2] + 0.1);
}

TEST_CASE("special: how many Gaussian keys truncation needs", "[special][selection][truncation]") {
    CHECK(std::abs(gaussian_truncation_share(1, 0.01) - 0.9076) < 5e-5);
    // sigma 0: equal weights, 1 - eps of them.
    for (const double eps : {0.001, 0.25, 0.9})
        CHECK(gaussian_truncation_share(0, eps) == Catch::Approx(1 - eps).epsilon(1e-13));
    CHECK(gaussian_truncation_share(2, 0.01) < gaussian_truncation_share(1, 0.01));
    CHECK(gaussian_truncation_share(1, 0.1) < gaussian_truncation_share(1, 0.01));
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    constexpr std::size_t n = 20000;
    for (const auto& [sigma, eps] : {std::pair(1.0, 0.01), std::pair(2.0, 0.05), std::pair(0.5, 0.3)}) {
        std::vector<double> shares;
        for (int row = 0; row < 12; ++row) {
            SplitMix64 random = generator(seed, row, sigma * 10, eps * 100);
            std::vector<double> p(n);
            families::softmax_weights(random, p, sigma);
            std::sort(p.begin(), p.end());
            double tail = 0;
            std::size_t left = 0; // keys that may be left out, from the smallest up
            while (tail + p[left] <= eps) tail += p[left++];
            shares.push_back(static_cast<double>(n - left) / static_cast<double>(n));
        }
        double mean = 0, squares = 0;
        for (const double s : shares) mean += s / 12;
        for (const double s : shares) squares += (s - mean) * (s - mean) / 11;
        INFO("sigma " << sigma << ", eps " << eps << ": " << mean);
        // 12 rows scatter; a share is a multiple of 1/n, and a finite row is off by O(1/n).
        CHECK(std::abs(mean - gaussian_truncation_share(sigma, eps)) <= 6 * std::sqrt(squares / 12) + 4.0 / n);
        if (sigma == 1) CHECK(std::abs(mean - 0.9077) < 0.001);
    }
}

TEST_CASE("special: broken preconditions", "[special][selection][errors]") {
    using attnscope::invalid_argument;
    const std::vector<double> p = {0.5, 0.3}, none, negative = {0.5, -0.1}, zero = {0.5, 0, 0.2};
    CHECK_THROWS_AS(sphere_cosine_cdf(1, 0.5), invalid_argument);
    CHECK_THROWS_AS(expected_separable_fraction(none, p, 4), invalid_argument);
    CHECK_THROWS_AS(expected_separable_fraction(p, p, 1), invalid_argument);
    CHECK_THROWS_AS(expected_separable_fraction(p, p, 4, 0), invalid_argument);
    CHECK_THROWS_AS(expected_separable_fraction(negative, p, 4), invalid_argument);
    CHECK_THROWS_AS(expected_separable_fraction(p, negative, 4), invalid_argument);
    CHECK_THROWS_AS(sphere_sum_cdf(none, 4, 1), invalid_argument);
    CHECK_THROWS_AS(sphere_sum_cdf(p, 1, 1), invalid_argument);
    CHECK_THROWS_AS(sphere_sum_cdf(p, 4, -1), invalid_argument);
    CHECK_THROWS_AS(sphere_sum_cdf(zero, 4, 0.4), invalid_argument);
    CHECK_THROWS_AS(gaussian_truncation_share(-1, 0.1), invalid_argument);
    CHECK_THROWS_AS(gaussian_truncation_share(1, 0), invalid_argument);
    CHECK_THROWS_AS(gaussian_truncation_share(1, 1), invalid_argument);
}
