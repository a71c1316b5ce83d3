// Verdict, slack and tightness of a bound, in every corner.
#include <attnscope/bound.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

using attnscope::Bound;
using attnscope::Interval;
using attnscope::lower_bound;
using attnscope::Side;
using attnscope::upper_bound;
using attnscope::Verdict;

namespace {

constexpr attnscope::Statement test_statement{
    .id = "test",
    .form = attnscope::Form::sharp,
    .provenance = attnscope::Provenance::derived,
    .text = "measured <= limit",
    .conditions = "none",
    .source = "none",
};

template <class T>
constexpr T inf = std::numeric_limits<T>::infinity();
template <class T>
constexpr T nan_of = std::numeric_limits<T>::quiet_NaN();

template <class T>
Bound<T> upper(T limit, T measured, T tolerance = 0, T trivial = inf<T>) {
    return upper_bound<T>(test_statement,
                          {.limit = limit, .measured = measured, .tolerance = tolerance, .trivial = trivial});
}
template <class T>
Bound<T> lower(T limit, T measured, T tolerance = 0, T trivial = -inf<T>) {
    return lower_bound<T>(test_statement,
                          {.limit = limit, .measured = measured, .tolerance = tolerance, .trivial = trivial});
}

} // namespace

TEMPLATE_TEST_CASE("slack is positive when a bound is satisfied, on both sides", "[bound]", float, double,
                   long double) {
    using T = TestType;
    CHECK(upper<T>(3, 1).slack() == T(2));
    CHECK(upper<T>(1, 3).slack() == T(-2));
    CHECK(lower<T>(1, 3).slack() == T(2));
    CHECK(lower<T>(3, 1).slack() == T(-2));
    CHECK(upper<T>(2, 2).slack() == T(0));
    CHECK(upper<T>(inf<T>, 2).slack() == inf<T>);
    CHECK(std::isnan(upper<T>(nan_of<T>, 2).slack()));
}

TEMPLATE_TEST_CASE("what is not given holds for every number, and is not vacuous", "[bound]", float, double,
                   long double) {
    using T = TestType;
    const Bound<T> above = upper_bound<T>(test_statement, {.limit = 2, .measured = 1});
    CHECK(above.id() == "test");
    CHECK(above.side == Side::upper);
    CHECK(above.value == T(2));
    CHECK(above.measured == T(1));
    CHECK(above.tolerance == T(0));
    CHECK(above.trivial == inf<T>);
    CHECK(above.assumption_met);
    CHECK(above.verdict() == Verdict::holds);
    const Bound<T> below = lower_bound<T>(test_statement, {.limit = -2, .measured = -1});
    CHECK(below.side == Side::lower);
    CHECK(below.tolerance == T(0));
    CHECK(below.trivial == -inf<T>);
    CHECK(below.assumption_met);
    CHECK(below.verdict() == Verdict::holds);
    // Every argument arrives.
    const Bound<T> all = lower_bound<T>(
        test_statement,
        {.limit = 1, .measured = 2, .tolerance = T(0.5), .trivial = T(0.25), .assumption_met = false});
    CHECK(all.value == T(1));
    CHECK(all.measured == T(2));
    CHECK(all.tolerance == T(0.5));
    CHECK(all.trivial == T(0.25));
    CHECK_FALSE(all.assumption_met);
    // A side that was forgotten is no number, and no statement.
    CHECK(upper_bound<T>(test_statement, {.limit = 2}).verdict() == Verdict::undefined);
    CHECK(upper_bound<T>(test_statement, {.measured = 2}).verdict() == Verdict::undefined);
    CHECK(lower_bound<T>(test_statement, {.limit = 2}).verdict() == Verdict::undefined);
    CHECK(lower_bound<T>(test_statement, {.measured = 2}).verdict() == Verdict::undefined);
    CHECK(Bound<T>{}.verdict() == Verdict::undefined);
    // Members alone have the same defaults.
    CHECK(Bound<T>{&test_statement, Side::upper, 2, 1}.trivial == inf<T>);
    CHECK(Bound<T>{&test_statement, Side::lower, 1, 2}.trivial == -inf<T>);
    CHECK(Bound<T>{&test_statement, Side::upper, 2, 1}.verdict() == Verdict::holds);
}

TEST_CASE("numbers of a bound are double unless another type is named", "[bound]") {
    static_assert(std::is_same_v<decltype(upper_bound(test_statement, {.limit = 1})), Bound<double>>);
    static_assert(std::is_same_v<decltype(lower_bound(test_statement, {.limit = 1})), Bound<double>>);
    constexpr Bound<double> bound = upper_bound(test_statement, {.limit = 1, .measured = 0.5});
    static_assert(bound.value == 1 && bound.side == Side::upper);
    CHECK(bound.slack() == 0.5);
}

TEMPLATE_TEST_CASE("verdicts of finite numbers", "[bound]", float, double, long double) {
    using T = TestType;
    CHECK(upper<T>(2, 1).verdict() == Verdict::holds);
    CHECK(upper<T>(2, 2).verdict() == Verdict::holds);
    CHECK(upper<T>(2, T(2.25), T(0.25)).verdict() == Verdict::within_rounding);
    CHECK(upper<T>(2, T(2.5), T(0.25)).verdict() == Verdict::violated);
    CHECK(upper<T>(2, T(2.5)).verdict() == Verdict::violated);
    CHECK(lower<T>(1, 2).verdict() == Verdict::holds);
    CHECK(lower<T>(2, 2).verdict() == Verdict::holds);
    CHECK(lower<T>(2, T(1.75), T(0.25)).verdict() == Verdict::within_rounding);
    CHECK(lower<T>(2, T(1.5), T(0.25)).verdict() == Verdict::violated);
    // Zero and negative limits are limits like others.
    CHECK(upper<T>(0, 0).verdict() == Verdict::holds);
    CHECK(upper<T>(-1, -2).verdict() == Verdict::holds);
    CHECK(lower<T>(-1, -2).verdict() == Verdict::violated);
}

TEMPLATE_TEST_CASE("a limit no better than the trivial one says nothing", "[bound]", float, double,
                   long double) {
    using T = TestType;
    CHECK(upper<T>(1, T(0.5), 0, 1).verdict() == Verdict::vacuous);
    CHECK(upper<T>(2, T(0.5), 0, 1).verdict() == Verdict::vacuous);
    CHECK(upper<T>(T(0.75), T(0.5), 0, 1).verdict() == Verdict::holds);
    CHECK(lower<T>(0, T(0.5), 0, 0).verdict() == Verdict::vacuous);
    CHECK(lower<T>(-1, T(0.5), 0, 0).verdict() == Verdict::vacuous);
    CHECK(lower<T>(T(0.25), T(0.5), 0, 0).verdict() == Verdict::holds);
    CHECK(upper<T>(inf<T>, 5).verdict() == Verdict::vacuous);
    CHECK(lower<T>(-inf<T>, 5).verdict() == Verdict::vacuous);
    CHECK(upper<T>(inf<T>, inf<T>).verdict() == Verdict::vacuous);
    // Violated is worse than vacuous: a limit beyond the trivial one can still be exceeded.
    CHECK(upper<T>(1, 2, 0, 1).verdict() == Verdict::violated);
    CHECK(lower<T>(0, -1, 0, 0).verdict() == Verdict::violated);
    CHECK(lower<T>(inf<T>, 5).verdict() == Verdict::violated);
    CHECK(upper<T>(-inf<T>, 5).verdict() == Verdict::violated);
    CHECK(upper<T>(1, T(1.25), T(0.5), 1).verdict() == Verdict::vacuous);
}

TEMPLATE_TEST_CASE("NaN and unmet assumptions leave a bound undefined", "[bound]", float, double, long double) {
    using T = TestType;
    CHECK(upper<T>(nan_of<T>, 1).verdict() == Verdict::undefined);
    CHECK(upper<T>(1, nan_of<T>).verdict() == Verdict::undefined);
    CHECK(upper<T>(1, T(0.5), nan_of<T>).verdict() == Verdict::undefined);
    CHECK(lower<T>(nan_of<T>, 1).verdict() == Verdict::undefined);
    CHECK(lower<T>(1, nan_of<T>).verdict() == Verdict::undefined);
    Bound<T> bound = upper<T>(1, 2);
    CHECK(bound.verdict() == Verdict::violated);
    bound.assumption_met = false;
    CHECK(bound.verdict() == Verdict::undefined);
}

TEMPLATE_TEST_CASE("tightness lies in [0,1]", "[bound]", float, double, long double) {
    using T = TestType;
    CHECK(upper<T>(4, 1).tightness() == T(0.25));
    CHECK(upper<T>(4, 4).tightness() == T(1));
    CHECK(upper<T>(4, 8).tightness() == T(1));
    CHECK(upper<T>(4, 0).tightness() == T(0));
    CHECK(upper<T>(4, -1).tightness() == T(0));
    CHECK(upper<T>(0, 0).tightness() == T(1));
    CHECK(upper<T>(0, 1).tightness() == T(1));
    CHECK(upper<T>(0, -1).tightness() == T(0));
    CHECK(lower<T>(1, 4).tightness() == T(0.25));
    CHECK(lower<T>(4, 4).tightness() == T(1));
    CHECK(lower<T>(8, 4).tightness() == T(1));
    CHECK(lower<T>(0, 4).tightness() == T(0));
    CHECK(lower<T>(-1, 4).tightness() == T(0));
    CHECK(lower<T>(0, 0).tightness() == T(1));
    CHECK(upper<T>(inf<T>, 5).tightness() == T(0));
    CHECK(upper<T>(inf<T>, inf<T>).tightness() == T(0));
    CHECK(lower<T>(-inf<T>, 5).tightness() == T(0));
    CHECK(lower<T>(-inf<T>, -5).tightness() == T(0));
    CHECK(lower<T>(-inf<T>, -inf<T>).tightness() == T(0));
    CHECK(std::isnan(upper<T>(nan_of<T>, 1).tightness()));
    CHECK(std::isnan(upper<T>(1, nan_of<T>).tightness()));
    CHECK(std::isnan(lower<T>(nan_of<T>, 1).tightness()));
    const T small = std::numeric_limits<T>::min();
    CHECK(upper<T>(small, small / 2).tightness() == T(0.5));
    CHECK(upper<T>(std::numeric_limits<T>::max(), std::numeric_limits<T>::max()).tightness() == T(1));
}

TEMPLATE_TEST_CASE("a tightened bound is violated where the bound was attained", "[bound]", float, double,
                   long double) {
    using T = TestType;
    const Bound<T> above = upper<T>(2, 2).tightened(T(0.99));
    CHECK(above.value == T(2) * T(0.99));
    CHECK(above.verdict() == Verdict::violated);
    CHECK(above.measured == T(2));
    CHECK(above.side == Side::upper);
    CHECK(above.id() == "test");
    const Bound<T> below = lower<T>(2, 2).tightened(T(0.99));
    CHECK(below.value == T(2) / T(0.99));
    CHECK(below.verdict() == Verdict::violated);
    CHECK(upper<T>(2, 1).tightened(T(0.99)).verdict() == Verdict::holds);
    CHECK(lower<T>(2, 3).tightened(T(0.99)).verdict() == Verdict::holds);
    CHECK(upper<T>(2, 2).tightened(T(1)).verdict() == Verdict::holds);
}

TEST_CASE("verdicts are ordered from the best to the worst news, and have names", "[bound]") {
    CHECK(Verdict::holds < Verdict::within_rounding);
    CHECK(Verdict::within_rounding < Verdict::vacuous);
    CHECK(Verdict::vacuous < Verdict::undefined);
    CHECK(Verdict::undefined < Verdict::violated);
    CHECK(name_of(Verdict::holds) == "holds");
    CHECK(name_of(Verdict::within_rounding) == "within_rounding");
    CHECK(name_of(Verdict::vacuous) == "vacuous");
    CHECK(name_of(Verdict::undefined) == "undefined");
    CHECK(name_of(Verdict::violated) == "violated");
}

TEST_CASE("an interval contains its ends", "[bound]") {
    const Interval<double> interval{1, 2};
    CHECK(interval.contains(1));
    CHECK(interval.contains(2));
    CHECK_FALSE(interval.contains(0.5));
    CHECK_FALSE(interval.contains(2.5));
    CHECK_FALSE(interval.contains(nan_of<double>));
}
