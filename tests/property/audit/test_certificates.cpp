// Certificates beyond the paper, each with three tests: it holds on every family of rows, it is attained where
// it should be, and the same bound scaled by 0.99 is caught there.
#include <attnscope/audit/certificates.hpp>
#include <attnscope/audit/row.hpp>
#include <attnscope/concentration/temperature_derivatives.hpp>
#include <support/attained.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

#include <numeric>

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

RefRow ref_softmax(const RefRow& z, Ref temperature = 1) {
    const Ref top = *std::max_element(z.begin(), z.end());
    RefRow p(z.size());
    Ref sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) sum += p[i] = std::exp((z[i] - top) / temperature);
    for (Ref& x : p) x /= sum;
    return p;
}

BoundPair<double> critical_at(const std::vector<double>& descending, double temperature) {
    return critical_temperature_sharp(
        row_statistics<double>(in(descending), temperature),
        critical_inverse_temperature<double>(in(descending), static_cast<Index>(descending.size())),
        in(descending));
}

} // namespace

TEST_CASE("every certificate of a row holds on 100,000 rows of every family", "[theorem][certificates]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Audit audit;
    CertificateAuditor auditor({}, seed);
    RowMeter meter;
    SplitMix64 random = generator(seed, 21);
    std::size_t rows = 0;
    std::vector<double> values;
    for_each_row<double>(seed, lengths, 700, [&](const Where&, const std::vector<double>& z) {
        const double temperature = temperatures[rows++ % temperatures.size()];
        const MeasuredRow& row = meter(Softmax(temperature), in(z));
        const Index n = static_cast<Index>(z.size()), d = 3;
        if (n <= 17) { // pairs of values cost n^2
            values = normal_row<double>(random, static_cast<std::size_t>(n * d));
            const MatrixView<double> v(values.data(), n, d);
            auditor(audit, row, v, token_diameter(v));
        } else {
            auditor(audit, row);
        }
        std::vector<double> merit = normal_row<double>(random, z.size());
        Ranking<double> ranking, by_merit;
        ranking.rank(in(z));
        by_merit.rank(in(merit));
        audit_missed_tokens(audit, ranking.order(), by_merit.order(), random.below(n + 1));
    });
    CHECK(rows >= 100'000);
    for (const std::string_view id :
         {"box", "critical_temperature", "gap_counting", "log_n_phase", "score_deficit", "missed_tokens",
          "perturbation_tv", "perturbation_kl", "perturbation_output", "perturbation_gap",
          "perturbation_mean_kl", "perturbation_mean_tv"}) {
        CAPTURE(std::string(id));
        const AuditRecord& record = audit.at(named_statement(id, Form::sharp));
        CHECK(record.checked >=
              (id == "perturbation_output" ? 60'000u : 99'000u)); // some masked rows have no key
        CHECK(record[Verdict::violated] == 0);
        CHECK(record[Verdict::undefined] == 0);
        CHECK(record.max_tightness() > 0.9);
    }
}

TEST_CASE("every certificate of a row holds at temperatures to the ends of double", "[theorem][certificates]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    CertificateAuditor auditor({}, seed);
    RowMeter meter;
    for (const double temperature : extreme_temperatures) {
        Audit audit;
        std::size_t rows = 0;
        const auto meet = [&](const std::vector<double>& z) {
            rows += visible_count(z) > 0;
            auditor(audit, meter(Softmax(temperature), in(z)));
        };
        for_each_row<double>(seed, lengths, 4, [&](const Where&, std::vector<double> z) {
            meet(z);
            // Gaps of the size of the temperature, too, down to subnormal ones.
            const double size = std::min(temperature, 1e150);
            for (double& x : z) x *= size;
            meet(z);
        });
        for (const std::string_view id :
             {"box", "critical_temperature", "gap_counting", "log_n_phase", "score_deficit", "perturbation_tv",
              "perturbation_kl", "perturbation_gap", "perturbation_mean_kl", "perturbation_mean_tv"}) {
            CAPTURE(temperature, std::string(id));
            const AuditRecord& record = audit.at(named_statement(id, Form::sharp));
            CHECK(record.checked >= rows);
            CHECK(record[Verdict::violated] == 0);
            CHECK(record[Verdict::undefined] == 0);
        }
    }
}

TEST_CASE("the box bounds are attained at the corners of the box", "[theorem][box]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst attained;
    for_each_row<double>(seed, short_lengths, 3, [&](const Where& where, const std::vector<double>& z) {
        SplitMix64 random = generator(seed, z.size(), 31);
        for (const double temperature : {0.5, 1.0, 50.0}) {
            const std::size_t n = z.size();
            std::vector<double> low(z), high(z), least(n), greatest(n);
            for (std::size_t i = 0; i < n; ++i) low[i] -= 2 * random.uniform(), high[i] += 2 * random.uniform();
            box_weight_ranges<double>(in(low), in(high), temperature, out(least), out(greatest));
            for (std::size_t i = 0; i < n; ++i)
                for (const bool up : {false, true}) {
                    RefRow corner(n);
                    Ref widest = 0;
                    for (std::size_t j = 0; j < n; ++j) {
                        corner[j] = (j == i) == up ? high[j] : low[j];
                        if (z[j] > -infinity)
                            widest = std::max(widest, std::abs(corner[j] - corner[i]) / Ref(temperature));
                    }
                    if (visible_count(z) == 0) continue;
                    const Ref exact = z[i] > -infinity ? ref_softmax(corner, temperature)[i] : Ref(0);
                    const double found = up ? greatest[i] : least[i];
                    // The exponents are rounded at their own size, however large the logits are.
                    attained.meet(std::abs(Ref(found) - exact),
                                  unit_roundoff<double> * (6 * std::min(widest, Ref(750)) + 32 + Ref(n)) *
                                          exact +
                                      4 * Ref(std::numeric_limits<double>::min()),
                                  where);
                }
        }
    });
    ATTNSCOPE_CHECK_WORST(attained);

    // And the audit sees it: the row at the corner of the third key.
    const std::vector<double> low = {0, -1, 0.5, -2}, high = {1, 0, 2, -1}, row = {0, -1, 2, -2};
    std::vector<double> least(4), greatest(4), p(4);
    box_weight_ranges<double>(in(low), in(high), 1, out(least), out(greatest));
    Softmax{}.apply<double>(in(row), out(p));
    check_attained(box_sharp<double>(in(p), in(least), in(greatest), 32 * unit_roundoff<double> * 1.0, 4.0)[1]);
    const std::vector<double> opposite = {1, 0, 0.5, -1};
    Softmax{}.apply<double>(in(opposite), out(p));
    check_attained(box_sharp<double>(in(p), in(least), in(greatest), 32 * unit_roundoff<double> * 1.0, 4.0)[0]);
}

TEMPLATE_TEST_CASE("an offset of all logits is without effect on the box, and equal logits have the weight 1/n",
                   "[box][offset]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const auto ranges = [](const std::vector<T>& low, const std::vector<T>& high, double temperature) {
        std::vector<T> least(low.size()), greatest(low.size());
        box_weight_ranges<T>(in(low), in(high), temperature, out(least), out(greatest));
        return std::make_pair(least, greatest);
    };
    for (const Offset<T>& offset : offsets<T>)
        for (const std::size_t n : lengths)
            for (const double temperature : {0.3, 1.0, 7.0}) {
                SplitMix64 random = generator(seed, n, 61);
                std::vector<T> low(n), high(n);
                for (std::size_t i = 0; i < n; ++i) {
                    low[i] = on_grid(static_cast<T>(3 * random.normal()), offset);
                    high[i] = low[i] + on_grid(static_cast<T>(2 * random.uniform()), offset);
                }
                CAPTURE(n, temperature, offset.value);
                CHECK(ranges(low, high, temperature) ==
                      ranges(moved(low, offset), moved(high, offset), temperature));
            }
    // 24 equal logits, however large.
    for (const double size : {0.0, 1e6, 1e17, 1e38})
        for (const double temperature : {1e-300, 1.0, 1e300}) {
            const std::vector<T> z(24, static_cast<T>(size));
            const auto [least, greatest] = ranges(z, z, temperature);
            for (std::size_t i = 0; i < z.size(); ++i) {
                CHECK(std::abs(24 * Ref(least[i]) - 1) < 16 * unit_roundoff<T>);
                CHECK(least[i] == greatest[i]);
            }
        }
    // Ends whose distance overflows.
    const T far = std::numeric_limits<T>::max() / 2 * T(1.5);
    const auto [least, greatest] = ranges({-far, far}, {-far, far}, static_cast<double>(far));
    CHECK(std::abs(Ref(least[0]) - 1 / (1 + std::exp(Ref(2)))) < 8 * unit_roundoff<T>);
    CHECK(greatest[0] == least[0]);
}

TEST_CASE("box bounds of unknown and masked logits", "[box]") {
    const auto ranges = [](const std::vector<double>& low, const std::vector<double>& high) {
        std::vector<double> least(low.size()), greatest(low.size());
        box_weight_ranges<double>(in(low), in(high), 1, out(least), out(greatest));
        return std::make_pair(least, greatest);
    };
    // Nothing known about one key: it may take all or nothing, and so may the other.
    CHECK(ranges({-infinity, 0}, {infinity, 0}) ==
          std::make_pair(std::vector<double>{0, 0}, std::vector<double>{1, 1}));
    // One masked key beside one that is known.
    CHECK(ranges({-infinity, 3}, {-infinity, 3}) ==
          std::make_pair(std::vector<double>{0, 1}, std::vector<double>{0, 1}));
    // A key that may be masked beside an equal one: from nothing to a half.
    CHECK(ranges({-infinity, 1}, {1, 1}) ==
          std::make_pair(std::vector<double>{0, 0.5}, std::vector<double>{0.5, 1}));
    // All masked, none.
    CHECK(ranges({-infinity, -infinity}, {-infinity, -infinity}) ==
          std::make_pair(std::vector<double>{0, 0}, std::vector<double>{0, 0}));
    CHECK(ranges({}, {}) == std::make_pair(std::vector<double>{}, std::vector<double>{}));
    // Nothing is lost where one key has nearly everything.
    const auto [least, greatest] = ranges({0, -100, -101}, {0, -100, -101});
    CHECK(std::abs(1 - least[1] / std::exp(-100.0)) < 1e-13);
    CHECK(greatest[2] == least[2]);
    CHECK_THROWS_WITH(ranges({1}, {0}), "box_weight_ranges: lower must be <= upper, got 1 and 0");
    CHECK_THROWS_AS(ranges({std::nan("")}, {1}), invalid_argument);
}

TEST_CASE("the critical temperature's bounds are attained", "[theorem][critical]") {
    // Below: gaps that grow like log k make every rank critical.
    for (const std::size_t n : {2u, 3u, 17u, 64u})
        for (const double temperature : {0.3, 1.0, 2.0}) {
            CAPTURE(n, temperature);
            std::vector<double> z(n);
            for (std::size_t k = 0; k < n; ++k) z[k] = -std::log(static_cast<double>(k + 1)) / 1.5;
            check_attained(critical_at(z, temperature)[0]);
        }
    // Above: ties that nobody else comes near.
    for (const std::size_t ties : {2u, 5u, 40u}) {
        const auto z = row_of(problems::two_level_row(Index(ties) + 20, Index(ties), 901), -900);
        for (const double temperature : {1.0, 1e-300, std::numeric_limits<double>::denorm_min()}) // 1/T = inf
            check_attained(critical_at(z, temperature)[1]);
    }
    // And one key above k* - 1 equal ones, at a gap of log k*/beta*, with beta* = 1.5 on either side of beta.
    for (const std::size_t rank : {2u, 3u, 9u, 300u})
        for (const std::size_t others : {0u, 20u})
            for (const double temperature : {0.25, 0.5, 2.0 / 3, 1.0, 2.0, 5.0}) {
                CAPTURE(rank, others, temperature);
                std::vector<double> z(rank, 1 - std::log(static_cast<double>(rank)) / 1.5);
                z[0] = 1;
                z.resize(rank + others, -2000);
                const auto upper = critical_at(z, temperature)[1];
                check_attained(upper);
                CHECK(upper.verdict() <= Verdict::within_rounding); // not vacuous beyond beta* either
                // Without the first key's own 1 it would be this, and nothing beyond beta*.
                CHECK(upper.value <
                      std::min(1.0, std::pow(static_cast<double>(rank), 1 / (1.5 * temperature) - 1)));
            }
    // Beyond beta* at least 1/zeta(beta/beta*) is left, whatever the length: here beta = 2 beta*, zeta(2) =
    // pi^2/6.
    for (const std::size_t n : {100u, 10'000u}) {
        std::vector<double> z(n);
        for (std::size_t k = 0; k < n; ++k) z[k] = -std::log(static_cast<double>(k + 1));
        const auto bounds = critical_at(z, 0.5);
        CHECK(bounds[0].value > 6 / (std::numbers::pi * std::numbers::pi) - 1e-6);
        CHECK(bounds[0].tightness() > 0.99999);
        CHECK(bounds[1].verdict() == Verdict::holds);
    }
    // The upper side says nothing about one key, and where the others vanish beside the first.
    CHECK(critical_at({3}, 1)[1].verdict() == Verdict::vacuous);
    for (const double temperature : {0.02, 1e-300, std::numeric_limits<double>::denorm_min()})
        CHECK(critical_at({0, -1}, temperature)[1].verdict() == Verdict::vacuous);
    CHECK(critical_at({0, -1}, 0.03)[1].verdict() <= Verdict::within_rounding);
}

TEST_CASE("the largest weight is limited by every rank, attained at any of them", "[theorem][critical]") {
    for (const std::size_t rank : {2u, 3u, 9u, 300u})
        for (const double gap : {0.0, 0.5, 3.0, 8.0})
            for (const double temperature : {0.5, 1.0, 4.0}) {
                CAPTURE(rank, gap, temperature);
                std::vector<double> z(rank, 1 - gap * temperature);
                z[0] = 1;
                z.resize(rank + 20, -9000);
                const LeadingLimit<double> limit = leading_weight_limit(z, temperature);
                CHECK(limit.rank == static_cast<Index>(rank));
                CHECK(std::abs(limit.value - 1 / (1 + static_cast<double>(rank - 1) * std::exp(-gap))) < 1e-14);
                check_attained(critical_at(z, temperature)[1]);
            }
    // A rival that decides beta*, and a crowd further off that decides the weight.
    std::vector<double> z(500, 1);
    z[0] = 4, z[1] = 3.5;
    const auto row = row_statistics<double>(in(z));
    const auto critical = critical_inverse_temperature<double>(in(z), 500);
    const auto alone = critical_temperature_sharp(row, critical)[1], crowd = critical_at(z, 1)[1];
    CHECK(critical.rank == 500);
    std::fill(z.begin() + 2, z.end(), -1);
    const auto near = critical_inverse_temperature<double>(in(z), 500);
    CHECK(near.rank == 2);
    const auto by_two = critical_temperature_sharp(row_statistics<double>(in(z)), near)[1],
               by_all = critical_at(z, 1)[1];
    CHECK(crowd.value <= alone.value);
    CHECK(by_all.value < 0.5 * by_two.value);
    CHECK(by_all.tightness() > 0.85);
    CHECK(by_all.verdict() == Verdict::holds);
    CHECK(leading_weight_limit(std::vector<double>{}).value == 1);
    CHECK(leading_weight_limit(std::vector<double>{3}).value == 1);
    CHECK_THROWS_AS(leading_weight_limit(std::vector<double>{3}, 0.0), invalid_argument);
}

TEST_CASE("counts at a few gaps enclose the largest weight, attained by keys at these gaps",
          "[theorem][gap_counting]") {
    const std::vector<double> gaps = {0, 0.5, 2, 7};
    for (const double temperature : {0.25, 1.0, 30.0}) {
        CAPTURE(temperature);
        // Above: at the gaps, the farthest key at the spread.
        std::vector<double> at = {3, 3}, beyond = {3, 3};
        for (const auto& [gap, count] :
             {std::pair(0.5, 4), std::pair(2.0, 100), std::pair(7.0, 1000), std::pair(9.0, 3)})
            at.insert(at.end(), static_cast<std::size_t>(count), 3 - gap * temperature);
        // Below: a little beyond the gap before.
        for (const auto& [gap, count] :
             {std::pair(0.0, 4), std::pair(0.5, 100), std::pair(2.0, 1000), std::pair(7.0, 3)})
            beyond.insert(beyond.end(), static_cast<std::size_t>(count), 3 - (gap + 1e-9) * temperature);
        const auto upper = gap_counting_sharp(row_statistics<double>(in(at), temperature), in(at), in(gaps))[1];
        check_attained(upper);
        const auto lower =
            gap_counting_sharp(row_statistics<double>(in(beyond), temperature), in(beyond), in(gaps))[0];
        CHECK(lower.verdict() == Verdict::holds);
        CHECK(lower.tightness() > 1 - 1e-8);
        CHECK(lower.tightened(0.99).verdict() == Verdict::violated);
    }
    // No gap at all: Corollary 1. Counts at every gap of the row: p1 itself.
    const std::vector<double> z = {1, 0.5, 0.5, -2}, every = {0, 0.5, 3};
    const auto row = row_statistics<double>(in(z));
    const Interval<double> none = gap_counting_range<double>({}, {}, 4, 3.0);
    CHECK(std::abs(none.upper - 1 / (1 + 3 * std::exp(-3.0))) < 1e-15);
    CHECK(none.lower == 0.25);
    CHECK(std::abs(gap_counting_sharp(row, in(z), in(every))[1].slack()) < 1e-15);
    const std::vector<double> down = {1, 0.5};
    const std::vector<Index> counts = {1, 2}, fall = {2, 1}, more = {1, 9};
    CHECK_THROWS_AS(gap_counting_range<double>(down, counts, 4, 3.0), invalid_argument);
    CHECK_THROWS_AS(gap_counting_range<double>(every, counts, 4, 3.0), invalid_argument);
    const std::vector<double> up = {0, 1};
    CHECK_THROWS_AS(gap_counting_range<double>(up, fall, 4, 3.0), invalid_argument);
    CHECK_THROWS_AS(gap_counting_range<double>(up, more, 4, 3.0), invalid_argument);
}

TEST_CASE("the nearest, mean and farthest gap enclose the largest weight, attained by two levels",
          "[theorem][log_n_phase]") {
    for (const double temperature : {0.25, 1.0, 30.0})
        for (const std::size_t others : {1u, 2u, 7u, 300u})
            for (const double gap : {0.0, 0.7, std::log(static_cast<double>(others)), 9.0}) {
                CAPTURE(temperature, others, gap);
                // Above: equal others.
                std::vector<double> z(others + 1, 3 - gap * temperature);
                z[0] = 3;
                check_attained(log_n_phase_sharp(row_statistics<double>(in(z), temperature), in(z))[1]);
                // Below: others at the nearest and at the farthest gap, in any proportion.
                for (const std::size_t near : {std::size_t(1), others / 2 + 1, others}) {
                    for (std::size_t i = near + 1; i < z.size(); ++i) z[i] = 3 - (gap + 2.5) * temperature;
                    check_attained(log_n_phase_sharp(row_statistics<double>(in(z), temperature), in(z))[0]);
                    std::fill(z.begin() + 1, z.end(), 3 - gap * temperature);
                }
            }
    // At a mean gap of log(n-1) the limit is 1/2, whatever n is; a nearest gap of log(n-1) is enough for 1/2.
    for (const std::size_t others : {2u, 9u, 100u, 5000u}) {
        CAPTURE(others);
        std::vector<double> z(others + 1, -std::log(static_cast<double>(others)));
        z[0] = 0;
        const LogNPhase<double> phase = log_n_phase<double>(in(z));
        CHECK(phase.others == static_cast<Index>(others));
        CHECK(std::abs(phase.phase() - 1) < 1e-13);
        CHECK(std::abs(phase.nearest_phase() - 1) < 1e-15);
        CHECK(std::abs(log_n_phase_range(phase).upper - 0.5) < 1e-11);
        CHECK(std::abs(log_n_phase_range(phase).lower - 0.5) < 1e-14);
    }
    const std::vector<double> one = {4};
    CHECK(log_n_phase<double>(in(one)).others == 0);
    CHECK(std::isnan(log_n_phase<double>(in(one)).phase()));
    CHECK(log_n_phase_range(log_n_phase<double>(in(one))).lower == 1);
    CHECK_THROWS_AS(log_n_phase<double>(in(one), 0.0), invalid_argument);
}

TEST_CASE("tokens at equal angles go through the transition at gamma = 1/(1-rho)", "[theorem][log_n_phase]") {
    // Against the layer itself, in long double.
    for (const int n : {2, 5, 24})
        for (const double rho : {-0.04, 0.0, 0.3, 0.9})
            for (const double gamma : {0.0, 0.5, 1.0, 1 / (1 - rho), 4.0}) {
                CAPTURE(n, rho, gamma);
                const Ref beta = static_cast<Ref>(gamma) * std::log(static_cast<Ref>(n)), cosine = rho;
                Eigen::Matrix<Ref, Eigen::Dynamic, Eigen::Dynamic> gram(n, n), weights(n, n);
                gram.setConstant(cosine);
                gram.diagonal().setOnes();
                weights = (beta * gram.array()).exp();
                for (int i = 0; i < n; ++i) weights.row(i) /= weights.row(i).sum();
                const auto out = (weights * gram * weights.transpose()).eval();
                const SimplexAttention layer = simplex_attention(n, rho, gamma);
                CHECK(std::abs(layer.own_weight - static_cast<double>(weights(0, 0))) < 1e-15);
                CHECK(std::abs(layer.other_weight - static_cast<double>(weights(0, 1))) < 1e-15);
                CHECK(std::abs(layer.length - static_cast<double>(std::sqrt(out(0, 0)))) < 1e-14);
                CHECK(std::abs(layer.cosine - static_cast<double>(out(0, 1) / out(0, 0))) < 1e-13);
            }
    // The transition sharpens with n: alike below, as they were above, s = 1/2 at the critical gamma.
    for (const double rho : {0.1, 0.5, 0.8}) {
        const double critical = 1 / (1 - rho);
        double below = 2, above = 2;
        for (const double n : {1e2, 1e4, 1e8, 1e16}) {
            CAPTURE(rho, n);
            const double apart = 1 - simplex_attention(n, rho, 0.8 * critical).cosine,
                         changed = simplex_attention(n, rho, 1.2 * critical).cosine - rho;
            CHECK(apart < below);
            CHECK(changed < above);
            below = apart, above = changed;
            CHECK(std::abs(simplex_attention(n, rho, critical).own_weight - n / (2 * n - 1)) < 1e-12);
        }
        CHECK(below < 1e-5);
        CHECK(above < 2e-3);
        CHECK(std::abs(simplex_attention(1e16, rho, critical).cosine - rho / (rho + (1 - rho) / 4)) < 1e-10);
    }
    CHECK(simplex_attention(1, 0.5, 3).cosine == 1);
    CHECK_THROWS_AS(simplex_attention(0, 0.5, 1), invalid_argument);
    CHECK_THROWS_AS(simplex_attention(9, -0.5, 1), invalid_argument);
    CHECK_THROWS_AS(simplex_attention(9, 0.5, -1), invalid_argument);
}

TEST_CASE("the score deficit of rows of small spread is attained by one key above equal others",
          "[theorem][deficit]") {
    for (const std::size_t n : {2u, 3u, 9u, 256u, 1000u})
        for (const double temperature : {0.25, 1.0, 3.0})
            for (const double share : {1e-9, 0.01, 0.5, 0.99, 1.0}) {
                CAPTURE(n, temperature, share);
                const double limit = score_deficit_limit(static_cast<Index>(n), temperature),
                             spread = share * (temperature + limit);
                const auto z = row_of(problems::needle_row(Index(n), spread, Index(n / 2)));
                const Bound<double> bound = score_deficit_sharp(row_statistics<double>(in(z), temperature));
                check_attained(bound);
                CHECK(bound.value <= limit);
                CHECK(bound.verdict() != Verdict::vacuous);
            }
    CHECK(score_deficit_limit(5, 0.0, 1.0) == 0);
    CHECK(score_deficit_limit(1, 3.0, 1.0) == 0);
    CHECK(score_deficit_limit(5, 1e300, 1.0) == score_deficit_limit(5, 1.0));
    CHECK_THROWS_AS(score_deficit_limit(5, -1.0, 1.0), invalid_argument);
}

TEST_CASE("the score deficit's bound is attained by one key above equal others", "[theorem][deficit]") {
    for (const std::size_t n : {2u, 3u, 9u, 256u, 1000u})
        for (const double temperature : {0.25, 1.0, 3.0}) {
            CAPTURE(n, temperature);
            const double limit = score_deficit_limit<double>(static_cast<Index>(n), temperature);
            // W e^W = (n-1)/e, checked without the library that made it.
            const Ref w = Ref(limit) / Ref(temperature);
            CHECK(std::abs(w * std::exp(w + 1) / static_cast<Ref>(n - 1) - 1) <
                  32 * (1 + w) * unit_roundoff<double>);
            CHECK(limit <= temperature * std::log(static_cast<double>(n)));
            const auto z = row_of(problems::deepest_needle_row(Index(n), temperature));
            Bound<double> bound = score_deficit_sharp(row_statistics<double>(in(z), temperature));
            check_attained(bound);
            CHECK(bound.verdict() != Verdict::vacuous); // the spread is larger by T
        }
    CHECK(score_deficit_limit<double>(1, 1.0) == 0);
    CHECK(score_deficit_sharp(row_statistics<double>(in(std::vector<double>{2, 2, 2}))).verdict() ==
          Verdict::vacuous);
    CHECK_THROWS_WITH(score_deficit_limit<double>(0, 1.0), "score_deficit_limit: n must be >= 1, got 0");
}

TEST_CASE("the spectral bracket is attained when all others are equal, for softmax and entmax",
          "[theorem][bracket]") {
    for (const std::size_t n : {2u, 3u, 17u, 256u}) {
        const auto z = row_of(problems::needle_row(Index(n), 1.25, Index(n / 2)), 0.25);
        std::vector<double> p(n);
        Softmax(0.5).apply<double>(in(z), out(p));
        const double norm = jacobian_norms(Softmax(0.5), in(z), in(p)).spectral.value;
        for (const auto& bound :
             spectral_bracket_sharp<double>(in(p), 2.0, norm, 64 * unit_roundoff<double> * 1.0)) {
            CAPTURE(n);
            check_attained(bound);
        }
    }
    const std::uint64_t seed = test_seed();
    Audit audit;
    RowAuditor auditor;
    for_each_row<double>(seed, lengths, 20, [&](const Where& where, const std::vector<double>& z) {
        auditor(audit, Softmax(temperatures[where.length % 5]), in(z));
        for (const double alpha : {1.25, 1.5, 2.0, 3.0}) auditor(audit, Entmax(alpha), in(z));
    });
    const AuditRecord& record = audit.at(spectral_bracket_sharp_statement);
    CHECK(record.checked > 12'000);
    CHECK(record[Verdict::violated] == 0);
    CHECK(record.median_tightness() > 0.7);
}

TEST_CASE("missed tokens: every ranking of seven tokens obeys, and some ranking attains every limit",
          "[theorem][missed]") {
    constexpr Index n = 7;
    for (Index k = 0; k <= n; ++k) {
        std::vector<bool> useful(n, false);
        std::fill(useful.begin(), useful.begin() + k, true);
        std::sort(useful.begin(), useful.end());
        // Rankings that differ in the places of useful tokens only count once.
        std::vector<std::vector<Index>> most(n + 1, std::vector<Index>(n * n, -1));
        do {
            std::vector<Index> order(n);
            std::iota(order.begin(), order.end(), Index(0));
            const RankedUseful ranked = count_inversions(order, useful);
            CHECK(ranked.useful == k);
            for (Index selected = 0; selected <= n; ++selected) {
                Index missed = k;
                for (Index i = 0; i < selected; ++i) missed -= useful[static_cast<std::size_t>(i)];
                const auto bound = missed_tokens_sharp(ranked, selected, missed);
                CHECK(bound.slack() >= 0);
                CHECK(missed <= most_missed(ranked, selected));
                Index& seen =
                    most[static_cast<std::size_t>(selected)][static_cast<std::size_t>(ranked.inversions)];
                seen = std::max(seen, missed);
                if (missed > 0 && bound.slack() == 0 && bound.measured > 0) {
                    CHECK(missed == most_missed(ranked, selected));
                    check_attained(bound);
                }
            }
        } while (std::next_permutation(useful.begin(), useful.end()));
        // Sharp: each limit is met by some ranking of that many inversions.
        for (Index selected = 0; selected <= n; ++selected)
            for (Index inversions = 0; inversions <= k * (n - k); ++inversions) {
                CAPTURE(k, selected, inversions);
                CHECK(most[static_cast<std::size_t>(selected)][static_cast<std::size_t>(inversions)] ==
                      most_missed({n, k, inversions}, selected));
            }
    }
    CHECK_THROWS_AS(count_inversions(std::vector<Index>{0, 0}, {true, false}), invalid_argument);
    CHECK_THROWS_WITH(most_missed({3, 1, 0}, 4), "most_missed: selected must be in [0, tokens], got 4 and 3");
}

TEST_CASE("derivatives of entropy and weights agree with differences", "[theorem][derivative]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const auto entropy = [](const RefRow& z) {
        Ref h = 0;
        for (const Ref p : ref_softmax(z))
            if (p > 0) h -= p * std::log(p);
        return h;
    };
    Worst by_logit, by_temperature, weights, sums;
    std::size_t caught = 0;
    for (const std::size_t n : {1u, 2u, 7u, 16u})
        for (const double spread : {0.1, 1.0, 4.0})
            for (const double temperature : {0.5, 1.0, 3.0}) {
                SplitMix64 random = generator(seed, n, 51);
                std::vector<double> z = normal_row<double>(random, n), slope(n), moved(n);
                for (double& x : z) x *= spread;
                const Where where{"normal", n, temperature, seed};
                entropy_gradient<double>(in(z), temperature, out(slope));
                weight_temperature_derivative<double>(in(z), temperature, out(moved));
                const auto at = [&](Ref beta, std::size_t i, Ref step) {
                    RefRow row = widen(z);
                    if (i < n) row[i] += step;
                    for (Ref& x : row) x *= beta;
                    return row;
                };
                // Central differences: h^2 times a third derivative of order (spread/T)^3, and rounding over h.
                const Ref h = 1e-6L, beta = 1 / Ref(temperature);
                const Ref size = 1 + Ref(spread) * Ref(temperature) * 8;
                const Ref error = 64 * h * h * size * size * size * size + 64 * unit_roundoff<Ref> * 8 / h;
                Ref sum = 0, weight_sum = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    const Ref difference = (entropy(at(beta, i, h)) - entropy(at(beta, i, -h))) / (2 * h);
                    by_logit.meet(std::abs(Ref(slope[i]) - difference), error, where);
                    caught += std::abs(0.99L * Ref(slope[i]) - difference) > error;
                    sum += slope[i];
                    const Ref change =
                        (ref_softmax(at(beta + h, n, 0))[i] - ref_softmax(at(beta - h, n, 0))[i]) / (2 * h);
                    weights.meet(std::abs(Ref(moved[i]) - change), error, where);
                    weight_sum += moved[i];
                }
                sums.meet(std::abs(sum) + std::abs(weight_sum), 1e-14L * size * size, where);
                const auto row = row_statistics<double>(in(z), temperature);
                const Ref difference = (entropy(at(beta + h, n, 0)) - entropy(at(beta - h, n, 0))) / (2 * h);
                by_temperature.meet(std::abs(Ref(entropy_temperature_derivative(row)) - difference), error,
                                    where);
                by_temperature.meet(std::abs(Ref(entropy_log_temperature_derivative(row)) - beta * difference),
                                    error * (1 + beta), where);
            }
    ATTNSCOPE_CHECK_WORST(by_logit);
    ATTNSCOPE_CHECK_WORST(by_temperature);
    ATTNSCOPE_CHECK_WORST(weights);
    ATTNSCOPE_CHECK_WORST(sums);
    CHECK(caught > 100);

    std::vector<double> z = {0, -infinity, -700}, slope(3);
    entropy_gradient<double>(in(z), 1, out(slope));
    CHECK(slope[1] == 0);
    // p (u - H) of a key that hardly weighs: relative digits are kept.
    CHECK(std::abs(slope[2] / (700 * std::exp(-700.0)) - 1) < 1e-12);
    z = {std::nan(""), 0, 0};
    entropy_gradient<double>(in(z), 1, out(slope));
    CHECK(std::isnan(slope[1]));
    z.assign(3, -infinity);
    entropy_gradient<double>(in(z), 1, out(slope));
    CHECK(slope == std::vector<double>{0, 0, 0});
}
