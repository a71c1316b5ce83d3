// Lemma 1 and Corollary 1: they hold, they are attained, and the same limits scaled by 0.99 are caught.
#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::Bound;
using attnscope::PointwiseNormalizer;
using attnscope::Side;
using attnscope::Softmax;
using attnscope::Verdict;

namespace {

template <class A>
void check_attained(const Bound<A>& bound, const Where& where, Worst& attained, Worst& mutants) {
    attained.meet(std::abs(Ref(bound.value) - Ref(bound.measured)), Ref(bound.tolerance), where);
    attained.meet(bound.verdict() == Verdict::holds || bound.verdict() == Verdict::within_rounding, where);
    mutants.meet(bound.tightened(A(0.99)).verdict() == Verdict::violated, where);
}

template <class A>
bool satisfied(const Bound<A>& bound) {
    return bound.verdict() != Verdict::violated && bound.verdict() != Verdict::undefined;
}

/// Weight extremes of a row of the general family, from the library's weights.
template <class N>
attnscope::WeightExtremes<double> extremes_of(const N& normalizer, const std::vector<double>& z) {
    std::vector<double> p(z.size());
    normalizer.apply(in(z), out(p));
    const RefRow error = reference_of(normalizer).template weight_error<double>(widen(z));
    attnscope::WeightExtremes<double> result;
    result.largest = 0;
    result.smallest = 1;
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (z[i] == families::masked_logit) continue;
        ++result.visible;
        result.largest = std::max(result.largest, p[i]);
        result.smallest = std::min(result.smallest, p[i]);
        result.relative_error = std::max(result.relative_error, static_cast<double>(error[i]));
    }
    return result;
}

template <class N>
double row_log_kappa(const N& normalizer, const std::vector<double>& z) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (double x : z) {
        if (x == families::masked_logit) continue;
        low = std::min(low, normalizer.log_value(x));
        high = std::max(high, normalizer.log_value(x));
    }
    return high - low;
}

} // namespace

TEST_CASE("weight ranges are their formulas and do not overflow", "[lemma1]") {
    Worst worst;
    for (std::size_t n : lengths) {
        for (double log_kappa : {0.0, 1e-9, 0.5, 3.0, 30.0, 200.0, 5000.0}) {
            const Where where{"formula", n, 1};
            const Ref kappa = std::exp(Ref(log_kappa)), count = Ref(n), u = unit_roundoff<double>;
            const auto sharp = attnscope::weight_range(static_cast<Index>(n), log_kappa);
            const auto published = attnscope::published_weight_range(static_cast<Index>(n), log_kappa);
            const Ref error = u * (8 + 2 * Ref(log_kappa) + 2 * std::log(count));
            const auto check = [&](double value, Ref exact) {
                if (exact > Ref(std::numeric_limits<double>::max()))
                    worst.meet(std::isinf(value), where);
                else
                    worst.meet(std::abs(value - exact), exact * error + Ref(std::numeric_limits<double>::min()),
                               where);
            };
            check(sharp.lower, 1 / (1 + (count - 1) * kappa));
            check(sharp.upper, 1 / (1 + (count - 1) / kappa));
            check(published.lower, 1 / (kappa * count));
            check(published.upper, kappa / count);
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("Corollary 1 and softmax's Lemma 1 hold on all families", "[corollary1][lemma1]", float,
                   double) {
    using T = TestType;
    Worst sharp, published, order;
    for_each_row<T>(test_seed(), lengths, 5, [&](Where where, const std::vector<T>& z) {
        double largest = 0;
        for (T x : z)
            if (std::isfinite(x)) largest = std::max(largest, std::abs(double(x)));
        for (double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = attnscope::row_statistics(in(z), temperature);
            const auto extremes = attnscope::weight_extremes(row);
            const auto corollary = attnscope::corollary1_sharp(row);
            const auto corollary_published = attnscope::corollary1_published(row, largest);
            const auto lemma = attnscope::lemma1_sharp(extremes, row.logit_spread() / temperature);
            const auto lemma_published = attnscope::lemma1_published(extremes, 2 * largest / temperature);
            if (!row.normal()) {
                for (const auto& pair : {corollary, corollary_published, lemma, lemma_published})
                    for (const auto& bound : pair) order.meet(bound.verdict() == Verdict::undefined, where);
                continue;
            }
            for (std::size_t side = 0; side < 2; ++side) {
                sharp.meet(satisfied(corollary[side]) && satisfied(lemma[side]), where);
                published.meet(satisfied(corollary_published[side]) && satisfied(lemma_published[side]), where);
                order.meet(corollary[side].side == (side == 0 ? Side::lower : Side::upper), where);
            }
            // The sharp range lies within the published one.
            order.meet(Ref(corollary_published[0].value) - Ref(corollary[0].value),
                       Ref(corollary[0].tolerance + corollary_published[0].tolerance), where);
            order.meet(Ref(corollary[1].value) - Ref(corollary_published[1].value),
                       Ref(corollary[1].tolerance + corollary_published[1].tolerance), where);
        }
    });
    ATTNSCOPE_CHECK_WORST(sharp);
    ATTNSCOPE_CHECK_WORST(published);
    ATTNSCOPE_CHECK_WORST(order);
}

TEMPLATE_TEST_CASE("Corollary 1 is attained on both sides", "[corollary1]", float, double) {
    using T = TestType;
    Worst attained, mutants;
    for (std::size_t n : lengths) {
        if (n < 2) continue; // one key: p = 1, which needs no theorem
        for (double temperature : temperatures) {
            for (double reduced : {0.0, 0.125, 1.0, 3.5, 9.0}) {
                const Where where{"two values", n, temperature, 0, scalar_name<T>()};
                const T height = static_cast<T>(reduced * temperature);
                const auto place = Index(n / 3);
                const auto one_high = row_of<T>(problems::needle_row(Index(n), double(height), place)),
                           one_low = row_of<T>(problems::needle_row(Index(n), -double(height), place),
                                               double(height));
                check_attained(
                    attnscope::corollary1_sharp(attnscope::row_statistics(in(one_high), temperature))[1], where,
                    attained, mutants);
                check_attained(
                    attnscope::corollary1_sharp(attnscope::row_statistics(in(one_low), temperature))[0], where,
                    attained, mutants);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(attained);
    ATTNSCOPE_CHECK_WORST(mutants);
}

TEST_CASE("the published upper side of Corollary 1 says nothing until L > e^{2 Delta/T}", "[corollary1]") {
    std::size_t vacuous = 0, holds = 0;
    for (std::size_t n : {std::size_t(2), std::size_t(8), std::size_t(100), std::size_t(1000)}) {
        for (double temperature : {0.5, 1.0, 2.0}) {
            for (double delta : {0.1, 0.5, 1.0, 2.0, 5.0, 400.0}) {
                CAPTURE(n, temperature, delta);
                std::vector<double> z(n, 0.1);
                z[0] = -0.1;
                const auto bounds =
                    attnscope::corollary1_published(attnscope::row_statistics(in(z), temperature), delta);
                const bool informative = double(n) > std::exp(2 * delta / temperature);
                CHECK(bounds[1].verdict() == (informative ? Verdict::holds : Verdict::vacuous));
                // The lower side always says something, unless its limit underflows to 0.
                CHECK(bounds[0].verdict() == (bounds[0].value > 0 ? Verdict::holds : Verdict::vacuous));
                ++(informative ? holds : vacuous);
            }
        }
    }
    CHECK(vacuous > 0);
    CHECK(holds > 0);
}

TEMPLATE_TEST_CASE("Lemma 1 holds for the general family and is attained", "[lemma1]", attnscope::Exponential,
                   attnscope::Sigmoid, attnscope::Softplus, attnscope::Quadratic) {
    const PointwiseNormalizer<TestType> normalizer;
    const auto key = key_of(normalizer);
    Worst sharp, published, attained, mutants;
    for_each_row<double>(test_seed(), lengths, 3, [&](Where where, const std::vector<double>& z) {
        where.normalizer = normalizer.name();
        const auto extremes = extremes_of(normalizer, z);
        if (extremes.visible == 0) return;
        // kappa over [-a, a] lies at the ends, or at 0 and an end.
        double a = 0;
        for (double x : z)
            if (x != families::masked_logit) a = std::max(a, std::abs(x));
        const Ref ends[3] = {key.log(-a), key.log(0), key.log(a)};
        const double kappa =
            static_cast<double>(std::max({ends[0], ends[1], ends[2]}) - std::min({ends[0], ends[1], ends[2]}));
        for (const auto& bound : attnscope::lemma1_sharp(extremes, row_log_kappa(normalizer, z)))
            sharp.meet(satisfied(bound), where);
        for (const auto& bound : attnscope::lemma1_published(extremes, kappa))
            published.meet(satisfied(bound), where);
    });
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double height : {0.25, 1.0, 4.0}) {
            const Where where{"two values", n, 1, 0, "double", std::string(normalizer.name())};
            const auto place = Index(n - 1);
            auto one_high = row_of(problems::needle_row(Index(n), height, place), -0.5),
                 one_low = row_of(problems::needle_row(Index(n), -height, place), -0.5 + height);
            if (normalizer.log_value(-0.5) > normalizer.log_value(-0.5 + height)) std::swap(one_high, one_low);
            check_attained(attnscope::lemma1_sharp(extremes_of(normalizer, one_high),
                                                   row_log_kappa(normalizer, one_high))[1],
                           where, attained, mutants);
            check_attained(attnscope::lemma1_sharp(extremes_of(normalizer, one_low),
                                                   row_log_kappa(normalizer, one_low))[0],
                           where, attained, mutants);
        }
    }
    ATTNSCOPE_CHECK_WORST(sharp);
    ATTNSCOPE_CHECK_WORST(published);
    ATTNSCOPE_CHECK_WORST(attained);
    ATTNSCOPE_CHECK_WORST(mutants);
}
