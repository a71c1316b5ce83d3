// A million random rows over the audit, the published forms that fail, and the finite-difference bound.
#include <attnscope/audit/row.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using attnscope::Audit;
using attnscope::Form;
using attnscope::PointwiseNormalizer;
using attnscope::Softmax;
using attnscope::Verdict;

namespace {

const std::vector<double> steps = {1e-3, 0.1, 10};

double largest_magnitude(const std::vector<double>& z) {
    double largest = 0;
    for (double x : z)
        if (x != families::masked_logit) largest = std::max(largest, std::abs(x));
    return largest;
}

/// Rows 2 to 9 long from every family in turn.
template <class F>
void for_short_rows(std::uint64_t seed, std::size_t count, F&& f) {
    SplitMix64 random = generator(seed, count);
    std::vector<double> z;
    for (std::size_t i = 0; i < count; ++i) {
        z.resize(2 + static_cast<std::size_t>(random.below(8)));
        row_families[i % row_families.size()].fill(random, z);
        f(i, z);
    }
}

void check_clean(const Audit& audit, std::string_view id, std::size_t at_least) {
    CAPTURE(std::string(id));
    const auto& record = audit.at(named_statement(id, Form::sharp));
    CHECK(record.checked >= at_least);
    CHECK(record[Verdict::violated] == 0);
    CHECK(record[Verdict::undefined] == 0);
    CHECK(record.max_tightness() <= 1);
    CHECK(record.max_tightness() > 0.99);
}

} // namespace

TEST_CASE("a million rows violate no sharp statement", "[audit][million]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Audit audit;
    attnscope::RowAuditor without_steps, with_steps({steps}, seed);
    for_short_rows(seed, 900'000, [&](std::size_t i, const std::vector<double>& z) {
        attnscope::RowAuditor& auditor = i % 4 == 0 ? with_steps : without_steps;
        auditor(audit, Softmax(temperatures[i / 12 % temperatures.size()]), in(z),
                {.delta = largest_magnitude(z)});
    });
    check_clean(audit, "lemma1", 880'000);
    check_clean(audit, "corollary1", 880'000);
    check_clean(audit, "lemma2", 880'000);
    check_clean(audit, "corollary3", 880'000);
    check_clean(audit, "jacobian_inf_to_1", 880'000);
    check_clean(audit, "finite_difference", 220'000);
    CHECK(audit.sharp_violations() == 0);

    // What the paper prints about weights holds, and is weaker; what it prints about derivatives does not.
    for (std::string_view id : {"lemma1", "corollary1"}) {
        const auto& record = audit.at(named_statement(id, Form::published));
        CHECK(record.checked == audit.at(named_statement(id, Form::sharp)).checked);
        CHECK(record[Verdict::violated] == 0);
        CHECK(record.median_tightness() < audit.at(named_statement(id, Form::sharp)).median_tightness());
    }
    CHECK(audit.at(attnscope::corollary1_published_statement)[Verdict::vacuous] >
          audit.at(attnscope::corollary1_published_statement).checked / 2);
    CHECK(audit.at(attnscope::corollary3_published_statement)[Verdict::violated] > 100'000);
    CHECK(audit.at(attnscope::finite_difference_published_statement)[Verdict::violated] > 1'000);
}

TEMPLATE_TEST_CASE("random rows of the general family violate no sharp statement", "[audit][million]",
                   attnscope::Exponential, attnscope::Sigmoid, attnscope::Softplus, attnscope::Quadratic) {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const PointwiseNormalizer<TestType> normalizer;
    const auto key = key_of(normalizer);
    Audit audit;
    attnscope::RowAuditor auditor;
    for_short_rows(seed, 40'000, [&](std::size_t, const std::vector<double>& z) {
        const double a = largest_magnitude(z);
        const Ref ends[3] = {key.log(-a), key.log(0), key.log(a)};
        const double log_kappa =
            static_cast<double>(std::max({ends[0], ends[1], ends[2]}) - std::min({ends[0], ends[1], ends[2]}));
        auditor(audit, normalizer, in(z), {.log_kappa = log_kappa});
    });
    check_clean(audit, "lemma1", 39'000);
    check_clean(audit, "lemma2", 39'000);
    CHECK(audit.at(attnscope::lemma1_published_statement).checked ==
          audit.at(attnscope::lemma1_sharp_statement).checked);
    CHECK(audit.at(attnscope::lemma1_published_statement)[Verdict::violated] == 0);
    CHECK(audit.at(attnscope::corollary3_sharp_statement).checked == 0); // says nothing about other F
}

TEST_CASE("no sharp statement is violated on rows of any length", "[audit]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Audit audit;
    attnscope::RowAuditor auditor({steps}, seed);
    std::size_t normal = 0;
    for_each_row<double>(seed, lengths, 4, [&](const Where&, const std::vector<double>& z) {
        normal += visible_count(z) > 0;
        for (double temperature : temperatures)
            auditor(audit, Softmax(temperature), in(z), {.delta = largest_magnitude(z)});
        for (double temperature : extreme_temperatures)
            auditor(audit, Softmax(temperature), in(z), {.delta = largest_magnitude(z)});
        auditor(audit, PointwiseNormalizer<attnscope::Softplus>{}, in(z));
        auditor(audit, PointwiseNormalizer<attnscope::Quadratic>{}, in(z));
    });
    constexpr std::size_t count = temperatures.size() + extreme_temperatures.size();
    CHECK(audit.at(attnscope::corollary1_sharp_statement).checked == normal * count);
    CHECK(audit.at(attnscope::lemma1_sharp_statement).checked == normal * (count + 2));
    CHECK(audit.sharp_violations() == 0);
    for (const auto& record : audit.records()) CHECK(record[Verdict::undefined] == 0);
}

TEST_CASE("rows that are not normal are not counted", "[audit]") {
    Audit audit;
    attnscope::RowAuditor auditor({steps});
    const double infinity = std::numeric_limits<double>::infinity();
    for (const std::vector<double>& z :
         {std::vector<double>{}, std::vector<double>{-infinity, -infinity}, std::vector<double>{0, infinity},
          std::vector<double>{0, 1, std::numeric_limits<double>::quiet_NaN()}}) {
        auditor(audit, Softmax{}, in(z), {.delta = 1.0});
        auditor(audit, PointwiseNormalizer<attnscope::Exponential>{}, in(z), {.log_kappa = 1.0});
    }
    for (const auto& record : audit.records()) CHECK(record.checked == 0);
}

TEST_CASE("corollary 3 as published fails at p = (1/2, 1/2) and on random rows", "[audit][published]") {
    Audit audit;
    attnscope::RowAuditor auditor;
    const std::vector<double> pair = {0.0, 0.0};
    auditor(audit, Softmax{}, in(pair));
    CHECK(audit.at(attnscope::corollary3_published_statement)[Verdict::violated] == 1);
    CHECK(audit.at(attnscope::corollary3_sharp_statement)[Verdict::violated] == 0);

    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 4);
    Audit many;
    for (int i = 0; i < 2000; ++i) {
        const std::vector<double> z = normal_row<double>(random, 3);
        auditor(many, Softmax{}, in(z));
    }
    CHECK(many.at(attnscope::corollary3_published_statement)[Verdict::violated] > 1000);
    CHECK(many.at(attnscope::corollary3_sharp_statement)[Verdict::violated] == 0);
}

TEST_CASE("the published finite-difference constant fails in a noticeable share of short rows",
          "[audit][published]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    attnscope::RowAuditor auditor({.steps = {1e-3}}, seed);
    std::ostringstream table;
    double most = 0;
    for (std::size_t n : std::array<std::size_t, 6>{2, 3, 4, 5, 8, 16}) {
        SplitMix64 random = generator(seed, n);
        Audit audit;
        for (int i = 0; i < 4000; ++i) {
            const std::vector<double> z = normal_row<double>(random, n);
            auditor(audit, Softmax{}, in(z));
        }
        const auto& published = audit.at(attnscope::finite_difference_published_statement);
        const double share = double(published[Verdict::violated]) / double(published.checked);
        table << " n=" << n << ": " << share;
        most = std::max(most, share);
        CHECK(audit.at(attnscope::finite_difference_sharp_statement)[Verdict::violated] == 0);
    }
    INFO("share of violations" << table.str());
    CHECK(most > 0.1);
    CHECK(most < 0.9);
}

TEMPLATE_TEST_CASE("the finite-difference bound is attained by two keys that change places, at every eps and T",
                   "[finite_difference]", float, double) {
    using T = TestType;
    using std::numbers::sqrt2_v;
    Worst attained, mutants, value, ends;
    // x = eps/(2 sqrt(2) T): from steps like a derivative to steps from one corner of the simplex to another.
    // The smallest ones leave room for one percent above the rounding of the weights.
    const std::array<Ref, 8> sizes = {std::is_same_v<T, float> ? 3e-3L : 1e-7L, 0.03L, 0.3L, 1, 2, 5, 12, 30};
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double temperature : temperatures)
            for (const Ref size : sizes) {
                const Where where{"pair", n, temperature, 0, scalar_name<T>()};
                const Index last = static_cast<Index>(n) - 1;
                attnscope::Row<T> z =
                    attnscope::Row<T>::Constant(static_cast<Index>(n), -std::numeric_limits<T>::infinity());
                attnscope::Row<T> v = attnscope::Row<T>::Zero(static_cast<Index>(n));
                v[0] = static_cast<T>(1 / sqrt2_v<Ref>);
                v[last] = -v[0];
                const T eps = static_cast<T>(2 * sqrt2_v<Ref> * size * Ref(temperature));
                z[last] = static_cast<T>(Ref(eps) / (2 * sqrt2_v<Ref>));
                z[0] = -z[last];
                const Ref g = attnscope::finite_difference(Softmax(temperature), z, v, eps);
                const Ref x = Ref(eps) / (2 * sqrt2_v<Ref> * Ref(temperature));
                const Ref expected = sqrt2_v<Ref> / Ref(eps) * std::tanh(x);
                // Both rows have the weights 1/(1+e^{+-2x}): four of them, each exact to 8 roundings of its own
                // and to the slope p(1-p) times 6 of the exponent 2x.
                const Ref slope = 2 * x / (4 * std::cosh(x) * std::cosh(x));
                const Ref error = 2 * sqrt2_v<Ref> * unit_roundoff<T> * (8 + 6 * slope);
                value.meet(std::abs(g - expected), error / Ref(eps), where);
                const auto bound = attnscope::finite_difference_sharp(
                    static_cast<double>(g), temperature, static_cast<double>(eps), static_cast<double>(error));
                attained.meet(std::abs(bound.slack()), bound.tolerance, where);
                // Where tanh is 1 the limit is the diameter of the simplex, which needs no theorem.
                attained.meet(size > 19 ? bound.verdict() == Verdict::vacuous
                                        : bound.verdict() <= Verdict::within_rounding,
                              where);
                mutants.meet(bound.tightened(0.99).verdict() == Verdict::violated, where);
                // Between the ends it is below both limits that it has there: at x = 1 by a quarter.
                const double both = std::min(attnscope::gradient_limit(temperature), bound.trivial);
                ends.meet(bound.value <= both && (size < 0.3L || size > 2 || bound.value < 0.98 * both), where);
                if (size == 1) ends.meet(bound.value < 0.77 * both, where);
            }
    }
    ATTNSCOPE_CHECK_WORST(value);
    ATTNSCOPE_CHECK_WORST(attained);
    ATTNSCOPE_CHECK_WORST(mutants);
    ATTNSCOPE_CHECK_WORST(ends);
}

TEMPLATE_TEST_CASE(
    "the limits of finite differences are their formulas, for steps and temperatures of any size",
    "[finite_difference]", float, double, long double) {
    using T = TestType;
    using std::numbers::sqrt2_v;
    Worst worst, ends;
    const Ref u = 8 * unit_roundoff<T>;
    const T largest = std::numeric_limits<T>::max(), smallest = std::numeric_limits<T>::min();
    std::vector<T> sizes = {
        smallest, 1 / std::sqrt(largest), T(1e-12),   T(1e-3), T(0.05), T(0.1), T(0.5), 1, 2, 3, T(10), T(50),
        T(1e6),   std::sqrt(largest),     largest / 8};
    for (const T temperature : sizes)
        for (const T eps : sizes) {
            const Where where{"limit", 0, static_cast<double>(temperature), 0, scalar_name<T>()};
            const T found = attnscope::finite_difference_limit(temperature, eps);
            // The same in a scalar of more digits or, for long double, by the other of the two formulas.
            const Ref x = Ref(eps) / Ref(temperature) / (2 * sqrt2_v<Ref>);
            const Ref sharp =
                x < 1e-10L ? 1 / (2 * Ref(temperature)) : sqrt2_v<Ref> * (std::tanh(x) / Ref(eps));
            if (sharp > Ref(largest)) {
                worst.meet(found == std::numeric_limits<T>::infinity(), where);
            } else {
                worst.meet(std::abs(Ref(found) - sharp), u * sharp + Ref(std::numeric_limits<T>::denorm_min()),
                           where);
            }
            ends.meet(found <= attnscope::gradient_limit(temperature) && found <= sqrt2_v<T> / eps, where);
            const Ref published = std::min(1 / (4 * Ref(temperature)), sqrt2_v<Ref>);
            worst.meet(std::abs(Ref(attnscope::published_gradient_limit(temperature)) - published),
                       u * published + Ref(std::numeric_limits<T>::denorm_min()), where);
            worst.meet(std::abs(Ref(attnscope::gradient_limit(temperature)) - 1 / (2 * Ref(temperature))),
                       u / Ref(temperature) + Ref(std::numeric_limits<T>::denorm_min()), where);
            worst.meet(attnscope::finite_difference_published(T(0.1), temperature, eps, T(0)).value ==
                           attnscope::published_gradient_limit(temperature),
                       where);
        }
    // Far into either end, where eps/T vanishes or is infinite.
    ends.meet(attnscope::finite_difference_limit(largest, smallest) == T(0.5) / largest,
              Where{"derivative", 0});
    ends.meet(attnscope::finite_difference_limit(smallest, largest) == sqrt2_v<T> / largest,
              Where{"diameter", 0});
    ATTNSCOPE_CHECK_WORST(worst);
    ATTNSCOPE_CHECK_WORST(ends);
}

TEST_CASE("random directions are unit vectors over the visible keys, the same for the same generator",
          "[finite_difference]") {
    const std::uint64_t seed = test_seed();
    Worst unit, masked, same, rms;
    for_each_row<double>(seed, lengths, 1, [&](const Where& where, const std::vector<double>& z) {
        std::vector<double> v(z.size()), again(z.size());
        SplitMix64 one = generator(seed, 9), two = generator(seed, 9);
        attnscope::random_direction(in(z), one, out(v));
        attnscope::random_direction(in(z), two, out(again));
        Ref square = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            square += Ref(v[i]) * Ref(v[i]);
            if (z[i] == families::masked_logit) masked.meet(v[i] == 0, where);
        }
        const std::size_t visible = visible_count(z);
        unit.meet(std::abs(std::sqrt(square) - Ref(visible > 0)), unit_roundoff<double> * (Ref(z.size()) + 8),
                  where);
        same.meet(v == again, where);
        // As many draws as visible keys: both generators have moved on alike, and as far as by hand.
        SplitMix64 hand = generator(seed, 9);
        for (std::size_t i = 0; i < visible; ++i) hand.normal();
        same.meet(hand() == one(), where);
    });
    ATTNSCOPE_CHECK_WORST(unit);
    ATTNSCOPE_CHECK_WORST(masked);
    ATTNSCOPE_CHECK_WORST(same);

    // RMS of |J v| over random directions is |J|_F/sqrt(n).
    for (std::size_t n : {std::size_t(3), std::size_t(16)}) {
        SplitMix64 random = generator(seed, n, 11);
        const std::vector<double> z = normal_row<double>(random, n);
        std::vector<double> p(n), v(n), jv(n);
        Softmax{}.apply(in(z), out(p));
        Ref mean = 0, fourth = 0;
        const int trials = 20'000;
        for (int i = 0; i < trials; ++i) {
            attnscope::random_direction(in(z), random, out(v));
            Softmax{}.jvp(in(z), in(p), in(v), out(jv));
            Ref square = 0;
            for (double x : jv) square += Ref(x) * Ref(x);
            mean += square / trials;
            fourth += square * square / trials;
        }
        const Ref norm = attnscope::jacobian_norms(Softmax{}, in(z), in(p)).frobenius;
        // Six standard errors of the mean.
        const Ref deviation = 6 * std::sqrt((fourth - mean * mean) / trials);
        rms.meet(std::abs(mean - norm * norm / Ref(n)), deviation, Where{"rms", n});
    }
    ATTNSCOPE_CHECK_WORST(rms);
}
