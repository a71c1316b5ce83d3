// Heads with a learned sink: figures by plain loops in long double, the audit of the rows in which the sink is a key.
#include <support/analysis_reference.hpp>

#include <attnscope/runtime/registry.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// A row by its definition: exponents x of the keys, and of the sink.
struct SinkRow {
    std::vector<Ref> p;
    Ref mass = 0, log_sum = 0, with_sink = 0, alone = 0, ratio = 0;
    SinkRow(std::vector<Ref> x, Ref sink) {
        x.push_back(sink);
        const Ref top = *std::max_element(x.begin(), x.end());
        Ref sum = 0, keys = 0, squares = 0;
        for (const Ref z : x) p.push_back(std::exp(z - top));
        for (const Ref e : p) sum += e;
        for (std::size_t i = 0; i + 1 < p.size(); ++i) keys += p[i], squares += p[i] * p[i];
        log_sum = top + std::log(sum);
        ratio = keys * keys / squares;
        for (std::size_t i = 0; i < p.size(); ++i) {
            with_sink -= p[i] / sum * log_share(i, p.size());
            if (i + 1 < p.size()) alone -= p[i] / keys * log_share(i, p.size() - 1);
        }
        for (Ref& e : p) e /= sum;
        mass = p.back();
        p.pop_back();
    }

private:
    /// log of the share of term i in the first n of them: no difference of logarithms where it is near 1.
    Ref log_share(std::size_t i, std::size_t n) const {
        Ref others = 0;
        for (std::size_t j = 0; j < n; ++j)
            if (j != i) others += p[j];
        return -std::log1p(others / p[i]);
    }
};

/// Norms of the dense Jacobian dp_i/dz_j = p_i (1[i = j] - p_j) f_j, where 1 - p_j is what the others and the sink have.
struct DenseNorms {
    Ref frobenius = 0, max_entry = 0, column = 0, one = 0;
    DenseNorms(const std::vector<Ref>& p, Ref mass, const std::vector<Ref>& f) {
        Ref squares = 0;
        for (std::size_t j = 0; j < p.size(); ++j) {
            Ref length = 0, sum = 0, others = mass;
            for (std::size_t i = 0; i < p.size(); ++i) others += i == j ? 0 : p[i];
            for (std::size_t i = 0; i < p.size(); ++i) {
                const Ref entry = p[i] * (i == j ? others : -p[j]) * f[j];
                length += entry * entry;
                sum += std::abs(entry);
                max_entry = std::max(max_entry, std::abs(entry));
            }
            squares += length;
            column = std::max(column, std::sqrt(length));
            one = std::max(one, sum);
        }
        frobenius = std::sqrt(squares);
    }
};

Matrix<double> random_logits(SplitMix64& random, Index queries, Index keys, double size) {
    Matrix<double> z(queries, keys);
    for (Index i = 0; i < z.size(); ++i) z.data()[i] = size * random.bell();
    return z;
}

void check_near(double found, Ref right, double relative, std::string_view what) {
    INFO(what << ": " << found << ", right " << static_cast<double>(right));
    CHECK(std::abs(Ref(found) - right) <= Ref(relative) * std::abs(right) + Ref(1e-300));
}

/// The same rows under the same statements with the same verdicts; how close they come to a limit differs by the rounding
/// of the logits.
void compare_audits(const attnscope::Audit& found, const attnscope::Audit& right) {
    std::size_t stated = 0;
    for (std::size_t i = 0; i < right.records().size(); ++i) {
        const attnscope::AuditRecord &a = found.records()[i], &b = right.records()[i];
        INFO(b.statement->id);
        CHECK(a.checked == b.checked);
        // Which of the first two a row at its limit has is a matter of rounding.
        CHECK(a[Verdict::holds] + a[Verdict::within_rounding] ==
              b[Verdict::holds] + b[Verdict::within_rounding]);
        for (const Verdict verdict : {Verdict::vacuous, Verdict::undefined, Verdict::violated})
            CHECK(a[verdict] == b[verdict]);
        REQUIRE(a.tightness.size() == b.tightness.size());
        for (std::size_t k = 0; k < b.tightness.size(); ++k)
            if (std::abs(a.tightness[k] - b.tightness[k]) > 1e-9 * std::abs(b.tightness[k]) + 1e-9)
                FAIL_CHECK(b.statement->id << ": " << a.tightness[k] << ", right " << b.tightness[k]);
        stated += b.checked > 0;
    }
    CHECK(stated > 10);
}

} // namespace

TEST_CASE("analyze: figures of a head with a sink are those of plain loops", "[analysis][sink]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 24);
    const Index queries = 7, keys = 9;
    for (const std::optional<double> cap : {std::optional<double>(), std::optional(5.0)})
        for (const double temperature : {1.0, 0.25, 3.0})
            for (const double sink : {-30.0, -2.0, 0.5, 6.0, 25.0}) {
                INFO("sink " << sink << ", temperature " << temperature << ", cap " << cap.value_or(0));
                const Matrix<double> z = random_logits(random, queries, keys, 3);
                const AnyNormalizer normalizer = make_normalizer(cap ? "softcap:5|softmax" : "softmax");
                const HeadAnalysis head = analyze_logits(z, {.mask = Mask::causal(),
                                                             .temperature = temperature,
                                                             .normalizer = normalizer,
                                                             .sink_logit = sink,
                                                             .counts = {1, 2}});
                CHECK(head.sink_logit == sink);
                CHECK(head.normalizer == normalizer.name());
                for (Index i = 0; i < queries; ++i) {
                    INFO("query " << i);
                    std::vector<Ref> x, slope;
                    Ref largest = std::abs(Ref(sink));
                    for (Index j = 0; j <= i; ++j) {
                        const Ref own = Ref(z(i, j)) / Ref(temperature);
                        const Ref t = cap ? std::tanh(own / Ref(*cap)) : Ref(0);
                        x.push_back(cap ? Ref(*cap) * t : own);
                        slope.push_back((1 - t * t) / Ref(temperature));
                        largest = std::max(largest, std::abs(own));
                    }
                    const SinkRow right(x, Ref(sink) / Ref(temperature));
                    // Exponents are rounded a few times each, and weights are their exponentials.
                    const double unit = std::numeric_limits<double>::epsilon(),
                                 error = unit * (16 + 8 * static_cast<double>(largest) / temperature);
                    const RowColumns& rows = head.rows;
                    check_near(rows.sink_mass[i], right.mass, error, "sink_mass");
                    check_near(rows.log_sum_exp[i], right.log_sum,
                               error * (1 + static_cast<double>(largest / std::abs(right.log_sum))), "lse");
                    check_near(rows.max_weight[i], *std::max_element(right.p.begin(), right.p.end()), error,
                               "p1");
                    check_near(rows.first_key_weight[i], right.p[0], error, "first");
                    REQUIRE((rows.argmax[i] >= 0 && rows.argmax[i] <= i));
                    check_near(static_cast<double>(right.p[static_cast<std::size_t>(rows.argmax[i])]),
                               *std::max_element(right.p.begin(), right.p.end()), 2 * error, "p of argmax");
                    // -p log p moves by p (1 + |log p|) error.
                    const double spread = 2 * static_cast<double>(largest) / temperature + 2;
                    INFO("entropies of keys " << rows.entropy_nats[i] << " and with the sink "
                                              << rows.entropy_with_sink_nats[i]);
                    CHECK(std::abs(Ref(rows.entropy_nats[i]) - right.alone) <= error * spread);
                    check_near(rows.entropy_with_sink_nats[i], right.with_sink, error * spread, "with sink");
                    // The chain rule of entropies.
                    const Ref s = right.mass, r = 1 - s;
                    if (s > 1e-6L && r > 1e-6L)
                        CHECK(std::abs(Ref(rows.entropy_with_sink_nats[i]) -
                                       (r * Ref(rows.entropy_nats[i]) - r * std::log(r) - s * std::log(s))) <=
                              error * spread);
                    check_near(rows.participation_ratio[i], right.ratio, 4 * error, "ratio");
                    const DenseNorms norms(right.p, right.mass, slope);
                    check_near(rows.frobenius[i], norms.frobenius, 8 * error, "Frobenius");
                    check_near(rows.max_entry[i], norms.max_entry, 8 * error, "entry");
                    check_near(rows.column[i], norms.column, 8 * error, "column");
                    check_near(rows.one[i], norms.one, 8 * error, "one");
                }
            }
}

TEST_CASE("analyze: the audit behind a softcap, with a sink or without, is that of the rows which softmax sees",
          "[analysis][sink][softcap]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 25);
    const Index n = 20;
    const ExactHead head(random, n, n, 4, 3);
    struct Front {
        const char* name;
        std::optional<double> cap;
        double divisor; ///< of a temperature between softcap and softmax
    };
    for (const Front& front :
         {Front{"softmax", {}, 1}, Front{"softcap:2|softmax", 2, 1}, Front{"temperature:4|softmax", {}, 4},
          Front{"softcap:0.5|temperature:0.25|softmax", 0.5, 0.25}})
        for (const std::optional<double> sink :
             {std::optional<double>(), std::optional(-3.0), std::optional(1.5)})
            for (const double temperature : {1.0, 0.5})
                for (const bool with_values : {true, false}) {
                    const bool plain_softmax = std::string_view(front.name) == "softmax";
                    INFO(front.name << ", sink " << sink.value_or(-infinity) << ", temperature "
                                    << temperature);
                    std::vector<bool> padding(static_cast<std::size_t>(n), false);
                    padding[3] = true;
                    const AnalysisOptions options{.mask = Mask::causal(),
                                                  .temperature = temperature,
                                                  .normalizer = make_normalizer(front.name),
                                                  .sink_logit = sink,
                                                  .counts = {1, 2, 5},
                                                  .padding = padding};
                    // What softmax sees. Of softmax alone the temperature stays one, which statements name.
                    const double before = plain_softmax ? 1 : temperature;
                    const auto seen = [&](double z, bool capped) {
                        z /= before;
                        if (capped && front.cap) z = *front.cap * std::tanh(z / *front.cap);
                        return z / front.divisor;
                    };
                    Matrix<double> z = reference_logits(head.q, head.k, 0.5, {.causal = true}, padding);
                    for (Index i = 0; i < z.size(); ++i)
                        if (z.data()[i] > -infinity) z.data()[i] = seen(z.data()[i], true);
                    Matrix<double> longer(n, n + 1), values = Matrix<double>::Zero(n + 1, 3);
                    longer << z, Eigen::VectorXd::Constant(n, sink ? seen(*sink, false) : -infinity);
                    longer(3, n) = -infinity;
                    values.topRows(n) = head.v;
                    AnalysisOptions plain = options;
                    plain.normalizer = attnscope::Softmax();
                    plain.temperature = plain_softmax ? temperature : 1;
                    plain.sink_logit.reset();
                    if (sink) plain.mask = Mask::none();
                    for (Index i = 0; i < n; ++i) {
                        double longest = 0;
                        for (Index j = 0; j <= i; ++j) longest = std::max(longest, head.k.row(j).stableNorm());
                        const double delta = seen(head.q.row(i).stableNorm() * longest * 0.5, true);
                        plain.delta.push_back(sink ? std::max(delta, std::abs(seen(*sink, false))) : delta);
                    }
                    HeadAnalysis found = with_values ? analyze(head.q, head.k, head.v, options)
                                                     : analyze(head.q, head.k, options);
                    const HeadAnalysis right = !with_values ? analyze_logits(sink ? longer : z, plain)
                                               : sink       ? analyze_logits(longer, values, plain)
                                                            : analyze_logits(z, head.v, plain);
                    if (plain_softmax) {
                        HeadAnalysis expected = found;
                        expected.audit = right.audit;
                        CHECK(first_difference(found, expected) == "");
                    } else {
                        compare_audits(found.audit, right.audit);
                    }
                    CHECK(found.audit.unknown_rows() == 0);
                    CHECK(found.audit.sharp_violations() == 0);
                    CHECK(found.rows.status[3] == RowStatus::empty);
                    if (sink) CHECK(std::isnan(found.rows.sink_mass[3])); // padding
                }
    // Of what is no softmax behind its softcap nothing is stated: its rows are counted.
    const HeadAnalysis other =
        analyze(head.q, head.k, head.v, {.normalizer = make_normalizer("softcap:50|entmax:1.5")});
    CHECK(other.audit.unknown_rows() == static_cast<std::size_t>(n));
}

TEST_CASE("analyze: a sink at -inf is none, others that are no logits are refused", "[analysis][sink]") {
    SplitMix64 random = generator(test_seed(), 26);
    const ExactHead head(random, 12, 12, 4, 3);
    const HeadAnalysis without = analyze(head.q, head.k, head.v, {.mask = Mask::causal()});
    HeadAnalysis none = analyze(head.q, head.k, head.v, {.mask = Mask::causal(), .sink_logit = -infinity});
    CHECK((none.rows.sink_mass == 0).all());
    CHECK(same_bits(none.rows.entropy_with_sink_nats, none.rows.entropy_nats));
    CHECK(without.rows.sink_mass.size() == 0);
    none.rows.sink_mass.resize(0);
    none.rows.entropy_with_sink_nats.resize(0);
    CHECK(first_difference(none, without) == "");

    const auto refusal = [&](const AnalysisOptions& options) {
        return error_of([&] { (void)analyze(head.q, head.k, head.v, options); });
    };
    CHECK(refusal({.sink_logit = infinity}) == "analyze: sink_logit must be finite or -inf, got inf");
    CHECK(refusal({.sink_logit = std::nan("")}).find("finite or -inf") != std::string::npos);
    CHECK(refusal({.normalizer = Sparsemax(), .sink_logit = 1}).find("only softmax") != std::string::npos);
    CHECK(refusal({.normalizer = make_normalizer("softmax|topk:2"), .sink_logit = 1}).find("only softmax") !=
          std::string::npos);
    CHECK(refusal({.sink_logits = {1}}).find("sink_logits are of a group") != std::string::npos);
    const Matrix<double> half = Matrix<double>::Constant(2, 2, 0.5);
    CHECK_THROWS_AS(analyze_weights(half, {.sink_logit = 1}), invalid_argument);
}

TEST_CASE("analyze: rows beside a sink that are not normal", "[analysis][sink]") {
    Matrix<double> z(4, 2);
    z << -infinity, -infinity, std::nan(""), 1, infinity, 1, -900, -800;
    for (const double sink : {0.0, -infinity}) {
        const HeadAnalysis head = analyze_logits(z, {.sink_logit = sink});
        const bool has_one = sink == 0;
        CHECK(head.rows.status[0] == RowStatus::empty);
        CHECK(head.rows.status[1] == RowStatus::nan);
        CHECK(head.rows.status[2] == RowStatus::infinite);
        CHECK(head.rows.status[3] == (has_one ? RowStatus::empty : RowStatus::normal)); // they vanish beside it
        CHECK(head.rows.sink_mass[0] == (has_one ? 1 : 0));
        CHECK(std::isnan(head.rows.sink_mass[1]));
        CHECK(head.rows.sink_mass[2] == 0);
        CHECK(head.rows.sink_mass[3] == (has_one ? 1 : 0));
        if (has_one) CHECK(head.rows.entropy_with_sink_nats[0] == 0);
        CHECK(std::isnan(head.rows.entropy_with_sink_nats[1]));
    }
}

TEST_CASE("analyze: every head of a group has a sink of its own", "[analysis][sink]") {
    SplitMix64 random = generator(test_seed(), 27);
    const Matrix<double> q = eighths(random, 3 * 6, 4), k = eighths(random, 3 * 6, 4),
                         v = eighths(random, 3 * 6, 2);
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 3, 6, 4),
                                  HeadArray<double>::contiguous(k.data(), 3, 6, 4),
                                  HeadArray<double>::contiguous(v.data(), 3, 6, 2));
    const std::vector<double> sinks = {0.5, -infinity, 3};
    const LayerAnalysis layer = analyze(group, {.mask = Mask::causal(), .sink_logits = sinks});
    for (Index h = 0; h < 3; ++h) {
        const HeadAnalysis one = analyze(group[h], {.mask = Mask::causal(),
                                                    .sink_logit = sinks[static_cast<std::size_t>(h)],
                                                    .seed = mixed_seed(1, static_cast<std::uint64_t>(h))});
        CHECK(first_difference(layer[h], one) == "");
    }
    CHECK(error_of([&] {
              (void)analyze(group, {.sink_logits = {1, 2}});
          }).find("one entry for each head") != std::string::npos);
}
