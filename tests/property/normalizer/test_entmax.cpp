// alpha-entmax against solvers of its equation in long double: by sorting for alpha = 1.5 and 2, inside a
// bracket for every other alpha.
#include <attnscope/normalizer/entmax.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <support/laws.hpp>
#include <support/norm_reference.hpp>
#include <support/solved_reference.hpp>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr std::array<double, 8> alphas = {1, 1 + 1e-12, 1.33, 1.5, 2, 3, 8, 10};
/// Here the slopes p^{2-alpha} of small weights overflow: laws of the weights only.
constexpr std::array<double, 3> steep_alphas = {16, 64, 1000};

/// Weights against the reference by its forward error.
template <class T>
void compare(const Entmax& entmax, const std::vector<T>& z, std::string_view what, Worst& worst) {
    const EntmaxReference reference(entmax.alpha());
    const RefRow wide = widen(z), exact = reference.weights(wide),
                 bound = weight_bounds<T>(reference, wide, exact);
    const std::vector<T> p = weights_of(entmax, z);
    for (std::size_t i = 0; i < z.size(); ++i)
        worst.meet(std::abs(Ref(p[i]) - exact[i]), bound[i],
                   Where{what, z.size(), entmax.alpha(), test_seed(), scalar_name<T>()});
}

std::string message_of(auto&& action) {
    try {
        action();
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

} // namespace

TEMPLATE_TEST_CASE("alpha-entmax obeys the laws of a normaliser", "[laws][entmax]", float, double) {
    for (const double alpha : alphas) {
        INFO("alpha " << alpha);
        const EntmaxReference reference(alpha);
        test_laws<TestType>(Entmax(alpha), reference, alpha);
        test_special_rows<TestType>(Entmax(alpha), reference);
    }
    test_laws<TestType>(Sparsemax(), EntmaxReference(2), 2);
}

TEMPLATE_TEST_CASE("alpha-entmax of large alpha obeys the laws of the weights", "[laws][entmax]", float,
                   double) {
    for (const double alpha : steep_alphas) {
        INFO("alpha " << alpha);
        const EntmaxReference reference(alpha);
        SplitMix64 random = generator(test_seed(), 17);
        LawReport report;
        for_each_row<TestType>(test_seed(), lengths, 1,
                               [&](const Where& where, const std::vector<TestType>& z) {
                                   weight_laws(Entmax(alpha), reference, z, where, random, report);
                               });
        for (const Worst* law : {&report.weights, &report.sum, &report.masked, &report.in_place,
                                 &report.permutation, &report.placement, &report.shift, &report.order})
            ATTNSCOPE_CHECK_WORST(*law);
    }
}

TEST_CASE("the two solvers of the reference agree", "[entmax]") {
    const std::uint64_t seed = test_seed();
    for (const double alpha : {1.5, 2.0}) {
        Worst worst;
        const EntmaxReference sorting(alpha, EntmaxSolver::by_sorting),
            bracket(alpha, EntmaxSolver::in_bracket);
        for_each_row<double>(seed, short_lengths, 2, [&](const Where& where, const std::vector<double>& z) {
            const RefRow a = sorting.weights(widen(z)), b = bracket.weights(widen(z));
            const RefRow bound = sorting.weight_bound<Ref>(widen(z));
            for (std::size_t i = 0; i < z.size(); ++i) worst.meet(std::abs(a[i] - b[i]), 2 * bound[i], where);
        });
        ATTNSCOPE_CHECK_WORST(worst);
    }
}

TEST_CASE(
    "weights of alpha-entmax in double are those of the solvers to 1e-12 wherever they are that well known",
    "[entmax]") {
    const std::uint64_t seed = test_seed();
    for (const double alpha : alphas) {
        INFO("alpha " << alpha);
        const EntmaxReference reference(alpha);
        Worst worst;
        std::size_t known = 0, all = 0;
        for_each_row<double>(seed, lengths, 1, [&](const Where& where, const std::vector<double>& z) {
            const RefRow exact = reference.weights(widen(z)), bound = reference.weight_bound<double>(widen(z));
            const std::vector<double> p = weights_of(Entmax(alpha), z);
            for (std::size_t i = 0; i < z.size(); ++i) {
                ++all;
                if (bound[i] > 1e-12L) continue;
                ++known;
                worst.meet(std::abs(p[i] - exact[i]), 1e-12L, where);
            }
        });
        ATTNSCOPE_CHECK_WORST(worst);
        CHECK(known == all);
    }
}

TEST_CASE("alpha-entmax is continuous at alpha = 1", "[entmax]") {
    const std::uint64_t seed = test_seed();
    const double step = 1e-12, alpha = 1 + step;
    const EntmaxReference softmax(1);
    Worst one, near, derivative;
    for_each_row<double>(seed, lengths, 1, [&](const Where& where, const std::vector<double>& z) {
        if (visible_count(z) == 0) return;
        const RefRow wide = widen(z), slope = softmax.parameter_derivative(wide),
                     bound = weight_bounds<double>(softmax, wide, softmax.weights(wide));
        const std::vector<double> p = weights_of(Softmax(), z), at_one = weights_of(Entmax(1), z),
                                  beside = weights_of(Entmax(alpha), z);
        for (std::size_t i = 0; i < z.size(); ++i) {
            one.meet(std::abs(Ref(p[i]) - at_one[i]), 2 * bound[i], where);
            near.meet(std::abs(Ref(p[i]) - beside[i]), 2 * bound[i] + 2 * Ref(step) * std::abs(slope[i]),
                      where);
        }
        std::vector<double> moved(z.size()), moved_beside(z.size());
        Entmax(1).parameter_derivative<double>(z, at_one, moved);
        Entmax(1 + 1e-9).parameter_derivative<double>(z, weights_of(Entmax(1 + 1e-9), z), moved_beside);
        const RefRow error = softmax.parameter_error<double>(wide),
                     far = EntmaxReference(1 + 1e-9).parameter_derivative(wide),
                     far_error = EntmaxReference(1 + 1e-9).parameter_error<double>(wide);
        for (std::size_t i = 0; i < z.size(); ++i) {
            derivative.meet(std::abs(moved[i] - slope[i]), error[i], where);
            derivative.meet(std::abs(moved_beside[i] - far[i]), far_error[i], where);
        }
    });
    ATTNSCOPE_CHECK_WORST(one);
    ATTNSCOPE_CHECK_WORST(near);
    ATTNSCOPE_CHECK_WORST(derivative);
}

TEMPLATE_TEST_CASE("rows that broke alpha-entmax elsewhere", "[entmax]", float, double) {
    using T = TestType;
    const T infinity = std::numeric_limits<T>::infinity();
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 31);
    Worst worst;
    for (const double alpha : {1.0, 1 + 1e-12, 1.33, 1.5, 2.0, 3.0, 10.0, 100.0}) {
        const Entmax entmax(alpha);
        for (const T small : {T(0), T(0.001), T(0.25), T(0.5), T(1), T(30)}) {
            compare<T>(entmax, {-1000, -1000 + small}, "far below 0", worst);
            compare<T>(entmax, {-1000 + small, -infinity, -1000, -1000, -infinity}, "far below 0", worst);
            compare<T>(entmax, {-20000, -20000 - small, -infinity, -30000}, "max below -10000", worst);
            compare<T>(entmax, {65504, 65504, small}, "65504 twice", worst);
        }
        compare<T>(entmax, {65504, 65504}, "65504 twice", worst);
        compare<T>(entmax, {-65504, 65504}, "65504 and -65504", worst);
        const T huge = std::numeric_limits<T>::max();
        compare<T>(entmax, {huge, -huge, huge}, "ends of the range", worst);
        for (const std::size_t n : {2U, 17U, 1000U}) {
            std::vector<T> z = normal_row<T>(random, n);
            for (T& x : z) x *= T(1000);
            compare<T>(entmax, z, "1000 times normal", worst);
        }
        RowStatus status{};
        const std::vector<T> hidden(9, -infinity);
        CHECK(weights_of(entmax, hidden, &status) == std::vector<T>(9, T(0)));
        CHECK(status == RowStatus::empty);
        CHECK(entmax.threshold(in(hidden)).support == 0);
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("ties of up to 100000 keys share evenly", "[entmax]", float, double) {
    using T = TestType;
    Worst uniform, among;
    for (const double alpha : alphas) {
        const Entmax entmax(alpha);
        for (const std::size_t n : {1U, 2U, 3U, 10U, 1000U, 4099U, 100000U}) {
            const Where where{"ties", n, alpha, 0, scalar_name<T>()};
            const Ref share = 1 / static_cast<Ref>(n);
            // For alpha <= 2 theta = (1 - n^{1-alpha})/(alpha-1) is rounded: relative to p that is u theta n^a.
            const Ref u = unit_roundoff<T>, a = Ref(alpha) - 1;
            const Ref theta = a == 0 ? -std::log(share) : -std::expm1(a * std::log(share)) / a;
            const Ref tolerance = share * (u * (8 + 4 * std::log(Ref(n))) + plain_sum_error<T>(n) +
                                           (alpha > 2 ? Ref(0) : 8 * u * theta * std::pow(share, -a)));
            for (const T p : weights_of(entmax, std::vector<T>(n, T(-3.25))))
                uniform.meet(std::abs(p - share), tolerance, where);
            // Ties at the top, out of reach of all others for alpha > 1.33.
            std::vector<T> z(2 * n, T(-40));
            for (std::size_t i = 0; i < z.size(); i += 2) z[i] = T(0.5);
            const std::vector<T> p = weights_of(entmax, z);
            for (std::size_t i = 0; i < z.size() && alpha > 1.3; ++i)
                i % 2 == 0 ? among.meet(std::abs(p[i] - share), tolerance, where)
                           : among.meet(p[i] == 0, where);
        }
    }
    ATTNSCOPE_CHECK_WORST(uniform);
    ATTNSCOPE_CHECK_WORST(among);
}

TEMPLATE_TEST_CASE("a row of 2^20 keys against sorting", "[entmax]", float, double) {
    SplitMix64 random = generator(test_seed(), 41);
    const std::vector<TestType> z = normal_row<TestType>(random, std::size_t(1) << 20);
    for (const double alpha : {1.5, 2.0}) {
        Worst worst;
        compare<TestType>(Entmax(alpha), z, "normal", worst);
        ATTNSCOPE_CHECK_WORST(worst);
    }
}

TEMPLATE_TEST_CASE("the stated residual is the sum of the weights at the stated threshold, less 1", "[entmax]",
                   float, double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    Worst theta, stated, small, support, range, found;
    for (const double alpha : alphas) {
        const EntmaxReference reference(alpha);
        for_each_row<T>(seed, lengths, 1, [&](Where where, const std::vector<T>& z) {
            where.temperature = alpha;
            if (visible_count(z) == 0) return;
            const EntmaxThreshold<A> threshold = Entmax(alpha).threshold(in(z));
            const EntmaxRow& row = reference.row(widen(z));
            const Ref u = unit_roundoff<T> + unit_roundoff<Ref>, a = Ref(alpha) - 1, n = Ref(row.count);
            const Ref sum_error = EntmaxReference::sum_rounding<T>(z.size());
            found.meet(threshold.converged, where);
            const Ref end = a == 0 ? std::log(n) : -std::expm1(-a * std::log(n)) / a;
            range.meet(-Ref(threshold.theta), Ref(0), where);
            range.meet(Ref(threshold.theta) - end, 4 * u * (end + std::numeric_limits<T>::min()), where);

            // theta is a mean of the logits over s: it errs by no more than the largest of their roundings on
            // the support, its own, and the sum's error over sum s.
            Ref slopes = 0, logits = row.theta, lost = sum_error;
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref p = row.weights[i];
                if (!(p > 0)) continue;
                slopes += row.slope(p);
                lost += p * (8 + 4 * std::abs(std::log(p))) * u;
                if (alpha > 1.3 || p > 1e-6L) logits = std::max(logits, row.gap[i] + row.theta);
            }
            const Ref theta_error = 4 * u * logits + lost / slopes;
            theta.meet(std::abs(threshold.theta - row.theta), theta_error, where);

            // The sum at the stated theta itself, and its change where y is rounded and theta is one of A.
            const auto weight = [&](std::size_t i, Ref error) {
                const Ref y = -row.gap[i] - Ref(threshold.theta) + error;
                if (a == 0) return std::exp(y);
                return 1 + a * y > 0 ? std::exp(std::log1p(a * y) / a) : Ref(0);
            };
            Ref sum = -1, doubt = sum_error;
            Index sure = 0, possible = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (!row.visible[i]) continue;
                const Ref y_error = 4 * u * (row.gap[i] + row.theta);
                const Ref p = weight(i, 0), up = weight(i, y_error), down = weight(i, -y_error);
                sum += p;
                doubt +=
                    std::max(up - p, p - down) + (p > 0 ? p * (8 + 4 * std::abs(std::log(p))) * u : Ref(0));
                sure += weight(i, -2 * theta_error) > 0;
                possible += weight(i, 2 * theta_error) > 0;
            }
            stated.meet(std::abs(threshold.residual - sum), doubt, where);
            // No theta does better than its neighbours in A.
            small.meet(std::abs(Ref(threshold.residual)), 2 * doubt, where);
            if (expects_zeros(reference))
                support.meet(threshold.support >= sure && threshold.support <= possible, where);
        });
    }
    ATTNSCOPE_CHECK_WORST(found);
    ATTNSCOPE_CHECK_WORST(theta);
    ATTNSCOPE_CHECK_WORST(stated);
    ATTNSCOPE_CHECK_WORST(small);
    ATTNSCOPE_CHECK_WORST(support);
    ATTNSCOPE_CHECK_WORST(range);
}

TEMPLATE_TEST_CASE("what is missing from 1 belongs to the key at the edge of the support", "[entmax]", float,
                   double) {
    using T = TestType;
    const T u = std::numeric_limits<T>::epsilon();
    // Right values: mpmath at 60 digits, from the logits as stored in double; the logits of the others in units
    // of 2^-12, exact in float too.
    const auto check = [&](double alpha, const std::vector<double>& z, const std::vector<double>& right) {
        CAPTURE(alpha);
        const std::vector<T> p = weights_of(Entmax(alpha), narrow<T>(z));
        for (std::size_t i = 0; i < z.size(); ++i) CHECK(std::abs(p[i] - T(right[i])) <= 8 * u);
    };
    if (std::is_same_v<T, double>) check(64, {2.0001, 2}, {0.92271779790446632338, 0.077282202095533676616});
    check(8, {1.000732421875, 1, 0.990234375, 0}, {0.52318782772994999103, 0.47681217227005000897, 0.0, 0.0});
    check(16, {0, 0.001220703125, 0.000244140625, 0.000244140625, 0.00048828125},
          {0.0, 0.74027004393988166318, 0.0, 0.0, 0.25972995606011833682});
    check(64, {0.001708984375, 0.00146484375, 0.00146484375, 0, -2},
          {0.93588376667696069126, 0.032058116661519654369, 0.032058116661519654369, 0.0, 0.0});
    check(10, {0.5, 0.4267578125, 0.38916015625}, {0.95474922147201364211, 0.045250778527986357888, 0.0});
    check(3, {0.25, 0.0791015625, -0.140625, -0.23828125}, {0.6708984375, 0.3291015625, 0.0, 0.0});
    // One key over a plateau of a million, each of which has a millionth of the rest.
    std::vector<T> z(1'000'001, T(0.25));
    z[77] = T(0.25) + T(0.99999);
    const std::vector<T> p = weights_of(Sparsemax(), z);
    const Ref height = Ref(z[77]) - Ref(0.25), rest = (1 - height) / Ref(z.size());
    CHECK(std::abs(Ref(p[0]) / rest - 1) < 8 * unit_roundoff<T>);
    CHECK(std::abs(Ref(p[77]) - (height + rest)) < 4 * unit_roundoff<T>);
}

TEST_CASE("alpha-entmax ends on rows of keys that are all near the edge", "[entmax]") {
    SplitMix64 random = generator(test_seed(), 43);
    for (const std::size_t n : {1000u, 100'000u}) // in the buffer, and in passes over the row
        for (const double alpha : {2.0, 2.5, 16.0, 1000.0})
            for (const double size : {1e-300, 1e-30, 1e-6}) {
                std::vector<double> z = normal_row<double>(random, n);
                for (double& x : z) x *= size;
                const auto threshold = Entmax(alpha).threshold(in(z));
                CAPTURE(n, alpha, size, threshold.steps, threshold.support);
                CHECK(threshold.converged);
                CHECK(threshold.steps < 150);
                const std::vector<double> p = weights_of(Entmax(alpha), z);
                Ref sum = 0;
                for (const double x : p) sum += x;
                CHECK(std::abs(sum - 1) < 64 * unit_roundoff<double>);
                CHECK(std::count_if(p.begin(), p.end(), [](double x) { return x > 0; }) == threshold.support);
            }
}

TEST_CASE("two logits: the closed forms", "[entmax]") {
    const double u = std::numeric_limits<double>::epsilon();
    for (const double d :
         {-3.0, -2.0, -1.999, -1.0, -0.3, 0.0, 1e-9, 0.25, 0.5, 0.75, 0.999, 1.0, 1.5, 1.999, 2.0, 2.5, 40.0}) {
        CAPTURE(d);
        const std::vector<double> z = {d, 0};
        const Ref x = d;
        const auto p1 = [&](const Entmax& entmax) {
            const std::vector<double> p = weights_of(entmax, z);
            CHECK(std::abs(p[0] + p[1] - 1) <= 4 * u);
            return p[0];
        };
        CHECK(std::abs(p1(Sparsemax()) - std::clamp((1 + x) / 2, Ref(0), Ref(1))) <= 4 * u);
        CHECK(std::abs(p1(Entmax(1)) - 1 / (1 + std::exp(-x))) <= 4 * u);
        // sqrt p1 - sqrt p2 = d/2 and p1 + p2 = 1.
        const Ref half = std::clamp(x / 4, Ref(-0.5), Ref(0.5)), other = std::sqrt(0.5L - half * half);
        CHECK(std::abs(p1(Entmax()) - (half + other) * (half + other)) <= 8 * u);
        // p1^2 - p2^2 = 2 d at alpha = 3, so p1 - p2 = 2 d.
        CHECK(std::abs(p1(Entmax(3)) - std::clamp((1 + 2 * x) / 2, Ref(0), Ref(1))) <= 32 * u);
    }
    CHECK(weights_of(Entmax(2), std::vector<double>{3, 1}) == std::vector<double>{1, 0});
    CHECK(weights_of(Entmax(1.5), std::vector<double>{0, 2}) == std::vector<double>{0, 1});
}

TEMPLATE_TEST_CASE("alpha-entmax's derivative in alpha", "[entmax]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst formula, differences;
    for (const double alpha : {1.0, 1 + 1e-9, 1.01, 1.33, 1.5, 2.0, 3.0, 10.0}) {
        const EntmaxReference reference(alpha);
        for_each_row<T>(seed, short_lengths, 1, [&](Where where, const std::vector<T>& z) {
            where.temperature = alpha;
            const RefRow wide = widen(z);
            if (visible_count(z) == 0) return;
            std::vector<T> moved(z.size(), T(-7));
            const std::vector<T> p = weights_of(Entmax(alpha), z);
            Entmax(alpha).parameter_derivative<T>(z, p, moved);
            const RefRow exact = reference.parameter_derivative(wide),
                         error = reference.parameter_error<T>(wide);
            for (std::size_t i = 0; i < z.size(); ++i)
                formula.meet(std::abs(moved[i] - exact[i]), error[i], where);
            std::vector<T> same = p;
            Entmax(alpha).parameter_derivative<T>(z, same, same);
            formula.meet(same_bits(same, moved), where);

            // Second order differences to one side, which holds at alpha = 1 too.
            // The step keeps log p_i within 2^-11 over all of it, and alpha + h exact.
            Ref fastest = 1;
            for (const Ref weight : reference.weights(wide))
                if (weight > 0)
                    fastest = std::max(fastest, -reference.row(wide).parameter_slope(weight) / weight);
            const double h = std::ldexp(1.0, std::max(-45, -12 - std::ilogb(fastest)));
            const auto at = [&](double steps) { return EntmaxReference(alpha + steps * h).weights(wide); };
            const RefRow w0 = reference.weights(wide), w1 = at(1), w2 = at(2), w4 = at(4);
            bool same_support = true;
            for (std::size_t i = 0; i < z.size(); ++i)
                same_support = same_support && (w0[i] > 0) == (w4[i] > 0);
            if (!same_support) return;
            const RefRow bound = reference.weight_bound<Ref>(wide);
            for (std::size_t i = 0; i < z.size(); ++i) {
                const Ref once = (4 * w1[i] - 3 * w0[i] - w2[i]) / (2 * h),
                          twice = (4 * w2[i] - 3 * w0[i] - w4[i]) / (4 * h);
                differences.meet(std::abs(moved[i] - once),
                                 error[i] + std::abs(once - twice) + 8 * bound[i] / h, where);
            }
        });
    }
    ATTNSCOPE_CHECK_WORST(formula);
    ATTNSCOPE_CHECK_WORST(differences);
}

TEMPLATE_TEST_CASE("norms of alpha-entmax's Jacobian are those of the dense matrix", "[entmax][norms]", float,
                   double) {
    for (const double alpha : alphas) {
        INFO("alpha " << alpha);
        test_norms<TestType>(Entmax(alpha), EntmaxReference(alpha));
    }
    test_norms<TestType>(Sparsemax(), EntmaxReference(2));
}

TEST_CASE("alpha must be at least 1 and finite", "[entmax]") {
    CHECK(Entmax().alpha() == 1.5);
    CHECK(Sparsemax().alpha() == 2);
    CHECK(std::string(Entmax(3).name()) == "entmax");
    CHECK(std::string(Sparsemax().name()) == "sparsemax");
    CHECK(std::string(Entmax::parameter_name()) == "alpha");
    using Catch::Matchers::ContainsSubstring;
    for (const double bad : {0.5, 0.0, -1.0, std::nextafter(1.0, 0.0), std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        const std::string message = message_of([&] { Entmax{bad}; });
        CAPTURE(message);
        CHECK_THAT(message, ContainsSubstring("Entmax: "));
        CHECK_THAT(message, ContainsSubstring("alpha must be"));
        CHECK_THAT(message, ContainsSubstring("got " + to_text(bad)));
    }
}
