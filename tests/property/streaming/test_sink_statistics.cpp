// Rows beside a sink: figures from the sums over the keys, outputs of scans, and heads that stream.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/streaming/scan.hpp>
#include <support/analysis_reference.hpp>
#include <support/rows.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Weights of the keys and, behind them, of the sink; entropies of all of them and of the keys alone. Exponents, in long
/// double, no difference of logarithms where a share is near 1.
struct Exact {
    std::vector<Ref> p;
    Ref log_sum = 0, with_sink = 0, keys = 0;
    Exact(std::vector<Ref> x, Ref sink) {
        x.push_back(sink);
        const Ref top = *std::max_element(x.begin(), x.end());
        Ref sum = 0;
        for (const Ref z : x) p.push_back(std::exp(z - top)), sum += p.back();
        log_sum = top + std::log(sum);
        with_sink = entropy(p.size());
        keys = entropy(p.size() - 1);
        for (Ref& e : p) e /= sum;
    }
    Ref sink() const { return p.back(); }
    Ref all_keys() const {
        Ref sum = 0;
        for (std::size_t i = 0; i + 1 < p.size(); ++i) sum += p[i];
        return sum;
    }

private:
    Ref entropy(std::size_t n) const {
        Ref sum = 0, h = 0;
        for (std::size_t i = 0; i < n; ++i) sum += p[i];
        for (std::size_t i = 0; i < n; ++i) {
            Ref others = 0;
            for (std::size_t j = 0; j < n; ++j)
                if (j != i) others += p[j];
            if (p[i] > 0) h += p[i] / sum * std::log1p(others / p[i]);
        }
        return h;
    }
};

bool near(Ref found, Ref right, Ref relative) { return std::abs(found - right) <= relative * std::abs(right); }

template <class T>
void check_pieces() {
    SplitMix64 random = generator(test_seed(), sizeof(T));
    for (const std::size_t n : {std::size_t(1), std::size_t(2), std::size_t(40)})
        for (const double sink : {-200.0, -20.0, -1.0, 0.0, 3.0, 40.0, 300.0})
            for (const double size : {0.0, 1.0, 20.0}) {
                INFO("keys " << n << ", sink " << sink << ", size " << size << ", seed " << test_seed());
                std::vector<T> z(n);
                for (T& x : z) x = static_cast<T>(size * random.bell());
                const std::span<const T> row(z);
                RowState<T> first, second;
                first.add(row.first(n / 2), 0);
                second.add(row.subspan(n / 2), static_cast<Index>(n / 2));
                second.merge(first);
                const SinkStatistics<Accumulator<T>> found(second.statistics(), sink);
                const Exact right(std::vector<Ref>(z.begin(), z.end()), sink);
                Ref largest = std::abs(Ref(sink));
                for (const T x : z) largest = std::max(largest, std::abs(Ref(x)));
                // The sums promise 1e-6 (float) and 1e-13 (double); distances of exponents are rounded.
                const Ref error = (std::same_as<T, float> ? Ref(1e-6) : Ref(1e-13)) +
                                  4 * Ref(std::numeric_limits<Accumulator<T>>::epsilon()) * (largest + 4);
                REQUIRE(found.normal());
                CHECK(near(found.sink_mass(), right.sink(), error));
                CHECK(near(found.key_mass(), right.all_keys(), error));
                CHECK(std::abs(found.log_sum_exp() - right.log_sum) <= error * (1 + std::abs(right.log_sum)));
                CHECK(near(found.max_weight(), *std::max_element(right.p.begin(), right.p.end() - 1), error));
                CHECK(near(found.weight_of(Accumulator<T>(z[0])), right.p[0], error));
                CHECK(near(found.entropy_with_sink_nats(), right.with_sink, error * (2 * largest + 4)));
                CHECK(std::abs(found.keys().entropy_nats() - right.keys) <= error * (2 * largest + 4));
            }
}

} // namespace

TEST_CASE("a sink beside a row in pieces: figures are those of plain loops", "[streaming][sink]") {
    check_pieces<float>();
    check_pieces<double>();
}

TEST_CASE("a sink beside a row: special rows, and no sink", "[streaming][sink]") {
    const auto of = [](std::vector<double> z, double sink) {
        return SinkStatistics<double>(row_statistics<double>(std::span<const double>(z)), sink);
    };
    for (const std::vector<double>& nothing : {std::vector<double>(), {-infinity, -infinity}}) {
        const auto row = of(nothing, 2);
        CHECK(row.status() == RowStatus::empty);
        CHECK(row.sink_mass() == 1);
        CHECK(row.key_mass() == 0);
        CHECK(row.log_sum_exp() == 2);
        CHECK(row.entropy_with_sink_nats() == 0);
        CHECK(std::isnan(row.max_weight()));
        const auto none = of(nothing, -infinity);
        CHECK(none.sink_mass() == 0);
        CHECK(none.log_sum_exp() == -infinity);
        CHECK(std::isnan(none.entropy_with_sink_nats()));
    }
    const auto vanished = of({-900, -800}, 0);
    CHECK(vanished.status() == RowStatus::empty);
    CHECK(vanished.sink_mass() == 1);
    CHECK(vanished.log_sum_exp() == 0);
    CHECK(vanished.entropy_with_sink_nats() == 0);
    const auto infinite = of({1, infinity}, 0);
    CHECK(infinite.status() == RowStatus::infinite);
    CHECK(infinite.sink_mass() == 0);
    CHECK(infinite.key_mass() == 1);
    CHECK(infinite.log_sum_exp() == infinity);
    const auto nan = of({1, std::nan("")}, 0);
    CHECK(std::isnan(nan.sink_mass()));
    CHECK(std::isnan(nan.log_sum_exp()));
    // Without weight: the bits of the keys.
    const auto plain = of({0.3, -1, 2}, -infinity);
    CHECK(plain.sink_mass() == 0);
    CHECK(plain.log_sum_exp() == plain.keys().log_sum_exp());
    CHECK(plain.max_weight() == plain.keys().max_weight());
    CHECK(plain.second_weight() == plain.keys().second_weight());
    CHECK(plain.entropy_with_sink_nats() == plain.keys().entropy_nats());
    // At the ends of the range.
    const double most = std::numeric_limits<double>::max();
    CHECK(of({-most}, most).sink_mass() == 1);
    CHECK(of({most}, -most).sink_mass() == 0);
    CHECK(of({most}, most).sink_mass() == 0.5);
    for (const double wrong : {infinity, std::nan("")}) CHECK_THROWS_AS(of({1}, wrong), invalid_argument);
}

TEST_CASE("scan: outputs beside a sink are those of plain loops", "[streaming][sink]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 5);
    const ExactHead head(random, 9, 30, 4, 3);
    const double temperature = 0.5;
    const Matrix<double> z = reference_logits(head.q, head.k, 0.5, {.causal = true, .offset = 4});
    const ScanOptions without{.key_tile = 8, .output = true, .temperature = temperature};
    const Mask mask = Mask::causal(4);
    for (const double sink : {-4.0, 0.5, 12.0}) {
        ScanOptions options = without;
        options.sink_logit = sink;
        const auto found = scan(head.q, head.k, head.v, mask, options);
        CHECK(found.sink_exponent == sink / temperature);
        for (Index i = 0; i < 9; ++i) {
            std::vector<Ref> x;
            for (Index j = 0; j < 30; ++j)
                if (z(i, j) > -infinity) x.push_back(Ref(z(i, j)) / Ref(temperature));
            const Exact right(x, Ref(sink) / Ref(temperature));
            CHECK(near(found.with_sink(i).sink_mass(), right.sink(), 1e-13L));
            for (Index c = 0; c < 3; ++c) {
                Ref o = 0, size = 0;
                for (std::size_t j = 0; j < x.size(); ++j) {
                    o += right.p[j] * Ref(head.v(static_cast<Index>(j), c));
                    size += right.p[j] * std::abs(Ref(head.v(static_cast<Index>(j), c)));
                }
                CHECK(std::abs(Ref(found.output(i, c)) - o) <= 1e-13L * size);
            }
        }
    }
    const auto plain = scan(head.q, head.k, head.v, mask, without);
    ScanOptions none = without;
    none.sink_logit = -infinity;
    const auto same = scan(head.q, head.k, head.v, mask, none);
    CHECK((plain.output.array() == same.output.array()).all());
    CHECK(plain.rows == same.rows);
    CHECK(plain.with_sink(3).sink_mass() == 0);

    const std::vector<HeadView<double>> two(2, HeadView<double>(head.q, head.k, head.v));
    ScanOptions each = without;
    each.sink_logits = {0.5, -infinity};
    const auto heads = scan_heads(two, mask, each);
    ScanOptions one = without;
    one.sink_logit = 0.5;
    CHECK((heads[0].output.array() == scan(head.q, head.k, head.v, mask, one).output.array()).all());
    CHECK((heads[1].output.array() == plain.output.array()).all());
    each.sink_logits = {1};
    CHECK(error_of([&] { (void)scan_heads(two, mask, each); }).find("one entry for each head") !=
          std::string::npos);
    one.sink_logit = infinity;
    CHECK(error_of([&] { (void)scan(head.q, head.k, head.v, mask, one); }).find("finite or -inf") !=
          std::string::npos);
}

TEST_CASE("analyze: a head with a sink that streams has the figures of one that does not",
          "[streaming][sink]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 6);
    const Index n = 40;
    const ExactHead head(random, n, n, 4, 3);
    std::vector<bool> padding(static_cast<std::size_t>(n), false);
    padding[5] = true;
    for (const double sink : {-infinity, -6.0, 0.5, 9.0})
        for (const double temperature : {1.0, 0.5})
            for (const bool single : {false, true}) {
                INFO("sink " << sink << ", temperature " << temperature);
                AnalysisOptions options{.mask = Mask::sliding_window(7),
                                        .temperature = temperature,
                                        .sink_logit = sink,
                                        .counts = {1, 2},
                                        .padding = padding};
                const HeadAnalysis dense = analyze(head.q, head.k, head.v, options);
                options.streamed_above = 0;
                options.single_precision = single;
                const HeadAnalysis streamed = analyze(head.q, head.k, head.v, options);
                CHECK(streamed.streamed);
                CHECK(streamed.rows.status == dense.rows.status);
                CHECK(streamed.sink_logit == sink);
                CHECK(std::isnan(streamed.rows.sink_mass[5]));
                CHECK(streamed.examined.size() < static_cast<std::size_t>(n));
                CHECK(streamed.audit.sharp_violations() == 0);
                for (const RowFigure& figure : figures_of(dense.rows))
                    for (Index i = 0; i < n; ++i) {
                        const double a = (streamed.rows.*figure.values)[i], b = (dense.rows.*figure.values)[i];
                        if (std::isnan(a) && std::isnan(b)) continue;
                        INFO(figure.name << " of query " << i << ": " << a << ", dense " << b);
                        // Entropies of 0 are a rounding of the sum in the dense way.
                        const double error = single ? 2e-5 : 1e-12;
                        CHECK(std::abs(a - b) <= error * (std::abs(b) + (figure.name == "log_sum_exp") + 1e-3));
                    }
            }
}
