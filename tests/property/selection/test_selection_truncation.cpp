// What truncation loses: identities against long double, certificates held, attained and not to be sharpened.
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selection/top_n.hpp>
#include <attnscope/selection/truncation.hpp>
#include <support/rows.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::SelectedSet;
using attnscope::truncation_error;
using attnscope::truncation_gap_bound;
using attnscope::truncation_mass;
using attnscope::truncation_mass_by_gap;
using attnscope::truncation_output_bound;
using attnscope::Verdict;

namespace {

constexpr std::array<std::pair<Index, Index>, 8> shapes = {
    {{1, 2}, {2, 1}, {3, 3}, {8, 2}, {16, 8}, {17, 1}, {60, 5}, {300, 2}}};

/// Softmax of logits, in long double.
RefRow reference_softmax(const std::vector<double>& z) {
    Ref top = -std::numeric_limits<Ref>::infinity(), sum = 0;
    for (const double x : z) top = std::max(top, Ref(x));
    RefRow p;
    for (const double x : z) {
        p.push_back(std::exp(Ref(x) - top));
        sum += p.back();
    }
    for (Ref& w : p) w /= sum;
    return p;
}

/// Weights in double, correctly rounded, beside vectors of one number.
Tokens<double> tokens_of_logits(const std::vector<double>& z) {
    std::vector<double> p;
    for (const Ref w : reference_softmax(z)) p.push_back(static_cast<double>(w));
    return tokens_of(std::move(p), std::vector<double>(z.size(), 1));
}

} // namespace

TEST_CASE("tau is the total variation to the renormalised selection, and 1 - exp(-KL)",
          "[selection][truncation]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst variation, divergence, small;
    SelectedSet<double> set;
    for_each_row<double>(seed, lengths, 1, [&](const Where& where, const std::vector<double>& logits) {
        std::vector<double> z;
        for (const double x : logits)
            if (x > -std::numeric_limits<double>::infinity()) z.push_back(x);
        if (z.empty()) return;
        const RefRow p = reference_softmax(z);
        const Tokens<double> tokens = tokens_of_logits(z);
        const std::vector<Index> order = reference_order(tokens.weights());
        for (std::size_t k = 1; k <= z.size(); k = 2 * k + 1) {
            set.assign(tokens.weights(), tokens.vectors(), std::span<const Index>(order).first(k));
            Ref head = 0, tail = 0, tv = 0, kl = 0;
            for (std::size_t rank = z.size(); rank-- > 0;)
                (rank < k ? head : tail) += p[static_cast<std::size_t>(order[rank])];
            for (std::size_t rank = 0; rank < z.size(); ++rank) {
                const Ref w = p[static_cast<std::size_t>(order[rank])], q = rank < k ? w / head : Ref(0);
                tv += std::abs(w - q) / 2;
                if (q > 0) kl += q * std::log(q / w);
            }
            const Ref n = static_cast<Ref>(z.size()), tau = truncation_mass(set);
            const Ref rounding = unit_roundoff<double> * n * tail + 1e-300L, wide = 8 * n * unit_roundoff<Ref>;
            small.meet(std::abs(tau - tail), rounding, where); // to its own size, however tiny
            variation.meet(std::abs(tau - tv), rounding + wide, where);
            divergence.meet(std::abs(tau + std::expm1(-kl)), rounding + wide, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(small);
    ATTNSCOPE_CHECK_WORST(variation);
    ATTNSCOPE_CHECK_WORST(divergence);
}

TEMPLATE_TEST_CASE("|o - o_I| is tau |mean of the others - mean of the selected|, at most tau d1",
                   "[selection][truncation][accuracy]", float, double, long double) {
    using T = TestType;
    using A = SumScalar<T>;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst identity, definition, bound_value;
    std::size_t checked = 0, violated = 0, weightless = 0;
    SelectedSet<T> set;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = reference_order(tokens.weights());
        Ref sum = 0;
        for (Index i = 0; i < tokens.n; ++i) sum += tokens.weight(i);
        const auto check = [&](std::span<const Index> selected) {
            const RefSelection r = reference_selection(tokens, selected);
            set.assign(tokens.weights(), tokens.vectors(), selected);
            const Ref found = truncation_error(set);
            if (r.count == tokens.n || r.tail == 0) {
                definition.meet(found == 0, tokens.where);
                return;
            }
            if (r.mass == 0) { // what is selected weighs nothing: there is no o_I
                ++weightless;
                definition.meet(std::isnan(found), tokens.where);
                return;
            }
            RefRow means(r.s.size()), lost(r.s.size());
            for (std::size_t c = 0; c < r.s.size(); ++c) {
                means[c] = r.rest[c] / r.tail - r.s[c] / r.mass;
                lost[c] = r.s[c] + r.rest[c] - r.s[c] / r.mass;
            }
            const Ref ratio = r.tail / r.mass;
            const Ref size = r.total_length - r.selected_length + r.selected_length * ratio;
            const Ref tolerance = 2 * compared_unit<T> * static_cast<Ref>(tokens.n + tokens.d + 8) * size;
            identity.meet(std::abs(found - r.tail * norm_of(means)), tolerance, tokens.where);
            // o - o_I by definition: differs where the weights do not sum to 1, by |s|/A for each part of that,
            // and cancels.
            definition.meet(std::abs(found - norm_of(lost)),
                            tolerance + std::abs(sum - 1) * norm_of(r.s) / r.mass +
                                8 * unit_roundoff<Ref> * static_cast<Ref>(tokens.n) *
                                    (r.total_length + r.selected_length / r.mass),
                            tokens.where);
            const Ref spread = reference_spread(tokens, r);
            const auto bound = truncation_output_bound(set, static_cast<A>(spread) *
                                                                (1 + 4 * std::numeric_limits<A>::epsilon()));
            ++checked;
            violated += bound.verdict() == Verdict::violated;
            bound_value.meet(std::abs(bound.value - r.tail * spread),
                             compared_unit<T> * static_cast<Ref>(tokens.n + 16) * r.tail * spread,
                             tokens.where);
        };
        for (Index count = 1; count <= tokens.n; count = 2 * count + 1) {
            check(std::span<const Index>(order).first(static_cast<std::size_t>(count)));
            check(random_subset(random, tokens.n, count));
        }
        check(order);
    });
    ATTNSCOPE_CHECK_WORST(identity);
    ATTNSCOPE_CHECK_WORST(definition);
    ATTNSCOPE_CHECK_WORST(bound_value);
    CHECK(checked > 1000);
    CHECK(violated == 0);
    CHECK(weightless > 20);
}

TEST_CASE("tau d1 is attained when head and tail sit at two points", "[selection][truncation]") {
    std::size_t caught = 0, met = 0;
    SelectedSet<double> set;
    for (const Index n : {2, 3, 10, 100})
        for (Index head = 1; head < n; head = 3 * head) {
            std::vector<double> p(static_cast<std::size_t>(n)), x(static_cast<std::size_t>(2 * n));
            for (Index i = 0; i < n; ++i) {
                const auto at = static_cast<std::size_t>(i);
                p[at] = static_cast<double>(2 * n - i);
                x[2 * at] = i < head ? 3 : -1;
                x[2 * at + 1] = i < head ? 1 : 4;
            }
            families::normalise(p);
            const Tokens<double> tokens = tokens_of(p, x);
            set.assign(tokens.weights(), tokens.vectors(),
                       attnscope::top_n(Eigen::Map<const Eigen::VectorXd>(p.data(), n), head));
            const auto bound = truncation_output_bound(set, 5.0);
            CHECK(std::abs(bound.slack()) <= bound.tolerance);
            CHECK(bound.tolerance < 1e-12);
            CHECK(bound.verdict() <= Verdict::within_rounding);
            ++met;
            caught += bound.tightened(0.99).verdict() == Verdict::violated;
        }
    CHECK(met > 8);
    CHECK(caught == met);

    // Two outside are twice as far apart as either is from the selected one; the one that weighs nothing does not count.
    const Tokens<double> apart = tokens_of({.6, .4, 0}, {0, 5, -5});
    set.assign(apart.weights(), apart.vectors(), std::vector<Index>{0});
    const double d1 = fixed_set_geometry(set).spread;
    CHECK(d1 == 5);
    const auto bound = truncation_output_bound(set, d1);
    CHECK(bound.value == Catch::Approx(2));
    CHECK(std::abs(bound.slack()) <= bound.tolerance);
    CHECK(bound.tightened(0.99).verdict() == Verdict::violated);
}

TEST_CASE("the gap certificate holds, is attained by two levels, and is not to be sharpened",
          "[selection][truncation]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    const double unit = static_cast<double>(unit_roundoff<double>); // the weights are correctly rounded
    SelectedSet<double> set;
    std::size_t checked = 0, violated = 0;
    for_each_row<double>(seed, lengths, 1, [&](const Where&, const std::vector<double>& logits) {
        std::vector<double> z;
        for (const double x : logits)
            if (x > -std::numeric_limits<double>::infinity()) z.push_back(x);
        if (z.empty()) return;
        const Tokens<double> tokens = tokens_of_logits(z);
        const std::vector<Index> order = reference_order(std::span<const double>(z));
        for (std::size_t k = 1; k <= z.size(); k = 2 * k + 1) {
            set.assign(tokens.weights(), tokens.vectors(), std::span<const Index>(order).first(k));
            const double gap = k == z.size() ? 0
                                             : z[static_cast<std::size_t>(order[k - 1])] -
                                                   z[static_cast<std::size_t>(order[k])];
            const auto bound = truncation_gap_bound(set, gap, unit * static_cast<double>(z.size() + 1));
            CHECK(bound.id() == "truncation_gap");
            ++checked;
            violated += bound.verdict() == Verdict::violated;
            if (k == z.size()) CHECK(bound.value == 0);
        }
    });
    CHECK(checked > 500);
    CHECK(violated == 0);

    std::size_t met = 0, caught = 0;
    Worst value;
    for (const Index n : {2, 3, 17, 256})
        for (Index k = 1; k < n; k = 2 * k + 1)
            for (const double gap : {0.0, 1e-3, 1.0, 20.0, 600.0}) {
                const auto z = row_of(problems::two_level_row(n, k, gap), -gap);
                const Tokens<double> tokens = tokens_of_logits(z);
                std::vector<Index> keys(static_cast<std::size_t>(k));
                std::iota(keys.begin(), keys.end(), Index(0));
                set.assign(tokens.weights(), tokens.vectors(), keys);
                const auto bound = truncation_gap_bound(set, gap, unit * static_cast<double>(n + 1));
                const Ref left = static_cast<Ref>(n - k), head = static_cast<Ref>(k);
                const Ref truth = 1 / (1 + head / left * std::exp(Ref(gap)));
                value.meet(std::abs(bound.value - truth), unit_roundoff<double> * (8 + 2 * Ref(gap)) * truth,
                           Where{"two levels", static_cast<std::size_t>(n)});
                CHECK(std::abs(bound.slack()) <= bound.tolerance);
                ++met;
                caught += bound.tightened(0.99).verdict() == Verdict::violated;
            }
    ATTNSCOPE_CHECK_WORST(value);
    CHECK(met == 70);
    CHECK(caught == met);
    CHECK(truncation_mass_by_gap(7, 7, 3.0) == 0);
    CHECK(truncation_mass_by_gap(7, 3, std::numeric_limits<double>::infinity()) == 0);
}
