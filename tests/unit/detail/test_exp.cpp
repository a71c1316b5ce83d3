// The packet exp of detail/simd/exp.hpp.
#include <attnscope/detail/lanes.hpp>
#include <support/rows.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace {

using attnscope::Index;
namespace detail = attnscope::detail;

/// The promise of `exp_nonpositive`, in units of the last place of the exact result.
constexpr long double promised_ulp = 1.02L;

template <class T>
std::vector<T> exp_all(std::span<const T> x) {
    std::vector<T> y(x.size());
    detail::for_each_lane<T>(static_cast<Index>(x.size()),
                             [&](const auto& lane) { lane.store(y.data(), exp_nonpositive(lane(x.data()))); });
    return y;
}

template <class T>
T exp_one(T x) {
    return exp_all<T>(std::span<const T>(&x, 1))[0];
}

/// exp in a scalar with at least 11 more bits, where there is one.
long double exact_exp(float x) { return std::exp(static_cast<double>(x)); }
long double exact_exp(double x) { return std::exp(static_cast<long double>(x)); }

/// Error in units of the last place of the exact result; those of the smallest normal number below it.
template <class T>
long double ulp_error(T value, long double exact) {
    int exponent = 0;
    std::frexp(exact, &exponent);
    exponent = std::max(exponent, std::numeric_limits<T>::min_exponent);
    return std::abs(static_cast<long double>(value) - exact) /
           std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits);
}

/// What the reference itself may be off, where long double is no wider than double.
template <class T>
constexpr long double reference_ulp =
    std::same_as<T, double> && std::numeric_limits<long double>::digits < 64 ? 1.0L : 1e-3L;

template <class T>
void check_errors(const std::vector<T>& x) {
    const std::vector<T> y = exp_all<T>(x);
    long double worst = 0;
    T worst_at = 0;
    bool above_one = false, subnormal = false;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const long double error = ulp_error(y[i], exact_exp(x[i]));
        if (!(error <= worst)) worst = error, worst_at = x[i];
        above_one = above_one || y[i] > T(1);
        subnormal = subnormal || !std::isnormal(y[i]);
    }
    CAPTURE(worst_at, worst);
    CHECK(worst <= promised_ulp + reference_ulp<T>);
    CHECK(worst > 0); // something was compared
    CHECK_FALSE(above_one);
    CHECK_FALSE(subnormal);
}

} // namespace

TEST_CASE("float exp keeps its promised error from the cutoff to 0", "[exp]") {
    // Every 251st float by its bits, so that each binade has as many: all sizes of argument are met.
    std::vector<float> x;
    const auto last = std::bit_cast<std::uint32_t>(-detail::exp_cutoff<float>());
    for (std::uint32_t bits = std::bit_cast<std::uint32_t>(0x1p-40f); bits < last; bits += 251)
        x.push_back(-std::bit_cast<float>(bits));
    REQUIRE(x.size() > 1'000'000);
    check_errors(x);
}

TEST_CASE("double exp keeps its promised error from the cutoff to 0", "[exp]") {
    std::vector<double> x;
    const auto last = std::bit_cast<std::uint64_t>(-detail::exp_cutoff<double>());
    const auto first = std::bit_cast<std::uint64_t>(0x1p-60);
    const std::uint64_t step = (last - first) / 1'000'000;
    for (std::uint64_t bits = first; bits < last; bits += step) x.push_back(-std::bit_cast<double>(bits));
    REQUIRE(x.size() >= 1'000'000);
    check_errors(x);
}

TEMPLATE_TEST_CASE("exp keeps its promised error where the reduction changes its integer", "[exp]", float,
                   double) {
    // Around odd multiples of log(2)/2 the reduced argument is largest.
    std::vector<TestType> x;
    const long double half = std::log(2.0L) / 2;
    for (int k = 0; -(2 * k + 1) * half > detail::exp_cutoff<TestType>(); ++k) {
        TestType at = static_cast<TestType>(-(2 * k + 1) * half);
        for (int i = 0; i < 8; ++i) at = std::nextafter(at, TestType(0));
        for (int i = 0; i < 16; ++i, at = std::nextafter(at, TestType(-1000))) x.push_back(at);
    }
    REQUIRE(x.size() > 16 * 120);
    check_errors(x);
}

TEST_CASE("exp at the worst arguments that an exhaustive search found", "[exp]") {
    // With fused multiply-add and without, over every float and over 10^8 random doubles.
    check_errors(std::vector<float>{-0x1.df6002p+5f, -0x1.df5af6p+5f});
    check_errors(std::vector<double>{-0x1.1ec4f79c49a69p+9, -0x1.078c964265f9ep+9});
}

TEMPLATE_TEST_CASE("exp of what a difference rounds off, too", "[exp]", float, double) {
    // x + e of every size of x; e up to half a unit of x. Two roundings where e is not part of the reduction.
    using T = TestType;
    const std::uint64_t seed = attnscope_test::test_seed();
    INFO("seed " << seed);
    attnscope_test::SplitMix64 random = attnscope_test::generator(seed, 14);
    constexpr long double promise = promised_ulp + reference_ulp<T> + (detail::has_exp_table<T> ? 0 : 0.5L);
    long double worst = 0, without = 0;
    T worst_at = 0;
    for (int i = 0; i < 1'000'000; ++i) {
        const T x = detail::exp_cutoff<T>() *
                    static_cast<T>(i % 2 == 0 ? random.uniform() : std::exp(-20 * random.uniform()));
        const T unit = std::nextafter(std::abs(x), std::numeric_limits<T>::infinity()) - std::abs(x);
        const T e = unit * static_cast<T>(random.uniform() - 0.5);
        typename detail::Packet<T>::Elements y;
        exp_of_sum(detail::Packet<T>(x), detail::Packet<T>(e)).store(y.data());
        const auto rounded_off = static_cast<long double>(e);
        const long double exact = exact_exp(x) * (1 + rounded_off * (1 + rounded_off / 2));
        if (const long double error = ulp_error(y[0], exact); !(error <= worst)) worst = error, worst_at = x;
        without = std::max(without, ulp_error(exp_one<T>(x), exact));
    }
    CAPTURE(worst, worst_at);
    CHECK(worst <= promise);
    CHECK(without > 10); // e matters
}

TEMPLATE_TEST_CASE("exp of special arguments", "[exp]", float, double, long double) {
    using T = TestType;
    using Limits = std::numeric_limits<T>;
    const T cutoff = detail::exp_cutoff<T>();
    CHECK(exp_one<T>(T(0)) == T(1));
    CHECK(exp_one<T>(-T(0)) == T(1));
    CHECK(exp_one<T>(-Limits::denorm_min()) == T(1));
    CHECK(std::isnormal(exp_one<T>(cutoff)));
    const T below = std::nextafter(cutoff, -Limits::infinity());
    for (const T x : {below, 2 * cutoff, Limits::lowest(), -Limits::infinity()}) {
        CAPTURE(x);
        CHECK(exp_one<T>(x) == T(0));
        CHECK_FALSE(std::signbit(exp_one<T>(x)));
    }
    CHECK(std::isnan(exp_one<T>(Limits::quiet_NaN())));
    CHECK(std::isnan(exp_one<T>(-Limits::quiet_NaN())));
}

TEMPLATE_TEST_CASE("the cutoff of exp is the logarithm of the smallest normal number", "[exp]", float, double,
                   long double) {
    using T = TestType;
    const long double logarithm = std::log(static_cast<long double>(std::numeric_limits<T>::min()));
    const long double cutoff = detail::exp_cutoff<T>();
    CHECK(std::abs(cutoff - logarithm) <= std::numeric_limits<T>::epsilon() * std::abs(logarithm));
}

TEMPLATE_TEST_CASE("exp gives the same bits wherever a key stands", "[exp]", float, double, long double) {
    using T = TestType;
    const std::vector<T> arguments = {T(0),       T(-0.3), T(-1),     T(-17.25),
                                      T(-80.125), T(-87),  T(-87.33), -std::numeric_limits<T>::infinity()};
    const Index size = detail::Packet<T>::size;
    for (const T x : arguments) {
        const T expected = exp_one<T>(x);
        for (Index n = 1; n <= 3 * size + 1; ++n) {
            const std::vector<T> row(static_cast<std::size_t>(n), x);
            for (const T y : exp_all<T>(row)) {
                CAPTURE(x, n);
                REQUIRE(y == expected);
            }
        }
    }
}

TEMPLATE_TEST_CASE("NaN in one lane of exp leaves the others alone", "[exp]", float, double, long double) {
    using T = TestType;
    const Index n = 2 * detail::Packet<T>::size + 1;
    for (Index at = 0; at < n; ++at) {
        std::vector<T> row(static_cast<std::size_t>(n), T(-1));
        row[static_cast<std::size_t>(at)] = std::numeric_limits<T>::quiet_NaN();
        const std::vector<T> y = exp_all<T>(row);
        for (Index i = 0; i < n; ++i) {
            const T value = y[static_cast<std::size_t>(i)];
            CAPTURE(at, i, value);
            REQUIRE((i == at ? std::isnan(value) : value == exp_one<T>(T(-1))));
        }
    }
}
