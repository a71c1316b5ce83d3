// What sets of keys keep of the rows of a head: every figure against the dense definition in long double.
#include <attnscope/selector/key_sets.hpp>
#include <attnscope/streaming/set_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/mask_reference.hpp>
#include <support/masked_heads.hpp>
#include <support/selection_reference.hpp>

#include <set>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr Ref infinity = std::numeric_limits<Ref>::infinity();

/// A head whose logits are exact in float, with many ties, and whose values are not.
template <class T>
struct ExactHead {
    Matrix<T> q, k, v;
    T scale = T(0.5);
    HeadView<T> view() const { return {MatrixView<T>(q), MatrixView<T>(k), MatrixView<T>(v), scale}; }
    Ref logit(Index query, Index key) const {
        Ref sum = 0;
        for (Index c = 0; c < q.cols(); ++c) sum += Ref(q(query, c)) * Ref(k(key, c));
        return Ref(scale) * sum;
    }
};

template <class T>
ExactHead<T> exact_head(SplitMix64& random, Index queries, Index keys, Index d, Index d_v) {
    ExactHead<T> head{Matrix<T>(queries, d), Matrix<T>(keys, d), normal<T>(random, keys, d_v, 2)};
    for (Matrix<T>* m : {&head.q, &head.k})
        for (Index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<T>(random.below(7) - 3);
    return head;
}

/// A set for each query: of the keys it sees some, none, or all, in any order.
KeySets random_sets(SplitMix64& random, const MaskRule& rule, Index queries, Index keys) {
    KeySets sets;
    for (Index query = 0; query < queries; ++query) {
        std::vector<Index> list;
        const double share = random.below(5) == 0 ? 2.0 : random.below(5) == 0 ? 0.0 : random.uniform();
        for (Index key = 0; key < keys; ++key)
            if (rule.sees(query, key) && random.uniform() < share) list.push_back(key);
        for (Index i = static_cast<Index>(list.size()) - 1; i > 0; --i)
            std::swap(list[std::size_t(i)], list[std::size_t(random.below(i + 1))]);
        sets.add(list);
    }
    return sets;
}

struct Tallies {
    Worst mass, loss, output, limit, counts, distance, lower, upper, nearest, farthest, identity;
};

template <class T>
void compare_row(const ExactHead<T>& head, const MaskRule& rule, Index query, std::span<const Index> selected,
                 std::optional<Ref> sink, const SelectionFigures<Accumulator<T>>& got, const Where& where,
                 Tallies& tallies) {
    std::vector<Index> seen;
    for (Index key = 0; key < head.k.rows(); ++key)
        if (rule.sees(query, key)) seen.push_back(key);
    if (seen.empty()) {
        tallies.counts.meet(got.status == RowStatus::empty && std::isnan(got.lost), where);
        return;
    }
    const std::set<Index> inside(selected.begin(), selected.end());
    RefRow z;
    for (const Index key : seen) z.push_back(head.logit(query, key));
    const Ref top = *std::max_element(z.begin(), z.end()), shift = sink ? std::max(top, *sink) : top;
    const Ref sink_weight = sink ? std::exp(*sink - shift) : Ref(0);
    Ref kept = sink_weight, tail = 0;
    const auto d = static_cast<std::size_t>(head.v.cols());
    RefRow in_sum(d), out_sum(d);
    Ref in_length = 0, out_length = 0;
    Tokens<T> tokens{static_cast<Index>(seen.size()), head.v.cols(), {}, {}, where};
    std::vector<Index> places;
    for (std::size_t i = 0; i < seen.size(); ++i) {
        const Ref weight = std::exp(z[i] - shift);
        const bool is_in = inside.count(seen[i]) > 0;
        (is_in ? kept : tail) += weight;
        Ref length = 0;
        for (std::size_t c = 0; c < d; ++c) {
            const Ref x = head.v(seen[i], static_cast<Index>(c));
            (is_in ? in_sum : out_sum)[c] += weight * x;
            length += x * x;
            tokens.x.push_back(head.v(seen[i], static_cast<Index>(c)));
        }
        (is_in ? in_length : out_length) += weight * std::sqrt(length);
        if (is_in) places.push_back(static_cast<Index>(i));
    }
    const Ref all = kept + tail;
    for (const Ref x : z) tokens.p.push_back(static_cast<T>(std::exp(x - shift) / all));

    // The best of the same number.
    RefRow sorted = z;
    std::sort(sorted.begin(), sorted.end(), std::greater<Ref>());
    const std::size_t n = inside.size();
    Ref best = sink_weight;
    for (std::size_t i = 0; i < n; ++i) best += std::exp(sorted[i] - shift);
    Index found = 0, inversions = 0;
    bool top_key = false;
    if (n > 0) {
        Index above_in = 0, ties_in = 0, above = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            const bool is_in = inside.count(seen[i]) > 0;
            above += z[i] > sorted[n - 1];
            above_in += is_in && z[i] > sorted[n - 1];
            ties_in += is_in && z[i] == sorted[n - 1];
            top_key = top_key || (is_in && z[i] == top);
            for (std::size_t j = 0; is_in && j < z.size(); ++j)
                inversions += inside.count(seen[j]) == 0 && z[j] > z[i];
        }
        found = above_in + std::min(ties_in, static_cast<Index>(n) - above);
    }
    tallies.counts.meet(got.normal() && got.visible == static_cast<Index>(seen.size()) &&
                            got.selected == static_cast<Index>(n) && got.found == found &&
                            got.missed == static_cast<Index>(n) - found && got.top_key == top_key,
                        where);
    tallies.counts.meet(got.missed * got.missed <= inversions, where); // `missed_tokens` with K = N

    // exp to a few units, sums of T of at most 1024 terms.
    const Ref unit = static_cast<Ref>(seen.size() + 24) * compared_unit<T> + 12 * unit_roundoff<T> +
                     static_cast<Ref>(seen.size()) * unit_roundoff<T>;
    tallies.mass.meet(std::abs(got.kept - kept / all), 2 * unit * kept / all, where);
    tallies.mass.meet(std::abs(got.lost - tail / all), 2 * unit * tail / all, where);
    tallies.loss.meet(std::abs(got.selector_loss - (best - kept) / all), 2 * unit * best / all, where);
    tallies.loss.meet(std::abs(got.budget_loss - (all - best) / all), 4 * unit * (best + tail) / all, where);

    // KL and TV by their definitions.
    if (n > 0 || sink_weight > 0) {
        Ref kl = 0, tv = 0;
        const auto meet = [&](Ref weight, bool is_in) {
            const Ref p = weight / all, own = is_in ? weight / kept : Ref(0);
            if (own > 0) kl += own * std::log(own / p);
            tv += std::abs(own - p) / 2;
        };
        for (std::size_t i = 0; i < z.size(); ++i) meet(std::exp(z[i] - shift), inside.count(seen[i]) > 0);
        if (sink) meet(sink_weight, true);
        tallies.identity.meet(std::abs(got.kl_nats() - kl), 4 * unit * (1 + std::abs(kl)), where);
        tallies.identity.meet(std::abs(got.total_variation() - tv), 4 * unit, where);
    } else {
        tallies.identity.meet(std::isinf(got.kl_nats()) && got.lost == 1, where);
    }

    RefRow error(d), output(d);
    const bool weighs = n > 0 || sink_weight > 0;
    for (std::size_t c = 0; c < d; ++c) {
        output[c] = (in_sum[c] + out_sum[c]) / all;
        // The difference of the means: that of the outputs cancels.
        error[c] = weighs && tail > 0 ? tail / all * (out_sum[c] / tail - in_sum[c] / kept) : Ref(0);
    }
    const Ref rounding = 4 * unit * (out_length + in_length / std::max(kept, Ref(1e-300)) * tail) / all;
    tallies.output.meet(std::abs(got.unnormalised_error - norm_of(out_sum) / all), 4 * unit * out_length / all,
                        where);
    if (!weighs) {
        tallies.output.meet(std::isnan(got.output_error) && std::isnan(got.output_limit), where);
    } else {
        tallies.output.meet(std::abs(got.output_error - norm_of(error)), rounding, where);
        const Ref relative = norm_of(error) == 0 ? Ref(0) : norm_of(error) / norm_of(output);
        const Ref output_rounding = 4 * unit * (in_length + out_length) / all / norm_of(output);
        tallies.output.meet(std::abs(got.relative_error - relative),
                            rounding / norm_of(output) + relative * output_rounding * 2, where);
        // tau times the farthest pair, which the limit knows from above.
        Ref spread = 0;
        const RefSelection reference = reference_selection(tokens, places);
        spread = reference_spread(tokens, reference);
        if (sink)
            for (Index i = 0; i < tokens.n; ++i)
                if (reference.member[std::size_t(i)] == 0) spread = std::max(spread, tokens.length(i));
        tallies.limit.meet(got.output_limit >= (1 - 4 * unit) * tail / all * spread, where);
        tallies.limit.meet(got.output_error - got.output_limit, rounding, where);
    }
    if (!got.geometry) return;
    const RefSelection reference = reference_selection(tokens, places);
    const Ref room = static_cast<Ref>(tokens.n + tokens.d + 40) *
                     (unit_roundoff<T> + compared_unit<T>)*tokens.total_length() *
                     static_cast<Ref>(tokens.n + 1);
    tallies.distance.meet(std::abs(got.geometry->distance - reference.cumulative), room, where);
    tallies.lower.meet(got.geometry->distance_limits.lower - reference.cumulative, room, where);
    tallies.upper.meet(reference.cumulative - got.geometry->distance_limits.upper, room, where);
    tallies.counts.meet(got.inversions == inversions, where);
    Ref nearest = infinity, farthest = 0;
    for (Index i = 0; i < tokens.n; ++i) {
        const Ref own = reference.distance[std::size_t(i)];
        if (reference.member[std::size_t(i)] != 0)
            farthest = std::max(farthest, own);
        else
            nearest = std::min(nearest, own);
    }
    if (std::isinf(nearest))
        tallies.nearest.meet(std::isinf(got.geometry->separability.nearest_other), where);
    else
        tallies.nearest.meet(std::abs(got.geometry->separability.nearest_other - nearest), room, where);
    tallies.farthest.meet(std::abs(got.geometry->separability.farthest_selected - farthest), room, where);
}

} // namespace

TEMPLATE_TEST_CASE("scan_selection: every figure of every row by its definition", "[selector][set_scan]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Tallies tallies;
    const Threads two(2);
    for (std::uint64_t round = 0; round < 60; ++round) {
        SplitMix64 random = generator(seed, round);
        const Index keys = 1 + random.below(round % 3 == 0 ? 90 : 12),
                    queries = 1 + random.below(round % 2 == 0 ? 3 : 45);
        const ExactHead<T> head = exact_head<T>(random, queries, keys, 4, 1 + random.below(6));
        MaskRule rule = random_rule(random, keys);
        if (round % 4 == 0) rule = {.causal = true, .offset = keys - queries};
        const KeySets sets = random_sets(random, rule, queries, keys);
        SelectionScanOptions options;
        options.geometry = round % 2 == 0;
        options.tiles.query_tile = 1 + random.below(9);
        options.tiles.key_tile = 1 + random.below(40);
        std::optional<Ref> sink;
        if (round % 5 == 0) {
            options.sink_logit = 3.5;
            sink = Ref(3.5);
        }
        const auto scanned = scan_selection(head.view(), sets, rule.mask(), options);
        const auto threaded = scan_selection(head.view(), sets, rule.mask(), options, two);
        REQUIRE(scanned.rows.size() == static_cast<std::size_t>(queries));
        for (Index query = 0; query < queries; ++query) {
            const Where where{"exact logits", static_cast<std::size_t>(keys), 1, round, scalar_name<T>(),
                              rule.text()};
            const auto& row = scanned.rows[std::size_t(query)];
            compare_row(head, rule, query, sets(query), sink, row, where, tallies);
            const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
            const auto& other = threaded.rows[std::size_t(query)];
            tallies.counts.meet(same(row.lost, other.lost) && same(row.output_error, other.output_error),
                                where);
        }
    }
    ATTNSCOPE_CHECK_WORST(tallies.mass);
    ATTNSCOPE_CHECK_WORST(tallies.loss);
    ATTNSCOPE_CHECK_WORST(tallies.output);
    ATTNSCOPE_CHECK_WORST(tallies.limit);
    ATTNSCOPE_CHECK_WORST(tallies.counts);
    ATTNSCOPE_CHECK_WORST(tallies.distance);
    ATTNSCOPE_CHECK_WORST(tallies.lower);
    ATTNSCOPE_CHECK_WORST(tallies.upper);
    ATTNSCOPE_CHECK_WORST(tallies.nearest);
    ATTNSCOPE_CHECK_WORST(tallies.farthest);
    ATTNSCOPE_CHECK_WORST(tallies.identity);
}

TEST_CASE("scan_selection: a tail of any size keeps its digits", "[selector][set_scan]") {
    // One key in the set, m below it another: tau = 1/(1 + e^m), |o - o_I| = tau |v_0 - v_1|.
    for (const double m : {1.0, 30.0, 100.0, 600.0}) {
        Matrix<double> q(1, 1), k(2, 1), v(2, 2);
        q << 1;
        k << m, 0;
        v << 1, 2, 1, 5;
        const auto of = [&](Index key) {
            return scan_selection(HeadView<double>(MatrixView<double>(q), MatrixView<double>(k),
                                                   MatrixView<double>(v), 1.0),
                                  [&](Index) { return std::vector<Index>{key}; })
                .rows[0];
        };
        const double tau = 1 / (1 + std::exp(m));
        CHECK(of(0).lost == Catch::Approx(tau).epsilon(1e-13));
        CHECK(of(0).output_error == Catch::Approx(3 * tau).epsilon(1e-13));
        CHECK(of(0).kl_nats() == Catch::Approx(std::log1p(std::exp(-m))).epsilon(1e-13));
        CHECK(of(1).kept == Catch::Approx(tau).epsilon(1e-13));
        CHECK(of(1).output_error == Catch::Approx(3 * (1 - tau)).epsilon(1e-13));
        CHECK(of(1).selector_loss == Catch::Approx(1 - 2 * tau).epsilon(1e-12).margin(1e-15));
    }
    // In float too, where e^-100 is no number: the set is its own measure.
    Matrix<float> q(1, 1), k(3, 1), v(3, 1);
    q << 1;
    k << 200, 0, -1;
    v << 1, 2, 4;
    const HeadView<float> head(MatrixView<float>(q), MatrixView<float>(k), MatrixView<float>(v), 1.0f);
    const auto row = scan_selection(head, [](Index) { return std::vector<Index>{1, 2}; }).rows[0];
    CHECK(row.kept == Catch::Approx(std::exp(-200.0) * (1 + std::exp(-1.0))).epsilon(1e-6));
    const double mean = (2 + 4 * std::exp(-1.0)) / (1 + std::exp(-1.0));
    CHECK(row.output_error == Catch::Approx(mean - 1).epsilon(1e-6));
}

TEST_CASE("scan_selection: special rows", "[selector][set_scan]") {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                     inf = std::numeric_limits<double>::infinity();
    Matrix<double> logits(5, 4), v(4, 1);
    logits << 0, 1, 2, 3, nan, 1, 2, 3, 0, inf, 1, 2, -inf, -inf, -inf, -inf, -inf, 1, 0, -inf;
    v << 1, 2, 3, 4;
    const auto source = [&](Index query, Index key, TileOut<double> tile) {
        tile = logits.block(query, key, tile.rows(), tile.cols());
    };
    const KeySets sets(std::vector<std::vector<Index>>{{3}, {3}, {1}, {0}, {0, 1}});
    SelectionScanOptions options;
    options.geometry = true;
    const auto rows = scan_selection_of<double>(5, 4, source, StoredRows<double>(MatrixView<double>(v)), sets,
                                                Mask::none(), options)
                          .rows;
    CHECK(rows[0].normal());
    CHECK(rows[1].status == RowStatus::nan);
    CHECK(rows[2].status == RowStatus::infinite);
    CHECK(rows[3].status == RowStatus::empty);
    for (const std::size_t i : {1u, 2u, 3u}) {
        CHECK(std::isnan(rows[i].kept));
        CHECK(std::isnan(rows[i].output_error));
        CHECK(rows[i].selected == 0);
        CHECK(!rows[i].geometry);
    }
    // What an additive mask hides weighs nothing and is no key of the row.
    CHECK(rows[4].visible == 2);
    CHECK(rows[4].selected == 2);
    CHECK(rows[4].lost == Catch::Approx(1 / (1 + std::exp(1.0))));
    REQUIRE(rows[4].geometry);
    CHECK(rows[4].geometry->separability.recall == 1);

    // A value that is no number spoils the rows that it is a part of.
    v(2) = nan;
    const auto spoilt =
        scan_selection_of<double>(5, 4, source, StoredRows<double>(MatrixView<double>(v)), sets).rows;
    CHECK(std::isnan(spoilt[0].output_error));
    CHECK(spoilt[0].lost == rows[0].lost);

    // A row that was not reached is a NaN row.
    options = {};
    options.tiles.query_tile = 1;
    options.tiles.progress = [](Index, Index) { return false; };
    const auto cut = scan_selection_of<double>(5, 4, source, StoredRows<double>(), sets, Mask::none(), options);
    CHECK(cut.cancelled);
    CHECK(cut.rows[0].normal());
    CHECK(cut.rows[1].status == RowStatus::nan);
    CHECK(std::isnan(cut.rows[0].output_error)); // without values
}

TEST_CASE("scan_selection: what a set must be", "[selector][set_scan]") {
    Matrix<double> x = Matrix<double>::Ones(4, 2);
    const HeadView<double> head(x, x, x);
    const auto message = [&](const KeySets& sets) {
        try {
            (void)scan_selection(head, sets, Mask::causal());
        } catch (const invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    using Lists = std::vector<std::vector<Index>>;
    CHECK(message(KeySets(Lists{{0}, {0, 1}, {2}, {3}})).empty());
    for (const auto& [sets, what] :
         std::vector<std::pair<Lists, std::string>>{{{{0}, {2}, {0}, {0}}, "got 1 and 2"},
                                                    {{{0}, {0}, {9}, {0}}, "got 2 and 9"},
                                                    {{{0}, {0}}, "got 2 and 2"}}) {
        const std::string said = message(KeySets(sets));
        CAPTURE(said);
        CHECK(said.find("query") != std::string::npos);
        CHECK(said.find(what) != std::string::npos);
    }
    const auto twice = [](Index) { return std::vector<Index>{0, 0}; };
    CHECK_THROWS_WITH(scan_selection(head, twice), Catch::Matchers::ContainsSubstring("once") &&
                                                       Catch::Matchers::ContainsSubstring("0 and 0"));
    SelectionScanOptions options;
    options.geometry = true;
    CHECK_THROWS_AS(scan_selection(HeadView<double>(x, x), twice, {}, options), invalid_argument);
    options = {};
    options.sink_logit = std::numeric_limits<double>::quiet_NaN();
    CHECK_THROWS_AS(scan_selection(
                        head, [](Index) { return std::vector<Index>{}; }, {}, options),
                    invalid_argument);
}
